#include "vkh.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* The newest core version that any program here asks for. */
#define VKH_API_VERSION VK_API_VERSION_1_3

static const char *program = "client";
static void (*exit_handler)(int status, const char *reason);

void vkh_set_program(const char *name)
{
    const char *slash = strrchr(name, '/');
    program = slash ? slash + 1 : name;
}

void vkh_on_exit(void (*handler)(int status, const char *reason))
{
    exit_handler = handler;
}

static _Noreturn void end_program(int status, const char *what, const char *format, va_list args)
{
    char reason[512];
    vsnprintf(reason, sizeof(reason), format, args);
    if (exit_handler)
        exit_handler(status, reason);
    else
        fprintf(stderr, "%s: %s%s\n", program, what, reason);
    fflush(NULL);
    /* Not exit(): other threads may be inside the driver, whose exit handlers would then run under
     * them. */
    _Exit(status);
}

void vkh_fail(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    end_program(EXIT_FAILURE, "", format, args);
}

void vkh_skip(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    end_program(VKH_SKIP, "skipped: ", format, args);
}

const char *vkh_result_name(VkResult result)
{
    switch (result) {
#define NAME(value) \
    case value:     \
        return #value;
        NAME(VK_SUCCESS)
        NAME(VK_NOT_READY)
        NAME(VK_TIMEOUT)
        NAME(VK_EVENT_SET)
        NAME(VK_EVENT_RESET)
        NAME(VK_INCOMPLETE)
        NAME(VK_SUBOPTIMAL_KHR)
        NAME(VK_ERROR_OUT_OF_HOST_MEMORY)
        NAME(VK_ERROR_OUT_OF_DEVICE_MEMORY)
        NAME(VK_ERROR_INITIALIZATION_FAILED)
        NAME(VK_ERROR_DEVICE_LOST)
        NAME(VK_ERROR_MEMORY_MAP_FAILED)
        NAME(VK_ERROR_LAYER_NOT_PRESENT)
        NAME(VK_ERROR_EXTENSION_NOT_PRESENT)
        NAME(VK_ERROR_FEATURE_NOT_PRESENT)
        NAME(VK_ERROR_INCOMPATIBLE_DRIVER)
        NAME(VK_ERROR_TOO_MANY_OBJECTS)
        NAME(VK_ERROR_FORMAT_NOT_SUPPORTED)
        NAME(VK_ERROR_FRAGMENTED_POOL)
        NAME(VK_ERROR_OUT_OF_POOL_MEMORY)
        NAME(VK_ERROR_INVALID_EXTERNAL_HANDLE)
        NAME(VK_ERROR_SURFACE_LOST_KHR)
        NAME(VK_ERROR_OUT_OF_DATE_KHR)
        NAME(VK_ERROR_UNKNOWN)
#undef NAME
    default: {
        static _Thread_local char text[32];
        snprintf(text, sizeof(text), "VkResult %d", (int)result);
        return text;
    }
    }
}

void vkh_check(VkResult result, const char *call, const char *file, int line)
{
    if (result == VK_SUCCESS)
        return;
    int name_length = (int)strcspn(call, "(");
    const char *slash = strrchr(file, '/');
    vkh_fail("%.*s: %s (%s:%d)", name_length, call, vkh_result_name(result),
             slash ? slash + 1 : file, line);
}

/* ---- instance ---- */

static bool has_extension(const VkExtensionProperties *list, uint32_t count, const char *name)
{
    for (uint32_t i = 0; i < count; i++) {
        if (strcmp(list[i].extensionName, name) == 0)
            return true;
    }
    return false;
}

static void require_instance_extensions(const struct vkh_params *params)
{
    uint32_t count = 0;
    VKH_CHECK(vkEnumerateInstanceExtensionProperties(NULL, &count, NULL));
    VkExtensionProperties *list = calloc(count + 1, sizeof(*list));
    if (!list)
        vkh_fail("out of memory");
    VKH_CHECK(vkEnumerateInstanceExtensionProperties(NULL, &count, list));
    for (uint32_t i = 0; i < params->instance_extension_count; i++) {
        if (!has_extension(list, count, params->instance_extensions[i]))
            vkh_skip("no instance extension %s", params->instance_extensions[i]);
    }
    free(list);
}

void vkh_instance_init(struct vkh *vk, const struct vkh_params *params)
{
    static const struct vkh_params nothing;
    if (!params)
        params = &nothing;
    memset(vk, 0, sizeof(*vk));
    const char *error = vkh_loader_open();
    if (error)
        vkh_skip("%s", error);
    if (params->instance_extension_count)
        require_instance_extensions(params);
    const VkApplicationInfo application = {
        .sType = VK_STRUCTURE_TYPE_APPLICATION_INFO,
        .pApplicationName = program,
        .apiVersion = VKH_API_VERSION,
    };
    const VkInstanceCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO,
        .pApplicationInfo = &application,
        .enabledExtensionCount = params->instance_extension_count,
        .ppEnabledExtensionNames = params->instance_extensions,
    };
    VKH_CHECK(vkCreateInstance(&info, NULL, &vk->instance));
    vkh_loader_instance(vk->instance);
}

