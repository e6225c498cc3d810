#include "cli/commands.h"
#include "cli/host_probe.h"
#include "cli/options.h"
#include "display/publisher.h"
#include "gpu/control.h"
#include "transport/listener.h"
#include "transport/virtio/server.h"
#include "util/log.h"
#include "util/os.h"
#include "worker/spawner.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>

#define PV_LOG_MODULE "gpu"

#define DEFAULT_WINDOW_SIZE (8ull << 30)
#define DEFAULT_MEMORY      "2G"
#define CONTROL_FDS_MAX     16u
#define DEFAULT_REFRESH     60u
#define REFRESH_MAX         500u

struct options {
    const char *socket_path, *control_path, *device, *memory;
    int fd; /* -1: none */
    int control_fds[CONTROL_FDS_MAX], view_fds[CONTROL_FDS_MAX];
    size_t control_fd_count, view_fd_count;
    enum pv_gpu_window window;
    uint64_t window_size;
    uint32_t scanout_count, head_count, width, height, refresh;
    struct pv_host_options host;
    bool no_vulkan, packed, memory_slots, once, json, stats, print_qemu_args, help;
};

static void print_help(void)
{
    printf(
        "Usage: pearvisor gpu --socket PATH [OPTION]...\n"
        "Be the virtio-gpu device of a virtual machine, over vhost-user.\n\n"
        "  --socket PATH        listen here for the VMM\n"
        "  --fd N               or serve this connected socket, and exit when it closes\n"
        "  --control PATH       listen here for commands: status, resize, view, screenshot\n"
        "  --control-fd N       take them from this connected socket; may be repeated\n"
        "  --view-fd N          the same for a display: only status and view\n"
        "  --device SELECTOR    use this host device: index, part of the name, or UUID\n"
        "                       (default: all that can be used)\n"
        "  --no-vulkan          a 2D screen only\n"
        "  --heads N            screens that are plugged in at first, 1 (default) to %u\n"
        "  --scanouts N         screens that can be plugged in, the others later by \"resize\" on\n"
        "                       the control socket (default: as many as --heads)\n"
        "  --resolution WxH     their size at first (default: 1280x800)\n"
        "  --refresh HZ         frames a second for a guest that waits for its page flips, 1 to\n"
        "                       %u (default: %u)\n"
        "  --window auto|arena|dynamic\n"
        "                       how memory that the guest maps gets there: one file mapped by\n"
        "                       the VMM at the start, or each piece when asked for (default:\n"
        "                       auto, the first if the driver can use such memory)\n"
        "  --window-size SIZE   how much of it, a power of two (default: 8G)\n"
        "  --memory-tier import|dma-buf|opaque|shadow\n"
        "                       for tests: how memory that guests map is made\n"
        "  --modifier-tier linear|copied\n"
        "                       for tests: how images with a DRM format modifier are made\n"
        "  --packed             offer packed virtqueues, too\n"
        "  --memory-slots       let the VMM add and remove guest memory piece by piece\n"
        "  --once               exit when the first VMM has disconnected\n"
        "  --json               when listening, print {\"socket\", \"pid\", \"device\"} on one "
        "line\n"
        "  --stats              print what was done at the end\n"
        "  --print-qemu-args    print the arguments for QEMU 11.1 or newer, and exit\n"
        "  --memory SIZE        the guest's memory, for --print-qemu-args (default: %s)\n"
        "  --log LEVEL          error, warn, info (default), debug or trace\n"
        "  -v, --verbose        one level more; -vv two\n"
        "  -h, --help           this text\n",
        PV_GPU_SCANOUTS_MAX, REFRESH_MAX, DEFAULT_REFRESH, DEFAULT_MEMORY);
}

static const struct option long_options[] = {
    {"socket", required_argument, NULL, 's'},
    {"fd", required_argument, NULL, 'f'},
    {"control", required_argument, NULL, 'c'},
    {"control-fd", required_argument, NULL, 'C'},
    {"view-fd", required_argument, NULL, 'V'},
    {"device", required_argument, NULL, 'd'},
    {"no-vulkan", no_argument, NULL, 'n'},
    {"heads", required_argument, NULL, 'H'},
    {"scanouts", required_argument, NULL, 'N'},
    {"resolution", required_argument, NULL, 'r'},
    {"refresh", required_argument, NULL, 'R'},
    {"window", required_argument, NULL, 'w'},
    {"window-size", required_argument, NULL, 'W'},
    {"memory-tier", required_argument, NULL, 't'},
    {"modifier-tier", required_argument, NULL, 'T'},
    {"packed", no_argument, NULL, 'p'},
    {"memory-slots", no_argument, NULL, 'M'},
    {"once", no_argument, NULL, 'o'},
    {"json", no_argument, NULL, 'j'},
    {"stats", no_argument, NULL, 'S'},
    {"print-qemu-args", no_argument, NULL, 'q'},
    {"memory", required_argument, NULL, 'm'},
    {"log", required_argument, NULL, 'l'},
    {"verbose", no_argument, NULL, 'v'},
    {"help", no_argument, NULL, 'h'},
    {0},
};

