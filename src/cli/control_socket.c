#include "cli/control_socket.h"

#include "util/log.h"
#include "util/unix_socket.h"
#include "vm/guests.h"

#include <string.h>

#define PV_LOG_MODULE "control"

int pv_connect_control(const char *path, const char *guest)
{
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
    int fd = pv_unix_connect(path);
    if (fd < 0)
        pv_error("cannot connect to %s: %s", path, strerror(-fd));
    return fd;
}
