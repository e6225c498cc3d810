#include "unit.h"

#include "alloc_fail.h"
#include "gpu/guest_memory.h"
#include "transport/virtio/virtqueue.h"
#include "util/os.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The guest: 1 MiB at 64 KiB, and 64 KiB more right behind it in a region of its own. Addresses of
 * the VMM are those of the guest plus USER. */
#define BASE    0x10000u
#define SIZE    0x100000u
#define MORE    0x10000u
#define USER    (1ull << 40)
#define DESC    0x10000u
#define DRIVER  0x20000u
#define DEVICE  0x30000u
#define DATA    0x40000u
#define ROOM    0x80000u
#define TABLE   0xa0000u
#define OUTSIDE 0x900000u

#define NEXT     1
#define WRITE    2
#define INDIRECT 4
#define AVAIL    0x80
#define USED     0x8000

#define REQUEST_MAX  100000u
#define RESPONSE_MAX 4096u

struct desc { /* split: flags and next; packed: id and flags */
    uint64_t addr;
    uint32_t len;
    uint16_t a, b;
};

static struct pv_guest_memory *memory;
static int fd, more_fd;
static struct pv_virtqueue queue;
static struct pv_virtqueue_setup setup;

static void *at(uint64_t gpa)
{
    void *p = pv_guest_memory_at(memory, gpa, 1);
    assert_non_null(p);
    return p;
}

static void set_memory(void)
{
    const struct pv_guest_region regions[] = {
        {.gpa = BASE, .size = SIZE, .user_address = USER + BASE, .fd = fd},
        {.gpa = BASE + SIZE, .size = MORE, .user_address = USER + BASE + SIZE, .fd = more_fd},
    };
    assert_int_equal(pv_guest_memory_set(memory, regions, 2), 0);
}

static int set_up(void **state)
{
    assert_int_equal(pv_guest_memory_create(&memory), 0);
    assert_int_equal(pv_shm_create("test", SIZE, &fd), 0);
    assert_int_equal(pv_shm_create("more", MORE, &more_fd), 0);
    set_memory();
    pv_virtqueue_init(&queue, &(struct pv_virtqueue_params){.memory = memory,
                                                            .name = "test",
                                                            .request_max = REQUEST_MAX,
                                                            .response_max = RESPONSE_MAX});
    setup = (struct pv_virtqueue_setup){
        .size = 8,
        .desc = USER + DESC,
        .driver = USER + DRIVER,
        .device = USER + DEVICE,
        .event_idx = true,
        .indirect = true,
    };
    return 0;
}

static int tear_down(void **state)
{
    pv_virtqueue_finish(&queue);
    pv_guest_memory_destroy(memory);
    close(fd);
    close(more_fd);
    return 0;
}

static void start_split(void)
{
    assert_int_equal(pv_virtqueue_start(&queue, &setup), 0);
}

static void start_packed(void)
{
    setup.packed = true;
    setup.base = 0x80008000; /* both wrap counters are 1 at first */
    assert_int_equal(pv_virtqueue_start(&queue, &setup), 0);
}

static void put_desc(uint64_t table, uint32_t i, uint64_t addr, uint32_t len, uint16_t a,
                     uint16_t b)
{
    struct desc *descs = at(table);
    descs[i] = (struct desc){addr, len, a, b};
}

/* ---- the split ring, as a driver sees it ---- */

static uint16_t *avail(void)
{
    return at(DRIVER);
}

static uint16_t *used(void)
{
    return at(DEVICE);
}

static void publish(uint16_t head)
{
    uint16_t *ring = avail();
    ring[2 + ring[1] % setup.size] = head;
    ring[1]++;
}

static uint32_t used_id(uint16_t i)
{
    uint32_t *ring = at(DEVICE + 4);
    return ring[2 * (i % setup.size)];
}

static uint32_t used_len(uint16_t i)
{
    uint32_t *ring = at(DEVICE + 4);
    return ring[2 * (i % setup.size) + 1];
}

static void set_used_event(uint16_t value)
{
    avail()[2 + setup.size] = value;
}

