#include "venus/resource.h"

#include "util/os.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

#define BUCKETS 1024 /* a power of two; contexts have tens to thousands of blobs */

struct pv_resources {
    pv_resource_released_fn released;
    void *data;
    pthread_mutex_t lock;
    struct pv_resource *buckets[BUCKETS];
    uint32_t count;
    uint64_t bytes;
};

int pv_resources_create(pv_resource_released_fn released, void *data, struct pv_resources **out)
{
    struct pv_resources *resources = calloc(1, sizeof(*resources));
    if (!resources)
        return -ENOMEM;
    resources->released = released;
    resources->data = data;
    pthread_mutex_init(&resources->lock, NULL);
    *out = resources;
    return 0;
}

void pv_resources_destroy(struct pv_resources *resources)
{
    if (!resources)
        return;
    for (unsigned i = 0; i < BUCKETS; i++) {
        while (resources->buckets[i]) {
            struct pv_resource *resource = resources->buckets[i];
            resources->buckets[i] = resource->next;
            pv_resource_unref(resource);
        }
    }
    pthread_mutex_destroy(&resources->lock);
    free(resources);
}

static struct pv_resource **find_locked(struct pv_resources *resources, uint32_t id)
{
    struct pv_resource **link = &resources->buckets[id & (BUCKETS - 1)];
    while (*link && (*link)->id != id)
        link = &(*link)->next;
    return link;
}

static int map_resource(struct pv_resource *resource)
{
    bool is_part = resource->offset != PV_RESOURCE_OWN_FD;
    void *map;
    int ret = pv_shm_map_part(resource->fd, is_part ? resource->offset : 0, resource->size, &map);
    if (ret == 0)
        resource->map = map;
    return ret;
}

int pv_resources_add_part(struct pv_resources *resources, uint32_t id, int fd, uint64_t offset,
                          uint64_t size, enum pv_resource_use use)
{
    struct pv_resource *resource = calloc(1, sizeof(*resource));
    if (!resource)
        return -ENOMEM;
    atomic_init(&resource->refs, 1);
    resource->id = id;
    resource->use = use;
    resource->fd = fd;
    resource->offset = offset;
    resource->size = size;
    resource->released = resources->released;
    resource->data = resources->data;
    int ret = use == PV_RESOURCE_SHM ? map_resource(resource) : 0;
    if (ret < 0) {
        free(resource);
        return ret;
    }
    pthread_mutex_lock(&resources->lock);
    struct pv_resource **link = find_locked(resources, id);
    if (*link) {
        ret = -EEXIST;
    } else if (resources->count >= PV_RESOURCES_MAX) {
        ret = -EMFILE;
    } else {
        *link = resource;
        resources->count++;
        resources->bytes += resource->map ? size : 0;
    }
    pthread_mutex_unlock(&resources->lock);
    if (ret < 0) {
        resource->fd = -1; /* still the caller's */
        pv_resource_unref(resource);
    }
    return ret;
}

int pv_resources_add(struct pv_resources *resources, uint32_t id, int fd, uint64_t size,
                     enum pv_resource_use use)
{
    return pv_resources_add_part(resources, id, fd, PV_RESOURCE_OWN_FD, size, use);
}

struct pv_resource *pv_resources_get(struct pv_resources *resources, uint32_t id)
{
    pthread_mutex_lock(&resources->lock);
    struct pv_resource *resource = *find_locked(resources, id);
    if (resource)
        atomic_fetch_add_explicit(&resource->refs, 1, memory_order_relaxed);
    pthread_mutex_unlock(&resources->lock);
    return resource;
}

int pv_resources_remove(struct pv_resources *resources, uint32_t id)
{
    pthread_mutex_lock(&resources->lock);
    struct pv_resource **link = find_locked(resources, id);
    struct pv_resource *resource = *link;
    if (resource) {
        *link = resource->next;
        atomic_store(&resource->removed, true);
        resources->count--;
        resources->bytes -= resource->map ? resource->size : 0;
    }
    pthread_mutex_unlock(&resources->lock);
    if (!resource)
        return -ENOENT;
    pv_resource_unref(resource);
    return 0;
}

uint64_t pv_resources_bytes(struct pv_resources *resources)
{
    pthread_mutex_lock(&resources->lock);
    uint64_t bytes = resources->bytes;
    pthread_mutex_unlock(&resources->lock);
    return bytes;
}

void pv_resource_unref(struct pv_resource *resource)
{
    if (!resource || atomic_fetch_sub_explicit(&resource->refs, 1, memory_order_acq_rel) > 1)
        return;
    if (resource->map)
        pv_shm_unmap(resource->map, resource->size);
    if (resource->fd >= 0 && resource->offset == PV_RESOURCE_OWN_FD)
        close(resource->fd);
    if (resource->released && atomic_load(&resource->removed))
        resource->released(resource->data, resource->id, resource->offset);
    free(resource);
}
