#include "gpu_fixture.h"

#include "gpu/window.h"
#include "util/os.h"

#include "unit.h"

#include <errno.h>
#include <string.h>
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

static struct gpu_fixture *open_venus(enum pv_gpu_window window)
{
    fixture_open(&fixture, &(struct gpu_options){.venus = true, .window = window});
    return &fixture;
}

static uintptr_t submit(struct gpu_fixture *f, uint32_t ctx, uint32_t flags, uint8_t ring_idx,
                        uint64_t fence_id)
{
    const struct {
        struct pv_wire_submit_3d fixed;
        uint32_t commands[2];
    } request = {
        .fixed = {.header = {.type = PV_CMD_SUBMIT_3D,
                             .flags = flags,
                             .fence_id = fence_id,
                             .ctx_id = ctx,
                             .ring_idx = ring_idx},
                  .size = 8},
    };
    return fixture_send(f, &request, sizeof(request));
}

static uintptr_t fenced_2d(struct gpu_fixture *f, uint64_t fence_id)
{
    const struct pv_wire_header request = {
        .type = PV_CMD_GET_DISPLAY_INFO, .flags = PV_FLAG_FENCE, .fence_id = fence_id};
    return fixture_send(f, &request, sizeof(request));
}

/* Skip to the next message of this type. */
static struct pv_link_message expect(struct fake_worker *worker, uint32_t type)
{
    struct pv_link_message message;
    do {
        assert_true(worker_receive(worker, &message));
    } while (message.type != type);
    return message;
}

static void fence_done(struct gpu_fixture *f, struct fake_worker *worker, uint64_t cookie)
{
    worker_send(f, worker, &(struct pv_link_message){.type = PV_LINK_FENCE_DONE, .cookie = cookie},
                -1);
}

static void forgotten(struct gpu_fixture *f, struct fake_worker *worker, uint32_t id,
                      uint64_t offset)
{
    worker_send(
        f, worker,
        &(struct pv_link_message){.type = PV_LINK_FORGOTTEN, .res_id = id, .offset = offset}, -1);
}

static uint32_t type_of(const struct gpu_fixture *f, uintptr_t token)
{
    const struct answer *answer = fixture_answer(f, token);
    return answer ? answer->reply.header.type : 0;
}

static void test_features_and_capset(void **state)
{
    struct gpu_fixture *f = open_venus(PV_GPU_WINDOW_ARENA);
    assert_int_equal(pv_gpu_features(f->gpu) & 0x1f, 0x1f);
    const struct pv_wire_capset_info info = {.header = {.type = PV_CMD_GET_CAPSET_INFO}};
    const struct answer *answer = fixture_answer(f, fixture_send(f, &info, sizeof(info)));
    assert_int_equal(answer->reply.capset_info.capset_id, 4);
    assert_int_equal(answer->reply.capset_info.max_size, 160);
    const struct pv_wire_capset capset = {.header = {.type = PV_CMD_GET_CAPSET}, .capset_id = 4};
    answer = fixture_answer(f, fixture_send(f, &capset, sizeof(capset)));
    assert_int_equal(answer->size, 184);
    assert_int_equal(answer->reply.capset.data[0], 1);
    assert_int_equal(answer->reply.capset.data[156], 1); /* use_guest_vram */
    pv_gpu_set_window(f->gpu, PV_GPU_WINDOW_NONE);
    assert_int_equal(pv_gpu_features(f->gpu) & PV_GPU_F_VIRGL, 0);
    assert_int_equal(RUN(f, info), PV_RESP_ERR_INVALID_PARAMETER);
    fixture_close(f);
}

