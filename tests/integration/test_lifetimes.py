#!/usr/bin/env python3
"""Clients and servers that come, go, and are killed, while another client draws undisturbed."""
import os
import random
import signal
import socket
import tempfile
import threading
import time

import pv

CONNECTS = 250 if pv.SANITIZED else 1000
CONNECTS_SECONDS = 200  # of real clients; what is left then is done by bare connections
AT_ONCE = 4
# From the end of a client to that of its worker.
WORKER_SECONDS = 10


class Bystander:
    """Draws the same scene again and again in the background, and compares."""

    SCENE = ('pv-render', '--scene', 'triangle', '--frames', '40', '--quiet', '--raw')

    def __init__(self, server):
        self.server = server
        self.count = 0
        self.error = None
        self.stopping = False

    def draw(self, server, name):
        path = f'{self.folder.name}/{name}'
        pv.run(pv.MACHINE, server, *self.SCENE, path)
        with open(path, 'rb') as file:
            return file.read()

    def loop(self):
        try:
            while not self.stopping:
                if self.draw(self.server, 'venus') != self.wanted:
                    raise pv.Failure('a bystander drew something else')
                self.count += 1
        except Exception as error:  # pylint: disable=broad-except
            self.error = error

    def __enter__(self):
        self.folder = tempfile.TemporaryDirectory(dir='/tmp')
        self.wanted = self.draw(None, 'native')
        self.thread = threading.Thread(target=self.loop)
        self.thread.start()
        return self

    def __exit__(self, kind, *_):
        self.stopping = True
        self.thread.join()
        self.folder.cleanup()
        if kind is None:
            if self.error:
                raise self.error
            pv.check(self.count > 0, 'the bystander drew nothing')
            pv.say(f'a bystander drew {self.count} times, always the same')


def gone(worker):
    """Wait for a worker to go; returns the seconds that took."""
    start = time.monotonic()
    pv.wait_until(lambda: not pv.exists(worker), WORKER_SECONDS,
                  'end of the worker of a client that is gone')
    return time.monotonic() - start


def check_growth(kib):
    # A sanitizer keeps freed memory for a while; it also looks for leaks when the server exits.
    pv.check(kib <= 512 or pv.SANITIZED, f'the server has grown by {kib} KiB')


# ---- many ----


def raw_connect(path):
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)


def test_thousand_clients():
    """With an instance and a device each; the server is the same afterwards."""
    with pv.Server('--log', 'warn') as server:
        def one(side):
            return pv.Client(side, server, 'pv-loop', '--bare', '0')

        # What is allocated once is allocated now.
        for side in pv.SIDES * 5:
            one(side).check_ok()
        server.wait_workers(0)
        fds, memory = pv.fd_count(server.pid), pv.memory_kib(server.pid)
        end = time.monotonic() + CONNECTS_SECONDS
        running, real = [], 0
        while real < CONNECTS and time.monotonic() < end:
            running.append(one(pv.SIDES[real % 10 == 0]))
            real += 1
            if len(running) == AT_ONCE:
                running.pop(0).check_ok()
        for client in running:
            client.check_ok()
        for _ in range(CONNECTS - real):
            raw_connect(server.socket)
        server.wait_workers(0)
        grown = pv.memory_kib(server.pid) - memory
        pv.say(f'{real} real clients, {CONNECTS - real} bare connections: {grown} KiB more, '
               f'{pv.fd_count(server.pid)} fds before and after')
        pv.check_equal(pv.fd_count(server.pid), fds, 'fds of the server')
        check_growth(grown)
        server.check_no_errors()


# ---- clients that are killed ----


