/* Blobs: memory that is not made of 2D pixels.
 *
 *   guest blob   pages of the guest: a list of addresses
 *   host blob    memory of a worker. With an arena it lies there: where the guest maps it, or in
 * the upper half if the guest cannot. Else it is the worker's own and comes as an fd.
 *
 * The worker of a mappable blob in the arena hears of it at MAP_BLOB, when its place is known; the
 * guest's kernel sends that right behind CREATE_BLOB. UNMAP_BLOB gives up the place and with it the
 * contents: Linux unmaps only what it is about to release.
 *
 * Shared memory (blob id 0) may be named in a ring as soon as it is mapped, and a ring's thread in
 * the worker is faster than a message: such a MAP_BLOB is answered when the worker says that it has
 * the memory. Before it imports device memory, Mesa waits for the context stream by itself.
 */
#include "gpu/device.h"
#include "util/os.h"
#include "worker/link.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#define PV_LOG_MODULE "blob"

#define BLOB_FLAGS (PV_WIRE_BLOB_MAPPABLE | PV_WIRE_BLOB_SHAREABLE | PV_WIRE_BLOB_CROSS_DEVICE)

/* A map or unmap that the transport has not finished (dynamic window). */
struct window_op {
    struct pv_list node;
    uint64_t id;
    bool is_map;
    struct pv_answer *answer;         /* NULL: nobody waits */
    struct pv_gpu_resource *resource; /* of a map; NULL: gone meanwhile */
};

static bool in_arena(const struct pv_gpu *gpu)
{
    return gpu->params.window == PV_GPU_WINDOW_ARENA;
}

/* MAP_BLOB has to wait until the worker knows of it, if that is to be expected. */
static bool must_be_known(const struct pv_gpu_resource *resource)
{
    return resource->blob_id == 0 && resource->creator->state == PV_CONTEXT_LIVE &&
           !resource->creator->hung;
}

static bool is_mapped(const struct pv_gpu_resource *resource)
{
    return resource->range && resource->blob_flags & PV_WIRE_BLOB_MAPPABLE;
}

/* ---- who knows of a blob ---- */

static struct pv_holding *find_holding(const struct pv_gpu_resource *resource,
                                       const struct pv_gpu_context *context)
{
    pv_list_for_each(node, &resource->holdings)
    {
        struct pv_holding *holding = pv_list_entry(node, struct pv_holding, resource_node);
        if (holding->context == context)
            return holding;
    }
    return NULL;
}

/* Send CREATE_BLOB or IMPORT and note that the worker knows. An import of a blob that has failed
 * carries nothing, so that nobody there waits for it. */
static int tell(struct pv_gpu *gpu, struct pv_gpu_context *context,
                struct pv_gpu_resource *resource, uint32_t type)
{
    struct pv_holding *holding = calloc(1, sizeof(*holding));
    if (!holding)
        return -ENOMEM;
    pv_list_init(&holding->group);
    holding->context = context;
    holding->resource_id = resource->id;
    holding->offset = PV_LINK_OWN_MEMORY;
    if (in_arena(gpu) && !resource->blob_failed) {
        holding->offset = resource->range->interval.start;
        pv_window_hold(resource->range, context, &holding->hold);
    }
    pv_list_append(&context->holdings, &holding->context_node);
    pv_list_append(&resource->holdings, &holding->resource_node);

    const struct pv_link_message message = {
        .type = type,
        .res_id = resource->id,
        .flags = resource->blob_flags,
        .result = resource->blob_failed ? -ENOMEM : 0,
        .blob_id = resource->blob_id,
        .size = resource->size,
        .offset = holding->offset,
    };
    /* From here on the holding ends with FORGOTTEN or the worker, also when sending fails. */
    return pv_worker_send(context, &message, NULL, type == PV_LINK_IMPORT ? resource->fd : -1);
}

static void forget(struct pv_gpu *gpu, struct pv_holding *holding)
{
    struct pv_gpu_context *context = holding->context;
    pv_worker_drop_rings(context, holding);
    pv_list_remove(&holding->resource_node);
    pv_list_remove(&holding->context_node);
    pv_forgetting_add(holding);
    if (pv_forgetting_is_full(context))
        pv_worker_fail(context, 0, "its worker does not let go of what the guest has released");
    const struct pv_link_message message = {
        .type = PV_LINK_FORGET,
        .res_id = holding->resource_id,
        .offset = holding->offset,
    };
    pv_worker_send(context, &message, NULL, -1); /* else it ends with the worker */
}

