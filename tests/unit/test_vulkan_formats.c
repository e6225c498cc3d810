/* Extensions, modifiers and external handle types as the guest is shown them. The cases where the
 * driver has something itself are left out when it does: lavapipe synthesises all of it. */
#include "vulkan/device.h"

#include "unit.h"
#include "vulkan_fixture.h"

#include <stdio.h>
#include <string.h>

static struct fixture *fixture; /* with dma-buf offered */

static bool is_shown(struct pv_physical *physical, const char *name)
{
    VkExtensionProperties list[512];
    uint32_t count = 512;
    assert_int_equal(pv_layer_EnumerateDeviceExtensionProperties(physical, NULL, &count, list),
                     VK_SUCCESS);
    for (uint32_t i = 0; i < count; i++) {
        if (strcmp(list[i].extensionName, name) == 0)
            return true;
    }
    return false;
}

static void ours_are_listed(void **state)
{
    assert_true(is_shown(fixture->physical, "VK_KHR_external_memory_fd"));
    assert_true(is_shown(fixture->physical, "VK_KHR_external_semaphore_fd"));
    assert_true(is_shown(fixture->physical, "VK_KHR_external_fence_fd"));
    assert_true(is_shown(fixture->physical, "VK_EXT_external_memory_dma_buf"));
    assert_true(is_shown(fixture->physical, "VK_EXT_image_drm_format_modifier"));
    assert_true(is_shown(fixture->physical, "VK_EXT_queue_family_foreign"));

    uint32_t all = 0, few = 3;
    VkExtensionProperties some[3];
    assert_int_equal(
        pv_layer_EnumerateDeviceExtensionProperties(fixture->physical, NULL, &all, NULL),
        VK_SUCCESS);
    assert_int_equal(
        pv_layer_EnumerateDeviceExtensionProperties(fixture->physical, NULL, &few, some),
        VK_INCOMPLETE);
    assert_true(all > 3);
    assert_int_equal(few, 3);
    assert_int_equal(
        pv_layer_EnumerateDeviceExtensionProperties(fixture->physical, "a layer", &few, some),
        VK_ERROR_LAYER_NOT_PRESENT);
}

static void list_is_what_can_be_carried(void **state)
{
    const struct pv_extension known[] = {
        {"VK_KHR_swapchain", 0}, /* a version of 0: not to be carried */
        {"VK_KHR_maintenance4", 1},
        {"VK_KHR_external_memory_fd", 1},
        {"VK_EXT_external_memory_dma_buf", 1},
        {"VK_EXT_there_is_no_such_thing", 1},
    };
    struct pv_instance_params params = {
        .caps = &fixture->caps,
        .device_index = (int)(fixture->physical->caps - fixture->caps.devices),
        .extensions = known,
        .extension_count = 5,
    };
    struct pv_instance *instance;
    assert_int_equal(pv_instance_create(&params, &instance), VK_SUCCESS);
    struct pv_physical *physical = &instance->physicals[0];
    assert_true(is_shown(physical, "VK_KHR_external_memory_fd"));
    assert_false(is_shown(physical, "VK_KHR_external_semaphore_fd"));
    assert_false(is_shown(physical, "VK_KHR_swapchain"));
    assert_false(is_shown(physical, "VK_EXT_there_is_no_such_thing"));
    assert_int_equal(is_shown(physical, "VK_EXT_external_memory_dma_buf"),
                     physical->caps->real_dma_buf);
    for (uint32_t i = 0; i < physical->extension_count; i++)
        assert_int_equal(physical->extensions[i].specVersion, 1); /* the lower of both */
    pv_instance_destroy(instance);
}

static void unknown_extensions_are_refused(void **state)
{
    const char *name = "VK_EXT_there_is_no_such_thing";
    VkDeviceCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO,
        .enabledExtensionCount = 1,
        .ppEnabledExtensionNames = &name,
    };
    struct pv_device *device;
    assert_int_equal(pv_device_create(fixture->physical, &info, &device),
                     VK_ERROR_EXTENSION_NOT_PRESENT);
}

