#include "display/input.h"

#include "util/list.h"
#include "util/log.h"
#include "util/unix_socket.h"
#include "vm/keycode.h"
#include "vm/rpc.h"

#include <errno.h>
#include <json-c/json.h>
#include <linux/input-event-codes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>

#define PV_LOG_MODULE "input"

/* Presses and steps that wait for a QEMU that does not answer; more are lost. Releases are not
 * counted: there are not more of them than keys. */
#define WAITING_MAX 256u
/* Steps of the wheel in one event. */
#define WHEEL_MAX 8

/* What QEMU is told at once, which is one event to the guest. */
struct waiting {
    struct pv_list node;
    struct pv_input_event event;
};

/* The connection to `pearvisor run` (vm/input_relay.h). */
struct relay {
    uv_pipe_t pipe;
    struct pv_input *input; /* NULL: closing */
    char answers[16];
};

struct pv_input {
    /* Where events go. Both NULL: QEMU has gone, or there never was one. */
    struct pv_rpc *rpc;
    struct relay *relay;
    struct pv_list events; /* struct waiting: not sent yet */
    size_t event_count;
    bool ready;     /* the handshake is over */
    bool in_flight; /* an event that is not answered */
    bool keys[PV_KEY_LIMIT];
    bool caps_lock;
    uint32_t buttons;
    uint32_t x, y; /* axes as sent last */
};

/* ---- the connection to pearvisor run ---- */

static void lose(struct pv_input *input, const char *why);
static void send_next(struct pv_input *input);

static void give_buffer(uv_handle_t *handle, size_t suggested, uv_buf_t *out)
{
    struct relay *relay = handle->data;
    *out = uv_buf_init(relay->answers, sizeof(relay->answers));
}

static void on_answer(uv_stream_t *stream, ssize_t n, const uv_buf_t *buffer)
{
    struct relay *relay = stream->data;
    if (!relay->input || n == 0)
        return;
    if (n < 0) {
        lose(relay->input, n == UV_EOF ? "the connection was closed" : uv_strerror((int)n));
        return;
    }
    relay->input->in_flight = false;
    send_next(relay->input);
}

static void on_relay_closed(uv_handle_t *handle)
{
    free(handle->data);
}

static void close_relay(struct relay *relay)
{
    if (!relay)
        return;
    relay->input = NULL;
    uv_close((uv_handle_t *)&relay->pipe, on_relay_closed);
}

static int open_relay(struct pv_input *input, const struct pv_input_params *params)
{
    struct relay *relay = calloc(1, sizeof(*relay));
    int ret = relay ? uv_pipe_init(params->loop, &relay->pipe, 0) : -ENOMEM;
    if (ret < 0) {
        free(relay);
        return ret;
    }
    relay->pipe.data = relay;
    ret = uv_pipe_open(&relay->pipe, params->relay_fd);
    if (ret == 0)
        ret = uv_read_start((uv_stream_t *)&relay->pipe, give_buffer, on_answer);
    if (ret < 0) {
        close_relay(relay);
        return ret;
    }
    relay->input = input;
    input->relay = relay;
    input->ready = true;
    return 0;
}

/* There is room for the only one. */
static int write_event(struct relay *relay, const struct pv_input_event *event)
{
    uv_buf_t buffer = uv_buf_init((char *)event, sizeof(*event));
    int ret = uv_try_write((uv_stream_t *)&relay->pipe, &buffer, 1);
    return ret < 0 ? ret : ret == (int)sizeof(*event) ? 0 : -EIO;
}

/* ---- sending ---- */

static bool is_connected(const struct pv_input *input)
{
    return input->rpc || input->relay;
}

static void drop(struct pv_input *input, struct waiting *waiting)
{
    pv_list_remove(&waiting->node);
    input->event_count--;
    free(waiting);
}

