#include "view/displays.h"

#include <string.h>

/* One line for each kind. */
/* clang-format off */
static const struct pv_display_kind *const kinds[] = {
#ifdef PV_HAVE_VNC
    &pv_display_vnc, &pv_display_web,
#endif
#ifdef PV_HAVE_WINDOW
    &pv_display_window,
#endif
    &pv_display_png,
    NULL,
};
/* clang-format on */

/* Those that a build may lack. */
static const char *const optional[] = {"vnc", "web", "window"};

static bool is_name(const char *name, size_t size, const char *other)
{
    return strlen(other) == size && memcmp(name, other, size) == 0;
}

const struct pv_display_kind *pv_display_find(const char *name, size_t size, bool *absent)
{
    *absent = false;
    for (size_t i = 0; kinds[i]; i++) {
        if (is_name(name, size, kinds[i]->name))
            return kinds[i];
    }
    for (size_t i = 0; i < sizeof(optional) / sizeof(optional[0]); i++)
        *absent = *absent || is_name(name, size, optional[i]);
    return NULL;
}

const struct pv_display_kind *const *pv_display_kinds(void)
{
    return kinds;
}
