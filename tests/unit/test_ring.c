#include "venus/ring.h"

#include "unit.h"
#include "util/os.h"
#include "venus_fixture.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#define BUFFER 4096u

static struct guest guest;

static int open_guest(void **state)
{
    guest_open(&guest, BUFFER);
    return 0;
}

static int open_with_ring(void **state)
{
    guest_open(&guest, BUFFER);
    struct guest_ring_info info = guest_ring_info(&guest);
    return guest_create_ring(&guest, GUEST_RING_ID, &info);
}

static int close_guest(void **state)
{
    guest_close(&guest);
    return 0;
}

/* ---- layouts ----------------------------------------------------------------------------------
 */

static void refuse(const struct guest_ring_info *info, const char *reason)
{
    guest_open(&guest, BUFFER);
    assert_int_equal(guest_create_ring(&guest, GUEST_RING_ID, info), -EIO);
    guest_expect_failure(&guest, reason);
    guest_close(&guest);
}

static void test_bad_layouts(void **state)
{
    guest.buffer_size = BUFFER;
    const struct guest_ring_info good = guest_ring_info(&guest);
    struct guest_ring_info info;
#define REFUSE(reason, ...)    \
    do {                       \
        info = good;           \
        __VA_ARGS__;           \
        refuse(&info, reason); \
    } while (0)
    REFUSE("resource is not shared memory", info.resource = 77);
    REFUSE("resource is not shared memory", info.resource = 0);
    REFUSE("ring leaves its resource", info.offset = 4);
    REFUSE("ring leaves its resource", info.size += 4);
    REFUSE("ring leaves its resource", info.size = UINT64_MAX);
    REFUSE("ring leaves its resource", info.offset = UINT64_MAX - 3);
    REFUSE("ring leaves its resource", info.offset = 2; info.size -= 4);
    REFUSE("buffer size", info.buffer_size = 0);
    REFUSE("buffer size", info.buffer_size = 4095);
    REFUSE("buffer size", info.buffer_size = 3072);
    REFUSE("buffer size", info.buffer_size = 32u << 20);
    REFUSE("buffer size", info.buffer_size = 1ull << 32);
    REFUSE("a region leaves the ring", info.buffer_size = 8192);
    REFUSE("a region leaves the ring", info.head = info.size - 3 + 3);
    REFUSE("a region leaves the ring", info.tail = UINT64_MAX - 3);
    REFUSE("a region leaves the ring", info.status = 1ull << 32);
    REFUSE("a region leaves the ring", info.buffer = UINT64_MAX - 4095);
    REFUSE("a region leaves the ring", info.extra_size = UINT64_MAX);
    REFUSE("a region is not 4-aligned", info.head = 2);
    REFUSE("a region is not 4-aligned", info.buffer = 190);
    REFUSE("a region is not 4-aligned", info.extra += 1);
    REFUSE("regions overlap", info.tail = info.head);
    REFUSE("regions overlap", info.status = info.tail);
    REFUSE("regions overlap", info.status = 192);
    REFUSE("regions overlap", info.buffer = 128);
    REFUSE("regions overlap", info.extra = 192 + BUFFER - 4);
    REFUSE("unknown flags", info.flags = 1);
    REFUSE("monitor period is 0", info.monitor_period = 0);
#undef REFUSE
}

static void test_head_and_status_must_be_0(void **state)
{
    const struct guest_ring_info info = guest_ring_info(&guest);
    atomic_store(guest_status(&guest), PV_RING_STATUS_ALIVE);
    assert_int_equal(guest_create_ring(&guest, GUEST_RING_ID, &info), -EIO);
    guest_expect_failure(&guest, "head or status is not 0");
}

static void test_one_id_one_ring(void **state)
{
    const struct guest_ring_info info = guest_ring_info(&guest);
    assert_int_equal(guest_create_ring(&guest, GUEST_RING_ID, &info), -EIO);
    guest_expect_failure(&guest, "exists");
}

/* ---- running ----------------------------------------------------------------------------------
 */

/* Commands of three sizes that never divide the buffer, so that each is cut by its end at some
 * time; the counters pass 2^16. */
