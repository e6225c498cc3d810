#include "venus_fixture.h"

#include "unit.h"
#include "util/os.h"

#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static void on_fence(void *data, uint32_t ring_idx, uint64_t cookie)
{
    struct guest *guest = data;
    pthread_mutex_lock(&guest->lock);
    unsigned at = atomic_load(&guest->fence_count);
    if (at < GUEST_FENCES)
        guest->fences[at] = (uint64_t)ring_idx << 32 | cookie;
    atomic_store(&guest->fence_count, at + 1);
    pthread_mutex_unlock(&guest->lock);
}

static void on_failed(void *data, const char *reason)
{
    struct guest *guest = data;
    snprintf(guest->reason, sizeof(guest->reason), "%s", reason);
    atomic_fetch_add(&guest->failures, 1);
}

static void on_released(void *data, uint32_t res_id, uint64_t offset)
{
    struct guest *guest = data;
    atomic_store(&guest->last_released, res_id);
    atomic_store(&guest->released_offset, offset);
    atomic_fetch_add(&guest->released, 1);
}

static void on_ring(void *data, uint32_t res_id, uint64_t status_offset, bool added)
{
    struct guest *guest = data;
    assert_int_equal(res_id, GUEST_RING_RESOURCE);
    atomic_store(&guest->ring_status, status_offset);
    atomic_fetch_add(&guest->rings, added ? 1 : -1);
}

static bool is_gone(void *data)
{
    struct guest *guest = data;
    return atomic_load(&guest->gone);
}

static uint8_t *make_shm(struct guest *guest, uint32_t id, uint64_t size)
{
    int fd = -1;
    void *map = NULL;
    assert_int_equal(pv_context_create_blob(guest->ctx, id, 0, size, PV_BLOB_MAPPABLE, &fd), 0);
    assert_int_equal(pv_shm_map(fd, size, &map), 0);
    close(fd);
    return map;
}

size_t guest_ring_size(const struct guest *guest)
{
    return 192 + guest->buffer_size + 4;
}

void guest_open(struct guest *guest, uint32_t buffer_size)
{
    guest_open_counting(guest, buffer_size, NULL);
}

void guest_open_counting(struct guest *guest, uint32_t buffer_size, struct pv_activity *activity)
{
    static struct pv_host_caps caps;
    null_driver_install();
    null_driver_caps(&caps);
    memset(guest, 0, sizeof(*guest));
    pthread_mutex_init(&guest->lock, NULL);
    guest->buffer_size = buffer_size;
    const struct pv_context_params params = {
        .id = 1,
        .name = "test",
        .caps = &caps,
        .activity = activity,
        .fence_signalled = on_fence,
        .failed = on_failed,
        .ring_changed = on_ring,
        .resource_released = on_released,
        .abandoned = is_gone,
        .data = guest,
    };
    assert_int_equal(pv_context_create(&params, &guest->ctx), 0);
    guest->ring = make_shm(guest, GUEST_RING_RESOURCE, guest_ring_size(guest));
    guest->replies = make_shm(guest, GUEST_REPLY_RESOURCE, GUEST_REPLY_SIZE);
}

void guest_close(struct guest *guest)
{
    atomic_store(&guest->gone, true);
    pv_context_destroy(guest->ctx);
    assert_int_equal(atomic_load(&guest->rings), 0);
    pv_shm_unmap(guest->ring, guest_ring_size(guest));
    pv_shm_unmap(guest->replies, GUEST_REPLY_SIZE);
    pthread_mutex_destroy(&guest->lock);
    assert_int_equal(atomic_load(&null_driver.alive), 0);
}

int guest_submit(struct guest *guest, const uint32_t *words, size_t count)
{
    return pv_context_submit(guest->ctx, words, 4 * count);
}

void guest_expect_failure(struct guest *guest, const char *part)
{
    for (unsigned i = 0; i < 1000 && atomic_load(&guest->failures) == 0; i++)
        guest_sleep_us(1000); /* a ring's thread may still be at it */
    assert_int_equal(atomic_load(&guest->failures), 1);
    if (!strstr(guest->reason, part))
        fail_msg("the reason is '%s', expected '%s'", guest->reason, part);
}

/* ---- ring -------------------------------------------------------------------------------------
 */

struct guest_ring_info guest_ring_info(const struct guest *guest)
{
    return (struct guest_ring_info){
        .resource = GUEST_RING_RESOURCE,
        .size = guest_ring_size(guest),
        .idle_timeout = 1000000,
        .head = 0,
        .tail = 64,
        .status = 128,
        .buffer = 192,
        .buffer_size = guest->buffer_size,
        .extra = 192 + guest->buffer_size,
        .extra_size = 4,
        .monitor_period = UINT32_MAX,
    };
}

static void put64(uint32_t **at, uint64_t value)
{
    *(*at)++ = (uint32_t)value;
    *(*at)++ = (uint32_t)(value >> 32);
}

