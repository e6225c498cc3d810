/* The proof of acceleration: pearvisor doctor --guest IMAGE.
 *
 *   doctor ── pv-challenge, seed ──► guest ──► Mesa Venus ──► our worker ──► the host's driver
 *          ◄── device, pixels ────────┘
 *
 * The program travels on the standard input of the guest's shell and its picture on the standard
 * output, so the image needs nothing but Mesa.
 */
#include "cli/commands.h"
#include "cli/doctor_vm.h"
#include "cli/vm_options.h"
#include "util/log.h"
#include "util/os.h"
#include "vm/challenge.h"
#include "vm/machine.h"
#include "vm/paths.h"

#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PV_LOG_MODULE "doctor"

#define GUEST_MEMORY_MIB 2048u
#define GUEST_CPUS       2u
#define PROOF_TIMEOUT_S  120u
/* VkDriverId of Mesa's Venus driver. */
#define DRIVER_ID_MESA_VENUS 22

#define PIXEL_BYTES ((size_t)PV_CHALLENGE_SIZE * PV_CHALLENGE_SIZE * 4)
/* Header lines, and what a shell may say before them. */
#define ANSWER_MAX (PIXEL_BYTES + 4096)

struct proof {
    uint32_t seed;
    double seconds;
    int exit_status;
    bool answered;
    int driver_id;
    char device[256];
    size_t wrong_pixels;
    const char *verdict; /* NULL: it is the host's GPU */
};

static const char guest_script[] =
    "set -e; f=$(mktemp); cat >$f; chmod +x $f\n"
    "icd=$(ls /usr/share/vulkan/icd.d/virtio_icd*.json 2>/dev/null | head -n 1)\n"
    "[ -n \"$icd\" ] || { echo 'the guest has no Venus driver' >&2; exit 3; }\n"
    "VK_DRIVER_FILES=$icd exec $f \"$1\"";

static uint32_t draw_seed(void)
{
    uint32_t seed = 0;
    if (pv_random(&seed, sizeof(seed)) < 0)
        seed = (uint32_t)pv_now_ns();
    return seed;
}

/* Read the lines in front of the pixels; returns where these begin, or NULL. */
static const uint8_t *parse_header(struct proof *proof, const char *answer, size_t size)
{
    const char *line = memmem(answer, size, PV_CHALLENGE_MAGIC "\n", sizeof(PV_CHALLENGE_MAGIC));
    if (!line)
        return NULL;
    line += sizeof(PV_CHALLENGE_MAGIC);
    size_t left = size - (size_t)(line - answer);
    const char *end = memchr(line, '\n', left);
    if (!end || left - (size_t)(end + 1 - line) < PIXEL_BYTES)
        return NULL;
    char text[300];
    snprintf(text, sizeof(text), "%.*s", (int)(end - line), line);
    if (sscanf(text, "%d %255[^\n]", &proof->driver_id, proof->device) != 2)
        return NULL;
    return (const uint8_t *)end + 1;
}

static size_t count_wrong(uint32_t seed, const uint8_t *pixels)
{
    size_t wrong = 0;
    for (uint32_t y = 0; y < PV_CHALLENGE_SIZE; y++) {
        for (uint32_t x = 0; x < PV_CHALLENGE_SIZE; x++, pixels += 4) {
            uint32_t got = pixels[0] | (uint32_t)pixels[1] << 8 | (uint32_t)pixels[2] << 16 |
                           (uint32_t)pixels[3] << 24;
            wrong += got != pv_challenge_pixel(seed, x, y);
        }
    }
    return wrong;
}

static void judge(struct proof *proof, int answer_fd)
{
    char *answer = malloc(ANSWER_MAX);
    ssize_t size = answer ? pread(answer_fd, answer, ANSWER_MAX, 0) : -1;
    const uint8_t *pixels = size > 0 ? parse_header(proof, answer, (size_t)size) : NULL;
    if (pixels) {
        proof->answered = true;
        proof->wrong_pixels = count_wrong(proof->seed, pixels);
    }
    free(answer);

    if (proof->exit_status != 0)
        proof->verdict = "the guest could not render";
    else if (!proof->answered)
        proof->verdict = "the guest answered something else than a picture";
    else if (proof->driver_id != DRIVER_ID_MESA_VENUS)
        proof->verdict = "the guest rendered without Venus";
    else if (proof->wrong_pixels > 0)
        proof->verdict = "the picture is wrong";
}

