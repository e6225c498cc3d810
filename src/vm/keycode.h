/* Keys by their position: Linux input codes, and what QEMU's monitor and VNC's extended key events
 * call them.
 *
 * Spec:    linux/input-event-codes.h; QEMU, qapi/ui.json, QKeyCode.
 * Threads: any.
 */
#ifndef PV_VM_KEYCODE_H
#define PV_VM_KEYCODE_H

#include <stdint.h>

/* Linux codes that have a name are below this. */
#define PV_KEY_LIMIT 256u

/* QEMU's QKeyCode, NULL if it has none. */
const char *pv_keycode_name(uint32_t code);
/* From XT scan codes, with 0x80 set in those that have the prefix 0xe0. 0: there is no such key. */
uint32_t pv_keycode_from_xt(uint32_t xt);

#endif
