/* pv-sync: fences, semaphores, events and waits, from one and from two threads.
 *
 *   pv-sync [--only NAME]
 *
 * One line per test that passed; the first mistake ends the program with 1.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "vkh.h"

enum { WORDS = 1024 };

static const uint64_t limit_ns = 10ull * 1000000000; /* for waits that must succeed */

static void sleep_ms(uint32_t ms)
{
    const struct timespec time = {ms / 1000, (long)(ms % 1000) * 1000000};
    nanosleep(&time, NULL);
}

static void expect(VkResult result, VkResult wanted, const char *what)
{
    if (result != wanted) {
        char got[40];
        snprintf(got, sizeof(got), "%s", vkh_result_name(result));
        vkh_fail("%s: %s instead of %s", what, got, vkh_result_name(wanted));
    }
}

static void expect_word(const struct vkh_buffer *buffer, uint32_t wanted, const char *what)
{
    uint32_t got = ((const uint32_t *)buffer->map)[WORDS - 1];
    if (got != wanted)
        vkh_fail("%s: the GPU wrote %u, the CPU sees %u", what, wanted, got);
}

static struct vkh_buffer host_buffer(struct vkh *vk)
{
    struct vkh_buffer buffer = vkh_buffer(
        vk, WORDS * 4, VK_BUFFER_USAGE_TRANSFER_DST_BIT | VK_BUFFER_USAGE_TRANSFER_SRC_BIT,
        VKH_HOST_MEMORY);
    memset(buffer.map, 0, WORDS * 4);
    return buffer;
}

/* Ready to be submitted any number of times. */
static VkCommandBuffer fill_commands(struct vkh *vk, const struct vkh_buffer *buffer,
                                     uint32_t value)
{
    VkCommandBuffer commands = vkh_begin(vk);
    vkh_barrier(commands);
    vkCmdFillBuffer(commands, buffer->buffer, 0, VK_WHOLE_SIZE, value);
    vkh_barrier(commands);
    VKH_CHECK(vkEndCommandBuffer(commands));
    return commands;
}

static VkCommandBuffer copy_commands(struct vkh *vk, const struct vkh_buffer *from,
                                     const struct vkh_buffer *to)
{
    VkCommandBuffer commands = vkh_begin(vk);
    const VkBufferCopy region = {0, 0, WORDS * 4};
    vkh_barrier(commands);
    vkCmdCopyBuffer(commands, from->buffer, to->buffer, 1, &region);
    vkh_barrier(commands);
    VKH_CHECK(vkEndCommandBuffer(commands));
    return commands;
}

struct submission {
    VkCommandBuffer commands;
    VkSemaphore wait, signal;
    uint64_t wait_value, signal_value; /* of timelines; ignored for binary semaphores */
    VkFence fence;
    bool timeline;
};

static void submit(struct vkh *vk, const struct submission *s)
{
    const VkPipelineStageFlags stage = VK_PIPELINE_STAGE_ALL_COMMANDS_BIT;
    const VkTimelineSemaphoreSubmitInfo timeline = {
        .sType = VK_STRUCTURE_TYPE_TIMELINE_SEMAPHORE_SUBMIT_INFO,
        .waitSemaphoreValueCount = s->wait ? 1 : 0,
        .pWaitSemaphoreValues = &s->wait_value,
        .signalSemaphoreValueCount = s->signal ? 1 : 0,
        .pSignalSemaphoreValues = &s->signal_value,
    };
    const VkSubmitInfo info = {
        .sType = VK_STRUCTURE_TYPE_SUBMIT_INFO,
        .pNext = s->timeline ? &timeline : NULL,
        .waitSemaphoreCount = s->wait ? 1 : 0,
        .pWaitSemaphores = &s->wait,
        .pWaitDstStageMask = &stage,
        .commandBufferCount = s->commands ? 1 : 0,
        .pCommandBuffers = &s->commands,
        .signalSemaphoreCount = s->signal ? 1 : 0,
        .pSignalSemaphores = &s->signal,
    };
    vkh_queue_submit(vk, &info, s->fence);
}

