#include "gpu/guest_memory.h"
#include "transport/virtio/backend.h"
#include "transport/virtio/device_internal.h"
#include "util/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PV_LOG_MODULE "virtio"

/* Regions of one SET_MEM_TABLE (specification). */
#define TABLE_REGIONS_MAX 8u
/* Configuration space (specification). */
#define CONFIG_SIZE_MAX    256u
#define SHMID_HOST_VISIBLE 1u

/* In a SET_VRING_KICK, CALL or ERR: no fd comes with it. */
#define VRING_NO_FD      (1u << 8)
#define VRING_INDEX_MASK 0xffu

struct vring_state {
    uint32_t index, value;
};

struct vring_address {
    uint32_t index, flags;
    uint64_t desc, used, avail, log;
};

struct memory_region {
    uint64_t gpa, size, user_address, fd_offset;
};

struct memory_table {
    uint32_t count, padding;
    struct memory_region regions[TABLE_REGIONS_MAX];
};

struct memory_slot {
    uint64_t padding;
    struct memory_region region;
};

struct config_window {
    uint32_t offset, size, flags;
};

struct shmem_config {
    uint32_t count, padding;
    uint64_t sizes[256];
};

/* What a handler gets and gives. */
struct call {
    struct pv_vhost_device *device;
    struct pv_vhost_message *message;
    const void *payload; /* 8-aligned, of the size that the table below asks for */
    uint8_t *reply;
};

static int reply_u64(const struct call *call, uint64_t value)
{
    memcpy(call->reply, &value, sizeof(value));
    return sizeof(value);
}

static uint64_t payload_u64(const struct call *call)
{
    return *(const uint64_t *)call->payload;
}

/* ---- features ---- */

uint64_t pv_vhost_offered_features(const struct pv_vhost_device *device)
{
    return pv_gpu_features(device->gpu) | PV_VIRTIO_F_INDIRECT_DESC | PV_VIRTIO_F_EVENT_IDX |
           PV_VHOST_F_PROTOCOL_FEATURES | PV_VIRTIO_F_VERSION_1 |
           (device->params.packed ? PV_VIRTIO_F_RING_PACKED : 0);
}

static int get_features(const struct call *call)
{
    call->device->offered |= pv_vhost_offered_features(call->device);
    return reply_u64(call, pv_vhost_offered_features(call->device));
}

static int set_features(const struct call *call)
{
    struct pv_vhost_device *device = call->device;
    uint64_t features = payload_u64(call);
    /* what is offered shrinks when the frontend says that it cannot map */
    uint64_t unknown = features & ~(pv_vhost_offered_features(device) | device->offered);
    if (unknown) {
        pv_error("the frontend accepts features 0x%llx, which were not offered",
                 (unsigned long long)unknown);
        return -EINVAL;
    }
    device->features = features;
    device->protocol_settled = true;
    pv_vhost_update_window(device);
    pv_gpu_set_features(device->gpu, features & pv_gpu_features(device->gpu));
    if (!(features & PV_VHOST_F_PROTOCOL_FEATURES)) {
        for (unsigned int i = 0; i < PV_VHOST_QUEUES; i++)
            pv_vhost_queue_enable(&device->queues[i], true);
    }
    return 0;
}

static uint64_t offered_protocol_features(const struct pv_vhost_device *device)
{
    return PV_VHOST_PROTOCOL_MQ | PV_VHOST_PROTOCOL_REPLY_ACK | PV_VHOST_PROTOCOL_BACKEND_REQ |
           PV_VHOST_PROTOCOL_CONFIG | PV_VHOST_PROTOCOL_BACKEND_SEND_FD | PV_VHOST_PROTOCOL_SHMEM |
           (device->params.memory_slots ? PV_VHOST_PROTOCOL_MEM_SLOTS : 0);
}

static int get_protocol_features(const struct call *call)
{
    return reply_u64(call, offered_protocol_features(call->device));
}

