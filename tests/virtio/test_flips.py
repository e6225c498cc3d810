#!/usr/bin/env python3
"""When frames are taken: pacing of page flips, order of fences, figures; and screens that change
their size, come and go."""
import statistics
import struct
import threading
import time

from device import Device  # first: it finds pv.py

import edid
import pv
from frontend import Frontend
from gpu import EVENT_DISPLAY, FLUSH, GET_DISPLAY_INFO, OK, OK_DISPLAY, SET_SCANOUT, TRANSFER_2D, Gpu
from picture import noise, rgb
from viewer import SIZE, Viewer, message

WIDTH, HEIGHT = 160, 120
ALL = (0, 0, WIDTH, HEIGHT)
CONFIG_CHANGE = 2


class Flipper:
    """A guest with two buffers, as a compositor has them."""

    def __init__(self, gpu, scanout=0):
        self.gpu, self.scanout, self.count = gpu, scanout, 0
        self.buffers = []
        for i in range(2):
            resource = gpu.create_2d(WIDTH, HEIGHT)
            backing = gpu.backing(WIDTH * HEIGHT * 4)
            gpu.attach(resource, backing)
            gpu.write_backing(backing, noise(WIDTH, HEIGHT, 100 + i))
            gpu.transfer(resource, ALL)
            self.buffers.append(resource)

    @property
    def shown(self):
        return self.buffers[self.count % 2]

    def send(self, fenced=True):
        """The next buffer, on its way."""
        self.count += 1
        self.gpu.set_scanout(self.scanout, self.shown, ALL)
        return self.flush(fenced)

    def flush(self, fenced=True, **options):
        return self.gpu.command(FLUSH, struct.pack('<6I', *ALL, self.shown, 0),
                                fence=self.gpu.new_fence() if fenced else None, **options)

    def flip(self):
        pv.check_equal(self.send().wait().type, OK, 'answer to a flip')


def rate_of(flipper, count, work=0.0):
    """Flips a second of a guest that works for a while on each: (all the time, in the best of
    eight parts of it)."""
    for _ in range(3):
        flipper.flip()
    times = [time.perf_counter()]
    for _ in range(count):
        if work:
            time.sleep(work)
        flipper.flip()
        times.append(time.perf_counter())
    part = count // 8
    parts = [part / (times[i + part] - times[i]) for i in range(0, count - part + 1, part)]
    return count / (times[-1] - times[0]), max(parts)


def check_rate(rates, least, most, what):
    pv.say(f'{what}: {rates[0]:.1f} flips a second, {rates[1]:.1f} at best')
    # A machine that is busy with something else may be late, and nothing may be early.
    pv.check(least / pv.SLOW < rates[1] and rates[0] < most,
             f'{what}: {rates[0]:.1f} flips a second, {rates[1]:.1f} at best')


def flips_run_at_the_refresh_rate():
    """With and without somebody who looks."""
    for hertz in (60, 30, 144):
        with Device('--refresh', str(hertz), vulkan=False) as dev, Frontend(dev.socket) as vm:
            gpu = Gpu(vm)
            pv.check(abs(edid.preferred(gpu.edid(0))[2] - hertz) < 1, 'refresh rate in the EDID')
            flipper = Flipper(gpu)
            check_rate(rate_of(flipper, hertz), hertz * 0.9, hertz * 1.01, f'{hertz} Hz')
            with Viewer(dev) as viewer:
                thread = threading.Thread(target=lambda: viewer.settle(0.5))
                thread.start()
                check_rate(rate_of(flipper, hertz), hertz * 0.9, hertz * 1.01,
                           f'{hertz} Hz with a viewer')
                thread.join()
                pv.check(viewer.screen().frames > hertz * 0.2 / pv.SLOW,
                         f'{viewer.screen().frames} frames seen')


def slow_guests_are_not_slowed():
    """One that needs 20 ms for a frame runs at 50 Hz, not at the half of 60."""
    with Device(vulkan=False) as dev, Frontend(dev.socket) as vm:
        check_rate(rate_of(Flipper(Gpu(vm)), 48, 0.02), 42, 51, '20 ms of work')


