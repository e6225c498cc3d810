/* The window: guest-visible memory that the VMM maps for us.
 *
 *   driver starts ──► SHMEM_MAP (whole arena) ──► answer ──► barrier ──► settled: the guest may use
 * it driver stops  ──► all mappings are gone, answers that still come are dropped
 *
 * QEMU answers SHMEM_MAP before the mapping is live, and SHMEM_UNMAP before it is gone. The barrier
 * is a request that QEMU cannot reach before that: removing a shared object that does not exist,
 * which it answers by 1.
 *
 * With PV_GPU_WINDOW_DYNAMIC the same is done for each blob, when the GPU asks.
 *
 * Threads: that of the loop.
 */
#ifndef PV_TRANSPORT_VIRTIO_SHMEM_H
#define PV_TRANSPORT_VIRTIO_SHMEM_H

#include "gpu/gpu.h"
#include "util/list.h"

#include <stdbool.h>
#include <stdint.h>

struct pv_backend;

struct pv_vhost_shmem_params {
    struct pv_gpu *gpu; /* borrowed */
    enum pv_gpu_window kind;
    uint64_t size;
    /* What the guest has mapped is there from now on, or (the GPU knows) never will be. Not called
     * inside of a function of this module but pv_vhost_shmem_start. */
    void (*settled)(void *data);
    /* Call pv_vhost_shmem_run_deferred soon, from the event loop. */
    void (*defer)(void *data);
    void *data;
};

struct pv_vhost_shmem {
    struct pv_vhost_shmem_params params;
    struct pv_backend *backend; /* borrowed while started; NULL: the VMM cannot map */
    bool started, is_settled, refused;
    uint32_t stale_count;   /* mappings of an earlier start whose answers are still to come */
    struct pv_list entries; /* of maps and unmaps under way, and of live mappings */
};

void pv_vhost_shmem_init(struct pv_vhost_shmem *shmem, const struct pv_vhost_shmem_params *params);
/* Frees what is left. No answer may come any more: destroy the backend first. */
void pv_vhost_shmem_finish(struct pv_vhost_shmem *shmem);

/* The driver has started the device; `backend` is NULL if the VMM cannot map. */
void pv_vhost_shmem_start(struct pv_vhost_shmem *shmem, struct pv_backend *backend);
/* It has stopped it. */
void pv_vhost_shmem_stop(struct pv_vhost_shmem *shmem);
/* Until then no MAP_BLOB may be answered. */
bool pv_vhost_shmem_settled(const struct pv_vhost_shmem *shmem);

/* The VMM cannot map, or did not want to. */
bool pv_vhost_shmem_refused(const struct pv_vhost_shmem *shmem);

/* See struct pv_gpu_transport. */
void pv_vhost_shmem_map(struct pv_vhost_shmem *shmem, uint64_t offset, uint64_t size, int fd,
                        uint64_t fd_offset, uint64_t token);
void pv_vhost_shmem_unmap(struct pv_vhost_shmem *shmem, uint64_t offset, uint64_t size,
                          uint64_t token);
/* Returns false when nothing is left to do. */
bool pv_vhost_shmem_run_deferred(struct pv_vhost_shmem *shmem);

/* `fd` is of a file that lies in the window: what the VMM shares there is no memory of the guest.
 */
bool pv_vhost_shmem_owns(const struct pv_vhost_shmem *shmem, int fd);

#endif
