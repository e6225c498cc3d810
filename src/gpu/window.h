/* The arena: the memory behind the window that a guest maps, and who has which part of it.
 *
 *   0                        size                       2·size
 *   │ what the guest can map   │ blobs that nobody maps    │      one sparse memfd
 *   │ it chooses the offsets   │ we do                     │
 *
 * A range is *live* from claim or place to release. Workers *hold* it: they have been told of it
 * and may read and write it, whatever else they have promised. After the release it is *draining*
 * until the last hold is dropped. Then its pages go back to the host, so that a range reads as
 * zeros when it is claimed again.
 *
 * Live ranges never overlap. The lower half is the guest's to lay out: it may claim what is still
 * draining, if nobody but the same owner holds it (its own stale memory); else it has to wait.
 *
 * Ownership: an owner is any pointer that stays unique while it has holds.
 * Threads:   one at a time.
 */
#ifndef PV_GPU_WINDOW_H
#define PV_GPU_WINDOW_H

#include "gpu/intervals.h"
#include "util/list.h"

#include <stdbool.h>
#include <stdint.h>

struct pv_window;
typedef struct uv_loop_s uv_loop_t;

struct pv_window_range {
    struct pv_interval interval; /* offsets in the arena; first */
    bool live;
    struct pv_list holds; /* of struct pv_window_hold */
};

struct pv_window_hold {
    struct pv_list range_node;
    struct pv_window_range *range; /* valid until the hold is dropped */
    void *owner;
};

/* `size` of the part that the guest can map, a power of two. With `memory` the arena is made and
 * mapped, else only accounted for (each blob brings its own memory then). */
int pv_window_create(uint64_t size, bool memory, struct pv_window **out);
/* Ranges and holds mean nothing after it. NULL is fine. */
void pv_window_destroy(struct pv_window *window);

/* Give large ranges back on another thread of `loop` (borrowed), so that the caller does not wait.
 * `freed` is called on the loop whenever one has become free, and a claim may be tried again. */
void pv_window_use_loop(struct pv_window *window, uv_loop_t *loop, void (*freed)(void *data),
                        void *data);

/* -1 and NULL without memory. */
int pv_window_fd(const struct pv_window *window);
/* The arena, all 2 * size bytes. */
void *pv_window_map(const struct pv_window *window);
/* Bytes of the lower half that are live. */
uint64_t pv_window_mapped(const struct pv_window *window);

/* Make [offset, offset + size) of the lower half live for `owner`. Both are multiples of the page.
 * Returns 0; -EINVAL (outside, not aligned, empty); -EEXIST: overlaps a live range; -EBUSY:
 * somebody else holds a part, or it is still being given back: try again after a hold was dropped
 * or `freed` was called; -ENOMEM. */
int pv_window_claim(struct pv_window *window, void *owner, uint64_t offset, uint64_t size,
                    struct pv_window_range **out);
/* Call `found` for the owner of every hold that makes pv_window_claim say -EBUSY. */
void pv_window_blockers(struct pv_window *window, void *owner, uint64_t offset, uint64_t size,
                        void (*found)(void *blocker, void *data), void *data);
/* A live range of `size` bytes (a multiple of the page) somewhere in the upper half. -ENOSPC. */
int pv_window_place(struct pv_window *window, uint64_t size, struct pv_window_range **out);
/* No longer live. `range` is not to be used any more. */
void pv_window_release(struct pv_window *window, struct pv_window_range *range);

/* `owner` is about to be told of a live range. The caller owns `hold` and keeps it until the drop.
 */
void pv_window_hold(struct pv_window_range *range, void *owner, struct pv_window_hold *hold);
/* It has forgotten the range, or is no more. */
void pv_window_drop(struct pv_window *window, struct pv_window_hold *hold);

#endif
