#include "gpu/window.h"

#include "util/log.h"
#include "util/os.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>
#include <uv.h>

#define PV_LOG_MODULE "window"

/* Giving back 1 GiB takes some 400 ms; from this size on it happens on another thread. */
#define DISCARD_ASIDE (UINT64_C(1) << 20)

/* The memory, which must outlive all that is given back on another thread. */
struct file {
    int fd;
    uint32_t users; /* the window and its discards; counted on the loop's thread */
};

struct pv_window {
    uv_loop_t *loop; /* borrowed; NULL: nothing happens aside */
    void (*freed)(void *data);
    void *data;
    struct pv_list discards; /* of struct discard: under way */
    uint64_t size;           /* of the lower half */
    uint64_t page;
    uint64_t mapped;
    struct file *file;                  /* NULL: no memory */
    void *map;                          /* owned, 2 * size bytes */
    struct pv_intervals live, draining; /* of struct pv_window_range */
    struct pv_intervals free; /* of bare pv_interval: the unused parts of the upper half */
};

/* A range whose pages are being given back on another thread. The window holds it meanwhile. */
struct discard {
    uv_work_t work;
    struct pv_list node;
    struct pv_window *window; /* NULL: destroyed */
    struct pv_window_range *range;
    struct pv_window_hold hold;
    uint64_t start, size;
    struct file *file; /* one of its users */
    int result;
};

static void add_free(struct pv_window *window, struct pv_interval *node)
{
    /* Free neighbours become one. */
    struct pv_interval *next = pv_intervals_first(&window->free, node->end, node->end + 1);
    if (next) {
        node->end = next->end;
        pv_intervals_remove(&window->free, next);
        free(next);
    }
    struct pv_interval *previous =
        node->start > 0 ? pv_intervals_first(&window->free, node->start - 1, node->start) : NULL;
    if (previous) {
        node->start = previous->start;
        pv_intervals_remove(&window->free, previous);
        free(previous);
    }
    pv_intervals_insert(&window->free, node);
}

static void drop_file(struct file *file)
{
    if (!file || --file->users > 0)
        return;
    close(file->fd);
    free(file);
}

static int set_up_memory(struct pv_window *window)
{
    struct file *file = malloc(sizeof(*file));
    if (!file)
        return -ENOMEM;
    file->users = 1;
    int ret = pv_shm_create("pearvisor-window", 2 * window->size, &file->fd);
    if (ret < 0) {
        free(file);
        return ret;
    }
    ret = pv_shm_map(file->fd, 2 * window->size, &window->map);
    if (ret < 0) {
        drop_file(file);
        return ret;
    }
    pv_map_keep_from_children(window->map, (size_t)(2 * window->size));
    window->file = file;
    return 0;
}

int pv_window_create(uint64_t size, bool memory, struct pv_window **out)
{
    uint64_t page = pv_page_size();
    if (size < page || (size & (size - 1)) != 0 || size > INT64_MAX / 2)
        return -EINVAL;
    struct pv_window *window = calloc(1, sizeof(*window));
    struct pv_interval *upper = calloc(1, sizeof(*upper));
    int ret = -ENOMEM;
    if (!window || !upper)
        goto err_free;
    *window = (struct pv_window){.size = size, .page = page};
    pv_list_init(&window->discards);
    pv_intervals_init(&window->live);
    pv_intervals_init(&window->draining);
    pv_intervals_init(&window->free);
    if (memory) {
        ret = set_up_memory(window);
        if (ret < 0)
            goto err_free;
    }
    upper->start = size;
    upper->end = 2 * size;
    pv_intervals_insert(&window->free, upper);
    *out = window;
    return 0;

err_free:
    free(upper);
    free(window);
    return ret;
}

void pv_window_use_loop(struct pv_window *window, uv_loop_t *loop, void (*freed)(void *data),
                        void *data)
{
    window->loop = loop;
    window->freed = freed;
    window->data = data;
}

