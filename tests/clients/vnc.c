/* A VNC client with libvncclient, driven by lines on standard input; each is answered by one on
 * standard output:
 *
 *   pv-vnc [-e ENCODINGS] [-q QUALITY] [-p PASSWORD] HOST PORT      PORT 0: HOST is a path
 *
 *   save FILE               what it has now, as raw R8G8B8    saved WIDTH HEIGHT UPDATES
 *   cursor FILE             the cursor's shape, R8G8B8 + mask cursor WIDTH HEIGHT HOT_X HOT_Y X Y
 *   key SYMBOL DOWN         a key by its symbol               ok
 *   xtkey SYMBOL CODE DOWN  QEMU's extended key event         ok, or "no" if the server has none
 *   pointer X Y BUTTONS                                       ok
 *   size WIDTH HEIGHT       ask the guest for it              ok
 *   cut SIZE                text for the clipboard            ok
 *   stop                    read nothing any more             ok
 *   quit
 */
#include <errno.h>
#include <poll.h>
#include <rfb/rfbclient.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct {
    unsigned long updates;
    int cursor_width, cursor_height, hot_x, hot_y, x, y;
    const char *password;
    bool stopped;
} state;

static void be_quiet(const char *format, ...)
{
}

static char *get_password(rfbClient *client)
{
    return strdup(state.password ? state.password : "");
}

static void on_update(rfbClient *client)
{
    state.updates++;
}

static void on_cursor(rfbClient *client, int hot_x, int hot_y, int width, int height, int bytes)
{
    state.hot_x = hot_x;
    state.hot_y = hot_y;
    state.cursor_width = width;
    state.cursor_height = height;
}

static rfbBool on_position(rfbClient *client, int x, int y)
{
    state.x = x;
    state.y = y;
    return TRUE;
}

/* Pixels as the client has them: one 32-bit word each, as its format says. */
static void write_pixels(rfbClient *client, FILE *file, const uint8_t *pixels, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        uint32_t pixel;
        memcpy(&pixel, pixels + 4 * i, 4);
        fputc((int)(pixel >> client->format.redShift & 0xff), file);
        fputc((int)(pixel >> client->format.greenShift & 0xff), file);
        fputc((int)(pixel >> client->format.blueShift & 0xff), file);
    }
}

static void save(rfbClient *client, const char *path)
{
    FILE *file = fopen(path, "wb");
    if (!file) {
        printf("no %s: %s\n", path, strerror(errno));
        return;
    }
    write_pixels(client, file, client->frameBuffer, (size_t)client->width * (size_t)client->height);
    fclose(file);
    printf("saved %d %d %lu\n", client->width, client->height, state.updates);
}

static void save_cursor(rfbClient *client, const char *path)
{
    size_t count = (size_t)state.cursor_width * (size_t)state.cursor_height;
    FILE *file = fopen(path, "wb");
    if (file && client->rcSource && count > 0) {
        write_pixels(client, file, client->rcSource, count);
        fwrite(client->rcMask, 1, count, file);
    }
    if (file)
        fclose(file);
    printf("cursor %d %d %d %d %d %d\n", state.cursor_width, state.cursor_height, state.hot_x,
           state.hot_y, state.x, state.y);
}

static void cut(rfbClient *client, long size)
{
    char *text = malloc((size_t)size + 1);
    memset(text, 'x', (size_t)size);
    SendClientCutText(client, text, (int)size);
    free(text);
}

/* false: quit */
static bool run_line(rfbClient *client, const char *line)
{
    char path[512];
    unsigned int a, b, c;
    bool good = true;
    if (sscanf(line, "save %511s", path) == 1) {
        save(client, path);
        return true;
    }
    if (sscanf(line, "cursor %511s", path) == 1) {
        save_cursor(client, path);
        return true;
    }
    if (sscanf(line, "key %x %u", &a, &b) == 2)
        SendKeyEvent(client, a, b != 0);
    else if (sscanf(line, "xtkey %x %x %u", &a, &b, &c) == 3)
        good = SendExtendedKeyEvent(client, a, b, c != 0);
    else if (sscanf(line, "pointer %u %u %u", &a, &b, &c) == 3)
        SendPointerEvent(client, (int)a, (int)b, (int)c);
    else if (sscanf(line, "size %u %u", &a, &b) == 2)
        good = SendExtDesktopSize(client, (uint16_t)a, (uint16_t)b);
    else if (sscanf(line, "cut %u", &a) == 1)
        cut(client, (long)a);
    else if (strncmp(line, "stop", 4) == 0)
        state.stopped = true;
    else
        return false;
    puts(good ? "ok" : "no");
    return true;
}

static int run(rfbClient *client)
{
    char line[1024];
    struct pollfd fds[] = {{.fd = 0, .events = POLLIN}, {.fd = client->sock, .events = POLLIN}};
    for (;;) {
        if (poll(fds, state.stopped ? 1 : 2, client->buffered ? 0 : -1) < 0)
            return 1;
        if (fds[0].revents) {
            if (!fgets(line, sizeof(line), stdin) || !run_line(client, line))
                return 0;
            fflush(stdout);
        }
        if (!state.stopped && (fds[1].revents || client->buffered) &&
            !HandleRFBServerMessage(client)) {
            puts("lost");
            return 3;
        }
        fds[1].revents = 0;
    }
}

int main(int argc, char **argv)
{
    rfbClient *client = rfbGetClient(8, 3, 4);
    int option;
    bool noisy = false;
    setvbuf(stdin, NULL, _IONBF, 0);
    client->appData.encodingsString = "raw";
    client->appData.useRemoteCursor = TRUE;
    client->canHandleNewFBSize = TRUE;
    client->GetPassword = get_password;
    client->FinishedFrameBufferUpdate = on_update;
    client->GotCursorShape = on_cursor;
    client->HandleCursorPos = on_position;
    while ((option = getopt(argc, argv, "e:q:p:v")) != -1) {
        if (option == 'e')
            client->appData.encodingsString = optarg;
        else if (option == 'q')
            client->appData.qualityLevel = atoi(optarg);
        else if (option == 'p')
            state.password = optarg;
        else if (option == 'v')
            noisy = true;
        else
            return 2;
    }
    if (optind + 2 != argc)
        return 2;
    client->appData.enableJPEG =
        strchr(client->appData.encodingsString, 't') != NULL && client->appData.qualityLevel < 10;
    if (!noisy)
        rfbClientLog = rfbClientErr = be_quiet;
    free(client->serverHost);
    client->serverHost = strdup(argv[optind]);
    client->serverPort = atoi(argv[optind + 1]);
    if (!rfbInitClient(client, NULL, NULL)) {
        puts("refused"); /* the library has freed it */
        return 4;
    }
    puts("connected");
    fflush(stdout);
    int ret = run(client);
    free(client->frameBuffer);
    rfbClientCleanup(client);
    return ret;
}
