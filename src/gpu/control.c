#include "gpu/control.h"

#include "display/png.h"
#include "display/publisher.h"
#include "gpu/gpu.h"
#include "util/fdpass.h"
#include "util/list.h"
#include "util/log.h"
#include "util/os.h"

#include <errno.h>
#include <json-c/json.h>
#include <limits.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <uv.h>

#define PV_LOG_MODULE "control"

/* Answers that a client may leave unread before it is disconnected. */
#define BACKLOG_MAX (1u << 20)
/* Depth of what a client sends. */
#define JSON_DEPTH_MAX 8
/* Contexts in one status; more are only counted. */
#define CONTEXTS_SHOWN 256u

struct client {
    struct pv_list node; /* in control->clients, empty when it is leaving */
    uv_pipe_t pipe;
    struct pv_control *control;
    bool is_display;
    struct screenshot *screenshot; /* being written: nothing is read until it is answered */
    int view_fd;                   /* owned; goes with the next answer; -1: none */
    size_t used;
    char line[PV_CONTROL_LINE_MAX + 1];
};

/* Alive until the thread pool has done with it, whatever becomes of its client. */
struct screenshot {
    uv_work_t work;
    struct client *client;           /* NULL: it has gone */
    struct json_object *request;     /* shared */
    struct pv_gpu_snapshot *picture; /* owned */
    char *path;                      /* owned */
    int result;
};

struct pv_control {
    struct pv_control_params params;
    uv_pipe_t listener;
    bool listening;
    struct pv_list clients;
    uint32_t client_count;
};

/* ---- commands: an answer, or NULL and a reason; or NULL and no reason: it comes later ---- */

struct call {
    struct client *client;
    struct pv_gpu *gpu;
    struct json_object *request, *arguments;
    const char *error;
};

static struct json_object *refuse(struct call *call, const char *error)
{
    call->error = error;
    return NULL;
}

static bool get_u32(struct json_object *arguments, const char *name, uint32_t *out)
{
    struct json_object *value;
    if (!json_object_object_get_ex(arguments, name, &value) ||
        !json_object_is_type(value, json_type_int))
        return false;
    int64_t number = json_object_get_int64(value);
    if (number < 0 || number > UINT32_MAX)
        return false;
    *out = (uint32_t)number;
    return true;
}

static void add_u64(struct json_object *object, const char *name, uint64_t value)
{
    json_object_object_add(object, name,
                           json_object_new_int64(value > INT64_MAX ? INT64_MAX : (int64_t)value));
}

static void add_decimal(struct json_object *object, const char *name, double value)
{
    struct json_object *number = json_object_new_double(value);
    json_object_set_serializer(number, json_object_double_to_json_string, "%.1f", NULL);
    json_object_object_add(object, name, number);
}

static void add_activity(struct json_object *one, const struct pv_gpu_context_stats *context)
{
    add_u64(one, "commands", context->commands);
    add_decimal(one, "commands_per_s", context->commands_per_s);
    add_u64(one, "submissions", context->submissions);
    add_u64(one, "memory_bytes", context->memory_bytes);
    add_u64(one, "frames", context->frames);
    add_decimal(one, "fps", context->fps);
    add_decimal(one, "frame_ms_median", (double)context->frame_median_ns / 1e6);
    add_decimal(one, "frame_ms_p99", (double)context->frame_p99_ns / 1e6);
}

static struct json_object *contexts_status(const struct pv_gpu *gpu)
{
    struct json_object *list = json_object_new_array();
    struct pv_gpu_context_stats *contexts = calloc(CONTEXTS_SHOWN, sizeof(*contexts));
    size_t count = contexts ? pv_gpu_get_contexts(gpu, contexts, CONTEXTS_SHOWN) : 0;
    for (size_t i = 0; i < count && i < CONTEXTS_SHOWN; i++) {
        struct json_object *one = json_object_new_object();
        add_u64(one, "id", contexts[i].id);
        add_u64(one, "pid", (uint64_t)contexts[i].pid);
        json_object_object_add(one, "name", json_object_new_string(contexts[i].name));
        json_object_object_add(one, "failed", json_object_new_boolean(contexts[i].failed));
        json_object_object_add(one, "hung", json_object_new_boolean(contexts[i].hung));
        add_u64(one, "resources", contexts[i].resources);
        add_u64(one, "fences_pending", contexts[i].fences_pending);
        add_activity(one, &contexts[i]);
        json_object_array_add(list, one);
    }
    free(contexts);
    return list;
}

