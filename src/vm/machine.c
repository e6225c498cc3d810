#include "vm/machine.h"

#include "util/log.h"
#include "util/os.h"
#include "vm/agent.h"
#include "vm/gpu_client.h"
#include "vm/guest_command.h"
#include "vm/lines.h"
#include "vm/process.h"
#include "vm/pump.h"
#include "vm/qmp.h"
#include "vm/terminal.h"
#include "vm/views.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include <uv.h>

#define PV_LOG_MODULE "run"

/* Until the guest agent answers. Translated guests on a busy machine take half a minute. */
#define BOOT_TIMEOUT_S            60u
#define BOOT_TIMEOUT_TRANSLATED_S 300u
/* A guest that was asked to shut down has this long, */
#define SHUTDOWN_TIMEOUT_MS 30000u
/* QEMU that was asked to end this long, */
#define QUIT_TIMEOUT_MS 3000u
/* and the GPU device, whose VMM has gone, and the displays, whose device has, this long. */
#define DEVICE_TIMEOUT_MS 3000u
#define STATUS_PERIOD_MS  1000u
/* Input that is not typed waits until the console's shell is there. */
#define PIPED_INPUT_DELAY_MS 2000u
#define CONSOLE_TAIL         2048u
#define ESCAPE               0x1d /* Ctrl-] */

enum phase {
    PHASE_BOOTING,  /* the agent has not answered yet */
    PHASE_RUNNING,  /* the command runs, or the console is the user's */
    PHASE_PICTURE,  /* a screenshot is being written */
    PHASE_SHUTDOWN, /* the guest was asked to end */
    PHASE_QUITTING, /* QEMU was asked to end */
    PHASE_KILLED,
    PHASE_CLEANUP, /* QEMU has ended; the device and the displays are to follow */
    PHASE_DONE,
};

/* One of QEMU's channels: a socket pair. */
struct channel {
    int ours, theirs;
};
enum {
    CHANNEL_QMP,
    CHANNEL_CONSOLE,
    CHANNEL_AGENT,
    CHANNEL_STDIN,
    CHANNEL_STDOUT,
    CHANNEL_STDERR,
    CHANNEL_GPU,     /* both ends are for children */
    CHANNEL_CONTROL, /* to the device */
    CHANNEL_COUNT,
};

struct machine {
    const struct pv_machine_params *params;
    uv_loop_t loop;
    enum phase phase;
    int status; /* to exit with */
    bool status_set, picture_wanted, gone;
    struct channel channels[CHANNEL_COUNT];
    pid_t qemu_pid, device_pid; /* 0: none (any more) */
    struct pv_qmp *qmp;
    struct pv_agent *agent;
    struct pv_guest_command *command;
    struct pv_pump *console_in, *console_out;
    struct pv_gpu_client *gpu;
    struct pv_views *views;
    struct pv_lines *errors; /* QEMU's standard error */
    struct pv_terminal *terminal;
    bool agent_was_ready, qmp_lost, qemu_reaped;
    int qemu_wait_status;
    unsigned int interrupts;
    uv_signal_t signals[4]; /* see signal_numbers */
    uv_timer_t phase_timer, command_timer, input_timer, status_timer;
};

static const int signal_numbers[4] = {SIGCHLD, SIGINT, SIGTERM, SIGHUP};

static void quit_now(struct machine *m);
static void notice_device(struct machine *m);

/* In the middle of what the guest writes to a raw terminal. */
static void say_line(struct machine *m, const char *who, const char *text)
{
    bool raw = m->terminal != NULL;
    fprintf(stderr, "%s%s%s%s\n", raw ? "\r\n" : "", who, text, raw ? "\r" : "");
}

static void say(struct machine *m, const char *text)
{
    say_line(m, "pearvisor: ", text);
}

static void set_status(struct machine *m, int status)
{
    if (!m->status_set)
        m->status = status;
    m->status_set = true;
}

