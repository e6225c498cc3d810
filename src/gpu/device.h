/* The inside of struct pv_gpu, shared by the files of this folder only.
 *
 *   gpu.c       dispatch, configuration, capsets      fence.c     answers, now and later, in order
 *   resource.c  2D resources, backing, UUIDs          blob.c      blobs and where they are mapped
 *   context.c   contexts and their commands           worker.c    the other end of the links
 *   scanout.c   scanouts and cursors              forgetting.c   released, and not yet let go
 *   later.c     what waits for the clock
 *
 * Handlers of requests return a PV_RESP_ type (their reply is in request->reply), or 0 when they
 * have taken over the answer with pv_answer_defer().
 *
 * Threads: one.
 */
#ifndef PV_GPU_DEVICE_H
#define PV_GPU_DEVICE_H

#include "gpu/gpu.h"
#include "gpu/protocol.h"
#include "gpu/table.h"
#include "gpu/window.h"
#include "util/list.h"
#include "util/log.h"

#include <sys/types.h>
#include <uv.h>

/* ---- limits that a guest meets ---- */

/* Venus makes one resource per mapped memory object; busy programs have some 10,000. */
#define PV_GPU_RESOURCES_MAX (1u << 20)
/* Any process that opens the device has a context, even without Vulkan. */
#define PV_GPU_CONTEXTS_MAX 4096u
/* Each is a process of the host with a driver in it. */
#define PV_GPU_WORKERS_MAX 256u
/* A context's resource may be passed on; a compositor's clients are few. */
#define PV_GPU_ATTACHMENTS_MAX (1u << 21)
/* Pixels of 2D resources and copies of guest blobs: 16 screens of 4K, twice buffered. */
#define PV_GPU_2D_BYTES_MAX (UINT64_C(1) << 30)
/* No display and no driver goes further. */
#define PV_GPU_2D_SIDE_MAX 16384u
/* Blobs that stay mapped because they were shown: four buffers for each of 16 screens. Others are
 * copied piece by piece. */
#define PV_GPU_SCANOUT_MAPS_MAX 64u
/* Backing entries of all resources, after joining neighbours: 96 MiB of ours, 16 GiB of theirs. */
#define PV_GPU_BACKING_MAX (1u << 22)
/* Rings that one worker may announce; the worker itself allows as many. */
#define PV_GPU_RINGS_MAX 256u
/* Released memory that one worker has not let go of. A program that ends may have as many. */
#define PV_GPU_FORGETTING_MAX (1u << 17)
/* Commands that wait in the device for a deferred mapping of their context. */
#define PV_GPU_HELD_MAX (64u << 20)

/* ---- requests and answers (fence.c) ---- */

struct pv_gpu_request {
    void *token;
    const uint8_t *bytes; /* all of it */
    size_t size;
    union pv_wire_request wire; /* aligned copy of the fixed part */
    union pv_wire_reply reply;  /* zeroed; the header is filled in later */
    size_t reply_size;          /* 0: a header only */
};

/* An answer that the guest waits for. */
struct pv_answer {
    struct pv_list node;          /* in gpu->answers */
    struct pv_list timeline_node; /* in its timeline, empty when it is in none */
    struct pv_list *timeline;     /* NULL: not fenced */
    struct pv_list context_node;  /* in context->fences while a worker has to finish it */
    struct pv_gpu_context *context;
    uint64_t cookie;          /* of its PV_LINK_FENCE, */
    uint64_t since_ns;        /* which was sent then */
    struct pv_list flip_node; /* in gpu->flips while a display has to take its frame, */
    uint64_t due_ns;          /* which it has then */
    void *token;
    struct pv_wire_header request;
    bool done;
    union pv_wire_reply *reply; /* owned; NULL: a header only */
    size_t reply_size;
    uint32_t type; /* when done */
};

/* Answer a request whose work is done. A fenced one still waits for those before it. */
void pv_answer_now(struct pv_gpu *gpu, const struct pv_gpu_request *request, uint32_t type);
/* Answer later. NULL without memory. */
struct pv_answer *pv_answer_defer(struct pv_gpu *gpu, const struct pv_gpu_request *request);
/* The work of a deferred request is done. Frees `answer`, now or when its turn comes. */
void pv_answer_finish(struct pv_gpu *gpu, struct pv_answer *answer, uint32_t type);
/* The same with PV_RESP_OK_MAP_INFO. */
void pv_answer_finish_map(struct pv_gpu *gpu, struct pv_answer *answer);
/* A timeline ends before some of its answers: they leave out of turn. */
void pv_answer_orphan(struct pv_gpu *gpu, struct pv_list *timeline);
/* Forget all, without a word. */
void pv_answer_drop_all(struct pv_gpu *gpu);

