#include "transport/vtest/server.h"

#include "transport/listener.h"
#include "transport/vtest/worker.h"
#include "util/list.h"
#include "util/log.h"
#include "util/os.h"
#include "worker/process.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define PV_LOG_MODULE "vtest"

/* Workers that only say no, on top of max_clients; beyond them a connection is just closed. */
#define REFUSALS_MAX 32u
#define REFUSAL_NS   (2 * UINT64_C(1000000000))
/* Between asking the workers to end and killing them when the server stops. */
#define STOP_NS (5 * UINT64_C(1000000000))
/* Between the end of a client and that of its worker. */
#define WORKER_END_NS (PV_PROCESS_END_SECONDS * UINT64_C(1000000000))
/* Accept nothing for this long when we have run out of fds or processes. */
#define ACCEPT_PAUSE_NS (UINT64_C(100000000))

#define NEVER UINT64_MAX

struct client {
    struct pv_list node; /* in server->clients */
    uint32_t id;
    pid_t worker;
    int report_fd; /* owned; -1 after the worker closed it */
    int socket_fd; /* owned; only to see that the client has gone, -1 from then on */
    bool refused, killed, ended;
    uint64_t started_ns;
    uint64_t deadline_ns; /* the worker is killed then; NEVER */
    bool named, has_final;
    struct pv_worker_report report; /* the latest */
};

struct pv_server {
    struct pv_server_params params;
    struct pv_listener listener;
    int signal_read_fd; /* owned */
    struct pv_list clients;
    uint32_t client_count, refusal_count;
    uint32_t next_id;
    bool stopping;
    int result; /* of pv_server_run */
    uint64_t accept_after_ns;
    struct pollfd *polls; /* owned scratch: two, and two for each client */
    size_t poll_room;
    uint64_t served, failed; /* clients, for the totals */
    struct pv_session_stats totals;
};

/* ---- signals: a handler writes the number into a pipe that poll() looks at ---- */

static int signal_write_fd = -1;

static void on_signal(int signal_number)
{
    int saved_errno = errno;
    char byte = (char)signal_number;
    ssize_t written = write(signal_write_fd, &byte, 1); /* full means that news is waiting */
    (void)written;
    errno = saved_errno;
}

static int set_up_signals(struct pv_server *server)
{
    int fds[2];
    int ret = pv_pipe(fds, false);
    if (ret < 0)
        return ret;
    server->signal_read_fd = fds[0];
    signal_write_fd = fds[1];

    const struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    const struct sigaction ignore = {.sa_handler = SIG_IGN};
    sigaction(SIGCHLD, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGPIPE, &ignore, NULL);
    struct sigaction before;
    sigaction(SIGHUP, NULL, &before);
    if (before.sa_handler != SIG_IGN) /* nohup means to outlive the terminal */
        sigaction(SIGHUP, &action, NULL);
    return 0;
}

static void reset_signals(struct pv_server *server)
{
    const struct sigaction by_default = {.sa_handler = SIG_DFL};
    sigaction(SIGCHLD, &by_default, NULL);
    sigaction(SIGTERM, &by_default, NULL);
    sigaction(SIGINT, &by_default, NULL);
    sigaction(SIGHUP, &by_default, NULL);
    close(server->signal_read_fd);
    close(signal_write_fd);
    signal_write_fd = -1;
}

/* ---- create, destroy ---- */

int pv_server_create(const struct pv_server_params *params, struct pv_server **out)
{
    struct pv_server *server = calloc(1, sizeof(*server));
    if (!server)
        return -ENOMEM;
    server->params = *params;
    if (server->params.max_clients == 0)
        server->params.max_clients = PV_SERVER_DEFAULT_CLIENTS;
    if (server->params.once)
        server->params.max_clients = 1;
    pv_list_init(&server->clients);
    pv_raise_fd_limit(); /* two for each client */

    int ret = set_up_signals(server);
    if (ret < 0)
        goto err_free;
    ret = pv_listener_open(&server->listener, params->socket_path);
    if (ret < 0)
        goto err_signals;
    *out = server;
    return 0;

err_signals:
    reset_signals(server);
err_free:
    free(server);
    return ret;
}

void pv_server_destroy(struct pv_server *server)
{
    if (!server)
        return;
    pv_listener_close(&server->listener);
    reset_signals(server);
    free(server->polls);
    free(server);
}

/* ---- a client's end ---- */

static double seconds(uint64_t ns)
{
    return (double)ns / 1e9;
}

