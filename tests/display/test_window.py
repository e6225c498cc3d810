#!/usr/bin/env python3
"""The window on the desktop: what it shows, pixel by pixel, and what it sends; under Xvfb."""
import contextlib
import ctypes
import mmap
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(1, os.path.join(HERE, '..', 'virtio'))

from device import Device  # first: it finds pv.py

import picture
import pv
from frontend import Frontend
from gpu import Gpu
from viewing import Qmp, View

WIDTH, HEIGHT = 640, 400
NAME = 'a guest'


# ---- a desktop ----


class Desktop:
    """An X server whose screen is a file, and somebody who types and points."""

    SIZE = 1600, 1200

    def __enter__(self):
        for tool in ('Xvfb', 'xdotool'):
            if not shutil.which(tool):
                raise pv.Skip(f'no {tool} here: install the package xvfb or xdotool')
        self.folder = tempfile.mkdtemp(prefix='pv-x.', dir='/tmp')
        reading, writing = os.pipe()
        self.process = subprocess.Popen(
            ['Xvfb', '-displayfd', str(writing), '-fbdir', self.folder, '-nolisten', 'tcp',
             '-screen', '0', f'{self.SIZE[0]}x{self.SIZE[1]}x24'],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            pass_fds=[writing], start_new_session=True)
        pv._started.append(self.process)
        os.close(writing)
        with os.fdopen(reading) as file:
            self.env = {'DISPLAY': ':' + file.readline().strip(), 'WAYLAND_DISPLAY': '',
                        'SDL_RENDER_DRIVER': 'software'}
        pv.check(self.env['DISPLAY'] != ':', 'Xvfb does not start')
        return self

    def __exit__(self, *error):
        self.process.terminate()
        self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)
        return False

    def do(self, *args):
        """xdotool."""
        done = subprocess.run(['xdotool', *map(str, args)], env={**os.environ, **self.env},
                              capture_output=True, text=True)
        pv.check(done.returncode == 0, f'xdotool {args}: {done.stderr}')
        return done.stdout

    def cut(self, x, y, width, height):
        """Rows of RGB of a part of the screen."""
        with open(os.path.join(self.folder, 'Xvfb_screen0'), 'rb') as file, \
                mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as data:
            head = struct.unpack_from('>25I', data)
            depth, bits, stride, colors = head[3], head[11], head[12], head[19]
            pv.check(depth == 24 and bits == 32, f'a screen of {depth} and {bits} bits')
            start = head[0] + 12 * colors
            rows = []
            for row in range(y, y + height):
                at = start + row * stride + 4 * x
                line, out = data[at:at + 4 * width], bytearray(3 * width)
                for channel in range(3):
                    out[channel::3] = line[2 - channel::4]
                rows.append(bytes(out))
            return rows


class Window:
    """A device, a driver with a screen, a monitor, and the window."""

    def __init__(self, width=WIDTH, height=HEIGHT):
        self.width, self.height = width, height

    def __enter__(self):
        with contextlib.ExitStack() as stack:
            self.desktop = stack.enter_context(Desktop())
            self.dev = stack.enter_context(
                Device('--resolution', f'{self.width}x{self.height}', vulkan=False))
            self.gpu = Gpu(stack.enter_context(Frontend(self.dev.socket)))
            self.qmp = stack.enter_context(Qmp())
            self.view = stack.enter_context(View(self.dev, 'window', '--qmp', self.qmp.path,
                                                 '--name', NAME, env=self.desktop.env))
            self.view.wait_for('window: open')
            self.id = self.desktop.do('search', '--sync', '--name', NAME).split()[0]
            self.show(self.width, self.height)
            self.desktop.do('windowfocus', '--sync', self.id)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error):
        return self._stack.__exit__(*error)

    def show(self, width, height, seed=1):
        """A picture of this size in the guest; its rows of RGB."""
        self.resource, self.backing = self.gpu.framebuffer(width, height)
        return self.draw(picture.noise(width, height, seed), width, height)

    def draw(self, pixels, width, height, rect=None):
        rect = rect or (0, 0, width, height)
        self.gpu.draw(self.resource, self.backing, pixels, rect, 4 * (rect[1] * width + rect[0]))
        return picture.rgb(pixels, width, height, 2)

    def place(self):
        """(x, y, width, height)"""
        words = dict(line.split('=') for line in
                     self.desktop.do('getwindowgeometry', '--shell', self.id).split())
        return tuple(int(words[name]) for name in ('X', 'Y', 'WIDTH', 'HEIGHT'))

    def wait_size(self, width, height):
        pv.wait_until(lambda: self.place()[2:] == (width, height), 10,
                      f'a window of {width}x{height}; it has {self.place()[2:]}')

    def wait_shown(self, rows, what, at=(0, 0)):
        """Until the desktop shows rows of RGB at a place of the window."""
        x, y = self.place()[:2]
        area = x + at[0], y + at[1], len(rows[0]) // 3, len(rows)
        pv.wait_until(lambda: self.desktop.cut(*area) == rows, 10, f'{what} in the window')

    def close(self):
        close_window(self.desktop, self.id)


