#include "cli/venus_client.h"

#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* The first Mesa with the Venus that we serve. */
#define OLDEST_MAJOR 24
#define OLDEST_MINOR 0

/* ---- the manifest ---- */

static bool is_manifest_name(const char *name)
{
    size_t length = strlen(name);
    return strncmp(name, "virtio_icd", 10) == 0 && length > 5 &&
           strcmp(name + length - 5, ".json") == 0;
}

static bool take_manifest(const char *path, void *data)
{
    struct pv_venus_client *client = data;
    const char *name = strrchr(path, '/');
    if (!is_manifest_name(name ? name + 1 : path) || access(path, R_OK) != 0)
        return false;
    snprintf(client->manifest, sizeof(client->manifest), "%s", path);
    return true;
}

static bool look_in_folder(const char *folder, void *data)
{
    DIR *dir = opendir(folder);
    if (!dir)
        return false;
    bool found = false;
    struct dirent *entry;
    while (!found && (entry = readdir(dir))) {
        char path[1024];
        snprintf(path, sizeof(path), "%s/%s", folder, entry->d_name);
        found = take_manifest(path, data);
    }
    closedir(dir);
    return found;
}

static bool look_below(const char *folder, void *data)
{
    char path[1024];
    snprintf(path, sizeof(path), "%s/vulkan/icd.d", folder);
    return look_in_folder(path, data);
}

/* Call `look` with each part of a list with colons until it returns true. */
static bool for_each_in_list(const char *list, bool (*look)(const char *, void *), void *data)
{
    while (list && *list) {
        char part[1024];
        size_t length = strcspn(list, ":");
        snprintf(part, sizeof(part), "%.*s", (int)length, list);
        if (length && look(part, data))
            return true;
        list += length + (list[length] == ':');
    }
    return false;
}

static const char *env_or(const char *name, const char *otherwise)
{
    const char *value = getenv(name);
    return value && *value ? value : otherwise;
}

static bool look_in_home(const char *variable, const char *below_home, void *data)
{
    const char *folder = getenv(variable);
    if (folder && *folder)
        return look_below(folder, data);
    const char *home = getenv("HOME");
    char path[1024];
    if (!home)
        return false;
    snprintf(path, sizeof(path), "%s/%s", home, below_home);
    return look_below(path, data);
}

/* The order of the Vulkan loader's documentation. Its variables come first here and do not shut out
 * the rest: the one who runs doctor may have set them for the host's driver. */
static bool find_manifest(struct pv_venus_client *client)
{
    return for_each_in_list(getenv("VK_DRIVER_FILES"), take_manifest, client) ||
           for_each_in_list(getenv("VK_ICD_FILENAMES"), take_manifest, client) ||
           for_each_in_list(getenv("VK_ADD_DRIVER_FILES"), take_manifest, client) ||
           look_in_home("XDG_CONFIG_HOME", ".config", client) ||
           for_each_in_list(env_or("XDG_CONFIG_DIRS", "/etc/xdg"), look_below, client) ||
           look_below("/etc", client) || look_in_home("XDG_DATA_HOME", ".local/share", client) ||
           for_each_in_list(env_or("XDG_DATA_DIRS", "/usr/local/share:/usr/share"), look_below,
                            client) ||
           look_below("/usr/local/share", client) || look_below("/usr/share", client);
}

/* ---- the library ---- */

static bool take_library(struct pv_venus_client *client, const char *path)
{
    if (access(path, R_OK) != 0)
        return false;
    snprintf(client->library, sizeof(client->library), "%s", path);
    return true;
}

