#!/usr/bin/env python3
"""What viewers of the device's screens see: every format and layout against a picture made here, and
viewers that are slow, mad or dead."""
import array
import os
import random
import socket
import struct
import time

from device import Device  # first: it finds pv.py

import pv
from frontend import Frontend
from gpu import (ERR_PARAMETER, ERR_RESOURCE, ERR_SCANOUT, FORMATS, GUEST, SHAREABLE, Gpu, venus)
from memory import PAGE
from picture import check_rows, cut, draw_on_all, draw_on_two, noise, patch, rgb
from viewer import CURSOR, FRAME, MESSAGE, SIZE, TAKEN, Viewer, message

MIB = 1 << 20
VIEWERS_MAX = 16


def check_seen(viewer, wanted, what, scanout=0):
    """What a viewer has copied equals rows of RGB."""
    check_rows(viewer.screen(scanout).size, viewer.rgb(scanout), wanted, what)


def shown_pictures(dev):
    """How many pictures the device has in shared memory."""
    links = []
    for fd in os.listdir(f'/proc/{dev.pid}/fd'):
        try:
            links.append(os.readlink(f'/proc/{dev.pid}/fd/{fd}'))
        except FileNotFoundError:
            pass
    return sum('pearvisor-screen' in link for link in links)


# ---- pictures ----


def every_2d_format():
    """All of a resource, then rectangles of it at every edge, then only a part of it on screen."""
    width, height = 67, 45
    with Device(vulkan=False) as dev, Frontend(dev.socket) as vm, Viewer(dev) as viewer:
        gpu = Gpu(vm)
        for fmt in FORMATS:
            data = noise(width, height, fmt)
            wanted = rgb(data, width, height, fmt)
            resource, backing = gpu.framebuffer(width, height, fmt, 3)
            gpu.draw(resource, backing, data, (0, 0, width, height))
            viewer.wait_frame()
            check_seen(viewer, wanted, f'format {fmt}')
            data = noise(width, height, fmt + 1000)
            gpu.write_backing(backing, data)
            gpu.transfer(resource, (0, 0, width, height))
            for x, y, w, h in ((0, 0, 1, 1), (66, 44, 1, 1), (3, 5, 17, 7), (0, 20, 67, 2),
                               (31, 0, 5, 45)):
                gpu.flush(resource, (x, y, w, h))
                wanted = patch(wanted, x, y, cut(rgb(data, width, height, fmt), x, y, w, h))
                viewer.wait_frame()
                check_seen(viewer, wanted, f'format {fmt}, {w}x{h} at {x},{y}')
            gpu.set_scanout(0, resource, (7, 9, 31, 13))
            gpu.flush(resource, (8, 9, 1, 1))  # the first of a new scanout shows all
            viewer.wait_frame()
            check_seen(viewer, cut(rgb(data, width, height, fmt), 7, 9, 31, 13),
                       f'a part, format {fmt}')
            gpu.unref(resource)
            gpu.free_backing(backing)


# width, height, bytes behind each row, offset; a guest may choose any number
LAYOUTS = ((64, 64, 0, 0), (61, 37, 4, 0), (33, 21, 1, 3), (33, 22, 100, 4097), (1, 50, 2, 2),
           (50, 1, 7, 1), (300, 20, 3, PAGE - 1))


def check_blob(gpu, viewer, blob, write, fmt, layout, seed):
    """A blob in a layout: all, a rectangle, and a part on screen. `write(offset, data)`."""
    width, height, more, offset = layout
    stride = 4 * width + more
    what = f'format {fmt}, {width}x{height}, stride {stride}, offset {offset}'
    data = noise(width, height, seed, stride)
    write(offset, data)
    gpu.set_scanout_blob(0, blob, (0, 0, width, height), width, height, fmt, stride, offset)
    gpu.flush(blob, (0, 0, width, height))
    viewer.wait_frame()
    wanted = rgb(data, width, height, fmt, stride)
    check_seen(viewer, wanted, what)
    data = noise(width, height, seed + 1, stride)
    write(offset, data)
    x, y, w, h = width // 3, height // 2, -(-width // 2), -(-height // 3)
    gpu.flush(blob, (x, y, w, h))
    viewer.wait_frame()
    check_seen(viewer, patch(wanted, x, y, cut(rgb(data, width, height, fmt, stride), x, y, w, h)),
               f'{what}: a rectangle')
    if width > 20 and height > 20:
        gpu.set_scanout_blob(0, blob, (11, 3, 9, 17), width, height, fmt, stride, offset)
        gpu.flush(blob, (0, 0, width, height))
        viewer.wait_frame()
        check_seen(viewer, cut(rgb(data, width, height, fmt, stride), 11, 3, 9, 17),
                   f'{what}: a part')