/* A worker that has gone is found out here, and what its context has may be taken from it, even
 * this resource: the list may end early. */
static void forget_all(struct pv_gpu *gpu, struct pv_gpu_resource *resource)
{
    while (!pv_list_empty(&resource->holdings))
        forget(gpu, pv_list_entry(resource->holdings.next, struct pv_holding, resource_node));
}

void pv_holding_drop(struct pv_gpu *gpu, struct pv_holding *holding)
{
    pv_list_remove(&holding->resource_node);
    pv_list_remove(&holding->context_node);
    pv_list_remove(&holding->group);
    if (holding->hold.range)
        pv_window_drop(gpu->window, &holding->hold);
    free(holding);
}

/* Whether it has memory, or never will. */
static bool is_decided(const struct pv_gpu *gpu, const struct pv_gpu_resource *resource)
{
    bool has_memory = in_arena(gpu) ? resource->range != NULL : resource->fd >= 0;
    return has_memory || resource->blob_failed;
}

void pv_blob_attached(struct pv_gpu *gpu, struct pv_gpu_resource *resource,
                      struct pv_gpu_context *context)
{
    if (resource->kind != PV_RESOURCE_HOST_BLOB || !context->link ||
        context->state != PV_CONTEXT_LIVE || !is_decided(gpu, resource) ||
        find_holding(resource, context))
        return; /* not for a worker; not yet known; or the worker knows */
    if (tell(gpu, context, resource, PV_LINK_IMPORT) == -ENOMEM)
        pv_worker_fail(context, 0, "no memory to pass resource %u on", resource->id);
}

/* The memory is there or will not be: all contexts that wait for it but its creator, which knows.
 */
static void import_everywhere(struct pv_gpu *gpu, struct pv_gpu_resource *resource)
{
    pv_list_for_each(node, &resource->attachments)
    {
        struct pv_attachment *attachment = pv_list_entry(node, struct pv_attachment, resource_node);
        pv_blob_attached(gpu, resource, attachment->context);
    }
}

void pv_blob_detached(struct pv_gpu *gpu, struct pv_gpu_resource *resource,
                      struct pv_gpu_context *context)
{
    struct pv_holding *holding = find_holding(resource, context);
    if (holding)
        forget(gpu, holding);
}

/* ---- create ---- */

static uint32_t create_guest(struct pv_gpu *gpu, struct pv_gpu_request *request)
{
    const struct pv_wire_create_blob *wire = &request->wire.create_blob;
    struct pv_backing backing;
    struct pv_gpu_resource *resource;
    uint32_t result = pv_backing_parse(gpu, request, sizeof(*wire), wire->nr_entries, &backing);
    if (result != PV_RESP_OK_NODATA)
        return result;
    if (backing.size < wire->size)
        result = pv_gpu_refuse(gpu, PV_RESP_ERR_INVALID_PARAMETER,
                               "resource %u: entries of %llu bytes for a blob of %llu",
                               wire->resource_id, (unsigned long long)backing.size,
                               (unsigned long long)wire->size);
    else
        result = pv_gpu_resource_new(gpu, wire->resource_id, PV_RESOURCE_GUEST_BLOB, &resource);
    if (result != PV_RESP_OK_NODATA) {
        pv_backing_finish(gpu, &backing);
        return result;
    }
    resource->backing = backing;
    resource->has_backing = true;
    resource->size = wire->size;
    resource->blob_flags = wire->blob_flags;
    return result;
}

/* Give a new host blob what can be given now. 0, or a negative errno. */
static int make_host_memory(struct pv_gpu *gpu, struct pv_gpu_resource *resource)
{
    if (in_arena(gpu)) {
        if (resource->blob_flags & PV_WIRE_BLOB_MAPPABLE)
            return 0; /* at MAP_BLOB */
        int ret = pv_window_place(gpu->window, resource->size, &resource->range);
        if (ret < 0)
            return ret;
    }
    return tell(gpu, resource->creator, resource, PV_LINK_CREATE_BLOB);
}

