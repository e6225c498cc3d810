/* A picture in memory that is shared with viewers: struct pv_screen_picture and its pixels.
 *
 * Trust:   viewers may write to it. What they write is compared and overwritten, never believed.
 * Threads: one.
 */
#ifndef PV_DISPLAY_PICTURE_H
#define PV_DISPLAY_PICTURE_H

#include "display/display.h"

#include <stdint.h>

struct pv_picture;

/* Black, so to say: all zeroes. -ENOMEM, -EMFILE. */
int pv_picture_create(uint32_t width, uint32_t height, struct pv_picture **out);
/* Viewers that have it mapped keep it. NULL is fine. */
void pv_picture_destroy(struct pv_picture *picture);
/* Bytes of shared memory that such a picture takes. */
uint64_t pv_picture_size(uint32_t width, uint32_t height);
/* Borrowed. */
int pv_picture_fd(const struct pv_picture *picture);

/* Take over the damage of a frame of the same size. `changed` is what differs from before, empty if
 * nothing does. 0; what frame->read() said; -EINVAL for a format that there is not. */
int pv_picture_update(struct pv_picture *picture, const struct pv_frame *frame,
                      struct pv_rect *changed);

#endif
