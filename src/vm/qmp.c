#include "vm/qmp.h"

#include "vm/input_event.h"

#include <errno.h>
#include <json-c/json.h>
#include <stdlib.h>
#include <string.h>

struct pv_qmp {
    struct pv_rpc *rpc;
    const struct pv_qmp_events *events;
    void *data;
};

static const char *get_string(struct json_object *object, const char *name)
{
    struct json_object *value;
    if (!json_object_is_type(object, json_type_object) ||
        !json_object_object_get_ex(object, name, &value) ||
        !json_object_is_type(value, json_type_string))
        return "";
    return json_object_get_string(value);
}

static bool get_bool(struct json_object *object, const char *name)
{
    struct json_object *value;
    return json_object_is_type(object, json_type_object) &&
           json_object_object_get_ex(object, name, &value) && json_object_get_boolean(value);
}

static void on_event(void *data, const char *name, struct json_object *arguments)
{
    struct pv_qmp *qmp = data;
    if (strcmp(name, "VSERPORT_CHANGE") == 0)
        qmp->events->port(qmp->data, get_string(arguments, "id"), get_bool(arguments, "open"));
    else if (strcmp(name, "SHUTDOWN") == 0)
        qmp->events->shutdown(qmp->data, get_bool(arguments, "guest"),
                              get_string(arguments, "reason"));
}

static void on_lost(void *data, const char *why)
{
    struct pv_qmp *qmp = data;
    qmp->events->lost(qmp->data, why);
}

static const struct pv_rpc_events rpc_events = {.event = on_event, .lost = on_lost};

static void on_capabilities(void *data, struct json_object *result, const char *error)
{
    struct pv_qmp *qmp = data;
    if (error)
        qmp->events->lost(qmp->data, error);
    else
        qmp->events->ready(qmp->data);
}

int pv_qmp_create(uv_loop_t *loop, int fd, const struct pv_qmp_events *events, void *data,
                  struct pv_qmp **out)
{
    struct pv_qmp *qmp = calloc(1, sizeof(*qmp));
    if (!qmp)
        return -ENOMEM;
    qmp->events = events;
    qmp->data = data;
    int ret = pv_rpc_create(loop, fd, &rpc_events, qmp, &qmp->rpc);
    if (ret < 0) {
        free(qmp);
        return ret;
    }
    /* need not wait for the greeting, which is dropped as something nobody asked for */
    ret = pv_rpc_call(qmp->rpc, "qmp_capabilities", NULL, on_capabilities, qmp);
    if (ret < 0) {
        pv_qmp_destroy(qmp);
        return ret;
    }
    *out = qmp;
    return 0;
}

void pv_qmp_destroy(struct pv_qmp *qmp)
{
    if (!qmp)
        return;
    pv_rpc_destroy(qmp->rpc);
    free(qmp);
}

void pv_qmp_quit(struct pv_qmp *qmp)
{
    pv_rpc_call(qmp->rpc, "quit", NULL, NULL, NULL);
}

void pv_qmp_powerdown(struct pv_qmp *qmp)
{
    pv_rpc_call(qmp->rpc, "system_powerdown", NULL, NULL, NULL);
}

int pv_qmp_input(struct pv_qmp *qmp, const struct pv_input_event *event, pv_rpc_done done,
                 void *data)
{
    return pv_rpc_call(qmp->rpc, "input-send-event", pv_input_event_arguments(event), done, data);
}
