#include "venus/decoder.h"

#include "unit.h"
#include "venus/protocol.h"
#include "venus/structs.h"

#include <string.h>

static struct pv_objects *objects;
static struct pv_arena arena;
static struct pv_decoder dec;
static uint32_t words[4096];

static int create(void **state)
{
    return pv_objects_create(&objects);
}

static int destroy(void **state)
{
    pv_objects_destroy(objects);
    return 0;
}

static struct pv_decoder *begin(const uint32_t *data, size_t count)
{
    if (count > 0)
        memmove(words, data, 4 * count);
    pv_arena_reset(&arena);
    dec = (struct pv_decoder){
        .cur = (const uint8_t *)words,
        .end = (const uint8_t *)(words + count),
        .arena = &arena,
        .objects = objects,
    };
    return &dec;
}

#define BEGIN(...) \
    begin((const uint32_t[]){__VA_ARGS__}, sizeof((const uint32_t[]){__VA_ARGS__}) / 4)

/* It failed for this, and now everything reads as zero. */
static void check_error(const char *expected)
{
    uint8_t byte = 0x5a;
    if (!dec.error || strcmp(dec.error, expected) != 0)
        fail_msg("the error is '%s', not '%s'", dec.error ? dec.error : "(none)", expected);
    assert_int_equal(pv_decoder_left(&dec), 0);
    assert_int_equal(pv_decode_u32(&dec), 0);
    assert_int_equal(pv_decode_u64(&dec), 0);
    assert_true(pv_decode_float(&dec) == 0.0f && pv_decode_double(&dec) == 0.0);
    assert_false(pv_decode_pointer(&dec, true));
    assert_int_equal(pv_decode_count(&dec, 3, false), 0);
    assert_null(pv_decode_string(&dec, true));
    assert_null(pv_decode_room(&dec, 1, 1, 0));
    assert_null(pv_decode_object(&dec, VK_OBJECT_TYPE_BUFFER, true));
    pv_decode_bytes(&dec, &byte, 1);
    assert_int_equal(byte, 0x5a);
    assert_string_equal(dec.error, expected); /* the first one stays */
}

static void test_values(void **state)
{
    BEGIN(7, 1, 2, 0x3f800000, 0, 0x40000000, 0x64636261, 0x65);
    assert_int_equal(pv_decode_u32(&dec), 7);
    assert_int_equal(pv_decode_u64(&dec), 0x200000001ull);
    assert_true(pv_decode_float(&dec) == 1.0f);
    assert_true(pv_decode_double(&dec) == 2.0);
    char text[5];
    pv_decode_bytes(&dec, text, 5);
    assert_memory_equal(text, "abcde", 5);
    assert_int_equal(pv_decoder_left(&dec), 0);
    assert_null(dec.error);
}

static void test_cut_short(void **state)
{
    uint8_t out[16];
    BEGIN(1);
    pv_decode_u64(&dec);
    check_error("command is cut short");
    begin(NULL, 0);
    pv_decode_u32(&dec);
    check_error("command is cut short");
    BEGIN(1, 2);
    pv_decode_bytes(&dec, out, 9);
    check_error("command is cut short");
    BEGIN(1, 2);
    pv_decode_bytes(&dec, out, SIZE_MAX);
    check_error("command is cut short");
    BEGIN(1, 2);
    pv_decode_bytes(&dec, out, SIZE_MAX - 3);
    check_error("command is cut short");
}

static void test_pointers(void **state)
{
    BEGIN(1, 0, 0, 0);
    assert_true(pv_decode_pointer(&dec, true));
    assert_false(pv_decode_pointer(&dec, false));
    assert_null(dec.error);
    BEGIN(2, 0);
    pv_decode_pointer(&dec, false);
    check_error("pointer flag is neither 0 nor 1");
    BEGIN(1, 1);
    pv_decode_pointer(&dec, false);
    check_error("pointer flag is neither 0 nor 1");
    BEGIN(0, 0);
    pv_decode_pointer(&dec, true);
    check_error("pointer must not be null");
    BEGIN(0, 1);
    pv_decode_null(&dec);
    check_error("pointer that has no wire form must be null");
}

static void test_counts(void **state)
{
    BEGIN(3, 0, 0, 0, 8, 0);
    assert_int_equal(pv_decode_count(&dec, 3, false), 3);
    assert_int_equal(pv_decode_count(&dec, 3, true), 0);
    pv_decode_fixed_count(&dec, 8);
    assert_null(dec.error);
    BEGIN(2, 0);
    pv_decode_count(&dec, 3, true);
    check_error("array count differs from the length given before");
    BEGIN(0, 0);
    pv_decode_count(&dec, 3, false);
    check_error("array count differs from the length given before");
    BEGIN(3, 1);
    pv_decode_count(&dec, 3, false);
    check_error("array count differs from the length given before");
    BEGIN(7, 0);
    pv_decode_fixed_count(&dec, 8);
    check_error("fixed array has the wrong count");
}

