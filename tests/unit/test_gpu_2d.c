#include "gpu_fixture.h"

#include "gpu/guest_memory.h"

#include "unit.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct backing_request {
    struct pv_wire_attach_backing fixed;
    struct pv_wire_mem_entry entries[3];
};

static uint32_t attach(struct gpu_fixture *f, uint32_t id, uint32_t count, uint64_t addr,
                       uint32_t length)
{
    struct backing_request request = {
        .fixed = {.header = {.type = PV_CMD_RESOURCE_ATTACH_BACKING},
                  .resource_id = id,
                  .nr_entries = count},
        .entries = {{addr, length, 0}, {addr + 2 * length, length, 0}, {addr + length, length, 0}},
    };
    size_t entries = count < 3 ? count : 3;
    return fixture_run(f, &request, sizeof(request.fixed) + entries * sizeof(request.entries[0]));
}

static uint32_t transfer(struct gpu_fixture *f, uint32_t id, struct pv_wire_rect rect,
                         uint64_t offset)
{
    const struct pv_wire_transfer_2d request = {
        .header = {.type = PV_CMD_TRANSFER_TO_HOST_2D},
        .rect = rect,
        .offset = offset,
        .resource_id = id,
    };
    return RUN(f, request);
}

static uint32_t set_scanout(struct gpu_fixture *f, uint32_t scanout, uint32_t id,
                            struct pv_wire_rect rect)
{
    const struct pv_wire_set_scanout request = {
        .header = {.type = PV_CMD_SET_SCANOUT},
        .rect = rect,
        .scanout_id = scanout,
        .resource_id = id,
    };
    return RUN(f, request);
}

static uint32_t flush(struct gpu_fixture *f, uint32_t id, struct pv_wire_rect rect)
{
    const struct pv_wire_flush request = {
        .header = {.type = PV_CMD_RESOURCE_FLUSH},
        .rect = rect,
        .resource_id = id,
    };
    return RUN(f, request);
}

/* A display that keeps what it was shown last. */
struct watching_display {
    struct pv_display base;
    struct pv_frame frame;
    struct pv_cursor cursor;
    uint32_t first_pixel, frames, cursors;
    uint8_t cursor_pixel[4];
};

static int watch_frame(struct pv_display *display, const struct pv_frame *frame)
{
    struct watching_display *watching = (struct watching_display *)display;
    const struct pv_rect first = {0, 0, 1, 1};
    watching->frame = *frame;
    watching->frames++;
    if (frame->pixels)
        memcpy(&watching->first_pixel, frame->pixels, 4);
    return frame->pixels || frame->width == 0 ? 0
                                              : frame->read(frame, &first, &watching->first_pixel);
}

static void watch_cursor(struct pv_display *display, const struct pv_cursor *cursor)
{
    struct watching_display *watching = (struct watching_display *)display;
    watching->cursor = *cursor;
    watching->cursors++;
    if (cursor->pixels)
        memcpy(watching->cursor_pixel, cursor->pixels, 4);
}

static const struct pv_display_ops watching_ops = {
    .name = "watching", .present = watch_frame, .cursor = watch_cursor};

static struct gpu_fixture fixture;
static struct watching_display watching;

static struct gpu_fixture *open_2d(void)
{
    watching = (struct watching_display){.base = {&watching_ops}};
    fixture_open(&fixture, &(struct gpu_options){.window = PV_GPU_WINDOW_NONE,
                                                 .scanouts = 2,
                                                 .display = &watching.base});
    return &fixture;
}

static void test_resources_are_checked(void **state)
{
    struct gpu_fixture *f = open_2d();
    assert_int_equal(create_2d(f, 0, 4, 4), PV_RESP_ERR_INVALID_RESOURCE_ID);
    assert_int_equal(create_2d(f, 1, 0, 4), PV_RESP_ERR_INVALID_PARAMETER);
    assert_int_equal(create_2d(f, 1, 4, 16385), PV_RESP_ERR_INVALID_PARAMETER);
    assert_int_equal(create_2d(f, 1, 4, 4), PV_RESP_OK_NODATA);
    assert_int_equal(create_2d(f, 1, 4, 4), PV_RESP_ERR_INVALID_RESOURCE_ID);
    assert_int_equal(create_2d(f, 2, 16384, 16384), PV_RESP_ERR_OUT_OF_MEMORY);
    assert_int_equal(resource_command(f, PV_CMD_RESOURCE_UNREF, 0, 1), PV_RESP_OK_NODATA);
    assert_int_equal(resource_command(f, PV_CMD_RESOURCE_UNREF, 0, 1),
                     PV_RESP_ERR_INVALID_RESOURCE_ID);
    assert_int_equal(create_2d(f, 2, 16384, 16384), PV_RESP_OK_NODATA); /* exactly the limit */
    assert_int_equal(create_2d(f, 3, 1, 1), PV_RESP_ERR_OUT_OF_MEMORY);
    fixture_close(f);
}

