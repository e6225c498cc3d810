#include "worker/spawner.h"

#include "util/fdpass.h"
#include "util/list.h"
#include "util/log.h"
#include "util/os.h"
#include "worker/gpu_worker.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <uv.h>

#define PV_LOG_MODULE "spawner"

/* When the device goes: between telling the workers and killing them, and for them to die. */
#define END_NS  (UINT64_C(2) * 1000000000)
#define REAP_NS (UINT64_C(1) * 1000000000)
#define NEVER   UINT64_MAX

enum request_type { REQUEST_START, REQUEST_END };

/* Device to spawner; START comes with the fds of the link, the page of activity, the arena. */
struct request {
    enum request_type type;
    uint32_t ctx_id;   /* start */
    uint32_t grace_ms; /* end */
    bool has_activity, has_arena;
    uint64_t id;
    char name[64];
};

enum news_type { NEWS_STARTED, NEWS_ENDED };

/* Spawner to device. */
struct news {
    enum news_type type;
    int32_t value; /* pid or wait status */
    uint64_t id;
};

/* ---- the process ---- */

struct worker {
    struct pv_list node;
    uint64_t id;
    pid_t pid;
    uint64_t deadline_ns; /* killed then; NEVER */
};

struct process {
    const struct pv_spawner_params *params;
    int socket;
    struct pv_list workers;
};

static int child_write_fd = -1; /* written to when a child has ended */

static void on_child(int signal_number)
{
    int saved_errno = errno;
    ssize_t written = write(child_write_fd, "c", 1); /* full means that news is waiting */
    (void)written;
    errno = saved_errno;
}

/* Terminals speak to the device, and it to us. */
static int set_up_signals(int *out_read_fd)
{
    int fds[2];
    int ret = pv_pipe(fds, false);
    if (ret < 0)
        return ret;
    child_write_fd = fds[1];
    *out_read_fd = fds[0];
    const struct sigaction child = {.sa_handler = on_child, .sa_flags = SA_RESTART};
    const struct sigaction ignore = {.sa_handler = SIG_IGN};
    const struct sigaction by_default = {.sa_handler = SIG_DFL};
    sigaction(SIGCHLD, &child, NULL);
    sigaction(SIGPIPE, &ignore, NULL);
    sigaction(SIGINT, &ignore, NULL);
    sigaction(SIGHUP, &ignore, NULL);
    sigaction(SIGTERM, &by_default, NULL);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    return 0;
}

/* A device that has gone is heard of by receiving. */
static void tell(const struct process *process, enum news_type type, uint64_t id, int value)
{
    const struct news news = {.type = type, .id = id, .value = value};
    const struct iovec piece = {(void *)&news, sizeof(news)};
    pv_fds_send(process->socket, NULL, 0, &piece, 1, true);
}

/* Fork with all signals blocked: ours must not run our handlers in the child. */
static pid_t fork_worker(const struct process *process, const struct request *request,
                         const struct pv_spawner_fds *fds)
{
    const struct pv_gpu_worker_params params = {
        .link_fd = fds->link,
        .arena_fd = fds->arena,
        .activity_fd = fds->activity,
        .ctx_id = request->ctx_id,
        .name = request->name,
        .caps = process->params->caps,
        .device_index = process->params->device_index,
    };
    pid_t parent = getpid();
    sigset_t all, before;
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, &before);
    pid_t pid = fork();
    if (pid == 0)
        pv_gpu_worker_main(&params, parent);
    sigprocmask(SIG_SETMASK, &before, NULL);
    return pid;
}

static void start_worker(struct process *process, struct request *request,
                         const struct pv_spawner_fds *fds)
{
    request->name[sizeof(request->name) - 1] = '\0';
    struct worker *worker = malloc(sizeof(*worker));
    pid_t pid = -1;
    errno = ENOMEM;
    if (worker && fds->link >= 0)
        pid = fork_worker(process, request, fds);
    if (pid < 0) {
        pv_log_limited(PV_LOG_ERROR, 5, "cannot start a worker for context %u (%s): %s",
                       request->ctx_id, request->name, strerror(errno));
        free(worker);
        tell(process, NEWS_STARTED, request->id, 0);
        return;
    }
    *worker = (struct worker){.id = request->id, .pid = pid, .deadline_ns = NEVER};
    pv_list_append(&process->workers, &worker->node);
    tell(process, NEWS_STARTED, request->id, pid);
}

