/* Device memory: what a guest may map gets an fd behind it, by the tier of its memory type.
 *
 *   import   memfd ──mmap──► host pointer ──VK_EXT_external_memory_host──► VkDeviceMemory
 *   export   VkDeviceMemory ──vkGetMemoryFdKHR──► fd, when somebody asks
 *   shadow   memfd ◄──copies (shadow.c)──► vkMapMemory of VkDeviceMemory
 */
#include "vulkan/device.h"

#include "util/log.h"
#include "util/os.h"
#include "util/os_dmabuf.h"
#include "vulkan/chain.h"
#include "vulkan/copied.h"
#include "vulkan/device_internal.h"
#include "vulkan/instance.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PV_LOG_MODULE "memory"

static const struct pv_memory_type_caps *type_caps(const struct pv_device *device, uint32_t type)
{
    return &device->physical->caps->memory_types[type];
}

static enum pv_memory_tier tier_of(const struct pv_device *device, uint32_t type)
{
    return pv_physical_tier(device->physical, type);
}

/* Shared memory of ours lies behind memory of this type. */
static bool is_ours(const struct pv_device *device, uint32_t type)
{
    enum pv_memory_tier tier = tier_of(device, type);
    return tier == PV_MEMORY_TIER_IMPORT || tier == PV_MEMORY_TIER_SHADOW;
}

static uint32_t heap_of(const struct pv_device *device, uint32_t type)
{
    return device->physical->memory.memoryTypes[type].heapIndex;
}

/* Memory that comes from us and not from the driver's heap still counts against that heap, or a
 * guest could take all of the host's. */
static bool charge_heap(struct pv_memory *memory)
{
    uint32_t heap = heap_of(memory->device, memory->type);
    uint64_t limit = memory->device->physical->memory.memoryHeaps[heap].size;
    uint64_t before = atomic_fetch_add(&memory->device->heap_used[heap], memory->map_size);
    if (before <= limit && memory->map_size <= limit - before)
        return true;
    atomic_fetch_sub(&memory->device->heap_used[heap], memory->map_size);
    return false;
}

static void uncharge_heap(struct pv_memory *memory)
{
    uint32_t heap = heap_of(memory->device, memory->type);
    atomic_fetch_sub(&memory->device->heap_used[heap], memory->map_size);
}

static VkResult allocate(struct pv_memory *memory, const VkMemoryAllocateInfo *info)
{
    struct pv_device *device = memory->device;
    VkResult result = device->vk.AllocateMemory(device->handle, info, NULL, &memory->handle);
    if (result == VK_ERROR_INVALID_EXTERNAL_HANDLE)
        result = VK_ERROR_OUT_OF_DEVICE_MEMORY; /* a matter between us and the driver */
    return pv_device_check(device, result);
}

/* Our shared memory of memory->map_size bytes, mapped. `source` is somebody else's, or NULL. Where
 * it is a part, no fd is kept: nobody exports it, and there may be many. */
static VkResult make_shared(struct pv_memory *memory, const struct pv_memory_source *source)
{
    bool is_part = source && source->is_part;
    int ret = 0;
    if (source && !is_part) {
        memory->fd = fcntl(source->fd, F_DUPFD_CLOEXEC, 0);
        if (memory->fd < 0)
            ret = -errno;
    } else if (!source) {
        ret = pv_shm_create("pearvisor-memory", memory->map_size, &memory->fd);
    }
    if (ret < 0) {
        pv_log_limited(PV_LOG_WARN, 5, "no shared memory of %llu bytes for the guest: %s",
                       (unsigned long long)memory->map_size, strerror(-ret));
        memory->fd = -1;
        return VK_ERROR_OUT_OF_HOST_MEMORY;
    }
    ret = pv_shm_map_part(is_part ? source->fd : memory->fd, is_part ? source->offset : 0,
                          memory->map_size, &memory->map);
    if (ret < 0) {
        pv_log_limited(PV_LOG_WARN, 5, "cannot map %llu bytes of shared memory: %s",
                       (unsigned long long)memory->map_size, strerror(-ret));
        if (memory->fd >= 0)
            close(memory->fd);
        memory->fd = -1;
        memory->map = NULL;
        return VK_ERROR_OUT_OF_HOST_MEMORY;
    }
    return VK_SUCCESS;
}

