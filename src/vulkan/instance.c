#include "vulkan/host.h"

#include "util/log.h"
#include "util/os.h"
#include "vulkan/instance.h"
#include "vulkan/loader.h"

#include <stdlib.h>
#include <string.h>

#define PV_LOG_MODULE "vulkan"

uint32_t pv_instance_version(void)
{
    const struct pv_loader *loader = pv_loader_get();
    uint32_t version = VK_API_VERSION_1_0;
    if (loader && loader->EnumerateInstanceVersion)
        loader->EnumerateInstanceVersion(&version);
    return version;
}

static bool has_instance_extension(const struct pv_loader *loader, const char *name)
{
    uint32_t count = 0;
    if (loader->EnumerateInstanceExtensionProperties(NULL, &count, NULL) != VK_SUCCESS || !count)
        return false;
    VkExtensionProperties *list = calloc(count, sizeof(*list));
    if (!list)
        return false;
    bool found = false;
    if (loader->EnumerateInstanceExtensionProperties(NULL, &count, list) >= VK_SUCCESS) {
        for (uint32_t i = 0; i < count && !found; i++)
            found = strcmp(list[i].extensionName, name) == 0;
    }
    free(list);
    return found;
}

static VkResult create_handle(const struct pv_loader *loader, const VkApplicationInfo *app_info,
                              uint32_t version, VkInstance *out)
{
    /* Drivers keep workarounds by application name: it is passed on, without its chain. */
    VkApplicationInfo app = {.sType = VK_STRUCTURE_TYPE_APPLICATION_INFO};
    if (app_info)
        app = *app_info;
    app.pNext = NULL;
    /* Drivers give a device no core command of a version above this, whatever they say that they
     * have; a loader may be older than its drivers. */
    app.apiVersion = version > VK_API_VERSION_1_4 ? version : VK_API_VERSION_1_4;

    /* MoltenVK and its like are listed only for those who ask. */
    const char *portability = VK_KHR_PORTABILITY_ENUMERATION_EXTENSION_NAME;
    bool with_portability = has_instance_extension(loader, portability);
    VkInstanceCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO,
        .flags = with_portability ? VK_INSTANCE_CREATE_ENUMERATE_PORTABILITY_BIT_KHR : 0,
        .pApplicationInfo = &app,
        .enabledExtensionCount = with_portability ? 1 : 0,
        .ppEnabledExtensionNames = &portability,
    };
    return loader->CreateInstance(&info, NULL, out);
}

VkResult pv_instance_open(const VkApplicationInfo *app_info, struct pv_instance **out)
{
    const struct pv_loader *loader = pv_loader_get();
    if (!loader) {
        pv_error("no Vulkan loader (libvulkan.so.1) on this machine; install libvulkan1");
        return VK_ERROR_INITIALIZATION_FAILED;
    }
    uint32_t version = pv_instance_version();
    if (version < VK_API_VERSION_1_1) {
        pv_error("the Vulkan loader is older than 1.1; install a newer libvulkan1");
        return VK_ERROR_INCOMPATIBLE_DRIVER;
    }
    struct pv_instance *instance = calloc(1, sizeof(*instance));
    if (!instance)
        return VK_ERROR_OUT_OF_HOST_MEMORY;

    instance->version = version;
    VkResult result = create_handle(loader, app_info, version, &instance->handle);
    if (result != VK_SUCCESS) {
        pv_debug("vkCreateInstance failed (%d)", (int)result); /* the caller says more */
        free(instance);
        return result;
    }
    pv_vk_instance_table_load(&instance->vk, loader->GetInstanceProcAddr, instance->handle);
    *out = instance;
    return VK_SUCCESS;
}

VkResult pv_instance_enumerate(struct pv_instance *instance,
                               VkPhysicalDevice handles[PV_HOST_MAX_DEVICES], uint32_t *out_count)
{
    uint32_t count = PV_HOST_MAX_DEVICES;
    VkResult result = instance->vk.EnumeratePhysicalDevices(instance->handle, &count, handles);
    if (result < VK_SUCCESS) /* VK_INCOMPLETE: more than we look at */
        return result;
    *out_count = count;
    return VK_SUCCESS;
}

