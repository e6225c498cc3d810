#include "gpu/window.h"
#include "util/os.h"

#include "unit.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define PAGES  64u /* of each half */
#define OWNERS 4u
#define RANGES 128u
#define STEPS  200000u

/* What the window should do, page by page: who has a page and who holds it. */
struct model_range {
    bool live, upper;
    uint8_t mark; /* in every page while it is live */
    unsigned first, count;
    struct pv_window_range *range;
    struct pv_window_hold holds[OWNERS];
    bool held[OWNERS];
};

struct model {
    struct pv_window *window;
    uint64_t page;
    struct model_range ranges[RANGES];
    int owners[OWNERS]; /* their addresses are their names */
    uint64_t random;
};

static unsigned below(struct model *m, unsigned limit)
{
    m->random = m->random * UINT64_C(6364136223846793005) + 1442695040888963407u;
    return (unsigned)(m->random >> 33) % limit;
}

static bool overlaps(const struct model_range *range, unsigned first, unsigned count)
{
    return range->count > 0 && range->first < first + count && first < range->first + range->count;
}

static bool is_held(const struct model_range *range)
{
    for (unsigned i = 0; i < OWNERS; i++) {
        if (range->held[i])
            return true;
    }
    return false;
}

/* 0, -EEXIST or -EBUSY. */
static int expected(const struct model *m, unsigned owner, unsigned first, unsigned count)
{
    bool busy = false;
    for (unsigned i = 0; i < RANGES; i++) {
        const struct model_range *range = &m->ranges[i];
        if (!overlaps(range, first, count))
            continue;
        if (range->live)
            return -EEXIST;
        for (unsigned other = 0; other < OWNERS; other++)
            busy |= range->held[other] && other != owner;
    }
    return busy ? -EBUSY : 0;
}

static uint8_t *bytes_of(const struct model *m, const struct model_range *range)
{
    return (uint8_t *)pv_window_map(m->window) + range->first * m->page;
}

/* A new range reads as zeros; then it gets a mark at both ends. */
static void check_new(struct model *m, struct model_range *range, unsigned mark)
{
    uint8_t *bytes = bytes_of(m, range);
    for (unsigned i = 0; i < range->count; i++)
        assert_int_equal(bytes[i * m->page], 0);
    for (unsigned i = 0; i < range->count; i++)
        bytes[i * m->page] = range->mark = (uint8_t)(mark | 1);
}

static void hold(struct model *m, struct model_range *range, unsigned owner)
{
    if (range->held[owner])
        return;
    range->held[owner] = true;
    pv_window_hold(range->range, &m->owners[owner], &range->holds[owner]);
}

static void drop(struct model *m, struct model_range *range, unsigned owner)
{
    if (!range->held[owner])
        return;
    range->held[owner] = false;
    pv_window_drop(m->window, &range->holds[owner]);
    if (!range->live && !is_held(range))
        range->count = 0;
}

static void claim(struct model *m, struct model_range *range)
{
    unsigned owner = below(m, OWNERS), first = below(m, PAGES);
    unsigned count = 1 + below(m, 8);
    if (first + count > PAGES)
        count = PAGES - first;
    struct pv_window_range *got = NULL;
    int ret = pv_window_claim(m->window, &m->owners[owner], first * m->page, count * m->page, &got);
    assert_int_equal(ret, expected(m, owner, first, count));
    if (ret < 0)
        return;
    *range = (struct model_range){.live = true, .first = first, .count = count, .range = got};
    check_new(m, range, below(m, 256));
    hold(m, range, owner);
}

static void place(struct model *m, struct model_range *range)
{
    unsigned count = 1 + below(m, 8);
    struct pv_window_range *got = NULL;
    int ret = pv_window_place(m->window, count * m->page, &got);
    if (ret < 0) {
        assert_int_equal(ret, -ENOSPC);
        return;
    }
    unsigned first = (unsigned)(got->interval.start / m->page);
    assert_true(first >= PAGES && first + count <= 2 * PAGES);
    for (unsigned i = 0; i < RANGES; i++)
        assert_false(overlaps(&m->ranges[i], first, count));
    *range = (struct model_range){
        .live = true, .upper = true, .first = first, .count = count, .range = got};
    check_new(m, range, below(m, 256));
}

static void release(struct model *m, struct model_range *range)
{
    for (unsigned i = 0; i < range->count; i++) /* nobody else had a part of it */
        assert_int_equal(bytes_of(m, range)[i * m->page], range->mark);
    pv_window_release(m->window, range->range);
    range->live = false;
    if (!is_held(range))
        range->count = 0;
}

static void step(struct model *m)
{
    struct model_range *range = &m->ranges[below(m, RANGES)];
    if (range->count == 0)
        below(m, 3) == 0 ? place(m, range) : claim(m, range);
    else if (below(m, 4) == 0)
        drop(m, range, below(m, OWNERS));
    else if (range->live && below(m, 2) == 0)
        release(m, range);
    else if (range->live)
        hold(m, range, below(m, OWNERS));
}

static void set_up(struct model *m)
{
    memset(m, 0, sizeof(*m));
    m->page = pv_page_size();
    m->random = 12345;
    assert_int_equal(pv_window_create(PAGES * m->page, true, &m->window), 0);
}

static void behaves_like_the_model(void **state)
{
    static struct model m;
    set_up(&m);
    for (unsigned i = 0; i < STEPS; i++) {
        step(&m);
        if (i % 100 == 0) {
            uint64_t mapped = 0;
            for (unsigned r = 0; r < RANGES; r++)
                mapped += m.ranges[r].live && !m.ranges[r].upper ? m.ranges[r].count : 0;
            assert_int_equal(pv_window_mapped(m.window), mapped * m.page);
        }
    }
    for (unsigned r = 0; r < RANGES; r++) {
        for (unsigned owner = 0; owner < OWNERS; owner++)
            drop(&m, &m.ranges[r], owner);
        if (m.ranges[r].count > 0)
            release(&m, &m.ranges[r]);
    }
    /* Nothing is lost: both halves can be had in one piece. */
    struct pv_window_range *lower, *upper;
    assert_int_equal(pv_window_claim(m.window, &m, 0, PAGES * m.page, &lower), 0);
    assert_int_equal(pv_window_place(m.window, PAGES * m.page, &upper), 0);
    pv_window_destroy(m.window);
}

static void nonsense_is_refused(void **state)
{
    static struct model m;
    set_up(&m);
    struct pv_window_range *range;
    const uint64_t bad[][2] = {
        {0, 0},
        {1, m.page},
        {0, m.page + 1},
        {PAGES * m.page, m.page},
        {0, (PAGES + 1) * m.page},
        {UINT64_MAX - m.page + 1, m.page},
        {m.page, UINT64_MAX - m.page + 1},
        {2 * PAGES * m.page, m.page},
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_int_equal(pv_window_claim(m.window, &m, bad[i][0], bad[i][1], &range), -EINVAL);
    assert_int_equal(pv_window_place(m.window, (PAGES + 1) * m.page, &range), -ENOSPC);
    assert_int_equal(pv_window_place(m.window, UINT64_MAX - m.page + 1, &range), -ENOSPC);
    pv_window_destroy(m.window);
    assert_int_equal(pv_window_create(3 * m.page, true, &m.window), -EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(behaves_like_the_model),
        cmocka_unit_test(nonsense_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
