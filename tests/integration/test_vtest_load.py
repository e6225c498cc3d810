#!/usr/bin/env python3
"""Many of everything: nothing leaks, nobody disturbs anybody."""
import os
import struct
import threading
import time

from vtest import (CREATE_BLOB, GET_PARAM, SLOW, SYNC_WRITE, UNREF, Client, Server, check, equal, main,
                   readable, wait_until)

server = Server()


def thousand_clients():
    def all_gone():
        return not server.workers()
    for _ in range(20):
        Client(server, 3).close()
    wait_until(all_gone, 'the first workers end')
    fds, memory = server.fd_count(), server.resident_kib()
    start = time.monotonic()
    for number in range(1000):
        with Client(server, 3 + number % 2) as client:
            if number % 10 == 0:
                client.start_ring()
            elif number % 10 == 1:
                client.send(b'\xff' * 8)  # and some are bad
    print(f'        1000 clients in {time.monotonic() - start:.2f} s')
    wait_until(all_gone, 'all workers end')
    equal(server.fd_count(), fds, 'fds of the server')
    if SLOW == 1:  # sanitizers keep freed memory
        grown = server.resident_kib() - memory
        check(grown < 512, f'the server has grown by {grown} KiB')


def sixteen_at_once():
    failures = []

    def work(number):
        try:
            with Client(server, 3 + number % 2, f'thread{number}') as client:
                client.start_ring()
                sync = client.sync()
                for value in range(1, 201):
                    res_id, fd = client.blob(4096)
                    os.pwrite(fd, struct.pack('<I', number), 0)
                    wait = client.wait_sync((sync, value))
                    client.submit(syncs=[(sync, value)])
                    check(readable(wait, 10 * SLOW), 'a fence')
                    equal(client.read_sync(sync), value, 'value')
                    equal(os.pread(fd, 4, 0), struct.pack('<I', number), 'memory is our own')
                    os.close(wait)
                    os.close(fd)
                    client.request(UNREF, res_id)
        except Exception as error:
            failures.append(f'client {number}: {error}')
    threads = [threading.Thread(target=work, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    check(not failures, '; '.join(failures))


def ten_thousand_blobs():
    with Client(server, 4, 'blobs') as client:
        start = time.monotonic()
        ids = set()
        for _ in range(10000):
            res_id, fd = client.blob(64)
            ids.add(res_id)
            os.close(fd)
        print(f'        10,000 blobs in {time.monotonic() - start:.2f} s')
        equal(len(ids), 10000, 'ids')
        for res_id in ids:
            client.request(UNREF, res_id)
        equal(client.call(GET_PARAM, 1), (1, 64), 'it goes on')
        res_id, fd = client.blob(64)
        os.close(fd)
        check(res_id not in list(ids)[:5000], 'a fresh id')


def end_with_ten_thousand_blobs():
    with Client(server, 4) as client:
        for _ in range(10000):
            os.close(client.blob(64)[1])
    wait_until(lambda: not server.workers(), 'the worker ends')


def many_messages_in_one_write():
    with Client(server, 4) as client:
        sync = client.sync()
        client.send(b''.join(struct.pack('<5I', 3, SYNC_WRITE, sync, value, 0)
                             for value in range(50000)))
        equal(client.read_sync(sync), 49999, 'the last one')


def many_waits():
    with Client(server, 4) as client:
        syncs = [client.sync() for _ in range(100)]
        waits = [client.wait_sync(*((sync, number) for sync in syncs)) for number in range(1, 201)]
        for sync in syncs:
            client.request(SYNC_WRITE, sync, 150, 0)
        client.call(GET_PARAM, 1)
        equal([readable(wait) for wait in waits], [True] * 150 + [False] * 50, 'waits that are over')
        for wait in waits:
            os.close(wait)


def clients_that_do_not_read():
    """Their replies pile up until the socket is full; others do not notice."""
    deaf = Client(server, 4)
    deaf.socket.setblocking(False)
    try:
        while True:
            deaf.request(GET_PARAM, 1)
    except BlockingIOError:
        pass
    with Client(server, 4) as client:
        equal(client.call(GET_PARAM, 1), (1, 64), 'another client')
    deaf.close()
    wait_until(lambda: not server.workers(), 'both workers end')


def start_is_quick():
    times = []
    for _ in range(21):
        start = time.monotonic()
        with Client(server, 4) as client:
            os.close(client.blob(131268)[1])
            times.append(time.monotonic() - start)
    median = sorted(times)[10]
    print(f'        connect to first blob: {median * 1e3:.2f} ms')
    check(median < 0.05 * SLOW, f'{median * 1e3:.1f} ms')


with server:
    main(thousand_clients, sixteen_at_once, ten_thousand_blobs, end_with_ten_thousand_blobs,
         many_messages_in_one_write, many_waits, clients_that_do_not_read, start_is_quick, server.stop)