static void print_stats(const char *who, const struct pv_session_stats *stats)
{
    const struct pv_context_stats *context = &stats->context;
    pv_info(
        "%s: %llu commands, %llu replies, %llu errors, %llu frames; %llu bytes of commands, %llu "
        "of replies; "
        "%llu messages of %llu bytes on the socket; longest stall %.3f ms, longest wait %.3f ms, "
        "longest message %.3f ms; %llu objects and %llu bytes of memory at the end",
        who, (unsigned long long)context->commands, (unsigned long long)context->replies,
        (unsigned long long)context->errors, (unsigned long long)context->frames,
        (unsigned long long)context->bytes, (unsigned long long)context->reply_bytes,
        (unsigned long long)stats->messages, (unsigned long long)stats->message_bytes,
        seconds(context->longest_stall_ns) * 1e3, seconds(context->longest_wait_ns) * 1e3,
        seconds(stats->longest_message_ns) * 1e3, (unsigned long long)context->objects,
        (unsigned long long)context->memory_bytes);
}

static uint64_t max_u64(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

static void add_stats(struct pv_session_stats *sum, const struct pv_session_stats *one)
{
    sum->context.commands += one->context.commands;
    sum->context.replies += one->context.replies;
    sum->context.bytes += one->context.bytes;
    sum->context.reply_bytes += one->context.reply_bytes;
    sum->context.errors += one->context.errors;
    sum->context.frames += one->context.frames;
    sum->context.longest_stall_ns =
        max_u64(sum->context.longest_stall_ns, one->context.longest_stall_ns);
    sum->context.longest_wait_ns =
        max_u64(sum->context.longest_wait_ns, one->context.longest_wait_ns);
    sum->messages += one->messages;
    sum->message_bytes += one->message_bytes;
    sum->replies += one->replies;
    sum->reply_bytes += one->reply_bytes;
    sum->longest_message_ns = max_u64(sum->longest_message_ns, one->longest_message_ns);
}

/* One phrase: how it ended. */
static void describe_end(const struct client *client, int status, char *out, size_t size)
{
    if (client->killed)
        snprintf(out, size, "its worker did not stop by itself and was killed");
    else if (WIFSIGNALED(status))
        snprintf(out, size, "its worker crashed with signal %d (%s)", WTERMSIG(status),
                 strsignal(WTERMSIG(status)));
    else if (!client->has_final || WEXITSTATUS(status) != PV_WORKER_STATUS(client->report.end))
        snprintf(out, size, "its worker exited with status %d", WEXITSTATUS(status));
    else if (client->report.end == PV_SESSION_CLOSED)
        snprintf(out, size, "closed by the client");
    else
        snprintf(out, size, "%s", client->report.reason);
}

static void log_end(struct pv_server *server, const struct client *client, int status)
{
    char who[96], how[256];
    snprintf(who, sizeof(who), client->named ? "client %u (%s)" : "client %u", client->id,
             client->report.name);
    describe_end(client, status, how, sizeof(how));

    bool clean = status == 0 && client->has_final && client->report.end == PV_SESSION_CLOSED;
    bool crashed = client->killed || WIFSIGNALED(status) || !client->has_final;
    double duration = seconds(pv_now_ns() - client->started_ns);
    if (clean && !client->named) /* somebody looked whether we are there */
        pv_debug("%s: said nothing, ended after %.3f s", who, duration);
    else if (client->refused)
        pv_debug("%s: turned away, ended after %.3f s", who, duration);
    else
        pv_log(crashed ? PV_LOG_ERROR : PV_LOG_INFO, PV_LOG_MODULE, "%s: ended after %.3f s: %s",
               who, duration, how);

    if (client->refused)
        return;
    bool spoke = client->named || !clean;
    server->served += spoke;
    server->failed += !clean && client->report.end != PV_SESSION_STOPPED;
    if (client->has_final)
        add_stats(&server->totals, &client->report.stats);
    if (server->params.stats && client->named && client->has_final)
        print_stats(who, &client->report.stats);
    if (server->params.once && spoke) {
        server->stopping = true;
        server->result = clean ? 0 : -EPROTO;
    }
}

static void close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

static void remove_client(struct pv_server *server, struct client *client)
{
    pv_list_remove(&client->node);
    if (client->refused)
        server->refusal_count--;
    else
        server->client_count--;
    close_fd(&client->report_fd);
    close_fd(&client->socket_fd);
    free(client);
}

static void read_reports(struct client *client)
{
    while (client->report_fd >= 0) {
        struct pv_worker_report report;
        ssize_t size = read(client->report_fd, &report, sizeof(report));
        if (size < 0 && errno == EINTR)
            continue;
        if (size < 0 && errno == EAGAIN)
            return;
        if (size != (ssize_t)sizeof(report)) {
            close_fd(&client->report_fd);
            return;
        }
        report.name[sizeof(report.name) - 1] = '\0';
        report.reason[sizeof(report.reason) - 1] = '\0';
        client->report = report;
        client->named |= report.news == PV_WORKER_NAMED;
        client->has_final |= report.news == PV_WORKER_ENDING;
        if (report.news == PV_WORKER_ENDING && client->deadline_ns == NEVER)
            client->deadline_ns = pv_now_ns() + WORKER_END_NS;
    }
}

static void reap(struct pv_server *server)
{
    pv_list_for_each(node, &server->clients)
    {
        struct client *client = pv_list_entry(node, struct client, node);
        int status;
        if (waitpid(client->worker, &status, WNOHANG) != client->worker)
            continue;
        read_reports(client);
        log_end(server, client, status);
        remove_client(server, client);
    }
}

static void kill_overdue(struct pv_server *server)
{
    uint64_t now = pv_now_ns();
    pv_list_for_each(node, &server->clients)
    {
        struct client *client = pv_list_entry(node, struct client, node);
        if (client->killed || client->deadline_ns > now)
            continue;
        pv_debug("client %u: killing worker %d, which is overdue", client->id, (int)client->worker);
        client->killed = true;
        client->deadline_ns = NEVER;
        kill(client->worker, SIGKILL);
    }
}

/* ---- a client's begin ---- */

static void run_worker(struct pv_server *server, const struct client *client, int report_fd)
{
    const struct pv_worker_params params = {
        .client_fd = client->socket_fd,
        .report_fd = report_fd,
        .client_id = client->id,
        .caps = server->params.caps,
        .device_index = server->params.device_index,
        .wsi = server->params.wsi,
        .refuse = client->refused,
    };
    pv_worker_main(&params);
}

/* Fork the worker with all signals blocked: ours must not run our handlers in the child. */
static int start_worker(struct pv_server *server, struct client *client)
{
    int fds[2];
    int ret = pv_pipe(fds, true);
    if (ret < 0)
        return ret;
    fcntl(fds[0], F_SETFL, O_NONBLOCK);

    sigset_t all, before;
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, &before);
    pid_t pid = fork();
    int error = errno;
    if (pid == 0)
        run_worker(server, client, fds[1]);
    sigprocmask(SIG_SETMASK, &before, NULL);

    close(fds[1]);
    if (pid < 0) {
        close(fds[0]);
        return -error;
    }
    client->worker = pid;
    client->report_fd = fds[0];
    return 0;
}

