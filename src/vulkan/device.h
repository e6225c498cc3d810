/* One logical device of the host driver, with what PearVisor adds to it.
 *
 * The functions named pv_layer_<Command> have the meaning, arguments and results of the Vulkan
 * command of that name, and add what the driver lacks (design: "the guest sees what PearVisor can
 * deliver"): mappable memory tiers, LINEAR modifiers, sync_fd payloads, external handle types. The
 * caller uses them in place of the driver's entry point; every other command goes straight to
 * device->vk. All of them are told host handles only.
 *
 * Structs that the caller passes in may be changed (pNext chains are unlinked and put back in the
 * order they had, before the function returns).
 *
 * Threads: as the Vulkan command. Every use of a VkQueue, here or outside, holds the queue's lock
 * (pv_queue_lock), because fences of PearVisor's own share the queues with the guest.
 */
#ifndef PV_VULKAN_DEVICE_H
#define PV_VULKAN_DEVICE_H

#include "vulkan/host.h"

#include <pthread.h>
#include <stdatomic.h>

struct pv_queue {
    VkQueue handle;
    uint32_t family, index;
    VkDeviceQueueCreateFlags flags;
    pthread_mutex_t lock; /* held around every use of handle */
};

/* Device memory: the driver's object and, where a guest may map it, the fd behind it. It stays at
 * one address while it lives (shadow memory is kept in a list). */
struct pv_memory {
    VkDeviceMemory handle;
    struct pv_device *device; /* borrowed */
    uint32_t type;
    VkDeviceSize size; /* as the guest asked */
    enum pv_memory_tier tier;
    /* What vkGetMemoryFdKHR gives for it; 0 if the driver was not asked to export it. */
    VkExternalMemoryHandleTypeFlags driver_export;
    bool dma_buf_asked;            /* the guest wants to pass it on as a dma-buf */
    int fd;                        /* import, shadow: owned shared memory; else -1 */
    void *map;                     /* import, shadow: our mapping of fd; else NULL */
    VkDeviceSize map_size;         /* rounded up to the import alignment and the page */
    void *driver_map;              /* shadow: the driver's own mapping */
    void *base;                    /* shadow: the bytes both sides had after the last copy */
    struct pv_memory *prev, *next; /* shadow: in device->shadows */
    void *owner;                   /* for the caller: what its source belongs to */
};

struct pv_device {
    VkDevice handle;
    struct pv_physical *physical; /* borrowed */
    struct pv_vk_device_table vk;
    uint32_t queue_count;
    struct pv_queue *queues;        /* owned; filled at creation from VkDeviceCreateInfo */
    struct pv_sync_state *sync;     /* owned: emulated sync_fd payloads (sync.c) */
    struct pv_shadow_state *shadow; /* owned: shadow memory and its copy thread; NULL if unused */
    struct pv_copied_list *copied;  /* owned: images with rows that others see (copied.h) */
    atomic_bool lost;
    atomic_bool closing;     /* for the caller: somebody destroys it */
    struct pv_device *older; /* for the caller: a list */
    /* Buffers may say that they will be bound to imported host memory, as the specification wants,
     * without losing memory types by it. */
    bool host_allocation_buffers;
    atomic_uint_fast64_t heap_used[VK_MAX_MEMORY_HEAPS]; /* bytes in imported and shadow memory */
};

/* Note a lost device on the way out of a driver call. */
static inline VkResult pv_device_check(struct pv_device *device, VkResult result)
{
    if (result == VK_ERROR_DEVICE_LOST)
        atomic_store(&device->lost, true);
    return result;
}

/* physical-device level */
VkResult pv_layer_EnumerateDeviceExtensionProperties(struct pv_physical *physical,
                                                     const char *layer, uint32_t *count,
                                                     VkExtensionProperties *properties);
void pv_layer_GetPhysicalDeviceProperties(struct pv_physical *physical,
                                          VkPhysicalDeviceProperties *properties);
void pv_layer_GetPhysicalDeviceProperties2(struct pv_physical *physical,
                                           VkPhysicalDeviceProperties2 *properties);
void pv_layer_GetPhysicalDeviceMemoryProperties2(struct pv_physical *physical,
                                                 VkPhysicalDeviceMemoryProperties2 *properties);
void pv_layer_GetPhysicalDeviceFormatProperties2(struct pv_physical *physical, VkFormat format,
                                                 VkFormatProperties2 *properties);
VkResult pv_layer_GetPhysicalDeviceImageFormatProperties2(struct pv_physical *physical,
                                                          VkPhysicalDeviceImageFormatInfo2 *info,
                                                          VkImageFormatProperties2 *properties);
