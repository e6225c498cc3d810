/* The device's side of its workers: links, what comes over them, and how workers end.
 *
 * A worker is trusted with nothing but its own context: what it sends is looked up among what that
 * context has. A context without a worker keeps its id, so that the guest gets errors for it and
 * may destroy it.
 *
 *   LIVE ── its worker failed, died, or was cut ──► FAILED ── CTX_DESTROY ──┐
 *     └──── CTX_DESTROY ──► LEAVING, the last fences may finish ────────────┴─► freed when the
 *                                                                              process has ended
 */
#include "gpu/device.h"
#include "util/os.h"
#include "worker/link.h"
#include "worker/spawner.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define PV_LOG_MODULE "context"

#define SECOND_NS UINT64_C(1000000000)
/* How often workers with something to do are asked whether they live. */
#define WATCH_MS 1000u
/* Silence after which a worker is called hung. */
#define HUNG_NS (5 * SECOND_NS)
/* Of a worker whose program gives up: the guest's driver waits 3 s for a sign of life. */
#define SILENT_NS SECOND_NS
/* Silence after which a worker may no longer hold up the display's fences. */
#define GLOBAL_FENCE_NS (10 * SECOND_NS)
/* How long it may do so at all, even if it says that it lives. */
#define GLOBAL_FENCE_MAX_NS (30 * SECOND_NS)
/* How long another context's mapping waits for a worker to forget what was there. */
#define HOLD_NS (5 * SECOND_NS)
/* How long a destroyed context may work on fences that the guest still waits for. */
#define LEAVE_NS (2 * SECOND_NS)
/* Between closing the link and the kill. Programs on big GPUs take seconds to clean up. */
#define END_GRACE_MS 10000u
/* The same for one that is known to be broken. */
#define BROKEN_GRACE_MS 1000u
/* Messages of one worker before others get their turn. */
#define MESSAGES_AT_ONCE 256
/* Longest reason that is passed on. */
#define REASON_MAX 200u

/* VkRingStatusFlagBitsMESA: the guest's driver gives up when it sees it. */
#define RING_STATUS_FATAL 2u

/* What libuv has to keep until its handle is closed; the context may be gone by then. */
struct pv_worker_watch {
    uv_poll_t poll; /* first */
    uv_idle_t more; /* runs while messages were left over */
    int handles;
    struct pv_gpu_context *context; /* NULL: cut */
};

/* A ring whose guest must be told when the worker dies. */
struct pv_gpu_ring {
    struct pv_list node;
    const struct pv_holding *holding;
    uint64_t offset; /* of the status word, in the arena or in `fd` */
    int fd;          /* owned; -1: in the arena */
};

/* ---- rings ---- */

static void free_ring(struct pv_gpu_context *context, struct pv_gpu_ring *ring)
{
    pv_list_remove(&ring->node);
    context->ring_count--;
    if (ring->fd >= 0)
        close(ring->fd);
    free(ring);
}

void pv_worker_drop_rings(struct pv_gpu_context *context, const struct pv_holding *holding)
{
    pv_list_for_each(node, &context->rings)
    {
        struct pv_gpu_ring *ring = pv_list_entry(node, struct pv_gpu_ring, node);
        if (ring->holding == holding)
            free_ring(context, ring);
    }
}

static void set_fatal(const struct pv_gpu *gpu, const struct pv_gpu_ring *ring)
{
    uint32_t status;
    if (ring->fd < 0) {
        /* checked when it was announced; pairs with the guest's load of the status */
        _Atomic uint32_t *word =
            (_Atomic uint32_t *)((uint8_t *)pv_window_map(gpu->window) + ring->offset);
        atomic_fetch_or_explicit(word, RING_STATUS_FATAL, memory_order_release);
    } else if (pv_shared_read(ring->fd, ring->offset, &status, sizeof(status)) == 0) {
        status |= RING_STATUS_FATAL;
        if (pv_shared_write(ring->fd, ring->offset, &status, sizeof(status)) < 0)
            pv_debug("a ring's status cannot be written");
    }
}

