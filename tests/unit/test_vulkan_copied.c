/* Copied images: the pixels that others see, and that they have written, when an image changes
 * hands. Others are the mapping of the memory. */
#include "vulkan/device.h"

#include "unit.h"
#include "vulkan_fixture.h"

#include <pthread.h>
#include <string.h>
#include <unistd.h>

enum { WIDTH = 100, HEIGHT = 50, PITCH = 512, OFFSET = 4096, ROOM = 65536 };
#define RED   0xffff0000u /* as BGRA in memory, little-endian */
#define GREEN 0xff00ff00u
#define NOISE 0x5a5a5a5au

static struct fixture *fixture;
static bool second; /* barriers of the second generation */

struct shared {
    struct pv_memory memory;
    uint32_t *map;
    VkDeviceSize offset; /* of what is bound to it */
    VkImage image;
};

struct image_info {
    VkImageCreateInfo info;
    VkExternalMemoryImageCreateInfo external;
    VkImageDrmFormatModifierListCreateInfoEXT list;
    VkImageDrmFormatModifierExplicitCreateInfoEXT stated;
    uint64_t linear;
    VkSubresourceLayout layout;
};

static void describe(struct image_info *image, bool stated)
{
    *image = (struct image_info){
        .info = {.sType = VK_STRUCTURE_TYPE_IMAGE_CREATE_INFO,
                 .pNext = &image->external,
                 .imageType = VK_IMAGE_TYPE_2D,
                 .format = VK_FORMAT_B8G8R8A8_UNORM,
                 .extent = {WIDTH, HEIGHT, 1},
                 .mipLevels = 1,
                 .arrayLayers = 1,
                 .samples = VK_SAMPLE_COUNT_1_BIT,
                 .tiling = VK_IMAGE_TILING_DRM_FORMAT_MODIFIER_EXT,
                 .usage = VK_IMAGE_USAGE_COLOR_ATTACHMENT_BIT | VK_IMAGE_USAGE_SAMPLED_BIT},
        .external = {.sType = VK_STRUCTURE_TYPE_EXTERNAL_MEMORY_IMAGE_CREATE_INFO,
                     .pNext = stated ? (void *)&image->stated : (void *)&image->list,
                     .handleTypes = VK_EXTERNAL_MEMORY_HANDLE_TYPE_DMA_BUF_BIT_EXT},
        .list = {.sType = VK_STRUCTURE_TYPE_IMAGE_DRM_FORMAT_MODIFIER_LIST_CREATE_INFO_EXT,
                 .drmFormatModifierCount = 1,
                 .pDrmFormatModifiers = &image->linear},
        .stated = {.sType = VK_STRUCTURE_TYPE_IMAGE_DRM_FORMAT_MODIFIER_EXPLICIT_CREATE_INFO_EXT,
                   .drmFormatModifierPlaneCount = 1,
                   .pPlaneLayouts = &image->layout},
        .layout = {.rowPitch = PITCH},
    };
}

/* ---- the steps ---- */

static void setup_as(struct shared *shared, VkDeviceSize offset, bool stated)
{
    struct image_info image;
    describe(&image, stated);
    memset(shared, 0, sizeof(*shared));
    shared->offset = offset;
    assert_int_equal(pv_layer_CreateImage(fixture->device, &image.info, &shared->image),
                     VK_SUCCESS);
    assert_int_equal(fixture_allocate(fixture, ROOM, &shared->memory), VK_SUCCESS);
    assert_int_equal(
        pv_layer_BindImageMemory(fixture->device, shared->image, shared->memory.handle, offset),
        VK_SUCCESS);
    shared->map = fixture_map(&shared->memory, ROOM);
    for (size_t i = 0; i < ROOM / 4; i++)
        shared->map[i] = NOISE;
}

static void setup(struct shared *shared, VkDeviceSize offset)
{
    setup_as(shared, offset, true);
}

static void finish(struct shared *shared)
{
    pv_layer_DestroyImage(fixture->device, shared->image);
    pv_layer_FreeMemory(fixture->device, &shared->memory);
}

static void barrier(VkCommandBuffer commands, VkImage image, VkImageLayout before,
                    VkImageLayout after, uint32_t from, uint32_t to)
{
    const VkImageSubresourceRange all = {VK_IMAGE_ASPECT_COLOR_BIT, 0, 1, 0, 1};
    VkImageMemoryBarrier first = {VK_STRUCTURE_TYPE_IMAGE_MEMORY_BARRIER,
                                  NULL,
                                  VK_ACCESS_MEMORY_WRITE_BIT,
                                  VK_ACCESS_MEMORY_READ_BIT | VK_ACCESS_MEMORY_WRITE_BIT,
                                  before,
                                  after,
                                  from,
                                  to,
                                  image,
                                  all};
    VkImageMemoryBarrier2 other = {VK_STRUCTURE_TYPE_IMAGE_MEMORY_BARRIER_2,
                                   NULL,
                                   VK_PIPELINE_STAGE_2_ALL_COMMANDS_BIT,
                                   VK_ACCESS_2_MEMORY_WRITE_BIT,
                                   VK_PIPELINE_STAGE_2_ALL_COMMANDS_BIT,
                                   VK_ACCESS_2_MEMORY_READ_BIT | VK_ACCESS_2_MEMORY_WRITE_BIT,
                                   before,
                                   after,
                                   from,
                                   to,
                                   image,
                                   all};
    VkDependencyInfo info = {
        .sType = VK_STRUCTURE_TYPE_DEPENDENCY_INFO,
        .imageMemoryBarrierCount = 1,
        .pImageMemoryBarriers = &other,
    };
    if (second)
        pv_layer_CmdPipelineBarrier2(fixture->device, commands, &info);
    else
        pv_layer_CmdPipelineBarrier(fixture->device, commands, VK_PIPELINE_STAGE_ALL_COMMANDS_BIT,
                                    VK_PIPELINE_STAGE_ALL_COMMANDS_BIT, 0, 0, NULL, 0, NULL, 1,
                                    &first);
    assert_int_equal(info.imageMemoryBarrierCount, 1);
}

