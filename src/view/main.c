#include "display/input.h"
#include "display/keymap.h"
#include "display/viewer.h"
#include "util/log.h"
#include "util/os.h"
#include "view/displays.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>

#define PV_LOG_MODULE "view"

#define EXIT_OK     0
#define EXIT_FAILED 1
#define EXIT_USAGE  2

#define DEFAULT_KEYMAP "us"
#define DEFAULT_NAME   "PearVisor"
/* A password file has one line. VNC uses 8 bytes of it. */
#define PASSWORD_MAX 256
/* A device whose screen is on says so at once. */
#define PICTURE_WAIT_MS 300u

struct options {
    const char *control_path, *qmp_path;
    int control_fd, input_fd; /* -1: none */
    const char *password_file, *keymap, *name;
    uint32_t scanout;
    const struct pv_display_kind *kind;
    const char *address;
    bool no_password, help;
};

struct view_process {
    uv_loop_t loop;
    uv_signal_t signals[4]; /* SIGINT, SIGTERM, SIGHUP, SIGUSR1 */
    uv_timer_t timer;
    bool stopped;
    struct pv_viewer *viewer;
    struct pv_input *input;
    struct pv_keymap *keymap;
    const struct pv_display_kind *kind;
    void *display; /* NULL: not yet */
    uint32_t scanout;
};

/* ---- command line ---- */

static void print_help(void)
{
    printf("Usage: pearvisor view [OPTION]... --control PATH DISPLAY\n"
           "Show the screen of a running device, and give its guest a keyboard and a pointer.\n\n"
           "DISPLAY:\n");
    for (const struct pv_display_kind *const *kind = pv_display_kinds(); *kind; kind++)
        printf("  %s\n", (*kind)->synopsis);
    printf(
        "  ADDRESS is PORT, HOST:PORT or an absolute path, of a Unix socket. Nothing but this\n"
        "  machine can connect unless a HOST is given.\n\n"
        "  --control PATH           the control socket of pearvisor gpu or pearvisor run\n"
        "  --control-fd N           the same, connected already\n"
        "  --qmp PATH               QEMU's monitor, for keyboard and pointer\n"
        "  --input-fd N             where pearvisor run takes them\n"
        "  --password-file FILE     vnc: the first line of FILE is the password; default, but for\n"
        "                           Unix sockets: one is made, and printed\n"
        "  --no-password            vnc: none\n"
        "  --scanout N              which screen; default 0\n"
        "  --keymap LAYOUT[:VARIANT]\n"
        "                           the guest's keyboard layout, for VNC clients that send\n"
        "                           symbols; default us\n"
        "  --name NAME              of the guest, for titles\n"
        "  --log LEVEL              error, warn, info, debug or trace\n"
        "  -v, --verbose            one level more\n"
        "  -h, --help               this text\n");
}

static int usage_error(const char *format, ...) __attribute__((format(printf, 1, 2)));

static int usage_error(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fprintf(stderr, "pearvisor view: ");
    vfprintf(stderr, format, args);
    fprintf(stderr, "; see pearvisor view --help\n");
    va_end(args);
    return EXIT_USAGE;
}

static const struct option long_options[] = {
    {"control", required_argument, NULL, 'c'},
    {"control-fd", required_argument, NULL, 'C'},
    {"qmp", required_argument, NULL, 'q'},
    {"input-fd", required_argument, NULL, 'i'},
    {"password-file", required_argument, NULL, 'p'},
    {"no-password", no_argument, NULL, 'P'},
    {"scanout", required_argument, NULL, 's'},
    {"keymap", required_argument, NULL, 'k'},
    {"name", required_argument, NULL, 'n'},
    {"log", required_argument, NULL, 'l'},
    {"verbose", no_argument, NULL, 'v'},
    {"help", no_argument, NULL, 'h'},
    {0},
};

static int parse_number(const char *option, const char *text, long max, long *out)
{
    char *end;
    errno = 0;
    *out = strtol(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || *end || errno != 0 || *out > max)
        return usage_error("%s %s: a number from 0 to %ld is needed", option, text, max);
    return 0;
}

static int parse_fd(const char *option, const char *text, int *out)
{
    long fd;
    int ret = parse_number(option, text, 1 << 20, &fd);
    if (ret != 0)
        return ret;
    *out = (int)fd;
    if (fcntl(*out, F_SETFD, FD_CLOEXEC) < 0)
        return usage_error("%s %s: this file descriptor is not open", option, text);
    return 0;
}

static int parse_scanout(const char *text, uint32_t *out)
{
    long number;
    int ret = parse_number("--scanout", text, PV_VIEWER_SCANOUTS_MAX - 1, &number);
    if (ret == 0)
        *out = (uint32_t)number;
    return ret;
}

static int parse_level(const char *text)
{
    enum pv_log_level level;
    if (pv_log_parse_level(text, &level) < 0)
        return usage_error("--log %s: choose error, warn, info, debug or trace", text);
    pv_log_set_level(level);
    return 0;
}

