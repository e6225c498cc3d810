/* Other programs, started so that none outlives us.
 *
 * A started process is in a session of its own (a Ctrl-C in our terminal is ours to act on), has
 * /dev/null as input, no fds but those it is given, and is killed by the system (SIGKILL, or
 * SIGTERM if it may say goodbye) when we end, however we end.
 *
 * Threads: the main thread only; the children die with the thread that started them.
 */
#ifndef PV_VM_PROCESS_H
#define PV_VM_PROCESS_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct pv_process_params {
    char *const *argv;       /* argv[0] is a path, or a name that PATH is searched for */
    const char *environment; /* one NAME=value on top of ours, or NULL */
    const int *fds;          /* stay open in the child, under the same numbers */
    size_t fd_count;
    int stdout_fd; /* of the child; 0: ours */
    int stderr_fd;
    bool may_say_goodbye; /* it has files to remove, and surely ends by itself */
};

/* Start it. Returns its pid, or a negative errno; that the program is not there (-ENOENT) or cannot
 * be executed is noticed, too. The caller waits for it. */
pid_t pv_process_start(const struct pv_process_params *params);

/* Run a program to its end and keep what it prints on standard output: at most size - 1 bytes, and
 * a 0. Its standard error is dropped. It has two minutes. Returns its exit status, or a negative
 * errno. */
int pv_process_output(char *const *argv, const char *environment, char *out, size_t size);

/* Run a program in the foreground: our terminal, our Ctrl-C, which we ignore meanwhile. Its
 * standard output goes to our fd `stdout_fd`. Returns its exit status (128 + n: signal n) or a
 * negative errno. */
int pv_process_foreground(char *const *argv, int stdout_fd);

/* The exit status of a shell for a wait status. */
int pv_process_exit_status(int wait_status);

#endif
