#!/usr/bin/env python3
"""Attaching and detaching, over and over: nothing is left of a VM that is gone."""
from device import Device  # first: it finds pv.py

import pv
from frontend import Frontend
from gpu import venus
from picture import noise
from venus import Ring

CYCLES = 20 if pv.SANITIZED else 200
WARM_UP = 5
MIB = 1 << 20


def one_boot(dev):
    """What a guest does from its driver's probe to its end, in short."""
    with Frontend(dev.socket) as vm:
        gpu = venus(vm)
        vm.wait_mapped()
        gpu.capset()
        gpu.edid(0)
        resource, backing = gpu.framebuffer(320, 200, pieces=10)
        gpu.write_backing(backing, noise(320, 200))
        gpu.transfer(resource, (0, 0, 320, 200))
        gpu.flush(resource, (0, 0, 320, 200))
        gpu.create_context(1)
        Ring(gpu, 1, 0).check_alive()
        vm.window.write(16 * MIB, bytes(16))
        gpu.mapped_blob(1, MIB, 16 * MIB)
        vm.window.write(16 * MIB, b'\xaa' * MIB)
        fence = gpu.submit(1, fence=gpu.new_fence(), ring_idx=0)
        pv.check(fence.wait().fence, 'a fence')


def nothing_is_left():
    with Device() as dev:
        for _ in range(WARM_UP):
            one_boot(dev)
        pv.wait_until(lambda: len(dev.family()) <= 1, 15, 'workers to end')
        fds, memory = pv.fd_count(dev.pid), pv.own_kib(dev.pid)
        for _ in range(CYCLES):
            one_boot(dev)
        pv.wait_until(lambda: len(dev.family()) <= 1, 15, 'workers to end')
        pv.wait_until(lambda: pv.fd_count(dev.pid) <= fds, 5,
                      f'fds to be closed ({fds} before, {pv.fd_count(dev.pid)} now)')
        growth = pv.own_kib(dev.pid) - memory
        pv.say(f'{CYCLES} cycles: memory {memory} KiB and {growth:+} KiB, {fds} fds')
        # A leak of 10 KiB per cycle would be 2 MiB; a sanitizer keeps freed memory for a while.
        pv.check(growth < (65536 if pv.SANITIZED else 2048), f'memory grows by {growth} KiB')
        status = dev.status()
        pv.check_equal(status['contexts'], [], 'contexts after the last VM')


pv.main(nothing_is_left)
