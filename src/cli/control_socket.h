/* The control socket of a running guest's GPU device, for commands that look at a guest.
 *
 * Threads: any.
 */
#ifndef PV_CLI_CONTROL_SOCKET_H
#define PV_CLI_CONTROL_SOCKET_H

/* Connect to `path`; or, if that is NULL, to the guest `guest` (vm/guests.h), NULL: the only one.
 * Returns an fd, close-on-exec, or a negative errno after a line that says what is wrong. */
int pv_connect_control(const char *path, const char *guest);

#endif
