/* Instance, physical devices, devices and queues. */
#include "venus/context_internal.h"
#include "venus/timeline.h"
#include "vulkan/chain.h"

#include <stdlib.h>
#include <string.h>

/* ---- instance ---------------------------------------------------------------------------------
 */

void pv_do_vkEnumerateInstanceVersion(struct pv_stream *s,
                                      struct pv_args_vkEnumerateInstanceVersion *a)
{
    (void)s;
    *a->pApiVersion = pv_instance_version();
    a->ret = VK_SUCCESS;
}

/* Only the two that make the protocol: instance extensions of the host are not passed on. */
void pv_do_vkEnumerateInstanceExtensionProperties(
    struct pv_stream *s, struct pv_args_vkEnumerateInstanceExtensionProperties *a)
{
    (void)s;
    const VkExtensionProperties extensions[] = {
        {"VK_EXT_command_serialization", 1},
        {"VK_MESA_venus_protocol", PV_PROTOCOL_VERSION},
    };
    const uint32_t count = 2;
    if (!a->pProperties) {
        *a->pPropertyCount = count;
        a->ret = VK_SUCCESS;
        return;
    }
    a->ret = *a->pPropertyCount < count ? VK_INCOMPLETE : VK_SUCCESS;
    if (*a->pPropertyCount > count)
        *a->pPropertyCount = count;
    memcpy(a->pProperties, extensions, *a->pPropertyCount * sizeof(extensions[0]));
}

static VkResult create_instance(struct pv_context *ctx, const VkInstanceCreateInfo *info)
{
    if (info->enabledLayerCount > 0)
        return VK_ERROR_LAYER_NOT_PRESENT;
    if (info->enabledExtensionCount > 0)
        return VK_ERROR_EXTENSION_NOT_PRESENT;
    struct pv_extension *extensions = calloc(pv_protocol_extension_count, sizeof(*extensions));
    if (!extensions)
        return VK_ERROR_OUT_OF_HOST_MEMORY;
    uint32_t count = 0;
    for (uint32_t i = 0; i < pv_protocol_extension_count; i++) {
        const struct pv_protocol_extension *known = &pv_protocol_extensions[i];
        if (!known->guest_only)
            extensions[count++] = (struct pv_extension){known->name, known->spec_version};
    }
    const struct pv_instance_params params = {
        .caps = ctx->params.caps,
        .device_index = ctx->params.device_index,
        .app_info = info->pApplicationInfo,
        .offer_dma_buf = ctx->params.offer_dma_buf,
        .arena = ctx->params.arena,
        .extensions = extensions,
        .extension_count = count,
    };
    VkResult result = pv_instance_create(&params, &ctx->instance);
    free(extensions);
    return result;
}

void pv_do_vkCreateInstance(struct pv_stream *s, struct pv_args_vkCreateInstance *a)
{
    struct pv_context *ctx = s->ctx;
    if (atomic_exchange(&ctx->instance_made, true)) {
        pv_stream_fail(s, "a context has one instance");
        return;
    }
    struct pv_object **objects =
        pv_stream_reserve(s, VK_OBJECT_TYPE_INSTANCE, NULL, 1, a->pInstance_ids);
    if (!objects)
        return;
    a->ret = create_instance(ctx, a->pCreateInfo);
    if (a->ret != VK_SUCCESS)
        atomic_store(&ctx->instance_made, false); /* the guest may try again */
    uint64_t handle = a->ret == VK_SUCCESS ? (uint64_t)(uintptr_t)ctx->instance->handle : 0;
    if (a->ret == VK_SUCCESS)
        ctx->instance_object = objects[0];
    pv_stream_publish(s, objects, 1, a->ret, &handle, a->pInstance_ids, a->wants_reply);
}

/* Wait for the device and let its timelines go. False if somebody has done so. */
static bool quiesce_device(struct pv_context *ctx, struct pv_device *device)
{
    if (atomic_exchange(&device->closing, true))
        return false;
    for (uint32_t i = 0; i < device->queue_count; i++)
        pv_queue_lock(&device->queues[i]);
    device->vk.DeviceWaitIdle(device->handle);
    for (uint32_t i = 0; i < device->queue_count; i++)
        pv_queue_unlock(&device->queues[i]);
    pv_timelines_unbind(ctx->timelines, device);
    return true;
}

