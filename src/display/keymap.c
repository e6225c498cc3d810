#include "display/keymap.h"

#include "vm/keycode.h"

#include <errno.h>
#include <linux/input-event-codes.h>
#include <stdlib.h>
#include <string.h>
#include <xkbcommon/xkbcommon-keysyms.h>
#include <xkbcommon/xkbcommon.h>

/* XKB counts keys from 8 on. */
#define XKB_OFFSET 8u
/* Ways to get to one symbol of a key. Four levels by two modifiers need no more. */
#define WAYS_MAX 16

struct entry {
    uint32_t symbol;
    uint16_t code;
    uint16_t modifiers; /* PV_KEYMAP_* */
};

struct pv_keymap {
    struct xkb_context *context;
    struct xkb_keymap *xkb;
    xkb_mod_mask_t shift, altgr; /* of xkb */
    struct entry *entries;       /* owned; sorted by symbol, the best one first */
    size_t count, room;
};

/* ---- building ---- */

static int add_entry(struct pv_keymap *keymap, const struct entry *entry)
{
    if (keymap->count == keymap->room) {
        size_t room = keymap->room ? 2 * keymap->room : 512;
        struct entry *entries = realloc(keymap->entries, room * sizeof(*entries));
        if (!entries)
            return -ENOMEM;
        keymap->entries = entries;
        keymap->room = room;
    }
    keymap->entries[keymap->count++] = *entry;
    return 0;
}

/* The modifiers of a level, if there is a way to it with no others than Shift and AltGr. */
static bool find_way(const struct pv_keymap *keymap, xkb_keycode_t key, xkb_level_index_t level,
                     uint16_t *out)
{
    xkb_mod_mask_t ways[WAYS_MAX];
    size_t count = xkb_keymap_key_get_mods_for_level(keymap->xkb, key, 0, level, ways, WAYS_MAX);
    for (size_t i = 0; i < count; i++) {
        if (ways[i] & ~(keymap->shift | keymap->altgr))
            continue;
        *out = (uint16_t)((ways[i] & keymap->shift ? PV_KEYMAP_SHIFT : 0) |
                          (ways[i] & keymap->altgr ? PV_KEYMAP_ALTGR : 0));
        return true;
    }
    return false;
}

static int add_key(struct pv_keymap *keymap, xkb_keycode_t key)
{
    int ret = 0;
    xkb_level_index_t levels = xkb_keymap_num_levels_for_key(keymap->xkb, key, 0);
    for (xkb_level_index_t level = 0; ret == 0 && level < levels; level++) {
        const xkb_keysym_t *symbols;
        struct entry entry = {.code = (uint16_t)(key - XKB_OFFSET)};
        if (xkb_keymap_key_get_syms_by_level(keymap->xkb, key, 0, level, &symbols) != 1 ||
            !find_way(keymap, key, level, &entry.modifiers))
            continue;
        entry.symbol = symbols[0];
        ret = add_entry(keymap, &entry);
    }
    return ret;
}

/* By symbol; then what needs the fewest modifiers; then the main block before keys of laptops. */
static int compare(const void *left, const void *right)
{
    const struct entry *a = left, *b = right;
    if (a->symbol != b->symbol)
        return a->symbol < b->symbol ? -1 : 1;
    if (a->modifiers != b->modifiers)
        return a->modifiers < b->modifiers ? -1 : 1;
    return (int)a->code - (int)b->code;
}

static int build_table(struct pv_keymap *keymap)
{
    int ret = 0;
    xkb_keycode_t min = xkb_keymap_min_keycode(keymap->xkb);
    xkb_keycode_t max = xkb_keymap_max_keycode(keymap->xkb);
    for (xkb_keycode_t key = min; ret == 0 && key <= max; key++) {
        if (key > XKB_OFFSET && pv_keycode_name(key - XKB_OFFSET))
            ret = add_key(keymap, key);
    }
    qsort(keymap->entries, keymap->count, sizeof(*keymap->entries), compare);
    return ret;
}

static xkb_mod_mask_t mask_of(struct xkb_keymap *xkb, const char *name)
{
    xkb_mod_index_t index = xkb_keymap_mod_get_index(xkb, name);
    return index == XKB_MOD_INVALID ? 0 : (xkb_mod_mask_t)1 << index;
}