static uint32_t check_host(struct pv_gpu *gpu, const struct pv_wire_create_blob *wire)
{
    const struct pv_gpu_context *context = pv_gpu_context_find(gpu, wire->header.ctx_id);
    if (!context)
        return pv_gpu_refuse(gpu, PV_RESP_ERR_INVALID_CONTEXT_ID,
                             "resource %u: there is no context %u to make its memory",
                             wire->resource_id, wire->header.ctx_id);
    if (context->capset == 0 || wire->nr_entries != 0)
        return pv_gpu_refuse(gpu, PV_RESP_ERR_INVALID_PARAMETER, "resource %u: %s",
                             wire->resource_id,
                             context->capset == 0 ? "a context without Venus cannot make its memory"
                                                  : "host memory has no backing entries");
    if (context->state != PV_CONTEXT_LIVE)
        return pv_gpu_refuse(gpu, PV_RESP_ERR_UNSPEC, "resource %u: %s has failed",
                             wire->resource_id, pv_gpu_context_label(context));
    if (wire->size > gpu->params.window_size)
        return pv_gpu_refuse(gpu, PV_RESP_ERR_OUT_OF_MEMORY,
                             "resource %u: a blob of %llu bytes, the window has %llu",
                             wire->resource_id, (unsigned long long)wire->size,
                             (unsigned long long)gpu->params.window_size);
    return PV_RESP_OK_NODATA;
}

static uint32_t create_host(struct pv_gpu *gpu, struct pv_gpu_request *request)
{
    const struct pv_wire_create_blob *wire = &request->wire.create_blob;
    struct pv_gpu_resource *resource;
    uint32_t result = check_host(gpu, wire);
    if (result == PV_RESP_OK_NODATA)
        result = pv_gpu_resource_new(gpu, wire->resource_id, PV_RESOURCE_HOST_BLOB, &resource);
    if (result != PV_RESP_OK_NODATA)
        return result;
    resource->size = pv_align_up(wire->size, pv_page_size());
    resource->blob_id = wire->blob_id;
    resource->blob_flags = wire->blob_flags;
    resource->creator = pv_gpu_context_find(gpu, wire->header.ctx_id);
    pv_list_append(&resource->creator->created, &resource->creator_node);

    int ret = make_host_memory(gpu, resource);
    if (ret == 0 && in_arena(gpu))
        return PV_RESP_OK_NODATA;
    if (ret == 0)
        resource->create_answer = pv_answer_defer(gpu, request);
    if (resource->create_answer)
        return 0;
    pv_gpu_resource_destroy(gpu, resource);
    return ret == -EPIPE ? PV_RESP_ERR_UNSPEC
                         : pv_gpu_refuse(gpu, PV_RESP_ERR_OUT_OF_MEMORY,
                                         "resource %u: no room for %llu bytes", wire->resource_id,
                                         (unsigned long long)wire->size);
}

uint32_t pv_blob_create(struct pv_gpu *gpu, struct pv_gpu_request *request)
{
    const struct pv_wire_create_blob *wire = &request->wire.create_blob;
    if (wire->size == 0 || wire->blob_flags & ~BLOB_FLAGS)
        return pv_gpu_refuse(gpu, PV_RESP_ERR_INVALID_PARAMETER,
                             "resource %u: a blob of %llu bytes with flags %#x", wire->resource_id,
                             (unsigned long long)wire->size, wire->blob_flags);
    switch (wire->blob_mem) {
    case PV_BLOB_MEM_GUEST:
        return create_guest(gpu, request);
    case PV_BLOB_MEM_HOST3D:
        return create_host(gpu, request);
    default:
        return pv_gpu_refuse(gpu, PV_RESP_ERR_INVALID_PARAMETER, "resource %u: blob memory %u %s",
                             wire->resource_id, wire->blob_mem,
                             wire->blob_mem == PV_BLOB_MEM_HOST3D_GUEST
                                 ? "(host and guest at once) is not supported"
                                 : "is not known");
    }
}

/* ---- map, arena ---- */

