/* What keyboards and pointers become at QEMU's monitor: order, releases, and a QEMU that is slow or
 * gone. */
#include "unit.h"

#include "display/input.h"

#include <fcntl.h>
#include <json-c/json.h>
#include <linux/input-event-codes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <uv.h>

static uv_loop_t loop;
static struct pv_input *input;
static int qemu = -1; /* our end */
static char folder[] = "/tmp/pv-input.XXXXXX", socket_path[64];
static char got[1 << 16];

static int listen_at(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(listen(fd, 1), 0);
    return fd;
}

static int setup(void **state)
{
    strcpy(folder + strlen(folder) - 6, "XXXXXX");
    assert_non_null(mkdtemp(folder));
    snprintf(socket_path, sizeof(socket_path), "%s/qmp", folder);
    int listener = listen_at(socket_path);
    uv_loop_init(&loop);
    const struct pv_input_params params = {.loop = &loop, .qmp_path = socket_path, .relay_fd = -1};
    assert_int_equal(pv_input_create(&params, &input), 0);
    qemu = accept(listener, NULL, NULL);
    fcntl(qemu, F_SETFL, O_NONBLOCK);
    close(listener);
    return 0;
}

static int teardown(void **state)
{
    pv_input_destroy(input);
    input = NULL;
    uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&loop), 0);
    if (qemu >= 0)
        close(qemu);
    qemu = -1;
    unlink(socket_path);
    rmdir(folder);
    return 0;
}

/* One line from us, or "". */
static const char *next_line(void)
{
    size_t used = 0;
    for (int i = 0; i < 3; i++)
        uv_run(&loop, UV_RUN_NOWAIT);
    while (used + 1 < sizeof(got) && read(qemu, got + used, 1) == 1) {
        if (got[used] == '\n')
            break;
        used++;
    }
    got[used] = '\0';
    return got;
}

/* Events of one command in short: +a -a, x=, y=, +left. */
static const char *events(void)
{
    static char text[1024];
    text[0] = '\0';
    struct json_object *line = json_tokener_parse(next_line()), *arguments, *list;
    if (!line)
        return "";
    assert_true(json_object_object_get_ex(line, "arguments", &arguments));
    assert_true(json_object_object_get_ex(arguments, "events", &list));
    for (size_t i = 0; i < json_object_array_length(list); i++) {
        struct json_object *event = json_object_array_get_idx(list, i), *data, *down, *value, *name;
        char one[64];
        json_object_object_get_ex(event, "data", &data);
        bool pressed =
            json_object_object_get_ex(data, "down", &down) && json_object_get_boolean(down);
        if (json_object_object_get_ex(data, "key", &name)) {
            json_object_object_get_ex(name, "data", &value);
            snprintf(one, sizeof(one), "%c%s", pressed ? '+' : '-', json_object_get_string(value));
        } else if (json_object_object_get_ex(data, "button", &name)) {
            snprintf(one, sizeof(one), "%c%s", pressed ? '+' : '-', json_object_get_string(name));
        } else {
            json_object_object_get_ex(data, "axis", &name);
            json_object_object_get_ex(data, "value", &value);
            snprintf(one, sizeof(one), "%s=%d", json_object_get_string(name),
                     json_object_get_int(value));
        }
        snprintf(text + strlen(text), sizeof(text) - strlen(text), "%s%s", i ? " " : "", one);
    }
    json_object_put(line);
    return text;
}

static int answered;

static void answer(void)
{
    char text[64];
    snprintf(text, sizeof(text), "{\"return\": {}, \"id\": %d}\n", ++answered);
    assert_true(write(qemu, text, strlen(text)) > 0);
    for (int i = 0; i < 3; i++)
        uv_run(&loop, UV_RUN_NOWAIT);
}

static void shake_hands(void)
{
    answered = 0;
    assert_non_null(strstr(next_line(), "qmp_capabilities"));
    answer();
}

static void test_before_the_handshake(void **state)
{
    pv_input_key(input, KEY_A, true);
    assert_non_null(strstr(next_line(), "qmp_capabilities"));
    assert_string_equal(next_line(), "");
    answered = 0;
    answer();
    assert_string_equal(events(), "+a");
}

static void test_one_command_at_a_time(void **state)
{
    shake_hands();
    pv_input_key(input, KEY_A, true);
    pv_input_key(input, KEY_A, true); /* auto-repeat */
    pv_input_key(input, KEY_A, false);
    pv_input_key(input, KEY_A, false);
    pv_input_key(input, KEY_B, false);
    pv_input_key(input, 0, true);
    pv_input_key(input, 0xffffffff, true);
    assert_string_equal(events(), "+a");
    assert_string_equal(events(), "");
    answer();
    assert_string_equal(events(), "-a");
    answer();
    assert_string_equal(events(), "");
}

