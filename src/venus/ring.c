#define PV_LOG_MODULE "ring"
#include "venus/ring.h"

#include "util/log.h"
#include "util/os.h"
#include "venus/context_internal.h"
#include "vulkan/chain.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

/* Polling before the ring goes idle. Spinning catches the guest that sends one command after the
 * other, and the one that looks for a fence: Mesa gives up its own polling after some tens of
 * microseconds and then sleeps for 160. After that the core is offered to others, which may be a
 * software driver's threads, and then sleeps grow, since IDLE may not be set before the guest's
 * idle timeout. Chosen by measurement: docs/performance.md. */
#define SPIN_NS      2000u
#define YIELD_NS     100000u
#define WAIT_SPIN_NS 20000u
#define SLEEP_MIN_NS 20000u
#define SLEEP_MAX_NS 200000u

/* An idle ring looks at the tail now and then even without a notify: a guest whose clock runs slow
 * may leave one out (transport rules, "lost wake-ups"). That happens soon after the last command or
 * not at all, so the looks become rarer, until they cost nothing. */
#define IDLE_LOOK_MIN_NS 4000000u
#define IDLE_LOOK_MAX_NS 4000000000u

/* Threads that wait for a ring look this often whether the context is still wanted. */
#define WAIT_LOOK_NS 100000000u

/* Free the guest's space after this many bytes of a batch, so that it can go on writing. */
#define PROGRESS_BYTES 4096u

/* Longest batch that the context thread runs for an idle ring. */
#define ASSIST_BYTES 8192u

/* Longest idle timeout that a guest may ask for. */
#define IDLE_TIMEOUT_MAX_NS 1000000000u

struct pv_ring {
    struct pv_context *ctx; /* borrowed */
    uint64_t id;
    struct pv_resource *resource; /* shared */
    _Atomic uint32_t *head, *tail, *status;
    uint8_t *buffer, *extra;
    uint32_t buffer_size;
    size_t extra_size;
    uint64_t idle_timeout_ns;
    bool monitored;

    struct pv_stream stream; /* ring thread */
    uint8_t *copy;           /* owned: private copy of a batch, buffer_size bytes */
    uint32_t cur;            /* ring thread: everything before it has been copied */
    uint32_t batch;          /* ring thread: counter at which the running batch began */
    uint32_t shown;          /* ring thread: last head stored */
    bool replied;            /* ring thread: a reply was written since then */

    pthread_t thread;
    atomic_bool stop;
    bool drain;               /* set before stop */
    bool joined;              /* context thread */
    atomic_bool asleep;       /* on wake, with IDLE set */
    atomic_bool notified;     /* by the guest, since the idle timeout began to run */
    bool assisted;            /* context thread: it ran a batch that the guest will announce */
    _Atomic uint32_t done;    /* head, in memory that the guest cannot write */
    _Atomic unsigned waiters; /* in pv_ring_wait_seqno */

    /* Held by whoever runs commands: the ring thread, except while it sleeps on wake. */
    pthread_mutex_t run_lock;
    pthread_mutex_t lock; /* for the conditions and what is below */
    pthread_cond_t wake;  /* the ring thread sleeps here when idle */
    pthread_cond_t moved; /* head moved, or stop */
    pthread_cond_t virtqueue;
    _Atomic uint64_t virtqueue_seqno;
};

/* ---- layout -----------------------------------------------------------------------------------
 */

struct region {
    uint64_t offset, size;
    const char *name;
};

static bool overlaps(const struct region *a, const struct region *b)
{
    return a->offset < b->offset + b->size && b->offset < a->offset + a->size;
}

/* Offsets are from `offset` of the resource; every region lies inside its `size` bytes. */
static const char *check_layout(const VkRingCreateInfoMESA *info,
                                const struct pv_resource *resource)
{
    if (!resource || !resource->map)
        return "resource is not shared memory";
    if (!pv_resource_has_range(resource, info->offset, info->size) || info->offset % 4 != 0)
        return "ring leaves its resource";
    if (info->bufferSize == 0 || info->bufferSize > PV_RING_BUFFER_MAX ||
        (info->bufferSize & (info->bufferSize - 1)) != 0)
        return "buffer size is not a power of two of at most 16 MiB";
    const struct region regions[] = {
        {info->headOffset, 4, "head"},
        {info->tailOffset, 4, "tail"},
        {info->statusOffset, 4, "status"},
        {info->bufferOffset, info->bufferSize, "buffer"},
        {info->extraOffset, info->extraSize, "extra"},
    };
    for (unsigned i = 0; i < 5; i++) {
        if (regions[i].offset % 4 != 0)
            return "a region is not 4-aligned";
        if (regions[i].offset > info->size || regions[i].size > info->size - regions[i].offset)
            return "a region leaves the ring";
        for (unsigned j = 0; j < i; j++) {
            if (overlaps(&regions[i], &regions[j]))
                return "regions overlap";
        }
    }
    if (info->flags != 0)
        return "unknown flags";
    return NULL;
}

