/* Workers that have been taken over by their guest process: none of it may hurt the device. */
#include "gpu_fixture.h"

#include "util/os.h"

#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define VENUS    4
#define PAGE     ((uint64_t)pv_page_size())
#define MAPPABLE PV_WIRE_BLOB_MAPPABLE

static struct gpu_fixture fixture;

/* The clock, which tests may put forward. */
static uint64_t clock_ahead_ns;
uint64_t __real_pv_now_ns(void);
uint64_t __wrap_pv_now_ns(void);

uint64_t __wrap_pv_now_ns(void)
{
    return __real_pv_now_ns() + clock_ahead_ns;
}

static struct gpu_fixture *open_venus(enum pv_gpu_window window, uint32_t contexts)
{
    fixture_open(&fixture, &(struct gpu_options){.venus = true, .window = window});
    for (uint32_t id = 1; id <= contexts; id++)
        assert_int_equal(create_context(&fixture, id, VENUS), PV_RESP_OK_NODATA);
    return &fixture;
}

static uint32_t type_of(const struct gpu_fixture *f, uintptr_t token)
{
    const struct answer *answer = fixture_answer(f, token);
    return answer ? answer->reply.header.type : 0;
}

/* Everything it was told has been read, so that what it said last arrives. */
static void hang_up(struct fake_worker *worker)
{
    struct pv_link_message message;
    while (worker_receive(worker, &message))
        continue;
    pv_link_destroy(worker->link);
    worker->link = NULL;
}

/* Returns the token of the mapping, which waits for the worker of context 1. */
static uintptr_t map_shared_memory(struct gpu_fixture *f, uint32_t id, uint64_t offset)
{
    const struct pv_wire_create_blob request = {
        .header = {.type = PV_CMD_RESOURCE_CREATE_BLOB, .ctx_id = 1},
        .resource_id = id,
        .blob_mem = PV_BLOB_MEM_HOST3D,
        .blob_flags = MAPPABLE,
        .size = PAGE,
    };
    assert_int_equal(RUN(f, request), PV_RESP_OK_NODATA);
    assert_int_equal(map_blob(f, id, offset), 0);
    return f->next_token;
}

/* A worker refuses shared memory that others have, too, and is gone when it is told to forget it.
 */
static void test_refuses_and_goes(void **state)
{
    struct gpu_fixture *f = open_venus(PV_GPU_WINDOW_ARENA, 3);
    uintptr_t map = map_shared_memory(f, 5, 0);
    assert_int_equal(resource_command(f, PV_CMD_CTX_ATTACH_RESOURCE, 2, 5), PV_RESP_OK_NODATA);
    assert_int_equal(resource_command(f, PV_CMD_CTX_ATTACH_RESOURCE, 3, 5), PV_RESP_OK_NODATA);
    const struct pv_link_message done = {.type = PV_LINK_BLOB_DONE, .res_id = 5, .result = -ENOMEM};
    assert_int_equal(pv_link_send(f->workers[0].link, &done, NULL, -1), 0);
    hang_up(&f->workers[0]);
    fixture_turn(f);
    assert_int_not_equal(type_of(f, map), 0);
    assert_true(f->workers[0].ended && !f->workers[1].ended && !f->workers[2].ended);
    assert_int_equal(resource_command(f, PV_CMD_RESOURCE_UNREF, 0, 5), PV_RESP_OK_NODATA);
    for (unsigned i = 1; i < 3; i++) {
        worker_send(f, &f->workers[i],
                    &(struct pv_link_message){.type = PV_LINK_FORGOTTEN, .res_id = 5}, -1);
        assert_false(f->workers[i].ended);
    }
    fixture_close(f);
}

