/* A context on the null driver for libFuzzer: the input is the context stream.
 *
 *   fuzz_context CORPUS_DIR          (built where the compiler has -fsanitize=fuzzer)
 *
 * The environment names what comes before the input, so that it starts with objects of every type:
 *   PV_FUZZ_BASE=build/tests/fuzz/commands.txt
 */
#include "harness.h"

#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct fuzz_message *messages; /* the base, and room for the input */
static size_t base_count;

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    static struct pv_replay_session *sessions; /* what the messages point to */
    size_t count = 0;
    char error[256];
    const char *path = getenv("PV_FUZZ_BASE");
    if (path && pv_replay_load(path, &sessions, &count, error, sizeof(error)) < 0) {
        fprintf(stderr, "%s\n", error);
        exit(1);
    }
    size_t lines = count > 0 ? sessions[0].line_count : 0;
    messages = calloc(lines + 1, sizeof(*messages));
    if (!messages)
        exit(1);
    if (count > 0)
        base_count = fuzz_direct_messages(&sessions[0], messages);
    fuzz_begin();
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_outcome outcome;
    messages[base_count] = (struct fuzz_message){data, size};
    const struct fuzz_run run = {
        .messages = messages,
        .count = base_count + 1,
        .stream = {data, size},
    };
    fuzz_execute(&run, &outcome);
    return 0;
}
