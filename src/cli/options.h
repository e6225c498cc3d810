/* Option values that several subcommands take.
 *
 * The parsers return 0, or PV_EXIT_USAGE after a line that says what is possible. `command` is the
 * subcommand's name.
 */
#ifndef PV_CLI_OPTIONS_H
#define PV_CLI_OPTIONS_H

#include "vulkan/host.h"

#include <stdint.h>

/* --memory-tier, --modifier-tier */
int pv_option_tier(const char *command, const char *text, enum pv_memory_tier *out);
int pv_option_modifier_tier(const char *command, const char *text, enum pv_modifier_tier *out);
/* --log: takes effect at once. */
int pv_option_log_level(const char *command, const char *text);
/* -v: one level more. */
void pv_option_verbose(void);
/* A number from `min` to `max`. */
int pv_option_number(const char *command, const char *option, const char *text, uint32_t min,
                     uint32_t max, uint32_t *out);
/* Bytes, with K, M, G or T (1024 each) behind the number; not 0. */
int pv_option_size(const char *command, const char *option, const char *text, uint64_t *out);
/* "1280x800", 1 to 65535 each. */
int pv_option_resolution(const char *command, const char *option, const char *text,
                         uint32_t *out_width, uint32_t *out_height);

/* Print a string of JSON, with its quotes, to standard output. */
void pv_print_json_string(const char *text);

#endif
