/* Keys by their position: SDL's scan codes (those of USB keyboards) as Linux input codes.
 *
 * Spec:    USB HID Usage Tables, page 0x07; linux/input-event-codes.h.
 * Threads: any.
 */
#ifndef PV_VIEW_SCANCODE_H
#define PV_VIEW_SCANCODE_H

#include <stdint.h>

/* 0: there is none. */
uint32_t pv_scancode_to_key(uint32_t scancode);

#endif
