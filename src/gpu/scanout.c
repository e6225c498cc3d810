#include "display/display.h"
#include "display/pixel.h"
#include "gpu/device.h"
#include "gpu/edid.h"
#include "util/os.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define PV_LOG_MODULE "scanout"

/* A cursor further out than this is out of sight on any screen. */
#define CURSOR_FAR 32768

/* ---- what the guest is told ---- */

uint32_t pv_scanout_display_info(struct pv_gpu *gpu, struct pv_gpu_request *request)
{
    struct pv_wire_display_info_reply *reply = &request->reply.display_info;
    uint32_t x = 0; /* side by side */
    for (uint32_t i = 0; i < gpu->params.scanout_count; i++) {
        const struct pv_gpu_scanout *scanout = &gpu->scanouts[i];
        reply->modes[i].rect = (struct pv_wire_rect){x, 0, scanout->width, scanout->height};
        reply->modes[i].enabled = scanout->width != 0;
        x += scanout->width;
    }
    request->reply_size = sizeof(*reply);
    return PV_RESP_OK_DISPLAY_INFO;
}

uint32_t pv_scanout_edid(struct pv_gpu *gpu, struct pv_gpu_request *request)
{
    uint32_t id = request->wire.edid.scanout_id;
    if (id >= gpu->params.scanout_count)
        return pv_gpu_refuse(gpu, PV_RESP_ERR_INVALID_SCANOUT_ID, "EDID of scanout %u of %u", id,
                             gpu->params.scanout_count);
    const struct pv_gpu_scanout *scanout = &gpu->scanouts[id];
    const struct pv_edid_params params = {
        .scanout = id,
        .width = scanout->width ? scanout->width : gpu->params.width,
        .height = scanout->width ? scanout->height : gpu->params.height,
        .refresh_mhz = gpu->params.refresh_mhz,
    };
    struct pv_wire_edid_reply *reply = &request->reply.edid;
    reply->size = (uint32_t)pv_edid_build(&params, reply->edid);
    request->reply_size = sizeof(*reply);
    return PV_RESP_OK_EDID;
}

static void tell_mode(struct pv_gpu *gpu, uint32_t id)
{
    struct pv_display *display = gpu->params.display;
    const struct pv_gpu_scanout *scanout = &gpu->scanouts[id];
    if (display && display->ops->mode)
        display->ops->mode(display, id, scanout->width, scanout->height);
}

void pv_scanout_init(struct pv_gpu *gpu)
{
    for (uint32_t i = 0; i < gpu->params.scanout_count; i++) {
        if (gpu->params.plugged_count == 0 || i < gpu->params.plugged_count) {
            gpu->scanouts[i].width = gpu->params.width;
            gpu->scanouts[i].height = gpu->params.height;
        }
        tell_mode(gpu, i);
    }
}

int pv_gpu_set_scanout_size(struct pv_gpu *gpu, uint32_t id, uint32_t width, uint32_t height)
{
    bool off = width == 0 && height == 0;
    if (id >= gpu->params.scanout_count || width > PV_EDID_SIDE_MAX || height > PV_EDID_SIDE_MAX ||
        (!off && (width == 0 || height == 0)))
        return -EINVAL;
    struct pv_gpu_scanout *scanout = &gpu->scanouts[id];
    if (scanout->width == width && scanout->height == height)
        return 0;
    scanout->width = width;
    scanout->height = height;
    tell_mode(gpu, id);
    pv_later_tell_of_sizes(gpu);
    return 0;
}

/* ---- pixels ---- */

static struct pv_cursor cursor_of(const struct pv_gpu *gpu, uint32_t id)
{
    const struct pv_gpu_scanout *scanout = &gpu->scanouts[id];
    return (struct pv_cursor){
        .scanout = id,
        .x = scanout->cursor_x,
        .y = scanout->cursor_y,
        .hot_x = scanout->hot_x,
        .hot_y = scanout->hot_y,
        .pixels = scanout->cursor_on ? scanout->cursor : NULL,
    };
}

