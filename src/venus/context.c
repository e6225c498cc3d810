#define PV_LOG_MODULE "context"
#include "venus/context.h"

#include "util/log.h"
#include "util/os.h"
#include "venus/context_internal.h"
#include "venus/ring.h"
#include "venus/timeline.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define TRIM_PERIOD_NS (10 * 1000000000ull)

/* ---- failing ----------------------------------------------------------------------------------
 */

void pv_context_poison(struct pv_context *ctx)
{
    for (unsigned i = 0; i < PV_CONTEXT_RINGS_MAX; i++) {
        _Atomic uint32_t *word = atomic_load_explicit(&ctx->status_words[i], memory_order_acquire);
        if (word)
            atomic_fetch_or_explicit(word, PV_RING_STATUS_FATAL, memory_order_seq_cst);
    }
}

static void interrupt_rings(struct pv_context *ctx)
{
    pthread_mutex_lock(&ctx->lock);
    for (unsigned i = 0; i < ctx->ring_count; i++) {
        if (ctx->rings[i])
            pv_ring_interrupt(ctx->rings[i]);
    }
    pthread_mutex_unlock(&ctx->lock);
}

void pv_context_fail(struct pv_context *ctx, const char *format, ...)
{
    bool first = false;
    pthread_mutex_lock(&ctx->lock);
    if (!atomic_load(&ctx->failed)) {
        first = true;
        va_list args;
        va_start(args, format);
        vsnprintf(ctx->reason, sizeof(ctx->reason), format, args);
        va_end(args);
        atomic_store_explicit(&ctx->failed, true, memory_order_release);
        pv_context_poison(ctx); /* with the lock: a ring that is just removed unmaps its words */
    }
    pthread_mutex_unlock(&ctx->lock);
    if (!first)
        return;
    interrupt_rings(ctx);
    if (ctx->params.failed)
        ctx->params.failed(ctx->params.data, ctx->reason);
}

bool pv_context_abandoned(struct pv_context *ctx)
{
    return atomic_load(&ctx->stopping) ||
           (ctx->params.abandoned && ctx->params.abandoned(ctx->params.data));
}

/* ---- monitor ----------------------------------------------------------------------------------
 */

/* A guest that asks for less would keep a core busy. */
#define MONITOR_MIN_NS 1000000u

/* Independent of the ring threads on purpose: a ring that waits for the GPU is alive. */
static void *monitor_main(void *data)
{
    struct pv_context *ctx = data;
    pv_thread_set_name("monitor");
    pthread_mutex_lock(&ctx->lock);
    while (!ctx->monitor_stop) {
        for (unsigned i = 0; i < ctx->ring_count; i++) {
            if (ctx->rings[i] && pv_ring_monitored(ctx->rings[i]))
                pv_ring_set_status(ctx->rings[i], PV_RING_STATUS_ALIVE);
        }
        pv_cond_wait_ns(&ctx->monitor_wake, &ctx->lock, ctx->monitor_period_ns);
    }
    pthread_mutex_unlock(&ctx->lock);
    return NULL;
}

int pv_context_monitor(struct pv_context *ctx, uint64_t period_ns)
{
    int ret = 0;
    uint64_t half = period_ns / 2; /* twice as often as promised: a late wake-up is no death */
    if (half < MONITOR_MIN_NS)
        half = MONITOR_MIN_NS;
    pthread_mutex_lock(&ctx->lock);
    if (!ctx->monitor_running || half < ctx->monitor_period_ns)
        ctx->monitor_period_ns = half;
    if (!ctx->monitor_running) {
        ret = -pthread_create(&ctx->monitor, NULL, monitor_main, ctx);
        ctx->monitor_running = ret == 0;
    }
    pthread_cond_signal(&ctx->monitor_wake);
    pthread_mutex_unlock(&ctx->lock);
    return ret;
}

static void stop_monitor(struct pv_context *ctx)
{
    pthread_mutex_lock(&ctx->lock);
    bool running = ctx->monitor_running;
    ctx->monitor_stop = true;
    pthread_cond_signal(&ctx->monitor_wake);
    pthread_mutex_unlock(&ctx->lock);
    if (running)
        pthread_join(ctx->monitor, NULL);
}

/* ---- rings ------------------------------------------------------------------------------------
 */

