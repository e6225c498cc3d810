/* What the guest is told about the device, its formats, external handles and memory types.
 *
 * Two things are synthesised, and each only where the driver lacks it: the DRM format modifier
 * LINEAR, which is tiling LINEAR by another name or a copy (copied.h), and external memory, which is whatever the memory
 * tiers deliver (see pv_memory_export_fd).
 */
#include "vulkan/device.h"

#include "vulkan/chain.h"
#include "vulkan/copied.h"
#include "vulkan/formats.h"
#include "vulkan/instance.h"

#define MOD_LINEAR 0u /* DRM_FORMAT_MOD_LINEAR */

/* A software driver of the host's is a GPU to the guest: its own software driver is the slower one,
 * and Mesa's Zink takes no CPU for OpenGL. */
void pv_layer_GetPhysicalDeviceProperties(struct pv_physical *physical,
                                          VkPhysicalDeviceProperties *properties)
{
    physical->instance->vk.GetPhysicalDeviceProperties(physical->handle, properties);
    if (properties->deviceType == VK_PHYSICAL_DEVICE_TYPE_CPU)
        properties->deviceType = VK_PHYSICAL_DEVICE_TYPE_VIRTUAL_GPU;
}

void pv_layer_GetPhysicalDeviceProperties2(struct pv_physical *physical,
                                           VkPhysicalDeviceProperties2 *properties)
{
    physical->instance->vk.GetPhysicalDeviceProperties2(physical->handle, properties);
    if (properties->properties.deviceType == VK_PHYSICAL_DEVICE_TYPE_CPU)
        properties->properties.deviceType = VK_PHYSICAL_DEVICE_TYPE_VIRTUAL_GPU;
}

void pv_layer_GetPhysicalDeviceMemoryProperties2(struct pv_physical *physical,
                                                 VkPhysicalDeviceMemoryProperties2 *properties)
{
    physical->instance->vk.GetPhysicalDeviceMemoryProperties2(physical->handle, properties);
    VkPhysicalDeviceMemoryProperties *memory = &properties->memoryProperties;
    for (uint32_t i = 0; i < memory->memoryTypeCount; i++) {
        if (pv_physical_tier(physical, i) == PV_MEMORY_TIER_NONE)
            memory->memoryTypes[i].propertyFlags &=
                ~(VkMemoryPropertyFlags)(VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT |
                                         VK_MEMORY_PROPERTY_HOST_COHERENT_BIT |
                                         VK_MEMORY_PROPERTY_HOST_CACHED_BIT);
    }
}

/* ---- formats and modifiers ---- */

static bool native_modifiers(const struct pv_physical *physical)
{
    return physical->caps->modifier_tier == PV_MODIFIER_TIER_NATIVE;
}

/* Depth and stencil have no DRM format, and the planes of multi-planar formats would have to be
 * told apart when their layout is asked for, with nothing but the image's handle. */
bool pv_format_has_linear_modifier(VkFormat format)
{
    if (format >= VK_FORMAT_D16_UNORM && format <= VK_FORMAT_D32_SFLOAT_S8_UINT)
        return false;
    if (format >= VK_FORMAT_G8_B8_R8_3PLANE_420_UNORM &&
        format <= VK_FORMAT_G16_B16_R16_3PLANE_444_UNORM)
        return false;
    if (format >= VK_FORMAT_G8_B8R8_2PLANE_444_UNORM &&
        format <= VK_FORMAT_G16_B16R16_2PLANE_444_UNORM)
        return false;
#ifdef VK_ARM_format_pack
    if (format == VK_FORMAT_G14X2_B14X2R14X2_2PLANE_420_UNORM_3PACK16_ARM ||
        format == VK_FORMAT_G14X2_B14X2R14X2_2PLANE_422_UNORM_3PACK16_ARM)
        return false;
#endif
    return true;
}

static bool copies_images(const struct pv_physical *physical)
{
    return physical->caps->modifier_tier == PV_MODIFIER_TIER_COPIED;
}

