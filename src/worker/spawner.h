/* Starts the workers of a device: a process of its own, forked while the device was still young.
 *
 *   device ── "start", socket ──► spawner ── fork ──► worker ◄── link ── device
 *          ◄── "ended", status ──────┘ (waits for its children)
 *
 * The device maps guest memory and may run threads; a fork of it would hand both to every worker.
 * The spawner has nothing: no guest memory, no threads, no driver. It ends with the device, and its
 * workers end with it.
 *
 * Trust:   nothing of the guest reaches it but a context's name.
 * Threads: all functions on the thread of the event loop.
 */
#ifndef PV_WORKER_SPAWNER_H
#define PV_WORKER_SPAWNER_H

#include "vulkan/host.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct pv_spawner;
typedef struct uv_loop_s uv_loop_t;

struct pv_spawner_params {
    const struct pv_host_caps *caps; /* copied by the fork */
    int device_index;                /* see struct pv_context_params */
};

/* Fork it. Call before there are threads, an event loop or guest memory. */
int pv_spawner_create(const struct pv_spawner_params *params, struct pv_spawner **out);
/* Ends all workers and the spawner, waits for it: 3 s if a worker does not listen. A loop that
 * watched it must run once more before it is closed. NULL is fine. */
void pv_spawner_destroy(struct pv_spawner *spawner);

/* Begin to report on this loop. Callbacks may destroy the spawner. `started` gives the pid (0: it
 * could not be forked, and no `ended` follows); `ended` the wait status. Both name the worker by
 * the caller's `id`. `lost`: the spawner itself has died, with all workers. */
struct pv_spawner_events {
    void (*started)(void *data, uint64_t id, pid_t pid);
    void (*ended)(void *data, uint64_t id, int wait_status);
    void (*lost)(void *data);
};
int pv_spawner_watch(struct pv_spawner *spawner, uv_loop_t *loop,
                     const struct pv_spawner_events *events, void *data);

/* What a worker is given: borrowed, and duplicated by sending. */
struct pv_spawner_fds {
    int link;     /* its end */
    int activity; /* where it counts (venus/activity.h); -1: nowhere */
    int arena;    /* -1: this device has none */
};
/* Start a worker for a context. `id` is never used twice. Returns 0, -EPIPE, or -ENOBUFS. */
int pv_spawner_start(struct pv_spawner *spawner, uint64_t id, uint32_t ctx_id, const char *name,
                     const struct pv_spawner_fds *fds);
/* The device has closed the link: the worker should end by itself, and is killed after `grace_ms`
 * (0: at once). */
void pv_spawner_end(struct pv_spawner *spawner, uint64_t id, uint32_t grace_ms);

#endif
