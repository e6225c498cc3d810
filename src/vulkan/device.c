#include "vulkan/device.h"

#include "util/log.h"
#include "vulkan/chain.h"
#include "vulkan/copied.h"
#include "vulkan/device_internal.h"
#include "vulkan/instance.h"
#include "vulkan/loader.h"

#include <stdlib.h>
#include <string.h>

#define PV_LOG_MODULE "device"

/* What the layer uses itself where the driver has it, whether or not the guest asks for it. */
static const char *const helper_extensions[] = {
    VK_EXT_EXTERNAL_MEMORY_HOST_EXTENSION_NAME,    VK_KHR_EXTERNAL_MEMORY_FD_EXTENSION_NAME,
    VK_EXT_EXTERNAL_MEMORY_DMA_BUF_EXTENSION_NAME, VK_KHR_EXTERNAL_SEMAPHORE_FD_EXTENSION_NAME,
    VK_KHR_EXTERNAL_FENCE_FD_EXTENSION_NAME,       VK_KHR_TIMELINE_SEMAPHORE_EXTENSION_NAME,
};
#define HELPER_EXTENSION_COUNT (sizeof(helper_extensions) / sizeof(helper_extensions[0]))

struct name_list {
    const char **names;
    uint32_t count;
};

static void add_name(struct name_list *list, const char *name)
{
    for (uint32_t i = 0; i < list->count; i++) {
        if (strcmp(list->names[i], name) == 0)
            return;
    }
    list->names[list->count++] = name;
}

/* The driver's extension list from the guest's. list->names has room for all of them. */
static VkResult choose_extensions(struct pv_physical *physical, const VkDeviceCreateInfo *info,
                                  struct name_list *list)
{
    for (uint32_t i = 0; i < info->enabledExtensionCount; i++) {
        const char *name = info->ppEnabledExtensionNames[i];
        if (!pv_physical_guest_has(physical, name)) {
            pv_debug("the guest asks for %s, which %s does not have", name, physical->caps->name);
            return VK_ERROR_EXTENSION_NOT_PRESENT;
        }
        if (pv_physical_driver_has(physical, name))
            add_name(list, name);
    }
    for (size_t i = 0; i < HELPER_EXTENSION_COUNT; i++) {
        if (pv_physical_driver_has(physical, helper_extensions[i]))
            add_name(list, helper_extensions[i]);
    }
    return VK_SUCCESS;
}

static bool needs_shadow(const struct pv_device_caps *caps)
{
    for (uint32_t i = 0; i < caps->memory_type_count; i++) {
        if (caps->memory_types[i].tier == PV_MEMORY_TIER_SHADOW)
            return true;
    }
    return false;
}

/* The gates of shadow memory need timeline semaphores, asked for by the guest or not. */
struct timeline_edit {
    VkBool32 *feature; /* in the guest's chain */
    VkBool32 asked;
    struct pv_chain_edit put;
    VkPhysicalDeviceTimelineSemaphoreFeatures ours;
};

static void turn_on_timelines(VkDeviceCreateInfo *info, struct timeline_edit *edit)
{
    *edit = (struct timeline_edit){0};
    VkPhysicalDeviceVulkan12Features *all =
        pv_chain_find(info, VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_FEATURES);
    VkPhysicalDeviceTimelineSemaphoreFeatures *alone =
        pv_chain_find(info, VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_TIMELINE_SEMAPHORE_FEATURES);
    if (all || alone) {
        edit->feature = all ? &all->timelineSemaphore : &alone->timelineSemaphore;
        edit->asked = *edit->feature;
        *edit->feature = VK_TRUE;
        return;
    }
    edit->ours.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_TIMELINE_SEMAPHORE_FEATURES;
    edit->ours.timelineSemaphore = VK_TRUE;
    pv_chain_put(info, &edit->ours, &edit->put);
}

static void restore_timelines(struct timeline_edit *edit)
{
    if (edit->feature)
        *edit->feature = edit->asked;
    pv_chain_undo(&edit->put);
}

