#include "display/web_scripts.h"

#include "util/log.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PV_LOG_MODULE "web"

/* noVNC's largest has 100 KiB. */
#define SCRIPT_SIZE_MAX (1u << 20)

struct pv_web_scripts {
    char *root;       /* as it was found; owned, as the next ones */
    char *folders[2]; /* core and vendor, without links */
};

static const char *const folder_names[2] = {"core", "vendor"};

/* NULL if it is no folder with noVNC's modules. */
static char *resolve(const char *root, const char *name)
{
    char path[PATH_MAX];
    int size = snprintf(path, sizeof(path), "%s/%s", root, name);
    return size < (int)sizeof(path) ? realpath(path, NULL) : NULL;
}

static bool look_in(struct pv_web_scripts *scripts, const char *root)
{
    char *rfb = resolve(root, "core/rfb.js");
    for (int i = 0; i < 2; i++)
        scripts->folders[i] = rfb ? resolve(root, folder_names[i]) : NULL;
    free(rfb);
    if (scripts->folders[0] && scripts->folders[1])
        scripts->root = strdup(root);
    if (scripts->root)
        return true;
    for (int i = 0; i < 2; i++) {
        free(scripts->folders[i]);
        scripts->folders[i] = NULL;
    }
    return false;
}

int pv_web_scripts_create(struct pv_web_scripts **out)
{
    struct pv_web_scripts *scripts = calloc(1, sizeof(*scripts));
    if (!scripts)
        return -ENOMEM;
    const char *given = getenv("PEARVISOR_NOVNC");
    bool found = given && *given ? look_in(scripts, given)
                                 : look_in(scripts, PV_DATA_DIR "/novnc") ||
                                       look_in(scripts, "/usr/share/novnc");
    if (!found) {
        pv_error("no noVNC, which the web display needs: install Debian's package novnc, or set "
                 "PEARVISOR_NOVNC to the folder with its core and vendor");
        free(scripts);
        return -ENOENT;
    }
    *out = scripts;
    return 0;
}

void pv_web_scripts_destroy(struct pv_web_scripts *scripts)
{
    if (!scripts)
        return;
    for (int i = 0; i < 2; i++)
        free(scripts->folders[i]);
    free(scripts->root);
    free(scripts);
}

static bool is_below(const char *path, const char *folder)
{
    size_t size = strlen(folder);
    return strncmp(path, folder, size) == 0 && path[size] == '/';
}

/* Where a path leads to, if that may be read; owned by the caller. */
static char *find(const struct pv_web_scripts *scripts, const char *path)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                                  "._-/";
    size_t size = strlen(path);
    if (size < 3 || strcmp(path + size - 3, ".js") != 0 || path[strspn(path, letters)] != '\0')
        return NULL;
    for (int i = 0; i < 2; i++) {
        if (!is_below(path, folder_names[i]))
            continue;
        char *found = resolve(scripts->root, path);
        size_t found_size = found ? strlen(found) : 0;
        if (found && is_below(found, scripts->folders[i]) &&
            strcmp(found + found_size - 3, ".js") == 0)
            return found;
        free(found);
    }
    return NULL;
}

static char *read_all(int fd, size_t *size)
{
    struct stat stat;
    if (fstat(fd, &stat) < 0 || !S_ISREG(stat.st_mode) || stat.st_size > SCRIPT_SIZE_MAX)
        return NULL;
    char *text = malloc((size_t)stat.st_size + 1);
    size_t used = 0;
    ssize_t got = 1;
    while (text && used < (size_t)stat.st_size && got > 0) {
        got = read(fd, text + used, (size_t)stat.st_size - used);
        used += got > 0 ? (size_t)got : 0;
    }
    *size = used;
    return text;
}

char *pv_web_scripts_read(const struct pv_web_scripts *scripts, const char *path, size_t *size)
{
    char *found = find(scripts, path);
    int fd = found ? open(found, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK) : -1;
    free(found);
    if (fd < 0)
        return NULL;
    char *text = read_all(fd, size);
    close(fd);
    return text;
}
