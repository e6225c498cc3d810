#include "display/pixel.h"
#include "gpu/device.h"
#include "gpu/guest_memory.h"
#include "util/os.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define PV_LOG_MODULE "gpu"

/* From this size on, pixels begin at a page, as they do in the guest, whose pages come one at a
 * time. Where the copy is a little further into its page than the original, as behind malloc's
 * header, memcpy() takes ten times as long on AMD's Zen 3 and 4 (`rep movsb`; sourceware bug
 * 30994). */
#define ALIGNED_SIZE (64u << 10)

uint8_t *pv_pixels_alloc(uint64_t size)
{
    if (size < ALIGNED_SIZE)
        return calloc((size_t)size, 1);
    void *map =
        mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return map == MAP_FAILED ? NULL : map;
}

void pv_pixels_free(uint8_t *pixels, uint64_t size)
{
    if (size < ALIGNED_SIZE)
        free(pixels);
    else if (pixels)
        munmap(pixels, (size_t)size);
}

struct pv_gpu_resource *pv_gpu_resource_find(struct pv_gpu *gpu, uint32_t id)
{
    return pv_table_get(&gpu->resources, id);
}

uint32_t pv_gpu_resource_new(struct pv_gpu *gpu, uint32_t id, enum pv_gpu_resource_kind kind,
                             struct pv_gpu_resource **out)
{
    if (id == 0 || pv_gpu_resource_find(gpu, id))
        return pv_gpu_refuse(gpu, PV_RESP_ERR_INVALID_RESOURCE_ID,
                             "resource %u cannot be created: the id is %s", id,
                             id == 0 ? "not valid" : "in use");
    if (gpu->resources.count >= PV_GPU_RESOURCES_MAX)
        return pv_gpu_refuse(gpu, PV_RESP_ERR_OUT_OF_MEMORY,
                             "resource %u: the guest has %u resources already", id,
                             PV_GPU_RESOURCES_MAX);
    struct pv_gpu_resource *resource = calloc(1, sizeof(*resource));
    if (!resource)
        return PV_RESP_ERR_OUT_OF_MEMORY;
    resource->id = id;
    resource->kind = kind;
    resource->fd = -1;
    pv_list_init(&resource->attachments);
    pv_list_init(&resource->holdings);
    pv_list_init(&resource->creator_node);
    if (pv_table_insert(&gpu->resources, id, resource) < 0) {
        free(resource);
        return PV_RESP_ERR_OUT_OF_MEMORY;
    }
    *out = resource;
    return PV_RESP_OK_NODATA;
}

void pv_gpu_resource_destroy(struct pv_gpu *gpu, struct pv_gpu_resource *resource)
{
    pv_scanout_resource_gone(gpu, resource);
    pv_gpu_context_detach_all(gpu, resource);
    pv_blob_finish(gpu, resource);
    pv_backing_finish(gpu, &resource->backing);
    if (resource->pixels) {
        uint64_t size = (uint64_t)resource->width * resource->height * PV_PIXEL_SIZE;
        gpu->bytes_2d -= size;
        pv_pixels_free(resource->pixels, size);
    }
    pv_table_remove(&gpu->resources, resource->id);
    free(resource);
}

uint32_t pv_gpu_resource_unref(struct pv_gpu *gpu, struct pv_gpu_request *request)
{
    uint32_t id = request->wire.resource.resource_id;
    struct pv_gpu_resource *resource = pv_gpu_resource_find(gpu, id);
    if (!resource)
        return pv_gpu_refuse(gpu, PV_RESP_ERR_INVALID_RESOURCE_ID,
                             "resource %u cannot be released: there is none", id);
    pv_gpu_resource_destroy(gpu, resource);
    return PV_RESP_OK_NODATA;
}

