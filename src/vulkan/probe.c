/* The probe: a device is made through the same layer that serves guests, each tier is tried on each
 * host-visible memory type, and the first that carries bytes both ways is kept.
 *
 *   fd's mapping ──write──► first half ──GPU copies──► second half ──read──► fd's mapping
 *
 * Twice, with different bytes, so that a cache that is not coherent shows.
 */
#include "vulkan/probe.h"

#include "util/log.h"
#include "util/os.h"
#include "util/os_dmabuf.h"
#include "vulkan/device_internal.h"
#include "vulkan/instance.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PV_LOG_MODULE "probe"

#define HALF       4096u
#define TIMEOUT_NS 5000000000u /* a GPU that needs longer for 4 KiB is not usable */

/* ---- what the driver says ---- */

static bool read_properties(struct pv_instance *instance, VkPhysicalDevice handle,
                            struct pv_device_caps *caps)
{
    VkPhysicalDeviceProperties basic;
    instance->vk.GetPhysicalDeviceProperties(handle, &basic);
    snprintf(caps->name, sizeof(caps->name), "%s", basic.deviceName);
    caps->api_version = basic.apiVersion;
    caps->vendor_id = basic.vendorID;
    caps->device_id = basic.deviceID;
    caps->type = basic.deviceType;
    if (basic.apiVersion < VK_API_VERSION_1_1) {
        snprintf(caps->why_not, sizeof(caps->why_not), "it has Vulkan 1.0 only; 1.1 is needed");
        return false;
    }

    VkPhysicalDeviceDriverProperties driver = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_DRIVER_PROPERTIES,
    };
    VkPhysicalDeviceExternalMemoryHostPropertiesEXT host = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_EXTERNAL_MEMORY_HOST_PROPERTIES_EXT,
        .pNext = &driver,
    };
    VkPhysicalDeviceIDProperties id = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_ID_PROPERTIES,
        .pNext = &host, /* a driver that does not know a struct leaves it zeroed */
    };
    VkPhysicalDeviceProperties2 properties = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2,
        .pNext = &id,
    };
    instance->vk.GetPhysicalDeviceProperties2(handle, &properties);
    memcpy(caps->uuid, id.deviceUUID, VK_UUID_SIZE);
    snprintf(caps->driver, sizeof(caps->driver), "%s", driver.driverName);
    snprintf(caps->driver_info, sizeof(caps->driver_info), "%s", driver.driverInfo);
    caps->driver_id = driver.driverID;
    caps->import_alignment = host.minImportedHostPointerAlignment;
    return true;
}

static void read_extensions(struct pv_physical *physical, struct pv_device_caps *caps)
{
    caps->ext_memory_host =
        pv_physical_driver_has(physical, VK_EXT_EXTERNAL_MEMORY_HOST_EXTENSION_NAME);
    caps->ext_memory_fd =
        pv_physical_driver_has(physical, VK_KHR_EXTERNAL_MEMORY_FD_EXTENSION_NAME);
    caps->ext_dma_buf =
        pv_physical_driver_has(physical, VK_EXT_EXTERNAL_MEMORY_DMA_BUF_EXTENSION_NAME);
    caps->ext_modifier =
        pv_physical_driver_has(physical, VK_EXT_IMAGE_DRM_FORMAT_MODIFIER_EXTENSION_NAME);
    caps->ext_queue_foreign =
        pv_physical_driver_has(physical, VK_EXT_QUEUE_FAMILY_FOREIGN_EXTENSION_NAME);
    caps->ext_semaphore_fd =
        pv_physical_driver_has(physical, VK_KHR_EXTERNAL_SEMAPHORE_FD_EXTENSION_NAME);
    caps->ext_fence_fd = pv_physical_driver_has(physical, VK_KHR_EXTERNAL_FENCE_FD_EXTENSION_NAME);
    caps->ext_image_format_list =
        pv_physical_driver_has(physical, VK_KHR_IMAGE_FORMAT_LIST_EXTENSION_NAME);
    if (!caps->ext_memory_host)
        caps->import_alignment = 0;
}

static void read_features(struct pv_physical *physical, struct pv_device_caps *caps)
{
    VkPhysicalDeviceTimelineSemaphoreFeatures timeline = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_TIMELINE_SEMAPHORE_FEATURES,
    };
    VkPhysicalDeviceFeatures2 features = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2,
        .pNext = &timeline,
    };
    physical->instance->vk.GetPhysicalDeviceFeatures2(physical->handle, &features);
    caps->timeline_semaphore = timeline.timelineSemaphore;
}

