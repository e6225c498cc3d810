#!/usr/bin/env python3
"""The server around its clients: socket files, options, output, limits, endings."""
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time

from vtest import (CREATE_RENDERER, FATAL, GET_PARAM, SLOW, VERSION, Client, Server, check, equal, main,
                   program, readable, ring_status, run, wait_until)

folder = tempfile.mkdtemp(prefix='pv-test-')


def path(name):
    return os.path.join(folder, name)


def command_line():
    for arguments, status, text in (
            ([], 2, 'Usage: pearvisor'),
            (['--help'], 0, 'Usage: pearvisor'),
            (['--version'], 0, 'pearvisor '),
            (['help'], 0, 'vtest'),
            (['help', 'vtest'], 0, 'Usage: pearvisor vtest'),
            (['vtest', '--help'], 0, '--max-clients'),
            (['vtets'], 2, 'did you mean "vtest"?'),
            (['help', 'vtset'], 2, 'did you mean "vtest"?'),
            (['frobnicate'], 2, 'no command "frobnicate"'),
            (['--frobnicate'], 2, '--frobnicate is not an option'),
            (['vtest', '--frobnicate'], 2, '--frobnicate is not an option'),
            (['vtest', '-x'], 2, '-x is not an option'),
            (['vtest', '--socket'], 2, '--socket needs a value'),
            (['vtest', 'more'], 2, '"more" is too much'),
            (['vtest', '--max-clients', '0'], 2, '--max-clients 0'),
            (['vtest', '--max-clients', '9x'], 2, '--max-clients 9x'),
            (['vtest', '--log', 'loud'], 2, '--log loud'),
            (['vtest', '--wsi', 'x11'], 2, '--wsi x11'),
            (['vtest', '--memory-tier', 'none'], 2, '--memory-tier none'),
            (['vtest', '--modifier-tier', 'none'], 2, '--modifier-tier none')):
        result = run(*arguments)
        equal(result.returncode, status, f'exit status of {arguments}')
        output = result.stdout if status == 0 else result.stderr
        check(text in output, f'{arguments} says {output!r}, wanted {text!r}')


def start_line():
    with Server(path=path('a "quoted" socket')) as server:
        equal(set(server.start_line), {'socket', 'pid', 'device'}, 'fields of the start line')
        equal(server.start_line['socket'], server.path, 'socket')
        equal(server.start_line['pid'], server.pid, 'pid')
        check(server.start_line['device'], 'a device is named')
        Client(server, 4).close()
        server.stop()


def default_socket():
    """As Mesa finds it: VTEST_SOCKET_NAME."""
    name = path('from-the-environment')
    process = subprocess.Popen([program(), 'vtest', '--json'], stdout=subprocess.PIPE,
                               stderr=subprocess.DEVNULL,
                               env={**os.environ, 'VTEST_SOCKET_NAME': name})
    equal(json.loads(process.stdout.readline())['socket'], name, 'socket')
    process.terminate()
    equal(process.wait(), 0, 'exit status')
    process.stdout.close()


def sigterm_cleans_up():
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        with Server() as server:
            clients = [Client(server, 4) for _ in range(3)]
            memory = [client.start_ring() for client in clients]
            sync = clients[0].sync()
            wait = clients[0].wait_sync((sync, 1))
            workers = server.workers()
            equal(len(workers), 3, 'workers')
            start = time.monotonic()
            server.stop(number=number)
            check(time.monotonic() - start < 3 * SLOW, 'it stops at once')
            check(not os.path.exists(server.path), 'the socket is gone')
            for pid in workers:
                check(not os.path.exists(f'/proc/{pid}'), 'the workers are gone')
            for client, shared in zip(clients, memory):
                client.expect_end()
                check(ring_status(shared) & FATAL, 'clients are told by their rings')
                client.close()
            check(readable(wait), 'and by what they wait for')
            os.close(wait)


def sigterm_with_a_hanging_worker():
    with Server() as server:
        with Client(server, 4) as client:
            client.call(GET_PARAM, 1)
            os.kill(server.workers()[0], signal.SIGSTOP)
            start = time.monotonic()
            log = server.stop()
            taken = time.monotonic() - start
            check(4 < taken < 7 + SLOW, f'it took {taken:.1f} s')
            check('was killed' in log, f'the log says so:\n{log}')


def second_signal_ends_at_once():
    with Server() as server:
        with Client(server, 4) as client:
            client.call(GET_PARAM, 1)
            os.kill(server.workers()[0], signal.SIGSTOP)
            start = time.monotonic()
            server.process.terminate()
            server.wait_for_log('stopping; 1 clients')
            server.stop()
            check(time.monotonic() - start < 3, 'at once')


def server_dies():
    """Workers do not outlive it."""
    with Server() as server:
        with Client(server, 4) as client:
            memory = client.start_ring()
            worker, = server.workers()
            server.process.kill()
            server.process.wait()
            client.expect_end()
            check(ring_status(memory) & FATAL, 'the ring is FATAL')

            def gone():
                try:
                    with open(f'/proc/{worker}/stat') as stat:
                        return stat.read().split()[2] == 'Z'  # nobody may be there to reap it
                except FileNotFoundError:
                    return True
            wait_until(gone, 'the worker is gone')
        with Server(path=server.path) as second:  # and what it left is replaced
            check('left over' in second.log(), second.log())
            Client(second, 4).close()
            second.stop()


def stale_socket():
    name = path('stale')
    left = socket.socket(socket.AF_UNIX)
    left.bind(name)
    left.close()
    with Server(path=name) as server:
        check('left over' in server.log(), 'the log says so')
        Client(server, 4).close()
        server.stop()
    check(not os.path.exists(name), 'the socket is gone')


