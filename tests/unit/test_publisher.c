#include "display/publisher.h"

#include "display/screen.h"
#include "unit.h"
#include "util/fdpass.h"
#include "util/os.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <uv.h>

#define XRGB 2 /* B8G8R8X8 */
#define MS   UINT64_C(1000000)

static uv_loop_t loop;
static struct pv_publisher *publisher;
static struct pv_display *display;
static uint64_t now_ns;
static unsigned refreshes, sizes;
static uint8_t pixels[64 * 64 * 4];

uint64_t __wrap_pv_now_ns(void);
uint64_t __wrap_pv_now_ns(void)
{
    return now_ns;
}

static void on_size(void *data, uint32_t scanout, uint32_t width, uint32_t height)
{
    sizes++;
    display->ops->mode(display, scanout, width, height);
}

static int present(uint32_t width, uint32_t height, struct pv_rect damage)
{
    const struct pv_frame frame = {
        .width = width,
        .height = height,
        .format = XRGB,
        .stride = width * 4,
        .pixels = pixels,
        .damage = damage,
    };
    return display->ops->present(display, &frame);
}

static int present_all(void)
{
    pixels[0]++;
    return present(64, 64, (struct pv_rect){0, 0, 64, 64});
}

static void on_refresh(void *data, uint32_t scanout)
{
    refreshes++;
    present(64, 64, (struct pv_rect){0, 0, 64, 64});
}

static void begin(void)
{
    const struct pv_publisher_params params = {
        .loop = &loop,
        .scanout_count = 2,
        .refresh_mhz = 100000, /* 10 ms */
        .size_wanted = on_size,
        .refresh_wanted = on_refresh,
    };
    now_ns = 1000 * MS;
    refreshes = sizes = 0;
    memset(pixels, 0, sizeof(pixels));
    assert_int_equal(uv_loop_init(&loop), 0);
    assert_int_equal(pv_publisher_create(&params, &publisher), 0);
    display = pv_publisher_display(publisher);
    display->ops->mode(display, 0, 640, 480);
}

static void end(void)
{
    pv_publisher_destroy(publisher);
    uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&loop), 0);
}

