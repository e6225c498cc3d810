/* From symbols to keys: what a client that sends symbols (VNC without extended key events) means in
 * terms of a keyboard layout, which the guest must use, too.
 *
 * Spec:    X keysyms (X11/keysymdef.h); Linux input codes (linux/input-event-codes.h).
 * Threads: a keymap never changes; a typist belongs to one thread.
 */
#ifndef PV_DISPLAY_KEYMAP_H
#define PV_DISPLAY_KEYMAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct pv_keymap;

#define PV_KEYMAP_SHIFT 1u
#define PV_KEYMAP_ALTGR 2u

/* `layout` is "LAYOUT" or "LAYOUT:VARIANT" of XKB. -EINVAL if there is no such one; -ENOMEM. */
int pv_keymap_create(const char *layout, struct pv_keymap **out);
void pv_keymap_destroy(struct pv_keymap *keymap);

/* A key that makes `symbol`, and PV_KEYMAP_* that must be held for it. */
bool pv_keymap_find(const struct pv_keymap *keymap, uint32_t symbol, uint32_t *out_code,
                    uint32_t *out_modifiers);

/* One client's hands. Shift and AltGr that a symbol needs, and the client does not hold, are
 * pressed around it, and those it must not have are let go. Caps lock and num lock stay with the
 * client: its symbols say already what they do. The guest's own caps lock is taken into account
 * where it is known; of the keypad, only keys are used that the guest's num lock does not change.
 */
#define PV_TYPIST_KEYS 32
struct pv_typist {
    const struct pv_keymap *keymap; /* borrowed */
    struct {
        uint32_t symbol, code;
    } held[PV_TYPIST_KEYS];
    size_t held_count;
    bool caps_lock; /* the guest's, as far as it is known; the owner's to set */
};

/* `press` is called for each key that has to go down or up, in order. */
void pv_typist_key(struct pv_typist *typist, uint32_t symbol, bool down,
                   void (*press)(void *data, uint32_t code, bool down), void *data);

#endif
