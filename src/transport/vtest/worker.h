/* The process that serves one client.
 *
 * It is forked from the server, which has loaded no driver, and is alone with its client: when it
 * dies, nobody else notices. What it has to tell the server goes through a pipe, one struct at a
 * time, and must stay small enough to be written in one piece.
 *
 * Spec:    none; both ends are the same binary.
 * Threads: the main thread is the context thread.
 */
#ifndef PV_TRANSPORT_VTEST_WORKER_H
#define PV_TRANSPORT_VTEST_WORKER_H

#include "transport/vtest/session.h"

enum pv_worker_news {
    PV_WORKER_NAMED,  /* `name` is known */
    PV_WORKER_ENDING, /* the session is over; everything is set */
};

struct pv_worker_report {
    enum pv_worker_news news;
    enum pv_session_end end;
    char name[64];
    char reason[200];
    struct pv_session_stats stats;
};

struct pv_worker_params {
    int client_fd; /* owned by the worker from now on */
    int report_fd; /* the same */
    uint32_t client_id;
    const struct pv_host_caps *caps;
    int device_index;
    enum pv_wsi_path wsi;
    bool refuse;
};

/* Exit status of a worker: 0 for a client that closed its connection, else 16 + pv_session_end, so
 * that it is not taken for that of a driver or a sanitizer that called exit(). */
#define PV_WORKER_STATUS(end) ((end) == PV_SESSION_CLOSED ? 0 : 16 + (int)(end))

/* Serve the client and end the process. Called in the child after fork(), with all signals blocked.
 */
__attribute__((noreturn)) void pv_worker_main(const struct pv_worker_params *params);

#endif
