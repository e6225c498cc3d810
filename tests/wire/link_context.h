/* A context behind a link: what src/transport/replay calls a context is the worker of a virtual GPU
 * here, and its memory lies in an arena, as when a guest's kernel speaks for Mesa.
 *
 * The player is compiled a second time, with the functions below in place of those of the context.
 */
#ifndef PV_TESTS_LINK_CONTEXT_H
#define PV_TESTS_LINK_CONTEXT_H

#include "venus/context.h"

#include <stdint.h>

#define LINK_ARENA_SIZE (UINT64_C(1) << 28)

/* A blob that the guest makes before its memory: `blob_id` will be imported as `res_id`. */
struct link_blob {
    uint32_t res_id;
    uint64_t blob_id, size;
};
/* To be set before a session is played; cleared by its end. */
void link_context_expect(const struct link_blob *blobs, unsigned count);

/* What was seen in the session before. */
struct link_seen {
    unsigned forgotten;   /* resources that the worker has let go */
    unsigned resources;   /* that it was given */
    unsigned rings;       /* announced */
    unsigned rings_alive; /* announced and not taken back */
    unsigned written;     /* blobs of device memory in which there is something */
    int result;           /* of the worker */
};
extern struct link_seen link_seen;

int link_context_create(const struct pv_context_params *params, struct pv_context **out);
void link_context_destroy(struct pv_context *ctx);
int link_context_submit(struct pv_context *ctx, const void *commands, size_t size);
int link_context_create_blob(struct pv_context *ctx, uint32_t res_id, uint64_t blob_id,
                             uint64_t size, uint32_t blob_flags, int *out_fd);
int link_context_create_fence(struct pv_context *ctx, uint32_t ring_idx, uint64_t cookie);
/* Counts 8 bytes of reply each time: what the link does not tell, and enough to look at. */
void link_context_get_stats(struct pv_context *ctx, struct pv_context_stats *out);
/* In place of pv_shm_map: the blob that was made last. */
int link_context_map(int fd, uint64_t size, void **out);

#endif
