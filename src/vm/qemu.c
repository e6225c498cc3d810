#include "vm/qemu.h"

#include "vm/process.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

bool pv_qemu_parse_version(const char *text, unsigned int *major, unsigned int *minor)
{
    static const char before[] = "version ";
    const char *at = strstr(text, before);
    int used = 0;
    if (!at)
        return false;
    return sscanf(at + sizeof(before) - 1, "%4u.%4u%n", major, minor, &used) == 2 && used > 0;
}

bool pv_qemu_new_enough(unsigned int major, unsigned int minor)
{
    if (major != PV_QEMU_NEEDED_MAJOR)
        return major > PV_QEMU_NEEDED_MAJOR;
    return minor >= PV_QEMU_NEEDED_MINOR;
}

void pv_qemu_finish(struct pv_qemu *qemu)
{
    pv_argv_finish(&qemu->command);
    pv_argv_finish(&qemu->img_command);
    free(qemu->environment);
    *qemu = (struct pv_qemu){0};
}

/* Ask for the version. 0, -ENOENT if it cannot be started, -EINVAL if it says something else. */
static int ask_version(struct pv_qemu *qemu)
{
    struct pv_argv argv = {0};
    char text[512];
    pv_argv_append(&argv, &qemu->command);
    pv_argv_add(&argv, "--version");
    int ret = argv.failed ? -ENOMEM
                          : pv_process_output(argv.items, qemu->environment, text, sizeof(text));
    pv_argv_finish(&argv);
    if (ret < 0)
        return ret;
    if (ret != 0 || !pv_qemu_parse_version(text, &qemu->major, &qemu->minor))
        return -EINVAL;
    return 0;
}

static int use_path(enum pv_arch arch, struct pv_qemu *out)
{
    const char *given = getenv("PEARVISOR_QEMU");
    snprintf(out->path, sizeof(out->path), "qemu-system-%s", pv_arch_name(arch));
    if (given && *given)
        snprintf(out->path, sizeof(out->path), "%s", given);
    pv_argv_add(&out->command, out->path);
    pv_argv_add(&out->img_command, "qemu-img");
    return ask_version(out);
}

/* Debian's name for the folder of an architecture's libraries, and its loader. */
struct loader {
    const char *triplet, *path;
};
static const struct loader loaders[] = {
    [PV_ARCH_X86_64] = {"x86_64-linux-gnu", "lib64/ld-linux-x86-64.so.2"},
    [PV_ARCH_AARCH64] = {"aarch64-linux-gnu", "lib/ld-linux-aarch64.so.1"},
};

/* A program of the root runs on this system's kernel, but with the root's libraries. */
static void add_root_program(struct pv_argv *argv, const char *root, const char *program)
{
    const struct loader *loader = &loaders[pv_arch_of_host()];
    pv_argv_addf(argv, "%s/%s", root, loader->path);
    pv_argv_option(argv, "--library-path", "%s/usr/lib/%s", root, loader->triplet);
    pv_argv_addf(argv, "%s/usr/bin/%s", root, program);
}

static int use_engine(enum pv_arch arch, const char *root, struct pv_qemu *out)
{
    static const char *const data_folders[] = {"qemu", "seabios", "qemu-efi-aarch64"};
    char program[64];
    snprintf(program, sizeof(program), "qemu-system-%s", pv_arch_name(arch));
    snprintf(out->path, sizeof(out->path), "%s/usr/bin/%s", root, program);
    if (access(out->path, X_OK) < 0)
        return -ENOENT;

    out->is_engine = true;
    add_root_program(&out->command, root, program);
    for (size_t i = 0; i < sizeof(data_folders) / sizeof(data_folders[0]); i++)
        pv_argv_option(&out->command, "-L", "%s/usr/share/%s", root, data_folders[i]);
    add_root_program(&out->img_command, root, "qemu-img");
    if (asprintf(&out->environment, "QEMU_MODULE_DIR=%s/usr/lib/%s/qemu", root,
                 loaders[pv_arch_of_host()].triplet) < 0) {
        out->environment = NULL;
        return -ENOMEM;
    }
    return ask_version(out);
}