static int set_protocol_features(const struct call *call)
{
    uint64_t features = payload_u64(call);
    uint64_t unknown = features & ~offered_protocol_features(call->device);
    if (unknown) {
        pv_error("the frontend accepts protocol features 0x%llx, which were not offered",
                 (unsigned long long)unknown);
        return -EINVAL;
    }
    call->device->protocol_features = features;
    call->device->protocol_settled = true;
    pv_vhost_update_window(call->device);
    return 0;
}

static int get_queue_num(const struct call *call)
{
    return reply_u64(call, PV_VHOST_QUEUES);
}

static int set_owner(const struct call *call)
{
    return 0;
}

static int reset_device(const struct call *call)
{
    for (unsigned int i = 0; i < PV_VHOST_QUEUES; i++)
        pv_vhost_queue_stop(&call->device->queues[i]);
    return 0;
}

/* ---- memory ---- */

static int memory_failed(int ret)
{
    pv_error("cannot take over the memory table: %s", strerror(-ret));
    return ret;
}

static int set_mem_table(const struct call *call)
{
    struct pv_vhost_device *device = call->device;
    const struct memory_table *table = call->payload;
    struct pv_guest_region regions[TABLE_REGIONS_MAX];
    size_t count = 0;
    uint32_t ignored = 0;
    if (table->count > TABLE_REGIONS_MAX || table->count != call->message->fd_count ||
        call->message->size < 8 + table->count * sizeof(struct memory_region)) {
        pv_error("a memory table of %u regions comes with %u bytes and %zu fds", table->count,
                 call->message->size, call->message->fd_count);
        return -EINVAL;
    }
    for (uint32_t i = 0; i < table->count; i++) {
        const struct memory_region *region = &table->regions[i];
        int fd = call->message->fds[i];
        if (pv_vhost_shmem_owns(&device->shmem, fd)) {
            ignored++;
            continue;
        }
        regions[count++] = (struct pv_guest_region){
            .gpa = region->gpa,
            .size = region->size,
            .user_address = region->user_address,
            .fd = fd,
            .fd_offset = region->fd_offset,
        };
    }
    int ret = pv_guest_memory_set(device->memory, regions, count);
    if (ret < 0)
        return memory_failed(ret);
    device->regions_ignored = ignored;
    pv_debug("memory table: %zu regions, and %u in the window", count, ignored);
    pv_vhost_remap_queues(device);
    return 0;
}

static bool has_memory_slots(const struct call *call)
{
    if (call->device->protocol_features & PV_VHOST_PROTOCOL_MEM_SLOTS)
        return true;
    pv_error("memory in slots (message %u) was not negotiated", call->message->request);
    return false;
}

static int get_max_mem_slots(const struct call *call)
{
    return has_memory_slots(call) ? reply_u64(call, PV_GUEST_REGIONS_MAX) : -EPROTO;
}

static int add_mem_reg(const struct call *call)
{
    struct pv_vhost_device *device = call->device;
    const struct memory_region *region = &((const struct memory_slot *)call->payload)->region;
    if (!has_memory_slots(call))
        return -EPROTO;
    if (call->message->fd_count != 1) {
        pv_error("a memory region comes with %zu fds", call->message->fd_count);
        return -EINVAL;
    }
    if (pv_vhost_shmem_owns(&device->shmem, call->message->fds[0])) {
        device->regions_ignored++;
        return 0;
    }
    int ret = pv_guest_memory_add(device->memory, &(struct pv_guest_region){
                                                      .gpa = region->gpa,
                                                      .size = region->size,
                                                      .user_address = region->user_address,
                                                      .fd = call->message->fds[0],
                                                      .fd_offset = region->fd_offset,
                                                  });
    if (ret < 0)
        return memory_failed(ret);
    pv_vhost_remap_queues(device);
    return 0;
}

static int rem_mem_reg(const struct call *call)
{
    struct pv_vhost_device *device = call->device;
    const struct memory_region *region = &((const struct memory_slot *)call->payload)->region;
    if (!has_memory_slots(call))
        return -EPROTO;
    int ret = pv_guest_memory_remove(device->memory, region->gpa, region->size);
    if (ret < 0 && device->regions_ignored > 0) {
        device->regions_ignored--;
        return 0;
    }
    if (ret < 0)
        return memory_failed(ret);
    pv_vhost_remap_queues(device);
    return 0;
}

