#include "transport/virtio/device.h"

#include "gpu/guest_memory.h"
#include "transport/virtio/backend.h"
#include "transport/virtio/device_internal.h"
#include "util/log.h"
#include "util/os.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PV_LOG_MODULE "virtio"

/* Messages of the frontend that are handled before the loop looks at other things. */
#define MESSAGES_PER_TURN 16

/* struct virtio_gpu_ctrl_hdr: the only part of a request that the transport knows, to refuse those
 * that the GPU does not get. */
struct gpu_header {
    uint32_t type, flags;
    uint64_t fence_id;
    uint32_t ctx_id;
    uint8_t ring_idx, padding[3];
};
#define GPU_MAP_BLOB          0x208u
#define GPU_FLAGS_KEPT        3u /* FENCE, INFO_RING_IDX */
#define GPU_ERR_UNSPEC        0x1200u
#define GPU_ERR_OUT_OF_MEMORY 0x1201u
_Static_assert(sizeof(struct gpu_header) == PV_VIRTQUEUE_HEADER_SIZE, "24 in virtio-gpu");

/* ---- queues ---- */

static void signal_queue(struct pv_vhost_queue *queue)
{
    if (!pv_virtqueue_must_signal(&queue->ring) || queue->call_fd < 0)
        return;
    pv_eventfd_signal(queue->call_fd);
    queue->device->stats.calls++;
}

void pv_vhost_queue_signal_error(struct pv_vhost_queue *queue)
{
    if (queue->err_fd >= 0)
        pv_eventfd_signal(queue->err_fd);
}

/* Answer a request that the GPU has not seen, or has forgotten. */
static void refuse(struct pv_virtqueue_element *element, uint32_t type)
{
    struct gpu_header header;
    memcpy(&header, element->header, sizeof(header));
    const struct gpu_header response = {
        .type = type,
        .flags = header.flags & GPU_FLAGS_KEPT,
        .fence_id = header.fence_id,
        .ctx_id = header.ctx_id,
        .ring_idx = header.ring_idx,
    };
    pv_virtqueue_push(element, &response, sizeof(response));
}

/* The answer to a MAP_BLOB that waits for the window. */
struct held_answer {
    struct pv_list link;
    struct pv_virtqueue_element *element;
    size_t size;
    uint8_t bytes[64]; /* virtio_gpu_resp_map_info has 32 */
};

/* A guest must not touch a blob before the VMM has mapped the window. */
static bool must_hold(const struct pv_vhost_device *device,
                      const struct pv_virtqueue_element *element)
{
    struct gpu_header header;
    memcpy(&header, element->header, sizeof(header));
    return header.type == GPU_MAP_BLOB && !pv_vhost_shmem_settled(&device->shmem);
}

static bool hold(struct pv_vhost_device *device, struct pv_virtqueue_element *element,
                 const void *response, size_t size)
{
    struct held_answer *held = malloc(sizeof(*held));
    if (!held)
        return false;
    held->element = element;
    held->size = size < sizeof(held->bytes) ? size : sizeof(held->bytes);
    memcpy(held->bytes, response, held->size);
    pv_list_append(&device->held, &held->link);
    return true;
}

static void forget_held(struct pv_vhost_device *device)
{
    pv_list_for_each(node, &device->held)
    {
        pv_list_remove(node);
        free(pv_list_entry(node, struct held_answer, link));
    }
}

static void dispatch(struct pv_vhost_queue *queue, struct pv_virtqueue_element *element)
{
    struct pv_vhost_device *device = queue->device;
    device->stats.requests++;
    if (!element->request && element->request_size > 0) {
        pv_log_limited(PV_LOG_WARN, 5, "a request of %llu bytes; at most %u are taken",
                       (unsigned long long)element->request_size, PV_GPU_REQUEST_MAX);
        device->stats.refused++;
        refuse(element, GPU_ERR_OUT_OF_MEMORY);
    } else if (queue->index == PV_VHOST_QUEUE_CONTROL) {
        pv_gpu_control(device->gpu, element, element->request, (size_t)element->request_size);
    } else {
        pv_gpu_cursor(device->gpu, element->request, (size_t)element->request_size);
        pv_virtqueue_push(element, NULL, 0);
    }
}

