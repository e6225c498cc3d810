#define PV_LOG_MODULE "timeline"
#include "venus/timeline.h"

#include "util/log.h"
#include "util/os.h"
#include "venus/context.h"
#include "vulkan/device.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

/* The driver is asked again this often, so that a lost queue is noticed. */
#define WAIT_SLICE_NS 1000000000ull

/* Submissions in flight whose fences nobody asked for; beyond that, submissions get none. */
#define UNWANTED_MAX 8

struct fence {
    struct fence *next;
    uint64_t cookie;
    VkFence handle; /* VK_NULL_HANDLE: nothing of its own to wait for, signals in its turn */
};

struct timeline {
    struct pv_timelines *owner;
    uint32_t ring_idx;
    /* Held while something is submitted to the queue together with what is noted of it here. Taken
     * before lock. */
    pthread_mutex_t submit_lock;
    pthread_mutex_t lock;
    pthread_cond_t changed;   /* armed, a fence was added, or stop */
    struct pv_device *device; /* NULL: not bound */
    _Atomic(struct pv_queue *) queue;
    struct fence *first, **last; /* asked for, not signalled */
    struct fence *spare;         /* signalled and reset, for reuse */
    pthread_t thread;
    bool armed; /* the thread waits for the first fence; else pv_timelines_poll looks at it */

    /* under submit_lock, as are device and queue; stop under both, so that either will do to read
     */
    bool running, stop;
    bool wanted;            /* fences are asked for on this timeline: submissions get one */
    bool dirty;             /* something was submitted since the last fence was asked for */
    struct fence *newest;   /* fence of the newest submission, covers all before it; or NULL */
    struct fence *unwanted; /* fences of older submissions that nobody asked for */
    unsigned unwanted_count;
};

struct pv_timelines {
    struct pv_timelines_params params;
    atomic_bool pending; /* a fence may be pending that no thread waits for; context thread */
    struct timeline timelines[PV_CONTEXT_TIMELINE_COUNT];
};

int pv_timelines_create(const struct pv_timelines_params *params, struct pv_timelines **out)
{
    struct pv_timelines *timelines = calloc(1, sizeof(*timelines));
    if (!timelines)
        return -ENOMEM;
    timelines->params = *params;
    for (uint32_t i = 0; i < PV_CONTEXT_TIMELINE_COUNT; i++) {
        struct timeline *timeline = &timelines->timelines[i];
        timeline->owner = timelines;
        timeline->ring_idx = i;
        timeline->last = &timeline->first;
        pthread_mutex_init(&timeline->submit_lock, NULL);
        pthread_mutex_init(&timeline->lock, NULL);
        pthread_cond_init(&timeline->changed, NULL);
    }
    *out = timelines;
    return 0;
}

static void wait_fence(struct timeline *timeline, struct fence *fence)
{
    struct pv_device *device = timeline->device;
    if (!fence->handle)
        return;
    VkResult result;
    do {
        result =
            device->vk.WaitForFences(device->handle, 1, &fence->handle, VK_TRUE, WAIT_SLICE_NS);
    } while (result == VK_TIMEOUT && !atomic_load_explicit(&device->lost, memory_order_relaxed));
    if (result < 0)
        pv_log_limited(PV_LOG_WARN, 5,
                       "timeline %u: waiting for a fence failed (%d); signalled all the same",
                       timeline->ring_idx, result);
}

/* The first fence has signalled: tell, and keep it for reuse. Called without the lock, by whoever
 * looks at fences now: the thread if armed, else the context thread. */
static void finish_first(struct timeline *timeline)
{
    struct fence *fence = timeline->first;
    timeline->owner->params.signalled(timeline->owner->params.data, timeline->ring_idx,
                                      fence->cookie);
    if (fence->handle)
        timeline->device->vk.ResetFences(timeline->device->handle, 1, &fence->handle);
    pthread_mutex_lock(&timeline->lock);
    timeline->first = fence->next;
    if (!timeline->first) {
        timeline->last = &timeline->first;
        timeline->armed = false;
    }
    bool keep = fence->handle != VK_NULL_HANDLE; /* the others are made anew each time */
    if (keep) {
        fence->next = timeline->spare;
        timeline->spare = fence;
    }
    pthread_mutex_unlock(&timeline->lock);
    if (!keep)
        free(fence);
}

