/* vnc[:ADDRESS]: a VNC server on a socket. */
#include "display/listen.h"
#include "display/vnc.h"
#include "util/log.h"
#include "util/os.h"
#include "view/vnc_server.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PV_LOG_MODULE "vnc"

#define DEFAULT_PORT 5900
/* VNC looks at no more, */
#define PASSWORD_SIZE 8
/* and each is one of these 32, which are easily told apart: 40 bits that nobody guesses in time. */
#define PASSWORD_LETTERS "abcdefghijkmnpqrstuvwxyz23456789"

static void on_accepted(void *data, int fd)
{
    const struct pv_vnc_server *server = data;
    pv_vnc_add_client(server->vnc, fd);
}

static void destroy(void *display)
{
    pv_vnc_server_finish(display);
    free(display);
}

/* By the name of what is listened on. */
static bool is_local(const char *name)
{
    return name[0] == '/' || strncmp(name, "127.", 4) == 0 || strncmp(name, "[::1]:", 6) == 0;
}

static int make_password(char out[PASSWORD_SIZE + 1])
{
    uint8_t random[PASSWORD_SIZE];
    int ret = pv_random(random, sizeof(random));
    for (size_t i = 0; ret == 0 && i < PASSWORD_SIZE; i++)
        out[i] = PASSWORD_LETTERS[random[i] % 32];
    out[PASSWORD_SIZE] = '\0';
    return ret;
}

/* Where every user of this machine can connect. The folder and mode of a Unix socket say who can.
 */
static bool needs_password(const struct pv_display_params *params)
{
    bool is_unix = params->address && params->address[0] == '/';
    return !params->password && !params->no_password && !is_unix;
}

static void announce(const char *name, const char *password, bool made)
{
    if (made)
        fprintf(stderr, "vnc: listening on %s with password %s\n", name, password);
    else
        pv_info("listening on %s", name);
    if (!password && !is_local(name))
        pv_warn("whoever can connect can look and type: there is no password");
}

static int create(const struct pv_display_params *params, void **out)
{
    char made[PASSWORD_SIZE + 1];
    bool make = needs_password(params);
    const char *password = make ? made : params->password;
    if (make && make_password(made) < 0) {
        pv_error("no random numbers for a password");
        return -EIO;
    }
    struct pv_vnc_server *server = calloc(1, sizeof(*server));
    if (!server)
        return -ENOMEM;
    int ret = pv_vnc_server_init(server, params, "vnc", DEFAULT_PORT, on_accepted, password);
    if (ret < 0) {
        destroy(server);
        return ret;
    }
    announce(pv_listen_name(server->listen), password, make);
    explicit_bzero(made, sizeof(made));
    *out = server;
    return 0;
}

const struct pv_display_kind pv_display_vnc = {
    .name = "vnc",
    .synopsis = "vnc[:ADDRESS]      a VNC server; the default is 127.0.0.1:5900",
    .create = create,
    .destroy = destroy,
    .frame = pv_vnc_server_frame,
    .resized = pv_vnc_server_resized,
    .cursor = pv_vnc_server_cursor,
};
