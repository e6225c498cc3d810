#include "vm/input_event.h"

#include "vm/keycode.h"

#include <json-c/json.h>

static const char *const button_names[PV_BUTTON_COUNT] = {"left", "middle", "right", "side",
                                                          "extra"};
static const char *const wheel_names[PV_WHEEL_COUNT] = {
    [PV_WHEEL_UP] = "wheel-up",
    [PV_WHEEL_DOWN] = "wheel-down",
    [PV_WHEEL_LEFT] = "wheel-left",
    [PV_WHEEL_RIGHT] = "wheel-right",
};

static bool are_buttons(const struct pv_input_event *event)
{
    return !(event->changed & ~PV_BUTTONS_ALL) && !(event->down & ~event->changed);
}

bool pv_input_event_is_valid(const struct pv_input_event *event)
{
    switch (event->kind) {
    case PV_INPUT_KEY:
        return pv_keycode_name(event->code) && event->down <= 1;
    case PV_INPUT_POINTER:
        return event->x <= PV_INPUT_AXIS_MAX && event->y <= PV_INPUT_AXIS_MAX && are_buttons(event);
    case PV_INPUT_BUTTONS:
        return event->changed != 0 && are_buttons(event);
    case PV_INPUT_WHEEL:
        return event->code < PV_WHEEL_COUNT;
    default:
        return false;
    }
}

static void add(struct json_object *list, const char *type, struct json_object *data)
{
    struct json_object *one = json_object_new_object();
    json_object_object_add(one, "type", json_object_new_string(type));
    json_object_object_add(one, "data", data);
    json_object_array_add(list, one);
}

static void add_key(struct json_object *list, const char *name, bool down)
{
    struct json_object *key = json_object_new_object();
    json_object_object_add(key, "type", json_object_new_string("qcode"));
    json_object_object_add(key, "data", json_object_new_string(name));
    struct json_object *data = json_object_new_object();
    json_object_object_add(data, "down", json_object_new_boolean(down));
    json_object_object_add(data, "key", key);
    add(list, "key", data);
}

static void add_button(struct json_object *list, const char *name, bool down)
{
    struct json_object *data = json_object_new_object();
    json_object_object_add(data, "down", json_object_new_boolean(down));
    json_object_object_add(data, "button", json_object_new_string(name));
    add(list, "btn", data);
}

static void add_axis(struct json_object *list, const char *name, uint32_t value)
{
    struct json_object *data = json_object_new_object();
    json_object_object_add(data, "axis", json_object_new_string(name));
    json_object_object_add(data, "value", json_object_new_int((int)value));
    add(list, "abs", data);
}

static void add_buttons(struct json_object *list, const struct pv_input_event *event)
{
    for (unsigned int i = 0; i < PV_BUTTON_COUNT; i++) {
        if (event->changed & 1u << i)
            add_button(list, button_names[i], event->down & 1u << i);
    }
}

struct json_object *pv_input_event_arguments(const struct pv_input_event *event)
{
    struct json_object *arguments = json_object_new_object(), *list = json_object_new_array();
    switch (event->kind) {
    case PV_INPUT_KEY:
        add_key(list, pv_keycode_name(event->code), event->down);
        break;
    case PV_INPUT_POINTER:
        add_axis(list, "x", event->x);
        add_axis(list, "y", event->y);
        add_buttons(list, event);
        break;
    case PV_INPUT_BUTTONS:
        add_buttons(list, event);
        break;
    default:
        add_button(list, wheel_names[event->code], true);
        add_button(list, wheel_names[event->code], false);
        break;
    }
    json_object_object_add(arguments, "events", list);
    return arguments;
}
