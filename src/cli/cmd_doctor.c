/* pearvisor doctor: what works on this machine, what does not, and what to do about it.
 *
 * Everything is gathered into a struct report first, then written as text or as JSON, so that both
 * say the same. The host's drivers are loaded in a child process: one that crashes is reported.
 */
#include "cli/commands.h"
#include "cli/doctor_vm.h"
#include "cli/host_probe.h"
#include "cli/venus_client.h"
#include "util/log.h"
#include "util/os.h"
#include "vm/paths.h"

#include <getopt.h>
#include <json-c/json.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PV_LOG_MODULE "doctor"

#define MAX_ADVICE 8

struct tool {
    const char *name;
    char path[512]; /* "" if it is not in PATH */
};

struct report {
    struct pv_host_caps host;
    char host_error[512]; /* set if there is no answer from any driver */
    int chosen;           /* device that clients get by default; -1: none */
    struct pv_venus_client client;
    bool client_found;
    struct tool vulkaninfo, vkmark;
    char demo_root[512]; /* the demo's own vkmark; "" if it is not made yet */
    struct pv_doctor_vm vm;
    char advice[MAX_ADVICE][320];
    size_t advice_count;
    bool works_here; /* for programs on this machine */
    bool works_vm;   /* for virtual machines */
};

/* ---- gathering ---- */

__attribute__((format(printf, 2, 3))) static void advise(struct report *report, const char *format,
                                                         ...)
{
    if (report->advice_count == MAX_ADVICE)
        return;
    va_list args;
    va_start(args, format);
    vsnprintf(report->advice[report->advice_count], sizeof(report->advice[0]), format, args);
    va_end(args);
    report->advice_count++;
}

static bool is_debian_12(void)
{
    FILE *file = fopen("/etc/os-release", "re");
    if (!file)
        return false;
    char line[256];
    bool debian = false, version = false;
    while (fgets(line, sizeof(line), file)) {
        debian |= strncmp(line, "ID=debian", 9) == 0;
        version |= strncmp(line, "VERSION_ID=\"12", 14) == 0;
    }
    fclose(file);
    return debian && version;
}

static const char *mesa_packages(void)
{
    /* Debian 12's own Mesa is too old for both ends; the backports must be among the apt sources */
    return is_debian_12() ? "apt install -t bookworm-backports libvulkan1 mesa-vulkan-drivers"
                          : "apt install libvulkan1 mesa-vulkan-drivers";
}

static void find_tool(struct tool *tool)
{
    const char *list = getenv("PATH");
    tool->path[0] = '\0';
    while (list && *list) {
        size_t length = strcspn(list, ":");
        snprintf(tool->path, sizeof(tool->path), "%.*s/%s", (int)length, list, tool->name);
        if (length && access(tool->path, X_OK) == 0)
            return;
        list += length + (list[length] == ':');
    }
    tool->path[0] = '\0';
}

/* scripts/root.sh keeps it there. */
static void find_demo_root(struct report *report)
{
    pv_cache_path("roots/trixie-stock", report->demo_root, sizeof(report->demo_root));
    char vkmark[600];
    snprintf(vkmark, sizeof(vkmark), "%s/usr/bin/vkmark", report->demo_root);
    if (access(vkmark, X_OK) != 0)
        report->demo_root[0] = '\0';
}

static void look_at_host(struct report *report)
{
    report->chosen = -1;
    if (pv_host_probe_in_child(NULL, &report->host, report->host_error,
                               sizeof(report->host_error)) < 0) {
        advise(report, "for a Vulkan driver on any machine: %s", mesa_packages());
        return;
    }
    char error[512];
    report->chosen = pv_host_select(&report->host, NULL, error, sizeof(error));
    if (report->chosen < 0)
        advise(report, "no device here can serve a guest; for one that can: %s", mesa_packages());
}

static void look_at_client(struct report *report)
{
    report->client_found = pv_venus_client_find(&report->client);
    if (!report->client_found)
        advise(report, "for Mesa's Venus client: %s", mesa_packages());
}

static void look_at_tools(struct report *report)
{
    report->vulkaninfo.name = "vulkaninfo";
    report->vkmark.name = "vkmark";
    find_tool(&report->vulkaninfo);
    find_tool(&report->vkmark);
    find_demo_root(report);
    if (!report->vulkaninfo.path[0])
        advise(report, "for vulkaninfo: apt install vulkan-tools");
}

/* ---- words ---- */

static const char *device_type_name(VkPhysicalDeviceType type)
{
    switch (type) {
    case VK_PHYSICAL_DEVICE_TYPE_INTEGRATED_GPU:
        return "integrated GPU";
    case VK_PHYSICAL_DEVICE_TYPE_DISCRETE_GPU:
        return "discrete GPU";
    case VK_PHYSICAL_DEVICE_TYPE_VIRTUAL_GPU:
        return "virtual GPU";
    case VK_PHYSICAL_DEVICE_TYPE_CPU:
        return "CPU";
    default:
        return "other";
    }
}

