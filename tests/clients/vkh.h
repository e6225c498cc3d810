/* Vulkan helper shared by the client programs of tests/clients and bench.
 *
 * The programs are ordinary Vulkan applications: they find libvulkan.so.1 with dlopen, know nothing
 * of PearVisor, and run the same natively and through Venus. Which driver they meet is the loader's
 * business (VK_DRIVER_FILES); PV_CLIENT_DEVICE=n picks the n-th physical device instead of the
 * first.
 *
 * Ownership: every object made by a vkh_* function belongs to its struct vkh and is destroyed,
 *            newest first, by vkh_release() or vkh_finish(). Callers never destroy one themselves.
 * Threads:   a struct vkh is used by one thread. Other threads get their own with vkh_child_init();
 *            only the queue is shared, and vkh_queue_submit() locks it.
 * Errors:    nothing returns an error. A failed call prints one line and ends the process with 1, a
 *            missing feature with 77 (VKH_CHECK, vkh_fail, vkh_skip); see vkh_on_exit().
 */
#ifndef VKH_H
#define VKH_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vkh_loader.h"

#define VKH_SKIP         77 /* exit status of a test that cannot run here, as Meson expects it */
#define VKH_COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define VKH_HOST_MEMORY  (VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT | VK_MEMORY_PROPERTY_HOST_COHERENT_BIT)

struct vkh_params {
    const char *const *instance_extensions; /* borrowed; all are required */
    uint32_t instance_extension_count;
    const char *const *device_extensions; /* borrowed; all are required */
    uint32_t device_extension_count;
};

struct vkh_object {
    VkObjectType type;
    uint64_t handle;
};

struct vkh {
    VkInstance instance;
    VkPhysicalDevice physical;
    VkDevice device;
    uint32_t queue_family; /* graphics and compute */
    VkQueue queue;
    pthread_mutex_t *queue_lock; /* shared by a context and its children */
    VkCommandPool command_pool;
    uint32_t api_version; /* the lower one of ours and the device's */
    VkPhysicalDeviceProperties properties;
    VkPhysicalDeviceMemoryProperties memory;
    uint32_t timestamp_bits;
    /* What the device has; all of it but robustBufferAccess is switched on. Members of a newer
     * version than api_version are zero. */
    VkPhysicalDeviceFeatures features;
    VkPhysicalDeviceVulkan11Features features11;
    VkPhysicalDeviceVulkan12Features features12;
    VkPhysicalDeviceVulkan13Features features13;
    struct vkh_object *objects;
    size_t object_count;
    size_t object_capacity;
    bool child;
};

/* ---- start and end ---- */

/* Name used in messages; borrowed for ever. */
void vkh_set_program(const char *name);
/* Called instead of printing when the process is about to end with `status` because of `reason`. */
void vkh_on_exit(void (*handler)(int status, const char *reason));
_Noreturn void vkh_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
_Noreturn void vkh_skip(const char *format, ...) __attribute__((format(printf, 1, 2)));
const char *vkh_result_name(VkResult result);
#define VKH_CHECK(call) vkh_check((call), #call, __FILE__, __LINE__)
void vkh_check(VkResult result, const char *call, const char *file, int line);

/* Loader, instance, device, queue and command pool. params may be NULL. */
void vkh_init(struct vkh *vk, const struct vkh_params *params);
/* The two halves of vkh_init, for programs that time them. */
void vkh_instance_init(struct vkh *vk, const struct vkh_params *params);
void vkh_device_init(struct vkh *vk, const struct vkh_params *params);
/* A context for another thread: same device and queue, own command pool and object list. */
void vkh_child_init(struct vkh *child, const struct vkh *parent);
void vkh_finish(struct vkh *vk);
bool vkh_has_device_extension(const struct vkh *vk, const char *name);

/* Everything made after the mark goes when the mark is released. */
size_t vkh_mark(const struct vkh *vk);
void vkh_release(struct vkh *vk, size_t mark);
/* Hand over an object that the program made itself. */
#define VKH_KEEP(vk, type, handle) vkh_keep(vk, VK_OBJECT_TYPE_##type, (uint64_t)(handle))
void vkh_keep(struct vkh *vk, VkObjectType type, uint64_t handle);

/* ---- memory, buffers, images ---- */

struct vkh_buffer {
    VkBuffer buffer;
    VkDeviceMemory memory;
    VkDeviceSize size;
    void *map; /* NULL unless host-visible memory was asked for */
};

struct vkh_image_params {
    VkFormat format;
    uint32_t width, height;
    uint32_t depth;                /* above 1: a 3D image */
    uint32_t mip_levels;           /* 0: 1 */
    uint32_t layer_count;          /* 0: 1; above 1 the view is an array */
    bool cube;                     /* needs 6 layers */
    VkSampleCountFlagBits samples; /* 0: 1 */
    VkImageUsageFlags usage;
};

struct vkh_image {
    VkImage image;
    VkDeviceMemory memory;
    VkImageView view; /* everything in it */
    VkFormat format;
    VkExtent3D extent;
    uint32_t mip_levels, layer_count;
    VkImageAspectFlags aspect;
};

/* Index of the first memory type with all flags, or UINT32_MAX. */
uint32_t vkh_memory_type(const struct vkh *vk, uint32_t type_bits, VkMemoryPropertyFlags flags);
VkDeviceMemory vkh_allocate(struct vkh *vk, VkDeviceSize size, uint32_t type_index, bool address);
VkBuffer vkh_raw_buffer(struct vkh *vk, VkDeviceSize size, VkBufferUsageFlags usage);
struct vkh_buffer vkh_buffer(struct vkh *vk, VkDeviceSize size, VkBufferUsageFlags usage,
                             VkMemoryPropertyFlags flags);
