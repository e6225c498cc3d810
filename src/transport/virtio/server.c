#include "transport/virtio/server.h"

#include "transport/listener.h"
#include "transport/virtio/watch.h"
#include "util/log.h"
#include "util/os.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PV_LOG_MODULE "virtio"

struct pv_vhost_server {
    struct pv_vhost_server_params params;
    struct pv_vhost_device *device; /* owned */
    struct pv_listener listener;
    struct pv_watch *watch; /* owned; of a duplicate of the listener's fd */
};

static void on_detached(void *data)
{
    struct pv_vhost_server *server = data;
    if (server->params.once || !server->params.socket_path)
        server->params.ended(server->params.data);
}

static void on_connection(void *data, int events)
{
    struct pv_vhost_server *server = data;
    int fd = pv_accept(server->listener.fd, false);
    if (fd < 0) {
        if (fd != -EAGAIN && fd != -EINTR && fd != -ECONNABORTED)
            pv_log_limited(PV_LOG_ERROR, 1, "cannot accept a connection: %s", strerror(-fd));
        return;
    }
    int ret = pv_vhost_device_attach(server->device, fd);
    if (ret < 0) {
        pv_log_limited(PV_LOG_WARN, 5, "a second frontend is turned away: %s",
                       ret == -EBUSY ? "one is being served" : strerror(-ret));
        close(fd);
        return;
    }
    pv_info("a frontend has connected");
}

static int listen_on(struct pv_vhost_server *server)
{
    int ret = pv_listener_open(&server->listener, server->params.socket_path);
    if (ret < 0)
        return ret;
    int fd = fcntl(server->listener.fd, F_DUPFD_CLOEXEC, 0);
    ret = fd < 0 ? -errno
                 : pv_watch_create(server->params.device.loop, fd, UV_READABLE, on_connection,
                                   server, &server->watch);
    if (ret < 0) {
        pv_error("cannot wait for connections: %s", strerror(-ret));
        if (fd >= 0)
            close(fd);
        pv_listener_close(&server->listener);
    }
    return ret;
}

static int serve_fd(struct pv_vhost_server *server)
{
    struct sockaddr_storage peer;
    socklen_t size = sizeof(peer);
    int ret = getpeername(server->params.fd, (struct sockaddr *)&peer, &size) < 0 ? -errno : 0;
    if (ret == 0)
        ret = pv_vhost_device_attach(server->device, server->params.fd);
    if (ret < 0)
        pv_error("cannot serve fd %d: %s", server->params.fd, strerror(-ret));
    return ret;
}

int pv_vhost_server_create(const struct pv_vhost_server_params *params,
                           struct pv_vhost_server **out)
{
    struct pv_vhost_server *server = calloc(1, sizeof(*server));
    if (!server)
        return -ENOMEM;
    server->params = *params;
    server->params.device.detached = on_detached;
    server->params.device.data = server;
    server->listener.fd = -1;
    int ret = pv_vhost_device_create(&server->params.device, &server->device);
    if (ret < 0) {
        pv_error("cannot make the device: %s", strerror(-ret));
        goto err_free;
    }
    ret = params->socket_path ? listen_on(server) : serve_fd(server);
    if (ret < 0)
        goto err_device;
    *out = server;
    return 0;

err_device:
    pv_vhost_device_destroy(server->device);
err_free:
    free(server);
    return ret;
}

void pv_vhost_server_destroy(struct pv_vhost_server *server)
{
    if (!server)
        return;
    pv_watch_destroy(server->watch);
    pv_listener_close(&server->listener);
    pv_vhost_device_destroy(server->device);
    free(server);
}

struct pv_vhost_device *pv_vhost_server_device(struct pv_vhost_server *server)
{
    return server->device;
}