static void add_frames(struct json_object *one, const struct pv_publisher *publisher,
                       uint32_t scanout)
{
    struct pv_publisher_stats stats;
    if (!publisher)
        return;
    pv_publisher_get_stats(publisher, scanout, &stats);
    add_u64(one, "frames", stats.frames);
    add_u64(one, "shown", stats.shown);
    add_u64(one, "dropped", stats.dropped);
    add_u64(one, "viewers", stats.viewers);
    add_decimal(one, "fps", stats.fps);
    add_decimal(one, "frame_ms_median", (double)stats.median_ns / 1e6);
    add_decimal(one, "frame_ms_p99", (double)stats.p99_ns / 1e6);
}

static struct json_object *scanouts_status(const struct call *call)
{
    const struct pv_gpu *gpu = call->gpu;
    struct json_object *list = json_object_new_array();
    struct pv_gpu_scanout_stats stats;
    for (uint32_t i = 0; pv_gpu_get_scanout(gpu, i, &stats) == 0; i++) {
        struct json_object *one = json_object_new_object();
        add_u64(one, "width", stats.width);
        add_u64(one, "height", stats.height);
        json_object_object_add(one, "on", json_object_new_boolean(stats.on));
        add_u64(one, "shown_width", stats.shown_width);
        add_u64(one, "shown_height", stats.shown_height);
        add_frames(one, call->client->control->params.publisher, i);
        json_object_array_add(list, one);
    }
    return list;
}

static struct json_object *run_status(struct call *call)
{
    struct pv_gpu_stats stats;
    pv_gpu_get_stats(call->gpu, &stats);
    const struct {
        const char *name;
        uint64_t value;
    } numbers[] = {
        {"commands", stats.commands},
        {"errors", stats.errors},
        {"fences", stats.fences},
        {"cursor_updates", stats.cursor_updates},
        {"flushes", stats.flushes},
        {"resources", stats.resources},
        {"context_count", stats.contexts},
        {"mapped_bytes", stats.mapped_bytes},
        {"bytes_2d", stats.bytes_2d},
        {"maps", stats.maps},
        {"workers_started", stats.workers_started},
        {"workers_lost", stats.workers_lost},
    };
    struct json_object *answer = json_object_new_object();
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
        add_u64(answer, numbers[i].name, numbers[i].value);
    json_object_object_add(answer, "contexts", contexts_status(call->gpu));
    json_object_object_add(answer, "scanouts", scanouts_status(call));
    const struct pv_control_params *params = &call->client->control->params;
    if (params->add_status)
        params->add_status(params->data, answer);
    return answer;
}

static struct json_object *ok(void)
{
    struct json_object *answer = json_object_new_object();
    json_object_object_add(answer, "ok", json_object_new_boolean(true));
    return answer;
}

static struct json_object *run_resize(struct call *call)
{
    uint32_t scanout, width, height;
    if (!get_u32(call->arguments, "scanout", &scanout) ||
        !get_u32(call->arguments, "width", &width) || !get_u32(call->arguments, "height", &height))
        return refuse(call, "resize needs the numbers scanout, width and height");
    if (pv_gpu_set_scanout_size(call->gpu, scanout, width, height) < 0)
        return refuse(
            call, "no such scanout, or a size that no screen has (1 to 16384; 0x0: disconnected)");
    return ok();
}

static struct json_object *run_view(struct call *call)
{
    struct pv_publisher *publisher = call->client->control->params.publisher;
    uv_os_sock_t ends[2];
    if (!publisher)
        return refuse(call, "this device shows nothing");
    int ret = uv_socketpair(SOCK_STREAM, 0, ends, 0, 0);
    if (ret < 0)
        return refuse(call, strerror(-ret));
    ret = pv_publisher_add_viewer(publisher, ends[0]);
    if (ret < 0) {
        close(ends[0]);
        close(ends[1]);
        return refuse(call, ret == -EUSERS ? "too many viewers" : strerror(-ret));
    }
    call->client->view_fd = ends[1];
    return ok();
}

