#include "gpu_fixture.h"
#include "util/os.h"
#include "venus/activity.h"
#include "venus/capset.h"

#include "unit.h"

#include <math.h>
#include <string.h>

#define MS UINT64_C(1000000)

/* The clock stands still. */
static uint64_t now_ns;
uint64_t __wrap_pv_now_ns(void);

uint64_t __wrap_pv_now_ns(void)
{
    return now_ns;
}

static struct gpu_fixture fixture;
static struct pv_activity *activity;

static int set_up(void **state)
{
    now_ns = 1000000 * MS;
    fixture_open(&fixture, &(struct gpu_options){.venus = true, .window = PV_GPU_WINDOW_ARENA});
    assert_int_equal(create_context(&fixture, 1, PV_CAPSET_VENUS), PV_RESP_OK_NODATA);
    activity = fixture.workers[0].activity;
    assert_non_null(activity);
    return 0;
}

static int tear_down(void **state)
{
    fixture_close(&fixture);
    return 0;
}

static struct pv_gpu_context_stats look(void)
{
    struct pv_gpu_context_stats stats;
    assert_int_equal(pv_gpu_get_contexts(fixture.gpu, &stats, 1), 1);
    return stats;
}

/* Frames every `interval_ns`, the last one `ago_ns` before now. */
static void show_frames(uint64_t count, uint64_t interval_ns, uint64_t ago_ns)
{
    uint64_t start = now_ns - ago_ns - (count - 1) * interval_ns;
    for (uint64_t i = 0; i < count; i++)
        atomic_store(&activity->frame_ns[i % PV_ACTIVITY_FRAMES], start + i * interval_ns);
    atomic_store(&activity->frames, count);
}

static void assert_about(double value, double expected, double tolerance)
{
    if (fabs(value - expected) > tolerance)
        fail_msg("%g, expected %g", value, expected);
}

static void test_nothing(void **state)
{
    struct pv_gpu_context_stats stats = look();
    assert_int_equal(stats.commands, 0);
    assert_int_equal(stats.frames, 0);
    assert_int_equal(stats.frame_median_ns, 0);
    assert_about(stats.fps, 0, 0);
    assert_about(stats.commands_per_s, 0, 0);
}

static void test_counters(void **state)
{
    atomic_store(&activity->commands, 12345);
    atomic_store(&activity->submissions, 67);
    atomic_store(&activity->memory_bytes, 1000);
    atomic_store(&activity->shm_bytes, 24);
    struct pv_gpu_context_stats stats = look();
    assert_int_equal(stats.commands, 12345);
    assert_int_equal(stats.submissions, 67);
    assert_int_equal(stats.memory_bytes, 1024);
}

static void test_steady(void **state)
{
    show_frames(1000, 16722 * MS / 1000, 5 * MS);
    struct pv_gpu_context_stats stats = look();
    assert_int_equal(stats.frames, 1000);
    assert_about(stats.fps, 59.8, 0.01);
    assert_int_equal(stats.frame_median_ns, 16722 * MS / 1000);
    assert_int_equal(stats.frame_p99_ns, 16722 * MS / 1000);
}

static void test_very_fast(void **state)
{
    show_frames(5000, MS / 2, 0); /* what is remembered is a fraction of a second */
    assert_about(look().fps, 2000, 0.01);
}

static void test_slow(void **state)
{
    show_frames(10, 1500 * MS, 200 * MS);
    struct pv_gpu_context_stats stats = look();
    assert_about(stats.fps, 1 / 1.5, 0.001);
    assert_int_equal(stats.frame_median_ns, 1500 * MS);
}

static void test_stopped(void **state)
{
    show_frames(200, 10 * MS, 700 * MS);
    assert_about(look().fps, 30, 0); /* those of the last second */
    now_ns += 400 * MS;
    assert_about(look().fps, 0, 0);
    assert_int_equal(look().frame_median_ns, 10 * MS);
    now_ns += 5000 * MS;
    assert_int_equal(look().frame_median_ns, 0);
    assert_int_equal(look().frames, 200);
}

static void test_first_frames(void **state)
{
    show_frames(1, 10 * MS, 1 * MS);
    assert_about(look().fps, 1, 0);
    show_frames(2, 10 * MS, 1 * MS);
    assert_about(look().fps, 100, 0);
}

static void test_percentile(void **state)
{
    uint64_t time = now_ns;
    for (unsigned i = 0; i < 200; i++) {
        atomic_store(&activity->frame_ns[i], time);
        time -= i % 40 == 3 ? 50 * MS : 10 * MS;
    }
    struct pv_gpu_context_stats stats = look();
    assert_int_equal(stats.frame_median_ns, 10 * MS);
    assert_int_equal(stats.frame_p99_ns, 50 * MS);
}

/* The worker may write what it likes, and all of it at any time. */
static void test_nonsense(void **state)
{
    memset(activity, 0xff, sizeof(*activity));
    struct pv_gpu_context_stats stats = look();
    assert_int_equal(stats.memory_bytes, UINT64_MAX);
    assert_int_equal(stats.frame_median_ns, 0); /* frames of the future */
    assert_about(stats.fps, 0, 0);
    for (unsigned i = 0; i < PV_ACTIVITY_FRAMES; i++)
        atomic_store(&activity->frame_ns[i], now_ns);
    stats = look();
    assert_int_equal(stats.frame_p99_ns, 0);
    assert_about(stats.fps, PV_ACTIVITY_FRAMES, 0);
    for (unsigned i = 0; i < PV_ACTIVITY_FRAMES; i++)
        atomic_store(&activity->frame_ns[i], i * i * UINT64_C(0x9e3779b97f4a7c15));
    stats = look();
    assert_true(isfinite(stats.fps) && stats.fps >= 0);
}

/* The device samples when its timer runs, by its own clock. */
static void sample_after(uint64_t ms)
{
    now_ns += ms * MS;
    uint64_t before = uv_hrtime();
    while (uv_hrtime() - before < 1100 * MS)
        uv_run(&fixture.loop, UV_RUN_ONCE);
}

static void test_command_rate(void **state)
{
    atomic_store(&activity->commands, 3000);
    sample_after(2000);
    assert_about(look().commands_per_s, 1500, 0.01);
    atomic_store(&activity->commands, 100); /* backwards */
    sample_after(1000);
    assert_about(look().commands_per_s, 0, 0);
    atomic_store(&activity->commands, UINT64_MAX);
    sample_after(1000);
    assert_true(isfinite(look().commands_per_s));
}

int main(void)
{
#define WITH_CONTEXT(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        WITH_CONTEXT(test_nothing),      WITH_CONTEXT(test_counters),   WITH_CONTEXT(test_steady),
        WITH_CONTEXT(test_very_fast),    WITH_CONTEXT(test_slow),       WITH_CONTEXT(test_stopped),
        WITH_CONTEXT(test_first_frames), WITH_CONTEXT(test_percentile), WITH_CONTEXT(test_nonsense),
        WITH_CONTEXT(test_command_rate),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