int pv_keymap_create(const char *layout, struct pv_keymap **out)
{
    char name[128];
    if (strlen(layout) >= sizeof(name))
        return -EINVAL;
    strcpy(name, layout);
    char *colon = strchr(name, ':');
    if (colon)
        *colon = '\0';
    struct pv_keymap *keymap = calloc(1, sizeof(*keymap));
    if (!keymap)
        return -ENOMEM;
    int ret = -EINVAL;
    keymap->context = xkb_context_new(XKB_CONTEXT_NO_ENVIRONMENT_NAMES);
    if (!keymap->context)
        goto err;
    xkb_context_set_log_level(keymap->context, XKB_LOG_LEVEL_CRITICAL); /* the caller says it */
    const struct xkb_rule_names names = {.layout = name, .variant = colon ? colon + 1 : NULL};
    keymap->xkb = xkb_keymap_new_from_names(keymap->context, &names, XKB_KEYMAP_COMPILE_NO_FLAGS);
    if (!keymap->xkb)
        goto err;
    keymap->shift = mask_of(keymap->xkb, XKB_MOD_NAME_SHIFT);
    keymap->altgr = mask_of(keymap->xkb, "Mod5"); /* where LevelThree is */
    ret = build_table(keymap);
    if (ret < 0)
        goto err;
    *out = keymap;
    return 0;

err:
    pv_keymap_destroy(keymap);
    return ret;
}

void pv_keymap_destroy(struct pv_keymap *keymap)
{
    if (!keymap)
        return;
    xkb_keymap_unref(keymap->xkb);
    xkb_context_unref(keymap->context);
    free(keymap->entries);
    free(keymap);
}

/* ---- looking up ---- */

/* The first entry of a symbol, or NULL. */
static const struct entry *find_first(const struct pv_keymap *keymap, uint32_t symbol)
{
    size_t low = 0, high = keymap->count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (keymap->entries[middle].symbol < symbol)
            low = middle + 1;
        else
            high = middle;
    }
    bool found = low < keymap->count && keymap->entries[low].symbol == symbol;
    return found ? &keymap->entries[low] : NULL;
}

/* A symbol may have two names, one of them by its Unicode number. */
static const struct entry *find_any(const struct pv_keymap *keymap, uint32_t symbol)
{
    const struct entry *entry = find_first(keymap, symbol);
    uint32_t character = entry ? 0 : xkb_keysym_to_utf32(symbol);
    return character ? find_first(keymap, xkb_utf32_to_keysym(character)) : entry;
}

/* The one of a symbol's entries that goes best with what is held. */
static const struct entry *find_best(const struct pv_keymap *keymap, uint32_t symbol,
                                     uint32_t modifiers)
{
    const struct entry *first = find_any(keymap, symbol);
    const struct entry *end = keymap->entries + keymap->count;
    for (const struct entry *entry = first; entry && entry < end && entry->symbol == first->symbol;
         entry++) {
        if (entry->modifiers == modifiers)
            return entry;
    }
    return first;
}

bool pv_keymap_find(const struct pv_keymap *keymap, uint32_t symbol, uint32_t *out_code,
                    uint32_t *out_modifiers)
{
    const struct entry *entry = find_any(keymap, symbol);
    if (!entry)
        return false;
    *out_code = entry->code;
    *out_modifiers = entry->modifiers;
    return true;
}

/* ---- typing ---- */

/* The keys that hold the modifiers, whatever the layout says. */
static const struct {
    uint32_t symbol, code, modifier;
} modifier_keys[] = {
    {XKB_KEY_Shift_L, KEY_LEFTSHIFT, PV_KEYMAP_SHIFT},
    {XKB_KEY_Shift_R, KEY_RIGHTSHIFT, PV_KEYMAP_SHIFT},
    {XKB_KEY_ISO_Level3_Shift, KEY_RIGHTALT, PV_KEYMAP_ALTGR},
    {XKB_KEY_Mode_switch, KEY_RIGHTALT, PV_KEYMAP_ALTGR},
};
#define MODIFIER_KEYS (sizeof(modifier_keys) / sizeof(modifier_keys[0]))

