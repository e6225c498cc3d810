#include "display/png.h"

#include "display/display.h"
#include "display/pixel.h"
#include "util/os.h"

#include <errno.h>
#include <fcntl.h>
#include <png.h>
#include <setjmp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Names tried for the new file; the second is never needed. */
#define NAMES_MAX 8

struct picture {
    const struct pv_frame *frame;
    const struct pv_cursor *cursor; /* NULL: none, or hidden */
    struct pv_pixel_layout layout;
};

/* A row as R, G, B. */
static void convert_row(const struct picture *picture, uint32_t y, uint8_t *out)
{
    const struct pv_pixel_layout layout = picture->layout;
    const uint8_t *from =
        (const uint8_t *)picture->frame->pixels + (size_t)y * picture->frame->stride;
    for (uint32_t x = 0; x < picture->frame->width; x++, from += PV_PIXEL_SIZE, out += 3) {
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
    const struct pv_cursor *cursor = picture->cursor;
    int64_t line = cursor ? (int64_t)y - cursor->y : -1;
    if (line < 0 || line >= PV_CURSOR_SIDE)
        return;
    const uint8_t *image =
        (const uint8_t *)cursor->pixels + (size_t)line * PV_CURSOR_SIDE * PV_PIXEL_SIZE;
    for (int column = 0; column < PV_CURSOR_SIDE; column++, image += PV_PIXEL_SIZE) {
        int64_t x = (int64_t)cursor->x + column;
        if (x < 0 || x >= picture->frame->width)
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
    png_set_IHDR(png, info, picture->frame->width, picture->frame->height, 8, PNG_COLOR_TYPE_RGB,
                 PNG_INTERLACE_NONE, PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
    png_write_info(png, info);
    for (uint32_t y = 0; y < picture->frame->height; y++) {
        convert_row(picture, y, row);
        add_cursor(picture, y, row);
        png_write_row(png, row);
    }
    png_write_end(png, info);
    png_destroy_write_struct(&png, &info);
    return 0;
}

/* Open a new file beside `path`, whose name is put into `name`; with the usual permissions, which
 * mkstemp() would not give it. */
static int open_beside(const char *path, char *name, size_t room)
{
    for (int i = 0; i < NAMES_MAX; i++) {
        uint32_t random;
        int ret = pv_random(&random, sizeof(random));
        if (ret < 0)
            return ret;
        snprintf(name, room, "%s.%08x", path, random);
        int fd = open(name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (fd >= 0 || errno != EEXIST)
            return fd >= 0 ? fd : -errno;
    }
    return -EEXIST;
}

/* Takes over `fd`. */
static int write_file(const struct picture *picture, int fd)
{
    uint8_t *row = malloc((size_t)picture->frame->width * 3);
    FILE *file = row ? fdopen(fd, "wb") : NULL;
    if (!file) {
        close(fd);
        free(row);
        return -ENOMEM;
    }
    int ret = encode(picture, file, row);
    if (fclose(file) != 0 && ret == 0) /* a full disk may only show now */
        ret = -errno;
    free(row);
    return ret;
}

int pv_png_save(const struct pv_frame *frame, const struct pv_cursor *cursor, const char *path)
{
    struct picture picture = {
        .frame = frame,
        .cursor = cursor && cursor->pixels ? cursor : NULL,
    };
    if (!frame->pixels || !pv_pixel_layout(frame->format, &picture.layout))
        return -EINVAL;
    size_t room = strlen(path) + sizeof(".01234567");
    char *name = malloc(room);
    if (!name)
        return -ENOMEM;
    int ret = open_beside(path, name, room);
    if (ret >= 0) {
        ret = write_file(&picture, ret);
        if (ret == 0 && rename(name, path) < 0)
            ret = -errno;
        if (ret < 0)
            unlink(name);
    }
    free(name);
    return ret;
}
