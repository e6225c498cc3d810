#include "vulkan/gate.h"

#include "vulkan/chain.h"
#include "vulkan/device_internal.h"

/* The GPU has reached the n-th gate; the n-th gate is open. n counts from 1. */
static uint64_t reached(uint64_t n)
{
    return 2 * n - 1;
}

static uint64_t open_value(uint64_t n)
{
    return 2 * n;
}

VkResult pv_gate_init(struct pv_device *device, struct pv_gate *gate)
{
    VkSemaphoreTypeCreateInfo type = {
        .sType = VK_STRUCTURE_TYPE_SEMAPHORE_TYPE_CREATE_INFO,
        .semaphoreType = VK_SEMAPHORE_TYPE_TIMELINE,
    };
    VkSemaphoreCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_SEMAPHORE_CREATE_INFO,
        .pNext = &type,
    };
    return device->vk.CreateSemaphore(device->handle, &info, NULL, &gate->timeline);
}

void pv_gate_finish(struct pv_device *device, struct pv_gate *gate)
{
    device->vk.DestroySemaphore(device->handle, gate->timeline, NULL);
}

bool pv_gate_is_closed(const struct pv_gate *gate)
{
    return gate->opened < atomic_load(&gate->placed);
}

bool pv_gate_is_waiting(struct pv_device *device, const struct pv_gate *gate)
{
    uint64_t value = 0;
    return pv_gate_is_closed(gate) &&
           device->vk.GetSemaphoreCounterValue(device->handle, gate->timeline, &value) ==
               VK_SUCCESS &&
           value >= reached(gate->opened + 1);
}

void pv_gate_open(struct pv_device *device, struct pv_gate *gate)
{
    gate->opened++;
    VkSemaphoreSignalInfo info = {
        .sType = VK_STRUCTURE_TYPE_SEMAPHORE_SIGNAL_INFO,
        .semaphore = gate->timeline,
        .value = open_value(gate->opened),
    };
    pv_device_check(device, device->vk.SignalSemaphore(device->handle, &info));
}

/* ---- vkQueueSubmit ---- */

/* The guest's timeline values, or none. */
static const VkTimelineSemaphoreSubmitInfo no_values = {
    .sType = VK_STRUCTURE_TYPE_TIMELINE_SEMAPHORE_SUBMIT_INFO,
};

/* One command buffer with the gate behind it. It begins with the guest's waits, or after the gate
 * in front of it. */
static VkResult submit_commands(struct pv_device *device, struct pv_gate *gate, VkQueue queue,
                                const VkSubmitInfo *guest,
                                const VkTimelineSemaphoreSubmitInfo *values, uint32_t index)
{
    bool first = index == 0;
    uint64_t placed = atomic_load(&gate->placed);
    uint64_t wait_value = open_value(placed), signal_value = reached(placed + 1);
    VkPipelineStageFlags stage = VK_PIPELINE_STAGE_ALL_COMMANDS_BIT;
    VkTimelineSemaphoreSubmitInfo timeline = {
        .sType = VK_STRUCTURE_TYPE_TIMELINE_SEMAPHORE_SUBMIT_INFO,
        .pNext = guest->pNext,
        .waitSemaphoreValueCount = first ? values->waitSemaphoreValueCount : 1,
        .pWaitSemaphoreValues = first ? values->pWaitSemaphoreValues : &wait_value,
        .signalSemaphoreValueCount = 1,
        .pSignalSemaphoreValues = &signal_value,
    };
    VkSubmitInfo piece = {
        .sType = VK_STRUCTURE_TYPE_SUBMIT_INFO,
        .pNext = &timeline,
        .waitSemaphoreCount = first ? guest->waitSemaphoreCount : 1,
        .pWaitSemaphores = first ? guest->pWaitSemaphores : &gate->timeline,
        .pWaitDstStageMask = first ? guest->pWaitDstStageMask : &stage,
        .commandBufferCount = 1,
        .pCommandBuffers = &guest->pCommandBuffers[index],
        .signalSemaphoreCount = 1,
        .pSignalSemaphores = &gate->timeline,
    };
    VkResult result = device->vk.QueueSubmit(queue, 1, &piece, VK_NULL_HANDLE);
    if (result == VK_SUCCESS)
        atomic_store(&gate->placed, placed + 1);
    return result;
}