void pv_layer_GetPhysicalDeviceSparseImageFormatProperties2(
    struct pv_physical *physical, VkPhysicalDeviceSparseImageFormatInfo2 *info, uint32_t *count,
    VkSparseImageFormatProperties2 *properties);
void pv_layer_GetPhysicalDeviceExternalBufferProperties(struct pv_physical *physical,
                                                        VkPhysicalDeviceExternalBufferInfo *info,
                                                        VkExternalBufferProperties *properties);
void pv_layer_GetPhysicalDeviceExternalSemaphoreProperties(
    struct pv_physical *physical, VkPhysicalDeviceExternalSemaphoreInfo *info,
    VkExternalSemaphoreProperties *properties);
void pv_layer_GetPhysicalDeviceExternalFenceProperties(struct pv_physical *physical,
                                                       VkPhysicalDeviceExternalFenceInfo *info,
                                                       VkExternalFenceProperties *properties);

/* Create a device. Extensions that PearVisor serves itself are taken off the list, those that it
 * needs are added. Unknown extensions fail with VK_ERROR_EXTENSION_NOT_PRESENT, as in Vulkan. */
VkResult pv_device_create(struct pv_physical *physical, VkDeviceCreateInfo *info,
                          struct pv_device **out);
/* Waits for the device to be idle and destroys the driver's; its children must be gone. What is
 * left may still be read, until it is freed. */
void pv_device_close(struct pv_device *device);
void pv_device_free(struct pv_device *device);
/* Both. NULL is fine. */
void pv_device_destroy(struct pv_device *device);

/* The queue with these numbers, or NULL if the device was created without it. */
struct pv_queue *pv_device_get_queue(struct pv_device *device, uint32_t family, uint32_t index,
                                     VkDeviceQueueCreateFlags flags);
/* The queue of a handle of this device. Constant for the device's life; never NULL for such one. */
struct pv_queue *pv_device_find_queue(struct pv_device *device, VkQueue handle);
void pv_queue_lock(struct pv_queue *queue);
void pv_queue_unlock(struct pv_queue *queue);

/* memory */
VkResult pv_layer_AllocateMemory(struct pv_device *device, VkMemoryAllocateInfo *info,
                                 struct pv_memory *out); /* out is zeroed by the caller */
/* The memory type to take for memory that others are to see, when the guest asks for info's: a type
 * that the guest cannot map is the driver's alone where that exports nothing, and then one of ours
 * that suits the dedicated resource is taken. Without such a resource, or such a type: info's. */
uint32_t pv_layer_shared_memory_type(struct pv_device *device, VkMemoryAllocateInfo *info);
/* Memory that exists already. */
struct pv_memory_source {
    int fd;        /* borrowed */
    uint64_t size; /* bytes that may be used */
    /* [offset, offset + size) of shared memory in which others have parts, too, in whole pages; the
     * caller has checked that it lies inside. Else the fd is for this memory alone. */
    bool is_part;
    uint64_t offset;
};
/* Import memory, which came from pv_memory_export_fd of another device or context, or is any shared
 * memory or dma-buf. */
VkResult pv_layer_ImportMemory(struct pv_device *device, VkMemoryAllocateInfo *info,
                               const struct pv_memory_source *source, struct pv_memory *out);
void pv_layer_FreeMemory(struct pv_device *device, struct pv_memory *memory);
/* A new fd (the caller's) through which `size` bytes of the memory can be mapped shared at offset
 * 0. Returns 0, -EINVAL if the memory is smaller, -EOPNOTSUPP if its type cannot be mapped. */
int pv_memory_export_fd(struct pv_memory *memory, uint64_t size, int *out);
/* Memory types that can import such an fd; 0 if none. `out_size` gets the fd's size. */
uint32_t pv_layer_import_memory_types(struct pv_device *device, int fd, uint64_t *out_size);

/* Bring shadow memory up to date in both directions. Call it before the guest learns of something
 * that no submission's end announces: the results of queries. (Fences and semaphores signal after
 * the gate behind each command buffer, which has done it.) Costs one comparison where no memory is
 * shadowed. Any thread. */
void pv_device_sync_memory(struct pv_device *device);

/* resources */
VkResult pv_layer_CreateBuffer(struct pv_device *device, VkBufferCreateInfo *info, VkBuffer *out);
VkResult pv_layer_CreateImage(struct pv_device *device, VkImageCreateInfo *info, VkImage *out);
void pv_layer_DestroyImage(struct pv_device *device, VkImage image);
void pv_layer_GetImageMemoryRequirements(struct pv_device *device, VkImage image,
                                         VkMemoryRequirements *requirements);
void pv_layer_GetImageMemoryRequirements2(struct pv_device *device,
                                          const VkImageMemoryRequirementsInfo2 *info,
                                          VkMemoryRequirements2 *requirements);
