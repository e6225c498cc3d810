#!/usr/bin/env python3
"""A Debian 13 guest with our device: the guest kernel's virtio_gpu driver and its own Mesa Venus.

Everything runs in one guest, one check after the other; the last ones are the rough ones.
"""
import contextlib
import os
import re
import shutil
import signal
import subprocess
import time

import guest as guests
import pv

VENUS = 'VK_DRIVER_FILES=$(ls /usr/share/vulkan/icd.d/virtio_icd*.json)'
# One of each kind: blending, depth, compute, feedback of queries, indirect, big uploads.
SCENES = ['demo', 'triangle', 'texture', 'mipmap', 'indirect', 'shadow', 'life', 'fractal']


def test_vulkaninfo(guest):
    """The guest's device is Venus on the host's driver."""
    out = guest.run(f'{VENUS} vulkaninfo --summary', 90)
    pv.check(re.search(r'deviceName\s*= Virtio-GPU Venus \(.*\)', out), f'no Venus device:\n{out}')
    pv.check('DRIVER_ID_MESA_VENUS' in out, 'the driver is not Venus')
    pv.say(re.search(r'deviceName\s*= (.*)', out).group(1))
    dmesg = guest.run('dmesg | grep -i -e "virtio.gpu" -e "\\[drm\\]"')
    pv.check('+virgl' in dmesg and '+resource_blob' in dmesg and '+host_visible' in dmesg
             and '+context_init' in dmesg, f'features are missing:\n{dmesg}')
    pv.check('*ERROR*' not in dmesg, f'the kernel complains:\n{dmesg}')


def test_rendering(guest):
    """Pictures rendered in the guest equal those of the same program on the host's driver."""
    render = guest.send_program('pv-render')
    known = subprocess.run([pv.MACHINE.program('pv-render'), '--list'], capture_output=True,
                           text=True).stdout
    scenes = [s for s in SCENES if re.search(rf'^{s}\s', known, re.M)]
    pv.check(len(scenes) >= 3, f'too few scenes: {known}')
    for scene in scenes:
        guest.run(f'{VENUS} {render} --scene {scene} --size 320x240 --frames 3 --quiet '
                  f'--raw /tmp/{scene}.raw && cp /tmp/{scene}.raw /mnt/share/', 120)  # 9p cannot write from GPU memory
        native = os.path.join(guest.folder, 'native.raw')
        pv.run(pv.MACHINE, None, 'pv-render', '--scene', scene, '--size', '320x240', '--frames',
               '3', '--quiet', '--raw', native)
        with open(native, 'rb') as file:
            want = file.read()
        with open(os.path.join(guest.share, f'{scene}.raw'), 'rb') as file:
            got = file.read()
        pv.check(got == want, f'{scene}: the picture differs from the host\'s')
    pv.say(f'{len(scenes)} scenes, bit for bit')


# QEMU's time for a mapping grows with their number: thousands take minutes.
def test_memory_and_sync(guest, memory_options='--allocations 500'):
    """Mapped memory, both ways, and every kind of fence and semaphore."""
    for name, options in [('pv-memory', memory_options), ('pv-sync', '')]:
        program = guest.send_program(name)
        code, out = guest.finish(guest.start(f'{VENUS} {program} {options}'), 240)
        pv.check(code in (0, 77), f'{name} ended with {code}:\n{pv._indent(out)}')


def test_explicit_sync(guest):
    """GPU work behind points of DRM timelines, between two contexts."""
    if not os.path.exists(pv.MACHINE.program('pv-syncobj')):
        pv.say('left out: built without libdrm')
        return
    program = guest.send_program('pv-syncobj')
    pv.say(guest.run(f'{VENUS} {program}', 120).strip())


def test_kms(guest):
    """The kernel's display driver: connector, modes, EDID, planes."""
    out = guest.run('modetest -M virtio_gpu -c')
    pv.check(re.search(r'^\d+\s+\d+\s+connected\s+Virtual-1', out, re.M), f'no connector:\n{out}')
    pv.check('1280x800' in out and '1024x768' in out, f'modes are missing:\n{out}')
    edid = guest.run('cat /sys/class/drm/card*-Virtual-1/edid | od -An -tx1 | head -1')
    pv.check('00 ff ff ff ff ff ff 00' in edid, f'no EDID: {edid}')
    pv.check('virtio' in guest.run('drm_info 2>/dev/null | head -5').lower(), 'drm_info is silent')


def picture(guest, name='screen.png'):
    """The guest's screen: (width, height, [rows of bytes])"""
    path = os.path.join(guest.folder, name)
    guest.control.ask('screenshot', scanout=0, path=path)
    return read_png(path)


