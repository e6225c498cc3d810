/* pv-memory: host-visible memory, as applications rely on it.
 *
 *   pv-memory [--max SIZE] [--allocations N] [--loops N]
 *
 * For every host-visible memory type: what the CPU writes through a mapping the GPU sees and the
 * other way round, with no flush where the type is coherent; from 1 byte to --max (64M; 1G is the
 * largest step); while mapped for long, mapped again and again, allocated and freed in loops, and
 * in many small pieces. One line per test that passed; the first mistake ends the program with 1.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shaders.h"
#include "vkh.h"

struct options {
    uint64_t max_size;
    uint32_t allocation_count, loop_count;
};

struct tester {
    struct vkh vk;
    const struct options *options;
    uint32_t type;     /* memory type under test */
    bool coherent;     /* else mappings are flushed and invalidated */
    VkDeviceSize heap; /* its size */
    VkPipelineLayout layout;
    VkPipeline transform;
    struct vkh_set set;
};

static const VkBufferUsageFlags all_usage = VK_BUFFER_USAGE_TRANSFER_SRC_BIT |
                                            VK_BUFFER_USAGE_TRANSFER_DST_BIT |
                                            VK_BUFFER_USAGE_STORAGE_BUFFER_BIT;

/* A mapped buffer in memory of the type under test. */
static struct vkh_buffer mapped_buffer(struct tester *t, VkDeviceSize size)
{
    struct vkh_buffer buffer = {.buffer = vkh_raw_buffer(&t->vk, size, all_usage), .size = size};
    VkMemoryRequirements needs;
    vkGetBufferMemoryRequirements(t->vk.device, buffer.buffer, &needs);
    buffer.memory = vkh_allocate(&t->vk, needs.size, t->type, false);
    VKH_CHECK(vkBindBufferMemory(t->vk.device, buffer.buffer, buffer.memory, 0));
    VKH_CHECK(vkMapMemory(t->vk.device, buffer.memory, 0, VK_WHOLE_SIZE, 0, &buffer.map));
    return buffer;
}

static VkMappedMemoryRange whole(const struct vkh_buffer *buffer)
{
    return (VkMappedMemoryRange){
        .sType = VK_STRUCTURE_TYPE_MAPPED_MEMORY_RANGE,
        .memory = buffer->memory,
        .size = VK_WHOLE_SIZE,
    };
}

/* After CPU writes, before the GPU looks. */
static void flush(struct tester *t, const struct vkh_buffer *buffer)
{
    const VkMappedMemoryRange range = whole(buffer);
    if (!t->coherent)
        VKH_CHECK(vkFlushMappedMemoryRanges(t->vk.device, 1, &range));
}

/* After GPU writes, before the CPU looks. */
static void invalidate(struct tester *t, const struct vkh_buffer *buffer)
{
    const VkMappedMemoryRange range = whole(buffer);
    if (!t->coherent)
        VKH_CHECK(vkInvalidateMappedMemoryRanges(t->vk.device, 1, &range));
}

static uint64_t pattern_word(uint64_t index, uint64_t seed)
{
    return (index + seed) * 0x9e3779b97f4a7c15u ^ seed << 17;
}

static void write_pattern(uint8_t *to, uint64_t size, uint64_t seed)
{
    for (uint64_t at = 0; at < size; at += 8) {
        uint64_t word = pattern_word(at / 8, seed);
        memcpy(to + at, &word, size - at < 8 ? size - at : 8);
    }
}

static void check_pattern(const struct tester *t, const char *what, const uint8_t *from,
                          uint64_t size, uint64_t seed)
{
    for (uint64_t at = 0; at < size; at += 8) {
        uint64_t word = pattern_word(at / 8, seed);
        if (memcmp(from + at, &word, size - at < 8 ? size - at : 8) != 0)
            vkh_fail("memory type %u: %s: wrong bytes at %#llx of %#llx", t->type, what,
                     (unsigned long long)at, (unsigned long long)size);
    }
}

static void passed(const struct tester *t, const char *what)
{
    printf("memory type %u: %s ok\n", t->type, what);
    fflush(stdout);
}

static void copy(VkCommandBuffer commands, const struct vkh_buffer *from,
                 const struct vkh_buffer *to, VkDeviceSize size)
{
    const VkBufferCopy region = {0, 0, size};
    vkCmdCopyBuffer(commands, from->buffer, to->buffer, 1, &region);
}

/* ---- tests ---- */

static void test_size(struct tester *t, uint64_t size)
{
    struct vkh *vk = &t->vk;
    size_t mark = vkh_mark(vk);
    struct vkh_buffer from = mapped_buffer(t, size), to = mapped_buffer(t, size);
    write_pattern(from.map, size, size);
    flush(t, &from);
    VkCommandBuffer commands = vkh_begin(vk);
    copy(commands, &from, &to, size);
    vkh_barrier(commands);
    vkh_submit_wait(vk, commands);
    invalidate(t, &to);
    check_pattern(t, "copied back", to.map, size, size);
    check_pattern(t, "source after the copy", from.map, size, size);
    vkh_release(vk, mark);
}