/* Boot the image and have it answer into `answer_fd`. */
static int boot(struct proof *proof, struct pv_image *image, const char *device, int program_fd,
                int answer_fd)
{
    char seed[16], cmdline[1024], why[256];
    char *command[] = {"sh", "-c", (char *)guest_script, "sh", seed, NULL};
    struct pv_argv gpu_options = {0};
    struct pv_qemu qemu = {0};
    struct pv_vm_config vm = {
        .arch = image->arch,
        .cpus = GUEST_CPUS,
        .memory_mib = GUEST_MEMORY_MIB,
        .snapshot = true,
        .no_reboot = true,
        .kernel = image->kernel,
        .initrd = image->initrd,
        .disk = image->disk,
        .disk_format = "raw",
        .cmdline = cmdline,
    };
    if (pv_need_qemu(image->arch, &qemu) < 0)
        return -ENOENT;
    pv_accel_choose(PV_ACCEL_AUTO, image->arch, &vm.accel, why, sizeof(why));
    pv_image_cmdline(image, vm.accel, false, cmdline, sizeof(cmdline));
    snprintf(seed, sizeof(seed), "%u", proof->seed);
    if (device)
        pv_argv_option(&gpu_options, "--device", "%s", device);
    pv_argv_option(&gpu_options, "--log", "warn");

    const struct pv_machine_params machine = {
        .qemu = &qemu,
        .vm = vm,
        .name = image->name,
        .gpu = true,
        .gpu_options = gpu_options.items,
        .command = command,
        .stdin_fd = program_fd,
        .stdout_fd = answer_fd,
        .stderr_fd = STDERR_FILENO,
        .timeout_s = PROOF_TIMEOUT_S,
    };
    uint64_t start = pv_now_ns();
    proof->exit_status = pv_machine_run(&machine);
    proof->seconds = (double)(pv_now_ns() - start) / 1e9;
    pv_argv_finish(&gpu_options);
    pv_qemu_finish(&qemu);
    return 0;
}

static void print_proof(const struct proof *proof, const char *image)
{
    printf("Guest %s, %.1f s from its start to its end\n", image, proof->seconds);
    if (proof->answered) {
        printf("  device     %s\n", proof->device);
        printf("  picture    %ux%u pixels of seed %u, %zu of them wrong\n", PV_CHALLENGE_SIZE,
               PV_CHALLENGE_SIZE, proof->seed, proof->wrong_pixels);
    }
    if (proof->verdict)
        printf("\nNOT proven: %s.\n", proof->verdict);
    else
        printf("\nProven: the guest renders on the host's GPU.\n");
}

static void print_proof_json(const struct proof *proof, const char *image)
{
    struct json_object *root = json_object_new_object();
    json_object_object_add(root, "image", json_object_new_string(image));
    json_object_object_add(root, "proven", json_object_new_boolean(!proof->verdict));
    json_object_object_add(root, "problem",
                           proof->verdict ? json_object_new_string(proof->verdict) : NULL);
    json_object_object_add(root, "device", json_object_new_string(proof->device));
    json_object_object_add(root, "driver_id", json_object_new_int(proof->driver_id));
    json_object_object_add(root, "seed", json_object_new_int64(proof->seed));
    json_object_object_add(root, "wrong_pixels",
                           json_object_new_int64((int64_t)proof->wrong_pixels));
    json_object_object_add(root, "seconds", json_object_new_double(proof->seconds));
    puts(json_object_to_json_string_ext(root,
                                        JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_NOSLASHESCAPE));
    json_object_put(root);
}

int pv_doctor_guest(const char *name, const char *device, bool json)
{
    char program[1024];
    int program_fd = -1, lock = -1;
    FILE *answer = NULL;
    struct proof proof = {.seed = draw_seed()};
    int status = PV_EXIT_FAILED;
    struct pv_image *image = calloc(1, sizeof(*image));
    if (!image || pv_need_image(name, image) < 0)
        goto out;
    if (image->arch != pv_arch_of_host()) {
        pv_error("the image %s is for %s; the program that it has to run is for %s", name,
                 pv_arch_name(image->arch), pv_arch_name(pv_arch_of_host()));
        goto out;
    }
    if (pv_program_path("pv-challenge", program, sizeof(program)) < 0) {
        pv_error("%s is missing; is PearVisor installed completely?", program);
        goto out;
    }
    program_fd = open(program, O_RDONLY | O_CLOEXEC);
    answer = tmpfile();
    if (program_fd < 0 || !answer) {
        pv_error("cannot open %s: %s", program_fd < 0 ? program : "a temporary file",
                 strerror(errno));
        goto out;
    }
    lock = pv_image_lock(image, false);
    if (lock < 0) {
        pv_error("the image %s is in use by a virtual machine that keeps its changes", name);
        goto out;
    }
    if (boot(&proof, image, device, program_fd, fileno(answer)) < 0)
        goto out;
    judge(&proof, fileno(answer));
    if (json)
        print_proof_json(&proof, name);
    else
        print_proof(&proof, name);
    status = proof.verdict ? PV_EXIT_FAILED : PV_EXIT_OK;
out:
    if (lock >= 0)
        close(lock);
    if (answer)
        fclose(answer);
    if (program_fd >= 0)
        close(program_fd);
    free(image);
    return status;
}
