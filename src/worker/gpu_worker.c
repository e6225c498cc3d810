#include "worker/gpu_worker.h"

#include "util/log.h"
#include "util/os.h"
#include "venus/activity.h"
#include "venus/context.h"
#include "worker/link.h"
#include "worker/process.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define PV_LOG_MODULE "worker"

/* How long new fences are looked at before a thread waits for them. */
#define FENCE_POLL_NS 60000

/* A fence that the context did not take, behind others of its timeline. */
struct late_fence {
    struct late_fence *next;
    uint32_t ring_idx;
    uint64_t cookie;
};

struct pv_gpu_worker {
    struct pv_gpu_worker_params params;
    struct pv_link *link;
    struct pv_activity *activity; /* mapped; NULL: none */
    struct pv_context *context;   /* NULL if it could not be made */
    /* The same for signal handlers, which may come while it is being destroyed. */
    struct pv_context *_Atomic signal_context;
    atomic_bool stopped;

    pthread_mutex_t fence_lock;                  /* guards the two below */
    uint32_t pending[PV_CONTEXT_TIMELINE_COUNT]; /* fences that the context has */
    struct late_fence *late, **late_end;
};

/* ---- what goes to the device; any thread ---- */

/* A device that has gone is heard of by receiving. */
static void tell(struct pv_gpu_worker *worker, const struct pv_link_message *message,
                 const void *payload, int fd)
{
    pv_link_send(worker->link, message, payload, fd);
}

static void tell_failed(struct pv_gpu_worker *worker, const char *reason)
{
    const struct pv_link_message message = {
        .type = PV_LINK_FAILED,
        .payload_size = (uint32_t)strlen(reason),
    };
    tell(worker, &message, reason, -1);
}

static void tell_forgotten(struct pv_gpu_worker *worker, uint32_t res_id, uint64_t offset)
{
    const struct pv_link_message message = {
        .type = PV_LINK_FORGOTTEN,
        .res_id = res_id,
        .offset = offset,
    };
    tell(worker, &message, NULL, -1);
}

static void tell_blob_done(struct pv_gpu_worker *worker, uint32_t res_id, int result, int fd)
{
    const struct pv_link_message message = {
        .type = PV_LINK_BLOB_DONE,
        .res_id = res_id,
        .result = result,
    };
    tell(worker, &message, NULL, fd);
}

static void tell_fence(struct pv_gpu_worker *worker, uint32_t ring_idx, uint64_t cookie)
{
    const struct pv_link_message message = {
        .type = PV_LINK_FENCE_DONE,
        .ring_idx = ring_idx,
        .cookie = cookie,
    };
    tell(worker, &message, NULL, -1);
}

/* ---- callbacks of the context ---- */

static void context_failed(void *data, const char *reason)
{
    pv_error("%s", reason);
    tell_failed(data, reason);
}

static void ring_changed(void *data, uint32_t res_id, uint64_t status_offset, bool added)
{
    const struct pv_link_message message = {
        .type = PV_LINK_RING,
        .res_id = res_id,
        .offset = status_offset,
        .flags = added,
    };
    tell(data, &message, NULL, -1);
}

static void resource_released(void *data, uint32_t res_id, uint64_t offset)
{
    tell_forgotten(data, res_id, offset);
}

/* During a long wait on the context thread. */
static bool device_gone(void *data)
{
    struct pv_gpu_worker *worker = data;
    struct pollfd poll_fd = {.fd = pv_link_fd(worker->link)};
    if (atomic_load(&worker->stopped))
        return true;
    return poll(&poll_fd, 1, 0) > 0 && (poll_fd.revents & (POLLHUP | POLLERR));
}

/* ---- fences: those of one ring_idx are told in order, come what may ---- */

/* Tell the late fences whose predecessors have gone. */
static void tell_late_locked(struct pv_gpu_worker *worker)
{
    struct late_fence **link = &worker->late;
    while (*link) {
        struct late_fence *fence = *link;
        if (worker->pending[fence->ring_idx] > 0) {
            link = &fence->next;
            continue;
        }
        tell_fence(worker, fence->ring_idx, fence->cookie);
        *link = fence->next;
        free(fence);
    }
    worker->late_end = link;
}

