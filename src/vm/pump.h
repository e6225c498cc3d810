/* Bytes from one fd to another, by a thread that may block, so that the event loop need not.
 *
 *   our standard input  ──pump──► the guest's port or console
 *   the guest's port or console ──pump──► our standard output or error
 *
 * Standard streams belong to whoever started us: they are not made non-blocking (that would change
 * them for everybody who has them), may be regular files, and may be read slowly.
 *
 * Threads: create and destroy on the loop's thread, where the events come, too.
 */
#ifndef PV_VM_PUMP_H
#define PV_VM_PUMP_H

#include <stdbool.h>
#include <stddef.h>

struct pv_pump;
typedef struct uv_loop_s uv_loop_t;

/* Longest mark. */
#define PV_PUMP_MARK_MAX 64u

enum pv_pump_event {
    PV_PUMP_END,    /* the input is over, or the mark has come; all before it is written */
    PV_PUMP_ESCAPE, /* the escape byte was read; the pump goes on */
    PV_PUMP_BROKEN, /* the output cannot be written any more (its reader has gone) */
};

struct pv_pump_params {
    int from; /* borrowed, as `to`, until the pump is destroyed */
    int to;   /* -1: nowhere */
    /* These bytes end the stream, and are not passed on. The first must not occur again among the
     * rest. NULL: only the end of `from` does. */
    const char *mark;
    char escape;       /* reported and not passed on; 0: none */
    bool close_at_end; /* `to` is a socket: its reader is told of the end */
    size_t tail_size;  /* keep so many of the last bytes; 0: none */
    void (*event)(void *data, enum pv_pump_event event);
    void *data;
};

/* Returns 0 or a negative errno. */
int pv_pump_create(uv_loop_t *loop, const struct pv_pump_params *params, struct pv_pump **out);
/* Stop at once; what was not written is lost. The memory goes when the loop has run once more. */
void pv_pump_destroy(struct pv_pump *pump); /* NULL is fine */

/* The last bytes that came, and a 0; `out` has room for tail_size + 1. Returns how many. */
size_t pv_pump_tail(struct pv_pump *pump, char *out);

#endif