static void test_wrap_around(void **state)
{
    uint32_t count = 0;
    for (unsigned i = 0; guest.tail < 80000; i++) {
        GUEST_WRITE(&guest, CMD_SET_REPLY(4 * (i % 100), 64));
        GUEST_WRITE(&guest, PV_COMMAND_vkEnumerateInstanceVersion, 1, 1, 0);
        GUEST_WRITE(&guest, CMD_HEAD(vkSeekReplyCommandStreamMESA), 0, 0);
        count += 3;
        guest_notify(&guest);
        if (i % 50 != 0)
            continue;
        assert_true(guest_wait(&guest, 5000));
        const uint32_t reply[] = {PV_COMMAND_vkEnumerateInstanceVersion, 0, 1, 0,
                                  VK_API_VERSION_1_4};
        assert_memory_equal(guest.replies + 4 * (i % 100), reply, sizeof(reply));
        memset(guest.replies, 0, GUEST_REPLY_SIZE);
    }
    assert_true(guest_wait(&guest, 5000));
    struct pv_context_stats stats;
    pv_context_get_stats(guest.ctx, &stats);
    assert_true(stats.commands >= count);
    assert_int_equal(stats.bytes >= guest.tail, 1);
    assert_int_equal(atomic_load(&guest.failures), 0);
}

static void check_fatal(const char *reason)
{
    guest_expect_failure(&guest, reason);
    assert_true(guest_wait_status(&guest, PV_RING_STATUS_FATAL, 1000));
    assert_int_equal(GUEST_SUBMIT(&guest, CMD_VERSION), -EIO);
}

static void test_tail_past_buffer(void **state)
{
    atomic_store(guest_tail(&guest), BUFFER + 4);
    check_fatal("tail is 0x1004 past head, buffer holds 0x1000");
}

static void test_tail_before_head(void **state)
{
    GUEST_WRITE(&guest, CMD_VERSION);
    assert_true(guest_wait(&guest, 1000));
    atomic_store(guest_tail(&guest), 4);
    guest_notify(&guest);
    check_fatal("past head");
}

static void test_tail_inside_a_word(void **state)
{
    atomic_store(guest_tail(&guest), 6);
    check_fatal("tail");
}

/* The tail must stand at the end of a command. */
static void test_tail_inside_a_command(void **state)
{
    GUEST_WRITE(&guest, PV_COMMAND_vkEnumerateInstanceVersion, 0, 1);
    check_fatal("ring 0x1234567800000001: vkEnumerateInstanceVersion: command is cut short");
}

/* ---- idle -------------------------------------------------------------------------------------
 */

static void test_idle_and_notify(void **state)
{
    for (unsigned i = 0; i < 10; i++) {
        assert_true(guest_wait_status(&guest, PV_RING_STATUS_IDLE, 2000));
        GUEST_WRITE(&guest, CMD_VERSION);
        GUEST_RUN(&guest, CMD_RING(vkNotifyRingMESA), guest.tail, 0);
        assert_true(guest_wait(&guest, 1000));
    }
    GUEST_RUN(&guest, CMD_RING(vkNotifyRingMESA), guest.tail, 0); /* needless, harmless */
}

/* The front door has heard something: the ring runs without a notify. */
static void test_hint(void **state)
{
    for (unsigned i = 0; i < 10; i++) {
        assert_true(guest_wait_status(&guest, PV_RING_STATUS_IDLE, 2000));
        guest_sleep_us(i * 3000);
        GUEST_WRITE(&guest, CMD_VERSION);
        pv_context_hint(guest.ctx);
        assert_true(guest_wait(&guest, 1000));
        pv_context_settle(guest.ctx);
    }
    pv_context_hint(guest.ctx);
    pv_context_settle(guest.ctx);
}

/* A batch with a command that blocks, run by the hint only up to there. */
static void test_hint_does_not_block(void **state)
{
    assert_true(guest_wait_status(&guest, PV_RING_STATUS_IDLE, 2000));
    GUEST_WRITE(&guest, CMD_VERSION, CMD_WAIT_VIRTQUEUE(1), CMD_VERSION);
    pv_context_hint(guest.ctx);
    pv_context_settle(guest.ctx);
    assert_false(guest_wait(&guest, 20));
    GUEST_RUN(&guest, CMD_RING(vkSubmitVirtqueueSeqnoMESA), 1, 0);
    assert_true(guest_wait(&guest, 1000));
}