def every_guest_blob_format():
    """Blobs of guest pages, in several pieces, with any stride and offset."""
    size = 16 * PAGE
    with Device(vulkan=False) as dev, Frontend(dev.socket) as vm, Viewer(dev) as viewer:
        gpu = Gpu(vm)
        for seed, (fmt, layout) in enumerate((f, l) for f in FORMATS for l in LAYOUTS):
            backing = gpu.backing(size, 1 + seed % 5)
            blob = gpu.create_blob(size, mem=GUEST, flags=SHAREABLE, pieces=backing)
            check_blob(gpu, viewer, blob, lambda offset, data, backing=backing:
                       gpu.write_backing(backing, data, offset), fmt, layout, 2 * seed)
            gpu.unref(blob)
            gpu.free_backing(backing)


def every_host_blob_format():
    """Blobs of the host's, in one file with all others and each in its own."""
    size = 16 * PAGE
    for window in ('arena', 'dynamic'):
        with Device('--window', window) as dev, Frontend(dev.socket) as vm, Viewer(dev) as viewer:
            gpu = venus(vm)
            if window == 'arena':
                vm.wait_mapped()
            gpu.create_context(1)
            for seed, (fmt, layout) in enumerate((f, l) for f in FORMATS for l in LAYOUTS):
                blob = gpu.mapped_blob(1, size, 32 * MIB)
                vm.backend.settle()
                check_blob(gpu, viewer, blob, lambda offset, data:
                           vm.window.write(32 * MIB + offset, data), fmt, layout, 2 * seed)
                gpu.ctx_detach(1, blob)
                gpu.unmap_blob(blob)
                gpu.unref(blob)


def more_blobs_than_are_mapped():
    """Of those that are files of their own, the device keeps 64 mapped; the others look the same."""
    count = 80
    with Device('--window', 'dynamic') as dev, Frontend(dev.socket) as vm, Viewer(dev) as viewer:
        gpu = venus(vm)
        gpu.create_context(1)
        blobs = [gpu.mapped_blob(1, PAGE, 32 * MIB + PAGE * i) for i in range(count)]
        vm.backend.settle()

        def mappings():
            with open(f'/proc/{dev.pid}/maps') as maps:
                return sum('memfd:' in line for line in maps)
        before = mappings()
        for turn in range(2):
            for i, blob in enumerate(blobs):
                data = noise(30, 20, count * turn + i)
                vm.window.write(32 * MIB + PAGE * i, data)
                gpu.set_scanout_blob(0, blob, (0, 0, 30, 20), 30, 20, 2, 120)
                gpu.flush(blob, (0, 0, 30, 20))
                viewer.wait_frame()
                check_seen(viewer, rgb(data, 30, 20, 2), f'blob {i}')
            pv.check(0 < mappings() - before <= 64 + 2, f'{mappings() - before} more mappings')
        for blob in blobs:
            gpu.ctx_detach(1, blob)
            gpu.unmap_blob(blob)
            gpu.unref(blob)