/* ---- rings ---- */

static struct pv_vhost_queue *find_queue(const struct call *call, uint32_t index)
{
    if (index < PV_VHOST_QUEUES)
        return &call->device->queues[index];
    pv_error("message %u for queue %u; there are %u", call->message->request, index,
             PV_VHOST_QUEUES);
    return NULL;
}

/* For what may not change under a running queue. */
static struct pv_vhost_queue *find_stopped_queue(const struct call *call, uint32_t index)
{
    struct pv_vhost_queue *queue = find_queue(call, index);
    if (!queue || !queue->ring.started)
        return queue;
    pv_error("message %u for the %s queue while it runs", call->message->request,
             queue->ring.params.name);
    return NULL;
}

static int set_vring_num(const struct call *call)
{
    const struct vring_state *state = call->payload;
    struct pv_vhost_queue *queue = find_stopped_queue(call, state->index);
    if (!queue)
        return -EINVAL;
    if (state->value == 0 || state->value > PV_VIRTQUEUE_SIZE_MAX) {
        pv_error("%s queue: a ring cannot have %u entries", queue->ring.params.name, state->value);
        return -EINVAL;
    }
    queue->setup.size = state->value;
    return 0;
}

static int set_vring_base(const struct call *call)
{
    const struct vring_state *state = call->payload;
    struct pv_vhost_queue *queue = find_stopped_queue(call, state->index);
    if (!queue)
        return -EINVAL;
    queue->setup.base = state->value;
    return 0;
}

static int set_vring_addr(const struct call *call)
{
    const struct vring_address *address = call->payload;
    struct pv_vhost_queue *queue = find_queue(call, address->index);
    if (!queue)
        return -EINVAL;
    if (address->flags) {
        pv_error("%s queue: the frontend wants its writes logged, which was not negotiated",
                 queue->ring.params.name);
        return -EINVAL;
    }
    queue->setup.desc = address->desc;
    queue->setup.driver = address->avail;
    queue->setup.device = address->used;
    queue->has_addresses = true;
    if (pv_virtqueue_remap(&queue->ring, &queue->setup) < 0) {
        pv_vhost_queue_signal_error(queue);
        return -EFAULT;
    }
    pv_vhost_queue_wake(queue);
    return 0;
}

static int get_vring_base(const struct call *call)
{
    const struct vring_state *state = call->payload;
    struct pv_vhost_queue *queue = find_queue(call, state->index);
    if (!queue)
        return -EINVAL;
    const struct vring_state reply = {state->index, pv_vhost_queue_stop(queue)};
    memcpy(call->reply, &reply, sizeof(reply));
    return sizeof(reply);
}

static int set_vring_enable(const struct call *call)
{
    const struct vring_state *state = call->payload;
    struct pv_vhost_queue *queue = find_queue(call, state->index);
    if (!queue || state->value > 1)
        return -EINVAL;
    pv_vhost_queue_enable(queue, state->value);
    return 0;
}

/* The queue that a kick, call or err fd is for, and the fd: -1 if the frontend has none. */
static struct pv_vhost_queue *take_vring_fd(const struct call *call, int *out_fd)
{
    uint64_t value = payload_u64(call);
    struct pv_vhost_queue *queue = find_queue(call, (uint32_t)(value & VRING_INDEX_MASK));
    if (!queue)
        return NULL;
    *out_fd = value & VRING_NO_FD ? -1 : pv_vhost_take_fd(call->message, 0);
    if (*out_fd < 0 && !(value & VRING_NO_FD)) {
        pv_error("%s queue: message %u comes without its fd", queue->ring.params.name,
                 call->message->request);
        return NULL;
    }
    return queue;
}

