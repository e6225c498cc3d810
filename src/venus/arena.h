/* Arena: memory of one command while it is decoded, called and answered.
 *
 * A bump allocator that is reset after every command and keeps its memory, so that decoding never
 * calls malloc in steady state.
 *
 * Threads: none; each command stream has its own.
 */
#ifndef PV_VENUS_ARENA_H
#define PV_VENUS_ARENA_H

#include <stddef.h>
#include <stdint.h>

/* Most one command may make us allocate. Host image copies and query results carry their data in
 * the command, so this is also the largest image that one such copy can move. */
#define PV_ARENA_MAX (1024u * 1024u * 1024u)

struct pv_arena_chunk;

struct pv_arena {
    uint8_t *cur, *end;            /* free part of the first chunk */
    struct pv_arena_chunk *chunks; /* owned; newest first */
    size_t used;                   /* bytes handed out since the last reset */
};

void pv_arena_init(struct pv_arena *arena);
void pv_arena_finish(struct pv_arena *arena);

/* Zeroed memory, 16-byte aligned. NULL if the limit is reached or the system has no memory. */
void *pv_arena_alloc(struct pv_arena *arena, size_t size);

/* Forget everything that was handed out; all chunks but the first go back to the system. */
void pv_arena_reset(struct pv_arena *arena);

#endif
