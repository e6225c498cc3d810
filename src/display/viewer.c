#include "display/viewer.h"

#include "display/screen.h"
#include "util/fdpass.h"
#include "util/log.h"
#include "util/os.h"
#include "util/unix_socket.h"
#include "vm/rpc.h"

#include <errno.h>
#include <json-c/json.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <uv.h>

#define PV_LOG_MODULE "viewer"

/* Copies of a picture that changes meanwhile. The last one is kept: a frame with what has changed
 * follows. */
#define COPIES_MAX 8
/* Messages that wait for a device that does not read. It has a few for each frame. */
#define UNSENT_MAX       64u
#define STATUS_PERIOD_NS 1000000000u

struct picture {
    const uint8_t *map; /* struct pv_screen_picture; NULL: none */
    size_t map_size;
    /* as they were checked: another viewer could write there */
    uint32_t width, height, stride, offset;
};

struct scanout {
    struct pv_view view;
    struct picture picture;
    uint8_t *pixels; /* owned; view.pixels */
    bool pending;    /* a frame that was not taken */
    struct pv_rect damage;
    uint64_t serial, time_ns;
};

struct request {
    void (*got)(void *data, struct json_object *status);
    void *data;
};

struct pv_viewer {
    struct pv_viewer_params params;
    /* the control socket */
    uv_poll_t control;
    int control_fd; /* owned */
    struct pv_rpc_input lines;
    bool view_answered;
    struct request status; /* got NULL: none is on its way */
    uint64_t status_asked_ns;
    uv_timer_t status_timer; /* sends the request that came too soon */
    /* the screen socket; -1 until the device has given it */
    uv_poll_t screen;
    int screen_fd;     /* owned */
    int screen_events; /* that are polled for */
    union {
        struct pv_screen_message message;
        uint8_t bytes[sizeof(struct pv_screen_message) + PV_SCREEN_PAYLOAD_MAX];
    } input;
    size_t input_used;
    int fds[PV_FDS_MAX]; /* owned; of messages that are not complete */
    size_t fd_count;
    struct pv_screen_message unsent[UNSENT_MAX];
    size_t unsent_count, unsent_at; /* bytes of the first one that went */
    uint32_t scanout_count;
    struct scanout scanouts[PV_VIEWER_SCANOUTS_MAX];
    unsigned int handles; /* that are not closed yet */
    bool lost;
};

static void lose(struct pv_viewer *viewer, const char *why)
{
    if (viewer->lost)
        return;
    viewer->lost = true;
    pv_debug("the device has gone: %s", why);
    uv_poll_stop(&viewer->control);
    if (viewer->screen_fd >= 0)
        uv_poll_stop(&viewer->screen);
    uv_timer_stop(&viewer->status_timer);
    viewer->params.events->lost(viewer->params.data);
}

/* ---- messages to the device ---- */

static void on_screen(uv_poll_t *poll, int status, int events);

static void watch_screen(struct pv_viewer *viewer)
{
    int events = UV_READABLE | (viewer->unsent_count > 0 ? UV_WRITABLE : 0);
    if (events == viewer->screen_events)
        return;
    viewer->screen_events = events;
    uv_poll_start(&viewer->screen, events, on_screen);
}

/* Send what waits, as much as fits. */
static int send_unsent(struct pv_viewer *viewer)
{
    while (viewer->unsent_count > 0) {
        struct iovec piece = {
            .iov_base = (uint8_t *)viewer->unsent + viewer->unsent_at,
            .iov_len = viewer->unsent_count * sizeof(viewer->unsent[0]) - viewer->unsent_at,
        };
        ssize_t sent = pv_fds_send(viewer->screen_fd, NULL, 0, &piece, 1, false);
        if (sent == -EAGAIN)
            return 0;
        if (sent < 0)
            return (int)sent;
        viewer->unsent_at += (size_t)sent;
        size_t whole = viewer->unsent_at / sizeof(viewer->unsent[0]);
        viewer->unsent_count -= whole;
        viewer->unsent_at -= whole * sizeof(viewer->unsent[0]);
        memmove(viewer->unsent, viewer->unsent + whole,
                viewer->unsent_count * sizeof(viewer->unsent[0]));
    }
    return 0;
}