static void place(struct pv_ring *ring, const VkRingCreateInfoMESA *info)
{
    uint8_t *base = ring->resource->map + info->offset;
    ring->head = (_Atomic uint32_t *)(void *)(base + info->headOffset);
    ring->tail = (_Atomic uint32_t *)(void *)(base + info->tailOffset);
    ring->status = (_Atomic uint32_t *)(void *)(base + info->statusOffset);
    ring->buffer = base + info->bufferOffset;
    ring->buffer_size = (uint32_t)info->bufferSize;
    ring->extra = base + info->extraOffset;
    ring->extra_size = info->extraSize;
    ring->idle_timeout_ns =
        info->idleTimeout < IDLE_TIMEOUT_MAX_NS ? info->idleTimeout : IDLE_TIMEOUT_MAX_NS;
}

/* ---- the ring thread --------------------------------------------------------------------------
 */

static void copy_out(struct pv_ring *ring, uint32_t from, uint32_t size)
{
    uint32_t at = from & (ring->buffer_size - 1);
    uint32_t first = ring->buffer_size - at;
    if (first > size)
        first = size;
    memcpy(ring->copy, ring->buffer + at, first);
    memcpy(ring->copy + first, ring->buffer, size - first);
}

static void show_head(struct pv_ring *ring, uint32_t head)
{
    ring->shown = head;
    ring->replied = false;
    /* pairs with the guest's load: what was executed, replies included, is visible by then */
    atomic_store_explicit(ring->head, head, memory_order_release);
    /* after the head, so that who has waited finds it there; against waiters below */
    atomic_store_explicit(&ring->done, head, memory_order_seq_cst);
    if (atomic_load_explicit(&ring->waiters, memory_order_seq_cst) > 0) {
        pthread_mutex_lock(&ring->lock);
        pthread_cond_broadcast(&ring->moved);
        pthread_mutex_unlock(&ring->lock);
    }
}

void pv_ring_progress(struct pv_ring *ring, size_t done)
{
    uint32_t head = ring->batch + (uint32_t)done;
    if (ring->replied || head - ring->shown >= PROGRESS_BYTES)
        show_head(ring, head);
}

void pv_ring_publish(struct pv_ring *ring, size_t done)
{
    uint32_t head = ring->batch + (uint32_t)done;
    if (head != ring->shown)
        show_head(ring, head);
}

void pv_ring_replied(struct pv_ring *ring)
{
    ring->replied = true;
}

/* Copy and run everything up to `tail`. False once the context has failed. */
static bool run_batch(struct pv_ring *ring, uint32_t tail)
{
    uint32_t size = tail - ring->cur;
    if (size > ring->buffer_size || size % 4 != 0) {
        pv_context_fail(ring->ctx,
                        "ring 0x%llx: tail is 0x%x past head, buffer holds 0x%x; context stopped",
                        (unsigned long long)ring->id, size, ring->buffer_size);
        return false;
    }
    copy_out(ring, ring->cur, size);
    ring->batch = ring->cur;
    size_t done = 0;
    if (pv_stream_run(&ring->stream, ring->copy, size, &done) < 0)
        return false;
    ring->cur += (uint32_t)done;
    if (ring->cur != ring->shown)
        show_head(ring, ring->cur);
    return true;
}

static uint32_t load_tail(struct pv_ring *ring)
{
    /* pairs with the guest's tail store, after it wrote the commands */
    return atomic_load_explicit(ring->tail, memory_order_acquire);
}

bool pv_ring_stopping(const struct pv_ring *ring)
{
    return atomic_load_explicit(&ring->stop, memory_order_acquire);
}

static void sleep_ns(uint64_t ns)
{
    struct timespec time = {.tv_sec = 0, .tv_nsec = (long)ns};
    nanosleep(&time, NULL);
}

