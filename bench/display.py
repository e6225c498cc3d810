#!/usr/bin/env python3
"""How long a frame takes from the guest's flush to a VNC client, and what an idle screen costs.

  PV_BUILD=DIR bench/display.py [--seconds N] [--json FILE] [latency|idle|slow-viewer]...

The guest is a driver in Python that waits for its page flips, as Linux does; the client asks for raw
pixels over loopback. Both are processes of their own, beside the device and `pearvisor view`.

  latency      from the kick of the flush until the client has all pixels of the update, each of which
               is a new one: full screens of 1280x800, and windows of 500x500
  idle         CPU time of the device and the view together, one viewer, an unchanged screen
  slow-viewer  frames per second of one viewer while another one is stopped
"""
import argparse
import contextlib
import json
import multiprocessing
import os
import random
import signal
import statistics
import sys
import time

HERE = os.path.dirname(os.path.realpath(__file__))
sys.path[:0] = [HERE] + [os.path.join(HERE, '..', 'tests', name)
                         for name in ('virtio', 'display', 'integration')]
from device import Device  # noqa: E402  first: it finds pv.py
import frontend  # noqa: E402
import gpu as gpus  # noqa: E402
import procstat  # noqa: E402
import pv  # noqa: E402
from rfb import Rfb  # noqa: E402
from viewing import View  # noqa: E402

WIDTH, HEIGHT = 1280, 800
DAMAGES = {'1280x800': (0, 0, WIDTH, HEIGHT), '500x500': (390, 150, 500, 500)}
WARM_UP = 30  # frames
GOAL_MS = 20
IDLE_GOAL = 2.0  # per cent of a core


# ---- the VNC client ----


def client_main(port, damage, seconds, pipe):
    """Take updates; send [(number of the frame, when it was here)]."""
    rfb = Rfb(port)
    seen = []
    rfb.update()
    pipe.send('ready')
    end = time.monotonic() + seconds
    rfb.socket.settimeout(seconds + 5)
    rfb.ask()
    with contextlib.suppress(EOFError, TimeoutError):
        while time.monotonic() < end:
            rectangles = rfb.update()
            now = time.monotonic_ns()
            rfb.ask()
            for x, y, _, _, first in rectangles:
                if (x, y) == damage[:2]:
                    seen.append((int.from_bytes(first[:3], 'little'), now))
    pipe.send(seen)


class Client:
    """client_main in a process of its own."""

    def __init__(self, port, seconds, damage=(0, 0)):
        self.pipe, child = multiprocessing.Pipe()
        self.process = multiprocessing.Process(
            target=client_main, args=(port, damage, seconds, child), daemon=True)
        self.process.start()
        child.close()
        if not self.pipe.poll(20) or self.pipe.recv() != 'ready':
            raise pv.Failure('the VNC client does not start')

    def result(self, seconds):
        if not self.pipe.poll(seconds):
            raise pv.Failure('the VNC client does not end')
        seen = self.pipe.recv()
        self.process.join(5)
        return seen

    def stop(self):
        os.kill(self.process.pid, signal.SIGSTOP)

    def end(self):
        if self.process.is_alive():
            self.process.kill()
        self.process.join(5)


# ---- the guest ----


class Guest:
    """A screen that is drawn and flushed again and again. All pixels of the damage change; the first
    one is the frame's number."""

    def __init__(self, vm):
        self.gpu = gpus.Gpu(vm)
        self.resource, backing = self.gpu.framebuffer(WIDTH, HEIGHT, 2, 1)
        self.base = backing[0][0]
        noise = random.Random(1).randbytes(4 * WIDTH)
        self.rows = [noise, bytes(255 - byte for byte in noise)]
        self.frame = 0
        self.show((0, 0, WIDTH, HEIGHT))

    def show(self, damage):
        """One frame, taken by the display when this returns. Returns (number, when it was kicked)."""
        x, y, width, height = damage
        at = 4 * (y * WIDTH + x)
        self.frame += 1
        row = self.rows[self.frame % 2][:4 * width]
        pixels = self.gpu.memory.view(self.base, 4 * WIDTH * HEIGHT)
        for start in range(at, at + 4 * WIDTH * height, 4 * WIDTH):
            pixels[start:start + len(row)] = row
        pixels[at:at + 4] = self.frame.to_bytes(3, 'little') + b'\xff'
        self.gpu.transfer(self.resource, damage, at)
        kicked = time.monotonic_ns()
        self.gpu.flush(self.resource, damage, fence=self.gpu.new_fence())
        return self.frame, kicked

    def run(self, damage, seconds):
        """{number: when it was kicked}"""
        end = time.monotonic() + seconds
        kicks = {}
        while time.monotonic() < end:
            number, kicked = self.show(damage)
            kicks[number] = kicked
        return kicks