void pv_context_destroy_device(struct pv_object *object, uint64_t handle)
{
    if (handle)
        pv_device_close(object->dev);
}

/* Nothing may be in flight on a device when its objects go. */
void pv_context_destroy_instance(struct pv_context *ctx)
{
    if (atomic_exchange(&ctx->instance_gone, true))
        return;
    for (struct pv_device *device = atomic_load(&ctx->devices); device; device = device->older)
        quiesce_device(ctx, device);
    pv_objects_remove(ctx->objects, ctx->instance_object, pv_object_gone, ctx);
}

void pv_context_free_instance(struct pv_context *ctx)
{
    struct pv_device *device = atomic_load(&ctx->devices);
    while (device) {
        struct pv_device *older = device->older;
        if (device->handle) /* its object was destroyed while it was being made */
            pv_device_close(device);
        pv_device_free(device);
        device = older;
    }
    pv_instance_destroy(ctx->instance);
}

void pv_do_vkDestroyInstance(struct pv_stream *s, struct pv_args_vkDestroyInstance *a)
{
    if (a->instance_object && a->instance_object == s->ctx->instance_object)
        pv_context_destroy_instance(s->ctx);
}

/* ---- physical devices -------------------------------------------------------------------------
 */

static bool name_physical(struct pv_stream *s, struct pv_object *parent, uint64_t id,
                          struct pv_physical *physical)
{
    struct pv_object *known = pv_objects_find(s->ctx->objects, id);
    if (known && known->type == VK_OBJECT_TYPE_PHYSICAL_DEVICE && known->physical == physical)
        return true;
    struct pv_object **objects =
        pv_stream_reserve(s, VK_OBJECT_TYPE_PHYSICAL_DEVICE, parent, 1, &id);
    if (!objects)
        return false;
    objects[0]->physical = physical;
    pv_object_publish(objects[0], (uint64_t)(uintptr_t)physical->handle);
    return true;
}

/* The ids that the guest chose become, in order, the devices that it may see. */
void pv_do_vkEnumeratePhysicalDevices(struct pv_stream *s,
                                      struct pv_args_vkEnumeratePhysicalDevices *a)
{
    struct pv_instance *instance = s->ctx->instance;
    a->ret = VK_ERROR_INITIALIZATION_FAILED;
    if (!instance || !a->instance_object || s->dec.dropped)
        return;
    a->ret = VK_SUCCESS;
    if (!a->pPhysicalDevices) {
        *a->pPhysicalDeviceCount = instance->physical_count;
        return;
    }
    if (*a->pPhysicalDeviceCount < instance->physical_count)
        a->ret = VK_INCOMPLETE;
    else
        *a->pPhysicalDeviceCount = instance->physical_count;
    for (uint32_t i = 0; i < *a->pPhysicalDeviceCount; i++) {
        if (!name_physical(s, a->instance_object, a->pPhysicalDevices_ids[i],
                           &instance->physicals[i]))
            return;
    }
}

/* The guest's id of a host device, 0 if it has none. */
static uint64_t find_physical_id(struct pv_object *instance, VkPhysicalDevice handle)
{
    for (struct pv_object *child = instance->children; child; child = child->next) {
        if (child->type == VK_OBJECT_TYPE_PHYSICAL_DEVICE &&
            pv_object_handle(child) == (uint64_t)(uintptr_t)handle)
            return pv_object_id(child);
    }
    return 0;
}

/* Each device in a group of its own: what --device leaves out could not be used anyway, and no host
 * that we know links devices. The ids go where the handles would be. */
