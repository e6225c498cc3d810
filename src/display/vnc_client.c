#include "display/vnc_client.h"

#include "display/screen.h"
#include "display/viewer.h"
#include "display/vnc_cursor.h"
#include "util/log.h"
#include "util/os.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <rfb/rfb.h>
#include <rfb/rfbregion.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define PV_LOG_MODULE "vnc"

/* Pseudo-encoding and message of QEMU's extended key events; not in the library's server. */
#define QEMU_KEY_ENCODING (-258)
#define QEMU_MESSAGE      255
#define QEMU_MESSAGE_KEY  0
/* Events that the loop has not taken; the client's next ones wait. */
#define EVENTS_MAX 128u
/* Messages of a client between two looks at the screen. */
#define MESSAGES_MAX 64
/* A client that stops in the middle of a message, or does not take what it has asked for. The
 * library counts in steps of 5 s when it writes. */
#define STALL_MS 10000
/* From the connection to the first request for a picture, with a password typed by a program. */
#define HANDSHAKE_NS UINT64_C(30000000000)
/* After a wrong password, and one guess a connection. */
#define WRONG_PASSWORD_NS UINT64_C(1500000000)
/* How long a client that points knows better than the guest where its pointer is. */
#define POINTING_NS UINT64_C(500000000)
/* A guest that has not taken the size that its client asked for by then may do so later. */
#define SIZE_WAIT_NS UINT64_C(2000000000)
/* A status of ExtendedDesktopSize that the library has no name for. */
#define REQUEST_FORWARDED 4
#define FALLBACK_WIDTH    640u
#define FALLBACK_HEIGHT   480u

struct pv_vnc_client {
    struct pv_vnc_client_params params;
    pthread_t thread;
    int hangup_fd; /* owned: the same socket, whatever the library does with its fd */
    int event_fd;  /* owned: wakes the thread */

    /* of the loop's thread alone */
    struct pv_rect missed;

    pthread_mutex_t lock;
    pthread_cond_t changed; /* room for events, or hangup */
    bool wants;             /* the thread waits for an update, and does not look at pixels */
    bool behind;            /* there are newer pixels: to be had before anything is sent */
    bool ended, hangup;
    struct pv_vnc_event events[EVENTS_MAX]; /* a ring */
    size_t event_start, event_count;
    /* news for the thread */
    struct pv_rect fresh;
    bool resized, new_cursor, moved_cursor;
    struct pv_vnc_cursor cursor;
    int cursor_x, cursor_y;

    /* of whom `wants` says: the loop if it is set, else the thread */
    uint8_t *pixels; /* owned */
    uint32_t width, height;

    /* of the thread alone */
    rfbScreenInfoPtr screen;
    rfbClientPtr rfb;
    bool has_key_events, key_events_announced; /* QEMU's: the client; we to the client */
    uint64_t started_ns, pointed_ns;
    uint64_t size_asked_ns; /* 0: no answer is owed */
    int pointed_x, pointed_y;
};

/* ---- events to the loop ---- */

/* Positions that were not looked at are replaced by newer ones. */
static bool replaces(const struct pv_vnc_event *last, const struct pv_vnc_event *event)
{
    return event->type == PV_VNC_POINTER && last->type == PV_VNC_POINTER &&
           last->value == event->value;
}

static void push_event(struct pv_vnc_client *client, const struct pv_vnc_event *event)
{
    pthread_mutex_lock(&client->lock);
    while (client->event_count == EVENTS_MAX && !client->hangup)
        pthread_cond_wait(&client->changed, &client->lock);
    size_t end = (client->event_start + client->event_count) % EVENTS_MAX;
    size_t last = (end + EVENTS_MAX - 1) % EVENTS_MAX;
    if (client->event_count > 0 && replaces(&client->events[last], event)) {
        client->events[last] = *event;
    } else if (client->event_count < EVENTS_MAX) {
        client->events[end] = *event;
        client->event_count++;
    }
    pthread_mutex_unlock(&client->lock);
    client->params.wake(client->params.data);
}