static void test_many_resources(void **state)
{
    struct gpu_fixture *f = open_2d();
    struct pv_gpu_stats stats;
    for (uint32_t id = 1; id <= 100000; id++)
        assert_int_equal(create_2d(f, id, 1, 1), PV_RESP_OK_NODATA);
    for (uint32_t id = 1; id <= 100000; id += 2)
        assert_int_equal(resource_command(f, PV_CMD_RESOURCE_UNREF, 0, id), PV_RESP_OK_NODATA);
    for (uint32_t id = 1; id <= 100000; id++)
        assert_int_equal(resource_command(f, PV_CMD_RESOURCE_ASSIGN_UUID, 0, id),
                         id % 2 ? PV_RESP_ERR_INVALID_RESOURCE_ID : PV_RESP_OK_RESOURCE_UUID);
    pv_gpu_get_stats(f->gpu, &stats);
    assert_int_equal(stats.resources, 50000);
    assert_int_equal(stats.bytes_2d, 50000 * 4);
    pv_gpu_reset(f->gpu);
    pv_gpu_get_stats(f->gpu, &stats);
    assert_int_equal(stats.resources, 0);
    assert_int_equal(stats.bytes_2d, 0);
    fixture_close(f);
}

static void test_backing_is_checked(void **state)
{
    struct gpu_fixture *f = open_2d();
    create_2d(f, 1, 16, 16);
    assert_int_equal(attach(f, 1, 0, GUEST_BASE, 4096), PV_RESP_ERR_INVALID_PARAMETER);
    assert_int_equal(attach(f, 1, 4, GUEST_BASE, 4096), PV_RESP_ERR_INVALID_PARAMETER);
    assert_int_equal(attach(f, 1, UINT32_MAX, GUEST_BASE, 4096), PV_RESP_ERR_INVALID_PARAMETER);
    assert_int_equal(attach(f, 1, 1, GUEST_BASE - 1, 4096), PV_RESP_ERR_INVALID_PARAMETER);
    assert_int_equal(attach(f, 1, 1, GUEST_BASE + GUEST_SIZE, 1), PV_RESP_ERR_INVALID_PARAMETER);
    assert_int_equal(attach(f, 1, 1, UINT64_MAX - 10, 4096), PV_RESP_ERR_INVALID_PARAMETER);
    assert_int_equal(attach(f, 2, 1, GUEST_BASE, 4096), PV_RESP_ERR_INVALID_RESOURCE_ID);
    assert_int_equal(attach(f, 1, 3, GUEST_BASE, 4096), PV_RESP_OK_NODATA);
    assert_int_equal(attach(f, 1, 1, GUEST_BASE, 4096), PV_RESP_ERR_INVALID_PARAMETER);
    assert_int_equal(resource_command(f, PV_CMD_RESOURCE_DETACH_BACKING, 0, 1), PV_RESP_OK_NODATA);
    assert_int_equal(transfer(f, 1, (struct pv_wire_rect){0, 0, 16, 16}, 0),
                     PV_RESP_ERR_INVALID_PARAMETER);
    fixture_close(f);
}

