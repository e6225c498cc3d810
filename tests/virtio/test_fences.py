#!/usr/bin/env python3
"""Fences: when they signal, in which order, and that none is lost when a worker dies or hangs."""
import os
import signal
import struct
import time

from device import Device  # first: it finds pv.py

import pv
from frontend import Frontend
from gpu import ERR, ERR_CONTEXT, ERR_PARAMETER, FENCE, FLUSH, OK, RING_IDX, venus
from venus import (FATAL, MEMORY, Ring, Vulkan, submit_virtqueue_seqno, wait_ring_seqno,
                   wait_virtqueue_seqno)

MIB = 1 << 20


def fields_are_copied():
    with Device() as dev, Frontend(dev.socket) as vm:
        gpu = venus(vm)
        gpu.create_context(5)
        answer = gpu.submit(5, fence=1).wait()
        pv.check_equal((answer.type, answer.flags, answer.fence, answer.ctx), (OK, FENCE, 1, 5),
                       'fence without ring_idx')
        answer = gpu.submit(5, fence=0xfedcba9876543210, ring_idx=0).wait()
        pv.check_equal((answer.type, answer.flags, answer.fence, answer.ctx, answer.ring_idx),
                       (OK, FENCE | RING_IDX, 0xfedcba9876543210, 5, 0), 'fence on ring_idx 0')
        answer = gpu.submit(5).wait()
        pv.check_equal((answer.type, answer.flags, answer.fence), (OK, 0, 0), 'no fence')


def waits_for_its_work():
    """A fence behind vkWaitRingSeqno comes when the ring gets there, and not before; commands
    without one, other contexts and the display do not wait."""
    with Device() as dev, Frontend(dev.socket) as vm:
        gpu = venus(vm)
        vm.wait_mapped()
        gpu.create_context(1)
        gpu.create_context(2)
        ring = Ring(gpu, 1, 0)
        ring.check_alive()
        blocked = wait_virtqueue_seqno(7)
        ring.write(blocked)
        behind = gpu.submit(1, wait_ring_seqno(ring.id, ring.tail), fence=gpu.new_fence(),
                            ring_idx=0)
        # Not behind a fence of its own timeline, so answered at once.
        pv.check_equal(gpu.submit(2, fence=gpu.new_fence(), ring_idx=0).wait().type, OK,
                       'another context meanwhile')
        gpu.display_info()
        resource, backing = gpu.framebuffer(64, 64)
        gpu.write_backing(backing, b'\x55' * 64 * 64 * 4)
        gpu.transfer(resource, (0, 0, 64, 64))
        gpu.flush(resource, (0, 0, 64, 64))
        pv.check_equal(dev.screenshot()[2][0][:3], b'\x55' * 3, 'the display meanwhile')
        time.sleep(0.2)
        pv.check(behind.poll() is None, 'the fence came before its work')
        # Nobody can get past the blocked context stream to send what the ring waits for.
        gpu.destroy_context(1)
        pv.check(behind.wait().fence, 'the fence of a context that was destroyed')


def order_within_a_timeline():
    """Answers of one timeline come in order; timelines do not wait for one another."""
    with Device() as dev, Frontend(dev.socket) as vm:
        gpu = venus(vm)
        for ctx in (1, 2, 3):
            gpu.create_context(ctx)
        pending = []
        for i in range(120):
            ctx = 1 + i % 3
            pending.append((ctx, gpu.submit(ctx, fence=gpu.new_fence(), ring_idx=0,
                                            kick=i % 5 == 0)))
        gpu.control.force_kick()
        for _, request in pending:
            request.wait()
        for ctx in (1, 2, 3):
            wanted = [request.token for c, request in pending if c == ctx]
            pv.check_equal([token for token in gpu.control.order if token in wanted], wanted,
                           f'order of context {ctx}')


