#define PV_LOG_MODULE "transport"
/* Rings, reply streams and sequence numbers: the commands that move other commands. */
#include "util/log.h"
#include "venus/context_internal.h"
#include "venus/ring.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Most streams that one vkExecuteCommandStreamsMESA may name. */
#define STREAMS_MAX 4096u

/* Larger copies of indirect streams are given back at once: Mesa's are of up to 8 MiB. */
#define STREAM_COPY_KEEP (8u * 1024u * 1024u)

static bool require_context_stream(struct pv_stream *s)
{
    if (s->ring)
        pv_stream_fail(s, "belongs on the context stream, not on a ring");
    return !s->ring;
}

/* ---- replies ----------------------------------------------------------------------------------
 */

void pv_do_vkSetReplyCommandStreamMESA(struct pv_stream *s,
                                       struct pv_args_vkSetReplyCommandStreamMESA *a)
{
    const VkCommandStreamDescriptionMESA *stream = a->pStream;
    struct pv_resource *resource = s->reply;
    if (!resource || resource->id != stream->resourceId || atomic_load(&resource->removed)) {
        resource = pv_resources_get(s->ctx->resources, stream->resourceId);
        pv_resource_unref(s->reply);
        s->reply = resource;
    }
    if (!resource || !resource->map) {
        pv_stream_fail(s, "resource %u is no shared memory", stream->resourceId);
    } else if (!pv_resource_has_range(resource, stream->offset, stream->size)) {
        pv_stream_fail(s, "[%zu, +%zu) leaves resource %u of %llu bytes", stream->offset,
                       stream->size, resource->id, (unsigned long long)resource->size);
    } else {
        s->reply_offset = stream->offset;
        s->reply_size = stream->size;
        s->reply_position = 0;
    }
}

void pv_do_vkSeekReplyCommandStreamMESA(struct pv_stream *s,
                                        struct pv_args_vkSeekReplyCommandStreamMESA *a)
{
    if (!s->reply || a->position > s->reply_size)
        pv_stream_fail(s, "position %zu is outside the reply stream", a->position);
    else
        s->reply_position = a->position;
}

/* ---- indirect streams -------------------------------------------------------------------------
 */

static bool copy_stream(struct pv_stream *s, const VkCommandStreamDescriptionMESA *stream)
{
    struct pv_resource *resource = pv_resources_get(s->ctx->resources, stream->resourceId);
    bool ok = false;
    if (!resource || !pv_resource_has_range(resource, stream->offset, stream->size)) {
        pv_stream_fail(s, "stream [%zu, +%zu) of resource %u is not in shared memory",
                       stream->offset, stream->size, stream->resourceId);
    } else if (stream->size % 4 != 0) {
        pv_stream_fail(s, "stream of %zu bytes, which is no multiple of 4", stream->size);
    } else if (stream->size > PV_STREAM_COPY_MAX) {
        pv_stream_fail(s, "stream of %zu bytes is too long", stream->size);
    } else {
        ok = true;
    }
    if (ok && stream->size > s->copy_size) {
        uint8_t *copy = realloc(s->copy, stream->size);
        ok = copy != NULL;
        if (copy) {
            s->copy = copy;
            s->copy_size = stream->size;
        } else {
            pv_stream_fail(s, "no memory for a stream of %zu bytes", stream->size);
        }
    }
    if (ok)
        memcpy(s->copy, resource->map + stream->offset, stream->size);
    pv_resource_unref(resource);
    return ok;
}

/* Streams run in order, as if inline, so the order that dependencies ask for holds anyway. */
void pv_do_vkExecuteCommandStreamsMESA(struct pv_stream *s,
                                       struct pv_args_vkExecuteCommandStreamsMESA *a)
{
    if (s->nested || a->streamCount == 0 || a->streamCount > STREAMS_MAX) {
        pv_stream_fail(s, s->nested ? "streams may not nest" : "%u streams", a->streamCount);
        return;
    }
    /* the commands inside reset the arena that holds our own arguments */
    VkCommandStreamDescriptionMESA one, *streams = &one;
    size_t *positions = NULL;
    uint32_t count = a->streamCount;
    bool positioned = a->pReplyPositions != NULL;
    if (count > 1 || positioned) {
        streams = malloc(count * (sizeof(*streams) + sizeof(*positions)));
        if (!streams) {
            pv_stream_fail(s, "no memory for %u streams", count);
            return;
        }
        positions = (size_t *)(void *)(streams + count);
        if (positioned)
            memcpy(positions, a->pReplyPositions, count * sizeof(*positions));
    }
    memcpy(streams, a->pStreams, count * sizeof(*streams));
    s->nested = true;
    for (uint32_t i = 0; i < count && !pv_context_failed(s->ctx); i++) {
        if (positioned && (!s->reply || positions[i] > s->reply_size)) {
            pv_stream_fail(s, "position %zu is outside the reply stream", positions[i]);
            break;
        }
        if (positioned)
            s->reply_position = positions[i];
        if (streams[i].size > 0 && copy_stream(s, &streams[i]))
            pv_stream_run(s, s->copy, streams[i].size, NULL);
    }
    s->nested = false;
    if (s->copy_size > STREAM_COPY_KEEP) {
        free(s->copy);
        s->copy = NULL;
        s->copy_size = 0;
    }
    if (streams != &one)
        free(streams);
    if (pv_context_failed(s->ctx))
        pv_decoder_fail(&s->dec, "the context has failed", 0);
}

