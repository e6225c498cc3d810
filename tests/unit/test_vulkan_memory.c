/* Every memory tier that works here: sizes, both directions, limits, import, coherence. */
#include "vulkan/device.h"

#include "unit.h"
#include "util/os.h"
#include "vulkan/chain.h"
#include "vulkan_fixture.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define KIB ((VkDeviceSize)1024)
#define MIB (1024 * KIB)

static void copy(struct fixture *fixture, VkBuffer from, VkBuffer to, VkDeviceSize size)
{
    VkCommandBuffer commands = fixture_begin(fixture);
    VkBufferCopy region = {.size = size};
    fixture->device->vk.CmdCopyBuffer(commands, from, to, 1, &region);
    fixture_submit(fixture, commands, true);
}

/* CPU writes `from`, the GPU copies to `to`, the CPU reads; ends and a middle of large ones. */
static void check_copy(struct fixture *fixture, VkDeviceSize size)
{
    struct pv_memory from, to;
    assert_int_equal(fixture_allocate(fixture, size, &from), VK_SUCCESS);
    assert_int_equal(fixture_allocate(fixture, size, &to), VK_SUCCESS);
    unsigned char *source = fixture_map(&from, size), *target = fixture_map(&to, size);
    VkBuffer a = fixture_buffer(fixture, &from, size), b = fixture_buffer(fixture, &to, size);
    size_t checked = size < 65536 ? size : 65536;
    for (size_t i = 0; i < checked; i++)
        source[i] = (unsigned char)(i * 13 + 1);
    memset(source + size - 1, 0x77, 1);
    copy(fixture, a, b, size);
    assert_memory_equal(source, target, checked);
    assert_int_equal(target[size - 1], 0x77);

    struct pv_device *device = fixture->device;
    device->vk.DestroyBuffer(device->handle, a, NULL);
    device->vk.DestroyBuffer(device->handle, b, NULL);
    pv_layer_FreeMemory(device, &from);
    pv_layer_FreeMemory(device, &to);
    target[0] = 1; /* a mapping outlives the memory */
    pv_shm_unmap(source, size);
    pv_shm_unmap(target, size);
}

static void copies_of_all_sizes(void **state)
{
    struct fixture *fixture = *state;
    const VkDeviceSize sizes[] = {64, 4095, 4096, 4097, 64 * KIB + 3, 5 * MIB};
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
        check_copy(fixture, sizes[i]);
}

static void one_byte_and_one_gib(void **state)
{
    struct fixture *fixture = *state;
    struct pv_memory memory;
    assert_int_equal(fixture_allocate(fixture, 1, &memory), VK_SUCCESS);
    volatile unsigned char *byte = fixture_map(&memory, 1);
    *byte = 42;
    assert_int_equal(*byte, 42);
    pv_shm_unmap((void *)byte, 1);
    pv_layer_FreeMemory(fixture->device, &memory);

    assert_int_equal(fixture_allocate(fixture, 1024 * MIB, &memory), VK_SUCCESS);
    unsigned char *map = fixture_map(&memory, 1024 * MIB);
    map[0] = 1;
    map[1024 * MIB - 1] = 2;
    pv_shm_unmap(map, 1024 * MIB);
    pv_layer_FreeMemory(fixture->device, &memory);
}

static void thousands_of_small_ones(void **state)
{
    enum { COUNT = 3000 };
    struct fixture *fixture = *state;
    struct pv_memory *memories = calloc(COUNT, sizeof(*memories));
    assert_non_null(memories);
    for (int i = 0; i < COUNT; i++)
        assert_int_equal(fixture_allocate(fixture, 256, &memories[i]), VK_SUCCESS);
    for (int i = 0; i < COUNT; i++)
        pv_layer_FreeMemory(fixture->device, &memories[i]);
    free(memories);
    for (uint32_t heap = 0; heap < VK_MAX_MEMORY_HEAPS; heap++)
        assert_int_equal(atomic_load(&fixture->device->heap_used[heap]), 0);
}

