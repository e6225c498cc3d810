/* One vtest client, served from its first message to its end.
 *
 *   client ── requests ──► connection ──► session ──► pv_context (commands, blobs, fences)
 *          ◄─ replies, fds ──────────────┘   └──────► syncs ◄── fences have signalled
 *
 * How a session ends, and what the client sees:
 *
 *   it closes the connection     nothing more
 *   it sends nonsense            rings FATAL, connection closed
 *   its context fails            rings FATAL; what it had asked already is answered (a blob with a
 *                                dummy), then the connection is closed: Mesa would spin for ever
 *                                waiting for an answer on a closed socket
 *   we are told to stop          the same
 *
 * Spec:    vtest protocol 3 and 4.
 * Trust:   guest-facing; every word is hostile.
 * Threads: all on one, the context thread, except where it says so.
 */
#ifndef PV_TRANSPORT_VTEST_SESSION_H
#define PV_TRANSPORT_VTEST_SESSION_H

#include "venus/context.h"

#include <stdbool.h>
#include <stdint.h>

struct pv_session;

/* How swapchain images travel to the client's display: see docs/architecture.md. */
enum pv_wsi_path {
    PV_WSI_AUTO,    /* dma-buf for clients that know nothing else (Mesa before 26), else shm */
    PV_WSI_DMA_BUF, /* always offer dma-buf */
    PV_WSI_SHM,     /* offer it only if the host has real ones */
};

enum pv_session_end {
    PV_SESSION_CLOSED,         /* by the client */
    PV_SESSION_BAD_INPUT,      /* the client broke the vtest protocol */
    PV_SESSION_CONTEXT_FAILED, /* the client broke the Venus protocol */
    PV_SESSION_STOPPED,        /* by us */
    PV_SESSION_REFUSED,        /* too many clients; told so at the handshake */
    PV_SESSION_HOST_ERROR,     /* out of memory, of fds */
};

struct pv_session_params {
    int fd;                          /* borrowed: the connected socket */
    uint32_t id;                     /* for messages */
    const struct pv_host_caps *caps; /* borrowed, must outlive the session */
    int device_index;                /* see struct pv_context_params */
    enum pv_wsi_path wsi;
    /* Turn the client away: it is told that we have no protocol version in common, upon which
     * vkCreateInstance returns VK_ERROR_INITIALIZATION_FAILED. A closed socket would hang it. */
    bool refuse;
    /* The client has said its program's name (cleaned up; borrowed during the call). */
    void (*named)(void *data, const char *name);
    void *data;
};

struct pv_session_stats {
    struct pv_context_stats context;
    uint64_t messages, message_bytes; /* on the socket, from the client */
    uint64_t replies, reply_bytes;    /* on the socket, to the client */
    uint64_t longest_message_ns;      /* longest time that one message took us */
};

int pv_session_create(const struct pv_session_params *params, struct pv_session **out);
/* Frees everything of the client, its context included; may wait for the GPU. NULL is fine. */
void pv_session_destroy(struct pv_session *session);

/* Serve until the session has ended. Then the client has been told, but its context still exists.
 */
enum pv_session_end pv_session_run(struct pv_session *session);

/* Why it ended, one line, when that was not PV_SESSION_CLOSED; "" otherwise. */
const char *pv_session_reason(const struct pv_session *session);
/* The program's name, "?" before it has been said. */
const char *pv_session_name(const struct pv_session *session);
/* Once pv_session_run has returned. */
void pv_session_get_stats(struct pv_session *session, struct pv_session_stats *out);

/* End the session soon. Any thread, and from a signal handler. */
void pv_session_stop(struct pv_session *session);
/* Our process is dying: tell the client by what shared memory and fds allow. Signal handler. */
void pv_session_poison(struct pv_session *session);

#endif
