#include "unit.h"

#include "vm/qemu.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void check_version(const char *text, bool found, unsigned int major, unsigned int minor,
                          bool enough)
{
    unsigned int a = 0, b = 0;
    assert_int_equal(pv_qemu_parse_version(text, &a, &b), found);
    if (!found)
        return;
    assert_int_equal(a, major);
    assert_int_equal(b, minor);
    assert_int_equal(pv_qemu_new_enough(a, b), enough);
}

static void test_version(void **state)
{
    check_version("QEMU emulator version 11.1.3 (Debian 1:11.1.3+ds-1~bpo13+1)\nCopyright", true,
                  11, 1, true);
    check_version("QEMU emulator version 11.0.50 (v11.0.0-1-gabc)", true, 11, 0, false);
    check_version("QEMU emulator version 7.2.22 (Debian)", true, 7, 2, false);
    check_version("QEMU emulator version 12.0", true, 12, 0, true);
    check_version("QEMU emulator version 10.99.0", true, 10, 99, false);
    check_version("QEMU emulator version eleven", false, 0, 0, false);
    check_version("QEMU emulator version 11", false, 0, 0, false);
    check_version("", false, 0, 0, false);
}

/* What a shell makes of the line is what went in. */
static void test_quoting(void **state)
{
    static const char *const words[] = {
        "plain", "",        "two words", "it's", "$HOME `id`", "a\"b\\",      "new\nline", "*",
        "~",     "-append", "#no",       "'",    "x=1,y=2",    "\xc3\xa4;&|", "!"};
    struct pv_argv argv = {0};
    char command[1024], got[1024] = "", expected[1024] = "";
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        pv_argv_add(&argv, words[i]);
        snprintf(expected + strlen(expected), sizeof(expected) - strlen(expected), "<%s>",
                 words[i]);
    }
    assert_false(argv.failed);
    char *line = pv_argv_quote(&argv);
    assert_non_null(line);
    snprintf(command, sizeof(command), "printf '<%%s>' %s", line);
    FILE *shell = popen(command, "r");
    assert_non_null(shell);
    size_t n = fread(got, 1, sizeof(got) - 1, shell);
    got[n] = '\0';
    assert_int_equal(pclose(shell), 0);
    assert_string_equal(got, expected);
    free(line);
    pv_argv_finish(&argv);
    assert_int_equal(argv.count, 0);
}

static void test_escape(void **state)
{
    char *text = pv_qemu_escape("/a,b,,c");
    assert_string_equal(text, "/a,,b,,,,c");
    free(text);
}

/* The argument behind the n-th `option`; NULL if there are fewer. */
static const char *value_of(const struct pv_argv *argv, const char *option, size_t n)
{
    for (size_t i = 0; i + 1 < argv->count; i++) {
        if (strcmp(argv->items[i], option) == 0 && n-- == 0)
            return argv->items[i + 1];
    }
    return NULL;
}

static bool has(const struct pv_argv *argv, const char *option, const char *value)
{
    const char *found;
    for (size_t n = 0; (found = value_of(argv, option, n)); n++) {
        if (strcmp(found, value) == 0)
            return true;
    }
    return false;
}

static bool mentions(const struct pv_argv *argv, const char *text)
{
    for (size_t i = 0; i < argv->count; i++) {
        if (strstr(argv->items[i], text))
            return true;
    }
    return false;
}

static struct pv_vm_config make_config(void)
{
    return (struct pv_vm_config){
        .arch = PV_ARCH_X86_64,
        .accel = PV_ACCEL_TCG,
        .cpus = 3,
        .memory_mib = 1536,
        .kernel = "/i/vmlinuz",
        .initrd = "/i/initrd.img",
        .cmdline = "root=/dev/vda rw quiet",
        .disk = "/i/disk,1.img",
        .disk_format = "raw",
        .snapshot = true,
        .no_reboot = true,
        .qmp_fd = 10,
        .console_fd = 11,
        .agent_fd = 12,
        .stdin_fd = 13,
        .stdout_fd = 14,
        .stderr_fd = 15,
        .gpu_fd = 16,
    };
}

