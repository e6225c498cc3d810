#include "vm/guest_command.h"

#include "util/os.h"
#include "vm/argv.h"
#include "vm/pump.h"
#include "vm/qemu.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <uv.h>

/* How often the agent is asked how the command does. Its end shows earlier, by the marks. */
#define POLL_MS 1000u
/* After the command's end its output should be there; a program that it left behind and that has
 * closed nothing does not count. */
#define DRAIN_MS 5000u

struct pv_guest_command {
    struct pv_guest_command_params params;
    struct pv_agent *agent;
    struct pv_pump *in, *out, *err;
    uv_timer_t timer;
    char mark[PV_PUMP_MARK_MAX];
    int64_t pid;
    int status;
    uint64_t exit_time; /* of the loop, ms */
    bool asked, exited, out_done, err_done, closing, said;
    bool interrupted; /* before its pid was known */
};

/* $1 the mark, $2 "share" or nothing, the rest the command. The shell lives on when the command is
 * interrupted, to write the marks; a command gets the default for a signal that a shell has
 * trapped. A guest of ours says where its desktop is, if it has one. */
static const char script[] =
    "trap : INT TERM\n"
    "mark=$1 share=$2\n"
    "shift 2\n"
    "p=/dev/virtio-ports\n"
    "exec 3>$p/" PV_PORT_STDOUT " 4>$p/" PV_PORT_STDERR " 5<$p/" PV_PORT_STDIN " || exit 125\n"
    "mkdir -p -m 700 \"$XDG_RUNTIME_DIR\"\n"
    "if [ -n \"$share\" ] && ! grep -q ' /mnt/share ' /proc/mounts; then\n"
    "  mkdir -p /mnt/share\n"
    "  mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000 " PV_SHARE_TAG " /mnt/share 2>&4\n"
    "fi\n"
    "[ ! -r /etc/profile.d/desktop.sh ] || . /etc/profile.d/desktop.sh\n"
    "cd \"$HOME\"\n"
    "\"$@\" <&5 >&3 2>&4 3>&- 4>&- 5<&-\n"
    "code=$?\n"
    "printf %s \"$mark\" >&3\n"
    "printf %s \"$mark\" >&4\n"
    "exit $code\n";

static const char *const environment[] = {
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME=/root",
    "USER=root",
    "LOGNAME=root",
    "SHELL=/bin/bash",
    "TERM=dumb", /* its output is no terminal */
    "LANG=C.UTF-8",
    "XDG_RUNTIME_DIR=/run/user/0",
    NULL,
};

static void say_end(struct pv_guest_command *command, int status, const char *error)
{
    if (command->said || command->closing)
        return;
    command->said = true;
    uv_timer_stop(&command->timer);
    command->params.ended(command->params.data, status, error);
}

static void check_end(struct pv_guest_command *command)
{
    if (!command->exited)
        return;
    bool complete = command->out_done && command->err_done;
    bool late = uv_now(command->timer.loop) - command->exit_time > DRAIN_MS;
    if (complete)
        say_end(command, command->status, NULL);
    else if (late && command->status == 125)
        say_end(command, 0,
                "the guest has no ports for a command's input and output (is it Linux "
                "with udev?)");
    else if (late)
        say_end(command, command->status, NULL);
}

static void on_status(void *data, const struct pv_agent_status *status, const char *error)
{
    struct pv_guest_command *command = data;
    if (command->closing)
        return;
    command->asked = false;
    if (error) {
        say_end(command, 0, error);
        return;
    }
    if (status->exited && !command->exited) {
        command->exited = true;
        command->status = status->exit_code;
        command->exit_time = uv_now(command->timer.loop);
    }
    check_end(command);
}

static void ask(struct pv_guest_command *command)
{
    if (command->asked || command->exited || command->pid <= 0)
        return;
    command->asked = pv_agent_exec_status(command->agent, command->pid, on_status, command) == 0;
}

static void on_timer(uv_timer_t *timer)
{
    struct pv_guest_command *command = timer->data;
    ask(command);
    /* the mark was there before the shell's exit: ask again soon */
    bool soon = command->out_done && command->err_done && !command->exited;
    uv_timer_set_repeat(timer, soon ? 20 : POLL_MS);
    uv_timer_again(timer);
    check_end(command);
}

static void on_input(void *data, enum pv_pump_event event)
{
}

static void on_output(void *data, enum pv_pump_event event, bool *done)
{
    struct pv_guest_command *command = data;
    if (event == PV_PUMP_BROKEN && !command->said)
        command->params.broken(command->params.data);
    if (event != PV_PUMP_END)
        return;
    *done = true;
    on_timer(&command->timer);
}

static void on_stdout(void *data, enum pv_pump_event event)
{
    on_output(data, event, &((struct pv_guest_command *)data)->out_done);
}