static void read_sync(struct pv_physical *physical, struct pv_device_caps *caps)
{
    const struct pv_vk_instance_table *vk = &physical->instance->vk;
    VkPhysicalDeviceExternalSemaphoreInfo semaphore_info = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_EXTERNAL_SEMAPHORE_INFO,
        .handleType = VK_EXTERNAL_SEMAPHORE_HANDLE_TYPE_SYNC_FD_BIT,
    };
    VkExternalSemaphoreProperties semaphore = {
        .sType = VK_STRUCTURE_TYPE_EXTERNAL_SEMAPHORE_PROPERTIES,
    };
    vk->GetPhysicalDeviceExternalSemaphoreProperties(physical->handle, &semaphore_info, &semaphore);
    if (caps->ext_semaphore_fd &&
        (semaphore.externalSemaphoreFeatures & VK_EXTERNAL_SEMAPHORE_FEATURE_EXPORTABLE_BIT))
        caps->semaphore_tier = PV_SYNC_TIER_NATIVE;

    VkPhysicalDeviceExternalFenceInfo fence_info = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_EXTERNAL_FENCE_INFO,
        .handleType = VK_EXTERNAL_FENCE_HANDLE_TYPE_SYNC_FD_BIT,
    };
    VkExternalFenceProperties fence = {.sType = VK_STRUCTURE_TYPE_EXTERNAL_FENCE_PROPERTIES};
    vk->GetPhysicalDeviceExternalFenceProperties(physical->handle, &fence_info, &fence);
    if (caps->ext_fence_fd &&
        (fence.externalFenceFeatures & VK_EXTERNAL_FENCE_FEATURE_EXPORTABLE_BIT))
        caps->fence_tier = PV_SYNC_TIER_NATIVE;
}

/* ---- what it does ---- */

/* One device with a command pool, for all trials. */
struct bench {
    struct pv_device *device;
    struct pv_device_caps *caps; /* the device's own, changed from trial to trial */
    VkQueue queue;
    VkCommandPool pool;
    VkFence fence;
};

/* A queue that can copy. All that draw or compute can. */
static int find_family(struct pv_physical *physical)
{
    VkQueueFamilyProperties families[32];
    uint32_t count = 32;
    physical->instance->vk.GetPhysicalDeviceQueueFamilyProperties(physical->handle, &count,
                                                                  families);
    const VkQueueFlags wanted[] = {VK_QUEUE_GRAPHICS_BIT, VK_QUEUE_COMPUTE_BIT,
                                   VK_QUEUE_TRANSFER_BIT};
    for (size_t w = 0; w < sizeof(wanted) / sizeof(wanted[0]); w++) {
        for (uint32_t i = 0; i < count; i++) {
            if (families[i].queueFlags & wanted[w])
                return (int)i;
        }
    }
    return -1;
}

static VkResult open_bench(struct pv_physical *physical, struct bench *bench)
{
    int family = find_family(physical);
    if (family < 0)
        return VK_ERROR_INITIALIZATION_FAILED;
    float priority = 1.0f;
    VkDeviceQueueCreateInfo queue_info = {
        .sType = VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO,
        .queueFamilyIndex = (uint32_t)family,
        .queueCount = 1,
        .pQueuePriorities = &priority,
    };
    VkDeviceCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO,
        .queueCreateInfoCount = 1,
        .pQueueCreateInfos = &queue_info,
    };
    VkResult result = pv_device_create(physical, &info, &bench->device);
    if (result != VK_SUCCESS)
        return result;
    struct pv_device *device = bench->device;
    bench->queue = device->queues[0].handle;

    VkCommandPoolCreateInfo pool_info = {
        .sType = VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO,
        .queueFamilyIndex = (uint32_t)family,
    };
    VkFenceCreateInfo fence_info = {.sType = VK_STRUCTURE_TYPE_FENCE_CREATE_INFO};
    result = device->vk.CreateCommandPool(device->handle, &pool_info, NULL, &bench->pool);
    if (result == VK_SUCCESS)
        result = device->vk.CreateFence(device->handle, &fence_info, NULL, &bench->fence);
    return result;
}