def any_layout():
    """Layouts by chance, some of them impossible: either refused, or the right picture."""
    chance = random.Random(7)
    size, good, bad = 64 * PAGE, 0, 0
    with Device(vulkan=False) as dev, Frontend(dev.socket) as vm, Viewer(dev) as viewer:
        gpu = Gpu(vm)
        backing = gpu.backing(size, 5)
        content = chance.randbytes(size)
        gpu.write_backing(backing, content)
        blob = gpu.create_blob(size, mem=GUEST, flags=SHAREABLE, pieces=backing)
        while good < 100 or bad < 100:
            width, height = chance.choice((1, 7, 40, 200, 511)), chance.choice((1, 9, 64, 130, 301))
            stride = 4 * width + chance.choice((0, 0, 1, 64, -4, 1000))
            offset = chance.choice((0, 0, 5, 4096, size - 100, 0xffffffff))
            fmt = chance.choice((*FORMATS, 0, 5, 66))
            rect = (chance.randrange(width), chance.randrange(height), chance.randrange(1, width + 1),
                    chance.randrange(1, height + 1))
            x, y, w, h = rect
            fits = (fmt in FORMATS and stride >= 4 * width and x + w <= width and y + h <= height
                    and offset + stride * (height - 1) + 4 * width <= size)
            gpu.set_scanout_blob(0, blob, rect, width, height, fmt, stride, offset,
                                 error=None if fits else ERR_PARAMETER)
            good, bad = good + fits, bad + (not fits)
            if fits:
                gpu.flush(blob, (0, 0, 0xffffffff, 0xffffffff))
                viewer.settle(0.02)
                wanted = rgb(content[offset:], width, height, fmt, stride)
                check_seen(viewer, cut(wanted, *rect), f'{rect} of {width}x{height}, format {fmt}')
        for scanout, resource, error in ((1, blob, ERR_SCANOUT), (0xffffffff, blob, ERR_SCANOUT),
                                         (0, 999, ERR_RESOURCE)):
            gpu.set_scanout_blob(scanout, resource, (0, 0, 8, 8), 8, 8, 2, 32, error=error)


def damage_is_what_differs():
    """A guest that flushes everything for a few pixels; and one that changed nothing."""
    with Device(vulkan=False) as dev, Frontend(dev.socket) as vm, Viewer(dev) as viewer:
        gpu = Gpu(vm)
        data = bytearray(noise(200, 150))
        resource, backing = gpu.framebuffer(200, 150)
        gpu.draw(resource, backing, data, (0, 0, 200, 150))
        viewer.wait_frame()
        pv.check_equal(viewer.screen().last.damage, (0, 0, 200, 150), 'damage at first')
        for x, y in ((20, 30), (25, 39)):
            at = 4 * (200 * y + x)
            data[at:at + 4] = bytes(255 - byte for byte in data[at:at + 4])
        gpu.draw(resource, backing, data, (0, 0, 200, 150))
        viewer.wait_frame()
        pv.check_equal(viewer.screen().last.damage, (20, 30, 6, 10), 'damage of two pixels')
        check_seen(viewer, rgb(data, 200, 150, 2), 'two pixels')
        frames = viewer.screen().frames
        gpu.draw(resource, backing, data, (0, 0, 200, 150))
        viewer.settle()
        pv.check_equal(viewer.screen().frames, frames, 'frames when nothing has changed')


def what_was_not_flushed_is_not_shown():
    with Device(vulkan=False) as dev, Frontend(dev.socket) as vm, Viewer(dev) as viewer:
        gpu = Gpu(vm)
        first, second = noise(90, 60, 1), noise(90, 60, 2)
        resource, backing = gpu.framebuffer(90, 60)
        gpu.draw(resource, backing, first, (0, 0, 90, 60))
        viewer.wait_frame()
        gpu.write_backing(backing, second)
        gpu.transfer(resource, (0, 0, 90, 60))
        gpu.flush(resource, (30, 10, 20, 40))
        viewer.wait_frame()
        part = cut(rgb(second, 90, 60, 2), 30, 10, 20, 40)
        check_seen(viewer, patch(rgb(first, 90, 60, 2), 30, 10, part), 'a part')


