/* Recorded sessions of Mesa's driver, played into a context.
 *
 *   test_vectors null VECTORS     on the null driver: bytes of commands and replies
 *   test_vectors host VECTORS     on this machine's lavapipe: every VkResult is the recorded one
 */
#include "null/null_driver.h"
#include "transport/replay/replay.h"
#include "unit/unit.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SKIP 77

static struct pv_replay_session *sessions;
static size_t session_count;
static struct pv_host_caps caps;
static int device_index;
static bool on_null_driver;

static uint32_t word(const uint8_t *bytes, size_t offset)
{
    uint32_t value;
    memcpy(&value, bytes + offset, sizeof(value));
    return value;
}

static bool is_one_of(const char *name, const char *const *names)
{
    for (; *names; names++) {
        if (strcmp(name, *names) == 0)
            return true;
    }
    return false;
}

/* Made of ids and counts that the guest chose: the whole reply is known. */
static const char *const exact[] = {
    "vkCreateInstance",
    "vkEnumeratePhysicalDevices",
    "vkCreateDevice",
    "vkEnumeratePhysicalDeviceGroups",
    "vkCreateBuffer",
    "vkGetDeviceQueue2",
    "vkCreateImage",
    "vkDestroyInstance",
    NULL,
};

/* As long as the driver says. */
static const char *const variable[] = {
    "vkGetPipelineCacheData",
    "vkGetPhysicalDeviceProperties2", /* lists of image layouts */
    NULL,
};

/* A struct with a chain follows the command type. */
static const char *const chained[] = {
    "vkGetPhysicalDeviceFeatures2",         "vkGetPhysicalDeviceProperties2",
    "vkGetPhysicalDeviceMemoryProperties2", "vkGetBufferMemoryRequirements2",
    "vkGetImageMemoryRequirements2",        NULL,
};

/* No VkResult in the second word. */
static bool returns_nothing(const char *name)
{
    static const char *const names[] = {
        "vkGetPhysicalDeviceProperties",
        "vkGetPhysicalDeviceExternalSemaphoreProperties",
        "vkGetPhysicalDeviceQueueFamilyProperties2",
        "vkGetDeviceQueue2",
        "vkDestroyInstance",
        NULL,
    };
    return is_one_of(name, names) || is_one_of(name, chained);
}

/* sType and chain, up to the first member. */
static size_t head_size(const uint8_t *bytes, size_t size)
{
    size_t at = 12 + 4; /* command type, pointer; sType */
    while (at + 8 <= size && word(bytes, at) == 1)
        at += 12;
    return at + 8;
}

static unsigned replies_checked;

static void check_reply(void *data, const struct pv_replay_session *session, size_t index,
                        const uint8_t *bytes, size_t size)
{
    const struct pv_replay_line *line = &session->lines[index];
    assert_true(index + 1 < session->line_count);
    const struct pv_replay_line *recorded = &session->lines[index + 1];
    const char *name = line->name;
    assert_int_equal(recorded->kind, PV_REPLAY_REPLY);
    assert_string_equal(recorded->name, name);
    assert_true(size >= 4);
    assert_int_equal(word(bytes, 0), word(line->data, 0));
    replies_checked++;
    if (on_null_driver && recorded->size != size && !is_one_of(name, variable))
        fail_msg("%s line %zu: %s: reply of %zu bytes, recorded were %zu", session->name, index,
                 name, size, recorded->size);
    if (!recorded->data)
        return;
    bool more = strcmp(name, "vkEnumerateDeviceExtensionProperties") == 0 ||
                is_one_of(name, variable); /* VK_INCOMPLETE where there is more than was then */
    if (!returns_nothing(name) && !more && word(bytes, 4) != word(recorded->data, 4))
        fail_msg("%s line %zu: %s: VkResult %d, recorded was %d", session->name, index, name,
                 (int)word(bytes, 4), (int)word(recorded->data, 4));
    if (is_one_of(name, chained)) {
        assert_int_equal(head_size(bytes, size), head_size(recorded->data, recorded->size));
        assert_memory_equal(bytes, recorded->data, head_size(bytes, size));
    }
    if (on_null_driver && is_one_of(name, exact))
        assert_memory_equal(bytes, recorded->data, size);
}

static size_t count_lines(const struct pv_replay_session *session, enum pv_replay_kind kind)
{
    size_t count = 0;
    for (size_t i = 0; i < session->line_count; i++)
        count += session->lines[i].kind == kind;
    return count;
}

