#include "transport/vtest/sync.h"

#include "transport/vtest/id_table.h"
#include "util/list.h"
#include "util/os.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

struct sync {
    uint32_t refs; /* the client's id, each wait entry, each point of a fence */
    uint64_t value;
    struct pv_list waiters; /* of struct wait_entry.node */
};

struct wait {
    struct pv_list node; /* in table->waits */
    int fd;              /* owned: our copy of what the client polls */
    size_t wake_slot;    /* in table->wake_fds */
    uint64_t expires_ns; /* UINT64_MAX: never */
    size_t missing;      /* entries still to be seen before the wait is over */
    size_t entry_count;
    struct wait_entry {
        struct pv_list node; /* in sync->waiters until the wanted value has been seen */
        struct sync *sync;   /* shared */
        struct wait *wait;
        uint64_t wanted;
    } entries[];
};

struct fence {
    struct pv_list node; /* in table->fences */
    size_t point_count;
    struct fence_point {
        struct sync *sync; /* shared */
        uint64_t value;
    } points[];
};

struct pv_sync_table {
    pthread_mutex_t lock; /* guards everything below */
    struct pv_id_table syncs;
    struct pv_list waits;
    size_t wait_count;
    /* The fds of all waits again, for a signal handler that cannot take the lock; -1 is free. */
    _Atomic int wake_fds[PV_SYNC_WAIT_MAX];
    struct pv_list fences;
    size_t fence_count;
    size_t point_count; /* of all waits and fences */
};

int pv_sync_table_create(struct pv_sync_table **out)
{
    struct pv_sync_table *table = calloc(1, sizeof(*table));
    if (!table)
        return -ENOMEM;
    pthread_mutex_init(&table->lock, NULL);
    pv_id_table_init(&table->syncs, PV_SYNC_MAX);
    pv_list_init(&table->waits);
    pv_list_init(&table->fences);
    for (size_t i = 0; i < PV_SYNC_WAIT_MAX; i++)
        atomic_init(&table->wake_fds[i], -1);
    *out = table;
    return 0;
}

static void unref(struct sync *sync)
{
    if (--sync->refs == 0)
        free(sync);
}

static void free_wait_locked(struct pv_sync_table *table, struct wait *wait)
{
    for (size_t i = 0; i < wait->entry_count; i++) {
        pv_list_remove(&wait->entries[i].node);
        unref(wait->entries[i].sync);
    }
    pv_list_remove(&wait->node);
    atomic_store(&table->wake_fds[wait->wake_slot], -1);
    table->wait_count--;
    table->point_count -= wait->entry_count;
    close(wait->fd);
    free(wait);
}

static void free_fence_locked(struct pv_sync_table *table, struct fence *fence)
{
    for (size_t i = 0; i < fence->point_count; i++)
        unref(fence->points[i].sync);
    pv_list_remove(&fence->node);
    table->fence_count--;
    table->point_count -= fence->point_count;
    free(fence);
}

void pv_sync_table_destroy(struct pv_sync_table *table)
{
    if (!table)
        return;
    pv_list_for_each(node, &table->waits)
        free_wait_locked(table, pv_list_entry(node, struct wait, node));
    pv_list_for_each(node, &table->fences)
        free_fence_locked(table, pv_list_entry(node, struct fence, node));
    uint32_t cursor = 0;
    for (struct sync *sync; (sync = pv_id_table_walk(&table->syncs, &cursor));)
        unref(sync);
    pv_id_table_finish(&table->syncs);
    pthread_mutex_destroy(&table->lock);
    free(table);
}

void pv_sync_table_wake_all(struct pv_sync_table *table)
{
    for (size_t i = 0; i < PV_SYNC_WAIT_MAX; i++) {
        int fd = atomic_load(&table->wake_fds[i]);
        if (fd >= 0)
            pv_eventfd_signal(fd);
    }
}

static struct sync *find_locked(struct pv_sync_table *table, uint32_t id)
{
    return pv_id_table_get(&table->syncs, id);
}