def blank_and_back():
    """Off, on, another size, gone with its resource, and a reset of the driver."""
    with Device(vulkan=False) as dev, Frontend(dev.socket) as vm, Viewer(dev) as viewer:
        gpu = Gpu(vm)
        screen = viewer.screen()
        viewer.settle()
        pv.check_equal(screen.size, (0, 0), 'size before anything is shown')
        data = noise(80, 60)
        resource, backing = gpu.framebuffer(80, 60)
        for _ in range(2):
            gpu.set_scanout(0, resource, (0, 0, 80, 60))
            gpu.draw(resource, backing, data, (0, 0, 80, 60))
            viewer.wait_frame()
            check_seen(viewer, rgb(data, 80, 60, 2), 'on')
            gpu.set_scanout(0, 0, (0, 0, 0, 0))
            viewer.wait(lambda: screen.size == (0, 0), 'blank screen')
        gpu.set_scanout(0, resource, (0, 0, 40, 50))
        gpu.flush(resource, (0, 0, 40, 50))
        viewer.wait(lambda: screen.size == (40, 50) and not screen.serial, 'smaller picture')
        gpu.unref(resource)
        viewer.wait(lambda: screen.size == (0, 0), 'blank screen without its resource')
        resource, backing = gpu.framebuffer(80, 60)
        gpu.draw(resource, backing, data, (0, 0, 80, 60))
        viewer.wait_frame()
        vm.stop()
        vm.restart()
        viewer.wait(lambda: screen.size == (0, 0), 'blank screen after a reset')
        gpu = Gpu(vm)
        resource, backing = gpu.framebuffer(80, 60)
        gpu.draw(resource, backing, data, (0, 0, 80, 60))
        viewer.wait_frame()
        check_seen(viewer, rgb(data, 80, 60, 2), 'after a reset')


def sixteen_heads():
    with Device('--heads', '16', vulkan=False) as dev, Frontend(dev.socket) as vm, \
            Viewer(dev) as viewer:
        gpu = Gpu(vm)
        wanted = draw_on_all(gpu)
        viewer.settle()
        pv.check_equal(viewer.count, 16, 'scanouts')
        for scanout in range(16):
            pv.check_equal(viewer.screen(scanout).mode, (1280, 800), f'mode of scanout {scanout}')
            check_seen(viewer, wanted[scanout], f'scanout {scanout}', scanout)


def two_heads_of_one_resource():
    """One flush, two damages."""
    with Device('--heads', '2', vulkan=False) as dev, Frontend(dev.socket) as vm, \
            Viewer(dev) as viewer:
        gpu = Gpu(vm)
        resource, backing, data = draw_on_two(gpu)
        data = bytearray(data)
        data[4 * (200 * 40 + 100):4 * (200 * 40 + 120)] = bytes(80)
        gpu.draw(resource, backing, data, (100, 40, 20, 1), 4 * (200 * 40 + 100))
        viewer.settle()
        rows = rgb(data, 200, 100, 2)
        check_seen(viewer, cut(rows, 0, 0, 110, 100), 'left head')
        check_seen(viewer, cut(rows, 110, 10, 90, 80), 'right head', 1)
        pv.check_equal(viewer.screen(1).last.damage, (0, 30, 10, 1), 'damage of the right head')


# ---- cursor ----


def cursor():
    """Its image in every format, its hot spot, moves, hidden."""
    with Device(vulkan=False) as dev, Frontend(dev.socket) as vm, Viewer(dev) as viewer:
        gpu = Gpu(vm)
        screen = viewer.screen()
        for fmt, (red, green, blue, alpha) in FORMATS.items():
            data = noise(64, 64, fmt)
            image, backing = gpu.create_2d(64, 64, fmt), gpu.backing(64 * 64 * 4, 2)
            gpu.attach(image, backing)
            gpu.write_backing(backing, data)
            gpu.transfer(image, (0, 0, 64, 64))
            gpu.update_cursor(0, image, 20, 30, 5, fmt % 64)
            wanted = bytearray(len(data))
            for to, position in enumerate((blue, green, red, alpha)):
                wanted[to::4] = b'\xff' * 4096 if position is None else data[position::4]
            viewer.wait(lambda wanted=wanted: screen.cursor_image == wanted,
                        f'cursor of format {fmt}')
            pv.check_equal((screen.cursor.x, screen.cursor.y), (25, 30 + fmt % 64), 'its place')
            pv.check_equal((screen.cursor.hot_x, screen.cursor.hot_y), (5, fmt % 64), 'hot spot')
        gpu.move_cursor(0, 100, 200)
        viewer.wait(lambda: (screen.cursor.x, screen.cursor.y) == (105, 206), 'move')
        pv.check_equal(screen.cursor.flags & 2, 0, 'image of a cursor that only moves')
        with Viewer(dev) as late:
            late.wait(lambda: late.screen().cursor, 'cursor for a viewer that comes later')
            pv.check(late.screen().cursor_image == screen.cursor_image, 'its image')
        gpu.update_cursor(0, 0)
        viewer.wait(lambda: screen.cursor is None, 'hidden cursor')


