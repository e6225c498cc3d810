/* pv-swapchain: VK_KHR_swapchain on a headless surface.
 *
 *   pv-swapchain [--frames N] [--size WxH] [--present-mode fifo|mailbox|immediate]
 *
 * Acquires, draws and presents N frames, checks the pixels of the last one where the images may be
 * read, and prints the rate. Exit status 77: no headless surface or no swapchain on this device.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shaders.h"
#include "vkh.h"

enum { IN_FLIGHT = 2, MAX_IMAGES = 16 };

struct options {
    uint32_t frames, width, height;
    VkPresentModeKHR mode;
};

struct frame {
    VkCommandBuffer commands;
    VkSemaphore acquired;
    VkFence fence;
};

struct chain {
    struct vkh vk;
    VkSurfaceKHR surface;
    VkSurfaceCapabilitiesKHR capabilities;
    VkSurfaceFormatKHR format;
    VkSwapchainKHR swapchain;
    VkExtent2D extent;
    uint32_t image_count;
    VkImage images[MAX_IMAGES];
    VkFramebuffer framebuffers[MAX_IMAGES];
    VkSemaphore rendered[MAX_IMAGES]; /* per image: a presentation may still wait for it */
    VkRenderPass pass;
    VkPipelineLayout layout;
    VkPipeline pipeline;
    struct frame frames[IN_FLIGHT];
    struct vkh_buffer readback;
    bool readable;
};

static void create_surface(struct chain *c)
{
    const VkHeadlessSurfaceCreateInfoEXT info = {
        .sType = VK_STRUCTURE_TYPE_HEADLESS_SURFACE_CREATE_INFO_EXT,
    };
    VKH_CHECK(vkCreateHeadlessSurfaceEXT(c->vk.instance, &info, NULL, &c->surface));
    VKH_KEEP(&c->vk, SURFACE_KHR, c->surface);
    VkBool32 supported;
    VKH_CHECK(vkGetPhysicalDeviceSurfaceSupportKHR(c->vk.physical, c->vk.queue_family, c->surface,
                                                   &supported));
    if (!supported)
        vkh_fail("queue family %u cannot present to a headless surface", c->vk.queue_family);
    VKH_CHECK(
        vkGetPhysicalDeviceSurfaceCapabilitiesKHR(c->vk.physical, c->surface, &c->capabilities));
}

static void choose_format(struct chain *c)
{
    VkSurfaceFormatKHR formats[64];
    uint32_t count = VKH_COUNT(formats);
    VkResult result =
        vkGetPhysicalDeviceSurfaceFormatsKHR(c->vk.physical, c->surface, &count, formats);
    if ((result != VK_SUCCESS && result != VK_INCOMPLETE) || count == 0)
        vkh_fail("vkGetPhysicalDeviceSurfaceFormatsKHR: %s, %u formats", vkh_result_name(result),
                 count);
    c->format = formats[0];
    for (uint32_t i = 0; i < count; i++) {
        if (formats[i].format == VK_FORMAT_B8G8R8A8_UNORM)
            c->format = formats[i];
    }
}

static void require_mode(struct chain *c, VkPresentModeKHR mode)
{
    VkPresentModeKHR modes[16];
    uint32_t count = VKH_COUNT(modes);
    VKH_CHECK(vkGetPhysicalDeviceSurfacePresentModesKHR(c->vk.physical, c->surface, &count, modes));
    for (uint32_t i = 0; i < count; i++) {
        if (modes[i] == mode)
            return;
    }
    vkh_skip("the surface has no present mode %d", (int)mode);
}

