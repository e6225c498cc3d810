/* A running GPU device, by its control socket (gpu/control.h): what it does, and pictures of its
 * screens.
 *
 * Threads: that of the event loop, where the answers come, too.
 */
#ifndef PV_VM_GPU_CLIENT_H
#define PV_VM_GPU_CLIENT_H

#include <stdint.h>

struct json_object;
struct pv_gpu_client;
typedef struct uv_loop_s uv_loop_t;

/* `error`: one line, or NULL when it worked. `result` is borrowed. Called once for each question,
 * and not after pv_gpu_client_destroy. */
typedef void (*pv_gpu_answer)(void *data, struct json_object *result, const char *error);

/* `fd` is connected; taken over on success. Returns 0 or a negative errno. */
int pv_gpu_client_create(uv_loop_t *loop, int fd, struct pv_gpu_client **out);
/* The memory goes when the loop has run once more. NULL is fine. */
void pv_gpu_client_destroy(struct pv_gpu_client *client);

/* Ask for its figures. -EBUSY if it has not answered the last time. */
int pv_gpu_client_status(struct pv_gpu_client *client, pv_gpu_answer answer, void *data);
/* Have it write a PNG of a scanout; `path` is as the device's folder has it. It has ten seconds.
 * -EBUSY as above. */
int pv_gpu_client_screenshot(struct pv_gpu_client *client, uint32_t scanout, const char *path,
                             pv_gpu_answer answer, void *data);

#endif
