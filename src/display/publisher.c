#include "display/publisher.h"

#include "display/picture.h"
#include "display/screen.h"
#include "util/fdpass.h"
#include "util/list.h"
#include "util/log.h"
#include "util/os.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <uv.h>

#define PV_LOG_MODULE "publisher"

#define DEFAULT_REFRESH_MHZ 60000u
#define NS_PER_SECOND       UINT64_C(1000000000)
/* Frames whose times are kept: a median settles in seconds. */
#define HISTORY 257u
/* Messages of a viewer that are read before others get their turn. */
#define MESSAGES_AT_ONCE 32
/* Bytes of messages that a viewer has not read. Pictures among them are memory of old ones: few. */
#define UNREAD_SIZE 4096

struct scanout {
    struct pv_cursor cursor;
    uint8_t cursor_image[PV_CURSOR_SIDE * PV_CURSOR_SIDE * 4];
    uint32_t mode_width, mode_height;
    uint32_t width, height;     /* that the guest shows; 0: off */
    struct pv_picture *picture; /* owned; NULL without viewers */
    /* pacing: see publisher.h */
    uint64_t tick_ns;       /* of the frame that was shown last; may be yet to come */
    uint32_t waiting;       /* flushes that are to be shown at tick_ns, as one frame */
    struct pv_rect flushed; /* by them, as the guest says */
    struct pv_rect damage;  /* by them, what differs */
    uint64_t damage_ns;     /* when the oldest of them came */
    /* figures */
    uint64_t frames, shown, dropped;
    uint64_t times[HISTORY]; /* of frames, a ring: frames % HISTORY is the next */
};

/* What a viewer has not been told yet. */
struct news {
    bool mode, picture, cursor, cursor_image;
    struct pv_rect damage; /* empty: no frame */
    uint64_t damage_ns;
    uint64_t serial; /* of the last FRAME */
    bool busy;       /* which has not been TAKEN */
};

/* News become a message when the socket has room for it: nothing queues up. */
struct viewer {
    struct pv_list node; /* in publisher->viewers, empty when it is leaving */
    struct pv_publisher *publisher;
    uv_poll_t poll;
    int fd;
    int events; /* that are polled for */
    struct news news[PV_PUBLISHER_SCANOUTS_MAX];
    size_t in_size;
    struct pv_screen_message in;
    size_t out_size, out_sent; /* the rest of a message that has begun to leave */
    struct {
        struct pv_screen_message message;
        uint8_t payload[PV_SCREEN_PAYLOAD_MAX];
    } out;
};

struct pv_publisher {
    struct pv_display base;
    struct pv_publisher_params params;
    uint64_t period_ns;
    uv_timer_t timer; /* runs while a frame waits for its tick */
    struct pv_list viewers;
    uint32_t viewer_count;
    uint64_t picture_bytes;
    bool refreshing; /* what is presented is for a viewer, not a frame of the guest's */
    struct scanout scanouts[];
};

static struct pv_publisher *publisher_of(struct pv_display *display)
{
    return (struct pv_publisher *)display; /* base is first */
}

/* ---- to a viewer ---- */

static void on_closed(uv_handle_t *handle)
{
    free(handle->data);
}

static void drop_picture(struct pv_publisher *publisher, struct scanout *scanout)
{
    if (!scanout->picture)
        return;
    publisher->picture_bytes -= pv_picture_size(scanout->width, scanout->height);
    pv_picture_destroy(scanout->picture);
    scanout->picture = NULL;
    scanout->damage = (struct pv_rect){0};
}

static bool has_left(const struct viewer *viewer)
{
    return uv_is_closing((const uv_handle_t *)&viewer->poll);
}

