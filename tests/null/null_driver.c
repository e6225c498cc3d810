#include "null/null_driver.h"

#include "null/null_internal.h"
#include "vulkan/loader.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

struct null_driver null_driver;

#define DEVICE_NAME "null driver"
#define HEAP_SIZE   (1ull << 30)
#define CACHE_SIZE  32

/* ---- handles ----------------------------------------------------------------------------------
 */

/* A handle is HANDLE_BASE + 16 * its slot here. */
#define SLOTS       (1u << 22)
#define HANDLE_BASE 0x100000000000ull
#define UNTRACKED   0x80000000u /* never destroyed by itself: goes away with its pool */

static _Atomic uint32_t slots[SLOTS]; /* type + 1, 0 if it is nobody's */
static _Atomic uint32_t next_slot;

uint64_t null_new(VkObjectType type, bool tracked)
{
    uint32_t value = ((uint32_t)type + 1) | (tracked ? 0 : UNTRACKED);
    for (;;) {
        uint32_t slot = atomic_fetch_add(&next_slot, 1) % SLOTS;
        uint32_t old = atomic_load(&slots[slot]);
        if (old != 0 && !(old & UNTRACKED))
            continue; /* alive since the counter came by last time */
        if (!atomic_compare_exchange_strong(&slots[slot], &old, value))
            continue;
        if (tracked)
            atomic_fetch_add(&null_driver.alive, 1);
        return HANDLE_BASE + 16 * (uint64_t)slot;
    }
}

static void complain(const char *what, uint64_t handle, VkObjectType type, uint32_t found)
{
    atomic_fetch_add(&null_driver.wrong, 1);
    if (atomic_load(&null_driver.lenient))
        return;
    fprintf(stderr, "null driver: %s is given handle 0x%llx as an object of type %d, which is %s\n",
            what, (unsigned long long)handle, (int)type, found ? "of another type" : "not alive");
    abort();
}

static _Atomic uint32_t *find(const char *what, uint64_t handle, VkObjectType type)
{
    uint64_t offset = handle - HANDLE_BASE;
    if (handle < HANDLE_BASE || offset % 16 != 0 || offset / 16 >= SLOTS) {
        complain(what, handle, type, 0);
        return NULL;
    }
    _Atomic uint32_t *slot = &slots[offset / 16];
    uint32_t found = atomic_load(slot);
    if ((found & ~UNTRACKED) != (uint32_t)type + 1) {
        complain(what, handle, type, found);
        return NULL;
    }
    return slot;
}

void null_use(const char *what, uint64_t handle, VkObjectType type)
{
    atomic_fetch_add_explicit(&null_driver.calls, 1, memory_order_relaxed);
    if (handle)
        find(what, handle, type);
}

void null_destroy(const char *what, uint64_t handle, VkObjectType type)
{
    _Atomic uint32_t *slot = handle ? find(what, handle, type) : NULL;
    if (!slot)
        return;
    if (!(atomic_exchange(slot, 0) & UNTRACKED))
        atomic_fetch_sub(&null_driver.alive, 1);
}

bool null_fails(void)
{
    int left = atomic_load(&null_driver.fail_in);
    return left > 0 && atomic_fetch_sub(&null_driver.fail_in, 1) == 1;
}

#define USE(object, type) null_use(__func__, (uint64_t)(uintptr_t)(object), type)

/* ---- instance ---------------------------------------------------------------------------------
 */

static VKAPI_ATTR VkResult VKAPI_CALL create_instance(const VkInstanceCreateInfo *info,
                                                      const VkAllocationCallbacks *allocator,
                                                      VkInstance *out)
{
    if (null_fails())
        return VK_ERROR_OUT_OF_HOST_MEMORY;
    *out = (VkInstance)(uintptr_t)null_new(VK_OBJECT_TYPE_INSTANCE, true);
    return VK_SUCCESS;
}

static VKAPI_ATTR VkResult VKAPI_CALL enumerate_version(uint32_t *out)
{
    *out = VK_API_VERSION_1_4;
    return VK_SUCCESS;
}

static VKAPI_ATTR VkResult VKAPI_CALL enumerate_extensions(const char *layer, uint32_t *count,
                                                           VkExtensionProperties *properties)
{
    *count = 0;
    return VK_SUCCESS;
}

static PFN_vkVoidFunction find_entry(const char *name)
{
    for (unsigned i = 0; i < null_entry_count; i++) {
        if (strcmp(null_entries[i].name, name) == 0)
            return null_entries[i].function;
    }
    return NULL;
}