static int read_blob(struct pv_gpu *gpu, const struct pv_gpu_resource *resource, uint64_t offset,
                     void *out, size_t size)
{
    if (resource->kind == PV_RESOURCE_GUEST_BLOB)
        return pv_backing_read(gpu, &resource->backing, offset, out, size);
    return pv_shared_read(resource->fd, offset, out, size);
}

/* A blob that is a file of its own (whose size is for ever, see pv_blob_done) is mapped when it is
 * first shown, and stays so: a guest shows a few buffers in turn. */
static const uint8_t *map_of(struct pv_gpu *gpu, struct pv_gpu_resource *resource)
{
    if (resource->map || resource->fd < 0 || gpu->scanout_maps >= PV_GPU_SCANOUT_MAPS_MAX)
        return resource->map;
    if (pv_shm_map(resource->fd, resource->size, &resource->map) == 0)
        gpu->scanout_maps++;
    return resource->map;
}

void pv_scanout_unmap(struct pv_gpu *gpu, struct pv_gpu_resource *resource)
{
    if (!resource->map)
        return;
    pv_shm_unmap(resource->map, resource->size);
    resource->map = NULL;
    gpu->scanout_maps--;
}

/* Where the visible part starts in a resource that this process can read in place, or NULL. */
static const uint8_t *in_place(struct pv_gpu *gpu, const struct pv_gpu_scanout *scanout)
{
    struct pv_gpu_resource *resource = scanout->resource;
    uint64_t start = scanout->offset + (uint64_t)scanout->rect.y * scanout->stride +
                     (uint64_t)scanout->rect.x * PV_PIXEL_SIZE;
    if (resource->kind == PV_RESOURCE_2D)
        return resource->pixels + start;
    if (resource->kind != PV_RESOURCE_HOST_BLOB)
        return NULL;
    if (resource->range && pv_window_map(gpu->window))
        return (const uint8_t *)pv_window_map(gpu->window) + resource->range->interval.start +
               start;
    const uint8_t *map = map_of(gpu, resource);
    return map ? map + start : NULL;
}

/* Copy rows of the visible part, without gaps, out of what cannot be read in place. */
static int gather(struct pv_gpu *gpu, const struct pv_gpu_scanout *scanout,
                  const struct pv_rect *part, uint8_t *out)
{
    size_t row_size = (size_t)part->width * PV_PIXEL_SIZE;
    uint64_t offset = scanout->offset + ((uint64_t)scanout->rect.y + part->y) * scanout->stride +
                      ((uint64_t)scanout->rect.x + part->x) * PV_PIXEL_SIZE;
    if (scanout->stride == row_size) /* in one piece */
        return read_blob(gpu, scanout->resource, offset, out, part->height * row_size);
    int ret = 0;
    for (uint32_t y = 0; ret == 0 && y < part->height; y++, offset += scanout->stride)
        ret = read_blob(gpu, scanout->resource, offset, out + y * row_size, row_size);
    return ret;
}

static int read_frame(const struct pv_frame *frame, const struct pv_rect *part, void *out)
{
    struct pv_gpu *gpu = frame->source;
    return gather(gpu, &gpu->scanouts[frame->scanout], part, out);
}

/* Show the display what has changed. */
static int present(struct pv_gpu *gpu, uint32_t id, const struct pv_rect *damage)
{
    struct pv_gpu_scanout *scanout = &gpu->scanouts[id];
    if (!gpu->params.display)
        return 0;
    const struct pv_frame frame = {
        .scanout = id,
        .width = scanout->rect.width,
        .height = scanout->rect.height,
        .format = scanout->format,
        .stride = scanout->stride,
        .pixels = in_place(gpu, scanout),
        .read = read_frame,
        .source = gpu,
        .damage = *damage,
    };
    scanout->fresh = false;
    return gpu->params.display->ops->present(gpu->params.display, &frame);
}

/* When the display has taken what was presented last. */
static uint64_t taken_at(const struct pv_gpu *gpu, uint32_t id)
{
    struct pv_display *display = gpu->params.display;
    return display && display->ops->taken_at ? display->ops->taken_at(display, id, pv_now_ns()) : 0;
}

