/* Scenes of one render pass: what a first Vulkan program uses. */
#include "scene.h"

#include <math.h>
#include <string.h>

/* Shared by the scenes here: a canvas and up to three pipelines with one layout. */
struct drawing {
    struct canvas canvas;
    VkPipelineLayout layout;
    VkPipeline pipelines[3];
    struct vkh_set set;
    struct vkh_buffer vertices, instances, indices;
};

static struct drawing *drawing_create(struct vkh *vk, const struct vkh_image *target,
                                      VkFormat depth_format, VkSampleCountFlagBits samples)
{
    struct drawing *drawing = scene_alloc(sizeof(*drawing));
    canvas_init(&drawing->canvas, vk, target, depth_format, samples);
    return drawing;
}

static void push_angle(const struct drawing *drawing, VkCommandBuffer commands, uint32_t frame)
{
    const float angle = scene_angle(frame);
    vkCmdPushConstants(commands, drawing->layout, VK_SHADER_STAGE_ALL, 0, sizeof(angle), &angle);
}

static void bind(VkCommandBuffer commands, VkPipeline pipeline)
{
    vkCmdBindPipeline(commands, VK_PIPELINE_BIND_POINT_GRAPHICS, pipeline);
}

/* ---- triangle, msaa ---- */

static void *setup_triangle(struct vkh *vk, const struct vkh_image *target)
{
    struct drawing *d = drawing_create(vk, target, VK_FORMAT_UNDEFINED, VK_SAMPLE_COUNT_1_BIT);
    d->layout = vkh_pipeline_layout(vk, NULL, 0, sizeof(float));
    const struct vkh_pipeline_params params = {
        .vertex = &triangle_vert,
        .fragment = &color_frag,
        .layout = d->layout,
        .pass = d->canvas.pass,
    };
    d->pipelines[0] = vkh_graphics_pipeline(vk, &params);
    return d;
}

static void record_triangle(void *state, VkCommandBuffer commands, uint32_t frame)
{
    struct drawing *d = state;
    canvas_begin(&d->canvas, commands);
    bind(commands, d->pipelines[0]);
    push_angle(d, commands, frame);
    vkCmdDraw(commands, 3, 1, 0, 0);
    vkCmdEndRenderPass(commands);
}

static void *setup_msaa(struct vkh *vk, const struct vkh_image *target)
{
    struct drawing *d = drawing_create(vk, target, VK_FORMAT_D32_SFLOAT, VK_SAMPLE_COUNT_4_BIT);
    d->layout = vkh_pipeline_layout(vk, NULL, 0, sizeof(float));
    const struct vkh_pipeline_params params = {
        .vertex = &triangle_vert,
        .fragment = &color_frag,
        .layout = d->layout,
        .pass = d->canvas.pass,
        .samples = VK_SAMPLE_COUNT_4_BIT,
        .depth_test = true,
    };
    d->pipelines[0] = vkh_graphics_pipeline(vk, &params);
    return d;
}

static void record_msaa(void *state, VkCommandBuffer commands, uint32_t frame)
{
    struct drawing *d = state;
    canvas_begin(&d->canvas, commands);
    bind(commands, d->pipelines[0]);
    for (uint32_t i = 0; i < 9; i++) {
        const float size = (float)d->canvas.width / 3;
        const VkViewport viewport = {(float)(i % 3) * size,
                                     (float)(i / 3) * (float)d->canvas.height / 3,
                                     size,
                                     (float)d->canvas.height / 3,
                                     0,
                                     1};
        vkCmdSetViewport(commands, 0, 1, &viewport);
        push_angle(d, commands, frame + i * 4);
        vkCmdDraw(commands, 3, 1, 0, 0);
    }
    vkCmdEndRenderPass(commands);
}

/* ---- textured ---- */

