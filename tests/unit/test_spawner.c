#include "worker/spawner.h"

#include "stub_context.h"
#include "unit.h"
#include "util/os.h"
#include "venus/activity.h"
#include "worker/gpu_worker.h"
#include "worker/link.h"

#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include <uv.h>

#define WORKERS 64

static struct pv_host_caps caps;
static struct pv_spawner *spawner;
static uv_loop_t loop;
static struct {
    pid_t pid; /* -1: not heard yet */
    bool ended;
    int status;
} workers[WORKERS];
static unsigned lost_count;

static void on_started(void *data, uint64_t id, pid_t pid)
{
    assert_ptr_equal(data, &loop);
    assert_int_equal(workers[id % WORKERS].pid, -1);
    workers[id % WORKERS].pid = pid;
}

static void on_ended(void *data, uint64_t id, int status)
{
    assert_true(workers[id % WORKERS].pid > 0);
    assert_false(workers[id % WORKERS].ended);
    workers[id % WORKERS].ended = true;
    workers[id % WORKERS].status = status;
}

static void on_lost(void *data)
{
    lost_count++;
}

static int open_spawner(void **state)
{
    static const struct pv_spawner_events events = {on_started, on_ended, on_lost};
    const struct pv_spawner_params params = {.caps = &caps};
    for (unsigned i = 0; i < WORKERS; i++)
        workers[i] = (__typeof__(workers[0])){.pid = -1};
    lost_count = 0;
    void (*handler)(int) = signal(SIGSEGV, SIG_DFL); /* cmocka's would live on in the workers */
    assert_int_equal(pv_spawner_create(&params, &spawner), 0);
    signal(SIGSEGV, handler);
    assert_int_equal(uv_loop_init(&loop), 0);
    assert_int_equal(pv_spawner_watch(spawner, &loop, &events, &loop), 0);
    return 0;
}

static void destroy(void)
{
    pv_spawner_destroy(spawner);
    spawner = NULL;
    uv_run(&loop, UV_RUN_NOWAIT);
    assert_int_equal(uv_loop_close(&loop), 0);
}

static int close_spawner(void **state)
{
    if (spawner)
        destroy();
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1); /* no zombies */
    return 0;
}

/* Run the loop until `done` is true, for some seconds. */
#define RUN_UNTIL(done)                                       \
    do {                                                      \
        uint64_t until = pv_now_ns() + UINT64_C(20000000000); \
        while (!(done) && pv_now_ns() < until) {              \
            uv_run(&loop, UV_RUN_NOWAIT);                     \
            usleep(200);                                      \
        }                                                     \
        assert_true(done);                                    \
    } while (0)

/* kill(2), which takes a pid that is not known yet, -1, for "everybody". */
static void send_signal(pid_t pid, int number)
{
    assert_true(pid > 0);
    assert_int_equal(kill(pid, number), 0);
}

/* Ask for a worker; its link. */
static struct pv_link *start(uint64_t id, int arena_fd)
{
    int fds[2];
    struct pv_link *link;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    assert_int_equal(pv_link_create(fds[0], false, &link), 0);
    const struct pv_spawner_fds given = {.link = fds[1], .activity = -1, .arena = arena_fd};
    assert_int_equal(pv_spawner_start(spawner, id, (uint32_t)id, "test", &given), 0);
    close(fds[1]);
    return link;
}

static bool answers(struct pv_link *link)
{
    struct pollfd poll_fd = {.fd = pv_link_fd(link), .events = POLLIN};
    const struct pv_link_message ping = {.type = PV_LINK_PING};
    struct pv_link_message got;
    const void *payload;
    int fd, ret;
    if (pv_link_send(link, &ping, NULL, -1) < 0)
        return false;
    while ((ret = pv_link_receive(link, &got, &payload, &fd)) == 0)
        assert_true(poll(&poll_fd, 1, 10000) > 0);
    return ret == 1 && got.type == PV_LINK_PONG;
}

static void submit(struct pv_link *link, uint32_t word, uint32_t argument)
{
    const uint32_t words[] = {word, argument};
    const struct pv_link_message message = {
        .type = PV_LINK_SUBMIT,
        .payload_size = sizeof(words),
    };
    assert_int_equal(pv_link_send(link, &message, words, -1), 0);
}