static void send_message(struct pv_viewer *viewer, const struct pv_screen_message *message)
{
    if (viewer->lost || viewer->screen_fd < 0)
        return;
    if (viewer->unsent_count == UNSENT_MAX) {
        lose(viewer, "it does not read");
        return;
    }
    viewer->unsent[viewer->unsent_count++] = *message;
    int ret = send_unsent(viewer);
    if (ret < 0)
        lose(viewer, strerror(-ret));
    else
        watch_screen(viewer);
}

/* ---- messages from the device ---- */

static void drop_picture(struct scanout *scanout)
{
    if (scanout->picture.map)
        munmap((void *)scanout->picture.map, scanout->picture.map_size);
    free(scanout->pixels);
    scanout->picture = (struct picture){0};
    scanout->pixels = NULL;
    scanout->pending = false;
    scanout->view.pixels = NULL;
    scanout->view.width = scanout->view.height = scanout->view.stride = 0;
}

static bool fits(const struct picture *picture)
{
    return picture->width > 0 && picture->height > 0 && picture->width <= picture->stride / 4 &&
           picture->stride % 4 == 0 && picture->offset <= picture->map_size &&
           (uint64_t)picture->stride * picture->height <= picture->map_size - picture->offset;
}

static int map_picture(struct scanout *scanout, int fd)
{
    struct stat info;
    if (fstat(fd, &info) < 0)
        return -errno;
    if ((uint64_t)info.st_size < sizeof(struct pv_screen_picture))
        return -EINVAL;
    void *map = mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED)
        return -errno;
    const volatile struct pv_screen_picture *shared = map;
    struct picture *picture = &scanout->picture;
    *picture = (struct picture){
        .map = map,
        .map_size = (size_t)info.st_size,
        .width = shared->width,
        .height = shared->height,
        .stride = shared->stride,
        .offset = shared->offset,
    };
    if (!fits(picture))
        return -EINVAL;
    struct pv_view *view = &scanout->view;
    scanout->pixels = calloc(picture->height, (size_t)picture->width * 4);
    if (!scanout->pixels)
        return -ENOMEM;
    view->width = picture->width;
    view->height = picture->height;
    view->stride = picture->width * 4;
    view->pixels = scanout->pixels;
    return 0;
}

/* `fd` is taken over; -1: the scanout is off. */
static int take_picture(struct pv_viewer *viewer, struct scanout *scanout,
                        const struct pv_screen_message *message, int fd)
{
    int ret = 0;
    drop_picture(scanout);
    if (message->width > 0)
        ret = map_picture(scanout, fd);
    if (fd >= 0)
        close(fd);
    if (ret == 0)
        viewer->params.events->resized(viewer->params.data, message->scanout);
    return ret;
}

static void take_mode(struct pv_viewer *viewer, struct scanout *scanout,
                      const struct pv_screen_message *message)
{
    scanout->view.plugged = message->width > 0;
    scanout->view.offered_width = message->width;
    scanout->view.offered_height = message->height;
    viewer->params.events->mode(viewer->params.data, message->scanout);
}

static void take_frame(struct pv_viewer *viewer, struct scanout *scanout,
                       const struct pv_screen_message *message)
{
    scanout->pending = true;
    scanout->damage = message->damage;
    scanout->serial = message->serial;
    scanout->time_ns = message->time_ns;
    viewer->params.events->frame(viewer->params.data, message->scanout);
}

static void take_cursor(struct pv_viewer *viewer, struct scanout *scanout,
                        const struct pv_screen_message *message, const uint8_t *payload)
{
    struct pv_view *view = &scanout->view;
    bool image = message->flags & PV_SCREEN_IMAGE;
    bool visible = message->flags & PV_SCREEN_VISIBLE;
    bool look = image || visible != view->cursor_visible || view->hot_x != message->hot_x ||
                view->hot_y != message->hot_y;
    if (image)
        memcpy(view->cursor, payload, sizeof(view->cursor));
    view->cursor_visible = visible;
    view->cursor_x = message->x;
    view->cursor_y = message->y;
    view->hot_x = message->hot_x;
    view->hot_y = message->hot_y;
    viewer->params.events->cursor(viewer->params.data, message->scanout, look);
}

