/* Where things are: what PearVisor brings along, and what it keeps.
 *
 * Scripts, image profiles and the like are looked for in $PEARVISOR_DATA; if the program runs from
 * its build folder, in the source tree; else where they were installed.
 *
 * Threads: any.
 */
#ifndef PV_VM_PATHS_H
#define PV_VM_PATHS_H

#include "vm/accel.h"

#include <stddef.h>

/* The path of a file that came with the program, for example "scripts/root.sh". Returns 0, or
 * -ENOENT and `out` is where it was looked for. */
int pv_data_path(const char *name, char *out, size_t size);

/* The path of a program that PearVisor runs but people do not (pv-challenge). Returns as above. */
int pv_program_path(const char *name, char *out, size_t size);

/* ${PEARVISOR_CACHE:-${XDG_CACHE_HOME:-~/.cache}/pearvisor} and `name` in it. */
void pv_cache_path(const char *name, char *out, size_t size);

/* The name of the engine root with QEMU for guests of `arch` (for scripts/root.sh), and its folder,
 * which need not exist. */
const char *pv_engine_name(enum pv_arch arch);
void pv_engine_path(enum pv_arch arch, char *out, size_t size);

#endif
