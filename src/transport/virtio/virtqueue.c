#include "transport/virtio/virtqueue.h"

#include "gpu/guest_memory.h"
#include "util/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PV_LOG_MODULE "virtio"

#define DESC_NEXT     1u
#define DESC_WRITE    2u
#define DESC_INDIRECT 4u
/* of packed rings */
#define DESC_AVAIL (1u << 7)
#define DESC_USED  (1u << 15)

#define SPLIT_NO_INTERRUPT 1u /* in the avail ring's flags */

#define EVENT_ENABLE  0u /* of packed rings' event areas */
#define EVENT_DISABLE 1u
#define EVENT_AT      2u

struct split_desc {
    uint64_t addr;
    uint32_t len;
    uint16_t flags, next;
};
struct split_avail {
    uint16_t flags, idx, ring[]; /* then used_event */
};
struct split_used {
    uint16_t flags, idx;
    struct {
        uint32_t id, len;
    } ring[]; /* then avail_event */
};
struct packed_desc {
    uint64_t addr;
    uint32_t len;
    uint16_t id, flags;
};
struct packed_event {
    uint16_t where; /* entry, and its wrap counter in bit 15 */
    uint16_t flags;
};

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "rings are little-endian");
_Static_assert(sizeof(struct split_desc) == 16 && sizeof(struct packed_desc) == 16, "16 in virtio");

#define READ(p)             __atomic_load_n((p), __ATOMIC_RELAXED)
#define READ_ACQUIRE(p)     __atomic_load_n((p), __ATOMIC_ACQUIRE)
#define WRITE(p, v)         __atomic_store_n((p), (v), __ATOMIC_RELAXED)
#define WRITE_RELEASE(p, v) __atomic_store_n((p), (v), __ATOMIC_RELEASE)

void pv_virtqueue_init(struct pv_virtqueue *queue, const struct pv_virtqueue_params *params)
{
    *queue = (struct pv_virtqueue){.params = *params};
    pv_list_init(&queue->in_flight);
    pv_list_init(&queue->spare);
}

static void free_elements(struct pv_list *list)
{
    pv_list_for_each(node, list)
    {
        struct pv_virtqueue_element *element =
            pv_list_entry(node, struct pv_virtqueue_element, link);
        pv_list_remove(node);
        free(element->room);
        free(element);
    }
}

void pv_virtqueue_finish(struct pv_virtqueue *queue)
{
    free_elements(&queue->in_flight);
    free_elements(&queue->spare);
    free(queue->request);
    free(queue->table);
}

/* The guest has broken the ring: say why, once, and stop. */
static int __attribute__((format(printf, 2, 3)))
fail(struct pv_virtqueue *queue, const char *format, ...)
{
    char reason[160];
    va_list args;
    va_start(args, format);
    vsnprintf(reason, sizeof(reason), format, args);
    va_end(args);
    if (!queue->broken)
        pv_log_limited(PV_LOG_ERROR, 50, "%s queue: %s; queue stopped until it is reset",
                       queue->params.name, reason);
    queue->broken = true;
    return -EPROTO;
}

/* ---- where the rings are ---- */

static int map_rings(struct pv_virtqueue *queue)
{
    const struct pv_virtqueue_setup *setup = &queue->setup;
    struct pv_guest_memory *memory = queue->params.memory;
    uint64_t size = setup->size;
    uint64_t driver_size = setup->packed ? sizeof(struct packed_event) : 6 + 2 * size;
    uint64_t device_size = setup->packed ? sizeof(struct packed_event) : 6 + 8 * size;
    /* the alignments of the specification */
    uintptr_t driver_align = setup->packed ? 4 : 2;
    queue->desc = pv_guest_memory_at_user(memory, setup->desc, 16 * size);
    queue->driver = pv_guest_memory_at_user(memory, setup->driver, driver_size);
    queue->device = pv_guest_memory_at_user(memory, setup->device, device_size);
    if (!queue->desc || !queue->driver || !queue->device)
        return -EFAULT;
    return (uintptr_t)queue->desc % 16 || (uintptr_t)queue->driver % driver_align ||
                   (uintptr_t)queue->device % 4
               ? -EINVAL
               : 0;
}

