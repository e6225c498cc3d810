/* What one key, one movement or one step of a wheel is, as it goes from a display to QEMU.
 *
 * Spec:    QEMU, qapi/ui.json, input-send-event.
 * Trust:   a display faces the network, so what comes from its process is looked at
 *          (pv_input_event_is_valid) before it becomes a command.
 * Threads: any.
 */
#ifndef PV_VM_INPUT_EVENT_H
#define PV_VM_INPUT_EVENT_H

#include <stdbool.h>
#include <stdint.h>

struct json_object;

/* Buttons of a pointer, as bits of a mask. */
#define PV_BUTTON_LEFT   1u
#define PV_BUTTON_MIDDLE 2u
#define PV_BUTTON_RIGHT  4u
#define PV_BUTTON_SIDE   8u
#define PV_BUTTON_EXTRA  16u
#define PV_BUTTON_COUNT  5u
#define PV_BUTTONS_ALL   ((1u << PV_BUTTON_COUNT) - 1)

/* The right and the lower edge of all screens; the others are 0. */
#define PV_INPUT_AXIS_MAX 32767u

enum pv_wheel {
    PV_WHEEL_UP,
    PV_WHEEL_DOWN,
    PV_WHEEL_LEFT,
    PV_WHEEL_RIGHT,
    PV_WHEEL_COUNT,
};

enum pv_input_kind {
    PV_INPUT_KEY = 1,
    PV_INPUT_POINTER, /* moves, perhaps with buttons */
    PV_INPUT_BUTTONS, /* where the pointer is */
    PV_INPUT_WHEEL,
};

/* Also the message between a display and `pearvisor run` (vm/input_relay.h). */
struct pv_input_event {
    uint32_t kind;
    uint32_t code;    /* key: Linux input code, one that QEMU has a name for. wheel: pv_wheel */
    uint32_t x, y;    /* pointer: up to PV_INPUT_AXIS_MAX */
    uint32_t changed; /* pointer, buttons: those that go up or down */
    uint32_t down;    /* pointer, buttons: those of `changed` that go down. key: 1 or 0 */
};

bool pv_input_event_is_valid(const struct pv_input_event *event);
/* The arguments of input-send-event for a valid event, one reference. */
struct json_object *pv_input_event_arguments(const struct pv_input_event *event);

#endif
