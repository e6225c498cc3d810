/* QEMU: which one, and its command line.
 *
 *   PATH, or $PEARVISOR_QEMU ──► 11.1 or newer? ──► used as it is
 *   the engine root (`pearvisor engine install`) ──► started through its own loader and libraries
 *
 * Threads: the main thread.
 */
#ifndef PV_VM_QEMU_H
#define PV_VM_QEMU_H

#include "vm/accel.h"
#include "vm/argv.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The first release that lets a vhost-user device have memory that the guest maps. */
#define PV_QEMU_NEEDED_MAJOR 11u
#define PV_QEMU_NEEDED_MINOR 1u

struct pv_qemu {
    struct pv_argv command;     /* how it is started; arguments follow */
    struct pv_argv img_command; /* qemu-img, the same way */
    char *environment;          /* NAME=value that it needs, or NULL */
    char path[1024];            /* for people */
    unsigned int major, minor;
    bool is_engine;
};

/* Find one for guests of `arch`. `engine_root` is the folder of the engine root, which need not
 * exist. Returns 0, or -ENOENT, and then `why` is a sentence that says what was found and what to
 * do. */
int pv_qemu_find(enum pv_arch arch, const char *engine_root, struct pv_qemu *out, char *why,
                 size_t why_size);
void pv_qemu_finish(struct pv_qemu *qemu);

/* "QEMU emulator version 11.1.3 (Debian …)" -> 11, 1. */
bool pv_qemu_parse_version(const char *text, unsigned int *major, unsigned int *minor);
bool pv_qemu_new_enough(unsigned int major, unsigned int minor);

/* The ports of the guest's virtio-serial device, below /dev/virtio-ports. */
#define PV_PORT_AGENT  "org.qemu.guest_agent.0"
#define PV_PORT_STDIN  "pearvisor.stdin"
#define PV_PORT_STDOUT "pearvisor.stdout"
#define PV_PORT_STDERR "pearvisor.stderr"
/* Name of the folder shared over 9p. */
#define PV_SHARE_TAG "share"

/* A virtual machine. Fds are ends of socket pairs that QEMU inherits; -1: there is none. */
struct pv_vm_config {
    enum pv_arch arch;
    enum pv_accel accel; /* not PV_ACCEL_AUTO */
    unsigned int cpus;
    uint64_t memory_mib;

    const char *kernel, *initrd; /* NULL: the disk's own boot loader, by firmware */
    const char *cmdline;         /* the kernel's command line */
    const char *firmware;        /* a file for -bios; NULL: the machine's own */
    const char *disk;
    const char *disk_format; /* "raw" or "qcow2" */
    bool snapshot;           /* changes go to a temporary file and are gone afterwards */
    bool no_reboot;          /* a reboot of the guest ends QEMU */

    const char *share; /* folder that the guest can mount, or NULL */
    uint16_t ssh_port; /* of the host's 127.0.0.1, leads to the guest's 22; 0: none */

    int qmp_fd, console_fd, agent_fd;
    int stdin_fd, stdout_fd, stderr_fd; /* of a command */
    int gpu_fd;                         /* to `pearvisor gpu`; -1: no GPU */
    bool input;                         /* with keyboard and pointer */

    const struct pv_argv *more; /* at the end of the command line; or NULL */
};

/* A kernel command line that boots the first disk's first file system, its console on the serial
 * port. */
const char *pv_vm_default_cmdline(enum pv_arch arch);

/* The command line of this machine, to be finished by the caller; out->failed without memory. */
void pv_qemu_arguments(const struct pv_qemu *qemu, const struct pv_vm_config *config,
                       struct pv_argv *out);

#endif
