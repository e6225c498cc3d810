#!/usr/bin/env python3
"""A desktop guest for half an hour: vkcube, glxgears and a window that is resized all the time.

  PV_BUILD=DIR tests/soak/soak.py [--minutes N] [--image NAME] [--no-view] [--json FILE]

The guest is one of `pearvisor run --display vnc`, with a VNC client that looks at it. Watched are

  frames   of every program and of the screen go on, in each ten seconds
  memory   of all processes together and of each of them is flat within 2 % after the warm-up. Of QEMU's, two
           parts count only for the whole: its cache of translated code, and what it loses with each mapping
  fds      of the same: so are they; buffers that come and go have one each
  fences   none is pending when all has come to rest
  dmesg    of the guest: no word of virtio_gpu's about errors or time-outs

Ends with a table for docs/performance.md and one line, and exit status 1 if something was not as it
should be.
"""
import argparse
import contextlib
import json
import multiprocessing
import os
import re
import shutil
import statistics
import sys
import time

HERE = os.path.dirname(os.path.realpath(__file__))
sys.path[:0] = [os.path.join(HERE, '..', name) for name in ('guest', 'display', 'integration')]
sys.path.append(os.path.join(HERE, '..', '..', 'bench'))
import guest as guests  # noqa: E402
import procstat  # noqa: E402
import pv  # noqa: E402
from rfb import Rfb  # noqa: E402

SAMPLE_S = 2
FRAMES_S = 10  # in each of these there must be some
GROWTH = 0.02
# Below that a process may grow: a heap's free end, a stack's next page.
GROWTH_KIB = 512
# QEMU 11.1 loses one MemoryRegion and a name with each piece that it maps and unmaps (docs/performance.md).
QEMU_LOSES = 288 + 48
# So many buffers of a window can be about, or not, when it is looked at; one lost with each size is a thousand.
FDS = 8
# Programs, drivers and translated code take this long to have all that they need; what is measured of a
# shorter run is shown and not judged.
JUDGED_MINUTES = 10
WARM_UP = 1 / 5  # of the time
RESIZE_FRAMES = 5  # the window has shown so many before it gets another size
LOOKS_S = 0.5  # between two of the VNC client

# The programs, by the name of their context, and how they are started.
PROGRAMS = {
    'vkcube': 'vkcube --wsi wayland',
    'glxgears': 'glxgears',
    'resized': '/tmp/resized --wsi xcb',
}
USER = 'XDG_RUNTIME_DIR=/run/user/1000 WAYLAND_DISPLAY=$(cd /run/user/1000; ls | grep -x wayland-.) DISPLAY=:0'
# For an image that has no desktop of its own.
DESKTOP = r'''
mkdir -p /run/user/1000; chown user /run/user/1000; chmod 700 /run/user/1000
printf '[core]\nbackend=drm\nxwayland=true\nidle-time=0\n[shell]\nlocking=false\n' >/tmp/weston.ini
runuser -u user -- env XDG_RUNTIME_DIR=/run/user/1000 MESA_LOADER_DRIVER_OVERRIDE=zink \
    weston --config=/tmp/weston.ini --renderer=gl --log=/tmp/weston.log >/tmp/weston.out 2>&1 &
'''


# ---- the guest ----


def start_desktop(guest):
    """Returns what GL programs need in their environment."""
    if guest.run('pgrep -x weston || true').strip():
        env = ''
    else:
        guest.run(DESKTOP)
        env = 'MESA_LOADER_DRIVER_OVERRIDE=zink'
    guest.run('for i in $(seq 300); do ls /run/user/1000 | grep -qx wayland-. && exit; sleep 0.2; '
              'done; cat /tmp/weston.log; exit 1', 90)
    return env


