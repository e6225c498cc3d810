/* pv-loop: a client that others do something to: kill it, or watch it idle.
 *
 *   pv-loop                 draw for ever
 *   pv-loop --fill-ring     send commands much faster than they can be run
 *   pv-loop --idle SECONDS  draw one frame, then do nothing
 *   pv-loop --bare SECONDS  only an instance and a device, then do nothing: natively run, this is
 *                           what the host driver costs by itself
 *
 * Prints "ready" when the first frame (or the device) is there.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "scene.h"

enum { SIZE = 256, IN_FLIGHT = 2 };

struct loop {
    struct vkh vk;
    struct vkh_image target;
    void *state;
    VkCommandBuffer commands[IN_FLIGHT];
    VkFence fences[IN_FLIGHT];
};

static const struct scene *const scene = &scenes_draw[0];

static void announce(void)
{
    printf("ready\n");
    fflush(stdout);
}

static void loop_init(struct loop *loop)
{
    struct vkh *vk = &loop->vk;
    vkh_init(vk, NULL);
    const struct vkh_image_params target = {
        .format = VK_FORMAT_R8G8B8A8_UNORM,
        .width = SIZE,
        .height = SIZE,
        .usage = VK_IMAGE_USAGE_COLOR_ATTACHMENT_BIT | VK_IMAGE_USAGE_TRANSFER_SRC_BIT,
    };
    loop->target = vkh_image(vk, &target);
    loop->state = scene->setup(vk, &loop->target);
    for (uint32_t i = 0; i < IN_FLIGHT; i++) {
        loop->commands[i] = vkh_command_buffer(vk, VK_COMMAND_BUFFER_LEVEL_PRIMARY);
        loop->fences[i] = vkh_fence(vk);
    }
}

static void record_frame(struct loop *loop, VkCommandBuffer commands, uint32_t frame)
{
    const VkCommandBufferBeginInfo begin = {.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO};
    VKH_CHECK(vkBeginCommandBuffer(commands, &begin));
    scene->record(loop->state, commands, frame);
    VKH_CHECK(vkEndCommandBuffer(commands));
}

static void submit(struct loop *loop, VkCommandBuffer commands, VkFence fence)
{
    const VkSubmitInfo info = {
        .sType = VK_STRUCTURE_TYPE_SUBMIT_INFO,
        .commandBufferCount = 1,
        .pCommandBuffers = &commands,
    };
    vkh_queue_submit(&loop->vk, &info, fence);
}

static void draw_first(struct loop *loop)
{
    record_frame(loop, loop->commands[0], 0);
    submit(loop, loop->commands[0], loop->fences[0]);
    VKH_CHECK(vkWaitForFences(loop->vk.device, 1, &loop->fences[0], VK_TRUE, UINT64_MAX));
    VKH_CHECK(vkResetFences(loop->vk.device, 1, &loop->fences[0]));
    announce();
}

static _Noreturn void draw_for_ever(struct loop *loop)
{
    for (uint32_t frame = 0;; frame++) {
        uint32_t slot = frame % IN_FLIGHT;
        if (frame >= IN_FLIGHT) {
            VKH_CHECK(
                vkWaitForFences(loop->vk.device, 1, &loop->fences[slot], VK_TRUE, UINT64_MAX));
            VKH_CHECK(vkResetFences(loop->vk.device, 1, &loop->fences[slot]));
        }
        record_frame(loop, loop->commands[slot], frame);
        submit(loop, loop->commands[slot], loop->fences[slot]);
    }
}

/* Calls that need no answer and cost the sender far less than the one who runs them: whole command
 * buffers, recorded and thrown away. A submission now and then keeps the queue busy too; its fence
 * is waited for before the next, or the driver's queue would grow without end. */
static _Noreturn void fill_ring(struct loop *loop)
{
    enum { RECORDINGS_PER_SUBMIT = 2000 };
    bool submitted = false;
    for (uint32_t i = 0;; i++) {
        record_frame(loop, loop->commands[1], i);
        if (i % RECORDINGS_PER_SUBMIT != 0)
            continue;
        if (submitted) {
            VKH_CHECK(vkWaitForFences(loop->vk.device, 1, &loop->fences[0], VK_TRUE, UINT64_MAX));
            VKH_CHECK(vkResetFences(loop->vk.device, 1, &loop->fences[0]));
        }
        submit(loop, loop->commands[0], loop->fences[0]);
        submitted = true;
    }
}

static _Noreturn void usage(void)
{
    fprintf(stderr, "usage: pv-loop [--fill-ring | --idle SECONDS | --bare SECONDS]\n");
    exit(2);
}

int main(int argc, char **argv)
{
    bool fill = false, idle = false, bare = false;
    unsigned seconds = 0;
    vkh_set_program(argv[0]);
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--fill-ring") == 0) {
            fill = true;
        } else if (strcmp(argv[i], "--idle") == 0 || strcmp(argv[i], "--bare") == 0) {
            idle = argv[i][2] == 'i';
            bare = !idle;
            seconds = (unsigned)vkh_parse_size(vkh_option_value(argc, argv, &i));
        } else {
            usage();
        }
    }
    struct loop loop = {0};
    if (bare) {
        vkh_instance_init(&loop.vk, NULL);
        vkh_device_init(&loop.vk, NULL);
        announce();
    } else {
        loop_init(&loop);
        draw_first(&loop);
    }
    if (fill)
        fill_ring(&loop);
    if (!idle && !bare)
        draw_for_ever(&loop);
    sleep(seconds);
    free(loop.state);
    vkh_finish(&loop.vk);
    return 0;
}
