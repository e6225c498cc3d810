#include "vulkan/copied.h"

#include "util/os.h"
#include "vulkan/chain.h"
#include "vulkan/device_internal.h"

#include <stdlib.h>
#include <string.h>

/* What GPUs want of the rows of something that is scanned out. */
#define PITCH_ALIGN 256u
/* Nobody has larger pictures; sums of a few of these do not overflow. */
#define SIZE_MAX_ROWS (UINT64_C(1) << 40)

struct pv_copied {
    VkImage image;         /* the key; borrowed */
    VkDeviceMemory memory; /* of the image */
    VkBuffer buffer;       /* the rows; bound when the guest binds the image */
    VkSubresourceLayout layout;
    uint32_t width, height, pixel_size;
    bool bound;
    bool written; /* is new, or was in a layout in which it can be written */
    struct pv_copied *next;
};

struct pv_copied_list {
    pthread_mutex_t lock; /* of all below */
    struct pv_copied *first;
    atomic_uint count; /* to be looked at without the lock */
};

VkResult pv_copied_create(struct pv_copied_list **out)
{
    struct pv_copied_list *list = calloc(1, sizeof(*list));
    if (!list)
        return VK_ERROR_OUT_OF_HOST_MEMORY;
    pthread_mutex_init(&list->lock, NULL);
    *out = list;
    return VK_SUCCESS;
}

void pv_copied_destroy(struct pv_copied_list *list)
{
    if (!list)
        return;
    pthread_mutex_destroy(&list->lock);
    free(list);
}

/* ---- what can be copied ---- */

uint32_t pv_copied_pixel_size(VkFormat format)
{
    switch ((int)format) {
    case VK_FORMAT_R8_UNORM:
        return 1;
    case VK_FORMAT_R8G8_UNORM:
    case VK_FORMAT_R16_UNORM:
    case VK_FORMAT_R16_SFLOAT:
    case VK_FORMAT_R5G6B5_UNORM_PACK16:
    case VK_FORMAT_B5G6R5_UNORM_PACK16:
    case VK_FORMAT_R5G5B5A1_UNORM_PACK16:
    case VK_FORMAT_B5G5R5A1_UNORM_PACK16:
    case VK_FORMAT_A1R5G5B5_UNORM_PACK16:
    case VK_FORMAT_R4G4B4A4_UNORM_PACK16:
    case VK_FORMAT_B4G4R4A4_UNORM_PACK16:
        return 2;
    case VK_FORMAT_R8G8B8A8_UNORM:
    case VK_FORMAT_R8G8B8A8_SRGB:
    case VK_FORMAT_B8G8R8A8_UNORM:
    case VK_FORMAT_B8G8R8A8_SRGB:
    case VK_FORMAT_A8B8G8R8_UNORM_PACK32:
    case VK_FORMAT_A8B8G8R8_SRGB_PACK32:
    case VK_FORMAT_A2R10G10B10_UNORM_PACK32:
    case VK_FORMAT_A2B10G10R10_UNORM_PACK32:
    case VK_FORMAT_R16G16_UNORM:
    case VK_FORMAT_R16G16_SFLOAT:
    case VK_FORMAT_R32_SFLOAT:
        return 4;
    case VK_FORMAT_R16G16B16A16_UNORM:
    case VK_FORMAT_R16G16B16A16_SFLOAT:
        return 8;
    default:
        return 0;
    }
}

VkFormatFeatureFlags2 pv_copied_features(VkFormat format, VkFormatFeatureFlags2 optimal)
{
    const VkFormatFeatureFlags2 needed =
        VK_FORMAT_FEATURE_2_TRANSFER_SRC_BIT | VK_FORMAT_FEATURE_2_TRANSFER_DST_BIT;
    return pv_copied_pixel_size(format) && (optimal & needed) == needed ? optimal : 0;
}

