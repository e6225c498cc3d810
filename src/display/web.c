#include "display/web.h"

#include "display/http.h"
#include "display/viewer.h"
#include "display/vnc.h"
#include "display/web_access.h"
#include "display/web_page.h"
#include "display/web_scripts.h"
#include "util/list.h"
#include "util/log.h"
#include "util/os.h"

#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <uv.h>

#define PV_LOG_MODULE "web"

/* From the connection to the end of the head, and to the end of the answer. */
#define HEAD_TIMEOUT_MS   5000
#define ANSWER_TIMEOUT_MS 30000
/* Between looks at a head that has come in part: what was seen stays in the socket, which is
 * readable all the time. */
#define HEAD_RETRY_MS 20
/* libvncserver takes a handshake of fewer bytes. */
#define HANDSHAKE_MAX 4000u
/* Questions to the device: pages ask once a second each. */
#define STATUS_INTERVAL_MS 900

struct client {
    struct pv_list node; /* in web->clients, oldest first; empty when it is leaving */
    struct pv_web *web;
    int fd; /* owned; -1: handed over */
    uv_poll_t poll;
    uv_timer_t timer;
    unsigned closed; /* of the two */
    uint64_t deadline_ms;
    bool wants_status;
    char *answer; /* owned; NULL: none yet */
    size_t answer_size, sent;
};

struct pv_web {
    struct pv_web_params params;
    struct pv_web_access access;
    struct pv_web_scripts *scripts;
    char *authority; /* owned */
    struct pv_list clients;
    size_t client_count;
    char *status; /* JSON, owned; NULL: none yet */
    uint64_t status_time_ms;
    bool status_asked;
};

/* ---- clients ---- */

static void on_closed(uv_handle_t *handle)
{
    struct client *client = handle->data;
    if (++client->closed < 2)
        return;
    free(client->answer);
    free(client);
}

static void disconnect(struct client *client)
{
    if (uv_is_closing((uv_handle_t *)&client->poll))
        return;
    pv_list_remove(&client->node);
    client->web->client_count--;
    uv_close((uv_handle_t *)&client->poll, on_closed);
    uv_close((uv_handle_t *)&client->timer, on_closed);
    if (client->fd >= 0)
        close(client->fd);
}

/* What is left unread when a connection is closed would take the answer with it. */
static void discard_input(struct client *client)
{
    char rest[PV_HTTP_HEAD_MAX];
    for (int i = 0; i < 8 && recv(client->fd, rest, sizeof(rest), MSG_DONTWAIT) > 0; i++)
        continue;
}

static void on_writable(uv_poll_t *poll, int status, int events)
{
    struct client *client = poll->data;
    ssize_t sent = pv_send(client->fd, client->answer + client->sent,
                           client->answer_size - client->sent, false);
    if (sent == -EAGAIN || sent == -EINTR)
        return;
    client->sent += sent > 0 ? (size_t)sent : 0;
    if (sent > 0 && client->sent < client->answer_size)
        return;
    discard_input(client);
    disconnect(client);
    (void)status;
    (void)events;
}

static void on_timeout(uv_timer_t *timer)
{
    disconnect(timer->data);
}

static void send_answer(struct client *client, const struct pv_http_answer *answer)
{
    client->wants_status = false;
    client->answer = pv_http_compose(answer, &client->answer_size);
    discard_input(client);
    uv_timer_start(&client->timer, on_timeout, ANSWER_TIMEOUT_MS, 0);
    if (!client->answer || uv_poll_start(&client->poll, UV_WRITABLE, on_writable) < 0)
        disconnect(client);
}

static void refuse(struct client *client, int status, const char *sentence)
{
    send_answer(client, &(struct pv_http_answer){
                            .status = status,
                            .type = "text/plain; charset=utf-8",
                            .body = sentence,
                            .body_size = strlen(sentence),
                        });
}

/* ---- what there is to get ---- */

/* "http://HOST/?token=…" */
static void announce(struct pv_web *web)
{
    char url[400];
    snprintf(url, sizeof(url), "%s%s/?token=%s", web->authority ? "http://" : "",
             web->authority ? web->authority : "", web->access.token);
    web->params.announce(web->params.data, url);
}

