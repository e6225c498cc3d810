#include "venus/decoder.h"

#include <vulkan/vulkan_core.h>

void pv_decoder_fail(struct pv_decoder *dec, const char *error, uint64_t value)
{
    if (!dec->error) {
        dec->error = error;
        dec->error_value = value;
    }
    dec->cur = dec->end;
}

static size_t padded(size_t size)
{
    return (size + 3) & ~(size_t)3;
}

void pv_decode_bytes(struct pv_decoder *dec, void *out, size_t size)
{
    if (size > pv_decoder_left(dec) || padded(size) > pv_decoder_left(dec)) {
        pv_decoder_fail(dec, "command is cut short", size);
        return;
    }
    if (size > 0) {
        memcpy(out, dec->cur, size);
        dec->cur += padded(size);
    }
}

void *pv_decode_room(struct pv_decoder *dec, uint64_t count, size_t size, size_t wire)
{
    if (count == 0 || dec->error)
        return NULL;
    if (wire > 0 && count > pv_decoder_left(dec) / wire) {
        pv_decoder_fail(dec, "array is longer than the command", count);
        return NULL;
    }
    if (count > PV_ARENA_MAX / size) {
        pv_decoder_fail(dec, "command asks for too much memory, in elements", count);
        return NULL;
    }
    void *out = pv_arena_alloc(dec->arena, (size_t)count * size);
    if (!out)
        pv_decoder_fail(dec, "no memory for the command, in bytes", count * size);
    return out;
}

bool pv_decode_pointer(struct pv_decoder *dec, bool required)
{
    uint64_t flag = pv_decode_u64(dec);
    if (flag > 1) {
        pv_decoder_fail(dec, "pointer flag is neither 0 nor 1", flag);
        return false;
    }
    if (!flag && required)
        pv_decoder_fail(dec, "pointer must not be null", 0);
    return flag && !dec->error;
}

void pv_decode_null(struct pv_decoder *dec)
{
    uint64_t value = pv_decode_u64(dec);
    if (value != 0)
        pv_decoder_fail(dec, "pointer that has no wire form must be null", value);
}

uint64_t pv_decode_count(struct pv_decoder *dec, uint64_t expected, bool nullable)
{
    uint64_t count = pv_decode_u64(dec);
    if (count == expected || (count == 0 && nullable))
        return count;
    pv_decoder_fail(dec, "array count differs from the length given before", count);
    return 0;
}

void pv_decode_fixed_count(struct pv_decoder *dec, uint64_t expected)
{
    uint64_t count = pv_decode_u64(dec);
    if (count != expected)
        pv_decoder_fail(dec, "fixed array has the wrong count", count);
}

char *pv_decode_string(struct pv_decoder *dec, bool required)
{
    uint64_t size = pv_decode_u64(dec);
    if (size == 0) {
        if (required)
            pv_decoder_fail(dec, "string must not be null", 0);
        return NULL;
    }
    char *out = pv_decode_room(dec, size, 1, 1);
    if (!out)
        return NULL;
    pv_decode_bytes(dec, out, (size_t)size);
    if (dec->error)
        return NULL;
    if (out[size - 1] != '\0') {
        pv_decoder_fail(dec, "string is not terminated", size);
        return NULL;
    }
    return out;
}

static struct pv_object *find_object(struct pv_decoder *dec, VkObjectType type, bool required)
{
    uint64_t id = pv_decode_u64(dec);
    if (id == 0) {
        if (required)
            pv_decoder_fail(dec, "object must not be null", 0);
        return NULL;
    }
    struct pv_object *object = pv_objects_find(dec->objects, id);
    if (!object) {
        pv_decoder_fail(dec, "unknown object id", id);
        return NULL;
    }
    if (object->type != type) {
        pv_decoder_fail(dec, "object is of another type, id", id);
        return NULL;
    }
    if (object->device) {
        if (!dec->device)
            dec->device = object->device;
        else if (dec->device != object->device) {
            pv_decoder_fail(dec, "object belongs to another device, id", id);
            return NULL;
        }
    } else if (type == VK_OBJECT_TYPE_DEVICE) {
        dec->device = object;
    }
    return object;
}

struct pv_object *pv_decode_object(struct pv_decoder *dec, VkObjectType type, bool required)
{
    struct pv_object *object = find_object(dec, type, required);
    if (!object)
        return NULL;
    if (__builtin_expect(pv_object_handle(object) == 0, 0)) {
        dec->dropped = true;
        return object;
    }
    if (type == VK_OBJECT_TYPE_COMMAND_POOL || type == VK_OBJECT_TYPE_DESCRIPTOR_POOL)
        dec->pool = object;
    return object;
}

struct pv_object *pv_decode_doomed(struct pv_decoder *dec, VkObjectType type, bool required)
{
    return find_object(dec, type, required);
}

const void *pv_stype_search(const void *entries, uint32_t count, size_t size, int32_t stype)
{
    uint32_t low = 0, high = count;
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        const void *entry = (const uint8_t *)entries + middle * size;
        int32_t found;
        memcpy(&found, entry, sizeof(found));
        if (found == stype)
            return entry;
        if (found < stype)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

/* sTypes travel from first to last, the members from last to first. */
static void *decode_chain(struct pv_decoder *dec, const struct pv_chain *chain, bool partial)
{
    const struct pv_chain_entry *entries[PV_CHAIN_MAX];
    VkBaseOutStructure *nodes[PV_CHAIN_MAX];
    unsigned count = 0;
    while (pv_decode_pointer(dec, false)) {
        int32_t stype = (int32_t)pv_decode_u32(dec);
        const struct pv_chain_entry *entry =
            pv_stype_search(chain->entries, chain->count, sizeof(*chain->entries), stype);
        if (!entry) {
            pv_decoder_fail(dec, "struct may not be in this pNext chain, sType", (uint32_t)stype);
            return NULL;
        }
        if (count == PV_CHAIN_MAX) {
            pv_decoder_fail(dec, "pNext chain is too long", count);
            return NULL;
        }
        nodes[count] = pv_decode_room(dec, 1, entry->size, 0);
        if (!nodes[count])
            return NULL;
        nodes[count]->sType = (VkStructureType)stype;
        if (count > 0)
            nodes[count - 1]->pNext = nodes[count];
        entries[count++] = entry;
    }
    for (unsigned i = count; i-- > 0 && !dec->error;) {
        if (partial)
            entries[i]->decode_room(dec, nodes[i]);
        else
            entries[i]->decode(dec, nodes[i]);
    }
    return count > 0 ? nodes[0] : NULL;
}

void pv_decode_head(struct pv_decoder *dec, int32_t stype, const struct pv_chain *chain,
                    bool partial, void *head)
{
    VkBaseOutStructure *base = head;
    int32_t got = (int32_t)pv_decode_u32(dec);
    if (got != stype) {
        pv_decoder_fail(dec, "wrong sType", (uint32_t)got);
        return;
    }
    base->sType = (VkStructureType)stype;
    if (dec->depth >= PV_DECODE_DEPTH_MAX) {
        pv_decoder_fail(dec, "structs nest too deep", dec->depth);
        return;
    }
    dec->depth++;
    base->pNext = decode_chain(dec, chain, partial);
    dec->depth--;
}
