/* pv-bench: what the transport costs, seen from an ordinary Vulkan program.
 *
 *   pv-bench [--list] [--only NAME]... [--limit SECONDS] [--json]
 *
 * The program knows nothing of PearVisor: run it natively and through Venus (bench/run.py does
 * both) and compare. A figure that cannot run on a driver is reported as unsupported, with the
 * reason.
 *
 *   pv-bench --- fork, one per figure ---> child: loader, instance, device, samples
 *            <-- struct result or reason, through a pipe --'
 */
#include "bench.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    SAMPLE_COUNT = 9,
    SAMPLE_NS = 25 * 1000 * 1000, /* far above the clock's and the scheduler's grain */
    FIGURE_LIMIT_S = 20,          /* one takes about a second */
    MAX_ONLY = 16,
};

struct report {
    struct result result;
    char reason[256]; /* why there is no result; empty if there is one */
};

static const struct figure *const figure_lists[] = {figures_call, figures_memory};

/* ---- sampling ---- */

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double measure_fixed(sample_fn sample, void *state, uint32_t iterations, uint32_t sample_count)
{
    double *times = calloc(sample_count, sizeof(*times));
    if (!times)
        vkh_fail("out of memory");
    for (uint32_t i = 0; i < sample_count; i++)
        times[i] = (double)sample(state, iterations) / iterations;
    qsort(times, sample_count, sizeof(*times), compare_doubles);
    double median = sample_count % 2 ? times[sample_count / 2]
                                     : (times[sample_count / 2 - 1] + times[sample_count / 2]) / 2;
    free(times);
    return median;
}

double measure(sample_fn sample, void *state)
{
    uint32_t iterations = 1;
    uint64_t time = sample(state, iterations);
    while (time < SAMPLE_NS && iterations < 1u << 28) {
        iterations *= 2;
        time = sample(state, iterations);
    }
    return measure_fixed(sample, state, iterations, SAMPLE_COUNT);
}

/* ---- one figure in a child ---- */

static int report_fd = -1; /* in the child: where the report goes */

static void write_report(const struct report *report)
{
    /* Less than PIPE_BUF, so it is written in one piece. */
    if (write(report_fd, report, sizeof(*report)) != (ssize_t)sizeof(*report))
        _exit(3);
}

static void report_exit(int status, const char *reason)
{
    struct report report = {0};
    (void)status;
    snprintf(report.reason, sizeof(report.reason), "%s", reason);
    write_report(&report);
}

static _Noreturn void run_child(const struct figure *figure, int fd)
{
    report_fd = fd;
    vkh_on_exit(report_exit);
    struct report report = {0};
    struct vkh vk = {0};
    if (!figure->bare)
        vkh_init(&vk, NULL);
    figure->run(&vk, &report.result);
    if (!figure->bare)
        memcpy(report.result.device, vk.properties.deviceName, sizeof(report.result.device));
    /* Nothing is destroyed: a driver that fails at that would take the figure with it. */
    write_report(&report);
    _exit(0);
}

static bool read_report(int fd, uint32_t limit_s, struct report *report)
{
    struct pollfd poll_fd = {.fd = fd, .events = POLLIN};
    uint64_t end = vkh_now_ns() + limit_s * 1000000000ull;
    for (;;) {
        uint64_t now = vkh_now_ns();
        int ready = now < end ? poll(&poll_fd, 1, (int)((end - now) / 1000000 + 1)) : 0;
        if (ready < 0 && errno == EINTR)
            continue;
        if (ready <= 0) {
            snprintf(report->reason, sizeof(report->reason), "no result after %u s", limit_s);
            return false;
        }
        return read(fd, report, sizeof(*report)) == (ssize_t)sizeof(*report);
    }
}

static void describe_end(int status, struct report *report)
{
    if (WIFSIGNALED(status))
        snprintf(report->reason, sizeof(report->reason), "the driver ended the process: %s",
                 strsignal(WTERMSIG(status)));
    else
        snprintf(report->reason, sizeof(report->reason), "the driver ended the process, status %d",
                 WEXITSTATUS(status));
}

