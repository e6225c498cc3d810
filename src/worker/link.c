#include "worker/link.h"

#include "util/fdpass.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* In front of each message. Both ends are the same binary. */
struct header {
    uint32_t magic;
    uint32_t has_fd; /* one was attached to this message's first byte */
    struct pv_link_message message;
};
static_assert(sizeof(struct header) % 8 == 0, "payloads are aligned for words of 8 bytes");

#define MAGIC       0x6b6e696cu
#define BUFFER_SIZE (64u << 10)
/* A larger buffer is given back when it is empty. */
#define BUFFER_KEEP (1u << 20)
/* An fd comes with the first piece of its message, so at most two wait for the rest of theirs. */
#define FDS_WAITING 8
/* What a worker has to say is a line of text. */
#define NEWS_PAYLOAD_MAX 4096u

/* What did not fit into the socket. */
struct chunk {
    struct chunk *next;
    int fd; /* owned; sent with the first byte; -1 */
    size_t size, sent;
    uint8_t bytes[];
};

struct pv_link {
    int fd; /* owned */
    bool blocking;

    pthread_mutex_t send_lock; /* guards the rest of this paragraph */
    struct chunk *first, **last;
    size_t backlog;
    bool broken; /* half a message has gone, and the rest never will */

    uint8_t *buffer; /* owned; received, [start, end) not yet taken */
    size_t room, start, end;
    int fds[FDS_WAITING]; /* owned; came already, for messages not yet taken */
    size_t fd_count;
};

int pv_link_create(int fd, bool blocking, struct pv_link **out)
{
    struct pv_link *link = calloc(1, sizeof(*link));
    if (!link)
        return -ENOMEM;
    link->buffer = malloc(BUFFER_SIZE);
    if (!link->buffer) {
        free(link);
        return -ENOMEM;
    }
    link->room = BUFFER_SIZE;
    link->fd = fd;
    link->blocking = blocking;
    link->last = &link->first;
    pthread_mutex_init(&link->send_lock, NULL);
    *out = link;
    return 0;
}

static void close_fd(int fd)
{
    if (fd >= 0)
        close(fd);
}

static void free_first_chunk(struct pv_link *link)
{
    struct chunk *chunk = link->first;
    link->first = chunk->next;
    if (!link->first)
        link->last = &link->first;
    link->backlog -= chunk->size - chunk->sent;
    close_fd(chunk->fd);
    free(chunk);
}

void pv_link_destroy(struct pv_link *link)
{
    if (!link)
        return;
    while (link->first)
        free_first_chunk(link);
    for (size_t i = 0; i < link->fd_count; i++)
        close_fd(link->fds[i]);
    close(link->fd);
    free(link->buffer);
    pthread_mutex_destroy(&link->send_lock);
    free(link);
}

int pv_link_fd(const struct pv_link *link)
{
    return link->fd;
}

/* ---- sending ---- */

/* Any failure of a socket that is ours means that the other side has gone. */
static int send_error(ssize_t error)
{
    return error == -EAGAIN || error == -ENOMEM || error == -ENOBUFS ? (int)error : -EPIPE;
}

/* Send what waits. 0 when all or what fits has gone, else -EPIPE. */
static int flush_locked(struct pv_link *link)
{
    while (link->first) {
        struct chunk *chunk = link->first;
        const struct iovec piece = {chunk->bytes + chunk->sent, chunk->size - chunk->sent};
        ssize_t sent = pv_fds_send(link->fd, &chunk->fd, chunk->fd >= 0, &piece, 1, false);
        if (sent < 0)
            return send_error(sent) == -EPIPE ? -EPIPE : 0;
        chunk->sent += (size_t)sent;
        link->backlog -= (size_t)sent;
        close_fd(chunk->fd);
        chunk->fd = -1;
        if (chunk->sent == chunk->size)
            free_first_chunk(link);
    }
    return 0;
}

