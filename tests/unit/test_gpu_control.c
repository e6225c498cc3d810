#include "gpu/control.h"
#include "gpu_fixture.h"

#include "unit.h"

#include <errno.h>
#include <json-c/json.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static struct gpu_fixture fixture;
static struct pv_control *control;
static int client;

static void set_up_for(bool display)
{
    int ends[2];
    fixture_open(&fixture, &(struct gpu_options){.window = PV_GPU_WINDOW_NONE});
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    const struct pv_control_params params = {.loop = &fixture.loop,
                                             .gpu = fixture.gpu,
                                             .listen_fd = -1,
                                             .client_fds = ends,
                                             .client_count = !display,
                                             .view_fds = ends,
                                             .view_count = display};
    assert_int_equal(pv_control_create(&params, &control), 0);
    client = ends[1];
}

static void set_up(void)
{
    set_up_for(false);
}

static void tear_down(void)
{
    pv_control_destroy(control);
    fixture_close(&fixture);
    close(client);
}

static void send_text(const char *text, size_t size)
{
    while (size > 0) {
        ssize_t sent = send(client, text, size, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent < 0 && errno == EPIPE)
            return;
        text += sent > 0 ? sent : 0;
        size -= sent > 0 ? (size_t)sent : 0;
        fixture_turn(&fixture);
    }
    fixture_turn(&fixture);
}

/* What came back, parsed; NULL: nothing. */
static struct json_object *ask(const char *line)
{
    static char answer[65536];
    send_text(line, strlen(line));
    ssize_t size = recv(client, answer, sizeof(answer) - 1, MSG_DONTWAIT);
    if (size <= 0)
        return NULL;
    assert_int_equal(answer[size - 1], '\n');
    assert_ptr_equal(memchr(answer, '\n', (size_t)size), answer + size - 1); /* one line */
    answer[size] = '\0';
    struct json_object *object = json_tokener_parse(answer);
    assert_non_null(object);
    return object;
}

static void expect_member(const char *line, const char *member)
{
    struct json_object *answer = ask(line);
    assert_non_null(answer);
    if (!json_object_object_get_ex(answer, member, NULL))
        fail_msg("%s: %s", line, json_object_to_json_string(answer));
    json_object_put(answer);
}

static void test_status(void **state)
{
    set_up();
    expect_member("{\"command\":\"status\"}\n", "contexts");
    expect_member("{\"command\":\"status\",\"more\":[1,{}]}\n", "scanouts");
    expect_member("{\"execute\":\"status\",\"id\":7}\n", "return");
    expect_member("{\"execute\":\"status\",\"id\":7}\n", "id");
    assert_null(ask("{\"command\":"));
    expect_member("\"status\"}\n", "commands"); /* in two pieces */
    tear_down();
}

static void test_resize(void **state)
{
    set_up();
    expect_member("{\"command\":\"resize\",\"scanout\":0,\"width\":640,\"height\":480}\n", "ok");
    assert_int_equal(fixture.config_changes, 1);
    expect_member("{\"command\":\"resize\",\"scanout\":1,\"width\":640,\"height\":480}\n", "error");
    expect_member("{\"command\":\"resize\",\"scanout\":0,\"width\":-1,\"height\":480}\n", "error");
    expect_member("{\"command\":\"resize\",\"scanout\":0,\"width\":\"640\",\"height\":4}\n",
                  "error");
    expect_member("{\"command\":\"resize\"}\n", "error");
    assert_int_equal(fixture.config_changes, 1);
    tear_down();
}

static void expect_refusal(const char *line, const char *why)
{
    struct json_object *answer = ask(line), *error;
    assert_non_null(answer);
    assert_true(json_object_object_get_ex(answer, "error", &error));
    assert_string_equal(json_object_get_string(error), why);
    json_object_put(answer);
}

/* It looks; what else it would do is no business of who may have taken it over. */
static void test_display(void **state)
{
    static const char not_here[] = "not for displays";
    set_up_for(true);
    expect_member("{\"command\":\"status\"}\n", "scanouts");
    expect_refusal("{\"command\":\"view\"}\n", "this device shows nothing");
    expect_refusal("{\"command\":\"screenshot\",\"scanout\":0,\"path\":\"/tmp/x.png\"}\n",
                   not_here);
    expect_refusal("{\"command\":\"resize\",\"scanout\":0,\"width\":640,\"height\":480}\n",
                   not_here);
    assert_int_equal(fixture.config_changes, 0);
    tear_down();
}

static void test_screenshot_of_nothing(void **state)
{
    set_up();
    expect_member("{\"command\":\"screenshot\",\"scanout\":0,\"path\":\"/tmp/x.png\"}\n", "error");
    expect_member("{\"command\":\"screenshot\",\"scanout\":0}\n", "error");
    expect_member("{\"command\":\"screenshot\",\"scanout\":0,\"path\":\"a\\u0000b\"}\n", "error");
    tear_down();
}

/* Something to take a picture of, and where to. */
static char path[] = "/tmp/pv-shot.XXXXXX";
static char shot_command[128];

