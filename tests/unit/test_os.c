#include "unit.h"

#include "util/fdpass.h"
#include "util/list.h"
#include "util/os.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static void test_clock(void **state)
{
    uint64_t before = pv_now_ns();
    usleep(2000);
    uint64_t taken = pv_now_ns() - before;
    assert_true(taken >= 2000000 && taken < 2000000000);
}

static void test_align(void **state)
{
    assert_int_equal(pv_align_up(0, 4096), 0);
    assert_int_equal(pv_align_up(1, 4096), 4096);
    assert_int_equal(pv_align_up(4096, 4096), 4096);
    assert_int_equal(pv_align_up(131268, 65536), 196608);
    assert_true(pv_page_size() >= 4096);
}

static void test_shm(void **state)
{
    int fd;
    void *a, *b;
    struct stat info;
    assert_int_equal(pv_shm_create("test", 131268, &fd), 0);
    assert_int_equal(fstat(fd, &info), 0);
    assert_int_equal(info.st_size, 131268); /* exactly, not rounded to pages */
    assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);

    assert_int_equal(pv_shm_map(fd, 131268, &a), 0);
    assert_int_equal(pv_shm_map(fd, 131268, &b), 0);
    assert_int_equal(((uint8_t *)a)[131267], 0);
    ((uint8_t *)a)[131267] = 7;
    assert_int_equal(((uint8_t *)b)[131267], 7);

    /* the other side must not be able to make our mapping fault */
    assert_int_equal(ftruncate(fd, 0), -1);
    assert_int_equal(ftruncate(fd, 1 << 20), -1);
    pv_shm_unmap(a, 131268);
    pv_shm_unmap(b, 131268);
    pv_shm_unmap(NULL, 0);
    close(fd);
}

static void test_shm_bad_sizes(void **state)
{
    int fd = -1;
    void *map;
    assert_int_equal(pv_shm_create("test", 0, &fd), -EINVAL);
    assert_int_equal(pv_shm_create("test", UINT64_MAX, &fd), -EINVAL);
    assert_int_equal(fd, -1);
    assert_int_equal(pv_shm_map(0, 0, &map), -EINVAL);
}

static bool is_readable(int fd)
{
    struct pollfd poll_fd = {.fd = fd, .events = POLLIN};
    return poll(&poll_fd, 1, 0) == 1;
}

/* A descriptor that is given to us; closed here. */
static bool is_safe(int fd, uint64_t size)
{
    assert_true(fd >= 0);
    bool safe = pv_shared_has(fd, size);
    close(fd);
    return safe;
}

static int sized(int fd, off_t size)
{
    assert_int_equal(ftruncate(fd, size), 0);
    return fd;
}

/* Memory of somebody else: what could be taken away under a mapping is refused. */
static void test_shared_has(void **state)
{
    int fd = -1;
    assert_false(pv_shared_has(-1, 1));
    assert_int_equal(pv_shm_create("sealed", 8192, &fd), 0);
    assert_true(is_safe(fd, 8192));
    assert_int_equal(pv_shm_create("short", 4096, &fd), 0);
    assert_false(is_safe(fd, 8192));
    /* not sealed yet: it is from now on */
    fd = sized(memfd_create("open", MFD_CLOEXEC | MFD_ALLOW_SEALING), 8192);
    assert_true(pv_shared_has(fd, 8192));
    assert_int_equal(ftruncate(fd, 4096), -1);
    close(fd);
    assert_false(is_safe(sized(memfd_create("never", MFD_CLOEXEC), 8192), 8192));
    assert_false(is_safe(open("/proc/self/exe", O_RDONLY | O_CLOEXEC), 4096));
    assert_false(is_safe(open("/dev/zero", O_RDWR | O_CLOEXEC), 0));
    fd = memfd_create("huge", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_HUGETLB);
    if (fd >= 0) /* a host without huge pages has none to lose */
        assert_false(is_safe(sized(fd, 64 << 20), 8192));
}

