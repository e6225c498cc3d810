/* File descriptors over Unix sockets (SCM_RIGHTS).
 *
 * Ownership: the sender keeps its fd; the receiver gets one of its own, close-on-exec.
 * Threads:   any; two threads that use one socket must not overlap.
 */
#ifndef PV_UTIL_FDPASS_H
#define PV_UTIL_FDPASS_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>
#include <sys/uio.h>

/* Most fds that one message carries. */
#define PV_FDS_MAX 8
/* Stands for an fd that came while this process could open no more. */
#define PV_FD_LOST (-2)

/* Send `size` bytes (at least 1) with `fd` attached to the first of them, in one message. Blocks
 * while the socket is full. Returns 0 or a negative errno; a peer that has gone is -EPIPE. */
int pv_fd_send(int socket, int fd, const void *data, size_t size);

/* Receive up to `size` bytes and the fd that came with them, -1 if none did. Fds beyond the first
 * are closed. Returns the number of bytes, 0 at the end of the stream, or a negative errno. */
int pv_fd_receive(int socket, void *data, size_t size, int *out_fd);

/* Send what fits now of `pieces` (`wait`: wait for some room), with the fds attached to the first
 * byte. Returns how many bytes went, and the fds with them; -EAGAIN if none can; -EPIPE; another
 * negative errno. */
ssize_t pv_fds_send(int socket, const int *fds, size_t fd_count, const struct iovec *pieces,
                    size_t piece_count, bool wait);

/* Receive up to `size` bytes, and up to PV_FDS_MAX fds that came with one of them; more are closed.
 * `wait`: until there is something. Returns the number of bytes, 0 at the end of the stream,
 * -EAGAIN, or another negative errno. An fd that could not be taken is PV_FD_LOST in `fds`. */
ssize_t pv_fds_receive(int socket, void *data, size_t size, bool wait, int fds[PV_FDS_MAX],
                       size_t *out_count);

#endif
