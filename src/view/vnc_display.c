/* vnc[:ADDRESS]: a VNC server (vnc.h) on a socket (listen.h). */
#include "display/listen.h"
#include "display/vnc.h"
#include "util/log.h"
#include "view/displays.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define PV_LOG_MODULE "vnc"

#define DEFAULT_PORT 5900

struct vnc_display {
    struct pv_vnc *vnc;
    struct pv_listen *listen;
};

static void on_accepted(void *data, int fd)
{
    struct vnc_display *display = data;
    pv_vnc_add_client(display->vnc, fd);
}

static void destroy(void *data)
{
    struct vnc_display *display = data;
    pv_listen_destroy(display->listen);
    pv_vnc_destroy(display->vnc);
    free(display);
}

/* By the name of what is listened on. */
static bool is_local(const char *name)
{
    return name[0] == '/' || strncmp(name, "127.", 4) == 0 || strncmp(name, "[::1]:", 6) == 0;
}

static int create(const struct pv_display_params *params, void **out)
{
    struct vnc_display *display = calloc(1, sizeof(*display));
    if (!display)
        return -ENOMEM;
    int ret = pv_vnc_create(
        &(struct pv_vnc_params){
            .loop = params->loop,
            .viewer = params->viewer,
            .scanout = params->scanout,
            .input = params->input,
            .keymap = params->keymap,
            .name = params->name,
            .password = params->password,
        },
        &display->vnc);
    if (ret == 0)
        ret = pv_listen_create(
            &(struct pv_listen_params){
                .loop = params->loop,
                .kind = "vnc",
                .address = params->address,
                .default_port = DEFAULT_PORT,
                .accepted = on_accepted,
                .data = display,
            },
            &display->listen);
    if (ret < 0) {
        destroy(display);
        return ret;
    }
    pv_info("listening on %s", pv_listen_name(display->listen));
    if (!params->password && !is_local(pv_listen_name(display->listen)))
        pv_warn("whoever can connect can look and type: there is no --password-file");
    *out = display;
    return 0;
}

static void on_frame(void *data)
{
    struct vnc_display *display = data;
    pv_vnc_frame(display->vnc);
}

static void on_resized(void *data)
{
    struct vnc_display *display = data;
    pv_vnc_resized(display->vnc);
}

static void on_cursor(void *data, bool image)
{
    struct vnc_display *display = data;
    pv_vnc_cursor(display->vnc);
}

const struct pv_display_kind pv_display_vnc = {
    .name = "vnc",
    .synopsis = "vnc[:ADDRESS]      a VNC server; the default is 127.0.0.1:5900",
    .create = create,
    .destroy = destroy,
    .frame = on_frame,
    .resized = on_resized,
    .cursor = on_cursor,
};