/* ---- the command line ---- */

static int parse_fd(const char *option, const char *text, int *out)
{
    uint32_t value;
    int ret = pv_option_number("gpu", option, text, 0, INT32_MAX, &value);
    if (ret == 0)
        *out = (int)value;
    return ret;
}

static int add_fd(const char *option, const char *text, int fds[CONTROL_FDS_MAX], size_t *count)
{
    if (*count == CONTROL_FDS_MAX)
        return pv_usage_error("gpu", "%s: at most %u", option, CONTROL_FDS_MAX);
    return parse_fd(option, text, &fds[(*count)++]);
}

static int parse_window(struct options *options, const char *text)
{
    if (strcmp(text, "auto") == 0 || strcmp(text, "dynamic") == 0)
        options->window = PV_GPU_WINDOW_DYNAMIC;
    else if (strcmp(text, "arena") == 0)
        options->window = PV_GPU_WINDOW_ARENA;
    else
        return pv_usage_error("gpu", "--window %s: choose auto, arena or dynamic", text);
    return 0;
}

static int parse_window_size(const char *text, uint64_t *out)
{
    int ret = pv_option_size("gpu", "--window-size", text, out);
    if (ret != 0)
        return ret;
    if ((*out & (*out - 1)) != 0 || *out < pv_page_size() || *out > 1ull << 46)
        return pv_usage_error("gpu", "--window-size %s: a power of two is needed, from %zuK to 64T",
                              text, pv_page_size() >> 10);
    return 0;
}

static int parse_memory(const char *text, const char **out)
{
    uint64_t size;
    *out = text; /* QEMU knows the same suffixes */
    return pv_option_size("gpu", "--memory", text, &size);
}

static int parse_value(struct options *options, int option)
{
    switch (option) {
    case 's':
        options->socket_path = optarg;
        return 0;
    case 'f':
        return parse_fd("--fd", optarg, &options->fd);
    case 'c':
        options->control_path = optarg;
        return 0;
    case 'C':
        return add_fd("--control-fd", optarg, options->control_fds, &options->control_fd_count);
    case 'V':
        return add_fd("--view-fd", optarg, options->view_fds, &options->view_fd_count);
    case 'd':
        options->device = optarg;
        return 0;
    case 'N':
        return pv_option_number("gpu", "--scanouts", optarg, 1, PV_GPU_SCANOUTS_MAX,
                                &options->scanout_count);
    case 'H':
        return pv_option_number("gpu", "--heads", optarg, 1, PV_GPU_SCANOUTS_MAX,
                                &options->head_count);
    case 'R':
        return pv_option_number("gpu", "--refresh", optarg, 1, REFRESH_MAX, &options->refresh);
    case 'r':
        return pv_option_resolution("gpu", "--resolution", optarg, &options->width,
                                    &options->height);
    case 'w':
        return parse_window(options, optarg);
    case 'W':
        return parse_window_size(optarg, &options->window_size);
    case 't':
        return pv_option_tier("gpu", optarg, &options->host.force_memory_tier);
    case 'T':
        return pv_option_modifier_tier("gpu", optarg, &options->host.force_modifier_tier);
    case 'm':
        return parse_memory(optarg, &options->memory);
    default: /* 'l' */
        return pv_option_log_level("gpu", optarg);
    }
}

static int parse_option(void *data, int option, char **argv)
{
    struct options *options = data;
    switch (option) {
    case 'n':
        options->no_vulkan = true;
        return 0;
    case 'p':
        options->packed = true;
        return 0;
    case 'M':
        options->memory_slots = true;
        return 0;
    case 'o':
        options->once = true;
        return 0;
    case 'j':
        options->json = true;
        return 0;
    case 'S':
        options->stats = true;
        return 0;
    case 'q':
        options->print_qemu_args = true;
        return 0;
    case 'v':
        pv_option_verbose();
        return 0;
    case 'h':
        options->help = true;
        return 0;
    case '?':
    case ':':
        return pv_option_error("gpu", option, argv);
    default:
        return parse_value(options, option);
    }
}

