/* Descriptors, render passes and pipelines of vkh.h. */
#include "vkh.h"

#include <string.h>

struct vkh_set vkh_set(struct vkh *vk, const VkDescriptorType *types, uint32_t count)
{
    VkDescriptorSetLayoutBinding bindings[16];
    VkDescriptorPoolSize sizes[16];
    if (count > VKH_COUNT(bindings))
        vkh_fail("vkh_set: %u bindings are too many", count);
    for (uint32_t i = 0; i < count; i++) {
        bindings[i] = (VkDescriptorSetLayoutBinding){
            .binding = i,
            .descriptorType = types[i],
            .descriptorCount = 1,
            .stageFlags = types[i] == VK_DESCRIPTOR_TYPE_INPUT_ATTACHMENT
                              ? (VkShaderStageFlags)VK_SHADER_STAGE_FRAGMENT_BIT
                              : (VkShaderStageFlags)VK_SHADER_STAGE_ALL,
        };
        sizes[i] = (VkDescriptorPoolSize){types[i], 1};
    }
    struct vkh_set result;
    const VkDescriptorSetLayoutCreateInfo layout = {
        .sType = VK_STRUCTURE_TYPE_DESCRIPTOR_SET_LAYOUT_CREATE_INFO,
        .bindingCount = count,
        .pBindings = bindings,
    };
    VKH_CHECK(vkCreateDescriptorSetLayout(vk->device, &layout, NULL, &result.layout));
    VKH_KEEP(vk, DESCRIPTOR_SET_LAYOUT, result.layout);
    const VkDescriptorPoolCreateInfo pool_info = {
        .sType = VK_STRUCTURE_TYPE_DESCRIPTOR_POOL_CREATE_INFO,
        .maxSets = 1,
        .poolSizeCount = count,
        .pPoolSizes = sizes,
    };
    VkDescriptorPool pool;
    VKH_CHECK(vkCreateDescriptorPool(vk->device, &pool_info, NULL, &pool));
    VKH_KEEP(vk, DESCRIPTOR_POOL, pool);
    const VkDescriptorSetAllocateInfo info = {
        .sType = VK_STRUCTURE_TYPE_DESCRIPTOR_SET_ALLOCATE_INFO,
        .descriptorPool = pool,
        .descriptorSetCount = 1,
        .pSetLayouts = &result.layout,
    };
    VKH_CHECK(vkAllocateDescriptorSets(vk->device, &info, &result.set));
    return result;
}

void vkh_set_buffer(struct vkh *vk, VkDescriptorSet set, uint32_t binding, VkDescriptorType type,
                    VkBuffer buffer)
{
    const VkDescriptorBufferInfo info = {buffer, 0, VK_WHOLE_SIZE};
    const VkWriteDescriptorSet write = {
        .sType = VK_STRUCTURE_TYPE_WRITE_DESCRIPTOR_SET,
        .dstSet = set,
        .dstBinding = binding,
        .descriptorCount = 1,
        .descriptorType = type,
        .pBufferInfo = &info,
    };
    vkUpdateDescriptorSets(vk->device, 1, &write, 0, NULL);
}

void vkh_set_image(struct vkh *vk, VkDescriptorSet set, uint32_t binding, VkDescriptorType type,
                   VkImageView view, VkSampler sampler, VkImageLayout layout)
{
    const VkDescriptorImageInfo info = {sampler, view, layout};
    const VkWriteDescriptorSet write = {
        .sType = VK_STRUCTURE_TYPE_WRITE_DESCRIPTOR_SET,
        .dstSet = set,
        .dstBinding = binding,
        .descriptorCount = 1,
        .descriptorType = type,
        .pImageInfo = &info,
    };
    vkUpdateDescriptorSets(vk->device, 1, &write, 0, NULL);
}

VkPipelineLayout vkh_pipeline_layout(struct vkh *vk, const VkDescriptorSetLayout *sets,
                                     uint32_t count, uint32_t push_size)
{
    const VkPushConstantRange push = {VK_SHADER_STAGE_ALL, 0, push_size};
    const VkPipelineLayoutCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_PIPELINE_LAYOUT_CREATE_INFO,
        .setLayoutCount = count,
        .pSetLayouts = sets,
        .pushConstantRangeCount = push_size ? 1 : 0,
        .pPushConstantRanges = &push,
    };
    VkPipelineLayout layout;
    VKH_CHECK(vkCreatePipelineLayout(vk->device, &info, NULL, &layout));
    VKH_KEEP(vk, PIPELINE_LAYOUT, layout);
    return layout;
}

