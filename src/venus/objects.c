#include "venus/objects.h"

#include "util/os.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#define SLAB_OBJECTS 512
#define FIRST_SLOTS  1024
#define CLASSES      4 /* see class_of */

struct slot {
    _Atomic uint64_t id; /* 0: empty */
    _Atomic(struct pv_object *) object;
};

struct slots {
    struct slots *older; /* kept for readers that are still in it */
    uint64_t mask;
    struct slot slot[];
};

struct slab {
    struct slab *next;
    struct pv_object objects[SLAB_OBJECTS];
};

struct pv_objects {
    _Atomic(struct slots *) slots;
    _Atomic uint32_t
        moves;            /* odd while slots are moved: what a reader does not find may be there */
    uint64_t key;         /* of the hash: a guest cannot choose ids that collide */
    pthread_mutex_t lock; /* for all below and for writing slots */
    _Atomic uint64_t alive;
    struct slab *slabs;
    struct pv_object *free[CLASSES]; /* linked by next */
};

/* Objects of one class are used again among themselves, so that whoever still holds one finds the
 * right type behind its pointer, or NULL. */
static unsigned class_of(VkObjectType type)
{
    switch (type) {
    case VK_OBJECT_TYPE_DEVICE_MEMORY:
        return 1;
    case VK_OBJECT_TYPE_PHYSICAL_DEVICE:
        return 2;
    case VK_OBJECT_TYPE_QUEUE:
        return 3;
    default:
        return 0;
    }
}

/* Ids are small numbers that count up (Mesa), pointers, or chosen to hurt: spread all. */
static uint64_t hash_id(const struct pv_objects *objects, uint64_t id)
{
    id ^= objects->key;
    id ^= id >> 32;
    id *= objects->key | 1;
    id ^= id >> 29;
    id *= 0x9e3779b97f4a7c15ull;
    return id ^ (id >> 32);
}

static struct slots *new_slots(uint64_t count, struct slots *older)
{
    struct slots *slots = calloc(1, sizeof(*slots) + count * sizeof(struct slot));
    if (slots) {
        slots->mask = count - 1;
        slots->older = older;
    }
    return slots;
}

int pv_objects_create(struct pv_objects **out)
{
    struct pv_objects *objects = calloc(1, sizeof(*objects));
    if (!objects)
        return -ENOMEM;
    struct slots *slots = new_slots(FIRST_SLOTS, NULL);
    if (!slots) {
        free(objects);
        return -ENOMEM;
    }
    objects->key = (pv_now_ns() ^ (uint64_t)(uintptr_t)slots) * 0xd1342543de82ef95ull;
    atomic_init(&objects->slots, slots);
    pthread_mutex_init(&objects->lock, NULL);
    *out = objects;
    return 0;
}

void pv_objects_destroy(struct pv_objects *objects)
{
    if (!objects)
        return;
    struct slots *slots = atomic_load(&objects->slots);
    while (slots) {
        struct slots *older = slots->older;
        free(slots);
        slots = older;
    }
    while (objects->slabs) {
        struct slab *next = objects->slabs->next;
        free(objects->slabs);
        objects->slabs = next;
    }
    pthread_mutex_destroy(&objects->lock);
    free(objects);
}

static struct pv_object *look(struct slots *slots, uint64_t hash, uint64_t id)
{
    for (uint64_t i = hash, probes = 0; probes <= slots->mask; i++, probes++) {
        struct slot *slot = &slots->slot[i & slots->mask];
        uint64_t found = atomic_load_explicit(&slot->id, memory_order_acquire);
        if (found == 0)
            return NULL;
        if (found != id)
            continue;
        struct pv_object *object = atomic_load_explicit(&slot->object, memory_order_acquire);
        /* the slot may have been given to another id between the two loads */
        return object && pv_object_id(object) == id ? object : NULL;
    }
    return NULL;
}