static bool modifiers_are_ours(void)
{
    return fixture->physical->caps->modifier_tier != PV_MODIFIER_TIER_NATIVE;
}

static bool copies(void)
{
    return fixture->physical->caps->modifier_tier == PV_MODIFIER_TIER_COPIED;
}

static void linear_is_the_only_modifier(void **state)
{
    if (!modifiers_are_ours())
        skip();
    VkDrmFormatModifierPropertiesList2EXT list2 = {
        .sType = VK_STRUCTURE_TYPE_DRM_FORMAT_MODIFIER_PROPERTIES_LIST_2_EXT,
    };
    VkFormatProperties3 wide = {.sType = VK_STRUCTURE_TYPE_FORMAT_PROPERTIES_3, .pNext = &list2};
    VkDrmFormatModifierPropertiesListEXT list = {
        .sType = VK_STRUCTURE_TYPE_DRM_FORMAT_MODIFIER_PROPERTIES_LIST_EXT,
        .pNext = &wide,
    };
    VkFormatProperties2 properties = {
        .sType = VK_STRUCTURE_TYPE_FORMAT_PROPERTIES_2,
        .pNext = &list,
    };
    VkFormat format = VK_FORMAT_B8G8R8A8_UNORM;
    pv_layer_GetPhysicalDeviceFormatProperties2(fixture->physical, format, &properties);
    assert_int_equal(list.drmFormatModifierCount, 1);
    assert_int_equal(list2.drmFormatModifierCount, 1);
    assert_ptr_equal(properties.pNext, &list);
    assert_ptr_equal(list.pNext, &wide);
    assert_ptr_equal(wide.pNext, &list2);

    VkDrmFormatModifierPropertiesEXT entries[2] = {0};
    VkDrmFormatModifierProperties2EXT entries2[2] = {0};
    list.drmFormatModifierCount = 2; /* room for more than there is */
    list.pDrmFormatModifierProperties = entries;
    list2.drmFormatModifierCount = 2;
    list2.pDrmFormatModifierProperties = entries2;
    pv_layer_GetPhysicalDeviceFormatProperties2(fixture->physical, format, &properties);
    assert_int_equal(list.drmFormatModifierCount, 1);
    assert_int_equal(entries[0].drmFormatModifier, 0);
    assert_int_equal(entries[0].drmFormatModifierPlaneCount, 1);
    const VkFormatProperties *plain = &properties.formatProperties;
    assert_int_equal(entries[0].drmFormatModifierTilingFeatures,
                     copies() ? plain->optimalTilingFeatures : plain->linearTilingFeatures);
    assert_int_equal(entries2[0].drmFormatModifierTilingFeatures,
                     copies() ? wide.optimalTilingFeatures : wide.linearTilingFeatures);

    list.drmFormatModifierCount = 0; /* room for none */
    pv_layer_GetPhysicalDeviceFormatProperties2(fixture->physical, format, &properties);
    assert_int_equal(list.drmFormatModifierCount, 0);

    list.pDrmFormatModifierProperties = NULL;
    pv_layer_GetPhysicalDeviceFormatProperties2(fixture->physical, VK_FORMAT_D32_SFLOAT,
                                                &properties);
    assert_int_equal(list.drmFormatModifierCount, 0);
}

struct query {
    VkPhysicalDeviceImageFormatInfo2 info;
    VkPhysicalDeviceExternalImageFormatInfo external;
    VkPhysicalDeviceImageDrmFormatModifierInfoEXT modifier;
    VkImageFormatProperties2 properties;
    VkExternalImageFormatProperties external_properties;
};