/* What images with our modifier can do. */
static VkFormatFeatureFlags2 modifier_features(const struct pv_physical *physical, VkFormat format,
                                               const VkFormatProperties2 *properties)
{
    const VkFormatProperties *plain = &properties->formatProperties;
    const VkFormatProperties3 *wide =
        pv_chain_find(properties, VK_STRUCTURE_TYPE_FORMAT_PROPERTIES_3);
    if (copies_images(physical))
        return pv_copied_features(format, plain->optimalTilingFeatures |
                                              (wide ? wide->optimalTilingFeatures : 0));
    if (!pv_format_has_linear_modifier(format))
        return 0;
    return plain->linearTilingFeatures | (wide ? wide->linearTilingFeatures : 0);
}

static void fill_modifier_list(VkDrmFormatModifierPropertiesListEXT *list,
                               VkFormatFeatureFlags features)
{
    uint32_t available = features ? 1 : 0;
    if (!list->pDrmFormatModifierProperties) {
        list->drmFormatModifierCount = available;
        return;
    }
    if (list->drmFormatModifierCount > available)
        list->drmFormatModifierCount = available;
    if (list->drmFormatModifierCount == 1)
        list->pDrmFormatModifierProperties[0] = (VkDrmFormatModifierPropertiesEXT){
            .drmFormatModifier = MOD_LINEAR,
            .drmFormatModifierPlaneCount = 1,
            .drmFormatModifierTilingFeatures = features,
        };
}

static void fill_modifier_list2(VkDrmFormatModifierPropertiesList2EXT *list,
                                VkFormatFeatureFlags2 features)
{
    uint32_t available = features ? 1 : 0;
    if (!list->pDrmFormatModifierProperties) {
        list->drmFormatModifierCount = available;
        return;
    }
    if (list->drmFormatModifierCount > available)
        list->drmFormatModifierCount = available;
    if (list->drmFormatModifierCount == 1)
        list->pDrmFormatModifierProperties[0] = (VkDrmFormatModifierProperties2EXT){
            .drmFormatModifier = MOD_LINEAR,
            .drmFormatModifierPlaneCount = 1,
            .drmFormatModifierTilingFeatures = features,
        };
}

void pv_layer_GetPhysicalDeviceFormatProperties2(struct pv_physical *physical, VkFormat format,
                                                 VkFormatProperties2 *properties)
{
    const struct pv_vk_instance_table *vk = &physical->instance->vk;
    if (native_modifiers(physical)) {
        vk->GetPhysicalDeviceFormatProperties2(physical->handle, format, properties);
        return;
    }
    struct pv_chain_edit edit, edit2;
    VkDrmFormatModifierPropertiesListEXT *list =
        pv_chain_take(properties, VK_STRUCTURE_TYPE_DRM_FORMAT_MODIFIER_PROPERTIES_LIST_EXT, &edit);
    VkDrmFormatModifierPropertiesList2EXT *list2 = pv_chain_take(
        properties, VK_STRUCTURE_TYPE_DRM_FORMAT_MODIFIER_PROPERTIES_LIST_2_EXT, &edit2);
    vk->GetPhysicalDeviceFormatProperties2(physical->handle, format, properties);

    VkFormatFeatureFlags2 features = modifier_features(physical, format, properties);
    if (list) /* the first 31 mean the same in both */
        fill_modifier_list(list, (VkFormatFeatureFlags)(features & INT32_MAX));
    if (list2)
        fill_modifier_list2(list2, features);
    pv_chain_undo(&edit2);
    pv_chain_undo(&edit);
}

/* ---- external memory ---- */

/* Both names stand for the same fd: Mesa asks for one whichever the program asked for. */
static const VkExternalMemoryProperties synthesised_memory = {
    .externalMemoryFeatures =
        VK_EXTERNAL_MEMORY_FEATURE_EXPORTABLE_BIT | VK_EXTERNAL_MEMORY_FEATURE_IMPORTABLE_BIT,
    .exportFromImportedHandleTypes = PV_GUEST_MEMORY_HANDLES,
    .compatibleHandleTypes = PV_GUEST_MEMORY_HANDLES,
};

static bool all_types_export(const struct pv_physical *physical)
{
    for (uint32_t i = 0; i < physical->caps->memory_type_count; i++) {
        if (pv_physical_tier(physical, i) == PV_MEMORY_TIER_NONE)
            return false;
    }
    return true;
}

/* Optimal images may land in memory of any type, and all must export; linear ones and buffers find
 * a host-visible type. */
