/* Device memory: allocation by tier, imports of resources, host image copies, descriptor bytes. */
#include "venus/context_internal.h"

#include <stdlib.h>

/* ---- allocation ------------------------------------------------------------------------------- */

/* Take the struct with this sType off the chain; NULL if it is not there. */
static void *unchain(VkMemoryAllocateInfo *info, VkStructureType stype)
{
    VkBaseOutStructure *node = (VkBaseOutStructure *)info;
    while (node->pNext && node->pNext->sType != stype)
        node = node->pNext;
    VkBaseOutStructure *found = node->pNext;
    if (found)
        node->pNext = found->pNext;
    return found;
}

static VkResult allocate(struct pv_stream *s, struct pv_device *device, VkMemoryAllocateInfo *info,
                         struct pv_memory *memory)
{
    const VkImportMemoryResourceInfoMESA *import =
        unchain(info, VK_STRUCTURE_TYPE_IMPORT_MEMORY_RESOURCE_INFO_MESA);
    if (info->memoryTypeIndex >= device->physical->memory.memoryTypeCount) {
        pv_stream_fail(s, "memory type %u does not exist", info->memoryTypeIndex);
        return VK_ERROR_UNKNOWN;
    }
    if (!import)
        return pv_layer_AllocateMemory(device, info, memory);
    struct pv_resource *resource = pv_resources_get(s->ctx->resources, import->resourceId);
    VkResult result = VK_ERROR_INVALID_EXTERNAL_HANDLE;
    if (!resource)
        pv_stream_fail(s, "resource %u does not exist", import->resourceId);
    else if (resource->fd >= 0)
        result = pv_layer_ImportMemory(device, info, resource->fd, resource->size, memory);
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
        atomic_fetch_add_explicit(&s->ctx->memory_bytes, memory->size, memory_order_relaxed);
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
    struct pv_resource *resource = pv_resources_get(s->ctx->resources, a->resourceId);
    a->ret = VK_ERROR_INVALID_EXTERNAL_HANDLE;
    if (!resource) {
        pv_stream_fail(s, "resource %u does not exist", a->resourceId);
        return;
    }
    uint64_t size = 0;
    uint32_t types = 0;
    if (resource->fd >= 0)
        types = pv_layer_import_memory_types(a->device_object->dev, resource->fd, &size);
    pv_resource_unref(resource);
    if (types == 0)
        return;
    a->ret = VK_SUCCESS;
    a->pMemoryResourceProperties->memoryTypeBits = types;
    VkBaseOutStructure *next = a->pMemoryResourceProperties->pNext;
    if (next && next->sType == VK_STRUCTURE_TYPE_MEMORY_RESOURCE_ALLOCATION_SIZE_PROPERTIES_MESA)
        ((VkMemoryResourceAllocationSizePropertiesMESA *)(void *)next)->allocationSize = size;
}

/* ---- host image copies ------------------------------------------------------------------------ */

void pv_do_vkCopyImageToMemoryMESA(struct pv_stream *s, struct pv_args_vkCopyImageToMemoryMESA *a)
{
    const struct pv_vk_device_table *vk = &a->device_object->dev->vk;
    const VkCopyImageToMemoryInfoMESA *info = a->pCopyImageToMemoryInfo;
    const VkImageToMemoryCopy region = {
        .sType = VK_STRUCTURE_TYPE_IMAGE_TO_MEMORY_COPY,
        .pHostPointer = a->pData,
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
    if (!vk->CopyImageToMemory) {
        pv_stream_missing(s);
        return;
    }
    a->ret = vk->CopyImageToMemory(a->device, &copy);
    pv_stream_result(s, a->ret);
}

void pv_do_vkCopyMemoryToImageMESA(struct pv_stream *s, struct pv_args_vkCopyMemoryToImageMESA *a)
{
    const struct pv_vk_device_table *vk = &a->device_object->dev->vk;
    const VkCopyMemoryToImageInfoMESA *info = a->pCopyMemoryToImageInfo;
    VkMemoryToImageCopy *regions =
        pv_decode_room(&s->dec, info->regionCount, sizeof(*regions), 0);
    if (!vk->CopyMemoryToImage) {
        pv_stream_missing(s);
        return;
    }
    if (pv_decoder_failed(&s->dec))
        return;
    for (uint32_t i = 0; i < info->regionCount; i++) {
        const VkMemoryToImageCopyMESA *from = &info->pRegions[i];
        regions[i] = (VkMemoryToImageCopy){
            .sType = VK_STRUCTURE_TYPE_MEMORY_TO_IMAGE_COPY,
            .pHostPointer = from->pData,
            .memoryRowLength = from->memoryRowLength,
            .memoryImageHeight = from->memoryImageHeight,
            .imageSubresource = from->imageSubresource,
            .imageOffset = from->imageOffset,
            .imageExtent = from->imageExtent,
        };
    }
    const VkCopyMemoryToImageInfo copy = {
        .sType = VK_STRUCTURE_TYPE_COPY_MEMORY_TO_IMAGE_INFO,
        .flags = info->flags,
        .dstImage = info->dstImage,
        .dstImageLayout = info->dstImageLayout,
        .regionCount = info->regionCount,
        .pRegions = regions,
    };
    a->ret = vk->CopyMemoryToImage(a->device, &copy);
    pv_stream_result(s, a->ret);
}

/* ---- descriptor heaps ------------------------------------------------------------------------- */

#ifdef VK_EXT_descriptor_heap
void pv_do_vkWriteSamplerDescriptorMESA(struct pv_stream *s,
                                        struct pv_args_vkWriteSamplerDescriptorMESA *a)
{
    const struct pv_vk_device_table *vk = &a->device_object->dev->vk;
    const VkHostAddressRangeEXT range = {.address = a->pData, .size = a->dataSize};
    if (!vk->WriteSamplerDescriptorsEXT) {
        pv_stream_missing(s);
        return;
    }
    a->ret = vk->WriteSamplerDescriptorsEXT(a->device, 1, a->pSampler, &range);
    pv_stream_result(s, a->ret);
}

void pv_do_vkWriteResourceDescriptorMESA(struct pv_stream *s,
                                         struct pv_args_vkWriteResourceDescriptorMESA *a)
{
    const struct pv_vk_device_table *vk = &a->device_object->dev->vk;
    const VkHostAddressRangeEXT range = {.address = a->pData, .size = a->dataSize};
    if (!vk->WriteResourceDescriptorsEXT) {
        pv_stream_missing(s);
        return;
    }
    a->ret = vk->WriteResourceDescriptorsEXT(a->device, 1, a->pResource, &range);
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
    a->ret = vk->RegisterCustomBorderColorEXT(a->device, a->pBorderColor, a->requestIndex, a->pIndex);
    pv_stream_result(s, a->ret);
}
#endif
