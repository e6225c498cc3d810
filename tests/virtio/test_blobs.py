#!/usr/bin/env python3
"""Blob resources: of guest memory, and of the host's, mapped in the window."""
import os
import struct
import time

from device import Device  # first: it finds pv.py

import pv
from frontend import Frontend
from gpu import (CREATE_BLOB, CROSS_DEVICE, ERR_CONTEXT, ERR_MEMORY, ERR_PARAMETER, ERR_RESOURCE,
                 GUEST, HOST3D, MAPPABLE, SHAREABLE, Gpu, venus)
from memory import PAGE
from picture import check_screen, cut, noise, rgb
from venus import MEMORY, Ring, Vulkan, enumerate_instance_version, set_reply_stream

MIB = 1 << 20
INVALID_EXTERNAL_HANDLE = -1000072003


def guest_blob_is_shown():
    """A blob of guest pages as framebuffer: no transfer, strides and offsets as given."""
    with Device(vulkan=False) as dev, Frontend(dev.socket) as vm:
        gpu = Gpu(vm)
        for fmt, width, height, stride, offset, pieces in (
                (2, 64, 64, 256, 0, 1), (1, 100, 70, 448, 4096, 9), (67, 33, 21, 132, 12, 3)):
            size = -(-(offset + stride * height) // PAGE) * PAGE
            data = noise(width, height, fmt, stride)
            backing = gpu.backing(size, pieces)
            blob = gpu.create_blob(size, mem=GUEST, flags=SHAREABLE, pieces=backing)
            gpu.write_backing(backing, data, offset)
            gpu.set_scanout_blob(0, blob, (0, 0, width, height), width, height, fmt, stride, offset)
            gpu.flush(blob, (0, 0, width, height))
            check_screen(dev, rgb(data, width, height, fmt, stride), f'blob of format {fmt}')
            # A second frame in the same memory shows at the next flush.
            data = noise(width, height, fmt + 1, stride)
            gpu.write_backing(backing, data, offset)
            gpu.flush(blob, (0, 0, width, height))
            check_screen(dev, rgb(data, width, height, fmt, stride), 'the next frame')
            gpu.set_scanout_blob(0, blob, (5, 3, 20, 10), width, height, fmt, stride, offset)
            gpu.flush(blob, (0, 0, width, height))
            check_screen(dev, cut(rgb(data, width, height, fmt, stride), 5, 3, 20, 10), 'a part')
            gpu.unref(blob)


def shared_memory_both_ways():
    """blob_id 0: zeroed, and the same bytes for the guest and the worker."""
    with Device() as dev, Frontend(dev.socket) as vm:
        gpu = venus(vm)
        vm.wait_mapped()
        gpu.create_context(1)
        for offset, size in ((0, PAGE), (16 * MIB, MIB), (vm.window.size - 8 * MIB, 8 * MIB)):
            blob = gpu.mapped_blob(1, size, offset)
            pv.check_equal(vm.window.read(offset, size), bytes(size), 'a new blob')
            gpu.ctx_detach(1, blob)
            gpu.unmap_blob(blob)
            gpu.unref(blob)
        ring = Ring(gpu, 1, 64 * MIB)
        ring.check_alive()


def gpu_memory_in_the_arena():
    """use_guest_vram: the blob is made first, vkAllocateMemory imports it, and what the GPU writes
    is at the offset that the guest chose."""
    with Device() as dev, Frontend(dev.socket) as vm:
        gpu = venus(vm)
        vm.wait_mapped()
        gpu.create_context(1)
        vulkan = Vulkan(Ring(gpu, 1, 0))
        for i, size in enumerate((PAGE, MIB, 16 * PAGE), 1):
            blob = gpu.mapped_blob(1, size, 32 * MIB, blob_id=MEMORY)
            vm.window.write(32 * MIB, b'guest')
            vulkan.allocate(size, blob)
            pv.check_equal(vm.window.read(32 * MIB, 5), b'guest', 'what the guest wrote before')
            vulkan.fill(size, 0xdead0000 + i)
            pv.check(vm.window.read(32 * MIB, size) ==
                     struct.pack('<I', 0xdead0000 + i) * (size // 4), f'{size} bytes by the GPU')
            vulkan.free()
            gpu.ctx_detach(1, blob)
            gpu.unmap_blob(blob)
            gpu.unref(blob)
        # The same place, in another context: zero.
        gpu.create_context(2)
        gpu.mapped_blob(2, MIB, 32 * MIB)
        pv.check(not any(vm.window.read(32 * MIB, MIB)), 'what a GPU wrote for another context')


def memory_of_two_contexts():
    """A compositor's client: one resource attached to two contexts, written by the one's GPU and
    imported by the other."""
    with Device() as dev, Frontend(dev.socket) as vm:
        gpu = venus(vm)
        vm.wait_mapped()
        for ctx in (1, 2):
            gpu.create_context(ctx)
        client, compositor = (Vulkan(Ring(gpu, ctx, 8 * MIB * ctx)) for ctx in (1, 2))
        blob = gpu.mapped_blob(1, MIB, 64 * MIB, blob_id=MEMORY,
                               flags=MAPPABLE | SHAREABLE | CROSS_DEVICE)
        client.allocate(MIB, blob)
        gpu.assign_uuid(blob)
        gpu.ctx_attach(2, blob)
        compositor.allocate(MIB, blob)
        client.fill(MIB, 0x11111111)
        pv.check(vm.window.read(64 * MIB, MIB) == b'\x11' * MIB, 'what the client wrote')
        compositor.fill(MIB // 2, 0x22222222)
        pv.check(vm.window.read(64 * MIB, MIB) == b'\x22' * (MIB // 2) + b'\x11' * (MIB // 2),
                 'what both wrote')
        # The client goes; the compositor still has the memory.
        gpu.destroy_context(1)
        compositor.fill(MIB, 0x33333333)
        pv.check(vm.window.read(64 * MIB, MIB) == b'\x33' * MIB, 'after the end of the client')
        gpu.unmap_blob(blob)
        gpu.unref(blob)
        compositor.free()
        gpu.create_context(3)
        gpu.mapped_blob(3, MIB, 64 * MIB)
        pv.check(not any(vm.window.read(64 * MIB, MIB)), "the next one's memory")


def import_of_nothing_is_refused_at_once():
    """Memory that its context cannot make: whoever imports it, before that is known or after, does
    not wait for what will not come."""
    with Device('--window', 'dynamic') as dev, Frontend(dev.socket) as vm:
        gpu = venus(vm)
        for ctx in (1, 2):
            gpu.create_context(ctx)
        client, compositor = (Vulkan(Ring(gpu, ctx, 8 * MIB * ctx)) for ctx in (1, 2))
        ring, pid, blob = compositor.ring, dev.worker(1), gpu.new_id()
        os.kill(pid, 19)  # SIGSTOP
        pending = gpu.command(CREATE_BLOB, gpu.blob_body(blob, HOST3D, SHAREABLE, MIB, blob_id=4711),
                              ctx=1)
        gpu.ctx_attach(2, blob)
        ring.write(set_reply_stream(ring.reply, 0, 64) + compositor.allocation(MIB, blob))
        time.sleep(0.5)
        pv.check(ring.head != ring.tail, 'the import did not wait for news')
        start = time.monotonic()
        os.kill(pid, 18)  # SIGCONT
        pv.wait_until(lambda: ring.head == ring.tail, 10, 'the answer to the import')
        seconds = time.monotonic() - start
        pv.check(seconds < 1.5 * pv.SLOW, f'the import waited {seconds:.1f} s for nothing')
        result = struct.unpack('<Ii', vm.window.read(ring.reply_at, 8))[1]
        pv.check_equal(result, INVALID_EXTERNAL_HANDLE, 'VkResult of the import')
        pv.check_equal(pending.wait(10).type, ERR_PARAMETER, 'CREATE_BLOB')
        gpu.ctx_detach(2, blob)
        gpu.ctx_attach(2, blob)
        start = time.monotonic()
        for one in (compositor, client):
            one.allocate(MIB, blob, good=(INVALID_EXTERNAL_HANDLE,))
        seconds = time.monotonic() - start
        pv.check(seconds < 1.5 * pv.SLOW, f'later imports waited {seconds:.1f} s')
        # the number is free again, and both go on
        gpu.unref(blob)
        gpu.create_blob(PAGE, 1, resource=blob)
        for one in (compositor, client):
            one.ring.check_alive()


def ring_may_name_what_is_mapped():
    """Mesa puts a new shared memory's id on the ring as soon as it is mapped, without waiting for
    the context stream to get there."""
    with Device() as dev, Frontend(dev.socket) as vm:
        gpu = venus(vm)
        vm.wait_mapped()
        gpu.create_context(1)
        ring = Ring(gpu, 1, 0)
        for _ in range(200 if pv.SANITIZED else 1500):
            blob = gpu.create_blob(MIB, 1)
            gpu.map_blob(blob, 64 * MIB)
            ring.run(set_reply_stream(blob, 0, 64) + enumerate_instance_version())
            pv.check_equal(vm.window.read(64 * MIB, 4), b'\x89\0\0\0', 'a reply in a new blob')
            gpu.unmap_blob(blob)
            gpu.unref(blob)


def maps_answer_cached():
    with Device() as dev, Frontend(dev.socket) as vm:
        gpu = venus(vm)
        gpu.create_context(1)
        blob = gpu.create_blob(PAGE, 1)
        pv.check_equal(gpu.map_blob(blob, 0) & 15, 1, 'map_info')


def reused_offset_is_zero():
    """Another context gets the same offset: it must not see what the first one left there."""
    with Device() as dev, Frontend(dev.socket) as vm:
        gpu = venus(vm)
        vm.wait_mapped()
        for ctx in range(1, 9):
            gpu.create_context(ctx)
            blob = gpu.mapped_blob(ctx, MIB, 4 * MIB)
            pv.check(not any(vm.window.read(4 * MIB, MIB)),
                     f'context {ctx} sees bytes of the one before')
            vm.window.write(4 * MIB, os.urandom(MIB))
            gpu.ctx_detach(ctx, blob)
            gpu.unmap_blob(blob)
            gpu.unref(blob)
            if ctx % 2:
                gpu.destroy_context(ctx)


def same_context_reuses_at_once():
    """The kernel reuses an offset right behind the UNMAP request: nothing waits."""
    with Device() as dev, Frontend(dev.socket) as vm:
        gpu = venus(vm)
        vm.wait_mapped()
        gpu.create_context(1)
        for round_ in range(50):
            pending, blob = [], gpu.new_id()
            pending.append(gpu.command(0x10c, gpu.blob_body(blob, HOST3D, MAPPABLE, 64 * 1024),
                                       ctx=1, kick=False))
            body = blob.to_bytes(4, 'little') + bytes(4)
            pending.append(gpu.command(0x208, body + bytes(8), kick=False))
            pending.append(gpu.command(0x202, body, ctx=1, kick=False))
            pending.append(gpu.command(0x203, body, ctx=1, kick=False))
            pending.append(gpu.command(0x209, body, kick=False))
            pending.append(gpu.command(0x102, body))
            for request in pending:
                answer = request.wait()
                pv.check(answer.type in (0x1100, 0x1106), f'round {round_}: {answer}')


def held_offset_is_taken_away():
    """A worker that does not let go of memory that the guest has unmapped is killed; until then
    nobody else gets it."""
    with Device() as dev, Frontend(dev.socket) as vm:
        gpu = venus(vm)
        vm.wait_mapped()
        for ctx in (1, 2, 3):
            gpu.create_context(ctx, f'holder-{ctx}')
            Ring(gpu, ctx, 8 * MIB * ctx).check_alive()
        pid, mark = dev.worker(1), dev.mark()
        blob = gpu.mapped_blob(1, MIB, 64 * MIB)
        vm.window.write(64 * MIB, b'secret')
        os.kill(pid, 19)  # SIGSTOP
        gpu.ctx_detach(1, blob)
        gpu.unmap_blob(blob)
        gpu.unref(blob)
        other = gpu.create_blob(MIB, 2)
        pending = gpu.command(0x208, struct.pack('<IIQ', other, 0, 64 * MIB))
        start = time.monotonic()
        gpu.display_info()  # others do not wait
        gpu.map_blob(gpu.create_blob(MIB, 3), 96 * MIB)
        pv.check(time.monotonic() - start < pv.SLOW, 'others wait for a deferred map')
        pv.check_equal(pending.wait(30).type, 0x1106, 'the map that had to wait')
        pv.check(not any(vm.window.read(64 * MIB, MIB)), "the other context's bytes")
        dev.wait_line('holder-1.*unmapped', mark)
        pv.check('holder-2' not in dev.log(), 'the one that had to wait is blamed')
        pv.wait_until(lambda: not pv.exists(pid), 10, 'the worker to be gone')


def order_of_death_does_not_matter():
    """UNREF while mapped and attached, contexts destroyed first: the offset is free again."""
    with Device() as dev, Frontend(dev.socket) as vm:
        gpu = venus(vm)
        vm.wait_mapped()
        for ctx in range(1, 7):
            gpu.create_context(ctx)
            blob = gpu.mapped_blob(ctx, MIB, 0)
            vm.window.write(0, b'x' * MIB)
            if ctx % 3 == 0:
                gpu.unref(blob)
            elif ctx % 3 == 1:
                gpu.destroy_context(ctx)
                gpu.unmap_blob(blob)
                gpu.unref(blob)
            else:
                gpu.destroy_context(ctx)
                gpu.unref(blob)
        gpu.create_context(9)
        gpu.mapped_blob(9, MIB, 0)
        pv.check(not any(vm.window.read(0, MIB)), 'bytes of a context that is gone')


def wrong_maps():
    """Twice, unknown, unaligned, beyond, overlapping, and unmapping what is not mapped."""
    with Device() as dev, Frontend(dev.socket) as vm:
        gpu = venus(vm)
        gpu.create_context(1)
        window = vm.window.size
        blob = gpu.create_blob(4 * PAGE, 1)
        gpu.map_blob(999, 0, error=ERR_RESOURCE)
        gpu.map_blob(0, 0, error=ERR_RESOURCE)
        gpu.unmap_blob(blob, error=ERR_PARAMETER)
        gpu.unmap_blob(999, error=ERR_RESOURCE)
        for offset in (1, 4, PAGE - 1, PAGE + 512, window, window - PAGE, window - 3 * PAGE,
                       1 << 63, (1 << 64) - PAGE, (1 << 64) - 1, 2 * window - 4 * PAGE):
            gpu.map_blob(blob, offset, error=ERR_PARAMETER)
        gpu.map_blob(blob, 8 * PAGE)
        gpu.map_blob(blob, 8 * PAGE, error=ERR_PARAMETER)
        gpu.map_blob(blob, 64 * PAGE, error=ERR_PARAMETER)
        other = gpu.create_blob(4 * PAGE, 1)
        for offset in (5, 6, 8, 9, 11):
            gpu.map_blob(other, offset * PAGE, error=ERR_PARAMETER)
        gpu.map_blob(other, 12 * PAGE)
        gpu.unmap_blob(blob)
        gpu.unmap_blob(blob, error=ERR_PARAMETER)
        gpu.map_blob(gpu.create_blob(4 * PAGE, 1), 8 * PAGE)
        unmappable = gpu.create_blob(PAGE, mem=GUEST, flags=SHAREABLE,
                                     pieces=gpu.backing(PAGE))
        gpu.map_blob(unmappable, 128 * PAGE, error=ERR_PARAMETER)
        flat = gpu.create_2d(32, 32)
        gpu.map_blob(flat, 128 * PAGE, error=ERR_PARAMETER)


def wrong_blobs():
    with Device() as dev, Frontend(dev.socket) as vm:
        gpu = venus(vm)
        gpu.create_context(1)
        gpu.create_blob(PAGE, 1, resource=0, error=ERR_RESOURCE)
        taken = gpu.create_blob(PAGE, 1)
        gpu.create_blob(PAGE, 1, resource=taken, error=ERR_RESOURCE)
        gpu.create_blob(PAGE, 77, error=ERR_CONTEXT)
        gpu.create_blob(PAGE, 0, error=ERR_CONTEXT)
        gpu.create_blob(0, 1, error=ERR_PARAMETER)
        for size in ((1 << 64) - 1, 1 << 63, vm.window.size * 4, vm.window.size + PAGE):
            gpu.create_blob(size, 1, error=ERR_MEMORY)
        for mem in (0, 4, 77):
            gpu.create_blob(PAGE, 1, mem=mem, error=ERR_PARAMETER)
        gpu.create_blob(PAGE, 1, flags=MAPPABLE | 1 << 31, error=ERR_PARAMETER)
        backing = gpu.backing(PAGE)
        gpu.create_blob(2 * PAGE, mem=GUEST, pieces=backing, error=ERR_PARAMETER)
        gpu.create_blob(PAGE, mem=GUEST, pieces=[(1 << 50, PAGE)], error=ERR_PARAMETER)
        gpu.create_blob(PAGE, mem=GUEST, pieces=[((1 << 64) - 1, PAGE)], error=ERR_PARAMETER)
        gpu.create_blob(PAGE, mem=GUEST, pieces=backing, count=2, error=ERR_PARAMETER)
        gpu.create_blob(PAGE, mem=GUEST, pieces=backing, count=1 << 31, error=ERR_PARAMETER)


def uuids():
    """One per resource, the same when asked again, never zero."""
    with Device() as dev, Frontend(dev.socket) as vm:
        gpu = venus(vm)
        gpu.create_context(1)
        blobs = [gpu.create_blob(PAGE, 1, flags=MAPPABLE | SHAREABLE | CROSS_DEVICE)
                 for _ in range(20)] + [gpu.create_2d(16, 16)]
        first = [gpu.assign_uuid(blob) for blob in blobs]
        pv.check_equal(first, [gpu.assign_uuid(blob) for blob in blobs], 'UUIDs asked twice')
        pv.check_equal(len(set(first)), len(blobs), 'different UUIDs')
        pv.check(bytes(16) not in first, 'a UUID of zeros')
        gpu.assign_uuid(4242, error=ERR_RESOURCE)


def host_blob_is_shown():
    """A compositor's buffer: a HOST3D blob as scanout, drawn to through the window."""
    with Device() as dev, Frontend(dev.socket) as vm:
        gpu = venus(vm)
        vm.wait_mapped()
        gpu.create_context(1)
        width, height = 128, 96
        blob = gpu.mapped_blob(1, width * height * 4, 2 * MIB)
        data = noise(width, height)
        vm.window.write(2 * MIB, data)
        gpu.set_scanout_blob(0, blob, (0, 0, width, height), width, height, 1, width * 4)
        gpu.flush(blob, (0, 0, width, height))
        check_screen(dev, rgb(data, width, height, 1), 'HOST3D blob')
        # The worker's death does not take the picture away.
        os.kill(dev.worker(1), 9)
        pv.wait_until(lambda: (dev.context(1) or {}).get('failed', True), 10, 'context 1 to fail')
        gpu.flush(blob, (0, 0, width, height))
        check_screen(dev, rgb(data, width, height, 1), 'after the death of the worker')


def wrong_scanout_blobs():
    with Device(vulkan=False) as dev, Frontend(dev.socket) as vm:
        gpu = Gpu(vm)
        backing = gpu.backing(64 * 64 * 4)
        blob = gpu.create_blob(64 * 64 * 4, mem=GUEST, flags=SHAREABLE, pieces=backing)
        full = (0, 0, 64, 64)
        gpu.set_scanout_blob(0, blob, full, 64, 64, 2, 256)
        for rect, width, height, fmt, stride, offset in (
                (full, 64, 65, 2, 256, 0), (full, 64, 64, 2, 260, 0), (full, 64, 64, 2, 256, 4),
                (full, 64, 64, 2, 0xffffffff, 0), (full, 64, 64, 2, 256, 0xfffffffc),
                (full, 64, 64, 3000, 256, 0), (full, 64, 64, 2, 252, 0), (full, 0, 64, 2, 256, 0),
                ((0, 0, 65, 64), 64, 64, 2, 256, 0), ((1, 0, 64, 64), 64, 64, 2, 256, 0),
                ((0xffffffff, 0, 2, 2), 64, 64, 2, 256, 0), ((0, 0, 0, 0), 64, 64, 2, 256, 0),
                (full, 0x40000000, 0x40000000, 2, 0, 0)):
            gpu.set_scanout_blob(0, blob, rect, width, height, fmt, stride, offset,
                                 error=ERR_PARAMETER)
        gpu.set_scanout_blob(0, 4711, full, 64, 64, 2, 256, error=ERR_RESOURCE)
        gpu.flush(blob, full)
        pv.check_equal(dev.screenshot()[:2], (64, 64), 'the scanout after all that')


pv.main(guest_blob_is_shown, shared_memory_both_ways, gpu_memory_in_the_arena,
        memory_of_two_contexts, import_of_nothing_is_refused_at_once, ring_may_name_what_is_mapped,
        maps_answer_cached, reused_offset_is_zero, same_context_reuses_at_once,
        held_offset_is_taken_away, order_of_death_does_not_matter, wrong_maps, wrong_blobs, uuids,
        host_blob_is_shown, wrong_scanout_blobs)