def frames_are_shown_without_delay():
    """From the flush to the viewer, at the full rate."""
    with Device(vulkan=False) as dev, Frontend(dev.socket) as vm, Viewer(dev) as viewer:
        flipper = Flipper(Gpu(vm))
        delays = []
        for _ in range(60):
            start = time.monotonic_ns()
            pending = flipper.send()
            frame = viewer.wait_frame()
            delays.append((frame.received_ns - start) / 1e6)
            pv.check(0 <= frame.received_ns - frame.time_ns < 1e9, 'time of a frame')
            pending.wait()
        median = statistics.median(delays[5:])
        pv.say(f'flush to viewer: median {median:.2f} ms')
        pv.check(median < 8 * pv.SLOW, f'median {median} ms')


def unfenced_flushes_do_not_wait():
    """They are answered at once; what comes between two ticks is one frame for viewers."""
    with Device(vulkan=False) as dev, Frontend(dev.socket) as vm, Viewer(dev) as viewer:
        gpu = Gpu(vm)
        flipper = Flipper(gpu)
        start = time.perf_counter()
        for _ in range(200):
            flipper.send(fenced=False).wait()
        seconds = time.perf_counter() - start
        pv.check(seconds < 1.5 * pv.SLOW, f'200 flushes took {seconds:.2f} s')
        viewer.settle()
        stats = dev.status()['scanouts'][0]
        pv.say(f'{seconds:.2f} s; shown {stats["shown"]}, dropped {stats["dropped"]}')
        pv.check_equal(stats['frames'], 200, 'frames')
        pv.check_equal(stats['shown'] + stats['dropped'], 200, 'shown and dropped')
        pv.check(stats['shown'] <= seconds * 60 + 3, f'{stats["shown"]} shown in {seconds:.2f} s')
        pv.check(viewer.screen().frames <= stats['shown'], f'{viewer.screen().frames} frames seen')
        pv.check(viewer.rgb() == rgb(noise(WIDTH, HEIGHT, 100), WIDTH, HEIGHT, 2), 'the last frame')


def later_fences_do_not_overtake():
    """Fences of one timeline come in order, whatever they are of; what has none does not wait."""
    with Device('--refresh', '10', vulkan=False) as dev, Frontend(dev.socket) as vm:
        gpu = Gpu(vm)
        flipper = Flipper(gpu)
        flipper.flip()
        gpu.control.order.clear()
        fenced = [flipper.flush()]
        transfer = struct.pack('<4IQII', *ALL, 0, flipper.buffers[0], 0)
        fenced.append(gpu.command(TRANSFER_2D, transfer, fence=gpu.new_fence()))
        fenced.append(flipper.flush())
        fenced.append(gpu.command(GET_DISPLAY_INFO, fence=gpu.new_fence()))
        fenced.append(gpu.command(0x7777, fence=gpu.new_fence()))  # refused, in its turn
        start = time.perf_counter()
        pv.check_equal(gpu.command(GET_DISPLAY_INFO).wait().type, OK_DISPLAY, 'without a fence')
        flipper.flush(fenced=False).wait()
        pv.check(time.perf_counter() - start < 0.05 * pv.SLOW, 'what has no fence waits')
        pv.check(not any(request.poll() for request in fenced), 'an answer came too early')
        answers = [request.wait() for request in fenced]
        pv.check_equal([answer.fence for answer in answers],
                       sorted(answer.fence for answer in answers), 'fences')
        pv.check_equal([answer.type < 0x1200 for answer in answers], [True] * 4 + [False],
                       'their results')
        pv.check_equal(len(answers[3].data), 408, 'display info that came late')
        wanted = [request.token for request in fenced]
        pv.check_equal([token for token in gpu.control.order if token in wanted], wanted, 'order')


def nothing_is_lost_while_a_flip_waits():
    """The resource goes, the scanout goes off, the screen is unplugged: answered all the same."""
    with Device('--refresh', '5', vulkan=False) as dev, Frontend(dev.socket) as vm:
        gpu = Gpu(vm)
        for end in ('unref', 'off', 'unplug', 'show another'):
            flipper = Flipper(gpu)
            flipper.flip()
            pending = [flipper.flush() for _ in range(3)]
            time.sleep(0.02)
            if end == 'unref':
                gpu.unref(flipper.shown)
            elif end == 'off':
                gpu.set_scanout(0, 0, (0, 0, 0, 0))
            elif end == 'unplug':
                dev.command('resize', scanout=0, width=0, height=0)
            else:
                gpu.set_scanout(0, flipper.buffers[0], (0, 0, 20, 20))
            for request in pending:
                pv.check_equal(request.wait(5).type, OK, f'a flip before {end}')
        # Of nothing that is shown: at once.
        hidden = gpu.create_2d(16, 16)
        start = time.perf_counter()
        gpu.command(FLUSH, struct.pack('<6I', 0, 0, 16, 16, hidden, 0), fence=9).wait()
        pv.check(time.perf_counter() - start < 0.1 * pv.SLOW, 'a flush of nothing waits')


