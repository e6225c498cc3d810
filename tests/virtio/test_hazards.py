#!/usr/bin/env python3
"""What makes QEMU crash, hang or lose writes, one hazard at a time: the device avoids each.

What may be sent on the backend channel and when, and what must be answered meanwhile. Frontend
writes down each message that QEMU would not survive.
"""
import os
import signal
import struct
import threading
import time

from device import Device  # first: it finds pv.py

import frontend as f
import gpu as g
import pv
from frontend import Frontend
from gpu import ERR, Gpu, venus
from memory import PAGE
from venus import MEMORY, Ring, Vulkan

MIB = 1 << 20
DYNAMIC = ('--window', 'dynamic')


def nothing_before_enable():
    """QEMU dies of a backend request before the driver has started the device."""
    with Device() as dev, Frontend(dev.socket, start=False) as vm:
        vm.get_config()
        dev.command('resize', scanout=0, width=1024, height=768)
        time.sleep(0.3)
        pv.check_equal(vm.backend.messages, [], 'backend requests before the start')
        vm.start()
        vm.wait_mapped()
        # The change that could not be told is told now, or is in events_read when the driver looks.
        pv.check_equal(Gpu(vm).config()[0], g.EVENT_DISPLAY, 'events_read')


def nothing_after_stop():
    with Device() as dev, Frontend(dev.socket) as vm:
        vm.wait_mapped()
        vm.stop()
        count = len(vm.backend.messages)
        dev.command('resize', scanout=0, width=1024, height=768)
        vm.get_config()
        time.sleep(0.3)
        pv.check_equal(len(vm.backend.messages), count, 'backend requests after the stop')
        vm.restart()
        vm.wait_mapped()


def stop_while_a_map_is_under_way():
    """The reset comes while the device waits for the reply to its map: nothing follows."""
    started = threading.Event()

    def slow(request, _):
        if request == f.SHMEM_MAP:
            started.set()
            return 0.3
        return None
    with Device() as dev, Frontend(dev.socket, policy=slow) as vm:
        pv.check(started.wait(10 * pv.SLOW), 'the map of the arena')
        vm.stop()
        time.sleep(0.5)
        vm.backend.policy = None
        vm.restart()
        vm.wait_mapped()
        pv.check_equal(Gpu(vm).display_info()[0][4], 1, 'the screen')


def main_channel_is_served_while_a_map_waits():
    """A reply that takes a second: GET_CONFIG is answered within 100 ms meanwhile."""
    def slow(request, _):
        return 1.0 if request == f.SHMEM_MAP else None
    with Device() as dev, Frontend(dev.socket, policy=slow) as vm:
        end = time.monotonic() + 0.8
        slowest = 0
        while time.monotonic() < end:
            start = time.monotonic()
            vm.get_config()
            slowest = max(slowest, time.monotonic() - start)
            time.sleep(0.01)
        pv.check(slowest < 0.1 * pv.SLOW, f'GET_CONFIG took {slowest * 1000:.0f} ms')
        pv.say(f'slowest GET_CONFIG {slowest * 1000:.1f} ms')
        vm.wait_mapped()


def never_answered_map():
    """A VMM that never replies: 2D and the main channel go on, and the device can be stopped."""
    with Device() as dev, Frontend(dev.socket, policy=lambda request, _: 'silent') as vm:
        gpu = Gpu(vm)
        for _ in range(20):
            vm.get_config()
        resource, _ = gpu.framebuffer(32, 32)
        gpu.flush(resource, (0, 0, 32, 32))
        dev.screenshot()


def barrier_behind_every_map():
    """SHMEM_MAP, its reply, then SHARED_OBJECT_REMOVE with need_reply and a uuid nobody has."""
    for args in ((), DYNAMIC):
        with Device(*args) as dev, Frontend(dev.socket) as vm:
            gpu = venus(vm)
            gpu.create_context(1)
            if args:
                for i in range(5):
                    gpu.map_blob(gpu.create_blob(PAGE, 1), i * PAGE)
            else:
                vm.wait_mapped()
            vm.backend.settle()
            pv.wait_until(lambda: vm.backend.requests().count(f.SHARED_OBJECT_REMOVE) >=
                          vm.backend.requests().count(f.SHMEM_MAP), 10, 'a barrier behind each map')
            waiting = None  # the time at which the reply to the last map went out
            for request in vm.backend.messages:
                if request[1] == f.SHMEM_MAP:
                    pv.check(request[2] & f.NEED_REPLY, 'SHMEM_MAP without need_reply')
                    waiting = request[0]
                elif request[1] == f.SHARED_OBJECT_REMOVE:
                    pv.check(request[2] & f.NEED_REPLY, 'a barrier without need_reply')
                    pv.check(waiting is not None, 'a barrier without a map')
            pv.check(waiting is not None, 'no map at all')