static void stay(VkCommandBuffer commands, VkImage image, VkImageLayout before, VkImageLayout after)
{
    barrier(commands, image, before, after, VK_QUEUE_FAMILY_IGNORED, VK_QUEUE_FAMILY_IGNORED);
}

static void hand_out(VkCommandBuffer commands, VkImage image, VkImageLayout before)
{
    barrier(commands, image, before, VK_IMAGE_LAYOUT_GENERAL, 0, VK_QUEUE_FAMILY_FOREIGN_EXT);
}

static void take_in(VkCommandBuffer commands, VkImage image, VkImageLayout after)
{
    barrier(commands, image, VK_IMAGE_LAYOUT_GENERAL, after, VK_QUEUE_FAMILY_FOREIGN_EXT, 0);
}

static void clear(VkCommandBuffer commands, VkImage image, uint32_t bgra)
{
    const VkImageSubresourceRange all = {VK_IMAGE_ASPECT_COLOR_BIT, 0, 1, 0, 1};
    const VkClearColorValue color = {.float32 = {
                                         (float)(bgra >> 16 & 0xff) / 255.0f,
                                         (float)(bgra >> 8 & 0xff) / 255.0f,
                                         (float)(bgra & 0xff) / 255.0f,
                                         1.0f,
                                     }};
    fixture->device->vk.CmdClearColorImage(commands, image, VK_IMAGE_LAYOUT_TRANSFER_DST_OPTIMAL,
                                           &color, 1, &all);
}

/* Draw one color, and hand it out. */
static void show(struct shared *shared, uint32_t bgra)
{
    VkCommandBuffer commands = fixture_begin(fixture);
    const VkImageLayout drawing = VK_IMAGE_LAYOUT_TRANSFER_DST_OPTIMAL;
    stay(commands, shared->image, VK_IMAGE_LAYOUT_UNDEFINED, drawing);
    clear(commands, shared->image, bgra);
    hand_out(commands, shared->image, drawing);
    fixture_submit(fixture, commands, true);
}

/* What lies at a pixel for others. */
static uint32_t *pixel(const struct shared *shared, uint32_t x, uint32_t y)
{
    return shared->map + (shared->offset + (VkDeviceSize)y * PITCH) / 4 + x;
}

static void check_all(const struct shared *shared, uint32_t bgra)
{
    for (uint32_t y = 0; y < HEIGHT; y++) {
        for (uint32_t x = 0; x < WIDTH; x++)
            assert_int_equal(*pixel(shared, x, y), bgra);
    }
}

/* ---- what the driver is told ---- */

struct call {
    bool is_copy;
    VkPipelineStageFlags from, to;
    VkAccessFlags made, seen;
    VkImageLayout before, after;
};

static struct {
    struct pv_vk_device_table driver;
    int alive; /* images, buffers and memory */
    bool no_memory;
    VkImageCreateInfo image; /* the last one */
    struct call calls[8];    /* barriers of one image, and copies */
    uint32_t count, memory_barriers;
} spy;

static VkResult spy_image(VkDevice device, const VkImageCreateInfo *info,
                          const VkAllocationCallbacks *allocator, VkImage *out)
{
    spy.image = *info;
    spy.alive++;
    return spy.driver.CreateImage(device, info, allocator, out);
}

static void spy_image_end(VkDevice device, VkImage image, const VkAllocationCallbacks *allocator)
{
    spy.alive--;
    spy.driver.DestroyImage(device, image, allocator);
}

static VkResult spy_buffer(VkDevice device, const VkBufferCreateInfo *info,
                           const VkAllocationCallbacks *allocator, VkBuffer *out)
{
    spy.alive++;
    return spy.driver.CreateBuffer(device, info, allocator, out);
}

static void spy_buffer_end(VkDevice device, VkBuffer buffer, const VkAllocationCallbacks *allocator)
{
    spy.alive -= buffer != VK_NULL_HANDLE;
    spy.driver.DestroyBuffer(device, buffer, allocator);
}

static VkResult spy_memory(VkDevice device, const VkMemoryAllocateInfo *info,
                           const VkAllocationCallbacks *allocator, VkDeviceMemory *out)
{
    if (spy.no_memory)
        return VK_ERROR_OUT_OF_DEVICE_MEMORY;
    spy.alive++;
    return spy.driver.AllocateMemory(device, info, allocator, out);
}

static void spy_memory_end(VkDevice device, VkDeviceMemory memory,
                           const VkAllocationCallbacks *allocator)
{
    spy.alive -= memory != VK_NULL_HANDLE;
    spy.driver.FreeMemory(device, memory, allocator);
}

static void note(struct call call)
{
    assert_true(spy.count < sizeof(spy.calls) / sizeof(spy.calls[0]));
    spy.calls[spy.count++] = call;
}

static void spy_barrier(VkCommandBuffer commands, VkPipelineStageFlags from,
                        VkPipelineStageFlags to, VkDependencyFlags flags, uint32_t memory_count,
                        const VkMemoryBarrier *memory, uint32_t buffer_count,
                        const VkBufferMemoryBarrier *buffers, uint32_t image_count,
                        const VkImageMemoryBarrier *images)
{
    spy.memory_barriers += memory_count;
    if (image_count == 1 && memory_count == 1) { /* of both, as rows are a buffer */
        note((struct call){.from = from,
                           .to = to,
                           .made = memory->srcAccessMask & images->srcAccessMask,
                           .seen = memory->dstAccessMask & images->dstAccessMask,
                           .before = images->oldLayout,
                           .after = images->newLayout});
    }
    spy.driver.CmdPipelineBarrier(commands, from, to, flags, memory_count, memory, buffer_count,
                                  buffers, image_count, images);
}

