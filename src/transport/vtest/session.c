#include "transport/vtest/session.h"

#include "transport/vtest/connection.h"
#include "transport/vtest/id_table.h"
#include "transport/vtest/protocol.h"
#include "transport/vtest/sync.h"
#include "util/log.h"
#include "util/os.h"
#include "venus/capset.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define PV_LOG_MODULE "vtest"

/* Blobs alive at a time. Mesa makes one for each mapped VkDeviceMemory, of which drivers allow 4096
 * and more, and a few for itself. */
#define RESOURCES_MAX 65536
/* No GPU has more memory than this, so a larger blob is a mistake. */
#define BLOB_SIZE_MAX (UINT64_C(1) << 40)
/* Shared memory that is not device memory: rings, replies, command pools. Mesa takes it in pieces
 * of 1 and 8 MiB and reuses them. */
#define SHM_TOTAL_MAX (UINT64_C(4) << 30)
/* Batches in one SUBMIT_CMD2; Venus sends one. */
#define BATCHES_MAX 64

/* How long new fences are looked at before a thread waits for them. */
#define FENCE_POLL_NS 60000
/* And while the client waits for an answer, which keeps its other threads off the socket. */
#define WAIT_POLL_NS 30000

struct resource {
    uint64_t size;
    int fd;          /* owned; kept for RESOURCE_EXPORT_FD if the blob is shareable, else -1 */
    bool is_shm;     /* counts against SHM_TOTAL_MAX */
    bool in_context; /* false: a dummy that the context knows nothing of */
};

struct pv_session {
    struct pv_session_params params;
    struct pv_connection connection;
    char name[64];
    bool renderer_created;
    uint32_t version; /* agreed; 0 before */
    struct pv_context *context;
    /* The same for signal handlers, which may come while it is being made or destroyed. */
    struct pv_context *_Atomic signal_context;
    struct pv_sync_table *syncs;
    struct pv_id_table resources;
    uint64_t shm_total;
    struct pv_sync_point *points; /* owned scratch, reused */
    size_t point_room;
    uint64_t longest_message_ns;

    atomic_bool stopped;  /* pv_session_stop() was called */
    pthread_mutex_t lock; /* guards the two below: the context may fail on any thread */
    enum pv_session_end end;
    char reason[256];
};

/* ---- endings ---- */

/* The first reason counts: what follows from it is noise. */
static bool set_end(struct pv_session *session, enum pv_session_end end, const char *reason)
{
    pthread_mutex_lock(&session->lock);
    bool first = session->end == PV_SESSION_CLOSED;
    if (first) {
        session->end = end;
        snprintf(session->reason, sizeof(session->reason), "%s", reason);
    }
    pthread_mutex_unlock(&session->lock);
    return first;
}

static enum pv_session_end get_end(struct pv_session *session)
{
    pthread_mutex_lock(&session->lock);
    enum pv_session_end end = session->end;
    pthread_mutex_unlock(&session->lock);
    return end;
}

static int end_with(struct pv_session *session, enum pv_session_end end, const char *format,
                    va_list args)
{
    char reason[sizeof(session->reason)];
    vsnprintf(reason, sizeof(reason), format, args);
    if (set_end(session, end, reason))
        pv_error("%s; connection closed", reason);
    return -EPROTO;
}

/* The client broke the protocol. Returns -EPROTO, which ends the loop. */
__attribute__((format(printf, 2, 3))) static int reject(struct pv_session *session,
                                                        const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int ret = end_with(session, PV_SESSION_BAD_INPUT, format, args);
    va_end(args);
    return ret;
}

/* The host has run out of something. */
__attribute__((format(printf, 2, 3))) static int give_up(struct pv_session *session,
                                                         const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int ret = end_with(session, PV_SESSION_HOST_ERROR, format, args);
    va_end(args);
    return ret;
}

