#!/usr/bin/env python3
"""What a virtual machine costs and gives: boot time, first frame, vkmark, control queue.

  PV_BUILD=DIR bench/vm.py [--rounds N] [--scenes A,B] [--json FILE] [boot|frame|vkmark]...

Each round runs all variants one after the other, so that a busy machine is unfair to none; what counts
are the ratios of the medians.

  boot     `pearvisor run IMAGE -- true`: with our device, with QEMU's virtio-gpu-pci, and without a GPU
  frame    from the start of the machine to the first picture rendered on the host's GPU (pv-challenge)
  vkmark   frames per second in the guest, headless: Venus against the guest's own lavapipe
"""
import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.realpath(__file__))
sys.path.insert(0, os.path.join(HERE, '..', 'tests', 'guest'))
import guest as guests  # noqa: E402
import pv  # noqa: E402

# A software driver in a translated guest needs seconds to compile a shader.
SECONDS = {'venus': 3, 'lavapipe': 10}
BOOT = {
    'PearVisor': [],
    'virtio-gpu-pci': ['--no-gpu', '--qemu-arg', '-device', '--qemu-arg', 'virtio-gpu-pci'],
    'no GPU': ['--no-gpu'],
}


def run_in_guest(args, command, stdin=subprocess.DEVNULL):
    """Seconds that `pearvisor run` took, and what the command said."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(('VK_', 'VN_'))}
    env['VK_DRIVER_FILES'] = pv.MACHINE.driver_file('lvp')
    start = time.monotonic()
    done = subprocess.run([pv.PEARVISOR, 'run', guests.IMAGE, *args, '--', *command], stdin=stdin,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env, timeout=600)
    seconds = time.monotonic() - start
    if done.returncode != 0:
        sys.exit(f'vm.py: the guest ended with {done.returncode}: '
                 f'{done.stderr.decode(errors="replace").strip()[-500:]}')
    return seconds, done.stdout


def report(name, values, base=None, unit='s'):
    ratio = f'{statistics.median(values) / statistics.median(base):8.2f}' if base else ' ' * 8
    print(f'  {name:<24} {min(values):8.1f} {statistics.median(values):8.1f} {max(values):8.1f} '
          f'{unit:<4}{ratio}', flush=True)


def bench_boot(rounds):
    times = {name: [] for name in BOOT}
    for _ in range(rounds):
        for name, args in BOOT.items():
            times[name].append(run_in_guest(args, ['true'])[0])
    print('boot to the first command and back     min   median      max      to virtio-gpu-pci')
    for name in BOOT:
        report(name, times[name], times['virtio-gpu-pci'])
    return times


def bench_frame(rounds):
    program = pv.MACHINE.program('pv-challenge')
    script = 'cat >/tmp/c && chmod +x /tmp/c && VK_DRIVER_FILES=$(ls /usr/share/vulkan/icd.d/' \
             'virtio_icd*.json) /tmp/c 7 | head -n 2'
    times = []
    for _ in range(rounds):
        with open(program, 'rb') as stdin:
            seconds, out = run_in_guest([], ['sh', '-c', script], stdin)
        if b'Venus' not in out:
            sys.exit(f'vm.py: no Venus in the guest: {out!r}')
        times.append(seconds)
    print('machine start to first frame and end   min   median      max')
    report('PearVisor', times)
    return times


def bench_vkmark(rounds, scenes):
    rates = {scene: {'venus': [], 'lavapipe': []} for scene in scenes}
    with guests.Guest() as guest:
        for _ in range(rounds):
            for scene in scenes:
                for driver, icd in [('venus', 'virtio'), ('lavapipe', 'lvp')]:
                    out = guest.run(
                        f'VK_DRIVER_FILES=$(ls /usr/share/vulkan/icd.d/{icd}_icd*.json) '
                        f'vkmark --winsys headless -b {scene}:duration={SECONDS[driver]}', 180)
                    found = re.search(r'FPS: ([0-9.]+)', out)
                    if not found:
                        sys.exit(f'vm.py: vkmark {scene} on {driver} failed:\n{out}')
                    rates[scene][driver].append(float(found.group(1)))
        status = guest.control.status()
    print('vkmark in the guest (median)      lavapipe    Venus    ratio')
    logs = []
    for scene in scenes:
        slow, fast = (statistics.median(rates[scene][d]) for d in ('lavapipe', 'venus'))
        slow = max(slow, 0.1)  # not one frame in all that time
        logs.append(fast / slow)
        print(f'  {scene:<30} {slow:9.1f} {fast:8.1f} {fast / slow:8.1f}')
    print(f'  {"geo. mean":<30} {"":9} {"":8} {statistics.geometric_mean(logs):8.1f}')
    print(f'kick seen to used ring written: {json.dumps(status["kick_to_used"])}')
    return rates


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('what', nargs='*', default=['boot', 'frame', 'vkmark'])
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--scenes', default='clear,cube,vertex,texture,desktop')
    parser.add_argument('--json')
    args = parser.parse_args()
    try:
        guests.need_guest()
    except pv.Skip as why:
        sys.exit(f'vm.py: {why}')
    results = {}
    for what in args.what:
        results[what] = {'boot': lambda: bench_boot(args.rounds),
                         'frame': lambda: bench_frame(args.rounds),
                         'vkmark': lambda: bench_vkmark(args.rounds, args.scenes.split(','))}[what]()
    if args.json:
        with open(args.json, 'w') as file:
            json.dump(results, file, indent=1)


if __name__ == '__main__':
    main()
