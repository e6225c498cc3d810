#!/usr/bin/env python3
"""Displays of a real guest: what is typed, pointed at and asked for there gets to its programs, and back.

One boot with two displays. The console is enough of a screen for it, so a desktop is stopped first.
"""
import itertools
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile

import guest as guests
import pv
import test_gpu
import test_run

sys.path.insert(1, os.path.join(os.path.dirname(os.path.realpath(__file__)), '..', 'display'))
from test_window import Desktop, close_window  # noqa: E402
from vnc import Raw  # noqa: E402

ENTER = 0xff0d
EXTENDED_SIZE = -308
EV_ABS, ABS_MAX = 3, 32767
KEY_Z, BTN_LEFT = 44, 0x110


class Viewer(Raw):
    """A VNC client at a Unix socket."""

    def __init__(self, path):  # pylint: disable=super-init-not-called
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(20 * pv.SLOW)
        self.socket.connect(path)
        self.read(12)
        self.send(b'RFB 003.008\n')
        self.size = self.start()

    def key(self, symbol, down):
        self.send(struct.pack('>BBxxI', 4, down, symbol))

    def type(self, text):
        for symbol in [ENTER if c == '\n' else ord(c) for c in text]:
            self.key(symbol, True)
            self.key(symbol, False)

    def point(self, x, y, buttons=0):
        self.send(struct.pack('>BBHH', 5, buttons, x, y))

    def ask_size(self, width, height):
        self.send(struct.pack('>BxHHBxIHHHHI', 251, width, height, 1, 0, 0, 0, width, height, 0))


def view_pid(session_pid, kind):
    """The view process of a display."""
    for pid in pv.children(session_pid):
        with open(f'/proc/{pid}/cmdline') as file:
            words = file.read().split('\0')
        if 'view' in words[0] + words[1] and any(word.startswith(kind) for word in words):
            return pid
    raise pv.Failure(f'no view process for {kind}')


def screenshot(guest):
    """Rows of what is on the screen, by pearvisor screenshot."""
    path = os.path.join(guest.folder, 'screen.png')
    done = subprocess.run([pv.PEARVISOR, 'screenshot', '--control', guest.control_path, path],
                          capture_output=True, text=True)
    pv.check(done.returncode == 0 and not done.stderr, f'screenshot: {done.stderr}')
    return test_gpu.read_png(path)


def check_ready(guest):
    """Both displays have said where they are, and both look at the device."""
    guest.wait_log(r'vnc: listening on /\S+/vnc\n')
    url = guest.wait_log(r'web: (http://127\.0\.0\.1:\d+/\S*)').group(1)
    pv.say(url)
    lines = guest.run('grep Name /proc/bus/input/devices')
    for name in 'Virtio Keyboard', 'Virtio Tablet':
        pv.check(lines.count(name) == 1, f'input devices: {lines}')
    pv.check('AT ' not in lines and 'ImEx' not in lines, f'one keyboard too many: {lines}')
    pv.check('pearvisor.desktop=1' in guest.run('cat /proc/cmdline'), 'no word about the desktop')


def check_typing(guest, viewer):
    """A command that is typed at the display runs, and what it says is on the screen."""
    guest.run('systemctl stop desktop getty@tty1 2>/dev/null; '
              'setsid -f sh -c "exec sh -i </dev/tty1 >/dev/tty1 2>&1"; sleep 1')
    width, height, before = screenshot(guest)
    pv.check_equal((width, height), viewer.size, 'size of the VNC desktop')
    viewer.type('echo "It is $((6 * 7))" >/tmp/typed\n')
    pv.wait_until(lambda: '42' in guest.run('cat /tmp/typed 2>/dev/null || true'), 30,
                  'what the typed command writes')
    pv.check_equal(guest.run('cat /tmp/typed'), 'It is 42', 'what was typed')
    viewer.type('yes PearVisor | head -n 500 | tr "\\n" " "\n')
    pv.wait_until(lambda: test_gpu.lit(screenshot(guest)[2]) > test_gpu.lit(before) + 10000, 30,
                  'text on the screen')
    viewer.set_encodings(0)
    viewer.request(*viewer.size)
    _, _, rows = screenshot(guest)
    shown = viewer.update()
    same = sum(bytes(c for pixel in a for c in pixel[:3]) == b for a, b in zip(rows, shown))
    pv.check(same > height * 0.9, f'only {same} of {height} rows are the same by VNC')


