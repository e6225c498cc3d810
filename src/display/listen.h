/* Accepting connections for a display: on a TCP port of the loopback, or wherever it was asked to,
 * or on a Unix socket that only its owner can use.
 *
 * Threads: all on the thread of the event loop.
 */
#ifndef PV_DISPLAY_LISTEN_H
#define PV_DISPLAY_LISTEN_H

#include <stdint.h>

struct pv_listen;
typedef struct uv_loop_s uv_loop_t;

struct pv_listen_params {
    uv_loop_t *loop;       /* borrowed */
    const char *kind;      /* of the display, for the log */
    const char *address;   /* "PORT", "HOST:PORT", "[IPV6]:PORT" or "/PATH"; NULL: the default */
    uint16_t default_port; /* on 127.0.0.1; the next free one of 100 */
    /* A new connection, non-blocking and close-on-exec; the callee owns it. */
    void (*accepted)(void *data, int fd);
    void *data;
};

/* Returns 0; -EINVAL if the address is none; -EADDRINUSE, or what else the system said. All are
 * logged in one line. */
int pv_listen_create(const struct pv_listen_params *params, struct pv_listen **out);
/* Stop, and remove the Unix socket. NULL is fine. The memory goes when the loop has run once more.
 */
void pv_listen_destroy(struct pv_listen *listen);

/* "127.0.0.1:5900", "[::1]:5900" or the path; borrowed. */
const char *pv_listen_name(const struct pv_listen *listen);

#endif
