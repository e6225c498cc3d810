"""Headless Chromium, driven over chromedriver's HTTP interface (W3C WebDriver).

    with Browser() as browser:
        browser.open(url)
        browser.run('return document.title')

Everything of a browser lies in a folder of its own, which goes with it.
"""
import base64
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import urllib.error
import urllib.request

import pv

# WebDriver's names of keys that are no characters.
SHIFT, CONTROL, ENTER = '\ue008', '\ue009', '\ue006'


class Browser:
    def __init__(self, width=1280, height=800):
        self.width, self.height = width, height
        self.session = None

    def __enter__(self):
        driver, chromium = shutil.which('chromedriver'), shutil.which('chromium')
        if not driver or not chromium:
            raise pv.Skip('chromium and chromedriver are not installed: run scripts/setup.sh test')
        self.folder = tempfile.mkdtemp(prefix='pv-browser.', dir='/tmp')
        self.log_path = os.path.join(self.folder, 'log')
        with open(self.log_path, 'w') as log:
            self.process = subprocess.Popen(
                [driver, '--port=0'], stdin=subprocess.DEVNULL, stdout=log,
                stderr=subprocess.STDOUT, start_new_session=True, cwd='/tmp',
                env=dict(os.environ, HOME=self.folder, TMPDIR=self.folder,
                         XDG_CACHE_HOME=self.folder, XDG_CONFIG_HOME=self.folder))
        pv._started.append(self.process)
        try:
            self.port = pv.wait_until(self._find_port, 30, 'start of chromedriver')
            arguments = ['--headless=new', '--disable-gpu', '--no-first-run',
                         '--disable-dev-shm-usage', '--hide-scrollbars',
                         '--force-device-scale-factor=1', '--disable-background-networking',
                         f'--user-data-dir={self.folder}/profile',
                         f'--window-size={self.width},{self.height}']
            if os.geteuid() == 0:
                arguments.append('--no-sandbox')  # Chromium has none for root
            wanted = {'alwaysMatch': {
                'browserName': 'chrome',
                'goog:chromeOptions': {'binary': chromium, 'args': arguments},
                'goog:loggingPrefs': {'browser': 'ALL'}}}
            self.session = self._call('POST', '/session', {'capabilities': wanted})['sessionId']
            self.set_size(self.width, self.height)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, kind, error, trace):
        try:
            if self.session and self.process.poll() is None:
                self._call('DELETE', f'/session/{self.session}')
        except (OSError, pv.Failure):
            pass
        finally:
            # The browser is in chromedriver's session.
            for pid in self._family():
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            self.process.wait(30)
            shutil.rmtree(self.folder, ignore_errors=True)
        return False

    def _family(self):
        """chromedriver and what it has started, by the session that it leads."""
        found = []
        for pid in filter(str.isdigit, os.listdir('/proc')):
            try:
                if os.getsid(int(pid)) == self.process.pid:
                    found.append(int(pid))
            except ProcessLookupError:
                pass
        return found

    def _find_port(self):
        pv.check(self.process.poll() is None, 'chromedriver ended')
        with open(self.log_path) as log:
            found = re.search(r'started successfully on port (\d+)', log.read())
        return found and int(found[1])

    def _call(self, method, path, body=None):
        request = urllib.request.Request(
            f'http://127.0.0.1:{self.port}{path}', method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={'Content-Type': 'application/json'})
        try:
            with urllib.request.urlopen(request, timeout=60 * pv.SLOW) as answer:
                return json.load(answer)['value']
        except urllib.error.HTTPError as error:
            value = json.load(error)['value']
            raise pv.Failure(f'WebDriver, {path.rpartition("/")[2]}: {value["message"]}') from None

    def _do(self, method, command, body=None):
        return self._call(method, f'/session/{self.session}/{command}', body)

    # ---- windows and pages ----

    def set_size(self, width, height):
        """Of the page, not of the window."""
        self._do('POST', 'goog/cdp/execute', {
            'cmd': 'Emulation.setDeviceMetricsOverride',
            'params': {'width': width, 'height': height, 'deviceScaleFactor': 1,
                       'mobile': False}})

    def open(self, url):
        self._do('POST', 'url', {'url': url})

    def url(self):
        return self._do('GET', 'url')

    def reload(self):
        self._do('POST', 'refresh', {})

    def windows(self):
        return self._do('GET', 'window/handles')

    def new_window(self):
        """A tab; later commands go to it."""
        handle = self._do('POST', 'window/new', {'type': 'tab'})['handle']
        self.go_to(handle)
        return handle

    def go_to(self, handle):
        self._do('POST', 'window', {'handle': handle})

    def close_window(self):
        self._do('DELETE', 'window')

    def log(self):
        """What pages have put on the console since the last call."""
        return [f'{entry["level"]}: {entry["message"]}'
                for entry in self._do('POST', 'se/log', {'type': 'browser'})]

    def run(self, script, *arguments):
        """The value that a piece of JavaScript returns."""
        return self._do('POST', 'execute/sync', {'script': script, 'args': arguments})

    def text(self):
        return self.run('return document.body.innerText')

    def screenshot(self):
        """PNG."""
        return base64.b64decode(self._do('GET', 'screenshot'))

    # ---- hands ----

    def keys(self, *strokes):
        """Press and let go of keys, one after the other; a tuple is a chord."""
        actions = []
        for stroke in strokes:
            chord = stroke if isinstance(stroke, tuple) else (stroke,)
            actions += [{'type': 'keyDown', 'value': key} for key in chord]
            actions += [{'type': 'keyUp', 'value': key} for key in reversed(chord)]
        self._act('key', 'keyboard', actions)

    def key(self, kind, key):
        self._act('key', 'keyboard', [{'type': kind, 'value': key}])

    def move(self, x, y):
        """To a place of the page."""
        self._act('pointer', 'mouse', [{'type': 'pointerMove', 'x': x, 'y': y, 'duration': 0}])

    def button(self, kind, button=0):
        """pointerDown or pointerUp."""
        self._act('pointer', 'mouse', [{'type': kind, 'button': button}])

    def click(self, name):
        """With the mouse, on the element that has this id."""
        self.move(*self.run('const box = document.getElementById(arguments[0])'
                            '.getBoundingClientRect();'
                            'return [box.left + box.width / 2, box.top + box.height / 2]'
                            '.map(Math.floor)', name))
        self.button('pointerDown')
        self.button('pointerUp')

    def wheel(self, x, y, dx, dy):
        self._act('wheel', 'wheel', [{'type': 'scroll', 'x': x, 'y': y, 'deltaX': dx, 'deltaY': dy,
                                      'duration': 0}])

    def _act(self, kind, name, actions):
        source = {'type': kind, 'id': name, 'actions': actions}
        if kind == 'pointer':
            source['parameters'] = {'pointerType': 'mouse'}
        self._do('POST', 'actions', {'actions': [source]})