static uint32_t map_error(struct pv_gpu *gpu, const struct pv_gpu_resource *resource,
                          uint64_t offset, int ret)
{
    if (ret == -ENOMEM)
        return PV_RESP_ERR_OUT_OF_MEMORY;
    return pv_gpu_refuse(gpu, PV_RESP_ERR_INVALID_PARAMETER,
                         "resource %u cannot be mapped at %#llx: its %llu bytes %s", resource->id,
                         (unsigned long long)offset, (unsigned long long)resource->size,
                         ret == -EEXIST ? "overlap a mapping" : "are not pages inside the window");
}

/* The blob has its place: its workers may know. */
static uint32_t grant(struct pv_gpu *gpu, struct pv_gpu_resource *resource,
                      struct pv_window_range *range)
{
    resource->range = range;
    int ret = tell(gpu, resource->creator, resource, PV_LINK_CREATE_BLOB);
    if (ret == 0) {
        import_everywhere(gpu, resource);
        return PV_RESP_OK_MAP_INFO;
    }
    resource->range = NULL;
    forget_all(gpu, resource);
    pv_window_release(gpu->window, range);
    return ret == -ENOMEM ? PV_RESP_ERR_OUT_OF_MEMORY : PV_RESP_ERR_UNSPEC;
}

bool pv_blob_retry_map(struct pv_gpu *gpu, struct pv_held *held)
{
    struct pv_gpu_resource *resource = held->map;
    struct pv_answer *answer = held->answer;
    struct pv_window_range *range;
    int ret = pv_window_claim(gpu->window, held->context, held->offset, resource->size, &range);
    if (ret == -EBUSY)
        return false;
    resource->held_map = NULL;
    held->answer = NULL; /* ours now: should the context fail below, `held` goes with it */
    uint32_t result =
        ret < 0 ? map_error(gpu, resource, held->offset, ret) : grant(gpu, resource, range);
    if (answer && result == PV_RESP_OK_MAP_INFO && must_be_known(resource))
        resource->map_answer = answer;
    else if (answer && result == PV_RESP_OK_MAP_INFO)
        pv_answer_finish_map(gpu, answer);
    else if (answer)
        pv_answer_finish(gpu, answer, result);
    return true;
}

/* A blob in the arena loses its place, and with it its memory. */
static void leave_arena(struct pv_gpu *gpu, struct pv_gpu_resource *resource)
{
    struct pv_window_range *range = resource->range;
    pv_scanout_resource_gone(gpu, resource);
    resource->range = NULL;
    forget_all(gpu, resource);
    if (range)
        pv_window_release(gpu->window, range);
}

static uint32_t grant_at_once(struct pv_gpu *gpu, struct pv_gpu_request *request,
                              struct pv_gpu_resource *resource, struct pv_window_range *range)
{
    uint32_t result = grant(gpu, resource, range);
    if (result != PV_RESP_OK_MAP_INFO)
        return result;
    if (must_be_known(resource)) {
        resource->map_answer = pv_answer_defer(gpu, request);
        if (resource->map_answer)
            return 0;
        leave_arena(gpu, resource);
        return PV_RESP_ERR_OUT_OF_MEMORY;
    }
    request->reply.map_info.map_info = PV_MAP_INFO_CACHED;
    request->reply_size = sizeof(request->reply.map_info);
    return result;
}

static uint32_t map_in_arena(struct pv_gpu *gpu, struct pv_gpu_request *request,
                             struct pv_gpu_resource *resource)
{
    uint64_t offset = request->wire.map_blob.offset;
    struct pv_window_range *range;
    int ret = pv_window_claim(gpu->window, resource->creator, offset, resource->size, &range);
    if (ret == 0)
        return grant_at_once(gpu, request, resource, range);
    if (ret != -EBUSY)
        return map_error(gpu, resource, offset, ret);
    struct pv_answer *answer = pv_answer_defer(gpu, request);
    if (!answer)
        return PV_RESP_ERR_OUT_OF_MEMORY;
    if (pv_worker_hold_map(resource->creator, resource, offset, answer) < 0)
        pv_answer_finish(gpu, answer, PV_RESP_ERR_OUT_OF_MEMORY);
    return 0;
}

