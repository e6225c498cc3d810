#include "venus/objects.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define SLAB_OBJECTS 512
#define FIRST_SLOTS 1024

struct slot {
    _Atomic uint64_t id; /* 0: empty, TOMBSTONE: was in use */
    _Atomic(struct pv_object *) object;
};

#define TOMBSTONE UINT64_MAX

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
    pthread_mutex_t lock; /* for all below and for writing slots */
    uint64_t used;        /* slots that are not empty, tombstones included */
    _Atomic uint64_t alive;
    struct slab *slabs;
    struct pv_object *free; /* linked by next */
};

/* Ids are small numbers that count up (Mesa) or pointers: spread both. */
static uint64_t hash_id(uint64_t id)
{
    id ^= id >> 32;
    id *= 0x9e3779b97f4a7c15ull;
    return id ^ (id >> 29);
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

struct pv_object *pv_objects_find(struct pv_objects *objects, uint64_t id)
{
    /* pairs with the store in grow_locked */
    struct slots *slots = atomic_load_explicit(&objects->slots, memory_order_acquire);
    if (id == 0 || id == TOMBSTONE)
        return NULL;
    for (uint64_t i = hash_id(id), probes = 0; probes <= slots->mask; i++, probes++) {
        struct slot *slot = &slots->slot[i & slots->mask];
        uint64_t found = atomic_load_explicit(&slot->id, memory_order_acquire);
        if (found == 0)
            return NULL;
        if (found != id)
            continue;
        struct pv_object *object = atomic_load_explicit(&slot->object, memory_order_acquire);
        /* the slot may have been given to another id between the two loads */
        if (object && pv_object_id(object) == id)
            return object;
        return NULL;
    }
    return NULL;
}

/* Returns true if an empty slot was taken, false if one that a removed object left behind. */
static bool put_slot(struct slots *slots, uint64_t id, struct pv_object *object)
{
    for (uint64_t i = hash_id(id);; i++) {
        struct slot *slot = &slots->slot[i & slots->mask];
        uint64_t found = atomic_load_explicit(&slot->id, memory_order_relaxed);
        if (found != 0 && found != TOMBSTONE)
            continue;
        atomic_store_explicit(&slot->object, object, memory_order_relaxed);
        atomic_store_explicit(&slot->id, id, memory_order_release);
        return found == 0;
    }
}

/* Half full with tombstones: copy to a table that is at most a quarter full. */
static int grow_locked(struct pv_objects *objects)
{
    struct slots *old = atomic_load_explicit(&objects->slots, memory_order_relaxed);
    uint64_t alive = atomic_load_explicit(&objects->alive, memory_order_relaxed);
    if (objects->used < (old->mask + 1) / 2)
        return 0;
    uint64_t count = old->mask + 1;
    if (alive >= count / 4)
        count *= 2;
    struct slots *slots = new_slots(count, old);
    if (!slots)
        return -ENOMEM;
    for (uint64_t i = 0; i <= old->mask; i++) {
        uint64_t id = atomic_load_explicit(&old->slot[i].id, memory_order_relaxed);
        if (id != 0 && id != TOMBSTONE)
            put_slot(slots, id, atomic_load_explicit(&old->slot[i].object, memory_order_relaxed));
    }
    objects->used = alive;
    atomic_store_explicit(&objects->slots, slots, memory_order_release);
    return 0;
}

static struct pv_object *new_object_locked(struct pv_objects *objects)
{
    if (!objects->free) {
        struct slab *slab = calloc(1, sizeof(*slab));
        if (!slab)
            return NULL;
        slab->next = objects->slabs;
        objects->slabs = slab;
        for (unsigned i = 0; i < SLAB_OBJECTS; i++) {
            slab->objects[i].next = objects->free;
            objects->free = &slab->objects[i];
        }
    }
    struct pv_object *object = objects->free;
    objects->free = object->next;
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
    if (id == 0 || id == TOMBSTONE) {
        *why = "new object id is not allowed";
    } else if (pv_objects_find(objects, id)) {
        *why = "new object id is in use";
    } else if (atomic_load(&objects->alive) >= PV_OBJECTS_MAX || grow_locked(objects) < 0) {
        *why = "too many objects, refused id";
    } else {
        object = new_object_locked(objects);
        if (!object)
            *why = "no memory for object id";
    }
    if (object) {
        object->type = type;
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
        if (put_slot(atomic_load_explicit(&objects->slots, memory_order_relaxed), id, object))
            objects->used++;
        atomic_fetch_add(&objects->alive, 1);
    }
    pthread_mutex_unlock(&objects->lock);
    return object;
}

static uint64_t slot_id(struct slots *slots, uint64_t i)
{
    return atomic_load_explicit(&slots->slot[i & slots->mask].id, memory_order_relaxed);
}

/* A slot at the end of its cluster becomes empty again, with the tombstones before it: so creating
 * and destroying for ever does not fill the table. Readers stop at an empty slot, and behind this one
 * there is nothing to find. */
static void clear_slot(struct pv_objects *objects, struct slots *slots, uint64_t i)
{
    atomic_store_explicit(&slots->slot[i & slots->mask].id, TOMBSTONE, memory_order_release);
    atomic_store_explicit(&slots->slot[i & slots->mask].object, NULL, memory_order_release);
    if (slot_id(slots, i + 1) != 0)
        return;
    for (; slot_id(slots, i) == TOMBSTONE; i--) {
        atomic_store_explicit(&slots->slot[i & slots->mask].id, 0, memory_order_release);
        objects->used--;
    }
}

static void forget_locked(struct pv_objects *objects, struct pv_object *object)
{
    struct slots *slots = atomic_load_explicit(&objects->slots, memory_order_relaxed);
    uint64_t id = pv_object_id(object);
    uint64_t i = hash_id(id);
    while (slot_id(slots, i) != id)
        i++;
    clear_slot(objects, slots, i);
    unlink_child(object);
    atomic_store_explicit(&object->id, 0, memory_order_release);
    object->next = objects->free;
    objects->free = object;
    atomic_fetch_sub(&objects->alive, 1);
}

void pv_objects_remove_children(struct pv_objects *objects, struct pv_object *object,
                                pv_object_gone_fn gone, void *data)
{
    for (;;) {
        pthread_mutex_lock(&objects->lock);
        struct pv_object *child = object->children;
        pthread_mutex_unlock(&objects->lock);
        if (!child)
            return;
        pv_objects_remove(objects, child, gone, data);
    }
}

void pv_objects_remove(struct pv_objects *objects, struct pv_object *object, pv_object_gone_fn gone,
                       void *data)
{
    pv_objects_remove_children(objects, object, gone, data);
    if (gone)
        gone(data, object);
    pthread_mutex_lock(&objects->lock);
    if (pv_object_id(object) != 0)
        forget_locked(objects, object);
    pthread_mutex_unlock(&objects->lock);
}

uint64_t pv_objects_count(struct pv_objects *objects)
{
    return atomic_load(&objects->alive);
}