/* On a thread of the pool. */
static void write_picture(uv_work_t *work)
{
    struct screenshot *screenshot = work->data;
    const struct pv_gpu_snapshot *picture = screenshot->picture;
    screenshot->result = pv_png_save(&picture->frame, &picture->cursor, screenshot->path);
}

static void free_screenshot(struct screenshot *screenshot)
{
    json_object_put(screenshot->request);
    free(screenshot->picture);
    free(screenshot->path);
    free(screenshot);
}

static void on_picture_written(uv_work_t *work, int status);

static int start_screenshot(struct call *call, uint32_t scanout, const char *path)
{
    struct screenshot *screenshot = calloc(1, sizeof(*screenshot));
    if (!screenshot)
        return -ENOMEM;
    screenshot->work.data = screenshot;
    screenshot->client = call->client;
    screenshot->request = json_object_get(call->request);
    screenshot->path = strdup(path);
    int ret =
        screenshot->path ? pv_gpu_snapshot(call->gpu, scanout, &screenshot->picture) : -ENOMEM;
    if (ret == 0)
        ret = uv_queue_work(call->client->control->params.loop, &screenshot->work, write_picture,
                            on_picture_written);
    if (ret < 0) {
        free_screenshot(screenshot);
        return ret;
    }
    call->client->screenshot = screenshot;
    return 0;
}

static struct json_object *run_screenshot(struct call *call)
{
    uint32_t scanout;
    struct json_object *path;
    if (!get_u32(call->arguments, "scanout", &scanout) ||
        !json_object_object_get_ex(call->arguments, "path", &path) ||
        !json_object_is_type(path, json_type_string))
        return refuse(call, "screenshot needs the number scanout and the string path");
    const char *text = json_object_get_string(path);
    if (strlen(text) != (size_t)json_object_get_string_len(path) || text[0] == '\0')
        return refuse(call, strerror(EINVAL));
    int ret = start_screenshot(call, scanout, text);
    if (ret == -ENOENT)
        return refuse(call, "nothing is shown on that scanout");
    return refuse(call, ret < 0 ? strerror(-ret) : NULL);
}

static const struct {
    const char *name;
    struct json_object *(*run)(struct call *call);
    bool for_displays;
} commands[] = {
    {"status", run_status, true},
    {"resize", run_resize, false},
    {"screenshot", run_screenshot, false},
    {"view", run_view, true},
};

static struct json_object *run(struct call *call, struct json_object *name)
{
    if (json_object_is_type(name, json_type_string)) {
        for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
            if (strcmp(json_object_get_string(name), commands[i].name) != 0)
                continue;
            if (call->client->is_display && !commands[i].for_displays)
                return refuse(call, "not for displays");
            return commands[i].run(call);
        }
    }
    return refuse(call, "no such command: status, resize, screenshot and view are known");
}

/* ---- lines ---- */

static bool is_execute(struct json_object *request)
{
    return json_object_is_type(request, json_type_object) &&
           json_object_object_get_ex(request, "execute", NULL);
}

/* In the form of QEMU's monitor. */
static struct json_object *wrap(struct json_object *request, struct json_object *answer,
                                const char *error)
{
    struct json_object *id, *whole = json_object_new_object();
    if (answer) {
        json_object_object_add(whole, "return", answer);
    } else {
        struct json_object *what = json_object_new_object();
        json_object_object_add(what, "class", json_object_new_string("GenericError"));
        json_object_object_add(what, "desc", json_object_new_string(error));
        json_object_object_add(whole, "error", what);
    }
    if (json_object_object_get_ex(request, "id", &id))
        json_object_object_add(whole, "id", json_object_get(id));
    return whole;
}

/* The answer in the form of the request. Takes over `answer`. */
static struct json_object *finish_answer(struct json_object *request, struct json_object *answer,
                                         const char *error)
{
    if (is_execute(request))
        return wrap(request, answer, error);
    if (!answer) {
        answer = json_object_new_object();
        json_object_object_add(answer, "error", json_object_new_string(error));
    }
    return answer;
}