static void disconnect(struct viewer *viewer)
{
    struct pv_publisher *publisher = viewer->publisher;
    pv_list_remove(&viewer->node);
    uv_close((uv_handle_t *)&viewer->poll, on_closed);
    close(viewer->fd);
    if (--publisher->viewer_count > 0)
        return;
    for (uint32_t i = 0; i < publisher->params.scanout_count; i++)
        drop_picture(publisher, &publisher->scanouts[i]);
}

/* Put what is most urgent into viewer->out. False: there is nothing. `told` is what the viewer will
 * know when the message is on its way; `fd` goes with it. */
static bool next_message(struct viewer *viewer, uint32_t id, struct news *told, int *fd)
{
    const struct scanout *scanout = &viewer->publisher->scanouts[id];
    struct pv_screen_message *message = &viewer->out.message;
    const struct news *news = &viewer->news[id];
    *message = (struct pv_screen_message){.scanout = id};
    *told = *news;
    *fd = -1;
    if (news->mode) {
        message->type = PV_SCREEN_MODE;
        message->count = viewer->publisher->params.scanout_count;
        message->width = scanout->mode_width;
        message->height = scanout->mode_height;
        told->mode = false;
    } else if (news->picture) {
        message->type = PV_SCREEN_PICTURE;
        told->picture = told->busy = false;
        if (scanout->picture) {
            *fd = pv_picture_fd(scanout->picture);
            message->width = scanout->width;
            message->height = scanout->height;
        }
    } else if (news->cursor || news->cursor_image) {
        const struct pv_cursor *cursor = &scanout->cursor;
        message->type = PV_SCREEN_CURSOR;
        message->flags = cursor->pixels ? PV_SCREEN_VISIBLE : 0;
        message->x = cursor->x + (int32_t)cursor->hot_x;
        message->y = cursor->y + (int32_t)cursor->hot_y;
        message->hot_x = cursor->hot_x;
        message->hot_y = cursor->hot_y;
        if (news->cursor_image && cursor->pixels) {
            message->flags |= PV_SCREEN_IMAGE;
            message->payload_size = sizeof(scanout->cursor_image);
            memcpy(viewer->out.payload, scanout->cursor_image, sizeof(scanout->cursor_image));
            told->cursor_image = false;
        }
        told->cursor = false;
        if (!cursor->pixels)
            told->cursor_image = false;
    } else if (!pv_rect_is_empty(&news->damage) && !news->busy) {
        message->type = PV_SCREEN_FRAME;
        message->serial = ++told->serial;
        message->damage = news->damage;
        message->time_ns = news->damage_ns;
        told->damage = (struct pv_rect){0};
        told->busy = true;
    } else {
        return false;
    }
    return true;
}

/* Send what is left in viewer->out. 0: all of it; -EAGAIN: some; or -EPIPE and the like. */
static int send_rest(struct viewer *viewer, int fd)
{
    const struct iovec rest = {(uint8_t *)&viewer->out + viewer->out_sent,
                               viewer->out_size - viewer->out_sent};
    ssize_t sent = pv_fds_send(viewer->fd, &fd, fd >= 0 ? 1 : 0, &rest, 1, false);
    if (sent < 0)
        return (int)sent;
    viewer->out_sent += (size_t)sent;
    return viewer->out_sent == viewer->out_size ? 0 : -EAGAIN;
}

static int send_news_of(struct viewer *viewer, uint32_t id)
{
    struct news told;
    int fd, ret = 0;
    while (ret == 0 && next_message(viewer, id, &told, &fd)) {
        viewer->out_sent = 0;
        viewer->out_size = sizeof(viewer->out.message) + viewer->out.message.payload_size;
        ret = send_rest(viewer, fd);
        if (viewer->out_sent > 0)
            viewer->news[id] = told;
        else
            viewer->out_size = 0; /* it is made anew when there is room */
    }
    return ret;
}

static void on_poll(uv_poll_t *poll, int status, int events);