/* ---- map, dynamic ---- */

static struct window_op *start_op(struct pv_gpu *gpu, struct pv_answer *answer, bool is_map)
{
    struct window_op *op = calloc(1, sizeof(*op));
    if (!op)
        return NULL;
    op->id = ++gpu->next_op;
    op->is_map = is_map;
    op->answer = answer;
    pv_list_append(&gpu->window_ops, &op->node);
    return op;
}

/* Tell the transport to map; answers `answer` when it has. */
static void start_map(struct pv_gpu *gpu, struct pv_gpu_resource *resource,
                      struct pv_answer *answer)
{
    struct window_op *op = start_op(gpu, answer, true);
    if (!op) {
        pv_window_release(gpu->window, resource->range);
        resource->range = NULL;
        pv_answer_finish(gpu, answer, PV_RESP_ERR_OUT_OF_MEMORY);
        return;
    }
    op->resource = resource;
    gpu->stats.maps++;
    gpu->params.transport->map(gpu->params.transport_data, resource->range->interval.start,
                               resource->size, resource->fd, 0, op->id);
}

static uint32_t map_dynamic(struct pv_gpu *gpu, struct pv_gpu_request *request,
                            struct pv_gpu_resource *resource)
{
    uint64_t offset = request->wire.map_blob.offset;
    int ret = pv_window_claim(gpu->window, resource, offset, resource->size, &resource->range);
    if (ret < 0)
        return map_error(gpu, resource, offset, ret);
    struct pv_answer *answer = pv_answer_defer(gpu, request);
    if (!answer) {
        pv_window_release(gpu->window, resource->range);
        resource->range = NULL;
        return PV_RESP_ERR_OUT_OF_MEMORY;
    }
    if (resource->create_answer)
        resource->map_answer = answer; /* until its memory is there */
    else
        start_map(gpu, resource, answer);
    return 0;
}

/* End what start_map began. `answer` may be NULL; the transport works in order, so that the place
 * may be used again at once. */
static void end_map(struct pv_gpu *gpu, struct pv_gpu_resource *resource, struct pv_answer *answer)
{
    uint64_t start = resource->range->interval.start;
    pv_list_for_each(node, &gpu->window_ops)
    {
        struct window_op *op = pv_list_entry(node, struct window_op, node);
        if (op->resource == resource)
            op->resource = NULL;
    }
    pv_window_release(gpu->window, resource->range);
    resource->range = NULL;
    struct window_op *op = start_op(gpu, answer, false);
    gpu->params.transport->unmap(gpu->params.transport_data, start, resource->size,
                                 op ? op->id : 0);
    if (!op && answer)
        pv_answer_finish(gpu, answer, PV_RESP_OK_NODATA);
}

void pv_gpu_window_done(struct pv_gpu *gpu, uint64_t token, int result)
{
    struct window_op *op = NULL;
    pv_list_for_each(node, &gpu->window_ops)
    {
        op = pv_list_entry(node, struct window_op, node);
        if (op->id == token)
            break;
        op = NULL;
    }
    if (!op)
        return; /* of before a reset */
    pv_list_remove(&op->node);
    if (result < 0)
        pv_log_limited(PV_LOG_WARN, 5, "the VMM could not %s a blob: error %d",
                       op->is_map ? "map" : "unmap", -result);
    if (op->is_map && result < 0 && op->resource) {
        pv_window_release(gpu->window, op->resource->range);
        op->resource->range = NULL;
    }
    struct pv_answer *answer = op->answer;
    bool is_map = op->is_map;
    free(op);
    if (answer && result < 0)
        pv_answer_finish(gpu, answer,
                         result == -ENOMEM ? PV_RESP_ERR_OUT_OF_MEMORY : PV_RESP_ERR_UNSPEC);
    else if (answer && is_map)
        pv_answer_finish_map(gpu, answer);
    else if (answer)
        pv_answer_finish(gpu, answer, PV_RESP_OK_NODATA);
}

static void finish_pending(struct pv_gpu *gpu, struct pv_answer **answer, uint32_t type)
{
    struct pv_answer *pending = *answer;
    *answer = NULL;
    if (pending)
        pv_answer_finish(gpu, pending, type);
}

