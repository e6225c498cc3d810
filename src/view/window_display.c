/* window: a window on the desktop of this machine, by SDL.
 *
 * SDL is asked for events by a timer, often while somebody is typing or moving the pointer and
 * seldom otherwise: it has no fd that an event loop could wait for on all systems.
 *
 * The picture is as large as the window allows, with bars beside it. When the user changes the
 * window's size, the guest is asked to follow; when the guest changes its own, so does the window,
 * unless the user has chosen a size.
 */
#include "display/input.h"
#include "display/viewer.h"
#include "util/log.h"
#include "util/os.h"
#include "view/displays.h"
#include "view/scancode.h"

#include <SDL2/SDL.h>
#include <errno.h>
#include <linux/input-event-codes.h>
#include <stdio.h>
#include <stdlib.h>
#include <uv.h>

#define PV_LOG_MODULE "window"

#define POLL_BUSY_MS 4u
#define POLL_IDLE_MS 25u
/* Busy until this long after the last event. */
#define BUSY_NS (1000u * 1000000u)
/* The guest is asked when the window has kept its size for this long. */
#define RESIZE_DELAY_MS 250u
#define TITLE_PERIOD_MS 1000u
#define SIDE_MIN        64

struct window_display {
    struct pv_display_params params;
    uv_timer_t poll_timer, resize_timer, title_timer;
    int handles; /* that are not closed yet */
    SDL_Window *window;
    SDL_Renderer *renderer;
    SDL_Texture *texture;      /* of the picture's size; NULL: blank */
    SDL_Cursor *cursor;        /* NULL: the guest has shown none yet */
    uint32_t buttons;          /* PV_BUTTON_* */
    int set_width, set_height; /* as we made the window */
    bool size_is_users, busy, outdated;
    uint64_t last_event_ns;
    uint32_t frames, shown_fps;
};

/* ---- the picture ---- */

/* Where the picture is in the window, in the window's own units. */
static SDL_Rect picture_place(const struct window_display *display, int width, int height)
{
    const struct pv_view *view = pv_viewer_get(display->params.viewer, display->params.scanout);
    SDL_Rect place = {0, 0, width, height};
    if (view->width == 0 || view->height == 0)
        return place;
    if ((int64_t)width * view->height > (int64_t)height * view->width)
        place.w = (int)((int64_t)height * view->width / view->height);
    else
        place.h = (int)((int64_t)width * view->height / view->width);
    place.x = (width - place.w) / 2;
    place.y = (height - place.h) / 2;
    return place;
}

static void draw(struct window_display *display)
{
    const struct pv_view *view = pv_viewer_get(display->params.viewer, display->params.scanout);
    int width, height;
    display->outdated = false;
    SDL_SetRenderDrawColor(display->renderer, 0, 0, 0, 255);
    SDL_RenderClear(display->renderer);
    if (display->texture && SDL_GetRendererOutputSize(display->renderer, &width, &height) == 0) {
        SDL_Rect place = picture_place(display, width, height);
        bool whole = place.w % (int)view->width == 0;
        SDL_SetTextureScaleMode(display->texture,
                                whole ? SDL_ScaleModeNearest : SDL_ScaleModeLinear);
        SDL_RenderCopy(display->renderer, display->texture, NULL, &place);
    }
    SDL_RenderPresent(display->renderer);
}

static void upload(struct window_display *display, const struct pv_rect *damage)
{
    const struct pv_view *view = pv_viewer_get(display->params.viewer, display->params.scanout);
    const SDL_Rect part = {(int)damage->x, (int)damage->y, (int)damage->width, (int)damage->height};
    const uint8_t *pixels = view->pixels + (size_t)damage->y * view->stride + damage->x * 4u;
    if (display->texture && part.w > 0 && part.h > 0)
        SDL_UpdateTexture(display->texture, &part, pixels, (int)view->stride);
    display->outdated = true;
}

static void on_frame(void *data)
{
    struct window_display *display = data;
    struct pv_rect damage;
    if (!pv_viewer_take(display->params.viewer, display->params.scanout, &damage))
        return;
    upload(display, &damage);
    display->frames++;
    draw(display);
}

/* The window follows the guest as long as the user has not said otherwise. */
static void follow(struct window_display *display, uint32_t width, uint32_t height)
{
    int now_width, now_height;
    bool fixed =
        SDL_GetWindowFlags(display->window) & (SDL_WINDOW_FULLSCREEN | SDL_WINDOW_MAXIMIZED);
    SDL_GetWindowSize(display->window, &now_width, &now_height);
    if (width == 0 || display->size_is_users || fixed ||
        (now_width == (int)width && now_height == (int)height))
        return;
    display->set_width = (int)width;
    display->set_height = (int)height;
    SDL_SetWindowSize(display->window, display->set_width, display->set_height);
}

