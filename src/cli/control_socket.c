#include "cli/control_socket.h"

#include "util/log.h"
#include "vm/guests.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define PV_LOG_MODULE "control"

int pv_connect_control(const char *path, const char *guest)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct pv_guest found;
    char why[512];
    if (!path) {
        int ret = pv_guest_find(guest, &found, why, sizeof(why));
        if (ret < 0) {
            pv_error("%s", why);
            return ret;
        }
        path = found.socket;
    }
    if (snprintf(address.sun_path, sizeof(address.sun_path), "%s", path) >=
        (int)sizeof(address.sun_path)) {
        pv_error("%s: the path of a socket has at most %zu bytes", path,
                 sizeof(address.sun_path) - 1);
        return -ENAMETOOLONG;
    }
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int ret = fd < 0 ? -errno : 0;
    if (ret == 0 && connect(fd, (const struct sockaddr *)&address, sizeof(address)) < 0) {
        ret = -errno;
        close(fd);
    }
    if (ret < 0)
        pv_error("cannot connect to %s: %s", path, strerror(-ret));
    return ret < 0 ? ret : fd;
}
