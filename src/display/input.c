#include "display/input.h"

#include "display/keycode.h"
#include "util/list.h"
#include "util/log.h"
#include "util/unix_socket.h"
#include "vm/rpc.h"

#include <errno.h>
#include <json-c/json.h>
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
/* Both axes of QEMU's absolute pointers. */
#define AXIS_MAX 32767u

#define BUTTON_COUNT 5
static const char *const button_names[BUTTON_COUNT] = {"left", "middle", "right", "side", "extra"};

/* What one command tells QEMU, which is one event to the guest. */
struct event {
    struct pv_list node;
    struct json_object *list; /* owned: the command's "events" */
    bool move_only;
};

struct pv_input {
    struct pv_rpc *rpc;    /* NULL: QEMU has gone, or there never was one */
    struct pv_list events; /* struct event: not sent yet */
    size_t event_count;
    bool ready;     /* the handshake is over */
    bool in_flight; /* a command that QEMU has not answered */
    bool keys[PV_KEY_LIMIT];
    uint32_t buttons;
    uint32_t x, y; /* axes as sent last */
};

/* ---- events ---- */

static struct json_object *make_event(const char *type, struct json_object *data)
{
    struct json_object *event = json_object_new_object();
    json_object_object_add(event, "type", json_object_new_string(type));
    json_object_object_add(event, "data", data);
    return event;
}

static struct json_object *make_key(const char *name, bool down)
{
    struct json_object *key = json_object_new_object();
    json_object_object_add(key, "type", json_object_new_string("qcode"));
    json_object_object_add(key, "data", json_object_new_string(name));
    struct json_object *data = json_object_new_object();
    json_object_object_add(data, "down", json_object_new_boolean(down));
    json_object_object_add(data, "key", key);
    return make_event("key", data);
}

static struct json_object *make_button(const char *name, bool down)
{
    struct json_object *data = json_object_new_object();
    json_object_object_add(data, "down", json_object_new_boolean(down));
    json_object_object_add(data, "button", json_object_new_string(name));
    return make_event("btn", data);
}

static struct json_object *make_axis(const char *name, uint32_t value)
{
    struct json_object *data = json_object_new_object();
    json_object_object_add(data, "axis", json_object_new_string(name));
    json_object_object_add(data, "value", json_object_new_int((int)value));
    return make_event("abs", data);
}

/* ---- sending ---- */

static void free_event(struct pv_input *input, struct event *event)
{
    pv_list_remove(&event->node);
    input->event_count--;
    json_object_put(event->list);
    free(event);
}

static void lose(struct pv_input *input, const char *why)
{
    if (!input->rpc)
        return;
    pv_warn("QEMU's monitor: %s; the guest has no keyboard and pointer here any more", why);
    struct pv_rpc *rpc = input->rpc;
    input->rpc = NULL; /* the answers that will not come are not to make us send more */
    pv_rpc_destroy(rpc);
    pv_list_for_each(node, &input->events)
        free_event(input, pv_list_entry(node, struct event, node));
}

static void send_next(struct pv_input *input);

static void on_taken(void *data, struct json_object *result, const char *error)
{
    struct pv_input *input = data;
    input->in_flight = false;
    if (error)
        pv_log_limited(PV_LOG_DEBUG, 5, "QEMU did not take an event: %s", error);
    send_next(input);
}

static int send_event(struct pv_input *input, struct event *event, pv_rpc_done done)
{
    struct json_object *arguments = json_object_new_object();
    json_object_object_add(arguments, "events", json_object_get(event->list));
    free_event(input, event);
    return pv_rpc_call(input->rpc, "input-send-event", arguments, done, input);
}

/* One command at a time: QEMU's answers set the pace at which moves are left out. */
static void send_next(struct pv_input *input)
{
    if (!input->ready || input->in_flight || !input->rpc || pv_list_empty(&input->events))
        return;
    input->in_flight = true;
    struct event *event = pv_list_entry(input->events.next, struct event, node);
    int ret = send_event(input, event, on_taken);
    if (ret < 0)
        lose(input, strerror(-ret));
}

/* `list` is taken over. */
static void queue_event(struct pv_input *input, struct json_object *list, bool move_only)
{
    struct event *event = calloc(1, sizeof(*event));
    if (!event) {
        json_object_put(list);
        return;
    }
    event->list = list;
    event->move_only = move_only;
    pv_list_append(&input->events, &event->node);
    input->event_count++;
    send_next(input);
}

static void queue_one(struct pv_input *input, struct json_object *event)
{
    struct json_object *list = json_object_new_array();
    json_object_array_add(list, event);
    queue_event(input, list, false);
}