def wild_cursors():
    """Places, hot spots, scanouts and resources that make no sense."""
    with Device(vulkan=False) as dev, Frontend(dev.socket) as vm, Viewer(dev) as viewer:
        gpu = Gpu(vm)
        good, small = gpu.create_2d(64, 64, 1), gpu.create_2d(63, 64, 1)
        backing = gpu.backing(PAGE)
        blob = gpu.create_blob(PAGE, mem=GUEST, flags=SHAREABLE, pieces=backing)
        wild = (0, 1, 63, 64, 0x7fffffff, 0x80000000, 0xffffffff)
        chance = random.Random(3)
        for resource in (good, small, blob, 999, 0) * 40:
            gpu.update_cursor(chance.choice((0, 0, 0, 1, 16, 0xffffffff)), resource,
                              *(chance.choice(wild) for _ in range(4)))
            gpu.move_cursor(chance.choice((0, 1, 0xffffffff)), chance.choice(wild),
                            chance.choice(wild))
        gpu.update_cursor(0, good, 0xffffffff, 0x80000000, 0xffffffff, 64)
        screen = viewer.screen()
        viewer.settle()
        last = screen.cursor
        pv.check_equal((last.x, last.y, last.hot_x, last.hot_y), (62, 63 - 32768, 63, 63),
                       'place and hot spot of the last cursor')
        gpu.update_cursor(0, small)
        viewer.wait(lambda: screen.cursor is None, 'cursor whose image has another size')


# ---- viewers ----


def nothing_is_copied_for_nobody():
    """Pictures are in shared memory while somebody looks; a later viewer sees what is on."""
    with Device(vulkan=False) as dev, Frontend(dev.socket) as vm:
        gpu = Gpu(vm)
        data = noise(100, 80)
        resource, backing = gpu.framebuffer(100, 80)
        gpu.draw(resource, backing, data, (0, 0, 100, 80))
        pv.check_equal(shown_pictures(dev), 0, 'pictures without a viewer')
        frames = dev.status()['scanouts'][0]['frames']
        for _ in range(3):
            with Viewer(dev) as viewer:
                viewer.wait_frame()
                check_seen(viewer, rgb(data, 100, 80, 2), 'a viewer that comes later')
                pv.check_equal(shown_pictures(dev), 1, 'pictures with a viewer')
                pv.check_equal(dev.status()['scanouts'][0]['viewers'], 1, 'viewers')
            pv.wait_until(lambda: shown_pictures(dev) == 0, 5, 'the picture to go')
        pv.check_equal(dev.status()['scanouts'][0]['frames'], frames, 'frames for a viewer')


def two_viewers():
    """One takes every frame, one every tenth: both end with the same picture."""
    with Device(vulkan=False) as dev, Frontend(dev.socket) as vm, Viewer(dev) as quick, \
            Viewer(dev, take=False) as slow:
        gpu = Gpu(vm)
        width, height = 120, 90
        resource, backing = gpu.framebuffer(width, height)
        data = bytearray(noise(width, height))
        gpu.draw(resource, backing, data, (0, 0, width, height))
        quick.wait_frame()
        slow.wait_frame()
        slow.take()
        for i in range(40):
            row = 4 * width * (2 * i)
            data[row:row + 40] = bytes([i]) * 40
            gpu.draw(resource, backing, data, (0, 0, width, height))
            quick.wait_frame()
            pv.check_equal(quick.screen().last.damage[1:], (2 * i, 10, 1), 'damage of the quick one')
            check_seen(quick, rgb(data, width, height, 2), f'the quick one, frame {i}')
            if i % 10 == 9:
                if not slow.screen().serial:
                    slow.wait_frame()
                slow.take()
        slow.wait_frame()
        slow.take()
        slow.settle()
        check_seen(slow, rgb(data, width, height, 2), 'the slow one')
        pv.check(slow.screen().frames <= 7, f'{slow.screen().frames} frames for the slow one')
        pv.check_equal(slow.screen().last.damage[0], 0, 'left edge of damage that was added up')


