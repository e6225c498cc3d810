#include "cli/commands.h"

#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

struct command {
    const char *name;
    const char *summary;
    int (*run)(int argc, char **argv);
};

static const struct command commands[] = {
    {"doctor", "what works here, what does not, and what to do about it", pv_cmd_doctor},
    {"run", "boot a Linux guest with a GPU; run a command in it, or use its console", pv_cmd_run},
    {"screenshot", "save what is on the screen of a running guest", pv_cmd_screenshot},
    {"stats", "what the GPU of a running guest does, each second", pv_cmd_stats},
    {"image", "build, list and remove guest images", pv_cmd_image},
    {"engine", "install the QEMU that virtual machines need, where there is none", pv_cmd_engine},
    {"gpu", "the virtio-gpu device of a virtual machine, for QEMU and other VMMs", pv_cmd_gpu},
    {"view", "show a running device: VNC, a web page, a window, a picture", pv_cmd_view},
    {"vtest", "serve Mesa Venus clients on a Unix socket, no virtual machine needed", pv_cmd_vtest},
};
#define COMMAND_COUNT (sizeof(commands) / sizeof(commands[0]))

static void print_help(FILE *to)
{
    fprintf(to, "Usage: pearvisor COMMAND [OPTION]...\n"
                "A Vulkan GPU for virtual machines and containers.\n\n"
                "Commands:\n");
    for (size_t i = 0; i < COMMAND_COUNT; i++)
        fprintf(to, "  %-10s  %s\n", commands[i].name, commands[i].summary);
    fprintf(to, "  %-10s  %s\n", "help", "help on a command: pearvisor help vtest");
    fprintf(to, "\nOptions:\n"
                "  -h, --help     this text\n"
                "  -V, --version  the version\n");
}

int pv_usage_error(const char *command, const char *format, ...)
{
    const char *space = command[0] ? " " : "";
    va_list args;
    fprintf(stderr, "pearvisor%s%s: ", space, command);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fprintf(stderr, "; see pearvisor%s%s --help\n", space, command);
    return PV_EXIT_USAGE;
}

int pv_option_error(const char *command, int result, char **argv)
{
    const char *given = argv[optind - 1];
    if (result == ':')
        return pv_usage_error(command, "%s needs a value", given);
    if (strncmp(given, "--", 2) == 0) /* unknown, ambiguous, or a value where none belongs */
        return pv_usage_error(command, "%s is not an option here", given);
    return pv_usage_error(command, "-%c is not an option", optopt);
}

int pv_parse_options(int argc, char **argv, const char *letters, const struct option *names,
                     int (*parse)(void *options, int option, char **argv), void *options)
{
    int option, ret = 0;
    opterr = 0;
    while (ret == 0 && (option = getopt_long(argc, argv, letters, names, NULL)) != -1)
        ret = parse(options, option, argv);
    return ret;
}

static unsigned int smaller(unsigned int a, unsigned int b)
{
    return a < b ? a : b;
}

/* How many letters have to be added, removed, replaced or swapped with the next one to make `b` of
 * `a` (short words). */
static unsigned int edit_distance(const char *a, const char *b)
{
    unsigned int rows[3][32]; /* rows[i % 3][j]: to make the first j letters of b of the first i */
    size_t width = strlen(b);
    if (width >= sizeof(rows[0]) / sizeof(rows[0][0]))
        return ~0u;
    for (size_t j = 0; j <= width; j++)
        rows[0][j] = (unsigned int)j;

    size_t i = 0;
    while (a[i]) {
        i++;
        unsigned int *row = rows[i % 3];
        const unsigned int *above = rows[(i - 1) % 3], *two_above = rows[(i + 1) % 3];
        row[0] = (unsigned int)i;
        for (size_t j = 1; j <= width; j++) {
            row[j] = smaller(above[j], row[j - 1]) + 1;
            row[j] = smaller(row[j], above[j - 1] + (a[i - 1] != b[j - 1]));
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                row[j] = smaller(row[j], two_above[j - 2] + 1);
        }
    }
    return rows[i % 3][width];
}