def reset_while_flips_wait():
    """The new driver gets no answers of the old one's, and flips as before."""
    with Device('--refresh', '5', vulkan=False) as dev, Frontend(dev.socket) as vm:
        for _ in range(3):
            gpu = Gpu(vm)
            flipper = Flipper(gpu)
            flipper.flip()
            for _ in range(3):
                flipper.flush()
            vm.stop()
            vm.restart()
        gpu = Gpu(vm)
        flipper = Flipper(gpu)
        flipper.flip()
        time.sleep(0.5)
        pv.check_equal(gpu.control.collect() or 0, 0, 'answers that nobody waits for')
        flipper.flip()
    with Device('--refresh', '2', vulkan=False) as dev:
        with Frontend(dev.socket) as vm:
            flipper = Flipper(Gpu(vm))
            flipper.flip()
            flipper.flush()
            flipper.flush()
        # the VM has gone
        pv.wait_until(lambda: not dev.status()['connected'], 5, 'the end')
        with Frontend(dev.socket) as vm:
            Flipper(Gpu(vm)).flip()


def figures():
    with Device(vulkan=False) as dev, Frontend(dev.socket) as vm:
        rate, _ = rate_of(Flipper(Gpu(vm)), 120)
        stats = dev.status()['scanouts'][0]
        pv.say(f'{rate:.1f} flips a second, {stats["fps"]} fps, median {stats["frame_ms_median"]}, '
               f'p99 {stats["frame_ms_p99"]}')
        pv.check_equal((stats['frames'], stats['shown'], stats['dropped'], stats['viewers']),
                       (123, 123, 0, 0), 'frames, shown, dropped, viewers')
        pv.check(rate * 0.7 < stats['fps'] < 63, f'{stats["fps"]} fps')
        pv.check(15 < stats['frame_ms_median'] < 19 * pv.SLOW, 'median between frames')
        pv.check(stats['frame_ms_p99'] >= stats['frame_ms_median'], 'p99')
        time.sleep(1.1)
        pv.check_equal(dev.status()['scanouts'][0]['fps'], 0.0, 'fps of a screen that stands still')


# ---- sizes ----


def viewer_asks_for_a_size():
    """The guest and all viewers hear of it; what no screen has is left alone."""
    with Device('--heads', '2', vulkan=False) as dev, Frontend(dev.socket) as vm, \
            Viewer(dev) as viewer, Viewer(dev) as other:
        gpu = Gpu(vm)
        viewer.ask_size(1900, 1000, 1)
        for one in (viewer, other):
            one.wait(lambda one=one: one.screen(1).mode == (1900, 1000), 'MODE')
        vm.backend.wait_requests(CONFIG_CHANGE, 1)
        pv.check_equal(gpu.config()[0], EVENT_DISPLAY, 'events_read')
        pv.check_equal(gpu.display_info()[1][2:5], (1900, 1000, 1), 'display info')
        pv.check_equal(edid.preferred(gpu.edid(1))[:2], (1900, 1000), 'preferred mode')
        changes = vm.backend.config_changes
        for width, height in ((0, 0), (0, 600), (800, 0), (63, 64), (64, 63), (8193, 600),
                              (0xffffffff, 0xffffffff), (1900, 1000)):
            viewer.send(message(SIZE, 1, width, height))
        viewer.ask_size(64, 8192)
        other.wait(lambda: other.screen(0).mode == (64, 8192), 'MODE of the other screen')
        pv.check_equal(other.screen(1).mode, (1900, 1000), 'a size that no screen has')
        time.sleep(0.2)
        pv.check_equal(vm.backend.config_changes, changes + 1, 'configuration changes')