void pv_gpu_show_again(struct pv_gpu *gpu, uint32_t id)
{
    if (id >= gpu->params.scanout_count || !gpu->scanouts[id].resource)
        return;
    const struct pv_wire_rect *shown = &gpu->scanouts[id].rect;
    const struct pv_rect all = {0, 0, shown->width, shown->height};
    present(gpu, id, &all);
}

/* ---- snapshots ---- */

static int copy_picture(struct pv_gpu *gpu, const struct pv_gpu_scanout *scanout, uint8_t *out)
{
    const struct pv_rect all = {0, 0, scanout->rect.width, scanout->rect.height};
    const uint8_t *from = in_place(gpu, scanout);
    if (!from)
        return gather(gpu, scanout, &all, out);
    size_t row_size = (size_t)all.width * PV_PIXEL_SIZE;
    for (uint32_t y = 0; y < all.height; y++)
        memcpy(out + y * row_size, from + (size_t)y * scanout->stride, row_size);
    return 0;
}

int pv_gpu_snapshot(struct pv_gpu *gpu, uint32_t id, struct pv_gpu_snapshot **out)
{
    if (id >= gpu->params.scanout_count || !gpu->scanouts[id].resource)
        return -ENOENT;
    const struct pv_gpu_scanout *scanout = &gpu->scanouts[id];
    uint32_t width = scanout->rect.width, height = scanout->rect.height;
    size_t size = (size_t)width * height * PV_PIXEL_SIZE;
    struct pv_gpu_snapshot *snapshot = malloc(sizeof(*snapshot) + size);
    if (!snapshot)
        return -ENOMEM;
    int ret = copy_picture(gpu, scanout, snapshot->pixels);
    if (ret < 0) {
        free(snapshot);
        return ret;
    }
    memcpy(snapshot->cursor_pixels, scanout->cursor, sizeof(scanout->cursor));
    snapshot->frame = (struct pv_frame){
        .scanout = id,
        .width = width,
        .height = height,
        .stride = width * PV_PIXEL_SIZE,
        .format = scanout->format,
        .pixels = snapshot->pixels,
        .damage = {0, 0, width, height},
    };
    snapshot->cursor = cursor_of(gpu, id);
    if (snapshot->cursor.pixels)
        snapshot->cursor.pixels = snapshot->cursor_pixels;
    *out = snapshot;
    return 0;
}

/* ---- scanouts ---- */

static uint32_t bit(uint32_t scanout)
{
    return UINT32_C(1) << (scanout % PV_GPU_SCANOUTS_MAX);
}

static void switch_off(struct pv_gpu *gpu, uint32_t id)
{
    struct pv_gpu_scanout *scanout = &gpu->scanouts[id];
    if (!scanout->resource)
        return;
    scanout->resource->scanouts &= ~bit(id);
    scanout->resource = NULL;
    const struct pv_frame frame = {.scanout = id};
    if (gpu->params.display)
        gpu->params.display->ops->present(gpu->params.display, &frame);
}

void pv_scanout_resource_gone(struct pv_gpu *gpu, struct pv_gpu_resource *resource)
{
    for (uint32_t i = 0; resource->scanouts != 0 && i < PV_GPU_SCANOUTS_MAX; i++) {
        if (resource->scanouts & bit(i))
            switch_off(gpu, i);
    }
}

static void switch_on(struct pv_gpu *gpu, uint32_t id, struct pv_gpu_resource *resource,
                      const struct pv_gpu_scanout *how)
{
    struct pv_gpu_scanout *scanout = &gpu->scanouts[id];
    if (scanout->resource)
        scanout->resource->scanouts &= ~bit(id);
    scanout->resource = resource;
    resource->scanouts |= bit(id);
    scanout->rect = how->rect;
    scanout->format = how->format;
    scanout->stride = how->stride;
    scanout->offset = how->offset;
    scanout->fresh = true;
}

static bool rect_is_inside(const struct pv_wire_rect *rect, uint32_t width, uint32_t height)
{
    return rect->width > 0 && rect->height > 0 && rect->x < width && rect->y < height &&
           rect->width <= width - rect->x && rect->height <= height - rect->y;
}