static void test_contexts_are_checked(void **state)
{
    struct gpu_fixture *f = open_venus(PV_GPU_WINDOW_ARENA);
    struct pv_gpu_context_stats stats[2];
    assert_int_equal(create_context(f, 0, VENUS), PV_RESP_ERR_INVALID_CONTEXT_ID);
    assert_int_equal(create_context(f, 1, 1), PV_RESP_ERR_INVALID_PARAMETER);
    assert_int_equal(create_context(f, 1, VENUS), PV_RESP_OK_NODATA);
    assert_int_equal(create_context(f, 1, 0), PV_RESP_ERR_INVALID_CONTEXT_ID);
    assert_int_equal(create_context(f, 2, 0), PV_RESP_OK_NODATA);
    assert_int_equal(f->worker_count, 1);
    assert_int_equal(pv_gpu_get_contexts(f->gpu, stats, 2), 2);
    assert_string_equal(stats[0].name, "tes?");
    assert_int_equal(type_of(f, submit(f, 2, 0, 0, 0)), PV_RESP_ERR_INVALID_PARAMETER);
    assert_int_equal(type_of(f, submit(f, 3, 0, 0, 0)), PV_RESP_ERR_INVALID_CONTEXT_ID);
    assert_int_equal(type_of(f, submit(f, 1, 3, 64, 5)), PV_RESP_ERR_INVALID_PARAMETER);
    assert_int_equal(resource_command(f, PV_CMD_CTX_DESTROY, 2, 0), PV_RESP_OK_NODATA);
    assert_int_equal(resource_command(f, PV_CMD_CTX_DESTROY, 2, 0), PV_RESP_ERR_INVALID_CONTEXT_ID);
    fixture_close(f);
}

static void test_fences_in_order(void **state)
{
    struct gpu_fixture *f = open_venus(PV_GPU_WINDOW_ARENA);
    create_context(f, 1, VENUS);
    struct fake_worker *worker = &f->workers[0];
    uintptr_t a = submit(f, 1, 3, 1, 11), b = submit(f, 1, 3, 1, 12);
    uintptr_t other = submit(f, 1, 3, 2, 13);
    uintptr_t global = submit(f, 1, PV_FLAG_FENCE, 0, 14), after = fenced_2d(f, 15);
    uintptr_t plain = submit(f, 1, 0, 0, 0);
    assert_int_equal(type_of(f, plain), PV_RESP_OK_NODATA); /* taken over */
    uint64_t cookies[4];
    for (int i = 0; i < 4; i++)
        cookies[i] = expect(worker, PV_LINK_FENCE).cookie;
    fence_done(f, worker, cookies[1]);
    assert_int_equal(type_of(f, b), 0); /* not before a */
    fence_done(f, worker, cookies[2]);
    assert_int_equal(type_of(f, other), PV_RESP_OK_NODATA);
    const struct answer *answer = fixture_answer(f, other);
    assert_int_equal(answer->reply.header.flags, 3);
    assert_int_equal(answer->reply.header.fence_id, 13);
    assert_int_equal(answer->reply.header.ring_idx, 2);
    fence_done(f, worker, cookies[0]);
    assert_int_equal(type_of(f, a), PV_RESP_OK_NODATA);
    assert_int_equal(type_of(f, b), PV_RESP_OK_NODATA);
    assert_true(fixture_answer(f, a) < fixture_answer(f, b));
    assert_int_equal(type_of(f, after), 0); /* the display waits on its timeline */
    fence_done(f, worker, cookies[3]);
    assert_int_equal(type_of(f, global), PV_RESP_OK_NODATA);
    assert_int_equal(type_of(f, after), PV_RESP_OK_DISPLAY_INFO);
    assert_int_equal(fixture_answer(f, after)->size, 408);
    fence_done(f, worker, cookies[3]); /* again, and nonsense */
    fence_done(f, worker, 999);
    fixture_close(f);
}