static void spy_out(VkCommandBuffer commands, VkImage image, VkImageLayout layout, VkBuffer rows,
                    uint32_t count, const VkBufferImageCopy *regions)
{
    note((struct call){.is_copy = true});
    spy.driver.CmdCopyImageToBuffer(commands, image, layout, rows, count, regions);
}

static void spy_in(VkCommandBuffer commands, VkBuffer rows, VkImage image, VkImageLayout layout,
                   uint32_t count, const VkBufferImageCopy *regions)
{
    note((struct call){.is_copy = true});
    spy.driver.CmdCopyBufferToImage(commands, rows, image, layout, count, regions);
}

static int watch(void **state)
{
    struct pv_vk_device_table *vk = &fixture->device->vk;
    memset(&spy, 0, sizeof(spy));
    spy.driver = *vk;
    vk->CreateImage = spy_image;
    vk->DestroyImage = spy_image_end;
    vk->CreateBuffer = spy_buffer;
    vk->DestroyBuffer = spy_buffer_end;
    vk->AllocateMemory = spy_memory;
    vk->FreeMemory = spy_memory_end;
    vk->CmdPipelineBarrier = spy_barrier;
    vk->CmdCopyImageToBuffer = spy_out;
    vk->CmdCopyBufferToImage = spy_in;
    return 0;
}

static int stop_watching(void **state)
{
    fixture->device->vk = spy.driver;
    return 0;
}

static void check_barrier(uint32_t index, struct call least)
{
    const struct call *call = &spy.calls[index];
    assert_false(call->is_copy);
    assert_int_equal(call->before, least.before);
    assert_int_equal(call->after, least.after);
    assert_int_equal(call->from & least.from, least.from);
    assert_int_equal(call->to & least.to, least.to);
    assert_int_equal(call->made & least.made, least.made);
    assert_int_equal(call->seen & least.seen, least.seen);
}

/* ---- the tests ---- */

static void others_see_what_is_handed_out(void **state)
{
    struct shared shared;
    setup(&shared, 0);
    show(&shared, RED);
    check_all(&shared, RED);
    for (uint32_t y = 0; y < HEIGHT; y++) /* between the rows, and behind them */
        assert_int_equal(*pixel(&shared, WIDTH, y), NOISE);
    assert_int_equal(*pixel(&shared, 0, HEIGHT), NOISE);
    finish(&shared);
}

static void it_lies_where_it_is_bound(void **state)
{
    struct shared shared;
    setup(&shared, OFFSET);
    show(&shared, GREEN);
    check_all(&shared, GREEN);
    assert_int_equal(shared.map[OFFSET / 4 - 1], NOISE);
    finish(&shared);
}

static void what_stays_is_not_seen(void **state)
{
    struct shared shared;
    setup(&shared, 0);
    VkCommandBuffer commands = fixture_begin(fixture);
    stay(commands, shared.image, VK_IMAGE_LAYOUT_UNDEFINED, VK_IMAGE_LAYOUT_TRANSFER_DST_OPTIMAL);
    clear(commands, shared.image, RED);
    stay(commands, shared.image, VK_IMAGE_LAYOUT_TRANSFER_DST_OPTIMAL, VK_IMAGE_LAYOUT_GENERAL);
    fixture_submit(fixture, commands, true);
    check_all(&shared, NOISE);
    finish(&shared);
}

/* Another device's image on the same memory, with what it finds there. */
static void check_seen_by_another(struct shared *shared, uint32_t bgra)
{
    struct shared copy;
    setup(&copy, 0);
    memcpy(copy.map, (char *)shared->map + shared->offset, (size_t)PITCH * HEIGHT);

    struct pv_memory plain;
    assert_int_equal(fixture_allocate(fixture, ROOM, &plain), VK_SUCCESS);
    VkBuffer buffer = fixture_buffer(fixture, &plain, ROOM);
    const VkBufferImageCopy region = {
        .imageSubresource = {VK_IMAGE_ASPECT_COLOR_BIT, 0, 0, 1},
        .imageExtent = {WIDTH, HEIGHT, 1},
    };
    VkCommandBuffer commands = fixture_begin(fixture);
    take_in(commands, copy.image, VK_IMAGE_LAYOUT_TRANSFER_SRC_OPTIMAL);
    fixture->device->vk.CmdCopyImageToBuffer(
        commands, copy.image, VK_IMAGE_LAYOUT_TRANSFER_SRC_OPTIMAL, buffer, 1, &region);
    fixture_submit(fixture, commands, true);
    const uint32_t *pixels = fixture_map(&plain, ROOM);
    for (uint32_t i = 0; i < WIDTH * HEIGHT; i++)
        assert_int_equal(pixels[i], bgra);

    fixture->device->vk.DestroyBuffer(fixture->device->handle, buffer, NULL);
    pv_layer_FreeMemory(fixture->device, &plain);
    finish(&copy);
}

static void others_pixels_are_taken_in(void **state)
{
    struct shared shared;
    setup(&shared, 0);
    show(&shared, GREEN);
    check_seen_by_another(&shared, GREEN);
    finish(&shared);
}

