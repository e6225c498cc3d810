/* Scenes where the order of work matters: a cellular automaton goes back and forth between two
 * buffers, and any step that starts too early spoils the picture. */
#include "scene.h"

enum { CELLS = 96, STEPS = 24 };

struct automaton {
    struct vkh *vk;
    struct canvas canvas;
    struct vkh_buffer start, cells[2];
    struct vkh_set step_sets[2], draw_set;
    VkPipelineLayout step_layout, draw_layout;
    VkPipeline step, draw;
    VkEvent events[STEPS];
    VkSemaphore go, done;  /* signaled by the CPU, by the GPU: see test_wait_before_signal() */
    VkCommandBuffer steps; /* timeline: all steps, submitted every frame */
};

static struct vkh_buffer create_start(struct vkh *vk)
{
    uint32_t cells[CELLS * CELLS], seed = 42;
    for (uint32_t i = 0; i < CELLS * CELLS; i++)
        cells[i] = scene_random(&seed) < 0.35f;
    return vkh_buffer_with(vk, cells, sizeof(cells), VK_BUFFER_USAGE_TRANSFER_SRC_BIT);
}

static struct automaton *automaton_create(struct vkh *vk, const struct vkh_image *target)
{
    struct automaton *a = scene_alloc(sizeof(*a));
    const VkDescriptorType type = VK_DESCRIPTOR_TYPE_STORAGE_BUFFER;
    const VkDescriptorType types[2] = {type, type};
    a->vk = vk;
    canvas_init(&a->canvas, vk, target, VK_FORMAT_UNDEFINED, VK_SAMPLE_COUNT_1_BIT);
    a->start = create_start(vk);
    for (uint32_t i = 0; i < 2; i++)
        a->cells[i] =
            vkh_buffer(vk, a->start.size,
                       VK_BUFFER_USAGE_STORAGE_BUFFER_BIT | VK_BUFFER_USAGE_TRANSFER_DST_BIT,
                       VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT);
    for (uint32_t i = 0; i < 2; i++) {
        a->step_sets[i] = vkh_set(vk, types, 2);
        vkh_set_buffer(vk, a->step_sets[i].set, 0, type, a->cells[i].buffer);
        vkh_set_buffer(vk, a->step_sets[i].set, 1, type, a->cells[1 - i].buffer);
    }
    a->step_layout = vkh_pipeline_layout(vk, &a->step_sets[0].layout, 1, 4);
    a->step = vkh_compute_pipeline(vk, &life_comp, a->step_layout, NULL);
    a->draw_set = vkh_set(vk, &type, 1);
    vkh_set_buffer(vk, a->draw_set.set, 0, type, a->cells[STEPS % 2].buffer);
    a->draw_layout = vkh_pipeline_layout(vk, &a->draw_set.layout, 1, QUAD_PUSH_SIZE);
    const struct vkh_pipeline_params params = {
        .vertex = &quad_vert,
        .fragment = &cells_frag,
        .layout = a->draw_layout,
        .pass = a->canvas.pass,
    };
    a->draw = vkh_graphics_pipeline(vk, &params);
    return a;
}

static void record_start(const struct automaton *a, VkCommandBuffer commands)
{
    const VkBufferCopy all = {0, 0, a->start.size};
    vkh_barrier(commands); /* an earlier frame may still draw them */
    vkCmdCopyBuffer(commands, a->start.buffer, a->cells[0].buffer, 1, &all);
    vkh_barrier(commands);
}

static void record_step(const struct automaton *a, VkCommandBuffer commands, uint32_t step)
{
    const uint32_t size = CELLS;
    vkCmdBindPipeline(commands, VK_PIPELINE_BIND_POINT_COMPUTE, a->step);
    vkCmdBindDescriptorSets(commands, VK_PIPELINE_BIND_POINT_COMPUTE, a->step_layout, 0, 1,
                            &a->step_sets[step % 2].set, 0, NULL);
    vkCmdPushConstants(commands, a->step_layout, VK_SHADER_STAGE_ALL, 0, sizeof(size), &size);
    vkCmdDispatch(commands, CELLS * CELLS / 64, 1, 1);
}

static void record_picture(const struct automaton *a, VkCommandBuffer commands)
{
    const uint32_t size = CELLS;
    canvas_begin(&a->canvas, commands);
    vkCmdBindPipeline(commands, VK_PIPELINE_BIND_POINT_GRAPHICS, a->draw);
    vkCmdBindDescriptorSets(commands, VK_PIPELINE_BIND_POINT_GRAPHICS, a->draw_layout, 0, 1,
                            &a->draw_set.set, 0, NULL);
    vkCmdPushConstants(commands, a->draw_layout, VK_SHADER_STAGE_ALL, 48, sizeof(size), &size);
    draw_full(commands, a->draw_layout);
    vkCmdEndRenderPass(commands);
}

/* ---- events: each step waits for the event of the one before ---- */