static uint16_t avail_event(void)
{
    uint16_t *event = at(DEVICE + 4 + 8 * setup.size);
    return *event;
}

/* "request" at DATA, in one readable descriptor, and `room` bytes at ROOM; head is `first`. */
static void simple_request(uint16_t first, uint32_t room)
{
    memcpy(at(DATA), "request", 8);
    put_desc(DESC, first, DATA, 8, NEXT, (uint16_t)(first + 1));
    put_desc(DESC, first + 1u, ROOM, room, WRITE, 0);
}

static struct pv_virtqueue_element *pop(void)
{
    struct pv_virtqueue_element *element = NULL;
    assert_int_equal(pv_virtqueue_pop(&queue, &element), 1);
    return element;
}

static void assert_empty(void)
{
    struct pv_virtqueue_element *element;
    assert_int_equal(pv_virtqueue_pop(&queue, &element), 0);
}

/* The queue stops, stays stopped, and a restart heals it. */
static void assert_broken(void)
{
    struct pv_virtqueue_element *element;
    assert_int_equal(pv_virtqueue_pop(&queue, &element), -EPROTO);
    assert_int_equal(pv_virtqueue_pop(&queue, &element), -EPROTO);
    assert_false(pv_virtqueue_must_signal(&queue));
    pv_virtqueue_stop(&queue);
    memset(at(DRIVER), 0, 64);
    memset(at(DEVICE), 0, 128);
    memset(at(DESC), 0, 16 * setup.size);
    assert_int_equal(pv_virtqueue_start(&queue, &setup), 0);
    assert_empty();
}

static void test_split_request(void **state)
{
    start_split();
    assert_empty();
    simple_request(3, 100);
    publish(3);
    struct pv_virtqueue_element *element = pop();
    assert_int_equal(element->request_size, 8);
    assert_string_equal(element->request, "request");
    assert_string_equal((char *)element->header, "request");
    assert_int_equal(element->room_size, 100);
    assert_empty();
    pv_virtqueue_push(element, "answer", 7);
    assert_string_equal(at(ROOM), "answer");
    assert_int_equal(used()[1], 1);
    assert_int_equal(used_id(0), 3);
    assert_int_equal(used_len(0), 7);
    assert_true(pv_virtqueue_must_signal(&queue));
    assert_false(pv_virtqueue_must_signal(&queue)); /* nothing new */
    assert_int_equal(pv_virtqueue_stop(&queue), 1);
}

static void test_split_wraps_and_out_of_order(void **state)
{
    start_split();
    for (uint32_t round = 0; round < 40000; round++) {
        simple_request(0, 16);
        simple_request(2, 16);
        publish(0);
        publish(2);
        struct pv_virtqueue_element *first = pop(), *second = pop();
        pv_virtqueue_push(second, "b", 1);
        pv_virtqueue_push(first, "a", 1);
        uint16_t done = used()[1];
        assert_int_equal(done, (uint16_t)(2 * round + 2));
        assert_int_equal(used_id((uint16_t)(done - 2)), 2);
        assert_int_equal(used_id((uint16_t)(done - 1)), 0);
    }
    assert_int_equal(pv_virtqueue_stop(&queue), 80000 & 0xffff);
}

static void test_split_starts_at_base(void **state)
{
    avail()[1] = 65535;
    used()[1] = 65535;
    setup.base = 65535;
    start_split();
    simple_request(0, 16);
    publish(0);
    assert_int_equal(avail()[1], 0);
    pv_virtqueue_push(pop(), "x", 1);
    assert_int_equal(used()[1], 0);
}

