/* The host's Vulkan: what is there, and what PearVisor can make of it.
 *
 * pv_host_probe() loads the Vulkan loader, looks at every physical device and finds out by trying
 * (map, write on the CPU, copy on the GPU, read back) which tier serves each host-visible memory
 * type. The result is plain data without pointers or handles, so it may be made once in a
 * short-lived process and passed to every worker.
 *
 * pv_instance is one loaded driver instance with its physical devices, used by workers.
 *
 * Spec:    Vulkan 1.1 or newer; VK_EXT_external_memory_host, VK_KHR_external_memory_fd,
 *          VK_EXT_external_memory_dma_buf where present.
 * Trust:   drivers are trusted; nothing here comes from a guest but the application's name.
 */
#ifndef PV_VULKAN_HOST_H
#define PV_VULKAN_HOST_H

#include "vulkan/table.h" /* generated: Vulkan types and function tables */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PV_HOST_MAX_DEVICES 16

/* How memory that a guest may map is made. In order of preference. */
enum pv_memory_tier {
    PV_MEMORY_TIER_NONE = 0, /* cannot be mapped: shown to the guest without HOST_VISIBLE */
    PV_MEMORY_TIER_IMPORT,   /* our memfd, imported with VK_EXT_external_memory_host */
    PV_MEMORY_TIER_DMA_BUF,  /* the driver's memory, exported as a mappable dma-buf */
    PV_MEMORY_TIER_OPAQUE,   /* the driver's memory, exported as an opaque fd that maps */
    PV_MEMORY_TIER_SHADOW,   /* a memfd beside the driver's mapping, kept equal by copying */
};
const char *pv_memory_tier_name(enum pv_memory_tier tier);

/* How sync_fd payloads of semaphores and fences are served. */
enum pv_sync_tier {
    PV_SYNC_TIER_EMULATED = 0, /* the temporary payload is kept in the worker */
    PV_SYNC_TIER_NATIVE,       /* the driver has sync_fd */
};

/* How VK_EXT_image_drm_format_modifier is served. */
enum pv_modifier_tier {
    PV_MODIFIER_TIER_NONE = 0, /* the device cannot be used */
    PV_MODIFIER_TIER_LINEAR,   /* synthesised: LINEAR only, backed by linear images */
    PV_MODIFIER_TIER_COPIED,   /* the same for a driver that does not draw into these: copied.h */
    PV_MODIFIER_TIER_NATIVE,
};
const char *pv_modifier_tier_name(enum pv_modifier_tier tier);

struct pv_memory_type_caps {
    VkMemoryPropertyFlags flags; /* as the driver has them */
    uint32_t heap;
    enum pv_memory_tier tier; /* meaningful for HOST_VISIBLE types only */
    bool dma_buf;             /* the driver exports this type as a dma-buf that maps */
    char why[96];             /* one phrase: why this tier and none better */
};

/* Plain data, no pointers. */
struct pv_device_caps {
    char name[VK_MAX_PHYSICAL_DEVICE_NAME_SIZE];
    char driver[VK_MAX_DRIVER_NAME_SIZE];
    char driver_info[VK_MAX_DRIVER_INFO_SIZE];
    uint8_t uuid[VK_UUID_SIZE];
    uint32_t api_version;
    uint32_t vendor_id, device_id;
    VkPhysicalDeviceType type;
    VkDriverId driver_id;
    bool usable;       /* false: below Vulkan 1.1, or no mappable memory type */
    char why_not[128]; /* set when not usable */
    uint32_t memory_type_count;
    struct pv_memory_type_caps memory_types[VK_MAX_MEMORY_TYPES];
    VkDeviceSize import_alignment; /* minImportedHostPointerAlignment, 0 without the extension */
    bool ext_memory_host, ext_memory_fd, ext_dma_buf, ext_modifier, ext_queue_foreign,
        ext_semaphore_fd, ext_fence_fd, ext_image_format_list;
    enum pv_sync_tier semaphore_tier, fence_tier;
    enum pv_modifier_tier modifier_tier;
    bool timeline_semaphore;
    bool driver_dma_buf; /* the driver exports dma-bufs: external memory is its own business */
    bool udmabuf;        /* the kernel makes dma-bufs of our shared memory */
    bool real_dma_buf;   /* driver_dma_buf or udmabuf: a compositor can take what guests export */
};

