/* The guest's cursor as VNC clients draw it: pixels that are there or not.
 *
 * Threads: any; pv_vnc_cursor_set that of the screen.
 */
#ifndef PV_DISPLAY_VNC_CURSOR_H
#define PV_DISPLAY_VNC_CURSOR_H

#include "display/display.h"

#include <stdbool.h>
#include <stdint.h>

struct _rfbScreenInfo;
struct pv_view;

struct pv_vnc_cursor {
    uint32_t width, height; /* of what can be seen; 0: nothing */
    uint32_t hot_x, hot_y;
    uint8_t pixels[PV_CURSOR_SIDE * PV_CURSOR_SIDE * 4]; /* B8G8R8A8 as in the view, rows without
                                                            gaps; the rest is 0 */
};

void pv_vnc_cursor_make(const struct pv_view *view, struct pv_vnc_cursor *out);
bool pv_vnc_cursor_equal(const struct pv_vnc_cursor *a, const struct pv_vnc_cursor *b);
/* Without memory for it the cursor stays what it is. */
void pv_vnc_cursor_set(struct _rfbScreenInfo *screen, const struct pv_vnc_cursor *cursor);

#endif