def start_programs(guest, env):
    shutil.copy(os.path.join(HERE, 'resize.pl'), guest.share)
    guest.run('cp /usr/bin/vkcube /tmp/resized')  # a context has the program's name
    for name, command in PROGRAMS.items():
        guest.run(f"runuser -u user -- env {USER} {env} bash -c '{command}' >/tmp/{name}.log 2>&1 &")
        try:
            pv.wait_until(lambda name=name: guest.control.contexts(name), 60, 'its context')
        except pv.Failure as why:
            raise pv.Failure(f'{name}: {why}; it says:\n{guest.run(f"cat /tmp/{name}.log")}') from None
    guest.run(f'runuser -u user -- perl /mnt/share/resize.pl :0 glxgears {RESIZE_FRAMES} '
              '>/tmp/resize.log 2>&1 &')
    guest.run('for i in $(seq 150); do grep -q resizing /tmp/resize.log && exit; sleep 0.2; done; '
              'cat /tmp/resize.log; exit 1', 60)


def describe(guest):
    """What the guest's programs wait for, when they should not wait."""
    return guest.run(
        'for p in $(pgrep -x "weston|Xwayland|vkcube|glxgears|resized"); do '
        'echo "$p $(cat /proc/$p/comm): $(ps -o stat=,time= -p $p) in $(cat /proc/$p/wchan)"; '
        'cat /proc/$p/stack; done; dmesg | tail -n 5; tail -n 5 /tmp/*.log; '
        'journalctl --no-pager | grep -v qemu-ga | tail -n 20', 120)


def sizes(guest):
    """How many the window has had."""
    return int(guest.run("grep -c ' x ' /tmp/resize.log || true"))


def stop_programs(guest):
    guest.run("pkill -f resize.pl; pkill -x vkcube; pkill -x resized; pkill -x glxgears; true")


def bad_lines(guest):
    """Of the guest's kernel, about its GPU or about tasks that hang."""
    words = r'virtio_gpu|virtio-gpu|\[drm\]|drm:|hung|blocked for more|Oops|BUG'
    lines = guest.run(f"dmesg | grep -E '{words}' || true").splitlines()
    return [line for line in lines
            if re.search(r'error|timeout|timed out|fail|hung|blocked for|Oops|BUG', line, re.I)]


# ---- the VNC client ----


def look(port):
    """Look at the screen now and then, for ever."""
    rfb = Rfb(port)
    rfb.socket.settimeout(None)
    with contextlib.suppress(OSError, EOFError):
        while True:
            rfb.update()
            time.sleep(LOOKS_S)
            rfb.ask()


@contextlib.contextmanager
def viewer(guest):
    port = int(guest.wait_log(r'vnc: listening on 127\.0\.0\.1:(\d+)')[1])
    process = multiprocessing.Process(target=look, args=(port,), daemon=True)
    process.start()
    try:
        yield
        pv.check(process.is_alive(), 'the VNC client has lost its connection')
    finally:
        process.kill()
        process.join(5)


# ---- watching ----


def private_kib(pid):
    """Memory that is the process's own: not the guest's memory and the window, which are shared and as
    large as the guest wants them, and not programs and libraries, of which its share changes with
    what else runs."""
    with open(f'/proc/{pid}/smaps_rollup') as file:
        return int(re.search(r'^Pss_Anon:\s+(\d+)', file.read(), re.M)[1])


def translated_kib(pid):
    """What QEMU holds of the guest's programs in its own processor's code: all memory of its own that it may
    both write and run. Without a hypervisor this fills with each piece of program that runs for the first time,
    and is emptied when full, after 1 GiB."""
    size = 0
    with open(f'/proc/{pid}/smaps') as file:
        for line in file:
            if re.match(r'[0-9a-f]+-', line):
                counted = ' rwxp 00000000 ' in line
            elif counted and line.startswith('Anonymous:'):
                size += int(line.split()[1])
    return size


