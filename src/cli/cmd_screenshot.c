#include "cli/commands.h"
#include "cli/control_socket.h"
#include "cli/options.h"
#include "util/log.h"
#include "vm/gpu_client.h"

#include <errno.h>
#include <getopt.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>

#define PV_LOG_MODULE "screenshot"

#define SCANOUT_MAX 15u

struct options {
    struct pv_control_options control;
    const char *file;
    uint32_t scanout;
    bool help;
};

static const struct option long_options[] = {
    PV_CONTROL_LONG_OPTIONS,
    {"scanout", required_argument, NULL, 's'},
    {"help", no_argument, NULL, 'h'},
    {0},
};

static void print_help(void)
{
    printf("Usage: pearvisor screenshot [OPTION]... [FILE]\n"
           "Save what is on the screen of a running guest as a PNG file (default:\n"
           "screenshot.png; -: standard output).\n\n" PV_CONTROL_HELP
           "  --scanout N     the screen, from 0 (default)\n"
           "  -h, --help      this text\n");
}

static int parse_option(void *data, int option, char **argv)
{
    struct options *options = data;
    switch (option) {
    case 's':
        return pv_option_number("screenshot", "--scanout", optarg, 0, SCANOUT_MAX,
                                &options->scanout);
    case 'h':
        options->help = true;
        return 0;
    default:
        return pv_parse_control_option("screenshot", &options->control, option, argv);
    }
}

static int parse_options(int argc, char **argv, struct options *options)
{
    int ret = pv_parse_options(argc, argv, ":h", long_options, parse_option, options);
    if (ret != 0)
        return ret;
    if (optind < argc)
        options->file = argv[optind++];
    if (optind < argc)
        return pv_usage_error("screenshot", "\"%s\" is too much", argv[optind]);
    return 0;
}

struct shot {
    struct pv_gpu_client *client;
    bool failed;
    char error[256];
};

static void on_answer(void *data, struct json_object *result, const char *error)
{
    struct shot *shot = data;
    shot->failed = error != NULL;
    snprintf(shot->error, sizeof(shot->error), "%s", error ? error : "");
    pv_gpu_client_destroy(shot->client); /* which ends the loop */
}

/* `path` is absolute. */
static int take(int control_fd, uint32_t scanout, const char *path)
{
    struct shot shot = {0};
    uv_loop_t loop;
    uv_loop_init(&loop);
    int ret = pv_gpu_client_create(&loop, control_fd, &shot.client);
    if (ret < 0)
        close(control_fd);
    else
        ret = pv_gpu_client_screenshot(shot.client, scanout, path, on_answer, &shot);
    if (ret < 0) {
        snprintf(shot.error, sizeof(shot.error), "%s", strerror(-ret));
        shot.failed = true;
        pv_gpu_client_destroy(shot.client);
    }
    uv_run(&loop, UV_RUN_DEFAULT);
    uv_loop_close(&loop);
    if (shot.failed)
        pv_error("no picture: %s", shot.error);
    return shot.failed ? -EIO : 0;
}

static int copy_to_stdout(const char *path)
{
    char buffer[65536];
    size_t n;
    FILE *file = fopen(path, "re");
    while (file && (n = fread(buffer, 1, sizeof(buffer), file)) > 0)
        fwrite(buffer, 1, n, stdout);
    bool good = file && !ferror(file) && fflush(stdout) == 0;
    if (file)
        fclose(file);
    if (!good)
        pv_error("cannot copy the picture: %s", strerror(errno));
    return good ? 0 : -EIO;
}

/* The device writes files only. */
static int take_to_stdout(int control_fd, uint32_t scanout)
{
    const char *tmp = getenv("TMPDIR");
    char folder[1024], path[1100];
    snprintf(folder, sizeof(folder), "%s/pearvisor-screenshot.XXXXXX", tmp && *tmp ? tmp : "/tmp");
    if (!mkdtemp(folder)) {
        pv_error("cannot make the folder %s: %s", folder, strerror(errno));
        close(control_fd);
        return -EIO;
    }
    snprintf(path, sizeof(path), "%s/screen.png", folder);
    int ret = take(control_fd, scanout, path);
    if (ret == 0)
        ret = copy_to_stdout(path);
    unlink(path);
    rmdir(folder);
    return ret;
}

/* The device has a folder of its own. */
static int take_to_file(int control_fd, uint32_t scanout, const char *file)
{
    char path[8192] = "", *folder = file[0] == '/' ? NULL : getcwd(NULL, 0);
    snprintf(path, sizeof(path), "%s%s%s", folder ? folder : "", folder ? "/" : "", file);
    free(folder);
    return take(control_fd, scanout, path);
}

int pv_cmd_screenshot(int argc, char **argv)
{
    struct options options = {.file = "screenshot.png"};
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
    ret = strcmp(options.file, "-") == 0 ? take_to_stdout(fd, options.scanout)
                                         : take_to_file(fd, options.scanout, options.file);
    return ret == 0 ? PV_EXIT_OK : PV_EXIT_FAILED;
}
