/* Inside src/vulkan: facts about formats.
 */
#ifndef PV_VULKAN_FORMATS_H
#define PV_VULKAN_FORMATS_H

#include <vulkan/vulkan_core.h>

#include <stdbool.h>

/* The synthesised modifier LINEAR may be used with this format, if it has linear features at all.
 */
bool pv_format_has_linear_modifier(VkFormat format);

#endif
