#include "gpu/device.h"
#include "util/os.h"
#include "venus/capset.h"
#include "worker/link.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PV_LOG_MODULE "context"

struct pv_gpu_context *pv_gpu_context_find(struct pv_gpu *gpu, uint32_t id)
{
    return pv_table_get(&gpu->contexts_by_id, id);
}

const char *pv_gpu_context_label(const struct pv_gpu_context *context)
{
    static char label[128];
    snprintf(label, sizeof(label), context->name[0] ? "context %u (%s)" : "context %u", context->id,
             context->name);
    return label;
}

/* A guest's process name, safe to show on a terminal. */
static void copy_name(char *out, size_t room, const struct pv_wire_ctx_create *wire)
{
    size_t size = wire->name_size < sizeof(wire->name) ? wire->name_size : sizeof(wire->name);
    size_t i = 0;
    for (; i < size && i + 1 < room && wire->name[i] != '\0'; i++)
        out[i] = wire->name[i] >= ' ' && wire->name[i] <= '~' ? wire->name[i] : '?';
    out[i] = '\0';
}

/* ---- create, destroy ---- */

static struct pv_gpu_context *new_context(struct pv_gpu *gpu, const struct pv_wire_ctx_create *wire)
{
    struct pv_gpu_context *context = calloc(1, sizeof(*context));
    if (!context)
        return NULL;
    context->gpu = gpu;
    context->id = wire->header.ctx_id;
    context->capset = wire->context_init & PV_CONTEXT_CAPSET_MASK;
    copy_name(context->name, sizeof(context->name), wire);
    pv_list_init(&context->attachments);
    pv_list_init(&context->created);
    pv_list_init(&context->holdings);
    pv_list_init(&context->forgetting);
    pv_intervals_init(&context->groups);
    pv_list_init(&context->fences);
    pv_list_init(&context->held);
    pv_list_init(&context->rings);
    for (uint32_t i = 0; i < PV_RING_COUNT; i++)
        pv_list_init(&context->timelines[i]);
    if (pv_table_insert(&gpu->contexts_by_id, context->id, context) < 0) {
        free(context);
        return NULL;
    }
    pv_list_append(&gpu->contexts, &context->node);
    gpu->context_count++;
    return context;
}

void pv_gpu_context_free(struct pv_gpu_context *context)
{
    for (uint32_t i = 0; i < PV_RING_COUNT; i++)
        pv_answer_orphan(context->gpu, &context->timelines[i]);
    pv_list_remove(&context->node);
    pv_activity_destroy(context);
    free(context);
}

static void remove_attachment(struct pv_attachment *attachment)
{
    attachment->context->gpu->attachment_count--;
    attachment->context->resource_count--;
    pv_list_remove(&attachment->context_node);
    pv_list_remove(&attachment->resource_node);
    free(attachment);
}

/* The guest can no longer name it. */
static void unlink_context(struct pv_gpu *gpu, struct pv_gpu_context *context)
{
    pv_list_for_each(node, &context->attachments)
        remove_attachment(pv_list_entry(node, struct pv_attachment, context_node));
    pv_list_for_each(node, &context->created)
    {
        struct pv_gpu_resource *resource =
            pv_list_entry(node, struct pv_gpu_resource, creator_node);
        pv_list_remove(&resource->creator_node);
        resource->creator = NULL;
    }
    pv_table_remove(&gpu->contexts_by_id, context->id);
    gpu->context_count--;
}

static const char *why_not(const struct pv_gpu *gpu, uint32_t capset)
{
    if (capset != 0 && capset != PV_CAPSET_VENUS)
        return "asks for a capset that is not offered";
    if (capset == PV_CAPSET_VENUS && !pv_gpu_has_venus(gpu))
        return "asks for Venus, which is not offered";
    return NULL;
}

