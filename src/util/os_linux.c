#include "util/os.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

/* Linux 6.3; older headers lack it and older kernels answer EINVAL */
#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008u
#endif

uint64_t pv_now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

size_t pv_page_size(void)
{
    return (size_t)sysconf(_SC_PAGESIZE);
}

static int create_memfd(const char *name)
{
    int fd = memfd_create(name, MFD_CLOEXEC | MFD_NOEXEC_SEAL); /* implies ALLOW_SEALING */
    if (fd < 0 && errno == EINVAL)
        fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    return fd < 0 ? -errno : fd;
}

int pv_shm_create(const char *name, uint64_t size, int *out)
{
    if (size == 0 || size > INT64_MAX)
        return -EINVAL;

    int fd = create_memfd(name);
    if (fd < 0)
        return fd;
    if (ftruncate(fd, (off_t)size) < 0 ||
        fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0) {
        int error = errno;
        close(fd);
        return error == EFBIG ? -EINVAL : -error;
    }
    *out = fd;
    return 0;
}

int pv_shm_map(int fd, uint64_t size, void **out)
{
    return pv_shm_map_part(fd, 0, size, out);
}

int pv_shm_map_part(int fd, uint64_t offset, uint64_t size, void **out)
{
    if (size == 0 || size > SIZE_MAX || offset > INT64_MAX)
        return -EINVAL;
    void *map = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)offset);
    if (map == MAP_FAILED)
        return -errno;
    *out = map;
    return 0;
}

void pv_shm_unmap(void *map, uint64_t size)
{
    if (map)
        munmap(map, (size_t)size);
}

int pv_shm_discard(int fd, uint64_t offset, uint64_t size)
{
    int flags = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
    return fallocate(fd, flags, (off_t)offset, (off_t)size) < 0 ? -errno : 0;
}

/* dma-bufs cannot be read but never shrink either; files the other way round. */
int pv_shared_read(int fd, uint64_t offset, void *out, size_t size)
{
    struct stat info;
    if (fd < 0 || fstat(fd, &info) < 0)
        return -EBADF;
    if (S_ISREG(info.st_mode)) {
        ssize_t got = pread(fd, out, size, (off_t)offset);
        return got == (ssize_t)size ? 0 : -EFAULT;
    }
    uint64_t page = pv_page_size(), start = offset & ~(page - 1);
    off_t end = lseek(fd, 0, SEEK_END);
    if (end < 0 || offset > (uint64_t)end || size > (uint64_t)end - offset)
        return -EFAULT;
    size_t map_size = (size_t)(offset - start) + size;
    uint8_t *map = mmap(NULL, map_size, PROT_READ, MAP_SHARED, fd, (off_t)start);
    if (map == MAP_FAILED)
        return -EFAULT;
    memcpy(out, map + (offset - start), size);
    munmap(map, map_size);
    return 0;
}

int pv_shared_write(int fd, uint64_t offset, const void *data, size_t size)
{
    return pwrite(fd, data, size, (off_t)offset) == (ssize_t)size ? 0 : -EFAULT;
}

int pv_fd_duplicate(int fd)
{
    return fcntl(fd, F_DUPFD_CLOEXEC, 0);
}

/* Huge pages have seals, too, but a page that was given back (fallocate) may not come again. */
static bool has_ordinary_pages(int fd)
{
    struct statfs info;
    return fstatfs(fd, &info) == 0 && info.f_type == TMPFS_MAGIC;
}

bool pv_shared_has(int fd, uint64_t size)
{
    struct stat info;
    if (fd < 0 || fstat(fd, &info) < 0)
        return false;
    if (S_ISREG(info.st_mode)) {
        if (!has_ordinary_pages(fd))
            return false;
        fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK); /* or it is already, or never will be */
        int seals = fcntl(fd, F_GET_SEALS);    /* fails for files of disks */
        if (seals < 0 || !(seals & F_SEAL_SHRINK))
            return false;
    } else if (info.st_mode & S_IFMT) {
        return false; /* dma-bufs have no type */
    }
    off_t end = lseek(fd, 0, SEEK_END);
    return end >= 0 && (uint64_t)end >= size;
}

void pv_map_keep_from_children(void *map, size_t size)
{
    madvise(map, size, MADV_DONTFORK);
}

int pv_eventfd_create(int *out)
{
    int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (fd < 0)
        return -errno;
    *out = fd;
    return 0;
}

void pv_eventfd_signal(int fd)
{
    uint64_t one = 1;
    /* fails only when the counter is full, and then the fd is readable already */
    ssize_t written = write(fd, &one, sizeof(one));
    (void)written;
}

static int make_pair(int type, int out[2])
{
    return socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, out) < 0 ? -errno : 0;
}

int pv_pipe(int out[2], bool wait)
{
    return pipe2(out, O_CLOEXEC | (wait ? 0 : O_NONBLOCK)) < 0 ? -errno : 0;
}

int pv_socketpair(int out[2])
{
    return make_pair(SOCK_STREAM, out);
}

int pv_message_socketpair(int out[2])
{
    return make_pair(SOCK_SEQPACKET, out);
}

