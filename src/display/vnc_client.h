/* One VNC client: a thread, and libvncserver with a screen of its own.
 *
 *   loop ──── pixels, cursor ────► struct pv_vnc_client ──► thread: rfbScreenInfo, rfbClientRec
 *        ◄─── events, by wake() ──                          └► socket
 *
 * libvncserver waits for a client in the middle of a message, and while it encodes nobody may touch
 * its pixels. So each client has its own thread and its own copy of the screen: what it waits for
 * holds up nobody else. Pixels are copied only for a client that has asked for an update; a slow
 * one gets the sum of what has changed since.
 *
 * Trust:   clients are not trusted; libvncserver checks what they send, and what it knows that we
 * do not want (scaling, files) ends the connection. Threads: all functions are called on the loop's
 * thread; wake() is called on any.
 */
#ifndef PV_DISPLAY_VNC_CLIENT_H
#define PV_DISPLAY_VNC_CLIENT_H

#include "display/display.h"

#include <stdbool.h>
#include <stdint.h>

struct pv_view;
struct pv_vnc_client;

struct pv_vnc_client_params {
    int fd;               /* taken over, also on failure */
    const char *name;     /* of the desktop; borrowed, as password */
    const char *password; /* NULL: none */
    const struct pv_view *view;
    /* There are events, or the client wants pixels, or it has ended. */
    void (*wake)(void *data);
    void *data;
};

struct pv_vnc_event {
    enum {
        PV_VNC_SYMBOL,  /* value: X keysym; down */
        PV_VNC_KEY,     /* value: XT scan code; down */
        PV_VNC_POINTER, /* x, y; value: RFB's button mask */
        PV_VNC_SIZE,    /* x, y: the size that the client would like, a possible one */
    } type;
    bool down;
    uint32_t value, x, y;
};

int pv_vnc_client_create(const struct pv_vnc_client_params *params, struct pv_vnc_client **out);
/* Hang up and wait for the thread, which takes no longer than one rectangle to encode. */
void pv_vnc_client_destroy(struct pv_vnc_client *client);

bool pv_vnc_client_ended(struct pv_vnc_client *client);
/* There are newer pixels than it has. It gets them by pv_vnc_client_show when it wants some. */
void pv_vnc_client_set_behind(struct pv_vnc_client *client);
/* It is behind, and waits for an update. */
bool pv_vnc_client_wants(struct pv_vnc_client *client);
/* What has changed, for the next time that the client wants pixels. */
void pv_vnc_client_add_damage(struct pv_vnc_client *client, const struct pv_rect *damage);
/* Of all of a view that may have a new size; what was remembered is void. Empty: it is blank. */
void pv_vnc_client_all_is_new(struct pv_vnc_client *client, const struct pv_rect *all);
/* Give it what has changed if it wants it. */
void pv_vnc_client_show(struct pv_vnc_client *client, const struct pv_view *view);
void pv_vnc_client_set_cursor(struct pv_vnc_client *client, const struct pv_view *view);
/* The oldest event. false: there is none. */
bool pv_vnc_client_next_event(struct pv_vnc_client *client, struct pv_vnc_event *out);

/* Once in a process, before the first client: what the library makes at its first use is not safe
 * with threads. `password`: clients will need one, all of them. 0 or -errno. */
int pv_vnc_client_prepare(bool password);

#endif