/* Keep what has not gone: the bytes of `pieces` from `skip` on. */
static int queue_locked(struct pv_link *link, const struct iovec pieces[2], size_t skip, int fd)
{
    size_t size = pieces[0].iov_len + pieces[1].iov_len - skip;
    struct chunk *chunk = malloc(sizeof(*chunk) + size);
    if (!chunk)
        return -ENOMEM;
    *chunk = (struct chunk){.fd = -1, .size = size};
    if (fd >= 0 && skip == 0) {
        chunk->fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
        if (chunk->fd < 0) {
            free(chunk);
            return -ENOMEM;
        }
    }
    size_t at = 0;
    for (unsigned i = 0; i < 2; i++) {
        size_t left_out = skip < pieces[i].iov_len ? skip : pieces[i].iov_len;
        size_t rest = pieces[i].iov_len - left_out;
        skip -= left_out;
        if (rest > 0)
            memcpy(chunk->bytes + at, (const uint8_t *)pieces[i].iov_base + left_out, rest);
        at += rest;
    }
    *link->last = chunk;
    link->last = &chunk->next;
    link->backlog += size;
    return 0;
}

static int send_now_or_later_locked(struct pv_link *link, const struct iovec pieces[2], int fd)
{
    if (link->backlog > PV_LINK_BACKLOG_MAX)
        return -ENOBUFS;
    ssize_t sent = 0;
    if (!link->first) {
        sent = pv_fds_send(link->fd, &fd, fd >= 0, pieces, 2, false);
        if (sent < 0 && send_error(sent) == -EPIPE)
            return -EPIPE;
        if (sent < 0)
            sent = 0;
    }
    if ((size_t)sent == pieces[0].iov_len + pieces[1].iov_len)
        return 0;
    int ret = queue_locked(link, pieces, (size_t)sent, fd);
    if (ret < 0 && sent > 0) {
        link->broken = true;
        shutdown(link->fd, SHUT_RDWR);
    }
    return ret;
}

static int send_all_locked(struct pv_link *link, struct iovec pieces[2], int fd)
{
    while (pieces[0].iov_len + pieces[1].iov_len > 0) {
        ssize_t sent = pv_fds_send(link->fd, &fd, fd >= 0, pieces, 2, true);
        if (sent < 0) {
            link->broken = true;
            return -EPIPE;
        }
        fd = -1;
        size_t left = (size_t)sent;
        for (unsigned i = 0; i < 2; i++) {
            size_t gone = left < pieces[i].iov_len ? left : pieces[i].iov_len;
            pieces[i].iov_base = (uint8_t *)pieces[i].iov_base + gone;
            pieces[i].iov_len -= gone;
            left -= gone;
        }
    }
    return 0;
}

int pv_link_send(struct pv_link *link, const struct pv_link_message *message, const void *payload,
                 int fd)
{
    struct header header = {.magic = MAGIC, .has_fd = fd >= 0, .message = *message};
    struct iovec pieces[2] = {
        {&header, sizeof(header)},
        {(void *)payload, message->payload_size},
    };
    assert(message->payload_size <= PV_LINK_PAYLOAD_MAX);
    pthread_mutex_lock(&link->send_lock);
    int ret = -EPIPE;
    if (!link->broken && link->blocking)
        ret = send_all_locked(link, pieces, fd);
    else if (!link->broken && (ret = flush_locked(link)) == 0)
        ret = send_now_or_later_locked(link, pieces, fd);
    pthread_mutex_unlock(&link->send_lock);
    return ret;
}

size_t pv_link_backlog(struct pv_link *link)
{
    pthread_mutex_lock(&link->send_lock);
    size_t backlog = link->backlog;
    pthread_mutex_unlock(&link->send_lock);
    return backlog;
}

int pv_link_flush(struct pv_link *link)
{
    pthread_mutex_lock(&link->send_lock);
    int ret = link->broken ? -EPIPE : flush_locked(link);
    pthread_mutex_unlock(&link->send_lock);
    return ret;
}

/* ---- receiving ---- */

