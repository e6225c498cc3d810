#include "cli/vm_options.h"

#include "cli/commands.h"
#include "util/log.h"
#include "vm/paths.h"
#include "vm/process.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PV_LOG_MODULE "vm"

void pv_free_names(char **names)
{
    for (size_t i = 0; names && names[i]; i++)
        free(names[i]);
    free(names);
}

char **pv_profile_names(void)
{
    char folder[1100];
    struct pv_argv names = {0};
    struct dirent *entry;
    DIR *dir = pv_data_path("guest/profiles", folder, sizeof(folder)) == 0 ? opendir(folder) : NULL;
    while (dir && (entry = readdir(dir))) {
        const char *end = strstr(entry->d_name, ".conf");
        if (end && end[5] == '\0' && end > entry->d_name)
            pv_argv_addf(&names, "%.*s", (int)(end - entry->d_name), entry->d_name);
    }
    if (dir)
        closedir(dir);
    if (names.count == 0) {
        pv_argv_finish(&names);
        return calloc(1, sizeof(char *));
    }
    return names.items;
}

int pv_build_image(const char *name, char *const *arguments, int stdout_fd)
{
    struct pv_argv argv = {0};
    char script[1100];
    if (pv_data_path("guest/build-image.sh", script, sizeof(script)) < 0) {
        pv_error("%s is missing; PEARVISOR_DATA can say where it is", script);
        return PV_EXIT_FAILED;
    }
    pv_argv_add(&argv, script);
    pv_argv_option(&argv, "--name", "%s", name);
    for (size_t i = 0; arguments && arguments[i]; i++)
        pv_argv_add(&argv, arguments[i]);
    int ret = argv.failed ? -ENOMEM : pv_process_foreground(argv.items, stdout_fd);
    pv_argv_finish(&argv);
    if (ret < 0) {
        pv_error("cannot run %s: %s", script, strerror(-ret));
        return PV_EXIT_FAILED;
    }
    return ret;
}

int pv_need_qemu(enum pv_arch arch, struct pv_qemu *out)
{
    char engine[1100], why[512];
    pv_engine_path(arch, engine, sizeof(engine));
    int ret = pv_qemu_find(arch, engine, out, why, sizeof(why));
    if (ret < 0)
        pv_error("%s%s", why, arch == PV_ARCH_AARCH64 ? " --arch aarch64" : "");
    return ret;
}

int pv_need_image(const char *name, struct pv_image *out)
{
    int ret = pv_image_open(name, out);
    if (ret == -ENOENT)
        pv_error("there is no image \"%s\"; see pearvisor image list", name);
    else if (ret < 0)
        pv_error("the image \"%s\" is damaged; build it again: pearvisor image build %s --force",
                 name, name);
    return ret;
}