static void make_arguments(const struct pv_vm_config *config, struct pv_argv *out)
{
    struct pv_qemu qemu = {0};
    *out = (struct pv_argv){0};
    pv_argv_add(&qemu.command, "qemu");
    pv_qemu_arguments(&qemu, config, out);
    pv_qemu_finish(&qemu);
    assert_false(out->failed);
    assert_string_equal(out->items[0], "qemu");
    assert_null(out->items[out->count]);
}

static void test_arguments(void **state)
{
    struct pv_vm_config config = make_config();
    struct pv_argv argv;
    make_arguments(&config, &argv);
    assert_true(has(&argv, "-machine", "q35,memory-backend=mem"));
    assert_true(has(&argv, "-accel", "tcg,thread=multi"));
    assert_true(has(&argv, "-cpu", "max"));
    assert_true(has(&argv, "-smp", "3"));
    /* the device process maps it: the two must agree, and it must be shared */
    assert_true(has(&argv, "-m", "1536M"));
    assert_true(has(&argv, "-object", "memory-backend-memfd,id=mem,size=1536M,share=on"));
    assert_true(has(&argv, "-kernel", "/i/vmlinuz"));
    assert_true(has(&argv, "-initrd", "/i/initrd.img"));
    assert_true(has(&argv, "-append", "root=/dev/vda rw quiet"));
    assert_true(has(&argv, "-drive",
                    "if=none,id=disk0,format=raw,discard=unmap,snapshot=on,cache=unsafe,"
                    "file=/i/disk,,1.img"));
    assert_true(has(&argv, "-chardev", "socket,id=qmp,fd=10"));
    assert_true(has(&argv, "-serial", "chardev:console"));
    assert_true(has(&argv, "-device",
                    "virtserialport,chardev=agent,id=agent-port,name=org.qemu.guest_agent.0"));
    assert_true(has(&argv, "-device",
                    "virtserialport,chardev=stderr,id=stderr-port,name=pearvisor.stderr"));
    assert_true(has(&argv, "-chardev", "socket,id=gpu,fd=16"));
    assert_true(has(&argv, "-device",
                    "vhost-user-test-device-pci,chardev=gpu,virtio-id=16,num_vqs=2,vq_size=256,"
                    "config_size=20"));
    assert_true(has(&argv, "-nodefaults", "-no-user-config"));
    assert_true(mentions(&argv, "-no-reboot"));
    assert_false(mentions(&argv, "balloon"));
    assert_false(mentions(&argv, "hostfwd"));
    assert_false(mentions(&argv, "9p"));
    pv_argv_finish(&argv);
}

static void test_other_arguments(void **state)
{
    struct pv_vm_config config = make_config();
    struct pv_argv argv;
    config.accel = PV_ACCEL_KVM;
    config.snapshot = config.no_reboot = false;
    config.disk_format = "qcow2";
    config.share = "/home/a,b";
    config.ssh_port = 2222;
    config.gpu_fd = -1;
    config.kernel = NULL;
    make_arguments(&config, &argv);
    assert_true(has(&argv, "-accel", "kvm"));
    assert_true(
        has(&argv, "-drive", "if=none,id=disk0,format=qcow2,discard=unmap,file=/i/disk,,1.img"));
    assert_true(has(&argv, "-fsdev", "local,id=share,security_model=none,path=/home/a,,b"));
    assert_true(has(&argv, "-netdev", "user,id=net0,hostfwd=tcp:127.0.0.1:2222-:22"));
    assert_false(mentions(&argv, "vhost-user"));
    assert_false(mentions(&argv, "-kernel"));
    assert_false(mentions(&argv, "-append"));
    assert_false(mentions(&argv, "-no-reboot"));
    pv_argv_finish(&argv);
}

