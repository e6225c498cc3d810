#include "transport/virtio/shmem.h"

#include "transport/virtio/backend.h"
#include "transport/virtio/message.h"
#include "util/log.h"
#include "util/os.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PV_LOG_MODULE "virtio"

#define SHMID_HOST_VISIBLE 1u /* virtio-gpu's only shared memory region */

struct shmem_payload {
    uint8_t shmid, padding[7];
    uint64_t fd_offset, offset, size, flags;
};
#define SHMEM_READ_WRITE 1u
_Static_assert(sizeof(struct shmem_payload) == PV_BACKEND_PAYLOAD_MAX, "40 in vhost-user");

/* One that nobody registers: random, and ours. */
static const uint8_t barrier_uuid[16] = {0x5b, 0x0e, 0x3a, 0x91, 0xd7, 0x44, 0x4c, 0x6a,
                                         0x9f, 0x12, 0x83, 0xc5, 0x2e, 0x70, 0xb9, 0x66};

enum entry_state {
    ENTRY_MAPPING,   /* until the barrier's answer */
    ENTRY_LIVE,      /* mapped */
    ENTRY_UNMAPPING, /* until the barrier's answer */
    ENTRY_FAILED,    /* result is to be told */
    ENTRY_REMOVING,  /* of an earlier start: being removed, in case it was mapped in this one */
};

struct entry {
    struct pv_list link;
    struct pv_vhost_shmem *shmem;
    enum entry_state state;
    bool arena, stale;
    uint64_t offset, size, token;
    dev_t device;
    ino_t inode;
    int result;
};

static void map_arena(struct pv_vhost_shmem *shmem);

void pv_vhost_shmem_init(struct pv_vhost_shmem *shmem, const struct pv_vhost_shmem_params *params)
{
    *shmem = (struct pv_vhost_shmem){.params = *params};
    pv_list_init(&shmem->entries);
}

static void free_entry(struct entry *entry)
{
    pv_list_remove(&entry->link);
    free(entry);
}

void pv_vhost_shmem_finish(struct pv_vhost_shmem *shmem)
{
    pv_list_for_each(node, &shmem->entries) free_entry(pv_list_entry(node, struct entry, link));
}

bool pv_vhost_shmem_settled(const struct pv_vhost_shmem *shmem)
{
    return shmem->is_settled;
}

bool pv_vhost_shmem_refused(const struct pv_vhost_shmem *shmem)
{
    return shmem->refused;
}

static void settle(struct pv_vhost_shmem *shmem, bool refused)
{
    shmem->refused = refused;
    shmem->is_settled = true;
    shmem->params.settled(shmem->params.data);
}

static struct entry *add_entry(struct pv_vhost_shmem *shmem, enum entry_state state,
                               uint64_t offset, uint64_t size, uint64_t token)
{
    struct entry *entry = calloc(1, sizeof(*entry));
    if (!entry)
        return NULL;
    *entry = (struct entry){
        .shmem = shmem, .state = state, .offset = offset, .size = size, .token = token};
    pv_list_append(&shmem->entries, &entry->link);
    return entry;
}

/* ---- answers ---- */

/* Nothing of an earlier start is under way any more. */
static void after_stale(struct pv_vhost_shmem *shmem)
{
    if (shmem->stale_count == 0 && shmem->started && !shmem->is_settled)
        map_arena(shmem);
}

static void drop_stale(struct entry *entry)
{
    struct pv_vhost_shmem *shmem = entry->shmem;
    free_entry(entry);
    shmem->stale_count--;
    after_stale(shmem);
}

static void on_removed(void *data, int result)
{
    drop_stale(data); /* whether it was mapped at all is of no interest */
}

static int send_shmem(struct entry *entry, uint32_t request, int fd, uint64_t fd_offset,
                      pv_backend_done done)
{
    const struct shmem_payload payload = {
        .shmid = SHMID_HOST_VISIBLE,
        .fd_offset = fd_offset,
        .offset = entry->offset,
        .size = entry->size,
        .flags = SHMEM_READ_WRITE,
    };
    struct pv_backend *backend = entry->shmem->backend;
    return backend ? pv_backend_send(backend, request, &payload, sizeof(payload), fd, done, entry)
                   : -EPIPE;
}

/* The VMM has answered a map of before the last stop. If the device runs again, the mapping may
 * have been made in this run: remove it, or the new ones would overlap it. */
static void finish_stale_map(struct entry *entry, int result)
{
    entry->state = ENTRY_REMOVING;
    if (result == 0 && entry->shmem->started &&
        send_shmem(entry, PV_VHOST_BACKEND_SHMEM_UNMAP, -1, 0, on_removed) == 0)
        return;
    drop_stale(entry);
}