/* Callback of the context, any thread. Its rings are FATAL already. */
static void context_failed(void *data, const char *reason)
{
    struct pv_session *session = data;
    if (set_end(session, PV_SESSION_CONTEXT_FAILED, reason))
        pv_error("%s; client stopped", reason);
    pv_connection_stop(session->params.fd);
}

/* Callback of the context, timeline threads. */
static void fence_signalled(void *data, uint32_t ring_idx, uint64_t cookie)
{
    struct pv_session *session = data;
    pv_sync_table_fence_signal(session->syncs, cookie);
}

/* Callback of the context, during a long wait on our own thread: nobody needs its result. */
static bool client_gone(void *data)
{
    struct pv_session *session = data;
    struct pollfd poll_fd = {.fd = session->params.fd};
    if (atomic_load(&session->stopped))
        return true;
    return poll(&poll_fd, 1, 0) > 0 && (poll_fd.revents & (POLLHUP | POLLERR));
}

/* Callback of the connection: bytes have come in. */
static void look_at_idle_rings(void *data)
{
    struct pv_session *session = data;
    if (session->context)
        pv_context_hint(session->context);
}

/* Callback of the connection: the client says nothing. Fences that it will ask for are mostly done
 * in a moment; handing them to a thread costs more than that. */
static bool look_at_fences(void *data, uint64_t waited_ns)
{
    struct pv_session *session = data;
    if (!session->context || !pv_context_poll_fences(session->context))
        return false;
    if (waited_ns < FENCE_POLL_NS)
        return true;
    pv_context_arm_fences(session->context);
    return false;
}

/* ---- small helpers ---- */

static uint32_t word(const struct pv_message *message, size_t index)
{
    uint32_t value;
    memcpy(&value, (const uint8_t *)message->payload + index * 4, sizeof(value));
    return value;
}

static uint64_t word64(const struct pv_message *message, size_t index)
{
    return word(message, index) | (uint64_t)word(message, index + 1) << 32;
}

static int reply(struct pv_session *session, const struct pv_message *message,
                 const uint32_t *words, uint32_t word_count)
{
    return pv_connection_reply(&session->connection, message->command, words, word_count);
}

static int reply_fd(struct pv_session *session, const struct pv_message *message,
                    const uint32_t *words, uint32_t word_count, int fd)
{
    return pv_connection_reply_fd(&session->connection, message->command, words, word_count, fd);
}

/* Turn what the sync table said into an end of the session; 0 stays 0. */
static int check_sync_result(struct pv_session *session, int ret, const char *what, uint32_t id)
{
    switch (ret) {
    case 0:
        return 0;
    case -ENOENT:
        return reject(session, "%s: there is no sync %u", what, id);
    case -ENOSPC:
        return reject(session, "%s: too many syncs or waits at a time", what);
    default:
        return give_up(session, "%s: %s", what, strerror(-ret));
    }
}

/* ---- handshake ---- */

static int create_renderer(struct pv_session *session, const struct pv_message *message)
{
    if (session->renderer_created)
        return reject(session, "CREATE_RENDERER came twice");

    size_t size = strnlen(message->payload, message->size);
    if (size >= sizeof(session->name))
        size = sizeof(session->name) - 1;
    memcpy(session->name, message->payload, size);
    session->name[size] = '\0';
    for (size_t i = 0; i < size; i++) {
        if (session->name[i] < ' ' || session->name[i] > '~')
            session->name[i] = '?'; /* it goes to logs and terminals */
    }
    session->renderer_created = true;
    if (session->params.named)
        session->params.named(session->params.data, session->name);
    return 0;
}

static int ping_protocol_version(struct pv_session *session, const struct pv_message *message)
{
    return reply(session, message, NULL, 0);
}

