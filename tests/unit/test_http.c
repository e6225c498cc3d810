#include "display/http.h"

#include "unit.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char text[PV_HTTP_HEAD_MAX];

static int parse(const char *request, struct pv_http_request *out)
{
    memcpy(text, request, strlen(request) + 1);
    return pv_http_parse(text, strlen(request), out);
}

static void request_is_taken_apart(void **state)
{
    static const char request[] = "GET /a/b?token=1&x HTTP/1.1\r\nHost:  localhost:6080 \r\n"
                                  "cookie: a=1; b=2\r\nORIGIN: http://x\r\nUpgrade: WebSocket\r\n"
                                  "Accept:\r\n\r\nrest";
    struct pv_http_request out;
    assert_int_equal(parse(request, &out), 0);
    assert_string_equal(out.path, "/a/b");
    assert_string_equal(out.query, "token=1&x");
    assert_string_equal(out.host, "localhost:6080");
    assert_string_equal(out.cookie, "a=1; b=2");
    assert_string_equal(out.origin, "http://x");
    assert_true(out.upgrade);
    assert_int_equal(out.size, sizeof(request) - 1 - 4);

    assert_int_equal(parse("GET / HTTP/1.0\r\n\r\n", &out), 0);
    assert_string_equal(out.path, "/");
    assert_null(out.query);
    assert_null(out.host);
    assert_false(out.upgrade);
}

/* Cut anywhere, it is not all there, and stays as it was. */
static void head_in_part(void **state)
{
    static const char request[] = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    for (size_t size = 0; size < sizeof(request) - 1; size++) {
        struct pv_http_request out;
        memcpy(text, request, sizeof(request));
        assert_int_equal(pv_http_parse(text, size, &out), -EAGAIN);
        assert_memory_equal(text, request, sizeof(request));
    }
}

static void bad_requests(void **state)
{
    static const char *const bad[] = {
        "\r\n\r\n",
        "\r\nGET / HTTP/1.1\r\n\r\n",
        "GET\r\n\r\n",
        "GET /\r\n\r\n",
        "GET / HTTP/2\r\n\r\n",
        "GET / HTTP/1.1 \r\n\r\n",
        "GET  / HTTP/1.1\r\n\r\n",
        "GET a HTTP/1.1\r\n\r\n",
        "GET http://a/ HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost\r\n\r\n",
        "GET / HTTP/1.1\r\n: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n folded: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nOrigin: a\r\nOrigin: a\r\n\r\n",
        "GET / HTTP/1.1\r\nCookie: a=1\r\nCookie: a=1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: \x01\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: \xc3\xa4\r\n\r\n",
        "GET / HTTP/1.1\r\nContent-Length: 5\r\n\r\n",
        "GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
    };
    struct pv_http_request out;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        if (parse(bad[i], &out) != -EBADMSG)
            fail_msg("taken: %s", bad[i]);
    }
    assert_int_equal(parse("POST / HTTP/1.1\r\n\r\n", &out), -EOPNOTSUPP);
    assert_int_equal(parse("get / HTTP/1.1\r\n\r\n", &out), -EOPNOTSUPP);
    static const char with_zero[] = "GET / HTTP/1.1\r\nHost: a\0b\r\n\r\n";
    memcpy(text, with_zero, sizeof(with_zero));
    assert_int_equal(pv_http_parse(text, sizeof(with_zero) - 1, &out), -EBADMSG);
}

/* Whatever comes: no harm, and what is found lies in the text. */
static void noise(void **state)
{
    static const char *const pieces[] = {
        "GET ",  "/",      "?",    " HTTP/1.1", "\r\n",     "\r\n\r\n", ":",       "Host",
        "Host:", " ",      "\t",   "\r",        "\n",       "Cookie:",  "Origin:", "Upgrade:",
        "a",     "token=", "\xff", "&",         "HTTP/1.1", ";",        "",        "Host: a\r\n",
    };
    srand(1);
    int taken = 0;
    for (int round = 0; round < 200000; round++) {
        size_t size = 0;
        if (rand() % 2 == 0)
            size = (size_t)sprintf(text, "GET / HTTP/1.1\r\n");
        for (int i = rand() % 12; i >= 0; i--)
            size += (size_t)sprintf(text + size, "%s", pieces[rand() % 24]);
        char *exact = malloc(size);
        memcpy(exact, text, size);
        struct pv_http_request out;
        if (pv_http_parse(exact, size, &out) == 0) {
            taken++;
            assert_true(out.size <= size && out.path[0] == '/');
            size_t found;
            const char *token = pv_http_find(out.query, '&', "token", &found);
            assert_true(!token || found <= size);
        }
        free(exact);
    }
    assert_true(taken > 1000);
}

static void check_find(const char *where, char separator, const char *name, const char *wanted)
{
    size_t size = 0;
    const char *found = pv_http_find(where, separator, name, &size);
    if (!wanted) {
        assert_null(found);
        return;
    }
    assert_non_null(found);
    assert_int_equal(size, strlen(wanted));
    assert_memory_equal(found, wanted, size);
}

static void values_are_found(void **state)
{
    check_find("a=1; bb=2;c=; d", ';', "a", "1");
    check_find("a=1; bb=2;c=; d", ';', "bb", "2");
    check_find("a=1; bb=2;c=; d", ';', "c", "");
    check_find("a=1; bb=2;c=; d", ';', "b", NULL);
    check_find("a=1; bb=2;c=; d", ';', "d", NULL);
    check_find("x=1&token=5", '&', "token", "5");
    check_find("xtoken=5", '&', "token", NULL);
    check_find("", '&', "token", NULL);
    check_find(NULL, '&', "token", NULL);
}

static void answer_is_composed(void **state)
{
    size_t size;
    char *answer = pv_http_compose(
        &(struct pv_http_answer){
            .status = 404,
            .type = "text/plain",
            .fields = "X: y\r\n",
            .body = "no\0t",
            .body_size = 4,
        },
        &size);
    assert_non_null(answer);
    static const char start[] = "HTTP/1.1 404 Not Found\r\nConnection: close\r\n";
    assert_memory_equal(answer, start, sizeof(start) - 1);
    assert_memory_equal(answer + size - 8, "\r\n\r\nno\0t", 8);
    assert_non_null(memmem(answer, size, "\r\nContent-Length: 4\r\n", 21));
    assert_non_null(memmem(answer, size, "\r\nX: y\r\n", 8));
    free(answer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(request_is_taken_apart), cmocka_unit_test(head_in_part),
        cmocka_unit_test(bad_requests),           cmocka_unit_test(noise),
        cmocka_unit_test(values_are_found),       cmocka_unit_test(answer_is_composed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
