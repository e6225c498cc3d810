#include "display/vnc_cursor.h"

#include "display/viewer.h"

#include <rfb/rfb.h>
#include <stdlib.h>
#include <string.h>

/* From this alpha on a pixel is drawn. */
#define OPAQUE 128

static const uint8_t *pixel_at(const struct pv_view *view, uint32_t x, uint32_t y)
{
    return view->cursor + ((size_t)y * PV_CURSOR_SIDE + x) * 4;
}

/* What has to be drawn of the image, and the hot spot. */
static struct pv_rect find_bounds(const struct pv_view *view)
{
    struct pv_rect bounds = {0};
    for (uint32_t y = 0; y < PV_CURSOR_SIDE; y++) {
        for (uint32_t x = 0; x < PV_CURSOR_SIDE; x++) {
            if (pixel_at(view, x, y)[3] >= OPAQUE)
                bounds = pv_rect_union(&bounds, &(struct pv_rect){x, y, 1, 1});
        }
    }
    bool inside = view->hot_x < PV_CURSOR_SIDE && view->hot_y < PV_CURSOR_SIDE;
    if (!pv_rect_is_empty(&bounds) && inside)
        bounds = pv_rect_union(&bounds, &(struct pv_rect){view->hot_x, view->hot_y, 1, 1});
    return bounds;
}

void pv_vnc_cursor_make(const struct pv_view *view, struct pv_vnc_cursor *out)
{
    struct pv_rect bounds = {0};
    memset(out, 0, sizeof(*out));
    if (view->cursor_visible)
        bounds = find_bounds(view);
    if (pv_rect_is_empty(&bounds))
        return;
    out->width = bounds.width;
    out->height = bounds.height;
    out->hot_x = view->hot_x < PV_CURSOR_SIDE ? view->hot_x - bounds.x : 0;
    out->hot_y = view->hot_y < PV_CURSOR_SIDE ? view->hot_y - bounds.y : 0;
    for (uint32_t y = 0; y < bounds.height; y++)
        memcpy(out->pixels + (size_t)y * bounds.width * 4, pixel_at(view, bounds.x, bounds.y + y),
               (size_t)bounds.width * 4);
}

bool pv_vnc_cursor_equal(const struct pv_vnc_cursor *a, const struct pv_vnc_cursor *b)
{
    return memcmp(a, b, sizeof(*a)) == 0;
}

/* A colour that was multiplied by alpha. */
static uint8_t straight(uint8_t value, uint8_t alpha)
{
    unsigned int full = alpha ? (value * 255u + alpha / 2u) / alpha : 0;
    return full > 255 ? 255 : (uint8_t)full;
}

/* Arrays of `cursor` that the library needs, in the screen's pixel format. */
static void fill(rfbCursorPtr to, const struct pv_vnc_cursor *cursor)
{
    size_t mask_stride = (cursor->width + 7) / 8;
    for (size_t i = 0; i < (size_t)cursor->width * cursor->height; i++) {
        const uint8_t *pixel = cursor->pixels + 4 * i;
        size_t x = i % cursor->width, y = i / cursor->width;
        for (int channel = 0; channel < 3; channel++)
            to->richSource[4 * i + channel] = straight(pixel[channel], pixel[3]);
        to->alphaSource[i] = pixel[3];
        if (pixel[3] >= OPAQUE)
            to->mask[y * mask_stride + x / 8] |= (unsigned char)(0x80 >> x % 8);
    }
}

void pv_vnc_cursor_set(rfbScreenInfoPtr screen, const struct pv_vnc_cursor *cursor)
{
    /* the library's way to say "none" is one pixel that is not drawn */
    uint32_t width = cursor->width ? cursor->width : 1;
    uint32_t height = cursor->height ? cursor->height : 1;
    rfbCursorPtr new = calloc(1, sizeof(*new));
    if (!new)
        return;
    new->cleanup = new->cleanupMask = new->cleanupRichSource = TRUE;
    new->mask = calloc((width + 7) / 8, height);
    new->richSource = calloc(height, (size_t)width * 4);
    new->alphaSource = calloc(width, height);
    if (!new->mask || !new->richSource || !new->alphaSource) {
        rfbFreeCursor(new);
        return;
    }
    new->width = (unsigned short)width;
    new->height = (unsigned short)height;
    new->xhot = (unsigned short)cursor->hot_x;
    new->yhot = (unsigned short)cursor->hot_y;
    fill(new, cursor);
    rfbSetCursor(screen, new);
}
