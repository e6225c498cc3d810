/* One Venus context: everything one guest Vulkan instance owns on the host.
 *
 * A front door (vtest today, virtio-gpu next) creates a context, gives it the bytes of the context
 * stream, makes blobs and asks for fences. Rings, which carry nearly all commands, are started by
 * commands in the context stream and run on threads of their own:
 *
 *   front door thread                         context                       ring threads
 *   pv_context_submit(bytes) ───────────────► context stream: decode, run
 *   pv_context_create_blob() ───────────────► resources (shared memory)  ◄── commands, replies
 *   pv_context_create_fence(ring_idx) ──────► timelines ── fence callback ──► front door
 *
 * Spec:    VK_MESA_venus_protocol, VK_EXT_command_serialization.
 * Trust:   every byte and number given to these functions may come from a hostile guest.
 * Threads: create, submit, create_blob, the functions for resources, create_fence and destroy on
 *          one thread, the context thread; the rest on any. Callbacks come from any thread and must
 * not call back into the context. Errors:  what the guest got wrong makes the context fail: the
 * failed callback says why, once; all its rings show FATAL; every later call returns -EIO. Nothing
 * outside it is affected.
 */
#ifndef PV_VENUS_CONTEXT_H
#define PV_VENUS_CONTEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct pv_activity;
struct pv_context;
struct pv_host_caps;

/* Highest ring_idx + 1 of the protocol: 0 is the CPU timeline, 1 … 63 are bound to queues. */
#define PV_CONTEXT_TIMELINE_COUNT 64

/* blob_flags, as in virtio-gpu and vtest */
#define PV_BLOB_MAPPABLE     1u
#define PV_BLOB_SHAREABLE    2u
#define PV_BLOB_CROSS_DEVICE 4u

struct pv_context_params {
    uint32_t id;                     /* for messages */
    const char *name;                /* the client program's name; copied */
    const struct pv_host_caps *caps; /* borrowed, must outlive the context */
    int device_index;                /* host device to show; -1: all usable ones */
    bool offer_dma_buf;              /* see struct pv_physical */
    /* Memory that the guest maps lies in resources that were added before it is allocated
     * (use_guest_vram). */
    bool arena;

    /* Where to count, zeroed; borrowed, must outlive the context. NULL: in memory of its own. */
    struct pv_activity *activity;

    /* The front door calls pv_context_poll_fences and pv_context_arm_fences. Else every fence is
     * waited for by a thread, which is simpler and slower. */
    bool polls_fences;

    /* The fence made with this cookie has signalled. Fences of one ring_idx come in order. */
    void (*fence_signalled)(void *data, uint32_t ring_idx, uint64_t cookie);
    /* The context has failed; `reason` is one line, borrowed until the call returns. */
    void (*failed)(void *data, const char *reason);
    /* May be NULL. A ring is about to be served (`added`), or has stopped: its status word is at
     * `status_offset` of the resource. Who outlives this process may set FATAL there. Context
     * thread. */
    void (*ring_changed)(void *data, uint32_t res_id, uint64_t status_offset, bool added);
    /* May be NULL. The last user of a resource that was unreferenced has gone: nothing here touches
     * its memory any more. `offset` as it was added, UINT64_MAX for others. Any thread. */
    void (*resource_released)(void *data, uint32_t res_id, uint64_t offset);
    /* May be NULL. True when the guest is gone for good: a wait on the context thread then ends.
     * Asked a few times a second during such a wait, on the context thread. */
    bool (*abandoned)(void *data);
    void *data;
};

struct pv_context_stats {
    uint64_t commands;         /* executed, all streams */
    uint64_t replies;          /* written */
    uint64_t bytes;            /* of commands decoded */
    uint64_t reply_bytes;      /* written */
    uint64_t frames;           /* see activity.h */
    uint64_t errors;           /* protocol errors (0 or 1) and driver calls that failed */
    uint64_t longest_stall_ns; /* longest single command, blocking waits left out */
    uint64_t longest_wait_ns;  /* longest blocking wait the guest asked for */
    uint64_t objects;          /* alive now */
    uint64_t memory_bytes;     /* device memory and shared memory alive now */
};