static const char *sync_tier_name(enum pv_sync_tier tier)
{
    return tier == PV_SYNC_TIER_NATIVE ? "native" : "emulated";
}

static const char *modifiers_text(enum pv_modifier_tier tier)
{
    static const char *const texts[] = {
        [PV_MODIFIER_TIER_NONE] = "none",
        [PV_MODIFIER_TIER_LINEAR] = "ours: LINEAR only",
        [PV_MODIFIER_TIER_COPIED] = "ours: LINEAR only; the driver does not draw into such images",
        [PV_MODIFIER_TIER_NATIVE] = "the driver's",
    };
    return texts[tier];
}

static const char *dma_buf_source(const struct pv_device_caps *caps)
{
    if (caps->driver_dma_buf)
        return "driver";
    return caps->udmabuf ? "udmabuf" : "none";
}

static void flag_names(VkMemoryPropertyFlags flags, char *out, size_t size)
{
    static const struct {
        VkMemoryPropertyFlags flag;
        const char *name;
    } names[] = {
        {VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT, "device-local"},
        {VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT, "host-visible"},
        {VK_MEMORY_PROPERTY_HOST_COHERENT_BIT, "coherent"},
        {VK_MEMORY_PROPERTY_HOST_CACHED_BIT, "cached"},
        {VK_MEMORY_PROPERTY_LAZILY_ALLOCATED_BIT, "lazy"},
        {VK_MEMORY_PROPERTY_PROTECTED_BIT, "protected"},
    };
    snprintf(out, size, "%s", flags ? "" : "plain");
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        size_t used = strlen(out);
        if (flags & names[i].flag)
            snprintf(out + used, size - used, "%s%s", used ? " " : "", names[i].name);
    }
}

/* How a swapchain's images leave a guest with Mesa 25.0 and with 26: see `pearvisor vtest --wsi`.
 */
static const char *old_presentation(const struct pv_device_caps *caps)
{
    return caps->real_dma_buf ? "dma-buf" : "dma-buf (memfd in its place: headless surfaces only)";
}

static const char *new_presentation(const struct pv_device_caps *caps)
{
    return caps->real_dma_buf ? "dma-buf" : "shared memory";
}

static void uuid_text(const uint8_t uuid[VK_UUID_SIZE], char out[37])
{
    static const char digits[] = "0123456789abcdef";
    size_t at = 0;
    for (size_t i = 0; i < VK_UUID_SIZE; i++) {
        if (i == 4 || i == 6 || i == 8 || i == 10)
            out[at++] = '-';
        out[at++] = digits[uuid[i] >> 4];
        out[at++] = digits[uuid[i] & 15];
    }
    out[at] = '\0';
}

static void version_text(uint32_t version, char *out, size_t size)
{
    snprintf(out, size, "%u.%u.%u", VK_API_VERSION_MAJOR(version), VK_API_VERSION_MINOR(version),
             VK_API_VERSION_PATCH(version));
}

/* ---- text ---- */

static void print_memory(const struct pv_device_caps *caps)
{
    for (uint32_t i = 0; i < caps->memory_type_count; i++) {
        const struct pv_memory_type_caps *type = &caps->memory_types[i];
        char flags[128];
        flag_names(type->flags, flags, sizeof(flags));
        if (!(type->flags & VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT))
            printf("    memory %-2u  %-10s %s\n", i, "-", flags);
        else
            printf("    memory %-2u  %-10s %s (%s)\n", i,
                   type->tier ? pv_memory_tier_name(type->tier) : "hidden", flags, type->why);
    }
}

static void print_device(const struct report *report, uint32_t index)
{
    const struct pv_device_caps *caps = &report->host.devices[index];
    char uuid[37], version[32];
    uuid_text(caps->uuid, uuid);
    version_text(caps->api_version, version, sizeof(version));
    printf("  %u: %s%s\n", index, caps->name,
           report->chosen == (int)index ? "  <- used unless --device says otherwise" : "");
    printf("    driver     %s, %s, Vulkan %s, %s\n", caps->driver, caps->driver_info, version,
           device_type_name(caps->type));
    printf("    uuid       %s\n", uuid);
    if (!caps->usable)
        printf("    NOT usable: it %s\n", caps->why_not);
    print_memory(caps);
    printf("    sync_fd    semaphores %s, fences %s; timeline semaphores %s\n",
           sync_tier_name(caps->semaphore_tier), sync_tier_name(caps->fence_tier),
           caps->timeline_semaphore ? "yes" : "no");
    printf("    modifiers  %s (%s)\n", pv_modifier_tier_name(caps->modifier_tier),
           modifiers_text(caps->modifier_tier));
    printf("    dma-buf    %s\n", caps->driver_dma_buf ? "real, from the driver"
                                  : caps->udmabuf      ? "real, from /dev/udmabuf"
                                                       : "not real: plain shared memory");
    printf("    presents   guest Mesa 25.0 by %s; Mesa 26 by %s\n", old_presentation(caps),
           new_presentation(caps));
}

