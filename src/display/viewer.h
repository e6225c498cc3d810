/* The viewer's end of the device's screens (screen.h): a connection, a private copy of what each
 * scanout shows, and input for the guest.
 *
 *   struct pv_viewer_events { … changed, cursor, mode, lost … }   ◄── pv_viewer ──► control socket,
 *   a display (vnc.h, web.h, window.h) calls pv_input_…                             screen socket
 *
 * Threads: all on the thread of the event loop.
 */
#ifndef PV_DISPLAY_VIEWER_H
#define PV_DISPLAY_VIEWER_H

#include "display/display.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct json_object;
struct pv_viewer;
typedef struct uv_loop_s uv_loop_t;

#define PV_VIEWER_SCANOUTS_MAX 16u

/* A screen as it is now. Pixels are private to this process and stay until the next
 * pv_viewer_take. */
struct pv_view {
    bool plugged;                 /* the guest has such a screen */
    uint32_t offered_width, offered_height;
    uint32_t width, height;       /* of the picture; 0: blank */
    uint32_t stride;              /* bytes */
    const uint8_t *pixels;        /* B8G8R8X8 */
    bool cursor_visible;
    int32_t cursor_x, cursor_y;   /* of the hot spot */
    uint32_t hot_x, hot_y;
    uint8_t cursor[PV_CURSOR_SIDE * PV_CURSOR_SIDE * 4]; /* B8G8R8A8 */
    uint64_t frame_time_ns;       /* when the guest flushed the frame that was taken last */
};

struct pv_viewer_events {
    /* There is a new frame: call pv_viewer_take when there is time for it. */
    void (*frame)(void *data, uint32_t scanout);
    /* The picture has a new size, is blank or no longer so: all of the view is new. */
    void (*resized)(void *data, uint32_t scanout);
    /* The cursor has moved, or (image) looks different. */
    void (*cursor)(void *data, uint32_t scanout, bool image);
    /* The screen was plugged or unplugged, or is offered in another size. */
    void (*mode)(void *data, uint32_t scanout);
    /* The device has gone. No more events. */
    void (*lost)(void *data);
};

struct pv_viewer_params {
    uv_loop_t *loop;          /* borrowed */
    const char *control_path; /* the device's control socket; or NULL and */
    int control_fd;           /* one that is connected already, taken over on success */
    const struct pv_viewer_events *events; /* borrowed */
    void *data;
};

/* Connect and ask for the screens; returns at once. -errno if there is nobody at the socket, with
 * one line in the log. */
int pv_viewer_create(const struct pv_viewer_params *params, struct pv_viewer **out);
void pv_viewer_destroy(struct pv_viewer *viewer);

uint32_t pv_viewer_scanout_count(const struct pv_viewer *viewer); /* 0: not known yet */
const struct pv_view *pv_viewer_get(const struct pv_viewer *viewer, uint32_t scanout);

/* Copy what has changed into the view, and let the device go on. Returns false if nothing has;
 * `damage` is what changed. */
bool pv_viewer_take(struct pv_viewer *viewer, uint32_t scanout, struct pv_rect *damage);

/* Ask the guest to change a screen's size; it may or may not follow. */
void pv_viewer_ask_size(struct pv_viewer *viewer, uint32_t scanout, uint32_t width,
                        uint32_t height);

/* Where a screen is among all of the guest's, which are taken to be side by side in their order:
 * the guest's pointer device spans them all (pv_input_pointer). */
struct pv_place {
    uint32_t x, total_width, total_height;
};
void pv_viewer_place(const struct pv_viewer *viewer, uint32_t scanout, struct pv_place *out);

/* The device's status (control.h), once a second at most: `got` is called with the object
 * (borrowed), or NULL when it has gone. While one request is on its way others are left out. */
void pv_viewer_ask_status(struct pv_viewer *viewer,
                          void (*got)(void *data, struct json_object *status), void *data);

#endif
