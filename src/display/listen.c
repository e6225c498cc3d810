#include "display/listen.h"

#include "transport/listener.h"
#include "util/log.h"
#include "util/os.h"

#include <errno.h>
#include <netdb.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
#include <uv.h>

#define PV_LOG_MODULE "listen"

#define DEFAULT_HOST "127.0.0.1"
/* Ports tried when none was asked for. */
#define PORTS_TRIED 100
#define BACKLOG     32
/* Accept nothing for this long when we have run out of fds: the connection waits, and would wake us
 * without end. */
#define ACCEPT_PAUSE_MS 100

struct pv_listen {
    uv_poll_t poll;
    uv_timer_t pause; /* poll is stopped while it runs */
    int open_handles; /* of these two */
    struct pv_listen_params params;
    struct pv_listener unix_socket; /* fd -1: this is TCP */
    int tcp_fd;                     /* owned; -1: this is a Unix socket */
    char *path;                     /* owned; NULL: TCP */
    char name[NI_MAXHOST + 8];
};

struct endpoint {
    char host[256];
    unsigned int port;
};

static bool parse_port(const char *text, unsigned int *out)
{
    char *end;
    if (text[0] < '0' || text[0] > '9')
        return false;
    unsigned long port = strtoul(text, &end, 10);
    *out = (unsigned int)port;
    return *end == '\0' && port >= 1 && port <= 65535;
}

static bool parse_endpoint(const char *text, struct endpoint *out)
{
    const char *colon = strrchr(text, ':');
    const char *host = text;
    snprintf(out->host, sizeof(out->host), "%s", DEFAULT_HOST);
    if (!colon)
        return parse_port(text, &out->port);
    size_t size = (size_t)(colon - text);
    if (size >= 2 && host[0] == '[' && host[size - 1] == ']') {
        host++;
        size -= 2;
    } else if (memchr(host, ':', size)) {
        return false; /* an IPv6 address needs its brackets */
    }
    if (size == 0 || size >= sizeof(out->host))
        return false;
    memcpy(out->host, host, size);
    out->host[size] = '\0';
    return parse_port(colon + 1, &out->port);
}

static int bind_one(const struct addrinfo *info, int *out)
{
    int one = 1;
    int fd = pv_stream_socket(info->ai_family, false);
    if (fd < 0)
        return fd;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    if (info->ai_family == AF_INET6)
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof(one));
    if (bind(fd, info->ai_addr, info->ai_addrlen) < 0 || listen(fd, BACKLOG) < 0) {
        int error = errno;
        close(fd);
        return -error;
    }
    *out = fd;
    return 0;
}

/* Listen on the first address of the host that can be had. */
static int bind_endpoint(const struct endpoint *endpoint, int *out, const char **why)
{
    struct addrinfo *list, hints = {
                               .ai_socktype = SOCK_STREAM,
                               .ai_flags = AI_PASSIVE | AI_NUMERICSERV,
                           };
    char port[8];
    snprintf(port, sizeof(port), "%u", endpoint->port);
    int error = getaddrinfo(endpoint->host, port, &hints, &list);
    if (error != 0) {
        *why = gai_strerror(error);
        return -EINVAL;
    }
    int ret = -EADDRNOTAVAIL;
    for (const struct addrinfo *info = list; info && ret < 0; info = info->ai_next)
        ret = bind_one(info, out);
    freeaddrinfo(list);
    *why = strerror(-ret);
    return ret;
}

static void set_name(struct pv_listen *listen)
{
    struct sockaddr_storage address;
    socklen_t size = sizeof(address);
    char host[NI_MAXHOST] = "?", port[8] = "?";
    if (getsockname(listen->tcp_fd, (struct sockaddr *)&address, &size) == 0)
        getnameinfo((struct sockaddr *)&address, size, host, sizeof(host), port, sizeof(port),
                    NI_NUMERICHOST | NI_NUMERICSERV);
    snprintf(listen->name, sizeof(listen->name), strchr(host, ':') ? "[%s]:%s" : "%s:%s", host,
             port);
}

