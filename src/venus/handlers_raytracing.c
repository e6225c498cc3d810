/* Commands that write arrays of handles or numbers to the guest: how much, drivers take from counts
 * and not from the size that comes with them. */
#include "venus/context_internal.h"

/* Largest shaderGroupHandleCaptureReplaySize that Vulkan allows; plain handles have 32 bytes. */
#define GROUP_HANDLE_MAX 64u

/* Room for `need` bytes at least: what the guest set aside if that is enough. The reply is taken
 * from `*data` of `size` bytes, which stays NULL where the guest wants nothing. */
static void *output_room(struct pv_stream *s, uint64_t need, void *data, size_t size)
{
    return data && need <= size ? data : pv_decode_room(&s->dec, need > size ? need : size, 1, 0);
}

void pv_do_vkGetRayTracingShaderGroupHandlesKHR(
    struct pv_stream *s, struct pv_args_vkGetRayTracingShaderGroupHandlesKHR *a)
{
    const struct pv_vk_device_table *vk = &a->device_object->dev->vk;
    if (!vk->GetRayTracingShaderGroupHandlesKHR) {
        pv_stream_missing(s);
        return;
    }
    void *room = output_room(s, (uint64_t)a->groupCount * GROUP_HANDLE_MAX, a->pData, a->dataSize);
    if (pv_decoder_failed(&s->dec))
        return;
    a->ret = vk->GetRayTracingShaderGroupHandlesKHR(a->device, a->pipeline, a->firstGroup,
                                                    a->groupCount, a->dataSize, room);
    a->pData = a->pData ? room : NULL;
    pv_stream_result(s, a->ret);
}

void pv_do_vkGetRayTracingCaptureReplayShaderGroupHandlesKHR(
    struct pv_stream *s, struct pv_args_vkGetRayTracingCaptureReplayShaderGroupHandlesKHR *a)
{
    const struct pv_vk_device_table *vk = &a->device_object->dev->vk;
    if (!vk->GetRayTracingCaptureReplayShaderGroupHandlesKHR) {
        pv_stream_missing(s);
        return;
    }
    void *room = output_room(s, (uint64_t)a->groupCount * GROUP_HANDLE_MAX, a->pData, a->dataSize);
    if (pv_decoder_failed(&s->dec))
        return;
    a->ret = vk->GetRayTracingCaptureReplayShaderGroupHandlesKHR(
        a->device, a->pipeline, a->firstGroup, a->groupCount, a->dataSize, room);
    a->pData = a->pData ? room : NULL;
    pv_stream_result(s, a->ret);
}

void pv_do_vkWriteAccelerationStructuresPropertiesKHR(
    struct pv_stream *s, struct pv_args_vkWriteAccelerationStructuresPropertiesKHR *a)
{
    const struct pv_vk_device_table *vk = &a->device_object->dev->vk;
    if (!vk->WriteAccelerationStructuresPropertiesKHR) {
        pv_stream_missing(s);
        return;
    }
    uint64_t need;
    if (__builtin_mul_overflow(a->accelerationStructureCount, a->stride, &need) ||
        __builtin_add_overflow(need, sizeof(uint64_t), &need))
        need = UINT64_MAX;
    void *room = output_room(s, need, a->pData, a->dataSize);
    if (pv_decoder_failed(&s->dec))
        return;
    a->ret = vk->WriteAccelerationStructuresPropertiesKHR(a->device, a->accelerationStructureCount,
                                                          a->pAccelerationStructures, a->queryType,
                                                          a->dataSize, room, a->stride);
    a->pData = a->pData ? room : NULL;
    pv_stream_result(s, a->ret);
}
