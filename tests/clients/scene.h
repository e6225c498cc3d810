/* The scenes of pv-render.
 *
 * A scene draws a picture that depends on nothing but the frame number, so that two drivers over
 * the same device give the same bytes. The order of calls is setup, then per frame submit (or
 * record and a plain submission by the caller), then finish.
 */
#ifndef SCENE_H
#define SCENE_H

#include "shaders.h"
#include "vkh.h"

struct scene {
    const char *name;
    const char *about;
    /* Makes everything the scene needs and returns its state (malloc; the caller frees it). The
     * objects belong to vk. target: RGBA8, every usage; borrowed until the end. */
    void *(*setup)(struct vkh *vk, const struct vkh_image *target);
    /* Record one frame. The target's old contents and layout do not matter; it is left in
     * TRANSFER_SRC_OPTIMAL. Frames overlap in flight: nothing here may be written by the host. */
    void (*record)(void *state, VkCommandBuffer commands, uint32_t frame);
    /* Optional: submit the recorded commands some other way. They must signal the fence. */
    void (*submit)(void *state, VkCommandBuffer commands, VkFence fence, uint32_t frame);
    /* Optional: after the last frame has finished; prints or checks what is not in the picture. */
    void (*finish)(void *state);
};

extern const struct scene scenes_draw[];
extern const struct scene scenes_pass[];
extern const struct scene scenes_pipeline[];
extern const struct scene scenes_compute[];
extern const struct scene scenes_sync[];
extern const struct scene scenes_demo[];
/* Each list ends with an entry without a name. */

/* What most scenes draw on: a render pass over the target. */
struct canvas {
    struct vkh *vk;
    const struct vkh_image *target; /* borrowed */
    uint32_t width, height;
    VkRenderPass pass;
    VkFramebuffer framebuffer;
};

void canvas_init(struct canvas *canvas, struct vkh *vk, const struct vkh_image *target,
                 VkFormat depth_format, VkSampleCountFlagBits samples);
/* Begin the pass over a dark background. */
void canvas_begin(const struct canvas *canvas, VkCommandBuffer commands);

/* A rectangle of quad.vert. */
struct quad {
    float rect[4]; /* left, top, right, bottom in clip space */
    float color[4];
    float depth;
};

enum { QUAD_PUSH_SIZE = 64 }; /* struct quad, then room for the fragment shader at 48 */

void draw_quad(VkCommandBuffer commands, VkPipelineLayout layout, const struct quad *quad);
/* The whole picture, for fragment shaders that do the work. */
void draw_full(VkCommandBuffer commands, VkPipelineLayout layout);

/* Zeroed memory, or the end of the program. */
void *scene_alloc(size_t size);
/* The same sequence of numbers in 0 … 1 everywhere. */
float scene_random(uint32_t *seed);
/* A square RGBA8 test image with all mipmap levels, ready for shaders. */
struct vkh_image scene_texture(struct vkh *vk, uint32_t size, uint32_t variant);
/* Angle of a frame, in radians. */
float scene_angle(uint32_t frame);

#endif