/* Make room for a message of `size` bytes at `start`, aligned. */
static int reserve(struct pv_link *link, size_t size)
{
    if (link->start == link->end) {
        link->start = link->end = 0;
        if (link->room > BUFFER_KEEP && size <= BUFFER_SIZE) {
            uint8_t *smaller = realloc(link->buffer, BUFFER_SIZE);
            if (smaller) {
                link->buffer = smaller;
                link->room = BUFFER_SIZE;
            }
        }
    }
    if (link->start % 8 != 0 || link->start + size > link->room) {
        memmove(link->buffer, link->buffer + link->start, link->end - link->start);
        link->end -= link->start;
        link->start = 0;
    }
    if (size <= link->room)
        return 0;
    uint8_t *larger = realloc(link->buffer, size);
    if (!larger)
        return -ENOMEM;
    link->buffer = larger;
    link->room = size;
    return 0;
}

static int keep_fds(struct pv_link *link, const int *fds, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (link->fd_count == FDS_WAITING) {
            for (; i < count; i++)
                close_fd(fds[i]);
            return -EPROTO;
        }
        link->fds[link->fd_count++] = fds[i];
    }
    return 0;
}

/* Have `size` bytes at `start`. 1, 0 if they are not there yet, or a negative errno. */
static int need(struct pv_link *link, size_t size, bool wait)
{
    int ret = reserve(link, size);
    if (ret < 0)
        return ret;
    while (link->end - link->start < size) {
        int fds[PV_FDS_MAX];
        size_t fd_count;
        ssize_t got = pv_fds_receive(link->fd, link->buffer + link->end, link->room - link->end,
                                     wait, fds, &fd_count);
        if (got == -EAGAIN)
            return 0;
        if (got <= 0)
            return -EPIPE;
        link->end += (size_t)got;
        ret = keep_fds(link, fds, fd_count);
        if (ret < 0)
            return ret;
    }
    return 1;
}

static bool makes_sense(const struct pv_link *link, const struct header *header)
{
    bool is_news = header->message.type >= PV_LINK_FENCE_DONE;
    if (header->magic != MAGIC || header->has_fd > 1 || is_news == link->blocking)
        return false;
    switch (header->message.type) {
    case PV_LINK_SUBMIT:
        return header->message.payload_size <= PV_LINK_PAYLOAD_MAX;
    case PV_LINK_FAILED:
        return header->message.payload_size <= NEWS_PAYLOAD_MAX;
    case PV_LINK_FENCE:
    case PV_LINK_CREATE_BLOB:
    case PV_LINK_IMPORT:
    case PV_LINK_FORGET:
    case PV_LINK_PING:
    case PV_LINK_FENCE_DONE:
    case PV_LINK_BLOB_DONE:
    case PV_LINK_FORGOTTEN:
    case PV_LINK_RING:
    case PV_LINK_PONG:
        return header->message.payload_size == 0;
    default:
        return false;
    }
}

static int receive(struct pv_link *link, bool wait, struct pv_link_message *out,
                   const void **payload, int *fd)
{
    struct header header;
    int ret = need(link, sizeof(header), wait);
    if (ret <= 0)
        return ret;
    memcpy(&header, link->buffer + link->start, sizeof(header));
    if (!makes_sense(link, &header) || (header.has_fd && link->fd_count == 0))
        return -EPROTO;
    size_t size = sizeof(header) + header.message.payload_size;
    ret = need(link, size, wait);
    if (ret <= 0)
        return ret;
    *out = header.message;
    *payload = link->buffer + link->start + sizeof(header);
    *fd = -1;
    if (header.has_fd) {
        *fd = link->fds[0] >= 0 ? link->fds[0] : -1;
        link->fd_count--;
        memmove(link->fds, link->fds + 1, link->fd_count * sizeof(link->fds[0]));
    }
    link->start += size;
    return 1;
}

int pv_link_receive(struct pv_link *link, struct pv_link_message *out, const void **payload,
                    int *fd)
{
    return receive(link, link->blocking, out, payload, fd);
}

int pv_link_try_receive(struct pv_link *link, struct pv_link_message *out, const void **payload,
                        int *fd)
{
    return receive(link, false, out, payload, fd);
}
