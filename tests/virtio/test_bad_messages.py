#!/usr/bin/env python3
"""vhost-user messages as no VMM sends them: the connection may end, the device does not."""
import array
import os
import random
import socket
import struct

from device import Device  # first: it finds pv.py

import frontend as f
import pv
from frontend import Frontend, readable
from gpu import Gpu

U64 = struct.pack('<Q', 0)
RING = struct.pack('<II', 0, 1)


def serves(dev, what):
    """A new connection works."""
    try:
        with Frontend(dev.socket) as vm:
            pv.check_equal(Gpu(vm).display_info()[0][4], 1, 'the first scanout')
    except pv.Failure as failure:
        raise pv.Failure(f'after {what}: {failure}\n{dev.log()[-2000:]}') from None


def attempt(dev, data, fds=(), prepare=True, what=''):
    """Send raw bytes on a fresh connection, then see whether it is still of use."""
    vm = Frontend(dev.socket, start=False)
    try:
        if prepare:
            vm.realize()
        else:
            vm.connect()
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', fds))] if fds else []
        vm.socket.sendmsg([data], rights)
        vm.socket.shutdown(socket.SHUT_WR)  # with an answer or without, the device closes now
        while vm.socket.recv(4096):
            pass
    except (BrokenPipeError, ConnectionResetError, f.Closed):
        pass
    finally:
        vm.close()


def message(request, payload=b'', flags=f.VERSION, size=None):
    return struct.pack('<III', request, flags, len(payload) if size is None else size) + payload


def unknown_requests():
    with Device(vulkan=False) as dev:
        for request in (0, 19, 20, 22, 23, 26, 30, 43, 45, 46, 100, 0x7fffffff, 0xffffffff):
            mark = dev.mark()
            attempt(dev, message(request, bytes(8)))
            dev.wait_line(str(request), mark)
        serves(dev, 'unknown requests')


def unknown_requests_are_acknowledged_as_failed():
    """With need_reply the frontend hears of it, and the connection goes on."""
    with Device(vulkan=False) as dev, Frontend(dev.socket) as vm:
        vm.socket.settimeout(5 * pv.SLOW)
        try:
            vm.tell(45, bytes(8), wanted=1)
        except f.Closed:
            pv.say('the device closes instead')


def wrong_sizes():
    """Every request with every payload size but its own."""
    good = {f.SET_FEATURES: 8, f.SET_PROTOCOL_FEATURES: 8, f.SET_VRING_NUM: 8, f.SET_VRING_ADDR: 40,
            f.SET_VRING_BASE: 8, f.GET_VRING_BASE: 8, f.SET_VRING_KICK: 8, f.SET_VRING_CALL: 8,
            f.SET_VRING_ERR: 8, f.SET_VRING_ENABLE: 8, f.SET_MEM_TABLE: 8, f.GET_CONFIG: 12,
            f.SET_CONFIG: 12, f.GET_FEATURES: 0, f.GET_PROTOCOL_FEATURES: 0, f.GET_QUEUE_NUM: 0,
            f.SET_OWNER: 0, f.GET_SHMEM_CONFIG: 0, f.SET_BACKEND_REQ_FD: 0, f.SET_STATUS: 8}
    with Device(vulkan=False) as dev:
        for request, size in good.items():
            for wrong in {0, 1, 4, 7, 9, 16, 39, 41, 4000, size + 1, size - 1} - {size, -1}:
                attempt(dev, message(request, bytes(wrong)))
                attempt(dev, message(request, b'\xff' * wrong, f.VERSION | f.NEED_REPLY))
        serves(dev, 'wrong sizes')


def huge_sizes():
    """A header that promises more than there will ever be: refused without reading on."""
    with Device(vulkan=False) as dev:
        before = pv.memory_kib(dev.pid)
        for size in (4097, 1 << 20, 1 << 31, 0xffffffff):
            for request in (f.SET_MEM_TABLE, f.GET_CONFIG, f.SET_CONFIG, f.SET_VRING_ADDR, 99):
                attempt(dev, message(request, bytes(64), size=size))
        pv.check(pv.memory_kib(dev.pid) - before < 65536, 'memory after huge sizes')
        serves(dev, 'huge sizes')


