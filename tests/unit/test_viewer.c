/* The viewer's end of the screens, against a device that the test plays. */
#include "unit.h"

#include "display/screen.h"
#include "display/viewer.h"
#include "util/fdpass.h"
#include "util/os.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <uv.h>

static uv_loop_t loop;
static struct pv_viewer *viewer;
static int control = -1, screen = -1; /* our ends */
static struct {
    unsigned int frames, resized, cursors, images, modes, lost;
} seen;

static void on_frame(void *data, uint32_t scanout)
{
    seen.frames++;
}

static void on_resized(void *data, uint32_t scanout)
{
    seen.resized++;
}

static void on_cursor(void *data, uint32_t scanout, bool image)
{
    seen.cursors++;
    seen.images += image;
}

static void on_mode(void *data, uint32_t scanout)
{
    seen.modes++;
}

static void on_lost(void *data)
{
    seen.lost++;
}

static const struct pv_viewer_events events = {on_frame, on_resized, on_cursor, on_mode, on_lost};

static void spin(void)
{
    for (int i = 0; i < 4; i++)
        uv_run(&loop, UV_RUN_NOWAIT);
}

static int setup(void **state)
{
    int fds[2], screens[2];
    char line[64] = "";
    memset(&seen, 0, sizeof(seen));
    uv_loop_init(&loop);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, screens), 0);
    control = fds[0];
    screen = screens[0];
    const struct pv_viewer_params params = {.loop = &loop, .control_fd = fds[1], .events = &events};
    assert_int_equal(pv_viewer_create(&params, &viewer), 0);
    assert_true(read(control, line, sizeof(line) - 1) > 0);
    assert_string_equal(line, "{\"command\": \"view\"}\n");
    static const char answer[] = "{\"ok\": true}\n";
    assert_int_equal(pv_fd_send(control, screens[1], answer, sizeof(answer) - 1), 0);
    close(screens[1]);
    spin();
    assert_int_equal(seen.lost, 0);
    return 0;
}

static int teardown(void **state)
{
    pv_viewer_destroy(viewer);
    uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&loop), 0);
    close(control);
    close(screen);
    return 0;
}

static void say(const struct pv_screen_message *message, const void *payload, int fd)
{
    struct iovec pieces[] = {
        {.iov_base = (void *)message, .iov_len = sizeof(*message)},
        {.iov_base = (void *)payload, .iov_len = message->payload_size},
    };
    size_t pieces_used = message->payload_size ? 2 : 1;
    assert_true(pv_fds_send(screen, &fd, fd >= 0 ? 1 : 0, pieces, pieces_used, true) > 0);
}

struct shown {
    struct pv_screen_picture *picture;
    uint64_t size;
    int fd;
};

static struct shown make_picture(uint32_t width, uint32_t height, uint32_t stride)
{
    struct shown shown = {.size = PV_SCREEN_PIXELS_OFFSET + (uint64_t)stride * height};
    void *map;
    assert_int_equal(pv_shm_create("picture", shown.size, &shown.fd), 0);
    assert_int_equal(pv_shm_map(shown.fd, shown.size, &map), 0);
    shown.picture = map;
    shown.picture->width = width;
    shown.picture->height = height;
    shown.picture->stride = stride;
    shown.picture->offset = PV_SCREEN_PIXELS_OFFSET;
    return shown;
}

static void say_picture(const struct shown *shown)
{
    say(&(struct pv_screen_message){.type = PV_SCREEN_PICTURE,
                                    .width = shown->picture->width ? shown->picture->width : 1,
                                    .height = shown->picture->height},
        NULL, shown->fd);
}

static void say_frame(uint64_t serial, struct pv_rect damage)
{
    say(
        &(struct pv_screen_message){
            .type = PV_SCREEN_FRAME, .serial = serial, .damage = damage, .time_ns = 77},
        NULL, -1);
}

static void drop(struct shown *shown)
{
    pv_shm_unmap(shown->picture, shown->size);
    close(shown->fd);
}