/* Three scattered pieces of 100 bytes, so that pixels lie across their borders. */
static void test_transfer_follows_the_backing(void **state)
{
    struct gpu_fixture *f = open_2d();
    uint8_t bytes[300];
    for (unsigned i = 0; i < sizeof(bytes); i++)
        bytes[i] = (uint8_t)i;
    memcpy(f->guest, bytes, 100);
    memcpy(f->guest + 200, bytes + 100, 100);
    memcpy(f->guest + 100, bytes + 200, 100);
    create_2d(f, 1, 8, 8);
    assert_int_equal(attach(f, 1, 3, GUEST_BASE, 100), PV_RESP_OK_NODATA);
    assert_int_equal(set_scanout(f, 0, 1, (struct pv_wire_rect){0, 0, 8, 8}), PV_RESP_OK_NODATA);

    /* two rows of three pixels to (2, 3) from byte 84 on; a row of the backing has 32 bytes */
    const struct pv_wire_rect rect = {2, 3, 3, 2};
    assert_int_equal(transfer(f, 1, rect, 84), PV_RESP_OK_NODATA);
    assert_int_equal(flush(f, 1, rect), PV_RESP_OK_NODATA);
    const uint8_t *pixels = watching.frame.pixels;
    uint8_t expected[8 * 32] = {0};
    memcpy(expected + 3 * 32 + 2 * 4, bytes + 84, 12);
    memcpy(expected + 4 * 32 + 2 * 4, bytes + 84 + 32, 12);
    assert_memory_equal(pixels, expected, sizeof(expected));

    assert_int_equal(transfer(f, 1, (struct pv_wire_rect){0, 0, 8, 8}, 44), PV_RESP_OK_NODATA);
    assert_memory_equal(pixels, bytes + 44, 256);
    assert_int_equal(transfer(f, 1, (struct pv_wire_rect){0, 0, 8, 8}, 45),
                     PV_RESP_ERR_INVALID_PARAMETER); /* one byte short */
    assert_int_equal(transfer(f, 1, (struct pv_wire_rect){0, 0, 8, 1}, UINT64_MAX),
                     PV_RESP_ERR_INVALID_PARAMETER);
    const struct pv_wire_rect outside[] = {
        {0, 0, 9, 1}, {0, 0, 1, 9}, {8, 0, 1, 1}, {1, 0, UINT32_MAX, 1}, {UINT32_MAX, 0, 2, 1}};
    for (size_t i = 0; i < sizeof(outside) / sizeof(outside[0]); i++)
        assert_int_equal(transfer(f, 1, outside[i], 0), PV_RESP_ERR_INVALID_PARAMETER);
    fixture_close(f);
}

static void test_memory_that_has_gone_is_noticed(void **state)
{
    struct gpu_fixture *f = open_2d();
    create_2d(f, 1, 16, 16);
    attach(f, 1, 1, GUEST_BASE, 1024);
    assert_int_equal(pv_guest_memory_remove(f->memory, GUEST_BASE, GUEST_SIZE), 0);
    assert_int_equal(transfer(f, 1, (struct pv_wire_rect){0, 0, 16, 16}, 0),
                     PV_RESP_ERR_INVALID_PARAMETER);
    fixture_close(f);
}

static void test_scanouts(void **state)
{
    struct gpu_fixture *f = open_2d();
    const struct pv_wire_rect all = {0, 0, 64, 64};
    struct pv_gpu_scanout_stats stats;
    create_2d(f, 1, 64, 64);
    assert_int_equal(set_scanout(f, 2, 1, all), PV_RESP_ERR_INVALID_SCANOUT_ID);
    assert_int_equal(set_scanout(f, 0, 9, all), PV_RESP_ERR_INVALID_RESOURCE_ID);
    assert_int_equal(set_scanout(f, 0, 1, (struct pv_wire_rect){1, 0, 64, 64}),
                     PV_RESP_ERR_INVALID_PARAMETER);
    assert_int_equal(set_scanout(f, 0, 1, (struct pv_wire_rect){0, 0, 0, 64}),
                     PV_RESP_ERR_INVALID_PARAMETER);
    assert_int_equal(set_scanout(f, 1, 1, (struct pv_wire_rect){32, 16, 32, 48}),
                     PV_RESP_OK_NODATA);
    assert_int_equal(flush(f, 1, (struct pv_wire_rect){0, 0, 1, 1}), PV_RESP_OK_NODATA);
    assert_int_equal(watching.frame.scanout, 1);
    assert_int_equal(watching.frame.damage.width, 32); /* the first flush shows all */
    assert_int_equal(watching.frame.damage.height, 48);
    assert_int_equal(flush(f, 1, (struct pv_wire_rect){30, 20, 4, 4}), PV_RESP_OK_NODATA);
    assert_int_equal(watching.frame.damage.x, 0);
    assert_int_equal(watching.frame.damage.y, 4);
    assert_int_equal(watching.frame.damage.width, 2);
    unsigned frames = watching.frames;
    assert_int_equal(flush(f, 1, (struct pv_wire_rect){0, 0, 8, 8}), PV_RESP_OK_NODATA);
    assert_int_equal(watching.frames, frames); /* not in sight */
    assert_int_equal(pv_gpu_get_scanout(f->gpu, 1, &stats), 0);
    assert_true(stats.on && stats.shown_width == 32);
    assert_int_equal(resource_command(f, PV_CMD_RESOURCE_UNREF, 0, 1), PV_RESP_OK_NODATA);
    assert_null(watching.frame.pixels);
    assert_int_equal(pv_gpu_get_scanout(f->gpu, 1, &stats), 0);
    assert_false(stats.on);
    fixture_close(f);
}

