/* A connection at one end of a socket pair, a client that asks at the other. */
#include "unit.h"

#include "transport/vtest/connection.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define COMMAND 9u

static struct pv_connection connection;
static int client, server;

static int set_up(void **state)
{
    int fds[2];
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, fds) < 0)
        return -1;
    client = fds[0];
    server = fds[1];
    return pv_connection_init(&connection, server);
}

static int tear_down(void **state)
{
    pv_connection_finish(&connection);
    close(client);
    return server < 0 ? 0 : close(server);
}

/* What the kernel does when the process ends. */
static void die(void)
{
    close(server);
    server = -1;
}

static void ask(uint32_t word)
{
    const uint32_t message[] = {1, COMMAND, word};
    assert_int_equal(write(client, message, sizeof(message)), sizeof(message));
}

static void expect_message(uint32_t word)
{
    struct pv_message message;
    assert_int_equal(pv_connection_receive(&connection, &message), 1);
    assert_int_equal(message.command, COMMAND);
    assert_int_equal(message.size, sizeof(word));
    assert_memory_equal(message.payload, &word, sizeof(word));
}

static void expect_reply(uint32_t word)
{
    uint32_t reply[3];
    assert_int_equal(recv(client, reply, sizeof(reply), MSG_WAITALL), sizeof(reply));
    assert_int_equal(reply[2], word);
}

static void expect_reset(void)
{
    uint8_t byte;
    assert_int_equal(recv(client, &byte, 1, 0), -1);
    assert_int_equal(errno, ECONNRESET);
}

static void test_messages_whole_and_in_pieces(void **state)
{
    const uint32_t split[] = {1, COMMAND, 3};
    struct pv_message message;
    ask(1);
    ask(2);
    assert_int_equal(write(client, split, 5), 5);
    expect_message(1);
    expect_message(2);
    assert_int_equal(write(client, (const char *)split + 5, 7), 7);
    expect_message(3);
    shutdown(client, SHUT_WR);
    assert_int_equal(pv_connection_receive(&connection, &message), 0);
    assert_int_equal(connection.bytes_received, 36);
}

/* Mesa would read for ever at an end of the stream. */
static void test_dies_before_an_answer(void **state)
{
    ask(1);
    expect_message(1);
    die();
    expect_reset();
}

static void test_dies_between_two_answers(void **state)
{
    ask(1);
    ask(2);
    expect_message(1);
    assert_int_equal(pv_connection_reply(&connection, COMMAND, (uint32_t[]){1}, 1), 0);
    expect_message(2);
    die();
    expect_reply(1);
    expect_reset();
}

static void test_ends_when_all_is_answered(void **state)
{
    struct pv_message message;
    uint8_t byte;
    ask(1);
    expect_message(1);
    assert_int_equal(pv_connection_reply(&connection, COMMAND, (uint32_t[]){1}, 1), 0);
    pv_connection_stop(server);
    assert_int_equal(pv_connection_receive(&connection, &message), 0);
    die();
    expect_reply(1);
    assert_int_equal(recv(client, &byte, 1, 0), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_messages_whole_and_in_pieces, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_dies_before_an_answer, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_dies_between_two_answers, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_ends_when_all_is_answered, set_up, tear_down),
    };
    return cmocka_run_group_tests_name("connection", tests, NULL, NULL);
}