static void add_client(struct pv_server *server, int fd)
{
    bool refuse = server->client_count >= server->params.max_clients;
    if (refuse) {
        pv_log_limited(PV_LOG_WARN, 5, "a client is turned away: %u are served already%s",
                       server->client_count,
                       server->params.once ? " (--once)" : "; see --max-clients");
        if (server->refusal_count >= REFUSALS_MAX) {
            close(fd);
            return;
        }
    }

    struct client *client = calloc(1, sizeof(*client));
    if (!client) {
        close(fd);
        return;
    }
    client->id = ++server->next_id;
    client->socket_fd = fd;
    client->report_fd = -1;
    client->refused = refuse;
    client->started_ns = pv_now_ns();
    client->deadline_ns = refuse ? client->started_ns + REFUSAL_NS : NEVER;
    int ret = start_worker(server, client);
    if (ret < 0) {
        pv_error("cannot start a worker for a client: %s", strerror(-ret));
        server->accept_after_ns = pv_now_ns() + ACCEPT_PAUSE_NS;
        close(fd);
        free(client);
        return;
    }
    pv_list_append(&server->clients, &client->node);
    if (refuse)
        server->refusal_count++;
    else
        server->client_count++;
}

static void accept_clients(struct pv_server *server)
{
    for (;;) {
        int fd = pv_accept(server->listener.fd, true);
        if (fd >= 0) {
            add_client(server, fd);
            continue;
        }
        if (fd == -EINTR || fd == -ECONNABORTED)
            continue;
        if (fd != -EAGAIN) {
            pv_log_limited(PV_LOG_ERROR, 1, "cannot accept a client: %s", strerror(-fd));
            server->accept_after_ns = pv_now_ns() + ACCEPT_PAUSE_NS;
        }
        return;
    }
}

/* ---- the loop ---- */

