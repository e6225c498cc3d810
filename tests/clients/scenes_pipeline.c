/* Scenes about pipelines and descriptors. */
#include "scene.h"

#include <stdlib.h>
#include <string.h>

/* Shared by the scenes here: one set, one layout, up to four pipelines. */
struct board {
    struct vkh *vk;
    struct canvas canvas;
    struct vkh_set set;
    VkPipelineLayout layout;
    VkPipeline pipelines[4];
    struct vkh_image textures[16];
    VkSampler sampler;
};

static struct board *board_create(struct vkh *vk, const struct vkh_image *target,
                                  const VkDescriptorType *types, uint32_t count)
{
    struct board *b = scene_alloc(sizeof(*b));
    b->vk = vk;
    canvas_init(&b->canvas, vk, target, VK_FORMAT_UNDEFINED, VK_SAMPLE_COUNT_1_BIT);
    if (count)
        b->set = vkh_set(vk, types, count);
    b->layout = vkh_pipeline_layout(vk, &b->set.layout, count ? 1 : 0, QUAD_PUSH_SIZE);
    return b;
}

static struct vkh_pipeline_params board_params(const struct board *b,
                                               const struct vkh_shader *fragment)
{
    return (struct vkh_pipeline_params){
        .vertex = &quad_vert,
        .fragment = fragment,
        .layout = b->layout,
        .pass = b->canvas.pass,
    };
}

static void bind_board(const struct board *b, VkCommandBuffer commands)
{
    vkCmdBindPipeline(commands, VK_PIPELINE_BIND_POINT_GRAPHICS, b->pipelines[0]);
    if (b->set.set)
        vkCmdBindDescriptorSets(commands, VK_PIPELINE_BIND_POINT_GRAPHICS, b->layout, 0, 1,
                                &b->set.set, 0, NULL);
}

static void record_full(void *state, VkCommandBuffer commands, uint32_t frame)
{
    struct board *b = state;
    (void)frame;
    canvas_begin(&b->canvas, commands);
    bind_board(b, commands);
    draw_full(commands, b->layout);
    vkCmdEndRenderPass(commands);
}

/* Each pipeline in a quarter of the picture. */
static void record_quarters(void *state, VkCommandBuffer commands, uint32_t frame)
{
    struct board *b = state;
    (void)frame;
    canvas_begin(&b->canvas, commands);
    for (uint32_t i = 0; i < 4; i++) {
        float x = (float)(i % 2) - 1, y = (float)(i / 2) - 1;
        const struct quad quad = {.rect = {x, y, x + 1, y + 1}, .color = {1, 1, 1, 1}};
        vkCmdBindPipeline(commands, VK_PIPELINE_BIND_POINT_GRAPHICS, b->pipelines[i]);
        draw_quad(commands, b->layout, &quad);
    }
    vkCmdEndRenderPass(commands);
}

/* ---- specialization, pipeline-cache ---- */

struct variant {
    int32_t pattern;
    float scale;
    VkBool32 inverted;
};

static const VkSpecializationMapEntry variant_entries[] = {
    {0, offsetof(struct variant, pattern), 4},
    {1, offsetof(struct variant, scale), 4},
    {2, offsetof(struct variant, inverted), 4},
};

static VkPipeline create_variant(struct board *b, const struct variant *variant,
                                 VkPipelineCache cache)
{
    const VkSpecializationInfo constants = {VKH_COUNT(variant_entries), variant_entries,
                                            sizeof(*variant), variant};
    struct vkh_pipeline_params params = board_params(b, &variants_frag);
    params.fragment_constants = &constants;
    params.cache = cache;
    return vkh_graphics_pipeline(b->vk, &params);
}

static const struct variant quarters[4] = {
    {0, 3.0f, VK_FALSE}, {1, 8.0f, VK_TRUE}, {2, 4.0f, VK_FALSE}, {5, 2.0f, VK_TRUE}};

static void *setup_specialization(struct vkh *vk, const struct vkh_image *target)
{
    struct board *b = board_create(vk, target, NULL, 0);
    for (uint32_t i = 0; i < 4; i++)
        b->pipelines[i] = create_variant(b, &quarters[i], VK_NULL_HANDLE);
    return b;
}

static VkPipelineCache create_cache(struct vkh *vk, const void *data, size_t size)
{
    const VkPipelineCacheCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_PIPELINE_CACHE_CREATE_INFO,
        .initialDataSize = size,
        .pInitialData = data,
    };
    VkPipelineCache cache;
    VKH_CHECK(vkCreatePipelineCache(vk->device, &info, NULL, &cache));
    VKH_KEEP(vk, PIPELINE_CACHE, cache);
    return cache;
}

