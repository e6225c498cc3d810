#include "venus/timeline.h"

#include "null/null_driver.h"
#include "unit.h"

#include <errno.h>
#include <malloc.h>
#include <string.h>
#include <time.h>

#define FENCES 4096

static struct pv_timelines *timelines;
static struct pv_device device;
static struct pv_queue queues[2];
static _Atomic uint32_t signalled;
static uint64_t order[FENCES];

/* Called by the threads of all timelines. */
static void on_signalled(void *data, uint32_t ring_idx, uint64_t cookie)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    pthread_mutex_lock(&lock);
    uint32_t at = atomic_load(&signalled);
    if (at < FENCES)
        order[at] = (uint64_t)ring_idx << 32 | cookie;
    atomic_store(&signalled, at + 1);
    pthread_mutex_unlock(&lock);
}

static int create(void **state)
{
    const struct pv_timelines_params params = {.signalled = on_signalled};
    memset(&device, 0, sizeof(device));
    null_fill_device_table(&device.vk);
    device.handle = (VkDevice)(uintptr_t)null_new(VK_OBJECT_TYPE_DEVICE, false);
    for (unsigned i = 0; i < 2; i++) {
        queues[i].handle = (VkQueue)(uintptr_t)null_new(VK_OBJECT_TYPE_QUEUE, false);
        pthread_mutex_init(&queues[i].lock, NULL);
    }
    atomic_store(&signalled, 0);
    return pv_timelines_create(&params, &timelines);
}

static int destroy(void **state)
{
    atomic_store(&null_driver.block_waits, false);
    atomic_store(&null_driver.lose_device, false);
    pv_timelines_destroy(timelines);
    for (unsigned i = 0; i < 2; i++)
        pthread_mutex_destroy(&queues[i].lock);
    assert_int_equal(atomic_load(&null_driver.alive), 0); /* no fence is left */
    return 0;
}

static void sleep_ms(unsigned ms)
{
    const struct timespec time = {.tv_sec = 0, .tv_nsec = ms * 1000000l};
    nanosleep(&time, NULL);
}

static void wait_signalled(uint32_t count)
{
    for (unsigned i = 0; i < 2000 && atomic_load(&signalled) < count; i++)
        sleep_ms(1);
    assert_int_equal(atomic_load(&signalled), count);
}

/* What the guest submits; `fence` is its own, or null. */
static VkFence submit(struct pv_queue *queue, VkFence fence)
{
    struct pv_submission submission = pv_timelines_begin_submission(timelines, queue, fence);
    pv_queue_lock(queue);
    VkResult result = device.vk.QueueSubmit(queue->handle, 0, NULL, submission.fence);
    pv_queue_unlock(queue);
    pv_timelines_end_submission(&submission, result);
    return submission.fence;
}

static void test_bind(void **state)
{
    assert_int_equal(pv_timelines_bind(timelines, 0, &device, &queues[0]), -EINVAL);
    assert_int_equal(pv_timelines_bind(timelines, 64, &device, &queues[0]), -EINVAL);
    assert_int_equal(pv_timelines_bind(timelines, UINT32_MAX, &device, &queues[0]), -EINVAL);
    assert_int_equal(pv_timelines_bind(timelines, 63, &device, &queues[0]), 0);
    assert_int_equal(pv_timelines_bind(timelines, 63, &device, &queues[0]), 0); /* the same queue */
    assert_int_equal(pv_timelines_bind(timelines, 63, &device, &queues[1]), -EBUSY);
    assert_int_equal(pv_timelines_fence(timelines, 62, 1), -EINVAL);
    assert_int_equal(pv_timelines_fence(timelines, 64, 1), -EINVAL);
    assert_int_equal(pv_timelines_fence(timelines, 63, 1), 0);
    pv_timelines_unbind(timelines, &device);
    wait_signalled(1);
    assert_int_equal(pv_timelines_fence(timelines, 63, 1), -EINVAL);
    assert_int_equal(pv_timelines_bind(timelines, 63, &device, &queues[1]), 0);
}

static void test_cpu_timeline(void **state)
{
    atomic_store(&null_driver.block_waits, true);
    assert_int_equal(pv_timelines_fence(timelines, 0, 5), 0);
    assert_int_equal(atomic_load(&signalled), 1);
    assert_int_equal(order[0], 5);
}

/* Polled by the caller. */
static void test_poll(void **state)
{
    pv_timelines_bind(timelines, 1, &device, &queues[0]);
    atomic_store(&null_driver.block_waits, true);
    submit(&queues[0], VK_NULL_HANDLE);
    assert_int_equal(pv_timelines_fence(timelines, 1, 1), 0);
    assert_int_equal(pv_timelines_fence(timelines, 1, 2), 0);
    assert_true(pv_timelines_poll(timelines));
    assert_int_equal(atomic_load(&signalled), 0);
    atomic_store(&null_driver.block_waits, false);
    assert_false(pv_timelines_poll(timelines));
    assert_int_equal(atomic_load(&signalled), 2);
    assert_false(pv_timelines_poll(timelines));
}