static void close_bench(struct bench *bench)
{
    struct pv_device *device = bench->device;
    if (!device)
        return;
    device->vk.DestroyFence(device->handle, bench->fence, NULL);
    device->vk.DestroyCommandPool(device->handle, bench->pool, NULL);
    pv_device_destroy(device);
}

static VkResult record_copy(struct bench *bench, VkBuffer buffer, VkCommandBuffer *out)
{
    struct pv_device *device = bench->device;
    VkCommandBufferAllocateInfo info = {
        .sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO,
        .commandPool = bench->pool,
        .level = VK_COMMAND_BUFFER_LEVEL_PRIMARY,
        .commandBufferCount = 1,
    };
    VkResult result = device->vk.AllocateCommandBuffers(device->handle, &info, out);
    if (result != VK_SUCCESS)
        return result;
    VkCommandBufferBeginInfo begin = {.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO};
    result = device->vk.BeginCommandBuffer(*out, &begin);
    if (result != VK_SUCCESS)
        return result;
    VkBufferCopy copy = {.srcOffset = 0, .dstOffset = HALF, .size = HALF};
    device->vk.CmdCopyBuffer(*out, buffer, buffer, 1, &copy);
    VkMemoryBarrier barrier = {
        .sType = VK_STRUCTURE_TYPE_MEMORY_BARRIER,
        .srcAccessMask = VK_ACCESS_TRANSFER_WRITE_BIT,
        .dstAccessMask = VK_ACCESS_HOST_READ_BIT,
    };
    device->vk.CmdPipelineBarrier(*out, VK_PIPELINE_STAGE_TRANSFER_BIT, VK_PIPELINE_STAGE_HOST_BIT,
                                  0, 1, &barrier, 0, NULL, 0, NULL);
    return device->vk.EndCommandBuffer(*out);
}

/* Write, let the GPU copy, read: through `map`, which is how a guest sees the memory. */
static const char *try_copy(struct bench *bench, VkCommandBuffer commands, unsigned char *map,
                            unsigned seed)
{
    struct pv_device *device = bench->device;
    for (unsigned i = 0; i < HALF; i++)
        map[i] = (unsigned char)(i * 7u + (i >> 8) + seed);
    VkSubmitInfo submit = {
        .sType = VK_STRUCTURE_TYPE_SUBMIT_INFO,
        .commandBufferCount = 1,
        .pCommandBuffers = &commands,
    };
    if (pv_layer_QueueSubmit(device, bench->queue, 1, &submit, bench->fence) != VK_SUCCESS)
        return "a copy cannot be submitted";
    VkResult result =
        device->vk.WaitForFences(device->handle, 1, &bench->fence, VK_TRUE, TIMEOUT_NS);
    if (result != VK_SUCCESS)
        return "a copy does not come to an end";
    device->vk.ResetFences(device->handle, 1, &bench->fence);
    pv_device_sync_memory(device);
    return memcmp(map, map + HALF, HALF) == 0 ? NULL : "the GPU sees other bytes than the CPU";
}

static const char *try_mapped(struct bench *bench, VkBuffer buffer, unsigned char *map)
{
    VkCommandBuffer commands = VK_NULL_HANDLE;
    const char *problem = "a copy cannot be recorded";
    if (record_copy(bench, buffer, &commands) == VK_SUCCESS) {
        problem = try_copy(bench, commands, map, 1);
        if (!problem)
            problem = try_copy(bench, commands, map, 101);
    }
    if (commands)
        bench->device->vk.FreeCommandBuffers(bench->device->handle, bench->pool, 1, &commands);
    return problem;
}

/* An exported fd may begin with something else than the memory (lavapipe keeps a header in its
 * opaque fds, and crashes when it is overwritten): look before writing. */
static bool shows_memory(struct bench *bench, struct pv_memory *memory, const unsigned char *map)
{
    struct pv_device *device = bench->device;
    void *driver_map;
    if (device->vk.MapMemory(device->handle, memory->handle, 0, VK_WHOLE_SIZE, 0, &driver_map) !=
        VK_SUCCESS)
        return false;
    unsigned char pattern[64];
    for (size_t i = 0; i < sizeof(pattern); i++)
        pattern[i] = (unsigned char)(0xa5u ^ (i * 11u));
    memcpy(driver_map, pattern, sizeof(pattern));
    bool same = memcmp(map, pattern, sizeof(pattern)) == 0;
    device->vk.UnmapMemory(device->handle, memory->handle);
    return same;
}