static uint64_t cpu_us(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (uint64_t)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000u +
           (uint64_t)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
}

static void test_idle_uses_no_cpu(void **state)
{
    GUEST_WRITE(&guest, CMD_VERSION);
    assert_true(guest_wait_status(&guest, PV_RING_STATUS_IDLE, 2000));
    guest_sleep_us(50000);
    uint64_t before = cpu_us();
    guest_sleep_us(1000000);
    uint64_t used = cpu_us() - before;
    if (!getenv("PV_SANITIZED"))
        assert_in_range(used, 0, 5000);
}

/* A sleeping ring looks at its tail now and then in case a wake-up is lost. Without that (linked
 * with -Wl,--wrap=pthread_cond_timedwait) a lost one is lost for good, and seen. */
static atomic_bool no_second_look;

int __wrap_pthread_cond_timedwait(pthread_cond_t *cond, pthread_mutex_t *mutex,
                                  const struct timespec *until);
int __real_pthread_cond_timedwait(pthread_cond_t *cond, pthread_mutex_t *mutex,
                                  const struct timespec *until);

int __wrap_pthread_cond_timedwait(pthread_cond_t *cond, pthread_mutex_t *mutex,
                                  const struct timespec *until)
{
    if (atomic_load(&no_second_look))
        return pthread_cond_wait(cond, mutex);
    return __real_pthread_cond_timedwait(cond, mutex, until);
}

/* The guest as Mesa writes it: store the tail, look at the status, notify if idle. The ring falls
 * asleep at every moment of that. */
static void test_lost_wake_ups(void **state)
{
    struct guest_ring_info info = guest_ring_info(&guest);
    const unsigned rounds = getenv("PV_SANITIZED") ? 10000 : 100000;
    uint32_t random = 12345;
    info.idle_timeout = 0;
    atomic_store(&no_second_look, true);
    assert_int_equal(guest_create_ring(&guest, GUEST_RING_ID, &info), 0);
    for (unsigned i = 0; i < rounds; i++) {
        random = random * 1664525 + 1013904223;
        if (random >> 27 == 0)
            guest_sleep_us(random >> 20 & 127);
        else
            for (uint32_t spin = random >> 18 & 1023; spin > 0; spin--)
                pv_cpu_relax();
        GUEST_WRITE(&guest, CMD_VERSION);
        guest_notify(&guest);
        if (!guest_wait(&guest, 20000))
            fail_msg("round trip %u never ends", i);
    }
    atomic_store(&no_second_look, false);
}

/* ---- extra, sequence numbers ------------------------------------------------------------------
 */

static void test_extra(void **state)
{
    uint32_t value;
    GUEST_RUN(&guest, CMD_RING(vkWriteRingExtraMESA), 0, 0, 0xabcd);
    memcpy(&value, guest.ring + 192 + BUFFER, sizeof(value));
    assert_int_equal(value, 0xabcd);
    assert_int_equal(GUEST_SUBMIT(&guest, CMD_RING(vkWriteRingExtraMESA), 4, 0, 1), -EIO);
    guest_expect_failure(&guest, "offset 4 is outside the extra region");
}

static void test_extra_far_outside(void **state)
{
    assert_int_equal(
        GUEST_SUBMIT(&guest, CMD_RING(vkWriteRingExtraMESA), 0xfffffffc, 0xffffffff, 1), -EIO);
    guest_expect_failure(&guest, "is outside the extra region");
}

static void test_wait_seqno(void **state)
{
    for (unsigned i = 0; i < 200; i++) {
        GUEST_WRITE(&guest, CMD_VERSION, CMD_VERSION, CMD_VERSION);
        guest_notify(&guest);
        GUEST_RUN(&guest, CMD_RING(vkWaitRingSeqnoMESA), guest.tail, 0);
        assert_int_equal(atomic_load(guest_head(&guest)), guest.tail);
        if (i % 50 == 0)
            guest_sleep_us(3000);
    }
    GUEST_RUN(&guest, CMD_RING(vkWaitRingSeqnoMESA), 16, 0); /* long past */
}

