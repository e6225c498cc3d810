/* The virtual machines that run now, by the control sockets of their GPU devices:
 *
 *   $XDG_RUNTIME_DIR/pearvisor-NAME-PID.sock
 *
 * or, without that folder, in /tmp/pearvisor-UID, which only this user can look into. PID is that
 * of `pearvisor run`. The device removes its socket at its end; what is left by one that could not
 * is removed by whoever looks next.
 *
 * Threads: any.
 */
#ifndef PV_VM_GUESTS_H
#define PV_VM_GUESTS_H

#include <stddef.h>
#include <sys/types.h>

/* A Unix socket's path has no more. */
#define PV_GUEST_SOCKET_SIZE 108u

struct pv_guest {
    char name[64];
    pid_t pid;
    char socket[PV_GUEST_SOCKET_SIZE];
};

/* A guest of this process: where its socket is to be. `name` is an image's, or a path. Returns 0,
 * or a negative errno where there can be none. */
int pv_guest_init(struct pv_guest *guest, const char *name);

/* Those that run, by name and age. `out` is the caller's to free. Returns how many, or -ENOMEM. */
int pv_guest_list(struct pv_guest **out);

/* The one that is meant: by its name or the PID; NULL: the only one. Returns 0, -ENOENT or
 * -ENOTUNIQ, and then `why` is a sentence that says what there is. */
int pv_guest_find(const char *name, struct pv_guest *out, char *why, size_t why_size);

#endif