static void on_resized(void *data)
{
    struct window_display *display = data;
    const struct pv_view *view = pv_viewer_get(display->params.viewer, display->params.scanout);
    if (display->texture)
        SDL_DestroyTexture(display->texture);
    display->texture = NULL;
    if (view->width > 0) {
        display->texture =
            SDL_CreateTexture(display->renderer, SDL_PIXELFORMAT_BGRA32,
                              SDL_TEXTUREACCESS_STREAMING, (int)view->width, (int)view->height);
        if (!display->texture)
            pv_error("no picture of %ux%u: %s", view->width, view->height, SDL_GetError());
    }
    if (display->texture) {
        SDL_SetTextureBlendMode(display->texture, SDL_BLENDMODE_NONE); /* there is no alpha */
        upload(display, &(struct pv_rect){0, 0, view->width, view->height});
    }
    follow(display, view->width, view->height);
    draw(display);
}

/* SDL wants colours that are not multiplied by alpha. */
static void copy_cursor(const uint8_t *from, uint8_t *to)
{
    for (size_t i = 0; i < PV_CURSOR_SIDE * PV_CURSOR_SIDE * 4u; i += 4) {
        unsigned int alpha = from[i + 3];
        for (size_t c = 0; c < 3; c++) {
            unsigned int colour = alpha ? (from[i + c] * 255u + alpha / 2) / alpha : 0;
            to[i + c] = (uint8_t)(colour > 255 ? 255 : colour);
        }
        to[i + 3] = (uint8_t)alpha;
    }
}

/* The pointer of this machine gets the look of the guest's. */
static void on_cursor(void *data, bool image)
{
    struct window_display *display = data;
    const struct pv_view *view = pv_viewer_get(display->params.viewer, display->params.scanout);
    static uint8_t pixels[PV_CURSOR_SIDE * PV_CURSOR_SIDE * 4];
    if (image) {
        copy_cursor(view->cursor, pixels);
        SDL_Surface *surface = SDL_CreateRGBSurfaceWithFormatFrom(
            pixels, PV_CURSOR_SIDE, PV_CURSOR_SIDE, 32, PV_CURSOR_SIDE * 4, SDL_PIXELFORMAT_BGRA32);
        SDL_Cursor *cursor =
            surface ? SDL_CreateColorCursor(surface, (int)view->hot_x, (int)view->hot_y) : NULL;
        SDL_FreeSurface(surface);
        if (cursor) {
            SDL_SetCursor(cursor);
            SDL_FreeCursor(display->cursor);
            display->cursor = cursor;
        }
    }
    if (display->cursor)
        SDL_ShowCursor(view->cursor_visible ? SDL_ENABLE : SDL_DISABLE);
}

/* ---- input ---- */

static uint32_t clamp(int64_t value, uint32_t size)
{
    return value < 0 ? 0 : value >= size ? size - 1 : (uint32_t)value;
}

static void point(struct window_display *display, int x, int y)
{
    const struct pv_view *view = pv_viewer_get(display->params.viewer, display->params.scanout);
    struct pv_place screen;
    int width, height;
    if (view->width == 0 || view->height == 0)
        return;
    SDL_GetWindowSize(display->window, &width, &height);
    SDL_Rect place = picture_place(display, width, height);
    if (place.w <= 0 || place.h <= 0)
        return;
    pv_viewer_place(display->params.viewer, display->params.scanout, &screen);
    uint32_t at_x = clamp((int64_t)(x - place.x) * view->width / place.w, view->width);
    uint32_t at_y = clamp((int64_t)(y - place.y) * view->height / place.h, view->height);
    pv_input_pointer(display->params.input, screen.x + at_x, at_y, screen.total_width,
                     screen.total_height, display->buttons);
}

static void on_button(struct window_display *display, const SDL_MouseButtonEvent *event)
{
    static const uint8_t bits[] = {[SDL_BUTTON_LEFT] = PV_BUTTON_LEFT,
                                   [SDL_BUTTON_MIDDLE] = PV_BUTTON_MIDDLE,
                                   [SDL_BUTTON_RIGHT] = PV_BUTTON_RIGHT,
                                   [SDL_BUTTON_X1] = PV_BUTTON_SIDE,
                                   [SDL_BUTTON_X2] = PV_BUTTON_EXTRA};
    uint32_t bit = event->button < sizeof(bits) ? bits[event->button] : 0;
    if (event->state == SDL_PRESSED)
        display->buttons |= bit;
    else
        display->buttons &= ~bit;
    point(display, event->x, event->y);
}