static bool may_run(const struct pv_vhost_queue *queue)
{
    return queue->enabled && queue->ring.started && !queue->ring.broken && !queue->ring.lost;
}

static void on_idle(uv_idle_t *idle);

static void run_queue(struct pv_vhost_queue *queue)
{
    struct pv_vhost_device *device = queue->device;
    struct pv_virtqueue_element *element;
    int ret = 1;
    queue->more = false;
    if (!may_run(queue))
        return;

    device->in_turn = queue;
    device->turn_start_ns = pv_now_ns();
    for (unsigned int i = 0; i < PV_VHOST_TURN; i++) {
        ret = pv_virtqueue_pop(&queue->ring, &element);
        if (ret <= 0)
            break;
        dispatch(queue, element);
        if (pv_now_ns() - device->turn_start_ns >= PV_VHOST_TURN_NS)
            break;
    }
    device->in_turn = NULL;
    signal_queue(queue);
    if (ret < 0)
        pv_vhost_queue_signal_error(queue);
    if (ret == 1) {
        queue->more = true;
        uv_idle_start(device->idle, on_idle);
    }
}

static void on_idle(uv_idle_t *idle)
{
    struct pv_vhost_device *device = idle->data;
    bool more = pv_vhost_shmem_run_deferred(&device->shmem);
    for (unsigned int i = 0; i < PV_VHOST_QUEUES; i++) {
        if (device->queues[i].more)
            run_queue(&device->queues[i]);
        more |= device->queues[i].more;
    }
    if (!more)
        uv_idle_stop(idle);
}

static void on_kick(void *data, int events)
{
    struct pv_vhost_queue *queue = data;
    uint64_t count;
    ssize_t n = events == 0 ? 0 : read(pv_watch_fd(queue->kick), &count, sizeof(count));
    if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) {
        pv_error("%s queue: its kick fd is broken", queue->ring.params.name);
        pv_watch_destroy(queue->kick);
        queue->kick = NULL;
        return;
    }
    queue->device->stats.kicks++;
    run_queue(queue);
}

int pv_vhost_queue_set_kick(struct pv_vhost_queue *queue, int fd)
{
    struct pv_watch *kick;
    int ret = pv_watch_create(queue->device->params.loop, fd, UV_READABLE, on_kick, queue, &kick);
    if (ret < 0)
        return ret;
    pv_watch_destroy(queue->kick);
    queue->kick = kick;
    return 0;
}

/* Start what has become complete, and serve it: kicks may have come before. */
static void update_queues(struct pv_vhost_device *device)
{
    for (unsigned int i = 0; i < PV_VHOST_QUEUES; i++) {
        struct pv_vhost_queue *queue = &device->queues[i];
        if (!queue->enabled || !queue->kick || !queue->has_addresses || queue->ring.started)
            continue;
        queue->setup.packed = device->features & PV_VIRTIO_F_RING_PACKED;
        queue->setup.event_idx = device->features & PV_VIRTIO_F_EVENT_IDX;
        queue->setup.indirect = device->features & PV_VIRTIO_F_INDIRECT_DESC;
        if (pv_virtqueue_start(&queue->ring, &queue->setup) < 0) {
            queue->has_addresses = false; /* not again before it gets others */
            pv_vhost_queue_signal_error(queue);
            continue;
        }
        run_queue(queue);
        if (i == PV_VHOST_QUEUE_CONTROL)
            pv_vhost_shmem_start(&device->shmem, device->backend);
    }
}

static void tell_config_change(struct pv_vhost_device *device)
{
    if (!device->config_change_due || !device->backend || pv_backend_held(device->backend))
        return;
    device->config_change_due = false;
    pv_backend_send(device->backend, PV_VHOST_BACKEND_CONFIG_CHANGE, NULL, 0, -1, NULL, NULL);
}

void pv_vhost_queue_wake(struct pv_vhost_queue *queue)
{
    queue->more = true;
    uv_idle_start(queue->device->idle, on_idle);
}