static void *timeline_main(void *data)
{
    struct timeline *timeline = data;
    char name[16];
    snprintf(name, sizeof(name), "timeline-%u", timeline->ring_idx % 64);
    pv_thread_set_name(name);
    pthread_mutex_lock(&timeline->lock);
    for (;;) {
        while (!timeline->armed && !timeline->stop)
            pthread_cond_wait(&timeline->changed, &timeline->lock);
        struct fence *fence = timeline->first;
        pthread_mutex_unlock(&timeline->lock);
        if (!fence)
            return NULL; /* stop, and nothing is pending */
        wait_fence(timeline, fence);
        finish_first(timeline);
        pthread_mutex_lock(&timeline->lock);
    }
}

int pv_timelines_bind(struct pv_timelines *timelines, uint32_t ring_idx, struct pv_device *device,
                      struct pv_queue *queue)
{
    if (ring_idx == 0 || ring_idx >= PV_CONTEXT_TIMELINE_COUNT)
        return -EINVAL;
    struct timeline *timeline = &timelines->timelines[ring_idx];
    int ret = 0;
    pthread_mutex_lock(&timeline->submit_lock);
    if (timeline->stop || (timeline->device && timeline->queue != queue)) {
        ret = -EBUSY;
    } else {
        timeline->device = device;
        timeline->queue = queue;
    }
    pthread_mutex_unlock(&timeline->submit_lock);
    return ret;
}

static void free_fence(struct timeline *timeline, struct fence *fence)
{
    if (!fence)
        return;
    if (fence->handle)
        timeline->device->vk.DestroyFence(timeline->device->handle, fence->handle, NULL);
    free(fence);
}

static void free_fences(struct timeline *timeline, struct fence **list)
{
    while (*list) {
        struct fence *next = (*list)->next;
        free_fence(timeline, *list);
        *list = next;
    }
}

/* Wait until all is signalled, end the thread, free the fences. The queue is idle. */
static void unbind(struct timeline *timeline)
{
    pthread_mutex_lock(&timeline->submit_lock);
    pthread_mutex_lock(&timeline->lock);
    timeline->stop = true;
    timeline->armed = timeline->first != NULL;
    pthread_cond_broadcast(&timeline->changed);
    bool running = timeline->running;
    timeline->running = false;
    pthread_mutex_unlock(&timeline->lock);
    pthread_mutex_unlock(&timeline->submit_lock);
    if (running)
        pthread_join(timeline->thread, NULL);
    pthread_mutex_lock(&timeline->submit_lock);
    pthread_mutex_lock(&timeline->lock);
    free_fences(timeline, &timeline->spare);
    free_fences(timeline, &timeline->unwanted);
    free_fence(timeline, timeline->newest);
    timeline->newest = NULL;
    timeline->unwanted_count = 0;
    timeline->wanted = false;
    timeline->dirty = false;
    timeline->device = NULL;
    timeline->queue = NULL;
    timeline->stop = false;
    pthread_mutex_unlock(&timeline->lock);
    pthread_mutex_unlock(&timeline->submit_lock);
}

void pv_timelines_unbind(struct pv_timelines *timelines, struct pv_device *device)
{
    for (unsigned i = 1; i < PV_CONTEXT_TIMELINE_COUNT; i++) {
        struct timeline *timeline = &timelines->timelines[i];
        pthread_mutex_lock(&timeline->submit_lock);
        bool bound = timeline->device == device;
        pthread_mutex_unlock(&timeline->submit_lock);
        if (bound)
            unbind(timeline);
    }
}

void pv_timelines_destroy(struct pv_timelines *timelines)
{
    if (!timelines)
        return;
    for (unsigned i = 0; i < PV_CONTEXT_TIMELINE_COUNT; i++) {
        struct timeline *timeline = &timelines->timelines[i];
        if (timeline->device)
            unbind(timeline);
        pthread_cond_destroy(&timeline->changed);
        pthread_mutex_destroy(&timeline->lock);
        pthread_mutex_destroy(&timeline->submit_lock);
    }
    free(timelines);
}