static void set_all_fatal(struct pv_gpu_context *context)
{
    pv_list_for_each(node, &context->rings)
    {
        struct pv_gpu_ring *ring = pv_list_entry(node, struct pv_gpu_ring, node);
        set_fatal(context->gpu, ring);
        free_ring(context, ring);
    }
}

static const struct pv_holding *holding_of(const struct pv_gpu_context *context,
                                           const struct pv_gpu_resource *resource)
{
    pv_list_for_each(node, &resource->holdings)
    {
        const struct pv_holding *holding = pv_list_entry(node, struct pv_holding, resource_node);
        if (holding->context == context)
            return holding;
    }
    return NULL;
}

static struct pv_gpu_ring *find_ring(struct pv_gpu_context *context,
                                     const struct pv_holding *holding, uint64_t offset)
{
    pv_list_for_each(node, &context->rings)
    {
        struct pv_gpu_ring *ring = pv_list_entry(node, struct pv_gpu_ring, node);
        if (ring->holding == holding && ring->offset == offset)
            return ring;
    }
    return NULL;
}

static void on_ring(struct pv_gpu_context *context, const struct pv_link_message *message)
{
    const struct pv_gpu_resource *resource = pv_gpu_resource_find(context->gpu, message->res_id);
    const struct pv_holding *holding = resource ? holding_of(context, resource) : NULL;
    if (!holding || message->offset % sizeof(uint32_t) != 0 ||
        message->offset > resource->size - sizeof(uint32_t))
        return; /* released meanwhile, or nonsense */
    bool in_arena = holding->hold.range != NULL;
    uint64_t offset = in_arena ? holding->offset + message->offset : message->offset;
    struct pv_gpu_ring *ring = find_ring(context, holding, offset);
    if (!(message->flags & 1)) {
        if (ring)
            free_ring(context, ring);
        return;
    }
    if (ring || context->ring_count >= PV_GPU_RINGS_MAX)
        return;
    ring = calloc(1, sizeof(*ring));
    if (!ring)
        return;
    ring->holding = holding;
    ring->offset = offset;
    ring->fd = in_arena ? -1 : pv_fd_duplicate(resource->fd);
    if (!in_arena && ring->fd < 0) { /* no memory yet, as far as we know */
        free(ring);
        return;
    }
    pv_list_append(&context->rings, &ring->node);
    context->ring_count++;
}

/* ---- sending ---- */

static void free_held(struct pv_held *held)
{
    struct pv_gpu_context *context = held->context;
    if (held->map)
        context->gpu->held_maps--;
    else
        context->held_size -= sizeof(*held->message) + held->message->payload_size;
    pv_list_remove(&held->node);
    free(held->message);
    free(held);
}

static struct pv_held *new_held(struct pv_gpu_context *context)
{
    struct pv_held *held = calloc(1, sizeof(*held));
    if (held) {
        held->context = context;
        held->since_ns = pv_now_ns();
    }
    return held;
}

static int hold_message(struct pv_gpu_context *context, const struct pv_link_message *message,
                        const void *payload)
{
    size_t size = sizeof(*message) + message->payload_size;
    if (size > PV_GPU_HELD_MAX - context->held_size)
        return -ENOBUFS;
    struct pv_held *held = new_held(context);
    if (!held)
        return -ENOMEM;
    held->message = malloc(size);
    if (!held->message) {
        free(held);
        return -ENOMEM;
    }
    *held->message = *message;
    if (message->payload_size > 0)
        memcpy(held->message + 1, payload, message->payload_size);
    context->held_size += size;
    pv_list_append(&context->held, &held->node);
    return 0;
}

int pv_worker_hold_map(struct pv_gpu_context *context, struct pv_gpu_resource *resource,
                       uint64_t offset, struct pv_answer *answer)
{
    struct pv_held *held = new_held(context);
    if (!held)
        return -ENOMEM;
    held->map = resource;
    held->offset = offset;
    held->answer = answer;
    resource->held_map = held;
    context->gpu->held_maps++;
    pv_list_append(&context->held, &held->node);
    return 0;
}

