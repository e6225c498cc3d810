/* The syncs of one vtest client: 64-bit values that only the server knows, and waits for them.
 *
 *   SYNC_WRITE ─────────────┐                       ┌─► eventfd (wait 1) ─► client polls
 *   fence has signalled ────┴─► sync 5: value 7 ────┴─► eventfd (wait 2) ─► client polls
 *
 * A wait wakes when all, or any, of its syncs have been seen at their wanted value or above. What
 * has been seen stays seen: a value that goes down again later does not undo it.
 * Waits and pending fences keep their syncs alive, so a client may unref a sync that it still
 * waits for.
 *
 * Spec:    vtest protocol, SYNC_* and SUBMIT_CMD2.
 * Trust:   ids, values and counts come from the client; limits are below.
 * Threads: any. Fences signal from timeline threads while the session answers requests.
 */
#ifndef PV_TRANSPORT_VTEST_SYNC_H
#define PV_TRANSPORT_VTEST_SYNC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Mesa 26 makes one sync per fence and one per queue for each timeline semaphore; conformance tests
 * make thousands. 40 bytes each. */
#define PV_SYNC_MAX 262144
/* A waiting client thread blocks, so waits are as many as its threads; each holds an fd of ours. */
#define PV_SYNC_WAIT_MAX 4096
/* Fences asked for and not signalled: a client must not queue them without end behind a busy GPU.
 */
#define PV_SYNC_FENCE_MAX 65536
/* Points of all pending waits and fences together: bounds the memory behind the two limits above.
 */
#define PV_SYNC_POINT_MAX 1048576

struct pv_sync_table;

/* One entry of a wait (value: wanted) or of a fence (value: to be set). */
struct pv_sync_point {
    uint32_t id;
    uint64_t value;
};

int pv_sync_table_create(struct pv_sync_table **out);
/* Wakes nobody. No fence may signal any more. NULL is fine. */
void pv_sync_table_destroy(struct pv_sync_table *table);

/* Make the fds of all waits readable, whatever the values: the end of the client's context. A
 * client that sleeps on such an fd looks at nothing else; woken, it asks the server and finds it
 * gone. May be called from a signal handler. */
void pv_sync_table_wake_all(struct pv_sync_table *table);

/* Ids are never 0 and not reused before they are unreffed. -ENOSPC at the limit, -ENOMEM. */
int pv_sync_table_add(struct pv_sync_table *table, uint64_t value, uint32_t *out_id);
/* The rest: -ENOENT for an unknown id. */
int pv_sync_table_unref(struct pv_sync_table *table, uint32_t id);
int pv_sync_table_read(struct pv_sync_table *table, uint32_t id, uint64_t *out);
int pv_sync_table_write(struct pv_sync_table *table, uint32_t id, uint64_t value);

/* Start a wait.
 *
 * any         true: one of the points is enough
 * timeout_ms  the wait may be forgotten after that time; negative: never
 * points      read during the call only; with none of them the wait is over at once
 * out_fd      the caller's: readable when the wait is over, possibly at once
 *
 * Returns 0; -ENOENT; -ENOSPC at a limit; -ENOMEM, -EMFILE. */
int pv_sync_table_wait(struct pv_sync_table *table, bool any, int32_t timeout_ms,
                       const struct pv_sync_point *points, size_t count, int *out_fd);

/* Remember values to set when a fence signals. The cookie names it. -ENOENT, -ENOSPC, -ENOMEM. */
int pv_sync_table_fence_create(struct pv_sync_table *table, const struct pv_sync_point *points,
                               size_t count, uint64_t *out_cookie);
/* Set the values, in the order given, and forget the fence. Once for each cookie. */
void pv_sync_table_fence_signal(struct pv_sync_table *table, uint64_t cookie);
/* Forget a fence that will never signal. */
void pv_sync_table_fence_cancel(struct pv_sync_table *table, uint64_t cookie);

/* Waits not over and not expired; for tests. */
size_t pv_sync_table_wait_count(struct pv_sync_table *table);

#endif