/* Log why a request is refused, at most some lines a second, and return `type`. */
uint32_t pv_gpu_refuse(struct pv_gpu *gpu, uint32_t type, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* ---- resources (resource.c, blob.c) ---- */

struct pv_backing_piece {
    uint64_t start; /* offset in the resource */
    uint64_t gpa, size;
};

struct pv_backing {
    struct pv_backing_piece *pieces; /* owned; sorted by start, without gaps */
    uint32_t count;
    uint64_t size;
};

enum pv_gpu_resource_kind {
    PV_RESOURCE_2D,
    PV_RESOURCE_GUEST_BLOB,
    PV_RESOURCE_HOST_BLOB,
};

struct pv_gpu_resource {
    uint32_t id;
    enum pv_gpu_resource_kind kind;
    uint32_t scanouts; /* bit n: scanout n shows it */
    bool has_backing, has_uuid;
    uint8_t uuid[16];
    struct pv_backing backing;
    struct pv_list attachments; /* of struct pv_attachment */
    /* 2D */
    uint32_t format, width, height;
    uint8_t *pixels; /* of pv_pixels_alloc: height rows of 4 * width bytes */
    /* blobs */
    uint64_t size; /* of a host blob, rounded up to pages */
    uint32_t blob_flags;
    uint64_t blob_id;
    struct pv_gpu_context *creator; /* NULL: not a host blob, or the context is gone */
    struct pv_list creator_node;    /* in creator->created */
    struct pv_list holdings;        /* of struct pv_holding: the workers that know it */
    struct pv_window_range *range;  /* where it is in the arena or (dynamic) in the window */
    struct pv_held *held_map;       /* a MAP_BLOB that waits for its range (arena) */
    int fd;                         /* owned; its memory (dynamic); -1 */
    void *map;                      /* owned; of fd, if it was shown; NULL */
    /* wait for BLOB_DONE; in the arena only map_answer, and only of shared memory */
    struct pv_answer *create_answer, *map_answer;
    uint64_t map_offset; /* of map_answer */
    bool blob_failed; /* its memory could not be made */
};

/* A context may use a resource. */
struct pv_attachment {
    struct pv_list context_node, resource_node;
    struct pv_gpu_context *context;
    struct pv_gpu_resource *resource;
};

/* A worker has been told of a resource and has not said FORGOTTEN. */
struct pv_holding {
    struct pv_list context_node;  /* in context->holdings, then context->forgetting */
    struct pv_list resource_node; /* in resource->holdings, until it was told to forget */
    struct pv_gpu_context *context;
    uint32_t resource_id;
    uint64_t offset;            /* as it was told */
    struct pv_window_hold hold; /* range NULL: not in the arena */
    /* of forgetting.c */
    struct pv_list group; /* of the same id and place: a ring of struct pv_holding */
    /* of the first in its group */
    struct pv_interval key; /* in context->groups */
    uint32_t members, answers;
};

uint32_t pv_resource_create_2d(struct pv_gpu *gpu, struct pv_gpu_request *request);
uint32_t pv_gpu_resource_attach_backing(struct pv_gpu *gpu, struct pv_gpu_request *request);
uint32_t pv_gpu_resource_detach_backing(struct pv_gpu *gpu, struct pv_gpu_request *request);
uint32_t pv_resource_transfer_2d(struct pv_gpu *gpu, struct pv_gpu_request *request);
uint32_t pv_gpu_resource_assign_uuid(struct pv_gpu *gpu, struct pv_gpu_request *request);
uint32_t pv_gpu_resource_unref(struct pv_gpu *gpu, struct pv_gpu_request *request);

struct pv_gpu_resource *pv_gpu_resource_find(struct pv_gpu *gpu, uint32_t id);
/* A new resource in the table: PV_RESP_OK_NODATA, or why not. */
uint32_t pv_gpu_resource_new(struct pv_gpu *gpu, uint32_t id, enum pv_gpu_resource_kind kind,
                             struct pv_gpu_resource **out);
/* With all that it has: scanouts go off, mappings end, workers forget it. */
void pv_gpu_resource_destroy(struct pv_gpu *gpu, struct pv_gpu_resource *resource);
/* Read the nr_entries entries behind a request's fixed part of `fixed` bytes. */
uint32_t pv_backing_parse(struct pv_gpu *gpu, const struct pv_gpu_request *request, size_t fixed,
                          uint32_t count, struct pv_backing *out);
void pv_backing_finish(struct pv_gpu *gpu, struct pv_backing *backing);
/* Copy from the guest: -EFAULT when the backing is shorter or no longer in guest memory. */
int pv_backing_read(struct pv_gpu *gpu, const struct pv_backing *backing, uint64_t offset,
                    void *out, size_t size);

/* Zeroed memory for what is copied out of guest pages; NULL without. */
uint8_t *pv_pixels_alloc(uint64_t size);
/* With the same size. NULL is fine. */
void pv_pixels_free(uint8_t *pixels, uint64_t size);

uint32_t pv_blob_create(struct pv_gpu *gpu, struct pv_gpu_request *request);
uint32_t pv_blob_map(struct pv_gpu *gpu, struct pv_gpu_request *request);
uint32_t pv_blob_unmap(struct pv_gpu *gpu, struct pv_gpu_request *request);
/* A context was attached or detached: its worker is told. */
void pv_blob_attached(struct pv_gpu *gpu, struct pv_gpu_resource *resource,
                      struct pv_gpu_context *context);
void pv_blob_detached(struct pv_gpu *gpu, struct pv_gpu_resource *resource,
                      struct pv_gpu_context *context);
/* Nobody is to use it any more; part of pv_gpu_resource_destroy. */
void pv_blob_finish(struct pv_gpu *gpu, struct pv_gpu_resource *resource);
/* Try the range of a held MAP_BLOB again. False: still busy. Else it has been answered, and its
 * context told, or it has failed. */
bool pv_blob_retry_map(struct pv_gpu *gpu, struct pv_held *held);
/* A worker's answer to CREATE_BLOB. Takes over `fd`, -1 without. */
void pv_blob_done(struct pv_gpu *gpu, struct pv_gpu_context *context, uint32_t resource_id,
                  int result, int fd);
/* The context has no worker any more: what waits for it is answered. */
void pv_blob_context_died(struct pv_gpu *gpu, struct pv_gpu_context *context);
/* A MAP_BLOB waits for the worker. */
bool pv_blob_is_awaited(const struct pv_gpu_context *context);
/* Its worker does not answer: the guest process is let out of the kernel, where nothing could end
 * it. The worker knows of the memory before it hears of anything that the guest does next. */
void pv_blob_context_hangs(struct pv_gpu *gpu, struct pv_gpu_context *context);
/* A worker no longer has the memory. pv_worker_retry should follow. */
void pv_holding_drop(struct pv_gpu *gpu, struct pv_holding *holding);

/* The worker is about to be told to forget; `holding` is in no list. */
void pv_forgetting_add(struct pv_holding *holding);
/* It should be told of no more. */
bool pv_forgetting_is_full(const struct pv_gpu_context *context);
/* A FORGOTTEN has come. True if something was dropped: pv_worker_retry should follow. */
bool pv_forgetting_answered(struct pv_gpu_context *context, uint32_t resource_id, uint64_t offset);
/* Drop all: the worker is no more. pv_worker_retry should follow. */
void pv_forgetting_finish(struct pv_gpu_context *context);

/* All answers are about to be dropped. */
void pv_blob_reset(struct pv_gpu *gpu);

/* ---- contexts (context.c) and their workers (worker.c) ---- */

enum pv_gpu_context_state {
    PV_CONTEXT_LIVE,    /* usable; has a worker unless capset is 0 */
    PV_CONTEXT_FAILED,  /* its worker is gone or on its way; the guest has not destroyed it yet */
    PV_CONTEXT_LEAVING, /* destroyed by the guest, its worker is not gone yet */
};

struct pv_gpu_context {
    struct pv_list node; /* in gpu->contexts */
    struct pv_gpu *gpu;
    uint32_t id, capset;
    char name[64]; /* printable */
    enum pv_gpu_context_state state;
    struct pv_list attachments;
    struct pv_list created;              /* host blobs */
    struct pv_list holdings, forgetting; /* of struct pv_holding */
    struct pv_intervals groups;          /* of those to be forgotten; see forgetting.c */
    uint32_t forgetting_count;
    struct pv_list fences; /* of struct pv_answer: the worker has to finish them */
    struct pv_list timelines[PV_RING_COUNT];
    uint32_t resource_count, fence_count;

    uint64_t worker_id; /* 0: none (any more) */
    pid_t pid;
    struct pv_link *link;          /* owned; NULL: closed */
    struct pv_worker_watch *watch; /* owned; what libuv polls */
    struct pv_list held;           /* of struct pv_held: messages behind a deferred mapping */
    size_t held_size;
    bool flushing;        /* what is sent now belongs before what is held */
    struct pv_list rings; /* of struct pv_gpu_ring */
    uint32_t ring_count;
    uint64_t last_life_ns; /* when it last said something */
    uint64_t ping_ns;      /* when the unanswered PING was sent; 0: none */
    uint64_t leave_ns;     /* deadline of its last fences when leaving */
    bool hung, killed;
    bool in_the_way;              /* of another context's mapping, for too long */
    struct pv_activity *activity; /* mapped, shared with the worker; NULL: none */
    uint64_t sampled_ns, sampled_commands;
    double commands_per_s;
};

/* A message that waits because a mapping before it does. */
struct pv_held {
    struct pv_list node;
    struct pv_gpu_context *context;
    struct pv_gpu_resource *map; /* the mapping itself; NULL: a message */
    uint64_t offset, since_ns;
    struct pv_answer *answer;
    struct pv_link_message *message; /* owned, with its payload behind it */
};

uint32_t pv_gpu_context_create(struct pv_gpu *gpu, struct pv_gpu_request *request);
uint32_t pv_gpu_context_destroy(struct pv_gpu *gpu, struct pv_gpu_request *request);
uint32_t pv_gpu_context_attach(struct pv_gpu *gpu, struct pv_gpu_request *request);
uint32_t pv_gpu_context_detach(struct pv_gpu *gpu, struct pv_gpu_request *request);
uint32_t pv_gpu_context_submit(struct pv_gpu *gpu, struct pv_gpu_request *request);

struct pv_gpu_context *pv_gpu_context_find(struct pv_gpu *gpu, uint32_t id);
/* A resource goes: remove all its attachments. */
void pv_gpu_context_detach_all(struct pv_gpu *gpu, struct pv_gpu_resource *resource);
void pv_gpu_context_free(struct pv_gpu_context *context);
/* Context id and name for messages; a static buffer. */
const char *pv_gpu_context_label(const struct pv_gpu_context *context);
void pv_gpu_context_reset(struct pv_gpu *gpu);

struct pv_link_message;
/* Start a worker for a new context. 0 or a negative errno. */
int pv_worker_start(struct pv_gpu_context *context);
/* Send it a message, or keep the message behind a mapping that waits. The context fails when that
 * cannot be done; -EPIPE then. `fd` -1: none. */
int pv_worker_send(struct pv_gpu_context *context, const struct pv_link_message *message,
                   const void *payload, int fd);
/* Keep a mapping, and all that is sent from now on, until pv_blob_retry_map succeeds. -ENOMEM. */
int pv_worker_hold_map(struct pv_gpu_context *context, struct pv_gpu_resource *resource,
                       uint64_t offset, struct pv_answer *answer);
/* The mapping is not wanted any more. Its answer is the caller's. */
void pv_worker_cancel_map(struct pv_held *held);
/* Holds were dropped: try what is held in all contexts. */
void pv_worker_retry(struct pv_gpu *gpu);
/* The context cannot go on. `grace_ms` as in pv_spawner_end(). */
void pv_worker_fail(struct pv_gpu_context *context, uint32_t grace_ms, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* The guest has destroyed the context: it may finish its fences, then the worker ends. */
void pv_worker_leave(struct pv_gpu_context *context);
/* Cut the link, finish all that waits for it. The worker is killed after `grace_ms`. */
void pv_worker_cut(struct pv_gpu_context *context, uint32_t grace_ms);
/* The memory behind a holding may be used for something else: forget the rings in it. */
void pv_worker_drop_rings(struct pv_gpu_context *context, const struct pv_holding *holding);
int pv_worker_init(struct pv_gpu *gpu);
void pv_worker_finish(struct pv_gpu *gpu);

/* ---- what workers have done (activity.c) ---- */

struct pv_activity;
/* Where the context's worker is to count; the fd is the caller's. */
int pv_activity_create(struct pv_gpu_context *context, int *out_fd);
void pv_activity_destroy(struct pv_gpu_context *context);
/* Begin a new second. */
void pv_activity_sample(struct pv_gpu_context *context, uint64_t now_ns);
/* Fill in what activity says; nothing if there is none. */
void pv_activity_get(const struct pv_gpu_context *context, uint64_t now_ns,
                     struct pv_gpu_context_stats *out);

/* ---- scanouts (scanout.c) ---- */

struct pv_gpu_scanout {
    uint32_t width, height;           /* preferred by the host; 0: disconnected */
    struct pv_gpu_resource *resource; /* NULL: off */
    struct pv_wire_rect rect;         /* the part of the picture that is shown */
    uint32_t format, stride;          /* of the picture */
    uint64_t offset;                  /* of its first row in a blob */
    bool fresh;                       /* the next flush shows all of it */
    int32_t cursor_x, cursor_y;
    uint32_t hot_x, hot_y;
    bool cursor_on;
    uint8_t cursor[PV_CURSOR_SIDE * PV_CURSOR_SIDE * 4];
};

/* All plugged that are to be, and the display knows. */
void pv_scanout_init(struct pv_gpu *gpu);
uint32_t pv_scanout_display_info(struct pv_gpu *gpu, struct pv_gpu_request *request);
uint32_t pv_scanout_edid(struct pv_gpu *gpu, struct pv_gpu_request *request);
uint32_t pv_scanout_set(struct pv_gpu *gpu, struct pv_gpu_request *request);
uint32_t pv_scanout_set_blob(struct pv_gpu *gpu, struct pv_gpu_request *request);
uint32_t pv_scanout_flush(struct pv_gpu *gpu, struct pv_gpu_request *request);
void pv_scanout_cursor(struct pv_gpu *gpu, const union pv_wire_request *request);
/* The resource goes, or its memory does: scanouts that show it go off. */
void pv_scanout_resource_gone(struct pv_gpu *gpu, struct pv_gpu_resource *resource);
/* The memory is about to go. */
void pv_scanout_unmap(struct pv_gpu *gpu, struct pv_gpu_resource *resource);
void pv_scanout_reset(struct pv_gpu *gpu);

/* ---- what waits for the clock (later.c) ---- */

/* -ENOMEM. */
int pv_later_init(struct pv_gpu *gpu);
void pv_later_finish(struct pv_gpu *gpu);
/* Answer a flush at `due_ns`. False: it is to be answered now, as that has passed or there is no
 * memory. */
bool pv_later_answer_flip(struct pv_gpu *gpu, const struct pv_gpu_request *request,
                          uint64_t due_ns);
/* A size has changed: a configuration change follows, now or soon, one for all until then. */
void pv_later_tell_of_sizes(struct pv_gpu *gpu);

/* ---- the device ---- */

struct pv_gpu {
    struct pv_gpu_params params;
    enum pv_gpu_window window_mode; /* at present */
    uint64_t features;              /* accepted */
    uint32_t events_read;
    struct pv_window *window; /* NULL: no Venus */
    struct pv_table resources, contexts_by_id;
    struct pv_list contexts; /* of struct pv_gpu_context, leaving ones too */
    struct pv_list answers;
    struct pv_list global_timeline;
    struct pv_list flips;      /* of struct pv_answer */
    struct pv_list window_ops; /* dynamic: maps and unmaps on their way */
    uint64_t next_cookie, next_worker, next_op;
    uint32_t context_count, worker_count; /* that the guest has; that run */
    uint32_t attachment_count;
    uint64_t bytes_2d;
    uint32_t backing_count;
    uint32_t held_maps;
    struct pv_gpu_scanout scanouts[PV_GPU_SCANOUTS_MAX];
    uint32_t scanout_maps; /* resources with a map */
    struct pv_gpu_stats stats;
    struct pv_log_limit refusals;
    uv_timer_t *timer; /* owned; runs while there are workers */
    bool spawner_lost;
    uv_timer_t *later_timer; /* owned; runs while something waits for it */
    bool sizes_changed;      /* and the guest has not been told; */
    uint64_t sizes_told_ns;  /* it was then, of others */
};

/* This device can run Venus contexts, as things are. */
bool pv_gpu_has_venus(const struct pv_gpu *gpu);

#endif
