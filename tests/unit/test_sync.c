#include "unit.h"

#include "transport/vtest/id_table.h"
#include "transport/vtest/sync.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <unistd.h>

static struct pv_sync_table *table;

static int set_up(void **state)
{
    return pv_sync_table_create(&table);
}

static int tear_down(void **state)
{
    pv_sync_table_destroy(table);
    return 0;
}

static uint32_t add(uint64_t value)
{
    uint32_t id = 0;
    assert_int_equal(pv_sync_table_add(table, value, &id), 0);
    assert_int_not_equal(id, 0);
    return id;
}

static uint64_t value_of(uint32_t id)
{
    uint64_t value = 0;
    assert_int_equal(pv_sync_table_read(table, id, &value), 0);
    return value;
}

static bool is_readable(int fd)
{
    struct pollfd poll_fd = {.fd = fd, .events = POLLIN};
    return poll(&poll_fd, 1, 0) == 1;
}

static int wait_for(bool any, int32_t timeout_ms, const struct pv_sync_point *points, size_t count)
{
    int fd = -1;
    assert_int_equal(pv_sync_table_wait(table, any, timeout_ms, points, count, &fd), 0);
    return fd;
}

static void test_values(void **state)
{
    uint32_t a = add(5), b = add(UINT64_MAX);
    assert_int_not_equal(a, b);
    assert_int_equal(value_of(a), 5);
    assert_true(value_of(b) == UINT64_MAX);
    assert_int_equal(pv_sync_table_write(table, a, 2), 0); /* down is fine: a fence is reset so */
    assert_int_equal(value_of(a), 2);
}

static void test_unknown_ids(void **state)
{
    uint64_t value;
    uint32_t a = add(0);
    const uint32_t unknown[] = {0, a + 1, 1000000, UINT32_MAX};
    for (size_t i = 0; i < 4; i++) {
        const struct pv_sync_point points[] = {{a, 0}, {unknown[i], 1}};
        int fd;
        uint64_t cookie;
        assert_int_equal(pv_sync_table_read(table, unknown[i], &value), -ENOENT);
        assert_int_equal(pv_sync_table_write(table, unknown[i], 1), -ENOENT);
        assert_int_equal(pv_sync_table_unref(table, unknown[i]), -ENOENT);
        assert_int_equal(pv_sync_table_wait(table, true, -1, points, 2, &fd), -ENOENT);
        assert_int_equal(pv_sync_table_fence_create(table, points, 2, &cookie), -ENOENT);
    }
    assert_int_equal(pv_sync_table_unref(table, a), 0);
    assert_int_equal(pv_sync_table_unref(table, a), -ENOENT);
}

static void test_wait_that_is_over(void **state)
{
    uint32_t a = add(5), b = add(0);
    const struct pv_sync_point points[] = {{a, 5}, {b, 1}};
    int one = wait_for(false, -1, points, 1);
    int any = wait_for(true, -1, points, 2);
    int none = wait_for(false, -1, NULL, 0);
    assert_true(is_readable(one));
    assert_true(is_readable(any));
    assert_true(is_readable(none));
    assert_int_equal(pv_sync_table_wait_count(table), 0);
    close(one);
    close(any);
    close(none);
}

static void test_wait_for_all(void **state)
{
    uint32_t a = add(0), b = add(0);
    const struct pv_sync_point points[] = {{a, 3}, {b, 1}, {a, 2}};
    int fd = wait_for(false, -1, points, 3);
    pv_sync_table_write(table, a, 2);
    assert_false(is_readable(fd));
    pv_sync_table_write(table, a, 4);
    assert_false(is_readable(fd));
    pv_sync_table_write(table, a, 0); /* has been seen at 4, which is enough */
    pv_sync_table_write(table, b, 1);
    assert_true(is_readable(fd));
    assert_int_equal(pv_sync_table_wait_count(table), 0);
    close(fd);
}

static void test_wait_for_any(void **state)
{
    uint32_t a = add(0), b = add(0);
    const struct pv_sync_point points[] = {{a, 3}, {b, 1}};
    int fd = wait_for(true, -1, points, 2);
    int other = wait_for(true, -1, points, 1);
    pv_sync_table_write(table, b, 7);
    assert_true(is_readable(fd));
    assert_false(is_readable(other));
    assert_int_equal(pv_sync_table_wait_count(table), 1);
    pv_sync_table_write(table, a, 3);
    assert_true(is_readable(other));
    close(fd);
    close(other);
}

static void test_many_waits_on_one_sync(void **state)
{
    uint32_t a = add(0), b = add(0);
    int fds[50];
    for (uint64_t i = 0; i < 50; i++) {
        const struct pv_sync_point points[] = {{a, i + 1}, {b, 1000}, {a, 60}};
        fds[i] = wait_for(true, -1, points, 3);
    }
    pv_sync_table_write(table, a, 25);
    for (int i = 0; i < 50; i++) {
        assert_int_equal(is_readable(fds[i]), i < 25);
        close(fds[i]);
    }
    assert_int_equal(pv_sync_table_wait_count(table), 25);
}

static void test_wait_outlives_its_sync(void **state)
{
    uint32_t a = add(0);
    const struct pv_sync_point point = {a, 1};
    uint64_t cookie;
    assert_int_equal(pv_sync_table_fence_create(table, &point, 1, &cookie), 0);
    int fd = wait_for(false, -1, &point, 1);
    assert_int_equal(pv_sync_table_unref(table, a), 0);
    assert_false(is_readable(fd));
    pv_sync_table_fence_signal(table, cookie);
    assert_true(is_readable(fd));
    close(fd);
}

