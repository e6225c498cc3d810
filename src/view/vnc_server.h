/* What the displays vnc and web share: VNC for one screen (display/vnc.h), and the socket that
 * people connect to (display/listen.h). It is the first member of such a display.
 *
 * Threads: all on the thread of the event loop.
 */
#ifndef PV_VIEW_VNC_SERVER_H
#define PV_VIEW_VNC_SERVER_H

#include "view/displays.h"

struct pv_listen;
struct pv_vnc;

struct pv_vnc_server {
    struct pv_vnc *vnc;
    struct pv_listen *listen;
};

/* kind      of the display, for the log
 * accepted  gets `server` and a new connection, as in struct pv_listen_params
 * password  of those who speak VNC; NULL: none
 *
 * Returns as pv_display_kind.create does. Release with pv_vnc_server_finish() also on failure. */
int pv_vnc_server_init(struct pv_vnc_server *server, const struct pv_display_params *params,
                       const char *kind, uint16_t default_port,
                       void (*accepted)(void *server, int fd), const char *password);
void pv_vnc_server_finish(struct pv_vnc_server *server);

/* For struct pv_display_kind; each takes a display that begins with a struct pv_vnc_server. */
void pv_vnc_server_frame(void *display);
void pv_vnc_server_resized(void *display);
void pv_vnc_server_cursor(void *display, bool image);

#endif
