#include "link_context.h"

#include "unit/unit.h"
#include "util/os.h"
#include "worker/gpu_worker.h"
#include "worker/link.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define BLOBS_MAX 64
#define SHM_MAX   16

struct range {
    uint32_t res_id;
    uint64_t offset, size;
};

static struct {
    struct pv_context_params params;
    struct pv_link *link;
    struct pv_gpu_worker *worker;
    pthread_t worker_thread, reader;
    int arena_fd;
    uint64_t arena_used;
    struct range ranges[BLOBS_MAX + SHM_MAX];
    unsigned range_count;
    uint64_t reply_bytes;

    pthread_mutex_t lock; /* for what the reader hears */
    pthread_cond_t heard;
    uint64_t pings, pongs;
    bool failed;
} device = {.lock = PTHREAD_MUTEX_INITIALIZER, .heard = PTHREAD_COND_INITIALIZER};

struct link_seen link_seen;
static struct link_blob expected[BLOBS_MAX];
static unsigned expected_count;

void link_context_expect(const struct link_blob *blobs, unsigned count)
{
    assert_true(count <= BLOBS_MAX);
    memcpy(expected, blobs, count * sizeof(*blobs));
    expected_count = count;
}

/* ---- the device's ear ---- */

static void hear_failed(const void *payload, uint32_t size)
{
    char reason[256] = "";
    memcpy(reason, payload, size < sizeof(reason) - 1 ? size : sizeof(reason) - 1);
    device.params.failed(device.params.data, reason);
}

static void check_forgotten(const struct pv_link_message *message)
{
    for (unsigned i = 0; i < device.range_count; i++) {
        if (device.ranges[i].res_id == message->res_id)
            assert_int_equal(message->offset, device.ranges[i].offset);
    }
    link_seen.forgotten++;
}

static void hear(const struct pv_link_message *message, const void *payload)
{
    pthread_mutex_lock(&device.lock);
    switch (message->type) {
    case PV_LINK_FENCE_DONE:
        device.params.fence_signalled(device.params.data, message->ring_idx, message->cookie);
        break;
    case PV_LINK_FAILED:
        device.failed = true;
        hear_failed(payload, message->payload_size);
        break;
    case PV_LINK_FORGOTTEN:
        check_forgotten(message);
        break;
    case PV_LINK_RING:
        link_seen.rings += message->flags;
        link_seen.rings_alive += message->flags ? 1u : -1u;
        break;
    case PV_LINK_BLOB_DONE: /* of shared memory */
        assert_int_equal(message->result, 0);
        break;
    case PV_LINK_PONG:
        device.pongs = message->cookie;
        break;
    default:
        fail_msg("message %u", message->type);
    }
    pthread_cond_broadcast(&device.heard);
    pthread_mutex_unlock(&device.lock);
}

static void *reader_main(void *data)
{
    for (;;) {
        struct pollfd poll_fd = {.fd = pv_link_fd(device.link), .events = POLLIN};
        struct pv_link_message message;
        const void *payload;
        int fd, ret = pv_link_receive(device.link, &message, &payload, &fd);
        if (ret < 0)
            return NULL;
        if (ret == 0)
            poll(&poll_fd, 1, -1);
        else
            hear(&message, payload);
    }
}

static void *worker_main(void *data)
{
    link_seen.result = pv_gpu_worker_run(device.worker);
    return NULL;
}

static void say(struct pv_link_message message, const void *payload)
{
    assert_int_equal(pv_link_send(device.link, &message, payload, -1), 0);
    while (pv_link_backlog(device.link) > 0)
        assert_int_equal(pv_link_flush(device.link), 0);
}

/* Everything said so far has been executed. */
static void settle(void)
{
    say((struct pv_link_message){.type = PV_LINK_PING, .cookie = ++device.pings}, NULL);
    pthread_mutex_lock(&device.lock);
    while (device.pongs < device.pings)
        pthread_cond_wait(&device.heard, &device.lock);
    pthread_mutex_unlock(&device.lock);
}

/* ---- in place of the context ---- */