static VkResult create_handle(struct pv_physical *physical, const VkDeviceCreateInfo *info,
                              VkDevice *out)
{
    struct name_list list = {
        .names = calloc(info->enabledExtensionCount + HELPER_EXTENSION_COUNT, sizeof(char *)),
    };
    if (!list.names)
        return VK_ERROR_OUT_OF_HOST_MEMORY;

    VkResult result = choose_extensions(physical, info, &list);
    if (result == VK_SUCCESS) {
        VkDeviceCreateInfo host_info = *info;
        host_info.enabledLayerCount = 0;
        host_info.ppEnabledLayerNames = NULL;
        host_info.enabledExtensionCount = list.count;
        host_info.ppEnabledExtensionNames = list.names;
        result = physical->instance->vk.CreateDevice(physical->handle, &host_info, NULL, out);
    }
    free(list.names);
    return result;
}

static void get_queue(struct pv_device *device, struct pv_queue *queue)
{
    if (queue->flags == 0) {
        device->vk.GetDeviceQueue(device->handle, queue->family, queue->index, &queue->handle);
        return;
    }
    VkDeviceQueueInfo2 info = {
        .sType = VK_STRUCTURE_TYPE_DEVICE_QUEUE_INFO_2,
        .flags = queue->flags,
        .queueFamilyIndex = queue->family,
        .queueIndex = queue->index,
    };
    device->vk.GetDeviceQueue2(device->handle, &info, &queue->handle);
}

static VkResult get_queues(struct pv_device *device, const VkDeviceCreateInfo *info)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < info->queueCreateInfoCount; i++)
        count += info->pQueueCreateInfos[i].queueCount;
    device->queues = calloc(count ? count : 1, sizeof(*device->queues));
    if (!device->queues)
        return VK_ERROR_OUT_OF_HOST_MEMORY;

    for (uint32_t i = 0; i < info->queueCreateInfoCount; i++) {
        const VkDeviceQueueCreateInfo *family = &info->pQueueCreateInfos[i];
        for (uint32_t k = 0; k < family->queueCount; k++) {
            struct pv_queue *queue = &device->queues[device->queue_count++];
            queue->family = family->queueFamilyIndex;
            queue->index = k;
            queue->flags = family->flags;
            pthread_mutex_init(&queue->lock, NULL);
            get_queue(device, queue);
        }
    }
    return VK_SUCCESS;
}

static uint32_t buffer_memory_types(struct pv_device *device, const void *chain)
{
    VkBufferCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO,
        .pNext = chain,
        .size = 4096,
        .usage = VK_BUFFER_USAGE_TRANSFER_SRC_BIT | VK_BUFFER_USAGE_TRANSFER_DST_BIT |
                 VK_BUFFER_USAGE_UNIFORM_BUFFER_BIT | VK_BUFFER_USAGE_STORAGE_BUFFER_BIT |
                 VK_BUFFER_USAGE_VERTEX_BUFFER_BIT | VK_BUFFER_USAGE_INDEX_BUFFER_BIT,
    };
    VkBuffer buffer;
    if (device->vk.CreateBuffer(device->handle, &info, NULL, &buffer) != VK_SUCCESS)
        return 0;
    VkMemoryRequirements requirements;
    device->vk.GetBufferMemoryRequirements(device->handle, buffer, &requirements);
    device->vk.DestroyBuffer(device->handle, buffer, NULL);
    return requirements.memoryTypeBits;
}

/* The specification wants a buffer that will be bound to imported host memory to say so when it is
 * made, and at that time nobody knows its memory. We say it of every buffer, if that does not take
 * memory types away (Wine has done so with all drivers for years). */
