#include "unit.h"

#include "vm/pump.h"

#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <uv.h>

#define MARK "\x1epearvisor-00ff"

struct fixture {
    uv_loop_t loop;
    struct pv_pump *pump;
    int in, out; /* ours: what we write to `in` comes at `out` */
    int from, to;
    int ends, escapes, broken;
};

static void on_event(void *data, enum pv_pump_event event)
{
    struct fixture *f = data;
    f->ends += event == PV_PUMP_END;
    f->escapes += event == PV_PUMP_ESCAPE;
    f->broken += event == PV_PUMP_BROKEN;
    if (event != PV_PUMP_ESCAPE)
        uv_stop(&f->loop);
}

static void start(struct fixture *f, struct pv_pump_params params)
{
    int in[2], out[2];
    *f = (struct fixture){0};
    assert_int_equal(uv_loop_init(&f->loop), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, in), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, out), 0);
    f->in = in[0];
    f->from = in[1];
    f->to = out[0];
    f->out = out[1];
    params.from = f->from;
    params.to = params.to < 0 ? -1 : f->to;
    params.event = on_event;
    params.data = f;
    assert_int_equal(pv_pump_create(&f->loop, &params, &f->pump), 0);
}

static void finish(struct fixture *f)
{
    pv_pump_destroy(f->pump);
    uv_run(&f->loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&f->loop), 0);
    close(f->in);
    close(f->out);
    close(f->from);
    close(f->to);
}

static void send_text(struct fixture *f, const char *text, size_t size)
{
    assert_int_equal(write(f->in, text, size), (ssize_t)size);
}

static void check_out(struct fixture *f, const char *expected, size_t size)
{
    char got[256];
    size_t used = 0;
    while (used < size) {
        ssize_t n = read(f->out, got + used, size - used);
        assert_true(n > 0);
        used += (size_t)n;
    }
    assert_memory_equal(got, expected, size);
    assert_int_equal(recv(f->out, got, 1, MSG_DONTWAIT), -1); /* and nothing more */
}

static void test_end_of_file(void **state)
{
    struct fixture f;
    char byte;
    start(&f, (struct pv_pump_params){.close_at_end = true, .tail_size = 4});
    send_text(&f,
              "a\0b\xff\x1e"
              "c",
              6);
    shutdown(f.in, SHUT_WR);
    uv_run(&f.loop, UV_RUN_DEFAULT);
    assert_int_equal(f.ends, 1);
    char tail[5];
    assert_int_equal(pv_pump_tail(f.pump, tail), 4);
    assert_memory_equal(tail,
                        "b\xff\x1e"
                        "c",
                        4);
    char got[8];
    assert_int_equal(read(f.out, got, sizeof(got)), 6);
    assert_memory_equal(got,
                        "a\0b\xff\x1e"
                        "c",
                        6);
    assert_int_equal(read(f.out, &byte, 1), 0);
    finish(&f);
}

/* However the bytes are cut: what looks like the mark and is not goes through. */
static void test_mark(void **state)
{
    static const char before[] = "x\x1epear\x1e\x1epearvisor-00f!" MARK;
    const size_t shown = sizeof(before) - sizeof(MARK);
    for (size_t cut = 1; cut < sizeof(before) - 1; cut++) {
        struct fixture f;
        start(&f, (struct pv_pump_params){.mark = MARK});
        send_text(&f, before, cut);
        usleep(500);
        send_text(&f, before + cut, sizeof(before) - 1 - cut);
        send_text(&f, "after", 5);
        uv_run(&f.loop, UV_RUN_DEFAULT);
        assert_int_equal(f.ends, 1);
        check_out(&f, before, shown);
        finish(&f);
    }
}

static void test_cut_mark(void **state)
{
    struct fixture f;
    start(&f, (struct pv_pump_params){.mark = MARK});
    send_text(&f, "a\x1epear", 6);
    shutdown(f.in, SHUT_WR);
    uv_run(&f.loop, UV_RUN_DEFAULT);
    assert_int_equal(f.ends, 1);
    check_out(&f, "a\x1epear", 6);
    finish(&f);
}

static void test_escape(void **state)
{
    struct fixture f;
    start(&f, (struct pv_pump_params){.escape = 0x1d});
    send_text(&f,
              "a\x1d"
              "b",
              3);
    shutdown(f.in, SHUT_WR);
    uv_run(&f.loop, UV_RUN_DEFAULT);
    assert_int_equal(f.escapes, 1);
    check_out(&f, "ab", 2);
    finish(&f);
}

static void test_broken(void **state)
{
    struct fixture f;
    signal(SIGPIPE, SIG_IGN);
    start(&f, (struct pv_pump_params){0});
    shutdown(f.out, SHUT_RD);
    send_text(&f, "a", 1);
    uv_run(&f.loop, UV_RUN_DEFAULT);
    assert_int_equal(f.broken, 1);
    assert_int_equal(f.ends, 0);
    finish(&f);
}

/* Nobody reads, nobody writes: it can be stopped all the same. */
static void test_stop(void **state)
{
    static char block[1 << 20];
    struct fixture f;
    start(&f, (struct pv_pump_params){0});
    usleep(1000);
    finish(&f);

    start(&f, (struct pv_pump_params){0});
    fcntl(f.in, F_SETFL, O_NONBLOCK);
    while (write(f.in, block, sizeof(block)) > 0)
        usleep(1000);
    finish(&f);
    pv_pump_destroy(NULL);
}

static void test_tail_only(void **state)
{
    struct fixture f;
    char tail[9];
    start(&f, (struct pv_pump_params){.to = -1, .tail_size = 8});
    send_text(&f, "0123456789", 10);
    usleep(20000);
    send_text(&f, "ab", 2);
    shutdown(f.in, SHUT_WR);
    uv_run(&f.loop, UV_RUN_DEFAULT);
    assert_int_equal(pv_pump_tail(f.pump, tail), 8);
    assert_string_equal(tail, "456789ab");
    finish(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_end_of_file), cmocka_unit_test(test_mark),
        cmocka_unit_test(test_cut_mark),    cmocka_unit_test(test_escape),
        cmocka_unit_test(test_broken),      cmocka_unit_test(test_stop),
        cmocka_unit_test(test_tail_only),
    };
    return cmocka_run_group_tests_name("vm_pump", tests, NULL, NULL);
}
