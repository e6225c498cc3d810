/* Inside src/vulkan: finding out what one physical device can do, by trying.
 */
#ifndef PV_VULKAN_PROBE_H
#define PV_VULKAN_PROBE_H

#include "vulkan/host.h"

/* Fill in everything. A device that fails is not usable, and says why. */
void pv_probe_device(struct pv_instance *instance, VkPhysicalDevice handle,
                     const struct pv_host_options *options, struct pv_device_caps *out);

#endif