static void test_death_retires_fences(void **state)
{
    struct gpu_fixture *f = open_venus(PV_GPU_WINDOW_ARENA);
    create_context(f, 1, VENUS);
    create_context(f, 2, VENUS);
    create_blob(f, 1, 5, MAPPABLE, PAGE);
    assert_int_equal(map_blob(f, 5, PAGE), PV_RESP_OK_MAP_INFO);
    worker_send(
        f, &f->workers[0],
        &(struct pv_link_message){.type = PV_LINK_RING, .res_id = 5, .offset = 64, .flags = 1}, -1);
    worker_send(
        f, &f->workers[1], /* not its resource */
        &(struct pv_link_message){.type = PV_LINK_RING, .res_id = 5, .offset = 128, .flags = 1},
        -1);
    uintptr_t fence = submit(f, 1, 3, 1, 11), global = submit(f, 1, PV_FLAG_FENCE, 0, 12);
    uintptr_t lives = submit(f, 2, 3, 1, 13), after = fenced_2d(f, 14);
    pv_link_destroy(f->workers[0].link);
    f->workers[0].link = NULL;
    fixture_turn(f);
    assert_int_equal(type_of(f, fence), PV_RESP_ERR_UNSPEC);
    assert_int_equal(fixture_answer(f, fence)->reply.header.fence_id, 11);
    assert_int_equal(type_of(f, global), PV_RESP_ERR_UNSPEC);
    assert_int_equal(type_of(f, after), PV_RESP_OK_DISPLAY_INFO);
    assert_int_equal(type_of(f, lives), 0);
    void *map;
    assert_int_equal(pv_shm_map(pv_gpu_arena_fd(f->gpu), WINDOW_SIZE, &map), 0);
    assert_int_equal(*(uint32_t *)((uint8_t *)map + PAGE + 64), 2); /* FATAL */
    assert_int_equal(*(uint32_t *)((uint8_t *)map + PAGE + 128), 0);
    pv_shm_unmap(map, WINDOW_SIZE);
    assert_int_equal(type_of(f, submit(f, 1, 0, 0, 0)), PV_RESP_ERR_UNSPEC);
    assert_int_equal(create_blob(f, 1, 6, MAPPABLE, PAGE), PV_RESP_ERR_UNSPEC);
    worker_end(f, &f->workers[0]);
    assert_int_equal(resource_command(f, PV_CMD_CTX_DESTROY, 1, 0), PV_RESP_OK_NODATA);
    assert_int_equal(create_context(f, 1, VENUS), PV_RESP_OK_NODATA);
    fixture_close(f);
}

static void test_destroyed_context_finishes_its_fences(void **state)
{
    struct gpu_fixture *f = open_venus(PV_GPU_WINDOW_ARENA);
    create_context(f, 1, VENUS);
    uintptr_t fence = submit(f, 1, 3, 1, 11);
    uint64_t cookie = expect(&f->workers[0], PV_LINK_FENCE).cookie;
    assert_int_equal(resource_command(f, PV_CMD_CTX_DESTROY, 1, 0), PV_RESP_OK_NODATA);
    assert_int_equal(create_context(f, 1, VENUS), PV_RESP_OK_NODATA); /* the id is free */
    assert_int_equal(type_of(f, fence), 0);
    assert_false(f->workers[0].ended);
    fence_done(f, &f->workers[0], cookie);
    assert_int_equal(type_of(f, fence), PV_RESP_OK_NODATA);
    assert_true(f->workers[0].ended);
    worker_end(f, &f->workers[0]);
    fixture_close(f);
}