static struct pv_vnc_client *client_of(rfbClientPtr rfb)
{
    return rfb->screen->screenData;
}

static void on_symbol(rfbBool down, rfbKeySym symbol, rfbClientPtr rfb)
{
    push_event(client_of(rfb), &(struct pv_vnc_event){
                                   .type = PV_VNC_SYMBOL,
                                   .down = down,
                                   .value = symbol,
                               });
}

static void on_pointer(int buttons, int x, int y, rfbClientPtr rfb)
{
    struct pv_vnc_client *client = client_of(rfb);
    client->pointed_ns = pv_now_ns();
    client->pointed_x = x;
    client->pointed_y = y;
    push_event(client, &(struct pv_vnc_event){
                           .type = PV_VNC_POINTER,
                           .value = (uint32_t)buttons,
                           .x = (uint32_t)x,
                           .y = (uint32_t)y,
                       });
}

static bool is_size(int side)
{
    return side >= (int)PV_SCREEN_SIDE_MIN && side <= (int)PV_SCREEN_SIDE_MAX;
}

/* Answered when the guest has followed or SIZE_WAIT_NS are over, or at once if there is nothing to
 * do. */
static int on_size(int width, int height, int screen_count, rfbExtDesktopScreen *screens,
                   rfbClientPtr rfb)
{
    struct pv_vnc_client *client = client_of(rfb);
    if (!is_size(width) || !is_size(height))
        return rfbExtDesktopSize_InvalidScreenLayout;
    bool same = width == client->screen->width && height == client->screen->height;
    if (same)
        rfb->newFBSizePending = TRUE;
    client->size_asked_ns = same ? 0 : pv_now_ns();
    push_event(client, &(struct pv_vnc_event){
                           .type = PV_VNC_SIZE,
                           .x = (uint32_t)width,
                           .y = (uint32_t)height,
                       });
    return rfbExtDesktopSize_Success;
}

/* ---- QEMU's extended key events ---- */

static rfbBool on_extension(rfbClientPtr rfb, void **data)
{
    return TRUE;
}

static rfbBool on_pseudo_encoding(rfbClientPtr rfb, void **data, int encoding)
{
    if (encoding != QEMU_KEY_ENCODING)
        return FALSE;
    client_of(rfb)->has_key_events = true;
    return TRUE;
}

/* The client can do it: so can we, says an empty rectangle. Not before the library's list of
 * messages, which would undo it. */
static void announce_key_events(struct pv_vnc_client *client)
{
    static const uint8_t update[] = {
        rfbFramebufferUpdate,
        0,
        0,
        1, /* one rectangle */
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0, /* empty */
        0xff,
        0xff,
        0xfe,
        0xfe, /* QEMU_KEY_ENCODING */
    };
    if (!client->has_key_events || client->key_events_announced ||
        client->rfb->enableSupportedMessages)
        return;
    client->key_events_announced = true;
    if (rfbWriteExact(client->rfb, (const char *)update, sizeof(update)) <= 0)
        rfbCloseClient(client->rfb);
}

static rfbBool on_message(rfbClientPtr rfb, void *data, const rfbClientToServerMsg *message)
{
    uint8_t rest[11]; /* kind, u16 down, u32 symbol, u32 scan code */
    if (message->type != QEMU_MESSAGE)
        return FALSE;
    if (rfbReadExact(rfb, (char *)rest, sizeof(rest)) <= 0 || rest[0] != QEMU_MESSAGE_KEY) {
        rfbCloseClient(rfb);
        return TRUE;
    }
    push_event(client_of(rfb), &(struct pv_vnc_event){
                                   .type = PV_VNC_KEY,
                                   .down = rest[1] != 0 || rest[2] != 0,
                                   .value = (uint32_t)rest[7] << 24 | (uint32_t)rest[8] << 16 |
                                            (uint32_t)rest[9] << 8 | rest[10],
                               });
    return TRUE;
}

