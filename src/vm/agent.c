#include "vm/agent.h"

#include <errno.h>
#include <json-c/json.h>
#include <stdlib.h>
#include <unistd.h>

struct pv_agent {
    struct pv_rpc *rpc;
    const struct pv_agent_events *events;
    void *data;
};

struct exec_call {
    pv_agent_started started;
    void *data;
};

struct status_call {
    pv_agent_status_done done;
    void *data;
};

static void on_lost(void *data, const char *why)
{
    struct pv_agent *agent = data;
    agent->events->lost(agent->data, why);
}

static const struct pv_rpc_events rpc_events = {.lost = on_lost};

static void on_synced(void *data, struct json_object *result, const char *error)
{
    struct pv_agent *agent = data;
    if (!error)
        agent->events->ready(agent->data);
}

void pv_agent_sync(struct pv_agent *agent)
{
    struct json_object *arguments = json_object_new_object();
    json_object_object_add(arguments, "id", json_object_new_int64(getpid()));
    pv_rpc_call_delimited(agent->rpc, "guest-sync-delimited", arguments, on_synced, agent);
}

int pv_agent_create(uv_loop_t *loop, int fd, const struct pv_agent_events *events, void *data,
                    struct pv_agent **out)
{
    struct pv_agent *agent = calloc(1, sizeof(*agent));
    if (!agent)
        return -ENOMEM;
    agent->events = events;
    agent->data = data;
    int ret = pv_rpc_create(loop, fd, &rpc_events, agent, &agent->rpc);
    if (ret < 0) {
        free(agent);
        return ret;
    }
    *out = agent;
    return 0;
}

void pv_agent_destroy(struct pv_agent *agent)
{
    if (!agent)
        return;
    pv_rpc_destroy(agent->rpc);
    free(agent);
}

static struct json_object *make_list(const char *const *items)
{
    struct json_object *list = json_object_new_array();
    for (size_t i = 0; items[i]; i++)
        json_object_array_add(list, json_object_new_string(items[i]));
    return list;
}

/* A whole number of an object, or `otherwise`. */
static int64_t get_number(struct json_object *object, const char *name, int64_t otherwise)
{
    struct json_object *value;
    if (!json_object_is_type(object, json_type_object) ||
        !json_object_object_get_ex(object, name, &value) ||
        !json_object_is_type(value, json_type_int))
        return otherwise;
    return json_object_get_int64(value);
}

static void on_started(void *data, struct json_object *result, const char *error)
{
    struct exec_call *call = data;
    int64_t pid = error ? -1 : get_number(result, "pid", -1);
    if (pid <= 0)
        call->started(call->data, -1, error ? error : "the agent gave no process id");
    else
        call->started(call->data, pid, NULL);
    free(call);
}

int pv_agent_exec(struct pv_agent *agent, char *const *argv, const char *const *env,
                  pv_agent_started started, void *data)
{
    struct exec_call *call = malloc(sizeof(*call));
    struct json_object *arguments = json_object_new_object();
    if (!call || !arguments) {
        free(call);
        json_object_put(arguments);
        return -ENOMEM;
    }
    *call = (struct exec_call){started, data};
    json_object_object_add(arguments, "path", json_object_new_string(argv[0]));
    json_object_object_add(arguments, "arg", make_list((const char *const *)argv + 1));
    json_object_object_add(arguments, "env", make_list(env));
    int ret = pv_rpc_call(agent->rpc, "guest-exec", arguments, on_started, call);
    if (ret < 0)
        free(call);
    return ret;
}

int pv_agent_parse_status(struct json_object *object, struct pv_agent_status *out)
{
    struct json_object *value;
    *out = (struct pv_agent_status){0};
    if (!json_object_is_type(object, json_type_object) ||
        !json_object_object_get_ex(object, "exited", &value) ||
        !json_object_is_type(value, json_type_boolean))
        return -EBADMSG;
    out->exited = json_object_get_boolean(value);
    int64_t signal = get_number(object, "signal", 0);
    out->exit_code = (int)((signal ? 128 + signal : get_number(object, "exitcode", 0)) & 0xff);
    return 0;
}

static void on_status(void *data, struct json_object *result, const char *error)
{
    struct status_call *call = data;
    struct pv_agent_status status;
    if (!error && pv_agent_parse_status(result, &status) < 0)
        error = "the agent's answer makes no sense";
    call->done(call->data, error ? NULL : &status, error);
    free(call);
}

int pv_agent_exec_status(struct pv_agent *agent, int64_t pid, pv_agent_status_done done, void *data)
{
    struct status_call *call = malloc(sizeof(*call));
    struct json_object *arguments = json_object_new_object();
    if (!call || !arguments) {
        free(call);
        json_object_put(arguments);
        return -ENOMEM;
    }
    *call = (struct status_call){done, data};
    json_object_object_add(arguments, "pid", json_object_new_int64(pid));
    int ret = pv_rpc_call(agent->rpc, "guest-exec-status", arguments, on_status, call);
    if (ret < 0)
        free(call);
    return ret;
}

void pv_agent_shutdown(struct pv_agent *agent)
{
    struct json_object *arguments = json_object_new_object();
    json_object_object_add(arguments, "mode", json_object_new_string("powerdown"));
    pv_rpc_call(agent->rpc, "guest-shutdown", arguments, NULL, NULL);
}
