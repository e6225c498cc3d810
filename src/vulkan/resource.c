/* Buffers and images: external handle types and modifiers are translated to what the driver has.
 */
#include "vulkan/device.h"

#include "vulkan/chain.h"
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
};

static bool list_has_linear(const VkImageDrmFormatModifierListCreateInfoEXT *list)
{
    for (uint32_t i = 0; list && i < list->drmFormatModifierCount; i++) {
        if (list->pDrmFormatModifiers[i] == MOD_LINEAR)
            return true;
    }
    return false;
}

static VkResult translate_modifier(VkImageCreateInfo *info, struct image_edit *edit)
{
    const VkImageDrmFormatModifierListCreateInfoEXT *list = pv_chain_take(
        info, VK_STRUCTURE_TYPE_IMAGE_DRM_FORMAT_MODIFIER_LIST_CREATE_INFO_EXT, &edit->list_taken);
    edit->explicit_info =
        pv_chain_take(info, VK_STRUCTURE_TYPE_IMAGE_DRM_FORMAT_MODIFIER_EXPLICIT_CREATE_INFO_EXT,
                      &edit->explicit_taken);
    info->tiling = VK_IMAGE_TILING_LINEAR;
    bool linear = edit->explicit_info ? edit->explicit_info->drmFormatModifier == MOD_LINEAR
                                      : list_has_linear(list);
    return linear && pv_format_has_linear_modifier(info->format) ? VK_SUCCESS
                                                                 : VK_ERROR_FORMAT_NOT_SUPPORTED;
}

static VkResult begin_image(struct pv_device *device, VkImageCreateInfo *info,
                            struct image_edit *edit)
{
    *edit = (struct image_edit){.tiling = info->tiling};
    const VkExternalMemoryImageCreateInfo *asked = pv_chain_take(
        info, VK_STRUCTURE_TYPE_EXTERNAL_MEMORY_IMAGE_CREATE_INFO, &edit->external_taken);
    VkExternalMemoryHandleTypeFlags handles = asked ? host_handles(device, asked->handleTypes) : 0;
    if (handles) {
        edit->external = (VkExternalMemoryImageCreateInfo){
            .sType = VK_STRUCTURE_TYPE_EXTERNAL_MEMORY_IMAGE_CREATE_INFO,
            .handleTypes = handles,
        };
        pv_chain_put(info, &edit->external, &edit->external_put);
    }
    if (info->tiling == VK_IMAGE_TILING_DRM_FORMAT_MODIFIER_EXT &&
        device->physical->caps->modifier_tier != PV_MODIFIER_TIER_NATIVE)
        return translate_modifier(info, edit);
    return VK_SUCCESS;
}

static void end_image(VkImageCreateInfo *info, struct image_edit *edit)
{
    info->tiling = edit->tiling;
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

VkResult pv_layer_CreateImage(struct pv_device *device, VkImageCreateInfo *info, VkImage *out)
{
    struct image_edit edit;
    VkImage image = VK_NULL_HANDLE;
    VkResult result = begin_image(device, info, &edit);
    if (result == VK_SUCCESS)
        result = device->vk.CreateImage(device->handle, info, NULL, &image);
    if (result == VK_SUCCESS && edit.explicit_info &&
        !has_stated_layout(device, image, edit.explicit_info)) {
        device->vk.DestroyImage(device->handle, image, NULL);
        result = VK_ERROR_INVALID_DRM_FORMAT_MODIFIER_PLANE_LAYOUT_EXT;
    }
    end_image(info, &edit);
    if (result == VK_SUCCESS)
        *out = image;
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
    if (begin_image(device, create, &edit) == VK_SUCCESS) {
        info->planeAspect = (VkImageAspectFlagBits)host_aspect(device, aspect);
        device->vk.GetDeviceImageMemoryRequirements(device->handle, info, requirements);
    } else {
        /* no such image can be made: no memory type fits it */
        requirements->memoryRequirements = (VkMemoryRequirements){.alignment = 1};
    }
    end_image(create, &edit);
    info->planeAspect = aspect;
}

void pv_layer_GetImageSubresourceLayout(struct pv_device *device, VkImage image,
                                        const VkImageSubresource *subresource,
                                        VkSubresourceLayout *layout)
{
    VkImageSubresource host = *subresource;
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
    if (begin_image(device, create, &edit) == VK_SUCCESS)
        device->vk.GetDeviceImageSubresourceLayout(device->handle, &host, layout);
    else
        layout->subresourceLayout = (VkSubresourceLayout){0};
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
