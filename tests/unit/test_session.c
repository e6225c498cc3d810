/* A session at one end of a socket pair, this test at the other; the context is a stub. */
#include "unit.h"

#include "stub_context.h"
#include "transport/vtest/connection.h"
#include "transport/vtest/protocol.h"
#include "transport/vtest/session.h"
#include "util/fdpass.h"
#include "util/log.h"

#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

static struct pv_session *session;
static pthread_t thread;
static int client = -1, server = -1;
static enum pv_session_end end;
static char named[64];

/* ---- the session's side ---- */

static void on_named(void *data, const char *name)
{
    snprintf(named, sizeof(named), "%s", name);
}

static void *run(void *data)
{
    end = pv_session_run(session);
    return NULL;
}

static void start(struct pv_session_params params)
{
    int sockets[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, sockets), 0);
    client = sockets[0];
    server = sockets[1];
    named[0] = '\0';
    params.fd = server;
    params.named = on_named;
    assert_int_equal(pv_session_create(&params, &session), 0);
    assert_int_equal(pthread_create(&thread, NULL, run, NULL), 0);
}

static int set_up(void **state)
{
    pv_log_set_level(PV_LOG_ERROR);
    return 0;
}

static struct pv_session_stats stats_at_end;

/* Wait for the end that somebody has brought about. */
static void finish(enum pv_session_end expected, const char *reason)
{
    pthread_join(thread, NULL);
    pv_session_get_stats(session, &stats_at_end);
    assert_int_equal(end, expected);
    if (reason && !strstr(pv_session_reason(session), reason))
        fail_msg("the reason is \"%s\", expected \"%s\"", pv_session_reason(session), reason);
    pv_session_destroy(session);
    assert_false(stub.alive);
    close(client);
    close(server);
}

static void finish_by_closing(void)
{
    shutdown(client, SHUT_RDWR);
    finish(PV_SESSION_CLOSED, NULL);
}

/* ---- the client's side ---- */

static void send_bytes(const void *data, size_t size)
{
    assert_int_equal(send(client, data, size, MSG_NOSIGNAL), size);
}

#define SEND(...)                                \
    do {                                         \
        const uint32_t words_[] = {__VA_ARGS__}; \
        send_bytes(words_, sizeof(words_));      \
    } while (0)

static void expect_bytes(const void *data, size_t size)
{
    uint8_t got[256];
    assert_int_equal(recv(client, got, size, MSG_WAITALL), size);
    assert_memory_equal(got, data, size);
}

#define EXPECT(...)                              \
    do {                                         \
        const uint32_t words_[] = {__VA_ARGS__}; \
        expect_bytes(words_, sizeof(words_));    \
    } while (0)

/* The fd comes on one byte of its own. */
static int expect_fd(void)
{
    char byte = 1;
    int fd = -1;
    assert_int_equal(pv_fd_receive(client, &byte, 1, &fd), 1);
    assert_int_equal(byte, 0);
    assert_true(fd >= 0);
    return fd;
}

static void expect_closed(void)
{
    char byte;
    assert_int_equal(recv(client, &byte, 1, 0), 0);
}

static void send_name(void)
{
    static const uint8_t message[] = "\x0b\0\0\0\x08\0\0\0vulkaninfo";
    send_bytes(message, 19);
}

static void shake_hands(uint32_t version)
{
    send_name();
    SEND(0, 10);
    SEND(2, 7, 0, 0);
    EXPECT(0, 10);
    EXPECT(1, 7, 0);
    SEND(1, 11, version);
    EXPECT(1, 11, version > 4 ? 4 : version);
    SEND(1, 15, 1);
    EXPECT(2, 15, 1, 64);
    SEND(1, 17, 4);
}

static void start_client(uint32_t version)
{
    start((struct pv_session_params){.id = 7});
    shake_hands(version);
}

static bool is_readable(int fd, int timeout_ms)
{
    struct pollfd poll_fd = {.fd = fd, .events = POLLIN};
    return poll(&poll_fd, 1, timeout_ms) == 1;
}

/* What was sent before has been handled. */
static void round_trip(void)
{
    SEND(1, 15, 1);
    EXPECT(2, 15, 1, 64);
}

