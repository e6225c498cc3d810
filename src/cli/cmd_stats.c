#include "cli/commands.h"
#include "cli/control_socket.h"
#include "cli/options.h"
#include "cli/stats_view.h"
#include "util/log.h"
#include "util/os.h"

#include <getopt.h>
#include <json-c/json.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define PV_LOG_MODULE "stats"

struct options {
    struct pv_control_options control;
    bool once, json, help;
};

static const struct option long_options[] = {
    PV_CONTROL_LONG_OPTIONS,
    {"json", no_argument, NULL, 'j'},
    {"once", no_argument, NULL, 'o'},
    {"help", no_argument, NULL, 'h'},
    {0},
};

static void print_help(void)
{
    printf("Usage: pearvisor stats [OPTION]...\n"
           "Print what the GPU of a running guest does, a line each second: frames per second,\n"
           "frame times, commands and memory of each program.\n\n" PV_CONTROL_HELP
           "  --once          one line, then end\n"
           "  --json          all that the device says, as JSON\n"
           "  -h, --help      this text\n");
}

static int parse_option(void *data, int option, char **argv)
{
    struct options *options = data;
    switch (option) {
    case 'j':
        options->json = true;
        return 0;
    case 'o':
        options->once = true;
        return 0;
    case 'h':
        options->help = true;
        return 0;
    default:
        return pv_parse_control_option("stats", &options->control, option, argv);
    }
}

static int parse_options(int argc, char **argv, struct options *options)
{
    int ret = pv_parse_options(argc, argv, ":h", long_options, parse_option, options);
    if (ret != 0)
        return ret;
    if (optind < argc)
        return pv_usage_error("stats", "\"%s\" is too much", argv[optind]);
    return 0;
}

/* NULL when the device has gone. */
static struct json_object *ask(int fd, FILE *answers)
{
    static const char question[] = "{\"command\": \"status\"}\n";
    char *line = NULL;
    size_t room = 0;
    struct json_object *status = NULL;
    if (pv_send(fd, question, sizeof(question) - 1, true) > 0 && getline(&line, &room, answers) > 0)
        status = json_tokener_parse(line);
    free(line);
    return status;
}

/* False when nobody listens. */
static bool print_status(struct json_object *status, struct json_object *before, bool json)
{
    char *line = json ? NULL : pv_stats_line(status, before);
    puts(line ? line : json_object_to_json_string_ext(status, JSON_C_TO_STRING_PLAIN));
    free(line);
    return fflush(stdout) == 0;
}

static void watch(int fd, FILE *answers, const struct options *options)
{
    const struct timespec second = {.tv_sec = 1};
    struct json_object *status, *before = NULL;
    while ((status = ask(fd, answers))) {
        bool heard = print_status(status, before, options->json);
        json_object_put(before);
        before = status;
        if (!heard || options->once)
            break;
        nanosleep(&second, NULL);
    }
    json_object_put(before);
}

int pv_cmd_stats(int argc, char **argv)
{
    struct options options = {0};
    int ret = parse_options(argc, argv, &options);
    if (ret != 0)
        return ret;
    if (options.help) {
        print_help();
        return PV_EXIT_OK;
    }
    int fd = pv_connect_control(&options.control);
    if (fd < 0)
        return PV_EXIT_FAILED;
    FILE *answers = fdopen(fd, "r");
    if (!answers) {
        pv_error("no memory");
        close(fd);
        return PV_EXIT_FAILED;
    }
    watch(fd, answers, &options);
    fclose(answers);
    return PV_EXIT_OK;
}
