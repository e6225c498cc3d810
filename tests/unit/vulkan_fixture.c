#include "vulkan_fixture.h"
#include "unit.h"

#include "util/os.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void fixture_need_driver(void)
{
    struct pv_host_caps *caps = calloc(1, sizeof(*caps));
    char error[512] = "";
    if (!caps || pv_host_probe(NULL, caps, error, sizeof(error)) < 0 ||
        pv_host_select(caps, NULL, error, sizeof(error)) < 0) {
        printf("skipped: %s\n", error);
        exit(77);
    }
    free(caps);
}

static uint32_t mappable_type(const struct fixture *fixture)
{
    const struct pv_device_caps *caps = fixture->physical->caps;
    for (uint32_t i = 0; i < caps->memory_type_count; i++) {
        if (caps->memory_types[i].tier != PV_MEMORY_TIER_NONE)
            return i;
    }
    fail_msg("a usable device has a mappable memory type");
    return 0;
}

static void make_device(struct fixture *fixture)
{
    float priority = 1.0f;
    VkDeviceQueueCreateInfo queue = {
        .sType = VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO,
        .queueCount = 1,
        .pQueuePriorities = &priority,
    };
    VkPhysicalDeviceSynchronization2Features sync2 = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SYNCHRONIZATION_2_FEATURES,
        .synchronization2 = VK_TRUE,
    };
    VkPhysicalDeviceTimelineSemaphoreFeatures timeline = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_TIMELINE_SEMAPHORE_FEATURES,
        .pNext = &sync2,
        .timelineSemaphore = VK_TRUE,
    };
    /* as Mesa 25 does: names that lavapipe has not */
    const char *extensions[] = {
        VK_KHR_EXTERNAL_MEMORY_FD_EXTENSION_NAME,
        VK_KHR_EXTERNAL_SEMAPHORE_FD_EXTENSION_NAME,
        VK_EXT_EXTERNAL_MEMORY_DMA_BUF_EXTENSION_NAME,
        VK_EXT_IMAGE_DRM_FORMAT_MODIFIER_EXTENSION_NAME,
        VK_EXT_QUEUE_FAMILY_FOREIGN_EXTENSION_NAME,
    };
    bool dma_buf = fixture->physical->offer_dma_buf || fixture->physical->caps->real_dma_buf;
    VkDeviceCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO,
        .pNext = &timeline,
        .queueCreateInfoCount = 1,
        .pQueueCreateInfos = &queue,
        .enabledExtensionCount = dma_buf ? 5 : 2,
        .ppEnabledExtensionNames = extensions,
    };
    assert_int_equal(pv_device_create(fixture->physical, &info, &fixture->device), VK_SUCCESS);
    struct pv_queue *made = pv_device_get_queue(fixture->device, 0, 0, 0);
    assert_non_null(made);
    assert_ptr_equal(pv_device_find_queue(fixture->device, made->handle), made);
    fixture->queue = made->handle;
}

static void make_tools(struct fixture *fixture)
{
    struct pv_device *device = fixture->device;
    VkCommandPoolCreateInfo pool = {.sType = VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO};
    VkFenceCreateInfo fence = {.sType = VK_STRUCTURE_TYPE_FENCE_CREATE_INFO};
    assert_int_equal(device->vk.CreateCommandPool(device->handle, &pool, NULL, &fixture->pool),
                     VK_SUCCESS);
    assert_int_equal(pv_layer_CreateFence(device, &fence, &fixture->fence), VK_SUCCESS);
}

struct fixture *fixture_create(enum pv_memory_tier tier, bool offer_dma_buf)
{
    return fixture_create_with(&(struct pv_host_options){.force_memory_tier = tier},
                               offer_dma_buf);
}