/* ---- render passes ---- */

static VkAttachmentDescription color_attachment(const struct vkh_pass_params *params, bool resolve)
{
    bool multisampled = params->samples > VK_SAMPLE_COUNT_1_BIT;
    VkAttachmentDescription attachment = {
        .format = params->color,
        .samples = multisampled && !resolve ? params->samples : VK_SAMPLE_COUNT_1_BIT,
        .loadOp = resolve        ? VK_ATTACHMENT_LOAD_OP_DONT_CARE
                  : params->load ? VK_ATTACHMENT_LOAD_OP_LOAD
                                 : VK_ATTACHMENT_LOAD_OP_CLEAR,
        .storeOp = multisampled && !resolve ? VK_ATTACHMENT_STORE_OP_DONT_CARE
                                            : VK_ATTACHMENT_STORE_OP_STORE,
        .stencilLoadOp = VK_ATTACHMENT_LOAD_OP_DONT_CARE,
        .stencilStoreOp = VK_ATTACHMENT_STORE_OP_DONT_CARE,
        .initialLayout = params->load ? params->final_layout : VK_IMAGE_LAYOUT_UNDEFINED,
        .finalLayout = multisampled && !resolve ? VK_IMAGE_LAYOUT_COLOR_ATTACHMENT_OPTIMAL
                                                : params->final_layout,
    };
    return attachment;
}

static VkAttachmentDescription depth_attachment(const struct vkh_pass_params *params)
{
    return (VkAttachmentDescription){
        .format = params->depth,
        .samples = params->samples ? params->samples : VK_SAMPLE_COUNT_1_BIT,
        .loadOp = VK_ATTACHMENT_LOAD_OP_CLEAR,
        .storeOp = VK_ATTACHMENT_STORE_OP_DONT_CARE,
        .stencilLoadOp = VK_ATTACHMENT_LOAD_OP_CLEAR,
        .stencilStoreOp = VK_ATTACHMENT_STORE_OP_DONT_CARE,
        .initialLayout = VK_IMAGE_LAYOUT_UNDEFINED,
        .finalLayout = VK_IMAGE_LAYOUT_DEPTH_STENCIL_ATTACHMENT_OPTIMAL,
    };
}

VkRenderPass vkh_render_pass(struct vkh *vk, const struct vkh_pass_params *params)
{
    bool depth = params->depth != VK_FORMAT_UNDEFINED;
    bool resolve = params->samples > VK_SAMPLE_COUNT_1_BIT;
    VkAttachmentDescription attachments[3] = {color_attachment(params, false)};
    uint32_t count = 1;
    if (depth)
        attachments[count++] = depth_attachment(params);
    if (resolve)
        attachments[count++] = color_attachment(params, true);
    const VkAttachmentReference color_ref = {0, VK_IMAGE_LAYOUT_COLOR_ATTACHMENT_OPTIMAL};
    const VkAttachmentReference depth_ref = {1, VK_IMAGE_LAYOUT_DEPTH_STENCIL_ATTACHMENT_OPTIMAL};
    const VkAttachmentReference resolve_ref = {count - 1, VK_IMAGE_LAYOUT_COLOR_ATTACHMENT_OPTIMAL};
    const VkSubpassDescription subpass = {
        .pipelineBindPoint = VK_PIPELINE_BIND_POINT_GRAPHICS,
        .colorAttachmentCount = 1,
        .pColorAttachments = &color_ref,
        .pResolveAttachments = resolve ? &resolve_ref : NULL,
        .pDepthStencilAttachment = depth ? &depth_ref : NULL,
    };
    const VkAccessFlags access = VK_ACCESS_MEMORY_READ_BIT | VK_ACCESS_MEMORY_WRITE_BIT;
    const VkPipelineStageFlags stages = VK_PIPELINE_STAGE_ALL_COMMANDS_BIT;
    const VkSubpassDependency dependencies[] = {
        {VK_SUBPASS_EXTERNAL, 0, stages, stages, VK_ACCESS_MEMORY_WRITE_BIT, access, 0},
        {0, VK_SUBPASS_EXTERNAL, stages, stages, VK_ACCESS_MEMORY_WRITE_BIT, access, 0},
    };
    const VkRenderPassCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_RENDER_PASS_CREATE_INFO,
        .attachmentCount = count,
        .pAttachments = attachments,
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

VkFramebuffer vkh_framebuffer(struct vkh *vk, VkRenderPass pass, const VkImageView *views,
                              uint32_t count, uint32_t width, uint32_t height)
{
    const VkFramebufferCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_FRAMEBUFFER_CREATE_INFO,
        .renderPass = pass,
        .attachmentCount = count,
        .pAttachments = views,
        .width = width,
        .height = height,
        .layers = 1,
    };
    VkFramebuffer framebuffer;
    VKH_CHECK(vkCreateFramebuffer(vk->device, &info, NULL, &framebuffer));
    VKH_KEEP(vk, FRAMEBUFFER, framebuffer);
    return framebuffer;
}