static const char *try_memory(struct bench *bench, struct pv_memory *memory, VkBuffer buffer)
{
    struct pv_device *device = bench->device;
    if (device->vk.BindBufferMemory(device->handle, buffer, memory->handle, 0) != VK_SUCCESS)
        return "a buffer does not bind to it";
    int fd;
    if (pv_memory_export_fd(memory, memory->size, &fd) < 0)
        return "the driver gives no fd for it";
    void *map;
    int ret = pv_shm_map(fd, 2ull * HALF, &map);
    close(fd);
    if (ret < 0)
        return "the fd does not map";
    const char *problem = "the fd does not begin with the memory";
    if (memory->map || shows_memory(bench, memory, map))
        problem = try_mapped(bench, buffer, map);
    pv_shm_unmap(map, 2ull * HALF);
    return problem;
}

/* Does this tier serve this memory type? Returns NULL if so, else the reason. */
static const char *try_tier(struct bench *bench, uint32_t type, enum pv_memory_tier tier)
{
    struct pv_device *device = bench->device;
    VkBufferCreateInfo buffer_info = {
        .sType = VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO,
        .size = 2ull * HALF,
        .usage = VK_BUFFER_USAGE_TRANSFER_SRC_BIT | VK_BUFFER_USAGE_TRANSFER_DST_BIT,
    };
    VkBuffer buffer;
    if (pv_layer_CreateBuffer(device, &buffer_info, &buffer) != VK_SUCCESS)
        return "no buffer can be made";
    VkMemoryRequirements requirements;
    device->vk.GetBufferMemoryRequirements(device->handle, buffer, &requirements);

    const char *problem = NULL;
    struct pv_memory memory = {.fd = -1};
    VkMemoryAllocateInfo info = {
        .sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO,
        .allocationSize = requirements.size,
        .memoryTypeIndex = type,
    };
    bench->caps->memory_types[type].tier = tier;
    if (!(requirements.memoryTypeBits & (1u << type)))
        problem = "buffers cannot use it";
    else if (pv_layer_AllocateMemory(device, &info, &memory) != VK_SUCCESS)
        problem = tier == PV_MEMORY_TIER_IMPORT ? "the driver does not import our pages"
                                                : "the driver does not allocate it so";
    else
        problem = try_memory(bench, &memory, buffer);
    device->vk.DestroyBuffer(device->handle, buffer, NULL);
    pv_layer_FreeMemory(device, &memory);
    bench->caps->memory_types[type].tier = PV_MEMORY_TIER_NONE;
    return problem;
}

/* The driver says itself which types take host memory; one that it does not name must not be tried
 * (undefined behaviour, and some crash). */
static bool can_import(struct bench *bench, uint32_t type)
{
    struct pv_device *device = bench->device;
    size_t size = bench->caps->import_alignment;
    if (size < pv_page_size())
        size = pv_page_size();
    int fd;
    void *map;
    if (pv_shm_create("pearvisor-probe", size, &fd) < 0)
        return false;
    int ret = pv_shm_map(fd, size, &map);
    close(fd);
    if (ret < 0)
        return false;
    VkMemoryHostPointerPropertiesEXT properties = {
        .sType = VK_STRUCTURE_TYPE_MEMORY_HOST_POINTER_PROPERTIES_EXT,
    };
    VkResult result = device->vk.GetMemoryHostPointerPropertiesEXT(
        device->handle, VK_EXTERNAL_MEMORY_HANDLE_TYPE_HOST_ALLOCATION_BIT_EXT, map, &properties);
    pv_shm_unmap(map, size);
    return result == VK_SUCCESS && (properties.memoryTypeBits & (1u << type));
}

/* Why a tier cannot even be tried, or NULL. */
static const char *obstacle(struct bench *bench, uint32_t type, enum pv_memory_tier tier)
{
    const struct pv_device_caps *caps = bench->caps;
    switch (tier) {
    case PV_MEMORY_TIER_IMPORT:
        if (!caps->ext_memory_host)
            return "no VK_EXT_external_memory_host";
        return can_import(bench, type) ? NULL : "the driver imports no host memory into it";
    case PV_MEMORY_TIER_DMA_BUF:
        return caps->ext_dma_buf && caps->ext_memory_fd ? NULL : "no dma-bufs";
    case PV_MEMORY_TIER_OPAQUE:
        return caps->ext_memory_fd ? NULL : "no VK_KHR_external_memory_fd";
    case PV_MEMORY_TIER_SHADOW:
    case PV_MEMORY_TIER_NONE:
        break;
    }
    return NULL;
}