static void test_split_event_idx(void **state)
{
    start_split();
    assert_empty();
    assert_int_equal(avail_event(), 0); /* kick at the first */
    set_used_event(2);
    bool signalled[5];
    for (int i = 0; i < 5; i++) {
        simple_request(0, 16);
        publish(0);
        pv_virtqueue_push(pop(), "x", 1);
        signalled[i] = pv_virtqueue_must_signal(&queue);
    }
    assert_true(signalled[0]); /* the first after a start, always */
    assert_false(signalled[1]);
    assert_true(signalled[2]); /* entry 2 */
    assert_false(signalled[3]);
    assert_false(signalled[4]);
    assert_empty();
    assert_int_equal(avail_event(), 5);

    /* several at once: one of them is the wanted one */
    set_used_event(6);
    for (uint16_t i = 0; i < 3; i++) {
        simple_request((uint16_t)(2 * i), 16);
        publish((uint16_t)(2 * i));
        pv_virtqueue_push(pop(), "x", 1);
    }
    assert_true(pv_virtqueue_must_signal(&queue));
}

static void test_split_without_event_idx(void **state)
{
    setup.event_idx = false;
    start_split();
    for (uint16_t flags = 0; flags < 2; flags++) {
        avail()[0] = flags;
        simple_request(0, 16);
        publish(0);
        pv_virtqueue_push(pop(), "x", 1);
        assert_int_equal(pv_virtqueue_must_signal(&queue), flags == 0);
    }
}

static void test_gather_and_scatter(void **state)
{
    start_split();
    memcpy(at(DATA), "abc", 3);
    memcpy(at(DATA + 100), "defg", 5);
    put_desc(DESC, 0, DATA, 3, NEXT, 1);
    put_desc(DESC, 1, 0, 0, NEXT, 2); /* empty: legal */
    put_desc(DESC, 2, DATA + 100, 5, NEXT, 3);
    put_desc(DESC, 3, ROOM, 2, NEXT | WRITE, 4);
    put_desc(DESC, 4, ROOM + 100, 3, NEXT | WRITE, 5);
    put_desc(DESC, 5, ROOM + 200, 1, WRITE, 0);
    publish(0);
    struct pv_virtqueue_element *element = pop();
    assert_string_equal(element->request, "abcdefg");
    assert_int_equal(element->room_size, 6);
    pv_virtqueue_push(element, "123456789", 9); /* cut */
    assert_memory_equal(at(ROOM), "12", 2);
    assert_memory_equal(at(ROOM + 100), "345", 3);
    assert_memory_equal(at(ROOM + 200), "6\0", 2);
    assert_int_equal(used_len(0), 6);
}

static void test_across_regions(void **state)
{
    start_split();
    memcpy(at(BASE + SIZE - 4), "1234", 4);
    memcpy(at(BASE + SIZE), "567", 4);
    put_desc(DESC, 0, BASE + SIZE - 4, 8, NEXT, 1);
    put_desc(DESC, 1, BASE + SIZE - 2, 4, WRITE, 0);
    publish(0);
    struct pv_virtqueue_element *element = pop();
    assert_string_equal(element->request, "1234567");
    pv_virtqueue_push(element, "wxyz", 4);
    assert_memory_equal(at(BASE + SIZE), "yz", 2);
}

static void test_no_room_and_no_request(void **state)
{
    start_split();
    memcpy(at(DATA), "request", 8);
    put_desc(DESC, 0, DATA, 8, 0, 0);
    put_desc(DESC, 1, ROOM, 8, WRITE, 0);
    publish(0);
    publish(1);
    struct pv_virtqueue_element *element = pop();
    assert_int_equal(element->room_size, 0);
    pv_virtqueue_push(element, "answer", 7);
    assert_int_equal(used_len(0), 0);
    element = pop();
    assert_int_equal(element->request_size, 0);
    pv_virtqueue_push(element, "answer", 7);
    assert_int_equal(used_len(1), 7);
}

static void test_too_long(void **state)
{
    start_split();
    memcpy(at(DATA), "the first twenty-four bytes, and more", 38);
    put_desc(DESC, 0, DATA, 10, NEXT, 1);
    put_desc(DESC, 1, DATA + 10, REQUEST_MAX, NEXT, 2);
    put_desc(DESC, 2, ROOM, 64, WRITE, 0);
    publish(0);
    struct pv_virtqueue_element *element = pop();
    assert_null(element->request);
    assert_int_equal(element->request_size, REQUEST_MAX + 10);
    assert_memory_equal(element->header, "the first twenty-four by", 24);
    pv_virtqueue_push(element, "no", 3);
    assert_string_equal(at(ROOM), "no");

    put_desc(DESC, 0, DATA, REQUEST_MAX, 0, 0); /* just fits */
    publish(0);
    element = pop();
    assert_non_null(element->request);
    pv_virtqueue_push(element, NULL, 0);
}

