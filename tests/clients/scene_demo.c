/* The demo scene: a torus knot turning over a floor that mirrors it, with a shadow map, a mipmapped
 * texture, blending and four samples. Meant to be looked at, and to be a fair everyday frame. */
#include "scene.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    ALONG = 320, /* segments along the knot */
    AROUND = 28,
    KNOT_INDEX_COUNT = ALONG * AROUND * 6,
    FLOOR_INDEX_COUNT = 6,
    SHADOW_SIZE = 1024,
};

struct vertex {
    float position[3], normal[3], uv[2];
};

struct matrix {
    float m[16]; /* columns, as GLSL has them */
};

struct scene_uniforms {
    struct matrix light;
    float light_direction[4], eye[4];
};

struct draw_push {
    struct matrix transform;
    float turn[4]; /* angles about y and x, height, 1 for the floor */
};

struct demo {
    struct vkh *vk;
    struct canvas canvas;
    struct vkh_image shadow_map;
    VkRenderPass shadow_pass;
    VkFramebuffer shadow_framebuffer;
    struct vkh_set set;
    VkPipelineLayout layout, shadow_layout, sky_layout;
    VkPipeline lit, shadow, sky;
    struct vkh_buffer vertices, indices, uniforms;
    struct matrix light, view;
};

static const float knot_height = 1.75f;

/* ---- a little algebra ---- */

static struct matrix multiply(const struct matrix *a, const struct matrix *b)
{
    struct matrix result = {0};
    for (int column = 0; column < 4; column++) {
        for (int row = 0; row < 4; row++) {
            for (int i = 0; i < 4; i++)
                result.m[column * 4 + row] += a->m[i * 4 + row] * b->m[column * 4 + i];
        }
    }
    return result;
}

static void cross(float out[3], const float a[3], const float b[3])
{
    out[0] = a[1] * b[2] - a[2] * b[1];
    out[1] = a[2] * b[0] - a[0] * b[2];
    out[2] = a[0] * b[1] - a[1] * b[0];
}

static float dot(const float a[3], const float b[3])
{
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
}

static void normalize(float v[3])
{
    float length = sqrtf(dot(v, v));
    for (int i = 0; i < 3; i++)
        v[i] /= length;
}

static struct matrix look_at(const float eye[3], const float target[3])
{
    const float up[3] = {0, 1, 0};
    float back[3], right[3], above[3];
    for (int i = 0; i < 3; i++)
        back[i] = eye[i] - target[i];
    normalize(back);
    cross(right, up, back);
    normalize(right);
    cross(above, back, right);
    struct matrix result = {{right[0], above[0], back[0], 0, right[1], above[1], back[1], 0,
                             right[2], above[2], back[2], 0, -dot(right, eye), -dot(above, eye),
                             -dot(back, eye), 1}};
    return result;
}

/* Vulkan's clip space: y down, depth 0 … 1. */
static struct matrix perspective(float focus, float aspect, float near, float far)
{
    float depth = far / (near - far);
    return (struct matrix){
        {focus / aspect, 0, 0, 0, 0, -focus, 0, 0, 0, 0, depth, -1, 0, 0, near * depth, 0}};
}

static struct matrix orthographic(float size, float far)
{
    return (struct matrix){{1 / size, 0, 0, 0, 0, -1 / size, 0, 0, 0, 0, -1 / far, 0, 0, 0, 0, 1}};
}

/* As turned() in lit.vert, then lifted. */
static struct matrix model(float turn_y, float turn_x, float height)
{
    float cy = cosf(turn_y), sy = sinf(turn_y), cx = cosf(turn_x), sx = sinf(turn_x);
    return (struct matrix){
        {cy, 0, -sy, 0, sy * sx, cx, cy * sx, 0, sy * cx, -sx, cy * cx, 0, 0, height, 0, 1}};
}

/* ---- meshes ---- */

static void knot_point(float out[3], float t)
{
    float r = 1.05f + 0.42f * cosf(3 * t);
    out[0] = r * cosf(2 * t);
    out[1] = r * sinf(2 * t);
    out[2] = -0.62f * sinf(3 * t);
}

/* One ring of the tube; the last one repeats the first, with other texture coordinates. */
static void knot_ring(struct vertex *ring, uint32_t index)
{
    const float turn = 6.2831853f, radius = 0.27f;
    float t = turn * (float)index / ALONG, here[3], ahead[3], along[3], side[3], out[3];
    knot_point(here, t);
    knot_point(ahead, t + 0.001f);
    for (int i = 0; i < 3; i++) {
        along[i] = ahead[i] - here[i];
        side[i] = ahead[i] + here[i];
    }
    cross(out, along, side);
    cross(side, out, along);
    normalize(out);
    normalize(side);
    for (uint32_t j = 0; j <= AROUND; j++) {
        float c = cosf(turn * (float)j / AROUND), s = sinf(turn * (float)j / AROUND);
        for (int i = 0; i < 3; i++) {
            ring[j].normal[i] = c * side[i] + s * out[i];
            ring[j].position[i] = here[i] + radius * ring[j].normal[i];
        }
        ring[j].uv[0] = 6.0f * (float)index / ALONG;
        ring[j].uv[1] = (float)j / AROUND;
    }
}