static void test_eventfd(void **state)
{
    int fd;
    assert_int_equal(pv_eventfd_create(&fd), 0);
    assert_false(is_readable(fd));
    pv_eventfd_signal(fd);
    pv_eventfd_signal(fd);
    assert_true(is_readable(fd));
    close(fd);
}

static void test_fd_passing(void **state)
{
    int sockets[2], pipe_fds[2], received = -1;
    char bytes[8];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, sockets), 0);
    assert_int_equal(pipe(pipe_fds), 0);

    assert_int_equal(pv_fd_send(sockets[0], pipe_fds[1], "ab", 2), 0);
    assert_int_equal(pv_fd_receive(sockets[1], bytes, sizeof(bytes), &received), 2);
    assert_memory_equal(bytes, "ab", 2);
    assert_true(received >= 0);
    assert_true(fcntl(received, F_GETFD) & FD_CLOEXEC);
    assert_int_equal(write(received, "x", 1), 1);
    assert_int_equal(read(pipe_fds[0], bytes, 1), 1);
    close(received);

    assert_int_equal(send(sockets[0], "c", 1, 0), 1);
    assert_int_equal(pv_fd_receive(sockets[1], bytes, sizeof(bytes), &received), 1);
    assert_int_equal(received, -1);

    close(sockets[0]);
    assert_int_equal(pv_fd_receive(sockets[1], bytes, sizeof(bytes), &received), 0);
    assert_int_equal(pv_fd_send(sockets[1], pipe_fds[0], "a", 1), -EPIPE);
    close(sockets[1]);
    close(pipe_fds[0]);
    close(pipe_fds[1]);
}

/* In a child: the keepers stay, the others go, standard streams are not touched. */
static int close_fds_in_child(void)
{
    int fds[6];
    for (int i = 0; i < 6; i++)
        fds[i] = dup(STDERR_FILENO);
    const int keep[] = {fds[4], fds[1], STDIN_FILENO};
    pv_close_fds_except(keep, 3);
    for (int i = 0; i < 6; i++) {
        bool open = fcntl(fds[i], F_GETFD) >= 0;
        if (open != (i == 1 || i == 4))
            return 10 + i;
    }
    return fcntl(STDOUT_FILENO, F_GETFD) >= 0 && fcntl(STDERR_FILENO, F_GETFD) >= 0 ? 0 : 9;
}

static void test_close_fds(void **state)
{
    int status;
    pid_t pid = fork();
    if (pid == 0)
        _exit(close_fds_in_child());
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

static void test_die_with_parent(void **state)
{
    /* parent -> child -> grandchild; the grandchild holds the write end until it dies */
    int fds[2];
    char byte;
    assert_int_equal(pipe(fds), 0);
    pid_t pid = fork();
    if (pid == 0) {
        if (fork() == 0) {
            pv_die_with_parent();
            if (write(fds[1], "r", 1) == 1)
                pause();
            _exit(0);
        }
        pause();
        _exit(0);
    }
    close(fds[1]);
    assert_int_equal(read(fds[0], &byte, 1), 1); /* it is set up */
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    struct pollfd poll_fd = {.fd = fds[0], .events = POLLIN};
    assert_int_equal(poll(&poll_fd, 1, 5000), 1);
    assert_int_equal(read(fds[0], &byte, 1), 0);
    close(fds[0]);
}

static void test_peer(void **state)
{
    int sockets[2];
    char name[32];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, sockets), 0);
    assert_int_equal(pv_socket_peer_pid(sockets[0]), getpid());
    pv_thread_set_name("a-rather-long-thread-name"); /* of the main thread: the process's */
    pv_process_name(getpid(), name, sizeof(name));
    assert_string_equal(name, "a-rather-long-t");
    pv_process_name(-5, name, sizeof(name));
    assert_string_equal(name, "?");
    close(sockets[0]);
    close(sockets[1]);
}

struct item {
    int number;
    struct pv_list node;
};

