#include "transport/virtio/latency.h"

uint64_t pv_latency_quantile(const struct pv_latency *latency, double part)
{
    double wanted = part * (double)latency->count;
    double seen = 0;
    for (unsigned int i = 0; i < 64; i++) {
        double here = (double)latency->buckets[i];
        if (here > 0 && seen + here >= wanted) {
            double low = (double)(1ull << i);
            uint64_t ns = (uint64_t)(low + low * (wanted - seen) / here);
            return ns < latency->longest_ns ? ns : latency->longest_ns;
        }
        seen += here;
    }
    return latency->longest_ns;
}
