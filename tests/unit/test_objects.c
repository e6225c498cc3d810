#include "venus/objects.h"

#include "alloc_fail.h"
#include "unit.h"

#include <malloc.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define MILLION 1000000u

static struct pv_objects *objects;

static int create(void **state)
{
    return pv_objects_create(&objects);
}

static int destroy(void **state)
{
    pv_objects_destroy(objects);
    return 0;
}

static struct pv_object *add(uint64_t id, VkObjectType type, struct pv_object *parent)
{
    const char *why = NULL;
    struct pv_object *object = pv_objects_add(objects, id, type, parent, &why);
    if (!object)
        fail_msg("id 0x%llx: %s", (unsigned long long)id, why);
    return object;
}

static void refuse(uint64_t id, const char *expected)
{
    const char *why = NULL;
    assert_null(pv_objects_add(objects, id, VK_OBJECT_TYPE_BUFFER, NULL, &why));
    assert_string_equal(why, expected);
}

static void test_find(void **state)
{
    struct pv_object *object = add(7, VK_OBJECT_TYPE_IMAGE, NULL);
    assert_ptr_equal(pv_objects_find(objects, 7), object);
    assert_int_equal(object->type, VK_OBJECT_TYPE_IMAGE);
    assert_int_equal(pv_object_handle(object), 0);
    pv_object_publish(object, 0x1234);
    assert_int_equal(pv_object_handle(object), 0x1234);
    assert_null(pv_objects_find(objects, 0));
    assert_null(pv_objects_find(objects, 8));
    assert_null(pv_objects_find(objects, UINT64_MAX));
    pv_objects_remove(objects, object, NULL, NULL);
    assert_null(pv_objects_find(objects, 7));
    assert_int_equal(pv_objects_count(objects), 0);
}

static void test_bad_ids(void **state)
{
    refuse(0, "new object id is not allowed");
    add(5, VK_OBJECT_TYPE_BUFFER, NULL);
    refuse(5, "new object id is in use");
    assert_int_equal(pv_objects_count(objects), 1);
    add(UINT64_MAX, VK_OBJECT_TYPE_BUFFER, NULL);
    refuse(UINT64_MAX, "new object id is in use");
    assert_non_null(pv_objects_find(objects, UINT64_MAX));
}

/* Counting up, pointers, multiples of large powers of two, in turn. */
static uint64_t some_id(uint64_t i)
{
    switch (i % 4) {
    case 0:
        return i + 1;
    case 1:
        return 0x7f0000000000ull + 64 * i;
    case 2:
        return (i + 1) << 40;
    default:
        return ~i;
    }
}

static void test_a_million(void **state)
{
    for (uint64_t i = 0; i < MILLION; i++)
        pv_object_publish(add(some_id(i), VK_OBJECT_TYPE_BUFFER, NULL), i + 1);
    assert_int_equal(pv_objects_count(objects), MILLION);
    for (uint64_t i = 0; i < MILLION; i++)
        assert_int_equal(pv_object_handle(pv_objects_find(objects, some_id(i))), i + 1);
    for (uint64_t i = 0; i < MILLION; i += 2)
        pv_objects_remove(objects, pv_objects_find(objects, some_id(i)), NULL, NULL);
    for (uint64_t i = 0; i < MILLION; i++) {
        struct pv_object *object = pv_objects_find(objects, some_id(i));
        assert_int_equal(object != NULL, i % 2);
        assert_true(!object || pv_object_handle(object) == i + 1);
    }
    assert_int_equal(pv_objects_count(objects), MILLION / 2);
}

static void test_reuse(void **state)
{
    for (unsigned i = 0; i < 1000; i++) {
        struct pv_object *object =
            add(42, i % 2 ? VK_OBJECT_TYPE_BUFFER : VK_OBJECT_TYPE_IMAGE, NULL);
        assert_int_equal(pv_object_handle(object), 0); /* nothing of the last one is left */
        assert_null(object->any);
        assert_null(object->children);
        pv_object_publish(object, i + 1);
        object->any = &i;
        pv_objects_remove(objects, object, NULL, NULL);
    }
}

static size_t heap_used(void)
{
    struct mallinfo2 info = mallinfo2();
    return info.uordblks + info.hblkhd;
}