static bool can_synthesise_external(const struct pv_physical *physical, VkImageTiling tiling,
                                    VkExternalMemoryHandleTypeFlags handle)
{
    return (handle & PV_GUEST_MEMORY_HANDLES) &&
           (tiling != VK_IMAGE_TILING_OPTIMAL || all_types_export(physical));
}

/* The driver itself answers for dma-bufs that it makes itself. */
static bool is_native_handle(const struct pv_physical *physical,
                             VkExternalMemoryHandleTypeFlags handle)
{
    return physical->caps->driver_dma_buf && (handle & PV_GUEST_MEMORY_HANDLES);
}

/* The structs of a query that the driver is not to see. */
struct image_query {
    struct pv_chain_edit modifier, external, external_out;
    const VkPhysicalDeviceImageDrmFormatModifierInfoEXT *modifier_info;
    const VkPhysicalDeviceExternalImageFormatInfo *external_info;
    VkExternalImageFormatProperties *external_properties;
    VkImageTiling tiling;
    VkImageUsageFlags usage;
};

static void begin_query(struct pv_physical *physical, struct image_query *query,
                        VkPhysicalDeviceImageFormatInfo2 *info,
                        VkImageFormatProperties2 *properties)
{
    *query = (struct image_query){.tiling = info->tiling, .usage = info->usage};
    bool copied = false;
    if (info->tiling == VK_IMAGE_TILING_DRM_FORMAT_MODIFIER_EXT && !native_modifiers(physical)) {
        query->modifier_info = pv_chain_take(
            info, VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_IMAGE_DRM_FORMAT_MODIFIER_INFO_EXT,
            &query->modifier);
        info->tiling = VK_IMAGE_TILING_LINEAR;
        copied = copies_images(physical);
        if (copied) {
            info->tiling = VK_IMAGE_TILING_OPTIMAL;
            info->usage |= PV_COPIED_USAGE;
        }
    }
    const VkPhysicalDeviceExternalImageFormatInfo *external =
        pv_chain_find(info, VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_EXTERNAL_IMAGE_FORMAT_INFO);
    if (external && external->handleType &&
        (copied || !is_native_handle(physical, external->handleType))) {
        query->external_info = pv_chain_take(
            info, VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_EXTERNAL_IMAGE_FORMAT_INFO, &query->external);
        query->external_properties = pv_chain_take(
            properties, VK_STRUCTURE_TYPE_EXTERNAL_IMAGE_FORMAT_PROPERTIES, &query->external_out);
    }
}

static void end_query(struct image_query *query, VkPhysicalDeviceImageFormatInfo2 *info)
{
    pv_chain_undo(&query->external_out);
    pv_chain_undo(&query->external);
    pv_chain_undo(&query->modifier);
    info->tiling = query->tiling;
    info->usage = query->usage;
}

static bool is_possible_modifier(const struct pv_physical *physical,
                                 const struct image_query *query,
                                 const VkPhysicalDeviceImageFormatInfo2 *info)
{
    if (!query->modifier_info || query->modifier_info->drmFormatModifier != MOD_LINEAR)
        return false;
    return copies_images(physical) ? pv_copied_can_be(info->format, info->type, info->flags)
                                   : pv_format_has_linear_modifier(info->format);
}

static VkResult run_query(struct pv_physical *physical, const struct image_query *query,
                          const VkPhysicalDeviceImageFormatInfo2 *info,
                          VkImageFormatProperties2 *properties)
{
    bool modifier = query->tiling != info->tiling; /* begin_query translated it */
    if (modifier && !is_possible_modifier(physical, query, info))
        return VK_ERROR_FORMAT_NOT_SUPPORTED;
    /* what has a modifier is rows of pixels to others */
    VkImageTiling seen = modifier ? VK_IMAGE_TILING_LINEAR : info->tiling;
    if (query->external_info &&
        !can_synthesise_external(physical, seen, query->external_info->handleType))
        return VK_ERROR_FORMAT_NOT_SUPPORTED;
    VkResult result = physical->instance->vk.GetPhysicalDeviceImageFormatProperties2(
        physical->handle, info, properties);
    if (result == VK_SUCCESS && query->external_properties)
        query->external_properties->externalMemoryProperties = synthesised_memory;
    if (result == VK_SUCCESS && modifier && copies_images(physical))
        pv_copied_limit(&properties->imageFormatProperties);
    return result;
}