int pv_sync_table_add(struct pv_sync_table *table, uint64_t value, uint32_t *out_id)
{
    struct sync *sync = malloc(sizeof(*sync));
    if (!sync)
        return -ENOMEM;
    *sync = (struct sync){.refs = 1, .value = value};
    pv_list_init(&sync->waiters);

    pthread_mutex_lock(&table->lock);
    int ret = pv_id_table_add(&table->syncs, sync, out_id);
    pthread_mutex_unlock(&table->lock);

    if (ret < 0)
        free(sync);
    return ret;
}

int pv_sync_table_unref(struct pv_sync_table *table, uint32_t id)
{
    pthread_mutex_lock(&table->lock);
    struct sync *sync = pv_id_table_remove(&table->syncs, id);
    if (sync)
        unref(sync);
    pthread_mutex_unlock(&table->lock);
    return sync ? 0 : -ENOENT;
}

int pv_sync_table_read(struct pv_sync_table *table, uint32_t id, uint64_t *out)
{
    pthread_mutex_lock(&table->lock);
    struct sync *sync = find_locked(table, id);
    if (sync)
        *out = sync->value;
    pthread_mutex_unlock(&table->lock);
    return sync ? 0 : -ENOENT;
}

static void set_locked(struct pv_sync_table *table, struct sync *sync, uint64_t value)
{
    sync->value = value;
    for (;;) {
        struct wait *over = NULL;
        pv_list_for_each(node, &sync->waiters)
        {
            struct wait_entry *entry = pv_list_entry(node, struct wait_entry, node);
            if (entry->wanted > value)
                continue;
            pv_list_remove(&entry->node);
            if (--entry->wait->missing == 0) {
                over = entry->wait;
                break;
            }
        }
        if (!over)
            return;
        /* takes out other entries of this sync, perhaps the next one: so the walk starts again */
        pv_eventfd_signal(over->fd);
        free_wait_locked(table, over);
    }
}

int pv_sync_table_write(struct pv_sync_table *table, uint32_t id, uint64_t value)
{
    pthread_mutex_lock(&table->lock);
    struct sync *sync = find_locked(table, id);
    if (sync)
        set_locked(table, sync, value);
    pthread_mutex_unlock(&table->lock);
    return sync ? 0 : -ENOENT;
}

static void drop_expired_waits_locked(struct pv_sync_table *table)
{
    uint64_t now = pv_now_ns();
    pv_list_for_each(node, &table->waits)
    {
        struct wait *wait = pv_list_entry(node, struct wait, node);
        if (wait->expires_ns <= now)
            free_wait_locked(table, wait);
    }
}

/* Whether the wait is over before it begins. Fails if a sync is not known. */
static int check_points_locked(struct pv_sync_table *table, bool any,
                               const struct pv_sync_point *points, size_t count, bool *over)
{
    size_t seen = 0;
    for (size_t i = 0; i < count; i++) {
        const struct sync *sync = find_locked(table, points[i].id);
        if (!sync)
            return -ENOENT;
        seen += sync->value >= points[i].value;
    }
    *over = seen == count || (any && seen > 0);
    return 0;
}

static bool waits_are_full_locked(const struct pv_sync_table *table, size_t more_points)
{
    return table->wait_count >= PV_SYNC_WAIT_MAX ||
           table->point_count + more_points > PV_SYNC_POINT_MAX;
}

/* There are as many slots as waits may be. */
static size_t take_wake_slot_locked(struct pv_sync_table *table, int fd)
{
    size_t slot = 0;
    while (atomic_load_explicit(&table->wake_fds[slot], memory_order_relaxed) >= 0)
        slot++;
    atomic_store(&table->wake_fds[slot], fd);
    return slot;
}

