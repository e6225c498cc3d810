"""A real guest for tests: `pearvisor run` with a shell whose input and output we hold.

One boot takes tens of seconds under TCG, so a test file boots once and runs all its checks in that guest.
What is checked on the host's side goes through the device's control socket.
"""
import atexit
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.realpath(__file__)), '..', 'integration'))
import pv  # noqa: E402

IMAGE = os.environ.get('PV_GUEST_IMAGE', 'debian-13')


def need_guest():
    """Skip where no guest can be booted, and say what to do."""
    engine = subprocess.run([pv.PEARVISOR, 'engine', 'status'], capture_output=True, text=True)
    if engine.returncode != 0:
        raise pv.Skip((engine.stderr or engine.stdout).strip().splitlines()[-1])
    images = subprocess.run([pv.PEARVISOR, 'image', 'list', '--json'], capture_output=True,
                            text=True)
    if images.returncode != 0 or f'"{IMAGE}"' not in images.stdout:
        raise pv.Skip(f'no guest image {IMAGE}: run pearvisor image build {IMAGE}')


class Control:
    """The device's control socket: one JSON object a line each way."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(20 * pv.SLOW)
        self.socket.connect(path)
        self.file = self.socket.makefile('rw')

    def ask(self, command, **fields):
        self.file.write(json.dumps({'command': command, **fields}) + '\n')
        self.file.flush()
        answer = json.loads(self.file.readline())
        pv.check('error' not in answer, f'{command}: {answer.get("error")}')
        return answer

    def status(self):
        return self.ask('status')

    def contexts(self, name=None):
        """The contexts that have a worker, by program name if given."""
        found = [c for c in self.status()['contexts'] if c.get('pid')]
        return [c for c in found if name is None or name in c['name']]


class Guest:
    """`with Guest() as guest: guest.run('uname -r')`"""

    def __init__(self, *args, image=IMAGE):
        self.args = args
        self.image = image
        self.stood_still = 0  # this machine, for so many seconds at a time at most: then the guest did, too

    def __enter__(self):
        need_guest()
        self.folder = tempfile.mkdtemp(prefix='pv-guest.', dir='/tmp')
        self.share = os.path.join(self.folder, 'share')
        os.mkdir(self.share)
        self.control_path = os.path.join(self.folder, 'control')
        self.log_path = os.path.join(self.folder, 'log')
        env = {k: v for k, v in os.environ.items() if not k.startswith(('VK_', 'VN_'))}
        env['VK_DRIVER_FILES'] = pv.MACHINE.driver_file('lvp')
        with open(self.log_path, 'w') as log:
            self.process = subprocess.Popen(
                [pv.PEARVISOR, 'run', self.image, '--control', self.control_path, '--share',
                 self.share, *self.args, '--', 'sh', '-s'],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=env,
                start_new_session=True)
        atexit.register(self._kill)  # not one of pv's: it outlives a single test
        self.lines = []
        self.condition = threading.Condition()
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()
        threading.Thread(target=self._watch_clock, daemon=True).start()
        self.count = 0
        start = time.monotonic()
        try:
            self.run('true', seconds=180)
        except pv.Failure:
            print(pv._indent(self.log(), 30))
            self._end(hard=True)
            raise
        pv.say(f'guest up after {time.monotonic() - start:.1f} s')
        self.control = Control(self.control_path)
        return self

    def __exit__(self, kind, error, trace):
        bad = kind is not None and not (kind is SystemExit and error.code in (0, 77))
        if bad:
            print(f'  the log of pearvisor run ended so:\n{pv._indent(self.log(), 30)}')
        self._end(hard=bad)
        return False

    def _kill(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def _end(self, hard):
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        try:
            code = self.process.wait(60 * pv.SLOW)
            if not hard:
                pv.check_equal(code, 0, 'exit code of pearvisor run')
        except subprocess.TimeoutExpired:
            self._kill()
            if not hard:
                raise pv.Failure('pearvisor run did not end with its shell') from None
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _read(self):
        for line in self.process.stdout:
            with self.condition:
                self.lines.append(line.decode(errors='replace').rstrip('\n'))
                self.condition.notify_all()
        with self.condition:
            self.lines.append(None)
            self.condition.notify_all()

    def _watch_clock(self):
        before = time.monotonic()
        while self.process.poll() is None:
            time.sleep(0.5)
            now = time.monotonic()
            self.stood_still = max(self.stood_still, now - before - 0.5)
            before = now

    def _wait_line(self, start, pattern, seconds):
        end = time.monotonic() + seconds * pv.SLOW
        at = start
        with self.condition:
            while True:
                for at in range(at, len(self.lines)):
                    if self.lines[at] is None:
                        raise pv.Failure('the guest has gone')
                    found = re.match(pattern, self.lines[at])
                    if found:
                        return at, found
                at = len(self.lines)
                if not self.condition.wait(max(0, end - time.monotonic())) and \
                        time.monotonic() > end:
                    raise pv.Failure(f'nothing from the guest within {seconds * pv.SLOW} s')

    def start(self, command):
        """Send a command and return at once; finish() waits for it."""
        self.count += 1
        mark = f'@@{self.count}@@'
        start = len(self.lines)
        text = f'( {command}\n) </dev/null 2>&1; printf "\\n{mark} %d\\n" $?\n'
        self.process.stdin.write(text.encode())
        self.process.stdin.flush()
        return start, mark, command

    def finish(self, started, seconds=60):
        """(exit code, output)"""
        start, mark, command = started
        try:
            at, found = self._wait_line(start, re.escape(mark) + r' (\d+)', seconds)
        except pv.Failure as failure:
            said = '\n'.join(x for x in self.lines[start:] if x is not None)
            raise pv.Failure(f'{command!r} in the guest: {failure}; so far:\n'
                             f'{pv._indent(said)}') from None
        out = '\n'.join(self.lines[start:at])
        return int(found.group(1)), out[:-1] if out.endswith('\n') else out

    def run(self, command, seconds=60):
        """Run a shell command that must succeed; returns what it said."""
        code, out = self.finish(self.start(command), seconds)
        pv.check(code == 0, f'{command!r} in the guest ended with {code}:\n{pv._indent(out)}')
        return out

    def send_program(self, name):
        """Put one of our client programs into the guest; returns its path there."""
        shutil.copy(pv.MACHINE.program(name), os.path.join(self.share, name))
        return f'/mnt/share/{name}'

    def log(self):
        with open(self.log_path, errors='replace') as file:
            return file.read()

    def wait_log(self, pattern, seconds=15):
        return pv.wait_until(lambda: re.search(pattern, self.log()), seconds,
                             f'"{pattern}" in the log of pearvisor run')


def stop(pid):
    os.kill(pid, signal.SIGSTOP)


def go_on(pid):
    os.kill(pid, signal.SIGCONT)


def main(guest, *tests):
    """pv.main for tests that share one guest."""
    def in_guest(test):
        def run():
            test(guest)
        run.__name__ = test.__name__
        run.__doc__ = test.__doc__
        return run

    with guest:
        pv.main(*[in_guest(test) for test in tests])
