/* Device memory: allocation by tier, imports of resources, host image copies, descriptor bytes. */
#include "util/log.h"
#include "util/os.h"
#include "venus/context_internal.h"
#include "vulkan/chain.h"
#include "vulkan/instance.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#define PV_LOG_MODULE "memory"

/* ---- allocation -------------------------------------------------------------------------------
 */

/* Device memory that lies in a resource. */
static VkResult allocate_from(struct pv_device *device, VkMemoryAllocateInfo *info,
                              const struct pv_resource *resource, struct pv_memory *memory)
{
    bool is_part = resource->offset != PV_RESOURCE_OWN_FD;
    const struct pv_memory_source source = {
        .fd = resource->fd,
        .size = resource->size,
        .is_part = is_part,
        .offset = is_part ? resource->offset : 0,
    };
    if (resource->fd < 0)
        return VK_ERROR_INVALID_EXTERNAL_HANDLE;
    if (resource->use == PV_RESOURCE_MEMORY) {
        if (info->allocationSize > resource->size)
            return VK_ERROR_INVALID_EXTERNAL_HANDLE;
        /* a guest makes blobs of what it only exports, too; nobody maps those, but a compositor
         * or the display may look at them */
        info->memoryTypeIndex = pv_layer_shared_memory_type(device, info);
        if (pv_physical_tier(device->physical, info->memoryTypeIndex) == PV_MEMORY_TIER_NONE)
            return pv_layer_AllocateMemory(device, info, memory);
    }
    return pv_layer_ImportMemory(device, info, &source, memory);
}

/* How long a blob may be on its way from the context that makes it. */
#define IMPORT_WAIT_NS (UINT64_C(5) * 1000 * 1000 * 1000)

/* Less for a ring that has waited in vain: whoever hands it blobs that never come may waste a tenth
 * of its time, no more. */
static uint64_t patience(const struct pv_stream *s, uint64_t now)
{
    uint64_t earned = (now - s->import_missed_ns) / 10;
    return earned < IMPORT_WAIT_NS ? earned : IMPORT_WAIT_NS;
}

/* The resource of an import. A guest program hands a blob to another as soon as the kernel has
 * asked for it, and the worker that makes it may answer later than the import comes here. Only a
 * ring can wait for it: the news come on the context thread. NULL if it does not come: the fault
 * may be that of whoever was to make it, and is not to end a compositor. */
static struct pv_resource *get_import(struct pv_stream *s, uint32_t id)
{
    const struct timespec pause = {.tv_nsec = 500 * 1000};
    struct pv_resource *resource = pv_resources_get(s->ctx->resources, id);
    if (!resource && s->ring) {
        uint64_t begin = pv_stream_wait_begin(s), limit = patience(s, begin);
        while (!resource && !pv_stream_stopping(s) && pv_now_ns() - begin < limit) {
            nanosleep(&pause, NULL);
            resource = pv_resources_get(s->ctx->resources, id);
        }
        pv_stream_wait_end(s, begin);
        if (!resource)
            s->import_missed_ns = pv_now_ns();
    }
    if (!resource)
        pv_log_limited(PV_LOG_WARN, 5, "resource %u cannot be imported: there is none", id);
    return resource;
}

static bool exports(const VkMemoryAllocateInfo *info)
{
    const VkExportMemoryAllocateInfo *export =
        pv_chain_find(info, VK_STRUCTURE_TYPE_EXPORT_MEMORY_ALLOCATE_INFO);
    return export && export->handleTypes != 0;
}

static VkResult allocate(struct pv_stream *s, struct pv_device *device, VkMemoryAllocateInfo *info,
                         struct pv_memory *memory)
{
    struct pv_chain_edit edit; /* not undone: the rest of the chain is the driver's */
    const VkImportMemoryResourceInfoMESA *import =
        pv_chain_take(info, VK_STRUCTURE_TYPE_IMPORT_MEMORY_RESOURCE_INFO_MESA, &edit);
    if (info->memoryTypeIndex >= device->physical->memory.memoryTypeCount) {
        pv_stream_fail(s, "memory type %u does not exist", info->memoryTypeIndex);
        return VK_ERROR_UNKNOWN;
    }
    if (!import) {
        if (exports(info))
            info->memoryTypeIndex = pv_layer_shared_memory_type(device, info);
        return pv_layer_AllocateMemory(device, info, memory);
    }
    struct pv_resource *resource = get_import(s, import->resourceId);
    if (!resource)
        return VK_ERROR_INVALID_EXTERNAL_HANDLE;
    VkResult result = allocate_from(device, info, resource, memory);
    if (result == VK_SUCCESS)
        memory->owner = resource; /* with our reference, until it is freed */
    else
        pv_resource_unref(resource);
    return result;
}