static uint32_t create_sync(uint32_t value)
{
    uint32_t reply[3];
    SEND(2, 19, value, 0);
    assert_int_equal(recv(client, reply, sizeof(reply), MSG_WAITALL), sizeof(reply));
    assert_int_equal(reply[0], 1);
    assert_int_equal(reply[1], 19);
    return reply[2];
}

/* ---- handshake ---- */

static void test_handshake(void **state)
{
    for (uint32_t version = 3; version <= 5; version++) {
        start_client(version);
        uint8_t capset[4 + 160] = {1};
        for (int i = 0; i < 160; i++)
            capset[4 + i] = (uint8_t)i;
        SEND(2, 16, 4, 0);
        EXPECT(41, 16);
        expect_bytes(capset, sizeof(capset));
        SEND(2, 16, 1, 0); /* a capset that we do not have */
        EXPECT(1, 16, 0);
        SEND(1, 15, 2); /* a parameter that we do not have */
        EXPECT(2, 15, 0, 0);
        assert_string_equal(named, "vulkaninfo");
        assert_true(stub.alive);
        assert_int_equal(stub.offered_dma_buf, version == 3);
        assert_true(stub.hints > 0);
        finish_by_closing();
    }
}

static void test_wsi_choice(void **state)
{
    for (uint32_t version = 3; version <= 4; version++) {
        start((struct pv_session_params){.wsi = PV_WSI_DMA_BUF});
        shake_hands(version);
        round_trip();
        assert_true(stub.offered_dma_buf);
        finish_by_closing();
        start((struct pv_session_params){.wsi = PV_WSI_SHM});
        shake_hands(version);
        round_trip();
        assert_false(stub.offered_dma_buf);
        finish_by_closing();
    }
}

static void test_old_versions(void **state)
{
    const uint32_t versions[][2] = {{0, 0}, {1, 0}, {2, 2}};
    for (int i = 0; i < 3; i++) {
        start((struct pv_session_params){.id = 7});
        send_name();
        SEND(1, 11, versions[i][0]);
        EXPECT(1, 11, versions[i][1]);
        SEND(1, 17, 4);
        finish(PV_SESSION_BAD_INPUT, "CONTEXT_INIT belongs to protocol version 3");
    }
}

static void test_refusal(void **state)
{
    start((struct pv_session_params){.refuse = true});
    send_name();
    SEND(0, 10);
    EXPECT(0, 10);
    SEND(1, 11, 3);
    EXPECT(1, 11, 0); /* Mesa gives up here, without hanging */
    shutdown(client, SHUT_RDWR);
    finish(PV_SESSION_REFUSED, "too many clients");
}

static void test_names(void **state)
{
    start((struct pv_session_params){.id = 7});
    SEND(0, 8); /* none at all */
    SEND(0, 10);
    EXPECT(0, 10);
    assert_string_equal(named, "");
    finish_by_closing();

    uint8_t message[8 + 200] = {200, 0, 0, 0, 8, 0, 0, 0};
    memset(message + 8, 'x', 200); /* long and without a NUL */
    memcpy(message + 8, "\n\x1b\xff", 3);
    start((struct pv_session_params){.id = 7});
    send_bytes(message, sizeof(message));
    SEND(0, 10);
    EXPECT(0, 10);
    assert_int_equal(strlen(named), 63);
    assert_memory_equal(named, "???xx", 5);
    finish_by_closing();
}

/* ---- framing ---- */

static void test_byte_by_byte(void **state)
{
    start((struct pv_session_params){.id = 7});
    const uint8_t bytes[] = "\x0b\0\0\0\x08\0\0\0vulkaninfo\0\0\0\0\0\x0a\0\0\0"
                            "\x01\0\0\0\x0b\0\0\0\x03\0\0";
    for (size_t i = 0; i < sizeof(bytes); i++)
        send_bytes(bytes + i, 1);
    EXPECT(0, 10);
    EXPECT(1, 11, 3);
    finish_by_closing();
}

static void test_many_in_one_piece(void **state)
{
    const uint32_t count = 20000; /* several times the buffer */
    start_client(3);
    uint32_t *words = malloc(count * 5 * sizeof(*words));
    uint32_t sync = create_sync(0);
    for (uint32_t i = 0; i < count; i++)
        memcpy(words + 5 * i, (uint32_t[]){3, 22, sync, i, 0}, 20);
    for (size_t sent = 0; sent < count * 20;) {
        ssize_t size = send(client, (uint8_t *)words + sent, count * 20 - sent, 0);
        assert_true(size > 0);
        sent += (size_t)size;
    }
    SEND(1, 21, sync);
    EXPECT(2, 21, count - 1, 0);
    free(words);
    finish_by_closing();
}