static void check_taken(uint64_t serial)
{
    struct pv_screen_message message;
    assert_int_equal(recv(screen, &message, sizeof(message), MSG_DONTWAIT), sizeof(message));
    assert_int_equal(message.type, PV_SCREEN_TAKEN);
    assert_int_equal(message.serial, serial);
}

static void test_frames(void **state)
{
    struct shown shown = make_picture(5, 3, 32);
    uint8_t *pixels = (uint8_t *)shown.picture + PV_SCREEN_PIXELS_OFFSET;
    struct pv_rect damage;
    say(
        &(struct pv_screen_message){
            .type = PV_SCREEN_MODE, .count = 2, .width = 640, .height = 480},
        NULL, -1);
    say_picture(&shown);
    memset(pixels, 0x11, 96);
    say_frame(1, (struct pv_rect){0, 0, 5, 3});
    spin();
    const struct pv_view *view = pv_viewer_get(viewer, 0);
    assert_int_equal(pv_viewer_scanout_count(viewer), 2);
    assert_true(view->plugged && view->offered_width == 640);
    assert_true(seen.frames == 1 && seen.resized == 1 && seen.modes == 1);
    assert_true(view->width == 5 && view->height == 3 && view->stride >= 20);
    assert_int_equal(view->pixels[0], 0);
    assert_true(pv_viewer_take(viewer, 0, &damage));
    check_taken(1);
    assert_int_equal(damage.width, 5);
    assert_int_equal(view->pixels[2 * view->stride + 19], 0x11);
    assert_int_equal(view->frame_time_ns, 77);
    assert_false(pv_viewer_take(viewer, 0, &damage));
    /* only the damage, and no more than there is */
    memset(pixels, 0x22, 96);
    say_frame(2, (struct pv_rect){4, 2, 4000000000u, 4000000000u});
    spin();
    assert_true(pv_viewer_take(viewer, 0, &damage));
    check_taken(2);
    assert_true(damage.x == 4 && damage.y == 2 && damage.width == 1 && damage.height == 1);
    assert_int_equal(view->pixels[2 * view->stride + 15], 0x11);
    assert_int_equal(view->pixels[2 * view->stride + 16], 0x22);
    say_frame(3, (struct pv_rect){9, 9, 1, 1});
    spin();
    assert_false(pv_viewer_take(viewer, 0, &damage));
    check_taken(3);
    drop(&shown);
}

static void test_blank_and_place(void **state)
{
    struct shown shown = make_picture(64, 32, 256), other = make_picture(10, 100, 40);
    struct pv_place place;
    struct pv_rect damage;
    say_picture(&shown);
    say(
        &(struct pv_screen_message){
            .type = PV_SCREEN_PICTURE, .scanout = 1, .width = 10, .height = 100},
        NULL, other.fd);
    say_frame(1, (struct pv_rect){0, 0, 64, 32});
    spin();
    pv_viewer_place(viewer, 1, &place);
    assert_true(place.x == 64 && place.total_width == 74 && place.total_height == 100);
    say(&(struct pv_screen_message){.type = PV_SCREEN_PICTURE}, NULL, -1);
    spin();
    assert_int_equal(seen.resized, 3);
    assert_int_equal(pv_viewer_get(viewer, 0)->width, 0);
    assert_false(pv_viewer_take(viewer, 0, &damage));
    drop(&shown);
    drop(&other);
}

static void test_cursor(void **state)
{
    uint8_t image[PV_CURSOR_SIDE * PV_CURSOR_SIDE * 4];
    memset(image, 9, sizeof(image));
    struct pv_screen_message message = {
        .type = PV_SCREEN_CURSOR,
        .payload_size = sizeof(image),
        .flags = PV_SCREEN_VISIBLE | PV_SCREEN_IMAGE,
        .x = -5,
        .y = 7,
        .hot_x = 3,
    };
    say(&message, image, -1);
    spin();
    const struct pv_view *view = pv_viewer_get(viewer, 0);
    assert_true(view->cursor_visible && view->cursor_x == -5 && view->hot_x == 3);
    assert_int_equal(view->cursor[100], 9);
    message.flags = PV_SCREEN_VISIBLE;
    message.payload_size = 0;
    message.x = 50;
    say(&message, NULL, -1);
    spin();
    assert_true(seen.cursors == 2 && seen.images == 1 && view->cursor_x == 50);
}