/* A place in the arena, a page after the last, and the resource there. */
static void add_resource(uint32_t res_id, uint64_t blob_id, uint64_t size)
{
    struct range *range = &device.ranges[device.range_count++];
    size = pv_align_up(size, pv_page_size());
    *range = (struct range){res_id, device.arena_used, size};
    device.arena_used += size + pv_page_size();
    assert_true(device.arena_used <= LINK_ARENA_SIZE);
    link_seen.resources++;
    say(
        (struct pv_link_message){
            .type = PV_LINK_CREATE_BLOB,
            .res_id = res_id,
            .blob_id = blob_id,
            .size = size,
            .offset = range->offset,
            .flags = PV_BLOB_MAPPABLE,
        },
        NULL);
}

int link_context_create(const struct pv_context_params *params, struct pv_context **out)
{
    int fds[2];
    memset(&link_seen, 0, sizeof(link_seen));
    device.params = *params;
    device.arena_used = 1 << 20;
    device.range_count = 0;
    device.pings = device.pongs = device.reply_bytes = 0;
    device.failed = false;
    assert_int_equal(pv_shm_create("arena", LINK_ARENA_SIZE, &device.arena_fd), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    assert_int_equal(pv_link_create(fds[0], false, &device.link), 0);
    const struct pv_gpu_worker_params worker = {
        .link_fd = fds[1],
        .arena_fd = device.arena_fd,
        .ctx_id = params->id,
        .name = params->name,
        .caps = params->caps,
        .device_index = params->device_index,
    };
    assert_int_equal(pv_gpu_worker_create(&worker, &device.worker), 0);
    assert_int_equal(pthread_create(&device.worker_thread, NULL, worker_main, NULL), 0);
    assert_int_equal(pthread_create(&device.reader, NULL, reader_main, NULL), 0);
    for (unsigned i = 0; i < expected_count; i++)
        add_resource(expected[i].res_id, expected[i].blob_id, expected[i].size);
    *out = (struct pv_context *)(void *)&device;
    return 0;
}

static bool is_written(const struct range *range)
{
    uint8_t *map = NULL;
    bool written = false;
    void *mapping;
    assert_int_equal(pv_shm_map_part(device.arena_fd, range->offset, range->size, &mapping), 0);
    map = mapping;
    for (uint64_t i = 0; i < range->size && !written; i++)
        written = map[i] != 0;
    pv_shm_unmap(mapping, range->size);
    return written;
}

/* Nothing may be written between what was handed out. */
static void check_gaps(void)
{
    for (unsigned i = 0; i < device.range_count; i++) {
        const struct range *range = &device.ranges[i];
        const struct range gap = {.offset = range->offset + range->size, .size = pv_page_size()};
        assert_false(is_written(&gap));
        link_seen.written += i < expected_count && is_written(range);
    }
}

void link_context_destroy(struct pv_context *ctx)
{
    for (unsigned i = 0; i < device.range_count; i++)
        say((struct pv_link_message){.type = PV_LINK_FORGET, .res_id = device.ranges[i].res_id},
            NULL);
    settle();
    check_gaps();
    shutdown(pv_link_fd(device.link), SHUT_RDWR); /* wakes the reader, too */
    pthread_join(device.reader, NULL);
    pthread_join(device.worker_thread, NULL);
    pv_gpu_worker_destroy(device.worker);
    pv_link_destroy(device.link);
    close(device.arena_fd);
    expected_count = 0;
}

int link_context_submit(struct pv_context *ctx, const void *commands, size_t size)
{
    say((struct pv_link_message){.type = PV_LINK_SUBMIT, .payload_size = (uint32_t)size}, commands);
    settle();
    return device.failed ? -EIO : 0;
}

int link_context_create_blob(struct pv_context *ctx, uint32_t res_id, uint64_t blob_id,
                             uint64_t size, uint32_t blob_flags, int *out_fd)
{
    if (blob_id == 0) /* else it was there before its memory */
        add_resource(res_id, blob_id, size);
    *out_fd = dup(device.arena_fd);
    return *out_fd < 0 ? -errno : 0;
}

int link_context_create_fence(struct pv_context *ctx, uint32_t ring_idx, uint64_t cookie)
{
    say((struct pv_link_message){.type = PV_LINK_FENCE, .ring_idx = ring_idx, .cookie = cookie},
        NULL);
    return 0;
}

void link_context_get_stats(struct pv_context *ctx, struct pv_context_stats *out)
{
    device.reply_bytes += 8;
    *out = (struct pv_context_stats){.reply_bytes = device.reply_bytes};
}

int link_context_map(int fd, uint64_t size, void **out)
{
    const struct range *range = &device.ranges[device.range_count - 1];
    return pv_shm_map_part(fd, range->offset, size, out);
}