static void what_was_only_read_is_not_written_back(void **state)
{
    struct shared shared;
    setup(&shared, 0);
    VkCommandBuffer commands = fixture_begin(fixture);
    take_in(commands, shared.image, VK_IMAGE_LAYOUT_SHADER_READ_ONLY_OPTIMAL);
    fixture_submit(fixture, commands, true);
    for (uint32_t x = 0; x < WIDTH; x++)
        *pixel(&shared, x, 3) = RED; /* its owner draws the next one */
    commands = fixture_begin(fixture);
    hand_out(commands, shared.image, VK_IMAGE_LAYOUT_SHADER_READ_ONLY_OPTIMAL);
    fixture_submit(fixture, commands, true);
    assert_int_equal(*pixel(&shared, 0, 3), RED);
    finish(&shared);
}

static void what_was_written_is_handed_out_in_any_layout(void **state)
{
    struct shared shared;
    setup(&shared, 0);
    VkCommandBuffer commands = fixture_begin(fixture);
    take_in(commands, shared.image, VK_IMAGE_LAYOUT_SHADER_READ_ONLY_OPTIMAL);
    stay(commands, shared.image, VK_IMAGE_LAYOUT_SHADER_READ_ONLY_OPTIMAL,
         VK_IMAGE_LAYOUT_TRANSFER_DST_OPTIMAL);
    clear(commands, shared.image, GREEN);
    stay(commands, shared.image, VK_IMAGE_LAYOUT_TRANSFER_DST_OPTIMAL,
         VK_IMAGE_LAYOUT_SHADER_READ_ONLY_OPTIMAL);
    hand_out(commands, shared.image, VK_IMAGE_LAYOUT_SHADER_READ_ONLY_OPTIMAL);
    fixture_submit(fixture, commands, true);
    check_all(&shared, GREEN);
    finish(&shared);
}

/* As in a render pass, whose layouts the layer does not see. */
static void stay_unseen(VkCommandBuffer commands, VkImage image, VkImageLayout before,
                        VkImageLayout after)
{
    const VkImageMemoryBarrier unseen = {
        .sType = VK_STRUCTURE_TYPE_IMAGE_MEMORY_BARRIER,
        .srcAccessMask = VK_ACCESS_MEMORY_WRITE_BIT,
        .dstAccessMask = VK_ACCESS_MEMORY_READ_BIT | VK_ACCESS_MEMORY_WRITE_BIT,
        .oldLayout = before,
        .newLayout = after,
        .srcQueueFamilyIndex = VK_QUEUE_FAMILY_IGNORED,
        .dstQueueFamilyIndex = VK_QUEUE_FAMILY_IGNORED,
        .image = image,
        .subresourceRange = {VK_IMAGE_ASPECT_COLOR_BIT, 0, 1, 0, 1},
    };
    const VkPipelineStageFlags all = VK_PIPELINE_STAGE_ALL_COMMANDS_BIT;
    fixture->device->vk.CmdPipelineBarrier(commands, all, all, 0, 0, NULL, 0, NULL, 1, &unseen);
}

static void what_the_guest_makes_is_handed_out_in_any_layout(void **state)
{
    struct shared shared;
    setup_as(&shared, 0, false);
    VkCommandBuffer commands = fixture_begin(fixture);
    stay_unseen(commands, shared.image, VK_IMAGE_LAYOUT_UNDEFINED,
                VK_IMAGE_LAYOUT_TRANSFER_DST_OPTIMAL);
    clear(commands, shared.image, GREEN);
    stay_unseen(commands, shared.image, VK_IMAGE_LAYOUT_TRANSFER_DST_OPTIMAL,
                VK_IMAGE_LAYOUT_SHADER_READ_ONLY_OPTIMAL);
    hand_out(commands, shared.image, VK_IMAGE_LAYOUT_SHADER_READ_ONLY_OPTIMAL);
    fixture_submit(fixture, commands, true);
    check_all(&shared, GREEN);
    finish(&shared);
}

/* It was in a layout for writing if either of two barriers says so. */
static void one_barrier_tells_of_writing(void **state)
{
    const VkImageLayout reading = VK_IMAGE_LAYOUT_SHADER_READ_ONLY_OPTIMAL;
    const VkImageLayout writing = VK_IMAGE_LAYOUT_TRANSFER_DST_OPTIMAL;
    for (int first = 0; first < 2; first++) {
        struct shared shared;
        setup(&shared, 0);
        VkCommandBuffer commands = fixture_begin(fixture);
        (first ? stay : stay_unseen)(commands, shared.image, VK_IMAGE_LAYOUT_UNDEFINED, writing);
        clear(commands, shared.image, GREEN);
        (first ? stay_unseen : stay)(commands, shared.image, writing, reading);
        hand_out(commands, shared.image, reading);
        fixture_submit(fixture, commands, true);
        check_all(&shared, GREEN);
        finish(&shared);
    }
}

static void what_has_no_pixels_is_not_handed_out(void **state)
{
    struct shared shared;
    setup_as(&shared, 0, false);
    VkCommandBuffer commands = fixture_begin(fixture);
    hand_out(commands, shared.image, VK_IMAGE_LAYOUT_UNDEFINED);
    fixture_submit(fixture, commands, true);
    check_all(&shared, NOISE);
    finish(&shared);
}

static void it_lies_where_it_is_said_to(void **state)
{
    struct shared shared;
    struct image_info image;
    setup(&shared, 0);
    pv_layer_DestroyImage(fixture->device, shared.image);
    describe(&image, true);
    image.layout.offset = OFFSET;
    assert_int_equal(pv_layer_CreateImage(fixture->device, &image.info, &shared.image), VK_SUCCESS);
    VkMemoryRequirements requirements;
    pv_layer_GetImageMemoryRequirements(fixture->device, shared.image, &requirements);
    assert_true(requirements.size >= OFFSET + PITCH * HEIGHT);
    assert_int_equal(
        pv_layer_BindImageMemory(fixture->device, shared.image, shared.memory.handle, 0),
        VK_SUCCESS);
    shared.offset = OFFSET;
    show(&shared, GREEN);
    check_all(&shared, GREEN);
    assert_int_equal(shared.map[0], NOISE);
    finish(&shared);
}