void vkh_viewport(VkCommandBuffer commands, uint32_t width, uint32_t height)
{
    const VkViewport viewport = {0, 0, (float)width, (float)height, 0, 1};
    const VkRect2D scissor = {{0, 0}, {width, height}};
    vkCmdSetViewport(commands, 0, 1, &viewport);
    vkCmdSetScissor(commands, 0, 1, &scissor);
}

void vkh_begin_pass(VkCommandBuffer commands, VkRenderPass pass, VkFramebuffer framebuffer,
                    uint32_t width, uint32_t height, const float clear_color[4],
                    VkSubpassContents contents)
{
    VkClearValue clear[3] = {0};
    memcpy(clear[0].color.float32, clear_color, 4 * sizeof(float));
    clear[1].depthStencil.depth = 1.0f;
    const VkRenderPassBeginInfo info = {
        .sType = VK_STRUCTURE_TYPE_RENDER_PASS_BEGIN_INFO,
        .renderPass = pass,
        .framebuffer = framebuffer,
        .renderArea = {{0, 0}, {width, height}},
        .clearValueCount = VKH_COUNT(clear),
        .pClearValues = clear,
    };
    vkCmdBeginRenderPass(commands, &info, contents);
    if (contents == VK_SUBPASS_CONTENTS_INLINE)
        vkh_viewport(commands, width, height);
}

/* ---- pipelines ---- */

static VkShaderModule create_module(struct vkh *vk, const struct vkh_shader *shader)
{
    const VkShaderModuleCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_SHADER_MODULE_CREATE_INFO,
        .codeSize = shader->size,
        .pCode = shader->code,
    };
    VkShaderModule module;
    VKH_CHECK(vkCreateShaderModule(vk->device, &info, NULL, &module));
    return module;
}

/* The modules in stages[] are the caller's to destroy. */
static uint32_t collect_stages(struct vkh *vk, const struct vkh_pipeline_params *params,
                               VkPipelineShaderStageCreateInfo stages[5])
{
    const struct {
        const struct vkh_shader *shader;
        VkShaderStageFlagBits stage;
    } all[] = {
        {params->vertex, VK_SHADER_STAGE_VERTEX_BIT},
        {params->tess_control, VK_SHADER_STAGE_TESSELLATION_CONTROL_BIT},
        {params->tess_evaluation, VK_SHADER_STAGE_TESSELLATION_EVALUATION_BIT},
        {params->geometry, VK_SHADER_STAGE_GEOMETRY_BIT},
        {params->fragment, VK_SHADER_STAGE_FRAGMENT_BIT},
    };
    uint32_t count = 0;
    for (uint32_t i = 0; i < VKH_COUNT(all); i++) {
        if (!all[i].shader)
            continue;
        stages[count++] = (VkPipelineShaderStageCreateInfo){
            .sType = VK_STRUCTURE_TYPE_PIPELINE_SHADER_STAGE_CREATE_INFO,
            .stage = all[i].stage,
            .module = create_module(vk, all[i].shader),
            .pName = "main",
            .pSpecializationInfo =
                all[i].stage == VK_SHADER_STAGE_FRAGMENT_BIT ? params->fragment_constants : NULL,
        };
    }
    return count;
}

