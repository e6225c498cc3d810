/* The control socket of a running guest's GPU device, for commands that look at a guest. They take
 * the options --control PATH and --guest NAME.
 *
 * Threads: any.
 */
#ifndef PV_CLI_CONTROL_SOCKET_H
#define PV_CLI_CONTROL_SOCKET_H

/* As given on the command line; at most one is not NULL. */
struct pv_control_options {
    const char *path;  /* of the socket */
    const char *guest; /* vm/guests.h */
};

/* For a table of struct option, and for --help. */
/* clang-format off */
#define PV_CONTROL_LONG_OPTIONS \
    {"control", required_argument, NULL, 'c'}, {"guest", required_argument, NULL, 'g'}
/* clang-format on */
#define PV_CONTROL_HELP                                                              \
    "  --guest NAME    the guest, by its image or by the PID of its pearvisor run\n" \
    "                  (default: the only one that runs)\n"                          \
    "  --control PATH  the control socket of its GPU device\n"

/* What getopt_long() has returned for `command`, with optarg, if no other option of it is meant.
 * Returns 0, or PV_EXIT_USAGE after a line that says what is wrong. */
int pv_parse_control_option(const char *command, struct pv_control_options *options, int option,
                            char **argv);

/* Connect to the only guest if both are NULL. Returns an fd, close-on-exec, or a negative errno
 * after a line that says what is wrong. */
int pv_connect_control(const struct pv_control_options *options);

#endif
