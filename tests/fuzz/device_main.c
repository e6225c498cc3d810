/* Runs a fuzz target without libFuzzer:
 *
 *   fuzz_… FILE...                        these inputs
 *   fuzz_… --seconds N [--seed S]         inputs made by the target
 *   fuzz_… --write COUNT FOLDER           the same as files: a corpus for libFuzzer to begin with
 */
#include "device_input.h"
#include "util/log.h"
#include "util/os.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint64_t state = 1;

static uint32_t below(uint32_t limit)
{
    state = state * UINT64_C(6364136223846793005) + 1442695040888963407u;
    return (uint32_t)(state >> 33) % limit;
}

/* Every run has its own state, so that a failing one can be had again by its seed. */
static size_t make(uint64_t seed, uint8_t out[FUZZ_INPUT_MAX])
{
    state = seed * UINT64_C(0x9e3779b97f4a7c15) + 1;
    size_t size = fuzz_make_input(out, below);
    for (uint32_t n = below(3) ? below(8) : 0; n > 0 && size > 0; n--)
        out[below((uint32_t)size)] = (uint8_t)below(256);
    return size;
}

static int run_file(const char *path)
{
    static uint8_t bytes[FUZZ_INPUT_MAX];
    FILE *file = fopen(path, "rb");
    if (!file) {
        perror(path);
        return 1;
    }
    size_t size = fread(bytes, 1, sizeof(bytes), file);
    fclose(file);
    LLVMFuzzerTestOneInput(bytes, size);
    return 0;
}

static int write_corpus(uint64_t count, const char *folder)
{
    uint8_t bytes[FUZZ_INPUT_MAX];
    for (uint64_t seed = 1; seed <= count; seed++) {
        char path[4096];
        snprintf(path, sizeof(path), "%s/%llu", folder, (unsigned long long)seed);
        size_t size = make(seed, bytes);
        FILE *file = fopen(path, "wb");
        if (!file || fwrite(bytes, 1, size, file) != size || fclose(file) != 0) {
            perror(path);
            return 1;
        }
    }
    return 0;
}

static void run_for(uint64_t seconds, uint64_t seed)
{
    uint8_t bytes[FUZZ_INPUT_MAX];
    uint64_t runs = 0, end = pv_now_ns() + seconds * UINT64_C(1000000000);
    for (; pv_now_ns() < end; runs++, seed++) {
        size_t size = make(seed, bytes);
        uint8_t *copy = malloc(size ? size : 1); /* exactly as long, for AddressSanitizer */
        if (!copy)
            exit(1);
        memcpy(copy, bytes, size);
        fprintf(stderr, "\rseed %llu ", (unsigned long long)seed); /* the last one is to blame */
        LLVMFuzzerTestOneInput(copy, size);
        free(copy);
    }
    printf("%llu runs\n", (unsigned long long)runs);
}

int main(int argc, char **argv)
{
    uint64_t seconds = 10, seed = 1;
    pv_log_set_level(PV_LOG_ERROR);
    if (argc == 4 && strcmp(argv[1], "--write") == 0)
        return write_corpus(strtoull(argv[2], NULL, 0), argv[3]);
    if (argc > 1 && argv[1][0] != '-') {
        int ret = 0;
        for (int i = 1; i < argc; i++)
            ret |= run_file(argv[i]);
        return ret;
    }
    for (int i = 1; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--seconds") == 0)
            seconds = strtoull(argv[i + 1], NULL, 0);
        else if (strcmp(argv[i], "--seed") == 0)
            seed = strtoull(argv[i + 1], NULL, 0);
    }
    run_for(seconds, seed);
    return 0;
}
