#include "unit.h"

#include "util/log.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define PV_LOG_MODULE "test"

static char captured[8192];

/* Run `write_lines` with standard error in a pipe. */
static const char *capture(void (*write_lines)(void))
{
    int fds[2], saved = dup(STDERR_FILENO);
    assert_int_equal(pipe(fds), 0);
    dup2(fds[1], STDERR_FILENO);
    close(fds[1]);
    write_lines();
    dup2(saved, STDERR_FILENO);
    close(saved);

    ssize_t size = read(fds[0], captured, sizeof(captured) - 1);
    close(fds[0]);
    captured[size < 0 ? 0 : size] = '\0';
    return captured;
}

static void write_one_of_each(void)
{
    pv_error("e %d", 1);
    pv_warn("w");
    pv_info("i");
    pv_debug("d");
    pv_trace("t");
}

static void test_levels(void **state)
{
    assert_string_equal(capture(write_one_of_each),
                        "error: test: e 1\nwarn: test: w\ninfo: test: i\n");
    pv_log_set_level(PV_LOG_ERROR);
    assert_string_equal(capture(write_one_of_each), "error: test: e 1\n");
    pv_log_set_level(PV_LOG_INFO);
}

static void test_level_names(void **state)
{
    enum pv_log_level level;
    assert_int_equal(pv_log_parse_level("trace", &level), 0);
    assert_int_equal(level, PV_LOG_TRACE);
    assert_int_equal(pv_log_parse_level("error", &level), 0);
    assert_int_equal(level, PV_LOG_ERROR);
    assert_int_equal(pv_log_parse_level("loud", &level), -EINVAL);
    assert_int_equal(pv_log_parse_level("", &level), -EINVAL);
}

static void test_prefix(void **state)
{
    pv_log_set_level(PV_LOG_ERROR);
    pv_log_set_prefix("client 7: ");
    assert_string_equal(capture(write_one_of_each), "error: client 7: test: e 1\n");
    pv_log_set_prefix(NULL);
    assert_string_equal(capture(write_one_of_each), "error: test: e 1\n");
    pv_log_set_level(PV_LOG_INFO);
}

static void write_hostile(void)
{
    pv_info("name \"%s\"", "a\nerror: fake\r\x1b[2Jb\xc3\xa9");
}

static void test_one_event_is_one_line(void **state)
{
    assert_string_equal(capture(write_hostile),
                        "info: test: name \"a?error: fake??[2Jb\xc3\xa9\"\n");
}

static void write_long(void)
{
    char text[5000];
    memset(text, 'x', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    pv_info("%s", text);
}

static void test_long_lines_are_cut(void **state)
{
    const char *line = capture(write_long);
    assert_true(strlen(line) <= 1024);
    assert_int_equal(line[strlen(line) - 1], '\n');
}

static void write_many(void)
{
    for (int i = 0; i < 100; i++)
        pv_log_limited(PV_LOG_INFO, 3, "line %d", i);
}

static void test_limit(void **state)
{
    assert_string_equal(capture(write_many),
                        "info: test: line 0\ninfo: test: line 1\ninfo: test: line 2\n");
}

static struct pv_log_limit limit;

static void pass_in_a_later_window(void)
{
    limit.window_start_ns = 1; /* long ago */
    assert_true(pv_log_limit_pass(&limit, 1));
}

static void test_limit_tells_what_was_left_out(void **state)
{
    assert_true(pv_log_limit_pass(&limit, 1));
    assert_false(pv_log_limit_pass(&limit, 1));
    assert_false(pv_log_limit_pass(&limit, 1));
    assert_string_equal(capture(pass_in_a_later_window),
                        "warn: log: 2 lines like the next one were left out\n");
    assert_int_equal(limit.left_out, 0);
}

static void test_errno_survives(void **state)
{
    errno = EXDEV;
    capture(write_one_of_each);
    errno = EXDEV;
    pv_debug("dropped");
    assert_int_equal(errno, EXDEV);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_levels),
        cmocka_unit_test(test_level_names),
        cmocka_unit_test(test_prefix),
        cmocka_unit_test(test_one_event_is_one_line),
        cmocka_unit_test(test_long_lines_are_cut),
        cmocka_unit_test(test_limit),
        cmocka_unit_test(test_limit_tells_what_was_left_out),
        cmocka_unit_test(test_errno_survives),
    };
    return cmocka_run_group_tests_name("log", tests, NULL, NULL);
}