static struct fence *get_fence(struct timeline *timeline, bool with_handle)
{
    pthread_mutex_lock(&timeline->lock);
    struct fence *fence = timeline->spare;
    if (fence)
        timeline->spare = fence->next;
    pthread_mutex_unlock(&timeline->lock);
    if (!fence)
        fence = calloc(1, sizeof(*fence));
    if (!fence)
        return NULL;
    fence->next = NULL;
    const VkFenceCreateInfo info = {.sType = VK_STRUCTURE_TYPE_FENCE_CREATE_INFO};
    struct pv_device *device = timeline->device;
    if (with_handle && !fence->handle &&
        device->vk.CreateFence(device->handle, &info, NULL, &fence->handle) != VK_SUCCESS)
        fence->handle = VK_NULL_HANDLE;
    return fence;
}

static void put_fence(struct timeline *timeline, struct fence *fence)
{
    pthread_mutex_lock(&timeline->lock);
    fence->next = timeline->spare;
    timeline->spare = fence;
    pthread_mutex_unlock(&timeline->lock);
}

static bool is_signalled(struct timeline *timeline, const struct fence *fence)
{
    struct pv_device *device = timeline->device;
    return !fence->handle || atomic_load_explicit(&device->lost, memory_order_relaxed) ||
           device->vk.GetFenceStatus(device->handle, fence->handle) != VK_NOT_READY;
}

/* ---- submissions of the guest -----------------------------------------------------------------
 */

/* Fences nobody asked for go back to the spare ones when their submissions are done. */
static void sort_out_unwanted(struct timeline *timeline)
{
    struct fence **link = &timeline->unwanted;
    while (*link) {
        struct fence *fence = *link;
        if (!is_signalled(timeline, fence)) {
            link = &fence->next;
            continue;
        }
        *link = fence->next;
        timeline->unwanted_count--;
        timeline->device->vk.ResetFences(timeline->device->handle, 1, &fence->handle);
        put_fence(timeline, fence);
    }
}

static struct timeline *find_timeline(struct pv_timelines *timelines, const struct pv_queue *queue)
{
    for (unsigned i = 1; i < PV_CONTEXT_TIMELINE_COUNT; i++) {
        if (atomic_load_explicit(&timelines->timelines[i].queue, memory_order_relaxed) == queue)
            return &timelines->timelines[i];
    }
    return NULL;
}

struct pv_submission pv_timelines_begin_submission(struct pv_timelines *timelines,
                                                   struct pv_queue *queue, VkFence fence)
{
    struct pv_submission submission = {.timeline = find_timeline(timelines, queue), .fence = fence};
    struct timeline *timeline = submission.timeline;
    if (!timeline)
        return submission;
    pthread_mutex_lock(&timeline->submit_lock);
    if (timeline->stop || timeline->queue != queue) {
        pthread_mutex_unlock(&timeline->submit_lock); /* its device is being destroyed */
        submission.timeline = NULL;
        return submission;
    }
    if (timeline->newest) {
        timeline->newest->next = timeline->unwanted;
        timeline->unwanted = timeline->newest;
        timeline->unwanted_count++;
        timeline->newest = NULL;
    }
    if (timeline->unwanted)
        sort_out_unwanted(timeline);
    if (fence || !timeline->wanted || timeline->unwanted_count >= UNWANTED_MAX)
        return submission;
    submission.ours = get_fence(timeline, true);
    if (submission.ours)
        submission.fence = submission.ours->handle;
    return submission;
}

void pv_timelines_end_submission(const struct pv_submission *submission, VkResult result)
{
    struct timeline *timeline = submission->timeline;
    if (!timeline)
        return;
    timeline->dirty = true;
    if (submission->ours && result == VK_SUCCESS && submission->ours->handle)
        timeline->newest = submission->ours;
    else if (submission->ours)
        put_fence(timeline, submission->ours);
    pthread_mutex_unlock(&timeline->submit_lock);
}

/* ---- fences that are asked for ----------------------------------------------------------------
 */

static void submit_fence(struct timeline *timeline, struct fence *fence)
{
    struct pv_device *device = timeline->device;
    if (!fence->handle)
        return;
    pv_queue_lock(timeline->queue);
    VkResult result = device->vk.QueueSubmit(timeline->queue->handle, 0, NULL, fence->handle);
    pv_queue_unlock(timeline->queue);
    if (result == VK_SUCCESS)
        return;
    pv_device_check(device, result);
    device->vk.DestroyFence(device->handle, fence->handle, NULL);
    fence->handle = VK_NULL_HANDLE;
}