def map_is_answered_behind_the_barrier():
    """Dynamic: MAP_BLOB is answered when the guest can use it, although QEMU replies too early."""
    with Device(*DYNAMIC) as dev, Frontend(dev.socket, commit_delay=0.15) as vm:
        gpu = venus(vm)
        gpu.create_context(1)
        blob = gpu.create_blob(MIB, 1)
        start = time.monotonic()
        gpu.map_blob(blob, 16 * MIB)
        pv.check(time.monotonic() - start > 0.14, 'MAP_BLOB was answered before the commit')
        vm.window.write(16 * MIB, b'there')  # fails if it is not mapped
        # Others are not held up by a map that takes its time.
        other = gpu.create_blob(MIB, 1)
        pending = gpu.command(g.MAP_BLOB, struct.pack('<IIQ', other, 0, 32 * MIB))
        start = time.monotonic()
        gpu.display_info()
        vm.get_config()
        pv.check(time.monotonic() - start < 0.12 * pv.SLOW, 'GET_DISPLAY_INFO behind a map')
        pv.check_equal(pending.wait().type, g.OK_MAP, 'the second map')
        gpu.unmap_blob(blob)
        gpu.unmap_blob(other)


def the_vmm_rests():
    """Dynamic: after a map that took QEMU's main loop long, its processors get their turn, also when many wait."""
    commit = 0.02
    with Device(*DYNAMIC) as dev, Frontend(dev.socket, commit_delay=commit) as vm:
        gpu = venus(vm)
        gpu.create_context(1)
        blobs = [gpu.create_blob(MIB, 1) for _ in range(10)]
        before = len(vm.backend.messages)
        pending = [gpu.command(g.MAP_BLOB, struct.pack('<IIQ', blob, 0, i * MIB)) for i, blob in enumerate(blobs)]
        for command in pending:
            pv.check_equal(command.wait().type, g.OK_MAP, 'a map')
        sent = [time for time, *_ in vm.backend.messages[before:]]
        answered = [time for time, *_ in vm.backend.replies[-len(sent):]]
        pv.check_equal(vm.backend.requests()[before:], [f.SHMEM_MAP, f.SHARED_OBJECT_REMOVE] * 10, 'requests')
        rests = [later - earlier for earlier, later in zip(answered[1::2], sent[2::2])]
        pv.check(min(rests) > commit * 0.4, f'the VMM had rests of {min(rests) * 1000:.1f} ms at least')


def main_dynamic():
    """The dynamic window: many maps, each its own SHMEM_MAP, and all of them go again."""
    with Device(*DYNAMIC) as dev, Frontend(dev.socket) as vm:
        gpu = venus(vm)
        gpu.create_context(1)
        words = struct.unpack('<40I', gpu.capset())
        pv.check_equal(words[39], 0, 'use_guest_vram in the capset')
        ring = Ring(gpu, 1, 0)
        ring.check_alive()
        blobs = []
        for i in range(1, 21):
            blobs.append(gpu.mapped_blob(1, 64 * 1024, 4 * MIB * i))
            pv.check(not any(vm.window.read(4 * MIB * i, 64 * 1024)), 'a new blob that is not zero')
            vm.window.write(4 * MIB * i, bytes([i]) * 100)
        for i, blob in enumerate(blobs, 1):
            pv.check_equal(vm.window.read(4 * MIB * i, 100), bytes([i]) * 100, f'blob {i}')
            gpu.unmap_blob(blob)
            gpu.unref(blob)
        vm.backend.settle()
        pv.check_equal(len(vm.window.maps), 2, 'maps that are left: the ring and its replies')
        pv.check_equal(vm.backend.requests().count(f.SHMEM_UNMAP), 20, 'unmaps')
        ring.check_alive()
        vulkan = Vulkan(ring)
        vulkan.allocate(MIB)  # the driver's memory first, the blob of it after
        blob = gpu.mapped_blob(1, MIB, 128 * MIB, blob_id=MEMORY)
        vulkan.fill(MIB, 0x77777777)
        pv.check(vm.window.read(128 * MIB, MIB) == b'\x77' * MIB, 'what the GPU wrote')
        gpu.unmap_blob(blob)
        gpu.create_context(2)
        gpu.mapped_blob(2, MIB, 4 * MIB)
        pv.check(not any(vm.window.read(4 * MIB, MIB)), "another context's bytes")


