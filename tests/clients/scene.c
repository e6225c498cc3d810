#include "scene.h"

#include <stdlib.h>

static const float background[4] = {0.05f, 0.06f, 0.09f, 1.0f};

static VkImageView add_attachment(struct canvas *canvas, VkFormat format, VkImageUsageFlags usage,
                                  VkSampleCountFlagBits samples)
{
    const struct vkh_image_params params = {
        .format = format,
        .width = canvas->width,
        .height = canvas->height,
        .samples = samples,
        .usage = usage,
    };
    return vkh_image(canvas->vk, &params).view;
}

void canvas_init(struct canvas *canvas, struct vkh *vk, const struct vkh_image *target,
                 VkFormat depth_format, VkSampleCountFlagBits samples)
{
    *canvas = (struct canvas){
        .vk = vk,
        .target = target,
        .width = target->extent.width,
        .height = target->extent.height,
    };
    const struct vkh_pass_params params = {
        .color = target->format,
        .depth = depth_format,
        .samples = samples,
        .final_layout = VK_IMAGE_LAYOUT_TRANSFER_SRC_OPTIMAL,
    };
    canvas->pass = vkh_render_pass(vk, &params);
    VkImageView views[3];
    uint32_t count = 0;
    bool resolve = samples > VK_SAMPLE_COUNT_1_BIT;
    views[count++] = resolve ? add_attachment(canvas, target->format,
                                              VK_IMAGE_USAGE_COLOR_ATTACHMENT_BIT, samples)
                             : target->view;
    if (depth_format != VK_FORMAT_UNDEFINED)
        views[count++] = add_attachment(canvas, depth_format,
                                        VK_IMAGE_USAGE_DEPTH_STENCIL_ATTACHMENT_BIT, samples);
    if (resolve)
        views[count++] = target->view;
    canvas->framebuffer =
        vkh_framebuffer(vk, canvas->pass, views, count, canvas->width, canvas->height);
}

void canvas_begin(const struct canvas *canvas, VkCommandBuffer commands)
{
    vkh_begin_pass(commands, canvas->pass, canvas->framebuffer, canvas->width, canvas->height,
                   background, VK_SUBPASS_CONTENTS_INLINE);
}

void draw_quad(VkCommandBuffer commands, VkPipelineLayout layout, const struct quad *quad)
{
    vkCmdPushConstants(commands, layout, VK_SHADER_STAGE_ALL, 0, sizeof(*quad), quad);
    vkCmdDraw(commands, 6, 1, 0, 0);
}

void draw_full(VkCommandBuffer commands, VkPipelineLayout layout)
{
    const struct quad full = {.rect = {-1, -1, 1, 1}, .color = {1, 1, 1, 1}, .depth = 0.5f};
    draw_quad(commands, layout, &full);
}

void *scene_alloc(size_t size)
{
    void *memory = calloc(1, size);
    if (!memory)
        vkh_fail("out of memory");
    return memory;
}

float scene_random(uint32_t *seed)
{
    *seed = *seed * 1664525u + 1013904223u;
    return (float)(*seed >> 8) / 16777216.0f;
}

struct vkh_image scene_texture(struct vkh *vk, uint32_t size, uint32_t variant)
{
    const struct vkh_image_params params = {
        .format = VK_FORMAT_R8G8B8A8_UNORM,
        .width = size,
        .height = size,
        .mip_levels = 32u - (uint32_t)__builtin_clz(size),
        .usage = VK_IMAGE_USAGE_SAMPLED_BIT | VK_IMAGE_USAGE_TRANSFER_SRC_BIT |
                 VK_IMAGE_USAGE_TRANSFER_DST_BIT,
    };
    struct vkh_image image = vkh_image(vk, &params);
    uint8_t *texels = scene_alloc((size_t)size * size * 4);
    uint32_t seed = variant * 2654435761u + 1;
    for (uint32_t i = 0; i < size * size; i++) {
        uint32_t x = i % size, y = i / size;
        uint32_t tile = (x * 8 / size + y * 8 / size + variant) & 1;
        uint8_t noise = (uint8_t)(scene_random(&seed) * 40.0f);
        texels[i * 4 + 0] = (uint8_t)((tile ? 210 : 30 + variant * 37 % 160) + noise);
        texels[i * 4 + 1] = (uint8_t)((tile ? 190 - variant * 53 % 150 : 60) + noise);
        texels[i * 4 + 2] = (uint8_t)((tile ? 150 : 110 + variant * 11 % 90) + noise);
        texels[i * 4 + 3] = 255;
    }
    vkh_image_upload(vk, &image, texels, (VkDeviceSize)size * size * 4);
    free(texels);
    return image;
}

float scene_angle(uint32_t frame)
{
    return 0.4f + (float)frame * 0.05f;
}