static int option_error(int result, char **argv)
{
    const char *given = argv[optind - 1];
    if (result == ':')
        return usage_error("%s needs a value", given);
    if (strncmp(given, "--", 2) == 0)
        return usage_error("%s is not an option here", given);
    return usage_error("-%c is not an option", optopt);
}

static int parse_option(struct options *options, int option, char **argv)
{
    switch (option) {
    case 'c':
        options->control_path = optarg;
        return 0;
    case 'C':
        return parse_fd("--control-fd", optarg, &options->control_fd);
    case 'q':
        options->qmp_path = optarg;
        return 0;
    case 'i':
        return parse_fd("--input-fd", optarg, &options->input_fd);
    case 'p':
        options->password_file = optarg;
        return 0;
    case 'P':
        options->no_password = true;
        return 0;
    case 's':
        return parse_scanout(optarg, &options->scanout);
    case 'k':
        options->keymap = optarg;
        return 0;
    case 'n':
        options->name = optarg;
        return 0;
    case 'l':
        return parse_level(optarg);
    case 'v':
        if (pv_log_get_level() < PV_LOG_TRACE)
            pv_log_set_level(pv_log_get_level() + 1);
        return 0;
    case 'h':
        options->help = true;
        return 0;
    default:
        return option_error(option, argv);
    }
}

static int parse_display(struct options *options, const char *text)
{
    const char *colon = strchr(text, ':');
    size_t size = colon ? (size_t)(colon - text) : strlen(text);
    bool absent;
    options->address = colon ? colon + 1 : NULL;
    options->kind = pv_display_find(text, size, &absent);
    if (options->kind)
        return 0;
    if (absent)
        return usage_error("this build has no display \"%.*s\": its library was missing", (int)size,
                           text);
    return usage_error("there is no display \"%.*s\": choose vnc, web, window or png:FILE",
                       (int)size, text);
}

static int parse_options(int argc, char **argv, struct options *options)
{
    int option;
    opterr = 0;
    while ((option = getopt_long(argc, argv, ":vh", long_options, NULL)) != -1) {
        int ret = parse_option(options, option, argv);
        if (ret != 0)
            return ret;
    }
    if (options->help)
        return 0;
    if (!options->control_path == (options->control_fd < 0))
        return usage_error("%s", options->control_path
                                     ? "--control and --control-fd exclude each other"
                                     : "--control PATH or --control-fd N is needed");
    if (options->qmp_path && options->input_fd >= 0)
        return usage_error("--qmp and --input-fd exclude each other");
    if (options->password_file && options->no_password)
        return usage_error("--password-file and --no-password exclude each other");
    if (optind >= argc)
        return usage_error("what to show it with is missing: vnc, web, window or png:FILE");
    if (optind + 1 < argc)
        return usage_error("\"%s\" is too much", argv[optind + 1]);
    return parse_display(options, argv[optind]);
}

/* ---- running ---- */

/* The first line of a file; empty is no password, and an error. */
static int read_password(const char *path, char out[PASSWORD_MAX])
{
    FILE *file = fopen(path, "re");
    if (!file) {
        pv_error("cannot read the password file %s: %s", path, strerror(errno));
        return -errno;
    }
    if (!fgets(out, PASSWORD_MAX, file))
        out[0] = '\0';
    fclose(file);
    out[strcspn(out, "\r\n")] = '\0';
    if (out[0] == '\0') {
        pv_error("the password file %s has no password in its first line", path);
        return -EINVAL;
    }
    return 0;
}

static void on_frame(void *data, uint32_t scanout)
{
    struct view_process *process = data;
    if (scanout == process->scanout && process->display && process->kind->frame)
        process->kind->frame(process->display);
}

static void on_resized(void *data, uint32_t scanout)
{
    struct view_process *process = data;
    if (scanout == process->scanout && process->display && process->kind->resized)
        process->kind->resized(process->display);
}

static void on_cursor(void *data, uint32_t scanout, bool image)
{
    struct view_process *process = data;
    if (scanout == process->scanout && process->display && process->kind->cursor)
        process->kind->cursor(process->display, image);
}

static void on_mode(void *data, uint32_t scanout)
{
    struct view_process *process = data;
    if (scanout == process->scanout && process->display && process->kind->mode)
        process->kind->mode(process->display);
}

static void stop(struct view_process *process)
{
    process->stopped = true;
    uv_stop(&process->loop);
}

static void on_lost(void *data)
{
    struct view_process *process = data;
    pv_info("%s: the device has ended", process->kind->name);
    stop(process);
}

static const struct pv_viewer_events viewer_events = {
    .frame = on_frame,
    .resized = on_resized,
    .cursor = on_cursor,
    .mode = on_mode,
    .lost = on_lost,
};

static void on_ended(void *data)
{
    stop(data);
}

static void on_signal(uv_signal_t *handle, int number)
{
    struct view_process *process = handle->data;
    if (number != SIGUSR1)
        stop(process);
    else if (process->display && process->kind->save)
        process->kind->save(process->display);
}

