/* Connections to Unix sockets.
 *
 * Threads: any.
 */
#ifndef PV_UTIL_UNIX_SOCKET_H
#define PV_UTIL_UNIX_SOCKET_H

/* A stream, close-on-exec. Returns its fd or a negative errno: -ENAMETOOLONG for a path that no
 * socket can have. */
int pv_unix_connect(const char *path);

#endif