static VkResult run_query(struct query *query, uint64_t modifier,
                          VkExternalMemoryHandleTypeFlagBits handle)
{
    *query = (struct query){
        .info = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_IMAGE_FORMAT_INFO_2,
                 .pNext = &query->external,
                 .format = VK_FORMAT_B8G8R8A8_UNORM,
                 .type = VK_IMAGE_TYPE_2D,
                 .tiling = VK_IMAGE_TILING_DRM_FORMAT_MODIFIER_EXT,
                 .usage = VK_IMAGE_USAGE_COLOR_ATTACHMENT_BIT | VK_IMAGE_USAGE_TRANSFER_SRC_BIT},
        .external = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_EXTERNAL_IMAGE_FORMAT_INFO,
                     .pNext = &query->modifier,
                     .handleType = handle},
        .modifier = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_IMAGE_DRM_FORMAT_MODIFIER_INFO_EXT,
                     .drmFormatModifier = modifier},
        .properties = {.sType = VK_STRUCTURE_TYPE_IMAGE_FORMAT_PROPERTIES_2,
                       .pNext = &query->external_properties},
        .external_properties = {.sType = VK_STRUCTURE_TYPE_EXTERNAL_IMAGE_FORMAT_PROPERTIES},
    };
    VkResult result = pv_layer_GetPhysicalDeviceImageFormatProperties2(
        fixture->physical, &query->info, &query->properties);
    assert_ptr_equal(query->info.pNext, &query->external);
    assert_ptr_equal(query->external.pNext, &query->modifier);
    assert_ptr_equal(query->properties.pNext, &query->external_properties);
    assert_int_equal(query->info.tiling, VK_IMAGE_TILING_DRM_FORMAT_MODIFIER_EXT);
    assert_int_equal(query->info.usage,
                     VK_IMAGE_USAGE_COLOR_ATTACHMENT_BIT | VK_IMAGE_USAGE_TRANSFER_SRC_BIT);
    return result;
}

static void presentable_image_formats(void **state)
{
    if (!modifiers_are_ours())
        skip();
    struct query query;
    const VkExternalMemoryHandleTypeFlagBits dma_buf =
        VK_EXTERNAL_MEMORY_HANDLE_TYPE_DMA_BUF_BIT_EXT;
    assert_int_equal(run_query(&query, 0, dma_buf), VK_SUCCESS);
    assert_true(query.properties.imageFormatProperties.maxExtent.width >= 4096);
    assert_true(!copies() || query.properties.imageFormatProperties.maxMipLevels == 1);
    const VkExternalMemoryProperties *memory = &query.external_properties.externalMemoryProperties;
    assert_true(memory->externalMemoryFeatures & VK_EXTERNAL_MEMORY_FEATURE_EXPORTABLE_BIT);
    assert_true(memory->externalMemoryFeatures & VK_EXTERNAL_MEMORY_FEATURE_IMPORTABLE_BIT);
    assert_true(memory->compatibleHandleTypes & dma_buf);

    assert_int_equal(run_query(&query, 1, dma_buf), VK_ERROR_FORMAT_NOT_SUPPORTED);
    assert_int_equal(run_query(&query, 0, VK_EXTERNAL_MEMORY_HANDLE_TYPE_HOST_ALLOCATION_BIT_EXT),
                     VK_ERROR_FORMAT_NOT_SUPPORTED);
}

/* The driver's own dma-bufs are for its own images; rows of pixels are a buffer to it. */
static void copied_images_are_ours_with_any_driver(void **state)
{
    if (!copies())
        skip();
    struct pv_device_caps changed = *fixture->physical->caps;
    const struct pv_device_caps *caps = fixture->physical->caps;
    changed.driver_dma_buf = true;
    fixture->physical->caps = &changed;
    struct query query;
    assert_int_equal(run_query(&query, 0, VK_EXTERNAL_MEMORY_HANDLE_TYPE_DMA_BUF_BIT_EXT),
                     VK_SUCCESS);
    assert_true(query.external_properties.externalMemoryProperties.externalMemoryFeatures &
                VK_EXTERNAL_MEMORY_FEATURE_EXPORTABLE_BIT);
    fixture->physical->caps = caps;

    query.info.flags = VK_IMAGE_CREATE_CUBE_COMPATIBLE_BIT;
    assert_int_equal(pv_layer_GetPhysicalDeviceImageFormatProperties2(
                         fixture->physical, &query.info, &query.properties),
                     VK_ERROR_FORMAT_NOT_SUPPORTED);
}

