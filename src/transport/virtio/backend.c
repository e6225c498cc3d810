#include "transport/virtio/backend.h"

#include "transport/virtio/message.h"
#include "transport/virtio/watch.h"
#include "util/list.h"
#include "util/log.h"
#include "util/os.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>

#define PV_LOG_MODULE "virtio"

#define REST_MIN_NS 1000000ull /* timers count in ms; many short requests add up to that */
#define REST_MAX_NS 50000000ull

struct request {
    struct pv_list link;
    uint32_t request;
    uint8_t payload[PV_BACKEND_PAYLOAD_MAX];
    size_t size;
    int fd; /* owned; -1: none */
    pv_backend_done done;
    void *data;
};

struct pv_backend {
    struct pv_vhost_channel channel;
    struct pv_watch *watch; /* owned; NULL: the channel has gone */
    bool held;
    struct pv_list waiting, sent;
    uv_timer_t timer; /* sends when the VMM has rested */
    uint64_t sent_ns, answered_ns;
    uint64_t rest_ns; /* that it should have had since answered_ns */
};

static void end_request(struct request *request, int result)
{
    pv_list_remove(&request->link);
    if (request->fd >= 0)
        close(request->fd);
    if (request->done)
        request->done(request->data, result);
    free(request);
}

static void cancel_all(struct pv_list *list)
{
    while (!pv_list_empty(list))
        end_request(pv_list_entry(list->next, struct request, link), -ECANCELED);
}

static void lose_channel(struct pv_backend *backend)
{
    uv_timer_stop(&backend->timer);
    pv_watch_destroy(backend->watch);
    backend->watch = NULL;
    pv_vhost_channel_finish(&backend->channel);
    cancel_all(&backend->sent);
    cancel_all(&backend->waiting);
}

static void on_rested(uv_timer_t *timer);

static uint64_t rest_left(const struct pv_backend *backend, uint64_t now)
{
    uint64_t rested = now - backend->answered_ns;
    return backend->rest_ns > rested ? backend->rest_ns - rested : 0;
}

/* Else pump() is called when it may. */
static bool may_send(struct pv_backend *backend, const struct request *request)
{
    if (!request->done)
        return true;
    if (!pv_list_empty(&backend->sent))
        return false;
    uint64_t rest = rest_left(backend, pv_now_ns());
    if (rest < REST_MIN_NS)
        return true;
    uv_timer_start(&backend->timer, on_rested, (rest + 999999) / 1000000, 0);
    return false;
}

/* Returns 0 when it is on its way, -EAGAIN when the socket is full. */
static int transmit(struct pv_backend *backend, struct request *request)
{
    if (pv_vhost_must_flush(&backend->channel))
        return -EAGAIN;
    int ret = pv_vhost_send(&backend->channel, request->request,
                            request->done ? PV_VHOST_FLAG_NEED_REPLY : 0, request->payload,
                            request->size, request->fd);
    if (ret < 0)
        return ret;
    pv_list_remove(&request->link);
    if (!request->done) {
        end_request(request, 0);
        return 0;
    }
    pv_list_append(&backend->sent, &request->link);
    backend->sent_ns = pv_now_ns();
    backend->rest_ns = rest_left(backend, backend->sent_ns);
    return 0;
}

/* Send what may go now. */
static void pump(struct pv_backend *backend)
{
    int ret = 0;
    if (!backend->watch)
        return;
    if (pv_vhost_must_flush(&backend->channel))
        ret = pv_vhost_flush(&backend->channel);
    while (ret == 0 && !backend->held && !pv_list_empty(&backend->waiting)) {
        struct request *next = pv_list_entry(backend->waiting.next, struct request, link);
        if (!may_send(backend, next))
            break;
        ret = transmit(backend, next);
    }
    if (ret < 0 && ret != -EAGAIN) {
        pv_warn("the VMM does not take requests any more: %s", strerror(-ret));
        lose_channel(backend);
        return;
    }
    bool blocked = pv_vhost_must_flush(&backend->channel) || ret == -EAGAIN;
    pv_watch_set_events(backend->watch, UV_READABLE | (blocked ? UV_WRITABLE : 0));
}

static void on_rested(uv_timer_t *timer)
{
    pump(timer->data);
}