static void test_room_is_limited(void **state)
{
    start_split();
    put_desc(DESC, 0, ROOM, 4000, NEXT | WRITE, 1);
    put_desc(DESC, 1, ROOM + 4000, 4000, NEXT | WRITE, 2);
    put_desc(DESC, 2, ROOM + 8000, 4000, WRITE, 0);
    publish(0);
    struct pv_virtqueue_element *element = pop();
    assert_int_equal(element->room_size, RESPONSE_MAX);
    assert_int_equal(element->range_count, 2);
    pv_virtqueue_push(element, NULL, 0);
}

static void test_split_indirect(void **state)
{
    start_split();
    memcpy(at(DATA), "indirect", 9);
    put_desc(TABLE, 0, DATA, 4, NEXT, 2);
    put_desc(TABLE, 1, ROOM, 16, WRITE, 0);
    put_desc(TABLE, 2, DATA + 4, 5, NEXT, 1);
    put_desc(DESC, 5, TABLE, 48, INDIRECT, 0);
    publish(5);
    struct pv_virtqueue_element *element = pop();
    assert_string_equal(element->request, "indirect");
    pv_virtqueue_push(element, "x", 1);
    assert_int_equal(used_id(0), 5);

    /* behind direct descriptors, and longer than the ring */
    for (uint16_t i = 0; i < 100; i++)
        put_desc(TABLE, i, DATA, 1, i < 99 ? NEXT : 0, (uint16_t)(i + 1));
    put_desc(DESC, 0, DATA, 9, NEXT, 1);
    put_desc(DESC, 1, TABLE, 1600, INDIRECT, 0);
    publish(0);
    element = pop();
    assert_int_equal(element->request_size, 109);
    pv_virtqueue_push(element, NULL, 0);
}

static void test_split_broken(void **state)
{
    const struct {
        struct desc desc[3];
        uint16_t head;
    } cases[] = {
        {{{DATA, 8, NEXT, 0}}, 0},                                         /* loops */
        {{{DATA, 8, NEXT, 1}, {DATA, 8, NEXT, 0}}, 0},                     /* loops */
        {{{DATA, 8, NEXT, 8}}, 0},                                         /* next outside */
        {{{DATA, 8, 0, 0}}, 8},                                            /* head outside */
        {{{OUTSIDE, 8, 0, 0}}, 0},                                         /* no memory */
        {{{BASE + SIZE + MORE - 4, 8, 0, 0}}, 0},                          /* ends outside */
        {{{UINT64_MAX - 3, 8, 0, 0}}, 0},                                  /* wraps */
        {{{DATA, UINT32_MAX, 0, 0}}, 0},                                   /* 4 GiB */
        {{{OUTSIDE, 8, WRITE, 0}}, 0},                                     /* no memory */
        {{{ROOM, 8, WRITE | NEXT, 1}, {DATA, 8, 0, 0}}, 0},                /* wrong order */
        {{{TABLE, 16, INDIRECT | NEXT, 1}, {DATA, 8, 0, 0}}, 0},           /* goes on behind it */
        {{{TABLE, 0, INDIRECT, 0}}, 0},                                    /* empty table */
        {{{TABLE, 17, INDIRECT, 0}}, 0},                                   /* no entries of 16 */
        {{{TABLE, 16 * (PV_VIRTQUEUE_INDIRECT_MAX + 1), INDIRECT, 0}}, 0}, /* too long */
        {{{OUTSIDE, 32, INDIRECT, 0}}, 0},                                 /* no memory */
        {{{TABLE + 64, 16, INDIRECT, 0}}, 0},                              /* a table in a table */
        {{{TABLE + 80, 32, INDIRECT, 0}}, 0},                              /* a table that loops */
        {{{TABLE + 112, 16, INDIRECT, 0}}, 0},                             /* next outside it */
    };
    start_split();
    put_desc(TABLE, 0, DATA, 8, 0, 0);
    put_desc(TABLE + 64, 0, TABLE, 16, INDIRECT, 0);
    put_desc(TABLE + 80, 0, DATA, 8, NEXT, 1);
    put_desc(TABLE + 80, 1, DATA, 8, NEXT, 0);
    put_desc(TABLE + 112, 0, DATA, 8, NEXT, 1);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        memcpy(at(DESC), cases[i].desc, sizeof(cases[i].desc));
        publish(cases[i].head);
        assert_broken();
    }
}