/* Tell a viewer as much as it takes. It may be gone afterwards. */
static void send_news(struct viewer *viewer)
{
    int ret = viewer->out_sent < viewer->out_size ? send_rest(viewer, -1) : 0;
    for (uint32_t i = 0; ret == 0 && i < viewer->publisher->params.scanout_count; i++)
        ret = send_news_of(viewer, i);
    if (ret < 0 && ret != -EAGAIN) {
        disconnect(viewer);
        return;
    }
    int events = UV_READABLE | (ret == -EAGAIN ? UV_WRITABLE : 0);
    if (events != viewer->events && uv_poll_start(&viewer->poll, events, on_poll) == 0)
        viewer->events = events;
}

static void send_all_news(struct pv_publisher *publisher)
{
    pv_list_for_each(node, &publisher->viewers) send_news(pv_list_entry(node, struct viewer, node));
}

/* ---- from a viewer ---- */

/* False: it has lost its mind. */
static bool take_message(struct viewer *viewer)
{
    const struct pv_screen_message *message = &viewer->in;
    struct pv_publisher *publisher = viewer->publisher;
    if (message->payload_size != 0 || message->scanout >= publisher->params.scanout_count)
        return false;
    struct news *news = &viewer->news[message->scanout];
    switch (message->type) {
    case PV_SCREEN_TAKEN:
        if (message->serial == news->serial)
            news->busy = false;
        return message->serial <= news->serial;
    case PV_SCREEN_SIZE:
        if (message->width >= PV_SCREEN_SIDE_MIN && message->width <= PV_SCREEN_SIDE_MAX &&
            message->height >= PV_SCREEN_SIDE_MIN && message->height <= PV_SCREEN_SIDE_MAX)
            publisher->params.size_wanted(publisher->params.data, message->scanout, message->width,
                                          message->height);
        return true;
    default:
        return false;
    }
}

/* False: it is to go. It may have gone meanwhile: what it wanted was news to itself, too. */
static bool receive(struct viewer *viewer)
{
    for (int i = 0; i < MESSAGES_AT_ONCE && !has_left(viewer); i++) {
        ssize_t got = recv(viewer->fd, (uint8_t *)&viewer->in + viewer->in_size,
                           sizeof(viewer->in) - viewer->in_size, MSG_DONTWAIT);
        if (got <= 0)
            return got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR);
        viewer->in_size += (size_t)got;
        if (viewer->in_size < sizeof(viewer->in))
            continue;
        viewer->in_size = 0;
        if (!take_message(viewer)) {
            pv_log_limited(PV_LOG_WARN, 2, "a viewer sends nonsense (message %u); disconnected",
                           viewer->in.type);
            return false;
        }
    }
    return true;
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
    struct viewer *viewer = poll->data;
    bool good = status == 0 && receive(viewer);
    (void)events;
    if (has_left(viewer))
        return;
    if (good)
        send_news(viewer);
    else
        disconnect(viewer);
}

int pv_publisher_add_viewer(struct pv_publisher *publisher, int fd)
{
    const struct pv_publisher_params *params = &publisher->params;
    if (publisher->viewer_count >= PV_PUBLISHER_VIEWERS_MAX)
        return -EUSERS;
    struct viewer *viewer = calloc(1, sizeof(*viewer));
    if (!viewer)
        return -ENOMEM;
    int ret = uv_poll_init(params->loop, &viewer->poll, fd);
    if (ret < 0) {
        free(viewer);
        return ret;
    }
    setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &(int){UNREAD_SIZE}, sizeof(int));
    viewer->poll.data = viewer;
    viewer->publisher = publisher;
    viewer->fd = fd;
    pv_list_append(&publisher->viewers, &viewer->node);
    publisher->viewer_count++;
    for (uint32_t i = 0; i < params->scanout_count; i++) {
        const struct scanout *scanout = &publisher->scanouts[i];
        viewer->news[i] = (struct news){
            .mode = true,
            .picture = true,
            .cursor = true,
            .cursor_image = true,
            .damage = {0, 0, scanout->picture ? scanout->width : 0, scanout->height},
            .damage_ns = pv_now_ns(),
        };
        publisher->refreshing = true;
        if (scanout->width != 0 && !scanout->picture)
            params->refresh_wanted(params->data, i);
        publisher->refreshing = false;
    }
    send_news(viewer);
    return 0;
}

