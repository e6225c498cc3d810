/* png:FILE writes the screen to a file when it is told to (SIGUSR1), and when it ends. */
#include "display/display.h"
#include "display/png.h"
#include "display/viewer.h"
#include "gpu/protocol.h"
#include "util/log.h"
#include "view/displays.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define PV_LOG_MODULE "png"

struct png_display {
    struct pv_display_params params;
    char *path; /* owned */
    bool seen;  /* there was a picture */
};

static int create(const struct pv_display_params *params, void **out)
{
    if (!params->address || params->address[0] == '\0') {
        pv_error("the name of the file is missing: png:FILE");
        return -EINVAL;
    }
    struct png_display *display = calloc(1, sizeof(*display));
    char *path = strdup(params->address);
    if (!display || !path) {
        free(display);
        free(path);
        return -ENOMEM;
    }
    display->params = *params;
    display->path = path;
    pv_info("SIGUSR1 writes %s", path);
    *out = display;
    return 0;
}

/* Blank screens are left out: there is nothing to see. */
static void save(void *data)
{
    struct png_display *display = data;
    const struct pv_view *view = pv_viewer_get(display->params.viewer, display->params.scanout);
    struct pv_rect damage;
    pv_viewer_take(display->params.viewer, display->params.scanout, &damage);
    if (view->width == 0) {
        pv_warn("%s is not written: the screen is blank", display->path);
        return;
    }
    struct pv_frame frame = {
        .width = view->width,
        .height = view->height,
        .stride = view->stride,
        .format = PV_FORMAT_B8G8R8X8,
        .pixels = view->pixels,
    };
    struct pv_cursor cursor = {
        .x = view->cursor_x - (int32_t)view->hot_x,
        .y = view->cursor_y - (int32_t)view->hot_y,
        .pixels = view->cursor_visible ? view->cursor : NULL,
    };
    int ret = pv_png_save(&frame, &cursor, display->path);
    if (ret < 0)
        pv_error("cannot write %s: %s", display->path, strerror(-ret));
    else
        pv_info("wrote %s", display->path);
}

static void on_frame(void *data)
{
    struct png_display *display = data;
    struct pv_rect damage;
    display->seen = true;
    pv_viewer_take(display->params.viewer, display->params.scanout, &damage);
}

static void destroy(void *data)
{
    struct png_display *display = data;
    if (display->seen)
        save(display);
    free(display->path);
    free(display);
}

const struct pv_display_kind pv_display_png = {
    .name = "png",
    .synopsis = "png:FILE           a picture, at SIGUSR1 and when the device ends",
    .create = create,
    .destroy = destroy,
    .frame = on_frame,
    .save = save,
};
