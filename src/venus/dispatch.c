#include "venus/dispatch.h"

#include "util/os.h"
#include "venus/context_internal.h"
#include "venus/ring.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

/* Bit 0 of the flags word; the others do not exist. */
#define COMMAND_WANTS_REPLY 1u

void pv_stream_init(struct pv_stream *s, struct pv_context *ctx, struct pv_ring *ring)
{
    memset(s, 0, sizeof(*s));
    s->ctx = ctx;
    s->ring = ring;
    pv_arena_init(&s->arena);
}

void pv_stream_finish(struct pv_stream *s)
{
    pv_resource_unref(s->reply);
    s->reply = NULL;
    free(s->copy);
    s->copy = NULL;
    pv_arena_finish(&s->arena);
}

/* Each stream has one writer: no locked instruction is needed for its counters. */
static void add(_Atomic uint64_t *counter, uint64_t value)
{
    uint64_t old = atomic_load_explicit(counter, memory_order_relaxed);
    atomic_store_explicit(counter, old + value, memory_order_relaxed);
}

static const char *command_name(uint32_t type)
{
    return type < PV_COMMAND_COUNT && pv_commands[type].name ? pv_commands[type].name : "?";
}

static void format_where(const struct pv_stream *s, char *out, size_t size)
{
    if (s->ring)
        snprintf(out, size, "ring 0x%llx", (unsigned long long)pv_ring_id(s->ring));
    else
        snprintf(out, size, "context stream");
}

void pv_stream_fail(struct pv_stream *s, const char *format, ...)
{
    char where[48], what[160];
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof(what), format, args);
    va_end(args);
    format_where(s, where, sizeof(where));
    pv_context_fail(s->ctx, "%s: %s: %s; context stopped", where, command_name(s->command), what);
    pv_decoder_fail(&s->dec, "the context has failed", 0);
}

void pv_stream_missing(struct pv_stream *s)
{
    pv_stream_fail(s, "its extension is not enabled on this device");
}

bool pv_stream_range(struct pv_stream *s, uint64_t first, uint64_t count, uint64_t limit)
{
    if (first <= limit && count <= limit - first)
        return true;
    pv_stream_fail(s, "[%llu, +%llu) is beyond the device's limit of %llu",
                   (unsigned long long)first, (unsigned long long)count, (unsigned long long)limit);
    return false;
}

void pv_stream_result(struct pv_stream *s, VkResult result)
{
    if (result < 0)
        add(&s->failures, 1);
}

/* ---- objects ----------------------------------------------------------------------------------
 */

struct pv_object **pv_stream_reserve(struct pv_stream *s, VkObjectType type,
                                     struct pv_object *parent, uint32_t count, const uint64_t *ids)
{
    struct pv_object **objects = pv_decode_room(&s->dec, count, sizeof(*objects), 0);
    if (!objects)
        return NULL;
    for (uint32_t i = 0; i < count; i++) {
        const char *why = NULL;
        objects[i] = pv_objects_add(s->ctx->objects, ids[i], type, parent, &why);
        if (objects[i])
            continue;
        pv_decoder_fail(&s->dec, why, ids[i]);
        while (i-- > 0)
            pv_objects_remove(s->ctx->objects, objects[i], NULL, NULL);
        return NULL;
    }
    return objects;
}

/* Pipelines and shaders are the objects of which some may be there although the call failed. */
static bool may_be_partial(const struct pv_object *object)
{
    return object->type == VK_OBJECT_TYPE_PIPELINE || object->type == VK_OBJECT_TYPE_SHADER_EXT;
}

static bool comes_in_arrays(const struct pv_object *object)
{
    return may_be_partial(object) || object->type == VK_OBJECT_TYPE_COMMAND_BUFFER ||
           object->type == VK_OBJECT_TYPE_DESCRIPTOR_SET;
}