static void *setup_textured(struct vkh *vk, const struct vkh_image *target)
{
    struct drawing *d = drawing_create(vk, target, VK_FORMAT_UNDEFINED, VK_SAMPLE_COUNT_1_BIT);
    const VkDescriptorType type = VK_DESCRIPTOR_TYPE_COMBINED_IMAGE_SAMPLER;
    d->set = vkh_set(vk, &type, 1);
    d->layout = vkh_pipeline_layout(vk, &d->set.layout, 1, sizeof(float));
    struct vkh_image texture = scene_texture(vk, 256, 0);
    vkh_set_image(vk, d->set.set, 0, type, texture.view,
                  vkh_sampler(vk, VK_FILTER_LINEAR, VK_SAMPLER_ADDRESS_MODE_REPEAT),
                  VK_IMAGE_LAYOUT_SHADER_READ_ONLY_OPTIMAL);
    const struct vkh_pipeline_params params = {
        .vertex = &plane_vert,
        .fragment = &texture_frag,
        .layout = d->layout,
        .pass = d->canvas.pass,
    };
    d->pipelines[0] = vkh_graphics_pipeline(vk, &params);
    return d;
}

static void record_textured(void *state, VkCommandBuffer commands, uint32_t frame)
{
    struct drawing *d = state;
    canvas_begin(&d->canvas, commands);
    bind(commands, d->pipelines[0]);
    vkCmdBindDescriptorSets(commands, VK_PIPELINE_BIND_POINT_GRAPHICS, d->layout, 0, 1, &d->set.set,
                            0, NULL);
    push_angle(d, commands, frame);
    vkCmdDraw(commands, 6, 1, 0, 0);
    vkCmdEndRenderPass(commands);
}

/* ---- blended, push-constants ---- */

static void *setup_blended(struct vkh *vk, const struct vkh_image *target)
{
    struct drawing *d = drawing_create(vk, target, VK_FORMAT_UNDEFINED, VK_SAMPLE_COUNT_1_BIT);
    d->layout = vkh_pipeline_layout(vk, NULL, 0, QUAD_PUSH_SIZE);
    const enum vkh_blend blends[] = {VKH_BLEND_ALPHA, VKH_BLEND_ADD, VKH_BLEND_MULTIPLY};
    for (uint32_t i = 0; i < VKH_COUNT(blends); i++) {
        const struct vkh_pipeline_params params = {
            .vertex = &quad_vert,
            .fragment = &disc_frag,
            .layout = d->layout,
            .pass = d->canvas.pass,
            .blend = blends[i],
        };
        d->pipelines[i] = vkh_graphics_pipeline(vk, &params);
    }
    return d;
}

static void record_blended(void *state, VkCommandBuffer commands, uint32_t frame)
{
    struct drawing *d = state;
    uint32_t seed = 7;
    canvas_begin(&d->canvas, commands);
    for (uint32_t i = 0; i < 48; i++) {
        float x = scene_random(&seed) * 2 - 1 + 0.1f * sinf(scene_angle(frame + i));
        float y = scene_random(&seed) * 2 - 1;
        float size = 0.15f + 0.4f * scene_random(&seed);
        const struct quad quad = {
            .rect = {x - size, y - size, x + size, y + size},
            .color = {scene_random(&seed), scene_random(&seed), scene_random(&seed), 0.6f},
            .depth = 0.5f,
        };
        bind(commands, d->pipelines[i % 4 == 3 ? 2 : i % 2]);
        draw_quad(commands, d->layout, &quad);
    }
    vkCmdEndRenderPass(commands);
}

static void *setup_push_constants(struct vkh *vk, const struct vkh_image *target)
{
    struct drawing *d = drawing_create(vk, target, VK_FORMAT_UNDEFINED, VK_SAMPLE_COUNT_1_BIT);
    d->layout = vkh_pipeline_layout(vk, NULL, 0, QUAD_PUSH_SIZE);
    const struct vkh_pipeline_params params = {
        .vertex = &quad_vert,
        .fragment = &color_frag,
        .layout = d->layout,
        .pass = d->canvas.pass,
    };
    d->pipelines[0] = vkh_graphics_pipeline(vk, &params);
    return d;
}

