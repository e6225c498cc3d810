/* Shadow memory: a memfd for the guest beside the driver's own mapping, kept equal by copying.
 *
 * For drivers that neither import our memory nor export theirs. Per memory object there are three
 * images of the bytes:
 *
 *   guest   the memfd that the guest maps          base   what both had after the last copy
 *   driver  vkMapMemory of the VkDeviceMemory
 *
 * A byte that differs from `base` on one side was written by that side and goes to the other. When
 * both wrote the same byte, the program has a race of its own, and the driver wins.
 *
 * When: before every submission (the GPU must see what the guest wrote), when the guest is about to
 * learn that work is done (pv_device_sync_memory), and all the time while work is outstanding, from
 * a thread, because Mesa polls fences and semaphores in memory ("feedback") and never asks us. To
 * know what is outstanding, each submission is followed by an empty one with a fence of ours.
 *
 * Order: the GPU writes results first and the feedback word last, and so must we.
 *   - If one copy found the old results and, a moment later in the next object, the new word, the
 *     guest would believe stale results. So the driver's side is read again and again until a whole
 *     pass finds nothing new, and only then published: whatever has been seen by then was preceded
 * by nothing unseen. A GPU that never stops writing host-visible memory would make that endless,
 *     hence MAX_PASSES; after that the thread publishes nothing and tries again at its next tick,
 * and only pv_device_sync_memory goes ahead.
 *   - Publishing takes time too, and the guest may look in the middle of it. Objects are published
 *     from large to small and, among equals, from new to old: Mesa's feedback lives in buffers of
 *     4 KiB that are made early. A program that keeps its results in smaller or older objects may
 *     still see the word first. No order is right for all; a driver that can import has no such
 *     problem, and this tier is for those that cannot.
 *
 * Threads: state->lock protects everything here; it is taken after a queue's lock.
 */
#include "vulkan/device_internal.h"

#include "util/log.h"
#include "util/os.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#define PV_LOG_MODULE "shadow"

#define BLOCK       ((size_t)4096) /* unit of comparing; map_size is a multiple of it */
#define MAX_PASSES  16
#define MIN_TICK_NS 200000u   /* while work is outstanding: how stale feedback may be */
#define MAX_TICK_NS 20000000u /* however long a pass takes, the thread looks this often */

/* What the driver's side of a block looks like, to be published. */
struct staged {
    struct pv_memory *memory;
    size_t offset;
    unsigned char bytes[BLOCK];
};

struct watch {
    VkFence fence; /* ours; signals when the submission before it is done */
    struct watch *next;
};

struct pv_shadow_state {
    struct pv_device *device;
    pthread_mutex_t lock;
    pthread_cond_t wake; /* the thread's: new work, or stop */
    pthread_t thread;
    bool stop;
    struct pv_memory *memories; /* all shadowed memory, in the order of publishing */
    struct watch *outstanding, *spare;
    struct staged *staged; /* sorted by (order in memories, offset) within a pass */
    size_t staged_count, staged_capacity;
};

/* ---- one block ---- */

/* The guest may write to the same word at this moment: only compare-and-swap keeps its bytes. The
 * word is stored whole, so that a guest that polls it never sees half of a counter. */
static void publish_word(uint64_t *guest, uint64_t driver, uint64_t base)
{
    uint64_t wrote = driver ^ base; /* bits the driver changed; widened to whole bytes below */
    uint64_t mask = 0;
    for (unsigned shift = 0; shift < 64; shift += 8) {
        if ((wrote >> shift) & 0xff)
            mask |= (uint64_t)0xff << shift;
    }
    uint64_t seen = __atomic_load_n(guest, __ATOMIC_RELAXED);
    while (!__atomic_compare_exchange_n(guest, &seen, (seen & ~mask) | (driver & mask), false,
                                        __ATOMIC_RELEASE, __ATOMIC_RELAXED)) {
    }
}