static void give_terminal_back(struct machine *m)
{
    pv_pump_destroy(m->console_in);
    m->console_in = NULL;
    pv_terminal_restore(m->terminal);
    m->terminal = NULL;
}

/* ---- the end, step by step ---- */

static void stop_device(struct machine *m)
{
    /* QEMU's end of the connection is closed, so the device ends by itself; this is quicker */
    if (m->device_pid > 0)
        kill(m->device_pid, SIGTERM);
    pv_views_stop(m->views, SIGTERM);
}

static void on_device_late(uv_timer_t *timer)
{
    struct machine *m = timer->data;
    if (m->device_pid > 0)
        kill(m->device_pid, SIGKILL);
    pv_views_stop(m->views, SIGKILL);
}

/* All children have ended: let the loop run out. */
static void finish(struct machine *m)
{
    m->phase = PHASE_DONE;
    pv_views_destroy(m->views);
    pv_gpu_client_destroy(m->gpu);
    pv_guest_command_destroy(m->command);
    pv_agent_destroy(m->agent);
    pv_qmp_destroy(m->qmp);
    give_terminal_back(m);
    pv_pump_destroy(m->console_out);
    pv_lines_destroy(m->errors);
    for (size_t i = 0; i < 4; i++)
        uv_close((uv_handle_t *)&m->signals[i], NULL);
    uv_close((uv_handle_t *)&m->phase_timer, NULL);
    uv_close((uv_handle_t *)&m->command_timer, NULL);
    uv_close((uv_handle_t *)&m->input_timer, NULL);
    uv_close((uv_handle_t *)&m->status_timer, NULL);
}

static void kill_now(struct machine *m)
{
    m->phase = PHASE_KILLED;
    if (m->qemu_pid > 0)
        kill(m->qemu_pid, SIGKILL);
    if (m->device_pid > 0)
        kill(m->device_pid, SIGKILL);
    pv_views_stop(m->views, SIGTERM); /* they have files to remove */
}

static void on_quit_late(uv_timer_t *timer)
{
    kill_now(timer->data);
}

static void quit_now(struct machine *m)
{
    if (m->phase >= PHASE_QUITTING)
        return;
    m->phase = PHASE_QUITTING;
    if (m->qmp)
        pv_qmp_quit(m->qmp);
    else if (m->qemu_pid > 0)
        kill(m->qemu_pid, SIGTERM);
    uv_timer_start(&m->phase_timer, on_quit_late, QUIT_TIMEOUT_MS, 0);
}

static void on_shutdown_late(uv_timer_t *timer)
{
    struct machine *m = timer->data;
    say(m, "the guest does not shut down; it is switched off");
    quit_now(m);
}

/* The guest's disk is kept: let it write what it holds. */
static void shut_down(struct machine *m)
{
    if (m->phase >= PHASE_SHUTDOWN)
        return;
    m->phase = PHASE_SHUTDOWN;
    if (m->agent_was_ready)
        pv_agent_shutdown(m->agent);
    else if (m->qmp)
        pv_qmp_powerdown(m->qmp);
    uv_timer_start(&m->phase_timer, on_shutdown_late, SHUTDOWN_TIMEOUT_MS, 0);
}

static void end_guest(struct machine *m)
{
    if (m->params->vm.snapshot)
        quit_now(m);
    else
        shut_down(m);
}

static void on_screenshot(void *data, struct json_object *result, const char *error)
{
    struct machine *m = data;
    if (error) {
        pv_error("no picture of the guest's screen: %s", error);
        if (m->status == 0)
            m->status = 1;
    }
    if (m->phase == PHASE_PICTURE)
        end_guest(m);
}

/* The work is done (or has failed): end with this status. */
static void end(struct machine *m, int status)
{
    set_status(m, status);
    if (m->phase >= PHASE_PICTURE)
        return;
    uv_timer_stop(&m->phase_timer);
    uv_timer_stop(&m->command_timer);
    if (m->params->screenshot && m->params->gpu && m->device_pid > 0) {
        m->phase = PHASE_PICTURE;
        int ret = pv_gpu_client_screenshot(m->gpu, 0, m->params->screenshot, on_screenshot, m);
        if (ret == 0)
            return;
        on_screenshot(m, NULL, strerror(-ret));
        return;
    }
    end_guest(m);
}

