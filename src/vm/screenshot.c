#include "vm/screenshot.h"

#include "vm/rpc.h"

#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <stdbool.h>
#include <stdlib.h>
#include <unistd.h>
#include <uv.h>

#define ANSWER_TIMEOUT_MS 10000u

struct pv_screenshot {
    struct pv_rpc *rpc;
    uv_timer_t timer;
    void (*done)(void *data, const char *error);
    void *data;
    bool said, closing;
};

static void finish(struct pv_screenshot *screenshot, const char *error)
{
    if (screenshot->said || screenshot->closing)
        return;
    screenshot->said = true;
    uv_timer_stop(&screenshot->timer);
    screenshot->done(screenshot->data, error);
}

static void on_lost(void *data, const char *why)
{
    finish(data, why);
}

static const struct pv_rpc_events rpc_events = {.lost = on_lost};

static void on_answer(void *data, struct json_object *result, const char *error)
{
    finish(data, error);
}

static void on_late(uv_timer_t *timer)
{
    finish(timer->data, "the device does not answer");
}

static int ask(struct pv_screenshot *screenshot, const char *path)
{
    struct json_object *arguments = json_object_new_object();
    json_object_object_add(arguments, "scanout", json_object_new_int(0));
    json_object_object_add(arguments, "path", json_object_new_string(path));
    return pv_rpc_call(screenshot->rpc, "screenshot", arguments, on_answer, screenshot);
}

int pv_screenshot_create(uv_loop_t *loop, int control_fd, const char *path,
                         void (*done)(void *data, const char *error), void *data,
                         struct pv_screenshot **out)
{
    struct pv_screenshot *screenshot = calloc(1, sizeof(*screenshot));
    int fd = fcntl(control_fd, F_DUPFD_CLOEXEC, 0);
    int ret = !screenshot ? -ENOMEM : fd < 0 ? -errno : uv_timer_init(loop, &screenshot->timer);
    if (ret < 0)
        goto err_free;
    screenshot->done = done;
    screenshot->data = data;
    screenshot->timer.data = screenshot;
    ret = pv_rpc_create(loop, fd, &rpc_events, screenshot, &screenshot->rpc);
    if (ret < 0)
        goto err_close;
    ret = ask(screenshot, path);
    if (ret < 0) {
        pv_screenshot_destroy(screenshot);
        return ret;
    }
    uv_timer_start(&screenshot->timer, on_late, ANSWER_TIMEOUT_MS, 0);
    *out = screenshot;
    return 0;

err_close:
    close(fd);
    pv_screenshot_destroy(screenshot);
    return ret;
err_free:
    if (fd >= 0)
        close(fd);
    free(screenshot);
    return ret;
}

static void on_closed(uv_handle_t *handle)
{
    free(handle->data);
}

void pv_screenshot_destroy(struct pv_screenshot *screenshot)
{
    if (!screenshot || screenshot->closing)
        return;
    screenshot->closing = true;
    pv_rpc_destroy(screenshot->rpc);
    uv_close((uv_handle_t *)&screenshot->timer, on_closed);
}