static void publish_block(struct pv_memory *memory, size_t offset, const unsigned char *driver)
{
    uint64_t *guest = (uint64_t *)((char *)memory->map + offset);
    uint64_t *base = (uint64_t *)((char *)memory->base + offset);
    for (size_t i = 0; i < BLOCK / sizeof(uint64_t); i++) {
        uint64_t word;
        memcpy(&word, driver + i * sizeof(word), sizeof(word));
        if (word == base[i])
            continue;
        publish_word(&guest[i], word, base[i]);
        base[i] = word;
    }
}

/* Bytes that the guest wrote go to the driver. */
static void push_block(struct pv_memory *memory, size_t offset, size_t size)
{
    volatile unsigned char *guest = (unsigned char *)memory->map + offset;
    volatile unsigned char *driver = (unsigned char *)memory->driver_map + offset;
    unsigned char *base = (unsigned char *)memory->base + offset;
    for (size_t i = 0; i < size; i++) {
        unsigned char byte = guest[i];
        if (byte != base[i] && driver[i] == base[i]) {
            driver[i] = byte;
            base[i] = byte;
        }
    }
}

/* ---- all of it ---- */

static size_t driver_size(const struct pv_memory *memory, size_t offset)
{
    size_t left = (size_t)memory->size - offset; /* the driver mapped `size` bytes and no more */
    return left < BLOCK ? left : BLOCK;
}

static void push_all_locked(struct pv_shadow_state *state)
{
    for (struct pv_memory *memory = state->memories; memory; memory = memory->next) {
        for (size_t offset = 0; offset < memory->size; offset += BLOCK) {
            size_t size = driver_size(memory, offset);
            if (memcmp((char *)memory->map + offset, (char *)memory->base + offset, size) != 0)
                push_block(memory, offset, size);
        }
    }
}

static struct staged *stage(struct pv_shadow_state *state, size_t index, struct pv_memory *memory,
                            size_t offset)
{
    if (state->staged_count == state->staged_capacity) {
        size_t capacity = state->staged_capacity ? state->staged_capacity * 2 : 64;
        struct staged *grown = realloc(state->staged, capacity * sizeof(*grown));
        if (!grown)
            return NULL;
        state->staged = grown;
        state->staged_capacity = capacity;
    }
    struct staged *at = &state->staged[index];
    memmove(at + 1, at, (state->staged_count - index) * sizeof(*at));
    state->staged_count++;
    at->memory = memory;
    at->offset = offset;
    memcpy(at->bytes, (char *)memory->base + offset, BLOCK);
    return at;
}

enum pass { PASS_QUIET, PASS_CHANGED, PASS_NO_MEMORY };

/* Read the driver's side of everything once. */
static enum pass read_driver_locked(struct pv_shadow_state *state)
{
    enum pass result = PASS_QUIET;
    size_t index = 0; /* staged blocks come in the order in which we walk */
    for (struct pv_memory *memory = state->memories; memory; memory = memory->next) {
        for (size_t offset = 0; offset < memory->size; offset += BLOCK) {
            struct staged *staged = NULL;
            if (index < state->staged_count && state->staged[index].memory == memory &&
                state->staged[index].offset == offset)
                staged = &state->staged[index++];
            const void *known = staged ? staged->bytes : (unsigned char *)memory->base + offset;
            const char *driver = (char *)memory->driver_map + offset;
            size_t size = driver_size(memory, offset);
            if (memcmp(driver, known, size) == 0)
                continue;
            if (!staged && !(staged = stage(state, index++, memory, offset)))
                return PASS_NO_MEMORY;
            memcpy(staged->bytes, driver, size);
            result = PASS_CHANGED;
        }
    }
    return result;
}

static void publish_staged_locked(struct pv_shadow_state *state)
{
    for (size_t i = 0; i < state->staged_count; i++) {
        const struct staged *staged = &state->staged[i];
        publish_block(staged->memory, staged->offset, staged->bytes);
    }
}