/* What the guest learns, after the last gate. */
static VkResult submit_signals(struct pv_device *device, struct pv_gate *gate, VkQueue queue,
                               const VkSubmitInfo *guest,
                               const VkTimelineSemaphoreSubmitInfo *values, VkFence fence)
{
    uint64_t wait_value = open_value(atomic_load(&gate->placed));
    VkPipelineStageFlags stage = VK_PIPELINE_STAGE_ALL_COMMANDS_BIT;
    VkTimelineSemaphoreSubmitInfo timeline = {
        .sType = VK_STRUCTURE_TYPE_TIMELINE_SEMAPHORE_SUBMIT_INFO,
        .waitSemaphoreValueCount = 1,
        .pWaitSemaphoreValues = &wait_value,
        .signalSemaphoreValueCount = values->signalSemaphoreValueCount,
        .pSignalSemaphoreValues = values->pSignalSemaphoreValues,
    };
    VkSubmitInfo piece = {
        .sType = VK_STRUCTURE_TYPE_SUBMIT_INFO,
        .pNext = &timeline,
        .waitSemaphoreCount = 1,
        .pWaitSemaphores = &gate->timeline,
        .pWaitDstStageMask = &stage,
        .signalSemaphoreCount = guest->signalSemaphoreCount,
        .pSignalSemaphores = guest->pSignalSemaphores,
    };
    return device->vk.QueueSubmit(queue, 1, &piece, fence);
}

static VkResult submit_cut(struct pv_device *device, struct pv_gate *gate, VkQueue queue,
                           VkSubmitInfo *guest, VkFence fence)
{
    /* a device group of one has nothing to say that the pieces would need */
    struct pv_chain_edit values_edit, group_edit;
    const VkTimelineSemaphoreSubmitInfo *values =
        pv_chain_take(guest, VK_STRUCTURE_TYPE_TIMELINE_SEMAPHORE_SUBMIT_INFO, &values_edit);
    pv_chain_take(guest, VK_STRUCTURE_TYPE_DEVICE_GROUP_SUBMIT_INFO, &group_edit);
    if (!values)
        values = &no_values;
    VkResult result = VK_SUCCESS;
    for (uint32_t i = 0; i < guest->commandBufferCount && result == VK_SUCCESS; i++)
        result = submit_commands(device, gate, queue, guest, values, i);
    if (result == VK_SUCCESS)
        result = submit_signals(device, gate, queue, guest, values, fence);
    pv_chain_undo(&group_edit);
    pv_chain_undo(&values_edit);
    return result;
}

VkResult pv_gate_submit(struct pv_device *device, struct pv_gate *gate, VkQueue queue,
                        uint32_t count, VkSubmitInfo *submits, VkFence fence)
{
    if (count == 0)
        return device->vk.QueueSubmit(queue, 0, NULL, fence);
    VkResult result = VK_SUCCESS;
    for (uint32_t i = 0; i < count && result == VK_SUCCESS; i++) {
        VkFence last = i == count - 1 ? fence : VK_NULL_HANDLE;
        result = submits[i].commandBufferCount
                     ? submit_cut(device, gate, queue, &submits[i], last)
                     : device->vk.QueueSubmit(queue, 1, &submits[i], last);
    }
    return result;
}

/* ---- vkQueueSubmit2 ---- */

static VkResult submit_cut2(struct pv_device *device, struct pv_gate *gate, VkQueue queue,
                            const VkSubmitInfo2 *guest, VkFence fence)
{
    for (uint32_t i = 0; i <= guest->commandBufferInfoCount; i++) {
        bool first = i == 0, last = i == guest->commandBufferInfoCount; /* the last: signals only */
        uint64_t placed = atomic_load(&gate->placed);
        VkSemaphoreSubmitInfo wait = {
            .sType = VK_STRUCTURE_TYPE_SEMAPHORE_SUBMIT_INFO,
            .semaphore = gate->timeline,
            .value = open_value(placed),
            .stageMask = VK_PIPELINE_STAGE_2_ALL_COMMANDS_BIT,
        };
        VkSemaphoreSubmitInfo signal = wait;
        signal.value = reached(placed + 1);
        VkSubmitInfo2 piece = *guest;
        piece.commandBufferInfoCount = last ? 0 : 1;
        piece.pCommandBufferInfos = last ? NULL : &guest->pCommandBufferInfos[i];
        if (!first) {
            piece.waitSemaphoreInfoCount = 1;
            piece.pWaitSemaphoreInfos = &wait;
        }
        if (!last) {
            piece.signalSemaphoreInfoCount = 1;
            piece.pSignalSemaphoreInfos = &signal;
        }
        VkResult result = device->vk.QueueSubmit2(queue, 1, &piece, last ? fence : VK_NULL_HANDLE);
        if (result != VK_SUCCESS)
            return result;
        if (!last)
            atomic_store(&gate->placed, placed + 1);
    }
    return VK_SUCCESS;
}

VkResult pv_gate_submit2(struct pv_device *device, struct pv_gate *gate, VkQueue queue,
                         uint32_t count, VkSubmitInfo2 *submits, VkFence fence)
{
    if (count == 0)
        return device->vk.QueueSubmit2(queue, 0, NULL, fence);
    VkResult result = VK_SUCCESS;
    for (uint32_t i = 0; i < count && result == VK_SUCCESS; i++) {
        VkFence last = i == count - 1 ? fence : VK_NULL_HANDLE;
        result = submits[i].commandBufferInfoCount
                     ? submit_cut2(device, gate, queue, &submits[i], last)
                     : device->vk.QueueSubmit2(queue, 1, &submits[i], last);
    }
    return result;
}