/* Something is broken: no time for manners. */
static void fail(struct machine *m)
{
    set_status(m, 1);
    quit_now(m);
}

/* ---- what QEMU says ---- */

/* Each piece of GPU memory that QEMU maps by itself (--window dynamic) is guest memory to it. Of
 * such it names at most eight to the device, and says two lines at every change beyond that. The
 * device needs none of them. */
static bool is_about_mapped_pieces(const char *line)
{
    return strstr(line, "Failed preparing vhost-user memory table msg") ||
           strstr(line, "vhost_set_mem_table failed: No buffer space available");
}

static void on_error_line(void *data, const char *line)
{
    struct machine *m = data;
    notice_device(m); /* what QEMU says about a device that has died is no news */
    bool expected = m->phase >= PHASE_QUITTING || strstr(line, "terminating on signal");
    if (is_about_mapped_pieces(line))
        pv_debug("QEMU: %s", line);
    else if (!expected)
        pv_warn("QEMU: %s%s", line, m->terminal ? "\r" : "");
}

/* ---- the children ---- */

static void on_qemu_ended(struct machine *m)
{
    int wait_status = m->qemu_wait_status;
    int status = pv_process_exit_status(wait_status);
    m->qemu_reaped = false;
    pv_lines_drain(m->errors); /* what it said last */
    if (m->phase < PHASE_SHUTDOWN && !m->gone) {
        if (WIFSIGNALED(wait_status))
            pv_error("QEMU was killed by signal %d (%s)", WTERMSIG(wait_status),
                     strsignal(WTERMSIG(wait_status)));
        else if (status != 0)
            pv_error("QEMU ended with status %d", status);
        else
            pv_error("QEMU ended before the guest did its work");
        set_status(m, 1);
    }
    set_status(m, 0);
    m->phase = PHASE_CLEANUP;
    stop_device(m);
    uv_timer_start(&m->phase_timer, on_device_late, DEVICE_TIMEOUT_MS, 0);
}

/* The device has gone, and QEMU has not followed: it may hang in a message to it. */
static void on_device_alone(uv_timer_t *timer)
{
    struct machine *m = timer->data;
    pv_error("the GPU device has ended; the virtual machine is stopped");
    set_status(m, 1);
    kill_now(m);
}

static void on_device_ended(struct machine *m, int wait_status)
{
    m->device_pid = 0;
    if (m->phase >= PHASE_QUITTING || m->gone)
        return;
    if (WIFEXITED(wait_status) && WEXITSTATUS(wait_status) == 0) {
        /* as it does when QEMU goes, whose end we may hear of later */
        uv_timer_start(&m->phase_timer, on_device_alone, DEVICE_TIMEOUT_MS, 0);
        return;
    }
    if (WIFSIGNALED(wait_status))
        pv_error("the GPU device was killed by signal %d (%s); the virtual machine is stopped",
                 WTERMSIG(wait_status), strsignal(WTERMSIG(wait_status)));
    else
        pv_error("the GPU device ended with status %d; the virtual machine is stopped",
                 WEXITSTATUS(wait_status));
    set_status(m, 1);
    kill_now(m);
}

static void notice_device(struct machine *m)
{
    int status;
    if (m->device_pid > 0 && waitpid(m->device_pid, &status, WNOHANG) == m->device_pid)
        on_device_ended(m, status);
}

/* Once QEMU has ended and all that its monitor said has been read (why it ended, perhaps). */
static void advance_end(struct machine *m)
{
    if (m->qemu_reaped && (!m->qmp || m->qmp_lost))
        on_qemu_ended(m);
    if (m->qemu_pid == 0 && !m->qemu_reaped && m->device_pid == 0 &&
        pv_views_running(m->views) == 0 && m->phase != PHASE_DONE)
        finish(m);
}

