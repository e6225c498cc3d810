#include "unit.h"

#include "vm/process.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static int run_shell(const char *script, const char *environment, char *out, size_t size)
{
    char sh[] = "/bin/sh", c[] = "-c", text[256];
    char *const argv[] = {sh, c, text, NULL};
    snprintf(text, sizeof(text), "%s", script);
    return pv_process_output(argv, environment, out, size);
}

static void test_output(void **state)
{
    char out[16];
    assert_int_equal(run_shell("echo hello; echo no >&2; exit 3", NULL, out, sizeof(out)), 3);
    assert_string_equal(out, "hello\n");
    /* more than there is room for is read, and dropped */
    assert_int_equal(run_shell("head -c 100000 /dev/zero | tr '\\0' x", NULL, out, sizeof(out)), 0);
    assert_string_equal(out, "xxxxxxxxxxxxxxx");
    assert_int_equal(run_shell("kill -9 $$", NULL, out, sizeof(out)), 137);
    assert_int_equal(run_shell("cat", NULL, out, sizeof(out)), 0); /* input is empty */
    assert_string_equal(out, "");
}

static void test_environment(void **state)
{
    char out[64];
    setenv("PV_TEST", "outside", 1);
    setenv("PV_TEST_MORE", "kept", 1);
    assert_int_equal(run_shell("echo $PV_TEST $PV_TEST_MORE", "PV_TEST=inside", out, sizeof(out)),
                     0);
    assert_string_equal(out, "inside kept\n");
    assert_int_equal(run_shell("echo $PV_TEST", NULL, out, sizeof(out)), 0);
    assert_string_equal(out, "outside\n");
}

static void test_missing(void **state)
{
    char name[] = "/nowhere/program", out[8];
    char *const argv[] = {name, NULL};
    assert_int_equal(pv_process_output(argv, NULL, out, sizeof(out)), -ENOENT);
    struct pv_process_params params = {.argv = argv};
    assert_int_equal(pv_process_start(&params), -ENOENT);
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1); /* nothing is left to wait for */
}

/* The child has the fds that it is given, and no others, in a session of its own. */
static void test_start(void **state)
{
    int given[2], kept[2], status;
    char script[160], sh[] = "/bin/sh", c[] = "-c";
    char *const argv[] = {sh, c, script, NULL};
    assert_int_equal(pipe2(given, O_CLOEXEC), 0);
    assert_int_equal(pipe2(kept, O_CLOEXEC), 0);
    snprintf(script, sizeof(script),
             "test -e /proc/self/fd/%d && test ! -e /proc/self/fd/%d && "
             "test \"$(ps -o sid= -p $$ | tr -d ' ')\" = $$",
             given[1], kept[1]);
    struct pv_process_params params = {.argv = argv, .fds = &given[1], .fd_count = 1};
    pid_t pid = pv_process_start(&params);
    assert_true(pid > 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(pv_process_exit_status(status), 0);
    for (int i = 0; i < 2; i++) {
        close(given[i]);
        close(kept[i]);
    }
}

static void test_killed_with_parent(void **state)
{
    int fds[2];
    char byte, sh[] = "/bin/sh", c[] = "-c", script[64];
    char *const argv[] = {sh, c, script, NULL};
    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    snprintf(script, sizeof(script), "trap '' TERM HUP; printf r >&%d; exec sleep 60", fds[1]);
    pid_t pid = fork();
    if (pid == 0) {
        struct pv_process_params params = {.argv = argv, .fds = &fds[1], .fd_count = 1};
        pv_process_start(&params);
        pause();
        _exit(0);
    }
    assert_int_equal(read(fds[0], &byte, 1), 1);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    close(fds[1]);
    /* the pipe closes when the program, which would not hear a SIGTERM, is gone */
    struct pollfd poll_fd = {.fd = fds[0], .events = POLLIN};
    assert_int_equal(poll(&poll_fd, 1, 5000), 1);
    assert_int_equal(read(fds[0], &byte, 1), 0);
    close(fds[0]);
}

static void test_foreground(void **state)
{
    char sh[] = "/bin/sh", c[] = "-c", script[] = "echo text; exit 5";
    char *const argv[] = {sh, c, script, NULL};
    int fds[2];
    char text[16];
    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    assert_int_equal(pv_process_foreground(argv, fds[1]), 5);
    assert_int_equal(read(fds[0], text, sizeof(text)), 5);
    close(fds[0]);
    close(fds[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_output),
        cmocka_unit_test(test_environment),
        cmocka_unit_test(test_missing),
        cmocka_unit_test(test_start),
        cmocka_unit_test(test_killed_with_parent),
        cmocka_unit_test(test_foreground),
    };
    return cmocka_run_group_tests_name("vm_process", tests, NULL, NULL);
}
