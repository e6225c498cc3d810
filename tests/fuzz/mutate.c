#include "mutate.h"

#include "venus/protocol.h"

#include <stdlib.h>
#include <string.h>

void fuzz_random_seed(struct fuzz_random *random, uint64_t seed)
{
    random->state = seed * 0x9e3779b97f4a7c15ull + 1;
}

static uint64_t next(struct fuzz_random *random)
{
    random->state ^= random->state >> 12;
    random->state ^= random->state << 25;
    random->state ^= random->state >> 27;
    return random->state * 0x2545f4914f6cdd1dull;
}

uint32_t fuzz_random_below(struct fuzz_random *random, uint32_t limit)
{
    return limit ? (uint32_t)((next(random) >> 32) * limit >> 32) : 0;
}

/* ---- cases ------------------------------------------------------------------------------------
 */

void fuzz_case_init(struct fuzz_case *c)
{
    memset(c, 0, sizeof(*c));
}

void fuzz_case_finish(struct fuzz_case *c)
{
    for (size_t i = 0; i < c->count; i++)
        free((void *)(uintptr_t)c->messages[i].data);
    free(c->messages);
    free((void *)(uintptr_t)c->run.stream.data);
}

static uint8_t *copy(const void *data, size_t size)
{
    uint8_t *out = malloc(size ? size : 1); /* exactly as large: reading past the end shows */
    if (!out)
        abort();
    if (size)
        memcpy(out, data, size);
    return out;
}

void fuzz_case_insert(struct fuzz_case *c, size_t at, const void *data, size_t size)
{
    if (c->count == c->room) {
        c->room = c->room ? 2 * c->room : 64;
        c->messages = realloc(c->messages, c->room * sizeof(*c->messages));
        if (!c->messages)
            abort();
    }
    memmove(&c->messages[at + 1], &c->messages[at], (c->count - at) * sizeof(*c->messages));
    c->messages[at] = (struct fuzz_message){copy(data, size), size};
    c->count++;
    c->run.messages = c->messages;
    c->run.count = c->count;
}

static void drop(struct fuzz_case *c, size_t at)
{
    free((void *)(uintptr_t)c->messages[at].data);
    c->count--;
    memmove(&c->messages[at], &c->messages[at + 1], (c->count - at) * sizeof(*c->messages));
    c->run.count = c->count;
}

static void replace(struct fuzz_case *c, size_t at, const void *data, size_t size)
{
    uint8_t *fresh = copy(data, size);
    free((void *)(uintptr_t)c->messages[at].data);
    c->messages[at] = (struct fuzz_message){fresh, size};
}

/* ---- mutations --------------------------------------------------------------------------------
 */

static uint64_t interesting(struct fuzz_random *random)
{
    static const uint64_t values[] = {
        0,
        0,
        1,
        1,
        2,
        3,
        4,
        8,
        255,
        256,
        257,
        4096,
        0x7fffffff,
        0x80000000,
        0xffffffff,
        0xfffffffe,
        0x100000000ull,
        0x3fffffffffffffffull,
        0x7fffffffffffffffull,
        UINT64_MAX,
        UINT64_MAX - 3,
        1000384000,
        1000384006,
    };
    uint32_t pick = fuzz_random_below(random, 40);
    if (pick < sizeof(values) / sizeof(values[0]))
        return values[pick];
    return fuzz_random_below(random, 64); /* small counts, ids of the session */
}

static void set_word(struct fuzz_case *c, size_t at, struct fuzz_random *random, size_t width)
{
    uint8_t *data = (uint8_t *)(uintptr_t)c->messages[at].data;
    size_t size = c->messages[at].size;
    if (size < width)
        return;
    uint64_t value = interesting(random);
    size_t offset = 4 * (size_t)fuzz_random_below(random, (uint32_t)((size - width) / 4 + 1));
    memcpy(data + offset, &value, width);
}

static void flip_bits(struct fuzz_case *c, size_t at, struct fuzz_random *random)
{
    uint8_t *data = (uint8_t *)(uintptr_t)c->messages[at].data;
    for (uint32_t n = 1 + fuzz_random_below(random, 8); n > 0 && c->messages[at].size > 0; n--)
        data[fuzz_random_below(random, (uint32_t)c->messages[at].size)] ^=
            (uint8_t)(1u << fuzz_random_below(random, 8));
}

static void random_message(struct fuzz_case *c, size_t at, struct fuzz_random *random)
{
    uint32_t words[64];
    uint32_t count = 1 + fuzz_random_below(random, 64);
    for (uint32_t i = 0; i < count; i++)
        words[i] =
            fuzz_random_below(random, 3) ? (uint32_t)interesting(random) : (uint32_t)next(random);
    words[0] = fuzz_random_below(random, PV_COMMAND_COUNT + 2);
    if (count > 1)
        words[1] = fuzz_random_below(random, 2);
    fuzz_case_insert(c, at, words, 4 * (size_t)count);
}