void pv_window_destroy(struct pv_window *window)
{
    if (!window)
        return;
    pv_list_for_each(node, &window->discards)
    {
        pv_list_entry(node, struct discard, node)->window = NULL;
        pv_list_remove(node);
    }
    struct pv_intervals *trees[2] = {&window->live, &window->draining};
    for (int i = 0; i < 2; i++) {
        while (trees[i]->root) {
            struct pv_interval *node = trees[i]->root;
            pv_intervals_remove(trees[i], node);
            free(node); /* the range; it begins with its interval */
        }
    }
    while (window->free.root) {
        struct pv_interval *node = window->free.root;
        pv_intervals_remove(&window->free, node);
        free(node);
    }
    pv_shm_unmap(window->map, 2 * window->size);
    drop_file(window->file);
    free(window);
}

int pv_window_fd(const struct pv_window *window)
{
    return window->file ? window->file->fd : -1;
}

void *pv_window_map(const struct pv_window *window)
{
    return window->map;
}

uint64_t pv_window_mapped(const struct pv_window *window)
{
    return window->mapped;
}

/* ---- giving pages back ---- */

static void discard(struct pv_window *window, uint64_t start, uint64_t end)
{
    if (!window->file || start >= end)
        return;
    int ret = pv_shm_discard(window->file->fd, start, end - start);
    if (ret < 0) /* cannot happen with memory of ours; stale bytes would leak to another process */
        pv_error("%llu bytes at %#llx cannot be given back: error %d",
                 (unsigned long long)(end - start), (unsigned long long)start, -ret);
}

/* Discard what no live range covers. */
static void discard_unused(struct pv_window *window, uint64_t start, uint64_t end)
{
    while (start < end) {
        const struct pv_interval *live = pv_intervals_first(&window->live, start, end);
        if (!live) {
            discard(window, start, end);
            return;
        }
        discard(window, start, live->start);
        start = live->end;
    }
}

/* Its pages are zeros again: it may be had by anybody. */
static void free_range(struct pv_window *window, struct pv_window_range *range)
{
    struct pv_interval *interval = &range->interval;
    if (interval->start >= window->size) {
        struct pv_interval *node = malloc(sizeof(*node));
        if (node) {
            *node = (struct pv_interval){.start = interval->start, .end = interval->end};
            add_free(window, node);
        } else {
            pv_error("no memory: %llu bytes of the arena are lost",
                     (unsigned long long)(interval->end - interval->start));
        }
    }
    free(range);
}

static void run_discard(uv_work_t *work)
{
    struct discard *discard = work->data;
    discard->result = pv_shm_discard(discard->file->fd, discard->start, discard->size);
}

static void end_discard(uv_work_t *work, int status)
{
    struct discard *discard = work->data;
    struct pv_window *window = discard->window;
    if (window) {
        if (discard->result < 0)
            pv_error("%llu bytes at %#llx cannot be given back: error %d",
                     (unsigned long long)discard->size, (unsigned long long)discard->start,
                     -discard->result);
        pv_list_remove(&discard->node);
        pv_list_remove(&discard->hold.range_node);
        pv_intervals_remove(&window->draining, &discard->range->interval);
        free_range(window, discard->range);
        window->freed(window->data);
    }
    drop_file(discard->file);
    free(discard);
}

/* False: it has to happen here. */
static bool discard_aside(struct pv_window *window, struct pv_window_range *range)
{
    uint64_t start = range->interval.start, end = range->interval.end;
    if (!window->loop || !window->file || end - start < DISCARD_ASIDE ||
        pv_intervals_first(&window->live, start, end))
        return false;
    struct discard *discard = calloc(1, sizeof(*discard));
    if (!discard)
        return false;
    discard->work.data = discard;
    discard->window = window;
    discard->range = range;
    discard->start = start;
    discard->size = end - start;
    discard->file = window->file; /* there may be thousands: no fd for each */
    if (uv_queue_work(window->loop, &discard->work, run_discard, end_discard) < 0) {
        free(discard);
        return false;
    }
    window->file->users++;
    pv_window_hold(range, window, &discard->hold);
    pv_intervals_insert(&window->draining, &range->interval);
    pv_list_append(&window->discards, &discard->node);
    return true;
}