/* Enabled for all clients from the start: the library holds a lock of all while it asks extensions
 * that are not. */
static rfbProtocolExtension key_events = {
    .newClient = on_extension,
    .enablePseudoEncoding = on_pseudo_encoding,
    .handleMessage = on_message,
};

/* ---- passwords ---- */

static rfbBool on_password(rfbClientPtr rfb, const char *response, int size)
{
    struct pv_vnc_client *client = client_of(rfb);
    if (rfbCheckPasswordByList(rfb, response, size))
        return TRUE;
    pv_log_limited(PV_LOG_WARN, 5, "wrong password from %s",
                   rfb->host[0] ? rfb->host : "a local client");
    uint64_t end = pv_now_ns() + WRONG_PASSWORD_NS;
    pthread_mutex_lock(&client->lock);
    for (uint64_t now = pv_now_ns(); now < end && !client->hangup; now = pv_now_ns())
        pv_cond_wait_ns(&client->changed, &client->lock, end - now);
    pthread_mutex_unlock(&client->lock);
    return FALSE;
}

/* ---- the thread ---- */

/* rfbGetScreen of libvncserver 0.9.14 makes a lock of all screens anew each time, whoever holds it.
 * So it is called once, and all others are copies. */
static rfbScreenInfo blank_screen;

static void set_format(rfbScreenInfoPtr screen)
{
    screen->serverFormat.redShift = 16; /* B8G8R8X8 */
    screen->serverFormat.greenShift = 8;
    screen->serverFormat.blueShift = 0;
    screen->serverFormat.depth = screen->depth = 24;
}

static int make_screen(struct pv_vnc_client *client, char **passwords)
{
    rfbScreenInfoPtr screen = malloc(sizeof(*screen));
    if (!screen)
        return -ENOMEM;
    *screen = blank_screen;
    pthread_mutex_init(&screen->cursorMutex, NULL);
    set_format(screen);
    screen->width = (int)client->width;
    screen->height = (int)client->height;
    screen->paddedWidthInBytes = (int)client->width * 4;
    screen->frameBuffer = (char *)client->pixels;
    screen->screenData = client;
    screen->desktopName = client->params.name;
    screen->alwaysShared = TRUE;
    screen->deferUpdateTime = 0;
    screen->deferPtrUpdateTime = 0;
    screen->maxClientWait = STALL_MS;
    screen->kbdAddEvent = on_symbol;
    screen->ptrAddEvent = on_pointer;
    screen->setDesktopSizeHook = on_size;
    screen->passwordCheck = on_password;
    if (client->params.password) {
        screen->authPasswdData = passwords;
        screen->authPasswdFirstViewOnly = 1;
    }
    client->screen = screen;
    return 0;
}

/* As rfbNewFramebuffer, which would set another pixel format. false: the client cannot follow. */
static bool apply_size(struct pv_vnc_client *client)
{
    rfbScreenInfoPtr screen = client->screen;
    rfbClientPtr rfb = client->rfb;
    screen->frameBuffer = (char *)client->pixels;
    screen->width = (int)client->width;
    screen->height = (int)client->height;
    screen->paddedWidthInBytes = (int)client->width * 4;
    sraRgnDestroy(rfb->modifiedRegion);
    rfb->modifiedRegion = sraRgnCreateRect(0, 0, screen->width, screen->height);
    sraRgnMakeEmpty(rfb->copyRegion);
    rfb->newFBSizePending = rfb->useNewFBSize;
    client->size_asked_ns = 0;
    return rfb->useNewFBSize;
}

