#include "cli/commands.h"
#include "cli/options.h"
#include "cli/stats_view.h"
#include "cli/vm_options.h"
#include "util/log.h"
#include "vm/guests.h"
#include "vm/machine.h"
#include "vm/views.h"

#include <errno.h>
#include <getopt.h>
#include <json-c/json.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PV_LOG_MODULE "run"

#define DEFAULT_MEMORY_MIB 2048u
#define DEFAULT_CPUS_MAX   4u
#define CPUS_MAX           255u
/* Less, and Debian's kernel does not come up. */
#define MEMORY_MIB_MIN 256u
#define MEMORY_MIB_MAX (1u << 24)
#define HEADS_MAX      16u
#define REFRESH_MAX    1000u

struct options {
    const char *image;
    char *const *command;
    uint32_t cpus;
    uint64_t memory_mib;
    enum pv_arch arch;
    bool arch_given;
    enum pv_accel accel;
    const char *screenshot;
    const char *device, *resolution, *control, *keymap, *password_file;
    uint32_t heads, refresh; /* 0: the device's default */
    /* one more each time the option is given */
    struct pv_argv displays, qemu_arguments, gpu_arguments;
    const char *share, *disk;
    uint32_t ssh_port;
    bool desktop, no_password, no_gpu, stats, verbose, help;
    int snapshot; /* -1: as fits */
    uint32_t timeout_s;
};

enum {
    OPTION_CPUS = 256,
    OPTION_MEMORY,
    OPTION_ARCH,
    OPTION_ACCEL,
    OPTION_DISPLAY,
    OPTION_HEADS,
    OPTION_REFRESH,
    OPTION_KEYMAP,
    OPTION_PASSWORD_FILE,
    OPTION_NO_PASSWORD,
    OPTION_STATS,
    OPTION_DEVICE,
    OPTION_RESOLUTION,
    OPTION_SCREENSHOT,
    OPTION_SHARE,
    OPTION_SSH_PORT,
    OPTION_NO_GPU,
    OPTION_DISK,
    OPTION_SNAPSHOT,
    OPTION_KEEP,
    OPTION_TIMEOUT,
    OPTION_CONTROL,
    OPTION_QEMU_ARG,
    OPTION_GPU_ARG,
};

static const struct option long_options[] = {
    {"cpus", required_argument, NULL, OPTION_CPUS},
    {"memory", required_argument, NULL, OPTION_MEMORY},
    {"arch", required_argument, NULL, OPTION_ARCH},
    {"accel", required_argument, NULL, OPTION_ACCEL},
    {"display", required_argument, NULL, OPTION_DISPLAY},
    {"heads", required_argument, NULL, OPTION_HEADS},
    {"refresh", required_argument, NULL, OPTION_REFRESH},
    {"keymap", required_argument, NULL, OPTION_KEYMAP},
    {"password-file", required_argument, NULL, OPTION_PASSWORD_FILE},
    {"no-password", no_argument, NULL, OPTION_NO_PASSWORD},
    {"stats", no_argument, NULL, OPTION_STATS},
    {"device", required_argument, NULL, OPTION_DEVICE},
    {"resolution", required_argument, NULL, OPTION_RESOLUTION},
    {"screenshot", required_argument, NULL, OPTION_SCREENSHOT},
    {"share", required_argument, NULL, OPTION_SHARE},
    {"ssh-port", required_argument, NULL, OPTION_SSH_PORT},
    {"no-gpu", no_argument, NULL, OPTION_NO_GPU},
    {"disk", required_argument, NULL, OPTION_DISK},
    {"snapshot", no_argument, NULL, OPTION_SNAPSHOT},
    {"keep", no_argument, NULL, OPTION_KEEP},
    {"timeout", required_argument, NULL, OPTION_TIMEOUT},
    {"control", required_argument, NULL, OPTION_CONTROL},
    {"qemu-arg", required_argument, NULL, OPTION_QEMU_ARG},
    {"gpu-arg", required_argument, NULL, OPTION_GPU_ARG},
    {"verbose", no_argument, NULL, 'v'},
    {"help", no_argument, NULL, 'h'},
    {0},
};

