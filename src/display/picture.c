#include "display/picture.h"

#include "display/pixel.h"
#include "display/screen.h"
#include "util/os.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* What is read or converted at a time: some rows. */
#define BAND_SIZE (128u << 10)

struct pv_picture {
    uint32_t width, height, stride;
    uint32_t sequence; /* ours; the shared one is only for readers */
    bool writing;
    int fd;
    uint64_t size;
    struct pv_screen_picture *shared;
    uint8_t *pixels; /* behind it */
    size_t band_size;
    uint8_t *band; /* owned: rows as they come from frame->read(), then as they go */
};

uint64_t pv_picture_size(uint32_t width, uint32_t height)
{
    return PV_SCREEN_PIXELS_OFFSET + (uint64_t)width * height * PV_PIXEL_SIZE;
}

int pv_picture_create(uint32_t width, uint32_t height, struct pv_picture **out)
{
    struct pv_picture *picture = calloc(1, sizeof(*picture));
    if (!picture)
        return -ENOMEM;
    picture->width = width;
    picture->height = height;
    picture->stride = width * PV_PIXEL_SIZE;
    picture->size = pv_picture_size(width, height);
    picture->band_size = picture->stride > BAND_SIZE ? picture->stride : BAND_SIZE;
    picture->band = malloc(picture->band_size);
    void *map;
    int ret =
        picture->band ? pv_shm_create("pearvisor-screen", picture->size, &picture->fd) : -ENOMEM;
    if (ret < 0)
        goto err_free;
    ret = pv_shm_map(picture->fd, picture->size, &map);
    if (ret < 0)
        goto err_close;
    picture->shared = map;
    picture->pixels = (uint8_t *)map + PV_SCREEN_PIXELS_OFFSET;
    picture->shared->width = width;
    picture->shared->height = height;
    picture->shared->stride = picture->stride;
    picture->shared->offset = PV_SCREEN_PIXELS_OFFSET;
    *out = picture;
    return 0;

err_close:
    close(picture->fd);
err_free:
    free(picture->band);
    free(picture);
    return ret;
}

void pv_picture_destroy(struct pv_picture *picture)
{
    if (!picture)
        return;
    pv_shm_unmap(picture->shared, picture->size);
    close(picture->fd);
    free(picture->band);
    free(picture);
}

int pv_picture_fd(const struct pv_picture *picture)
{
    return picture->fd;
}

/* ---- for readers (screen.h) ---- */

static void begin_writing(struct pv_picture *picture)
{
    if (picture->writing)
        return;
    picture->writing = true;
    atomic_store_explicit(&picture->shared->sequence, ++picture->sequence, memory_order_relaxed);
    /* pairs with a reader's fence between the pixels and its second look */
    atomic_thread_fence(memory_order_release);
}

static void end_writing(struct pv_picture *picture)
{
    if (!picture->writing)
        return;
    picture->writing = false;
    /* pairs with a reader's first look */
    atomic_store_explicit(&picture->shared->sequence, ++picture->sequence, memory_order_release);
}

/* ---- pixels ---- */

static inline uint32_t load(const uint8_t *from)
{
    uint32_t value; /* a guest's pixels may be anywhere */
    memcpy(&value, from, sizeof(value));
    return value;
}

static inline void store(uint8_t *to, uint32_t pixel)
{
    memcpy(to, &pixel, sizeof(pixel));
}

/* To B8G8R8X8 from the format that has blue in that byte; `to` may be `from`. */
static void convert(uint8_t *to, const uint8_t *from, size_t size, uint8_t blue)
{
    switch (blue) {
    case 1: /* X8B8G8R8 */
        for (size_t i = 0; i < size; i += PV_PIXEL_SIZE) {
            uint32_t pixel = load(from + i);
            store(to + i, pixel >> 8 | pixel << 24);
        }
        break;
    case 2: /* R8G8B8X8 */
        for (size_t i = 0; i < size; i += PV_PIXEL_SIZE) {
            uint32_t pixel = load(from + i);
            store(to + i, (pixel & 0xff00ff00) | (pixel >> 16 & 0xff) | (pixel & 0xff) << 16);
        }
        break;
    default: /* X8R8G8B8: the other way round */
        for (size_t i = 0; i < size; i += PV_PIXEL_SIZE) {
            uint32_t pixel = load(from + i);
            store(to + i, pixel >> 24 | (pixel >> 8 & 0xff00) | (pixel << 8 & 0xff0000));
        }
        break;
    }
}

/* Copy the part of a row that differs, and add it to `changed`. */
static void put_row(struct pv_picture *picture, uint32_t x, uint32_t y, uint32_t width,
                    const uint8_t *from, struct pv_rect *changed)
{
    uint8_t *to = picture->pixels + (size_t)y * picture->stride + (size_t)x * PV_PIXEL_SIZE;
    if (memcmp(to, from, (size_t)width * PV_PIXEL_SIZE) == 0)
        return;
    size_t first = 0, end = (size_t)width * PV_PIXEL_SIZE;
    while (first < end && load(to + first) == load(from + first))
        first += PV_PIXEL_SIZE;
    while (end > first && load(to + end - PV_PIXEL_SIZE) == load(from + end - PV_PIXEL_SIZE))
        end -= PV_PIXEL_SIZE;
    begin_writing(picture);
    memcpy(to + first, from + first, end - first);
    const struct pv_rect part = {x + (uint32_t)(first / PV_PIXEL_SIZE), y,
                                 (uint32_t)((end - first) / PV_PIXEL_SIZE), 1};
    *changed = pv_rect_union(changed, &part);
}

/* Rows y … y + count - 1 of the damage. */
static int put_rows(struct pv_picture *picture, const struct pv_frame *frame, uint8_t blue,
                    uint32_t y, uint32_t count, struct pv_rect *changed)
{
    const struct pv_rect *damage = &frame->damage;
    size_t row_size = (size_t)damage->width * PV_PIXEL_SIZE;
    if (!frame->pixels) {
        const struct pv_rect part = {damage->x, y, damage->width, count};
        int ret = frame->read(frame, &part, picture->band);
        if (ret < 0)
            return ret;
    }
    for (uint32_t i = 0; i < count; i++) {
        const uint8_t *row = picture->band + i * row_size;
        if (frame->pixels)
            row = (const uint8_t *)frame->pixels + (size_t)(y + i) * frame->stride +
                  (size_t)damage->x * PV_PIXEL_SIZE;
        if (blue != 0) {
            convert(picture->band + i * row_size, row, row_size, blue);
            row = picture->band + i * row_size;
        }
        put_row(picture, damage->x, y + i, damage->width, row, changed);
    }
    return 0;
}

int pv_picture_update(struct pv_picture *picture, const struct pv_frame *frame,
                      struct pv_rect *changed)
{
    const struct pv_rect *damage = &frame->damage;
    struct pv_pixel_layout layout;
    *changed = (struct pv_rect){0};
    if (!pv_pixel_layout(frame->format, &layout))
        return -EINVAL;
    if (pv_rect_is_empty(damage))
        return 0;
    uint32_t band = (uint32_t)(picture->band_size / ((size_t)damage->width * PV_PIXEL_SIZE));
    uint32_t end = damage->y + damage->height;
    int ret = 0;
    for (uint32_t y = damage->y, count; ret == 0 && y < end; y += count) {
        count = end - y < band ? end - y : band;
        ret = put_rows(picture, frame, layout.blue, y, count, changed);
    }
    end_writing(picture);
    return ret;
}