/* End a MAP_BLOB that waits for the worker. */
static void give_up_map(struct pv_gpu *gpu, struct pv_gpu_resource *resource, uint32_t type)
{
    struct pv_answer *answer = resource->map_answer;
    resource->map_answer = NULL; /* first: the worker may turn out to have gone */
    if (in_arena(gpu)) {
        leave_arena(gpu, resource);
    } else {
        pv_window_release(gpu->window, resource->range);
        resource->range = NULL;
    }
    pv_answer_finish(gpu, answer, type);
}

/* The worker could not make the memory, or will not any more. */
static void creation_failed(struct pv_gpu *gpu, struct pv_gpu_resource *resource, uint32_t type)
{
    if (!resource->create_answer && !resource->map_answer)
        return;
    resource->blob_failed = true;
    import_everywhere(gpu, resource);
    finish_pending(gpu, &resource->create_answer, type);
    if (resource->map_answer)
        give_up_map(gpu, resource, type);
}

static void finish_map(struct pv_gpu *gpu, struct pv_gpu_resource *resource)
{
    struct pv_answer *answer = resource->map_answer;
    resource->map_answer = NULL;
    pv_answer_finish_map(gpu, answer);
}

void pv_blob_done(struct pv_gpu *gpu, struct pv_gpu_context *context, uint32_t resource_id,
                  int result, int fd)
{
    struct pv_gpu_resource *resource = pv_gpu_resource_find(gpu, resource_id);
    if (!resource || resource->creator != context ||
        !(in_arena(gpu) ? resource->map_answer : resource->create_answer)) {
        if (fd >= 0)
            close(fd); /* the guest has released it meanwhile */
        return;
    }
    if (result > 0 || (result == 0 && !in_arena(gpu) && !pv_shared_has(fd, resource->size)))
        result = -EINVAL;
    if (result < 0) {
        if (fd >= 0)
            close(fd);
        creation_failed(gpu, resource,
                        pv_gpu_refuse(gpu,
                                      result == -ENOMEM ? PV_RESP_ERR_OUT_OF_MEMORY
                                                        : PV_RESP_ERR_INVALID_PARAMETER,
                                      "%s: no memory for resource %u of %llu bytes (error %d)",
                                      pv_gpu_context_label(context), resource_id,
                                      (unsigned long long)resource->size, -result));
        return;
    }
    if (in_arena(gpu)) {
        if (fd >= 0)
            close(fd);
        finish_map(gpu, resource);
        return;
    }
    resource->fd = fd;
    finish_pending(gpu, &resource->create_answer, PV_RESP_OK_NODATA);
    if (resource->map_answer) {
        struct pv_answer *answer = resource->map_answer;
        resource->map_answer = NULL;
        start_map(gpu, resource, answer);
    }
    import_everywhere(gpu, resource);
}

void pv_blob_context_died(struct pv_gpu *gpu, struct pv_gpu_context *context)
{
    pv_list_for_each(node, &context->created) creation_failed(
        gpu, pv_list_entry(node, struct pv_gpu_resource, creator_node), PV_RESP_ERR_UNSPEC);
}

bool pv_blob_is_awaited(const struct pv_gpu_context *context)
{
    pv_list_for_each(node, &context->created)
    {
        if (pv_list_entry(node, struct pv_gpu_resource, creator_node)->map_answer)
            return true;
    }
    return false;
}

void pv_blob_context_hangs(struct pv_gpu *gpu, struct pv_gpu_context *context)
{
    pv_list_for_each(node, &context->created)
    {
        struct pv_gpu_resource *resource =
            pv_list_entry(node, struct pv_gpu_resource, creator_node);
        if (in_arena(gpu) && resource->map_answer)
            finish_map(gpu, resource);
    }
}

/* ---- requests ---- */

