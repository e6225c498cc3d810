"""`pearvisor gpu` as the tests start it, its control socket, and the pictures it makes.

Every test file begins with `import device` (which finds pv.py) and ends with `pv.main(...)`.
"""
import json
import os
import re
import socket
import struct
import subprocess
import sys
import tempfile
import zlib

sys.path.insert(1, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'integration'))

import pv  # noqa: E402

NO_DRIVER = '/nonexistent/driver.json'


class Device(pv.Server):
    """pearvisor gpu on a socket in a folder of its own; `with Device() as device:`.

    vulkan=False hides all Vulkan drivers: quicker, and all that the 2D tests need.
    """

    def __init__(self, *args, vulkan=True, env=None):
        super().__init__(*args, env=env)
        self.vulkan = vulkan

    def __enter__(self):
        # Not below a long TMPDIR: a socket's path has at most 107 bytes.
        self.folder = tempfile.mkdtemp(prefix='pv-test.', dir='/tmp')
        self.socket = os.path.join(self.folder, 'socket')
        self.control = os.path.join(self.folder, 'control')
        self.log_path = os.path.join(self.folder, 'log')
        self.out_path = os.path.join(self.folder, 'out')
        # PV_TEST_ICD: another driver's description, for a run on a real GPU
        driver = NO_DRIVER
        if self.vulkan:
            driver = os.environ.get('PV_TEST_ICD') or pv.MACHINE.driver_file('lvp')
        env = pv._environment(driver, None, self.env)
        with open(self.out_path, 'w') as out, open(self.log_path, 'w') as log:
            self.process = subprocess.Popen(
                [pv.PEARVISOR, 'gpu', '--socket', self.socket, '--control', self.control, '--json',
                 '--window', 'arena', *self.args], stdin=subprocess.DEVNULL, stdout=out, stderr=log, env=env, cwd='/',
                start_new_session=True)
        pv._started.append(self.process)

        def started():
            pv.check(self.process.poll() is None,
                     f'the device ended with {self.process.poll()}:\n{self.log()}')
            with open(self.out_path) as file:
                line, newline, _ = file.read().partition('\n')
            return json.loads(line) if newline else None
        self.start = pv.wait_until(started, 30, 'start of the device')
        self.pid = self.process.pid
        return self

    def stop(self, seconds=15):
        code = super().stop(seconds)
        log = self.log()
        pv.check('Sanitizer' not in log and 'runtime error' not in log,
                 f'sanitizer report:\n{log}')
        return code

    def output(self):
        with open(self.out_path, errors='replace') as file:
            return file.read()

    def log_lines(self):
        return self.log().splitlines()

    def command(self, command, **arguments):
        """One command on the control socket; its answer."""
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(20 * pv.SLOW)
            sock.connect(self.control)
            sock.sendall(json.dumps({'command': command, **arguments}).encode() + b'\n')
            data = b''
            while not data.endswith(b'\n'):
                piece = sock.recv(65536)
                pv.check(piece, f'control socket: no answer to {command}, but {data!r}')
                data += piece
        return json.loads(data)

    def status(self):
        return self.command('status')

    def screenshot(self, scanout=0, name='screen.png'):
        """(width, height, rows of RGB bytes) of what a scanout shows."""
        path = os.path.join(self.folder, name)
        answer = self.command('screenshot', path=path, scanout=scanout)
        pv.check(answer.get('ok'), f'screenshot of scanout {scanout}: {answer}')
        return read_png(path)

    def context(self, ctx):
        """The status of one guest context, or None."""
        for context in self.status()['contexts']:
            if context['id'] == ctx:
                return context
        return None

    def worker(self, ctx, seconds=10):
        """Process id of the worker behind a guest context."""
        return pv.wait_until(lambda: (self.context(ctx) or {}).get('pid'), seconds,
                             f'the worker of context {ctx}')

    def family(self):
        """Process ids of all that descend from the device."""
        parents = {}
        for pid in filter(str.isdigit, os.listdir('/proc')):
            try:
                with open(f'/proc/{pid}/stat') as stat:
                    fields = stat.read().rpartition(')')[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if fields[0] != 'Z':
                parents[int(pid)] = int(fields[1])
        found, new = set(), {self.pid}
        while new:
            new = {pid for pid, parent in parents.items() if parent in new}
            found |= new
        return found

    def lines_since(self, mark):
        return self.log()[mark:].splitlines()

    def mark(self):
        """Where the log ends now."""
        return len(self.log())

    def wait_line(self, pattern, mark=0, seconds=10):
        """A line of the log behind a mark."""
        def found():
            return re.search(pattern, self.log()[mark:], re.I)
        try:
            return pv.wait_until(found, seconds, f'"{pattern}" in the log')
        except pv.Failure as failure:
            raise pv.Failure(f'{failure}; it says:\n{self.log()[mark:]}') from None


def read_png(path):
    """(width, height, [row of RGB bytes]) of a PNG of 8 bits per channel."""
    with open(path, 'rb') as file:
        data = file.read()
    pv.check(data[:8] == b'\x89PNG\r\n\x1a\n', f'{path} is no PNG')
    at, packed = 8, b''
    width = height = channels = 0
    while at < len(data):
        size, kind = struct.unpack_from('>I4s', data, at)
        body = data[at + 8:at + 8 + size]
        crc, = struct.unpack_from('>I', data, at + 8 + size)
        pv.check_equal(crc, zlib.crc32(kind + body), f'checksum of a chunk in {path}')
        if kind == b'IHDR':
            width, height, depth, color, _, _, interlaced = struct.unpack('>IIBBBBB', body)
            pv.check(depth == 8 and color in (2, 6) and not interlaced, f'{path}: kind of PNG')
            channels = {2: 3, 6: 4}[color]
        elif kind == b'IDAT':
            packed += body
        at += 12 + size
    raw = zlib.decompress(packed)
    stride = width * channels
    rows, above = [], bytes(stride)
    for y in range(height):
        start = y * (stride + 1)
        above = _unfilter(raw[start], raw[start + 1:start + 1 + stride], above, channels)
        row = above
        if channels == 4:
            row = bytearray(width * 3)
            for channel in range(3):
                row[channel::3] = above[channel::4]
        rows.append(bytes(row))
    return width, height, rows


def _unfilter(kind, line, above, bpp):
    if kind == 0:
        return bytes(line)
    out = bytearray(line)
    for i, value in enumerate(out):
        left = out[i - bpp] if i >= bpp else 0
        up = above[i]
        corner = above[i - bpp] if i >= bpp else 0
        if kind == 1:
            guess = left
        elif kind == 2:
            guess = up
        elif kind == 3:
            guess = (left + up) // 2
        else:
            p = left + up - corner
            distances = (abs(p - left), abs(p - up), abs(p - corner))
            guess = (left, up, corner)[distances.index(min(distances))]
        out[i] = (value + guess) & 0xff
    return bytes(out)
