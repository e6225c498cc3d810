#include "cli/host_probe.h"

#include "util/os.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* Loading a driver takes well under a second; a cold disk or a sleeping GPU may need more. */
#define PROBE_TIMEOUT_NS (60 * UINT64_C(1000000000))

#define WHAT_TO_DO                                                                                \
    "set VK_DRIVER_FILES to leave that driver out, or run vulkaninfo to see whether it works at " \
    "all"

/* What goes through the pipe: plain data, both ends are the same binary. */
struct answer {
    int result;
    char error[512];
    struct pv_host_caps caps;
};

static void write_all(int fd, const void *data, size_t size)
{
    const char *bytes = data;
    while (size > 0) {
        ssize_t written = write(fd, bytes, size);
        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0)
            return;
        bytes += written;
        size -= (size_t)written;
    }
}

__attribute__((noreturn)) static void probe_main(const struct pv_host_options *options, int fd)
{
    pv_die_with_parent();
    struct answer *answer = calloc(1, sizeof(*answer));
    if (answer) {
        answer->result =
            pv_host_probe(options, &answer->caps, answer->error, sizeof(answer->error));
        write_all(fd, answer, sizeof(*answer));
        free(answer);
    }
    _exit(0); /* not exit(): buffers and exit handlers are the parent's */
}

/* Read until the end of the pipe. Returns the number of bytes, or -ETIMEDOUT. */
static ssize_t read_answer(int fd, struct answer *answer)
{
    uint64_t deadline = pv_now_ns() + PROBE_TIMEOUT_NS;
    size_t size = 0;
    while (size < sizeof(*answer)) {
        uint64_t now = pv_now_ns();
        struct pollfd poll_fd = {.fd = fd, .events = POLLIN};
        if (now >= deadline)
            return -ETIMEDOUT;
        if (poll(&poll_fd, 1, (int)((deadline - now) / 1000000) + 1) <= 0)
            continue;
        ssize_t got = read(fd, (char *)answer + size, sizeof(*answer) - size);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            break;
        size += (size_t)got;
    }
    return (ssize_t)size;
}

/* Reap the child and say in one line what happened if its answer did not come whole. */
static int finish(pid_t pid, ssize_t size, const struct answer *answer, char *error,
                  size_t error_size)
{
    int status = 0;
    if (size < 0)
        kill(pid, SIGKILL);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        continue;

    if (size < 0) {
        snprintf(error, error_size, "the Vulkan driver does not answer; " WHAT_TO_DO);
        return (int)size;
    }
    if ((size_t)size < sizeof(*answer)) {
        if (WIFSIGNALED(status))
            snprintf(
                error, error_size,
                "the Vulkan driver crashed with signal %d (%s) when it was looked at; " WHAT_TO_DO,
                WTERMSIG(status), strsignal(WTERMSIG(status)));
        else
            snprintf(error, error_size,
                     "the Vulkan driver ended the process that looked at it, with status "
                     "%d; " WHAT_TO_DO,
                     WEXITSTATUS(status));
        return -EFAULT;
    }
    if (answer->result < 0)
        snprintf(error, error_size, "%.*s", (int)sizeof(answer->error), answer->error);
    return answer->result;
}

int pv_host_probe_in_child(const struct pv_host_options *options, struct pv_host_caps *out,
                           char *error, size_t error_size)
{
    int fds[2];
    struct answer *answer = calloc(1, sizeof(*answer));
    int ret = answer ? pv_pipe(fds, true) : -ENOMEM;
    if (ret < 0) {
        snprintf(error, error_size, "cannot start the probe: %s", strerror(-ret));
        free(answer);
        return ret;
    }

    fflush(NULL); /* or the child has what we have not written yet */
    pid_t pid = fork();
    int fork_error = errno;
    if (pid == 0) {
        close(fds[0]);
        probe_main(options, fds[1]);
    }
    close(fds[1]);

    if (pid < 0) {
        ret = -fork_error;
        snprintf(error, error_size, "cannot start the probe: %s", strerror(fork_error));
    } else {
        ret = finish(pid, read_answer(fds[0], answer), answer, error, error_size);
    }
    close(fds[0]);
    if (ret == 0)
        *out = answer->caps;
    free(answer);
    return ret;
}