static void disconnect(struct pv_input *input)
{
    struct pv_rpc *rpc = input->rpc;
    input->rpc = NULL; /* the answers that will not come are not to make us send more */
    pv_rpc_destroy(rpc);
    close_relay(input->relay);
    input->relay = NULL;
    pv_list_for_each(node, &input->events) drop(input, pv_list_entry(node, struct waiting, node));
}

static void lose(struct pv_input *input, const char *why)
{
    if (!is_connected(input))
        return;
    pv_warn("QEMU's monitor: %s; the guest has no keyboard and pointer here any more", why);
    disconnect(input);
}

static void on_taken(void *data, struct json_object *result, const char *error)
{
    struct pv_input *input = data;
    input->in_flight = false;
    if (error)
        pv_log_limited(PV_LOG_DEBUG, 5, "QEMU did not take an event: %s", error);
    send_next(input);
}

static int send_event(struct pv_input *input, const struct pv_input_event *event, pv_rpc_done done)
{
    if (input->relay)
        return write_event(input->relay, event);
    return pv_rpc_call(input->rpc, "input-send-event", pv_input_event_arguments(event), done,
                       input);
}

/* One event at a time: QEMU's answers set the pace at which moves are left out. */
static void send_next(struct pv_input *input)
{
    if (!input->ready || input->in_flight || !is_connected(input) || pv_list_empty(&input->events))
        return;
    input->in_flight = true;
    struct waiting *next = pv_list_entry(input->events.next, struct waiting, node);
    struct pv_input_event event = next->event;
    drop(input, next);
    int ret = send_event(input, &event, on_taken);
    if (ret < 0)
        lose(input, strerror(-ret));
}

static void queue_event(struct pv_input *input, const struct pv_input_event *event)
{
    struct waiting *waiting = calloc(1, sizeof(*waiting));
    if (!waiting)
        return;
    waiting->event = *event;
    pv_list_append(&input->events, &waiting->node);
    input->event_count++;
    send_next(input);
}

static bool has_room(const struct pv_input *input)
{
    return is_connected(input) && input->event_count < WAITING_MAX;
}

/* ---- life ---- */

static void on_capabilities(void *data, struct json_object *result, const char *error)
{
    struct pv_input *input = data;
    if (error) {
        pv_debug("qmp_capabilities: %s", error);
        return;
    }
    input->ready = true;
    send_next(input);
}

static void on_lost(void *data, const char *why)
{
    lose(data, why);
}

static const struct pv_rpc_events rpc_events = {.lost = on_lost};

static int open_monitor(struct pv_input *input, const struct pv_input_params *params)
{
    int fd = pv_unix_connect(params->qmp_path);
    if (fd < 0) {
        pv_error("no QEMU monitor at %s: %s", params->qmp_path, strerror(-fd));
        return fd;
    }
    int ret = pv_rpc_create(params->loop, fd, &rpc_events, input, &input->rpc);
    if (ret < 0) {
        pv_error("QEMU's monitor cannot be used: %s", strerror(-ret));
        close(fd);
        return ret;
    }
    return pv_rpc_call(input->rpc, "qmp_capabilities", NULL, on_capabilities, input);
}

int pv_input_create(const struct pv_input_params *params, struct pv_input **out)
{
    struct pv_input *input = calloc(1, sizeof(*input));
    if (!input)
        return -ENOMEM;
    pv_list_init(&input->events);
    input->x = input->y = UINT32_MAX; /* nowhere */
    int ret = 0;
    if (params->qmp_path)
        ret = open_monitor(input, params);
    else if (params->relay_fd >= 0)
        ret = open_relay(input, params);
    if (ret < 0) {
        pv_rpc_destroy(input->rpc);
        free(input);
        return ret;
    }
    *out = input;
    return 0;
}

