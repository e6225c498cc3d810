/* Keyboard and pointer of the guest, which are virtio-input devices of QEMU: events go through its
 * monitor (QMP, input-send-event), or to `pearvisor run`, which hands on nothing else
 * (vm/input_relay.h).
 *
 * What a display has pressed is remembered, and let go when that display loses the focus or ends:
 * no key of the guest's gets stuck.
 *
 * Threads: all on the thread of the event loop. Nothing here blocks; moves that QEMU has not taken
 * yet are replaced by newer ones, and everything else keeps its order.
 */
#ifndef PV_DISPLAY_INPUT_H
#define PV_DISPLAY_INPUT_H

#include "vm/input_event.h"

#include <stdbool.h>
#include <stdint.h>

struct pv_input;
typedef struct uv_loop_s uv_loop_t;

struct pv_input_params {
    uv_loop_t *loop;      /* borrowed */
    const char *qmp_path; /* QEMU's monitor socket; or NULL and */
    int relay_fd; /* a connection to `pearvisor run`, taken over on success; -1 with no path:
                     there is no input, and everything below does nothing */
};

int pv_input_create(const struct pv_input_params *params, struct pv_input **out);
/* Lets go of all keys and buttons first. NULL is fine. */
void pv_input_destroy(struct pv_input *input);

/* A key, by its Linux input code (KEY_A …, linux/input-event-codes.h). Presses of what is pressed
 * already are auto-repeat, which the guest does by itself: they are left out. */
void pv_input_key(struct pv_input *input, uint32_t code, bool down);
/* Where the pointer is, in pixels of a screen, and which buttons (PV_BUTTON_…) are down. `x_total`,
 * `y_total`: size of all screens together, in which (x, y) is. */
void pv_input_pointer(struct pv_input *input, uint32_t x, uint32_t y, uint32_t x_total,
                      uint32_t y_total, uint32_t buttons);
/* Steps of the wheel: down and right are positive. */
void pv_input_wheel(struct pv_input *input, int32_t steps_x, int32_t steps_y);
/* Let go of these buttons, where the pointer is. */
void pv_input_release_buttons(struct pv_input *input, uint32_t buttons);
/* The guest's caps lock is on, as far as is known: it was off at first, and nobody but this display
 * presses its key. */
bool pv_input_caps_lock(const struct pv_input *input);
/* Let go of everything that is pressed: the display has lost the focus. */
void pv_input_release_all(struct pv_input *input);

#endif