static void on_child(struct machine *m)
{
    /* QEMU first: when both have ended, the device's end is the consequence more often */
    if (m->qemu_pid > 0 && waitpid(m->qemu_pid, &m->qemu_wait_status, WNOHANG) == m->qemu_pid) {
        m->qemu_pid = 0;
        m->qemu_reaped = true;
    }
    notice_device(m);
    pv_views_reap(m->views);
    advance_end(m);
}

static void on_interrupt(struct machine *m, int signal_number)
{
    bool again = m->interrupts++ > 0;
    set_status(m, 128 + signal_number);
    m->status = 128 + signal_number;
    if (again)
        kill_now(m);
    else if (signal_number == SIGINT && m->command && m->phase == PHASE_RUNNING)
        pv_guest_command_interrupt(m->command);
    else if (m->phase == PHASE_BOOTING || m->params->vm.snapshot)
        quit_now(m);
    else
        shut_down(m);
}

/* ---- displays ---- */

static void on_view_line(void *data, const char *line)
{
    struct machine *m = data;
    if (m->phase < PHASE_QUITTING && !m->gone) /* that the device has gone is no news */
        say_line(m, "", line);
}

static void on_view_ended(void *data, const char *kind, int wait_status)
{
    struct machine *m = data;
    char text[256];
    bool closed = WIFEXITED(wait_status) && WEXITSTATUS(wait_status) == 0;
    if (m->phase >= PHASE_SHUTDOWN || m->gone || m->device_pid == 0 || m->qemu_pid == 0)
        return; /* as it does when the device goes */
    if (closed && strcmp(kind, "window") == 0 && pv_views_count(m->views) == 1) {
        say(m, "the window was closed; ending the guest");
        if (m->params->command)
            on_interrupt(m, SIGINT);
        else
            end(m, 0);
        return;
    }
    if (WIFSIGNALED(wait_status))
        snprintf(text, sizeof(text),
                 "the display %.100s was killed by signal %d (%s); the guest "
                 "goes on",
                 kind, WTERMSIG(wait_status), strsignal(WTERMSIG(wait_status)));
    else if (closed)
        snprintf(text, sizeof(text), "the display %.100s has ended; the guest goes on", kind);
    else
        snprintf(text, sizeof(text), "the display %.100s ended with status %d; the guest goes on",
                 kind, WEXITSTATUS(wait_status));
    say(m, text);
}

static void on_status(void *data, struct json_object *status, const char *error)
{
    struct machine *m = data;
    char *line = status ? m->params->status_line(m->params->data, status) : NULL;
    if (line)
        say_line(m, "", line);
    free(line);
}

static void on_status_time(uv_timer_t *timer)
{
    struct machine *m = timer->data;
    pv_gpu_client_status(m->gpu, on_status, m);
}

static void on_signal(uv_signal_t *handle, int signal_number)
{
    struct machine *m = handle->data;
    if (signal_number == SIGCHLD)
        on_child(m);
    else
        on_interrupt(m, signal_number);
}

/* ---- the monitor ---- */

static void on_qmp_ready(void *data)
{
    pv_debug("QEMU runs");
}

static void on_port(void *data, const char *id, bool open)
{
    struct machine *m = data;
    if (open && strcmp(id, "agent-port") == 0)
        pv_agent_sync(m->agent);
}

static void on_guest_shutdown(void *data, bool by_guest, const char *reason)
{
    struct machine *m = data;
    pv_debug("the machine ends: %s", reason);
    if (!by_guest)
        return;
    m->gone = true;
    if (m->phase < PHASE_PICTURE && m->params->command) {
        say(m, m->phase == PHASE_BOOTING ? "the guest has stopped while booting"
                                         : "the guest has shut down before the command ended");
        set_status(m, 1);
    }
}

static void on_qmp_lost(void *data, const char *why)
{
    struct machine *m = data;
    pv_debug("QEMU's monitor: %s", why); /* QEMU's end follows, or has been */
    m->qmp_lost = true;
    advance_end(m);
}