/* ---- frames ---- */

static void tell_of_picture(struct pv_publisher *publisher, uint32_t id)
{
    const struct scanout *scanout = &publisher->scanouts[id];
    pv_list_for_each(node, &publisher->viewers)
    {
        struct news *news = &pv_list_entry(node, struct viewer, node)->news[id];
        news->picture = true;
        news->damage =
            (struct pv_rect){0, 0, scanout->picture ? scanout->width : 0, scanout->height};
        news->damage_ns = pv_now_ns();
    }
}

static void make_picture(struct pv_publisher *publisher, struct scanout *scanout)
{
    uint64_t size = pv_picture_size(scanout->width, scanout->height);
    int ret = -ENOMEM;
    if (size <= PV_PUBLISHER_BYTES_MAX - publisher->picture_bytes)
        ret = pv_picture_create(scanout->width, scanout->height, &scanout->picture);
    if (ret < 0)
        pv_log_limited(PV_LOG_ERROR, 1, "no memory for a picture of %ux%u: error %d",
                       scanout->width, scanout->height, -ret);
    else
        publisher->picture_bytes += size;
}

/* Into shared memory, if somebody looks. */
static int copy_frame(struct pv_publisher *publisher, const struct pv_frame *frame)
{
    struct scanout *scanout = &publisher->scanouts[frame->scanout];
    struct pv_frame whole = *frame;
    bool is_new = !scanout->picture;
    if (publisher->viewer_count == 0)
        return 0;
    if (is_new) {
        make_picture(publisher, scanout);
        if (!scanout->picture)
            return 0; /* not the guest's fault */
        whole.damage = (struct pv_rect){0, 0, frame->width, frame->height};
    }
    struct pv_rect changed;
    int ret = pv_picture_update(scanout->picture, &whole, &changed);
    if (is_new)
        tell_of_picture(publisher, frame->scanout);
    else
        scanout->damage = pv_rect_union(&scanout->damage, &changed);
    return ret;
}

/* Viewers may see what has been copied. */
static void show(struct pv_publisher *publisher, uint32_t id)
{
    struct scanout *scanout = &publisher->scanouts[id];
    if (pv_rect_is_empty(&scanout->damage))
        return;
    pv_list_for_each(node, &publisher->viewers)
    {
        struct news *news = &pv_list_entry(node, struct viewer, node)->news[id];
        if (pv_rect_is_empty(&news->damage))
            news->damage_ns = scanout->damage_ns;
        news->damage = pv_rect_union(&news->damage, &scanout->damage);
    }
    scanout->damage = (struct pv_rect){0};
}

static void on_timer(uv_timer_t *timer);

/* Run the timer until the first tick at which a frame is to be shown. */
static void set_timer(struct pv_publisher *publisher, uint64_t now)
{
    uint64_t due = UINT64_MAX;
    for (uint32_t i = 0; i < publisher->params.scanout_count; i++) {
        const struct scanout *scanout = &publisher->scanouts[i];
        if (scanout->waiting > 0 && scanout->tick_ns < due)
            due = scanout->tick_ns;
    }
    if (due == UINT64_MAX)
        return;
    uint64_t wait = due > now ? due - now : 0;
    uv_update_time(publisher->params.loop);
    uv_timer_start(&publisher->timer, on_timer, (wait + 999999) / 1000000, 0);
}

