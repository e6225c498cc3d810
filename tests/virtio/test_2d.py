#!/usr/bin/env python3
"""What a guest draws without 3D is what a screenshot shows, to the pixel."""
import struct

from device import Device  # first: it finds pv.py

import edid
import pv
from frontend import Frontend
from gpu import EVENT_DISPLAY, FORMATS, OK, Gpu
from picture import check_screen, cut, draw_on_all, draw_on_two, noise, patch, rgb

BLACK = bytes(3)


def all_formats():
    with Device(vulkan=False) as dev, Frontend(dev.socket) as vm:
        gpu = Gpu(vm)
        for fmt in FORMATS:
            data = noise(64, 48, seed=fmt)
            resource, backing = gpu.framebuffer(64, 48, fmt)
            gpu.draw(resource, backing, data, (0, 0, 64, 48))
            check_screen(dev, rgb(data, 64, 48, fmt), f'format {fmt}')
            gpu.unref(resource)


def odd_sizes():
    with Device(vulkan=False) as dev, Frontend(dev.socket) as vm:
        gpu = Gpu(vm)
        for width, height in ((1, 1), (1, 300), (300, 1), (3, 5), (127, 63), (1366, 768)):
            data = noise(width, height)
            resource, backing = gpu.framebuffer(width, height)
            gpu.draw(resource, backing, data, (0, 0, width, height))
            check_screen(dev, rgb(data, width, height, 2), f'{width}x{height}')
            gpu.unref(resource)
            gpu.free_backing(backing)


def scattered_backing():
    """In 1 to 400 pieces; Linux sends 200 to 420 for a console."""
    with Device(vulkan=False) as dev, Frontend(dev.socket) as vm:
        gpu = Gpu(vm)
        for pieces in (1, 2, 3, 7, 64, 200, 400):
            width, height = 97, 61
            data = noise(width, height, seed=pieces)
            resource, backing = gpu.framebuffer(width, height, 1, pieces)
            gpu.draw(resource, backing, data, (0, 0, width, height))
            check_screen(dev, rgb(data, width, height, 1), f'{len(backing)} pieces')
            gpu.unref(resource)
            gpu.free_backing(backing)


def request_split_at_any_byte():
    """A request may be split anywhere, and be spread over more descriptors than anybody would."""
    with Device(vulkan=False) as dev, Frontend(dev.socket) as vm:
        gpu = Gpu(vm)
        width, height = 32, 32
        data = noise(width, height)
        for split in ((1,) * 24, (23, 1, 1), (32, 8, 16), (5,) * 100, (24, 8)):
            resource = gpu.create_2d(width, height)
            backing = gpu.backing(width * height * 4, 8)
            gpu.attach(resource, backing, split=split)
            gpu.set_scanout(0, resource, (0, 0, width, height))
            gpu.draw(resource, backing, data, (0, 0, width, height))
            check_screen(dev, rgb(data, width, height, 2), f'split {split[:3]}')
            gpu.unref(resource)


def partial_rectangles():
    """Only what is transferred changes, and only from the offset that is named."""
    with Device(vulkan=False) as dev, Frontend(dev.socket) as vm:
        gpu = Gpu(vm)
        width, height = 120, 80
        first, second = noise(width, height, 1), noise(width, height, 2)
        resource, backing = gpu.framebuffer(width, height, 2, 5)
        gpu.draw(resource, backing, first, (0, 0, width, height))
        wanted = rgb(first, width, height, 2)
        gpu.write_backing(backing, second)
        for x, y, w, h in ((0, 0, 1, 1), (119, 79, 1, 1), (10, 20, 33, 7), (0, 40, 120, 3),
                           (60, 0, 5, 80)):
            gpu.transfer(resource, (x, y, w, h), (y * width + x) * 4)
            gpu.flush(resource, (x, y, w, h))
            wanted = patch(wanted, x, y, cut(rgb(second, width, height, 2), x, y, w, h))
            check_screen(dev, wanted, f'rectangle {x},{y} {w}x{h}')
        # From another place of the buffer than where it goes to.
        gpu.transfer(resource, (50, 50, 20, 10), (3 * width + 7) * 4)
        gpu.flush(resource, (50, 50, 20, 10))
        wanted = patch(wanted, 50, 50, cut(rgb(second, width, height, 2), 7, 3, 20, 10))
        check_screen(dev, wanted, 'from another offset')


def part_of_a_resource_is_shown():
    """A scanout at a place inside a larger resource, as for two heads on one framebuffer."""
    with Device('--heads', '2', vulkan=False) as dev, Frontend(dev.socket) as vm:
        gpu = Gpu(vm)
        _, _, data = draw_on_two(gpu)
        rows = rgb(data, 200, 100, 2)
        check_screen(dev, cut(rows, 0, 0, 110, 100), 'left head')
        check_screen(dev, cut(rows, 110, 10, 90, 80), 'right head', scanout=1)


def sixteen_scanouts():
    with Device('--heads', '16', vulkan=False) as dev, Frontend(dev.socket) as vm:
        gpu = Gpu(vm)
        wanted = draw_on_all(gpu)
        for scanout in range(16):
            check_screen(dev, wanted[scanout], f'scanout {scanout}', scanout)