static void print_help(void)
{
    printf(
        "Usage: pearvisor run [OPTION]... IMAGE [-- COMMAND [ARGUMENT]...]\n"
        "       pearvisor run [OPTION]... --disk FILE [-- COMMAND [ARGUMENT]...]\n"
        "Boot a Linux guest with a Vulkan GPU. Without COMMAND, its console is yours (Ctrl-] ends\n"
        "it). With one, run that in the guest as root, and end with its exit status.\n\n"
        "  --cpus N             processors of the guest (default: this machine's, at most %u)\n"
        "  --memory SIZE        such as 2G or 1536M (default: 2G)\n"
        "  --arch ARCH          x86_64 or aarch64 (default: the image's)\n"
        "  --accel auto|kvm|hvf|tcg\n"
        "                       how the guest's code runs (default: auto, the fastest that works)\n"
        "  --display KIND       show the guest's desktop; may be repeated. KIND is one of\n"
        "      web[:ADDRESS]    a page with it; ADDRESS is [HOST:]PORT (default: 127.0.0.1:6080)\n"
        "      vnc[:ADDRESS]    for VNC viewers; also a path (default: 127.0.0.1:5900)\n"
        "      window           a window on this machine's desktop; closing it ends the guest\n"
        "      png[:FILE]       a picture when the guest ends (default: pearvisor.png)\n"
        "      none             nothing (default)\n"
        "  --resolution WxH     of the guest's screen (default: 1280x800)\n"
        "  --heads N            screens, 1 (default) to %u\n"
        "  --refresh HZ         of the screens (default: 60)\n"
        "  --keymap LAYOUT      of the guest's keyboard, such as de or us:intl (default: us)\n"
        "  --password-file FILE the first line of it is asked of VNC viewers (default, but for\n"
        "                       paths: a password that is printed)\n"
        "  --no-password        VNC viewers are asked for none\n"
        "  --screenshot FILE    at the end, save the guest's screen, whatever is on it\n"
        "  --stats              a line each second on what the GPU does\n"
        "  --device SELECTOR    the host's device to use: index, part of the name, or UUID\n"
        "  --no-gpu             a guest without a GPU\n"
        "  --share DIR          the guest sees this folder at /mnt/share\n"
        "  --ssh-port PORT      port PORT of 127.0.0.1 leads to the guest's port 22\n"
        "  --disk FILE          boot this disk (qcow2 or raw) and no image\n"
        "  --snapshot           throw away what the guest writes; the default with COMMAND\n"
        "  --keep               keep it; the default without\n"
        "  --timeout SECONDS    for COMMAND; then exit with 124\n"
        "  --control PATH       a socket for commands to the GPU: status, resize, screenshot\n"
        "  --gpu-arg ARG        one more argument for pearvisor gpu; may be repeated\n"
        "  --qemu-arg ARG       one more argument for QEMU; may be repeated\n"
        "  -v, --verbose        show QEMU's command line and the guest's boot messages\n"
        "  -h, --help           this text\n",
        DEFAULT_CPUS_MAX, HEADS_MAX);
}

static int bad_value(const char *option, const char *text, const char *need)
{
    return pv_usage_error("run", "%s %s: %s", option, text, need);
}

/* What is behind the colon, pearvisor view looks at. */
static int parse_display(struct options *options, const char *text)
{
    static const char *const viewed[] = {"vnc", "web", "window"};
    size_t kind_size = strcspn(text, ":");
    const char *rest = text[kind_size] ? text + kind_size + 1 : NULL;
    if (strcmp(text, "none") == 0)
        return 0;
    options->desktop = true;
    if (strncmp(text, "png", kind_size) == 0 && kind_size == 3 && (!rest || *rest)) {
        options->screenshot = rest ? rest : "pearvisor.png";
        return 0;
    }
    for (size_t i = 0; i < sizeof(viewed) / sizeof(viewed[0]); i++) {
        if (strlen(viewed[i]) != kind_size || strncmp(text, viewed[i], kind_size) != 0)
            continue;
        if (options->displays.count == PV_VIEWS_MAX)
            return bad_value("--display", text, "these are too many");
        pv_argv_add(&options->displays, text);
        return 0;
    }
    return bad_value("--display", text, "choose none, web, vnc, window or png");
}

