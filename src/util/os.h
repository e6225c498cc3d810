/* What PearVisor needs from the operating system beyond C and POSIX threads.
 *
 * os_linux.c is the only file that may call Linux-only functions; a macOS port adds os_macos.c.
 * All functions return 0 or a negative errno unless they say otherwise; an empty fd is -1.
 *
 * Threads: any, unless said otherwise.
 */
#ifndef PV_UTIL_OS_H
#define PV_UTIL_OS_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct msghdr;

/* Nanoseconds of a clock that never goes back. */
uint64_t pv_now_ns(void);

/* The host's page size in bytes (4, 16 or 64 KiB). */
size_t pv_page_size(void);

/* Round `size` up to a multiple of `align` (a power of two). The caller checks for overflow. */
static inline uint64_t pv_align_up(uint64_t size, uint64_t align)
{
    return (size + align - 1) & ~(align - 1);
}

/* Anonymous shared memory of exactly `size` bytes, zeroed, close-on-exec. The size is sealed where
 * the OS can, so that the other side cannot shrink it under our mapping. Returns the fd through
 * `out`, or -ENOMEM, -EMFILE, -EINVAL (size 0). */
int pv_shm_create(const char *name, uint64_t size, int *out);

/* Map all `size` bytes of `fd` for reading and writing, shared. */
int pv_shm_map(int fd, uint64_t size, void **out);
/* The same for [offset, offset + size); `offset` is a multiple of the page size. */
int pv_shm_map_part(int fd, uint64_t offset, uint64_t size, void **out);
void pv_shm_unmap(void *map, uint64_t size);

/* Give the pages of a range (both page-aligned) back to the host: it reads as zeros again, through
 * every mapping. */
int pv_shm_discard(int fd, uint64_t offset, uint64_t size);

/* Copy out of shared memory of somebody else, who may cut it short meanwhile: -EFAULT when it ends
 * before, never a signal. */
int pv_shared_read(int fd, uint64_t offset, void *out, size_t size);

int pv_shared_write(int fd, uint64_t offset, const void *data, size_t size);
/* Memory of somebody else that has at least `size` bytes and cannot lose them any more: a dma-buf,
 * or shared memory that is or can be sealed. Who maps it gets no signals from it. */
bool pv_shared_has(int fd, uint64_t size);

/* Leave this mapping out of children that are forked from now on, where the OS can. */
void pv_map_keep_from_children(void *map, size_t size);

/* Another fd, close-on-exec, for the same file; -1 if there can be none. */
int pv_fd_duplicate(int fd);

/* A counter that poll() can wait for. pv_event_signal makes the fd readable, for ever. */
int pv_eventfd_create(int *out);
void pv_eventfd_signal(int fd);

/* Pipes and sockets are close-on-exec from their first moment on. With `wait` false nothing that is
 * done to them blocks: it fails with EAGAIN. */

/* out[0] reads what is written to out[1]. */
int pv_pipe(int out[2], bool wait);
/* Two connected Unix streams. */
int pv_socketpair(int out[2]);
/* The same, but messages are kept whole and in order, and each end knows when the other has gone.
 */
int pv_message_socketpair(int out[2]);
/* A stream socket of a family (AF_UNIX, AF_INET, …). Returns the fd. */
int pv_stream_socket(int family, bool wait);
/* The next connection to a listening socket; `wait` is about the connection. Returns its fd;
 * -EAGAIN if there is none and the listener was made not to wait. */
int pv_accept(int listener, bool wait);

/* As send() and sendmsg(), but a peer that has gone is -EPIPE and no signal. Returns how many bytes
 * went. */
ssize_t pv_send(int socket, const void *data, size_t size, bool wait);
ssize_t pv_send_message(int socket, const struct msghdr *message, bool wait);
/* As recvmsg(); fds that come are close-on-exec. */
ssize_t pv_receive_message(int socket, struct msghdr *message, bool wait);

/* Name the calling thread (15 bytes are kept). */
void pv_thread_set_name(const char *name);

/* End this process when the thread that started it ends, where the OS can. Call in the child. The
 * process gets SIGTERM, so that a handler may say goodbye first. */
void pv_die_with_parent(void);
/* The same with SIGKILL, which stays in force in a program that the child executes. `parent` is
 * what getpid() said in the parent: if that has ended already, so does the child. */
void pv_killed_with_parent(pid_t parent);

/* The path of the program that runs. Returns 0, -ENAMETOOLONG, or what the OS said. */
int pv_executable_path(char *out, size_t size);

/* Close every fd above standard error that is not among the `keep_count` ones in `keep`. For a
 * child that was forked and not executed: it has all fds of its parent, close-on-exec or not. */
void pv_close_fds_except(const int *keep, size_t keep_count);

/* Raise the limit on open fds as far as this user may. Many small blobs mean many fds. */
void pv_raise_fd_limit(void);

/* Give pages of the heap that hold nothing back to the OS, wherever in the heap they are. Takes as
 * long as walking through its free pieces: 0.2 ms for the heap of a desktop program's worker. */
void pv_trim_heap(void);

/* The process at the other end of a connected Unix socket; 0 if the OS does not say. */
pid_t pv_socket_peer_pid(int fd);

/* The short name of a process, "?" if it cannot be read. */
void pv_process_name(pid_t pid, char *out, size_t size);

/* A process exists and is stopped (SIGSTOP, a debugger). */
bool pv_process_is_stopped(pid_t pid);

/* Bytes that nobody can guess. Does not wait once the machine is up; -EIO if there are none. */
int pv_random(void *out, size_t size);

/* A condition whose waits go by the clock of pv_now_ns, where the OS can. Destroy it as any other.
 */
void pv_cond_init(pthread_cond_t *cond);
/* Wait for `ns` at most, with `lock` held; may return early, as conditions do. */
void pv_cond_wait_ns(pthread_cond_t *cond, pthread_mutex_t *lock, uint64_t ns);

/* Tell the CPU that we spin. */
static inline void pv_cpu_relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

#endif
