/* Command ring: a queue in memory shared with the guest. The guest writes commands and moves the
 * tail; our ring thread copies them out, runs them in order and moves the head.
 *
 *   buffer   [ done ....... | pending ======> | free ....... ]
 *                           head              tail      free-running byte counters, masked on use
 *
 * When nothing comes for the guest's idle timeout the thread sets IDLE and sleeps; the guest then
 * sends vkNotifyRingMESA. Before that it polls: first
 * spinning, then with short sleeps.
 *
 * Spec:    VK_MESA_venus_protocol, VkRingCreateInfoMESA.
 * Trust:   guest-facing; every shared byte may change while we look at it.
 * Threads: create, finish, stop and destroy on the context thread; progress, replied and stopping
 * on the ring's own thread; the rest on any.
 */
#ifndef PV_VENUS_RING_H
#define PV_VENUS_RING_H

#include "venus/dispatch.h"
#include "venus/protocol.h"

/* Mesa's main ring has 128 KiB. */
#define PV_RING_BUFFER_MAX (16u * 1024u * 1024u)

#define PV_RING_STATUS_IDLE  1u
#define PV_RING_STATUS_FATAL 2u
#define PV_RING_STATUS_ALIVE 4u

struct pv_context;
struct pv_ring;

/* Check the layout and start a ring with its thread.
 *
 * id    the guest's name for it
 * info  read during the call only
 * why   on -EINVAL: what is wrong with the layout
 *
 * Returns 0, -EINVAL, -ENOMEM, -EAGAIN if no thread starts. */
int pv_ring_create(struct pv_context *ctx, uint64_t id, const VkRingCreateInfoMESA *info,
                   struct pv_ring **out, const char **why);

/* End the thread: finish runs first what the guest had written, stop drops it. Waits that block are
 * cut short either way. Both may be called twice. */
void pv_ring_finish(struct pv_ring *ring);
void pv_ring_stop(struct pv_ring *ring);

/* Stop, let go of the shared memory and free. NULL is fine. */
void pv_ring_destroy(struct pv_ring *ring);

uint64_t pv_ring_id(const struct pv_ring *ring);
struct pv_stream *pv_ring_stream(struct pv_ring *ring);
_Atomic uint32_t *pv_ring_status_word(struct pv_ring *ring);
bool pv_ring_monitored(const struct pv_ring *ring);

/* vkNotifyRingMESA: wake the thread; harmless when it is awake. Context thread. */
void pv_ring_notify(struct pv_ring *ring);
/* The guest has just sent something to the front door: if the ring is idle and its tail has moved,
 * run what it holds on this thread. pv_ring_settle, after the guest's message has been handled,
 * wakes the ring's own thread for what follows. Both on the context thread. */
void pv_ring_assist(struct pv_ring *ring);
void pv_ring_settle(struct pv_ring *ring);
/* Set status bits. */
void pv_ring_set_status(struct pv_ring *ring, uint32_t bits);

/* vkWriteRingExtraMESA. -EINVAL if outside. */
int pv_ring_write_extra(struct pv_ring *ring, size_t offset, uint32_t value);

/* vkWaitRingSeqnoMESA: block until the head has reached `seqno`. 0; -EINVAL if the guest has not
 * written that far, so that it never will; -ECANCELED if the context stops first. */
int pv_ring_wait_seqno(struct pv_ring *ring, uint32_t seqno);

/* vkSubmitVirtqueueSeqnoMESA and, on the ring's own thread, vkWaitVirtqueueSeqnoMESA. */
void pv_ring_set_virtqueue_seqno(struct pv_ring *ring, uint64_t seqno);
int pv_ring_wait_virtqueue_seqno(struct pv_ring *ring, uint64_t seqno);

/* Told by the stream before a command that may block: what came before is done, and others may wait
 * for just that. */
void pv_ring_publish(struct pv_ring *ring, size_t done);
/* Told by the stream: `done` bytes of the batch have been executed; a reply was written. */
void pv_ring_progress(struct pv_ring *ring, size_t done);
void pv_ring_replied(struct pv_ring *ring);
bool pv_ring_stopping(const struct pv_ring *ring);

/* The context is going away or has failed: cut all waits short. */
void pv_ring_interrupt(struct pv_ring *ring);

#endif
