/* One vtest connection: messages in, replies out.
 *
 * Mesa writes each message in several small pieces. The connection takes whatever has arrived at
 * once into a private buffer and hands out complete messages from there:
 *
 *   buffer  [ handed out ... | message | message | half a messa ...... free ]
 *                            start                                end
 *
 * The last byte of what has come stays in the socket until more is waited for, which is when all
 * has been answered. Should this process die before, the kernel tells the client that its
 * connection was reset, and Mesa aborts; at a plain end of the stream it would ask for its reply
 * again and again, for ever.
 *
 * Trust:   everything that comes in may be hostile; a message stays as it was checked, because the
 *          buffer is ours alone.
 * Threads: one, except pv_connection_stop().
 */
#ifndef PV_TRANSPORT_VTEST_CONNECTION_H
#define PV_TRANSPORT_VTEST_CONNECTION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Largest payload. Mesa's messages are below 1 KiB (commands go through rings); other servers stop
 * at 1 MiB for a name. */
#define PV_CONNECTION_PAYLOAD_MAX (4u << 20)

struct pv_connection {
    int fd;             /* borrowed */
    uint8_t *buffer;    /* owned */
    size_t buffer_size; /* grows to the longest message */
    size_t start, end;
    bool left; /* the last byte in the buffer is still in the socket, too */
    uint64_t bytes_received, bytes_sent, messages, replies;
    /* Called whenever bytes have come in, before anyone looks at them. May be NULL. */
    void (*woken)(void *data);
    /* Nothing has come for this long: true to look again instead of sleeping. May be NULL. */
    bool (*before_sleep)(void *data, uint64_t waited_ns);
    void *data;
};

struct pv_message {
    uint32_t command;
    uint32_t length;     /* as on the wire */
    size_t size;         /* of the payload, in bytes */
    const void *payload; /* 4-aligned; borrowed until the next call of pv_connection_receive */
};

int pv_connection_init(struct pv_connection *connection, int fd);
void pv_connection_finish(struct pv_connection *connection);

/* Wait for the next message. Returns
 *   1            it is in `out`
 *   0            the client closed the connection between two messages, or we were stopped
 *   -ECONNRESET  the client went away in the middle of a message
 *   -EMSGSIZE    the message is longer than we take; out->command and out->length are set
 *   -ENOMEM, or what recv() said */
int pv_connection_receive(struct pv_connection *connection, struct pv_message *out);

/* Send a reply. Blocks while the client does not read. Returns 0, or -EPIPE and the like when the
 * client has gone. */
int pv_connection_reply(struct pv_connection *connection, uint32_t command, const uint32_t *words,
                        uint32_t word_count);
/* The same, and then `fd` (borrowed) on a byte of its own. */
int pv_connection_reply_fd(struct pv_connection *connection, uint32_t command,
                           const uint32_t *words, uint32_t word_count, int fd);

/* Take no more requests. Those that have been sent already are still received and can be answered,
 * then pv_connection_receive() returns 0; from now on the client's writes fail with EPIPE. Mesa
 * aborts on that, whereas it spins for ever when it waits for a reply and the socket is closed.
 * Any thread, and from a signal handler. */
void pv_connection_stop(int fd);

#endif