static void test_split_index_jumps(void **state)
{
    start_split();
    avail()[1] = 9;
    assert_broken();
    avail()[1] = 65535;
    assert_broken();
}

static void test_indirect_must_be_negotiated(void **state)
{
    setup.indirect = false;
    start_split();
    put_desc(TABLE, 0, DATA, 8, 0, 0);
    put_desc(DESC, 0, TABLE, 16, INDIRECT, 0);
    publish(0);
    assert_broken();
}

static void test_more_in_flight_than_entries(void **state)
{
    start_split();
    put_desc(DESC, 0, DATA, 8, 0, 0);
    for (uint32_t i = 0; i < setup.size; i++) {
        publish(0);
        pop();
    }
    publish(0);
    assert_broken();
}

/* ---- packed rings ---- */

static uint16_t packed_next;
static bool packed_wrap;

/* The driver makes an entry available; flags last, as it should. */
static void put_packed(uint64_t addr, uint32_t len, uint16_t id, uint16_t flags)
{
    flags |= packed_wrap ? AVAIL : USED;
    put_desc(DESC, packed_next, addr, len, id, flags);
    if (++packed_next == setup.size) {
        packed_next = 0;
        packed_wrap = !packed_wrap;
    }
}

static void start_packed_driver(void)
{
    memset(at(DESC), 0, 16 * setup.size);
    packed_next = 0;
    packed_wrap = true;
    start_packed();
}

static struct desc packed_desc(uint32_t i)
{
    struct desc *descs = at(DESC);
    return descs[i];
}

static void test_packed_request(void **state)
{
    start_packed_driver();
    assert_empty();
    memcpy(at(DATA), "request", 8);
    put_packed(DATA, 8, 0, NEXT);
    put_packed(ROOM, 32, 77, WRITE);
    struct pv_virtqueue_element *element = pop();
    assert_string_equal(element->request, "request");
    assert_int_equal(element->room_size, 32);
    assert_int_equal(element->slots, 2);
    assert_empty();
    pv_virtqueue_push(element, "answer", 7);
    const struct desc done = packed_desc(0);
    assert_int_equal(done.a, 77);
    assert_int_equal(done.len, 7);
    assert_int_equal(done.b & (AVAIL | USED), AVAIL | USED);
    assert_true(pv_virtqueue_must_signal(&queue));
    assert_int_equal(pv_virtqueue_stop(&queue), 0x80028002);
}

static void test_packed_wraps_and_out_of_order(void **state)
{
    setup.size = 7; /* no power of two: legal here */
    start_packed_driver();
    uint16_t next = 0;
    bool wrap = true;
    for (int round = 0; round < 1000; round++) {
        memcpy(at(DATA), &round, sizeof(round));
        put_packed(DATA, 4, 0, NEXT);
        put_packed(ROOM, 4, 1, WRITE);
        put_packed(DATA, 4, 2, 0);
        struct pv_virtqueue_element *first = pop(), *second = pop();
        assert_empty();
        assert_memory_equal(first->request, &round, 4);
        pv_virtqueue_push(second, NULL, 0); /* takes the place of the first */
        pv_virtqueue_push(first, &round, 4);
        const uint16_t ids[] = {2, 1}, slots[] = {1, 2};
        for (int i = 0; i < 2; i++) {
            const struct desc done = packed_desc(next);
            assert_int_equal(done.a, ids[i]);
            assert_int_equal(done.b & (AVAIL | USED), wrap ? AVAIL | USED : 0);
            next = (uint16_t)(next + slots[i]);
            if (next >= setup.size) {
                next = (uint16_t)(next - setup.size);
                wrap = !wrap;
            }
        }
        assert_memory_equal(at(ROOM), &round, 4);
    }
}

