#include "unit.h"

#include "vm/image.h"
#include "vm/paths.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char cache[64];

static void write_file(const char *image, const char *name, const char *text)
{
    char path[256];
    snprintf(path, sizeof(path), "%s/images/%s/%s", cache, image, name);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

static void make_image(const char *name)
{
    char path[256];
    snprintf(path, sizeof(path), "%s/images/%s", cache, name);
    assert_int_equal(mkdir(path, 0755), 0);
    write_file(name, "disk.img", "disk\n");
    write_file(name, "vmlinuz", "kernel\n");
    write_file(name, "initrd.img", "initrd\n");
    write_file(
        name, "image.json",
        "{\"name\": \"x\", \"about\": \"A guest\", \"arch\": \"arm64\", \"size\": 4294967296,"
        "\"cmdline\": \"quiet\", \"files\": {"
        "\"disk.img\": {\"sha256\": "
        "\"b3cd19ff69f1559ffa21d20fb8f60f5de5d4bc9b7df4ef2bb4c7d2dba0d8e9a7\"}}}");
}

static int set_up(void **state)
{
    char path[80];
    snprintf(cache, sizeof(cache), "/tmp/pv-image-XXXXXX");
    assert_non_null(mkdtemp(cache));
    setenv("PEARVISOR_CACHE", cache, 1);
    snprintf(path, sizeof(path), "%s/images", cache);
    return mkdir(path, 0755);
}

static int tear_down(void **state)
{
    char path[80];
    snprintf(path, sizeof(path), "%s/images", cache);
    if (rmdir(path) < 0)
        return -1;
    return rmdir(cache);
}

static void test_names(void **state)
{
    char long_name[PV_IMAGE_NAME_MAX + 1];
    assert_true(pv_image_name_valid("debian-13"));
    assert_true(pv_image_name_valid("a.b_c"));
    assert_false(pv_image_name_valid(""));
    assert_false(pv_image_name_valid("."));
    assert_false(pv_image_name_valid(".debian-13.new"));
    assert_false(pv_image_name_valid("../x"));
    assert_false(pv_image_name_valid("a/b"));
    assert_false(pv_image_name_valid("--force"));
    assert_false(pv_image_name_valid("Debian"));
    memset(long_name, 'a', PV_IMAGE_NAME_MAX);
    long_name[PV_IMAGE_NAME_MAX] = '\0';
    assert_false(pv_image_name_valid(long_name));
}

static void test_open_and_list(void **state)
{
    struct pv_image image, *images;
    assert_int_equal(pv_image_list(&images), 0);
    assert_int_equal(pv_image_open("one", &image), -ENOENT);
    make_image("two");
    make_image("one");
    make_image("bad");
    assert_int_equal(pv_image_open("one", &image), 0);
    assert_string_equal(image.about, "A guest");
    assert_int_equal(image.arch, PV_ARCH_AARCH64);
    assert_true(image.size == 4294967296);
    assert_string_equal(image.cmdline, "quiet");
    assert_false(image.has_overlay);

    static const char *const damages[] = {"", "[]", "{", "{\"arch\": \"m68k\"}", "{\"arch\": 5}"};
    for (size_t i = 0; i < sizeof(damages) / sizeof(damages[0]); i++) {
        struct pv_image bad;
        write_file("bad", "image.json", damages[i]);
        assert_int_equal(pv_image_open("bad", &bad), -EBADMSG);
    }
    assert_int_equal(pv_image_list(&images), 2);
    assert_string_equal(images[0].name, "one");
    assert_string_equal(images[1].name, "two");
    for (int i = 0; i < 2; i++)
        assert_int_equal(pv_image_remove(&images[i]), 0);
    free(images);
    pv_image_open("bad", &image); /* damaged, but its paths are known */
    assert_int_equal(pv_image_remove(&image), 0);
    assert_int_equal(pv_image_open("one", &image), -ENOENT);
}

static void test_locks(void **state)
{
    struct pv_image image;
    make_image("one");
    assert_int_equal(pv_image_open("one", &image), 0);
    int first = pv_image_lock(&image, false), second = pv_image_lock(&image, false);
    assert_true(first >= 0 && second >= 0);
    assert_int_equal(pv_image_lock(&image, true), -EBUSY);
    assert_int_equal(pv_image_remove(&image), -EBUSY);
    assert_int_equal(pv_image_reset(&image), -EBUSY);
    close(first);
    close(second);

    write_file("one", "overlay.qcow2", "changes");
    assert_int_equal(pv_image_open("one", &image), 0);
    assert_true(image.has_overlay);
    first = pv_image_lock(&image, true);
    assert_true(first >= 0);
    assert_int_equal(pv_image_lock(&image, false), -EBUSY);
    close(first);
    assert_int_equal(pv_image_reset(&image), 0);
    assert_int_equal(access(image.overlay, F_OK), -1);
    assert_int_equal(pv_image_reset(&image), 0);
    assert_int_equal(pv_image_remove(&image), 0);
}

static void test_verify(void **state)
{
    struct pv_image image;
    char what[64];
    make_image("one");
    assert_int_equal(pv_image_open("one", &image), 0);
    assert_int_equal(pv_image_verify(&image, what, sizeof(what)), -EBADMSG);
    assert_string_equal(what, "disk.img");
    write_file("one", "disk.img", "");
    write_file("one", "vmlinuz", "");
    write_file("one", "initrd.img", "");
#define EMPTY "{\"sha256\": \"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\"}"
    write_file("one", "image.json",
               "{\"arch\": \"amd64\", \"files\": {\"disk.img\": " EMPTY ", \"vmlinuz\": " EMPTY
               ", \"initrd.img\": " EMPTY "}}");
    assert_int_equal(pv_image_verify(&image, what, sizeof(what)), 0);
    write_file("one", "initrd.img", "changed");
    assert_int_equal(pv_image_verify(&image, what, sizeof(what)), -EBADMSG);
    assert_string_equal(what, "initrd.img");
    assert_int_equal(pv_image_remove(&image), 0);
}

/* The overlay is there or not there, whatever qemu-img does. */
static void test_overlay(void **state)
{
    struct pv_image image;
    struct pv_qemu qemu = {0};
    make_image("one");
    assert_int_equal(pv_image_open("one", &image), 0);
    pv_argv_add(&qemu.img_command, "false");
    assert_int_equal(pv_image_make_overlay(&image, &qemu), -EIO);
    assert_false(image.has_overlay);
    pv_argv_finish(&qemu.img_command);

    pv_argv_option(&qemu.img_command, "sh", "-c");
    pv_argv_add(&qemu.img_command, "while [ $# -gt 1 ]; do shift; done; echo qcow2 >\"$1\"");
    assert_int_equal(pv_image_make_overlay(&image, &qemu), 0);
    assert_true(image.has_overlay);
    assert_int_equal(access(image.overlay, F_OK), 0);
    assert_int_equal(pv_image_make_overlay(&image, &qemu), 0);
    pv_qemu_finish(&qemu);
    assert_int_equal(pv_image_remove(&image), 0);
}

static void test_paths(void **state)
{
    char path[256];
    pv_cache_path("images", path, sizeof(path));
    assert_int_equal(strncmp(path, cache, strlen(cache)), 0);
    setenv("PEARVISOR_DATA", cache, 1);
    assert_int_equal(pv_data_path("images", path, sizeof(path)), 0);
    assert_int_equal(pv_data_path("guest/none", path, sizeof(path)), -ENOENT);
    unsetenv("PEARVISOR_DATA");
    assert_int_equal(pv_data_path("scripts/root.sh", path, sizeof(path)), 0); /* the source tree */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),   cmocka_unit_test(test_open_and_list),
        cmocka_unit_test(test_locks),   cmocka_unit_test(test_verify),
        cmocka_unit_test(test_overlay), cmocka_unit_test(test_paths),
    };
    return cmocka_run_group_tests_name("vm_image", tests, set_up, tear_down);
}
