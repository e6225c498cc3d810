/* Stands in for src/venus in tests of the vtest protocol: blobs are plain shared memory, fences
 * signal when the test says so, and command streams are words that ask for one thing each:
 *
 *   1         nothing
 *   2         the context fails
 *   3         the process crashes
 *   4, ms     sleeps so long, or until the guest has gone
 *   5, id     a ring appears at offset 128 of the resource
 */
#include "stub_context.h"

#include "util/os.h"
#include "venus/activity.h"
#include "venus/capset.h"
#include "venus/context.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

struct pv_context {
    struct pv_context_params params;
    bool failed;
    uint64_t commands;
};

struct stub_context stub;
struct stub_resource stub_resource[STUB_RESOURCES];
static struct pv_context *the_context;

void stub_signal_fence(size_t index)
{
    the_context->params.fence_signalled(the_context->params.data, 1, stub.fences[index]);
}

static void release(struct pv_context *ctx, uint32_t res_id)
{
    uint64_t offset = atomic_load(&stub_resource[res_id].offset);
    if (ctx->params.resource_released)
        ctx->params.resource_released(ctx->params.data, res_id, offset);
}

void stub_release(uint32_t res_id)
{
    atomic_store(&stub_resource[res_id].held, false);
    release(the_context, res_id);
}

static void sleep_ms(struct pv_context *ctx, uint32_t ms)
{
    const struct timespec pause = {.tv_nsec = 1000000};
    for (uint32_t i = 0; i < ms; i++) {
        if (ctx->params.abandoned && ctx->params.abandoned(ctx->params.data))
            return;
        nanosleep(&pause, NULL);
    }
}

int pv_context_create(const struct pv_context_params *params, struct pv_context **out)
{
    struct pv_context *ctx = calloc(1, sizeof(*ctx));
    if (!ctx)
        return -ENOMEM;
    ctx->params = *params;
    stub.alive = true;
    stub.poisoned = false;
    stub.offered_dma_buf = params->offer_dma_buf;
    stub.resources = 0;
    stub.hints = 0;
    stub.fence_count = 0;
    the_context = ctx;
    if (params->activity)
        pv_activity_add_commands(params->activity, STUB_COMMANDS);
    *out = ctx;
    return 0;
}

void pv_context_destroy(struct pv_context *ctx)
{
    if (ctx)
        stub.alive = false;
    free(ctx);
}

int pv_context_submit(struct pv_context *ctx, const void *commands, size_t size)
{
    if (ctx->failed)
        return -EIO;
    ctx->commands++;
    uint32_t words[2] = {0};
    memcpy(words, commands, size < sizeof(words) ? size : sizeof(words));
    switch (words[0]) {
    case 2:
        ctx->failed = true;
        ctx->params.failed(ctx->params.data, "the stub was told to fail");
        return -EIO;
    case 3:
        raise(SIGSEGV);
        return 0;
    case 4:
        sleep_ms(ctx, words[1]);
        return 0;
    case 5:
        ctx->params.ring_changed(ctx->params.data, words[1], 128, true);
        return 0;
    default:
        return 0;
    }
}

static int add(struct pv_context *ctx, uint32_t res_id, uint64_t offset, uint64_t size, int use)
{
    if (ctx->failed)
        return -EIO;
    if (res_id == 0 || res_id >= STUB_RESOURCES)
        return -EINVAL;
    struct stub_resource *resource = &stub_resource[res_id];
    if (atomic_load(&resource->exists))
        return -EEXIST;
    atomic_store(&resource->offset, offset);
    atomic_store(&resource->size, size);
    atomic_store(&resource->use, use);
    atomic_store(&resource->exists, true);
    stub.resources++;
    return 0;
}

int pv_context_create_blob(struct pv_context *ctx, uint32_t res_id, uint64_t blob_id, uint64_t size,
                           uint32_t blob_flags, int *out_fd)
{
    if (ctx->failed)
        return -EIO;
    if (blob_id != 0)
        return -EINVAL; /* the stub has no device memory */
    int ret = pv_shm_create("stub", size, out_fd);
    if (ret == 0 && !ctx->params.resource_released)
        stub.resources++;
    else if (ret == 0)
        add(ctx, res_id, UINT64_MAX, size, -1);
    return ret;
}

int pv_context_add_resource(struct pv_context *ctx, uint32_t res_id, int fd, uint64_t offset,
                            uint64_t size, enum pv_context_use use)
{
    return add(ctx, res_id, offset, size, (int)use);
}

int pv_context_import_resource(struct pv_context *ctx, uint32_t res_id, int fd, uint64_t size)
{
    int ret = add(ctx, res_id, UINT64_MAX, size, -1);
    if (ret == 0)
        close(fd);
    return ret;
}

int pv_context_unref_resource(struct pv_context *ctx, uint32_t res_id)
{
    if (!ctx->params.resource_released) { /* vtest: it has made them all */
        stub.resources--;
        return 0;
    }
    if (res_id >= STUB_RESOURCES || !atomic_exchange(&stub_resource[res_id].exists, false))
        return -ENOENT;
    stub.resources--;
    if (!atomic_load(&stub_resource[res_id].held))
        release(ctx, res_id);
    return 0;
}

int pv_context_create_fence(struct pv_context *ctx, uint32_t ring_idx, uint64_t cookie)
{
    if (ctx->failed)
        return -EIO;
    if (ring_idx == 0) {
        ctx->params.fence_signalled(ctx->params.data, ring_idx, cookie);
        return 0;
    }
    if (ring_idx > 2 || stub.fence_count == STUB_FENCES) {
        ctx->failed = true;
        ctx->params.failed(ctx->params.data, "ring_idx is not bound");
        return -EINVAL;
    }
    stub.fences[stub.fence_count] = cookie;
    stub.fence_count++;
    return 0;
}

bool pv_context_poll_fences(struct pv_context *ctx)
{
    (void)ctx;
    return false;
}

void pv_context_arm_fences(struct pv_context *ctx)
{
    (void)ctx;
}

void pv_context_settle(struct pv_context *ctx)
{
    (void)ctx;
}

void pv_context_hint(struct pv_context *ctx)
{
    stub.hints++;
}

void pv_context_poison(struct pv_context *ctx)
{
    stub.poisoned = true;
}

void pv_context_get_stats(struct pv_context *ctx, struct pv_context_stats *out)
{
    *out = (struct pv_context_stats){.commands = ctx->commands};
}

void pv_capset_fill(uint8_t out[PV_CAPSET_VENUS_SIZE], bool use_guest_vram)
{
    for (size_t i = 0; i < PV_CAPSET_VENUS_SIZE; i++)
        out[i] = (uint8_t)i;
}
