/* A virtual GPU without a VMM and without workers: guest memory is a memfd, answers are kept, and
 * the test plays the worker at the other end of each link.
 */
#ifndef GPU_FIXTURE_H
#define GPU_FIXTURE_H

#include "display/display.h"
#include "gpu/gpu.h"
#include "gpu/protocol.h"
#include "worker/link.h"

#include <uv.h>

#define GUEST_BASE  UINT64_C(0x100000)
#define GUEST_SIZE  (UINT64_C(16) << 20)
#define WINDOW_SIZE (UINT64_C(16) << 20)
#define ANSWERS_MAX 4096
#define WORKERS_MAX 16

struct answer {
    uintptr_t token;
    union pv_wire_reply reply;
    size_t size;
};

struct fake_worker {
    uint64_t id;
    struct pv_link *link;         /* its end */
    struct pv_activity *activity; /* mapped */
    bool ended;                   /* the device has asked for it */
};

struct gpu_fixture {
    uv_loop_t loop;
    struct pv_guest_memory *memory;
    uint8_t *guest; /* what is at GUEST_BASE */
    int guest_fd;
    struct pv_gpu *gpu;
    struct answer answers[ANSWERS_MAX];
    unsigned answer_count;
    unsigned config_changes;
    struct fake_worker workers[WORKERS_MAX];
    unsigned worker_count;
    /* the last map or unmap of a dynamic window */
    uint64_t map_offset, map_size, map_token, unmap_offset, unmap_token;
    unsigned maps, unmaps;
    uintptr_t next_token;
};

struct gpu_options {
    bool venus;
    enum pv_gpu_window window;
    uint32_t scanouts;
    struct pv_display *display;
};
void fixture_open(struct gpu_fixture *f, const struct gpu_options *options);
void fixture_close(struct gpu_fixture *f);

/* Send a request; returns its token. */
uintptr_t fixture_send(struct gpu_fixture *f, const void *request, size_t size);
/* The answer to a token, or NULL. */
const struct answer *fixture_answer(const struct gpu_fixture *f, uintptr_t token);
/* Send and return the type of the answer; 0 when there is none yet. */
uint32_t fixture_run(struct gpu_fixture *f, const void *request, size_t size);
#define RUN(f, request) fixture_run(f, &(request), sizeof(request))

/* Let the loop see what is ready. */
void fixture_turn(struct gpu_fixture *f);
/* The next message for a worker, if there is one. */
bool worker_receive(struct fake_worker *worker, struct pv_link_message *out);
void worker_send(struct gpu_fixture *f, struct fake_worker *worker,
                 const struct pv_link_message *message, int fd);
/* Its process has ended. */
void worker_end(struct gpu_fixture *f, struct fake_worker *worker);

/* Shorthands. */
uint32_t create_context(struct gpu_fixture *f, uint32_t id, uint32_t capset);
uint32_t create_2d(struct gpu_fixture *f, uint32_t id, uint32_t width, uint32_t height);
uint32_t create_blob(struct gpu_fixture *f, uint32_t ctx, uint32_t id, uint32_t flags,
                     uint64_t size);
uint32_t map_blob(struct gpu_fixture *f, uint32_t id, uint64_t offset);
uint32_t resource_command(struct gpu_fixture *f, uint32_t type, uint32_t ctx, uint32_t id);

#endif
