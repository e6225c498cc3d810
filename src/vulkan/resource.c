/* Buffers and images: external handle types and modifiers are translated to what the driver has.
 */
#include "vulkan/device.h"

#include "vulkan/chain.h"
#include "vulkan/copied.h"
#include "vulkan/device_internal.h"
#include "vulkan/formats.h"
#include "vulkan/instance.h"

#define MOD_LINEAR 0u /* DRM_FORMAT_MOD_LINEAR */

/* The handle types to tell the driver of a resource for which the guest asked `asked`. The driver's
 * own dma-bufs keep their name; the rest is memory that we import, or nothing special. */
static VkExternalMemoryHandleTypeFlags host_handles(const struct pv_device *device,
                                                    VkExternalMemoryHandleTypeFlags asked)
{
    if ((asked & PV_GUEST_MEMORY_HANDLES) && device->physical->caps->driver_dma_buf)
        return VK_EXTERNAL_MEMORY_HANDLE_TYPE_DMA_BUF_BIT_EXT;
    return 0;
}

/* ---- buffers ---- */

/* A buffer's create info as the driver is to see it. */
struct buffer_edit {
    struct pv_chain_edit taken, put;
    VkExternalMemoryBufferCreateInfo external;
};

static void begin_buffer(struct pv_device *device, VkBufferCreateInfo *info,
                         struct buffer_edit *edit)
{
    *edit = (struct buffer_edit){0};
    const VkExternalMemoryBufferCreateInfo *asked =
        pv_chain_take(info, VK_STRUCTURE_TYPE_EXTERNAL_MEMORY_BUFFER_CREATE_INFO, &edit->taken);
    VkExternalMemoryHandleTypeFlags handles = asked ? host_handles(device, asked->handleTypes) : 0;
    const VkBufferCreateFlags sparse = VK_BUFFER_CREATE_SPARSE_BINDING_BIT |
                                       VK_BUFFER_CREATE_SPARSE_RESIDENCY_BIT |
                                       VK_BUFFER_CREATE_SPARSE_ALIASED_BIT;
    if (!handles && device->host_allocation_buffers &&
        !(info->flags & (sparse | VK_BUFFER_CREATE_PROTECTED_BIT)))
        handles = VK_EXTERNAL_MEMORY_HANDLE_TYPE_HOST_ALLOCATION_BIT_EXT;
    if (!handles)
        return;
    edit->external = (VkExternalMemoryBufferCreateInfo){
        .sType = VK_STRUCTURE_TYPE_EXTERNAL_MEMORY_BUFFER_CREATE_INFO,
        .handleTypes = handles,
    };
    pv_chain_put(info, &edit->external, &edit->put);
}

static void end_buffer(struct buffer_edit *edit)
{
    pv_chain_undo(&edit->put);
    pv_chain_undo(&edit->taken);
}

VkResult pv_layer_CreateBuffer(struct pv_device *device, VkBufferCreateInfo *info, VkBuffer *out)
{
    struct buffer_edit edit;
    begin_buffer(device, info, &edit);
    VkResult result = device->vk.CreateBuffer(device->handle, info, NULL, out);
    end_buffer(&edit);
    return pv_device_check(device, result);
}

void pv_layer_GetDeviceBufferMemoryRequirements(struct pv_device *device,
                                                VkDeviceBufferMemoryRequirements *info,
                                                VkMemoryRequirements2 *requirements)
{
    struct buffer_edit edit;
    begin_buffer(device, (VkBufferCreateInfo *)info->pCreateInfo, &edit);
    device->vk.GetDeviceBufferMemoryRequirements(device->handle, info, requirements);
    end_buffer(&edit);
}

/* ---- images ---- */

/* An image's create info as the driver is to see it. */
struct image_edit {
    struct pv_chain_edit list_taken, explicit_taken, external_taken, external_put;
    VkExternalMemoryImageCreateInfo external;
    const VkImageDrmFormatModifierExplicitCreateInfoEXT *explicit_info;
    VkImageTiling tiling;
    VkImageUsageFlags usage;
    bool copied;
    bool has_choice;          /* of modifiers: imports have none */
    VkSubresourceLayout rows; /* of a copied image */
};