static void test_guest_blob_is_shown(void **state)
{
    struct gpu_fixture *f = open_2d();
    const struct {
        struct pv_wire_create_blob fixed;
        struct pv_wire_mem_entry entries[2];
    } create = {
        .fixed = {.header = {.type = PV_CMD_RESOURCE_CREATE_BLOB},
                  .resource_id = 5,
                  .blob_mem = PV_BLOB_MEM_GUEST,
                  .blob_flags = PV_WIRE_BLOB_SHAREABLE,
                  .nr_entries = 2,
                  .size = 8192},
        .entries = {{GUEST_BASE + 4096, 4096, 0}, {GUEST_BASE + 65536, 4096, 0}},
    };
    assert_int_equal(RUN(f, create), PV_RESP_OK_NODATA);
    struct pv_wire_set_scanout_blob set = {
        .header = {.type = PV_CMD_SET_SCANOUT_BLOB},
        .rect = {0, 0, 32, 32},
        .resource_id = 5,
        .width = 32,
        .height = 32,
        .format = PV_FORMAT_B8G8R8X8,
        .strides = {128},
        .offsets = {4096},
    };
    assert_int_equal(RUN(f, set), PV_RESP_OK_NODATA);
    memset(f->guest + 65536, 0x5a, 4096);
    assert_int_equal(flush(f, 5, set.rect), PV_RESP_OK_NODATA);
    assert_int_equal(watching.first_pixel, 0x5a5a5a5a);
    struct pv_gpu_snapshot *snapshot;
    memset(f->guest + 65536, 0xa5, 4096);
    assert_int_equal(pv_gpu_snapshot(f->gpu, 0, &snapshot), 0);
    assert_memory_equal(snapshot->pixels, f->guest + 65536, 4096);
    free(snapshot);
    set.offsets[0] = 4097;
    assert_int_equal(RUN(f, set), PV_RESP_ERR_INVALID_PARAMETER);
    set.offsets[0] = UINT32_MAX;
    assert_int_equal(RUN(f, set), PV_RESP_ERR_INVALID_PARAMETER);
    set.offsets[0] = 0;
    set.strides[0] = 127;
    assert_int_equal(RUN(f, set), PV_RESP_ERR_INVALID_PARAMETER);
    set.strides[0] = UINT32_MAX;
    assert_int_equal(RUN(f, set), PV_RESP_ERR_INVALID_PARAMETER);
    assert_int_equal(pv_guest_memory_remove(f->memory, GUEST_BASE, GUEST_SIZE), 0);
    assert_int_equal(pv_gpu_snapshot(f->gpu, 0, &snapshot), -EFAULT);
    fixture_close(f);
}

