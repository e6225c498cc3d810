/* Scenes where something else than a vertex buffer feeds the picture: compute shaders, indirect
 * commands, queries, buffer addresses, transfers. */
#include "scene.h"

#include <stdio.h>

struct compute {
    struct vkh *vk;
    const struct vkh_image *target;
    struct canvas canvas;
    struct vkh_set set, draw_set;
    VkPipelineLayout layout, draw_layout;
    VkPipeline compute, draw, test;
    struct vkh_buffer buffers[3];
    struct vkh_image texture;
    VkQueryPool occlusion, timestamps;
    VkDeviceAddress address;
};

static struct compute *compute_create(struct vkh *vk, const struct vkh_image *target)
{
    struct compute *c = scene_alloc(sizeof(*c));
    c->vk = vk;
    c->target = target;
    return c;
}

static void bind_compute(const struct compute *c, VkCommandBuffer commands)
{
    vkCmdBindPipeline(commands, VK_PIPELINE_BIND_POINT_COMPUTE, c->compute);
    if (c->set.set)
        vkCmdBindDescriptorSets(commands, VK_PIPELINE_BIND_POINT_COMPUTE, c->layout, 0, 1,
                                &c->set.set, 0, NULL);
}

static void bind_draw(const struct compute *c, VkCommandBuffer commands)
{
    vkCmdBindPipeline(commands, VK_PIPELINE_BIND_POINT_GRAPHICS, c->draw);
    if (c->draw_set.set)
        vkCmdBindDescriptorSets(commands, VK_PIPELINE_BIND_POINT_GRAPHICS, c->draw_layout, 0, 1,
                                &c->draw_set.set, 0, NULL);
}

/* ---- compute ---- */

static void *setup_compute(struct vkh *vk, const struct vkh_image *target)
{
    struct compute *c = compute_create(vk, target);
    const VkDescriptorType type = VK_DESCRIPTOR_TYPE_STORAGE_IMAGE;
    c->set = vkh_set(vk, &type, 1);
    vkh_set_image(vk, c->set.set, 0, type, target->view, VK_NULL_HANDLE, VK_IMAGE_LAYOUT_GENERAL);
    c->layout = vkh_pipeline_layout(vk, &c->set.layout, 1, 4);
    c->compute = vkh_compute_pipeline(vk, &fractal_comp, c->layout, NULL);
    return c;
}

static void record_compute(void *state, VkCommandBuffer commands, uint32_t frame)
{
    struct compute *c = state;
    const float angle = scene_angle(frame);
    vkh_layout(commands, c->target, VK_IMAGE_LAYOUT_UNDEFINED, VK_IMAGE_LAYOUT_GENERAL);
    bind_compute(c, commands);
    vkCmdPushConstants(commands, c->layout, VK_SHADER_STAGE_ALL, 0, sizeof(angle), &angle);
    vkCmdDispatch(commands, (c->target->extent.width + 7) / 8, (c->target->extent.height + 7) / 8,
                  1);
    vkh_layout(commands, c->target, VK_IMAGE_LAYOUT_GENERAL, VK_IMAGE_LAYOUT_TRANSFER_SRC_OPTIMAL);
}

/* ---- indirect ---- */

enum { DRAW_COUNT = 256, DRAW_STRIDE = sizeof(VkDrawIndexedIndirectCommand) };
enum { INDICES, DRAWS, COUNT }; /* buffers */

