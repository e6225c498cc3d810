#!/usr/bin/env python3
"""Every virtio-gpu command wrong in every way: the right error, one line of the log, no harm."""
import random
import struct

from device import Device  # first: it finds pv.py

import gpu as g
import pv
from frontend import Frontend
from gpu import (ERR, ERR_CONTEXT, ERR_PARAMETER, ERR_RESOURCE, ERR_SCANOUT, GUEST, Gpu, header)
from memory import PAGE

# Each command: its size on the wire without trailing data.
SIZES = {
    g.GET_DISPLAY_INFO: 24, g.CREATE_2D: 40, g.UNREF: 32, g.SET_SCANOUT: 48, g.FLUSH: 48,
    g.TRANSFER_2D: 56, g.ATTACH: 32, g.DETACH: 32, g.GET_CAPSET_INFO: 32, g.GET_CAPSET: 32,
    g.GET_EDID: 32, g.ASSIGN_UUID: 32, g.CREATE_BLOB: 56, g.SET_SCANOUT_BLOB: 96,
    g.CTX_CREATE: 96, g.CTX_DESTROY: 24, g.CTX_ATTACH: 32, g.CTX_DETACH: 32, g.CREATE_3D: 72,
    g.TRANSFER_TO_3D: 72, g.TRANSFER_FROM_3D: 72, g.SUBMIT_3D: 32, g.MAP_BLOB: 40,
    g.UNMAP_BLOB: 32,
}


def still_good(gpu):
    """The device answers as on the first day."""
    pv.check_equal(gpu.display_info()[0][4], 1, 'the first scanout')
    resource = gpu.create_2d(8, 8)
    gpu.unref(resource)


def short_commands():
    """Each command cut at every length: an error, never a success with what was not sent."""
    with Device() as dev, Frontend(dev.socket) as vm:
        gpu = Gpu(vm)
        for kind, size in SIZES.items():
            for length in range(0, size, 4 if pv.SANITIZED else 1):
                request = (header(kind) + bytes(80))[:length]
                if length == 0:
                    continue  # no descriptor of nothing; see test_bad_rings
                answer = gpu.send(request, room=24).wait()
                pv.check(answer.type in (ERR, ERR_PARAMETER),
                         f'{kind:#x} of {length} bytes: {answer}')
        still_good(gpu)


def long_commands():
    """Bytes behind a command are nobody's business, or an error; they do no harm."""
    with Device() as dev, Frontend(dev.socket) as vm:
        gpu = Gpu(vm)
        for kind, size in SIZES.items():
            for extra in (1, 4, 4096, 100000):
                gpu.send(header(kind) + bytes(size - 24 + extra)).wait()
        still_good(gpu)


def unknown_types():
    with Device() as dev, Frontend(dev.socket) as vm:
        gpu = Gpu(vm)
        mark = dev.mark()
        for kind in (0, 1, 0xff, 0x10e, 0x1ff, 0x20a, 0x2ff, 0x300, 0x301, 0x1100, 0x1200,
                     0xffffffff):
            pv.check_equal(hex(gpu.command(kind, bytes(100)).wait().type), hex(ERR),
                           f'answer to type {kind:#x}')
        dev.wait_line('0x010e is not known', mark)
        for kind in (g.CREATE_3D, g.TRANSFER_TO_3D, g.TRANSFER_FROM_3D):
            pv.check(gpu.command(kind, bytes(48)).wait().type >= ERR, f'virgl command {kind:#x}')
        still_good(gpu)


def error_with_a_fence_keeps_its_fence():
    with Device() as dev, Frontend(dev.socket) as vm:
        gpu = Gpu(vm)
        for kind in list(SIZES) + [0x10e, 0xffff]:
            answer = gpu.command(kind, b'\xff' * 72, ctx=0xffffffff, fence=gpu.new_fence()).wait()
            pv.check_equal((answer.flags & 1, answer.fence), (1, gpu.last_fence),
                           f'fence of a wrong {kind:#x}')
        answer = gpu.send(header(g.UNREF, 1, 99)[:24]).wait()
        pv.check_equal((answer.flags, answer.fence), (1, 99), 'fence of a command cut short')
        still_good(gpu)