static void test_moves_are_left_out(void **state)
{
    shake_hands();
    for (uint32_t x = 0; x < 100; x++)
        pv_input_pointer(input, x, 0, 101, 1, 0);
    assert_string_equal(events(), "x=0 y=0");
    pv_input_pointer(input, 100, 0, 101, 1, PV_BUTTON_LEFT);
    for (uint32_t x = 0; x < 50; x++)
        pv_input_pointer(input, 99 - x, 0, 101, 1, PV_BUTTON_LEFT);
    pv_input_pointer(input, 1000, 0, 101, 1, 0);
    answer();
    assert_string_equal(events(), "x=32767 y=0 +left"); /* no move before a press is of use */
    answer();
    assert_string_equal(events(), "x=32767 y=0 -left");
    answer();
    assert_string_equal(events(), "");
}

static void test_wheel(void **state)
{
    shake_hands();
    pv_input_wheel(input, 0, 2);
    pv_input_wheel(input, -1, 0);
    assert_string_equal(events(), "+wheel-down -wheel-down");
    answer();
    assert_string_equal(events(), "+wheel-down -wheel-down");
    answer();
    assert_string_equal(events(), "+wheel-left -wheel-left");
    pv_input_wheel(input, INT32_MIN, INT32_MAX); /* some steps, not two thousand million */
}

static void test_let_go(void **state)
{
    shake_hands();
    pv_input_key(input, KEY_LEFTCTRL, true);
    events();
    answer();
    pv_input_pointer(input, 0, 0, 10, 10, PV_BUTTON_RIGHT | PV_BUTTON_SIDE);
    assert_string_equal(events(), "x=0 y=0 +right +side");
    answer();
    pv_input_release_all(input);
    assert_string_equal(events(), "-ctrl");
    answer();
    assert_string_equal(events(), "-right");
    answer();
    assert_string_equal(events(), "-side");
    answer();
    pv_input_release_all(input);
    assert_string_equal(events(), "");
}

/* What is pressed goes up although QEMU has not answered. */
static void test_let_go_at_the_end(void **state)
{
    shake_hands();
    pv_input_key(input, KEY_X, true);
    pv_input_pointer(input, 1, 1, 10, 10, PV_BUTTON_LEFT);
    pv_input_destroy(input);
    input = NULL;
    assert_string_equal(events(), "+x");
    assert_string_equal(events(), "x=3641 y=3641 +left");
    assert_string_equal(events(), "-x");
    assert_string_equal(events(), "-left");
}

static void test_caps_lock(void **state)
{
    assert_false(pv_input_caps_lock(input));
    pv_input_key(input, KEY_CAPSLOCK, true);
    pv_input_key(input, KEY_CAPSLOCK, true);
    assert_true(pv_input_caps_lock(input));
    pv_input_key(input, KEY_CAPSLOCK, false);
    assert_true(pv_input_caps_lock(input));
    pv_input_key(input, KEY_CAPSLOCK, true);
    assert_false(pv_input_caps_lock(input));
}

static void test_qemu_hangs(void **state)
{
    shake_hands();
    for (int i = 0; i < 5000; i++) {
        pv_input_key(input, KEY_A, true);
        pv_input_key(input, KEY_A, false);
        pv_input_wheel(input, 0, 1);
        pv_input_pointer(input, (uint32_t)i % 10, 0, 10, 10, (uint32_t)i % 2);
    }
    pv_input_key(input, KEY_A, false);
    unsigned int lines = 0;
    int down = 0, left = 0;
    for (const char *text = events(); text[0]; text = events(), lines++) {
        down += strcmp(text, "+a") == 0 ? 1 : strcmp(text, "-a") == 0 ? -1 : 0;
        left += strstr(text, "+left") ? 1 : strstr(text, "-left") ? -1 : 0;
        answer();
    }
    assert_true(lines > 100 && lines < 400);
    assert_int_equal(down, 0);
    assert_true(left == 0 || left == 1);
}

static void test_qemu_goes(void **state)
{
    shake_hands();
    pv_input_key(input, KEY_A, true);
    pv_input_key(input, KEY_B, true);
    close(qemu);
    qemu = -1;
    for (int i = 0; i < 5; i++)
        uv_run(&loop, UV_RUN_NOWAIT);
    pv_input_key(input, KEY_A, false);
    pv_input_pointer(input, 1, 2, 3, 4, 1);
    pv_input_release_all(input);
}