static void nonsense_is_refused(void **state)
{
    struct fixture *fixture = *state;
    struct pv_memory memory;
    uint32_t heap = fixture->physical->memory.memoryTypes[fixture->type].heapIndex;
    VkDeviceSize limit = fixture->physical->memory.memoryHeaps[heap].size;
    assert_int_equal(fixture_allocate(fixture, limit + 1, &memory), VK_ERROR_OUT_OF_DEVICE_MEMORY);
    assert_int_equal(fixture_allocate(fixture, UINT64_MAX, &memory), VK_ERROR_OUT_OF_DEVICE_MEMORY);
    assert_int_equal(fixture_allocate(fixture, 0, &memory), VK_ERROR_OUT_OF_DEVICE_MEMORY);
    pv_layer_FreeMemory(fixture->device, &memory); /* of what failed: nothing */

    uint32_t good = fixture->type;
    fixture->type = 32;
    assert_int_equal(fixture_allocate(fixture, 64, &memory), VK_ERROR_OUT_OF_DEVICE_MEMORY);
    fixture->type = good;

    int fd = -1;
    assert_int_equal(fixture_allocate(fixture, 64, &memory), VK_SUCCESS);
    assert_int_equal(pv_memory_export_fd(&memory, memory.map_size + 1, &fd), -EINVAL);
    assert_int_equal(pv_memory_export_fd(&memory, 0, &fd), -EINVAL);
    pv_layer_FreeMemory(fixture->device, &memory);
}

static void chains_come_back(void **state)
{
    struct fixture *fixture = *state;
    VkMemoryAllocateFlagsInfo flags = {.sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_FLAGS_INFO};
    VkExportMemoryAllocateInfo export = {
        .sType = VK_STRUCTURE_TYPE_EXPORT_MEMORY_ALLOCATE_INFO,
        .pNext = &flags,
        .handleTypes = VK_EXTERNAL_MEMORY_HANDLE_TYPE_DMA_BUF_BIT_EXT,
    };
    VkMemoryDedicatedAllocateInfo dedicated = {
        .sType = VK_STRUCTURE_TYPE_MEMORY_DEDICATED_ALLOCATE_INFO,
        .pNext = &export,
    };
    VkMemoryAllocateInfo info = {
        .sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO,
        .pNext = &dedicated,
        .allocationSize = 8192,
        .memoryTypeIndex = fixture->type,
    };
    struct pv_memory memory = {0};
    assert_int_equal(pv_layer_AllocateMemory(fixture->device, &info, &memory), VK_SUCCESS);
    assert_ptr_equal(info.pNext, &dedicated);
    assert_ptr_equal(dedicated.pNext, &export);
    assert_ptr_equal(export.pNext, &flags);
    assert_null(flags.pNext);
    assert_int_equal(info.allocationSize, 8192);
    assert_true(memory.dma_buf_asked);
    void *map = fixture_map(&memory, 8192);
    pv_shm_unmap(map, 8192);
    pv_layer_FreeMemory(fixture->device, &memory);
}

/* What another context exported: both see the same bytes, on the CPU and on the GPU. */
static void imports_what_was_exported(void **state)
{
    struct fixture *fixture = *state;
    struct pv_device *device = fixture->device;
    struct pv_memory memory, imported = {0}, target;
    assert_int_equal(fixture_allocate(fixture, 8192, &memory), VK_SUCCESS);
    assert_int_equal(fixture_allocate(fixture, 8192, &target), VK_SUCCESS);
    int fd;
    assert_int_equal(pv_memory_export_fd(&memory, 8192, &fd), 0);
    uint64_t size;
    uint32_t types = pv_layer_import_memory_types(device, fd, &size);
    assert_true(size >= 8192);
    assert_true(types & (1u << fixture->type));

    VkMemoryAllocateInfo info = {
        .sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO,
        .allocationSize = 8192,
        .memoryTypeIndex = fixture->type,
    };
    struct pv_memory_source source = {.fd = fd, .size = size + 1};
    assert_int_equal(pv_layer_ImportMemory(device, &info, &source, &imported),
                     VK_ERROR_INVALID_EXTERNAL_HANDLE);
    source.size = size;
    assert_int_equal(pv_layer_ImportMemory(device, &info, &source, &imported), VK_SUCCESS);
    close(fd);

    char *map = fixture_map(&memory, 8192), *result = fixture_map(&target, 8192);
    snprintf(map + 5000, 100, "seen through the other object");
    VkBuffer from = fixture_buffer(fixture, &imported, 8192);
    VkBuffer to = fixture_buffer(fixture, &target, 8192);
    copy(fixture, from, to, 8192);
    assert_string_equal(result + 5000, "seen through the other object");
    device->vk.DestroyBuffer(device->handle, from, NULL);
    device->vk.DestroyBuffer(device->handle, to, NULL);
    pv_layer_FreeMemory(device, &imported);
    pv_layer_FreeMemory(device, &memory);
    pv_layer_FreeMemory(device, &target);
    pv_shm_unmap(map, 8192);
    pv_shm_unmap(result, 8192);

    int ends[2]; /* fds that are no memory */
    assert_int_equal(pipe(ends), 0);
    assert_int_equal(pv_layer_import_memory_types(device, ends[0], &size), 0);
    close(ends[0]);
    close(ends[1]);
}

