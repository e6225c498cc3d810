/* Figures for people: one line from a device's status (gpu/control.h).
 *
 *   screen 0: 59.8 fps, 16.7 ms median, 18.2 ms p99, 0 dropped | vkcube: 59.8 fps, 16.6/18.0 ms,
 *   12.3k commands/s, 38 MiB | weston: …
 *
 * Screens that are off are left out, and so are frame rates of programs that show no frames. What
 * is missing in the status, or is not a number, is left out too.
 *
 * Threads: any.
 */
#ifndef PV_CLI_STATS_VIEW_H
#define PV_CLI_STATS_VIEW_H

struct json_object;

/* `now` is the answer to "status"; `before` the previous one, or NULL: dropped frames are then
 * counted from the beginning. Both borrowed. Without a newline. Release with free(). NULL without
 * memory. */
char *pv_stats_line(struct json_object *now, struct json_object *before);

#endif