/* NULL: it comes later. */
static struct json_object *answer_request(struct client *client, struct json_object *request)
{
    struct call call = {
        .client = client,
        .gpu = client->control->params.gpu,
        .request = request,
        .arguments = request,
        .error = "not a JSON object with a command",
    };
    struct json_object *name, *answer = NULL;
    if (is_execute(request)) {
        call.arguments = NULL;
        json_object_object_get_ex(request, "arguments", &call.arguments);
        json_object_object_get_ex(request, "execute", &name);
        answer = run(&call, name);
    } else if (json_object_is_type(request, json_type_object) &&
               json_object_object_get_ex(request, "command", &name)) {
        answer = run(&call, name);
    }
    return answer || call.error ? finish_answer(request, answer, call.error) : NULL;
}

static struct json_object *parse(const char *line, size_t size)
{
    struct json_tokener *tokener = json_tokener_new_ex(JSON_DEPTH_MAX);
    if (!tokener)
        return NULL;
    struct json_object *object = json_tokener_parse_ex(tokener, line, (int)size);
    if (json_tokener_get_error(tokener) != json_tokener_success) {
        json_object_put(object);
        object = NULL;
    }
    json_tokener_free(tokener);
    return object;
}

static void on_closed(uv_handle_t *handle)
{
    free(handle->data);
}

static void disconnect(struct client *client)
{
    if (uv_is_closing((uv_handle_t *)&client->pipe))
        return;
    pv_list_remove(&client->node);
    client->control->client_count--;
    if (client->screenshot)
        client->screenshot->client = NULL;
    if (client->view_fd >= 0)
        close(client->view_fd);
    uv_close((uv_handle_t *)&client->pipe, on_closed);
}

static void on_written(uv_write_t *write, int status)
{
    free(write); /* the text is behind it */
    (void)status;
}

/* The end of a socket pair with the line. libuv would want another kind of pipe for that, so a
 * client that has not read the answers before is not waited for. */
static void send_with_fd(struct client *client, const char *text, size_t size)
{
    const struct iovec pieces[] = {{(void *)text, size}, {(void *)"\n", 1}};
    int socket = -1;
    uv_fileno((uv_handle_t *)&client->pipe, &socket);
    ssize_t sent = -EAGAIN;
    if (text && uv_stream_get_write_queue_size((uv_stream_t *)&client->pipe) == 0)
        sent = pv_fds_send(socket, &client->view_fd, 1, pieces, 2, false);
    close(client->view_fd);
    client->view_fd = -1;
    if (sent != (ssize_t)size + 1)
        disconnect(client);
}

static void send_text(struct client *client, const char *text, size_t size)
{
    uv_write_t *write = text ? malloc(sizeof(*write) + size + 1) : NULL;
    if (!write || uv_stream_get_write_queue_size((uv_stream_t *)&client->pipe) > BACKLOG_MAX) {
        free(write);
        disconnect(client);
        return;
    }
    char *copy = (char *)(write + 1);
    memcpy(copy, text, size);
    copy[size] = '\n';
    uv_buf_t buffer = uv_buf_init(copy, (unsigned int)size + 1);
    if (uv_write(write, (uv_stream_t *)&client->pipe, &buffer, 1, on_written) < 0) {
        free(write);
        disconnect(client);
    }
}

/* Takes over `answer`. */
static void send_answer(struct client *client, struct json_object *answer)
{
    size_t size;
    const char *text = json_object_to_json_string_length(answer, JSON_C_TO_STRING_PLAIN, &size);
    if (client->view_fd >= 0)
        send_with_fd(client, text, size);
    else
        send_text(client, text, size);
    json_object_put(answer);
}

static void take_line(struct client *client, size_t size)
{
    struct json_object *request = parse(client->line, size);
    struct json_object *answer = answer_request(client, request);
    if (answer)
        send_answer(client, answer);
    json_object_put(request);
}

/* Up to the end, or to one whose answer comes later. */
static void take_lines(struct client *client)
{
    char *end;
    while (!uv_is_closing((uv_handle_t *)&client->pipe) && !client->screenshot &&
           (end = memchr(client->line, '\n', client->used))) {
        size_t size = (size_t)(end - client->line);
        *end = '\0';
        take_line(client, size);
        client->used -= size + 1;
        memmove(client->line, end + 1, client->used);
    }
}

static void give_buffer(uv_handle_t *handle, size_t suggested, uv_buf_t *out)
{
    struct client *client = handle->data;
    *out = uv_buf_init(client->line + client->used,
                       (unsigned int)(PV_CONTROL_LINE_MAX - client->used));
}