VkResult pv_layer_BindImageMemory(struct pv_device *device, VkImage image, VkDeviceMemory memory,
                                  VkDeviceSize offset);
VkResult pv_layer_BindImageMemory2(struct pv_device *device, uint32_t count,
                                   const VkBindImageMemoryInfo *infos);
void pv_layer_GetDeviceBufferMemoryRequirements(struct pv_device *device,
                                                VkDeviceBufferMemoryRequirements *info,
                                                VkMemoryRequirements2 *requirements);
void pv_layer_GetDeviceImageMemoryRequirements(struct pv_device *device,
                                               VkDeviceImageMemoryRequirements *info,
                                               VkMemoryRequirements2 *requirements);
void pv_layer_GetDeviceImageSparseMemoryRequirements(
    struct pv_device *device, VkDeviceImageMemoryRequirements *info, uint32_t *count,
    VkSparseImageMemoryRequirements2 *requirements);
void pv_layer_GetImageSubresourceLayout(struct pv_device *device, VkImage image,
                                        const VkImageSubresource *subresource,
                                        VkSubresourceLayout *layout);
void pv_layer_GetImageSubresourceLayout2(struct pv_device *device, VkImage image,
                                         const VkImageSubresource2 *subresource,
                                         VkSubresourceLayout2 *layout);
void pv_layer_GetDeviceImageSubresourceLayout(struct pv_device *device,
                                              VkDeviceImageSubresourceInfo *info,
                                              VkSubresourceLayout2 *layout);
VkResult pv_layer_GetImageDrmFormatModifierPropertiesEXT(
    struct pv_device *device, VkImage image, VkImageDrmFormatModifierPropertiesEXT *properties);

/* commands: images that others see may be copied when they change hands (copied.h); the order of
 * the image barriers may change */
void pv_layer_CmdPipelineBarrier(struct pv_device *device, VkCommandBuffer commands,
                                 VkPipelineStageFlags from, VkPipelineStageFlags to,
                                 VkDependencyFlags flags, uint32_t memory_count,
                                 const VkMemoryBarrier *memory, uint32_t buffer_count,
                                 const VkBufferMemoryBarrier *buffers, uint32_t image_count,
                                 VkImageMemoryBarrier *images);
void pv_layer_CmdPipelineBarrier2(struct pv_device *device, VkCommandBuffer commands,
                                  VkDependencyInfo *info);

/* sync: the info structs may ask for sync_fd export types; these are taken off where emulated */
VkResult pv_layer_CreateSemaphore(struct pv_device *device, VkSemaphoreCreateInfo *info,
                                  VkSemaphore *out);
VkResult pv_layer_CreateFence(struct pv_device *device, VkFenceCreateInfo *info, VkFence *out);
void pv_layer_DestroySemaphore(struct pv_device *device, VkSemaphore semaphore);
/* These hold the queue's lock (the caller does not), drop the waits on semaphores whose emulated
 * payload is already signalled, and bring shadow memory up to date. Waits are dropped by compacting
 * the arrays of the infos, and of the structs chained to them, in place: no allocation, so nothing
 * to fail. */
VkResult pv_layer_QueueSubmit(struct pv_device *device, VkQueue queue, uint32_t count,
                              VkSubmitInfo *submits, VkFence fence);
VkResult pv_layer_QueueSubmit2(struct pv_device *device, VkQueue queue, uint32_t count,
                               VkSubmitInfo2 *submits, VkFence fence);
VkResult pv_layer_QueueBindSparse(struct pv_device *device, VkQueue queue, uint32_t count,
                                  VkBindSparseInfo *infos, VkFence fence);
/* These bring shadow memory up to date if they find the work done, and note a lost device. */
VkResult pv_layer_GetFenceStatus(struct pv_device *device, VkFence fence);
VkResult pv_layer_GetEventStatus(struct pv_device *device, VkEvent event);
VkResult pv_layer_GetSemaphoreCounterValue(struct pv_device *device, VkSemaphore semaphore,
                                           uint64_t *value);
/* As if an already signalled sync_fd (-1) were imported temporarily: the next wait passes. */
VkResult pv_semaphore_import_signalled(struct pv_device *device, VkSemaphore semaphore);
/* As if a sync_fd were exported and closed: the pending signal is consumed. */
VkResult pv_semaphore_consume(struct pv_device *device, VkSemaphore semaphore);
/* As if a sync_fd were exported from the fence and closed: unsignalled again once its work is
 * done. `stop` ends a wait early. */
VkResult pv_fence_consume(struct pv_device *device, VkFence fence, const atomic_bool *stop);

#endif