static void show_picture(void)
{
    strcpy(path + strlen(path) - 6, "XXXXXX");
    close(mkstemp(path));
    snprintf(shot_command, sizeof(shot_command),
             "{\"command\":\"screenshot\",\"scanout\":0,\"path\":\"%s\"}\n", path);
    create_2d(&fixture, 1, 500, 500);
    const struct pv_wire_set_scanout set = {
        .header = {.type = PV_CMD_SET_SCANOUT}, .rect = {0, 0, 500, 500}, .resource_id = 1};
    assert_int_equal(RUN(&fixture, set), PV_RESP_OK_NODATA);
}

/* The next answer, which comes from another thread: turn the loop until it is there. */
static void expect_late(const char *expected)
{
    char answer[4096];
    size_t size = 0;
    while (size == 0 || answer[size - 1] != '\n') {
        assert_true(size < sizeof(answer) - 1);
        if (recv(client, answer + size, 1, MSG_DONTWAIT) == 1)
            size++;
        else
            uv_run(&fixture.loop, UV_RUN_ONCE);
    }
    answer[size] = '\0';
    if (!strstr(answer, expected))
        fail_msg("%s, not %s", answer, expected);
}

static bool has_picture(void)
{
    struct stat info;
    bool has = stat(path, &info) == 0 && info.st_size > 0;
    unlink(path);
    return has;
}

static void test_screenshot(void **state)
{
    set_up();
    show_picture();
    send_text(shot_command, strlen(shot_command));
    expect_late("\"ok\":true");
    assert_true(has_picture());
    static const char execute[] =
        "{\"execute\":\"screenshot\",\"id\":8,\"arguments\":{\"scanout\":0,\"path\":"
        "\"/nonexistent/x.png\"}}\n";
    send_text(execute, sizeof(execute) - 1);
    expect_late("No such file");
    expect_member("{\"command\":\"status\"}\n", "contexts");
    tear_down();
}

/* Answers come in the order of the commands, also of those that came meanwhile. */
static void test_screenshots_in_order(void **state)
{
    static const char status[] = "{\"execute\":\"status\",\"id\":77}\n";
    set_up();
    show_picture();
    for (int i = 0; i < 3; i++) {
        send_text(shot_command, strlen(shot_command));
        send_text("{}\n", 3);
    }
    send_text(status, sizeof(status) - 1);
    for (int i = 0; i < 3; i++) {
        expect_late("\"ok\":true");
        expect_late("error");
    }
    expect_late("77");
    assert_true(has_picture());
    tear_down();
}

static void test_client_leaves_before_its_screenshot(void **state)
{
    set_up();
    show_picture();
    send_text(shot_command, strlen(shot_command));
    close(client);
    while (uv_run(&fixture.loop, UV_RUN_ONCE))
        ;
    assert_true(has_picture());
    client = -1;
    tear_down();
}

static void test_end_before_the_screenshot(void **state)
{
    set_up();
    show_picture();
    for (int i = 0; i < 2; i++)
        assert_int_equal(write(client, shot_command, strlen(shot_command)), strlen(shot_command));
    uv_run(&fixture.loop, UV_RUN_ONCE);
    tear_down();
    assert_true(has_picture());
}

static void test_nonsense(void **state)
{
    static const char *const lines[] = {
        "\n",
        "null\n",
        "[]\n",
        "{}\n",
        "{\"command\":7}\n",
        "{\"command\":\"dance\"}\n",
        "{\"command\":\"status\"\n",
        "[[[[[[[[[[[[[[[[[[[[\n",
        "\xff\xfe\n",
        "{\"execute\":null,\"arguments\":3}\n",
        "{\"execute\":\"resize\",\"arguments\":[]}\n",
        "{\"execute\":\"resize\"}\n",
    };
    set_up();
    for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++)
        expect_member(lines[i], "error");
    expect_member("{\"command\":\"status\"}\n", "contexts");
    tear_down();
}

static void test_endless_line_is_cut(void **state)
{
    char *line = malloc(2 * PV_CONTROL_LINE_MAX);
    char byte;
    set_up();
    memset(line, 'x', 2 * PV_CONTROL_LINE_MAX);
    send_text(line, 2 * PV_CONTROL_LINE_MAX);
    ssize_t got = recv(client, &byte, 1, MSG_DONTWAIT);
    assert_true(got == 0 || (got < 0 && errno == ECONNRESET));
    tear_down();
    free(line);
}

/* Answers that nobody reads do not pile up. */
static void test_deaf_client_is_cut(void **state)
{
    static const char line[] = "{\"command\":\"status\"}\n";
    set_up();
    for (int i = 0; i < 20000; i++)
        send_text(line, sizeof(line) - 1);
    char buffer[65536];
    ssize_t got;
    size_t total = 0;
    while ((got = recv(client, buffer, sizeof(buffer), MSG_DONTWAIT)) > 0) {
        total += (size_t)got;
        fixture_turn(&fixture);
    }
    assert_true(total < 8u << 20);
    tear_down();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_status),
        cmocka_unit_test(test_resize),
        cmocka_unit_test(test_display),
        cmocka_unit_test(test_screenshot_of_nothing),
        cmocka_unit_test(test_screenshot),
        cmocka_unit_test(test_screenshots_in_order),
        cmocka_unit_test(test_client_leaves_before_its_screenshot),
        cmocka_unit_test(test_end_before_the_screenshot),
        cmocka_unit_test(test_nonsense),
        cmocka_unit_test(test_endless_line_is_cut),
        cmocka_unit_test(test_deaf_client_is_cut),
    };
    signal(SIGPIPE, SIG_IGN); /* as the program does */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