VkResult pv_physical_init(struct pv_physical *physical, struct pv_instance *instance,
                          VkPhysicalDevice handle, const struct pv_device_caps *caps,
                          const struct pv_instance_params *params)
{
    *physical = (struct pv_physical){
        .handle = handle,
        .instance = instance,
        .caps = caps,
        .offer_dma_buf = params->offer_dma_buf,
        .arena = params->arena,
    };
    VkPhysicalDeviceProperties properties;
    instance->vk.GetPhysicalDeviceProperties(handle, &properties);
    physical->limits = properties.limits;
    instance->vk.GetPhysicalDeviceMemoryProperties(handle, &physical->memory);
    VkResult result = pv_physical_load_extensions(physical, params);
    if (result != VK_SUCCESS)
        pv_physical_finish(physical);
    return result;
}

void pv_physical_finish(struct pv_physical *physical)
{
    free(physical->extensions);
    free(physical->driver_extensions);
    *physical = (struct pv_physical){0};
}

static bool is_device(struct pv_instance *instance, VkPhysicalDevice handle,
                      const struct pv_device_caps *caps)
{
    VkPhysicalDeviceProperties basic;
    instance->vk.GetPhysicalDeviceProperties(handle, &basic);
    if (basic.apiVersion < VK_API_VERSION_1_1)
        return false;
    VkPhysicalDeviceIDProperties id = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_ID_PROPERTIES};
    VkPhysicalDeviceProperties2 properties = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2,
        .pNext = &id,
    };
    instance->vk.GetPhysicalDeviceProperties2(handle, &properties);
    /* two drivers of one GPU share the UUID by design, so the name must agree as well */
    return memcmp(id.deviceUUID, caps->uuid, VK_UUID_SIZE) == 0 &&
           strcmp(basic.deviceName, caps->name) == 0;
}

static VkResult add_physicals(struct pv_instance *instance, const struct pv_instance_params *params)
{
    VkPhysicalDevice handles[PV_HOST_MAX_DEVICES];
    uint32_t count = 0;
    VkResult result = pv_instance_enumerate(instance, handles, &count);
    if (result != VK_SUCCESS)
        return result;

    for (uint32_t i = 0; i < params->caps->device_count; i++) {
        const struct pv_device_caps *caps = &params->caps->devices[i];
        if (!caps->usable || (params->device_index >= 0 && (uint32_t)params->device_index != i))
            continue;
        for (uint32_t k = 0; k < count; k++) {
            if (!handles[k] || !is_device(instance, handles[k], caps))
                continue;
            struct pv_physical *physical = &instance->physicals[instance->physical_count];
            result = pv_physical_init(physical, instance, handles[k], caps, params);
            if (result != VK_SUCCESS)
                return result;
            instance->physical_count++;
            handles[k] = VK_NULL_HANDLE; /* each is used once */
            break;
        }
    }
    if (instance->physical_count == 0) {
        pv_error("the chosen Vulkan device is not there any more; run 'pearvisor doctor'");
        return VK_ERROR_INITIALIZATION_FAILED;
    }
    return VK_SUCCESS;
}

VkResult pv_instance_create(const struct pv_instance_params *params, struct pv_instance **out)
{
    /* each piece of memory that a guest may map keeps an fd open */
    pv_raise_fd_limit();

    struct pv_instance *instance;
    VkResult result = pv_instance_open(params->app_info, &instance);
    if (result != VK_SUCCESS)
        return result;
    result = add_physicals(instance, params);
    if (result != VK_SUCCESS) {
        pv_instance_destroy(instance);
        return result;
    }
    *out = instance;
    return VK_SUCCESS;
}

void pv_instance_destroy(struct pv_instance *instance)
{
    if (!instance)
        return;
    for (uint32_t i = 0; i < instance->physical_count; i++)
        pv_physical_finish(&instance->physicals[i]);
    instance->vk.DestroyInstance(instance->handle, NULL);
    free(instance);
}