static VKAPI_ATTR PFN_vkVoidFunction VKAPI_CALL get_instance_proc(VkInstance instance,
                                                                  const char *name)
{
    const struct null_entry global[] = {
        {"vkCreateInstance", (PFN_vkVoidFunction)create_instance},
        {"vkEnumerateInstanceVersion", (PFN_vkVoidFunction)enumerate_version},
        {"vkEnumerateInstanceExtensionProperties", (PFN_vkVoidFunction)enumerate_extensions},
    };
    for (unsigned i = 0; i < 3; i++) {
        if (strcmp(global[i].name, name) == 0)
            return global[i].function;
    }
    return find_entry(name);
}

void null_driver_install(void)
{
    pv_loader_set(get_instance_proc);
}

PFN_vkVoidFunction null_GetDeviceProcAddr(VkDevice device, const char *name)
{
    return find_entry(name);
}

void null_DestroyInstance(VkInstance instance, const VkAllocationCallbacks *allocator)
{
    null_destroy(__func__, (uint64_t)(uintptr_t)instance, VK_OBJECT_TYPE_INSTANCE);
}

/* ---- physical device --------------------------------------------------------------------------
 */

void null_driver_caps(struct pv_host_caps *out)
{
    memset(out, 0, sizeof(*out));
    out->instance_version = VK_API_VERSION_1_4;
    out->device_count = 1;
    struct pv_device_caps *device = &out->devices[0];
    snprintf(device->name, sizeof(device->name), DEVICE_NAME);
    snprintf(device->driver, sizeof(device->driver), DEVICE_NAME);
    device->api_version = VK_API_VERSION_1_4;
    device->type = VK_PHYSICAL_DEVICE_TYPE_CPU;
    device->usable = true;
    device->memory_type_count = 1;
    device->memory_types[0] = (struct pv_memory_type_caps){
        .flags = VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT | VK_MEMORY_PROPERTY_HOST_COHERENT_BIT |
                 VK_MEMORY_PROPERTY_HOST_CACHED_BIT | VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT,
        .tier = PV_MEMORY_TIER_IMPORT,
    };
    device->import_alignment = 4096;
    device->ext_memory_host = true;
    device->timeline_semaphore = true;
}

VkResult null_EnumeratePhysicalDevices(VkInstance instance, uint32_t *count,
                                       VkPhysicalDevice *devices)
{
    static _Atomic uint64_t physical;
    USE(instance, VK_OBJECT_TYPE_INSTANCE);
    if (null_fails())
        return VK_ERROR_INITIALIZATION_FAILED;
    uint64_t handle = atomic_load(&physical);
    if (!handle) {
        uint64_t made = null_new(VK_OBJECT_TYPE_PHYSICAL_DEVICE, false);
        handle = atomic_compare_exchange_strong(&physical, &handle, made) ? made : handle;
    }
    if (devices && *count > 0)
        devices[0] = (VkPhysicalDevice)(uintptr_t)handle;
    if (!devices || *count > 1)
        *count = 1;
    return VK_SUCCESS;
}

void null_GetPhysicalDeviceProperties(VkPhysicalDevice physical, VkPhysicalDeviceProperties *out)
{
    USE(physical, VK_OBJECT_TYPE_PHYSICAL_DEVICE);
    memset(out, 0, sizeof(*out));
    out->apiVersion = VK_API_VERSION_1_4;
    out->deviceType = VK_PHYSICAL_DEVICE_TYPE_CPU;
    out->limits.maxImageArrayLayers = 2048;
    out->limits.maxPushConstantsSize = 256;
    out->limits.maxViewports = 16;
    out->limits.maxVertexInputBindings = 32;
    out->limits.maxBoundDescriptorSets = 8;
    snprintf(out->deviceName, sizeof(out->deviceName), DEVICE_NAME);
}

/* The chain stays zeroed, device UUID included. */
void null_GetPhysicalDeviceProperties2(VkPhysicalDevice physical, VkPhysicalDeviceProperties2 *out)
{
    null_GetPhysicalDeviceProperties(physical, &out->properties);
    for (VkBaseOutStructure *node = out->pNext; node; node = node->pNext) {
        if (node->sType == VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_ID_PROPERTIES)
            memset(((VkPhysicalDeviceIDProperties *)(void *)node)->deviceUUID, 0, VK_UUID_SIZE);
    }
}

