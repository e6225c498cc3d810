#include "cli/commands.h"
#include "cli/vm_options.h"
#include "util/log.h"

#include <errno.h>
#include <getopt.h>
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PV_LOG_MODULE "image"

struct options {
    struct pv_argv build; /* for the script */
    bool json, verify, force, help;
};

static void print_help(void)
{
    printf("Usage: pearvisor image list [--json] [--verify]\n"
           "       pearvisor image build [OPTION]... NAME\n"
           "       pearvisor image reset|rm NAME\n"
           "Guest images, in ${PEARVISOR_CACHE:-~/.cache/pearvisor}/images.\n\n"
           "  list                 the images there are\n"
           "  build                make one, unless it is there already\n"
           "  reset                forget what guests have written to it\n"
           "  rm                   remove it, and what guests have written\n\n"
           "  --json               list: as JSON; build: print the new image's description\n"
           "  --verify             list: compare the files with their checksums\n"
           "  --packages A,B       build: more Debian packages\n"
           "  --size SIZE          build: of the guest's disk, such as 8G\n"
           "  --release RELEASE    build: of Debian, such as trixie\n"
           "  --mesa stock|backports\n"
           "                       build: the release's own Mesa, or the newer one of backports\n"
           "  --arch ARCH          build: x86_64 or aarch64\n"
           "  --force              build: make it again, and forget what guests have written\n"
           "  -h, --help           this text\n");
}

static const struct option long_options[] = {
    {"json", no_argument, NULL, 'j'},           {"verify", no_argument, NULL, 'V'},
    {"packages", required_argument, NULL, 'p'}, {"size", required_argument, NULL, 's'},
    {"release", required_argument, NULL, 'r'},  {"mesa", required_argument, NULL, 'm'},
    {"arch", required_argument, NULL, 'a'},     {"force", no_argument, NULL, 'f'},
    {"help", no_argument, NULL, 'h'},           {0},
};

static int parse_arch(struct options *options, const char *text)
{
    enum pv_arch arch;
    if (pv_arch_parse(text, &arch) < 0)
        return pv_usage_error("image", "--arch %s: choose x86_64 or aarch64", text);
    pv_argv_option(&options->build, "--arch", "%s", arch == PV_ARCH_AARCH64 ? "arm64" : "amd64");
    return 0;
}

static int parse_option(struct options *options, int option, char **argv)
{
    switch (option) {
    case 'j':
        options->json = true;
        return 0;
    case 'V':
        options->verify = true;
        return 0;
    case 'p':
        pv_argv_option(&options->build, "--packages", "%s", optarg);
        return 0;
    case 's':
        pv_argv_option(&options->build, "--size", "%s", optarg);
        return 0;
    case 'r':
        pv_argv_option(&options->build, "--release", "%s", optarg);
        return 0;
    case 'm':
        pv_argv_option(&options->build, "--mesa", "%s", optarg);
        return 0;
    case 'a':
        return parse_arch(options, optarg);
    case 'f':
        options->force = true;
        pv_argv_add(&options->build, "--force");
        return 0;
    case 'h':
        options->help = true;
        return 0;
    default:
        return pv_option_error("image", option, argv);
    }
}

/* "" when not asked for or all is well. */
static const char *check_files(const struct options *options, const struct pv_image *image,
                               char *what, size_t size)
{
    what[0] = '\0';
    if (options->verify && pv_image_verify(image, what, size) == 0)
        what[0] = '\0';
    return what;
}

static struct json_object *describe(const struct pv_image *image)
{
    struct json_object *object = json_object_new_object();
    json_object_object_add(object, "name", json_object_new_string(image->name));
    json_object_object_add(object, "about", json_object_new_string(image->about));
    json_object_object_add(object, "arch", json_object_new_string(pv_arch_name(image->arch)));
    json_object_object_add(object, "release", json_object_new_string(image->release));
    json_object_object_add(object, "built", json_object_new_string(image->built));
    json_object_object_add(object, "size", json_object_new_int64((int64_t)image->size));
    json_object_object_add(object, "disk_usage", json_object_new_int64((int64_t)image->disk_usage));
    json_object_object_add(object, "changed", json_object_new_boolean(image->has_overlay));
    json_object_object_add(object, "folder", json_object_new_string(image->folder));
    return object;
}

static int list_json(const struct options *options, const struct pv_image *images, int count)
{
    struct json_object *list = json_object_new_array();
    char what[64];
    int status = PV_EXIT_OK;
    for (int i = 0; i < count; i++) {
        struct json_object *object = describe(&images[i]);
        const char *damaged = check_files(options, &images[i], what, sizeof(what));
        if (options->verify)
            json_object_object_add(object, "intact", json_object_new_boolean(!*damaged));
        if (*damaged)
            status = PV_EXIT_FAILED;
        json_object_array_add(list, object);
    }
    printf("%s\n", json_object_to_json_string_ext(list, JSON_C_TO_STRING_PRETTY |
                                                            JSON_C_TO_STRING_NOSLASHESCAPE));
    json_object_put(list);
    return status;
}

