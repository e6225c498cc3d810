#include "gpu/guest_memory.h"

#include "util/os.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

struct region {
    uint64_t gpa, size, user_address, fd_offset;
    dev_t device; /* with inode: the file, whatever fd it comes through */
    ino_t inode;
    void *map; /* owned; begins at a page of the file, `skip` bytes before the region */
    size_t map_size, skip;
};

struct pv_guest_memory {
    struct region regions[PV_GUEST_REGIONS_MAX]; /* sorted by gpa */
    size_t count;
    size_t last; /* where the last address was found: the next one is likely there */
};

int pv_guest_memory_create(struct pv_guest_memory **out)
{
    struct pv_guest_memory *memory = calloc(1, sizeof(*memory));
    if (!memory)
        return -ENOMEM;
    *out = memory;
    return 0;
}

static void unmap_region(struct region *region)
{
    if (region->map)
        munmap(region->map, region->map_size);
    region->map = NULL;
}

void pv_guest_memory_destroy(struct pv_guest_memory *memory)
{
    if (!memory)
        return;
    for (size_t i = 0; i < memory->count; i++)
        unmap_region(&memory->regions[i]);
    free(memory);
}

/* Everything about a region but its mapping, and the unit in which its file is mapped. */
static int describe_region(const struct pv_guest_region *given, struct region *out,
                           size_t *out_align)
{
    struct stat info;
    if (given->size == 0 || given->gpa + given->size < given->gpa ||
        given->user_address + given->size < given->user_address ||
        given->fd_offset + given->size < given->fd_offset)
        return -EINVAL;
    if (fstat(given->fd, &info) < 0)
        return -errno;
    if ((uint64_t)info.st_size < given->fd_offset + given->size)
        return -EINVAL;

    *out = (struct region){
        .gpa = given->gpa,
        .size = given->size,
        .user_address = given->user_address,
        .fd_offset = given->fd_offset,
        .device = info.st_dev,
        .inode = info.st_ino,
    };
    /* of a file of huge pages, the block is the huge page, and mmap() goes by it */
    size_t align = pv_page_size(), block = (size_t)info.st_blksize;
    *out_align = block > align && (block & (block - 1)) == 0 ? block : align;
    return 0;
}

static int map_region(struct region *region, int fd, size_t align)
{
    region->skip = (size_t)(region->fd_offset & (align - 1));
    if (region->size > SIZE_MAX - region->skip - align)
        return -EINVAL;
    region->map_size = (size_t)pv_align_up(region->size + region->skip, align);
    void *map = mmap(NULL, region->map_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd,
                     (off_t)(region->fd_offset - region->skip));
    if (map == MAP_FAILED)
        return -errno;
    pv_map_keep_from_children(map, region->map_size);
    region->map = map;
    return 0;
}

/* The same part of the same file at the same place: the mapping that we have serves on. */
static struct region *find_same(struct region *regions, size_t count, const struct region *wanted)
{
    for (size_t i = 0; i < count; i++) {
        struct region *r = &regions[i];
        if (r->gpa == wanted->gpa && r->size == wanted->size && r->device == wanted->device &&
            r->inode == wanted->inode && r->fd_offset == wanted->fd_offset)
            return r;
    }
    return NULL;
}

static int compare_regions(const void *a, const void *b)
{
    const struct region *x = a, *y = b;
    return (x->gpa > y->gpa) - (x->gpa < y->gpa);
}

static bool overlap(const struct region *sorted, size_t count)
{
    for (size_t i = 1; i < count; i++) {
        if (sorted[i - 1].gpa + sorted[i - 1].size > sorted[i].gpa)
            return true;
    }
    return false;
}

/* `fresh` gets the new table, sorted, with mappings: old ones where possible, and then `kept` says
 * which of the old. On failure nothing new stays mapped. */
static int build_table(struct pv_guest_memory *memory, const struct pv_guest_region *given,
                       size_t count, struct region *fresh, bool *kept)
{
    bool made[PV_GUEST_REGIONS_MAX] = {0};
    size_t done = 0;
    int ret = 0;
    for (; done < count && ret == 0; done++) {
        size_t align;
        ret = describe_region(&given[done], &fresh[done], &align);
        if (ret < 0)
            break;
        struct region *old = find_same(memory->regions, memory->count, &fresh[done]);
        if (old && !kept[old - memory->regions]) {
            kept[old - memory->regions] = true;
            fresh[done].map = old->map;
            fresh[done].map_size = old->map_size;
            fresh[done].skip = old->skip;
            continue;
        }
        ret = map_region(&fresh[done], given[done].fd, align);
        made[done] = ret == 0;
    }
    if (ret == 0) {
        struct region sorted[PV_GUEST_REGIONS_MAX];
        memcpy(sorted, fresh, count * sizeof(*fresh));
        qsort(sorted, count, sizeof(*sorted), compare_regions);
        if (!overlap(sorted, count)) {
            memcpy(fresh, sorted, count * sizeof(*fresh));
            return 0;
        }
        ret = -EINVAL;
    }
    for (size_t i = 0; i < done; i++) {
        if (made[i])
            unmap_region(&fresh[i]);
    }
    return ret;
}