void pv_do_vkEnumeratePhysicalDeviceGroups(struct pv_stream *s,
                                           struct pv_args_vkEnumeratePhysicalDeviceGroups *a)
{
    struct pv_instance *instance = s->ctx->instance;
    a->ret = VK_ERROR_INITIALIZATION_FAILED;
    if (!instance)
        return;
    a->ret = VK_SUCCESS;
    if (!a->pPhysicalDeviceGroupProperties) {
        *a->pPhysicalDeviceGroupCount = instance->physical_count;
        return;
    }
    if (*a->pPhysicalDeviceGroupCount < instance->physical_count)
        a->ret = VK_INCOMPLETE;
    else
        *a->pPhysicalDeviceGroupCount = instance->physical_count;
    for (uint32_t i = 0; i < *a->pPhysicalDeviceGroupCount; i++) {
        VkPhysicalDeviceGroupProperties *group = &a->pPhysicalDeviceGroupProperties[i];
        uint64_t id = find_physical_id(a->instance_object, instance->physicals[i].handle);
        group->physicalDeviceCount = 1;
        memset(group->physicalDevices, 0, sizeof(group->physicalDevices));
        group->physicalDevices[0] = PV_HANDLE(VkPhysicalDevice, id);
        group->subsetAllocation = VK_FALSE;
    }
}

/* Host builds of acceleration structures are not in the protocol. */
void pv_do_vkGetPhysicalDeviceFeatures2(struct pv_stream *s,
                                        struct pv_args_vkGetPhysicalDeviceFeatures2 *a)
{
    const struct pv_instance *instance = a->physicalDevice_object->physical->instance;
    if (!instance->vk.GetPhysicalDeviceFeatures2) {
        pv_stream_missing(s);
        return;
    }
    instance->vk.GetPhysicalDeviceFeatures2(a->physicalDevice, a->pFeatures);
    for (VkBaseOutStructure *node = a->pFeatures->pNext; node; node = node->pNext) {
        if (node->sType == VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_ACCELERATION_STRUCTURE_FEATURES_KHR)
            ((VkPhysicalDeviceAccelerationStructureFeaturesKHR *)(void *)node)
                ->accelerationStructureHostCommands = VK_FALSE;
    }
}

void pv_do_vkGetPhysicalDeviceMemoryProperties(
    struct pv_stream *s, struct pv_args_vkGetPhysicalDeviceMemoryProperties *a)
{
    (void)s;
    VkPhysicalDeviceMemoryProperties2 properties = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MEMORY_PROPERTIES_2,
    };
    pv_layer_GetPhysicalDeviceMemoryProperties2(a->physicalDevice_object->physical, &properties);
    *a->pMemoryProperties = properties.memoryProperties;
}

/* ---- devices and queues -----------------------------------------------------------------------
 */

void pv_do_vkCreateDevice(struct pv_stream *s, struct pv_args_vkCreateDevice *a)
{
    struct pv_object *parent = a->physicalDevice_object;
    struct pv_object **objects =
        pv_stream_reserve(s, VK_OBJECT_TYPE_DEVICE, parent, 1, a->pDevice_ids);
    if (!objects)
        return;
    struct pv_device *device = NULL;
    a->ret = VK_ERROR_INITIALIZATION_FAILED;
    if (!s->dec.dropped && a->pCreateInfo->enabledLayerCount == 0)
        a->ret = pv_device_create(parent->physical, a->pCreateInfo, &device);
    uint64_t handle = a->ret == VK_SUCCESS ? (uint64_t)(uintptr_t)device->handle : 0;
    if (a->ret == VK_SUCCESS) {
        objects[0]->dev = device;
        device->older = atomic_load(&s->ctx->devices);
        while (!atomic_compare_exchange_weak(&s->ctx->devices, &device->older, device))
            continue;
    }
    pv_stream_publish(s, objects, 1, a->ret, &handle, a->pDevice_ids, a->wants_reply);
}

void pv_do_vkDestroyDevice(struct pv_stream *s, struct pv_args_vkDestroyDevice *a)
{
    if (!a->device_object)
        return;
    struct pv_device *device = a->device_object->dev;
    if (!device || quiesce_device(s->ctx, device)) /* the driver may have refused it */
        pv_stream_destroy(s, a->device_object);
}

