/* The control socket of a running device, for `pearvisor run`, tests and people.
 *
 * One JSON object a line each way, answers in the order of the commands:
 *
 *   {"command": "status"}
 *     {"commands": …, "contexts": [{"id", "pid", "name", "failed", "hung", "fps", "frames",
 *                                   "frame_ms_median", "frame_ms_p99", "commands",
 *                                   "commands_per_s", "submissions", "memory_bytes", …}],
 *      "scanouts": [{"width", "height", "on", "fps", "frame_ms_median", "frame_ms_p99", "frames",
 *                    "shown", "dropped", "viewers", …}], …}
 *   {"command": "resize", "scanout": 0, "width": 1920, "height": 1080}      {"ok": true}
 *   {"command": "view"}                             {"ok": true}, and a socket (display/screen.h)
 *   {"command": "screenshot", "scanout": 0, "path": "/tmp/screen.png"}      {"ok": true}
 *   anything else                                                           {"error": "one line"}
 *
 * The socket of "view" is one end of a stream socket pair, sent by SCM_RIGHTS with the line's first
 * byte; it goes on when the client has gone. A screen of size 0x0 is unplugged.
 *
 * The form of QEMU's monitor is understood, too: {"execute": C, "arguments": {…}, "id": I} is
 * answered by {"return": …, "id": I} or {"error": {"class": "GenericError", "desc": …}, "id": I}.
 *
 * Trust:   clients may do what their user may: a screenshot goes to any path. A display, which
 *          strangers talk to, may look and ask for the status, no more. Nothing that either sends
 *          harms the device; lines and answers that are not fetched are bounded.
 * Threads: that of the event loop. A screenshot shows the moment of its command; the file is
 * written on libuv's thread pool, and the client's next command is looked at after that.
 */
#ifndef PV_GPU_CONTROL_H
#define PV_GPU_CONTROL_H

#include <stddef.h>

struct json_object;
struct pv_control;
struct pv_gpu;
struct pv_publisher;
typedef struct uv_loop_s uv_loop_t;

/* Longest line of a client. */
#define PV_CONTROL_LINE_MAX (64u << 10)
/* More are turned away. */
#define PV_CONTROL_CLIENTS_MAX 32u

struct pv_control_params {
    uv_loop_t *loop; /* borrowed, as the next one */
    struct pv_gpu *gpu;
    struct pv_publisher *publisher; /* what the GPU shows; NULL: nobody can look */
    int listen_fd;                  /* a listening Unix socket, duplicated; -1: none */
    const int *client_fds;          /* connected ones, taken over on success */
    size_t client_count;
    const int *view_fds; /* the same, of displays */
    size_t view_count;
    /* Add what others know to the answer of "status". May be NULL. */
    void (*add_status)(void *data, struct json_object *status);
    void *data;
};

int pv_control_create(const struct pv_control_params *params, struct pv_control **out);
/* Disconnects all. The memory goes when the loop has run until nothing is left; a picture that is
 * being written is finished first. NULL is fine. */
void pv_control_destroy(struct pv_control *control);

#endif