bool pv_copied_can_be(VkFormat format, VkImageType type, VkImageCreateFlags flags)
{
    const VkImageCreateFlags never =
        VK_IMAGE_CREATE_SPARSE_BINDING_BIT | VK_IMAGE_CREATE_SPARSE_RESIDENCY_BIT |
        VK_IMAGE_CREATE_SPARSE_ALIASED_BIT | VK_IMAGE_CREATE_CUBE_COMPATIBLE_BIT |
        VK_IMAGE_CREATE_PROTECTED_BIT | VK_IMAGE_CREATE_DISJOINT_BIT;
    return pv_copied_pixel_size(format) && type == VK_IMAGE_TYPE_2D && !(flags & never);
}

void pv_copied_limit(VkImageFormatProperties *properties)
{
    properties->maxExtent.depth = 1;
    properties->maxMipLevels = 1;
    properties->maxArrayLayers = 1;
    properties->sampleCounts = VK_SAMPLE_COUNT_1_BIT;
}

/* ---- rows ---- */

static bool is_possible_layout(const VkSubresourceLayout *layout, uint32_t width, uint32_t size)
{
    /* what vkCmdCopyImageToBuffer can write */
    return layout->rowPitch >= (uint64_t)width * size && layout->rowPitch % size == 0 &&
           layout->rowPitch <= INT32_MAX && layout->offset % 4 == 0 && layout->offset % size == 0 &&
           layout->offset <= SIZE_MAX_ROWS && layout->size > 0 && layout->size <= SIZE_MAX_ROWS;
}

VkResult pv_copied_layout(const VkImageCreateInfo *info,
                          const VkImageDrmFormatModifierExplicitCreateInfoEXT *stated,
                          VkSubresourceLayout *out)
{
    uint32_t size = pv_copied_pixel_size(info->format);
    if (!pv_copied_can_be(info->format, info->imageType, info->flags) || info->mipLevels != 1 ||
        info->arrayLayers != 1 || info->extent.depth != 1 || info->samples != VK_SAMPLE_COUNT_1_BIT)
        return VK_ERROR_FORMAT_NOT_SUPPORTED;
    if (stated && stated->drmFormatModifierPlaneCount != 1)
        return VK_ERROR_INVALID_DRM_FORMAT_MODIFIER_PLANE_LAYOUT_EXT;

    uint64_t packed = (uint64_t)info->extent.width * size;
    *out = (VkSubresourceLayout){
        .offset = stated ? stated->pPlaneLayouts[0].offset : 0,
        .rowPitch = stated ? stated->pPlaneLayouts[0].rowPitch : pv_align_up(packed, PITCH_ALIGN),
    };
    if (out->rowPitch > UINT32_MAX) /* so that the product does not overflow */
        return VK_ERROR_INVALID_DRM_FORMAT_MODIFIER_PLANE_LAYOUT_EXT;
    out->size = out->rowPitch * info->extent.height;
    return is_possible_layout(out, info->extent.width, size)
               ? VK_SUCCESS
               : VK_ERROR_INVALID_DRM_FORMAT_MODIFIER_PLANE_LAYOUT_EXT;
}

static VkResult create_rows(struct pv_device *device, const VkSubresourceLayout *layout,
                            VkBuffer *out)
{
    VkExternalMemoryBufferCreateInfo external = {
        .sType = VK_STRUCTURE_TYPE_EXTERNAL_MEMORY_BUFFER_CREATE_INFO,
        .handleTypes = VK_EXTERNAL_MEMORY_HANDLE_TYPE_DMA_BUF_BIT_EXT,
    };
    VkBufferCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO,
        .pNext = &external,
        .size = layout->offset + layout->size,
        .usage = VK_BUFFER_USAGE_TRANSFER_SRC_BIT | VK_BUFFER_USAGE_TRANSFER_DST_BIT,
    };
    return pv_layer_CreateBuffer(device, &info, out);
}

/* Of any type: what is shared lies in memory of ours, whatever type the guest names, if it says
 * which image the memory is for (pv_layer_shared_memory_type). */
static void get_requirements(struct pv_device *device, VkBuffer rows, VkMemoryRequirements2 *out)
{
    VkBufferMemoryRequirementsInfo2 info = {
        .sType = VK_STRUCTURE_TYPE_BUFFER_MEMORY_REQUIREMENTS_INFO_2,
        .buffer = rows,
    };
    device->vk.GetBufferMemoryRequirements2(device->handle, &info, out);
    VkMemoryDedicatedRequirements *dedicated =
        pv_chain_find(out, VK_STRUCTURE_TYPE_MEMORY_DEDICATED_REQUIREMENTS);
    if (dedicated)
        dedicated->prefersDedicatedAllocation = dedicated->requiresDedicatedAllocation = VK_TRUE;
}

