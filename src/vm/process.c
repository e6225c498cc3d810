#include "vm/process.h"

#include "util/os.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* Of programs whose output we read: a version, or the checksum of a big file. */
#define OUTPUT_LIMIT_NS (120ull * 1000000000u)

extern char **environ;

int pv_process_exit_status(int wait_status)
{
    if (WIFSIGNALED(wait_status))
        return 128 + WTERMSIG(wait_status);
    return WEXITSTATUS(wait_status);
}

/* Our environment with `extra` in place of, or added to, what is there. Freed by the caller; the
 * strings are borrowed. */
static char **make_environment(const char *extra)
{
    size_t count = 0, kept = 0;
    size_t name_size = extra ? strcspn(extra, "=") + 1 : 0;
    while (environ[count])
        count++;
    char **result = calloc(count + 2, sizeof(*result));
    if (!result)
        return NULL;
    for (size_t i = 0; i < count; i++) {
        if (!extra || strncmp(environ[i], extra, name_size) != 0)
            result[kept++] = environ[i];
    }
    if (extra)
        result[kept] = strdup(extra);
    return result;
}

static void free_environment(char **list, const char *extra)
{
    for (size_t i = 0; extra && list[i]; i++) {
        if (!list[i + 1])
            free(list[i]);
    }
    free(list);
}

static void reset_signals(void)
{
    sigset_t none;
    for (int i = 1; i < NSIG; i++)
        signal(i, SIG_DFL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

static void die_with(pid_t parent)
{
    pv_die_with_parent(); /* SIGTERM */
    if (getppid() != parent)
        _exit(127);
}

/* In the child, between fork and exec. */
static void set_up_child(const struct pv_process_params *params, pid_t parent)
{
    if (params->may_say_goodbye)
        die_with(parent);
    else
        pv_killed_with_parent(parent);
    setsid();
    int null_fd = open("/dev/null", O_RDONLY);
    if (null_fd >= 0 && null_fd != STDIN_FILENO) {
        dup2(null_fd, STDIN_FILENO);
        close(null_fd);
    }
    if (params->stdout_fd > 0)
        dup2(params->stdout_fd, STDOUT_FILENO);
    if (params->stderr_fd > 0)
        dup2(params->stderr_fd, STDERR_FILENO);
    for (size_t i = 0; i < params->fd_count; i++) {
        int flags = fcntl(params->fds[i], F_GETFD);
        fcntl(params->fds[i], F_SETFD, flags & ~FD_CLOEXEC);
    }
}

/* The number that the child wrote when exec failed; 0 when the pipe just closed. */
static int read_exec_error(int fd)
{
    int error = 0;
    ssize_t n;
    do {
        n = read(fd, &error, sizeof(error));
    } while (n < 0 && errno == EINTR);
    return n == (ssize_t)sizeof(error) ? error : 0;
}

/* The child makes nothing but system calls. */
static pid_t fork_and_exec(const struct pv_process_params *params, char **env, int error_fd)
{
    pid_t parent = getpid();
    pid_t pid = fork();
    if (pid != 0)
        return pid < 0 ? -errno : pid;

    set_up_child(params, parent);
    reset_signals();
    environ = env;
    execvp(params->argv[0], params->argv);
    int error = errno;
    ssize_t written = write(error_fd, &error, sizeof(error));
    (void)written;
    _exit(127);
}

pid_t pv_process_start(const struct pv_process_params *params)
{
    int pipe_fds[2];
    char **env = make_environment(params->environment);
    if (!env)
        return -ENOMEM;
    int ret = pv_pipe(pipe_fds, true);
    if (ret < 0) {
        free_environment(env, params->environment);
        return ret;
    }
    pid_t pid = fork_and_exec(params, env, pipe_fds[1]);
    close(pipe_fds[1]);
    free_environment(env, params->environment);
    int error = pid > 0 ? read_exec_error(pipe_fds[0]) : 0;
    close(pipe_fds[0]);
    if (error) {
        waitpid(pid, NULL, 0);
        return -error;
    }
    return pid;
}

static int wait_for(pid_t pid)
{
    int status;
    while (waitpid(pid, &status, 0) < 0) {
        if (errno != EINTR)
            return -errno;
    }
    return pv_process_exit_status(status);
}

/* Read until the end, or until the time is over. Returns 0 or -ETIMEDOUT. */
static int read_all(int fd, char *out, size_t size)
{
    uint64_t until = pv_now_ns() + OUTPUT_LIMIT_NS;
    size_t used = 0;
    char overflow[256];
    for (;;) {
        uint64_t now = pv_now_ns();
        struct pollfd poll_fd = {.fd = fd, .events = POLLIN};
        if (now >= until)
            return -ETIMEDOUT;
        if (poll(&poll_fd, 1, (int)((until - now) / 1000000u) + 1) <= 0)
            continue;
        bool full = used + 1 >= size;
        ssize_t n =
            read(fd, full ? overflow : out + used, full ? sizeof(overflow) : size - 1 - used);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return 0;
        if (!full)
            used += (size_t)n;
        out[used] = '\0';
    }
}

int pv_process_output(char *const *argv, const char *environment, char *out, size_t size)
{
    int pipe_fds[2];
    out[0] = '\0';
    int ret = pv_pipe(pipe_fds, true);
    if (ret < 0)
        return ret;
    int null_fd = open("/dev/null", O_WRONLY | O_CLOEXEC);
    struct pv_process_params params = {
        .argv = argv, .environment = environment, .stdout_fd = pipe_fds[1], .stderr_fd = null_fd};
    pid_t pid = pv_process_start(&params);
    close(pipe_fds[1]);
    if (null_fd >= 0)
        close(null_fd);
    ret = pid < 0 ? pid : read_all(pipe_fds[0], out, size);
    close(pipe_fds[0]);
    if (pid < 0)
        return ret;
    if (ret < 0) {
        kill(pid, SIGKILL);
        wait_for(pid);
        return ret;
    }
    return wait_for(pid);
}

int pv_process_foreground(char *const *argv, int stdout_fd)
{
    struct sigaction ignore = {.sa_handler = SIG_IGN}, old_int, old_quit;
    sigaction(SIGINT, &ignore, &old_int);
    sigaction(SIGQUIT, &ignore, &old_quit);
    pid_t parent = getpid();
    pid_t pid = fork();
    if (pid == 0) {
        die_with(parent); /* it may have something to clean up */
        reset_signals();
        if (stdout_fd != STDOUT_FILENO)
            dup2(stdout_fd, STDOUT_FILENO);
        execvp(argv[0], argv);
        _exit(127);
    }
    int ret = pid < 0 ? -errno : wait_for(pid);
    sigaction(SIGINT, &old_int, NULL);
    sigaction(SIGQUIT, &old_quit, NULL);
    return ret;
}
