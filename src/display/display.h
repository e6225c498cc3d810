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
    uint32_t x, y, width, height; /* empty: 0 wide or high */
};

static inline bool pv_rect_is_empty(const struct pv_rect *rect)
{
    return rect->width == 0 || rect->height == 0;
}

static inline bool pv_rect_contains(const struct pv_rect *outer, const struct pv_rect *inner)
{
    return inner->x >= outer->x && inner->y >= outer->y &&
           inner->x + inner->width <= outer->x + outer->width &&
           inner->y + inner->height <= outer->y + outer->height;
}

/* The smallest one that has both in it. */
static inline struct pv_rect pv_rect_union(const struct pv_rect *a, const struct pv_rect *b)
{
    if (pv_rect_is_empty(a) || pv_rect_is_empty(b))
        return pv_rect_is_empty(a) ? *b : *a;
    uint32_t left = a->x < b->x ? a->x : b->x;
    uint32_t top = a->y < b->y ? a->y : b->y;
    uint32_t a_right = a->x + a->width, b_right = b->x + b->width;
    uint32_t a_bottom = a->y + a->height, b_bottom = b->y + b->height;
    return (struct pv_rect){left, top, (a_right > b_right ? a_right : b_right) - left,
                            (a_bottom > b_bottom ? a_bottom : b_bottom) - top};
}

/* What one scanout shows: 32-bit pixels of virtio-gpu's format `format`. */
struct pv_frame {
    uint32_t scanout;
    uint32_t width, height; /* 0: the scanout is off */
    uint32_t format;        /* VIRTIO_GPU_FORMAT_* */
    uint32_t stride;        /* bytes from row to row of `pixels`, any number */
    const void *pixels; /* borrowed until the call returns; may be memory that the guest writes to
                           at any time. NULL: */
    /* Copy rows of pixels, without gaps, from memory that cannot be seen in place. 0 or a negative
     * errno. */
    int (*read)(const struct pv_frame *frame, const struct pv_rect *part, void *out);
    void *source;          /* for read() */
    struct pv_rect damage; /* inside the frame */
};

#define PV_CURSOR_SIDE 64

/* The cursor of one scanout: PV_CURSOR_SIDE² pixels of B8G8R8A8, colours multiplied by alpha, or
 * NULL when hidden. */
struct pv_cursor {
    uint32_t scanout;
    int32_t x, y; /* of its upper left corner */
    uint32_t hot_x, hot_y;
    const void *pixels; /* borrowed until the call returns */
    bool moved_only;    /* the picture is as before */
};

struct pv_display_ops {
    const char *name; /* as typed after --display */
    /* 0, or what frame->read() said. */
    int (*present)(struct pv_display *display, const struct pv_frame *frame);
    /* When the frame that was presented last has been taken, by pv_now_ns(); `now_ns` at the
     * earliest. NULL: at once. */
    uint64_t (*taken_at)(struct pv_display *display, uint32_t scanout, uint64_t now_ns);
    void (*cursor)(struct pv_display *display, const struct pv_cursor *cursor); /* may be NULL */
    /* The guest is offered this size; 0x0: the screen is unplugged. May be NULL. */
    void (*mode)(struct pv_display *display, uint32_t scanout, uint32_t width, uint32_t height);
    void (*destroy)(struct pv_display *display); /* NULL: it is its owner's */
};

/* First member of every display. */
struct pv_display {
    const struct pv_display_ops *ops;
};

static inline void pv_display_destroy(struct pv_display *display)
{
    if (display && display->ops->destroy)
        display->ops->destroy(display);
}

#endif
