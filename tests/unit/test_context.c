#include "venus/context.h"

#include "alloc_fail.h"
#include "unit.h"
#include "util/os.h"
#include "venus/activity.h"
#include "venus_fixture.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Ids of the objects that tests make beside those of guest_make_device. */
enum { POOL = 10, OTHER_POOL, MEMORY, QUERIES, SHADER, LAYOUT, FIRST_BUFFER = 100 };

static struct guest guest;

static int open_guest(void **state)
{
    guest_open(&guest, 4096);
    return 0;
}

static int open_with_device(void **state)
{
    guest_open(&guest, 4096);
    guest_make_device(&guest);
    GUEST_RUN(&guest, CMD_SET_REPLY(0, GUEST_REPLY_SIZE));
    return 0;
}

static int close_guest(void **state)
{
    atomic_store(&null_driver.fail_in, 0);
    atomic_store(&null_driver.block_waits, false);
    atomic_store(&null_driver.lose_device, false);
    guest_close(&guest);
    return 0;
}

static void make_pool(uint32_t id)
{
    GUEST_RUN(&guest, CMD_HEAD(vkCreateCommandPool), 3, 0, 1, 0,
              VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO, 0, 0, 0, 0, 0, 0, 1, 0, id, 0);
}

static void make_memory(uint32_t id, uint32_t size)
{
    GUEST_RUN(&guest, CMD_HEAD(vkAllocateMemory), 3, 0, 1, 0,
              VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO, 0, 0, size, 0, 0, 0, 0, 1, 0, id, 0);
}

/* `count` command buffers with ids from `first` on, `step` apart. */
static int allocate_buffers(uint32_t pool, uint32_t count, uint32_t first, uint32_t step)
{
    uint32_t *words = calloc(17 + 2 * (size_t)count, 4);
    const uint32_t head[] = {CMD_HEAD(vkAllocateCommandBuffers),
                             3,
                             0,
                             1,
                             0,
                             VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO,
                             0,
                             0,
                             pool,
                             0,
                             0,
                             count,
                             count,
                             0};
    memcpy(words, head, sizeof(head));
    size_t n = sizeof(head) / 4;
    for (uint32_t i = 0; i < count; i++, n += 2)
        words[n] = first + i * step;
    int ret = guest_submit(&guest, words, n);
    free(words);
    return ret;
}

static int free_buffers(uint32_t pool, uint32_t count, uint32_t first, uint32_t step)
{
    uint32_t *words = calloc(9 + 2 * (size_t)count, 4);
    const uint32_t head[] = {CMD_HEAD(vkFreeCommandBuffers), 3, 0, pool, 0, count, count, 0};
    memcpy(words, head, sizeof(head));
    size_t n = sizeof(head) / 4;
    for (uint32_t i = 0; i < count; i++, n += 2)
        words[n] = first + i * step;
    int ret = guest_submit(&guest, words, n);
    free(words);
    return ret;
}

/* ---- failing ----------------------------------------------------------------------------------
 */

static void test_fails_once(void **state)
{
    int fd = -1;
    assert_int_equal(GUEST_SUBMIT(&guest, 0xfffff, 0), -EIO);
    guest_expect_failure(&guest, "context stream: ?: unknown command (0xfffff); context stopped");
    assert_int_equal(GUEST_SUBMIT(&guest, 0xfffff, 0), -EIO);
    assert_int_equal(GUEST_SUBMIT(&guest, CMD_VERSION), -EIO);
    assert_int_equal(pv_context_create_blob(guest.ctx, 9, 0, 4096, PV_BLOB_MAPPABLE, &fd), -EIO);
    assert_int_equal(pv_context_create_fence(guest.ctx, 0, 1), -EIO);
    assert_int_equal(pv_context_unref_resource(guest.ctx, GUEST_REPLY_RESOURCE), 0);
    pv_context_hint(guest.ctx);
    pv_context_settle(guest.ctx);
    pv_context_poison(guest.ctx);
    guest_expect_failure(&guest, "unknown command");
    struct pv_context_stats stats;
    pv_context_get_stats(guest.ctx, &stats);
    assert_int_equal(stats.errors, 1);
}

static void test_odd_size(void **state)
{
    assert_int_equal(pv_context_submit(guest.ctx, "abcde", 5), -EIO);
    guest_expect_failure(&guest, "5 bytes are no multiple of 4");
}

static void test_flags(void **state)
{
    assert_int_equal(GUEST_SUBMIT(&guest, PV_COMMAND_vkEnumerateInstanceVersion, 3, 1, 0), -EIO);
    guest_expect_failure(&guest, "vkEnumerateInstanceVersion: unknown command flags (0x3)");
}

static void test_refused(void **state)
{
    assert_int_equal(GUEST_SUBMIT(&guest, CMD_HEAD(vkMapMemory), 0, 0, 0), -EIO);
    guest_expect_failure(&guest, "vkMapMemory: refused: ");
}

static void test_empty_submission(void **state)
{
    assert_int_equal(pv_context_submit(guest.ctx, NULL, 0), 0);
}

/* ---- replies ----------------------------------------------------------------------------------
 */

static void test_no_reply_stream(void **state)
{
    assert_int_equal(GUEST_SUBMIT(&guest, PV_COMMAND_vkEnumerateInstanceVersion, 1, 1, 0), -EIO);
    guest_expect_failure(&guest, "wants a reply, but no reply stream is set");
}

static void test_reply_too_large(void **state)
{
    memset(guest.replies, 0xee, 64);
    GUEST_RUN(&guest, CMD_SET_REPLY(4, 16));
    assert_int_equal(GUEST_SUBMIT(&guest, PV_COMMAND_vkEnumerateInstanceVersion, 1, 1, 0), -EIO);
    guest_expect_failure(&guest, "reply does not fit into the 16 bytes of its stream");
    assert_int_equal(guest.replies[3], 0xee);
    assert_int_equal(guest.replies[20], 0xee);
}

static void test_reply_outside(void **state)
{
    assert_int_equal(GUEST_SUBMIT(&guest, CMD_SET_REPLY(16, GUEST_REPLY_SIZE)), -EIO);
    guest_expect_failure(&guest, "leaves resource 2 of 65536 bytes");
}

static void test_reply_far_outside(void **state)
{
    assert_int_equal(GUEST_SUBMIT(&guest, CMD_HEAD(vkSetReplyCommandStreamMESA), 1, 0,
                                  GUEST_REPLY_RESOURCE, 0xfffffff0, 0xffffffff, 32, 0),
                     -EIO);
    guest_expect_failure(&guest, "leaves resource 2");
}