/* What signals when all that was submitted so far is done: the fence of the newest submission, or
 * one of its own; and if nothing was submitted since the last fence, that one's turn is early
 * enough. */
static struct fence *choose_fence(struct timeline *timeline)
{
    struct fence *fence = timeline->newest;
    timeline->newest = NULL;
    if (!fence && !timeline->dirty) {
        fence = calloc(1, sizeof(*fence));
    } else if (!fence) {
        fence = get_fence(timeline, true);
        if (fence)
            submit_fence(timeline, fence);
    }
    timeline->dirty = false;
    timeline->wanted = true;
    return fence;
}

static int start_thread(struct timeline *timeline)
{
    if (timeline->running)
        return 0;
    int ret = -pthread_create(&timeline->thread, NULL, timeline_main, timeline);
    timeline->running = ret == 0;
    return ret;
}

int pv_timelines_fence(struct pv_timelines *timelines, uint32_t ring_idx, uint64_t cookie)
{
    if (ring_idx >= PV_CONTEXT_TIMELINE_COUNT)
        return -EINVAL;
    if (ring_idx == 0) {
        timelines->params.signalled(timelines->params.data, 0, cookie);
        return 0;
    }
    struct timeline *timeline = &timelines->timelines[ring_idx];
    struct fence *fence = NULL;
    int ret = 0;
    pthread_mutex_lock(&timeline->submit_lock);
    if (!timeline->device || timeline->stop) /* stop: the device is being destroyed */
        ret = -EINVAL;
    else
        ret = start_thread(timeline);
    if (ret == 0) {
        fence = choose_fence(timeline);
        ret = fence ? 0 : -ENOMEM;
    }
    if (ret == 0) {
        fence->cookie = cookie;
        fence->next = NULL;
        pthread_mutex_lock(&timeline->lock);
        *timeline->last = fence;
        timeline->last = &fence->next;
        pthread_mutex_unlock(&timeline->lock);
        atomic_store_explicit(&timelines->pending, true, memory_order_relaxed);
    }
    pthread_mutex_unlock(&timeline->submit_lock);
    return ret;
}

/* True if the thread is not armed and a fence is pending. */
static bool has_unarmed(struct timeline *timeline)
{
    pthread_mutex_lock(&timeline->lock);
    bool unarmed = timeline->first && !timeline->armed;
    pthread_mutex_unlock(&timeline->lock);
    return unarmed;
}

bool pv_timelines_poll(struct pv_timelines *timelines)
{
    if (!atomic_load_explicit(&timelines->pending, memory_order_relaxed))
        return false;
    bool left = false;
    for (unsigned i = 1; i < PV_CONTEXT_TIMELINE_COUNT; i++) {
        struct timeline *timeline = &timelines->timelines[i];
        /* a device that goes away waits for its timelines on another thread; not meanwhile here */
        if (pthread_mutex_trylock(&timeline->submit_lock) != 0) {
            left = true;
            continue;
        }
        while (timeline->device && has_unarmed(timeline) && is_signalled(timeline, timeline->first))
            finish_first(timeline);
        left |= has_unarmed(timeline);
        pthread_mutex_unlock(&timeline->submit_lock);
    }
    if (!left)
        atomic_store_explicit(&timelines->pending, false, memory_order_relaxed);
    return left;
}

void pv_timelines_arm(struct pv_timelines *timelines)
{
    if (!atomic_load_explicit(&timelines->pending, memory_order_relaxed))
        return;
    for (unsigned i = 1; i < PV_CONTEXT_TIMELINE_COUNT; i++) {
        struct timeline *timeline = &timelines->timelines[i];
        pthread_mutex_lock(&timeline->lock);
        if (timeline->first && !timeline->armed) {
            timeline->armed = true;
            pthread_cond_signal(&timeline->changed);
        }
        pthread_mutex_unlock(&timeline->lock);
    }
    atomic_store_explicit(&timelines->pending, false, memory_order_relaxed);
}
