/* Which command buffers end a frame (activity.h). */
#include "venus/context_internal.h"

static void set_ends_frame(struct pv_object *commands, bool value)
{
    atomic_store_explicit(&commands->ends_frame, value, memory_order_relaxed);
}

void pv_do_vkBeginCommandBuffer(struct pv_stream *s, struct pv_args_vkBeginCommandBuffer *a)
{
    struct pv_device *device = a->commandBuffer_object->dev;
    set_ends_frame(a->commandBuffer_object, false);
    a->ret = device->vk.BeginCommandBuffer(a->commandBuffer, a->pBeginInfo);
    pv_stream_result(s, a->ret);
}

void pv_do_vkCmdPipelineBarrier(struct pv_stream *s, struct pv_args_vkCmdPipelineBarrier *a)
{
    (void)s;
    for (uint32_t i = 0; i < a->imageMemoryBarrierCount; i++) {
        if (a->pImageMemoryBarriers[i].dstQueueFamilyIndex == VK_QUEUE_FAMILY_FOREIGN_EXT)
            set_ends_frame(a->commandBuffer_object, true);
    }
    pv_layer_CmdPipelineBarrier(a->commandBuffer_object->dev, a->commandBuffer, a->srcStageMask,
                                a->dstStageMask, a->dependencyFlags, a->memoryBarrierCount,
                                a->pMemoryBarriers, a->bufferMemoryBarrierCount,
                                a->pBufferMemoryBarriers, a->imageMemoryBarrierCount,
                                a->pImageMemoryBarriers);
}

void pv_do_vkCmdPipelineBarrier2(struct pv_stream *s, struct pv_args_vkCmdPipelineBarrier2 *a)
{
    const VkDependencyInfo *info = a->pDependencyInfo;
    struct pv_device *device = a->commandBuffer_object->dev;
    if (!device->vk.CmdPipelineBarrier2) {
        pv_stream_missing(s);
        return;
    }
    for (uint32_t i = 0; i < info->imageMemoryBarrierCount; i++) {
        if (info->pImageMemoryBarriers[i].dstQueueFamilyIndex == VK_QUEUE_FAMILY_FOREIGN_EXT)
            set_ends_frame(a->commandBuffer_object, true);
    }
    pv_layer_CmdPipelineBarrier2(device, a->commandBuffer, a->pDependencyInfo);
}