/* Wait for the tail to move, the cheap way first. False when the idle timeout is over. */
static bool poll_tail(struct pv_ring *ring)
{
    uint64_t begin = pv_now_ns();
    uint64_t nap = SLEEP_MIN_NS;
    for (unsigned i = 1;; i++) {
        if (load_tail(ring) != ring->cur || pv_ring_stopping(ring))
            return true;
        pv_cpu_relax();
        if (i % 16 != 0)
            continue;
        uint64_t waited = pv_now_ns() - begin;
        if (waited < SPIN_NS)
            continue;
        if (waited >= ring->idle_timeout_ns) {
            if (!atomic_exchange_explicit(&ring->notified, false, memory_order_acq_rel))
                return false;
            begin = pv_now_ns(); /* a notify starts the idle timeout again */
        }
        if (waited < YIELD_NS) {
            sched_yield();
        } else {
            sleep_ns(nap);
            nap = nap * 2 < SLEEP_MAX_NS ? nap * 2 : SLEEP_MAX_NS;
        }
    }
}

/* Set IDLE, look once more, sleep until notified. The order (seq_cst both) pairs with the guest's
 * "store tail, then load status": one of the two sees the other. */
static void sleep_idle(struct pv_ring *ring)
{
    atomic_store_explicit(&ring->asleep, true, memory_order_seq_cst);
    atomic_fetch_or_explicit(ring->status, PV_RING_STATUS_IDLE, memory_order_seq_cst);
    uint64_t look_ns = IDLE_LOOK_MIN_NS;
    pthread_mutex_unlock(&ring->run_lock);
    pthread_mutex_lock(&ring->lock);
    while (atomic_load_explicit(ring->tail, memory_order_seq_cst) ==
               atomic_load_explicit(&ring->done, memory_order_relaxed) &&
           !pv_ring_stopping(ring) && !pv_context_failed(ring->ctx) &&
           !atomic_load_explicit(&ring->notified, memory_order_acquire)) {
        pv_cond_wait_ns(&ring->wake, &ring->lock, look_ns);
        look_ns = look_ns < IDLE_LOOK_MAX_NS / 2 ? look_ns * 2 : IDLE_LOOK_MAX_NS;
    }
    pthread_mutex_unlock(&ring->lock);
    pthread_mutex_lock(&ring->run_lock);
    atomic_store_explicit(&ring->notified, false, memory_order_relaxed);
    atomic_fetch_and_explicit(ring->status, ~PV_RING_STATUS_IDLE, memory_order_seq_cst);
    atomic_store_explicit(&ring->asleep, false, memory_order_seq_cst);
}

static void *ring_main(void *data)
{
    struct pv_ring *ring = data;
    pthread_mutex_lock(&ring->run_lock);
    char name[16];
    snprintf(name, sizeof(name), "ring-%u", (unsigned)(ring->resource->id % 1000000));
    pv_thread_set_name(name);
    while (!pv_context_failed(ring->ctx)) {
        bool stopping = pv_ring_stopping(ring);
        uint32_t tail = load_tail(ring);
        if (tail != ring->cur) {
            if (stopping && !ring->drain)
                break;
            if (!run_batch(ring, tail))
                break;
            if (stopping) /* what the guest writes from now on it writes in vain */
                break;
        } else if (stopping) {
            break;
        } else if (!poll_tail(ring)) {
            sleep_idle(ring);
        }
    }
    if (pv_context_failed(ring->ctx))
        pv_ring_set_status(ring, PV_RING_STATUS_FATAL);
    pthread_mutex_unlock(&ring->run_lock);
    return NULL;
}

/* ---- life -------------------------------------------------------------------------------------
 */

static void init_sync(struct pv_ring *ring)
{
    pthread_mutex_init(&ring->run_lock, NULL);
    pthread_mutex_init(&ring->lock, NULL);
    pv_cond_init(&ring->wake);
    pv_cond_init(&ring->moved);
    pv_cond_init(&ring->virtqueue);
}

static void finish_sync(struct pv_ring *ring)
{
    pthread_cond_destroy(&ring->virtqueue);
    pthread_cond_destroy(&ring->moved);
    pthread_cond_destroy(&ring->wake);
    pthread_mutex_destroy(&ring->lock);
    pthread_mutex_destroy(&ring->run_lock);
}

static void tell_changed(struct pv_ring *ring, bool added)
{
    const struct pv_context_params *params = &ring->ctx->params;
    uint64_t offset = (uint64_t)((uint8_t *)ring->status - ring->resource->map);
    if (params->ring_changed)
        params->ring_changed(params->data, ring->resource->id, offset, added);
}