static VkResult wait_fence(struct vkh *vk, VkFence fence, uint64_t timeout_ns)
{
    return vkWaitForFences(vk->device, 1, &fence, VK_TRUE, timeout_ns);
}

static VkResult wait_timeline(struct vkh *vk, VkSemaphore semaphore, uint64_t value,
                              uint64_t timeout_ns)
{
    const VkSemaphoreWaitInfo info = {
        .sType = VK_STRUCTURE_TYPE_SEMAPHORE_WAIT_INFO,
        .semaphoreCount = 1,
        .pSemaphores = &semaphore,
        .pValues = &value,
    };
    return vkWaitSemaphores(vk->device, &info, timeout_ns);
}

static void signal_timeline(struct vkh *vk, VkSemaphore semaphore, uint64_t value)
{
    const VkSemaphoreSignalInfo info = {
        .sType = VK_STRUCTURE_TYPE_SEMAPHORE_SIGNAL_INFO,
        .semaphore = semaphore,
        .value = value,
    };
    VKH_CHECK(vkSignalSemaphore(vk->device, &info));
}

static uint64_t timeline_value(struct vkh *vk, VkSemaphore semaphore)
{
    uint64_t value;
    VKH_CHECK(vkGetSemaphoreCounterValue(vk->device, semaphore, &value));
    return value;
}

/* ---- fences ---- */

static void test_fence(struct vkh *vk)
{
    struct vkh_buffer buffer = host_buffer(vk);
    VkFence fence = vkh_fence(vk);
    expect(vkGetFenceStatus(vk->device, fence), VK_NOT_READY, "status of a new fence");
    expect(wait_fence(vk, fence, 0), VK_TIMEOUT, "waiting 0 for a new fence");
    uint64_t start = vkh_now_ns();
    expect(wait_fence(vk, fence, 20000000), VK_TIMEOUT, "waiting 20 ms for a new fence");
    if (vkh_now_ns() - start < 19000000)
        vkh_fail("a wait of 20 ms took %.2f ms", (double)(vkh_now_ns() - start) / 1e6);
    const VkFenceCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_FENCE_CREATE_INFO,
        .flags = VK_FENCE_CREATE_SIGNALED_BIT,
    };
    VkFence signaled;
    VKH_CHECK(vkCreateFence(vk->device, &info, NULL, &signaled));
    VKH_KEEP(vk, FENCE, signaled);
    expect(vkGetFenceStatus(vk->device, signaled), VK_SUCCESS, "status of a fence made signaled");
    const VkFence both[2] = {fence, signaled};
    expect(vkWaitForFences(vk->device, 2, both, VK_FALSE, limit_ns), VK_SUCCESS, "waiting for any");
    expect(vkWaitForFences(vk->device, 2, both, VK_TRUE, 1000000), VK_TIMEOUT, "waiting for all");
    VKH_CHECK(vkResetFences(vk->device, 1, &signaled));
    expect(vkGetFenceStatus(vk->device, signaled), VK_NOT_READY,
           "status of a fence made unsignaled");
    for (uint32_t i = 1; i <= 200; i++) {
        VkCommandBuffer commands = fill_commands(vk, &buffer, i);
        submit(vk, &(struct submission){.commands = commands, .fence = fence});
        if (i % 2) {
            expect(wait_fence(vk, fence, limit_ns), VK_SUCCESS, "waiting for a submission");
        } else {
            uint64_t end = vkh_now_ns() + limit_ns;
            while (vkGetFenceStatus(vk->device, fence) == VK_NOT_READY && vkh_now_ns() < end)
                ;
        }
        expect(vkGetFenceStatus(vk->device, fence), VK_SUCCESS, "status after the wait");
        expect_word(&buffer, i, "after the fence");
        VKH_CHECK(vkResetFences(vk->device, 1, &fence));
        expect(vkGetFenceStatus(vk->device, fence), VK_NOT_READY, "status after the reset");
        vkFreeCommandBuffers(vk->device, vk->command_pool, 1, &commands);
    }
    submit(vk, &(struct submission){.fence = fence});
    expect(wait_fence(vk, fence, limit_ns), VK_SUCCESS, "waiting for an empty submission");
    VKH_CHECK(vkResetFences(vk->device, 1, &fence));
    VKH_CHECK(vkQueueSubmit(vk->queue, 0, NULL, fence));
    expect(wait_fence(vk, fence, limit_ns), VK_SUCCESS, "waiting for a submission of nothing");
}

