/* QEMU's monitor, as far as a virtual machine's keeper needs it.
 *
 * Spec:    QEMU, docs/interop/qmp-spec.rst.
 * Threads: that of the event loop.
 */
#ifndef PV_VM_QMP_H
#define PV_VM_QMP_H

#include "vm/rpc.h"

#include <stdbool.h>

struct pv_qmp;
struct pv_input_event;

struct pv_qmp_events {
    /* The machine is set up and runs. */
    void (*ready)(void *data);
    /* A program of the guest has opened or closed a virtio-serial port; `id` as on the command
     * line. */
    void (*port)(void *data, const char *id, bool open);
    /* The machine ends; `by_guest`: the guest has shut down or restarted. */
    void (*shutdown)(void *data, bool by_guest, const char *reason);
    void (*lost)(void *data, const char *why);
};

/* `fd` is taken over on success. */
int pv_qmp_create(uv_loop_t *loop, int fd, const struct pv_qmp_events *events, void *data,
                  struct pv_qmp **out);
void pv_qmp_destroy(struct pv_qmp *qmp); /* NULL is fine */

void pv_qmp_quit(struct pv_qmp *qmp);      /* end QEMU now */
void pv_qmp_powerdown(struct pv_qmp *qmp); /* press the guest's power button */
/* A valid event of its keyboard or pointer. As pv_rpc_call(). */
int pv_qmp_input(struct pv_qmp *qmp, const struct pv_input_event *event, pv_rpc_done done,
                 void *data);

#endif