static void test_list(void **state)
{
    struct pv_list head;
    struct item items[4];
    int seen = 0;
    pv_list_init(&head);
    assert_true(pv_list_empty(&head));
    for (int i = 0; i < 4; i++) {
        items[i].number = i;
        pv_list_append(&head, &items[i].node);
    }
    pv_list_remove(&items[1].node);
    pv_list_remove(&items[1].node);
    pv_list_for_each(node, &head)
    {
        seen = seen * 10 + pv_list_entry(node, struct item, node)->number;
        pv_list_remove(node);
    }
    assert_int_equal(seen, 23); /* 0, 2, 3 */
    assert_true(pv_list_empty(&head));
}

static void check_fd(int fd, bool waits)
{
    assert_true(fd >= 0);
    assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    assert_int_equal(!(fcntl(fd, F_GETFL) & O_NONBLOCK), waits);
}

static void test_pipes(void **state)
{
    for (int waits = 0; waits < 2; waits++) {
        int fds[2];
        char c;
        assert_int_equal(pv_pipe(fds, waits), 0);
        check_fd(fds[0], waits);
        check_fd(fds[1], waits);
        assert_int_equal(write(fds[1], "x", 1), 1);
        assert_int_equal(read(fds[0], &c, 1), 1);
        close(fds[0]);
        close(fds[1]);
    }
}

static void test_socketpairs(void **state)
{
    int (*const make[])(int[2]) = {pv_socketpair, pv_message_socketpair};
    for (size_t i = 0; i < 2; i++) {
        int fds[2];
        char text[8];
        assert_int_equal(make[i](fds), 0);
        check_fd(fds[0], true);
        check_fd(fds[1], true);
        assert_int_equal(pv_send(fds[0], "ab", 2, true), 2);
        assert_int_equal(pv_send(fds[0], "c", 1, false), 1);
        assert_int_equal(read(fds[1], text, sizeof(text)), i == 0 ? 3 : 2);
        ssize_t sent;
        while ((sent = pv_send(fds[0], "ab", 2, false)) == 2)
            continue;
        assert_int_equal(sent, -EAGAIN);
        close(fds[0]);
        close(fds[1]);
        assert_int_equal(make[i](fds), 0);
        close(fds[1]);
        assert_int_equal(pv_send(fds[0], "ab", 2, true), -EPIPE); /* and we are still alive */
        close(fds[0]);
    }
}

static void test_accept(void **state)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof(address);
    assert_int_equal(pv_stream_socket(-1, true), -EAFNOSUPPORT);
    int listener = pv_stream_socket(AF_INET, false), client = pv_stream_socket(AF_INET, true);
    check_fd(listener, false);
    check_fd(client, true);
    assert_int_equal(bind(listener, (struct sockaddr *)&address, size), 0);
    assert_int_equal(listen(listener, 4), 0);
    assert_int_equal(pv_accept(listener, true), -EAGAIN);
    assert_int_equal(getsockname(listener, (struct sockaddr *)&address, &size), 0);
    for (int waits = 0; waits < 2; waits++) {
        assert_int_equal(connect(client, (struct sockaddr *)&address, size), 0);
        int fd = pv_accept(listener, waits);
        check_fd(fd, waits);
        close(fd);
        close(client);
        client = pv_stream_socket(AF_INET, true);
    }
    close(client);
    close(listener);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_clock),
        cmocka_unit_test(test_align),
        cmocka_unit_test(test_shm),
        cmocka_unit_test(test_shm_bad_sizes),
        cmocka_unit_test(test_shared_has),
        cmocka_unit_test(test_eventfd),
        cmocka_unit_test(test_fd_passing),
        cmocka_unit_test(test_close_fds),
        cmocka_unit_test(test_die_with_parent),
        cmocka_unit_test(test_peer),
        cmocka_unit_test(test_pipes),
        cmocka_unit_test(test_socketpairs),
        cmocka_unit_test(test_accept),
        cmocka_unit_test(test_list),
    };
    return cmocka_run_group_tests_name("os", tests, NULL, NULL);
}
