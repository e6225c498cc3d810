/* Encoder: writes one reply into the guest's reply stream.
 *
 * The memory is shared with the guest: it is only written, never read back. A reply that does not
 * fit is an error of the guest, which sets the room aside; what would not fit is not written.
 *
 * Threads: none; one encoder per stream.
 */
#ifndef PV_VENUS_ENCODER_H
#define PV_VENUS_ENCODER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct pv_encoder {
    uint8_t *cur, *end; /* into the reply stream; NULL without one */
    bool overflow;
};

void pv_encode_u32(struct pv_encoder *enc, uint32_t value);
void pv_encode_u64(struct pv_encoder *enc, uint64_t value);
/* `size` bytes and zeros up to a multiple of 4. */
void pv_encode_bytes(struct pv_encoder *enc, const void *data, size_t size);

static inline void pv_encode_float(struct pv_encoder *enc, float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof(bits));
    pv_encode_u32(enc, bits);
}

static inline void pv_encode_double(struct pv_encoder *enc, double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof(bits));
    pv_encode_u64(enc, bits);
}

/* One struct that may be in the pNext chain of a reply. */
struct pv_encode_entry {
    int32_t stype;
    void (*encode)(struct pv_encoder *enc, const void *in); /* members after pNext */
};

struct pv_encode_chain {
    const struct pv_encode_entry *entries; /* sorted by sType */
    uint32_t count;
};

/* Write sType and pNext chain of the struct at `head`; structs that the table does not have are
 * left out. */
void pv_encode_head(struct pv_encoder *enc, const struct pv_encode_chain *chain, const void *head);

#endif
