/* The backend channel: requests of ours to the VMM, and its answers, without ever waiting.
 *
 *   send ──► waiting ──(not held, room in the socket)──► sent ──(answer, in order)──► done()
 *
 * QEMU must not be sent anything while the driver has not started the device (it would crash), so
 * the channel can be held: then requests wait.
 *
 * One request at a time asks for an answer, and after long ones the VMM rests half as long as they
 * took: QEMU holds a lock over them that its processors need too, and as long as there is one more
 * request it takes the lock again before they get it. With hundreds of mappings the guest stood
 * still for seconds.
 *
 * Spec:    vhost-user, back-end message types.
 * Threads: that of the loop.
 */
#ifndef PV_TRANSPORT_VIRTIO_BACKEND_H
#define PV_TRANSPORT_VIRTIO_BACKEND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct pv_backend;
typedef struct uv_loop_s uv_loop_t;

/* Longest payload that is sent (SHMEM_MAP). */
#define PV_BACKEND_PAYLOAD_MAX 40u

/* The end of a request: 0; -EIO, the VMM has answered with a failure; -ECANCELED, it was not sent,
 * or the channel has gone. May send again, must not destroy. */
typedef void (*pv_backend_done)(void *data, int result);

/* Takes over `fd` on success. The channel is held at first. */
int pv_backend_create(uv_loop_t *loop, int fd, struct pv_backend **out);
/* Ends every request by -ECANCELED. NULL is fine. The memory is freed by the loop's next turn. */
void pv_backend_destroy(struct pv_backend *backend);

/* Send, or keep until that is possible. `fd` (borrowed; -1: none) is duplicated.
 * `done` comes after this has returned; NULL: no answer is asked for. Returns 0, -EPIPE (the
 * channel has gone), -EMFILE, -ENOMEM: `done` is not called then. */
int pv_backend_send(struct pv_backend *backend, uint32_t request, const void *payload, size_t size,
                    int fd, pv_backend_done done, void *data);
/* The same, without an fd and before all that waits. */
int pv_backend_send_first(struct pv_backend *backend, uint32_t request, const void *payload,
                          size_t size, pv_backend_done done, void *data);
void pv_backend_hold(struct pv_backend *backend, bool hold);
bool pv_backend_held(const struct pv_backend *backend);
/* Requests that have not been sent end by -ECANCELED. */
void pv_backend_cancel_waiting(struct pv_backend *backend);

#endif
