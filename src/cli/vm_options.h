/* What the commands about virtual machines have in common.
 *
 * Threads: the main thread.
 */
#ifndef PV_CLI_VM_OPTIONS_H
#define PV_CLI_VM_OPTIONS_H

#include "vm/image.h"

/* The names that images can have without an option: those with a profile. NULL-terminated, the
 * strings and the list are the caller's to free (pv_free_names); NULL without memory. */
char **pv_profile_names(void);
void pv_free_names(char **names);

/* Run guest/build-image.sh with these arguments behind --name NAME; its messages go to `stdout_fd`.
 * Returns an exit status; problems have been said. */
int pv_build_image(const char *name, char *const *arguments, int stdout_fd);

/* Find a QEMU and say what is wrong if there is none. 0 or a negative errno. */
int pv_need_qemu(enum pv_arch arch, struct pv_qemu *out);

/* Open an image and say what is wrong if that fails. */
int pv_need_image(const char *name, struct pv_image *out);

#endif
