/* Between a display and QEMU's monitor: what passes, what never does, and a QEMU that is stuck. */
#include "unit.h"

#include "vm/input_event.h"
#include "vm/input_relay.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/input-event-codes.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <uv.h>

#define RELAYS 2

static uv_loop_t loop;
static struct pv_qmp *qmp;
static struct pv_input_relay *relays[RELAYS];
static int qemu, displays[RELAYS];
static char line[4096];
static int answered;

static void ignore(void *data)
{
}

static void ignore_port(void *data, const char *id, bool open)
{
}

static void ignore_shutdown(void *data, bool by_guest, const char *reason)
{
}

static void ignore_lost(void *data, const char *why)
{
}

static const struct pv_qmp_events qmp_events = {
    .ready = ignore, .port = ignore_port, .shutdown = ignore_shutdown, .lost = ignore_lost};

static int connect_pair(int *ours)
{
    int fds[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    fcntl(fds[0], F_SETFL, O_NONBLOCK);
    *ours = fds[0];
    return fds[1];
}

static void spin(void)
{
    for (int i = 0; i < 5; i++)
        uv_run(&loop, UV_RUN_NOWAIT);
}

/* One line at QEMU, or "". */
static const char *heard(void)
{
    size_t used = 0;
    spin();
    while (used + 1 < sizeof(line) && read(qemu, line + used, 1) == 1 && line[used] != '\n')
        used++;
    line[used] = '\0';
    return line;
}

static void answer(void)
{
    char text[64];
    snprintf(text, sizeof(text), "{\"return\": {}, \"id\": %d}\n", ++answered);
    assert_true(write(qemu, text, strlen(text)) > 0);
    spin();
}

static void expect(const char *part)
{
    const char *got = heard();
    if (!strstr(got, "\"execute\":\"input-send-event\"") || !strstr(got, part))
        fail_msg("QEMU heard \"%s\", not %s", got, part);
    answer();
}

static void say(int display, struct pv_input_event event)
{
    assert_int_equal(write(displays[display], &event, sizeof(event)), sizeof(event));
}

static void send_key(int display, uint32_t code, uint32_t down)
{
    say(display, (struct pv_input_event){.kind = PV_INPUT_KEY, .code = code, .down = down});
}

static int setup(void **state)
{
    uv_loop_init(&loop);
    answered = 0;
    assert_int_equal(pv_qmp_create(&loop, connect_pair(&qemu), &qmp_events, NULL, &qmp), 0);
    for (int i = 0; i < RELAYS; i++)
        assert_int_equal(pv_input_relay_create(&loop, connect_pair(&displays[i]), qmp, &relays[i]),
                         0);
    assert_non_null(strstr(heard(), "qmp_capabilities"));
    answer();
    return 0;
}

static int teardown(void **state)
{
    for (int i = 0; i < RELAYS; i++) {
        pv_input_relay_destroy(relays[i]);
        if (displays[i] >= 0)
            close(displays[i]);
    }
    pv_qmp_destroy(qmp);
    uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&loop), 0);
    close(qemu);
    return 0;
}

static void test_what_passes(void **state)
{
    char next;
    send_key(0, KEY_A, 1);
    expect("\"down\":true,\"key\":{\"type\":\"qcode\",\"data\":\"a\"}");
    assert_int_equal(read(displays[0], &next, 1), 1);
    assert_int_equal(read(displays[0], &next, 1), -1);
    say(0, (struct pv_input_event){
               .kind = PV_INPUT_POINTER, .x = 32767, .y = 5, .changed = 3, .down = 1});
    const char *got = heard();
    assert_non_null(strstr(got, "\"axis\":\"x\",\"value\":32767"));
    assert_non_null(strstr(got, "\"axis\":\"y\",\"value\":5"));
    assert_non_null(strstr(got, "\"down\":true,\"button\":\"left\""));
    assert_non_null(strstr(got, "\"down\":false,\"button\":\"middle\""));
    answer();
    say(0, (struct pv_input_event){.kind = PV_INPUT_WHEEL, .code = PV_WHEEL_LEFT, .changed = 8});
    expect("\"down\":false,\"button\":\"wheel-left\"");
    say(0, (struct pv_input_event){.kind = PV_INPUT_BUTTONS, .changed = 1});
    expect("\"down\":false,\"button\":\"left\"");
    assert_string_equal(heard(), "");
}

/* Nothing of it reaches QEMU; what was held goes up; the other display types on. */
static void test_asks_for_more(void **state)
{
    static const char quit[] = "{\"execute\": \"quit\"}\n{\"execute\": \"quit\"}\n";
    send_key(0, KEY_LEFTCTRL, 1);
    expect("\"down\":true,\"key\":{\"type\":\"qcode\",\"data\":\"ctrl\"}");
    assert_true(write(displays[0], quit, strlen(quit)) > 0);
    expect("\"down\":false,\"key\":{\"type\":\"qcode\",\"data\":\"ctrl\"}");
    send_key(0, KEY_A, 1);
    assert_string_equal(heard(), "");
    send_key(1, KEY_B, 1);
    expect("\"data\":\"b\"");
}