/* ---- binary semaphores ---- */

static void test_binary(struct vkh *vk)
{
    enum { ROUNDS = 100 };
    struct vkh_buffer a = host_buffer(vk), b = host_buffer(vk);
    VkSemaphore semaphore = vkh_semaphore(vk);
    VkFence fence = vkh_fence(vk);
    for (uint32_t i = 1; i <= ROUNDS; i++) {
        VkCommandBuffer fill = fill_commands(vk, &a, i), copy = copy_commands(vk, &a, &b);
        submit(vk, &(struct submission){.commands = fill, .signal = semaphore});
        submit(vk, &(struct submission){.commands = copy, .wait = semaphore, .fence = fence});
        expect(wait_fence(vk, fence, limit_ns), VK_SUCCESS, "second submission");
        expect_word(&b, i, "behind a binary semaphore");
        VKH_CHECK(vkResetFences(vk->device, 1, &fence));
        vkFreeCommandBuffers(vk->device, vk->command_pool, 1, &fill);
        vkFreeCommandBuffers(vk->device, vk->command_pool, 1, &copy);
    }
}

/* ---- timeline semaphores ---- */

static void test_timeline_host(struct vkh *vk)
{
    VkSemaphore semaphore = vkh_timeline(vk, 5);
    if (timeline_value(vk, semaphore) != 5)
        vkh_fail("a timeline made with 5 shows %llu",
                 (unsigned long long)timeline_value(vk, semaphore));
    expect(wait_timeline(vk, semaphore, 5, 0), VK_SUCCESS, "waiting for the value it has");
    expect(wait_timeline(vk, semaphore, 6, 0), VK_TIMEOUT, "waiting 0 for a later value");
    expect(wait_timeline(vk, semaphore, 6, 5000000), VK_TIMEOUT, "waiting 5 ms for a later value");
    for (uint64_t value = 6; value < 200; value++) {
        signal_timeline(vk, semaphore, value);
        expect(wait_timeline(vk, semaphore, value, limit_ns), VK_SUCCESS, "waiting for a signal");
        if (timeline_value(vk, semaphore) != value)
            vkh_fail("a timeline signaled to %llu shows another value", (unsigned long long)value);
    }
    VkSemaphore other = vkh_timeline(vk, 0);
    const VkSemaphore both[2] = {semaphore, other};
    const uint64_t values[2] = {1000, 1};
    VkSemaphoreWaitInfo info = {
        .sType = VK_STRUCTURE_TYPE_SEMAPHORE_WAIT_INFO,
        .flags = VK_SEMAPHORE_WAIT_ANY_BIT,
        .semaphoreCount = 2,
        .pSemaphores = both,
        .pValues = values,
    };
    expect(vkWaitSemaphores(vk->device, &info, 1000000), VK_TIMEOUT, "waiting for any of two");
    signal_timeline(vk, other, 1);
    expect(vkWaitSemaphores(vk->device, &info, limit_ns), VK_SUCCESS, "waiting for one of two");
    info.flags = 0;
    expect(vkWaitSemaphores(vk->device, &info, 1000000), VK_TIMEOUT, "waiting for both of two");
    signal_timeline(vk, semaphore, 1000);
    expect(vkWaitSemaphores(vk->device, &info, limit_ns), VK_SUCCESS, "waiting for both");
}

