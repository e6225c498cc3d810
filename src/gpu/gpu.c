#include "gpu/gpu.h"

#include "display/display.h"
#include "gpu/device.h"
#include "util/os.h"
#include "venus/capset.h"
#include "worker/spawner.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PV_LOG_MODULE "gpu"

#define DEFAULT_WIDTH   1280u
#define DEFAULT_HEIGHT  800u
#define DEFAULT_REFRESH 60000u
/* The smallest page of any guest; with a larger one here the guest has to round for us. */
#define SMALLEST_PAGE 4096u
/* Lines a second about what a guest does wrong. */
#define REFUSALS_PER_SECOND 10u

_Static_assert(sizeof(union pv_wire_reply) <= PV_GPU_RESPONSE_MAX, "");
_Static_assert(sizeof(((struct pv_wire_capset_reply *)0)->data) == PV_CAPSET_VENUS_SIZE, "");

uint32_t pv_gpu_refuse(struct pv_gpu *gpu, uint32_t type, const char *format, ...)
{
    if (pv_log_limit_pass(&gpu->refusals, REFUSALS_PER_SECOND)) {
        va_list args;
        va_start(args, format);
        pv_log_va(PV_LOG_WARN, PV_LOG_MODULE, format, args);
        va_end(args);
    }
    return type;
}

bool pv_gpu_has_venus(const struct pv_gpu *gpu)
{
    return gpu->window && gpu->window_mode != PV_GPU_WINDOW_NONE && !gpu->spawner_lost;
}

/* ---- create, destroy ---- */

static void on_range_freed(void *data)
{
    pv_worker_retry(data);
}

static int set_up_venus(struct pv_gpu *gpu)
{
    if (!gpu->params.spawner || gpu->params.window == PV_GPU_WINDOW_NONE)
        return 0;
    int ret = pv_window_create(gpu->params.window_size, gpu->params.window == PV_GPU_WINDOW_ARENA,
                               &gpu->window);
    if (ret < 0) {
        pv_error("no window of %llu bytes: error %d", (unsigned long long)gpu->params.window_size,
                 -ret);
        return ret;
    }
    pv_window_use_loop(gpu->window, gpu->params.loop, on_range_freed, gpu);
    ret = pv_worker_init(gpu);
    if (ret < 0)
        pv_window_destroy(gpu->window);
    return ret;
}

static void set_defaults(struct pv_gpu_params *params)
{
    params->width = params->width ? params->width : DEFAULT_WIDTH;
    params->height = params->height ? params->height : DEFAULT_HEIGHT;
    params->refresh_mhz = params->refresh_mhz ? params->refresh_mhz : DEFAULT_REFRESH;
}

int pv_gpu_create(const struct pv_gpu_params *params, struct pv_gpu **out)
{
    if (params->scanout_count == 0 || params->scanout_count > PV_GPU_SCANOUTS_MAX ||
        params->width > PV_GPU_2D_SIDE_MAX || params->height > PV_GPU_2D_SIDE_MAX)
        return -EINVAL;
    struct pv_gpu *gpu = calloc(1, sizeof(*gpu));
    if (!gpu)
        return -ENOMEM;
    gpu->params = *params;
    set_defaults(&gpu->params);
    gpu->window_mode = params->window;
    pv_table_init(&gpu->resources);
    pv_table_init(&gpu->contexts_by_id);
    pv_list_init(&gpu->contexts);
    pv_list_init(&gpu->answers);
    pv_list_init(&gpu->global_timeline);
    pv_list_init(&gpu->window_ops);
    pv_scanout_init(gpu);
    int ret = pv_later_init(gpu);
    if (ret < 0)
        goto err_free;
    ret = set_up_venus(gpu);
    if (ret < 0)
        goto err_later;
    *out = gpu;
    return 0;

err_later:
    pv_later_finish(gpu);
err_free:
    free(gpu);
    return ret;
}

void pv_gpu_reset(struct pv_gpu *gpu)
{
    pv_blob_reset(gpu);
    pv_answer_drop_all(gpu);
    pv_gpu_context_reset(gpu);
    for (size_t i = 0; i < gpu->resources.room;) {
        if (gpu->resources.slots[i].id != 0) /* another may move here */
            pv_gpu_resource_destroy(gpu, gpu->resources.slots[i].value);
        else
            i++;
    }
    pv_scanout_reset(gpu);
    gpu->features = 0;
    gpu->events_read = 0;
    gpu->sizes_changed = false;
}