static void test_room(void **state)
{
    BEGIN(1, 2);
    assert_null(pv_decode_room(&dec, 0, 4, 4));
    assert_null(dec.error);
    assert_non_null(pv_decode_room(&dec, 2, 100, 4));
    pv_decode_room(&dec, 3, 100, 4);
    check_error("array is longer than the command");
    BEGIN(1, 2);
    pv_decode_room(&dec, UINT64_MAX, 1, 1);
    check_error("array is longer than the command");
    BEGIN(1, 2);
    pv_decode_room(&dec, UINT64_MAX, 16, 0);
    check_error("command asks for too much memory, in elements");
    BEGIN(1, 2);
    pv_decode_room(&dec, (1ull << 60) + 1, 16, 0); /* wraps to 16 bytes */
    check_error("command asks for too much memory, in elements");
    BEGIN(1, 2);
    assert_non_null(pv_decode_room(&dec, 1, 1024, 0));
    pv_decode_room(&dec, PV_ARENA_MAX, 1, 0);
    check_error("no memory for the command, in bytes");
}

static void test_strings(void **state)
{
    BEGIN(4, 0, 0x00636261);
    assert_string_equal(pv_decode_string(&dec, true), "abc");
    BEGIN(0, 0);
    assert_null(pv_decode_string(&dec, false));
    assert_null(dec.error);
    BEGIN(0, 0);
    pv_decode_string(&dec, true);
    check_error("string must not be null");
    BEGIN(4, 0, 0x64636261);
    pv_decode_string(&dec, true);
    check_error("string is not terminated");
    BEGIN(5, 0, 0x00636261);
    pv_decode_string(&dec, true);
    check_error("array is longer than the command");
    BEGIN(3, 0, 0x64636261); /* the end is in the padding */
    pv_decode_string(&dec, true);
    check_error("string is not terminated");
    BEGIN(0xffffffff, 0xffffffff, 0);
    pv_decode_string(&dec, true);
    check_error("array is longer than the command");
}

/* ---- objects ----------------------------------------------------------------------------------
 */

static struct pv_object *add(uint64_t id, VkObjectType type, struct pv_object *parent,
                             uint64_t handle)
{
    const char *why;
    struct pv_object *object = pv_objects_add(objects, id, type, parent, &why);
    assert_non_null(object);
    pv_object_publish(object, handle);
    return object;
}

static void test_objects(void **state)
{
    struct pv_object *device = add(1, VK_OBJECT_TYPE_DEVICE, NULL, 0x10);
    struct pv_object *other = add(2, VK_OBJECT_TYPE_DEVICE, NULL, 0x20);
    struct pv_object *buffer = add(3, VK_OBJECT_TYPE_BUFFER, device, 0x30);
    struct pv_object *failed = add(4, VK_OBJECT_TYPE_BUFFER, device, 0);
    struct pv_object *pool = add(6, VK_OBJECT_TYPE_COMMAND_POOL, device, 0x60);
    add(5, VK_OBJECT_TYPE_BUFFER, other, 0x50);

    BEGIN(1, 0, 3, 0, 0, 0, 6, 0);
    assert_ptr_equal(pv_decode_object(&dec, VK_OBJECT_TYPE_DEVICE, true), device);
    assert_int_equal(pv_decode_handle(&dec, VK_OBJECT_TYPE_BUFFER, true), 0x30);
    assert_null(pv_decode_object(&dec, VK_OBJECT_TYPE_BUFFER, false));
    assert_null(dec.pool);
    assert_ptr_equal(pv_decode_object(&dec, VK_OBJECT_TYPE_COMMAND_POOL, true), pool);
    assert_ptr_equal(dec.pool, pool);
    assert_null(dec.error);
    assert_false(dec.dropped);

    BEGIN(3, 0, 5, 0); /* the first handle says which device it is */
    assert_ptr_equal(pv_decode_object(&dec, VK_OBJECT_TYPE_BUFFER, true), buffer);
    pv_decode_object(&dec, VK_OBJECT_TYPE_BUFFER, true);
    check_error("object belongs to another device, id");
    BEGIN(1, 0, 5, 0);
    pv_decode_object(&dec, VK_OBJECT_TYPE_DEVICE, true);
    pv_decode_handle(&dec, VK_OBJECT_TYPE_BUFFER, false);
    check_error("object belongs to another device, id");
    BEGIN(0, 0);
    pv_decode_object(&dec, VK_OBJECT_TYPE_BUFFER, true);
    check_error("object must not be null");
    BEGIN(99, 0);
    pv_decode_object(&dec, VK_OBJECT_TYPE_BUFFER, true);
    check_error("unknown object id");
    BEGIN(3, 1); /* all 64 bits count */
    pv_decode_object(&dec, VK_OBJECT_TYPE_BUFFER, true);
    check_error("unknown object id");
    BEGIN(3, 0);
    pv_decode_object(&dec, VK_OBJECT_TYPE_IMAGE, true);
    check_error("object is of another type, id");
    assert_int_equal(dec.error_value, 3);
    BEGIN(3, 0);
    pv_decode_doomed(&dec, VK_OBJECT_TYPE_IMAGE, false);
    check_error("object is of another type, id");

    BEGIN(4, 0); /* the driver could not make it: the command is dropped, not the guest */
    assert_ptr_equal(pv_decode_object(&dec, VK_OBJECT_TYPE_BUFFER, true), failed);
    assert_true(dec.dropped);
    assert_null(dec.error);
    BEGIN(4, 0);
    assert_ptr_equal(pv_decode_doomed(&dec, VK_OBJECT_TYPE_BUFFER, true), failed);
    assert_false(dec.dropped); /* but it can be destroyed */
}