static void stop(struct pv_server *server)
{
    pv_listener_close(&server->listener);
    server->stopping = true;
    if (server->client_count > 0)
        pv_info("stopping; %u clients are told", server->client_count);
    pv_list_for_each(node, &server->clients)
    {
        struct client *client = pv_list_entry(node, struct client, node);
        kill(client->worker, SIGTERM);
        if (client->deadline_ns > pv_now_ns() + STOP_NS)
            client->deadline_ns = pv_now_ns() + STOP_NS;
    }
}

static void stop_at_once(struct pv_server *server)
{
    pv_list_for_each(node, &server->clients)
    {
        struct client *client = pv_list_entry(node, struct client, node);
        client->deadline_ns = 0;
    }
}

static void handle_signals(struct pv_server *server)
{
    char numbers[64];
    ssize_t count = read(server->signal_read_fd, numbers, sizeof(numbers));
    for (ssize_t i = 0; i < count; i++) {
        if (numbers[i] == SIGCHLD)
            continue; /* the loop reaps whenever it wakes */
        if (server->listener.fd < 0)
            stop_at_once(server);
        else
            stop(server);
    }
}

/* poll() ignores negative fds, so what has been closed costs nothing. */
static int fill_polls(struct pv_server *server, size_t *out_count)
{
    size_t count = 2 + 2 * ((size_t)server->client_count + server->refusal_count);
    if (count > server->poll_room) {
        struct pollfd *polls = realloc(server->polls, 2 * count * sizeof(*polls));
        if (!polls)
            return -ENOMEM;
        server->polls = polls;
        server->poll_room = 2 * count;
    }
    bool accepting = pv_now_ns() >= server->accept_after_ns;
    struct pollfd *polls = server->polls;
    *polls++ = (struct pollfd){.fd = server->signal_read_fd, .events = POLLIN};
    *polls++ = (struct pollfd){.fd = accepting ? server->listener.fd : -1, .events = POLLIN};
    pv_list_for_each(node, &server->clients)
    {
        const struct client *client = pv_list_entry(node, struct client, node);
        *polls++ = (struct pollfd){.fd = client->report_fd, .events = POLLIN};
        *polls++ = (struct pollfd){.fd = client->socket_fd}; /* only POLLHUP: its end */
    }
    *out_count = count;
    return 0;
}

static int poll_timeout_ms(const struct pv_server *server)
{
    uint64_t now = pv_now_ns(), next = NEVER;
    if (server->accept_after_ns > now)
        next = server->accept_after_ns;
    pv_list_for_each(node, &server->clients)
    {
        const struct client *client = pv_list_entry(node, struct client, node);
        if (client->deadline_ns < next)
            next = client->deadline_ns;
    }
    if (next == NEVER)
        return -1;
    return next <= now ? 0 : (int)((next - now) / 1000000 + 1);
}

/* Clients were added behind the list's end since fill_polls, never before it. */
static void look_at_clients(struct pv_server *server, const struct pollfd *polls, size_t count)
{
    size_t i = 0;
    pv_list_for_each(node, &server->clients)
    {
        if (i >= count)
            return;
        struct client *client = pv_list_entry(node, struct client, node);
        if (polls[i].revents)
            read_reports(client);
        if (polls[i + 1].revents) {
            close_fd(&client->socket_fd);
            if (client->deadline_ns == NEVER)
                client->deadline_ns = pv_now_ns() + WORKER_END_NS;
        }
        i += 2;
    }
}

static int serve_once(struct pv_server *server)
{
    size_t count;
    int ret = fill_polls(server, &count);
    if (ret < 0)
        return ret;
    if (poll(server->polls, count, poll_timeout_ms(server)) < 0 && errno != EINTR)
        return -errno;

    look_at_clients(server, server->polls + 2, count - 2);
    if (server->polls[0].revents)
        handle_signals(server);
    reap(server);
    kill_overdue(server);
    if (server->polls[1].revents && server->listener.fd >= 0 && !server->stopping)
        accept_clients(server);
    if (server->stopping && server->listener.fd >= 0)
        stop(server);
    return 0;
}

int pv_server_run(struct pv_server *server)
{
    int ret = 0;
    while (ret == 0 && !(server->stopping && pv_list_empty(&server->clients)))
        ret = serve_once(server);
    if (ret < 0)
        pv_error("the server cannot go on: %s", strerror(-ret));

    if (server->params.stats) {
        char who[64];
        snprintf(who, sizeof(who), "%llu clients, %llu of them failed",
                 (unsigned long long)server->served, (unsigned long long)server->failed);
        print_stats(who, &server->totals);
    }
    return ret < 0 ? ret : server->result;
}
