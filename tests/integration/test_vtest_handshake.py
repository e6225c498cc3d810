#!/usr/bin/env python3
"""The start of a session, byte for byte, as both generations of Mesa do it."""
import os
import struct

from vtest import (ALIVE, CREATE_RENDERER, CREATE_RING, EXPORT_FD, FATAL, GET_CAPSET, GET_PARAM, UNREF, Client, Server,
                   check, equal, main, readable, ring_status, wait_until)

server = Server()


def mesa_start(client, version):
    """What strace shows of Mesa 25.0.7 (version 3) and 26.2.6 (version 4), up to CONTEXT_INIT."""
    client.send(bytes.fromhex('0b00000008000000' '76756c6b616e696e666f00'))
    client.send(bytes.fromhex('000000000a000000'))
    client.send(bytes.fromhex('0200000007000000' '0000000000000000'))
    equal(client.receive(8).hex(), '000000000a000000', 'ping')
    equal(client.receive(12).hex(), '0100000007000000' '00000000', 'busy wait')
    client.send(bytes.fromhex('010000000b000000') + struct.pack('<I', version))
    equal(client.receive(12), bytes.fromhex('010000000b000000') + struct.pack('<I', version),
          'protocol version')
    client.send(bytes.fromhex('010000000f000000' '01000000'))
    equal(client.receive(16).hex(), '020000000f000000' '0100000040000000', 'timeline count')
    client.send(bytes.fromhex('0200000010000000' '0400000000000000'))
    equal(client.receive(12).hex(), '2900000010000000' '01000000', 'capset header')
    capset = struct.unpack('<40I', client.receive(160))
    equal(capset[0], 1, 'wire format version')
    check(capset[1] >= 1 << 22 | 3 << 12, f'vk.xml version {capset[1]:#x}')
    check(capset[3] >= 3, f'Venus protocol version {capset[3]}')
    equal((capset[4], capset[5] & 1, *capset[37:]), (1, 1, 1, 1, 0), 'capset flags')
    client.send(bytes.fromhex('0100000011000000' '04000000'))


def mesa_ring(client, header):
    client.send(bytes.fromhex('0600000012000000' '0200000001000000c400020000000000' '0000000000000000'))
    equal(client.receive(12).hex(), '0100000012000000' '01000000', 'first resource')
    fd = client.reply_fd()
    equal(os.fstat(fd).st_size, 131268, 'size of the ring memory, exactly')
    os.close(fd)
    client.send(bytes.fromhex(header) + CREATE_RING)


def handshake_of_mesa_25():
    with Client(server) as client:
        mesa_start(client, 3)
        mesa_ring(client, '2a00000018000000' '01000000'
                          '010000000700000023000000' '2a0000000000000000000000')
        equal(client.call(GET_PARAM, 1), (1, 64), 'it goes on')


def handshake_of_mesa_26():
    with Client(server) as client:
        mesa_start(client, 4)
        mesa_ring(client, '2c00000018000000' '01000000' '010000000900000023000000'
                          '2c0000000000000000000000' '0000000000000000')
        equal(client.call(GET_PARAM, 1), (1, 64), 'it goes on')


def mesa_26_at_an_older_server():
    """It agrees to 3 and sends long headers all the same."""
    with Client(server) as client:
        mesa_start(client, 3)
        mesa_ring(client, '2c00000018000000' '01000000' '010000000900000023000000'
                          '2c0000000000000000000000' '0000000000000000')
        equal(client.call(GET_PARAM, 1), (1, 64), 'it goes on')


def answers_to_what_we_do_not_have():
    with Client(server, 4) as client:
        equal(client.call(GET_PARAM, 2), (0, 0), 'a parameter that does not matter to Venus')
        equal(client.call(GET_PARAM, 99), (0, 0), 'an unknown parameter')
        equal(client.call(GET_CAPSET, 1, 0), (0,), 'another capset')
        equal(client.call(GET_CAPSET, 4, 1), (0,), 'another version of the capset')


def versions():
    for asked, agreed in ((4, 4), (5, 4), (0xffffffff, 4), (2, 2), (1, 0), (0, 0)):
        with Client(server) as client:
            client.send(struct.pack('<2I', 2, CREATE_RENDERER) + b'x\0')
            equal(client.call(11, asked), (agreed,), f'version for {asked}')


def resources():
    with Client(server, 4) as client:
        for size in (1, 64, 4096, 131268, 1 << 20, 8 << 20):
            res_id, fd = client.blob(size)
            equal(os.fstat(fd).st_size, size, 'size of a blob')
            os.close(fd)
            client.request(UNREF, res_id)
        res_id, fd = client.blob(4096, flags=3)
        client.request(EXPORT_FD, res_id)
        equal(client.reply(EXPORT_FD), (), 'reply of an export')
        again = client.reply_fd()
        equal(os.fstat(again).st_ino, os.fstat(fd).st_ino, 'the exported memory')
        os.close(again)
        os.close(fd)


def memory_that_cannot_be_made():
    """There is no such device memory; the client gets something to map and is not left hanging."""
    with Client(server, 4) as client:
        _, fd = client.blob(12345, blob_id=77)
        equal(os.fstat(fd).st_size, 12345, 'size of the dummy')
        os.close(fd)


def syncs():
    with Client(server, 4) as client:
        a, b = client.sync(5), client.sync(1 << 40)
        equal((client.read_sync(a), client.read_sync(b)), (5, 1 << 40), 'values')
        over = client.wait_sync((a, 5), (b, 1))
        check(readable(over), 'a wait that is over is readable when it comes')
        all_of = client.wait_sync((a, 6), (b, 1))
        any_of = client.wait_sync((a, 9), (b, (1 << 40) + 1), any_of=True, timeout_ms=1000)
        check(not readable(all_of) and not readable(any_of), 'waits that are not over')
        client.submit(syncs=[(a, 7)])  # ring_idx 0: once the commands before have run
        check(readable(all_of, 5), 'a fence on ring_idx 0 ends a wait')
        client.submit(syncs=[(a, 9)], flags=0)  # without a timeline: at once
        check(readable(any_of, 5), 'and one without a timeline')
        for fd in (over, all_of, any_of):
            os.close(fd)


def ring_starts_and_lives():
    with Client(server, 3) as client:
        memory = client.start_ring()
        wait_until(lambda: ring_status(memory) & ALIVE, 'the monitor says that the ring is alive')
        equal(ring_status(memory) & FATAL, 0, 'FATAL')


with server:
    main(handshake_of_mesa_25, handshake_of_mesa_26, mesa_26_at_an_older_server,
         answers_to_what_we_do_not_have, versions, resources, memory_that_cannot_be_made, syncs,
         ring_starts_and_lives, server.stop)
