/* sync_fd payloads: what was imported lets one wait pass, what was exported is gone. */
#include "vulkan/device.h"

#include "unit.h"
#include "vulkan/chain.h"
#include "vulkan_fixture.h"

#include <stdio.h>

#define SECOND 1000000000u

static struct fixture *fixture;

static VkSemaphore make_semaphore(bool timeline)
{
    VkSemaphoreTypeCreateInfo type = {
        .sType = VK_STRUCTURE_TYPE_SEMAPHORE_TYPE_CREATE_INFO,
        .semaphoreType = timeline ? VK_SEMAPHORE_TYPE_TIMELINE : VK_SEMAPHORE_TYPE_BINARY,
    };
    VkExportSemaphoreCreateInfo export = {
        .sType = VK_STRUCTURE_TYPE_EXPORT_SEMAPHORE_CREATE_INFO,
        .pNext = &type,
        .handleTypes = timeline ? 0 : VK_EXTERNAL_SEMAPHORE_HANDLE_TYPE_SYNC_FD_BIT,
    };
    VkSemaphoreCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_SEMAPHORE_CREATE_INFO,
        .pNext = &export,
    };
    VkSemaphore semaphore;
    VkExternalSemaphoreHandleTypeFlags asked = export.handleTypes;
    assert_int_equal(pv_layer_CreateSemaphore(fixture->device, &info, &semaphore), VK_SUCCESS);
    assert_ptr_equal(info.pNext, &export);
    assert_ptr_equal(export.pNext, &type);
    assert_int_equal(export.handleTypes, asked);
    return semaphore;
}

static VkResult wait_fence(uint64_t timeout)
{
    struct pv_device *device = fixture->device;
    VkResult result =
        device->vk.WaitForFences(device->handle, 1, &fixture->fence, VK_TRUE, timeout);
    if (result == VK_SUCCESS)
        device->vk.ResetFences(device->handle, 1, &fixture->fence);
    return result;
}

static void imported_payload_passes_once(void **state)
{
    VkSemaphore semaphore = make_semaphore(false);
    assert_int_equal(pv_semaphore_import_signalled(fixture->device, semaphore), VK_SUCCESS);
    assert_int_equal(pv_semaphore_import_signalled(fixture->device, semaphore), VK_SUCCESS);
    VkPipelineStageFlags stage = VK_PIPELINE_STAGE_ALL_COMMANDS_BIT;
    VkSubmitInfo submit = {
        .sType = VK_STRUCTURE_TYPE_SUBMIT_INFO,
        .waitSemaphoreCount = 1,
        .pWaitSemaphores = &semaphore,
        .pWaitDstStageMask = &stage,
    };
    assert_int_equal(
        pv_layer_QueueSubmit(fixture->device, fixture->queue, 1, &submit, fixture->fence),
        VK_SUCCESS);
    assert_int_equal(wait_fence(5ull * SECOND), VK_SUCCESS);
    assert_int_equal(submit.waitSemaphoreCount, 0);

    /* the payload is used up: the next wait is the driver's, for a signal of the driver's */
    VkSubmitInfo signal = {
        .sType = VK_STRUCTURE_TYPE_SUBMIT_INFO,
        .signalSemaphoreCount = 1,
        .pSignalSemaphores = &semaphore,
    };
    submit.waitSemaphoreCount = 1;
    VkSubmitInfo both[] = {signal, submit};
    assert_int_equal(pv_layer_QueueSubmit(fixture->device, fixture->queue, 2, both, fixture->fence),
                     VK_SUCCESS);
    assert_int_equal(both[1].waitSemaphoreCount, 1);
    assert_int_equal(wait_fence(5ull * SECOND), VK_SUCCESS);
    pv_layer_DestroySemaphore(fixture->device, semaphore);
}