static void test_blob_goes_where_it_is_mapped(void **state)
{
    struct gpu_fixture *f = open_venus(PV_GPU_WINDOW_ARENA);
    create_context(f, 1, VENUS);
    struct fake_worker *worker = &f->workers[0];
    assert_int_equal(create_blob(f, 9, 5, MAPPABLE, PAGE), PV_RESP_ERR_INVALID_CONTEXT_ID);
    assert_int_equal(create_blob(f, 1, 5, MAPPABLE, 0), PV_RESP_ERR_INVALID_PARAMETER);
    assert_int_equal(create_blob(f, 1, 5, 8, PAGE), PV_RESP_ERR_INVALID_PARAMETER);
    assert_int_equal(create_blob(f, 1, 5, MAPPABLE, WINDOW_SIZE + 1), PV_RESP_ERR_OUT_OF_MEMORY);
    assert_int_equal(create_blob(f, 1, 5, MAPPABLE, 100), PV_RESP_OK_NODATA);
    assert_int_equal(map_blob(f, 5, 1), PV_RESP_ERR_INVALID_PARAMETER);
    assert_int_equal(map_blob(f, 5, WINDOW_SIZE), PV_RESP_ERR_INVALID_PARAMETER);
    assert_int_equal(map_blob(f, 6, 0), PV_RESP_ERR_INVALID_RESOURCE_ID);
    assert_int_equal(map_blob(f, 5, 4 * PAGE), PV_RESP_OK_MAP_INFO);
    assert_int_equal(map_blob(f, 5, 5 * PAGE), PV_RESP_ERR_INVALID_PARAMETER);
    struct pv_link_message message = expect(worker, PV_LINK_CREATE_BLOB);
    assert_int_equal(message.offset, 4 * PAGE);
    assert_int_equal(message.size, PAGE);
    assert_int_equal(message.blob_id, 500);
    create_blob(f, 1, 6, MAPPABLE, 3 * PAGE);
    assert_int_equal(map_blob(f, 6, 2 * PAGE), PV_RESP_ERR_INVALID_PARAMETER); /* overlaps */
    assert_int_equal(create_blob(f, 1, 7, 0, PAGE), PV_RESP_OK_NODATA);
    assert_true(expect(worker, PV_LINK_CREATE_BLOB).offset >= WINDOW_SIZE);
    assert_int_equal(map_blob(f, 7, 0), PV_RESP_ERR_INVALID_PARAMETER);
    assert_int_equal(resource_command(f, PV_CMD_RESOURCE_UNMAP_BLOB, 0, 7),
                     PV_RESP_ERR_INVALID_PARAMETER);
    /* another context gets it as an import */
    create_context(f, 2, VENUS);
    assert_int_equal(resource_command(f, PV_CMD_CTX_ATTACH_RESOURCE, 2, 5), PV_RESP_OK_NODATA);
    assert_int_equal(expect(&f->workers[1], PV_LINK_IMPORT).offset, 4 * PAGE);
    fixture_close(f);
}

/* A range that another context's worker may still use is not handed out. */
static void test_mapping_waits_for_the_other_worker(void **state)
{
    struct gpu_fixture *f = open_venus(PV_GPU_WINDOW_ARENA);
    create_context(f, 1, VENUS);
    create_context(f, 2, VENUS);
    create_blob(f, 1, 5, MAPPABLE, 2 * PAGE);
    map_blob(f, 5, 0);
    assert_int_equal(resource_command(f, PV_CMD_RESOURCE_UNMAP_BLOB, 0, 5), PV_RESP_OK_NODATA);
    assert_int_equal(expect(&f->workers[0], PV_LINK_FORGET).res_id, 5);
    resource_command(f, PV_CMD_RESOURCE_UNREF, 0, 5);

    create_blob(f, 1, 6, MAPPABLE, PAGE); /* the same context: at once */
    assert_int_equal(map_blob(f, 6, 0), PV_RESP_OK_MAP_INFO);
    create_blob(f, 2, 7, MAPPABLE, PAGE);
    const struct pv_wire_map_blob map = {
        .header = {.type = PV_CMD_RESOURCE_MAP_BLOB}, .resource_id = 7, .offset = PAGE};
    uintptr_t waiting = fixture_send(f, &map, sizeof(map));
    uintptr_t behind = submit(f, 2, 3, 1, 21);
    struct pv_link_message message;
    assert_int_equal(type_of(f, waiting), 0);
    assert_false(worker_receive(&f->workers[1], &message)); /* nor what comes after it */
    forgotten(f, &f->workers[0], 5, PAGE);                  /* not that one */
    assert_int_equal(type_of(f, waiting), 0);
    forgotten(f, &f->workers[0], 5, 0);
    assert_int_equal(type_of(f, waiting), PV_RESP_OK_MAP_INFO);
    assert_true(worker_receive(&f->workers[1], &message));
    assert_int_equal(message.type, PV_LINK_CREATE_BLOB);
    assert_int_equal(message.offset, PAGE);
    assert_true(worker_receive(&f->workers[1], &message));
    assert_int_equal(message.type, PV_LINK_SUBMIT);
    assert_int_equal(expect(&f->workers[1], PV_LINK_FENCE).ring_idx, 1);
    assert_int_equal(type_of(f, behind), 0);
    fixture_close(f);
}

