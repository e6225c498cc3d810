/* A tree of byte intervals [start, end), which may overlap: who is in the way of this range, and
 * which interval is the first that is long enough?
 *
 * Shape:   a treap inside the structs that it orders (by start, then address), each node knowing
 * the largest end and the largest length below it. All operations take O(log n) steps. Threads: one
 * at a time.
 */
#ifndef PV_GPU_INTERVALS_H
#define PV_GPU_INTERVALS_H

#include <stdbool.h>
#include <stdint.h>

struct pv_interval {
    uint64_t start, end; /* fixed while in the tree; start < end */
    uint64_t max_end, max_size;
    uint64_t priority;
    struct pv_interval *left, *right;
};

struct pv_intervals {
    struct pv_interval *root;
    uint64_t random;
};

void pv_intervals_init(struct pv_intervals *tree);
void pv_intervals_insert(struct pv_intervals *tree, struct pv_interval *node);
/* `node` is in the tree. */
void pv_intervals_remove(struct pv_intervals *tree, struct pv_interval *node);

/* The interval with the lowest start among those that overlap [start, end), or NULL. */
struct pv_interval *pv_intervals_first(const struct pv_intervals *tree, uint64_t start,
                                       uint64_t end);
/* The lowest interval of at least `size` bytes, or NULL. */
struct pv_interval *pv_intervals_fit(const struct pv_intervals *tree, uint64_t size);
/* Call `visit` for every interval that overlaps [start, end) until it returns true; returns whether
 * it did. The tree stays as it is meanwhile. */
bool pv_intervals_visit(const struct pv_intervals *tree, uint64_t start, uint64_t end,
                        bool (*visit)(struct pv_interval *node, void *data), void *data);

#endif