static int parse_options(int argc, char **argv, struct options *options)
{
    int ret = pv_parse_options(argc, argv, ":vh", long_options, parse_option, options);
    if (ret != 0)
        return ret;
    if (optind < argc)
        return pv_usage_error("gpu", "\"%s\" is too much", argv[optind]);
    if (options->help)
        return 0;
    if (!options->socket_path == (options->fd < 0))
        return pv_usage_error("gpu", "%s",
                              options->socket_path ? "--socket and --fd exclude each other"
                                                   : "--socket PATH or --fd N is needed");
    if (options->scanout_count == 0)
        options->scanout_count = options->head_count;
    if (options->head_count > options->scanout_count)
        return pv_usage_error("gpu", "--heads %u: there are --scanouts %u", options->head_count,
                              options->scanout_count);
    if (options->print_qemu_args && !options->socket_path)
        return pv_usage_error("gpu", "--print-qemu-args goes with --socket PATH");
    return 0;
}

/* A path inside a comma-separated argument of QEMU (which doubles commas), inside single quotes of
 * a shell. */
static void print_quoted_path(const char *path)
{
    for (; *path; path++) {
        if (*path == ',')
            printf(",,");
        else if (*path == '\'')
            printf("'\\''");
        else
            putchar(*path);
    }
}

static void print_qemu_args(const struct options *options)
{
    char absolute[4096] = "";
    if (options->socket_path[0] != '/' && getcwd(absolute, sizeof(absolute) - 1))
        strcat(absolute, "/");
    printf("-m %s -object memory-backend-memfd,id=pvmem,size=%s,share=on "
           "-machine memory-backend=pvmem -chardev 'socket,id=pvgpu,path=",
           options->memory, options->memory);
    print_quoted_path(absolute);
    print_quoted_path(options->socket_path);
    printf("' -device vhost-user-test-device-pci,chardev=pvgpu,virtio-id=16,num_vqs=%u,vq_size=256,"
           "config_size=%u\n",
           PV_VHOST_QUEUES, PV_GPU_CONFIG_SIZE);
}

/* ---- the host ---- */

/* Find out what the guest can get. `caps` is NULL when it is a screen only. A negative errno only
 * if what the user asked for by name is not there. */
static int look_at_host(const struct options *options, struct pv_host_caps **caps,
                        int *device_index, const char **device_name)
{
    char error[512] = "";
    *device_name = "2D only";
    if (options->no_vulkan) {
        free(*caps);
        *caps = NULL;
        return 0;
    }
    int index = -1;
    int ret = pv_host_probe_in_child(&options->host, *caps, error, sizeof(error));
    if (ret == 0)
        ret = index = pv_host_select(*caps, options->device, error, sizeof(error));
    if (ret >= 0) {
        *device_index = options->device ? index : -1;
        *device_name = (*caps)->devices[index].name;
        return 0;
    }
    if (options->device) {
        pv_error("%s", error);
        return ret;
    }
    pv_warn("no Vulkan driver (%s): the guest gets a 2D screen only; run pearvisor doctor", error);
    free(*caps);
    *caps = NULL;
    return 0;
}

/* Every device that the guest will see must be able to use memory that exists before it does.
 * The arena is for who asks for it: with use_guest_vram, Mesa (24.0 to 25.0.7 and later ones) takes
 * its ring's lock twice at the first command that is larger than 8 KiB, a shader for example, and
 * hangs (vn_ring_cs_upload_locked). */
static void choose_window(struct options *options, const struct pv_host_caps *caps,
                          int device_index)
{
    if (options->window != PV_GPU_WINDOW_ARENA || !caps)
        return;
    for (uint32_t i = 0; i < caps->device_count; i++) {
        const struct pv_device_caps *device = &caps->devices[i];
        bool shown = device_index < 0 ? device->usable : device_index == (int)i;
        if (!shown || pv_device_caps_serve_arena(device))
            continue;
        pv_info("%s cannot use memory of ours: each piece that the guest maps is mapped by the VMM",
                device->name);
        options->window = PV_GPU_WINDOW_DYNAMIC;
    }
}

/* ---- running ---- */

struct gpu_process {
    const struct options *options;
    uv_loop_t loop;
    uv_signal_t signals[3]; /* SIGINT, SIGTERM, SIGHUP */
    struct pv_spawner *spawner;
    struct pv_publisher *publisher;
    struct pv_vhost_server *server;
    struct pv_listener control_listener;
    struct pv_control *control;
};