/* Large ranges are cleared on another thread; nobody gets them before. */
static void test_large_ranges_are_cleared_aside(void **state)
{
    struct gpu_fixture *f = open_venus(PV_GPU_WINDOW_ARENA);
    const uint64_t size = 8u << 20;
    void *map;
    assert_int_equal(pv_shm_map(pv_gpu_arena_fd(f->gpu), WINDOW_SIZE, &map), 0);
    create_context(f, 1, VENUS);
    for (uint32_t id = 5; id < 25; id++) {
        create_blob(f, 1, id, MAPPABLE, size);
        uint32_t type = map_blob(f, id, 0);
        if (type == 0) {
            const uintptr_t waiting = f->next_token;
            while (type_of(f, waiting) == 0)
                uv_run(&f->loop, UV_RUN_ONCE);
            type = type_of(f, waiting);
        }
        assert_int_equal(type, PV_RESP_OK_MAP_INFO);
        for (uint64_t at = 0; at < size; at += PAGE)
            assert_int_equal(((uint8_t *)map)[at], 0);
        memset(map, 0xff, size);
        resource_command(f, PV_CMD_RESOURCE_UNREF, 0, id);
        forgotten(f, &f->workers[0], id, 0);
    }
    pv_shm_unmap(map, WINDOW_SIZE);
    fixture_close(f); /* with the last one under way */
}

static void test_waiting_mapping_can_be_given_up(void **state)
{
    struct gpu_fixture *f = open_venus(PV_GPU_WINDOW_ARENA);
    create_context(f, 1, VENUS);
    create_context(f, 2, VENUS);
    create_blob(f, 1, 5, MAPPABLE, PAGE);
    map_blob(f, 5, 0);
    resource_command(f, PV_CMD_RESOURCE_UNREF, 0, 5);
    create_blob(f, 2, 7, MAPPABLE, PAGE);
    create_blob(f, 2, 8, MAPPABLE, PAGE);
    assert_int_equal(map_blob(f, 7, 0), 0);
    assert_int_equal(map_blob(f, 8, 0), 0);
    uintptr_t map_7 = f->next_token - 1, map_8 = f->next_token;
    submit(f, 2, 0, 0, 0);
    assert_int_equal(resource_command(f, PV_CMD_RESOURCE_UNREF, 0, 7), PV_RESP_OK_NODATA);
    assert_int_equal(type_of(f, map_7), PV_RESP_ERR_UNSPEC);
    worker_end(f, &f->workers[0]); /* its memory is free now */
    assert_int_equal(type_of(f, map_8), PV_RESP_OK_MAP_INFO);
    expect(&f->workers[1], PV_LINK_SUBMIT);
    /* and once more, this time the context goes */
    create_context(f, 3, VENUS);
    resource_command(f, PV_CMD_RESOURCE_UNREF, 0, 8);
    create_blob(f, 3, 9, MAPPABLE, PAGE);
    assert_int_equal(map_blob(f, 9, 0), 0);
    uintptr_t map_9 = f->next_token;
    submit(f, 3, 3, 1, 30);
    uintptr_t fence = f->next_token;
    assert_int_equal(resource_command(f, PV_CMD_CTX_DESTROY, 3, 0), PV_RESP_OK_NODATA);
    assert_int_equal(type_of(f, map_9), PV_RESP_ERR_UNSPEC);
    assert_int_equal(type_of(f, fence), PV_RESP_ERR_UNSPEC);
    fixture_close(f);
}

