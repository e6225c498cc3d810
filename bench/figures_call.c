/* Figures about calls: round trips, commands, updates, pipelines, submissions, start. */
#include "bench.h"

#include <string.h>
#include <time.h>

#include "bench_shaders.h"

/* The blocking round trip.
 *
 * Venus answers most queries in the guest: format, image and memory properties from caches, fences,
 * events and queries from feedback memory (25.x) or from transport syncs (26.x). What goes to the
 * host and waits for the answer, on the main ring and in both, is vkGetDescriptorSetLayoutSupport:
 * Mesa keeps no cache for it. It costs the host next to nothing, every Vulkan 1.1 driver has it,
 * and it creates no object. (vkGetPipelineCacheData would also travel, but on a ring of the
 * thread's own.)
 */
static void round_trip(struct vkh *vk)
{
    const VkDescriptorSetLayoutBinding binding = {
        .descriptorType = VK_DESCRIPTOR_TYPE_UNIFORM_BUFFER,
        .descriptorCount = 1,
        .stageFlags = VK_SHADER_STAGE_VERTEX_BIT,
    };
    const VkDescriptorSetLayoutCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_DESCRIPTOR_SET_LAYOUT_CREATE_INFO,
        .bindingCount = 1,
        .pBindings = &binding,
    };
    VkDescriptorSetLayoutSupport support = {
        .sType = VK_STRUCTURE_TYPE_DESCRIPTOR_SET_LAYOUT_SUPPORT,
    };
    vkGetDescriptorSetLayoutSupport(vk->device, &info, &support);
    if (!support.supported)
        vkh_fail("a layout of one uniform buffer is said to be unsupported");
}

static uint64_t sample_roundtrip(void *state, uint32_t iterations)
{
    uint64_t start = vkh_now_ns();
    for (uint32_t i = 0; i < iterations; i++)
        round_trip(state);
    return vkh_now_ns() - start;
}

static void run_roundtrip_busy(struct vkh *vk, struct result *result)
{
    result->value = measure(sample_roundtrip, vk) / 1e3;
}

static uint64_t sample_after_silence(void *state, uint32_t iterations)
{
    const struct timespec silence = {.tv_nsec = 3 * 1000 * 1000};
    uint64_t sum = 0;
    for (uint32_t i = 0; i < iterations; i++) {
        nanosleep(&silence, NULL);
        sum += sample_roundtrip(state, 1);
    }
    return sum;
}

static void run_roundtrip_idle(struct vkh *vk, struct result *result)
{
    enum { ROUNDS = 301 }; /* the median of single calls: a mean would be made of its outliers */
    sample_after_silence(vk, 1);
    result->value = measure_fixed(sample_after_silence, vk, 1, ROUNDS) / 1e3;
}

/* ---- commands ---- */

enum {
    DRAWS_PER_BUFFER = 1000,
    COMMANDS_PER_DRAW = 4, /* pipeline, set, constants, draw */
    SET_COUNT = 64,
    FLOAT_STEPS = 1 << 23, /* different floats from 1 to 2 */
};

struct drawing {
    struct vkh *vk;
    struct vkh_image image;
    VkRenderPass pass;
    VkFramebuffer framebuffer;
    struct vkh_buffer uniforms;
    struct vkh_set sets[SET_COUNT];
    VkPipelineLayout layout;
    VkPipeline pipelines[2];
    VkCommandBuffer commands[2];
    VkFence fences[2];
};

static VkPipeline make_pipeline(struct drawing *d, float variant)
{
    const struct {
        float variant;
        int32_t turns;
    } constants = {variant, 2};
    static const VkSpecializationMapEntry entries[] = {{0, 0, 4}, {1, 4, 4}};
    const VkSpecializationInfo specialization = {VKH_COUNT(entries), entries, sizeof(constants),
                                                 &constants};
    const struct vkh_pipeline_params params = {
        .vertex = &flat_vert,
        .fragment = &flat_frag,
        .layout = d->layout,
        .pass = d->pass,
        .fragment_constants = &specialization,
    };
    return vkh_graphics_pipeline(d->vk, &params);
}

