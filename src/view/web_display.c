/* web[:ADDRESS] serves a page with the screen: web.h has the pages, vnc.h what is behind their
 * WebSockets. The token in the URL takes the place of a password. */
#include "display/listen.h"
#include "display/web.h"
#include "util/log.h"
#include "view/vnc_server.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PV_LOG_MODULE "web"

#define DEFAULT_PORT 6080

struct web_display {
    struct pv_vnc_server server; /* first */
    struct pv_web *web;
};

static void on_accepted(void *data, int fd)
{
    struct web_display *display = data;
    pv_web_add_client(display->web, fd);
}

/* On standard error and not in the log: it is what the user waits for, at every log level. */
static void print_url(void *data, const char *url)
{
    const struct web_display *display = data;
    const char *name = pv_listen_name(display->server.listen);
    if (name[0] == '/')
        fprintf(stderr, "web: %s on %s\n", url, name);
    else
        fprintf(stderr, "web: %s\n", url);
}

/* Where a browser finds us, "HOST:PORT"; NULL: on a Unix socket. */
static const char *authority(const char *address, const char *name, char *out, size_t size)
{
    char host[HOST_NAME_MAX + 1] = "localhost";
    if (name[0] == '/')
        return NULL;
    if (strncmp(name, "0.0.0.0:", 8) == 0 || strncmp(name, "[::]:", 5) == 0) {
        gethostname(host, sizeof(host) - 1);
        snprintf(out, size, "%s%s", host, strrchr(name, ':'));
        return out;
    }
    return address && strchr(address, ':') ? address : name;
}

static void destroy(void *data)
{
    struct web_display *display = data;
    pv_web_destroy(display->web);
    pv_vnc_server_finish(&display->server);
    free(display);
}

static int create(const struct pv_display_params *params, void **out)
{
    struct web_display *display = calloc(1, sizeof(*display));
    if (!display)
        return -ENOMEM;
    int ret = pv_vnc_server_init(&display->server, params, "web", DEFAULT_PORT, on_accepted, NULL);
    char buffer[HOST_NAME_MAX + 16];
    if (ret == 0)
        ret = pv_web_create(
            &(struct pv_web_params){
                .loop = params->loop,
                .viewer = params->viewer,
                .vnc = display->server.vnc,
                .scanout = params->scanout,
                .authority = authority(params->address, pv_listen_name(display->server.listen),
                                       buffer, sizeof(buffer)),
                .announce = print_url,
                .data = display,
            },
            &display->web);
    if (ret < 0) {
        destroy(display);
        return ret;
    }
    *out = display;
    return 0;
}

const struct pv_display_kind pv_display_web = {
    .name = "web",
    .synopsis = "web[:ADDRESS]      a page for a browser; default 127.0.0.1:6080",
    .create = create,
    .destroy = destroy,
    .frame = pv_vnc_server_frame,
    .resized = pv_vnc_server_resized,
    .cursor = pv_vnc_server_cursor,
};
