/* What device.c and requests.c share. */
#ifndef PV_TRANSPORT_VIRTIO_DEVICE_INTERNAL_H
#define PV_TRANSPORT_VIRTIO_DEVICE_INTERNAL_H

#include "transport/virtio/device.h"
#include "transport/virtio/message.h"
#include "transport/virtio/shmem.h"
#include "transport/virtio/virtqueue.h"
#include "transport/virtio/watch.h"

#define PV_VIRTIO_F_INDIRECT_DESC    (1ull << 28)
#define PV_VIRTIO_F_EVENT_IDX        (1ull << 29)
#define PV_VHOST_F_PROTOCOL_FEATURES (1ull << 30)
#define PV_VIRTIO_F_VERSION_1        (1ull << 32)
#define PV_VIRTIO_F_RING_PACKED      (1ull << 34)

#define PV_VHOST_PROTOCOL_MQ              (1ull << 0)
#define PV_VHOST_PROTOCOL_REPLY_ACK       (1ull << 3)
#define PV_VHOST_PROTOCOL_BACKEND_REQ     (1ull << 5)
#define PV_VHOST_PROTOCOL_CONFIG          (1ull << 9)
#define PV_VHOST_PROTOCOL_BACKEND_SEND_FD (1ull << 10)
#define PV_VHOST_PROTOCOL_MEM_SLOTS       (1ull << 15)
#define PV_VHOST_PROTOCOL_SHMEM           (1ull << 22)

#define PV_VHOST_QUEUE_CONTROL 0u

struct pv_vhost_queue {
    struct pv_vhost_device *device;
    unsigned int index;
    struct pv_virtqueue ring;
    struct pv_virtqueue_setup setup; /* as the frontend has said so far */
    bool has_addresses, enabled;
    struct pv_watch *kick; /* owned; NULL: none yet */
    int call_fd, err_fd;   /* owned */
    bool more;             /* its turn was over before it was empty */
};

struct pv_vhost_device {
    struct pv_vhost_device_params params;
    struct pv_guest_memory *memory; /* owned */
    struct pv_gpu *gpu;             /* owned */
    struct pv_vhost_queue queues[PV_VHOST_QUEUES];
    struct pv_vhost_queue *in_turn; /* requests of it are being handed out; NULL: of none */
    uint64_t turn_start_ns;
    uv_idle_t *idle; /* owned: runs while queues or the window have something left to do */
    struct pv_vhost_stats stats;

    /* of the frontend */
    struct pv_watch *watch; /* owned: the main channel; NULL: none */
    struct pv_vhost_channel channel;
    uint64_t offered, features, protocol_features; /* offered: ever, to this frontend */
    bool protocol_settled;      /* protocol_features is the frontend's last word */
    struct pv_backend *backend; /* owned; NULL: none */
    struct pv_vhost_shmem shmem;
    uint32_t regions_ignored; /* of the memory table: they lie in the window */
    bool config_change_due;   /* to be told when the device is started */
    struct pv_list held;      /* answers to MAP_BLOB, until the window is settled */
};

/* Look at a message and do what it says. `reply` has room for PV_VHOST_PAYLOAD_MAX bytes. Returns
 * the bytes of the reply that this request has by itself, 0 if it has none, or a negative errno
 * after a line in the log. */
int pv_vhost_handle(struct pv_vhost_device *device, struct pv_vhost_message *message,
                    uint8_t *reply);
/* A request whose answer is data and not an acknowledgement: it cannot be told of a failure. */
bool pv_vhost_has_reply(uint32_t request);
uint64_t pv_vhost_offered_features(const struct pv_vhost_device *device);

/* Take over a kick fd. */
int pv_vhost_queue_set_kick(struct pv_vhost_queue *queue, int fd);
void pv_vhost_queue_enable(struct pv_vhost_queue *queue, bool enable);
/* Forget its requests and return its base; the control queue takes GPU and window with it. */
uint32_t pv_vhost_queue_stop(struct pv_vhost_queue *queue);
/* The guest has broken it, or its memory has gone. */
void pv_vhost_queue_signal_error(struct pv_vhost_queue *queue);
/* The memory table has changed. */
void pv_vhost_remap_queues(struct pv_vhost_device *device);
/* Serve it soon: kicks may have come while it could not be. */
void pv_vhost_queue_wake(struct pv_vhost_queue *queue);
/* The window is what the VMM can map, after the protocol features were settled. */
void pv_vhost_update_window(struct pv_vhost_device *device);

#endif