static void test_timeline_queue(struct vkh *vk)
{
    enum { ROUNDS = 100 };
    struct vkh_buffer a = host_buffer(vk), b = host_buffer(vk);
    VkSemaphore semaphore = vkh_timeline(vk, 0);
    for (uint32_t i = 1; i <= ROUNDS; i++) {
        uint64_t base = (uint64_t)i * 10;
        VkCommandBuffer fill = fill_commands(vk, &a, i), copy = copy_commands(vk, &a, &b);
        submit(vk,
               &(struct submission){
                   .commands = fill, .signal = semaphore, .signal_value = base, .timeline = true});
        submit(vk, &(struct submission){.commands = copy,
                                        .wait = semaphore,
                                        .wait_value = base,
                                        .signal = semaphore,
                                        .signal_value = base + 1,
                                        .timeline = true});
        expect(wait_timeline(vk, semaphore, base + 1, limit_ns), VK_SUCCESS, "second submission");
        expect_word(&b, i, "behind a timeline semaphore");
        if (timeline_value(vk, semaphore) != base + 1)
            vkh_fail("the timeline shows another value than the one just waited for");
        vkFreeCommandBuffers(vk->device, vk->command_pool, 1, &fill);
        vkFreeCommandBuffers(vk->device, vk->command_pool, 1, &copy);
    }
}

/* The GPU waits for a value that the CPU signals later.
 *
 * Two semaphores, although one would do: Mesa's Venus (25.0.7 and 26.1 at least) sends
 * vkSignalSemaphore first and then writes the value into its own copy, so that a value which the
 * GPU signals at once in answer, on the same semaphore, can be overwritten and never be seen.
 */
static void test_wait_before_signal(struct vkh *vk)
{
    struct vkh_buffer a = host_buffer(vk);
    VkSemaphore go = vkh_timeline(vk, 0), done = vkh_timeline(vk, 0);
    VkFence fence = vkh_fence(vk);
    for (uint32_t i = 1; i <= 50; i++) {
        VkCommandBuffer fill = fill_commands(vk, &a, i);
        submit(vk, &(struct submission){.commands = fill,
                                        .wait = go,
                                        .wait_value = i,
                                        .signal = done,
                                        .signal_value = i,
                                        .fence = fence,
                                        .timeline = true});
        expect(wait_fence(vk, fence, 5000000), VK_TIMEOUT, "a submission that must still wait");
        expect_word(&a, i - 1, "before the signal");
        signal_timeline(vk, go, i);
        expect(wait_timeline(vk, done, i, limit_ns), VK_SUCCESS, "after the signal");
        expect(wait_fence(vk, fence, limit_ns), VK_SUCCESS, "fence after the signal");
        expect_word(&a, i, "after the signal");
        VKH_CHECK(vkResetFences(vk->device, 1, &fence));
        vkFreeCommandBuffers(vk->device, vk->command_pool, 1, &fill);
    }
}

/* ---- events ---- */

static void test_event(struct vkh *vk)
{
    struct vkh_buffer buffer = host_buffer(vk);
    const VkEventCreateInfo info = {.sType = VK_STRUCTURE_TYPE_EVENT_CREATE_INFO};
    VkEvent event;
    VKH_CHECK(vkCreateEvent(vk->device, &info, NULL, &event));
    VKH_KEEP(vk, EVENT, event);
    expect(vkGetEventStatus(vk->device, event), VK_EVENT_RESET, "status of a new event");
    VKH_CHECK(vkSetEvent(vk->device, event));
    expect(vkGetEventStatus(vk->device, event), VK_EVENT_SET, "status of an event the CPU set");
    VKH_CHECK(vkResetEvent(vk->device, event));
    expect(vkGetEventStatus(vk->device, event), VK_EVENT_RESET, "status of an event the CPU reset");
    VkCommandBuffer commands = vkh_begin(vk);
    vkCmdSetEvent(commands, event, VK_PIPELINE_STAGE_ALL_COMMANDS_BIT);
    vkh_submit_wait(vk, commands);
    expect(vkGetEventStatus(vk->device, event), VK_EVENT_SET, "status of an event the GPU set");
    commands = vkh_begin(vk);
    vkCmdResetEvent(commands, event, VK_PIPELINE_STAGE_ALL_COMMANDS_BIT);
    vkh_submit_wait(vk, commands);
    expect(vkGetEventStatus(vk->device, event), VK_EVENT_RESET, "status of an event the GPU reset");
    /* Set by the CPU, before the submission that waits for it. */
    VKH_CHECK(vkSetEvent(vk->device, event));
    commands = vkh_begin(vk);
    vkCmdWaitEvents(commands, 1, &event, VK_PIPELINE_STAGE_HOST_BIT, VK_PIPELINE_STAGE_TRANSFER_BIT,
                    0, NULL, 0, NULL, 0, NULL);
    vkCmdFillBuffer(commands, buffer.buffer, 0, VK_WHOLE_SIZE, 77);
    vkh_barrier(commands);
    vkh_submit_wait(vk, commands);
    expect_word(&buffer, 77, "behind an event");
}