static void create_swapchain(struct chain *c, const struct options *options)
{
    c->extent = c->capabilities.currentExtent;
    if (c->extent.width == UINT32_MAX || c->extent.width == 0)
        c->extent = (VkExtent2D){options->width, options->height};
    uint32_t wanted = c->capabilities.minImageCount < 3 ? 3 : c->capabilities.minImageCount;
    if (c->capabilities.maxImageCount && wanted > c->capabilities.maxImageCount)
        wanted = c->capabilities.maxImageCount;
    c->readable = c->capabilities.supportedUsageFlags & VK_IMAGE_USAGE_TRANSFER_SRC_BIT;
    const VkSwapchainCreateInfoKHR info = {
        .sType = VK_STRUCTURE_TYPE_SWAPCHAIN_CREATE_INFO_KHR,
        .surface = c->surface,
        .minImageCount = wanted,
        .imageFormat = c->format.format,
        .imageColorSpace = c->format.colorSpace,
        .imageExtent = c->extent,
        .imageArrayLayers = 1,
        .imageUsage = VK_IMAGE_USAGE_COLOR_ATTACHMENT_BIT |
                      (c->readable ? (VkImageUsageFlags)VK_IMAGE_USAGE_TRANSFER_SRC_BIT : 0u),
        .preTransform = c->capabilities.currentTransform,
        .compositeAlpha = VK_COMPOSITE_ALPHA_OPAQUE_BIT_KHR,
        .presentMode = options->mode,
        .clipped = VK_TRUE,
    };
    VKH_CHECK(vkCreateSwapchainKHR(c->vk.device, &info, NULL, &c->swapchain));
    VKH_KEEP(&c->vk, SWAPCHAIN_KHR, c->swapchain);
    c->image_count = MAX_IMAGES;
    VKH_CHECK(vkGetSwapchainImagesKHR(c->vk.device, c->swapchain, &c->image_count, c->images));
}

static VkImageView create_view(struct chain *c, VkImage image)
{
    const VkImageViewCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_IMAGE_VIEW_CREATE_INFO,
        .image = image,
        .viewType = VK_IMAGE_VIEW_TYPE_2D,
        .format = c->format.format,
        .subresourceRange = {VK_IMAGE_ASPECT_COLOR_BIT, 0, 1, 0, 1},
    };
    VkImageView view;
    VKH_CHECK(vkCreateImageView(c->vk.device, &info, NULL, &view));
    VKH_KEEP(&c->vk, IMAGE_VIEW, view);
    return view;
}

static void create_drawing(struct chain *c)
{
    struct vkh *vk = &c->vk;
    const struct vkh_pass_params pass = {
        .color = c->format.format,
        .final_layout = VK_IMAGE_LAYOUT_PRESENT_SRC_KHR,
    };
    c->pass = vkh_render_pass(vk, &pass);
    for (uint32_t i = 0; i < c->image_count; i++) {
        VkImageView view = create_view(c, c->images[i]);
        c->framebuffers[i] =
            vkh_framebuffer(vk, c->pass, &view, 1, c->extent.width, c->extent.height);
        c->rendered[i] = vkh_semaphore(vk);
    }
    c->layout = vkh_pipeline_layout(vk, NULL, 0, sizeof(float));
    const struct vkh_pipeline_params pipeline = {
        .vertex = &triangle_vert,
        .fragment = &color_frag,
        .layout = c->layout,
        .pass = c->pass,
    };
    c->pipeline = vkh_graphics_pipeline(vk, &pipeline);
    for (uint32_t i = 0; i < IN_FLIGHT; i++) {
        c->frames[i] = (struct frame){
            .commands = vkh_command_buffer(vk, VK_COMMAND_BUFFER_LEVEL_PRIMARY),
            .acquired = vkh_semaphore(vk),
            .fence = vkh_fence(vk),
        };
    }
    c->readback = vkh_buffer(vk, (VkDeviceSize)c->extent.width * c->extent.height * 4,
                             VK_BUFFER_USAGE_TRANSFER_DST_BIT, VKH_HOST_MEMORY);
}

