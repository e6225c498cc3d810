/* Command and descriptor pools: what is allocated from a pool goes away with it. */
#include "venus/context_internal.h"

void pv_do_vkAllocateCommandBuffers(struct pv_stream *s, struct pv_args_vkAllocateCommandBuffers *a)
{
    uint32_t count = a->pAllocateInfo->commandBufferCount;
    struct pv_object *pool = s->dec.pool ? s->dec.pool : a->device_object;
    struct pv_object **objects =
        pv_stream_reserve(s, VK_OBJECT_TYPE_COMMAND_BUFFER, pool, count, a->pCommandBuffers_ids);
    if (!objects)
        return;
    struct pv_device *device = a->device_object->dev;
    a->ret = VK_ERROR_OUT_OF_DEVICE_MEMORY;
    if (!s->dec.dropped)
        a->ret =
            device->vk.AllocateCommandBuffers(device->handle, a->pAllocateInfo, a->pCommandBuffers);
    pv_stream_publish(s, objects, count, a->ret, (const uint64_t *)(const void *)a->pCommandBuffers,
                      a->pCommandBuffers_ids, a->wants_reply);
}

void pv_do_vkAllocateDescriptorSets(struct pv_stream *s, struct pv_args_vkAllocateDescriptorSets *a)
{
    uint32_t count = a->pAllocateInfo->descriptorSetCount;
    struct pv_object *pool = s->dec.pool ? s->dec.pool : a->device_object;
    struct pv_object **objects =
        pv_stream_reserve(s, VK_OBJECT_TYPE_DESCRIPTOR_SET, pool, count, a->pDescriptorSets_ids);
    if (!objects)
        return;
    struct pv_device *device = a->device_object->dev;
    a->ret = VK_ERROR_OUT_OF_DEVICE_MEMORY;
    if (!s->dec.dropped)
        a->ret =
            device->vk.AllocateDescriptorSets(device->handle, a->pAllocateInfo, a->pDescriptorSets);
    pv_stream_publish(s, objects, count, a->ret, (const uint64_t *)(const void *)a->pDescriptorSets,
                      a->pDescriptorSets_ids, a->wants_reply);
}

/* All objects to free must come from the pool, and none may be named twice: each is marked with
 * this call's own arguments, and a mark that is there already was made by the same call. */
static bool check_members(struct pv_stream *s, struct pv_object *pool, uint32_t count,
                          struct pv_object **objects)
{
    for (uint32_t i = 0; i < count; i++) {
        if (!objects[i])
            continue;
        const char *wrong = NULL;
        if (objects[i]->parent != pool)
            wrong = "is not from this pool";
        else if (objects[i]->any == objects)
            wrong = "is freed twice";
        if (wrong) {
            pv_stream_fail(s, "object 0x%llx %s", (unsigned long long)pv_object_id(objects[i]),
                           wrong);
            return false;
        }
        objects[i]->any = objects;
    }
    return true;
}

/* Forget objects that are to be freed. Returns how many the driver knows, with their handles moved
 * to the front. */
static uint32_t remove_members(struct pv_stream *s, struct pv_object *pool, uint32_t count,
                               struct pv_object **objects, uint64_t *handles)
{
    uint32_t known = 0;
    if (!objects || !check_members(s, pool, count, objects))
        return 0;
    for (uint32_t i = 0; i < count; i++) {
        if (!objects[i])
            continue;
        uint64_t handle = atomic_exchange(&objects[i]->handle, 0);
        pv_objects_remove(s->ctx->objects, objects[i], NULL, NULL);
        if (handle)
            handles[known++] = handle;
    }
    return known;
}

void pv_do_vkFreeCommandBuffers(struct pv_stream *s, struct pv_args_vkFreeCommandBuffers *a)
{
    uint32_t count =
        remove_members(s, a->commandPool_object, a->commandBufferCount, a->pCommandBuffers_objects,
                       (uint64_t *)(void *)a->pCommandBuffers);
    struct pv_device *device = a->device_object->dev;
    if (count > 0)
        device->vk.FreeCommandBuffers(device->handle, a->commandPool, count, a->pCommandBuffers);
}

void pv_do_vkFreeDescriptorSets(struct pv_stream *s, struct pv_args_vkFreeDescriptorSets *a)
{
    uint32_t count =
        remove_members(s, a->descriptorPool_object, a->descriptorSetCount,
                       a->pDescriptorSets_objects, (uint64_t *)(void *)a->pDescriptorSets);
    struct pv_device *device = a->device_object->dev;
    a->ret = VK_SUCCESS;
    if (count > 0)
        a->ret = device->vk.FreeDescriptorSets(device->handle, a->descriptorPool, count,
                                               a->pDescriptorSets);
}

void pv_do_vkResetDescriptorPool(struct pv_stream *s, struct pv_args_vkResetDescriptorPool *a)
{
    struct pv_device *device = a->device_object->dev;
    pv_objects_remove_children(s->ctx->objects, a->descriptorPool_object, NULL, NULL);
    a->ret = device->vk.ResetDescriptorPool(device->handle, a->descriptorPool, a->flags);
}