static void test_packed_base_survives_a_stop(void **state)
{
    start_packed_driver();
    for (int i = 0; i < 11; i++) {
        put_packed(ROOM, 4, 1, WRITE);
        pv_virtqueue_push(pop(), "x", 1);
    }
    uint32_t base = pv_virtqueue_stop(&queue);
    assert_int_equal(base, 0x00030003); /* second round: both counters are 0 */
    setup.base = base;
    assert_int_equal(pv_virtqueue_start(&queue, &setup), 0);
    assert_empty();
    put_packed(ROOM, 4, 9, WRITE);
    pv_virtqueue_push(pop(), "x", 1);
    assert_int_equal(packed_desc(3).a, 9);
}

static void test_packed_event_idx(void **state)
{
    start_packed_driver();
    uint16_t *driver_event = at(DRIVER), *device_event = at(DEVICE);
    assert_empty();
    assert_int_equal(device_event[0], 0x8000);
    assert_int_equal(device_event[1], 2);
    put_packed(ROOM, 4, 1, WRITE);
    pv_virtqueue_push(pop(), "x", 1);
    assert_true(pv_virtqueue_must_signal(&queue)); /* the first after a start, always */

    driver_event[1] = 1; /* never */
    put_packed(ROOM, 4, 1, WRITE);
    pv_virtqueue_push(pop(), "x", 1);
    assert_false(pv_virtqueue_must_signal(&queue));

    driver_event[0] = 0x8000 | 4; /* at entry 4 of this round */
    driver_event[1] = 2;
    bool signalled[6];
    for (int i = 2; i < 8; i++) {
        put_packed(ROOM, 4, 1, WRITE);
        pv_virtqueue_push(pop(), "x", 1);
        signalled[i - 2] = pv_virtqueue_must_signal(&queue);
    }
    const bool wanted[] = {false, false, true, false, false, false};
    assert_memory_equal(signalled, wanted, sizeof(wanted));

    driver_event[0] = 1; /* at entry 1 of the next round */
    for (int i = 0; i < 3; i++) {
        put_packed(ROOM, 4, 1, WRITE);
        pv_virtqueue_push(pop(), "x", 1);
        signalled[i] = pv_virtqueue_must_signal(&queue);
    }
    assert_false(signalled[0]);
    assert_true(signalled[1]);
    assert_false(signalled[2]);
    assert_empty();
    assert_int_equal(device_event[0], 3);

    driver_event[1] = 0; /* always */
    put_packed(ROOM, 4, 1, WRITE);
    pv_virtqueue_push(pop(), "x", 1);
    assert_true(pv_virtqueue_must_signal(&queue));
}

static void test_packed_event_before_the_wrap(void **state)
{
    start_packed_driver();
    uint16_t *driver_event = at(DRIVER);
    put_packed(ROOM, 4, 1, WRITE);
    pv_virtqueue_push(pop(), "x", 1);
    pv_virtqueue_must_signal(&queue);
    driver_event[0] = 0x8000 | 7;
    driver_event[1] = 2;
    for (int i = 0; i < 6; i++) {
        put_packed(ROOM, 4, 1, WRITE);
        pv_virtqueue_push(pop(), "x", 1);
    }
    assert_false(pv_virtqueue_must_signal(&queue));
    for (int i = 0; i < 3; i++) {
        put_packed(ROOM, 4, 1, WRITE);
        pv_virtqueue_push(pop(), "x", 1);
    }
    assert_true(pv_virtqueue_must_signal(&queue)); /* 7, 0 and 1 at once, across the wrap */
}