static void on_link(uv_poll_t *poll, int status, int events);

static void watch_link(struct pv_gpu_context *context)
{
    int events = UV_READABLE;
    if (pv_link_backlog(context->link) > 0)
        events |= UV_WRITABLE;
    uv_poll_start(&context->watch->poll, events, on_link);
}

int pv_worker_send(struct pv_gpu_context *context, const struct pv_link_message *message,
                   const void *payload, int fd)
{
    if (!context->link)
        return -EPIPE;
    int ret;
    if (!context->flushing && !pv_list_empty(&context->held)) {
        ret = hold_message(context, message, payload);
    } else {
        bool waited = pv_link_backlog(context->link) > 0;
        ret = pv_link_send(context->link, message, payload, fd);
        if (ret == 0 && !waited && pv_link_backlog(context->link) > 0)
            watch_link(context);
    }
    if (ret == 0)
        return 0;
    if (ret == -EPIPE)
        pv_worker_fail(context, BROKEN_GRACE_MS, "its worker has gone");
    else
        pv_worker_fail(context, BROKEN_GRACE_MS, "its worker does not take its commands (error %d)",
                       -ret);
    return -EPIPE;
}

/* Send what was held, up to the next mapping that cannot be made yet. */
static void flush_held(struct pv_gpu_context *context)
{
    if (context->flushing)
        return;
    context->flushing = true;
    while (context->link && !pv_list_empty(&context->held)) {
        struct pv_held *held = pv_list_entry(context->held.next, struct pv_held, node);
        if (held->map) {
            if (!pv_blob_retry_map(context->gpu, held))
                break;
            if (!context->link) /* cut meanwhile, which freed it */
                break;
        } else if (pv_worker_send(context, held->message, held->message + 1, -1) < 0) {
            break;
        }
        free_held(held);
    }
    context->flushing = false;
}

void pv_worker_cancel_map(struct pv_held *held)
{
    struct pv_gpu_context *context = held->context;
    free_held(held);
    flush_held(context);
}

void pv_worker_retry(struct pv_gpu *gpu)
{
    if (gpu->held_maps == 0)
        return;
    pv_list_for_each(node, &gpu->contexts)
        flush_held(pv_list_entry(node, struct pv_gpu_context, node));
}

/* ---- ends ---- */

static void on_watch_closed(uv_handle_t *handle)
{
    struct pv_worker_watch *watch = handle->data;
    if (--watch->handles == 0)
        free(watch);
}

static void close_link(struct pv_gpu_context *context)
{
    struct pv_worker_watch *watch = context->watch;
    watch->context = NULL;
    uv_close((uv_handle_t *)&watch->poll, on_watch_closed);
    uv_close((uv_handle_t *)&watch->more, on_watch_closed);
    context->watch = NULL;
    pv_link_destroy(context->link);
    context->link = NULL;
}

static void drop_held(struct pv_gpu_context *context)
{
    pv_list_for_each(node, &context->held)
    {
        struct pv_held *held = pv_list_entry(node, struct pv_held, node);
        struct pv_answer *answer = held->answer;
        if (held->map)
            held->map->held_map = NULL;
        free_held(held);
        if (answer)
            pv_answer_finish(context->gpu, answer, PV_RESP_ERR_UNSPEC);
    }
}

static void retire_fences(struct pv_gpu_context *context)
{
    while (!pv_list_empty(&context->fences))
        pv_answer_finish(context->gpu,
                         pv_list_entry(context->fences.next, struct pv_answer, context_node),
                         PV_RESP_ERR_UNSPEC);
}

void pv_worker_cut(struct pv_gpu_context *context, uint32_t grace_ms)
{
    if (context->state == PV_CONTEXT_LIVE)
        context->state = PV_CONTEXT_FAILED;
    if (context->link) {
        close_link(context);
        if (context->worker_id != 0)
            pv_spawner_end(context->gpu->params.spawner, context->worker_id, grace_ms);
    }
    set_all_fatal(context);
    drop_held(context);
    pv_blob_context_died(context->gpu, context);
    retire_fences(context);
}