/* ---- device ---- */

static void choose_physical_device(struct vkh *vk)
{
    VkPhysicalDevice devices[16];
    uint32_t count = VKH_COUNT(devices);
    VkResult result = vkEnumeratePhysicalDevices(vk->instance, &count, devices);
    if (result != VK_SUCCESS && result != VK_INCOMPLETE)
        vkh_fail("vkEnumeratePhysicalDevices: %s", vkh_result_name(result));
    const char *wanted = getenv("PV_CLIENT_DEVICE");
    uint32_t index = wanted ? (uint32_t)strtoul(wanted, NULL, 10) : 0;
    if (index >= count)
        vkh_fail("physical device %u is not there: the driver shows %u", index, count);
    vk->physical = devices[index];
    vkGetPhysicalDeviceProperties(vk->physical, &vk->properties);
    vkGetPhysicalDeviceMemoryProperties(vk->physical, &vk->memory);
    vk->api_version =
        vk->properties.apiVersion < VKH_API_VERSION ? vk->properties.apiVersion : VKH_API_VERSION;
    if (vk->api_version < VK_API_VERSION_1_1)
        vkh_skip("%s has only Vulkan 1.0", vk->properties.deviceName);
}

static void choose_queue_family(struct vkh *vk)
{
    VkQueueFamilyProperties families[16];
    uint32_t count = VKH_COUNT(families);
    vkGetPhysicalDeviceQueueFamilyProperties(vk->physical, &count, families);
    const VkQueueFlags wanted = VK_QUEUE_GRAPHICS_BIT | VK_QUEUE_COMPUTE_BIT;
    for (uint32_t i = 0; i < count; i++) {
        if ((families[i].queueFlags & wanted) == wanted) {
            vk->queue_family = i;
            vk->timestamp_bits = families[i].timestampValidBits;
            return;
        }
    }
    vkh_skip("%s has no queue for both graphics and compute", vk->properties.deviceName);
}

bool vkh_has_device_extension(const struct vkh *vk, const char *name)
{
    uint32_t count = 0;
    VKH_CHECK(vkEnumerateDeviceExtensionProperties(vk->physical, NULL, &count, NULL));
    VkExtensionProperties *list = calloc(count + 1, sizeof(*list));
    if (!list)
        vkh_fail("out of memory");
    VKH_CHECK(vkEnumerateDeviceExtensionProperties(vk->physical, NULL, &count, list));
    bool found = has_extension(list, count, name);
    free(list);
    return found;
}

/* Chain the feature structs that this API version knows behind `features`, and read them. */
static void read_features(struct vkh *vk, VkPhysicalDeviceFeatures2 *features)
{
    *features = (VkPhysicalDeviceFeatures2){
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2,
    };
    vk->features11.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_1_FEATURES;
    vk->features12.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_FEATURES;
    vk->features13.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_3_FEATURES;
    if (vk->api_version >= VK_API_VERSION_1_2) {
        features->pNext = &vk->features11;
        vk->features11.pNext = &vk->features12;
    }
    if (vk->api_version >= VK_API_VERSION_1_3)
        vk->features12.pNext = &vk->features13;
    vkGetPhysicalDeviceFeatures2(vk->physical, features);
    /* Changes what shaders do at the edge of a buffer, and costs speed that is not ours to measure.
     */
    features->features.robustBufferAccess = VK_FALSE;
    vk->features = features->features;
}

void vkh_device_init(struct vkh *vk, const struct vkh_params *params)
{
    static const struct vkh_params nothing;
    if (!params)
        params = &nothing;
    choose_physical_device(vk);
    choose_queue_family(vk);
    for (uint32_t i = 0; i < params->device_extension_count; i++) {
        if (!vkh_has_device_extension(vk, params->device_extensions[i]))
            vkh_skip("%s has no %s", vk->properties.deviceName, params->device_extensions[i]);
    }
    VkPhysicalDeviceFeatures2 features;
    read_features(vk, &features);
    const float priority = 1.0f;
    const VkDeviceQueueCreateInfo queue = {
        .sType = VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO,
        .queueFamilyIndex = vk->queue_family,
        .queueCount = 1,
        .pQueuePriorities = &priority,
    };
    const VkDeviceCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO,
        .pNext = &features,
        .queueCreateInfoCount = 1,
        .pQueueCreateInfos = &queue,
        .enabledExtensionCount = params->device_extension_count,
        .ppEnabledExtensionNames = params->device_extensions,
    };
    VKH_CHECK(vkCreateDevice(vk->physical, &info, NULL, &vk->device));
    vkh_loader_device(vk->device);
    vkGetDeviceQueue(vk->device, vk->queue_family, 0, &vk->queue);
}

static void create_command_pool(struct vkh *vk)
{
    const VkCommandPoolCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO,
        .flags = VK_COMMAND_POOL_CREATE_RESET_COMMAND_BUFFER_BIT,
        .queueFamilyIndex = vk->queue_family,
    };
    VKH_CHECK(vkCreateCommandPool(vk->device, &info, NULL, &vk->command_pool));
}