static void test_seek_outside(void **state)
{
    GUEST_RUN(&guest, CMD_SET_REPLY(0, 64));
    GUEST_RUN(&guest, CMD_HEAD(vkSeekReplyCommandStreamMESA), 64, 0);
    assert_int_equal(GUEST_SUBMIT(&guest, CMD_HEAD(vkSeekReplyCommandStreamMESA), 65, 0), -EIO);
    guest_expect_failure(&guest, "position 65 is outside the reply stream");
}

/* ---- indirect streams -------------------------------------------------------------------------
 */

#define STREAM(offset, size) GUEST_RING_RESOURCE, offset, 0, size, 0

static void put_stream(size_t offset, const uint32_t *words, size_t count)
{
    memcpy(guest.ring + offset, words, 4 * count);
}

static void test_streams(void **state)
{
    const uint32_t ask[] = {PV_COMMAND_vkEnumerateInstanceVersion, 1, 1, 0};
    const uint32_t reply[] = {PV_COMMAND_vkEnumerateInstanceVersion, 0, 1, 0, VK_API_VERSION_1_4};
    GUEST_RUN(&guest, CMD_SET_REPLY(0, 256));
    put_stream(64, ask, 4);
    put_stream(128, ask, 4);
    /* two streams and an empty one, each with its place for the reply */
    GUEST_RUN(&guest, CMD_HEAD(vkExecuteCommandStreamsMESA), 3, 3, 0, STREAM(64, 16), STREAM(0, 0),
              STREAM(128, 16), 3, 0, 100, 0, 0, 0, 40, 0, 0, 0, 0, 0);
    assert_memory_equal(guest.replies + 100, reply, sizeof(reply));
    assert_memory_equal(guest.replies + 40, reply, sizeof(reply));
}

static void test_streams_do_not_nest(void **state)
{
    const uint32_t itself[] = {
        CMD_HEAD(vkExecuteCommandStreamsMESA), 1, 1, 0, STREAM(0, 64), 0, 0, 0, 0, 0, 0};
    put_stream(0, itself, sizeof(itself) / 4);
    assert_int_equal(guest_submit(&guest, itself, sizeof(itself) / 4), -EIO);
    guest_expect_failure(&guest, "streams may not nest");
}

static void test_stream_cut_short(void **state)
{
    const uint32_t ask[] = {CMD_VERSION};
    put_stream(0, ask, 4);
    assert_int_equal(GUEST_SUBMIT(&guest, CMD_HEAD(vkExecuteCommandStreamsMESA), 1, 1, 0,
                                  STREAM(0, 12), 0, 0, 0, 0, 0, 0),
                     -EIO);
    guest_expect_failure(&guest, "vkEnumerateInstanceVersion: command is cut short");
}

static void test_stream_outside(void **state)
{
    assert_int_equal(GUEST_SUBMIT(&guest, CMD_HEAD(vkExecuteCommandStreamsMESA), 1, 1, 0,
                                  STREAM(4096, 4096), 0, 0, 0, 0, 0, 0),
                     -EIO);
    guest_expect_failure(&guest, "is not in shared memory");
}

/* ---- objects ----------------------------------------------------------------------------------
 */

static void test_same_id_twice(void **state)
{
    make_pool(POOL);
    assert_int_equal(allocate_buffers(POOL, 3, FIRST_BUFFER, 0), -EIO);
    guest_expect_failure(&guest, "vkAllocateCommandBuffers: new object id is in use (0x64)");
}

static void test_id_in_use(void **state)
{
    make_pool(POOL);
    assert_int_equal(allocate_buffers(POOL, 5, POOL - 2, 1), -EIO);
    guest_expect_failure(&guest, "new object id is in use (0xa)");
}

static void test_freed_twice(void **state)
{
    make_pool(POOL);
    assert_int_equal(allocate_buffers(POOL, 3, FIRST_BUFFER, 1), 0);
    assert_int_equal(free_buffers(POOL, 2, FIRST_BUFFER + 1, 0), -EIO);
    guest_expect_failure(&guest, "object 0x65 is freed twice");
}

static void test_freed_again(void **state)
{
    make_pool(POOL);
    assert_int_equal(allocate_buffers(POOL, 3, FIRST_BUFFER, 1), 0);
    assert_int_equal(free_buffers(POOL, 3, FIRST_BUFFER, 1), 0);
    assert_int_equal(allocate_buffers(POOL, 3, FIRST_BUFFER, 1), 0);
    assert_int_equal(free_buffers(POOL, 3, FIRST_BUFFER, 1), 0);
    assert_int_equal(free_buffers(POOL, 1, FIRST_BUFFER, 1), -EIO);
    guest_expect_failure(&guest, "unknown object id (0x64)");
}

static void test_wrong_pool(void **state)
{
    make_pool(POOL);
    make_pool(OTHER_POOL);
    assert_int_equal(allocate_buffers(POOL, 1, FIRST_BUFFER, 1), 0);
    assert_int_equal(free_buffers(OTHER_POOL, 1, FIRST_BUFFER, 1), -EIO);
    guest_expect_failure(&guest, "object 0x64 is not from this pool");
}

/* What is checked for each must not look at all the others. */
static void test_many_are_freed_fast(void **state)
{
    const uint32_t count = 400000;
    make_pool(POOL);
    assert_int_equal(allocate_buffers(POOL, count, FIRST_BUFFER, 1), 0);
    uint64_t begin = pv_now_ns();
    assert_int_equal(free_buffers(POOL, count, FIRST_BUFFER, 1), 0);
    assert_true(pv_now_ns() - begin < 5000000000); /* it was half a minute */
}

static void test_pool_takes_its_buffers(void **state)
{
    struct pv_context_stats before, after;
    pv_context_get_stats(guest.ctx, &before);
    make_pool(POOL);
    assert_int_equal(allocate_buffers(POOL, 100, FIRST_BUFFER, 1), 0);
    GUEST_RUN(&guest, CMD_HEAD(vkDestroyCommandPool), 3, 0, POOL, 0, 0, 0);
    pv_context_get_stats(guest.ctx, &after);
    assert_int_equal(after.objects, before.objects);
}

static void test_destroyed_twice(void **state)
{
    make_pool(POOL);
    GUEST_RUN(&guest, CMD_HEAD(vkDestroyCommandPool), 3, 0, POOL, 0, 0, 0);
    GUEST_RUN(&guest, CMD_HEAD(vkDestroyCommandPool), 3, 0, 0, 0, 0, 0); /* null is fine */
    assert_int_equal(GUEST_SUBMIT(&guest, CMD_HEAD(vkDestroyCommandPool), 3, 0, POOL, 0, 0, 0),
                     -EIO);
    guest_expect_failure(&guest, "vkDestroyCommandPool: unknown object id (0xa)");
}