static void fence_signalled(void *data, uint32_t ring_idx, uint64_t cookie)
{
    struct pv_gpu_worker *worker = data;
    pthread_mutex_lock(&worker->fence_lock);
    tell_fence(worker, ring_idx, cookie);
    worker->pending[ring_idx]--;
    if (worker->late)
        tell_late_locked(worker);
    pthread_mutex_unlock(&worker->fence_lock);
}

/* The context has refused this one: it counts as done when those before it are. */
static void refuse_fence_locked(struct pv_gpu_worker *worker, uint32_t ring_idx, uint64_t cookie)
{
    struct late_fence *late = NULL;
    if (ring_idx < PV_CONTEXT_TIMELINE_COUNT)
        late = malloc(sizeof(*late));
    if (!late) {
        tell_fence(worker, ring_idx, cookie);
        return;
    }
    *late = (struct late_fence){.ring_idx = ring_idx, .cookie = cookie};
    *worker->late_end = late;
    worker->late_end = &late->next;
    tell_late_locked(worker);
}

static void create_fence(struct pv_gpu_worker *worker, const struct pv_link_message *message)
{
    uint32_t ring_idx = message->ring_idx;
    bool counts = worker->context && ring_idx < PV_CONTEXT_TIMELINE_COUNT;
    int ret = -EIO;
    if (counts) { /* before it is made: it may signal at once */
        pthread_mutex_lock(&worker->fence_lock);
        worker->pending[ring_idx]++;
        pthread_mutex_unlock(&worker->fence_lock);
    }
    if (worker->context)
        ret = pv_context_create_fence(worker->context, ring_idx, message->cookie);
    if (ret == 0)
        return;
    pthread_mutex_lock(&worker->fence_lock);
    if (counts)
        worker->pending[ring_idx]--;
    refuse_fence_locked(worker, ring_idx, message->cookie);
    pthread_mutex_unlock(&worker->fence_lock);
}

/* ---- messages ---- */

static void warn_blob(const struct pv_link_message *message, const char *what, int error)
{
    pv_log_limited(PV_LOG_WARN, 5, "resource %u of %llu bytes, blob id %#llx: cannot %s: %s",
                   message->res_id, (unsigned long long)message->size,
                   (unsigned long long)message->blob_id, what, strerror(-error));
}

/* In memory of its own. The answer tells the device how it went. */
static void create_own_blob(struct pv_gpu_worker *worker, const struct pv_link_message *message)
{
    int fd = -1, ret = -EIO;
    if (worker->context)
        ret = pv_context_create_blob(worker->context, message->res_id, message->blob_id,
                                     message->size, message->flags, &fd);
    if (ret < 0 && ret != -EIO) /* a failed context has said so already */
        warn_blob(message, "be made", ret);
    if (ret < 0 && worker->context)
        pv_context_import_resource(worker->context, message->res_id, -1, message->size);
    tell_blob_done(worker, message->res_id, ret, fd);
    if (fd >= 0)
        close(fd);
}

/* In the arena. Where this fails, the guest's use of the resource fails the context. */
static int add_arena_resource(struct pv_gpu_worker *worker, const struct pv_link_message *message,
                              enum pv_context_use use)
{
    int ret = -EIO;
    if (worker->context)
        ret =
            worker->params.arena_fd < 0
                ? -EINVAL
                : pv_context_add_resource(worker->context, message->res_id, worker->params.arena_fd,
                                          message->offset, message->size, use);
    if (ret < 0 && ret != -EIO)
        warn_blob(message, "be used in the arena", ret);
    return ret;
}

static void create_blob(struct pv_gpu_worker *worker, const struct pv_link_message *message)
{
    if (message->offset == PV_LINK_OWN_MEMORY)
        create_own_blob(worker, message);
    else if (message->blob_id != 0)
        add_arena_resource(worker, message, PV_CONTEXT_USE_MEMORY);
    else
        tell_blob_done(worker, message->res_id,
                       add_arena_resource(worker, message, PV_CONTEXT_USE_SHM), -1);
}

/* `fd` is ours to close, or to give away. Without one the resource is known to have no memory,
 * which no ring waits for. */