static bool base_fits(const struct pv_virtqueue_setup *setup)
{
    if (!setup->packed)
        return setup->base <= UINT16_MAX;
    return (setup->base & 0x7fff) < setup->size && (setup->base >> 16 & 0x7fff) < setup->size;
}

int pv_virtqueue_start(struct pv_virtqueue *queue, const struct pv_virtqueue_setup *setup)
{
    const char *name = queue->params.name;
    if (setup->size == 0 || setup->size > PV_VIRTQUEUE_SIZE_MAX ||
        (!setup->packed && (setup->size & (setup->size - 1)) != 0)) {
        pv_log_limited(PV_LOG_ERROR, 10, "%s queue: a ring cannot have %u entries", name,
                       setup->size);
        return -EINVAL;
    }
    if (!base_fits(setup)) {
        pv_log_limited(PV_LOG_ERROR, 10, "%s queue: base 0x%x does not fit a ring of %u", name,
                       setup->base, setup->size);
        return -EINVAL;
    }
    pv_virtqueue_stop(queue);
    queue->setup = *setup;
    int ret = map_rings(queue);
    if (ret < 0) {
        pv_log_limited(PV_LOG_ERROR, 10, "%s queue: its rings are %s", name,
                       ret == -EFAULT ? "outside guest memory" : "not aligned");
        return ret;
    }
    queue->started = true;
    queue->broken = false;
    queue->always_signal = true;
    queue->unsignalled = 0;
    if (setup->packed) {
        queue->avail = setup->base & 0x7fff;
        queue->avail_wrap = setup->base >> 15 & 1;
        queue->used = setup->base >> 16 & 0x7fff;
        queue->used_wrap = setup->base >> 31;
    } else {
        struct split_used *used = queue->device;
        queue->avail = (uint16_t)setup->base;
        queue->used = READ(&used->idx);
    }
    return 0;
}

uint32_t pv_virtqueue_stop(struct pv_virtqueue *queue)
{
    uint32_t base = queue->avail;
    if (queue->setup.packed)
        base |= (uint32_t)queue->avail_wrap << 15 | (uint32_t)queue->used << 16 |
                (uint32_t)queue->used_wrap << 31;
    pv_list_for_each(node, &queue->in_flight)
    {
        pv_list_remove(node);
        pv_list_append(&queue->spare, node);
    }
    queue->slots_taken = 0;
    queue->started = false;
    queue->broken = queue->lost = false;
    queue->desc = queue->driver = queue->device = NULL;
    return base;
}

int pv_virtqueue_remap(struct pv_virtqueue *queue, const struct pv_virtqueue_setup *addresses)
{
    if (!queue->started)
        return 0;
    if (addresses) {
        queue->setup.desc = addresses->desc;
        queue->setup.driver = addresses->driver;
        queue->setup.device = addresses->device;
    }
    bool was_lost = queue->lost;
    queue->lost = map_rings(queue) < 0;
    if (queue->lost && !was_lost)
        pv_log_limited(PV_LOG_ERROR, 10,
                       "%s queue: its rings are not in guest memory any more; queue stopped",
                       queue->params.name);
    return queue->lost ? -EFAULT : 0;
}

/* ---- one request ---- */

static struct pv_virtqueue_element *new_element(struct pv_virtqueue *queue)
{
    struct pv_virtqueue_element *element;
    if (!pv_list_empty(&queue->spare)) {
        element = pv_list_entry(queue->spare.next, struct pv_virtqueue_element, link);
        pv_list_remove(&element->link);
    } else {
        element = calloc(1, sizeof(*element));
        if (!element)
            return NULL;
        pv_list_init(&element->link);
        element->queue = queue;
    }
    memset(element->header, 0, sizeof(element->header));
    element->request = NULL;
    element->request_size = 0;
    element->copied = 0;
    element->room_size = 0;
    element->range_count = 0;
    return element;
}

/* Make `*buffer` hold `size` bytes. */
static bool grow(uint8_t **buffer, size_t *capacity, size_t size)
{
    if (size <= *capacity)
        return true;
    size_t wanted = *capacity ? *capacity : 4096;
    while (wanted < size)
        wanted *= 2;
    uint8_t *bigger = realloc(*buffer, wanted);
    if (!bigger)
        return false;
    *buffer = bigger;
    *capacity = wanted;
    return true;
}

