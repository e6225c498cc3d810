#include "util/fdpass.h"

#include "util/os.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* Room for more fds than we want: a peer that sends several must not leave them open in us. */
#define RECEIVE_FDS 16

ssize_t pv_fds_send(int socket, const int *fds, size_t fd_count, const struct iovec *pieces,
                    size_t piece_count, bool wait)
{
    union {
        char bytes[CMSG_SPACE(PV_FDS_MAX * sizeof(int))];
        struct cmsghdr align;
    } control = {0};
    struct msghdr message = {.msg_iov = (struct iovec *)pieces, .msg_iovlen = piece_count};
    if (fd_count > PV_FDS_MAX)
        return -EINVAL;
    if (fd_count > 0) {
        message.msg_control = control.bytes;
        message.msg_controllen = CMSG_SPACE(fd_count * sizeof(int));
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(fd_count * sizeof(int));
        memcpy(CMSG_DATA(header), fds, fd_count * sizeof(int));
    }
    ssize_t sent;
    do {
        sent = pv_send_message(socket, &message, wait);
    } while (sent == -EINTR);
    return sent;
}

int pv_fd_send(int socket, int fd, const void *data, size_t size)
{
    const struct iovec piece = {.iov_base = (void *)data, .iov_len = size};
    ssize_t sent = pv_fds_send(socket, &fd, 1, &piece, 1, true);
    if (sent < 0)
        return (int)sent;
    return (size_t)sent == size ? 0 : -EMSGSIZE;
}

/* The first fds are the caller's, the others are closed. */
static size_t take_fds(struct msghdr *message, int *fds, size_t room)
{
    size_t taken = 0;
    struct cmsghdr *header;
    for (header = CMSG_FIRSTHDR(message); header; header = CMSG_NXTHDR(message, header)) {
        if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS)
            continue;
        size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < count; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(header) + i * sizeof(int), sizeof(int));
            if (taken < room)
                fds[taken++] = fd;
            else
                close(fd);
        }
    }
    return taken;
}

ssize_t pv_fds_receive(int socket, void *data, size_t size, bool wait, int fds[PV_FDS_MAX],
                       size_t *out_count)
{
    union {
        char bytes[CMSG_SPACE(RECEIVE_FDS * sizeof(int))];
        struct cmsghdr align;
    } control;
    struct iovec piece = {.iov_base = data, .iov_len = size};
    struct msghdr message = {
        .msg_iov = &piece,
        .msg_iovlen = 1,
        .msg_control = control.bytes,
        .msg_controllen = sizeof(control.bytes),
    };
    *out_count = 0;
    ssize_t received;
    do {
        received = pv_receive_message(socket, &message, wait);
    } while (received == -EINTR);
    if (received < 0)
        return received;
    size_t count = take_fds(&message, fds, PV_FDS_MAX);
    if (count < PV_FDS_MAX && (message.msg_flags & MSG_CTRUNC))
        fds[count++] = PV_FD_LOST;
    *out_count = count;
    return received;
}

int pv_fd_receive(int socket, void *data, size_t size, int *out_fd)
{
    int fds[PV_FDS_MAX];
    size_t count;
    ssize_t received = pv_fds_receive(socket, data, size, true, fds, &count);
    if (received < 0)
        return (int)received;
    *out_fd = count > 0 && fds[0] >= 0 ? fds[0] : -1;
    for (size_t i = 1; i < count; i++) {
        if (fds[i] >= 0)
            close(fds[i]);
    }
    return (int)received;
}
