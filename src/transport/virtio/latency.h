/* How long things take: a histogram of nanoseconds, a bucket per power of two.
 *
 * Threads: one.
 */
#ifndef PV_TRANSPORT_VIRTIO_LATENCY_H
#define PV_TRANSPORT_VIRTIO_LATENCY_H

#include <stdint.h>

struct pv_latency {
    uint64_t buckets[64]; /* [i] counts 2^i … 2^(i+1) - 1 ns; 0 ns is in the first */
    uint64_t count, longest_ns;
};

static inline void pv_latency_add(struct pv_latency *latency, uint64_t ns)
{
    latency->buckets[63 - __builtin_clzll(ns | 1)]++;
    latency->count++;
    if (ns > latency->longest_ns)
        latency->longest_ns = ns;
}

/* The time that `part` (0 … 1) of them did not exceed, taking a bucket's to be spread evenly. */
uint64_t pv_latency_quantile(const struct pv_latency *latency, double part);

#endif
