#!/usr/bin/env python3
"""The VNC server against real clients: pictures, cursors, sizes, keys and pointers."""
import contextlib
import os
import re
import signal
import struct
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(1, os.path.join(HERE, '..', 'virtio'))

from device import Device, read_png  # first: it finds pv.py

import edid
import pv
from frontend import Frontend
from gpu import Gpu
from picture import noise, patch, rgb
from viewing import Qmp, View
from vnc import Client, Raw

WIDTH, HEIGHT = 320, 200
RICH_CURSOR, EXTENDED_SIZE = -239, -308
SHIFT, ALTGR, CONTROL, RETURN, CAPS = 0xffe1, 0xfe03, 0xffe3, 0xff0d, 0xffe5


class Guest:
    """A device, a driver with a screen full of noise, a monitor, and a VNC server."""

    def __init__(self, *args, address='', width=WIDTH, height=HEIGHT):
        self.args, self.address = args, address
        self.width, self.height = width, height
        self.device_dies = False

    def __enter__(self):
        with contextlib.ExitStack() as stack:
            self.dev = stack.enter_context(Device(vulkan=False))
            vm = Frontend(self.dev.socket)
            self.gpu = Gpu(vm.__enter__())
            stack.push(lambda *error: self._leave(vm, error))
            self.qmp = stack.enter_context(Qmp())
            self.show(self.width, self.height)
            display = f'vnc:{self.address}' if self.address else 'vnc'
            self.view = stack.enter_context(
                View(self.dev, display, '--qmp', self.qmp.path, '--no-password', *self.args))
            self.where = self.view.wait_for(r'vnc: listening on (\S+)')[1]
            self._stack = stack.pop_all()
        self.host, _, port = self.where.rpartition(':')
        self.port = int(port) if port.isdigit() else 0
        return self

    def __exit__(self, *error):
        return self._stack.__exit__(*error)

    def _leave(self, vm, error):
        try:
            return vm.__exit__(*error)
        except (OSError, pv.Failure):
            if not self.device_dies:
                raise
            return False

    def show(self, width, height, seed=1):
        """A new screen of that size; self.rows is what is to be seen."""
        self.width, self.height = width, height
        self.resource, self.backing = self.gpu.framebuffer(width, height)
        self.draw(noise(width, height, seed))

    def draw(self, pixels):
        self.gpu.draw(self.resource, self.backing, pixels, (0, 0, self.width, self.height))
        self.rows = rgb(pixels, self.width, self.height, 2)

    def client(self, *args):
        return Client(self.host or self.where, self.port, *args)