/* An object that the driver refused: commands that name it are dropped, it can be destroyed. */
static void test_failed_object(void **state)
{
    atomic_store(&null_driver.fail_in, 1);
    make_pool(POOL);
    uint64_t calls = atomic_load(&null_driver.calls);
    assert_int_equal(allocate_buffers(POOL, 2, FIRST_BUFFER, 1), 0);
    GUEST_RUN(&guest, CMD_HEAD(vkResetCommandPool), 3, 0, POOL, 0, 0);
    GUEST_RUN(&guest, CMD_HEAD(vkEndCommandBuffer), FIRST_BUFFER, 0);
    assert_int_equal(atomic_load(&null_driver.calls), calls);
    GUEST_RUN(&guest, PV_COMMAND_vkEndCommandBuffer, 1, FIRST_BUFFER, 0);
    int32_t result;
    memcpy(&result, guest.replies + 4, sizeof(result));
    assert_true(result < 0);
    assert_int_equal(free_buffers(POOL, 2, FIRST_BUFFER, 1), 0);
    GUEST_RUN(&guest, CMD_HEAD(vkDestroyCommandPool), 3, 0, POOL, 0, 0, 0);
}

#define STAGE                                                                                  \
    VK_STRUCTURE_TYPE_PIPELINE_SHADER_STAGE_CREATE_INFO, 0, 0, 0, VK_SHADER_STAGE_COMPUTE_BIT, \
        SHADER, 0, 5, 0, 0x6e69616d, 0, 0, 0
#define PIPELINE VK_STRUCTURE_TYPE_COMPUTE_PIPELINE_CREATE_INFO, 0, 0, 0, STAGE, LAYOUT, 0, 0, 0, 0

static void make_pipelines(uint32_t reply)
{
    GUEST_RUN(&guest, PV_COMMAND_vkCreateComputePipelines, reply, 3, 0, 0, 0, 2, 2, 0, PIPELINE,
              PIPELINE, 0, 0, 2, 0, 50, 0, 51, 0);
}

/* The first of two pipelines is made although the call fails. Nothing of it may stay behind, which
 * guest_close looks at. */
static void test_some_pipelines(void **state)
{
    struct pv_context_stats before, after;
    GUEST_RUN(&guest, CMD_HEAD(vkCreateShaderModule), 3, 0, 1, 0,
              VK_STRUCTURE_TYPE_SHADER_MODULE_CREATE_INFO, 0, 0, 0, 4, 0, 1, 0, 0x07230203, 0, 0, 1,
              0, SHADER, 0);
    GUEST_RUN(&guest, CMD_HEAD(vkCreatePipelineLayout), 3, 0, 1, 0,
              VK_STRUCTURE_TYPE_PIPELINE_LAYOUT_CREATE_INFO, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0,
              LAYOUT, 0);
    pv_context_get_stats(guest.ctx, &before);
    atomic_store(&null_driver.fail_in, 1);
    make_pipelines(1);
    const uint32_t reply[] = {PV_COMMAND_vkCreateComputePipelines,
                              (uint32_t)VK_ERROR_OUT_OF_DEVICE_MEMORY,
                              2,
                              0,
                              0,
                              0,
                              0,
                              0};
    assert_memory_equal(guest.replies, reply, sizeof(reply));
    pv_context_get_stats(guest.ctx, &after);
    assert_int_equal(after.objects, before.objects);
    /* without a reply the guest believes in both */
    atomic_store(&null_driver.fail_in, 1);
    make_pipelines(0);
    GUEST_RUN(&guest, CMD_HEAD(vkDestroyPipeline), 3, 0, 50, 0, 0, 0);
    GUEST_RUN(&guest, CMD_HEAD(vkDestroyPipeline), 3, 0, 51, 0, 0, 0);
}

/* The driver goes by count and stride, whatever the size. */
static void test_query_stride(void **state)
{
    GUEST_RUN(&guest, CMD_HEAD(vkCreateQueryPool), 3, 0, 1, 0,
              VK_STRUCTURE_TYPE_QUERY_POOL_CREATE_INFO, 0, 0, 0, VK_QUERY_TYPE_TIMESTAMP, 100, 0, 0,
              0, 1, 0, QUERIES, 0);
    GUEST_RUN(&guest, PV_COMMAND_vkGetQueryPoolResults, 1, 3, 0, QUERIES, 0, 0, 100, 16, 0, 16, 0,
              1 << 20, 0, VK_QUERY_RESULT_64_BIT);
    const uint32_t reply[] = {
        PV_COMMAND_vkGetQueryPoolResults, 0, 16, 0, 0x5a5a5a5a, 0x5a5a5a5a, 0, 0};
    assert_memory_equal(guest.replies, reply, sizeof(reply));
    assert_int_equal(GUEST_SUBMIT(&guest, CMD_HEAD(vkGetQueryPoolResults), 3, 0, QUERIES, 0, 0, 100,
                                  16, 0, 16, 0, 0, 0x10000000, 0),
                     -EIO);
    guest_expect_failure(&guest, "too much memory");
}

static void test_second_instance(void **state)
{
    assert_int_equal(GUEST_SUBMIT(&guest, CMD_HEAD(vkCreateInstance), 1, 0,
                                  VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO, 0, 0, 0, 0, 0, 0, 0, 0, 0,
                                  0, 0, 0, 0, 1, 0, 90, 0),
                     -EIO);
    guest_expect_failure(&guest, "a context has one instance");
}

/* Whatever the guest had, in one command. Another instance is another context's business. */
static void test_instance_destroyed(void **state)
{
    make_pool(POOL);
    make_memory(MEMORY, 8192);
    assert_int_equal(allocate_buffers(POOL, 10, FIRST_BUFFER, 1), 0);
    GUEST_RUN(&guest, CMD_HEAD(vkDestroyInstance), 1, 0, 0, 0);
    struct pv_context_stats stats;
    pv_context_get_stats(guest.ctx, &stats);
    assert_int_equal(stats.objects, 0);
    assert_int_equal(GUEST_SUBMIT(&guest, CMD_HEAD(vkEndCommandBuffer), FIRST_BUFFER, 0), -EIO);
    guest_expect_failure(&guest, "unknown object id");
}

/* ---- blobs ------------------------------------------------------------------------------------
 */

static int make_blob(uint32_t res_id, uint64_t blob_id, uint64_t size, uint32_t flags)
{
    int fd = -1;
    int ret = pv_context_create_blob(guest.ctx, res_id, blob_id, size, flags, &fd);
    assert_int_equal(ret == 0, fd >= 0);
    if (fd >= 0)
        close(fd);
    return ret;
}