/* Some clients ask for no other size before they know what became of the first. */
static void answer_late(struct pv_vnc_client *client)
{
    rfbClientPtr rfb = client->rfb;
    if (client->size_asked_ns == 0 || pv_now_ns() - client->size_asked_ns < SIZE_WAIT_NS)
        return;
    client->size_asked_ns = 0;
    rfb->requestedDesktopSizeChange = rfbExtDesktopSize_ClientRequestedChange;
    rfb->lastDesktopSizeChangeError = REQUEST_FORWARDED;
    rfb->newFBSizePending = TRUE;
}

static void apply_position(struct pv_vnc_client *client, int x, int y)
{
    rfbScreenInfoPtr screen = client->screen;
    screen->cursorX = x < 0 ? 0 : x >= screen->width ? screen->width - 1 : x;
    screen->cursorY = y < 0 ? 0 : y >= screen->height ? screen->height - 1 : y;
    bool elsewhere = x != client->pointed_x || y != client->pointed_y;
    if (elsewhere && pv_now_ns() - client->pointed_ns > POINTING_NS)
        client->rfb->cursorWasMoved = client->rfb->enableCursorPosUpdates;
}

/* Take over what the loop has left. false: the client has to go. */
static bool apply_news(struct pv_vnc_client *client)
{
    uint64_t count;
    struct pv_vnc_cursor cursor;
    pthread_mutex_lock(&client->lock);
    ssize_t size = read(client->event_fd, &count, sizeof(count));
    (void)size;
    client->wants = false;
    struct pv_rect fresh = client->fresh;
    bool resized = client->resized, new_cursor = client->new_cursor;
    bool moved = client->moved_cursor, hangup = client->hangup;
    int x = client->cursor_x, y = client->cursor_y;
    if (new_cursor)
        cursor = client->cursor;
    client->fresh = (struct pv_rect){0};
    client->resized = client->new_cursor = client->moved_cursor = false;
    pthread_mutex_unlock(&client->lock);

    if (hangup)
        return false;
    if (resized && !apply_size(client)) {
        pv_info("a client that cannot follow the screen's new size is disconnected");
        return false;
    }
    if (!pv_rect_is_empty(&fresh))
        rfbMarkRectAsModified(client->screen, (int)fresh.x, (int)fresh.y,
                              (int)(fresh.x + fresh.width), (int)(fresh.y + fresh.height));
    if (new_cursor)
        pv_vnc_cursor_set(client->screen, &cursor);
    if (moved || new_cursor)
        apply_position(client, x, y);
    return true;
}

static bool is_open(const struct pv_vnc_client *client)
{
    /* the library can scale the screen for old clients of palmtops, and is not good at it */
    return client->rfb->sock != RFB_INVALID_SOCKET &&
           client->rfb->scaledScreen == client->rfb->screen;
}

static bool is_readable(int fd)
{
    struct pollfd poll_fd = {.fd = fd, .events = POLLIN};
    return poll(&poll_fd, 1, 0) > 0;
}

static void read_messages(struct pv_vnc_client *client)
{
    rfbClientPtr rfb = client->rfb;
    for (int i = 0; i < MESSAGES_MAX && is_open(client); i++) {
        if (!webSocketsHasDataInBuffer(rfb) && !is_readable(rfb->sock))
            return;
        rfbProcessClientMessage(rfb);
    }
}

/* Has asked for a picture, after it has said what it can do. */
static bool awaits_update(const struct pv_vnc_client *client)
{
    const rfbClientRec *rfb = client->rfb;
    return rfb->state == RFB_NORMAL && !sraRgnEmpty(rfb->requestedRegion);
}

static bool is_behind(struct pv_vnc_client *client)
{
    pthread_mutex_lock(&client->lock);
    bool behind = client->behind;
    pthread_mutex_unlock(&client->lock);
    return behind;
}

static bool is_late(const struct pv_vnc_client *client)
{
    return client->rfb->state != RFB_NORMAL && pv_now_ns() - client->started_ns > HANDSHAKE_NS;
}

