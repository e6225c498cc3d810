/* What the device shows, for other processes: the pictures in shared memory, and a socket that says
 * what has changed.
 *
 *   pearvisor gpu ── PICTURE (with an fd), FRAME, CURSOR, MODE ──► pearvisor view
 *   (publisher.h)  ◄────────── TAKEN, SIZE ──────────── (viewer.h)
 *
 * The device copies what a flush has damaged into the shared picture and tells every viewer that is
 * not busy with a frame still; damage of frames that a viewer missed is added up. So a slow viewer
 * skips frames and never slows the guest or another viewer.
 *
 * A picture may change while it is read. Its `sequence` is odd meanwhile; a reader copies the
 * damage, and does so again if the number has changed (pv_viewer_take).
 *
 * Damage is what differs, not what the guest says: a frame that is like the one before is not sent.
 *
 * Trust:   the device takes nothing from a viewer but TAKEN and SIZE, checks both, and cuts off who
 *          sends anything else; a viewer could only spoil the pictures of other viewers. A viewer
 *          trusts the device.
 */
#ifndef PV_DISPLAY_SCREEN_H
#define PV_DISPLAY_SCREEN_H

#include "display/display.h"

#include <stdatomic.h>
#include <stdint.h>

#define PV_SCREEN_VERSION 1u

enum pv_screen_type {
    /* device to viewer */
    PV_SCREEN_MODE = 1, /* scanout; width, height: the size that the guest is offered, 0 if the
                           screen is unplugged. The first messages of a connection are one MODE for
                           each scanout, with `count` scanouts in all */
    PV_SCREEN_PICTURE,  /* scanout, width, height, and an fd with the message's first byte: struct
                           pv_screen_picture. All of it is new; a FRAME of all of it follows, whether
                           or not the FRAME before was answered. Width 0, without an fd: the guest
                           has switched the scanout off (blank) */
    PV_SCREEN_FRAME,  /* scanout, serial, damage, time_ns. Answered by TAKEN: until then there is no
                         other FRAME of that scanout, but for a new PICTURE's */
    PV_SCREEN_CURSOR, /* scanout, x, y (of its hot spot, may be outside), hot_x, hot_y; flags
                         PV_SCREEN_VISIBLE, PV_SCREEN_IMAGE: payload is PV_CURSOR_SIDE² pixels of
                         B8G8R8A8, colours multiplied by alpha */
    /* viewer to device */
    PV_SCREEN_TAKEN = 64, /* scanout, serial: the viewer is ready for the next frame. One for a
                             frame before the last does nothing */
    PV_SCREEN_SIZE,       /* scanout, width, height: the viewer would like this size, of
                             PV_SCREEN_SIDE_MIN … PV_SCREEN_SIDE_MAX; others do nothing */
};

#define PV_SCREEN_SIDE_MIN 64u
#define PV_SCREEN_SIDE_MAX 8192u

#define PV_SCREEN_VISIBLE 1u
#define PV_SCREEN_IMAGE   2u

/* One message; a payload of payload_size bytes follows. Native byte order: both ends are on one
 * machine. */
struct pv_screen_message {
    uint32_t type;
    uint32_t payload_size;
    uint32_t scanout, count;
    uint32_t width, height;
    uint32_t flags;
    int32_t x, y;
    uint32_t hot_x, hot_y;
    struct pv_rect damage;
    uint64_t serial;
    uint64_t time_ns; /* pv_now_ns() when the guest's flush arrived (the oldest one of the frame) */
};

#define PV_SCREEN_PAYLOAD_MAX (PV_CURSOR_SIDE * PV_CURSOR_SIDE * 4u)

/* Start of the shared memory of a picture. Pixels are B8G8R8X8, X undefined, in rows of `stride`
 * bytes, from `offset` on, which is a multiple of 64 KiB. */
struct pv_screen_picture {
    atomic_uint_least32_t sequence; /* odd: being written */
    uint32_t width, height, stride, offset;
};

#define PV_SCREEN_PIXELS_OFFSET (64u << 10)

#endif