VkResult pv_copied_requirements(struct pv_device *device, const VkSubresourceLayout *layout,
                                VkMemoryRequirements2 *out)
{
    VkBuffer rows;
    VkResult result = create_rows(device, layout, &rows);
    if (result != VK_SUCCESS)
        return result;
    get_requirements(device, rows, out);
    device->vk.DestroyBuffer(device->handle, rows, NULL);
    return VK_SUCCESS;
}

/* ---- making and finding ---- */

static uint32_t choose_type(const struct pv_device *device, uint32_t bits)
{
    const VkPhysicalDeviceMemoryProperties *memory = &device->physical->memory;
    uint32_t found = UINT32_MAX;
    for (uint32_t i = memory->memoryTypeCount; i-- > 0;) {
        if (!(bits & (1u << i)))
            continue;
        bool local = memory->memoryTypes[i].propertyFlags & VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT;
        if (found == UINT32_MAX || local)
            found = i;
    }
    return found;
}

static VkResult give_memory(struct pv_device *device, struct pv_copied *copied)
{
    VkMemoryRequirements requirements;
    device->vk.GetImageMemoryRequirements(device->handle, copied->image, &requirements);
    VkMemoryDedicatedAllocateInfo dedicated = {
        .sType = VK_STRUCTURE_TYPE_MEMORY_DEDICATED_ALLOCATE_INFO,
        .image = copied->image,
    };
    VkMemoryAllocateInfo info = {
        .sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO,
        .pNext = &dedicated,
        .allocationSize = requirements.size,
        .memoryTypeIndex = choose_type(device, requirements.memoryTypeBits),
    };
    if (info.memoryTypeIndex == UINT32_MAX)
        return VK_ERROR_OUT_OF_DEVICE_MEMORY;
    VkResult result = device->vk.AllocateMemory(device->handle, &info, NULL, &copied->memory);
    if (result == VK_SUCCESS)
        result = device->vk.BindImageMemory(device->handle, copied->image, copied->memory, 0);
    return result;
}

VkResult pv_copied_add(struct pv_device *device, VkImage image, const VkImageCreateInfo *info,
                       const VkSubresourceLayout *layout, bool is_new)
{
    struct pv_copied_list *list = device->copied;
    struct pv_copied *copied = calloc(1, sizeof(*copied));
    if (!copied)
        return VK_ERROR_OUT_OF_HOST_MEMORY;
    copied->image = image;
    copied->layout = *layout;
    copied->width = info->extent.width;
    copied->height = info->extent.height;
    copied->pixel_size = pv_copied_pixel_size(info->format);
    copied->written = is_new;
    VkResult result = create_rows(device, layout, &copied->buffer);
    if (result == VK_SUCCESS)
        result = give_memory(device, copied);
    if (result != VK_SUCCESS) {
        pv_copied_free(device, copied);
        return result;
    }
    pthread_mutex_lock(&list->lock);
    copied->next = list->first;
    list->first = copied;
    atomic_fetch_add(&list->count, 1);
    pthread_mutex_unlock(&list->lock);
    return VK_SUCCESS;
}

void pv_copied_free(struct pv_device *device, struct pv_copied *copied)
{
    if (!copied)
        return;
    device->vk.DestroyBuffer(device->handle, copied->buffer, NULL);
    device->vk.FreeMemory(device->handle, copied->memory, NULL);
    free(copied);
}

/* With the lock held. Where the image stands in the list; NULL if it is none of ours. */
static struct pv_copied **find(struct pv_copied_list *list, VkImage image)
{
    for (struct pv_copied **at = &list->first; *at; at = &(*at)->next) {
        if ((*at)->image == image)
            return at;
    }
    return NULL;
}

static bool has_none(const struct pv_device *device)
{
    return atomic_load_explicit(&device->copied->count, memory_order_relaxed) == 0;
}