static int protocol_version(struct pv_session *session, const struct pv_message *message)
{
    if (session->context)
        return reject(session, "PROTOCOL_VERSION came after CONTEXT_INIT");

    uint32_t version = word(message, 0);
    if (version > PV_VTEST_VERSION_MAX)
        version = PV_VTEST_VERSION_MAX;
    if (version == 1)
        version = 0; /* 1 existed for a short time only, and counts as none */
    if (session->params.refuse) {
        set_end(session, PV_SESSION_REFUSED, "too many clients");
        version = 0;
    }
    session->version = version;
    return reply(session, message, &version, 1);
}

static int get_param(struct pv_session *session, const struct pv_message *message)
{
    uint32_t words[2] = {0, 0};
    if (word(message, 0) == PV_VTEST_PARAM_MAX_TIMELINE_COUNT) {
        words[0] = 1;
        words[1] = PV_CONTEXT_TIMELINE_COUNT;
    }
    return reply(session, message, words, 2);
}

static int get_capset(struct pv_session *session, const struct pv_message *message)
{
    uint32_t words[1 + PV_CAPSET_VENUS_SIZE / 4] = {0};
    if (word(message, 0) != PV_CAPSET_VENUS || word(message, 1) != 0)
        return reply(session, message, words, 1);

    uint8_t capset[PV_CAPSET_VENUS_SIZE];
    pv_capset_fill(capset, false);
    words[0] = 1;
    memcpy(words + 1, capset, sizeof(capset));
    return reply(session, message, words, 1 + PV_CAPSET_VENUS_SIZE / 4);
}

static bool offer_dma_buf(const struct pv_session *session)
{
    switch (session->params.wsi) {
    case PV_WSI_DMA_BUF:
        return true;
    case PV_WSI_SHM:
        return false;
    default:
        /* version 3 is Mesa before 26, whose only way to present is a dma-buf */
        return session->version < 4;
    }
}

static int context_init(struct pv_session *session, const struct pv_message *message)
{
    if (session->context)
        return reject(session, "CONTEXT_INIT came twice");
    if (word(message, 0) != PV_CAPSET_VENUS)
        return reject(session, "CONTEXT_INIT for capset %u; only Venus (%u) is served",
                      word(message, 0), PV_CAPSET_VENUS);

    const struct pv_context_params params = {
        .id = session->params.id,
        .name = session->name,
        .caps = session->params.caps,
        .device_index = session->params.device_index,
        .offer_dma_buf = offer_dma_buf(session),
        .fence_signalled = fence_signalled,
        .failed = context_failed,
        .abandoned = client_gone,
        .polls_fences = true,
        .data = session,
    };
    int ret = pv_context_create(&params, &session->context);
    if (ret < 0)
        return give_up(session, "cannot create a context: %s", strerror(-ret));
    atomic_store(&session->signal_context, session->context);
    return 0;
}

/* ---- resources ---- */

static void free_resource(struct pv_session *session, struct resource *resource)
{
    if (resource->is_shm)
        session->shm_total -= resource->size;
    if (resource->fd >= 0)
        close(resource->fd);
    free(resource);
}

/* Let the context make the blob. If it cannot, the client gets zeroed memory of that size that
 * nothing else sees: the protocol has no error reply, and a client without an answer hangs. */
static int make_blob(struct pv_session *session, struct resource *resource, uint32_t res_id,
                     uint64_t blob_id, uint32_t flags)
{
    int fd = -1;
    int ret = pv_context_create_blob(session->context, res_id, blob_id, resource->size, flags, &fd);
    if (ret == 0) {
        resource->in_context = true;
        return fd;
    }
    if (ret != -EIO) /* a failed context has said so already */
        pv_log_limited(PV_LOG_WARN, 5,
                       "blob of memory %#llx, %llu bytes, flags %#x, cannot be made (%s); the "
                       "client gets a dummy",
                       (unsigned long long)blob_id, (unsigned long long)resource->size, flags,
                       strerror(-ret));
    ret = pv_shm_create("pearvisor-dummy", resource->size, &fd);
    return ret < 0 ? ret : fd;
}