@contextlib.contextmanager
def screen():
    """(guest, view, device, port of the VNC server)"""
    with Device(vulkan=False) as device, frontend.Frontend(device.socket) as vm:
        guest = Guest(vm)
        with View(device, 'vnc', '--no-password') as view:
            port = int(view.wait_for(r'vnc: listening on 127\.0\.0\.1:(\d+)')[1])
            yield guest, view, device, port


# ---- figures ----


def bench_latency(seconds):
    print('flush to VNC client         frames/s   median      p99      max')
    results = {}
    for name, damage in DAMAGES.items():
        with screen() as (guest, _, _, port):
            client = Client(port, seconds, damage)
            kicks = guest.run(damage, seconds + 1)
            seen = client.result(seconds + 10)
        times = sorted((now - kicks[number]) / 1e6 for number, now in seen[WARM_UP:]
                       if number in kicks)
        if len(times) < 10:
            raise pv.Failure(f'{name}: only {len(times)} frames were seen')
        rate = len(seen) / seconds
        figures = {'frames_per_s': rate, 'median_ms': statistics.median(times),
                   'p99_ms': times[len(times) * 99 // 100], 'max_ms': times[-1]}
        results[name] = figures
        print(f'  {name:<24} {rate:9.1f} {figures["median_ms"]:8.1f} {figures["p99_ms"]:8.1f} '
              f'{figures["max_ms"]:8.1f} ms   goal: a median under {GOAL_MS} ms, '
              f'{"reached" if figures["median_ms"] < GOAL_MS else "missed"}', flush=True)
    return results


def bench_idle(seconds):
    with screen() as (_, view, device, port):
        client = Client(port, 3600)
        time.sleep(2)
        pids = {'device': procstat.tree(device.pid), 'view': procstat.tree(view.pid)}
        before = {name: procstat.cpu_exact_s(those) for name, those in pids.items()}
        start = time.monotonic()
        time.sleep(max(seconds, 5))
        took = time.monotonic() - start
        shares = {name: 100 * (procstat.cpu_exact_s(those) - before[name]) / took
                  for name, those in pids.items()}
        client.end()
    total = sum(shares.values())
    print(f'unchanged screen, one viewer: {total:.2f} % of a core (device {shares["device"]:.2f}, '
          f'view {shares["view"]:.2f})   goal: under {IDLE_GOAL:.0f} %, '
          f'{"reached" if total < IDLE_GOAL else "missed"}', flush=True)
    return {**shares, 'total': total}


def bench_slow_viewer(seconds):
    rates = {}
    for name in ('alone', 'beside a stopped one'):
        with screen() as (guest, _, _, port):
            other = Client(port, 3600) if name != 'alone' else None
            client = Client(port, seconds)
            if other:
                other.stop()
            kicks = guest.run(DAMAGES['1280x800'], seconds)
            rates[name] = len(client.result(seconds + 10)) / seconds
            rates[f'guest, {name}'] = len(kicks) / seconds
            if other:
                other.end()
    print('full screens per second       viewer    guest')
    for name in ('alone', 'beside a stopped one'):
        print(f'  {name:<24} {rates[name]:9.1f} {rates[f"guest, {name}"]:8.1f}', flush=True)
    return rates


BENCHES = {'latency': bench_latency, 'idle': bench_idle, 'slow-viewer': bench_slow_viewer}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('what', nargs='*', default=list(BENCHES))
    parser.add_argument('--seconds', type=float, default=10)
    parser.add_argument('--json')
    args = parser.parse_args()
    multiprocessing.set_start_method('fork')
    results = {}
    for what in args.what:
        if what not in BENCHES:
            sys.exit(f'display.py: no benchmark {what}: there are {", ".join(BENCHES)}')
        try:
            results[what] = BENCHES[what](args.seconds)
        except (pv.Failure, pv.Skip) as why:
            sys.exit(f'display.py: {what}: {why}')
    if args.json:
        with open(args.json, 'w') as file:
            json.dump(results, file, indent=1)


if __name__ == '__main__':
    main()