int guest_create_ring(struct guest *guest, uint64_t id, const struct guest_ring_info *info)
{
    uint32_t words[64] = {CMD_HEAD(vkCreateRingMESA)}, *at = words + 2;
    put64(&at, id);
    put64(&at, 1);
    *at++ = (uint32_t)VK_STRUCTURE_TYPE_RING_CREATE_INFO_MESA;
    if (info->monitor_period != UINT32_MAX) {
        put64(&at, 1);
        *at++ = (uint32_t)VK_STRUCTURE_TYPE_RING_MONITOR_INFO_MESA;
        put64(&at, 0);
        *at++ = info->monitor_period;
    } else {
        put64(&at, 0);
    }
    *at++ = info->flags;
    *at++ = info->resource;
    put64(&at, info->offset);
    put64(&at, info->size);
    put64(&at, info->idle_timeout);
    put64(&at, info->head);
    put64(&at, info->tail);
    put64(&at, info->status);
    put64(&at, info->buffer);
    put64(&at, info->buffer_size);
    put64(&at, info->extra);
    put64(&at, info->extra_size);
    guest->tail = 0;
    return guest_submit(guest, words, (size_t)(at - words));
}

static _Atomic uint32_t *word_at(struct guest *guest, size_t offset)
{
    return (_Atomic uint32_t *)(void *)(guest->ring + offset);
}

_Atomic uint32_t *guest_head(struct guest *guest)
{
    return word_at(guest, 0);
}

_Atomic uint32_t *guest_tail(struct guest *guest)
{
    return word_at(guest, 64);
}

_Atomic uint32_t *guest_status(struct guest *guest)
{
    return word_at(guest, 128);
}

void guest_sleep_us(unsigned us)
{
    const struct timespec time = {.tv_sec = us / 1000000, .tv_nsec = us % 1000000 * 1000};
    nanosleep(&time, NULL);
}

void guest_write(struct guest *guest, const uint32_t *words, size_t count)
{
    uint32_t size = 4 * (uint32_t)count;
    const uint8_t *bytes = (const uint8_t *)words;
    while (guest->tail + size - atomic_load(guest_head(guest)) > guest->buffer_size) {
        guest_notify(guest);
        if (atomic_load(&guest->failures) > 0)
            return;
        guest_sleep_us(20);
    }
    for (uint32_t i = 0; i < size; i++)
        guest->ring[192 + ((guest->tail + i) & (guest->buffer_size - 1))] = bytes[i];
    guest->tail += size;
    atomic_store_explicit(guest_tail(guest), guest->tail, memory_order_seq_cst);
}

void guest_notify(struct guest *guest)
{
    if (atomic_load_explicit(guest_status(guest), memory_order_seq_cst) & PV_RING_STATUS_IDLE)
        GUEST_SUBMIT(guest, CMD_RING(vkNotifyRingMESA), guest->tail, 0);
}

bool guest_wait(struct guest *guest, unsigned ms)
{
    uint64_t end = pv_now_ns() + ms * 1000000ull;
    for (unsigned i = 0;; i++) {
        if (atomic_load_explicit(guest_head(guest), memory_order_acquire) == guest->tail)
            return true;
        if (pv_now_ns() > end)
            return false;
        if (i > 2000)
            guest_sleep_us(50);
        else
            pv_cpu_relax();
    }
}

bool guest_wait_status(struct guest *guest, uint32_t bits, unsigned ms)
{
    uint64_t end = pv_now_ns() + ms * 1000000ull;
    while ((atomic_load(guest_status(guest)) & bits) != bits) {
        if (pv_now_ns() > end)
            return false;
        guest_sleep_us(100);
    }
    return true;
}

/* ---- objects ----------------------------------------------------------------------------------
 */

int guest_try_device(struct guest *guest)
{
    int ret = GUEST_SUBMIT(guest, CMD_HEAD(vkCreateInstance), 1, 0,
                           VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
                           0, 0, 1, 0, 1, 0);
    if (ret == 0)
        ret = GUEST_SUBMIT(guest, CMD_HEAD(vkEnumeratePhysicalDevices), 1, 0, 1, 0, 1, 1, 0, 2, 0);
    if (ret == 0)
        ret = GUEST_SUBMIT(guest, CMD_HEAD(vkCreateDevice), 2, 0, 1, 0,
                           VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO, 0, 0, 0, 1, 1, 0,
                           VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO, 0, 0, 0, 0, 1, 1, 0,
                           0x3f800000, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 3, 0);
    if (ret == 0)
        ret = GUEST_SUBMIT(guest, CMD_HEAD(vkGetDeviceQueue2), 3, 0, 1, 0,
                           VK_STRUCTURE_TYPE_DEVICE_QUEUE_INFO_2, 1, 0,
                           (uint32_t)VK_STRUCTURE_TYPE_DEVICE_QUEUE_TIMELINE_INFO_MESA, 0, 0, 1, 0,
                           0, 0, 1, 0, 5, 0);
    return ret;
}

void guest_make_device(struct guest *guest)
{
    assert_int_equal(guest_try_device(guest), 0);
}
