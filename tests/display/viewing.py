"""`pearvisor view` as the web tests start it, and a monitor that stands in for QEMU's."""
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading

import pv

HERE = os.path.dirname(os.path.abspath(__file__))


class View:
    """pearvisor view DISPLAY of a device, and what it says."""

    def __init__(self, dev, display, *args, env=None):
        self.command = [pv.PEARVISOR, 'view', '--control', dev.control, *args, display]
        self.env = env

    def __enter__(self):
        self.folder = tempfile.mkdtemp(prefix='pv-view.', dir='/tmp')
        self.log_path = os.path.join(self.folder, 'log')
        env = {name: value for name, value in os.environ.items() if not name.startswith('PEARVISOR')}
        env['LSAN_OPTIONS'] = f'suppressions={HERE}/lsan.supp:print_suppressions=0'
        env.update(self.env or {})
        with open(self.log_path, 'w') as log:
            self.process = subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                env=env, cwd='/', start_new_session=True)
        pv._started.append(self.process)
        self.pid = self.process.pid
        return self

    def __exit__(self, kind, error, trace):
        try:
            code = self.stop() if self.process.poll() is None else 0
            log = self.log()
            pv.check('Sanitizer' not in log and 'runtime error' not in log,
                     f'sanitizer report:\n{log}')
            pv.check_equal(code, 0, 'exit code of the view')
        except pv.Failure:
            if kind is None:
                raise
        finally:
            if self.process.poll() is None:
                os.kill(self.pid, signal.SIGKILL)
                self.process.wait()
            if kind is not None and not issubclass(kind, pv.Skip):
                print(f"  the view's log ended so:\n{pv._indent(self.log(), 25)}")
            shutil.rmtree(self.folder, ignore_errors=True)
        return False

    def stop(self):
        """SIGTERM; returns the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.wait_end()

    def wait_end(self, seconds=15):
        try:
            return self.process.wait(seconds * pv.SLOW)
        except subprocess.TimeoutExpired:
            raise pv.Failure('the view does not end') from None

    def log(self):
        with open(self.log_path, errors='replace') as file:
            return file.read()

    def wait_for(self, pattern, seconds=20):
        def seen():
            found = re.search(pattern, self.log())
            pv.check(found or self.process.poll() is None,
                     f'the view ended with {self.process.poll()}:\n{self.log()}')
            return found
        return pv.wait_until(seen, seconds, f'"{pattern}" from the view')


class Qmp:
    """A monitor that takes input-send-event and remembers."""

    def __enter__(self):
        self.folder = tempfile.mkdtemp(prefix='pv-qmp.', dir='/tmp')
        self.path = os.path.join(self.folder, 'qmp')
        self.events = []  # as QMP has them, in order
        self._keys_seen = self._buttons_seen = 0
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.path)
        self._listener.listen()
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(self, kind, error, trace):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        shutil.rmtree(self.folder, ignore_errors=True)
        return False

    def _serve(self):
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            with contextlib.suppress(OSError, ValueError), sock, sock.makefile('rw') as stream:
                self._talk(stream)

    def _talk(self, stream):
        def say(value):
            stream.write(json.dumps(value) + '\n')
            stream.flush()
        say({'QMP': {'version': {'qemu': {'major': 10, 'minor': 0, 'micro': 0}, 'package': ''},
                     'capabilities': ['oob']}})
        for line in stream:
            request = json.loads(line)
            if request['execute'] == 'input-send-event':
                self.events += request['arguments']['events']
            answer = {'return': {}}
            if 'id' in request:
                answer['id'] = request['id']
            say(answer)

    def keys(self):
        """(name, down) of all key events so far."""
        return [(event['data']['key']['data'], event['data']['down'])
                for event in self.events if event['type'] == 'key']

    def buttons(self):
        return [(event['data']['button'], event['data']['down'])
                for event in self.events if event['type'] == 'btn']

    def wait_keys(self, *wanted):
        """Exactly these follow those of the last call."""
        wanted = list(wanted)
        try:
            pv.wait_until(lambda: len(self.keys()) >= self._keys_seen + len(wanted), 10, 'keys')
        except pv.Failure:
            pass
        got = self.keys()[self._keys_seen:]
        self._keys_seen += len(got)
        pv.check_equal(got, wanted, 'keys at the monitor')

    def wait_buttons(self, *wanted):
        wanted = list(wanted)
        try:
            pv.wait_until(lambda: len(self.buttons()) >= self._buttons_seen + len(wanted), 10,
                          'buttons')
        except pv.Failure:
            pass
        got = self.buttons()[self._buttons_seen:]
        self._buttons_seen += len(got)
        pv.check_equal(got, wanted, 'buttons at the monitor')

    def wait_wheel(self, name):
        """At least one step, and none the other way."""
        def steps():
            return self.buttons()[self._buttons_seen:]
        pv.wait_until(lambda: (name, False) in steps(), 10, f'{name} at the monitor')
        got = steps()
        self._buttons_seen += len(got)
        pv.check(set(got) == {(name, True), (name, False)}, f'{name}: {got}')

    def pointer(self):
        """Where it is: x and y from 0 to 1."""
        place = {event['data']['axis']: event['data']['value'] / 32767
                 for event in self.events if event['type'] == 'abs'}
        return place.get('x', -1), place.get('y', -1)

    def wait_pointer(self, x, y, tolerance):
        try:
            pv.wait_until(lambda: max(abs(self.pointer()[0] - x), abs(self.pointer()[1] - y))
                          <= tolerance, 10, 'pointer')
        except pv.Failure:
            raise pv.Failure(f'the pointer is at {self.pointer()} instead of {(x, y)}') from None
