/* Reading a recording: see replay.h for the format. */
#include "transport/replay/replay.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct reader {
    struct pv_replay_session *sessions;
    size_t count;
    const char *why; /* what is wrong with the line */
};

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static int parse_hex(const char *text, size_t length, struct pv_replay_line *line)
{
    line->size = length / 2;
    line->data = malloc(line->size ? line->size : 1);
    if (!line->data)
        return -ENOMEM;
    for (size_t i = 0; i < line->size; i++) {
        int high = hex_digit(text[2 * i]), low = hex_digit(text[2 * i + 1]);
        if (high < 0 || low < 0)
            return -EINVAL;
        line->data[i] = (uint8_t)(high << 4 | low);
    }
    return length % 2 ? -EINVAL : 0;
}

static int add_session(struct reader *reader, const char *name)
{
    struct pv_replay_session *grown =
        realloc(reader->sessions, (reader->count + 1) * sizeof(*grown));
    if (!grown)
        return -ENOMEM;
    reader->sessions = grown;
    struct pv_replay_session *session = &grown[reader->count++];
    memset(session, 0, sizeof(*session));
    snprintf(session->name, sizeof(session->name), "%s", name);
    return 0;
}

static struct pv_replay_line *add_line(struct pv_replay_session *session)
{
    size_t count = session->line_count;
    if ((count & (count - 1)) == 0) { /* full: 0, 1, 2, 4, 8 … */
        struct pv_replay_line *grown =
            realloc(session->lines, (count ? 2 * count : 1) * sizeof(*grown));
        if (!grown)
            return NULL;
        session->lines = grown;
    }
    session->line_count++;
    memset(&session->lines[count], 0, sizeof(session->lines[count]));
    return &session->lines[count];
}

static int parse_line(struct reader *reader, const char *text)
{
    static const char kinds[] = "VCR";
    const char *kind = strchr(kinds, text[0]);
    const char *name = text + 2;
    const char *rest = text[0] && text[1] == ' ' ? strchr(name, ' ') : NULL;
    reader->why = "neither a comment nor V, C or R with a command and its bytes";
    if (!kind || !rest || reader->count == 0)
        return -EINVAL;
    struct pv_replay_line *line = add_line(&reader->sessions[reader->count - 1]);
    if (!line)
        return -ENOMEM;
    line->kind = (enum pv_replay_kind)(kind - kinds);
    snprintf(line->name, sizeof(line->name), "%.*s", (int)(rest - name), name);
    rest++;
    if (line->kind == PV_REPLAY_REPLY && sscanf(rest, "(%zu bytes)", &line->size) == 1)
        return 0;
    reader->why = "the bytes are not hexadecimal";
    return parse_hex(rest, strlen(rest), line);
}

static int read_file(struct reader *reader, FILE *file, unsigned *number)
{
    char *text = NULL;
    size_t room = 0;
    int ret = 0;
    ssize_t length;
    while (ret == 0 && (length = getline(&text, &room, file)) >= 0) {
        while (length > 0 && isspace((unsigned char)text[length - 1]))
            text[--length] = '\0';
        ++*number;
        if (length == 0 || text[0] == '#')
            continue;
        ret =
            strncmp(text, "== ", 3) == 0 ? add_session(reader, text + 3) : parse_line(reader, text);
    }
    free(text);
    return ret;
}

int pv_replay_load(const char *path, struct pv_replay_session **out, size_t *out_count, char *error,
                   size_t error_size)
{
    struct reader reader = {.why = "no memory"};
    unsigned number = 0;
    FILE *file = fopen(path, "re");
    if (!file) {
        int ret = -errno;
        snprintf(error, error_size, "%s: %s", path, strerror(-ret));
        return ret;
    }
    int ret = read_file(&reader, file, &number);
    fclose(file);
    if (ret < 0) {
        snprintf(error, error_size, "%s:%u: %s", path, number,
                 ret == -ENOMEM ? "no memory" : reader.why);
        pv_replay_free(reader.sessions, reader.count);
        return ret;
    }
    *out = reader.sessions;
    *out_count = reader.count;
    return 0;
}

void pv_replay_free(struct pv_replay_session *sessions, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        for (size_t k = 0; k < sessions[i].line_count; k++)
            free(sessions[i].lines[k].data);
        free(sessions[i].lines);
    }
    free(sessions);
}
