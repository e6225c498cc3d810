/* What the device does at a later time: answer flushes when the display has taken their frames, and
 * tell the guest of new sizes, which a display that is being dragged larger changes all the time.
 */
#include "gpu/device.h"
#include "util/os.h"

#include <errno.h>
#include <stdlib.h>

#define PV_LOG_MODULE "later"

/* A guest takes some 50 ms to follow a new size, and should not begin again before that. */
#define SIZES_PERIOD_NS UINT64_C(50000000)

static void on_timer(uv_timer_t *timer);

static void on_timer_closed(uv_handle_t *handle)
{
    free(handle);
}

int pv_later_init(struct pv_gpu *gpu)
{
    pv_list_init(&gpu->flips);
    gpu->later_timer = calloc(1, sizeof(*gpu->later_timer));
    if (!gpu->later_timer)
        return -ENOMEM;
    uv_timer_init(gpu->params.loop, gpu->later_timer);
    gpu->later_timer->data = gpu;
    return 0;
}

void pv_later_finish(struct pv_gpu *gpu)
{
    uv_close((uv_handle_t *)gpu->later_timer, on_timer_closed);
}

static void set_timer(struct pv_gpu *gpu, uint64_t now)
{
    uint64_t due = gpu->sizes_changed ? gpu->sizes_told_ns + SIZES_PERIOD_NS : UINT64_MAX;
    pv_list_for_each(node, &gpu->flips)
    {
        const struct pv_answer *answer = pv_list_entry(node, struct pv_answer, flip_node);
        if (answer->due_ns < due)
            due = answer->due_ns;
    }
    if (due == UINT64_MAX)
        return;
    uint64_t wait = due > now ? due - now : 0;
    uv_update_time(gpu->params.loop);
    uv_timer_start(gpu->later_timer, on_timer, (wait + 999999) / 1000000, 0);
}

static void answer_flips(struct pv_gpu *gpu, uint64_t now)
{
    pv_list_for_each(node, &gpu->flips)
    {
        struct pv_answer *answer = pv_list_entry(node, struct pv_answer, flip_node);
        if (answer->due_ns > now)
            continue;
        pv_list_remove(&answer->flip_node);
        pv_answer_finish(gpu, answer, PV_RESP_OK_NODATA);
    }
}

static void tell_of_sizes(struct pv_gpu *gpu, uint64_t now)
{
    if (!gpu->sizes_changed || now - gpu->sizes_told_ns < SIZES_PERIOD_NS)
        return;
    gpu->sizes_changed = false;
    gpu->sizes_told_ns = now;
    gpu->events_read |= PV_GPU_EVENT_DISPLAY;
    gpu->params.transport->config_changed(gpu->params.transport_data);
}

static void do_what_is_due(struct pv_gpu *gpu)
{
    uint64_t now = pv_now_ns();
    answer_flips(gpu, now);
    tell_of_sizes(gpu, now);
    set_timer(gpu, now);
}

static void on_timer(uv_timer_t *timer)
{
    do_what_is_due(timer->data);
}

bool pv_later_answer_flip(struct pv_gpu *gpu, const struct pv_gpu_request *request, uint64_t due_ns)
{
    uint64_t now = pv_now_ns();
    struct pv_answer *answer = due_ns > now ? pv_answer_defer(gpu, request) : NULL;
    if (!answer)
        return false;
    answer->due_ns = due_ns;
    pv_list_append(&gpu->flips, &answer->flip_node);
    set_timer(gpu, now);
    return true;
}

void pv_later_tell_of_sizes(struct pv_gpu *gpu)
{
    gpu->sizes_changed = true;
    do_what_is_due(gpu);
}