static void on_signal(uv_signal_t *handle, int number)
{
    pv_debug("signal %d: ending", number);
    uv_stop(handle->loop);
}

static void on_ended(void *data)
{
    struct gpu_process *process = data;
    uv_stop(&process->loop);
}

static void watch_signals(struct gpu_process *process)
{
    static const int numbers[] = {SIGINT, SIGTERM, SIGHUP};
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
        uv_signal_init(&process->loop, &process->signals[i]);
        uv_signal_start(&process->signals[i], on_signal, numbers[i]);
    }
    signal(SIGPIPE, SIG_IGN); /* a peer that has gone is an error to look at, not to die of */
}

static struct pv_gpu *gpu_of(const struct gpu_process *process)
{
    return pv_vhost_device_gpu(pv_vhost_server_device(process->server));
}

static void on_size_wanted(void *data, uint32_t scanout, uint32_t width, uint32_t height)
{
    pv_gpu_set_scanout_size(gpu_of(data), scanout, width, height);
}

static void on_refresh_wanted(void *data, uint32_t scanout)
{
    pv_gpu_show_again(gpu_of(data), scanout);
}

static int create_publisher(struct gpu_process *process)
{
    const struct pv_publisher_params params = {
        .loop = &process->loop,
        .scanout_count = process->options->scanout_count,
        .refresh_mhz = process->options->refresh * 1000,
        .size_wanted = on_size_wanted,
        .refresh_wanted = on_refresh_wanted,
        .data = process,
    };
    int ret = pv_publisher_create(&params, &process->publisher);
    if (ret < 0)
        pv_error("out of memory");
    return ret;
}

static int start_server(struct gpu_process *process)
{
    const struct options *options = process->options;
    const struct pv_vhost_server_params params = {
        .device =
            {
                .loop = &process->loop,
                .gpu =
                    {
                        .spawner = process->spawner,
                        .window = process->spawner ? options->window : PV_GPU_WINDOW_NONE,
                        .window_size = options->window_size,
                        .display = pv_publisher_display(process->publisher),
                        .scanout_count = options->scanout_count,
                        .plugged_count = options->head_count,
                        .width = options->width,
                        .height = options->height,
                        .refresh_mhz = options->refresh * 1000,
                    },
                .packed = options->packed,
                .memory_slots = options->memory_slots,
            },
        .socket_path = options->socket_path,
        .fd = options->fd,
        .once = options->once,
        .ended = on_ended,
        .data = process,
    };
    return pv_vhost_server_create(&params, &process->server);
}

/* For "status" on the control socket. */
static void add_status(void *data, struct json_object *status)
{
    struct gpu_process *process = data;
    struct pv_vhost_device *device = pv_vhost_server_device(process->server);
    struct pv_vhost_stats stats;
    pv_vhost_device_get_stats(device, &stats);
    const struct pv_latency *at_once = &stats.at_once;
    struct json_object *latency = json_object_new_object();
    json_object_object_add(latency, "count", json_object_new_int64((int64_t)at_once->count));
    json_object_object_add(latency, "median_us",
                           json_object_new_double((double)pv_latency_quantile(at_once, 0.5) / 1e3));
    json_object_object_add(
        latency, "p99_us",
        json_object_new_double((double)pv_latency_quantile(at_once, 0.99) / 1e3));
    json_object_object_add(latency, "longest_us",
                           json_object_new_double((double)at_once->longest_ns / 1e3));
    json_object_object_add(status, "kick_to_used", latency);
    json_object_object_add(status, "connected",
                           json_object_new_boolean(pv_vhost_device_attached(device)));
}

static int start_control(struct gpu_process *process)
{
    const struct options *options = process->options;
    if (!options->control_path && options->control_fd_count + options->view_fd_count == 0)
        return 0;
    if (options->control_path) {
        int ret = pv_listener_open(&process->control_listener, options->control_path);
        if (ret < 0)
            return ret;
    }
    int ret = pv_control_create(
        &(struct pv_control_params){
            .loop = &process->loop,
            .gpu = gpu_of(process),
            .publisher = process->publisher,
            .listen_fd = process->control_listener.fd,
            .client_fds = options->control_fds,
            .client_count = options->control_fd_count,
            .view_fds = options->view_fds,
            .view_count = options->view_fd_count,
            .add_status = add_status,
            .data = process,
        },
        &process->control);
    if (ret < 0)
        pv_error("cannot serve the control socket: %s", strerror(-ret));
    return ret;
}