/* Checks what both commands have. A response code; *out is NULL to switch off. */
static uint32_t find_target(struct pv_gpu *gpu, uint32_t scanout_id, uint32_t resource_id,
                            struct pv_gpu_resource **out)
{
    *out = NULL;
    if (scanout_id >= gpu->params.scanout_count)
        return pv_gpu_refuse(gpu, PV_RESP_ERR_INVALID_SCANOUT_ID,
                             "scanout %u cannot be set: there are %u", scanout_id,
                             gpu->params.scanout_count);
    if (resource_id == 0) {
        switch_off(gpu, scanout_id);
        return PV_RESP_OK_NODATA;
    }
    *out = pv_gpu_resource_find(gpu, resource_id);
    if (!*out)
        return pv_gpu_refuse(gpu, PV_RESP_ERR_INVALID_RESOURCE_ID,
                             "scanout %u cannot show resource %u: there is none", scanout_id,
                             resource_id);
    return PV_RESP_OK_NODATA;
}

uint32_t pv_scanout_set(struct pv_gpu *gpu, struct pv_gpu_request *request)
{
    const struct pv_wire_set_scanout *wire = &request->wire.set_scanout;
    struct pv_gpu_resource *resource;
    uint32_t result = find_target(gpu, wire->scanout_id, wire->resource_id, &resource);
    if (!resource)
        return result;
    if (resource->kind != PV_RESOURCE_2D)
        return pv_gpu_refuse(gpu, PV_RESP_ERR_INVALID_PARAMETER,
                             "scanout %u: resource %u is a blob and needs SET_SCANOUT_BLOB",
                             wire->scanout_id, resource->id);
    if (!rect_is_inside(&wire->rect, resource->width, resource->height))
        return pv_gpu_refuse(gpu, PV_RESP_ERR_INVALID_PARAMETER,
                             "scanout %u: %ux%u at %u,%u is not inside resource %u (%ux%u)",
                             wire->scanout_id, wire->rect.width, wire->rect.height, wire->rect.x,
                             wire->rect.y, resource->id, resource->width, resource->height);
    const struct pv_gpu_scanout how = {
        .rect = wire->rect,
        .format = resource->format,
        .stride = resource->width * PV_PIXEL_SIZE,
    };
    switch_on(gpu, wire->scanout_id, resource, &how);
    return PV_RESP_OK_NODATA;
}

static bool picture_fits(const struct pv_wire_set_scanout_blob *wire, uint64_t size)
{
    /* none of the products reaches 2^63 */
    uint64_t row = (uint64_t)wire->width * PV_PIXEL_SIZE;
    uint64_t last = (uint64_t)wire->strides[0] * (wire->height - 1);
    return wire->strides[0] >= row && wire->offsets[0] + last + row <= size;
}

uint32_t pv_scanout_set_blob(struct pv_gpu *gpu, struct pv_gpu_request *request)
{
    const struct pv_wire_set_scanout_blob *wire = &request->wire.set_scanout_blob;
    struct pv_gpu_resource *resource;
    struct pv_pixel_layout layout;
    uint32_t result = find_target(gpu, wire->scanout_id, wire->resource_id, &resource);
    if (!resource)
        return result;
    if (resource->kind == PV_RESOURCE_2D)
        return pv_gpu_refuse(gpu, PV_RESP_ERR_INVALID_PARAMETER,
                             "scanout %u: resource %u is no blob", wire->scanout_id, resource->id);
    if (wire->width == 0 || wire->height == 0 || wire->width > PV_GPU_2D_SIDE_MAX ||
        wire->height > PV_GPU_2D_SIDE_MAX || !pv_pixel_layout(wire->format, &layout) ||
        !picture_fits(wire, resource->size) ||
        !rect_is_inside(&wire->rect, wire->width, wire->height))
        return pv_gpu_refuse(
            gpu, PV_RESP_ERR_INVALID_PARAMETER,
            "scanout %u: %ux%u at %u,%u of a picture of %ux%u, format %u, stride %u, offset %u, "
            "does not fit resource %u of %llu bytes",
            wire->scanout_id, wire->rect.width, wire->rect.height, wire->rect.x, wire->rect.y,
            wire->width, wire->height, wire->format, wire->strides[0], wire->offsets[0],
            resource->id, (unsigned long long)resource->size);
    const struct pv_gpu_scanout how = {
        .rect = wire->rect,
        .format = wire->format,
        .stride = wire->strides[0],
        .offset = wire->offsets[0],
    };
    switch_on(gpu, wire->scanout_id, resource, &how);
    return PV_RESP_OK_NODATA;
}