struct pv_ring *pv_context_find_ring(struct pv_context *ctx, uint64_t id)
{
    for (unsigned i = 0; i < ctx->ring_count; i++) {
        if (ctx->rings[i] && pv_ring_id(ctx->rings[i]) == id)
            return ctx->rings[i];
    }
    return NULL;
}

int pv_context_add_ring(struct pv_context *ctx, struct pv_ring *ring)
{
    int ret = -ENOSPC;
    pthread_mutex_lock(&ctx->lock);
    for (unsigned i = 0; i < PV_CONTEXT_RINGS_MAX && ret < 0; i++) {
        if (ctx->rings[i])
            continue;
        ctx->rings[i] = ring;
        if (i >= ctx->ring_count)
            ctx->ring_count = i + 1;
        atomic_store_explicit(&ctx->status_words[i], pv_ring_status_word(ring),
                              memory_order_release);
        if (pv_ring_monitored(ring))
            pv_ring_set_status(ring, PV_RING_STATUS_ALIVE);
        ret = 0;
    }
    pthread_mutex_unlock(&ctx->lock);
    return ret;
}

static void add_stats(struct pv_context_stats *out, struct pv_stream *s)
{
    out->commands += atomic_load_explicit(&s->commands, memory_order_relaxed);
    out->replies += atomic_load_explicit(&s->replies, memory_order_relaxed);
    out->bytes += atomic_load_explicit(&s->bytes, memory_order_relaxed);
    out->reply_bytes += atomic_load_explicit(&s->reply_bytes, memory_order_relaxed);
    out->errors += atomic_load_explicit(&s->failures, memory_order_relaxed);
    uint64_t stall = atomic_load_explicit(&s->longest_stall_ns, memory_order_relaxed);
    uint64_t wait = atomic_load_explicit(&s->longest_wait_ns, memory_order_relaxed);
    if (stall > out->longest_stall_ns)
        out->longest_stall_ns = stall;
    if (wait > out->longest_wait_ns)
        out->longest_wait_ns = wait;
}

void pv_context_remove_ring(struct pv_context *ctx, struct pv_ring *ring)
{
    pthread_mutex_lock(&ctx->lock);
    for (unsigned i = 0; i < ctx->ring_count; i++) {
        if (ctx->rings[i] != ring)
            continue;
        ctx->rings[i] = NULL;
        atomic_store_explicit(&ctx->status_words[i], NULL, memory_order_release);
    }
    add_stats(&ctx->past, pv_ring_stream(ring));
    pthread_mutex_unlock(&ctx->lock);
}

static void destroy_rings(struct pv_context *ctx)
{
    for (unsigned i = 0; i < PV_CONTEXT_RINGS_MAX; i++) {
        struct pv_ring *ring = ctx->rings[i];
        if (!ring)
            continue;
        pv_ring_stop(ring);
        pv_context_remove_ring(ctx, ring);
        pv_ring_destroy(ring);
    }
}

/* ---- life -------------------------------------------------------------------------------------
 */

int pv_context_create(const struct pv_context_params *params, struct pv_context **out)
{
    struct pv_context *ctx = calloc(1, sizeof(*ctx));
    if (!ctx)
        return -ENOMEM;
    ctx->params = *params;
    snprintf(ctx->name, sizeof(ctx->name), "%s", params->name ? params->name : "");
    ctx->params.name = ctx->name;
    ctx->activity = params->activity ? params->activity : &ctx->own_activity;
    const struct pv_timelines_params timelines = {params->fence_signalled, params->data};
    int ret = pv_objects_create(&ctx->objects);
    if (ret == 0)
        ret = pv_resources_create(params->resource_released, params->data, &ctx->resources);
    if (ret == 0)
        ret = pv_timelines_create(&timelines, &ctx->timelines);
    if (ret < 0) {
        pv_resources_destroy(ctx->resources);
        pv_objects_destroy(ctx->objects);
        free(ctx);
        return ret;
    }
    pthread_mutex_init(&ctx->lock, NULL);
    pthread_mutex_init(&ctx->memory_lock, NULL);
    pv_cond_init(&ctx->monitor_wake);
    pv_stream_init(&ctx->stream, ctx, NULL);
    *out = ctx;
    return 0;
}

