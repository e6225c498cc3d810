/* Names of keys by their position: Linux input codes, and the numbers that QEMU's monitor and VNC's
 * extended key events use (XT scan codes; 0x80 is set for those with the prefix 0xe0).
 *
 * Spec:    linux/input-event-codes.h; QEMU, qapi/ui.json, KeyValue "number".
 * Threads: any.
 */
#ifndef PV_DISPLAY_KEYCODE_H
#define PV_DISPLAY_KEYCODE_H

#include <stdint.h>

/* Linux codes that have a number are below this. */
#define PV_KEY_LIMIT 256u

/* 0: there is none. */
uint32_t pv_keycode_to_xt(uint32_t code);
uint32_t pv_keycode_from_xt(uint32_t xt);

#endif