static void probe_type(struct bench *bench, uint32_t type, enum pv_memory_tier forced)
{
    static const enum pv_memory_tier order[] = {PV_MEMORY_TIER_IMPORT, PV_MEMORY_TIER_DMA_BUF,
                                                PV_MEMORY_TIER_OPAQUE};
    struct pv_memory_type_caps *caps = &bench->caps->memory_types[type];
    enum pv_memory_tier found = PV_MEMORY_TIER_NONE;
    const char *first_problem = NULL;
    for (size_t i = 0; i < sizeof(order) / sizeof(order[0]); i++) {
        enum pv_memory_tier tier = order[i];
        if (forced && tier != forced)
            continue;
        /* dma-bufs are looked at in any case: they are what a compositor wants */
        if (found && tier != PV_MEMORY_TIER_DMA_BUF)
            continue;
        const char *problem = obstacle(bench, type, tier);
        if (!problem)
            problem = try_tier(bench, type, tier);
        pv_debug("%s: memory type %u, %s: %s", bench->caps->name, type, pv_memory_tier_name(tier),
                 problem ? problem : "works");
        if (!problem && tier == PV_MEMORY_TIER_DMA_BUF)
            caps->dma_buf = true;
        if (!problem && !found)
            found = tier;
        if (problem && !first_problem)
            first_problem = problem;
    }
    caps->tier = found;
    if (found)
        snprintf(caps->why, sizeof(caps->why), "%s%s", forced ? "forced, and it works" : "it works",
                 found != PV_MEMORY_TIER_IMPORT && first_problem ? "; not imported" : "");
    else
        snprintf(caps->why, sizeof(caps->why), "%s", first_problem ? first_problem : "not tried");
}

/* A copy beside the driver's own mapping is the last resort: only where nothing else serves any
 * type, or when it is asked for. */
static void probe_shadow(struct bench *bench, bool forced)
{
    if (!bench->caps->timeline_semaphore) {
        pv_debug("%s: shadow memory needs timeline semaphores", bench->caps->name);
        return;
    }
    /* a device starts its copy thread when it is made, if some type is known to need it */
    if (pv_shadow_create(bench->device) != VK_SUCCESS)
        return;
    for (uint32_t i = 0; i < bench->caps->memory_type_count; i++) {
        struct pv_memory_type_caps *caps = &bench->caps->memory_types[i];
        const VkMemoryPropertyFlags needed =
            VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT | VK_MEMORY_PROPERTY_HOST_COHERENT_BIT;
        if ((caps->flags & needed) != needed)
            continue;
        const char *problem = try_tier(bench, i, PV_MEMORY_TIER_SHADOW);
        if (!problem) {
            caps->tier = PV_MEMORY_TIER_SHADOW;
            snprintf(caps->why, sizeof(caps->why), "%s",
                     forced ? "forced, and it works" : "nothing better works; it is slow");
        } else {
            snprintf(caps->why, sizeof(caps->why), "%s", problem);
        }
    }
}

static bool is_coherent_host_type(VkMemoryPropertyFlags flags)
{
    /* AMD's device-coherent types need a feature that no guest can turn on */
    const VkMemoryPropertyFlags special =
        VK_MEMORY_PROPERTY_DEVICE_COHERENT_BIT_AMD | VK_MEMORY_PROPERTY_DEVICE_UNCACHED_BIT_AMD;
    return (flags & VK_MEMORY_PROPERTY_HOST_COHERENT_BIT) && !(flags & special);
}

static bool any_served(const struct pv_device_caps *caps)
{
    for (uint32_t i = 0; i < caps->memory_type_count; i++) {
        if (caps->memory_types[i].tier != PV_MEMORY_TIER_NONE)
            return true;
    }
    return false;
}

