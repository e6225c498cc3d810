#include "venus/arena.h"

#include "alloc_fail.h"
#include "unit.h"

#include <string.h>

static void test_zeroed_and_aligned(void **state)
{
    struct pv_arena arena;
    pv_arena_init(&arena);
    for (unsigned round = 0; round < 3; round++) {
        for (size_t size = 1; size < 3000; size += 7) {
            uint8_t *data = pv_arena_alloc(&arena, size);
            assert_non_null(data);
            assert_int_equal((uintptr_t)data % 16, 0);
            for (size_t i = 0; i < size; i++)
                assert_int_equal(data[i], 0);
            memset(data, 0xa5, size); /* the next round finds zeros here all the same */
        }
        pv_arena_reset(&arena);
        assert_int_equal(arena.used, 0);
    }
    pv_arena_finish(&arena);
}

static void test_pieces_do_not_overlap(void **state)
{
    struct pv_arena arena;
    uint8_t *pieces[200];
    pv_arena_init(&arena);
    for (unsigned i = 0; i < 200; i++) {
        pieces[i] = pv_arena_alloc(&arena, 1000 + i);
        memset(pieces[i], (int)i, 1000 + i);
    }
    for (unsigned i = 0; i < 200; i++) {
        assert_int_equal(pieces[i][0], i);
        assert_int_equal(pieces[i][999 + i], i);
    }
    pv_arena_finish(&arena);
}

static void test_one_large_piece_first(void **state)
{
    struct pv_arena arena;
    pv_arena_init(&arena);
    uint8_t *large = pv_arena_alloc(&arena, 10u << 20);
    assert_non_null(large);
    large[(10u << 20) - 1] = 1;
    pv_arena_reset(&arena);
    assert_non_null(pv_arena_alloc(&arena, 100));
    pv_arena_finish(&arena);
}

static void test_limit(void **state)
{
    struct pv_arena arena;
    pv_arena_init(&arena);
    assert_null(pv_arena_alloc(&arena, (size_t)PV_ARENA_MAX + 1));
    assert_null(pv_arena_alloc(&arena, SIZE_MAX));
    assert_null(pv_arena_alloc(&arena, SIZE_MAX - 15));
    assert_non_null(pv_arena_alloc(&arena, 1));
    assert_null(pv_arena_alloc(&arena, PV_ARENA_MAX));
    assert_non_null(pv_arena_alloc(&arena, 1)); /* a refusal changes nothing */
    pv_arena_finish(&arena);
}

static void test_keeps_its_memory(void **state)
{
    struct pv_arena arena;
    pv_arena_init(&arena);
    assert_non_null(pv_arena_alloc(&arena, 100));
    alloc_fail_in(1); /* the next allocation would fail: there is none */
    for (unsigned i = 0; i < 10000; i++) {
        pv_arena_reset(&arena);
        for (unsigned k = 0; k < 10; k++)
            assert_non_null(pv_arena_alloc(&arena, 1000));
    }
    assert_false(alloc_failed());
    alloc_fail_in(0);
    pv_arena_finish(&arena);
}

static void test_no_memory(void **state)
{
    struct pv_arena arena;
    pv_arena_init(&arena);
    alloc_fail_in(1);
    assert_null(pv_arena_alloc(&arena, 16));
    assert_true(alloc_failed());
    assert_non_null(pv_arena_alloc(&arena, 16));
    alloc_fail_in(1);
    assert_null(pv_arena_alloc(&arena, 1u << 20));
    assert_non_null(pv_arena_alloc(&arena, 16)); /* the rest of the first chunk */
    pv_arena_finish(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_zeroed_and_aligned),    cmocka_unit_test(test_pieces_do_not_overlap),
        cmocka_unit_test(test_one_large_piece_first), cmocka_unit_test(test_limit),
        cmocka_unit_test(test_keeps_its_memory),      cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
