/* Inside src/vulkan: the parts of an instance that the probe needs before there are capabilities.
 */
#ifndef PV_VULKAN_INSTANCE_H
#define PV_VULKAN_INSTANCE_H

#include "vulkan/host.h"

/* An instance without physical devices; release with pv_instance_destroy(). */
VkResult pv_instance_open(const VkApplicationInfo *app_info, struct pv_instance **out);

/* The handles of all physical devices of the host, at most PV_HOST_MAX_DEVICES. */
VkResult pv_instance_enumerate(struct pv_instance *instance,
                               VkPhysicalDevice handles[PV_HOST_MAX_DEVICES], uint32_t *out_count);

/* Fill in a zeroed pv_physical; caps and params are kept as there. */
VkResult pv_physical_init(struct pv_physical *physical, struct pv_instance *instance,
                          VkPhysicalDevice handle, const struct pv_device_caps *caps,
                          const struct pv_instance_params *params);
void pv_physical_finish(struct pv_physical *physical);

/* extensions.c: fill driver_extensions, then extensions from them, caps and params. */
VkResult pv_physical_load_extensions(struct pv_physical *physical,
                                     const struct pv_instance_params *params);
bool pv_physical_driver_has(const struct pv_physical *physical, const char *name);
bool pv_physical_guest_has(const struct pv_physical *physical, const char *name);
/* The extension is served by PearVisor whether or not the driver has it. */
bool pv_extension_is_ours(const char *name);
/* External memory handle types that the guest may use and PearVisor answers for. */
#define PV_GUEST_MEMORY_HANDLES \
    (VK_EXTERNAL_MEMORY_HANDLE_TYPE_DMA_BUF_BIT_EXT | VK_EXTERNAL_MEMORY_HANDLE_TYPE_OPAQUE_FD_BIT)

#endif
