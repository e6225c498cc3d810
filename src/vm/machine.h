/* A virtual machine from its start to its end: QEMU, the GPU device, the displays, the guest agent,
 * and either a command in the guest or its console.
 *
 *   pv_machine_run ──┬ fork, exec ──► pearvisor gpu ◄── vhost-user ──┐
 *     event loop,    ├ fork, exec ──► QEMU ◄────────────────────────┘
 *     pumps          │  ◄── monitor, console, guest agent, ports: socket pairs, no files
 *                    └ fork, exec ──► pearvisor view: one for each display (views.h)
 *
 * Whatever ends first, nothing is left: the children are killed by the system when we die, and
 * sockets have no names.
 *
 * Threads: the main thread of a program that has no others; returns when all is over.
 */
#ifndef PV_VM_MACHINE_H
#define PV_VM_MACHINE_H

#include "vm/qemu.h"

#include <stdbool.h>
#include <stdint.h>

struct json_object;

struct pv_machine_params {
    const struct pv_qemu *qemu;
    /* All but the fds, which are made here; the input devices come with displays. */
    struct pv_vm_config vm;
    const char *name; /* of the guest, for messages */

    bool gpu;                       /* with a virtual GPU */
    char *const *gpu_options;       /* for `pearvisor gpu`, NULL-terminated; or NULL */
    const struct pv_argv *displays; /* what `pearvisor view` is to show on; NULL: nothing */
    const struct pv_argv *display_options;
    const char *screenshot; /* a PNG of the guest's screen is written here at the end; or NULL */

    /* NULL: our standard streams are the guest's console. */
    char *const *command;
    int stdin_fd; /* -1: empty */
    int stdout_fd, stderr_fd;
    unsigned int timeout_s;      /* for the command, 0: none */
    unsigned int boot_timeout_s; /* until the guest agent answers, 0: the default */
    bool verbose;                /* show the command line, and the console while it boots */

    /* Once a second: what to say about the device's status (gpu/control.h). The result is released
     * by free(); NULL: nothing. This op may be NULL. */
    char *(*status_line)(void *data, struct json_object *status);
    void *data;
};

/* Run it. Returns the status to exit with: that of the command; 130 after Ctrl-C; 124 when the time
 * was over; 1 when something did not work, which has been said. */
int pv_machine_run(const struct pv_machine_params *params);

#endif