def truncated_messages():
    """Closed in the middle of header or payload, at every byte."""
    with Device(vulkan=False) as dev:
        whole = message(f.SET_VRING_ADDR, bytes(40))
        for length in range(0, len(whole), 3):
            vm = Frontend(dev.socket, start=False)
            vm.connect()
            vm.socket.sendall(whole[:length])
            vm.close()
        serves(dev, 'truncated messages')


def messages_byte_by_byte():
    """A slow frontend is a frontend."""
    with Device(vulkan=False) as dev:
        vm = Frontend(dev.socket, start=False)
        vm.connect()
        try:
            for _ in range(3):
                for byte in message(f.GET_FEATURES):
                    vm.socket.sendall(bytes([byte]))
                reply = vm.receive(f.GET_FEATURES)
                pv.check_equal(len(reply), 8, 'size of the features')
            vm.socket.sendall(message(f.GET_FEATURES) * 50)
            for _ in range(50):
                vm.receive(f.GET_FEATURES)
        finally:
            vm.close()


def wrong_flags():
    with Device(vulkan=False) as dev:
        for flags in (0, 2, 3, f.VERSION | f.REPLY, 0xfffffff0, 0xffffffff, f.VERSION | 0x10):
            attempt(dev, message(f.GET_FEATURES, flags=flags))
            attempt(dev, message(f.SET_VRING_ENABLE, RING, flags))
        serves(dev, 'wrong flags')


def need_reply_on_everything():
    """Also on requests with a reply of their own: exactly one answer each."""
    with Device(vulkan=False) as dev, Frontend(dev.socket, start=False) as vm:
        for request, payload in ((f.GET_FEATURES, b''), (f.GET_PROTOCOL_FEATURES, b''),
                                 (f.GET_QUEUE_NUM, b''), (f.GET_SHMEM_CONFIG, b''),
                                 (f.GET_CONFIG, struct.pack('<III', 0, 16, 0) + bytes(16)),
                                 (f.GET_VRING_BASE, RING), (f.SET_OWNER, b''),
                                 (f.SET_FEATURES, struct.pack('<Q', vm.features)),
                                 (f.SET_VRING_NUM, struct.pack('<II', 0, 64)),
                                 (f.SET_VRING_BASE, struct.pack('<II', 0, 0))):
            vm.send(request, payload, need_reply=True)
            vm.receive(request)
            pv.check(not readable(vm.socket, 0.05), f'a second answer to request {request}')


def too_many_fds():
    """More fds than a request takes: all are closed again."""
    with Device(vulkan=False) as dev:
        serves(dev, 'the start')
        before = pv.wait_until(lambda: pv.fd_count(dev.pid), 5, 'the count of fds')
        null = os.open('/dev/null', os.O_RDWR)
        for count in (1, 2, 8, 9, 32, 64, 200, 253):
            for request, payload in ((f.GET_FEATURES, b''), (f.SET_VRING_KICK, U64),
                                     (f.SET_MEM_TABLE, struct.pack('<II', 1, 0) + bytes(32)),
                                     (99, b''), (f.SET_BACKEND_REQ_FD, b'')):
                attempt(dev, message(request, payload), [null] * count)
        os.close(null)
        serves(dev, 'too many fds')
        pv.wait_until(lambda: pv.fd_count(dev.pid) <= before, 10,
                      f'fds to be closed (there were {before})')


