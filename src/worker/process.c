#include "worker/process.h"

#include "util/log.h"
#include "util/os.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

/* What the signal handlers work on; NULL when there is nothing to save. */
static const struct pv_process_handlers *_Atomic current;

static const int crash_signals[] = {SIGSEGV, SIGBUS, SIGABRT, SIGFPE, SIGILL};
#define CRASH_SIGNAL_COUNT (sizeof(crash_signals) / sizeof(crash_signals[0]))
static struct sigaction handlers_before[CRASH_SIGNAL_COUNT];

/* Say goodbye, then crash as if we had not been here. */
static void on_crash(int signal_number, siginfo_t *info, void *context)
{
    const struct pv_process_handlers *handlers = atomic_exchange(&current, NULL);
    if (handlers)
        handlers->crashed(handlers->data);
    for (size_t i = 0; i < CRASH_SIGNAL_COUNT; i++) {
        if (crash_signals[i] == signal_number)
            sigaction(signal_number, &handlers_before[i], NULL);
    }
    /* A faulting instruction faults again when we return; a signal that somebody sent does not. */
    if (info->si_code <= 0)
        raise(signal_number);
}

static void on_stop(int signal_number)
{
    int saved_errno = errno;
    const struct pv_process_handlers *handlers = atomic_load(&current);
    if (handlers)
        handlers->stop(handlers->data);
    alarm(PV_PROCESS_END_SECONDS); /* nobody else watches us when our parent has died */
    errno = saved_errno;
}

void pv_process_begin(const struct pv_process_params *params)
{
    pv_die_with_parent();
    if (params->parent != 0 && getppid() != params->parent)
        _exit(EXIT_FAILURE); /* it died before it could take us along */
    pv_close_fds_except(params->keep_fds, params->keep_count);
    pv_raise_fd_limit();
    pv_log_set_prefix(params->log_prefix);
}

void pv_process_handle_signals(const struct pv_process_handlers *handlers)
{
    static char stack[64 << 10]; /* an overflow of the main thread's stack is a crash too */
    const stack_t alternate = {.ss_sp = stack, .ss_size = sizeof(stack)};
    sigaltstack(&alternate, NULL);
    atomic_store(&current, handlers);

    const struct sigaction ignore = {.sa_handler = SIG_IGN};
    const struct sigaction by_default = {.sa_handler = SIG_DFL};
    const struct sigaction stop = {.sa_handler = on_stop, .sa_flags = SA_RESTART};
    const struct sigaction crash = {.sa_sigaction = on_crash, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    sigaction(SIGPIPE, &ignore, NULL);
    /* Ctrl-C and the end of a terminal reach us too: our parent decides what they mean */
    sigaction(SIGINT, &ignore, NULL);
    sigaction(SIGHUP, &ignore, NULL);
    sigaction(SIGCHLD, &by_default, NULL);
    sigaction(SIGTERM, &stop, NULL);
    for (size_t i = 0; i < CRASH_SIGNAL_COUNT; i++)
        sigaction(crash_signals[i], &crash, &handlers_before[i]);

    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

void pv_process_forget_handlers(void)
{
    atomic_store(&current, NULL);
}

#if defined(__SANITIZE_ADDRESS__)
void __lsan_do_leak_check(void);
#else
#define __lsan_do_leak_check() ((void)0)
#endif

void pv_process_end(int status)
{
    __lsan_do_leak_check();
    /* Not exit(): this is a fork, whose parent's exit handlers and buffers are not ours, and
     * drivers are known to crash in theirs. */
    _exit(status);
}