static bool can_declare_host_allocation(struct pv_device *device)
{
    if (!device->physical->caps->ext_memory_host)
        return false;
    VkExternalMemoryBufferCreateInfo external = {
        .sType = VK_STRUCTURE_TYPE_EXTERNAL_MEMORY_BUFFER_CREATE_INFO,
        .handleTypes = VK_EXTERNAL_MEMORY_HANDLE_TYPE_HOST_ALLOCATION_BIT_EXT,
    };
    uint32_t without = buffer_memory_types(device, NULL);
    return without != 0 && without == buffer_memory_types(device, &external);
}

VkResult pv_device_create(struct pv_physical *physical, VkDeviceCreateInfo *info,
                          struct pv_device **out)
{
    struct pv_device *device = calloc(1, sizeof(*device));
    if (!device)
        return VK_ERROR_OUT_OF_HOST_MEMORY;
    device->physical = physical;

    VkResult result = pv_copied_create(&device->copied);
    if (result != VK_SUCCESS)
        goto err_free;
    result = pv_sync_create(&device->sync);
    if (result != VK_SUCCESS)
        goto err_copied;
    /* the probe's device may become one with shadow memory */
    struct timeline_edit timelines = {0};
    if (physical->caps->timeline_semaphore &&
        (needs_shadow(physical->caps) || !physical->caps->usable))
        turn_on_timelines(info, &timelines);
    result = create_handle(physical, info, &device->handle);
    restore_timelines(&timelines);
    if (result != VK_SUCCESS)
        goto err_sync;

    struct pv_instance *instance = physical->instance;
    PFN_vkGetDeviceProcAddr get = (PFN_vkGetDeviceProcAddr)pv_loader_get()->GetInstanceProcAddr(
        instance->handle, "vkGetDeviceProcAddr");
    pv_vk_device_table_load(&device->vk, get, device->handle);
    result = get_queues(device, info);
    if (result != VK_SUCCESS)
        goto err_device;
    if (needs_shadow(physical->caps)) {
        result = pv_shadow_create(device);
        if (result != VK_SUCCESS)
            goto err_queues;
    }
    device->host_allocation_buffers = can_declare_host_allocation(device);
    *out = device;
    return VK_SUCCESS;

err_queues:
    free(device->queues);
err_device:
    device->vk.DestroyDevice(device->handle, NULL);
err_sync:
    pv_sync_destroy(device->sync);
err_copied:
    pv_copied_destroy(device->copied);
err_free:
    free(device);
    return result;
}

void pv_device_close(struct pv_device *device)
{
    atomic_store(&device->lost, true);         /* nothing is submitted any more */
    device->vk.DeviceWaitIdle(device->handle); /* a lost device is idle too */
    pv_shadow_destroy(device);
    device->vk.DestroyDevice(device->handle, NULL);
    device->handle = VK_NULL_HANDLE;
}

void pv_device_free(struct pv_device *device)
{
    pv_sync_destroy(device->sync);
    pv_copied_destroy(device->copied);
    for (uint32_t i = 0; i < device->queue_count; i++)
        pthread_mutex_destroy(&device->queues[i].lock);
    free(device->queues);
    free(device);
}

void pv_device_destroy(struct pv_device *device)
{
    if (!device)
        return;
    pv_device_close(device);
    pv_device_free(device);
}

struct pv_queue *pv_device_get_queue(struct pv_device *device, uint32_t family, uint32_t index,
                                     VkDeviceQueueCreateFlags flags)
{
    for (uint32_t i = 0; i < device->queue_count; i++) {
        struct pv_queue *queue = &device->queues[i];
        if (queue->family == family && queue->index == index && queue->flags == flags)
            return queue;
    }
    return NULL;
}

struct pv_queue *pv_device_find_queue(struct pv_device *device, VkQueue handle)
{
    for (uint32_t i = 0; i < device->queue_count; i++) {
        if (device->queues[i].handle == handle)
            return &device->queues[i];
    }
    return NULL;
}

void pv_queue_lock(struct pv_queue *queue)
{
    pthread_mutex_lock(&queue->lock);
}

void pv_queue_unlock(struct pv_queue *queue)
{
    pthread_mutex_unlock(&queue->lock);
}