def no_room_for_the_answer():
    """Room 0, 1, 23 … bytes: what fits is written, and the buffer comes back."""
    with Device() as dev, Frontend(dev.socket) as vm:
        gpu = Gpu(vm)
        for room in (0, 1, 4, 23, 24, 25, 100, 407):
            pending = gpu.send(header(g.GET_DISPLAY_INFO), room=room)
            pending.wait()
            written = len(pending._answer.data)
            pv.check(written <= room, f'{written} bytes in {room}')
            if room >= 4:
                pv.check_equal(pending._answer.type, g.OK_DISPLAY, f'answer in {room} bytes')
                pv.check_equal(written, room, 'bytes of a cut answer')
        gpu.send(header(g.GET_EDID) + bytes(8), room=24).wait()
        gpu.send(header(g.CREATE_2D) + struct.pack('<4I', 555, 2, 4, 4), room=0).wait()
        gpu.unref(555)
        still_good(gpu)


def wrong_2d_resources():
    with Device(vulkan=False) as dev, Frontend(dev.socket) as vm:
        gpu = Gpu(vm)
        gpu.create_2d(8, 8, resource=0, error=ERR_RESOURCE)
        good = gpu.create_2d(8, 8)
        gpu.create_2d(8, 8, resource=good, error=ERR_RESOURCE)
        for fmt in (0, 5, 66, 69, 135, 0xffffffff):
            gpu.create_2d(8, 8, fmt, error=ERR_PARAMETER)
        for width, height in ((0, 8), (8, 0), (0, 0)):
            gpu.create_2d(width, height, error=ERR_PARAMETER)
        for width, height in ((0xffffffff, 0xffffffff), (0x40000000, 1), (1, 0x40000000),
                              (0x10000, 0x10000), (0x80000001, 2)):
            answer = gpu.command(g.CREATE_2D, struct.pack('<4I', gpu.new_id(), 2, width,
                                                          height)).wait()
            pv.check(answer.type in (ERR_PARAMETER, g.ERR_MEMORY), f'{width}x{height}: {answer}')
        for resource in (0, 4711, 0xffffffff):
            gpu.unref(resource, error=ERR_RESOURCE)
            gpu.detach(resource, error=ERR_RESOURCE)
            gpu.attach(resource, [(0, 64)], error=ERR_RESOURCE)
            gpu.transfer(resource, (0, 0, 1, 1), error=ERR_RESOURCE)
            gpu.flush(resource, (0, 0, 1, 1), error=ERR_RESOURCE)
        gpu.unref(good)
        gpu.unref(good, error=ERR_RESOURCE)
        still_good(gpu)


def memory_of_the_host_is_bounded():
    """A guest that creates and creates is told OUT_OF_MEMORY; others of its things go on."""
    # Meson's MALLOC_PERTURB_ would touch it all.
    with Device(vulkan=False, env={'MALLOC_PERTURB_': '0'}) as dev, \
            Frontend(dev.socket) as vm:
        gpu = Gpu(vm)
        before = pv.memory_kib(dev.pid)
        made, refused = [], None
        for _ in range(3000):
            resource = gpu.new_id()
            answer = gpu.command(g.CREATE_2D, struct.pack('<4I', resource, 2, 8192, 8192)).wait()
            if answer.type != g.OK:
                refused = answer.type
                break
            made.append(resource)
        pv.check_equal(refused, g.ERR_MEMORY, f'answer after {len(made)} resources of 256 MiB')
        pv.check(pv.memory_kib(dev.pid) - before < 1 << 20, 'resident memory after creating')
        for resource in made:
            gpu.unref(resource)
        still_good(gpu)


