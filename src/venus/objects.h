/* Object table: guest-chosen 64-bit ids to typed host handles.
 *
 * Every ring of a context looks objects up for every handle of every command, so looking up takes
 * no lock: it reads one slot of an open-addressed table. Adding and removing take the table's lock.
 * Objects live in slabs that are given back only when the table is destroyed, and those with a
 * pointer behind them are used again for the same type only: a guest that destroys an object on one
 * ring while another uses it breaks Vulkan's rules and may confuse its own driver calls, but never
 * makes us read freed memory or take one type for another.
 *
 *   ids ──► slots (grows by doubling; old arrays are kept until the end, so readers never lock)
 *             └► object ── device ──► its device object
 *                      └── parent ──► device, command pool or descriptor pool: freed with it
 *
 * Trust:   ids come from the guest. A lookup yields an object of this context or NULL.
 * Threads: pv_objects_find: any. add, remove, publish, for_each: any, serialised by the lock.
 */
#ifndef PV_VENUS_OBJECTS_H
#define PV_VENUS_OBJECTS_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <vulkan/vulkan_core.h>

struct pv_device;
struct pv_memory;
struct pv_physical;
struct pv_queue;

/* Most objects a context may have. A large game has some hundred thousand. */
#define PV_OBJECTS_MAX (16u * 1024u * 1024u)

struct pv_object {
    _Atomic uint64_t id;
    _Atomic uint64_t handle; /* host handle; 0: being created, or the driver refused */
    atomic_bool creating;    /* from add to publish, whose thread still holds it */
    atomic_bool ends_frame;  /* a command buffer that does; see activity.h */
    VkObjectType type;
    bool dying;               /* one thread is removing it; under the table's lock */
    struct pv_object *device; /* the device's object; NULL for instance, physical device, device */
    struct pv_device *dev;    /* the host device behind it; NULL above device level */
    struct pv_object *parent; /* goes away with it; NULL for the instance */
    struct pv_object *children;    /* first child */
    struct pv_object *prev, *next; /* siblings */
    union {
        struct pv_memory *memory;     /* device memory: owned by the object */
        struct pv_physical *physical; /* physical device: borrowed from the instance */
        struct pv_queue *queue;       /* queue: borrowed from the device */
        void *any;
    };
};

struct pv_objects;

int pv_objects_create(struct pv_objects **out);
/* The host objects must be gone already. NULL is fine. */
void pv_objects_destroy(struct pv_objects *objects);

/* The object with this id, or NULL. */
struct pv_object *pv_objects_find(struct pv_objects *objects, uint64_t id);

/* Reserve `id` for an object that is about to be created: until it is published its handle is 0.
 * Returns NULL if the id is 0 or in use (`*why` says which), or the table is full. */
struct pv_object *pv_objects_add(struct pv_objects *objects, uint64_t id, VkObjectType type,
                                 struct pv_object *parent, const char **why);

/* Give the object its handle; 0 leaves it as one that the driver refused. */
static inline void pv_object_publish(struct pv_object *object, uint64_t handle)
{
    atomic_store_explicit(&object->handle, handle, memory_order_release);
    atomic_store_explicit(&object->creating, false, memory_order_release);
}

static inline uint64_t pv_object_handle(struct pv_object *object)
{
    return atomic_load_explicit(&object->handle, memory_order_acquire);
}

static inline uint64_t pv_object_id(struct pv_object *object)
{
    return atomic_load_explicit(&object->id, memory_order_relaxed);
}

/* Forget an object and, first, all its children; if another thread is at it, nothing. `gone` (may
 * be NULL) is called for each child and then the object, before its id is free again, so that host
 * objects can be destroyed. */
typedef void (*pv_object_gone_fn)(void *data, struct pv_object *object);
void pv_objects_remove(struct pv_objects *objects, struct pv_object *object, pv_object_gone_fn gone,
                       void *data);
/* The same for the children only. */
void pv_objects_remove_children(struct pv_objects *objects, struct pv_object *object,
                                pv_object_gone_fn gone, void *data);

/* Number of objects alive. */
uint64_t pv_objects_count(struct pv_objects *objects);

#endif