def stuck_viewer_costs_nothing():
    """One that never answers, and one that does not even read, while cursors and frames come."""
    with Device(vulkan=False) as dev, Frontend(dev.socket) as vm, Viewer(dev) as quick, \
            Viewer(dev, take=False) as silent, Viewer(dev) as deaf:
        gpu = Gpu(vm)
        deaf.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        data = noise(64, 64)
        resource, backing = gpu.framebuffer(64, 64, 1)
        images = [gpu.create_2d(64, 64, 1) for _ in range(2)]
        gpu.draw(resource, backing, data, (0, 0, 64, 64))
        for image in images:
            gpu.attach(image, backing)
        quick.wait_frame()
        memory = pv.own_kib(dev.pid)
        for i in range(1500):
            gpu.update_cursor(0, images[i % 2], i, i)
        gpu.transfer(images[0], (0, 0, 64, 64))
        for i in range(20):
            data = noise(64, 64, 100 + i)
            gpu.draw(resource, backing, data, (0, 0, 64, 64))
            quick.wait_frame()
        check_seen(quick, rgb(data, 64, 64, 1), 'the quick one')
        growth = pv.own_kib(dev.pid) - memory
        pv.check(growth < (16384 if pv.SANITIZED else 1024), f'memory grows by {growth} KiB')
        gpu.update_cursor(0, images[0], 7, 8)
        silent.settle()
        pv.check_equal(silent.screen().frames, 1, 'frames for one that never answers')
        # Both catch up.
        silent.take()
        silent.wait_frame()
        silent.take()
        deaf.settle()
        for viewer, who in ((silent, 'the silent one'), (deaf, 'the deaf one')):
            check_seen(viewer, rgb(data, 64, 64, 1), who)
            pv.check_equal((viewer.screen().cursor.x, viewer.screen().cursor.y), (7, 8), who)


def viewers_die():
    """In the middle of frames, of messages of theirs, at once or after a while."""
    with Device(vulkan=False) as dev, Frontend(dev.socket) as vm, Viewer(dev) as other:
        gpu = Gpu(vm)
        resource, backing = gpu.framebuffer(320, 200)
        chance = random.Random(5)
        fds = None
        for i in range(60):
            viewer = Viewer(dev, take=bool(i % 2))
            gpu.draw(resource, backing, noise(320, 200, i), (0, 0, 320, 200))
            if i % 3:
                viewer.wait_frame()
            if i % 4 == 1:
                viewer.send(message(TAKEN, serial=1)[:chance.randrange(1, MESSAGE.size)])
            if i % 4 == 2:
                viewer.socket.shutdown(socket.SHUT_RD)
                gpu.draw(resource, backing, noise(320, 200, 1000 + i), (0, 0, 320, 200))
            viewer.close()
            other.settle(0.01)
            if i == 10:
                fds = pv.fd_count(dev.pid)
        pv.wait_until(lambda: dev.status()['scanouts'][0]['viewers'] == 1, 5, 'the others to go')
        pv.wait_until(lambda: pv.fd_count(dev.pid) <= fds, 5, f'fds to be closed ({fds} before)')
        data = noise(320, 200, 99)
        gpu.draw(resource, backing, data, (0, 0, 320, 200))
        other.wait_frame()
        check_seen(other, rgb(data, 320, 200, 2), 'the one that lives')