static void test_cursor(void **state)
{
    struct gpu_fixture *f = open_2d();
    create_2d(f, 7, 64, 64);
    memset(f->guest, 0x11, 64 * 64 * 4);
    attach(f, 7, 1, GUEST_BASE, 64 * 64 * 4);
    transfer(f, 7, (struct pv_wire_rect){0, 0, 64, 64}, 0);
    struct pv_wire_cursor request = {
        .header = {.type = PV_CMD_UPDATE_CURSOR},
        .x = 10,
        .y = (uint32_t)-5,
        .resource_id = 7,
        .hot_x = 1000,
    };
    pv_gpu_cursor(f->gpu, &request, sizeof(request));
    assert_int_equal(watching.cursors, 1);
    assert_int_equal(watching.cursor.y, -5);
    assert_int_equal(watching.cursor.hot_x, 63);
    assert_int_equal(watching.cursor_pixel[0], 0x11);
    assert_int_equal(watching.cursor_pixel[3], 0xff); /* the format has no alpha */
    request.header.type = PV_CMD_MOVE_CURSOR;
    request.x = 0x7fffffff;
    pv_gpu_cursor(f->gpu, &request, sizeof(request));
    assert_true(watching.cursor.moved_only && watching.cursor.x == 32768);
    request.scanout_id = 2;
    pv_gpu_cursor(f->gpu, &request, sizeof(request));
    pv_gpu_cursor(f->gpu, &request, sizeof(request) - 1);
    assert_int_equal(watching.cursors, 2);
    request.scanout_id = 0;
    request.header.type = PV_CMD_UPDATE_CURSOR;
    request.resource_id = 0;
    pv_gpu_cursor(f->gpu, &request, sizeof(request));
    assert_null(watching.cursor.pixels);
    fixture_close(f);
}

static void test_resize_is_announced(void **state)
{
    struct gpu_fixture *f = open_2d();
    uint32_t config[5];
    assert_int_equal(pv_gpu_set_scanout_size(f->gpu, 1, 1920, 1080), 0);
    assert_int_equal(f->config_changes, 1);
    pv_gpu_read_config(f->gpu, 0, config, sizeof(config));
    assert_int_equal(config[0], PV_GPU_EVENT_DISPLAY);
    assert_int_equal(config[2], 2);
    assert_int_equal(config[3], 0);
    config[0] = 0;
    config[1] = PV_GPU_EVENT_DISPLAY;
    pv_gpu_write_config(f->gpu, 0, config, sizeof(config));
    pv_gpu_read_config(f->gpu, 0, config, sizeof(config));
    assert_int_equal(config[0], 0);
    uint8_t tail[64];
    memset(tail, 0xff, sizeof(tail));
    pv_gpu_read_config(f->gpu, 18, tail, sizeof(tail));
    pv_gpu_read_config(f->gpu, UINT32_MAX, tail, sizeof(tail));
    assert_int_equal(tail[0], 0);

    const struct pv_wire_header request = {.type = PV_CMD_GET_DISPLAY_INFO};
    const struct answer *answer = fixture_answer(f, fixture_send(f, &request, sizeof(request)));
    assert_int_equal(answer->size, 408);
    assert_int_equal(answer->reply.display_info.modes[1].rect.width, 1920);
    assert_int_equal(answer->reply.display_info.modes[1].rect.x, 1280);
    assert_int_equal(answer->reply.display_info.modes[2].enabled, 0);
    assert_int_equal(pv_gpu_set_scanout_size(f->gpu, 2, 1, 1), -EINVAL);
    assert_int_equal(pv_gpu_set_scanout_size(f->gpu, 0, 0, 1), -EINVAL);
    assert_int_equal(pv_gpu_set_scanout_size(f->gpu, 0, 16385, 1), -EINVAL);
    assert_int_equal(pv_gpu_set_scanout_size(f->gpu, 0, 0, 0), 0);
    fixture_close(f);
}

static void test_short_requests(void **state)
{
    struct gpu_fixture *f = open_2d();
    union pv_wire_request request = {.header = {.type = 0x1ff}};
    assert_int_equal(fixture_run(f, &request, sizeof(request)), PV_RESP_ERR_UNSPEC);
    assert_int_equal(fixture_run(f, &request, 0), PV_RESP_ERR_UNSPEC);
    assert_int_equal(fixture_run(f, &request, 23), PV_RESP_ERR_UNSPEC);
    for (uint32_t type = PV_CMD_RESOURCE_CREATE_2D; type <= PV_CMD_SET_SCANOUT_BLOB; type++) {
        request.header.type = type;
        assert_int_equal(fixture_run(f, &request, 24), PV_RESP_ERR_INVALID_PARAMETER);
    }
    fixture_close(f);
}