/* ---- queue and device ---- */

static void test_idle(struct vkh *vk)
{
    struct vkh_buffer buffer = host_buffer(vk);
    for (uint32_t i = 1; i <= 50; i++) {
        VkCommandBuffer fill = fill_commands(vk, &buffer, i);
        submit(vk, &(struct submission){.commands = fill});
        if (i % 2)
            VKH_CHECK(vkQueueWaitIdle(vk->queue));
        else
            VKH_CHECK(vkDeviceWaitIdle(vk->device));
        expect_word(&buffer, i, "after waiting for idle");
        vkFreeCommandBuffers(vk->device, vk->command_pool, 1, &fill);
    }
    VKH_CHECK(vkQueueWaitIdle(vk->queue));
    VKH_CHECK(vkDeviceWaitIdle(vk->device));
}

/* ---- two threads ---- */

struct partner {
    struct vkh vk;
    VkSemaphore ping, pong;
    uint32_t rounds;
    atomic_bool stop;
    VkFence fence;
};

static void *answer_pings(void *data)
{
    struct partner *p = data;
    for (uint32_t i = 1; i <= p->rounds; i++) {
        expect(wait_timeline(&p->vk, p->ping, i, limit_ns), VK_SUCCESS, "ping in the other thread");
        signal_timeline(&p->vk, p->pong, i);
    }
    return NULL;
}

/* Each thread waits for the value that the other signals; the GPU takes part in every second one.
 */
static void test_ping_pong(struct vkh *vk)
{
    struct partner partner = {
        .ping = vkh_timeline(vk, 0),
        .pong = vkh_timeline(vk, 0),
        .rounds = 100,
    };
    pthread_t thread;
    vkh_child_init(&partner.vk, vk);
    if (pthread_create(&thread, NULL, answer_pings, &partner) != 0)
        vkh_fail("no second thread");
    for (uint32_t i = 1; i <= partner.rounds; i++) {
        if (i % 2)
            signal_timeline(vk, partner.ping, i);
        else
            submit(vk, &(struct submission){
                           .signal = partner.ping, .signal_value = i, .timeline = true});
        expect(wait_timeline(vk, partner.pong, i, limit_ns), VK_SUCCESS, "pong");
    }
    pthread_join(thread, NULL);
    vkh_finish(&partner.vk);
}

static void *wait_long(void *data)
{
    struct partner *p = data;
    expect(wait_timeline(&p->vk, p->ping, 1, limit_ns), VK_SUCCESS, "a wait that began early");
    expect(wait_fence(&p->vk, p->fence, limit_ns), VK_SUCCESS, "a fence waited for in two threads");
    return NULL;
}