static void on_stderr(void *data, enum pv_pump_event event)
{
    on_output(data, event, &((struct pv_guest_command *)data)->err_done);
}

static int start_pumps(struct pv_guest_command *command, uv_loop_t *loop)
{
    const struct pv_guest_command_params *params = &command->params;
    struct pv_pump_params out = {.from = params->stdout_port,
                                 .to = params->stdout_fd,
                                 .mark = command->mark,
                                 .event = on_stdout,
                                 .data = command};
    struct pv_pump_params err = {.from = params->stderr_port,
                                 .to = params->stderr_fd,
                                 .mark = command->mark,
                                 .event = on_stderr,
                                 .data = command};
    struct pv_pump_params in = {.from = params->stdin_fd,
                                .to = params->stdin_port,
                                .close_at_end = true,
                                .event = on_input,
                                .data = command};
    int ret = pv_pump_create(loop, &out, &command->out);
    if (ret == 0)
        ret = pv_pump_create(loop, &err, &command->err);
    if (ret == 0 && params->stdin_fd >= 0)
        ret = pv_pump_create(loop, &in, &command->in);
    else if (ret == 0)
        shutdown(params->stdin_port, SHUT_WR);
    return ret;
}

static void on_started(void *data, int64_t pid, const char *error)
{
    struct pv_guest_command *command = data;
    char text[256];
    if (command->closing)
        return;
    if (error) {
        snprintf(text, sizeof(text), "the guest agent cannot start a command: %.180s", error);
        say_end(command, 0, text);
        return;
    }
    command->pid = pid;
    uv_timer_start(&command->timer, on_timer, POLL_MS, POLL_MS);
    if (command->interrupted)
        pv_guest_command_interrupt(command);
}

/* setsid makes it a process group of its own, which can be interrupted as one; it keeps the pid. */
static int start_in_guest(struct pv_guest_command *command)
{
    struct pv_argv argv = {0};
    pv_argv_add(&argv, "/usr/bin/setsid");
    pv_argv_option(&argv, "/bin/sh", "-c");
    pv_argv_add(&argv, script);
    pv_argv_option(&argv, "sh", "%s", command->mark);
    pv_argv_add(&argv, command->params.share ? "share" : "");
    for (size_t i = 0; command->params.argv[i]; i++)
        pv_argv_add(&argv, command->params.argv[i]);
    int ret = argv.failed
                  ? -ENOMEM
                  : pv_agent_exec(command->agent, argv.items, environment, on_started, command);
    pv_argv_finish(&argv);
    return ret;
}

/* A byte that text hardly has, and hexadecimal digits, which do not begin the mark again. */
static int make_mark(char *mark, size_t size)
{
    uint64_t random[2];
    int ret = pv_random(random, sizeof(random));
    if (ret < 0)
        return ret;
    snprintf(mark, size, "\x1epearvisor-%016llx%016llx", (unsigned long long)random[0],
             (unsigned long long)random[1]);
    return 0;
}

int pv_guest_command_create(uv_loop_t *loop, struct pv_agent *agent,
                            const struct pv_guest_command_params *params,
                            struct pv_guest_command **out)
{
    struct pv_guest_command *command = calloc(1, sizeof(*command));
    if (!command)
        return -ENOMEM;
    command->params = *params;
    command->agent = agent;
    command->timer.data = command;
    int ret = make_mark(command->mark, sizeof(command->mark));
    if (ret == 0)
        ret = uv_timer_init(loop, &command->timer);
    if (ret < 0) {
        free(command);
        return ret;
    }
    ret = start_pumps(command, loop);
    if (ret == 0)
        ret = start_in_guest(command);
    if (ret < 0) {
        pv_guest_command_destroy(command);
        return ret;
    }
    *out = command;
    return 0;
}

static void on_closed(uv_handle_t *handle)
{
    free(handle->data);
}

void pv_guest_command_destroy(struct pv_guest_command *command)
{
    if (!command || command->closing)
        return;
    command->closing = true;
    pv_pump_destroy(command->in);
    pv_pump_destroy(command->out);
    pv_pump_destroy(command->err);
    uv_close((uv_handle_t *)&command->timer, on_closed);
}

static void on_killed(void *data, int64_t pid, const char *error)
{
}

void pv_guest_command_interrupt(struct pv_guest_command *command)
{
    struct pv_argv argv = {0};
    command->interrupted = true;
    if (command->pid <= 0)
        return;
    pv_argv_option(&argv, "/bin/sh", "-c");
    pv_argv_addf(&argv, "kill -s INT -- -%lld", (long long)command->pid);
    if (!argv.failed)
        pv_agent_exec(command->agent, argv.items, environment, on_killed, NULL);
    pv_argv_finish(&argv);
}
