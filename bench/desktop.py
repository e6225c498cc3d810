#!/usr/bin/env python3
"""Programs in windows of the guest's desktop: the host's GPU against the guest's own software drivers.

  PV_BUILD=DIR bench/desktop.py [--rounds N] [--json FILE] [--gpu-arg ARG]... [cube|gears|glmark2|x11]...

Each round runs both drivers one after the other; what counts are the ratios of the medians. The compositor
is the same for both, and draws on the host's GPU.

  cube     vkcube, 500x500, on Wayland: FIFO, which waits for the screen (60 Hz), and MAILBOX
  x11      the same on X11
  gears    glxgears, 300x300, on X11: Zink on Venus against llvmpipe
  glmark2  glmark2's build and texture, 800x600, on Wayland: the same
"""
import argparse
import json
import os
import re
import statistics
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.realpath(__file__))
sys.path.insert(0, os.path.join(HERE, '..', 'tests', 'guest'))
import guest as guests  # noqa: E402
import pv  # noqa: E402

ICD = 'VK_DRIVER_FILES=$(ls /usr/share/vulkan/icd.d/{}_icd*.json) '
VULKAN = {'PearVisor': ICD.format('virtio'), 'own': ICD.format('lvp')}
GL = {'PearVisor': '', 'own': 'LIBGL_ALWAYS_SOFTWARE=1 GALLIUM_DRIVER=llvmpipe '}
RENDERER = {'PearVisor': 'Venus', 'own': 'llvmpipe'}
MODES = {'FIFO': 2, 'MAILBOX': 1}
# vkcube says nothing about its speed: the time of many frames, less the time of a few, which is start-up.
FRAMES = {'PearVisor': (30, 330), 'own': (5, 35)}


def window(guest, env, command, seconds=120):
    return guest.run(f'{env}desktop-run timeout {seconds} {command}', seconds + 20)


def cube(guest, driver, wsi, mode):
    times = []
    few, many = FRAMES[driver]
    for frames in (few, many):
        # in the guest: how long it takes to hear of the end is not vkcube's
        took = window(guest, VULKAN[driver],
                      f'sh -c "a=\\$(date +%s%N); vkcube --wsi {wsi} --present_mode {MODES[mode]} '
                      f'--c {frames} >/dev/null; echo \\$((\\$(date +%s%N) - a))"')
        times.append(int(took.split()[-1]) / 1e9)
    return (many - few) / (times[1] - times[0])


def check_renderer(out, driver):
    if RENDERER[driver] not in re.search(r'GL_RENDERER.*', out)[0]:
        sys.exit(f'desktop.py: not {RENDERER[driver]}:\n{out}')


def gears(guest, driver):
    """The second of two times five seconds; start-up is in the first."""
    out = guest.run(f'{GL[driver]}desktop-run timeout 16 stdbuf -oL glxgears -info || true', 60)
    check_renderer(out, driver)
    return float(re.findall(r'([\d.]+) FPS', out)[1])


def glmark2(guest, driver, scene):
    """By the time of a frame: the score is in whole frames a second."""
    out = window(guest, GL[driver], f'glmark2-wayland -b {scene}:duration=4')
    check_renderer(out, driver)
    return 1000 / float(re.search(r'FrameTime: ([\d.]+) ms', out)[1])


def cubes(wsi):
    return [(f'vkcube, {wsi}, {mode}', lambda guest, driver, mode=mode: cube(guest, driver, wsi, mode))
            for mode in MODES]


FIGURES = {
    'cube': cubes('wayland'),
    'gears': [('glxgears', gears)],
    'glmark2': [(f'glmark2 {scene}', lambda guest, driver, scene=scene:
                 glmark2(guest, driver, scene)) for scene in ('build', 'texture')],
    'x11': cubes('xcb'),
}


def measure(guest, name, figure, rounds):
    rates = {'PearVisor': [], 'own': []}
    for driver in rates:
        figure(guest, driver)  # with all shaders to compile: not counted
    for _ in range(rounds):
        for driver, values in rates.items():
            values.append(figure(guest, driver))
    ours, own = (statistics.median(rates[d]) for d in ('PearVisor', 'own'))
    spans = [f'{min(v):.1f} to {max(v):.1f}' for v in rates.values()]
    print(f'| {name} | {ours:.1f} ({spans[0]}) | {own:.1f} ({spans[1]}) | {ours / own:.1f} |', flush=True)
    return rates


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('what', nargs='*', default=list(FIGURES))
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--gpu-arg', action='append', default=[], help='for the device')
    parser.add_argument('--json')
    args = parser.parse_args()
    for what in args.what:
        if what not in FIGURES:
            parser.error(f'{what}: choose from {", ".join(FIGURES)}')
    options = [word for arg in args.gpu_arg for word in ('--gpu-arg', arg)]
    results = {}
    try:
        with tempfile.TemporaryDirectory() as folder, \
                guests.Guest('--display', f'vnc:{folder}/vnc', *options) as guest:
            guest.run('desktop-run timeout 60 vkcube --wsi xcb --c 3')  # Xwayland starts with the first
            time.sleep(3)
            print(f'| frames/s, median of {args.rounds} | PearVisor | the guest\'s own | ratio |\n'
                  '|---|---|---|---|', flush=True)
            for what in args.what:
                for name, figure in FIGURES[what]:
                    results[name] = measure(guest, name, figure, args.rounds)
    except pv.Skip as why:
        sys.exit(f'desktop.py: {why}')
    if args.json:
        with open(args.json, 'w') as file:
            json.dump(results, file, indent=1)


if __name__ == '__main__':
    main()