int pv_qemu_find(enum pv_arch arch, const char *engine_root, struct pv_qemu *out, char *why,
                 size_t why_size)
{
    const char *install = "run: pearvisor engine install";
    char found[128] = "";
    why[0] = '\0';
    *out = (struct pv_qemu){0};
    int ret = use_path(arch, out);
    if (ret == 0 && pv_qemu_new_enough(out->major, out->minor))
        return 0;
    if (ret == 0)
        snprintf(found, sizeof(found), ", found %u.%u (%.80s)", out->major, out->minor, out->path);
    pv_qemu_finish(out);

    ret = use_engine(arch, engine_root, out);
    if (ret == 0 && pv_qemu_new_enough(out->major, out->minor))
        return 0;
    if (ret == 0)
        snprintf(found, sizeof(found), ", the engine has %u.%u", out->major, out->minor);
    else if (out->is_engine)
        snprintf(found, sizeof(found), ", and the one in the engine does not start");
    pv_qemu_finish(out);

    snprintf(why, why_size, "QEMU %u.%u or newer is needed%s; %s", PV_QEMU_NEEDED_MAJOR,
             PV_QEMU_NEEDED_MINOR, found, install);
    return -ENOENT;
}

/* Memory that other processes can map. */
#ifdef __linux__
#define SHARED_MEMORY "memory-backend-memfd"
#else
#define SHARED_MEMORY "memory-backend-shm"
#endif

struct machine_kind {
    const char *machine, *no_other_input, *cpu_translated, *cmdline;
};
static const struct machine_kind kinds[] = {
    [PV_ARCH_X86_64] = {"q35", ",i8042=off", "max", "root=/dev/vda rw console=ttyS0 quiet"},
    /* the architecture's own pointer authentication is very slow when translated */
    [PV_ARCH_AARCH64] = {"virt", "", "max,pauth-impdef=on",
                         "root=/dev/vda rw console=ttyAMA0 quiet"},
};

const char *pv_vm_default_cmdline(enum pv_arch arch)
{
    return kinds[arch].cmdline;
}

static void add_machine(const struct pv_vm_config *config, struct pv_argv *out)
{
    const struct machine_kind *kind = &kinds[config->arch];
    bool translated = config->accel == PV_ACCEL_TCG;
    unsigned long long mib = config->memory_mib;
    /* virtio's keyboard and pointer are the only ones */
    pv_argv_option(out, "-machine", "%s,memory-backend=mem%s", kind->machine,
                   config->input ? kind->no_other_input : "");
    pv_argv_option(out, "-accel", "%s%s", pv_accel_name(config->accel),
                   translated ? ",thread=multi" : "");
    pv_argv_option(out, "-cpu", "%s", translated ? kind->cpu_translated : "max");
    pv_argv_option(out, "-smp", "%u", config->cpus);
    /* the device process maps it: shared, and exactly as large as the machine's memory */
    pv_argv_option(out, "-m", "%lluM", mib);
    pv_argv_option(out, "-object", SHARED_MEMORY ",id=mem,size=%lluM,share=on", mib);
    pv_argv_option(out, "-display", "none");
    pv_argv_add(out, "-nodefaults");
    pv_argv_add(out, "-no-user-config");
    if (config->no_reboot)
        pv_argv_add(out, "-no-reboot");
}

/* "-OPTION …,FILE": file names may contain commas. */
static void add_file_option(struct pv_argv *out, const char *option, const char *before,
                            const char *file)
{
    char *escaped = pv_qemu_escape(file);
    pv_argv_add(out, option);
    pv_argv_addf(out, "%s%s", before, escaped ? escaped : "");
    out->failed = out->failed || !escaped;
    free(escaped);
}

