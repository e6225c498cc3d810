#include "transport/virtio/message.h"

#include "util/fdpass.h"
#include "util/log.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#define PV_LOG_MODULE "virtio"

#define HEADER_SIZE  12u
#define VERSION      1u
#define VERSION_MASK 3u

_Static_assert(PV_FDS_MAX >= PV_VHOST_FDS_MAX, "a memory table's fds come with one message");

void pv_vhost_channel_init(struct pv_vhost_channel *channel, int fd)
{
    channel->fd = fd;
    channel->received = 0;
    channel->unsent_size = 0;
    channel->in.fd_count = 0;
}

static void close_fds(struct pv_vhost_message *message)
{
    for (size_t i = 0; i < message->fd_count; i++) {
        if (message->fds[i] >= 0)
            close(message->fds[i]);
    }
    message->fd_count = 0;
}

void pv_vhost_channel_finish(struct pv_vhost_channel *channel)
{
    close_fds(&channel->in);
}

int pv_vhost_take_fd(struct pv_vhost_message *message, size_t i)
{
    if (i >= message->fd_count)
        return -1;
    int fd = message->fds[i];
    message->fds[i] = -1;
    return fd;
}

/* Keep what came; more than one message may carry is closed. */
static int keep_fds(struct pv_vhost_message *message, const int *fds, size_t count)
{
    int ret = 0;
    for (size_t i = 0; i < count; i++) {
        if (fds[i] == PV_FD_LOST) {
            pv_error("message %u: out of file descriptors", message->request);
            ret = -EMFILE;
        } else if (message->fd_count == PV_VHOST_FDS_MAX) {
            close(fds[i]);
            ret = -EPROTO;
        } else {
            message->fds[message->fd_count++] = fds[i];
        }
    }
    if (ret == -EPROTO)
        pv_error("a message with more than %u file descriptors", PV_VHOST_FDS_MAX);
    return ret;
}

/* Receive up to `wanted` bytes in all of the message. 1: they are there. */
static int receive_up_to(struct pv_vhost_channel *channel, size_t wanted)
{
    struct pv_vhost_message *in = &channel->in;
    while (channel->received < wanted) {
        uint8_t *to = channel->received < HEADER_SIZE
                          ? (uint8_t *)in + channel->received
                          : in->payload + (channel->received - HEADER_SIZE);
        int fds[PV_FDS_MAX];
        size_t fd_count = 0;
        ssize_t n =
            pv_fds_receive(channel->fd, to, wanted - channel->received, false, fds, &fd_count);
        if (n == -EAGAIN)
            return 0;
        if (n < 0)
            return (int)n;
        if (n == 0) {
            if (channel->received > 0)
                pv_error("the connection ended in the middle of a message");
            return -EPIPE;
        }
        channel->received += (size_t)n;
        int ret = keep_fds(in, fds, fd_count);
        if (ret < 0)
            return ret;
    }
    return 1;
}

int pv_vhost_receive(struct pv_vhost_channel *channel, struct pv_vhost_message **out)
{
    _Static_assert(offsetof(struct pv_vhost_message, size) == 8, "the header is received in place");
    struct pv_vhost_message *in = &channel->in;
    if (channel->received >= HEADER_SIZE && channel->received == HEADER_SIZE + in->size) {
        channel->received = 0; /* the last one has been handled */
        close_fds(in);
    }
    int ret = receive_up_to(channel, HEADER_SIZE);
    if (ret <= 0)
        return ret;
    if ((in->flags & VERSION_MASK) != VERSION) {
        pv_error("message %u has flags 0x%x; this is not vhost-user version 1", in->request,
                 in->flags);
        return -EPROTO;
    }
    if (in->size > PV_VHOST_PAYLOAD_MAX) {
        pv_error("message %u has %u bytes, at most %u are taken", in->request, in->size,
                 PV_VHOST_PAYLOAD_MAX);
        return -EPROTO;
    }
    ret = receive_up_to(channel, HEADER_SIZE + in->size);
    if (ret == 1)
        *out = in;
    return ret;
}

/* Keep what the socket has not taken. There is room. */
static void keep_unsent(struct pv_vhost_channel *channel, const void *bytes, size_t size)
{
    memcpy(channel->unsent + channel->unsent_size, bytes, size);
    channel->unsent_size += size;
}

int pv_vhost_send(struct pv_vhost_channel *channel, uint32_t request, uint32_t flags,
                  const void *payload, size_t size, int fd)
{
    uint32_t header[3] = {request, flags | VERSION, (uint32_t)size};
    const struct iovec pieces[] = {
        {.iov_base = header, .iov_len = sizeof(header)},
        {.iov_base = (void *)payload, .iov_len = size},
    };
    ssize_t sent = -EAGAIN;
    if (!pv_vhost_must_flush(channel))
        sent = pv_fds_send(channel->fd, &fd, fd >= 0, pieces, size > 0 ? 2 : 1, false);
    if (sent == -EAGAIN) {
        if (fd >= 0)
            return -EAGAIN;
        sent = 0;
    }
    if (sent < 0)
        return (int)sent;

    size_t of_header = (size_t)sent < sizeof(header) ? (size_t)sent : sizeof(header);
    size_t of_payload = (size_t)sent - of_header;
    if (sizeof(header) - of_header + size - of_payload > PV_VHOST_UNSENT_MAX - channel->unsent_size)
        return -ENOBUFS;
    keep_unsent(channel, (const uint8_t *)header + of_header, sizeof(header) - of_header);
    if (size > of_payload)
        keep_unsent(channel, (const uint8_t *)payload + of_payload, size - of_payload);
    return 0;
}

int pv_vhost_flush(struct pv_vhost_channel *channel)
{
    if (channel->unsent_size == 0)
        return 0;
    const struct iovec piece = {.iov_base = channel->unsent, .iov_len = channel->unsent_size};
    ssize_t sent = pv_fds_send(channel->fd, NULL, 0, &piece, 1, false);
    if (sent == -EAGAIN)
        return 0;
    if (sent < 0)
        return (int)sent;
    channel->unsent_size -= (size_t)sent;
    memmove(channel->unsent, channel->unsent + sent, channel->unsent_size);
    return 0;
}