void pv_gpu_destroy(struct pv_gpu *gpu)
{
    if (!gpu)
        return;
    pv_gpu_reset(gpu);
    pv_later_finish(gpu);
    pv_worker_finish(gpu);
    pv_window_destroy(gpu->window);
    pv_table_finish(&gpu->resources);
    pv_table_finish(&gpu->contexts_by_id);
    free(gpu);
}

void pv_gpu_set_window(struct pv_gpu *gpu, enum pv_gpu_window window)
{
    assert(window == PV_GPU_WINDOW_NONE || window == gpu->params.window);
    gpu->window_mode = window;
}

int pv_gpu_arena_fd(const struct pv_gpu *gpu)
{
    return gpu->window && gpu->window_mode == PV_GPU_WINDOW_ARENA ? pv_window_fd(gpu->window) : -1;
}

/* ---- features, configuration ---- */

uint64_t pv_gpu_features(const struct pv_gpu *gpu)
{
    uint64_t features = PV_GPU_F_EDID | PV_GPU_F_RESOURCE_UUID | PV_GPU_F_RESOURCE_BLOB;
    if (pv_gpu_has_venus(gpu))
        features |= PV_GPU_F_VIRGL | PV_GPU_F_CONTEXT_INIT;
    if (pv_page_size() > SMALLEST_PAGE)
        features |= PV_GPU_F_BLOB_ALIGNMENT;
    return features;
}

void pv_gpu_set_features(struct pv_gpu *gpu, uint64_t features)
{
    gpu->features = features & pv_gpu_features(gpu);
}

static uint32_t capset_count(const struct pv_gpu *gpu)
{
    return pv_gpu_has_venus(gpu) ? 1 : 0;
}

void pv_gpu_read_config(const struct pv_gpu *gpu, uint32_t offset, void *out, size_t size)
{
    const uint32_t config[PV_GPU_CONFIG_SIZE / sizeof(uint32_t)] = {
        gpu->events_read,
        0, /* events_clear */
        gpu->params.scanout_count,
        capset_count(gpu),
        pv_page_size() > SMALLEST_PAGE ? (uint32_t)pv_page_size() : 0, /* blob_alignment */
    };
    memset(out, 0, size);
    if (offset >= sizeof(config))
        return;
    size_t available = sizeof(config) - offset;
    memcpy(out, (const uint8_t *)config + offset, size < available ? size : available);
}

void pv_gpu_write_config(struct pv_gpu *gpu, uint32_t offset, const void *data, size_t size)
{
    enum { EVENTS_CLEAR = 4 };
    uint8_t clear[sizeof(uint32_t)] = {0};
    for (size_t i = 0; i < sizeof(clear); i++) {
        if (offset <= EVENTS_CLEAR + i && EVENTS_CLEAR + i - offset < size)
            clear[i] = ((const uint8_t *)data)[EVENTS_CLEAR + i - offset];
    }
    uint32_t events;
    memcpy(&events, clear, sizeof(events));
    gpu->events_read &= ~events;
}

/* ---- capsets ---- */

static uint32_t get_capset_info(struct pv_gpu *gpu, struct pv_gpu_request *request)
{
    uint32_t index = request->wire.capset_info.capset_index;
    if (index >= capset_count(gpu))
        return pv_gpu_refuse(gpu, PV_RESP_ERR_INVALID_PARAMETER, "capset index %u of %u", index,
                             capset_count(gpu));
    struct pv_wire_capset_info_reply *reply = &request->reply.capset_info;
    reply->capset_id = PV_CAPSET_VENUS;
    reply->max_version = 0;
    reply->max_size = PV_CAPSET_VENUS_SIZE;
    request->reply_size = sizeof(*reply);
    return PV_RESP_OK_CAPSET_INFO;
}

static uint32_t get_capset(struct pv_gpu *gpu, struct pv_gpu_request *request)
{
    const struct pv_wire_capset *wire = &request->wire.capset;
    if (!pv_gpu_has_venus(gpu) || wire->capset_id != PV_CAPSET_VENUS || wire->version != 0)
        return pv_gpu_refuse(gpu, PV_RESP_ERR_INVALID_PARAMETER, "no capset %u version %u",
                             wire->capset_id, wire->version);
    pv_capset_fill(request->reply.capset.data, gpu->window_mode == PV_GPU_WINDOW_ARENA);
    request->reply_size = sizeof(request->reply.capset);
    return PV_RESP_OK_CAPSET;
}

/* ---- dispatch ---- */

struct command {
    const char *name;
    uint32_t size; /* of its fixed part */
    uint32_t (*run)(struct pv_gpu *gpu, struct pv_gpu_request *request);
};