static void test_blobs(void **state)
{
    make_memory(MEMORY, 8192);
    assert_int_equal(make_blob(0, 0, 4096, PV_BLOB_MAPPABLE), -EINVAL);
    assert_int_equal(make_blob(9, 0, 0, PV_BLOB_MAPPABLE), -EINVAL);
    assert_int_equal(make_blob(9, 0, 4096, 0), -EINVAL);
    assert_int_equal(make_blob(9, 0, 4096, 8), -EINVAL);
    assert_int_equal(make_blob(9, 0, 4096, PV_BLOB_MAPPABLE | PV_BLOB_SHAREABLE), -EINVAL);
    assert_true(make_blob(9, 0, UINT64_MAX, PV_BLOB_MAPPABLE) < 0);
    assert_true(make_blob(9, 0, 1ull << 62, PV_BLOB_MAPPABLE) < 0);
    assert_true(make_blob(GUEST_REPLY_RESOURCE, 0, 4096, PV_BLOB_MAPPABLE) < 0);
    assert_int_equal(make_blob(9, 77, 4096, PV_BLOB_MAPPABLE), -EINVAL); /* no such object */
    assert_int_equal(make_blob(9, 3, 4096, PV_BLOB_MAPPABLE), -EINVAL);  /* a device */
    assert_int_equal(make_blob(9, MEMORY, 0, PV_BLOB_MAPPABLE), -EINVAL);
    assert_int_equal(make_blob(9, MEMORY, 1 << 20, PV_BLOB_MAPPABLE), -EINVAL);
    assert_int_equal(make_blob(9, MEMORY, UINT64_MAX, PV_BLOB_MAPPABLE), -EINVAL);
    assert_int_equal(atomic_load(&guest.failures), 0); /* none of this is fatal by itself */
    assert_int_equal(make_blob(9, MEMORY, 8192, PV_BLOB_MAPPABLE), 0);
    /* it may outlive its memory, and is no place for replies or rings */
    GUEST_RUN(&guest, CMD_HEAD(vkFreeMemory), 3, 0, MEMORY, 0, 0, 0);
    assert_int_equal(make_blob(10, MEMORY, 8192, PV_BLOB_MAPPABLE), -EINVAL);
    assert_int_equal(
        GUEST_SUBMIT(&guest, CMD_HEAD(vkSetReplyCommandStreamMESA), 1, 0, 9, 0, 0, 16, 0), -EIO);
    guest_expect_failure(&guest, "resource 9 is no shared memory");
    assert_int_equal(pv_context_unref_resource(guest.ctx, 9), 0);
    assert_int_equal(pv_context_unref_resource(guest.ctx, 9), -ENOENT);
}

static void test_blob_of_failed_memory(void **state)
{
    atomic_store(&null_driver.fail_in, 1);
    make_memory(MEMORY, 8192);
    assert_int_equal(make_blob(9, MEMORY, 8192, PV_BLOB_MAPPABLE), -ENOMEM);
    assert_int_equal(atomic_load(&guest.failures), 0);
}

/* A reply stream holds on to its memory. */
static void test_reply_after_unref(void **state)
{
    assert_int_equal(pv_context_unref_resource(guest.ctx, GUEST_REPLY_RESOURCE), 0);
    GUEST_RUN(&guest, PV_COMMAND_vkEnumerateInstanceVersion, 1, 1, 0);
    assert_int_equal(guest.replies[0], PV_COMMAND_vkEnumerateInstanceVersion);
}

/* ---- an arena ---------------------------------------------------------------------------------
 */

#define ARENA_SIZE (UINT64_C(1) << 20)

static int arena = -1;

static int open_with_arena(void **state)
{
    assert_int_equal(pv_shm_create("arena", ARENA_SIZE, &arena), 0);
    return open_with_device(state);
}

static int close_arena(void **state)
{
    close_guest(state);
    return close(arena);
}

static int add(uint32_t res_id, uint64_t offset, uint64_t size, enum pv_context_use use)
{
    return pv_context_add_resource(guest.ctx, res_id, arena, offset, size, use);
}

/* vkAllocateMemory with VkImportMemoryResourceInfoMESA. */
static int import(uint32_t id, uint32_t res_id, uint32_t size, uint32_t type)
{
    return GUEST_SUBMIT(&guest, CMD_HEAD(vkAllocateMemory), 3, 0, 1, 0,
                        VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO, 1, 0,
                        (uint32_t)VK_STRUCTURE_TYPE_IMPORT_MEMORY_RESOURCE_INFO_MESA, 0, 0, res_id,
                        size, 0, type, 0, 0, 1, 0, id, 0);
}

static uint64_t memory_bytes(void)
{
    struct pv_context_stats stats;
    pv_context_get_stats(guest.ctx, &stats);
    return stats.memory_bytes;
}

/* A blob that is shared may come back as an import of the same context; one that is only mapped has
 * nothing that could be imported. */
static void test_import_of_own_blob(void **state)
{
    enum { AGAIN = FIRST_BUFFER };
    make_memory(MEMORY, 8192);
    uint64_t before = memory_bytes();
    assert_int_equal(make_blob(9, MEMORY, 8192, PV_BLOB_MAPPABLE), 0);
    assert_int_equal(import(AGAIN, 9, 8192, 0), 0);
    assert_int_equal(memory_bytes(), before);
    assert_int_equal(make_blob(10, MEMORY, 8192, PV_BLOB_MAPPABLE | PV_BLOB_SHAREABLE), 0);
    assert_int_equal(import(AGAIN + 1, 10, 8192, 0), 0);
    assert_int_equal(memory_bytes(), before + 8192);
    assert_int_equal(atomic_load(&guest.failures), 0);
}

static void import_on_ring(uint32_t id, uint32_t res_id)
{
    GUEST_WRITE(&guest, CMD_HEAD(vkAllocateMemory), 3, 0, 1, 0,
                VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO, 1, 0,
                (uint32_t)VK_STRUCTURE_TYPE_IMPORT_MEMORY_RESOURCE_INFO_MESA, 0, 0, res_id, 8192, 0,
                0, 0, 0, 1, 0, id, 0);
}

/* On a ring, an import may come before the news of its blob. */
static void test_import_before_its_blob(void **state)
{
    int fd = -1;
    const struct guest_ring_info info = guest_ring_info(&guest);
    assert_int_equal(guest_create_ring(&guest, GUEST_RING_ID, &info), 0);
    uint64_t before = memory_bytes();
    import_on_ring(MEMORY, 9);
    guest_notify(&guest);
    assert_false(guest_wait(&guest, 50));
    assert_int_equal(pv_shm_create("blob", 8192, &fd), 0);
    assert_int_equal(pv_context_import_resource(guest.ctx, 9, fd, 8192), 0);
    assert_true(guest_wait(&guest, 2000));
    assert_int_equal(memory_bytes(), before + 8192);
    assert_int_equal(atomic_load(&guest.failures), 0);
}