def off_is_off():
    """By resource 0, and by UNREF of what is shown."""
    with Device(vulkan=False) as dev, Frontend(dev.socket) as vm:
        gpu = Gpu(vm)

        def is_off():
            answer = dev.command('screenshot', path=f'{dev.folder}/off.png', scanout=0)
            return not answer.get('ok')
        pv.check(is_off(), 'a screenshot before anything is shown')
        resource, _ = gpu.framebuffer(32, 32)
        gpu.flush(resource, (0, 0, 32, 32))
        dev.screenshot()
        gpu.set_scanout(0, 0, (0, 0, 0, 0))
        pv.check(is_off(), 'a screenshot of a scanout that is off')
        gpu.set_scanout(0, resource, (0, 0, 32, 32))
        gpu.flush(resource, (0, 0, 32, 32))
        dev.screenshot()
        gpu.unref(resource)
        pv.check(is_off(), 'a screenshot of a resource that is gone')


def detach_keeps_the_picture():
    with Device(vulkan=False) as dev, Frontend(dev.socket) as vm:
        gpu = Gpu(vm)
        data = noise(48, 48)
        resource, backing = gpu.framebuffer(48, 48)
        gpu.draw(resource, backing, data, (0, 0, 48, 48))
        gpu.detach(resource)
        gpu.write_backing(backing, bytes(48 * 48 * 4))
        gpu.flush(resource, (0, 0, 48, 48))
        check_screen(dev, rgb(data, 48, 48, 2), 'after detaching')
        other = gpu.backing(48 * 48 * 4, 3)
        gpu.attach(resource, other)
        data = noise(48, 48, 9)
        gpu.draw(resource, other, data, (0, 0, 48, 48))
        check_screen(dev, rgb(data, 48, 48, 2), 'with new backing')


def cursor():
    """Drawn over the picture of its scanout by its alpha; moved; hidden; half outside."""
    with Device('--heads', '2', vulkan=False) as dev, Frontend(dev.socket) as vm:
        gpu = Gpu(vm)
        data = noise(200, 150)
        resource, backing = gpu.framebuffer(200, 150)
        gpu.draw(resource, backing, data, (0, 0, 200, 150))
        plain = rgb(data, 200, 150, 2)
        # 64x64, opaque left half, nothing in the right half
        picture = (b'\x10\x20\x30\xff' * 32 + bytes(4) * 32) * 64
        image = gpu.create_2d(64, 64, 1)
        image_backing = gpu.backing(64 * 64 * 4)
        gpu.attach(image, image_backing)
        gpu.write_backing(image_backing, picture)
        gpu.transfer(image, (0, 0, 64, 64))
        half = [b'\x30\x20\x10' * 32] * 64
        gpu.update_cursor(0, image, 20, 30, 0, 0)
        check_screen(dev, patch(plain, 20, 30, half), 'cursor at 20,30')
        gpu.move_cursor(0, 100, 50)
        check_screen(dev, patch(plain, 100, 50, half), 'cursor at 100,50')
        gpu.move_cursor(0, 190, 140)
        check_screen(dev, patch(plain, 190, 140, [b'\x30\x20\x10' * 10] * 10), 'cursor in a corner')
        gpu.move_cursor(0, 4000, 4000)
        check_screen(dev, plain, 'cursor far outside')
        gpu.update_cursor(0, 0)
        check_screen(dev, plain, 'cursor hidden')


def resize():
    """A new size reaches the guest as a configuration change, in display info and EDID."""
    with Device('--heads', '2', vulkan=False) as dev, Frontend(dev.socket) as vm:
        gpu = Gpu(vm)
        for width, height in ((1920, 1080), (640, 480), (2560, 1600), (1234, 777), (5120, 2880)):
            before = vm.backend.config_changes
            answer = dev.command('resize', scanout=1, width=width, height=height)
            pv.check(answer.get('ok'), f'resize to {width}x{height}: {answer}')
            vm.backend.wait_requests(2, before + 1)
            pv.check_equal(gpu.config()[0], EVENT_DISPLAY, 'events_read')
            pv.check_equal(gpu.display_info()[1][2:5], (width, height, 1), 'display info')
            data = gpu.edid(1)
            edid.check_conforms(data)
            pv.check_equal(edid.preferred(data)[:2], (width, height), 'preferred mode')
            pv.check_equal(edid.preferred(gpu.edid(0))[:2], (1280, 800), 'the other scanout')
            gpu.clear_events()
            pv.check_equal(gpu.config()[0], 0, 'events_read after clearing')
            interrupts = gpu.display_info()
            pv.check_equal(interrupts[1][2:4], (width, height), 'display info after clearing')
        for width, height in ((1, 0), (100000, 100), (-1, 5)):
            answer = dev.command('resize', scanout=0, width=width, height=height)
            pv.check(not answer.get('ok') and answer.get('error'), f'resize to {width}x{height}')
        answer = dev.command('resize', scanout=7, width=800, height=600)
        pv.check(not answer.get('ok') and answer.get('error'), 'resize of scanout 7')


def fence_on_2d_commands():
    """Fences on the global timeline come back with their commands, fields copied."""
    with Device(vulkan=False) as dev, Frontend(dev.socket) as vm:
        gpu = Gpu(vm)
        resource, backing = gpu.framebuffer(64, 64)
        gpu.write_backing(backing, noise(64, 64))
        pending = []
        for _ in range(20):
            fence = gpu.new_fence()
            pending.append((fence, gpu.command(0x104, struct.pack('<6I', 0, 0, 64, 64, resource, 0),
                                               fence=fence)))
        for fence, request in pending:
            answer = request.wait()
            pv.check_equal((answer.type, answer.flags, answer.fence), (OK, 1, fence),
                           'fenced flush')


pv.main(all_formats, odd_sizes, scattered_backing, request_split_at_any_byte, partial_rectangles,
        part_of_a_resource_is_shown, sixteen_scanouts, off_is_off, detach_keeps_the_picture, cursor,
        resize, fence_on_2d_commands)