/* All workers go at once, while one maps what the others share. */
static void test_all_go_during_a_mapping(void **state)
{
    struct gpu_fixture *f = open_venus(PV_GPU_WINDOW_ARENA, 3);
    const struct pv_wire_create_blob request = {
        .header = {.type = PV_CMD_RESOURCE_CREATE_BLOB, .ctx_id = 1},
        .resource_id = 5,
        .blob_mem = PV_BLOB_MEM_HOST3D,
        .blob_flags = MAPPABLE,
        .size = PAGE,
    };
    assert_int_equal(RUN(f, request), PV_RESP_OK_NODATA);
    resource_command(f, PV_CMD_CTX_ATTACH_RESOURCE, 2, 5);
    resource_command(f, PV_CMD_CTX_ATTACH_RESOURCE, 3, 5);
    hang_up(&f->workers[1]);
    hang_up(&f->workers[2]);
    assert_int_equal(map_blob(f, 5, 0), 0);
    uintptr_t map = f->next_token;
    hang_up(&f->workers[0]);
    fixture_turn(f);
    assert_int_equal(type_of(f, map), PV_RESP_ERR_UNSPEC);
    fixture_close(f);
}

/* A ring in memory that the device does not have yet, and then its worker dies. */
static void test_ring_without_memory(void **state)
{
    struct gpu_fixture *f = open_venus(PV_GPU_WINDOW_DYNAMIC, 1);
    assert_int_equal(create_blob(f, 1, 5, MAPPABLE, PAGE), 0);
    const struct pv_link_message ring = {
        .type = PV_LINK_RING, .res_id = 5, .offset = 128, .flags = 1};
    worker_send(f, &f->workers[0], &ring, -1);
    worker_end(f, &f->workers[0]);
    fixture_close(f);
}

static uint32_t blob_is(struct gpu_fixture *f, uint32_t id, int fd, int32_t result)
{
    assert_int_equal(create_blob(f, 1, id, MAPPABLE, PAGE), 0);
    uintptr_t create = f->next_token;
    worker_send(
        f, &f->workers[0],
        &(struct pv_link_message){.type = PV_LINK_BLOB_DONE, .res_id = id, .result = result}, fd);
    return type_of(f, create);
}

