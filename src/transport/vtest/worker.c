#include "transport/vtest/worker.h"

#include "util/log.h"
#include "util/os.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PV_LOG_MODULE "vtest"

static_assert(sizeof(struct pv_worker_report) <= PIPE_BUF, "a report is written in one piece");

/* What the signal handlers work on; NULL when there is nothing to save. */
static struct pv_session *_Atomic current_session;

/* ---- signals ---- */

static const int crash_signals[] = {SIGSEGV, SIGBUS, SIGABRT, SIGFPE, SIGILL};
#define CRASH_SIGNAL_COUNT (sizeof(crash_signals) / sizeof(crash_signals[0]))
static struct sigaction handlers_before[CRASH_SIGNAL_COUNT];

/* Tell the client that its rings are dead, then crash as if we had not been here. */
static void on_crash(int signal_number, siginfo_t *info, void *context)
{
    struct pv_session *session = atomic_exchange(&current_session, NULL);
    if (session)
        pv_session_poison(session);
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
    struct pv_session *session = atomic_load(&current_session);
    if (session)
        pv_session_stop(session);
    alarm(PV_WORKER_END_SECONDS); /* nobody else watches us when the server has died */
    errno = saved_errno;
}

static void set_up_signals(void)
{
    static char stack[64 << 10]; /* an overflow of the main thread's stack is a crash too */
    const stack_t alternate = {.ss_sp = stack, .ss_size = sizeof(stack)};
    sigaltstack(&alternate, NULL);

    const struct sigaction ignore = {.sa_handler = SIG_IGN};
    const struct sigaction by_default = {.sa_handler = SIG_DFL};
    const struct sigaction stop = {.sa_handler = on_stop, .sa_flags = SA_RESTART};
    const struct sigaction crash = {.sa_sigaction = on_crash, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    sigaction(SIGPIPE, &ignore, NULL);
    /* Ctrl-C and the end of a terminal reach us too: the server decides what they mean */
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

/* ---- reports ---- */

static void send_report(int fd, const struct pv_worker_report *report)
{
    ssize_t written;
    do {
        written = write(fd, report, sizeof(*report));
    } while (written < 0 && errno == EINTR);
    if (written < 0) /* the server is gone, and we are about to hear of it by a signal */
        pv_debug("cannot report to the server: %s", strerror(errno));
}

static void on_named(void *data, const char *name)
{
    const struct pv_worker_params *params = data;
    char prefix[96];
    snprintf(prefix, sizeof(prefix), "client %u (%s): ", params->client_id, name);
    pv_log_set_prefix(prefix);
    if (!params->refuse)
        pv_info("connected, pid %d", (int)pv_socket_peer_pid(params->client_fd));

    struct pv_worker_report report = {.news = PV_WORKER_NAMED};
    snprintf(report.name, sizeof(report.name), "%s", name);
    send_report(params->report_fd, &report);
}

static void report_end(const struct pv_worker_params *params, struct pv_session *session,
                       enum pv_session_end end)
{
    struct pv_worker_report report = {.news = PV_WORKER_ENDING, .end = end};
    snprintf(report.name, sizeof(report.name), "%s", pv_session_name(session));
    snprintf(report.reason, sizeof(report.reason), "%s", pv_session_reason(session));
    pv_session_get_stats(session, &report.stats);
    send_report(params->report_fd, &report);
}

/* ---- the process ---- */

static void set_up_process(const struct pv_worker_params *params)
{
    const int keep[] = {params->client_fd, params->report_fd};
    char prefix[32];

    pv_die_with_parent();
    pv_close_fds_except(keep, sizeof(keep) / sizeof(keep[0]));
    pv_raise_fd_limit();
    snprintf(prefix, sizeof(prefix), "client %u: ", params->client_id);
    pv_log_set_prefix(prefix);
}

static enum pv_session_end serve(const struct pv_worker_params *params)
{
    const struct pv_session_params session_params = {
        .fd = params->client_fd,
        .id = params->client_id,
        .caps = params->caps,
        .device_index = params->device_index,
        .wsi = params->wsi,
        .refuse = params->refuse,
        .named = on_named,
        .data = (void *)params,
    };
    struct pv_session *session;
    int ret = pv_session_create(&session_params, &session);
    if (ret < 0) {
        pv_error("cannot serve a client: %s", strerror(-ret));
        return PV_SESSION_HOST_ERROR;
    }
    atomic_store(&current_session, session);
    set_up_signals();

    enum pv_session_end end = pv_session_run(session);
    report_end(params, session, end);
    atomic_store(&current_session, NULL);
    pv_session_destroy(session);
    return end;
}

#if defined(__SANITIZE_ADDRESS__)
void __lsan_do_leak_check(void);
#else
#define __lsan_do_leak_check() ((void)0)
#endif

void pv_worker_main(const struct pv_worker_params *params)
{
    set_up_process(params);
    enum pv_session_end end = serve(params);
    close(params->client_fd);
    close(params->report_fd);
    __lsan_do_leak_check();
    /* Not exit(): this is a fork of the server, whose exit handlers and buffers are not ours, and
     * drivers are known to crash in theirs. Everything has been freed. */
    _exit(PV_WORKER_STATUS(end));
}
