#include "display/vnc.h"

#include "display/input.h"
#include "display/keymap.h"
#include "display/viewer.h"
#include "display/vnc_client.h"
#include "util/list.h"
#include "util/log.h"
#include "vm/keycode.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>

#define PV_LOG_MODULE "vnc"

/* Each has a thread and a copy of the screen. */
#define CLIENTS_MAX 16u

/* RFB's button mask: bits 3 to 6 are the wheel's steps. */
#define WHEEL_UP    8u
#define WHEEL_DOWN  16u
#define WHEEL_LEFT  32u
#define WHEEL_RIGHT 64u

struct client {
    struct pv_list node;
    struct pv_vnc *vnc;
    struct pv_vnc_client *client;
    struct pv_typist typist;
    bool pressed[PV_KEY_LIMIT]; /* by this client */
    uint32_t buttons;           /* RFB's mask */
};

struct pv_vnc {
    struct pv_vnc_params params;
    uv_async_t wake;
    char *name, *password; /* owned; password may be NULL */
    struct pv_list clients;
    size_t client_count;
    struct client *dragging; /* has a button down, and the pointer for itself; NULL: nobody */
};

/* ---- input ---- */

static void on_press(void *data, uint32_t code, bool down)
{
    struct client *client = data;
    if (code == 0 || code >= PV_KEY_LIMIT || !client->vnc->params.input)
        return;
    client->pressed[code] = down;
    pv_input_key(client->vnc->params.input, code, down);
}

static uint32_t input_buttons(uint32_t mask)
{
    return (mask & 1 ? PV_BUTTON_LEFT : 0) | (mask & 2 ? PV_BUTTON_MIDDLE : 0) |
           (mask & 4 ? PV_BUTTON_RIGHT : 0) | (mask & 128 ? PV_BUTTON_SIDE : 0);
}

static void point(struct client *client, const struct pv_vnc_event *event)
{
    struct pv_vnc *vnc = client->vnc;
    const struct pv_vnc_params *params = &vnc->params;
    const struct pv_view *view = pv_viewer_get(params->viewer, params->scanout);
    struct pv_place place;
    if (vnc->dragging && vnc->dragging != client)
        return;
    vnc->dragging = input_buttons(event->value) ? client : NULL;
    uint32_t turned = event->value & ~client->buttons;
    client->buttons = event->value;
    if (!params->input || view->width == 0)
        return;
    pv_viewer_place(params->viewer, params->scanout, &place);
    uint32_t x = event->x < view->width ? event->x : view->width - 1;
    pv_input_pointer(params->input, place.x + x, event->y, place.total_width, place.total_height,
                     input_buttons(event->value));
    pv_input_wheel(params->input, !!(turned & WHEEL_RIGHT) - !!(turned & WHEEL_LEFT),
                   !!(turned & WHEEL_DOWN) - !!(turned & WHEEL_UP));
}

static void take_events(struct client *client)
{
    const struct pv_vnc_params *params = &client->vnc->params;
    struct pv_vnc_event event;
    while (pv_vnc_client_next_event(client->client, &event)) {
        switch (event.type) {
        case PV_VNC_SYMBOL:
            client->typist.caps_lock = params->input && pv_input_caps_lock(params->input);
            pv_typist_key(&client->typist, event.value, event.down, on_press, client);
            break;
        case PV_VNC_KEY:
            on_press(client, pv_keycode_from_xt(event.value), event.down);
            break;
        case PV_VNC_POINTER:
            point(client, &event);
            break;
        case PV_VNC_SIZE:
            pv_viewer_ask_size(params->viewer, params->scanout, event.x, event.y);
            break;
        }
    }
}

/* What a client that has gone held down. */
static void let_go(struct client *client)
{
    for (uint32_t code = 0; code < PV_KEY_LIMIT; code++) {
        if (client->pressed[code])
            on_press(client, code, false);
    }
    if (client->vnc->dragging != client)
        return;
    client->vnc->dragging = NULL;
    if (client->vnc->params.input)
        pv_input_release_buttons(client->vnc->params.input, input_buttons(client->buttons));
}

static void remove_client(struct client *client)
{
    pv_vnc_client_destroy(client->client);
    let_go(client);
    pv_list_remove(&client->node);
    client->vnc->client_count--;
    free(client);
}

/* ---- pictures ---- */

static void set_all_behind(struct pv_vnc *vnc)
{
    pv_list_for_each(node, &vnc->clients)
        pv_vnc_client_set_behind(pv_list_entry(node, struct client, node)->client);
}

