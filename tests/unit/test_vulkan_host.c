/* Choosing a device, and the probe on whatever driver is here (lavapipe in CI). */
#include "vulkan/host.h"

#include "unit.h"
#include "util/os.h"
#include "vulkan_fixture.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static struct pv_host_caps three_devices(void)
{
    struct pv_host_caps caps = {.device_count = 3};
    const VkPhysicalDeviceType types[] = {VK_PHYSICAL_DEVICE_TYPE_CPU,
                                          VK_PHYSICAL_DEVICE_TYPE_DISCRETE_GPU,
                                          VK_PHYSICAL_DEVICE_TYPE_INTEGRATED_GPU};
    const char *const names[] = {"llvmpipe (LLVM 15)", "NVIDIA H200", "Intel Arc"};
    for (uint32_t i = 0; i < 3; i++) {
        caps.devices[i].usable = true;
        caps.devices[i].type = types[i];
        snprintf(caps.devices[i].name, sizeof(caps.devices[i].name), "%s", names[i]);
        memset(caps.devices[i].uuid, (int)(0x10 * (i + 1)), VK_UUID_SIZE);
    }
    return caps;
}

static void select_prefers_a_gpu(void **state)
{
    struct pv_host_caps caps = three_devices();
    assert_int_equal(pv_host_select(&caps, NULL, NULL, 0), 1);
    assert_int_equal(pv_host_select(&caps, "", NULL, 0), 1);
    caps.devices[1].usable = false;
    assert_int_equal(pv_host_select(&caps, NULL, NULL, 0), 2);
}

static void select_by_index_name_uuid(void **state)
{
    struct pv_host_caps caps = three_devices();
    assert_int_equal(pv_host_select(&caps, "0", NULL, 0), 0);
    assert_int_equal(pv_host_select(&caps, "2", NULL, 0), 2);
    assert_int_equal(pv_host_select(&caps, "nvidia", NULL, 0), 1);
    assert_int_equal(pv_host_select(&caps, "h200", NULL, 0), 1);
    assert_int_equal(pv_host_select(&caps, "30303030303030303030303030303030", NULL, 0), 2);
    assert_int_equal(pv_host_select(&caps, "10101010-1010-1010-1010-101010101010", NULL, 0), 0);
}

static void select_says_what_there_is(void **state)
{
    struct pv_host_caps caps = three_devices();
    char error[512];
    assert_int_equal(pv_host_select(&caps, "radeon", error, sizeof(error)), -ENOENT);
    assert_non_null(strstr(error, "radeon"));
    assert_non_null(strstr(error, "NVIDIA H200"));
    assert_int_equal(pv_host_select(&caps, "3", error, sizeof(error)), -ENOENT);
    assert_int_equal(pv_host_select(&caps, "-1", error, sizeof(error)), -ENOENT);

    caps.devices[1].usable = false;
    snprintf(caps.devices[1].why_not, sizeof(caps.devices[1].why_not), "is broken");
    assert_int_equal(pv_host_select(&caps, "nvidia", error, sizeof(error)), -ENOENT);
    assert_non_null(strstr(error, "is broken"));

    struct pv_host_caps none = {0};
    assert_int_equal(pv_host_select(&none, NULL, error, sizeof(error)), -ENOENT);
    char tiny[8]; /* cut, not overrun */
    assert_int_equal(pv_host_select(&caps, "radeon", tiny, sizeof(tiny)), -ENOENT);
    assert_true(strlen(tiny) < sizeof(tiny));
}

static void probe_finds_a_usable_device(void **state)
{
    static struct pv_host_caps caps;
    uint64_t start = pv_now_ns();
    assert_int_equal(pv_host_probe(NULL, &caps, NULL, 0), 0);
    printf("probe: %.1f ms\n", (double)(pv_now_ns() - start) / 1e6);
    int index = pv_host_select(&caps, NULL, NULL, 0);
    assert_true(index >= 0);

    const struct pv_device_caps *device = &caps.devices[index];
    assert_true(device->api_version >= VK_API_VERSION_1_1);
    assert_true(strlen(device->name) > 0);
    bool mappable = false;
    for (uint32_t i = 0; i < device->memory_type_count; i++) {
        mappable |= device->memory_types[i].tier != PV_MEMORY_TIER_NONE;
        assert_true(strlen(device->memory_types[i].why) > 0);
    }
    assert_true(mappable);
}

static void instance_shows_only_what_is_chosen(void **state)
{
    static struct pv_host_caps caps;
    assert_int_equal(pv_host_probe(NULL, &caps, NULL, 0), 0);
    struct pv_instance *instance;
    struct pv_instance_params params = {.caps = &caps, .device_index = -1};
    assert_int_equal(pv_instance_create(&params, &instance), VK_SUCCESS);
    assert_in_range(instance->physical_count, 1, caps.device_count);
    pv_instance_destroy(instance);

    caps.devices[0].name[0] ^= 1; /* gone since the probe */
    params.device_index = 0;
    assert_int_equal(pv_instance_create(&params, &instance), VK_ERROR_INITIALIZATION_FAILED);
}

/* The core commands of a device's version are there, though the loader may be of an older one. */
static void devices_have_the_commands_of_their_version(void **state)
{
    struct fixture *fixture = fixture_create(PV_MEMORY_TIER_NONE, false);
    assert_non_null(fixture);
    if (fixture->physical->caps->api_version >= VK_API_VERSION_1_3)
        assert_non_null(fixture->device->vk.CmdPipelineBarrier2);
    if (fixture->physical->caps->api_version >= VK_API_VERSION_1_4)
        assert_non_null(fixture->device->vk.CmdPushDescriptorSet);
    fixture_destroy(fixture);
}

int main(void)
{
    fixture_need_driver();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(select_prefers_a_gpu),
        cmocka_unit_test(select_by_index_name_uuid),
        cmocka_unit_test(select_says_what_there_is),
        cmocka_unit_test(probe_finds_a_usable_device),
        cmocka_unit_test(instance_shows_only_what_is_chosen),
        cmocka_unit_test(devices_have_the_commands_of_their_version),
    };
    return cmocka_run_group_tests_name("host", tests, NULL, NULL);
}