/* Start a context. Does not touch the driver yet: that happens when the guest creates its instance.
 * Returns 0, -ENOMEM, or -EAGAIN if no thread starts. */
int pv_context_create(const struct pv_context_params *params, struct pv_context **out);

/* Stop all rings, wait for the GPU, free everything. NULL is fine. Safe at any moment of the
 * guest's life; threads are joined, host objects destroyed, memory unmapped when it returns. */
void pv_context_destroy(struct pv_context *ctx);

/* Run a piece of the context stream: whole commands, `size` bytes (a multiple of 4), a private copy
 * that nobody else can change. Returns when they have been executed; 0 or -EIO. */
int pv_context_submit(struct pv_context *ctx, const void *commands, size_t size);

/* Make a resource. blob_id 0: zeroed shared memory of `size` bytes; else the device memory with
 * that object id. `res_id` is the caller's choice, not 0 and not in use. The fd is the caller's and
 * can be mapped shared at offset 0. Returns 0; -EIO if the context has failed; -EINVAL for a bad
 * id, size or flags; -ENOMEM; -EOPNOTSUPP if that memory cannot be mapped. Only the first of them
 * is fatal by itself. */
int pv_context_create_blob(struct pv_context *ctx, uint32_t res_id, uint64_t blob_id, uint64_t size,
                           uint32_t blob_flags, int *out_fd);
/* What the memory of an added resource is for. */
enum pv_context_use {
    PV_CONTEXT_USE_SHM,     /* rings, command streams, replies: mapped here */
    PV_CONTEXT_USE_MEMORY,  /* device memory that this context is about to allocate */
    PV_CONTEXT_USE_FOREIGN, /* another context's memory, to be imported */
};
/* Add a resource whose memory is [offset, offset + size) of a large file: `fd` is borrowed, and
 * must stay open until the context is destroyed. The bytes must be zero if they are new. Returns 0;
 * -EIO if the context has failed; -EINVAL for a bad id or size, or if it is not a whole number of
 * pages inside the file; -EEXIST; -ENOMEM; -EMFILE. */
int pv_context_add_resource(struct pv_context *ctx, uint32_t res_id, int fd, uint64_t offset,
                            uint64_t size, enum pv_context_use use);
/* Add another context's memory by an fd of its own, which is taken over on success. As above. -1:
 * it is known to have none, and to import it fails at once. */
int pv_context_import_resource(struct pv_context *ctx, uint32_t res_id, int fd, uint64_t size);
/* Forget a resource. Rings and device memory that still use it keep it alive. Unknown ids: -ENOENT.
 */
int pv_context_unref_resource(struct pv_context *ctx, uint32_t res_id);

/* Ask for fence_signalled(ring_idx, cookie) once everything submitted so far is done: for ring_idx
 * 0 at once, for a queue's ring_idx when the queue has finished. Returns 0, -EINVAL if ring_idx is
 * not bound (the context fails), -EIO. */
int pv_context_create_fence(struct pv_context *ctx, uint32_t ring_idx, uint64_t cookie);

/* Fences that were asked for are looked at here, until they take longer than a moment: call poll
 * whenever the guest asks for the state of a fence, and while waiting for its next message as long
 * as it returns true; call arm before sleeping. Context thread. */
bool pv_context_poll_fences(struct pv_context *ctx);
void pv_context_arm_fences(struct pv_context *ctx);

/* A hint that the guest has just sent something: idle rings look at their tails now, before the
 * message that says so has been parsed. Cheap when nothing is idle. Context thread; call
 * pv_context_settle once the message has been handled. */
void pv_context_hint(struct pv_context *ctx);
void pv_context_settle(struct pv_context *ctx);

/* Mark every ring FATAL. Only stores to shared memory: may be called from a signal handler. */
void pv_context_poison(struct pv_context *ctx);

void pv_context_get_stats(struct pv_context *ctx, struct pv_context_stats *out);

#endif
