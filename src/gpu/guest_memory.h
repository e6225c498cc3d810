/* The guest's physical memory, as far as the VMM shares it.
 *
 * Shape:   regions [gpa, gpa + size), each a mapping of a part of an fd; sorted, never overlapping.
 *          Nobody keeps a pointer into it: users keep guest addresses and look them up when they
 *          copy, so that a region may be removed at any moment between two calls.
 * Trust:   addresses and lengths come from a hostile guest, the bytes behind them change at will.
 * Threads: one, that of the device's event loop. After fork() the mappings are gone in the child.
 */
#ifndef PV_GPU_GUEST_MEMORY_H
#define PV_GPU_GUEST_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct pv_guest_memory;

/* Most regions at a time; a VM has a handful, hotplug adds some. */
#define PV_GUEST_REGIONS_MAX 64

struct pv_guest_region {
    uint64_t gpa, size;
    uint64_t user_address; /* the VMM's own address of it: vhost-user names rings by that */
    int fd;                /* borrowed during the call */
    uint64_t fd_offset;
};

int pv_guest_memory_create(struct pv_guest_memory **out);
void pv_guest_memory_destroy(struct pv_guest_memory *memory);

/* Replace the whole table. A region whose (gpa, size, file, offset) is unchanged keeps its mapping.
 * Returns 0; -EINVAL (overlap, overflow, size 0, fd too short), -E2BIG, or what mmap said: then the
 * table is as before. */
int pv_guest_memory_set(struct pv_guest_memory *memory, const struct pv_guest_region *regions,
                        size_t count);
int pv_guest_memory_add(struct pv_guest_memory *memory, const struct pv_guest_region *region);
/* Remove the region with this gpa and size; -ENOENT. */
int pv_guest_memory_remove(struct pv_guest_memory *memory, uint64_t gpa, uint64_t size);

/* `size` bytes at `gpa` as one pointer, or NULL if they are not all inside one region. Valid until
 * the table changes. */
void *pv_guest_memory_at(struct pv_guest_memory *memory, uint64_t gpa, uint64_t size);
/* The same by the VMM's address. */
void *pv_guest_memory_at_user(struct pv_guest_memory *memory, uint64_t user_address, uint64_t size);

/* Every byte of the range is guest memory; it may cross regions. */
bool pv_guest_memory_has(struct pv_guest_memory *memory, uint64_t gpa, uint64_t size);

/* Copy out of, or into, guest memory; ranges may cross regions. 0, or -EFAULT and nothing useful is
 * in the destination. */
int pv_guest_memory_read(struct pv_guest_memory *memory, uint64_t gpa, void *out, size_t size);
int pv_guest_memory_write(struct pv_guest_memory *memory, uint64_t gpa, const void *data,
                          size_t size);

#endif
