#!/usr/bin/env python3
"""Virtqueues as no driver makes them: the queue stops, is reported, and works after a reset."""
import os
import struct
import time

from device import Device  # first: it finds pv.py

import gpu as g
import pv
from frontend import Frontend, readable
from gpu import Gpu, header
from vring import F_INDIRECT, F_NEXT, F_WRITE

OUTSIDE = 1 << 50
REQUEST = header(g.GET_DISPLAY_INFO)


class Split:
    """What a bad split ring is made of; `put` publishes the chain at a head."""

    def __init__(self, vm):
        self.vm = vm
        self.queue = vm.queues[0]
        self.memory = vm.memory
        self.good = self.memory.alloc(64)
        self.room = self.memory.alloc(512)
        self.memory.write(self.good, REQUEST)

    def desc(self, *entries):
        """entries: (address, length, flags, next) from index 0 on."""
        for index, entry in enumerate(entries):
            self.queue.write_descriptor(index, *entry)

    def table(self, *entries):
        data = b''.join(self.queue.descriptor(*entry) for entry in entries)
        address = self.memory.alloc(max(16, len(data)))
        self.memory.write(address, data)
        return address, len(data)

    def put(self, head=0):
        self.queue.publish(head)


def loop_of_one(s):
    s.desc((s.good, 24, F_NEXT, 0))
    s.put()


def loop_of_two(s):
    s.desc((s.good, 24, F_NEXT, 1), (s.good, 24, F_NEXT, 0))
    s.put()


def long_loop(s):
    s.desc(*[(s.good, 24, F_NEXT, (i + 1) % 256) for i in range(256)])
    s.put()


def head_out_of_range(s):
    s.put(256)


def head_far_out_of_range(s):
    s.put(0xffff)


def next_out_of_range(s):
    s.desc((s.good, 24, F_NEXT, 256))
    s.put()


def next_far_out_of_range(s):
    s.desc((s.good, 24, F_NEXT, 0xffff))
    s.put()


def request_outside_memory(s):
    s.desc((OUTSIDE, 24, F_NEXT, 1), (s.room, 512, F_WRITE, 0))
    s.put()


def request_in_the_hole(s):
    s.desc((655360 - 8, 24, F_NEXT, 1), (s.room, 512, F_WRITE, 0))
    s.put()


def answer_outside_memory(s):
    s.desc((s.good, 24, F_NEXT, 1), (OUTSIDE, 512, F_WRITE, 0))
    s.put()


def address_wraps(s):
    s.desc(((1 << 64) - 8, 24, F_NEXT, 1), (s.room, 512, F_WRITE, 0))
    s.put()


def request_of_4_gib(s):
    s.desc((s.good, 0xffffffff, F_NEXT, 1), (s.room, 512, F_WRITE, 0))
    s.put()


def avail_index_jumps(s):
    s.queue.avail_idx = (s.queue.avail_idx + 257) & 0xffff
    s.memory.store16(s.queue.avail + 2, s.queue.avail_idx)


def avail_index_goes_back(s):
    s.queue.avail_idx = (s.queue.avail_idx - 1) & 0xffff
    s.memory.store16(s.queue.avail + 2, s.queue.avail_idx)


def indirect_in_indirect(s):
    inner = s.table((s.good, 24, F_NEXT, 1), (s.room, 512, F_WRITE, 0))
    outer = s.table((inner[0], inner[1], F_INDIRECT, 0))
    s.desc((*outer, F_INDIRECT, 0))
    s.put()


def indirect_with_next(s):
    table = s.table((s.good, 24, F_NEXT, 1), (s.room, 512, F_WRITE, 0))
    s.desc((*table, F_INDIRECT | F_NEXT, 1), (s.room, 512, F_WRITE, 0))
    s.put()


def indirect_loops(s):
    table = s.table((s.good, 24, F_NEXT, 1), (s.good, 24, F_NEXT, 0))
    s.desc((*table, F_INDIRECT, 0))
    s.put()


def indirect_next_out_of_range(s):
    table = s.table((s.good, 24, F_NEXT, 2), (s.room, 512, F_WRITE, 0))
    s.desc((*table, F_INDIRECT, 0))
    s.put()


def indirect_outside_memory(s):
    s.desc((OUTSIDE, 32, F_INDIRECT, 0))
    s.put()


def indirect_of_no_bytes(s):
    s.desc((s.good, 0, F_INDIRECT, 0))
    s.put()


def indirect_of_half_an_entry(s):
    s.desc((s.good, 24, F_INDIRECT, 0))
    s.put()