struct fixture *fixture_create_with(const struct pv_host_options *options, bool offer_dma_buf)
{
    struct fixture *fixture = calloc(1, sizeof(*fixture));
    assert_non_null(fixture);
    assert_int_equal(pv_host_probe(options, &fixture->caps, NULL, 0), 0);
    int index = pv_host_select(&fixture->caps, NULL, NULL, 0);
    if (index < 0) {
        free(fixture);
        return NULL;
    }
    struct pv_instance_params params = {
        .caps = &fixture->caps,
        .device_index = index,
        .offer_dma_buf = offer_dma_buf,
    };
    assert_int_equal(pv_instance_create(&params, &fixture->instance), VK_SUCCESS);
    assert_int_equal(fixture->instance->physical_count, 1);
    fixture->physical = &fixture->instance->physicals[0];
    fixture->type = mappable_type(fixture);
    make_device(fixture);
    make_tools(fixture);
    return fixture;
}

void fixture_destroy(struct fixture *fixture)
{
    if (!fixture)
        return;
    struct pv_device *device = fixture->device;
    device->vk.DestroyFence(device->handle, fixture->fence, NULL);
    device->vk.DestroyCommandPool(device->handle, fixture->pool, NULL);
    pv_device_destroy(device);
    pv_instance_destroy(fixture->instance);
    free(fixture);
}

VkResult fixture_allocate(struct fixture *fixture, VkDeviceSize size, struct pv_memory *out)
{
    VkMemoryAllocateInfo info = {
        .sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO,
        .allocationSize = size,
        .memoryTypeIndex = fixture->type,
    };
    memset(out, 0, sizeof(*out));
    return pv_layer_AllocateMemory(fixture->device, &info, out);
}

void *fixture_map(struct pv_memory *memory, size_t size)
{
    int fd = -1;
    void *map = NULL;
    assert_int_equal(pv_memory_export_fd(memory, size, &fd), 0);
    assert_int_equal(pv_shm_map(fd, size, &map), 0);
    close(fd);
    return map;
}

VkBuffer fixture_buffer(struct fixture *fixture, struct pv_memory *memory, VkDeviceSize size)
{
    struct pv_device *device = fixture->device;
    VkBufferCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO,
        .size = size,
        .usage = VK_BUFFER_USAGE_TRANSFER_SRC_BIT | VK_BUFFER_USAGE_TRANSFER_DST_BIT,
    };
    VkBuffer buffer;
    assert_int_equal(pv_layer_CreateBuffer(device, &info, &buffer), VK_SUCCESS);
    assert_int_equal(device->vk.BindBufferMemory(device->handle, buffer, memory->handle, 0),
                     VK_SUCCESS);
    return buffer;
}

VkCommandBuffer fixture_begin(struct fixture *fixture)
{
    struct pv_device *device = fixture->device;
    VkCommandBufferAllocateInfo info = {
        .sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO,
        .commandPool = fixture->pool,
        .commandBufferCount = 1,
    };
    VkCommandBufferBeginInfo begin = {.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO};
    VkCommandBuffer commands;
    assert_int_equal(device->vk.AllocateCommandBuffers(device->handle, &info, &commands),
                     VK_SUCCESS);
    assert_int_equal(device->vk.BeginCommandBuffer(commands, &begin), VK_SUCCESS);
    return commands;
}

void fixture_submit(struct fixture *fixture, VkCommandBuffer commands, bool wait)
{
    struct pv_device *device = fixture->device;
    VkSubmitInfo submit = {
        .sType = VK_STRUCTURE_TYPE_SUBMIT_INFO,
        .commandBufferCount = 1,
        .pCommandBuffers = &commands,
    };
    assert_int_equal(device->vk.EndCommandBuffer(commands), VK_SUCCESS);
    assert_int_equal(pv_layer_QueueSubmit(device, fixture->queue, 1, &submit,
                                          wait ? fixture->fence : VK_NULL_HANDLE),
                     VK_SUCCESS);
    if (!wait)
        return;
    assert_int_equal(
        device->vk.WaitForFences(device->handle, 1, &fixture->fence, VK_TRUE, 10000000000u),
        VK_SUCCESS);
    assert_int_equal(device->vk.ResetFences(device->handle, 1, &fixture->fence), VK_SUCCESS);
    pv_device_sync_memory(device);
    device->vk.FreeCommandBuffers(device->handle, fixture->pool, 1, &commands);
}
