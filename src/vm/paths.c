#include "vm/paths.h"

#include "util/os.h"

#include <errno.h>
#include <pwd.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* PV_BUILD_DIR and its like come from the build. */
static bool runs_from_build_folder(void)
{
    size_t build_size = strlen(PV_BUILD_DIR);
    char self[4096];
    return pv_executable_path(self, sizeof(self)) == 0 &&
           strncmp(self, PV_BUILD_DIR, build_size) == 0 && self[build_size] == '/';
}

static const char *data_folder(void)
{
    const char *given = getenv("PEARVISOR_DATA");
    if (given && *given)
        return given;
    return runs_from_build_folder() ? PV_SOURCE_DIR : PV_DATA_DIR;
}

int pv_data_path(const char *name, char *out, size_t size)
{
    snprintf(out, size, "%s/%s", data_folder(), name);
    return access(out, R_OK) == 0 ? 0 : -ENOENT;
}

int pv_program_path(const char *name, char *out, size_t size)
{
    if (runs_from_build_folder())
        snprintf(out, size, "%s/tests/clients/%s", PV_BUILD_DIR, name);
    else
        snprintf(out, size, "%s/%s", PV_LIBEXEC_DIR, name);
    return access(out, X_OK) == 0 ? 0 : -ENOENT;
}

static const char *home(void)
{
    const char *given = getenv("HOME");
    if (given && *given)
        return given;
    const struct passwd *user = getpwuid(getuid());
    return user ? user->pw_dir : "/";
}

void pv_cache_path(const char *name, char *out, size_t size)
{
    const char *cache = getenv("PEARVISOR_CACHE"), *xdg = getenv("XDG_CACHE_HOME");
    if (cache && *cache)
        snprintf(out, size, "%s/%s", cache, name);
    else if (xdg && *xdg)
        snprintf(out, size, "%s/pearvisor/%s", xdg, name);
    else
        snprintf(out, size, "%s/.cache/pearvisor/%s", home(), name);
}

const char *pv_engine_name(enum pv_arch arch)
{
    return arch == PV_ARCH_AARCH64 ? "engine-arm" : "engine";
}

void pv_engine_path(enum pv_arch arch, char *out, size_t size)
{
    char name[64];
    snprintf(name, sizeof(name), "roots/%s", pv_engine_name(arch));
    pv_cache_path(name, out, size);
}