static int add_viewer(void)
{
    int ends[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    assert_int_equal(pv_publisher_add_viewer(publisher, ends[0]), 0);
    return ends[1];
}

/* The next message, which must be there. Its payload is dropped, its fd left to the caller. */
static struct pv_screen_message receive(int fd, int *out_fd)
{
    struct pv_screen_message message;
    uint8_t payload[PV_SCREEN_PAYLOAD_MAX];
    int fds[PV_FDS_MAX];
    size_t count;
    uv_run(&loop, UV_RUN_NOWAIT);
    assert_int_equal(pv_fds_receive(fd, &message, sizeof(message), false, fds, &count),
                     sizeof(message));
    assert_int_equal(count, message.type == PV_SCREEN_PICTURE && message.width != 0);
    if (count > 0 && out_fd)
        *out_fd = fds[0];
    else if (count > 0)
        close(fds[0]);
    for (size_t left = message.payload_size; left > 0;) {
        ssize_t got = recv(fd, payload, left, MSG_DONTWAIT);
        uv_run(&loop, UV_RUN_NOWAIT); /* the rest of it may have to wait for room */
        assert_true(got > 0);
        left -= (size_t)got;
    }
    return message;
}

static struct pv_screen_message expect(int fd, uint32_t type)
{
    struct pv_screen_message message = receive(fd, NULL);
    assert_int_equal(message.type, type);
    return message;
}

static void expect_nothing(int fd)
{
    uint8_t byte;
    uv_run(&loop, UV_RUN_NOWAIT);
    assert_int_equal(recv(fd, &byte, 1, MSG_DONTWAIT | MSG_PEEK), -1);
    assert_int_equal(errno, EAGAIN);
}

static void say(int fd, uint32_t type, uint32_t scanout, uint64_t serial)
{
    const struct pv_screen_message message = {
        .type = type, .scanout = scanout, .serial = serial, .width = 800, .height = 600};
    assert_int_equal(write(fd, &message, sizeof(message)), sizeof(message));
    uv_run(&loop, UV_RUN_NOWAIT);
}

/* All that a new viewer is told of two scanouts of which the second shows nothing. */
static void expect_greeting(int fd, bool shown)
{
    struct pv_screen_message message = expect(fd, PV_SCREEN_MODE);
    assert_int_equal(message.width, 640);
    assert_int_equal(message.count, 2);
    assert_int_equal(expect(fd, PV_SCREEN_PICTURE).width, shown ? 64 : 0);
    assert_int_equal(expect(fd, PV_SCREEN_CURSOR).flags, 0);
    if (shown)
        assert_int_equal(expect(fd, PV_SCREEN_FRAME).damage.height, 64);
    assert_int_equal(expect(fd, PV_SCREEN_MODE).width, 0);
    assert_int_equal(expect(fd, PV_SCREEN_PICTURE).width, 0);
    expect(fd, PV_SCREEN_CURSOR);
    expect_nothing(fd);
}

static uint64_t taken_at(void)
{
    return (display->ops->taken_at(display, 0, now_ns) - 1000 * MS) / MS;
}

/* The picture at the head of publisher.h, without a viewer. */
static void test_ticks(void **state)
{
    struct pv_publisher_stats stats;
    begin();
    present_all();
    assert_int_equal(taken_at(), 0); /* a */
    now_ns += 3 * MS;
    present_all();
    assert_int_equal(taken_at(), 10); /* b */
    now_ns += 2 * MS;
    present_all();
    assert_int_equal(taken_at(), 20); /* c waits for b's tick */
    now_ns += 2 * MS;
    present_all();
    assert_int_equal(taken_at(), 20); /* d is instead of it */
    pv_publisher_get_stats(publisher, 0, &stats);
    assert_int_equal(stats.frames, 4);
    assert_int_equal(stats.shown, 2);
    assert_int_equal(stats.dropped, 1);
    now_ns += 3 * MS; /* b's tick */
    while (uv_run(&loop, UV_RUN_ONCE))
        ;
    pv_publisher_get_stats(publisher, 0, &stats);
    assert_int_equal(stats.shown, 3);
    assert_int_equal(taken_at(), 20);
    now_ns += 25 * MS;
    present_all();
    assert_int_equal(taken_at(), 35); /* e */
    /* what does not cover the frame before is one with it */
    present(64, 64, (struct pv_rect){0, 0, 64, 64});
    present(64, 64, (struct pv_rect){0, 0, 10, 10});
    present(64, 64, (struct pv_rect){5, 5, 10, 10});
    pv_publisher_get_stats(publisher, 0, &stats);
    assert_int_equal(stats.frames, 8);
    assert_int_equal(stats.dropped, 1);
    present(0, 0, (struct pv_rect){0}); /* off */
    pv_publisher_get_stats(publisher, 0, &stats);
    assert_int_equal(stats.shown + stats.dropped, stats.frames);
    pv_publisher_get_stats(publisher, 2, &stats);
    assert_int_equal(stats.frames, 0);
    end();
}

static void test_figures(void **state)
{
    struct pv_publisher_stats stats;
    begin();
    pv_publisher_get_stats(publisher, 0, &stats);
    assert_true(stats.fps == 0 && stats.median_ns == 0);
    for (int i = 0; i < 400; i++) {
        now_ns += i % 10 ? 20 * MS : 40 * MS;
        present_all();
    }
    pv_publisher_get_stats(publisher, 0, &stats);
    assert_int_equal(stats.median_ns, 20 * MS);
    assert_int_equal(stats.p99_ns, 40 * MS);
    assert_true(stats.fps > 44 && stats.fps < 47);
    now_ns += 5000 * MS; /* a pause is not a slow frame */
    present_all();
    pv_publisher_get_stats(publisher, 0, &stats);
    assert_int_equal(stats.p99_ns, 40 * MS);
    assert_true(stats.fps == 1);
    for (int i = 0; i < 1000; i++) {
        now_ns += MS;
        present_all();
    }
    pv_publisher_get_stats(publisher, 0, &stats);
    assert_true(stats.fps > 990 && stats.fps < 1010);
    end();
}

static void test_news(void **state)
{
    begin();
    present_all();
    int fd = add_viewer();
    assert_int_equal(refreshes, 1);
    expect_greeting(fd, true);
    /* not answered: what comes is added up */
    uint64_t first = now_ns += 20 * MS;
    pixels[4 * (64 * 10 + 10)]++;
    present(64, 64, (struct pv_rect){10, 10, 1, 1});
    now_ns += 20 * MS;
    pixels[4 * (64 * 30 + 20)]++;
    present(64, 64, (struct pv_rect){20, 30, 1, 1});
    expect_nothing(fd);
    say(fd, PV_SCREEN_TAKEN, 0, 1);
    struct pv_screen_message frame = expect(fd, PV_SCREEN_FRAME);
    assert_int_equal(frame.serial, 2);
    assert_int_equal(frame.time_ns, first);
    assert_memory_equal(&frame.damage, (&(struct pv_rect){10, 10, 11, 21}), sizeof(frame.damage));
    /* a new picture does not wait for an answer */
    now_ns += 20 * MS;
    assert_int_equal(present(32, 32, (struct pv_rect){0, 0, 1, 1}), 0);
    assert_int_equal(expect(fd, PV_SCREEN_PICTURE).width, 32);
    frame = expect(fd, PV_SCREEN_FRAME);
    assert_int_equal(frame.serial, 3);
    assert_int_equal(frame.damage.width, 32); /* all of it, whatever the guest says */
    say(fd, PV_SCREEN_TAKEN, 0, 2);           /* late */
    now_ns += 20 * MS;
    pixels[0]++;
    present(32, 32, (struct pv_rect){0, 0, 1, 1});
    expect_nothing(fd);
    say(fd, PV_SCREEN_TAKEN, 0, 3);
    assert_int_equal(expect(fd, PV_SCREEN_FRAME).serial, 4);
    say(fd, PV_SCREEN_SIZE, 1, 0);
    assert_int_equal(sizes, 1);
    assert_int_equal(expect(fd, PV_SCREEN_MODE).scanout, 1);
    close(fd);
    end();
}

/* The end of a frame that waits is its tick, also for viewers. */
static void test_frames_wait(void **state)
{
    begin();
    int fd = add_viewer();
    expect_greeting(fd, false);
    present_all();
    expect(fd, PV_SCREEN_PICTURE);
    expect(fd, PV_SCREEN_FRAME);
    say(fd, PV_SCREEN_TAKEN, 0, 1);
    present_all();
    expect(fd, PV_SCREEN_FRAME);
    say(fd, PV_SCREEN_TAKEN, 0, 2);
    uint64_t flushed = now_ns += MS;
    present_all();
    expect_nothing(fd);
    now_ns += 9 * MS;
    while (recv(fd, &(char){0}, 1, MSG_DONTWAIT | MSG_PEEK) < 0)
        uv_run(&loop, UV_RUN_ONCE);
    struct pv_screen_message frame = expect(fd, PV_SCREEN_FRAME);
    assert_int_equal(frame.time_ns, flushed);
    close(fd);
    end();
}

/* A socket that takes a message in pieces, and one that takes nothing. */
static void test_full_socket(void **state)
{
    struct pv_cursor cursor = {.pixels = pixels};
    begin();
    int ends[2], small = 1;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    setsockopt(ends[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof(small));
    assert_int_equal(pv_publisher_add_viewer(publisher, ends[0]), 0);
    expect_greeting(ends[1], false);
    for (int i = 1; i <= 100; i++) {
        cursor.x = i;
        display->ops->cursor(display, &cursor);
    }
    present_all();
    int32_t x = 0;
    unsigned messages = 0;
    for (;;) {
        struct pv_screen_message message = receive(ends[1], NULL);
        messages++;
        if (message.type == PV_SCREEN_FRAME)
            break;
        if (message.type != PV_SCREEN_CURSOR)
            continue;
        assert_true(message.x > x);
        x = message.x;
    }
    assert_int_equal(x, 100); /* the last of them */
    assert_true(messages < 20);
    close(ends[1]);
    end();
}

/* Old pictures that a viewer which stands still has not fetched are memory: only a few. */
static void test_pictures_not_fetched(void **state)
{
    begin();
    int fd = add_viewer();
    expect_greeting(fd, false);
    for (uint32_t i = 0; i < 200; i++)
        present(32 + i % 2, 32, (struct pv_rect){0, 0, 1, 1});
    unsigned fetched = 0;
    int fds[PV_FDS_MAX];
    size_t count;
    struct pv_screen_message message;
    while (pv_fds_receive(fd, &message, sizeof(message), false, fds, &count) > 0) {
        fetched += count;
        for (size_t i = 0; i < count; i++)
            close(fds[i]);
    }
    assert_in_range(fetched, 1, 10);
    assert_int_equal(expect(fd, PV_SCREEN_PICTURE).width, 33); /* now that there is room */
    close(fd);
    end();
}

static int cannot_read(const struct pv_frame *frame, const struct pv_rect *part, void *out)
{
    return -EFAULT;
}

static void test_what_cannot_be_shown(void **state)
{
    struct pv_frame frame = {
        .width = 64, .height = 64, .format = XRGB, .read = cannot_read, .damage = {0, 0, 64, 64}};
    begin();
    assert_int_equal(display->ops->present(display, &frame), 0); /* nobody looks */
    present(0, 0, (struct pv_rect){0});
    int fd = add_viewer();
    expect_greeting(fd, false);
    assert_int_equal(display->ops->present(display, &frame), -EFAULT);
    assert_int_equal(expect(fd, PV_SCREEN_PICTURE).width, 64);
    expect(fd, PV_SCREEN_FRAME); /* black */
    /* more than all pictures may take: blank, and the guest is not to blame */
    assert_int_equal(present(16384, 16384, (struct pv_rect){0, 0, 1, 1}), 0);
    assert_int_equal(expect(fd, PV_SCREEN_PICTURE).width, 0);
    expect_nothing(fd);
    assert_int_equal(present_all(), 0);
    assert_int_equal(expect(fd, PV_SCREEN_PICTURE).width, 64);
    close(fd);
    end();
}

/* A viewer asks for a size, which is news to another that is gone, and to itself. */
static void test_leaving_while_told(void **state)
{
    begin();
    int first = add_viewer(), second = add_viewer();
    expect_greeting(first, false);
    expect_greeting(second, false);
    close(second);
    say(first, PV_SCREEN_SIZE, 1, 0);
    expect(first, PV_SCREEN_MODE);
    for (int i = 0; i < 3; i++)
        assert_int_equal(
            write(first,
                  &(struct pv_screen_message){.type = PV_SCREEN_SIZE, .width = 800, .height = 600},
                  sizeof(struct pv_screen_message)),
            sizeof(struct pv_screen_message));
    close(first);
    uv_run(&loop, UV_RUN_NOWAIT);
    uv_run(&loop, UV_RUN_NOWAIT);
    struct pv_publisher_stats stats;
    pv_publisher_get_stats(publisher, 0, &stats);
    assert_int_equal(stats.viewers, 0);
    end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ticks),
        cmocka_unit_test(test_figures),
        cmocka_unit_test(test_news),
        cmocka_unit_test(test_frames_wait),
        cmocka_unit_test(test_full_socket),
        cmocka_unit_test(test_pictures_not_fetched),
        cmocka_unit_test(test_what_cannot_be_shown),
        cmocka_unit_test(test_leaving_while_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
