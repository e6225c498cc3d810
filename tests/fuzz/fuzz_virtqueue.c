/* A virtqueue whose ring and descriptors are the input.
 *
 *   byte 0     1: packed, 2: event indices, 4: indirect tables
 *   byte 1     entries of the ring, 1 + (n & 31), or the power of two below (split)
 *   bytes 2-5  base
 *   then       guest memory: the ring's three areas from its start on, 1 KiB apart; and, beyond its
 *              size, changes to it between requests: 2 bytes of place, 6 of contents
 */
#include "device_input.h"
#include "gpu/guest_memory.h"
#include "transport/virtio/virtqueue.h"
#include "util/log.h"
#include "util/os.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MEMORY_SIZE 4096u
#define GPA         UINT64_C(0x10000)
#define USER        UINT64_C(0x7f0000000000)
#define HEADER      6u
#define REQUEST_MAX 512u
#define STEPS       200u
#define IN_HAND     4u

static struct pv_guest_memory *memory;
static uint8_t *guest;
static volatile uint8_t sum; /* so that bytes are really read */

static void check(bool good, const char *what)
{
    if (good)
        return;
    fprintf(stderr, "\nfuzz: FAILED: %s\n", what);
    abort();
}

static void set_up(void)
{
    int fd;
    void *map;
    if (memory)
        return;
    check(pv_shm_create("fuzz", MEMORY_SIZE, &fd) == 0, "no memory");
    check(pv_shm_map(fd, MEMORY_SIZE, &map) == 0 && pv_guest_memory_create(&memory) == 0, "no map");
    guest = map;
    const struct pv_guest_region region = {
        .gpa = GPA, .size = MEMORY_SIZE, .user_address = USER, .fd = fd};
    check(pv_guest_memory_set(memory, &region, 1) == 0, "no region");
    pv_log_set_level(PV_LOG_ERROR);
}

static void look_at(const struct pv_virtqueue *queue, const struct pv_virtqueue_element *element)
{
    check(queue->slots_taken <= queue->setup.size, "more is taken than the ring has");
    check(element->room_size <= 64, "more room than asked for");
    check(!element->request || element->request_size <= REQUEST_MAX, "a request too long");
    check(element->copied <= element->request_size, "more than there is");
    for (uint64_t i = 0; element->request && i < element->request_size; i++)
        sum += ((const uint8_t *)element->request)[i];
    for (size_t i = 0; i < sizeof(element->header); i++)
        sum += element->header[i];
}

/* The driver writes while we read. */
static void change(const uint8_t **data, size_t *size)
{
    if (*size < 8)
        return;
    size_t place = ((*data)[0] | (size_t)(*data)[1] << 8) % (MEMORY_SIZE - 5);
    memcpy(guest + place, *data + 2, 6);
    *data += 8;
    *size -= 8;
}

