/* A page with the guest's screen: a small web server, noVNC in the browser, and the VNC server
 * (vnc.h) behind a WebSocket.
 *
 *   browser ── GET / …, /novnc/core/rfb.js …, /status.json ──► pv_web ──► page, noVNC, pv_viewer
 *           ── GET /websocket, handshake left unread ────────► pv_web ──► pv_vnc_add_client
 *
 * Who may look: the first one who opens the URL with its token gets a cookie, and the token is
 * worth nothing any more; a new URL is printed, for another window or browser. All else is
 * answered by 403 and a sentence. A request has to name us as a host that it cannot have been
 * tricked into (loopback, the address that it came to, or the one that we were told to listen at),
 * and a WebSocket has to come from our own page.
 *
 * The page is part of the program. noVNC is not: it is looked for in $PEARVISOR_NOVNC, in the data
 * folder, and where Debian's package novnc has it.
 *
 * Trust:   whoever connects is not trusted. Requests and connections are bounded in size, number
 *          and time; of noVNC, only scripts below core/ and vendor/ are given away.
 * Threads: all on the thread of the event loop, nothing blocks. Scripts are read from disk there:
 *          some hundred KiB, once for each page.
 */
#ifndef PV_DISPLAY_WEB_H
#define PV_DISPLAY_WEB_H

#include <stdint.h>

struct pv_viewer;
struct pv_vnc;
struct pv_web;
typedef struct uv_loop_s uv_loop_t;

/* When there is one more, the one that has been silent for longest is cut off. */
#define PV_WEB_CLIENTS_MAX 64u
/* Pages that show the screen at a time. */
#define PV_WEB_SCREENS_MAX 16u

struct pv_web_params {
    uv_loop_t *loop;          /* borrowed, as the next two */
    struct pv_viewer *viewer; /* for the figures on the page; NULL: none */
    struct pv_vnc *vnc;
    uint32_t scanout;      /* that `vnc` shows */
    const char *authority; /* HOST:PORT of the URL; NULL: a Unix socket. Copied */
    /* There is a URL to open, "http://127.0.0.1:6080/?token=…" ("/?token=…" without an authority):
     * called by pv_web_create, and when the last one was used. */
    void (*announce)(void *data, const char *url);
    void *data;
};

/* -ENOENT, and a line in the log, if there is no noVNC. */
int pv_web_create(const struct pv_web_params *params, struct pv_web **out);
/* Before its viewer and its VNC server are; until the viewer is, the loop does not run. The memory
 * goes when the loop has run until nothing is left. NULL is fine. */
void pv_web_destroy(struct pv_web *web);

/* A new connection. Taken over, also on failure. */
int pv_web_add_client(struct pv_web *web, int fd);

#endif