/* Host memory holding a copy of data. */
struct vkh_buffer vkh_buffer_with(struct vkh *vk, const void *data, VkDeviceSize size,
                                  VkBufferUsageFlags usage);
struct vkh_image vkh_image(struct vkh *vk, const struct vkh_image_params *params);
/* Fill level 0 of all layers from tightly packed texels, make the other levels by blitting, and
 * leave the image ready for shaders. The image needs both transfer usages. */
void vkh_image_upload(struct vkh *vk, const struct vkh_image *image, const void *texels,
                      VkDeviceSize size);
VkSampler vkh_sampler(struct vkh *vk, VkFilter filter, VkSamplerAddressMode mode);

/* ---- commands ---- */

VkCommandBuffer vkh_command_buffer(struct vkh *vk, VkCommandBufferLevel level);
VkCommandBuffer vkh_begin(struct vkh *vk);
void vkh_queue_submit(struct vkh *vk, const VkSubmitInfo *submit, VkFence fence);
/* End, submit, wait for the end and free the command buffer. */
void vkh_submit_wait(struct vkh *vk, VkCommandBuffer commands);
VkFence vkh_fence(struct vkh *vk);
VkSemaphore vkh_semaphore(struct vkh *vk);
VkSemaphore vkh_timeline(struct vkh *vk, uint64_t value);
/* A barrier against everything; the whole image changes its layout. */
void vkh_layout(VkCommandBuffer commands, const struct vkh_image *image, VkImageLayout from,
                VkImageLayout to);
void vkh_barrier(VkCommandBuffer commands);
/* Also makes the results visible to the host. */
void vkh_copy_to_buffer(VkCommandBuffer commands, const struct vkh_image *image,
                        const struct vkh_buffer *buffer);

/* ---- descriptors and pipelines ---- */

struct vkh_shader {
    const uint32_t *code;
    size_t size; /* bytes */
};

struct vkh_set {
    VkDescriptorSetLayout layout;
    VkDescriptorSet set;
};

/* A layout for consecutive bindings 0 … count - 1, all stages, and one set of its own pool. */
struct vkh_set vkh_set(struct vkh *vk, const VkDescriptorType *types, uint32_t count);
void vkh_set_buffer(struct vkh *vk, VkDescriptorSet set, uint32_t binding, VkDescriptorType type,
                    VkBuffer buffer);
void vkh_set_image(struct vkh *vk, VkDescriptorSet set, uint32_t binding, VkDescriptorType type,
                   VkImageView view, VkSampler sampler, VkImageLayout layout);

/* Zero to four sets; push_size bytes of push constants in all stages. */
VkPipelineLayout vkh_pipeline_layout(struct vkh *vk, const VkDescriptorSetLayout *sets,
                                     uint32_t count, uint32_t push_size);

struct vkh_pass_params {
    VkFormat color;                /* cleared */
    VkFormat depth;                /* cleared; VK_FORMAT_UNDEFINED: none */
    VkSampleCountFlagBits samples; /* above 1: attachments are color, depth, resolved color */
    VkImageLayout final_layout;    /* of the (resolved) color image */
    bool load; /* keep what the color image holds; it is then in final_layout already */
};

VkRenderPass vkh_render_pass(struct vkh *vk, const struct vkh_pass_params *params);
VkFramebuffer vkh_framebuffer(struct vkh *vk, VkRenderPass pass, const VkImageView *views,
                              uint32_t count, uint32_t width, uint32_t height);
void vkh_begin_pass(VkCommandBuffer commands, VkRenderPass pass, VkFramebuffer framebuffer,
                    uint32_t width, uint32_t height, const float clear_color[4],
                    VkSubpassContents contents);
/* Viewport and scissor: dynamic in every vkh_graphics_pipeline(). */
void vkh_viewport(VkCommandBuffer commands, uint32_t width, uint32_t height);

enum vkh_blend { VKH_BLEND_NONE, VKH_BLEND_ALPHA, VKH_BLEND_ADD, VKH_BLEND_MULTIPLY };

struct vkh_pipeline_params {
    const struct vkh_shader *vertex, *fragment;
    const struct vkh_shader *tess_control, *tess_evaluation, *geometry;
    VkPipelineLayout layout;
    VkRenderPass pass; /* or none, and: */
    VkFormat color_format;
    uint32_t subpass;
    VkPrimitiveTopology topology; /* 0 would be points: see list */
    bool points;                  /* false and topology 0: triangle list */
    uint32_t patch_size;
    VkSampleCountFlagBits samples; /* 0: 1 */
    bool depth_test, depth_write;
    float depth_bias;
    VkCullModeFlags cull;
    const VkStencilOpState *stencil;
    enum vkh_blend blend;
    bool no_color;
    /* Binding 0, and binding 1 from the first attribute with binding 1 on, which is per instance.
     */
    uint32_t stride[2];
    const VkVertexInputAttributeDescription *attributes;
    uint32_t attribute_count;
    const VkSpecializationInfo *fragment_constants;
    VkPipelineCache cache;
    VkPipelineCreateFlags flags;
};

VkPipeline vkh_graphics_pipeline(struct vkh *vk, const struct vkh_pipeline_params *params);
VkPipeline vkh_compute_pipeline(struct vkh *vk, const struct vkh_shader *shader,
                                VkPipelineLayout layout, const VkSpecializationInfo *constants);

/* ---- odds and ends ---- */

uint64_t vkh_now_ns(void);
/* A number with an optional K, M or G (powers of 1024); ends the program with 2 if it is none. */
uint64_t vkh_parse_size(const char *text);
/* Value of the option at argv[*i], taking the next argument; ends the program if there is none. */
const char *vkh_option_value(int argc, char **argv, int *i);

#endif