static void end_worker(struct process *process, const struct request *request)
{
    pv_list_for_each(node, &process->workers)
    {
        struct worker *worker = pv_list_entry(node, struct worker, node);
        if (worker->id == request->id)
            worker->deadline_ns = pv_now_ns() + request->grace_ms * UINT64_C(1000000);
    }
}

/* Those that did not come, for lack of room in our table, are -1. */
static struct pv_spawner_fds name_fds(const struct request *request, const int *fds, size_t count)
{
    struct pv_spawner_fds named = {-1, -1, -1};
    size_t i = 0;
    if (i < count)
        named.link = fds[i++];
    if (request->has_activity && i < count)
        named.activity = fds[i++];
    if (request->has_arena && i < count)
        named.arena = fds[i++];
    return named;
}

/* Take one request. False at the end. */
static bool take_request(struct process *process)
{
    struct request request;
    int fds[PV_FDS_MAX];
    size_t fd_count;
    ssize_t size = pv_fds_receive(process->socket, &request, sizeof(request), true, fds, &fd_count);
    if (size != (ssize_t)sizeof(request))
        return false;
    if (request.type == REQUEST_START) {
        const struct pv_spawner_fds named = name_fds(&request, fds, fd_count);
        start_worker(process, &request, &named);
    } else {
        end_worker(process, &request);
    }
    for (size_t i = 0; i < fd_count; i++) {
        if (fds[i] >= 0)
            close(fds[i]);
    }
    return true;
}

static void reap(struct process *process)
{
    pv_list_for_each(node, &process->workers)
    {
        struct worker *worker = pv_list_entry(node, struct worker, node);
        int status;
        if (waitpid(worker->pid, &status, WNOHANG) != worker->pid)
            continue;
        tell(process, NEWS_ENDED, worker->id, status);
        pv_list_remove(&worker->node);
        free(worker);
    }
}

/* Kill who is overdue. Returns the time until the next one is, for poll(). */
static int kill_overdue(struct process *process)
{
    uint64_t now = pv_now_ns(), next = NEVER;
    pv_list_for_each(node, &process->workers)
    {
        struct worker *worker = pv_list_entry(node, struct worker, node);
        if (worker->deadline_ns <= now) {
            kill(worker->pid, SIGKILL); /* not reaped yet, so it is no other's pid */
            worker->deadline_ns = NEVER;
        }
        if (worker->deadline_ns < next)
            next = worker->deadline_ns;
    }
    return next == NEVER ? -1 : (int)((next - now) / 1000000 + 1);
}

/* The device has gone. Its workers are told, then killed, and not waited for for ever. */
static void end_all(struct process *process, int child_read_fd)
{
    uint64_t now = pv_now_ns();
    pv_list_for_each(node, &process->workers)
    {
        struct worker *worker = pv_list_entry(node, struct worker, node);
        kill(worker->pid, SIGTERM);
        if (worker->deadline_ns > now + END_NS)
            worker->deadline_ns = now + END_NS;
    }
    for (reap(process); !pv_list_empty(&process->workers); reap(process)) {
        struct pollfd poll_fd = {.fd = child_read_fd, .events = POLLIN};
        char bytes[64];
        if (pv_now_ns() > now + END_NS + REAP_NS)
            return;
        int timeout = kill_overdue(process);
        poll(&poll_fd, 1, timeout < 0 ? (int)(REAP_NS / 1000000) : timeout);
        while (read(child_read_fd, bytes, sizeof(bytes)) > 0)
            continue;
    }
}