void pv_stream_publish(struct pv_stream *s, struct pv_object **objects, uint32_t count,
                       VkResult result, const uint64_t *handles, uint64_t *ids, bool wants_reply)
{
    pv_stream_result(s, result);
    for (uint32_t i = 0; i < count; i++) {
        bool made = handles[i] != 0 && (result >= 0 || may_be_partial(objects[i]));
        pv_object_publish(objects[i], made ? handles[i] : 0);
        if (!wants_reply || (made && result >= 0))
            continue;
        /* the guest learns that it has no such object: in arrays by an id of 0 */
        if (comes_in_arrays(objects[i]))
            ids[i] = 0;
        pv_stream_destroy(s, objects[i]);
    }
}

static void free_memory(struct pv_context *ctx, struct pv_object *object, uint64_t handle)
{
    pthread_mutex_lock(&ctx->memory_lock);
    struct pv_memory *memory = object->memory;
    object->memory = NULL;
    pthread_mutex_unlock(&ctx->memory_lock);
    if (!memory)
        return;
    if (handle) {
        atomic_fetch_sub_explicit(&ctx->activity->memory_bytes, memory->size, memory_order_relaxed);
        struct pv_resource *resource = memory->owner;
        pv_layer_FreeMemory(object->dev, memory);
        pv_resource_unref(resource);
    }
    free(memory);
}

void pv_object_gone(void *data, struct pv_object *object)
{
    uint64_t handle = atomic_exchange(&object->handle, 0);
    if (object->type == VK_OBJECT_TYPE_DEVICE_MEMORY)
        free_memory(data, object, handle);
    else if (object->type == VK_OBJECT_TYPE_DEVICE)
        pv_context_destroy_device(object, handle);
    else if (handle && object->dev)
        pv_host_destroy_child(object, handle);
}

void pv_stream_destroy(struct pv_stream *s, struct pv_object *object)
{
    pv_objects_remove(s->ctx->objects, object, pv_object_gone, s->ctx);
}

/* ---- replies ----------------------------------------------------------------------------------
 */

struct pv_encoder *pv_stream_reply_begin(struct pv_stream *s)
{
    if (!s->reply) {
        pv_stream_fail(s, "wants a reply, but no reply stream is set");
        return NULL;
    }
    uint8_t *base = s->reply->map + s->reply_offset;
    s->enc.cur = base + s->reply_position;
    s->enc.end = base + s->reply_size;
    s->enc.overflow = false;
    return &s->enc;
}

void pv_stream_reply_end(struct pv_stream *s)
{
    uint8_t *base = s->reply->map + s->reply_offset;
    if (s->enc.overflow) {
        pv_stream_fail(s, "reply does not fit into the %zu bytes of its stream", s->reply_size);
        return;
    }
    size_t position = (size_t)(s->enc.cur - base);
    add(&s->replies, 1);
    add(&s->reply_bytes, position - s->reply_position);
    s->reply_position = position;
    if (s->ring)
        pv_ring_replied(s->ring);
}

/* ---- waits ------------------------------------------------------------------------------------
 */

uint64_t pv_stream_wait_begin(struct pv_stream *s)
{
    (void)s;
    return pv_now_ns();
}

static void raise_maximum(_Atomic uint64_t *maximum, uint64_t value)
{
    if (value > atomic_load_explicit(maximum, memory_order_relaxed))
        atomic_store_explicit(maximum, value, memory_order_relaxed);
}

void pv_stream_wait_end(struct pv_stream *s, uint64_t begin)
{
    uint64_t waited = pv_now_ns() - begin;
    s->waited_ns += waited;
    raise_maximum(&s->longest_wait_ns, waited);
}

bool pv_stream_stopping(struct pv_stream *s)
{
    return atomic_load_explicit(&s->ctx->stopping, memory_order_relaxed) ||
           pv_context_failed(s->ctx) ||
           (s->ring ? pv_ring_stopping(s->ring) : pv_context_abandoned(s->ctx));
}

/* ---- running ----------------------------------------------------------------------------------
 */

static void report_decoder_error(struct pv_stream *s)
{
    if (pv_context_failed(s->ctx))
        return;
    pv_stream_fail(s, "%s (0x%llx)", s->dec.error, (unsigned long long)s->dec.error_value);
}

