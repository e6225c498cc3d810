/* The inside of a context, for the files of src/venus only.
 *
 * Locks, in the order in which they may be taken: ctx->lock, ring->lock, timeline->lock. None is
 * held while a driver is called, except a queue's own.
 */
#ifndef PV_VENUS_CONTEXT_INTERNAL_H
#define PV_VENUS_CONTEXT_INTERNAL_H

#include "venus/activity.h"
#include "venus/context.h"
#include "venus/dispatch.h"
#include "venus/resource.h"
#include "vulkan/device.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

/* One main ring, and one per application thread that creates pipelines. */
#define PV_CONTEXT_RINGS_MAX 256

struct pv_ring;
struct pv_timelines;

struct pv_context {
    struct pv_context_params params; /* name is ours */
    char name[64];
    struct pv_objects *objects;
    struct pv_resources *resources;
    struct pv_timelines *timelines;
    struct pv_stream stream; /* the context stream; context thread only */
    atomic_bool failed;
    atomic_bool stopping;
    char reason[256]; /* why it failed; written once, before failed is set */

    pthread_mutex_t lock; /* for rings and the monitor */
    struct pv_ring *rings[PV_CONTEXT_RINGS_MAX];
    unsigned ring_count; /* slots ever used */
    /* A context has one instance, and it stays with all devices ever made until the context goes:
     * rings run side by side, and one may still read what another destroys. */
    atomic_bool instance_made, instance_gone;
    struct pv_instance *instance;
    struct pv_object *instance_object;
    _Atomic(struct pv_device *) devices; /* the newest; linked by older */
    /* held while device memory is exported or freed: blobs are made on the context thread, memory
     * is freed on any */
    pthread_mutex_t memory_lock;

    struct pv_activity *activity; /* what was given, or our own */
    struct pv_activity own_activity;

    pthread_t monitor;
    pthread_cond_t monitor_wake;
    bool monitor_running, monitor_stop;
    uint64_t monitor_period_ns;

    /* what rings that are gone had counted; under lock */
    struct pv_context_stats past;
    /* status words of the rings, for pv_context_poison */
    _Atomic(_Atomic uint32_t *) status_words[PV_CONTEXT_RINGS_MAX];
    uint64_t trimmed_ns; /* when the heap was; context thread only */
};

/* The context has failed. Any thread; the first caller's reason counts. */
void pv_context_fail(struct pv_context *ctx, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
static inline bool pv_context_failed(struct pv_context *ctx)
{
    return atomic_load_explicit(&ctx->failed, memory_order_acquire);
}

/* True when nobody will ever look at the results: waits on the context thread end. */
bool pv_context_abandoned(struct pv_context *ctx);

/* Monitor this ring: ALIVE is set at least once per period. Starts the monitor thread. */
int pv_context_monitor(struct pv_context *ctx, uint64_t period_ns);

/* Find a ring by the guest's id; context thread only (rings come and go there). */
struct pv_ring *pv_context_find_ring(struct pv_context *ctx, uint64_t id);
int pv_context_add_ring(struct pv_context *ctx, struct pv_ring *ring);
void pv_context_remove_ring(struct pv_context *ctx, struct pv_ring *ring);

/* For pv_object_gone: the device's children are gone already. */
void pv_context_destroy_device(struct pv_object *object, uint64_t handle);

/* Destroy everything that the guest made, once. */
void pv_context_destroy_instance(struct pv_context *ctx);
/* Free what remains of the instance and its devices; nobody looks any more. */
void pv_context_free_instance(struct pv_context *ctx);

#endif
