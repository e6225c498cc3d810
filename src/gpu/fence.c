/* Answers: when a request is answered, and in which order.
 *
 * A request with FENCE belongs to a timeline: the device's global one, or one per context and
 * ring_idx. Within a timeline answers leave in the order of the requests, each when its work and
 * that of all before it is done; Linux takes an answer as a sign that those before it are done.
 * Without FENCE an answer leaves when the work is taken over. The work of a flush with FENCE is
 * done when the display has taken the frame (later.c).
 */
#include "gpu/device.h"

#include <stdlib.h>
#include <string.h>

#define PV_LOG_MODULE "fence"

static struct pv_list *timeline_of(struct pv_gpu *gpu, const struct pv_wire_header *request)
{
    if (!(request->flags & PV_FLAG_FENCE))
        return NULL;
    if (!(request->flags & PV_FLAG_INFO_RING_IDX))
        return &gpu->global_timeline;
    struct pv_gpu_context *context = pv_gpu_context_find(gpu, request->ctx_id);
    if (!context || request->ring_idx >= PV_RING_COUNT)
        return NULL; /* names no timeline; it can only be refused */
    return &context->timelines[request->ring_idx];
}

static void send_answer(struct pv_gpu *gpu, void *token, const struct pv_wire_header *request,
                        uint32_t type, union pv_wire_reply *reply, size_t size)
{
    reply->header = (struct pv_wire_header){.type = type};
    if (request->flags & PV_FLAG_FENCE) {
        reply->header.flags = request->flags & (PV_FLAG_FENCE | PV_FLAG_INFO_RING_IDX);
        reply->header.fence_id = request->fence_id;
        reply->header.ctx_id = request->ctx_id;
        reply->header.ring_idx = request->ring_idx;
        gpu->stats.fences++;
    }
    if (type >= PV_RESP_ERR_UNSPEC) {
        gpu->stats.errors++;
        size = 0;
    }
    if (size < sizeof(reply->header))
        size = sizeof(reply->header);
    gpu->params.transport->answer(gpu->params.transport_data, token, reply, size);
}

static void free_answer(struct pv_answer *answer)
{
    pv_list_remove(&answer->node);
    pv_list_remove(&answer->timeline_node);
    pv_list_remove(&answer->context_node);
    pv_list_remove(&answer->flip_node);
    free(answer->reply);
    free(answer);
}

static void send_deferred(struct pv_gpu *gpu, struct pv_answer *answer)
{
    union pv_wire_reply bare;
    send_answer(gpu, answer->token, &answer->request, answer->type,
                answer->reply ? answer->reply : &bare, answer->reply_size);
    free_answer(answer);
}

/* Send what is done at the head of a timeline. */
static void advance(struct pv_gpu *gpu, struct pv_list *timeline)
{
    while (!pv_list_empty(timeline)) {
        struct pv_answer *first = pv_list_entry(timeline->next, struct pv_answer, timeline_node);
        if (!first->done)
            return;
        send_deferred(gpu, first);
    }
}

struct pv_answer *pv_answer_defer(struct pv_gpu *gpu, const struct pv_gpu_request *request)
{
    struct pv_answer *answer = calloc(1, sizeof(*answer));
    if (!answer)
        return NULL;
    answer->token = request->token;
    answer->request = request->wire.header;
    pv_list_init(&answer->context_node);
    pv_list_init(&answer->timeline_node);
    pv_list_init(&answer->flip_node);
    pv_list_append(&gpu->answers, &answer->node);
    answer->timeline = timeline_of(gpu, &answer->request);
    if (answer->timeline)
        pv_list_append(answer->timeline, &answer->timeline_node);
    return answer;
}

void pv_answer_finish(struct pv_gpu *gpu, struct pv_answer *answer, uint32_t type)
{
    answer->done = true;
    answer->type = type;
    if (answer->context) {
        answer->context->fence_count--;
        answer->context = NULL;
        pv_list_remove(&answer->context_node);
    }
    if (answer->timeline)
        advance(gpu, answer->timeline);
    else
        send_deferred(gpu, answer);
}

static bool copy_reply(struct pv_answer *answer, const union pv_wire_reply *reply, size_t size)
{
    answer->reply = malloc(sizeof(*reply));
    if (!answer->reply)
        return false;
    memcpy(answer->reply, reply, sizeof(*reply));
    answer->reply_size = size;
    return true;
}

void pv_answer_finish_map(struct pv_gpu *gpu, struct pv_answer *answer)
{
    union pv_wire_reply reply = {.map_info.map_info = PV_MAP_INFO_CACHED};
    bool ok = copy_reply(answer, &reply, sizeof(reply.map_info));
    pv_answer_finish(gpu, answer, ok ? PV_RESP_OK_MAP_INFO : PV_RESP_ERR_OUT_OF_MEMORY);
}

void pv_answer_now(struct pv_gpu *gpu, const struct pv_gpu_request *request, uint32_t type)
{
    const struct pv_list *timeline = timeline_of(gpu, &request->wire.header);
    if (!timeline || pv_list_empty(timeline)) {
        union pv_wire_reply reply = request->reply;
        send_answer(gpu, request->token, &request->wire.header, type, &reply, request->reply_size);
        return;
    }
    struct pv_answer *answer = pv_answer_defer(gpu, request);
    if (!answer) { /* out of turn is better than never */
        union pv_wire_reply bare;
        send_answer(gpu, request->token, &request->wire.header, PV_RESP_ERR_OUT_OF_MEMORY, &bare,
                    0);
        return;
    }
    if (request->reply_size > 0 && !copy_reply(answer, &request->reply, request->reply_size))
        type = PV_RESP_ERR_OUT_OF_MEMORY;
    pv_answer_finish(gpu, answer, type);
}

void pv_answer_orphan(struct pv_gpu *gpu, struct pv_list *timeline)
{
    pv_list_for_each(node, timeline)
    {
        struct pv_answer *answer = pv_list_entry(node, struct pv_answer, timeline_node);
        pv_list_remove(&answer->timeline_node);
        answer->timeline = NULL;
        if (answer->done)
            send_deferred(gpu, answer);
    }
}

void pv_answer_drop_all(struct pv_gpu *gpu)
{
    pv_list_for_each(node, &gpu->answers)
    {
        struct pv_answer *answer = pv_list_entry(node, struct pv_answer, node);
        if (answer->context)
            answer->context->fence_count--;
        free_answer(answer);
    }
}