static int check_blob(struct pv_session *session, const struct pv_message *message)
{
    uint32_t type = word(message, 0), flags = word(message, 1);
    uint64_t size = word64(message, 2), blob_id = word64(message, 4);

    if (type != PV_VTEST_BLOB_TYPE_HOST3D)
        return reject(session, "RESOURCE_CREATE_BLOB of type %u; only HOST3D (%u) is served", type,
                      PV_VTEST_BLOB_TYPE_HOST3D);
    if (flags & ~(PV_BLOB_MAPPABLE | PV_BLOB_SHAREABLE | PV_BLOB_CROSS_DEVICE))
        return reject(session, "RESOURCE_CREATE_BLOB with unknown flags %#x", flags);
    if (size == 0 || size > BLOB_SIZE_MAX)
        return reject(session, "RESOURCE_CREATE_BLOB of %llu bytes", (unsigned long long)size);
    if (blob_id == 0 && size > SHM_TOTAL_MAX - session->shm_total)
        return reject(
            session,
            "RESOURCE_CREATE_BLOB of %llu bytes of shared memory on top of %llu; a client "
            "may have %llu",
            (unsigned long long)size, (unsigned long long)session->shm_total,
            (unsigned long long)SHM_TOTAL_MAX);
    return 0;
}

static int resource_create_blob(struct pv_session *session, const struct pv_message *message)
{
    int ret = check_blob(session, message);
    if (ret < 0)
        return ret;

    struct resource *resource = malloc(sizeof(*resource));
    if (!resource)
        return give_up(session, "RESOURCE_CREATE_BLOB: out of memory");
    uint32_t res_id, flags = word(message, 1);
    uint64_t blob_id = word64(message, 4);
    *resource = (struct resource){.size = word64(message, 2), .fd = -1, .is_shm = blob_id == 0};
    ret = pv_id_table_add(&session->resources, resource, &res_id);
    if (ret < 0) {
        free(resource);
        return ret == -ENOSPC ? reject(session, "more than %u resources", RESOURCES_MAX)
                              : give_up(session, "RESOURCE_CREATE_BLOB: out of memory");
    }
    if (resource->is_shm)
        session->shm_total += resource->size;

    int fd = make_blob(session, resource, res_id, blob_id, flags);
    if (fd < 0)
        return give_up(session,
                       "RESOURCE_CREATE_BLOB: no memory even for a dummy of %llu bytes: %s",
                       (unsigned long long)resource->size, strerror(-fd));
    ret = reply_fd(session, message, &res_id, 1, fd);
    if (flags & PV_BLOB_SHAREABLE)
        resource->fd = fd;
    else
        close(fd);
    return ret;
}

static int resource_unref(struct pv_session *session, const struct pv_message *message)
{
    uint32_t res_id = word(message, 0);
    struct resource *resource = pv_id_table_remove(&session->resources, res_id);
    if (!resource)
        return reject(session, "RESOURCE_UNREF: there is no resource %u", res_id);
    if (resource->in_context)
        pv_context_unref_resource(session->context, res_id);
    free_resource(session, resource);
    return 0;
}

static int resource_busy_wait(struct pv_session *session, const struct pv_message *message)
{
    /* Venus asks with handle 0, to hear whether anybody answers; its own waits are syncs. */
    const uint32_t not_busy = 0;
    return reply(session, message, &not_busy, 1);
}

static int resource_export_fd(struct pv_session *session, const struct pv_message *message)
{
    uint32_t res_id = word(message, 0);
    const struct resource *resource = pv_id_table_get(&session->resources, res_id);
    if (!resource)
        return reject(session, "RESOURCE_EXPORT_FD: there is no resource %u", res_id);
    if (resource->fd < 0)
        return reject(session, "RESOURCE_EXPORT_FD: resource %u was not made shareable", res_id);
    return reply_fd(session, message, NULL, 0, resource->fd);
}

/* ---- syncs ---- */

