/* A picture of a screen as a PNG file.
 *
 * Threads: any, several at a time. Encoding takes tens of milliseconds for a screen: not for an
 * event loop.
 */
#ifndef PV_DISPLAY_PNG_H
#define PV_DISPLAY_PNG_H

struct pv_cursor;
struct pv_frame;

/* Write `frame` with `cursor` drawn over it (NULL: none) atomically: a new file in the same folder
 * is renamed. Alpha in the frame is left out: behind a screen is nothing. Pixels are read during
 * the call only; frame->damage does not matter.
 *
 * Returns 0, -EINVAL if the format is not one of virtio-gpu, -ENOMEM, or what the file system said.
 */
int pv_png_save(const struct pv_frame *frame, const struct pv_cursor *cursor, const char *path);

#endif
