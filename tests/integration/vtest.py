"""A raw vtest client, and a server to talk to: what the test_vtest_*.py scripts share.

The scripts take the path of the pearvisor program, print one line per check, and exit with 0, 1, or 77
when this machine cannot run them.
"""
import array
import contextlib
import json
import mmap
import os
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import traceback

# Where the tests run under nohup, programs would inherit that SIGHUP is ignored.
signal.signal(signal.SIGHUP, signal.SIG_DFL)

SLOW = 5 if os.environ.get('PV_SANITIZED') else 1
TIMEOUT = 20 * SLOW

CREATE_RENDERER, PING, VERSION, GET_PARAM, GET_CAPSET, CONTEXT_INIT = 8, 10, 11, 15, 16, 17
UNREF, BUSY_WAIT, CREATE_BLOB, EXPORT_FD, SUBMIT = 3, 7, 18, 38, 24
SYNC_CREATE, SYNC_UNREF, SYNC_READ, SYNC_WRITE, SYNC_WAIT = 19, 20, 21, 22, 23

RING_SIZE = 131268  # of Mesa's main ring
STATUS_OFFSET = 128
IDLE, FATAL, ALIVE = 1, 2, 4
# vkCreateRingMESA as Mesa sends it: resource 1, its layout, a monitor of 3 s
CREATE_RING = bytes.fromhex(
    'bc00000000000000c0ba4739bb550000010000000000000000a6a03b010000000000000006a6a03b00000000'
    '00000000c0c62d0000000000010000000000000000000000c40002000000000040420f00000000000000000000'
    '00000040000000000000008000000000000000c0000000000000000000020000000000c0000200000000000400'
    '000000000000')


class Failure(Exception):
    pass


def check(condition, what):
    if not condition:
        raise Failure(what)


def equal(got, wanted, what):
    if got != wanted:
        raise Failure(f'{what}: got {got!r}, wanted {wanted!r}')


def program():
    return os.path.abspath(sys.argv[1] if len(sys.argv) > 1 else 'build/pearvisor')


def run(*args, env=None):
    """Run pearvisor to its end."""
    return subprocess.run([program(), *args], capture_output=True, text=True, timeout=TIMEOUT,
                          env={**os.environ, **(env or {})})


class Server:
    """`pearvisor vtest` in a folder of its own."""

    def __init__(self, *args, path=None, folder=None, env=None):
        self.own_folder = folder is None
        self.folder = folder or tempfile.mkdtemp(prefix='pv-test-')
        self.path = path or os.path.join(self.folder, 'socket')
        self.log_path = os.path.join(self.folder, f'log-{time.monotonic_ns()}')
        with open(self.log_path, 'wb') as log:
            self.process = subprocess.Popen(
                [program(), 'vtest', '--socket', self.path, '--json', *args],
                stdout=subprocess.PIPE, stderr=log, env={**os.environ, **(env or {})})
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            if re.search('no (usable )?vulkan', self.log(), re.I):
                print('skipped: ' + self.log().strip())
                sys.exit(77)
            raise Failure(f'the server does not start: {self.log()}')
        self.start_line = json.loads(line)
        self.pid = self.process.pid

    def log(self):
        with open(self.log_path, errors='replace') as log:
            return log.read()

    def wait_for_log(self, pattern):
        def found():
            return re.search(pattern, self.log())
        wait_until(found, f'the log says "{pattern}"; it says:\n{self.log()}')
        return found()

    def workers(self):
        """Not from /proc/PID/task/PID/children, which may leave some out while others end."""
        pids = []
        for pid in filter(str.isdigit, os.listdir('/proc')):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                with open(f'/proc/{pid}/stat') as stat:
                    if int(stat.read().rpartition(')')[2].split()[1]) == self.pid:
                        pids.append(int(pid))
        return pids

    def fd_count(self):
        return len(os.listdir(f'/proc/{self.pid}/fd'))

    def resident_kib(self):
        with open(f'/proc/{self.pid}/status') as status:
            return int(re.search(r'VmRSS:\s*(\d+)', status.read())[1])

    def stop(self, expected=0, number=signal.SIGTERM):
        if self.process.poll() is None:
            self.process.send_signal(number)
        equal(self.process.wait(TIMEOUT), expected, 'exit status of the server')
        log = self.log()
        check('Sanitizer' not in log and 'runtime error' not in log, f'sanitizer report:\n{log}')
        return log

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        if self.process.poll() is None:
            for pid in self.workers():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)
            self.process.terminate()
            self.process.wait(TIMEOUT)
        if kind is not None and kind is not SystemExit:
            print(f'--- log of the server ---\n{self.log()}---', file=sys.stderr)
        self.process.stdout.close()
        if self.own_folder:
            shutil.rmtree(self.folder, ignore_errors=True)