int pv_guest_memory_set(struct pv_guest_memory *memory, const struct pv_guest_region *regions,
                        size_t count)
{
    struct region fresh[PV_GUEST_REGIONS_MAX];
    bool kept[PV_GUEST_REGIONS_MAX] = {0};
    if (count > PV_GUEST_REGIONS_MAX)
        return -E2BIG;
    int ret = build_table(memory, regions, count, fresh, kept);
    if (ret < 0)
        return ret;

    for (size_t i = 0; i < memory->count; i++) {
        if (!kept[i])
            unmap_region(&memory->regions[i]);
    }
    memcpy(memory->regions, fresh, count * sizeof(*fresh));
    memory->count = count;
    memory->last = 0;
    return 0;
}

int pv_guest_memory_add(struct pv_guest_memory *memory, const struct pv_guest_region *region)
{
    struct region fresh;
    size_t align;
    if (memory->count == PV_GUEST_REGIONS_MAX)
        return -E2BIG;
    int ret = describe_region(region, &fresh, &align);
    if (ret < 0)
        return ret;

    size_t at = 0;
    while (at < memory->count && memory->regions[at].gpa < fresh.gpa)
        at++;
    if ((at > 0 && memory->regions[at - 1].gpa + memory->regions[at - 1].size > fresh.gpa) ||
        (at < memory->count && fresh.gpa + fresh.size > memory->regions[at].gpa))
        return -EINVAL;
    ret = map_region(&fresh, region->fd, align);
    if (ret < 0)
        return ret;
    memmove(&memory->regions[at + 1], &memory->regions[at],
            (memory->count - at) * sizeof(memory->regions[0]));
    memory->regions[at] = fresh;
    memory->count++;
    return 0;
}

int pv_guest_memory_remove(struct pv_guest_memory *memory, uint64_t gpa, uint64_t size)
{
    for (size_t i = 0; i < memory->count; i++) {
        if (memory->regions[i].gpa != gpa || memory->regions[i].size != size)
            continue;
        unmap_region(&memory->regions[i]);
        memory->count--;
        memmove(&memory->regions[i], &memory->regions[i + 1],
                (memory->count - i) * sizeof(memory->regions[0]));
        memory->last = 0;
        return 0;
    }
    return -ENOENT;
}

/* The bytes from `gpa` to the end of its region; NULL and 0 outside. */
static uint8_t *find(struct pv_guest_memory *memory, uint64_t gpa, uint64_t *out_left)
{
    for (size_t n = 0; n < memory->count; n++) {
        size_t i =
            memory->last + n < memory->count ? memory->last + n : memory->last + n - memory->count;
        const struct region *region = &memory->regions[i];
        if (gpa < region->gpa || gpa - region->gpa >= region->size)
            continue;
        memory->last = i;
        *out_left = region->size - (gpa - region->gpa);
        return (uint8_t *)region->map + region->skip + (gpa - region->gpa);
    }
    *out_left = 0;
    return NULL;
}

void *pv_guest_memory_at(struct pv_guest_memory *memory, uint64_t gpa, uint64_t size)
{
    uint64_t left;
    uint8_t *bytes = find(memory, gpa, &left);
    return bytes && size <= left ? bytes : NULL;
}

void *pv_guest_memory_at_user(struct pv_guest_memory *memory, uint64_t user_address, uint64_t size)
{
    for (size_t i = 0; i < memory->count; i++) {
        const struct region *region = &memory->regions[i];
        uint64_t offset = user_address - region->user_address;
        if (user_address < region->user_address || offset >= region->size)
            continue;
        return size <= region->size - offset ? (uint8_t *)region->map + region->skip + offset
                                             : NULL;
    }
    return NULL;
}

bool pv_guest_memory_has(struct pv_guest_memory *memory, uint64_t gpa, uint64_t size)
{
    while (size > 0) {
        uint64_t left;
        if (!find(memory, gpa, &left))
            return false;
        if (left >= size)
            return true;
        gpa += left;
        size -= left;
    }
    return true;
}

int pv_guest_memory_read(struct pv_guest_memory *memory, uint64_t gpa, void *out, size_t size)
{
    uint8_t *to = out;
    while (size > 0) {
        uint64_t left;
        const uint8_t *from = find(memory, gpa, &left);
        if (!from)
            return -EFAULT;
        size_t part = left < size ? (size_t)left : size;
        memcpy(to, from, part);
        to += part;
        gpa += part;
        size -= part;
    }
    return 0;
}

int pv_guest_memory_write(struct pv_guest_memory *memory, uint64_t gpa, const void *data,
                          size_t size)
{
    const uint8_t *from = data;
    while (size > 0) {
        uint64_t left;
        uint8_t *to = find(memory, gpa, &left);
        if (!to)
            return -EFAULT;
        size_t part = left < size ? (size_t)left : size;
        memcpy(to, from, part);
        from += part;
        gpa += part;
        size -= part;
    }
    return 0;
}