static int next_fd(struct pv_viewer *viewer)
{
    if (viewer->fd_count == 0)
        return -1;
    int fd = viewer->fds[0];
    viewer->fd_count--;
    memmove(viewer->fds, viewer->fds + 1, viewer->fd_count * sizeof(viewer->fds[0]));
    return fd;
}

static int take_message(struct pv_viewer *viewer, const struct pv_screen_message *message,
                        const uint8_t *payload)
{
    if (message->scanout >= PV_VIEWER_SCANOUTS_MAX)
        return -EBADMSG;
    struct scanout *scanout = &viewer->scanouts[message->scanout];
    switch (message->type) {
    case PV_SCREEN_MODE:
        if (message->count > PV_VIEWER_SCANOUTS_MAX)
            return -EBADMSG;
        viewer->scanout_count = message->count;
        take_mode(viewer, scanout, message);
        return 0;
    case PV_SCREEN_PICTURE:
        return take_picture(viewer, scanout, message, message->width > 0 ? next_fd(viewer) : -1);
    case PV_SCREEN_FRAME:
        take_frame(viewer, scanout, message);
        return 0;
    case PV_SCREEN_CURSOR:
        if ((message->flags & PV_SCREEN_IMAGE) &&
            message->payload_size != sizeof(scanout->view.cursor))
            return -EBADMSG;
        take_cursor(viewer, scanout, message, payload);
        return 0;
    default:
        return 0; /* of a newer device */
    }
}

/* Bytes that the message at the start of the input needs. */
static size_t wanted_size(const struct pv_viewer *viewer)
{
    size_t header = sizeof(viewer->input.message);
    return viewer->input_used < header ? header : header + viewer->input.message.payload_size;
}

/* Some bytes of one message. Returns -EAGAIN when there are none. */
static int receive(struct pv_viewer *viewer)
{
    int fds[PV_FDS_MAX];
    size_t count;
    ssize_t size = pv_fds_receive(viewer->screen_fd, viewer->input.bytes + viewer->input_used,
                                  wanted_size(viewer) - viewer->input_used, false, fds, &count);
    if (size <= 0)
        return size == 0 ? -EPIPE : (int)size;
    viewer->input_used += (size_t)size;
    for (size_t i = 0; i < count; i++) {
        if (viewer->fd_count < PV_FDS_MAX)
            viewer->fds[viewer->fd_count++] = fds[i];
        else if (fds[i] >= 0)
            close(fds[i]);
    }
    if (viewer->input_used < sizeof(viewer->input.message))
        return 0;
    if (viewer->input.message.payload_size > PV_SCREEN_PAYLOAD_MAX)
        return -EBADMSG;
    if (viewer->input_used < wanted_size(viewer))
        return 0;
    viewer->input_used = 0;
    return take_message(viewer, &viewer->input.message,
                        viewer->input.bytes + sizeof(viewer->input.message));
}

static void on_screen(uv_poll_t *poll, int status, int events)
{
    struct pv_viewer *viewer = poll->data;
    int ret = status < 0 ? status : 0;
    if (ret == 0 && (events & UV_WRITABLE)) {
        ret = send_unsent(viewer);
        if (ret == 0)
            watch_screen(viewer);
    }
    while (ret == 0 && !viewer->lost)
        ret = receive(viewer);
    if (ret < 0 && ret != -EAGAIN)
        lose(viewer, strerror(-ret));
}

/* ---- the control socket ---- */

static int send_command(struct pv_viewer *viewer, const char *line)
{
    struct iovec piece = {.iov_base = (void *)line, .iov_len = strlen(line)};
    ssize_t sent = pv_fds_send(viewer->control_fd, NULL, 0, &piece, 1, false);
    return sent < 0 ? (int)sent : sent < (ssize_t)strlen(line) ? -EAGAIN : 0;
}

static void take_view_answer(struct pv_viewer *viewer, struct json_object *answer)
{
    struct json_object *error;
    viewer->view_answered = true;
    int fd = next_fd(viewer);
    if (fd < 0) {
        bool said = json_object_object_get_ex(answer, "error", &error);
        pv_error("the device does not show its screens: %s",
                 said ? json_object_get_string(error) : "it sent no socket");
        lose(viewer, "no screens");
        return;
    }
    int ret = uv_poll_init(viewer->params.loop, &viewer->screen, fd);
    if (ret < 0) {
        close(fd);
        lose(viewer, uv_strerror(ret));
        return;
    }
    viewer->handles++;
    viewer->screen.data = viewer;
    viewer->screen_fd = fd;
    watch_screen(viewer);
}

