#!/usr/bin/env python3
"""Time from a kick that the device sees to the answer in the used ring, by its own clock."""
import re
import statistics
import time

from device import Device  # first: it finds pv.py

import pv
from frontend import Frontend
from gpu import Gpu

ROUNDS = 500 if pv.SANITIZED else 2000
GOAL_US = 50   # what it must reach where nothing else runs
LIMIT_US = 1000 * pv.SLOW  # what fails: machines are noisy
SCREEN_GOAL_US = 1000  # for a whole screen of 4 MB
SCREEN_LIMIT_US = 10000 * pv.SLOW


def median_of(dev):
    """(requests, median in microseconds) as --stats printed them."""
    found = re.search(r'kick to answer: (\d+) at once, median ([\d.]+) us', dev.output())
    pv.check(found, f'no latency in what --stats printed:\n{dev.output()}')
    return int(found[1]), float(found[2])


def reaches(median, goal):
    return f'{"reaches" if median < goal else "misses"} the goal of {goal} us'


def kick_to_used():
    with Device('--stats', vulkan=False) as dev:
        with Frontend(dev.socket) as vm:
            gpu = Gpu(vm)
            times = []
            for _ in range(ROUNDS):
                start = time.perf_counter()
                gpu.display_info()
                times.append((time.perf_counter() - start) * 1e6)
        pv.say(f'{ROUNDS} round trips, {statistics.median(times):.0f} us each with our driver '
               'in Python')
        dev.stop()
        pv.say(dev.output().splitlines()[-2])
        count, median = median_of(dev)
        pv.check(count >= ROUNDS, f'{count} requests were answered at once')
        pv.say(f'kick seen to used ring written: median {median} us ({reaches(median, GOAL_US)})')
        pv.check(median < LIMIT_US, f'a median of {median} us')


def screen_from_single_pages():
    """A transfer of all of 1280x800, in the pieces that Linux has and in a few large ones."""
    for pieces in (4, 1000):
        with Device('--stats', vulkan=False) as dev:
            with Frontend(dev.socket) as vm:
                gpu = Gpu(vm)
                resource, backing = gpu.framebuffer(1280, 800, 2, pieces)
                for _ in range(ROUNDS // 10):
                    gpu.transfer(resource, (0, 0, 1280, 800))
            dev.stop()
            _, median = median_of(dev)
            pv.say(f'transfer of 1280x800 from {len(backing)} pieces: median {median} us '
                   f'({reaches(median, SCREEN_GOAL_US)})')
            pv.check(median < SCREEN_LIMIT_US, f'a median of {median} us')


pv.main(kick_to_used, screen_from_single_pages)