static bool list_has_linear(const VkImageDrmFormatModifierListCreateInfoEXT *list)
{
    for (uint32_t i = 0; list && i < list->drmFormatModifierCount; i++) {
        if (list->pDrmFormatModifiers[i] == MOD_LINEAR)
            return true;
    }
    return false;
}

/* What others are to see, and the driver cannot have them see. Mesa asks for tiling LINEAR where
 * nobody has told it of modifiers, without a look at what that can do. */
static bool is_to_be_copied(const struct pv_device *device, const VkImageCreateInfo *info,
                            bool external)
{
    if (device->physical->caps->modifier_tier != PV_MODIFIER_TIER_COPIED)
        return false;
    return info->tiling == VK_IMAGE_TILING_DRM_FORMAT_MODIFIER_EXT ||
           (external && info->tiling == VK_IMAGE_TILING_LINEAR &&
            (info->usage & VK_IMAGE_USAGE_COLOR_ATTACHMENT_BIT));
}

static VkResult translate_modifier(VkImageCreateInfo *info, struct image_edit *edit)
{
    const VkImageDrmFormatModifierListCreateInfoEXT *list = pv_chain_take(
        info, VK_STRUCTURE_TYPE_IMAGE_DRM_FORMAT_MODIFIER_LIST_CREATE_INFO_EXT, &edit->list_taken);
    edit->explicit_info =
        pv_chain_take(info, VK_STRUCTURE_TYPE_IMAGE_DRM_FORMAT_MODIFIER_EXPLICIT_CREATE_INFO_EXT,
                      &edit->explicit_taken);
    edit->has_choice = list != NULL;
    bool linear = edit->explicit_info ? edit->explicit_info->drmFormatModifier == MOD_LINEAR
                                      : list_has_linear(list);
    info->tiling = VK_IMAGE_TILING_LINEAR;
    return linear && pv_format_has_linear_modifier(info->format) ? VK_SUCCESS
                                                                 : VK_ERROR_FORMAT_NOT_SUPPORTED;
}

static VkResult translate_copied(VkImageCreateInfo *info, struct image_edit *edit)
{
    info->tiling = VK_IMAGE_TILING_OPTIMAL;
    info->usage |= PV_COPIED_USAGE;
    return pv_copied_layout(info, edit->explicit_info, &edit->rows);
}

static VkResult begin_image(struct pv_device *device, VkImageCreateInfo *info,
                            struct image_edit *edit)
{
    *edit = (struct image_edit){.tiling = info->tiling, .usage = info->usage};
    const VkExternalMemoryImageCreateInfo *asked = pv_chain_take(
        info, VK_STRUCTURE_TYPE_EXTERNAL_MEMORY_IMAGE_CREATE_INFO, &edit->external_taken);
    VkExternalMemoryHandleTypeFlags handles = asked ? asked->handleTypes : 0;
    edit->copied = is_to_be_copied(device, info, handles & PV_GUEST_MEMORY_HANDLES);
    handles = edit->copied ? 0 : host_handles(device, handles);
    if (handles) {
        edit->external = (VkExternalMemoryImageCreateInfo){
            .sType = VK_STRUCTURE_TYPE_EXTERNAL_MEMORY_IMAGE_CREATE_INFO,
            .handleTypes = handles,
        };
        pv_chain_put(info, &edit->external, &edit->external_put);
    }
    VkResult result = VK_SUCCESS;
    if (info->tiling == VK_IMAGE_TILING_DRM_FORMAT_MODIFIER_EXT &&
        device->physical->caps->modifier_tier != PV_MODIFIER_TIER_NATIVE)
        result = translate_modifier(info, edit);
    if (result == VK_SUCCESS && edit->copied)
        result = translate_copied(info, edit);
    return result;
}

static void end_image(VkImageCreateInfo *info, struct image_edit *edit)
{
    info->tiling = edit->tiling;
    info->usage = edit->usage;
    pv_chain_undo(&edit->explicit_taken);
    pv_chain_undo(&edit->list_taken);
    pv_chain_undo(&edit->external_put);
    pv_chain_undo(&edit->external_taken);
}