static void test_sizes(struct tester *t)
{
    static const uint64_t sizes[] = {
        1,        2,        3,         7,         64,       65,       1000,
        4095,     4096,     4097,      65536,     1000001,  1u << 20, (4u << 20) + 1,
        16 << 20, 64 << 20, 256 << 20, 512 << 20, 1u << 30,
    };
    for (size_t i = 0; i < VKH_COUNT(sizes); i++) {
        if (sizes[i] > t->options->max_size)
            break;
        if (sizes[i] * 2 > t->heap / 4 * 3) {
            printf("memory type %u: %llu bytes left out, the heap holds %llu\n", t->type,
                   (unsigned long long)sizes[i], (unsigned long long)t->heap);
            break;
        }
        test_size(t, sizes[i]);
    }
    passed(t, "all sizes");
}

/* One mapping for all rounds; the CPU and the GPU take turns. */
static void test_persistent(struct tester *t)
{
    enum { ROUNDS = 200, SIZE = 256 * 1024 };
    struct vkh *vk = &t->vk;
    size_t mark = vkh_mark(vk);
    struct vkh_buffer here = mapped_buffer(t, SIZE), there = mapped_buffer(t, SIZE);
    for (uint32_t round = 0; round < ROUNDS; round++) {
        write_pattern(here.map, SIZE / 2, round);
        flush(t, &here);
        VkCommandBuffer commands = vkh_begin(vk);
        vkCmdFillBuffer(commands, here.buffer, SIZE / 2, SIZE / 2, round * 0x01010101u);
        vkh_barrier(commands);
        copy(commands, &here, &there, SIZE);
        vkh_barrier(commands);
        vkh_submit_wait(vk, commands);
        invalidate(t, &here);
        invalidate(t, &there);
        check_pattern(t, "persistent mapping", there.map, SIZE / 2, round);
        const uint32_t *filled = here.map, *copied = there.map;
        for (uint32_t i = SIZE / 8; i < SIZE / 4; i++) {
            if (filled[i] != round * 0x01010101u || copied[i] != filled[i])
                vkh_fail("memory type %u: persistent mapping: round %u, word %u is %#x and %#x",
                         t->type, round, i, filled[i], copied[i]);
        }
    }
    vkh_release(vk, mark);
    passed(t, "persistent mapping");
}

/* The CPU sees a GPU write by watching the mapping alone: no fence, no invalidation. */
static void test_watching(struct tester *t)
{
    enum { ROUNDS = 50, LIMIT_S = 10 };
    struct vkh *vk = &t->vk;
    if (!t->coherent)
        return;
    size_t mark = vkh_mark(vk);
    struct vkh_buffer buffer = mapped_buffer(t, 4096);
    uint32_t *word = buffer.map;
    *word = 0;
    for (uint32_t round = 1; round <= ROUNDS; round++) {
        VkCommandBuffer commands = vkh_begin(vk);
        vkCmdFillBuffer(commands, buffer.buffer, 0, 4, round);
        vkh_barrier(commands);
        VKH_CHECK(vkEndCommandBuffer(commands));
        const VkSubmitInfo submit = {
            .sType = VK_STRUCTURE_TYPE_SUBMIT_INFO,
            .commandBufferCount = 1,
            .pCommandBuffers = &commands,
        };
        vkh_queue_submit(vk, &submit, VK_NULL_HANDLE);
        uint64_t end = vkh_now_ns() + LIMIT_S * 1000000000ull;
        while (__atomic_load_n(word, __ATOMIC_ACQUIRE) != round) {
            if (vkh_now_ns() > end)
                vkh_fail("memory type %u: a GPU write is not seen in the mapping after %d s",
                         t->type, LIMIT_S);
        }
        VKH_CHECK(vkQueueWaitIdle(vk->queue));
        vkFreeCommandBuffers(vk->device, vk->command_pool, 1, &commands);
    }
    vkh_release(vk, mark);
    passed(t, "GPU writes watched without a fence");
}

