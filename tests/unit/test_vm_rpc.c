/* QMP and the guest agent: the bytes, the calls, and what a hostile guest makes of them. */
#include "unit.h"

#include "vm/agent.h"
#include "vm/qmp.h"
#include "vm/rpc.h"

#include <errno.h>
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <uv.h>

static int found_count;
static char found_text[256];

static void take(void *data, struct json_object *object)
{
    found_count++;
    snprintf(found_text, sizeof(found_text), "%s",
             json_object_to_json_string_ext(object, JSON_C_TO_STRING_PLAIN));
}

static int feed(struct pv_rpc_input *input, const char *bytes, size_t size)
{
    found_count = 0;
    return pv_rpc_input_feed(input, bytes, size, take, NULL);
}

static void test_lines(void **state)
{
    struct pv_rpc_input input = {0};
    const char text[] = "{\"a\":1}\r\n\r\n{\"b\":";
    assert_int_equal(feed(&input, text, sizeof(text) - 1), 0);
    assert_int_equal(found_count, 1);
    assert_string_equal(found_text, "{\"a\":1}");
    assert_int_equal(feed(&input, "2}\n", 3), 0);
    assert_string_equal(found_text, "{\"b\":2}");
    /* half a line of a guest that restarted, then the answer to a delimited sync */
    assert_int_equal(feed(&input, "{\"ret\xff{\"c\":3}\n", 14), 0);
    assert_string_equal(found_text, "{\"c\":3}");
    /* byte by byte */
    for (const char *c = "{\"d\": [1, {\"e\": null}]}\n"; *c; c++)
        assert_int_equal(feed(&input, c, 1), 0);
    assert_string_equal(found_text, "{\"d\":[1,{\"e\":null}]}");
    pv_rpc_input_finish(&input);
}

static void check_bad(const char *bytes, size_t size, int expected)
{
    struct pv_rpc_input input = {0};
    assert_int_equal(feed(&input, bytes, size), expected);
    assert_int_equal(found_count, 0);
    pv_rpc_input_finish(&input);
}

static void test_hostile_lines(void **state)
{
    static char big[PV_RPC_LINE_MAX + 100];
    check_bad("nonsense\n", 9, -EBADMSG);
    check_bad("[1,2]\n", 6, -EBADMSG);
    check_bad("\"text\"\n", 7, -EBADMSG);
    check_bad("{\"a\":1\n", 7, -EBADMSG);
    check_bad("{\"a\0\":1}\n", 9, -EBADMSG);
    check_bad("\0\0\0\n", 4, -EBADMSG);

    memset(big, 'x', sizeof(big)); /* never a line end */
    check_bad(big, sizeof(big), -EMSGSIZE);
    for (size_t i = 0; i < 20000; i += 5)
        memcpy(big + i, "{\"a\":", 5);
    big[20000] = '\n';
    check_bad(big, 20001, -EBADMSG);
    memset(big, '[', 30000);
    big[30000] = '\n';
    check_bad(big, 30001, -EBADMSG);
}

struct fixture {
    uv_loop_t loop;
    int peer; /* the other side of the connection */
    int answers, errors, ready, lost, events;
    int64_t pid;
    struct pv_agent_status status;
    char text[512];
};

static int connect_pair(struct fixture *f)
{
    int fds[2];
    assert_int_equal(uv_loop_init(&f->loop), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    f->peer = fds[1];
    return fds[0];
}

static void spin(struct fixture *f)
{
    for (int i = 0; i < 10; i++)
        uv_run(&f->loop, UV_RUN_NOWAIT);
}

static void end(struct fixture *f)
{
    uv_run(&f->loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&f->loop), 0);
    close(f->peer);
}

static void say(struct fixture *f, const char *text)
{
    assert_int_equal(write(f->peer, text, strlen(text)), (ssize_t)strlen(text));
    spin(f);
}

/* What was sent to the peer. */
static const char *hear(struct fixture *f)
{
    spin(f);
    ssize_t n = recv(f->peer, f->text, sizeof(f->text) - 1, MSG_DONTWAIT);
    f->text[n < 0 ? 0 : n] = '\0';
    return f->text;
}

static void on_done(void *data, struct json_object *result, const char *error)
{
    struct fixture *f = data;
    if (error)
        f->errors++;
    else
        f->answers++;
    if (error)
        snprintf(f->text, sizeof(f->text), "%s", error);
}

