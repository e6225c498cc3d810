#include "harness.h"

#include "null/null_driver.h"
#include "util/os.h"
#include "venus/protocol.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A wait on the context thread that takes longer is given up, as when the guest has gone. */
#define PATIENCE_NS 20000000ull

static struct pv_host_caps caps;

struct guest {
    struct pv_context *ctx;
    uint8_t *replies; /* mapping of FUZZ_REPLY_RESOURCE */
    atomic_uint failures;
    char reason[256];
    uint64_t deadline_ns;
};

static struct guest bystander;

static void check_failed(const char *what, const struct fuzz_run *run, const char *detail)
{
    fprintf(stderr, "fuzz: FAILED: %s%s%s\n", what, detail ? ": " : "", detail ? detail : "");
    for (size_t i = 0; run && i < run->count; i++) {
        fprintf(stderr, "V ? ");
        for (size_t k = 0; k < run->messages[i].size; k++)
            fprintf(stderr, "%02x", run->messages[i].data[k]);
        fprintf(stderr, "\n");
    }
    abort();
}

static void on_fence(void *data, uint32_t ring_idx, uint64_t cookie)
{
}

static void on_failed(void *data, const char *reason)
{
    struct guest *guest = data;
    snprintf(guest->reason, sizeof(guest->reason), "%s", reason);
    atomic_fetch_add(&guest->failures, 1);
}

static bool is_late(void *data)
{
    struct guest *guest = data;
    return pv_now_ns() > guest->deadline_ns;
}

static uint8_t *make_resource(struct guest *guest, uint32_t id, uint64_t size)
{
    int fd = -1;
    void *map = NULL;
    if (pv_context_create_blob(guest->ctx, id, 0, size, PV_BLOB_MAPPABLE, &fd) < 0 ||
        pv_shm_map(fd, size, &map) < 0)
        check_failed("no shared memory", NULL, strerror(errno));
    close(fd);
    return map;
}

static void open_guest(struct guest *guest, const struct fuzz_message *stream)
{
    *guest = (struct guest){.deadline_ns = pv_now_ns() + PATIENCE_NS};
    const struct pv_context_params params = {
        .id = 1,
        .name = "fuzz",
        .caps = &caps,
        .offer_dma_buf = true,
        .fence_signalled = on_fence,
        .failed = on_failed,
        .abandoned = is_late,
        .data = guest,
    };
    if (pv_context_create(&params, &guest->ctx) < 0)
        check_failed("no context", NULL, NULL);
    pv_shm_unmap(make_resource(guest, FUZZ_RING_RESOURCE, FUZZ_RING_SIZE), FUZZ_RING_SIZE);
    guest->replies = make_resource(guest, FUZZ_REPLY_RESOURCE, FUZZ_REPLY_SIZE);
    uint8_t *map = make_resource(guest, FUZZ_STREAM_RESOURCE, FUZZ_STREAM_SIZE);
    if (stream && stream->size <= FUZZ_STREAM_SIZE && stream->size > 0)
        memcpy(map, stream->data, stream->size);
    pv_shm_unmap(map, FUZZ_STREAM_SIZE);

    uint32_t words[9] = {PV_COMMAND_vkSetReplyCommandStreamMESA,
                         0,
                         1,
                         0,
                         FUZZ_REPLY_RESOURCE,
                         0,
                         0,
                         FUZZ_REPLY_SIZE,
                         0};
    if (pv_context_submit(guest->ctx, words, sizeof(words)) < 0)
        check_failed("the reply stream is refused", NULL, guest->reason);
}

static void close_guest(struct guest *guest)
{
    guest->deadline_ns = 0;
    pv_context_destroy(guest->ctx);
    pv_shm_unmap(guest->replies, FUZZ_REPLY_SIZE);
}

/* vkEnumerateInstanceVersion, which needs no object. */
static void ask_bystander(const struct fuzz_run *run)
{
    const uint32_t seek[4] = {PV_COMMAND_vkSeekReplyCommandStreamMESA};
    const uint32_t ask[4] = {PV_COMMAND_vkEnumerateInstanceVersion, 1, 1, 0};
    const uint32_t expected[5] = {PV_COMMAND_vkEnumerateInstanceVersion, 0, 1, 0,
                                  VK_API_VERSION_1_4};
    bystander.deadline_ns = pv_now_ns() + PATIENCE_NS;
    memset(bystander.replies, 0xee, sizeof(expected));
    if (pv_context_submit(bystander.ctx, seek, sizeof(seek)) < 0 ||
        pv_context_submit(bystander.ctx, ask, sizeof(ask)) < 0 ||
        memcmp(bystander.replies, expected, sizeof(expected)) != 0)
        check_failed("the bystander is disturbed", run, bystander.reason);
}

