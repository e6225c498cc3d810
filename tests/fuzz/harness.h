/* One hostile guest at a time: a context on the null driver, what it is sent, and what must hold
 * afterwards.
 *
 * After every run: the context failed at most once, with one line of reason, and then answers -EIO;
 * or it did not fail. When it is destroyed no object of the driver is left. A bystander, a second
 * context that lives as long as the program, still answers.
 *
 * Anything else ends the program with a message and the messages that led there.
 */
#ifndef PV_TESTS_FUZZ_HARNESS_H
#define PV_TESTS_FUZZ_HARNESS_H

#include "transport/replay/replay.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Shared memory that every run has. */
#define FUZZ_RING_RESOURCE   1u /* room for a ring of Mesa's layout */
#define FUZZ_REPLY_RESOURCE  2u
#define FUZZ_STREAM_RESOURCE 3u /* starts with struct fuzz_run.stream */
#define FUZZ_RING_SIZE       131268u
#define FUZZ_REPLY_SIZE      (1024u * 1024u)
#define FUZZ_STREAM_SIZE     (64u * 1024u)

struct fuzz_message {
    const uint8_t *data;
    size_t size;
};

struct fuzz_run {
    const struct fuzz_message *messages; /* sent one after the other, until the context fails */
    size_t count;
    struct fuzz_message stream; /* for vkExecuteCommandStreamsMESA */
    /* after the messages, if it has not failed: */
    uint64_t blob_id; /* make a blob of this memory object; 0: none */
    uint64_t blob_size;
    uint32_t fence_ring_idx; /* ask for a fence; 0: none */
    int fail_in;             /* see struct null_driver */
};

struct fuzz_outcome {
    bool failed;
    char reason[256];
    size_t sent; /* messages */
};

/* Once, before the rest. */
void fuzz_begin(void);
/* Let the bystander go and look for what is left. */
void fuzz_end(void);
void fuzz_execute(const struct fuzz_run *run, struct fuzz_outcome *out);

/* The messages of a recorded session that need no ring. Returns their number; `out` (of
 * session->line_count elements) borrows from the session. */
size_t fuzz_direct_messages(const struct pv_replay_session *session, struct fuzz_message *out);

#endif
