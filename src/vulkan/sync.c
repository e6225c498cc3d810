/* Semaphores and fences whose sync_fd payload is kept here.
 *
 * A guest imports a sync_fd only after it has waited for it, so all that arrives is "the next wait
 * on this semaphore passes". That is a member of a small set; the wait is then left out of the
 * submission, and what remains is exactly a temporary import that has been consumed. This is
 * done with every driver: one that has sync_fd would do no better.
 *
 * The set is nearly always empty, and submitting looks at its atomic size first.
 */
#include "vulkan/device.h"

#include "util/log.h"
#include "vulkan/chain.h"
#include "vulkan/device_internal.h"
#include "vulkan/gate.h"

#include <stdlib.h>
#include <unistd.h>

#define PV_LOG_MODULE "sync"

#define FENCE_SLICE_NS 10000000u /* how long a wait may miss that it is to stop */

struct pv_sync_state {
    pthread_mutex_t lock;
    atomic_size_t count; /* changed under the lock; read without it to skip everything */
    VkSemaphore *passing;
    size_t capacity;
};

VkResult pv_sync_create(struct pv_sync_state **out)
{
    struct pv_sync_state *sync = calloc(1, sizeof(*sync));
    if (!sync)
        return VK_ERROR_OUT_OF_HOST_MEMORY;
    pthread_mutex_init(&sync->lock, NULL);
    *out = sync;
    return VK_SUCCESS;
}

void pv_sync_destroy(struct pv_sync_state *sync)
{
    pthread_mutex_destroy(&sync->lock);
    free(sync->passing);
    free(sync);
}

/* ---- the set ---- */

static bool remove_locked(struct pv_sync_state *sync, VkSemaphore semaphore)
{
    size_t count = atomic_load(&sync->count);
    for (size_t i = 0; i < count; i++) {
        if (sync->passing[i] == semaphore) {
            sync->passing[i] = sync->passing[count - 1];
            atomic_store(&sync->count, count - 1);
            return true;
        }
    }
    return false;
}

static bool remove_semaphore(struct pv_sync_state *sync, VkSemaphore semaphore)
{
    if (atomic_load(&sync->count) == 0)
        return false;
    pthread_mutex_lock(&sync->lock);
    bool removed = remove_locked(sync, semaphore);
    pthread_mutex_unlock(&sync->lock);
    return removed;
}

VkResult pv_semaphore_import_signalled(struct pv_device *device, VkSemaphore semaphore)
{
    struct pv_sync_state *sync = device->sync;
    VkResult result = VK_SUCCESS;
    pthread_mutex_lock(&sync->lock);
    remove_locked(sync, semaphore); /* importing twice replaces the payload */
    size_t count = atomic_load(&sync->count);
    if (count == sync->capacity) {
        size_t capacity = count ? count * 2 : 16;
        VkSemaphore *grown = realloc(sync->passing, capacity * sizeof(VkSemaphore));
        if (grown) {
            sync->passing = grown;
            sync->capacity = capacity;
        } else {
            result = VK_ERROR_OUT_OF_HOST_MEMORY;
        }
    }
    if (result == VK_SUCCESS) {
        sync->passing[count] = semaphore;
        atomic_store(&sync->count, count + 1);
    }
    pthread_mutex_unlock(&sync->lock);
    return result;
}

/* ---- creation ---- */

VkResult pv_layer_CreateSemaphore(struct pv_device *device, VkSemaphoreCreateInfo *info,
                                  VkSemaphore *out)
{
    VkExportSemaphoreCreateInfo *export =
        pv_chain_find(info, VK_STRUCTURE_TYPE_EXPORT_SEMAPHORE_CREATE_INFO);
    VkExternalSemaphoreHandleTypeFlags asked = export ? export->handleTypes : 0;
    struct pv_chain_edit edit = {0};
    if (export) {
        bool native = device->physical->caps->semaphore_tier == PV_SYNC_TIER_NATIVE;
        export->handleTypes &= native ? VK_EXTERNAL_SEMAPHORE_HANDLE_TYPE_SYNC_FD_BIT : 0;
        if (!export->handleTypes)
            pv_chain_take(info, VK_STRUCTURE_TYPE_EXPORT_SEMAPHORE_CREATE_INFO, &edit);
    }
    VkResult result = device->vk.CreateSemaphore(device->handle, info, NULL, out);
    pv_chain_undo(&edit);
    if (export)
        export->handleTypes = asked;
    return pv_device_check(device, result);
}

