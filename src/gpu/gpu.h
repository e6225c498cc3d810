/* One virtual GPU: the virtio-gpu device, without the transport that carries its queues.
 *
 *   transport ── request bytes ──► pv_gpu_control ──► 2D resources ──► scanouts ──► display
 *             ◄── answer ───────────────┘      └────► contexts ── link ──► workers (Vulkan)
 *
 * The transport copies a request out of guest memory and hands over the private copy; the GPU
 * answers each request once, at once or later (fences, blobs). It never blocks: whatever takes time
 * happens in a worker process.
 *
 * Spec:    virtio 1.3, section 5.7 (GPU device), and the Linux UAPI header virtio_gpu.h.
 * Trust:   every byte of a request is hostile.
 * Threads: all on one, that of the event loop.
 */
#ifndef PV_GPU_GPU_H
#define PV_GPU_GPU_H

#include "display/display.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct pv_gpu;
struct pv_guest_memory;
struct pv_host_caps;
struct pv_spawner;
typedef struct uv_loop_s uv_loop_t;

#define PV_GPU_SCANOUTS_MAX 16u
/* Longest request that a transport passes on: a frame's worth of backing entries and the largest
 * command stream fit many times. */
#define PV_GPU_REQUEST_MAX (16u << 20)
/* Longest response (EDID, display info, capset). */
#define PV_GPU_RESPONSE_MAX 4096u
#define PV_GPU_CONFIG_SIZE  20u /* with blob_alignment */

enum pv_gpu_window {
    PV_GPU_WINDOW_ARENA,   /* one memfd behind all of it, mapped once by the VMM */
    PV_GPU_WINDOW_DYNAMIC, /* each blob is mapped by the VMM when the guest asks */
    PV_GPU_WINDOW_NONE,    /* the VMM cannot map: no host-visible memory, so no Venus */
};

/* What the transport does for the GPU. */
struct pv_gpu_transport {
    /* The answer to the request that pv_gpu_control was given with this `token`. `response` is
     * borrowed; the transport cuts it to the room that the guest gave. */
    void (*answer)(void *data, void *token, const void *response, size_t size);
    /* events_read has changed: raise a configuration interrupt. */
    void (*config_changed)(void *data);
    /* PV_GPU_WINDOW_DYNAMIC: map `size` bytes of `fd` (borrowed, duplicated if needed later) at
     * `offset` of the window, or unmap exactly what was mapped there. Ends with
     * pv_gpu_window_done(token, result), not before the call has returned. */
    void (*map)(void *data, uint64_t offset, uint64_t size, int fd, uint64_t fd_offset,
                uint64_t token);
    void (*unmap)(void *data, uint64_t offset, uint64_t size, uint64_t token);
};

struct pv_gpu_params {
    uv_loop_t *loop;                /* borrowed, as all pointers here */
    struct pv_guest_memory *memory; /* where backing pages are */
    struct pv_spawner *spawner;     /* starts workers; NULL: 2D only */
    const struct pv_gpu_transport *transport;
    void *transport_data;
    struct pv_display *display; /* where scanouts go; NULL: nowhere */
    enum pv_gpu_window window;  /* what the VMM can do */
    uint64_t window_size;       /* bytes, power of two */
    uint32_t scanout_count;     /* 1 … PV_GPU_SCANOUTS_MAX */
    uint32_t plugged_count;     /* of them, those that are plugged at first; 0: all */
    uint32_t width, height;     /* of each plugged scanout at first; 0: 1280x800 */
    uint32_t refresh_mhz;       /* in the EDID; 0: 60000 */
};

int pv_gpu_create(const struct pv_gpu_params *params, struct pv_gpu **out);
/* Ends all workers. Unanswered requests are forgotten. The spawner is to be destroyed before the
 * loop runs again, and it has to run once more for what was closed. NULL is fine. */
void pv_gpu_destroy(struct pv_gpu *gpu);

/* The VMM turned out to be less able than params.window said (PV_GPU_WINDOW_NONE), or a new one is
 * as able as that again (params.window). Between two drivers, or before the first request. */
void pv_gpu_set_window(struct pv_gpu *gpu, enum pv_gpu_window window);

/* virtio-gpu feature bits 0 … 5 that work here. */
uint64_t pv_gpu_features(const struct pv_gpu *gpu);
/* The driver has accepted these. */
void pv_gpu_set_features(struct pv_gpu *gpu, uint64_t features);

