#include "gpu_fixture.h"

#include "util/log.h"
#include "util/os.h"

#include "unit.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define STEPS 60000u

static struct gpu_fixture fixture;
static uint64_t state_of_random;

static uint32_t below(uint32_t limit)
{
    state_of_random = state_of_random * UINT64_C(6364136223846793005) + 1442695040888963407u;
    return (uint32_t)(state_of_random >> 33) % limit;
}

/* Mostly what makes sense, at times what does not. */
static uint32_t pick(uint32_t limit)
{
    static const uint32_t odd[] = {0, UINT32_MAX, 0x80000000u, 0x7fffffffu, 16385, 4097};
    return below(150) ? below(limit) : odd[below(sizeof(odd) / sizeof(odd[0]))];
}

static void random_header(struct pv_wire_header *header)
{
    static const uint32_t groups[] = {PV_CMD_GET_DISPLAY_INFO, PV_CMD_CTX_CREATE};
    static const uint32_t often[] = {PV_CMD_RESOURCE_CREATE_BLOB, PV_CMD_RESOURCE_MAP_BLOB,
                                     PV_CMD_SET_SCANOUT_BLOB, PV_CMD_RESOURCE_FLUSH,
                                     PV_CMD_CTX_ATTACH_RESOURCE};
    uint32_t group = below(2);
    header->type = groups[group] + below(group ? 12 : 15);
    if (below(3) == 0)
        header->type = often[below(sizeof(often) / sizeof(often[0]))];
    header->flags = below(3) ? 0 : below(4);
    header->fence_id = below(1000000);
    header->ctx_id = 1 + pick(3);
    header->ring_idx = (uint8_t)(below(20) ? below(3) : below(256));
}

static void random_body(union pv_wire_request *request)
{
    uint32_t *words = (uint32_t *)(void *)request;
    const struct pv_wire_header header = request->header;
    for (size_t i = sizeof(header) / 4; i < sizeof(*request) / 4; i++)
        words[i] = 1 + pick(12);
    switch (header.type) {
    case PV_CMD_RESOURCE_CREATE_2D:
        request->create_2d.format = 1 + pick(4);
        request->create_2d.width = 1 + pick(80);
        request->create_2d.height = below(3) ? 64 : pick(80);
        break;
    case PV_CMD_RESOURCE_CREATE_BLOB:
        request->create_blob.blob_mem = 1 + below(3);
        request->create_blob.blob_flags = below(8);
        request->create_blob.nr_entries = request->create_blob.blob_mem == 1 ? pick(4) : 0;
        request->create_blob.blob_mem -= request->create_blob.blob_mem == 3 && below(4);
        request->create_blob.size = (uint64_t)(1 + pick(64)) * 4096;
        break;
    case PV_CMD_RESOURCE_MAP_BLOB:
        request->map_blob.offset = (uint64_t)pick(512) * 4096;
        break;
    case PV_CMD_SET_SCANOUT_BLOB:
        request->set_scanout_blob.scanout_id = pick(3);
        request->set_scanout_blob.format = 1 + pick(4);
        request->set_scanout_blob.width = 12 + pick(32);
        request->set_scanout_blob.height = 12 + pick(32);
        request->set_scanout_blob.strides[0] = 128 + pick(256);
        request->set_scanout_blob.rect = (struct pv_wire_rect){pick(4), pick(4), 1 + pick(8), 8};
        break;
    case PV_CMD_CTX_CREATE:
        request->ctx_create.context_init = below(5) ? 4 : pick(6);
        break;
    case PV_CMD_SUBMIT_3D:
        request->submit_3d.size = below(5) ? 4 * below(8) : pick(100);
        break;
    default:
        break;
    }
}

static void send_request(struct gpu_fixture *f)
{
    struct {
        union pv_wire_request wire;
        struct pv_wire_mem_entry entries[8];
    } request;
    memset(&request, 0, sizeof(request));
    random_header(&request.wire.header);
    random_body(&request.wire);
    /* the entries of both kinds lie where the longer one has them, or in its words */
    struct pv_wire_mem_entry *entries =
        (void *)((uint8_t *)&request + (request.wire.header.type == PV_CMD_RESOURCE_CREATE_BLOB
                                            ? sizeof(struct pv_wire_create_blob)
                                            : sizeof(struct pv_wire_attach_backing)));
    if (request.wire.header.type == PV_CMD_RESOURCE_CREATE_BLOB ||
        request.wire.header.type == PV_CMD_RESOURCE_ATTACH_BACKING) {
        for (int i = 0; i < 4; i++) {
            const struct pv_wire_mem_entry entry = {GUEST_BASE + below(2000) * 4096 + pick(8),
                                                    pick(100000), 0};
            memcpy(&entries[i], &entry, sizeof(entry));
        }
    }
    fixture_send(f, &request, below(40) ? sizeof(request) : below(sizeof(request)));
    if (below(10) == 0)
        pv_gpu_cursor(f->gpu, &request, sizeof(struct pv_wire_cursor));
}

