/* A guest for tests: a context on the null driver, its shared memory, and a ring as Mesa lays it
 * out.
 */
#ifndef PV_TESTS_VENUS_FIXTURE_H
#define PV_TESTS_VENUS_FIXTURE_H

#include "null/null_driver.h"
#include "venus/context.h"
#include "venus/protocol.h"
#include "venus/ring.h"

#include <pthread.h>
#include <stdatomic.h>

#define GUEST_RING_RESOURCE  1u
#define GUEST_REPLY_RESOURCE 2u
#define GUEST_REPLY_SIZE     65536u
#define GUEST_RING_ID        0x1234567800000001ull
#define GUEST_FENCES         1024

struct guest {
    struct pv_context *ctx;
    uint8_t *ring;        /* mapping of GUEST_RING_RESOURCE, guest_ring_size() bytes */
    uint8_t *replies;     /* mapping of GUEST_REPLY_RESOURCE */
    uint32_t buffer_size; /* of the ring */
    uint32_t tail;        /* written so far */
    atomic_uint failures;
    char reason[256];              /* of the failure */
    atomic_bool gone;              /* answer of the abandoned callback */
    atomic_uint fence_count;       /* signalled */
    uint64_t fences[GUEST_FENCES]; /* ring_idx << 32 | cookie, in order */
    pthread_mutex_t lock;          /* for fences */
    atomic_uint released;          /* how many resources */
    _Atomic uint32_t last_released;
    _Atomic uint64_t released_offset;
    atomic_int rings; /* that were announced and not taken back */
    _Atomic uint64_t ring_status;
};

/* Opens a context with shared memory for a ring with this buffer, and for replies. */
void guest_open(struct guest *guest, uint32_t buffer_size);
/* The same, counting there. */
struct pv_activity;
void guest_open_counting(struct guest *guest, uint32_t buffer_size, struct pv_activity *activity);
/* Destroys it; nothing of the driver's may be left. */
void guest_close(struct guest *guest);

/* Whole commands on the context stream. Returns what pv_context_submit does. */
int guest_submit(struct guest *guest, const uint32_t *words, size_t count);
#define GUEST_SUBMIT(guest, ...)                         \
    guest_submit(guest, (const uint32_t[]){__VA_ARGS__}, \
                 sizeof((const uint32_t[]){__VA_ARGS__}) / 4)
/* The same, and it must succeed. */
#define GUEST_RUN(guest, ...) assert_int_equal(GUEST_SUBMIT(guest, __VA_ARGS__), 0)

/* It must have failed, once, with this in its reason. */
void guest_expect_failure(struct guest *guest, const char *part);

/* VkRingCreateInfoMESA. */
struct guest_ring_info {
    uint32_t flags, resource;
    uint64_t offset, size, idle_timeout, head, tail, status, buffer, buffer_size, extra, extra_size;
    uint32_t monitor_period; /* µs; UINT32_MAX: no monitor struct */
};
struct guest_ring_info guest_ring_info(const struct guest *guest);
int guest_create_ring(struct guest *guest, uint64_t id, const struct guest_ring_info *info);
size_t guest_ring_size(const struct guest *guest);

_Atomic uint32_t *guest_head(struct guest *guest);
_Atomic uint32_t *guest_tail(struct guest *guest);
_Atomic uint32_t *guest_status(struct guest *guest);

/* Write commands and move the tail; waits for space. Notifies only if asked to. */
void guest_write(struct guest *guest, const uint32_t *words, size_t count);
#define GUEST_WRITE(guest, ...) \
    guest_write(guest, (const uint32_t[]){__VA_ARGS__}, sizeof((const uint32_t[]){__VA_ARGS__}) / 4)
/* vkNotifyRingMESA if the ring is idle. */
void guest_notify(struct guest *guest);
/* Has the ring come as far as it was written? Waits up to so many milliseconds. */
bool guest_wait(struct guest *guest, unsigned ms);
bool guest_wait_status(struct guest *guest, uint32_t bits, unsigned ms);
void guest_sleep_us(unsigned us);

/* Some commands, by their words. */
#define CMD_HEAD(name)        PV_COMMAND_##name, 0
#define CMD_RING(name)        PV_COMMAND_##name, 0, 1, 0x12345678
#define CMD_VERSION           CMD_HEAD(vkEnumerateInstanceVersion), 1, 0
#define CMD_WAIT_VIRTQUEUE(n) CMD_HEAD(vkWaitVirtqueueSeqnoMESA), n, 0
#define CMD_SET_REPLY(offset, size) \
    CMD_HEAD(vkSetReplyCommandStreamMESA), 1, 0, GUEST_REPLY_RESOURCE, offset, 0, size, 0

/* Instance 1, physical device 2, device 3 with queue 5 on timeline 1. */
void guest_make_device(struct guest *guest);
/* The same while the driver may fail: -EIO then. */
int guest_try_device(struct guest *guest);

#endif