uint32_t pv_blob_map(struct pv_gpu *gpu, struct pv_gpu_request *request)
{
    uint32_t id = request->wire.map_blob.resource_id;
    struct pv_gpu_resource *resource = pv_gpu_resource_find(gpu, id);
    if (!resource)
        return pv_gpu_refuse(gpu, PV_RESP_ERR_INVALID_RESOURCE_ID,
                             "resource %u cannot be mapped: there is none", id);
    const char *problem = NULL;
    if (resource->kind != PV_RESOURCE_HOST_BLOB || !(resource->blob_flags & PV_WIRE_BLOB_MAPPABLE))
        problem = "is not a mappable blob of the host";
    else if (resource->range || resource->held_map)
        problem = "is mapped already";
    else if (resource->blob_failed)
        problem = "has no memory";
    if (problem)
        return pv_gpu_refuse(gpu, PV_RESP_ERR_INVALID_PARAMETER, "resource %u %s", id, problem);
    if (!resource->creator || resource->creator->state != PV_CONTEXT_LIVE)
        return pv_gpu_refuse(gpu, PV_RESP_ERR_UNSPEC,
                             "resource %u cannot be mapped: its context is gone", id);
    return in_arena(gpu) ? map_in_arena(gpu, request, resource)
                         : map_dynamic(gpu, request, resource);
}

/* A MAP_BLOB that has not been answered is given up. */
static bool cancel_map(struct pv_gpu *gpu, struct pv_gpu_resource *resource)
{
    if (resource->held_map) {
        struct pv_held *held = resource->held_map;
        struct pv_answer *answer = held->answer;
        resource->held_map = NULL;
        pv_worker_cancel_map(held);
        finish_pending(gpu, &answer, PV_RESP_ERR_UNSPEC);
        return true;
    }
    if (!resource->map_answer)
        return false;
    if (in_arena(gpu)) { /* it has its place: mapped, and about to be unmapped */
        finish_map(gpu, resource);
        return false;
    }
    give_up_map(gpu, resource, PV_RESP_ERR_UNSPEC);
    return true;
}

uint32_t pv_blob_unmap(struct pv_gpu *gpu, struct pv_gpu_request *request)
{
    uint32_t id = request->wire.resource.resource_id;
    struct pv_gpu_resource *resource = pv_gpu_resource_find(gpu, id);
    if (!resource)
        return pv_gpu_refuse(gpu, PV_RESP_ERR_INVALID_RESOURCE_ID,
                             "resource %u cannot be unmapped: there is none", id);
    if (cancel_map(gpu, resource))
        return PV_RESP_OK_NODATA;
    if (!is_mapped(resource))
        return pv_gpu_refuse(gpu, PV_RESP_ERR_INVALID_PARAMETER, "resource %u is not mapped", id);
    if (in_arena(gpu)) {
        leave_arena(gpu, resource);
        return PV_RESP_OK_NODATA;
    }
    struct pv_answer *answer = pv_answer_defer(gpu, request);
    if (!answer)
        return PV_RESP_ERR_OUT_OF_MEMORY;
    end_map(gpu, resource, answer);
    return 0;
}

void pv_blob_finish(struct pv_gpu *gpu, struct pv_gpu_resource *resource)
{
    cancel_map(gpu, resource);
    finish_pending(gpu, &resource->create_answer, PV_RESP_ERR_UNSPEC);
    if (in_arena(gpu)) {
        leave_arena(gpu, resource);
    } else {
        forget_all(gpu, resource);
        if (resource->range)
            end_map(gpu, resource, NULL);
    }
    pv_list_remove(&resource->creator_node);
    pv_scanout_unmap(gpu, resource);
    if (resource->fd >= 0)
        close(resource->fd);
    resource->fd = -1;
}

void pv_blob_reset(struct pv_gpu *gpu)
{
    for (size_t i = 0; i < gpu->resources.room; i++) {
        struct pv_gpu_resource *resource = gpu->resources.slots[i].value;
        if (gpu->resources.slots[i].id == 0)
            continue;
        resource->create_answer = NULL;
        if (resource->held_map)
            resource->held_map->answer = NULL;
        /* the VMM's mappings have gone with the driver */
        if (!in_arena(gpu) && resource->range) {
            pv_window_release(gpu->window, resource->range);
            resource->range = NULL;
        }
        resource->map_answer = NULL;
    }
    pv_list_for_each(node, &gpu->window_ops)
    {
        pv_list_remove(node);
        free(pv_list_entry(node, struct window_op, node));
    }
}