/* Lavapipe waits for everything by itself; GPUs wait for what they are told to. */
static void copies_wait_and_are_waited_for(void **state)
{
    const VkPipelineStageFlags all = VK_PIPELINE_STAGE_ALL_COMMANDS_BIT;
    const VkPipelineStageFlags copy = VK_PIPELINE_STAGE_TRANSFER_BIT;
    const VkPipelineStageFlags host = VK_PIPELINE_STAGE_HOST_BIT;
    const VkAccessFlags both = VK_ACCESS_TRANSFER_READ_BIT | VK_ACCESS_TRANSFER_WRITE_BIT;
    const VkImageLayout drawing = VK_IMAGE_LAYOUT_COLOR_ATTACHMENT_OPTIMAL;
    const VkImageLayout source = VK_IMAGE_LAYOUT_TRANSFER_SRC_OPTIMAL;
    const VkImageLayout target = VK_IMAGE_LAYOUT_TRANSFER_DST_OPTIMAL;
    struct shared shared;
    setup(&shared, 0);
    VkCommandBuffer commands = fixture_begin(fixture);
    take_in(commands, shared.image, drawing);
    hand_out(commands, shared.image, drawing);
    fixture_submit(fixture, commands, true);

    assert_int_equal(spy.count, 6);
    check_barrier(0, (struct call){false, all | host, copy,
                                   VK_ACCESS_MEMORY_WRITE_BIT | VK_ACCESS_HOST_WRITE_BIT, both,
                                   VK_IMAGE_LAYOUT_UNDEFINED, target});
    assert_true(spy.calls[1].is_copy);
    check_barrier(2, (struct call){false, copy, all, VK_ACCESS_TRANSFER_WRITE_BIT,
                                   VK_ACCESS_MEMORY_READ_BIT | VK_ACCESS_MEMORY_WRITE_BIT, target,
                                   drawing});
    check_barrier(
        3, (struct call){false, all, copy, VK_ACCESS_MEMORY_WRITE_BIT, both, drawing, source});
    assert_true(spy.calls[4].is_copy);
    check_barrier(5, (struct call){false, copy, all | host, VK_ACCESS_TRANSFER_WRITE_BIT,
                                   VK_ACCESS_MEMORY_READ_BIT | VK_ACCESS_HOST_READ_BIT, source,
                                   VK_IMAGE_LAYOUT_GENERAL});
    finish(&shared);
}

static void what_is_not_copied_changes_its_layout(void **state)
{
    const VkPipelineStageFlags all = VK_PIPELINE_STAGE_ALL_COMMANDS_BIT;
    const VkImageLayout reading = VK_IMAGE_LAYOUT_TRANSFER_SRC_OPTIMAL;
    struct shared shared;
    setup(&shared, 0);
    VkCommandBuffer commands = fixture_begin(fixture);
    take_in(commands, shared.image, reading);
    hand_out(commands, shared.image, reading);
    fixture_submit(fixture, commands, true);
    assert_int_equal(spy.count, 4);
    check_barrier(3, (struct call){false, all, all, 0, VK_ACCESS_MEMORY_READ_BIT, reading,
                                   VK_IMAGE_LAYOUT_GENERAL});
    finish(&shared);
}

static void what_else_a_barrier_says_is_passed_on(void **state)
{
    const VkMemoryBarrier memory[2] = {{.sType = VK_STRUCTURE_TYPE_MEMORY_BARRIER},
                                       {.sType = VK_STRUCTURE_TYPE_MEMORY_BARRIER}};
    const VkPipelineStageFlags all = VK_PIPELINE_STAGE_ALL_COMMANDS_BIT;
    VkCommandBuffer commands = fixture_begin(fixture);
    pv_layer_CmdPipelineBarrier(fixture->device, commands, all, all, 0, 2, memory, 0, NULL, 0,
                                NULL);
    assert_int_equal(spy.memory_barriers, 2);
    fixture_submit(fixture, commands, true);
}

static void nothing_is_left_behind(void **state)
{
    struct image_info image;
    VkImage handle;
    describe(&image, false);
    VkDeviceImageMemoryRequirements info = {
        .sType = VK_STRUCTURE_TYPE_DEVICE_IMAGE_MEMORY_REQUIREMENTS,
        .pCreateInfo = &image.info,
    };
    VkMemoryRequirements2 requirements = {.sType = VK_STRUCTURE_TYPE_MEMORY_REQUIREMENTS_2};
    pv_layer_GetDeviceImageMemoryRequirements(fixture->device, &info, &requirements);
    assert_int_equal(spy.alive, 0);
    assert_int_equal(pv_layer_CreateImage(fixture->device, &image.info, &handle), VK_SUCCESS);
    assert_int_equal(spy.alive, 3);
    pv_layer_DestroyImage(fixture->device, handle);
    assert_int_equal(spy.alive, 0);
    spy.no_memory = true;
    assert_int_equal(pv_layer_CreateImage(fixture->device, &image.info, &handle),
                     VK_ERROR_OUT_OF_DEVICE_MEMORY);
    assert_int_equal(spy.alive, 0);
}

static VkResult fail_to_bind(VkDevice device, VkBuffer buffer, VkDeviceMemory memory,
                             VkDeviceSize offset)
{
    return VK_ERROR_OUT_OF_DEVICE_MEMORY;
}

