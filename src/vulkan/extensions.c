/* Which device extensions the guest is shown, and which are ours to serve.
 *
 *   shown = (driver's AND what can be carried to the guest) + ours
 */
#include "vulkan/device.h"
#include "vulkan/instance.h"

#include <stdlib.h>
#include <string.h>

/* When an extension of ours is shown. */
enum offer {
    OFFER_ALWAYS,  /* Mesa 26 has no device without them, and they need nothing of the driver */
    OFFER_DMA_BUF, /* they lead Mesa to present by dma-buf: see struct pv_physical */
    OFFER_FOREIGN, /* as OFFER_DMA_BUF, and harmless otherwise if the driver has it */
};

static const struct our_extension {
    const char *name;
    uint32_t spec_version;
    enum offer offer;
} our_extensions[] = {
    {VK_KHR_EXTERNAL_MEMORY_FD_EXTENSION_NAME, 1, OFFER_ALWAYS},
    {VK_KHR_EXTERNAL_SEMAPHORE_FD_EXTENSION_NAME, 1, OFFER_ALWAYS},
    {VK_KHR_EXTERNAL_FENCE_FD_EXTENSION_NAME, 1, OFFER_ALWAYS},
    {VK_EXT_EXTERNAL_MEMORY_DMA_BUF_EXTENSION_NAME, 1, OFFER_DMA_BUF},
    {VK_EXT_IMAGE_DRM_FORMAT_MODIFIER_EXTENSION_NAME, 2, OFFER_DMA_BUF},
    {VK_EXT_QUEUE_FAMILY_FOREIGN_EXTENSION_NAME, 1, OFFER_FOREIGN},
};
#define OUR_EXTENSION_COUNT (sizeof(our_extensions) / sizeof(our_extensions[0]))

bool pv_extension_is_ours(const char *name)
{
    for (size_t i = 0; i < OUR_EXTENSION_COUNT; i++) {
        if (strcmp(our_extensions[i].name, name) == 0)
            return true;
    }
    return false;
}

static bool has(const VkExtensionProperties *list, uint32_t count, const char *name)
{
    for (uint32_t i = 0; i < count; i++) {
        if (strcmp(list[i].extensionName, name) == 0)
            return true;
    }
    return false;
}

bool pv_physical_driver_has(const struct pv_physical *physical, const char *name)
{
    return has(physical->driver_extensions, physical->driver_extension_count, name);
}

bool pv_physical_guest_has(const struct pv_physical *physical, const char *name)
{
    return has(physical->extensions, physical->extension_count, name);
}

static VkResult load_driver_extensions(struct pv_physical *physical)
{
    const struct pv_vk_instance_table *vk = &physical->instance->vk;
    uint32_t count = 0;
    VkResult result = vk->EnumerateDeviceExtensionProperties(physical->handle, NULL, &count, NULL);
    if (result != VK_SUCCESS || count == 0)
        return result;
    physical->driver_extensions = calloc(count, sizeof(*physical->driver_extensions));
    if (!physical->driver_extensions)
        return VK_ERROR_OUT_OF_HOST_MEMORY;
    result = vk->EnumerateDeviceExtensionProperties(physical->handle, NULL, &count,
                                                    physical->driver_extensions);
    physical->driver_extension_count = result < VK_SUCCESS ? 0 : count;
    return result < VK_SUCCESS ? result : VK_SUCCESS;
}

/* The version that both ends know, or 0 if it cannot be carried. */
static uint32_t carried_version(const struct pv_instance_params *params,
                                const VkExtensionProperties *extension)
{
    if (!params->extensions)
        return extension->specVersion;
    for (uint32_t i = 0; i < params->extension_count; i++) {
        const struct pv_extension *known = &params->extensions[i];
        if (strcmp(known->name, extension->extensionName) == 0)
            return known->spec_version < extension->specVersion ? known->spec_version
                                                                : extension->specVersion;
    }
    return 0;
}

static void show(struct pv_physical *physical, const VkExtensionProperties *extension,
                 uint32_t version)
{
    VkExtensionProperties *shown = &physical->extensions[physical->extension_count++];
    *shown = *extension;
    shown->specVersion = version;
}

VkResult pv_physical_load_extensions(struct pv_physical *physical,
                                     const struct pv_instance_params *params)
{
    VkResult result = load_driver_extensions(physical);
    if (result != VK_SUCCESS)
        return result;
    physical->extensions = calloc(physical->driver_extension_count + OUR_EXTENSION_COUNT,
                                  sizeof(*physical->extensions));
    if (!physical->extensions)
        return VK_ERROR_OUT_OF_HOST_MEMORY;

    for (uint32_t i = 0; i < physical->driver_extension_count; i++) {
        const VkExtensionProperties *extension = &physical->driver_extensions[i];
        if (pv_extension_is_ours(extension->extensionName))
            continue;
        uint32_t version = carried_version(params, extension);
        if (version > 0)
            show(physical, extension, version);
    }
    bool dma_buf = physical->offer_dma_buf || physical->caps->real_dma_buf;
    for (size_t i = 0; i < OUR_EXTENSION_COUNT; i++) {
        const struct our_extension *ours = &our_extensions[i];
        VkExtensionProperties extension = {.specVersion = ours->spec_version};
        memcpy(extension.extensionName, ours->name, strlen(ours->name) + 1);
        uint32_t version = carried_version(params, &extension);
        bool offered =
            ours->offer == OFFER_ALWAYS || dma_buf ||
            (ours->offer == OFFER_FOREIGN && pv_physical_driver_has(physical, ours->name));
        if (version > 0 && offered)
            show(physical, &extension, version);
    }
    return VK_SUCCESS;
}

VkResult pv_layer_EnumerateDeviceExtensionProperties(struct pv_physical *physical,
                                                     const char *layer, uint32_t *count,
                                                     VkExtensionProperties *properties)
{
    if (layer) /* the guest has no layers of the host */
        return VK_ERROR_LAYER_NOT_PRESENT;
    if (!properties) {
        *count = physical->extension_count;
        return VK_SUCCESS;
    }
    uint32_t written = *count < physical->extension_count ? *count : physical->extension_count;
    memcpy(properties, physical->extensions, written * sizeof(*properties));
    *count = written;
    return written < physical->extension_count ? VK_INCOMPLETE : VK_SUCCESS;
}