static int wait_ms(const struct pv_vnc_client *client)
{
    uint64_t end = client->size_asked_ns + SIZE_WAIT_NS, now = pv_now_ns();
    if (client->rfb->state != RFB_NORMAL)
        return 1000;
    if (client->size_asked_ns == 0)
        return -1;
    return now < end ? (int)((end - now) / 1000000) + 1 : 0;
}

/* Wait for the client or the loop. */
static void wait_for_news(struct pv_vnc_client *client)
{
    bool wants = awaits_update(client);
    struct pollfd fds[] = {
        {.fd = client->rfb->sock, .events = POLLIN},
        {.fd = client->event_fd, .events = POLLIN},
    };
    if (webSocketsHasDataInBuffer(client->rfb))
        return;
    pthread_mutex_lock(&client->lock);
    client->wants = wants;
    bool behind = client->behind;
    pthread_mutex_unlock(&client->lock);
    if (wants && behind)
        client->params.wake(client->params.data);
    poll(fds, 2, wait_ms(client));
}

static void serve(struct pv_vnc_client *client)
{
    while (is_open(client) && !is_late(client)) {
        wait_for_news(client);
        if (!apply_news(client))
            return;
        read_messages(client);
        answer_late(client);
        /* a new size is a message of its own, and the pixels come after it */
        bool current = !is_behind(client);
        for (int i = 0; current && i < 2 && is_open(client) && awaits_update(client); i++)
            rfbUpdateClient(client->rfb);
        if (is_open(client))
            announce_key_events(client);
    }
}

/* What libvncserver 0.9.14 forgets to free (LibVNC issue 571 is the larger part). */
static void free_rest(rfbClientPtr rfb)
{
    free(rfb->wsctx);
    rfb->wsctx = NULL;
    while (rfb->extensions) {
        rfbExtensionData *extension = rfb->extensions;
        rfb->extensions = extension->next;
        free(extension);
    }
}

static void *run_thread(void *data)
{
    struct pv_vnc_client *client = data;
    char *passwords[] = {(char *)client->params.password, NULL};
    pv_thread_set_name("vnc client");
    client->started_ns = pv_now_ns();
    if (make_screen(client, passwords) < 0) {
        close(client->params.fd);
    } else {
        client->rfb = rfbNewClient(client->screen, client->params.fd); /* takes it over */
        if (client->rfb) {
            serve(client);
            if (client->rfb->sock != RFB_INVALID_SOCKET)
                rfbCloseClient(client->rfb);
            free_rest(client->rfb);
            rfbClientConnectionGone(client->rfb);
        }
        rfbScreenCleanup(client->screen);
    }
    shutdown(client->hangup_fd, SHUT_RDWR);
    pthread_mutex_lock(&client->lock);
    client->wants = false;
    client->ended = true;
    pthread_mutex_unlock(&client->lock);
    client->params.wake(client->params.data);
    return NULL;
}

/* ---- the library ---- */

static void log_trace(const char *format, ...) __attribute__((format(printf, 1, 2)));

static void log_trace(const char *format, ...)
{
    char line[512];
    va_list args;
    if (pv_log_get_level() < PV_LOG_TRACE)
        return;
    va_start(args, format);
    vsnprintf(line, sizeof(line), format, args);
    va_end(args);
    line[strcspn(line, "\n")] = '\0';
    pv_trace("%s", line);
}

/* libvncserver 0.9.14 makes its list of security types when its first client says hello, without a
 * lock: so the first one is ours, and alone. All later ones find the list made. */
