/* Figures of pv-bench.
 *
 * A figure runs in a process of its own, which starts Vulkan from nothing: figures do not disturb
 * each other, and a driver that fails, aborts or hangs costs that one figure.
 */
#ifndef BENCH_H
#define BENCH_H

#include <stdbool.h>
#include <stdint.h>

#include "vkh.h"

enum unit { UNIT_US, UNIT_MS, UNIT_PER_SECOND, UNIT_GB_PER_SECOND };

/* Plain data: it crosses a pipe. */
struct result {
    double value;
    double plain; /* the same on ordinary memory, where that says something; else 0 */
    char device[VK_MAX_PHYSICAL_DEVICE_NAME_SIZE];
};

struct figure {
    const char *name;
    enum unit unit; /* times: lower is better; rates: higher is better */
    const char *about;
    /* Sets value and perhaps plain. Failures end the process through vkh_fail or vkh_skip. */
    void (*run)(struct vkh *vk, struct result *result);
    bool bare; /* vk comes without instance and device */
};

extern const struct figure figures_call[];
extern const struct figure figures_memory[];
/* Each list ends with an entry without a name. */

/* Does the work `iterations` times and returns how many nanoseconds that took. */
typedef uint64_t (*sample_fn)(void *state, uint32_t iterations);

/* Median nanoseconds per iteration: warms up, finds how many iterations make a sample long enough
 * to trust, and takes several samples. */
double measure(sample_fn sample, void *state);
/* The same with iterations and samples given, for work that is slow or must not be repeated. */
double measure_fixed(sample_fn sample, void *state, uint32_t iterations, uint32_t sample_count);

#endif
