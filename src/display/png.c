#include "display/display.h"
#include "display/pixel.h"

#include <errno.h>
#include <png.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SCANOUTS_MAX 16u
#define CURSOR_SIDE  64
#define CURSOR_BYTES ((size_t)CURSOR_SIDE * CURSOR_SIDE * PV_PIXEL_SIZE)

struct picture {
    bool on;
    uint32_t width, height, format;
    uint8_t *pixels; /* owned; rows of 4 * width bytes */
    size_t size;
    int32_t cursor_x, cursor_y; /* of the image's corner; its hot spot is somewhere inside */
    bool cursor_on;
    uint8_t *cursor; /* owned; NULL until there was one */
};

struct png_display {
    struct pv_display base; /* first */
    struct picture pictures[SCANOUTS_MAX];
};

/* ---- keeping the picture ---- */

/* Make room for a picture of this size; the old one is of no use then. */
static bool resize(struct picture *picture, const struct pv_frame *frame)
{
    size_t size = (size_t)frame->width * frame->height * PV_PIXEL_SIZE;
    if (size != picture->size) {
        free(picture->pixels);
        picture->pixels = calloc(size, 1);
        picture->size = picture->pixels ? size : 0;
    }
    picture->width = frame->width;
    picture->height = frame->height;
    return picture->pixels != NULL;
}

static void present(struct pv_display *display, const struct pv_frame *frame)
{
    struct picture *picture = &((struct png_display *)display)->pictures[frame->scanout];
    picture->on = frame->pixels != NULL;
    if (!picture->on)
        return;
    bool same = picture->pixels && picture->width == frame->width &&
                picture->height == frame->height && picture->format == frame->format;
    struct pv_rect damage = frame->damage;
    if (!same) { /* what was not damaged is not known here either */
        if (!resize(picture, frame)) {
            picture->on = false;
            return;
        }
        damage = (struct pv_rect){0, 0, frame->width, frame->height};
    }
    picture->format = frame->format;
    size_t stride = (size_t)frame->width * PV_PIXEL_SIZE;
    size_t left = (size_t)damage.x * PV_PIXEL_SIZE;
    const uint8_t *from = (const uint8_t *)frame->pixels + (size_t)damage.y * frame->stride + left;
    uint8_t *to = picture->pixels + damage.y * stride + left;
    for (uint32_t y = 0; y < damage.height; y++, from += frame->stride, to += stride)
        memcpy(to, from, (size_t)damage.width * PV_PIXEL_SIZE);
}

static void set_cursor(struct pv_display *display, const struct pv_cursor *cursor)
{
    struct picture *picture = &((struct png_display *)display)->pictures[cursor->scanout];
    picture->cursor_x = cursor->x;
    picture->cursor_y = cursor->y;
    picture->cursor_on = cursor->pixels != NULL;
    if (!cursor->pixels || (cursor->moved_only && picture->cursor))
        return;
    if (!picture->cursor)
        picture->cursor = malloc(CURSOR_BYTES);
    if (picture->cursor)
        memcpy(picture->cursor, cursor->pixels, CURSOR_BYTES);
}

/* ---- writing it ---- */

/* A row as R, G, B. What alpha there is says nothing: behind a screen is nothing. */
static void convert_row(const struct picture *picture, uint32_t y, uint8_t *out)
{
    struct pv_pixel_layout layout;
    const uint8_t *from = picture->pixels + (size_t)y * picture->width * PV_PIXEL_SIZE;
    if (!pv_pixel_layout(picture->format, &layout))
        return;
    for (uint32_t x = 0; x < picture->width; x++, from += PV_PIXEL_SIZE, out += 3) {
        out[0] = from[layout.red];
        out[1] = from[layout.green];
        out[2] = from[layout.blue];
    }
}

/* `over` and `alpha` are of the cursor, whose colours are multiplied by alpha already (as DRM has
 * them). */
static uint8_t blend(uint8_t under, uint8_t over, uint8_t alpha)
{
    unsigned sum = over + (under * (255u - alpha) + 127u) / 255u;
    return sum > 255 ? 255 : (uint8_t)sum;
}