static void it_is_told_what_is_not_bound(void **state)
{
    struct shared shared;
    setup(&shared, 0);
    VkResult results[2] = {VK_SUCCESS, VK_SUCCESS};
    VkBindMemoryStatus status[2];
    VkBindImageMemoryInfo binds[2];
    for (int i = 0; i < 2; i++) {
        status[i] = (VkBindMemoryStatus){VK_STRUCTURE_TYPE_BIND_MEMORY_STATUS, NULL, &results[i]};
        binds[i] = (VkBindImageMemoryInfo){VK_STRUCTURE_TYPE_BIND_IMAGE_MEMORY_INFO, &status[i],
                                           shared.image, shared.memory.handle, 0};
    }
    fixture->device->vk.BindBufferMemory = fail_to_bind;
    assert_int_equal(pv_layer_BindImageMemory2(fixture->device, 2, binds),
                     VK_ERROR_OUT_OF_DEVICE_MEMORY);
    assert_int_equal(results[0], VK_ERROR_OUT_OF_DEVICE_MEMORY);
    assert_int_equal(results[1], VK_ERROR_OUT_OF_DEVICE_MEMORY);
    finish(&shared);
}

static VkImageTiling made_as(struct image_info *image)
{
    VkImage handle;
    if (image->info.tiling == VK_IMAGE_TILING_LINEAR)
        image->external.pNext = NULL;
    assert_int_equal(pv_layer_CreateImage(fixture->device, &image->info, &handle), VK_SUCCESS);
    pv_layer_DestroyImage(fixture->device, handle);
    return spy.image.tiling;
}

static void others_are_no_concern_of_the_drivers_image(void **state)
{
    const VkImageUsageFlags copies =
        VK_IMAGE_USAGE_TRANSFER_SRC_BIT | VK_IMAGE_USAGE_TRANSFER_DST_BIT;
    struct image_info image;
    describe(&image, false);
    assert_int_equal(made_as(&image), VK_IMAGE_TILING_OPTIMAL);
    assert_int_equal(spy.image.usage, image.info.usage | copies);

    describe(&image, false); /* by those who have not heard of modifiers */
    image.info.tiling = VK_IMAGE_TILING_LINEAR;
    assert_int_equal(made_as(&image), VK_IMAGE_TILING_OPTIMAL);
    image.info.usage = VK_IMAGE_USAGE_SAMPLED_BIT;
    assert_int_equal(made_as(&image), VK_IMAGE_TILING_LINEAR);
    assert_int_equal(spy.image.usage, VK_IMAGE_USAGE_SAMPLED_BIT);
    image.info.usage = VK_IMAGE_USAGE_COLOR_ATTACHMENT_BIT;
    image.info.pNext = NULL;
    assert_int_equal(made_as(&image), VK_IMAGE_TILING_LINEAR);
}

static void it_goes_back_and_forth(void **state)
{
    struct shared shared;
    setup(&shared, 0);
    const VkImageLayout drawing = VK_IMAGE_LAYOUT_TRANSFER_DST_OPTIMAL;
    VkCommandBuffer commands = fixture_begin(fixture);
    for (int i = 0; i < 3; i++) {
        take_in(commands, shared.image, drawing);
        clear(commands, shared.image, i == 2 ? RED : GREEN);
        hand_out(commands, shared.image, drawing);
    }
    stay(commands, shared.image, VK_IMAGE_LAYOUT_GENERAL, drawing);
    clear(commands, shared.image, GREEN);
    hand_out(commands, shared.image, drawing);
    fixture_submit(fixture, commands, true);
    check_all(&shared, GREEN);
    finish(&shared);
}

/* A barrier that stays between two that go, in one command. */
static void each_of_many_barriers_is_done(void **state)
{
    if (second)
        skip();
    struct shared shared[3];
    VkImageMemoryBarrier barriers[3];
    VkCommandBuffer commands = fixture_begin(fixture);
    for (int i = 0; i < 3; i++) {
        setup(&shared[i], 0);
        stay(commands, shared[i].image, VK_IMAGE_LAYOUT_UNDEFINED,
             VK_IMAGE_LAYOUT_TRANSFER_DST_OPTIMAL);
        clear(commands, shared[i].image, i == 2 ? RED : GREEN);
        barriers[i] = (VkImageMemoryBarrier){
            .sType = VK_STRUCTURE_TYPE_IMAGE_MEMORY_BARRIER,
            .srcAccessMask = VK_ACCESS_TRANSFER_WRITE_BIT,
            .oldLayout = VK_IMAGE_LAYOUT_TRANSFER_DST_OPTIMAL,
            .newLayout = VK_IMAGE_LAYOUT_GENERAL,
            .srcQueueFamilyIndex = i == 1 ? VK_QUEUE_FAMILY_IGNORED : 0,
            .dstQueueFamilyIndex = i == 1 ? VK_QUEUE_FAMILY_IGNORED : VK_QUEUE_FAMILY_EXTERNAL,
            .image = shared[i].image,
            .subresourceRange = {VK_IMAGE_ASPECT_COLOR_BIT, 0, 1, 0, 1},
        };
    }
    pv_layer_CmdPipelineBarrier(fixture->device, commands, VK_PIPELINE_STAGE_TRANSFER_BIT,
                                VK_PIPELINE_STAGE_BOTTOM_OF_PIPE_BIT, 0, 0, NULL, 0, NULL, 3,
                                barriers);
    fixture_submit(fixture, commands, true);
    check_all(&shared[0], GREEN);
    check_all(&shared[1], NOISE);
    check_all(&shared[2], RED);
    for (int i = 0; i < 3; i++)
        finish(&shared[i]);
}