def killed(count, args, seconds_before_kill, sides=pv.SIDES):
    slowest = 0
    with pv.Server() as server, Bystander(server):
        for i in range(count):
            client = pv.Client(sides[i % len(sides)], server, *args)
            client.wait_for('ready')
            worker = server.worker_of(client)
            time.sleep(random.uniform(*seconds_before_kill))
            pv.check(client.running(), f'{client.name} ended by itself:\n{client.output()}')
            client.kill()
            slowest = max(slowest, gone(worker))
            if i == 0:
                fds, memory = pv.fd_count(server.pid), pv.memory_kib(server.pid)
        # The bystander has a client at most, and that takes fds of the server: one worker's are two.
        pv.check(pv.fd_count(server.pid) <= fds + 2,
                 f'fds of the server: {pv.fd_count(server.pid)}, {fds} before')
        grown = pv.memory_kib(server.pid) - memory
        check_growth(grown)
        pv.check('killed' not in server.log() and 'crashed' not in server.log(),
                 'a worker did not end by itself')
    pv.say(f'{count} clients killed, the last trace gone after {slowest:.2f} s at most')


def test_killed_in_the_middle_of_a_frame():
    killed(20, ['pv-loop'], (0, 0.1))


def test_killed_with_its_ring_full():
    killed(10, ['pv-loop', '--fill-ring'], (0.1, 0.4))


def test_killed_while_stopped():
    with pv.Server() as server, Bystander(server):
        for side in pv.SIDES:
            for args in ([], ['--fill-ring']):
                client = pv.Client(side, server, 'pv-loop', *args)
                client.wait_for('ready')
                worker = server.worker_of(client)
                client.signal(signal.SIGSTOP)
                time.sleep(1)
                pv.check(pv.exists(worker), 'a worker does not wait for a stopped client')
                client.kill()
                gone(worker)


# ---- servers and workers that are killed ----


def client_of_a_killed_worker(side):
    """It must not hang for ever: its rings are dead, and Mesa ends it."""
    with pv.Server() as server, Bystander(server):
        for args in ([], ['--fill-ring'], ['--idle', '600']):
            client = pv.Client(side, server, 'pv-loop', *args)
            client.wait_for('ready')
            worker = server.worker_of(client)
            start = time.monotonic()
            os.kill(worker, signal.SIGKILL)
            if args and args[0] == '--idle':
                # It asks for nothing, so it does not notice; it must only be no trouble.
                server.wait_log(r'crashed with signal 9')
                client.kill()
                continue
            code = client.wait(15)
            pv.say(f'{client.name}: ended with {code} after {time.monotonic() - start:.1f} s')
            pv.check(code != 0, 'the client of a killed worker ended as if all was well')
            gone(worker)


def clients_of_a_stopped_server(side):
    """SIGTERM with clients that draw, fill their ring, sleep, and are stopped."""
    with pv.Server() as server:
        clients = [pv.Client(side, server, 'pv-loop', *args)
                   for args in ([], [], ['--fill-ring'], ['--idle', '600'], [])]
        for client in clients:
            client.wait_for('ready')
        clients[-1].signal(signal.SIGSTOP)
        workers = server.wait_workers(len(clients))
        start = time.monotonic()
        code = server.stop(15)
        pv.say(f'the server ended {time.monotonic() - start:.1f} s after SIGTERM')
        pv.check_equal(code, 0, 'exit code of the server')
        pv.check(not any(pv.exists(pid) for pid in workers), 'workers are left')
        pv.check(not os.path.exists(server.socket), 'the socket file is left')
        for client in clients[:3]:
            code = client.wait(15)
            pv.check(code != 0, f'{client.name} ended with {code}')
        pv.say(f'drawing clients ended within {time.monotonic() - start:.1f} s')
        for client in clients[3:]:
            client.kill()


def test_server_killed():
    """SIGKILL: it can say nothing any more, and its workers end all the same."""
    with pv.Server() as server:
        server.wanted_exit_code = -signal.SIGKILL
        clients = [pv.Client(side, server, 'pv-loop') for side in pv.SIDES]
        for client in clients:
            client.wait_for('ready')
        workers = server.wait_workers(2)
        os.kill(server.pid, signal.SIGKILL)
        for worker in workers:
            gone(worker)
        for client in clients:
            pv.check(client.wait(15) != 0, 'a client of a killed server ended as if all was well')


if __name__ == '__main__':
    pv.main(test_thousand_clients, test_killed_in_the_middle_of_a_frame,
            test_killed_with_its_ring_full, test_killed_while_stopped,
            pv.for_sides(client_of_a_killed_worker), pv.for_sides(clients_of_a_stopped_server),
            test_server_killed)