/* It gets to the guest by its kernel's command line. */
static int parse_keymap(struct options *options, const char *text)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                                  "_-:";
    options->keymap = text;
    if (!*text || text[strspn(text, letters)])
        return bad_value("--keymap", text, "a layout such as us, de or us:intl is needed");
    return 0;
}

static int parse_memory(struct options *options, const char *text)
{
    uint64_t bytes;
    int ret = pv_option_size("run", "--memory", text, &bytes);
    if (ret != 0)
        return ret;
    options->memory_mib = bytes >> 20;
    if (options->memory_mib < MEMORY_MIB_MIN || options->memory_mib > MEMORY_MIB_MAX)
        return bad_value("--memory", text, "a size such as 2G or 1536M (at least 256M) is needed");
    return 0;
}

static int parse_resolution(struct options *options, const char *text)
{
    uint32_t width, height;
    options->resolution = text;
    return pv_option_resolution("run", "--resolution", text, &width, &height);
}

static int parse_option(void *data, int option, char **argv)
{
    struct options *options = data;
    switch (option) {
    case OPTION_CPUS:
        return pv_option_number("run", "--cpus", optarg, 1, CPUS_MAX, &options->cpus);
    case OPTION_MEMORY:
        return parse_memory(options, optarg);
    case OPTION_SSH_PORT:
        return pv_option_number("run", "--ssh-port", optarg, 1, 65535, &options->ssh_port);
    case OPTION_TIMEOUT:
        return pv_option_number("run", "--timeout", optarg, 1, INT_MAX / 1000, &options->timeout_s);
    case OPTION_ARCH:
        if (pv_arch_parse(optarg, &options->arch) < 0)
            return bad_value("--arch", optarg, "choose x86_64 or aarch64");
        options->arch_given = true;
        return 0;
    case OPTION_ACCEL:
        if (pv_accel_parse(optarg, &options->accel) < 0)
            return bad_value("--accel", optarg, "choose auto, kvm, hvf or tcg");
        return 0;
    case OPTION_DISPLAY:
        return parse_display(options, optarg);
    case OPTION_HEADS:
        return pv_option_number("run", "--heads", optarg, 1, HEADS_MAX, &options->heads);
    case OPTION_REFRESH:
        return pv_option_number("run", "--refresh", optarg, 1, REFRESH_MAX, &options->refresh);
    case OPTION_KEYMAP:
        return parse_keymap(options, optarg);
    case OPTION_PASSWORD_FILE:
        options->password_file = optarg;
        return 0;
    case OPTION_NO_PASSWORD:
        options->no_password = true;
        return 0;
    case OPTION_STATS:
        options->stats = true;
        return 0;
    case OPTION_DEVICE:
        options->device = optarg;
        return 0;
    case OPTION_RESOLUTION:
        return parse_resolution(options, optarg);
    case OPTION_SCREENSHOT:
        options->screenshot = optarg;
        return 0;
    case OPTION_SHARE:
        options->share = optarg;
        return 0;
    case OPTION_NO_GPU:
        options->no_gpu = true;
        return 0;
    case OPTION_DISK:
        options->disk = optarg;
        return 0;
    case OPTION_SNAPSHOT:
        options->snapshot = 1;
        return 0;
    case OPTION_KEEP:
        options->snapshot = 0;
        return 0;
    case OPTION_CONTROL:
        options->control = optarg;
        return 0;
    case OPTION_QEMU_ARG:
        pv_argv_add(&options->qemu_arguments, optarg);
        return 0;
    case OPTION_GPU_ARG:
        pv_argv_add(&options->gpu_arguments, optarg);
        return 0;
    case 'v':
        options->verbose = true;
        return 0;
    case 'h':
        options->help = true;
        return 0;
    default:
        return pv_option_error("run", option, argv);
    }
}

/* What is behind "--" is the command; options end there or, as in `run debian-13 --help`, not at
 * the image. */
