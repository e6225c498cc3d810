/* The list of host devices, and choosing one of them. What each can do is found in probe.c.
 */
#include "vulkan/host.h"

#include "util/log.h"
#include "vulkan/instance.h"
#include "vulkan/loader.h"
#include "vulkan/probe.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define PV_LOG_MODULE "host"

const char *pv_modifier_tier_name(enum pv_modifier_tier tier)
{
    static const char *const names[] = {
        [PV_MODIFIER_TIER_NONE] = "none",
        [PV_MODIFIER_TIER_LINEAR] = "linear",
        [PV_MODIFIER_TIER_COPIED] = "copied",
        [PV_MODIFIER_TIER_NATIVE] = "native",
    };
    return names[tier];
}

const char *pv_memory_tier_name(enum pv_memory_tier tier)
{
    switch (tier) {
    case PV_MEMORY_TIER_NONE:
        return "none";
    case PV_MEMORY_TIER_IMPORT:
        return "import";
    case PV_MEMORY_TIER_DMA_BUF:
        return "dma-buf";
    case PV_MEMORY_TIER_OPAQUE:
        return "opaque fd";
    case PV_MEMORY_TIER_SHADOW:
        return "shadow";
    }
    return "?";
}

bool pv_device_caps_serve_arena(const struct pv_device_caps *caps)
{
    for (uint32_t i = 0; i < caps->memory_type_count; i++) {
        enum pv_memory_tier tier = caps->memory_types[i].tier;
        if (tier == PV_MEMORY_TIER_IMPORT || tier == PV_MEMORY_TIER_SHADOW)
            return true;
    }
    return false;
}

static int fail(char *error, size_t error_size, int ret, const char *text)
{
    if (error && error_size)
        snprintf(error, error_size, "%s", text);
    return ret;
}

int pv_host_probe(const struct pv_host_options *options, struct pv_host_caps *out, char *error,
                  size_t error_size)
{
    const struct pv_host_options defaults = {0};
    memset(out, 0, sizeof(*out)); /* padding too: it may be sent between processes */
    if (!pv_loader_get())
        return fail(error, error_size, -ENOENT,
                    "no Vulkan loader (libvulkan.so.1) on this machine: apt install libvulkan1");
    out->instance_version = pv_instance_version();

    struct pv_instance *instance;
    VkResult result = pv_instance_open(NULL, &instance);
    if (result != VK_SUCCESS)
        return fail(error, error_size, -ENODEV,
                    "no Vulkan driver answers on this machine: apt install mesa-vulkan-drivers, or "
                    "your GPU's driver");
    VkPhysicalDevice handles[PV_HOST_MAX_DEVICES];
    result = pv_instance_enumerate(instance, handles, &out->device_count);
    if (result == VK_SUCCESS) {
        for (uint32_t i = 0; i < out->device_count; i++)
            pv_probe_device(instance, handles[i], options ? options : &defaults, &out->devices[i]);
    }
    pv_instance_destroy(instance);

    if (out->device_count == 0)
        return fail(error, error_size, -ENODEV,
                    "no Vulkan device on this machine: apt install mesa-vulkan-drivers (its "
                    "lavapipe needs no GPU), or your GPU's driver");
    return 0;
}

/* ---- choosing ---- */

static void describe_choices(const struct pv_host_caps *caps, char *error, size_t size)
{
    for (uint32_t i = 0; i < caps->device_count; i++) {
        size_t used = strlen(error);
        snprintf(error + used, size - used, "%s%u \"%s\"%s", i ? ", " : "", i,
                 caps->devices[i].name, caps->devices[i].usable ? "" : " (not usable)");
    }
}

static int refuse(const struct pv_host_caps *caps, const char *selector, const char *why,
                  char *error, size_t size)
{
    if (error && size) {
        snprintf(error, size, "device \"%s\" %s; there are: ", selector, why);
        describe_choices(caps, error, size);
    }
    return -ENOENT;
}

static int type_rank(VkPhysicalDeviceType type)
{
    switch (type) {
    case VK_PHYSICAL_DEVICE_TYPE_DISCRETE_GPU:
        return 4;
    case VK_PHYSICAL_DEVICE_TYPE_INTEGRATED_GPU:
        return 3;
    case VK_PHYSICAL_DEVICE_TYPE_VIRTUAL_GPU:
        return 2;
    case VK_PHYSICAL_DEVICE_TYPE_OTHER:
        return 1;
    default:
        return 0;
    }
}

static int select_best(const struct pv_host_caps *caps, char *error, size_t size)
{
    int best = -1;
    for (uint32_t i = 0; i < caps->device_count; i++) {
        if (!caps->devices[i].usable)
            continue;
        if (best < 0 || type_rank(caps->devices[i].type) > type_rank(caps->devices[best].type))
            best = (int)i;
    }
    if (best >= 0)
        return best;
    if (error && size)
        snprintf(error, size, "no usable Vulkan device%s%s; run 'pearvisor doctor'",
                 caps->device_count ? ": " : "",
                 caps->device_count ? caps->devices[0].why_not : "");
    return -ENOENT;
}

/* 32 hex digits, dashes anywhere. */
static bool parse_uuid(const char *text, uint8_t out[VK_UUID_SIZE])
{
    size_t digits = 0;
    for (; *text; text++) {
        if (*text == '-')
            continue;
        if (!isxdigit((unsigned char)*text) || digits == 2 * (size_t)VK_UUID_SIZE)
            return false;
        int value =
            isdigit((unsigned char)*text) ? *text - '0' : tolower((unsigned char)*text) - 'a' + 10;
        uint8_t *byte = &out[digits / 2];
        *byte = (uint8_t)(digits % 2 ? *byte << 4 | value : value);
        digits++;
    }
    return digits == 2 * (size_t)VK_UUID_SIZE;
}

static int find_by_name(const struct pv_host_caps *caps, const char *part)
{
    int unusable = -1;
    for (uint32_t i = 0; i < caps->device_count; i++) {
        if (!strcasestr(caps->devices[i].name, part))
            continue;
        if (caps->devices[i].usable)
            return (int)i;
        unusable = (int)i;
    }
    return unusable;
}

static int find(const struct pv_host_caps *caps, const char *selector)
{
    char *end;
    errno = 0;
    unsigned long index = strtoul(selector, &end, 10);
    if (isdigit((unsigned char)*selector) && *end == '\0' && errno == 0 &&
        index < caps->device_count)
        return (int)index;

    uint8_t uuid[VK_UUID_SIZE];
    if (parse_uuid(selector, uuid)) {
        for (uint32_t i = 0; i < caps->device_count; i++) {
            if (memcmp(uuid, caps->devices[i].uuid, VK_UUID_SIZE) == 0)
                return (int)i;
        }
    }
    return find_by_name(caps, selector);
}

int pv_host_select(const struct pv_host_caps *caps, const char *selector, char *error,
                   size_t error_size)
{
    if (!selector || !*selector)
        return select_best(caps, error, error_size);
    int index = find(caps, selector);
    if (index < 0)
        return refuse(caps, selector, "is not here", error, error_size);
    if (!caps->devices[index].usable)
        return refuse(caps, selector, caps->devices[index].why_not, error, error_size);
    return index;
}
