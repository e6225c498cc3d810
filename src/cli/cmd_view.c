#include "cli/commands.h"
#include "cli/control_socket.h"
#include "util/log.h"
#include "util/os.h"
#include "vm/argv.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define PV_LOG_MODULE "view"

#define PROGRAM "pearvisor-view"

/* Beside the program that runs, as in a build folder. */
static void path_beside_us(char *out, size_t size)
{
    char self[4096];
    out[0] = '\0';
    if (pv_executable_path(self, sizeof(self)) < 0)
        return;
    char *slash = strrchr(self, '/');
    if (slash)
        snprintf(out, size, "%.*s/%s", (int)(slash - self), self, PROGRAM);
}

static bool is_option(const char *given, const char *name)
{
    size_t size = strlen(name);
    return strncmp(given, name, size) == 0 && (given[size] == '\0' || given[size] == '=');
}

/* The view's own arguments. Without a --control among them there is a connection to the guest that
 * --guest names, or to the only one. Returns 0, or a negative errno after a line that says what is
 * wrong. */
static int make_arguments(int argc, char **argv, struct pv_argv *out)
{
    static const char *const enough[] = {"--control", "--control-fd", "--help", "-h"};
    const char *guest = NULL;
    bool given = argc == 1;
    for (int i = 0; i < argc; i++) {
        for (size_t j = 0; j < sizeof(enough) / sizeof(enough[0]); j++)
            given = given || is_option(argv[i], enough[j]);
        const char *value = strchr(argv[i], '=');
        if (!is_option(argv[i], "--guest"))
            pv_argv_add(out, argv[i]);
        else
            guest = value ? value + 1 : i + 1 < argc ? argv[++i] : "";
    }
    if (given && !guest)
        return 0;
    int fd = pv_connect_control(&(struct pv_control_options){.guest = guest});
    if (fd < 0)
        return fd;
    fcntl(fd, F_SETFD, 0);
    pv_argv_option(out, "--control-fd", "%d", fd);
    return out->failed ? -ENOMEM : 0;
}

/* A program of its own: the libraries of the displays are heavy, and no worker needs them. */
int pv_cmd_view(int argc, char **argv)
{
    struct pv_argv arguments = {0};
    char beside[4200];
    if (make_arguments(argc, argv, &arguments) < 0)
        return PV_EXIT_FAILED;
    path_beside_us(beside, sizeof(beside));
    execv(beside, arguments.items);
    execv(PV_LIBEXEC_DIR "/" PROGRAM, arguments.items);
    pv_error("cannot start %s, neither as %s nor as %s: %s", PROGRAM, beside,
             PV_LIBEXEC_DIR "/" PROGRAM, strerror(errno));
    pv_argv_finish(&arguments);
    return PV_EXIT_FAILED;
}