static void test_compute(struct tester *t)
{
    enum { ROUNDS = 50, COUNT = 10000 };
    struct vkh *vk = &t->vk;
    size_t mark = vkh_mark(vk);
    struct vkh_buffer buffer = mapped_buffer(t, COUNT * 4);
    vkh_set_buffer(vk, t->set.set, 0, VK_DESCRIPTOR_TYPE_STORAGE_BUFFER, buffer.buffer);
    uint32_t *words = buffer.map;
    for (uint32_t round = 0; round < ROUNDS; round++) {
        const uint32_t push[2] = {COUNT, round};
        for (uint32_t i = 0; i < COUNT; i++)
            words[i] = i * 7 + round;
        flush(t, &buffer);
        VkCommandBuffer commands = vkh_begin(vk);
        vkCmdBindPipeline(commands, VK_PIPELINE_BIND_POINT_COMPUTE, t->transform);
        vkCmdBindDescriptorSets(commands, VK_PIPELINE_BIND_POINT_COMPUTE, t->layout, 0, 1,
                                &t->set.set, 0, NULL);
        vkCmdPushConstants(commands, t->layout, VK_SHADER_STAGE_ALL, 0, sizeof(push), push);
        vkCmdDispatch(commands, (COUNT + 63) / 64, 1, 1);
        vkh_barrier(commands);
        vkh_submit_wait(vk, commands);
        invalidate(t, &buffer);
        for (uint32_t i = 0; i < COUNT; i++) {
            if (words[i] != (i * 7 + round) * 3 + round)
                vkh_fail("memory type %u: compute: round %u, word %u is %u instead of %u", t->type,
                         round, i, words[i], (i * 7 + round) * 3 + round);
        }
    }
    vkh_release(vk, mark);
    passed(t, "compute shader on a mapped buffer");
}

static void test_many(struct tester *t)
{
    struct vkh *vk = &t->vk;
    uint32_t count = t->options->allocation_count;
    uint32_t limit = vk->properties.limits.maxMemoryAllocationCount;
    if (count > limit - limit / 4)
        count = limit - limit / 4;
    size_t mark = vkh_mark(vk);
    struct vkh_buffer *buffers = calloc(count, sizeof(*buffers));
    if (!buffers)
        vkh_fail("out of memory");
    struct vkh_buffer all = mapped_buffer(t, (VkDeviceSize)count * 4);
    VkCommandBuffer commands = vkh_begin(vk);
    for (uint32_t i = 0; i < count; i++) {
        buffers[i] = mapped_buffer(t, 4 + i * 13 % 8192);
        uint32_t value = i * 2654435761u;
        memcpy(buffers[i].map, &value, 4);
        flush(t, &buffers[i]);
        const VkBufferCopy region = {0, (VkDeviceSize)i * 4, 4};
        vkCmdCopyBuffer(commands, buffers[i].buffer, all.buffer, 1, &region);
    }
    vkh_barrier(commands);
    vkh_submit_wait(vk, commands);
    invalidate(t, &all);
    for (uint32_t i = 0; i < count; i++) {
        if (((uint32_t *)all.map)[i] != i * 2654435761u)
            vkh_fail("memory type %u: allocation %u of %u holds the wrong data", t->type, i, count);
    }
    free(buffers);
    vkh_release(vk, mark);
    passed(t, "many small allocations");
}

static void test_remapping(struct tester *t)
{
    enum { ROUNDS = 1000, SIZE = 1 << 20 };
    struct vkh *vk = &t->vk;
    size_t mark = vkh_mark(vk);
    struct vkh_buffer buffer = mapped_buffer(t, SIZE);
    write_pattern(buffer.map, SIZE, 1);
    for (uint32_t round = 0; round < ROUNDS; round++) {
        VkDeviceSize offset = round * 4096u % SIZE;
        flush(t, &buffer);
        vkUnmapMemory(vk->device, buffer.memory);
        void *part;
        VKH_CHECK(vkMapMemory(vk->device, buffer.memory, offset, 4096, 0, &part));
        uint64_t word;
        memcpy(&word, part, sizeof(word));
        if (word != pattern_word(offset / 8, 1))
            vkh_fail("memory type %u: mapping at %#llx in round %u shows other bytes", t->type,
                     (unsigned long long)offset, round);
        vkUnmapMemory(vk->device, buffer.memory);
        VKH_CHECK(vkMapMemory(vk->device, buffer.memory, 0, VK_WHOLE_SIZE, 0, &buffer.map));
    }
    check_pattern(t, "mapped again", buffer.map, SIZE, 1);
    vkh_release(vk, mark);
    passed(t, "mapped and unmapped again");
}

/* For leaks, which the caller looks for in the server. */
static void test_loops(struct tester *t)
{
    for (uint32_t i = 0; i < t->options->loop_count; i++) {
        size_t mark = vkh_mark(&t->vk);
        struct vkh_buffer buffer = mapped_buffer(t, 256 * 1024);
        write_pattern(buffer.map, 4096, i);
        check_pattern(t, "fresh allocation", buffer.map, 4096, i);
        vkh_release(&t->vk, mark);
    }
    passed(t, "allocated and freed in a loop");
}

