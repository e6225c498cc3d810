/* Inside src/vulkan: what the files of the device layer share.
 */
#ifndef PV_VULKAN_DEVICE_INTERNAL_H
#define PV_VULKAN_DEVICE_INTERNAL_H

#include "vulkan/device.h"

/* sync.c */
VkResult pv_sync_create(struct pv_sync_state **out);
void pv_sync_destroy(struct pv_sync_state *sync);

/* shadow.c: see there. Create needs timeline semaphores, and comes before the first pv_shadow_add.
 */
struct pv_gate;
VkResult pv_shadow_create(struct pv_device *device);
VkResult pv_shadow_add(struct pv_memory *memory);
void pv_shadow_remove(struct pv_memory *memory);
/* Around a submission, with the queue's lock held: what the guest wrote reaches the driver. Begin
 * returns the gate to submit with, NULL if no memory of the device is shadowed. */
struct pv_gate *pv_shadow_begin_submit(struct pv_device *device, const struct pv_queue *queue);
void pv_shadow_end_submit(struct pv_device *device);
void pv_shadow_destroy(struct pv_device *device);

#endif