static void *setup_events(struct vkh *vk, const struct vkh_image *target)
{
    struct automaton *a = automaton_create(vk, target);
    const VkEventCreateInfo info = {.sType = VK_STRUCTURE_TYPE_EVENT_CREATE_INFO};
    for (uint32_t i = 0; i < STEPS; i++) {
        VKH_CHECK(vkCreateEvent(vk->device, &info, NULL, &a->events[i]));
        VKH_KEEP(vk, EVENT, a->events[i]);
    }
    return a;
}

static void record_events(void *state, VkCommandBuffer commands, uint32_t frame)
{
    struct automaton *a = state;
    const VkPipelineStageFlags compute = VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT;
    const VkMemoryBarrier barrier = {
        .sType = VK_STRUCTURE_TYPE_MEMORY_BARRIER,
        .srcAccessMask = VK_ACCESS_SHADER_WRITE_BIT,
        .dstAccessMask = VK_ACCESS_SHADER_READ_BIT | VK_ACCESS_SHADER_WRITE_BIT,
    };
    (void)frame;
    record_start(a, commands);
    for (uint32_t i = 0; i < STEPS; i++)
        vkCmdResetEvent(commands, a->events[i], VK_PIPELINE_STAGE_ALL_COMMANDS_BIT);
    vkh_barrier(commands);
    for (uint32_t i = 0; i < STEPS; i++) {
        record_step(a, commands, i);
        vkCmdSetEvent(commands, a->events[i], compute);
        vkCmdWaitEvents(commands, 1, &a->events[i], compute,
                        compute | VK_PIPELINE_STAGE_FRAGMENT_SHADER_BIT, 1, &barrier, 0, NULL, 0,
                        NULL);
    }
    record_picture(a, commands);
}

/* ---- timeline: two submissions, the second one queued while the first still waits for the CPU
 * ---- */

static void *setup_timeline(struct vkh *vk, const struct vkh_image *target)
{
    struct automaton *a = automaton_create(vk, target);
    a->go = vkh_timeline(vk, 0);
    a->done = vkh_timeline(vk, 0);
    a->steps = vkh_command_buffer(vk, VK_COMMAND_BUFFER_LEVEL_PRIMARY);
    const VkCommandBufferBeginInfo begin = {
        .sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO,
        .flags = VK_COMMAND_BUFFER_USAGE_SIMULTANEOUS_USE_BIT,
    };
    VKH_CHECK(vkBeginCommandBuffer(a->steps, &begin));
    record_start(a, a->steps);
    for (uint32_t i = 0; i < STEPS; i++) {
        record_step(a, a->steps, i);
        vkh_barrier(a->steps);
    }
    VKH_CHECK(vkEndCommandBuffer(a->steps));
    return a;
}

static void record_timeline(void *state, VkCommandBuffer commands, uint32_t frame)
{
    (void)frame;
    record_picture(state, commands);
}

static void submit_on_timeline(struct automaton *a, VkCommandBuffer commands, VkSemaphore wait,
                               uint64_t wait_value, uint64_t signal_value, VkFence fence)
{
    const VkPipelineStageFlags stage = VK_PIPELINE_STAGE_ALL_COMMANDS_BIT;
    const VkTimelineSemaphoreSubmitInfo timeline = {
        .sType = VK_STRUCTURE_TYPE_TIMELINE_SEMAPHORE_SUBMIT_INFO,
        .waitSemaphoreValueCount = 1,
        .pWaitSemaphoreValues = &wait_value,
        .signalSemaphoreValueCount = 1,
        .pSignalSemaphoreValues = &signal_value,
    };
    const VkSubmitInfo submit = {
        .sType = VK_STRUCTURE_TYPE_SUBMIT_INFO,
        .pNext = &timeline,
        .waitSemaphoreCount = 1,
        .pWaitSemaphores = &wait,
        .pWaitDstStageMask = &stage,
        .commandBufferCount = 1,
        .pCommandBuffers = &commands,
        .signalSemaphoreCount = 1,
        .pSignalSemaphores = &a->done,
    };
    vkh_queue_submit(a->vk, &submit, fence);
}

/* The steps wait for the CPU, the picture for the steps: 2n + 1 after steps n, 2n + 2 after picture
 * n. */
static void submit_timeline(void *state, VkCommandBuffer commands, VkFence fence, uint32_t frame)
{
    struct automaton *a = state;
    const uint64_t base = (uint64_t)frame * 2;
    submit_on_timeline(a, a->steps, a->go, frame + 1, base + 1, VK_NULL_HANDLE);
    submit_on_timeline(a, commands, a->done, base + 1, base + 2, fence);
    const VkSemaphoreSignalInfo signal = {
        .sType = VK_STRUCTURE_TYPE_SEMAPHORE_SIGNAL_INFO,
        .semaphore = a->go,
        .value = frame + 1,
    };
    VKH_CHECK(vkSignalSemaphore(a->vk->device, &signal));
}

const struct scene scenes_sync[] = {
    {"events", "24 compute steps, ordered by events", setup_events, record_events, NULL, NULL},
    {"timeline", "two submissions, ordered by a timeline semaphore that the CPU starts",
     setup_timeline, record_timeline, submit_timeline, NULL},
    {0},
};