def unmap_is_finished_before_reuse():
    """Dynamic: UNMAP, and MAP of another blob at the same offset right behind it."""
    with Device(*DYNAMIC) as dev, Frontend(dev.socket, commit_delay=0.02) as vm:
        gpu = venus(vm)
        gpu.create_context(1)
        for round_ in range(10):
            blob, other = gpu.create_blob(PAGE, 1), gpu.create_blob(PAGE, 1)
            gpu.map_blob(blob, 0)
            unmap = gpu.command(g.UNMAP_BLOB, struct.pack('<II', blob, 0), kick=False)
            again = gpu.command(g.MAP_BLOB, struct.pack('<IIQ', other, 0, 0))
            pv.check_equal((unmap.wait().type, again.wait().type), (g.OK, g.OK_MAP),
                           f'round {round_}')
            gpu.unmap_blob(other)


def bar_regions_are_ignored():
    """Mapped regions come back in the memory table, as guest memory that is none. A guest that
    names an address there as backing is told that it is wrong, and nothing is mapped twice."""
    with Device() as dev, Frontend(dev.socket) as vm:
        gpu = venus(vm)
        vm.wait_mapped()
        pv.wait_until(lambda: vm.bar_regions, 5, 'the window in the memory table')
        gpu.display_info()
        with open(f'/proc/{dev.pid}/maps') as maps:
            sizes = [int(line.split()[0].split('-')[1], 16) - int(line.split()[0].split('-')[0], 16)
                     for line in maps if '/memfd:' in line]
        pv.check(sizes.count(vm.window.size) <= 1, f'the window is mapped {sizes}')
        resource = gpu.create_2d(32, 32)
        gpu.attach(resource, [(vm.BAR, 4096)], error=g.ERR_PARAMETER)


def a_restart_maps_again():
    """A reset takes all maps away without a message: the arena is mapped at each start, and what
    the guest had is gone."""
    with Device() as dev, Frontend(dev.socket) as vm:
        for round_ in range(4):
            vm.wait_mapped()
            gpu = Gpu(vm)
            gpu.last_id = 0
            gpu.create_context(1)  # a context 1 of before would be in the way
            ring = Ring(gpu, 1, 0)
            ring.check_alive()
            blob = gpu.mapped_blob(1, PAGE, 4 * MIB)
            pv.check_equal(vm.window.read(4 * MIB, PAGE), bytes(PAGE), f'round {round_}')
            vm.window.write(4 * MIB, b'mine')
            gpu.framebuffer(16, 16)
            del blob
            vm.stop()
            pv.wait_until(lambda: len(dev.family()) <= 1, 15, 'the workers to end')
            vm.restart()
        vm.backend.wait_requests(f.SHMEM_MAP, 5)


def refused_map():
    """A VMM that refuses the arena: one line, and the console goes on."""
    with Device() as dev:
        mark = dev.mark()
        with Frontend(dev.socket, policy=lambda request, _: 'refuse'
                      if request == f.SHMEM_MAP else None) as vm:
            gpu = Gpu(vm)
            dev.wait_line('refuse', mark)
            pv.check_equal(gpu.display_info()[0][4], 1, 'the screen')
            resource, backing = gpu.framebuffer(16, 16)
            gpu.write_backing(backing, b'\x11' * 1024)
            gpu.transfer(resource, (0, 0, 16, 16))
            gpu.flush(resource, (0, 0, 16, 16))
            pv.check_equal(dev.screenshot()[2][0][:3], b'\x11' * 3, 'a pixel')
            # A blob cannot be mapped: an error, so that the guest's mmap() fails.
            answer = gpu.command(g.CTX_CREATE, struct.pack('<II64s', 1, 4, b'x'), ctx=1).wait()
            if answer.type == g.OK:
                blob = gpu.new_id()
                gpu.command(g.CREATE_BLOB, gpu.blob_body(blob, g.HOST3D, g.MAPPABLE, PAGE),
                            ctx=1).wait()
                answer = gpu.command(g.MAP_BLOB, struct.pack('<IIQ', blob, 0, 0)).wait()
                pv.check(answer.type >= ERR, f'MAP_BLOB without a window: {answer}')
        pv.check_equal(len([l for l in dev.lines_since(mark) if 'refuse' in l]), 1,
                       'lines about the refusal')