/* All that waits is one frame, and its tick is the next. */
static void show_waiting(struct pv_publisher *publisher, uint32_t id, uint64_t now)
{
    struct scanout *scanout = &publisher->scanouts[id];
    uint64_t next = scanout->tick_ns + publisher->period_ns;
    scanout->tick_ns = next > now ? next : now;
    scanout->shown += scanout->waiting;
    scanout->waiting = 0;
    show(publisher, id);
}

static void on_timer(uv_timer_t *timer)
{
    struct pv_publisher *publisher = timer->data;
    uint64_t now = pv_now_ns();
    for (uint32_t i = 0; i < publisher->params.scanout_count; i++) {
        if (publisher->scanouts[i].waiting > 0 && publisher->scanouts[i].tick_ns <= now)
            show_waiting(publisher, i, now);
    }
    set_timer(publisher, now);
    send_all_news(publisher);
}

static void count_frame(struct scanout *scanout, const struct pv_rect *damage, uint64_t now)
{
    scanout->times[scanout->frames++ % HISTORY] = now;
    if (scanout->waiting > 0 && pv_rect_contains(damage, &scanout->flushed)) {
        scanout->dropped += scanout->waiting;
        scanout->waiting = 0;
        scanout->flushed = (struct pv_rect){0};
    }
    if (scanout->waiting++ == 0) {
        scanout->flushed = (struct pv_rect){0};
        scanout->damage_ns = now;
    }
    scanout->flushed = pv_rect_union(&scanout->flushed, damage);
}

/* The guest shows something of another size, or nothing any more. */
static void change_size(struct pv_publisher *publisher, const struct pv_frame *frame)
{
    struct scanout *scanout = &publisher->scanouts[frame->scanout];
    drop_picture(publisher, scanout);
    scanout->width = frame->width;
    scanout->height = frame->height;
    tell_of_picture(publisher, frame->scanout);
}

static int present(struct pv_display *display, const struct pv_frame *frame)
{
    struct pv_publisher *publisher = publisher_of(display);
    struct scanout *scanout = &publisher->scanouts[frame->scanout];
    uint64_t now = pv_now_ns();
    int ret = 0;
    if (frame->width != scanout->width || frame->height != scanout->height)
        change_size(publisher, frame);
    if (frame->width == 0) {
        scanout->shown += scanout->waiting;
        scanout->waiting = 0;
    } else {
        ret = copy_frame(publisher, frame);
        if (publisher->refreshing)
            return ret;
        count_frame(scanout, &frame->damage, now);
        if (now >= scanout->tick_ns)
            show_waiting(publisher, frame->scanout, now);
        else
            set_timer(publisher, now);
    }
    send_all_news(publisher);
    return ret;
}

static uint64_t taken_at(struct pv_display *display, uint32_t id, uint64_t now_ns)
{
    const struct pv_publisher *publisher = publisher_of(display);
    const struct scanout *scanout = &publisher->scanouts[id];
    uint64_t tick = scanout->tick_ns + (scanout->waiting > 0 ? publisher->period_ns : 0);
    return tick > now_ns ? tick : now_ns;
}

/* ---- cursor and size ---- */

static void show_cursor(struct pv_display *display, const struct pv_cursor *cursor)
{
    struct pv_publisher *publisher = publisher_of(display);
    struct scanout *scanout = &publisher->scanouts[cursor->scanout];
    bool image = !cursor->moved_only && cursor->pixels;
    scanout->cursor = *cursor;
    if (image)
        memcpy(scanout->cursor_image, cursor->pixels, sizeof(scanout->cursor_image));
    if (cursor->pixels)
        scanout->cursor.pixels = scanout->cursor_image;
    pv_list_for_each(node, &publisher->viewers)
    {
        struct news *news = &pv_list_entry(node, struct viewer, node)->news[cursor->scanout];
        news->cursor = true;
        news->cursor_image = news->cursor_image || image;
    }
    send_all_news(publisher);
}

