/* Figures about host-visible memory: transfers through it, and the CPU's own access to it. */
#include "bench.h"

#include <stdlib.h>
#include <string.h>

enum {
    TRANSFER_SIZE = 16 << 20,
    MAPPED_SIZE = 64 << 20, /* larger than most caches */
};

struct transfer {
    struct vkh *vk;
    struct vkh_buffer host, device;
    uint8_t *memory; /* owned: the application's side */
    VkCommandBuffer up, down;
    VkFence fence;
};

static VkCommandBuffer record_copy(struct vkh *vk, VkBuffer from, VkBuffer to)
{
    VkCommandBuffer commands = vkh_begin(vk);
    const VkBufferCopy region = {0, 0, TRANSFER_SIZE};
    vkh_barrier(commands);
    vkCmdCopyBuffer(commands, from, to, 1, &region);
    vkh_barrier(commands);
    VKH_CHECK(vkEndCommandBuffer(commands));
    return commands;
}

static void transfer_init(struct transfer *t, struct vkh *vk)
{
    const VkBufferUsageFlags usage =
        VK_BUFFER_USAGE_TRANSFER_SRC_BIT | VK_BUFFER_USAGE_TRANSFER_DST_BIT;
    t->vk = vk;
    t->host = vkh_buffer(vk, TRANSFER_SIZE, usage, VKH_HOST_MEMORY);
    t->device = vkh_buffer(vk, TRANSFER_SIZE, usage, VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT);
    t->memory = malloc(TRANSFER_SIZE);
    if (!t->memory)
        vkh_fail("out of memory");
    memset(t->memory, 0x5a, TRANSFER_SIZE);
    memset(t->host.map, 0, TRANSFER_SIZE);
    t->up = record_copy(vk, t->host.buffer, t->device.buffer);
    t->down = record_copy(vk, t->device.buffer, t->host.buffer);
    t->fence = vkh_fence(vk);
}

static void submit_and_wait(struct transfer *t, VkCommandBuffer commands)
{
    const VkSubmitInfo submit = {
        .sType = VK_STRUCTURE_TYPE_SUBMIT_INFO,
        .commandBufferCount = 1,
        .pCommandBuffers = &commands,
    };
    VKH_CHECK(vkQueueSubmit(t->vk->queue, 1, &submit, t->fence));
    VKH_CHECK(vkWaitForFences(t->vk->device, 1, &t->fence, VK_TRUE, UINT64_MAX));
    VKH_CHECK(vkResetFences(t->vk->device, 1, &t->fence));
}

static uint64_t sample_upload(void *state, uint32_t iterations)
{
    struct transfer *t = state;
    uint64_t start = vkh_now_ns();
    for (uint32_t i = 0; i < iterations; i++) {
        memcpy(t->host.map, t->memory, TRANSFER_SIZE);
        submit_and_wait(t, t->up);
    }
    return vkh_now_ns() - start;
}

static uint64_t sample_readback(void *state, uint32_t iterations)
{
    struct transfer *t = state;
    uint64_t start = vkh_now_ns();
    for (uint32_t i = 0; i < iterations; i++) {
        submit_and_wait(t, t->down);
        memcpy(t->memory, t->host.map, TRANSFER_SIZE);
    }
    return vkh_now_ns() - start;
}

static void run_upload(struct vkh *vk, struct result *result)
{
    struct transfer transfer;
    transfer_init(&transfer, vk);
    result->value = TRANSFER_SIZE / measure(sample_upload, &transfer);
    free(transfer.memory);
}

static void run_readback(struct vkh *vk, struct result *result)
{
    struct transfer transfer;
    transfer_init(&transfer, vk);
    submit_and_wait(&transfer, transfer.up);
    result->value = TRANSFER_SIZE / measure(sample_readback, &transfer);
    free(transfer.memory);
}

/* ---- plain CPU access ---- */

static uint64_t sample_write(void *state, uint32_t iterations)
{
    uint64_t start = vkh_now_ns();
    for (uint32_t i = 0; i < iterations; i++) {
        memset(state, (int)i, MAPPED_SIZE);
        __asm__ volatile("" : : "r"(state) : "memory"); /* keep every pass */
    }
    return vkh_now_ns() - start;
}

static uint64_t sample_read(void *state, uint32_t iterations)
{
    const uint64_t *words = state;
    uint64_t start = vkh_now_ns();
    for (uint32_t i = 0; i < iterations; i++) {
        uint64_t sums[4] = {0};
        for (size_t at = 0; at < MAPPED_SIZE / sizeof(*words); at += 4) {
            for (size_t lane = 0; lane < 4; lane++)
                sums[lane] += words[at + lane];
        }
        uint64_t sum = sums[0] + sums[1] + sums[2] + sums[3];
        __asm__ volatile("" : : "r"(sum) : "memory");
    }
    return vkh_now_ns() - start;
}

/* The same loop over mapped and over ordinary memory. */
static void run_mapped(struct vkh *vk, struct result *result, sample_fn sample)
{
    struct vkh_buffer buffer =
        vkh_buffer(vk, MAPPED_SIZE, VK_BUFFER_USAGE_TRANSFER_SRC_BIT, VKH_HOST_MEMORY);
    uint8_t *plain = malloc(MAPPED_SIZE);
    if (!plain)
        vkh_fail("out of memory");
    memset(plain, 1, MAPPED_SIZE);
    memset(buffer.map, 1, MAPPED_SIZE);
    result->plain = MAPPED_SIZE / measure(sample, plain);
    result->value = MAPPED_SIZE / measure(sample, buffer.map);
    free(plain);
}

static void run_mapped_write(struct vkh *vk, struct result *result)
{
    run_mapped(vk, result, sample_write);
}

static void run_mapped_read(struct vkh *vk, struct result *result)
{
    run_mapped(vk, result, sample_read);
}

const struct figure figures_memory[] = {
    {"upload", UNIT_GB_PER_SECOND, "16 MiB into mapped memory, copied on the GPU, fence seen",
     run_upload, false},
    {"readback", UNIT_GB_PER_SECOND,
     "16 MiB copied on the GPU, fence seen, read from mapped memory", run_readback, false},
    {"mapped-write", UNIT_GB_PER_SECOND, "CPU writing 64 MiB of mapped memory", run_mapped_write,
     false},
    {"mapped-read", UNIT_GB_PER_SECOND, "CPU reading 64 MiB of mapped memory", run_mapped_read,
     false},
    {0},
};