static int add_readable(struct pv_virtqueue *queue, struct pv_virtqueue_element *element,
                        uint64_t gpa, uint32_t size)
{
    struct pv_guest_memory *memory = queue->params.memory;
    uint32_t part = size;
    if (element->range_count > 0)
        return fail(queue, "a readable descriptor follows a writable one");
    element->request_size += size;
    if (element->request_size > queue->params.request_max ||
        !grow(&queue->request, &queue->request_capacity, (size_t)element->request_size)) {
        /* too long: only its header is of use */
        uint32_t missing = element->copied < PV_VIRTQUEUE_HEADER_SIZE && queue->request
                               ? PV_VIRTQUEUE_HEADER_SIZE - element->copied
                               : 0;
        part = size < missing ? size : missing;
    }
    if (pv_guest_memory_has(memory, gpa, size) &&
        pv_guest_memory_read(memory, gpa, queue->request + element->copied, part) == 0) {
        element->copied += part;
        return 0;
    }
    return fail(queue, "a descriptor names 0x%x bytes at 0x%llx, outside guest memory", size,
                (unsigned long long)gpa);
}

static int add_writable(struct pv_virtqueue *queue, struct pv_virtqueue_element *element,
                        uint64_t gpa, uint32_t size)
{
    if (!pv_guest_memory_has(queue->params.memory, gpa, size))
        return fail(queue, "a descriptor names 0x%x bytes at 0x%llx, outside guest memory", size,
                    (unsigned long long)gpa);
    uint32_t left = queue->params.response_max - element->room_size;
    if (left == 0)
        return 0;
    if (element->range_count == element->range_capacity) {
        uint32_t capacity = element->range_capacity ? 2 * element->range_capacity : 4;
        struct pv_virtqueue_range *bigger =
            realloc(element->room, capacity * sizeof(*element->room));
        if (!bigger)
            return fail(queue, "out of memory");
        element->room = bigger;
        element->range_capacity = capacity;
    }
    uint32_t taken = size < left ? size : left;
    element->room[element->range_count++] = (struct pv_virtqueue_range){gpa, taken};
    element->room_size += taken;
    return 0;
}

static int add_descriptor(struct pv_virtqueue *queue, struct pv_virtqueue_element *element,
                          uint64_t gpa, uint32_t size, uint16_t flags)
{
    if (size == 0)
        return 0;
    return flags & DESC_WRITE ? add_writable(queue, element, gpa, size)
                              : add_readable(queue, element, gpa, size);
}

/* Copy an indirect table; *out_count entries of 16 bytes in queue->table. */
static int read_table(struct pv_virtqueue *queue, uint64_t gpa, uint32_t size, uint16_t flags,
                      uint32_t *out_count)
{
    if (!queue->setup.indirect)
        return fail(queue, "an indirect descriptor, which was not negotiated");
    if (flags & DESC_NEXT)
        return fail(queue, "an indirect descriptor goes on to a next one");
    if (size == 0 || size % 16 != 0 || size / 16 > PV_VIRTQUEUE_INDIRECT_MAX)
        return fail(queue, "an indirect table of %u bytes; up to %u entries of 16 are possible",
                    size, PV_VIRTQUEUE_INDIRECT_MAX);
    if (!grow(&queue->table, &queue->table_capacity, size))
        return fail(queue, "out of memory");
    if (pv_guest_memory_read(queue->params.memory, gpa, queue->table, size) < 0)
        return fail(queue, "an indirect table of %u bytes at 0x%llx, outside guest memory", size,
                    (unsigned long long)gpa);
    *out_count = size / 16;
    return 0;
}

/* The whole chain has been seen: hand out what was gathered. */
static void finish_element(struct pv_virtqueue *queue, struct pv_virtqueue_element *element,
                           uint16_t id, uint16_t slots)
{
    uint32_t copied = element->copied;
    if (copied > 0)
        memcpy(element->header, queue->request,
               copied < sizeof(element->header) ? copied : sizeof(element->header));
    if (element->request_size == copied)
        element->request = queue->request;
    element->id = id;
    element->slots = slots;
    queue->slots_taken += slots;
    pv_list_append(&queue->in_flight, &element->link);
}

