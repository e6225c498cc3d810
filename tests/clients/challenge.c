/* pv-challenge SEED: render the picture that belongs to the seed and write it to standard output.
 *
 * `pearvisor doctor --guest` runs this in a guest; src/vm/challenge.h says what comes out. Output:
 * the magic line, a line "DRIVER_ID DEVICE NAME", then rows of four bytes per pixel.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shaders.h"
#include "vm/challenge.h"

static struct vkh_image make_target(struct vkh *vk)
{
    const struct vkh_image_params params = {
        .format = VK_FORMAT_R8G8B8A8_UINT,
        .width = PV_CHALLENGE_SIZE,
        .height = PV_CHALLENGE_SIZE,
        .usage = VK_IMAGE_USAGE_COLOR_ATTACHMENT_BIT | VK_IMAGE_USAGE_TRANSFER_SRC_BIT,
    };
    return vkh_image(vk, &params);
}

static void draw(struct vkh *vk, const struct vkh_image *target, uint32_t seed,
                 const struct vkh_buffer *out)
{
    const struct vkh_pass_params pass_params = {
        .color = target->format,
        .final_layout = VK_IMAGE_LAYOUT_TRANSFER_SRC_OPTIMAL,
    };
    VkRenderPass pass = vkh_render_pass(vk, &pass_params);
    VkFramebuffer framebuffer =
        vkh_framebuffer(vk, pass, &target->view, 1, PV_CHALLENGE_SIZE, PV_CHALLENGE_SIZE);
    VkPipelineLayout layout = vkh_pipeline_layout(vk, NULL, 0, sizeof(seed));
    const struct vkh_pipeline_params pipeline_params = {
        .vertex = &challenge_vert, .fragment = &challenge_frag, .layout = layout, .pass = pass};
    VkPipeline pipeline = vkh_graphics_pipeline(vk, &pipeline_params);

    VkCommandBuffer commands = vkh_begin(vk);
    vkh_begin_pass(commands, pass, framebuffer, PV_CHALLENGE_SIZE, PV_CHALLENGE_SIZE,
                   (const float[4]){0}, VK_SUBPASS_CONTENTS_INLINE);
    vkCmdBindPipeline(commands, VK_PIPELINE_BIND_POINT_GRAPHICS, pipeline);
    vkh_viewport(commands, PV_CHALLENGE_SIZE, PV_CHALLENGE_SIZE);
    vkCmdPushConstants(commands, layout, VK_SHADER_STAGE_ALL, 0, sizeof(seed), &seed);
    vkCmdDraw(commands, 3, 1, 0, 0);
    vkCmdEndRenderPass(commands);
    vkh_copy_to_buffer(commands, target, out);
    vkh_submit_wait(vk, commands);
}

static VkDriverId driver_id(const struct vkh *vk)
{
    VkPhysicalDeviceDriverProperties driver = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_DRIVER_PROPERTIES};
    VkPhysicalDeviceProperties2 properties = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2, .pNext = &driver};
    vkGetPhysicalDeviceProperties2(vk->physical, &properties);
    return driver.driverID;
}

int main(int argc, char **argv)
{
    char *end = NULL;
    vkh_set_program(argv[0]);
    unsigned long seed = argc == 2 ? strtoul(argv[1], &end, 0) : 0;
    if (argc != 2 || end == argv[1] || *end || seed > UINT32_MAX) {
        fprintf(stderr, "usage: pv-challenge SEED > PIXELS\n");
        return 2;
    }
    struct vkh vk = {0};
    vkh_init(&vk, NULL);
    struct vkh_image target = make_target(&vk);
    struct vkh_buffer out =
        vkh_buffer(&vk, sizeof(uint32_t) * PV_CHALLENGE_SIZE * PV_CHALLENGE_SIZE,
                   VK_BUFFER_USAGE_TRANSFER_DST_BIT, VKH_HOST_MEMORY);
    draw(&vk, &target, (uint32_t)seed, &out);
    printf("%s\n%d %s\n", PV_CHALLENGE_MAGIC, (int)driver_id(&vk), vk.properties.deviceName);
    bool written = fwrite(out.map, 1, out.size, stdout) == out.size && fflush(stdout) == 0;
    if (!written)
        perror("pv-challenge: standard output");
    vkh_finish(&vk);
    return written ? 0 : 1;
}