static int set_vring_kick(const struct call *call)
{
    int fd;
    struct pv_vhost_queue *queue = take_vring_fd(call, &fd);
    if (!queue)
        return -EINVAL;
    if (fd < 0) {
        pv_error("%s queue: a kick fd is needed; polling the ring is not supported",
                 queue->ring.params.name);
        return -EINVAL;
    }
    int ret = pv_vhost_queue_set_kick(queue, fd);
    if (ret < 0) {
        pv_error("%s queue: nobody can wait for its kick fd: %s", queue->ring.params.name,
                 strerror(-ret));
        close(fd);
    }
    return ret;
}

static int replace_fd(const struct call *call, bool err)
{
    int fd;
    struct pv_vhost_queue *queue = take_vring_fd(call, &fd);
    if (!queue)
        return -EINVAL;
    int *place = err ? &queue->err_fd : &queue->call_fd;
    if (*place >= 0)
        close(*place);
    *place = fd;
    /* an eventfd never blocks us, but what is called one may */
    if (fd >= 0)
        fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    return 0;
}

static int set_vring_call(const struct call *call)
{
    return replace_fd(call, false);
}

static int set_vring_err(const struct call *call)
{
    return replace_fd(call, true);
}

/* ---- configuration and window ---- */

static bool config_in_range(const struct call *call)
{
    const struct config_window *window = call->payload;
    if (window->size <= CONFIG_SIZE_MAX && window->offset <= CONFIG_SIZE_MAX - window->size &&
        call->message->size >= sizeof(*window) + window->size)
        return true;
    pv_error("message %u for bytes %u + %u of the configuration space, with %u bytes",
             call->message->request, window->offset, window->size, call->message->size);
    return false;
}

static int get_config(const struct call *call)
{
    const struct config_window *window = call->payload;
    if (!config_in_range(call))
        return 0; /* an empty reply says so */
    memcpy(call->reply, window, sizeof(*window));
    memset(call->reply + sizeof(*window), 0, window->size);
    pv_gpu_read_config(call->device->gpu, window->offset, call->reply + sizeof(*window),
                       window->size);
    return (int)(sizeof(*window) + window->size);
}

static int set_config(const struct call *call)
{
    const struct config_window *window = call->payload;
    if (!config_in_range(call))
        return -EINVAL;
    pv_gpu_write_config(call->device->gpu, window->offset, window + 1, window->size);
    return 0;
}

static int set_backend_req_fd(const struct call *call)
{
    struct pv_vhost_device *device = call->device;
    if (!(device->protocol_features & PV_VHOST_PROTOCOL_BACKEND_REQ) ||
        device->queues[PV_VHOST_QUEUE_CONTROL].ring.started) {
        pv_error("a channel for our requests comes %s",
                 device->protocol_features & PV_VHOST_PROTOCOL_BACKEND_REQ
                     ? "while the device runs"
                     : "but was not negotiated");
        return -EINVAL;
    }
    int fd = pv_vhost_take_fd(call->message, 0);
    struct pv_backend *backend;
    int ret = fd < 0 ? -EINVAL : pv_backend_create(device->params.loop, fd, &backend);
    if (ret < 0) {
        pv_error("cannot use the channel for our requests: %s", strerror(-ret));
        if (fd >= 0)
            close(fd);
        return ret;
    }
    pv_backend_destroy(device->backend);
    device->backend = backend;
    pv_backend_hold(backend, !device->queues[PV_VHOST_QUEUE_CONTROL].enabled);
    return 0;
}

static int get_shmem_config(const struct call *call)
{
    struct shmem_config config = {0};
    if (call->device->params.gpu.window != PV_GPU_WINDOW_NONE) {
        config.count = 1;
        config.sizes[SHMID_HOST_VISIBLE] = call->device->params.gpu.window_size;
    }
    memcpy(call->reply, &config, sizeof(config));
    return sizeof(config);
}

/* ---- all of them ---- */

struct handler {
    const char *name;
    int (*handle)(const struct call *call);
    uint32_t min_size; /* of the payload */
    bool has_reply;
};