static void without_memory_nothing_is_copied(void **state)
{
    struct image_info image;
    VkImage handle;
    describe(&image, false);
    assert_int_equal(pv_layer_CreateImage(fixture->device, &image.info, &handle), VK_SUCCESS);
    VkCommandBuffer commands = fixture_begin(fixture);
    barrier(commands, handle, VK_IMAGE_LAYOUT_UNDEFINED, VK_IMAGE_LAYOUT_TRANSFER_DST_OPTIMAL,
            VK_QUEUE_FAMILY_FOREIGN_EXT, 0);
    clear(commands, handle, RED);
    hand_out(commands, handle, VK_IMAGE_LAYOUT_TRANSFER_DST_OPTIMAL);
    fixture_submit(fixture, commands, true);
    pv_layer_DestroyImage(fixture->device, handle);
}

static void memory_is_what_others_can_map(void **state)
{
    struct image_info image;
    VkImage handle;
    describe(&image, false);
    assert_int_equal(pv_layer_CreateImage(fixture->device, &image.info, &handle), VK_SUCCESS);
    VkMemoryRequirements requirements;
    pv_layer_GetImageMemoryRequirements(fixture->device, handle, &requirements);
    assert_true(requirements.size >= (VkDeviceSize)WIDTH * 4 * HEIGHT);
    assert_true(requirements.memoryTypeBits & (1u << fixture->type));
    VkDeviceImageMemoryRequirements info = {
        .sType = VK_STRUCTURE_TYPE_DEVICE_IMAGE_MEMORY_REQUIREMENTS,
        .pCreateInfo = &image.info,
    };
    VkMemoryDedicatedRequirements alone = {
        .sType = VK_STRUCTURE_TYPE_MEMORY_DEDICATED_REQUIREMENTS,
    };
    VkMemoryRequirements2 same = {
        .sType = VK_STRUCTURE_TYPE_MEMORY_REQUIREMENTS_2,
        .pNext = &alone,
    };
    pv_layer_GetDeviceImageMemoryRequirements(fixture->device, &info, &same);
    assert_memory_equal(&same.memoryRequirements, &requirements, sizeof(requirements));
    assert_true(alone.requiresDedicatedAllocation);

    /* as guests allocate what they share: for this image alone, and of the GPU's own memory */
    uint32_t type = 0;
    while (!(requirements.memoryTypeBits & (1u << type)) ||
           !(fixture->physical->memory.memoryTypes[type].propertyFlags &
             VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT))
        type++;
    VkMemoryDedicatedAllocateInfo dedicated = {
        .sType = VK_STRUCTURE_TYPE_MEMORY_DEDICATED_ALLOCATE_INFO,
        .image = handle,
    };
    VkMemoryAllocateInfo allocation = {
        .sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO,
        .pNext = &dedicated,
        .allocationSize = requirements.size,
        .memoryTypeIndex = type,
    };
    allocation.memoryTypeIndex = pv_layer_shared_memory_type(fixture->device, &allocation);
    assert_int_not_equal(pv_physical_tier(fixture->physical, allocation.memoryTypeIndex),
                         PV_MEMORY_TIER_NONE);
    struct pv_memory memory = {0};
    assert_int_equal(pv_layer_AllocateMemory(fixture->device, &allocation, &memory), VK_SUCCESS);
    assert_ptr_equal(allocation.pNext, &dedicated);
    VkResult result = VK_ERROR_UNKNOWN;
    const VkBindMemoryStatus status = {VK_STRUCTURE_TYPE_BIND_MEMORY_STATUS, NULL, &result};
    VkBindImageMemoryInfo bind = {
        .sType = VK_STRUCTURE_TYPE_BIND_IMAGE_MEMORY_INFO,
        .pNext = &status,
        .image = handle,
        .memory = memory.handle,
    };
    assert_int_equal(pv_layer_BindImageMemory2(fixture->device, 1, &bind), VK_SUCCESS);
    assert_int_equal(result, VK_SUCCESS);

    /* and as they take what others share */
    uint64_t size;
    int fd = -1;
    assert_int_equal(pv_memory_export_fd(&memory, requirements.size, &fd), 0);
    assert_true(pv_layer_import_memory_types(fixture->device, fd, &size) & (1u << type));
    const struct pv_memory_source source = {.fd = fd, .size = size};
    struct pv_memory imported = {0};
    allocation.memoryTypeIndex = type;
    assert_int_equal(pv_layer_ImportMemory(fixture->device, &allocation, &source, &imported),
                     VK_SUCCESS);
    pv_layer_FreeMemory(fixture->device, &imported);
    close(fd);
    pv_layer_DestroyImage(fixture->device, handle);
    pv_layer_FreeMemory(fixture->device, &memory);
}

static void *make_and_destroy(void *data)
{
    int *failed = data;
    struct image_info image;
    VkImage handle;
    describe(&image, false);
    for (int i = 0; i < 200 && !*failed; i++) {
        *failed = pv_layer_CreateImage(fixture->device, &image.info, &handle) != VK_SUCCESS;
        if (!*failed)
            pv_layer_DestroyImage(fixture->device, handle);
    }
    return NULL;
}

static void others_images_come_and_go(void **state)
{
    struct shared shared;
    pthread_t threads[2];
    int failed[2] = {0};
    setup(&shared, 0);
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, make_and_destroy, &failed[i]), 0);
    for (int i = 0; i < 20; i++) {
        show(&shared, i % 2 ? RED : GREEN);
        check_all(&shared, i % 2 ? RED : GREEN);
    }
    for (int i = 0; i < 2; i++) {
        pthread_join(threads[i], NULL);
        assert_false(failed[i]);
    }
    finish(&shared);
}

static VkResult create(struct image_info *image)
{
    VkImage handle;
    VkResult result = pv_layer_CreateImage(fixture->device, &image->info, &handle);
    assert_int_equal(image->info.tiling, VK_IMAGE_TILING_DRM_FORMAT_MODIFIER_EXT);
    assert_false(image->info.usage & VK_IMAGE_USAGE_TRANSFER_DST_BIT);
    if (result == VK_SUCCESS)
        pv_layer_DestroyImage(fixture->device, handle);
    return result;
}