VkResult null_EnumerateDeviceExtensionProperties(VkPhysicalDevice physical, const char *layer,
                                                 uint32_t *count, VkExtensionProperties *properties)
{
    USE(physical, VK_OBJECT_TYPE_PHYSICAL_DEVICE);
    if (null_fails())
        return VK_ERROR_OUT_OF_HOST_MEMORY;
    if (!properties) {
        *count = null_extension_count;
        return VK_SUCCESS;
    }
    if (*count > null_extension_count)
        *count = null_extension_count;
    memcpy(properties, null_extensions, *count * sizeof(*properties));
    return *count < null_extension_count ? VK_INCOMPLETE : VK_SUCCESS;
}

void null_GetPhysicalDeviceMemoryProperties(VkPhysicalDevice physical,
                                            VkPhysicalDeviceMemoryProperties *out)
{
    struct pv_host_caps caps;
    USE(physical, VK_OBJECT_TYPE_PHYSICAL_DEVICE);
    null_driver_caps(&caps);
    memset(out, 0, sizeof(*out));
    out->memoryTypeCount = 1;
    out->memoryTypes[0].propertyFlags = caps.devices[0].memory_types[0].flags;
    out->memoryHeapCount = 1;
    out->memoryHeaps[0].size = HEAP_SIZE;
    out->memoryHeaps[0].flags = VK_MEMORY_HEAP_DEVICE_LOCAL_BIT;
}

void null_GetPhysicalDeviceMemoryProperties2(VkPhysicalDevice physical,
                                             VkPhysicalDeviceMemoryProperties2 *out)
{
    null_GetPhysicalDeviceMemoryProperties(physical, &out->memoryProperties);
}

static const VkQueueFamilyProperties queue_family = {
    .queueFlags = VK_QUEUE_GRAPHICS_BIT | VK_QUEUE_COMPUTE_BIT | VK_QUEUE_TRANSFER_BIT,
    .queueCount = 16,
    .timestampValidBits = 64,
    .minImageTransferGranularity = {1, 1, 1},
};

void null_GetPhysicalDeviceQueueFamilyProperties(VkPhysicalDevice physical, uint32_t *count,
                                                 VkQueueFamilyProperties *families)
{
    USE(physical, VK_OBJECT_TYPE_PHYSICAL_DEVICE);
    if (families && *count > 0)
        families[0] = queue_family;
    if (!families || *count > 1)
        *count = 1;
}

void null_GetPhysicalDeviceQueueFamilyProperties2(VkPhysicalDevice physical, uint32_t *count,
                                                  VkQueueFamilyProperties2 *families)
{
    USE(physical, VK_OBJECT_TYPE_PHYSICAL_DEVICE);
    if (families && *count > 0)
        families[0].queueFamilyProperties = queue_family;
    if (!families || *count > 1)
        *count = 1;
}

void null_GetPhysicalDeviceExternalSemaphoreProperties(
    VkPhysicalDevice physical, const VkPhysicalDeviceExternalSemaphoreInfo *info,
    VkExternalSemaphoreProperties *out)
{
    USE(physical, VK_OBJECT_TYPE_PHYSICAL_DEVICE);
    out->externalSemaphoreFeatures = VK_EXTERNAL_SEMAPHORE_FEATURE_IMPORTABLE_BIT;
}

/* ---- device -----------------------------------------------------------------------------------
 */

VkResult null_CreateDevice(VkPhysicalDevice physical, const VkDeviceCreateInfo *info,
                           const VkAllocationCallbacks *allocator, VkDevice *out)
{
    USE(physical, VK_OBJECT_TYPE_PHYSICAL_DEVICE);
    if (null_fails())
        return VK_ERROR_INITIALIZATION_FAILED;
    *out = (VkDevice)(uintptr_t)null_new(VK_OBJECT_TYPE_DEVICE, true);
    return VK_SUCCESS;
}

void null_DestroyDevice(VkDevice device, const VkAllocationCallbacks *allocator)
{
    null_destroy(__func__, (uint64_t)(uintptr_t)device, VK_OBJECT_TYPE_DEVICE);
}

void null_GetDeviceQueue(VkDevice device, uint32_t family, uint32_t index, VkQueue *out)
{
    USE(device, VK_OBJECT_TYPE_DEVICE);
    *out = (VkQueue)(uintptr_t)null_new(VK_OBJECT_TYPE_QUEUE, false);
}

void null_GetDeviceQueue2(VkDevice device, const VkDeviceQueueInfo2 *info, VkQueue *out)
{
    null_GetDeviceQueue(device, info->queueFamilyIndex, info->queueIndex, out);
}