static void run_command(struct pv_stream *s)
{
    uint32_t type = pv_decode_u32(&s->dec);
    uint32_t flags = pv_decode_u32(&s->dec);
    s->command = type;
    s->dec.device = NULL;
    s->dec.pool = NULL;
    s->dec.dropped = false;
    s->dec.ends_frame = false;
    if (s->dec.error)
        return;
    if (type >= PV_COMMAND_COUNT) {
        pv_decoder_fail(&s->dec, "unknown command", type);
    } else if (flags & ~COMMAND_WANTS_REPLY) {
        pv_decoder_fail(&s->dec, "unknown command flags", flags);
    } else if (!pv_commands[type].run) {
        const char *why = pv_commands[type].note;
        pv_stream_fail(s, "refused: %s", why ? why : "no such command");
    } else {
        pv_commands[type].run(s, flags & COMMAND_WANTS_REPLY);
    }
    pv_arena_reset(&s->arena);
}

/* Commands that may take long, or wait for something that the context thread must bring. */
static bool may_block(const uint8_t *command)
{
    uint32_t type;
    memcpy(&type, command, sizeof(type));
    switch (type) {
    case PV_COMMAND_vkWaitForFences:
    case PV_COMMAND_vkWaitSemaphores:
    case PV_COMMAND_vkGetQueryPoolResults:
    case PV_COMMAND_vkQueueWaitIdle:
    case PV_COMMAND_vkDeviceWaitIdle:
    case PV_COMMAND_vkWaitVirtqueueSeqnoMESA:
    case PV_COMMAND_vkResetFenceResourceMESA:
    case PV_COMMAND_vkWaitSemaphoreResourceMESA:
    case PV_COMMAND_vkExecuteCommandStreamsMESA: /* may hold any of these */
    case PV_COMMAND_vkCreateInstance:
    case PV_COMMAND_vkDestroyInstance:
    case PV_COMMAND_vkCreateDevice:
    case PV_COMMAND_vkDestroyDevice:
    case PV_COMMAND_vkAllocateMemory:
    case PV_COMMAND_vkGetMemoryResourcePropertiesMESA:
    case PV_COMMAND_vkFreeMemory:
    case PV_COMMAND_vkCreateGraphicsPipelines:
    case PV_COMMAND_vkCreateComputePipelines:
    case PV_COMMAND_vkCreateRayTracingPipelinesKHR:
    case PV_COMMAND_vkCopyImageToMemoryMESA:
    case PV_COMMAND_vkCopyMemoryToImageMESA:
        return true;
    default:
        return false;
    }
}

int pv_stream_run(struct pv_stream *s, const void *commands, size_t size, size_t *out_done)
{
    struct pv_decoder outer =
        s->dec; /* vkExecuteCommandStreamsMESA runs streams inside a command */
    uint64_t begin = pv_now_ns();
    uint64_t count = 0;
    if (!s->nested)
        s->waited_ns = 0;
    s->dec = (struct pv_decoder){
        .cur = commands,
        .end = (const uint8_t *)commands + size,
        .arena = &s->arena,
        .objects = s->ctx->objects,
    };
    while (s->dec.cur < s->dec.end && !pv_context_failed(s->ctx)) {
        if (may_block(s->dec.cur)) {
            if (s->assisting)
                break;
            if (s->ring && !s->nested)
                pv_ring_publish(s->ring, (size_t)(s->dec.cur - (const uint8_t *)commands));
        }
        run_command(s);
        if (s->dec.error) {
            report_decoder_error(s);
            break;
        }
        count++;
        if (s->ring && !s->nested)
            pv_ring_progress(s->ring, (size_t)(s->dec.cur - (const uint8_t *)commands));
    }
    if (out_done)
        *out_done = (size_t)(s->dec.cur - (const uint8_t *)commands);
    s->dec = outer;
    add(&s->commands, count);
    pv_activity_add_commands(s->ctx->activity, count);
    if (!s->nested) {
        add(&s->bytes, size);
        raise_maximum(&s->longest_stall_ns, pv_now_ns() - begin - s->waited_ns);
    }
    return pv_context_failed(s->ctx) ? -EIO : 0;
}
