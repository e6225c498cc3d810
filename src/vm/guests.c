#include "vm/guests.h"

#include "util/os.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define PREFIX "pearvisor-"
#define SUFFIX ".sock"

/* The folder is ours alone, so that a socket in it is what it seems to be. */
static bool is_ours(const char *folder)
{
    struct stat info;
    return lstat(folder, &info) == 0 && S_ISDIR(info.st_mode) && info.st_uid == getuid() &&
           (info.st_mode & 077) == 0;
}

static int runtime_folder(char *out, size_t size)
{
    const char *given = getenv("XDG_RUNTIME_DIR");
    struct stat info;
    if (given && given[0] == '/' && stat(given, &info) == 0 && info.st_uid == getuid()) {
        snprintf(out, size, "%s", given);
        return 0;
    }
    snprintf(out, size, "/tmp/pearvisor-%u", (unsigned int)getuid());
    if (mkdir(out, 0700) < 0 && errno != EEXIST)
        return -errno;
    return is_ours(out) ? 0 : -EPERM;
}

int pv_guest_init(struct pv_guest *guest, const char *name)
{
    const char *slash = strrchr(name, '/');
    char folder[PV_GUEST_SOCKET_SIZE];
    *guest = (struct pv_guest){.pid = getpid()};
    snprintf(guest->name, 40, "%s", slash ? slash + 1 : name);
    for (char *c = guest->name; *c; c++) {
        if (!isalnum((unsigned char)*c) && !strchr("._-", *c))
            *c = '_';
    }
    int ret = runtime_folder(folder, sizeof(folder));
    if (ret < 0)
        return ret;
    int length = snprintf(guest->socket, sizeof(guest->socket), "%s/" PREFIX "%s-%d" SUFFIX, folder,
                          guest->name, (int)guest->pid);
    return length >= (int)sizeof(guest->socket) ? -ENAMETOOLONG : 0;
}

/* "pearvisor-NAME-PID.sock" */
static bool parse_name(const char *file, struct pv_guest *out)
{
    const char *end = strstr(file, SUFFIX), *dash = strrchr(file, '-');
    int used = 0, pid;
    if (strncmp(file, PREFIX, sizeof(PREFIX) - 1) != 0 || !end || end[sizeof(SUFFIX) - 1] ||
        dash < file + sizeof(PREFIX) || sscanf(dash, "-%9d%n", &pid, &used) != 1 ||
        dash + used != end || pid <= 0)
        return false;
    const char *name = file + sizeof(PREFIX) - 1;
    snprintf(out->name, sizeof(out->name), "%.*s", (int)(dash - name), name);
    out->pid = pid;
    return true;
}

static bool answers(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = pv_stream_socket(AF_UNIX, false);
    if (fd < 0)
        return false;
    snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
    bool connected = connect(fd, (const struct sockaddr *)&address, sizeof(address)) == 0 ||
                     errno == EAGAIN; /* it is busy */
    close(fd);
    return connected;
}

static int compare(const void *a, const void *b)
{
    const struct pv_guest *left = a, *right = b;
    int order = strcmp(left->name, right->name);
    return order ? order : (left->pid > right->pid) - (left->pid < right->pid);
}

/* One entry of the folder: false if it is no guest that runs. */
static bool look_at(const char *folder, const char *file, struct pv_guest *out)
{
    if (!parse_name(file, out) || snprintf(out->socket, sizeof(out->socket), "%s/%s", folder,
                                           file) >= (int)sizeof(out->socket))
        return false;
    if (answers(out->socket))
        return true;
    if (kill(out->pid, 0) < 0 && errno == ESRCH)
        unlink(out->socket);
    return false;
}

int pv_guest_list(struct pv_guest **out)
{
    char folder[PV_GUEST_SOCKET_SIZE];
    struct pv_guest *guests = NULL, guest;
    struct dirent *entry;
    int count = 0;
    DIR *dir = runtime_folder(folder, sizeof(folder)) == 0 ? opendir(folder) : NULL;
    while (dir && count >= 0 && (entry = readdir(dir))) {
        if (!look_at(folder, entry->d_name, &guest))
            continue;
        struct pv_guest *more = realloc(guests, (size_t)(count + 1) * sizeof(*guests));
        if (!more) {
            free(guests);
            closedir(dir);
            return -ENOMEM;
        }
        guests = more;
        guests[count++] = guest;
    }
    if (dir)
        closedir(dir);
    if (count > 0)
        qsort(guests, (size_t)count, sizeof(*guests), compare);
    *out = guests;
    return count;
}

static bool is_meant(const struct pv_guest *guest, const char *name)
{
    char pid[16];
    snprintf(pid, sizeof(pid), "%d", (int)guest->pid);
    return !name || strcmp(guest->name, name) == 0 || strcmp(pid, name) == 0;
}

static void list_names(const struct pv_guest *guests, int count, char *out, size_t size)
{
    size_t used = 0;
    for (int i = 0; i < count && used < size; i++)
        used += (size_t)snprintf(out + used, size - used, "%s%s (%d)", i ? ", " : "",
                                 guests[i].name, (int)guests[i].pid);
}

int pv_guest_find(const char *name, struct pv_guest *out, char *why, size_t why_size)
{
    struct pv_guest *guests = NULL;
    char names[256] = "";
    int matches = 0, count = pv_guest_list(&guests);
    for (int i = 0; i < count; i++) {
        if (!is_meant(&guests[i], name))
            continue;
        *out = guests[i];
        matches++;
    }
    list_names(guests, count, names, sizeof(names));
    free(guests);
    if (count < 0)
        return count;
    if (count == 0)
        snprintf(why, why_size, "no guest runs");
    else if (matches == 0)
        snprintf(why, why_size, "no guest \"%s\" runs; these do: %s", name, names);
    else if (matches > 1)
        snprintf(why, why_size, "which guest? Choose with --guest NAME or PID: %s", names);
    return matches == 1 ? 0 : matches == 0 ? -ENOENT : -ENOTUNIQ;
}