/* A picture that is written all the time is taken as it is, and nobody waits for ever. */
static void test_picture_is_written(void **state)
{
    struct shown shown = make_picture(8, 8, 32);
    struct pv_rect damage;
    say_picture(&shown);
    atomic_store(&shown.picture->sequence, 3);
    say_frame(1, (struct pv_rect){0, 0, 8, 8});
    spin();
    assert_true(pv_viewer_take(viewer, 0, &damage));
    drop(&shown);
}

static void check_lost(void)
{
    spin();
    assert_int_equal(seen.lost, 1);
    pv_viewer_ask_size(viewer, 0, 100, 100);
    spin();
    assert_int_equal(seen.lost, 1);
}

static void test_picture_is_cut_short(void **state)
{
    struct shown shown = make_picture(8, 8, 32);
    shown.picture->height = 5000;
    say_picture(&shown);
    drop(&shown);
    check_lost();
}

static void test_picture_without_memory(void **state)
{
    say(&(struct pv_screen_message){.type = PV_SCREEN_PICTURE, .width = 8, .height = 8}, NULL, -1);
    check_lost();
}

static void test_no_such_scanout(void **state)
{
    say(&(struct pv_screen_message){.type = PV_SCREEN_FRAME, .scanout = 16}, NULL, -1);
    check_lost();
}

static void test_huge_payload(void **state)
{
    struct pv_screen_message message = {.type = PV_SCREEN_CURSOR, .payload_size = 0xffffffffu};
    assert_true(write(screen, &message, sizeof(message)) > 0);
    check_lost();
}

static void test_device_goes(void **state)
{
    close(screen);
    screen = -1;
    check_lost();
}

static void test_unknown_message(void **state)
{
    static const char payload[100];
    say(&(struct pv_screen_message){.type = 30, .payload_size = 100}, payload, -1);
    say(&(struct pv_screen_message){.type = PV_SCREEN_MODE, .count = 1, .width = 1}, NULL, -1);
    spin();
    assert_true(seen.lost == 0 && seen.modes == 1);
}

static void test_ask_size(void **state)
{
    struct pv_screen_message message;
    pv_viewer_ask_size(viewer, 0, 800, 600);
    assert_int_equal(recv(screen, &message, sizeof(message), MSG_DONTWAIT), sizeof(message));
    assert_true(message.type == PV_SCREEN_SIZE && message.width == 800 && message.height == 600);
    /* a device that reads nothing is given up some time, and not waited for */
    for (int i = 0; i < 100000 && !seen.lost; i++)
        pv_viewer_ask_size(viewer, 0, 800, 600);
    assert_int_equal(seen.lost, 1);
}

static int got_status;

static void on_status(void *data, struct json_object *status)
{
    got_status += status ? 1 : 100;
}

static void test_status(void **state)
{
    char line[64] = "";
    got_status = 0;
    pv_viewer_ask_status(viewer, on_status, NULL);
    uv_run(&loop, UV_RUN_NOWAIT);
    spin();
    assert_true(recv(control, line, sizeof(line) - 1, MSG_DONTWAIT) > 0);
    assert_string_equal(line, "{\"command\": \"status\"}\n");
    assert_int_equal(write(control, "{\"fps\": 1}\n", 11), 11);
    spin();
    assert_int_equal(got_status, 1);
    /* within the same second: later */
    pv_viewer_ask_status(viewer, on_status, NULL);
    spin();
    assert_true(recv(control, line, sizeof(line), MSG_DONTWAIT) < 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_frames),
        TEST(test_blank_and_place),
        TEST(test_cursor),
        TEST(test_picture_is_written),
        TEST(test_picture_is_cut_short),
        TEST(test_picture_without_memory),
        TEST(test_no_such_scanout),
        TEST(test_huge_payload),
        TEST(test_device_goes),
        TEST(test_unknown_message),
        TEST(test_ask_size),
        TEST(test_status),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
