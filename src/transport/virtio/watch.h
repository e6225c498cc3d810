/* A file descriptor that the event loop watches, and owns.
 *
 * Threads: that of the loop.
 */
#ifndef PV_TRANSPORT_VIRTIO_WATCH_H
#define PV_TRANSPORT_VIRTIO_WATCH_H

#include <uv.h>

struct pv_watch;

/* Takes over `fd` on success. `ready` gets UV_READABLE | UV_WRITABLE as they are, or 0: the fd is
 * broken and not watched any more. It may destroy the watch. Returns 0 or a negative errno (-EPERM:
 * an fd that nobody can wait for). */
int pv_watch_create(uv_loop_t *loop, int fd, int events, void (*ready)(void *data, int events),
                    void *data, struct pv_watch **out);
/* Watch for other events. */
void pv_watch_set_events(struct pv_watch *watch, int events);
int pv_watch_fd(const struct pv_watch *watch);
/* Closes the fd. NULL is fine. The memory is freed by the loop's next turn. */
void pv_watch_destroy(struct pv_watch *watch);

#endif
