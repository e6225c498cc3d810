#include "worker/link.h"

#include "unit.h"
#include "util/os.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* As in link.c: what precedes a message. */
#define MAGIC 0x6b6e696cu
struct header {
    uint32_t magic, has_fd;
    struct pv_link_message message;
};

static struct pv_link *device, *worker;

static int open_links(void **state)
{
    int fds[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    assert_int_equal(pv_link_create(fds[0], false, &device), 0);
    assert_int_equal(pv_link_create(fds[1], true, &worker), 0);
    return 0;
}

static int close_links(void **state)
{
    pv_link_destroy(device);
    pv_link_destroy(worker);
    device = worker = NULL;
    return 0;
}

static void close_worker(void)
{
    pv_link_destroy(worker);
    worker = NULL;
}

static int next_fd(void)
{
    int fd = dup(0);
    close(fd);
    return fd;
}

/* ---- both ways ---- */

static void test_messages(void **state)
{
    const struct pv_link_message sent = {
        .type = PV_LINK_CREATE_BLOB,
        .res_id = 7,
        .flags = 5,
        .blob_id = UINT64_MAX,
        .size = 4096,
        .offset = PV_LINK_OWN_MEMORY,
    };
    struct pv_link_message got;
    const void *payload;
    int fd;
    assert_int_equal(pv_link_try_receive(worker, &got, &payload, &fd), 0);
    assert_int_equal(pv_link_send(device, &sent, NULL, -1), 0);
    assert_int_equal(pv_link_receive(worker, &got, &payload, &fd), 1);
    assert_memory_equal(&got, &sent, sizeof(got));
    assert_int_equal(fd, -1);

    const struct pv_link_message news = {.type = PV_LINK_FENCE_DONE, .ring_idx = 3, .cookie = 9};
    assert_int_equal(pv_link_receive(device, &got, &payload, &fd), 0);
    assert_int_equal(pv_link_send(worker, &news, NULL, -1), 0);
    assert_int_equal(pv_link_receive(device, &got, &payload, &fd), 1);
    assert_memory_equal(&got, &news, sizeof(got));
    assert_int_equal(pv_link_receive(device, &got, &payload, &fd), 0);
}

/* Odd payloads; what follows is found, and is aligned for those who read words. */
static void test_payloads(void **state)
{
    char bytes[1000];
    memset(bytes, 'x', sizeof(bytes));
    for (uint32_t i = 0; i < 300; i++) {
        const struct pv_link_message sent = {
            .type = PV_LINK_SUBMIT,
            .payload_size = i * 3,
            .res_id = i,
        };
        assert_int_equal(pv_link_send(device, &sent, bytes, -1), 0);
    }
    for (uint32_t i = 0; i < 300; i++) {
        struct pv_link_message got;
        const void *payload;
        int fd;
        while (pv_link_try_receive(worker, &got, &payload, &fd) == 0)
            assert_int_equal(pv_link_flush(device), 0);
        assert_int_equal(got.res_id, i);
        assert_int_equal(got.payload_size, i * 3);
        assert_int_equal((uintptr_t)payload % 8, 0);
        assert_memory_equal(payload, bytes, got.payload_size);
    }
}

/* ---- fds ---- */

/* Each message has its own fd, wherever the reads happen to end. */
static void test_fds(void **state)
{
    int before = next_fd();
    for (uint32_t i = 0; i < 20; i++) {
        int file = -1;
        assert_int_equal(pv_shm_create("test", 4096 * (i + 1), &file), 0);
        const struct pv_link_message plain = {.type = PV_LINK_PING, .cookie = i};
        const struct pv_link_message with = {.type = PV_LINK_IMPORT, .res_id = i};
        assert_int_equal(pv_link_send(device, &plain, NULL, -1), 0);
        assert_int_equal(pv_link_send(device, &with, NULL, file), 0);
        close(file);
    }
    for (uint32_t i = 0; i < 20; i++) {
        struct pv_link_message got;
        const void *payload;
        int fd;
        assert_int_equal(pv_link_receive(worker, &got, &payload, &fd), 1);
        assert_int_equal(got.cookie, i);
        assert_int_equal(fd, -1);
        assert_int_equal(pv_link_receive(worker, &got, &payload, &fd), 1);
        assert_int_equal(got.res_id, i);
        assert_true(fd >= 0);
        assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
        assert_int_equal(lseek(fd, 0, SEEK_END), 4096 * (i + 1));
        close(fd);
    }
    assert_int_equal(next_fd(), before);
}

/* Fds of messages that nobody takes do not stay open, on either side. */
static void test_fds_left_behind(void **state)
{
    int before = next_fd();
    struct pv_link_message got;
    const void *payload;
    int fd;
    const struct pv_link_message with = {.type = PV_LINK_IMPORT};
    const struct pv_link_message large = {
        .type = PV_LINK_SUBMIT,
        .payload_size = PV_LINK_PAYLOAD_MAX,
    };
    char *bytes = calloc(1, PV_LINK_PAYLOAD_MAX);
    assert_int_equal(pv_link_send(device, &with, NULL, 0), 0);
    assert_int_equal(pv_link_send(device, &large, bytes, 0), 0);
    assert_int_equal(pv_link_send(device, &with, NULL, 0), 0); /* waits with its fd */
    free(bytes);
    assert_int_equal(pv_link_receive(worker, &got, &payload, &fd), 1);
    close(fd);
    assert_int_equal(pv_link_try_receive(worker, &got, &payload, &fd), 0); /* has the next fd */
    close_links(NULL);
    assert_true(next_fd() <= before);
    open_links(NULL);
}

/* ---- a socket that is full ---- */

static void test_large(void **state)
{
    uint32_t count = PV_LINK_PAYLOAD_MAX / 4, *words = malloc(PV_LINK_PAYLOAD_MAX);
    const struct pv_link_message sent = {
        .type = PV_LINK_SUBMIT,
        .payload_size = PV_LINK_PAYLOAD_MAX,
    };
    for (uint32_t i = 0; i < count; i++)
        words[i] = i * 2654435761u;
    for (unsigned round = 0; round < 2; round++) {
        assert_int_equal(pv_link_send(device, &sent, words, -1), 0);
        const struct pv_link_message small = {.type = PV_LINK_PING, .cookie = round};
        assert_int_equal(pv_link_send(device, &small, NULL, -1), 0);
    }
    assert_true(pv_link_backlog(device) > PV_LINK_PAYLOAD_MAX);
    for (unsigned round = 0; round < 2; round++) {
        struct pv_link_message got;
        const void *payload;
        int fd, ret;
        while ((ret = pv_link_try_receive(worker, &got, &payload, &fd)) == 0)
            assert_int_equal(pv_link_flush(device), 0);
        assert_int_equal(ret, 1);
        assert_memory_equal(payload, words, PV_LINK_PAYLOAD_MAX);
        while ((ret = pv_link_try_receive(worker, &got, &payload, &fd)) == 0)
            assert_int_equal(pv_link_flush(device), 0);
        assert_int_equal(ret, 1);
        assert_int_equal(got.cookie, round);
    }
    assert_int_equal(pv_link_backlog(device), 0);
    free(words);
}

static void test_backlog_ends(void **state)
{
    char *bytes = calloc(1, PV_LINK_PAYLOAD_MAX);
    const struct pv_link_message sent = {
        .type = PV_LINK_SUBMIT,
        .payload_size = PV_LINK_PAYLOAD_MAX,
    };
    unsigned count = 0;
    int ret;
    while ((ret = pv_link_send(device, &sent, bytes, -1)) == 0)
        assert_true(count++ < 10);
    assert_int_equal(ret, -ENOBUFS);
    assert_true(count >= PV_LINK_BACKLOG_MAX / PV_LINK_PAYLOAD_MAX);
    free(bytes);

    /* what was taken comes over, and then there is room again */
    for (unsigned i = 0; i < count; i++) {
        struct pv_link_message got;
        const void *payload;
        int fd;
        while ((ret = pv_link_try_receive(worker, &got, &payload, &fd)) == 0)
            assert_int_equal(pv_link_flush(device), 0);
        assert_int_equal(ret, 1);
    }
    assert_int_equal(pv_link_backlog(device), 0);
    const struct pv_link_message ping = {.type = PV_LINK_PING};
    assert_int_equal(pv_link_send(device, &ping, NULL, -1), 0);
}

static void *send_pings(void *data)
{
    struct pv_link *link = data;
    for (uint32_t i = 0; i < 20000; i++) {
        const struct pv_link_message news = {.type = PV_LINK_PONG, .cookie = i};
        if (pv_link_send(link, &news, NULL, -1) < 0)
            return link;
    }
    return NULL;
}

/* Fences are told of by several threads; a worker waits until the device has room. */
static void test_threads(void **state)
{
    pthread_t threads[2];
    struct pollfd poll_fd = {.fd = pv_link_fd(device), .events = POLLIN};
    for (unsigned i = 0; i < 2; i++)
        pthread_create(&threads[i], NULL, send_pings, worker);
    uint64_t sum = 0;
    for (unsigned count = 0; count < 40000;) {
        struct pv_link_message got;
        const void *payload;
        int fd, ret = pv_link_receive(device, &got, &payload, &fd);
        assert_true(ret >= 0);
        if (ret == 0)
            poll(&poll_fd, 1, 1000);
        count += (unsigned)ret;
        sum += ret == 1 ? got.cookie : 0;
    }
    assert_int_equal(sum, 2 * (UINT64_C(20000) * 19999 / 2));
    for (unsigned i = 0; i < 2; i++) {
        void *failed;
        pthread_join(threads[i], &failed);
        assert_null(failed);
    }
}

/* ---- what goes wrong ---- */

/* A message that comes byte by byte. */
static void test_pieces(void **state)
{
    struct {
        struct header header;
        char text[5];
    } wire = {
        .header = {.magic = MAGIC, .message = {.type = PV_LINK_SUBMIT, .payload_size = 5}},
        .text = "abcd",
    };
    size_t size = offsetof(__typeof__(wire), text) + 5;
    for (unsigned round = 0; round < 2; round++) {
        struct pv_link_message got;
        const void *payload;
        int fd;
        for (size_t i = 0; i < size; i++) {
            assert_int_equal(pv_link_try_receive(worker, &got, &payload, &fd), 0);
            assert_int_equal(write(pv_link_fd(device), (char *)&wire + i, 1), 1);
        }
        assert_int_equal(pv_link_try_receive(worker, &got, &payload, &fd), 1);
        assert_string_equal(payload, "abcd");
    }
}

static int receive_raw(struct pv_link *to, struct pv_link *from, const struct header *header)
{
    struct pv_link_message got;
    const void *payload;
    int fd;
    assert_int_equal(write(pv_link_fd(from), header, sizeof(*header)), sizeof(*header));
    int ret = pv_link_try_receive(to, &got, &payload, &fd);
    close_links(NULL);
    open_links(NULL);
    return ret;
}

static void test_nonsense(void **state)
{
    const struct header good = {.magic = MAGIC, .message = {.type = PV_LINK_PING}};
    struct header bad = good;
    assert_int_equal(receive_raw(worker, device, &bad), 1);
    bad.magic++;
    assert_int_equal(receive_raw(worker, device, &bad), -EPROTO);
    bad = good;
    bad.has_fd = 2;
    assert_int_equal(receive_raw(worker, device, &bad), -EPROTO);
    bad.has_fd = 1; /* there is none */
    assert_int_equal(receive_raw(worker, device, &bad), -EPROTO);
    bad = good;
    bad.message.payload_size = 4; /* has none */
    assert_int_equal(receive_raw(worker, device, &bad), -EPROTO);
    bad.message.type = PV_LINK_SUBMIT;
    bad.message.payload_size = PV_LINK_PAYLOAD_MAX + 1;
    assert_int_equal(receive_raw(worker, device, &bad), -EPROTO);
    bad.message.payload_size = UINT32_MAX;
    assert_int_equal(receive_raw(worker, device, &bad), -EPROTO);
    for (uint32_t type = 0; type < 100; type++) {
        bool to_worker = type >= PV_LINK_SUBMIT && type <= PV_LINK_PING;
        bool to_device = type >= PV_LINK_FENCE_DONE && type <= PV_LINK_PONG;
        bad = good;
        bad.message.type = type;
        assert_int_equal(receive_raw(worker, device, &bad), to_worker ? 1 : -EPROTO);
        assert_int_equal(receive_raw(device, worker, &bad), to_device ? 1 : -EPROTO);
    }
    /* a worker makes the device keep no more than a line */
    bad.message.type = PV_LINK_FAILED;
    bad.message.payload_size = 1 << 20;
    assert_int_equal(receive_raw(device, worker, &bad), -EPROTO);
}

/* More fds than any message has: none stays open. */
static void test_flood_of_fds(void **state)
{
    int before = next_fd();
    struct pv_link_message got;
    const void *payload;
    int fd, ret = 0;
    for (unsigned i = 0; i < 20 && ret == 0; i++) {
        union {
            char bytes[CMSG_SPACE(4 * sizeof(int))];
            struct cmsghdr align;
        } control = {0};
        struct iovec piece = {.iov_base = "l", .iov_len = 1};
        struct msghdr message = {
            .msg_iov = &piece,
            .msg_iovlen = 1,
            .msg_control = control.bytes,
            .msg_controllen = sizeof(control.bytes),
        };
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        const int fds[4] = {0, 0, 0, 0};
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(sizeof(fds));
        memcpy(CMSG_DATA(header), fds, sizeof(fds));
        assert_int_equal(sendmsg(pv_link_fd(worker), &message, 0), 1);
        ret = pv_link_receive(device, &got, &payload, &fd);
    }
    assert_int_equal(ret, -EPROTO);
    close_links(NULL);
    assert_true(next_fd() <= before);
    open_links(NULL);
}

static void test_other_side_gone(void **state)
{
    struct pv_link_message got;
    const void *payload;
    int fd;
    const struct pv_link_message pong = {.type = PV_LINK_PONG};
    const struct pv_link_message ping = {.type = PV_LINK_PING};
    assert_int_equal(pv_link_send(worker, &pong, NULL, -1), 0);
    close_worker();
    assert_int_equal(pv_link_receive(device, &got, &payload, &fd), 1); /* its last words */
    assert_int_equal(pv_link_receive(device, &got, &payload, &fd), -EPIPE);
    assert_int_equal(pv_link_send(device, &ping, NULL, -1), -EPIPE);
    assert_int_equal(pv_link_flush(device), 0);
}

/* With half a message, and with messages that wait. */
static void test_gone_in_between(void **state)
{
    struct pv_link_message got;
    const void *payload;
    int fd;
    char *bytes = calloc(1, PV_LINK_PAYLOAD_MAX);
    const struct pv_link_message sent = {
        .type = PV_LINK_SUBMIT,
        .payload_size = PV_LINK_PAYLOAD_MAX,
    };
    assert_int_equal(pv_link_send(device, &sent, bytes, -1), 0);
    free(bytes);
    assert_int_equal(write(pv_link_fd(worker), "half", 4), 4);
    close_worker();
    assert_int_equal(pv_link_flush(device), -EPIPE);
    assert_int_equal(pv_link_receive(device, &got, &payload, &fd), -EPIPE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_messages, open_links, close_links),
        cmocka_unit_test_setup_teardown(test_payloads, open_links, close_links),
        cmocka_unit_test_setup_teardown(test_fds, open_links, close_links),
        cmocka_unit_test_setup_teardown(test_fds_left_behind, open_links, close_links),
        cmocka_unit_test_setup_teardown(test_large, open_links, close_links),
        cmocka_unit_test_setup_teardown(test_backlog_ends, open_links, close_links),
        cmocka_unit_test_setup_teardown(test_threads, open_links, close_links),
        cmocka_unit_test_setup_teardown(test_pieces, open_links, close_links),
        cmocka_unit_test_setup_teardown(test_nonsense, open_links, close_links),
        cmocka_unit_test_setup_teardown(test_flood_of_fds, open_links, close_links),
        cmocka_unit_test_setup_teardown(test_other_side_gone, open_links, close_links),
        cmocka_unit_test_setup_teardown(test_gone_in_between, open_links, close_links),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