/* Waited for by the thread. */
static void test_arm(void **state)
{
    pv_timelines_bind(timelines, 1, &device, &queues[0]);
    atomic_store(&null_driver.block_waits, true);
    submit(&queues[0], VK_NULL_HANDLE);
    assert_int_equal(pv_timelines_fence(timelines, 1, 1), 0);
    pv_timelines_arm(timelines);
    assert_false(pv_timelines_poll(timelines)); /* no longer ours to look at */
    sleep_ms(20);
    assert_int_equal(atomic_load(&signalled), 0);
    atomic_store(&null_driver.block_waits, false);
    wait_signalled(1);
}

/* Submissions with and without fences of the guest, fences asked for in between: all in order. */
static void test_order(void **state)
{
    uint32_t random = 1;
    pv_timelines_bind(timelines, 1, &device, &queues[0]);
    for (uint64_t i = 0; i < 2000; i++) {
        random = random * 1664525 + 1013904223;
        atomic_store(&null_driver.block_waits, random >> 28 == 0);
        for (uint32_t n = random >> 24 & 3; n > 0; n--)
            submit(&queues[0], VK_NULL_HANDLE);
        assert_int_equal(pv_timelines_fence(timelines, 1, i), 0);
        if (random >> 23 & 1)
            pv_timelines_poll(timelines);
        if (random >> 22 & 1)
            pv_timelines_arm(timelines);
    }
    atomic_store(&null_driver.block_waits, false);
    pv_timelines_arm(timelines);
    wait_signalled(2000);
    for (uint64_t i = 0; i < 2000; i++)
        assert_int_equal(order[i], 1ull << 32 | i);
}

static void test_the_guests_fence_is_kept(void **state)
{
    VkFence fence = (VkFence)(uintptr_t)null_new(VK_OBJECT_TYPE_FENCE, false);
    pv_timelines_bind(timelines, 1, &device, &queues[0]);
    pv_timelines_fence(timelines, 1, 1);
    assert_ptr_equal(submit(&queues[0], fence), fence);
    assert_int_equal(pv_timelines_fence(timelines, 1, 2), 0);
    pv_timelines_poll(timelines);
    assert_int_equal(atomic_load(&signalled), 2);
}

/* A lost device signals everything. */
static void test_lost(void **state)
{
    pv_timelines_bind(timelines, 1, &device, &queues[0]);
    atomic_store(&null_driver.block_waits, true);
    submit(&queues[0], VK_NULL_HANDLE);
    pv_timelines_fence(timelines, 1, 1);
    pv_timelines_arm(timelines);
    sleep_ms(5);
    atomic_store(&null_driver.lose_device, true);
    submit(&queues[0], VK_NULL_HANDLE);
    pv_timelines_fence(timelines, 1, 2);
    pv_timelines_arm(timelines);
    wait_signalled(2);
}

static void test_no_fence_from_the_driver(void **state)
{
    pv_timelines_bind(timelines, 1, &device, &queues[0]);
    submit(&queues[0], VK_NULL_HANDLE);
    atomic_store(&null_driver.fail_in, 1);
    assert_int_equal(pv_timelines_fence(timelines, 1, 1), 0);
    atomic_store(&null_driver.fail_in, 0);
    pv_timelines_arm(timelines);
    wait_signalled(1);
}

static size_t heap_used(void)
{
    struct mallinfo2 info = mallinfo2();
    return info.uordblks + info.hblkhd;
}

/* Hours of a guest that asks for fences, with and without submissions. */
static void test_no_growth(void **state)
{
    size_t before = 0;
    pv_timelines_bind(timelines, 1, &device, &queues[0]);
    for (uint64_t i = 0; i < 100000; i++) {
        if (i == 1000)
            before = heap_used();
        if (i % 3 == 0)
            submit(&queues[0], VK_NULL_HANDLE);
        assert_int_equal(pv_timelines_fence(timelines, 1, i), 0);
        pv_timelines_poll(timelines);
    }
    assert_true(heap_used() <= before + 4096);
    assert_in_range(atomic_load(&null_driver.alive), 0, 16); /* fences */
}

static void test_destroy_with_pending(void **state)
{
    pv_timelines_bind(timelines, 1, &device, &queues[0]);
    pv_timelines_bind(timelines, 2, &device, &queues[1]);
    for (uint64_t i = 0; i < 100; i++) {
        submit(&queues[i % 2], VK_NULL_HANDLE);
        pv_timelines_fence(timelines, 1 + i % 2, i);
        if (i == 50)
            pv_timelines_arm(timelines);
    }
    pv_timelines_unbind(timelines, &device);
    assert_int_equal(atomic_load(&signalled), 100); /* none is lost */
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, create, destroy)
    const struct CMUnitTest tests[] = {
        TEST(test_bind),      TEST(test_cpu_timeline),
        TEST(test_poll),      TEST(test_arm),
        TEST(test_order),     TEST(test_the_guests_fence_is_kept),
        TEST(test_lost),      TEST(test_no_fence_from_the_driver),
        TEST(test_no_growth), TEST(test_destroy_with_pending),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