static void *setup_indirect(struct vkh *vk, const struct vkh_image *target)
{
    static const uint16_t indices[] = {0, 2, 1, 1, 2, 3};
    if (!vk->features.drawIndirectFirstInstance)
        vkh_skip("%s has no drawIndirectFirstInstance", vk->properties.deviceName);
    struct compute *c = compute_create(vk, target);
    const VkDescriptorType type = VK_DESCRIPTOR_TYPE_STORAGE_BUFFER;
    const VkDescriptorType types[2] = {type, type};
    const VkBufferUsageFlags usage = VK_BUFFER_USAGE_STORAGE_BUFFER_BIT |
                                     VK_BUFFER_USAGE_INDIRECT_BUFFER_BIT |
                                     VK_BUFFER_USAGE_TRANSFER_DST_BIT;
    canvas_init(&c->canvas, vk, target, VK_FORMAT_UNDEFINED, VK_SAMPLE_COUNT_1_BIT);
    c->buffers[INDICES] =
        vkh_buffer_with(vk, indices, sizeof(indices), VK_BUFFER_USAGE_INDEX_BUFFER_BIT);
    c->buffers[DRAWS] =
        vkh_buffer(vk, DRAW_COUNT * DRAW_STRIDE, usage, VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT);
    c->buffers[COUNT] = vkh_buffer(vk, 256, usage, VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT);
    c->set = vkh_set(vk, types, 2);
    vkh_set_buffer(vk, c->set.set, 0, type, c->buffers[DRAWS].buffer);
    vkh_set_buffer(vk, c->set.set, 1, type, c->buffers[COUNT].buffer);
    c->layout = vkh_pipeline_layout(vk, &c->set.layout, 1, 4);
    c->compute = vkh_compute_pipeline(vk, &commands_comp, c->layout, NULL);
    const struct vkh_pipeline_params params = {
        .vertex = &indirect_vert,
        .fragment = &color_frag,
        .layout = c->layout,
        .pass = c->canvas.pass,
    };
    c->draw = vkh_graphics_pipeline(vk, &params);
    return c;
}

/* The first half as one or many indirect draws, the other half counted by the GPU if it can. */
static void draw_indirect(const struct compute *c, VkCommandBuffer commands)
{
    const VkBuffer draws = c->buffers[DRAWS].buffer;
    const VkDeviceSize half = DRAW_COUNT / 2 * DRAW_STRIDE;
    bool counted = c->vk->features12.drawIndirectCount;
    uint32_t single_first = c->vk->features.multiDrawIndirect ? DRAW_COUNT / 2 : 0;
    uint32_t single_end = counted ? DRAW_COUNT / 2 : DRAW_COUNT;
    if (c->vk->features.multiDrawIndirect)
        vkCmdDrawIndexedIndirect(commands, draws, 0, DRAW_COUNT / 2, DRAW_STRIDE);
    for (uint32_t i = single_first; i < single_end; i++)
        vkCmdDrawIndexedIndirect(commands, draws, (VkDeviceSize)i * DRAW_STRIDE, 1, 0);
    if (counted)
        vkCmdDrawIndexedIndirectCount(commands, draws, half, c->buffers[COUNT].buffer, 0,
                                      DRAW_COUNT / 2, DRAW_STRIDE);
}

static void record_indirect(void *state, VkCommandBuffer commands, uint32_t frame)
{
    struct compute *c = state;
    const uint32_t total = DRAW_COUNT - frame % 16;
    vkh_barrier(commands);
    vkCmdFillBuffer(commands, c->buffers[COUNT].buffer, 0, VK_WHOLE_SIZE, 0);
    vkCmdFillBuffer(commands, c->buffers[DRAWS].buffer, 0, VK_WHOLE_SIZE, 0);
    vkh_barrier(commands);
    bind_compute(c, commands);
    vkCmdPushConstants(commands, c->layout, VK_SHADER_STAGE_ALL, 0, sizeof(total), &total);
    vkCmdDispatch(commands, DRAW_COUNT / 64, 1, 1);
    vkh_barrier(commands);
    canvas_begin(&c->canvas, commands);
    bind_draw(c, commands);
    vkCmdBindIndexBuffer(commands, c->buffers[INDICES].buffer, 0, VK_INDEX_TYPE_UINT16);
    draw_indirect(c, commands);
    vkCmdEndRenderPass(commands);
}

/* ---- queries ---- */

enum { QUERY_COUNT = 8 };

static VkQueryPool create_queries(struct vkh *vk, VkQueryType type, uint32_t count)
{
    const VkQueryPoolCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_QUERY_POOL_CREATE_INFO,
        .queryType = type,
        .queryCount = count,
    };
    VkQueryPool pool;
    VKH_CHECK(vkCreateQueryPool(vk->device, &info, NULL, &pool));
    VKH_KEEP(vk, QUERY_POOL, pool);
    return pool;
}