void pv_worker_fail(struct pv_gpu_context *context, uint32_t grace_ms, const char *format, ...)
{
    if (!context->link)
        return;
    char reason[REASON_MAX + 100];
    va_list args;
    va_start(args, format);
    vsnprintf(reason, sizeof(reason), format, args);
    va_end(args);
    pv_log_limited(PV_LOG_WARN, 10, "%s: %s; the context is lost", pv_gpu_context_label(context),
                   reason);
    context->gpu->stats.workers_lost++;
    pv_worker_cut(context, grace_ms);
}

/* The process is no more: nothing uses its memory. May free the context. */
static void process_ended(struct pv_gpu_context *context)
{
    struct pv_gpu *gpu = context->gpu;
    pv_worker_cut(context, 0);
    pv_list_for_each(node, &context->holdings)
        pv_holding_drop(gpu, pv_list_entry(node, struct pv_holding, context_node));
    pv_forgetting_finish(context);
    context->worker_id = 0;
    context->pid = 0;
    if (--gpu->worker_count == 0)
        uv_timer_stop(gpu->timer);
    if (context->state == PV_CONTEXT_LEAVING)
        pv_gpu_context_free(context);
    pv_worker_retry(gpu);
}

static void name_silent(const struct pv_gpu_context *context)
{
    pv_warn("%s: its worker (pid %d) has not answered for %.0f s%s", pv_gpu_context_label(context),
            (int)context->pid, (double)(pv_now_ns() - context->ping_ns) / 1e9,
            context->pid != 0 && pv_process_is_stopped(context->pid) ? "; it is stopped" : "");
}

void pv_worker_leave(struct pv_gpu_context *context)
{
    bool first = context->state != PV_CONTEXT_LEAVING;
    context->state = PV_CONTEXT_LEAVING;
    if (context->link && context->ping_ns != 0 && !context->hung &&
        pv_now_ns() - context->ping_ns >= SILENT_NS)
        name_silent(context);
    if (context->worker_id == 0) {
        pv_gpu_context_free(context);
    } else if (first && context->link && !pv_list_empty(&context->fences) &&
               pv_list_empty(&context->held)) {
        context->leave_ns = pv_now_ns() + LEAVE_NS;
    } else {
        pv_worker_cut(context, END_GRACE_MS);
    }
}

/* ---- what workers say ---- */

static void on_fence_done(struct pv_gpu_context *context, const struct pv_link_message *message)
{
    pv_list_for_each(node, &context->fences)
    {
        struct pv_answer *answer = pv_list_entry(node, struct pv_answer, context_node);
        if (answer->cookie == message->cookie) {
            pv_answer_finish(context->gpu, answer, PV_RESP_OK_NODATA);
            break;
        }
    }
    if (context->state == PV_CONTEXT_LEAVING && pv_list_empty(&context->fences))
        pv_worker_cut(context, END_GRACE_MS);
}

static void on_forgotten(struct pv_gpu_context *context, const struct pv_link_message *message)
{
    if (pv_forgetting_answered(context, message->res_id, message->offset))
        pv_worker_retry(context->gpu);
}

static void on_failed(struct pv_gpu_context *context, const struct pv_link_message *message,
                      const char *payload)
{
    char line[REASON_MAX + 1];
    size_t size = message->payload_size < REASON_MAX ? message->payload_size : REASON_MAX;
    for (size_t i = 0; i < size; i++)
        line[i] = payload[i] >= ' ' && payload[i] <= '~' ? payload[i] : '?';
    line[size] = '\0';
    pv_worker_fail(context, BROKEN_GRACE_MS, "%s", line);
}

static void on_life(struct pv_gpu_context *context)
{
    uint64_t now = pv_now_ns();
    if (context->hung)
        pv_info("%s answers again after %.1f s", pv_gpu_context_label(context),
                (double)(now - context->ping_ns) / 1e9);
    context->hung = false;
    context->last_life_ns = now;
    context->ping_ns = 0;
}

