#include "vm/argv.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Takes `text` over; NULL is the failed allocation of it. */
static void add_owned(struct pv_argv *argv, char *text)
{
    if (argv->failed || !text) {
        argv->failed = true;
        free(text);
        return;
    }
    if (argv->count + 2 > argv->room) {
        size_t room = argv->room ? argv->room * 2 : 32;
        char **items = realloc(argv->items, room * sizeof(*items));
        if (!items) {
            argv->failed = true;
            free(text);
            return;
        }
        argv->items = items;
        argv->room = room;
    }
    argv->items[argv->count++] = text;
    argv->items[argv->count] = NULL;
}

void pv_argv_add(struct pv_argv *argv, const char *text)
{
    add_owned(argv, strdup(text));
}

static void add_format(struct pv_argv *argv, const char *format, va_list args)
{
    char *text = NULL;
    if (vasprintf(&text, format, args) < 0)
        text = NULL;
    add_owned(argv, text);
}

void pv_argv_addf(struct pv_argv *argv, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    add_format(argv, format, args);
    va_end(args);
}

void pv_argv_option(struct pv_argv *argv, const char *option, const char *format, ...)
{
    va_list args;
    pv_argv_add(argv, option);
    va_start(args, format);
    add_format(argv, format, args);
    va_end(args);
}

void pv_argv_append(struct pv_argv *argv, const struct pv_argv *more)
{
    for (size_t i = 0; i < more->count; i++)
        pv_argv_add(argv, more->items[i]);
    argv->failed = argv->failed || more->failed;
}

void pv_argv_finish(struct pv_argv *argv)
{
    for (size_t i = 0; i < argv->count; i++)
        free(argv->items[i]);
    free(argv->items);
    *argv = (struct pv_argv){0};
}

static bool is_plain(const char *text)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                                "_-+=:,./@%";
    return *text && strspn(text, plain) == strlen(text);
}

char *pv_argv_quote(const struct pv_argv *argv)
{
    size_t size = 1;
    for (size_t i = 0; i < argv->count; i++)
        size += strlen(argv->items[i]) * 4 + 3; /* at worst all are quotes, two around, a space */
    char *line = malloc(size);
    char *to = line;
    for (size_t i = 0; line && i < argv->count; i++) {
        const char *item = argv->items[i];
        if (i > 0)
            *to++ = ' ';
        if (is_plain(item)) {
            to = stpcpy(to, item);
            continue;
        }
        *to++ = '\'';
        for (; *item; item++) {
            if (*item == '\'')
                to = stpcpy(to, "'\\''");
            else
                *to++ = *item;
        }
        *to++ = '\'';
    }
    if (line)
        *to = '\0';
    return line;
}

char *pv_qemu_escape(const char *text)
{
    char *result = malloc(strlen(text) * 2 + 1);
    char *to = result;
    for (; result && *text; text++) {
        if (*text == ',')
            *to++ = ',';
        *to++ = *text;
    }
    if (result)
        *to = '\0';
    return result;
}
