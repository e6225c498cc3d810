#include "venus/resource.h"

#include "unit.h"
#include "util/os.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

static struct pv_resources *resources;

static int create(void **state)
{
    return pv_resources_create(NULL, NULL, &resources);
}

static int destroy(void **state)
{
    pv_resources_destroy(resources);
    return 0;
}

static int make_fd(uint64_t size)
{
    int fd = -1;
    assert_int_equal(pv_shm_create("test", size, &fd), 0);
    return fd;
}

static bool is_open(int fd)
{
    return fcntl(fd, F_GETFD) >= 0;
}

static void test_map(void **state)
{
    int fd = make_fd(10000);
    assert_int_equal(pv_resources_add(resources, 7, fd, 10000, PV_RESOURCE_SHM), 0);
    struct pv_resource *resource = pv_resources_get(resources, 7);
    assert_non_null(resource);
    assert_int_equal(resource->size, 10000);
    resource->map[9999] = 0x5a; /* the guest's side sees it */
    uint8_t byte = 0;
    assert_int_equal(pread(fd, &byte, 1, 9999), 1);
    assert_int_equal(byte, 0x5a);
    assert_int_equal(pv_resources_bytes(resources), 10000);

    assert_false(resource->removed);
    assert_int_equal(pv_resources_remove(resources, 7), 0);
    assert_true(resource->removed);
    assert_int_equal(pv_resources_bytes(resources), 0);
    assert_null(pv_resources_get(resources, 7));
    resource->map[0] = 1; /* a ring that uses it keeps it alive */
    assert_true(is_open(fd));
    pv_resource_unref(resource);
    assert_false(is_open(fd));
    assert_int_equal(pv_resources_remove(resources, 7), -ENOENT);
}

static void test_in_use(void **state)
{
    int fd = make_fd(4096), second = make_fd(4096);
    assert_int_equal(pv_resources_add(resources, 1, fd, 4096, PV_RESOURCE_SHM), 0);
    assert_int_equal(pv_resources_add(resources, 1, second, 4096, PV_RESOURCE_SHM), -EEXIST);
    assert_true(is_open(second)); /* still the caller's */
    close(second);
    assert_int_equal(pv_resources_bytes(resources), 4096);
}

static void test_unmappable(void **state)
{
    int fd = make_fd(4096);
    assert_true(pv_resources_add(resources, 1, fd, UINT64_MAX, PV_RESOURCE_SHM) < 0);
    assert_true(is_open(fd));
    assert_null(pv_resources_get(resources, 1));
    close(fd);
    /* device memory is only a name */
    assert_int_equal(pv_resources_add(resources, 1, -1, UINT64_MAX, PV_RESOURCE_OTHER), 0);
    struct pv_resource *resource = pv_resources_get(resources, 1);
    assert_null(resource->map);
    assert_false(pv_resource_has_range(resource, 0, 0));
    pv_resource_unref(resource);
    assert_int_equal(pv_resources_bytes(resources), 0);
}

static void test_range(void **state)
{
    assert_int_equal(pv_resources_add(resources, 1, make_fd(100), 100, PV_RESOURCE_SHM), 0);
    struct pv_resource *resource = pv_resources_get(resources, 1);
    assert_true(pv_resource_has_range(resource, 0, 100));
    assert_true(pv_resource_has_range(resource, 100, 0));
    assert_true(pv_resource_has_range(resource, 99, 1));
    assert_false(pv_resource_has_range(resource, 0, 101));
    assert_false(pv_resource_has_range(resource, 101, 0));
    assert_false(pv_resource_has_range(resource, 1, 100));
    assert_false(pv_resource_has_range(resource, 1, UINT64_MAX));
    assert_false(pv_resource_has_range(resource, UINT64_MAX, 1));
    assert_false(pv_resource_has_range(resource, UINT64_MAX, UINT64_MAX));
    pv_resource_unref(resource);
}

/* Ids of one bucket, in any order. */
static void test_many(void **state)
{
    for (uint32_t i = 1; i <= 3000; i++)
        assert_int_equal(pv_resources_add(resources, i * 512, -1, i, PV_RESOURCE_OTHER), 0);
    for (uint32_t i = 1; i <= 3000; i += 3)
        assert_int_equal(pv_resources_remove(resources, i * 512), 0);
    for (uint32_t i = 1; i <= 3000; i++) {
        struct pv_resource *resource = pv_resources_get(resources, i * 512);
        assert_int_equal(resource != NULL, i % 3 != 1);
        assert_true(!resource || resource->size == i);
        pv_resource_unref(resource);
    }
}