static void test_reset_drops_everything(void **state)
{
    struct gpu_fixture *f = open_venus(PV_GPU_WINDOW_ARENA);
    struct pv_gpu_stats stats;
    create_context(f, 1, VENUS);
    create_context(f, 2, VENUS);
    create_blob(f, 1, 5, MAPPABLE, PAGE);
    map_blob(f, 5, 0);
    resource_command(f, PV_CMD_CTX_ATTACH_RESOURCE, 2, 5);
    resource_command(f, PV_CMD_RESOURCE_UNREF, 0, 5);
    create_blob(f, 2, 7, MAPPABLE, PAGE);
    assert_int_equal(map_blob(f, 7, 0), 0);
    submit(f, 1, 3, 1, 10);
    submit(f, 2, PV_FLAG_FENCE, 0, 11);
    unsigned answers = f->answer_count;
    pv_gpu_reset(f->gpu);
    assert_int_equal(f->answer_count, answers);
    pv_gpu_get_stats(f->gpu, &stats);
    assert_int_equal(stats.resources + stats.contexts + stats.mapped_bytes, 0);
    assert_true(f->workers[0].ended && f->workers[1].ended);
    /* the same ids, while the old workers still live */
    assert_int_equal(create_context(f, 1, VENUS), PV_RESP_OK_NODATA);
    assert_int_equal(create_blob(f, 1, 5, MAPPABLE, PAGE), PV_RESP_OK_NODATA);
    assert_int_equal(map_blob(f, 5, 0), 0);
    uintptr_t map = f->next_token;
    worker_end(f, &f->workers[0]);
    assert_int_equal(type_of(f, map), 0);
    worker_end(f, &f->workers[1]);
    assert_int_equal(type_of(f, map), PV_RESP_OK_MAP_INFO);
    fixture_close(f);
}

static void test_nonsense_ends_only_that_context(void **state)
{
    struct gpu_fixture *f = open_venus(PV_GPU_WINDOW_ARENA);
    create_context(f, 1, VENUS);
    create_context(f, 2, VENUS);
    uintptr_t fence = submit(f, 2, 3, 1, 10);
    worker_send(f, &f->workers[0], &(struct pv_link_message){.type = 4711}, -1);
    assert_true(f->workers[0].ended);
    assert_int_equal(type_of(f, submit(f, 1, 0, 0, 0)), PV_RESP_ERR_UNSPEC);
    assert_int_equal(type_of(f, submit(f, 2, 0, 0, 0)), PV_RESP_OK_NODATA);
    assert_int_equal(type_of(f, fence), 0);
    fixture_close(f);
}

/* Let time pass: the watch looks every second. */
static void pass_seconds(struct gpu_fixture *f, unsigned seconds)
{
    clock_ahead_ns += (seconds - 1) * UINT64_C(1000000000);
    uint64_t until = __real_pv_now_ns() + UINT64_C(1100000000);
    while (__real_pv_now_ns() < until)
        uv_run(&f->loop, UV_RUN_ONCE);
}

static bool is_hung(struct gpu_fixture *f, size_t index)
{
    struct pv_gpu_context_stats stats[4];
    assert_true(pv_gpu_get_contexts(f->gpu, stats, 4) > index);
    return stats[index].hung;
}

static void test_silent_workers(void **state)
{
    struct gpu_fixture *f = open_venus(PV_GPU_WINDOW_ARENA);
    for (uint32_t id = 1; id <= 3; id++)
        create_context(f, id, VENUS);
    create_blob(f, 1, 5, MAPPABLE, PAGE); /* 1 does not forget it, 2 needs the place */
    map_blob(f, 5, 0);
    resource_command(f, PV_CMD_RESOURCE_UNREF, 0, 5);
    create_blob(f, 2, 6, MAPPABLE, PAGE);
    assert_int_equal(map_blob(f, 6, 0), 0);
    uintptr_t map = f->next_token;
    uintptr_t own = submit(f, 2, 3, 1, 10), global = submit(f, 3, PV_FLAG_FENCE, 0, 11);
    uintptr_t display = fenced_2d(f, 12);

    pass_seconds(f, 2); /* they are asked */
    uint64_t cookie = expect(&f->workers[2], PV_LINK_PING).cookie;
    assert_false(is_hung(f, 2) || f->workers[0].ended);
    pass_seconds(f, 6);
    assert_true(is_hung(f, 2));
    assert_true(f->workers[0].ended && !f->workers[2].ended);
    worker_end(f, &f->workers[0]);
    assert_int_equal(type_of(f, map), PV_RESP_OK_MAP_INFO);
    worker_send(f, &f->workers[2],
                &(struct pv_link_message){.type = PV_LINK_PONG, .cookie = cookie}, -1);
    assert_false(is_hung(f, 2));

    pass_seconds(f, 2);
    pass_seconds(f, 11);
    assert_true(f->workers[2].ended); /* it was in the way of the display */
    assert_int_equal(type_of(f, global), PV_RESP_ERR_UNSPEC);
    assert_int_equal(type_of(f, display), PV_RESP_OK_DISPLAY_INFO);
    assert_false(f->workers[1].ended); /* as silent, but nobody else waits for it */
    assert_int_equal(type_of(f, own), 0);
    fixture_close(f);
}