void pv_layer_GetDeviceImageSparseMemoryRequirements(struct pv_device *device,
                                                     VkDeviceImageMemoryRequirements *info,
                                                     uint32_t *count,
                                                     VkSparseImageMemoryRequirements2 *requirements)
{
    VkImageCreateInfo *create = (VkImageCreateInfo *)info->pCreateInfo;
    struct image_edit edit;
    if (begin_image(device, create, &edit) == VK_SUCCESS)
        device->vk.GetDeviceImageSparseMemoryRequirements(device->handle, info, count,
                                                          requirements);
    else
        *count = 0;
    end_image(create, &edit);
}

/* The layout that the guest states must be the one that the driver chose by itself. */
static bool has_stated_layout(struct pv_device *device, VkImage image,
                              const VkImageDrmFormatModifierExplicitCreateInfoEXT *stated)
{
    if (stated->drmFormatModifierPlaneCount != 1)
        return false;
    VkImageSubresource first = {.aspectMask = VK_IMAGE_ASPECT_COLOR_BIT};
    VkSubresourceLayout layout;
    device->vk.GetImageSubresourceLayout(device->handle, image, &first, &layout);
    return stated->pPlaneLayouts[0].offset == layout.offset &&
           stated->pPlaneLayouts[0].rowPitch == layout.rowPitch;
}

/* What is to be true of the new image, which is destroyed if it is not. */
static VkResult finish_image(struct pv_device *device, VkImage image, const VkImageCreateInfo *info,
                             const struct image_edit *edit)
{
    VkResult result = VK_SUCCESS;
    if (edit->copied)
        result = pv_copied_add(device, image, info, &edit->rows, edit->has_choice);
    else if (edit->explicit_info && !has_stated_layout(device, image, edit->explicit_info))
        result = VK_ERROR_INVALID_DRM_FORMAT_MODIFIER_PLANE_LAYOUT_EXT;
    if (result != VK_SUCCESS)
        device->vk.DestroyImage(device->handle, image, NULL);
    return result;
}

VkResult pv_layer_CreateImage(struct pv_device *device, VkImageCreateInfo *info, VkImage *out)
{
    struct image_edit edit;
    VkImage image = VK_NULL_HANDLE;
    VkResult result = begin_image(device, info, &edit);
    if (result == VK_SUCCESS)
        result = device->vk.CreateImage(device->handle, info, NULL, &image);
    if (result == VK_SUCCESS)
        result = finish_image(device, image, info, &edit);
    end_image(info, &edit);
    if (result == VK_SUCCESS)
        *out = image;
    return pv_device_check(device, result);
}

void pv_layer_DestroyImage(struct pv_device *device, VkImage image)
{
    struct pv_copied *copied = pv_copied_take(device, image);
    device->vk.DestroyImage(device->handle, image, NULL);
    pv_copied_free(device, copied);
}

void pv_layer_GetImageMemoryRequirements(struct pv_device *device, VkImage image,
                                         VkMemoryRequirements *requirements)
{
    VkMemoryRequirements2 rows = {.sType = VK_STRUCTURE_TYPE_MEMORY_REQUIREMENTS_2};
    if (pv_copied_get_requirements(device, image, &rows))
        *requirements = rows.memoryRequirements;
    else
        device->vk.GetImageMemoryRequirements(device->handle, image, requirements);
}

void pv_layer_GetImageMemoryRequirements2(struct pv_device *device,
                                          const VkImageMemoryRequirementsInfo2 *info,
                                          VkMemoryRequirements2 *requirements)
{
    if (!pv_copied_get_requirements(device, info->image, requirements))
        device->vk.GetImageMemoryRequirements2(device->handle, info, requirements);
}

VkResult pv_layer_BindImageMemory(struct pv_device *device, VkImage image, VkDeviceMemory memory,
                                  VkDeviceSize offset)
{
    VkResult result;
    if (!pv_copied_bind(device, image, memory, offset, &result))
        result = device->vk.BindImageMemory(device->handle, image, memory, offset);
    return pv_device_check(device, result);
}

static VkResult bind_one(struct pv_device *device, const VkBindImageMemoryInfo *info)
{
    VkResult result;
    if (!pv_copied_bind(device, info->image, info->memory, info->memoryOffset, &result))
        return device->vk.BindImageMemory2(device->handle, 1, info);
    const VkBindMemoryStatus *status = pv_chain_find(info, VK_STRUCTURE_TYPE_BIND_MEMORY_STATUS);
    if (status && status->pResult)
        *status->pResult = result;
    return result;
}