static void record_readback(struct chain *c, VkCommandBuffer commands, uint32_t image_index)
{
    const struct vkh_image image = {
        .image = c->images[image_index],
        .extent = {c->extent.width, c->extent.height, 1},
        .mip_levels = 1,
        .layer_count = 1,
        .aspect = VK_IMAGE_ASPECT_COLOR_BIT,
    };
    vkh_layout(commands, &image, VK_IMAGE_LAYOUT_PRESENT_SRC_KHR,
               VK_IMAGE_LAYOUT_TRANSFER_SRC_OPTIMAL);
    vkh_copy_to_buffer(commands, &image, &c->readback);
    vkh_layout(commands, &image, VK_IMAGE_LAYOUT_TRANSFER_SRC_OPTIMAL,
               VK_IMAGE_LAYOUT_PRESENT_SRC_KHR);
}

static void record(struct chain *c, VkCommandBuffer commands, uint32_t image_index, uint32_t number,
                   bool read_back)
{
    static const float clear[4] = {0, 0, 1, 1};
    const float angle = (float)number * 0.05f;
    const VkCommandBufferBeginInfo begin = {
        .sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO,
        .flags = VK_COMMAND_BUFFER_USAGE_ONE_TIME_SUBMIT_BIT,
    };
    VKH_CHECK(vkBeginCommandBuffer(commands, &begin));
    vkh_begin_pass(commands, c->pass, c->framebuffers[image_index], c->extent.width,
                   c->extent.height, clear, VK_SUBPASS_CONTENTS_INLINE);
    vkCmdBindPipeline(commands, VK_PIPELINE_BIND_POINT_GRAPHICS, c->pipeline);
    vkCmdPushConstants(commands, c->layout, VK_SHADER_STAGE_ALL, 0, sizeof(angle), &angle);
    vkCmdDraw(commands, 3, 1, 0, 0);
    vkCmdEndRenderPass(commands);
    if (read_back)
        record_readback(c, commands, image_index);
    VKH_CHECK(vkEndCommandBuffer(commands));
}

static void present(struct chain *c, uint32_t image_index)
{
    const VkPresentInfoKHR info = {
        .sType = VK_STRUCTURE_TYPE_PRESENT_INFO_KHR,
        .waitSemaphoreCount = 1,
        .pWaitSemaphores = &c->rendered[image_index],
        .swapchainCount = 1,
        .pSwapchains = &c->swapchain,
        .pImageIndices = &image_index,
    };
    VkResult result = vkQueuePresentKHR(c->vk.queue, &info);
    if (result != VK_SUCCESS && result != VK_SUBOPTIMAL_KHR)
        vkh_fail("vkQueuePresentKHR: %s", vkh_result_name(result));
}

static void draw_frame(struct chain *c, uint32_t number, bool last)
{
    struct vkh *vk = &c->vk;
    struct frame *frame = &c->frames[number % IN_FLIGHT];
    if (number >= IN_FLIGHT) {
        VKH_CHECK(vkWaitForFences(vk->device, 1, &frame->fence, VK_TRUE, UINT64_MAX));
        VKH_CHECK(vkResetFences(vk->device, 1, &frame->fence));
    }
    uint32_t index;
    VkResult result = vkAcquireNextImageKHR(vk->device, c->swapchain, UINT64_MAX, frame->acquired,
                                            VK_NULL_HANDLE, &index);
    if (result != VK_SUCCESS && result != VK_SUBOPTIMAL_KHR)
        vkh_fail("vkAcquireNextImageKHR: %s", vkh_result_name(result));
    if (index >= c->image_count)
        vkh_fail("vkAcquireNextImageKHR gave image %u of %u", index, c->image_count);
    record(c, frame->commands, index, number, last && c->readable);
    const VkPipelineStageFlags stage = VK_PIPELINE_STAGE_ALL_COMMANDS_BIT;
    const VkSubmitInfo submit = {
        .sType = VK_STRUCTURE_TYPE_SUBMIT_INFO,
        .waitSemaphoreCount = 1,
        .pWaitSemaphores = &frame->acquired,
        .pWaitDstStageMask = &stage,
        .commandBufferCount = 1,
        .pCommandBuffers = &frame->commands,
        .signalSemaphoreCount = 1,
        .pSignalSemaphores = &c->rendered[index],
    };
    vkh_queue_submit(vk, &submit, frame->fence);
    present(c, index);
}