static void test_no_venus_without_workers(void **state)
{
    struct gpu_fixture *f = open_2d();
    assert_int_equal(pv_gpu_features(f->gpu) & (PV_GPU_F_VIRGL | PV_GPU_F_CONTEXT_INIT), 0);
    assert_int_equal(create_context(f, 1, 4), PV_RESP_ERR_INVALID_PARAMETER);
    assert_int_equal(pv_gpu_arena_fd(f->gpu), -1);
    fixture_close(f);
}

/* What is shown is what a snapshot has, however it is stored, flushed or not. */
static void test_snapshot(void **state)
{
    struct gpu_fixture *f = open_2d();
    struct pv_gpu_snapshot *snapshot = NULL;
    assert_int_equal(pv_gpu_snapshot(f->gpu, 0, &snapshot), -ENOENT);
    assert_int_equal(pv_gpu_snapshot(f->gpu, 2, &snapshot), -ENOENT);
    create_2d(f, 1, 100, 100);
    for (unsigned i = 0; i < 100 * 100; i++)
        memcpy(f->guest + 4 * i, &i, 4);
    attach(f, 1, 1, GUEST_BASE, 100 * 100 * 4);
    transfer(f, 1, (struct pv_wire_rect){0, 0, 100, 100}, 0);
    set_scanout(f, 1, 1, (struct pv_wire_rect){10, 20, 30, 40});
    assert_int_equal(pv_gpu_snapshot(f->gpu, 0, &snapshot), -ENOENT);
    assert_int_equal(pv_gpu_snapshot(f->gpu, 1, &snapshot), 0);
    pv_gpu_reset(f->gpu); /* it is a copy */
    assert_int_equal(snapshot->frame.width, 30);
    assert_int_equal(snapshot->frame.height, 40);
    assert_int_equal(snapshot->frame.stride, 120);
    assert_int_equal(snapshot->frame.format, PV_FORMAT_B8G8R8X8);
    assert_ptr_equal(snapshot->frame.pixels, snapshot->pixels);
    for (unsigned i = 0; i < 30 * 40; i++) {
        uint32_t pixel;
        memcpy(&pixel, snapshot->pixels + 4 * i, 4);
        assert_int_equal(pixel, (20 + i / 30) * 100 + 10 + i % 30);
    }
    assert_null(snapshot->cursor.pixels);
    free(snapshot);
    fixture_close(f);
}

static void test_snapshot_has_the_cursor(void **state)
{
    struct gpu_fixture *f = open_2d();
    struct pv_gpu_snapshot *snapshot = NULL;
    create_2d(f, 1, 64, 64);
    memset(f->guest, 0x11, 64 * 64 * 4);
    attach(f, 1, 1, GUEST_BASE, 64 * 64 * 4);
    transfer(f, 1, (struct pv_wire_rect){0, 0, 64, 64}, 0);
    set_scanout(f, 0, 1, (struct pv_wire_rect){0, 0, 64, 64});
    const struct pv_wire_cursor cursor = {
        .header = {.type = PV_CMD_UPDATE_CURSOR}, .x = 9, .y = (uint32_t)-8, .resource_id = 1};
    pv_gpu_cursor(f->gpu, &cursor, sizeof(cursor));
    assert_int_equal(pv_gpu_snapshot(f->gpu, 0, &snapshot), 0);
    assert_ptr_equal(snapshot->cursor.pixels, snapshot->cursor_pixels);
    assert_int_equal(snapshot->cursor.x, 9);
    assert_int_equal(snapshot->cursor.y, -8);
    assert_memory_equal(snapshot->cursor_pixels, "\x11\x11\x11\xff", 4);
    free(snapshot);
    fixture_close(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_resources_are_checked),
        cmocka_unit_test(test_many_resources),
        cmocka_unit_test(test_backing_is_checked),
        cmocka_unit_test(test_transfer_follows_the_backing),
        cmocka_unit_test(test_memory_that_has_gone_is_noticed),
        cmocka_unit_test(test_scanouts),
        cmocka_unit_test(test_guest_blob_is_shown),
        cmocka_unit_test(test_cursor),
        cmocka_unit_test(test_resize_is_announced),
        cmocka_unit_test(test_short_requests),
        cmocka_unit_test(test_no_venus_without_workers),
        cmocka_unit_test(test_snapshot),
        cmocka_unit_test(test_snapshot_has_the_cursor),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
