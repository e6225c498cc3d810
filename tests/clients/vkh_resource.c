/* Memory, buffers, images and commands of vkh.h. */
#include "vkh.h"

#include <string.h>

uint32_t vkh_memory_type(const struct vkh *vk, uint32_t type_bits, VkMemoryPropertyFlags flags)
{
    for (uint32_t i = 0; i < vk->memory.memoryTypeCount; i++) {
        if ((type_bits & (1u << i)) && (vk->memory.memoryTypes[i].propertyFlags & flags) == flags)
            return i;
    }
    return UINT32_MAX;
}

VkDeviceMemory vkh_allocate(struct vkh *vk, VkDeviceSize size, uint32_t type_index, bool address)
{
    const VkMemoryAllocateFlagsInfo flags = {
        .sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_FLAGS_INFO,
        .flags = VK_MEMORY_ALLOCATE_DEVICE_ADDRESS_BIT,
    };
    const VkMemoryAllocateInfo info = {
        .sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO,
        .pNext = address ? &flags : NULL,
        .allocationSize = size,
        .memoryTypeIndex = type_index,
    };
    VkDeviceMemory memory;
    VKH_CHECK(vkAllocateMemory(vk->device, &info, NULL, &memory));
    VKH_KEEP(vk, DEVICE_MEMORY, memory);
    return memory;
}

/* A type with all `flags`, else any that the object allows (images on a device without the wish).
 */
static uint32_t pick_memory_type(const struct vkh *vk, uint32_t bits, VkMemoryPropertyFlags flags)
{
    uint32_t index = vkh_memory_type(vk, bits, flags);
    if (index == UINT32_MAX && !(flags & VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT))
        index = vkh_memory_type(vk, bits, 0);
    if (index == UINT32_MAX)
        vkh_fail("no memory type with flags 0x%x among 0x%x", flags, bits);
    return index;
}

VkBuffer vkh_raw_buffer(struct vkh *vk, VkDeviceSize size, VkBufferUsageFlags usage)
{
    const VkBufferCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO,
        .size = size,
        .usage = usage,
    };
    VkBuffer buffer;
    VKH_CHECK(vkCreateBuffer(vk->device, &info, NULL, &buffer));
    VKH_KEEP(vk, BUFFER, buffer);
    return buffer;
}

struct vkh_buffer vkh_buffer(struct vkh *vk, VkDeviceSize size, VkBufferUsageFlags usage,
                             VkMemoryPropertyFlags flags)
{
    struct vkh_buffer result = {.buffer = vkh_raw_buffer(vk, size, usage), .size = size};
    VkMemoryRequirements needs;
    vkGetBufferMemoryRequirements(vk->device, result.buffer, &needs);
    uint32_t type = pick_memory_type(vk, needs.memoryTypeBits, flags);
    result.memory = vkh_allocate(vk, needs.size, type,
                                 (usage & VK_BUFFER_USAGE_SHADER_DEVICE_ADDRESS_BIT) != 0);
    VKH_CHECK(vkBindBufferMemory(vk->device, result.buffer, result.memory, 0));
    if (flags & VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT)
        VKH_CHECK(vkMapMemory(vk->device, result.memory, 0, VK_WHOLE_SIZE, 0, &result.map));
    return result;
}

struct vkh_buffer vkh_buffer_with(struct vkh *vk, const void *data, VkDeviceSize size,
                                  VkBufferUsageFlags usage)
{
    struct vkh_buffer buffer = vkh_buffer(vk, size, usage, VKH_HOST_MEMORY);
    memcpy(buffer.map, data, size);
    return buffer;
}

/* ---- images ---- */

static VkImageAspectFlags format_aspect(VkFormat format)
{
    switch (format) {
    case VK_FORMAT_D16_UNORM:
    case VK_FORMAT_D32_SFLOAT:
        return VK_IMAGE_ASPECT_DEPTH_BIT;
    case VK_FORMAT_D24_UNORM_S8_UINT:
    case VK_FORMAT_D32_SFLOAT_S8_UINT:
        return VK_IMAGE_ASPECT_DEPTH_BIT | VK_IMAGE_ASPECT_STENCIL_BIT;
    case VK_FORMAT_S8_UINT:
        return VK_IMAGE_ASPECT_STENCIL_BIT;
    default:
        return VK_IMAGE_ASPECT_COLOR_BIT;
    }
}