static int sync_create(struct pv_session *session, const struct pv_message *message)
{
    uint32_t id;
    int ret = pv_sync_table_add(session->syncs, word64(message, 0), &id);
    if (ret < 0)
        return check_sync_result(session, ret, "SYNC_CREATE", 0);
    return reply(session, message, &id, 1);
}

static int sync_unref(struct pv_session *session, const struct pv_message *message)
{
    uint32_t id = word(message, 0);
    return check_sync_result(session, pv_sync_table_unref(session->syncs, id), "SYNC_UNREF", id);
}

static int sync_read(struct pv_session *session, const struct pv_message *message)
{
    uint32_t id = word(message, 0);
    uint64_t value;
    if (session->context)
        pv_context_poll_fences(session->context);
    int ret = pv_sync_table_read(session->syncs, id, &value);
    if (ret < 0)
        return check_sync_result(session, ret, "SYNC_READ", id);
    const uint32_t words[2] = {(uint32_t)value, (uint32_t)(value >> 32)};
    return reply(session, message, words, 2);
}

static int sync_write(struct pv_session *session, const struct pv_message *message)
{
    uint32_t id = word(message, 0);
    int ret = pv_sync_table_write(session->syncs, id, word64(message, 1));
    return check_sync_result(session, ret, "SYNC_WRITE", id);
}

/* Copy `count` points of 3 words, which lie inside the message, to session->points. */
static int read_points(struct pv_session *session, const struct pv_message *message, size_t first,
                       size_t count)
{
    if (count > session->point_room) {
        struct pv_sync_point *points = realloc(session->points, count * sizeof(*points));
        if (!points)
            return give_up(session, "no memory for %zu syncs in one message", count);
        session->points = points;
        session->point_room = count;
    }
    for (size_t i = 0; i < count; i++) {
        session->points[i] = (struct pv_sync_point){
            .id = word(message, first + 3 * i),
            .value = word64(message, first + 3 * i + 1),
        };
    }
    return 0;
}

/* Which of the points made a call fail with -ENOENT; for messages. */
static uint32_t find_unknown_point(struct pv_session *session, size_t count)
{
    uint64_t value;
    for (size_t i = 0; i < count; i++) {
        if (pv_sync_table_read(session->syncs, session->points[i].id, &value) < 0)
            return session->points[i].id;
    }
    return 0;
}

static int sync_wait(struct pv_session *session, const struct pv_message *message)
{
    if ((message->length - 2) % 3 != 0)
        return reject(session, "SYNC_WAIT of %u words, which is no whole number of syncs",
                      message->length);
    size_t count = (message->length - 2) / 3;
    int ret = read_points(session, message, 2, count);
    if (ret < 0)
        return ret;

    /* The client sleeps on the fd, and waking it takes long: rather answer a little later with an
     * fd that is readable already. */
    uint64_t start = pv_now_ns();
    while (session->context && pv_context_poll_fences(session->context) &&
           pv_now_ns() - start < WAIT_POLL_NS)
        sched_yield();

    bool any = word(message, 0) & PV_VTEST_SYNC_WAIT_ANY;
    int fd;
    ret = pv_sync_table_wait(session->syncs, any, (int32_t)word(message, 1), session->points, count,
                             &fd);
    if (ret < 0)
        return check_sync_result(session, ret, "SYNC_WAIT", find_unknown_point(session, count));
    ret = reply_fd(session, message, NULL, 0, fd);
    close(fd);
    return ret;
}

/* ---- command streams ---- */

struct batch {
    uint32_t flags, command_offset, command_size, sync_offset, sync_count, ring_idx;
};

static bool words_are_inside(const struct pv_message *message, uint64_t offset, uint64_t count)
{
    return offset + count <= message->length;
}

