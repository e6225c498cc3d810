/* Commands that block until the GPU has done something.
 *
 * The guest may wait for ever for what never comes, and go away meanwhile; so every wait is made of
 * slices, and between two of them the stream looks whether it has been told to stop. */
#include "util/os.h"
#include "venus/context_internal.h"

#include <string.h>
#include <time.h>

#define SLICE_NS 50000000ull

/* Time left of a timeout that began at `begin`, one slice at most. */
static uint64_t slice_left(uint64_t begin, uint64_t timeout)
{
    uint64_t passed = pv_now_ns() - begin;
    uint64_t left = passed < timeout ? timeout - passed : 0;
    return left < SLICE_NS ? left : SLICE_NS;
}

static bool over(struct pv_stream *s, uint64_t begin, uint64_t timeout)
{
    return pv_now_ns() - begin >= timeout || pv_stream_stopping(s);
}

void pv_do_vkWaitForFences(struct pv_stream *s, struct pv_args_vkWaitForFences *a)
{
    struct pv_device *device = a->device_object->dev;
    uint64_t begin = pv_stream_wait_begin(s);
    do {
        a->ret = device->vk.WaitForFences(device->handle, a->fenceCount, a->pFences, a->waitAll,
                                          slice_left(begin, a->timeout));
    } while (a->ret == VK_TIMEOUT && !over(s, begin, a->timeout));
    pv_stream_wait_end(s, begin);
    pv_device_check(device, a->ret);
}

void pv_do_vkWaitSemaphores(struct pv_stream *s, struct pv_args_vkWaitSemaphores *a)
{
    struct pv_device *device = a->device_object->dev;
    if (!device->vk.WaitSemaphores) {
        pv_stream_missing(s);
        return;
    }
    uint64_t begin = pv_stream_wait_begin(s);
    do {
        a->ret =
            device->vk.WaitSemaphores(device->handle, a->pWaitInfo, slice_left(begin, a->timeout));
    } while (a->ret == VK_TIMEOUT && !over(s, begin, a->timeout));
    pv_stream_wait_end(s, begin);
    pv_device_check(device, a->ret);
}

/* Values of one query, availability included: pipeline statistics have the most, 13 and mesh
 * shading's 2. */
#define QUERY_RESULT_MAX (16 * sizeof(uint64_t))

/* Where the driver may write. It goes by count and stride, whatever the size says, so the guest's
 * room is used only if it is large enough for any kind of query. */
static uint8_t *results_room(struct pv_stream *s, const struct pv_args_vkGetQueryPoolResults *a,
                             size_t *out_size)
{
    uint64_t need = 0;
    if (a->queryCount > 0 && (__builtin_mul_overflow(a->queryCount - 1, a->stride, &need) ||
                              __builtin_add_overflow(need, QUERY_RESULT_MAX, &need)))
        need = UINT64_MAX;
    *out_size = need < SIZE_MAX ? (size_t)need : SIZE_MAX;
    if (a->pData && need <= a->dataSize)
        return a->pData;
    return pv_decode_room(&s->dec, need, 1, 0);
}

/* WAIT may be for a query that is never submitted: ask without it until the results are there. */
void pv_do_vkGetQueryPoolResults(struct pv_stream *s, struct pv_args_vkGetQueryPoolResults *a)
{
    struct pv_device *device = a->device_object->dev;
    size_t room_size;
    uint8_t *room = results_room(s, a, &room_size);
    if (!room) {
        a->ret = VK_SUCCESS; /* no query, or an error */
        return;
    }
    const VkQueryResultFlags wait = VK_QUERY_RESULT_WAIT_BIT;
    const struct timespec nap = {.tv_sec = 0, .tv_nsec = 50000};
    if (a->flags & wait) {
        uint64_t begin = pv_stream_wait_begin(s);
        VkQueryResultFlags flags = a->flags & ~(wait | VK_QUERY_RESULT_PARTIAL_BIT |
                                                VK_QUERY_RESULT_WITH_AVAILABILITY_BIT);
        while (device->vk.GetQueryPoolResults(device->handle, a->queryPool, a->firstQuery,
                                              a->queryCount, room_size, room, a->stride,
                                              flags) == VK_NOT_READY &&
               !pv_stream_stopping(s))
            nanosleep(&nap, NULL);
        pv_stream_wait_end(s, begin);
    }
    a->ret =
        device->vk.GetQueryPoolResults(device->handle, a->queryPool, a->firstQuery, a->queryCount,
                                       room_size, room, a->stride, a->flags & ~wait);
    if (a->pData && room != a->pData)
        memcpy(a->pData, room, a->dataSize < room_size ? a->dataSize : room_size);
    pv_device_check(device, a->ret);
}

/* ---- sync_fd payloads, which stay in the worker ------------------------------------------------
 */

void pv_do_vkResetFenceResourceMESA(struct pv_stream *s, struct pv_args_vkResetFenceResourceMESA *a)
{
    uint64_t begin = pv_stream_wait_begin(s);
    pv_stream_result(s, pv_fence_consume(a->device_object->dev, a->fence, &s->ctx->stopping));
    pv_stream_wait_end(s, begin);
}

void pv_do_vkWaitSemaphoreResourceMESA(struct pv_stream *s,
                                       struct pv_args_vkWaitSemaphoreResourceMESA *a)
{
    pv_stream_result(s, pv_semaphore_consume(a->device_object->dev, a->semaphore));
}

void pv_do_vkImportSemaphoreResourceMESA(struct pv_stream *s,
                                         struct pv_args_vkImportSemaphoreResourceMESA *a)
{
    const VkImportSemaphoreResourceInfoMESA *info = a->pImportSemaphoreResourceInfo;
    if (info->resourceId != 0) {
        pv_stream_fail(s, "resource %u: only an already signalled payload (0) can be imported",
                       info->resourceId);
        return;
    }
    pv_stream_result(s, pv_semaphore_import_signalled(a->device_object->dev, info->semaphore));
}