/* The guest may be gone in the middle of anything: rings first, then the GPU, then the objects. */
void pv_context_destroy(struct pv_context *ctx)
{
    if (!ctx)
        return;
    atomic_store(&ctx->stopping, true);
    interrupt_rings(ctx);
    destroy_rings(ctx);
    stop_monitor(ctx);
    if (ctx->instance_object)
        pv_context_destroy_instance(ctx);
    pv_timelines_destroy(ctx->timelines);
    pv_context_free_instance(ctx);
    pv_stream_finish(&ctx->stream);
    pv_resources_destroy(ctx->resources);
    pv_objects_destroy(ctx->objects);
    pthread_cond_destroy(&ctx->monitor_wake);
    pthread_mutex_destroy(&ctx->memory_lock);
    pthread_mutex_destroy(&ctx->lock);
    free(ctx);
}

/* ---- the front door ---------------------------------------------------------------------------
 */

int pv_context_submit(struct pv_context *ctx, const void *commands, size_t size)
{
    if (pv_context_failed(ctx))
        return -EIO;
    if (size % 4 != 0) {
        pv_context_fail(ctx, "context stream: %zu bytes are no multiple of 4; context stopped",
                        size);
        return -EIO;
    }
    return pv_stream_run(&ctx->stream, commands, size, NULL);
}

/* Resources come and go on the context thread only. */
static void count_shm(struct pv_context *ctx)
{
    atomic_store_explicit(&ctx->activity->shm_bytes, pv_resources_bytes(ctx->resources),
                          memory_order_relaxed);
}

static int create_shm(struct pv_context *ctx, uint32_t res_id, uint64_t size, int *out_fd)
{
    int fd = -1;
    int ret = pv_shm_create("pearvisor-shm", size, &fd);
    if (ret < 0)
        return ret;
    int copy = dup(fd);
    if (copy < 0) {
        ret = -errno;
        close(fd);
        return ret;
    }
    ret = pv_resources_add(ctx->resources, res_id, copy, size, PV_RESOURCE_SHM);
    if (ret < 0) {
        close(copy);
        close(fd);
        return ret;
    }
    count_shm(ctx);
    *out_fd = fd;
    return 0;
}

/* `shared`: the guest may bring the resource back as an import, as Zink in an X server does, so an
 * fd of it is kept. Memory that is only mapped comes in thousands and costs none. */
static int export_memory(struct pv_context *ctx, uint32_t res_id, uint64_t blob_id, uint64_t size,
                         bool shared, int *out_fd)
{
    int ret = -EINVAL;
    int fd = -1, copy = -1;
    pthread_mutex_lock(&ctx->memory_lock);
    struct pv_object *object = pv_objects_find(ctx->objects, blob_id);
    if (object && object->type == VK_OBJECT_TYPE_DEVICE_MEMORY) {
        ret = -ENOMEM; /* known, but the driver refused it */
        if (pv_object_handle(object) && object->memory)
            ret = pv_memory_export_fd(object->memory, size, &fd);
    }
    pthread_mutex_unlock(&ctx->memory_lock);
    if (ret < 0)
        return ret;
    if (shared) {
        copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
        ret = copy < 0 ? -errno : 0;
    }
    if (ret == 0)
        ret = pv_resources_add(ctx->resources, res_id, copy, size, PV_RESOURCE_OTHER);
    if (ret < 0) {
        if (copy >= 0)
            close(copy);
        close(fd);
        return ret;
    }
    *out_fd = fd;
    return 0;
}

int pv_context_create_blob(struct pv_context *ctx, uint32_t res_id, uint64_t blob_id, uint64_t size,
                           uint32_t blob_flags, int *out_fd)
{
    const uint32_t all = PV_BLOB_MAPPABLE | PV_BLOB_SHAREABLE | PV_BLOB_CROSS_DEVICE;
    if (pv_context_failed(ctx))
        return -EIO;
    if (res_id == 0 || size == 0 || (blob_flags & ~all) != 0)
        return -EINVAL;
    if (blob_id != 0)
        return export_memory(ctx, res_id, blob_id, size,
                             (blob_flags & (PV_BLOB_SHAREABLE | PV_BLOB_CROSS_DEVICE)) != 0, out_fd);
    if (blob_flags != PV_BLOB_MAPPABLE)
        return -EINVAL;
    return create_shm(ctx, res_id, size, out_fd);
}