static VkResult wait(uint64_t timeout)
{
    if (atomic_load(&null_driver.lose_device))
        return VK_ERROR_DEVICE_LOST;
    if (!atomic_load(&null_driver.block_waits))
        return VK_SUCCESS;
    struct timespec nap = {.tv_nsec = timeout < 1000000 ? (long)timeout : 1000000};
    nanosleep(&nap, NULL);
    return VK_TIMEOUT;
}

VkResult null_GetFenceStatus(VkDevice device, VkFence fence)
{
    USE(device, VK_OBJECT_TYPE_DEVICE);
    USE(fence, VK_OBJECT_TYPE_FENCE);
    if (atomic_load(&null_driver.lose_device))
        return VK_ERROR_DEVICE_LOST;
    return atomic_load(&null_driver.block_waits) ? VK_NOT_READY : VK_SUCCESS;
}

VkResult null_WaitForFences(VkDevice device, uint32_t count, const VkFence *fences, VkBool32 all,
                            uint64_t timeout)
{
    USE(device, VK_OBJECT_TYPE_DEVICE);
    for (uint32_t i = 0; i < count; i++)
        USE(fences[i], VK_OBJECT_TYPE_FENCE);
    return wait(timeout);
}

VkResult null_WaitSemaphores(VkDevice device, const VkSemaphoreWaitInfo *info, uint64_t timeout)
{
    USE(device, VK_OBJECT_TYPE_DEVICE);
    for (uint32_t i = 0; info->pSemaphores && i < info->semaphoreCount; i++)
        USE(info->pSemaphores[i], VK_OBJECT_TYPE_SEMAPHORE);
    return wait(timeout);
}

VkResult null_QueueSubmit(VkQueue queue, uint32_t count, const VkSubmitInfo *submits, VkFence fence)
{
    USE(queue, VK_OBJECT_TYPE_QUEUE);
    USE(fence, VK_OBJECT_TYPE_FENCE);
    atomic_fetch_add(&null_driver.submits, 1);
    return atomic_load(&null_driver.lose_device) ? VK_ERROR_DEVICE_LOST : VK_SUCCESS;
}

/* ---- memory -----------------------------------------------------------------------------------
 */

VkResult null_AllocateMemory(VkDevice device, const VkMemoryAllocateInfo *info,
                             const VkAllocationCallbacks *allocator, VkDeviceMemory *out)
{
    USE(device, VK_OBJECT_TYPE_DEVICE);
    if (null_fails())
        return VK_ERROR_OUT_OF_DEVICE_MEMORY;
    *out = (VkDeviceMemory)(uintptr_t)null_new(VK_OBJECT_TYPE_DEVICE_MEMORY, true);
    return VK_SUCCESS;
}

VkResult null_MapMemory(VkDevice device, VkDeviceMemory memory, VkDeviceSize offset,
                        VkDeviceSize size, VkMemoryMapFlags flags, void **out)
{
    return VK_ERROR_MEMORY_MAP_FAILED;
}

VkResult null_GetMemoryFdKHR(VkDevice device, const VkMemoryGetFdInfoKHR *info, int *out)
{
    *out = memfd_create("null", MFD_CLOEXEC);
    return *out < 0 ? VK_ERROR_TOO_MANY_OBJECTS : VK_SUCCESS;
}

VkResult null_GetMemoryHostPointerPropertiesEXT(VkDevice device,
                                                VkExternalMemoryHandleTypeFlagBits handle_type,
                                                const void *pointer,
                                                VkMemoryHostPointerPropertiesEXT *out)
{
    USE(device, VK_OBJECT_TYPE_DEVICE);
    out->memoryTypeBits = 1;
    return VK_SUCCESS;
}

static const VkMemoryRequirements requirements = {
    .size = 4096,
    .alignment = 64,
    .memoryTypeBits = 1,
};

void null_GetBufferMemoryRequirements(VkDevice device, VkBuffer buffer, VkMemoryRequirements *out)
{
    USE(device, VK_OBJECT_TYPE_DEVICE);
    USE(buffer, VK_OBJECT_TYPE_BUFFER);
    *out = requirements;
}

void null_GetBufferMemoryRequirements2(VkDevice device, const VkBufferMemoryRequirementsInfo2 *info,
                                       VkMemoryRequirements2 *out)
{
    null_GetBufferMemoryRequirements(device, info->buffer, &out->memoryRequirements);
}

void null_GetImageMemoryRequirements(VkDevice device, VkImage image, VkMemoryRequirements *out)
{
    USE(device, VK_OBJECT_TYPE_DEVICE);
    USE(image, VK_OBJECT_TYPE_IMAGE);
    *out = requirements;
}

