/* EDID: how a scanout describes itself to the guest.
 *
 * Shape:   the 128-byte base block (EDID 1.4); modes that its timing descriptor cannot name (a side
 *          over 4095 pixels, a pixel clock over 655 MHz) are the preferred timing of a DisplayID
 *          block behind it, and the base block names 1920x1080.
 * Spec:    VESA E-EDID 1.4, DisplayID 1.3 (Type I timings), CVT 1.2 (reduced blanking).
 */
#ifndef PV_GPU_EDID_H
#define PV_GPU_EDID_H

#include <stddef.h>
#include <stdint.h>

#define PV_EDID_SIZE_MAX 256u
#define PV_EDID_SIDE_MAX 16384u

struct pv_edid_params {
    uint32_t scanout;       /* in the name, from 0 */
    uint32_t width, height; /* 1 … PV_EDID_SIDE_MAX */
    uint32_t refresh_mhz;   /* thousandths of a hertz, 1000 … 1000000 */
};

/* Returns the size in bytes, a multiple of 128. */
size_t pv_edid_build(const struct pv_edid_params *params, uint8_t out[PV_EDID_SIZE_MAX]);

#endif