static void add_boot(const struct pv_vm_config *config, struct pv_argv *out)
{
    if (config->firmware)
        pv_argv_option(out, "-bios", "%s", config->firmware);
    if (!config->kernel)
        return;
    pv_argv_option(out, "-kernel", "%s", config->kernel);
    if (config->initrd)
        pv_argv_option(out, "-initrd", "%s", config->initrd);
    pv_argv_option(out, "-append", "%s",
                   config->cmdline ? config->cmdline : pv_vm_default_cmdline(config->arch));
}

static void add_disk_and_net(const struct pv_vm_config *config, struct pv_argv *out)
{
    char before[128];
    /* what is thrown away anyway need not reach the host's disk */
    snprintf(before, sizeof(before),
             "if=none,id=disk0,format=%s,discard=unmap,%sfile=", config->disk_format,
             config->snapshot ? "snapshot=on,cache=unsafe," : "");
    add_file_option(out, "-drive", before, config->disk);
    pv_argv_option(out, "-device", "virtio-blk-pci,drive=disk0");
    pv_argv_add(out, "-netdev");
    if (config->ssh_port)
        pv_argv_addf(out, "user,id=net0,hostfwd=tcp:127.0.0.1:%u-:22", config->ssh_port);
    else
        pv_argv_add(out, "user,id=net0");
    pv_argv_option(out, "-device", "virtio-net-pci,netdev=net0,romfile=");
    pv_argv_option(out, "-device", "virtio-rng-pci");
    if (config->share) {
        add_file_option(out, "-fsdev", "local,id=share,security_model=none,path=", config->share);
        pv_argv_option(out, "-device", "virtio-9p-pci,fsdev=share,mount_tag=" PV_SHARE_TAG);
    }
}

static void add_chardev(struct pv_argv *out, const char *id, int fd)
{
    pv_argv_option(out, "-chardev", "socket,id=%s,fd=%d", id, fd);
}

static void add_port(struct pv_argv *out, const char *id, int fd, const char *name)
{
    if (fd < 0)
        return;
    add_chardev(out, id, fd);
    pv_argv_option(out, "-device", "virtserialport,chardev=%s,id=%s-port,name=%s", id, id, name);
}

static void add_channels(const struct pv_vm_config *config, struct pv_argv *out)
{
    if (config->qmp_fd >= 0) {
        add_chardev(out, "qmp", config->qmp_fd);
        pv_argv_option(out, "-object", "monitor-qmp,id=monitor,chardev=qmp");
    }
    if (config->console_fd >= 0) {
        add_chardev(out, "console", config->console_fd);
        pv_argv_option(out, "-serial", "chardev:console");
    }
    pv_argv_option(out, "-device", "virtio-serial-pci");
    add_port(out, "agent", config->agent_fd, PV_PORT_AGENT);
    add_port(out, "stdin", config->stdin_fd, PV_PORT_STDIN);
    add_port(out, "stdout", config->stdout_fd, PV_PORT_STDOUT);
    add_port(out, "stderr", config->stderr_fd, PV_PORT_STDERR);
}

/* virtio-id 16 is the GPU; two queues; the configuration as long as the device's. */
static void add_gpu(const struct pv_vm_config *config, struct pv_argv *out)
{
    if (config->gpu_fd < 0)
        return;
    add_chardev(out, "gpu", config->gpu_fd);
    pv_argv_option(out, "-device",
                   "vhost-user-test-device-pci,chardev=gpu,virtio-id=16,num_vqs=2,vq_size=256,"
                   "config_size=20");
}

static void add_input(const struct pv_vm_config *config, struct pv_argv *out)
{
    if (!config->input)
        return;
    pv_argv_option(out, "-device", "virtio-keyboard-pci");
    pv_argv_option(out, "-device", "virtio-tablet-pci");
}

void pv_qemu_arguments(const struct pv_qemu *qemu, const struct pv_vm_config *config,
                       struct pv_argv *out)
{
    pv_argv_append(out, &qemu->command);
    add_machine(config, out);
    add_boot(config, out);
    add_disk_and_net(config, out);
    add_channels(config, out);
    add_gpu(config, out);
    add_input(config, out);
    if (config->more)
        pv_argv_append(out, config->more);
}