uint32_t pv_resource_create_2d(struct pv_gpu *gpu, struct pv_gpu_request *request)
{
    const struct pv_wire_create_2d *wire = &request->wire.create_2d;
    struct pv_pixel_layout layout;
    if (!pv_pixel_layout(wire->format, &layout))
        return pv_gpu_refuse(gpu, PV_RESP_ERR_INVALID_PARAMETER,
                             "resource %u: format %u is not one of virtio-gpu", wire->resource_id,
                             wire->format);
    if (wire->width == 0 || wire->height == 0 || wire->width > PV_GPU_2D_SIDE_MAX ||
        wire->height > PV_GPU_2D_SIDE_MAX)
        return pv_gpu_refuse(gpu, PV_RESP_ERR_INVALID_PARAMETER,
                             "resource %u: %ux%u pixels; sides go from 1 to %u", wire->resource_id,
                             wire->width, wire->height, PV_GPU_2D_SIDE_MAX);
    uint64_t size = (uint64_t)wire->width * wire->height * PV_PIXEL_SIZE;
    if (size > PV_GPU_2D_BYTES_MAX - gpu->bytes_2d)
        return pv_gpu_refuse(gpu, PV_RESP_ERR_OUT_OF_MEMORY,
                             "resource %u: %ux%u pixels would be more than %llu bytes of 2D pixels",
                             wire->resource_id, wire->width, wire->height,
                             (unsigned long long)PV_GPU_2D_BYTES_MAX);

    struct pv_gpu_resource *resource;
    uint32_t result = pv_gpu_resource_new(gpu, wire->resource_id, PV_RESOURCE_2D, &resource);
    if (result != PV_RESP_OK_NODATA)
        return result;
    uint8_t *pixels = pv_pixels_alloc(size);
    if (!pixels) {
        pv_gpu_resource_destroy(gpu, resource);
        return PV_RESP_ERR_OUT_OF_MEMORY;
    }
    gpu->bytes_2d += size;
    resource->pixels = pixels;
    resource->format = wire->format;
    resource->width = wire->width;
    resource->height = wire->height;
    return PV_RESP_OK_NODATA;
}

/* ---- backing ---- */

/* Add an entry, joined to the one before when they touch. */
static void add_piece(struct pv_backing *backing, uint64_t gpa, uint32_t size)
{
    struct pv_backing_piece *last = backing->count ? &backing->pieces[backing->count - 1] : NULL;
    if (last && last->gpa + last->size == gpa)
        last->size += size;
    else
        backing->pieces[backing->count++] =
            (struct pv_backing_piece){.start = backing->size, .gpa = gpa, .size = size};
    backing->size += size;
}

static uint32_t read_entries(struct pv_gpu *gpu, const uint8_t *bytes, uint32_t count,
                             struct pv_backing *out)
{
    for (uint32_t i = 0; i < count; i++) {
        struct pv_wire_mem_entry entry;
        memcpy(&entry, bytes + (size_t)i * sizeof(entry), sizeof(entry));
        if (entry.length == 0)
            continue;
        if (!pv_guest_memory_has(gpu->params.memory, entry.addr, entry.length))
            return pv_gpu_refuse(gpu, PV_RESP_ERR_INVALID_PARAMETER,
                                 "backing entry %u: %u bytes at %#llx are not guest memory", i,
                                 entry.length, (unsigned long long)entry.addr);
        add_piece(out, entry.addr, entry.length);
    }
    return PV_RESP_OK_NODATA;
}

uint32_t pv_backing_parse(struct pv_gpu *gpu, const struct pv_gpu_request *request, size_t fixed,
                          uint32_t count, struct pv_backing *out)
{
    *out = (struct pv_backing){0};
    if (count == 0 || count > (request->size - fixed) / sizeof(struct pv_wire_mem_entry))
        return pv_gpu_refuse(gpu, PV_RESP_ERR_INVALID_PARAMETER,
                             "%u backing entries in a request of %zu bytes", count, request->size);
    if (count > PV_GPU_BACKING_MAX - gpu->backing_count)
        return pv_gpu_refuse(gpu, PV_RESP_ERR_OUT_OF_MEMORY,
                             "%u backing entries: more than %u in all", count, PV_GPU_BACKING_MAX);
    struct pv_backing backing = {.pieces = malloc(count * sizeof(*backing.pieces))};
    if (!backing.pieces)
        return PV_RESP_ERR_OUT_OF_MEMORY;
    uint32_t result = read_entries(gpu, request->bytes + fixed, count, &backing);
    if (result != PV_RESP_OK_NODATA) {
        free(backing.pieces);
        return result;
    }
    if (backing.count < count) { /* neighbours were joined; less cannot fail to fit */
        size_t size = (backing.count ? backing.count : 1) * sizeof(*backing.pieces);
        void *less = realloc(backing.pieces, size);
        backing.pieces = less ? less : backing.pieces;
    }
    gpu->backing_count += backing.count;
    *out = backing;
    return PV_RESP_OK_NODATA;
}