static void test_long_message(void **state)
{
    start_client(3);
    uint32_t sync = create_sync(0);
    const uint32_t count = 100000;
    uint32_t *words = malloc((4 + 3 * (size_t)count) * sizeof(*words));
    memcpy(words, (uint32_t[]){2 + 3 * count, 23, 0, ~0u}, 16);
    for (uint32_t i = 0; i < count; i++)
        memcpy(words + 4 + 3 * i, (uint32_t[]){sync, 0, 0}, 12);
    for (size_t sent = 0, size = 16 + 12 * (size_t)count; sent < size;)
        sent += (size_t)send(client, (uint8_t *)words + sent, size - sent, 0);
    EXPECT(0, 23);
    int fd = expect_fd();
    assert_true(is_readable(fd, 0));
    close(fd);
    free(words);
    finish_by_closing();
}

static void test_gone_in_the_middle(void **state)
{
    static const uint8_t message[] = {6, 0, 0, 0, 18, 0, 0, 0, 2, 0, 0, 0};
    for (size_t size = 1; size <= sizeof(message); size++) {
        start_client(3);
        send_bytes(message, size);
        finish_by_closing();
    }
}

/* ---- bad input ---- */

static const struct {
    const char *reason;
    uint32_t version; /* agreed before; 0: nothing was sent before */
    uint32_t count;
    uint32_t words[24];
} bad[] = {
    {"not CREATE_RENDERER", 0, 2, {0, 10}},
    {"not CREATE_RENDERER", 0, 2, {0x20544547, 0x5054482f}}, /* "GET /HTP" */
    {"CREATE_RENDERER came twice", 3, 2, {0, 8}},
    {"at most", 3, 2, {0x40000000, 24}},
    {"at most", 3, 2, {0xffffffff, 0xffffffff}},
    {"at most", 0, 2, {0xffffffff, 8}},
    {"unknown command 99", 3, 2, {0, 99}},
    {"unknown command 0", 3, 2, {0, 0}},
    {"unknown command 39", 3, 2, {0, 39}},
    {"GET_CAPS ", 3, 2, {0, 1}},
    {"SUBMIT_CMD ", 3, 3, {1, 6, 0}},
    {"TRANSFER_PUT2", 3, 2, {0, 14}},
    {"DRM_SYNC_CREATE", 4, 2, {0, 25}},
    {"DRM_SYNC_FD_TO_HANDLE", 4, 2, {0, 28}},
    {"DRM_SYNC_TRANSFER", 4, 2, {0, 37}},
    {"PROTOCOL_VERSION of 0 words", 3, 2, {0, 11}},
    {"PROTOCOL_VERSION came after", 3, 3, {1, 11, 4}},
    {"GET_PARAM of 0 words", 3, 2, {0, 15}},
    {"GET_CAPSET of 1 words", 3, 3, {1, 16, 4}},
    {"CONTEXT_INIT came twice", 3, 3, {1, 17, 4}},
    {"RESOURCE_CREATE_BLOB of 5 words", 3, 7, {5, 18, 2, 1, 64, 0, 0}},
    {"of type 1", 3, 8, {6, 18, 1, 1, 64, 0, 0, 0}},
    {"of type 3", 3, 8, {6, 18, 3, 1, 64, 0, 0, 0}},
    {"unknown flags 0x9", 3, 8, {6, 18, 2, 9, 64, 0, 0, 0}},
    {"of 0 bytes", 3, 8, {6, 18, 2, 1, 0, 0, 0, 0}},
    {"of 18446744073709551615 bytes", 3, 8, {6, 18, 2, 1, ~0u, ~0u, 0, 0}},
    {"of 4294967297 bytes of shared memory", 3, 8, {6, 18, 2, 1, 1, 1, 0, 0}},
    {"there is no resource 1", 3, 3, {1, 3, 1}},
    {"there is no resource 0", 3, 3, {1, 3, 0}},
    {"RESOURCE_EXPORT_FD belongs to protocol version 4", 3, 3, {1, 38, 1}},
    {"RESOURCE_EXPORT_FD: there is no resource 1", 4, 3, {1, 38, 1}},
    {"SYNC_CREATE of 1 words", 3, 3, {1, 19, 0}},
    {"SYNC_UNREF: there is no sync 9", 3, 3, {1, 20, 9}},
    {"SYNC_READ: there is no sync 9", 3, 3, {1, 21, 9}},
    {"SYNC_WRITE: there is no sync 9", 3, 5, {3, 22, 9, 0, 0}},
    {"SYNC_WAIT: there is no sync 9", 3, 7, {5, 23, 0, 0, 9, 0, 0}},
    {"SYNC_WAIT of 4 words", 3, 6, {4, 23, 0, 0, 1, 0}},
    {"SYNC_WAIT of 1 words", 3, 3, {1, 23, 0}},
    {"SUBMIT_CMD2 of 0 words", 3, 2, {0, 24}},
    {"too short for 1", 3, 3, {1, 24, 1}},
    {"too short for 1", 3, 8, {6, 24, 1, 1, 0, 0, 0, 0}},
    {"too short for 1", 4, 9, {7, 24, 1, 1, 0, 0, 0, 0, 0}},
    {"with 2 batches", 3, 15, {13, 24, 2, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0}},
    {"with 4294967295 batches", 4, 11, {9, 24, ~0u, 1, 0, 0, 0, 0, 0, 0, 0}},
    {"commands at word 7 + 2", 3, 10, {8, 24, 1, 1, 7, 2, 0, 0, 0, 1}},
    {"commands at word 4294967295", 3, 10, {8, 24, 1, 1, ~0u, ~0u, 0, 0, 0, 1}},
    {"1 syncs at word 6", 3, 10, {8, 24, 1, 1, 7, 1, 6, 1, 0, 1}},
    {"4294967295 syncs", 3, 10, {8, 24, 1, 1, 7, 1, ~0u, ~0u, 0, 1}},
    {"ring_idx 64", 3, 10, {8, 24, 1, 1, 7, 1, 0, 0, 64, 1}},
    {"fence fds", 3, 10, {8, 24, 1, 3, 7, 1, 0, 0, 0, 1}},
    {"fence fds", 3, 10, {8, 24, 1, 5, 7, 1, 0, 0, 0, 1}},
    {"unknown flags 0x8", 3, 10, {8, 24, 1, 8, 7, 1, 0, 0, 0, 1}},
    {"DRM sync objects", 4, 11, {9, 24, 1, 1, 0, 0, 0, 0, 0, 1, 0}},
    {"SUBMIT_CMD2: there is no sync 5", 3, 12, {10, 24, 1, 1, 7, 0, 7, 1, 0, 5, 1, 0}},
};

