/* The device's end of its screens: a pv_display that puts what it is shown into shared memory, for
 * any number of viewers (screen.h).
 *
 * Frames are paced. Each has a tick, at which it counts as taken: when it was flushed, or a refresh
 * period after the tick of the frame before, whichever is later.
 *
 *   flush      a        b  c   d                            e
 *   time   ────┼────────┼──┼───┼───┼───────────┼───────────┼┼──────────►
 *   tick       a                   b           d            e
 *   shown      a        b          d                        e      c: drawn over
 *
 * It is shown (viewers are told) one tick ahead at most: at the tick of the frame before, or at
 * once if that has passed. So a guest that waits for its page flips (taken_at) runs at the refresh
 * rate and its frames are shown without delay; a slower guest runs as fast as it can; and one that
 * does not wait is shown at the refresh rate.
 *
 * Without viewers nothing is copied. An unchanged screen costs nothing.
 *
 * Threads: all on the device's event loop. Nothing here blocks.
 */
#ifndef PV_DISPLAY_PUBLISHER_H
#define PV_DISPLAY_PUBLISHER_H

#include "display/display.h"

#include <stdint.h>

struct pv_publisher;
typedef struct uv_loop_s uv_loop_t;

#define PV_PUBLISHER_VIEWERS_MAX  16u
#define PV_PUBLISHER_SCANOUTS_MAX 16u
/* Shared memory of all pictures. What goes beyond is blank to viewers. */
#define PV_PUBLISHER_BYTES_MAX (UINT64_C(1) << 30)

struct pv_publisher_params {
    uv_loop_t *loop; /* borrowed */
    uint32_t scanout_count;
    uint32_t refresh_mhz; /* 0: 60000 */
    /* A viewer asks for a size (of PV_SCREEN_SIDE_MIN … MAX) of a scanout that exists. */
    void (*size_wanted)(void *data, uint32_t scanout, uint32_t width, uint32_t height);
    /* Somebody has begun to look at a scanout that is on: present all of it, during the call. */
    void (*refresh_wanted)(void *data, uint32_t scanout);
    void *data;
};

/* Figures of one scanout. A flush is a frame. */
struct pv_publisher_stats {
    uint64_t frames;
    uint64_t shown;   /* of them, those of which something was seen at their tick */
    uint64_t dropped; /* drawn over before; the difference is still to be shown */
    uint32_t viewers;
    double fps; /* over the last second */
    /* Between frames, over the last 256 or fewer; a pause of a second or more is none. 0: none. */
    uint64_t median_ns, p99_ns;
};

int pv_publisher_create(const struct pv_publisher_params *params, struct pv_publisher **out);
/* To be given to the device as its display; its owner destroys it as publisher. */
struct pv_display *pv_publisher_display(struct pv_publisher *publisher);
/* Ends all viewers' connections. The memory goes when the loop has run once more. NULL is fine. */
void pv_publisher_destroy(struct pv_publisher *publisher);

/* One more viewer, at `fd`, one end of a stream socket pair, taken over on success. It is told of
 * everything there is. -EUSERS when there are too many; -ENOMEM. */
int pv_publisher_add_viewer(struct pv_publisher *publisher, int fd);

/* Zeroes for a scanout that does not exist. */
void pv_publisher_get_stats(const struct pv_publisher *publisher, uint32_t scanout,
                            struct pv_publisher_stats *out);

#endif
