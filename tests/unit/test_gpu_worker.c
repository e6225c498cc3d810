#include "worker/gpu_worker.h"

#include "stub_context.h"
#include "unit.h"
#include "util/os.h"
#include "venus/context.h"
#include "vulkan/host.h"
#include "worker/link.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define ARENA_SIZE (UINT64_C(1) << 24)

static struct pv_link *device;
static struct pv_gpu_worker *worker;
static pthread_t thread;
static int run_result, arena_fd, activity_fd = -1;
static const struct pv_host_caps caps;

static void *run_main(void *data)
{
    run_result = pv_gpu_worker_run(worker);
    return NULL;
}

static void open_worker(int arena)
{
    int fds[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    assert_int_equal(pv_link_create(fds[0], false, &device), 0);
    const struct pv_gpu_worker_params params = {
        .link_fd = fds[1],
        .arena_fd = arena,
        .activity_fd = activity_fd,
        .ctx_id = 7,
        .name = "test",
        .caps = &caps,
    };
    memset(stub_resource, 0, sizeof(stub_resource));
    assert_int_equal(pv_gpu_worker_create(&params, &worker), 0);
    assert_int_equal(pthread_create(&thread, NULL, run_main, NULL), 0);
}

static void join(void)
{
    if (worker)
        pthread_join(thread, NULL);
    pv_gpu_worker_destroy(worker);
    worker = NULL;
}

static void hang_up(void)
{
    pv_link_destroy(device);
    device = NULL;
    join();
}

static int open_with_arena(void **state)
{
    assert_int_equal(pv_shm_create("arena", ARENA_SIZE, &arena_fd), 0);
    open_worker(arena_fd);
    return 0;
}

static int open_without_arena(void **state)
{
    arena_fd = -1;
    open_worker(-1);
    return 0;
}

static int close_all(void **state)
{
    hang_up();
    if (arena_fd >= 0)
        close(arena_fd);
    assert_false(stub.alive);
    return 0;
}

static void say(struct pv_link_message message)
{
    assert_int_equal(pv_link_send(device, &message, NULL, -1), 0);
}

static void submit(const uint32_t *words, uint32_t count)
{
    const struct pv_link_message message = {.type = PV_LINK_SUBMIT, .payload_size = 4 * count};
    assert_int_equal(pv_link_send(device, &message, words, -1), 0);
}
#define SUBMIT(...)                         \
    submit((const uint32_t[]){__VA_ARGS__}, \
           sizeof((const uint32_t[]){__VA_ARGS__}) / sizeof(uint32_t))

/* The next message, within some seconds, as 1; 0 if there is none; -EPIPE. The fd is closed, and
 * its size counts. */
static struct pv_link_message heard;
static char text[200];
static int64_t fd_size;

static int hear(int ms)
{
    struct pollfd poll_fd = {.fd = pv_link_fd(device), .events = POLLIN};
    const void *payload;
    int fd, ret;
    while ((ret = pv_link_receive(device, &heard, &payload, &fd)) == 0) {
        if (poll(&poll_fd, 1, ms) <= 0)
            return 0;
    }
    if (ret < 0)
        return ret;
    memset(text, 0, sizeof(text));
    memcpy(text, payload, heard.payload_size < 199 ? heard.payload_size : 199);
    fd_size = fd >= 0 ? lseek(fd, 0, SEEK_END) : -1;
    if (fd >= 0)
        close(fd);
    return 1;
}

static void expect(uint32_t type)
{
    assert_int_equal(hear(5000), 1);
    assert_int_equal(heard.type, type);
}

static void expect_forgotten(uint32_t res_id, uint64_t offset)
{
    expect(PV_LINK_FORGOTTEN);
    assert_int_equal(heard.res_id, res_id);
    assert_int_equal(heard.offset, offset);
}

static void expect_fence(uint32_t ring_idx, uint64_t cookie)
{
    expect(PV_LINK_FENCE_DONE);
    assert_int_equal(heard.ring_idx, ring_idx);
    assert_int_equal(heard.cookie, cookie);
}

/* Everything said before has been handled. */
static void settle(void)
{
    say((struct pv_link_message){.type = PV_LINK_PING, .cookie = 4711});
    expect(PV_LINK_PONG);
    assert_int_equal(heard.cookie, 4711);
}

/* ---- resources ---- */

static void test_arena(void **state)
{
    say((struct pv_link_message){
        .type = PV_LINK_CREATE_BLOB, .res_id = 1, .size = 8192, .offset = 4096, .flags = 1});
    say((struct pv_link_message){.type = PV_LINK_CREATE_BLOB,
                                 .res_id = 2,
                                 .size = 4096,
                                 .offset = 65536,
                                 .blob_id = 33,
                                 .flags = 3});
    say((struct pv_link_message){
        .type = PV_LINK_IMPORT, .res_id = 3, .size = 4096, .offset = 131072});
    expect(PV_LINK_BLOB_DONE); /* of the shared memory only */
    assert_int_equal(heard.res_id, 1);
    assert_int_equal(heard.result, 0);
    assert_int_equal(fd_size, -1);
    settle();
    assert_int_equal(stub_resource[1].use, PV_CONTEXT_USE_SHM);
    assert_int_equal(stub_resource[1].offset, 4096);
    assert_int_equal(stub_resource[1].size, 8192);
    assert_int_equal(stub_resource[2].use, PV_CONTEXT_USE_MEMORY);
    assert_int_equal(stub_resource[3].use, PV_CONTEXT_USE_FOREIGN);

    say((struct pv_link_message){.type = PV_LINK_FORGET, .res_id = 1});
    expect_forgotten(1, 4096);
    /* in use: told of when the last user has let go */
    stub_resource[2].held = true;
    say((struct pv_link_message){.type = PV_LINK_FORGET, .res_id = 2});
    settle();
    stub_release(2);
    expect_forgotten(2, 65536);
    say((struct pv_link_message){.type = PV_LINK_FORGET, .res_id = 2, .offset = 65536}); /* twice */
    expect_forgotten(2, 65536);
    say((struct pv_link_message){.type = PV_LINK_FORGET, .res_id = 3});
    expect_forgotten(3, 131072);
    say((struct pv_link_message){
        .type = PV_LINK_FORGET, .res_id = 99, .offset = PV_LINK_OWN_MEMORY});
    expect_forgotten(99, PV_LINK_OWN_MEMORY);
}

static void test_own_memory(void **state)
{
    say((struct pv_link_message){.type = PV_LINK_CREATE_BLOB,
                                 .res_id = 1,
                                 .size = 8192,
                                 .flags = 1,
                                 .offset = PV_LINK_OWN_MEMORY});
    expect(PV_LINK_BLOB_DONE);
    assert_int_equal(heard.res_id, 1);
    assert_int_equal(heard.result, 0);
    assert_int_equal(fd_size, 8192);
    /* the stub has no device memory */
    say((struct pv_link_message){.type = PV_LINK_CREATE_BLOB,
                                 .res_id = 2,
                                 .size = 8192,
                                 .blob_id = 5,
                                 .offset = PV_LINK_OWN_MEMORY});
    expect(PV_LINK_BLOB_DONE);
    assert_int_equal(heard.result, -EINVAL);
    assert_int_equal(fd_size, -1);

    int fd = -1;
    assert_int_equal(pv_shm_create("other", 4096, &fd), 0);
    const struct pv_link_message import = {
        .type = PV_LINK_IMPORT, .res_id = 3, .size = 4096, .offset = PV_LINK_OWN_MEMORY};
    assert_int_equal(pv_link_send(device, &import, NULL, fd), 0);
    assert_int_equal(pv_link_send(device, &import, NULL, fd), 0); /* in use */
    assert_int_equal(pv_link_send(device, &import, NULL, -1), 0); /* the fd was lost */
    say((struct pv_link_message){.type = PV_LINK_PING});
    expect(PV_LINK_PONG);
    close(fd);
    assert_int_equal(stub_resource[3].use, -1);

    say((struct pv_link_message){.type = PV_LINK_FORGET, .res_id = 1});
    expect_forgotten(1, PV_LINK_OWN_MEMORY);
    say((struct pv_link_message){.type = PV_LINK_FORGET, .res_id = 3});
    expect_forgotten(3, PV_LINK_OWN_MEMORY);
    /* an arena that is not there */
    say((struct pv_link_message){
        .type = PV_LINK_CREATE_BLOB, .res_id = 4, .size = 8192, .offset = 4096, .flags = 1});
    expect(PV_LINK_BLOB_DONE);
    assert_int_equal(heard.result, -EINVAL);
    assert_false(stub_resource[4].exists);
}

/* ---- commands and fences ---- */

static void test_commands(void **state)
{
    unsigned hints = stub.hints;
    SUBMIT(1, 0);
    SUBMIT(5, 3);
    expect(PV_LINK_RING);
    assert_int_equal(heard.res_id, 3);
    assert_int_equal(heard.offset, 128);
    assert_int_equal(heard.flags, 1);
    assert_true(stub.hints > hints);
    assert_true(stub.offered_dma_buf);
    submit(NULL, 0);
    /* an fd where none belongs is closed */
    const struct pv_link_message ping = {.type = PV_LINK_PING};
    assert_int_equal(pv_link_send(device, &ping, NULL, 0), 0);
    expect(PV_LINK_PONG);
}

static void test_fences(void **state)
{
    say((struct pv_link_message){.type = PV_LINK_FENCE, .ring_idx = 0, .cookie = 1});
    expect_fence(0, 1);
    say((struct pv_link_message){.type = PV_LINK_FENCE, .ring_idx = 1, .cookie = 2});
    say((struct pv_link_message){.type = PV_LINK_FENCE, .ring_idx = 1, .cookie = 3});
    settle(); /* not yet */
    stub_signal_fence(0);
    expect_fence(1, 2);
    stub_signal_fence(1);
    expect_fence(1, 3);
}

/* ---- a context that has failed is answered for ---- */

static void test_failed(void **state)
{
    say((struct pv_link_message){
        .type = PV_LINK_CREATE_BLOB, .res_id = 1, .size = 4096, .offset = 4096, .flags = 1});
    expect(PV_LINK_BLOB_DONE);
    say((struct pv_link_message){.type = PV_LINK_FENCE, .ring_idx = 1, .cookie = 1});
    SUBMIT(2, 0);
    expect(PV_LINK_FAILED);
    assert_string_equal(text, "the stub was told to fail");
    SUBMIT(2, 0);
    /* fences keep their order, even so */
    say((struct pv_link_message){.type = PV_LINK_FENCE, .ring_idx = 1, .cookie = 2});
    say((struct pv_link_message){.type = PV_LINK_FENCE, .ring_idx = 2, .cookie = 3});
    expect_fence(2, 3);
    say((struct pv_link_message){.type = PV_LINK_FENCE, .ring_idx = 1, .cookie = 4});
    settle();
    stub_signal_fence(0);
    expect_fence(1, 1);
    expect_fence(1, 2);
    expect_fence(1, 4);
    say((struct pv_link_message){.type = PV_LINK_FENCE, .ring_idx = 1, .cookie = 5});
    expect_fence(1, 5);

    say((struct pv_link_message){
        .type = PV_LINK_CREATE_BLOB, .res_id = 2, .size = 4096, .offset = 8192, .flags = 1});
    expect(PV_LINK_BLOB_DONE);
    assert_int_equal(heard.result, -EIO);
    say((struct pv_link_message){.type = PV_LINK_CREATE_BLOB,
                                 .res_id = 3,
                                 .size = 4096,
                                 .flags = 1,
                                 .offset = PV_LINK_OWN_MEMORY});
    expect(PV_LINK_BLOB_DONE);
    assert_int_equal(heard.result, -EIO);
    say((struct pv_link_message){.type = PV_LINK_FORGET, .res_id = 1});
    expect_forgotten(1, 4096);
    say((struct pv_link_message){.type = PV_LINK_FORGET, .res_id = 2, .offset = 8192});
    expect_forgotten(2, 8192);
}

static void test_bad_fence(void **state)
{
    say((struct pv_link_message){.type = PV_LINK_FENCE, .ring_idx = UINT32_MAX, .cookie = 1});
    expect(PV_LINK_FAILED);
    expect_fence(UINT32_MAX, 1);
    say((struct pv_link_message){.type = PV_LINK_FENCE, .ring_idx = 63, .cookie = 2});
    expect_fence(63, 2);
}

/* ---- ends ---- */

static void test_hang_up(void **state)
{
    say((struct pv_link_message){.type = PV_LINK_FENCE, .ring_idx = 1, .cookie = 1});
    settle();
    hang_up();
    assert_int_equal(run_result, 0);
    assert_true(stub.poisoned);
}

/* A device that goes in the middle of a long wait of the guest's. */
static void test_hang_up_in_a_wait(void **state)
{
    uint64_t start = pv_now_ns();
    settle();
    SUBMIT(4, 60000);
    hang_up();
    assert_true(pv_now_ns() - start < UINT64_C(10000000000));
}

static void test_stop(void **state)
{
    settle();
    pv_gpu_worker_stop(worker);
    join();
    assert_int_equal(run_result, 0);
    assert_true(stub.poisoned);
    assert_int_equal(hear(5000), -EPIPE);
}

static void test_nonsense(void **state)
{
    settle();
    char bytes[64] = "what is this";
    assert_int_equal(write(pv_link_fd(device), bytes, sizeof(bytes)), sizeof(bytes));
    join();
    assert_int_equal(run_result, -EPROTO);
}

int main(void)
{
#define ARENA(test) cmocka_unit_test_setup_teardown(test, open_with_arena, close_all)
    const struct CMUnitTest tests[] = {
        ARENA(test_arena),
        cmocka_unit_test_setup_teardown(test_own_memory, open_without_arena, close_all),
        ARENA(test_commands),
        ARENA(test_fences),
        ARENA(test_failed),
        ARENA(test_bad_fence),
        ARENA(test_hang_up),
        ARENA(test_hang_up_in_a_wait),
        ARENA(test_stop),
        ARENA(test_nonsense),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