static void test_wait_seqno_beyond_tail(void **state)
{
    GUEST_WRITE(&guest, CMD_VERSION);
    assert_int_equal(GUEST_SUBMIT(&guest, CMD_RING(vkWaitRingSeqnoMESA), guest.tail + 4, 0), -EIO);
    guest_expect_failure(&guest, "seqno 0x14 is beyond the tail");
}

static void test_virtqueue_seqno(void **state)
{
    GUEST_WRITE(&guest, CMD_WAIT_VIRTQUEUE(3));
    guest_notify(&guest);
    assert_false(guest_wait(&guest, 20));
    GUEST_RUN(&guest, CMD_RING(vkSubmitVirtqueueSeqnoMESA), 2, 0);
    assert_false(guest_wait(&guest, 20));
    GUEST_RUN(&guest, CMD_RING(vkSubmitVirtqueueSeqnoMESA), 3, 0);
    assert_true(guest_wait(&guest, 1000));
    GUEST_WRITE(&guest, CMD_WAIT_VIRTQUEUE(1)); /* reached already */
    guest_notify(&guest);
    assert_true(guest_wait(&guest, 1000));
}

/* What comes before a command that blocks counts as done, also when both were written in one piece:
 * Mesa 26.2 waits on the context stream for a vkQueueSubmit in front of such a command. */
static void test_done_before_a_wait(void **state)
{
    uint32_t before = guest.tail + 16;
    GUEST_WRITE(&guest, CMD_VERSION, CMD_WAIT_VIRTQUEUE(4));
    guest_notify(&guest);
    GUEST_RUN(&guest, CMD_RING(vkWaitRingSeqnoMESA), before, 0);
    assert_false(guest_wait(&guest, 20));
    GUEST_RUN(&guest, CMD_RING(vkSubmitVirtqueueSeqnoMESA), 4, 0);
    assert_true(guest_wait(&guest, 1000));
}

static void test_wrong_place(void **state)
{
    GUEST_WRITE(&guest, CMD_RING(vkNotifyRingMESA), 0, 0);
    check_fatal("belongs on the context stream");
}

static void test_wrong_place_too(void **state)
{
    assert_int_equal(GUEST_SUBMIT(&guest, CMD_WAIT_VIRTQUEUE(0)), -EIO);
    guest_expect_failure(&guest, "belongs on a ring");
}

/* ---- the end ----------------------------------------------------------------------------------
 */

/* Destroying runs what was written, and cuts waits short. */
static void test_destroy_drains(void **state)
{
    GUEST_WRITE(&guest, CMD_SET_REPLY(0, 64), CMD_WAIT_VIRTQUEUE(9),
                PV_COMMAND_vkEnumerateInstanceVersion, 1, 1, 0);
    guest_notify(&guest);
    guest_sleep_us(20000); /* it blocks by now */
    uint64_t begin = pv_now_ns();
    GUEST_RUN(&guest, CMD_RING(vkDestroyRingMESA));
    assert_true(pv_now_ns() - begin < 500000000);
    assert_int_equal(atomic_load(guest_head(&guest)), guest.tail);
    assert_int_equal(guest.replies[0], PV_COMMAND_vkEnumerateInstanceVersion);
    /* its memory is the guest's again */
    atomic_store(guest_tail(&guest), 0x12345);
    guest_sleep_us(5000);
    assert_int_equal(atomic_load(&guest.failures), 0);
    memset(guest.ring, 0, guest_ring_size(&guest));
    const struct guest_ring_info info = guest_ring_info(&guest);
    assert_int_equal(guest_create_ring(&guest, GUEST_RING_ID, &info), 0);
    assert_int_equal(GUEST_SUBMIT(&guest, CMD_HEAD(vkDestroyRingMESA), 9, 9), -EIO);
    guest_expect_failure(&guest, "ring 0x900000009 does not exist");
}

static void *write_for_ever(void *data)
{
    atomic_bool *stop = data;
    while (!atomic_load(stop)) {
        if (guest.tail - atomic_load(guest_head(&guest)) <= BUFFER / 2)
            GUEST_WRITE(&guest, CMD_VERSION, CMD_VERSION, CMD_VERSION, CMD_VERSION);
    }
    return NULL;
}