static void import(struct pv_gpu_worker *worker, const struct pv_link_message *message, int fd)
{
    if (message->offset != PV_LINK_OWN_MEMORY) {
        add_arena_resource(worker, message, PV_CONTEXT_USE_FOREIGN);
    } else if (worker->context) {
        if (fd < 0 && message->result == 0)
            warn_blob(message, "be imported", -EMFILE);
        int ret = pv_context_import_resource(worker->context, message->res_id, fd, message->size);
        if (ret == 0)
            return;
        if (ret != -EIO)
            warn_blob(message, "be imported", ret);
    }
    if (fd >= 0)
        close(fd);
}

/* A resource that is known is told of when its last user has let go. */
static void forget(struct pv_gpu_worker *worker, const struct pv_link_message *message)
{
    if (!worker->context || pv_context_unref_resource(worker->context, message->res_id) < 0)
        tell_forgotten(worker, message->res_id, message->offset);
}

static void pong(struct pv_gpu_worker *worker, const struct pv_link_message *message)
{
    const struct pv_link_message answer = {.type = PV_LINK_PONG, .cookie = message->cookie};
    tell(worker, &answer, NULL, -1);
}

static void handle(struct pv_gpu_worker *worker, const struct pv_link_message *message,
                   const void *payload, int fd)
{
    pv_trace("message %u, resource %u, %u bytes", message->type, message->res_id,
             message->payload_size);
    switch (message->type) {
    case PV_LINK_SUBMIT:
        if (worker->context)
            pv_context_submit(worker->context, payload, message->payload_size);
        break;
    case PV_LINK_FENCE:
        create_fence(worker, message);
        break;
    case PV_LINK_CREATE_BLOB:
        create_blob(worker, message);
        break;
    case PV_LINK_IMPORT:
        import(worker, message, fd);
        return; /* with the fd */
    case PV_LINK_FORGET:
        forget(worker, message);
        break;
    case PV_LINK_PING:
        pong(worker, message);
        break;
    default: /* the link lets nothing else through */
        break;
    }
    if (fd >= 0)
        close(fd);
}

/* ---- the loop ---- */

/* Most fences are done in a moment, and the next message is often under way: handing fences to a
 * thread, or sleeping, costs more than looking again. */
static int receive(struct pv_gpu_worker *worker, struct pv_link_message *message,
                   const void **payload, int *fd)
{
    uint64_t start = pv_now_ns();
    for (;;) {
        int ret = pv_link_try_receive(worker->link, message, payload, fd);
        if (ret != 0)
            return ret;
        if (!worker->context || !pv_context_poll_fences(worker->context))
            break;
        if (pv_now_ns() - start >= FENCE_POLL_NS) {
            pv_context_arm_fences(worker->context);
            break;
        }
        sched_yield();
    }
    return pv_link_receive(worker->link, message, payload, fd);
}

int pv_gpu_worker_run(struct pv_gpu_worker *worker)
{
    int ret = 0;
    while (!atomic_load(&worker->stopped)) {
        struct pv_link_message message;
        const void *payload;
        int fd;
        ret = receive(worker, &message, &payload, &fd);
        if (ret < 0)
            break;
        if (worker->context)
            pv_context_hint(worker->context); /* an idle ring may find its work meanwhile */
        handle(worker, &message, payload, fd);
        if (worker->context)
            pv_context_settle(worker->context);
    }
    pv_gpu_worker_poison(worker);
    return ret == -EPIPE || atomic_load(&worker->stopped) ? 0 : ret;
}

/* ---- life ---- */

static void create_context(struct pv_gpu_worker *worker)
{
    const struct pv_context_params params = {
        .id = worker->params.ctx_id,
        .name = worker->params.name,
        .caps = worker->params.caps,
        .device_index = worker->params.device_index,
        .offer_dma_buf = true, /* the guest's kernel makes real ones of blobs */
        .arena = worker->params.arena_fd >= 0,
        .activity = worker->activity,
        .polls_fences = true,
        .fence_signalled = fence_signalled,
        .failed = context_failed,
        .ring_changed = ring_changed,
        .resource_released = resource_released,
        .abandoned = device_gone,
        .data = worker,
    };
    int ret = pv_context_create(&params, &worker->context);
    if (ret == 0) {
        atomic_store(&worker->signal_context, worker->context);
        return;
    }
    char reason[128];
    snprintf(reason, sizeof(reason), "cannot create a context: %s", strerror(-ret));
    context_failed(worker, reason);
}

