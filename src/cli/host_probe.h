/* pv_host_probe() in a process of its own: this one stays free of drivers, and outlives one that
 * crashes or hangs.
 *
 * Threads: the caller must have only one, as for every fork() that is not followed by exec().
 */
#ifndef PV_CLI_HOST_PROBE_H
#define PV_CLI_HOST_PROBE_H

#include "vulkan/host.h"

#include <stddef.h>

/* Returns what pv_host_probe() does; -EFAULT if the probe crashed, -ETIMEDOUT if it hangs. `error`
 * gets one line that says what to do. */
int pv_host_probe_in_child(const struct pv_host_options *options, struct pv_host_caps *out,
                           char *error, size_t error_size);

#endif