/* ---- split rings ---- */

static int walk_split_table(struct pv_virtqueue *queue, struct pv_virtqueue_element *element,
                            uint32_t count)
{
    const struct split_desc *table = (const void *)queue->table;
    uint32_t i = 0;
    for (uint32_t seen = 0; seen < count; seen++) {
        if (i >= count)
            return fail(queue, "an indirect table of %u entries goes on at %u", count, i);
        const struct split_desc *desc = &table[i];
        if (desc->flags & DESC_INDIRECT)
            return fail(queue, "an indirect table inside another");
        int ret = add_descriptor(queue, element, desc->addr, desc->len, desc->flags);
        if (ret < 0 || !(desc->flags & DESC_NEXT))
            return ret;
        i = desc->next;
    }
    return fail(queue, "a chain in an indirect table loops");
}

static int walk_split(struct pv_virtqueue *queue, struct pv_virtqueue_element *element,
                      uint16_t head)
{
    struct split_desc *ring = queue->desc;
    uint32_t i = head;
    for (uint32_t seen = 0; seen < queue->setup.size; seen++) {
        if (i >= queue->setup.size)
            return fail(queue, "a chain goes on at descriptor %u of %u", i, queue->setup.size);
        const struct split_desc desc = {
            .addr = READ(&ring[i].addr),
            .len = READ(&ring[i].len),
            .flags = READ(&ring[i].flags),
            .next = READ(&ring[i].next),
        };
        if (desc.flags & DESC_INDIRECT) {
            uint32_t count = 0;
            int ret = read_table(queue, desc.addr, desc.len, desc.flags, &count);
            return ret < 0 ? ret : walk_split_table(queue, element, count);
        }
        int ret = add_descriptor(queue, element, desc.addr, desc.len, desc.flags);
        if (ret < 0 || !(desc.flags & DESC_NEXT))
            return ret;
        i = desc.next;
    }
    return fail(queue, "a chain of descriptors loops");
}

/* The ring looks empty: ask for a kick, and look again. True if there is something after all. */
static bool arm_split(struct pv_virtqueue *queue)
{
    struct split_avail *avail = queue->driver;
    struct split_used *used = queue->device;
    if (!queue->setup.event_idx)
        return false; /* NO_NOTIFY is never set: every request kicks */
    uint16_t *avail_event = (uint16_t *)&used->ring[queue->setup.size];
    WRITE(avail_event, queue->avail);
    /* Pairs with the driver's fence between its store of avail->idx and its load of avail_event:
     * either it sees our wish for a kick, or we see its request. */
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    return READ_ACQUIRE(&avail->idx) != queue->avail;
}

static int pop_split(struct pv_virtqueue *queue, struct pv_virtqueue_element **out)
{
    struct split_avail *avail = queue->driver;
    uint32_t size = queue->setup.size;
    /* pairs with the driver's release of idx, after it wrote descriptors and ring entry */
    uint16_t waiting = (uint16_t)(READ_ACQUIRE(&avail->idx) - queue->avail);
    if (waiting == 0) {
        if (!arm_split(queue))
            return 0;
        waiting = (uint16_t)(READ_ACQUIRE(&avail->idx) - queue->avail);
    }
    if (waiting > size)
        return fail(queue, "the driver's index is %u ahead, the ring has %u entries", waiting,
                    size);
    if (queue->slots_taken >= size)
        return fail(queue, "more requests than the ring has entries wait for answers");
    uint16_t head = READ(&avail->ring[queue->avail & (size - 1)]);
    struct pv_virtqueue_element *element = new_element(queue);
    if (!element)
        return fail(queue, "out of memory");
    int ret = walk_split(queue, element, head);
    if (ret < 0) {
        pv_list_append(&queue->spare, &element->link);
        return ret;
    }
    finish_element(queue, element, head, 1);
    queue->avail++;
    *out = element;
    return 1;
}