static void test_bad_input(void **state)
{
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        start((struct pv_session_params){.id = 7});
        stub.poisoned = false;
        if (bad[i].version)
            shake_hands(bad[i].version);
        send_bytes(bad[i].words, bad[i].count * 4);
        expect_closed();
        assert_int_equal(stub.poisoned, bad[i].version != 0);
        finish(PV_SESSION_BAD_INPUT, bad[i].reason);
    }
}

static void test_before_context(void **state)
{
    static const uint32_t early[][8] = {
        {1, 3, 1}, {6, 18, 2, 1, 64, 0, 0, 0}, {1, 24, 0}, {2, 19, 0, 0}, {2, 23, 0, 0}};
    for (int i = 0; i < 5; i++) {
        start((struct pv_session_params){.id = 7});
        send_name();
        SEND(1, 11, 3);
        EXPECT(1, 11, 3);
        send_bytes(early[i], (2 + early[i][0]) * 4);
        finish(PV_SESSION_BAD_INPUT, "came before CONTEXT_INIT");
    }
}

static void test_wrong_capset(void **state)
{
    start((struct pv_session_params){.id = 7});
    send_name();
    SEND(1, 11, 3);
    EXPECT(1, 11, 3);
    SEND(1, 17, 2);
    finish(PV_SESSION_BAD_INPUT, "only Venus (4)");
}

/* ---- resources ---- */

