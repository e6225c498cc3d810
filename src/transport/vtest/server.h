/* The vtest server: listens on a Unix socket and forks a worker for each client.
 *
 *   accept ── fork ──► worker 1 ◄── client 1        each worker: a session, a context, the driver
 *          ── fork ──► worker 2 ◄── client 2
 *          ◄─ pipe ── names, statistics, reason of the end
 *
 * The server itself never speaks the protocol and never loads Vulkan, so a fork is cheap and fresh.
 * It keeps each client's socket only to see that the client has gone: a worker that has not ended
 * some seconds later is stuck in the driver, and is killed.
 *
 * Trust:   nothing that a client sends reaches this process, except its name.
 * Threads: one.
 */
#ifndef PV_TRANSPORT_VTEST_SERVER_H
#define PV_TRANSPORT_VTEST_SERVER_H

#include "transport/vtest/session.h"

#include <stdbool.h>
#include <stdint.h>

struct pv_server;

/* Clients at a time if nothing else is asked for. Each costs a process and what the driver takes.
 */
#define PV_SERVER_DEFAULT_CLIENTS 256u

struct pv_server_params {
    const char *socket_path;         /* borrowed, must outlive the server */
    const struct pv_host_caps *caps; /* the same */
    int device_index;                /* see struct pv_context_params */
    enum pv_wsi_path wsi;
    uint32_t max_clients; /* 0: PV_SERVER_DEFAULT_CLIENTS */
    bool once;            /* end with the first client */
    bool stats;           /* print statistics of each client at its end, and totals at ours */
};

/* Listen. A socket file that nobody listens on is replaced. What goes wrong is logged.
 * Returns 0; -EADDRINUSE if another server is there; -ENAMETOOLONG; -EEXIST if the path is not a
 * socket; or what bind() and the like said. */
int pv_server_create(const struct pv_server_params *params, struct pv_server **out);
/* Removes the socket file if it is still ours. NULL is fine. */
void pv_server_destroy(struct pv_server *server);

/* Serve until SIGTERM, SIGINT or SIGHUP (or the first client's end), end all workers, and return 0;
 * with `once` -EPROTO if that client did not end by closing its connection. A second signal kills
 * the workers at once. Only the server process returns from here. */
int pv_server_run(struct pv_server *server);

#endif
