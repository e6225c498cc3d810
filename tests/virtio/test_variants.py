#!/usr/bin/env python3
"""The main flow of a guest on every kind of ring that can be negotiated."""
from device import Device  # first: it finds pv.py

import frontend as f
import pv
from frontend import Frontend
from gpu import OK, Gpu, has, venus
from picture import check_screen, noise, rgb
from venus import Ring

VARIANTS = [
    ('split', {}),
    ('split, no event-idx', {'event_idx': False}),
    ('split, no indirect', {'indirect': False}),
    ('split, neither', {'event_idx': False, 'indirect': False}),
    ('split, 64 entries', {'queue_size': 64}),
    ('split, 1024 entries', {'queue_size': 1024}),
    ('packed', {'packed': True}),
    ('packed, no event-idx', {'packed': True, 'event_idx': False}),
    ('packed, no indirect', {'packed': True, 'indirect': False}),
    ('packed, neither', {'packed': True, 'event_idx': False, 'indirect': False}),
    ('packed, 100 entries', {'packed': True, 'queue_size': 100}),
]


def variant(name, options):
    def test():
        args = ['--packed'] if options.get('packed') else []
        with Device(*args) as dev, Frontend(dev.socket, **options) as vm:
            pv.check_equal(has(vm, f.F_EVENT_IDX), options.get('event_idx', True), 'event-idx')
            pv.check_equal(has(vm, f.F_INDIRECT), options.get('indirect', True), 'indirect')
            pv.check_equal(has(vm, f.F_PACKED), options.get('packed', False), 'packed')
            main_flow(dev, vm)
            # The device goes on where it stopped, on the same rings.
            vm.stop()
            vm.restart()
            main_flow(dev, vm)
    test.__name__ = f'main_flow [{name}]'
    return test


def main_flow(dev, vm):
    gpu = venus(vm)
    vm.wait_mapped()
    gpu.display_info()
    gpu.edid(0)
    width, height = 150, 90
    data = noise(width, height)
    resource, backing = gpu.framebuffer(width, height, pieces=50)
    gpu.write_backing(backing, data)
    gpu.transfer(resource, (0, 0, width, height))
    gpu.flush(resource, (0, 0, width, height))
    check_screen(dev, rgb(data, width, height, 2), 'the picture')
    gpu.update_cursor(0, 0)
    gpu.create_context(1)
    ring = Ring(gpu, 1, 0)
    ring.check_alive()
    # Enough to go round each ring several times, in bursts that leave the answers out of order.
    queue = gpu.control
    kicks, sent = queue.kicks, 0
    for _ in range(60):
        pending = [gpu.submit(1, fence=gpu.new_fence() if i % 3 else None,
                              ring_idx=0 if i % 3 == 1 else None) for i in range(12)]
        for request in pending:
            pv.check_equal(request.wait().type, OK, 'a submit')
        sent += len(pending)
    pv.say(f'{sent} commands, {queue.kicks - kicks} kicks, {queue.calls} interrupts')
    ring.check_alive()


def stop_and_go():
    """GET_VRING_BASE names where the device stopped; the rings go on there, as after a pause."""
    for packed in (False, True):
        with Device(*(['--packed'] if packed else []), vulkan=False) as dev, \
                Frontend(dev.socket, packed=packed) as vm:
            gpu = Gpu(vm)
            for count in (3, 300, 7):
                for _ in range(count):
                    gpu.display_info()
                bases = vm.stop()
                pv.check_equal(hex(bases[0]), hex(vm.queues[0].base()), 'base of the control queue')
                vm.start()
            gpu.display_info()


pv.main(*[variant(name, options) for name, options in VARIANTS], stop_and_go)
