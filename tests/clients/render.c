/* pv-render: draws one scene off screen and writes the pixels.
 *
 *   pv-render --list
 *   pv-render --scene NAME [--size WxH] [--frames N] [--raw FILE] [--png FILE] [--quiet]
 *
 * The raw file holds the last frame as RGBA8, top row first. With more than one frame the rate is
 * printed, measured from the first submission to the end of the last; two frames are in flight, as
 * in most programs. Exit status 77: this device lacks something that the scene needs.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "png_write.h"
#include "scene.h"

enum { IN_FLIGHT = 2 };

struct options {
    const char *scene, *raw_path, *png_path;
    uint32_t width, height, frames;
    bool list, quiet;
};

static const struct scene *const scene_lists[] = {
    scenes_draw, scenes_pass, scenes_pipeline, scenes_compute, scenes_sync, scenes_demo,
};

static void list_scenes(void)
{
    for (size_t i = 0; i < VKH_COUNT(scene_lists); i++) {
        for (const struct scene *scene = scene_lists[i]; scene->name; scene++)
            printf("%-20s %s\n", scene->name, scene->about);
    }
}

static const struct scene *find_scene(const char *name)
{
    for (size_t i = 0; i < VKH_COUNT(scene_lists); i++) {
        for (const struct scene *scene = scene_lists[i]; scene->name; scene++) {
            if (strcmp(scene->name, name) == 0)
                return scene;
        }
    }
    return NULL;
}

static _Noreturn void usage(void)
{
    fprintf(stderr, "usage: pv-render --list | --scene NAME [--size WxH] [--frames N] [--raw FILE] "
                    "[--png FILE] [--quiet]\n");
    exit(2);
}

static void parse_size_option(struct options *options, const char *text)
{
    if (sscanf(text, "%ux%u", &options->width, &options->height) != 2 || options->width == 0 ||
        options->height == 0 || options->width > 4096 || options->height > 4096)
        usage();
}

static struct options parse_options(int argc, char **argv)
{
    struct options options = {.width = 256, .height = 256, .frames = 1};
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--list") == 0)
            options.list = true;
        else if (strcmp(argv[i], "--quiet") == 0)
            options.quiet = true;
        else if (strcmp(argv[i], "--scene") == 0)
            options.scene = vkh_option_value(argc, argv, &i);
        else if (strcmp(argv[i], "--raw") == 0)
            options.raw_path = vkh_option_value(argc, argv, &i);
        else if (strcmp(argv[i], "--png") == 0)
            options.png_path = vkh_option_value(argc, argv, &i);
        else if (strcmp(argv[i], "--size") == 0)
            parse_size_option(&options, vkh_option_value(argc, argv, &i));
        else if (strcmp(argv[i], "--frames") == 0)
            options.frames = (uint32_t)vkh_parse_size(vkh_option_value(argc, argv, &i));
        else
            usage();
    }
    if ((!options.list && !options.scene) || options.frames == 0)
        usage();
    return options;
}

static void submit_plain(struct vkh *vk, VkCommandBuffer commands, VkFence fence)
{
    const VkSubmitInfo submit = {
        .sType = VK_STRUCTURE_TYPE_SUBMIT_INFO,
        .commandBufferCount = 1,
        .pCommandBuffers = &commands,
    };
    vkh_queue_submit(vk, &submit, fence);
}

/* Draw all frames, the last one also into the readback buffer. Returns the time in ns. */
static uint64_t draw_frames(struct vkh *vk, const struct scene *scene, void *state,
                            const struct vkh_image *target, const struct vkh_buffer *readback,
                            uint32_t frame_count)
{
    VkCommandBuffer commands[IN_FLIGHT];
    VkFence fences[IN_FLIGHT];
    for (uint32_t i = 0; i < IN_FLIGHT; i++) {
        commands[i] = vkh_command_buffer(vk, VK_COMMAND_BUFFER_LEVEL_PRIMARY);
        fences[i] = vkh_fence(vk);
    }
    uint64_t start = vkh_now_ns();
    for (uint32_t frame = 0; frame < frame_count; frame++) {
        uint32_t slot = frame % IN_FLIGHT;
        if (frame >= IN_FLIGHT) {
            VKH_CHECK(vkWaitForFences(vk->device, 1, &fences[slot], VK_TRUE, UINT64_MAX));
            VKH_CHECK(vkResetFences(vk->device, 1, &fences[slot]));
        }
        const VkCommandBufferBeginInfo begin = {
            .sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO,
            .flags = VK_COMMAND_BUFFER_USAGE_ONE_TIME_SUBMIT_BIT,
        };
        VKH_CHECK(vkBeginCommandBuffer(commands[slot], &begin));
        scene->record(state, commands[slot], frame);
        if (frame == frame_count - 1)
            vkh_copy_to_buffer(commands[slot], target, readback);
        VKH_CHECK(vkEndCommandBuffer(commands[slot]));
        if (scene->submit)
            scene->submit(state, commands[slot], fences[slot], frame);
        else
            submit_plain(vk, commands[slot], fences[slot]);
    }
    uint32_t used = frame_count < IN_FLIGHT ? frame_count : IN_FLIGHT;
    VKH_CHECK(vkWaitForFences(vk->device, used, fences, VK_TRUE, UINT64_MAX));
    return vkh_now_ns() - start;
}

