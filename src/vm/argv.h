/* A command line under construction.
 *
 * Errors are sticky: after a failed allocation adding does nothing, and whoever starts the program
 * looks once, at `failed`.
 */
#ifndef PV_VM_ARGV_H
#define PV_VM_ARGV_H

#include <stdbool.h>
#include <stddef.h>

struct pv_argv {  /* {0} is empty */
    char **items; /* owned, with a NULL behind the last one */
    size_t count, room;
    bool failed;
};

void pv_argv_add(struct pv_argv *argv, const char *text);
void pv_argv_addf(struct pv_argv *argv, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* An option and its value: two arguments. */
void pv_argv_option(struct pv_argv *argv, const char *option, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void pv_argv_append(struct pv_argv *argv, const struct pv_argv *more);
void pv_argv_finish(struct pv_argv *argv);

/* The whole as one line that a shell splits into the same arguments again; NULL without memory.
 * Freed by the caller. */
char *pv_argv_quote(const struct pv_argv *argv);

/* `text` as a value among QEMU's comma-separated properties: a comma counts when doubled. NULL
 * without memory. Freed by the caller. */
char *pv_qemu_escape(const char *text);

#endif