/* Send the message by way of shared memory; perhaps twice, perhaps nested, perhaps outside. */
static void send_indirectly(struct fuzz_case *c, size_t at, struct fuzz_random *random)
{
    struct fuzz_message *message = &c->messages[at];
    uint32_t words[6 + 2 * 5 + 2 + 3 + 1] = {PV_COMMAND_vkExecuteCommandStreamsMESA};
    uint32_t count = 1 + fuzz_random_below(random, 2), n = 2;
    uint32_t size = (uint32_t)message->size;
    if (fuzz_random_below(random, 8) == 0)
        size = (uint32_t)interesting(random);
    words[n++] = count;
    words[n++] = count; /* pStreams */
    words[n++] = 0;
    for (uint32_t i = 0; i < count; i++) {
        words[n++] = FUZZ_STREAM_RESOURCE - (fuzz_random_below(random, 8) == 0);
        words[n++] = fuzz_random_below(random, 8) == 0 ? (uint32_t)interesting(random) : 0;
        words[n++] = 0;
        words[n++] = size;
        words[n++] = 0;
    }
    n += 2; /* pReplyPositions */
    n += 1; /* dependencyCount */
    n += 2; /* pDependencies */
    n += 1; /* flags */
    free((void *)(uintptr_t)c->run.stream.data);
    bool itself = fuzz_random_below(random, 4) == 0;
    c->run.stream = itself
                        ? (struct fuzz_message){copy(words, 4 * (size_t)n), 4 * (size_t)n}
                        : (struct fuzz_message){copy(message->data, message->size), message->size};
    replace(c, at, words, 4 * (size_t)n);
}

static void make_ring(struct fuzz_case *c, size_t at, struct fuzz_random *random)
{
    uint32_t words[] = {
        PV_COMMAND_vkCreateRingMESA,
        0,
        1,
        0,
        1,
        0,
        1000384000,
        0,
        0,
        0,
        FUZZ_RING_RESOURCE,
        0,
        0,
        FUZZ_RING_SIZE,
        0,
        1000000,
        0,
        0,
        0,
        64,
        0,
        128,
        0,
        192,
        0,
        131072,
        0,
        131264,
        0,
        4,
        0,
    };
    fuzz_case_insert(c, at, words, sizeof(words));
    if (fuzz_random_below(random, 2))
        set_word(c, at, random, 4);
}

static void about_ring(struct fuzz_case *c, size_t at, struct fuzz_random *random)
{
    static const uint32_t types[] = {
        PV_COMMAND_vkDestroyRingMESA,
        PV_COMMAND_vkNotifyRingMESA,
        PV_COMMAND_vkWriteRingExtraMESA,
        PV_COMMAND_vkSubmitVirtqueueSeqnoMESA,
        PV_COMMAND_vkWaitVirtqueueSeqnoMESA,
        PV_COMMAND_vkWaitRingSeqnoMESA,
        PV_COMMAND_vkSeekReplyCommandStreamMESA,
    };
    static const uint32_t sizes[] = {16, 24, 28, 24, 16, 24, 16};
    uint32_t pick = fuzz_random_below(random, 7);
    uint32_t words[8] = {types[pick], 0, 1, 0, fuzz_random_below(random, 3)};
    if (fuzz_random_below(random, 4) == 0)
        words[4] = (uint32_t)interesting(random);
    fuzz_case_insert(c, at, words, sizes[pick]);
}

static void mutate_once(struct fuzz_case *c, size_t keep, struct fuzz_random *random,
                        const struct fuzz_message *splice, size_t splice_count)
{
    size_t at = keep + fuzz_random_below(random, (uint32_t)(c->count - keep));
    const struct fuzz_message *other =
        splice_count ? &splice[fuzz_random_below(random, (uint32_t)splice_count)] : NULL;
    switch (fuzz_random_below(random, 18)) {
    case 0: /* cut short */
        c->messages[at].size =
            4 * (size_t)fuzz_random_below(random, (uint32_t)(c->messages[at].size / 4 + 1));
        break;
    case 1:
        flip_bits(c, at, random);
        break;
    case 2:
    case 3:
    case 4:
        set_word(c, at, random, 4);
        break;
    case 5:
    case 6:
    case 7:
        set_word(c, at, random, 8);
        break;
    case 8:
    case 9:
        if (other)
            fuzz_case_insert(c, at, other->data, other->size);
        break;
    case 10: /* twice */
        fuzz_case_insert(c, keep + fuzz_random_below(random, (uint32_t)(c->count - keep + 1)),
                         c->messages[at].data, c->messages[at].size);
        break;
    case 11: /* not at all */
        if (c->count - keep > 1)
            drop(c, at);
        break;
    case 12:
        random_message(c, at, random);
        break;
    case 13:
        send_indirectly(c, at, random);
        break;
    case 14:
        make_ring(c, at, random);
        break;
    case 15:
        about_ring(c, at, random);
        break;
    case 16:
        c->run.fail_in = 1 + (int)fuzz_random_below(random, 60);
        break;
    default:
        c->run.blob_id = fuzz_random_below(random, 40);
        c->run.blob_size = interesting(random);
        c->run.fence_ring_idx = fuzz_random_below(random, 66);
        break;
    }
}

void fuzz_mutate(struct fuzz_case *c, size_t keep, struct fuzz_random *random,
                 const struct fuzz_message *splice, size_t splice_count)
{
    for (uint32_t n = 1 + fuzz_random_below(random, 4); n > 0; n--)
        mutate_once(c, keep, random, splice, splice_count);
}