static void say_something(struct gpu_fixture *f, struct fake_worker *worker)
{
    struct pv_link_message heard, said = {0};
    int fd = -1;
    if (!worker->link)
        return;
    if (worker->ended || below(3000) == 0) {
        worker_end(f, worker);
        return;
    }
    if (!worker_receive(worker, &heard))
        heard = (struct pv_link_message){.type = below(200) ? 0 : PV_LINK_FORGET};
    said.res_id = heard.res_id;
    said.cookie = heard.cookie;
    said.offset = heard.offset;
    switch (heard.type) {
    case PV_LINK_FENCE:
        said.type = PV_LINK_FENCE_DONE;
        break;
    case PV_LINK_CREATE_BLOB:
        said.type = below(2) ? PV_LINK_RING : PV_LINK_BLOB_DONE;
        said.offset = said.type == PV_LINK_RING ? pick(1024) * 4 : 0;
        said.flags = below(4) != 0;
        if (heard.offset == PV_LINK_OWN_MEMORY) {
            said.type = PV_LINK_BLOB_DONE;
            said.result = below(4) ? 0 : -12;
            if (said.result == 0)
                pv_shm_create("blob", heard.size, &fd);
        }
        break;
    case PV_LINK_FORGET:
        said.type = PV_LINK_FORGOTTEN;
        break;
    case PV_LINK_PING:
        said.type = PV_LINK_PONG;
        break;
    default:
        return;
    }
    if (below(10) != 0) /* else it is lost */
        pv_link_send(worker->link, &said, NULL, fd);
    if (fd >= 0)
        close(fd);
}

static void forget_dead_workers(struct gpu_fixture *f)
{
    unsigned kept = 0;
    for (unsigned i = 0; i < f->worker_count; i++) {
        if (f->workers[i].link)
            f->workers[kept++] = f->workers[i];
    }
    f->worker_count = kept;
}

/* A display that reads every pixel that it is shown, and a snapshot of it all now and then. */
static uint32_t pixel_sum;

static void add_pixels(const struct pv_frame *frame, const struct pv_rect *part)
{
    for (uint32_t y = part->y; y < part->y + part->height; y++) {
        const uint8_t *row = (const uint8_t *)frame->pixels + (size_t)y * frame->stride;
        for (size_t i = 4 * (size_t)part->x; i < 4 * ((size_t)part->x + part->width); i++)
            pixel_sum += row[i];
    }
}

/* As a display would: a copy of what cannot be seen in place. */
static int look_at_copy(const struct pv_frame *frame)
{
    const struct pv_rect *damage = &frame->damage;
    uint8_t *pixels = malloc(4 * (size_t)damage->width * damage->height);
    int ret = frame->read(frame, damage, pixels);
    struct pv_frame copy = *frame;
    copy.pixels = pixels;
    copy.stride = 4 * damage->width;
    if (ret == 0)
        add_pixels(&copy, &(struct pv_rect){0, 0, damage->width, damage->height});
    free(pixels);
    return ret;
}

static int look(struct pv_display *display, const struct pv_frame *frame)
{
    struct pv_gpu_snapshot *snapshot;
    if (frame->width == 0)
        return 0;
    if (!frame->pixels)
        return look_at_copy(frame);
    add_pixels(frame, &frame->damage);
    if (below(20) == 0 && pv_gpu_snapshot(fixture.gpu, frame->scanout, &snapshot) == 0) {
        add_pixels(&snapshot->frame, &snapshot->frame.damage);
        free(snapshot);
    }
    return 0;
}

static const struct pv_display_ops looking_ops = {.name = "looking", .present = look};
static struct pv_display looking_display = {&looking_ops};

static void make_noise(enum pv_gpu_window window)
{
    struct pv_gpu_stats stats;
    struct gpu_fixture *f = &fixture;
    state_of_random = 1 + window;
    pv_log_set_level(PV_LOG_ERROR);
    fixture_open(f,
                 &(struct gpu_options){
                     .venus = true, .window = window, .scanouts = 3, .display = &looking_display});
    for (unsigned i = 0; i < STEPS; i++) {
        send_request(f);
        for (unsigned w = 0; w < f->worker_count; w++)
            say_something(f, &f->workers[w]);
        if (below(4) == 0 && f->maps)
            pv_gpu_window_done(f->gpu, below(2) ? f->map_token : f->unmap_token,
                               below(5) ? 0 : -22);
        fixture_turn(f);
        f->answer_count = 0;
        if (below(2000) == 0 || f->worker_count > WORKERS_MAX - 2)
            pv_gpu_reset(f->gpu);
        forget_dead_workers(f);
    }
    pv_gpu_reset(f->gpu);
    pv_gpu_get_stats(f->gpu, &stats);
    assert_true(stats.fences > 1000 && stats.flushes > 1000 && stats.workers_started > 100);
    assert_int_equal(stats.resources + stats.contexts + stats.mapped_bytes + stats.bytes_2d, 0);
    fixture_close(f);
    pv_log_set_level(PV_LOG_INFO);
}

static void test_noise_with_an_arena(void **state)
{
    make_noise(PV_GPU_WINDOW_ARENA);
}

static void test_noise_with_a_dynamic_window(void **state)
{
    make_noise(PV_GPU_WINDOW_DYNAMIC);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_noise_with_an_arena),
        cmocka_unit_test(test_noise_with_a_dynamic_window),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