struct pv_host_caps {
    uint32_t instance_version;
    uint32_t device_count;
    struct pv_device_caps devices[PV_HOST_MAX_DEVICES];
};

struct pv_host_options {
    /* Overrides for tests and bug reports; NONE means "the best that works". */
    enum pv_memory_tier force_memory_tier;
    enum pv_modifier_tier force_modifier_tier; /* LINEAR or COPIED */
};

/* Look at the host. Loads the driver into the calling process and creates and destroys an instance
 * and one device per physical device. Returns 0, -ENOENT if there is no Vulkan loader, -ENODEV if
 * no device answers; `error` (may be NULL) then gets one line that says what to do. */
int pv_host_probe(const struct pv_host_options *options, struct pv_host_caps *out, char *error,
                  size_t error_size);

/* Choose by index ("0"), UUID (32 hex digits, dashes allowed) or part of the name (any case).
 * NULL or "" chooses the first usable device, a real GPU before a software one.
 * Returns the index, or -ENOENT with a line in `error` that lists the choices. */
int pv_host_select(const struct pv_host_caps *caps, const char *selector, char *error,
                   size_t error_size);

/* A device extension and its version. */
struct pv_extension {
    const char *name;
    uint32_t spec_version;
};

/* One driver instance and its devices. */
struct pv_physical {
    VkPhysicalDevice handle;
    struct pv_instance *instance;      /* borrowed */
    const struct pv_device_caps *caps; /* borrowed from the instance's parameters */
    VkPhysicalDeviceMemoryProperties memory;
    VkPhysicalDeviceLimits limits;
    /* true: present by dma-buf (an old guest has no other way); false: leave the dma-buf and
     * modifier extensions out unless real dma-bufs exist, so that Mesa uses shared memory */
    bool offer_dma_buf;
    bool arena;                        /* see pv_physical_tier */
    VkExtensionProperties *extensions; /* owned: what the guest is shown */
    uint32_t extension_count;
    VkExtensionProperties *driver_extensions; /* owned: what the driver has */
    uint32_t driver_extension_count;
};

struct pv_instance {
    VkInstance handle;
    struct pv_vk_instance_table vk;
    uint32_t version; /* apiVersion it was created with */
    uint32_t physical_count;
    struct pv_physical physicals[PV_HOST_MAX_DEVICES]; /* the selected ones only */
};

struct pv_instance_params {
    const struct pv_host_caps *caps;   /* borrowed, must outlive the instance */
    int device_index;                  /* show this device only; -1 shows all usable ones */
    const VkApplicationInfo *app_info; /* may be NULL; its apiVersion is raised to the host's */
    bool offer_dma_buf;
    bool arena; /* see pv_physical_tier */
    /* Device extensions that can be carried to the guest, and their highest version. Borrowed
     * during the call. NULL: whatever the driver has. */
    const struct pv_extension *extensions;
    uint32_t extension_count;
};

/* How memory of this type is made. With an arena the guest's side exists before the memory does, so
 * what the driver would export cannot be mapped by the guest. */
static inline enum pv_memory_tier pv_physical_tier(const struct pv_physical *physical,
                                                   uint32_t type)
{
    enum pv_memory_tier tier = physical->caps->memory_types[type].tier;
    bool from_driver = tier == PV_MEMORY_TIER_DMA_BUF || tier == PV_MEMORY_TIER_OPAQUE;
    return physical->arena && from_driver ? PV_MEMORY_TIER_NONE : tier;
}
/* True if some memory type of the device can be mapped with an arena. */
bool pv_device_caps_serve_arena(const struct pv_device_caps *caps);

/* Load the driver (once per process) and create an instance. On VK_SUCCESS `out` is set; release it
 * with pv_instance_destroy(). The physical devices are matched to caps by UUID. */
VkResult pv_instance_create(const struct pv_instance_params *params, struct pv_instance **out);
void pv_instance_destroy(struct pv_instance *instance);

/* Highest instance version of the host, 1.0 if no loader. */
uint32_t pv_instance_version(void);

#endif
