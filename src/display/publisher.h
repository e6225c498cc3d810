/* The device's end of its screens: a pv_display that puts what it is shown into shared memory, for
 * any number of viewers (screen.h).
 *
 * Frames are paced: each scanout has a clock of its refresh rate. A flush that comes when nothing
 * was shown since the last tick is shown at once; what else is flushed before the next tick is added
 * up and shown then, or counted as dropped if all of it was drawn over. pv_publisher_next_tick says when the
 * device is to answer a fenced flush, so that a guest that waits for its page flips runs at the
 * refresh rate.
 *
 * Without viewers nothing is copied.
 *
 * Threads: all on the device's event loop. Nothing here blocks.
 */
#ifndef PV_DISPLAY_PUBLISHER_H
#define PV_DISPLAY_PUBLISHER_H

#include "display/display.h"

#include <stddef.h>

struct pv_publisher;
typedef struct uv_loop_s uv_loop_t;

#define PV_PUBLISHER_VIEWERS_MAX 16u

struct pv_publisher_params {
    uv_loop_t *loop; /* borrowed */
    uint32_t scanout_count;
    uint32_t refresh_mhz; /* 0: 60000 */
    /* A viewer asks for a size of a scanout that exists; checked no further. */
    void (*size_wanted)(void *data, uint32_t scanout, uint32_t width, uint32_t height);
    /* The whole scanout is to be shown again (present, damage everything): somebody has begun to
     * look. */
    void (*refresh_wanted)(void *data, uint32_t scanout);
    void *data;
};

/* Figures of one scanout since the last call of pv_publisher_take_stats by `frames` etc. */
struct pv_publisher_stats {
    uint64_t frames;   /* flushes that changed the picture, as the guest made them */
    uint64_t shown;    /* of them, those that got to viewers; equal to frames without viewers */
    uint64_t dropped;  /* drawn over before the next tick */
    uint32_t viewers;
    /* between frames of the guest, over the last 256 or fewer */
    uint64_t median_ns, p99_ns;
};

int pv_publisher_create(const struct pv_publisher_params *params, struct pv_publisher **out);
/* To be given to the device as its display; destroyed by pv_publisher_destroy. */
struct pv_display *pv_publisher_display(struct pv_publisher *publisher);
/* Ends all viewers' connections. The memory goes when the loop has run once more. NULL is fine. */
void pv_publisher_destroy(struct pv_publisher *publisher);

/* One more viewer, at `fd`, one end of a stream socket pair, taken over on success. It is told of
 * everything there is. -EUSERS when there are too many; -ENOMEM. */
int pv_publisher_add_viewer(struct pv_publisher *publisher, int fd);
/* The size that the guest is offered has changed; 0: unplugged. */
void pv_publisher_set_mode(struct pv_publisher *publisher, uint32_t scanout, uint32_t width,
                           uint32_t height);
/* When the frame that was flushed last has been taken: now at the latest, by pv_now_ns(). */
uint64_t pv_publisher_next_tick(struct pv_publisher *publisher, uint32_t scanout, uint64_t now_ns);

void pv_publisher_get_stats(const struct pv_publisher *publisher, uint32_t scanout,
                            struct pv_publisher_stats *out);

#endif