void pv_backing_finish(struct pv_gpu *gpu, struct pv_backing *backing)
{
    gpu->backing_count -= backing->count;
    free(backing->pieces);
    *backing = (struct pv_backing){0};
}

/* The piece that byte `offset` is in; any when it is not within the backing. */
static uint32_t piece_at(const struct pv_backing *backing, uint64_t offset)
{
    uint32_t low = 0, high = backing->count;
    while (high - low > 1) {
        uint32_t middle = low + (high - low) / 2;
        if (backing->pieces[middle].start <= offset)
            low = middle;
        else
            high = middle;
    }
    return low;
}

/* `*at` is the piece of `offset` or one before, and becomes that of `offset`. */
static int read_from(struct pv_gpu *gpu, const struct pv_backing *backing, uint32_t *at,
                     uint64_t offset, uint8_t *out, size_t size)
{
    if (offset > backing->size || size > backing->size - offset)
        return -EFAULT;
    while (*at + 1 < backing->count && backing->pieces[*at + 1].start <= offset)
        ++*at;
    for (uint32_t i = *at; size > 0; i++) {
        const struct pv_backing_piece *piece = &backing->pieces[i];
        uint64_t skip = offset - piece->start;
        size_t part = piece->size - skip < size ? (size_t)(piece->size - skip) : size;
        int ret = pv_guest_memory_read(gpu->params.memory, piece->gpa + skip, out, part);
        if (ret < 0)
            return ret;
        out += part;
        offset += part;
        size -= part;
    }
    return 0;
}

int pv_backing_read(struct pv_gpu *gpu, const struct pv_backing *backing, uint64_t offset,
                    void *out, size_t size)
{
    uint32_t at = piece_at(backing, offset);
    return read_from(gpu, backing, &at, offset, out, size);
}

uint32_t pv_gpu_resource_attach_backing(struct pv_gpu *gpu, struct pv_gpu_request *request)
{
    const struct pv_wire_attach_backing *wire = &request->wire.attach_backing;
    struct pv_gpu_resource *resource = pv_gpu_resource_find(gpu, wire->resource_id);
    if (!resource)
        return pv_gpu_refuse(gpu, PV_RESP_ERR_INVALID_RESOURCE_ID,
                             "resource %u cannot have backing: there is none", wire->resource_id);
    if (resource->kind == PV_RESOURCE_HOST_BLOB || resource->has_backing)
        return pv_gpu_refuse(gpu, PV_RESP_ERR_INVALID_PARAMETER, "resource %u %s", resource->id,
                             resource->has_backing ? "has backing already"
                                                   : "is host memory and takes no backing");
    uint32_t result =
        pv_backing_parse(gpu, request, sizeof(*wire), wire->nr_entries, &resource->backing);
    resource->has_backing = result == PV_RESP_OK_NODATA;
    return result;
}

uint32_t pv_gpu_resource_detach_backing(struct pv_gpu *gpu, struct pv_gpu_request *request)
{
    uint32_t id = request->wire.resource.resource_id;
    struct pv_gpu_resource *resource = pv_gpu_resource_find(gpu, id);
    if (!resource)
        return pv_gpu_refuse(gpu, PV_RESP_ERR_INVALID_RESOURCE_ID,
                             "resource %u cannot lose its backing: there is none", id);
    if (!resource->has_backing)
        return pv_gpu_refuse(gpu, PV_RESP_ERR_INVALID_PARAMETER, "resource %u has no backing", id);
    if (resource->kind == PV_RESOURCE_GUEST_BLOB) /* nothing is left to be shown */
        pv_scanout_resource_gone(gpu, resource);
    pv_backing_finish(gpu, &resource->backing);
    resource->has_backing = false;
    return PV_RESP_OK_NODATA;
}

