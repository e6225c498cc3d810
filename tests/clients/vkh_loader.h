/* Vulkan entry points as function pointers under their usual names, so that the programs link
 * against nothing: vkh_loader_open() finds libvulkan.so.1, the other two fill in the rest.
 *
 * One instance and one device at a time per process: the pointers are global.
 */
#ifndef VKH_LOADER_H
#define VKH_LOADER_H

#ifndef VK_NO_PROTOTYPES
#define VK_NO_PROTOTYPES 1
#endif
#include <vulkan/vulkan_core.h>

#define VKH_GLOBAL_FUNCTIONS(X)               \
    X(vkEnumerateInstanceVersion)             \
    X(vkEnumerateInstanceExtensionProperties) \
    X(vkCreateInstance)

#define VKH_INSTANCE_FUNCTIONS(X)                \
    X(vkDestroyInstance)                         \
    X(vkEnumeratePhysicalDevices)                \
    X(vkGetPhysicalDeviceProperties)             \
    X(vkGetPhysicalDeviceProperties2)            \
    X(vkGetPhysicalDeviceFeatures2)              \
    X(vkGetPhysicalDeviceFormatProperties)       \
    X(vkGetPhysicalDeviceMemoryProperties)       \
    X(vkGetPhysicalDeviceQueueFamilyProperties)  \
    X(vkEnumerateDeviceExtensionProperties)      \
    X(vkCreateDevice)                            \
    X(vkGetDeviceProcAddr)                       \
    X(vkCreateHeadlessSurfaceEXT)                \
    X(vkDestroySurfaceKHR)                       \
    X(vkGetPhysicalDeviceSurfaceCapabilitiesKHR) \
    X(vkGetPhysicalDeviceSurfaceFormatsKHR)      \
    X(vkGetPhysicalDeviceSurfacePresentModesKHR) \
    X(vkGetPhysicalDeviceSurfaceSupportKHR)

