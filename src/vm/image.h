/* Guest images: folders that guest/build-image.sh has made.
 *
 *   images/NAME/  disk.img (ext4, never written to)  vmlinuz  initrd.img  image.json
 *                 overlay.qcow2  what guests that keep their changes have written
 *                 overlay.lock   held by who runs one of them
 *
 * Threads: any.
 */
#ifndef PV_VM_IMAGE_H
#define PV_VM_IMAGE_H

#include "vm/qemu.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PV_IMAGE_NAME_MAX 64u

struct pv_image {
    char name[PV_IMAGE_NAME_MAX];
    char about[128], release[32], built[32];
    enum pv_arch arch;
    char cmdline[512], cmdline_tcg[512]; /* for the kernel; the second when translated, too */
    uint64_t size;                       /* of the guest's disk */
    uint64_t disk_usage;                 /* of the folder, in bytes */
    bool has_overlay;
    char folder[1024], disk[1100], kernel[1100], initrd[1100], overlay[1100];
};

/* The name may be one. */
bool pv_image_name_valid(const char *name);

/* Returns 0, -ENOENT if there is no such image, -EBADMSG if it is damaged. */
int pv_image_open(const char *name, struct pv_image *out);

/* The images there are, sorted by name. `out` is the caller's to free. Returns how many, or a
 * negative errno. */
int pv_image_list(struct pv_image **out);

/* What the kernel of the image is told when it runs with `accel`; `share`: a folder is shared. */
void pv_image_cmdline(const struct pv_image *image, enum pv_accel accel, bool share, char *out,
                      size_t size);

/* A file is not what its checksum says: -EBADMSG and its name in `what`. */
int pv_image_verify(const struct pv_image *image, char *what, size_t what_size);

/* Remove it, with all that guests have written. -EBUSY if one runs. */
int pv_image_remove(const struct pv_image *image);
/* Remove what guests have written. -EBUSY if one runs. */
int pv_image_reset(const struct pv_image *image);

/* Hold the image: `keep_changes` for a guest that writes to the overlay, else for reading. Returns
 * an fd (the lock ends with it), -EBUSY, or a negative errno. */
int pv_image_lock(const struct pv_image *image, bool keep_changes);
/* Make the overlay if there is none, whole or not at all. The lock is held. */
int pv_image_make_overlay(struct pv_image *image, const struct pv_qemu *qemu);

#endif
