/* vhost-user messages on a Unix stream socket: both channels, both directions.
 *
 *   u32 request | u32 flags | u32 size | payload        little-endian, fds on the first byte
 *
 * Nothing here waits: what has arrived of a message is kept until the rest comes, and what the
 * socket does not take is kept until there is room.
 *
 * Spec:    QEMU docs/interop/vhost-user.rst.
 * Trust:   a frontend may send anything; a message that is too long or has too many fds ends the
 *          connection.
 * Threads: one.
 */
#ifndef PV_TRANSPORT_VIRTIO_MESSAGE_H
#define PV_TRANSPORT_VIRTIO_MESSAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The longest known is the answer to GET_SHMEM_CONFIG, 2056 bytes. */
#define PV_VHOST_PAYLOAD_MAX 4096u
/* A memory table has 8 regions with an fd each; no message carries more. */
#define PV_VHOST_FDS_MAX 8u
/* Answers that wait for a frontend that does not read them. */
#define PV_VHOST_UNSENT_MAX (16u << 10)

enum pv_vhost_request {
    PV_VHOST_GET_FEATURES = 1,
    PV_VHOST_SET_FEATURES = 2,
    PV_VHOST_SET_OWNER = 3,
    PV_VHOST_RESET_OWNER = 4,
    PV_VHOST_SET_MEM_TABLE = 5,
    PV_VHOST_SET_LOG_BASE = 6,
    PV_VHOST_SET_LOG_FD = 7,
    PV_VHOST_SET_VRING_NUM = 8,
    PV_VHOST_SET_VRING_ADDR = 9,
    PV_VHOST_SET_VRING_BASE = 10,
    PV_VHOST_GET_VRING_BASE = 11,
    PV_VHOST_SET_VRING_KICK = 12,
    PV_VHOST_SET_VRING_CALL = 13,
    PV_VHOST_SET_VRING_ERR = 14,
    PV_VHOST_GET_PROTOCOL_FEATURES = 15,
    PV_VHOST_SET_PROTOCOL_FEATURES = 16,
    PV_VHOST_GET_QUEUE_NUM = 17,
    PV_VHOST_SET_VRING_ENABLE = 18,
    PV_VHOST_SET_BACKEND_REQ_FD = 21,
    PV_VHOST_GET_CONFIG = 24,
    PV_VHOST_SET_CONFIG = 25,
    PV_VHOST_RESET_DEVICE = 34,
    PV_VHOST_GET_MAX_MEM_SLOTS = 36,
    PV_VHOST_ADD_MEM_REG = 37,
    PV_VHOST_REM_MEM_REG = 38,
    PV_VHOST_GET_SHMEM_CONFIG = 44,
};

/* On the backend channel, from us. */
enum pv_vhost_backend_request {
    PV_VHOST_BACKEND_CONFIG_CHANGE = 2,
    PV_VHOST_BACKEND_SHARED_OBJECT_REMOVE = 7,
    PV_VHOST_BACKEND_SHMEM_MAP = 9,
    PV_VHOST_BACKEND_SHMEM_UNMAP = 10,
};

#define PV_VHOST_FLAG_REPLY      0x4u
#define PV_VHOST_FLAG_NEED_REPLY 0x8u

struct pv_vhost_message {
    uint32_t request, flags, size;
    _Alignas(8) uint8_t payload[PV_VHOST_PAYLOAD_MAX];
    int fds[PV_VHOST_FDS_MAX]; /* take one with pv_vhost_take_fd(); the rest is closed */
    size_t fd_count;
};

struct pv_vhost_channel {
    int fd; /* borrowed */
    struct pv_vhost_message in;
    size_t received; /* of header and payload */
    uint8_t unsent[PV_VHOST_UNSENT_MAX];
    size_t unsent_size;
};

void pv_vhost_channel_init(struct pv_vhost_channel *channel, int fd);
/* Closes the fds of a message that came in part. */
void pv_vhost_channel_finish(struct pv_vhost_channel *channel);

/* The next message, valid until the next call. Returns 1; 0 if it is not all there yet; -EPIPE at
 * the end of the stream; -EPROTO for what is no message of version 1, after a line in the log; or
 * what the socket said. */
int pv_vhost_receive(struct pv_vhost_channel *channel, struct pv_vhost_message **out);
/* The i-th fd, the caller's from now on; -1 if there is none. */
int pv_vhost_take_fd(struct pv_vhost_message *message, size_t i);

/* Send a message, `fd` (borrowed; -1: none) with it. What the socket does not take waits for
 * pv_vhost_flush(). Returns 0; -EAGAIN, only with an fd: the socket is full, nothing was sent;
 * -ENOBUFS beyond PV_VHOST_UNSENT_MAX; -EPIPE and the like. */
int pv_vhost_send(struct pv_vhost_channel *channel, uint32_t request, uint32_t flags,
                  const void *payload, size_t size, int fd);
/* Bytes wait for the socket to be writable. */
static inline bool pv_vhost_must_flush(const struct pv_vhost_channel *channel)
{
    return channel->unsent_size > 0;
}
int pv_vhost_flush(struct pv_vhost_channel *channel);

#endif