void pv_do_vkAllocateMemory(struct pv_stream *s, struct pv_args_vkAllocateMemory *a)
{
    struct pv_object *parent = a->device_object;
    struct pv_object **objects =
        pv_stream_reserve(s, VK_OBJECT_TYPE_DEVICE_MEMORY, parent, 1, a->pMemory_ids);
    if (!objects)
        return;
    struct pv_memory *memory = calloc(1, sizeof(*memory));
    a->ret = VK_ERROR_OUT_OF_HOST_MEMORY;
    if (memory && !s->dec.dropped)
        a->ret = allocate(s, parent->dev, a->pAllocateInfo, memory);
    uint64_t handle = 0;
    if (a->ret == VK_SUCCESS) {
        handle = (uint64_t)(uintptr_t)memory->handle;
        objects[0]->memory = memory;
        atomic_fetch_add_explicit(&s->ctx->activity->memory_bytes, memory->size,
                                  memory_order_relaxed);
    } else {
        free(memory);
    }
    pv_stream_publish(s, objects, 1, a->ret, &handle, a->pMemory_ids, a->wants_reply);
}

void pv_do_vkFreeMemory(struct pv_stream *s, struct pv_args_vkFreeMemory *a)
{
    if (a->memory_object)
        pv_stream_destroy(s, a->memory_object);
}

void pv_do_vkGetMemoryResourcePropertiesMESA(struct pv_stream *s,
                                             struct pv_args_vkGetMemoryResourcePropertiesMESA *a)
{
    struct pv_resource *resource = get_import(s, a->resourceId);
    a->ret = VK_ERROR_INVALID_EXTERNAL_HANDLE;
    if (!resource)
        return;
    uint64_t size = 0;
    uint32_t types = 0;
    if (resource->fd >= 0)
        types = pv_layer_import_memory_types(a->device_object->dev, resource->fd, &size);
    if (resource->offset != PV_RESOURCE_OWN_FD)
        size = resource->size;
    pv_resource_unref(resource);
    if (types == 0)
        return;
    a->ret = VK_SUCCESS;
    a->pMemoryResourceProperties->memoryTypeBits = types;
    VkBaseOutStructure *next = a->pMemoryResourceProperties->pNext;
    if (next && next->sType == VK_STRUCTURE_TYPE_MEMORY_RESOURCE_ALLOCATION_SIZE_PROPERTIES_MESA)
        ((VkMemoryResourceAllocationSizePropertiesMESA *)(void *)next)->allocationSize = size;
}

/* ---- host image copies ------------------------------------------------------------------------
 */

/* What the driver reads or writes goes by the copy's extent and the image's format, whatever the
 * size says. The format is the driver's knowledge, so the room is for the largest there is, and the
 * pages behind the guest's data are touched only if the guest has lied. */
#define TEXEL_MAX 32u /* bytes: four doubles; compressed formats have less per texel */
/* Room for the largest copy, PV_ARENA_MAX bytes of a format with one byte per texel. */
#define COPY_ROOM_MAX ((uint64_t)TEXEL_MAX * PV_ARENA_MAX)

struct copy_room {
    void *data; /* the guest's, or mapped */
    size_t mapped;
};

