#include "vm/terminal.h"

#include "util/os.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

struct pv_terminal {
    int fd;
    struct termios before, raw;
    pid_t guard;
    int guard_fd; /* a byte: all is well; its end: we are no more */
};

/* Nobody else has changed the mode since: a shell that took the terminal back keeps it. */
static void restore_if_ours(const struct pv_terminal *terminal)
{
    struct termios now;
    if (tcgetattr(terminal->fd, &now) == 0 && now.c_lflag == terminal->raw.c_lflag &&
        now.c_iflag == terminal->raw.c_iflag && now.c_oflag == terminal->raw.c_oflag)
        tcsetattr(terminal->fd, TCSANOW, &terminal->before);
}

static void guard_main(const struct pv_terminal *terminal, int pipe_fd)
{
    char byte;
    ssize_t n;
    const int keep[] = {terminal->fd, pipe_fd};
    setsid(); /* no signals of the terminal */
    signal(SIGTTOU, SIG_IGN);
    pv_close_fds_except(keep, 2);
    do {
        n = read(pipe_fd, &byte, 1);
    } while (n < 0 && errno == EINTR);
    if (n <= 0)
        restore_if_ours(terminal);
    _exit(0);
}

static int start_guard(struct pv_terminal *terminal)
{
    int pipe_fds[2];
    int ret = pv_pipe(pipe_fds, true);
    if (ret < 0)
        return ret;
    terminal->guard = fork();
    if (terminal->guard == 0) {
        close(pipe_fds[1]);
        guard_main(terminal, pipe_fds[0]);
    }
    ret = terminal->guard < 0 ? -errno : 0;
    close(pipe_fds[0]);
    terminal->guard_fd = pipe_fds[1];
    if (ret < 0)
        close(pipe_fds[1]);
    return ret;
}

int pv_terminal_raw(int fd, struct pv_terminal **out)
{
    struct pv_terminal *terminal = calloc(1, sizeof(*terminal));
    if (!terminal)
        return -ENOMEM;
    terminal->fd = fd;
    if (tcgetattr(fd, &terminal->before) < 0) {
        free(terminal);
        return -ENOTTY;
    }
    terminal->raw = terminal->before;
    cfmakeraw(&terminal->raw);
    int ret = start_guard(terminal);
    if (ret == 0 && tcsetattr(fd, TCSAFLUSH, &terminal->raw) == 0) {
        *out = terminal;
        return 0;
    }
    ret = ret < 0 ? ret : -errno;
    if (terminal->guard > 0)
        pv_terminal_restore(terminal);
    else
        free(terminal);
    return ret;
}

void pv_terminal_restore(struct pv_terminal *terminal)
{
    if (!terminal)
        return;
    tcsetattr(terminal->fd, TCSADRAIN, &terminal->before);
    ssize_t written = write(terminal->guard_fd, "", 1);
    (void)written;
    close(terminal->guard_fd);
    waitpid(terminal->guard, NULL, 0);
    free(terminal);
}
