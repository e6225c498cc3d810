#include "cli/commands.h"
#include "cli/host_probe.h"
#include "cli/options.h"
#include "transport/vtest/server.h"
#include "util/log.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PV_LOG_MODULE "vtest"

struct options {
    struct pv_server_params server;
    struct pv_host_options host;
    const char *device;
    bool json;
    bool help;
};

static void print_help(void)
{
    printf(
        "Usage: pearvisor vtest [OPTION]...\n"
        "Serve Mesa Venus clients on a Unix socket, each in a process of its own.\n\n"
        "  --socket PATH        listen here (default: $VTEST_SOCKET_NAME, else /tmp/.virgl_test)\n"
        "  --device SELECTOR    show this host device only: index, part of the name, or UUID\n"
        "                       (default: all that can be used)\n"
        "  --max-clients N      clients at a time (default: %u); more are turned away\n"
        "  --once               serve one client, and exit with 0 if it ended well, else 1\n"
        "  --json               when listening, print {\"socket\", \"pid\", \"device\"} on one "
        "line\n"
        "  --stats              print what each client did at its end, and totals at ours\n"
        "  --wsi auto|dma-buf|shm\n"
        "                       how swapchain images travel (default: auto, by the client's age)\n"
        "  --memory-tier import|dma-buf|opaque|shadow\n"
        "                       for tests: how memory that clients map is made\n"
        "  --modifier-tier linear|copied\n"
        "                       for tests: how images with a DRM format modifier are made\n"
        "  --log LEVEL          error, warn, info (default), debug or trace\n"
        "  -v, --verbose        one level more; -vv two\n"
        "  -h, --help           this text\n\n"
        "A client finds the server like this:\n"
        "  VN_DEBUG=vtest VTEST_SOCKET_NAME=PATH VK_DRIVER_FILES=.../virtio_icd.json PROGRAM\n",
        PV_SERVER_DEFAULT_CLIENTS);
}

static const struct option long_options[] = {
    {"socket", required_argument, NULL, 's'},
    {"device", required_argument, NULL, 'd'},
    {"max-clients", required_argument, NULL, 'm'},
    {"once", no_argument, NULL, 'o'},
    {"json", no_argument, NULL, 'j'},
    {"stats", no_argument, NULL, 'S'},
    {"wsi", required_argument, NULL, 'w'},
    {"memory-tier", required_argument, NULL, 't'},
    {"modifier-tier", required_argument, NULL, 'T'},
    {"log", required_argument, NULL, 'l'},
    {"verbose", no_argument, NULL, 'v'},
    {"help", no_argument, NULL, 'h'},
    {0},
};

static int parse_wsi(const char *text, enum pv_wsi_path *out)
{
    static const char *const names[] = {
        [PV_WSI_AUTO] = "auto", [PV_WSI_DMA_BUF] = "dma-buf", [PV_WSI_SHM] = "shm"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (strcmp(text, names[i]) == 0) {
            *out = (enum pv_wsi_path)i;
            return 0;
        }
    }
    return pv_usage_error("vtest", "--wsi %s: choose auto, dma-buf or shm", text);
}

static int parse_option(void *data, int option, char **argv)
{
    struct options *options = data;
    switch (option) {
    case 's':
        options->server.socket_path = optarg;
        return 0;
    case 'd':
        options->device = optarg;
        return 0;
    case 'm':
        return pv_option_number("vtest", "--max-clients", optarg, 1, 65536,
                                &options->server.max_clients);
    case 'o':
        options->server.once = true;
        return 0;
    case 'j':
        options->json = true;
        return 0;
    case 'S':
        options->server.stats = true;
        return 0;
    case 'w':
        return parse_wsi(optarg, &options->server.wsi);
    case 't':
        return pv_option_tier("vtest", optarg, &options->host.force_memory_tier);
    case 'T':
        return pv_option_modifier_tier("vtest", optarg, &options->host.force_modifier_tier);
    case 'l':
        return pv_option_log_level("vtest", optarg);
    case 'v':
        pv_option_verbose();
        return 0;
    case 'h':
        options->help = true;
        return 0;
    default:
        return pv_option_error("vtest", option, argv);
    }
}

static int parse_options(int argc, char **argv, struct options *options)
{
    int ret = pv_parse_options(argc, argv, ":vh", long_options, parse_option, options);
    if (ret != 0)
        return ret;
    if (optind < argc)
        return pv_usage_error("vtest", "\"%s\" is too much", argv[optind]);

    if (!options->server.socket_path)
        options->server.socket_path = getenv("VTEST_SOCKET_NAME");
    if (!options->server.socket_path)
        options->server.socket_path = "/tmp/.virgl_test";
    return 0;
}

/* Fill `caps`, and choose what clients are shown. *out_name is the device to name in messages. */
static int look_at_host(struct options *options, struct pv_host_caps *caps, const char **out_name)
{
    char error[512] = "";
    int ret = pv_host_probe_in_child(&options->host, caps, error, sizeof(error));
    if (ret < 0) {
        pv_error("%s", error);
        return ret;
    }
    int index = pv_host_select(caps, options->device, error, sizeof(error));
    if (index < 0) {
        pv_error("%s", error);
        return index;
    }
    options->server.caps = caps;
    options->server.device_index = options->device ? index : -1;
    *out_name = caps->devices[index].name;
    return 0;
}

/* For programs that start us: the socket accepts clients from now on. */
static void print_start_line(const struct options *options, const char *device)
{
    printf("{\"socket\": ");
    pv_print_json_string(options->server.socket_path);
    printf(", \"pid\": %d, \"device\": ", (int)getpid());
    pv_print_json_string(device);
    printf("}\n");
    fflush(stdout);
}

static int serve(struct options *options)
{
    struct pv_host_caps *caps = calloc(1, sizeof(*caps));
    struct pv_server *server = NULL;
    const char *device = "";
    if (!caps) {
        pv_error("out of memory");
        return -ENOMEM;
    }
    int ret = look_at_host(options, caps, &device);
    if (ret == 0)
        ret = pv_server_create(&options->server, &server);
    if (ret == 0) {
        pv_info("listening on %s, device %s", options->server.socket_path, device);
        if (options->json)
            print_start_line(options, device);
        ret = pv_server_run(server);
    }
    pv_server_destroy(server);
    free(caps);
    return ret;
}

int pv_cmd_vtest(int argc, char **argv)
{
    struct options options = {0};
    int ret = parse_options(argc, argv, &options);
    if (ret != 0)
        return ret;
    if (options.help) {
        print_help();
        return PV_EXIT_OK;
    }
    return serve(&options) == 0 ? PV_EXIT_OK : PV_EXIT_FAILED;
}