/* ---- parts of an arena, and who hears when they are free ---- */

static struct {
    unsigned count;
    uint32_t id;
    uint64_t offset;
} released;

static void on_released(void *data, uint32_t id, uint64_t offset)
{
    assert_ptr_equal(data, &released);
    released.count++;
    released.id = id;
    released.offset = offset;
}

static int create_told(void **state)
{
    memset(&released, 0, sizeof(released));
    return pv_resources_create(on_released, &released, &resources);
}

static void test_part(void **state)
{
    uint64_t page = pv_page_size();
    int arena = make_fd(16 * page);
    assert_int_equal(pv_resources_add_part(resources, 1, arena, 2 * page, page, PV_RESOURCE_SHM),
                     0);
    assert_int_equal(
        pv_resources_add_part(resources, 2, arena, 3 * page, 4 * page, PV_RESOURCE_MEMORY), 0);
    struct pv_resource *shm = pv_resources_get(resources, 1);
    struct pv_resource *memory = pv_resources_get(resources, 2);
    shm->map[5] = 0x5a;
    uint8_t byte = 0;
    assert_int_equal(pread(arena, &byte, 1, (off_t)(2 * page + 5)), 1);
    assert_int_equal(byte, 0x5a);
    assert_null(memory->map);
    assert_int_equal(memory->offset, 3 * page);
    assert_int_equal(memory->use, PV_RESOURCE_MEMORY);
    pv_resource_unref(shm);

    assert_int_equal(pv_resources_remove(resources, 1), 0);
    assert_int_equal(released.count, 1);
    assert_int_equal(released.id, 1);
    assert_int_equal(released.offset, 2 * page);
    assert_int_equal(pv_resources_remove(resources, 2), 0);
    assert_int_equal(released.count, 1); /* somebody has it */
    pv_resource_unref(memory);
    assert_int_equal(released.count, 2);
    assert_int_equal(released.offset, 3 * page);
    assert_true(is_open(arena)); /* not ours */

    /* what is never removed is not told of, nor what could not be added */
    assert_true(pv_resources_add_part(resources, 3, arena, 100, page, PV_RESOURCE_SHM) < 0);
    assert_int_equal(pv_resources_add_part(resources, 4, arena, 0, page, PV_RESOURCE_OTHER), 0);
    assert_int_equal(pv_resources_add_part(resources, 4, arena, page, page, PV_RESOURCE_OTHER),
                     -EEXIST);
    assert_int_equal(pv_resources_add(resources, 5, make_fd(page), page, PV_RESOURCE_SHM), 0);
    assert_int_equal(pv_resources_remove(resources, 5), 0);
    assert_int_equal(released.count, 3);
    assert_int_equal(released.offset, PV_RESOURCE_OWN_FD);
    pv_resources_destroy(resources);
    resources = NULL;
    assert_int_equal(released.count, 3);
    assert_true(is_open(arena));
    close(arena);
}

static void *use_main(void *data)
{
    for (unsigned i = 0; i < 20000; i++) {
        struct pv_resource *resource = pv_resources_get(resources, 1 + i % 8);
        if (resource && !resource->map)
            return resource;
        pv_resource_unref(resource);
    }
    return NULL;
}

static void test_threads(void **state)
{
    pthread_t threads[2];
    void *wrong;
    for (unsigned i = 0; i < 2; i++)
        pthread_create(&threads[i], NULL, use_main, NULL);
    for (uint32_t i = 0; i < 2000; i++) {
        uint32_t id = 1 + i % 8;
        pv_resources_remove(resources, id);
        assert_int_equal(pv_resources_add(resources, id, make_fd(4096), 4096, PV_RESOURCE_SHM), 0);
    }
    for (unsigned i = 0; i < 2; i++) {
        pthread_join(threads[i], &wrong);
        assert_null(wrong);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_map, create, destroy),
        cmocka_unit_test_setup_teardown(test_in_use, create, destroy),
        cmocka_unit_test_setup_teardown(test_unmappable, create, destroy),
        cmocka_unit_test_setup_teardown(test_range, create, destroy),
        cmocka_unit_test_setup_teardown(test_many, create, destroy),
        cmocka_unit_test_setup_teardown(test_part, create_told, destroy),
        cmocka_unit_test_setup_teardown(test_threads, create, destroy),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
