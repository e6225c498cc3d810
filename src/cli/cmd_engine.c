#include "cli/commands.h"
#include "cli/vm_options.h"
#include "util/log.h"
#include "vm/paths.h"
#include "vm/process.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define PV_LOG_MODULE "engine"

static void print_help(void)
{
    printf(
        "Usage: pearvisor engine install|status [--arch ARCH]\n"
        "The QEMU that runs virtual machines: %u.%u or newer, from PATH or, where there is none,\n"
        "from a small Debian system of its own in the cache folder.\n\n"
        "  install         make that system, unless a QEMU that will do is on PATH\n"
        "  status          say which QEMU is used; exit with 1 if there is none\n\n"
        "  --arch ARCH     for guests of x86_64 or aarch64 (default: this machine's)\n"
        "  -h, --help      this text\n",
        PV_QEMU_NEEDED_MAJOR, PV_QEMU_NEEDED_MINOR);
}

static int show_status(enum pv_arch arch)
{
    struct pv_qemu qemu;
    if (pv_need_qemu(arch, &qemu) < 0)
        return PV_EXIT_FAILED;
    printf("QEMU %u.%u for %s guests: %s%s\n", qemu.major, qemu.minor, pv_arch_name(arch),
           qemu.path, qemu.is_engine ? "" : " (on PATH)");
    pv_qemu_finish(&qemu);
    return PV_EXIT_OK;
}

static int install(enum pv_arch arch)
{
    char script[1100], root[1100], why[512], name[32];
    struct pv_qemu qemu;
    pv_engine_path(arch, root, sizeof(root));
    if (pv_qemu_find(arch, root, &qemu, why, sizeof(why)) == 0) {
        pv_qemu_finish(&qemu);
        return show_status(arch);
    }
    if (pv_data_path("scripts/root.sh", script, sizeof(script)) < 0) {
        pv_error("%s is missing; PEARVISOR_DATA can say where it is", script);
        return PV_EXIT_FAILED;
    }
    snprintf(name, sizeof(name), "%s", pv_engine_name(arch));
    char *const argv[] = {script, name, NULL};
    int ret = pv_process_foreground(argv, STDOUT_FILENO);
    if (ret < 0)
        pv_error("cannot run %s: %s", script, strerror(-ret));
    if (ret != 0)
        return PV_EXIT_FAILED;
    return show_status(arch);
}

int pv_cmd_engine(int argc, char **argv)
{
    static const struct option long_options[] = {
        {"arch", required_argument, NULL, 'a'}, {"help", no_argument, NULL, 'h'}, {0}};
    enum pv_arch arch = pv_arch_of_host();
    int option;
    opterr = 0;
    while ((option = getopt_long(argc, argv, ":h", long_options, NULL)) != -1) {
        switch (option) {
        case 'a':
            if (pv_arch_parse(optarg, &arch) < 0)
                return pv_usage_error("engine", "--arch %s: choose x86_64 or aarch64", optarg);
            break;
        case 'h':
            print_help();
            return PV_EXIT_OK;
        default:
            return pv_option_error("engine", option, argv);
        }
    }
    const char *what = optind < argc ? argv[optind] : "";
    if (optind + 1 < argc)
        return pv_usage_error("engine", "\"%s\" is too much", argv[optind + 1]);
    if (strcmp(what, "install") == 0)
        return install(arch);
    if (strcmp(what, "status") == 0)
        return show_status(arch);
    return pv_usage_error("engine", "\"%s\": choose install or status", what);
}
