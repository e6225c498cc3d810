/* What another program says, line by line.
 *
 * Threads: that of the event loop.
 */
#ifndef PV_VM_LINES_H
#define PV_VM_LINES_H

struct pv_lines;
typedef struct uv_loop_s uv_loop_t;

/* Longer lines are cut in two. */
#define PV_LINES_MAX 512u

/* `fd` is the reading end of a pipe, taken over, also on failure. `line` gets a line without its
 * newline, and must not destroy the object. Returns 0, -ENOMEM, or what libuv said. */
int pv_lines_create(uv_loop_t *loop, int fd, void (*line)(void *data, const char *line), void *data,
                    struct pv_lines **out);
/* The program has ended: take what it said last and nobody has read yet, during this call. */
void pv_lines_drain(struct pv_lines *lines);
/* The memory goes when the loop has run once more. NULL is fine, here and above. */
void pv_lines_destroy(struct pv_lines *lines);

#endif
