#include "cli/stats_view.h"

#include "unit.h"

#include <json-c/json.h>
#include <stdlib.h>
#include <string.h>

static void expect(const char *now, const char *before, const char *line)
{
    struct json_object *a = json_tokener_parse(now);
    struct json_object *b = before ? json_tokener_parse(before) : NULL;
    char *got = pv_stats_line(a, b);
    assert_string_equal(got, line);
    free(got);
    json_object_put(a);
    json_object_put(b);
}

#define SCREEN(frames, dropped)                                                               \
    "{\"on\": true, \"fps\": " frames ", \"frame_ms_median\": 16.7, \"frame_ms_p99\": 18.2, " \
    "\"dropped\": " dropped "}"
#define SCREENS(list) "{\"scanouts\": [" list "], \"contexts\": []}"

static void test_screens(void **state)
{
    expect(SCREENS(SCREEN("59.8", "12")), NULL,
           "screen 0: 59.8 fps, 16.7 ms median, 18.2 ms p99, 12 dropped");
    expect(SCREENS(SCREEN("59.8", "12")), SCREENS(SCREEN("60", "10")),
           "screen 0: 59.8 fps, 16.7 ms median, 18.2 ms p99, 2 dropped");
    expect(SCREENS(SCREEN("59.8", "1")), SCREENS(SCREEN("60", "10")),
           "screen 0: 59.8 fps, 16.7 ms median, 18.2 ms p99, 0 dropped");
    expect(SCREENS("{\"on\": false, \"fps\": 0.0}, " SCREEN("7", "0")), SCREENS(""),
           "screen 1: 7.0 fps, 16.7 ms median, 18.2 ms p99, 0 dropped");
    expect(SCREENS("{\"on\": true, \"fps\": 0, \"frame_ms_median\": 0, \"dropped\": 0}"), NULL,
           "screen 0: 0.0 fps, 0 dropped");
}

#define PROGRAM(name, rate)                                                          \
    "{\"id\": 3, \"name\": \"" name "\", \"fps\": 59.8, \"frame_ms_median\": 16.6, " \
    "\"frame_ms_p99\": 18.0, \"commands_per_s\": " rate ", \"memory_bytes\": 39845888}"
#define PROGRAMS(list) "{\"contexts\": [" list "]}"

static void test_programs(void **state)
{
    expect(PROGRAMS(PROGRAM("vkcube", "12345.6")), NULL,
           "vkcube: 59.8 fps, 16.6/18.0 ms, 12.3k commands/s, 38 MiB");
    expect(PROGRAMS(PROGRAM("", "999") ", " PROGRAM("b", "2500000")), NULL,
           "context 3: 59.8 fps, 16.6/18.0 ms, 999 commands/s, 38 MiB | "
           "b: 59.8 fps, 16.6/18.0 ms, 2.5M commands/s, 38 MiB");
    expect(PROGRAMS("{\"name\": \"compute\", \"fps\": 0.0, \"commands_per_s\": 7}"), NULL,
           "compute: 7 commands/s");
    expect(PROGRAMS("{\"name\": \"idle\", \"fps\": 0, \"commands_per_s\": 0, \"commands\": 9}"),
           NULL, "nothing is drawn");
    expect(PROGRAMS("{\"name\": \"a\", \"hung\": true, \"memory_bytes\": 0}"), NULL,
           "a: hangs, 0 commands/s, 0 MiB");
    expect(PROGRAMS("{\"name\": \"a\", \"hung\": true, \"failed\": true}"), NULL,
           "a: failed, 0 commands/s");
}

static void test_many(void **state)
{
#define FOUR PROGRAM("a", "1") ", " PROGRAM("a", "1") ", " PROGRAM("a", "1") ", " PROGRAM("a", "1")
    struct json_object *now = json_tokener_parse(PROGRAMS(FOUR ", " FOUR ", " FOUR));
    char *line = pv_stats_line(now, NULL);
    const char *end = strstr(line, "MiB | and 4 more");
    assert_non_null(end);
    assert_string_equal(end, "MiB | and 4 more");
    free(line);
    json_object_put(now);
}

static void test_both(void **state)
{
    expect("{\"scanouts\": [" SCREEN("60", "0") "], \"contexts\": [" PROGRAM("x", "5") "]}", NULL,
           "screen 0: 60.0 fps, 16.7 ms median, 18.2 ms p99, 0 dropped | "
           "x: 59.8 fps, 16.6/18.0 ms, 5 commands/s, 38 MiB");
}

static void test_nonsense(void **state)
{
    expect("{}", "{}", "nothing is drawn");
    expect("[]", "[]", "nothing is drawn");
    expect("7", NULL, "nothing is drawn");
    expect("{\"scanouts\": 1, \"contexts\": \"\"}", NULL, "nothing is drawn");
    expect("{\"scanouts\": [1, null], \"contexts\": [1, null, []]}", NULL, "nothing is drawn");
    expect("{\"scanouts\": [{\"on\": true, \"fps\": \"fast\"}]}", NULL, "nothing is drawn");
    expect("{\"contexts\": [{\"name\": 7, \"fps\": 1, \"memory_bytes\": {}}]}", NULL,
           "7: 1.0 fps, 0 commands/s");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_screens),  cmocka_unit_test(test_programs),
        cmocka_unit_test(test_many),     cmocka_unit_test(test_both),
        cmocka_unit_test(test_nonsense),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
