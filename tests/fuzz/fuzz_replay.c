/* Hostile streams, the same ones in every run.
 *
 *   fuzz_replay [--seconds N] [--seed N] [--case N] RECORDING... --commands COMMANDS
 *
 * COMMANDS is what make_corpus.py wrote: its first session makes an object of every type, its
 * second has every command. In order:
 *   1. every command of COMMANDS alone: it decodes to its end
 *   2. every message of the recordings and one variant of every command, cut off after each 4
 * bytes: the context fails
 *   3. random mutations of sessions and commands, until the time is over; case N depends on the
 * seed and N alone, and --case runs just that one
 *   4. now and then a mutated session through a ring, and a healthy session, which must succeed
 */
#include "harness.h"
#include "mutate.h"
#include "null/null_driver.h"
#include "util/os.h"
#include "venus/protocol.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct input {
    struct pv_replay_session *session;
    struct fuzz_message *messages; /* those that need no ring */
    size_t count;
};

static struct input sessions[16];
static unsigned session_count;
static struct input base, commands;
static uint64_t seed = 1;
static uint64_t running; /* case, for the message of a crash */
static struct pv_host_caps caps;
static uint64_t cases, failures;

static void load(const char *path, struct input *out, unsigned first, unsigned room)
{
    struct pv_replay_session *loaded;
    size_t count;
    char error[256];
    if (pv_replay_load(path, &loaded, &count, error, sizeof(error)) < 0) {
        fprintf(stderr, "%s\n", error);
        exit(1);
    }
    for (unsigned i = 0; i < count && i < room; i++) {
        struct input *input = &out[first + i];
        input->session = &loaded[i];
        input->messages = calloc(loaded[i].line_count + 1, sizeof(*input->messages));
        if (!input->messages)
            exit(1);
        input->count = fuzz_direct_messages(&loaded[i], input->messages);
    }
}

/* ---- 1. every command -------------------------------------------------------------------------
 */

/* What handlers and the wire rules say to commands that are well formed. */
static bool is_no_decoder_error(const char *reason)
{
    static const char *const decoder[] = {
        "cut short",
        "longer than",
        "pointer flag",
        "must not be null",
        "no wire form",
        "differs from",
        "wrong count",
        "not terminated",
        "unknown object",
        "of another type",
        "another device",
        "may not be in",
        "wrong sType",
        "union",
        "unknown command",
        "multiple of 4",
        NULL,
    };
    for (unsigned i = 0; decoder[i]; i++) {
        if (strstr(reason, decoder[i]))
            return false;
    }
    return true;
}

static void run_commands(bool verbose)
{
    struct fuzz_message *messages = calloc(base.count + 1, sizeof(*messages));
    struct fuzz_outcome outcome;
    unsigned bad = 0, ran = 0, refused = 0;
    if (!messages)
        exit(1);
    memcpy(messages, base.messages, base.count * sizeof(*messages));
    for (size_t i = 0; i < commands.count; i++) {
        messages[base.count] = commands.messages[i];
        const struct fuzz_run run = {.messages = messages, .count = base.count + 1};
        fuzz_execute(&run, &outcome);
        if (outcome.failed && (outcome.sent < base.count || !is_no_decoder_error(outcome.reason))) {
            fprintf(stderr, "fuzz: command %zu: %s\n", i, outcome.reason);
            bad++;
        }
        ran += !outcome.failed;
        refused += outcome.failed;
        if (verbose && outcome.failed)
            printf("fuzz: refused: %s\n", outcome.reason);
    }
    free(messages);
    printf("fuzz: %u commands ran, %u were refused by their handler, %u do not decode\n", ran,
           refused - bad, bad);
    if (bad > 0)
        exit(1);
}

/* ---- 2. cut off -------------------------------------------------------------------------------
 */

