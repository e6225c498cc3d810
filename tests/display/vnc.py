"""VNC clients: pv-vnc (libvncclient) and the protocol's bytes."""
import os
import socket
import struct
import subprocess
import tempfile

import pv


class Client:
    """pv-vnc, which reads all the time; see tests/clients/vnc.c."""

    def __init__(self, host, port, *args):
        self.folder = tempfile.TemporaryDirectory(prefix='pv-vnc.', dir='/tmp')
        self.process = subprocess.Popen(
            [pv.MACHINE.program('pv-vnc'), *args, host, str(port)], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, text=True, bufsize=1)
        pv._started.append(self.process)
        self.greeting = self.process.stdout.readline().strip()

    def __enter__(self):
        pv.check_equal(self.greeting, 'connected', 'the VNC client')
        return self

    def __exit__(self, *error):
        self.close()
        return False

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(20)
        self.folder.cleanup()

    def do(self, command, *args):
        self.process.stdin.write(' '.join([command, *map(str, args)]) + '\n')
        answer = self.process.stdout.readline().split()
        pv.check(answer and answer[0] not in ('lost', 'no'), f'{command} {args}: {answer}')
        return answer

    def picture(self):
        """(width, height, rows of RGB, updates so far)."""
        path = os.path.join(self.folder.name, 'rgb')
        width, height, updates = map(int, self.do('save', path)[1:])
        with open(path, 'rb') as file:
            data = file.read()
        return width, height, [data[3 * width * y:3 * width * (y + 1)] for y in range(height)], updates

    def wait_picture(self, rows, what, seconds=15):
        """Until it shows exactly these rows."""
        size = len(rows[0]) // 3, len(rows)
        try:
            pv.wait_until(lambda: self.picture()[2] == rows, seconds, what)
        except pv.Failure:
            width, height, got, updates = self.picture()
            pv.check_equal((width, height), size, f'{what}: size (after {updates} updates)')
            wrong = sum(row != good for row, good in zip(got, rows))
            raise pv.Failure(f'{what}: {wrong} of {height} rows differ') from None

    def cursor(self):
        """(width, height, hot x, hot y, x, y, RGB, mask of a byte per pixel)."""
        path = os.path.join(self.folder.name, 'cursor')
        numbers = tuple(map(int, self.do('cursor', path)[1:]))
        with open(path, 'rb') as file:
            data = file.read()
        count = numbers[0] * numbers[1]
        return *numbers, data[:3 * count], data[3 * count:]

    def key(self, symbol, down):
        self.do('key', f'{symbol:x}', int(down))

    def type(self, *symbols):
        for symbol in symbols:
            self.key(symbol, True)
            self.key(symbol, False)


class Raw:
    """A connection that says what it is told to."""

    def __init__(self, port, hello=b'RFB 003.008\n'):
        self.socket = socket.create_connection(('127.0.0.1', port), 20 * pv.SLOW)
        self.socket.settimeout(20 * pv.SLOW)
        if hello:
            self.read(12)
            self.send(hello)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.socket.close()
        return False

    def send(self, data):
        self.socket.sendall(data)

    def read(self, size):
        data = b''
        while len(data) < size:
            piece = self.socket.recv(size - len(data))
            pv.check(piece, f'the server hung up after {data!r}')
            data += piece
        return data

    def start(self):
        """Without a password, up to the first message; (width, height)."""
        types = self.read(self.read(1)[0])
        pv.check(1 in types, f'security types {types!r}')
        self.send(b'\1')
        self.read(4)
        self.send(b'\1')
        width, height = struct.unpack('>HH', self.read(4))
        self.read(16)
        self.read(struct.unpack('>I', self.read(4))[0])
        return width, height

    def set_encodings(self, *encodings):
        self.send(struct.pack(f'>BxH{len(encodings)}i', 2, len(encodings), *encodings))

    def request(self, width, height, incremental=False):
        self.send(struct.pack('>BBHHHH', 3, incremental, 0, 0, width, height))

    def update(self):
        """Rows of RGB of an update that is one raw rectangle."""
        kind, count, x, y, width, height, encoding = struct.unpack('>BxH4Hi', self.read(16))
        pv.check_equal((kind, count, x, y, encoding), (0, 1, 0, 0, 0), 'an update')
        pixels = self.read(4 * width * height)
        rgb = bytearray(3 * width * height)
        for channel in range(3):
            rgb[channel::3] = pixels[2 - channel::4]
        return [bytes(rgb[3 * width * y:3 * width * (y + 1)]) for y in range(height)]

    def ended(self):
        """The server hangs up, sooner or later."""
        try:
            while self.socket.recv(65536):
                pass
            return True
        except ConnectionError:
            return True
        except TimeoutError:
            return False