/* ---- a window that is mapped piece by piece ---- */

static void blob_done(struct gpu_fixture *f, uint32_t id, int32_t result, uint64_t size)
{
    int fd = -1;
    if (size)
        assert_int_equal(pv_shm_create("blob", size, &fd), 0);
    worker_send(
        f, &f->workers[0],
        &(struct pv_link_message){.type = PV_LINK_BLOB_DONE, .res_id = id, .result = result}, fd);
    if (fd >= 0)
        close(fd);
}

static void test_dynamic_window(void **state)
{
    struct gpu_fixture *f = open_venus(PV_GPU_WINDOW_DYNAMIC);
    create_context(f, 1, VENUS);
    assert_int_equal(create_blob(f, 1, 5, MAPPABLE, PAGE), 0); /* when the worker has made it */
    uintptr_t create = f->next_token;
    assert_true(expect(&f->workers[0], PV_LINK_CREATE_BLOB).offset == PV_LINK_OWN_MEMORY);
    assert_int_equal(map_blob(f, 5, 2 * PAGE), 0);
    uintptr_t map = f->next_token;
    assert_int_equal(f->maps, 0);
    blob_done(f, 5, 0, PAGE);
    assert_int_equal(type_of(f, create), PV_RESP_OK_NODATA);
    assert_int_equal(f->maps, 1);
    assert_int_equal(f->map_offset, 2 * PAGE);
    assert_int_equal(type_of(f, map), 0);
    pv_gpu_window_done(f->gpu, f->map_token, 0);
    assert_int_equal(type_of(f, map), PV_RESP_OK_MAP_INFO);
    assert_int_equal(resource_command(f, PV_CMD_RESOURCE_UNMAP_BLOB, 0, 5), 0);
    uintptr_t unmap = f->next_token;
    assert_int_equal(map_blob(f, 5, 2 * PAGE), 0); /* the place may be used again at once */
    assert_int_equal(f->maps, 2);
    pv_gpu_window_done(f->gpu, f->unmap_token, 0);
    assert_int_equal(type_of(f, unmap), PV_RESP_OK_NODATA);
    pv_gpu_window_done(f->gpu, f->map_token, -12);
    pv_gpu_window_done(f->gpu, f->map_token, 0); /* twice is once too often */
    assert_int_equal(map_blob(f, 5, 2 * PAGE), 0);
    assert_int_equal(resource_command(f, PV_CMD_RESOURCE_UNREF, 0, 5), PV_RESP_OK_NODATA);
    assert_int_equal(f->unmaps, 2);
    pv_gpu_window_done(f->gpu, f->map_token, 0);
    pv_gpu_window_done(f->gpu, f->unmap_token, 0);

    assert_int_equal(create_blob(f, 1, 6, MAPPABLE, 2 * PAGE), 0);
    create = f->next_token;
    assert_int_equal(map_blob(f, 6, 0), 0);
    blob_done(f, 6, 0, PAGE); /* too short */
    assert_int_equal(type_of(f, create), PV_RESP_ERR_INVALID_PARAMETER);
    assert_int_equal(type_of(f, create + 1), PV_RESP_ERR_INVALID_PARAMETER);
    assert_int_equal(map_blob(f, 6, 0), PV_RESP_ERR_INVALID_PARAMETER);
    assert_int_equal(create_blob(f, 1, 7, MAPPABLE, PAGE), 0);
    create = f->next_token;
    worker_end(f, &f->workers[0]);
    assert_int_equal(type_of(f, create), PV_RESP_ERR_UNSPEC);
    struct pv_gpu_stats stats;
    pv_gpu_get_stats(f->gpu, &stats);
    assert_int_equal(stats.maps, f->maps);
    fixture_close(f);
}