/* clang-format off */
static const struct handler handlers[] = {
    [PV_VHOST_GET_FEATURES] = {"GET_FEATURES", get_features, 0, true},
    [PV_VHOST_SET_FEATURES] = {"SET_FEATURES", set_features, 8, false},
    [PV_VHOST_SET_OWNER] = {"SET_OWNER", set_owner, 0, false},
    [PV_VHOST_RESET_OWNER] = {"RESET_OWNER", reset_device, 0, false},
    [PV_VHOST_SET_MEM_TABLE] = {"SET_MEM_TABLE", set_mem_table, 8, false},
    [PV_VHOST_SET_VRING_NUM] = {"SET_VRING_NUM", set_vring_num, 8, false},
    [PV_VHOST_SET_VRING_ADDR] = {"SET_VRING_ADDR", set_vring_addr, 40, false},
    [PV_VHOST_SET_VRING_BASE] = {"SET_VRING_BASE", set_vring_base, 8, false},
    [PV_VHOST_GET_VRING_BASE] = {"GET_VRING_BASE", get_vring_base, 8, true},
    [PV_VHOST_SET_VRING_KICK] = {"SET_VRING_KICK", set_vring_kick, 8, false},
    [PV_VHOST_SET_VRING_CALL] = {"SET_VRING_CALL", set_vring_call, 8, false},
    [PV_VHOST_SET_VRING_ERR] = {"SET_VRING_ERR", set_vring_err, 8, false},
    [PV_VHOST_GET_PROTOCOL_FEATURES] = {"GET_PROTOCOL_FEATURES", get_protocol_features, 0, true},
    [PV_VHOST_SET_PROTOCOL_FEATURES] = {"SET_PROTOCOL_FEATURES", set_protocol_features, 8, false},
    [PV_VHOST_GET_QUEUE_NUM] = {"GET_QUEUE_NUM", get_queue_num, 0, true},
    [PV_VHOST_SET_VRING_ENABLE] = {"SET_VRING_ENABLE", set_vring_enable, 8, false},
    [PV_VHOST_SET_BACKEND_REQ_FD] = {"SET_BACKEND_REQ_FD", set_backend_req_fd, 0, false},
    [PV_VHOST_GET_CONFIG] = {"GET_CONFIG", get_config, 12, true},
    [PV_VHOST_SET_CONFIG] = {"SET_CONFIG", set_config, 12, false},
    [PV_VHOST_RESET_DEVICE] = {"RESET_DEVICE", reset_device, 0, false},
    [PV_VHOST_GET_MAX_MEM_SLOTS] = {"GET_MAX_MEM_SLOTS", get_max_mem_slots, 0, true},
    [PV_VHOST_ADD_MEM_REG] = {"ADD_MEM_REG", add_mem_reg, 40, false},
    [PV_VHOST_REM_MEM_REG] = {"REM_MEM_REG", rem_mem_reg, 40, false},
    [PV_VHOST_GET_SHMEM_CONFIG] = {"GET_SHMEM_CONFIG", get_shmem_config, 0, true},
};
/* clang-format on */

static const struct handler *find_handler(uint32_t request)
{
    if (request >= sizeof(handlers) / sizeof(handlers[0]) || !handlers[request].handle)
        return NULL;
    return &handlers[request];
}

bool pv_vhost_has_reply(uint32_t request)
{
    const struct handler *handler = find_handler(request);
    return handler && handler->has_reply;
}

int pv_vhost_handle(struct pv_vhost_device *device, struct pv_vhost_message *message,
                    uint8_t *reply)
{
    const struct handler *handler = find_handler(message->request);
    if (!handler) {
        pv_log_limited(PV_LOG_ERROR, 100, "the frontend sends message %u, which is not supported",
                       message->request);
        return -EOPNOTSUPP;
    }
    pv_trace("%s, %u bytes, %zu fds", handler->name, message->size, message->fd_count);
    if (message->size < handler->min_size) {
        pv_error("%s has %u bytes, at least %u are needed", handler->name, message->size,
                 handler->min_size);
        return -EINVAL;
    }
    return handler->handle(&(struct call){
        .device = device,
        .message = message,
        .payload = message->payload,
        .reply = reply,
    });
}
