/* File descriptors over Unix sockets (SCM_RIGHTS), one at a time.
 *
 * Ownership: the sender keeps its fd; the receiver gets one of its own, close-on-exec.
 * Threads:   any; two threads that use one socket must not overlap.
 */
#ifndef PV_UTIL_FDPASS_H
#define PV_UTIL_FDPASS_H

#include <stddef.h>

/* Send `size` bytes (at least 1) with `fd` attached to the first of them, in one message. Blocks
 * while the socket is full. Returns 0 or a negative errno; a peer that has gone is -EPIPE. */
int pv_fd_send(int socket, int fd, const void *data, size_t size);

/* Receive up to `size` bytes and the fd that came with them, -1 if none did. Fds beyond the first
 * are closed. Returns the number of bytes, 0 at the end of the stream, or a negative errno. */
int pv_fd_receive(int socket, void *data, size_t size, int *out_fd);

#endif