/* Pipelines made with a cache, and again with a second one made from the first one's data. */
static void *setup_pipeline_cache(struct vkh *vk, const struct vkh_image *target)
{
    struct board *b = board_create(vk, target, NULL, 0);
    VkPipelineCache first = create_cache(vk, NULL, 0);
    for (uint32_t i = 0; i < 2; i++)
        b->pipelines[i] = create_variant(b, &quarters[i], first);
    size_t size = 0;
    VKH_CHECK(vkGetPipelineCacheData(vk->device, first, &size, NULL));
    if (size < sizeof(VkPipelineCacheHeaderVersionOne))
        vkh_fail("a pipeline cache of %zu bytes has no header", size);
    void *data = scene_alloc(size);
    VkResult result = vkGetPipelineCacheData(vk->device, first, &size, data);
    /* Mesa's Venus before 26.2 calls a cache that holds nothing but its header incomplete. */
    if (result != VK_SUCCESS && result != VK_INCOMPLETE)
        vkh_fail("vkGetPipelineCacheData: %s", vkh_result_name(result));
    if (result == VK_SUCCESS) {
        VkPipelineCacheHeaderVersionOne header;
        memcpy(&header, data, sizeof(header));
        if (header.headerVersion != VK_PIPELINE_CACHE_HEADER_VERSION_ONE ||
            header.vendorID != vk->properties.vendorID ||
            header.deviceID != vk->properties.deviceID ||
            memcmp(header.pipelineCacheUUID, vk->properties.pipelineCacheUUID, VK_UUID_SIZE) != 0)
            vkh_fail("the header of the pipeline cache does not name this device");
    }
    VkPipelineCache second = create_cache(vk, data, result == VK_SUCCESS ? size : 0);
    for (uint32_t i = 2; i < 4; i++)
        b->pipelines[i] = create_variant(b, &quarters[i - 2], second);
    free(data);
    return b;
}

/* ---- tessellation, geometry ---- */

static void *setup_tessellation(struct vkh *vk, const struct vkh_image *target)
{
    if (!vk->features.tessellationShader)
        vkh_skip("%s has no tessellationShader", vk->properties.deviceName);
    struct board *b = board_create(vk, target, NULL, 0);
    struct vkh_pipeline_params params = board_params(b, &color_frag);
    params.vertex = &tess_vert;
    params.tess_control = &tess_tesc;
    params.tess_evaluation = &tess_tese;
    params.topology = VK_PRIMITIVE_TOPOLOGY_PATCH_LIST;
    params.patch_size = 4;
    b->pipelines[0] = vkh_graphics_pipeline(vk, &params);
    return b;
}

static void *setup_geometry(struct vkh *vk, const struct vkh_image *target)
{
    if (!vk->features.geometryShader)
        vkh_skip("%s has no geometryShader", vk->properties.deviceName);
    struct board *b = board_create(vk, target, NULL, 0);
    struct vkh_pipeline_params params = board_params(b, &color_frag);
    params.vertex = &triangle_vert;
    params.geometry = &spikes_geom;
    b->pipelines[0] = vkh_graphics_pipeline(vk, &params);
    return b;
}

static void record_vertices(struct board *b, VkCommandBuffer commands, uint32_t frame,
                            uint32_t count)
{
    const float angle = scene_angle(frame);
    canvas_begin(&b->canvas, commands);
    bind_board(b, commands);
    vkCmdPushConstants(commands, b->layout, VK_SHADER_STAGE_ALL, 0, sizeof(angle), &angle);
    vkCmdDraw(commands, count, 1, 0, 0);
    vkCmdEndRenderPass(commands);
}

static void record_tessellation(void *state, VkCommandBuffer commands, uint32_t frame)
{
    record_vertices(state, commands, frame, 4);
}

static void record_geometry(void *state, VkCommandBuffer commands, uint32_t frame)
{
    record_vertices(state, commands, frame, 3);
}

/* ---- image-types ---- */

