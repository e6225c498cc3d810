/* Calls in JSON over a socket, one object per line: what QEMU's monitor (QMP) and the guest agent
 * have in common.
 *
 *   ──► {"execute": "query-status", "id": 4}
 *   ◄── {"return": {...}, "id": 4}    or {"error": {"class": ..., "desc": ...}, "id": 4}
 *   ◄── {"event": "SHUTDOWN", "data": {...}}
 *
 * Spec:    QEMU, docs/interop/qmp-spec.rst and qemu-ga-ref.
 * Trust:   the agent's side is written by the guest. Lines are bounded, JSON is bounded in depth,
 *          and what was not asked for is dropped.
 * Threads: that of the event loop.
 */
#ifndef PV_VM_RPC_H
#define PV_VM_RPC_H

#include <stddef.h>

/* Longest line. Answers to what we ask have some hundred bytes. */
#define PV_RPC_LINE_MAX (256u << 10)

struct pv_rpc;
struct json_object;
typedef struct uv_loop_s uv_loop_t;

struct pv_rpc_events {
    /* `data_object` is borrowed and may be NULL. This op may be NULL. */
    void (*event)(void *data, const char *name, struct json_object *data_object);
    /* The connection has ended, or its other side talks nonsense. Pending calls get no answer. */
    void (*lost)(void *data, const char *why);
};

/* One of `result` (borrowed) and `error` is NULL. */
typedef void (*pv_rpc_done)(void *data, struct json_object *result, const char *error);

/* `fd` is taken over on success. Returns 0, -ENOMEM, or what libuv said. */
int pv_rpc_create(uv_loop_t *loop, int fd, const struct pv_rpc_events *events, void *data,
                  struct pv_rpc **out);
/* Pending calls fail during this call; no callback comes after it. The memory goes when the loop
 * has run once more. NULL is fine. */
void pv_rpc_destroy(struct pv_rpc *rpc);

/* `arguments` is taken over (NULL: none); `done` may be NULL. An answer that never comes is the
 * caller's to time out. Returns 0 or a negative errno, and then `done` is not called. */
int pv_rpc_call(struct pv_rpc *rpc, const char *command, struct json_object *arguments,
                pv_rpc_done done, void *data);
/* The same, behind a byte that makes the guest agent forget what half a line it has read. */
int pv_rpc_call_delimited(struct pv_rpc *rpc, const char *command, struct json_object *arguments,
                          pv_rpc_done done, void *data);

/* The line splitter and parser alone, for tests and fuzzing: bytes in, objects out. {0} is empty.
 */
struct pv_rpc_input {
    char *line; /* owned */
    size_t used;
};
typedef void (*pv_rpc_object)(void *data, struct json_object *object);
/* Calls `found` for each complete line that is a JSON object. Returns 0, -EMSGSIZE for a line
 * beyond PV_RPC_LINE_MAX, -EBADMSG for one that is no JSON object, -ENOMEM. `found` must not free
 * the input. */
int pv_rpc_input_feed(struct pv_rpc_input *input, const char *bytes, size_t size,
                      pv_rpc_object found, void *data);
void pv_rpc_input_finish(struct pv_rpc_input *input);

#endif