def missing_fds():
    with Device(vulkan=False) as dev:
        for request, payload in ((f.SET_VRING_KICK, U64), (f.SET_VRING_CALL, U64),
                                 (f.SET_VRING_ERR, U64), (f.SET_BACKEND_REQ_FD, b''),
                                 (f.SET_MEM_TABLE, struct.pack('<II4Q', 1, 0, 0, 4096, 0, 0))):
            attempt(dev, message(request, payload))
        serves(dev, 'missing fds')


def wrong_queues():
    with Device(vulkan=False) as dev:
        eventfd = os.eventfd(0)
        for index in (2, 3, 255, 0x7fffffff, 0xffffffff):
            pair = struct.pack('<II', index, 1)
            for request in (f.SET_VRING_NUM, f.SET_VRING_BASE, f.GET_VRING_BASE,
                            f.SET_VRING_ENABLE):
                attempt(dev, message(request, pair))
            attempt(dev, message(f.SET_VRING_ADDR, pair + bytes(32)))
            for request in (f.SET_VRING_KICK, f.SET_VRING_CALL, f.SET_VRING_ERR):
                attempt(dev, message(request, struct.pack('<Q', index & 0xff)), [eventfd])
        os.close(eventfd)
        serves(dev, 'wrong queues')


def wrong_memory_tables():
    """Overlaps, overflows, no size, an fd too short, too many; the old table stays in force."""
    with Device(vulkan=False) as dev, Frontend(dev.socket) as vm:
        gpu = Gpu(vm)
        fd = os.memfd_create('short')
        os.ftruncate(fd, 65536)
        null = os.open('/dev/null', os.O_RDWR)
        top = (1 << 64) - 4096
        tables = [
            ([(0, 0, 1 << 40, 0)], fd), ([(0, 1 << 20, 1 << 40, 0)], fd),
            ([(0, 65536, 1 << 40, 4096)], fd), ([(0, 4096, 1 << 40, top)], fd),
            ([(top, 8192, 1 << 40, 0)], fd), ([(0, top, 1 << 40, 0)], fd),
            ([(0, 8192, 1 << 40, 0), (4096, 8192, 1 << 41, 0)], fd),
            ([(0, 4096, 1 << 40, 0)], null),
        ]
        for regions, one in tables:
            payload = struct.pack('<II', len(regions), 0) + \
                b''.join(struct.pack('<4Q', *region) for region in regions)
            try:
                vm.tell(f.SET_MEM_TABLE, payload, [one] * len(regions), wanted=1)
            except f.Closed:
                raise pv.Failure('a wrong table ends the connection: QEMU would abort') from None
            gpu.display_info()
        for count in (9, 64, 1000, 0xffffffff):
            vm.tell(f.SET_MEM_TABLE, struct.pack('<II', count, 0) + bytes(32), [fd], wanted=1)
        os.close(fd)
        os.close(null)
        gpu.display_info()


def wrong_config_accesses():
    with Device(vulkan=False) as dev:
        check_config_accesses(dev)
        serves(dev, 'wrong config accesses')


def check_config_accesses(dev):
    with Frontend(dev.socket) as vm:
        good = vm.get_config()
        for offset, size in ((0xffffffff, 4), (256, 4), (0, 257), (250, 16), (0xfffffff0, 32)):
            try:
                vm.call(f.GET_CONFIG, struct.pack('<III', offset, size, 0) + bytes(min(size, 300)))
            except f.Closed:
                pv.say(f'GET_CONFIG of {size} bytes at {offset} closes the connection')
                vm.started = False
                return
        pv.check_equal(vm.get_config(), good, 'configuration afterwards')


