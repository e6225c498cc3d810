#include "display/http.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* The character after the head, or NULL. */
static const char *find_end(const char *text, size_t size)
{
    const char *end = memmem(text, size, "\r\n\r\n", 4);
    return end ? end + 4 : NULL;
}

static bool is_clean(const char *text, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        unsigned char c = (unsigned char)text[i];
        if ((c < ' ' && c != '\t' && c != '\r' && c != '\n') || c >= 0x7f)
            return false;
    }
    return true;
}

/* Cut the next line off; NULL at the empty one. */
static char *next_line(char **text)
{
    char *line = *text, *end = strstr(line, "\r\n");
    if (!end || end == line)
        return NULL;
    *end = '\0';
    *text = end + 2;
    return line;
}

static int parse_first_line(char *line, struct pv_http_request *out)
{
    char *target = strchr(line, ' ');
    char *version = target ? strchr(target + 1, ' ') : NULL;
    if (!version || (strcmp(version + 1, "HTTP/1.1") != 0 && strcmp(version + 1, "HTTP/1.0") != 0))
        return -EBADMSG;
    *target++ = '\0';
    *version = '\0';
    if (strcmp(line, "GET") != 0)
        return -EOPNOTSUPP;
    if (target[0] != '/')
        return -EBADMSG;
    out->path = target;
    char *query = strchr(target, '?');
    if (query) {
        *query = '\0';
        out->query = query + 1;
    }
    return 0;
}

static int set_once(const char **field, const char *value)
{
    if (*field)
        return -EBADMSG;
    *field = value;
    return 0;
}

static int parse_field(char *line, struct pv_http_request *out)
{
    char *colon = strchr(line, ':');
    /* No blanks in a name: also none in front, which would continue the line before. */
    if (!colon || colon == line || strcspn(line, " \t\r\n") < (size_t)(colon - line))
        return -EBADMSG;
    *colon = '\0';
    char *value = colon + 1 + strspn(colon + 1, " \t");
    for (size_t size = strlen(value); size > 0 && strchr(" \t", value[size - 1]); size--)
        value[size - 1] = '\0';
    if (strpbrk(value, "\r\n"))
        return -EBADMSG;
    if (strcasecmp(line, "Host") == 0)
        return set_once(&out->host, value);
    if (strcasecmp(line, "Origin") == 0)
        return set_once(&out->origin, value);
    if (strcasecmp(line, "Cookie") == 0)
        return set_once(&out->cookie, value);
    if (strcasecmp(line, "Upgrade") == 0)
        out->upgrade = strcasecmp(value, "websocket") == 0;
    if (strcasecmp(line, "Transfer-Encoding") == 0 ||
        (strcasecmp(line, "Content-Length") == 0 && strcmp(value, "0") != 0))
        return -EBADMSG;
    return 0;
}

int pv_http_parse(char *text, size_t size, struct pv_http_request *out)
{
    const char *end = find_end(text, size);
    if (!end)
        return -EAGAIN;
    *out = (struct pv_http_request){.size = (size_t)(end - text)};
    if (!is_clean(text, out->size))
        return -EBADMSG;
    text[out->size - 2] = '\0'; /* the second half of the empty line */
    char *line = next_line(&text);
    int ret = line ? parse_first_line(line, out) : -EBADMSG;
    while (ret == 0 && (line = next_line(&text)))
        ret = parse_field(line, out);
    return ret;
}

const char *pv_http_find(const char *text, char separator, const char *name, size_t *size)
{
    size_t name_size = strlen(name);
    while (text && *text) {
        text += strspn(text, " ");
        const char *end = strchr(text, separator);
        if (!end)
            end = text + strlen(text);
        if ((size_t)(end - text) > name_size && memcmp(text, name, name_size) == 0 &&
            text[name_size] == '=') {
            *size = (size_t)(end - text) - name_size - 1;
            return text + name_size + 1;
        }
        text = *end ? end + 1 : NULL;
    }
    return NULL;
}

static const char *reason(int status)
{
    static const struct {
        int status;
        const char *text;
    } reasons[] = {
        {200, "OK"},
        {400, "Bad Request"},
        {403, "Forbidden"},
        {404, "Not Found"},
        {405, "Method Not Allowed"},
        {408, "Request Timeout"},
        {431, "Request Header Fields Too Large"},
        {503, "Service Unavailable"},
    };
    for (size_t i = 0; i < sizeof(reasons) / sizeof(reasons[0]); i++) {
        if (reasons[i].status == status)
            return reasons[i].text;
    }
    return "Error";
}

char *pv_http_compose(const struct pv_http_answer *answer, size_t *size)
{
    /* Nothing is to be kept in a cache, guessed by its bytes, framed, or shared with other pages.
     */
    char *head;
    int head_size = asprintf(&head,
                             "HTTP/1.1 %d %s\r\n"
                             "Connection: close\r\n"
                             "Content-Type: %s\r\n"
                             "Content-Length: %zu\r\n"
                             "Cache-Control: no-store\r\n"
                             "X-Content-Type-Options: nosniff\r\n"
                             "X-Frame-Options: DENY\r\n"
                             "Referrer-Policy: no-referrer\r\n"
                             "Cross-Origin-Resource-Policy: same-origin\r\n"
                             "Cross-Origin-Opener-Policy: same-origin\r\n"
                             "%s\r\n",
                             answer->status, reason(answer->status), answer->type,
                             answer->body_size, answer->fields ? answer->fields : "");
    if (head_size < 0)
        return NULL;
    *size = (size_t)head_size + answer->body_size;
    char *all = realloc(head, *size + 1);
    if (!all) {
        free(head);
        return NULL;
    }
    if (answer->body_size > 0)
        memcpy(all + head_size, answer->body, answer->body_size);
    return all;
}