static void create_meshes(struct demo *d)
{
    enum { KNOT_VERTICES = (ALONG + 1) * (AROUND + 1), VERTICES = KNOT_VERTICES + 4 };
    struct vertex *vertices = scene_alloc(VERTICES * sizeof(*vertices));
    uint16_t *indices = scene_alloc((KNOT_INDEX_COUNT + FLOOR_INDEX_COUNT) * sizeof(*indices));
    uint16_t *next = indices;
    for (uint32_t i = 0; i <= ALONG; i++)
        knot_ring(vertices + (size_t)i * (AROUND + 1), i);
    for (uint32_t i = 0; i < ALONG; i++) {
        for (uint32_t j = 0; j < AROUND; j++) {
            uint32_t a = i * (AROUND + 1) + j, b = a + AROUND + 1;
            const uint32_t quad[6] = {a, b, a + 1, a + 1, b, b + 1};
            for (int k = 0; k < 6; k++)
                *next++ = (uint16_t)quad[k];
        }
    }
    for (uint32_t i = 0; i < 4; i++) {
        float x = i & 1 ? 10.0f : -10.0f, z = i & 2 ? 10.0f : -10.0f;
        vertices[KNOT_VERTICES + i] = (struct vertex){{x, 0, z}, {0, 1, 0}, {x / 8, z / 8}};
    }
    const uint32_t floor_quad[6] = {0, 1, 2, 2, 1, 3};
    for (int k = 0; k < 6; k++)
        *next++ = (uint16_t)(KNOT_VERTICES + floor_quad[k]);
    d->vertices = vkh_buffer_with(d->vk, vertices, VERTICES * sizeof(*vertices),
                                  VK_BUFFER_USAGE_VERTEX_BUFFER_BIT);
    d->indices = vkh_buffer_with(d->vk, indices, (size_t)(next - indices) * sizeof(*indices),
                                 VK_BUFFER_USAGE_INDEX_BUFFER_BIT);
    free(vertices);
    free(indices);
}

/* ---- passes and pipelines ---- */

static VkRenderPass create_shadow_pass(struct vkh *vk)
{
    const VkAttachmentDescription depth = {
        .format = VK_FORMAT_D32_SFLOAT,
        .samples = VK_SAMPLE_COUNT_1_BIT,
        .loadOp = VK_ATTACHMENT_LOAD_OP_CLEAR,
        .storeOp = VK_ATTACHMENT_STORE_OP_STORE,
        .finalLayout = VK_IMAGE_LAYOUT_DEPTH_STENCIL_READ_ONLY_OPTIMAL,
    };
    const VkAttachmentReference reference = {0, VK_IMAGE_LAYOUT_DEPTH_STENCIL_ATTACHMENT_OPTIMAL};
    const VkSubpassDescription subpass = {.pDepthStencilAttachment = &reference};
    const VkPipelineStageFlags all = VK_PIPELINE_STAGE_ALL_COMMANDS_BIT;
    const VkAccessFlags access = VK_ACCESS_MEMORY_READ_BIT | VK_ACCESS_MEMORY_WRITE_BIT;
    const VkSubpassDependency dependencies[] = {
        {VK_SUBPASS_EXTERNAL, 0, all, all, VK_ACCESS_MEMORY_WRITE_BIT, access, 0},
        {0, VK_SUBPASS_EXTERNAL, all, all, VK_ACCESS_MEMORY_WRITE_BIT, access, 0},
    };
    const VkRenderPassCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_RENDER_PASS_CREATE_INFO,
        .attachmentCount = 1,
        .pAttachments = &depth,
        .subpassCount = 1,
        .pSubpasses = &subpass,
        .dependencyCount = VKH_COUNT(dependencies),
        .pDependencies = dependencies,
    };
    VkRenderPass pass;
    VKH_CHECK(vkCreateRenderPass(vk->device, &info, NULL, &pass));
    VKH_KEEP(vk, RENDER_PASS, pass);
    return pass;
}

