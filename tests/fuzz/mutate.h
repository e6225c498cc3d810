/* Deterministic mutations of what a guest sends. */
#ifndef PV_TESTS_FUZZ_MUTATE_H
#define PV_TESTS_FUZZ_MUTATE_H

#include "harness.h"

struct fuzz_random {
    uint64_t state;
};
void fuzz_random_seed(struct fuzz_random *random, uint64_t seed);
uint32_t fuzz_random_below(struct fuzz_random *random, uint32_t limit);

/* Messages of a case; each is a copy that may be changed. */
struct fuzz_case {
    struct fuzz_message *messages; /* owned, with what they point to */
    size_t count, room;
    struct fuzz_run run; /* its messages are these */
};

void fuzz_case_init(struct fuzz_case *c);
void fuzz_case_finish(struct fuzz_case *c);
void fuzz_case_insert(struct fuzz_case *c, size_t at, const void *data, size_t size);

/* Change something; `splice` are whole commands to put in between. Does not touch the first `keep`
 * messages. */
void fuzz_mutate(struct fuzz_case *c, size_t keep, struct fuzz_random *random,
                 const struct fuzz_message *splice, size_t splice_count);

#endif
