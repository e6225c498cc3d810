#include "vm/lines.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>
#include <uv.h>

struct pv_lines {
    uv_pipe_t pipe;
    void (*line)(void *data, const char *line);
    void *data;
    size_t used;
    char text[PV_LINES_MAX];
    char buffer[1024];
};

static void end_line(struct pv_lines *lines)
{
    lines->text[lines->used] = '\0';
    if (lines->used > 0)
        lines->line(lines->data, lines->text);
    lines->used = 0;
}

static void take(struct pv_lines *lines, ssize_t size)
{
    for (ssize_t i = 0; i < size; i++) {
        char c = lines->buffer[i];
        if (c == '\n' || lines->used + 1 == sizeof(lines->text))
            end_line(lines);
        if (c != '\n')
            lines->text[lines->used++] = c;
    }
}

static void give_buffer(uv_handle_t *handle, size_t suggested, uv_buf_t *out)
{
    struct pv_lines *lines = handle->data;
    *out = uv_buf_init(lines->buffer, sizeof(lines->buffer));
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buffer)
{
    struct pv_lines *lines = stream->data;
    if (n >= 0) {
        take(lines, n);
        return;
    }
    end_line(lines);
    uv_read_stop(stream);
}

static void on_closed(uv_handle_t *handle)
{
    free(handle->data);
}

int pv_lines_create(uv_loop_t *loop, int fd, void (*line)(void *data, const char *line), void *data,
                    struct pv_lines **out)
{
    struct pv_lines *lines = calloc(1, sizeof(*lines));
    int ret = lines ? uv_pipe_init(loop, &lines->pipe, 0) : -ENOMEM;
    if (ret < 0) {
        close(fd);
        free(lines);
        return ret;
    }
    lines->line = line;
    lines->data = data;
    lines->pipe.data = lines;
    ret = uv_pipe_open(&lines->pipe, fd);
    if (ret < 0)
        close(fd);
    else
        ret = uv_read_start((uv_stream_t *)&lines->pipe, give_buffer, on_read);
    if (ret < 0)
        uv_close((uv_handle_t *)&lines->pipe, on_closed);
    else
        *out = lines;
    return ret;
}

void pv_lines_drain(struct pv_lines *lines)
{
    uv_os_fd_t fd;
    ssize_t n;
    if (!lines || uv_fileno((uv_handle_t *)&lines->pipe, &fd) < 0)
        return;
    while ((n = read(fd, lines->buffer, sizeof(lines->buffer))) > 0)
        take(lines, n);
    end_line(lines);
}

void pv_lines_destroy(struct pv_lines *lines)
{
    if (lines && !uv_is_closing((uv_handle_t *)&lines->pipe))
        uv_close((uv_handle_t *)&lines->pipe, on_closed);
}
