/* The eight 32-bit pixel formats of virtio-gpu: which byte in memory is which channel.
 *
 * Threads: any.
 */
#ifndef PV_DISPLAY_PIXEL_H
#define PV_DISPLAY_PIXEL_H

#include <stdbool.h>
#include <stdint.h>

#define PV_PIXEL_SIZE 4u

struct pv_pixel_layout {
    uint8_t red, green, blue, alpha; /* byte of the pixel */
    bool has_alpha;                  /* else that byte means nothing */
};

/* false: not one of the eight. */
bool pv_pixel_layout(uint32_t format, struct pv_pixel_layout *out);

#endif
