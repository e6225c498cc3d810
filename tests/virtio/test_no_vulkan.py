#!/usr/bin/env python3
"""Without a usable Vulkan driver there is a screen, and one line that says why there is no more."""
import struct

from device import Device  # first: it finds pv.py

import frontend as f
import gpu as g
import pv
from frontend import Frontend
from gpu import Gpu, has
from picture import check_screen, noise, rgb


def two_d_works():
    with Device(vulkan=False) as dev:
        lines = [line for line in dev.log_lines() if 'ulkan' in line]
        pv.check_equal(len(lines), 1, f'lines about Vulkan in {dev.log_lines()}')
        with Frontend(dev.socket) as vm:
            gpu = Gpu(vm)
            pv.check_equal(gpu.config()[3], 0, 'num_capsets')
            pv.check(not has(vm, f.F_CONTEXT_INIT) or gpu.config()[3] == 0, 'CONTEXT_INIT')
            gpu.capset_info(0, error=g.ERR_PARAMETER)
            width, height = 640, 400
            data = noise(width, height)
            resource, backing = gpu.framebuffer(width, height, pieces=250)
            gpu.write_backing(backing, data)
            gpu.transfer(resource, (0, 0, width, height))
            gpu.flush(resource, (0, 0, width, height))
            check_screen(dev, rgb(data, width, height, 2), 'the console')
            gpu.edid(0)
        pv.check_equal(dev.family(), set(), 'processes of the device')


def venus_is_refused():
    with Device(vulkan=False) as dev, Frontend(dev.socket) as vm:
        gpu = Gpu(vm)
        answer = gpu.command(g.CTX_CREATE, struct.pack('<II64s', 4, 4, b'test'), ctx=1).wait()
        pv.check(answer.type >= g.ERR, f'a Venus context without a driver: {answer}')
        gpu.display_info()


pv.main(two_d_works, venus_is_refused)
