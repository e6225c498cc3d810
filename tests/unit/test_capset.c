#include "venus/capset.h"

#include "unit.h"
#include "venus/protocol.h"

#include <string.h>

static uint32_t words[PV_CAPSET_VENUS_SIZE / 4];

static int fill(void **state)
{
    uint8_t bytes[PV_CAPSET_VENUS_SIZE + 8];
    memset(bytes, 0xee, sizeof(bytes));
    pv_capset_fill(bytes, false);
    memcpy(words, bytes, sizeof(words));
    for (unsigned i = 0; i < 8; i++) {
        if (bytes[PV_CAPSET_VENUS_SIZE + i] != 0xee)
            return -1;
    }
    return 0;
}

/* Words 5 to 36 of the newest protocol: one bit per extension number, bit 0 says that it is valid.
 */
static const uint32_t newest_mask[32] = {
    0x2001c001, 0x30402000, 0x005f6bef, 0xc25660c0, 0xf0bb6919, 0xa2658e0c, 0x41310562,
    0xf0e47a0f, 0x9625b474, 0x0800054d, 0x30b70a5a, 0xc6000233, 0x5002073b, 0x000800ca,
    0x008d0150, 0x08198004, 0x00c2e001, 0x01288007, 0x20000090, 0x00000020, 0x00000008,
};

static void test_words(void **state)
{
    assert_int_equal(words[0], 1); /* wire format */
    assert_int_equal(words[1], PV_PROTOCOL_VK_XML_VERSION);
    assert_int_equal(words[2], 1);  /* VK_EXT_command_serialization */
    assert_int_equal(words[3], 4);  /* VK_MESA_venus_protocol */
    assert_int_equal(words[4], 1);  /* blob_id 0 */
    assert_int_equal(words[37], 1); /* waits may block */
    assert_int_equal(words[38], 1); /* several timelines */
    assert_int_equal(words[39], 0); /* guest memory */
}

static void test_guest_vram(void **state)
{
    uint8_t with[PV_CAPSET_VENUS_SIZE], without[PV_CAPSET_VENUS_SIZE];
    pv_capset_fill(with, true);
    pv_capset_fill(without, false);
    assert_memory_equal(with, without, 39 * 4); /* the last word tells */
    assert_int_equal(with[39 * 4], 1);
    assert_int_equal(without[39 * 4], 0);
}

static void test_extensions(void **state)
{
    for (unsigned i = 0; i < 32; i++) {
        if (PV_PROTOCOL_VK_XML_VERSION >= VK_MAKE_API_VERSION(0, 1, 4, 343))
            assert_int_equal(words[5 + i], newest_mask[i]);
        else
            assert_int_equal(words[5 + i] & ~newest_mask[i], 0);
    }
    assert_int_equal(words[5] & 1, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_words),
        cmocka_unit_test(test_guest_vram),
        cmocka_unit_test(test_extensions),
    };
    return cmocka_run_group_tests(tests, fill, NULL);
}