static bool exists(pid_t pid)
{
    char path[64], state = 'X';
    snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    FILE *file = fopen(path, "r");
    if (!file)
        return false;
    if (fscanf(file, "%*d %*s %c", &state) != 1)
        state = 'X';
    fclose(file);
    return state != 'Z' && state != 'X'; /* who adopts it may be slow to reap */
}

static unsigned count_fds(pid_t pid)
{
    char path[64];
    unsigned count = 0;
    snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
    DIR *dir = opendir(path);
    assert_non_null(dir);
    while (readdir(dir))
        count++;
    closedir(dir);
    return count;
}

/* The spawner is our only child. */
static pid_t spawner_pid(void)
{
    char path[64];
    int pid = 0;
    snprintf(path, sizeof(path), "/proc/self/task/%d/children", (int)getpid());
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    assert_int_equal(fscanf(file, "%d", &pid), 1);
    fclose(file);
    return pid;
}

/* ---- the usual ---- */

static void test_starts_and_ends(void **state)
{
    int arena_fd = -1;
    assert_int_equal(pv_shm_create("arena", 1 << 20, &arena_fd), 0);
    struct pv_link *link = start(1, arena_fd);
    RUN_UNTIL(workers[1].pid != -1);
    assert_true(workers[1].pid > 0);
    assert_true(answers(link));
    /* standard input, output and error, link, arena, and what the C library may need */
    assert_true(count_fds(workers[1].pid) <= 2 + 3 + 2 + 1);
    assert_false(workers[1].ended);
    pv_link_destroy(link);
    pv_spawner_end(spawner, 1, 5000);
    RUN_UNTIL(workers[1].ended);
    assert_int_equal(workers[1].status, 0);
    close(arena_fd);
}

static void start_counting(uint64_t id, int arena_fd)
{
    struct pv_activity *activity;
    void *map;
    int fds[2], fd;
    struct pv_link *link;
    assert_int_equal(pv_shm_create("activity", sizeof(*activity), &fd), 0);
    assert_int_equal(pv_shm_map(fd, sizeof(*activity), &map), 0);
    activity = map;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    assert_int_equal(pv_link_create(fds[0], false, &link), 0);
    const struct pv_spawner_fds given = {.link = fds[1], .activity = fd, .arena = arena_fd};
    assert_int_equal(pv_spawner_start(spawner, id, (uint32_t)id, "test", &given), 0);
    close(fds[1]);
    close(fd);
    assert_true(answers(link));
    assert_int_equal(atomic_load(&activity->commands), STUB_COMMANDS);
    RUN_UNTIL(workers[id].pid > 0);
    /* mapped, and closed; the rest as above */
    assert_true(count_fds(workers[id].pid) <= 2 + 3 + 1 + (arena_fd >= 0) + 1);
    pv_link_destroy(link);
    pv_spawner_end(spawner, id, 5000);
    RUN_UNTIL(workers[id].ended);
    pv_shm_unmap(map, sizeof(*activity));
}

static void test_activity(void **state)
{
    int arena_fd = -1;
    assert_int_equal(pv_shm_create("arena", 1 << 20, &arena_fd), 0);
    start_counting(1, -1);
    start_counting(2, arena_fd);
    close(arena_fd);
}

static void test_many(void **state)
{
    struct pv_link *links[WORKERS];
    unsigned own = 0, spawners = 0;
    pid_t process = spawner_pid();
    for (unsigned round = 0; round < 6; round++) {
        for (unsigned i = 0; i < 40; i++) {
            workers[i] = (__typeof__(workers[0])){.pid = -1};
            links[i] = start(round * WORKERS + i, -1);
        }
        for (unsigned i = 0; i < 40; i++) {
            RUN_UNTIL(workers[i].pid != -1);
            assert_true(workers[i].pid > 0);
            pv_link_destroy(links[i]);
            pv_spawner_end(spawner, round * WORKERS + i, 10000);
        }
        for (unsigned i = 0; i < 40; i++) {
            RUN_UNTIL(workers[i].ended);
            assert_int_equal(workers[i].status, 0);
        }
        if (round == 0) {
            own = count_fds(getpid());
            spawners = count_fds(process);
        }
    }
    assert_int_equal(count_fds(getpid()), own);
    assert_int_equal(count_fds(process), spawners);
}