/* noVNC draws some rectangles and its cursor from data: URLs. */
static void send_file(struct client *client, const struct pv_http_request *request,
                      const struct pv_web_file *file)
{
    const struct pv_web_access *access = &client->web->access;
    char fields[1000];
    snprintf(fields, sizeof(fields),
             "Content-Security-Policy: default-src 'none'; script-src 'self'; style-src 'self'; "
             "img-src 'self' data:; connect-src 'self' ws://%.200s wss://%.200s; base-uri 'none'; "
             "form-action 'none'; frame-ancestors 'none'\r\n"
             "Set-Cookie: %s=%s; HttpOnly; SameSite=Strict; Path=/\r\n",
             request->host, request->host, access->cookie_name, access->cookie);
    send_answer(client, &(struct pv_http_answer){
                            .status = 200,
                            .type = file->type,
                            .fields = fields,
                            .body = file->data,
                            .body_size = file->size,
                        });
}

static void send_script(struct client *client, const char *path)
{
    size_t size;
    char *script = pv_web_scripts_read(client->web->scripts, path, &size);
    if (!script) {
        refuse(client, 404, "There is no such script.\n");
        return;
    }
    send_answer(client, &(struct pv_http_answer){
                            .status = 200,
                            .type = "text/javascript; charset=utf-8",
                            .body = script,
                            .body_size = size,
                        });
    free(script);
}

static void send_status(struct client *client)
{
    const struct pv_web *web = client->web;
    char *text;
    int size =
        asprintf(&text, "{\"scanout\": %u, \"pages\": %zu, \"device\": %s}\n", web->params.scanout,
                 pv_vnc_client_count(web->params.vnc), web->status ? web->status : "null");
    if (size < 0) {
        disconnect(client);
        return;
    }
    send_answer(client, &(struct pv_http_answer){
                            .status = 200,
                            .type = "application/json",
                            .body = text,
                            .body_size = (size_t)size,
                        });
    free(text);
}

static void on_status(void *data, struct json_object *status)
{
    struct pv_web *web = data;
    free(web->status);
    web->status = status ? strdup(json_object_to_json_string(status)) : NULL;
    web->status_time_ms = uv_now(web->params.loop);
    web->status_asked = false;
    pv_list_for_each(node, &web->clients)
    {
        struct client *client = pv_list_entry(node, struct client, node);
        if (client->wants_status)
            send_status(client);
    }
}

static void get_status(struct client *client)
{
    struct pv_web *web = client->web;
    uint64_t now = uv_now(web->params.loop);
    if (!web->params.viewer || (web->status && now - web->status_time_ms < STATUS_INTERVAL_MS)) {
        send_status(client);
        return;
    }
    client->wants_status = true;
    if (!web->status_asked) {
        web->status_asked = true;
        pv_viewer_ask_status(web->params.viewer, on_status, web);
    }
}

static void open_screen(struct client *client, const struct pv_http_request *request)
{
    struct pv_vnc *vnc = client->web->params.vnc;
    if (!request->upgrade || request->size > HANDSHAKE_MAX) {
        refuse(client, 400, "This address takes the handshake of a WebSocket.\n");
    } else if (!pv_web_access_origin_ok(request)) {
        refuse(client, 403, "Refused: this WebSocket was not opened by PearVisor's own page.\n");
    } else if (pv_vnc_client_count(vnc) >= PV_WEB_SCREENS_MAX) {
        refuse(client, 503, "Too many pages show this screen: close one.\n");
    } else {
        int fd = client->fd;
        client->fd = -1;
        disconnect(client);
        pv_vnc_add_client(vnc, fd);
    }
}

static const struct pv_web_file *find_file(const char *path)
{
    for (size_t i = 0; i < pv_web_file_count; i++) {
        if (strcmp(pv_web_files[i].path, path) == 0)
            return &pv_web_files[i];
    }
    return NULL;
}

static bool may_enter(struct pv_web *web, const struct pv_http_request *request)
{
    if (pv_web_access_cookie_ok(&web->access, request))
        return true;
    if (strcmp(request->path, "/") != 0 || !pv_web_access_use_token(&web->access, request))
        return false;
    announce(web);
    return true;
}