static void test_expired_waits_are_forgotten(void **state)
{
    uint32_t a = add(0);
    const struct pv_sync_point point = {a, 1};
    for (int i = 0; i < PV_SYNC_WAIT_MAX + 10; i++) /* more than fit at a time */
        close(wait_for(false, 0, &point, 1));
    usleep(1000);
    assert_int_equal(pv_sync_table_wait_count(table), 0);
}

static void test_fence(void **state)
{
    uint32_t a = add(0), b = add(9);
    const struct pv_sync_point points[] = {{a, 5}, {b, 1}, {a, 6}};
    uint64_t cookie, dropped;
    assert_int_equal(pv_sync_table_fence_create(table, points, 3, &cookie), 0);
    assert_int_equal(pv_sync_table_fence_create(table, points, 3, &dropped), 0);
    assert_int_equal(value_of(a), 0);
    pv_sync_table_fence_signal(table, cookie);
    assert_int_equal(value_of(a), 6); /* in the order given */
    assert_int_equal(value_of(b), 1);
    pv_sync_table_fence_cancel(table, dropped);
    assert_int_equal(value_of(a), 6);
}

static void test_wake_all(void **state)
{
    uint32_t a = add(0);
    const struct pv_sync_point point = {a, 1};
    int first = wait_for(false, -1, &point, 1), second = wait_for(true, 1000, &point, 1);
    pv_sync_table_wake_all(table);
    assert_true(is_readable(first));
    assert_true(is_readable(second));
    close(first);
    close(second);
}

static void test_limits(void **state)
{
    uint32_t id, a = add(0);
    for (int i = 1; i < PV_SYNC_MAX; i++)
        add(0);
    assert_int_equal(pv_sync_table_add(table, 0, &id), -ENOSPC);
    assert_int_equal(pv_sync_table_unref(table, a), 0);
    a = add(0);

    /* points, over few waits and fences */
    const size_t many = PV_SYNC_POINT_MAX / 2;
    struct pv_sync_point *points = calloc(many, sizeof(*points));
    uint64_t cookie, unused;
    int fd;
    for (size_t i = 0; i < many; i++)
        points[i] = (struct pv_sync_point){a, 1};
    assert_int_equal(pv_sync_table_fence_create(table, points, many, &cookie), 0);
    close(wait_for(false, -1, points, many));
    assert_int_equal(pv_sync_table_wait(table, false, -1, points, 1, &fd), -ENOSPC);
    assert_int_equal(pv_sync_table_fence_create(table, points, 1, &unused), -ENOSPC);
    pv_sync_table_fence_signal(table, cookie);
    assert_int_equal(pv_sync_table_wait_count(table), 0);
    free(points);
}

static void *signal_fences(void *data)
{
    for (uint64_t value = 1; value <= 2000; value++) {
        const struct pv_sync_point point = {*(uint32_t *)data, value};
        uint64_t cookie;
        assert_int_equal(pv_sync_table_fence_create(table, &point, 1, &cookie), 0);
        pv_sync_table_fence_signal(table, cookie);
    }
    return NULL;
}

static void test_threads(void **state)
{
    uint32_t ids[3] = {add(0), add(0), add(0)};
    pthread_t threads[3];
    for (int i = 0; i < 3; i++)
        pthread_create(&threads[i], NULL, signal_fences, &ids[i]);
    for (uint64_t value = 1; value <= 2000; value += 50) {
        const struct pv_sync_point points[] = {{ids[0], value}, {ids[1], value}, {ids[2], value}};
        struct pollfd poll_fd = {.fd = wait_for(false, 10000, points, 3), .events = POLLIN};
        assert_int_equal(poll(&poll_fd, 1, 10000), 1);
        close(poll_fd.fd);
    }
    for (int i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(pv_sync_table_wait_count(table), 0);
}

static void test_ids(void **state)
{
    struct pv_id_table ids;
    int objects[200];
    uint32_t id, first;
    pv_id_table_init(&ids, 200);
    assert_int_equal(pv_id_table_add(&ids, &objects[0], &first), 0);
    assert_int_equal(first, 1);
    assert_ptr_equal(pv_id_table_remove(&ids, first), &objects[0]);
    assert_null(pv_id_table_remove(&ids, first));
    assert_int_equal(pv_id_table_add(&ids, &objects[0], &id), 0);
    assert_int_not_equal(id, first); /* a freed id comes back late */
    for (int i = 1; i < 200; i++)
        assert_int_equal(pv_id_table_add(&ids, &objects[i], &id), 0);
    assert_ptr_equal(pv_id_table_get(&ids, id), &objects[199]);
    assert_int_equal(pv_id_table_add(&ids, &objects[0], &id), -ENOSPC);

    int count = 0;
    uint32_t cursor = 0;
    while (pv_id_table_walk(&ids, &cursor))
        count++;
    assert_int_equal(count, 200);
    pv_id_table_finish(&ids);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_values),
        TEST(test_unknown_ids),
        TEST(test_wait_that_is_over),
        TEST(test_wait_for_all),
        TEST(test_wait_for_any),
        TEST(test_many_waits_on_one_sync),
        TEST(test_wait_outlives_its_sync),
        TEST(test_expired_waits_are_forgotten),
        TEST(test_fence),
        TEST(test_wake_all),
        TEST(test_limits),
        TEST(test_threads),
        TEST(test_ids),
    };
    return cmocka_run_group_tests_name("sync", tests, NULL, NULL);
}