class Events:
    """What a program in the guest reads from an input device."""

    def __init__(self, guest, name, poke):
        found = guest.run(f"sed -n '/Virtio {name}/,/Handlers/p' /proc/bus/input/devices")
        event = re.search(r'event\d+', found).group(0)
        self.path = os.path.join(guest.share, event)
        guest.run(f'timeout 60 cat /dev/input/{event} >/mnt/share/{event} &')

        def listens():
            poke()
            return self.get()
        pv.wait_until(listens, 20, f'the first event of the {name}')

    def get(self):
        """(type, code, value) of all so far."""
        try:
            with open(self.path, 'rb') as file:
                data = file.read()
        except FileNotFoundError:
            return []
        return [event[2:] for event in struct.iter_unpack('<qqHHi', data[:len(data) // 24 * 24])]

    def wait(self, wanted, what):
        pv.wait_until(lambda: wanted(self.get()), 15, what)


def check_held_key(guest, viewer, viewer_path):
    """A key that is held when its viewer goes is let go."""
    keyboard = Events(guest, 'Keyboard', lambda: viewer.type('q'))

    def seen(*wanted):
        return lambda found: [(code, value) for kind, code, value in found
                              if kind == 1 and code == KEY_Z and value < 2] == list(wanted)
    other = Viewer(viewer_path)
    other.key(ord('z'), True)
    keyboard.wait(seen((KEY_Z, 1)), 'the key')
    other.socket.close()
    keyboard.wait(seen((KEY_Z, 1), (KEY_Z, 0)), 'the key let go')


def check_pointer(guest, viewer):
    """The guest's pointer is where the viewer's is."""
    width, height = viewer.size
    places = itertools.count(10)
    tablet = Events(guest, 'Tablet', lambda: viewer.point(next(places), 10))
    viewer.point(width // 2, height // 4)
    viewer.point(width - 1, height // 4, 1)
    viewer.point(width - 1, height // 4, 0)

    def there(found):
        place = {code: value for kind, code, value in found if kind == EV_ABS}
        return abs(place.get(0, 0) - ABS_MAX) < 60 and abs(place.get(1, 0) - ABS_MAX / 4) < 60
    tablet.wait(there, 'the pointer in its place')
    tablet.wait(lambda found: [value for kind, code, value in found
                               if (kind, code) == (1, BTN_LEFT)] == [1, 0], 'the left button')


def check_resize(guest, viewer):
    """A viewer asks for another size, and that is what the guest is offered."""
    viewer.set_encodings(0, EXTENDED_SIZE)
    viewer.request(1, 1)  # no more than the server can send to who does not read
    viewer.ask_size(1024, 720)
    modes = 'cat /sys/class/drm/card*-Virtual-1/modes | head -n 1'
    pv.wait_until(lambda: guest.run(modes) == '1024x720', 20, 'the new size as the first mode')


def check_killed_view(guest):
    """A display that dies takes nothing with it."""
    os.kill(view_pid(guest.process.pid, 'web'), signal.SIGKILL)
    guest.wait_log('the display web was killed by signal 9')
    guest.run('true')


def test_closed_window():
    """Closing the only window ends the guest, even while it boots, and leaves nothing."""
    with Desktop() as desktop, test_run.Home() as home:
        session = test_run.run(home, '--snapshot', '--display', 'window', guests.IMAGE, stdin=None,
                               env=home.env(**desktop.env))
        pv.wait_until(lambda: 'window: open' in session.errors(), 30, 'the window')
        window = desktop.do('search', '--sync', '--name', guests.IMAGE).split()[0]
        pids = test_run.tree(session.process.pid)
        pv.check(len(pids) >= 4, f'too few processes: {pids}')
        close_window(desktop, window)
        session.check_code(0, 20)
        pv.check('the window was closed' in session.errors(), f'it says {session.errors()}')
        test_run.check_all_gone(home, pids)


def test_two_displays():
    """All of the above in one guest."""
    folder = tempfile.mkdtemp(prefix='pv-vnc.', dir='/tmp')
    path = os.path.join(folder, 'vnc')
    try:
        with guests.Guest('--display', f'vnc:{path}', '--display', 'web', '--keymap', 'us',
                          '--stats') as guest:
            check_ready(guest)
            with Viewer(path) as viewer:
                check_typing(guest, viewer)
                check_pointer(guest, viewer)
                check_held_key(guest, viewer, path)
                check_resize(guest, viewer)
                check_killed_view(guest)
                guest.wait_log(r'(?m)^screen 0: ')
            with Viewer(path):
                pass
        pv.check(not os.path.exists(path), 'the socket is left behind')
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == '__main__':
    pv.main(test_closed_window, test_two_displays)