/* Its memory could not be made, and that is known. */
static void test_import_of_a_failed_blob(void **state)
{
    const struct guest_ring_info info = guest_ring_info(&guest);
    assert_int_equal(guest_create_ring(&guest, GUEST_RING_ID, &info), 0);
    uint64_t before = memory_bytes();
    import_on_ring(MEMORY, 9);
    guest_notify(&guest);
    assert_false(guest_wait(&guest, 50));
    assert_int_equal(pv_context_import_resource(guest.ctx, 9, -1, 8192), 0);
    assert_true(guest_wait(&guest, 2000));
    import_on_ring(MEMORY + 1, 9);
    guest_notify(&guest);
    assert_true(guest_wait(&guest, 2000));
    assert_int_equal(memory_bytes(), before);
    assert_int_equal(atomic_load(&guest.failures), 0);
    assert_int_equal(pv_context_unref_resource(guest.ctx, 9), 0);
}

/* One that is waited for in vain takes seconds. The next ones do not take as many again. */
static void test_imports_that_never_come(void **state)
{
    const struct guest_ring_info info = guest_ring_info(&guest);
    assert_int_equal(guest_create_ring(&guest, GUEST_RING_ID, &info), 0);
    for (uint32_t i = 0; i < 4; i++)
        import_on_ring(MEMORY + i, 9 + i);
    guest_notify(&guest);
    assert_false(guest_wait(&guest, 1000));
    assert_true(guest_wait(&guest, 6000));
    assert_int_equal(atomic_load(&guest.failures), 0);
}

static void test_arena_bad(void **state)
{
    assert_int_equal(add(0, 0, 4096, PV_CONTEXT_USE_SHM), -EINVAL);
    assert_int_equal(add(9, 0, 0, PV_CONTEXT_USE_SHM), -EINVAL);
    assert_int_equal(add(9, 100, 4096, PV_CONTEXT_USE_SHM), -EINVAL);
    assert_int_equal(add(9, 0, 5000, PV_CONTEXT_USE_SHM), -EINVAL);
    assert_int_equal(add(9, ARENA_SIZE, 4096, PV_CONTEXT_USE_SHM), -EINVAL);
    assert_int_equal(add(9, ARENA_SIZE - 4096, 8192, PV_CONTEXT_USE_SHM), -EINVAL);
    assert_int_equal(add(9, UINT64_MAX - 4095, 8192, PV_CONTEXT_USE_SHM), -EINVAL);
    assert_int_equal(add(9, 4096, UINT64_MAX - 4095, PV_CONTEXT_USE_MEMORY), -EINVAL);
    assert_int_equal(add(GUEST_REPLY_RESOURCE, 0, 4096, PV_CONTEXT_USE_SHM), -EEXIST);
    assert_int_equal(atomic_load(&guest.failures), 0);
    assert_int_equal(add(9, ARENA_SIZE - 4096, 4096, PV_CONTEXT_USE_SHM), 0);
}

/* Replies go to where the guest will look. */
static void test_arena_shm(void **state)
{
    assert_int_equal(add(9, 65536, 4096, PV_CONTEXT_USE_SHM), 0);
    GUEST_RUN(&guest, CMD_HEAD(vkSetReplyCommandStreamMESA), 1, 0, 9, 16, 0, 256, 0);
    GUEST_RUN(&guest, PV_COMMAND_vkEnumerateInstanceVersion, 1, 1, 0);
    uint32_t word = 0;
    assert_int_equal(pread(arena, &word, 4, 65536 + 16), 4);
    assert_int_equal(word, PV_COMMAND_vkEnumerateInstanceVersion);
    assert_int_equal(pv_context_unref_resource(guest.ctx, 9), 0);
    assert_int_equal(atomic_load(&guest.released), 0); /* the stream has it */
    GUEST_RUN(&guest, CMD_SET_REPLY(0, GUEST_REPLY_SIZE));
    assert_int_equal(atomic_load(&guest.released), 1);
    assert_int_equal(atomic_load(&guest.last_released), 9);
    assert_int_equal(atomic_load(&guest.released_offset), 65536);
}

/* The blob comes first, then its memory; the range is free when both have gone. */
static void test_arena_memory(void **state)
{
    uint64_t before = memory_bytes();
    assert_int_equal(add(9, 8192, 8192, PV_CONTEXT_USE_MEMORY), 0);
    assert_int_equal(import(MEMORY, 9, 5000, 0), 0);
    assert_int_equal(memory_bytes() - before, 5000);
    assert_int_equal(pv_context_unref_resource(guest.ctx, 9), 0);
    assert_int_equal(atomic_load(&guest.released), 0);
    GUEST_RUN(&guest, CMD_HEAD(vkFreeMemory), 3, 0, MEMORY, 0, 0, 0);
    assert_int_equal(atomic_load(&guest.released), 1);
    assert_int_equal(atomic_load(&guest.last_released), 9);
    assert_int_equal(atomic_load(&guest.released_offset), 8192);
    assert_int_equal(memory_bytes(), before);

    /* the other way round; memory that goes with its device */
    assert_int_equal(add(10, 8192, 8192, PV_CONTEXT_USE_MEMORY), 0);
    assert_int_equal(import(MEMORY, 10, 8192, 0), 0);
    GUEST_RUN(&guest, CMD_HEAD(vkFreeMemory), 3, 0, MEMORY, 0, 0, 0);
    assert_int_equal(atomic_load(&guest.released), 1);
    assert_int_equal(pv_context_unref_resource(guest.ctx, 10), 0);
    assert_int_equal(atomic_load(&guest.released), 2);
    assert_int_equal(add(11, 8192, 8192, PV_CONTEXT_USE_FOREIGN), 0);
    assert_int_equal(import(MEMORY, 11, 1 << 20, 0), 0); /* its own size counts */
    assert_int_equal(memory_bytes() - before, 8192);
    assert_int_equal(pv_context_unref_resource(guest.ctx, 11), 0);
    GUEST_RUN(&guest, CMD_HEAD(vkDestroyInstance), 1, 0, 0, 0);
    assert_int_equal(atomic_load(&guest.released), 3);
}

static void test_arena_memory_refused(void **state)
{
    assert_int_equal(add(9, 8192, 8192, PV_CONTEXT_USE_MEMORY), 0);
    assert_int_equal(import(MEMORY, 9, 8193, 0), 0); /* larger than its blob: the object is dead */
    assert_int_equal(memory_bytes(), GUEST_REPLY_SIZE + guest_ring_size(&guest));
    atomic_store(&null_driver.fail_in, 1);
    assert_int_equal(import(MEMORY + 1000, 9, 8192, 0), 0);
    assert_int_equal(pv_context_unref_resource(guest.ctx, 9), 0);
    assert_int_equal(atomic_load(&guest.released), 1);
    assert_int_equal(atomic_load(&guest.failures), 0);
}

