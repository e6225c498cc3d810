/* What every worker process needs: alone with its guest, it ends with its parent, says goodbye when
 * it crashes, and stops when it is told to.
 *
 *   fork ──► begin ──► handle_signals ──► (serve) ──► end
 *
 * Workers are forked and not executed, by a process that has loaded no driver. Between fork() and
 * handle_signals all signals stay blocked.
 *
 * Threads: all functions on the main thread.
 */
#ifndef PV_WORKER_PROCESS_H
#define PV_WORKER_PROCESS_H

#include <stddef.h>
#include <sys/types.h>

/* A worker gets this long to free what its guest had, then it is killed. */
#define PV_PROCESS_END_SECONDS 10

struct pv_process_params {
    const char *log_prefix; /* copied */
    const int *keep_fds;    /* beside standard input, output and error */
    size_t keep_count;
    pid_t parent; /* if it has ended already, so do we; 0: not looked at */
};

/* In the child, right after fork(), with all signals blocked. */
void pv_process_begin(const struct pv_process_params *params);

/* Both are called in a signal handler. */
struct pv_process_handlers {
    /* The process is about to crash: tell the guest what shared memory can tell. */
    void (*crashed)(void *data);
    /* SIGTERM: end soon. PV_PROCESS_END_SECONDS later SIGALRM ends us. */
    void (*stop)(void *data);
    void *data;
};

/* Unblock signals; crashes and SIGTERM go to these, the signals of a terminal to nobody. `handlers`
 * is borrowed until pv_process_forget_handlers, which leaves the signals as they are: a crash then
 * is just a crash. */
void pv_process_handle_signals(const struct pv_process_handlers *handlers);
void pv_process_forget_handlers(void);

/* Exit, looking for leaks first where that is built in. Nothing may be left but this call. */
__attribute__((noreturn)) void pv_process_end(int status);

#endif