static const struct pv_qmp_events qmp_events = {
    .ready = on_qmp_ready,
    .port = on_port,
    .shutdown = on_guest_shutdown,
    .lost = on_qmp_lost,
};

/* ---- the guest's work ---- */

static void on_command_ended(void *data, int status, const char *error)
{
    struct machine *m = data;
    if (error) {
        pv_error("%s", error);
        status = 1;
    }
    end(m, status);
}

static void on_broken_output(void *data)
{
    struct machine *m = data;
    end(m, 128 + SIGPIPE);
}

static void on_command_late(uv_timer_t *timer)
{
    struct machine *m = timer->data;
    pv_error("the command has not ended after %u s", m->params->timeout_s);
    end(m, 124);
}

static void start_command(struct machine *m)
{
    const struct pv_machine_params *params = m->params;
    struct pv_guest_command_params command = {
        .argv = params->command,
        .share = params->vm.share != NULL,
        .stdin_port = m->channels[CHANNEL_STDIN].ours,
        .stdout_port = m->channels[CHANNEL_STDOUT].ours,
        .stderr_port = m->channels[CHANNEL_STDERR].ours,
        .stdin_fd = params->stdin_fd,
        .stdout_fd = params->stdout_fd,
        .stderr_fd = params->stderr_fd,
        .ended = on_command_ended,
        .broken = on_broken_output,
        .data = m,
    };
    int ret = pv_guest_command_create(&m->loop, m->agent, &command, &m->command);
    if (ret < 0) {
        pv_error("cannot start the command: %s", strerror(-ret));
        fail(m);
        return;
    }
    if (params->timeout_s)
        uv_timer_start(&m->command_timer, on_command_late, params->timeout_s * 1000ull, 0);
}

static void on_nothing(void *data, int64_t pid, const char *error)
{
}

/* The guest's console does not know how large our terminal is. */
static void pass_window_size(struct machine *m)
{
    static const char *const env[] = {"PATH=/usr/bin:/bin", NULL};
    struct winsize size;
    struct pv_argv argv = {0};
    if (ioctl(m->params->stdout_fd, TIOCGWINSZ, &size) < 0 || size.ws_row == 0)
        return;
    pv_argv_option(&argv, "/bin/sh", "-c");
    pv_argv_addf(&argv, "stty -F /dev/%s rows %u cols %u",
                 m->params->vm.arch == PV_ARCH_AARCH64 ? "ttyAMA0" : "ttyS0", size.ws_row,
                 size.ws_col);
    if (!argv.failed)
        pv_agent_exec(m->agent, argv.items, env, on_nothing, NULL);
    pv_argv_finish(&argv);
}

static void on_console(void *data, enum pv_pump_event event)
{
    struct machine *m = data;
    if (event == PV_PUMP_BROKEN)
        end(m, 128 + SIGPIPE);
}

static void on_console_input(void *data, enum pv_pump_event event)
{
    struct machine *m = data;
    if (event == PV_PUMP_END && m->terminal)
        on_interrupt(m, SIGHUP); /* the terminal has gone */
    if (event != PV_PUMP_ESCAPE)
        return;
    if (m->phase >= PHASE_SHUTDOWN) {
        set_status(m, 0);
        quit_now(m);
        return;
    }
    if (!m->params->vm.snapshot)
        say(m, "shutting the guest down; Ctrl-] again switches it off");
    end(m, 0);
}

static void start_console_input(struct machine *m)
{
    struct pv_pump_params input = {.from = m->params->stdin_fd,
                                   .to = m->channels[CHANNEL_CONSOLE].ours,
                                   .escape = m->terminal ? ESCAPE : 0,
                                   .event = on_console_input,
                                   .data = m};
    if (m->console_in || m->params->stdin_fd < 0)
        return;
    int ret = pv_pump_create(&m->loop, &input, &m->console_in);
    if (ret < 0)
        pv_error("cannot read your input: %s", strerror(-ret));
}