int pv_ring_create(struct pv_context *ctx, uint64_t id, const VkRingCreateInfoMESA *info,
                   struct pv_ring **out, const char **why)
{
    struct pv_ring *ring = calloc(1, sizeof(*ring));
    if (!ring)
        return -ENOMEM;
    int ret = -EINVAL;
    ring->ctx = ctx;
    ring->id = id;
    ring->resource = pv_resources_get(ctx->resources, info->resourceId);
    const VkRingMonitorInfoMESA *monitor =
        pv_chain_find(info, VK_STRUCTURE_TYPE_RING_MONITOR_INFO_MESA);
    *why = check_layout(info, ring->resource);
    if (!*why && monitor && monitor->maxReportingPeriodMicroseconds == 0)
        *why = "monitor period is 0";
    if (*why)
        goto err_unref;
    place(ring, info);
    if (atomic_load(ring->head) != 0 || atomic_load(ring->status) != 0) {
        *why = "head or status is not 0";
        goto err_unref;
    }
    ret = -ENOMEM;
    ring->copy = malloc(ring->buffer_size);
    if (!ring->copy)
        goto err_unref;
    ring->monitored = monitor != NULL;
    pv_stream_init(&ring->stream, ctx, ring);
    init_sync(ring);
    if (monitor) {
        ret = pv_context_monitor(ctx, (uint64_t)monitor->maxReportingPeriodMicroseconds * 1000u);
        if (ret < 0)
            goto err_sync;
    }
    tell_changed(ring, true); /* before there is anything to wait for */
    ret = -pthread_create(&ring->thread, NULL, ring_main, ring);
    if (ret < 0) {
        tell_changed(ring, false);
        goto err_sync;
    }
    *out = ring;
    return 0;

err_sync:
    finish_sync(ring);
    pv_stream_finish(&ring->stream);
    free(ring->copy);
err_unref:
    pv_resource_unref(ring->resource);
    free(ring);
    return ret;
}

void pv_ring_interrupt(struct pv_ring *ring)
{
    pthread_mutex_lock(&ring->lock);
    pthread_cond_broadcast(&ring->wake);
    pthread_cond_broadcast(&ring->moved);
    pthread_cond_broadcast(&ring->virtqueue);
    pthread_mutex_unlock(&ring->lock);
}

static void end_thread(struct pv_ring *ring, bool drain)
{
    if (ring->joined)
        return;
    ring->drain = drain;
    atomic_store(&ring->stop, true); /* publishes drain */
    pv_ring_interrupt(ring);
    pthread_join(ring->thread, NULL);
    ring->joined = true;
}

void pv_ring_finish(struct pv_ring *ring)
{
    end_thread(ring, true);
}

void pv_ring_stop(struct pv_ring *ring)
{
    end_thread(ring, false);
}

void pv_ring_destroy(struct pv_ring *ring)
{
    if (!ring)
        return;
    pv_ring_stop(ring);
    tell_changed(ring, false);
    finish_sync(ring);
    pv_stream_finish(&ring->stream);
    free(ring->copy);
    pv_resource_unref(ring->resource);
    free(ring);
}

/* ---- from other threads -----------------------------------------------------------------------
 */

uint64_t pv_ring_id(const struct pv_ring *ring)
{
    return ring->id;
}

struct pv_stream *pv_ring_stream(struct pv_ring *ring)
{
    return &ring->stream;
}

_Atomic uint32_t *pv_ring_status_word(struct pv_ring *ring)
{
    return ring->status;
}

bool pv_ring_monitored(const struct pv_ring *ring)
{
    return ring->monitored;
}

void pv_ring_set_status(struct pv_ring *ring, uint32_t bits)
{
    atomic_fetch_or_explicit(ring->status, bits, memory_order_seq_cst);
}

static void wake_thread(struct pv_ring *ring)
{
    pthread_mutex_lock(&ring->lock);
    pthread_cond_signal(&ring->wake);
    pthread_mutex_unlock(&ring->lock);
}

void pv_ring_notify(struct pv_ring *ring)
{
    atomic_store_explicit(&ring->notified, true, memory_order_seq_cst);
    if (ring->assisted)
        return; /* the work is done: pv_ring_settle wakes the thread when the guest has its answer
                 */
    if (atomic_load_explicit(&ring->asleep, memory_order_seq_cst))
        wake_thread(ring);
}