static void record_push_constants(void *state, VkCommandBuffer commands, uint32_t frame)
{
    struct drawing *d = state;
    canvas_begin(&d->canvas, commands);
    bind(commands, d->pipelines[0]);
    for (uint32_t i = 0; i < 256; i++) {
        float x = (float)(i % 16) / 8 - 1, y = (float)(i / 16) / 8 - 1;
        float wave = 0.05f + 0.03f * sinf(scene_angle(frame) + (float)i * 0.3f);
        const struct quad quad = {
            .rect = {x + 0.01f, y + 0.01f, x + wave, y + wave},
            .color = {(float)(i % 16) / 15, (float)(i / 16) / 15, 0.6f, 1},
        };
        /* In two pieces, the second one changing only the color. */
        vkCmdPushConstants(commands, d->layout, VK_SHADER_STAGE_ALL, 0, 16, quad.rect);
        vkCmdPushConstants(commands, d->layout, VK_SHADER_STAGE_ALL, 16, 20, quad.color);
        vkCmdDraw(commands, 6, 1, 0, 0);
    }
    vkCmdEndRenderPass(commands);
}

/* ---- depth ---- */

struct vertex {
    float position[3], color[3];
};

static const VkVertexInputAttributeDescription mesh_attributes[] = {
    {0, 0, VK_FORMAT_R32G32B32_SFLOAT, offsetof(struct vertex, position)},
    {1, 0, VK_FORMAT_R32G32B32_SFLOAT, offsetof(struct vertex, color)},
};

/* Three triangles that cut through each other. */
static const struct vertex depth_vertices[] = {
    {{-0.9f, -0.6f, 0.1f}, {1, 0.2f, 0.2f}}, {{0.9f, -0.6f, 0.9f}, {1, 0.6f, 0.2f}},
    {{0.0f, 0.8f, 0.5f}, {1, 0.2f, 0.6f}},   {{0.9f, -0.8f, 0.1f}, {0.2f, 1, 0.2f}},
    {{-0.9f, -0.4f, 0.9f}, {0.2f, 1, 0.8f}}, {{0.1f, 0.9f, 0.4f}, {0.6f, 1, 0.2f}},
    {{0.0f, -0.9f, 0.5f}, {0.2f, 0.3f, 1}},  {{0.8f, 0.7f, 0.2f}, {0.2f, 0.8f, 1}},
    {{-0.8f, 0.6f, 0.8f}, {0.5f, 0.2f, 1}},
};
static const uint16_t depth_indices[] = {0, 1, 2, 3, 4, 5, 6, 7, 8};

static void *setup_depth(struct vkh *vk, const struct vkh_image *target)
{
    struct drawing *d = drawing_create(vk, target, VK_FORMAT_D32_SFLOAT, VK_SAMPLE_COUNT_1_BIT);
    d->layout = vkh_pipeline_layout(vk, NULL, 0, 64);
    const struct vkh_pipeline_params params = {
        .vertex = &mesh_vert,
        .fragment = &color_frag,
        .layout = d->layout,
        .pass = d->canvas.pass,
        .depth_test = true,
        .depth_write = true,
        .stride = {sizeof(struct vertex)},
        .attributes = mesh_attributes,
        .attribute_count = VKH_COUNT(mesh_attributes),
    };
    d->pipelines[0] = vkh_graphics_pipeline(vk, &params);
    d->vertices = vkh_buffer_with(vk, depth_vertices, sizeof(depth_vertices),
                                  VK_BUFFER_USAGE_VERTEX_BUFFER_BIT);
    d->indices =
        vkh_buffer_with(vk, depth_indices, sizeof(depth_indices), VK_BUFFER_USAGE_INDEX_BUFFER_BIT);
    return d;
}