void null_GetImageMemoryRequirements2(VkDevice device, const VkImageMemoryRequirementsInfo2 *info,
                                      VkMemoryRequirements2 *out)
{
    null_GetImageMemoryRequirements(device, info->image, &out->memoryRequirements);
}

void null_GetDeviceBufferMemoryRequirements(VkDevice device,
                                            const VkDeviceBufferMemoryRequirements *info,
                                            VkMemoryRequirements2 *out)
{
    USE(device, VK_OBJECT_TYPE_DEVICE);
    out->memoryRequirements = requirements;
}

void null_GetDeviceImageMemoryRequirements(VkDevice device,
                                           const VkDeviceImageMemoryRequirements *info,
                                           VkMemoryRequirements2 *out)
{
    USE(device, VK_OBJECT_TYPE_DEVICE);
    out->memoryRequirements = requirements;
}

/* ---- data -------------------------------------------------------------------------------------
 */

VkResult null_GetPipelineCacheData(VkDevice device, VkPipelineCache cache, size_t *size, void *data)
{
    USE(device, VK_OBJECT_TYPE_DEVICE);
    USE(cache, VK_OBJECT_TYPE_PIPELINE_CACHE);
    if (null_fails())
        return VK_ERROR_OUT_OF_HOST_MEMORY;
    if (!data || *size > CACHE_SIZE)
        *size = CACHE_SIZE;
    if (data)
        memset(data, 0x5a, *size);
    return VK_SUCCESS;
}

/* One value per query and perhaps its availability, as the caller laid them out: like a real driver
 * it believes the stride, not the size. */
VkResult null_GetQueryPoolResults(VkDevice device, VkQueryPool pool, uint32_t first, uint32_t count,
                                  size_t size, void *data, VkDeviceSize stride,
                                  VkQueryResultFlags flags)
{
    USE(device, VK_OBJECT_TYPE_DEVICE);
    USE(pool, VK_OBJECT_TYPE_QUERY_POOL);
    size_t value = flags & VK_QUERY_RESULT_64_BIT ? 8 : 4;
    if (flags & VK_QUERY_RESULT_WITH_AVAILABILITY_BIT)
        value *= 2;
    if (count > 4096)
        count = 4096; /* a real one would go on for minutes */
    for (uint32_t i = 0; i < count; i++)
        memset((uint8_t *)data + i * stride, 0x5a, value);
    return VK_SUCCESS;
}

/* Bytes that a copy reads or writes: four per texel, one layer after the other. */
static size_t copy_size(uint32_t row, uint32_t height, const VkImageSubresourceLayers *layers,
                        VkExtent3D extent)
{
    size_t count = layers->layerCount == VK_REMAINING_ARRAY_LAYERS ? 1 : layers->layerCount;
    return 4 * count * extent.depth * (row > extent.width ? row : extent.width) *
           (height > extent.height ? height : extent.height);
}

/* The ends will do to see that there is room, and a hostile copy may have gigabytes. */
VkResult null_CopyImageToMemory(VkDevice device, const VkCopyImageToMemoryInfo *info)
{
    USE(device, VK_OBJECT_TYPE_DEVICE);
    USE(info->srcImage, VK_OBJECT_TYPE_IMAGE);
    for (uint32_t i = 0; i < info->regionCount; i++) {
        const VkImageToMemoryCopy *region = &info->pRegions[i];
        size_t size = copy_size(region->memoryRowLength, region->memoryImageHeight,
                                &region->imageSubresource, region->imageExtent);
        uint8_t *data = region->pHostPointer;
        if (size > 0)
            data[0] = data[size - 1] = 0x5a;
    }
    return VK_SUCCESS;
}

VkResult null_CopyMemoryToImage(VkDevice device, const VkCopyMemoryToImageInfo *info)
{
    static _Atomic uint8_t sink;
    USE(device, VK_OBJECT_TYPE_DEVICE);
    USE(info->dstImage, VK_OBJECT_TYPE_IMAGE);
    for (uint32_t i = 0; i < info->regionCount; i++) {
        const VkMemoryToImageCopy *region = &info->pRegions[i];
        size_t size = copy_size(region->memoryRowLength, region->memoryImageHeight,
                                &region->imageSubresource, region->imageExtent);
        const uint8_t *data = region->pHostPointer;
        if (size > 0)
            atomic_store(&sink, (uint8_t)(data[0] ^ data[size - 1]));
    }
    return VK_SUCCESS;
}