/* The corner is clear color (blue), the middle is inside the triangle (not blue alone). */
static void check_pixels(const struct chain *c)
{
    const uint8_t *pixels = c->readback.map;
    size_t middle = ((size_t)c->extent.height / 2 * c->extent.width + c->extent.width / 2) * 4;
    bool bgra = c->format.format == VK_FORMAT_B8G8R8A8_UNORM;
    if (!bgra)
        return;
    if (pixels[0] != 255 || pixels[1] != 0 || pixels[2] != 0)
        vkh_fail("the corner is %u %u %u instead of blue", pixels[2], pixels[1], pixels[0]);
    if (pixels[middle + 1] < 32 || pixels[middle + 2] < 32)
        vkh_fail("there is no triangle in the middle");
    printf("pixels of the last frame are right\n");
}

static _Noreturn void usage(void)
{
    fprintf(stderr, "usage: pv-swapchain [--frames N] [--size WxH] "
                    "[--present-mode fifo|mailbox|immediate]\n");
    exit(2);
}

static VkPresentModeKHR parse_mode(const char *name)
{
    if (strcmp(name, "fifo") == 0)
        return VK_PRESENT_MODE_FIFO_KHR;
    if (strcmp(name, "mailbox") == 0)
        return VK_PRESENT_MODE_MAILBOX_KHR;
    if (strcmp(name, "immediate") == 0)
        return VK_PRESENT_MODE_IMMEDIATE_KHR;
    usage();
}

static struct options parse_options(int argc, char **argv)
{
    struct options options = {300, 640, 480, VK_PRESENT_MODE_FIFO_KHR};
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--frames") == 0) {
            options.frames = (uint32_t)vkh_parse_size(vkh_option_value(argc, argv, &i));
        } else if (strcmp(argv[i], "--present-mode") == 0) {
            options.mode = parse_mode(vkh_option_value(argc, argv, &i));
        } else if (strcmp(argv[i], "--size") == 0) {
            if (sscanf(vkh_option_value(argc, argv, &i), "%ux%u", &options.width,
                       &options.height) != 2)
                usage();
        } else {
            usage();
        }
    }
    if (options.frames == 0)
        usage();
    return options;
}

int main(int argc, char **argv)
{
    static const char *const instance_extensions[] = {
        VK_KHR_SURFACE_EXTENSION_NAME,
        VK_EXT_HEADLESS_SURFACE_EXTENSION_NAME,
    };
    static const char *const device_extensions[] = {VK_KHR_SWAPCHAIN_EXTENSION_NAME};
    vkh_set_program(argv[0]);
    const struct options options = parse_options(argc, argv);
    const struct vkh_params params = {
        .instance_extensions = instance_extensions,
        .instance_extension_count = VKH_COUNT(instance_extensions),
        .device_extensions = device_extensions,
        .device_extension_count = VKH_COUNT(device_extensions),
    };
    struct chain chain = {0};
    vkh_init(&chain.vk, &params);
    create_surface(&chain);
    choose_format(&chain);
    require_mode(&chain, options.mode);
    create_swapchain(&chain, &options);
    create_drawing(&chain);
    uint64_t start = vkh_now_ns();
    for (uint32_t i = 0; i < options.frames; i++)
        draw_frame(&chain, i, i == options.frames - 1);
    VKH_CHECK(vkDeviceWaitIdle(chain.vk.device));
    uint64_t time = vkh_now_ns() - start;
    if (chain.readable)
        check_pixels(&chain);
    printf("swapchain: %u images of %ux%u, %u frames, %.1f frames/s on %s\n", chain.image_count,
           chain.extent.width, chain.extent.height, options.frames,
           options.frames * 1e9 / (double)time, chain.vk.properties.deviceName);
    vkh_finish(&chain.vk);
    return 0;
}
