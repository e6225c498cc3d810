/* The Vulkan loader, opened at run time: a machine without it gets a message, not a failing start.
 *
 * Threads: any.
 */
#ifndef PV_VULKAN_LOADER_H
#define PV_VULKAN_LOADER_H

#include <vulkan/vulkan_core.h>

struct pv_loader {
    PFN_vkGetInstanceProcAddr GetInstanceProcAddr;
    PFN_vkCreateInstance CreateInstance;
    PFN_vkEnumerateInstanceVersion EnumerateInstanceVersion; /* NULL with a Vulkan 1.0 loader */
    PFN_vkEnumerateInstanceExtensionProperties EnumerateInstanceExtensionProperties;
};

/* Opened once and kept for the life of the process: drivers leave threads and exit handlers behind
 * that must not lose their code. NULL if this machine has no Vulkan loader. */
const struct pv_loader *pv_loader_get(void);

/* Take the entry points from here and open nothing: tests bring a driver of their own. Before the
 * first pv_loader_get(). */
void pv_loader_set(PFN_vkGetInstanceProcAddr get);

#endif