/* Import [offset, offset + size) of an arena, with a guest that asks for `asked` bytes. */
static VkResult import_part(struct fixture *fixture, int arena, uint64_t offset, uint64_t size,
                            VkDeviceSize asked, struct pv_memory *out)
{
    const struct pv_memory_source source = {
        .fd = arena,
        .is_part = true,
        .offset = offset,
        .size = size,
    };
    VkMemoryAllocateInfo info = {
        .sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO,
        .allocationSize = asked,
        .memoryTypeIndex = fixture->type,
    };
    memset(out, 0, sizeof(*out));
    return pv_layer_ImportMemory(fixture->device, &info, &source, out);
}

/* Parts of one memfd: each object has its own bytes and no others. */
static void parts_of_an_arena(void **state)
{
    struct fixture *fixture = *state;
    struct pv_device *device = fixture->device;
    struct pv_memory memory, target;
    int arena = -1;
    void *map = NULL;
    bool from_driver =
        pv_physical_tier(fixture->physical, fixture->type) == PV_MEMORY_TIER_DMA_BUF ||
        pv_physical_tier(fixture->physical, fixture->type) == PV_MEMORY_TIER_OPAQUE;
    assert_int_equal(pv_shm_create("arena", MIB, &arena), 0);
    assert_int_equal(pv_shm_map(arena, MIB, &map), 0);
    if (from_driver) { /* made before there is anything to map: an arena is not for these */
        assert_int_equal(import_part(fixture, arena, 0, 4096, 4096, &memory),
                         VK_ERROR_INVALID_EXTERNAL_HANDLE);
        goto out;
    }
    unsigned char *bytes = map;
    memset(bytes, 0x11, MIB);
    assert_int_equal(import_part(fixture, arena, 64 * KIB, 8192, 5000, &memory), VK_SUCCESS);
    assert_int_equal(memory.size, 5000);
    assert_int_equal(import_part(fixture, arena, 128 * KIB, 8192, 8192, &target), VK_SUCCESS);
    int fd = -1;
    assert_true(pv_memory_export_fd(&memory, 4096, &fd) < 0); /* it is in the guest already */

    VkBuffer from = fixture_buffer(fixture, &memory, 5000);
    VkBuffer to = fixture_buffer(fixture, &target, 5000);
    memset(bytes + 64 * KIB, 0x22, 5000);
    copy(fixture, from, to, 5000);
    assert_int_equal(bytes[128 * KIB - 1], 0x11);
    assert_int_equal(bytes[128 * KIB], 0x22);
    assert_int_equal(bytes[128 * KIB + 4999], 0x22);
    assert_int_equal(bytes[128 * KIB + 8192], 0x11);
    device->vk.DestroyBuffer(device->handle, from, NULL);
    device->vk.DestroyBuffer(device->handle, to, NULL);
    pv_layer_FreeMemory(device, &memory);
    pv_layer_FreeMemory(device, &target);
    assert_int_equal(bytes[128 * KIB], 0x22); /* what was there stays */

    /* a file that is shorter than it was said to be; nothing */
    assert_int_equal(import_part(fixture, arena, 0, 2 * MIB, 4096, &memory),
                     VK_ERROR_INVALID_EXTERNAL_HANDLE);
    assert_int_equal(import_part(fixture, arena, 0, 0, 0, &memory),
                     VK_ERROR_INVALID_EXTERNAL_HANDLE);
    for (uint32_t heap = 0; heap < VK_MAX_MEMORY_HEAPS; heap++)
        assert_int_equal(atomic_load(&device->heap_used[heap]), 0);
out:
    pv_shm_unmap(map, MIB);
    close(arena);
}

/* With an arena, memory that only the driver exports is not for the guest to map. */
static void arena_hides_what_the_driver_exports(void **state)
{
    struct fixture *fixture = *state;
    enum pv_memory_tier tier = pv_physical_tier(fixture->physical, fixture->type);
    bool from_driver = tier == PV_MEMORY_TIER_DMA_BUF || tier == PV_MEMORY_TIER_OPAQUE;
    VkPhysicalDeviceMemoryProperties2 shown = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MEMORY_PROPERTIES_2,
    };
    assert_int_equal(pv_device_caps_serve_arena(fixture->physical->caps), !from_driver);
    fixture->physical->arena = true;
    pv_layer_GetPhysicalDeviceMemoryProperties2(fixture->physical, &shown);
    VkMemoryPropertyFlags flags = shown.memoryProperties.memoryTypes[fixture->type].propertyFlags;
    fixture->physical->arena = false;
    assert_int_equal(!(flags & VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT), from_driver);
}