void pv_vhost_queue_enable(struct pv_vhost_queue *queue, bool enable)
{
    struct pv_vhost_device *device = queue->device;
    bool was = queue->enabled;
    queue->enabled = enable;
    if (queue->index == PV_VHOST_QUEUE_CONTROL && device->backend)
        pv_backend_hold(device->backend, !enable);
    if (enable && !was)
        pv_vhost_queue_wake(queue);
}

/* The GPU has forgotten these requests. A driver that goes on later (its VM was paused) still waits
 * for them, so they are answered with an error. */
static void refuse_in_flight(struct pv_vhost_queue *queue)
{
    pv_list_for_each(node, &queue->ring.in_flight)
        refuse(pv_list_entry(node, struct pv_virtqueue_element, link), GPU_ERR_UNSPEC);
    signal_queue(queue);
}

uint32_t pv_vhost_queue_stop(struct pv_vhost_queue *queue)
{
    struct pv_vhost_device *device = queue->device;
    uint32_t base = queue->setup.base;
    if (queue->index == PV_VHOST_QUEUE_CONTROL) {
        if (device->backend)
            pv_backend_hold(device->backend, true);
        pv_gpu_reset(device->gpu);
        pv_vhost_shmem_stop(&device->shmem);
        forget_held(device);
        pv_vhost_update_window(device);
    }
    if (queue->ring.started) {
        refuse_in_flight(queue);
        base = pv_virtqueue_stop(&queue->ring);
    }
    pv_watch_destroy(queue->kick);
    queue->kick = NULL;
    queue->setup.base = base;
    queue->more = false;
    if (device->features & PV_VHOST_F_PROTOCOL_FEATURES)
        queue->enabled = false;
    return base;
}

void pv_vhost_remap_queues(struct pv_vhost_device *device)
{
    for (unsigned int i = 0; i < PV_VHOST_QUEUES; i++) {
        struct pv_vhost_queue *queue = &device->queues[i];
        if (pv_virtqueue_remap(&queue->ring, NULL) < 0)
            pv_vhost_queue_signal_error(queue);
        else
            pv_vhost_queue_wake(queue);
    }
}

void pv_vhost_update_window(struct pv_vhost_device *device)
{
    const uint64_t needed = PV_VHOST_PROTOCOL_BACKEND_REQ | PV_VHOST_PROTOCOL_SHMEM;
    /* frontends that ask for our features once ask before they settle this */
    bool can_map = !device->protocol_settled || (device->protocol_features & needed) == needed;
    pv_gpu_set_window(device->gpu, can_map ? device->params.gpu.window : PV_GPU_WINDOW_NONE);
}

/* ---- what the GPU asks of us ---- */

static void on_window_settled(void *data)
{
    struct pv_vhost_device *device = data;
    bool refused = pv_vhost_shmem_refused(&device->shmem);
    pv_list_for_each(node, &device->held)
    {
        struct held_answer *held = pv_list_entry(node, struct held_answer, link);
        if (refused)
            refuse(held->element, GPU_ERR_UNSPEC);
        else
            pv_virtqueue_push(held->element, held->bytes, held->size);
    }
    forget_held(device);
    signal_queue(&device->queues[PV_VHOST_QUEUE_CONTROL]);
}

static void answer(void *data, void *token, const void *response, size_t size)
{
    struct pv_vhost_device *device = data;
    struct pv_virtqueue_element *element = token;
    struct pv_vhost_queue *queue = &device->queues[PV_VHOST_QUEUE_CONTROL];
    if (must_hold(device, element)) {
        if (!hold(device, element, response, size))
            refuse(element, GPU_ERR_OUT_OF_MEMORY);
        return;
    }
    pv_virtqueue_push(element, response, size);
    if (device->in_turn == queue)
        pv_latency_add(&device->stats.at_once, pv_now_ns() - device->turn_start_ns);
    else
        signal_queue(queue);
}

static void config_changed(void *data)
{
    struct pv_vhost_device *device = data;
    device->config_change_due = true;
    tell_config_change(device);
}

