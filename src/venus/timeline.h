/* Timelines: fences that a front door asks for, by ring_idx.
 *
 * ring_idx 0 is the CPU timeline: its fences signal at once. The others are bound to one queue
 * each, by vkGetDeviceQueue2 with VkDeviceQueueTimelineInfoMESA. Once fences are asked for on a
 * timeline, each submission to its queue that has no fence of its own gets one of ours, and a fence
 * that is asked for after it needs no submission more. Fences of one timeline signal in order; a
 * lost device signals them all the same.
 *
 * Most submissions are done within microseconds, sooner than a waiting thread wakes up. So the
 * context thread looks at new fences itself for a moment (pv_timelines_poll) and hands those that
 * take longer to the timeline's thread (pv_timelines_arm).
 *
 * Threads: fence, poll and arm on the context thread; the rest on any stream's. Each timeline has
 *          locks and, once used, a thread.
 */
#ifndef PV_VENUS_TIMELINE_H
#define PV_VENUS_TIMELINE_H

#include "vulkan/device.h"

#include <stdbool.h>
#include <stdint.h>

struct fence;
struct timeline;
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

/* A submission of the guest, between begin and end, which must follow soon. */
struct pv_submission {
    struct timeline *timeline;
    struct fence *ours;
    VkFence fence; /* to submit with: the guest's, or one of ours, or null */
};
struct pv_submission pv_timelines_begin_submission(struct pv_timelines *timelines,
                                                   struct pv_queue *queue, VkFence fence);
void pv_timelines_end_submission(const struct pv_submission *submission, VkResult result);

/* Ask for a fence. The caller then polls, and arms before it sleeps. 0, -EINVAL if ring_idx is not
 * bound, -ENOMEM, -EAGAIN. */
int pv_timelines_fence(struct pv_timelines *timelines, uint32_t ring_idx, uint64_t cookie);

/* Signal the fences that are done. Returns true while some are pending that no thread waits for. */
bool pv_timelines_poll(struct pv_timelines *timelines);
/* Let the threads wait for those. */
void pv_timelines_arm(struct pv_timelines *timelines);

#endif