static VkPipelineColorBlendAttachmentState blend_state(const struct vkh_pipeline_params *params)
{
    VkPipelineColorBlendAttachmentState state = {
        .blendEnable = params->blend != VKH_BLEND_NONE,
        .srcColorBlendFactor = VK_BLEND_FACTOR_SRC_ALPHA,
        .dstColorBlendFactor = VK_BLEND_FACTOR_ONE_MINUS_SRC_ALPHA,
        .srcAlphaBlendFactor = VK_BLEND_FACTOR_ONE,
        .dstAlphaBlendFactor = VK_BLEND_FACTOR_ONE_MINUS_SRC_ALPHA,
        .colorWriteMask = params->no_color ? 0 : 0xf,
    };
    if (params->blend == VKH_BLEND_ADD)
        state.dstColorBlendFactor = VK_BLEND_FACTOR_ONE;
    if (params->blend == VKH_BLEND_MULTIPLY) {
        state.srcColorBlendFactor = VK_BLEND_FACTOR_DST_COLOR;
        state.dstColorBlendFactor = VK_BLEND_FACTOR_ZERO;
    }
    return state;
}

static VkPipelineDepthStencilStateCreateInfo depth_state(const struct vkh_pipeline_params *params)
{
    VkPipelineDepthStencilStateCreateInfo state = {
        .sType = VK_STRUCTURE_TYPE_PIPELINE_DEPTH_STENCIL_STATE_CREATE_INFO,
        .depthTestEnable = params->depth_test,
        .depthWriteEnable = params->depth_write,
        .depthCompareOp = VK_COMPARE_OP_LESS_OR_EQUAL,
        .stencilTestEnable = params->stencil != NULL,
    };
    if (params->stencil) {
        state.front = *params->stencil;
        state.back = *params->stencil;
    }
    return state;
}

/* Returns the number of bindings described in bindings[]. */
static uint32_t vertex_bindings(const struct vkh_pipeline_params *params,
                                VkVertexInputBindingDescription bindings[2])
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < 2; i++) {
        if (params->stride[i])
            bindings[count++] = (VkVertexInputBindingDescription){i, params->stride[i],
                                                                  i ? VK_VERTEX_INPUT_RATE_INSTANCE
                                                                    : VK_VERTEX_INPUT_RATE_VERTEX};
    }
    return count;
}

