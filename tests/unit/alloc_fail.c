#include "alloc_fail.h"

#include <stdatomic.h>
#include <stddef.h>

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *old, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *old, size_t size);

static atomic_int fail_in;
static atomic_int failed;

void alloc_fail_in(int n)
{
    atomic_store(&failed, 0);
    atomic_store(&fail_in, n);
}

int alloc_failed(void)
{
    return atomic_load(&failed);
}

static int now(void)
{
    if (atomic_load(&fail_in) <= 0 || atomic_fetch_sub(&fail_in, 1) != 1)
        return 0;
    atomic_store(&failed, 1);
    return 1;
}

void *__wrap_malloc(size_t size)
{
    return now() ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size)
{
    return now() ? NULL : __real_calloc(count, size);
}

void *__wrap_realloc(void *old, size_t size)
{
    return now() ? NULL : __real_realloc(old, size);
}