static int check_batch(struct pv_session *session, const struct pv_message *message,
                       const struct batch *batch)
{
    if (batch->flags & (PV_VTEST_SUBMIT_IN_FENCE_FD | PV_VTEST_SUBMIT_OUT_FENCE_FD))
        return reject(session, "SUBMIT_CMD2 with fence fds, which this server does not pass");
    if (batch->flags & ~PV_VTEST_SUBMIT_RING_IDX)
        return reject(session, "SUBMIT_CMD2 with unknown flags %#x", batch->flags);
    if (!words_are_inside(message, batch->command_offset, batch->command_size))
        return reject(session, "SUBMIT_CMD2: commands at word %u + %u of a message of %u",
                      batch->command_offset, batch->command_size, message->length);
    if (!words_are_inside(message, batch->sync_offset, (uint64_t)batch->sync_count * 3))
        return reject(session, "SUBMIT_CMD2: %u syncs at word %u of a message of %u",
                      batch->sync_count, batch->sync_offset, message->length);
    if (batch->ring_idx >= PV_CONTEXT_TIMELINE_COUNT)
        return reject(session, "SUBMIT_CMD2: ring_idx %u; there are %u", batch->ring_idx,
                      PV_CONTEXT_TIMELINE_COUNT);
    return 0;
}

/* Run the commands; then set the syncs, or have a fence do it. A context that fails has told us by
 * its callback, so -EIO is no news here. */
static int run_batch(struct pv_session *session, const struct pv_message *message,
                     const struct batch *batch)
{
    bool on_timeline = batch->flags & PV_VTEST_SUBMIT_RING_IDX;
    uint64_t cookie = 0;
    int ret = read_points(session, message, batch->sync_offset, batch->sync_count);
    if (ret < 0)
        return ret;
    /* made first, so that unknown syncs are found before anything runs */
    ret = pv_sync_table_fence_create(session->syncs, session->points, batch->sync_count, &cookie);
    if (ret < 0)
        return check_sync_result(session, ret, "SUBMIT_CMD2",
                                 find_unknown_point(session, batch->sync_count));

    if (batch->command_size > 0)
        ret = pv_context_submit(session->context,
                                (const uint32_t *)message->payload + batch->command_offset,
                                (size_t)batch->command_size * 4);
    if (ret < 0)
        pv_sync_table_fence_cancel(session->syncs, cookie);
    else if (!on_timeline || batch->sync_count == 0)
        pv_sync_table_fence_signal(session->syncs, cookie);
    else if (pv_context_create_fence(session->context, batch->ring_idx, cookie) < 0)
        pv_sync_table_fence_cancel(session->syncs, cookie);
    return 0;
}

/* Clients of Mesa 25 send headers of 6 words, those of 26 send 8 even if they agreed to version 3.
 * The offsets inside say where everything is, so the size matters only from the second on. */
static int submit_cmd2(struct pv_session *session, const struct pv_message *message)
{
    const size_t short_header = 6, long_header = 8;
    bool has_long = session->version >= 4;
    uint32_t count = word(message, 0);

    if (count > BATCHES_MAX || (count > 1 && !has_long))
        return reject(session, "SUBMIT_CMD2 with %u batches", count);
    size_t header_words = count * (has_long ? long_header : short_header);
    if (!words_are_inside(message, 1, header_words))
        return reject(session, "SUBMIT_CMD2: %u words are too short for %u batch headers",
                      message->length, count);

    for (uint32_t i = 0; i < count; i++) {
        size_t at = 1 + i * long_header;
        const struct batch batch = {
            .flags = word(message, at),
            .command_offset = word(message, at + 1),
            .command_size = word(message, at + 2),
            .sync_offset = word(message, at + 3),
            .sync_count = word(message, at + 4),
            .ring_idx = word(message, at + 5),
        };
        if (has_long && (word(message, at + 6) || word(message, at + 7)))
            return reject(session, "SUBMIT_CMD2 with DRM sync objects, which are not served");
        int ret = check_batch(session, message, &batch);
        if (ret == 0)
            ret = run_batch(session, message, &batch);
        if (ret < 0)
            return ret;
    }
    return 0;
}

/* ---- dispatch ---- */

