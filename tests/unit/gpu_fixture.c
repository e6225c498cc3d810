#include "gpu_fixture.h"

#include "gpu/guest_memory.h"
#include "util/os.h"
#include "venus/activity.h"
#include "worker/spawner.h"

#include "unit.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- in place of src/worker/spawner.c ---- */

struct pv_spawner {
    struct gpu_fixture *fixture;
    const struct pv_spawner_events *events;
    void *data;
};
static struct pv_spawner the_spawner;

int pv_spawner_watch(struct pv_spawner *spawner, uv_loop_t *loop,
                     const struct pv_spawner_events *events, void *data)
{
    spawner->events = events;
    spawner->data = data;
    return 0;
}

int pv_spawner_start(struct pv_spawner *spawner, uint64_t id, uint32_t ctx_id, const char *name,
                     const struct pv_spawner_fds *fds)
{
    struct gpu_fixture *f = spawner->fixture;
    assert_true(f->worker_count < WORKERS_MAX);
    struct fake_worker *worker = &f->workers[f->worker_count++];
    worker->id = id;
    worker->ended = false;
    worker->activity = NULL;
    void *map = NULL;
    if (fds->activity >= 0 && pv_shm_map(fds->activity, sizeof(*worker->activity), &map) == 0)
        worker->activity = map;
    assert_int_equal(pv_link_create(pv_fd_duplicate(fds->link), true, &worker->link), 0);
    return 0;
}

void pv_spawner_end(struct pv_spawner *spawner, uint64_t id, uint32_t grace_ms)
{
    for (unsigned i = 0; i < spawner->fixture->worker_count; i++) {
        if (spawner->fixture->workers[i].id == id)
            spawner->fixture->workers[i].ended = true;
    }
}

void worker_end(struct gpu_fixture *f, struct fake_worker *worker)
{
    pv_link_destroy(worker->link);
    worker->link = NULL;
    the_spawner.events->ended(the_spawner.data, worker->id, 0);
}

/* ---- the transport ---- */

static void on_answer(void *data, void *token, const void *response, size_t size)
{
    struct gpu_fixture *f = data;
    assert_true(f->answer_count < ANSWERS_MAX);
    assert_null(fixture_answer(f, (uintptr_t)token)); /* exactly one */
    assert_true(size >= sizeof(struct pv_wire_header) && size <= PV_GPU_RESPONSE_MAX);
    struct answer *answer = &f->answers[f->answer_count++];
    answer->token = (uintptr_t)token;
    answer->size = size;
    memset(&answer->reply, 0, sizeof(answer->reply));
    memcpy(&answer->reply, response, size);
}

static void on_config_changed(void *data)
{
    ((struct gpu_fixture *)data)->config_changes++;
}

static void on_map(void *data, uint64_t offset, uint64_t size, int fd, uint64_t fd_offset,
                   uint64_t token)
{
    struct gpu_fixture *f = data;
    assert_true(fd >= 0 && fd_offset == 0);
    f->map_offset = offset;
    f->map_size = size;
    f->map_token = token;
    f->maps++;
}

static void on_unmap(void *data, uint64_t offset, uint64_t size, uint64_t token)
{
    struct gpu_fixture *f = data;
    f->unmap_offset = offset;
    f->unmap_token = token;
    f->unmaps++;
}

static const struct pv_gpu_transport transport = {on_answer, on_config_changed, on_map, on_unmap};

/* ---- open, close ---- */

void fixture_open(struct gpu_fixture *f, const struct gpu_options *options)
{
    void *map;
    memset(f, 0, sizeof(*f));
    assert_int_equal(uv_loop_init(&f->loop), 0);
    assert_int_equal(pv_guest_memory_create(&f->memory), 0);
    assert_int_equal(pv_shm_create("guest", GUEST_SIZE, &f->guest_fd), 0);
    assert_int_equal(pv_shm_map(f->guest_fd, GUEST_SIZE, &map), 0);
    f->guest = map;
    const struct pv_guest_region region = {
        .gpa = GUEST_BASE, .size = GUEST_SIZE, .user_address = 0x7000000, .fd = f->guest_fd};
    assert_int_equal(pv_guest_memory_set(f->memory, &region, 1), 0);
    the_spawner = (struct pv_spawner){.fixture = f};
    const struct pv_gpu_params params = {
        .loop = &f->loop,
        .memory = f->memory,
        .spawner = options->venus ? &the_spawner : NULL,
        .transport = &transport,
        .transport_data = f,
        .display = options->display,
        .window = options->window,
        .window_size = WINDOW_SIZE,
        .scanout_count = options->scanouts ? options->scanouts : 1,
    };
    assert_int_equal(pv_gpu_create(&params, &f->gpu), 0);
}

