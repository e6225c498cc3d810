#include "vm/pump.h"

#include "util/os.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <uv.h>

/* A pipe that polls writable takes so much without blocking (PIPE_BUF). */
#define WRITE_MAX 4096u

struct pv_pump {
    uv_async_t async; /* wakes the loop */
    struct pv_pump_params params;
    char mark[PV_PUMP_MARK_MAX + 1];
    pthread_t thread;
    int wake[2];          /* readable at one end: the thread shall stop */
    atomic_uint happened; /* bits 1 << enum pv_pump_event, for the loop */
    bool closing;         /* loop only */

    size_t matched; /* of the mark; thread only, as `out` */
    char out[16384 + PV_PUMP_MARK_MAX];
    size_t out_used;

    pthread_mutex_t lock;
    char *tail; /* under the lock */
    size_t tail_used;
};

static void report(struct pv_pump *pump, enum pv_pump_event event)
{
    atomic_fetch_or(&pump->happened, 1u << event);
    uv_async_send(&pump->async);
}

/* Wait until `fd` (-1: none) can do `events`. False: stop. */
static bool wait_for(struct pv_pump *pump, int fd, short events)
{
    struct pollfd fds[] = {{.fd = pump->wake[0], .events = POLLIN}, {.fd = fd, .events = events}};
    while (poll(fds, 2, -1) < 0) {
        if (errno != EINTR && errno != EAGAIN)
            return false;
    }
    return fds[0].revents == 0;
}

static bool write_out(struct pv_pump *pump)
{
    const char *from = pump->out;
    size_t left = pump->out_used;
    pump->out_used = 0;
    while (left > 0 && pump->params.to >= 0) {
        if (!wait_for(pump, pump->params.to, POLLOUT))
            return false;
        ssize_t n = write(pump->params.to, from, left < WRITE_MAX ? left : WRITE_MAX);
        if (n < 0 && errno != EINTR && errno != EAGAIN) {
            report(pump, PV_PUMP_BROKEN);
            return false;
        }
        if (n > 0) {
            from += n;
            left -= (size_t)n;
        }
    }
    return true;
}

static void put(struct pv_pump *pump, char byte)
{
    pump->out[pump->out_used++] = byte;
}

/* Move one byte on, past mark and escape. True: the mark is complete. */
static bool take_byte(struct pv_pump *pump, char byte)
{
    if (pump->params.escape && byte == pump->params.escape) {
        report(pump, PV_PUMP_ESCAPE);
        return false;
    }
    if (pump->mark[0] && byte == pump->mark[pump->matched])
        return pump->mark[++pump->matched] == '\0';
    for (size_t i = 0; i < pump->matched; i++)
        put(pump, pump->mark[i]); /* it only looked like the mark */
    pump->matched = pump->mark[0] && byte == pump->mark[0];
    if (!pump->matched)
        put(pump, byte);
    return false;
}

static void keep_tail(struct pv_pump *pump, const char *bytes, size_t size)
{
    size_t room = pump->params.tail_size;
    if (!room)
        return;
    pthread_mutex_lock(&pump->lock);
    if (size > room) {
        bytes += size - room;
        size = room;
    }
    if (pump->tail_used + size > room) {
        size_t drop = pump->tail_used + size - room;
        memmove(pump->tail, pump->tail + drop, pump->tail_used - drop);
        pump->tail_used -= drop;
    }
    memcpy(pump->tail + pump->tail_used, bytes, size);
    pump->tail_used += size;
    pthread_mutex_unlock(&pump->lock);
}

static void *pump_main(void *data)
{
    struct pv_pump *pump = data;
    char in[16384];
    bool over = false;
    pv_thread_set_name("pump");
    while (!over && wait_for(pump, pump->params.from, POLLIN)) {
        ssize_t n = read(pump->params.from, in, sizeof(in));
        if (n < 0 && (errno == EINTR || errno == EAGAIN))
            continue;
        over = n <= 0;
        for (ssize_t i = 0; !over && i < n; i++)
            over = take_byte(pump, in[i]);
        for (size_t i = 0; n <= 0 && i < pump->matched; i++)
            put(pump, pump->mark[i]);
        keep_tail(pump, pump->out, pump->out_used);
        if (!write_out(pump))
            return NULL;
    }
    if (!over)
        return NULL;
    if (pump->params.close_at_end)
        shutdown(pump->params.to, SHUT_WR);
    report(pump, PV_PUMP_END);
    return NULL;
}

static void on_async(uv_async_t *async)
{
    struct pv_pump *pump = async->data;
    unsigned int happened = atomic_exchange(&pump->happened, 0);
    static const enum pv_pump_event order[] = {PV_PUMP_ESCAPE, PV_PUMP_BROKEN, PV_PUMP_END};
    for (size_t i = 0; i < sizeof(order) / sizeof(order[0]) && !pump->closing; i++) {
        if (happened & (1u << order[i]))
            pump->params.event(pump->params.data, order[i]);
    }
}

static void free_pump(struct pv_pump *pump)
{
    pthread_mutex_destroy(&pump->lock);
    for (int i = 0; i < 2; i++) {
        if (pump->wake[i] >= 0)
            close(pump->wake[i]);
    }
    free(pump->tail);
    free(pump);
}

static void on_closed(uv_handle_t *handle)
{
    free_pump(handle->data);
}

/* Signals are the loop's thread's business. */
static int start_thread(struct pv_pump *pump)
{
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int ret = pthread_create(&pump->thread, NULL, pump_main, pump);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return -ret;
}

int pv_pump_create(uv_loop_t *loop, const struct pv_pump_params *params, struct pv_pump **out)
{
    struct pv_pump *pump = calloc(1, sizeof(*pump));
    if (!pump)
        return -ENOMEM;
    pump->params = *params;
    if (params->mark)
        strncpy(pump->mark, params->mark, PV_PUMP_MARK_MAX);
    pthread_mutex_init(&pump->lock, NULL);
    pump->wake[0] = pump->wake[1] = -1;
    pump->tail = params->tail_size ? malloc(params->tail_size) : NULL;
    int ret = params->tail_size && !pump->tail ? -ENOMEM : 0;
    if (ret == 0)
        ret = pv_pipe(pump->wake, true);
    if (ret == 0)
        ret = uv_async_init(loop, &pump->async, on_async);
    if (ret < 0) {
        free_pump(pump);
        return ret;
    }
    pump->async.data = pump;
    ret = start_thread(pump);
    if (ret < 0) {
        uv_close((uv_handle_t *)&pump->async, on_closed);
        return ret;
    }
    *out = pump;
    return 0;
}

void pv_pump_destroy(struct pv_pump *pump)
{
    if (!pump || pump->closing)
        return;
    pump->closing = true;
    close(pump->wake[1]); /* the other end polls as hung up */
    pump->wake[1] = -1;
    pthread_join(pump->thread, NULL);
    uv_close((uv_handle_t *)&pump->async, on_closed);
}

size_t pv_pump_tail(struct pv_pump *pump, char *out)
{
    size_t used = 0;
    pthread_mutex_lock(&pump->lock);
    if (pump->tail) {
        used = pump->tail_used;
        memcpy(out, pump->tail, used);
    }
    pthread_mutex_unlock(&pump->lock);
    out[used] = '\0';
    return used;
}