/* `fd` is ours. The context may be cut when this returns. */
static void on_message(struct pv_gpu_context *context, const struct pv_link_message *message,
                       const void *payload, int fd)
{
    if (message->type == PV_LINK_BLOB_DONE) {
        pv_blob_done(context->gpu, context, message->res_id, message->result, fd);
        return;
    }
    if (fd >= 0)
        close(fd);
    switch (message->type) {
    case PV_LINK_FENCE_DONE:
        on_fence_done(context, message);
        break;
    case PV_LINK_FORGOTTEN:
        on_forgotten(context, message);
        break;
    case PV_LINK_RING:
        on_ring(context, message);
        break;
    case PV_LINK_FAILED:
        on_failed(context, message, payload);
        break;
    case PV_LINK_PONG:
        on_life(context);
        break;
    default:
        pv_worker_fail(context, 0, "its worker sent message %u, which means nothing",
                       message->type);
        break;
    }
}

static void receive(struct pv_worker_watch *watch)
{
    for (int i = 0; i < MESSAGES_AT_ONCE; i++) {
        struct pv_gpu_context *context = watch->context;
        struct pv_link_message message;
        const void *payload;
        int fd = -1;
        int ret = pv_link_receive(context->link, &message, &payload, &fd);
        if (ret <= 0) {
            uv_idle_stop(&watch->more);
            if (ret == -EPIPE)
                pv_worker_fail(context, BROKEN_GRACE_MS, "its worker has gone");
            else if (ret < 0)
                pv_worker_fail(context, 0, "its worker talks nonsense (error %d)", -ret);
            return;
        }
        context->last_life_ns = pv_now_ns();
        on_message(context, &message, payload, fd);
        if (!watch->context) /* cut by what it said */
            return;
    }
}

static void on_more(uv_idle_t *idle)
{
    receive(idle->data);
}

static void on_link(uv_poll_t *poll, int status, int events)
{
    struct pv_worker_watch *watch = poll->data;
    if (status < 0) {
        pv_worker_fail(watch->context, BROKEN_GRACE_MS, "its worker has gone");
        return;
    }
    if (events & UV_WRITABLE) {
        if (pv_link_flush(watch->context->link) < 0) {
            pv_worker_fail(watch->context, BROKEN_GRACE_MS, "its worker has gone");
            return;
        }
        watch_link(watch->context);
    }
    if (events & UV_READABLE) /* again and again until nothing is left, with others in between */
        uv_idle_start(&watch->more, on_more);
    if (events & UV_READABLE)
        receive(watch);
}

/* ---- start ---- */

static int watch_new_link(struct pv_gpu_context *context)
{
    uv_loop_t *loop = context->gpu->params.loop;
    struct pv_worker_watch *watch = calloc(1, sizeof(*watch));
    if (!watch)
        return -ENOMEM;
    int ret = uv_poll_init(loop, &watch->poll, pv_link_fd(context->link));
    if (ret < 0) {
        free(watch);
        return ret;
    }
    uv_idle_init(loop, &watch->more);
    watch->handles = 2;
    watch->poll.data = watch->more.data = watch;
    watch->context = context;
    context->watch = watch;
    watch_link(context);
    return 0;
}

static void on_timer(uv_timer_t *timer);

int pv_worker_start(struct pv_gpu_context *context)
{
    struct pv_gpu *gpu = context->gpu;
    int ends[2];
    int ret = pv_socketpair(ends);
    if (ret < 0)
        return ret;
    ret = pv_link_create(ends[0], false, &context->link);
    if (ret < 0) {
        close(ends[0]);
        close(ends[1]);
        return ret;
    }
    ret = watch_new_link(context);
    if (ret < 0) {
        pv_link_destroy(context->link);
        context->link = NULL;
        close(ends[1]);
        return ret;
    }
    struct pv_spawner_fds fds = {
        .link = ends[1],
        .activity = -1,
        .arena = pv_window_fd(gpu->window),
    };
    if (pv_activity_create(context, &fds.activity) < 0)
        pv_log_limited(PV_LOG_WARN, 1, "%s: no memory for its figures",
                       pv_gpu_context_label(context));
    context->worker_id = ++gpu->next_worker;
    ret =
        pv_spawner_start(gpu->params.spawner, context->worker_id, context->id, context->name, &fds);
    close(ends[1]);
    if (fds.activity >= 0)
        close(fds.activity);
    if (ret < 0) {
        context->worker_id = 0;
        close_link(context);
        return ret;
    }
    context->last_life_ns = pv_now_ns();
    gpu->stats.workers_started++;
    if (gpu->worker_count++ == 0)
        uv_timer_start(gpu->timer, on_timer, WATCH_MS, WATCH_MS);
    return 0;
}

