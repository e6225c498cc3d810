/* Timelines: fences that a front door asks for, by ring_idx.
 *
 * ring_idx 0 is the CPU timeline: its fences signal at once. The others are bound to one queue each,
 * by vkGetDeviceQueue2 with VkDeviceQueueTimelineInfoMESA; a fence there is an empty submission with
 * a host fence, waited for by the timeline's thread. Fences of one timeline signal in order; a lost
 * device signals them all the same.
 *
 * Threads: bind and unbind on any stream's thread, fence on the context thread; each timeline has a
 *          lock and, once used, a thread.
 */
#ifndef PV_VENUS_TIMELINE_H
#define PV_VENUS_TIMELINE_H

#include <stdint.h>

struct pv_device;
struct pv_queue;
struct pv_timelines;

struct pv_timelines_params {
    void (*signalled)(void *data, uint32_t ring_idx, uint64_t cookie);
    void *data;
};

int pv_timelines_create(const struct pv_timelines_params *params, struct pv_timelines **out);
/* Waits for what was submitted, then for the threads. NULL is fine. */
void pv_timelines_destroy(struct pv_timelines *timelines);

/* Bind a queue. 0, -EINVAL (ring_idx 0 or too large), -EBUSY (bound already). */
int pv_timelines_bind(struct pv_timelines *timelines, uint32_t ring_idx, struct pv_device *device,
                      struct pv_queue *queue);
/* The device is about to go: signal what is pending on its queues and unbind them. */
void pv_timelines_unbind(struct pv_timelines *timelines, struct pv_device *device);

/* Ask for a fence. 0, -EINVAL if ring_idx is not bound, -ENOMEM, -EAGAIN. */
int pv_timelines_fence(struct pv_timelines *timelines, uint32_t ring_idx, uint64_t cookie);

#endif