static int make_first_client(bool password, int fds[2])
{
    static char empty[] = "";
    char *passwords[] = {empty, NULL};
    static const char hello[] = "RFB 003.008\n";
    rfbScreenInfoPtr screen = rfbGetScreen(NULL, NULL, 4, 4, 8, 3, 4);
    if (!screen) {
        close(fds[0]);
        return -ENOMEM;
    }
    blank_screen = *screen;
    screen->authPasswdData = password ? passwords : NULL;
    ssize_t written = write(fds[1], hello, sizeof(hello) - 1);
    rfbClientPtr rfb = written > 0 ? rfbNewClient(screen, fds[0]) : NULL;
    if (rfb) {
        rfbProcessClientMessage(rfb);
        rfbClientConnectionGone(rfb); /* closes fds[0] */
    } else {
        close(fds[0]);
    }
    rfbScreenCleanup(screen);
    return 0;
}

int pv_vnc_client_prepare(bool password)
{
    static bool prepared;
    int fds[2];
    if (prepared)
        return 0;
    rfbLog = rfbErr = log_trace;
    int ret = pv_socketpair(fds);
    if (ret < 0)
        return ret;
    ret = make_first_client(password, fds);
    close(fds[1]);
    if (ret < 0)
        return ret;
    rfbRegisterProtocolExtension(&key_events);
    prepared = true;
    return 0;
}

/* ---- the loop's side ---- */

static void choose_size(const struct pv_view *view, uint32_t *width, uint32_t *height)
{
    bool offered = view->offered_width > 0 && view->offered_height > 0;
    if (view->width > 0) {
        *width = view->width;
        *height = view->height;
    } else if (*width == 0) {
        *width = offered ? view->offered_width : FALLBACK_WIDTH;
        *height = offered ? view->offered_height : FALLBACK_HEIGHT;
    }
}

static void init_socket(int fd)
{
    int one = 1;
    fcntl(fd, F_SETFD, FD_CLOEXEC);
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one,
               sizeof(one)); /* a peer that has lost its power */
}

int pv_vnc_client_create(const struct pv_vnc_client_params *params, struct pv_vnc_client **out)
{
    struct pv_vnc_client *client = calloc(1, sizeof(*client));
    int ret = -ENOMEM;
    if (!client)
        goto err_close;
    client->params = *params;
    choose_size(params->view, &client->width, &client->height);
    client->missed = (struct pv_rect){0, 0, client->width, client->height};
    client->pixels = calloc(client->height, (size_t)client->width * 4);
    if (!client->pixels)
        goto err_free;
    ret = pv_eventfd_create(&client->event_fd);
    if (ret < 0)
        goto err_free;
    init_socket(params->fd);
    client->hangup_fd = pv_fd_duplicate(params->fd);
    ret = -EMFILE;
    if (client->hangup_fd < 0 || params->fd >= FD_SETSIZE) /* the library uses select() */
        goto err_event;
    pthread_mutex_init(&client->lock, NULL);
    pv_cond_init(&client->changed);
    client->behind = true;
    client->new_cursor = true; /* in place of the library's */
    pv_vnc_client_set_cursor(client, params->view);
    ret = -pthread_create(&client->thread, NULL, run_thread, client);
    if (ret < 0)
        goto err_lock;
    *out = client;
    return 0;

err_lock:
    pthread_cond_destroy(&client->changed);
    pthread_mutex_destroy(&client->lock);
err_event:
    if (client->hangup_fd >= 0)
        close(client->hangup_fd);
    close(client->event_fd);
err_free:
    free(client->pixels);
    free(client);
err_close:
    close(params->fd);
    return ret;
}

void pv_vnc_client_destroy(struct pv_vnc_client *client)
{
    pthread_mutex_lock(&client->lock);
    client->hangup = true;
    pthread_cond_broadcast(&client->changed);
    pthread_mutex_unlock(&client->lock);
    shutdown(client->hangup_fd, SHUT_RDWR); /* ends what the library waits for */
    pv_eventfd_signal(client->event_fd);
    pthread_join(client->thread, NULL);
    pthread_cond_destroy(&client->changed);
    pthread_mutex_destroy(&client->lock);
    close(client->hangup_fd);
    close(client->event_fd);
    free(client->pixels);
    free(client);
}