static void submit_both(struct fixture *fixture, const VkCommandBuffer commands[2])
{
    struct pv_device *device = fixture->device;
    VkSubmitInfo submit = {
        .sType = VK_STRUCTURE_TYPE_SUBMIT_INFO,
        .commandBufferCount = 2,
        .pCommandBuffers = commands,
    };
    for (int i = 0; i < 2; i++)
        assert_int_equal(device->vk.EndCommandBuffer(commands[i]), VK_SUCCESS);
    assert_int_equal(pv_layer_QueueSubmit(device, fixture->queue, 1, &submit, VK_NULL_HANDLE),
                     VK_SUCCESS);
}

/* Mesa's feedback: the GPU writes results into one object and then, in a command buffer of Mesa's
 * own, a word into another; the guest polls the word, tells nobody, and must find the results. */
static void watch_word(struct fixture *fixture, VkDeviceSize size)
{
    enum { ROUNDS = 100 };
    struct pv_device *device = fixture->device;
    struct pv_memory results, word;
    assert_int_equal(fixture_allocate(fixture, size, &results), VK_SUCCESS);
    assert_int_equal(fixture_allocate(fixture, 4096, &word), VK_SUCCESS); /* Mesa's size */
    volatile uint32_t *result_map = fixture_map(&results, size);
    volatile uint32_t *word_map = fixture_map(&word, 4096);
    VkBuffer result_buffer = fixture_buffer(fixture, &results, size);
    VkBuffer word_buffer = fixture_buffer(fixture, &word, 4096);

    for (uint32_t round = 1; round <= ROUNDS; round++) {
        VkCommandBuffer commands[2] = {fixture_begin(fixture), fixture_begin(fixture)};
        VkMemoryBarrier barrier = {
            .sType = VK_STRUCTURE_TYPE_MEMORY_BARRIER,
            .srcAccessMask = VK_ACCESS_TRANSFER_WRITE_BIT,
            .dstAccessMask = VK_ACCESS_TRANSFER_WRITE_BIT | VK_ACCESS_HOST_READ_BIT,
        };
        device->vk.CmdFillBuffer(commands[0], result_buffer, 0, size, round * 0x01010101u);
        device->vk.CmdPipelineBarrier(commands[0], VK_PIPELINE_STAGE_TRANSFER_BIT,
                                      VK_PIPELINE_STAGE_TRANSFER_BIT | VK_PIPELINE_STAGE_HOST_BIT,
                                      0, 1, &barrier, 0, NULL, 0, NULL);
        device->vk.CmdFillBuffer(commands[1], word_buffer, 0, 4, round);
        submit_both(fixture, commands);
        uint64_t deadline = pv_now_ns() + 10000000000u;
        while (*word_map != round)
            assert_true(pv_now_ns() < deadline);
        assert_int_equal(result_map[0], round * 0x01010101u);
        assert_int_equal(result_map[size / 8], round * 0x01010101u);
        assert_int_equal(result_map[size / 4 - 1], round * 0x01010101u);
        word_map[8] = round; /* the guest's own bytes beside the GPU's stay */
    }
    assert_int_equal(word_map[8], ROUNDS);
    device->vk.DeviceWaitIdle(device->handle);
    device->vk.ResetCommandPool(device->handle, fixture->pool, 0);
    device->vk.DestroyBuffer(device->handle, result_buffer, NULL);
    device->vk.DestroyBuffer(device->handle, word_buffer, NULL);
    pv_layer_FreeMemory(device, &results);
    pv_layer_FreeMemory(device, &word);
    pv_shm_unmap((void *)result_map, size);
    pv_shm_unmap((void *)word_map, 4096);
}

static void polled_word_comes_after_the_results(void **state)
{
    watch_word(*state, MIB);
    watch_word(*state, 64);
    watch_word(*state, 4096);
}

