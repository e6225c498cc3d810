#include "vm/views.h"

#include "util/os.h"
#include "vm/input_relay.h"
#include "vm/lines.h"
#include "vm/process.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

struct view {
    pid_t pid; /* 0: does not run */
    struct pv_lines *lines;
    struct pv_input_relay *relay;
    int control, device; /* the two ends of a connection; -1 once given away */
    int input, keyboard;
};

struct pv_views {
    struct pv_views_params params;
    bool stopping;
    size_t count;
    struct view views[PV_VIEWS_MAX];
};

static void close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

static int make_pair(int *ours, int *theirs)
{
    int fds[2];
    int ret = pv_socketpair(fds);
    if (ret < 0)
        return ret;
    *ours = fds[0];
    *theirs = fds[1];
    return 0;
}

int pv_views_create(const struct pv_views_params *params, struct pv_views **out)
{
    struct pv_views *views = calloc(1, sizeof(*views));
    int ret = 0;
    if (!views)
        return -ENOMEM;
    views->params = *params;
    while (ret == 0 && views->count < params->kinds->count && views->count < PV_VIEWS_MAX) {
        struct view *view = &views->views[views->count++];
        *view = (struct view){.control = -1, .device = -1, .input = -1, .keyboard = -1};
        ret = make_pair(&view->control, &view->device);
        if (ret == 0)
            ret = make_pair(&view->input, &view->keyboard);
    }
    if (ret < 0) {
        pv_views_destroy(views);
        return ret;
    }
    *out = views;
    return 0;
}

void pv_views_destroy(struct pv_views *views)
{
    if (!views)
        return;
    for (size_t i = 0; i < views->count; i++) {
        struct view *view = &views->views[i];
        pv_lines_destroy(view->lines);
        pv_input_relay_destroy(view->relay);
        close_fd(&view->control);
        close_fd(&view->input);
        close_fd(&view->keyboard);
    }
    pv_views_close_device_fds(views);
    free(views);
}

size_t pv_views_count(const struct pv_views *views)
{
    return views ? views->count : 0;
}

int pv_views_device_fd(const struct pv_views *views, size_t index)
{
    return views->views[index].device;
}

void pv_views_close_device_fds(struct pv_views *views)
{
    for (size_t i = 0; i < pv_views_count(views); i++)
        close_fd(&views->views[i].device);
}

static int make_command(const struct pv_views *views, size_t index, struct pv_argv *argv)
{
    const struct view *view = &views->views[index];
    char self[1024];
    int ret = pv_executable_path(self, sizeof(self));
    if (ret < 0)
        return ret;
    pv_argv_add(argv, self);
    pv_argv_add(argv, "view");
    pv_argv_option(argv, "--control-fd", "%d", view->control);
    pv_argv_option(argv, "--input-fd", "%d", view->input);
    pv_argv_append(argv, views->params.options);
    pv_argv_add(argv, views->params.kinds->items[index]);
    return argv->failed ? -ENOMEM : 0;
}

/* Start it; what it says comes by a pipe. */
static int start_process(struct pv_views *views, size_t index, struct pv_argv *argv)
{
    struct view *view = &views->views[index];
    int said[2];
    int ret = pv_pipe(said, true);
    if (ret < 0)
        return ret;
    const int fds[] = {view->control, view->input};
    pid_t pid = pv_process_start(&(struct pv_process_params){.argv = argv->items,
                                                             .fds = fds,
                                                             .fd_count = 2,
                                                             .stdout_fd = said[1],
                                                             .stderr_fd = said[1],
                                                             .may_say_goodbye = true});
    close(said[1]);
    ret = pid < 0 ? (int)pid
                  : pv_lines_create(views->params.loop, said[0], views->params.line,
                                    views->params.data, &view->lines);
    if (pid < 0)
        close(said[0]);
    else
        view->pid = pid;
    close_fd(&view->control);
    close_fd(&view->input);
    return ret;
}

static int start_relay(struct pv_views *views, size_t index, struct pv_qmp *qmp)
{
    struct view *view = &views->views[index];
    int fd = view->keyboard;
    view->keyboard = -1;
    return pv_input_relay_create(views->params.loop, fd, qmp, &view->relay);
}

int pv_views_start(struct pv_views *views, struct pv_qmp *qmp,
                   void (*show)(const struct pv_argv *argv))
{
    int ret = 0;
    for (size_t i = 0; ret == 0 && i < pv_views_count(views); i++) {
        struct pv_argv argv = {0};
        ret = make_command(views, i, &argv);
        if (ret == 0 && show)
            show(&argv);
        if (ret == 0)
            ret = start_process(views, i, &argv);
        if (ret == 0)
            ret = start_relay(views, i, qmp);
        pv_argv_finish(&argv);
    }
    return ret;
}

void pv_views_reap(struct pv_views *views)
{
    int wait_status;
    for (size_t i = 0; i < pv_views_count(views); i++) {
        struct view *view = &views->views[i];
        if (view->pid == 0 || waitpid(view->pid, &wait_status, WNOHANG) != view->pid)
            continue;
        view->pid = 0;
        pv_lines_drain(view->lines);
        if (!views->stopping)
            views->params.ended(views->params.data, views->params.kinds->items[i], wait_status);
    }
}

void pv_views_stop(struct pv_views *views, int signal_number)
{
    if (!views)
        return;
    views->stopping = true;
    for (size_t i = 0; i < views->count; i++) {
        if (views->views[i].pid > 0)
            kill(views->views[i].pid, signal_number);
    }
}

size_t pv_views_running(const struct pv_views *views)
{
    size_t running = 0;
    for (size_t i = 0; i < pv_views_count(views); i++)
        running += views->views[i].pid > 0;
    return running;
}