/* Copy in both directions. `now`: publish even if the driver's side does not come to rest. */
static void sync_all_locked(struct pv_shadow_state *state, bool now)
{
    state->staged_count = 0;
    enum pass pass = PASS_CHANGED;
    for (int i = 0; i < MAX_PASSES && pass == PASS_CHANGED; i++)
        pass = read_driver_locked(state);
    if (pass == PASS_NO_MEMORY)
        pv_warn("out of memory while copying shadow memory; the guest may see old data");
    if (pass == PASS_QUIET || now)
        publish_staged_locked(state);
    push_all_locked(state);
}

/* ---- outstanding work ---- */

/* Forget the watches whose work is done. Returns true if any was. */
static bool retire_locked(struct pv_shadow_state *state)
{
    struct pv_device *device = state->device;
    bool any = false;
    struct watch **link = &state->outstanding;
    while (*link) {
        struct watch *watch = *link;
        VkResult result = device->vk.GetFenceStatus(device->handle, watch->fence);
        if (pv_device_check(device, result) == VK_NOT_READY) {
            link = &watch->next;
            continue;
        }
        *link = watch->next;
        watch->next = state->spare;
        state->spare = watch;
        any = true;
    }
    return any;
}

static void wait_ns_locked(struct pv_shadow_state *state, uint64_t ns)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    uint64_t nsec = (uint64_t)until.tv_nsec + ns;
    until.tv_sec += (time_t)(nsec / 1000000000u);
    until.tv_nsec = (long)(nsec % 1000000000u);
    pthread_cond_timedwait(&state->wake, &state->lock, &until);
}

static void *shadow_main(void *data)
{
    struct pv_shadow_state *state = data;
    pv_thread_set_name("pv-shadow");
    pthread_mutex_lock(&state->lock);
    while (!state->stop) {
        if (!state->outstanding) {
            pthread_cond_wait(&state->wake, &state->lock);
            continue;
        }
        uint64_t start = pv_now_ns();
        /* what is retired was done before the copy, so the copy has all of it */
        retire_locked(state);
        sync_all_locked(state, false);
        uint64_t tick = pv_now_ns() - start; /* half of the time is the guest's */
        if (tick < MIN_TICK_NS)
            tick = MIN_TICK_NS;
        wait_ns_locked(state, tick < MAX_TICK_NS ? tick : MAX_TICK_NS);
    }
    pthread_mutex_unlock(&state->lock);
    return NULL;
}

static struct watch *get_watch_locked(struct pv_shadow_state *state)
{
    struct pv_device *device = state->device;
    struct watch *watch = state->spare;
    if (watch) {
        if (device->vk.ResetFences(device->handle, 1, &watch->fence) != VK_SUCCESS)
            return NULL;
        state->spare = watch->next;
        return watch;
    }
    watch = calloc(1, sizeof(*watch));
    if (!watch)
        return NULL;
    VkFenceCreateInfo info = {.sType = VK_STRUCTURE_TYPE_FENCE_CREATE_INFO};
    if (device->vk.CreateFence(device->handle, &info, NULL, &watch->fence) != VK_SUCCESS) {
        free(watch);
        return NULL;
    }
    return watch;
}

/* ---- what the rest of src/vulkan calls ---- */

static struct pv_shadow_state *start(struct pv_device *device)
{
    struct pv_shadow_state *state = calloc(1, sizeof(*state));
    if (!state)
        return NULL;
    state->device = device;
    pthread_mutex_init(&state->lock, NULL);
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&state->wake, &attributes);
    pthread_condattr_destroy(&attributes);
    if (pthread_create(&state->thread, NULL, shadow_main, state) != 0) {
        pthread_cond_destroy(&state->wake);
        pthread_mutex_destroy(&state->lock);
        free(state);
        return NULL;
    }
    return state;
}