VkResult pv_layer_CreateFence(struct pv_device *device, VkFenceCreateInfo *info, VkFence *out)
{
    VkExportFenceCreateInfo *export =
        pv_chain_find(info, VK_STRUCTURE_TYPE_EXPORT_FENCE_CREATE_INFO);
    VkExternalFenceHandleTypeFlags asked = export ? export->handleTypes : 0;
    struct pv_chain_edit edit = {0};
    if (export) {
        bool native = device->physical->caps->fence_tier == PV_SYNC_TIER_NATIVE;
        export->handleTypes &= native ? VK_EXTERNAL_FENCE_HANDLE_TYPE_SYNC_FD_BIT : 0;
        if (!export->handleTypes)
            pv_chain_take(info, VK_STRUCTURE_TYPE_EXPORT_FENCE_CREATE_INFO, &edit);
    }
    VkResult result = device->vk.CreateFence(device->handle, info, NULL, out);
    pv_chain_undo(&edit);
    if (export)
        export->handleTypes = asked;
    return pv_device_check(device, result);
}

void pv_layer_DestroySemaphore(struct pv_device *device, VkSemaphore semaphore)
{
    if (semaphore == VK_NULL_HANDLE)
        return;
    /* the driver may give the same handle to the next semaphore */
    remove_semaphore(device->sync, semaphore);
    device->vk.DestroySemaphore(device->handle, semaphore, NULL);
}

/* ---- submitting ---- */

/* Arrays that run beside the wait semaphores; any may be NULL. */
struct waits {
    VkSemaphore *semaphores;
    VkPipelineStageFlags *stages;
    uint64_t *values;
    uint32_t *device_indices;
};

/* Leave out the waits that pass. Returns how many remain. */
static uint32_t compact_waits_locked(struct pv_sync_state *sync, const struct waits *waits,
                                     uint32_t count)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < count; i++) {
        if (remove_locked(sync, waits->semaphores[i]))
            continue;
        if (kept != i) {
            waits->semaphores[kept] = waits->semaphores[i];
            if (waits->stages)
                waits->stages[kept] = waits->stages[i];
            if (waits->values)
                waits->values[kept] = waits->values[i];
            if (waits->device_indices)
                waits->device_indices[kept] = waits->device_indices[i];
        }
        kept++;
    }
    return kept;
}

/* VkSubmitInfo and VkBindSparseInfo. The header allows writing to the arrays, hence the casts. */
static uint32_t filter_waits_locked(struct pv_sync_state *sync, const void *info,
                                    const VkSemaphore *semaphores,
                                    const VkPipelineStageFlags *stages, uint32_t count)
{
    if (count == 0)
        return 0;
    VkTimelineSemaphoreSubmitInfo *timeline =
        pv_chain_find(info, VK_STRUCTURE_TYPE_TIMELINE_SEMAPHORE_SUBMIT_INFO);
    VkDeviceGroupSubmitInfo *group =
        pv_chain_find(info, VK_STRUCTURE_TYPE_DEVICE_GROUP_SUBMIT_INFO);
    /* both may be absent or, if no wait needs them, have a count of zero */
    bool has_values = timeline && timeline->waitSemaphoreValueCount == count;
    bool has_indices = group && group->waitSemaphoreCount == count;
    struct waits waits = {
        .semaphores = (VkSemaphore *)semaphores,
        .stages = (VkPipelineStageFlags *)stages,
        .values = has_values ? (uint64_t *)timeline->pWaitSemaphoreValues : NULL,
        .device_indices = has_indices ? (uint32_t *)group->pWaitSemaphoreDeviceIndices : NULL,
    };
    uint32_t kept = compact_waits_locked(sync, &waits, count);
    if (has_values)
        timeline->waitSemaphoreValueCount = kept;
    if (has_indices)
        group->waitSemaphoreCount = kept;
    return kept;
}