static void test_input(void **state)
{
    struct pv_vm_config config = make_config();
    struct pv_argv argv;
    make_arguments(&config, &argv);
    assert_false(mentions(&argv, "tablet"));
    pv_argv_finish(&argv);

    config.input = true;
    make_arguments(&config, &argv);
    assert_true(has(&argv, "-machine", "q35,memory-backend=mem,i8042=off"));
    assert_true(has(&argv, "-device", "virtio-keyboard-pci"));
    assert_true(has(&argv, "-device", "virtio-tablet-pci"));
    pv_argv_finish(&argv);
}

static void test_aarch64(void **state)
{
    struct pv_vm_config config = make_config();
    struct pv_argv argv;
    config.arch = PV_ARCH_AARCH64;
    config.cmdline = NULL;
    make_arguments(&config, &argv);
    assert_true(has(&argv, "-machine", "virt,memory-backend=mem"));
    assert_true(has(&argv, "-cpu", "max,pauth-impdef=on"));
    assert_true(has(&argv, "-append", "root=/dev/vda rw console=ttyAMA0 quiet"));
    assert_false(mentions(&argv, "q35"));
    assert_false(mentions(&argv, "ttyS0"));
    pv_argv_finish(&argv);
}

/* A folder with a program that says it is this QEMU. */
static void make_fake_qemu(char *folder, const char *version)
{
    char path[128];
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof(path), "%s/qemu-system-x86_64", folder);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fprintf(file, "#!/bin/sh\necho 'QEMU emulator version %s (Fake)'\n", version);
    fclose(file);
    assert_int_equal(chmod(path, 0755), 0);
}

static void remove_fake_qemu(const char *folder)
{
    char path[128];
    snprintf(path, sizeof(path), "%s/qemu-system-x86_64", folder);
    unlink(path);
    rmdir(folder);
}

static void test_find(void **state)
{
    char old_folder[] = "/tmp/pv-qemu-XXXXXX", new_folder[] = "/tmp/pv-qemu-XXXXXX";
    char path[4096], why[512], *before = strdup(getenv("PATH"));
    struct pv_qemu qemu;
    unsetenv("PEARVISOR_QEMU");
    make_fake_qemu(old_folder, "7.2.22");
    make_fake_qemu(new_folder, "11.2.0");

    snprintf(path, sizeof(path), "%s:/usr/bin:/bin", new_folder);
    setenv("PATH", path, 1);
    assert_int_equal(pv_qemu_find(PV_ARCH_X86_64, "/nowhere", &qemu, why, sizeof(why)), 0);
    assert_int_equal(qemu.major, 11);
    assert_int_equal(qemu.minor, 2);
    assert_false(qemu.is_engine);
    pv_qemu_finish(&qemu);

    snprintf(path, sizeof(path), "%s:/usr/bin:/bin", old_folder);
    setenv("PATH", path, 1);
    assert_int_equal(pv_qemu_find(PV_ARCH_X86_64, "/nowhere", &qemu, why, sizeof(why)), -ENOENT);
    assert_non_null(strstr(why, "QEMU 11.1 or newer is needed, found 7.2"));
    assert_non_null(strstr(why, "pearvisor engine install"));
    pv_qemu_finish(&qemu);

    setenv("PATH", before, 1);
    free(before);
    remove_fake_qemu(old_folder);
    remove_fake_qemu(new_folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_version),         cmocka_unit_test(test_quoting),
        cmocka_unit_test(test_escape),          cmocka_unit_test(test_arguments),
        cmocka_unit_test(test_other_arguments), cmocka_unit_test(test_input),
        cmocka_unit_test(test_aarch64),         cmocka_unit_test(test_find),
    };
    return cmocka_run_group_tests_name("vm_qemu", tests, NULL, NULL);
}