int pv_stream_socket(int family, bool wait)
{
    int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC | (wait ? 0 : SOCK_NONBLOCK), 0);
    return fd < 0 ? -errno : fd;
}

int pv_accept(int listener, bool wait)
{
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | (wait ? 0 : SOCK_NONBLOCK));
    return fd < 0 ? -errno : fd;
}

ssize_t pv_send(int socket, const void *data, size_t size, bool wait)
{
    ssize_t sent = send(socket, data, size, MSG_NOSIGNAL | (wait ? 0 : MSG_DONTWAIT));
    return sent < 0 ? -errno : sent;
}

ssize_t pv_send_message(int socket, const struct msghdr *message, bool wait)
{
    ssize_t sent = sendmsg(socket, message, MSG_NOSIGNAL | (wait ? 0 : MSG_DONTWAIT));
    return sent < 0 ? -errno : sent;
}

ssize_t pv_receive_message(int socket, struct msghdr *message, bool wait)
{
    ssize_t received = recvmsg(socket, message, MSG_CMSG_CLOEXEC | (wait ? 0 : MSG_DONTWAIT));
    return received < 0 ? -errno : received;
}

void pv_thread_set_name(const char *name)
{
    char short_name[16]; /* the kernel's limit; a longer name would be refused, not cut */
    snprintf(short_name, sizeof(short_name), "%s", name);
    pthread_setname_np(pthread_self(), short_name);
}

void pv_die_with_parent(void)
{
    prctl(PR_SET_PDEATHSIG, SIGTERM);
}

void pv_killed_with_parent(pid_t parent)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(127);
}

int pv_executable_path(char *out, size_t size)
{
    ssize_t n = readlink("/proc/self/exe", out, size);
    if (n < 0)
        return -errno;
    if ((size_t)n >= size)
        return -ENAMETOOLONG;
    out[n] = '\0';
    return 0;
}

static int compare_ints(const void *a, const void *b)
{
    int x = *(const int *)a, y = *(const int *)b;
    return (x > y) - (x < y);
}

/* Both ends belong to the range. */
static void close_fd_range(unsigned int first, unsigned int last)
{
    if (first > last || syscall(SYS_close_range, first, last, 0) == 0)
        return;
    /* before Linux 5.9, or a sandbox that does not know the call */
    struct rlimit limit = {0};
    getrlimit(RLIMIT_NOFILE, &limit);
    for (unsigned int fd = first; fd <= last && fd < limit.rlim_cur; fd++)
        close((int)fd);
}

void pv_close_fds_except(const int *keep, size_t keep_count)
{
    int sorted[16];
    size_t count = 0;
    for (size_t i = 0; i < keep_count && count < sizeof(sorted) / sizeof(sorted[0]); i++) {
        if (keep[i] > STDERR_FILENO)
            sorted[count++] = keep[i];
    }
    qsort(sorted, count, sizeof(sorted[0]), compare_ints);

    unsigned int next = STDERR_FILENO + 1;
    for (size_t i = 0; i < count; i++) {
        if ((unsigned int)sorted[i] > next)
            close_fd_range(next, (unsigned int)sorted[i] - 1);
        next = (unsigned int)sorted[i] + 1;
    }
    close_fd_range(next, ~0u);
}

void pv_raise_fd_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

void pv_trim_heap(void)
{
#ifdef __GLIBC__ /* others have no such call */
    malloc_trim(0);
#endif
}

pid_t pv_socket_peer_pid(int fd)
{
    struct ucred peer;
    socklen_t size = sizeof(peer);
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0)
        return 0;
    return peer.pid;
}

void pv_process_name(pid_t pid, char *out, size_t size)
{
    char path[32];
    snprintf(path, sizeof(path), "/proc/%d/comm", (int)pid);
    snprintf(out, size, "?");

    FILE *file = fopen(path, "re");
    if (!file)
        return;
    char name[32];
    if (fgets(name, sizeof(name), file)) {
        name[strcspn(name, "\n")] = '\0';
        snprintf(out, size, "%s", name);
    }
    fclose(file);
}

bool pv_process_is_stopped(pid_t pid)
{
    char path[32], line[512];
    snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    FILE *file = fopen(path, "re");
    if (!file)
        return false;
    /* "pid (name) state ...", and the name may hold anything */
    const char *name_end = fgets(line, sizeof(line), file) ? strrchr(line, ')') : NULL;
    fclose(file);
    return name_end && (strncmp(name_end, ") T", 3) == 0 || strncmp(name_end, ") t", 3) == 0);
}

int pv_random(void *out, size_t size)
{
    return getentropy(out, size) < 0 ? -EIO : 0;
}

void pv_cond_init(pthread_cond_t *cond)
{
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(cond, &attr);
    pthread_condattr_destroy(&attr);
}

void pv_cond_wait_ns(pthread_cond_t *cond, pthread_mutex_t *lock, uint64_t ns)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += (time_t)(ns / 1000000000u);
    until.tv_nsec += (long)(ns % 1000000000u);
    if (until.tv_nsec >= 1000000000l) {
        until.tv_nsec -= 1000000000l;
        until.tv_sec++;
    }
    pthread_cond_timedwait(cond, lock, &until);
}
