"""A viewer of the device's screens (src/display/screen.h): what it is told, and what it sees.

    with Viewer(dev) as viewer:
        viewer.wait_frame()
        rows = viewer.rgb()
"""
import array
import json
import mmap
import os
import socket
import struct
import time

import pv

MODE, PICTURE, FRAME, CURSOR = range(1, 5)
TAKEN, SIZE = 64, 65
VISIBLE, IMAGE = 1, 2

MESSAGE = struct.Struct('<7Iii2I4I4xQQ')  # type … flags, x, y, hot_x, hot_y, damage, serial, time_ns
CURSOR_SIDE = 64


class Message:
    def __init__(self, data):
        (self.type, self.payload_size, self.scanout, self.count, self.width, self.height,
         self.flags, self.x, self.y, self.hot_x, self.hot_y, *self.damage, self.serial,
         self.time_ns) = MESSAGE.unpack(data)
        self.damage = tuple(self.damage)
        self.payload = b''
        self.received_ns = time.monotonic_ns()


def message(kind, scanout=0, width=0, height=0, serial=0, payload_size=0):
    return MESSAGE.pack(kind, payload_size, scanout, 0, width, height, 0, 0, 0, 0, 0, 0, 0, 0, 0,
                        serial, 0)


class Screen:
    """One scanout as a viewer sees it."""

    def __init__(self):
        self.mode = None
        self.size = None  # of the picture; (0, 0): blank
        self.map = None
        self.copy = b''  # B8G8R8X8, only what was damaged is copied
        self.stride = 0
        self.frames = 0
        self.last = None  # FRAME
        self.serial = 0   # of the FRAME that is to be TAKEN; 0: none
        self.cursor = None
        self.cursor_image = b''