/* An answer belongs to the request that asks for one. */
static int take_answer(struct pv_backend *backend, const struct pv_vhost_message *message)
{
    if (pv_list_empty(&backend->sent)) {
        pv_error("the VMM answers a request %u that was not made", message->request);
        return -EPROTO;
    }
    struct request *request = pv_list_entry(backend->sent.next, struct request, link);
    if (message->request != request->request || !(message->flags & PV_VHOST_FLAG_REPLY) ||
        message->size != sizeof(uint64_t)) {
        pv_error("the VMM answers request %u by message %u, flags 0x%x, %u bytes", request->request,
                 message->request, message->flags, message->size);
        return -EPROTO;
    }
    backend->answered_ns = pv_now_ns();
    backend->rest_ns += (backend->answered_ns - backend->sent_ns) / 2;
    if (backend->rest_ns > REST_MAX_NS)
        backend->rest_ns = REST_MAX_NS;
    uint64_t value;
    memcpy(&value, message->payload, sizeof(value));
    end_request(request, value == 0 ? 0 : -EIO);
    return 0;
}

static void on_ready(void *data, int events)
{
    struct pv_backend *backend = data;
    struct pv_vhost_message *message;
    int ret = events == 0 ? -EPIPE : 0;
    while (ret == 0 && backend->watch) {
        ret = pv_vhost_receive(&backend->channel, &message);
        if (ret <= 0)
            break;
        ret = take_answer(backend, message);
    }
    if (!backend->watch)
        return;
    if (ret < 0) {
        pv_info("the VMM has closed the channel for our requests");
        lose_channel(backend);
        return;
    }
    pump(backend);
}

int pv_backend_create(uv_loop_t *loop, int fd, struct pv_backend **out)
{
    struct pv_backend *backend = calloc(1, sizeof(*backend));
    if (!backend)
        return -ENOMEM;
    int ret = pv_watch_create(loop, fd, UV_READABLE, on_ready, backend, &backend->watch);
    if (ret < 0) {
        free(backend);
        return ret;
    }
    pv_vhost_channel_init(&backend->channel, fd);
    uv_timer_init(loop, &backend->timer);
    backend->timer.data = backend;
    backend->held = true;
    pv_list_init(&backend->waiting);
    pv_list_init(&backend->sent);
    *out = backend;
    return 0;
}

static void free_backend(uv_handle_t *timer)
{
    free(timer->data);
}

void pv_backend_destroy(struct pv_backend *backend)
{
    if (!backend)
        return;
    lose_channel(backend);
    uv_close((uv_handle_t *)&backend->timer, free_backend);
}

static int add_request(struct pv_backend *backend, const struct request *request, bool first)
{
    if (!backend->watch)
        return -EPIPE;
    struct request *node = malloc(sizeof(*node));
    if (!node)
        return -ENOMEM;
    *node = *request;
    if (request->fd >= 0) {
        node->fd = fcntl(request->fd, F_DUPFD_CLOEXEC, 0);
        if (node->fd < 0) {
            free(node);
            return -EMFILE;
        }
    }
    if (first)
        pv_list_prepend(&backend->waiting, &node->link);
    else
        pv_list_append(&backend->waiting, &node->link);
    /* it goes out when the socket says that it has room: on the loop's next turn, never in here,
     * so that nothing can end before the caller knows that it has begun */
    if (!backend->held)
        pv_watch_set_events(backend->watch, UV_READABLE | UV_WRITABLE);
    return 0;
}

int pv_backend_send(struct pv_backend *backend, uint32_t request, const void *payload, size_t size,
                    int fd, pv_backend_done done, void *data)
{
    struct request node = {.request = request, .size = size, .fd = fd, .done = done, .data = data};
    if (size > 0)
        memcpy(node.payload, payload, size);
    return add_request(backend, &node, false);
}

int pv_backend_send_first(struct pv_backend *backend, uint32_t request, const void *payload,
                          size_t size, pv_backend_done done, void *data)
{
    struct request node = {.request = request, .size = size, .fd = -1, .done = done, .data = data};
    memcpy(node.payload, payload, size);
    return add_request(backend, &node, true);
}

void pv_backend_hold(struct pv_backend *backend, bool hold)
{
    backend->held = hold;
    if (!hold && backend->watch && !pv_list_empty(&backend->waiting))
        pv_watch_set_events(backend->watch, UV_READABLE | UV_WRITABLE);
}

bool pv_backend_held(const struct pv_backend *backend)
{
    return backend->held;
}

void pv_backend_cancel_waiting(struct pv_backend *backend)
{
    cancel_all(&backend->waiting);
}