/* Without it only the figures are missing. */
static void map_activity(struct pv_gpu_worker *worker)
{
    void *map;
    int fd = worker->params.activity_fd;
    int ret = fd < 0 ? 0 : pv_shm_map(fd, sizeof(*worker->activity), &map);
    if (ret < 0)
        pv_warn("cannot share what it does: %s", strerror(-ret));
    else if (fd >= 0)
        worker->activity = map;
    worker->params.activity_fd = -1;
}

int pv_gpu_worker_create(const struct pv_gpu_worker_params *params, struct pv_gpu_worker **out)
{
    struct pv_gpu_worker *worker = calloc(1, sizeof(*worker));
    if (!worker)
        return -ENOMEM;
    worker->params = *params;
    worker->late_end = &worker->late;
    int ret = pv_link_create(params->link_fd, true, &worker->link);
    if (ret < 0) {
        free(worker);
        return ret;
    }
    pthread_mutex_init(&worker->fence_lock, NULL);
    map_activity(worker);
    create_context(worker);
    *out = worker;
    return 0;
}

void pv_gpu_worker_destroy(struct pv_gpu_worker *worker)
{
    if (!worker)
        return;
    atomic_store(&worker->signal_context, NULL);
    pv_context_destroy(worker->context); /* first: its threads use the rest */
    while (worker->late) {
        struct late_fence *next = worker->late->next;
        free(worker->late);
        worker->late = next;
    }
    if (worker->activity)
        pv_shm_unmap(worker->activity, sizeof(*worker->activity));
    pv_link_destroy(worker->link);
    pthread_mutex_destroy(&worker->fence_lock);
    free(worker);
}

void pv_gpu_worker_stop(struct pv_gpu_worker *worker)
{
    atomic_store(&worker->stopped, true);
    pv_gpu_worker_poison(worker);
    shutdown(pv_link_fd(worker->link), SHUT_RD); /* wakes receive; what was said still goes out */
}

void pv_gpu_worker_poison(struct pv_gpu_worker *worker)
{
    struct pv_context *context = atomic_load(&worker->signal_context);
    if (context)
        pv_context_poison(context);
}

/* ---- the process ---- */

static void on_crash(void *data)
{
    pv_gpu_worker_poison(data);
}

static void on_stop(void *data)
{
    pv_gpu_worker_stop(data);
}

void pv_gpu_worker_main(const struct pv_gpu_worker_params *params, pid_t parent)
{
    char prefix[96];
    const int keep[] = {params->link_fd, params->arena_fd, params->activity_fd};
    const struct pv_process_params process = {
        .log_prefix = prefix,
        .keep_fds = keep,
        .keep_count = sizeof(keep) / sizeof(keep[0]),
        .parent = parent,
    };
    snprintf(prefix, sizeof(prefix), "context %u (%s): ", params->ctx_id, params->name);
    pv_process_begin(&process);
    pv_thread_set_name("pv-context");

    struct pv_gpu_worker *worker;
    int ret = pv_gpu_worker_create(params, &worker);
    if (ret < 0) {
        pv_error("cannot serve: %s", strerror(-ret));
        _exit(PV_GPU_WORKER_FAILED);
    }
    if (params->activity_fd >= 0)
        close(params->activity_fd);
    const struct pv_process_handlers handlers = {on_crash, on_stop, worker};
    pv_process_handle_signals(&handlers);
    ret = pv_gpu_worker_run(worker);
    if (ret < 0)
        pv_error("the link to the device is broken: %s", strerror(-ret));
    pv_process_forget_handlers();
    pv_gpu_worker_destroy(worker);
    if (params->arena_fd >= 0)
        close(params->arena_fd);
    pv_process_end(ret == 0 ? 0 : PV_GPU_WORKER_FAILED);
}
