#include "cli/options.h"

#include "cli/commands.h"
#include "util/log.h"

#include <ctype.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int pv_option_tier(const char *command, const char *text, enum pv_memory_tier *out)
{
    static const char *const names[] = {
        [PV_MEMORY_TIER_IMPORT] = "import",
        [PV_MEMORY_TIER_DMA_BUF] = "dma-buf",
        [PV_MEMORY_TIER_OPAQUE] = "opaque",
        [PV_MEMORY_TIER_SHADOW] = "shadow",
    };
    for (size_t i = PV_MEMORY_TIER_IMPORT; i < sizeof(names) / sizeof(names[0]); i++) {
        if (strcmp(text, names[i]) == 0) {
            *out = (enum pv_memory_tier)i;
            return 0;
        }
    }
    return pv_usage_error(command, "--memory-tier %s: choose import, dma-buf, opaque or shadow",
                          text);
}

int pv_option_modifier_tier(const char *command, const char *text, enum pv_modifier_tier *out)
{
    for (int tier = PV_MODIFIER_TIER_LINEAR; tier <= PV_MODIFIER_TIER_COPIED; tier++) {
        if (strcmp(text, pv_modifier_tier_name((enum pv_modifier_tier)tier)) == 0) {
            *out = (enum pv_modifier_tier)tier;
            return 0;
        }
    }
    return pv_usage_error(command, "--modifier-tier %s: choose linear or copied", text);
}

int pv_option_log_level(const char *command, const char *text)
{
    enum pv_log_level level;
    if (pv_log_parse_level(text, &level) < 0)
        return pv_usage_error(command, "--log %s: choose error, warn, info, debug or trace", text);
    pv_log_set_level(level);
    return 0;
}

void pv_option_verbose(void)
{
    if (pv_log_get_level() < PV_LOG_TRACE)
        pv_log_set_level(pv_log_get_level() + 1);
}

/* Digits at `text`; *out_end is what follows them. */
static bool parse_digits(const char *text, uint64_t *out, char **out_end)
{
    errno = 0;
    if (!isdigit((unsigned char)text[0]))
        return false;
    *out = strtoull(text, out_end, 10);
    return errno == 0;
}

int pv_option_number(const char *command, const char *option, const char *text, uint32_t min,
                     uint32_t max, uint32_t *out)
{
    char *end;
    uint64_t value;
    if (!parse_digits(text, &value, &end) || *end || value < min || value > max)
        return pv_usage_error(command, "%s %s: a number from %u to %u is needed", option, text, min,
                              max);
    *out = (uint32_t)value;
    return 0;
}

int pv_option_size(const char *command, const char *option, const char *text, uint64_t *out)
{
    static const char units[] = "KMGT";
    char *end;
    uint64_t value;
    unsigned int shift = 0;
    bool good = parse_digits(text, &value, &end) && value > 0;
    if (good && *end) {
        const char *unit = strchr(units, toupper((unsigned char)*end));
        good = unit && end[1] == '\0';
        shift = good ? 10 * (unsigned int)(unit - units + 1) : 0;
    }
    if (!good || value > UINT64_MAX >> shift)
        return pv_usage_error(command, "%s %s: a size such as 512M or 8G is needed", option, text);
    *out = value << shift;
    return 0;
}

int pv_option_resolution(const char *command, const char *option, const char *text,
                         uint32_t *out_width, uint32_t *out_height)
{
    char *end;
    uint64_t width, height;
    bool good = parse_digits(text, &width, &end) && *end == 'x' &&
                parse_digits(end + 1, &height, &end) && *end == '\0' && width >= 1 &&
                width <= 65535 && height >= 1 && height <= 65535;
    if (!good)
        return pv_usage_error(command, "%s %s: width x height is needed, such as 1280x800", option,
                              text);
    *out_width = (uint32_t)width;
    *out_height = (uint32_t)height;
    return 0;
}

void pv_print_json_string(const char *text)
{
    putchar('"');
    for (; *text; text++) {
        unsigned char c = (unsigned char)*text;
        if (c == '"' || c == '\\')
            printf("\\%c", c);
        else if (c < 0x20)
            printf("\\u%04x", c);
        else
            putchar(c);
    }
    putchar('"');
}