static void finish_map(struct entry *entry, int result)
{
    struct pv_vhost_shmem *shmem = entry->shmem;
    uint64_t token = entry->token;
    bool arena = entry->arena;
    if (result == 0)
        entry->state = ENTRY_LIVE;
    else
        free_entry(entry);
    if (!arena) {
        pv_gpu_window_done(shmem->params.gpu, token, result == 0 ? 0 : -EIO);
        return;
    }
    if (result == 0)
        pv_debug("window of %llu MiB is mapped", (unsigned long long)(shmem->params.size >> 20));
    else if (result == -EIO) /* else the channel has closed, which has been said */
        pv_warn("the VMM refuses to map the window (its own messages say why): the guest gets no "
                "host-visible memory, and so no Vulkan");
    if (result < 0)
        pv_gpu_set_window(shmem->params.gpu, PV_GPU_WINDOW_NONE);
    settle(shmem, result < 0);
}

static void finish_unmap(struct entry *entry, int result)
{
    struct pv_vhost_shmem *shmem = entry->shmem;
    uint64_t token = entry->token;
    free_entry(entry);
    pv_gpu_window_done(shmem->params.gpu, token, result == 0 ? 0 : -EIO);
}

static void on_barrier(void *data, int result)
{
    struct entry *entry = data;
    if (result != -ECANCELED)
        result = 0; /* 1 is the answer to expect */
    if (entry->state == ENTRY_MAPPING && entry->stale)
        finish_stale_map(entry, 0);
    else if (entry->state == ENTRY_MAPPING)
        finish_map(entry, result);
    else if (entry->stale)
        drop_stale(entry);
    else
        finish_unmap(entry, result);
}

static int send_barrier(struct entry *entry)
{
    return pv_backend_send_first(entry->shmem->backend, PV_VHOST_BACKEND_SHARED_OBJECT_REMOVE,
                                 barrier_uuid, sizeof(barrier_uuid), on_barrier, entry);
}

static void on_mapped(void *data, int result)
{
    struct entry *entry = data;
    if (entry->stale) {
        finish_stale_map(entry, result);
        return;
    }
    if (result == 0)
        result = send_barrier(entry);
    if (result < 0)
        finish_map(entry, result);
}

static void on_unmapped(void *data, int result)
{
    struct entry *entry = data;
    if (entry->stale) {
        drop_stale(entry);
        return;
    }
    if (result == 0)
        result = send_barrier(entry);
    if (result < 0)
        finish_unmap(entry, result);
}

/* ---- requests ---- */

static int remember_file(struct entry *entry, int fd)
{
    struct stat info;
    if (fstat(fd, &info) < 0)
        return -errno;
    entry->device = info.st_dev;
    entry->inode = info.st_ino;
    return 0;
}

static void map_arena(struct pv_vhost_shmem *shmem)
{
    int fd = pv_gpu_arena_fd(shmem->params.gpu);
    if (fd < 0 || !shmem->backend) {
        settle(shmem, !shmem->backend);
        return;
    }
    struct entry *entry = add_entry(shmem, ENTRY_MAPPING, 0, shmem->params.size, 0);
    int ret = entry ? remember_file(entry, fd) : -ENOMEM;
    if (ret == 0) {
        entry->arena = true;
        ret = send_shmem(entry, PV_VHOST_BACKEND_SHMEM_MAP, fd, 0, on_mapped);
    }
    if (ret < 0) {
        pv_error("cannot have the window mapped: %s", strerror(-ret));
        if (entry)
            free_entry(entry);
        pv_gpu_set_window(shmem->params.gpu, PV_GPU_WINDOW_NONE);
        settle(shmem, true);
    }
}

void pv_vhost_shmem_start(struct pv_vhost_shmem *shmem, struct pv_backend *backend)
{
    if (shmem->started)
        return;
    shmem->started = true;
    shmem->backend = backend;
    after_stale(shmem);
}

void pv_vhost_shmem_stop(struct pv_vhost_shmem *shmem)
{
    if (!shmem->started)
        return;
    shmem->started = false;
    shmem->is_settled = false;
    pv_list_for_each(node, &shmem->entries)
    {
        struct entry *entry = pv_list_entry(node, struct entry, link);
        if (entry->state == ENTRY_LIVE || entry->state == ENTRY_FAILED) {
            free_entry(entry);
        } else if (!entry->stale) {
            entry->stale = true;
            shmem->stale_count++;
        }
    }
    if (shmem->backend)
        pv_backend_cancel_waiting(shmem->backend);
    shmem->backend = NULL;
}