static void run_figure(const struct figure *figure, uint32_t limit_s, struct report *report)
{
    int fds[2];
    memset(report, 0, sizeof(*report));
    if (pipe(fds) < 0) {
        snprintf(report->reason, sizeof(report->reason), "pipe: %s", strerror(errno));
        return;
    }
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        close(fds[0]);
        run_child(figure, fds[1]);
    }
    close(fds[1]);
    int status = 0;
    if (child < 0) {
        snprintf(report->reason, sizeof(report->reason), "fork: %s", strerror(errno));
    } else {
        bool received = read_report(fds[0], limit_s, report);
        if (!received && report->reason[0])
            kill(child, SIGKILL);
        waitpid(child, &status, 0);
        if (!received && !report->reason[0])
            describe_end(status, report);
    }
    close(fds[0]);
}

/* ---- output ---- */

static const char *unit_name(enum unit unit)
{
    static const char *const names[] = {"us", "ms", "1/s", "GB/s"};
    return names[unit];
}

static void print_json_string(const char *text)
{
    putchar('"');
    for (; *text; text++) {
        if (*text == '"' || *text == '\\')
            putchar('\\');
        if ((unsigned char)*text >= ' ')
            putchar(*text);
    }
    putchar('"');
}

static void print_json(const struct figure *figure, const struct report *report, bool first)
{
    printf("%s\n    \"%s\": {", first ? "" : ",", figure->name);
    if (report->reason[0]) {
        printf("\"unsupported\": ");
        print_json_string(report->reason);
    } else {
        printf("\"value\": %.6g", report->result.value);
        if (report->result.plain > 0)
            printf(", \"plain\": %.6g", report->result.plain);
    }
    printf(", \"unit\": \"%s\", \"better\": \"%s\"}", unit_name(figure->unit),
           figure->unit <= UNIT_MS ? "lower" : "higher");
}

static void print_text(const struct figure *figure, const struct report *report)
{
    if (report->reason[0]) {
        printf("%-20s unsupported: %s\n", figure->name, report->reason);
        return;
    }
    printf("%-20s %12.5g %-5s", figure->name, report->result.value, unit_name(figure->unit));
    if (report->result.plain > 0)
        printf(" (plain memory: %.5g)", report->result.plain);
    printf("\n");
}

struct options {
    const char *only[MAX_ONLY];
    uint32_t only_count, limit_s;
    bool list, json;
};

static struct options parse_options(int argc, char **argv)
{
    struct options options = {.limit_s = FIGURE_LIMIT_S};
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--list") == 0) {
            options.list = true;
        } else if (strcmp(argv[i], "--json") == 0) {
            options.json = true;
        } else if (strcmp(argv[i], "--limit") == 0) {
            options.limit_s = (uint32_t)vkh_parse_size(vkh_option_value(argc, argv, &i));
        } else if (strcmp(argv[i], "--only") == 0 && options.only_count < MAX_ONLY) {
            options.only[options.only_count++] = vkh_option_value(argc, argv, &i);
        } else {
            fprintf(stderr,
                    "usage: pv-bench [--list] [--only NAME]... [--limit SECONDS] [--json]\n");
            exit(2);
        }
    }
    return options;
}

static bool wanted(const struct options *options, const char *name)
{
    for (uint32_t i = 0; i < options->only_count; i++) {
        if (strcmp(options->only[i], name) == 0)
            return true;
    }
    return options->only_count == 0;
}

int main(int argc, char **argv)
{
    vkh_set_program(argv[0]);
    const struct options options = parse_options(argc, argv);
    char device[VK_MAX_PHYSICAL_DEVICE_NAME_SIZE] = "";
    uint32_t selected = 0, succeeded = 0;
    if (options.json)
        printf("{\n  \"figures\": {");
    for (size_t list = 0; list < VKH_COUNT(figure_lists); list++) {
        for (const struct figure *figure = figure_lists[list]; figure->name; figure++) {
            if (!wanted(&options, figure->name))
                continue;
            if (options.list) {
                printf("%-20s %-5s %s\n", figure->name, unit_name(figure->unit), figure->about);
                selected++, succeeded++;
                continue;
            }
            struct report report;
            run_figure(figure, options.limit_s, &report);
            if (options.json)
                print_json(figure, &report, selected == 0);
            else
                print_text(figure, &report);
            fflush(stdout);
            selected++;
            succeeded += report.reason[0] == '\0';
            if (report.result.device[0])
                memcpy(device, report.result.device, sizeof(device));
        }
    }
    if (options.json) {
        printf("\n  },\n  \"device\": ");
        print_json_string(device);
        printf("\n}\n");
    }
    if (selected == 0) {
        fprintf(stderr, "pv-bench: no such figure (see --list)\n");
        return 2;
    }
    return succeeded ? 0 : 1;
}
