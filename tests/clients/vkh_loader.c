#include "vkh_loader.h"

#include <dlfcn.h>
#include <stddef.h>

#define VKH_DEFINE(name) PFN_##name name;
VKH_GLOBAL_FUNCTIONS(VKH_DEFINE)
VKH_INSTANCE_FUNCTIONS(VKH_DEFINE)
VKH_DEVICE_FUNCTIONS(VKH_DEFINE)
#undef VKH_DEFINE

static PFN_vkGetInstanceProcAddr get_instance_proc;

const char *vkh_loader_open(void)
{
    if (get_instance_proc)
        return NULL;
    void *library = dlopen("libvulkan.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!library)
        return "there is no libvulkan.so.1 (Debian: libvulkan1)";
    void *symbol = dlsym(library, "vkGetInstanceProcAddr");
    if (!symbol)
        return "libvulkan.so.1 has no vkGetInstanceProcAddr";
    get_instance_proc = __extension__(PFN_vkGetInstanceProcAddr) symbol;
#define VKH_LOAD(name) name = (PFN_##name)get_instance_proc(NULL, #name);
    VKH_GLOBAL_FUNCTIONS(VKH_LOAD)
#undef VKH_LOAD
    return NULL;
}

void vkh_loader_instance(VkInstance instance)
{
#define VKH_LOAD(name) name = (PFN_##name)get_instance_proc(instance, #name);
    VKH_INSTANCE_FUNCTIONS(VKH_LOAD)
#undef VKH_LOAD
}

void vkh_loader_device(VkDevice device)
{
#define VKH_LOAD(name) name = (PFN_##name)vkGetDeviceProcAddr(device, #name);
    VKH_DEVICE_FUNCTIONS(VKH_LOAD)
#undef VKH_LOAD
}