struct pv_copied *pv_copied_take(struct pv_device *device, VkImage image)
{
    struct pv_copied_list *list = device->copied;
    struct pv_copied *copied = NULL;
    if (has_none(device))
        return NULL;
    pthread_mutex_lock(&list->lock);
    struct pv_copied **at = find(list, image);
    if (at) {
        copied = *at;
        *at = copied->next;
        atomic_fetch_sub(&list->count, 1);
    }
    pthread_mutex_unlock(&list->lock);
    return copied;
}

/* A copy of what is known of an image, so that nobody holds on to it. */
static bool look_up(struct pv_device *device, VkImage image, struct pv_copied *out)
{
    struct pv_copied_list *list = device->copied;
    if (has_none(device))
        return false;
    pthread_mutex_lock(&list->lock);
    struct pv_copied **at = find(list, image);
    if (at)
        *out = **at;
    pthread_mutex_unlock(&list->lock);
    return at != NULL;
}

bool pv_copied_is(struct pv_device *device, VkImage image)
{
    struct pv_copied copied;
    return look_up(device, image, &copied);
}

bool pv_copied_get_layout(struct pv_device *device, VkImage image, VkSubresourceLayout *out)
{
    struct pv_copied copied;
    if (!look_up(device, image, &copied))
        return false;
    *out = copied.layout;
    return true;
}

bool pv_copied_get_requirements(struct pv_device *device, VkImage image, VkMemoryRequirements2 *out)
{
    struct pv_copied copied;
    if (!look_up(device, image, &copied))
        return false;
    get_requirements(device, copied.buffer, out);
    return true;
}

bool pv_copied_bind(struct pv_device *device, VkImage image, VkDeviceMemory memory,
                    VkDeviceSize offset, VkResult *out_result)
{
    struct pv_copied_list *list = device->copied;
    struct pv_copied copied;
    if (!look_up(device, image, &copied))
        return false;
    *out_result = device->vk.BindBufferMemory(device->handle, copied.buffer, memory, offset);
    if (*out_result != VK_SUCCESS)
        return true;
    pthread_mutex_lock(&list->lock);
    struct pv_copied **at = find(list, image);
    if (at)
        (*at)->bound = true;
    pthread_mutex_unlock(&list->lock);
    return true;
}

/* ---- changing hands ---- */

/* What an image barrier of either generation says. */
struct change {
    VkImage image;
    VkImageLayout before, after;
    uint32_t from, to; /* queue families */
};

/* An array of either kind of barriers. */
struct barriers {
    char *first;
    size_t size; /* of one */
    struct change (*read)(const void *barrier);
};

static struct change read_barrier(const void *data)
{
    const VkImageMemoryBarrier *barrier = data;
    return (struct change){barrier->image, barrier->oldLayout, barrier->newLayout,
                           barrier->srcQueueFamilyIndex, barrier->dstQueueFamilyIndex};
}

static struct change read_barrier2(const void *data)
{
    const VkImageMemoryBarrier2 *barrier = data;
    return (struct change){barrier->image, barrier->oldLayout, barrier->newLayout,
                           barrier->srcQueueFamilyIndex, barrier->dstQueueFamilyIndex};
}

static bool is_somebody_else(uint32_t family)
{
    return family == VK_QUEUE_FAMILY_FOREIGN_EXT || family == VK_QUEUE_FAMILY_EXTERNAL;
}

static bool is_for_reading(VkImageLayout layout)
{
    return layout == VK_IMAGE_LAYOUT_SHADER_READ_ONLY_OPTIMAL ||
           layout == VK_IMAGE_LAYOUT_TRANSFER_SRC_OPTIMAL ||
           layout == VK_IMAGE_LAYOUT_READ_ONLY_OPTIMAL;
}