struct pv_object *pv_objects_find(struct pv_objects *objects, uint64_t id)
{
    if (id == 0)
        return NULL;
    uint64_t hash = hash_id(objects, id);
    for (;;) {
        uint32_t moves = atomic_load_explicit(&objects->moves, memory_order_acquire);
        /* pairs with the store in grow_locked */
        struct slots *slots = atomic_load_explicit(&objects->slots, memory_order_acquire);
        struct pv_object *object = look(slots, hash, id);
        if (object)
            return object;
        /* pairs with close_gap: nothing was moved meanwhile */
        atomic_thread_fence(memory_order_acquire);
        if (moves % 2 == 0 && atomic_load_explicit(&objects->moves, memory_order_relaxed) == moves)
            return NULL;
        pv_cpu_relax();
    }
}

static void put_slot(struct slots *slots, uint64_t hash, uint64_t id, struct pv_object *object)
{
    uint64_t i = hash & slots->mask;
    while (atomic_load_explicit(&slots->slot[i].id, memory_order_relaxed) != 0)
        i = (i + 1) & slots->mask;
    atomic_store_explicit(&slots->slot[i].object, object, memory_order_relaxed);
    atomic_store_explicit(&slots->slot[i].id, id, memory_order_release);
}

/* At most half full. All old tables together are no larger than the new one. */
static int grow_locked(struct pv_objects *objects)
{
    struct slots *old = atomic_load_explicit(&objects->slots, memory_order_relaxed);
    if (atomic_load_explicit(&objects->alive, memory_order_relaxed) < (old->mask + 1) / 2)
        return 0;
    struct slots *slots = new_slots(2 * (old->mask + 1), old);
    if (!slots)
        return -ENOMEM;
    for (uint64_t i = 0; i <= old->mask; i++) {
        uint64_t id = atomic_load_explicit(&old->slot[i].id, memory_order_relaxed);
        if (id != 0)
            put_slot(slots, hash_id(objects, id), id,
                     atomic_load_explicit(&old->slot[i].object, memory_order_relaxed));
    }
    atomic_store_explicit(&objects->slots, slots, memory_order_release);
    return 0;
}

static struct pv_object *new_object_locked(struct pv_objects *objects, VkObjectType type)
{
    struct pv_object **list = &objects->free[class_of(type)];
    if (!*list) {
        struct slab *slab = calloc(1, sizeof(*slab));
        if (!slab)
            return NULL;
        slab->next = objects->slabs;
        objects->slabs = slab;
        for (unsigned i = 0; i < SLAB_OBJECTS; i++) {
            slab->objects[i].next = *list;
            *list = &slab->objects[i];
        }
    }
    struct pv_object *object = *list;
    *list = object->next;
    return object;
}

static void link_child(struct pv_object *parent, struct pv_object *object)
{
    object->parent = parent;
    object->prev = NULL;
    object->next = NULL;
    object->children = NULL;
    if (!parent)
        return;
    object->next = parent->children;
    if (parent->children)
        parent->children->prev = object;
    parent->children = object;
}

static void unlink_child(struct pv_object *object)
{
    if (object->prev)
        object->prev->next = object->next;
    else if (object->parent)
        object->parent->children = object->next;
    if (object->next)
        object->next->prev = object->prev;
}

struct pv_object *pv_objects_add(struct pv_objects *objects, uint64_t id, VkObjectType type,
                                 struct pv_object *parent, const char **why)
{
    struct pv_object *object = NULL;
    pthread_mutex_lock(&objects->lock);
    if (id == 0) {
        *why = "new object id is not allowed";
    } else if (pv_objects_find(objects, id)) {
        *why = "new object id is in use";
    } else if (parent && (parent->dying || pv_object_id(parent) == 0)) {
        *why = "what it belongs to is being destroyed, new object id";
    } else if (atomic_load(&objects->alive) >= PV_OBJECTS_MAX || grow_locked(objects) < 0) {
        *why = "too many objects, refused id";
    } else {
        object = new_object_locked(objects, type);
        if (!object)
            *why = "no memory for object id";
    }
    if (object) {
        object->type = type;
        object->dying = false;
        atomic_store_explicit(&object->creating, true, memory_order_relaxed);
        object->any = NULL;
        object->device = NULL;
        object->dev = NULL;
        atomic_store_explicit(&object->handle, 0, memory_order_relaxed);
        if (parent) {
            object->device = parent->type == VK_OBJECT_TYPE_DEVICE ? parent : parent->device;
            object->dev = parent->dev;
        }
        link_child(parent, object);
        atomic_store_explicit(&object->id, id, memory_order_release);
        put_slot(atomic_load_explicit(&objects->slots, memory_order_relaxed), hash_id(objects, id),
                 id, object);
        atomic_fetch_add(&objects->alive, 1);
    }
    pthread_mutex_unlock(&objects->lock);
    return object;
}