VkResult pv_layer_GetPhysicalDeviceImageFormatProperties2(struct pv_physical *physical,
                                                          VkPhysicalDeviceImageFormatInfo2 *info,
                                                          VkImageFormatProperties2 *properties)
{
    struct image_query query;
    begin_query(physical, &query, info, properties);
    VkResult result = run_query(physical, &query, info, properties);
    end_query(&query, info);
    return result;
}

void pv_layer_GetPhysicalDeviceSparseImageFormatProperties2(
    struct pv_physical *physical, VkPhysicalDeviceSparseImageFormatInfo2 *info, uint32_t *count,
    VkSparseImageFormatProperties2 *properties)
{
    if (info->tiling == VK_IMAGE_TILING_DRM_FORMAT_MODIFIER_EXT && !native_modifiers(physical)) {
        *count = 0; /* linear images are never sparse */
        return;
    }
    physical->instance->vk.GetPhysicalDeviceSparseImageFormatProperties2(physical->handle, info,
                                                                         count, properties);
}

void pv_layer_GetPhysicalDeviceExternalBufferProperties(struct pv_physical *physical,
                                                        VkPhysicalDeviceExternalBufferInfo *info,
                                                        VkExternalBufferProperties *properties)
{
    if (is_native_handle(physical, info->handleType)) {
        physical->instance->vk.GetPhysicalDeviceExternalBufferProperties(physical->handle, info,
                                                                         properties);
        return;
    }
    const VkBufferCreateFlags sparse = VK_BUFFER_CREATE_SPARSE_BINDING_BIT |
                                       VK_BUFFER_CREATE_SPARSE_RESIDENCY_BIT |
                                       VK_BUFFER_CREATE_SPARSE_ALIASED_BIT;
    bool possible = !(info->flags & sparse) &&
                    can_synthesise_external(physical, VK_IMAGE_TILING_LINEAR, info->handleType);
    /* a handle type that cannot be used is compatible with itself only */
    properties->externalMemoryProperties =
        possible ? synthesised_memory
                 : (VkExternalMemoryProperties){.compatibleHandleTypes = info->handleType};
}

/* ---- external semaphores and fences ---- */

void pv_layer_GetPhysicalDeviceExternalSemaphoreProperties(
    struct pv_physical *physical, VkPhysicalDeviceExternalSemaphoreInfo *info,
    VkExternalSemaphoreProperties *properties)
{
    const VkSemaphoreTypeCreateInfo *type =
        pv_chain_find(info, VK_STRUCTURE_TYPE_SEMAPHORE_TYPE_CREATE_INFO);
    bool timeline = type && type->semaphoreType == VK_SEMAPHORE_TYPE_TIMELINE;
    bool sync_fd = !timeline && info->handleType == VK_EXTERNAL_SEMAPHORE_HANDLE_TYPE_SYNC_FD_BIT;
    properties->exportFromImportedHandleTypes = sync_fd ? info->handleType : 0;
    properties->compatibleHandleTypes = sync_fd ? info->handleType : 0;
    properties->externalSemaphoreFeatures = sync_fd
                                                ? VK_EXTERNAL_SEMAPHORE_FEATURE_EXPORTABLE_BIT |
                                                      VK_EXTERNAL_SEMAPHORE_FEATURE_IMPORTABLE_BIT
                                                : 0;
}

void pv_layer_GetPhysicalDeviceExternalFenceProperties(struct pv_physical *physical,
                                                       VkPhysicalDeviceExternalFenceInfo *info,
                                                       VkExternalFenceProperties *properties)
{
    bool sync_fd = info->handleType == VK_EXTERNAL_FENCE_HANDLE_TYPE_SYNC_FD_BIT;
    properties->exportFromImportedHandleTypes = sync_fd ? info->handleType : 0;
    properties->compatibleHandleTypes = sync_fd ? info->handleType : 0;
    properties->externalFenceFeatures = sync_fd ? VK_EXTERNAL_FENCE_FEATURE_EXPORTABLE_BIT |
                                                      VK_EXTERNAL_FENCE_FEATURE_IMPORTABLE_BIT
                                                : 0;
}
