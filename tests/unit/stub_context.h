/* What a test can see of the stub in stub_context.c. One context at a time. */
#ifndef PV_TESTS_STUB_CONTEXT_H
#define PV_TESTS_STUB_CONTEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define STUB_FENCES 16

extern struct stub_context {
    bool alive, poisoned, offered_dma_buf;
    int resources;
    unsigned int hints;
    uint64_t fences[STUB_FENCES]; /* cookies on ring_idx 1 and 2, not signalled yet */
    size_t fence_count;
} stub;

#endif