static bool has_room(const struct pv_input *input)
{
    return input->rpc && input->event_count < WAITING_MAX;
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
    int fd = params->qmp_path ? pv_unix_connect(params->qmp_path) : params->qmp_fd;
    if (fd < 0) {
        pv_error("no QEMU monitor at %s: %s", params->qmp_path, strerror(-fd));
        return fd;
    }
    int ret = pv_rpc_create(params->loop, fd, &rpc_events, input, &input->rpc);
    if (ret < 0) {
        pv_error("QEMU's monitor cannot be used: %s", strerror(-ret));
        if (params->qmp_path)
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
    int ret = params->qmp_path || params->qmp_fd >= 0 ? open_monitor(input, params) : 0;
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
    /* what waits goes out unanswered: QEMU reads it when it gets to it */
    pv_list_for_each(node, &input->events)
    {
        struct event *event = pv_list_entry(node, struct event, node);
        if (input->rpc && input->ready)
            send_event(input, event, NULL);
        else
            free_event(input, event);
    }
    struct pv_rpc *rpc = input->rpc;
    input->rpc = NULL;
    pv_rpc_destroy(rpc);
    free(input);
}

/* ---- what displays say ---- */

void pv_input_key(struct pv_input *input, uint32_t code, bool down)
{
    const char *name = pv_keycode_name(code);
    if (!name || input->keys[code] == down || !input->rpc || (down && !has_room(input)))
        return;
    input->keys[code] = down;
    queue_one(input, make_key(name, down));
}

static uint32_t to_axis(uint32_t position, uint32_t total)
{
    if (total <= 1)
        return 0;
    if (position >= total)
        position = total - 1;
    return (uint32_t)(((uint64_t)position * AXIS_MAX + (total - 1) / 2) / (total - 1));
}

void pv_input_pointer(struct pv_input *input, uint32_t x, uint32_t y, uint32_t x_total,
                      uint32_t y_total, uint32_t buttons)
{
    uint32_t axis_x = to_axis(x, x_total), axis_y = to_axis(y, y_total);
    bool moved = axis_x != input->x || axis_y != input->y;
    bool more = buttons & ~input->buttons;
    buttons &= (1u << BUTTON_COUNT) - 1;
    if (!input->rpc || (!moved && buttons == input->buttons) || (more && !has_room(input)))
        return;
    if (!pv_list_empty(&input->events)) {
        struct event *last = pv_list_entry(input->events.prev, struct event, node);
        if (last->move_only) /* it was too slow */
            free_event(input, last);
    }
    struct json_object *list = json_object_new_array();
    json_object_array_add(list, make_axis("x", axis_x));
    json_object_array_add(list, make_axis("y", axis_y));
    for (unsigned int i = 0; i < BUTTON_COUNT; i++) {
        if ((buttons ^ input->buttons) & 1u << i)
            json_object_array_add(list, make_button(button_names[i], buttons & 1u << i));
    }
    bool move_only = buttons == input->buttons;
    input->x = axis_x;
    input->y = axis_y;
    input->buttons = buttons;
    queue_event(input, list, move_only);
}

static void turn(struct pv_input *input, int32_t steps, const char *back, const char *forth)
{
    const char *name = steps < 0 ? back : forth;
    int count = abs(steps < -WHEEL_MAX ? -WHEEL_MAX : steps > WHEEL_MAX ? WHEEL_MAX : steps);
    for (int i = 0; i < count && has_room(input); i++) {
        struct json_object *list = json_object_new_array();
        json_object_array_add(list, make_button(name, true));
        json_object_array_add(list, make_button(name, false));
        queue_event(input, list, false);
    }
}

void pv_input_wheel(struct pv_input *input, int32_t steps_x, int32_t steps_y)
{
    turn(input, steps_y, "wheel-up", "wheel-down");
    turn(input, steps_x, "wheel-left", "wheel-right");
}

void pv_input_release_buttons(struct pv_input *input, uint32_t buttons)
{
    for (unsigned int i = 0; i < BUTTON_COUNT; i++) {
        if (input->rpc && buttons & input->buttons & 1u << i)
            queue_one(input, make_button(button_names[i], false));
    }
    input->buttons &= ~buttons;
}

void pv_input_release_all(struct pv_input *input)
{
    for (uint32_t code = 0; code < PV_KEY_LIMIT; code++) {
        if (input->keys[code])
            pv_input_key(input, code, false);
    }
    pv_input_release_buttons(input, ~0u);
}