def indirect_of_4_gib(s):
    s.desc((s.good, 0xfffffff0, F_INDIRECT, 0))
    s.put()


def readable_behind_writable(s):
    s.desc((s.room, 512, F_WRITE | F_NEXT, 1), (s.good, 24, 0, 0))
    s.put()


BROKEN = [loop_of_one, loop_of_two, long_loop, head_out_of_range, head_far_out_of_range,
          next_out_of_range, next_far_out_of_range, avail_index_jumps, avail_index_goes_back,
          indirect_in_indirect, indirect_with_next, indirect_loops, indirect_next_out_of_range,
          indirect_outside_memory, indirect_of_no_bytes, indirect_of_half_an_entry,
          indirect_of_4_gib, request_outside_memory, request_in_the_hole, answer_outside_memory,
          address_wraps, request_of_4_gib, readable_behind_writable]


def check_recovers(vm, what):
    """The main channel answers; after a reset the rings work."""
    vm.get_config()
    vm.stop()
    vm.restart()
    pv.check_equal(Gpu(vm).display_info()[0][4], 1, f'screen after {what} and a reset')


def broken_rings_are_reported():
    """Each on a connection of its own: a line of the log, no answer out of thin air, a reset heals,
    and the next connection works."""
    with Device(vulkan=False) as dev:
        for broken in BROKEN:
            what = broken.__name__.replace('_', ' ')
            mark = dev.mark()
            with Frontend(dev.socket) as vm:
                Gpu(vm).display_info()
                broken(Split(vm))
                vm.queues[0].force_kick()
                try:
                    dev.wait_line(r'(warn|error): .+', mark)
                except pv.Failure as failure:
                    raise pv.Failure(f'{what}: {failure}') from None
                check_recovers(vm, what)
            lines = dev.lines_since(mark)
            pv.check(1 <= len([l for l in lines if l.startswith(('warn', 'error'))]) <= 3,
                     f'{what}: lines of the log: {lines}')
        with Frontend(dev.socket) as vm:
            Gpu(vm).display_info()


def other_queue_goes_on():
    """A broken cursor queue does not stop the control queue."""
    with Device(vulkan=False) as dev, Frontend(dev.socket) as vm:
        gpu = Gpu(vm)
        queue = vm.queues[1]
        queue.publish(0xfff)
        queue.force_kick()
        pv.wait_until(lambda: readable(queue.err_fd) or 'cursor' in dev.log(), 10,
                      'the error of the cursor queue')
        for _ in range(10):
            gpu.display_info()


def empty_descriptors():
    """Parts of 0 bytes are useless, and legal enough: the request around them is served."""
    with Device(vulkan=False) as dev, Frontend(dev.socket) as vm:
        s = Split(vm)
        s.desc((s.good, 0, F_NEXT, 1), (s.good, 24, F_NEXT, 2), (s.room, 0, F_WRITE | F_NEXT, 3),
               (s.room, 512, F_WRITE, 0))
        s.put()
        s.queue.force_kick()
        pv.wait_until(lambda: s.queue.used_idx() == 1 or dev.log_lines(), 10, 'an answer or a line')
        check_recovers(vm, 'empty descriptors')


def rings_outside_memory():
    """SET_VRING_ADDR that names nothing: refused, or reported at the start of the ring."""
    with Device(vulkan=False) as dev:
        for place in range(3):
            for wild in (0, 0x1000, 0xffffffffffffffff, 0x7f1200000000 + (1 << 40)):
                with Frontend(dev.socket, start=False) as vm:
                    queue = vm.queues[0]
                    addresses = list(queue.addresses())
                    addresses[place] = wild
                    queue.addresses = lambda addresses=addresses: tuple(addresses)
                    try:
                        vm.start()
                        queue.force_kick()
                        vm.get_config()
                    except pv.Failure:
                        pass  # refused by an acknowledgement or by closing: fine, too
                    vm.started = False
        with Frontend(dev.socket) as vm:
            Gpu(vm).display_info()


def wrong_ring_sizes():
    with Device(vulkan=False) as dev:
        for size in (0, 3, 100, 65536, 0xffffffff):
            with Frontend(dev.socket, start=False) as vm:
                vm.queues[0].size = size
                try:
                    vm.start()
                    vm.queues[0].force_kick()
                    vm.get_config()
                except pv.Failure:
                    pass
                vm.started = False
        for size in (2, 64, 1024):
            with Frontend(dev.socket, queue_size=size) as vm:
                for _ in range(3 * size if size < 1000 else 100):
                    Gpu(vm).display_info()


