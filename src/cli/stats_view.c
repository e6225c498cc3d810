#include "cli/stats_view.h"

#include <json-c/json.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

/* Programs on one line; more are only counted. */
#define PROGRAMS_SHOWN 8

/* False if it is not there. */
static bool get_number(struct json_object *object, const char *name, double *out)
{
    struct json_object *value;
    if (!json_object_object_get_ex(object, name, &value) ||
        (!json_object_is_type(value, json_type_double) &&
         !json_object_is_type(value, json_type_int)))
        return false;
    *out = json_object_get_double(value);
    return isfinite(*out);
}

static double number_or_0(struct json_object *object, const char *name)
{
    double value;
    return get_number(object, name, &value) ? value : 0;
}

static size_t get_list(struct json_object *status, const char *name, struct json_object **out)
{
    if (!json_object_object_get_ex(status, name, out) ||
        !json_object_is_type(*out, json_type_array))
        return 0;
    return json_object_array_length(*out);
}

static bool is_true(struct json_object *object, const char *name)
{
    struct json_object *value;
    return json_object_object_get_ex(object, name, &value) && json_object_get_boolean(value);
}

/* Between entries, but not before the first. */
static void separate(FILE *out, bool *first)
{
    if (!*first)
        fputs(" | ", out);
    *first = false;
}

static void print_count(FILE *out, double value)
{
    if (value < 1000)
        fprintf(out, "%.0f", value);
    else if (value < 1e6)
        fprintf(out, "%.1fk", value / 1e3);
    else
        fprintf(out, "%.1fM", value / 1e6);
}

/* ---- screens ---- */

static void print_screen(FILE *out, size_t index, struct json_object *screen,
                         struct json_object *before)
{
    double dropped, median = number_or_0(screen, "frame_ms_median");
    fprintf(out, "screen %zu: %.1f fps", index, number_or_0(screen, "fps"));
    if (median > 0)
        fprintf(out, ", %.1f ms median, %.1f ms p99", median, number_or_0(screen, "frame_ms_p99"));
    if (!get_number(screen, "dropped", &dropped))
        return;
    if (before)
        dropped -= number_or_0(before, "dropped");
    fprintf(out, ", %.0f dropped", dropped > 0 ? dropped : 0);
}

static void print_screens(FILE *out, bool *first, struct json_object *now,
                          struct json_object *before)
{
    struct json_object *list, *earlier = NULL;
    size_t count = get_list(now, "scanouts", &list);
    size_t known = before ? get_list(before, "scanouts", &earlier) : 0;
    for (size_t i = 0; i < count; i++) {
        struct json_object *screen = json_object_array_get_idx(list, i);
        double fps;
        if (!is_true(screen, "on") || !get_number(screen, "fps", &fps))
            continue;
        separate(out, first);
        print_screen(out, i, screen, i < known ? json_object_array_get_idx(earlier, i) : NULL);
    }
}

/* ---- programs ---- */

static bool is_working(struct json_object *program)
{
    return is_true(program, "failed") || is_true(program, "hung") ||
           number_or_0(program, "fps") > 0 || number_or_0(program, "commands_per_s") > 0;
}

static void print_program(FILE *out, struct json_object *program)
{
    struct json_object *name = NULL;
    double median = number_or_0(program, "frame_ms_median"), memory;
    json_object_object_get_ex(program, "name", &name);
    const char *text = name ? json_object_get_string(name) : "";
    if (text[0] != '\0')
        fprintf(out, "%s: ", text);
    else
        fprintf(out, "context %.0f: ", number_or_0(program, "id"));
    if (is_true(program, "failed") || is_true(program, "hung"))
        fputs(is_true(program, "failed") ? "failed, " : "hangs, ", out);
    if (number_or_0(program, "fps") > 0)
        fprintf(out, "%.1f fps, ", number_or_0(program, "fps"));
    if (median > 0)
        fprintf(out, "%.1f/%.1f ms, ", median, number_or_0(program, "frame_ms_p99"));
    print_count(out, number_or_0(program, "commands_per_s"));
    fputs(" commands/s", out);
    if (get_number(program, "memory_bytes", &memory))
        fprintf(out, ", %.0f MiB", memory / (1 << 20));
}

static void print_programs(FILE *out, bool *first, struct json_object *now)
{
    struct json_object *list;
    size_t count = get_list(now, "contexts", &list), shown = 0, more = 0;
    for (size_t i = 0; i < count; i++) {
        struct json_object *program = json_object_array_get_idx(list, i);
        if (!is_working(program))
            continue;
        if (shown == PROGRAMS_SHOWN) {
            more++;
            continue;
        }
        separate(out, first);
        print_program(out, program);
        shown++;
    }
    if (more > 0)
        fprintf(out, " | and %zu more", more);
}

char *pv_stats_line(struct json_object *now, struct json_object *before)
{
    char *line = NULL;
    size_t size;
    bool first = true;
    FILE *out = open_memstream(&line, &size);
    if (!out)
        return NULL;
    print_screens(out, &first, now, before);
    print_programs(out, &first, now);
    if (first)
        fputs("nothing is drawn", out);
    if (fclose(out) != 0) {
        free(line);
        return NULL;
    }
    return line;
}
