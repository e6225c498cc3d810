#include "transport/listener.h"

#include "util/log.h"
#include "util/os.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define PV_LOG_MODULE "socket"

/* Clients that may wait for accept(); a burst of starting programs. */
#define BACKLOG 128

static int make_address(const char *path, struct sockaddr_un *out)
{
    *out = (struct sockaddr_un){.sun_family = AF_UNIX};
    if (strlen(path) == 0 || strlen(path) >= sizeof(out->sun_path)) {
        pv_error("socket path \"%s\" has %zu bytes; between 1 and %zu are possible, so choose a "
                 "shorter one with --socket",
                 path, strlen(path), sizeof(out->sun_path) - 1);
        return -ENAMETOOLONG;
    }
    memcpy(out->sun_path, path, strlen(path) + 1);
    return 0;
}

/* The path is taken. Remove what is there if it is a socket that nobody listens on. */
static int remove_stale(const char *path, const struct sockaddr_un *address)
{
    struct stat info;
    if (lstat(path, &info) == 0 && !S_ISSOCK(info.st_mode)) {
        pv_error("%s exists and is not a socket; remove it or choose another path with --socket",
                 path);
        return -EEXIST;
    }

    int fd = pv_stream_socket(AF_UNIX, false);
    if (fd < 0)
        return fd;
    /* EAGAIN: somebody listens, and is busy */
    bool alive =
        connect(fd, (const struct sockaddr *)address, sizeof(*address)) == 0 || errno == EAGAIN;
    int error = errno;
    pid_t owner = alive ? pv_socket_peer_pid(fd) : 0;
    close(fd);

    if (alive) {
        pv_error("another server (pid %d) is listening on %s; stop it or choose another path with "
                 "--socket",
                 (int)owner, path);
        return -EADDRINUSE;
    }
    if (error != ECONNREFUSED && error != ENOENT) {
        pv_error("%s is taken, and whether anybody listens there cannot be found out: %s", path,
                 strerror(error));
        return -error;
    }
    pv_info("%s is left over from a server that has gone; replacing it", path);
    return unlink(path) < 0 && errno != ENOENT ? -errno : 0;
}

static int bind_address(int fd, const char *path, const struct sockaddr_un *address)
{
    if (bind(fd, (const struct sockaddr *)address, sizeof(*address)) == 0)
        return 0;
    if (errno == EADDRINUSE) {
        int ret = remove_stale(path, address);
        if (ret < 0)
            return ret;
        if (bind(fd, (const struct sockaddr *)address, sizeof(*address)) == 0)
            return 0;
    }
    int error = errno;
    pv_error("cannot make the socket %s: %s", path, strerror(error));
    return -error;
}

int pv_listener_open(struct pv_listener *listener, const char *path)
{
    *listener = (struct pv_listener){.fd = -1, .path = path};

    struct sockaddr_un address;
    int ret = make_address(path, &address);
    if (ret < 0)
        return ret;
    int fd = pv_stream_socket(AF_UNIX, false);
    if (fd < 0) {
        pv_error("cannot make a socket: %s", strerror(-fd));
        return fd;
    }
    ret = bind_address(fd, path, &address);
    if (ret < 0)
        goto err_close;

    struct stat info;
    if (listen(fd, BACKLOG) < 0 || stat(path, &info) < 0) {
        ret = -errno;
        pv_error("cannot listen on %s: %s", address.sun_path, strerror(errno));
        goto err_unlink;
    }
    listener->fd = fd;
    listener->device = info.st_dev;
    listener->inode = info.st_ino;
    return 0;

err_unlink:
    unlink(path);
err_close:
    close(fd);
    return ret;
}

void pv_listener_close(struct pv_listener *listener)
{
    if (listener->fd < 0)
        return;
    struct stat info;
    if (stat(listener->path, &info) == 0 && info.st_dev == listener->device &&
        info.st_ino == listener->inode)
        unlink(listener->path);
    close(listener->fd);
    listener->fd = -1;
}