uint32_t pv_gpu_context_create(struct pv_gpu *gpu, struct pv_gpu_request *request)
{
    const struct pv_wire_ctx_create *wire = &request->wire.ctx_create;
    uint32_t id = wire->header.ctx_id, capset = wire->context_init & PV_CONTEXT_CAPSET_MASK;
    if (id == 0 || pv_gpu_context_find(gpu, id))
        return pv_gpu_refuse(gpu, PV_RESP_ERR_INVALID_CONTEXT_ID, "context %u: the id is %s", id,
                             id == 0 ? "not valid" : "in use");
    const char *problem = why_not(gpu, capset);
    if (problem)
        return pv_gpu_refuse(gpu, PV_RESP_ERR_INVALID_PARAMETER, "context %u (capset %u) %s", id,
                             capset, problem);
    if (gpu->context_count >= PV_GPU_CONTEXTS_MAX ||
        (capset != 0 && gpu->worker_count >= PV_GPU_WORKERS_MAX))
        return pv_gpu_refuse(gpu, PV_RESP_ERR_OUT_OF_MEMORY,
                             "context %u: the guest has %u contexts and %u workers", id,
                             gpu->context_count, gpu->worker_count);
    struct pv_gpu_context *context = new_context(gpu, wire);
    if (!context)
        return PV_RESP_ERR_OUT_OF_MEMORY;
    int ret = capset != 0 ? pv_worker_start(context) : 0;
    if (ret < 0) {
        pv_gpu_refuse(gpu, 0, "%s: no worker can be started (error %d)",
                      pv_gpu_context_label(context), -ret);
        unlink_context(gpu, context);
        pv_gpu_context_free(context);
        return PV_RESP_ERR_OUT_OF_MEMORY;
    }
    return PV_RESP_OK_NODATA;
}

uint32_t pv_gpu_context_destroy(struct pv_gpu *gpu, struct pv_gpu_request *request)
{
    uint32_t id = request->wire.header.ctx_id;
    struct pv_gpu_context *context = pv_gpu_context_find(gpu, id);
    if (!context)
        return pv_gpu_refuse(gpu, PV_RESP_ERR_INVALID_CONTEXT_ID,
                             "context %u cannot be destroyed: there is none", id);
    pv_blob_context_died(gpu, context);
    unlink_context(gpu, context);
    pv_worker_leave(context);
    return PV_RESP_OK_NODATA;
}

void pv_gpu_context_reset(struct pv_gpu *gpu)
{
    pv_list_for_each(node, &gpu->contexts)
    {
        struct pv_gpu_context *context = pv_list_entry(node, struct pv_gpu_context, node);
        if (context->state != PV_CONTEXT_LEAVING)
            unlink_context(gpu, context);
        pv_worker_leave(context);
    }
}

/* ---- attach, detach ---- */

static struct pv_attachment *find_attachment(const struct pv_gpu_context *context,
                                             const struct pv_gpu_resource *resource)
{
    pv_list_for_each(node, &resource->attachments)
    {
        struct pv_attachment *attachment = pv_list_entry(node, struct pv_attachment, resource_node);
        if (attachment->context == context)
            return attachment;
    }
    return NULL;
}

/* Both ends of an attachment, or why they cannot be had. */
static uint32_t find_ends(struct pv_gpu *gpu, const struct pv_wire_resource *wire,
                          struct pv_gpu_context **context, struct pv_gpu_resource **resource)
{
    *context = pv_gpu_context_find(gpu, wire->header.ctx_id);
    if (!*context)
        return pv_gpu_refuse(gpu, PV_RESP_ERR_INVALID_CONTEXT_ID,
                             "resource %u and context %u: there is no such context",
                             wire->resource_id, wire->header.ctx_id);
    *resource = pv_gpu_resource_find(gpu, wire->resource_id);
    if (!*resource)
        return pv_gpu_refuse(gpu, PV_RESP_ERR_INVALID_RESOURCE_ID, "%s: there is no resource %u",
                             pv_gpu_context_label(*context), wire->resource_id);
    return PV_RESP_OK_NODATA;
}

uint32_t pv_gpu_context_attach(struct pv_gpu *gpu, struct pv_gpu_request *request)
{
    struct pv_gpu_context *context;
    struct pv_gpu_resource *resource;
    uint32_t result = find_ends(gpu, &request->wire.resource, &context, &resource);
    if (result != PV_RESP_OK_NODATA || find_attachment(context, resource))
        return result;
    if (context->state != PV_CONTEXT_LIVE)
        return pv_gpu_refuse(gpu, PV_RESP_ERR_UNSPEC, "%s has failed and takes no resources",
                             pv_gpu_context_label(context));
    struct pv_attachment *attachment = NULL;
    if (gpu->attachment_count < PV_GPU_ATTACHMENTS_MAX)
        attachment = calloc(1, sizeof(*attachment));
    if (!attachment)
        return PV_RESP_ERR_OUT_OF_MEMORY;
    attachment->context = context;
    attachment->resource = resource;
    pv_list_append(&context->attachments, &attachment->context_node);
    pv_list_append(&resource->attachments, &attachment->resource_node);
    gpu->attachment_count++;
    context->resource_count++;
    pv_blob_attached(gpu, resource, context);
    return PV_RESP_OK_NODATA;
}