/* PV_GPU_WINDOW_ARENA: the fd behind the window; its first window_size bytes are to be mapped at
 * offset 0. Borrowed. Else -1. */
int pv_gpu_arena_fd(const struct pv_gpu *gpu);

/* Device configuration space. Reading beyond the end gives zeros. Of what is written only
 * events_clear counts. */
void pv_gpu_read_config(const struct pv_gpu *gpu, uint32_t offset, void *out, size_t size);
void pv_gpu_write_config(struct pv_gpu *gpu, uint32_t offset, const void *data, size_t size);

/* A request of the control queue: `size` bytes, private to us, valid during the call. transport->
 * answer is called exactly once with `token`, possibly before this returns, unless pv_gpu_reset or
 * pv_gpu_destroy comes first. */
void pv_gpu_control(struct pv_gpu *gpu, void *token, const void *request, size_t size);
/* A request of the cursor queue. It has no answer. */
void pv_gpu_cursor(struct pv_gpu *gpu, const void *request, size_t size);

/* The outcome of transport->map or unmap: 0 or a negative errno. */
void pv_gpu_window_done(struct pv_gpu *gpu, uint64_t token, int result);

/* The driver has reset the device: resources, contexts, fences, mappings and unanswered requests
 * are gone when this returns (worker processes end soon after); scanouts are off, sizes stay. */
void pv_gpu_reset(struct pv_gpu *gpu);

/* From the display's side: a scanout's preferred size (0x0 disconnects it). The guest is told by a
 * configuration change, at most one each 50 ms. -EINVAL for sizes that no EDID can name or a
 * scanout that does not exist.
 */
int pv_gpu_set_scanout_size(struct pv_gpu *gpu, uint32_t scanout, uint32_t width, uint32_t height);

/* Present all of a scanout to the display now. Nothing happens if it is off or does not exist. */
void pv_gpu_show_again(struct pv_gpu *gpu, uint32_t scanout);

/* What a scanout shows at a moment: a copy that is nobody else's. */
struct pv_gpu_snapshot {
    struct pv_frame frame; /* whole; both point into this struct */
    struct pv_cursor cursor;
    uint8_t cursor_pixels[PV_CURSOR_SIDE * PV_CURSOR_SIDE * 4];
    uint8_t pixels[];
};

/* Copy what the guest has drawn on a scanout by now, flushed or not; takes as long as the copy.
 * Release *out with free(), on any thread. -ENOENT if the scanout is off or does not exist;
 * -ENOMEM; another errno if its memory cannot be read. */
int pv_gpu_snapshot(struct pv_gpu *gpu, uint32_t scanout, struct pv_gpu_snapshot **out);

struct pv_gpu_context_stats {
    uint32_t id;
    int pid;       /* of its worker, 0 when it has none (any more) */
    char name[64]; /* as the guest gave it, made printable */
    bool failed, hung;
    uint32_t resources, fences_pending;
    /* What its worker says that it has done (venus/activity.h); the worker is not trusted. */
    uint64_t commands, submissions, frames;
    uint64_t memory_bytes; /* now */
    double commands_per_s; /* in the last whole second of the device's clock */
    double fps;            /* in the last second */
    /* between frames of the last 5 s, 256 at most; 0: none */
    uint64_t frame_median_ns, frame_p99_ns;
};
struct pv_gpu_stats {
    uint64_t commands, errors, fences, cursor_updates, flushes;
    uint64_t resources, contexts, mapped_bytes, bytes_2d;
    uint64_t maps; /* that the VMM was asked for, ever */
    uint64_t workers_started, workers_lost;
};
struct pv_gpu_scanout_stats {
    uint32_t width, height; /* preferred; 0: disconnected */
    bool on;
    uint32_t shown_width, shown_height; /* what the guest shows */
};
void pv_gpu_get_stats(const struct pv_gpu *gpu, struct pv_gpu_stats *out);
/* Fill up to `room` entries; returns how many contexts there are. */
size_t pv_gpu_get_contexts(const struct pv_gpu *gpu, struct pv_gpu_context_stats *out, size_t room);
/* -EINVAL if there is no such scanout. */
int pv_gpu_get_scanout(const struct pv_gpu *gpu, uint32_t scanout,
                       struct pv_gpu_scanout_stats *out);

#endif