static void test_packed_indirect(void **state)
{
    start_packed_driver();
    memcpy(at(DATA), "indirect", 9);
    put_desc(TABLE, 0, DATA, 4, 0, 0);
    put_desc(TABLE, 1, DATA + 4, 5, 0, 0);
    put_desc(TABLE, 2, ROOM, 16, 0, WRITE);
    put_packed(TABLE, 48, 5, INDIRECT);
    struct pv_virtqueue_element *element = pop();
    assert_string_equal(element->request, "indirect");
    assert_int_equal(element->slots, 1);
    pv_virtqueue_push(element, "x", 1);
    assert_int_equal(packed_desc(0).a, 5);
}

static void test_packed_broken(void **state)
{
    start_packed_driver();
    for (uint32_t i = 0; i < setup.size; i++) /* a chain without an end */
        put_packed(DATA, 4, 0, NEXT);
    assert_broken();
    start_packed_driver();
    put_packed(OUTSIDE, 4, 0, 0);
    assert_broken();
    start_packed_driver();
    put_packed(OUTSIDE, 4, 0, WRITE);
    assert_broken();
    start_packed_driver();
    put_packed(ROOM, 4, 0, WRITE | NEXT);
    put_packed(DATA, 4, 0, 0);
    assert_broken();
    start_packed_driver();
    put_desc(TABLE, 0, TABLE, 16, 0, INDIRECT);
    put_packed(TABLE, 16, 0, INDIRECT);
    assert_broken();
    start_packed_driver();
    put_packed(TABLE, 16, 0, INDIRECT | NEXT);
    put_packed(DATA, 4, 0, 0);
    assert_broken();
    start_packed_driver();
    put_packed(OUTSIDE, 16, 0, INDIRECT);
    assert_broken();
    start_packed_driver(); /* two in flight, and a chain that would run into the first */
    put_packed(DATA, 4, 0, 0);
    put_packed(DATA, 4, 0, 0);
    pop();
    pop();
    for (int i = 0; i < 6; i++)
        put_packed(DATA, 4, 0, NEXT);
    assert_broken();
}

/* ---- both ---- */

static void test_bad_setups(void **state)
{
    const struct pv_virtqueue_setup good = setup;
    const uint32_t sizes[] = {0, 3, PV_VIRTQUEUE_SIZE_MAX + 1, 65536, UINT32_MAX};
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        setup = good;
        setup.size = sizes[i];
        assert_int_equal(pv_virtqueue_start(&queue, &setup), -EINVAL);
    }
    setup = good;
    setup.base = 65536;
    assert_int_equal(pv_virtqueue_start(&queue, &setup), -EINVAL);
    uint64_t *places[] = {&setup.desc, &setup.driver, &setup.device};
    for (size_t i = 0; i < 3; i++) {
        setup = good;
        *places[i] += 1;
        assert_int_equal(pv_virtqueue_start(&queue, &setup), -EINVAL);
        *places[i] = USER + OUTSIDE;
        assert_int_equal(pv_virtqueue_start(&queue, &setup), -EFAULT);
        *places[i] = USER + BASE + SIZE - 16; /* leaves its region */
        setup.size = 256;
        assert_int_equal(pv_virtqueue_start(&queue, &setup), -EFAULT);
    }
    setup = good;
    setup.packed = true;
    setup.base = 8;
    assert_int_equal(pv_virtqueue_start(&queue, &setup), -EINVAL);
    struct pv_virtqueue_element *element;
    assert_int_equal(pv_virtqueue_pop(&queue, &element), 0);
}