def order_nobody_uses():
    """Kick before enable, enable before everything, GET_VRING_BASE twice, ENABLE twice."""
    with Device(vulkan=False) as dev:
        attempt(dev, message(f.SET_VRING_ENABLE, RING), prepare=False)
        attempt(dev, message(f.GET_CONFIG, struct.pack('<III', 0, 16, 0) + bytes(16)),
                prepare=False)
        attempt(dev, message(f.SET_VRING_ENABLE, RING))
        attempt(dev, message(f.GET_VRING_BASE, RING) * 3)
        with Frontend(dev.socket, start=False) as vm:
            vm.tell_features()
            vm.send_memory_table()
            for index in (0, 1):
                vm.set_up_queue(index)
                vm.queues[index].force_kick()
            gpu = Gpu(vm)
            early = gpu.command(0x100)
            vm.started = True
            for _ in range(3):
                for index in (0, 1):
                    vm.tell(f.SET_VRING_ENABLE, struct.pack('<II', index, 1))
            early.wait()
            gpu.display_info()
            for _ in range(2):
                for index in (0, 1):
                    vm.tell(f.SET_VRING_ENABLE, struct.pack('<II', index, 0))
            bases = [vm.call(f.GET_VRING_BASE, struct.pack('<II', 0, 0)) for _ in range(2)]
            pv.check_equal(bases[0], bases[1], 'GET_VRING_BASE, asked twice')
            vm.stop()
            vm.restart()
            Gpu(vm).display_info()
        serves(dev, 'an order that nobody uses')


def setup_while_running():
    """Addresses, sizes and bases changed under a running ring: no crash, a reset heals."""
    with Device(vulkan=False) as dev, Frontend(dev.socket) as vm:
        gpu = Gpu(vm)
        gpu.display_info()
        queue = vm.queues[0]
        for request, payload in ((f.SET_VRING_NUM, struct.pack('<II', 0, 4)),
                                 (f.SET_VRING_BASE, struct.pack('<II', 0, 77)),
                                 (f.SET_VRING_ADDR, struct.pack('<II4Q', 0, 0, 16, 16, 16, 16)),
                                 (f.SET_FEATURES, struct.pack('<Q', 0)),
                                 (f.SET_FEATURES, struct.pack('<Q', 0xffffffffffffffff))):
            vm.tell(request, payload, wanted=None)
            queue.force_kick()
            vm.get_config()
        vm.stop()
        vm.restart()
        Gpu(vm).display_info()


def second_frontend():
    """One VM at a time: another is turned away or waits, the first one goes on."""
    with Device(vulkan=False) as dev, Frontend(dev.socket) as vm:
        gpu = Gpu(vm)
        other = socket.socket(socket.AF_UNIX)
        other.settimeout(0.5)
        try:
            other.connect(dev.socket)
            other.sendall(message(f.GET_FEATURES))
            try:
                pv.check(not other.recv(100), 'a second frontend is served')
            except (TimeoutError, ConnectionResetError):
                pass
        except (ConnectionRefusedError, BrokenPipeError):
            pass
        finally:
            other.close()
        gpu.display_info()


def noise():
    """Random messages, with and without a start before; the device outlives them."""
    with Device(vulkan=False) as dev:
        rng = random.Random(11)
        values = [0, 1, 2, 7, 0xff, 0x100, 4096, 1 << 31, 0xffffffff]
        fd = os.memfd_create('noise')
        os.ftruncate(fd, 1 << 20)
        for round_ in range(40 if pv.SANITIZED else 150):
            data = b''
            for _ in range(rng.randrange(1, 8)):
                payload = b''.join(struct.pack('<I', rng.choice(values))
                                   for _ in range(rng.randrange(0, 12)))
                flags = rng.choice((1, 1, 1, 9, 9, 5, 0))
                data += message(rng.randrange(1, 48), payload, flags)
            attempt(dev, data, [fd] * rng.choice((0, 0, 1, 2)), prepare=round_ % 2 == 0)
        os.close(fd)
        serves(dev, 'noise')


pv.main(unknown_requests, unknown_requests_are_acknowledged_as_failed, wrong_sizes, huge_sizes,
        truncated_messages, messages_byte_by_byte, wrong_flags, need_reply_on_everything,
        too_many_fds, missing_fds, wrong_queues, wrong_memory_tables, wrong_config_accesses,
        order_nobody_uses, setup_while_running, second_frontend, noise)
