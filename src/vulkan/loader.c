#include "vulkan/loader.h"

#include "util/log.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>

#define PV_LOG_MODULE "vulkan"

static pthread_once_t loader_once = PTHREAD_ONCE_INIT;
static struct pv_loader loader;
static bool loader_found;
static PFN_vkGetInstanceProcAddr given; /* by pv_loader_set */

static void *open_library(void)
{
    static const char *const names[] = {
#ifdef __APPLE__
        "libvulkan.1.dylib",
        "libMoltenVK.dylib",
#else
        "libvulkan.so.1",
        "libvulkan.so",
#endif
    };
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        void *library = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
        if (library)
            return library;
        pv_debug("%s", dlerror());
    }
    return NULL;
}

static PFN_vkGetInstanceProcAddr open_loader(void)
{
    /* Implicit layers (overlays, device choosers) are for programs with a window. Here they cost
     * start-up time and would be one more thing between the guest and the driver. */
    setenv("VK_LOADER_LAYERS_DISABLE", "~implicit~", 0);
    setenv("NODEVICE_SELECT", "1", 0); /* the same for Mesa's layer with an older loader */

    void *library = open_library();
    PFN_vkGetInstanceProcAddr get = NULL;
    if (library)
        *(void **)&get = dlsym(library, "vkGetInstanceProcAddr");
    return get;
}

static void load(void)
{
    PFN_vkGetInstanceProcAddr get = given ? given : open_loader();
    if (!get)
        return;
    loader.GetInstanceProcAddr = get;
    loader.CreateInstance = (PFN_vkCreateInstance)get(NULL, "vkCreateInstance");
    loader.EnumerateInstanceVersion =
        (PFN_vkEnumerateInstanceVersion)get(NULL, "vkEnumerateInstanceVersion");
    loader.EnumerateInstanceExtensionProperties = (PFN_vkEnumerateInstanceExtensionProperties)get(
        NULL, "vkEnumerateInstanceExtensionProperties");
    loader_found = loader.CreateInstance && loader.EnumerateInstanceExtensionProperties;
}

const struct pv_loader *pv_loader_get(void)
{
    pthread_once(&loader_once, load);
    return loader_found ? &loader : NULL;
}

void pv_loader_set(PFN_vkGetInstanceProcAddr get)
{
    given = get;
}