/* Would the VMM take it? It does not check everything itself, and dies of some mistakes. */
static int check_map(const struct pv_vhost_shmem *shmem, uint64_t offset, uint64_t size, int fd,
                     uint64_t fd_offset)
{
    uint64_t page_mask = pv_page_size() - 1;
    if (!shmem->started || !shmem->backend)
        return -EPIPE;
    if (size == 0 || ((offset | size | fd_offset) & page_mask) || offset > shmem->params.size ||
        size > shmem->params.size - offset)
        return -EINVAL;
    off_t end = lseek(fd, 0, SEEK_END); /* works for dma-bufs, too, whose st_size is 0 */
    if (end < 0 || fd_offset > (uint64_t)end || size > (uint64_t)end - fd_offset)
        return -EINVAL;
    pv_list_for_each(node, &shmem->entries)
    {
        const struct entry *entry = pv_list_entry(node, struct entry, link);
        /* the VMM unmaps before it maps: it handles requests in order */
        bool going = entry->state == ENTRY_FAILED || entry->state == ENTRY_UNMAPPING;
        if (!going && entry->offset < offset + size && offset < entry->offset + entry->size)
            return -EEXIST;
    }
    return 0;
}

/* Tell the GPU later that it did not work. */
static void defer_failure(struct pv_vhost_shmem *shmem, struct entry *entry, uint64_t token,
                          int result)
{
    if (!entry)
        entry = add_entry(shmem, ENTRY_FAILED, 0, 0, token);
    if (!entry)
        return; /* out of memory, twice: the guest's request stays without an answer */
    entry->state = ENTRY_FAILED;
    entry->result = result;
    shmem->params.defer(shmem->params.data);
}

void pv_vhost_shmem_map(struct pv_vhost_shmem *shmem, uint64_t offset, uint64_t size, int fd,
                        uint64_t fd_offset, uint64_t token)
{
    struct entry *entry = NULL;
    int ret = check_map(shmem, offset, size, fd, fd_offset);
    if (ret == 0) {
        entry = add_entry(shmem, ENTRY_MAPPING, offset, size, token);
        ret = entry ? remember_file(entry, fd) : -ENOMEM;
    }
    if (ret == 0)
        ret = send_shmem(entry, PV_VHOST_BACKEND_SHMEM_MAP, fd, fd_offset, on_mapped);
    if (ret < 0) {
        pv_log_limited(PV_LOG_WARN, 5, "cannot map 0x%llx bytes at 0x%llx of the window: %s",
                       (unsigned long long)size, (unsigned long long)offset, strerror(-ret));
        defer_failure(shmem, entry, token, ret);
    }
}

void pv_vhost_shmem_unmap(struct pv_vhost_shmem *shmem, uint64_t offset, uint64_t size,
                          uint64_t token)
{
    pv_list_for_each(node, &shmem->entries)
    {
        struct entry *entry = pv_list_entry(node, struct entry, link);
        if (entry->state != ENTRY_LIVE || entry->offset != offset || entry->size != size)
            continue;
        entry->state = ENTRY_UNMAPPING;
        entry->token = token;
        int ret = send_shmem(entry, PV_VHOST_BACKEND_SHMEM_UNMAP, -1, 0, on_unmapped);
        if (ret < 0)
            defer_failure(shmem, entry, token, ret);
        return;
    }
    defer_failure(shmem, NULL, token, -ENOENT);
}

bool pv_vhost_shmem_run_deferred(struct pv_vhost_shmem *shmem)
{
    pv_list_for_each(node, &shmem->entries)
    {
        struct entry *entry = pv_list_entry(node, struct entry, link);
        if (entry->state != ENTRY_FAILED)
            continue;
        uint64_t token = entry->token;
        int result = entry->result;
        free_entry(entry);
        pv_gpu_window_done(shmem->params.gpu, token, result);
        return true; /* one at a time: that may have changed the list */
    }
    return false;
}

bool pv_vhost_shmem_owns(const struct pv_vhost_shmem *shmem, int fd)
{
    struct stat info, arena;
    int arena_fd = pv_gpu_arena_fd(shmem->params.gpu);
    if (fstat(fd, &info) < 0)
        return false;
    if (arena_fd >= 0 && fstat(arena_fd, &arena) == 0 && arena.st_dev == info.st_dev &&
        arena.st_ino == info.st_ino)
        return true;
    pv_list_for_each(node, &shmem->entries)
    {
        const struct entry *entry = pv_list_entry(node, struct entry, link);
        if (entry->device == info.st_dev && entry->inode == info.st_ino)
            return true;
    }
    return false;
}