static void give_back_split(struct pv_virtqueue *queue, uint16_t id, uint32_t written)
{
    struct split_used *used = queue->device;
    uint32_t at = queue->used & (queue->setup.size - 1);
    WRITE(&used->ring[at].id, id);
    WRITE(&used->ring[at].len, written);
    queue->used++;
    /* pairs with the driver's acquire of idx, before it reads ring entry and answer */
    WRITE_RELEASE(&used->idx, queue->used);
}

static bool must_signal_split(struct pv_virtqueue *queue, uint16_t count)
{
    struct split_avail *avail = queue->driver;
    if (!queue->setup.event_idx)
        return !(READ(&avail->flags) & SPLIT_NO_INTERRUPT);
    uint16_t used_event = READ(&avail->ring[queue->setup.size]);
    return (uint16_t)(queue->used - used_event - 1) < count;
}

/* ---- packed rings ---- */

static void advance(uint16_t *index, bool *wrap, uint32_t by, uint32_t size)
{
    uint32_t next = *index + by;
    if (next >= size) {
        next -= size;
        *wrap = !*wrap;
    }
    *index = (uint16_t)next;
}

static bool packed_available(struct pv_virtqueue *queue)
{
    struct packed_desc *ring = queue->desc;
    /* pairs with the driver's release of the flags, after it wrote the whole chain */
    uint16_t flags = READ_ACQUIRE(&ring[queue->avail].flags);
    bool avail = flags & DESC_AVAIL, used = flags & DESC_USED;
    return avail == queue->avail_wrap && used != queue->avail_wrap;
}

static bool arm_packed(struct pv_virtqueue *queue)
{
    struct packed_event *event = queue->device;
    if (queue->setup.event_idx) {
        WRITE(&event->where, (uint16_t)(queue->avail | queue->avail_wrap << 15));
        /* pairs with the driver's load of the flags before the place */
        WRITE_RELEASE(&event->flags, EVENT_AT);
    } else {
        WRITE(&event->flags, EVENT_ENABLE);
    }
    /* Pairs with the driver's fence between making a request available and its load of the event
     * area: either it sees our wish for a kick, or we see its request. */
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    return packed_available(queue);
}

static int walk_packed_table(struct pv_virtqueue *queue, struct pv_virtqueue_element *element,
                             uint32_t count)
{
    const struct packed_desc *table = (const void *)queue->table;
    for (uint32_t i = 0; i < count; i++) {
        if (table[i].flags & DESC_INDIRECT)
            return fail(queue, "an indirect table inside another");
        int ret = add_descriptor(queue, element, table[i].addr, table[i].len, table[i].flags);
        if (ret < 0)
            return ret;
    }
    return 0;
}

/* Walk the chain at queue->avail; gives its id and how many entries of the ring it takes. */
static int walk_packed(struct pv_virtqueue *queue, struct pv_virtqueue_element *element,
                       uint16_t *out_id, uint16_t *out_slots)
{
    struct packed_desc *ring = queue->desc;
    uint32_t size = queue->setup.size, i = queue->avail;
    for (uint32_t slots = 1; slots <= size - queue->slots_taken; slots++) {
        const struct packed_desc desc = {
            .addr = READ(&ring[i].addr),
            .len = READ(&ring[i].len),
            .id = READ(&ring[i].id),
            .flags = READ(&ring[i].flags),
        };
        int ret;
        if (desc.flags & DESC_INDIRECT) {
            uint32_t count = 0;
            ret = read_table(queue, desc.addr, desc.len, desc.flags, &count);
            if (ret == 0)
                ret = walk_packed_table(queue, element, count);
        } else {
            ret = add_descriptor(queue, element, desc.addr, desc.len, desc.flags);
        }
        if (ret < 0)
            return ret;
        if (!(desc.flags & DESC_NEXT)) {
            *out_id = desc.id;
            *out_slots = (uint16_t)slots;
            return 0;
        }
        i = i + 1 == size ? 0 : i + 1;
    }
    return fail(queue, "a chain of descriptors is longer than what is free of the ring");
}