static VkImageViewType view_type(const struct vkh_image_params *params)
{
    if (params->depth > 1)
        return VK_IMAGE_VIEW_TYPE_3D;
    if (params->cube)
        return VK_IMAGE_VIEW_TYPE_CUBE;
    return params->layer_count > 1 ? VK_IMAGE_VIEW_TYPE_2D_ARRAY : VK_IMAGE_VIEW_TYPE_2D;
}

static VkImage create_image(struct vkh *vk, const struct vkh_image_params *params,
                            const struct vkh_image *image)
{
    const VkImageCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_IMAGE_CREATE_INFO,
        .flags = params->cube ? VK_IMAGE_CREATE_CUBE_COMPATIBLE_BIT : 0,
        .imageType = params->depth > 1 ? VK_IMAGE_TYPE_3D : VK_IMAGE_TYPE_2D,
        .format = params->format,
        .extent = image->extent,
        .mipLevels = image->mip_levels,
        .arrayLayers = image->layer_count,
        .samples = params->samples ? params->samples : VK_SAMPLE_COUNT_1_BIT,
        .tiling = VK_IMAGE_TILING_OPTIMAL,
        .usage = params->usage,
    };
    VkImage handle;
    VKH_CHECK(vkCreateImage(vk->device, &info, NULL, &handle));
    VKH_KEEP(vk, IMAGE, handle);
    return handle;
}

struct vkh_image vkh_image(struct vkh *vk, const struct vkh_image_params *params)
{
    struct vkh_image image = {
        .format = params->format,
        .extent = {params->width, params->height, params->depth ? params->depth : 1},
        .mip_levels = params->mip_levels ? params->mip_levels : 1,
        .layer_count = params->layer_count ? params->layer_count : 1,
        .aspect = format_aspect(params->format),
    };
    image.image = create_image(vk, params, &image);
    VkMemoryRequirements needs;
    vkGetImageMemoryRequirements(vk->device, image.image, &needs);
    uint32_t type = pick_memory_type(vk, needs.memoryTypeBits, VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT);
    image.memory = vkh_allocate(vk, needs.size, type, false);
    VKH_CHECK(vkBindImageMemory(vk->device, image.image, image.memory, 0));
    const VkImageViewCreateInfo view = {
        .sType = VK_STRUCTURE_TYPE_IMAGE_VIEW_CREATE_INFO,
        .image = image.image,
        .viewType = view_type(params),
        .format = params->format,
        .subresourceRange = {image.aspect, 0, image.mip_levels, 0, image.layer_count},
    };
    VKH_CHECK(vkCreateImageView(vk->device, &view, NULL, &image.view));
    VKH_KEEP(vk, IMAGE_VIEW, image.view);
    return image;
}

static void image_barrier(VkCommandBuffer commands, const struct vkh_image *image,
                          uint32_t first_level, uint32_t level_count, VkImageLayout from,
                          VkImageLayout to)
{
    const VkImageMemoryBarrier barrier = {
        .sType = VK_STRUCTURE_TYPE_IMAGE_MEMORY_BARRIER,
        .srcAccessMask = VK_ACCESS_MEMORY_WRITE_BIT,
        .dstAccessMask = VK_ACCESS_MEMORY_READ_BIT | VK_ACCESS_MEMORY_WRITE_BIT,
        .oldLayout = from,
        .newLayout = to,
        .srcQueueFamilyIndex = VK_QUEUE_FAMILY_IGNORED,
        .dstQueueFamilyIndex = VK_QUEUE_FAMILY_IGNORED,
        .image = image->image,
        .subresourceRange = {image->aspect, first_level, level_count, 0, VK_REMAINING_ARRAY_LAYERS},
    };
    vkCmdPipelineBarrier(commands, VK_PIPELINE_STAGE_ALL_COMMANDS_BIT,
                         VK_PIPELINE_STAGE_ALL_COMMANDS_BIT, 0, 0, NULL, 0, NULL, 1, &barrier);
}

static VkOffset3D level_end(const struct vkh_image *image, uint32_t level)
{
    VkExtent3D size = image->extent;
    return (VkOffset3D){
        (int32_t)(size.width >> level ? size.width >> level : 1),
        (int32_t)(size.height >> level ? size.height >> level : 1),
        (int32_t)(size.depth >> level ? size.depth >> level : 1),
    };
}

