#include "cli/commands.h"
#include "util/log.h"
#include "util/os.h"

#include <errno.h>
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

/* A program of its own: the libraries of the displays are heavy, and no worker needs them. */
int pv_cmd_view(int argc, char **argv)
{
    char beside[4200];
    path_beside_us(beside, sizeof(beside));
    execv(beside, argv);
    execv(PV_LIBEXEC_DIR "/" PROGRAM, argv);
    pv_error("cannot start %s, neither as %s nor as %s: %s", PROGRAM, beside,
             PV_LIBEXEC_DIR "/" PROGRAM, strerror(errno));
    return PV_EXIT_FAILED;
}