class Watch:
    """What the processes of one guest cost, over time."""

    def __init__(self, guest):
        self.guest = guest
        self.samples = {}  # name: [(time, KiB, fds)]
        self.translated = []  # (time, KiB)
        self.maps = []  # (time, how many QEMU has been asked for)
        self.frames = {}  # name: [(time, frames)]
        self.problems = []
        self.broken = set()  # contexts that were named already
        self.start = time.monotonic()
        self.looked = 0
        self.lost = guest.control.status()['workers_lost']

    def problem(self, text):
        minutes = (time.monotonic() - self.start) / 60
        self.problems.append(f'after {minutes:.1f} min: {text}')
        print(f'  {self.problems[-1]}', flush=True)
        if len(self.problems) == 1:
            print(pv._indent(describe(self.guest), 200), flush=True)

    def processes(self, status):
        """{name: pid} of all that has to do with this guest."""
        found = {}
        for pid in procstat.tree(self.guest.process.pid):
            with contextlib.suppress(OSError):
                with open(f'/proc/{pid}/cmdline') as file:
                    is_qemu = 'qemu-system' in file.read()
                found.setdefault('QEMU' if is_qemu else pv.comm(pid), pid)
        found.pop('pv-context', None)  # each by its context's name, below
        for context in status['contexts']:
            if context['pid']:
                found[f'worker of {context["name"]} ({context["id"]})'] = context['pid']
        return found

    def sample(self):
        status = self.guest.control.status()
        now = time.monotonic() - self.start
        self.maps.append((now, status['maps']))
        for name, pid in self.processes(status).items():
            with contextlib.suppress(OSError, TypeError):  # it has ended
                size, fds = private_kib(pid), len(os.listdir(f'/proc/{pid}/fd'))
                if name == 'QEMU':
                    self.translated.append((now, translated_kib(pid)))
                    size -= self.translated[-1][1]
                self.samples.setdefault(name, []).append((now, size, fds))
        for index, screen in enumerate(status['scanouts']):
            if screen['on'] and 'frames' in screen:
                self.frames.setdefault(f'screen {index}', []).append((now, screen['frames']))
        for context in status['contexts']:
            if context['name'] in PROGRAMS:
                self.frames.setdefault(context['name'], []).append((now, context['frames']))
            if (context['failed'] or context['hung']) and context['id'] not in self.broken:
                self.broken.add(context['id'])
                self.problem(f'{context["name"]} {"failed" if context["failed"] else "hangs"}')
        if now - self.looked >= FRAMES_S:
            self.looked = now
            self.look_at_frames(now)
        if status['workers_lost'] > self.lost:
            self.lost = status['workers_lost']
            self.problem('a worker was lost')

    def look_at_frames(self, now):
        for name in PROGRAMS:
            if name not in self.frames:
                self.problem(f'{name} has not shown a frame')
        for name, counts in self.frames.items():
            earlier = [count for at, count in counts if at <= now - FRAMES_S + SAMPLE_S]
            if earlier and counts[-1][1] <= earlier[-1]:
                self.problem(f'{name} has shown no frame for {FRAMES_S} s')

    def run(self, seconds):
        while (left := self.start + seconds - time.monotonic()) > 0:
            self.sample()
            time.sleep(min(SAMPLE_S, left))

    def rate(self, name, begin):
        counts = [(at, count) for at, count in self.frames[name] if at >= begin]
        if len(counts) < 2:
            return 0
        return (counts[-1][1] - counts[0][1]) / (counts[-1][0] - counts[0][0])


def parts(samples, begin, end):
    """The first and the last quarter of what came between."""
    first = [s for s in samples if begin <= s[0] < begin + (end - begin) / 4]
    last = [s for s in samples if end - (end - begin) / 4 <= s[0] <= end]
    return first, last


def medians(samples, seconds):
    """Of each column, in the first and in the last quarter of what comes after the warm-up; None if it came or
    went meanwhile."""
    found = parts(samples, seconds * WARM_UP, seconds)
    if min(map(len, found)) < 2:
        return None
    return [[statistics.median_low(column) for column in zip(*part)][1:] for part in found]


def has_grown(before, after, least):
    return after > max(before * (1 + GROWTH), before + least)