struct command {
    const char *name;
    uint32_t min_words; /* longer messages are fine: later versions append */
    uint32_t since;     /* protocol version that has it */
    bool needs_context;
    int (*handle)(struct pv_session *session, const struct pv_message *message);
};

static const struct command commands[] = {
    [PV_VTEST_RESOURCE_UNREF] = {"RESOURCE_UNREF", 1, 3, true, resource_unref},
    [PV_VTEST_RESOURCE_BUSY_WAIT] = {"RESOURCE_BUSY_WAIT", 2, 0, false, resource_busy_wait},
    [PV_VTEST_CREATE_RENDERER] = {"CREATE_RENDERER", 0, 0, false, create_renderer},
    [PV_VTEST_PING_PROTOCOL_VERSION] = {"PING_PROTOCOL_VERSION", 0, 0, false,
                                        ping_protocol_version},
    [PV_VTEST_PROTOCOL_VERSION] = {"PROTOCOL_VERSION", 1, 0, false, protocol_version},
    [PV_VTEST_GET_PARAM] = {"GET_PARAM", 1, 3, false, get_param},
    [PV_VTEST_GET_CAPSET] = {"GET_CAPSET", 2, 3, false, get_capset},
    [PV_VTEST_CONTEXT_INIT] = {"CONTEXT_INIT", 1, 3, false, context_init},
    [PV_VTEST_RESOURCE_CREATE_BLOB] = {"RESOURCE_CREATE_BLOB", 6, 3, true, resource_create_blob},
    [PV_VTEST_SYNC_CREATE] = {"SYNC_CREATE", 2, 3, true, sync_create},
    [PV_VTEST_SYNC_UNREF] = {"SYNC_UNREF", 1, 3, true, sync_unref},
    [PV_VTEST_SYNC_READ] = {"SYNC_READ", 1, 3, true, sync_read},
    [PV_VTEST_SYNC_WRITE] = {"SYNC_WRITE", 3, 3, true, sync_write},
    [PV_VTEST_SYNC_WAIT] = {"SYNC_WAIT", 2, 3, true, sync_wait},
    [PV_VTEST_SUBMIT_CMD2] = {"SUBMIT_CMD2", 1, 3, true, submit_cmd2},
    [PV_VTEST_RESOURCE_EXPORT_FD] = {"RESOURCE_EXPORT_FD", 1, 4, true, resource_export_fd},
};

static const struct command *find_command(uint32_t id)
{
    if (id >= sizeof(commands) / sizeof(commands[0]) || !commands[id].handle)
        return NULL;
    return &commands[id];
}

/* Strangers are told apart from clients before anything else of theirs is looked at. */
static int check_first(struct pv_session *session, const struct pv_message *message)
{
    if (session->renderer_created || message->command == PV_VTEST_CREATE_RENDERER)
        return 0;
    return reject(session,
                  "the first message is command %u, not CREATE_RENDERER; this is no vtest client",
                  message->command);
}

static int dispatch(struct pv_session *session, const struct pv_message *message)
{
    const struct command *command = find_command(message->command);
    const char *refused = pv_vtest_refused_name(message->command);

    if (refused)
        return reject(session, "%s is not served: no Venus client needs it", refused);
    if (!command)
        return reject(session, "unknown command %u", message->command);
    if (message->length < command->min_words)
        return reject(session, "%s of %u words; it has %u", command->name, message->length,
                      command->min_words);
    if (command->needs_context && !session->context)
        return reject(session, "%s came before CONTEXT_INIT", command->name);
    if (session->version < command->since)
        return reject(session, "%s belongs to protocol version %u; %u was agreed", command->name,
                      command->since, session->version);

    pv_trace("%s, %u words", command->name, message->length);
    uint64_t start = pv_now_ns();
    int ret = command->handle(session, message);
    uint64_t taken = pv_now_ns() - start;
    if (taken > session->longest_message_ns)
        session->longest_message_ns = taken;
    return ret;
}