/* ---- workers that die, and that do not ---- */

static void test_crash(void **state)
{
    struct pv_link *link = start(1, -1), *other = start(2, -1);
    submit(link, 3, 0);
    RUN_UNTIL(workers[1].ended);
    assert_true(WIFSIGNALED(workers[1].status));
    assert_int_equal(WTERMSIG(workers[1].status), SIGSEGV);
    assert_false(answers(link));
    assert_true(answers(other));
    RUN_UNTIL(workers[2].pid > 0);
    send_signal(workers[2].pid, SIGKILL);
    RUN_UNTIL(workers[2].ended);
    assert_true(WIFSIGNALED(workers[2].status));
    assert_int_equal(WTERMSIG(workers[2].status), SIGKILL);
    pv_link_destroy(link);
    pv_link_destroy(other);
}

static void test_nonsense_on_the_link(void **state)
{
    struct pv_link *link = start(1, -1);
    char bytes[64] = "what is this";
    assert_int_equal(write(pv_link_fd(link), bytes, sizeof(bytes)), sizeof(bytes));
    RUN_UNTIL(workers[1].ended);
    assert_true(WIFEXITED(workers[1].status));
    assert_int_equal(WEXITSTATUS(workers[1].status), PV_GPU_WORKER_FAILED);
    pv_link_destroy(link);
}

/* Stopped by SIGSTOP, so that it hears nothing. */
static void test_killed_after_the_grace(void **state)
{
    struct pv_link *link = start(1, -1), *other = start(2, -1);
    assert_true(answers(link));
    assert_true(answers(other));
    RUN_UNTIL(workers[1].pid > 0 && workers[2].pid > 0);
    send_signal(workers[1].pid, SIGSTOP);
    send_signal(workers[2].pid, SIGSTOP);
    pv_link_destroy(link);
    pv_link_destroy(other);
    uint64_t begin = pv_now_ns();
    pv_spawner_end(spawner, 1, 300);
    pv_spawner_end(spawner, 2, 0);
    pv_spawner_end(spawner, 3, 0); /* there is none */
    RUN_UNTIL(workers[2].ended);
    RUN_UNTIL(workers[1].ended);
    assert_true(pv_now_ns() - begin >= 300000000u);
    assert_int_equal(WTERMSIG(workers[1].status), SIGKILL);
    assert_int_equal(WTERMSIG(workers[2].status), SIGKILL);
}

/* ---- a host that has run out ---- */

static void test_no_process(void **state)
{
    struct rlimit none = {0, 0};
    if (geteuid() == 0) { /* whom the limit does not bind */
        print_message("skipped: root may fork without limit\n");
        return;
    }
    assert_int_equal(prlimit(spawner_pid(), RLIMIT_NPROC, &none, NULL), 0);
    struct pv_link *link = start(1, -1);
    RUN_UNTIL(workers[1].pid != -1);
    assert_int_equal(workers[1].pid, 0);
    assert_false(answers(link));
    pv_link_destroy(link);
}

/* The spawner can take no fd: no worker, but an answer. */
static void test_no_fds(void **state)
{
    struct rlimit none = {3, 3};
    pv_link_destroy(start(2, -1));
    RUN_UNTIL(workers[2].pid != -1); /* it is up */
    assert_int_equal(prlimit(spawner_pid(), RLIMIT_NOFILE, &none, NULL), 0);
    struct pv_link *link = start(1, -1);
    RUN_UNTIL(workers[1].pid != -1);
    assert_int_equal(workers[1].pid, 0);
    pv_link_destroy(link);
}

/* Requests that do not fit: starting is refused, ending waits for room. */
static void test_full(void **state)
{
    struct pv_link *link = start(1, -1);
    int fds[2], ret;
    RUN_UNTIL(workers[1].pid != -1);
    pid_t process = spawner_pid();
    send_signal(process, SIGSTOP);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    const struct pv_spawner_fds given = {.link = fds[1], .activity = -1, .arena = -1};
    unsigned count = 0;
    workers[2].pid = -2; /* whatever becomes of them */
    while ((ret = pv_spawner_start(spawner, 3 + count, 3, "test", &given)) == 0)
        assert_true(++count < WORKERS * 100);
    assert_int_equal(ret, -ENOBUFS);
    for (unsigned i = 0; i < 100; i++)
        pv_spawner_end(spawner, 1, 0);
    assert_int_equal(pv_spawner_start(spawner, 2, 3, "test", &given), -ENOBUFS);
    close(fds[0]);
    close(fds[1]);
    pv_link_destroy(link);
    send_signal(process, SIGKILL); /* rather than start so many */
    RUN_UNTIL(lost_count == 1);
}