/* Another program may have handed it over that never made it: the memory is dead, the importing
 * context lives. */
static void test_import_of_nothing(void **state)
{
    const uint32_t *reply = (const uint32_t *)(void *)guest.replies;
    uint64_t before = memory_bytes();
    assert_int_equal(import(MEMORY, 9, 8192, 0), 0);
    assert_int_equal(memory_bytes(), before);
    GUEST_RUN(&guest, CMD_HEAD(vkFreeMemory), 3, 0, MEMORY, 0, 0, 0);
    GUEST_RUN(&guest, PV_COMMAND_vkGetMemoryResourcePropertiesMESA, 1, 3, 0, 9, 1, 0,
              (uint32_t)VK_STRUCTURE_TYPE_MEMORY_RESOURCE_PROPERTIES_MESA, 0, 0);
    assert_int_equal(reply[0], PV_COMMAND_vkGetMemoryResourcePropertiesMESA);
    assert_int_equal((VkResult)reply[1], VK_ERROR_INVALID_EXTERNAL_HANDLE);
    assert_int_equal(atomic_load(&guest.failures), 0);
}

/* An fd of its own, as without an arena. */
static void test_import_by_fd(void **state)
{
    int fd = -1;
    assert_int_equal(pv_shm_create("other", 8192, &fd), 0);
    assert_int_equal(pv_context_import_resource(guest.ctx, 0, fd, 8192), -EINVAL);
    assert_int_equal(pv_context_import_resource(guest.ctx, 9, fd, 8192), 0);
    assert_int_equal(import(MEMORY, 9, 8192, 0), 0);
    assert_int_equal(pv_context_unref_resource(guest.ctx, 9), 0);
    assert_int_equal(atomic_load(&guest.released), 0);
    GUEST_RUN(&guest, CMD_HEAD(vkFreeMemory), 3, 0, MEMORY, 0, 0, 0);
    assert_int_equal(atomic_load(&guest.released_offset), UINT64_MAX);
}

/* What the guest asks before it imports: the resource's size, not the arena's. */
static void test_resource_properties(void **state)
{
    assert_int_equal(add(9, 8192, 12288, PV_CONTEXT_USE_FOREIGN), 0);
    GUEST_RUN(&guest, PV_COMMAND_vkGetMemoryResourcePropertiesMESA, 1, 3, 0, 9, 1, 0,
              (uint32_t)VK_STRUCTURE_TYPE_MEMORY_RESOURCE_PROPERTIES_MESA, 1, 0,
              (uint32_t)VK_STRUCTURE_TYPE_MEMORY_RESOURCE_ALLOCATION_SIZE_PROPERTIES_MESA, 0, 0);
    const uint32_t *reply = (const uint32_t *)(void *)guest.replies;
    assert_int_equal(reply[0], PV_COMMAND_vkGetMemoryResourcePropertiesMESA);
    assert_int_equal(reply[1], VK_SUCCESS);
    /* pointer, type, chain, its type, the chain's end, size, types */
    assert_int_equal(reply[4], (uint32_t)VK_STRUCTURE_TYPE_MEMORY_RESOURCE_PROPERTIES_MESA);
    assert_int_equal(reply[10], 12288);
    assert_int_equal(reply[12], 1);
}

static void test_ring_is_announced(void **state)
{
    const struct guest_ring_info info = guest_ring_info(&guest);
    assert_int_equal(guest_create_ring(&guest, GUEST_RING_ID, &info), 0);
    assert_int_equal(atomic_load(&guest.rings), 1);
    assert_int_equal(atomic_load(&guest.ring_status), 128);
    GUEST_RUN(&guest, CMD_RING(vkDestroyRingMESA));
    assert_int_equal(atomic_load(&guest.rings), 0);
    memset(guest.ring, 0, guest_ring_size(&guest));
    assert_int_equal(guest_create_ring(&guest, GUEST_RING_ID, &info), 0); /* gone with the guest */
}

/* ---- fences -----------------------------------------------------------------------------------
 */

static void wait_fences(unsigned count)
{
    for (unsigned i = 0; i < 2000 && atomic_load(&guest.fence_count) < count; i++)
        guest_sleep_us(1000);
    assert_int_equal(atomic_load(&guest.fence_count), count);
}

static void test_fences(void **state)
{
    assert_int_equal(pv_context_create_fence(guest.ctx, 0, 1), 0);
    assert_int_equal(atomic_load(&guest.fence_count), 1); /* the CPU timeline: at once */
    for (uint64_t i = 0; i < 100; i++)
        assert_int_equal(pv_context_create_fence(guest.ctx, 1, i), 0);
    wait_fences(101);
    for (uint64_t i = 0; i < 100; i++)
        assert_int_equal(guest.fences[i + 1], 1ull << 32 | i);
}

static void test_fence_of_unbound_timeline(void **state)
{
    assert_int_equal(pv_context_create_fence(guest.ctx, 2, 1), -EINVAL);
    guest_expect_failure(&guest, "ring_idx 2 is not bound");
}

static void test_fence_far_outside(void **state)
{
    assert_int_equal(pv_context_create_fence(guest.ctx, UINT32_MAX, 1), -EINVAL);
    guest_expect_failure(&guest, "ring_idx 4294967295 is not bound");
}

static void test_fences_of_a_lost_device(void **state)
{
    atomic_store(&null_driver.lose_device, true);
    for (uint64_t i = 0; i < 10; i++)
        assert_int_equal(pv_context_create_fence(guest.ctx, 1, i), 0);
    wait_fences(10);
}

static void test_fences_wait(void **state)
{
    atomic_store(&null_driver.block_waits, true);
    GUEST_RUN(&guest, CMD_HEAD(vkQueueSubmit), 5, 0, 0, 0, 0, 0, 0);
    assert_int_equal(pv_context_create_fence(guest.ctx, 1, 7), 0);
    assert_int_equal(pv_context_create_fence(guest.ctx, 0, 8), 0);
    guest_sleep_us(20000);
    assert_int_equal(atomic_load(&guest.fence_count),
                     1); /* the CPU's does not wait for the GPU's */
    atomic_store(&null_driver.block_waits, false);
    wait_fences(2);
}

/* ---- the end ----------------------------------------------------------------------------------
 */