/* The other thread's wait begins first, and must not keep this one from submitting. */
static void test_early_wait(struct vkh *vk)
{
    struct vkh_buffer buffer = host_buffer(vk);
    for (uint32_t i = 1; i <= 10; i++) {
        size_t mark = vkh_mark(vk);
        struct partner partner = {.ping = vkh_timeline(vk, 0), .fence = vkh_fence(vk)};
        pthread_t thread;
        vkh_child_init(&partner.vk, vk);
        if (pthread_create(&thread, NULL, wait_long, &partner) != 0)
            vkh_fail("no second thread");
        sleep_ms(10);
        VkCommandBuffer fill = fill_commands(vk, &buffer, i);
        submit(vk, &(struct submission){.commands = fill,
                                        .signal = partner.ping,
                                        .signal_value = 1,
                                        .fence = partner.fence,
                                        .timeline = true});
        expect(wait_fence(vk, partner.fence, limit_ns), VK_SUCCESS,
               "fence beside a waiting thread");
        expect_word(&buffer, i, "beside a waiting thread");
        pthread_join(thread, NULL);
        vkFreeCommandBuffers(vk->device, vk->command_pool, 1, &fill);
        vkh_finish(&partner.vk);
        vkh_release(vk, mark);
    }
}

static void *poll_status(void *data)
{
    struct partner *p = data;
    uint64_t last = 0;
    while (!atomic_load(&p->stop)) {
        uint64_t value = timeline_value(&p->vk, p->ping);
        if (value < last)
            vkh_fail("a timeline went back from %llu to %llu", (unsigned long long)last,
                     (unsigned long long)value);
        last = value;
    }
    return NULL;
}

/* One thread submits and waits while the other one asks all the time. */
static void test_polling(struct vkh *vk)
{
    struct vkh_buffer buffer = host_buffer(vk);
    VkFence fence = vkh_fence(vk);
    struct partner partner = {.ping = vkh_timeline(vk, 0)};
    pthread_t thread;
    vkh_child_init(&partner.vk, vk);
    if (pthread_create(&thread, NULL, poll_status, &partner) != 0)
        vkh_fail("no second thread");
    for (uint32_t i = 1; i <= 200; i++) {
        VkCommandBuffer fill = fill_commands(vk, &buffer, i);
        submit(vk, &(struct submission){.commands = fill,
                                        .signal = partner.ping,
                                        .signal_value = i,
                                        .fence = fence,
                                        .timeline = true});
        expect(wait_fence(vk, fence, limit_ns), VK_SUCCESS, "fence beside a polling thread");
        expect_word(&buffer, i, "beside a polling thread");
        VKH_CHECK(vkResetFences(vk->device, 1, &fence));
        vkFreeCommandBuffers(vk->device, vk->command_pool, 1, &fill);
    }
    atomic_store(&partner.stop, true);
    pthread_join(thread, NULL);
    vkh_finish(&partner.vk);
}

static const struct {
    const char *name;
    void (*run)(struct vkh *vk);
    bool timeline;
} tests[] = {
    {"fence", test_fence, false},
    {"binary-semaphore", test_binary, false},
    {"timeline-host", test_timeline_host, true},
    {"timeline-queue", test_timeline_queue, true},
    {"wait-before-signal", test_wait_before_signal, true},
    {"event", test_event, false},
    {"idle", test_idle, false},
    {"ping-pong", test_ping_pong, true},
    {"early-wait", test_early_wait, true},
    {"polling", test_polling, true},
};

int main(int argc, char **argv)
{
    vkh_set_program(argv[0]);
    const char *only = NULL;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--only") == 0) {
            only = vkh_option_value(argc, argv, &i);
        } else {
            fprintf(stderr, "usage: pv-sync [--only NAME]\n");
            return 2;
        }
    }
    struct vkh vk;
    vkh_init(&vk, NULL);
    uint32_t run_count = 0;
    for (size_t i = 0; i < VKH_COUNT(tests); i++) {
        if (only && strcmp(only, tests[i].name) != 0)
            continue;
        run_count++;
        if (tests[i].timeline && !vk.features12.timelineSemaphore) {
            printf("%s left out: no timeline semaphores\n", tests[i].name);
            continue;
        }
        size_t mark = vkh_mark(&vk);
        tests[i].run(&vk);
        VKH_CHECK(vkDeviceWaitIdle(vk.device));
        vkh_release(&vk, mark);
        printf("%s ok\n", tests[i].name);
        fflush(stdout);
    }
    if (run_count == 0)
        vkh_fail("there is no test '%s'", only);
    vkh_finish(&vk);
    return 0;
}