static struct pv_replay_result run(const struct pv_replay_session *session, bool direct)
{
    const struct pv_replay_params params = {
        .caps = &caps,
        .device_index = device_index,
        .offer_dma_buf = true, /* as in session A */
        .direct = direct,
        .reply = check_reply,
    };
    struct pv_replay_result result;
    replies_checked = 0;
    int ret = pv_replay_run(session, &params, &result);
    if (ret != 0)
        fail_msg("session %s: %d after %zu commands: %s", session->name, ret, result.commands,
                 result.reason);
    assert_int_equal(replies_checked, count_lines(session, PV_REPLAY_REPLY));
    assert_int_equal(result.stats.replies, replies_checked);
    assert_true(result.blobs > 0);
    return result;
}

/* The stream ran as many commands as there are lines: none left bytes to the next. */
static void test_direct(void **state)
{
    for (size_t i = 0; i < session_count; i++) {
        struct pv_replay_result result = run(&sessions[i], true);
        assert_int_equal(result.stats.commands, result.commands);
    }
}

static void test_ring(void **state)
{
    for (size_t i = 0; i < session_count; i++) {
        struct pv_replay_result result = run(&sessions[i], false);
        size_t lines = count_lines(&sessions[i], PV_REPLAY_CONTEXT) +
                       count_lines(&sessions[i], PV_REPLAY_RING);
        assert_int_equal(result.commands, lines);
        assert_true(result.stats.commands >= lines); /* and notifications of the player's own */
        assert_int_equal(result.stats.errors, 0);
        assert_int_equal(result.stats.objects, 0);
        if (on_null_driver)
            assert_int_equal(atomic_load(&null_driver.alive), 0);
    }
}

static void test_again(void **state)
{
    for (unsigned i = 0; i < 20; i++)
        run(&sessions[i % session_count], false);
}

/* One byte wrong, and it is seen: the checks above look at something. */
static void test_checks_check(void **state)
{
    for (size_t i = 0; i < sessions[0].line_count; i++) {
        struct pv_replay_line *line = &sessions[0].lines[i];
        if (line->kind != PV_REPLAY_RING || strcmp(line->name, "vkCreateBuffer") != 0)
            continue;
        const struct pv_replay_params params = {
            .caps = &caps,
            .offer_dma_buf = true,
            .direct = true,
        };
        struct pv_replay_result result;
        line->data[24] ^= 1; /* sType */
        int ret = pv_replay_run(&sessions[0], &params, &result);
        line->data[24] ^= 1;
        assert_int_equal(ret, -5);
        if (!strstr(result.reason, "vkCreateBuffer: wrong sType"))
            fail_msg("the reason is: %s", result.reason);
        return;
    }
    fail_msg("no vkCreateBuffer in the recording");
}

static int choose_host(void)
{
    char error[256] = "";
    if (pv_host_probe(NULL, &caps, error, sizeof(error)) < 0) {
        printf("SKIP: %s\n", error);
        return SKIP;
    }
    device_index = pv_host_select(&caps, "llvmpipe", error, sizeof(error));
    if (device_index < 0) {
        printf("SKIP: no lavapipe, which the sessions were recorded on: "
               "apt install mesa-vulkan-drivers\n");
        return SKIP;
    }
    return 0;
}

int main(int argc, char **argv)
{
    char error[256];
    if (argc != 3 || pv_replay_load(argv[2], &sessions, &session_count, error, sizeof(error)) < 0) {
        fprintf(stderr, "%s\n", argc == 3 ? error : "usage: test_vectors null|host VECTORS");
        return 1;
    }
    on_null_driver = strcmp(argv[1], "null") == 0;
    if (on_null_driver) {
        null_driver_install();
        null_driver_caps(&caps);
    } else if (choose_host() != 0) {
        pv_replay_free(sessions, session_count);
        return SKIP;
    }
    const struct CMUnitTest on_both[] = {
        cmocka_unit_test(test_direct),
        cmocka_unit_test(test_ring),
        cmocka_unit_test(test_again),
    };
    const struct CMUnitTest on_null[] = {
        cmocka_unit_test(test_checks_check),
    };
    int failed = cmocka_run_group_tests(on_both, NULL, NULL);
    if (on_null_driver)
        failed += cmocka_run_group_tests(on_null, NULL, NULL);
    pv_replay_free(sessions, session_count);
    return failed;
}