static void filter_submits(struct pv_sync_state *sync, uint32_t count, VkSubmitInfo *submits)
{
    if (atomic_load(&sync->count) == 0)
        return;
    pthread_mutex_lock(&sync->lock);
    for (uint32_t i = 0; i < count; i++)
        submits[i].waitSemaphoreCount =
            filter_waits_locked(sync, &submits[i], submits[i].pWaitSemaphores,
                                submits[i].pWaitDstStageMask, submits[i].waitSemaphoreCount);
    pthread_mutex_unlock(&sync->lock);
}

static void filter_submits2(struct pv_sync_state *sync, uint32_t count, VkSubmitInfo2 *submits)
{
    if (atomic_load(&sync->count) == 0)
        return;
    pthread_mutex_lock(&sync->lock);
    for (uint32_t i = 0; i < count; i++) {
        VkSemaphoreSubmitInfo *waits = (VkSemaphoreSubmitInfo *)submits[i].pWaitSemaphoreInfos;
        uint32_t kept = 0;
        for (uint32_t k = 0; k < submits[i].waitSemaphoreInfoCount; k++) {
            if (!remove_locked(sync, waits[k].semaphore))
                waits[kept++] = waits[k];
        }
        submits[i].waitSemaphoreInfoCount = kept;
    }
    pthread_mutex_unlock(&sync->lock);
}

static void filter_binds(struct pv_sync_state *sync, uint32_t count, VkBindSparseInfo *infos)
{
    if (atomic_load(&sync->count) == 0)
        return;
    pthread_mutex_lock(&sync->lock);
    for (uint32_t i = 0; i < count; i++)
        infos[i].waitSemaphoreCount = filter_waits_locked(sync, &infos[i], infos[i].pWaitSemaphores,
                                                          NULL, infos[i].waitSemaphoreCount);
    pthread_mutex_unlock(&sync->lock);
}

/* A submission under way. */
struct submission {
    struct pv_queue *queue; /* locked */
    struct pv_gate *gate;   /* see gate.h; NULL: none is needed */
};

/* Take the queue; false if the device is lost, and then there is nothing to do. */
static bool begin_submit(struct pv_device *device, VkQueue handle, struct submission *submission)
{
    if (atomic_load(&device->lost))
        return false;
    submission->queue = pv_device_find_queue(device, handle);
    pv_queue_lock(submission->queue);
    submission->gate = pv_shadow_begin_submit(device, submission->queue);
    return true;
}

static VkResult end_submit(struct pv_device *device, struct submission *submission, VkResult result)
{
    pv_shadow_end_submit(device);
    pv_queue_unlock(submission->queue);
    return pv_device_check(device, result);
}

VkResult pv_layer_QueueSubmit(struct pv_device *device, VkQueue queue, uint32_t count,
                              VkSubmitInfo *submits, VkFence fence)
{
    struct submission submission;
    if (!begin_submit(device, queue, &submission))
        return VK_ERROR_DEVICE_LOST;
    filter_submits(device->sync, count, submits);
    VkResult result = submission.gate
                          ? pv_gate_submit(device, submission.gate, queue, count, submits, fence)
                          : device->vk.QueueSubmit(queue, count, submits, fence);
    return end_submit(device, &submission, result);
}

VkResult pv_layer_QueueSubmit2(struct pv_device *device, VkQueue queue, uint32_t count,
                               VkSubmitInfo2 *submits, VkFence fence)
{
    struct submission submission;
    if (!begin_submit(device, queue, &submission))
        return VK_ERROR_DEVICE_LOST;
    filter_submits2(device->sync, count, submits);
    VkResult result = submission.gate
                          ? pv_gate_submit2(device, submission.gate, queue, count, submits, fence)
                          : device->vk.QueueSubmit2(queue, count, submits, fence);
    return end_submit(device, &submission, result);
}

VkResult pv_layer_QueueBindSparse(struct pv_device *device, VkQueue queue, uint32_t count,
                                  VkBindSparseInfo *infos, VkFence fence)
{
    struct submission submission;
    if (!begin_submit(device, queue, &submission))
        return VK_ERROR_DEVICE_LOST;
    filter_binds(device->sync, count, infos);
    return end_submit(device, &submission, device->vk.QueueBindSparse(queue, count, infos, fence));
}

/* ---- asking ---- */