/* Two buffers in one allocation, at their alignment, must not touch each other. */
static void test_neighbours(struct tester *t)
{
    enum { SIZE = 1000 };
    struct vkh *vk = &t->vk;
    size_t mark = vkh_mark(vk);
    VkBuffer buffers[2] = {vkh_raw_buffer(vk, SIZE, all_usage),
                           vkh_raw_buffer(vk, SIZE, all_usage)};
    VkMemoryRequirements needs;
    vkGetBufferMemoryRequirements(vk->device, buffers[0], &needs);
    VkDeviceSize offset = (needs.size + needs.alignment - 1) / needs.alignment * needs.alignment;
    struct vkh_buffer whole_buffer = {.size = offset + needs.size};
    whole_buffer.memory = vkh_allocate(vk, whole_buffer.size, t->type, false);
    VKH_CHECK(vkBindBufferMemory(vk->device, buffers[0], whole_buffer.memory, 0));
    VKH_CHECK(vkBindBufferMemory(vk->device, buffers[1], whole_buffer.memory, offset));
    VKH_CHECK(vkMapMemory(vk->device, whole_buffer.memory, 0, VK_WHOLE_SIZE, 0, &whole_buffer.map));
    memset(whole_buffer.map, 0, whole_buffer.size);
    flush(t, &whole_buffer);
    VkCommandBuffer commands = vkh_begin(vk);
    vkCmdFillBuffer(commands, buffers[0], 0, VK_WHOLE_SIZE, 0x11111111);
    vkCmdFillBuffer(commands, buffers[1], 0, VK_WHOLE_SIZE, 0x22222222);
    vkh_barrier(commands);
    vkh_submit_wait(vk, commands);
    invalidate(t, &whole_buffer);
    const uint8_t *bytes = whole_buffer.map;
    if (bytes[0] != 0x11 || bytes[SIZE - 1] != 0x11 || bytes[offset] != 0x22 ||
        bytes[offset + SIZE - 1] != 0x22)
        vkh_fail("memory type %u: two buffers in one allocation are mixed up", t->type);
    vkh_release(vk, mark);
    passed(t, "two buffers in one allocation");
}

static void test_type(struct tester *t)
{
    const VkMemoryType *type = &t->vk.memory.memoryTypes[t->type];
    t->coherent = type->propertyFlags & VK_MEMORY_PROPERTY_HOST_COHERENT_BIT;
    t->heap = t->vk.memory.memoryHeaps[type->heapIndex].size;
    printf("memory type %u: flags %#x, heap of %llu MiB\n", t->type, type->propertyFlags,
           (unsigned long long)t->heap >> 20);
    test_sizes(t);
    test_persistent(t);
    test_watching(t);
    test_compute(t);
    test_neighbours(t);
    test_remapping(t);
    test_loops(t);
    test_many(t);
}

static uint32_t buffer_memory_types(struct vkh *vk)
{
    size_t mark = vkh_mark(vk);
    VkMemoryRequirements needs;
    vkGetBufferMemoryRequirements(vk->device, vkh_raw_buffer(vk, 4096, all_usage), &needs);
    vkh_release(vk, mark);
    return needs.memoryTypeBits;
}

int main(int argc, char **argv)
{
    vkh_set_program(argv[0]);
    struct options options = {.max_size = 64 << 20, .allocation_count = 2000, .loop_count = 500};
    for (int i = 1; i < argc; i++) {
        const char *name = argv[i];
        uint64_t value = vkh_parse_size(vkh_option_value(argc, argv, &i));
        if (strcmp(name, "--max") == 0) {
            options.max_size = value;
        } else if (strcmp(name, "--allocations") == 0) {
            options.allocation_count = (uint32_t)value;
        } else if (strcmp(name, "--loops") == 0) {
            options.loop_count = (uint32_t)value;
        } else {
            fprintf(stderr, "usage: pv-memory [--max SIZE] [--allocations N] [--loops N]\n");
            return 2;
        }
    }
    struct tester tester = {.options = &options};
    struct vkh *vk = &tester.vk;
    vkh_init(vk, NULL);
    const VkDescriptorType type = VK_DESCRIPTOR_TYPE_STORAGE_BUFFER;
    tester.set = vkh_set(vk, &type, 1);
    tester.layout = vkh_pipeline_layout(vk, &tester.set.layout, 1, 8);
    tester.transform = vkh_compute_pipeline(vk, &transform_comp, tester.layout, NULL);
    uint32_t usable = buffer_memory_types(vk), tested = 0;
    for (uint32_t i = 0; i < vk->memory.memoryTypeCount; i++) {
        bool visible =
            vk->memory.memoryTypes[i].propertyFlags & VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT;
        if (!visible || !(usable & (1u << i)))
            continue;
        tester.type = i;
        test_type(&tester);
        tested++;
    }
    if (tested == 0)
        vkh_fail("no host-visible memory type takes a buffer");
    vkh_finish(vk);
    return 0;
}