static void external_buffers(void **state)
{
    VkPhysicalDeviceExternalBufferInfo info = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_EXTERNAL_BUFFER_INFO,
        .usage = VK_BUFFER_USAGE_TRANSFER_DST_BIT,
        .handleType = VK_EXTERNAL_MEMORY_HANDLE_TYPE_DMA_BUF_BIT_EXT,
    };
    VkExternalBufferProperties properties = {.sType = VK_STRUCTURE_TYPE_EXTERNAL_BUFFER_PROPERTIES};
    pv_layer_GetPhysicalDeviceExternalBufferProperties(fixture->physical, &info, &properties);
    assert_true(properties.externalMemoryProperties.externalMemoryFeatures &
                VK_EXTERNAL_MEMORY_FEATURE_EXPORTABLE_BIT);
    info.handleType = VK_EXTERNAL_MEMORY_HANDLE_TYPE_HOST_ALLOCATION_BIT_EXT;
    pv_layer_GetPhysicalDeviceExternalBufferProperties(fixture->physical, &info, &properties);
    assert_int_equal(properties.externalMemoryProperties.externalMemoryFeatures, 0);
}

/* As Mesa's window system code makes them. */
struct image {
    VkImageCreateInfo info;
    VkExternalMemoryImageCreateInfo external;
    VkImageDrmFormatModifierListCreateInfoEXT list;
    VkImageDrmFormatModifierExplicitCreateInfoEXT stated;
    uint64_t modifiers[2];
    VkSubresourceLayout layout;
};

static void describe_image(struct image *image, bool stated)
{
    *image = (struct image){
        .info = {.sType = VK_STRUCTURE_TYPE_IMAGE_CREATE_INFO,
                 .pNext = &image->external,
                 .imageType = VK_IMAGE_TYPE_2D,
                 .format = VK_FORMAT_B8G8R8A8_UNORM,
                 .extent = {100, 50, 1},
                 .mipLevels = 1,
                 .arrayLayers = 1,
                 .samples = VK_SAMPLE_COUNT_1_BIT,
                 .tiling = VK_IMAGE_TILING_DRM_FORMAT_MODIFIER_EXT,
                 .usage = VK_IMAGE_USAGE_COLOR_ATTACHMENT_BIT | VK_IMAGE_USAGE_TRANSFER_SRC_BIT},
        .external = {.sType = VK_STRUCTURE_TYPE_EXTERNAL_MEMORY_IMAGE_CREATE_INFO,
                     .pNext = stated ? (void *)&image->stated : (void *)&image->list,
                     .handleTypes = VK_EXTERNAL_MEMORY_HANDLE_TYPE_DMA_BUF_BIT_EXT},
        .list = {.sType = VK_STRUCTURE_TYPE_IMAGE_DRM_FORMAT_MODIFIER_LIST_CREATE_INFO_EXT,
                 .drmFormatModifierCount = 2,
                 .pDrmFormatModifiers = image->modifiers},
        .stated = {.sType = VK_STRUCTURE_TYPE_IMAGE_DRM_FORMAT_MODIFIER_EXPLICIT_CREATE_INFO_EXT,
                   .drmFormatModifierPlaneCount = 1,
                   .pPlaneLayouts = &image->layout},
        .modifiers = {5, 0},
    };
}