def wrong_backing():
    with Device(vulkan=False) as dev, Frontend(dev.socket) as vm:
        gpu = Gpu(vm)
        resource = gpu.create_2d(64, 64)
        end = vm.memory.regions[1].gpa + vm.memory.regions[1].size
        for pieces in ([(1 << 60, 4096)], [((1 << 64) - 4096, 8192)], [(end - 16, 32)],
                       [(655360, 64)], [(0, 64), (1 << 50, 64)]):
            gpu.attach(resource, pieces, error=ERR_PARAMETER)
        page = gpu.backing(PAGE)
        gpu.attach(resource, page, count=2, error=ERR_PARAMETER)
        gpu.attach(resource, page, count=0xffffffff, error=ERR_PARAMETER)
        gpu.attach(resource, page, count=0x10000001, error=ERR_PARAMETER)
        # Too little for the picture: the transfer fails, not the attaching.
        gpu.attach(resource, page)
        gpu.attach(resource, page, error=(ERR, ERR_PARAMETER))
        gpu.transfer(resource, (0, 0, 64, 64), error=ERR_PARAMETER)
        gpu.transfer(resource, (0, 0, 64, 16))
        gpu.transfer(resource, (0, 16, 1, 1), 16 * 256, error=ERR_PARAMETER)
        gpu.detach(resource)
        gpu.transfer(resource, (0, 0, 1, 1), error=(ERR, ERR_PARAMETER))
        gpu.attach(resource, gpu.backing(64 * 64 * 4))
        gpu.transfer(resource, (0, 0, 64, 64))
        still_good(gpu)


def wrong_rectangles():
    with Device(vulkan=False) as dev, Frontend(dev.socket) as vm:
        gpu = Gpu(vm)
        resource = gpu.create_2d(64, 48)
        gpu.attach(resource, gpu.backing(64 * 48 * 4))
        wrong = [(0, 0, 65, 48), (0, 0, 64, 49), (64, 0, 1, 1), (0, 48, 1, 1), (1, 0, 64, 1),
                 (0xffffffff, 0, 2, 1), (0, 0xffffffff, 1, 2), (0, 0, 0xffffffff, 1),
                 (0x80000000, 0x80000000, 0x80000000, 0x80000000)]
        for rect in wrong:
            gpu.transfer(resource, rect, error=ERR_PARAMETER)
            gpu.flush(resource, rect, error=ERR_PARAMETER)
            gpu.set_scanout(0, resource, rect, error=ERR_PARAMETER)
        gpu.set_scanout(0, resource, (0, 0, 0, 0), error=ERR_PARAMETER)
        for offset in (64 * 48 * 4, (1 << 64) - 1, (1 << 64) - 4, 1 << 63, 64 * 48 * 4 - 3):
            gpu.transfer(resource, (0, 0, 1, 1), offset, error=ERR_PARAMETER)
        for scanout in (1, 16, 17, 0xffffffff):
            gpu.set_scanout(scanout, resource, (0, 0, 64, 48), error=ERR_SCANOUT)
        gpu.set_scanout(0, 4711, (0, 0, 64, 48), error=ERR_RESOURCE)
        gpu.set_scanout(0, resource, (0, 0, 64, 48))
        still_good(gpu)


