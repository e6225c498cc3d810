#include "vm/rpc.h"

#include "util/list.h"

#include <errno.h>
#include <json-c/json.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

/* Of nested objects and arrays. What we read has three levels. */
#define JSON_DEPTH_MAX 16
/* In front of a line: what came before it is noise. It cannot occur in UTF-8. */
#define DELIMITER '\xff'

struct pv_rpc {
    uv_pipe_t pipe;
    const struct pv_rpc_events *events;
    void *data;
    struct pv_list pending; /* struct call */
    struct pv_rpc_input input;
    int64_t last_id;
    bool destroyed;
    char buffer[16384];
};

struct call {
    struct pv_list node;
    int64_t id;
    pv_rpc_done done;
    void *data;
};

struct outgoing {
    uv_write_t request;
    char text[];
};

static int parse_line(const char *line, size_t size, struct json_object **out)
{
    struct json_tokener *tokener = json_tokener_new_ex(JSON_DEPTH_MAX);
    if (!tokener)
        return -ENOMEM;
    struct json_object *object = json_tokener_parse_ex(tokener, line, (int)size);
    json_tokener_free(tokener);
    if (!object || !json_object_is_type(object, json_type_object)) {
        json_object_put(object);
        return -EBADMSG;
    }
    *out = object;
    return 0;
}

static bool is_blank(const char *line, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        if (line[i] != ' ' && line[i] != '\r')
            return false;
    }
    return true;
}

static int end_line(struct pv_rpc_input *input, pv_rpc_object found, void *data)
{
    struct json_object *object = NULL;
    size_t size = input->used;
    input->used = 0;
    if (is_blank(input->line, size))
        return 0;
    int ret = parse_line(input->line, size, &object);
    if (ret == 0)
        found(data, object);
    json_object_put(object);
    return ret;
}

int pv_rpc_input_feed(struct pv_rpc_input *input, const char *bytes, size_t size,
                      pv_rpc_object found, void *data)
{
    int ret = 0;
    if (!input->line)
        input->line = malloc(PV_RPC_LINE_MAX);
    if (!input->line)
        return -ENOMEM;
    for (size_t i = 0; ret == 0 && i < size; i++) {
        if (bytes[i] == DELIMITER)
            input->used = 0;
        else if (bytes[i] == '\n')
            ret = end_line(input, found, data);
        else if (input->used == PV_RPC_LINE_MAX)
            ret = -EMSGSIZE;
        else
            input->line[input->used++] = bytes[i];
    }
    return ret;
}

void pv_rpc_input_finish(struct pv_rpc_input *input)
{
    free(input->line);
    *input = (struct pv_rpc_input){0};
}

static struct call *find_call(struct pv_rpc *rpc, int64_t id)
{
    pv_list_for_each(node, &rpc->pending)
    {
        struct call *call = pv_list_entry(node, struct call, node);
        if (call->id == id)
            return call;
    }
    return NULL;
}

/* The description of an error, in a form that can be shown: the other side may be hostile. */
static void copy_error(struct json_object *error, char *out, size_t size)
{
    struct json_object *text = NULL;
    snprintf(out, size, "an error without a description");
    if (json_object_object_get_ex(error, "desc", &text) &&
        json_object_is_type(text, json_type_string))
        snprintf(out, size, "%s", json_object_get_string(text));
    for (char *c = out; *c; c++) {
        if (*c < ' ' || *c > '~')
            *c = '?';
    }
}

static void take_answer(struct pv_rpc *rpc, struct json_object *object)
{
    struct json_object *id, *result = NULL, *error = NULL;
    char text[256];
    if (!json_object_object_get_ex(object, "id", &id) || !json_object_is_type(id, json_type_int))
        return; /* about a line that was damaged */
    struct call *call = find_call(rpc, json_object_get_int64(id));
    bool has_result = json_object_object_get_ex(object, "return", &result);
    bool has_error = json_object_object_get_ex(object, "error", &error);
    if (!call || (!has_result && !has_error))
        return;
    pv_list_remove(&call->node);
    if (has_error)
        copy_error(error, text, sizeof(text));
    if (call->done)
        call->done(call->data, has_error ? NULL : result, has_error ? text : NULL);
    free(call);
}

static void take_object(void *data, struct json_object *object)
{
    struct pv_rpc *rpc = data;
    struct json_object *name, *arguments = NULL;
    if (rpc->destroyed)
        return;
    if (!json_object_object_get_ex(object, "event", &name)) {
        take_answer(rpc, object);
        return;
    }
    json_object_object_get_ex(object, "data", &arguments);
    if (rpc->events->event && json_object_is_type(name, json_type_string))
        rpc->events->event(rpc->data, json_object_get_string(name), arguments);
}