static int parse_options(int argc, char **argv, struct options *options)
{
    int own = argc;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--") == 0) {
            own = i;
            break;
        }
    }
    if (own + 1 < argc)
        options->command = argv + own + 1;
    int ret = pv_parse_options(own, argv, ":vh", long_options, parse_option, options);
    if (ret != 0)
        return ret;
    if (options->help)
        return 0;
    if (own + 1 == argc)
        return pv_usage_error("run", "a command is missing behind --");
    if (optind < own)
        options->image = argv[optind++];
    if (optind < own)
        return pv_usage_error("run", "\"%s\" is too much; a command goes behind --", argv[optind]);
    if (options->image && options->disk)
        return pv_usage_error("run", "--disk %s: give an image or a disk", options->disk);
    if (options->timeout_s && !options->command)
        return pv_usage_error("run", "--timeout is for a command");
    if (options->password_file && options->no_password)
        return pv_usage_error("run", "--password-file and --no-password exclude each other");
    if (options->no_gpu && (options->screenshot || options->displays.count > 0))
        return pv_usage_error("run", "--no-gpu: without a GPU the guest has no screen");
    return 0;
}

static unsigned int default_cpus(void)
{
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    if (online < 1)
        return 1;
    return online > DEFAULT_CPUS_MAX ? DEFAULT_CPUS_MAX : (unsigned int)online;
}

/* Say which images there are, after a name that is none of them. */
static int unknown_image(const char *name, char *const *profiles)
{
    struct pv_image *images = NULL;
    int count = pv_image_list(&images);
    const char *closest = NULL;
    unsigned int distance = 4; /* further away is another word */
    for (size_t i = 0; name && profiles && profiles[i]; i++)
        closest = pv_closer_word(name, profiles[i], closest, &distance);
    for (int i = 0; name && i < count; i++)
        closest = pv_closer_word(name, images[i].name, closest, &distance);
    if (!name)
        fprintf(stderr, "pearvisor run: which image?\n");
    else if (closest)
        fprintf(stderr, "pearvisor run: there is no image \"%s\"; did you mean \"%s\"?\n", name,
                closest);
    else
        fprintf(stderr, "pearvisor run: there is no image \"%s\"\n", name);

    for (int i = 0; i < count; i++)
        fprintf(stderr, "  %-16s %s\n", images[i].name, images[i].about);
    for (size_t i = 0; profiles && profiles[i]; i++) {
        bool built = false;
        for (int j = 0; j < count; j++)
            built = built || strcmp(images[j].name, profiles[i]) == 0;
        if (!built)
            fprintf(stderr, "  %-16s (not built yet)\n", profiles[i]);
    }
    free(images);
    return PV_EXIT_USAGE;
}

/* Building takes minutes: what would be missing afterwards is said before. */
static int build_image(const struct options *options, struct pv_image *image)
{
    struct pv_qemu qemu = {0};
    if (pv_need_qemu(options->arch, &qemu) < 0)
        return PV_EXIT_FAILED;
    pv_qemu_finish(&qemu);
    pv_info("the image %s is built first, once", options->image);
    int ret = pv_build_image(options->image, NULL, STDERR_FILENO);
    if (ret != 0)
        return ret;
    return pv_need_image(options->image, image) < 0 ? PV_EXIT_FAILED : 0;
}

/* Open the image, building it first if need be. Returns 0 or an exit status. */
static int get_image(const struct options *options, struct pv_image *image)
{
    bool has_profile = false;
    int ret = options->image ? pv_image_open(options->image, image) : -ENOENT;
    if (ret == 0)
        return 0;
    if (ret != -ENOENT)
        return pv_need_image(options->image, image) < 0 ? PV_EXIT_FAILED : 0;

    char **profiles = pv_profile_names();
    for (size_t i = 0; options->image && profiles && profiles[i]; i++)
        has_profile = has_profile || strcmp(profiles[i], options->image) == 0;
    if (!has_profile) {
        ret = unknown_image(options->image, profiles);
        pv_free_names(profiles);
        return ret;
    }
    pv_free_names(profiles);
    return build_image(options, image);
}

/* The GPU device's own options. */
static void make_gpu_options(const struct options *options, const char *control,
                             struct pv_argv *out)
{
    if (options->device)
        pv_argv_option(out, "--device", "%s", options->device);
    if (options->resolution)
        pv_argv_option(out, "--resolution", "%s", options->resolution);
    if (options->heads)
        pv_argv_option(out, "--heads", "%u", options->heads);
    if (options->refresh)
        pv_argv_option(out, "--refresh", "%u", options->refresh);
    if (control)
        pv_argv_option(out, "--control", "%s", control);
    /* beside the guest's output only what is wrong */
    pv_argv_option(out, "--log", "%s", options->verbose ? "info" : "warn");
    pv_argv_append(out, &options->gpu_arguments);
}

