#include "vm/gpu_client.h"

#include "vm/rpc.h"

#include <errno.h>
#include <json-c/json.h>
#include <stdbool.h>
#include <stdlib.h>
#include <uv.h>

#define PICTURE_TIMEOUT_MS 10000u

/* At most one of each kind at a time. */
struct question {
    pv_gpu_answer answer; /* NULL: none is open */
    void *data;
};

struct pv_gpu_client {
    struct pv_rpc *rpc;
    uv_timer_t timer; /* of the picture */
    struct question status, picture;
    bool lost, closing;
};

static void answer(struct pv_gpu_client *client, struct question *question,
                   struct json_object *result, const char *error)
{
    struct question asked = *question;
    *question = (struct question){0};
    if (question == &client->picture)
        uv_timer_stop(&client->timer);
    if (asked.answer && !client->closing)
        asked.answer(asked.data, result, error);
}

static void on_lost(void *data, const char *why)
{
    struct pv_gpu_client *client = data;
    client->lost = true;
    answer(client, &client->status, NULL, why);
    answer(client, &client->picture, NULL, why);
}

static const struct pv_rpc_events rpc_events = {.lost = on_lost};

static void on_status(void *data, struct json_object *result, const char *error)
{
    struct pv_gpu_client *client = data;
    answer(client, &client->status, result, error);
}

static void on_picture(void *data, struct json_object *result, const char *error)
{
    struct pv_gpu_client *client = data;
    answer(client, &client->picture, result, error);
}

static void on_late(uv_timer_t *timer)
{
    struct pv_gpu_client *client = timer->data;
    answer(client, &client->picture, NULL, "the device does not answer");
}

static void on_closed(uv_handle_t *handle)
{
    free(handle->data);
}

int pv_gpu_client_create(uv_loop_t *loop, int fd, struct pv_gpu_client **out)
{
    struct pv_gpu_client *client = calloc(1, sizeof(*client));
    int ret = client ? uv_timer_init(loop, &client->timer) : -ENOMEM;
    if (ret < 0) {
        free(client);
        return ret;
    }
    client->timer.data = client;
    ret = pv_rpc_create(loop, fd, &rpc_events, client, &client->rpc);
    if (ret < 0)
        pv_gpu_client_destroy(client);
    else
        *out = client;
    return ret;
}

void pv_gpu_client_destroy(struct pv_gpu_client *client)
{
    if (!client)
        return;
    client->closing = true;
    pv_rpc_destroy(client->rpc);
    uv_close((uv_handle_t *)&client->timer, on_closed);
}

static int ask(struct pv_gpu_client *client, struct question *question, const char *command,
               struct json_object *arguments, pv_rpc_done done, struct question asked)
{
    if (question->answer || client->lost) {
        json_object_put(arguments);
        return client->lost ? -EPIPE : -EBUSY;
    }
    int ret = pv_rpc_call(client->rpc, command, arguments, done, client);
    if (ret == 0)
        *question = asked;
    return ret;
}

int pv_gpu_client_status(struct pv_gpu_client *client, pv_gpu_answer answer_to, void *data)
{
    return ask(client, &client->status, "status", NULL, on_status,
               (struct question){answer_to, data});
}

int pv_gpu_client_screenshot(struct pv_gpu_client *client, uint32_t scanout, const char *path,
                             pv_gpu_answer answer_to, void *data)
{
    struct json_object *arguments = json_object_new_object();
    json_object_object_add(arguments, "scanout", json_object_new_int64(scanout));
    json_object_object_add(arguments, "path", json_object_new_string(path));
    int ret = ask(client, &client->picture, "screenshot", arguments, on_picture,
                  (struct question){answer_to, data});
    if (ret == 0)
        uv_timer_start(&client->timer, on_late, PICTURE_TIMEOUT_MS, 0);
    return ret;
}