/* For programs that start us: the VMM can connect from now on. */
static void print_start_line(const struct options *options, const char *device)
{
    printf("{\"socket\": ");
    pv_print_json_string(options->socket_path ? options->socket_path : "");
    printf(", \"pid\": %d, \"device\": ", (int)getpid());
    pv_print_json_string(device);
    printf("}\n");
    fflush(stdout);
}

static void print_stats(struct gpu_process *process)
{
    struct pv_vhost_device *device = pv_vhost_server_device(process->server);
    struct pv_vhost_stats transport;
    struct pv_gpu_stats gpu;
    pv_vhost_device_get_stats(device, &transport);
    pv_gpu_get_stats(pv_vhost_device_gpu(device), &gpu);
    printf("transport: %" PRIu64 " VMMs, %" PRIu64 " messages, %" PRIu64 " requests, %" PRIu64
           " kicks, %" PRIu64 " calls\n",
           transport.frontends, transport.messages, transport.requests, transport.kicks,
           transport.calls);
    printf("kick to answer: %" PRIu64 " at once, median %.1f us, p99 %.1f us, longest %.1f us\n",
           transport.at_once.count, (double)pv_latency_quantile(&transport.at_once, 0.5) / 1e3,
           (double)pv_latency_quantile(&transport.at_once, 0.99) / 1e3,
           (double)transport.at_once.longest_ns / 1e3);
    printf("gpu: %" PRIu64 " commands, %" PRIu64 " errors, %" PRIu64 " fences, %" PRIu64
           " flushes, %" PRIu64 " cursor updates, %" PRIu64 " workers, %" PRIu64 " lost\n",
           gpu.commands, gpu.errors, gpu.fences, gpu.flushes, gpu.cursor_updates,
           gpu.workers_started, gpu.workers_lost);
    fflush(stdout);
}

static int run(struct gpu_process *process, const char *device_name)
{
    const struct options *options = process->options;
    uv_loop_init(&process->loop);
    watch_signals(process);
    int ret = create_publisher(process);
    if (ret == 0)
        ret = start_server(process);
    if (ret == 0)
        ret = start_control(process);
    if (ret == 0) {
        if (options->socket_path)
            pv_info("listening on %s, device: %s", options->socket_path, device_name);
        if (options->json)
            print_start_line(options, device_name);
        uv_run(&process->loop, UV_RUN_DEFAULT);
        if (options->stats)
            print_stats(process);
    }
    pv_control_destroy(process->control);
    pv_listener_close(&process->control_listener);
    pv_vhost_server_destroy(process->server);
    pv_publisher_destroy(process->publisher);
    pv_spawner_destroy(process->spawner);
    for (size_t i = 0; i < sizeof(process->signals) / sizeof(process->signals[0]); i++)
        uv_close((uv_handle_t *)&process->signals[i], NULL);
    uv_run(&process->loop, UV_RUN_DEFAULT); /* until all that was closed has been let go */
    uv_loop_close(&process->loop);
    return ret;
}

static int serve(struct options *options)
{
    struct gpu_process process = {.options = options, .control_listener = {.fd = -1}};
    struct pv_host_caps *caps = calloc(1, sizeof(*caps));
    const char *device_name;
    int device_index = -1;
    if (!caps) {
        pv_error("out of memory");
        return -ENOMEM;
    }
    /* In this order: both fork, so there must be no thread, no loop and no guest memory yet. */
    int ret = look_at_host(options, &caps, &device_index, &device_name);
    if (ret == 0)
        choose_window(options, caps, device_index);
    if (ret == 0 && caps)
        ret = pv_spawner_create(
            &(struct pv_spawner_params){.caps = caps, .device_index = device_index},
            &process.spawner);
    if (ret == 0) {
        pv_raise_fd_limit();
        ret = run(&process, device_name);
    }
    free(caps);
    return ret;
}

int pv_cmd_gpu(int argc, char **argv)
{
    struct options options = {
        .fd = -1,
        .window = PV_GPU_WINDOW_DYNAMIC,
        .window_size = DEFAULT_WINDOW_SIZE,
        .head_count = 1,
        .refresh = DEFAULT_REFRESH,
        .memory = DEFAULT_MEMORY,
    };
    int ret = parse_options(argc, argv, &options);
    if (ret != 0)
        return ret;
    if (options.help) {
        print_help();
        return PV_EXIT_OK;
    }
    if (options.print_qemu_args) {
        print_qemu_args(&options);
        return PV_EXIT_OK;
    }
    return serve(&options) == 0 ? PV_EXIT_OK : PV_EXIT_FAILED;
}