/* A bare name is for the dynamic linker; the driver is not loaded here, only looked for. */
static bool find_bare_library(struct pv_venus_client *client, const char *name)
{
    static const char *const folders[] = {
#if defined(__x86_64__)
        "/usr/lib/x86_64-linux-gnu",
        "/lib/x86_64-linux-gnu",
#elif defined(__aarch64__)
        "/usr/lib/aarch64-linux-gnu",
        "/lib/aarch64-linux-gnu",
#endif
        "/usr/local/lib",
        "/usr/lib64",
        "/usr/lib",
        "/lib64",
        "/lib",
    };
    for (size_t i = 0; i < sizeof(folders) / sizeof(folders[0]); i++) {
        char path[1024];
        snprintf(path, sizeof(path), "%s/%s", folders[i], name);
        if (take_library(client, path))
            return true;
    }
    return false;
}

static bool find_library(struct pv_venus_client *client, const char *name)
{
    if (name[0] == '/')
        return take_library(client, name);
    if (!strchr(name, '/'))
        return find_bare_library(client, name);
    const char *slash = strrchr(client->manifest, '/'); /* relative to the manifest */
    char path[1024];
    snprintf(path, sizeof(path), "%.*s/%s", slash ? (int)(slash - client->manifest) : 1,
             slash ? client->manifest : ".", name);
    return take_library(client, path);
}

static void read_manifest(struct pv_venus_client *client)
{
    struct json_object *root = json_object_from_file(client->manifest);
    struct json_object *icd = NULL, *path = NULL;
    if (!root || !json_object_object_get_ex(root, "ICD", &icd) ||
        !json_object_object_get_ex(icd, "library_path", &path))
        snprintf(client->problem, sizeof(client->problem), "its manifest cannot be read");
    else if (!find_library(client, json_object_get_string(path)))
        snprintf(client->problem, sizeof(client->problem), "its library %s is not there",
                 json_object_get_string(path));
    json_object_put(root);
}

/* ---- the version ---- */

/* Mesa's drivers hold "Mesa " and the version as one string: it is what they report as driver info.
 */
static void search_version(const char *bytes, size_t size, struct pv_venus_client *client)
{
    static const char mark[] = "Mesa ";
    const char *end = bytes + size;
    const char *at = bytes;
    while ((at = memmem(at, (size_t)(end - at), mark, sizeof(mark) - 1))) {
        at += sizeof(mark) - 1;
        size_t length = 0;
        while (at + length < end && length < sizeof(client->version) - 1 &&
               (isdigit((unsigned char)at[length]) || (length && at[length] == '.')))
            length++;
        if (length >= 4) { /* "25.0" at least */
            snprintf(client->version, sizeof(client->version), "%.*s", (int)length, at);
            return;
        }
    }
}

static void read_version(struct pv_venus_client *client)
{
    int fd = open(client->library, O_RDONLY | O_CLOEXEC);
    struct stat status;
    if (fd < 0)
        return;
    if (fstat(fd, &status) == 0 && status.st_size > 0) {
        size_t size = (size_t)status.st_size;
        void *bytes = mmap(NULL, size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (bytes != MAP_FAILED) {
            search_version(bytes, size, client);
            munmap(bytes, size);
        }
    }
    close(fd);
}

bool pv_venus_client_older_than(const struct pv_venus_client *client, int major, int minor)
{
    if (!client->version[0])
        return false;
    char *rest;
    long has_major = strtol(client->version, &rest, 10);
    long has_minor = *rest == '.' ? strtol(rest + 1, NULL, 10) : 0;
    return has_major < major || (has_major == major && has_minor < minor);
}

bool pv_venus_client_find(struct pv_venus_client *out)
{
    *out = (struct pv_venus_client){0};
    if (!find_manifest(out)) {
        snprintf(out->problem, sizeof(out->problem),
                 "no virtio_icd*.json where the Vulkan loader looks");
        return false;
    }
    read_manifest(out);
    if (out->problem[0])
        return false;
    read_version(out);
    if (pv_venus_client_older_than(out, OLDEST_MAJOR, OLDEST_MINOR)) {
        snprintf(out->problem, sizeof(out->problem), "Mesa %s is too old, %d.%d is needed",
                 out->version, OLDEST_MAJOR, OLDEST_MINOR);
        return false;
    }
    return true;
}