static void print_host(const struct report *report)
{
    printf("Host Vulkan\n");
    if (report->host_error[0]) {
        printf("  MISSING: %s\n", report->host_error);
        return;
    }
    char version[32];
    version_text(report->host.instance_version, version, sizeof(version));
    printf("  loader %s, page size %zu\n", version, pv_page_size());
    for (uint32_t i = 0; i < report->host.device_count; i++)
        print_device(report, i);
}

static void print_client(const struct report *report)
{
    const struct pv_venus_client *client = &report->client;
    printf("\nMesa Venus client\n");
    if (!report->client_found)
        printf("  MISSING: %s\n", client->problem);
    if (client->manifest[0])
        printf("  manifest %s\n", client->manifest);
    if (client->library[0])
        printf("  library  %s (Mesa %s)\n", client->library,
               client->version[0] ? client->version : "of unknown version");
}

static void print_tools(const struct report *report)
{
    printf("\nPrograms to try\n");
    printf("  vulkaninfo  %s\n",
           report->vulkaninfo.path[0] ? report->vulkaninfo.path : "not installed");
    if (report->vkmark.path[0])
        printf("  vkmark      %s\n", report->vkmark.path);
    else if (report->demo_root[0])
        printf("  vkmark      in %s\n", report->demo_root);
    else
        printf("  vkmark      not installed; 'make demo' fetches it\n");
}

static void print_text(const struct report *report)
{
    print_host(report);
    print_client(report);
    print_tools(report);
    pv_doctor_vm_print(&report->vm);
    printf("\nVirtual machines   %s\n",
           report->works_vm ? "work: pearvisor run debian-13, or make demo" : "do not work here");
    printf("Programs here      %s\n",
           report->works_here ? "work: pearvisor vtest, or make demo-vtest" : "do not work");
    for (size_t i = 0; i < report->advice_count; i++)
        printf("  - %s\n", report->advice[i]);
    if (!report->works_vm || !report->works_here)
        printf("  - or let scripts/setup.sh demo install all that is missing\n");
}

/* ---- JSON ---- */

static void add_string(struct json_object *object, const char *key, const char *value)
{
    json_object_object_add(object, key, value && *value ? json_object_new_string(value) : NULL);
}

static void add_bool(struct json_object *object, const char *key, bool value)
{
    json_object_object_add(object, key, json_object_new_boolean(value));
}

static void add_int(struct json_object *object, const char *key, int64_t value)
{
    json_object_object_add(object, key, json_object_new_int64(value));
}

static struct json_object *memory_json(const struct pv_device_caps *caps)
{
    struct json_object *list = json_object_new_array();
    for (uint32_t i = 0; i < caps->memory_type_count; i++) {
        const struct pv_memory_type_caps *type = &caps->memory_types[i];
        struct json_object *entry = json_object_new_object();
        add_int(entry, "index", i);
        add_int(entry, "heap", type->heap);
        add_int(entry, "flags", type->flags);
        add_string(entry, "tier", pv_memory_tier_name(type->tier));
        add_string(entry, "why", type->why);
        json_object_array_add(list, entry);
    }
    return list;
}

static struct json_object *device_json(const struct pv_device_caps *caps, uint32_t index)
{
    char uuid[37], version[32];
    uuid_text(caps->uuid, uuid);
    version_text(caps->api_version, version, sizeof(version));
    struct json_object *device = json_object_new_object();
    add_int(device, "index", index);
    add_string(device, "name", caps->name);
    add_string(device, "driver", caps->driver);
    add_string(device, "driver_info", caps->driver_info);
    add_string(device, "api_version", version);
    add_string(device, "type", device_type_name(caps->type));
    add_string(device, "uuid", uuid);
    add_bool(device, "usable", caps->usable);
    add_string(device, "why_not", caps->why_not);
    json_object_object_add(device, "memory_types", memory_json(caps));
    add_string(device, "semaphore_sync_fd", sync_tier_name(caps->semaphore_tier));
    add_string(device, "fence_sync_fd", sync_tier_name(caps->fence_tier));
    add_bool(device, "timeline_semaphore", caps->timeline_semaphore);
    add_string(device, "modifiers", pv_modifier_tier_name(caps->modifier_tier));
    add_string(device, "dma_buf", dma_buf_source(caps));
    add_string(device, "presentation_mesa_25_0", old_presentation(caps));
    add_string(device, "presentation_mesa_26", new_presentation(caps));
    return device;
}

