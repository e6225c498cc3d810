/* virtio-gpu on the wire: requests, responses and numbers.
 *
 * Every integer is little-endian, as on the hosts that PearVisor runs on, so that a private,
 * aligned copy of a request can be read in place.
 *
 * Spec: virtio 1.3, section 5.7; blobs and contexts: the Linux UAPI header virtio_gpu.h.
 */
#ifndef PV_GPU_PROTOCOL_H
#define PV_GPU_PROTOCOL_H

#include <stdint.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "requests are read in place");

/* Feature bits. */
#define PV_GPU_F_VIRGL          (UINT64_C(1) << 0)
#define PV_GPU_F_EDID           (UINT64_C(1) << 1)
#define PV_GPU_F_RESOURCE_UUID  (UINT64_C(1) << 2)
#define PV_GPU_F_RESOURCE_BLOB  (UINT64_C(1) << 3)
#define PV_GPU_F_CONTEXT_INIT   (UINT64_C(1) << 4)
#define PV_GPU_F_BLOB_ALIGNMENT (UINT64_C(1) << 5)

#define PV_GPU_EVENT_DISPLAY 1u

enum pv_wire_type {
    PV_CMD_GET_DISPLAY_INFO = 0x0100,
    PV_CMD_RESOURCE_CREATE_2D,
    PV_CMD_RESOURCE_UNREF,
    PV_CMD_SET_SCANOUT,
    PV_CMD_RESOURCE_FLUSH,
    PV_CMD_TRANSFER_TO_HOST_2D,
    PV_CMD_RESOURCE_ATTACH_BACKING,
    PV_CMD_RESOURCE_DETACH_BACKING,
    PV_CMD_GET_CAPSET_INFO,
    PV_CMD_GET_CAPSET,
    PV_CMD_GET_EDID,
    PV_CMD_RESOURCE_ASSIGN_UUID,
    PV_CMD_RESOURCE_CREATE_BLOB,
    PV_CMD_SET_SCANOUT_BLOB,
    PV_CMD_CTX_CREATE = 0x0200,
    PV_CMD_CTX_DESTROY,
    PV_CMD_CTX_ATTACH_RESOURCE,
    PV_CMD_CTX_DETACH_RESOURCE,
    PV_CMD_SUBMIT_3D = 0x0207,
    PV_CMD_RESOURCE_MAP_BLOB,
    PV_CMD_RESOURCE_UNMAP_BLOB,
    PV_CMD_UPDATE_CURSOR = 0x0300,
    PV_CMD_MOVE_CURSOR,

    PV_RESP_OK_NODATA = 0x1100,
    PV_RESP_OK_DISPLAY_INFO,
    PV_RESP_OK_CAPSET_INFO,
    PV_RESP_OK_CAPSET,
    PV_RESP_OK_EDID,
    PV_RESP_OK_RESOURCE_UUID,
    PV_RESP_OK_MAP_INFO,
    PV_RESP_ERR_UNSPEC = 0x1200,
    PV_RESP_ERR_OUT_OF_MEMORY,
    PV_RESP_ERR_INVALID_SCANOUT_ID,
    PV_RESP_ERR_INVALID_RESOURCE_ID,
    PV_RESP_ERR_INVALID_CONTEXT_ID,
    PV_RESP_ERR_INVALID_PARAMETER,
};

enum pv_wire_format {
    PV_FORMAT_B8G8R8A8 = 1,
    PV_FORMAT_B8G8R8X8 = 2,
    PV_FORMAT_A8R8G8B8 = 3,
    PV_FORMAT_X8R8G8B8 = 4,
    PV_FORMAT_R8G8B8A8 = 67,
    PV_FORMAT_X8B8G8R8 = 68,
    PV_FORMAT_A8B8G8R8 = 121,
    PV_FORMAT_R8G8B8X8 = 134,
};

enum pv_wire_blob_mem {
    PV_BLOB_MEM_GUEST = 1,
    PV_BLOB_MEM_HOST3D,
    PV_BLOB_MEM_HOST3D_GUEST,
};
#define PV_WIRE_BLOB_MAPPABLE     1u
#define PV_WIRE_BLOB_SHAREABLE    2u
#define PV_WIRE_BLOB_CROSS_DEVICE 4u

#define PV_MAP_INFO_CACHED 1u

#define PV_CONTEXT_CAPSET_MASK 0xffu /* of context_init */
#define PV_RING_COUNT          64u   /* ring_idx 0 … 63 */

#define PV_FLAG_FENCE         1u
#define PV_FLAG_INFO_RING_IDX 2u

struct pv_wire_header {
    uint32_t type;
    uint32_t flags;
    uint64_t fence_id;
    uint32_t ctx_id;
    uint8_t ring_idx;
    uint8_t padding[3];
};

struct pv_wire_rect {
    uint32_t x, y, width, height;
};

struct pv_wire_resource { /* every request that only names a resource */
    struct pv_wire_header header;
    uint32_t resource_id, padding;
};

struct pv_wire_create_2d {
    struct pv_wire_header header;
    uint32_t resource_id, format, width, height;
};

struct pv_wire_set_scanout {
    struct pv_wire_header header;
    struct pv_wire_rect rect;
    uint32_t scanout_id, resource_id;
};

struct pv_wire_flush {
    struct pv_wire_header header;
    struct pv_wire_rect rect;
    uint32_t resource_id, padding;
};

