#include "vm/image.h"

#include "vm/paths.h"
#include "vm/process.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

bool pv_image_name_valid(const char *name)
{
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyz0123456789._-";
    size_t size = strlen(name);
    return size > 0 && size < PV_IMAGE_NAME_MAX && strspn(name, allowed) == size &&
           name[0] != '.' && name[0] != '_' && name[0] != '-';
}

static void get_text(struct json_object *object, const char *name, char *out, size_t size)
{
    struct json_object *value;
    if (json_object_object_get_ex(object, name, &value) &&
        json_object_is_type(value, json_type_string))
        snprintf(out, size, "%s", json_object_get_string(value));
}

static uint64_t disk_usage(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0 ? (uint64_t)info.st_blocks * 512u : 0;
}

static struct json_object *read_description(const struct pv_image *image)
{
    char path[1100];
    snprintf(path, sizeof(path), "%s/image.json", image->folder);
    struct json_object *object = json_object_from_file(path);
    if (object && !json_object_is_type(object, json_type_object)) {
        json_object_put(object);
        object = NULL;
    }
    return object;
}

static void set_paths(struct pv_image *image, const char *name)
{
    char below[PV_IMAGE_NAME_MAX + 16];
    snprintf(image->name, sizeof(image->name), "%s", name);
    snprintf(below, sizeof(below), "images/%s", name);
    pv_cache_path(below, image->folder, sizeof(image->folder));
    snprintf(image->disk, sizeof(image->disk), "%s/disk.img", image->folder);
    snprintf(image->kernel, sizeof(image->kernel), "%s/vmlinuz", image->folder);
    snprintf(image->initrd, sizeof(image->initrd), "%s/initrd.img", image->folder);
    snprintf(image->overlay, sizeof(image->overlay), "%s/overlay.qcow2", image->folder);
}

int pv_image_open(const char *name, struct pv_image *out)
{
    char arch[32] = "";
    struct json_object *size;
    *out = (struct pv_image){0};
    if (!pv_image_name_valid(name))
        return -ENOENT;
    set_paths(out, name);
    if (access(out->folder, F_OK) < 0)
        return -ENOENT;
    struct json_object *object = read_description(out);
    if (!object)
        return -EBADMSG;
    get_text(object, "about", out->about, sizeof(out->about));
    get_text(object, "release", out->release, sizeof(out->release));
    get_text(object, "built", out->built, sizeof(out->built));
    get_text(object, "cmdline", out->cmdline, sizeof(out->cmdline));
    get_text(object, "cmdline_tcg", out->cmdline_tcg, sizeof(out->cmdline_tcg));
    get_text(object, "arch", arch, sizeof(arch));
    if (json_object_object_get_ex(object, "size", &size))
        out->size = (uint64_t)json_object_get_int64(size);
    json_object_put(object);
    if (pv_arch_parse(arch, &out->arch) < 0)
        return -EBADMSG;
    if (!out->cmdline[0])
        snprintf(out->cmdline, sizeof(out->cmdline), "%s", pv_vm_default_cmdline(out->arch));
    if (access(out->disk, R_OK) < 0 || access(out->kernel, R_OK) < 0 ||
        access(out->initrd, R_OK) < 0)
        return -EBADMSG;
    out->has_overlay = access(out->overlay, F_OK) == 0;
    out->disk_usage = disk_usage(out->disk) + disk_usage(out->kernel) + disk_usage(out->initrd) +
                      disk_usage(out->overlay);
    return 0;
}

static int compare_images(const void *a, const void *b)
{
    return strcmp(((const struct pv_image *)a)->name, ((const struct pv_image *)b)->name);
}

int pv_image_list(struct pv_image **out)
{
    char folder[1024];
    struct pv_image *images = NULL;
    size_t count = 0;
    struct dirent *entry;
    pv_cache_path("images", folder, sizeof(folder));
    *out = NULL;
    DIR *dir = opendir(folder);
    if (!dir)
        return errno == ENOENT ? 0 : -errno;
    while ((entry = readdir(dir))) {
        struct pv_image image;
        if (pv_image_open(entry->d_name, &image) < 0)
            continue;
        struct pv_image *more = realloc(images, (count + 1) * sizeof(*images));
        if (!more) {
            free(images);
            closedir(dir);
            return -ENOMEM;
        }
        images = more;
        images[count++] = image;
    }
    closedir(dir);
    if (count > 1)
        qsort(images, count, sizeof(*images), compare_images);
    *out = images;
    return (int)count;
}