static void test_destroyed_at_any_moment(void **state)
{
    for (unsigned steps = 0; steps < 9; steps++) {
        guest_open(&guest, 4096);
        const struct guest_ring_info info = guest_ring_info(&guest);
        if (steps > 0)
            assert_int_equal(guest_create_ring(&guest, GUEST_RING_ID, &info), 0);
        if (steps > 1)
            guest_make_device(&guest);
        if (steps > 2)
            make_pool(POOL);
        if (steps > 3)
            assert_int_equal(allocate_buffers(POOL, 10, FIRST_BUFFER, 1), 0);
        if (steps > 4)
            make_memory(MEMORY, 8192);
        if (steps > 5)
            assert_int_equal(make_blob(9, MEMORY, 8192, PV_BLOB_MAPPABLE), 0);
        if (steps > 6)
            assert_int_equal(pv_context_create_fence(guest.ctx, 1, 1), 0);
        if (steps > 7)
            GUEST_WRITE(&guest, CMD_WAIT_VIRTQUEUE(5));
        guest_close(&guest); /* looks whether anything of the driver is left */
    }
}

static void test_driver_fails_at_any_moment(void **state)
{
    for (int n = 1; n < 20; n++) {
        guest_open(&guest, 4096);
        atomic_store(&null_driver.fail_in, n);
        if (guest_try_device(&guest) == 0) {
            make_pool(POOL);
            assert_int_equal(allocate_buffers(POOL, 10, FIRST_BUFFER, 1), 0);
            make_memory(MEMORY, 8192);
        }
        atomic_store(&null_driver.fail_in, 0);
        guest_close(&guest);
    }
}

/* Each allocation in turn fails: the context is not made, or fails, or the guest gets an error. */
static void test_no_memory(void **state)
{
    static struct pv_host_caps caps;
    null_driver_install();
    null_driver_caps(&caps);
    const struct pv_context_params params = {.caps = &caps};
    struct pv_context *ctx = NULL;
    int n = 0;
    do {
        alloc_fail_in(++n);
        int ret = pv_context_create(&params, &ctx);
        bool failed = alloc_failed();
        alloc_fail_in(0);
        if (!failed) {
            assert_int_equal(ret, 0);
            pv_context_destroy(ctx);
            break;
        }
        assert_int_equal(ret, -ENOMEM);
    } while (n < 100);
    assert_in_range(n, 3, 99);

    for (n = 1; n < 60; n++) {
        guest_open(&guest, 4096);
        const struct guest_ring_info info = guest_ring_info(&guest);
        const uint32_t version[] = {CMD_VERSION};
        alloc_fail_in(n);
        guest_create_ring(&guest, GUEST_RING_ID, &info);
        GUEST_SUBMIT(&guest, CMD_HEAD(vkCreateInstance), 1, 0,
                     VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
                     1, 0, 1, 0);
        guest_submit(&guest, version, 4);
        int fd = -1;
        if (pv_context_create_blob(guest.ctx, 9, 0, 4096, PV_BLOB_MAPPABLE, &fd) == 0)
            close(fd);
        alloc_fail_in(0);
        assert_in_range(atomic_load(&guest.failures), 0, 1);
        guest_close(&guest);
    }
}

/* ---- frames (venus/activity.h) ----------------------------------------------------------------
 */

#define IMAGE 700u

static void make_image(uint32_t id)
{
    GUEST_RUN(&guest, CMD_HEAD(vkCreateImage), 3, 0, 1, 0, VK_STRUCTURE_TYPE_IMAGE_CREATE_INFO, 0,
              0, 0, VK_IMAGE_TYPE_2D, VK_FORMAT_B8G8R8A8_UNORM, 4, 4, 1, 1, 1,
              VK_SAMPLE_COUNT_1_BIT, VK_IMAGE_TILING_OPTIMAL, VK_IMAGE_USAGE_TRANSFER_DST_BIT,
              VK_SHARING_MODE_EXCLUSIVE, 0, 0, 0, VK_IMAGE_LAYOUT_UNDEFINED, 0, 0, 1, 0, id, 0);
}

static void begin_commands(uint32_t id)
{
    GUEST_RUN(&guest, CMD_HEAD(vkBeginCommandBuffer), id, 0, 1, 0,
              VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO, 0, 0, 0, 0, 0);
}

static void change_owner(uint32_t id, uint32_t from, uint32_t to)
{
    GUEST_RUN(&guest, CMD_HEAD(vkCmdPipelineBarrier), id, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 1, 1, 0,
              VK_STRUCTURE_TYPE_IMAGE_MEMORY_BARRIER, 0, 0, 0, 0, 1, 1, from, to, IMAGE, 0,
              VK_IMAGE_ASPECT_COLOR_BIT, 0, 1, 0, 1);
}

static void change_owner2(uint32_t id, uint32_t from, uint32_t to)
{
    GUEST_RUN(&guest, CMD_HEAD(vkCmdPipelineBarrier2), id, 0, 1, 0,
              VK_STRUCTURE_TYPE_DEPENDENCY_INFO, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 0,
              VK_STRUCTURE_TYPE_IMAGE_MEMORY_BARRIER_2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, from,
              to, IMAGE, 0, VK_IMAGE_ASPECT_COLOR_BIT, 0, 1, 0, 1);
}

static void submit_commands(uint32_t id)
{
    GUEST_RUN(&guest, CMD_HEAD(vkQueueSubmit), 5, 0, 1, 1, 0, VK_STRUCTURE_TYPE_SUBMIT_INFO, 0, 0,
              0, 0, 0, 0, 0, 1, 1, 0, id, 0, 0, 0, 0, 0, 0);
}

static uint64_t frames(void)
{
    struct pv_context_stats stats;
    pv_context_get_stats(guest.ctx, &stats);
    return stats.frames;
}

static void make_commands(void)
{
    make_pool(POOL);
    assert_int_equal(allocate_buffers(POOL, 2, FIRST_BUFFER, 1), 0);
    make_image(IMAGE);
}

static void test_frames(void **state)
{
    const uint32_t foreign = VK_QUEUE_FAMILY_FOREIGN_EXT;
    make_commands();
    begin_commands(FIRST_BUFFER);
    submit_commands(FIRST_BUFFER);
    change_owner(FIRST_BUFFER, foreign, 0); /* taken, not given */
    submit_commands(FIRST_BUFFER);
    assert_int_equal(frames(), 0);
    change_owner(FIRST_BUFFER, 0, foreign);
    change_owner(FIRST_BUFFER, 0, 0);
    assert_int_equal(frames(), 0);
    submit_commands(FIRST_BUFFER);
    submit_commands(FIRST_BUFFER);
    assert_int_equal(frames(), 2);
    begin_commands(FIRST_BUFFER + 1);
    submit_commands(FIRST_BUFFER + 1); /* not this one */
    begin_commands(FIRST_BUFFER);
    submit_commands(FIRST_BUFFER); /* not any more */
    assert_int_equal(frames(), 2);
}

