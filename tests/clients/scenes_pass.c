/* Scenes about render passes: several of them, subpasses, none, and secondary command buffers. */
#include "scene.h"

#include <math.h>

static void bind_set(VkCommandBuffer commands, VkPipelineLayout layout, const struct vkh_set *set)
{
    vkCmdBindDescriptorSets(commands, VK_PIPELINE_BIND_POINT_GRAPHICS, layout, 0, 1, &set->set, 0,
                            NULL);
}

static void draw_discs(VkCommandBuffer commands, VkPipelineLayout layout, uint32_t frame,
                       uint32_t count, uint32_t seed)
{
    for (uint32_t i = 0; i < count; i++) {
        float x = scene_random(&seed) * 2 - 1 + 0.1f * sinf(scene_angle(frame + i));
        float y = scene_random(&seed) * 2 - 1;
        float size = 0.1f + 0.3f * scene_random(&seed);
        const struct quad quad = {
            .rect = {x - size, y - size, x + size, y + size},
            .color = {scene_random(&seed), scene_random(&seed), scene_random(&seed), 0.8f},
            .depth = 0.5f,
        };
        draw_quad(commands, layout, &quad);
    }
}

/* ---- dynamic-rendering ---- */

struct dynamic {
    const struct vkh_image *target;
    struct vkh_image samples;
    VkPipelineLayout layout;
    VkPipeline pipeline;
};

static void *setup_dynamic(struct vkh *vk, const struct vkh_image *target)
{
    if (!vk->features13.dynamicRendering || !vk->features13.synchronization2)
        vkh_skip("%s has no dynamicRendering or synchronization2", vk->properties.deviceName);
    struct dynamic *d = scene_alloc(sizeof(*d));
    d->target = target;
    const struct vkh_image_params samples = {
        .format = target->format,
        .width = target->extent.width,
        .height = target->extent.height,
        .samples = VK_SAMPLE_COUNT_4_BIT,
        .usage = VK_IMAGE_USAGE_COLOR_ATTACHMENT_BIT,
    };
    d->samples = vkh_image(vk, &samples);
    d->layout = vkh_pipeline_layout(vk, NULL, 0, QUAD_PUSH_SIZE);
    const struct vkh_pipeline_params params = {
        .vertex = &quad_vert,
        .fragment = &disc_frag,
        .layout = d->layout,
        .color_format = target->format,
        .samples = VK_SAMPLE_COUNT_4_BIT,
        .blend = VKH_BLEND_ALPHA,
    };
    d->pipeline = vkh_graphics_pipeline(vk, &params);
    return d;
}

static void barrier2(VkCommandBuffer commands, const struct vkh_image *image, VkImageLayout from,
                     VkImageLayout to)
{
    const VkImageMemoryBarrier2 barrier = {
        .sType = VK_STRUCTURE_TYPE_IMAGE_MEMORY_BARRIER_2,
        .srcStageMask = VK_PIPELINE_STAGE_2_ALL_COMMANDS_BIT,
        .srcAccessMask = VK_ACCESS_2_MEMORY_WRITE_BIT,
        .dstStageMask = VK_PIPELINE_STAGE_2_ALL_COMMANDS_BIT,
        .dstAccessMask = VK_ACCESS_2_MEMORY_READ_BIT | VK_ACCESS_2_MEMORY_WRITE_BIT,
        .oldLayout = from,
        .newLayout = to,
        .srcQueueFamilyIndex = VK_QUEUE_FAMILY_IGNORED,
        .dstQueueFamilyIndex = VK_QUEUE_FAMILY_IGNORED,
        .image = image->image,
        .subresourceRange = {image->aspect, 0, 1, 0, 1},
    };
    const VkDependencyInfo info = {
        .sType = VK_STRUCTURE_TYPE_DEPENDENCY_INFO,
        .imageMemoryBarrierCount = 1,
        .pImageMemoryBarriers = &barrier,
    };
    vkCmdPipelineBarrier2(commands, &info);
}