static int verify_file(const struct pv_image *image, const char *name, const char *expected)
{
    char path[1200], text[256];
#ifdef __APPLE__
    char *const argv[] = {"shasum", "-a", "256", path, NULL};
#else
    char *const argv[] = {"sha256sum", path, NULL};
#endif
    snprintf(path, sizeof(path), "%s/%s", image->folder, name);
    int ret = pv_process_output(argv, NULL, text, sizeof(text));
    if (ret < 0)
        return ret;
    return ret == 0 && strlen(expected) == 64 && strncmp(text, expected, 64) == 0 ? 0 : -EBADMSG;
}

void pv_image_cmdline(const struct pv_image *image, enum pv_accel accel, bool share, char *out,
                      size_t size)
{
    bool translated = accel == PV_ACCEL_TCG && image->cmdline_tcg[0];
    snprintf(out, size, "%s%s%s%s", image->cmdline, translated ? " " : "",
             translated ? image->cmdline_tcg : "", share ? " pearvisor.share=1" : "");
}

int pv_image_verify(const struct pv_image *image, char *what, size_t what_size)
{
    static const char *const names[] = {"disk.img", "vmlinuz", "initrd.img"};
    struct json_object *object = read_description(image), *files, *file;
    int ret = 0;
    snprintf(what, what_size, "image.json");
    if (!object || !json_object_object_get_ex(object, "files", &files))
        ret = -EBADMSG;
    for (size_t i = 0; ret == 0 && i < sizeof(names) / sizeof(names[0]); i++) {
        char expected[80] = "";
        snprintf(what, what_size, "%s", names[i]);
        if (json_object_object_get_ex(files, names[i], &file))
            get_text(file, "sha256", expected, sizeof(expected));
        ret = verify_file(image, names[i], expected);
    }
    json_object_put(object);
    return ret;
}

int pv_image_lock(const struct pv_image *image, bool keep_changes)
{
    char path[1100];
    snprintf(path, sizeof(path), "%s/overlay.lock", image->folder);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0 && (errno == EACCES || errno == EROFS) && !keep_changes)
        fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    if (flock(fd, (keep_changes ? LOCK_EX : LOCK_SH) | LOCK_NB) < 0) {
        int error = errno;
        close(fd);
        return error == EWOULDBLOCK ? -EBUSY : -error;
    }
    return fd;
}

static int remove_entry(const char *path, const struct stat *info, int type, struct FTW *where)
{
    return remove(path) < 0 ? -errno : 0;
}

/* Renamed first: what is half removed is no image any more. */
static int remove_folder(const struct pv_image *image)
{
    char folder[1024], name[PV_IMAGE_NAME_MAX + 32];
    snprintf(name, sizeof(name), "images/.%s.removed", image->name);
    pv_cache_path(name, folder, sizeof(folder));
    nftw(folder, remove_entry, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
    if (rename(image->folder, folder) < 0)
        return -errno;
    return nftw(folder, remove_entry, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
}

int pv_image_remove(const struct pv_image *image)
{
    int lock = pv_image_lock(image, true);
    if (lock < 0)
        return lock;
    int ret = remove_folder(image);
    close(lock);
    return ret;
}

int pv_image_reset(const struct pv_image *image)
{
    int lock = pv_image_lock(image, true);
    if (lock < 0)
        return lock;
    int ret = unlink(image->overlay) < 0 && errno != ENOENT ? -errno : 0;
    close(lock);
    return ret;
}

int pv_image_make_overlay(struct pv_image *image, const struct pv_qemu *qemu)
{
    struct pv_argv argv = {0};
    char new_path[1200], text[256];
    if (access(image->overlay, F_OK) == 0)
        return 0;
    snprintf(new_path, sizeof(new_path), "%s.new", image->overlay);
    pv_argv_append(&argv, &qemu->img_command);
    pv_argv_add(&argv, "create");
    pv_argv_add(&argv, "-q");
    pv_argv_option(&argv, "-f", "qcow2");
    pv_argv_option(&argv, "-F", "raw");
    pv_argv_option(&argv, "-b", "%s", "disk.img"); /* beside it: the folder may be moved */
    pv_argv_add(&argv, new_path);
    int ret = argv.failed ? -ENOMEM
                          : pv_process_output(argv.items, qemu->environment, text, sizeof(text));
    pv_argv_finish(&argv);
    if (ret == 0 && rename(new_path, image->overlay) < 0)
        ret = -errno;
    if (ret != 0)
        unlink(new_path);
    if (ret > 0)
        ret = -EIO;
    image->has_overlay = ret == 0;
    return ret;
}
