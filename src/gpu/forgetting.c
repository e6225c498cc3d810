/* Memory that a worker has been told to forget, until it says FORGOTTEN.
 *
 * A released id can be in use again before its first owner has been forgotten. So holdings of one
 * id and place form a group, and go together when as many answers have come as the group has
 * members.
 *
 * A guest may release a million resources at once, so that groups are looked up in a tree; and a
 * worker that has been taken over may never answer, so that there is a limit.
 */
#include "gpu/device.h"

#define PV_LOG_MODULE "context"

/* Groups share a key only by chance. Any number but UINT64_MAX, which has no end behind it. */
static uint64_t key_of(uint32_t resource_id, uint64_t offset)
{
    uint64_t key = (offset ^ (uint64_t)resource_id << 32) * UINT64_C(0x9e3779b97f4a7c15);
    return (key ^ (key >> 29)) & INT64_MAX;
}

static struct pv_holding *holding_of(struct pv_interval *key)
{
    return pv_list_entry(key, struct pv_holding, key);
}

struct wanted {
    uint32_t resource_id;
    uint64_t offset;
    struct pv_holding *found;
};

static bool is_wanted(struct pv_interval *key, void *data)
{
    struct wanted *wanted = data;
    struct pv_holding *holding = holding_of(key);
    if (holding->resource_id != wanted->resource_id || holding->offset != wanted->offset)
        return false;
    wanted->found = holding;
    return true;
}

/* The first of a group, or NULL. */
static struct pv_holding *find_group(const struct pv_gpu_context *context, uint32_t resource_id,
                                     uint64_t offset)
{
    struct wanted wanted = {.resource_id = resource_id, .offset = offset};
    uint64_t key = key_of(resource_id, offset);
    pv_intervals_visit(&context->groups, key, key + 1, is_wanted, &wanted);
    return wanted.found;
}

void pv_forgetting_add(struct pv_holding *holding)
{
    struct pv_gpu_context *context = holding->context;
    struct pv_holding *first = find_group(context, holding->resource_id, holding->offset);
    pv_list_append(&context->forgetting, &holding->context_node);
    context->forgetting_count++;
    if (first) {
        pv_list_append(&first->group, &holding->group);
        first->members++;
        return;
    }
    holding->members = 1;
    holding->answers = 0;
    holding->key.start = key_of(holding->resource_id, holding->offset);
    holding->key.end = holding->key.start + 1;
    pv_intervals_insert(&context->groups, &holding->key);
}

bool pv_forgetting_is_full(const struct pv_gpu_context *context)
{
    return context->forgetting_count >= PV_GPU_FORGETTING_MAX;
}

bool pv_forgetting_answered(struct pv_gpu_context *context, uint32_t resource_id, uint64_t offset)
{
    struct pv_holding *first = find_group(context, resource_id, offset);
    if (!first || ++first->answers < first->members)
        return false;
    context->forgetting_count -= first->members;
    pv_intervals_remove(&context->groups, &first->key);
    while (!pv_list_empty(&first->group))
        pv_holding_drop(context->gpu, pv_list_entry(first->group.next, struct pv_holding, group));
    pv_holding_drop(context->gpu, first);
    return true;
}

void pv_forgetting_finish(struct pv_gpu_context *context)
{
    pv_list_for_each(node, &context->forgetting)
        pv_holding_drop(context->gpu, pv_list_entry(node, struct pv_holding, context_node));
    context->forgetting_count = 0;
    pv_intervals_init(&context->groups);
}
