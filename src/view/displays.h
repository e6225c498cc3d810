/* The kinds of display that pearvisor-view knows, as typed on its command line: KIND[:ADDRESS].
 *
 * A new kind is a struct pv_display_kind in a file of its own, a declaration below, and a line in
 * the table in displays.c.
 *
 * Threads: all on the thread of the event loop.
 */
#ifndef PV_VIEW_DISPLAYS_H
#define PV_VIEW_DISPLAYS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct pv_input;
struct pv_keymap;
struct pv_viewer;
typedef struct uv_loop_s uv_loop_t;

struct pv_display_params {
    uv_loop_t *loop; /* borrowed until destroy has returned, as all here */
    struct pv_viewer *viewer;
    struct pv_input *input;         /* never NULL, but may lead nowhere */
    const struct pv_keymap *keymap; /* NULL if this build has none */
    uint32_t scanout;
    const char *address;  /* what follows the colon; NULL: nothing does */
    const char *name;     /* of the guest, for titles */
    const char *password; /* that the user has chosen, or NULL; */
    bool no_password;     /* he wants none */
    /* The display wants to end (a window was closed). Called from the loop, not from create. */
    void (*ended)(void *data);
    void *data;
};

/* `display` is what create has made. All but the first three may be NULL. */
struct pv_display_kind {
    const char *name;
    const char *synopsis; /* one line of --help */
    /* Returns 0, or a negative errno after a line in the log. When it is of use from then on it
     * says so in one line. */
    int (*create)(const struct pv_display_params *params, void **out);
    /* The memory that the loop still uses may go when it has run once more. */
    void (*destroy)(void *display);
    /* Of the scanout of `params`, as in struct pv_viewer_events. */
    void (*frame)(void *display);
    void (*resized)(void *display);
    void (*cursor)(void *display, bool image);
    void (*mode)(void *display);
    /* SIGUSR1: save a picture. */
    void (*save)(void *display);
};

extern const struct pv_display_kind pv_display_png, pv_display_vnc, pv_display_web,
    pv_display_window;

/* NULL: there is none of that name (of `size` bytes); `absent`: there is, but not in this build. */
const struct pv_display_kind *pv_display_find(const char *name, size_t size, bool *absent);
/* All that this build has; NULL behind the last. */
const struct pv_display_kind *const *pv_display_kinds(void);

#endif
