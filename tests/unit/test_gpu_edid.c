#include "gpu/edid.h"

#include "unit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const struct {
    uint32_t width, height, refresh_mhz;
} sizes[] = {
    {1280, 800, 60000},    {1920, 1080, 60000},    {1024, 768, 60000},  {800, 600, 60000},
    {640, 480, 60000},     {1366, 768, 60000},     {3840, 2160, 60000}, {3840, 2160, 144000},
    {4095, 4095, 60000},   {4096, 2160, 60000},    {5120, 2880, 60000}, {7680, 4320, 60000},
    {16384, 16384, 60000}, {1, 1, 60000},          {1, 16384, 60000},   {16384, 1, 60000},
    {2560, 1440, 165000},  {16384, 16384, 240000},
};
#define SIZE_COUNT (sizeof(sizes) / sizeof(sizes[0]))

static size_t build(size_t i, uint8_t *out)
{
    const struct pv_edid_params params = {
        .scanout = (uint32_t)i % 16,
        .width = sizes[i].width,
        .height = sizes[i].height,
        .refresh_mhz = sizes[i].refresh_mhz,
    };
    memset(out, 0xaa, PV_EDID_SIZE_MAX);
    return pv_edid_build(&params, out);
}

static void checksums_are_right(void **state)
{
    for (size_t i = 0; i < SIZE_COUNT; i++) {
        uint8_t edid[PV_EDID_SIZE_MAX];
        size_t size = build(i, edid);
        assert_true(size == 128 || size == 256);
        assert_int_equal(edid[126], size / 128 - 1);
        for (size_t block = 0; block < size; block += 128) {
            uint8_t sum = 0;
            for (size_t byte = 0; byte < 128; byte++)
                sum += edid[block + byte];
            assert_int_equal(sum, 0);
        }
    }
}

/* The preferred mode, from the base block or the DisplayID block. */
static void size_is_named(void **state)
{
    for (size_t i = 0; i < SIZE_COUNT; i++) {
        uint8_t edid[PV_EDID_SIZE_MAX];
        uint32_t width, height;
        if (build(i, edid) == 128) {
            width = edid[54 + 2] | (edid[54 + 4] & 0xf0u) << 4;
            height = edid[54 + 5] | (edid[54 + 7] & 0xf0u) << 4;
        } else {
            const uint8_t *block = edid + 128 + 5;
            while (block[0] != 3)
                block += 3 + block[2];
            width = (block[3 + 4] | block[3 + 5] << 8) + 1u;
            height = (block[3 + 12] | block[3 + 13] << 8) + 1u;
        }
        assert_int_equal(width, sizes[i].width);
        assert_int_equal(height, sizes[i].height);
    }
}

static void smaller_modes_are_listed(void **state)
{
    for (size_t i = 0; i < SIZE_COUNT; i++) {
        uint8_t edid[PV_EDID_SIZE_MAX];
        build(i, edid);
        assert_true(edid[35] & 0x01); /* 800x600 */
        assert_true(edid[36] & 0x08); /* 1024x768 */
    }
}

static void scanouts_have_names(void **state)
{
    for (size_t i = 0; i < 16; i++) {
        uint8_t edid[PV_EDID_SIZE_MAX];
        char name[32];
        build(i, edid);
        snprintf(name, sizeof(name), "PearVisor %zu\n", i + 1);
        assert_memory_equal(edid + 72 + 5, name, strlen(name));
        assert_int_equal(edid[12], i + 1);
    }
}

static void edid_decode_finds_nothing(void **state)
{
    if (system("command -v edid-decode >/dev/null") != 0)
        skip(); /* needs edid-decode */
    for (size_t i = 0; i < SIZE_COUNT; i++) {
        uint8_t edid[PV_EDID_SIZE_MAX];
        size_t size = build(i, edid);
        char path[] = "/tmp/pv-edid.XXXXXX", command[128];
        int fd = mkstemp(path);
        assert_true(fd >= 0);
        assert_int_equal(write(fd, edid, size), size);
        close(fd);
        snprintf(command, sizeof(command),
                 "edid-decode --check %s >%s.out 2>&1 || { cat %s.out; false; }", path, path, path);
        int result = system(command);
        snprintf(command, sizeof(command), "%s.out", path);
        unlink(command);
        unlink(path);
        assert_int_equal(result, 0);
    }
}

/* Three letters in the base block, five bits each, and as they are in a DisplayID block. */
static void vendor_is_named(void **state)
{
    uint8_t edid[PV_EDID_SIZE_MAX];
    for (size_t i = 0; i < SIZE_COUNT; i++) {
        size_t size = build(i, edid);
        assert_int_equal(edid[8] << 8 | edid[9], 16 << 10 | 5 << 5 | 1);
        if (size > 128)
            assert_memory_equal(edid + 128 + 5 + 3, "PEA", 3);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(checksums_are_right),       cmocka_unit_test(size_is_named),
        cmocka_unit_test(smaller_modes_are_listed),  cmocka_unit_test(scanouts_have_names),
        cmocka_unit_test(edid_decode_finds_nothing), cmocka_unit_test(vendor_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
