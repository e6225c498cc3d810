/* Inside src/vulkan: copied images, for drivers that do not draw into linear ones.
 *
 *   VkImage ── OPTIMAL ── memory of its own       VkBuffer ── the guest's memory, where it is bound
 *      └──────── copies, recorded where the image changes hands ───────┘
 *
 * Others see rows of pixels in memory that the guest shares; the driver sees an image as it likes
 * it best. What the guest says of its owner makes the copies:
 *
 *   to VK_QUEUE_FAMILY_FOREIGN_EXT or _EXTERNAL     image → rows
 *   from there                                      rows → image
 *
 * The way to the rows is spared if the image was not written here, that is if it may be somebody
 * else's and was only ever in layouts that are for reading. (A render pass that takes an image from
 * such a layout, and leaves it in one, is not seen.) A guest that hands nothing over shows nothing:
 * the specification wants it to. Events are not looked at: vkCmdWaitEvents must not change owners
 * (VUID-vkCmdWaitEvents-srcQueueFamilyIndex-02803).
 *
 * Spec:    VK_EXT_queue_family_foreign; Vulkan 1.3, 7.7.4 "Queue Family Ownership Transfer".
 * Threads: as the Vulkan commands; images may be looked up while others are made and destroyed.
 */
#ifndef PV_VULKAN_COPIED_H
#define PV_VULKAN_COPIED_H

#include "vulkan/device.h"

struct pv_copied_list;
VkResult pv_copied_create(struct pv_copied_list **out);
void pv_copied_destroy(struct pv_copied_list *list); /* its images are gone; NULL is fine */

/* The usage that the driver's image needs besides the guest's. */
#define PV_COPIED_USAGE (VK_IMAGE_USAGE_TRANSFER_SRC_BIT | VK_IMAGE_USAGE_TRANSFER_DST_BIT)

/* Bytes of a pixel; 0 for a format that is never copied, for it has no name among DRM's. */
uint32_t pv_copied_pixel_size(VkFormat format);
/* The features that copied images of a format have, of those that the driver's OPTIMAL ones have.
 */
VkFormatFeatureFlags2 pv_copied_features(VkFormat format, VkFormatFeatureFlags2 optimal);
/* Images of this kind can be copied; and what can be had of them, of what the driver has. */
bool pv_copied_can_be(VkFormat format, VkImageType type, VkImageCreateFlags flags);
void pv_copied_limit(VkImageFormatProperties *properties);

/* The rows of an image of this size. `stated` is what the guest wants, or NULL.
 * VK_ERROR_FORMAT_NOT_SUPPORTED, VK_ERROR_INVALID_DRM_FORMAT_MODIFIER_PLANE_LAYOUT_EXT. */
VkResult pv_copied_layout(const VkImageCreateInfo *info,
                          const VkImageDrmFormatModifierExplicitCreateInfoEXT *stated,
                          VkSubresourceLayout *out);
/* The memory that such rows need. The chain of `out` is filled in, too. */
VkResult pv_copied_requirements(struct pv_device *device, const VkSubresourceLayout *layout,
                                VkMemoryRequirements2 *out);

/* Make the driver's `image`, which was just created from `info`, a copied one. `is_new`: what it
 * shows is certainly made here. If this fails the image is good for nothing but its end. */
VkResult pv_copied_add(struct pv_device *device, VkImage image, const VkImageCreateInfo *info,
                       const VkSubresourceLayout *layout, bool is_new);
/* Before the image is destroyed: NULL if it is not a copied one. After it: the rest. */
struct pv_copied *pv_copied_take(struct pv_device *device, VkImage image);
void pv_copied_free(struct pv_device *device, struct pv_copied *copied);

/* False if the image is not a copied one; then nothing was done. */
bool pv_copied_is(struct pv_device *device, VkImage image);
bool pv_copied_get_layout(struct pv_device *device, VkImage image, VkSubresourceLayout *out);
bool pv_copied_get_requirements(struct pv_device *device, VkImage image,
                                VkMemoryRequirements2 *out);
bool pv_copied_bind(struct pv_device *device, VkImage image, VkDeviceMemory memory,
                    VkDeviceSize offset, VkResult *out_result);

#endif