static void record_dynamic(void *state, VkCommandBuffer commands, uint32_t frame)
{
    struct dynamic *d = state;
    const VkImageLayout drawing = VK_IMAGE_LAYOUT_COLOR_ATTACHMENT_OPTIMAL;
    barrier2(commands, &d->samples, VK_IMAGE_LAYOUT_UNDEFINED, drawing);
    barrier2(commands, d->target, VK_IMAGE_LAYOUT_UNDEFINED, drawing);
    const VkRenderingAttachmentInfo color = {
        .sType = VK_STRUCTURE_TYPE_RENDERING_ATTACHMENT_INFO,
        .imageView = d->samples.view,
        .imageLayout = drawing,
        .resolveMode = VK_RESOLVE_MODE_AVERAGE_BIT,
        .resolveImageView = d->target->view,
        .resolveImageLayout = drawing,
        .loadOp = VK_ATTACHMENT_LOAD_OP_CLEAR,
        .storeOp = VK_ATTACHMENT_STORE_OP_DONT_CARE,
        .clearValue = {.color = {.float32 = {0.1f, 0.15f, 0.1f, 1}}},
    };
    const VkRenderingInfo info = {
        .sType = VK_STRUCTURE_TYPE_RENDERING_INFO,
        .renderArea = {{0, 0}, {d->target->extent.width, d->target->extent.height}},
        .layerCount = 1,
        .colorAttachmentCount = 1,
        .pColorAttachments = &color,
    };
    vkCmdBeginRendering(commands, &info);
    vkh_viewport(commands, d->target->extent.width, d->target->extent.height);
    vkCmdBindPipeline(commands, VK_PIPELINE_BIND_POINT_GRAPHICS, d->pipeline);
    draw_discs(commands, d->layout, frame, 40, 3);
    vkCmdEndRendering(commands);
    barrier2(commands, d->target, drawing, VK_IMAGE_LAYOUT_TRANSFER_SRC_OPTIMAL);
}

/* ---- multi-pass: subpasses and an input attachment ---- */

struct passes {
    const struct vkh_image *target;
    uint32_t width, height;
    struct vkh_image between;
    VkRenderPass first_pass; /* of two subpasses, or the first of two passes */
    VkFramebuffer first_framebuffer;
    struct canvas canvas; /* render-to-texture: the second pass */
    struct vkh_set set;
    VkPipelineLayout plain_layout, set_layout;
    VkPipeline draw, finish;
};

static struct passes *passes_create(struct vkh *vk, const struct vkh_image *target,
                                    VkImageUsageFlags usage)
{
    struct passes *p = scene_alloc(sizeof(*p));
    p->target = target;
    p->width = target->extent.width;
    p->height = target->extent.height;
    const struct vkh_image_params between = {
        .format = VK_FORMAT_R8G8B8A8_UNORM,
        .width = p->width,
        .height = p->height,
        .usage = VK_IMAGE_USAGE_COLOR_ATTACHMENT_BIT | usage,
    };
    p->between = vkh_image(vk, &between);
    p->plain_layout = vkh_pipeline_layout(vk, NULL, 0, QUAD_PUSH_SIZE);
    return p;
}

