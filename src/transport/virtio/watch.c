#include "transport/virtio/watch.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

struct pv_watch {
    uv_poll_t poll; /* first: freed as a whole when libuv is done with it */
    int fd;         /* owned */
    int events;
    void (*ready)(void *data, int events);
    void *data;
};

static void on_poll(uv_poll_t *poll, int status, int events)
{
    struct pv_watch *watch = (struct pv_watch *)poll;
    watch->ready(watch->data, status < 0 ? 0 : events);
}

static void free_handle(uv_handle_t *handle)
{
    free(handle);
}

int pv_watch_create(uv_loop_t *loop, int fd, int events, void (*ready)(void *data, int events),
                    void *data, struct pv_watch **out)
{
    struct pv_watch *watch = calloc(1, sizeof(*watch));
    if (!watch)
        return -ENOMEM;
    *watch = (struct pv_watch){.fd = fd, .events = events, .ready = ready, .data = data};
    int ret = uv_poll_init(loop, &watch->poll, fd);
    if (ret < 0) {
        free(watch);
        return ret; /* libuv's errors are negative errnos */
    }
    ret = uv_poll_start(&watch->poll, events, on_poll);
    if (ret < 0) {
        uv_close((uv_handle_t *)&watch->poll, free_handle);
        return ret;
    }
    *out = watch;
    return 0;
}

void pv_watch_set_events(struct pv_watch *watch, int events)
{
    if (watch->events == events)
        return;
    watch->events = events;
    uv_poll_start(&watch->poll, events, on_poll);
}

int pv_watch_fd(const struct pv_watch *watch)
{
    return watch->fd;
}

void pv_watch_destroy(struct pv_watch *watch)
{
    if (!watch)
        return;
    uv_poll_stop(&watch->poll);
    uv_close((uv_handle_t *)&watch->poll, free_handle);
    close(watch->fd);
}