def close_window(desktop, window):
    """What a window manager does when its button for that is pressed."""
    x11 = ctypes.CDLL('libX11.so.6')
    x11.XOpenDisplay.restype = ctypes.c_void_p
    x11.XInternAtom.restype = ctypes.c_ulong
    display = ctypes.c_void_p(x11.XOpenDisplay(desktop.env['DISPLAY'].encode()))
    atom = [x11.XInternAtom(display, name, 0) for name in (b'WM_PROTOCOLS', b'WM_DELETE_WINDOW')]
    event = struct.pack('@iLiPLLi5l', 33, 0, 1, 0, int(window), atom[0], 32, atom[1], 0, 0, 0, 0)
    x11.XSendEvent(display, ctypes.c_ulong(int(window)), 0, ctypes.c_long(0), event.ljust(192, b'\0'))
    x11.XSync(display, 0)
    x11.XCloseDisplay(display)


# ---- tests ----


def test_picture():
    """All of a frame, a small part of one, and the cursor's absence from it."""
    with Window() as window:
        first = picture.noise(WIDTH, HEIGHT, 5)
        window.wait_size(WIDTH, HEIGHT)
        window.wait_shown(window.draw(first, WIDTH, HEIGHT), 'a frame')
        second = picture.noise(WIDTH, HEIGHT, 6)
        part = (37, 41, 19, 23)
        window.draw(second, WIDTH, HEIGHT, part)
        wanted = picture.patch(picture.rgb(first, WIDTH, HEIGHT, 2), part[0], part[1],
                               picture.cut(picture.rgb(second, WIDTH, HEIGHT, 2), *part))
        window.wait_shown(wanted, 'a part of a frame')
        window.gpu.set_scanout(0, 0, (0, 0, 0, 0))
        window.wait_shown([bytes(3 * WIDTH)] * HEIGHT, 'a blank screen')


def test_sizes():
    """The window follows the guest; once the user has chosen a size, the guest is asked for it."""
    with Window() as window:
        rows = window.show(500, 300, 2)
        window.wait_size(500, 300)
        window.wait_shown(rows, 'a smaller screen')

        window.desktop.do('windowsize', window.id, 800, 700)
        pv.wait_until(lambda: window.gpu.display_info()[0][2:4] == (800, 700), 10,
                      f'the offer of 800x700; it is {window.gpu.display_info()[0]}')
        rows = window.show(800, 700, 3)
        window.wait_shown(rows, 'the size asked for')

        # the guest does as it likes: bars, and the picture in the middle
        rows = window.show(400, 200, 4)
        doubled = [b''.join(row[x:x + 3] * 2 for x in range(0, len(row), 3))
                   for row in rows for _ in range(2)]
        wanted = [bytes(2400)] * 150 + doubled + [bytes(2400)] * 150
        window.wait_shown(wanted, 'another size, doubled')
        window.wait_size(800, 700)


def test_resize_storm():
    """The guest is asked once, for the last size."""
    with Window() as window:
        window.wait_size(WIDTH, HEIGHT)
        for i in range(40):
            window.desktop.do('windowsize', window.id, 300 + 10 * i, 200 + 5 * i)
        pv.wait_until(lambda: window.gpu.display_info()[0][2:4] == (690, 395), 10,
                      'the offer of the last size')
        window.wait_shown(window.show(690, 395, 7), 'the last size')


def test_keys():
    """By position; auto-repeat is left out; what is held is let go with the focus."""
    with Window() as window:
        window.desktop.do('key', 'a')
        window.qmp.wait_keys(('a', True), ('a', False))
        window.desktop.do('keydown', 'Shift_L', 'key', 'b', 'keyup', 'Shift_L')
        window.qmp.wait_keys(('shift', True), ('b', True), ('b', False), ('shift', False))
        window.desktop.do('key', 'Return', 'key', 'Left', 'key', 'F5', 'key', 'KP_Enter')
        window.qmp.wait_keys(*[(name, down) for name in ('ret', 'left', 'f5', 'kp_enter')
                               for down in (True, False)])
        window.desktop.do('keydown', 'x')
        time.sleep(1.2)  # the X server repeats it
        window.desktop.do('keyup', 'x')
        window.qmp.wait_keys(('x', True), ('x', False))

        window.desktop.do('keydown', 'Control_L', 'keydown', 'k')
        window.qmp.wait_keys(('ctrl', True), ('k', True))
        root = window.desktop.do('search', '--maxdepth', 0, '').split()[0]
        window.desktop.do('windowfocus', root)
        pv.wait_until(lambda: len(window.qmp.keys()) >= window.qmp._keys_seen + 2, 10, 'the release')
        released = set(window.qmp.keys()[window.qmp._keys_seen:])
        pv.check_equal(released, {('ctrl', False), ('k', False)}, 'what is let go')