static void on_input_time(uv_timer_t *timer)
{
    start_console_input(timer->data);
}

static void on_agent_ready(void *data)
{
    struct machine *m = data;
    bool first = !m->agent_was_ready;
    m->agent_was_ready = true;
    if (m->phase == PHASE_BOOTING) {
        m->phase = PHASE_RUNNING;
        uv_timer_stop(&m->phase_timer);
        if (m->params->command)
            start_command(m);
    }
    if (first && !m->params->command) {
        pass_window_size(m);
        uv_timer_start(&m->input_timer, on_input_time, PIPED_INPUT_DELAY_MS, 0);
    }
}

static void on_agent_lost(void *data, const char *why)
{
    pv_debug("guest agent: %s", why);
}

static const struct pv_agent_events agent_events = {.ready = on_agent_ready, .lost = on_agent_lost};

/* What a guest that does not come up said last. */
static void show_console_tail(struct machine *m)
{
    char tail[CONSOLE_TAIL + 1];
    if (!m->console_out || !m->params->command || pv_pump_tail(m->console_out, tail) == 0)
        return;
    fprintf(stderr, "the guest's console ends with:\n");
    for (const char *c = tail; *c; c++) {
        if (*c == '\n' || *c == '\t' || (*c >= ' ' && *c < 0x7f))
            fputc(*c, stderr);
    }
    fputc('\n', stderr);
}

static void on_boot_late(uv_timer_t *timer)
{
    struct machine *m = timer->data;
    if (m->params->command) {
        pv_error("%s has not booted after %llu s: its guest agent does not answer", m->params->name,
                 (unsigned long long)(uv_timer_get_repeat(timer) / 1000));
        show_console_tail(m);
        fail(m);
    } else {
        uv_timer_stop(timer); /* the user sees for himself */
    }
}

/* ---- the start ---- */

static int make_channel(struct channel *channel)
{
    int fds[2];
    int ret = pv_socketpair(fds);
    if (ret < 0)
        return ret;
    channel->ours = fds[0];
    channel->theirs = fds[1];
    return 0;
}

static int make_channels(struct machine *m)
{
    for (size_t i = 0; i < CHANNEL_COUNT; i++)
        m->channels[i].ours = m->channels[i].theirs = -1;
    for (size_t i = 0; i < CHANNEL_COUNT; i++) {
        bool for_gpu = i == CHANNEL_GPU || i == CHANNEL_CONTROL;
        int ret = for_gpu && !m->params->gpu ? 0 : make_channel(&m->channels[i]);
        if (ret < 0)
            return ret;
    }
    if (!m->params->displays || m->params->displays->count == 0)
        return 0;
    const struct pv_views_params views = {
        .loop = &m->loop,
        .kinds = m->params->displays,
        .options = m->params->display_options,
        .line = on_view_line,
        .ended = on_view_ended,
        .data = m,
    };
    return pv_views_create(&views, &m->views);
}

static void close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

static void show_command_line(const struct pv_argv *argv)
{
    char *line = pv_argv_quote(argv);
    if (line)
        fprintf(stderr, "%s\n", line);
    free(line);
}

static int start_device(struct machine *m)
{
    struct channel *gpu = &m->channels[CHANNEL_GPU], *control = &m->channels[CHANNEL_CONTROL];
    struct pv_argv argv = {0};
    int fds[2 + PV_VIEWS_MAX] = {gpu->ours, control->theirs};
    size_t fd_count = 2;
    char self[1024];
    int ret = pv_executable_path(self, sizeof(self));
    if (ret < 0)
        return ret;
    pv_argv_add(&argv, self);
    pv_argv_add(&argv, "gpu");
    pv_argv_option(&argv, "--fd", "%d", gpu->ours);
    pv_argv_option(&argv, "--control-fd", "%d", control->theirs);
    for (size_t i = 0; i < pv_views_count(m->views); i++) {
        fds[fd_count++] = pv_views_device_fd(m->views, i);
        pv_argv_option(&argv, "--view-fd", "%d", pv_views_device_fd(m->views, i));
    }
    for (size_t i = 0; m->params->gpu_options && m->params->gpu_options[i]; i++)
        pv_argv_add(&argv, m->params->gpu_options[i]);
    if (m->params->verbose)
        show_command_line(&argv);
    struct pv_process_params process = {
        .argv = argv.items, .fds = fds, .fd_count = fd_count, .may_say_goodbye = true};
    pid_t pid = argv.failed ? -ENOMEM : pv_process_start(&process);
    pv_argv_finish(&argv);
    close_fd(&gpu->ours);
    close_fd(&control->theirs);
    pv_views_close_device_fds(m->views);
    if (pid < 0)
        return pid;
    m->device_pid = pid;
    return 0;
}