static void test_frames_by_barrier2(void **state)
{
    make_commands();
    begin_commands(FIRST_BUFFER);
    change_owner2(FIRST_BUFFER, 0, 0);
    submit_commands(FIRST_BUFFER);
    assert_int_equal(frames(), 0);
    change_owner2(FIRST_BUFFER, 0, VK_QUEUE_FAMILY_FOREIGN_EXT);
    submit_commands(FIRST_BUFFER);
    assert_int_equal(frames(), 1);
}

static void test_activity(void **state)
{
    struct pv_activity activity;
    memset(&activity, 0, sizeof(activity));
    guest_open_counting(&guest, 4096, &activity);
    guest_make_device(&guest);
    GUEST_RUN(&guest, CMD_SET_REPLY(0, GUEST_REPLY_SIZE));
    uint64_t before = atomic_load(&activity.commands);
    assert_true(before >= 4);
    assert_true(atomic_load(&activity.shm_bytes) >= GUEST_REPLY_SIZE);
    make_memory(50, 1 << 20);
    assert_int_equal(atomic_load(&activity.memory_bytes), 1 << 20);
    GUEST_RUN(&guest, CMD_HEAD(vkFreeMemory), 3, 0, 50, 0, 0, 0);
    assert_int_equal(atomic_load(&activity.memory_bytes), 0);
    make_commands();
    begin_commands(FIRST_BUFFER);
    change_owner(FIRST_BUFFER, 0, VK_QUEUE_FAMILY_FOREIGN_EXT);
    uint64_t begin = pv_now_ns();
    for (unsigned i = 0; i < PV_ACTIVITY_FRAMES + 3; i++)
        submit_commands(FIRST_BUFFER);
    uint64_t end = pv_now_ns();
    assert_int_equal(atomic_load(&activity.submissions), PV_ACTIVITY_FRAMES + 3);
    assert_int_equal(atomic_load(&activity.frames), PV_ACTIVITY_FRAMES + 3);
    assert_int_equal(atomic_load(&activity.commands), before + 7 + PV_ACTIVITY_FRAMES + 3);
    for (unsigned i = 0; i < PV_ACTIVITY_FRAMES; i++) {
        uint64_t time = atomic_load(&activity.frame_ns[i]);
        assert_true(time >= begin && time <= end);
    }
    assert_true(atomic_load(&activity.frame_ns[2]) > atomic_load(&activity.frame_ns[3]));
}

/* As the device does, while ring and context thread count. */
static void *watch_activity(void *data)
{
    struct pv_activity *activity = data;
    uint64_t sum = 0;
    while (atomic_load_explicit(&activity->commands, memory_order_relaxed) < 5000)
        sum += atomic_load_explicit(&activity->frame_ns[0], memory_order_relaxed);
    return sum > 0 ? data : NULL;
}

static void test_activity_is_watched(void **state)
{
    static struct pv_activity activity;
    pthread_t watcher;
    void *result;
    guest_open_counting(&guest, 4096, &activity);
    guest_make_device(&guest);
    const struct guest_ring_info info = guest_ring_info(&guest);
    assert_int_equal(guest_create_ring(&guest, GUEST_RING_ID, &info), 0);
    make_commands();
    begin_commands(FIRST_BUFFER);
    change_owner(FIRST_BUFFER, 0, VK_QUEUE_FAMILY_FOREIGN_EXT);
    submit_commands(FIRST_BUFFER);
    assert_int_equal(pthread_create(&watcher, NULL, watch_activity, &activity), 0);
    for (unsigned i = 0; i < 2500; i++) {
        GUEST_WRITE(&guest, CMD_VERSION);
        GUEST_RUN(&guest, CMD_VERSION);
        guest_notify(&guest);
    }
    assert_true(guest_wait(&guest, 10000));
    pthread_join(watcher, &result);
    assert_ptr_equal(result, &activity);
}

int main(void)
{
#define WITH_DEVICE(test) cmocka_unit_test_setup_teardown(test, open_with_device, close_guest)
#define WITH_ARENA(test)  cmocka_unit_test_setup_teardown(test, open_with_arena, close_arena)
#define BARE(test)        cmocka_unit_test_setup_teardown(test, open_guest, close_guest)
    const struct CMUnitTest tests[] = {
        BARE(test_fails_once),
        WITH_DEVICE(test_frames),
        WITH_DEVICE(test_frames_by_barrier2),
        cmocka_unit_test_teardown(test_activity, close_guest),
        cmocka_unit_test_teardown(test_activity_is_watched, close_guest),
        BARE(test_odd_size),
        BARE(test_flags),
        BARE(test_refused),
        BARE(test_empty_submission),
        BARE(test_no_reply_stream),
        BARE(test_reply_too_large),
        BARE(test_reply_outside),
        BARE(test_reply_far_outside),
        BARE(test_seek_outside),
        BARE(test_streams),
        BARE(test_streams_do_not_nest),
        BARE(test_stream_cut_short),
        BARE(test_stream_outside),
        WITH_DEVICE(test_same_id_twice),
        WITH_DEVICE(test_id_in_use),
        WITH_DEVICE(test_freed_twice),
        WITH_DEVICE(test_freed_again),
        WITH_DEVICE(test_wrong_pool),
        WITH_DEVICE(test_many_are_freed_fast),
        WITH_DEVICE(test_pool_takes_its_buffers),
        WITH_DEVICE(test_destroyed_twice),
        WITH_DEVICE(test_failed_object),
        WITH_DEVICE(test_some_pipelines),
        WITH_DEVICE(test_query_stride),
        WITH_DEVICE(test_second_instance),
        WITH_DEVICE(test_instance_destroyed),
        WITH_DEVICE(test_blobs),
        WITH_DEVICE(test_blob_of_failed_memory),
        WITH_DEVICE(test_import_of_own_blob),
        WITH_DEVICE(test_import_before_its_blob),
        WITH_DEVICE(test_import_of_a_failed_blob),
        WITH_DEVICE(test_imports_that_never_come),
        WITH_DEVICE(test_import_of_nothing),
        WITH_DEVICE(test_reply_after_unref),
        BARE(test_ring_is_announced),
        WITH_ARENA(test_arena_bad),
        WITH_ARENA(test_arena_shm),
        WITH_ARENA(test_arena_memory),
        WITH_ARENA(test_arena_memory_refused),
        WITH_ARENA(test_resource_properties),
        WITH_DEVICE(test_import_by_fd),
        WITH_DEVICE(test_fences),
        WITH_DEVICE(test_fence_of_unbound_timeline),
        WITH_DEVICE(test_fence_far_outside),
        WITH_DEVICE(test_fences_of_a_lost_device),
        WITH_DEVICE(test_fences_wait),
        cmocka_unit_test(test_destroyed_at_any_moment),
        cmocka_unit_test(test_driver_fails_at_any_moment),
        cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
