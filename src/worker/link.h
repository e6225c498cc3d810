/* The socket between the device and the worker of one guest context: plain messages, sometimes with
 * an fd and a payload.
 *
 * A guest's commands travel in the ring that both map; what goes over the link is what has to be
 * ordered with the control queue.
 *
 *   device ── SUBMIT, FENCE, CREATE_BLOB, IMPORT, FORGET, PING ──► worker
 *          ◄── FENCE_DONE, BLOB_DONE, FORGOTTEN, RING, FAILED, PONG ──
 *
 * Trust:   the worker does not trust what is inside a message (it is the guest's), the device does
 *          not trust a worker at all: it may have been taken over by its guest process.
 * Threads: pv_link_send from any thread of the owner; receive on one.
 */
#ifndef PV_WORKER_LINK_H
#define PV_WORKER_LINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum pv_link_type {
    /* device to worker */
    PV_LINK_SUBMIT = 1,  /* payload: commands of the context stream */
    PV_LINK_FENCE,       /* ring_idx, cookie: FENCE_DONE when all before it is done */
    PV_LINK_CREATE_BLOB, /* res_id, blob_id, size, flags; in the arena at `offset`, answered by
                            BLOB_DONE if it is shared memory (blob_id 0), or PV_LINK_OWN_MEMORY:
                            answered by BLOB_DONE with an fd */
    PV_LINK_IMPORT,      /* res_id, size: a resource of another context, in the arena at `offset`,
                            or (PV_LINK_OWN_MEMORY) behind the fd of this message; `result` negative
                            and no fd: its memory could not be made */
    PV_LINK_FORGET, /* res_id, offset as it was made with: FORGOTTEN when nothing of this worker
                       uses its memory */
    PV_LINK_PING,   /* cookie: answered by PONG on the context thread */
    /* worker to device */
    PV_LINK_FENCE_DONE = 64, /* ring_idx, cookie */
    PV_LINK_BLOB_DONE,       /* res_id, result; on success with an fd, unless in the arena */
    PV_LINK_FORGOTTEN,       /* res_id and offset of FORGET; for each one, but in any order */
    PV_LINK_RING,            /* res_id, offset of the ring's status word in it; flags 1: made,
                                0: about to go. A device whose worker dies sets FATAL there */
    PV_LINK_FAILED,          /* payload: one line, why the context has failed */
    PV_LINK_PONG,            /* cookie */
};

/* `offset` of blobs whose memory is not in the arena. */
#define PV_LINK_OWN_MEMORY UINT64_MAX
/* Longest payload. */
#define PV_LINK_PAYLOAD_MAX (16u << 20)

struct pv_link_message {
    uint32_t type;
    uint32_t payload_size; /* bytes that follow */
    uint32_t res_id, ring_idx;
    uint32_t flags; /* PV_BLOB_* or as said above */
    int32_t result; /* 0 or a negative errno */
    uint64_t cookie, blob_id, size, offset;
};

struct pv_link;

/* Takes over `fd`, one end of a stream socketpair. `blocking`: receive waits and send waits for
 * room (worker); else both return at once and send keeps what does not fit (device). */
int pv_link_create(int fd, bool blocking, struct pv_link **out);
void pv_link_destroy(struct pv_link *link);
int pv_link_fd(const struct pv_link *link);

/* Send a message; `fd` (borrowed; -1: none) goes with it. Returns 0; -EPIPE when the other side has
 * gone; -ENOBUFS when more than `PV_LINK_BACKLOG_MAX` bytes wait already (device only); -ENOMEM. */
#define PV_LINK_BACKLOG_MAX (64u << 20)
int pv_link_send(struct pv_link *link, const struct pv_link_message *message, const void *payload,
                 int fd);
/* Bytes that wait because the socket was full, and trying again when it is writable: 0 or -EPIPE.
 */
size_t pv_link_backlog(struct pv_link *link);
int pv_link_flush(struct pv_link *link);

/* The next message. `payload` is borrowed until the next call; `fd` is the caller's, -1 if none
 * came. Returns 1; 0 if none is there yet (device); -EPIPE at the end; -EPROTO for nonsense;
 * -ENOMEM. No more can be received after an error. */
int pv_link_receive(struct pv_link *link, struct pv_link_message *out, const void **payload,
                    int *fd);
/* The same, without waiting on either side. */
int pv_link_try_receive(struct pv_link *link, struct pv_link_message *out, const void **payload,
                        int *fd);

#endif