/* See "Order" above: largest first, and the newest first among equals. */
static void insert_locked(struct pv_shadow_state *state, struct pv_memory *memory)
{
    struct pv_memory *before = NULL, *after = state->memories;
    while (after && after->size > memory->size) {
        before = after;
        after = after->next;
    }
    memory->prev = before;
    memory->next = after;
    if (before)
        before->next = memory;
    else
        state->memories = memory;
    if (after)
        after->prev = memory;
}

VkResult pv_shadow_add(struct pv_memory *memory)
{
    struct pv_shadow_state *state = memory->device->shadow;
    void *base = mmap(NULL, memory->map_size, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base == MAP_FAILED)
        return VK_ERROR_OUT_OF_HOST_MEMORY;
    memory->base = base;
    /* All three begin as zeros. What a driver leaves in fresh memory would pass for the GPU's work,
     * and win over what the guest writes. */
    memset(memory->driver_map, 0, (size_t)memory->size);

    pthread_mutex_lock(&state->lock);
    insert_locked(state, memory);
    pthread_mutex_unlock(&state->lock);
    return VK_SUCCESS;
}

void pv_shadow_remove(struct pv_memory *memory)
{
    struct pv_shadow_state *state = memory->device->shadow;
    pthread_mutex_lock(&state->lock);
    if (memory->prev)
        memory->prev->next = memory->next;
    else
        state->memories = memory->next;
    if (memory->next)
        memory->next->prev = memory->prev;
    pthread_mutex_unlock(&state->lock);
    munmap(memory->base, memory->map_size);
    memory->base = NULL;
}

/* Only towards the driver: what the GPU wrote is published when the guest can know that it is
 * there, and a guest that overwrites it has known. */
void pv_shadow_before_submit(struct pv_device *device)
{
    struct pv_shadow_state *state = device->shadow;
    if (!state)
        return;
    pthread_mutex_lock(&state->lock);
    push_all_locked(state);
    pthread_mutex_unlock(&state->lock);
}

void pv_shadow_after_submit(struct pv_device *device, struct pv_queue *queue)
{
    struct pv_shadow_state *state = device->shadow;
    if (!state)
        return;
    pthread_mutex_lock(&state->lock);
    if (state->memories) {
        struct watch *watch = get_watch_locked(state);
        VkResult result = VK_ERROR_OUT_OF_HOST_MEMORY;
        if (watch)
            result = pv_device_check(device,
                                     device->vk.QueueSubmit(queue->handle, 0, NULL, watch->fence));
        if (result == VK_SUCCESS) {
            watch->next = state->outstanding;
            state->outstanding = watch;
            pthread_cond_signal(&state->wake);
        } else if (watch) {
            watch->next = state->spare;
            state->spare = watch;
        }
    }
    pthread_mutex_unlock(&state->lock);
}

void pv_device_sync_memory(struct pv_device *device)
{
    struct pv_shadow_state *state = device->shadow;
    if (!state)
        return;
    pthread_mutex_lock(&state->lock);
    sync_all_locked(state, true);
    pthread_mutex_unlock(&state->lock);
}

VkResult pv_shadow_create(struct pv_device *device)
{
    device->shadow = start(device);
    return device->shadow ? VK_SUCCESS : VK_ERROR_OUT_OF_HOST_MEMORY;
}

static void free_watches(struct pv_device *device, struct watch *watch)
{
    while (watch) {
        struct watch *next = watch->next;
        device->vk.DestroyFence(device->handle, watch->fence, NULL);
        free(watch);
        watch = next;
    }
}

void pv_shadow_destroy(struct pv_device *device)
{
    struct pv_shadow_state *state = device->shadow;
    if (!state)
        return;
    pthread_mutex_lock(&state->lock);
    state->stop = true;
    pthread_cond_signal(&state->wake);
    pthread_mutex_unlock(&state->lock);
    pthread_join(state->thread, NULL);

    free_watches(device, state->outstanding);
    free_watches(device, state->spare);
    free(state->staged);
    pthread_cond_destroy(&state->wake);
    pthread_mutex_destroy(&state->lock);
    free(state);
    device->shadow = NULL;
}
