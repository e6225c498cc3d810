#include "vm/input_relay.h"

#include "util/log.h"
#include "vm/input_event.h"
#include "vm/keycode.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>
#include <uv.h>

#define PV_LOG_MODULE "run"

struct pv_input_relay {
    uv_pipe_t pipe;
    struct pv_qmp *qmp;
    size_t used;
    struct pv_input_event event; /* `used` bytes of it have come */
    bool waiting;                /* for QEMU's answer; nothing is read meanwhile */
    bool ended;                  /* the display sends no more */
    bool destroyed, closed;
    bool keys[PV_KEY_LIMIT]; /* what the display holds */
    uint32_t buttons;
};

static void read_next(struct pv_input_relay *relay);
static void let_go(struct pv_input_relay *relay);

static void on_taken(void *data, struct json_object *result, const char *error)
{
    struct pv_input_relay *relay = data;
    uv_buf_t next = uv_buf_init("+", 1);
    relay->waiting = false;
    if (error)
        pv_log_limited(PV_LOG_DEBUG, 5, "QEMU did not take an event: %s", error);
    if (relay->closed) {
        free(relay);
    } else if (relay->destroyed) {
        return; /* the monitor goes as well */
    } else if (relay->ended) {
        let_go(relay);
    } else {
        uv_try_write((uv_stream_t *)&relay->pipe, &next, 1); /* who does not read it, waits */
        read_next(relay);
    }
}

static void remember(struct pv_input_relay *relay, const struct pv_input_event *event)
{
    if (event->kind == PV_INPUT_KEY)
        relay->keys[event->code] = event->down;
    else if (event->kind != PV_INPUT_WHEEL)
        relay->buttons = (relay->buttons & ~event->changed) | event->down;
}

static void hand_on(struct pv_input_relay *relay, const struct pv_input_event *event)
{
    remember(relay, event);
    relay->waiting = true;
    int ret = pv_qmp_input(relay->qmp, event, on_taken, relay);
    if (ret < 0) { /* without memory, or QEMU */
        relay->waiting = false;
        relay->ended = true;
    }
}

/* One by one, each when QEMU has taken the one before. */
static void let_go(struct pv_input_relay *relay)
{
    for (uint32_t code = 0; code < PV_KEY_LIMIT; code++) {
        if (relay->keys[code]) {
            hand_on(relay, &(struct pv_input_event){.kind = PV_INPUT_KEY, .code = code});
            return;
        }
    }
    if (relay->buttons)
        hand_on(relay,
                &(struct pv_input_event){.kind = PV_INPUT_BUTTONS, .changed = relay->buttons});
}

static void end(struct pv_input_relay *relay)
{
    uv_read_stop((uv_stream_t *)&relay->pipe);
    relay->ended = true;
    let_go(relay);
}

static void give_buffer(uv_handle_t *handle, size_t suggested, uv_buf_t *out)
{
    struct pv_input_relay *relay = handle->data;
    *out = uv_buf_init((char *)&relay->event + relay->used,
                       (unsigned int)(sizeof(relay->event) - relay->used));
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buffer)
{
    struct pv_input_relay *relay = stream->data;
    if (n < 0) {
        end(relay);
        return;
    }
    relay->used += (size_t)n;
    if (relay->used < sizeof(relay->event))
        return;
    relay->used = 0;
    if (!pv_input_event_is_valid(&relay->event)) {
        pv_warn("a display sent what is neither a key nor the pointer's; it has none any more");
        end(relay);
        return;
    }
    uv_read_stop(stream);
    hand_on(relay, &relay->event);
}

static void read_next(struct pv_input_relay *relay)
{
    if (uv_read_start((uv_stream_t *)&relay->pipe, give_buffer, on_read) < 0)
        end(relay);
}

static void on_closed(uv_handle_t *handle)
{
    struct pv_input_relay *relay = handle->data;
    relay->closed = true;
    if (!relay->waiting)
        free(relay);
}

int pv_input_relay_create(uv_loop_t *loop, int fd, struct pv_qmp *qmp, struct pv_input_relay **out)
{
    struct pv_input_relay *relay = calloc(1, sizeof(*relay));
    int ret = relay ? uv_pipe_init(loop, &relay->pipe, 0) : -ENOMEM;
    if (ret < 0) {
        close(fd);
        free(relay);
        return ret;
    }
    relay->qmp = qmp;
    relay->pipe.data = relay;
    ret = uv_pipe_open(&relay->pipe, fd);
    if (ret < 0)
        close(fd);
    else
        ret = uv_read_start((uv_stream_t *)&relay->pipe, give_buffer, on_read);
    if (ret < 0)
        uv_close((uv_handle_t *)&relay->pipe, on_closed);
    else
        *out = relay;
    return ret;
}

void pv_input_relay_destroy(struct pv_input_relay *relay)
{
    if (!relay)
        return;
    relay->destroyed = true;
    uv_close((uv_handle_t *)&relay->pipe, on_closed);
}