/* Waking a thread on another core takes longer than most commands. So the thread that has just read
 * from the guest runs what an idle ring holds, up to the first command that may block, and the
 * ring's own thread wakes up beside it. */
void pv_ring_assist(struct pv_ring *ring)
{
    if (!atomic_load_explicit(&ring->asleep, memory_order_acquire) ||
        load_tail(ring) == atomic_load_explicit(&ring->done, memory_order_relaxed) ||
        pthread_mutex_trylock(&ring->run_lock) != 0)
        return;
    uint32_t tail = load_tail(ring);
    if (tail - ring->cur <= ASSIST_BYTES && !pv_context_failed(ring->ctx)) {
        ring->stream.assisting = true;
        run_batch(ring, tail);
        ring->stream.assisting = false;
    }
    ring->assisted = true;
    pthread_mutex_unlock(&ring->run_lock);
}

void pv_ring_settle(struct pv_ring *ring)
{
    if (!ring->assisted)
        return;
    /* The guest waits for what we have just run, perhaps on this core: let it go on before we pay
     * for waking another one. */
    sched_yield();
    ring->assisted = false;
    pv_ring_notify(ring);
}

int pv_ring_write_extra(struct pv_ring *ring, size_t offset, uint32_t value)
{
    if (offset % 4 != 0 || offset > ring->extra_size || ring->extra_size - offset < 4)
        return -EINVAL;
    /* pairs with the guest's load of the extra word */
    atomic_store_explicit((_Atomic uint32_t *)(void *)(ring->extra + offset), value,
                          memory_order_release);
    return 0;
}

static bool reached(struct pv_ring *ring, uint32_t seqno)
{
    return (int32_t)(atomic_load_explicit(&ring->done, memory_order_seq_cst) - seqno) >= 0;
}

int pv_ring_wait_seqno(struct pv_ring *ring, uint32_t seqno)
{
    if (reached(ring, seqno))
        return 0;
    if ((int32_t)(load_tail(ring) - seqno) < 0)
        return -EINVAL;
    ring->assisted = false;
    if (atomic_load_explicit(&ring->asleep, memory_order_seq_cst))
        pv_ring_notify(ring); /* in case the guest has not */
    for (uint64_t begin = pv_now_ns(); pv_now_ns() - begin < WAIT_SPIN_NS;) {
        if (reached(ring, seqno))
            return 0;
        sched_yield();
    }
    int ret = 0;
    atomic_fetch_add_explicit(&ring->waiters, 1, memory_order_seq_cst);
    pthread_mutex_lock(&ring->lock);
    while (!reached(ring, seqno) && ret == 0) {
        pv_cond_wait_ns(&ring->moved, &ring->lock, WAIT_LOOK_NS);
        if (pv_context_failed(ring->ctx) || pv_context_abandoned(ring->ctx))
            ret = -ECANCELED;
    }
    pthread_mutex_unlock(&ring->lock);
    atomic_fetch_sub_explicit(&ring->waiters, 1, memory_order_seq_cst);
    return reached(ring, seqno) ? 0 : ret;
}

void pv_ring_set_virtqueue_seqno(struct pv_ring *ring, uint64_t seqno)
{
    pthread_mutex_lock(&ring->lock);
    atomic_store_explicit(&ring->virtqueue_seqno, seqno, memory_order_release);
    pthread_cond_broadcast(&ring->virtqueue);
    pthread_mutex_unlock(&ring->lock);
}

int pv_ring_wait_virtqueue_seqno(struct pv_ring *ring, uint64_t seqno)
{
    for (uint64_t begin = pv_now_ns(); pv_now_ns() - begin < WAIT_SPIN_NS;) {
        if (atomic_load_explicit(&ring->virtqueue_seqno, memory_order_acquire) >= seqno)
            return 0;
        sched_yield();
    }
    int ret = 0;
    pthread_mutex_lock(&ring->lock);
    while (atomic_load_explicit(&ring->virtqueue_seqno, memory_order_acquire) < seqno && ret == 0) {
        pv_cond_wait_ns(&ring->virtqueue, &ring->lock, WAIT_LOOK_NS);
        if (pv_ring_stopping(ring) || pv_context_failed(ring->ctx) ||
            atomic_load(&ring->ctx->stopping))
            ret = -ECANCELED;
    }
    pthread_mutex_unlock(&ring->lock);
    return ret;
}