#define GROUP_2D       0x0100u
#define GROUP_3D       0x0200u
#define GROUP_OF(type) ((type)&0xff00u)

static const struct command commands_2d[] = {
    [PV_CMD_GET_DISPLAY_INFO - GROUP_2D] = {"GET_DISPLAY_INFO", sizeof(struct pv_wire_header),
                                            pv_scanout_display_info},
    [PV_CMD_RESOURCE_CREATE_2D -
        GROUP_2D] = {"RESOURCE_CREATE_2D", sizeof(struct pv_wire_create_2d), pv_resource_create_2d},
    [PV_CMD_RESOURCE_UNREF -
        GROUP_2D] = {"RESOURCE_UNREF", sizeof(struct pv_wire_resource), pv_gpu_resource_unref},
    [PV_CMD_SET_SCANOUT -
        GROUP_2D] = {"SET_SCANOUT", sizeof(struct pv_wire_set_scanout), pv_scanout_set},
    [PV_CMD_RESOURCE_FLUSH -
        GROUP_2D] = {"RESOURCE_FLUSH", sizeof(struct pv_wire_flush), pv_scanout_flush},
    [PV_CMD_TRANSFER_TO_HOST_2D - GROUP_2D] = {"TRANSFER_TO_HOST_2D",
                                               sizeof(struct pv_wire_transfer_2d),
                                               pv_resource_transfer_2d},
    [PV_CMD_RESOURCE_ATTACH_BACKING - GROUP_2D] = {"RESOURCE_ATTACH_BACKING",
                                                   sizeof(struct pv_wire_attach_backing),
                                                   pv_gpu_resource_attach_backing},
    [PV_CMD_RESOURCE_DETACH_BACKING - GROUP_2D] = {"RESOURCE_DETACH_BACKING",
                                                   sizeof(struct pv_wire_resource),
                                                   pv_gpu_resource_detach_backing},
    [PV_CMD_GET_CAPSET_INFO -
        GROUP_2D] = {"GET_CAPSET_INFO", sizeof(struct pv_wire_capset_info), get_capset_info},
    [PV_CMD_GET_CAPSET - GROUP_2D] = {"GET_CAPSET", sizeof(struct pv_wire_capset), get_capset},
    [PV_CMD_GET_EDID - GROUP_2D] = {"GET_EDID", sizeof(struct pv_wire_edid), pv_scanout_edid},
    [PV_CMD_RESOURCE_ASSIGN_UUID - GROUP_2D] = {"RESOURCE_ASSIGN_UUID",
                                                sizeof(struct pv_wire_resource),
                                                pv_gpu_resource_assign_uuid},
    [PV_CMD_RESOURCE_CREATE_BLOB -
        GROUP_2D] = {"RESOURCE_CREATE_BLOB", sizeof(struct pv_wire_create_blob), pv_blob_create},
    [PV_CMD_SET_SCANOUT_BLOB - GROUP_2D] = {"SET_SCANOUT_BLOB",
                                            sizeof(struct pv_wire_set_scanout_blob),
                                            pv_scanout_set_blob},
};

static const struct command commands_3d[] = {
    [PV_CMD_CTX_CREATE - GROUP_3D] = {"CTX_CREATE", sizeof(struct pv_wire_ctx_create),
                                      pv_gpu_context_create},
    [PV_CMD_CTX_DESTROY -
        GROUP_3D] = {"CTX_DESTROY", sizeof(struct pv_wire_header), pv_gpu_context_destroy},
    [PV_CMD_CTX_ATTACH_RESOURCE -
        GROUP_3D] = {"CTX_ATTACH_RESOURCE", sizeof(struct pv_wire_resource), pv_gpu_context_attach},
    [PV_CMD_CTX_DETACH_RESOURCE -
        GROUP_3D] = {"CTX_DETACH_RESOURCE", sizeof(struct pv_wire_resource), pv_gpu_context_detach},
    [PV_CMD_SUBMIT_3D -
        GROUP_3D] = {"SUBMIT_3D", sizeof(struct pv_wire_submit_3d), pv_gpu_context_submit},
    [PV_CMD_RESOURCE_MAP_BLOB -
        GROUP_3D] = {"RESOURCE_MAP_BLOB", sizeof(struct pv_wire_map_blob), pv_blob_map},
    [PV_CMD_RESOURCE_UNMAP_BLOB -
        GROUP_3D] = {"RESOURCE_UNMAP_BLOB", sizeof(struct pv_wire_resource), pv_blob_unmap},
};

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static const struct command *find_command(uint32_t type)
{
    const struct command *command = NULL;
    if (GROUP_OF(type) == GROUP_2D && type - GROUP_2D < COUNT(commands_2d))
        command = &commands_2d[type - GROUP_2D];
    else if (GROUP_OF(type) == GROUP_3D && type - GROUP_3D < COUNT(commands_3d))
        command = &commands_3d[type - GROUP_3D];
    return command && command->run ? command : NULL;
}