uint32_t pv_gpu_context_detach(struct pv_gpu *gpu, struct pv_gpu_request *request)
{
    struct pv_gpu_context *context;
    struct pv_gpu_resource *resource;
    uint32_t result = find_ends(gpu, &request->wire.resource, &context, &resource);
    if (result != PV_RESP_OK_NODATA)
        return result;
    struct pv_attachment *attachment = find_attachment(context, resource);
    if (!attachment) { /* Linux: of a context that it made after the process opened the resource */
        pv_debug("resource %u to be detached is not attached to %s", resource->id,
                 pv_gpu_context_label(context));
        return PV_RESP_OK_NODATA;
    }
    remove_attachment(attachment);
    pv_blob_detached(gpu, resource, context);
    return PV_RESP_OK_NODATA;
}

void pv_gpu_context_detach_all(struct pv_gpu *gpu, struct pv_gpu_resource *resource)
{
    pv_list_for_each(node, &resource->attachments)
        remove_attachment(pv_list_entry(node, struct pv_attachment, resource_node));
}

/* ---- submit ---- */

static uint32_t check_submit(struct pv_gpu *gpu, const struct pv_gpu_request *request,
                             const struct pv_gpu_context *context)
{
    const struct pv_wire_submit_3d *wire = &request->wire.submit_3d;
    if (!context)
        return pv_gpu_refuse(gpu, PV_RESP_ERR_INVALID_CONTEXT_ID,
                             "commands for context %u: there is none", wire->header.ctx_id);
    if (wire->size > request->size - sizeof(*wire) || wire->size % 4 != 0)
        return pv_gpu_refuse(gpu, PV_RESP_ERR_INVALID_PARAMETER,
                             "%s: %u bytes of commands in a request of %zu",
                             pv_gpu_context_label(context), wire->size, request->size);
    if (wire->header.flags & PV_FLAG_INFO_RING_IDX && wire->header.ring_idx >= PV_RING_COUNT)
        return pv_gpu_refuse(gpu, PV_RESP_ERR_INVALID_PARAMETER, "%s: ring_idx %u of %u",
                             pv_gpu_context_label(context), wire->header.ring_idx, PV_RING_COUNT);
    if (context->capset == 0 && wire->size > 0)
        return pv_gpu_refuse(gpu, PV_RESP_ERR_INVALID_PARAMETER,
                             "%s has no capset and takes no commands",
                             pv_gpu_context_label(context));
    if (context->state != PV_CONTEXT_LIVE)
        return pv_gpu_refuse(gpu, PV_RESP_ERR_UNSPEC, "%s has failed and takes no commands",
                             pv_gpu_context_label(context));
    return PV_RESP_OK_NODATA;
}

/* The fence of a submission: answered when the worker says so. */
static uint32_t send_fence(struct pv_gpu *gpu, struct pv_gpu_request *request,
                           struct pv_gpu_context *context)
{
    const struct pv_wire_header *header = &request->wire.header;
    struct pv_answer *answer = pv_answer_defer(gpu, request);
    if (!answer)
        return PV_RESP_ERR_OUT_OF_MEMORY;
    answer->cookie = ++gpu->next_cookie;
    answer->since_ns = pv_now_ns();
    answer->context = context;
    pv_list_append(&context->fences, &answer->context_node);
    context->fence_count++;
    const struct pv_link_message message = {
        .type = PV_LINK_FENCE,
        .ring_idx = header->flags & PV_FLAG_INFO_RING_IDX ? header->ring_idx : 0,
        .cookie = answer->cookie,
    };
    pv_worker_send(context, &message, NULL, -1); /* on failure the context's fences are answered */
    return 0;
}

uint32_t pv_gpu_context_submit(struct pv_gpu *gpu, struct pv_gpu_request *request)
{
    const struct pv_wire_submit_3d *wire = &request->wire.submit_3d;
    struct pv_gpu_context *context = pv_gpu_context_find(gpu, wire->header.ctx_id);
    uint32_t result = check_submit(gpu, request, context);
    if (result != PV_RESP_OK_NODATA || context->capset == 0)
        return result;
    if (wire->size > 0) {
        const struct pv_link_message message = {
            .type = PV_LINK_SUBMIT,
            .payload_size = wire->size,
            .ring_idx = wire->header.flags & PV_FLAG_INFO_RING_IDX ? wire->header.ring_idx : 0,
        };
        if (pv_worker_send(context, &message, request->bytes + sizeof(*wire), -1) < 0)
            return PV_RESP_ERR_UNSPEC;
    }
    return wire->header.flags & PV_FLAG_FENCE ? send_fence(gpu, request, context)
                                              : PV_RESP_OK_NODATA;
}