def live_socket():
    with Server() as server:
        result = run('vtest', '--socket', server.path)
        equal(result.returncode, 1, 'exit status')
        check(re.search(rf'another server \(pid {server.pid}\) is listening', result.stderr),
              result.stderr)
        Client(server, 4).close()  # the first one is unharmed
        server.stop()


def bad_socket_paths():
    with open(path('file'), 'w') as file:
        file.write('precious')
    for name, text in ((path('file'), 'is not a socket'), (path('x' * 120), 'shorter'),
                       (path('no/such/folder'), 'No such file'), ('', 'between 1 and')):
        result = run('vtest', '--socket', name)
        equal(result.returncode, 1, f'exit status for {name!r}')
        check(text in result.stderr, f'{result.stderr!r} has {text!r}')
    with open(path('file')) as file:
        equal(file.read(), 'precious', 'the file that was in the way')


def socket_of_somebody_else_stays():
    with Server() as server:
        os.unlink(server.path)
        other = socket.socket(socket.AF_UNIX)
        other.bind(server.path)
        server.stop()
        check(os.path.exists(server.path), 'a socket that we did not make')
        other.close()


def wrong_device():
    result = run('vtest', '--socket', path('device'), '--device', 'no such device')
    equal(result.returncode, 1, 'exit status')
    check('no such device' in result.stderr and 'there are' in result.stderr, result.stderr)


def right_device():
    with Server() as server:
        name = server.start_line['device']
        server.stop()
    with Server('--device', name[:8]) as server:
        equal(server.start_line['device'], name, 'device by part of its name')
        server.stop()


def lines_of_a_client():
    with Server() as server:
        Client(server, 4, 'glub').close()
        server.wait_for_log(rf'info: client 1 \(glub\): vtest: connected, pid {os.getpid()}\n')
        server.wait_for_log(r'info: vtest: client 1 \(glub\): ended after 0\.\d+ s: '
                            r'closed by the client\n')
        with Client(server, 4, 'evil\nerror: fake\x1b[2J') as client:
            client.call(GET_PARAM, 1)
        server.wait_for_log(r'client 2 \(evil\?error: fake\?\[2J\): ended')
        server.stop()
    with Server('--log', 'error') as server:
        Client(server, 4).close()
        equal(server.stop(), '', 'a quiet log')


def statistics():
    with Server('--stats') as server:
        with Client(server, 4, 'counted') as client:
            client.start_ring()
        line = server.wait_for_log(r'\(counted\): (\d+) commands, (\d+) replies, (\d+) errors, 0 frames; '
                                   r'(\d+) bytes of commands.* (\d+) messages of (\d+) bytes')
        equal(line[1], '1', 'commands: one ring was made')
        equal(line[3], '0', 'errors')
        check(int(line[5]) == 6, f'{line[5]} messages')
        log = server.stop()
        check(re.search(r'1 clients, 0 of them failed: 1 commands', log), log)


def once():
    with Server('--once') as server:
        with Client(server, 4) as client:
            client.call(GET_PARAM, 1)
        equal(server.process.wait(10 * SLOW), 0, 'exit status after a good client')
        check(not os.path.exists(server.path), 'the socket is gone')
    with Server('--once', '--log', 'debug') as server:
        socket_only = Client(server)
        socket_only.close()  # somebody who only looks does not count
        server.wait_for_log('said nothing')
        with Client(server, 4) as client:
            client.request(99)
            client.expect_end()
        equal(server.process.wait(10 * SLOW), 1, 'exit status after a bad client')


def too_many_clients():
    """Those are told in the handshake, upon which Mesa fails vkCreateInstance and does not hang."""
    with Server('--max-clients', '2') as server:
        clients = [Client(server, 4) for _ in range(2)]
        for client in clients:
            client.call(GET_PARAM, 1)
        for _ in range(3):
            with Client(server) as client:
                client.send(b'\2\0\0\0' + bytes([CREATE_RENDERER, 0, 0, 0]) + b'x\0')
                equal(client.call(VERSION, 4), (0,), 'no version in common')
        server.wait_for_log('turned away: 2 are served already; see --max-clients')
        clients.pop().close()
        wait_until(lambda: len(server.workers()) == 1, 'a place is free')
        with Client(server, 4) as client:
            equal(client.call(GET_PARAM, 1), (1, 64), 'the next one is served')
        clients.pop().close()
        server.stop()


def silent_refused_clients():
    """They cannot hold a process for long, nor many of them."""
    with Server('--max-clients', '1') as server:
        with Client(server, 4) as client:
            client.call(GET_PARAM, 1)
            crowd = [Client(server) for _ in range(60)]
            client.call(GET_PARAM, 1)
            check(len(server.workers()) <= 1 + 32, 'processes')
            wait_until(lambda: len(server.workers()) == 1, 'they are dropped')
            for silent in crowd:
                silent.expect_end()
                silent.close()
            equal(client.call(GET_PARAM, 1), (1, 64), 'the client that was there')
        server.stop()


try:
    main(command_line, start_line, default_socket, sigterm_cleans_up, sigterm_with_a_hanging_worker,
         second_signal_ends_at_once, server_dies, stale_socket, live_socket, bad_socket_paths,
         socket_of_somebody_else_stays, wrong_device, right_device, lines_of_a_client, statistics, once,
         too_many_clients, silent_refused_clients)
finally:
    shutil.rmtree(folder, ignore_errors=True)