static int receive_and_dispatch(struct pv_session *session)
{
    struct pv_message message;
    int ret = pv_connection_receive(&session->connection, &message);
    if ((ret == 1 || ret == -EMSGSIZE) && check_first(session, &message) < 0)
        return -EPROTO;
    if (ret == -EMSGSIZE)
        return reject(session, "message of %u words for command %u; at most %u bytes are taken",
                      message.length, message.command, PV_CONNECTION_PAYLOAD_MAX);
    if (ret == -ENOMEM)
        return give_up(session, "no memory for a message");
    if (ret <= 0) {
        pv_debug("connection ended: %s", ret == 0 ? "closed" : strerror(-ret));
        return -ECONNRESET;
    }
    ret = dispatch(session, &message);
    if (session->context)
        pv_context_settle(session->context);
    return ret;
}

/* ---- public ---- */

int pv_session_create(const struct pv_session_params *params, struct pv_session **out)
{
    struct pv_session *session = calloc(1, sizeof(*session));
    if (!session)
        return -ENOMEM;
    session->params = *params;
    snprintf(session->name, sizeof(session->name), "?");
    pthread_mutex_init(&session->lock, NULL);
    pv_id_table_init(&session->resources, RESOURCES_MAX);

    int ret = pv_connection_init(&session->connection, params->fd);
    if (ret < 0)
        goto err_free;
    session->connection.woken = look_at_idle_rings;
    session->connection.before_sleep = look_at_fences;
    session->connection.data = session;
    ret = pv_sync_table_create(&session->syncs);
    if (ret < 0)
        goto err_connection;
    *out = session;
    return 0;

err_connection:
    pv_connection_finish(&session->connection);
err_free:
    pthread_mutex_destroy(&session->lock);
    free(session);
    return ret;
}

void pv_session_destroy(struct pv_session *session)
{
    if (!session)
        return;
    atomic_store(&session->signal_context, NULL);
    pv_context_destroy(session->context); /* first: its threads use the syncs */

    uint32_t cursor = 0;
    for (struct resource *resource; (resource = pv_id_table_walk(&session->resources, &cursor));)
        free_resource(session, resource);
    pv_id_table_finish(&session->resources);
    pv_sync_table_destroy(session->syncs);
    pv_connection_finish(&session->connection);
    free(session->points);
    pthread_mutex_destroy(&session->lock);
    free(session);
}

enum pv_session_end pv_session_run(struct pv_session *session)
{
    while (receive_and_dispatch(session) == 0)
        continue;

    if (atomic_load(&session->stopped))
        set_end(session, PV_SESSION_STOPPED, "server is stopping");
    enum pv_session_end end = get_end(session);
    /* In this order: a client that finds its socket closed looks at its ring next. */
    if (end != PV_SESSION_CLOSED)
        pv_session_poison(session);
    shutdown(session->params.fd, SHUT_RDWR);
    return end;
}

const char *pv_session_reason(const struct pv_session *session)
{
    return session->reason;
}

const char *pv_session_name(const struct pv_session *session)
{
    return session->name;
}

void pv_session_get_stats(struct pv_session *session, struct pv_session_stats *out)
{
    *out = (struct pv_session_stats){
        .messages = session->connection.messages,
        .message_bytes = session->connection.bytes_received,
        .replies = session->connection.replies,
        .reply_bytes = session->connection.bytes_sent,
        .longest_message_ns = session->longest_message_ns,
    };
    if (session->context)
        pv_context_get_stats(session->context, &out->context);
}

void pv_session_stop(struct pv_session *session)
{
    atomic_store(&session->stopped, true);
    pv_session_poison(session);
    pv_connection_stop(session->params.fd);
}

void pv_session_poison(struct pv_session *session)
{
    struct pv_context *context = atomic_load(&session->signal_context);
    if (context)
        pv_context_poison(context);
    pv_sync_table_wake_all(session->syncs);
}
