/* Decoder: reads one command stream that the guest wrote.
 *
 * The bytes are a private copy, so what was checked is what is used. Errors are sticky: after the
 * first one every read returns zero, and the dispatcher looks once per command. Counts are compared
 * with the bytes that are left before anything is allocated.
 *
 * Shape:  little-endian, every item a multiple of 4 bytes, nothing aligned to more than 4.
 * Spec:   VK_EXT_command_serialization; docs/architecture.md names the rules.
 * Trust:  guest-facing.
 * Threads: none; one decoder per stream.
 */
#ifndef PV_VENUS_DECODER_H
#define PV_VENUS_DECODER_H

#include "venus/arena.h"
#include "venus/objects.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* The newest Mesa chains 83 structs to one query; the registry allows a head at most 200. */
#define PV_CHAIN_MAX 256
/* Structs with chains of their own nest three deep at most in Vulkan. */
#define PV_DECODE_DEPTH_MAX 8

struct pv_decoder {
    const uint8_t *cur, *end;
    struct pv_arena *arena;     /* borrowed */
    struct pv_objects *objects; /* borrowed */
    struct pv_object *device;   /* device of the command's first handle; others must match */
    struct pv_object *pool;     /* last command or descriptor pool that was named */
    const char *error;          /* first thing that was wrong; static text, NULL if nothing was */
    uint64_t error_value;       /* the id, count or type that it is about */
    unsigned depth;
    bool dropped;    /* the command names an object that the driver could not create */
    bool ends_frame; /* it names, inside a struct, a command buffer that ends a frame */
};

/* Note the first error and make all later reads return zero. */
void pv_decoder_fail(struct pv_decoder *dec, const char *error, uint64_t value);

static inline bool pv_decoder_failed(const struct pv_decoder *dec)
{
    return dec->error != NULL;
}

static inline size_t pv_decoder_left(const struct pv_decoder *dec)
{
    return (size_t)(dec->end - dec->cur);
}

static inline uint32_t pv_decode_u32(struct pv_decoder *dec)
{
    uint32_t value;
    if (__builtin_expect(pv_decoder_left(dec) < sizeof(value), 0)) {
        pv_decoder_fail(dec, "command is cut short", 0);
        return 0;
    }
    memcpy(&value, dec->cur, sizeof(value));
    dec->cur += sizeof(value);
    return value;
}

static inline uint64_t pv_decode_u64(struct pv_decoder *dec)
{
    uint64_t value;
    if (__builtin_expect(pv_decoder_left(dec) < sizeof(value), 0)) {
        pv_decoder_fail(dec, "command is cut short", 0);
        return 0;
    }
    memcpy(&value, dec->cur, sizeof(value));
    dec->cur += sizeof(value);
    return value;
}

static inline float pv_decode_float(struct pv_decoder *dec)
{
    uint32_t bits = pv_decode_u32(dec);
    float value;
    memcpy(&value, &bits, sizeof(value));
    return value;
}

static inline double pv_decode_double(struct pv_decoder *dec)
{
    uint64_t bits = pv_decode_u64(dec);
    double value;
    memcpy(&value, &bits, sizeof(value));
    return value;
}

/* Copy `size` bytes and skip the padding to 4. */
void pv_decode_bytes(struct pv_decoder *dec, void *out, size_t size);

/* Zeroed room for `count` elements of `size` bytes, of which each takes at least `wire` bytes of
 * the stream (0 for outputs, which take none). NULL on error or if count is 0. */
void *pv_decode_room(struct pv_decoder *dec, uint64_t count, size_t size, size_t wire);

/* Pointer flag: false is null. `required` pointers must be there. */
bool pv_decode_pointer(struct pv_decoder *dec, bool required);

/* Pointer that is never serialised. */
void pv_decode_null(struct pv_decoder *dec);

/* Array count. It must equal `expected`; 0 is taken for null where `nullable`. */
uint64_t pv_decode_count(struct pv_decoder *dec, uint64_t expected, bool nullable);

/* Count of a fixed array, which is always sent in full. */
void pv_decode_fixed_count(struct pv_decoder *dec, uint64_t expected);

/* NUL-terminated string in the arena, or NULL. */
char *pv_decode_string(struct pv_decoder *dec, bool required);

/* An object id that must exist, with the type given; 0 is null where not required. Returns NULL for
 * null and on error. An object that the driver failed to create marks the command dropped. */
struct pv_object *pv_decode_object(struct pv_decoder *dec, VkObjectType type, bool required);

/* The same for vkDestroy… and vkFree…, which take failed objects too. */
struct pv_object *pv_decode_doomed(struct pv_decoder *dec, VkObjectType type, bool required);

/* The host handle of such an object, 0 for null. */
static inline uint64_t pv_decode_handle(struct pv_decoder *dec, VkObjectType type, bool required)
{
    struct pv_object *object = pv_decode_object(dec, type, required);
    if (!object)
        return 0;
    if (type == VK_OBJECT_TYPE_COMMAND_BUFFER)
        dec->ends_frame |= atomic_load_explicit(&object->ends_frame, memory_order_relaxed);
    return pv_object_handle(object);
}

/* One struct that may be in a pNext chain. */
struct pv_chain_entry {
    int32_t stype;
    uint32_t size;                                          /* bytes of the C struct */
    void (*decode)(struct pv_decoder *dec, void *out);      /* members after pNext, full form */
    void (*decode_room)(struct pv_decoder *dec, void *out); /* the same, partial form */
};

/* Structs that may follow one head, sorted by sType. */
struct pv_chain {
    const struct pv_chain_entry *entries;
    uint32_t count;
};

/* Read sType and pNext chain of the struct at `head` and store both in it. The chain's structs are
 * in full form, or in partial form if `partial`. */
void pv_decode_head(struct pv_decoder *dec, int32_t stype, const struct pv_chain *chain,
                    bool partial, void *head);

/* Look an sType up in a table sorted by it, whose entries of `size` bytes begin with it; NULL if it
 * is not there. */
const void *pv_stype_search(const void *entries, uint32_t count, size_t size, int32_t stype);

#endif