/* The part of `rect` (of the picture) that the scanout shows, in its own coordinates. */
static bool visible_part(const struct pv_gpu_scanout *scanout, const struct pv_wire_rect *rect,
                         struct pv_rect *out)
{
    const struct pv_wire_rect *shown = &scanout->rect;
    if (scanout->fresh) {
        *out = (struct pv_rect){0, 0, shown->width, shown->height};
        return true;
    }
    uint64_t left = rect->x > shown->x ? rect->x : shown->x;
    uint64_t top = rect->y > shown->y ? rect->y : shown->y;
    uint64_t right = (uint64_t)rect->x + rect->width;
    uint64_t bottom = (uint64_t)rect->y + rect->height;
    uint64_t shown_right = (uint64_t)shown->x + shown->width;
    uint64_t shown_bottom = (uint64_t)shown->y + shown->height;
    right = right < shown_right ? right : shown_right;
    bottom = bottom < shown_bottom ? bottom : shown_bottom;
    if (left >= right || top >= bottom)
        return false;
    *out = (struct pv_rect){(uint32_t)left - shown->x, (uint32_t)top - shown->y,
                            (uint32_t)(right - left), (uint32_t)(bottom - top)};
    return true;
}

uint32_t pv_scanout_flush(struct pv_gpu *gpu, struct pv_gpu_request *request)
{
    const struct pv_wire_flush *wire = &request->wire.flush;
    const struct pv_wire_rect *rect = &wire->rect;
    struct pv_gpu_resource *resource = pv_gpu_resource_find(gpu, wire->resource_id);
    if (!resource)
        return pv_gpu_refuse(gpu, PV_RESP_ERR_INVALID_RESOURCE_ID, "flush of resource %u: no such",
                             wire->resource_id);
    if (resource->kind == PV_RESOURCE_2D &&
        (rect->x > resource->width || rect->width > resource->width - rect->x ||
         rect->y > resource->height || rect->height > resource->height - rect->y))
        return pv_gpu_refuse(gpu, PV_RESP_ERR_INVALID_PARAMETER,
                             "flush of %ux%u at %u,%u is not inside resource %u (%ux%u)",
                             rect->width, rect->height, rect->x, rect->y, resource->id,
                             resource->width, resource->height);
    gpu->stats.flushes++;
    uint64_t taken_ns = 0;
    for (uint32_t i = 0; i < gpu->params.scanout_count; i++) {
        struct pv_rect damage;
        if (!(resource->scanouts & bit(i)) || !visible_part(&gpu->scanouts[i], rect, &damage))
            continue;
        int ret = present(gpu, i, &damage);
        if (ret < 0)
            return pv_gpu_refuse(
                gpu, ret == -ENOMEM ? PV_RESP_ERR_OUT_OF_MEMORY : PV_RESP_ERR_INVALID_PARAMETER,
                "scanout %u: resource %u cannot be read (error %d)", i, resource->id, -ret);
        uint64_t ns = taken_at(gpu, i);
        taken_ns = ns > taken_ns ? ns : taken_ns;
    }
    bool fenced = request->wire.header.flags & PV_FLAG_FENCE;
    return fenced && pv_later_answer_flip(gpu, request, taken_ns) ? 0 : PV_RESP_OK_NODATA;
}

void pv_scanout_reset(struct pv_gpu *gpu)
{
    for (uint32_t i = 0; i < gpu->params.scanout_count; i++) {
        struct pv_gpu_scanout *scanout = &gpu->scanouts[i];
        switch_off(gpu, i);
        if (scanout->cursor_on && gpu->params.display && gpu->params.display->ops->cursor) {
            const struct pv_cursor cursor = {.scanout = i};
            gpu->params.display->ops->cursor(gpu->params.display, &cursor);
        }
        scanout->cursor_on = false;
    }
}

