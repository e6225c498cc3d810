/* What pearvisor doctor says about virtual machines: QEMU, acceleration, images; and the proof that
 * a guest's GPU is the host's.
 *
 * Threads: the main thread.
 */
#ifndef PV_CLI_DOCTOR_VM_H
#define PV_CLI_DOCTOR_VM_H

#include <stdbool.h>
#include <stddef.h>

struct json_object;

struct pv_doctor_vm {
    bool qemu_found;
    char qemu_path[1024], qemu_version[32];
    bool qemu_is_engine;
    char qemu_problem[512]; /* what to do, if none was found */
    char accel[8], accel_why[256];
    int image_count;
    struct pv_image *images; /* owned */
};

void pv_doctor_vm_look(struct pv_doctor_vm *out);
void pv_doctor_vm_finish(struct pv_doctor_vm *vm);
void pv_doctor_vm_print(const struct pv_doctor_vm *vm);
/* The caller's. */
struct json_object *pv_doctor_vm_json(const struct pv_doctor_vm *vm);

/* Boot the image, have it render a picture that a number drawn now decides, and compare it with
 * what that must be. Prints what was found, as text or JSON; returns an exit status, 0 if every
 * pixel is right and the guest's device was Venus. */
int pv_doctor_guest(const char *image, const char *device, bool json);

#endif