def refused_dynamic_map():
    with Device(*DYNAMIC) as dev:
        refuse = [True]
        with Frontend(dev.socket, policy=lambda request, _: 'refuse'
                      if refuse[0] and request == f.SHMEM_MAP else None) as vm:
            gpu = venus(vm)
            gpu.create_context(1)
            blob = gpu.create_blob(PAGE, 1)
            answer = gpu.command(g.MAP_BLOB, struct.pack('<IIQ', blob, 0, 0)).wait()
            pv.check(answer.type >= ERR, f'a refused map: {answer}')
            refuse[0] = False
            gpu.map_blob(blob, 0)
            vm.window.write(0, b'x')


def backend_channel_closes():
    """The frontend drops the backend channel: the device notes it, and serves what it can."""
    with Device() as dev, Frontend(dev.socket) as vm:
        gpu = Gpu(vm)
        vm.wait_mapped()
        vm.backend.close()
        vm.get_config()
        gpu.display_info()
        dev.command('resize', scanout=0, width=1024, height=768)
        gpu.display_info()


def wrong_replies_on_the_backend_channel():
    """Replies that nobody asked for, cut short, or for another request: no crash, no hang."""
    with Device() as dev:
        for data in (bytes(12), struct.pack('<IIIQ', f.SHMEM_MAP, 5, 8, 0) * 20,
                     struct.pack('<III', 77, 5, 0xffffffff), b'\xff' * 100, b'x',
                     struct.pack('<IIIQ', f.SHMEM_MAP, 1, 8, 0)):
            vm = Frontend(dev.socket, start=False, policy=lambda request, _: 'silent')
            try:
                vm.realize()
                vm.start()
                vm.backend.wait_requests(f.SHMEM_MAP, 1)
                vm.backend.ours.sendall(data)
                vm.get_config()
                Gpu(vm).display_info()
            except f.Closed:
                pass
            finally:
                vm.close()
        with Frontend(dev.socket) as vm:
            vm.wait_mapped()


def frontend_vanishes_at_any_moment():
    """The VMM is killed: while maps wait, with contexts and fences open; the next one is served."""
    with Device() as dev:
        for moment in range(6):
            vm = Frontend(dev.socket, policy=(lambda request, _: 'silent') if moment == 1 else None,
                          start=False)
            vm.realize()
            if moment:
                vm.start()
            if moment > 1:
                gpu = venus(vm)
                vm.wait_mapped()
                gpu.create_context(1)
                if moment > 2:
                    ring = Ring(gpu, 1, 0)
                if moment > 3:
                    ring.write(struct.pack('<IIQ', 252, 0, 99))
                    gpu.submit(1, struct.pack('<IIQQ', 253, 0, ring.id, ring.tail),
                               fence=gpu.new_fence(), ring_idx=0)
                if moment > 4:
                    gpu.command(g.CREATE_BLOB, gpu.blob_body(99, g.HOST3D, g.MAPPABLE, PAGE), ctx=1)
            vm.close()
        with Frontend(dev.socket) as vm:
            gpu = venus(vm)
            vm.wait_mapped()
            gpu.create_context(1)
            Ring(gpu, 1, 0).check_alive()
        pv.wait_until(lambda: len(dev.family()) <= 1, 15, 'all workers to end')
        pv.check('refuse' not in dev.log(), 'a VMM that is gone is said to refuse something')


def device_outlives_every_worker():
    """Workers that crash in every way leave the process that speaks vhost-user as it was."""
    numbers = [signal.SIGABRT, signal.SIGKILL, signal.SIGTERM]
    if not pv.SANITIZED:  # a sanitizer would report these as ours
        numbers += [signal.SIGSEGV, signal.SIGBUS]
    with Device() as dev, Frontend(dev.socket) as vm:
        gpu = venus(vm)
        vm.wait_mapped()
        for ctx, number in enumerate(numbers, 1):
            gpu.create_context(ctx, f'crash-{ctx}')
            ring = Ring(gpu, ctx, 4 * MIB * ctx)
            ring.check_alive()
            os.kill(dev.worker(ctx), number)
            pv.wait_until(lambda: ring.status & 2, 10, f'FATAL after signal {number}')
            vm.get_config()
            gpu.display_info()


pv.main(nothing_before_enable, nothing_after_stop, stop_while_a_map_is_under_way,
        main_channel_is_served_while_a_map_waits, never_answered_map, barrier_behind_every_map,
        map_is_answered_behind_the_barrier, the_vmm_rests, main_dynamic, unmap_is_finished_before_reuse,
        bar_regions_are_ignored, a_restart_maps_again, refused_map, refused_dynamic_map,
        backend_channel_closes, wrong_replies_on_the_backend_channel,
        frontend_vanishes_at_any_moment, device_outlives_every_worker)