static int pop_packed(struct pv_virtqueue *queue, struct pv_virtqueue_element **out)
{
    uint16_t id = 0, slots = 0;
    if (!packed_available(queue) && !arm_packed(queue))
        return 0;
    struct pv_virtqueue_element *element = new_element(queue);
    if (!element)
        return fail(queue, "out of memory");
    int ret = walk_packed(queue, element, &id, &slots);
    if (ret < 0) {
        pv_list_append(&queue->spare, &element->link);
        return ret;
    }
    finish_element(queue, element, id, slots);
    advance(&queue->avail, &queue->avail_wrap, slots, queue->setup.size);
    *out = element;
    return 1;
}

static void give_back_packed(struct pv_virtqueue *queue, uint16_t id, uint16_t slots,
                             uint32_t written)
{
    struct packed_desc *desc = (struct packed_desc *)queue->desc + queue->used;
    uint16_t flags = queue->used_wrap ? DESC_AVAIL | DESC_USED : 0;
    if (written > 0)
        flags |= DESC_WRITE;
    WRITE(&desc->id, id);
    WRITE(&desc->len, written);
    /* pairs with the driver's acquire of the flags, before it reads id, len and the answer */
    WRITE_RELEASE(&desc->flags, flags);
    advance(&queue->used, &queue->used_wrap, slots, queue->setup.size);
}

static bool must_signal_packed(struct pv_virtqueue *queue, uint16_t count)
{
    struct packed_event *event = queue->driver;
    uint16_t flags = READ_ACQUIRE(&event->flags); /* pairs with the driver's write of the place */
    if (flags != EVENT_AT || !queue->setup.event_idx)
        return flags != EVENT_DISABLE;
    uint16_t where = READ(&event->where);
    uint16_t entry = where & 0x7fff;
    if ((bool)(where >> 15) != queue->used_wrap)
        entry = (uint16_t)(entry - queue->setup.size); /* of the round before */
    return (uint16_t)(queue->used - entry - 1) < count;
}

/* ---- both ---- */

int pv_virtqueue_pop(struct pv_virtqueue *queue, struct pv_virtqueue_element **out)
{
    if (queue->broken)
        return -EPROTO;
    if (!queue->started || queue->lost)
        return 0;
    return queue->setup.packed ? pop_packed(queue, out) : pop_split(queue, out);
}

/* Returns how many bytes of the answer are in guest memory. */
static uint32_t write_response(const struct pv_virtqueue_element *element, const uint8_t *response,
                               size_t size)
{
    struct pv_virtqueue *queue = element->queue;
    uint32_t written = 0;
    for (uint32_t i = 0; i < element->range_count && size > 0; i++) {
        const struct pv_virtqueue_range *range = &element->room[i];
        uint32_t part = size < range->size ? (uint32_t)size : range->size;
        if (pv_guest_memory_write(queue->params.memory, range->gpa, response, part) < 0) {
            pv_log_limited(PV_LOG_WARN, 5, "%s queue: an answer's memory has been removed",
                           queue->params.name);
            break;
        }
        response += part;
        size -= part;
        written += part;
    }
    return written;
}

void pv_virtqueue_push(struct pv_virtqueue_element *element, const void *response, size_t size)
{
    struct pv_virtqueue *queue = element->queue;
    if (queue->started && !queue->broken && !queue->lost) {
        uint32_t written = write_response(element, response, size);
        if (queue->setup.packed)
            give_back_packed(queue, element->id, element->slots, written);
        else
            give_back_split(queue, element->id, written);
        queue->unsignalled = (uint16_t)(queue->unsignalled + element->slots);
    }
    queue->slots_taken -= element->slots;
    pv_list_remove(&element->link);
    pv_list_append(&queue->spare, &element->link);
}

bool pv_virtqueue_must_signal(struct pv_virtqueue *queue)
{
    uint16_t count = queue->unsignalled;
    if (!queue->started || queue->broken || queue->lost || count == 0)
        return false;
    queue->unsignalled = 0;
    /* Pairs with the driver's fence between asking for an interrupt and its last look at the used
     * ring: either it sees our answers, or we see that it wants to hear of them. */
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    bool wanted =
        queue->setup.packed ? must_signal_packed(queue, count) : must_signal_split(queue, count);
    if (queue->always_signal) {
        queue->always_signal = false;
        return true;
    }
    return wanted;
}