static void run(struct process *process)
{
    struct pollfd polls[] = {{.fd = process->socket, .events = POLLIN}, {.events = POLLIN}};
    if (set_up_signals(&polls[1].fd) < 0) {
        pv_error("cannot start the process that starts workers: %s", strerror(errno));
        return;
    }
    for (;;) {
        if (poll(polls, 2, kill_overdue(process)) < 0)
            continue; /* interrupted: the pipe says by what */
        char bytes[64];
        while (read(polls[1].fd, bytes, sizeof(bytes)) > 0)
            continue;
        reap(process);
        if (polls[0].revents && !take_request(process))
            break;
    }
    end_all(process, polls[1].fd);
}

__attribute__((noreturn)) static void process_main(const struct pv_spawner_params *params,
                                                   int socket, pid_t parent)
{
    struct process process = {.params = params, .socket = socket};
    pv_list_init(&process.workers);
    pv_die_with_parent();
    if (getppid() != parent)
        _exit(EXIT_FAILURE);
    /* libuv, once used, replaces fds of its own in every child: those we are about to close, whose
     * numbers will be others' */
    uv_library_shutdown();
    pv_close_fds_except(&socket, 1);
    pv_raise_fd_limit();
    pv_thread_set_name("pv-spawner");
    run(&process);
    _exit(0);
}

/* ---- the device's side ---- */

/* A request that did not fit into the socket. */
struct later {
    struct later *next;
    struct request request;
};

struct pv_spawner {
    pid_t pid;
    int socket; /* owned; -1 after the spawner has died */
    struct later *first, **last;
    uv_poll_t *poll; /* owned, freed by the loop; NULL while nobody watches */
    struct pv_spawner_events events;
    void *data;
};

int pv_spawner_create(const struct pv_spawner_params *params, struct pv_spawner **out)
{
    struct pv_spawner *spawner = calloc(1, sizeof(*spawner));
    int sockets[2];
    if (!spawner)
        return -ENOMEM;
    int ret = pv_message_socketpair(sockets);
    if (ret < 0) {
        free(spawner);
        return ret;
    }
    pid_t parent = getpid();
    sigset_t all, before;
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, &before);
    spawner->pid = fork();
    ret = -errno;
    if (spawner->pid == 0) {
        free(spawner); /* the device's */
        process_main(params, sockets[1], parent);
    }
    sigprocmask(SIG_SETMASK, &before, NULL);
    close(sockets[1]);
    if (spawner->pid < 0) {
        close(sockets[0]);
        free(spawner);
        return ret;
    }
    spawner->socket = sockets[0];
    spawner->last = &spawner->first;
    *out = spawner;
    return 0;
}

static void free_poll(uv_handle_t *handle)
{
    free(handle);
}

static void drop_later(struct pv_spawner *spawner)
{
    while (spawner->first) {
        struct later *later = spawner->first;
        spawner->first = later->next;
        free(later);
    }
    spawner->last = &spawner->first;
}

static void disconnect(struct pv_spawner *spawner)
{
    if (spawner->poll)
        uv_close((uv_handle_t *)spawner->poll, free_poll);
    spawner->poll = NULL;
    if (spawner->socket >= 0)
        close(spawner->socket);
    spawner->socket = -1;
    drop_later(spawner);
}

void pv_spawner_destroy(struct pv_spawner *spawner)
{
    if (!spawner)
        return;
    disconnect(spawner);
    while (waitpid(spawner->pid, NULL, 0) < 0 && errno == EINTR)
        continue;
    free(spawner);
}

static void on_lost(struct pv_spawner *spawner)
{
    pv_error("the process that starts workers has died; there are no workers any more");
    disconnect(spawner);
    spawner->events.lost(spawner->data);
}

