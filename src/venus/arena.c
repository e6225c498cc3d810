#include "venus/arena.h"

#include <stdlib.h>
#include <string.h>

/* Under AddressSanitizer what has not been handed out is out of bounds, with a gap after each
 * piece: a driver that writes past an array of the guest's is seen. */
#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define POISONED 1
#endif
#elif defined(__SANITIZE_ADDRESS__)
#define POISONED 1
#endif
#ifdef POISONED
#include <sanitizer/asan_interface.h>
#define GAP                  16u
#define poison(data, size)   __asan_poison_memory_region(data, size)
#define unpoison(data, size) __asan_unpoison_memory_region(data, size)
#else
#define GAP                  0u
#define poison(data, size)   ((void)0)
#define unpoison(data, size) ((void)0)
#endif

/* Covers nearly every command that was recorded; larger ones get chunks of their own. */
#define FIRST_CHUNK (64u * 1024u)

struct pv_arena_chunk {
    struct pv_arena_chunk *next;
    size_t size; /* of data */
    _Alignas(16) uint8_t data[];
};

void pv_arena_init(struct pv_arena *arena)
{
    memset(arena, 0, sizeof(*arena));
}

void pv_arena_finish(struct pv_arena *arena)
{
    struct pv_arena_chunk *chunk = arena->chunks;
    while (chunk) {
        struct pv_arena_chunk *next = chunk->next;
        free(chunk);
        chunk = next;
    }
    memset(arena, 0, sizeof(*arena));
}

void pv_arena_reset(struct pv_arena *arena)
{
    struct pv_arena_chunk *chunk = arena->chunks;
    while (chunk && chunk->next) { /* the oldest, first-sized one stays */
        struct pv_arena_chunk *next = chunk->next;
        free(chunk);
        chunk = next;
    }
    arena->chunks = chunk;
    arena->used = 0;
    if (chunk)
        poison(chunk->data, chunk->size);
    arena->cur = chunk ? chunk->data : NULL;
    arena->end = chunk ? chunk->data + chunk->size : NULL;
}

static void *alloc_chunk(struct pv_arena *arena, size_t size)
{
    size_t chunk_size = FIRST_CHUNK; /* the first chunk is always of this size: reset keeps it */
    if (arena->chunks)
        chunk_size = size > 4 * (size_t)FIRST_CHUNK ? size : 4 * (size_t)FIRST_CHUNK;
    struct pv_arena_chunk *chunk = malloc(sizeof(*chunk) + chunk_size);
    if (!chunk)
        return NULL;
    chunk->size = chunk_size;
    poison(chunk->data, chunk_size);
    chunk->next = arena->chunks;
    arena->chunks = chunk;
    arena->cur = chunk->data;
    arena->end = chunk->data + chunk_size;
    return chunk;
}

void *pv_arena_alloc(struct pv_arena *arena, size_t size)
{
    if (size > PV_ARENA_MAX - arena->used)
        return NULL;
    size_t asked = size;
    size = (size + GAP + 15) & ~(size_t)15;
    while (!arena->cur || size > (size_t)(arena->end - arena->cur)) {
        if (!alloc_chunk(arena, size))
            return NULL;
    }
    void *out = arena->cur;
    arena->cur += size;
    arena->used += size - GAP;
    unpoison(out, asked);
    memset(out, 0, asked);
    return out;
}