static void on_read(uv_stream_t *stream, ssize_t count, const uv_buf_t *buffer)
{
    struct client *client = stream->data;
    if (count < 0) { /* the end, or ENOBUFS: a line that is too long */
        if (count == UV_ENOBUFS)
            pv_log_limited(PV_LOG_WARN, 2, "a client sent a line of more than %u bytes",
                           PV_CONTROL_LINE_MAX);
        disconnect(client);
        return;
    }
    client->used += (size_t)count;
    take_lines(client);
    if (client->screenshot)
        uv_read_stop(stream);
}

static void on_picture_written(uv_work_t *work, int status)
{
    struct screenshot *screenshot = work->data;
    struct client *client = screenshot->client;
    int result = screenshot->result;
    if (client) {
        client->screenshot = NULL;
        send_answer(client, finish_answer(screenshot->request, result == 0 ? ok() : NULL,
                                          strerror(-result)));
        take_lines(client);
    }
    free_screenshot(screenshot);
    if (!client || client->screenshot || uv_is_closing((uv_handle_t *)&client->pipe))
        return;
    if (uv_read_start((uv_stream_t *)&client->pipe, give_buffer, on_read) < 0)
        disconnect(client);
}

/* ---- clients ---- */

static struct client *new_client(struct pv_control *control)
{
    struct client *client = malloc(sizeof(*client));
    if (!client)
        return NULL;
    client->control = control;
    client->is_display = false;
    client->screenshot = NULL;
    client->view_fd = -1;
    client->used = 0;
    if (uv_pipe_init(control->params.loop, &client->pipe, 0) < 0) {
        free(client);
        return NULL;
    }
    client->pipe.data = client;
    pv_list_append(&control->clients, &client->node);
    control->client_count++;
    return client;
}

static void on_connection(uv_stream_t *listener, int status)
{
    struct pv_control *control = listener->data;
    struct client *client = status == 0 ? new_client(control) : NULL;
    if (!client)
        return;
    if (uv_accept(listener, (uv_stream_t *)&client->pipe) < 0 ||
        control->client_count > PV_CONTROL_CLIENTS_MAX ||
        uv_read_start((uv_stream_t *)&client->pipe, give_buffer, on_read) < 0)
        disconnect(client);
}

static int serve_client(struct pv_control *control, int fd, bool is_display)
{
    struct client *client = new_client(control);
    if (!client)
        return -ENOMEM;
    client->is_display = is_display;
    int ret = uv_pipe_open(&client->pipe, fd);
    if (ret == 0)
        ret = uv_read_start((uv_stream_t *)&client->pipe, give_buffer, on_read);
    if (ret < 0)
        disconnect(client);
    return ret;
}

static int listen_on(struct pv_control *control)
{
    int ret = uv_pipe_init(control->params.loop, &control->listener, 0);
    if (ret < 0)
        return ret;
    control->listener.data = control;
    control->listening = true;
    int fd = pv_fd_duplicate(control->params.listen_fd);
    ret = fd < 0 ? -EMFILE : uv_pipe_open(&control->listener, fd);
    if (ret < 0) {
        if (fd >= 0)
            close(fd);
        return ret;
    }
    return uv_listen((uv_stream_t *)&control->listener, 8, on_connection);
}

int pv_control_create(const struct pv_control_params *params, struct pv_control **out)
{
    struct pv_control *control = calloc(1, sizeof(*control));
    if (!control)
        return -ENOMEM;
    control->params = *params;
    pv_list_init(&control->clients);
    int ret = params->listen_fd >= 0 ? listen_on(control) : 0;
    for (size_t i = 0; ret == 0 && i < params->client_count; i++)
        ret = serve_client(control, params->client_fds[i], false);
    for (size_t i = 0; ret == 0 && i < params->view_count; i++)
        ret = serve_client(control, params->view_fds[i], true);
    if (ret < 0) {
        pv_control_destroy(control);
        return ret;
    }
    *out = control;
    return 0;
}

void pv_control_destroy(struct pv_control *control)
{
    if (!control)
        return;
    pv_list_for_each(node, &control->clients) disconnect(pv_list_entry(node, struct client, node));
    if (control->listening)
        uv_close((uv_handle_t *)&control->listener, on_closed);
    else
        free(control);
}