def nonsense():
    """It ends the viewer's connection, and nothing else."""
    chance = random.Random(11)
    bad = [chance.randbytes(4096), b'\xff' * 4096, bytes(800),
           message(TAKEN, scanout=1), message(TAKEN, scanout=0xffffffff),
           message(TAKEN, serial=2), message(TAKEN, serial=(1 << 64) - 1),
           message(SIZE, scanout=3, width=800, height=600), message(SIZE, payload_size=8),
           message(FRAME), message(CURSOR), message(66), message(0xffffffff)]
    with Device(vulkan=False) as dev, Frontend(dev.socket) as vm, Viewer(dev) as other:
        gpu = Gpu(vm)
        data = noise(64, 64)
        resource, backing = gpu.framebuffer(64, 64)
        gpu.draw(resource, backing, data, (0, 0, 64, 64))
        for i, garbage in enumerate(bad):
            with Viewer(dev) as viewer:
                viewer.wait_frame()
                try:
                    viewer.send(garbage)
                except (BrokenPipeError, ConnectionResetError):
                    pass
                viewer.check_ended(f'nonsense {i}')
        # fds that nobody asked for
        with Viewer(dev) as viewer:
            viewer.wait_frame()
            fds = pv.fd_count(dev.pid)
            for _ in range(20):
                viewer.socket.sendmsg([message(TAKEN, serial=1)], [
                    (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [0, 1, 2]))])
            pv.wait_until(lambda: pv.fd_count(dev.pid) <= fds, 5, 'fds to be closed')
        # The last frame twice over is fine.
        other.wait(lambda: other.screen().frames, 'frame')
        for _ in range(3):
            other.send(message(TAKEN, serial=1))
        gpu.draw(resource, backing, noise(64, 64, 2), (0, 0, 64, 64))
        other.wait_frame()
        check_seen(other, rgb(noise(64, 64, 2), 64, 64, 2), 'the other viewer')


def scribbling_viewer():
    """What a viewer writes into a picture is never believed."""
    with Device(vulkan=False) as dev, Frontend(dev.socket) as vm, Viewer(dev) as bad:
        gpu = Gpu(vm)
        resource, backing = gpu.framebuffer(64, 64)
        for i in range(30):
            data = noise(64, 64, i)
            gpu.draw(resource, backing, data, (0, 0, 64, 64))
            bad.receive(0.05)
            if bad.screen().map:
                bad.screen().map[0:4096] = b'\xff' * 4096
                bad.screen().map[65536:] = os.urandom(len(bad.screen().map) - 65536)
        dev.status()
        pv.check(dev.screenshot()[2] == rgb(data, 64, 64, 2), 'a screenshot')


def too_many_viewers():
    with Device(vulkan=False) as dev:
        viewers = [Viewer(dev) for _ in range(VIEWERS_MAX)]
        answer = dev.command('view')
        pv.check(not answer.get('ok') and answer.get('error'), f'one more: {answer}')
        viewers.pop().close()
        pv.wait_until(lambda: dev.status()['scanouts'][0]['viewers'] == VIEWERS_MAX - 1, 5,
                      'a viewer to be gone')
        viewers.append(Viewer(dev))
        for viewer in viewers:
            viewer.wait(lambda viewer=viewer: viewer.screen().mode, 'MODE')
            viewer.close()


def view_without_taking_the_socket():
    """The fd is in the answer; a client that lets it fall ends the connection."""
    with Device(vulkan=False) as dev:
        fds = pv.fd_count(dev.pid)
        for _ in range(40):
            pv.check(dev.command('view').get('ok'), 'answer to view')
            pv.wait_until(lambda: dev.status()['scanouts'][0]['viewers'] == 0, 5, 'its end')
        pv.wait_until(lambda: pv.fd_count(dev.pid) <= fds, 5, 'fds to be closed')


def unchanged_screen_costs_nothing():
    with Device(vulkan=False) as dev, Frontend(dev.socket) as vm, Viewer(dev) as viewer:
        gpu = Gpu(vm)
        resource, backing = gpu.framebuffer(1280, 800)
        gpu.draw(resource, backing, noise(1280, 800), (0, 0, 1280, 800))
        viewer.wait_frame()
        viewer.settle(0.3)

        def switches():
            with open(f'/proc/{dev.pid}/status') as status:
                return int(status.read().split('voluntary_ctxt_switches:')[1].split()[0])
        before = switches()
        time.sleep(1)
        pv.check(switches() - before <= 2, f'{switches() - before} wake-ups in a second')


pv.main(every_2d_format, every_guest_blob_format, every_host_blob_format,
        more_blobs_than_are_mapped, any_layout, damage_is_what_differs,
        what_was_not_flushed_is_not_shown, blank_and_back, sixteen_heads, two_heads_of_one_resource,
        cursor, wild_cursors, nothing_is_copied_for_nobody, two_viewers, stuck_viewer_costs_nothing,
        viewers_die, nonsense, scribbling_viewer, too_many_viewers, view_without_taking_the_socket,
        unchanged_screen_costs_nothing)