static void take_answer(void *data, struct json_object *answer)
{
    struct pv_viewer *viewer = data;
    struct request status = viewer->status;
    if (viewer->lost)
        return;
    if (!viewer->view_answered) {
        take_view_answer(viewer, answer);
        return;
    }
    viewer->status = (struct request){0};
    if (status.got)
        status.got(status.data, answer);
}

static void on_control(uv_poll_t *poll, int status, int events)
{
    struct pv_viewer *viewer = poll->data;
    char bytes[4096];
    int fds[PV_FDS_MAX];
    size_t count;
    ssize_t size = pv_fds_receive(viewer->control_fd, bytes, sizeof(bytes), false, fds, &count);
    for (size_t i = 0; size > 0 && i < count; i++) {
        if (viewer->view_answered || viewer->fd_count == PV_FDS_MAX)
            close(fds[i]);
        else
            viewer->fds[viewer->fd_count++] = fds[i];
    }
    if (size == -EAGAIN)
        return;
    int ret = size > 0 ? pv_rpc_input_feed(&viewer->lines, bytes, (size_t)size, take_answer, viewer)
                       : -EPIPE;
    if (ret < 0)
        lose(viewer, strerror(-ret));
}

static void send_status(uv_timer_t *timer)
{
    struct pv_viewer *viewer = timer->data;
    viewer->status_asked_ns = pv_now_ns();
    if (send_command(viewer, "{\"command\": \"status\"}\n") < 0)
        lose(viewer, "it reads no commands");
}

void pv_viewer_ask_status(struct pv_viewer *viewer,
                          void (*got)(void *data, struct json_object *status), void *data)
{
    bool asked = viewer->status.got;
    if (viewer->lost || asked || !viewer->view_answered) {
        if (viewer->lost || !asked)
            got(data, NULL);
        return;
    }
    viewer->status = (struct request){.got = got, .data = data};
    uint64_t since = pv_now_ns() - viewer->status_asked_ns;
    uint64_t wait = since >= STATUS_PERIOD_NS ? 0 : STATUS_PERIOD_NS - since;
    uv_timer_start(&viewer->status_timer, send_status, (wait + 999999) / 1000000, 0);
}

/* ---- life ---- */

int pv_viewer_create(const struct pv_viewer_params *params, struct pv_viewer **out)
{
    struct pv_viewer *viewer = calloc(1, sizeof(*viewer));
    if (!viewer)
        return -ENOMEM;
    viewer->params = *params;
    viewer->screen_fd = -1;
    int ret = params->control_path ? pv_unix_connect(params->control_path) : params->control_fd;
    viewer->control_fd = ret;
    if (ret < 0) {
        pv_error("no device at %s: %s", params->control_path, strerror(-ret));
        goto err_free;
    }
    ret = uv_poll_init(params->loop, &viewer->control, viewer->control_fd);
    if (ret < 0) {
        pv_error("the control socket cannot be used: %s", uv_strerror(ret));
        goto err_close;
    }
    uv_timer_init(params->loop, &viewer->status_timer);
    uv_unref((uv_handle_t *)&viewer->status_timer);
    viewer->control.data = viewer->status_timer.data = viewer;
    viewer->handles = 2;
    ret = send_command(viewer, "{\"command\": \"view\"}\n");
    if (ret < 0) {
        pv_error("the device takes no commands: %s", strerror(-ret));
        viewer->lost = true;
        pv_viewer_destroy(viewer);
        return ret;
    }
    uv_poll_start(&viewer->control, UV_READABLE, on_control);
    *out = viewer;
    return 0;

err_close:
    if (params->control_path)
        close(viewer->control_fd);
err_free:
    free(viewer);
    return ret;
}

static void on_closed(uv_handle_t *handle)
{
    struct pv_viewer *viewer = handle->data;
    if (--viewer->handles == 0)
        free(viewer);
}