static void toggle_fullscreen(struct window_display *display)
{
    bool full = SDL_GetWindowFlags(display->window) & SDL_WINDOW_FULLSCREEN;
    pv_input_release_all(display->params.input); /* the keys that asked for it */
    SDL_SetWindowFullscreen(display->window, full ? 0 : SDL_WINDOW_FULLSCREEN_DESKTOP);
}

static void on_key(struct window_display *display, const SDL_KeyboardEvent *event)
{
    bool down = event->state == SDL_PRESSED;
    bool ours = (event->keysym.mod & KMOD_CTRL) && (event->keysym.mod & KMOD_ALT);
    uint32_t code = pv_scancode_to_key(event->keysym.scancode);
    if (event->repeat) /* the guest's own matter */
        return;
    if (ours && code == KEY_F) {
        if (down)
            toggle_fullscreen(display);
        return;
    }
    if (code)
        pv_input_key(display->params.input, code, down);
}

/* ---- the window ---- */

static void on_resize_time(uv_timer_t *timer)
{
    struct window_display *display = timer->data;
    const struct pv_view *view = pv_viewer_get(display->params.viewer, display->params.scanout);
    int width, height;
    if (SDL_GetRendererOutputSize(display->renderer, &width, &height) != 0 || width < SIDE_MIN ||
        height < SIDE_MIN)
        return;
    if ((uint32_t)width != view->offered_width || (uint32_t)height != view->offered_height)
        pv_viewer_ask_size(display->params.viewer, display->params.scanout, (uint32_t)width,
                           (uint32_t)height);
}

static void on_window_event(struct window_display *display, const SDL_WindowEvent *event)
{
    switch (event->event) {
    case SDL_WINDOWEVENT_SIZE_CHANGED:
        display->outdated = true;
        if (event->data1 == display->set_width && event->data2 == display->set_height)
            break; /* ours */
        display->size_is_users = true;
        uv_timer_start(&display->resize_timer, on_resize_time, RESIZE_DELAY_MS, 0);
        break;
    case SDL_WINDOWEVENT_EXPOSED:
        display->outdated = true;
        break;
    case SDL_WINDOWEVENT_FOCUS_LOST:
        display->buttons = 0;
        pv_input_release_all(display->params.input);
        break;
    case SDL_WINDOWEVENT_CLOSE:
        display->params.ended(display->params.data);
        break;
    default:
        break;
    }
}

static void on_event(struct window_display *display, const SDL_Event *event)
{
    switch (event->type) {
    case SDL_WINDOWEVENT:
        on_window_event(display, &event->window);
        break;
    case SDL_KEYDOWN:
    case SDL_KEYUP:
        on_key(display, &event->key);
        break;
    case SDL_MOUSEMOTION:
        point(display, event->motion.x, event->motion.y);
        break;
    case SDL_MOUSEBUTTONDOWN:
    case SDL_MOUSEBUTTONUP:
        on_button(display, &event->button);
        break;
    case SDL_MOUSEWHEEL: /* up is positive to SDL */
        pv_input_wheel(display->params.input, event->wheel.x, -event->wheel.y);
        break;
    case SDL_QUIT:
        display->params.ended(display->params.data);
        break;
    case SDL_RENDER_TARGETS_RESET:
    case SDL_RENDER_DEVICE_RESET:
        on_resized(display);
        break;
    default:
        break;
    }
}

static void on_poll(uv_timer_t *timer)
{
    struct window_display *display = timer->data;
    uint64_t now = pv_now_ns();
    SDL_Event event;
    while (SDL_PollEvent(&event)) {
        display->last_event_ns = now;
        on_event(display, &event);
    }
    if (display->outdated)
        draw(display);
    bool busy = now - display->last_event_ns < BUSY_NS;
    if (busy == display->busy)
        return;
    display->busy = busy;
    uv_timer_set_repeat(timer, busy ? POLL_BUSY_MS : POLL_IDLE_MS);
    uv_timer_again(timer);
}

static void on_title_time(uv_timer_t *timer)
{
    struct window_display *display = timer->data;
    char title[128];
    uint32_t fps = display->frames;
    display->frames = 0;
    if (fps == display->shown_fps)
        return;
    display->shown_fps = fps;
    snprintf(title, sizeof(title), "%.64s (%u fps)", display->params.name, fps);
    SDL_SetWindowTitle(display->window, title);
}