/* ---- rings ------------------------------------------------------------------------------------
 */

void pv_do_vkCreateRingMESA(struct pv_stream *s, struct pv_args_vkCreateRingMESA *a)
{
    if (!require_context_stream(s))
        return;
    if (pv_context_find_ring(s->ctx, a->ring)) {
        pv_stream_fail(s, "ring 0x%llx exists", (unsigned long long)a->ring);
        return;
    }
    struct pv_ring *ring = NULL;
    const char *why = NULL;
    int ret = pv_ring_create(s->ctx, a->ring, a->pCreateInfo, &ring, &why);
    if (ret < 0) {
        pv_stream_fail(s, "ring 0x%llx: %s", (unsigned long long)a->ring,
                       why ? why : strerror(-ret));
        return;
    }
    if (pv_context_add_ring(s->ctx, ring) < 0) {
        pv_ring_destroy(ring);
        pv_stream_fail(s, "more than %u rings", PV_CONTEXT_RINGS_MAX);
    }
}

static struct pv_ring *find_ring(struct pv_stream *s, uint64_t id)
{
    if (!require_context_stream(s))
        return NULL;
    struct pv_ring *ring = pv_context_find_ring(s->ctx, id);
    if (!ring)
        pv_stream_fail(s, "ring 0x%llx does not exist", (unsigned long long)id);
    return ring;
}

void pv_do_vkDestroyRingMESA(struct pv_stream *s, struct pv_args_vkDestroyRingMESA *a)
{
    struct pv_ring *ring = find_ring(s, a->ring);
    if (!ring)
        return;
    /* joined before it leaves the table: until then it may fail the context and must be poisoned */
    pv_ring_finish(ring);
    pv_context_remove_ring(s->ctx, ring);
    pv_ring_destroy(ring);
}

void pv_do_vkNotifyRingMESA(struct pv_stream *s, struct pv_args_vkNotifyRingMESA *a)
{
    struct pv_ring *ring = find_ring(s, a->ring);
    if (ring)
        pv_ring_notify(ring);
}

void pv_do_vkWriteRingExtraMESA(struct pv_stream *s, struct pv_args_vkWriteRingExtraMESA *a)
{
    struct pv_ring *ring = find_ring(s, a->ring);
    if (ring && pv_ring_write_extra(ring, a->offset, a->value) < 0)
        pv_stream_fail(s, "offset %zu is outside the extra region", a->offset);
}

void pv_do_vkSubmitVirtqueueSeqnoMESA(struct pv_stream *s,
                                      struct pv_args_vkSubmitVirtqueueSeqnoMESA *a)
{
    struct pv_ring *ring = find_ring(s, a->ring);
    if (!ring)
        return;
    pv_trace("ring 0x%llx: virtqueue seqno is %llu", (unsigned long long)a->ring,
             (unsigned long long)a->seqno);
    pv_ring_set_virtqueue_seqno(ring, a->seqno);
}

void pv_do_vkWaitVirtqueueSeqnoMESA(struct pv_stream *s, struct pv_args_vkWaitVirtqueueSeqnoMESA *a)
{
    if (!s->ring) {
        pv_stream_fail(s, "belongs on a ring, not on the context stream");
        return;
    }
    pv_trace("ring 0x%llx waits for virtqueue seqno %llu", (unsigned long long)pv_ring_id(s->ring),
             (unsigned long long)a->seqno);
    uint64_t begin = pv_stream_wait_begin(s);
    pv_ring_wait_virtqueue_seqno(s->ring, a->seqno);
    pv_stream_wait_end(s, begin);
}

void pv_do_vkWaitRingSeqnoMESA(struct pv_stream *s, struct pv_args_vkWaitRingSeqnoMESA *a)
{
    struct pv_ring *ring = find_ring(s, a->ring);
    if (!ring)
        return;
    pv_trace("waiting for ring 0x%llx to reach 0x%llx", (unsigned long long)a->ring,
             (unsigned long long)a->seqno);
    uint64_t begin = pv_stream_wait_begin(s);
    int ret = pv_ring_wait_seqno(ring, (uint32_t)a->seqno);
    pv_stream_wait_end(s, begin);
    if (ret == -EINVAL)
        pv_stream_fail(s, "ring 0x%llx: seqno 0x%llx is beyond the tail",
                       (unsigned long long)a->ring, (unsigned long long)a->seqno);
}