/* ---- chains -----------------------------------------------------------------------------------
 */

#define HEAD VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2
#define F11  VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_1_FEATURES
#define F12  VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_FEATURES

static void test_chain(void **state)
{
    VkPhysicalDeviceFeatures2 head;
    BEGIN(HEAD, 1, 0, F12, 1, 0, F11, 0, 0);
    pv_dec_room_VkPhysicalDeviceFeatures2(&dec, &head);
    assert_null(dec.error);
    assert_int_equal(dec.depth, 0);
    assert_int_equal(pv_decoder_left(&dec), 0);
    const VkBaseInStructure *first = head.pNext;
    assert_int_equal(head.sType, HEAD);
    assert_int_equal(first->sType, F12);
    assert_int_equal(first->pNext->sType, F11);
    assert_null(first->pNext->pNext);
    assert_int_equal(((const VkPhysicalDeviceVulkan12Features *)first)->drawIndirectCount, 0);
}

/* Bodies follow from last to first. */
static void test_chain_bodies(void **state)
{
    VkMemoryAllocateInfo info;
    BEGIN(VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO, 1, 0,
          VK_STRUCTURE_TYPE_EXPORT_MEMORY_ALLOCATE_INFO, 1, 0,
          VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_FLAGS_INFO, 0, 0, 5, 6, 0x200, 4096, 0, 3);
    pv_dec_VkMemoryAllocateInfo(&dec, &info);
    assert_null(dec.error);
    assert_int_equal(pv_decoder_left(&dec), 0);
    const VkExportMemoryAllocateInfo *export = info.pNext;
    const VkMemoryAllocateFlagsInfo *flags = export->pNext;
    assert_int_equal(export->handleTypes, 0x200);
    assert_int_equal(flags->flags, 5);
    assert_int_equal(flags->deviceMask, 6);
    assert_int_equal(info.allocationSize, 4096);
    assert_int_equal(info.memoryTypeIndex, 3);
}

static void test_chain_errors(void **state)
{
    VkPhysicalDeviceFeatures2 head;
    BEGIN(F11, 0, 0);
    pv_dec_room_VkPhysicalDeviceFeatures2(&dec, &head);
    check_error("wrong sType");
    BEGIN(HEAD, 1, 0, VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO, 0, 0);
    pv_dec_room_VkPhysicalDeviceFeatures2(&dec, &head);
    check_error("struct may not be in this pNext chain, sType");
    BEGIN(HEAD, 1, 0, 0xffffffff, 0, 0);
    pv_dec_room_VkPhysicalDeviceFeatures2(&dec, &head);
    check_error("struct may not be in this pNext chain, sType");
    BEGIN(HEAD, 1, 0, F11);
    pv_dec_room_VkPhysicalDeviceFeatures2(&dec, &head);
    check_error("command is cut short");
    BEGIN(HEAD, 3, 0, F11, 0, 0);
    pv_dec_room_VkPhysicalDeviceFeatures2(&dec, &head);
    check_error("pointer flag is neither 0 nor 1");
}