static struct json_object *client_json(const struct report *report)
{
    struct json_object *client = json_object_new_object();
    add_bool(client, "found", report->client_found);
    add_string(client, "manifest", report->client.manifest);
    add_string(client, "library", report->client.library);
    add_string(client, "mesa_version", report->client.version);
    add_string(client, "problem", report->client.problem);
    return client;
}

static void print_json(const struct report *report)
{
    struct json_object *root = json_object_new_object();
    add_bool(root, "works", report->works_here || report->works_vm);
    add_bool(root, "works_here", report->works_here);
    add_bool(root, "works_vm", report->works_vm);
    add_int(root, "page_size", (int64_t)pv_page_size());
    char version[32] = "";
    if (report->host.instance_version)
        version_text(report->host.instance_version, version, sizeof(version));
    add_string(root, "loader_version", version);
    add_string(root, "host_error", report->host_error);
    if (report->chosen >= 0)
        add_int(root, "default_device", report->chosen);
    else
        json_object_object_add(root, "default_device", NULL);

    struct json_object *devices = json_object_new_array();
    for (uint32_t i = 0; i < report->host.device_count; i++)
        json_object_array_add(devices, device_json(&report->host.devices[i], i));
    json_object_object_add(root, "devices", devices);
    json_object_object_add(root, "venus_client", client_json(report));
    add_string(root, "vulkaninfo", report->vulkaninfo.path);
    add_string(root, "vkmark", report->vkmark.path);
    add_string(root, "demo_root", report->demo_root);
    json_object_object_add(root, "vm", pv_doctor_vm_json(&report->vm));
    struct json_object *advice = json_object_new_array();
    for (size_t i = 0; i < report->advice_count; i++)
        json_object_array_add(advice, json_object_new_string(report->advice[i]));
    json_object_object_add(root, "advice", advice);

    puts(json_object_to_json_string_ext(root,
                                        JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_NOSLASHESCAPE));
    json_object_put(root);
}

/* ---- the command ---- */

static void print_help(void)
{
    printf(
        "Usage: pearvisor doctor [OPTION]...\n"
        "What works on this machine, what does not, and what to do about it.\n"
        "Exit status: 0 if guests, or programs on this machine, can have a GPU, else 1.\n\n"
        "  --guest IMAGE  boot this image and prove that it renders on the host's GPU: it has to\n"
        "                 draw a picture that is decided only then; 0 if every pixel is right\n"
        "  --device SELECTOR\n"
        "                 with --guest: the host's device to use\n"
        "  --json         the same for programs\n"
        "  -v, --verbose  say on standard error what was tried\n"
        "  -h, --help     this text\n");
}

static int examine(bool json)
{
    struct report *report = calloc(1, sizeof(*report));
    if (!report) {
        pv_error("out of memory");
        return PV_EXIT_FAILED;
    }
    look_at_host(report);
    look_at_client(report);
    look_at_tools(report);
    pv_doctor_vm_look(&report->vm);
    if (!report->vm.qemu_found)
        advise(report, "for virtual machines: %s", report->vm.qemu_problem);
    report->works_here = report->chosen >= 0 && report->client_found;
    report->works_vm = report->chosen >= 0 && report->vm.qemu_found;
    if (json)
        print_json(report);
    else
        print_text(report);
    int status = report->works_here || report->works_vm ? PV_EXIT_OK : PV_EXIT_FAILED;
    pv_doctor_vm_finish(&report->vm);
    free(report);
    return status;
}

int pv_cmd_doctor(int argc, char **argv)
{
    static const struct option options[] = {
        {"guest", required_argument, NULL, 'g'}, {"device", required_argument, NULL, 'd'},
        {"json", no_argument, NULL, 'j'},        {"verbose", no_argument, NULL, 'v'},
        {"help", no_argument, NULL, 'h'},        {0},
    };
    const char *guest = NULL, *device = NULL;
    bool json = false;
    int option;
    opterr = 0;
    while ((option = getopt_long(argc, argv, ":vh", options, NULL)) != -1) {
        switch (option) {
        case 'g':
            guest = optarg;
            break;
        case 'd':
            device = optarg;
            break;
        case 'j':
            json = true;
            break;
        case 'v':
            pv_log_set_level(PV_LOG_DEBUG);
            break;
        case 'h':
            print_help();
            return PV_EXIT_OK;
        default:
            return pv_option_error("doctor", option, argv);
        }
    }
    if (optind < argc)
        return pv_usage_error("doctor", "\"%s\" is too much", argv[optind]);
    if (device && !guest)
        return pv_usage_error("doctor", "--device is for --guest");
    return guest ? pv_doctor_guest(guest, device, json) : examine(json);
}