static off_t size_of(int fd)
{
    struct stat info;
    assert_int_equal(fstat(fd, &info), 0);
    return info.st_size;
}

static void test_blobs(void **state)
{
    start_client(4);
    SEND(6, 18, 2, 1, 131268, 0, 0, 0);
    EXPECT(1, 18, 1);
    int fd = expect_fd();
    assert_int_equal(size_of(fd), 131268);
    close(fd);
    SEND(6, 18, 2, 7, 64, 0, 0, 0);
    EXPECT(1, 18, 2);
    close(expect_fd());
    SEND(1, 38, 2); /* export of a shareable one */
    EXPECT(0, 38);
    fd = expect_fd();
    assert_int_equal(size_of(fd), 64);
    close(fd);
    assert_int_equal(stub.resources, 2);
    SEND(1, 3, 1);
    SEND(1, 3, 2);
    round_trip();
    assert_int_equal(stub.resources, 0);
    SEND(1, 3, 2);
    finish(PV_SESSION_BAD_INPUT, "there is no resource 2");
}

static void test_export_of_a_private_blob(void **state)
{
    start_client(4);
    SEND(6, 18, 2, 1, 64, 0, 0, 0);
    EXPECT(1, 18, 1);
    close(expect_fd());
    SEND(1, 38, 1);
    finish(PV_SESSION_BAD_INPUT, "not made shareable");
}

/* The context cannot make it: the client gets memory all the same, and goes on. */
static void test_dummy_blob(void **state)
{
    start_client(3);
    SEND(6, 18, 2, 3, 12345, 1, 77, 0);
    EXPECT(1, 18, 1);
    int fd = expect_fd();
    assert_true(size_of(fd) == (1ll << 32) + 12345);
    close(fd);
    SEND(1, 3, 1);
    round_trip();
    assert_int_equal(stub.resources, 0);
    finish_by_closing();
}

static void test_shm_total(void **state)
{
    start_client(3);
    SEND(6, 18, 2, 1, 0, 1, 0, 0); /* 4 GiB, all that there is */
    EXPECT(1, 18, 1);
    close(expect_fd());
    SEND(1, 3, 1);
    SEND(6, 18, 2, 1, 0, 1, 0, 0);
    EXPECT(1, 18, 2);
    close(expect_fd());
    SEND(6, 18, 2, 1, 1, 0, 0, 0);
    finish(PV_SESSION_BAD_INPUT, "a client may have 4294967296");
}

/* ---- syncs and streams ---- */

static void test_syncs(void **state)
{
    start_client(4);
    uint32_t a = create_sync(5), b = create_sync(0);
    SEND(1, 21, a);
    EXPECT(2, 21, 5, 0);
    SEND(3, 22, a, 6, 1);
    SEND(1, 21, a);
    EXPECT(2, 21, 6, 1);

    SEND(8, 23, 0, ~0u, a, 0, 0, b, 2, 0);
    EXPECT(0, 23);
    int all = expect_fd();
    SEND(8, 23, 1, 1000, a, 0, 0, b, 2, 0);
    EXPECT(0, 23);
    int any = expect_fd();
    assert_true(is_readable(any, 0));
    assert_false(is_readable(all, 0));
    SEND(3, 22, b, 2, 0);
    assert_true(is_readable(all, 1000));
    close(all);
    close(any);
    SEND(1, 20, a);
    finish_by_closing();
}

static void test_submit_headers(void **state)
{
    /* short header; long header with version 3, as Mesa 26 sends to older servers; and version 4 */
    start_client(3);
    uint32_t a = create_sync(0);
    SEND(11, 24, 1, 1, 7, 1, 8, 1, 0, 1, a, 3, 0);
    SEND(1, 21, a);
    EXPECT(2, 21, 3, 0);
    SEND(13, 24, 1, 1, 9, 1, 10, 1, 0, 0, 0, 1, a, 4, 0);
    SEND(1, 21, a);
    EXPECT(2, 21, 4, 0);
    finish_by_closing();

    start_client(4);
    a = create_sync(0);
    SEND(13, 24, 1, 1, 9, 1, 10, 1, 0, 0, 0, 1, a, 4, 0);
    SEND(1, 21, a);
    EXPECT(2, 21, 4, 0);
    /* two batches, the second without a timeline and without commands */
    SEND(24, 24, 2, 1, 17, 1, 18, 1, 0, 0, 0, 0, 0, 0, 21, 1, 0, 0, 0, 1, a, 7, 0, a, 8, 0);
    SEND(1, 21, a);
    EXPECT(2, 21, 8, 0);
    SEND(1, 24, 0); /* nothing at all */
    round_trip();
    finish_by_closing();
    assert_int_equal(stats_at_end.context.commands, 2);
}