void fixture_close(struct gpu_fixture *f)
{
    pv_gpu_destroy(f->gpu);
    for (unsigned i = 0; i < f->worker_count; i++) {
        pv_link_destroy(f->workers[i].link);
        if (f->workers[i].activity)
            pv_shm_unmap(f->workers[i].activity, sizeof(*f->workers[i].activity));
    }
    uv_run(&f->loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&f->loop), 0);
    pv_guest_memory_destroy(f->memory);
    pv_shm_unmap(f->guest, GUEST_SIZE);
    close(f->guest_fd);
}

/* ---- requests ---- */

uintptr_t fixture_send(struct gpu_fixture *f, const void *request, size_t size)
{
    uint8_t *copy = malloc(size ? size : 1); /* exactly as long, for AddressSanitizer */
    memcpy(copy, request, size);
    uintptr_t token = ++f->next_token;
    pv_gpu_control(f->gpu, (void *)token, copy, size);
    free(copy);
    return token;
}

const struct answer *fixture_answer(const struct gpu_fixture *f, uintptr_t token)
{
    for (unsigned i = 0; i < f->answer_count; i++) {
        if (f->answers[i].token == token)
            return &f->answers[i];
    }
    return NULL;
}

uint32_t fixture_run(struct gpu_fixture *f, const void *request, size_t size)
{
    const struct answer *answer = fixture_answer(f, fixture_send(f, request, size));
    if (!answer)
        return 0;
    uint32_t type = answer->reply.header.type;
    if (answer == &f->answers[f->answer_count - 1]) /* keep room */
        f->answer_count--;
    return type;
}

/* ---- workers ---- */

void fixture_turn(struct gpu_fixture *f)
{
    for (int i = 0; i < 3; i++)
        uv_run(&f->loop, UV_RUN_NOWAIT);
}

bool worker_receive(struct fake_worker *worker, struct pv_link_message *out)
{
    const void *payload;
    int fd = -1;
    int ret = pv_link_try_receive(worker->link, out, &payload, &fd);
    if (fd >= 0)
        close(fd);
    return ret == 1;
}

void worker_send(struct gpu_fixture *f, struct fake_worker *worker,
                 const struct pv_link_message *message, int fd)
{
    assert_int_equal(pv_link_send(worker->link, message, NULL, fd), 0);
    fixture_turn(f);
}

/* ---- shorthands ---- */

uint32_t create_context(struct gpu_fixture *f, uint32_t id, uint32_t capset)
{
    const struct pv_wire_ctx_create request = {
        .header = {.type = PV_CMD_CTX_CREATE, .ctx_id = id},
        .name_size = 4,
        .context_init = capset,
        .name = "tes\n",
    };
    return RUN(f, request);
}

uint32_t create_2d(struct gpu_fixture *f, uint32_t id, uint32_t width, uint32_t height)
{
    const struct pv_wire_create_2d request = {
        .header = {.type = PV_CMD_RESOURCE_CREATE_2D},
        .resource_id = id,
        .format = PV_FORMAT_B8G8R8X8,
        .width = width,
        .height = height,
    };
    return RUN(f, request);
}

uint32_t create_blob(struct gpu_fixture *f, uint32_t ctx, uint32_t id, uint32_t flags,
                     uint64_t size)
{
    const struct pv_wire_create_blob request = {
        .header = {.type = PV_CMD_RESOURCE_CREATE_BLOB, .ctx_id = ctx},
        .resource_id = id,
        .blob_mem = PV_BLOB_MEM_HOST3D,
        .blob_flags = flags,
        .blob_id = id * 100,
        .size = size,
    };
    return RUN(f, request);
}

uint32_t map_blob(struct gpu_fixture *f, uint32_t id, uint64_t offset)
{
    const struct pv_wire_map_blob request = {
        .header = {.type = PV_CMD_RESOURCE_MAP_BLOB}, .resource_id = id, .offset = offset};
    return RUN(f, request);
}

uint32_t resource_command(struct gpu_fixture *f, uint32_t type, uint32_t ctx, uint32_t id)
{
    const struct pv_wire_resource request = {
        .header = {.type = type, .ctx_id = ctx},
        .resource_id = id,
    };
    return RUN(f, request);
}
