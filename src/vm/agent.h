/* The guest agent (qemu-guest-agent), through which commands are started in the guest.
 *
 * Spec:    QEMU, docs/interop/qemu-ga-ref.
 * Trust:   all answers are the guest's.
 * Threads: that of the event loop.
 */
#ifndef PV_VM_AGENT_H
#define PV_VM_AGENT_H

#include "vm/rpc.h"

#include <stdbool.h>
#include <stdint.h>

struct pv_agent;

struct pv_agent_events {
    /* The agent answers: calls may be made. Comes again when the guest has restarted. */
    void (*ready)(void *data);
    void (*lost)(void *data, const char *why);
};

/* `fd` is taken over on success. The agent is greeted at once; it answers when the guest is up. */
int pv_agent_create(uv_loop_t *loop, int fd, const struct pv_agent_events *events, void *data,
                    struct pv_agent **out);
void pv_agent_destroy(struct pv_agent *agent); /* NULL is fine */

/* Greet it again: it was started anew. */
void pv_agent_sync(struct pv_agent *agent);

/* Start argv[0], an absolute path, with `env` (NULL-terminated NAME=value) as its environment.
 * `started` gets the guest's pid, or -1 and the reason. */
typedef void (*pv_agent_started)(void *data, int64_t pid, const char *error);
int pv_agent_exec(struct pv_agent *agent, char *const *argv, const char *const *env,
                  pv_agent_started started, void *data);

struct pv_agent_status {
    bool exited;
    int exit_code; /* as of a shell: 128 + n for signal n */
};
/* How the process does. `error`: it cannot be told. */
typedef void (*pv_agent_status_done)(void *data, const struct pv_agent_status *status,
                                     const char *error);
int pv_agent_exec_status(struct pv_agent *agent, int64_t pid, pv_agent_status_done done,
                         void *data);

/* Shut the guest down. There is no answer. */
void pv_agent_shutdown(struct pv_agent *agent);

/* For tests: read the answer to guest-exec-status. -EBADMSG if it is not one. */
int pv_agent_parse_status(struct json_object *object, struct pv_agent_status *out);

#endif
