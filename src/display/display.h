/* Where a scanout goes: an interface with one implementation per kind of display.
 *
 * The device calls present() when the guest has flushed a scanout. A display that needs longer than
 * a copy keeps the pixels and does the rest on a thread of its own: a slow viewer never slows the
 * guest.
 *
 * Threads: the ops are called on the device's event loop.
 */
#ifndef PV_DISPLAY_DISPLAY_H
#define PV_DISPLAY_DISPLAY_H

#include <stdbool.h>
#include <stdint.h>

struct pv_display;

struct pv_rect {
    uint32_t x, y, width, height;
};

/* Pixels of one scanout: 32 bits each, rows `stride` bytes apart, as virtio-gpu format `format`. */
struct pv_frame {
    uint32_t scanout;
    uint32_t width, height, stride;
    uint32_t format;    /* VIRTIO_GPU_FORMAT_* */
    const void *pixels; /* borrowed until the call returns; NULL: the scanout is off. May be memory
                           that the guest writes to at any time */
    struct pv_rect damage;
};

#define PV_CURSOR_SIDE 64

/* The cursor of one scanout: PV_CURSOR_SIDE² pixels of B8G8R8A8, or NULL when hidden. */
struct pv_cursor {
    uint32_t scanout;
    int32_t x, y;
    uint32_t hot_x, hot_y;
    const void *pixels; /* borrowed until the call returns */
    bool moved_only;    /* the picture is as before */
};

struct pv_display_ops {
    const char *name; /* as typed after --display */
    void (*present)(struct pv_display *display, const struct pv_frame *frame);
    void (*cursor)(struct pv_display *display, const struct pv_cursor *cursor); /* may be NULL */
    void (*destroy)(struct pv_display *display);
};

/* First member of every display. */
struct pv_display {
    const struct pv_display_ops *ops;
};

static inline void pv_display_destroy(struct pv_display *display)
{
    if (display)
        display->ops->destroy(display);
}

#endif