/* ---- start and end ---- */

static bool is_set(const char *name)
{
    const char *value = getenv(name);
    return value && *value;
}

/* SDL would also take over a bare screen of this machine, or show nothing to nobody. */
static int start_sdl(void)
{
    bool x11 = is_set("DISPLAY"), wayland = is_set("WAYLAND_DISPLAY");
    if (x11 || wayland)
        SDL_SetHint(SDL_HINT_VIDEODRIVER, !wayland ? "x11" : x11 ? "x11,wayland" : "wayland");
    else if (!is_set("SDL_VIDEODRIVER")) {
        pv_error("there is no desktop here to open a window on (neither DISPLAY nor "
                 "WAYLAND_DISPLAY is set); --display web needs none");
        return -ENODEV;
    }
    SDL_SetHint(SDL_HINT_NO_SIGNAL_HANDLERS, "1");
    SDL_SetHint(SDL_HINT_VIDEO_X11_NET_WM_BYPASS_COMPOSITOR, "0");
    if (SDL_InitSubSystem(SDL_INIT_VIDEO) < 0) {
        pv_error("the desktop cannot be used for a window: %s", SDL_GetError());
        return -ENODEV;
    }
    SDL_EnableScreenSaver();
    SDL_StopTextInput(); /* keys, and no input methods */
    return 0;
}

static int open_window(struct window_display *display)
{
    const struct pv_view *view = pv_viewer_get(display->params.viewer, display->params.scanout);
    bool known = view && view->offered_width > 0;
    display->set_width = known ? (int)view->offered_width : 1280;
    display->set_height = known ? (int)view->offered_height : 800;
    display->window = SDL_CreateWindow(
        display->params.name, SDL_WINDOWPOS_UNDEFINED, SDL_WINDOWPOS_UNDEFINED, display->set_width,
        display->set_height, SDL_WINDOW_RESIZABLE | SDL_WINDOW_ALLOW_HIGHDPI);
    if (display->window)
        display->renderer = SDL_CreateRenderer(display->window, -1, 0);
    if (!display->renderer) {
        pv_error("cannot open a window: %s", SDL_GetError());
        return -ENODEV;
    }
    SDL_SetWindowMinimumSize(display->window, SIDE_MIN, SIDE_MIN);
    return 0;
}

static void close_window(struct window_display *display)
{
    SDL_FreeCursor(display->cursor);
    if (display->texture)
        SDL_DestroyTexture(display->texture);
    if (display->renderer)
        SDL_DestroyRenderer(display->renderer);
    if (display->window)
        SDL_DestroyWindow(display->window);
    SDL_QuitSubSystem(SDL_INIT_VIDEO);
    SDL_Quit();
}

static void start_timer(struct window_display *display, uv_timer_t *timer)
{
    uv_timer_init(display->params.loop, timer);
    timer->data = display;
    display->handles++;
}

static int create(const struct pv_display_params *params, void **out)
{
    if (params->address) {
        pv_error("a window has no address: window:%s", params->address);
        return -EINVAL;
    }
    int ret = start_sdl();
    if (ret < 0)
        return ret;
    struct window_display *display = calloc(1, sizeof(*display));
    if (!display) {
        SDL_Quit();
        return -ENOMEM;
    }
    display->params = *params;
    ret = open_window(display);
    if (ret < 0) {
        close_window(display);
        free(display);
        return ret;
    }
    start_timer(display, &display->poll_timer);
    start_timer(display, &display->resize_timer);
    start_timer(display, &display->title_timer);
    uv_timer_start(&display->poll_timer, on_poll, 0, POLL_IDLE_MS);
    uv_timer_start(&display->title_timer, on_title_time, TITLE_PERIOD_MS, TITLE_PERIOD_MS);
    fprintf(stderr, "window: open; Ctrl+Alt+F fills the screen\n");
    *out = display;
    return 0;
}

static void on_closed(uv_handle_t *handle)
{
    struct window_display *display = handle->data;
    if (--display->handles == 0)
        free(display);
}

static void destroy(void *data)
{
    struct window_display *display = data;
    close_window(display);
    uv_close((uv_handle_t *)&display->poll_timer, on_closed);
    uv_close((uv_handle_t *)&display->resize_timer, on_closed);
    uv_close((uv_handle_t *)&display->title_timer, on_closed);
}

const struct pv_display_kind pv_display_window = {
    .name = "window",
    .synopsis = "window             a window on this machine's desktop",
    .create = create,
    .destroy = destroy,
    .frame = on_frame,
    .resized = on_resized,
    .cursor = on_cursor,
};