static uint32_t run(struct pv_gpu *gpu, struct pv_gpu_request *request)
{
    const struct pv_wire_header *header = &request->wire.header;
    if (request->size < sizeof(*header))
        return pv_gpu_refuse(gpu, PV_RESP_ERR_UNSPEC, "a request of %zu bytes has no header",
                             request->size);
    const struct command *command = find_command(header->type);
    if (!command)
        return pv_gpu_refuse(gpu, PV_RESP_ERR_UNSPEC, "command 0x%04x is not known", header->type);
    if (request->size < command->size)
        return pv_gpu_refuse(gpu, PV_RESP_ERR_INVALID_PARAMETER,
                             "%s of %zu bytes is cut short; it has at least %u", command->name,
                             request->size, command->size);
    return command->run(gpu, request);
}

static void open_request(struct pv_gpu_request *request, void *token, const void *bytes,
                         size_t size)
{
    *request = (struct pv_gpu_request){.token = token, .bytes = bytes, .size = size};
    if (size >= sizeof(request->wire.header)) /* half a header names no fence */
        memcpy(&request->wire, bytes, size < sizeof(request->wire) ? size : sizeof(request->wire));
}

void pv_gpu_control(struct pv_gpu *gpu, void *token, const void *bytes, size_t size)
{
    struct pv_gpu_request request;
    gpu->stats.commands++;
    open_request(&request, token, bytes, size);
    uint32_t type = run(gpu, &request);
    if (type != 0)
        pv_answer_now(gpu, &request, type);
}

void pv_gpu_cursor(struct pv_gpu *gpu, const void *bytes, size_t size)
{
    struct pv_gpu_request request;
    gpu->stats.commands++;
    open_request(&request, NULL, bytes, size);
    uint32_t type = request.wire.header.type;
    if (size < sizeof(request.wire.cursor) ||
        (type != PV_CMD_UPDATE_CURSOR && type != PV_CMD_MOVE_CURSOR)) {
        gpu->stats.errors++;
        pv_gpu_refuse(gpu, 0, "cursor command 0x%04x of %zu bytes means nothing", type, size);
        return;
    }
    pv_scanout_cursor(gpu, &request.wire);
}

/* ---- statistics ---- */

void pv_gpu_get_stats(const struct pv_gpu *gpu, struct pv_gpu_stats *out)
{
    *out = gpu->stats;
    out->resources = gpu->resources.count;
    out->contexts = gpu->context_count;
    out->mapped_bytes = gpu->window ? pv_window_mapped(gpu->window) : 0;
    out->bytes_2d = gpu->bytes_2d;
}

size_t pv_gpu_get_contexts(const struct pv_gpu *gpu, struct pv_gpu_context_stats *out, size_t room)
{
    uint64_t now = pv_now_ns();
    size_t count = 0;
    pv_list_for_each(node, &gpu->contexts)
    {
        const struct pv_gpu_context *context = pv_list_entry(node, struct pv_gpu_context, node);
        if (context->state == PV_CONTEXT_LEAVING)
            continue;
        if (count < room) {
            struct pv_gpu_context_stats *stats = &out[count];
            *stats = (struct pv_gpu_context_stats){
                .id = context->id,
                .pid = (int)context->pid,
                .failed = context->state == PV_CONTEXT_FAILED,
                .hung = context->hung,
                .resources = context->resource_count,
                .fences_pending = context->fence_count,
            };
            snprintf(stats->name, sizeof(stats->name), "%s", context->name);
            pv_activity_get(context, now, stats);
        }
        count++;
    }
    return count;
}

int pv_gpu_get_scanout(const struct pv_gpu *gpu, uint32_t scanout, struct pv_gpu_scanout_stats *out)
{
    if (scanout >= gpu->params.scanout_count)
        return -EINVAL;
    const struct pv_gpu_scanout *from = &gpu->scanouts[scanout];
    *out = (struct pv_gpu_scanout_stats){
        .width = from->width,
        .height = from->height,
        .on = from->resource != NULL,
        .shown_width = from->resource ? from->rect.width : 0,
        .shown_height = from->resource ? from->rect.height : 0,
    };
    return 0;
}