static uint64_t slot_id(struct slots *slots, uint64_t i)
{
    return atomic_load_explicit(&slots->slot[i].id, memory_order_relaxed);
}

/* Empty slot i and move those behind it that would not be found past the gap, so that creating and
 * destroying for ever leaves nothing in the table. */
static void close_gap(struct pv_objects *objects, struct slots *slots, uint64_t i)
{
    uint32_t moves = atomic_load_explicit(&objects->moves, memory_order_relaxed);
    atomic_store_explicit(&objects->moves, moves + 1, memory_order_relaxed);
    atomic_thread_fence(memory_order_release);
    for (uint64_t k = (i + 1) & slots->mask; slot_id(slots, k) != 0; k = (k + 1) & slots->mask) {
        uint64_t home = hash_id(objects, slot_id(slots, k)) & slots->mask;
        if (((k - home) & slots->mask) < ((k - i) & slots->mask))
            continue; /* it lives between the gap and here */
        struct pv_object *object =
            atomic_load_explicit(&slots->slot[k].object, memory_order_relaxed);
        atomic_store_explicit(&slots->slot[i].object, object, memory_order_relaxed);
        atomic_store_explicit(&slots->slot[i].id, slot_id(slots, k), memory_order_release);
        i = k;
    }
    atomic_store_explicit(&slots->slot[i].id, 0, memory_order_relaxed);
    atomic_store_explicit(&slots->slot[i].object, NULL, memory_order_relaxed);
    atomic_store_explicit(&objects->moves, moves + 2, memory_order_release);
}

static void forget_locked(struct pv_objects *objects, struct pv_object *object)
{
    struct slots *slots = atomic_load_explicit(&objects->slots, memory_order_relaxed);
    uint64_t id = pv_object_id(object);
    uint64_t i = hash_id(objects, id) & slots->mask;
    while (slot_id(slots, i) != id)
        i = (i + 1) & slots->mask;
    close_gap(objects, slots, i);
    unlink_child(object);
    atomic_store_explicit(&object->id, 0, memory_order_release);
    /* destroyed by one ring while another makes it, which no sane guest does: never used again, or
     * the handle would end up in somebody else's object */
    if (!atomic_load_explicit(&object->creating, memory_order_acquire)) {
        object->next = objects->free[class_of(object->type)];
        objects->free[class_of(object->type)] = object;
    }
    atomic_fetch_sub(&objects->alive, 1);
}

void pv_objects_remove_children(struct pv_objects *objects, struct pv_object *object,
                                pv_object_gone_fn gone, void *data)
{
    for (;;) {
        pthread_mutex_lock(&objects->lock);
        struct pv_object *child = object->children;
        bool dying = child && child->dying;
        pthread_mutex_unlock(&objects->lock);
        if (!child)
            return;
        if (dying) /* by another thread, which never waits for us: it came from further down */
            sched_yield();
        else
            pv_objects_remove(objects, child, gone, data);
    }
}

void pv_objects_remove(struct pv_objects *objects, struct pv_object *object, pv_object_gone_fn gone,
                       void *data)
{
    pthread_mutex_lock(&objects->lock);
    bool ours = pv_object_id(object) != 0 && !object->dying;
    if (ours)
        object->dying = true; /* nobody else removes it, nobody adds children */
    pthread_mutex_unlock(&objects->lock);
    if (!ours)
        return;
    pv_objects_remove_children(objects, object, gone, data);
    if (gone)
        gone(data, object);
    pthread_mutex_lock(&objects->lock);
    forget_locked(objects, object);
    pthread_mutex_unlock(&objects->lock);
}

uint64_t pv_objects_count(struct pv_objects *objects)
{
    return atomic_load(&objects->alive);
}