static void record_depth(void *state, VkCommandBuffer commands, uint32_t frame)
{
    struct drawing *d = state;
    float c = cosf(scene_angle(frame)), s = sinf(scene_angle(frame));
    const float transform[16] = {c, s, 0, 0, -s, c, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1};
    const VkDeviceSize zero = 0;
    canvas_begin(&d->canvas, commands);
    bind(commands, d->pipelines[0]);
    vkCmdPushConstants(commands, d->layout, VK_SHADER_STAGE_ALL, 0, sizeof(transform), transform);
    vkCmdBindVertexBuffers(commands, 0, 1, &d->vertices.buffer, &zero);
    vkCmdBindIndexBuffer(commands, d->indices.buffer, 0, VK_INDEX_TYPE_UINT16);
    vkCmdDrawIndexed(commands, VKH_COUNT(depth_indices), 1, 0, 0, 0);
    vkCmdEndRenderPass(commands);
}

/* ---- instanced ---- */

enum { INSTANCE_COUNT = 1024 };

struct instance {
    float offset_scale[4];
    uint8_t color[4];
};

static const VkVertexInputAttributeDescription instanced_attributes[] = {
    {0, 0, VK_FORMAT_R32G32_SFLOAT, 0},
    {1, 1, VK_FORMAT_R32G32B32A32_SFLOAT, offsetof(struct instance, offset_scale)},
    {2, 1, VK_FORMAT_R8G8B8A8_UNORM, offsetof(struct instance, color)},
};

static void *setup_instanced(struct vkh *vk, const struct vkh_image *target)
{
    static const float corners[3][2] = {{0, -1}, {0.8f, 0.7f}, {-0.8f, 0.7f}};
    struct drawing *d = drawing_create(vk, target, VK_FORMAT_UNDEFINED, VK_SAMPLE_COUNT_1_BIT);
    d->layout = vkh_pipeline_layout(vk, NULL, 0, sizeof(float));
    const struct vkh_pipeline_params params = {
        .vertex = &instanced_vert,
        .fragment = &color_frag,
        .layout = d->layout,
        .pass = d->canvas.pass,
        .stride = {sizeof(corners[0]), sizeof(struct instance)},
        .attributes = instanced_attributes,
        .attribute_count = VKH_COUNT(instanced_attributes),
    };
    d->pipelines[0] = vkh_graphics_pipeline(vk, &params);
    d->vertices = vkh_buffer_with(vk, corners, sizeof(corners), VK_BUFFER_USAGE_VERTEX_BUFFER_BIT);
    struct instance instances[INSTANCE_COUNT];
    uint32_t seed = 99;
    for (uint32_t i = 0; i < INSTANCE_COUNT; i++) {
        instances[i] = (struct instance){
            .offset_scale = {scene_random(&seed) * 2 - 1, scene_random(&seed) * 2 - 1,
                             0.02f + 0.05f * scene_random(&seed), scene_random(&seed) * 6.28f},
            .color = {(uint8_t)(i * 7), (uint8_t)(255 - i / 4), (uint8_t)(i * 3 + 60), 255},
        };
    }
    d->instances =
        vkh_buffer_with(vk, instances, sizeof(instances), VK_BUFFER_USAGE_VERTEX_BUFFER_BIT);
    return d;
}

static void record_instanced(void *state, VkCommandBuffer commands, uint32_t frame)
{
    struct drawing *d = state;
    const VkBuffer buffers[] = {d->vertices.buffer, d->instances.buffer};
    const VkDeviceSize offsets[] = {0, 0};
    canvas_begin(&d->canvas, commands);
    bind(commands, d->pipelines[0]);
    push_angle(d, commands, frame);
    vkCmdBindVertexBuffers(commands, 0, 2, buffers, offsets);
    vkCmdDraw(commands, 3, INSTANCE_COUNT / 2, 0, 0);
    vkCmdDraw(commands, 3, INSTANCE_COUNT / 2, 0, INSTANCE_COUNT / 2);
    vkCmdEndRenderPass(commands);
}

/* ---- stencil ---- */

