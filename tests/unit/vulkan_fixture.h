/* For the tests of src/vulkan: a device of the host, through the layer, with a given memory tier.
 */
#ifndef PV_TESTS_UNIT_VULKAN_FIXTURE_H
#define PV_TESTS_UNIT_VULKAN_FIXTURE_H

#include "vulkan/device.h"

struct fixture {
    struct pv_host_caps caps;
    struct pv_instance *instance;
    struct pv_physical *physical;
    struct pv_device *device;
    VkQueue queue;
    VkCommandPool pool;
    VkFence fence;
    uint32_t type; /* a memory type that a guest can map */
};

/* Exit status 77 and a line that says what to install, if no driver answers. Call first. */
void fixture_need_driver(void);

/* Everything up to the device; NULL if this tier does not work here. Asserts on real failures. */
struct fixture *fixture_create(enum pv_memory_tier tier, bool offer_dma_buf);
struct fixture *fixture_create_with(const struct pv_host_options *options, bool offer_dma_buf);
void fixture_destroy(struct fixture *fixture);

/* Allocate mappable memory, and map it the way a guest does. */
VkResult fixture_allocate(struct fixture *fixture, VkDeviceSize size, struct pv_memory *out);
void *fixture_map(struct pv_memory *memory, size_t size);

/* A transfer buffer bound to all of the memory. */
VkBuffer fixture_buffer(struct fixture *fixture, struct pv_memory *memory, VkDeviceSize size);

/* A command buffer in recording state, and its submission; `wait` until it is done. */
VkCommandBuffer fixture_begin(struct fixture *fixture);
void fixture_submit(struct fixture *fixture, VkCommandBuffer commands, bool wait);

#endif