static void free_shared(struct pv_memory *memory)
{
    pv_shm_unmap(memory->map, memory->map_size);
    if (memory->fd >= 0)
        close(memory->fd);
    memory->map = NULL;
    memory->fd = -1;
}

/* Export and import structs are between the guest and us, and a dedicated allocation must have the
 * resource's exact size, which a page-rounded import has not. */
struct stripped {
    struct pv_chain_edit export, dedicated;
};

static void strip(VkMemoryAllocateInfo *info, struct stripped *stripped)
{
    pv_chain_take(info, VK_STRUCTURE_TYPE_EXPORT_MEMORY_ALLOCATE_INFO, &stripped->export);
    pv_chain_take(info, VK_STRUCTURE_TYPE_MEMORY_DEDICATED_ALLOCATE_INFO, &stripped->dedicated);
}

static void unstrip(struct stripped *stripped)
{
    pv_chain_undo(&stripped->dedicated);
    pv_chain_undo(&stripped->export);
}

static VkResult import_host_pointer(struct pv_memory *memory, VkMemoryAllocateInfo *info)
{
    struct stripped stripped;
    strip(info, &stripped);
    VkImportMemoryHostPointerInfoEXT import = {
        .sType = VK_STRUCTURE_TYPE_IMPORT_MEMORY_HOST_POINTER_INFO_EXT,
        .pNext = info->pNext,
        .handleType = VK_EXTERNAL_MEMORY_HANDLE_TYPE_HOST_ALLOCATION_BIT_EXT,
        .pHostPointer = memory->map,
    };
    VkMemoryAllocateInfo host_info = *info;
    host_info.pNext = &import;
    host_info.allocationSize = memory->map_size;
    VkResult result = allocate(memory, &host_info);
    unstrip(&stripped);
    return result;
}

static VkResult allocate_shadowed(struct pv_memory *memory, VkMemoryAllocateInfo *info)
{
    struct pv_device *device = memory->device;
    struct stripped stripped = {0};
    if (info->allocationSize == memory->size)
        pv_chain_take(info, VK_STRUCTURE_TYPE_EXPORT_MEMORY_ALLOCATE_INFO, &stripped.export);
    else
        strip(info, &stripped);
    VkMemoryAllocateInfo host_info = *info;
    host_info.allocationSize = memory->size; /* what is copied must be there */
    VkResult result = allocate(memory, &host_info);
    unstrip(&stripped);
    if (result != VK_SUCCESS)
        return result;
    result = device->vk.MapMemory(device->handle, memory->handle, 0, VK_WHOLE_SIZE, 0,
                                  &memory->driver_map);
    if (result == VK_SUCCESS)
        result = pv_shadow_add(memory);
    if (result != VK_SUCCESS) {
        device->vk.FreeMemory(device->handle, memory->handle, NULL);
        memory->handle = VK_NULL_HANDLE;
        pv_device_check(device, result);
        return result == VK_ERROR_DEVICE_LOST ? result : VK_ERROR_OUT_OF_HOST_MEMORY;
    }
    return VK_SUCCESS;
}

/* Import and shadow tiers: shared memory of ours, or `source`, on the guest's side. */
static VkResult allocate_shared(struct pv_memory *memory, VkMemoryAllocateInfo *info,
                                const struct pv_memory_source *source)
{
    if (!charge_heap(memory))
        return VK_ERROR_OUT_OF_DEVICE_MEMORY;
    VkResult result = make_shared(memory, source);
    if (result == VK_SUCCESS) {
        result = memory->tier == PV_MEMORY_TIER_IMPORT ? import_host_pointer(memory, info)
                                                       : allocate_shadowed(memory, info);
        if (result != VK_SUCCESS)
            free_shared(memory);
    }
    if (result != VK_SUCCESS)
        uncharge_heap(memory);
    return result;
}

