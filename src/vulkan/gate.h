/* Inside src/vulkan: gates in a queue that hold the GPU back until shadow memory has been copied.
 *
 * A guest learns that work is done from a fence or semaphore, from another queue's, or from a word
 * in memory that a command buffer of Mesa's writes and the guest polls ("feedback"). However it
 * learns of it, the results must be in its memory by then. So after each command buffer there is a
 * gate: the GPU goes on to whatever comes next only when what it wrote has been copied.
 *
 *   guest's waits ─► commands ─► [2n-1] copy [2n] ─► commands ─► [..] copy [..] ─► guest's signals
 *                              by the    by the
 *                               GPU   shadow thread      values of one timeline semaphore a queue
 *
 * Threads: submit with the queue's lock held; is_waiting and open on the shadow thread; any mix.
 */
#ifndef PV_VULKAN_GATE_H
#define PV_VULKAN_GATE_H

#include "vulkan/device.h"

struct pv_gate {
    VkSemaphore timeline;
    atomic_uint_fast64_t placed; /* gates put into the queue so far */
    uint64_t opened;             /* of these; the shadow thread's */
};

VkResult pv_gate_init(struct pv_device *device, struct pv_gate *gate);
void pv_gate_finish(struct pv_device *device, struct pv_gate *gate);

/* As the Vulkan commands, with gates. Chains are put back; arrays are not touched. */
VkResult pv_gate_submit(struct pv_device *device, struct pv_gate *gate, VkQueue queue,
                        uint32_t count, VkSubmitInfo *submits, VkFence fence);
VkResult pv_gate_submit2(struct pv_device *device, struct pv_gate *gate, VkQueue queue,
                         uint32_t count, VkSubmitInfo2 *submits, VkFence fence);

/* The queue has a gate that is not open yet. */
bool pv_gate_is_closed(const struct pv_gate *gate);
/* The GPU stands in front of one. */
bool pv_gate_is_waiting(struct pv_device *device, const struct pv_gate *gate);
/* Let it go on. Only if it waits. */
void pv_gate_open(struct pv_device *device, struct pv_gate *gate);

#endif