VkResult pv_layer_BindImageMemory2(struct pv_device *device, uint32_t count,
                                   const VkBindImageMemoryInfo *infos)
{
    VkResult result = VK_SUCCESS;
    for (uint32_t i = 0; i < count; i++) {
        VkResult one = bind_one(device, &infos[i]);
        if (result == VK_SUCCESS)
            result = one;
    }
    return pv_device_check(device, result);
}

/* Where the modifier LINEAR is ours, its only plane is the image. */
static VkImageAspectFlags host_aspect(const struct pv_device *device, VkImageAspectFlags aspect)
{
    if (device->physical->caps->modifier_tier != PV_MODIFIER_TIER_NATIVE &&
        aspect == VK_IMAGE_ASPECT_MEMORY_PLANE_0_BIT_EXT)
        return VK_IMAGE_ASPECT_COLOR_BIT;
    return aspect;
}

void pv_layer_GetDeviceImageMemoryRequirements(struct pv_device *device,
                                               VkDeviceImageMemoryRequirements *info,
                                               VkMemoryRequirements2 *requirements)
{
    VkImageCreateInfo *create = (VkImageCreateInfo *)info->pCreateInfo;
    struct image_edit edit;
    VkImageAspectFlagBits aspect = info->planeAspect;
    VkResult result = begin_image(device, create, &edit);
    if (result == VK_SUCCESS && edit.copied) {
        result = pv_copied_requirements(device, &edit.rows, requirements);
    } else if (result == VK_SUCCESS) {
        info->planeAspect = (VkImageAspectFlagBits)host_aspect(device, aspect);
        device->vk.GetDeviceImageMemoryRequirements(device->handle, info, requirements);
    }
    if (result != VK_SUCCESS) /* no such image can be made: no memory type fits it */
        requirements->memoryRequirements = (VkMemoryRequirements){.alignment = 1};
    end_image(create, &edit);
    info->planeAspect = aspect;
}

void pv_layer_GetImageSubresourceLayout(struct pv_device *device, VkImage image,
                                        const VkImageSubresource *subresource,
                                        VkSubresourceLayout *layout)
{
    VkImageSubresource host = *subresource;
    if (pv_copied_get_layout(device, image, layout))
        return;
    host.aspectMask = host_aspect(device, host.aspectMask);
    device->vk.GetImageSubresourceLayout(device->handle, image, &host, layout);
}

void pv_layer_GetImageSubresourceLayout2(struct pv_device *device, VkImage image,
                                         const VkImageSubresource2 *subresource,
                                         VkSubresourceLayout2 *layout)
{
    VkImageSubresource2 host = *subresource;
    host.imageSubresource.aspectMask = host_aspect(device, host.imageSubresource.aspectMask);
    device->vk.GetImageSubresourceLayout2(device->handle, image, &host, layout);
    pv_copied_get_layout(device, image, &layout->subresourceLayout); /* the chain is the driver's */
}

void pv_layer_GetDeviceImageSubresourceLayout(struct pv_device *device,
                                              VkDeviceImageSubresourceInfo *info,
                                              VkSubresourceLayout2 *layout)
{
    VkImageCreateInfo *create = (VkImageCreateInfo *)info->pCreateInfo;
    VkImageSubresource2 subresource = *info->pSubresource;
    VkDeviceImageSubresourceInfo host = *info;
    host.pSubresource = &subresource;
    subresource.imageSubresource.aspectMask =
        host_aspect(device, subresource.imageSubresource.aspectMask);
    struct image_edit edit;
    VkResult result = begin_image(device, create, &edit);
    if (result == VK_SUCCESS)
        device->vk.GetDeviceImageSubresourceLayout(device->handle, &host, layout);
    if (result != VK_SUCCESS || edit.copied)
        layout->subresourceLayout = edit.rows;
    end_image(create, &edit);
}

VkResult pv_layer_GetImageDrmFormatModifierPropertiesEXT(
    struct pv_device *device, VkImage image, VkImageDrmFormatModifierPropertiesEXT *properties)
{
    if (device->physical->caps->modifier_tier == PV_MODIFIER_TIER_NATIVE)
        return device->vk.GetImageDrmFormatModifierPropertiesEXT(device->handle, image, properties);
    properties->drmFormatModifier = MOD_LINEAR;
    return VK_SUCCESS;
}
