#!/usr/bin/env python3
"""How the device starts and ends, and its control socket: nothing crashes, nothing is left."""
import contextlib
import json
import os
import signal
import socket
import subprocess
import time

from device import Device  # first: it finds pv.py

import pv
from frontend import Frontend
from gpu import Gpu, venus
from venus import Ring, wait_virtqueue_seqno


def alive(pids):
    return [pid for pid in pids if pv.exists(pid) and state(pid) != 'Z']


def state(pid):
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        with open(f'/proc/{pid}/stat') as stat:
            return stat.read().rpartition(')')[2].split()[0]
    return 'Z'


def busy_guest(dev, vm):
    """Two contexts, one of them with a ring that waits for ever; all processes of the device."""
    gpu = venus(vm)
    vm.wait_mapped()
    for ctx in (1, 2):
        gpu.create_context(ctx)
        Ring(gpu, ctx, ctx << 23).check_alive()
    Ring(gpu, 2, 5 << 23, ring=77).write(wait_virtqueue_seqno(1 << 40))
    return dev.family()


def ends_cleanly_by_each_signal():
    """SIGTERM, SIGINT, SIGHUP with a guest in full swing: exit code 0, no socket, no process."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        with Device() as dev:
            vm = Frontend(dev.socket)
            with contextlib.suppress(pv.Failure), vm:
                family = busy_guest(dev, vm)
                pv.check(len(family) >= 3, f'a spawner and two workers: {family}')
                os.kill(dev.pid, number)
                pv.check_equal(dev.process.wait(20 * pv.SLOW), 0, f'exit code after {number.name}')
                pv.wait_until(lambda: not alive(family), 15, 'the end of all processes')
                pv.check(not os.path.exists(dev.socket), 'the socket is left')
                pv.check(not os.path.exists(dev.control), 'the control socket is left')
                raise pv.Failure('done')  # vm cannot stop a device that is gone
            vm.close()
            pv.check(dev.process.poll() == 0, 'the checks above')


def killed_device_leaves_no_process():
    """SIGKILL of the device: spawner and workers end by themselves, and the next start is good."""
    with Device() as dev:
        vm = Frontend(dev.socket)
        vm.realize()
        vm.start()
        family = busy_guest(dev, vm)
        dev.wanted_exit_code = -signal.SIGKILL
        os.kill(dev.pid, signal.SIGKILL)
        dev.process.wait()
        pv.wait_until(lambda: not alive(family), 20, 'the end of all processes')
        vm.close()
        pv.check(os.path.exists(dev.socket), 'a killed device cannot remove its socket')
        again = subprocess.Popen(
            [pv.PEARVISOR, 'gpu', '--socket', dev.socket, '--no-vulkan', '--json'],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        pv._started.append(again)
        pv.check(again.stdout.readline(), 'the start on a stale socket')
        with Frontend(dev.socket) as second:
            Gpu(second).display_info()
        again.terminate()
        pv.check_equal(again.wait(20 * pv.SLOW), 0, 'exit code')
        again.communicate()


def killed_spawner_ends_contexts_only():
    """The process that forks workers dies: contexts fail, the screen goes on."""
    with Device() as dev, Frontend(dev.socket) as vm:
        gpu = venus(vm)
        vm.wait_mapped()
        gpu.create_context(1)
        ring = Ring(gpu, 1, 0)
        ring.check_alive()
        mark = dev.mark()
        spawner, = pv.children(dev.pid)
        os.kill(spawner, signal.SIGKILL)
        pv.wait_until(lambda: ring.status & 2, 10, 'FATAL')
        dev.wait_line('(warn|error)', mark)
        gpu.display_info()
        vm.get_config()
        answer = gpu.command(0x200, (4).to_bytes(4, 'little') * 2 + bytes(64), ctx=9).wait()
        pv.check(answer.type >= 0x1200, f'a context without a spawner: {answer}')
        resource, backing = gpu.framebuffer(16, 16)
        gpu.write_backing(backing, b'\x66' * 1024)
        gpu.transfer(resource, (0, 0, 16, 16))
        gpu.flush(resource, (0, 0, 16, 16))
        pv.check_equal(dev.screenshot()[2][0][:3], b'\x66' * 3, 'the screen')


def second_device_is_refused():
    """Two devices on one socket: the second says so and ends with 1."""
    with Device('--no-vulkan') as dev:
        second = subprocess.run([pv.PEARVISOR, 'gpu', '--socket', dev.socket, '--no-vulkan'],
                                capture_output=True, text=True, timeout=30 * pv.SLOW, check=False)
        pv.check_equal(second.returncode, 1, f'exit code; it said {second.stderr!r}')
        dev.wait_line('disconnected')  # it had a look whether somebody is there
        with Frontend(dev.socket) as vm:
            Gpu(vm).display_info()


def serves_a_socket_that_is_connected():
    """--fd and --control-fd, as `pearvisor run` starts it: ends with its VMM."""
    ours, theirs = socket.socketpair()
    control, control_theirs = socket.socketpair()
    process = subprocess.Popen(
        [pv.PEARVISOR, 'gpu', '--fd', str(theirs.fileno()), '--control-fd',
         str(control_theirs.fileno()), '--no-vulkan', '--json'],
        pass_fds=(theirs.fileno(), control_theirs.fileno()), stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True)
    pv._started.append(process)
    theirs.close()
    control_theirs.close()
    pv.check_equal(json.loads(process.stdout.readline())['pid'], process.pid, 'pid')
    vm = Frontend(None)
    vm.connect = lambda: setattr(vm, 'socket', ours)
    ours.settimeout(20 * pv.SLOW)
    with vm:
        Gpu(vm).display_info()
        control.sendall(b'{"execute": "status", "id": 5}\n')
        control.settimeout(20 * pv.SLOW)
        answer = json.loads(control.recv(65536))
        pv.check(answer['id'] == 5 and 'scanouts' in answer['return'], f'answer {answer}')
    pv.check_equal(process.wait(20 * pv.SLOW), 0, 'exit code')
    control.close()
    process.communicate()


def once_is_once():
    with Device('--once', '--no-vulkan') as dev:
        with Frontend(dev.socket) as vm:
            Gpu(vm).display_info()
        pv.check_equal(dev.process.wait(20 * pv.SLOW), 0, 'exit code')


def control_socket_of_hostile_clients():
    """Nonsense, half lines, long lines, floods that nobody reads; the guest notices nothing."""
    with Device(vulkan=False) as dev, Frontend(dev.socket) as vm:
        gpu = Gpu(vm)

        def connect():
            client = socket.socket(socket.AF_UNIX)
            client.settimeout(5 * pv.SLOW)
            client.connect(dev.control)
            return client
        for line in (b'\n', b'{}\n', b'[]\n', b'nonsense\n', b'{"command": 5}\n',
                     b'{"command": "reboot"}\n', b'{"command": "resize"}\n', b'\0\n', b'\xff\xfe\n',
                     b'{"command": "screenshot", "scanout": 0, "path": "/nonexistent/x.png"}\n',
                     b'{"command": "screenshot", "scanout": 99, "path": "/tmp/pv-none.png"}\n',
                     b'{"execute": "resize", "arguments": 7}\n', b'[' * 1000 + b'\n'):
            with connect() as client:
                client.sendall(line)
                answer = json.loads(client.recv(65536))
                pv.check('error' in answer, f'answer to {line[:60]!r}: {answer}')
        with connect() as client:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                client.sendall(b'x' * (1 << 20))
            with contextlib.suppress(ConnectionResetError):
                pv.check(not client.recv(100), 'a line without end is answered')
        with connect() as client:
            client.setblocking(False)
            end = time.monotonic() + 2
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                while time.monotonic() < end:
                    with contextlib.suppress(BlockingIOError):
                        client.send(b'{"command": "status"}\n' * 100)
            gpu.display_info()
        clients = []
        for _ in range(100):
            with contextlib.suppress(ConnectionRefusedError, BlockingIOError):
                clients.append(connect())
        for client in clients:
            client.close()

        def status():
            with contextlib.suppress(BlockingIOError, ConnectionError, pv.Failure):
                return dev.status()
        pv.check(pv.wait_until(status, 10, 'status afterwards')['scanouts'][0]['on'] is False,
                 'the screen is on')
        pv.check(pv.memory_kib(dev.pid) < (1 << 20), 'memory afterwards')


pv.main(ends_cleanly_by_each_signal, killed_device_leaves_no_process,
        killed_spawner_ends_contexts_only, second_device_is_refused,
        serves_a_socket_that_is_connected, once_is_once, control_socket_of_hostile_clients)
