/* Just enough HTTP/1.1 for a page that one person looks at: the head of a GET request is taken
 * apart, and an answer is put together. Every connection carries one request.
 *
 * Own code and no library, because a WebSocket's handshake has to stay in its socket, unread, for
 * libvncserver: the head must be understood from a copy before anybody reads it. libmicrohttpd
 * reads by itself and keeps what it has read; the parser libraries that Debian 12 has are not
 * maintained any more. What is left is below.
 *
 * Spec:    RFC 9112 (messages), RFC 9110 (fields), RFC 6265 (cookies).
 * Trust:   all of a request comes from the network. What we have no use for is refused: other
 *          methods, bodies, folded lines, control characters, fields that matter sent twice.
 * Threads: any.
 */
#ifndef PV_DISPLAY_HTTP_H
#define PV_DISPLAY_HTTP_H

#include <stdbool.h>
#include <stddef.h>

/* Browsers send about 1 KiB. */
#define PV_HTTP_HEAD_MAX (8u << 10)

/* Strings are in the text that was parsed; NULL: not sent. */
struct pv_http_request {
    const char *path;  /* as sent, starts with a slash; without the query */
    const char *query; /* what follows the question mark */
    const char *host, *origin, *cookie;
    bool upgrade; /* asks for a WebSocket */
    size_t size;  /* bytes of the head, with the empty line */
};

/* Take the head of a request apart, in place: `text`, of `size` bytes, is changed unless there is
 * too little of it.
 *
 * Returns 0; -EAGAIN if the head does not end in `text`; -EBADMSG if it is none that we take;
 * -EOPNOTSUPP if the method is not GET.
 */
int pv_http_parse(char *text, size_t size, struct pv_http_request *out);

/* The value of `name` in "a=1; b=2", separated by `separator` and blanks; it is `*size` bytes long
 * and not terminated. NULL if there is none, or no text. */
const char *pv_http_find(const char *text, char separator, const char *name, size_t *size);

struct pv_http_answer {
    int status;         /* 200, … */
    const char *type;   /* of the body */
    const char *fields; /* more header lines, each with its line end; NULL: none */
    const void *body;
    size_t body_size;
};

/* The whole answer as it goes over the line; free() it. NULL if there is no memory. */
char *pv_http_compose(const struct pv_http_answer *answer, size_t *size);

#endif