static void map(void *data, uint64_t offset, uint64_t size, int fd, uint64_t fd_offset,
                uint64_t token)
{
    struct pv_vhost_device *device = data;
    pv_vhost_shmem_map(&device->shmem, offset, size, fd, fd_offset, token);
}

static void unmap(void *data, uint64_t offset, uint64_t size, uint64_t token)
{
    struct pv_vhost_device *device = data;
    pv_vhost_shmem_unmap(&device->shmem, offset, size, token);
}

static const struct pv_gpu_transport gpu_transport = {
    .answer = answer,
    .config_changed = config_changed,
    .map = map,
    .unmap = unmap,
};

static void on_defer(void *data)
{
    struct pv_vhost_device *device = data;
    uv_idle_start(device->idle, on_idle);
}

/* ---- the frontend ---- */

static void close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

/* Forget the frontend and all that it has given us. */
static void detach(struct pv_vhost_device *device)
{
    if (!device->watch)
        return;
    /* it has gone: nobody is to be told anything */
    for (unsigned int i = 0; i < PV_VHOST_QUEUES; i++) {
        struct pv_vhost_queue *queue = &device->queues[i];
        close_fd(&queue->call_fd);
        close_fd(&queue->err_fd);
        pv_vhost_queue_stop(queue);
        queue->setup = (struct pv_virtqueue_setup){0};
        queue->has_addresses = queue->enabled = false;
    }
    pv_backend_destroy(device->backend);
    device->backend = NULL;
    pv_guest_memory_set(device->memory, NULL, 0);
    pv_vhost_channel_finish(&device->channel);
    pv_watch_destroy(device->watch);
    device->watch = NULL;
    device->offered = device->features = device->protocol_features = 0;
    device->protocol_settled = false;
    device->regions_ignored = 0;
    device->config_change_due = false;
}

/* Handle one message and answer it. A negative errno ends the connection. */
static int serve_message(struct pv_vhost_device *device, struct pv_vhost_message *message)
{
    uint8_t reply[PV_VHOST_PAYLOAD_MAX];
    bool wants_ack = (message->flags & PV_VHOST_FLAG_NEED_REPLY) &&
                     (device->protocol_features & PV_VHOST_PROTOCOL_REPLY_ACK);
    device->stats.messages++;
    int size = pv_vhost_handle(device, message, reply);
    int ret = 0;
    if (pv_vhost_has_reply(message->request)) {
        if (size < 0)
            return size;
        ret = pv_vhost_send(&device->channel, message->request, PV_VHOST_FLAG_REPLY, reply,
                            (size_t)size, -1);
    } else if (wants_ack) {
        uint64_t failed = size < 0;
        ret = pv_vhost_send(&device->channel, message->request, PV_VHOST_FLAG_REPLY, &failed,
                            sizeof(failed), -1);
    }
    if (ret < 0)
        return ret;
    /* after the answer: QEMU waits for it, and takes our own requests only then */
    update_queues(device);
    tell_config_change(device);
    return 0;
}

static void lose_frontend(struct pv_vhost_device *device, int error)
{
    if (error == -EPIPE || error == -ECONNRESET)
        pv_info("the frontend has disconnected");
    else
        pv_error("connection to the frontend closed: %s", strerror(-error));
    detach(device);
    device->params.detached(device->params.data);
}

static void on_frontend(void *data, int events)
{
    struct pv_vhost_device *device = data;
    int ret = events == 0 ? -EPIPE : 0;
    if (ret == 0 && (events & UV_WRITABLE))
        ret = pv_vhost_flush(&device->channel);
    for (int i = 0; i < MESSAGES_PER_TURN && ret == 0; i++) {
        struct pv_vhost_message *message;
        ret = pv_vhost_receive(&device->channel, &message);
        if (ret <= 0)
            break;
        ret = serve_message(device, message);
    }
    if (ret >= 0) {
        bool full = pv_vhost_must_flush(&device->channel);
        pv_watch_set_events(device->watch, UV_READABLE | (full ? UV_WRITABLE : 0));
        return;
    }
    lose_frontend(device, ret);
}