static void other_waits_stay(void **state)
{
    struct pv_device *device = fixture->device;
    VkSemaphore passing = make_semaphore(false), timeline = make_semaphore(true);
    assert_int_equal(pv_semaphore_import_signalled(device, passing), VK_SUCCESS);

    VkSemaphore waits[] = {passing, timeline};
    VkPipelineStageFlags stages[] = {VK_PIPELINE_STAGE_TRANSFER_BIT,
                                     VK_PIPELINE_STAGE_ALL_COMMANDS_BIT};
    uint64_t values[] = {0, 7};
    uint32_t indices[] = {0, 0}, masks[] = {1, 1};
    VkDeviceGroupSubmitInfo group = {
        .sType = VK_STRUCTURE_TYPE_DEVICE_GROUP_SUBMIT_INFO,
        .waitSemaphoreCount = 2,
        .pWaitSemaphoreDeviceIndices = indices,
        .commandBufferCount = 2,
        .pCommandBufferDeviceMasks = masks,
    };
    VkTimelineSemaphoreSubmitInfo timeline_info = {
        .sType = VK_STRUCTURE_TYPE_TIMELINE_SEMAPHORE_SUBMIT_INFO,
        .pNext = &group,
        .waitSemaphoreValueCount = 2,
        .pWaitSemaphoreValues = values,
    };
    VkCommandBuffer commands[2] = {fixture_begin(fixture), fixture_begin(fixture)};
    for (int i = 0; i < 2; i++)
        assert_int_equal(device->vk.EndCommandBuffer(commands[i]), VK_SUCCESS);
    VkSubmitInfo submit = {
        .sType = VK_STRUCTURE_TYPE_SUBMIT_INFO,
        .pNext = &timeline_info,
        .waitSemaphoreCount = 2,
        .pWaitSemaphores = waits,
        .pWaitDstStageMask = stages,
        .commandBufferCount = 2,
        .pCommandBuffers = commands,
    };
    assert_int_equal(pv_layer_QueueSubmit(device, fixture->queue, 1, &submit, fixture->fence),
                     VK_SUCCESS);
    assert_int_equal(submit.waitSemaphoreCount, 1);
    assert_int_equal(timeline_info.waitSemaphoreValueCount, 1);
    assert_int_equal(group.waitSemaphoreCount, 1);
    assert_true(waits[0] == timeline);
    assert_int_equal(stages[0], VK_PIPELINE_STAGE_ALL_COMMANDS_BIT);
    assert_int_equal(values[0], 7);

    assert_int_equal(wait_fence(SECOND / 50), VK_TIMEOUT); /* it does wait for the timeline */
    VkSemaphoreSignalInfo signal = {
        .sType = VK_STRUCTURE_TYPE_SEMAPHORE_SIGNAL_INFO,
        .semaphore = timeline,
        .value = 7,
    };
    assert_int_equal(device->vk.SignalSemaphore(device->handle, &signal), VK_SUCCESS);
    assert_int_equal(wait_fence(5ull * SECOND), VK_SUCCESS);
    pv_layer_DestroySemaphore(device, passing);
    pv_layer_DestroySemaphore(device, timeline);
}

static void submit2_drops_waits_too(void **state)
{
    if (!fixture->device->vk.QueueSubmit2)
        skip();
    VkSemaphore a = make_semaphore(false), b = make_semaphore(false);
    assert_int_equal(pv_semaphore_import_signalled(fixture->device, a), VK_SUCCESS);
    assert_int_equal(pv_semaphore_import_signalled(fixture->device, b), VK_SUCCESS);
    VkSemaphoreSubmitInfo waits[2] = {
        {.sType = VK_STRUCTURE_TYPE_SEMAPHORE_SUBMIT_INFO, .semaphore = a},
        {.sType = VK_STRUCTURE_TYPE_SEMAPHORE_SUBMIT_INFO, .semaphore = b},
    };
    VkCommandBufferSubmitInfo commands[2];
    for (int i = 0; i < 2; i++) {
        commands[i] = (VkCommandBufferSubmitInfo){
            .sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_SUBMIT_INFO,
            .commandBuffer = fixture_begin(fixture),
        };
        assert_int_equal(fixture->device->vk.EndCommandBuffer(commands[i].commandBuffer),
                         VK_SUCCESS);
    }
    VkSubmitInfo2 submit = {
        .sType = VK_STRUCTURE_TYPE_SUBMIT_INFO_2,
        .waitSemaphoreInfoCount = 2,
        .pWaitSemaphoreInfos = waits,
        .commandBufferInfoCount = 2,
        .pCommandBufferInfos = commands,
    };
    assert_int_equal(
        pv_layer_QueueSubmit2(fixture->device, fixture->queue, 1, &submit, fixture->fence),
        VK_SUCCESS);
    assert_int_equal(submit.waitSemaphoreInfoCount, 0);
    assert_int_equal(wait_fence(5ull * SECOND), VK_SUCCESS);
    pv_layer_DestroySemaphore(fixture->device, a);
    pv_layer_DestroySemaphore(fixture->device, b);
}

static void consuming_takes_the_signal(void **state)
{
    struct pv_device *device = fixture->device;
    VkSemaphore semaphore = make_semaphore(false);
    /* one that was imported is simply forgotten */
    assert_int_equal(pv_semaphore_import_signalled(device, semaphore), VK_SUCCESS);
    assert_int_equal(pv_semaphore_consume(device, semaphore), VK_SUCCESS);
    /* one that the GPU signals is waited for, so that it can be signalled again */
    for (int i = 0; i < 3; i++) {
        VkSubmitInfo signal = {
            .sType = VK_STRUCTURE_TYPE_SUBMIT_INFO,
            .signalSemaphoreCount = 1,
            .pSignalSemaphores = &semaphore,
        };
        assert_int_equal(pv_layer_QueueSubmit(device, fixture->queue, 1, &signal, fixture->fence),
                         VK_SUCCESS);
        assert_int_equal(pv_semaphore_consume(device, semaphore), VK_SUCCESS);
        assert_int_equal(wait_fence(5ull * SECOND), VK_SUCCESS);
    }
    device->vk.DeviceWaitIdle(device->handle);
    pv_layer_DestroySemaphore(device, semaphore);
}