static void probe_memory(struct bench *bench, enum pv_memory_tier forced)
{
    struct pv_device_caps *caps = bench->caps;
    for (uint32_t i = 0; i < caps->memory_type_count; i++) {
        struct pv_memory_type_caps *type = &caps->memory_types[i];
        if (!(type->flags & VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT))
            snprintf(type->why, sizeof(type->why), "not host-visible");
        else if (!is_coherent_host_type(type->flags))
            /* Mesa takes every mapping for coherent and never flushes */
            snprintf(type->why, sizeof(type->why), "not coherent");
        else if (forced != PV_MEMORY_TIER_SHADOW)
            probe_type(bench, i, forced);
    }
    if (forced == PV_MEMORY_TIER_SHADOW || (!forced && !any_served(caps)))
        probe_shadow(bench, forced == PV_MEMORY_TIER_SHADOW);
}

static void read_memory_types(struct pv_physical *physical, struct pv_device_caps *caps)
{
    caps->memory_type_count = physical->memory.memoryTypeCount;
    for (uint32_t i = 0; i < caps->memory_type_count; i++) {
        caps->memory_types[i].flags = physical->memory.memoryTypes[i].propertyFlags;
        caps->memory_types[i].heap = physical->memory.memoryTypes[i].heapIndex;
    }
}

/* What compositors and programs do with images that they hand to each other. */
static bool draws_linear(const struct pv_physical *physical)
{
    const VkFormatFeatureFlags needed = VK_FORMAT_FEATURE_COLOR_ATTACHMENT_BIT |
                                        VK_FORMAT_FEATURE_COLOR_ATTACHMENT_BLEND_BIT |
                                        VK_FORMAT_FEATURE_SAMPLED_IMAGE_BIT;
    VkFormatProperties properties;
    physical->instance->vk.GetPhysicalDeviceFormatProperties(
        physical->handle, VK_FORMAT_B8G8R8A8_UNORM, &properties);
    return (properties.linearTilingFeatures & needed) == needed;
}

static enum pv_modifier_tier choose_modifiers(const struct pv_physical *physical,
                                              const struct pv_device_caps *caps,
                                              enum pv_modifier_tier forced)
{
    if (forced)
        return forced;
    /* tiled memory is of use only to those who can name its dma-buf */
    if (caps->ext_modifier && caps->driver_dma_buf)
        return PV_MODIFIER_TIER_NATIVE;
    return draws_linear(physical) ? PV_MODIFIER_TIER_LINEAR : PV_MODIFIER_TIER_COPIED;
}

static void conclude(struct pv_device_caps *caps)
{
    for (uint32_t i = 0; i < caps->memory_type_count; i++)
        caps->driver_dma_buf |= caps->memory_types[i].dma_buf;
    caps->udmabuf = pv_dmabuf_available();
    caps->real_dma_buf = caps->driver_dma_buf || caps->udmabuf;
    caps->usable = any_served(caps);
    if (!caps->usable)
        snprintf(caps->why_not, sizeof(caps->why_not), "has no memory that a guest could map");
}

/* caps stays zero, and the device not usable, from where something fails. */
static void probe_physical(struct pv_physical *physical, const struct pv_host_options *options,
                           struct pv_device_caps *caps)
{
    read_memory_types(physical, caps);
    read_extensions(physical, caps);
    read_features(physical, caps);
    read_sync(physical, caps);

    struct bench bench = {.caps = caps};
    VkResult result = open_bench(physical, &bench);
    if (result == VK_SUCCESS) {
        probe_memory(&bench, options->force_memory_tier);
        conclude(caps);
        caps->modifier_tier = choose_modifiers(physical, caps, options->force_modifier_tier);
    } else {
        snprintf(caps->why_not, sizeof(caps->why_not), "does not make a device (VkResult %d)",
                 (int)result);
    }
    close_bench(&bench);
}

void pv_probe_device(struct pv_instance *instance, VkPhysicalDevice handle,
                     const struct pv_host_options *options, struct pv_device_caps *out)
{
    if (!read_properties(instance, handle, out))
        return;
    const struct pv_instance_params params = {.device_index = -1};
    struct pv_physical physical = {0};
    VkResult result = pv_physical_init(&physical, instance, handle, out, &params);
    if (result != VK_SUCCESS) {
        snprintf(out->why_not, sizeof(out->why_not), "does not list its extensions (VkResult %d)",
                 (int)result);
        return;
    }
    probe_physical(&physical, options, out);
    pv_physical_finish(&physical);
}