static void test_chain_too_long(void **state)
{
    VkPhysicalDeviceFeatures2 head;
    uint32_t data[1 + 3 * (PV_CHAIN_MAX + 1) + 2] = {HEAD};
    for (unsigned extra = 0; extra < 2; extra++) {
        unsigned count = PV_CHAIN_MAX + extra, n = 1;
        for (unsigned i = 0; i < count; i++) {
            data[n++] = 1;
            data[n++] = 0;
            data[n++] = F11;
        }
        data[n++] = 0;
        data[n++] = 0;
        begin(data, n);
        pv_dec_room_VkPhysicalDeviceFeatures2(&dec, &head);
        if (extra)
            check_error("pNext chain is too long");
        else
            assert_null(dec.error);
    }
}

static void decode_itself(struct pv_decoder *d, void *out);
static const struct pv_chain_entry itself_entries[] = {
    {77, sizeof(VkBaseOutStructure), decode_itself, decode_itself},
};
static const struct pv_chain itself = {itself_entries, 1};

/* A struct whose member is a struct of the same kind, with a chain. */
static void decode_itself(struct pv_decoder *d, void *out)
{
    VkBaseOutStructure inner;
    pv_decode_head(d, 77, &itself, false, &inner);
}

static void test_too_deep(void **state)
{
    VkBaseOutStructure head;
    uint32_t data[6 * 200];
    for (unsigned i = 0; i < 200; i++) {
        const uint32_t level[6] = {77, 1, 0, 77, 0, 0};
        memcpy(&data[6 * i], level, sizeof(level));
    }
    begin(data, 6 * 200);
    pv_decode_head(&dec, 77, &itself, false, &head);
    check_error("structs nest too deep");
}

static void test_union(void **state)
{
    VkAccelerationStructureGeometryDataKHR data;
    VkClearColorValue color;
    BEGIN(2, 4, 0, 10, 11, 12, 13);
    pv_dec_union_VkClearColorValue(&dec, &color, 0);
    assert_null(dec.error);
    assert_int_equal(color.uint32[3], 13);
    BEGIN(9, 4, 0, 10, 11, 12, 13);
    pv_dec_union_VkClearColorValue(&dec, &color, 0);
    check_error("union has no member with this tag");
    BEGIN(2, 3, 0, 10, 11, 12, 13);
    pv_dec_union_VkClearColorValue(&dec, &color, 0);
    check_error("fixed array has the wrong count");
    BEGIN(VK_GEOMETRY_TYPE_AABBS_KHR);
    pv_dec_union_VkAccelerationStructureGeometryDataKHR(&dec, &data,
                                                        VK_GEOMETRY_TYPE_INSTANCES_KHR);
    check_error("union tag differs from its selector");
    BEGIN(55);
    pv_dec_union_VkAccelerationStructureGeometryDataKHR(&dec, &data, 55);
    check_error("union has no member with this tag");
}

/* Lengths that vk.xml gives as an expression. */
static void test_expressions(void **state)
{
    VkShaderModuleCreateInfo info;
    BEGIN(VK_STRUCTURE_TYPE_SHADER_MODULE_CREATE_INFO, 0, 0, 0, 8, 0, 2, 0, 0xaa, 0xbb);
    pv_dec_VkShaderModuleCreateInfo(&dec, &info);
    assert_null(dec.error);
    assert_int_equal(info.pCode[1], 0xbb);
    BEGIN(VK_STRUCTURE_TYPE_SHADER_MODULE_CREATE_INFO, 0, 0, 0, 9, 0, 2, 0, 0xaa, 0xbb);
    pv_dec_VkShaderModuleCreateInfo(&dec, &info);
    check_error("codeSize is not a multiple of 4");
    BEGIN(VK_STRUCTURE_TYPE_SHADER_MODULE_CREATE_INFO, 0, 0, 0, 0xfffffffc, 0xffffffff, 0xffffffff,
          0x3fffffff, 0xaa);
    pv_dec_VkShaderModuleCreateInfo(&dec, &info);
    check_error("array is longer than the command");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_cut_short),
        cmocka_unit_test(test_pointers),
        cmocka_unit_test(test_counts),
        cmocka_unit_test(test_room),
        cmocka_unit_test(test_strings),
        cmocka_unit_test_setup_teardown(test_objects, create, destroy),
        cmocka_unit_test(test_chain),
        cmocka_unit_test(test_chain_bodies),
        cmocka_unit_test(test_chain_errors),
        cmocka_unit_test(test_chain_too_long),
        cmocka_unit_test(test_too_deep),
        cmocka_unit_test(test_union),
        cmocka_unit_test(test_expressions),
    };
    pv_arena_init(&arena);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    pv_arena_finish(&arena);
    return failed;
}
