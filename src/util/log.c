#include "util/log.h"

#include "util/os.h"

#include <ctype.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* A line is cut here. Pipes take this much in one piece, so lines of several processes that share
 * standard error do not mix. */
#define LINE_MAX_BYTES 1024

static const char *const level_names[] = {"error", "warn", "info", "debug", "trace"};

static _Atomic enum pv_log_level max_level = PV_LOG_INFO;

static pthread_mutex_t prefix_lock = PTHREAD_MUTEX_INITIALIZER;
static char log_prefix[128];

static pthread_mutex_t limit_lock = PTHREAD_MUTEX_INITIALIZER;

void pv_log_set_level(enum pv_log_level level)
{
    atomic_store_explicit(&max_level, level, memory_order_relaxed);
}

enum pv_log_level pv_log_get_level(void)
{
    return atomic_load_explicit(&max_level, memory_order_relaxed);
}

int pv_log_parse_level(const char *name, enum pv_log_level *out)
{
    for (size_t i = 0; i < sizeof(level_names) / sizeof(level_names[0]); i++) {
        if (strcmp(name, level_names[i]) == 0) {
            *out = (enum pv_log_level)i;
            return 0;
        }
    }
    return -EINVAL;
}

void pv_log_set_prefix(const char *prefix)
{
    pthread_mutex_lock(&prefix_lock);
    snprintf(log_prefix, sizeof(log_prefix), "%s", prefix ? prefix : "");
    pthread_mutex_unlock(&prefix_lock);
}

/* Guests choose part of the text (program names, object names): without this they could start a new
 * line that looks like one of ours, or send escape sequences to a terminal. */
static void hide_control_bytes(char *text, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        if (iscntrl((unsigned char)text[i]))
            text[i] = '?';
    }
}

static void write_all(const char *data, size_t size)
{
    while (size > 0) {
        ssize_t written = write(STDERR_FILENO, data, size);
        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0)
            return; /* nowhere left to complain */
        data += written;
        size -= (size_t)written;
    }
}

void pv_log_va(enum pv_log_level level, const char *module, const char *format, va_list args)
{
    if (level > pv_log_get_level())
        return;

    int saved_errno = errno; /* callers log first and use errno after */
    char line[LINE_MAX_BYTES];
    const size_t room = sizeof(line) - 1; /* the last byte is for the newline */

    pthread_mutex_lock(&prefix_lock);
    int start = snprintf(line, room, "%s: %s%s: ", level_names[level], log_prefix, module);
    pthread_mutex_unlock(&prefix_lock);

    size_t size = start < 0 ? 0 : (size_t)start < room ? (size_t)start : room - 1;
    int text = vsnprintf(line + size, room - size, format, args);
    if (text > 0)
        size = size + (size_t)text < room ? size + (size_t)text : room - 1;

    hide_control_bytes(line, size);
    line[size++] = '\n';
    write_all(line, size);
    errno = saved_errno;
}

void pv_log(enum pv_log_level level, const char *module, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    pv_log_va(level, module, format, args);
    va_end(args);
}

bool pv_log_limit_pass(struct pv_log_limit *limit, uint32_t burst)
{
    const uint64_t window_ns = 1000000000;
    uint64_t now = pv_now_ns();
    uint32_t left_out = 0;

    pthread_mutex_lock(&limit_lock);
    if (limit->window_start_ns == 0 || now - limit->window_start_ns >= window_ns) {
        left_out = limit->left_out;
        *limit = (struct pv_log_limit){.window_start_ns = now};
    }
    bool pass = limit->lines < burst;
    if (pass)
        limit->lines++;
    else
        limit->left_out++;
    pthread_mutex_unlock(&limit_lock);

    if (left_out > 0)
        pv_log(PV_LOG_WARN, "log", "%u lines like the next one were left out", left_out);
    return pass;
}