static void drawing_init(struct drawing *d, struct vkh *vk)
{
    *d = (struct drawing){.vk = vk};
    const struct vkh_image_params image = {
        .format = VK_FORMAT_R8G8B8A8_UNORM,
        .width = 16,
        .height = 16,
        .usage = VK_IMAGE_USAGE_COLOR_ATTACHMENT_BIT,
    };
    d->image = vkh_image(vk, &image);
    const struct vkh_pass_params pass = {
        .color = image.format,
        .final_layout = VK_IMAGE_LAYOUT_COLOR_ATTACHMENT_OPTIMAL,
    };
    d->pass = vkh_render_pass(vk, &pass);
    d->framebuffer = vkh_framebuffer(vk, d->pass, &d->image.view, 1, image.width, image.height);
    const VkDescriptorType type = VK_DESCRIPTOR_TYPE_UNIFORM_BUFFER;
    d->uniforms = vkh_buffer(vk, 256, VK_BUFFER_USAGE_UNIFORM_BUFFER_BIT,
                             VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT);
    for (uint32_t i = 0; i < SET_COUNT; i++) {
        d->sets[i] = vkh_set(vk, &type, 1);
        vkh_set_buffer(vk, d->sets[i].set, 0, type, d->uniforms.buffer);
    }
    d->layout = vkh_pipeline_layout(vk, &d->sets[0].layout, 1, 16);
    for (uint32_t i = 0; i < VKH_COUNT(d->pipelines); i++) {
        d->pipelines[i] = make_pipeline(d, (float)i + 0.25f);
        d->commands[i] = vkh_command_buffer(vk, VK_COMMAND_BUFFER_LEVEL_PRIMARY);
        d->fences[i] = vkh_fence(vk);
    }
}

static void record_draws(struct drawing *d, VkCommandBuffer commands)
{
    static const float clear[4];
    const VkCommandBufferBeginInfo begin = {.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO};
    VKH_CHECK(vkBeginCommandBuffer(commands, &begin));
    vkh_begin_pass(commands, d->pass, d->framebuffer, 16, 16, clear, VK_SUBPASS_CONTENTS_INLINE);
    for (uint32_t i = 0; i < DRAWS_PER_BUFFER; i++) {
        const float shift[4] = {(float)i, 0, 0, 0};
        vkCmdBindPipeline(commands, VK_PIPELINE_BIND_POINT_GRAPHICS, d->pipelines[i & 1]);
        vkCmdBindDescriptorSets(commands, VK_PIPELINE_BIND_POINT_GRAPHICS, d->layout, 0, 1,
                                &d->sets[i % SET_COUNT].set, 0, NULL);
        vkCmdPushConstants(commands, d->layout, VK_SHADER_STAGE_ALL, 0, sizeof(shift), shift);
        vkCmdDraw(commands, 3, 1, 0, 0);
    }
    vkCmdEndRenderPass(commands);
    VKH_CHECK(vkEndCommandBuffer(commands));
}

/* Recorded again each time, never executed: transport and the driver's recording alone. */
static uint64_t sample_record(void *state, uint32_t iterations)
{
    struct drawing *d = state;
    uint64_t start = vkh_now_ns();
    for (uint32_t i = 0; i < iterations; i++)
        record_draws(d, d->commands[i & 1]);
    round_trip(d->vk);
    return vkh_now_ns() - start;
}

static void run_record_commands(struct vkh *vk, struct result *result)
{
    struct drawing drawing;
    drawing_init(&drawing, vk);
    double ns = measure(sample_record, &drawing);
    result->value = DRAWS_PER_BUFFER * COMMANDS_PER_DRAW * 1e9 / ns;
}

/* Two command buffers in turn, so that one is recorded while the other runs. */
static uint64_t sample_draws(void *state, uint32_t iterations)
{
    struct drawing *d = state;
    uint64_t start = vkh_now_ns();
    for (uint32_t i = 0; i < iterations; i++) {
        uint32_t slot = i & 1;
        if (i >= 2) {
            VKH_CHECK(vkWaitForFences(d->vk->device, 1, &d->fences[slot], VK_TRUE, UINT64_MAX));
            VKH_CHECK(vkResetFences(d->vk->device, 1, &d->fences[slot]));
        }
        record_draws(d, d->commands[slot]);
        const VkSubmitInfo submit = {
            .sType = VK_STRUCTURE_TYPE_SUBMIT_INFO,
            .commandBufferCount = 1,
            .pCommandBuffers = &d->commands[slot],
        };
        vkh_queue_submit(d->vk, &submit, d->fences[slot]);
    }
    uint32_t used = iterations < 2 ? iterations : 2;
    VKH_CHECK(vkWaitForFences(d->vk->device, used, d->fences, VK_TRUE, UINT64_MAX));
    VKH_CHECK(vkResetFences(d->vk->device, used, d->fences));
    return vkh_now_ns() - start;
}

static void run_async_commands(struct vkh *vk, struct result *result)
{
    struct drawing drawing;
    drawing_init(&drawing, vk);
    double ns = measure(sample_draws, &drawing);
    result->value = DRAWS_PER_BUFFER * COMMANDS_PER_DRAW * 1e9 / ns;
}

/* ---- descriptor updates, pipelines ---- */