static void check_refused(struct pv_input_event event)
{
    setup(NULL);
    say(0, event);
    assert_string_equal(heard(), "");
    send_key(0, KEY_A, 1);
    assert_string_equal(heard(), "");
    teardown(NULL);
}

static void test_out_of_range(void **state)
{
    check_refused((struct pv_input_event){0});
    check_refused((struct pv_input_event){.kind = PV_INPUT_WHEEL + 1});
    check_refused((struct pv_input_event){.kind = UINT32_MAX});
    check_refused((struct pv_input_event){.kind = PV_INPUT_KEY});
    check_refused((struct pv_input_event){.kind = PV_INPUT_KEY, .code = 256});
    check_refused((struct pv_input_event){.kind = PV_INPUT_KEY, .code = UINT32_MAX});
    check_refused((struct pv_input_event){.kind = PV_INPUT_KEY, .code = KEY_A, .down = 2});
    check_refused((struct pv_input_event){.kind = PV_INPUT_POINTER, .x = 32768});
    check_refused((struct pv_input_event){.kind = PV_INPUT_POINTER, .y = UINT32_MAX});
    check_refused((struct pv_input_event){.kind = PV_INPUT_POINTER, .changed = 32});
    check_refused((struct pv_input_event){.kind = PV_INPUT_BUTTONS});
    check_refused((struct pv_input_event){.kind = PV_INPUT_BUTTONS, .changed = 1, .down = 2});
    check_refused((struct pv_input_event){.kind = PV_INPUT_WHEEL, .code = PV_WHEEL_COUNT});
}

/* Byte by byte is slow, and right. */
static void test_pieces(void **state)
{
    struct pv_input_event event = {.kind = PV_INPUT_KEY, .code = KEY_C, .down = 1};
    for (size_t i = 0; i < sizeof(event); i++) {
        assert_string_equal(heard(), "");
        assert_int_equal(write(displays[0], (char *)&event + i, 1), 1);
    }
    expect("\"data\":\"c\"");
}

/* One event is out; the rest stays in the display's own socket, which gets full. */
static void test_qemu_is_stuck(void **state)
{
    struct pv_input_event event = {.kind = PV_INPUT_KEY, .code = KEY_A, .down = 1};
    unsigned int sent = 0;
    ssize_t n = sizeof(event);
    for (; n == (ssize_t)sizeof(event) && sent < 1000000; sent++, event.down ^= 1) {
        n = write(displays[0], &event, sizeof(event));
        spin();
    }
    assert_int_equal(n, -1);
    assert_int_equal(errno, EAGAIN);
    assert_true(sent < 20000);
    assert_non_null(strstr(heard(), "\"down\":true"));
    assert_string_equal(heard(), "");
    send_key(1, KEY_B, 1); /* the other one has its turn as well */
    assert_non_null(strstr(heard(), "\"data\":\"b\""));
    answer();
    assert_non_null(strstr(heard(), "\"down\":false"));
    assert_string_equal(heard(), "");
}

/* Killed, with two keys and a button down and one more press on its way. */
static void test_display_ends(void **state)
{
    send_key(0, KEY_X, 1);
    expect("\"data\":\"x\"");
    say(0, (struct pv_input_event){.kind = PV_INPUT_BUTTONS, .changed = 4, .down = 4});
    expect("\"button\":\"right\"");
    send_key(0, KEY_Y, 1);
    close(displays[0]);
    displays[0] = -1;
    expect("\"down\":true,\"key\":{\"type\":\"qcode\",\"data\":\"y\"}");
    expect("\"down\":false,\"key\":{\"type\":\"qcode\",\"data\":\"y\"}");
    expect("\"down\":false,\"key\":{\"type\":\"qcode\",\"data\":\"x\"}");
    expect("\"down\":false,\"button\":\"right\"");
    assert_string_equal(heard(), "");
}

static void test_qemu_refuses(void **state)
{
    static const char text[] =
        "{\"error\": {\"class\": \"GenericError\", \"desc\": \"no\"}, \"id\": 2}\n";
    send_key(0, KEY_A, 1);
    assert_non_null(strstr(heard(), "\"data\":\"a\""));
    assert_true(write(qemu, text, strlen(text)) > 0);
    answered++;
    send_key(0, KEY_B, 1);
    expect("\"data\":\"b\"");
}

static void test_ends_in_between(void **state)
{
    send_key(0, KEY_A, 1); /* not answered when all of it ends */
    assert_non_null(strstr(heard(), "\"data\":\"a\""));
    send_key(1, KEY_A, 1);
    close(displays[1]);
    displays[1] = -1;
    assert_non_null(strstr(heard(), "\"data\":\"a\""));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_what_passes),  TEST(test_asks_for_more),   cmocka_unit_test(test_out_of_range),
        TEST(test_pieces),       TEST(test_qemu_is_stuck),   TEST(test_display_ends),
        TEST(test_qemu_refuses), TEST(test_ends_in_between),
    };
    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
