/* What workers say that they have done (venus/activity.h), made into figures for people.
 *
 * A worker may be its guest's by now and write anything there: numbers are copied out one by one,
 * and what cannot be so is left out. Sealing keeps the memory in place. */
#include "venus/activity.h"
#include "gpu/device.h"
#include "util/os.h"

#include <stdlib.h>
#include <unistd.h>

#define PV_LOG_MODULE "context"

#define SECOND_NS UINT64_C(1000000000)
/* Frame times are about the last so many seconds: a pause before that is forgotten. */
#define FRAMES_NS (5 * SECOND_NS)

int pv_activity_create(struct pv_gpu_context *context, int *out_fd)
{
    void *map;
    int fd;
    int ret = pv_shm_create("pearvisor-activity", sizeof(*context->activity), &fd);
    if (ret < 0)
        return ret;
    ret = pv_shm_map(fd, sizeof(*context->activity), &map);
    if (ret < 0) {
        close(fd);
        return ret;
    }
    context->activity = map;
    context->sampled_ns = pv_now_ns();
    *out_fd = fd;
    return 0;
}

void pv_activity_destroy(struct pv_gpu_context *context)
{
    if (context->activity)
        pv_shm_unmap(context->activity, sizeof(*context->activity));
    context->activity = NULL;
}

static uint64_t read_number(const _Atomic uint64_t *number)
{
    return atomic_load_explicit(number, memory_order_relaxed);
}

void pv_activity_sample(struct pv_gpu_context *context, uint64_t now_ns)
{
    if (!context->activity || now_ns <= context->sampled_ns)
        return;
    uint64_t commands = read_number(&context->activity->commands);
    uint64_t more = commands > context->sampled_commands ? commands - context->sampled_commands : 0;
    context->commands_per_s =
        (double)more * (double)SECOND_NS / (double)(now_ns - context->sampled_ns);
    context->sampled_commands = commands;
    context->sampled_ns = now_ns;
}

static int compare_times(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

/* When the latest frames were, in order. Returns how many. */
static unsigned read_frames(const struct pv_activity *activity, uint64_t now_ns,
                            uint64_t out[PV_ACTIVITY_FRAMES])
{
    unsigned count = 0;
    for (unsigned i = 0; i < PV_ACTIVITY_FRAMES; i++) {
        uint64_t time = read_number(&activity->frame_ns[i]);
        if (time != 0 && time <= now_ns && now_ns - time <= FRAMES_NS)
            out[count++] = time;
    }
    qsort(out, count, sizeof(out[0]), compare_times);
    return count;
}

/* Of the last second: whole intervals while frames keep coming, else the frames themselves. */
static double frame_rate(const uint64_t *times, unsigned count, uint64_t now_ns)
{
    unsigned first = count;
    while (first > 0 && now_ns - times[first - 1] < SECOND_NS)
        first--;
    unsigned recent = count - first;
    if (recent == 0)
        return 0;
    unsigned begin = first > 0 ? first - 1 : 0; /* the interval that the second began in */
    unsigned intervals = count - 1 - begin;
    uint64_t took = times[count - 1] - times[begin];
    bool goes_on = intervals > 0 && now_ns - times[count - 1] <= 2 * (took / intervals);
    if (!goes_on || took == 0)
        return recent;
    return (double)intervals * (double)SECOND_NS / (double)took;
}

void pv_activity_get(const struct pv_gpu_context *context, uint64_t now_ns,
                     struct pv_gpu_context_stats *out)
{
    const struct pv_activity *activity = context->activity;
    uint64_t times[PV_ACTIVITY_FRAMES], between[PV_ACTIVITY_FRAMES];
    if (!activity)
        return;
    out->commands = read_number(&activity->commands);
    out->submissions = read_number(&activity->submissions);
    out->frames = read_number(&activity->frames);
    uint64_t memory = read_number(&activity->memory_bytes), shm = read_number(&activity->shm_bytes);
    out->memory_bytes = memory + shm < memory ? UINT64_MAX : memory + shm;
    out->commands_per_s = context->commands_per_s;
    unsigned count = read_frames(activity, now_ns, times);
    out->fps = frame_rate(times, count, now_ns);
    if (count < 2)
        return;
    for (unsigned i = 0; i + 1 < count; i++)
        between[i] = times[i + 1] - times[i];
    qsort(between, count - 1, sizeof(between[0]), compare_times);
    out->frame_median_ns = between[(count - 1) / 2];
    out->frame_p99_ns = between[(count - 1) * 99 / 100];
}