/* A few hundred alive at any time, a million come and go. */
static void test_churn_without_growth(void **state)
{
    const uint64_t alive = 250;
    size_t before = 0;
    for (uint64_t i = 0; i < MILLION; i++) {
        if (i == 10000)
            before = heap_used();
        pv_object_publish(add(some_id(i * 7919), VK_OBJECT_TYPE_FENCE, NULL), i + 1);
        if (i >= alive)
            pv_objects_remove(objects, pv_objects_find(objects, some_id((i - alive) * 7919)), NULL,
                              NULL);
    }
    assert_int_equal(pv_objects_count(objects), alive);
    assert_true(heap_used() <= before);
}

struct gone {
    unsigned count;
    VkObjectType order[16];
};

static void note_gone(void *data, struct pv_object *object)
{
    struct gone *gone = data;
    assert_non_null(pv_objects_find(objects, pv_object_id(object))); /* not free yet */
    gone->order[gone->count++] = object->type;
}

static void test_children(void **state)
{
    struct gone gone = {0};
    struct pv_object *physical = add(1, VK_OBJECT_TYPE_PHYSICAL_DEVICE, NULL);
    struct pv_object *device = add(2, VK_OBJECT_TYPE_DEVICE, physical);
    struct pv_object *pool = add(3, VK_OBJECT_TYPE_COMMAND_POOL, device);
    add(4, VK_OBJECT_TYPE_COMMAND_BUFFER, pool);
    struct pv_object *middle = add(5, VK_OBJECT_TYPE_COMMAND_BUFFER, pool);
    add(6, VK_OBJECT_TYPE_COMMAND_BUFFER, pool);
    add(7, VK_OBJECT_TYPE_BUFFER, device);
    assert_null(device->device);
    assert_ptr_equal(pool->device, device);
    assert_ptr_equal(middle->device, device);
    assert_ptr_equal(middle->parent, pool);

    pv_objects_remove(objects, middle, NULL, NULL);
    assert_non_null(pv_objects_find(objects, 4));
    assert_non_null(pv_objects_find(objects, 6));
    pv_objects_remove_children(objects, pool, note_gone, &gone);
    assert_int_equal(gone.count, 2);
    assert_non_null(pv_objects_find(objects, 3));
    add(8, VK_OBJECT_TYPE_COMMAND_BUFFER, pool);

    memset(&gone, 0, sizeof(gone));
    pv_objects_remove(objects, physical, note_gone, &gone);
    assert_int_equal(gone.count, 5);
    assert_int_equal(pv_objects_count(objects), 0);
    /* children before parents */
    assert_int_equal(gone.order[4], VK_OBJECT_TYPE_PHYSICAL_DEVICE);
    assert_int_equal(gone.order[3], VK_OBJECT_TYPE_DEVICE);
    for (unsigned i = 0; i < 3; i++) {
        if (gone.order[i] == VK_OBJECT_TYPE_COMMAND_POOL)
            assert_int_equal(gone.order[i - 1], VK_OBJECT_TYPE_COMMAND_BUFFER);
    }
}

/* ---- threads ----------------------------------------------------------------------------------
 */

#define FIXED  3000u
#define ROUNDS 200u

static atomic_bool stop;

/* Objects that stay are found however much comes and goes beside them. */
static void *find_main(void *data)
{
    uint64_t looked = 0, wrong = 0;
    while (!atomic_load(&stop)) {
        for (uint64_t i = 0; i < FIXED; i++, looked++) {
            struct pv_object *object = pv_objects_find(objects, some_id(i));
            wrong += !object || pv_object_handle(object) != i + 1;
        }
        wrong += pv_objects_find(objects, 0xdead0000beefull) != NULL;
    }
    return (void *)(uintptr_t)(wrong ? wrong : looked == 0);
}

static void *churn_main(void *data)
{
    uint64_t first = (uint64_t)(uintptr_t)data * 100000000ull + FIXED * 4;
    uint64_t wrong = 0;
    const char *why;
    for (unsigned round = 0; round < ROUNDS; round++) {
        for (uint64_t i = 0; i < 500; i++)
            wrong += !pv_objects_add(objects, some_id(first + i), VK_OBJECT_TYPE_EVENT, NULL, &why);
        for (uint64_t i = 0; i < 500; i++) {
            struct pv_object *object = pv_objects_find(objects, some_id(first + i));
            wrong += !object;
            if (object)
                pv_objects_remove(objects, object, NULL, NULL);
            wrong += pv_objects_find(objects, some_id(first + i)) != NULL;
        }
    }
    return (void *)(uintptr_t)wrong;
}

