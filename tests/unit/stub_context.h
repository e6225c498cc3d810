/* What a test can see of the stub in stub_context.c. One context at a time. */
#ifndef PV_TESTS_STUB_CONTEXT_H
#define PV_TESTS_STUB_CONTEXT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define STUB_FENCES 16
/* What a new context counts at once. */
#define STUB_COMMANDS 42

extern struct stub_context {
    atomic_bool alive, poisoned, offered_dma_buf;
    atomic_int resources;
    atomic_uint hints;
    _Atomic uint64_t fences[STUB_FENCES]; /* cookies on ring_idx 1 and 2, not signalled yet */
    atomic_size_t fence_count;
} stub;

/* Resources that were added or imported, by their ids below STUB_RESOURCES. */
#define STUB_RESOURCES 64
extern struct stub_resource {
    atomic_bool exists, held; /* held: not released when unreferenced */
    atomic_int use;           /* enum pv_context_use; -1: imported by an fd */
    _Atomic uint64_t offset, size;
} stub_resource[STUB_RESOURCES];
void stub_release(uint32_t res_id);

/* Signal the fence stub.fences[index], from any thread. */
void stub_signal_fence(size_t index);

#endif