static void watch_signals(struct view_process *process)
{
    static const int numbers[] = {SIGINT, SIGTERM, SIGHUP, SIGUSR1};
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
        uv_signal_init(&process->loop, &process->signals[i]);
        process->signals[i].data = process;
        uv_signal_start(&process->signals[i], on_signal, numbers[i]);
    }
    signal(SIGPIPE, SIG_IGN); /* a peer that has gone is an error to look at, not to die of */
}

/* Without a keymap a display can still be looked at, and typed into by position. */
static int make_keymap(const struct options *options, struct view_process *process)
{
    int ret =
        pv_keymap_create(options->keymap ? options->keymap : DEFAULT_KEYMAP, &process->keymap);
    if (ret == 0 || !options->keymap) {
        if (ret < 0)
            pv_warn("no keyboard layout \"%s\": clients that send symbols cannot type",
                    DEFAULT_KEYMAP);
        return 0;
    }
    pv_error(
        "there is no keyboard layout \"%s\": LAYOUT[:VARIANT] is needed, such as de:nodeadkeys",
        options->keymap);
    return ret;
}

static void on_waited(uv_timer_t *timer)
{
    *(bool *)timer->data = true;
}

/* Who connects at once is to find the screen as it is: some clients cannot follow a new size. A
 * screen that is off has no picture to wait for. */
static void wait_for_picture(struct view_process *process)
{
    bool waited = false;
    process->timer.data = &waited;
    uv_timer_start(&process->timer, on_waited, PICTURE_WAIT_MS, 0);
    while (!waited && !process->stopped) {
        const struct pv_view *view = pv_viewer_get(process->viewer, process->scanout);
        if (view && view->width > 0)
            break;
        uv_run(&process->loop, UV_RUN_ONCE);
    }
    uv_timer_stop(&process->timer);
}

/* What was said before the display was there. */
static void show_all(struct view_process *process)
{
    const struct pv_view *view = pv_viewer_get(process->viewer, process->scanout);
    if (!view || view->width == 0)
        return;
    on_resized(process, process->scanout);
    on_cursor(process, process->scanout, true);
    on_frame(process, process->scanout);
}

static int start(const struct options *options, struct view_process *process)
{
    char password[PASSWORD_MAX];
    int ret = make_keymap(options, process);
    if (ret == 0 && options->password_file)
        ret = read_password(options->password_file, password);
    if (ret == 0)
        ret = pv_input_create(
            &(struct pv_input_params){
                .loop = &process->loop,
                .qmp_path = options->qmp_path,
                .relay_fd = options->input_fd,
            },
            &process->input);
    if (ret == 0)
        ret = pv_viewer_create(
            &(struct pv_viewer_params){
                .loop = &process->loop,
                .control_path = options->control_path,
                .control_fd = options->control_fd,
                .events = &viewer_events,
                .data = process,
            },
            &process->viewer);
    if (ret == 0)
        wait_for_picture(process);
    if (ret == 0 && !process->stopped)
        ret = process->kind->create(
            &(struct pv_display_params){
                .loop = &process->loop,
                .viewer = process->viewer,
                .input = process->input,
                .keymap = process->keymap,
                .scanout = options->scanout,
                .address = options->address,
                .name = options->name ? options->name : DEFAULT_NAME,
                .password = options->password_file ? password : NULL,
                .no_password = options->no_password,
                .ended = on_ended,
                .data = process,
            },
            &process->display);
    explicit_bzero(password, sizeof(password));
    if (ret == 0 && process->display)
        show_all(process);
    return ret;
}

static int run(const struct options *options)
{
    struct view_process process = {.kind = options->kind, .scanout = options->scanout};
    uv_loop_init(&process.loop);
    uv_timer_init(&process.loop, &process.timer);
    watch_signals(&process);
    int ret = start(options, &process);
    if (ret == 0 && !process.stopped)
        uv_run(&process.loop, UV_RUN_DEFAULT);
    if (process.display)
        process.kind->destroy(process.display);
    pv_viewer_destroy(process.viewer);
    pv_input_destroy(process.input);
    pv_keymap_destroy(process.keymap);
    uv_close((uv_handle_t *)&process.timer, NULL);
    for (size_t i = 0; i < sizeof(process.signals) / sizeof(process.signals[0]); i++)
        uv_close((uv_handle_t *)&process.signals[i], NULL);
    uv_run(&process.loop, UV_RUN_DEFAULT); /* until all that was closed has been let go */
    uv_loop_close(&process.loop);
    return ret;
}

/* The process: one display of one device.
 *
 *   pearvisor gpu ──── control socket, screen socket, pictures ───► viewer.c ──► vnc, web, window,
 *   pearvisor run ◄─── keys, pointer ────────────────────────────── input.c  ◄── or png
 *
 * One event loop; VNC has a thread for each client. A display that hangs or ends costs the guest
 * and other displays nothing.
 */
int main(int argc, char **argv)
{
    struct options options = {.control_fd = -1, .input_fd = -1};
    int ret = parse_options(argc, argv, &options);
    if (ret != 0)
        return ret;
    if (options.help) {
        print_help();
        return EXIT_OK;
    }
    pv_die_with_parent();
    return run(&options) == 0 ? EXIT_OK : EXIT_FAILED;
}