static uint64_t cut_message(const struct input *input, size_t prefix_count, size_t index)
{
    const struct fuzz_message *whole = &input->messages[index];
    struct fuzz_message *messages = calloc(prefix_count + 1, sizeof(*messages));
    struct fuzz_outcome outcome;
    uint64_t count = 0;
    if (!messages)
        exit(1);
    const struct input *prefix = input == &commands ? &base : input;
    memcpy(messages, prefix->messages, prefix_count * sizeof(*messages));
    /* long blobs are all alike: fewer cuts there */
    size_t step = whole->size <= 512 ? 4 : whole->size / 512 * 4;
    for (size_t size = 4; size < whole->size; size += step) {
        uint8_t *copy = malloc(size); /* its own: reading past the end shows */
        if (!copy)
            exit(1);
        memcpy(copy, whole->data, size);
        messages[prefix_count] = (struct fuzz_message){copy, size};
        const struct fuzz_run run = {.messages = messages, .count = prefix_count + 1};
        fuzz_execute(&run, &outcome);
        free(copy);
        count++;
        if (outcome.failed)
            continue;
        fprintf(stderr, "fuzz: message %zu cut to %zu of %zu bytes is accepted\n", index, size,
                whole->size);
        exit(1);
    }
    free(messages);
    return count;
}

static void run_cuts(uint64_t end_ns)
{
    uint64_t count = 0;
    size_t stride = 7; /* make_corpus.py writes 6 variants: takes each in turn */
    for (size_t i = 0; i < commands.count && pv_now_ns() < end_ns; i += stride)
        count += cut_message(&commands, base.count, i);
    for (unsigned s = 0; s < session_count; s++) {
        for (size_t i = 0; i < sessions[s].count && pv_now_ns() < end_ns; i++)
            count += cut_message(&sessions[s], i, i);
    }
    printf("fuzz: %llu messages cut off\n", (unsigned long long)count);
}

/* ---- 3. mutations -----------------------------------------------------------------------------
 */

static void run_case(uint64_t number)
{
    struct fuzz_random random;
    struct fuzz_case c;
    struct fuzz_outcome outcome;
    fuzz_random_seed(&random, seed * 1000003 + number);
    fuzz_case_init(&c);
    size_t keep = 0;
    if (fuzz_random_below(&random, 3) == 0 && session_count > 0) {
        const struct input *input = &sessions[fuzz_random_below(&random, session_count)];
        for (size_t i = 0; i < input->count; i++)
            fuzz_case_insert(&c, i, input->messages[i].data, input->messages[i].size);
    } else {
        for (size_t i = 0; i < base.count; i++)
            fuzz_case_insert(&c, i, base.messages[i].data, base.messages[i].size);
        keep = fuzz_random_below(&random, 4) ? base.count : 0;
        for (uint32_t n = 1 + fuzz_random_below(&random, 6); n > 0; n--) {
            const struct fuzz_message *m =
                &commands.messages[fuzz_random_below(&random, (uint32_t)commands.count)];
            fuzz_case_insert(&c, c.count, m->data, m->size);
        }
    }
    fuzz_mutate(&c, keep, &random, commands.messages, commands.count);
    fuzz_execute(&c.run, &outcome);
    cases++;
    failures += outcome.failed;
    fuzz_case_finish(&c);
}

/* ---- 4. through a ring ------------------------------------------------------------------------
 */

