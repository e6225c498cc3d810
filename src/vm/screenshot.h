/* Ask the GPU device for a picture of the guest's screen, over its control socket.
 *
 * Threads: that of the event loop.
 */
#ifndef PV_VM_SCREENSHOT_H
#define PV_VM_SCREENSHOT_H

struct pv_screenshot;
typedef struct uv_loop_s uv_loop_t;

/* Have a PNG of the first scanout written to `path`. `done` comes once, with NULL or what went
 * wrong, also when there is no answer for 10 seconds. `control_fd` is borrowed: a duplicate is
 * used. */
int pv_screenshot_create(uv_loop_t *loop, int control_fd, const char *path,
                         void (*done)(void *data, const char *error), void *data,
                         struct pv_screenshot **out);
void pv_screenshot_destroy(struct pv_screenshot *screenshot); /* NULL is fine */

#endif