/* Those of pearvisor view. */
static void make_display_options(const struct options *options, const char *name,
                                 struct pv_argv *out)
{
    pv_argv_option(out, "--name", "%s", name);
    if (options->keymap)
        pv_argv_option(out, "--keymap", "%s", options->keymap);
    if (options->password_file)
        pv_argv_option(out, "--password-file", "%s", options->password_file);
    if (options->no_password)
        pv_argv_add(out, "--no-password");
}

/* The guest's own start-up looks for these words. */
static void add_desktop(const struct options *options, char *cmdline, size_t size)
{
    size_t used = strlen(cmdline);
    if (options->desktop)
        used += (size_t)snprintf(cmdline + used, size - used, " pearvisor.desktop=1");
    if (options->keymap && used < size)
        snprintf(cmdline + used, size - used, " pearvisor.keymap=%s", options->keymap);
}

static int choose_accel(const struct options *options, enum pv_arch arch, enum pv_accel *out)
{
    char why[256];
    int ret = pv_accel_choose(options->accel, arch, out, why, sizeof(why));
    if (ret < 0)
        pv_error("--accel %s: %s", pv_accel_name(options->accel), why);
    else if (options->accel == PV_ACCEL_AUTO && *out == PV_ACCEL_TCG)
        pv_info("the guest is slow, without hardware acceleration: %s", why);
    return ret;
}

/* For --disk: a qcow2 file says so in its first bytes. */
static int look_at_disk(const char *path, const char **out_format)
{
    char magic[4] = "";
    FILE *file = fopen(path, "re");
    if (!file) {
        pv_error("--disk %s: %s", path, strerror(errno));
        return -errno;
    }
    size_t n = fread(magic, 1, sizeof(magic), file);
    fclose(file);
    *out_format = n == 4 && memcmp(magic, "QFI\xfb", 4) == 0 ? "qcow2" : "raw";
    return 0;
}

static int check_share(const char *path)
{
    struct stat info;
    if (stat(path, &info) < 0) {
        pv_error("--share %s: %s", path, strerror(errno));
        return -errno;
    }
    if (!S_ISDIR(info.st_mode)) {
        pv_error("--share %s: not a folder", path);
        return -ENOTDIR;
    }
    return 0;
}

/* Lock the image and choose the file to boot from. Returns the lock's fd or a negative errno. */
static int take_image(struct pv_image *image, const struct pv_qemu *qemu, struct pv_vm_config *vm)
{
    int lock = pv_image_lock(image, !vm->snapshot);
    if (lock == -EBUSY)
        pv_error("the image %s is in use: %s", image->name,
                 vm->snapshot ? "a virtual machine keeps its changes, or it is being built"
                              : "another virtual machine runs it; with --snapshot many can");
    else if (lock < 0)
        pv_error("cannot lock %s: %s", image->folder, strerror(-lock));
    if (lock < 0)
        return lock;
    if (!vm->snapshot) {
        int ret = pv_image_make_overlay(image, qemu);
        if (ret < 0) {
            pv_error("cannot create %s: %s", image->overlay, strerror(-ret));
            close(lock);
            return ret;
        }
    }
    vm->disk = image->has_overlay ? image->overlay : image->disk;
    vm->disk_format = image->has_overlay ? "qcow2" : "raw";
    return lock;
}

/* For --stats: `data` points to what the device said last, NULL at first. */
static char *status_line(void *data, struct json_object *status)
{
    struct json_object **last = data;
    char *line = pv_stats_line(status, *last);
    json_object_put(*last);
    *last = json_object_get(status);
    return line;
}

/* Counted from the start. */
static void print_summary(struct json_object *last)
{
    char *line = last ? pv_stats_line(last, NULL) : NULL;
    if (line)
        fprintf(stderr, "at the end: %s\n", line);
    free(line);
    json_object_put(last);
}

