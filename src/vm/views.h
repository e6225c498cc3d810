/* The displays of a virtual machine: a `pearvisor view` process for each.
 *
 *   pearvisor run ── fork, exec ──► pearvisor view KIND ──┬── control ──► pearvisor gpu: the screen
 *                  ◄── its lines (ready, troubles) ──     │
 *                  ◄── keyboard, pointer: input_relay.h ──┘
 *
 * Both connections are socket pairs; the device inherits its end of the first. A display that ends,
 * for whatever reason, takes nothing with it.
 *
 * Threads: that of the event loop.
 */
#ifndef PV_VM_VIEWS_H
#define PV_VM_VIEWS_H

#include "vm/argv.h"

#include <stdbool.h>
#include <stddef.h>

struct pv_qmp;
struct pv_views;
typedef struct uv_loop_s uv_loop_t;

#define PV_VIEWS_MAX 8u

struct pv_views_params {
    uv_loop_t *loop;
    /* What each is to show on, as `pearvisor view` takes it: "vnc:5901", "window"; at most
     * PV_VIEWS_MAX. Borrowed, as the next one. */
    const struct pv_argv *kinds;
    const struct pv_argv *options; /* for all of them */
    /* A view says something. */
    void (*line)(void *data, const char *line);
    /* A view has ended, from pv_views_reap(). Not called after pv_views_stop. */
    void (*ended)(void *data, const char *kind, int wait_status);
    void *data;
};

/* Make the connections. Returns 0 or a negative errno. */
int pv_views_create(const struct pv_views_params *params, struct pv_views **out);
/* The memory goes when the loop has run once more and `qmp` has been destroyed. The processes must
 * have ended. NULL is fine, here and below: no displays. */
void pv_views_destroy(struct pv_views *views);

size_t pv_views_count(const struct pv_views *views);
/* The ends that the device inherits, and closing them here once it has started. */
int pv_views_device_fd(const struct pv_views *views, size_t index);
void pv_views_close_device_fds(struct pv_views *views);

/* Start the processes. `qmp` gets what is typed; borrowed, and destroyed after the views. `show`:
 * called with each command line before, or NULL. Returns 0 or a negative errno; some may run even
 * then. */
int pv_views_start(struct pv_views *views, struct pv_qmp *qmp,
                   void (*show)(const struct pv_argv *argv));
/* After SIGCHLD. */
void pv_views_reap(struct pv_views *views);
/* Send them a signal; from now on nobody is told of their ends. */
void pv_views_stop(struct pv_views *views, int signal_number);
/* How many run. */
size_t pv_views_running(const struct pv_views *views);

#endif