static void test_threads(void **state)
{
    pthread_t finders[2], churners[2];
    void *wrong;
    atomic_store(&stop, false);
    for (uint64_t i = 0; i < FIXED; i++)
        pv_object_publish(add(some_id(i), VK_OBJECT_TYPE_BUFFER, NULL), i + 1);
    for (uintptr_t i = 0; i < 2; i++) {
        pthread_create(&finders[i], NULL, find_main, NULL);
        pthread_create(&churners[i], NULL, churn_main, (void *)(i + 1));
    }
    for (unsigned i = 0; i < 2; i++) {
        pthread_join(churners[i], &wrong);
        assert_int_equal((uintptr_t)wrong, 0);
    }
    atomic_store(&stop, true);
    for (unsigned i = 0; i < 2; i++) {
        pthread_join(finders[i], &wrong);
        assert_int_equal((uintptr_t)wrong, 0);
    }
    assert_int_equal(pv_objects_count(objects), FIXED);
}

/* ---- no memory --------------------------------------------------------------------------------
 */

/* While an object goes nobody can remove it again or give it children. */
static void try_again(void *data, struct pv_object *object)
{
    unsigned *calls = data;
    const char *why = NULL;
    (*calls)++;
    assert_null(pv_objects_add(objects, 99, VK_OBJECT_TYPE_BUFFER, object, &why));
    assert_non_null(why);
    pv_objects_remove(objects, object, try_again, data);
}

static void test_removed_once(void **state)
{
    unsigned calls = 0;
    struct pv_object *device = add(1, VK_OBJECT_TYPE_DEVICE, NULL);
    add(2, VK_OBJECT_TYPE_BUFFER, device);
    pv_objects_remove(objects, device, try_again, &calls);
    assert_int_equal(calls, 2);
    assert_int_equal(pv_objects_count(objects), 0);
    pv_objects_remove(objects, device, try_again, &calls); /* a thread that came too late */
    assert_int_equal(calls, 2);
}

/* An object with a pointer behind it is used again for its own type only. */
static void test_types_stay_apart(void **state)
{
    struct pv_object *memory = add(1, VK_OBJECT_TYPE_DEVICE_MEMORY, NULL);
    pv_object_publish(memory, 1);
    pv_objects_remove(objects, memory, NULL, NULL);
    struct pv_object *queue = add(1, VK_OBJECT_TYPE_QUEUE, NULL);
    assert_ptr_not_equal(queue, memory);
    assert_ptr_equal(add(2, VK_OBJECT_TYPE_DEVICE_MEMORY, NULL), memory);
}

static void test_no_memory(void **state)
{
    struct pv_objects *other = NULL;
    for (int n = 1; n <= 2; n++) {
        alloc_fail_in(n);
        assert_int_not_equal(pv_objects_create(&other), 0);
        assert_true(alloc_failed());
        alloc_fail_in(0);
    }
    const char *why = NULL;
    unsigned refused = 0;
    for (uint64_t id = 1; id < 20000; id++) {
        alloc_fail_in(1);
        struct pv_object *object = pv_objects_add(objects, id, VK_OBJECT_TYPE_BUFFER, NULL, &why);
        bool failed = alloc_failed();
        alloc_fail_in(0);
        assert_int_equal(object == NULL, failed);
        if (!object)
            add(id, VK_OBJECT_TYPE_BUFFER, NULL);
        refused += failed;
    }
    assert_true(refused > 30); /* a slab per 512 objects, and tables */
    for (uint64_t id = 1; id < 20000; id++)
        assert_non_null(pv_objects_find(objects, id));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_find, create, destroy),
        cmocka_unit_test_setup_teardown(test_bad_ids, create, destroy),
        cmocka_unit_test_setup_teardown(test_a_million, create, destroy),
        cmocka_unit_test_setup_teardown(test_reuse, create, destroy),
        cmocka_unit_test_setup_teardown(test_churn_without_growth, create, destroy),
        cmocka_unit_test_setup_teardown(test_children, create, destroy),
        cmocka_unit_test_setup_teardown(test_threads, create, destroy),
        cmocka_unit_test_setup_teardown(test_removed_once, create, destroy),
        cmocka_unit_test_setup_teardown(test_types_stay_apart, create, destroy),
        cmocka_unit_test_setup_teardown(test_no_memory, create, destroy),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