def none_is_lost_at_a_kill():
    """SIGKILL of a worker under load: its fences come back as errors, its ring says FATAL, other
    contexts go on, and one line of the log names the context."""
    with Device() as dev, Frontend(dev.socket) as vm:
        gpu = venus(vm)
        vm.wait_mapped()
        gpu.create_context(1, 'victim')
        gpu.create_context(2, 'bystander')
        victim, bystander = Ring(gpu, 1, 0), Ring(gpu, 2, 8 * MIB)
        victim.check_alive()
        bystander.check_alive()
        pid, mark = dev.worker(1), dev.mark()
        victim.write(wait_virtqueue_seqno(1 << 40))
        pending = [gpu.submit(1, wait_ring_seqno(victim.id, victim.tail), fence=gpu.new_fence(),
                              ring_idx=0)]
        pending += [gpu.submit(1, fence=gpu.new_fence(), ring_idx=0) for _ in range(40)]
        pending += [gpu.submit(1, fence=gpu.new_fence()) for _ in range(20)]
        pv.check_equal(victim.status & FATAL, 0, 'FATAL before')
        os.kill(pid, signal.SIGKILL)
        for request in pending:
            answer = request.wait()
            pv.check_equal((answer.type, answer.flags & FENCE), (ERR, FENCE), 'a retired fence')
        pv.wait_until(lambda: victim.status & FATAL, 5, 'FATAL in the status of the ring')
        pv.check_equal(bystander.status & FATAL, 0, "FATAL in the bystander's ring")
        bystander.check_alive()
        dev.wait_line(r'(context 1\b.*(victim)?|victim).*(killed|signal 9)', mark)
        # Later commands of the context: an error at once, fenced or not.
        for request in (gpu.submit(1, fence=gpu.new_fence(), ring_idx=0),
                        gpu.submit(1, fence=gpu.new_fence()), gpu.submit(1)):
            pv.check(request.wait().type >= ERR, f'an answer for a dead context: {request.wait()}')
        gpu.create_blob(4096, 1, error=ERR)
        pv.check_equal(gpu.submit(2, fence=gpu.new_fence()).wait().type, OK,
                       'the global timeline afterwards')
        # What user space does when its process dies of it.
        gpu.unref(victim.shm)
        gpu.unref(victim.reply)
        gpu.destroy_context(1)
        gpu.create_context(1, 'successor')
        Ring(gpu, 1, 0).check_alive()
        bystander.check_alive()


def death_of_each_of_many():
    """Eight contexts; all but one are killed at once."""
    with Device() as dev, Frontend(dev.socket) as vm:
        gpu = venus(vm)
        vm.wait_mapped()
        rings = {}
        for ctx in range(1, 9):
            gpu.create_context(ctx, f'guest-{ctx}')
            rings[ctx] = Ring(gpu, ctx, 4 * MIB * ctx)
            rings[ctx].check_alive()
        pids = {ctx: dev.worker(ctx) for ctx in rings}
        for ctx in range(2, 9):
            os.kill(pids[ctx], signal.SIGKILL)
        for ctx in range(2, 9):
            pv.wait_until(lambda ring=rings[ctx]: ring.status & FATAL, 5, f'FATAL in ring {ctx}')
            gpu.destroy_context(ctx)
        rings[1].check_alive()
        pv.wait_until(lambda: not any(pv.exists(pids[ctx]) for ctx in range(2, 9)), 5,
                      'killed workers to be collected')