def wrong_contexts():
    with Device() as dev, Frontend(dev.socket) as vm:
        gpu = g.venus(vm)
        gpu.create_context(0, error=ERR_CONTEXT)
        gpu.create_context(1)
        gpu.create_context(1, error=ERR_CONTEXT)
        for init in (1, 2, 3, 5, 6, 63, 255):
            gpu.create_context(2, init=init, error=ERR_PARAMETER)
        # Capset 0, as kernels before 6.12 open for every process.
        gpu.create_context(3, init=0)
        flat = gpu.create_2d(8, 8)
        gpu.ctx_attach(3, flat)
        gpu.ctx_detach(3, flat)
        gpu.ctx_detach(3, flat)  # Linux does, of what it attached before it had a context
        gpu.destroy_context(3)
        for ctx in (0, 9, 0xffffffff):
            gpu.destroy_context(ctx, error=ERR_CONTEXT)
            gpu.ctx_attach(ctx, flat, error=ERR_CONTEXT)
            gpu.ctx_detach(ctx, flat, error=ERR_CONTEXT)
            pv.check_equal(gpu.submit(ctx).wait().type, ERR_CONTEXT, f'SUBMIT_3D for {ctx}')
        gpu.ctx_attach(1, 4711, error=ERR_RESOURCE)
        gpu.ctx_detach(1, 4711, error=ERR_RESOURCE)
        for name in (b'', b'\xff' * 64, b'a\nb\x1b[31m', 'ü' * 32):
            gpu.create_context(5, name)
            gpu.destroy_context(5)
        answer = gpu.command(g.CTX_CREATE, struct.pack('<II64s', 0xffffffff, 4, b'n' * 64),
                             ctx=6).wait()
        pv.check(answer.type in (g.OK, ERR_PARAMETER), f'a name of 4 GiB: {answer}')
        pv.check('\x1b' not in dev.log(), 'escape characters of the guest in the log')
        still_good(gpu)


def wrong_submits():
    with Device() as dev, Frontend(dev.socket) as vm:
        gpu = g.venus(vm)
        gpu.create_context(1)
        for size in (4, 100, 0xffffffff, 0x80000000):
            pv.check_equal(gpu.submit(1, b'', size=size).wait().type, ERR_PARAMETER,
                           f'SUBMIT_3D that says {size} bytes, and has none')
        for length in (1, 2, 3, 5):
            pv.check_equal(gpu.submit(1, bytes(length)).wait().type, ERR_PARAMETER,
                           f'SUBMIT_3D of {length} bytes')
        pv.check_equal(gpu.submit(1, b'', size=0).wait().type, g.OK, 'SUBMIT_3D of nothing')
        still_good(gpu)


def many_contexts():
    """More contexts than there may be: an error, and the first ones go on."""
    with Device() as dev, Frontend(dev.socket) as vm:
        gpu = g.venus(vm)
        # Capset 0 costs no process, so this is about the table alone.
        for ctx in range(1, 3000):
            answer = gpu.command(g.CTX_CREATE, struct.pack('<II64s', 4, 0, b'many'), ctx=ctx).wait()
            if answer.type != g.OK:
                pv.check(answer.type in (g.ERR_MEMORY, ERR), f'context {ctx}: {answer}')
                break
        gpu.destroy_context(1)
        still_good(gpu)


def wild_cursors():
    """The cursor queue has no answers: buffers come back, and nothing else happens."""
    with Device(vulkan=False) as dev, Frontend(dev.socket) as vm:
        gpu = Gpu(vm)
        small = gpu.create_2d(8, 8, 1)
        flat = gpu.create_2d(64, 64, 1)
        for scanout, resource, x, y, hot in (
                (0, small, 0, 0, 0), (0, 4711, 0, 0, 0), (16, flat, 0, 0, 0),
                (0xffffffff, flat, 0, 0, 0), (0, flat, 0x80000000, 0x7fffffff, 0),
                (0, flat, 0xffffffff, 0xffffffff, 0xffffffff), (0, flat, 5, 5, 64),
                (0, 0, 0xffffffff, 0, 0)):
            gpu.update_cursor(scanout, resource, x, y, hot, hot)
            gpu.move_cursor(scanout, x, y)
        resource, _ = gpu.framebuffer(100, 100)
        gpu.flush(resource, (0, 0, 100, 100))
        gpu.update_cursor(0, flat, 0x7fffffff, 0x80000000, 0xffffffff, 0x80000000)
        dev.screenshot()
        gpu.unref(flat)  # still the cursor
        gpu.move_cursor(0, 3, 3)
        dev.screenshot()
        queue = gpu.cursor_queue
        for request in (b'\0', header(0x300), header(0x301) + bytes(31), header(0x302) + bytes(32),
                        header(0x100), b'\xff' * 200):
            gpu.send(request, queue=queue).wait()
            gpu.send(request, queue=queue, room=24).wait()
        still_good(gpu)