/* Memory that a worker could cut short under the VMM, which would get a bus error. */
static void test_memory_that_may_shrink(void **state)
{
    struct gpu_fixture *f = open_venus(PV_GPU_WINDOW_DYNAMIC, 1);
    int fd = memfd_create("unsealed", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    assert_int_equal(ftruncate(fd, (off_t)PAGE), 0);
    assert_int_equal(blob_is(f, 5, fd, 0), PV_RESP_OK_NODATA);
    assert_int_equal(ftruncate(fd, 0), -1); /* sealed by the device */
    close(fd);
    fd = memfd_create("never sealed", MFD_CLOEXEC);
    assert_int_equal(ftruncate(fd, (off_t)PAGE), 0);
    assert_int_equal(blob_is(f, 6, fd, 0), PV_RESP_ERR_INVALID_PARAMETER);
    close(fd);
    fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    assert_int_equal(blob_is(f, 7, fd, 0), PV_RESP_ERR_INVALID_PARAMETER);
    assert_int_equal(blob_is(f, 8, fd, 1), PV_RESP_ERR_INVALID_PARAMETER);
    close(fd);
    assert_int_equal(blob_is(f, 9, -1, 1), PV_RESP_ERR_INVALID_PARAMETER);
    fixture_close(f);
}

/* Detach and attach again; what the worker hears is thrown away. */
static void release_often(struct gpu_fixture *f, unsigned times)
{
    struct pv_link_message message;
    for (unsigned i = 0; i < times && !f->workers[0].ended; i++) {
        assert_int_equal(resource_command(f, PV_CMD_CTX_DETACH_RESOURCE, 1, 5), PV_RESP_OK_NODATA);
        if (!f->workers[0].ended)
            assert_int_equal(resource_command(f, PV_CMD_CTX_ATTACH_RESOURCE, 1, 5),
                             PV_RESP_OK_NODATA);
        while (worker_receive(&f->workers[0], &message))
            continue;
    }
}

/* Answers to very many releases take no longer than that, and all count. */
static void test_many_releases(void **state)
{
    const unsigned count = 100000;
    struct gpu_fixture *f = open_venus(PV_GPU_WINDOW_ARENA, 2);
    create_blob(f, 2, 5, MAPPABLE, PAGE);
    resource_command(f, PV_CMD_CTX_ATTACH_RESOURCE, 1, 5);
    assert_int_equal(map_blob(f, 5, 0), PV_RESP_OK_MAP_INFO);
    release_often(f, count);
    resource_command(f, PV_CMD_RESOURCE_UNREF, 0, 5);
    for (unsigned i = 0; i <= count; i++)
        worker_send(f, &f->workers[0],
                    &(struct pv_link_message){.type = PV_LINK_FORGOTTEN, .res_id = 5}, -1);
    worker_send(f, &f->workers[1],
                &(struct pv_link_message){.type = PV_LINK_FORGOTTEN, .res_id = 5}, -1);
    assert_false(f->workers[0].ended);
    create_context(f, 3, VENUS);
    create_blob(f, 3, 6, MAPPABLE, PAGE);
    assert_int_equal(map_blob(f, 6, 0), PV_RESP_OK_MAP_INFO);
    fixture_close(f);
}

/* One that never answers loses its context, not the device its memory. */
static void test_never_forgets(void **state)
{
    struct gpu_fixture *f = open_venus(PV_GPU_WINDOW_ARENA, 2);
    create_blob(f, 2, 5, MAPPABLE, PAGE);
    resource_command(f, PV_CMD_CTX_ATTACH_RESOURCE, 1, 5);
    assert_int_equal(map_blob(f, 5, 0), PV_RESP_OK_MAP_INFO);
    release_often(f, 200000);
    assert_true(f->workers[0].ended && !f->workers[1].ended);
    worker_end(f, &f->workers[0]);
    fixture_close(f);
}

/* The worker answers what it is asked meanwhile. libuv has a clock of its own. */
static void pass_6_seconds(struct gpu_fixture *f, struct fake_worker *worker)
{
    struct pv_link_message message;
    uint64_t until = __real_pv_now_ns() + UINT64_C(1100000000);
    clock_ahead_ns += UINT64_C(5000000000);
    while (__real_pv_now_ns() < until && !worker->ended) {
        fixture_turn(f);
        while (worker_receive(worker, &message)) {
            if (message.type == PV_LINK_PING)
                worker_send(
                    f, worker,
                    &(struct pv_link_message){.type = PV_LINK_PONG, .cookie = message.cookie}, -1);
        }
        usleep(1000);
    }
}

/* A worker that lives, and keeps a fence that the display's come after. */
static void test_keeps_a_fence(void **state)
{
    struct gpu_fixture *f = open_venus(PV_GPU_WINDOW_ARENA, 1);
    const struct {
        struct pv_wire_submit_3d fixed;
        uint32_t commands[2];
    } submit = {
        .fixed = {.header = {.type = PV_CMD_SUBMIT_3D, .flags = PV_FLAG_FENCE, .ctx_id = 1},
                  .size = 8},
    };
    const struct pv_wire_header show = {.type = PV_CMD_GET_DISPLAY_INFO, .flags = PV_FLAG_FENCE};
    fixture_send(f, &submit, sizeof(submit));
    uintptr_t display = fixture_send(f, &show, sizeof(show));
    for (int i = 0; i < 8 && !f->workers[0].ended; i++) {
        assert_int_equal(type_of(f, display), 0);
        pass_6_seconds(f, &f->workers[0]);
    }
    assert_true(f->workers[0].ended);
    assert_int_equal(type_of(f, display), PV_RESP_OK_DISPLAY_INFO);
    fixture_close(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refuses_and_goes),    cmocka_unit_test(test_all_go_during_a_mapping),
        cmocka_unit_test(test_ring_without_memory), cmocka_unit_test(test_memory_that_may_shrink),
        cmocka_unit_test(test_many_releases),       cmocka_unit_test(test_never_forgets),
        cmocka_unit_test(test_keeps_a_fence),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