static VkRenderPass create_two_subpasses(struct vkh *vk, VkFormat between, VkFormat target)
{
    VkAttachmentDescription attachments[2] = {
        {
            .format = between,
            .samples = VK_SAMPLE_COUNT_1_BIT,
            .loadOp = VK_ATTACHMENT_LOAD_OP_CLEAR,
            .storeOp = VK_ATTACHMENT_STORE_OP_DONT_CARE,
            .finalLayout = VK_IMAGE_LAYOUT_SHADER_READ_ONLY_OPTIMAL,
        },
        {
            .format = target,
            .samples = VK_SAMPLE_COUNT_1_BIT,
            .loadOp = VK_ATTACHMENT_LOAD_OP_DONT_CARE,
            .storeOp = VK_ATTACHMENT_STORE_OP_STORE,
            .finalLayout = VK_IMAGE_LAYOUT_TRANSFER_SRC_OPTIMAL,
        },
    };
    const VkAttachmentReference between_out = {0, VK_IMAGE_LAYOUT_COLOR_ATTACHMENT_OPTIMAL};
    const VkAttachmentReference between_in = {0, VK_IMAGE_LAYOUT_SHADER_READ_ONLY_OPTIMAL};
    const VkAttachmentReference target_out = {1, VK_IMAGE_LAYOUT_COLOR_ATTACHMENT_OPTIMAL};
    const VkSubpassDescription subpasses[2] = {
        {.colorAttachmentCount = 1, .pColorAttachments = &between_out},
        {
            .inputAttachmentCount = 1,
            .pInputAttachments = &between_in,
            .colorAttachmentCount = 1,
            .pColorAttachments = &target_out,
        },
    };
    const VkPipelineStageFlags all = VK_PIPELINE_STAGE_ALL_COMMANDS_BIT;
    const VkAccessFlags write = VK_ACCESS_MEMORY_WRITE_BIT;
    const VkAccessFlags access = VK_ACCESS_MEMORY_READ_BIT | VK_ACCESS_MEMORY_WRITE_BIT;
    const VkSubpassDependency dependencies[] = {
        {VK_SUBPASS_EXTERNAL, 0, all, all, write, access, 0},
        {0, 1, VK_PIPELINE_STAGE_COLOR_ATTACHMENT_OUTPUT_BIT, VK_PIPELINE_STAGE_FRAGMENT_SHADER_BIT,
         VK_ACCESS_COLOR_ATTACHMENT_WRITE_BIT, VK_ACCESS_INPUT_ATTACHMENT_READ_BIT,
         VK_DEPENDENCY_BY_REGION_BIT},
        {1, VK_SUBPASS_EXTERNAL, all, all, write, access, 0},
    };
    const VkRenderPassCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_RENDER_PASS_CREATE_INFO,
        .attachmentCount = 2,
        .pAttachments = attachments,
        .subpassCount = 2,
        .pSubpasses = subpasses,
        .dependencyCount = VKH_COUNT(dependencies),
        .pDependencies = dependencies,
    };
    VkRenderPass pass;
    VKH_CHECK(vkCreateRenderPass(vk->device, &info, NULL, &pass));
    VKH_KEEP(vk, RENDER_PASS, pass);
    return pass;
}

static void *setup_multi_pass(struct vkh *vk, const struct vkh_image *target)
{
    struct passes *p = passes_create(vk, target, VK_IMAGE_USAGE_INPUT_ATTACHMENT_BIT);
    const VkImageView views[2] = {p->between.view, target->view};
    p->first_pass = create_two_subpasses(vk, p->between.format, target->format);
    p->first_framebuffer = vkh_framebuffer(vk, p->first_pass, views, 2, p->width, p->height);
    const VkDescriptorType type = VK_DESCRIPTOR_TYPE_INPUT_ATTACHMENT;
    p->set = vkh_set(vk, &type, 1);
    vkh_set_image(vk, p->set.set, 0, type, p->between.view, VK_NULL_HANDLE,
                  VK_IMAGE_LAYOUT_SHADER_READ_ONLY_OPTIMAL);
    p->set_layout = vkh_pipeline_layout(vk, &p->set.layout, 1, QUAD_PUSH_SIZE);
    const struct vkh_pipeline_params draw = {
        .vertex = &quad_vert,
        .fragment = &disc_frag,
        .layout = p->plain_layout,
        .pass = p->first_pass,
        .blend = VKH_BLEND_ALPHA,
    };
    const struct vkh_pipeline_params finish = {
        .vertex = &quad_vert,
        .fragment = &input_frag,
        .layout = p->set_layout,
        .pass = p->first_pass,
        .subpass = 1,
    };
    p->draw = vkh_graphics_pipeline(vk, &draw);
    p->finish = vkh_graphics_pipeline(vk, &finish);
    return p;
}