/* ---- cursor ---- */

static int32_t clamp_coordinate(uint32_t wire)
{
    int32_t value = (int32_t)wire; /* negative ones travel as two's complement */
    return value < -CURSOR_FAR ? -CURSOR_FAR : value > CURSOR_FAR ? CURSOR_FAR : value;
}

/* Turn the image into B8G8R8A8, in place. */
static void convert_cursor(uint8_t *pixels, uint32_t format)
{
    struct pv_pixel_layout layout;
    if (format == PV_FORMAT_B8G8R8A8 || !pv_pixel_layout(format, &layout))
        return;
    for (size_t i = 0; i < PV_CURSOR_SIDE * PV_CURSOR_SIDE; i++, pixels += PV_PIXEL_SIZE) {
        uint8_t from[PV_PIXEL_SIZE];
        memcpy(from, pixels, sizeof(from));
        pixels[0] = from[layout.blue];
        pixels[1] = from[layout.green];
        pixels[2] = from[layout.red];
        pixels[3] = layout.has_alpha ? from[layout.alpha] : 0xff;
    }
}

static bool read_cursor(struct pv_gpu *gpu, struct pv_gpu_scanout *scanout,
                        const struct pv_gpu_resource *resource)
{
    const size_t size = sizeof(scanout->cursor);
    if (resource->kind == PV_RESOURCE_2D) {
        if (resource->width != PV_CURSOR_SIDE || resource->height != PV_CURSOR_SIDE)
            return false;
        memcpy(scanout->cursor, resource->pixels, size);
        convert_cursor(scanout->cursor, resource->format);
        return true;
    }
    if (resource->size < size)
        return false;
    if (resource->kind == PV_RESOURCE_HOST_BLOB && resource->range && pv_window_map(gpu->window)) {
        const uint8_t *map = pv_window_map(gpu->window);
        memcpy(scanout->cursor, map + resource->range->interval.start, size);
        return true;
    }
    return read_blob(gpu, resource, 0, scanout->cursor, size) == 0;
}

static void update_cursor(struct pv_gpu *gpu, struct pv_gpu_scanout *scanout,
                          const struct pv_wire_cursor *wire)
{
    const struct pv_gpu_resource *resource = pv_gpu_resource_find(gpu, wire->resource_id);
    scanout->cursor_on = false;
    if (wire->resource_id != 0) {
        scanout->cursor_on = resource && read_cursor(gpu, scanout, resource);
        if (!scanout->cursor_on)
            pv_gpu_refuse(gpu, 0, "cursor: resource %u %s", wire->resource_id,
                          resource ? "has no readable image of 64x64" : "does not exist");
    }
    scanout->hot_x = wire->hot_x < PV_CURSOR_SIDE ? wire->hot_x : PV_CURSOR_SIDE - 1;
    scanout->hot_y = wire->hot_y < PV_CURSOR_SIDE ? wire->hot_y : PV_CURSOR_SIDE - 1;
}

void pv_scanout_cursor(struct pv_gpu *gpu, const union pv_wire_request *request)
{
    const struct pv_wire_cursor *wire = &request->cursor;
    if (wire->scanout_id >= gpu->params.scanout_count) {
        pv_gpu_refuse(gpu, 0, "cursor on scanout %u of %u", wire->scanout_id,
                      gpu->params.scanout_count);
        return;
    }
    struct pv_gpu_scanout *scanout = &gpu->scanouts[wire->scanout_id];
    bool moved_only = wire->header.type == PV_CMD_MOVE_CURSOR;
    gpu->stats.cursor_updates++;
    scanout->cursor_x = clamp_coordinate(wire->x);
    scanout->cursor_y = clamp_coordinate(wire->y);
    if (!moved_only)
        update_cursor(gpu, scanout, wire);
    if (!gpu->params.display || !gpu->params.display->ops->cursor)
        return;
    struct pv_cursor cursor = cursor_of(gpu, wire->scanout_id);
    cursor.moved_only = moved_only;
    gpu->params.display->ops->cursor(gpu->params.display, &cursor);
}
