#include "transport/vtest/worker.h"

#include "util/log.h"
#include "util/os.h"
#include "worker/process.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define PV_LOG_MODULE "vtest"

static_assert(sizeof(struct pv_worker_report) <= PIPE_BUF, "a report is written in one piece");

/* ---- signals ---- */

static void on_crash(void *data)
{
    pv_session_poison(data);
}

static void on_stop(void *data)
{
    pv_session_stop(data);
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
    const struct pv_process_params process = {
        .log_prefix = prefix,
        .keep_fds = keep,
        .keep_count = sizeof(keep) / sizeof(keep[0]),
    };
    snprintf(prefix, sizeof(prefix), "client %u: ", params->client_id);
    pv_process_begin(&process);
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
    const struct pv_process_handlers handlers = {on_crash, on_stop, session};
    pv_process_handle_signals(&handlers);

    enum pv_session_end end = pv_session_run(session);
    report_end(params, session, end);
    pv_process_forget_handlers();
    pv_session_destroy(session);
    return end;
}

void pv_worker_main(const struct pv_worker_params *params)
{
    set_up_process(params);
    enum pv_session_end end = serve(params);
    close(params->client_fd);
    close(params->report_fd);
    pv_process_end(PV_WORKER_STATUS(end));
}