def control_commands_on_the_cursor_queue():
    with Device(vulkan=False) as dev, Frontend(dev.socket) as vm:
        gpu = Gpu(vm)
        gpu.send(header(g.CREATE_2D) + struct.pack('<4I', 77, 2, 8, 8), queue=gpu.cursor_queue,
                 room=24).wait()
        gpu.unref(77, error=ERR_RESOURCE)


def regions_removed_under_use():
    """Memory that a framebuffer is backed by goes: transfers fail, the picture stays, no crash."""
    with Device(vulkan=False) as dev, Frontend(dev.socket) as vm:
        gpu = Gpu(vm)
        resource = gpu.create_2d(64, 64)
        region = vm.memory.regions[0]  # the low part, where nothing else is
        gpu.attach(resource, [(4096, 64 * 64 * 4)])
        gpu.set_scanout(0, resource, (0, 0, 64, 64))
        vm.memory.write(4096, b'\x77' * 64 * 64 * 4)
        gpu.transfer(resource, (0, 0, 64, 64))
        gpu.flush(resource, (0, 0, 64, 64))
        blob = gpu.create_blob(64 * 64 * 4, mem=GUEST, flags=g.SHAREABLE,
                               pieces=[(4096, 64 * 64 * 4)])
        vm.memory.regions.remove(region)
        vm.send_memory_table()
        gpu.transfer(resource, (0, 0, 64, 64), error=ERR_PARAMETER)
        gpu.flush(resource, (0, 0, 64, 64))
        pv.check_equal(dev.screenshot()[2][0][:3], b'\x77' * 3, 'the picture afterwards')
        answer = gpu.command(g.SET_SCANOUT_BLOB, struct.pack(
            '<4I6I4I4I', 0, 0, 64, 64, 0, blob, 64, 64, 2, 0, 256, 0, 0, 0, 0, 0, 0, 0)).wait()
        gpu.command(g.FLUSH, struct.pack('<6I', 0, 0, 64, 64, blob, 0)).wait()
        pv.check(answer.type in (g.OK, ERR, ERR_PARAMETER), f'a blob without memory: {answer}')
        vm.memory.regions.insert(0, region)
        vm.send_memory_table()
        gpu.set_scanout(0, resource, (0, 0, 64, 64))
        gpu.transfer(resource, (0, 0, 64, 64))
        still_good(gpu)


def noise_of_all_kinds():
    """Random fields in every command; only that all are answered."""
    with Device() as dev, Frontend(dev.socket) as vm:
        gpu = Gpu(vm)
        rng = random.Random(7)
        small = [0, 1, 2, 3, 4, 7, 8, 64, 4096, 0x7fffffff, 0x80000000, 0xffffffff]
        for ctx in (1, 2):
            gpu.create_context(ctx)
        kinds = [kind for kind in SIZES if kind != g.CTX_CREATE]
        pending = []
        for _ in range(500 if pv.SANITIZED else 3000):
            kind = rng.choice(kinds)
            body = b''.join(struct.pack('<I', rng.choice(small))
                            for _ in range((SIZES[kind] - 24) // 4 + rng.choice((0, 0, 4, 16))))
            pending.append(gpu.command(kind, body, ctx=rng.choice((0, 1, 2, 3)),
                                       fence=rng.choice((None, gpu.new_fence()))))
            if len(pending) == 40:
                for request in pending:
                    request.wait()
                pending = []
        for request in pending:
            request.wait()
        pv.check_equal(len(gpu.display_info()), 16, 'display info after noise')


pv.main(short_commands, long_commands, unknown_types, error_with_a_fence_keeps_its_fence,
        no_room_for_the_answer, wrong_2d_resources, memory_of_the_host_is_bounded, wrong_backing,
        wrong_rectangles, wrong_contexts, wrong_submits, many_contexts, wild_cursors,
        control_commands_on_the_cursor_queue, regions_removed_under_use, noise_of_all_kinds)