struct pv_wire_transfer_2d {
    struct pv_wire_header header;
    struct pv_wire_rect rect;
    uint64_t offset;
    uint32_t resource_id, padding;
};

struct pv_wire_mem_entry {
    uint64_t addr;
    uint32_t length, padding;
};

struct pv_wire_attach_backing { /* nr_entries entries follow */
    struct pv_wire_header header;
    uint32_t resource_id, nr_entries;
};

struct pv_wire_capset_info {
    struct pv_wire_header header;
    uint32_t capset_index, padding;
};

struct pv_wire_capset {
    struct pv_wire_header header;
    uint32_t capset_id, version;
};

struct pv_wire_edid {
    struct pv_wire_header header;
    uint32_t scanout_id, padding;
};

struct pv_wire_create_blob { /* nr_entries entries follow */
    struct pv_wire_header header;
    uint32_t resource_id, blob_mem, blob_flags, nr_entries;
    uint64_t blob_id, size;
};

struct pv_wire_set_scanout_blob {
    struct pv_wire_header header;
    struct pv_wire_rect rect;
    uint32_t scanout_id, resource_id, width, height, format, padding;
    uint32_t strides[4], offsets[4];
};

struct pv_wire_ctx_create {
    struct pv_wire_header header;
    uint32_t name_size, context_init;
    char name[64];
};

struct pv_wire_submit_3d { /* size bytes follow */
    struct pv_wire_header header;
    uint32_t size, padding;
};

struct pv_wire_map_blob {
    struct pv_wire_header header;
    uint32_t resource_id, padding;
    uint64_t offset;
};

struct pv_wire_cursor {
    struct pv_wire_header header;
    uint32_t scanout_id, x, y, padding;
    uint32_t resource_id, hot_x, hot_y, padding2;
};

/* The fixed part of any request. */
union pv_wire_request {
    struct pv_wire_header header;
    struct pv_wire_resource resource;
    struct pv_wire_create_2d create_2d;
    struct pv_wire_set_scanout set_scanout;
    struct pv_wire_flush flush;
    struct pv_wire_transfer_2d transfer_2d;
    struct pv_wire_attach_backing attach_backing;
    struct pv_wire_capset_info capset_info;
    struct pv_wire_capset capset;
    struct pv_wire_edid edid;
    struct pv_wire_create_blob create_blob;
    struct pv_wire_set_scanout_blob set_scanout_blob;
    struct pv_wire_ctx_create ctx_create;
    struct pv_wire_submit_3d submit_3d;
    struct pv_wire_map_blob map_blob;
    struct pv_wire_cursor cursor;
};

struct pv_wire_display_info_reply {
    struct pv_wire_header header;
    struct {
        struct pv_wire_rect rect;
        uint32_t enabled, flags;
    } modes[16];
};

struct pv_wire_capset_info_reply {
    struct pv_wire_header header;
    uint32_t capset_id, max_version, max_size, padding;
};

struct pv_wire_capset_reply {
    struct pv_wire_header header;
    uint8_t data[160];
};

struct pv_wire_edid_reply {
    struct pv_wire_header header;
    uint32_t size, padding;
    uint8_t edid[1024];
};

struct pv_wire_uuid_reply {
    struct pv_wire_header header;
    uint8_t uuid[16];
};

struct pv_wire_map_info_reply {
    struct pv_wire_header header;
    uint32_t map_info, padding;
};

union pv_wire_reply {
    struct pv_wire_header header;
    struct pv_wire_display_info_reply display_info;
    struct pv_wire_capset_info_reply capset_info;
    struct pv_wire_capset_reply capset;
    struct pv_wire_edid_reply edid;
    struct pv_wire_uuid_reply uuid;
    struct pv_wire_map_info_reply map_info;
};

_Static_assert(sizeof(struct pv_wire_header) == 24, "virtio 5.7.6.7");
_Static_assert(sizeof(struct pv_wire_resource) == 32, "");
_Static_assert(sizeof(struct pv_wire_create_2d) == 40, "");
_Static_assert(sizeof(struct pv_wire_set_scanout) == 48, "");
_Static_assert(sizeof(struct pv_wire_flush) == 48, "");
_Static_assert(sizeof(struct pv_wire_transfer_2d) == 56, "");
_Static_assert(sizeof(struct pv_wire_mem_entry) == 16, "");
_Static_assert(sizeof(struct pv_wire_attach_backing) == 32, "");
_Static_assert(sizeof(struct pv_wire_create_blob) == 56, "");
_Static_assert(sizeof(struct pv_wire_set_scanout_blob) == 96, "");
_Static_assert(sizeof(struct pv_wire_ctx_create) == 96, "");
_Static_assert(sizeof(struct pv_wire_submit_3d) == 32, "");
_Static_assert(sizeof(struct pv_wire_map_blob) == 40, "");
_Static_assert(sizeof(struct pv_wire_cursor) == 56, "");
_Static_assert(sizeof(struct pv_wire_display_info_reply) == 408, "");
_Static_assert(sizeof(struct pv_wire_capset_info_reply) == 40, "");
_Static_assert(sizeof(struct pv_wire_capset_reply) == 184, "");
_Static_assert(sizeof(struct pv_wire_edid_reply) == 1056, "");
_Static_assert(sizeof(struct pv_wire_uuid_reply) == 40, "");
_Static_assert(sizeof(struct pv_wire_map_info_reply) == 32, "");

#endif