static void add_cursor(const struct picture *picture, uint32_t y, uint8_t *row)
{
    if (!picture->cursor_on || !picture->cursor)
        return;
    int64_t line = (int64_t)y - picture->cursor_y;
    if (line < 0 || line >= CURSOR_SIDE)
        return;
    const uint8_t *image = picture->cursor + (size_t)line * CURSOR_SIDE * PV_PIXEL_SIZE;
    for (int column = 0; column < CURSOR_SIDE; column++, image += PV_PIXEL_SIZE) {
        int64_t x = (int64_t)picture->cursor_x + column;
        if (x < 0 || x >= picture->width)
            continue;
        uint8_t *pixel = row + 3 * x;
        pixel[0] = blend(pixel[0], image[2], image[3]);
        pixel[1] = blend(pixel[1], image[1], image[3]);
        pixel[2] = blend(pixel[2], image[0], image[3]);
    }
}

static void on_png_error(png_structp png, png_const_charp message)
{
    (void)message;
    longjmp(png_jmpbuf(png), 1);
}

static void on_png_warning(png_structp png, png_const_charp message)
{
    (void)png;
    (void)message;
}

/* `row` has room for one row. libpng's errors end up in the second return of setjmp. */
static int encode(const struct picture *picture, FILE *file, uint8_t *row)
{
    png_structp png =
        png_create_write_struct(PNG_LIBPNG_VER_STRING, NULL, on_png_error, on_png_warning);
    png_infop info = png ? png_create_info_struct(png) : NULL;
    if (!info) {
        png_destroy_write_struct(&png, NULL);
        return -ENOMEM;
    }
    if (setjmp(png_jmpbuf(png))) {
        png_destroy_write_struct(&png, &info);
        return errno != 0 ? -errno : -EIO;
    }
    errno = 0;
    png_init_io(png, file);
    png_set_compression_level(png, 3); /* a screen in a fraction of the time of the default 6 */
    png_set_IHDR(png, info, picture->width, picture->height, 8, PNG_COLOR_TYPE_RGB,
                 PNG_INTERLACE_NONE, PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
    png_write_info(png, info);
    for (uint32_t y = 0; y < picture->height; y++) {
        convert_row(picture, y, row);
        add_cursor(picture, y, row);
        png_write_row(png, row);
    }
    png_write_end(png, info);
    png_destroy_write_struct(&png, &info);
    return 0;
}

/* mkstemp is stricter than what a picture needs. */
static int set_usual_mode(int fd)
{
    mode_t mask = umask(0);
    umask(mask);
    return fchmod(fd, 0666 & ~mask);
}

/* Into a new file beside `path`, whose name is put into `temporary`. */
static int write_temporary(const struct picture *picture, char *temporary)
{
    uint8_t *row = malloc((size_t)picture->width * 3);
    if (!row)
        return -ENOMEM;
    int fd = mkstemp(temporary);
    FILE *file = fd >= 0 ? fdopen(fd, "wb") : NULL;
    int ret = -errno;
    if (file) {
        ret = encode(picture, file, row);
        if (ret == 0 && (fflush(file) != 0 || set_usual_mode(fd) < 0))
            ret = -errno;
        if (fclose(file) != 0 && ret == 0) /* a full disk may only show now */
            ret = -errno;
    } else if (fd >= 0) {
        close(fd);
    }
    if (ret < 0 && fd >= 0)
        unlink(temporary);
    free(row);
    return ret;
}

bool pv_png_display_shows(const struct pv_display *display, uint32_t scanout)
{
    return scanout < SCANOUTS_MAX && ((const struct png_display *)display)->pictures[scanout].on;
}

int pv_png_display_save(struct pv_display *display, uint32_t scanout, const char *path)
{
    if (!pv_png_display_shows(display, scanout))
        return -ENOENT;
    const struct picture *picture = &((struct png_display *)display)->pictures[scanout];
    size_t size = strlen(path) + sizeof(".XXXXXX");
    char *temporary = malloc(size);
    if (!temporary)
        return -ENOMEM;
    snprintf(temporary, size, "%s.XXXXXX", path);
    int ret = write_temporary(picture, temporary);
    if (ret == 0 && rename(temporary, path) < 0) {
        ret = -errno;
        unlink(temporary);
    }
    free(temporary);
    return ret;
}

/* ---- create, destroy ---- */

static void destroy(struct pv_display *display)
{
    struct png_display *png = (struct png_display *)display;
    for (uint32_t i = 0; i < SCANOUTS_MAX; i++) {
        free(png->pictures[i].pixels);
        free(png->pictures[i].cursor);
    }
    free(png);
}

static const struct pv_display_ops ops = {
    .name = "png",
    .present = present,
    .cursor = set_cursor,
    .destroy = destroy,
};

int pv_png_display_create(struct pv_display **out)
{
    struct png_display *png = calloc(1, sizeof(*png));
    if (!png)
        return -ENOMEM;
    png->base.ops = &ops;
    *out = &png->base;
    return 0;
}