static struct vkh_image layered_image(struct vkh *vk, bool cube, uint32_t layers, uint32_t depth)
{
    enum { SIZE = 32 };
    const struct vkh_image_params params = {
        .format = VK_FORMAT_R8G8B8A8_UNORM,
        .width = SIZE,
        .height = SIZE,
        .depth = depth,
        .layer_count = layers,
        .cube = cube,
        .usage = VK_IMAGE_USAGE_SAMPLED_BIT | VK_IMAGE_USAGE_TRANSFER_DST_BIT,
    };
    struct vkh_image image = vkh_image(vk, &params);
    size_t count = (size_t)SIZE * SIZE * layers * depth;
    uint8_t *texels = scene_alloc(count * 4);
    for (size_t i = 0; i < count; i++) {
        size_t slice = i / (SIZE * SIZE), x = i % SIZE, y = i / SIZE % SIZE;
        texels[i * 4 + 0] = (uint8_t)(x * 8);
        texels[i * 4 + 1] = (uint8_t)(y * 8);
        texels[i * 4 + 2] = (uint8_t)(slice * 40);
        texels[i * 4 + 3] = 255;
    }
    vkh_image_upload(vk, &image, texels, count * 4);
    free(texels);
    return image;
}

static void *setup_image_types(struct vkh *vk, const struct vkh_image *target)
{
    const VkDescriptorType type = VK_DESCRIPTOR_TYPE_COMBINED_IMAGE_SAMPLER;
    const VkDescriptorType types[3] = {type, type, type};
    struct board *b = board_create(vk, target, types, 3);
    b->sampler = vkh_sampler(vk, VK_FILTER_LINEAR, VK_SAMPLER_ADDRESS_MODE_REPEAT);
    b->textures[0] = layered_image(vk, true, 6, 1);
    b->textures[1] = layered_image(vk, false, 4, 1);
    b->textures[2] = layered_image(vk, false, 1, 8);
    for (uint32_t i = 0; i < 3; i++)
        vkh_set_image(vk, b->set.set, i, type, b->textures[i].view, b->sampler,
                      VK_IMAGE_LAYOUT_SHADER_READ_ONLY_OPTIMAL);
    struct vkh_pipeline_params params = board_params(b, &sky_frag);
    b->pipelines[0] = vkh_graphics_pipeline(vk, &params);
    return b;
}

/* ---- texel-buffer ---- */

static VkBufferView texel_view(struct vkh *vk, const void *data, size_t size, VkFormat format)
{
    struct vkh_buffer buffer =
        vkh_buffer_with(vk, data, size, VK_BUFFER_USAGE_UNIFORM_TEXEL_BUFFER_BIT);
    const VkBufferViewCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_BUFFER_VIEW_CREATE_INFO,
        .buffer = buffer.buffer,
        .format = format,
        .range = VK_WHOLE_SIZE,
    };
    VkBufferView view;
    VKH_CHECK(vkCreateBufferView(vk->device, &info, NULL, &view));
    VKH_KEEP(vk, BUFFER_VIEW, view);
    return view;
}

static void *setup_texel_buffer(struct vkh *vk, const struct vkh_image *target)
{
    const VkDescriptorType type = VK_DESCRIPTOR_TYPE_UNIFORM_TEXEL_BUFFER;
    const VkDescriptorType types[2] = {type, type};
    struct board *b = board_create(vk, target, types, 2);
    uint8_t colors[64][4], indices[256];
    for (uint32_t i = 0; i < 64; i++) {
        const uint8_t color[4] = {(uint8_t)(i * 4), (uint8_t)(255 - i * 3), (uint8_t)(i * 37), 255};
        memcpy(colors[i], color, sizeof(color));
    }
    for (uint32_t i = 0; i < 256; i++)
        indices[i] = (uint8_t)(i * i / 3 % 64);
    const VkBufferView views[2] = {
        texel_view(vk, colors, sizeof(colors), VK_FORMAT_R8G8B8A8_UNORM),
        texel_view(vk, indices, sizeof(indices), VK_FORMAT_R8_UINT),
    };
    const VkWriteDescriptorSet write = {
        .sType = VK_STRUCTURE_TYPE_WRITE_DESCRIPTOR_SET,
        .dstSet = b->set.set,
        .descriptorCount = 2, /* runs on into binding 1 */
        .descriptorType = type,
        .pTexelBufferView = views,
    };
    vkUpdateDescriptorSets(vk->device, 1, &write, 0, NULL);
    struct vkh_pipeline_params params = board_params(b, &texel_frag);
    b->pipelines[0] = vkh_graphics_pipeline(vk, &params);
    return b;
}

/* ---- update-template ---- */