static void run_ring(uint64_t number, bool healthy)
{
    struct fuzz_random random;
    struct pv_replay_result result;
    fuzz_random_seed(&random, seed * 7919 + number);
    const struct pv_replay_session *session =
        sessions[fuzz_random_below(&random, session_count)].session;
    const struct pv_replay_params params = {
        .caps = &caps,
        .offer_dma_buf = true,
        .timeout_ns = healthy ? 0 : 100000000,
    };
    if (healthy) {
        if (pv_replay_run(session, &params, &result) == 0)
            return;
        fprintf(stderr, "fuzz: FAILED: a healthy session does not run after case %llu: %s\n",
                (unsigned long long)number, result.reason);
        exit(1);
    }
    size_t at = fuzz_random_below(&random, (uint32_t)session->line_count);
    struct pv_replay_line *line = &session->lines[at];
    if (line->kind == PV_REPLAY_REPLY || line->size < 8)
        return;
    struct pv_replay_line whole = *line;
    line->data = malloc(whole.size);
    if (!line->data)
        exit(1);
    memcpy(line->data, whole.data, whole.size);
    if (fuzz_random_below(&random, 4) == 0)
        line->size = 4 * (size_t)fuzz_random_below(&random, (uint32_t)(whole.size / 4));
    for (uint32_t n = fuzz_random_below(&random, 4); n > 0 && line->size > 0; n--)
        line->data[fuzz_random_below(&random, (uint32_t)line->size)] ^=
            (uint8_t)(1u << fuzz_random_below(&random, 8));
    atomic_store(&null_driver.lenient, true); /* the guest's threads may race with each other */
    pv_replay_run(session, &params, &result);
    atomic_store(&null_driver.lenient, false);
    free(line->data);
    *line = whole;
}

/* ---- main -------------------------------------------------------------------------------------
 */

static void say_case(int signal_number)
{
    char text[128];
    int size = snprintf(text, sizeof(text), "fuzz: crash in case %llu: --seed %llu --case %llu\n",
                        (unsigned long long)running, (unsigned long long)seed,
                        (unsigned long long)running);
    if (write(2, text, (size_t)size) < 0)
        _exit(1);
    if (signal_number) {
        signal(signal_number, SIG_DFL);
        raise(signal_number);
    }
}

void __sanitizer_set_death_callback(void (*callback)(void)) __attribute__((weak));

static void on_death(void)
{
    say_case(0);
}

int main(int argc, char **argv)
{
    uint64_t seconds = 20;
    long long only = -1;
    bool verbose = false;
    struct input both[2] = {0};
    for (int i = 1; i < argc; i++) {
        bool more = i + 1 < argc;
        if (strcmp(argv[i], "--seconds") == 0 && more)
            seconds = strtoull(argv[++i], NULL, 0);
        else if (strcmp(argv[i], "--seed") == 0 && more)
            seed = strtoull(argv[++i], NULL, 0);
        else if (strcmp(argv[i], "--case") == 0 && more)
            only = strtoll(argv[++i], NULL, 0);
        else if (strcmp(argv[i], "--commands") == 0 && more)
            load(argv[++i], both, 0, 2);
        else if (strcmp(argv[i], "--verbose") == 0)
            verbose = true;
        else {
            load(argv[i], sessions, session_count, 16 - session_count);
            while (session_count < 16 && sessions[session_count].session)
                session_count++;
        }
    }
    base = both[0];
    commands = both[1];
    if (!commands.session || session_count == 0) {
        fprintf(stderr, "usage: fuzz_replay [--seconds N] [--seed N] [--case N] [--verbose] "
                        "RECORDING... --commands COMMANDS\n");
        return 1;
    }
    if (__sanitizer_set_death_callback)
        __sanitizer_set_death_callback(on_death);
    else
        signal(SIGSEGV, say_case);
    signal(SIGABRT, say_case);
    fuzz_begin();
    null_driver_caps(&caps);
    if (only >= 0) {
        running = (uint64_t)only;
        run_case(running);
    } else {
        uint64_t begin = pv_now_ns(), end = begin + seconds * 1000000000u;
        run_commands(verbose);
        run_cuts(begin + (end - begin) / 2);
        for (; pv_now_ns() < end || running < 100; running++) {
            run_case(running);
            if (running % 64 == 0)
                run_ring(running, false);
            if (running % 512 == 0)
                run_ring(running, true);
        }
        run_ring(running, true);
        printf("fuzz: %llu cases, in %llu of them the context failed\n", (unsigned long long)cases,
               (unsigned long long)failures);
    }
    fuzz_end();
    return 0;
}
