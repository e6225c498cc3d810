/* The virtio-gpu device as a vhost-user back-end: one frontend (VMM) at a time, one event loop.
 *
 *   main channel ──► requests.c: features, memory, rings, configuration     (answered at once)
 *   kick ──► virtqueue ──► pv_gpu_control / pv_gpu_cursor
 *   pv_gpu: answer ──► virtqueue ──► call
 *           map, unmap, configuration change ──► backend channel            (never waited for)
 *
 * The function that sees a kick runs the request and writes the used ring, on the same thread.
 * After PV_VHOST_TURN requests or PV_VHOST_TURN_NS the loop looks at everything else first, so that
 * a guest that floods a queue cannot keep its VMM waiting: QEMU's main channel is synchronous.
 *
 * Spec:    QEMU docs/interop/vhost-user.rst; virtio 1.3.
 * Trust:   the VMM owns the guest and is believed about its memory; what it sends is checked all
 *          the same. The rings and all in them are the guest's, which is not believed.
 * Threads: that of the loop.
 */
#ifndef PV_TRANSPORT_VIRTIO_DEVICE_H
#define PV_TRANSPORT_VIRTIO_DEVICE_H

#include "gpu/gpu.h"
#include "transport/virtio/latency.h"

#include <stdbool.h>
#include <stdint.h>

struct pv_vhost_device;

#define PV_VHOST_QUEUES 2u /* control, cursor */
/* Requests of one queue in a turn of the loop: at some µs each well below a millisecond. */
#define PV_VHOST_TURN    64u
#define PV_VHOST_TURN_NS UINT64_C(5000000) /* large transfers take long */

struct pv_vhost_device_params {
    uv_loop_t *loop; /* borrowed */
    /* The GPU to make: loop, memory, transport and transport_data are filled in here. */
    struct pv_gpu_params gpu;
    bool packed; /* offer packed rings, too */
    /* Offer memory in slots: regions added and removed one by one, up to 64. QEMU 11.1 aborts with
     * it when more than 512 blobs are mapped (PV_GPU_WINDOW_DYNAMIC); others have no table. */
    bool memory_slots;
    /* The frontend has gone; the device is as new. May attach the next. */
    void (*detached)(void *data);
    void *data;
};

struct pv_vhost_stats {
    uint64_t frontends, messages;    /* main channel */
    uint64_t kicks, requests, calls; /* of all queues */
    uint64_t refused;                /* requests too long to look at */
    struct pv_latency at_once; /* kick seen to used ring written, of requests that did not wait */
};

int pv_vhost_device_create(const struct pv_vhost_device_params *params,
                           struct pv_vhost_device **out);
/* The loop has to run once more to let go of what it watched. NULL is fine. */
void pv_vhost_device_destroy(struct pv_vhost_device *device);

/* Serve this connected socket; taken over on success. -EBUSY: there is a frontend already. */
int pv_vhost_device_attach(struct pv_vhost_device *device, int fd);
bool pv_vhost_device_attached(const struct pv_vhost_device *device);

/* Borrowed, for the control socket and statistics. */
struct pv_gpu *pv_vhost_device_gpu(struct pv_vhost_device *device);
void pv_vhost_device_get_stats(const struct pv_vhost_device *device, struct pv_vhost_stats *out);

#endif