static void give_buffer(uv_handle_t *handle, size_t suggested, uv_buf_t *out)
{
    struct pv_rpc *rpc = handle->data;
    *out = uv_buf_init(rpc->buffer, sizeof(rpc->buffer));
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buffer)
{
    struct pv_rpc *rpc = stream->data;
    const char *why = NULL;
    if (n < 0) {
        why = n == UV_EOF ? "the connection was closed" : uv_strerror((int)n);
    } else {
        int ret = pv_rpc_input_feed(&rpc->input, buffer->base, (size_t)n, take_object, rpc);
        if (ret < 0)
            why = ret == -EBADMSG ? "what it sends is not JSON" : strerror(-ret);
    }
    if (!why || rpc->destroyed)
        return;
    uv_read_stop(stream);
    rpc->events->lost(rpc->data, why);
}

int pv_rpc_create(uv_loop_t *loop, int fd, const struct pv_rpc_events *events, void *data,
                  struct pv_rpc **out)
{
    struct pv_rpc *rpc = calloc(1, sizeof(*rpc));
    if (!rpc)
        return -ENOMEM;
    rpc->events = events;
    rpc->data = data;
    rpc->pipe.data = rpc;
    pv_list_init(&rpc->pending);
    int ret = uv_pipe_init(loop, &rpc->pipe, 0);
    if (ret < 0) {
        free(rpc);
        return ret;
    }
    ret = uv_pipe_open(&rpc->pipe, fd);
    if (ret == 0)
        ret = uv_read_start((uv_stream_t *)&rpc->pipe, give_buffer, on_read);
    if (ret < 0) {
        pv_rpc_destroy(rpc);
        return ret;
    }
    *out = rpc;
    return 0;
}

static void on_closed(uv_handle_t *handle)
{
    struct pv_rpc *rpc = handle->data;
    pv_rpc_input_finish(&rpc->input);
    free(rpc);
}

void pv_rpc_destroy(struct pv_rpc *rpc)
{
    if (!rpc || rpc->destroyed)
        return;
    rpc->destroyed = true;
    pv_list_for_each(node, &rpc->pending)
    {
        struct call *call = pv_list_entry(node, struct call, node);
        pv_list_remove(node);
        if (call->done)
            call->done(call->data, NULL, "the connection is closed");
        free(call);
    }
    uv_close((uv_handle_t *)&rpc->pipe, on_closed);
}

static void on_written(uv_write_t *request, int status)
{
    free(request->data);
}

/* `text` without a line end; `delimiter` in front of it or 0. */
static int send_line(struct pv_rpc *rpc, const char *text, char delimiter)
{
    size_t size = strlen(text);
    struct outgoing *outgoing = malloc(sizeof(*outgoing) + size + 3);
    char *to;
    if (!outgoing)
        return -ENOMEM;
    to = outgoing->text;
    if (delimiter)
        *to++ = delimiter;
    memcpy(to, text, size);
    to[size] = '\n';
    uv_buf_t buffer = uv_buf_init(outgoing->text, (unsigned int)(to - outgoing->text + size + 1));
    outgoing->request.data = outgoing;
    int ret = uv_write(&outgoing->request, (uv_stream_t *)&rpc->pipe, &buffer, 1, on_written);
    if (ret < 0)
        free(outgoing);
    return ret;
}

static int send_call(struct pv_rpc *rpc, const char *command, struct json_object *arguments,
                     pv_rpc_done done, void *data, char delimiter)
{
    struct call *call = calloc(1, sizeof(*call));
    struct json_object *object = json_object_new_object();
    int ret = -ENOMEM;
    if (!call || !object) {
        json_object_put(arguments);
        goto out;
    }
    call->id = ++rpc->last_id;
    call->done = done;
    call->data = data;
    json_object_object_add(object, "execute", json_object_new_string(command));
    if (arguments)
        json_object_object_add(object, "arguments", arguments);
    json_object_object_add(object, "id", json_object_new_int64(call->id));
    ret = send_line(rpc, json_object_to_json_string_ext(object, JSON_C_TO_STRING_PLAIN), delimiter);
    if (ret == 0) {
        pv_list_append(&rpc->pending, &call->node);
        call = NULL;
    }
out:
    json_object_put(object);
    free(call);
    return ret;
}

int pv_rpc_call(struct pv_rpc *rpc, const char *command, struct json_object *arguments,
                pv_rpc_done done, void *data)
{
    return send_call(rpc, command, arguments, done, data, 0);
}

int pv_rpc_call_delimited(struct pv_rpc *rpc, const char *command, struct json_object *arguments,
                          pv_rpc_done done, void *data)
{
    return send_call(rpc, command, arguments, done, data, DELIMITER);
}