/* ---- the spawner's reports ---- */

static struct pv_gpu_context *context_of_worker(struct pv_gpu *gpu, uint64_t worker_id)
{
    pv_list_for_each(node, &gpu->contexts)
    {
        struct pv_gpu_context *context = pv_list_entry(node, struct pv_gpu_context, node);
        if (context->worker_id == worker_id)
            return context;
    }
    return NULL;
}

static void on_started(void *data, uint64_t id, pid_t pid)
{
    struct pv_gpu_context *context = context_of_worker(data, id);
    if (!context)
        return;
    context->pid = pid;
    if (pid != 0) {
        pv_debug("%s: worker %d", pv_gpu_context_label(context), (int)pid);
        return;
    }
    pv_worker_fail(context, 0, "no worker could be started");
    process_ended(context);
}

static void on_ended(void *data, uint64_t id, int wait_status)
{
    struct pv_gpu_context *context = context_of_worker(data, id);
    if (!context)
        return;
    if (WIFSIGNALED(wait_status))
        pv_log_limited(PV_LOG_WARN, 10, "%s: its worker (pid %d) was ended by signal %d (%s)",
                       pv_gpu_context_label(context), (int)context->pid, WTERMSIG(wait_status),
                       strsignal(WTERMSIG(wait_status)));
    if (context->link) /* what it said last may still be in the socket */
        receive(context->watch);
    pv_worker_fail(context, 0, "its worker has ended");
    process_ended(context);
}

static void on_lost(void *data)
{
    struct pv_gpu *gpu = data;
    pv_error("the spawner has died with all workers; from now on there is only 2D");
    gpu->spawner_lost = true;
    pv_list_for_each(node, &gpu->contexts)
    {
        struct pv_gpu_context *context = pv_list_entry(node, struct pv_gpu_context, node);
        if (context->worker_id == 0)
            continue;
        pv_worker_fail(context, 0, "its worker has ended");
        process_ended(context);
    }
}

/* ---- the watch ---- */

/* What a program sends by its rings passes us by, so whoever has a ring may owe something. */
static bool is_busy(const struct pv_gpu_context *context)
{
    return !pv_list_empty(&context->rings) || context->ping_ns != 0 ||
           !pv_list_empty(&context->fences) || !pv_list_empty(&context->forgetting) ||
           pv_link_backlog(context->link) > 0 || pv_blob_is_awaited(context);
}

/* Since when; 0: it does not. */
static uint64_t holds_up_the_display(const struct pv_gpu_context *context)
{
    pv_list_for_each(node, &context->fences)
    {
        const struct pv_answer *answer = pv_list_entry(node, struct pv_answer, context_node);
        if (answer->timeline == &context->gpu->global_timeline)
            return answer->since_ns;
    }
    return 0;
}

static void ask_for_life(struct pv_gpu_context *context, uint64_t now)
{
    if (context->ping_ns == 0) {
        const struct pv_link_message message = {.type = PV_LINK_PING, .cookie = now};
        context->ping_ns = now;
        pv_worker_send(context, &message, NULL, -1);
        return;
    }
    if (!context->hung && now - context->ping_ns >= HUNG_NS) {
        context->hung = true;
        name_silent(context);
        pv_blob_context_hangs(context->gpu, context);
    }
}

