/* The null driver: a Vulkan driver for tests that touches nothing.
 *
 * Calls succeed, new objects get unique handles, one physical device has one queue family and one
 * memory type (of the import tier). It watches what it is given: a handle that it did not hand out,
 * of another type, or destroyed already ends the test program. Outputs are written in full, so that
 * room that is too small shows under a sanitizer.
 *
 * Most of it is generated (codegen/emit_null.py).
 *
 * Threads: any.
 */
#ifndef PV_TESTS_NULL_DRIVER_H
#define PV_TESTS_NULL_DRIVER_H

#include "vulkan/host.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct null_driver {
    /* to be set by tests */
    atomic_bool lenient;     /* only count wrong handles: two rings may race as they like */
    atomic_bool block_waits; /* fences and semaphores stay unsignalled: waits time out */
    atomic_int fail_in;      /* n > 0: the n-th call from now that can fail does, then none */
    atomic_bool lose_device; /* submissions and waits report a lost device */
    /* to be read by tests */
    _Atomic uint64_t calls;
    _Atomic int64_t alive;    /* created and not destroyed: 0 when all contexts are gone */
    _Atomic uint64_t wrong;   /* uses of wrong handles, if lenient */
    _Atomic uint64_t submits; /* vkQueueSubmit */
};
extern struct null_driver null_driver;

/* Make it the host driver of this process, before anything else of src/vulkan is called. */
void null_driver_install(void);

/* What pv_host_probe would say about it. */
void null_driver_caps(struct pv_host_caps *out);

/* All entry points, for tests that make a struct pv_device by hand. */
void null_fill_instance_table(struct pv_vk_instance_table *table);
void null_fill_device_table(struct pv_vk_device_table *table);

/* A handle that calls accept. Tracked handles count as alive until they are destroyed. */
uint64_t null_new(VkObjectType type, bool tracked);

#endif