bool pv_vnc_client_ended(struct pv_vnc_client *client)
{
    pthread_mutex_lock(&client->lock);
    bool ended = client->ended;
    pthread_mutex_unlock(&client->lock);
    return ended;
}

bool pv_vnc_client_wants(struct pv_vnc_client *client)
{
    pthread_mutex_lock(&client->lock);
    bool wants = client->wants && client->behind;
    pthread_mutex_unlock(&client->lock);
    return wants;
}

void pv_vnc_client_set_behind(struct pv_vnc_client *client)
{
    pthread_mutex_lock(&client->lock);
    client->behind = true;
    pthread_mutex_unlock(&client->lock);
}

void pv_vnc_client_add_damage(struct pv_vnc_client *client, const struct pv_rect *damage)
{
    client->missed = pv_rect_union(&client->missed, damage);
}

void pv_vnc_client_all_is_new(struct pv_vnc_client *client, const struct pv_rect *all)
{
    client->missed =
        pv_rect_is_empty(all) ? (struct pv_rect){0, 0, client->width, client->height} : *all;
}

/* With `wants` set, so that the thread does not look. */
static bool fit_pixels(struct pv_vnc_client *client, const struct pv_view *view)
{
    uint32_t width = client->width, height = client->height;
    choose_size(view, &width, &height);
    if (width == client->width && height == client->height)
        return true;
    uint8_t *pixels = calloc(height, (size_t)width * 4);
    if (!pixels)
        return false; /* tried again with the next frame */
    free(client->pixels);
    client->pixels = pixels;
    client->width = width;
    client->height = height;
    client->resized = true;
    client->missed = client->fresh = (struct pv_rect){0, 0, width, height};
    return true;
}

static void copy_pixels(struct pv_vnc_client *client, const struct pv_view *view)
{
    const struct pv_rect *rect = &client->missed;
    uint8_t *to = client->pixels + ((size_t)rect->y * client->width + rect->x) * 4;
    for (uint32_t y = 0; y < rect->height; y++, to += (size_t)client->width * 4) {
        if (view->pixels)
            memcpy(to, view->pixels + (size_t)(rect->y + y) * view->stride + (size_t)rect->x * 4,
                   (size_t)rect->width * 4);
        else
            memset(to, 0, (size_t)rect->width * 4); /* blank */
    }
}

void pv_vnc_client_show(struct pv_vnc_client *client, const struct pv_view *view)
{
    pthread_mutex_lock(&client->lock);
    bool shown = client->wants && client->behind && fit_pixels(client, view);
    if (shown) {
        client->behind = false;
        copy_pixels(client, view);
        client->fresh = pv_rect_union(&client->fresh, &client->missed);
        client->missed = (struct pv_rect){0};
    }
    pthread_mutex_unlock(&client->lock);
    if (shown)
        pv_eventfd_signal(client->event_fd);
}

void pv_vnc_client_set_cursor(struct pv_vnc_client *client, const struct pv_view *view)
{
    struct pv_vnc_cursor cursor;
    pv_vnc_cursor_make(view, &cursor);
    pthread_mutex_lock(&client->lock);
    client->new_cursor = client->new_cursor || !pv_vnc_cursor_equal(&client->cursor, &cursor);
    client->cursor = cursor;
    client->moved_cursor = true;
    client->cursor_x = view->cursor_x;
    client->cursor_y = view->cursor_y;
    pthread_mutex_unlock(&client->lock);
    pv_eventfd_signal(client->event_fd);
}

bool pv_vnc_client_next_event(struct pv_vnc_client *client, struct pv_vnc_event *out)
{
    pthread_mutex_lock(&client->lock);
    bool any = client->event_count > 0;
    if (any) {
        *out = client->events[client->event_start];
        client->event_start = (client->event_start + 1) % EVENTS_MAX;
        client->event_count--;
        pthread_cond_broadcast(&client->changed);
    }
    pthread_mutex_unlock(&client->lock);
    return any;
}