static void on_event(void *data, const char *name, struct json_object *arguments)
{
    ((struct fixture *)data)->events++;
}

static void on_lost(void *data, const char *why)
{
    ((struct fixture *)data)->lost++;
}

static const struct pv_rpc_events rpc_events = {.event = on_event, .lost = on_lost};

static void test_calls(void **state)
{
    struct fixture f = {0};
    struct pv_rpc *rpc;
    assert_int_equal(pv_rpc_create(&f.loop, connect_pair(&f), &rpc_events, &f, &rpc), 0);
    assert_int_equal(pv_rpc_call(rpc, "one", NULL, on_done, &f), 0);
    assert_int_equal(pv_rpc_call(rpc, "two", NULL, on_done, &f), 0);
    assert_string_equal(hear(&f),
                        "{\"execute\":\"one\",\"id\":1}\n{\"execute\":\"two\",\"id\":2}\n");

    /* not asked for, or not an answer */
    say(&f, "{\"return\":{},\"id\":7}\n{\"return\":{},\"id\":\"1\"}\n{\"return\":{}}\n{\"id\":1}\n"
            "{\"event\":5}\n{}\n");
    assert_int_equal(f.answers + f.errors + f.events, 0);
    say(&f, "{\"event\":\"RESET\"}\n{\"return\":{},\"id\":2}\n{\"return\":{},\"id\":2}\n");
    assert_int_equal(f.answers, 1);
    assert_int_equal(f.events, 1);
    /* what is shown holds no escape sequences */
    say(&f, "{\"error\":{\"class\":\"X\",\"desc\":\"bad \\u001b[31m\"},\"id\":1}\n");
    assert_int_equal(f.errors, 1);
    assert_string_equal(f.text, "bad ?[31m");

    assert_int_equal(pv_rpc_call(rpc, "three", NULL, on_done, &f), 0);
    say(&f, "{\"error\":[],\"id\":3}\n");
    assert_int_equal(f.errors, 2);
    assert_int_equal(pv_rpc_call(rpc, "four", NULL, on_done, &f), 0);
    say(&f, "}{\n");
    assert_int_equal(f.lost, 1);
    pv_rpc_destroy(rpc);
    assert_int_equal(f.errors, 3); /* "four" will never be answered */
    end(&f);
}

static void on_qmp_ready(void *data)
{
    ((struct fixture *)data)->ready++;
}

static void on_port(void *data, const char *id, bool open)
{
    struct fixture *f = data;
    f->events += open && strcmp(id, "agent-port") == 0;
}

static void on_shutdown(void *data, bool by_guest, const char *reason)
{
    struct fixture *f = data;
    f->answers += by_guest;
    snprintf(f->text, sizeof(f->text), "%s", reason);
}

static const struct pv_qmp_events qmp_events = {
    .ready = on_qmp_ready, .port = on_port, .shutdown = on_shutdown, .lost = on_lost};

static void test_qmp(void **state)
{
    struct fixture f = {0};
    struct pv_qmp *qmp;
    assert_int_equal(pv_qmp_create(&f.loop, connect_pair(&f), &qmp_events, &f, &qmp), 0);
    assert_non_null(strstr(hear(&f), "qmp_capabilities"));
    say(&f,
        "{\"QMP\": {\"version\": {}, \"capabilities\": []}}\r\n{\"return\": {}, \"id\": 1}\r\n");
    assert_int_equal(f.ready, 1);
    say(&f, "{\"event\":\"VSERPORT_CHANGE\",\"data\":{\"open\":true,\"id\":\"agent-port\"}}\n"
            "{\"event\":\"VSERPORT_CHANGE\",\"data\":{\"open\":false,\"id\":\"agent-port\"}}\n"
            "{\"event\":\"VSERPORT_CHANGE\",\"data\":[]}\n{\"event\":\"SHUTDOWN\"}\n");
    assert_int_equal(f.events, 1);
    assert_int_equal(f.answers, 0);
    say(&f, "{\"event\":\"SHUTDOWN\",\"data\":{\"guest\":true,\"reason\":\"guest-shutdown\"}}\n");
    assert_int_equal(f.answers, 1);
    assert_string_equal(f.text, "guest-shutdown");
    pv_qmp_powerdown(qmp);
    pv_qmp_quit(qmp);
    assert_non_null(strstr(hear(&f), "\"quit\""));
    pv_qmp_destroy(qmp);
    pv_qmp_destroy(NULL);
    end(&f);
}

