/* Activity: what one context has done so far, for whoever shows it live.
 *
 *   worker: ring threads, context thread ──► struct pv_activity, shared memory ──► device: status
 *
 * Numbers only, stored one by one: each is right, together they may be a moment apart. The command
 * counter is added to once per batch, so that it costs a command nothing.
 *
 * Frames: presenting is the guest's business, so no vkQueuePresentKHR arrives. What does arrive is
 * that a queue hands an image over to somebody outside of Vulkan, a compositor or the display: a
 * barrier whose new owner is VK_QUEUE_FAMILY_FOREIGN_EXT. Mesa's Venus makes one of every
 * transition to PRESENT_SRC, and Zink of every shared image that was drawn to. A submission that
 * has such command buffers counts as one frame. Frames that the guest presents by copying them to
 * its own memory have none, and are not counted.
 *
 * Trust:   read by the device, which believes none of it: the worker may be the guest's by then.
 * Threads: any.
 */
#ifndef PV_VENUS_ACTIVITY_H
#define PV_VENUS_ACTIVITY_H

#include "util/os.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* Four seconds at 60 frames per second. */
#define PV_ACTIVITY_FRAMES 256u

struct pv_activity {
    _Atomic uint64_t commands;                  /* executed */
    _Alignas(64) _Atomic uint64_t memory_bytes; /* device memory alive */
    _Atomic uint64_t shm_bytes;                 /* shared memory that is no device memory */
    _Atomic uint64_t submissions;               /* that queues were given */
    _Atomic uint64_t frames;
    /* when they were submitted, by pv_now_ns; frame n is at n % PV_ACTIVITY_FRAMES */
    _Atomic uint64_t frame_ns[PV_ACTIVITY_FRAMES];
};

static inline void pv_activity_add_commands(struct pv_activity *activity, uint64_t count)
{
    atomic_fetch_add_explicit(&activity->commands, count, memory_order_relaxed);
}

static inline void pv_activity_add_submission(struct pv_activity *activity, bool is_frame)
{
    atomic_fetch_add_explicit(&activity->submissions, 1, memory_order_relaxed);
    if (!is_frame)
        return;
    uint64_t frame = atomic_fetch_add_explicit(&activity->frames, 1, memory_order_relaxed);
    atomic_store_explicit(&activity->frame_ns[frame % PV_ACTIVITY_FRAMES], pv_now_ns(),
                          memory_order_relaxed);
}

#endif
