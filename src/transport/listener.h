/* A listening Unix socket with a name in the file system.
 *
 * Threads: any; creation is not safe against a second server that replaces the same stale socket at
 * the same moment.
 */
#ifndef PV_TRANSPORT_LISTENER_H
#define PV_TRANSPORT_LISTENER_H

#include <sys/types.h>

struct pv_listener {
    int fd;           /* owned; -1 when closed; non-blocking */
    const char *path; /* borrowed */
    dev_t device;     /* of the file that we made: another one there is not ours to remove */
    ino_t inode;
};

/* Listen. A socket file that nobody listens on is replaced. What goes wrong is logged. Returns 0;
 * -EADDRINUSE if another server is there; -ENAMETOOLONG; -EEXIST if the path is not a socket; or
 * what bind() and the like said. */
int pv_listener_open(struct pv_listener *listener, const char *path);
/* Close and remove the file if it is still ours. May be called twice. */
void pv_listener_close(struct pv_listener *listener);

#endif
