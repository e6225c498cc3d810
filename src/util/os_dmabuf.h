/* dma-bufs made of our own shared memory, where the kernel can (Linux: /dev/udmabuf).
 *
 * Threads: any.
 */
#ifndef PV_UTIL_OS_DMABUF_H
#define PV_UTIL_OS_DMABUF_H

#include <stdbool.h>
#include <stdint.h>

/* This process may make such dma-bufs. */
bool pv_dmabuf_available(void);

/* A dma-buf (the caller's) of the first `size` bytes, a multiple of the page, of shared memory from
 * pv_shm_create(). It shares the pages and keeps them alive by itself. Returns 0, -ENOTSUP if the
 * kernel has no udmabuf or keeps it from us, or a negative errno. */
int pv_dmabuf_from_memfd(int memfd, uint64_t size, int *out);

#endif