static void wild_rows_are_refused(void **state)
{
    const VkSubresourceLayout wild[] = {
        {.rowPitch = 0},
        {.rowPitch = WIDTH * 4 - 4},
        {.rowPitch = PITCH + 2},
        {.rowPitch = UINT64_C(1) << 31},
        {.rowPitch = UINT64_C(1) << 34},
        {.rowPitch = UINT64_MAX},
        {.rowPitch = PITCH, .offset = 2},
        {.rowPitch = PITCH, .offset = UINT64_C(1) << 41},
        {.rowPitch = PITCH, .offset = UINT64_MAX - 3},
    };
    struct image_info image;
    for (size_t i = 0; i < sizeof(wild) / sizeof(wild[0]); i++) {
        describe(&image, true);
        image.layout = wild[i];
        assert_int_equal(create(&image), VK_ERROR_INVALID_DRM_FORMAT_MODIFIER_PLANE_LAYOUT_EXT);
    }
    describe(&image, true);
    image.info.format = VK_FORMAT_R8_UNORM;
    image.layout.offset = 2;
    assert_int_equal(create(&image), VK_ERROR_INVALID_DRM_FORMAT_MODIFIER_PLANE_LAYOUT_EXT);
    describe(&image, true);
    image.info.extent.height = 1 << 20;
    image.layout.rowPitch = 1 << 30;
    assert_int_equal(create(&image), VK_ERROR_INVALID_DRM_FORMAT_MODIFIER_PLANE_LAYOUT_EXT);
    describe(&image, true);
    image.info.extent.height = 0;
    assert_int_equal(create(&image), VK_ERROR_INVALID_DRM_FORMAT_MODIFIER_PLANE_LAYOUT_EXT);
    describe(&image, true);
    image.stated.drmFormatModifierPlaneCount = 2;
    assert_int_equal(create(&image), VK_ERROR_INVALID_DRM_FORMAT_MODIFIER_PLANE_LAYOUT_EXT);
    describe(&image, true);
    assert_int_equal(create(&image), VK_SUCCESS);
}

static void only_plain_pictures_are_copied(void **state)
{
    struct image_info image;
    describe(&image, false);
    image.info.mipLevels = 2;
    assert_int_equal(create(&image), VK_ERROR_FORMAT_NOT_SUPPORTED);
    describe(&image, false);
    image.info.arrayLayers = 2;
    assert_int_equal(create(&image), VK_ERROR_FORMAT_NOT_SUPPORTED);
    describe(&image, false);
    image.info.samples = VK_SAMPLE_COUNT_4_BIT;
    assert_int_equal(create(&image), VK_ERROR_FORMAT_NOT_SUPPORTED);
    describe(&image, false);
    image.info.imageType = VK_IMAGE_TYPE_3D;
    assert_int_equal(create(&image), VK_ERROR_FORMAT_NOT_SUPPORTED);
    const VkImageCreateFlags never[] = {
        VK_IMAGE_CREATE_SPARSE_BINDING_BIT,
        VK_IMAGE_CREATE_CUBE_COMPATIBLE_BIT,
        VK_IMAGE_CREATE_PROTECTED_BIT,
        VK_IMAGE_CREATE_DISJOINT_BIT,
    };
    for (size_t i = 0; i < sizeof(never) / sizeof(never[0]); i++) {
        describe(&image, false);
        image.info.flags = never[i];
        assert_int_equal(create(&image), VK_ERROR_FORMAT_NOT_SUPPORTED);
    }
    describe(&image, false);
    image.info.format = VK_FORMAT_R32G32B32_SFLOAT;
    assert_int_equal(create(&image), VK_ERROR_FORMAT_NOT_SUPPORTED);
}

#define watched(test) cmocka_unit_test_setup_teardown(test, watch, stop_watching)

static int run(const char *name)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(others_see_what_is_handed_out),
        cmocka_unit_test(it_lies_where_it_is_bound),
        cmocka_unit_test(what_stays_is_not_seen),
        cmocka_unit_test(others_pixels_are_taken_in),
        cmocka_unit_test(what_was_only_read_is_not_written_back),
        cmocka_unit_test(what_was_written_is_handed_out_in_any_layout),
        cmocka_unit_test(what_the_guest_makes_is_handed_out_in_any_layout),
        cmocka_unit_test(it_goes_back_and_forth),
        cmocka_unit_test(each_of_many_barriers_is_done),
        cmocka_unit_test(without_memory_nothing_is_copied),
        cmocka_unit_test(memory_is_what_others_can_map),
        cmocka_unit_test(one_barrier_tells_of_writing),
        cmocka_unit_test(what_has_no_pixels_is_not_handed_out),
        cmocka_unit_test(it_lies_where_it_is_said_to),
        watched(copies_wait_and_are_waited_for),
        watched(what_is_not_copied_changes_its_layout),
        watched(what_else_a_barrier_says_is_passed_on),
        watched(nothing_is_left_behind),
        watched(it_is_told_what_is_not_bound),
        watched(others_are_no_concern_of_the_drivers_image),
        cmocka_unit_test(others_images_come_and_go),
        cmocka_unit_test(wild_rows_are_refused),
        cmocka_unit_test(only_plain_pictures_are_copied),
    };
    return cmocka_run_group_tests_name(name, tests, NULL, NULL);
}

int main(void)
{
    fixture_need_driver();
    const struct pv_host_options options = {.force_modifier_tier = PV_MODIFIER_TIER_COPIED};
    fixture = fixture_create_with(&options, true);
    int failed = run("barriers");
    second = true;
    if (fixture->device->vk.CmdPipelineBarrier2)
        failed += run("barriers of the second generation");
    fixture_destroy(fixture);
    return failed;
}