/* Whether a copied image changes hands. Notes if it may be written from here on. */
static bool changes_hands(struct pv_device *device, const struct change *change)
{
    struct pv_copied_list *list = device->copied;
    bool leaves = is_somebody_else(change->to) && !is_somebody_else(change->from);
    bool arrives = is_somebody_else(change->from) && !is_somebody_else(change->to);
    pthread_mutex_lock(&list->lock);
    struct pv_copied **at = find(list, change->image);
    if (at && !leaves && !is_for_reading(change->after))
        (*at)->written = true;
    if (at && !arrives && change->before != VK_IMAGE_LAYOUT_UNDEFINED &&
        !is_for_reading(change->before))
        (*at)->written = true;
    pthread_mutex_unlock(&list->lock);
    return at && (leaves || arrives);
}

struct step {
    VkImageLayout before, after;
    VkPipelineStageFlags from, to;
    VkAccessFlags made, seen;
};

static void barrier(struct pv_device *device, VkCommandBuffer commands, VkImage image,
                    const struct step *step)
{
    const VkMemoryBarrier memory = {
        .sType = VK_STRUCTURE_TYPE_MEMORY_BARRIER,
        .srcAccessMask = step->made,
        .dstAccessMask = step->seen,
    };
    const VkImageMemoryBarrier layout = {
        .sType = VK_STRUCTURE_TYPE_IMAGE_MEMORY_BARRIER,
        .srcAccessMask = step->made,
        .dstAccessMask = step->seen,
        .oldLayout = step->before,
        .newLayout = step->after,
        .srcQueueFamilyIndex = VK_QUEUE_FAMILY_IGNORED,
        .dstQueueFamilyIndex = VK_QUEUE_FAMILY_IGNORED,
        .image = image,
        .subresourceRange = {VK_IMAGE_ASPECT_COLOR_BIT, 0, 1, 0, 1},
    };
    device->vk.CmdPipelineBarrier(commands, step->from, step->to, 0, 1, &memory, 0, NULL, 1,
                                  &layout);
}

static VkBufferImageCopy all_of(const struct pv_copied *copied)
{
    return (VkBufferImageCopy){
        .bufferOffset = copied->layout.offset,
        .bufferRowLength = (uint32_t)(copied->layout.rowPitch / copied->pixel_size),
        .imageSubresource = {VK_IMAGE_ASPECT_COLOR_BIT, 0, 0, 1},
        .imageExtent = {copied->width, copied->height, 1},
    };
}

static void hand_out(struct pv_device *device, VkCommandBuffer commands,
                     const struct pv_copied *copied, const struct change *change)
{
    const VkPipelineStageFlags all = VK_PIPELINE_STAGE_ALL_COMMANDS_BIT;
    const VkImageLayout source = VK_IMAGE_LAYOUT_TRANSFER_SRC_OPTIMAL;
    const VkBufferImageCopy region = all_of(copied);
    barrier(device, commands, copied->image,
            &(struct step){change->before, source, all, VK_PIPELINE_STAGE_TRANSFER_BIT,
                           VK_ACCESS_MEMORY_WRITE_BIT,
                           VK_ACCESS_TRANSFER_READ_BIT | VK_ACCESS_TRANSFER_WRITE_BIT});
    device->vk.CmdCopyImageToBuffer(commands, copied->image, source, copied->buffer, 1, &region);
    barrier(device, commands, copied->image,
            &(struct step){source, change->after, VK_PIPELINE_STAGE_TRANSFER_BIT,
                           all | VK_PIPELINE_STAGE_HOST_BIT, VK_ACCESS_TRANSFER_WRITE_BIT,
                           VK_ACCESS_MEMORY_READ_BIT | VK_ACCESS_HOST_READ_BIT});
}

static void take_in(struct pv_device *device, VkCommandBuffer commands,
                    const struct pv_copied *copied, const struct change *change)
{
    const VkPipelineStageFlags all = VK_PIPELINE_STAGE_ALL_COMMANDS_BIT;
    const VkImageLayout target = VK_IMAGE_LAYOUT_TRANSFER_DST_OPTIMAL;
    const VkBufferImageCopy region = all_of(copied);
    barrier(device, commands, copied->image,
            &(struct step){VK_IMAGE_LAYOUT_UNDEFINED, target, all | VK_PIPELINE_STAGE_HOST_BIT,
                           VK_PIPELINE_STAGE_TRANSFER_BIT,
                           VK_ACCESS_MEMORY_WRITE_BIT | VK_ACCESS_HOST_WRITE_BIT,
                           VK_ACCESS_TRANSFER_READ_BIT | VK_ACCESS_TRANSFER_WRITE_BIT});
    device->vk.CmdCopyBufferToImage(commands, copied->buffer, copied->image, target, 1, &region);
    barrier(device, commands, copied->image,
            &(struct step){target, change->after, VK_PIPELINE_STAGE_TRANSFER_BIT, all,
                           VK_ACCESS_TRANSFER_WRITE_BIT,
                           VK_ACCESS_MEMORY_READ_BIT | VK_ACCESS_MEMORY_WRITE_BIT});
}

