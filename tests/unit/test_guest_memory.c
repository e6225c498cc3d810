#include "unit.h"

#include "alloc_fail.h"
#include "gpu/guest_memory.h"
#include "util/os.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE 65536u /* of any host */
#define HIGH (1ull << 32)

static struct pv_guest_memory *memory;
static int fd; /* 16 pages; byte 0 of page i is i + 1 */

static int set_up(void **state)
{
    assert_int_equal(pv_guest_memory_create(&memory), 0);
    assert_int_equal(pv_shm_create("test", 16 * PAGE, &fd), 0);
    for (uint8_t i = 0; i < 16; i++) {
        uint8_t mark = (uint8_t)(i + 1);
        assert_int_equal(pwrite(fd, &mark, 1, (off_t)i * PAGE), 1);
    }
    return 0;
}

static int tear_down(void **state)
{
    pv_guest_memory_destroy(memory);
    close(fd);
    return 0;
}

static struct pv_guest_region region(uint64_t gpa, uint64_t pages, uint64_t first_page)
{
    return (struct pv_guest_region){
        .gpa = gpa,
        .size = pages * PAGE,
        .user_address = gpa + (1ull << 40),
        .fd = fd,
        .fd_offset = first_page * PAGE,
    };
}

/* Low memory in two neighbours, high memory apart. */
static void set_table(void)
{
    const struct pv_guest_region table[] = {region(HIGH, 4, 8), region(0, 4, 0),
                                            region(4 * PAGE, 4, 4)};
    assert_int_equal(pv_guest_memory_set(memory, table, 3), 0);
}

static uint8_t first_byte(uint64_t gpa)
{
    uint8_t byte = 0;
    assert_int_equal(pv_guest_memory_read(memory, gpa, &byte, 1), 0);
    return byte;
}

static void test_lookup(void **state)
{
    set_table();
    assert_int_equal(first_byte(0), 1);
    assert_int_equal(first_byte(4 * PAGE), 5);
    assert_int_equal(first_byte(HIGH + PAGE), 10);
    assert_non_null(pv_guest_memory_at(memory, HIGH, 4 * PAGE));
    assert_null(pv_guest_memory_at(memory, HIGH, 4 * PAGE + 1));
    assert_null(pv_guest_memory_at(memory, HIGH, UINT64_MAX));
    assert_null(pv_guest_memory_at(memory, HIGH - 1, 1));
    assert_null(pv_guest_memory_at(memory, 8 * PAGE, 1));
    assert_null(pv_guest_memory_at(memory, UINT64_MAX, 1));
    assert_null(pv_guest_memory_at(memory, 3 * PAGE, 2 * PAGE)); /* two regions are two pointers */
}

static void test_user_addresses(void **state)
{
    set_table();
    const uint64_t user = 1ull << 40;
    assert_ptr_equal(pv_guest_memory_at_user(memory, user + PAGE, 1),
                     pv_guest_memory_at(memory, PAGE, 1));
    assert_null(pv_guest_memory_at_user(memory, user - 1, 1));
    assert_null(pv_guest_memory_at_user(memory, user + 8 * PAGE, 1));
    assert_null(pv_guest_memory_at_user(memory, user + 7 * PAGE, PAGE + 1));
    assert_null(pv_guest_memory_at_user(memory, UINT64_MAX, 1));
}

static void test_copies_cross_regions(void **state)
{
    set_table();
    uint8_t out[2 * PAGE], in[2 * PAGE];
    for (size_t i = 0; i < sizeof(out); i++)
        out[i] = (uint8_t)(i * 7);
    assert_int_equal(pv_guest_memory_write(memory, 3 * PAGE, out, sizeof(out)), 0);
    assert_int_equal(pv_guest_memory_read(memory, 3 * PAGE, in, sizeof(in)), 0);
    assert_memory_equal(in, out, sizeof(in));
    assert_true(pv_guest_memory_has(memory, 0, 8 * PAGE));
    assert_false(pv_guest_memory_has(memory, 0, 8 * PAGE + 1));
    assert_false(pv_guest_memory_has(memory, UINT64_MAX, 2));
    assert_int_equal(pv_guest_memory_read(memory, 7 * PAGE, in, 2 * PAGE), -EFAULT);
    assert_int_equal(pv_guest_memory_write(memory, 7 * PAGE, out, 2 * PAGE), -EFAULT);
    assert_int_equal(pv_guest_memory_read(memory, UINT64_MAX, in, 2), -EFAULT);
}

static void test_unchanged_regions_stay_mapped(void **state)
{
    set_table();
    void *low = pv_guest_memory_at(memory, 0, 1), *high = pv_guest_memory_at(memory, HIGH, 1);
    int other = dup(fd); /* the VMM sends a new fd of the same file each time */
    struct pv_guest_region table[] = {region(0, 4, 0), region(HIGH, 4, 12)};
    table[0].fd = other;
    table[0].user_address = 1ull << 50;
    assert_int_equal(pv_guest_memory_set(memory, table, 2), 0);
    close(other);
    assert_ptr_equal(pv_guest_memory_at(memory, 0, 1), low);
    assert_ptr_equal(pv_guest_memory_at_user(memory, 1ull << 50, 1), low);
    assert_int_equal(first_byte(HIGH), 13); /* the same place, but other memory */
    assert_null(pv_guest_memory_at(memory, 4 * PAGE, 1));
    (void)high;
}