/* The driver's own memory, exportable as `handles` (0: not at all). */
static VkResult allocate_exportable(struct pv_memory *memory, VkMemoryAllocateInfo *info,
                                    VkExternalMemoryHandleTypeFlags handles)
{
    struct pv_chain_edit edit;
    pv_chain_take(info, VK_STRUCTURE_TYPE_EXPORT_MEMORY_ALLOCATE_INFO, &edit);
    VkExportMemoryAllocateInfo export = {
        .sType = VK_STRUCTURE_TYPE_EXPORT_MEMORY_ALLOCATE_INFO,
        .pNext = info->pNext,
        .handleTypes = handles,
    };
    VkMemoryAllocateInfo host_info = *info;
    if (handles)
        host_info.pNext = &export;
    VkResult result = allocate(memory, &host_info);
    pv_chain_undo(&edit);
    if (result == VK_SUCCESS)
        memory->driver_export = handles;
    return result;
}

/* Fill in the parts of `memory` that do not depend on the tier; false for nonsense of the guest. */
static bool begin(struct pv_device *device, const VkMemoryAllocateInfo *info, uint64_t size,
                  struct pv_memory *memory)
{
    const VkPhysicalDeviceMemoryProperties *properties = &device->physical->memory;
    memory->device = device;
    memory->fd = -1;
    memory->type = info->memoryTypeIndex;
    memory->size = size;
    if (memory->type >= properties->memoryTypeCount || size == 0 ||
        size > properties->memoryHeaps[heap_of(device, memory->type)].size)
        return false;

    uint64_t align = pv_page_size();
    if (align < device->physical->caps->import_alignment)
        align = device->physical->caps->import_alignment;
    if (size > INT64_MAX - align)
        return false;
    memory->map_size = pv_align_up(size, align);
    memory->tier = tier_of(device, memory->type);
    return true;
}

static uint32_t dedicated_memory_types(struct pv_device *device,
                                       const VkMemoryDedicatedAllocateInfo *dedicated)
{
    VkMemoryRequirements requirements = {0};
    if (dedicated && dedicated->image)
        pv_layer_GetImageMemoryRequirements(device, dedicated->image, &requirements);
    else if (dedicated && dedicated->buffer)
        device->vk.GetBufferMemoryRequirements(device->handle, dedicated->buffer, &requirements);
    return requirements.memoryTypeBits;
}

uint32_t pv_layer_shared_memory_type(struct pv_device *device, VkMemoryAllocateInfo *info)
{
    uint32_t asked = info->memoryTypeIndex;
    if (tier_of(device, asked) != PV_MEMORY_TIER_NONE || device->physical->caps->driver_dma_buf)
        return asked;
    uint32_t types = dedicated_memory_types(
        device, pv_chain_find(info, VK_STRUCTURE_TYPE_MEMORY_DEDICATED_ALLOCATE_INFO));
    for (uint32_t i = 0; i < device->physical->memory.memoryTypeCount; i++) {
        if ((types & (1u << i)) && is_ours(device, i))
            return i;
    }
    return asked;
}

/* To the driver, a copied image has nothing to do with the memory that the guest binds to it. */
static void forget_copied(struct pv_device *device, VkMemoryAllocateInfo *info,
                          struct pv_chain_edit *edit)
{
    const VkMemoryDedicatedAllocateInfo *dedicated =
        pv_chain_find(info, VK_STRUCTURE_TYPE_MEMORY_DEDICATED_ALLOCATE_INFO);
    *edit = (struct pv_chain_edit){0};
    if (dedicated && dedicated->image && pv_copied_is(device, dedicated->image))
        pv_chain_take(info, VK_STRUCTURE_TYPE_MEMORY_DEDICATED_ALLOCATE_INFO, edit);
}

static VkResult allocate_by_tier(struct pv_device *device, VkMemoryAllocateInfo *info,
                                 struct pv_memory *out)
{
    if (!begin(device, info, info->allocationSize, out))
        return VK_ERROR_OUT_OF_DEVICE_MEMORY;

    const VkExportMemoryAllocateInfo *export =
        pv_chain_find(info, VK_STRUCTURE_TYPE_EXPORT_MEMORY_ALLOCATE_INFO);
    out->dma_buf_asked =
        export && (export->handleTypes & VK_EXTERNAL_MEMORY_HANDLE_TYPE_DMA_BUF_BIT_EXT);
    bool from_driver = out->dma_buf_asked && device->physical->caps->driver_dma_buf;
    /* what leaves as a dma-buf is best the driver's own, which has the layout others expect */
    if (from_driver && type_caps(device, out->type)->dma_buf)
        out->tier = PV_MEMORY_TIER_DMA_BUF;