/* Both have to wait for all that came before and be waited for by all that follows: the guest's own
 * masks say what it does, not what copies do. */
static void change_hands(struct pv_device *device, VkCommandBuffer commands,
                         const struct change *change)
{
    const VkPipelineStageFlags all = VK_PIPELINE_STAGE_ALL_COMMANDS_BIT;
    const VkAccessFlags any = VK_ACCESS_MEMORY_READ_BIT | VK_ACCESS_MEMORY_WRITE_BIT;
    struct pv_copied copied;
    if (!look_up(device, change->image, &copied))
        return;
    bool leaves = is_somebody_else(change->to);
    bool has_pixels = !leaves || (copied.written && change->before != VK_IMAGE_LAYOUT_UNDEFINED);
    if (!copied.bound || !has_pixels)
        barrier(device, commands, copied.image,
                &(struct step){change->before, change->after, all, all, VK_ACCESS_MEMORY_WRITE_BIT,
                               any});
    else if (leaves)
        hand_out(device, commands, &copied, change);
    else
        take_in(device, commands, &copied, change);
}

/* Put the barriers of copied images that change hands last. Returns how many come before. */
static uint32_t part(struct pv_device *device, uint32_t count, const struct barriers *barriers)
{
    char other[sizeof(VkImageMemoryBarrier2)]; /* the larger one */
    uint32_t kept = has_none(device) ? count : 0;
    for (uint32_t i = kept; i < count; i++) {
        char *one = barriers->first + i * barriers->size;
        char *place = barriers->first + kept * barriers->size;
        const struct change change = barriers->read(one);
        if (changes_hands(device, &change))
            continue;
        memcpy(other, place, barriers->size);
        memmove(place, one, barriers->size);
        memcpy(one, other, barriers->size);
        kept++;
    }
    return kept;
}

static void change_rest(struct pv_device *device, VkCommandBuffer commands, uint32_t begin,
                        uint32_t end, const struct barriers *barriers)
{
    for (uint32_t i = begin; i < end; i++) {
        const struct change change = barriers->read(barriers->first + i * barriers->size);
        change_hands(device, commands, &change);
    }
}

void pv_layer_CmdPipelineBarrier(struct pv_device *device, VkCommandBuffer commands,
                                 VkPipelineStageFlags from, VkPipelineStageFlags to,
                                 VkDependencyFlags flags, uint32_t memory_count,
                                 const VkMemoryBarrier *memory, uint32_t buffer_count,
                                 const VkBufferMemoryBarrier *buffers, uint32_t image_count,
                                 VkImageMemoryBarrier *images)
{
    const struct barriers all = {(char *)images, sizeof(*images), read_barrier};
    uint32_t kept = part(device, image_count, &all);
    device->vk.CmdPipelineBarrier(commands, from, to, flags, memory_count, memory, buffer_count,
                                  buffers, kept, images);
    change_rest(device, commands, kept, image_count, &all);
}

void pv_layer_CmdPipelineBarrier2(struct pv_device *device, VkCommandBuffer commands,
                                  VkDependencyInfo *info)
{
    uint32_t count = info->imageMemoryBarrierCount;
    const struct barriers all = {(char *)info->pImageMemoryBarriers, sizeof(VkImageMemoryBarrier2),
                                 read_barrier2};
    info->imageMemoryBarrierCount = part(device, count, &all);
    device->vk.CmdPipelineBarrier2(commands, info);
    change_rest(device, commands, info->imageMemoryBarrierCount, count, &all);
    info->imageMemoryBarrierCount = count;
}
