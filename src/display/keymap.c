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
/* One more modifier, which is not ours to press. */
#define CAPS          4u
#define MODIFIERS_ALL (PV_KEYMAP_SHIFT | PV_KEYMAP_ALTGR | CAPS)

struct entry {
    uint32_t symbol;
    uint16_t code;
    uint16_t modifiers; /* PV_KEYMAP_*, CAPS */
};

struct pv_keymap {
    struct xkb_context *context;
    struct xkb_keymap *xkb;
    xkb_mod_mask_t shift, altgr, caps; /* of xkb */
    struct entry *entries;             /* owned; sorted by symbol, the best one first */
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

/* What a key makes with each of our modifiers; num lock is off. */
static int add_key(struct pv_keymap *keymap, struct xkb_state *state, xkb_keycode_t key,
                   uint16_t modifiers)
{
    xkb_mod_mask_t mask = (modifiers & PV_KEYMAP_SHIFT ? keymap->shift : 0) |
                          (modifiers & PV_KEYMAP_ALTGR ? keymap->altgr : 0) |
                          (modifiers & CAPS ? keymap->caps : 0);
    xkb_state_update_mask(state, mask, 0, 0, 0, 0, 0);
    struct entry entry = {
        .symbol = xkb_state_key_get_one_sym(state, key),
        .code = (uint16_t)(key - XKB_OFFSET),
        .modifiers = modifiers,
    };
    return entry.symbol == XKB_KEY_NoSymbol ? 0 : add_entry(keymap, &entry);
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
    struct xkb_state *state = xkb_state_new(keymap->xkb);
    if (!state)
        return -ENOMEM;
    for (xkb_keycode_t key = min; ret == 0 && key <= max; key++) {
        if (key <= XKB_OFFSET || !pv_keycode_name(key - XKB_OFFSET))
            continue;
        for (uint16_t modifiers = 0; ret == 0 && modifiers <= MODIFIERS_ALL; modifiers++)
            ret = add_key(keymap, state, key, modifiers);
    }
    xkb_state_unref(state);
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
    keymap->caps = mask_of(keymap->xkb, XKB_MOD_NAME_CAPS);
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

/* The one of a symbol's entries that goes best with what is held, caps lock included. */
static const struct entry *find_best(const struct pv_keymap *keymap, uint32_t symbol,
                                     uint32_t modifiers)
{
    const struct entry *first = find_any(keymap, symbol), *best = NULL;
    const struct entry *end = keymap->entries + keymap->count;
    for (const struct entry *entry = first; entry && entry < end && entry->symbol == first->symbol;
         entry++) {
        if (entry->modifiers == modifiers)
            return entry;
        if (!best && (entry->modifiers & CAPS) == (modifiers & CAPS))
            best = entry;
    }
    return best ? best : first;
}

/* Num lock decides what many keys of the keypad do, and what the guest's says is not known. The
 * client's symbol is what is meant, and there are other keys for it. */
static uint32_t without_keypad(uint32_t symbol)
{
    static const struct {
        uint32_t keypad, other;
    } others[] = {
        {XKB_KEY_KP_Home, XKB_KEY_Home},     {XKB_KEY_KP_End, XKB_KEY_End},
        {XKB_KEY_KP_Left, XKB_KEY_Left},     {XKB_KEY_KP_Right, XKB_KEY_Right},
        {XKB_KEY_KP_Up, XKB_KEY_Up},         {XKB_KEY_KP_Down, XKB_KEY_Down},
        {XKB_KEY_KP_Prior, XKB_KEY_Prior},   {XKB_KEY_KP_Next, XKB_KEY_Next},
        {XKB_KEY_KP_Insert, XKB_KEY_Insert}, {XKB_KEY_KP_Delete, XKB_KEY_Delete},
        {XKB_KEY_KP_Decimal, '.'},           {XKB_KEY_KP_Separator, ','},
    };
    if (symbol >= XKB_KEY_KP_0 && symbol <= XKB_KEY_KP_9)
        return '0' + (symbol - XKB_KEY_KP_0);
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
        if (others[i].keypad == symbol)
            return others[i].other;
    }
    return symbol;
}

bool pv_keymap_find(const struct pv_keymap *keymap, uint32_t symbol, uint32_t *out_code,
                    uint32_t *out_modifiers)
{
    const struct entry *entry = find_best(keymap, without_keypad(symbol), 0);
    if (!entry)
        return false;
    *out_code = entry->code;
    *out_modifiers = entry->modifiers & ~CAPS;
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
    uint32_t modifiers = typist->caps_lock ? CAPS : 0;
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
    symbol = without_keypad(symbol);
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