static VkFormat stencil_format(const struct vkh *vk)
{
    const VkFormat formats[] = {VK_FORMAT_D32_SFLOAT_S8_UINT, VK_FORMAT_D24_UNORM_S8_UINT};
    for (uint32_t i = 0; i < VKH_COUNT(formats); i++) {
        VkFormatProperties properties;
        vkGetPhysicalDeviceFormatProperties(vk->physical, formats[i], &properties);
        if (properties.optimalTilingFeatures & VK_FORMAT_FEATURE_DEPTH_STENCIL_ATTACHMENT_BIT)
            return formats[i];
    }
    vkh_skip("no depth and stencil format");
}

static void *setup_stencil(struct vkh *vk, const struct vkh_image *target)
{
    struct drawing *d = drawing_create(vk, target, stencil_format(vk), VK_SAMPLE_COUNT_1_BIT);
    d->layout = vkh_pipeline_layout(vk, NULL, 0, QUAD_PUSH_SIZE);
    /* Discs add one where they lie; then one color for one disc, another for two or more. */
    const VkStencilOpState states[] = {
        {VK_STENCIL_OP_KEEP, VK_STENCIL_OP_INCREMENT_AND_CLAMP, VK_STENCIL_OP_KEEP,
         VK_COMPARE_OP_ALWAYS, 0xff, 0xff, 0},
        {VK_STENCIL_OP_KEEP, VK_STENCIL_OP_KEEP, VK_STENCIL_OP_KEEP, VK_COMPARE_OP_EQUAL, 0xff, 0,
         1},
        {VK_STENCIL_OP_KEEP, VK_STENCIL_OP_INVERT, VK_STENCIL_OP_KEEP, VK_COMPARE_OP_LESS, 0xff,
         0xff, 1},
    };
    for (uint32_t i = 0; i < VKH_COUNT(states); i++) {
        const struct vkh_pipeline_params params = {
            .vertex = &quad_vert,
            .fragment = i == 0 ? &disc_frag : &color_frag,
            .layout = d->layout,
            .pass = d->canvas.pass,
            .stencil = &states[i],
            .no_color = i == 0,
        };
        d->pipelines[i] = vkh_graphics_pipeline(vk, &params);
    }
    return d;
}

static void record_stencil(void *state, VkCommandBuffer commands, uint32_t frame)
{
    struct drawing *d = state;
    canvas_begin(&d->canvas, commands);
    bind(commands, d->pipelines[0]);
    for (uint32_t i = 0; i < 5; i++) {
        float a = scene_angle(frame) + (float)i * 1.2566f;
        const struct quad disc = {
            .rect = {0.4f * sinf(a) - 0.45f, 0.4f * cosf(a) - 0.45f, 0.4f * sinf(a) + 0.45f,
                     0.4f * cosf(a) + 0.45f},
        };
        draw_quad(commands, d->layout, &disc);
    }
    const float colors[2][4] = {{0.2f, 0.5f, 0.9f, 1}, {0.95f, 0.7f, 0.2f, 1}};
    for (uint32_t i = 0; i < 2; i++) {
        struct quad all = {.rect = {-1, -1, 1, 1}};
        memcpy(all.color, colors[i], sizeof(all.color));
        bind(commands, d->pipelines[i + 1]);
        draw_quad(commands, d->layout, &all);
    }
    vkCmdEndRenderPass(commands);
}

const struct scene scenes_draw[] = {
    {"triangle", "one triangle", setup_triangle, record_triangle, NULL, NULL},
    {"textured", "mipmapped texture, linear sampler", setup_textured, record_textured, NULL, NULL},
    {"blended", "alpha, additive and multiplied discs", setup_blended, record_blended, NULL, NULL},
    {"push-constants", "256 draws with constants of their own", setup_push_constants,
     record_push_constants, NULL, NULL},
    {"depth", "depth test, vertex and index buffers", setup_depth, record_depth, NULL, NULL},
    {"msaa", "four samples, resolved, with depth", setup_msaa, record_msaa, NULL, NULL},
    {"instanced", "1024 instances from an instance buffer", setup_instanced, record_instanced, NULL,
     NULL},
    {"stencil", "stencil counting and masking", setup_stencil, record_stencil, NULL, NULL},
    {0},
};
