/* Recorded sessions of Mesa's driver through the link to a worker, with all memory in an arena:
 * what a virtual GPU does, without the guest and its kernel.
 *
 *   test_link_vectors null VECTORS     on the null driver
 *   test_link_vectors host VECTORS     on this machine's lavapipe: every VkResult is the recorded
 * one
 */
#include "link_context.h"
#include "null/null_driver.h"
#include "transport/replay/replay.h"
#include "unit/unit.h"
#include "venus/protocol.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SKIP       77
#define FIRST_BLOB 0x20000u /* the recordings and their player have others */
#define BLOBS_MAX  64

static struct pv_replay_session *sessions;
static size_t session_count;
static struct pv_host_caps caps;
static int device_index;
static bool on_null_driver;

static uint64_t read_word(const struct pv_replay_line *line, size_t offset, size_t size)
{
    uint64_t value = 0;
    assert_true(offset + size <= line->size);
    memcpy(&value, line->data + offset, size);
    return value;
}

static uint32_t command_of(const struct pv_replay_line *line)
{
    return line->size >= 8 ? (uint32_t)read_word(line, 0, 4) : UINT32_MAX;
}

/* ---- recordings are of a guest without an arena: make them those of one with ---- */

/* vkAllocateMemory: command, flags, device, pointer, sType; the chain; size, type, allocator,
 * pointer, id. */
#define CHAIN_AT   28
#define FIELDS_END 36 /* from the end */

/* Put VkImportMemoryResourceInfoMESA in front of the chain. Returns the bytes that came to it. */
static uint32_t import_resource(struct pv_replay_line *line, uint32_t res_id)
{
    const uint64_t one = 1;
    const uint32_t stype = (uint32_t)VK_STRUCTURE_TYPE_IMPORT_MEMORY_RESOURCE_INFO_MESA;
    size_t chain_size = line->size - FIELDS_END - CHAIN_AT;
    uint8_t *data = malloc(line->size + 16), *to = data;
    assert_non_null(data);
    memcpy(to, line->data, CHAIN_AT);
    memcpy(to += CHAIN_AT, &one, 8);
    memcpy(to += 8, &stype, 4);
    memcpy(to += 4, line->data + CHAIN_AT, chain_size);
    memcpy(to += chain_size, &res_id, 4);
    memcpy(to + 4, line->data + line->size - FIELDS_END, FIELDS_END);
    free(line->data);
    line->data = data;
    line->size += 16;
    return 16;
}

/* Commands of the context stream name positions of the ring; those behind `from` have moved. */
static void move_positions(struct pv_replay_session *session, uint32_t from, uint32_t by)
{
    for (size_t i = 0; i < session->line_count; i++) {
        struct pv_replay_line *line = &session->lines[i];
        if (line->kind != PV_REPLAY_CONTEXT)
            continue;
        uint32_t type = command_of(line);
        if (type != PV_COMMAND_vkWaitRingSeqnoMESA && type != PV_COMMAND_vkNotifyRingMESA)
            continue;
        uint32_t position = (uint32_t)read_word(line, 16, 4);
        position += position >= from ? by : 0;
        memcpy(line->data + 16, &position, 4);
    }
}

static unsigned use_arena(struct pv_replay_session *session, struct link_blob *blobs)
{
    unsigned count = 0;
    uint32_t written = 0;
    for (size_t i = 0; i < session->line_count; i++) {
        struct pv_replay_line *line = &session->lines[i];
        if (line->kind != PV_REPLAY_RING)
            continue;
        written += (uint32_t)line->size;
        if (command_of(line) != PV_COMMAND_vkAllocateMemory)
            continue;
        assert_true(count < BLOBS_MAX);
        struct link_blob *blob = &blobs[count];
        blob->res_id = FIRST_BLOB + count++;
        blob->size = read_word(line, line->size - FIELDS_END, 8);
        blob->blob_id = read_word(line, line->size - 8, 8);
        uint32_t more = import_resource(line, blob->res_id);
        move_positions(session, written, more);
        written += more;
    }
    return count;
}

/* ---- playing ---- */

static unsigned replies;

/* Those that have a VkResult, and the same one everywhere. */
static bool has_result(const char *name)
{
    return strncmp(name, "vkCreate", 8) == 0 || strncmp(name, "vkBind", 6) == 0 ||
           strncmp(name, "vkAllocate", 10) == 0 || strncmp(name, "vkQueue", 7) == 0;
}

static void check_reply(void *data, const struct pv_replay_session *session, size_t index,
                        const uint8_t *bytes, size_t size)
{
    const struct pv_replay_line *line = &session->lines[index];
    const struct pv_replay_line *recorded = &session->lines[index + 1];
    assert_int_equal(size, 8);
    assert_memory_equal(bytes, line->data, 4); /* the command's type */
    if (recorded->data && has_result(line->name))
        assert_memory_equal(bytes + 4, recorded->data + 4, 4);
    replies++;
}

static void test_sessions(void **state)
{
    for (size_t i = 0; i < session_count; i++) {
        struct link_blob blobs[BLOBS_MAX];
        unsigned blob_count = use_arena(&sessions[i], blobs);
        const struct pv_replay_params params = {
            .caps = &caps,
            .device_index = device_index,
            .reply = check_reply,
        };
        struct pv_replay_result result;
        replies = 0;
        link_context_expect(blobs, blob_count);
        int ret = pv_replay_run(&sessions[i], &params, &result);
        if (ret != 0)
            fail_msg("session %s: %d after %zu commands: %s", sessions[i].name, ret,
                     result.commands, result.reason);
        printf("session %s: %zu commands, %u replies, %zu fences, %u blobs, %u of them written\n",
               sessions[i].name, result.commands, replies, result.fences, blob_count,
               link_seen.written);
        assert_true(blob_count > 0);
        assert_true(replies > 10);
        assert_int_equal(link_seen.result, 0);
        assert_int_equal(link_seen.rings, 1);
        assert_int_equal(link_seen.rings_alive, 0);
        /* the session has destroyed its instance, so that nothing is in use, but for the replies of
         * the context stream */
        assert_in_range(link_seen.forgotten, link_seen.resources - 1, link_seen.resources);
        if (!on_null_driver)
            assert_true(link_seen.written > 0); /* by the GPU: the player maps none of them */
        else
            assert_int_equal(atomic_load(&null_driver.alive), 0);
    }
}

static int choose_host(void)
{
    char error[256] = "";
    if (pv_host_probe(NULL, &caps, error, sizeof(error)) == 0)
        device_index = pv_host_select(&caps, "llvmpipe", error, sizeof(error));
    else
        device_index = -1;
    if (device_index < 0)
        printf("SKIP: no lavapipe, which the sessions were recorded on: "
               "apt install mesa-vulkan-drivers\n");
    return device_index < 0 ? SKIP : 0;
}

int main(int argc, char **argv)
{
    char error[256];
    if (argc != 3 || pv_replay_load(argv[2], &sessions, &session_count, error, sizeof(error)) < 0) {
        fprintf(stderr, "%s\n", argc == 3 ? error : "usage: test_link_vectors null|host VECTORS");
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
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sessions),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    pv_replay_free(sessions, session_count);
    return failed;
}
