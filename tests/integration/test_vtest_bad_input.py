#!/usr/bin/env python3
"""Everything a client can get wrong on the socket: that client is stopped, the others are not."""
import os
import random
import signal
import struct
import time

from vtest import (CREATE_BLOB, FATAL, GET_PARAM, SLOW, SUBMIT, SYNC_WAIT, Client, Server, check,
                   equal, main, readable, ring_status, wait_until)

server = Server()
witness = Client(server, 4, 'witness')


def words(*values):
    return struct.pack(f'<{len(values)}I', *(value & 0xffffffff for value in values))


# What is sent after a full handshake, and what the server's line must say.
BAD = [
    ('CREATE_RENDERER came twice', words(0, 8)),
    ('at most', words(-1, -1)),
    ('at most', words(1 << 30, SUBMIT)),
    ('at most', words(0x400000, SYNC_WAIT)),
    ('unknown command 0', words(0, 0)),
    ('unknown command 39', words(0, 39)),
    ('unknown command 4294967295', words(0, -1)),
    ('GET_CAPS is not served', words(0, 1)),
    ('SUBMIT_CMD is not served', words(1, 6, 0)),
    ('DRM_SYNC_CREATE is not served', words(0, 25)),
    ('DRM_SYNC_TRANSFER is not served', words(0, 37)),
    ('CONTEXT_INIT came twice', words(1, 17, 4)),
    ('RESOURCE_CREATE_BLOB of 5 words', words(5, CREATE_BLOB, 2, 1, 64, 0, 0)),
    ('RESOURCE_CREATE_BLOB of type 1', words(6, CREATE_BLOB, 1, 1, 64, 0, 0, 0)),
    ('unknown flags 0x8', words(6, CREATE_BLOB, 2, 8, 64, 0, 0, 0)),
    ('RESOURCE_CREATE_BLOB of 0 bytes', words(6, CREATE_BLOB, 2, 1, 0, 0, 0, 0)),
    ('RESOURCE_CREATE_BLOB of 18446744073709551615 bytes',
     words(6, CREATE_BLOB, 2, 1, -1, -1, 0, 0)),
    ('bytes of shared memory', words(6, CREATE_BLOB, 2, 1, 1, 1, 0, 0)),
    ('there is no resource 12', words(1, 3, 12)),
    ('RESOURCE_EXPORT_FD: there is no resource 12', words(1, 38, 12)),
    ('SYNC_UNREF: there is no sync 77', words(1, 20, 77)),
    ('SYNC_READ: there is no sync 0', words(1, 21, 0)),
    ('SYNC_WRITE: there is no sync 77', words(3, 22, 77, 0, 0)),
    ('SYNC_WAIT: there is no sync 77', words(5, SYNC_WAIT, 0, 0, 77, 0, 0)),
    ('no whole number of syncs', words(4, SYNC_WAIT, 0, 0, 1, 0)),
    ('SUBMIT_CMD2 of 0 words', words(0, SUBMIT)),
    ('too short for 1 batch', words(7, SUBMIT, 1, 1, 0, 0, 0, 0, 0)),
    ('SUBMIT_CMD2 with 65 batches', words(1, SUBMIT, 65)),
    ('commands at word 9 + 1', words(9, SUBMIT, 1, 1, 9, 1, 0, 0, 0, 0, 0)),
    ('commands at word 4294967295', words(9, SUBMIT, 1, 1, -1, -1, 0, 0, 0, 0, 0)),
    ('1 syncs at word 7', words(9, SUBMIT, 1, 1, 0, 0, 7, 1, 0, 0, 0)),
    ('4294967295 syncs', words(9, SUBMIT, 1, 1, 0, 0, 2, -1, 0, 0, 0)),
    ('ring_idx 64', words(9, SUBMIT, 1, 1, 0, 0, 0, 0, 64, 0, 0)),
    ('fence fds', words(9, SUBMIT, 1, 3, 0, 0, 0, 0, 0, 0, 0)),
    ('unknown flags 0x10', words(9, SUBMIT, 1, 16, 0, 0, 0, 0, 0, 0, 0)),
    ('DRM sync objects', words(9, SUBMIT, 1, 1, 0, 0, 0, 0, 0, 1, 0)),
    ('there is no sync 5', words(12, SUBMIT, 1, 1, 0, 0, 9, 1, 0, 0, 0, 5, 1, 0)),
]


def witness_lives():
    equal(witness.call(GET_PARAM, 1), (1, 64), 'another client')


def only_the_witness_is_left():
    wait_until(lambda: len(server.workers()) == 1, 'workers end')


def each_has_its_reason():
    for number, (reason, data) in enumerate(BAD):
        name = f'bad{number}'
        with Client(server, 4, name) as client:
            client.send(data)
            client.expect_end()
        line = server.wait_for_log(rf'client \d+ \({name}\): ended .*')[0]
        check(reason in line, f'the line says "{line}", wanted "{reason}"')
    witness_lives()


def strangers():
    for data in (b'GET / HTTP/1.1\r\n\r\n', words(0, 10), words(-1, 24), b'\0' * 100):
        with Client(server) as client:
            client.send(data)
            client.expect_end()
    server.wait_for_log('this is no vtest client')
    witness_lives()