/* One at a time, since a callback may destroy the spawner; the loop comes back for the next. */
static void read_news(struct pv_spawner *spawner)
{
    struct news news;
    int fds[PV_FDS_MAX];
    size_t fd_count;
    ssize_t size = pv_fds_receive(spawner->socket, &news, sizeof(news), false, fds, &fd_count);
    if (size == -EAGAIN)
        return;
    if (size != (ssize_t)sizeof(news))
        on_lost(spawner);
    else if (news.type == NEWS_STARTED)
        spawner->events.started(spawner->data, news.id, (pid_t)news.value);
    else
        spawner->events.ended(spawner->data, news.id, news.value);
}

static void on_event(uv_poll_t *poll, int status, int events);

static void update_poll(struct pv_spawner *spawner)
{
    if (spawner->poll)
        uv_poll_start(spawner->poll, UV_READABLE | (spawner->first ? UV_WRITABLE : 0), on_event);
}

/* 0, -EAGAIN if there is no room, -EPIPE. */
static int send_request(struct pv_spawner *spawner, const struct request *request, const int *fds,
                        size_t fd_count)
{
    const struct iovec piece = {(void *)request, sizeof(*request)};
    if (spawner->socket < 0)
        return -EPIPE;
    ssize_t sent = pv_fds_send(spawner->socket, fds, fd_count, &piece, 1, false);
    if (sent == (ssize_t)sizeof(*request))
        return 0;
    return sent == -EAGAIN || sent == -ENOBUFS || sent == -ENOMEM || sent == -ETOOMANYREFS ? -EAGAIN
                                                                                           : -EPIPE;
}

static void send_later(struct pv_spawner *spawner)
{
    while (spawner->first) {
        struct later *later = spawner->first;
        if (send_request(spawner, &later->request, NULL, 0) == -EAGAIN)
            break;
        spawner->first = later->next;
        if (!spawner->first)
            spawner->last = &spawner->first;
        free(later);
    }
    update_poll(spawner);
}

static void on_event(uv_poll_t *poll, int status, int events)
{
    struct pv_spawner *spawner = poll->data;
    if (status >= 0 && (events & UV_WRITABLE))
        send_later(spawner);
    if (status < 0 || (events & UV_READABLE))
        read_news(spawner);
}

int pv_spawner_watch(struct pv_spawner *spawner, uv_loop_t *loop,
                     const struct pv_spawner_events *events, void *data)
{
    spawner->poll = calloc(1, sizeof(*spawner->poll));
    if (!spawner->poll)
        return -ENOMEM;
    int ret = uv_poll_init(loop, spawner->poll, spawner->socket);
    if (ret < 0) {
        free(spawner->poll);
        spawner->poll = NULL;
        return ret;
    }
    spawner->poll->data = spawner;
    spawner->events = *events;
    spawner->data = data;
    update_poll(spawner);
    return 0;
}

int pv_spawner_start(struct pv_spawner *spawner, uint64_t id, uint32_t ctx_id, const char *name,
                     const struct pv_spawner_fds *fds)
{
    struct request request = {
        .type = REQUEST_START,
        .ctx_id = ctx_id,
        .has_activity = fds->activity >= 0,
        .has_arena = fds->arena >= 0,
        .id = id,
    };
    int list[3];
    size_t count = 0;
    list[count++] = fds->link;
    if (request.has_activity)
        list[count++] = fds->activity;
    if (request.has_arena)
        list[count++] = fds->arena;
    snprintf(request.name, sizeof(request.name), "%s", name);
    if (spawner->first)
        return -ENOBUFS;
    int ret = send_request(spawner, &request, list, count);
    return ret == -EAGAIN ? -ENOBUFS : ret;
}

void pv_spawner_end(struct pv_spawner *spawner, uint64_t id, uint32_t grace_ms)
{
    const struct request request = {.type = REQUEST_END, .id = id, .grace_ms = grace_ms};
    if (!spawner->first && send_request(spawner, &request, NULL, 0) != -EAGAIN)
        return;
    struct later *later = malloc(sizeof(*later));
    if (!later) {
        pv_log_limited(PV_LOG_WARN, 1, "no memory to end a worker in time");
        return;
    }
    *later = (struct later){.request = request};
    *spawner->last = later;
    spawner->last = &later->next;
    update_poll(spawner);
}