#define VKH_DEVICE_FUNCTIONS(X)          \
    X(vkDestroyDevice)                   \
    X(vkDeviceWaitIdle)                  \
    X(vkGetDeviceQueue)                  \
    X(vkQueueSubmit)                     \
    X(vkQueueWaitIdle)                   \
    X(vkAllocateMemory)                  \
    X(vkFreeMemory)                      \
    X(vkMapMemory)                       \
    X(vkUnmapMemory)                     \
    X(vkFlushMappedMemoryRanges)         \
    X(vkInvalidateMappedMemoryRanges)    \
    X(vkCreateBuffer)                    \
    X(vkDestroyBuffer)                   \
    X(vkGetBufferMemoryRequirements)     \
    X(vkBindBufferMemory)                \
    X(vkGetBufferDeviceAddress)          \
    X(vkCreateBufferView)                \
    X(vkDestroyBufferView)               \
    X(vkCreateImage)                     \
    X(vkDestroyImage)                    \
    X(vkGetImageMemoryRequirements)      \
    X(vkBindImageMemory)                 \
    X(vkCreateImageView)                 \
    X(vkDestroyImageView)                \
    X(vkCreateSampler)                   \
    X(vkDestroySampler)                  \
    X(vkCreateFence)                     \
    X(vkDestroyFence)                    \
    X(vkResetFences)                     \
    X(vkGetFenceStatus)                  \
    X(vkWaitForFences)                   \
    X(vkCreateSemaphore)                 \
    X(vkDestroySemaphore)                \
    X(vkGetSemaphoreCounterValue)        \
    X(vkWaitSemaphores)                  \
    X(vkSignalSemaphore)                 \
    X(vkCreateEvent)                     \
    X(vkDestroyEvent)                    \
    X(vkGetEventStatus)                  \
    X(vkSetEvent)                        \
    X(vkResetEvent)                      \
    X(vkCreateQueryPool)                 \
    X(vkDestroyQueryPool)                \
    X(vkGetQueryPoolResults)             \
    X(vkCreateShaderModule)              \
    X(vkDestroyShaderModule)             \
    X(vkCreatePipelineCache)             \
    X(vkDestroyPipelineCache)            \
    X(vkGetPipelineCacheData)            \
    X(vkCreateGraphicsPipelines)         \
    X(vkCreateComputePipelines)          \
    X(vkDestroyPipeline)                 \
    X(vkCreatePipelineLayout)            \
    X(vkDestroyPipelineLayout)           \
    X(vkCreateDescriptorSetLayout)       \
    X(vkDestroyDescriptorSetLayout)      \
    X(vkGetDescriptorSetLayoutSupport)   \
    X(vkCreateDescriptorPool)            \
    X(vkDestroyDescriptorPool)           \
    X(vkAllocateDescriptorSets)          \
    X(vkUpdateDescriptorSets)            \
    X(vkCreateDescriptorUpdateTemplate)  \
    X(vkDestroyDescriptorUpdateTemplate) \
    X(vkUpdateDescriptorSetWithTemplate) \
    X(vkCreateRenderPass)                \
    X(vkDestroyRenderPass)               \
    X(vkCreateFramebuffer)               \
    X(vkDestroyFramebuffer)              \
    X(vkCreateCommandPool)               \
    X(vkDestroyCommandPool)              \
    X(vkResetCommandPool)                \
    X(vkAllocateCommandBuffers)          \
    X(vkFreeCommandBuffers)              \
    X(vkBeginCommandBuffer)              \
    X(vkEndCommandBuffer)                \
    X(vkCmdBindPipeline)                 \
    X(vkCmdSetViewport)                  \
    X(vkCmdSetScissor)                   \
    X(vkCmdSetStencilReference)          \
    X(vkCmdSetCullMode)                  \
    X(vkCmdSetPrimitiveTopology)         \
    X(vkCmdBindDescriptorSets)           \
    X(vkCmdBindIndexBuffer)              \
    X(vkCmdBindVertexBuffers)            \
    X(vkCmdDraw)                         \
    X(vkCmdDrawIndexed)                  \
    X(vkCmdDrawIndirect)                 \
    X(vkCmdDrawIndexedIndirect)          \
    X(vkCmdDrawIndirectCount)            \
    X(vkCmdDrawIndexedIndirectCount)     \
    X(vkCmdDispatch)                     \
    X(vkCmdDispatchIndirect)             \
    X(vkCmdCopyBuffer)                   \
    X(vkCmdCopyImage)                    \
    X(vkCmdBlitImage)                    \
    X(vkCmdCopyBufferToImage)            \
    X(vkCmdCopyImageToBuffer)            \
    X(vkCmdUpdateBuffer)                 \
    X(vkCmdFillBuffer)                   \
    X(vkCmdClearColorImage)              \
    X(vkCmdClearAttachments)             \
    X(vkCmdSetEvent)                     \
    X(vkCmdResetEvent)                   \
    X(vkCmdWaitEvents)                   \
    X(vkCmdPipelineBarrier)              \
    X(vkCmdPipelineBarrier2)             \
    X(vkCmdBeginQuery)                   \
    X(vkCmdEndQuery)                     \
    X(vkCmdResetQueryPool)               \
    X(vkCmdWriteTimestamp)               \
    X(vkCmdCopyQueryPoolResults)         \
    X(vkCmdPushConstants)                \
    X(vkCmdBeginRenderPass)              \
    X(vkCmdNextSubpass)                  \
    X(vkCmdEndRenderPass)                \
    X(vkCmdBeginRendering)               \
    X(vkCmdEndRendering)                 \
    X(vkCmdExecuteCommands)              \
    X(vkCreateSwapchainKHR)              \
    X(vkDestroySwapchainKHR)             \
    X(vkGetSwapchainImagesKHR)           \
    X(vkAcquireNextImageKHR)             \
    X(vkQueuePresentKHR)

#define VKH_DECLARE(name) extern PFN_##name name;
VKH_GLOBAL_FUNCTIONS(VKH_DECLARE)
VKH_INSTANCE_FUNCTIONS(VKH_DECLARE)
VKH_DEVICE_FUNCTIONS(VKH_DECLARE)
#undef VKH_DECLARE

/* NULL, or why there is no loader (static text). May be called again. */
const char *vkh_loader_open(void);
/* A function that the instance or device does not have stays NULL. */
void vkh_loader_instance(VkInstance instance);
void vkh_loader_device(VkDevice device);

#endif