/* A guest that goes on writing while its ring is destroyed cannot keep it alive. */
static void test_destroy_against_writer(void **state)
{
    pthread_t thread;
    atomic_bool stop = false;
    pthread_create(&thread, NULL, write_for_ever, &stop);
    guest_sleep_us(5000);
    uint64_t begin = pv_now_ns();
    int ret = GUEST_SUBMIT(&guest, CMD_RING(vkDestroyRingMESA));
    uint64_t took = pv_now_ns() - begin;
    atomic_store(&stop, true);
    pthread_join(thread, NULL);
    assert_int_equal(ret, 0);
    assert_true(took < 2000000000);
}

static void test_context_destroyed_while_blocked(void **state)
{
    GUEST_WRITE(&guest, CMD_WAIT_VIRTQUEUE(9), CMD_VERSION);
    guest_notify(&guest);
    guest_sleep_us(20000);
    /* close_guest does the rest, in time */
}

static void *wait_for_ring(void *data)
{
    return (void *)(intptr_t)GUEST_SUBMIT(&guest, CMD_RING(vkWaitRingSeqnoMESA), guest.tail, 0);
}

/* Context stream waits for the ring, ring waits for the context stream: until the guest is gone. */
static void test_deadlock_ends_with_the_guest(void **state)
{
    pthread_t thread;
    GUEST_WRITE(&guest, CMD_WAIT_VIRTQUEUE(9));
    guest_notify(&guest);
    pthread_create(&thread, NULL, wait_for_ring, NULL);
    guest_sleep_us(30000);
    atomic_store(&guest.gone, true);
    uint64_t begin = pv_now_ns();
    pthread_join(thread, NULL);
    assert_true(pv_now_ns() - begin < 1000000000);
}

static void test_monitor(void **state)
{
    struct guest_ring_info info = guest_ring_info(&guest);
    info.monitor_period = 20000;
    assert_int_equal(guest_create_ring(&guest, GUEST_RING_ID, &info), 0);
    GUEST_WRITE(&guest, CMD_WAIT_VIRTQUEUE(1)); /* a ring that waits is alive */
    for (unsigned i = 0; i < 5; i++) {
        assert_true(guest_wait_status(&guest, PV_RING_STATUS_ALIVE, i == 0 ? 1000 : 100));
        atomic_fetch_and(guest_status(&guest), ~PV_RING_STATUS_ALIVE);
    }
    GUEST_RUN(&guest, CMD_RING(vkSubmitVirtqueueSeqnoMESA), 1, 0);
    GUEST_RUN(&guest, CMD_RING(vkDestroyRingMESA));
    atomic_store(guest_status(&guest), 0);
    guest_sleep_us(60000);
    assert_int_equal(atomic_load(guest_status(&guest)), 0);
}

static void test_poison(void **state)
{
    pv_context_poison(guest.ctx);
    assert_true(guest_wait_status(&guest, PV_RING_STATUS_FATAL, 0));
}

int main(void)
{
#define WITH_RING(test) cmocka_unit_test_setup_teardown(test, open_with_ring, close_guest)
#define WITHOUT(test)   cmocka_unit_test_setup_teardown(test, open_guest, close_guest)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bad_layouts),
        WITHOUT(test_head_and_status_must_be_0),
        WITH_RING(test_one_id_one_ring),
        WITH_RING(test_wrap_around),
        WITH_RING(test_tail_past_buffer),
        WITH_RING(test_tail_before_head),
        WITH_RING(test_tail_inside_a_word),
        WITH_RING(test_tail_inside_a_command),
        WITH_RING(test_idle_and_notify),
        WITH_RING(test_hint),
        WITH_RING(test_hint_does_not_block),
        WITH_RING(test_idle_uses_no_cpu),
        WITHOUT(test_lost_wake_ups),
        WITH_RING(test_extra),
        WITH_RING(test_extra_far_outside),
        WITH_RING(test_wait_seqno),
        WITH_RING(test_wait_seqno_beyond_tail),
        WITH_RING(test_virtqueue_seqno),
        WITH_RING(test_done_before_a_wait),
        WITH_RING(test_wrong_place),
        WITH_RING(test_wrong_place_too),
        WITH_RING(test_destroy_drains),
        WITH_RING(test_destroy_against_writer),
        WITH_RING(test_context_destroyed_while_blocked),
        WITH_RING(test_deadlock_ends_with_the_guest),
        WITHOUT(test_monitor),
        WITH_RING(test_poison),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