VkPipeline vkh_graphics_pipeline(struct vkh *vk, const struct vkh_pipeline_params *params)
{
    VkPipelineShaderStageCreateInfo stages[5];
    uint32_t stage_count = collect_stages(vk, params, stages);
    VkVertexInputBindingDescription bindings[2];
    const VkPipelineVertexInputStateCreateInfo vertex_input = {
        .sType = VK_STRUCTURE_TYPE_PIPELINE_VERTEX_INPUT_STATE_CREATE_INFO,
        .vertexBindingDescriptionCount = vertex_bindings(params, bindings),
        .pVertexBindingDescriptions = bindings,
        .vertexAttributeDescriptionCount = params->attribute_count,
        .pVertexAttributeDescriptions = params->attributes,
    };
    VkPrimitiveTopology topology = params->topology;
    if (topology == VK_PRIMITIVE_TOPOLOGY_POINT_LIST && !params->points)
        topology = VK_PRIMITIVE_TOPOLOGY_TRIANGLE_LIST;
    const VkPipelineInputAssemblyStateCreateInfo assembly = {
        .sType = VK_STRUCTURE_TYPE_PIPELINE_INPUT_ASSEMBLY_STATE_CREATE_INFO,
        .topology = topology,
    };
    const VkPipelineTessellationStateCreateInfo tessellation = {
        .sType = VK_STRUCTURE_TYPE_PIPELINE_TESSELLATION_STATE_CREATE_INFO,
        .patchControlPoints = params->patch_size,
    };
    const VkPipelineViewportStateCreateInfo viewport = {
        .sType = VK_STRUCTURE_TYPE_PIPELINE_VIEWPORT_STATE_CREATE_INFO,
        .viewportCount = 1,
        .scissorCount = 1,
    };
    const VkPipelineRasterizationStateCreateInfo raster = {
        .sType = VK_STRUCTURE_TYPE_PIPELINE_RASTERIZATION_STATE_CREATE_INFO,
        .cullMode = params->cull,
        .frontFace = VK_FRONT_FACE_COUNTER_CLOCKWISE,
        .depthBiasEnable = params->depth_bias != 0.0f,
        .depthBiasConstantFactor = params->depth_bias,
        .depthBiasSlopeFactor = params->depth_bias,
        .lineWidth = 1.0f,
    };
    const VkPipelineMultisampleStateCreateInfo multisample = {
        .sType = VK_STRUCTURE_TYPE_PIPELINE_MULTISAMPLE_STATE_CREATE_INFO,
        .rasterizationSamples = params->samples ? params->samples : VK_SAMPLE_COUNT_1_BIT,
    };
    const VkPipelineDepthStencilStateCreateInfo depth = depth_state(params);
    const VkPipelineColorBlendAttachmentState blend_attachment = blend_state(params);
    const VkPipelineColorBlendStateCreateInfo blend = {
        .sType = VK_STRUCTURE_TYPE_PIPELINE_COLOR_BLEND_STATE_CREATE_INFO,
        .attachmentCount = params->fragment ? 1 : 0, /* without one: depth alone */
        .pAttachments = &blend_attachment,
    };
    const VkDynamicState dynamic_states[] = {VK_DYNAMIC_STATE_VIEWPORT, VK_DYNAMIC_STATE_SCISSOR};
    const VkPipelineDynamicStateCreateInfo dynamic = {
        .sType = VK_STRUCTURE_TYPE_PIPELINE_DYNAMIC_STATE_CREATE_INFO,
        .dynamicStateCount = VKH_COUNT(dynamic_states),
        .pDynamicStates = dynamic_states,
    };
    const VkPipelineRenderingCreateInfo rendering = {
        .sType = VK_STRUCTURE_TYPE_PIPELINE_RENDERING_CREATE_INFO,
        .colorAttachmentCount = 1,
        .pColorAttachmentFormats = &params->color_format,
    };
    const VkGraphicsPipelineCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_GRAPHICS_PIPELINE_CREATE_INFO,
        .pNext = params->pass ? NULL : &rendering,
        .flags = params->flags,
        .stageCount = stage_count,
        .pStages = stages,
        .pVertexInputState = &vertex_input,
        .pInputAssemblyState = &assembly,
        .pTessellationState = params->patch_size ? &tessellation : NULL,
        .pViewportState = &viewport,
        .pRasterizationState = &raster,
        .pMultisampleState = &multisample,
        .pDepthStencilState = &depth,
        .pColorBlendState = &blend,
        .pDynamicState = &dynamic,
        .layout = params->layout,
        .renderPass = params->pass,
        .subpass = params->subpass,
    };
    VkPipeline pipeline;
    VKH_CHECK(vkCreateGraphicsPipelines(vk->device, params->cache, 1, &info, NULL, &pipeline));
    VKH_KEEP(vk, PIPELINE, pipeline);
    for (uint32_t i = 0; i < stage_count; i++)
        vkDestroyShaderModule(vk->device, stages[i].module, NULL);
    return pipeline;
}

VkPipeline vkh_compute_pipeline(struct vkh *vk, const struct vkh_shader *shader,
                                VkPipelineLayout layout, const VkSpecializationInfo *constants)
{
    const VkComputePipelineCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_COMPUTE_PIPELINE_CREATE_INFO,
        .stage =
            {
                .sType = VK_STRUCTURE_TYPE_PIPELINE_SHADER_STAGE_CREATE_INFO,
                .stage = VK_SHADER_STAGE_COMPUTE_BIT,
                .module = create_module(vk, shader),
                .pName = "main",
                .pSpecializationInfo = constants,
            },
        .layout = layout,
    };
    VkPipeline pipeline;
    VKH_CHECK(vkCreateComputePipelines(vk->device, VK_NULL_HANDLE, 1, &info, NULL, &pipeline));
    VKH_KEEP(vk, PIPELINE, pipeline);
    vkDestroyShaderModule(vk->device, info.stage.module, NULL);
    return pipeline;
}