static void *setup_queries(struct vkh *vk, const struct vkh_image *target)
{
    if (!vk->features.occlusionQueryPrecise)
        vkh_skip("%s has no occlusionQueryPrecise", vk->properties.deviceName);
    struct compute *c = compute_create(vk, target);
    const VkDescriptorType type = VK_DESCRIPTOR_TYPE_STORAGE_BUFFER;
    canvas_init(&c->canvas, vk, target, VK_FORMAT_D32_SFLOAT, VK_SAMPLE_COUNT_1_BIT);
    c->occlusion = create_queries(vk, VK_QUERY_TYPE_OCCLUSION, QUERY_COUNT);
    if (vk->timestamp_bits)
        c->timestamps = create_queries(vk, VK_QUERY_TYPE_TIMESTAMP, 2);
    c->buffers[0] = vkh_buffer(
        vk, QUERY_COUNT * 4, VK_BUFFER_USAGE_TRANSFER_DST_BIT | VK_BUFFER_USAGE_STORAGE_BUFFER_BIT,
        VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT);
    c->draw_set = vkh_set(vk, &type, 1);
    vkh_set_buffer(vk, c->draw_set.set, 0, type, c->buffers[0].buffer);
    c->draw_layout = vkh_pipeline_layout(vk, &c->draw_set.layout, 1, QUAD_PUSH_SIZE);
    struct vkh_pipeline_params params = {
        .vertex = &quad_vert,
        .fragment = &disc_frag,
        .layout = c->draw_layout,
        .pass = c->canvas.pass,
        .depth_test = true,
        .depth_write = true,
    };
    c->test = vkh_graphics_pipeline(vk, &params);
    params.fragment = &bars_frag;
    params.depth_test = false;
    c->draw = vkh_graphics_pipeline(vk, &params);
    return c;
}

/* A disc in front, then eight behind it, each counted. */
static void draw_counted(const struct compute *c, VkCommandBuffer commands, uint32_t frame)
{
    const float a = 0.02f * (float)frame;
    const struct quad front = {.rect = {-0.5f, -0.5f, 0.5f, 0.5f}, .depth = 0.1f};
    vkCmdBindPipeline(commands, VK_PIPELINE_BIND_POINT_GRAPHICS, c->test);
    draw_quad(commands, c->draw_layout, &front);
    for (uint32_t i = 0; i < QUERY_COUNT; i++) {
        float size = 0.15f + 0.1f * (float)i;
        const struct quad quad = {.rect = {-size + a, -size, size + a, size},
                                  .depth = 0.9f - 0.05f * (float)i};
        vkCmdBeginQuery(commands, c->occlusion, i, VK_QUERY_CONTROL_PRECISE_BIT);
        draw_quad(commands, c->draw_layout, &quad);
        vkCmdEndQuery(commands, c->occlusion, i);
    }
}

static void record_queries(void *state, VkCommandBuffer commands, uint32_t frame)
{
    struct compute *c = state;
    vkCmdResetQueryPool(commands, c->occlusion, 0, QUERY_COUNT);
    if (c->timestamps) {
        vkCmdResetQueryPool(commands, c->timestamps, 0, 2);
        vkCmdWriteTimestamp(commands, VK_PIPELINE_STAGE_TOP_OF_PIPE_BIT, c->timestamps, 0);
    }
    canvas_begin(&c->canvas, commands);
    draw_counted(c, commands, frame);
    vkCmdEndRenderPass(commands);
    vkCmdCopyQueryPoolResults(commands, c->occlusion, 0, QUERY_COUNT, c->buffers[0].buffer, 0, 4,
                              VK_QUERY_RESULT_WAIT_BIT);
    vkh_barrier(commands);
    const uint32_t constants[2] = {QUERY_COUNT, c->canvas.width * c->canvas.height};
    canvas_begin(&c->canvas, commands);
    bind_draw(c, commands);
    vkCmdPushConstants(commands, c->draw_layout, VK_SHADER_STAGE_ALL, 48, 8, constants);
    draw_full(commands, c->draw_layout);
    vkCmdEndRenderPass(commands);
    if (c->timestamps)
        vkCmdWriteTimestamp(commands, VK_PIPELINE_STAGE_BOTTOM_OF_PIPE_BIT, c->timestamps, 1);
}