static void destroyed_semaphores_are_forgotten(void **state)
{
    for (int i = 0; i < 100; i++) { /* handles come back; none may be found passing */
        VkSemaphore semaphore = make_semaphore(false);
        assert_int_equal(pv_semaphore_import_signalled(fixture->device, semaphore), VK_SUCCESS);
        pv_layer_DestroySemaphore(fixture->device, semaphore);
        VkSemaphore next = make_semaphore(false);
        VkPipelineStageFlags stage = VK_PIPELINE_STAGE_ALL_COMMANDS_BIT;
        VkSubmitInfo submits[2] = {
            {.sType = VK_STRUCTURE_TYPE_SUBMIT_INFO,
             .signalSemaphoreCount = 1,
             .pSignalSemaphores = &next},
            {.sType = VK_STRUCTURE_TYPE_SUBMIT_INFO,
             .waitSemaphoreCount = 1,
             .pWaitSemaphores = &next,
             .pWaitDstStageMask = &stage},
        };
        assert_int_equal(
            pv_layer_QueueSubmit(fixture->device, fixture->queue, 2, submits, fixture->fence),
            VK_SUCCESS);
        assert_int_equal(submits[1].waitSemaphoreCount, 1);
        assert_int_equal(wait_fence(5ull * SECOND), VK_SUCCESS);
        pv_layer_DestroySemaphore(fixture->device, next);
    }
    pv_layer_DestroySemaphore(fixture->device, VK_NULL_HANDLE);
}

static void fences_are_consumed(void **state)
{
    struct pv_device *device = fixture->device;
    VkExportFenceCreateInfo export = {
        .sType = VK_STRUCTURE_TYPE_EXPORT_FENCE_CREATE_INFO,
        .handleTypes = VK_EXTERNAL_FENCE_HANDLE_TYPE_SYNC_FD_BIT,
    };
    VkFenceCreateInfo info = {.sType = VK_STRUCTURE_TYPE_FENCE_CREATE_INFO, .pNext = &export};
    VkFence fence;
    atomic_bool stop = false;
    assert_int_equal(pv_layer_CreateFence(device, &info, &fence), VK_SUCCESS);
    assert_ptr_equal(info.pNext, &export);
    assert_int_equal(pv_layer_QueueSubmit(device, fixture->queue, 0, NULL, fence), VK_SUCCESS);
    assert_int_equal(pv_fence_consume(device, fence, &stop), VK_SUCCESS);
    assert_int_equal(device->vk.GetFenceStatus(device->handle, fence), VK_NOT_READY);
    if (device->physical->caps->fence_tier == PV_SYNC_TIER_EMULATED) {
        stop = true; /* nothing will ever signal it */
        assert_int_equal(pv_fence_consume(device, fence, &stop), VK_TIMEOUT);
    }
    device->vk.DestroyFence(device->handle, fence, NULL);
}

static void lost_devices_say_so(void **state)
{
    atomic_store(&fixture->device->lost, true);
    assert_int_equal(pv_layer_QueueSubmit(fixture->device, fixture->queue, 0, NULL, fixture->fence),
                     VK_ERROR_DEVICE_LOST);
    atomic_store(&fixture->device->lost, false);
}

static int run(enum pv_memory_tier tier)
{
    fixture = fixture_create(tier, false);
    if (!fixture) {
        printf("memory tier %s does not work with this driver: not tested\n",
               pv_memory_tier_name(tier));
        return 0;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(imported_payload_passes_once),
        cmocka_unit_test(other_waits_stay),
        cmocka_unit_test(submit2_drops_waits_too),
        cmocka_unit_test(consuming_takes_the_signal),
        cmocka_unit_test(destroyed_semaphores_are_forgotten),
        cmocka_unit_test(fences_are_consumed),
        cmocka_unit_test(lost_devices_say_so),
    };
    int failed = cmocka_run_group_tests_name(pv_memory_tier_name(tier), tests, NULL, NULL);
    fixture_destroy(fixture);
    return failed;
}

int main(void)
{
    fixture_need_driver();
    /* shadow memory cuts submissions up, which must not show here */
    return run(PV_MEMORY_TIER_NONE) + run(PV_MEMORY_TIER_SHADOW);
}