/* Only when somebody waits for it is a frame taken from the device: else it need not copy any. */
static void show(struct pv_vnc *vnc)
{
    const struct pv_vnc_params *params = &vnc->params;
    const struct pv_view *view = pv_viewer_get(params->viewer, params->scanout);
    struct pv_rect damage;
    bool wanted = false;
    pv_list_for_each(node, &vnc->clients) wanted =
        wanted || pv_vnc_client_wants(pv_list_entry(node, struct client, node)->client);
    if (!wanted)
        return;
    bool fresh = pv_viewer_take(params->viewer, params->scanout, &damage);
    pv_list_for_each(node, &vnc->clients)
    {
        struct client *client = pv_list_entry(node, struct client, node);
        if (fresh)
            pv_vnc_client_add_damage(client->client, &damage);
        pv_vnc_client_show(client->client, view);
    }
}

static void on_wake(uv_async_t *async)
{
    struct pv_vnc *vnc = async->data;
    pv_list_for_each(node, &vnc->clients)
    {
        struct client *client = pv_list_entry(node, struct client, node);
        take_events(client);
        if (pv_vnc_client_ended(client->client))
            remove_client(client);
    }
    show(vnc);
}

static void wake_loop(void *data)
{
    struct pv_vnc *vnc = data;
    uv_async_send(&vnc->wake);
}

void pv_vnc_frame(struct pv_vnc *vnc)
{
    set_all_behind(vnc);
    show(vnc);
}

void pv_vnc_resized(struct pv_vnc *vnc)
{
    const struct pv_view *view = pv_viewer_get(vnc->params.viewer, vnc->params.scanout);
    const struct pv_rect all = {0, 0, view->width, view->height};
    pv_list_for_each(node, &vnc->clients)
        pv_vnc_client_all_is_new(pv_list_entry(node, struct client, node)->client, &all);
    set_all_behind(vnc);
    show(vnc);
}

void pv_vnc_cursor(struct pv_vnc *vnc)
{
    const struct pv_view *view = pv_viewer_get(vnc->params.viewer, vnc->params.scanout);
    pv_list_for_each(node, &vnc->clients)
        pv_vnc_client_set_cursor(pv_list_entry(node, struct client, node)->client, view);
}

/* ---- clients ---- */

int pv_vnc_add_client(struct pv_vnc *vnc, int fd)
{
    struct client *client = calloc(1, sizeof(*client));
    if (!client || vnc->client_count == CLIENTS_MAX) {
        pv_log_limited(PV_LOG_WARN, 1, "a client is turned away: there are %zu already",
                       vnc->client_count);
        free(client);
        close(fd);
        return -EUSERS;
    }
    client->vnc = vnc;
    client->typist.keymap = vnc->params.keymap;
    int ret = pv_vnc_client_create(
        &(struct pv_vnc_client_params){
            .fd = fd,
            .name = vnc->name,
            .password = vnc->password,
            .view = pv_viewer_get(vnc->params.viewer, vnc->params.scanout),
            .wake = wake_loop,
            .data = vnc,
        },
        &client->client);
    if (ret < 0) {
        pv_log_limited(PV_LOG_WARN, 1, "a client is turned away: %s", strerror(-ret));
        free(client);
        return ret;
    }
    pv_list_append(&vnc->clients, &client->node);
    vnc->client_count++;
    return 0;
}

size_t pv_vnc_client_count(const struct pv_vnc *vnc)
{
    return vnc->client_count;
}

/* ---- life ---- */

static void on_closed(uv_handle_t *handle)
{
    free(handle->data);
}

int pv_vnc_create(const struct pv_vnc_params *params, struct pv_vnc **out)
{
    struct pv_vnc *vnc = calloc(1, sizeof(*vnc));
    if (!vnc)
        return -ENOMEM;
    vnc->params = *params;
    pv_list_init(&vnc->clients);
    vnc->name = strdup(params->name);
    vnc->password = params->password ? strdup(params->password) : NULL;
    int ret = -ENOMEM;
    if (!vnc->name || (params->password && !vnc->password))
        goto err;
    ret = pv_vnc_client_prepare(params->password != NULL);
    if (ret == 0)
        ret = uv_async_init(params->loop, &vnc->wake, on_wake);
    if (ret < 0)
        goto err;
    vnc->wake.data = vnc;
    *out = vnc;
    return 0;

err:
    free(vnc->name);
    free(vnc->password);
    free(vnc);
    return ret;
}

void pv_vnc_destroy(struct pv_vnc *vnc)
{
    if (!vnc)
        return;
    pv_list_for_each(node, &vnc->clients) remove_client(pv_list_entry(node, struct client, node));
    free(vnc->name);
    if (vnc->password)
        explicit_bzero(vnc->password, strlen(vnc->password));
    free(vnc->password);
    uv_close((uv_handle_t *)&vnc->wake, on_closed);
}