static void check_unchanged(const struct image *image, bool stated)
{
    assert_ptr_equal(image->info.pNext, &image->external);
    assert_ptr_equal(image->external.pNext,
                     stated ? (const void *)&image->stated : (const void *)&image->list);
    assert_int_equal(image->info.tiling, VK_IMAGE_TILING_DRM_FORMAT_MODIFIER_EXT);
    assert_int_equal(image->external.handleTypes, VK_EXTERNAL_MEMORY_HANDLE_TYPE_DMA_BUF_BIT_EXT);
}

static void images_with_modifiers(void **state)
{
    if (!modifiers_are_ours())
        skip();
    struct pv_device *device = fixture->device;
    struct image image;
    VkImage handle;
    describe_image(&image, false);
    assert_int_equal(pv_layer_CreateImage(device, &image.info, &handle), VK_SUCCESS);
    check_unchanged(&image, false);

    VkImageDrmFormatModifierPropertiesEXT properties = {
        .sType = VK_STRUCTURE_TYPE_IMAGE_DRM_FORMAT_MODIFIER_PROPERTIES_EXT,
        .drmFormatModifier = 99,
    };
    assert_int_equal(pv_layer_GetImageDrmFormatModifierPropertiesEXT(device, handle, &properties),
                     VK_SUCCESS);
    assert_int_equal(properties.drmFormatModifier, 0);
    VkImageSubresource plane = {.aspectMask = VK_IMAGE_ASPECT_MEMORY_PLANE_0_BIT_EXT};
    VkSubresourceLayout layout = {0};
    pv_layer_GetImageSubresourceLayout(device, handle, &plane, &layout);
    assert_int_equal(layout.offset, 0);
    assert_true(layout.rowPitch >= 400);
    pv_layer_DestroyImage(device, handle);

    describe_image(&image, false);
    image.list.drmFormatModifierCount = 1; /* without LINEAR */
    assert_int_equal(pv_layer_CreateImage(device, &image.info, &handle),
                     VK_ERROR_FORMAT_NOT_SUPPORTED);
    check_unchanged(&image, false);

    describe_image(&image, true);
    image.layout.rowPitch = layout.rowPitch;
    assert_int_equal(pv_layer_CreateImage(device, &image.info, &handle), VK_SUCCESS);
    check_unchanged(&image, true);
    pv_layer_DestroyImage(device, handle);

    image.layout.rowPitch += copies() ? 2 : 64; /* a copy can have any number of whole pixels */
    assert_int_equal(pv_layer_CreateImage(device, &image.info, &handle),
                     VK_ERROR_INVALID_DRM_FORMAT_MODIFIER_PLANE_LAYOUT_EXT);
    check_unchanged(&image, true);
    image.stated.drmFormatModifier = 7;
    assert_int_equal(pv_layer_CreateImage(device, &image.info, &handle),
                     VK_ERROR_FORMAT_NOT_SUPPORTED);
}

static void requirements_without_an_image(void **state)
{
    if (!modifiers_are_ours() || !fixture->device->vk.GetDeviceImageMemoryRequirements)
        skip();
    struct image image;
    describe_image(&image, false);
    VkDeviceImageMemoryRequirements info = {
        .sType = VK_STRUCTURE_TYPE_DEVICE_IMAGE_MEMORY_REQUIREMENTS,
        .pCreateInfo = &image.info,
    };
    VkMemoryRequirements2 requirements = {.sType = VK_STRUCTURE_TYPE_MEMORY_REQUIREMENTS_2};
    pv_layer_GetDeviceImageMemoryRequirements(fixture->device, &info, &requirements);
    check_unchanged(&image, false);
    assert_true(requirements.memoryRequirements.size >= 100 * 50 * 4);
    VkImageSubresource2 plane = {
        .sType = VK_STRUCTURE_TYPE_IMAGE_SUBRESOURCE_2,
        .imageSubresource = {.aspectMask = VK_IMAGE_ASPECT_MEMORY_PLANE_0_BIT_EXT},
    };
    VkDeviceImageSubresourceInfo layout_info = {
        .sType = VK_STRUCTURE_TYPE_DEVICE_IMAGE_SUBRESOURCE_INFO,
        .pCreateInfo = &image.info,
        .pSubresource = &plane,
    };
    VkSubresourceLayout2 layout = {.sType = VK_STRUCTURE_TYPE_SUBRESOURCE_LAYOUT_2};
    if (fixture->device->vk.GetDeviceImageSubresourceLayout) {
        pv_layer_GetDeviceImageSubresourceLayout(fixture->device, &layout_info, &layout);
        check_unchanged(&image, false);
        assert_true(layout.subresourceLayout.rowPitch >= 400);
    }

    uint32_t sparse = 9;
    pv_layer_GetDeviceImageSparseMemoryRequirements(fixture->device, &info, &sparse, NULL);
    assert_int_equal(sparse, 0);
    image.modifiers[1] = 3;
    pv_layer_GetDeviceImageMemoryRequirements(fixture->device, &info, &requirements);
    assert_int_equal(requirements.memoryRequirements.memoryTypeBits, 0);
}