def photo(width, height):
    """Soft colours: what a lossy encoding is for."""
    out = bytearray()
    for y in range(height):
        for x in range(width):
            out += bytes((x * 255 // width, y * 255 // height, (x + y) * 255 // (width + height), 0))
    return bytes(out)


def difference(rows, others):
    """The largest one of any channel."""
    return max(max(abs(a - b) for a, b in zip(row, other)) for row, other in zip(rows, others))


def every_encoding():
    with Guest() as guest:
        for encoding in ('raw', 'hextile', 'zlib', 'zrle', 'tight', 'rre', 'corre', 'ultra'):
            with guest.client('-e', encoding, '-q', '10') as client:
                client.wait_picture(guest.rows, f'{encoding}, first frame')
                guest.draw(noise(guest.width, guest.height, seed=len(encoding)))
                client.wait_picture(guest.rows, f'{encoding}, second frame')


def tight_jpeg():
    with Guest() as guest:
        guest.draw(photo(WIDTH, HEIGHT))
        with guest.client('-e', 'tight', '-q', '8') as client:
            pv.wait_until(lambda: client.picture()[3] > 0, 10, 'a frame')
            worst = difference(client.picture()[2], guest.rows)
            pv.say(f'JPEG of quality 8 is off by {worst} at most')
            pv.check(0 < worst < 24, f'JPEG is off by {worst}')


def vncsnapshot():
    """Somebody else's client; its picture is a JPEG of the best quality."""
    program = pv.MACHINE.program('vncsnapshot')
    with Guest(address='127.0.0.1:5931') as guest:
        guest.draw(photo(WIDTH, HEIGHT))
        path = os.path.join(guest.view.folder, 'picture.jpg')
        ran = subprocess.run([program, '-quality', '100', ':31', path], capture_output=True,
                             text=True, timeout=60)
        pv.check_equal(ran.returncode, 0, f'vncsnapshot: {ran.stderr}')
        jpeg = subprocess.run([pv.MACHINE.program('pv-jpeg'), path], capture_output=True)
        size, _, data = jpeg.stdout.partition(b'\n')
        pv.check_equal(tuple(map(int, size.split())), (WIDTH, HEIGHT), 'size of the snapshot')
        rows = [data[3 * WIDTH * y:3 * WIDTH * (y + 1)] for y in range(HEIGHT)]
        worst = difference(rows, guest.rows)
        pv.check(worst <= 12, f'the snapshot is off by {worst}')


def damage_only():
    """A small change is a small update, and lands where it belongs."""
    with Guest() as guest, guest.client() as client:
        client.wait_picture(guest.rows, 'all of it')
        data = bytearray(noise(WIDTH, HEIGHT))
        for y in range(40, 50):
            data[4 * (WIDTH * y + 100):4 * (WIDTH * y + 120)] = b'\x10\x20\x30\0' * 20
        guest.gpu.write_backing(guest.backing, bytes(data))
        guest.gpu.transfer(guest.resource, (100, 40, 20, 10), offset=4 * (WIDTH * 40 + 100))
        guest.gpu.flush(guest.resource, (100, 40, 20, 10))
        wanted = patch(guest.rows, 100, 40, [b'\x30\x20\x10' * 20] * 10)
        client.wait_picture(wanted, 'with the patch')


def cursor_image(width, height):
    """BGRA of 64x64, colours multiplied by alpha: an opaque block with a half-transparent border."""
    out = bytearray(64 * 64 * 4)
    for y in range(height):
        for x in range(width):
            edge = x == width - 1 or y == height - 1
            out[4 * (64 * y + x):4 * (64 * y + x) + 4] = \
                b'\x08\x10\x18\x20' if edge else bytes((x * 9 % 256, y * 9 % 256, 200, 255))
    return bytes(out)


def cursor_shape():
    with Guest() as guest, guest.client() as client:
        client.wait_picture(guest.rows, 'a frame')
        resource = guest.gpu.create_2d(64, 64, 1)
        backing = guest.gpu.backing(64 * 64 * 4)
        guest.gpu.attach(resource, backing)
        guest.gpu.write_backing(backing, cursor_image(12, 20))
        guest.gpu.transfer(resource, (0, 0, 64, 64))
        guest.gpu.update_cursor(0, resource, 50, 60, hot_x=3, hot_y=4)
        pv.wait_until(lambda: client.cursor()[:4] == (11, 19, 3, 4), 10,
                      f'the cursor (it is {client.cursor()[:6]})')
        width, height, _, _, _, _, pixels, mask = client.cursor()
        pv.check_equal(mask, b'\1' * (width * height), 'mask')
        x, y = 5, 7
        at = 3 * (width * y + x)
        pv.check_equal(pixels[at:at + 3], bytes((200, y * 9, x * 9)), 'a pixel of the cursor')
        guest.gpu.move_cursor(0, 100, 90)
        pv.wait_until(lambda: client.cursor()[4:6] == (103, 94), 10,
                      f'the cursor elsewhere (it is {client.cursor()[:6]})')
        guest.gpu.update_cursor(0, 0)
        with Raw(guest.port) as raw:
            width, height = raw.start()
            raw.set_encodings(0, RICH_CURSOR)
            raw.request(1, 1)
            kind, count, *shape = struct.unpack('>BxH4Hi', raw.read(16))
            pv.check_equal((kind, shape), (0, [0, 0, 0, 0, RICH_CURSOR]), 'a hidden cursor')


def cursor_in_the_picture():
    """For a client that draws none itself."""
    with Guest() as guest:
        guest.draw(bytes(4 * WIDTH * HEIGHT))
        resource = guest.gpu.create_2d(64, 64, 1)
        backing = guest.gpu.backing(64 * 64 * 4)
        guest.gpu.attach(resource, backing)
        guest.gpu.write_backing(backing, b'\x10\x20\x30\xff' * 64 * 64)
        guest.gpu.transfer(resource, (0, 0, 64, 64))
        guest.gpu.update_cursor(0, resource, 50, 60)
        with Raw(guest.port) as raw:
            size = raw.start()
            raw.set_encodings(0)
            raw.request(*size)
            wanted = patch(guest.rows, 50, 60, [b'\x30\x20\x10' * 64] * 64)

            def seen():
                rows = raw.update()
                raw.request(*size)
                return rows == wanted
            pv.wait_until(seen, 10, 'the cursor in the picture')


def guest_resizes():
    with Guest() as guest, guest.client('-e', 'zrle') as client, Raw(guest.port) as old:
        client.wait_picture(guest.rows, 'small')
        size = old.start()
        old.set_encodings(0)
        old.request(*size)
        pv.check_equal(old.update(), guest.rows, 'what a client without sizes sees')
        old.request(*size, incremental=True)
        for width, height in ((641, 479), (64, 64), (1024, 768), (300, 100)):
            guest.show(width, height, seed=width)
            client.wait_picture(guest.rows, f'{width}x{height}')
        pv.check(old.ended(), 'a client that cannot follow is still connected')
        guest.gpu.set_scanout(0, 0, (0, 0, 0, 0))
        client.wait_picture([bytes(3 * 300)] * 100, 'blank')
        guest.show(320, 200)
        client.wait_picture(guest.rows, 'on again')


def client_resizes():
    with Guest() as guest, guest.client() as client:
        client.wait_picture(guest.rows, 'a frame')
        client.do('size', 800, 600)
        pv.wait_until(lambda: guest.gpu.display_info()[0][2:4] == (800, 600), 10,
                      'the size that the guest is offered')
        pv.check_equal(edid.preferred(guest.gpu.edid(0))[:2], (800, 600), 'the size in the EDID')
        guest.show(800, 600)
        client.wait_picture(guest.rows, 'the new size')
        client.do('size', 800, 600)  # as it is
        client.do('size', 10, 20000)  # nobody's size
        guest.draw(noise(800, 600, seed=9))
        client.wait_picture(guest.rows, 'still the same size')
        pv.check_equal(guest.gpu.display_info()[0][2:4], (800, 600), 'offered size')


class Sizes(Raw):
    """A client that is told sizes, with a status when it has asked for them."""

    def start(self):
        size = super().start()
        self.set_encodings(0, EXTENDED_SIZE)
        self.request(*size)
        return size

    def ask(self, width, height):
        self.send(struct.pack('>BxHHBxIHHHHI', 251, width, height, 1, 0, 0, 0, width, height, 0))

    def next_size(self):
        """(reason, status, width, height) of the next update that is about a size."""
        while True:
            kind, count, reason, status, width, height, encoding = \
                struct.unpack('>BxH4Hi', self.read(16))
            pv.check_equal((kind, count), (0, 1), 'an update')
            if encoding == EXTENDED_SIZE:
                self.read(4 + 16)
            else:
                self.read(4 * width * height)
            self.request(1, 1, incremental=True)
            if encoding == EXTENDED_SIZE:
                return reason, status, width, height


def sizes_are_answered():
    """Whether the guest follows soon, late, or never could."""
    with Guest() as guest, Sizes(guest.port) as client:
        client.start()
        pv.check_equal(client.next_size(), (0, 0, WIDTH, HEIGHT), 'the size at first')
        client.ask(10, 20000)
        pv.check_equal(client.next_size(), (1, 3, WIDTH, HEIGHT), 'a size that no screen has')
        client.ask(800, 600)
        pv.wait_until(lambda: guest.gpu.display_info()[0][2:4] == (800, 600), 10, 'the offer')
        guest.show(800, 600)
        pv.check_equal(client.next_size(), (1, 0, 800, 600), 'a size that the guest took')
        start = time.monotonic()
        client.ask(1000, 500)
        pv.check_equal(client.next_size(), (1, 4, 800, 600), 'a size that the guest has not taken')
        seconds = time.monotonic() - start
        pv.check(1 < seconds < 5 * pv.SLOW, f'the answer came after {seconds:.1f} s')
        guest.show(1000, 500)
        pv.check_equal(client.next_size(), (0, 0, 1000, 500), 'what it took later')


def resize_storm():
    """Sizes faster than anybody can follow; what remains is right."""
    with Guest() as guest, guest.client('-e', 'tight', '-q', '10') as client, \
            guest.client('-e', 'zlib') as other:
        for i in range(60):
            guest.show(65 + 37 * i % 900, 64 + 91 * i % 700, seed=i)
            if i % 7 == 0:
                client.do('size', 100 + i, 200 + i)
        client.wait_picture(guest.rows, 'after the storm')
        other.wait_picture(guest.rows, 'after the storm, other client')


def keys_by_symbol():
    with Guest() as guest, guest.client() as client:
        client.type(ord('a'))
        guest.qmp.wait_keys(('a', True), ('a', False))
        client.type(ord('A'))  # with the client's caps lock: no Shift of its own
        guest.qmp.wait_keys(('shift', True), ('a', True), ('shift', False), ('a', False))
        client.key(SHIFT, True)
        client.type(ord('!'), ord('1'))
        client.key(SHIFT, False)
        guest.qmp.wait_keys(('shift', True), ('1', True), ('1', False),
                            ('shift', False), ('1', True), ('shift', True), ('1', False),
                            ('shift', False))
        client.type(CAPS, 0xff7f, 0x10020ac)  # caps lock, num lock, the euro sign: not on this one
        client.type(RETURN)
        guest.qmp.wait_keys(('ret', True), ('ret', False))


def keys_by_position():
    with Guest() as guest, guest.client() as client:
        client.wait_picture(guest.rows, 'a frame')
        for code, name in ((0x1e, 'a'), (0x56, 'less'), (0x9d, 'ctrl_r'), (0xb8, 'alt_r'),
                           (0xdb, 'meta_l'), (0xc8, 'up'), (0x54, 'print'), (0xb7, 'print')):
            for down in (1, 0):
                client.do('xtkey', '0', f'{code:x}', down)
            guest.qmp.wait_keys((name, True), (name, False))
        client.do('xtkey', '0', '0', 1)
        client.do('xtkey', '0', 'ffffff', 1)
        client.do('xtkey', '0', '1f', 1)
        client.do('xtkey', '0', '1f', 1)  # auto-repeat
        client.do('xtkey', '0', '1f', 0)
        guest.qmp.wait_keys(('s', True), ('s', False))
        for _ in range(2):
            for down in (1, 0):
                client.do('xtkey', '0', '3a', down)
            client.type(ord('A'))  # by symbol, as another client may
        guest.qmp.wait_keys(('caps_lock', True), ('caps_lock', False), ('a', True), ('a', False),
                            ('caps_lock', True), ('caps_lock', False),
                            ('shift', True), ('a', True), ('shift', False), ('a', False))


def german_keys():
    with Guest('--keymap', 'de') as guest, guest.client() as client:
        client.type(ord('z'))
        guest.qmp.wait_keys(('y', True), ('y', False))
        client.key(ALTGR, True)
        client.type(ord('@'))
        client.key(ALTGR, False)
        guest.qmp.wait_keys(('alt_r', True), ('q', True), ('q', False), ('alt_r', False))
        client.type(ord('@'))  # made otherwise on the client's keyboard
        guest.qmp.wait_keys(('alt_r', True), ('q', True), ('alt_r', False), ('q', False))
        client.type(0xf6)  # o with dots
        guest.qmp.wait_keys(('semicolon', True), ('semicolon', False))


def pointer():
    with Guest() as guest, guest.client() as client:
        client.wait_picture(guest.rows, 'a frame')
        client.do('pointer', 0, 0, 0)
        guest.qmp.wait_pointer(0, 0, 0.0001)
        client.do('pointer', WIDTH - 1, HEIGHT - 1, 0)
        guest.qmp.wait_pointer(1, 1, 0.0001)
        client.do('pointer', 60000, 60000, 0)
        client.do('pointer', 160, 50, 1)
        guest.qmp.wait_pointer(160 / 319, 50 / 199, 0.0001)
        client.do('pointer', 160, 50, 0)
        client.do('pointer', 160, 50, 2)
        client.do('pointer', 160, 50, 6)
        client.do('pointer', 160, 50, 0)
        guest.qmp.wait_buttons(('left', True), ('left', False), ('middle', True), ('right', True),
                               ('middle', False), ('right', False))
        for button, name in ((8, 'wheel-up'), (16, 'wheel-down'), (32, 'wheel-left'),
                             (64, 'wheel-right')):
            client.do('pointer', 160, 50, button)
            client.do('pointer', 160, 50, 0)
            guest.qmp.wait_buttons((name, True), (name, False))


def two_at_once():
    """Two clients of one server, and one of another, each in its own way."""
    with Guest() as guest, View(guest.dev, 'vnc', '--no-password') as view:
        port = int(view.wait_for(r'listening on 127.0.0.1:(\d+)')[1])
        with guest.client('-e', 'zrle') as one, guest.client('-e', 'hextile') as two, \
                Client('127.0.0.1', port, '-e', 'raw') as three:
            for seed in range(4):
                guest.draw(noise(WIDTH, HEIGHT, seed))
                for client in (one, two, three):
                    client.wait_picture(guest.rows, f'frame {seed}')
            one.do('pointer', 10, 10, 1)
            pv.wait_until(lambda: guest.qmp.buttons() == [('left', True)], 10, 'a button')
            two.do('pointer', 99, 99, 0)  # while the first one drags
            two.type(ord('t'))
            guest.qmp.wait_keys(('t', True), ('t', False))
            pv.check_equal(guest.qmp.buttons(), [('left', True)], 'buttons while one drags')
            one.do('pointer', 20, 20, 0)
            guest.qmp.wait_buttons(('left', True), ('left', False))
            two.do('pointer', 319, 199, 0)
            guest.qmp.wait_pointer(1, 1, 0.0001)


def nothing_stays_pressed():
    with Guest() as guest:
        with guest.client() as client, guest.client() as other:
            client.wait_picture(guest.rows, 'a frame')
            client.key(CONTROL, True)
            client.key(ord('x'), True)
            client.do('pointer', 10, 10, 1)
            other.key(ord('y'), True)
            pv.wait_until(lambda: len(guest.qmp.keys()) == 3 and guest.qmp.buttons(), 10, 'presses')
            client.process.kill()
            pv.wait_until(lambda: len(guest.qmp.keys()) == 5, 10, 'releases')
            pv.check_equal(set(guest.qmp.keys()[3:]), {('ctrl', False), ('x', False)}, 'released')
            pv.wait_until(lambda: guest.qmp.buttons()[-1] == ('left', False), 10, 'button release')
            guest.view.process.terminate()
            pv.wait_until(lambda: guest.qmp.keys()[-1] == ('y', False), 10, 'release at the end')


def idle_costs_nothing():
    """An unchanged screen of 1280x800 with a client: under 2 % of a core for device and view."""
    if pv.SANITIZED:
        raise pv.Skip('a sanitizer measures itself')
    with Guest(width=1280, height=800) as guest, guest.client('-e', 'tight', '-q', '10') as client:
        client.wait_picture(guest.rows, 'a frame')
        time.sleep(0.5)
        pids = (guest.dev.pid, guest.view.pid)
        before, start = sum(map(pv.cpu_ticks, pids)), time.monotonic()
        time.sleep(8)
        percent = 100 * (sum(map(pv.cpu_ticks, pids)) - before) / pv.TICK / (time.monotonic() - start)
        pv.say(f'device and view take {percent:.2f} % of a core')
        pv.check(percent < 2, f'{percent:.2f} % of a core for an unchanged screen')


def png_files():
    """png:FILE at a signal and at the end."""
    with Guest() as guest:
        path = os.path.join(guest.dev.folder, 'out.png')
        with View(guest.dev, f'png:{path}') as view:
            view.wait_for('SIGUSR1 writes')

            def saved():
                view.process.send_signal(signal.SIGUSR1)
                time.sleep(0.1)
                return os.path.exists(path)
            pv.wait_until(saved, 10, 'a picture')
            pv.check_equal(read_png(path)[2], guest.rows, 'the picture')
            guest.draw(noise(WIDTH, HEIGHT, seed=2))
            time.sleep(0.5)
            pv.check_equal(view.stop(), 0, 'exit code of the view')
            pv.check_equal(read_png(path)[2], guest.rows, 'the last picture')


if __name__ == '__main__':
    pv.main(every_encoding, tight_jpeg, vncsnapshot, damage_only, cursor_shape,
            cursor_in_the_picture, guest_resizes, client_resizes, sizes_are_answered, resize_storm,
            keys_by_symbol, keys_by_position, german_keys, pointer, two_at_once,
            nothing_stays_pressed, idle_costs_nothing, png_files)
