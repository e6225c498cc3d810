/* A command in the guest, as if it ran here: input, output and error as they come, binary safe, and
 * the exit status.
 *
 *   guest agent ── starts ──► sh ──► COMMAND
 *                                     │ /dev/virtio-ports/pearvisor.{stdin,stdout,stderr}
 *   our standard streams ◄── pump ────┘
 *
 * The agent alone would give the output when all is over. A random mark behind the output tells
 * that it has arrived completely.
 *
 * Threads: that of the event loop.
 */
#ifndef PV_VM_GUEST_COMMAND_H
#define PV_VM_GUEST_COMMAND_H

#include "vm/agent.h"

#include <stdbool.h>

struct pv_guest_command;

struct pv_guest_command_params {
    char *const *argv; /* borrowed while it runs */
    bool share;        /* the shared folder shall be mounted first */
    /* Our ends of the ports, and the streams that belong to them; borrowed while it runs. */
    int stdin_port, stdout_port, stderr_port;
    int stdin_fd; /* -1: empty */
    int stdout_fd, stderr_fd;
    /* The command has ended with `status` (0 … 255), or `error` says why it cannot be told. */
    void (*ended)(void *data, int status, const char *error);
    /* Nobody reads our output any more. */
    void (*broken)(void *data);
    void *data;
};

/* Start it. The agent is ready, and stays until the command is destroyed. */
int pv_guest_command_create(uv_loop_t *loop, struct pv_agent *agent,
                            const struct pv_guest_command_params *params,
                            struct pv_guest_command **out);
/* The command itself is left alone. NULL is fine. */
void pv_guest_command_destroy(struct pv_guest_command *command);

/* Ctrl-C for it. */
void pv_guest_command_interrupt(struct pv_guest_command *command);

#endif