static void set_vm_fds(struct machine *m, struct pv_vm_config *vm)
{
    vm->qmp_fd = m->channels[CHANNEL_QMP].theirs;
    vm->console_fd = m->channels[CHANNEL_CONSOLE].theirs;
    vm->agent_fd = m->channels[CHANNEL_AGENT].theirs;
    vm->stdin_fd = m->channels[CHANNEL_STDIN].theirs;
    vm->stdout_fd = m->channels[CHANNEL_STDOUT].theirs;
    vm->stderr_fd = m->channels[CHANNEL_STDERR].theirs;
    vm->gpu_fd = m->channels[CHANNEL_GPU].theirs;
    vm->input = pv_views_count(m->views) > 0;
}

static int start_qemu(struct machine *m)
{
    struct pv_vm_config vm = m->params->vm;
    struct pv_argv argv = {0};
    int errors[2], fds[CHANNEL_COUNT];
    size_t fd_count = 0;
    set_vm_fds(m, &vm);
    for (size_t i = 0; i < CHANNEL_CONTROL; i++) {
        if (m->channels[i].theirs >= 0)
            fds[fd_count++] = m->channels[i].theirs;
    }
    pv_qemu_arguments(m->params->qemu, &vm, &argv);
    if (m->params->verbose)
        show_command_line(&argv);
    int ret = pv_pipe(errors, true);
    if (ret < 0) {
        pv_argv_finish(&argv);
        return ret;
    }
    struct pv_process_params process = {.argv = argv.items,
                                        .environment = m->params->qemu->environment,
                                        .fds = fds,
                                        .fd_count = fd_count,
                                        .stdout_fd = errors[1],
                                        .stderr_fd = errors[1]};
    pid_t pid = argv.failed ? -ENOMEM : pv_process_start(&process);
    pv_argv_finish(&argv);
    close(errors[1]);
    for (size_t i = 0; i < CHANNEL_CONTROL; i++)
        close_fd(&m->channels[i].theirs);
    if (pid < 0) {
        close(errors[0]);
        return pid;
    }
    m->qemu_pid = pid;
    return pv_lines_create(&m->loop, errors[0], on_error_line, m, &m->errors);
}

static int start_console(struct machine *m)
{
    const struct pv_machine_params *params = m->params;
    bool shown = !params->command || params->verbose;
    struct pv_pump_params output = {.from = m->channels[CHANNEL_CONSOLE].ours,
                                    .to = !shown            ? -1
                                          : params->command ? params->stderr_fd
                                                            : params->stdout_fd,
                                    .tail_size = CONSOLE_TAIL,
                                    .event = on_console,
                                    .data = m};
    if (!params->command && params->stdin_fd >= 0 && isatty(params->stdin_fd)) {
        fprintf(stderr, "pearvisor: this is %s's console; Ctrl-] ends it\n", params->name);
        int ret = pv_terminal_raw(params->stdin_fd, &m->terminal);
        if (ret < 0)
            return ret;
    }
    int ret = pv_pump_create(&m->loop, &output, &m->console_out);
    if (ret == 0 && m->terminal)
        start_console_input(m);
    return ret;
}