void fuzz_begin(void)
{
    null_driver_install();
    null_driver_caps(&caps);
    open_guest(&bystander, NULL);
    ask_bystander(NULL);
}

void fuzz_end(void)
{
    ask_bystander(NULL);
    close_guest(&bystander);
}

static void check_reason(const struct guest *guest, const struct fuzz_run *run)
{
    const char *end = "; context stopped";
    size_t length = strlen(guest->reason);
    if (atomic_load(&guest->failures) != 1)
        check_failed("failed more than once", run, guest->reason);
    if (length <= strlen(end) || strcmp(guest->reason + length - strlen(end), end) != 0)
        check_failed("the reason is cut off or has no end", run, guest->reason);
    for (size_t i = 0; i < length; i++) {
        if ((unsigned char)guest->reason[i] < 0x20)
            check_failed("the reason is not one line", run, guest->reason);
    }
}

/* A failed context stays failed and says so to everything. */
static void check_stays_failed(struct guest *guest, const struct fuzz_run *run)
{
    const uint32_t harmless[4] = {PV_COMMAND_vkEnumerateInstanceVersion, 0, 1, 0};
    int fd = -1;
    if (pv_context_submit(guest->ctx, harmless, sizeof(harmless)) != -EIO ||
        pv_context_create_blob(guest->ctx, 77, 0, 4096, PV_BLOB_MAPPABLE, &fd) != -EIO ||
        pv_context_create_fence(guest->ctx, 0, 1) != -EIO)
        check_failed("a failed context still works", run, guest->reason);
}

static void send_all(struct guest *guest, const struct fuzz_run *run, struct fuzz_outcome *out)
{
    for (out->sent = 0; out->sent < run->count; out->sent++) {
        const struct fuzz_message *message = &run->messages[out->sent];
        int ret = pv_context_submit(guest->ctx, message->data, message->size);
        if (ret == 0 && atomic_load(&guest->failures) == 0)
            continue;
        if (ret != -EIO && ret != 0)
            check_failed("submit returns neither 0 nor -EIO", run, guest->reason);
        return;
    }
    int fd = -1;
    if (run->blob_id && pv_context_create_blob(guest->ctx, 100, run->blob_id, run->blob_size,
                                               PV_BLOB_MAPPABLE | PV_BLOB_SHAREABLE, &fd) == 0)
        close(fd);
    if (run->fence_ring_idx)
        pv_context_create_fence(guest->ctx, run->fence_ring_idx, 1);
}

void fuzz_execute(const struct fuzz_run *run, struct fuzz_outcome *out)
{
    struct guest guest;
    open_guest(&guest, &run->stream);
    atomic_store(&null_driver.fail_in, run->fail_in);
    send_all(&guest, run, out);
    out->failed = atomic_load(&guest.failures) > 0;
    if (out->failed) {
        check_reason(&guest, run);
        check_stays_failed(&guest, run);
    }
    atomic_store(&null_driver.fail_in, 0);
    close_guest(&guest);
    snprintf(out->reason, sizeof(out->reason), "%s", guest.reason);
    if (atomic_load(&null_driver.alive) != 0) {
        char text[64];
        snprintf(text, sizeof(text), "%lld", (long long)atomic_load(&null_driver.alive));
        check_failed("objects of the driver are left behind", run, text);
    }
    ask_bystander(run);
}

size_t fuzz_direct_messages(const struct pv_replay_session *session, struct fuzz_message *out)
{
    size_t count = 0;
    for (size_t i = 0; i < session->line_count; i++) {
        const struct pv_replay_line *line = &session->lines[i];
        uint32_t type = 0;
        if (line->kind == PV_REPLAY_REPLY || line->size < 8)
            continue;
        memcpy(&type, line->data, sizeof(type));
        if (line->kind == PV_REPLAY_CONTEXT && strstr(line->name, "Ring"))
            continue;
        if (type == PV_COMMAND_vkSubmitVirtqueueSeqnoMESA ||
            type == PV_COMMAND_vkWaitVirtqueueSeqnoMESA)
            continue;
        out[count++] = (struct fuzz_message){line->data, line->size};
    }
    return count;
}
