#include "transport/vtest/connection.h"

#include "transport/vtest/protocol.h"
#include "util/fdpass.h"
#include "util/os.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define HEADER_SIZE  8
#define REST_SPIN_NS 50000u      /* the pieces of a message come within a few microseconds */
#define BUFFER_SIZE  (64u << 10) /* several hundred of Mesa's messages */
#define REPLY_WORDS  64          /* the longest reply is GET_CAPSET's, 41 words */

int pv_connection_init(struct pv_connection *connection, int fd)
{
    *connection = (struct pv_connection){
        .fd = fd,
        .buffer = malloc(BUFFER_SIZE),
        .buffer_size = BUFFER_SIZE,
    };
    return connection->buffer ? 0 : -ENOMEM;
}

void pv_connection_finish(struct pv_connection *connection)
{
    free(connection->buffer);
    connection->buffer = NULL;
}

static void move_to_front(struct pv_connection *connection)
{
    memmove(connection->buffer, connection->buffer + connection->start,
            connection->end - connection->start);
    connection->end -= connection->start;
    connection->start = 0;
}

/* Make room for a message of `size` bytes that begins at `start`. */
static int reserve(struct pv_connection *connection, size_t size)
{
    if (connection->start + size <= connection->buffer_size)
        return 0;
    move_to_front(connection);
    if (size <= connection->buffer_size)
        return 0;
    uint8_t *buffer = realloc(connection->buffer, size);
    if (!buffer)
        return -ENOMEM;
    connection->buffer = buffer;
    connection->buffer_size = size;
    return 0;
}

/* The byte that was left in the socket: what it belongs to has been answered by now, or is not
 * complete. */
static void take_left_byte(struct pv_connection *connection)
{
    uint8_t byte;
    if (connection->left && recv(connection->fd, &byte, 1, MSG_DONTWAIT) == 1)
        connection->left = false;
}

/* `size` bytes have been looked at: take all but the last out of the socket. Returns how many are
 * in the buffer now, or -1 with errno. */
static ssize_t leave_last_byte(struct pv_connection *connection, size_t size)
{
    ssize_t taken = 0;
    if (size > 1)
        taken = recv(connection->fd, connection->buffer + connection->end, size - 1, MSG_DONTWAIT);
    if (taken < 0)
        return -1;
    connection->left = true;
    return taken + 1;
}

/* Look at what has come, or wait for it.
 *
 * Mesa writes a message in several pieces. Sleeping between them would make the client pay for a
 * wake-up at each, so the rest of a message is looked for without sleeping, offering the core to
 * the client, which may be on the same one. */
static ssize_t receive_some(struct pv_connection *connection)
{
    uint8_t *to = connection->buffer + connection->end;
    size_t room = connection->buffer_size - connection->end;

    if (connection->end > connection->start) {
        uint64_t start = pv_now_ns();
        do {
            ssize_t size = recv(connection->fd, to, room, MSG_PEEK | MSG_DONTWAIT);
            if (size >= 0 || errno != EAGAIN)
                return size;
            sched_yield();
        } while (pv_now_ns() - start < REST_SPIN_NS);
    } else if (connection->before_sleep) {
        uint64_t start = pv_now_ns();
        while (connection->before_sleep(connection->data, pv_now_ns() - start)) {
            ssize_t size = recv(connection->fd, to, room, MSG_PEEK | MSG_DONTWAIT);
            if (size >= 0 || errno != EAGAIN)
                return size;
            sched_yield();
        }
    }
    return recv(connection->fd, to, room, MSG_PEEK);
}

/* Take what has come. Returns 1, 0 at the end of the stream, or a negative errno. */
static int fill(struct pv_connection *connection)
{
    ssize_t size;
    take_left_byte(connection);
    do {
        size = receive_some(connection);
        if (size > 0)
            size = leave_last_byte(connection, (size_t)size);
    } while (size < 0 && errno == EINTR);
    if (size < 0)
        return -errno;
    if (size == 0)
        return 0;
    /* the first thing of all: an idle ring may find its work while we still parse */
    if (connection->woken)
        connection->woken(connection->data);
    connection->end += (size_t)size;
    connection->bytes_received += (uint64_t)size;
    return 1;
}

/* Wait until `size` bytes lie at `start`. Returns as fill(). */
static int need(struct pv_connection *connection, size_t size)
{
    int ret = reserve(connection, size);
    if (ret < 0)
        return ret;
    while (connection->end - connection->start < size) {
        ret = fill(connection);
        if (ret <= 0)
            return ret;
    }
    return 1;
}

static void begin_message(struct pv_connection *connection)
{
    if (connection->start == connection->end)
        connection->start = connection->end = 0;
    else if (connection->start % 4 != 0)
        move_to_front(connection); /* after CREATE_RENDERER, the only one of odd length */
}

int pv_connection_receive(struct pv_connection *connection, struct pv_message *out)
{
    begin_message(connection);
    int ret = need(connection, HEADER_SIZE);
    if (ret <= 0)
        return ret == 0 && connection->end > connection->start ? -ECONNRESET : ret;

    uint32_t header[2];
    memcpy(header, connection->buffer + connection->start, sizeof(header));
    uint64_t size = header[1] == PV_VTEST_CREATE_RENDERER ? header[0] : (uint64_t)header[0] * 4;
    *out = (struct pv_message){.length = header[0], .command = header[1]};
    if (size > PV_CONNECTION_PAYLOAD_MAX)
        return -EMSGSIZE;

    ret = need(connection, HEADER_SIZE + (size_t)size);
    if (ret <= 0)
        return ret == 0 ? -ECONNRESET : ret;
    out->size = (size_t)size;
    out->payload = connection->buffer + connection->start + HEADER_SIZE;
    connection->start += HEADER_SIZE + (size_t)size;
    connection->messages++;
    return 1;
}

static int send_all(struct pv_connection *connection, const void *data, size_t size)
{
    const uint8_t *bytes = data;
    connection->bytes_sent += size;
    while (size > 0) {
        ssize_t sent = pv_send(connection->fd, bytes, size, true);
        if (sent == -EINTR)
            continue;
        if (sent < 0)
            return (int)sent;
        bytes += sent;
        size -= (size_t)sent;
    }
    return 0;
}

int pv_connection_reply(struct pv_connection *connection, uint32_t command, const uint32_t *words,
                        uint32_t word_count)
{
    uint32_t reply[2 + REPLY_WORDS] = {word_count, command};
    if (word_count > REPLY_WORDS)
        return -EINVAL;
    if (word_count > 0)
        memcpy(reply + 2, words, word_count * sizeof(uint32_t));
    connection->replies++;
    return send_all(connection, reply, (2 + (size_t)word_count) * sizeof(uint32_t));
}

int pv_connection_reply_fd(struct pv_connection *connection, uint32_t command,
                           const uint32_t *words, uint32_t word_count, int fd)
{
    int ret = pv_connection_reply(connection, command, words, word_count);
    if (ret < 0)
        return ret;
    const uint8_t carrier = 0;
    connection->bytes_sent++;
    return pv_fd_send(connection->fd, fd, &carrier, sizeof(carrier));
}

void pv_connection_stop(int fd)
{
    shutdown(fd, SHUT_RD);
}
