/* Without xkbcommon there are no layouts; keys by position work. */
#include "display/keymap.h"

#include <errno.h>

int pv_keymap_create(const char *layout, struct pv_keymap **out)
{
    return -EINVAL;
}

void pv_keymap_destroy(struct pv_keymap *keymap)
{
}

bool pv_keymap_find(const struct pv_keymap *keymap, uint32_t symbol, uint32_t *out_code,
                    uint32_t *out_modifiers)
{
    return false;
}

void pv_typist_key(struct pv_typist *typist, uint32_t symbol, bool down,
                   void (*press)(void *data, uint32_t code, bool down), void *data)
{
}