static void test_memory_goes(void **state)
{
    start_split();
    simple_request(0, 16);
    simple_request(2, 16);
    publish(0);
    struct pv_virtqueue_element *element = pop();
    publish(2);
    assert_int_equal(pv_virtqueue_remap(&queue, NULL), 0);
    assert_int_equal(pv_guest_memory_set(memory, NULL, 0), 0);
    assert_int_equal(pv_virtqueue_remap(&queue, NULL), -EFAULT);
    pv_virtqueue_push(element, "late", 5); /* goes nowhere */
    assert_false(pv_virtqueue_must_signal(&queue));
    assert_empty();
    assert_int_equal(pv_virtqueue_remap(&queue, NULL), -EFAULT);

    set_memory(); /* it is back: so is the queue */
    assert_int_equal(pv_virtqueue_remap(&queue, NULL), 0);
    pv_virtqueue_push(pop(), "x", 1);
    assert_int_equal(used_id(0), 2);
    assert_true(pv_virtqueue_must_signal(&queue));
}

static void test_rings_move(void **state)
{
    start_split();
    struct pv_virtqueue_setup moved = setup;
    moved.desc = USER + TABLE;
    put_desc(TABLE, 0, DATA, 3, 0, 0);
    publish(0);
    assert_int_equal(pv_virtqueue_remap(&queue, &moved), 0);
    assert_int_equal(pop()->request_size, 3);
    moved.desc += 1;
    assert_true(pv_virtqueue_remap(&queue, &moved) < 0);
}

static void test_answers_memory_goes(void **state)
{
    const struct pv_guest_region only = {
        .gpa = BASE, .size = SIZE, .user_address = USER + BASE, .fd = fd};
    start_split();
    put_desc(DESC, 0, DATA, 8, NEXT, 1);
    put_desc(DESC, 1, BASE + SIZE, 16, WRITE, 0);
    publish(0);
    struct pv_virtqueue_element *element = pop();
    assert_int_equal(pv_guest_memory_set(memory, &only, 1), 0);
    assert_int_equal(pv_virtqueue_remap(&queue, NULL), 0);
    pv_virtqueue_push(element, "answer", 7);
    assert_int_equal(used()[1], 1);
    assert_int_equal(used_len(0), 0);
}

static void test_stop_forgets(void **state)
{
    start_split();
    simple_request(0, 16);
    publish(0);
    pop();
    assert_int_equal(pv_virtqueue_stop(&queue), 1);
    assert_true(pv_list_empty(&queue.in_flight));
    start_split();
    struct pv_virtqueue_element *element = pop(); /* from the base in setup again */
    pv_virtqueue_push(element, "x", 1);
    assert_int_equal(used()[1], 1);
}

static void test_no_memory(void **state)
{
    for (int n = 1; n < 4; n++) {
        start_split();
        avail()[1] = 0;
        simple_request(0, 16);
        publish(0);
        struct pv_virtqueue_element *element = NULL;
        alloc_fail_in(n);
        int ret = pv_virtqueue_pop(&queue, &element);
        alloc_fail_in(0);
        if (ret ==
            1) /* the request's buffer could not grow: its header is there, or nothing failed */
            pv_virtqueue_push(element, "x", 1);
        else
            assert_int_equal(ret, -EPROTO);
        tear_down(NULL);
        set_up(NULL);
    }
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_split_request),
        TEST(test_split_wraps_and_out_of_order),
        TEST(test_split_starts_at_base),
        TEST(test_split_event_idx),
        TEST(test_split_without_event_idx),
        TEST(test_gather_and_scatter),
        TEST(test_across_regions),
        TEST(test_no_room_and_no_request),
        TEST(test_too_long),
        TEST(test_room_is_limited),
        TEST(test_split_indirect),
        TEST(test_split_broken),
        TEST(test_split_index_jumps),
        TEST(test_indirect_must_be_negotiated),
        TEST(test_more_in_flight_than_entries),
        TEST(test_packed_request),
        TEST(test_packed_wraps_and_out_of_order),
        TEST(test_packed_base_survives_a_stop),
        TEST(test_packed_event_idx),
        TEST(test_packed_event_before_the_wrap),
        TEST(test_packed_indirect),
        TEST(test_packed_broken),
        TEST(test_bad_setups),
        TEST(test_memory_goes),
        TEST(test_rings_move),
        TEST(test_answers_memory_goes),
        TEST(test_stop_forgets),
        TEST(test_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