static void *setup_update_template(struct vkh *vk, const struct vkh_image *target)
{
    const VkDescriptorType type = VK_DESCRIPTOR_TYPE_COMBINED_IMAGE_SAMPLER;
    struct board *b = board_create(vk, target, &type, 1);
    b->sampler = vkh_sampler(vk, VK_FILTER_NEAREST, VK_SAMPLER_ADDRESS_MODE_CLAMP_TO_EDGE);
    b->textures[0] = scene_texture(vk, 64, 3);
    const VkDescriptorUpdateTemplateEntry entry = {
        .descriptorCount = 1,
        .descriptorType = type,
        .offset = 16, /* not the start of the data */
        .stride = sizeof(VkDescriptorImageInfo),
    };
    const VkDescriptorUpdateTemplateCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_DESCRIPTOR_UPDATE_TEMPLATE_CREATE_INFO,
        .descriptorUpdateEntryCount = 1,
        .pDescriptorUpdateEntries = &entry,
        .templateType = VK_DESCRIPTOR_UPDATE_TEMPLATE_TYPE_DESCRIPTOR_SET,
        .descriptorSetLayout = b->set.layout,
    };
    VkDescriptorUpdateTemplate template;
    VKH_CHECK(vkCreateDescriptorUpdateTemplate(vk->device, &info, NULL, &template));
    VKH_KEEP(vk, DESCRIPTOR_UPDATE_TEMPLATE, template);
    const struct {
        char other[16];
        VkDescriptorImageInfo image;
    } data = {"", {b->sampler, b->textures[0].view, VK_IMAGE_LAYOUT_SHADER_READ_ONLY_OPTIMAL}};
    vkUpdateDescriptorSetWithTemplate(vk->device, b->set.set, template, &data);
    struct vkh_pipeline_params params = board_params(b, &texture_frag);
    b->pipelines[0] = vkh_graphics_pipeline(vk, &params);
    return b;
}

/* ---- descriptor-indexing ---- */

enum { TEXTURE_COUNT = 16, TEXTURE_MAX = 64 };

static void require_descriptor_indexing(const struct vkh *vk)
{
    const VkPhysicalDeviceVulkan12Features *f = &vk->features12;
    if (!f->runtimeDescriptorArray || !f->shaderSampledImageArrayNonUniformIndexing ||
        !f->descriptorBindingSampledImageUpdateAfterBind || !f->descriptorBindingPartiallyBound ||
        !f->descriptorBindingVariableDescriptorCount)
        vkh_skip("%s has no descriptor indexing", vk->properties.deviceName);
}

static VkDescriptorSetLayout create_indexing_layout(struct vkh *vk)
{
    const VkDescriptorBindingFlags flags = VK_DESCRIPTOR_BINDING_UPDATE_AFTER_BIND_BIT |
                                           VK_DESCRIPTOR_BINDING_PARTIALLY_BOUND_BIT |
                                           VK_DESCRIPTOR_BINDING_VARIABLE_DESCRIPTOR_COUNT_BIT;
    const VkDescriptorSetLayoutBindingFlagsCreateInfo flags_info = {
        .sType = VK_STRUCTURE_TYPE_DESCRIPTOR_SET_LAYOUT_BINDING_FLAGS_CREATE_INFO,
        .bindingCount = 1,
        .pBindingFlags = &flags,
    };
    const VkDescriptorSetLayoutBinding binding = {
        .descriptorType = VK_DESCRIPTOR_TYPE_COMBINED_IMAGE_SAMPLER,
        .descriptorCount = TEXTURE_MAX,
        .stageFlags = VK_SHADER_STAGE_FRAGMENT_BIT,
    };
    const VkDescriptorSetLayoutCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_DESCRIPTOR_SET_LAYOUT_CREATE_INFO,
        .pNext = &flags_info,
        .flags = VK_DESCRIPTOR_SET_LAYOUT_CREATE_UPDATE_AFTER_BIND_POOL_BIT,
        .bindingCount = 1,
        .pBindings = &binding,
    };
    VkDescriptorSetLayout layout;
    VKH_CHECK(vkCreateDescriptorSetLayout(vk->device, &info, NULL, &layout));
    VKH_KEEP(vk, DESCRIPTOR_SET_LAYOUT, layout);
    return layout;
}