const char *pv_closer_word(const char *given, const char *word, const char *closest,
                           unsigned int *distance)
{
    unsigned int d = edit_distance(given, word);
    if (d >= *distance)
        return closest;
    *distance = d;
    return word;
}

static const struct command *find_command(const char *name)
{
    for (size_t i = 0; i < COMMAND_COUNT; i++) {
        if (strcmp(commands[i].name, name) == 0)
            return &commands[i];
    }
    return NULL;
}

static int unknown_command(const char *name)
{
    const char *closest = NULL;
    unsigned int distance = 3; /* further away is another word */
    for (size_t i = 0; i < COMMAND_COUNT; i++)
        closest = pv_closer_word(name, commands[i].name, closest, &distance);
    if (closest)
        return pv_usage_error("", "there is no command \"%s\"; did you mean \"%s\"?", name,
                              closest);
    return pv_usage_error("", "there is no command \"%s\"", name);
}

static int run_command(const char *name, int argc, char **argv)
{
    const struct command *command = find_command(name);
    if (!command)
        return unknown_command(name);
    optind = 1;
    return command->run(argc, argv);
}

static int run_help(int argc, char **argv)
{
    if (argc < 2) {
        print_help(stdout);
        return PV_EXIT_OK;
    }
    char help[] = "--help";
    char *help_argv[] = {argv[1], help, NULL};
    return run_command(argv[1], 2, help_argv);
}

/* The processes:
 *
 *   pearvisor doctor ── fork ──► probe: loads Vulkan, looks, answers by a pipe, ends
 *
 *   pearvisor run ──┬ exec ──► pearvisor gpu ◄── vhost-user, guest memory ──┐
 *     keeps them,   ├ exec ──► QEMU ◄─────────────────────────────────────┘
 *     pumps bytes   │  ▲ monitor, console, guest agent, a command's streams: socket pairs
 *                   └ exec ──► pearvisor view, for each display
 *                                ◄── screens in shared memory, from the device; keys to QEMU
 *
 *   pearvisor vtest ──┬ fork ──► probe: the same, once at the start
 *     one thread;     ├ fork ──► worker 1 ◄── socket, shared memory ──► client 1 (Mesa Venus)
 *     never loads     └ fork ──► worker 2 ◄── socket, shared memory ──► client 2
 *     Vulkan                       │ main thread: socket, context stream
 *                                  │ ring threads: commands and replies in shared memory
 *                                  │ timeline threads: wait for the GPU, signal fences
 *                                  └ the driver's own threads
 *
 *   pearvisor gpu ──┬ fork ──► probe: the same
 *     one thread,   └ fork ──► spawner ── fork ──► a worker per guest context: as above, its ring
 *     one loop:                                    in memory that the guest maps
 *     vhost-user ◄── sockets, eventfds, guest memory ──► QEMU
 *
 * A worker is a fork of the server and serves one client; what goes wrong in the driver or is
 * provoked by the client ends that worker and nothing else. The server only accepts, counts and
 * cleans up. Threads are listed in docs/architecture.md.
 */
int main(int argc, char **argv)
{
    const char *first = argc > 1 ? argv[1] : "";
    if (argc < 2) {
        print_help(stderr);
        return PV_EXIT_USAGE;
    }
    if (strcmp(first, "--help") == 0 || strcmp(first, "-h") == 0) {
        print_help(stdout);
        return PV_EXIT_OK;
    }
    if (strcmp(first, "--version") == 0 || strcmp(first, "-V") == 0) {
        printf("pearvisor %s\n", PV_VERSION);
        return PV_EXIT_OK;
    }
    if (strcmp(first, "help") == 0)
        return run_help(argc - 1, argv + 1);
    if (first[0] == '-')
        return pv_usage_error("", "%s is not an option here", first);
    return run_command(first, argc - 1, argv + 1);
}