static bool is_inside(int fd, uint64_t offset, uint64_t size)
{
    struct stat status;
    return fstat(fd, &status) == 0 && offset <= (uint64_t)status.st_size &&
           size <= (uint64_t)status.st_size - offset;
}

int pv_context_add_resource(struct pv_context *ctx, uint32_t res_id, int fd, uint64_t offset,
                            uint64_t size, enum pv_context_use use)
{
    static const enum pv_resource_use uses[] = {
        [PV_CONTEXT_USE_SHM] = PV_RESOURCE_SHM,
        [PV_CONTEXT_USE_MEMORY] = PV_RESOURCE_MEMORY,
        [PV_CONTEXT_USE_FOREIGN] = PV_RESOURCE_OTHER,
    };
    if (pv_context_failed(ctx))
        return -EIO;
    uint64_t page = pv_page_size();
    if (res_id == 0 || size == 0 || size % page != 0 || offset % page != 0 ||
        !is_inside(fd, offset, size))
        return -EINVAL;
    int ret = pv_resources_add_part(ctx->resources, res_id, fd, offset, size, uses[use]);
    count_shm(ctx);
    return ret;
}

int pv_context_import_resource(struct pv_context *ctx, uint32_t res_id, int fd, uint64_t size)
{
    if (pv_context_failed(ctx))
        return -EIO;
    if (res_id == 0 || size == 0)
        return -EINVAL;
    return pv_resources_add(ctx->resources, res_id, fd, size, PV_RESOURCE_OTHER);
}

/* Images come and go with a window's sizes: what the driver had for them was allocated by several
 * threads, so the C library has it in several heaps and gives none of it back by itself. */
static void trim_heap(struct pv_context *ctx)
{
    uint64_t now = pv_now_ns();
    if (now - ctx->trimmed_ns < TRIM_PERIOD_NS)
        return;
    ctx->trimmed_ns = now;
    pv_trim_heap();
}

int pv_context_unref_resource(struct pv_context *ctx, uint32_t res_id)
{
    int ret = pv_resources_remove(ctx->resources, res_id);
    count_shm(ctx);
    trim_heap(ctx);
    return ret;
}

int pv_context_create_fence(struct pv_context *ctx, uint32_t ring_idx, uint64_t cookie)
{
    if (pv_context_failed(ctx))
        return -EIO;
    int ret = pv_timelines_fence(ctx->timelines, ring_idx, cookie);
    if (!ctx->params.polls_fences)
        pv_timelines_arm(ctx->timelines);
    if (ret == -EINVAL) {
        pv_context_fail(ctx, "fence: ring_idx %u is not bound to a queue; context stopped",
                        ring_idx);
    } else if (ret < 0) {
        pv_context_fail(ctx, "fence: ring_idx %u: %s; context stopped", ring_idx, strerror(-ret));
    }
    return ret < 0 && ret != -EINVAL ? -EIO : ret;
}

bool pv_context_poll_fences(struct pv_context *ctx)
{
    return pv_timelines_poll(ctx->timelines);
}

void pv_context_arm_fences(struct pv_context *ctx)
{
    pv_timelines_arm(ctx->timelines);
}

void pv_context_hint(struct pv_context *ctx)
{
    for (unsigned i = 0; i < ctx->ring_count; i++) {
        if (ctx->rings[i])
            pv_ring_assist(ctx->rings[i]);
    }
}

void pv_context_settle(struct pv_context *ctx)
{
    for (unsigned i = 0; i < ctx->ring_count; i++) {
        if (ctx->rings[i])
            pv_ring_settle(ctx->rings[i]);
    }
}

void pv_context_get_stats(struct pv_context *ctx, struct pv_context_stats *out)
{
    pthread_mutex_lock(&ctx->lock);
    *out = ctx->past;
    add_stats(out, &ctx->stream);
    for (unsigned i = 0; i < ctx->ring_count; i++) {
        if (ctx->rings[i])
            add_stats(out, pv_ring_stream(ctx->rings[i]));
    }
    pthread_mutex_unlock(&ctx->lock);
    out->errors += pv_context_failed(ctx) ? 1 : 0;
    out->objects = pv_objects_count(ctx->objects);
    out->frames = atomic_load_explicit(&ctx->activity->frames, memory_order_relaxed);
    out->memory_bytes = pv_resources_bytes(ctx->resources) +
                        atomic_load_explicit(&ctx->activity->memory_bytes, memory_order_relaxed);
}