static void blit_levels(VkCommandBuffer commands, const struct vkh_image *image)
{
    for (uint32_t level = 1; level < image->mip_levels; level++) {
        image_barrier(commands, image, level - 1, 1, VK_IMAGE_LAYOUT_TRANSFER_DST_OPTIMAL,
                      VK_IMAGE_LAYOUT_TRANSFER_SRC_OPTIMAL);
        const VkImageBlit blit = {
            .srcSubresource = {image->aspect, level - 1, 0, image->layer_count},
            .srcOffsets = {{0, 0, 0}, level_end(image, level - 1)},
            .dstSubresource = {image->aspect, level, 0, image->layer_count},
            .dstOffsets = {{0, 0, 0}, level_end(image, level)},
        };
        vkCmdBlitImage(commands, image->image, VK_IMAGE_LAYOUT_TRANSFER_SRC_OPTIMAL, image->image,
                       VK_IMAGE_LAYOUT_TRANSFER_DST_OPTIMAL, 1, &blit, VK_FILTER_LINEAR);
    }
}

void vkh_image_upload(struct vkh *vk, const struct vkh_image *image, const void *texels,
                      VkDeviceSize size)
{
    size_t mark = vkh_mark(vk);
    struct vkh_buffer staging = vkh_buffer_with(vk, texels, size, VK_BUFFER_USAGE_TRANSFER_SRC_BIT);
    VkCommandBuffer commands = vkh_begin(vk);
    vkh_layout(commands, image, VK_IMAGE_LAYOUT_UNDEFINED, VK_IMAGE_LAYOUT_TRANSFER_DST_OPTIMAL);
    const VkBufferImageCopy region = {
        .imageSubresource = {image->aspect, 0, 0, image->layer_count},
        .imageExtent = image->extent,
    };
    vkCmdCopyBufferToImage(commands, staging.buffer, image->image,
                           VK_IMAGE_LAYOUT_TRANSFER_DST_OPTIMAL, 1, &region);
    blit_levels(commands, image);
    uint32_t last = image->mip_levels - 1;
    if (last > 0)
        image_barrier(commands, image, 0, last, VK_IMAGE_LAYOUT_TRANSFER_SRC_OPTIMAL,
                      VK_IMAGE_LAYOUT_SHADER_READ_ONLY_OPTIMAL);
    image_barrier(commands, image, last, 1, VK_IMAGE_LAYOUT_TRANSFER_DST_OPTIMAL,
                  VK_IMAGE_LAYOUT_SHADER_READ_ONLY_OPTIMAL);
    vkh_submit_wait(vk, commands);
    vkh_release(vk, mark);
}

VkSampler vkh_sampler(struct vkh *vk, VkFilter filter, VkSamplerAddressMode mode)
{
    const VkSamplerCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_SAMPLER_CREATE_INFO,
        .magFilter = filter,
        .minFilter = filter,
        .mipmapMode = filter == VK_FILTER_LINEAR ? VK_SAMPLER_MIPMAP_MODE_LINEAR
                                                 : VK_SAMPLER_MIPMAP_MODE_NEAREST,
        .addressModeU = mode,
        .addressModeV = mode,
        .addressModeW = mode,
        .maxLod = VK_LOD_CLAMP_NONE,
    };
    VkSampler sampler;
    VKH_CHECK(vkCreateSampler(vk->device, &info, NULL, &sampler));
    VKH_KEEP(vk, SAMPLER, sampler);
    return sampler;
}

/* ---- commands ---- */

VkCommandBuffer vkh_command_buffer(struct vkh *vk, VkCommandBufferLevel level)
{
    const VkCommandBufferAllocateInfo info = {
        .sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO,
        .commandPool = vk->command_pool,
        .level = level,
        .commandBufferCount = 1,
    };
    VkCommandBuffer commands;
    VKH_CHECK(vkAllocateCommandBuffers(vk->device, &info, &commands));
    return commands;
}

VkCommandBuffer vkh_begin(struct vkh *vk)
{
    VkCommandBuffer commands = vkh_command_buffer(vk, VK_COMMAND_BUFFER_LEVEL_PRIMARY);
    const VkCommandBufferBeginInfo info = {
        .sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO,
    };
    VKH_CHECK(vkBeginCommandBuffer(commands, &info));
    return commands;
}

