/* Who may look at the page: one-time tokens, a cookie, and what a request says about where it was
 * sent to and from.
 *
 * Trust:   everything in a request is the sender's. Secrets have 128 bits and are compared in
 *          constant time.
 * Threads: that of the web server.
 */
#ifndef PV_DISPLAY_WEB_ACCESS_H
#define PV_DISPLAY_WEB_ACCESS_H

#include "display/http.h"

#include <stdbool.h>

#define PV_WEB_SECRET_SIZE 33 /* hexadecimal digits and the end */

struct pv_web_access {
    char *host;           /* that we were told to listen at, as URLs have it; owned; NULL: none */
    char cookie_name[24]; /* with the port: browsers keep one jar for all ports of a host */
    char cookie[PV_WEB_SECRET_SIZE];
    char token[PV_WEB_SECRET_SIZE]; /* not used yet */
};

/* `authority` is HOST:PORT of the URL, or NULL. -ENOMEM; -EIO if there are no random numbers. */
int pv_web_access_init(struct pv_web_access *access, const char *authority);
void pv_web_access_finish(struct pv_web_access *access);

/* The request means us: its host is loopback, the address at which connection `fd` arrived, or the
 * one that we were told. A page that made its own name point at us (DNS rebinding) names another.
 */
bool pv_web_access_host_ok(const struct pv_web_access *access,
                           const struct pv_http_request *request, int fd);
/* It was sent by our own page. To be asked after pv_web_access_host_ok. */
bool pv_web_access_origin_ok(const struct pv_http_request *request);
/* It has the cookie. */
bool pv_web_access_cookie_ok(const struct pv_web_access *access,
                             const struct pv_http_request *request);
/* It has the token, which is good for nothing from now on: there is a new one. */
bool pv_web_access_use_token(struct pv_web_access *access, const struct pv_http_request *request);

#endif