static void create_pipelines(struct demo *d)
{
    static const VkVertexInputAttributeDescription attributes[] = {
        {0, 0, VK_FORMAT_R32G32B32_SFLOAT, offsetof(struct vertex, position)},
        {1, 0, VK_FORMAT_R32G32B32_SFLOAT, offsetof(struct vertex, normal)},
        {2, 0, VK_FORMAT_R32G32_SFLOAT, offsetof(struct vertex, uv)},
    };
    const struct vkh_pipeline_params lit = {
        .vertex = &lit_vert,
        .fragment = &lit_frag,
        .layout = d->layout,
        .pass = d->canvas.pass,
        .samples = VK_SAMPLE_COUNT_4_BIT,
        .depth_test = true,
        .depth_write = true,
        .blend = VKH_BLEND_ALPHA,
        .stride = {sizeof(struct vertex)},
        .attributes = attributes,
        .attribute_count = VKH_COUNT(attributes),
    };
    const struct vkh_pipeline_params shadow = {
        .vertex = &shadow_vert,
        .layout = d->shadow_layout,
        .pass = d->shadow_pass,
        .depth_test = true,
        .depth_write = true,
        .depth_bias = 2.0f,
        .no_color = true,
        .stride = {sizeof(struct vertex)},
        .attributes = attributes,
        .attribute_count = 1,
    };
    const struct vkh_pipeline_params sky = {
        .vertex = &quad_vert,
        .fragment = &gradient_frag,
        .layout = d->sky_layout,
        .pass = d->canvas.pass,
        .samples = VK_SAMPLE_COUNT_4_BIT,
    };
    d->lit = vkh_graphics_pipeline(d->vk, &lit);
    d->shadow = vkh_graphics_pipeline(d->vk, &shadow);
    d->sky = vkh_graphics_pipeline(d->vk, &sky);
}

static void create_set(struct demo *d)
{
    const VkDescriptorType types[] = {
        VK_DESCRIPTOR_TYPE_UNIFORM_BUFFER,
        VK_DESCRIPTOR_TYPE_COMBINED_IMAGE_SAMPLER,
        VK_DESCRIPTOR_TYPE_COMBINED_IMAGE_SAMPLER,
    };
    d->set = vkh_set(d->vk, types, VKH_COUNT(types));
    struct vkh_image texture = scene_texture(d->vk, 256, 0);
    vkh_set_buffer(d->vk, d->set.set, 0, types[0], d->uniforms.buffer);
    vkh_set_image(d->vk, d->set.set, 1, types[1], texture.view,
                  vkh_sampler(d->vk, VK_FILTER_LINEAR, VK_SAMPLER_ADDRESS_MODE_REPEAT),
                  VK_IMAGE_LAYOUT_SHADER_READ_ONLY_OPTIMAL);
    vkh_set_image(d->vk, d->set.set, 2, types[2], d->shadow_map.view,
                  vkh_sampler(d->vk, VK_FILTER_NEAREST, VK_SAMPLER_ADDRESS_MODE_CLAMP_TO_EDGE),
                  VK_IMAGE_LAYOUT_DEPTH_STENCIL_READ_ONLY_OPTIMAL);
}

static void create_cameras(struct demo *d)
{
    const float eye[3] = {0.0f, 2.6f, 6.2f}, middle[3] = {0, 1.35f, 0};
    const float light[3] = {3.2f, 6.5f, 3.6f}, ground[3] = {0, 0.8f, 0};
    float aspect = (float)d->canvas.width / (float)d->canvas.height;
    const struct matrix lens = perspective(1.75f, aspect, 0.5f, 40.0f);
    const struct matrix box = orthographic(4.2f, 16.0f);
    const struct matrix from_eye = look_at(eye, middle), from_light = look_at(light, ground);
    d->view = multiply(&lens, &from_eye);
    d->light = multiply(&box, &from_light);
    struct scene_uniforms uniforms = {.light = d->light};
    for (int i = 0; i < 3; i++)
        uniforms.light_direction[i] = light[i] - ground[i];
    normalize(uniforms.light_direction);
    memcpy(uniforms.eye, eye, sizeof(eye));
    d->uniforms =
        vkh_buffer_with(d->vk, &uniforms, sizeof(uniforms), VK_BUFFER_USAGE_UNIFORM_BUFFER_BIT);
}

static void *setup_demo(struct vkh *vk, const struct vkh_image *target)
{
    struct demo *d = scene_alloc(sizeof(*d));
    d->vk = vk;
    canvas_init(&d->canvas, vk, target, VK_FORMAT_D32_SFLOAT, VK_SAMPLE_COUNT_4_BIT);
    const struct vkh_image_params shadow_map = {
        .format = VK_FORMAT_D32_SFLOAT,
        .width = SHADOW_SIZE,
        .height = SHADOW_SIZE,
        .usage = VK_IMAGE_USAGE_DEPTH_STENCIL_ATTACHMENT_BIT | VK_IMAGE_USAGE_SAMPLED_BIT,
    };
    d->shadow_map = vkh_image(vk, &shadow_map);
    d->shadow_pass = create_shadow_pass(vk);
    d->shadow_framebuffer =
        vkh_framebuffer(vk, d->shadow_pass, &d->shadow_map.view, 1, SHADOW_SIZE, SHADOW_SIZE);
    create_cameras(d);
    create_meshes(d);
    create_set(d);
    d->layout = vkh_pipeline_layout(vk, &d->set.layout, 1, sizeof(struct draw_push));
    d->shadow_layout = vkh_pipeline_layout(vk, NULL, 0, sizeof(struct matrix));
    d->sky_layout = vkh_pipeline_layout(vk, NULL, 0, QUAD_PUSH_SIZE);
    create_pipelines(d);
    return d;
}