void vkh_init(struct vkh *vk, const struct vkh_params *params)
{
    vkh_instance_init(vk, params);
    vkh_device_init(vk, params);
    create_command_pool(vk);
    vk->queue_lock = malloc(sizeof(*vk->queue_lock));
    if (!vk->queue_lock)
        vkh_fail("out of memory");
    pthread_mutex_init(vk->queue_lock, NULL);
}

void vkh_child_init(struct vkh *child, const struct vkh *parent)
{
    *child = *parent;
    child->child = true;
    child->objects = NULL;
    child->object_count = 0;
    child->object_capacity = 0;
    create_command_pool(child);
}

void vkh_finish(struct vkh *vk)
{
    if (vk->command_pool && !vk->child)
        vkDeviceWaitIdle(vk->device);
    vkh_release(vk, 0);
    free(vk->objects);
    if (vk->command_pool)
        vkDestroyCommandPool(vk->device, vk->command_pool, NULL);
    if (!vk->child) {
        if (vk->device)
            vkDestroyDevice(vk->device, NULL);
        if (vk->instance)
            vkDestroyInstance(vk->instance, NULL);
        if (vk->queue_lock) {
            pthread_mutex_destroy(vk->queue_lock);
            free(vk->queue_lock);
        }
    }
    memset(vk, 0, sizeof(*vk));
}

/* ---- object list ---- */

size_t vkh_mark(const struct vkh *vk)
{
    return vk->object_count;
}

void vkh_keep(struct vkh *vk, VkObjectType type, uint64_t handle)
{
    if (vk->object_count == vk->object_capacity) {
        size_t capacity = vk->object_capacity ? vk->object_capacity * 2 : 64;
        struct vkh_object *objects = realloc(vk->objects, capacity * sizeof(*objects));
        if (!objects)
            vkh_fail("out of memory");
        vk->objects = objects;
        vk->object_capacity = capacity;
    }
    vk->objects[vk->object_count++] = (struct vkh_object){type, handle};
}

static void destroy_object(struct vkh *vk, const struct vkh_object *object)
{
    switch (object->type) {
#define DESTROY(type, name)                                          \
    case VK_OBJECT_TYPE_##type:                                      \
        vkDestroy##name(vk->device, (Vk##name)object->handle, NULL); \
        return;
        DESTROY(BUFFER, Buffer)
        DESTROY(BUFFER_VIEW, BufferView)
        DESTROY(IMAGE, Image)
        DESTROY(IMAGE_VIEW, ImageView)
        DESTROY(SAMPLER, Sampler)
        DESTROY(FENCE, Fence)
        DESTROY(SEMAPHORE, Semaphore)
        DESTROY(EVENT, Event)
        DESTROY(QUERY_POOL, QueryPool)
        DESTROY(SHADER_MODULE, ShaderModule)
        DESTROY(PIPELINE_CACHE, PipelineCache)
        DESTROY(PIPELINE, Pipeline)
        DESTROY(PIPELINE_LAYOUT, PipelineLayout)
        DESTROY(DESCRIPTOR_SET_LAYOUT, DescriptorSetLayout)
        DESTROY(DESCRIPTOR_POOL, DescriptorPool)
        DESTROY(DESCRIPTOR_UPDATE_TEMPLATE, DescriptorUpdateTemplate)
        DESTROY(RENDER_PASS, RenderPass)
        DESTROY(FRAMEBUFFER, Framebuffer)
        DESTROY(COMMAND_POOL, CommandPool)
        DESTROY(SWAPCHAIN_KHR, SwapchainKHR)
#undef DESTROY
    case VK_OBJECT_TYPE_DEVICE_MEMORY:
        vkFreeMemory(vk->device, (VkDeviceMemory)object->handle, NULL);
        return;
    case VK_OBJECT_TYPE_SURFACE_KHR:
        vkDestroySurfaceKHR(vk->instance, (VkSurfaceKHR)object->handle, NULL);
        return;
    default:
        vkh_fail("object type %d has no destructor here", (int)object->type);
    }
}

void vkh_release(struct vkh *vk, size_t mark)
{
    while (vk->object_count > mark)
        destroy_object(vk, &vk->objects[--vk->object_count]);
}

/* ---- odds and ends ---- */

uint64_t vkh_now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

uint64_t vkh_parse_size(const char *text)
{
    char *end;
    uint64_t value = strtoull(text, &end, 10);
    if (end == text)
        goto bad;
    switch (*end) {
    case 'G':
    case 'g':
        value <<= 10; /* fall through */
    case 'M':
    case 'm':
        value <<= 10; /* fall through */
    case 'K':
    case 'k':
        value <<= 10;
        end++;
        break;
    default:
        break;
    }
    if (*end == '\0')
        return value;
bad:
    fprintf(stderr, "%s: '%s' is not a number (K, M, G may follow)\n", program, text);
    exit(2);
}

const char *vkh_option_value(int argc, char **argv, int *i)
{
    if (*i + 1 >= argc) {
        fprintf(stderr, "%s: %s needs a value\n", program, argv[*i]);
        exit(2);
    }
    return argv[++*i];
}