VkResult pv_layer_GetFenceStatus(struct pv_device *device, VkFence fence)
{
    VkResult result = device->vk.GetFenceStatus(device->handle, fence);
    if (result == VK_SUCCESS)
        pv_device_sync_memory(device);
    return pv_device_check(device, result);
}

VkResult pv_layer_GetEventStatus(struct pv_device *device, VkEvent event)
{
    VkResult result = device->vk.GetEventStatus(device->handle, event);
    if (result == VK_EVENT_SET)
        pv_device_sync_memory(device);
    return pv_device_check(device, result);
}

VkResult pv_layer_GetSemaphoreCounterValue(struct pv_device *device, VkSemaphore semaphore,
                                           uint64_t *value)
{
    VkResult result = device->vk.GetSemaphoreCounterValue(device->handle, semaphore, value);
    if (result == VK_SUCCESS)
        pv_device_sync_memory(device);
    return pv_device_check(device, result);
}

/* ---- consuming ---- */

/* Taking a sync_fd out of the driver moves the payload into it, without waiting. */
static bool consume_native_semaphore(struct pv_device *device, VkSemaphore semaphore)
{
    if (device->physical->caps->semaphore_tier != PV_SYNC_TIER_NATIVE ||
        !device->vk.GetSemaphoreFdKHR)
        return false;
    VkSemaphoreGetFdInfoKHR info = {
        .sType = VK_STRUCTURE_TYPE_SEMAPHORE_GET_FD_INFO_KHR,
        .semaphore = semaphore,
        .handleType = VK_EXTERNAL_SEMAPHORE_HANDLE_TYPE_SYNC_FD_BIT,
    };
    int fd = -1;
    if (device->vk.GetSemaphoreFdKHR(device->handle, &info, &fd) != VK_SUCCESS)
        return false;
    if (fd >= 0)
        close(fd);
    return true;
}

VkResult pv_semaphore_consume(struct pv_device *device, VkSemaphore semaphore)
{
    if (remove_semaphore(device->sync, semaphore) || consume_native_semaphore(device, semaphore))
        return VK_SUCCESS;
    if (atomic_load(&device->lost))
        return VK_ERROR_DEVICE_LOST;
    if (device->queue_count == 0)
        return VK_ERROR_INITIALIZATION_FAILED;
    /* Any queue will do: the signal has been submitted already, or exporting it were not legal. */
    struct pv_queue *queue = &device->queues[0];
    VkPipelineStageFlags stage = VK_PIPELINE_STAGE_ALL_COMMANDS_BIT;
    VkSubmitInfo submit = {
        .sType = VK_STRUCTURE_TYPE_SUBMIT_INFO,
        .waitSemaphoreCount = 1,
        .pWaitSemaphores = &semaphore,
        .pWaitDstStageMask = &stage,
    };
    pv_queue_lock(queue);
    VkResult result = device->vk.QueueSubmit(queue->handle, 1, &submit, VK_NULL_HANDLE);
    pv_queue_unlock(queue);
    return pv_device_check(device, result);
}

static bool consume_native_fence(struct pv_device *device, VkFence fence)
{
    if (device->physical->caps->fence_tier != PV_SYNC_TIER_NATIVE || !device->vk.GetFenceFdKHR)
        return false;
    VkFenceGetFdInfoKHR info = {
        .sType = VK_STRUCTURE_TYPE_FENCE_GET_FD_INFO_KHR,
        .fence = fence,
        .handleType = VK_EXTERNAL_FENCE_HANDLE_TYPE_SYNC_FD_BIT,
    };
    int fd = -1;
    if (device->vk.GetFenceFdKHR(device->handle, &info, &fd) != VK_SUCCESS)
        return false;
    if (fd >= 0)
        close(fd);
    return true;
}

VkResult pv_fence_consume(struct pv_device *device, VkFence fence, const atomic_bool *stop)
{
    if (consume_native_fence(device, fence))
        return VK_SUCCESS;
    VkResult result;
    do {
        result = device->vk.WaitForFences(device->handle, 1, &fence, VK_TRUE, FENCE_SLICE_NS);
    } while (result == VK_TIMEOUT && !(stop && atomic_load(stop)));
    if (result == VK_SUCCESS)
        result = device->vk.ResetFences(device->handle, 1, &fence);
    return pv_device_check(device, result);
}