static int add_wait_locked(struct pv_sync_table *table, bool any, int32_t timeout_ms,
                           const struct pv_sync_point *points, size_t count, int fd)
{
    if (waits_are_full_locked(table, count))
        drop_expired_waits_locked(table);
    if (waits_are_full_locked(table, count))
        return -ENOSPC;
    struct wait *wait = calloc(1, sizeof(*wait) + count * sizeof(wait->entries[0]));
    if (!wait)
        return -ENOMEM;
    wait->fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (wait->fd < 0) {
        int error = errno;
        free(wait);
        return -error;
    }

    wait->expires_ns = timeout_ms < 0 ? UINT64_MAX : pv_now_ns() + (uint64_t)timeout_ms * 1000000u;
    wait->entry_count = count;
    for (size_t i = 0; i < count; i++) {
        struct wait_entry *entry = &wait->entries[i];
        entry->sync = find_locked(table, points[i].id);
        entry->sync->refs++;
        entry->wait = wait;
        entry->wanted = points[i].value;
        pv_list_init(&entry->node);
        if (entry->sync->value < entry->wanted) {
            pv_list_append(&entry->sync->waiters, &entry->node);
            wait->missing++;
        }
    }
    if (any)
        wait->missing = 1;
    wait->wake_slot = take_wake_slot_locked(table, wait->fd);
    pv_list_append(&table->waits, &wait->node);
    table->wait_count++;
    table->point_count += count;
    return 0;
}

int pv_sync_table_wait(struct pv_sync_table *table, bool any, int32_t timeout_ms,
                       const struct pv_sync_point *points, size_t count, int *out_fd)
{
    int fd;
    int ret = pv_eventfd_create(&fd);
    if (ret < 0)
        return ret;

    bool over = false;
    pthread_mutex_lock(&table->lock);
    ret = check_points_locked(table, any, points, count, &over);
    if (ret == 0 && over)
        pv_eventfd_signal(fd);
    else if (ret == 0)
        ret = add_wait_locked(table, any, timeout_ms, points, count, fd);
    pthread_mutex_unlock(&table->lock);

    if (ret < 0) {
        close(fd);
        return ret;
    }
    *out_fd = fd;
    return 0;
}

static int fill_fence_locked(struct pv_sync_table *table, struct fence *fence,
                             const struct pv_sync_point *points, size_t count)
{
    if (table->fence_count >= PV_SYNC_FENCE_MAX || table->point_count + count > PV_SYNC_POINT_MAX)
        return -ENOSPC;
    for (size_t i = 0; i < count; i++) {
        if (!find_locked(table, points[i].id))
            return -ENOENT;
    }
    for (size_t i = 0; i < count; i++) {
        struct sync *sync = find_locked(table, points[i].id);
        sync->refs++;
        fence->points[i] = (struct fence_point){.sync = sync, .value = points[i].value};
    }
    fence->point_count = count;
    pv_list_append(&table->fences, &fence->node);
    table->fence_count++;
    table->point_count += count;
    return 0;
}

int pv_sync_table_fence_create(struct pv_sync_table *table, const struct pv_sync_point *points,
                               size_t count, uint64_t *out_cookie)
{
    struct fence *fence = calloc(1, sizeof(*fence) + count * sizeof(fence->points[0]));
    if (!fence)
        return -ENOMEM;

    pthread_mutex_lock(&table->lock);
    int ret = fill_fence_locked(table, fence, points, count);
    pthread_mutex_unlock(&table->lock);

    if (ret < 0) {
        free(fence);
        return ret;
    }
    *out_cookie = (uint64_t)(uintptr_t)fence;
    return 0;
}

void pv_sync_table_fence_signal(struct pv_sync_table *table, uint64_t cookie)
{
    struct fence *fence = (struct fence *)(uintptr_t)cookie;
    pthread_mutex_lock(&table->lock);
    for (size_t i = 0; i < fence->point_count; i++)
        set_locked(table, fence->points[i].sync, fence->points[i].value);
    free_fence_locked(table, fence);
    pthread_mutex_unlock(&table->lock);
}

void pv_sync_table_fence_cancel(struct pv_sync_table *table, uint64_t cookie)
{
    pthread_mutex_lock(&table->lock);
    free_fence_locked(table, (struct fence *)(uintptr_t)cookie);
    pthread_mutex_unlock(&table->lock);
}

size_t pv_sync_table_wait_count(struct pv_sync_table *table)
{
    pthread_mutex_lock(&table->lock);
    drop_expired_waits_locked(table);
    size_t count = table->wait_count;
    pthread_mutex_unlock(&table->lock);
    return count;
}