/* Locks whose effect is in the client's symbols already. */
static bool is_lock(uint32_t symbol)
{
    return symbol == XKB_KEY_Caps_Lock || symbol == XKB_KEY_Shift_Lock ||
           symbol == XKB_KEY_Num_Lock || symbol == XKB_KEY_ISO_Level3_Lock;
}

/* Makes a character, rather than does something, for which Shift has a meaning of its own. */
static bool is_character(uint32_t symbol)
{
    uint32_t character = xkb_keysym_to_utf32(symbol);
    return character > ' ' && character != 0x7f;
}

static uint32_t modifier_of(const struct pv_typist *typist, size_t held)
{
    for (size_t i = 0; i < MODIFIER_KEYS; i++) {
        if (typist->held[held].symbol == modifier_keys[i].symbol)
            return modifier_keys[i].modifier;
    }
    return 0;
}

static uint32_t held_modifiers(const struct pv_typist *typist)
{
    uint32_t modifiers = 0;
    for (size_t i = 0; i < typist->held_count; i++)
        modifiers |= modifier_of(typist, i);
    return modifiers;
}

static bool find_key(const struct pv_typist *typist, uint32_t symbol, uint32_t held,
                     uint32_t *out_code, uint32_t *out_wanted)
{
    for (size_t i = 0; i < MODIFIER_KEYS; i++) {
        if (symbol == modifier_keys[i].symbol) {
            *out_code = modifier_keys[i].code;
            *out_wanted = held;
            return true;
        }
    }
    const struct entry *entry =
        is_lock(symbol) || !typist->keymap ? NULL : find_best(typist->keymap, symbol, held);
    if (!entry)
        return false;
    *out_code = entry->code;
    *out_wanted = is_character(symbol) ? entry->modifiers : held;
    return true;
}

static size_t find_held(const struct pv_typist *typist, uint32_t symbol)
{
    size_t i = 0;
    while (i < typist->held_count && typist->held[i].symbol != symbol)
        i++;
    return i;
}

/* Shift may have changed meanwhile, and with it the symbol of the key that is let go. */
static size_t find_held_code(const struct pv_typist *typist, uint32_t code)
{
    size_t i = 0;
    while (i < typist->held_count && typist->held[i].code != code)
        i++;
    return i;
}

static void let_go(struct pv_typist *typist, uint32_t symbol,
                   void (*press)(void *data, uint32_t code, bool down), void *data)
{
    uint32_t code, wanted;
    size_t i = find_held(typist, symbol);
    if (i == typist->held_count && find_key(typist, symbol, held_modifiers(typist), &code, &wanted))
        i = find_held_code(typist, code);
    if (i == typist->held_count)
        return;
    code = typist->held[i].code;
    typist->held[i] = typist->held[--typist->held_count];
    press(data, code, false);
}

/* Press (`down`) or let go of what `missing` needs, or of what is held and must not be. */
static void press_around(struct pv_typist *typist, uint32_t missing, uint32_t surplus, bool before,
                         void (*press)(void *data, uint32_t code, bool down), void *data)
{
    if (missing & PV_KEYMAP_SHIFT)
        press(data, KEY_LEFTSHIFT, before);
    if (missing & PV_KEYMAP_ALTGR)
        press(data, KEY_RIGHTALT, before);
    for (size_t i = 0; i < typist->held_count; i++) {
        if (modifier_of(typist, i) & surplus)
            press(data, typist->held[i].code, !before);
    }
}

void pv_typist_key(struct pv_typist *typist, uint32_t symbol, bool down,
                   void (*press)(void *data, uint32_t code, bool down), void *data)
{
    if (!down) {
        let_go(typist, symbol, press, data);
        return;
    }
    uint32_t code, wanted, held = held_modifiers(typist);
    if (!find_key(typist, symbol, held, &code, &wanted) ||
        find_held_code(typist, code) < typist->held_count || /* auto-repeat */
        typist->held_count == PV_TYPIST_KEYS)
        return;
    uint32_t missing = wanted & ~held, surplus = held & ~wanted;
    press_around(typist, missing, surplus, true, press, data);
    press(data, code, true);
    press_around(typist, missing, surplus, false, press, data);
    typist->held[typist->held_count].symbol = symbol;
    typist->held[typist->held_count++].code = code;
}