static void serve(struct pv_virtqueue *queue, const uint8_t *data, size_t size)
{
    static const uint8_t answer[100] = {1, 2, 3};
    struct pv_virtqueue_element *in_hand[IN_HAND], *element;
    unsigned count = 0;
    for (unsigned step = 0; step < STEPS; step++) {
        int ret = pv_virtqueue_pop(queue, &element);
        check(ret == 1 || ret == 0 || ret == -EPROTO, "an unknown result");
        if (ret < 0)
            break;
        if (ret == 1) {
            look_at(queue, element);
            in_hand[count++] = element;
        }
        if (count == IN_HAND || (ret == 0 && count > 0)) { /* the youngest first */
            pv_virtqueue_push(in_hand[--count], answer, step % sizeof(answer));
            sum += pv_virtqueue_must_signal(queue);
        }
        if (ret == 0 && size < 8)
            break;
        if (step % 2 || ret == 0)
            change(&data, &size);
    }
    if (count > 0) /* one after it has broken; the rest is forgotten */
        pv_virtqueue_push(in_hand[0], answer, sizeof(answer));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct pv_virtqueue queue;
    set_up();
    if (size < HEADER)
        return 0;
    uint32_t entries = 1 + (data[1] & 31);
    if (!(data[0] & 1))
        entries = UINT32_C(1) << (data[1] & 5);
    struct pv_virtqueue_setup setup = {
        .size = entries,
        .desc = USER,
        .driver = USER + 1024,
        .device = USER + 2048,
        .packed = data[0] & 1,
        .event_idx = data[0] & 2,
        .indirect = data[0] & 4,
    };
    memcpy(&setup.base, data + 2, sizeof(setup.base));
    data += HEADER;
    size -= HEADER;
    size_t first = size < MEMORY_SIZE ? size : MEMORY_SIZE;
    memset(guest, 0, MEMORY_SIZE);
    memcpy(guest, data, first);
    pv_virtqueue_init(&queue, &(struct pv_virtqueue_params){
                                  .memory = memory,
                                  .name = "fuzz",
                                  .request_max = REQUEST_MAX,
                                  .response_max = 64,
                              });
    if (pv_virtqueue_start(&queue, &setup) == 0)
        serve(&queue, data + first, size - first);
    uint32_t base = pv_virtqueue_stop(&queue);
    setup.base = base;
    if (queue.setup.size == entries) /* it had started */
        check(pv_virtqueue_start(&queue, &setup) == 0, "its own base is refused");
    pv_virtqueue_finish(&queue);
    return 0;
}

/* ---- inputs ---- */

static void put(uint8_t *at, uint64_t value, size_t size)
{
    memcpy(at, &value, size);
}

/* A descriptor somewhere in memory, rarely out of it. */
static void make_descriptor(uint8_t *at, bool packed, uint32_t entries,
                            uint32_t (*random)(uint32_t limit))
{
    bool indirect = random(6) == 0;
    uint32_t flags = (random(3) == 0) | (random(2) << 1) | (indirect ? 4u : 0);
    put(at, GPA + (random(64) ? random(MEMORY_SIZE) : random(1u << 30)) / 16 * 16, 8);
    put(at + 8, indirect ? 16 * random(6) : random(300), 4);
    put(at + (packed ? 14 : 12), packed ? flags | 0x80u : flags, 2);
    put(at + (packed ? 12 : 14), random(entries), 2);
}

size_t fuzz_make_input(uint8_t out[FUZZ_INPUT_MAX], uint32_t (*random)(uint32_t limit))
{
    const uint32_t size = HEADER + MEMORY_SIZE + 8 * random(64);
    bool packed = random(2);
    memset(out, 0, size);
    out[0] = (uint8_t)(packed | random(4) << 1 | (random(4) ? 4 : 0));
    out[1] = (uint8_t)random(32);
    uint32_t entries = packed ? 1 + (out[1] & 31u) : 1u << (out[1] & 5);
    if (packed)
        put(out + 2, UINT32_C(0x80008000) | (random(4) ? 0 : random(entries)), 4);
    uint8_t *memory_at = out + HEADER;
    for (uint32_t i = 0; i < MEMORY_SIZE / 16; i++) {
        if (i < 32 || random(3) == 0)
            make_descriptor(memory_at + 16 * (size_t)i, packed, entries, random);
    }
    memset(memory_at + 1024, 0, 128);
    if (!packed) {
        put(memory_at + 1026, random(entries + (random(8) == 0) + 1), 2);
        for (uint32_t i = 0; i < entries; i++)
            put(memory_at + 1028 + 2 * (size_t)i, random(entries), 2);
    }
    for (uint8_t *at = memory_at + MEMORY_SIZE; at < out + size; at += 8) {
        bool index = !packed && random(2); /* more requests */
        put(at, index ? 1026 : random(16 * entries), 2);
        put(at + 2, index ? random(64) : random(0x10000), 2);
        put(at + 4, random(0x10000), 2);
    }
    return size;
}