int pv_vhost_device_attach(struct pv_vhost_device *device, int fd)
{
    if (device->watch) { /* perhaps it has gone, and the loop looked at the newcomer first */
        struct pollfd poll_fd = {.fd = pv_watch_fd(device->watch)};
        if (poll(&poll_fd, 1, 0) > 0 && (poll_fd.revents & (POLLHUP | POLLERR)))
            lose_frontend(device, -EPIPE);
    }
    if (device->watch)
        return -EBUSY;
    int ret =
        pv_watch_create(device->params.loop, fd, UV_READABLE, on_frontend, device, &device->watch);
    if (ret < 0)
        return ret;
    pv_vhost_channel_init(&device->channel, fd);
    pv_vhost_update_window(device);
    device->stats.frontends++;
    return 0;
}

bool pv_vhost_device_attached(const struct pv_vhost_device *device)
{
    return device->watch != NULL;
}

/* ---- life ---- */

static void init_queue(struct pv_vhost_device *device, unsigned int index)
{
    static const char *const names[PV_VHOST_QUEUES] = {"control", "cursor"};
    struct pv_vhost_queue *queue = &device->queues[index];
    queue->device = device;
    queue->index = index;
    queue->call_fd = queue->err_fd = -1;
    pv_virtqueue_init(&queue->ring, &(struct pv_virtqueue_params){
                                        .memory = device->memory,
                                        .name = names[index],
                                        .request_max = PV_GPU_REQUEST_MAX,
                                        .response_max = PV_GPU_RESPONSE_MAX,
                                    });
}

static int create_gpu(struct pv_vhost_device *device)
{
    struct pv_gpu_params params = device->params.gpu;
    params.loop = device->params.loop;
    params.memory = device->memory;
    params.transport = &gpu_transport;
    params.transport_data = device;
    return pv_gpu_create(&params, &device->gpu);
}

static void free_handle(uv_handle_t *handle)
{
    free(handle);
}

int pv_vhost_device_create(const struct pv_vhost_device_params *params,
                           struct pv_vhost_device **out)
{
    struct pv_vhost_device *device = calloc(1, sizeof(*device));
    uv_idle_t *idle = calloc(1, sizeof(*idle));
    int ret = -ENOMEM;
    if (!device || !idle)
        goto err_free;
    device->params = *params;
    pv_list_init(&device->held);
    ret = pv_guest_memory_create(&device->memory);
    if (ret < 0)
        goto err_free;
    ret = create_gpu(device);
    if (ret < 0)
        goto err_memory;
    for (unsigned int i = 0; i < PV_VHOST_QUEUES; i++)
        init_queue(device, i);
    pv_vhost_shmem_init(&device->shmem, &(struct pv_vhost_shmem_params){
                                            .gpu = device->gpu,
                                            .kind = params->gpu.window,
                                            .size = params->gpu.window_size,
                                            .settled = on_window_settled,
                                            .defer = on_defer,
                                            .data = device,
                                        });
    uv_idle_init(params->loop, idle);
    idle->data = device;
    device->idle = idle;
    *out = device;
    return 0;

err_memory:
    pv_guest_memory_destroy(device->memory);
err_free:
    free(idle);
    free(device);
    return ret;
}

void pv_vhost_device_destroy(struct pv_vhost_device *device)
{
    if (!device)
        return;
    detach(device);
    pv_vhost_shmem_finish(&device->shmem);
    pv_gpu_destroy(device->gpu);
    for (unsigned int i = 0; i < PV_VHOST_QUEUES; i++)
        pv_virtqueue_finish(&device->queues[i].ring);
    pv_guest_memory_destroy(device->memory);
    uv_close((uv_handle_t *)device->idle, free_handle);
    free(device);
}

struct pv_gpu *pv_vhost_device_gpu(struct pv_vhost_device *device)
{
    return device->gpu;
}

void pv_vhost_device_get_stats(const struct pv_vhost_device *device, struct pv_vhost_stats *out)
{
    *out = device->stats;
}