static void take_request(struct client *client, const struct pv_http_request *request)
{
    struct pv_web *web = client->web;
    const struct pv_web_file *file = find_file(request->path);
    if (!pv_web_access_host_ok(&web->access, request, client->fd))
        refuse(client, 403, "Refused: PearVisor does not listen under this host's name.\n");
    else if (!may_enter(web, request))
        refuse(client, 403,
               "Refused: open the newest address that PearVisor has printed. Each works once.\n");
    else if (strcmp(request->path, "/websocket") == 0)
        open_screen(client, request);
    else if (strcmp(request->path, "/status.json") == 0)
        get_status(client);
    else if (strncmp(request->path, "/novnc/", 7) == 0)
        send_script(client, request->path + 7);
    else if (file)
        send_file(client, request, file);
    else
        refuse(client, 404, "There is nothing here.\n");
}

/* ---- heads of requests ---- */

static void look_at_head(struct client *client);

static void on_readable(uv_poll_t *poll, int status, int events)
{
    look_at_head(poll->data);
    (void)status;
    (void)events;
}

static void on_head_timer(uv_timer_t *timer)
{
    struct client *client = timer->data;
    if (uv_now(client->web->params.loop) >= client->deadline_ms)
        disconnect(client);
    else
        look_at_head(client);
}

static void look_at_head(struct client *client)
{
    char head[PV_HTTP_HEAD_MAX];
    ssize_t got = recv(client->fd, head, sizeof(head), MSG_PEEK | MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (got <= 0) {
        disconnect(client);
        return;
    }
    struct pv_http_request request;
    int ret = pv_http_parse(head, (size_t)got, &request);
    if (ret == -EAGAIN && got < (ssize_t)sizeof(head)) {
        uv_poll_stop(&client->poll);
        uv_timer_start(&client->timer, on_head_timer, HEAD_RETRY_MS, 0);
        return;
    }
    uv_poll_stop(&client->poll);
    uv_timer_start(&client->timer, on_timeout, HEAD_TIMEOUT_MS, 0); /* for an answer to send */
    if (ret == -EAGAIN)
        refuse(client, 431, "This request is too long.\n");
    else if (ret == -EOPNOTSUPP)
        refuse(client, 405, "Only GET is known here.\n");
    else if (ret < 0)
        refuse(client, 400, "This is no request that PearVisor understands.\n");
    else
        take_request(client, &request);
}

/* ---- life ---- */

int pv_web_create(const struct pv_web_params *params, struct pv_web **out)
{
    struct pv_web *web = calloc(1, sizeof(*web));
    if (!web)
        return -ENOMEM;
    web->params = *params;
    pv_list_init(&web->clients);
    int ret = pv_web_access_init(&web->access, params->authority);
    if (ret == 0 && params->authority) {
        web->authority = strdup(params->authority);
        ret = web->authority ? 0 : -ENOMEM;
    }
    if (ret == 0)
        ret = pv_web_scripts_create(&web->scripts);
    if (ret < 0) {
        pv_web_destroy(web);
        return ret;
    }
    announce(web);
    *out = web;
    return 0;
}

void pv_web_destroy(struct pv_web *web)
{
    if (!web)
        return;
    pv_list_for_each(node, &web->clients) disconnect(pv_list_entry(node, struct client, node));
    pv_web_scripts_destroy(web->scripts);
    pv_web_access_finish(&web->access);
    free(web->authority);
    free(web->status);
    free(web);
}

int pv_web_add_client(struct pv_web *web, int fd)
{
    struct client *client = calloc(1, sizeof(*client));
    int flags = fcntl(fd, F_GETFL);
    if (!client || flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0 ||
        uv_poll_init(web->params.loop, &client->poll, fd) < 0) {
        free(client);
        close(fd);
        return -ENOMEM;
    }
    uv_timer_init(web->params.loop, &client->timer);
    client->poll.data = client->timer.data = client;
    client->web = web;
    client->fd = fd;
    client->deadline_ms = uv_now(web->params.loop) + HEAD_TIMEOUT_MS;
    if (web->client_count >= PV_WEB_CLIENTS_MAX)
        disconnect(pv_list_entry(web->clients.next, struct client, node));
    pv_list_append(&web->clients, &client->node);
    web->client_count++;
    if (uv_poll_start(&client->poll, UV_READABLE, on_readable) < 0 ||
        uv_timer_start(&client->timer, on_head_timer, HEAD_TIMEOUT_MS, 0) < 0)
        disconnect(client);
    return 0;
}
