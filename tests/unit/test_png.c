#include "display/display.h"
#include "display/png.h"

#include "unit.h"

#include <errno.h>
#include <png.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define B8G8R8X8 2
#define R8G8B8X8 134

static char folder[] = "/tmp/pv-png.XXXXXX";
static char path[64];

static int make_folder(void **state)
{
    if (!mkdtemp(folder))
        return -1;
    snprintf(path, sizeof(path), "%s/screen.png", folder);
    return 0;
}

static int remove_folder(void **state)
{
    unlink(path);
    return rmdir(folder); /* fails if anything was left there */
}

static void read_pixel(uint32_t x, uint32_t y, uint8_t out[3])
{
    png_image image = {.version = PNG_IMAGE_VERSION};
    assert_true(png_image_begin_read_from_file(&image, path));
    image.format = PNG_FORMAT_RGB;
    uint8_t *pixels = malloc(PNG_IMAGE_SIZE(image));
    assert_true(png_image_finish_read(&image, NULL, pixels, 0, NULL));
    memcpy(out, pixels + 3 * ((size_t)y * image.width + x), 3);
    free(pixels);
}

static void expect_pixel(uint32_t x, uint32_t y, const char *rgb)
{
    uint8_t pixel[3];
    read_pixel(x, y, pixel);
    assert_memory_equal(pixel, rgb, 3);
}

/* 100x100 in rows of 404 bytes, the last one not a byte longer than its pixels. */
static uint8_t *make_pixels(void)
{
    uint8_t *pixels = malloc(404 * 99 + 400);
    for (size_t y = 0; y < 100; y++) {
        for (size_t x = 0; x < 100; x++)
            memcpy(pixels + 404 * y + 4 * x, "\x10\x20\x30\x00", 4);
    }
    return pixels;
}

static struct pv_frame frame_of(const uint8_t *pixels)
{
    return (struct pv_frame){
        .width = 100, .height = 100, .stride = 404, .format = B8G8R8X8, .pixels = pixels};
}

static void test_picture(void **state)
{
    uint8_t *pixels = make_pixels();
    struct pv_frame frame = frame_of(pixels);
    assert_int_equal(pv_png_save(&frame, NULL, path), 0);
    expect_pixel(0, 0, "\x30\x20\x10");
    expect_pixel(99, 99, "\x30\x20\x10");
    frame.format = R8G8B8X8;
    assert_int_equal(pv_png_save(&frame, NULL, path), 0); /* in place of the other */
    expect_pixel(99, 99, "\x10\x20\x30");
    free(pixels);
}

static void test_cursor_is_blended(void **state)
{
    uint8_t *pixels = make_pixels();
    uint8_t image[PV_CURSOR_SIDE * PV_CURSOR_SIDE * 4];
    const struct pv_frame frame = frame_of(pixels);
    struct pv_cursor cursor = {.x = 90, .y = 90, .pixels = image};
    memset(image, 0x80, sizeof(image)); /* half white, multiplied by alpha */
    assert_int_equal(pv_png_save(&frame, &cursor, path), 0);
    expect_pixel(89, 90, "\x30\x20\x10");
    expect_pixel(90, 90, "\x98\x90\x88");
    cursor.x = cursor.y = -63;
    memset(image, 0xff, sizeof(image));
    assert_int_equal(pv_png_save(&frame, &cursor, path), 0);
    expect_pixel(0, 0, "\xff\xff\xff");
    expect_pixel(1, 0, "\x30\x20\x10");
    cursor.x = INT32_MAX;
    cursor.y = INT32_MIN;
    assert_int_equal(pv_png_save(&frame, &cursor, path), 0);
    cursor = (struct pv_cursor){0}; /* hidden */
    assert_int_equal(pv_png_save(&frame, &cursor, path), 0);
    expect_pixel(0, 0, "\x30\x20\x10");
    free(pixels);
}

static void test_file_has_the_usual_permissions(void **state)
{
    uint8_t *pixels = make_pixels();
    const struct pv_frame frame = frame_of(pixels);
    struct stat info;
    mode_t before = umask(027);
    assert_int_equal(pv_png_save(&frame, NULL, path), 0);
    umask(before);
    assert_int_equal(stat(path, &info), 0);
    assert_int_equal(info.st_mode & 0777, 0640);
    free(pixels);
}

static void test_what_cannot_be_written(void **state)
{
    uint8_t *pixels = make_pixels();
    struct pv_frame frame = frame_of(pixels);
    assert_int_equal(pv_png_save(&frame, NULL, "/nonexistent/x.png"), -ENOENT);
    assert_int_equal(pv_png_save(&frame, NULL, folder), -EISDIR); /* nothing stays beside it */
    frame.format = 5;
    assert_int_equal(pv_png_save(&frame, NULL, path), -EINVAL);
    frame = (struct pv_frame){.format = B8G8R8X8};
    assert_int_equal(pv_png_save(&frame, NULL, path), -EINVAL);
    free(pixels);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_picture),
        cmocka_unit_test(test_cursor_is_blended),
        cmocka_unit_test(test_file_has_the_usual_permissions),
        cmocka_unit_test(test_what_cannot_be_written),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