static const struct pv_agent_events agent_events = {.ready = on_qmp_ready, .lost = on_lost};

static void on_started(void *data, int64_t pid, const char *error)
{
    struct fixture *f = data;
    f->pid = pid;
    f->errors += error != NULL;
}

static void on_status(void *data, const struct pv_agent_status *status, const char *error)
{
    struct fixture *f = data;
    f->errors += error != NULL;
    if (status)
        f->status = *status;
}

static void test_agent(void **state)
{
    struct fixture f = {0};
    struct pv_agent *agent;
    char sh[] = "/bin/sh", c[] = "-c", script[] = "echo \"\x1e\"", answer[128];
    char *const argv[] = {sh, c, script, NULL};
    const char *const env[] = {"HOME=/root", NULL};
    assert_int_equal(pv_agent_create(&f.loop, connect_pair(&f), &agent_events, &f, &agent), 0);
    pv_agent_sync(agent);
    assert_int_equal(hear(&f)[0], '\xff');
    assert_non_null(strstr(f.text, "guest-sync-delimited"));
    snprintf(answer, sizeof(answer),
             "{\"error\":{\"desc\":\"JSON parse error\"}}\n\xff{\"return\":%d,"
             "\"id\":1}\n",
             (int)getpid());
    say(&f, answer);
    assert_int_equal(f.ready, 1);

    assert_int_equal(pv_agent_exec(agent, argv, env, on_started, &f), 0);
    assert_non_null(
        strstr(hear(&f), "\"path\":\"\\/bin\\/sh\",\"arg\":[\"-c\",\"echo \\\"\\u001e"));
    say(&f, "{\"return\":{\"pid\":345},\"id\":2}\n");
    assert_int_equal(f.pid, 345);
    assert_int_equal(pv_agent_exec(agent, argv, env, on_started, &f), 0);
    say(&f, "{\"return\":{\"pid\":-3},\"id\":3}\n"); /* no pid */
    assert_int_equal(f.pid, -1);
    assert_int_equal(f.errors, 1);

    assert_int_equal(pv_agent_exec_status(agent, 345, on_status, &f), 0);
    say(&f, "{\"return\":{\"exited\":true,\"exitcode\":7},\"id\":4}\n");
    assert_true(f.status.exited);
    assert_int_equal(f.status.exit_code, 7);
    assert_int_equal(pv_agent_exec_status(agent, 345, on_status, &f), 0);
    say(&f, "{\"return\":[1],\"id\":5}\n");
    assert_int_equal(f.errors, 2);
    assert_int_equal(pv_agent_exec_status(agent, 345, on_status, &f), 0);
    pv_agent_destroy(agent);
    assert_int_equal(f.errors, 3);
    pv_agent_destroy(NULL);
    end(&f);
}

static int parse_status(const char *text, struct pv_agent_status *out)
{
    struct json_object *object = json_tokener_parse(text);
    int ret = pv_agent_parse_status(object, out);
    json_object_put(object);
    return ret;
}

static void test_status(void **state)
{
    struct pv_agent_status status;
    assert_int_equal(parse_status("{\"exited\":false}", &status), 0);
    assert_false(status.exited);
    assert_int_equal(parse_status("{\"exited\":true,\"signal\":9}", &status), 0);
    assert_int_equal(status.exit_code, 137);
    assert_int_equal(parse_status("{\"exited\":true,\"exitcode\":99999999999999}", &status), 0);
    assert_in_range(status.exit_code, 0, 255);
    assert_int_equal(parse_status("{\"exited\":true,\"exitcode\":\"x\",\"signal\":{}}", &status),
                     0);
    assert_int_equal(parse_status("{\"exited\":1}", &status), -EBADMSG);
    assert_int_equal(parse_status("{}", &status), -EBADMSG);
    assert_int_equal(parse_status("[]", &status), -EBADMSG);
    assert_int_equal(parse_status("null", &status), -EBADMSG);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lines), cmocka_unit_test(test_hostile_lines),
        cmocka_unit_test(test_calls), cmocka_unit_test(test_qmp),
        cmocka_unit_test(test_agent), cmocka_unit_test(test_status),
    };
    return cmocka_run_group_tests_name("vm_rpc", tests, NULL, NULL);
}
