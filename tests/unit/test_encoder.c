#include "venus/encoder.h"

#include "unit.h"
#include "venus/structs.h"

#include <string.h>

#define ENCODER(buffer) ((struct pv_encoder){.cur = (buffer), .end = (buffer) + sizeof(buffer)})

static void test_values(void **state)
{
    uint8_t buffer[28];
    struct pv_encoder enc = ENCODER(buffer);
    const uint8_t expected[28] = {4,    3,    2, 1, 8, 7, 6, 5, 4, 3,    2, 1, 0, 0,
                                  0x80, 0x3f, 0, 0, 0, 0, 0, 0, 0, 0xc0, 1, 2, 3, 0};
    memset(buffer, 0xee, sizeof(buffer));
    pv_encode_u32(&enc, 0x01020304);
    pv_encode_u64(&enc, 0x0102030405060708ull);
    pv_encode_float(&enc, 1.0f);
    pv_encode_double(&enc, -2.0);
    pv_encode_bytes(&enc, (const uint8_t[]){1, 2, 3}, 3);
    assert_false(enc.overflow);
    assert_ptr_equal(enc.cur, enc.end);
    assert_memory_equal(buffer, expected, sizeof(expected));
}

/* Whatever does not fit leaves the memory behind the stream alone and is noted. */
static void test_overflow(void **state)
{
    for (size_t room = 0; room < 12; room++) {
        uint8_t buffer[32];
        memset(buffer, 0xee, sizeof(buffer));
        struct pv_encoder enc = {.cur = buffer, .end = buffer + room};
        pv_encode_u64(&enc, 0);
        pv_encode_bytes(&enc, "abc", 3);
        assert_true(enc.overflow);
        for (size_t i = room; i < sizeof(buffer); i++)
            assert_int_equal(buffer[i], 0xee);
        assert_in_range(enc.cur - buffer, 0, room);
    }
    uint8_t exact[12];
    struct pv_encoder enc = ENCODER(exact);
    pv_encode_u64(&enc, 0);
    pv_encode_bytes(&enc, "abc", 3);
    assert_false(enc.overflow);
}

static void test_absurd_sizes(void **state)
{
    uint8_t buffer[8] = {0};
    const size_t sizes[] = {SIZE_MAX, SIZE_MAX - 2, SIZE_MAX / 2, 9};
    for (unsigned i = 0; i < 4; i++) {
        struct pv_encoder enc = ENCODER(buffer);
        pv_encode_bytes(&enc, buffer, sizes[i]);
        assert_true(enc.overflow);
        assert_ptr_equal(enc.cur, buffer);
    }
    struct pv_encoder enc = ENCODER(buffer);
    pv_encode_bytes(&enc, NULL, 0);
    assert_false(enc.overflow);
}

static void test_no_stream(void **state)
{
    struct pv_encoder enc = {0};
    pv_encode_u32(&enc, 1);
    assert_true(enc.overflow);
}

/* sTypes from first to last, bodies from last to first; what the table does not have is left out.
 */
static void test_chain(void **state)
{
    VkPhysicalDeviceMaintenance3Properties third = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MAINTENANCE_3_PROPERTIES,
        .maxPerSetDescriptors = 33,
        .maxMemoryAllocationSize = 44,
    };
    VkBaseOutStructure unknown = {.sType = (VkStructureType)0x7ffffff0, .pNext = (void *)&third};
    VkPhysicalDevicePointClippingProperties first = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_POINT_CLIPPING_PROPERTIES,
        .pNext = &unknown,
        .pointClippingBehavior = 1,
    };
    VkPhysicalDeviceProperties2 head = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2,
        .pNext = &first,
    };
    uint8_t buffer[2048];
    uint32_t words[16];
    struct pv_encoder enc = ENCODER(buffer);
    pv_enc_VkPhysicalDeviceProperties2(&enc, &head);
    assert_false(enc.overflow);
    memcpy(words, buffer, sizeof(words));
    const uint32_t expected[] = {
        VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2,
        1,
        0,
        VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_POINT_CLIPPING_PROPERTIES,
        1,
        0,
        VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MAINTENANCE_3_PROPERTIES,
        0,
        0,
        33,
        44,
        0,
        1,
    };
    assert_memory_equal(words, expected, sizeof(expected));
    assert_int_equal(enc.cur - buffer, sizeof(expected) + 868);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values),       cmocka_unit_test(test_overflow),
        cmocka_unit_test(test_absurd_sizes), cmocka_unit_test(test_no_stream),
        cmocka_unit_test(test_chain),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