static void test_fences(void **state)
{
    start_client(4);
    uint32_t a = create_sync(0);
    SEND(12, 24, 1, 1, 0, 0, 9, 1, 1, 0, 0, a, 1, 0);
    SEND(12, 24, 1, 1, 0, 0, 9, 1, 2, 0, 0, a, 2, 0);
    SEND(5, 23, 0, ~0u, a, 2, 0);
    EXPECT(0, 23);
    int fd = expect_fd();
    SEND(1, 20, a); /* the wait and the fences keep it */
    round_trip();
    assert_int_equal(stub.fence_count, 2);
    stub_signal_fence(0);
    assert_false(is_readable(fd, 0));
    stub_signal_fence(1);
    assert_true(is_readable(fd, 0));
    close(fd);
    finish_by_closing();
}

/* ---- ends ---- */

/* Requests that are on their way when the context fails are answered: Mesa would spin for ever. */
static void test_failed_context_still_answers(void **state)
{
    start_client(3);
    SEND(8, 24, 1, 1, 7, 1, 0, 0, 0, 2, 6, 18, 2, 1, 64, 0, 0, 0, 1, 15, 1);
    EXPECT(1, 18, 1);
    int fd = expect_fd();
    assert_int_equal(size_of(fd), 64);
    close(fd);
    EXPECT(2, 15, 1, 64);
    expect_closed();
    assert_true(stub.poisoned);
    assert_int_equal(send(client, "x", 1, MSG_NOSIGNAL), -1);
    finish(PV_SESSION_CONTEXT_FAILED, "told to fail");
}

static void test_unbound_ring_idx(void **state)
{
    start_client(4);
    uint32_t a = create_sync(0);
    SEND(12, 24, 1, 1, 0, 0, 9, 1, 63, 0, 0, a, 1, 0);
    expect_closed();
    finish(PV_SESSION_CONTEXT_FAILED, "not bound");
}

static void test_end_wakes_waiters(void **state)
{
    start_client(4);
    uint32_t a = create_sync(0);
    SEND(5, 23, 0, ~0u, a, 1, 0);
    EXPECT(0, 23);
    int fd = expect_fd();
    SEND(0, 99);
    assert_true(is_readable(fd, 1000));
    close(fd);
    finish(PV_SESSION_BAD_INPUT, "99");
}

static void test_stop(void **state)
{
    start_client(3);
    round_trip();
    pv_session_stop(session);
    expect_closed();
    assert_true(stub.poisoned);
    finish(PV_SESSION_STOPPED, "stopping");
}

static void test_client_that_does_not_read(void **state)
{
    start_client(3);
    while (send(client, (uint32_t[]){1, 15, 1}, 12, MSG_DONTWAIT | MSG_NOSIGNAL) > 0)
        continue; /* until both directions are full */
    finish_by_closing();
}

#define TEST(name) cmocka_unit_test_setup(name, set_up)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_handshake),
        TEST(test_wsi_choice),
        TEST(test_old_versions),
        TEST(test_refusal),
        TEST(test_names),
        TEST(test_byte_by_byte),
        TEST(test_many_in_one_piece),
        TEST(test_long_message),
        TEST(test_gone_in_the_middle),
        TEST(test_bad_input),
        TEST(test_before_context),
        TEST(test_wrong_capset),
        TEST(test_blobs),
        TEST(test_export_of_a_private_blob),
        TEST(test_dummy_blob),
        TEST(test_shm_total),
        TEST(test_syncs),
        TEST(test_submit_headers),
        TEST(test_fences),
        TEST(test_failed_context_still_answers),
        TEST(test_unbound_ring_idx),
        TEST(test_end_wakes_waiters),
        TEST(test_stop),
        TEST(test_client_that_does_not_read),
    };
    return cmocka_run_group_tests_name("session", tests, NULL, NULL);
}