def test_fullscreen_key():
    """Ctrl+Alt+F is the window's own."""
    with Window() as window:
        window.desktop.do('keydown', 'Control_L', 'keydown', 'Alt_L', 'key', 'f', 'keyup', 'Alt_L',
                          'keyup', 'Control_L')
        window.desktop.do('windowfocus', window.id, 'key', 'q')
        pv.wait_until(lambda: ('q', False) in window.qmp.keys(), 10, 'the next key')
        keys = window.qmp.keys()
        pv.check('f' not in [name for name, _ in keys], f'the guest got {keys}')
        held = {name for name, down in keys if down} - {name for name, down in keys if not down}
        pv.check(not held, f'still held: {held}')


def test_pointer():
    """Where it points, also in a window of another shape; buttons and wheel."""
    with Window() as window:
        window.wait_size(WIDTH, HEIGHT)
        x, y = window.place()[:2]
        for px, py in [(320, 100), (639, 399), (0, 0)]:
            window.desktop.do('mousemove', x + px, y + py)
            window.qmp.wait_pointer(px / (WIDTH - 1), py / (HEIGHT - 1), 0.003)
        window.desktop.do('click', 1, 'click', 3)
        window.qmp.wait_buttons(('left', True), ('left', False), ('right', True), ('right', False))
        window.desktop.do('click', 5)
        window.qmp.wait_wheel('wheel-down')
        window.desktop.do('click', 4)
        window.qmp.wait_wheel('wheel-up')

        # 800x800: bars of 150 above and below
        window.desktop.do('windowsize', window.id, 800, 800)
        window.wait_size(800, 800)
        for py, where in [(150, 0), (400, 0.5), (649, 1), (10, 0), (760, 1)]:
            window.desktop.do('mousemove', x + 200, y + py)
            window.qmp.wait_pointer(0.25, where, 0.005)


def test_cursor():
    """The desktop's pointer looks like the guest's; wild ones do no harm."""
    with Window() as window:
        cursor = window.gpu.create_2d(64, 64, 1)
        backing = window.gpu.backing(64 * 64 * 4)
        window.gpu.attach(cursor, backing)

        def look_like(pixels, hot_x, hot_y):
            window.gpu.write_backing(backing, pixels)
            window.gpu.transfer(cursor, (0, 0, 64, 64))
            window.gpu.update_cursor(0, cursor, 10, 10, hot_x, hot_y)
        opaque = bytearray(picture.noise(64, 64, 11))
        opaque[3::4] = bytes([255]) * 4096
        look_like(opaque, 5, 9)
        x, y = window.place()[:2]
        window.desktop.do('mousemove', x + 300, y + 200)
        rows = window.show(WIDTH, HEIGHT, 12)
        window.wait_shown(picture.patch(rows, 295, 191, picture.rgb(opaque, 64, 64, 2)),
                          'the pointer over a frame')
        window.gpu.update_cursor(0, 0)
        window.wait_shown(rows, 'a hidden pointer over a frame')
        for seed in range(5):
            look_like(picture.noise(64, 64, seed), 63 * (seed % 2), 1000 * seed)
        window.gpu.update_cursor(0, 0)
        window.wait_shown(window.show(WIDTH, HEIGHT, 13), 'a frame after that')


def test_close():
    """Closing the window ends the view, and not with an error."""
    with Window() as window:
        window.close()
        pv.check_equal(window.view.wait_end(), 0, 'exit code')
    with Desktop() as desktop, Device(vulkan=False) as dev:
        with View(dev, 'window', env=desktop.env) as view:
            view.wait_for('window: open')
            pv.check_equal(dev.stop(), 0, 'exit code of the device')
            pv.check_equal(view.wait_end(), 0, 'exit code without a device')


def test_idle():
    """An unchanged screen costs next to nothing."""
    with Window() as window:
        window.wait_size(WIDTH, HEIGHT)
        time.sleep(1.5)
        before, seconds = pv.cpu_ticks(window.view.pid), 5
        time.sleep(seconds)
        share = (pv.cpu_ticks(window.view.pid) - before) / os.sysconf('SC_CLK_TCK') / seconds
        pv.say(f'{100 * share:.1f} % of a CPU')
        pv.check(share < 0.01 * pv.SLOW, f'{100 * share:.1f} % of a CPU for nothing')


def test_no_desktop():
    """Without a desktop: one clear line."""
    with Device(vulkan=False) as dev:
        done = subprocess.run(
            [pv.PEARVISOR, 'view', '--control', dev.control, 'window'], capture_output=True,
            text=True, timeout=20, env={name: value for name, value in os.environ.items()
                                        if name not in ('DISPLAY', 'WAYLAND_DISPLAY')})
        lines = done.stderr.splitlines()
        pv.check_equal(done.returncode, 1, 'exit code')
        pv.check(len(lines) == 1 and 'no desktop' in lines[0], f'it says {lines}')
        view = View(dev, 'window', env={'DISPLAY': ':4711'})
        with view:
            pv.check_equal(view.wait_end(), 1, 'exit code with a wrong DISPLAY')
            lines = view.log().splitlines()
            pv.check(len(lines) == 1 and 'desktop' in lines[0], f'it says {lines}')


if __name__ == '__main__':
    pv.main(test_picture, test_sizes, test_resize_storm, test_keys, test_fullscreen_key,
            test_pointer, test_cursor, test_close, test_idle, test_no_desktop)