/* ---- shared memory, which a ring may name as soon as it is mapped ---- */

static void create_shared_memory(struct gpu_fixture *f, uint32_t id)
{
    const struct pv_wire_create_blob request = {
        .header = {.type = PV_CMD_RESOURCE_CREATE_BLOB, .ctx_id = 1},
        .resource_id = id,
        .blob_mem = PV_BLOB_MEM_HOST3D,
        .blob_flags = MAPPABLE,
        .size = PAGE,
    };
    assert_int_equal(RUN(f, request), PV_RESP_OK_NODATA);
}

/* Returns the token of the mapping, which waits. */
static uintptr_t map_shared_memory(struct gpu_fixture *f, uint32_t id, uint64_t offset)
{
    create_shared_memory(f, id);
    assert_int_equal(map_blob(f, id, offset), 0);
    return f->next_token;
}

static void test_shared_memory_is_mapped_when_known(void **state)
{
    struct gpu_fixture *f = open_venus(PV_GPU_WINDOW_ARENA);
    create_context(f, 1, VENUS);
    uintptr_t map = map_shared_memory(f, 5, 0);
    assert_int_equal(expect(&f->workers[0], PV_LINK_CREATE_BLOB).blob_id, 0);
    assert_int_equal(type_of(f, map), 0);
    blob_done(f, 5, 0, 0);
    assert_int_equal(type_of(f, map), PV_RESP_OK_MAP_INFO);
    blob_done(f, 5, 0, PAGE); /* nobody asked, and with an fd */
    assert_int_equal(resource_command(f, PV_CMD_RESOURCE_UNMAP_BLOB, 0, 5), PV_RESP_OK_NODATA);

    /* unmapped before it was known: it had been mapped all the same */
    map = map_shared_memory(f, 6, PAGE);
    assert_int_equal(resource_command(f, PV_CMD_RESOURCE_UNMAP_BLOB, 0, 6), PV_RESP_OK_NODATA);
    assert_int_equal(type_of(f, map), PV_RESP_OK_MAP_INFO);
    blob_done(f, 6, 0, 0);
    map = map_shared_memory(f, 7, 2 * PAGE);
    assert_int_equal(resource_command(f, PV_CMD_RESOURCE_UNREF, 0, 7), PV_RESP_OK_NODATA);
    assert_int_equal(type_of(f, map), PV_RESP_OK_MAP_INFO);
    blob_done(f, 7, 0, 0);

    /* the worker cannot use it: the place is free again */
    map = map_shared_memory(f, 8, 3 * PAGE);
    blob_done(f, 8, -ENOMEM, 0);
    assert_int_equal(type_of(f, map), PV_RESP_ERR_OUT_OF_MEMORY);
    assert_int_equal(map_blob(f, 8, 3 * PAGE), PV_RESP_ERR_INVALID_PARAMETER);
    map = map_shared_memory(f, 9, 3 * PAGE);
    worker_end(f, &f->workers[0]);
    assert_int_equal(type_of(f, map), PV_RESP_ERR_UNSPEC);
    fixture_close(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_features_and_capset),
        cmocka_unit_test(test_contexts_are_checked),
        cmocka_unit_test(test_fences_in_order),
        cmocka_unit_test(test_death_retires_fences),
        cmocka_unit_test(test_destroyed_context_finishes_its_fences),
        cmocka_unit_test(test_blob_goes_where_it_is_mapped),
        cmocka_unit_test(test_mapping_waits_for_the_other_worker),
        cmocka_unit_test(test_large_ranges_are_cleared_aside),
        cmocka_unit_test(test_waiting_mapping_can_be_given_up),
        cmocka_unit_test(test_reset_drops_everything),
        cmocka_unit_test(test_nonsense_ends_only_that_context),
        cmocka_unit_test(test_silent_workers),
        cmocka_unit_test(test_dynamic_window),
        cmocka_unit_test(test_shared_memory_is_mapped_when_known),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
