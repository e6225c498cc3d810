#include "unit.h"

#include "vm/accel.h"

#include <errno.h>
#include <string.h>

static const struct pv_kvm_facts good = {
    .host_is_linux = true, .arch_matches = true, .cpu_flag = true};

/* Not usable, for a reason that names `word`. */
static void check_refused(struct pv_kvm_facts facts, const char *word)
{
    char why[256];
    assert_false(pv_kvm_usable(&facts, why, sizeof(why)));
    if (!strstr(why, word))
        fail_msg("\"%s\" does not say \"%s\"", why, word);
}

static void test_kvm(void **state)
{
    char why[256];
    struct pv_kvm_facts facts = good;
    assert_true(pv_kvm_usable(&facts, why, sizeof(why)));
    assert_string_equal(why, "");

    facts.cpu_flag = false; /* /dev/kvm opens all the same */
    check_refused(facts, "svm");
    facts = good;
    facts.arch_matches = false;
    check_refused(facts, "kind");
    facts = good;
    facts.host_is_linux = false;
    check_refused(facts, "Linux");
    facts = good;
    facts.open_error = ENOENT;
    check_refused(facts, "module");
    facts.open_error = EACCES;
    check_refused(facts, "group");
    facts.open_error = EIO;
    check_refused(facts, "cannot be opened");
    facts = good;
    facts.machine_error = EBUSY; /* another hypervisor has the processor */
    check_refused(facts, "cannot make");
}

static void test_choose(void **state)
{
    enum pv_arch foreign = pv_arch_of_host() == PV_ARCH_X86_64 ? PV_ARCH_AARCH64 : PV_ARCH_X86_64;
    enum pv_accel accel = PV_ACCEL_AUTO;
    char why[256];
    assert_int_equal(pv_accel_choose(PV_ACCEL_TCG, foreign, &accel, why, sizeof(why)), 0);
    assert_int_equal(accel, PV_ACCEL_TCG);
    assert_string_equal(why, "");

    assert_int_equal(pv_accel_choose(PV_ACCEL_AUTO, foreign, &accel, why, sizeof(why)), 0);
    assert_int_equal(accel, PV_ACCEL_TCG);
    assert_string_not_equal(why, "");

    assert_int_equal(pv_accel_choose(PV_ACCEL_KVM, foreign, &accel, why, sizeof(why)), -ENOTSUP);
    assert_int_equal(pv_accel_choose(PV_ACCEL_HVF, foreign, &accel, why, sizeof(why)), -ENOTSUP);
}

static void test_names(void **state)
{
    enum pv_accel accel;
    enum pv_arch arch;
    for (int i = PV_ACCEL_AUTO; i <= PV_ACCEL_TCG; i++) {
        assert_int_equal(pv_accel_parse(pv_accel_name((enum pv_accel)i), &accel), 0);
        assert_int_equal(accel, i);
    }
    assert_int_equal(pv_accel_parse("warp", &accel), -EINVAL);
    assert_int_equal(pv_arch_parse("amd64", &arch), 0);
    assert_int_equal(arch, PV_ARCH_X86_64);
    assert_int_equal(pv_arch_parse("aarch64", &arch), 0);
    assert_int_equal(arch, PV_ARCH_AARCH64);
    assert_int_equal(pv_arch_parse("m68k", &arch), -EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kvm),
        cmocka_unit_test(test_choose),
        cmocka_unit_test(test_names),
    };
    return cmocka_run_group_tests_name("vm_accel", tests, NULL, NULL);
}