/* Nobody has it any more; it is in none of the trees. */
static void range_unused(struct pv_window *window, struct pv_window_range *range)
{
    if (discard_aside(window, range))
        return;
    discard_unused(window, range->interval.start, range->interval.end);
    free_range(window, range);
}

/* ---- claims ---- */

struct search {
    const struct pv_window *window;
    void *owner;
    bool own; /* something that only the owner holds was met */
    void (*found)(void *blocker, void *data);
    void *data;
};

/* true: a hold of somebody else. With `found` all of them are reported and the search goes on. */
static bool is_blocker(struct pv_interval *node, void *data)
{
    struct search *search = data;
    struct pv_window_range *range = (struct pv_window_range *)node;
    search->own = true;
    pv_list_for_each(hold_node, &range->holds)
    {
        struct pv_window_hold *hold = pv_list_entry(hold_node, struct pv_window_hold, range_node);
        if (hold->owner == search->owner)
            continue;
        if (!search->found)
            return true;
        if (hold->owner != search->window)
            search->found(hold->owner, search->data);
    }
    return false;
}

static struct pv_window_range *new_range(uint64_t start, uint64_t size)
{
    struct pv_window_range *range = calloc(1, sizeof(*range));
    if (!range)
        return NULL;
    range->interval.start = start;
    range->interval.end = start + size;
    range->live = true;
    pv_list_init(&range->holds);
    return range;
}

int pv_window_claim(struct pv_window *window, void *owner, uint64_t offset, uint64_t size,
                    struct pv_window_range **out)
{
    if (size == 0 || offset > window->size || size > window->size - offset ||
        ((offset | size) & (window->page - 1)) != 0)
        return -EINVAL;
    uint64_t end = offset + size;
    if (pv_intervals_first(&window->live, offset, end))
        return -EEXIST;
    struct search search = {.window = window, .owner = owner};
    if (pv_intervals_visit(&window->draining, offset, end, is_blocker, &search))
        return -EBUSY;
    struct pv_window_range *range = new_range(offset, size);
    if (!range)
        return -ENOMEM;
    if (search.own)
        discard(window, offset, end);
    pv_intervals_insert(&window->live, &range->interval);
    window->mapped += size;
    *out = range;
    return 0;
}

void pv_window_blockers(struct pv_window *window, void *owner, uint64_t offset, uint64_t size,
                        void (*found)(void *blocker, void *data), void *data)
{
    struct search search = {.window = window, .owner = owner, .found = found, .data = data};
    pv_intervals_visit(&window->draining, offset, offset + size, is_blocker, &search);
}

int pv_window_place(struct pv_window *window, uint64_t size, struct pv_window_range **out)
{
    if (size == 0 || (size & (window->page - 1)) != 0)
        return -EINVAL;
    struct pv_interval *from = pv_intervals_fit(&window->free, size);
    if (!from)
        return -ENOSPC;
    struct pv_window_range *range = new_range(from->start, size);
    if (!range)
        return -ENOMEM;
    pv_intervals_remove(&window->free, from);
    from->start += size;
    if (from->start < from->end)
        pv_intervals_insert(&window->free, from);
    else
        free(from);
    pv_intervals_insert(&window->live, &range->interval);
    *out = range;
    return 0;
}

void pv_window_release(struct pv_window *window, struct pv_window_range *range)
{
    pv_intervals_remove(&window->live, &range->interval);
    range->live = false;
    if (range->interval.start < window->size)
        window->mapped -= range->interval.end - range->interval.start;
    if (pv_list_empty(&range->holds))
        range_unused(window, range);
    else
        pv_intervals_insert(&window->draining, &range->interval);
}

void pv_window_hold(struct pv_window_range *range, void *owner, struct pv_window_hold *hold)
{
    hold->range = range;
    hold->owner = owner;
    pv_list_append(&range->holds, &hold->range_node);
}

void pv_window_drop(struct pv_window *window, struct pv_window_hold *hold)
{
    struct pv_window_range *range = hold->range;
    pv_list_remove(&hold->range_node);
    if (range->live || !pv_list_empty(&range->holds))
        return;
    pv_intervals_remove(&window->draining, &range->interval);
    range_unused(window, range);
}