def commands_before_their_time():
    for data in (words(1, 3, 1), words(6, CREATE_BLOB, 2, 1, 64, 0, 0, 0), words(2, 19, 0, 0)):
        with Client(server) as client:
            client.send(words(2, 8) + b'x\0' + words(1, 11, 4) + data)
            client.expect_end()
    server.wait_for_log('came before CONTEXT_INIT')
    with Client(server) as client:
        client.send(words(2, 8) + b'x\0' + words(1, 11, 2) + words(1, 17, 4))
        client.expect_end()
    server.wait_for_log('CONTEXT_INIT belongs to protocol version 3; 2 was agreed')
    witness_lives()


def half_messages():
    """Gone at every byte of a message: no error, and no worker is left."""
    message = words(6, CREATE_BLOB, 2, 1, 64, 0, 0, 0)
    for size in range(len(message)):
        with Client(server, 4, 'half') as client:
            client.send(message[:size])
    only_the_witness_is_left()
    check(' error' not in server.log().split('half')[-1], 'a client that vanishes is no error')
    witness_lives()


def rings_are_fatal_before_the_socket_closes():
    for data in (words(0, 99), words(9, SUBMIT, 1, 1, 0, 0, 0, 0, 64, 0, 0)):
        with Client(server, 3, 'ring') as client:
            memory = client.start_ring()
            client.send(data)
            client.expect_end()
            check(ring_status(memory) & FATAL, 'the ring is FATAL')
    witness_lives()


def bad_command_stream():
    """The context fails; what was asked before is answered, so that Mesa does not spin."""
    for stream in (b'\xff' * 16, words(188, 0), words(1 << 30, 0, 0, 0)):
        with Client(server, 4, 'stream') as client:
            memory = client.start_ring()
            client.submit(stream)
            try:
                client.request(CREATE_BLOB, 2, 1, 64, 0, 0, 0)
            except BrokenPipeError:
                pass  # stopped before we asked, which Mesa notices
            else:
                client.reply(CREATE_BLOB)
                os.close(client.reply_fd())
            client.expect_end()
            check(ring_status(memory) & FATAL, 'the ring is FATAL')
    witness_lives()


def unbound_ring_idx():
    with Client(server, 4, 'unbound') as client:
        sync = client.sync()
        wait = client.wait_sync((sync, 1))
        client.submit(syncs=[(sync, 1)], ring_idx=5)
        client.expect_end()
        check(readable(wait, 5), 'whoever waits is woken')
        os.close(wait)
    server.wait_for_log(r'\(unbound\): ended .*(ring_idx|timeline)')
    witness_lives()


def crash_of_a_worker():
    """As if the driver had crashed: the guest is told by its ring, the log says so."""
    # AddressSanitizer has its own idea of SIGSEGV
    crash = signal.SIGABRT if os.environ.get('PV_SANITIZED') else signal.SIGSEGV
    only_the_witness_is_left()
    before = set(server.workers())
    with Client(server, 3, 'crash') as client:
        memory = client.start_ring()
        worker, = set(server.workers()) - before
        os.kill(worker, crash)
        client.expect_end()
        check(ring_status(memory) & FATAL, 'the ring is FATAL')
    server.wait_for_log(rf'client \d+ \(crash\): ended after .*crashed with signal {crash:d}')
    witness_lives()


def kill_of_a_worker():
    only_the_witness_is_left()
    before = set(server.workers())
    with Client(server, 3, 'killed') as client:
        client.call(GET_PARAM, 1)
        worker, = set(server.workers()) - before
        os.kill(worker, signal.SIGKILL)
        client.expect_end()
    server.wait_for_log(r'\(killed\): ended after .*crashed with signal 9')
    witness_lives()


def hanging_worker():
    """A worker that does not notice that its client has gone is killed after 10 s."""
    only_the_witness_is_left()
    before = set(server.workers())
    with Client(server, 3, 'hanging') as client:
        client.call(GET_PARAM, 1)
        worker, = set(server.workers()) - before
        os.kill(worker, signal.SIGSTOP)
    start = time.monotonic()
    server.wait_for_log(r'\(hanging\): ended after .*was killed')
    taken = time.monotonic() - start
    check(8 < taken < 12 + SLOW, f'it took {taken:.1f} s')
    witness_lives()


def random_messages():
    """Valid headers with random contents, and mutations of valid messages."""
    generator = random.Random(1)
    log_before = len(server.log())
    start = [words(2, 8) + b'x\0', words(1, 11, 4), words(1, 17, 4)]
    for _ in range(150):
        data = b''.join(start) if generator.random() < 0.8 else b''
        for _ in range(generator.randrange(1, 8)):
            length = generator.randrange(0, 16)
            body = [generator.choice((0, 1, 2, 3, 9, 64, generator.getrandbits(32)))
                    for _ in range(length)]
            data += words(length, generator.randrange(0, 40), *body)
        if generator.random() < 0.3:
            data = bytearray(data)
            data[generator.randrange(len(data))] ^= 1 << generator.randrange(8)
        with Client(server) as client:
            try:
                client.send(bytes(data))
                client.socket.shutdown(1)
            except (BrokenPipeError, OSError):
                pass
            client.expect_end()
    only_the_witness_is_left()
    log = server.log()[log_before:]
    check('crashed' not in log and 'killed' not in log, f'no worker crashed:\n{log}')
    witness_lives()


with server:
    main(each_has_its_reason, strangers, commands_before_their_time, half_messages,
         rings_are_fatal_before_the_socket_closes, bad_command_stream, unbound_ring_idx,
         crash_of_a_worker, kill_of_a_worker, hanging_worker, random_messages, server.stop)