    switch (out->tier) {
    case PV_MEMORY_TIER_IMPORT:
    case PV_MEMORY_TIER_SHADOW:
        return allocate_shared(out, info, NULL);
    case PV_MEMORY_TIER_DMA_BUF:
        return allocate_exportable(out, info, VK_EXTERNAL_MEMORY_HANDLE_TYPE_DMA_BUF_BIT_EXT);
    case PV_MEMORY_TIER_OPAQUE:
        return allocate_exportable(out, info, VK_EXTERNAL_MEMORY_HANDLE_TYPE_OPAQUE_FD_BIT);
    case PV_MEMORY_TIER_NONE:
        break;
    }
    return allocate_exportable(out, info,
                               from_driver ? VK_EXTERNAL_MEMORY_HANDLE_TYPE_DMA_BUF_BIT_EXT : 0);
}

VkResult pv_layer_AllocateMemory(struct pv_device *device, VkMemoryAllocateInfo *info,
                                 struct pv_memory *out)
{
    struct pv_chain_edit edit;
    forget_copied(device, info, &edit);
    VkResult result = allocate_by_tier(device, info, out);
    pv_chain_undo(&edit);
    return result;
}

void pv_layer_FreeMemory(struct pv_device *device, struct pv_memory *memory)
{
    if (memory->handle == VK_NULL_HANDLE)
        return;
    if (memory->driver_map) {
        pv_shadow_remove(memory);
        device->vk.UnmapMemory(device->handle, memory->handle);
    }
    device->vk.FreeMemory(device->handle, memory->handle, NULL);
    if (memory->map) {
        free_shared(memory);
        uncharge_heap(memory);
    }
    *memory = (struct pv_memory){.fd = -1};
}

