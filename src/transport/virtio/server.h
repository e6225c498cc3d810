/* Where frontends connect: a socket with a name, or one that is connected already.
 *
 * One frontend at a time is served by the device; another is turned away.
 *
 * Threads: that of the loop.
 */
#ifndef PV_TRANSPORT_VIRTIO_SERVER_H
#define PV_TRANSPORT_VIRTIO_SERVER_H

#include "transport/virtio/device.h"

struct pv_vhost_server;

struct pv_vhost_server_params {
    struct pv_vhost_device_params device; /* `detached` and `data` are filled in here */
    const char *socket_path;              /* listen here; borrowed. NULL: serve `fd` */
    int fd;                               /* connected; taken over on success */
    bool once;                            /* end with the first frontend; so it is with `fd` */
    void (*ended)(void *data);            /* nobody is left to serve */
    void *data;
};

/* Returns 0, what pv_listener_open() says, or a negative errno after a line in the log. */
int pv_vhost_server_create(const struct pv_vhost_server_params *params,
                           struct pv_vhost_server **out);
/* Removes the socket. The loop has to run once more. NULL is fine. */
void pv_vhost_server_destroy(struct pv_vhost_server *server);
/* Borrowed. */
struct pv_vhost_device *pv_vhost_server_device(struct pv_vhost_server *server);

#endif