def kick_storm():
    """100,000 kicks with nothing to do: the main channel is answered meanwhile."""
    with Device(vulkan=False) as dev, Frontend(dev.socket) as vm:
        gpu = Gpu(vm)
        slowest = 0
        for i in range(10000 if pv.SANITIZED else 100000):
            os.eventfd_write(vm.queues[i & 1].kick_fd, 1)
            if i % 1000 == 0:
                start = time.monotonic()
                vm.get_config()
                slowest = max(slowest, time.monotonic() - start)
        pv.check(slowest < 0.5 * pv.SLOW, f'GET_CONFIG took {slowest:.3f} s during the storm')
        gpu.display_info()
        pv.say(f'slowest GET_CONFIG {slowest * 1000:.1f} ms')


def ring_always_full():
    """All 256 entries in flight, time and again, past the wrap of the 16-bit index."""
    with Device(vulkan=False) as dev, Frontend(dev.socket, queue_size=64, indirect=False) as vm:
        gpu = Gpu(vm)
        rounds = 300 if pv.SANITIZED else 2200
        for _ in range(rounds):
            pending = [gpu.send(header(g.GET_EDID) + bytes(8), room=24, kick=False)
                       for _ in range(32)]
            gpu.control.kick()
            for request in pending:
                request.wait()
        if not pv.SANITIZED:
            pv.check(rounds * 32 > 65536, 'the index does not wrap')


def memory_of_the_ring_goes():
    """The region that holds the rings is removed under them."""
    with Device(vulkan=False) as dev, Frontend(dev.socket) as vm:
        Gpu(vm).display_info()
        regions = list(vm.memory.regions)
        queue = vm.queues[0]
        for keep in ([regions[0]], []):
            vm.memory.regions = keep
            payload, fds = vm.memory_table()
            vm.tell(5, payload, fds, wanted=None)
            queue.force_kick()
            vm.get_config()
        vm.memory.regions = regions
        vm.send_memory_table()
        check_recovers(vm, 'the memory of the rings')


def indices_change_while_looked_at():
    """A guest that rewrites its ring all the time; the device lives, and a reset heals."""
    with Device(vulkan=False) as dev, Frontend(dev.socket) as vm:
        queue = vm.queues[0]
        s = Split(vm)
        s.desc(*[(s.good, 24, F_NEXT, (i * 7 + 1) % 256) for i in range(256)])
        for i in range(3000):
            vm.memory.write(queue.avail + 2, os.urandom(2 + 2 * 256))
            vm.memory.write(queue.desc + 16 * (i % 256), struct.pack(
                '<QIHH', s.good + i % 64, i, i & 7, i * 31 & 0x1ff))
            queue.force_kick()
        vm.get_config()
        vm.memory.write(queue.avail, bytes(6 + 2 * 256))
        check_recovers(vm, 'a ring of noise')


def no_call_fd():
    """Without a call fd the device answers, and interrupts nobody."""
    with Device(vulkan=False) as dev, Frontend(dev.socket) as vm:
        gpu = Gpu(vm)
        for request in (13, 14):
            vm.tell(request, struct.pack('<Q', 0 | 1 << 8))
        pending = gpu.command(g.GET_DISPLAY_INFO)
        pv.wait_until(lambda: pending.poll(), 10, 'an answer without a call fd')
        vm.tell(13, struct.pack('<Q', 0), [vm.queues[0].call_fd])
        gpu.display_info()


def kick_fd_that_is_no_eventfd():
    """A file, a closed pipe, /dev/null in place of an eventfd: no crash, no busy loop."""
    with Device(vulkan=False) as dev:
        for path in ('/dev/null', '/dev/zero', '/proc/self/exe'):
            with Frontend(dev.socket) as vm:
                fd = os.open(path, os.O_RDONLY)
                for request in (12, 13, 14):
                    try:
                        vm.tell(request, struct.pack('<Q', 0), [fd], wanted=None)
                    except pv.Failure:
                        break
                os.close(fd)
                before = pv.cpu_ticks(dev.pid)
                time.sleep(0.3)
                spent = pv.cpu_ticks(dev.pid) - before
                pv.check(spent < 0.2 * pv.TICK, f'{spent} ticks in 0.3 s with {path} as kick fd')
                vm.started = False
        with Frontend(dev.socket) as vm:
            Gpu(vm).display_info()


pv.main(broken_rings_are_reported, other_queue_goes_on, empty_descriptors, rings_outside_memory,
        wrong_ring_sizes, kick_storm, ring_always_full, memory_of_the_ring_goes,
        indices_change_while_looked_at, no_call_fd, kick_fd_that_is_no_eventfd)