class Viewer:
    def __init__(self, dev, take=True):
        """take=False: frames are not answered until take() is called."""
        self.takes = take
        self.screens = {}
        self.count = None
        self.ended = False
        self._data = b''
        self._fds = []
        with socket.socket(socket.AF_UNIX) as control:
            control.settimeout(20 * pv.SLOW)
            control.connect(dev.control)
            control.sendall(b'{"command": "view"}\n')
            line, fds = b'', array.array('i')
            while not line.endswith(b'\n'):
                data, ancillary, _, _ = control.recvmsg(4096, socket.CMSG_SPACE(16),
                                                        socket.MSG_CMSG_CLOEXEC)
                pv.check(data, 'the control socket closes instead of an answer to view')
                line += data
                for _, _, content in ancillary:
                    fds.frombytes(content)
        self.answer = json.loads(line)
        if not self.answer.get('ok'):
            raise pv.Failure(f'view: {self.answer}')
        pv.check_equal(len(fds), 1, 'fds that come with the answer to view')
        self.socket = socket.socket(fileno=fds[0])
        self.socket.settimeout(20 * pv.SLOW)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()

    def close(self):
        self.socket.close()
        for fd in self._fds:
            os.close(fd)
        self._fds = []

    def screen(self, scanout=0):
        return self.screens.setdefault(scanout, Screen())

    def send(self, data):
        self.socket.sendall(data)

    def ask_size(self, width, height, scanout=0):
        self.send(message(SIZE, scanout, width, height))

    # ---- what comes ----

    def receive(self, seconds=20):
        """The next message, or None when none comes."""
        end = time.monotonic() + seconds * pv.SLOW
        while True:
            got = self._cut()
            if got:
                self._handle(got)
                return got
            left = end - time.monotonic()
            if left <= 0 or self.ended:
                return None
            self.socket.settimeout(left)
            try:
                data, ancillary, _, _ = self.socket.recvmsg(
                    65536, socket.CMSG_SPACE(64), socket.MSG_CMSG_CLOEXEC)
            except TimeoutError:
                return None
            except ConnectionResetError:
                data, ancillary = b'', ()
            for _, _, content in ancillary:
                fds = array.array('i')
                fds.frombytes(content)
                self._fds += fds
            self.ended = not data
            self._data += data

    def _cut(self):
        if len(self._data) < MESSAGE.size:
            return None
        got = Message(self._data[:MESSAGE.size])
        size = MESSAGE.size + got.payload_size
        if len(self._data) < size:
            return None
        got.payload = self._data[MESSAGE.size:size]
        self._data = self._data[size:]
        return got

    def _handle(self, got):
        screen = self.screen(got.scanout)
        if got.type == MODE:
            self.count = got.count
            screen.mode = (got.width, got.height)
        elif got.type == PICTURE:
            self._new_picture(screen, got)
        elif got.type == FRAME:
            x, y, width, height = got.damage
            pv.check(screen.map, 'a FRAME without a picture')
            pv.check(screen.serial == 0, f'FRAME {got.serial} before {screen.serial} was taken')
            pv.check(width and height and x + width <= screen.size[0]
                     and y + height <= screen.size[1],
                     f'damage {got.damage} of a picture of {screen.size}')
            screen.frames += 1
            screen.last, screen.serial = got, got.serial
            if self.takes:
                self.take(got.scanout)
        elif got.type == CURSOR:
            screen.cursor = got if got.flags & VISIBLE else None
            if got.flags & IMAGE:
                pv.check_equal(len(got.payload), CURSOR_SIDE ** 2 * 4, 'bytes of a cursor')
                screen.cursor_image = got.payload
        else:
            raise pv.Failure(f'message of type {got.type}')

    def _new_picture(self, screen, got):
        screen.size, screen.map, screen.serial = (got.width, got.height), None, 0
        screen.copy = bytearray(got.width * got.height * 4)
        if got.width == 0:
            return
        pv.check(self._fds, 'a PICTURE without an fd')
        fd = self._fds.pop(0)
        screen.map = mmap.mmap(fd, os.fstat(fd).st_size)
        os.close(fd)
        _, width, height, screen.stride, offset = struct.unpack_from('<5I', screen.map)
        pv.check_equal((width, height), screen.size, 'size in the picture')
        pv.check(offset % 65536 == 0 and
                 offset + screen.stride * (height - 1) + 4 * width <= len(screen.map),
                 f'picture of {len(screen.map)} bytes: offset {offset}, stride {screen.stride}')

    def _sequence(self, screen):
        return struct.unpack_from('<I', screen.map)[0]

    def take(self, scanout=0):
        """Copy the damage of the last FRAME, and answer it."""
        screen = self.screen(scanout)
        x, y, width, height = screen.last.damage
        offset, = struct.unpack_from('<I', screen.map, 16)
        for _ in range(1000):
            before = self._sequence(screen)
            if before & 1:
                continue
            for row in range(y, y + height):
                start = offset + row * screen.stride + 4 * x
                at = (row * screen.size[0] + x) * 4
                screen.copy[at:at + 4 * width] = screen.map[start:start + 4 * width]
            if self._sequence(screen) == before:
                break
        else:
            raise pv.Failure('the picture never stands still')
        self.send(message(TAKEN, scanout, serial=screen.serial))
        screen.serial = 0

    # ---- waiting ----

    def wait(self, condition, what, seconds=20):
        """Handle messages until condition() holds."""
        end = time.monotonic() + seconds * pv.SLOW
        while not condition():
            left = (end - time.monotonic()) / pv.SLOW
            if left <= 0 or (self.receive(left) is None and self.ended):
                raise pv.Failure(f'no {what}' + (': the device has hung up' if self.ended else ''))

    def wait_frame(self, scanout=0, count=1):
        """Handle messages until so many more frames have come; the last one."""
        screen = self.screen(scanout)
        wanted = screen.frames + count
        self.wait(lambda: screen.frames >= wanted, f'frame of scanout {scanout}')
        return screen.last

    def settle(self, seconds=0.1):
        """Handle messages until none comes for that time."""
        while self.receive(seconds) is not None:
            pass

    def check_ended(self, what):
        """The device hangs up."""
        end = time.monotonic() + 10 * pv.SLOW
        while not self.ended and time.monotonic() < end:
            self.receive(1)
        pv.check(self.ended, f'{what}: still connected')

    # ---- what is seen ----

    def rgb(self, scanout=0):
        """Rows of RGB of what was taken."""
        screen = self.screen(scanout)
        width, height = screen.size
        rows = []
        for y in range(height):
            row = screen.copy[4 * width * y:4 * width * (y + 1)]
            out = bytearray(3 * width)
            out[0::3], out[1::3], out[2::3] = row[2::4], row[1::4], row[0::4]
            rows.append(bytes(out))
        return rows