static void finish_queries(void *state)
{
    struct compute *c = state;
    uint64_t values[QUERY_COUNT][2];
    const VkQueryResultFlags flags = VK_QUERY_RESULT_64_BIT | VK_QUERY_RESULT_WITH_AVAILABILITY_BIT;
    VKH_CHECK(vkGetQueryPoolResults(c->vk->device, c->occlusion, 0, QUERY_COUNT, sizeof(values),
                                    values, sizeof(values[0]), flags | VK_QUERY_RESULT_WAIT_BIT));
    printf("samples passed:");
    for (uint32_t i = 0; i < QUERY_COUNT; i++) {
        if (!values[i][1])
            vkh_fail("occlusion query %u is not available after a wait", i);
        printf(" %llu", (unsigned long long)values[i][0]);
    }
    printf("\n");
    uint64_t times[2];
    if (!c->timestamps)
        return;
    VKH_CHECK(vkGetQueryPoolResults(c->vk->device, c->timestamps, 0, 2, sizeof(times), times, 8,
                                    VK_QUERY_RESULT_64_BIT | VK_QUERY_RESULT_WAIT_BIT));
    if (times[1] < times[0])
        vkh_fail("the later timestamp is %llu, the earlier one %llu", (unsigned long long)times[1],
                 (unsigned long long)times[0]);
}

/* ---- buffer-address ---- */

enum { CELLS = 128 };

static void *setup_buffer_address(struct vkh *vk, const struct vkh_image *target)
{
    if (!vk->features12.bufferDeviceAddress)
        vkh_skip("%s has no bufferDeviceAddress", vk->properties.deviceName);
    struct compute *c = compute_create(vk, target);
    const VkDescriptorType type = VK_DESCRIPTOR_TYPE_STORAGE_BUFFER;
    canvas_init(&c->canvas, vk, target, VK_FORMAT_UNDEFINED, VK_SAMPLE_COUNT_1_BIT);
    c->buffers[0] =
        vkh_buffer(vk, CELLS * CELLS * 4,
                   VK_BUFFER_USAGE_STORAGE_BUFFER_BIT | VK_BUFFER_USAGE_SHADER_DEVICE_ADDRESS_BIT,
                   VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT);
    const VkBufferDeviceAddressInfo info = {
        .sType = VK_STRUCTURE_TYPE_BUFFER_DEVICE_ADDRESS_INFO,
        .buffer = c->buffers[0].buffer,
    };
    c->address = vkGetBufferDeviceAddress(vk->device, &info);
    if (c->address == 0)
        vkh_fail("vkGetBufferDeviceAddress gave 0");
    c->layout = vkh_pipeline_layout(vk, NULL, 0, 16);
    c->compute = vkh_compute_pipeline(vk, &address_comp, c->layout, NULL);
    c->draw_set = vkh_set(vk, &type, 1);
    vkh_set_buffer(vk, c->draw_set.set, 0, type, c->buffers[0].buffer);
    c->draw_layout = vkh_pipeline_layout(vk, &c->draw_set.layout, 1, QUAD_PUSH_SIZE);
    const struct vkh_pipeline_params params = {
        .vertex = &quad_vert,
        .fragment = &cells_frag,
        .layout = c->draw_layout,
        .pass = c->canvas.pass,
    };
    c->draw = vkh_graphics_pipeline(vk, &params);
    return c;
}

static void record_buffer_address(void *state, VkCommandBuffer commands, uint32_t frame)
{
    struct compute *c = state;
    const struct {
        VkDeviceAddress to;
        uint32_t size, frame;
    } push = {c->address, CELLS, frame * 16};
    const uint32_t size = CELLS;
    vkh_barrier(commands);
    bind_compute(c, commands);
    vkCmdPushConstants(commands, c->layout, VK_SHADER_STAGE_ALL, 0, sizeof(push), &push);
    vkCmdDispatch(commands, CELLS * CELLS / 64, 1, 1);
    vkh_barrier(commands);
    canvas_begin(&c->canvas, commands);
    bind_draw(c, commands);
    vkCmdPushConstants(commands, c->draw_layout, VK_SHADER_STAGE_ALL, 48, sizeof(size), &size);
    draw_full(commands, c->draw_layout);
    vkCmdEndRenderPass(commands);
}