void pv_viewer_destroy(struct pv_viewer *viewer)
{
    if (!viewer)
        return;
    viewer->lost = true;
    uv_poll_stop(&viewer->control);
    close(viewer->control_fd);
    uv_close((uv_handle_t *)&viewer->control, on_closed);
    if (viewer->screen_fd >= 0) {
        uv_poll_stop(&viewer->screen);
        close(viewer->screen_fd);
        uv_close((uv_handle_t *)&viewer->screen, on_closed);
    }
    uv_close((uv_handle_t *)&viewer->status_timer, on_closed);
    for (size_t i = 0; i < PV_VIEWER_SCANOUTS_MAX; i++)
        drop_picture(&viewer->scanouts[i]);
    for (int fd = next_fd(viewer); fd >= 0; fd = next_fd(viewer))
        close(fd);
    pv_rpc_input_finish(&viewer->lines);
}

/* ---- what there is to see ---- */

uint32_t pv_viewer_scanout_count(const struct pv_viewer *viewer)
{
    return viewer->scanout_count;
}

const struct pv_view *pv_viewer_get(const struct pv_viewer *viewer, uint32_t scanout)
{
    return &viewer->scanouts[scanout % PV_VIEWER_SCANOUTS_MAX].view;
}

static struct pv_rect clip(const struct pv_view *view, struct pv_rect rect)
{
    rect.x = rect.x < view->width ? rect.x : view->width;
    rect.y = rect.y < view->height ? rect.y : view->height;
    if (rect.width > view->width - rect.x)
        rect.width = view->width - rect.x;
    if (rect.height > view->height - rect.y)
        rect.height = view->height - rect.y;
    return rect;
}

static void copy_rect(const struct scanout *scanout, const struct pv_rect *rect)
{
    const struct picture *picture = &scanout->picture;
    uint32_t from_stride = picture->stride, to_stride = scanout->view.stride;
    const uint8_t *from =
        picture->map + picture->offset + (size_t)rect->y * from_stride + (size_t)rect->x * 4;
    uint8_t *to = scanout->pixels + (size_t)rect->y * to_stride + (size_t)rect->x * 4;
    for (uint32_t y = 0; y < rect->height; y++, from += from_stride, to += to_stride)
        memcpy(to, from, (size_t)rect->width * 4);
}

/* pairs with the device's stores around its own copy (publisher.c) */
static void copy_whole(const struct scanout *scanout, const struct pv_rect *rect)
{
    const struct pv_screen_picture *picture = (const void *)scanout->picture.map;
    for (int i = 0; i < COPIES_MAX; i++) {
        uint32_t before = atomic_load_explicit(&picture->sequence, memory_order_acquire);
        if (before % 2 != 0 && i + 1 < COPIES_MAX) {
            sched_yield();
            continue;
        }
        copy_rect(scanout, rect);
        atomic_thread_fence(memory_order_acquire);
        if (atomic_load_explicit(&picture->sequence, memory_order_relaxed) == before)
            return;
    }
}

bool pv_viewer_take(struct pv_viewer *viewer, uint32_t index, struct pv_rect *damage)
{
    struct scanout *scanout = &viewer->scanouts[index % PV_VIEWER_SCANOUTS_MAX];
    if (!scanout->pending)
        return false;
    scanout->pending = false;
    *damage = clip(&scanout->view, scanout->damage);
    bool any = scanout->pixels && damage->width > 0 && damage->height > 0;
    if (any) {
        copy_whole(scanout, damage);
        scanout->view.frame_time_ns = scanout->time_ns;
    }
    send_message(viewer, &(struct pv_screen_message){
                             .type = PV_SCREEN_TAKEN,
                             .scanout = index,
                             .serial = scanout->serial,
                         });
    return any;
}

void pv_viewer_ask_size(struct pv_viewer *viewer, uint32_t scanout, uint32_t width, uint32_t height)
{
    send_message(viewer, &(struct pv_screen_message){
                             .type = PV_SCREEN_SIZE,
                             .scanout = scanout,
                             .width = width,
                             .height = height,
                         });
}

void pv_viewer_place(const struct pv_viewer *viewer, uint32_t scanout, struct pv_place *out)
{
    *out = (struct pv_place){0};
    for (uint32_t i = 0; i < PV_VIEWER_SCANOUTS_MAX; i++) {
        const struct pv_view *view = &viewer->scanouts[i].view;
        if (i == scanout)
            out->x = out->total_width;
        out->total_width += view->width;
        if (out->total_height < view->height)
            out->total_height = view->height;
    }
}