void pv_do_vkGetDeviceQueue2(struct pv_stream *s, struct pv_args_vkGetDeviceQueue2 *a)
{
    struct pv_object *parent = a->device_object;
    struct pv_object **objects =
        pv_stream_reserve(s, VK_OBJECT_TYPE_QUEUE, parent, 1, a->pQueue_ids);
    if (!objects || s->dec.dropped)
        return;
    const VkDeviceQueueInfo2 *info = a->pQueueInfo;
    struct pv_queue *queue =
        pv_device_get_queue(parent->dev, info->queueFamilyIndex, info->queueIndex, info->flags);
    if (!queue) {
        pv_stream_fail(s, "device has no queue %u in family %u", info->queueIndex,
                       info->queueFamilyIndex);
        return;
    }
    const VkDeviceQueueTimelineInfoMESA *timeline =
        pv_chain_find(info, VK_STRUCTURE_TYPE_DEVICE_QUEUE_TIMELINE_INFO_MESA);
    if (timeline &&
        pv_timelines_bind(s->ctx->timelines, timeline->ringIdx, parent->dev, queue) < 0) {
        pv_stream_fail(s, "ring_idx %u is out of range or bound to another queue",
                       timeline->ringIdx);
        return;
    }
    if (atomic_load(&parent->dev->closing)) { /* after binding: see quiesce_device */
        pv_stream_fail(s, "the device is being destroyed");
        return;
    }
    objects[0]->queue = queue;
    pv_object_publish(objects[0], (uint64_t)(uintptr_t)queue->handle);
}

static void end_submission(struct pv_stream *s, const struct pv_submission *submission,
                           VkResult result)
{
    pv_timelines_end_submission(submission, result);
    pv_stream_result(s, result);
    if (result == VK_SUCCESS)
        pv_activity_add_submission(s->ctx->activity, s->dec.ends_frame);
}

void pv_do_vkQueueSubmit(struct pv_stream *s, struct pv_args_vkQueueSubmit *a)
{
    const struct pv_submission submission =
        pv_timelines_begin_submission(s->ctx->timelines, a->queue_object->queue, a->fence);
    a->ret = pv_layer_QueueSubmit(a->queue_object->dev, a->queue, a->submitCount, a->pSubmits,
                                  submission.fence);
    end_submission(s, &submission, a->ret);
}

void pv_do_vkQueueSubmit2(struct pv_stream *s, struct pv_args_vkQueueSubmit2 *a)
{
    if (!a->queue_object->dev->vk.QueueSubmit2) {
        pv_stream_missing(s);
        return;
    }
    const struct pv_submission submission =
        pv_timelines_begin_submission(s->ctx->timelines, a->queue_object->queue, a->fence);
    a->ret = pv_layer_QueueSubmit2(a->queue_object->dev, a->queue, a->submitCount, a->pSubmits,
                                   submission.fence);
    end_submission(s, &submission, a->ret);
}

void pv_do_vkQueueBindSparse(struct pv_stream *s, struct pv_args_vkQueueBindSparse *a)
{
    const struct pv_submission submission =
        pv_timelines_begin_submission(s->ctx->timelines, a->queue_object->queue, a->fence);
    a->ret = pv_layer_QueueBindSparse(a->queue_object->dev, a->queue, a->bindInfoCount,
                                      a->pBindInfo, submission.fence);
    end_submission(s, &submission, a->ret);
}

void pv_do_vkQueueWaitIdle(struct pv_stream *s, struct pv_args_vkQueueWaitIdle *a)
{
    struct pv_device *device = a->queue_object->dev;
    struct pv_queue *queue = a->queue_object->queue;
    uint64_t begin = pv_stream_wait_begin(s);
    pv_queue_lock(queue);
    a->ret = device->vk.QueueWaitIdle(a->queue);
    pv_queue_unlock(queue);
    pv_stream_wait_end(s, begin);
    pv_device_check(device, a->ret);
}

void pv_do_vkDeviceWaitIdle(struct pv_stream *s, struct pv_args_vkDeviceWaitIdle *a)
{
    struct pv_device *device = a->device_object->dev;
    uint64_t begin = pv_stream_wait_begin(s);
    for (uint32_t i = 0; i < device->queue_count; i++)
        pv_queue_lock(&device->queues[i]);
    a->ret = device->vk.DeviceWaitIdle(device->handle);
    for (uint32_t i = 0; i < device->queue_count; i++)
        pv_queue_unlock(&device->queues[i]);
    pv_stream_wait_end(s, begin);
    pv_device_check(device, a->ret);
}