static int export_shared(struct pv_memory *memory, int *out)
{
    if (memory->dma_buf_asked && memory->device->physical->caps->udmabuf) {
        if (pv_dmabuf_from_memfd(memory->fd, memory->map_size, out) == 0)
            return 0;
        pv_log_limited(PV_LOG_WARN, 5,
                       "/dev/udmabuf refuses %llu bytes; the guest gets plain shared memory",
                       (unsigned long long)memory->map_size);
    }
    int fd = fcntl(memory->fd, F_DUPFD_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    *out = fd;
    return 0;
}

int pv_memory_export_fd(struct pv_memory *memory, uint64_t size, int *out)
{
    /* guests round the size of a mapping up to their page */
    if (size == 0 || size > memory->map_size)
        return -EINVAL;
    if (memory->fd >= 0)
        return export_shared(memory, out);
    if (!memory->driver_export)
        return -EOPNOTSUPP;

    struct pv_device *device = memory->device;
    VkMemoryGetFdInfoKHR info = {
        .sType = VK_STRUCTURE_TYPE_MEMORY_GET_FD_INFO_KHR,
        .memory = memory->handle,
        .handleType = (VkExternalMemoryHandleTypeFlagBits)memory->driver_export,
    };
    int fd = -1;
    VkResult result =
        pv_device_check(device, device->vk.GetMemoryFdKHR(device->handle, &info, &fd));
    if (result != VK_SUCCESS) {
        pv_log_limited(PV_LOG_WARN, 5, "the driver does not export memory of type %u (%d)",
                       memory->type, (int)result);
        return result == VK_ERROR_TOO_MANY_OBJECTS ? -EMFILE : -ENOMEM;
    }
    *out = fd;
    return 0;
}

/* Shared memory can be sealed, a dma-buf cannot. */
static bool is_shared_memory(int fd)
{
#ifdef F_GET_SEALS
    return fcntl(fd, F_GET_SEALS) >= 0;
#else
    struct stat status;
    return fstat(fd, &status) == 0 && S_ISREG(status.st_mode);
#endif
}

static uint32_t dma_buf_memory_types(struct pv_device *device, int fd)
{
    if (!device->physical->caps->driver_dma_buf || !device->vk.GetMemoryFdPropertiesKHR)
        return 0;
    VkMemoryFdPropertiesKHR properties = {.sType = VK_STRUCTURE_TYPE_MEMORY_FD_PROPERTIES_KHR};
    VkResult result = device->vk.GetMemoryFdPropertiesKHR(
        device->handle, VK_EXTERNAL_MEMORY_HANDLE_TYPE_DMA_BUF_BIT_EXT, fd, &properties);
    return result == VK_SUCCESS ? properties.memoryTypeBits : 0;
}

/* Types that take the fd as they are. */
static uint32_t import_types(struct pv_device *device, int fd, uint64_t *out_size)
{
    off_t end = lseek(fd, 0, SEEK_END);
    *out_size = end > 0 ? (uint64_t)end : 0;
    if (end <= 0)
        return 0;
    if (!is_shared_memory(fd))
        return dma_buf_memory_types(device, fd);

    uint32_t types = 0;
    for (uint32_t i = 0; i < device->physical->memory.memoryTypeCount; i++) {
        if (is_ours(device, i))
            types |= 1u << i;
    }
    return types;
}

/* Types that the guest cannot map stand for those that take the fd (pv_layer_shared_memory_type):
 * programs look for images in nothing but memory of the GPU. */
uint32_t pv_layer_import_memory_types(struct pv_device *device, int fd, uint64_t *out_size)
{
    uint32_t types = import_types(device, fd, out_size);
    if (types == 0 || device->physical->caps->modifier_tier != PV_MODIFIER_TIER_COPIED)
        return types;
    for (uint32_t i = 0; i < device->physical->memory.memoryTypeCount; i++) {
        if (tier_of(device, i) == PV_MEMORY_TIER_NONE)
            types |= 1u << i;
    }
    return types;
}

static VkResult import_dma_buf(struct pv_memory *memory, VkMemoryAllocateInfo *info, int fd)
{
    int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (copy < 0)
        return VK_ERROR_OUT_OF_HOST_MEMORY;
    VkImportMemoryFdInfoKHR import = {
        .sType = VK_STRUCTURE_TYPE_IMPORT_MEMORY_FD_INFO_KHR,
        .handleType = VK_EXTERNAL_MEMORY_HANDLE_TYPE_DMA_BUF_BIT_EXT,
        .fd = copy,
    };
    struct pv_chain_edit edit;
    pv_chain_put(info, &import, &edit);
    info->allocationSize = memory->size;
    memory->tier = PV_MEMORY_TIER_DMA_BUF;
    VkResult result = allocate_exportable(memory, info, 0);
    pv_chain_undo(&edit);
    if (result != VK_SUCCESS)
        close(copy); /* the driver takes it on success only */
    else
        memory->driver_export = VK_EXTERNAL_MEMORY_HANDLE_TYPE_DMA_BUF_BIT_EXT;
    return result;
}

static VkResult import_by_kind(struct pv_device *device, VkMemoryAllocateInfo *info,
                               const struct pv_memory_source *source, struct pv_memory *out)
{
    uint64_t fd_size;
    uint32_t types = import_types(device, source->fd, &fd_size);
    /* a part is a whole number of pages, of which the guest may want a little less */
    uint64_t size = source->size;
    if (source->is_part && info->allocationSize > 0 && info->allocationSize < size)
        size = info->allocationSize;
    if (source->size > fd_size || !begin(device, info, size, out))
        return VK_ERROR_INVALID_EXTERNAL_HANDLE;
    if (!(types & (1u << out->type)))
        return VK_ERROR_INVALID_EXTERNAL_HANDLE;
    if (!is_shared_memory(source->fd))
        return import_dma_buf(out, info, source->fd);
    /* mapping past the end would be a bus error in waiting, or somebody else's part */
    if (out->map_size > (source->is_part ? source->size : fd_size))
        return VK_ERROR_INVALID_EXTERNAL_HANDLE;
    return allocate_shared(out, info, source);
}

VkResult pv_layer_ImportMemory(struct pv_device *device, VkMemoryAllocateInfo *info,
                               const struct pv_memory_source *source, struct pv_memory *out)
{
    struct pv_chain_edit edit;
    info->memoryTypeIndex = pv_layer_shared_memory_type(device, info);
    forget_copied(device, info, &edit);
    VkResult result = import_by_kind(device, info, source, out);
    pv_chain_undo(&edit);
    return result;
}