def resize_storm():
    """A window that is dragged larger: few changes for the guest, the last one counts."""
    with Device(vulkan=False) as dev, Frontend(dev.socket) as vm, Viewer(dev) as viewer, \
            Viewer(dev) as other:
        gpu = Gpu(vm)
        flipper = Flipper(gpu)
        start = time.perf_counter()
        for i in range(3000):
            viewer.ask_size(700 + i % 600, 500 + i % 500)
            if i % 100 == 0:
                flipper.flip()
        viewer.ask_size(1111, 777)
        other.wait(lambda: other.screen().mode == (1111, 777), 'the last size')
        time.sleep(0.2)
        seconds = time.perf_counter() - start
        changes = vm.backend.config_changes
        pv.say(f'3001 sizes in {seconds:.2f} s: {changes} configuration changes')
        pv.check(1 <= changes <= seconds / 0.05 + 2, f'{changes} in {seconds:.2f} s')
        pv.check_equal(gpu.display_info()[0][2:5], (1111, 777, 1), 'display info')
        # The guest follows all of them.
        for i in range(30):
            width, height = 200 + 37 * i, 100 + 11 * i
            resource, backing = gpu.framebuffer(width, height)
            gpu.write_backing(backing, noise(width, height, i))
            gpu.transfer(resource, (0, 0, width, height))
            gpu.flush(resource, (0, 0, width, height))
            gpu.unref(resource)
            gpu.free_backing(backing)
        resource, backing = gpu.framebuffer(1111, 777)
        gpu.write_backing(backing, noise(1111, 777))
        gpu.transfer(resource, (0, 0, 1111, 777))
        gpu.flush(resource, (0, 0, 1111, 777))
        for one in (viewer, other):
            one.settle(0.2)
            pv.check(one.rgb() == rgb(noise(1111, 777), 1111, 777, 2), 'the picture afterwards')


def heads_come_and_go():
    """Two of three screens are unplugged at first."""
    with Device('--heads', '1', '--scanouts', '3', vulkan=False) as dev, \
            Frontend(dev.socket) as vm, Viewer(dev) as viewer:
        gpu = Gpu(vm)

        def plugged():
            return [info[2:5] for info in gpu.display_info()[:4]]
        on, off = (1280, 800, 1), (0, 0, 0)
        pv.check_equal(gpu.config()[2], 3, 'num_scanouts')
        pv.check_equal(plugged(), [on, off, off, off], 'screens at first')
        viewer.wait(lambda: viewer.screen(2).mode == (0, 0), 'MODE of an unplugged screen')
        for _ in range(3):
            changes = vm.backend.config_changes
            pv.check(dev.command('resize', scanout=2, width=1024, height=768).get('ok'), 'plug')
            vm.backend.wait_requests(CONFIG_CHANGE, changes + 1)
            pv.check_equal(plugged(), [on, off, (1024, 768, 1), off], 'screens with the third')
            pv.check_equal(edid.preferred(gpu.edid(2))[:2], (1024, 768), 'its EDID')
            viewer.wait(lambda: viewer.screen(2).mode == (1024, 768), 'MODE')
            flipper = Flipper(gpu, 2)
            flipper.flip()
            viewer.wait_frame(2)
            changes = vm.backend.config_changes
            pv.check(dev.command('resize', scanout=2, width=0, height=0).get('ok'), 'unplug')
            vm.backend.wait_requests(CONFIG_CHANGE, changes + 1)
            pv.check_equal(plugged(), [on, off, off, off], 'screens without it')
            viewer.wait(lambda: viewer.screen(2).mode == (0, 0), 'MODE of an unplugged screen')
            flipper.flip()  # the guest has not noticed yet
            gpu.do(SET_SCANOUT, struct.pack('<6I', 0, 0, 0, 0, 2, 0))
            viewer.wait(lambda: viewer.screen(2).size == (0, 0), 'blank screen')
        # The only one that was there, too.
        dev.command('resize', scanout=0, width=0, height=0)
        pv.check_equal(plugged(), [off] * 4, 'no screen at all')
        dev.command('resize', scanout=0, width=1280, height=800)
        pv.check_equal(plugged(), [on, off, off, off], 'the first again')


pv.main(flips_run_at_the_refresh_rate, slow_guests_are_not_slowed, frames_are_shown_without_delay,
        unfenced_flushes_do_not_wait, later_fences_do_not_overtake,
        nothing_is_lost_while_a_flip_waits, reset_while_flips_wait, figures,
        viewer_asks_for_a_size, resize_storm, heads_come_and_go)
