/* Replay: recorded Venus traffic, run through a context without a client.
 *
 * A recording is a text file: fuzzing, benchmarks and bug reports start from one.
 *
 *   # comment
 *   == name                  a session begins
 *   V <command> <hex>        command on the context stream
 *   C <command> <hex>        command on the ring
 *   R <command> <hex>        its reply, or "(N bytes)" where the bytes were left out
 *
 * One command per line, the lines of each stream in the order of sending. How the two streams lay
 * side by side follows from them: vkWaitRingSeqnoMESA and vkNotifyRingMESA name a position in the
 * ring, and what comes after a command of the context stream was sent after it. The player does
 * what the guest did: it makes the shared memory that commands name, writes ring commands, moves
 * the tail, waits for the head, makes blobs of device memory and asks for fences at the places
 * where Mesa does.
 *
 * Trust:   lines may hold anything; the player survives what the context survives.
 * Threads: one session at a time per thread; callbacks come on the calling thread.
 */
#ifndef PV_TRANSPORT_REPLAY_H
#define PV_TRANSPORT_REPLAY_H

#include "venus/context.h"

enum pv_replay_kind {
    PV_REPLAY_CONTEXT, /* V */
    PV_REPLAY_RING,    /* C */
    PV_REPLAY_REPLY,   /* R, to the C line before */
};

struct pv_replay_line {
    enum pv_replay_kind kind;
    char name[64];
    uint8_t *data; /* owned by the session; NULL for a reply of which only the length is known */
    size_t size;   /* bytes */
};

struct pv_replay_session {
    char name[64];
    struct pv_replay_line *lines;
    size_t line_count;
};

/* Read a recording. Returns 0; -errno if it cannot be opened; -EINVAL for a line that is no such
 * line and -ENOMEM, with one line in `error`. Release with pv_replay_free(). */
int pv_replay_load(const char *path, struct pv_replay_session **out, size_t *out_count, char *error,
                   size_t error_size);
void pv_replay_free(struct pv_replay_session *sessions, size_t count);

struct pv_replay_params {
    const struct pv_host_caps *caps; /* borrowed during the call */
    int device_index;
    bool offer_dma_buf;
    /* No ring: ring commands go through the context stream, and commands about rings are left out.
     * Deterministic, and fast enough for fuzzing. */
    bool direct;
    uint64_t timeout_ns; /* for one command; 0: 10 s */
    /* May be NULL. The reply to session->lines[line]; bytes are borrowed during the call. */
    void (*reply)(void *data, const struct pv_replay_session *session, size_t line,
                  const uint8_t *bytes, size_t size);
    void *data;
};

struct pv_replay_result {
    struct pv_context_stats stats; /* at the end, before the context is destroyed */
    size_t commands;               /* lines that were sent */
    size_t blobs, fences;          /* made, signalled */
    char reason[256];              /* why the context failed; empty if it did not */
};

/* Play a session. Returns 0; -EIO if the context failed; -ETIMEDOUT if a command did not end in
 * time; -EMSGSIZE if a line is larger than the ring; -ENOMEM. `result` (may be NULL) is set always.
 */
int pv_replay_run(const struct pv_replay_session *session, const struct pv_replay_params *params,
                  struct pv_replay_result *result);

#endif
