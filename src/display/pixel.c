#include "display/pixel.h"

/* VIRTIO_GPU_FORMAT_*, named by the order of bytes in memory. */
bool pv_pixel_layout(uint32_t format, struct pv_pixel_layout *out)
{
    switch (format) {
    case 1: /* B8G8R8A8 */
    case 2: /* B8G8R8X8 */
        *out = (struct pv_pixel_layout){2, 1, 0, 3, format == 1};
        return true;
    case 3: /* A8R8G8B8 */
    case 4: /* X8R8G8B8 */
        *out = (struct pv_pixel_layout){1, 2, 3, 0, format == 3};
        return true;
    case 67:  /* R8G8B8A8 */
    case 134: /* R8G8B8X8 */
        *out = (struct pv_pixel_layout){0, 1, 2, 3, format == 67};
        return true;
    case 68:  /* X8B8G8R8 */
    case 121: /* A8B8G8R8 */
        *out = (struct pv_pixel_layout){3, 2, 1, 0, format == 121};
        return true;
    default:
        return false;
    }
}