def read_png(path):
    import struct
    import zlib
    data = open(path, 'rb').read()
    pv.check(data[:8] == b'\x89PNG\r\n\x1a\n', 'no PNG file')
    at, idat = 8, b''
    while at < len(data):
        size, kind = struct.unpack('>I4s', data[at:at + 8])
        body = data[at + 8:at + 8 + size]
        if kind == b'IHDR':
            width, height, depth, color = struct.unpack('>IIBB', body[:10])
        elif kind == b'IDAT':
            idat += body
        at += 12 + size
    pv.check_equal(depth, 8, 'bits of a channel')
    step = {2: 3, 6: 4}[color]
    raw, rows, before = zlib.decompress(idat), [], bytes(width * step)
    for y in range(height):
        start = y * (width * step + 1)
        kind, row = raw[start], bytearray(raw[start + 1:start + 1 + width * step])
        for i in range(len(row)):
            left = row[i - step] if i >= step else 0
            corner = before[i - step] if i >= step else 0
            if kind == 1:
                row[i] = (row[i] + left) & 255
            elif kind == 2:
                row[i] = (row[i] + before[i]) & 255
            elif kind == 3:
                row[i] = (row[i] + (left + before[i]) // 2) & 255
            elif kind == 4:
                p = left + before[i] - corner
                best = min((abs(p - left), 0, left), (abs(p - before[i]), 1, before[i]),
                           (abs(p - corner), 2, corner))[2]
                row[i] = (row[i] + best) & 255
        rows.append([tuple(row[x:x + 3]) for x in range(0, len(row), step)])
        before = bytes(row)
    return width, height, rows


def lit(rows):
    return sum(1 for row in rows for pixel in row if max(pixel) > 100)


def test_console_screenshot(guest):
    """The text console on the virtual screen, and what is written there."""
    guest.run('printf "\\033[2J\\033[H\\033[?25l" >/dev/tty1; sleep 1')
    width, height, rows = picture(guest)
    pv.check_equal((width, height), (1280, 800), 'size of the screen')
    empty = lit(rows)
    guest.run('i=0; while [ $i -lt 20 ]; do echo PearVisor PearVisor PearVisor >/dev/tty1; '
              'i=$((i+1)); done; sleep 1')
    full = lit(picture(guest)[2])
    pv.check(full > empty + 5000, f'{full} lit pixels after writing, {empty} before')
    # a whole block in colour, bit for bit
    guest.run('printf "\\033[2J\\033[H\\033[41m%*s\\033[0m" 40 "" >/dev/tty1; sleep 1')
    rows = picture(guest)[2]
    pv.check_equal(rows[4][100], (170, 0, 0), 'colour of a red block of the text console')


MODES = 'modetest -M virtio_gpu -c | grep -E "^ *#[0-9]+ "'


def preferred(guest):
    found = re.search(r'#\d+ (\d+x\d+) .*preferred', guest.run(MODES))
    return found and found.group(1)


def test_resize(guest):
    """A new size from the display's side: EDID, mode list, hotplug event."""
    guest.run('udevadm monitor --kernel --property --subsystem-match=drm >/tmp/uevents 2>&1 & sleep 1')
    guest.control.ask('resize', scanout=0, width=1600, height=900)
    pv.wait_until(lambda: preferred(guest) == '1600x900', 15, 'the new mode in the guest')
    pv.check('1024x768' in guest.run(MODES), 'the smaller modes went away')
    events = guest.run('cat /tmp/uevents')
    pv.check('HOTPLUG=1' in events, f'no hotplug event:\n{events}')
    guest.control.ask('resize', scanout=0, width=1280, height=800)
    pv.wait_until(lambda: preferred(guest) == '1280x800', 15, 'the old mode in the guest')


def start_loop(guest, name='pv-loop', args=''):
    """A program of ours that draws for ever in the guest's background; returns its context."""
    program = guest.send_program('pv-loop')
    guest.run(f'cp {program} /tmp/{name}')
    guest.run(f'{VENUS} /tmp/{name} {args} >/tmp/{name}.out 2>&1 & echo $! >/tmp/{name}.pid')
    pv.wait_until(lambda: 'ready' in guest.run(f'cat /tmp/{name}.out'), 60, f'{name} in the guest')
    found = guest.control.contexts(name)
    pv.check(len(found) == 1, f'{len(found)} contexts of {name}: {guest.control.status()}')
    return found[0]


def alive(guest, name):
    return guest.finish(guest.start(f'kill -0 $(cat /tmp/{name}.pid)'))[0] == 0


def check_others_go_on(guest):
    out = guest.run(f'{VENUS} vulkaninfo --summary', 90)
    pv.check('Virtio-GPU Venus' in out, f'no Venus any more:\n{out}')


def test_suspended_worker(guest):
    """SIGSTOP of one worker: it is named, the rest goes on, and so does it after SIGCONT."""
    context = start_loop(guest, 'pv-stopped', '--idle 600')
    guests.stop(context['pid'])
    check_others_go_on(guest)
    # something for it to do, without waiting for the answer
    guest.run(f'kill $(cat /tmp/pv-stopped.pid)')
    pv.wait_until(lambda: not guest.control.contexts('pv-stopped'), 30, 'end of its context')
    pv.wait_until(lambda: not pv.exists(context['pid']), 30, 'end of a stopped worker')


def test_killed_worker(guest):
    """SIGKILL of one worker under load: its program ends soon, nothing else notices."""
    victim = start_loop(guest, 'pv-victim')
    other = start_loop(guest, 'pv-other')
    time.sleep(1)
    os.kill(victim['pid'], signal.SIGKILL)
    pv.wait_until(lambda: not alive(guest, 'pv-victim'), 15, 'end of the program of a dead worker')
    guest.wait_log(r'pv-victim')
    check_others_go_on(guest)
    pv.check(alive(guest, 'pv-other'), 'another program ended with it')
    pv.check([c for c in guest.control.contexts('pv-other') if c['pid'] == other['pid']],
             'the other worker is gone')
    guest.run('kill $(cat /tmp/pv-other.pid)')
    pv.wait_until(lambda: not guest.control.contexts('pv-other'), 30, 'end of the other context')


def test_stopped_under_load(guest):
    """SIGSTOP of a worker that draws: it is named, its program gives up, others draw on."""
    held = start_loop(guest, 'pv-held')
    free = start_loop(guest, 'pv-free')
    guests.stop(held['pid'])
    for _ in range(4):
        before = pv.cpu_ticks(free['pid'])
        time.sleep(2)
        pv.check(pv.cpu_ticks(free['pid']) > before + 5, 'another context does not draw meanwhile')
    named = guest.wait_log(rf'.*pv-held.*\(pid {held["pid"]}\) has not answered.*', 1)
    pv.say(named.group(0))
    pv.wait_until(lambda: not alive(guest, 'pv-held'), 60, 'end of the program of a stopped worker')
    pv.say(guest.run('tail -n 1 /tmp/pv-held.out'))
    with contextlib.suppress(ProcessLookupError):
        guests.go_on(held['pid'])
    pv.wait_until(lambda: not pv.exists(held['pid']), 30, 'end of the stopped worker')
    check_others_go_on(guest)
    pv.check(alive(guest, 'pv-free'), 'another program ended with it')
    guest.run('kill $(cat /tmp/pv-free.pid)')
    pv.wait_until(lambda: not guest.control.contexts('pv-'), 30, 'end of all contexts')


def test_setup_script(guest):
    """setup-debian.sh finds all that it would install, and says so; twice the same."""
    shutil.copy(os.path.join(pv.SOURCE, 'guest', 'setup-debian.sh'), guest.share)
    for _ in range(2):
        out = guest.run('/mnt/share/setup-debian.sh', 120)
        pv.check(re.search(r'^vulkan +Virtio-GPU Venus.*: fine$', out, re.M), f'it says:\n{out}')
        pv.check('...' not in out, f'it changed something:\n{out}')


def test_kernel_is_content(guest):
    """No hung task, no lost fence, no warning so far."""
    lines = guest.run('dmesg').splitlines()
    words = ['hung task', 'WARNING:', 'BUG:', 'Oops', 'timed out', 'rcu: INFO']
    bad = [i for i, line in enumerate(lines) if any(word in line for word in words)]
    if guest.stood_still > 5:  # the whole machine: the guest's kernel may say that, and nothing else
        pv.say(f'the machine stood still for {guest.stood_still:.0f} s')
        bad = [i for i in bad if not re.search(r'soft lockup|rcu: INFO', lines[i])]
    if bad:
        said = '\n'.join(lines[max(bad[0] - 3, 0):bad[0] + 40])
        raise pv.Failure(f'the guest kernel says in {len(bad)} lines\n{pv._indent(said, 44)}\n'
                         f'and the first of them is: {lines[bad[0]]}')


def test_device_reset(guest):
    """Unbind and bind the driver: the device starts again, Vulkan works."""
    out = guest.run('basename $(readlink -f /sys/class/drm/card0/device/..) 2>/dev/null; '
                    'ls /sys/bus/virtio/drivers/virtio_gpu | grep virtio')
    name = re.search(r'^virtio\d+$', out, re.M).group(0)
    guest.run('systemctl stop getty@tty1 2>/dev/null; echo 0 >/sys/class/vtconsole/vtcon1/bind; '
              f'echo {name} >/sys/bus/virtio/drivers/virtio_gpu/unbind', 30)
    guest.run(f'echo {name} >/sys/bus/virtio/drivers/virtio_gpu/bind', 30)
    pv.wait_until(lambda: guest.finish(guest.start('ls /dev/dri/renderD*'))[0] == 0, 15,
                  'the render node after the reset')
    check_others_go_on(guest)


def main():
    tests = [test_vulkaninfo, test_rendering, test_memory_and_sync, test_explicit_sync,
             test_kms, test_console_screenshot, test_resize, test_suspended_worker, test_killed_worker,
             test_stopped_under_load, test_setup_script, test_kernel_is_content,
             test_device_reset]
    guest = guests.Guest()
    guests.main(guest, *tests)


if __name__ == '__main__':
    try:
        main()
    except pv.Skip as why:
        print(f'skipped: {why}')
        raise SystemExit(77) from None
