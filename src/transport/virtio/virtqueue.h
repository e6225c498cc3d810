/* The device's side of one virtqueue, split or packed: requests out of guest memory, answers into
 * it.
 *
 *   driver: descriptors ──► pop: request copied to a private buffer, room for the answer noted
 *                           push, in any order: answer copied, descriptors given back
 *                           must_signal: does the driver want an interrupt for that?
 *
 * A ring that makes no sense (a chain that loops, a descriptor outside memory) stops: the reason is
 * logged once, pop returns -EPROTO until the queue is started again, and pushes go nowhere.
 *
 * Units:   ring indices in entries; guest addresses (descriptors) and the VMM's addresses (rings)
 *          in bytes.
 * Spec:    virtio 1.3, sections 2.7 (split) and 2.8 (packed).
 * Trust:   everything in the ring may change while we look; each word is read once.
 * Threads: one; the driver on its processors is the partner of all atomics.
 */
#ifndef PV_TRANSPORT_VIRTIO_VIRTQUEUE_H
#define PV_TRANSPORT_VIRTIO_VIRTQUEUE_H

#include "util/list.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct pv_guest_memory;
struct pv_virtqueue;

/* Entries of a ring (specification). */
#define PV_VIRTQUEUE_SIZE_MAX 32768u
/* Entries of an indirect table. A chain there may be longer than the ring by the habit of drivers,
 * though not by the specification. */
#define PV_VIRTQUEUE_INDIRECT_MAX 32768u
/* First bytes of a request that stay at hand until it is answered: a virtio-gpu header. */
#define PV_VIRTQUEUE_HEADER_SIZE 24u

struct pv_virtqueue_range {
    uint64_t gpa;
    uint32_t size;
};

/* A request that has been taken and not answered. The queue owns it. */
struct pv_virtqueue_element {
    struct pv_list link;
    struct pv_virtqueue *queue;
    const void *request; /* until the next pop; NULL: longer than params.request_max, or no memory
                            for it: only the header is there */
    uint64_t request_size;
    uint32_t copied;                          /* bytes of it that are in the queue's buffer */
    uint8_t header[PV_VIRTQUEUE_HEADER_SIZE]; /* zeros after a shorter request */
    uint32_t room_size;                       /* for the answer, at most params.response_max */
    /* of the virtqueue */
    uint16_t id, slots;
    struct pv_virtqueue_range *room;
    uint32_t range_count, range_capacity;
};

struct pv_virtqueue_params {
    struct pv_guest_memory *memory; /* borrowed */
    const char *name;               /* for messages; borrowed */
    uint32_t request_max;           /* bytes */
    uint32_t response_max;          /* bytes; room beyond it is not looked at */
};

/* What the driver has set up. */
struct pv_virtqueue_setup {
    uint32_t size; /* entries */
    /* the VMM's addresses: descriptor table, avail ring, used ring; or packed: ring, event areas */
    uint64_t desc, driver, device;
    bool packed, event_idx, indirect; /* negotiated */
    uint32_t base; /* split: avail index; packed: avail 0-14, its wrap 15, used 16-30, wrap 31 */
};

struct pv_virtqueue {
    struct pv_virtqueue_params params;
    struct pv_virtqueue_setup setup;
    bool started, broken;
    bool lost;                    /* its rings are not in guest memory (any more) */
    void *desc, *driver, *device; /* in guest memory; NULL when not started */
    uint16_t avail, used;         /* split: free-running; packed: 0 … size - 1 */
    bool avail_wrap, used_wrap;   /* packed only */
    bool always_signal;           /* nothing has been signalled since the start */
    uint16_t unsignalled;         /* ring entries given back since must_signal was asked */
    uint32_t slots_taken;         /* ring entries of the elements below */
    struct pv_list in_flight;     /* elements, oldest first */
    struct pv_list spare;         /* elements for reuse */
    uint8_t *request;             /* owned; grows to the longest request */
    size_t request_capacity;
    uint8_t *table; /* owned: an indirect table, copied */
    size_t table_capacity;
};

void pv_virtqueue_init(struct pv_virtqueue *queue, const struct pv_virtqueue_params *params);
void pv_virtqueue_finish(struct pv_virtqueue *queue);

/* Begin at setup->base. Returns 0; -EINVAL: size 0, too large, or (split) no power of two; a base
 * beyond the ring; addresses not aligned; -EFAULT: rings outside guest memory. Logged. */
int pv_virtqueue_start(struct pv_virtqueue *queue, const struct pv_virtqueue_setup *setup);
/* Forget the elements in flight; returns the base to go on from. */
uint32_t pv_virtqueue_stop(struct pv_virtqueue *queue);
/* The memory table has changed, or (`addresses`, else NULL) the rings have moved within the VMM's
 * addresses: look them up again. -EFAULT when they are not there: then the queue is lost, and rests
 * until another call finds them. */
int pv_virtqueue_remap(struct pv_virtqueue *queue, const struct pv_virtqueue_setup *addresses);

/* The next request. Returns 1; 0 if there is none, and then the driver will kick; -EPROTO when the
 * queue is broken (now or before). */
int pv_virtqueue_pop(struct pv_virtqueue *queue, struct pv_virtqueue_element **out);
/* Answer a request: what does not fit its room is cut. The element is gone. */
void pv_virtqueue_push(struct pv_virtqueue_element *element, const void *response, size_t size);
/* To be asked after a push or several: true if the driver wants to be interrupted for them. */
bool pv_virtqueue_must_signal(struct pv_virtqueue *queue);

#endif
