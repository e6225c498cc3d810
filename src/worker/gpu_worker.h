/* The worker of one context of a virtual GPU: the far end of a link, with a Venus context behind
 * it.
 *
 *   device ── link ──► context thread ──► pv_context ── rings, timelines ──► driver
 *          ◄──────────────── fences, released resources, failure ──┘
 *
 * A context that has failed, or could not be made, is still answered for: fences signal, resources
 * are forgotten, so that the device never waits in vain. The worker ends when the link closes.
 *
 * Trust:   what is inside a message is the guest's and hostile; the device itself is not.
 * Threads: the caller of pv_gpu_worker_run is the context thread; the rest as it says.
 */
#ifndef PV_WORKER_GPU_WORKER_H
#define PV_WORKER_GPU_WORKER_H

#include <stdint.h>
#include <sys/types.h>

struct pv_gpu_worker;
struct pv_host_caps;

struct pv_gpu_worker_params {
    int link_fd;     /* taken over by create on success */
    int arena_fd;    /* borrowed; -1: this device has none */
    int activity_fd; /* of a struct pv_activity; borrowed until create returns; -1: none */
    uint32_t ctx_id;
    const char *name;                /* the guest program's; borrowed */
    const struct pv_host_caps *caps; /* borrowed, must outlive the worker */
    int device_index;                /* see struct pv_context_params */
};

int pv_gpu_worker_create(const struct pv_gpu_worker_params *params, struct pv_gpu_worker **out);
/* Frees everything of the guest; may wait for the GPU. NULL is fine. */
void pv_gpu_worker_destroy(struct pv_gpu_worker *worker);

/* Serve until the link closes. Returns 0 when the device has closed it, -EPROTO when it sent
 * nonsense, -ENOMEM. */
int pv_gpu_worker_run(struct pv_gpu_worker *worker);

/* End run soon. Any thread, and from a signal handler. */
void pv_gpu_worker_stop(struct pv_gpu_worker *worker);
/* The process is dying: the guest's rings show FATAL. Signal handler. */
void pv_gpu_worker_poison(struct pv_gpu_worker *worker);

/* Exit status of the process: 0 after the link was closed, else this, so that it is not taken for
 * that of a driver or a sanitizer that called exit(). */
#define PV_GPU_WORKER_FAILED 16

/* Be the worker. Called in a child of `parent`, right after fork(), with all signals blocked. */
__attribute__((noreturn)) void pv_gpu_worker_main(const struct pv_gpu_worker_params *params,
                                                  pid_t parent);

#endif
