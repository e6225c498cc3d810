#include "display/web_access.h"

#include "util/os.h"

#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>

static int make_secret(char out[PV_WEB_SECRET_SIZE])
{
    unsigned char random[(PV_WEB_SECRET_SIZE - 1) / 2];
    int ret = pv_random(random, sizeof(random));
    for (size_t i = 0; ret == 0 && i < sizeof(random); i++)
        snprintf(out + 2 * i, 3, "%02x", random[i]);
    return ret;
}

/* Takes as long wherever the first difference is. */
static bool is_secret(const char *text, size_t size, const char *secret)
{
    if (!text || size != PV_WEB_SECRET_SIZE - 1)
        return false;
    volatile unsigned char difference = 0;
    for (size_t i = 0; i < size; i++)
        difference |= (unsigned char)(text[i] ^ secret[i]);
    return difference == 0;
}

/* Of HOST, HOST:PORT, [ADDRESS] and [ADDRESS]:PORT. */
static size_t host_size(const char *authority)
{
    const char *bracket = authority[0] == '[' ? strchr(authority, ']') : NULL;
    return bracket ? (size_t)(bracket + 1 - authority) : strcspn(authority, ":");
}

static bool has_host(const char *authority, const char *host)
{
    size_t size = host_size(authority);
    return strlen(host) == size && strncasecmp(authority, host, size) == 0 &&
           (authority[size] == ':' || authority[size] == '\0');
}

/* As URLs have it: an IPv6 address in brackets, and an IPv4 one by itself. */
static bool local_host(int fd, char *out, size_t size)
{
    struct sockaddr_storage address;
    socklen_t address_size = sizeof(address);
    char text[256];
    if (getsockname(fd, (struct sockaddr *)&address, &address_size) < 0 ||
        (address.ss_family != AF_INET && address.ss_family != AF_INET6) ||
        getnameinfo((struct sockaddr *)&address, address_size, text, sizeof(text), NULL, 0,
                    NI_NUMERICHOST) != 0)
        return false;
    if (strncasecmp(text, "::ffff:", 7) == 0 && strchr(text, '.'))
        snprintf(out, size, "%s", text + 7);
    else
        snprintf(out, size, address.ss_family == AF_INET6 ? "[%s]" : "%s", text);
    return true;
}

int pv_web_access_init(struct pv_web_access *access, const char *authority)
{
    *access = (struct pv_web_access){.host = NULL};
    const char *port = authority ? authority + host_size(authority) : "";
    snprintf(access->cookie_name, sizeof(access->cookie_name), "pearvisor%.8s", port);
    char *colon = strchr(access->cookie_name, ':');
    if (colon)
        *colon = '-';
    int ret = make_secret(access->cookie);
    if (ret == 0)
        ret = make_secret(access->token);
    if (ret == 0 && authority) {
        access->host = strndup(authority, host_size(authority));
        ret = access->host ? 0 : -ENOMEM;
    }
    return ret;
}

void pv_web_access_finish(struct pv_web_access *access)
{
    free(access->host);
    *access = (struct pv_web_access){.host = NULL};
}

bool pv_web_access_host_ok(const struct pv_web_access *access,
                           const struct pv_http_request *request, int fd)
{
    const char *host = request->host;
    /* It becomes part of an answer. */
    if (!host || host[strspn(host, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                   "0123456789.-:[]")] != '\0')
        return false;
    char local[300];
    return has_host(host, "localhost") || has_host(host, "127.0.0.1") || has_host(host, "[::1]") ||
           (access->host && has_host(host, access->host)) ||
           (local_host(fd, local, sizeof(local)) && has_host(host, local));
}

bool pv_web_access_origin_ok(const struct pv_http_request *request)
{
    const char *origin = request->origin;
    if (!origin || !request->host)
        return false;
    if (strncmp(origin, "http://", 7) == 0)
        return strcasecmp(origin + 7, request->host) == 0;
    return strncmp(origin, "https://", 8) == 0 && strcasecmp(origin + 8, request->host) == 0;
}

bool pv_web_access_cookie_ok(const struct pv_web_access *access,
                             const struct pv_http_request *request)
{
    size_t size = 0;
    const char *cookie = pv_http_find(request->cookie, ';', access->cookie_name, &size);
    return is_secret(cookie, size, access->cookie);
}

bool pv_web_access_use_token(struct pv_web_access *access, const struct pv_http_request *request)
{
    size_t size = 0;
    const char *token = pv_http_find(request->query, '&', "token", &size);
    char next[PV_WEB_SECRET_SIZE];
    if (!is_secret(token, size, access->token) || make_secret(next) < 0)
        return false;
    memcpy(access->token, next, sizeof(next));
    return true;
}
