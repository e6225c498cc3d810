#include "unit.h"

#include "vm/guests.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static char folder[] = "/tmp/pv-guests.XXXXXX";

static int listen_at(const char *path, bool listening)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
    assert_int_equal(bind(fd, (const struct sockaddr *)&address, sizeof(address)), 0);
    if (listening)
        assert_int_equal(listen(fd, 1), 0);
    return fd;
}

/* The pid of nobody. */
static pid_t dead_pid(void)
{
    pid_t pid = fork();
    if (pid == 0)
        _exit(0);
    assert_true(pid > 0);
    waitpid(pid, NULL, 0);
    return pid;
}

static int set_up(void **state)
{
    assert_non_null(mkdtemp(folder));
    setenv("XDG_RUNTIME_DIR", folder, 1);
    return 0;
}

static int tear_down(void **state)
{
    return rmdir(folder);
}

static void test_names(void **state)
{
    struct pv_guest guest;
    char expected[200], long_name[200];
    assert_int_equal(pv_guest_init(&guest, "debian-13"), 0);
    snprintf(expected, sizeof(expected), "%s/pearvisor-debian-13-%d.sock", folder, (int)getpid());
    assert_string_equal(guest.socket, expected);
    assert_int_equal(pv_guest_init(&guest, "/disks/my disk/../a\nb-é.img"), 0);
    assert_string_equal(guest.name, "a_b-__.img");
    memset(long_name, 'x', sizeof(long_name));
    long_name[sizeof(long_name) - 1] = '\0';
    assert_int_equal(pv_guest_init(&guest, long_name), 0);
    assert_true(strlen(guest.name) < 41);
}

static void test_find(void **state)
{
    struct pv_guest guest, found, *list;
    char why[512], other[200];
    assert_int_equal(pv_guest_find(NULL, &found, why, sizeof(why)), -ENOENT);
    assert_string_equal(why, "no guest runs");

    assert_int_equal(pv_guest_init(&guest, "debian-13"), 0);
    int fd = listen_at(guest.socket, true);
    assert_int_equal(pv_guest_find(NULL, &found, why, sizeof(why)), 0);
    assert_string_equal(found.socket, guest.socket);
    assert_string_equal(found.name, "debian-13");
    assert_int_equal(found.pid, getpid());
    assert_int_equal(pv_guest_find("debian", &found, why, sizeof(why)), -ENOENT);
    assert_non_null(strstr(why, "debian-13"));

    snprintf(other, sizeof(other), "%s/pearvisor-debian-13-1.sock", folder);
    int other_fd = listen_at(other, true);
    assert_int_equal(pv_guest_list(&list), 2);
    assert_int_equal(list[0].pid, 1);
    free(list);
    assert_int_equal(pv_guest_find("debian-13", &found, why, sizeof(why)), -ENOTUNIQ);
    assert_non_null(strstr(why, "debian-13 (1), debian-13 ("));
    assert_int_equal(pv_guest_find("1", &found, why, sizeof(why)), 0);
    assert_string_equal(found.socket, other);
    close(fd);
    close(other_fd);
    unlink(guest.socket);
    unlink(other);
}

/* What a dead one has left is removed; what is not ours, or may come up yet, is not. */
static void test_left_over(void **state)
{
    static const char *const others[] = {"pearvisor-.sock",    "pearvisor-a-b.sock",
                                         "pearvisor-a-0.sock", "pearvisor-a-1.socket",
                                         "a-1.sock",           "pearvisor--1.sock.sock"};
    struct pv_guest guest, *list;
    char stale[200], path[200];
    snprintf(stale, sizeof(stale), "%s/pearvisor-debian-13-%d.sock", folder, (int)dead_pid());
    close(listen_at(stale, true));
    assert_int_equal(pv_guest_init(&guest, "slow"), 0);
    int fd = listen_at(guest.socket, false);
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
        snprintf(path, sizeof(path), "%s/%s", folder, others[i]);
        close(listen_at(path, true));
    }
    assert_int_equal(pv_guest_list(&list), 0);
    assert_int_equal(access(stale, F_OK), -1);
    assert_int_equal(unlink(guest.socket), 0);
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
        snprintf(path, sizeof(path), "%s/%s", folder, others[i]);
        assert_int_equal(unlink(path), 0);
    }
    close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_find),
        cmocka_unit_test(test_left_over),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