static void begin_first(struct passes *p, VkCommandBuffer commands)
{
    static const float clear[4] = {0.2f, 0.3f, 0.5f, 1};
    vkh_begin_pass(commands, p->first_pass, p->first_framebuffer, p->width, p->height, clear,
                   VK_SUBPASS_CONTENTS_INLINE);
    vkCmdBindPipeline(commands, VK_PIPELINE_BIND_POINT_GRAPHICS, p->draw);
}

static void record_multi_pass(void *state, VkCommandBuffer commands, uint32_t frame)
{
    struct passes *p = state;
    begin_first(p, commands);
    draw_discs(commands, p->plain_layout, frame, 30, 5);
    vkCmdNextSubpass(commands, VK_SUBPASS_CONTENTS_INLINE);
    vkCmdBindPipeline(commands, VK_PIPELINE_BIND_POINT_GRAPHICS, p->finish);
    bind_set(commands, p->set_layout, &p->set);
    draw_full(commands, p->set_layout);
    vkCmdEndRenderPass(commands);
}

/* ---- render-to-texture ---- */

static void *setup_render_to_texture(struct vkh *vk, const struct vkh_image *target)
{
    struct passes *p = passes_create(vk, target, VK_IMAGE_USAGE_SAMPLED_BIT);
    const struct vkh_pass_params first = {
        .color = p->between.format,
        .final_layout = VK_IMAGE_LAYOUT_SHADER_READ_ONLY_OPTIMAL,
    };
    p->first_pass = vkh_render_pass(vk, &first);
    p->first_framebuffer =
        vkh_framebuffer(vk, p->first_pass, &p->between.view, 1, p->width, p->height);
    canvas_init(&p->canvas, vk, target, VK_FORMAT_UNDEFINED, VK_SAMPLE_COUNT_1_BIT);
    const VkDescriptorType type = VK_DESCRIPTOR_TYPE_COMBINED_IMAGE_SAMPLER;
    p->set = vkh_set(vk, &type, 1);
    vkh_set_image(vk, p->set.set, 0, type, p->between.view,
                  vkh_sampler(vk, VK_FILTER_LINEAR, VK_SAMPLER_ADDRESS_MODE_MIRRORED_REPEAT),
                  VK_IMAGE_LAYOUT_SHADER_READ_ONLY_OPTIMAL);
    p->set_layout = vkh_pipeline_layout(vk, &p->set.layout, 1, QUAD_PUSH_SIZE);
    const struct vkh_pipeline_params draw = {
        .vertex = &quad_vert,
        .fragment = &disc_frag,
        .layout = p->plain_layout,
        .pass = p->first_pass,
        .blend = VKH_BLEND_ALPHA,
    };
    const struct vkh_pipeline_params finish = {
        .vertex = &quad_vert,
        .fragment = &blur_frag,
        .layout = p->set_layout,
        .pass = p->canvas.pass,
    };
    p->draw = vkh_graphics_pipeline(vk, &draw);
    p->finish = vkh_graphics_pipeline(vk, &finish);
    return p;
}

static void record_render_to_texture(void *state, VkCommandBuffer commands, uint32_t frame)
{
    struct passes *p = state;
    begin_first(p, commands);
    draw_discs(commands, p->plain_layout, frame, 30, 11);
    vkCmdEndRenderPass(commands);
    canvas_begin(&p->canvas, commands);
    vkCmdBindPipeline(commands, VK_PIPELINE_BIND_POINT_GRAPHICS, p->finish);
    bind_set(commands, p->set_layout, &p->set);
    draw_full(commands, p->set_layout);
    vkCmdEndRenderPass(commands);
}

