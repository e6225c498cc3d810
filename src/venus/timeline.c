#define PV_LOG_MODULE "timeline"
#include "venus/timeline.h"

#include "util/log.h"
#include "util/os.h"
#include "venus/context.h"
#include "vulkan/device.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

/* The driver is asked again this often, so that a lost queue is noticed. */
#define WAIT_SLICE_NS 1000000000ull

struct fence {
    struct fence *next;
    uint64_t cookie;
    VkFence handle; /* VK_NULL_HANDLE if the submission failed: signals in its turn */
};

struct timeline {
    struct pv_timelines *owner;
    uint32_t ring_idx;
    pthread_mutex_t lock;
    pthread_cond_t changed; /* a fence was added, the queue ran dry, or stop */
    struct pv_device *device; /* NULL: not bound */
    struct pv_queue *queue;
    struct fence *first, **last;
    struct fence *spare; /* signalled and reset, for reuse */
    pthread_t thread;
    bool running, stop;
};

struct pv_timelines {
    struct pv_timelines_params params;
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
        result = device->vk.WaitForFences(device->handle, 1, &fence->handle, VK_TRUE,
                                          WAIT_SLICE_NS);
    } while (result == VK_TIMEOUT && !atomic_load_explicit(&device->lost, memory_order_relaxed));
    if (result < 0)
        pv_warn("timeline %u: waiting for a fence failed (%d); signalled all the same",
                timeline->ring_idx, result);
}

static void *timeline_main(void *data)
{
    struct timeline *timeline = data;
    char name[16];
    snprintf(name, sizeof(name), "timeline-%u", timeline->ring_idx % 64);
    pv_thread_set_name(name);
    pthread_mutex_lock(&timeline->lock);
    for (;;) {
        while (!timeline->first && !timeline->stop)
            pthread_cond_wait(&timeline->changed, &timeline->lock);
        struct fence *fence = timeline->first;
        if (!fence)
            break;
        pthread_mutex_unlock(&timeline->lock);
        wait_fence(timeline, fence);
        timeline->owner->params.signalled(timeline->owner->params.data, timeline->ring_idx,
                                          fence->cookie);
        if (fence->handle)
            timeline->device->vk.ResetFences(timeline->device->handle, 1, &fence->handle);
        pthread_mutex_lock(&timeline->lock);
        timeline->first = fence->next;
        if (!timeline->first)
            timeline->last = &timeline->first;
        fence->next = timeline->spare;
        timeline->spare = fence;
        pthread_cond_broadcast(&timeline->changed);
    }
    pthread_mutex_unlock(&timeline->lock);
    return NULL;
}

int pv_timelines_bind(struct pv_timelines *timelines, uint32_t ring_idx, struct pv_device *device,
                      struct pv_queue *queue)
{
    if (ring_idx == 0 || ring_idx >= PV_CONTEXT_TIMELINE_COUNT)
        return -EINVAL;
    struct timeline *timeline = &timelines->timelines[ring_idx];
    int ret = 0;
    pthread_mutex_lock(&timeline->lock);
    if (timeline->stop || (timeline->device && timeline->queue != queue)) {
        ret = -EBUSY;
    } else {
        timeline->device = device;
        timeline->queue = queue;
    }
    pthread_mutex_unlock(&timeline->lock);
    return ret;
}

static void free_fence(struct timeline *timeline, struct fence *fence)
{
    if (fence->handle)
        timeline->device->vk.DestroyFence(timeline->device->handle, fence->handle, NULL);
    free(fence);
}

/* Wait until all is signalled, end the thread, free the fences. */
static void unbind(struct timeline *timeline)
{
    pthread_mutex_lock(&timeline->lock);
    timeline->stop = true;
    pthread_cond_broadcast(&timeline->changed);
    bool running = timeline->running;
    timeline->running = false;
    pthread_mutex_unlock(&timeline->lock);
    if (running)
        pthread_join(timeline->thread, NULL);
    pthread_mutex_lock(&timeline->lock);
    while (timeline->spare) {
        struct fence *next = timeline->spare->next;
        free_fence(timeline, timeline->spare);
        timeline->spare = next;
    }
    timeline->device = NULL;
    timeline->queue = NULL;
    timeline->stop = false;
    pthread_mutex_unlock(&timeline->lock);
}

void pv_timelines_unbind(struct pv_timelines *timelines, struct pv_device *device)
{
    for (unsigned i = 1; i < PV_CONTEXT_TIMELINE_COUNT; i++) {
        struct timeline *timeline = &timelines->timelines[i];
        pthread_mutex_lock(&timeline->lock);
        bool bound = timeline->device == device;
        pthread_mutex_unlock(&timeline->lock);
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
    }
    free(timelines);
}

static struct fence *get_fence_locked(struct timeline *timeline)
{
    struct fence *fence = timeline->spare;
    if (fence) {
        timeline->spare = fence->next;
        if (fence->handle)
            return fence;
    } else {
        fence = calloc(1, sizeof(*fence));
        if (!fence)
            return NULL;
    }
    const VkFenceCreateInfo info = {.sType = VK_STRUCTURE_TYPE_FENCE_CREATE_INFO};
    struct pv_device *device = timeline->device;
    if (device->vk.CreateFence(device->handle, &info, NULL, &fence->handle) != VK_SUCCESS)
        fence->handle = VK_NULL_HANDLE;
    return fence;
}

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
    if (result == VK_ERROR_DEVICE_LOST)
        atomic_store_explicit(&device->lost, true, memory_order_relaxed);
    device->vk.DestroyFence(device->handle, fence->handle, NULL);
    fence->handle = VK_NULL_HANDLE;
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
    int ret = 0;
    pthread_mutex_lock(&timeline->lock);
    struct fence *fence = NULL;
    if (!timeline->device || timeline->stop) /* stop: the device is being destroyed */
        ret = -EINVAL;
    else if (!timeline->running)
        ret = -pthread_create(&timeline->thread, NULL, timeline_main, timeline);
    if (ret == 0) {
        timeline->running = true;
        fence = get_fence_locked(timeline);
        ret = fence ? 0 : -ENOMEM;
    }
    if (ret == 0) {
        submit_fence(timeline, fence);
        fence->cookie = cookie;
        fence->next = NULL;
        *timeline->last = fence;
        timeline->last = &fence->next;
        pthread_cond_broadcast(&timeline->changed);
    }
    pthread_mutex_unlock(&timeline->lock);
    return ret;
}
