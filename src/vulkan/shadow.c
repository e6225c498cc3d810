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
 * When: before every submission (the GPU must see what the guest wrote); after every command
 * buffer, before the GPU may go on (gate.h says why); when the guest asks about finished work
 * (pv_device_sync_memory, for what signals in the middle of a command buffer: events, queries); and
 * now and then while the GPU is busy, for what the GPU and the guest tell each other meanwhile.
 *
 * Threads: state->lock protects everything here; it is taken after a queue's lock. The shadow
 * thread sleeps while no gate is closed.
 */
#include "vulkan/device_internal.h"
#include "vulkan/gate.h"

#include "util/log.h"
#include "util/os.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#define PV_LOG_MODULE "shadow"

#define BLOCK   ((size_t)4096) /* unit of comparing; map_size is a multiple of it */
#define GATE_NS 20000u         /* how often to look whether the GPU stands at a gate */
#define TICK_NS 1000000u       /* how often to copy while it does not, at most */

struct pv_shadow_state {
    struct pv_device *device;
    pthread_mutex_t lock;
    pthread_cond_t wake; /* the thread's: new work, or stop */
    pthread_t thread;
    bool stop;
    struct pv_memory *memories; /* all shadowed memory */
    struct pv_gate *gates;      /* owned; one for each of the device's queues */
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

/* Bytes that the driver wrote go to the guest. */
static void publish_block(struct pv_memory *memory, size_t offset, size_t size)
{
    uint64_t *guest = (uint64_t *)((char *)memory->map + offset);
    uint64_t *base = (uint64_t *)((char *)memory->base + offset);
    const char *driver = (const char *)memory->driver_map + offset;
    for (size_t i = 0; i * sizeof(uint64_t) < size; i++) {
        size_t left = size - i * sizeof(uint64_t);
        uint64_t word = base[i]; /* the driver's mapping may end within the word */
        memcpy(&word, driver + i * sizeof(word), left < sizeof(word) ? left : sizeof(word));
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

static void sync_locked(struct pv_shadow_state *state, bool publish)
{
    for (struct pv_memory *memory = state->memories; memory; memory = memory->next) {
        for (size_t offset = 0; offset < memory->size; offset += BLOCK) {
            /* the driver mapped `size` bytes and no more */
            size_t left = (size_t)memory->size - offset;
            size_t size = left < BLOCK ? left : BLOCK;
            const char *base = (char *)memory->base + offset;
            if (publish && memcmp((char *)memory->driver_map + offset, base, size) != 0)
                publish_block(memory, offset, size);
            if (memcmp((char *)memory->map + offset, base, size) != 0)
                push_block(memory, offset, size);
        }
    }
}

void pv_device_sync_memory(struct pv_device *device)
{
    struct pv_shadow_state *state = device->shadow;
    if (!state)
        return;
    pthread_mutex_lock(&state->lock);
    sync_locked(state, true);
    pthread_mutex_unlock(&state->lock);
}

/* ---- the thread ---- */

static bool any_closed(const struct pv_shadow_state *state)
{
    for (uint32_t i = 0; i < state->device->queue_count; i++) {
        if (pv_gate_is_closed(&state->gates[i]))
            return true;
    }
    return false;
}

/* Copy what the queues in front of gates have written, and let them go on. False if none waits. */
static bool open_gates_locked(struct pv_shadow_state *state)
{
    bool copied = false;
    for (uint32_t i = 0; i < state->device->queue_count; i++) {
        struct pv_gate *gate = &state->gates[i];
        if (!pv_gate_is_waiting(state->device, gate))
            continue;
        sync_locked(state, true); /* after is_waiting, so it has all that the queue wrote */
        pv_gate_open(state->device, gate);
        copied = true;
    }
    return copied;
}

static void *shadow_main(void *data)
{
    struct pv_shadow_state *state = data;
    uint64_t next_copy = 0;
    pv_thread_set_name("pv-shadow");
    pthread_mutex_lock(&state->lock);
    while (!state->stop) {
        if (!any_closed(state) || atomic_load(&state->device->lost)) {
            pthread_cond_wait(&state->wake, &state->lock);
            continue;
        }
        uint64_t start = pv_now_ns();
        bool copied = open_gates_locked(state);
        if (!copied && start >= next_copy) {
            sync_locked(state, true);
            copied = true;
        }
        uint64_t took = pv_now_ns() - start;
        if (copied) /* copying shall not take more than half of the time */
            next_copy = start + took + (took > TICK_NS ? took : TICK_NS);
        pv_cond_wait_ns(&state->wake, &state->lock, GATE_NS);
    }
    pthread_mutex_unlock(&state->lock);
    return NULL;
}

/* ---- what the rest of src/vulkan calls ---- */

static void finish_gates(struct pv_shadow_state *state, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        pv_gate_finish(state->device, &state->gates[i]);
    free(state->gates);
}

static VkResult init_gates(struct pv_shadow_state *state)
{
    uint32_t count = state->device->queue_count;
    state->gates = calloc(count ? count : 1, sizeof(*state->gates));
    if (!state->gates)
        return VK_ERROR_OUT_OF_HOST_MEMORY;
    for (uint32_t i = 0; i < count; i++) {
        VkResult result = pv_gate_init(state->device, &state->gates[i]);
        if (result != VK_SUCCESS) {
            finish_gates(state, i);
            return result;
        }
    }
    return VK_SUCCESS;
}

static void init_lock(struct pv_shadow_state *state)
{
    pthread_mutex_init(&state->lock, NULL);
    pv_cond_init(&state->wake);
}

static void finish_lock(struct pv_shadow_state *state)
{
    pthread_cond_destroy(&state->wake);
    pthread_mutex_destroy(&state->lock);
}

VkResult pv_shadow_create(struct pv_device *device)
{
    struct pv_shadow_state *state = calloc(1, sizeof(*state));
    if (!state)
        return VK_ERROR_OUT_OF_HOST_MEMORY;
    state->device = device;
    init_lock(state);
    VkResult result = init_gates(state);
    if (result != VK_SUCCESS)
        goto err_lock;
    if (pthread_create(&state->thread, NULL, shadow_main, state) != 0) {
        result = VK_ERROR_OUT_OF_HOST_MEMORY;
        goto err_gates;
    }
    device->shadow = state;
    return VK_SUCCESS;

err_gates:
    finish_gates(state, device->queue_count);
err_lock:
    finish_lock(state);
    free(state);
    return result;
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
    finish_gates(state, device->queue_count);
    finish_lock(state);
    free(state);
    device->shadow = NULL;
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
    memory->prev = NULL;
    memory->next = state->memories;
    if (memory->next)
        memory->next->prev = memory;
    state->memories = memory;
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

struct pv_gate *pv_shadow_begin_submit(struct pv_device *device, const struct pv_queue *queue)
{
    struct pv_shadow_state *state = device->shadow;
    if (!state)
        return NULL;
    /* Only towards the driver: what the GPU wrote is published at the gates, and a guest that
     * overwrites it has seen it. */
    pthread_mutex_lock(&state->lock);
    sync_locked(state, false);
    pthread_mutex_unlock(&state->lock);
    return &state->gates[queue - device->queues];
}

void pv_shadow_end_submit(struct pv_device *device)
{
    struct pv_shadow_state *state = device->shadow;
    if (!state)
        return;
    pthread_mutex_lock(&state->lock);
    pthread_cond_signal(&state->wake);
    pthread_mutex_unlock(&state->lock);
}