static int start_control(struct machine *m)
{
    int ret = pv_qmp_create(&m->loop, m->channels[CHANNEL_QMP].ours, &qmp_events, m, &m->qmp);
    if (ret < 0)
        return ret;
    m->channels[CHANNEL_QMP].ours = -1;
    ret = pv_agent_create(&m->loop, m->channels[CHANNEL_AGENT].ours, &agent_events, m, &m->agent);
    if (ret < 0)
        return ret;
    m->channels[CHANNEL_AGENT].ours = -1;
    if (!m->params->gpu)
        return 0;
    ret = pv_gpu_client_create(&m->loop, m->channels[CHANNEL_CONTROL].ours, &m->gpu);
    if (ret < 0)
        return ret;
    m->channels[CHANNEL_CONTROL].ours = -1;
    return 0;
}

static void start_timers(struct machine *m)
{
    unsigned int boot_s = m->params->boot_timeout_s;
    bool translated = m->params->vm.accel == PV_ACCEL_TCG;
    if (!boot_s)
        boot_s = translated ? BOOT_TIMEOUT_TRANSLATED_S : BOOT_TIMEOUT_S;
    /* the repeat is only where the message finds the time */
    uv_timer_start(&m->phase_timer, on_boot_late, boot_s * 1000ull, boot_s * 1000ull);
    if (m->params->status_line && m->gpu)
        uv_timer_start(&m->status_timer, on_status_time, STATUS_PERIOD_MS, STATUS_PERIOD_MS);
}

static void init_handles(struct machine *m)
{
    uv_timer_t *const timers[] = {&m->phase_timer, &m->command_timer, &m->input_timer,
                                  &m->status_timer};
    for (size_t i = 0; i < sizeof(timers) / sizeof(timers[0]); i++) {
        uv_timer_init(&m->loop, timers[i]);
        timers[i]->data = m;
    }
    for (size_t i = 0; i < 4; i++) {
        uv_signal_init(&m->loop, &m->signals[i]);
        m->signals[i].data = m;
        uv_signal_start(&m->signals[i], on_signal, signal_numbers[i]);
    }
}

/* In the order of who waits for whom; processes before threads. */
static int start(struct machine *m)
{
    const char *what = "make sockets";
    int ret = make_channels(m);
    if (ret == 0 && m->params->gpu) {
        what = "start the GPU device";
        ret = start_device(m);
    }
    if (ret == 0) {
        what = "start QEMU";
        ret = start_qemu(m);
    }
    if (ret == 0) {
        what = "talk to QEMU";
        ret = start_control(m);
    }
    if (ret == 0) {
        what = "start the displays";
        ret = pv_views_start(m->views, m->qmp, m->params->verbose ? show_command_line : NULL);
    }
    if (ret == 0) {
        what = "open the guest's console";
        ret = start_console(m);
    }
    if (ret < 0)
        pv_error("cannot %s: %s", what, strerror(-ret));
    return ret;
}

int pv_machine_run(const struct pv_machine_params *params)
{
    struct machine m = {.params = params};
    struct sigaction ignore = {.sa_handler = SIG_IGN}, old_pipe;
    int ret = uv_loop_init(&m.loop);
    if (ret < 0) {
        pv_error("cannot make an event loop: %s", uv_strerror(ret));
        return 1;
    }
    sigaction(SIGPIPE, &ignore, &old_pipe);
    init_handles(&m);
    ret = start(&m);
    if (ret < 0) {
        set_status(&m, 1);
        kill_now(&m);
        if (m.qemu_pid == 0 && m.device_pid == 0)
            finish(&m);
    } else {
        start_timers(&m);
    }
    uv_run(&m.loop, UV_RUN_DEFAULT);
    uv_loop_close(&m.loop);
    for (size_t i = 0; i < CHANNEL_COUNT; i++) {
        close_fd(&m.channels[i].ours);
        close_fd(&m.channels[i].theirs);
    }
    sigaction(SIGPIPE, &old_pipe, NULL);
    return m.status;
}