static void hidden_types_are_not_host_visible(void **state)
{
    struct fixture *fixture = *state;
    VkPhysicalDeviceMemoryProperties2 shown = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MEMORY_PROPERTIES_2,
    };
    pv_layer_GetPhysicalDeviceMemoryProperties2(fixture->physical, &shown);
    assert_true(shown.memoryProperties.memoryTypes[fixture->type].propertyFlags &
                VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT);
    fixture->caps.devices[fixture->physical->caps - fixture->caps.devices]
        .memory_types[fixture->type]
        .tier = PV_MEMORY_TIER_NONE;
    pv_layer_GetPhysicalDeviceMemoryProperties2(fixture->physical, &shown);
    assert_false(shown.memoryProperties.memoryTypes[fixture->type].propertyFlags &
                 (VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT | VK_MEMORY_PROPERTY_HOST_COHERENT_BIT |
                  VK_MEMORY_PROPERTY_HOST_CACHED_BIT));
    struct pv_memory memory;
    int fd;
    assert_int_equal(fixture_allocate(fixture, 4096, &memory), VK_SUCCESS);
    assert_int_equal(pv_memory_export_fd(&memory, 4096, &fd), -EOPNOTSUPP);
    pv_layer_FreeMemory(fixture->device, &memory);
}

/* As on a GPU with memory of its own, which nobody else can see: what is exported from there lies in
 * memory of ours instead, if the resource may be there. */
static void exports_of_a_hidden_type(void **state)
{
    struct fixture *fixture = *state;
    struct pv_device *device = fixture->device;
    VkPhysicalDeviceMemoryProperties *memory = &fixture->physical->memory;
    struct pv_device_caps *caps =
        &fixture->caps.devices[fixture->physical->caps - fixture->caps.devices];
    const uint32_t hidden = memory->memoryTypeCount;
    memory->memoryTypes[hidden] = memory->memoryTypes[fixture->type];
    memory->memoryTypeCount++;
    caps->memory_types[hidden] = (struct pv_memory_type_caps){.tier = PV_MEMORY_TIER_NONE};
    enum pv_memory_tier tier = pv_physical_tier(fixture->physical, fixture->type);
    bool ours = (tier == PV_MEMORY_TIER_IMPORT || tier == PV_MEMORY_TIER_SHADOW) &&
                !caps->driver_dma_buf;

    struct pv_memory bound;
    assert_int_equal(fixture_allocate(fixture, 4096, &bound), VK_SUCCESS);
    VkMemoryDedicatedAllocateInfo dedicated = {
        .sType = VK_STRUCTURE_TYPE_MEMORY_DEDICATED_ALLOCATE_INFO,
        .buffer = fixture_buffer(fixture, &bound, 4096),
    };
    VkMemoryAllocateInfo info = {
        .sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO,
        .pNext = &dedicated,
        .allocationSize = 4096,
        .memoryTypeIndex = hidden,
    };
    assert_int_equal(pv_layer_shared_memory_type(device, &info), ours ? fixture->type : hidden);
    info.pNext = NULL;
    assert_int_equal(pv_layer_shared_memory_type(device, &info), hidden);
    info.memoryTypeIndex = fixture->type;
    assert_int_equal(pv_layer_shared_memory_type(device, &info), fixture->type);

    device->vk.DestroyBuffer(device->handle, dedicated.buffer, NULL);
    pv_layer_FreeMemory(device, &bound);
    memory->memoryTypeCount--;
}

static int run_tier(enum pv_memory_tier tier)
{
    struct fixture *fixture = fixture_create(tier, true);
    if (!fixture) {
        printf("memory tier %s does not work with this driver: not tested\n",
               pv_memory_tier_name(tier));
        return 0;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(copies_of_all_sizes, fixture),
        cmocka_unit_test_prestate(one_byte_and_one_gib, fixture),
        cmocka_unit_test_prestate(thousands_of_small_ones, fixture),
        cmocka_unit_test_prestate(nonsense_is_refused, fixture),
        cmocka_unit_test_prestate(chains_come_back, fixture),
        cmocka_unit_test_prestate(imports_what_was_exported, fixture),
        cmocka_unit_test_prestate(parts_of_an_arena, fixture),
        cmocka_unit_test_prestate(arena_hides_what_the_driver_exports, fixture),
        cmocka_unit_test_prestate(polled_word_comes_after_the_results, fixture),
        cmocka_unit_test_prestate(exports_of_a_hidden_type, fixture),
        cmocka_unit_test_prestate(hidden_types_are_not_host_visible, fixture), /* last */
    };
    int failed = cmocka_run_group_tests_name(pv_memory_tier_name(tier), tests, NULL, NULL);
    fixture_destroy(fixture);
    return failed;
}

int main(void)
{
    fixture_need_driver();
    return run_tier(PV_MEMORY_TIER_IMPORT) + run_tier(PV_MEMORY_TIER_DMA_BUF) +
           run_tier(PV_MEMORY_TIER_OPAQUE) + run_tier(PV_MEMORY_TIER_SHADOW);
}