/* ---- a frame ---- */

static void bind_meshes(const struct demo *d, VkCommandBuffer commands)
{
    const VkDeviceSize zero = 0;
    vkCmdBindVertexBuffers(commands, 0, 1, &d->vertices.buffer, &zero);
    vkCmdBindIndexBuffer(commands, d->indices.buffer, 0, VK_INDEX_TYPE_UINT16);
}

static void record_shadow(const struct demo *d, VkCommandBuffer commands, const struct matrix *knot)
{
    const VkClearValue clear = {.depthStencil = {1.0f, 0}};
    const struct matrix transform = multiply(&d->light, knot);
    const VkRenderPassBeginInfo info = {
        .sType = VK_STRUCTURE_TYPE_RENDER_PASS_BEGIN_INFO,
        .renderPass = d->shadow_pass,
        .framebuffer = d->shadow_framebuffer,
        .renderArea = {{0, 0}, {SHADOW_SIZE, SHADOW_SIZE}},
        .clearValueCount = 1,
        .pClearValues = &clear,
    };
    vkCmdBeginRenderPass(commands, &info, VK_SUBPASS_CONTENTS_INLINE);
    vkh_viewport(commands, SHADOW_SIZE, SHADOW_SIZE);
    vkCmdBindPipeline(commands, VK_PIPELINE_BIND_POINT_GRAPHICS, d->shadow);
    bind_meshes(d, commands);
    vkCmdPushConstants(commands, d->shadow_layout, VK_SHADER_STAGE_ALL, 0, sizeof(transform),
                       &transform);
    vkCmdDrawIndexed(commands, KNOT_INDEX_COUNT, 1, 0, 0, 0);
    vkCmdEndRenderPass(commands);
}

static void push_draw(const struct demo *d, VkCommandBuffer commands,
                      const struct matrix *transform, const float turn[4])
{
    struct draw_push push = {.transform = *transform};
    memcpy(push.turn, turn, sizeof(push.turn));
    vkCmdPushConstants(commands, d->layout, VK_SHADER_STAGE_ALL, 0, sizeof(push), &push);
}

static void record_demo(void *state, VkCommandBuffer commands, uint32_t frame)
{
    struct demo *d = state;
    const float turn[4] = {0.55f + (float)frame * 0.03f, 0.35f + (float)frame * 0.011f, knot_height,
                           0};
    const float floor_turn[4] = {0, 0, 0, 1};
    const struct matrix knot = model(turn[0], turn[1], turn[2]);
    const struct matrix mirror = {{1, 0, 0, 0, 0, -1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1}};
    const struct matrix mirrored = multiply(&mirror, &knot);
    const struct matrix to_clip = multiply(&d->view, &knot);
    const struct matrix mirrored_to_clip = multiply(&d->view, &mirrored);
    record_shadow(d, commands, &knot);
    canvas_begin(&d->canvas, commands);
    vkCmdBindPipeline(commands, VK_PIPELINE_BIND_POINT_GRAPHICS, d->sky);
    draw_full(commands, d->sky_layout);
    vkCmdBindPipeline(commands, VK_PIPELINE_BIND_POINT_GRAPHICS, d->lit);
    vkCmdBindDescriptorSets(commands, VK_PIPELINE_BIND_POINT_GRAPHICS, d->layout, 0, 1, &d->set.set,
                            0, NULL);
    bind_meshes(d, commands);
    push_draw(d, commands, &mirrored_to_clip, turn);
    vkCmdDrawIndexed(commands, KNOT_INDEX_COUNT, 1, 0, 0, 0);
    push_draw(d, commands, &d->view, floor_turn);
    vkCmdDrawIndexed(commands, FLOOR_INDEX_COUNT, 1, KNOT_INDEX_COUNT, 0, 0);
    push_draw(d, commands, &to_clip, turn);
    vkCmdDrawIndexed(commands, KNOT_INDEX_COUNT, 1, 0, 0, 0);
    vkCmdEndRenderPass(commands);
}

const struct scene scenes_demo[] = {
    {"demo", "a torus knot over a mirroring floor: the picture of the README", setup_demo,
     record_demo, NULL, NULL},
    {0},
};
