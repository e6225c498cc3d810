/* Resources: the blobs of one context by res_id, and their mappings.
 *
 * Shape:   res_id → shared memory with a mapping (rings, command streams, replies), or a name for
 *          device memory that only the guest maps, or memory that may be imported: behind an fd of
 *          its own, or a part of the arena.
 * Owner:   refcounted; the table holds one reference, each ring, reply stream and device memory
 * made of it another. Threads: any; the table has a lock.
 */
#ifndef PV_VENUS_RESOURCE_H
#define PV_VENUS_RESOURCE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Most resources a context may have: each mapped allocation is one. */
#define PV_RESOURCES_MAX (1024u * 1024u)

/* `offset` of resources that are not in the arena. */
#define PV_RESOURCE_OWN_FD UINT64_MAX

enum pv_resource_use {
    PV_RESOURCE_SHM,    /* mapped here */
    PV_RESOURCE_MEMORY, /* for device memory that this context is about to allocate */
    PV_RESOURCE_OTHER,  /* to be imported, or a name only */
};

/* The last user of a resource that was removed has gone. Any thread. */
typedef void (*pv_resource_released_fn)(void *data, uint32_t id, uint64_t offset);

struct pv_resource {
    atomic_uint refs;
    uint32_t id;
    atomic_bool removed; /* from the table: its id may be another's by now */
    enum pv_resource_use use;
    uint64_t size;
    uint8_t *map;    /* shared memory only: mapped for reading and writing, shared with the guest */
    int fd;          /* what an import takes; -1 for device memory that is only mapped */
    uint64_t offset; /* in the fd; PV_RESOURCE_OWN_FD: all of it, and the fd is owned */
    pv_resource_released_fn released;
    void *data;
    struct pv_resource *next;
};

struct pv_resources;

/* `released` may be NULL. */
int pv_resources_create(pv_resource_released_fn released, void *data, struct pv_resources **out);
void pv_resources_destroy(struct pv_resources *resources);

/* Add a resource; takes over fd on success. PV_RESOURCE_SHM is mapped.
 * Returns 0, -EEXIST, -ENOMEM or -EMFILE (too many). */
int pv_resources_add(struct pv_resources *resources, uint32_t id, int fd, uint64_t size,
                     enum pv_resource_use use);
/* Add [offset, offset + size) of the arena: whole pages. The fd stays the caller's and must outlive
 * the resource. */
int pv_resources_add_part(struct pv_resources *resources, uint32_t id, int fd, uint64_t offset,
                          uint64_t size, enum pv_resource_use use);
/* A reference to the resource, or NULL. */
struct pv_resource *pv_resources_get(struct pv_resources *resources, uint32_t id);
/* Drop the table's reference. 0 or -ENOENT. */
int pv_resources_remove(struct pv_resources *resources, uint32_t id);
/* Bytes of shared memory alive. */
uint64_t pv_resources_bytes(struct pv_resources *resources);

void pv_resource_unref(struct pv_resource *resource);

/* True if [offset, offset + size) lies inside its mapping. */
static inline bool pv_resource_has_range(const struct pv_resource *resource, uint64_t offset,
                                         uint64_t size)
{
    return resource->map && offset <= resource->size && size <= resource->size - offset;
}

#endif