static void test_qemu_refuses(void **state)
{
    shake_hands();
    pv_input_key(input, KEY_F24, true);
    pv_input_key(input, KEY_A, true);
    assert_string_equal(events(), "+f24");
    static const char text[] =
        "{\"error\": {\"class\": \"GenericError\", \"desc\": \"Invalid parameter\"}, \"id\": 2}\n";
    assert_true(write(qemu, text, strlen(text)) > 0);
    assert_string_equal(events(), "+a");
}

static void test_no_qemu(void **state)
{
    struct pv_input *none;
    const struct pv_input_params params = {.loop = &loop, .relay_fd = -1};
    assert_int_equal(pv_input_create(&params, &none), 0);
    pv_input_key(none, KEY_A, true);
    pv_input_pointer(none, 1, 2, 3, 4, 5);
    pv_input_wheel(none, 1, 1);
    pv_input_release_all(none);
    pv_input_destroy(none);
    pv_input_destroy(NULL);
}

/* ---- through pearvisor run ---- */

static int setup_relay(void **state)
{
    int fds[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    fcntl(fds[0], F_SETFL, O_NONBLOCK);
    qemu = fds[0];
    uv_loop_init(&loop);
    const struct pv_input_params params = {.loop = &loop, .relay_fd = fds[1]};
    assert_int_equal(pv_input_create(&params, &input), 0);
    return 0;
}

/* The next event, or one of kind 0. */
static struct pv_input_event relayed(void)
{
    struct pv_input_event event;
    for (int i = 0; i < 3; i++)
        uv_run(&loop, UV_RUN_NOWAIT);
    if (read(qemu, &event, sizeof(event)) != sizeof(event))
        event.kind = 0;
    return event;
}

static void expect_relayed(struct pv_input_event wanted)
{
    struct pv_input_event event = relayed();
    assert_memory_equal(&event, &wanted, sizeof(event));
    assert_true(pv_input_event_is_valid(&event));
    assert_int_equal(write(qemu, "+", 1), 1);
}

static void test_relayed(void **state)
{
    pv_input_key(input, KEY_A, true);
    pv_input_key(input, KEY_A, false);
    for (uint32_t x = 0; x < 100; x++)
        pv_input_pointer(input, x, 0, 101, 1, 0);
    pv_input_pointer(input, 100, 0, 101, 1, PV_BUTTON_LEFT);
    pv_input_wheel(input, 0, -1);
    pv_input_release_all(input);
    expect_relayed((struct pv_input_event){.kind = PV_INPUT_KEY, .code = KEY_A, .down = 1});
    expect_relayed((struct pv_input_event){.kind = PV_INPUT_KEY, .code = KEY_A});
    expect_relayed((struct pv_input_event){
        .kind = PV_INPUT_POINTER, .x = PV_INPUT_AXIS_MAX, .changed = 1, .down = 1});
    expect_relayed((struct pv_input_event){.kind = PV_INPUT_WHEEL, .code = PV_WHEEL_UP});
    expect_relayed((struct pv_input_event){.kind = PV_INPUT_BUTTONS, .changed = 1});
    assert_int_equal(relayed().kind, 0);
}

static void test_relay_waits(void **state)
{
    pv_input_key(input, KEY_A, true);
    for (int i = 0; i < 5000; i++)
        pv_input_wheel(input, 0, 1);
    assert_int_equal(relayed().kind, PV_INPUT_KEY);
    assert_int_equal(relayed().kind, 0); /* nothing before the answer */
    unsigned int steps = 0;
    do {
        assert_int_equal(write(qemu, "+", 1), 1);
        steps++;
    } while (relayed().kind == PV_INPUT_WHEEL);
    assert_true(steps > 100 && steps < 300);
}

static void test_relay_goes(void **state)
{
    pv_input_key(input, KEY_A, true);
    pv_input_key(input, KEY_B, true);
    close(qemu);
    qemu = -1;
    for (int i = 0; i < 5; i++)
        uv_run(&loop, UV_RUN_NOWAIT);
    pv_input_key(input, KEY_A, false);
    pv_input_release_all(input);
}

#define TEST_RELAY(name) cmocka_unit_test_setup_teardown(name, setup_relay, teardown)
#define TEST(name)       cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_before_the_handshake),
        TEST(test_one_command_at_a_time),
        TEST(test_moves_are_left_out),
        TEST(test_wheel),
        TEST(test_let_go),
        TEST(test_let_go_at_the_end),
        TEST(test_caps_lock),
        TEST(test_qemu_hangs),
        TEST(test_qemu_goes),
        TEST(test_qemu_refuses),
        TEST(test_no_qemu),
        TEST_RELAY(test_relayed),
        TEST_RELAY(test_relay_waits),
        TEST_RELAY(test_relay_goes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