static void test_bad_tables_change_nothing(void **state)
{
    set_table();
    void *low = pv_guest_memory_at(memory, 0, 1);
    struct pv_guest_region bad[] = {
        region(0, 0, 0),                 /* empty */
        region(UINT64_MAX - PAGE, 4, 0), /* beyond the end of addresses */
        region(0, 17, 0),                /* longer than the file */
        region(0, 4, UINT64_MAX / PAGE), /* far behind its end */
        region(0, 4, 0),                 /* no file */
    };
    bad[4].fd = -1;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        const struct pv_guest_region table[] = {region(HIGH, 1, 0), bad[i]};
        assert_true(pv_guest_memory_set(memory, table, 2) < 0);
        assert_true(pv_guest_memory_add(memory, &bad[i]) < 0);
    }
    const struct pv_guest_region overlap[] = {region(2 * PAGE, 4, 0), region(0, 3, 8)};
    assert_int_equal(pv_guest_memory_set(memory, overlap, 2), -EINVAL);
    const struct pv_guest_region twice[] = {region(0, 4, 0), region(0, 4, 0)};
    assert_int_equal(pv_guest_memory_set(memory, twice, 2), -EINVAL);

    struct pv_guest_region many[PV_GUEST_REGIONS_MAX + 1];
    for (size_t i = 0; i < PV_GUEST_REGIONS_MAX + 1; i++)
        many[i] = region(i * PAGE, 1, 0);
    assert_int_equal(pv_guest_memory_set(memory, many, PV_GUEST_REGIONS_MAX + 1), -E2BIG);
    assert_ptr_equal(pv_guest_memory_at(memory, 0, 4 * PAGE), low);
    assert_int_equal(first_byte(HIGH), 9);
}

static void test_add_and_remove(void **state)
{
    const struct pv_guest_region a = region(8 * PAGE, 2, 0), b = region(0, 4, 4),
                                 c = region(4 * PAGE, 4, 8), d = region(9 * PAGE, 2, 0);
    assert_int_equal(pv_guest_memory_add(memory, &a), 0);
    assert_int_equal(pv_guest_memory_add(memory, &b), 0);
    assert_int_equal(pv_guest_memory_add(memory, &c), 0);
    assert_int_equal(pv_guest_memory_add(memory, &c), -EINVAL);
    assert_int_equal(pv_guest_memory_add(memory, &d), -EINVAL);
    assert_true(pv_guest_memory_has(memory, 0, 10 * PAGE));
    assert_int_equal(pv_guest_memory_remove(memory, 4 * PAGE, 3 * PAGE), -ENOENT);
    assert_int_equal(pv_guest_memory_remove(memory, 4 * PAGE, 4 * PAGE), 0);
    assert_int_equal(pv_guest_memory_remove(memory, 4 * PAGE, 4 * PAGE), -ENOENT);
    assert_false(pv_guest_memory_has(memory, 0, 10 * PAGE));
    assert_int_equal(first_byte(8 * PAGE), 1);
    assert_int_equal(first_byte(0), 5);
}

static void test_slots_run_out(void **state)
{
    for (uint64_t i = 0; i < PV_GUEST_REGIONS_MAX; i++) {
        const struct pv_guest_region r = region(i * PAGE, 1, i % 16);
        assert_int_equal(pv_guest_memory_add(memory, &r), 0);
    }
    const struct pv_guest_region more = region(HIGH, 1, 0);
    assert_int_equal(pv_guest_memory_add(memory, &more), -E2BIG);
    assert_int_equal(first_byte(63 * PAGE), 16);
}

static void test_offsets_inside_a_page(void **state)
{
    struct pv_guest_region odd = region(0x1000, 1, 1);
    odd.fd_offset -= 16;
    odd.size = 100;
    assert_int_equal(pv_guest_memory_set(memory, &odd, 1), 0);
    assert_int_equal(first_byte(0x1010), 2);
    assert_false(pv_guest_memory_has(memory, 0x1000, 101));
}

static void test_children_do_not_have_it(void **state)
{
    set_table();
    volatile uint8_t *low = pv_guest_memory_at(memory, 0, 1);
    pid_t child = fork();
    if (child == 0) {
        unsigned char resident;
        /* not mapped: mincore says ENOMEM */
        _exit(mincore((void *)low, 1, &resident) < 0 && errno == ENOMEM ? 0 : 1);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
}

static void test_no_memory_at_creation(void **state)
{
    struct pv_guest_memory *none = NULL;
    alloc_fail_in(1);
    assert_int_equal(pv_guest_memory_create(&none), -ENOMEM);
    alloc_fail_in(0);
    assert_null(none);
    pv_guest_memory_destroy(none);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_lookup, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_user_addresses, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_copies_cross_regions, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_unchanged_regions_stay_mapped, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_bad_tables_change_nothing, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_add_and_remove, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_slots_run_out, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_offsets_inside_a_page, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_children_do_not_have_it, set_up, tear_down),
        cmocka_unit_test(test_no_memory_at_creation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