static int run_machine(const struct options *options, struct pv_image *image,
                       const struct pv_qemu *qemu, struct pv_vm_config *vm)
{
    struct pv_argv gpu_options = {0}, display_options = {0};
    const char *name = options->disk ? options->disk : image->name, *control = options->control;
    struct pv_guest guest;
    struct json_object *last_status = NULL;
    char cmdline[1024];
    int lock = -1;
    if (!options->disk) {
        lock = take_image(image, qemu, vm);
        if (lock < 0)
            return PV_EXIT_FAILED;
        pv_image_cmdline(image, vm->accel, options->share != NULL, cmdline, sizeof(cmdline));
        add_desktop(options, cmdline, sizeof(cmdline));
        vm->cmdline = cmdline;
        vm->kernel = image->kernel;
        vm->initrd = image->initrd;
    }
    bool named = !control && !options->no_gpu && pv_guest_init(&guest, name) == 0;
    if (named)
        control = guest.socket;
    make_gpu_options(options, control, &gpu_options);
    make_display_options(options, name, &display_options);
    struct pv_machine_params machine = {
        .qemu = qemu,
        .vm = *vm,
        .name = name,
        .gpu = !options->no_gpu,
        .gpu_options = gpu_options.items,
        .displays = &options->displays,
        .display_options = &display_options,
        .screenshot = options->screenshot,
        .command = options->command,
        .stdin_fd = STDIN_FILENO,
        .stdout_fd = STDOUT_FILENO,
        .stderr_fd = STDERR_FILENO,
        .timeout_s = options->timeout_s,
        .verbose = options->verbose,
        .status_line = options->stats ? status_line : NULL,
        .data = &last_status,
    };
    int status = pv_machine_run(&machine);
    print_summary(last_status);
    if (named)
        unlink(guest.socket); /* of a device that could not do so */
    pv_argv_finish(&gpu_options);
    pv_argv_finish(&display_options);
    if (lock >= 0)
        close(lock);
    return status;
}

static int run(const struct options *options)
{
    struct pv_image *image = calloc(1, sizeof(*image));
    struct pv_qemu qemu = {0};
    struct pv_vm_config vm = {
        .arch = options->arch,
        .cpus = options->cpus ? options->cpus : default_cpus(),
        .memory_mib = options->memory_mib,
        .snapshot = options->snapshot < 0 ? options->command != NULL : options->snapshot,
        .no_reboot = options->command != NULL,
        .share = options->share,
        .ssh_port = (uint16_t)options->ssh_port,
        .more = &options->qemu_arguments,
    };
    int status = PV_EXIT_FAILED;
    if (!image)
        return status;
    if (options->share && check_share(options->share) < 0)
        goto out;
    if (options->disk) {
        if (look_at_disk(options->disk, &vm.disk_format) < 0)
            goto out;
        vm.disk = options->disk;
        /* x86 machines bring their firmware along */
        vm.firmware = vm.arch == PV_ARCH_AARCH64 ? "QEMU_EFI.fd" : NULL;
    } else {
        status = get_image(options, image);
        if (status != 0)
            goto out;
        status = PV_EXIT_FAILED;
        if (options->arch_given && options->arch != image->arch) {
            pv_error("--arch %s: the image %s is for %s", pv_arch_name(options->arch), image->name,
                     pv_arch_name(image->arch));
            goto out;
        }
        vm.arch = image->arch;
    }
    if (pv_need_qemu(vm.arch, &qemu) == 0 && choose_accel(options, vm.arch, &vm.accel) == 0)
        status = run_machine(options, image, &qemu, &vm);
    pv_qemu_finish(&qemu);
out:
    free(image);
    return status;
}

int pv_cmd_run(int argc, char **argv)
{
    struct options options = {
        .memory_mib = DEFAULT_MEMORY_MIB, .arch = pv_arch_of_host(), .snapshot = -1};
    int status = parse_options(argc, argv, &options);
    if (options.verbose)
        pv_log_set_level(PV_LOG_DEBUG);
    if (status == 0 && options.help)
        print_help();
    else if (status == 0)
        status = run(&options);
    pv_argv_finish(&options.displays);
    pv_argv_finish(&options.qemu_arguments);
    pv_argv_finish(&options.gpu_arguments);
    return status;
}
