/* Dispatch: one command stream of a context, run command by command.
 *
 * A context has one stream for what comes through its front door and one per ring. Each has its own
 * decoder, arena and reply position, so streams run side by side without a lock.
 *
 *   bytes ─► decoder ─► generated pv_run_<command> ─► driver, pv_layer_… or pv_do_<command>
 *                                                └──► reply, into the shared memory of the guest
 *
 * Errors: pv_stream_fail() and the decoder's first error end the context; a driver's VkResult never
 * does.
 * Threads: a stream belongs to one thread.
 */
#ifndef PV_VENUS_DISPATCH_H
#define PV_VENUS_DISPATCH_H

#include "venus/decoder.h"
#include "venus/encoder.h"
#include "venus/protocol.h"

struct pv_context;
struct pv_resource;
struct pv_ring;

/* Largest stream that vkExecuteCommandStreamsMESA may name: Mesa's pools are 8 MiB. */
#define PV_STREAM_COPY_MAX (256u * 1024u * 1024u)

struct pv_stream {
    struct pv_context *ctx; /* borrowed */
    struct pv_ring *ring;   /* borrowed; NULL for the context stream */
    struct pv_decoder dec;
    struct pv_arena arena;
    struct pv_encoder enc;
    struct pv_resource *reply; /* shared; NULL until vkSetReplyCommandStreamMESA */
    size_t reply_offset, reply_size, reply_position;
    uint8_t *copy; /* owned: private copy of an indirect stream */
    size_t copy_size;
    uint32_t command;          /* being run */
    bool assisting;            /* on the context thread, which may not block */
    bool nested;               /* inside vkExecuteCommandStreamsMESA */
    bool wait_cut;             /* a blocking wait was ended by shutdown */
    uint64_t waited_ns;        /* spent in blocking waits during this batch */
    uint64_t import_missed_ns; /* when it last waited for an import in vain; 0: never */
    /* read by other threads */
    _Atomic uint64_t commands, replies, bytes, reply_bytes, failures, longest_stall_ns,
        longest_wait_ns;
};

void pv_stream_init(struct pv_stream *s, struct pv_context *ctx, struct pv_ring *ring);
void pv_stream_finish(struct pv_stream *s);

/* Run whole commands. Returns 0, or -EIO once the context has failed. `out_done` (may be NULL) gets
 * the bytes executed: all, unless the stream is assisting and met a command that may block. */
int pv_stream_run(struct pv_stream *s, const void *commands, size_t size, size_t *out_done);

/* The context fails: what is wrong with the command being run. */
void pv_stream_fail(struct pv_stream *s, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* The command's entry point is not there, because its extension was not enabled. */
void pv_stream_missing(struct pv_stream *s);

/* True if [first, first + count) stays below a limit of the device; else the context fails. */
bool pv_stream_range(struct pv_stream *s, uint64_t first, uint64_t count, uint64_t limit);

/* Count a driver's failure. */
void pv_stream_result(struct pv_stream *s, VkResult result);

/* Reserve ids for objects about to be created; the array lives in the arena. Fails the decoder. */
struct pv_object **pv_stream_reserve(struct pv_stream *s, VkObjectType type,
                                     struct pv_object *parent, uint32_t count, const uint64_t *ids);
/* Give them their handles. Objects that the driver refused stay known as failed ones unless the
 * guest is told by a reply; ids of those become 0 in it. */
void pv_stream_publish(struct pv_stream *s, struct pv_object **objects, uint32_t count,
                       VkResult result, const uint64_t *handles, uint64_t *ids, bool wants_reply);
/* Destroy an object, its children and the host objects behind them. */
void pv_stream_destroy(struct pv_stream *s, struct pv_object *object);
/* For pv_objects_remove: destroys the host object. data is the context. */
void pv_object_gone(void *data, struct pv_object *object);

/* Room for a reply, or NULL after an error. */
struct pv_encoder *pv_stream_reply_begin(struct pv_stream *s);
void pv_stream_reply_end(struct pv_stream *s);

/* Called by handlers around a blocking wait: time in between is not the driver's. */
uint64_t pv_stream_wait_begin(struct pv_stream *s);
void pv_stream_wait_end(struct pv_stream *s, uint64_t begin);
/* True when the stream's thread is asked to end: blocking waits must stop. */
bool pv_stream_stopping(struct pv_stream *s);

#endif
