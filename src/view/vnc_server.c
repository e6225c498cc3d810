#include "view/vnc_server.h"

#include "display/listen.h"
#include "display/vnc.h"

int pv_vnc_server_init(struct pv_vnc_server *server, const struct pv_display_params *params,
                       const char *kind, uint16_t default_port,
                       void (*accepted)(void *server, int fd), const char *password)
{
    int ret = pv_vnc_create(
        &(struct pv_vnc_params){
            .loop = params->loop,
            .viewer = params->viewer,
            .scanout = params->scanout,
            .input = params->input,
            .keymap = params->keymap,
            .name = params->name,
            .password = password,
        },
        &server->vnc);
    if (ret < 0)
        return ret;
    return pv_listen_create(
        &(struct pv_listen_params){
            .loop = params->loop,
            .kind = kind,
            .address = params->address,
            .default_port = default_port,
            .accepted = accepted,
            .data = server,
        },
        &server->listen);
}

void pv_vnc_server_finish(struct pv_vnc_server *server)
{
    pv_listen_destroy(server->listen);
    pv_vnc_destroy(server->vnc);
}

void pv_vnc_server_frame(void *display)
{
    const struct pv_vnc_server *server = display;
    pv_vnc_frame(server->vnc);
}

void pv_vnc_server_resized(void *display)
{
    const struct pv_vnc_server *server = display;
    pv_vnc_resized(server->vnc);
}

void pv_vnc_server_cursor(void *display, bool image)
{
    const struct pv_vnc_server *server = display;
    pv_vnc_cursor(server->vnc);
}