static int list_text(const struct options *options, const struct pv_image *images, int count)
{
    char what[64];
    int status = PV_EXIT_OK;
    for (int i = 0; i < count; i++) {
        const struct pv_image *image = &images[i];
        const char *damaged = check_files(options, image, what, sizeof(what));
        printf("%-16s %-8s %5llu MiB  %s%s%s%s%s\n", image->name, pv_arch_name(image->arch),
               (unsigned long long)(image->disk_usage >> 20), image->about,
               image->has_overlay ? ", changed by guests" : "",
               *damaged          ? "; DAMAGED: "
               : options->verify ? ", intact"
                                 : "",
               damaged, *damaged ? " is not what its checksum says" : "");
        if (*damaged)
            status = PV_EXIT_FAILED;
    }
    if (count == 0)
        printf("no images yet; pearvisor image build debian-13 makes one\n");
    return status;
}

static int list_images(const struct options *options)
{
    struct pv_image *images;
    int count = pv_image_list(&images);
    if (count < 0) {
        pv_error("cannot list the images: %s", strerror(-count));
        return PV_EXIT_FAILED;
    }
    int status =
        options->json ? list_json(options, images, count) : list_text(options, images, count);
    free(images);
    return status;
}

static int build(struct options *options, const char *name)
{
    struct pv_image image;
    if (!pv_image_name_valid(name))
        return pv_usage_error("image",
                              "\"%s\" is no name for an image: use a-z, 0-9, '.', '_', '-'", name);
    if (!options->force && pv_image_open(name, &image) == 0 && image.has_overlay) {
        pv_info("%s is there, and guests have written to it: it stays as it is "
                "(--force makes it again, and forgets that)",
                name);
        return PV_EXIT_OK;
    }
    if (options->json)
        pv_argv_add(&options->build, "--json");
    return pv_build_image(name, options->build.items, STDOUT_FILENO);
}

static int change(const char *name, int (*action)(const struct pv_image *image), const char *verb)
{
    struct pv_image image;
    int ret = pv_image_open(name, &image);
    if (ret == -ENOENT || (ret == -EBADMSG && action != pv_image_remove))
        return pv_need_image(name, &image) < 0 ? PV_EXIT_FAILED : PV_EXIT_OK;
    ret = action(&image);
    if (ret == -EBUSY)
        pv_error("the image %s is in use by a virtual machine", name);
    else if (ret < 0)
        pv_error("cannot %s %s: %s", verb, image.folder, strerror(-ret));
    return ret < 0 ? PV_EXIT_FAILED : PV_EXIT_OK;
}

static int run_action(struct options *options, int count, char **words)
{
    static const char *const actions[] = {"list", "build", "reset", "rm"};
    const char *action = count > 0 ? words[0] : "", *closest = NULL;
    bool takes_name = strcmp(action, "list") != 0;
    unsigned int distance = 3;
    bool known = false;
    for (size_t i = 0; i < sizeof(actions) / sizeof(actions[0]); i++) {
        known = known || strcmp(action, actions[i]) == 0;
        closest = pv_closer_word(action, actions[i], closest, &distance);
    }
    if (!known && closest && *action)
        return pv_usage_error("image", "\"%s\": did you mean \"%s\"?", action, closest);
    if (!known)
        return pv_usage_error("image", "choose list, build, reset or rm");
    if (takes_name && count < 2)
        return pv_usage_error("image", "%s: which image?", action);
    if (count > 1 + takes_name)
        return pv_usage_error("image", "\"%s\" is too much", words[1 + takes_name]);
    if (!takes_name)
        return list_images(options);
    if (strcmp(action, "build") == 0)
        return build(options, words[1]);
    if (strcmp(action, "rm") == 0)
        return change(words[1], pv_image_remove, "remove");
    return change(words[1], pv_image_reset, "reset");
}

int pv_cmd_image(int argc, char **argv)
{
    struct options options = {0};
    int option, ret = 0;
    opterr = 0;
    while (ret == 0 && (option = getopt_long(argc, argv, ":h", long_options, NULL)) != -1)
        ret = parse_option(&options, option, argv);
    if (ret == 0 && options.help)
        print_help();
    else if (ret == 0)
        ret = run_action(&options, argc - optind, argv + optind);
    pv_argv_finish(&options.build);
    return ret;
}