static uint32_t larger(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

static uint32_t count_layers(const struct pv_device *device, const VkImageSubresourceLayers *layers)
{
    if (layers->layerCount != VK_REMAINING_ARRAY_LAYERS)
        return layers->layerCount;
    VkPhysicalDeviceProperties properties;
    device->physical->instance->vk.GetPhysicalDeviceProperties(device->physical->handle,
                                                               &properties);
    return properties.limits.maxImageArrayLayers;
}

/* Copies that keep the driver's own order of texels (MEMCPY) have the size that it states. */
static uint64_t driver_layer_size(const struct pv_device *device, VkImage image,
                                  const VkImageSubresourceLayers *layers)
{
    if (!device->vk.GetImageSubresourceLayout2)
        return UINT64_MAX;
    VkSubresourceHostMemcpySize size = {.sType = VK_STRUCTURE_TYPE_SUBRESOURCE_HOST_MEMCPY_SIZE};
    VkSubresourceLayout2 layout = {.sType = VK_STRUCTURE_TYPE_SUBRESOURCE_LAYOUT_2, .pNext = &size};
    const VkImageSubresource2 subresource = {
        .sType = VK_STRUCTURE_TYPE_IMAGE_SUBRESOURCE_2,
        .imageSubresource = {layers->aspectMask, layers->mipLevel, layers->baseArrayLayer},
    };
    device->vk.GetImageSubresourceLayout2(device->handle, image, &subresource, &layout);
    return size.size;
}

static uint64_t copy_size(const struct pv_device *device, VkImage image, VkHostImageCopyFlags flags,
                          const VkImageSubresourceLayers *layers, uint32_t row_length,
                          uint32_t image_height, VkExtent3D extent)
{
    uint64_t size =
        (uint64_t)larger(extent.width, row_length) * larger(extent.height, image_height);
    uint64_t layer_size = 0;
    if (flags & VK_HOST_IMAGE_COPY_MEMCPY_BIT)
        layer_size = driver_layer_size(device, image, layers);
    if (__builtin_mul_overflow(size, (uint64_t)extent.depth * TEXEL_MAX, &size))
        return UINT64_MAX;
    if (layer_size > size)
        size = layer_size;
    return __builtin_mul_overflow(size, count_layers(device, layers), &size) ? UINT64_MAX : size;
}

/* Room of at least `need` bytes, the guest's `size` bytes at its begin. */
static bool get_copy_room(struct pv_stream *s, uint64_t need, void *data, size_t size,
                          struct copy_room *out)
{
    *out = (struct copy_room){.data = data};
    if (need <= size)
        return true;
    if (need > COPY_ROOM_MAX) {
        pv_stream_fail(s, "a copy of up to %llu bytes is too large", (unsigned long long)need);
        return false;
    }
    void *map = mmap(NULL, (size_t)need, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (map == MAP_FAILED) {
        pv_stream_fail(s, "no room for a copy of up to %llu bytes", (unsigned long long)need);
        return false;
    }
    *out = (struct copy_room){.data = map, .mapped = (size_t)need};
    return true;
}

static void free_copy_room(struct copy_room *room)
{
    if (room->mapped > 0)
        munmap(room->data, room->mapped);
}

void pv_do_vkCopyImageToMemoryMESA(struct pv_stream *s, struct pv_args_vkCopyImageToMemoryMESA *a)
{
    const struct pv_device *device = a->device_object->dev;
    const VkCopyImageToMemoryInfoMESA *info = a->pCopyImageToMemoryInfo;
    if (!device->vk.CopyImageToMemory) {
        pv_stream_missing(s);
        return;
    }
    struct copy_room room;
    uint64_t need = copy_size(device, info->srcImage, info->flags, &info->imageSubresource,
                              info->memoryRowLength, info->memoryImageHeight, info->imageExtent);
    if (!get_copy_room(s, need, a->pData, a->pData ? a->dataSize : 0, &room))
        return;
    const VkImageToMemoryCopy region = {
        .sType = VK_STRUCTURE_TYPE_IMAGE_TO_MEMORY_COPY,
        .pHostPointer = room.data,
        .memoryRowLength = info->memoryRowLength,
        .memoryImageHeight = info->memoryImageHeight,
        .imageSubresource = info->imageSubresource,
        .imageOffset = info->imageOffset,
        .imageExtent = info->imageExtent,
    };
    const VkCopyImageToMemoryInfo copy = {
        .sType = VK_STRUCTURE_TYPE_COPY_IMAGE_TO_MEMORY_INFO,
        .flags = info->flags,
        .srcImage = info->srcImage,
        .srcImageLayout = info->srcImageLayout,
        .regionCount = 1,
        .pRegions = &region,
    };
    a->ret = device->vk.CopyImageToMemory(a->device, &copy);
    pv_stream_result(s, a->ret);
    if (a->pData && room.mapped > 0)
        memcpy(a->pData, room.data, a->dataSize);
    free_copy_room(&room);
}

/* The rooms of all regions; false if there is not enough for one, and then none is held. */
static bool get_region_rooms(struct pv_stream *s, const struct pv_device *device,
                             const VkCopyMemoryToImageInfoMESA *info, VkMemoryToImageCopy *regions,
                             struct copy_room *rooms)
{
    for (uint32_t i = 0; i < info->regionCount; i++) {
        const VkMemoryToImageCopyMESA *from = &info->pRegions[i];
        uint64_t need =
            copy_size(device, info->dstImage, info->flags, &from->imageSubresource,
                      from->memoryRowLength, from->memoryImageHeight, from->imageExtent);
        if (!get_copy_room(s, need, (void *)from->pData, from->dataSize, &rooms[i])) {
            while (i-- > 0)
                free_copy_room(&rooms[i]);
            return false;
        }
        if (rooms[i].mapped > 0 && from->pData)
            memcpy(rooms[i].data, from->pData, from->dataSize);
        regions[i] = (VkMemoryToImageCopy){
            .sType = VK_STRUCTURE_TYPE_MEMORY_TO_IMAGE_COPY,
            .pHostPointer = rooms[i].data,
            .memoryRowLength = from->memoryRowLength,
            .memoryImageHeight = from->memoryImageHeight,
            .imageSubresource = from->imageSubresource,
            .imageOffset = from->imageOffset,
            .imageExtent = from->imageExtent,
        };
    }
    return true;
}

void pv_do_vkCopyMemoryToImageMESA(struct pv_stream *s, struct pv_args_vkCopyMemoryToImageMESA *a)
{
    const struct pv_device *device = a->device_object->dev;
    const VkCopyMemoryToImageInfoMESA *info = a->pCopyMemoryToImageInfo;
    if (!device->vk.CopyMemoryToImage) {
        pv_stream_missing(s);
        return;
    }
    VkMemoryToImageCopy *regions = pv_decode_room(&s->dec, info->regionCount, sizeof(*regions), 0);
    struct copy_room *rooms = pv_decode_room(&s->dec, info->regionCount, sizeof(*rooms), 0);
    if (pv_decoder_failed(&s->dec) || !get_region_rooms(s, device, info, regions, rooms))
        return;
    const VkCopyMemoryToImageInfo copy = {
        .sType = VK_STRUCTURE_TYPE_COPY_MEMORY_TO_IMAGE_INFO,
        .flags = info->flags,
        .dstImage = info->dstImage,
        .dstImageLayout = info->dstImageLayout,
        .regionCount = info->regionCount,
        .pRegions = regions,
    };
    a->ret = device->vk.CopyMemoryToImage(a->device, &copy);
    pv_stream_result(s, a->ret);
    for (uint32_t i = 0; i < info->regionCount; i++)
        free_copy_room(&rooms[i]);
}

/* ---- descriptor heaps -------------------------------------------------------------------------
 */

#ifdef VK_EXT_descriptor_heap
/* No descriptor is larger. Drivers write what one takes, whatever the range's size. */
#define DESCRIPTOR_MAX 1024u

/* A range that a descriptor fits into. The reply takes `size` bytes from where it is written. */
static VkHostAddressRangeEXT descriptor_range(struct pv_stream *s, uint8_t **data, size_t size)
{
    uint8_t *room = *data;
    if (size < DESCRIPTOR_MAX)
        room = pv_decode_room(&s->dec, DESCRIPTOR_MAX, 1, 0);
    if (*data)
        *data = room;
    return (VkHostAddressRangeEXT){.address = room, .size = size};
}

void pv_do_vkWriteSamplerDescriptorMESA(struct pv_stream *s,
                                        struct pv_args_vkWriteSamplerDescriptorMESA *a)
{
    const struct pv_vk_device_table *vk = &a->device_object->dev->vk;
    if (!vk->WriteSamplerDescriptorsEXT) {
        pv_stream_missing(s);
        return;
    }
    const VkHostAddressRangeEXT range = descriptor_range(s, &a->pData, a->dataSize);
    if (pv_decoder_failed(&s->dec))
        return;
    a->ret = vk->WriteSamplerDescriptorsEXT(a->device, 1, a->pSampler, &range);
    pv_stream_result(s, a->ret);
}

void pv_do_vkWriteResourceDescriptorMESA(struct pv_stream *s,
                                         struct pv_args_vkWriteResourceDescriptorMESA *a)
{
    const struct pv_vk_device_table *vk = &a->device_object->dev->vk;
    if (!vk->WriteResourceDescriptorsEXT) {
        pv_stream_missing(s);
        return;
    }
    const VkHostAddressRangeEXT range = descriptor_range(s, &a->pData, a->dataSize);
    if (pv_decoder_failed(&s->dec))
        return;
    a->ret = vk->WriteResourceDescriptorsEXT(a->device, 1, a->pResource, &range);
    pv_stream_result(s, a->ret);
}

void pv_do_vkGetImageOpaqueCaptureDataEXT(struct pv_stream *s,
                                          struct pv_args_vkGetImageOpaqueCaptureDataEXT *a)
{
    const struct pv_vk_device_table *vk = &a->device_object->dev->vk;
    if (!vk->GetImageOpaqueCaptureDataEXT) {
        pv_stream_missing(s);
        return;
    }
    for (uint32_t i = 0; i < a->imageCount; i++) {
        uint8_t *data = a->pDatas[i].address;
        a->pDatas[i] = descriptor_range(s, &data, a->pDatas[i].size);
    }
    if (pv_decoder_failed(&s->dec))
        return;
    a->ret = vk->GetImageOpaqueCaptureDataEXT(a->device, a->imageCount, a->pImages, a->pDatas);
    pv_stream_result(s, a->ret);
}

/* The index is in and out: the guest may ask for one. */
void pv_do_vkRegisterCustomBorderColorEXT(struct pv_stream *s,
                                          struct pv_args_vkRegisterCustomBorderColorEXT *a)
{
    const struct pv_vk_device_table *vk = &a->device_object->dev->vk;
    if (!vk->RegisterCustomBorderColorEXT) {
        pv_stream_missing(s);
        return;
    }
    a->ret =
        vk->RegisterCustomBorderColorEXT(a->device, a->pBorderColor, a->requestIndex, a->pIndex);
    pv_stream_result(s, a->ret);
}
#endif