static VkDescriptorSet allocate_indexing_set(struct vkh *vk, VkDescriptorSetLayout layout)
{
    const VkDescriptorPoolSize size = {VK_DESCRIPTOR_TYPE_COMBINED_IMAGE_SAMPLER, TEXTURE_MAX};
    const VkDescriptorPoolCreateInfo pool_info = {
        .sType = VK_STRUCTURE_TYPE_DESCRIPTOR_POOL_CREATE_INFO,
        .flags = VK_DESCRIPTOR_POOL_CREATE_UPDATE_AFTER_BIND_BIT,
        .maxSets = 1,
        .poolSizeCount = 1,
        .pPoolSizes = &size,
    };
    VkDescriptorPool pool;
    VKH_CHECK(vkCreateDescriptorPool(vk->device, &pool_info, NULL, &pool));
    VKH_KEEP(vk, DESCRIPTOR_POOL, pool);
    const uint32_t count = TEXTURE_COUNT + 4; /* the last four are never written */
    const VkDescriptorSetVariableDescriptorCountAllocateInfo variable = {
        .sType = VK_STRUCTURE_TYPE_DESCRIPTOR_SET_VARIABLE_DESCRIPTOR_COUNT_ALLOCATE_INFO,
        .descriptorSetCount = 1,
        .pDescriptorCounts = &count,
    };
    const VkDescriptorSetAllocateInfo info = {
        .sType = VK_STRUCTURE_TYPE_DESCRIPTOR_SET_ALLOCATE_INFO,
        .pNext = &variable,
        .descriptorPool = pool,
        .descriptorSetCount = 1,
        .pSetLayouts = &layout,
    };
    VkDescriptorSet set;
    VKH_CHECK(vkAllocateDescriptorSets(vk->device, &info, &set));
    return set;
}

static void write_textures(struct board *b, uint32_t first, uint32_t count)
{
    VkDescriptorImageInfo images[TEXTURE_COUNT];
    for (uint32_t i = 0; i < count; i++)
        images[i] = (VkDescriptorImageInfo){b->sampler, b->textures[first + i].view,
                                            VK_IMAGE_LAYOUT_SHADER_READ_ONLY_OPTIMAL};
    const VkWriteDescriptorSet write = {
        .sType = VK_STRUCTURE_TYPE_WRITE_DESCRIPTOR_SET,
        .dstSet = b->set.set,
        .dstArrayElement = first,
        .descriptorCount = count,
        .descriptorType = VK_DESCRIPTOR_TYPE_COMBINED_IMAGE_SAMPLER,
        .pImageInfo = images,
    };
    vkUpdateDescriptorSets(b->vk->device, 1, &write, 0, NULL);
}

static void *setup_descriptor_indexing(struct vkh *vk, const struct vkh_image *target)
{
    require_descriptor_indexing(vk);
    struct board *b = board_create(vk, target, NULL, 0);
    b->set.layout = create_indexing_layout(vk);
    b->set.set = allocate_indexing_set(vk, b->set.layout);
    b->layout = vkh_pipeline_layout(vk, &b->set.layout, 1, QUAD_PUSH_SIZE);
    b->sampler = vkh_sampler(vk, VK_FILTER_LINEAR, VK_SAMPLER_ADDRESS_MODE_REPEAT);
    for (uint32_t i = 0; i < TEXTURE_COUNT; i++)
        b->textures[i] = scene_texture(vk, 32, i);
    write_textures(b, 0, TEXTURE_COUNT / 2);
    struct vkh_pipeline_params params = board_params(b, &nonuniform_frag);
    b->pipelines[0] = vkh_graphics_pipeline(vk, &params);
    return b;
}

/* The second half is written after the set was bound in recorded commands. */
static void submit_descriptor_indexing(void *state, VkCommandBuffer commands, VkFence fence,
                                       uint32_t frame)
{
    struct board *b = state;
    if (frame == 0)
        write_textures(b, TEXTURE_COUNT / 2, TEXTURE_COUNT / 2);
    const VkSubmitInfo submit = {
        .sType = VK_STRUCTURE_TYPE_SUBMIT_INFO,
        .commandBufferCount = 1,
        .pCommandBuffers = &commands,
    };
    vkh_queue_submit(b->vk, &submit, fence);
}

const struct scene scenes_pipeline[] = {
    {"specialization", "one shader, four sets of constants", setup_specialization, record_quarters,
     NULL, NULL},
    {"pipeline-cache", "pipelines from a cache and from its saved data", setup_pipeline_cache,
     record_quarters, NULL, NULL},
    {"tessellation", "tessellation shaders", setup_tessellation, record_tessellation, NULL, NULL},
    {"geometry", "geometry shader", setup_geometry, record_geometry, NULL, NULL},
    {"image-types", "cube, array and 3D images", setup_image_types, record_full, NULL, NULL},
    {"texel-buffer", "uniform texel buffers", setup_texel_buffer, record_full, NULL, NULL},
    {"update-template", "descriptor update template", setup_update_template, record_full, NULL,
     NULL},
    {"descriptor-indexing", "runtime array, update after bind, non-uniform index",
     setup_descriptor_indexing, record_full, submit_descriptor_indexing, NULL},
    {0},
};
