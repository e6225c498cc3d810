#include "cli/control_socket.h"

#include "cli/commands.h"
#include "util/log.h"
#include "util/unix_socket.h"
#include "vm/guests.h"

#include <getopt.h>
#include <string.h>

#define PV_LOG_MODULE "control"

int pv_parse_control_option(const char *command, struct pv_control_options *options, int option,
                            char **argv)
{
    if (option == 'c')
        options->path = optarg;
    else if (option == 'g')
        options->guest = optarg;
    else
        return pv_option_error(command, option, argv);
    if (options->path && options->guest)
        return pv_usage_error(command, "--control and --guest exclude each other");
    return 0;
}

int pv_connect_control(const struct pv_control_options *options)
{
    const char *path = options->path;
    struct pv_guest found;
    char why[512];
    if (!path) {
        int ret = pv_guest_find(options->guest, &found, why, sizeof(why));
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
