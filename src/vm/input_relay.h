/* Keyboard and pointer of one display, on their way through `pearvisor run` to QEMU. The monitor
 * can do anything with a machine; a display, which strangers talk to, gets keys and pointer only.
 *
 *   pearvisor view ── struct pv_input_event ──► relay ── input-send-event ──► QEMU's monitor
 *                  ◄── one byte: the next ────        ◄── its answer ────────
 *
 * One event at a time is read and handed on, so a QEMU that is slow or stuck makes the display
 * wait, and nothing here grows. A display that sends what is no event is not listened to any more.
 * When it ends, in whatever way, what it holds is let go.
 *
 * Trust:   the display's side.
 * Threads: that of the event loop.
 */
#ifndef PV_VM_INPUT_RELAY_H
#define PV_VM_INPUT_RELAY_H

#include "vm/qmp.h"

struct pv_input_relay;

/* `fd`: a connected stream, taken over, also on failure. `qmp` is borrowed, and destroyed after
 * the relay. */
int pv_input_relay_create(uv_loop_t *loop, int fd, struct pv_qmp *qmp, struct pv_input_relay **out);
/* The memory goes when the loop has run once more and `qmp` has been destroyed. NULL is fine. */
void pv_input_relay_destroy(struct pv_input_relay *relay);

#endif