static void write_raw(const char *path, const void *pixels, size_t size)
{
    FILE *file = fopen(path, "wb");
    if (!file)
        vkh_fail("cannot write %s: %s", path, strerror(errno));
    bool written = fwrite(pixels, 1, size, file) == size;
    if (fclose(file) != 0 || !written)
        vkh_fail("cannot write %s: %s", path, strerror(errno));
}

static void write_results(const struct options *options, const void *pixels)
{
    if (options->raw_path)
        write_raw(options->raw_path, pixels, (size_t)options->width * options->height * 4);
    if (options->png_path) {
        int ret = png_write(options->png_path, pixels, options->width, options->height);
        if (ret < 0)
            vkh_fail("cannot write %s: %s", options->png_path, strerror(-ret));
    }
}

int main(int argc, char **argv)
{
    vkh_set_program(argv[0]);
    const struct options options = parse_options(argc, argv);
    if (options.list) {
        list_scenes();
        return 0;
    }
    const struct scene *scene = find_scene(options.scene);
    if (!scene)
        vkh_fail("there is no scene '%s' (see --list)", options.scene);
    struct vkh vk;
    vkh_init(&vk, NULL);
    const struct vkh_image_params target_params = {
        .format = VK_FORMAT_R8G8B8A8_UNORM,
        .width = options.width,
        .height = options.height,
        .usage = VK_IMAGE_USAGE_COLOR_ATTACHMENT_BIT | VK_IMAGE_USAGE_STORAGE_BIT |
                 VK_IMAGE_USAGE_SAMPLED_BIT | VK_IMAGE_USAGE_TRANSFER_SRC_BIT |
                 VK_IMAGE_USAGE_TRANSFER_DST_BIT,
    };
    struct vkh_image target = vkh_image(&vk, &target_params);
    struct vkh_buffer readback = vkh_buffer(&vk, (VkDeviceSize)options.width * options.height * 4,
                                            VK_BUFFER_USAGE_TRANSFER_DST_BIT, VKH_HOST_MEMORY);
    void *state = scene->setup(&vk, &target);
    uint64_t time = draw_frames(&vk, scene, state, &target, &readback, options.frames);
    if (scene->finish)
        scene->finish(state);
    write_results(&options, readback.map);
    if (!options.quiet && options.frames > 1)
        printf("%s: %u frames, %.1f frames/s on %s\n", scene->name, options.frames,
               options.frames * 1e9 / (double)time, vk.properties.deviceName);
    free(state);
    vkh_finish(&vk);
    return 0;
}
