#include "unit.h"

#include "vm/terminal.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

/* A terminal of our own; *out_other keeps it alive. */
static int open_terminal(int *out_other)
{
    int other = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    assert_true(other >= 0);
    assert_int_equal(grantpt(other), 0);
    assert_int_equal(unlockpt(other), 0);
    int fd = open(ptsname(other), O_RDWR | O_NOCTTY | O_CLOEXEC);
    assert_true(fd >= 0);
    *out_other = other;
    return fd;
}

static bool is_raw(int fd)
{
    struct termios now;
    assert_int_equal(tcgetattr(fd, &now), 0);
    return !(now.c_lflag & ICANON);
}

static void test_restore(void **state)
{
    struct pv_terminal *terminal;
    int other, fd = open_terminal(&other), pipe_fds[2];
    assert_int_equal(pv_terminal_raw(fd, &terminal), 0);
    assert_true(is_raw(fd));
    pv_terminal_restore(terminal);
    assert_false(is_raw(fd));
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1); /* the guard has ended */
    pv_terminal_restore(NULL);

    assert_int_equal(pipe(pipe_fds), 0);
    assert_int_equal(pv_terminal_raw(pipe_fds[0], &terminal), -ENOTTY);
    close(pipe_fds[0]);
    close(pipe_fds[1]);
    close(fd);
    close(other);
}

static void test_killed(void **state)
{
    int other, fd = open_terminal(&other), ready[2];
    char byte;
    assert_int_equal(pipe2(ready, O_CLOEXEC), 0);
    pid_t pid = fork();
    if (pid == 0) {
        struct pv_terminal *terminal;
        if (pv_terminal_raw(fd, &terminal) == 0 && write(ready[1], "r", 1) == 1)
            pause();
        _exit(1);
    }
    assert_int_equal(read(ready[0], &byte, 1), 1);
    assert_true(is_raw(fd));
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    for (int i = 0; i < 500 && is_raw(fd); i++)
        usleep(10000);
    assert_false(is_raw(fd));
    close(ready[0]);
    close(ready[1]);
    close(fd);
    close(other);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_restore),
        cmocka_unit_test(test_killed),
    };
    return cmocka_run_group_tests_name("vm_terminal", tests, NULL, NULL);
}