/* ---- secondary-cmdbufs ---- */

enum { SECONDARY_COUNT = 4 };

struct secondary {
    struct canvas canvas;
    VkPipelineLayout layout;
    VkPipeline pipeline;
    VkCommandBuffer parts[SECONDARY_COUNT];
};

static void record_part(struct secondary *s, uint32_t index)
{
    const VkCommandBufferInheritanceInfo inheritance = {
        .sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_INHERITANCE_INFO,
        .renderPass = s->canvas.pass,
        .framebuffer = s->canvas.framebuffer,
    };
    const VkCommandBufferBeginInfo begin = {
        .sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO,
        .flags = VK_COMMAND_BUFFER_USAGE_RENDER_PASS_CONTINUE_BIT |
                 VK_COMMAND_BUFFER_USAGE_SIMULTANEOUS_USE_BIT,
        .pInheritanceInfo = &inheritance,
    };
    VKH_CHECK(vkBeginCommandBuffer(s->parts[index], &begin));
    vkh_viewport(s->parts[index], s->canvas.width, s->canvas.height);
    vkCmdBindPipeline(s->parts[index], VK_PIPELINE_BIND_POINT_GRAPHICS, s->pipeline);
    draw_discs(s->parts[index], s->layout, index, 16, index + 20);
    VKH_CHECK(vkEndCommandBuffer(s->parts[index]));
}

static void *setup_secondary(struct vkh *vk, const struct vkh_image *target)
{
    struct secondary *s = scene_alloc(sizeof(*s));
    canvas_init(&s->canvas, vk, target, VK_FORMAT_UNDEFINED, VK_SAMPLE_COUNT_1_BIT);
    s->layout = vkh_pipeline_layout(vk, NULL, 0, QUAD_PUSH_SIZE);
    const struct vkh_pipeline_params params = {
        .vertex = &quad_vert,
        .fragment = &disc_frag,
        .layout = s->layout,
        .pass = s->canvas.pass,
        .blend = VKH_BLEND_ALPHA,
    };
    s->pipeline = vkh_graphics_pipeline(vk, &params);
    for (uint32_t i = 0; i < SECONDARY_COUNT; i++) {
        s->parts[i] = vkh_command_buffer(vk, VK_COMMAND_BUFFER_LEVEL_SECONDARY);
        record_part(s, i);
    }
    return s;
}

static void record_secondary(void *state, VkCommandBuffer commands, uint32_t frame)
{
    struct secondary *s = state;
    static const float clear[4] = {0.15f, 0.1f, 0.15f, 1};
    /* Another order each frame: discs cover each other differently. */
    VkCommandBuffer parts[SECONDARY_COUNT];
    for (uint32_t i = 0; i < SECONDARY_COUNT; i++)
        parts[i] = s->parts[(i + frame) % SECONDARY_COUNT];
    vkh_begin_pass(commands, s->canvas.pass, s->canvas.framebuffer, s->canvas.width,
                   s->canvas.height, clear, VK_SUBPASS_CONTENTS_SECONDARY_COMMAND_BUFFERS);
    vkCmdExecuteCommands(commands, SECONDARY_COUNT - 1, parts);
    vkCmdExecuteCommands(commands, 1, &parts[SECONDARY_COUNT - 1]);
    vkCmdEndRenderPass(commands);
}

const struct scene scenes_pass[] = {
    {"dynamic-rendering", "no render pass object, resolve, barriers of synchronization2",
     setup_dynamic, record_dynamic, NULL, NULL},
    {"multi-pass", "two subpasses, input attachment", setup_multi_pass, record_multi_pass, NULL,
     NULL},
    {"render-to-texture", "two passes, the second one samples the first", setup_render_to_texture,
     record_render_to_texture, NULL, NULL},
    {"secondary-cmdbufs", "four secondary command buffers", setup_secondary, record_secondary, NULL,
     NULL},
    {0},
};