static void set_mode(struct pv_display *display, uint32_t id, uint32_t width, uint32_t height)
{
    struct pv_publisher *publisher = publisher_of(display);
    publisher->scanouts[id].mode_width = width;
    publisher->scanouts[id].mode_height = height;
    pv_list_for_each(node, &publisher->viewers) pv_list_entry(node, struct viewer, node)
        ->news[id]
        .mode = true;
    send_all_news(publisher);
}

/* ---- figures ---- */

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static void measure_intervals(const struct scanout *scanout, struct pv_publisher_stats *out)
{
    uint64_t intervals[HISTORY];
    uint64_t known = scanout->frames < HISTORY ? scanout->frames : HISTORY;
    size_t count = 0;
    for (uint64_t i = 1; i < known; i++) {
        uint64_t frame = scanout->frames - known + i;
        uint64_t interval = scanout->times[frame % HISTORY] - scanout->times[(frame - 1) % HISTORY];
        if (interval < NS_PER_SECOND)
            intervals[count++] = interval;
    }
    if (count == 0)
        return;
    qsort(intervals, count, sizeof(intervals[0]), compare);
    out->median_ns = intervals[count / 2];
    out->p99_ns = intervals[(count * 99 - 1) / 100];
}

static double rate(const struct scanout *scanout, uint64_t now)
{
    uint64_t count = 0, oldest = now;
    while (count < HISTORY && count < scanout->frames) {
        uint64_t time = scanout->times[(scanout->frames - 1 - count) % HISTORY];
        if (now - time >= NS_PER_SECOND)
            return (double)count;
        oldest = time;
        count++;
    }
    if (count < HISTORY || now == oldest)
        return (double)count;
    return (double)count * (double)NS_PER_SECOND / (double)(now - oldest);
}

void pv_publisher_get_stats(const struct pv_publisher *publisher, uint32_t id,
                            struct pv_publisher_stats *out)
{
    *out = (struct pv_publisher_stats){0};
    if (id >= publisher->params.scanout_count)
        return;
    const struct scanout *scanout = &publisher->scanouts[id];
    out->frames = scanout->frames;
    out->shown = scanout->shown;
    out->dropped = scanout->dropped;
    out->viewers = publisher->viewer_count;
    out->fps = rate(scanout, pv_now_ns());
    measure_intervals(scanout, out);
}

/* ---- create, destroy ---- */

static const struct pv_display_ops publisher_ops = {
    .name = "publisher",
    .present = present,
    .taken_at = taken_at,
    .cursor = show_cursor,
    .mode = set_mode,
};

int pv_publisher_create(const struct pv_publisher_params *params, struct pv_publisher **out)
{
    if (params->scanout_count == 0 || params->scanout_count > PV_PUBLISHER_SCANOUTS_MAX)
        return -EINVAL;
    struct pv_publisher *publisher =
        calloc(1, sizeof(*publisher) + params->scanout_count * sizeof(publisher->scanouts[0]));
    if (!publisher)
        return -ENOMEM;
    publisher->base.ops = &publisher_ops;
    publisher->params = *params;
    publisher->period_ns =
        1000 * NS_PER_SECOND / (params->refresh_mhz ? params->refresh_mhz : DEFAULT_REFRESH_MHZ);
    pv_list_init(&publisher->viewers);
    uv_timer_init(params->loop, &publisher->timer);
    publisher->timer.data = publisher;
    *out = publisher;
    return 0;
}

struct pv_display *pv_publisher_display(struct pv_publisher *publisher)
{
    return &publisher->base;
}

void pv_publisher_destroy(struct pv_publisher *publisher)
{
    if (!publisher)
        return;
    pv_list_for_each(node, &publisher->viewers)
        disconnect(pv_list_entry(node, struct viewer, node));
    for (uint32_t i = 0; i < publisher->params.scanout_count; i++)
        drop_picture(publisher, &publisher->scanouts[i]);
    uv_close((uv_handle_t *)&publisher->timer, on_closed);
}