def deaths_under_load():
    """Worker after worker is killed in the middle of GPU work; another context renders all the
    while, and the console is drawn."""
    with Device() as dev, Frontend(dev.socket) as vm:
        gpu = venus(vm)
        vm.wait_mapped()
        gpu.create_context(1, 'survivor')
        survivor = Vulkan(Ring(gpu, 1, 0))
        memory = gpu.mapped_blob(1, MIB, 4 * MIB, blob_id=MEMORY)
        survivor.allocate(MIB, memory)
        screen, backing = gpu.framebuffer(64, 64)
        for number in range(4 if pv.SANITIZED else 12):
            gpu.create_context(2, f'victim-{number}')
            victim = Vulkan(Ring(gpu, 2, 16 * MIB))
            blob = gpu.mapped_blob(2, 8 * MIB, 32 * MIB, blob_id=MEMORY)
            victim.allocate(8 * MIB, blob)
            victim.fill(8 * MIB, number)
            pid = dev.worker(2)
            pending = [gpu.submit(2, fence=gpu.new_fence(), ring_idx=i % 2) for i in range(100)]
            victim.ring.write(wait_virtqueue_seqno(1 << 40))
            os.kill(pid, signal.SIGKILL)
            survivor.fill(MIB, number)
            pv.check_equal(vm.window.read(4 * MIB, MIB), bytes([number, 0, 0, 0]) * (MIB // 4),
                           'what the survivor renders')
            gpu.write_backing(backing, bytes([number]) * 64 * 64 * 4)
            gpu.transfer(screen, (0, 0, 64, 64))
            gpu.flush(screen, (0, 0, 64, 64))
            pv.check_equal(dev.screenshot()[2][0][:3], bytes([number]) * 3, 'the console')
            for request in pending:
                pv.check(request.wait().flags & FENCE, 'a fence of a victim')
            pv.wait_until(lambda: victim.ring.status & FATAL, 5, 'FATAL')
            for resource in (blob, victim.ring.shm, victim.ring.reply):
                gpu.unref(resource)
            gpu.destroy_context(2)
        pv.check_equal(dev.status()['workers_lost'], number + 1, 'workers that are counted as lost')


def stopped_worker_does_not_hold_up_the_display():
    """Fences without ring_idx are one timeline for all: a context that hangs there would stop the
    page flips of the console. Its worker is killed for that, and named."""
    with Device() as dev, Frontend(dev.socket) as vm:
        gpu = venus(vm)
        vm.wait_mapped()
        gpu.create_context(1, 'blocker')
        Ring(gpu, 1, 0).check_alive()
        screen, _ = gpu.framebuffer(64, 64)
        mark = dev.mark()
        os.kill(dev.worker(1), signal.SIGSTOP)
        blocker = gpu.submit(1, fence=gpu.new_fence())
        flip = gpu.command(FLUSH, struct.pack('<6I', 0, 0, 64, 64, screen, 0),
                           fence=gpu.new_fence())
        pv.check_equal(flip.wait(40).type, OK, 'the page flip')
        pv.check_equal(blocker.wait().type, ERR, 'the fence that held it up')
        dev.wait_line('blocker.*killed', mark)


def stopped_worker_is_named():
    """SIGSTOP: the log names it, everything else goes on; after SIGCONT it goes on, too."""
    with Device() as dev, Frontend(dev.socket) as vm:
        gpu = venus(vm)
        vm.wait_mapped()
        gpu.create_context(1, 'sleeper')
        gpu.create_context(2, 'awake')
        sleeper, awake = Ring(gpu, 1, 0), Ring(gpu, 2, 8 * MIB)
        sleeper.check_alive()
        pid, mark = dev.worker(1), dev.mark()
        os.kill(pid, signal.SIGSTOP)
        try:
            fence = gpu.submit(1, fence=gpu.new_fence(), ring_idx=0)
            awake.check_alive()
            gpu.display_info()
            dev.wait_line(r'(context 1\b|sleeper).*(not answer|hang|hung|stop|respond)', mark, 30)
            pv.check(dev.context(1)['hung'], 'status says that context 1 hangs')
            awake.check_alive()
            pv.check(fence.poll() is None, 'a fence of a stopped worker has signalled')
        finally:
            os.kill(pid, signal.SIGCONT)
        pv.check_equal(fence.wait().type, OK, 'the fence after SIGCONT')
        sleeper.check_alive()
        pv.wait_until(lambda: not dev.context(1)['hung'], 15, 'status to say that it goes on')


def stopped_worker_can_be_destroyed():
    with Device() as dev, Frontend(dev.socket) as vm:
        gpu = venus(vm)
        vm.wait_mapped()
        gpu.create_context(1, 'sleeper')
        Ring(gpu, 1, 0).check_alive()
        pid = dev.worker(1)
        os.kill(pid, signal.SIGSTOP)
        fence = gpu.submit(1, fence=gpu.new_fence(), ring_idx=0)
        gpu.destroy_context(1)
        pv.check(fence.wait().flags & FENCE, 'the fence of a destroyed context')
        pv.wait_until(lambda: not pv.exists(pid), 20, 'the end of a stopped worker')


def unknown_timelines():
    with Device() as dev, Frontend(dev.socket) as vm:
        gpu = venus(vm)
        gpu.create_context(1)
        for ring_idx in (64, 200, 255):
            answer = gpu.submit(1, fence=gpu.new_fence(), ring_idx=ring_idx).wait()
            pv.check_equal((answer.type, answer.flags), (ERR_PARAMETER, FENCE | RING_IDX),
                           f'ring_idx {ring_idx}')
        answer = gpu.submit(77, fence=gpu.new_fence(), ring_idx=0).wait()
        pv.check_equal((answer.type, answer.flags), (ERR_CONTEXT, FENCE | RING_IDX), 'context 77')
        pv.check_equal(gpu.submit(1, fence=gpu.new_fence(), ring_idx=0).wait().type, OK, 'ring 0')
        # A queue that nobody has bound: it may be an error, but it may not hang.
        answer = gpu.submit(1, fence=gpu.new_fence(), ring_idx=9).wait()
        pv.check_equal(answer.flags, FENCE | RING_IDX, 'the fence of a queue that is not bound')


def wrong_venus_kills_one_context():
    """Nonsense on the context stream: that context fails with a reason, its fence comes back."""
    with Device() as dev, Frontend(dev.socket) as vm:
        gpu = venus(vm)
        vm.wait_mapped()
        gpu.create_context(1, 'nonsense')
        gpu.create_context(2, 'sense')
        ring, other = Ring(gpu, 1, 0), Ring(gpu, 2, 8 * MIB)
        ring.check_alive()
        mark = dev.mark()
        answer = gpu.submit(1, struct.pack('<II', 0x7fffffff, 0), fence=gpu.new_fence()).wait()
        pv.check(answer.flags & FENCE, 'the fence of a context that fails')
        pv.wait_until(lambda: ring.status & FATAL, 5, 'FATAL in the status of the ring')
        dev.wait_line(r'(context 1\b|nonsense)', mark)
        other.check_alive()
        gpu.destroy_context(1)


def virtqueue_seqno():
    """The two ways to order ring and context stream, as Mesa uses them."""
    with Device() as dev, Frontend(dev.socket) as vm:
        gpu = venus(vm)
        vm.wait_mapped()
        gpu.create_context(1)
        ring = Ring(gpu, 1, 0)
        for seqno in range(1, 30):
            gpu.submit(1, submit_virtqueue_seqno(ring.id, seqno)).wait()
            ring.write(wait_virtqueue_seqno(seqno))
            fence = gpu.submit(1, wait_ring_seqno(ring.id, ring.tail), fence=gpu.new_fence(),
                               ring_idx=0)
            pv.check_equal(fence.wait().type, OK, 'fence behind vkWaitRingSeqno')
            pv.check_equal(ring.head, ring.tail, 'head of the ring at its fence')


pv.main(fields_are_copied, waits_for_its_work, order_within_a_timeline, none_is_lost_at_a_kill,
        death_of_each_of_many, deaths_under_load, stopped_worker_is_named,
        stopped_worker_does_not_hold_up_the_display, stopped_worker_can_be_destroyed,
        unknown_timelines, wrong_venus_kills_one_context, virtqueue_seqno)