/* ---- transfers ---- */

/* Row r of the rectangle is at offset + r * stride of the backing, whatever its x and y. */
static int copy_rows(struct pv_gpu *gpu, struct pv_gpu_resource *resource,
                     const struct pv_wire_rect *rect, uint64_t offset)
{
    size_t stride = (size_t)resource->width * PV_PIXEL_SIZE;
    uint8_t *to = resource->pixels + rect->y * stride + (size_t)rect->x * PV_PIXEL_SIZE;
    if (rect->width == resource->width)
        return pv_backing_read(gpu, &resource->backing, offset, to, rect->height * stride);

    size_t size = (size_t)rect->width * PV_PIXEL_SIZE;
    uint32_t at = piece_at(&resource->backing, offset);
    for (uint32_t row = 0; row < rect->height; row++) {
        int ret = read_from(gpu, &resource->backing, &at, offset + row * stride, to, size);
        if (ret < 0)
            return ret;
        to += stride;
    }
    return 0;
}

uint32_t pv_resource_transfer_2d(struct pv_gpu *gpu, struct pv_gpu_request *request)
{
    const struct pv_wire_transfer_2d *wire = &request->wire.transfer_2d;
    struct pv_gpu_resource *resource = pv_gpu_resource_find(gpu, wire->resource_id);
    if (!resource)
        return pv_gpu_refuse(gpu, PV_RESP_ERR_INVALID_RESOURCE_ID,
                             "transfer to resource %u: there is none", wire->resource_id);
    if (resource->kind != PV_RESOURCE_2D)
        return PV_RESP_OK_NODATA; /* a blob is read in place; Linux sends it for cursors */
    const struct pv_wire_rect *rect = &wire->rect;
    if (rect->x > resource->width || rect->width > resource->width - rect->x ||
        rect->y > resource->height || rect->height > resource->height - rect->y)
        return pv_gpu_refuse(gpu, PV_RESP_ERR_INVALID_PARAMETER,
                             "transfer of %ux%u at %u,%u is not inside resource %u (%ux%u)",
                             rect->width, rect->height, rect->x, rect->y, resource->id,
                             resource->width, resource->height);
    if (rect->width == 0 || rect->height == 0)
        return PV_RESP_OK_NODATA;
    /* No sum below can overflow once the start is within the backing. */
    if (!resource->has_backing || wire->offset > resource->backing.size ||
        copy_rows(gpu, resource, rect, wire->offset) < 0)
        return pv_gpu_refuse(gpu, PV_RESP_ERR_INVALID_PARAMETER,
                             "transfer to resource %u from offset %llu: its backing %s",
                             resource->id, (unsigned long long)wire->offset,
                             resource->has_backing ? "ends before, or has left guest memory"
                                                   : "is missing");
    return PV_RESP_OK_NODATA;
}

uint32_t pv_gpu_resource_assign_uuid(struct pv_gpu *gpu, struct pv_gpu_request *request)
{
    uint32_t id = request->wire.resource.resource_id;
    struct pv_gpu_resource *resource = pv_gpu_resource_find(gpu, id);
    if (!resource)
        return pv_gpu_refuse(gpu, PV_RESP_ERR_INVALID_RESOURCE_ID,
                             "resource %u cannot have a UUID: there is none", id);
    if (!resource->has_uuid) {
        if (pv_random(resource->uuid, sizeof(resource->uuid)) < 0)
            return PV_RESP_ERR_UNSPEC;
        resource->uuid[6] = (resource->uuid[6] & 0x0f) | 0x40; /* RFC 4122: version 4, */
        resource->uuid[8] = (resource->uuid[8] & 0x3f) | 0x80; /* variant 1 */
        resource->has_uuid = true;
    }
    memcpy(request->reply.uuid.uuid, resource->uuid, sizeof(resource->uuid));
    request->reply_size = sizeof(request->reply.uuid);
    return PV_RESP_OK_RESOURCE_UUID;
}
