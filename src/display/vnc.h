/* A VNC server for one screen of the guest, with libvncserver.
 *
 * Tight and the other encodings of the library, the cursor drawn by the client, resizing from
 * either side (ExtendedDesktopSize), QEMU's extended key events (keys by position) where the client
 * has them, else symbols by way of a keyboard layout (keymap.h).
 *
 * It does not listen by itself: connections are accepted by its owner (listener.h, or the web
 * server, whose WebSockets the library understands) and given to pv_vnc_add_client.
 *
 * Threads: all on the thread of the event loop; a client that does not read is bounded and cut off.
 */
#ifndef PV_DISPLAY_VNC_H
#define PV_DISPLAY_VNC_H

#include <stddef.h>
#include <stdint.h>

struct pv_input;
struct pv_keymap;
struct pv_viewer;
struct pv_vnc;
typedef struct uv_loop_s uv_loop_t;

struct pv_vnc_params {
    uv_loop_t *loop; /* borrowed, as all here */
    struct pv_viewer *viewer;
    uint32_t scanout;
    struct pv_input *input;         /* may be NULL: nobody can type */
    const struct pv_keymap *keymap; /* for clients that send symbols */
    const char *name;               /* of the desktop */
    const char *password;           /* at most 8 bytes count, as VNC has it; NULL: none */
};

int pv_vnc_create(const struct pv_vnc_params *params, struct pv_vnc **out);
void pv_vnc_destroy(struct pv_vnc *vnc);

/* A connection, of which nothing was read yet (a WebSocket handshake is recognised). Taken over,
 * also on failure. */
int pv_vnc_add_client(struct pv_vnc *vnc, int fd);
size_t pv_vnc_client_count(const struct pv_vnc *vnc);

/* From the viewer's events. */
void pv_vnc_frame(struct pv_vnc *vnc);
void pv_vnc_resized(struct pv_vnc *vnc);
void pv_vnc_cursor(struct pv_vnc *vnc);

#endif