/* ---- somebody else dies ---- */

static void test_spawner_dies(void **state)
{
    struct pv_link *link = start(1, -1);
    assert_true(answers(link));
    RUN_UNTIL(workers[1].pid > 0);
    send_signal(spawner_pid(), SIGKILL);
    RUN_UNTIL(lost_count == 1);
    RUN_UNTIL(!exists(workers[1].pid));
    const struct pv_spawner_fds given = {.link = 0, .activity = -1, .arena = -1};
    assert_int_equal(pv_spawner_start(spawner, 2, 2, "test", &given), -EPIPE);
    pv_spawner_end(spawner, 1, 0);
    assert_false(answers(link));
    assert_int_equal(lost_count, 1);
    pv_link_destroy(link);
}

/* A worker that listens to SIGTERM, and one that cannot. */
static void test_destroyed_with_workers(void **state)
{
    struct pv_link *link = start(1, -1), *other = start(2, -1);
    assert_true(answers(link));
    assert_true(answers(other));
    RUN_UNTIL(workers[1].pid > 0 && workers[2].pid > 0);
    send_signal(workers[2].pid, SIGSTOP);
    destroy();
    assert_false(exists(workers[1].pid));
    assert_false(exists(workers[2].pid));
    pv_link_destroy(link);
    pv_link_destroy(other);
}

/* A device that is killed takes everybody along. */
static void test_device_dies(void **state)
{
    int pipes[2];
    assert_int_equal(pipe(pipes), 0);
    pid_t device = fork();
    if (device == 0) {
        pid_t pids[2];
        spawner = NULL;
        open_spawner(NULL);
        struct pv_link *link = start(1, -1);
        RUN_UNTIL(workers[1].pid > 0 && answers(link));
        pids[0] = spawner_pid();
        pids[1] = workers[1].pid;
        if (write(pipes[1], pids, sizeof(pids)) == sizeof(pids))
            pause();
        _exit(1);
    }
    pid_t pids[2];
    assert_int_equal(read(pipes[0], pids, sizeof(pids)), sizeof(pids));
    assert_true(exists(pids[0]) && exists(pids[1]));
    send_signal(device, SIGKILL);
    assert_int_equal(waitpid(device, NULL, 0), device);
    RUN_UNTIL(!exists(pids[0]) && !exists(pids[1]));
    close(pipes[0]);
    close(pipes[1]);
}

/* A callback may destroy the spawner. */
static void destroy_in_callback(void *data, uint64_t id, int status)
{
    pv_spawner_destroy(spawner);
    spawner = NULL;
}

static void test_destroyed_in_a_callback(void **state)
{
    static const struct pv_spawner_events events = {on_started, destroy_in_callback, on_lost};
    destroy();
    const struct pv_spawner_params params = {.caps = &caps};
    assert_int_equal(pv_spawner_create(&params, &spawner), 0);
    assert_int_equal(uv_loop_init(&loop), 0);
    assert_int_equal(pv_spawner_watch(spawner, &loop, &events, &loop), 0);
    pv_link_destroy(start(1, -1));
    pv_link_destroy(start(2, -1));
    RUN_UNTIL(!spawner);
    uv_run(&loop, UV_RUN_NOWAIT);
    assert_int_equal(uv_loop_close(&loop), 0);
}

int main(void)
{
#define TEST(test) cmocka_unit_test_setup_teardown(test, open_spawner, close_spawner)
    const struct CMUnitTest tests[] = {
        TEST(test_starts_and_ends),
        TEST(test_activity),
        TEST(test_many),
        TEST(test_crash),
        TEST(test_nonsense_on_the_link),
        TEST(test_killed_after_the_grace),
        TEST(test_no_process),
        TEST(test_no_fds),
        TEST(test_full),
        TEST(test_spawner_dies),
        TEST(test_destroyed_with_workers),
        TEST(test_device_dies),
        TEST(test_destroyed_in_a_callback),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