static int open_tcp(struct pv_listen *listen)
{
    const struct pv_listen_params *params = &listen->params;
    struct endpoint endpoint = {.host = DEFAULT_HOST, .port = params->default_port};
    const char *why = "";
    if (params->address && !parse_endpoint(params->address, &endpoint)) {
        pv_error("%s: \"%s\" is not an address: PORT, HOST:PORT or /PATH is needed", params->kind,
                 params->address);
        return -EINVAL;
    }
    int tries = params->address ? 1 : PORTS_TRIED;
    int ret = bind_endpoint(&endpoint, &listen->tcp_fd, &why);
    for (int i = 1; ret == -EADDRINUSE && i < tries; i++) {
        endpoint.port++;
        ret = bind_endpoint(&endpoint, &listen->tcp_fd, &why);
    }
    if (ret < 0)
        pv_error("%s: cannot listen on %s:%u: %s", params->kind, endpoint.host, endpoint.port, why);
    else
        set_name(listen);
    return ret;
}

static int open_unix(struct pv_listen *listen)
{
    listen->path = strdup(listen->params.address);
    if (!listen->path)
        return -ENOMEM;
    mode_t mask = umask(0177); /* nobody else, from the first moment on */
    int ret = pv_listener_open(&listen->unix_socket, listen->path);
    umask(mask);
    if (ret == 0)
        snprintf(listen->name, sizeof(listen->name), "%s", listen->path);
    return ret;
}

static int listening_fd(const struct pv_listen *listen)
{
    return listen->path ? listen->unix_socket.fd : listen->tcp_fd;
}

static void on_readable(uv_poll_t *poll, int status, int events);

static void on_pause_over(uv_timer_t *pause)
{
    struct pv_listen *listen = pause->data;
    uv_poll_start(&listen->poll, UV_READABLE, on_readable);
}

static void on_readable(uv_poll_t *poll, int status, int events)
{
    struct pv_listen *listen = poll->data;
    int fd = pv_accept(listening_fd(listen), false);
    if (fd >= 0) {
        listen->params.accepted(listen->params.data, fd);
    } else if (fd != -EAGAIN && fd != -EINTR && fd != -ECONNABORTED) {
        pv_log_limited(PV_LOG_WARN, 1, "%s: cannot accept a connection: %s", listen->params.kind,
                       strerror(-fd));
        uv_poll_stop(poll);
        uv_timer_start(&listen->pause, on_pause_over, ACCEPT_PAUSE_MS, 0);
    }
}

static void close_sockets(struct pv_listen *listen)
{
    pv_listener_close(&listen->unix_socket);
    if (listen->tcp_fd >= 0)
        close(listen->tcp_fd);
}

static void on_closed(uv_handle_t *handle)
{
    struct pv_listen *listen = handle->data;
    if (--listen->open_handles > 0)
        return;
    free(listen->path);
    free(listen);
}

int pv_listen_create(const struct pv_listen_params *params, struct pv_listen **out)
{
    struct pv_listen *listen = calloc(1, sizeof(*listen));
    if (!listen)
        return -ENOMEM;
    listen->params = *params;
    listen->unix_socket.fd = listen->tcp_fd = -1;
    int ret = params->address && params->address[0] == '/' ? open_unix(listen) : open_tcp(listen);
    if (ret < 0)
        goto err_free;
    ret = uv_poll_init(params->loop, &listen->poll, listening_fd(listen));
    if (ret < 0)
        goto err_close;
    uv_timer_init(params->loop, &listen->pause);
    listen->poll.data = listen->pause.data = listen;
    listen->open_handles = 2;
    uv_poll_start(&listen->poll, UV_READABLE, on_readable);
    *out = listen;
    return 0;

err_close:
    close_sockets(listen);
err_free:
    free(listen->path);
    free(listen);
    return ret;
}

void pv_listen_destroy(struct pv_listen *listen)
{
    if (!listen)
        return;
    uv_poll_stop(&listen->poll);
    close_sockets(listen);
    uv_close((uv_handle_t *)&listen->poll, on_closed);
    uv_close((uv_handle_t *)&listen->pause, on_closed);
}

const char *pv_listen_name(const struct pv_listen *listen)
{
    return listen->name;
}