/* ---- transfer ---- */

static void *setup_transfer(struct vkh *vk, const struct vkh_image *target)
{
    if (target->extent.width < 128 || target->extent.height < 128)
        vkh_skip("this scene needs a picture of 128x128 at least");
    struct compute *c = compute_create(vk, target);
    const VkBufferUsageFlags usage =
        VK_BUFFER_USAGE_TRANSFER_SRC_BIT | VK_BUFFER_USAGE_TRANSFER_DST_BIT;
    c->texture = scene_texture(vk, 64, 9);
    c->buffers[0] = vkh_buffer(vk, 64 * 64 * 4, usage, VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT);
    return c;
}

/* Clear, fill, update, copy and blit: no pipeline at all. */
static void record_transfer(void *state, VkCommandBuffer commands, uint32_t frame)
{
    struct compute *c = state;
    const VkImageLayout to = VK_IMAGE_LAYOUT_TRANSFER_DST_OPTIMAL;
    const VkImageLayout from = VK_IMAGE_LAYOUT_TRANSFER_SRC_OPTIMAL;
    const VkClearColorValue color = {.float32 = {0.1f, 0.2f, 0.3f, 1}};
    const VkImageSubresourceRange range = {VK_IMAGE_ASPECT_COLOR_BIT, 0, 1, 0, 1};
    const VkImageSubresourceLayers layers = {VK_IMAGE_ASPECT_COLOR_BIT, 0, 0, 1};
    uint32_t stripes[64];
    for (uint32_t i = 0; i < 64; i++)
        stripes[i] = i % 8 < 4 ? 0xff20a0ffu : 0xff802000u + frame;
    vkh_layout(commands, c->target, VK_IMAGE_LAYOUT_UNDEFINED, to);
    vkh_layout(commands, &c->texture, VK_IMAGE_LAYOUT_SHADER_READ_ONLY_OPTIMAL, from);
    vkCmdClearColorImage(commands, c->target->image, to, &color, 1, &range);
    vkCmdFillBuffer(commands, c->buffers[0].buffer, 0, VK_WHOLE_SIZE, 0xff40c040u);
    vkh_barrier(commands);
    for (uint32_t row = 0; row < 64; row += 4)
        vkCmdUpdateBuffer(commands, c->buffers[0].buffer, row * 256, sizeof(stripes), stripes);
    vkh_barrier(commands);
    const VkBufferImageCopy upload = {
        .bufferRowLength = 64,
        .imageSubresource = layers,
        .imageOffset = {8, 8, 0},
        .imageExtent = {48, 48, 1},
    };
    vkCmdCopyBufferToImage(commands, c->buffers[0].buffer, c->target->image, to, 1, &upload);
    const VkImageCopy copy = {layers, {0, 0, 0}, layers, {64, 8, 0}, {48, 48, 1}};
    vkCmdCopyImage(commands, c->texture.image, from, c->target->image, to, 1, &copy);
    const VkImageBlit blit = {
        layers, {{0, 0, 0}, {64, 64, 1}}, layers, {{120, 120, 0}, {8, 64, 1}}};
    vkCmdBlitImage(commands, c->texture.image, from, c->target->image, to, 1, &blit,
                   VK_FILTER_LINEAR);
    vkh_layout(commands, &c->texture, from, VK_IMAGE_LAYOUT_SHADER_READ_ONLY_OPTIMAL);
    vkh_layout(commands, c->target, to, from);
}

const struct scene scenes_compute[] = {
    {"compute", "image written by a compute shader", setup_compute, record_compute, NULL, NULL},
    {"indirect", "draws and their count written by a compute shader", setup_indirect,
     record_indirect, NULL, NULL},
    {"queries", "occlusion queries drawn and printed, timestamps", setup_queries, record_queries,
     NULL, finish_queries},
    {"buffer-address", "compute shader writing through an address", setup_buffer_address,
     record_buffer_address, NULL, NULL},
    {"transfer", "clear, fill, update, copy and blit", setup_transfer, record_transfer, NULL, NULL},
    {0},
};
