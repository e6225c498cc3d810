#include "venus/encoder.h"

#include "venus/decoder.h" /* PV_CHAIN_MAX */

#include <vulkan/vulkan_core.h>

/* Room for `size` bytes, or NULL; what comes after something that did not fit is of no use, but
 * stays inside. */
static uint8_t *take(struct pv_encoder *enc, size_t size)
{
    uint8_t *out = enc->cur;
    if ((size_t)(enc->end - out) < size) {
        enc->overflow = true;
        return NULL;
    }
    enc->cur = out + size;
    return out;
}

void pv_encode_u32(struct pv_encoder *enc, uint32_t value)
{
    uint8_t *out = take(enc, sizeof(value));
    if (out)
        memcpy(out, &value, sizeof(value));
}

void pv_encode_u64(struct pv_encoder *enc, uint64_t value)
{
    uint8_t *out = take(enc, sizeof(value));
    if (out)
        memcpy(out, &value, sizeof(value));
}

void pv_encode_bytes(struct pv_encoder *enc, const void *data, size_t size)
{
    size_t room = (size + 3) & ~(size_t)3;
    if (room < size)
        enc->overflow = true;
    uint8_t *out = room >= size ? take(enc, room) : NULL;
    if (!out || size == 0)
        return;
    memcpy(out, data, size);
    memset(out + size, 0, room - size);
}

void pv_encode_head(struct pv_encoder *enc, const struct pv_encode_chain *chain, const void *head)
{
    const struct pv_encode_entry *entries[PV_CHAIN_MAX];
    const VkBaseInStructure *nodes[PV_CHAIN_MAX];
    unsigned count = 0;
    const VkBaseInStructure *base = head;
    pv_encode_u32(enc, (uint32_t)base->sType);
    for (const VkBaseInStructure *node = base->pNext; node && count < PV_CHAIN_MAX;
         node = node->pNext) {
        const struct pv_encode_entry *entry = pv_stype_search(
            chain->entries, chain->count, sizeof(*chain->entries), (int32_t)node->sType);
        if (!entry)
            continue;
        pv_encode_u64(enc, 1);
        pv_encode_u32(enc, (uint32_t)node->sType);
        nodes[count] = node;
        entries[count++] = entry;
    }
    pv_encode_u64(enc, 0);
    while (count-- > 0)
        entries[count]->encode(enc, nodes[count]);
}