void vkh_queue_submit(struct vkh *vk, const VkSubmitInfo *submit, VkFence fence)
{
    pthread_mutex_lock(vk->queue_lock);
    VkResult result = vkQueueSubmit(vk->queue, 1, submit, fence);
    pthread_mutex_unlock(vk->queue_lock);
    vkh_check(result, "vkQueueSubmit", __FILE__, __LINE__);
}

void vkh_submit_wait(struct vkh *vk, VkCommandBuffer commands)
{
    size_t mark = vkh_mark(vk);
    VkFence fence = vkh_fence(vk);
    VKH_CHECK(vkEndCommandBuffer(commands));
    const VkSubmitInfo submit = {
        .sType = VK_STRUCTURE_TYPE_SUBMIT_INFO,
        .commandBufferCount = 1,
        .pCommandBuffers = &commands,
    };
    vkh_queue_submit(vk, &submit, fence);
    VKH_CHECK(vkWaitForFences(vk->device, 1, &fence, VK_TRUE, UINT64_MAX));
    vkFreeCommandBuffers(vk->device, vk->command_pool, 1, &commands);
    vkh_release(vk, mark);
}

VkFence vkh_fence(struct vkh *vk)
{
    const VkFenceCreateInfo info = {.sType = VK_STRUCTURE_TYPE_FENCE_CREATE_INFO};
    VkFence fence;
    VKH_CHECK(vkCreateFence(vk->device, &info, NULL, &fence));
    VKH_KEEP(vk, FENCE, fence);
    return fence;
}

static VkSemaphore create_semaphore(struct vkh *vk, const void *next)
{
    const VkSemaphoreCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_SEMAPHORE_CREATE_INFO,
        .pNext = next,
    };
    VkSemaphore semaphore;
    VKH_CHECK(vkCreateSemaphore(vk->device, &info, NULL, &semaphore));
    VKH_KEEP(vk, SEMAPHORE, semaphore);
    return semaphore;
}

VkSemaphore vkh_semaphore(struct vkh *vk)
{
    return create_semaphore(vk, NULL);
}

VkSemaphore vkh_timeline(struct vkh *vk, uint64_t value)
{
    if (!vk->features12.timelineSemaphore)
        vkh_skip("%s has no timelineSemaphore", vk->properties.deviceName);
    const VkSemaphoreTypeCreateInfo type = {
        .sType = VK_STRUCTURE_TYPE_SEMAPHORE_TYPE_CREATE_INFO,
        .semaphoreType = VK_SEMAPHORE_TYPE_TIMELINE,
        .initialValue = value,
    };
    return create_semaphore(vk, &type);
}

void vkh_layout(VkCommandBuffer commands, const struct vkh_image *image, VkImageLayout from,
                VkImageLayout to)
{
    image_barrier(commands, image, 0, image->mip_levels, from, to);
}

void vkh_barrier(VkCommandBuffer commands)
{
    const VkMemoryBarrier barrier = {
        .sType = VK_STRUCTURE_TYPE_MEMORY_BARRIER,
        .srcAccessMask = VK_ACCESS_MEMORY_WRITE_BIT,
        .dstAccessMask = VK_ACCESS_MEMORY_READ_BIT | VK_ACCESS_MEMORY_WRITE_BIT,
    };
    const VkPipelineStageFlags all =
        VK_PIPELINE_STAGE_ALL_COMMANDS_BIT | VK_PIPELINE_STAGE_HOST_BIT;
    vkCmdPipelineBarrier(commands, all, all, 0, 1, &barrier, 0, NULL, 0, NULL);
}

void vkh_copy_to_buffer(VkCommandBuffer commands, const struct vkh_image *image,
                        const struct vkh_buffer *buffer)
{
    const VkBufferImageCopy region = {
        .imageSubresource = {image->aspect, 0, 0, image->layer_count},
        .imageExtent = image->extent,
    };
    vkCmdCopyImageToBuffer(commands, image->image, VK_IMAGE_LAYOUT_TRANSFER_SRC_OPTIMAL,
                           buffer->buffer, 1, &region);
    vkh_barrier(commands);
}