static void check_context(struct pv_gpu_context *context, uint64_t now)
{
    if (!context->link)
        return;
    if (context->state == PV_CONTEXT_LEAVING && context->leave_ns != 0 &&
        now >= context->leave_ns) {
        pv_worker_cut(context, END_GRACE_MS);
        return;
    }
    if (!is_busy(context) || !pv_list_empty(&context->held))
        return; /* a PING would be held, too */
    uint64_t silent_since =
        context->ping_ns > context->last_life_ns ? context->ping_ns : context->last_life_ns;
    uint64_t in_the_way_since = holds_up_the_display(context);
    if (in_the_way_since != 0 && context->ping_ns != 0 && now - silent_since >= GLOBAL_FENCE_NS)
        pv_worker_fail(context, 0,
                       "its worker was silent for %.0f s while the display's fences "
                       "waited for it, and was killed",
                       (double)(now - silent_since) / 1e9);
    else if (in_the_way_since != 0 && now - in_the_way_since >= GLOBAL_FENCE_MAX_NS)
        pv_worker_fail(context, 0,
                       "the display's fences waited for its worker for %.0f s; it was killed",
                       (double)(now - in_the_way_since) / 1e9);
    else
        ask_for_life(context, now);
}

/* Only noted: the window must not change while it is searched. */
static void note_blocker(void *blocker, void *data)
{
    ((struct pv_gpu_context *)blocker)->in_the_way = true;
}

static void kill_if_in_the_way(struct pv_gpu_context *context)
{
    if (!context->in_the_way || context->worker_id == 0 || context->killed)
        return;
    context->killed = true;
    if (context->link)
        pv_worker_fail(context, 0, "it holds memory that the guest has unmapped");
    else
        pv_spawner_end(context->gpu->params.spawner, context->worker_id, 0);
}

static void check_held(struct pv_gpu_context *context, uint64_t now)
{
    if (pv_list_empty(&context->held))
        return;
    const struct pv_held *held = pv_list_entry(context->held.next, struct pv_held, node);
    if (held->map && now - held->since_ns >= HOLD_NS)
        pv_window_blockers(context->gpu->window, context, held->offset, held->map->size,
                           note_blocker, NULL);
}

static void on_timer(uv_timer_t *timer)
{
    struct pv_gpu *gpu = timer->data;
    uint64_t now = pv_now_ns();
    pv_list_for_each(node, &gpu->contexts)
        pv_activity_sample(pv_list_entry(node, struct pv_gpu_context, node), now);
    pv_list_for_each(node, &gpu->contexts)
        check_context(pv_list_entry(node, struct pv_gpu_context, node), now);
    pv_list_for_each(node, &gpu->contexts)
        check_held(pv_list_entry(node, struct pv_gpu_context, node), now);
    pv_list_for_each(node, &gpu->contexts)
        kill_if_in_the_way(pv_list_entry(node, struct pv_gpu_context, node));
}

/* ---- init, finish ---- */

static void on_timer_closed(uv_handle_t *handle)
{
    free(handle);
}

int pv_worker_init(struct pv_gpu *gpu)
{
    static const struct pv_spawner_events events = {on_started, on_ended, on_lost};
    gpu->timer = calloc(1, sizeof(*gpu->timer));
    if (!gpu->timer)
        return -ENOMEM;
    uv_timer_init(gpu->params.loop, gpu->timer);
    gpu->timer->data = gpu;
    int ret = pv_spawner_watch(gpu->params.spawner, gpu->params.loop, &events, gpu);
    if (ret < 0)
        uv_close((uv_handle_t *)gpu->timer, on_timer_closed);
    return ret;
}

void pv_worker_finish(struct pv_gpu *gpu)
{
    pv_list_for_each(node, &gpu->contexts)
    {
        struct pv_gpu_context *context = pv_list_entry(node, struct pv_gpu_context, node);
        pv_spawner_end(gpu->params.spawner, context->worker_id, 0);
        process_ended(context);
    }
    if (gpu->timer)
        uv_close((uv_handle_t *)gpu->timer, on_timer_closed);
}