static void sync_fd_is_offered(void **state)
{
    VkPhysicalDeviceExternalSemaphoreInfo info = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_EXTERNAL_SEMAPHORE_INFO,
        .handleType = VK_EXTERNAL_SEMAPHORE_HANDLE_TYPE_SYNC_FD_BIT,
    };
    VkExternalSemaphoreProperties properties = {
        .sType = VK_STRUCTURE_TYPE_EXTERNAL_SEMAPHORE_PROPERTIES,
    };
    pv_layer_GetPhysicalDeviceExternalSemaphoreProperties(fixture->physical, &info, &properties);
    assert_int_equal(properties.externalSemaphoreFeatures, 3);
    VkSemaphoreTypeCreateInfo type = {
        .sType = VK_STRUCTURE_TYPE_SEMAPHORE_TYPE_CREATE_INFO,
        .semaphoreType = VK_SEMAPHORE_TYPE_TIMELINE,
    };
    info.pNext = &type;
    pv_layer_GetPhysicalDeviceExternalSemaphoreProperties(fixture->physical, &info, &properties);
    assert_int_equal(properties.externalSemaphoreFeatures, 0);

    VkPhysicalDeviceExternalFenceInfo fence = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_EXTERNAL_FENCE_INFO,
        .handleType = VK_EXTERNAL_FENCE_HANDLE_TYPE_SYNC_FD_BIT,
    };
    VkExternalFenceProperties fence_properties = {
        .sType = VK_STRUCTURE_TYPE_EXTERNAL_FENCE_PROPERTIES,
    };
    pv_layer_GetPhysicalDeviceExternalFenceProperties(fixture->physical, &fence, &fence_properties);
    assert_int_equal(fence_properties.externalFenceFeatures, 3);
}

static int run(enum pv_modifier_tier tier)
{
    fixture = fixture_create_with(&(struct pv_host_options){.force_modifier_tier = tier}, true);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ours_are_listed),
        cmocka_unit_test(list_is_what_can_be_carried),
        cmocka_unit_test(unknown_extensions_are_refused),
        cmocka_unit_test(linear_is_the_only_modifier),
        cmocka_unit_test(presentable_image_formats),
        cmocka_unit_test(copied_images_are_ours_with_any_driver),
        cmocka_unit_test(external_buffers),
        cmocka_unit_test(images_with_modifiers),
        cmocka_unit_test(requirements_without_an_image),
        cmocka_unit_test(sync_fd_is_offered),
    };
    int failed = cmocka_run_group_tests_name(pv_modifier_tier_name(tier), tests, NULL, NULL);
    fixture_destroy(fixture);
    return failed;
}

int main(void)
{
    fixture_need_driver();
    return run(PV_MODIFIER_TIER_NONE) + run(PV_MODIFIER_TIER_COPIED);
}