static uint64_t sample_updates(void *state, uint32_t iterations)
{
    struct drawing *d = state;
    uint64_t start = vkh_now_ns();
    for (uint32_t i = 0; i < iterations; i++)
        vkh_set_buffer(d->vk, d->sets[i % SET_COUNT].set, 0, VK_DESCRIPTOR_TYPE_UNIFORM_BUFFER,
                       d->uniforms.buffer);
    round_trip(d->vk);
    return vkh_now_ns() - start;
}

static void run_descriptor_updates(struct vkh *vk, struct result *result)
{
    struct drawing drawing;
    drawing_init(&drawing, vk);
    result->value = 1e9 / measure(sample_updates, &drawing);
}

static uint64_t sample_pipelines(void *state, uint32_t iterations)
{
    /* Starting from the clock: no run finds a pipeline of an earlier one in a disk cache. */
    static uint32_t variant;
    if (variant == 0)
        variant = (uint32_t)(vkh_now_ns() / 1000);
    struct drawing *d = state;
    size_t mark = vkh_mark(d->vk);
    uint64_t start = vkh_now_ns();
    for (uint32_t i = 0; i < iterations; i++)
        make_pipeline(d, 1.0f + (float)(variant++ % FLOAT_STEPS) / FLOAT_STEPS);
    round_trip(d->vk);
    uint64_t time = vkh_now_ns() - start;
    vkh_release(d->vk, mark);
    return time;
}

static void run_pipeline_create(struct vkh *vk, struct result *result)
{
    struct drawing drawing;
    drawing_init(&drawing, vk);
    result->value = 1e9 / measure(sample_pipelines, &drawing);
}

/* ---- submission, start ---- */

struct submission {
    struct vkh *vk;
    VkCommandBuffer commands;
    VkFence fence;
};

static uint64_t sample_submit(void *state, uint32_t iterations)
{
    struct submission *s = state;
    const VkSubmitInfo submit = {
        .sType = VK_STRUCTURE_TYPE_SUBMIT_INFO,
        .commandBufferCount = 1,
        .pCommandBuffers = &s->commands,
    };
    uint64_t sum = 0;
    for (uint32_t i = 0; i < iterations; i++) {
        uint64_t start = vkh_now_ns();
        VKH_CHECK(vkQueueSubmit(s->vk->queue, 1, &submit, s->fence));
        VKH_CHECK(vkWaitForFences(s->vk->device, 1, &s->fence, VK_TRUE, UINT64_MAX));
        sum += vkh_now_ns() - start;
        VKH_CHECK(vkResetFences(s->vk->device, 1, &s->fence));
    }
    return sum;
}

static void run_submit_fence(struct vkh *vk, struct result *result)
{
    struct submission submission = {.vk = vk, .fence = vkh_fence(vk)};
    struct vkh_buffer buffer =
        vkh_buffer(vk, 256, VK_BUFFER_USAGE_TRANSFER_DST_BIT, VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT);
    submission.commands = vkh_begin(vk);
    vkCmdFillBuffer(submission.commands, buffer.buffer, 0, 4, 1);
    VKH_CHECK(vkEndCommandBuffer(submission.commands));
    result->value = measure(sample_submit, &submission) / 1e3;
}

static uint64_t sample_start(void *state, uint32_t iterations)
{
    struct result *result = state;
    uint64_t sum = 0;
    for (uint32_t i = 0; i < iterations; i++) {
        struct vkh vk;
        uint64_t start = vkh_now_ns();
        vkh_instance_init(&vk, NULL);
        vkh_device_init(&vk, NULL);
        sum += vkh_now_ns() - start;
        memcpy(result->device, vk.properties.deviceName, sizeof(result->device));
        vkh_finish(&vk);
    }
    return sum;
}

static void run_start(struct vkh *vk, struct result *result)
{
    (void)vk;
    enum { STARTS = 9 };
    result->value = measure_fixed(sample_start, result, 1, STARTS) / 1e6;
}

const struct figure figures_call[] = {
    {"roundtrip-busy", UNIT_US, "blocking call that the host must answer, one after the other",
     run_roundtrip_busy, false},
    {"roundtrip-idle", UNIT_US, "the same after 3 ms of silence", run_roundtrip_idle, false},
    {"submit-fence", UNIT_US, "vkQueueSubmit of one small command until its fence is seen",
     run_submit_fence, false},
    {"record-commands", UNIT_PER_SECOND, "draws and binds recorded, not run", run_record_commands,
     false},
    {"async-commands", UNIT_PER_SECOND, "draws and binds recorded, submitted and run",
     run_async_commands, false},
    {"descriptor-updates", UNIT_PER_SECOND, "vkUpdateDescriptorSets of one buffer each",
     run_descriptor_updates, false},
    {"pipeline-create", UNIT_PER_SECOND, "graphics pipelines, each one new", run_pipeline_create,
     false},
    {"start", UNIT_MS, "vkCreateInstance to vkCreateDevice done", run_start, true},
    {0},
};