def wait_until(condition, what, timeout=TIMEOUT):
    end = time.monotonic() + timeout
    while not condition():
        check(time.monotonic() < end, f'timeout: {what}')
        time.sleep(0.005)


class Client:
    """One connection. Words are 32-bit and little-endian."""

    def __init__(self, server, version=None, name='raw'):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(TIMEOUT)
        self.socket.connect(server.path)
        if version:
            self.shake_hands(version, name)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data)

    def request(self, command, *words):
        self.send(struct.pack(f'<{2 + len(words)}I', len(words), command, *words))

    def receive(self, size):
        data = b''
        while len(data) < size:
            piece = self.socket.recv(size - len(data))
            check(piece, f'the server closed the connection after {len(data)} of {size} bytes')
            data += piece
        return data

    def reply(self, command):
        length, got = struct.unpack('<2I', self.receive(8))
        equal(got, command, 'command of the reply')
        return struct.unpack(f'<{length}I', self.receive(4 * length))

    def reply_fd(self):
        """The fd on a byte of its own, read as Mesa does."""
        data, ancillary, _, _ = self.socket.recvmsg(1, socket.CMSG_SPACE(4))
        equal(data, b'\0', 'the byte that carries an fd')
        check(ancillary, 'no fd came')
        fds = array.array('i')
        fds.frombytes(ancillary[0][2][:4])
        return fds[0]

    def call(self, command, *words):
        self.request(command, *words)
        return self.reply(command)

    def shake_hands(self, version, name='raw'):
        data = name.encode() + b'\0'
        self.send(struct.pack('<2I', len(data), CREATE_RENDERER) + data)
        equal(self.call(VERSION, version), (min(version, 4),), 'agreed version')
        self.request(CONTEXT_INIT, 4)

    def blob(self, size, flags=1, blob_id=0):
        self.request(CREATE_BLOB, 2, flags, size & 0xffffffff, size >> 32, blob_id, 0)
        res_id, = self.reply(CREATE_BLOB)
        return res_id, self.reply_fd()

    def submit(self, commands=b'', syncs=(), ring_idx=0, flags=1):
        """SUBMIT_CMD2 with a long header."""
        words = list(struct.unpack(f'<{len(commands) // 4}I', commands))
        flat = [word for sync, value in syncs for word in (sync, value & 0xffffffff, value >> 32)]
        self.request(SUBMIT, 1, flags, 9, len(words), 9 + len(words), len(syncs), ring_idx, 0, 0,
                     *words, *flat)

    def start_ring(self):
        """A ring as Mesa makes it; returns its shared memory."""
        res_id, fd = self.blob(RING_SIZE)
        equal(res_id, 1, 'id of the first resource')
        memory = mmap.mmap(fd, RING_SIZE)
        os.close(fd)
        self.submit(CREATE_RING)
        self.call(GET_PARAM, 1)  # the ring is there
        return memory

    def sync(self, value=0):
        return self.call(SYNC_CREATE, value & 0xffffffff, value >> 32)[0]

    def read_sync(self, sync):
        low, high = self.call(SYNC_READ, sync)
        return low | high << 32

    def wait_sync(self, *points, any_of=False, timeout_ms=0xffffffff):
        words = [word for sync, value in points for word in (sync, value & 0xffffffff, value >> 32)]
        self.request(SYNC_WAIT, int(any_of), timeout_ms, *words)
        equal(self.reply(SYNC_WAIT), (), 'reply of SYNC_WAIT')
        return self.reply_fd()

    def expect_end(self):
        """The server closes the connection; what was on its way before does not matter."""
        try:
            while self.socket.recv(65536):
                pass
        except ConnectionResetError:
            pass


def readable(fd, timeout=0):
    return bool(select.select([fd], [], [], timeout)[0])


def ring_status(memory):
    return struct.unpack_from('<I', memory, STATUS_OFFSET)[0]


def main(*tests):
    for test in tests:
        try:
            start = time.monotonic()
            test()
            print(f'ok      {test.__name__} ({time.monotonic() - start:.2f} s)', flush=True)
        except Exception as error:
            print(f'FAILED  {test.__name__}: {error}', flush=True)
            if not isinstance(error, Failure):
                traceback.print_exc()
            sys.exit(1)