void pv_input_destroy(struct pv_input *input)
{
    if (!input)
        return;
    pv_input_release_all(input);
    /* what waits goes out unanswered: QEMU reads it when it gets to it; the relay lets go by itself
     */
    pv_list_for_each(node, &input->events)
    {
        if (input->rpc && input->ready)
            send_event(input, &pv_list_entry(node, struct waiting, node)->event, NULL);
    }
    disconnect(input);
    free(input);
}

/* ---- what displays say ---- */

void pv_input_key(struct pv_input *input, uint32_t code, bool down)
{
    if (!pv_keycode_name(code) || input->keys[code] == down || !is_connected(input) ||
        (down && !has_room(input)))
        return;
    input->keys[code] = down;
    input->caps_lock ^= down && code == KEY_CAPSLOCK;
    queue_event(input, &(struct pv_input_event){.kind = PV_INPUT_KEY, .code = code, .down = down});
}

static uint32_t to_axis(uint32_t position, uint32_t total)
{
    if (total <= 1)
        return 0;
    if (position >= total)
        position = total - 1;
    return (uint32_t)(((uint64_t)position * PV_INPUT_AXIS_MAX + (total - 1) / 2) / (total - 1));
}

static bool is_move_only(const struct pv_input_event *event)
{
    return event->kind == PV_INPUT_POINTER && event->changed == 0;
}

void pv_input_pointer(struct pv_input *input, uint32_t x, uint32_t y, uint32_t x_total,
                      uint32_t y_total, uint32_t buttons)
{
    uint32_t axis_x = to_axis(x, x_total), axis_y = to_axis(y, y_total);
    bool moved = axis_x != input->x || axis_y != input->y;
    bool more = buttons & ~input->buttons;
    buttons &= PV_BUTTONS_ALL;
    if (!is_connected(input) || (!moved && buttons == input->buttons) || (more && !has_room(input)))
        return;
    if (!pv_list_empty(&input->events)) {
        struct waiting *last = pv_list_entry(input->events.prev, struct waiting, node);
        if (is_move_only(&last->event)) /* it was too slow */
            drop(input, last);
    }
    uint32_t changed = buttons ^ input->buttons;
    input->x = axis_x;
    input->y = axis_y;
    input->buttons = buttons;
    queue_event(input, &(struct pv_input_event){.kind = PV_INPUT_POINTER,
                                                .x = axis_x,
                                                .y = axis_y,
                                                .changed = changed,
                                                .down = buttons & changed});
}

static void turn(struct pv_input *input, int32_t steps, enum pv_wheel back, enum pv_wheel forth)
{
    int count = abs(steps < -WHEEL_MAX ? -WHEEL_MAX : steps > WHEEL_MAX ? WHEEL_MAX : steps);
    struct pv_input_event step = {.kind = PV_INPUT_WHEEL, .code = steps < 0 ? back : forth};
    for (int i = 0; i < count && has_room(input); i++)
        queue_event(input, &step);
}

void pv_input_wheel(struct pv_input *input, int32_t steps_x, int32_t steps_y)
{
    turn(input, steps_y, PV_WHEEL_UP, PV_WHEEL_DOWN);
    turn(input, steps_x, PV_WHEEL_LEFT, PV_WHEEL_RIGHT);
}

void pv_input_release_buttons(struct pv_input *input, uint32_t buttons)
{
    for (unsigned int i = 0; i < PV_BUTTON_COUNT; i++) {
        uint32_t button = buttons & input->buttons & 1u << i;
        if (is_connected(input) && button)
            queue_event(input,
                        &(struct pv_input_event){.kind = PV_INPUT_BUTTONS, .changed = button});
    }
    input->buttons &= ~buttons;
}

bool pv_input_caps_lock(const struct pv_input *input)
{
    return input->caps_lock;
}

void pv_input_release_all(struct pv_input *input)
{
    for (uint32_t code = 0; code < PV_KEY_LIMIT; code++) {
        if (input->keys[code])
            pv_input_key(input, code, false);
    }
    pv_input_release_buttons(input, ~0u);
}