def judge(watch, seconds):
    """The table's rows and what QEMU has that is not its fault or ours; problems are noted."""
    (maps_before,), (maps_after,) = medians(watch.maps, seconds) or ([0], [0])
    (code_before,), (code_after,) = medians(watch.translated, seconds) or ([0], [0])
    lost_kib = (maps_after - maps_before) * QEMU_LOSES / 1024
    judged = seconds >= 60 * JUDGED_MINUTES
    rows = []
    for name, samples in watch.samples.items():
        found = medians(samples, seconds)
        if not found:
            continue
        (before, fds_before), (after, fds_after) = found
        rows.append({'name': name, 'before_mib': before / 1024, 'after_mib': after / 1024,
                     'fds_before': fds_before, 'fds_after': fds_after})
        if judged and has_grown(before, after - (lost_kib if name == 'QEMU' else 0), GROWTH_KIB):
            watch.problem(f'{name} has grown from {before / 1024:.1f} to {after / 1024:.1f} MiB')
        if judged and has_grown(fds_before, fds_after, FDS):
            watch.problem(f'{name} has {fds_after} fds, and had {fds_before}')
    rows.append({'name': "QEMU's translated code", 'before_mib': code_before / 1024, 'after_mib': code_after / 1024})
    before, after = (sum(row[key] for row in rows) for key in ('before_mib', 'after_mib'))
    rows.append({'name': 'all together', 'before_mib': before, 'after_mib': after})
    if judged and has_grown(before, after, 0):
        watch.problem(f'all together have grown from {before:.1f} to {after:.1f} MiB')
    return rows, {'maps': maps_after - maps_before, 'lost_mib': lost_kib / 1024}


def wait_for_rest(watch):
    """All fences of programs that have gone, and of those that stay, come back."""
    def pending():
        return sum(c['fences_pending'] for c in watch.guest.control.status()['contexts'])
    try:
        pv.wait_until(lambda: pending() == 0, 15, 'the last fence')
    except pv.Failure:
        watch.problem(f'{pending()} fences are pending, and nothing is drawn')


def report(minutes, rows, mapped, rates, resized, problems):
    print(f'\n| {minutes:g} minutes | memory before → after (MiB) | change | fds |')
    print('|---|---|---|---|')
    for row in rows:
        change = 100 * (row['after_mib'] / row['before_mib'] - 1) if row['before_mib'] else 0
        fds = f'{row["fds_before"]} → {row["fds_after"]}' if 'fds_before' in row else ''
        print(f'| {row["name"]} | {row["before_mib"]:.1f} → {row["after_mib"]:.1f} | {change:+.1f} % | {fds} |')
    print(f'\nbetween: {mapped["maps"]} mappings, with which QEMU loses {mapped["lost_mib"]:.1f} MiB')
    print('frames per second: ' + ', '.join(f'{name} {rate:.1f}' for name, rate in rates.items()))
    print(f'sizes of the window that is resized: {resized}')
    word = 'soak: good' if not problems else f'soak: BAD, {len(problems)} problems: {problems[0]}'
    print(f'{word} ({minutes:g} minutes)')


def soak(args):
    seconds = args.minutes * 60
    options = [] if args.no_view else ['--display', 'vnc', '--no-password']
    with guests.Guest(*options, '--timeout', str(int(seconds + 600)), image=args.image) as guest:
        start_programs(guest, start_desktop(guest))
        print(f'soaking for {args.minutes:g} minutes', flush=True)
        with contextlib.nullcontext() if args.no_view else viewer(guest):
            watch = Watch(guest)
            watch.run(seconds)
            rows, mapped = judge(watch, seconds)
            rates = {name: watch.rate(name, seconds * WARM_UP) for name in watch.frames}
            resized = sizes(guest)
            stop_programs(guest)
            wait_for_rest(watch)
        for line in bad_lines(guest):
            watch.problem(f'the guest: {line}')
        for line in re.findall(r'.*\b(?:error|lost)\b.*', guest.log()):
            watch.problem(f'the log: {line}')
    report(args.minutes, rows, mapped, rates, resized, watch.problems)
    if args.json:
        with open(args.json, 'w') as file:
            json.dump({'minutes': args.minutes, 'processes': rows, 'qemu': mapped, 'fps': rates, 'sizes': resized,
                       'problems': watch.problems}, file, indent=1)
    return 1 if watch.problems else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--minutes', type=float, default=30)
    parser.add_argument('--image', default=guests.IMAGE)
    parser.add_argument('--no-view', action='store_true', help='without a display')
    parser.add_argument('--json')
    args = parser.parse_args()
    try:
        sys.exit(soak(args))
    except pv.Skip as why:
        print(f'soak: skipped: {why}')
        sys.exit(77)
    except pv.Failure as why:
        print(f'soak: BAD: {why}')
        sys.exit(1)


if __name__ == '__main__':
    main()
