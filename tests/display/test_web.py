#!/usr/bin/env python3
"""The page with the guest's screen, in Chromium: what it shows, what it sends, and who may look."""
import contextlib
import http.client
import json
import os
import random
import re
import socket
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(1, os.path.join(HERE, '..', 'virtio'))

from device import Device  # first: it finds pv.py

import pv
from browser import CONTROL, ENTER, SHIFT, Browser
from frontend import Frontend
from gpu import Gpu
from page import canvas, check_quiet, number, open_page, place
from viewing import Qmp, View

WIDTH, HEIGHT = 640, 400


# ---- a guest with a picture ----


def squares(shift=0, width=WIDTH, height=HEIGHT):
    """Pixels of B8G8R8X8: large squares in four colours, moved to the left."""
    colours = [bytes(c) + b'\0' for c in ((0x20, 0x30, 0xe0), (0x10, 0x90, 0x20), (0xf0, 0xf0, 0xf0),
                                          (0xa0, 0x10, 0x10))]
    rows = []
    for band in range(2):
        pixels = [colours[((x + shift) // 40 + band) % 2 + 2 * band] for x in range(width)]
        rows.append(b''.join(pixels))
    return b''.join(rows[y // 50 % 2] for y in range(height))


def photo(width=WIDTH, height=HEIGHT):
    """Many colours, soft: what is sent as JPEG."""
    out = bytearray()
    for y in range(height):
        for x in range(width):
            out += bytes((x * 255 // width, y * 255 // height, (x + y) * 255 // (width + height), 0))
    return bytes(out)


def rgb(pixels):
    out = bytearray(len(pixels) // 4 * 3)
    for channel in range(3):
        out[channel::3] = pixels[2 - channel::4]
    return bytes(out)


class Guest:
    """A device, a driver with a screen, a monitor, and the page's server."""

    def __init__(self, width=WIDTH, height=HEIGHT, vulkan=False):
        self.vulkan = vulkan
        self.width, self.height = width, height

    def __enter__(self):
        with contextlib.ExitStack() as stack:
            self.dev = stack.enter_context(Device(vulkan=self.vulkan))
            self.gpu = Gpu(stack.enter_context(Frontend(self.dev.socket)))
            self.qmp = stack.enter_context(Qmp())
            self.resource, self.backing = self.gpu.framebuffer(self.width, self.height)
            self.draw(squares(0, self.width, self.height))
            self.view = stack.enter_context(
                View(self.dev, 'web', '--qmp', self.qmp.path))
            self.view.wait_for(r'web: (\S+)')
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error):
        return self._stack.__exit__(*error)

    def draw(self, pixels):
        self.gpu.draw(self.resource, self.backing, pixels, (0, 0, self.width, self.height))

    def url(self):
        """The newest."""
        return re.findall(r'^web: (\S+)', self.view.log(), re.M)[-1]

    @property
    def port(self):
        return int(re.search(r':(\d+)/', self.url())[1])


# ---- the page ----


def wait_picture(browser, pixels, what, width=WIDTH, height=HEIGHT):
    """Until the page shows exactly this."""
    wanted = (width, height, rgb(pixels))
    pv.wait_until(lambda: canvas(browser) == wanted, 15, f'{what} on the page')


def shows_the_picture():
    with Guest() as guest, Browser() as browser:
        open_page(browser, guest.url())
        wait_picture(browser, squares(), 'the first picture')
        pv.check('token' not in browser.url(), f'the token stays in {browser.url()}')
        for shift in (8, 16, 200):
            guest.draw(squares(shift))
            wait_picture(browser, squares(shift), f'the picture moved by {shift}')
        soft = photo()
        guest.draw(soft)

        def close_to_it():
            _, _, shown = canvas(browser)
            return max(abs(a - b) for a, b in zip(shown, rgb(soft))) <= 12
        pv.wait_until(close_to_it, 15, 'a picture with many colours')
        check_quiet(browser)


def cursor_is_the_browsers():
    """The guest's cursor is drawn by the browser: a red square, hot in its middle."""
    with Guest() as guest, Browser() as browser:
        open_page(browser, guest.url())
        gpu = guest.gpu
        image = gpu.create_2d(64, 64, 1)
        backing = gpu.backing(64 * 64 * 4)
        gpu.attach(image, backing)
        gpu.write_backing(backing, (b'\0\0\xff\xff' * 16 + bytes(4) * 48) * 16 + bytes(64 * 48 * 4))
        gpu.transfer(image, (0, 0, 64, 64))
        gpu.update_cursor(0, image, 100, 100, 8, 8)
        browser.move(*place(browser, 100, 100))

        def style():
            return browser.run('return document.querySelector("#screen canvas").style.cursor')
        pv.wait_until(lambda: style().startswith('url("data:image/png;base64,'), 10,
                      'a picture as the cursor')
        pv.check(style().endswith(' 8 8, default') or style().endswith(' 8 8, none'),
                 f'hot spot: {style()[-20:]}')
        red = browser.run('''
            const picture = new Image();
            picture.src = document.querySelector('#screen canvas').style.cursor.split('"')[1];
            return picture.decode().then(() => {
                const canvas = document.createElement('canvas');
                canvas.width = canvas.height = 64;
                const context = canvas.getContext('2d');
                context.drawImage(picture, 0, 0);
                return [...context.getImageData(3, 3, 1, 1).data];
            });''')
        pv.check_equal(red, [255, 0, 0, 255], 'a pixel of the cursor')
        check_quiet(browser)


def moves():
    """Frames come as they are drawn, all the time."""
    with Guest() as guest, Browser() as browser:
        open_page(browser, guest.url())
        wait_picture(browser, squares(), 'the first picture')
        browser.run('''
            const canvas = document.querySelector('#screen canvas');
            window.seen = [];
            const look = () => {
                const {data} = canvas.getContext('2d').getImageData(0, 10, 80, 1);
                let x = 1;
                while (x < 80 && data[4 * x] === data[4 * x - 4])
                    x++;
                if (window.seen.at(-1) !== x)
                    window.seen.push(x);
                requestAnimationFrame(look);
            };
            look();''')
        for shift in range(0, 40):
            guest.draw(squares(shift))
            time.sleep(0.04)
        wait_picture(browser, squares(39), 'the last picture')
        seen = browser.run('return window.seen')
        steps = [before - after for before, after in zip(seen, seen[1:])]
        pv.say(f'{len(seen)} of 40 frames were seen')
        pv.check(len(seen) >= (5 if pv.SANITIZED else 15), f'only {len(seen)} of 40 frames were seen')
        pv.check(all(step > 0 for step in steps), f'frames went back: {seen}')


def input_arrives():
    with Guest() as guest, Browser() as browser:
        open_page(browser, guest.url())
        qmp = guest.qmp
        browser.keys('a')
        qmp.wait_keys(('a', True), ('a', False))
        browser.keys((SHIFT, 'B'), ENTER)
        qmp.wait_keys(('shift', True), ('b', True), ('b', False), ('shift', False), ('ret', True),
                      ('ret', False))
        # By a click into the bar the guest does not lose the keyboard.
        browser.click('more')
        browser.keys('x')
        qmp.wait_keys(('x', True), ('x', False))
        browser.click('ctrl-alt-del')
        qmp.wait_keys(('ctrl', True), ('alt', True), ('delete', True), ('delete', False),
                      ('alt', False), ('ctrl', False))
        # What is held is let go when the page loses the focus.
        browser.key('keyDown', CONTROL)
        qmp.wait_keys(('ctrl', True))
        browser.run("window.dispatchEvent(new Event('blur'))")
        qmp.wait_keys(('ctrl', False))
        browser.key('keyUp', CONTROL)

        for x, y in ((100, 50), (639, 399), (0, 0), (320, 200)):
            browser.move(*place(browser, x, y))
            qmp.wait_pointer(x / (WIDTH - 1), y / (HEIGHT - 1), 1.5 / HEIGHT)
        browser.button('pointerDown')
        qmp.wait_buttons(('left', True))
        browser.button('pointerUp')
        qmp.wait_buttons(('left', False))
        browser.button('pointerDown', 2)
        browser.button('pointerUp', 2)
        qmp.wait_buttons(('right', True), ('right', False))
        at = place(browser, 320, 200)
        browser.wheel(*at, 0, 120)
        qmp.wait_wheel('wheel-down')
        browser.wheel(*at, 0, -120)
        qmp.wait_wheel('wheel-up')
        check_quiet(browser)


def bar_shows_figures():
    with Guest(vulkan=True) as guest, Browser() as browser:
        open_page(browser, guest.url())

        def fps():
            for i in range(20):
                guest.draw(squares(i))
            return (number(browser, 'fps') or 0) > 0
        pv.wait_until(fps, 20, 'frames per second in the bar')
        pv.check(0 < number(browser, 'median') <= number(browser, 'p99'),
                 f'median {number(browser, "median")}, p99 {number(browser, "p99")}')
        pv.check(number(browser, 'dropped') is not None, 'no number of dropped frames')
        pv.check('640×400' in browser.text(), f'no size in the bar: {browser.text()}')
        guest.gpu.create_context(5, 'cube')
        browser.click('more')
        pv.wait_until(lambda: 'cube' in browser.text(), 10, 'the name of a program')
        # Hidden, it leaves the whole window to the guest; and stays so.
        browser.click('hide')
        height = browser.run('return document.getElementById("screen").clientHeight')
        pv.check_equal(height, browser.height, 'height of the screen without a bar')
        browser.reload()
        pv.check(browser.run('return document.getElementById("bar").hidden'), 'the bar is back')
        check_quiet(browser)


def guest_is_resized():
    with Guest() as guest, Browser(1000, 600) as browser:
        open_page(browser, guest.url())
        pv.check_equal(guest.gpu.display_info()[0][2:4], (1280, 800), 'size before')
        browser.click('resize')
        browser.click('hide')
        pv.wait_until(lambda: guest.gpu.display_info()[0][2:4] == (1000, 600), 10,
                      'the size of the window as the size of the screen')


def screen_goes_and_comes_back():
    with Guest() as guest, Browser() as browser:
        open_page(browser, guest.url())
        guest.gpu.set_scanout(0, 0, (0, 0, 0, 0))
        pv.wait_until(lambda: 'screen is off' in browser.text(), 10, 'a word about the dark screen')
        guest.gpu.set_scanout(0, guest.resource, (0, 0, WIDTH, HEIGHT))
        guest.draw(squares(24))
        wait_picture(browser, squares(24), 'the picture after a dark screen')
        pv.wait_until(lambda: 'screen is off' not in browser.text(), 10, 'the end of the notice')
        guest.view.stop()
        pv.wait_until(lambda: 'The guest has gone' in browser.text(), 20, 'a word about its end')


def two_pages():
    """At once, with one URL each; the end of one does not touch the other."""
    with Guest() as guest, Browser() as browser:
        first_url = guest.url()
        open_page(browser, guest.url())
        first = browser.windows()[0]
        with Browser() as other:
            other.open(first_url)
            pv.check('Refused' in other.text(), f'a used token shows {other.text()[:80]}')
            open_page(other, guest.url())
            # The same browser needs no other URL.
            browser.new_window()
            browser.open(first_url.partition('?')[0])
            wait_picture(browser, squares(), 'the second window')
            for shift in range(5):
                guest.draw(squares(shift))
            wait_picture(other, squares(4), 'the other browser')
            browser.close_window()
            browser.go_to(first)
        for shift in range(10, 15):
            guest.draw(squares(shift))
        wait_picture(browser, squares(14), 'the page that is left')


def page_ends_while_it_is_drawn():
    """Closed, reloaded and cut off in the middle of frames."""
    with Guest() as guest, Browser() as browser:
        open_page(browser, guest.url())
        first = browser.windows()[0]
        noise = random.Random(1)
        for i in range(6):
            browser.new_window()
            browser.open(guest.url().partition('?')[0])
            for _ in range(4):
                guest.draw(noise.randbytes(4 * WIDTH * HEIGHT))
            if i % 2:
                browser.reload()
                guest.draw(noise.randbytes(4 * WIDTH * HEIGHT))
            browser.close_window()
            browser.go_to(first)
        guest.draw(squares(30))
        wait_picture(browser, squares(30), 'the page that is left')
        pv.wait_until(lambda: Plain(guest.url()).status()['pages'] == 1, 10, 'one page left')


# ---- without a browser: who may look ----


class Plain:
    """Requests as anybody can send them, with a session of its own."""

    def __init__(self, url, session=True):
        self.host, _, target = url.removeprefix('http://').partition('/')
        self.port = int(self.host.partition(':')[2])
        self.cookie = None
        if session:
            status, fields, _ = self.get('/' + target)
            pv.check_equal(status, 200, 'the page with a token')
            self.cookie = fields['Set-Cookie'].partition(';')[0]

    def get(self, path, host=None, cookie=None, method='GET', **fields):
        """(status, fields, body)"""
        connection = http.client.HTTPConnection('127.0.0.1', self.port, timeout=10 * pv.SLOW)
        with contextlib.closing(connection):
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            connection.putheader('Host', host or self.host)
            if cookie or self.cookie:
                connection.putheader('Cookie', cookie or self.cookie)
            for name, value in fields.items():
                connection.putheader(name.replace('_', '-'), value)
            connection.endheaders()
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read().decode()

    def status(self):
        status, _, body = self.get('/status.json')
        pv.check_equal(status, 200, 'status.json')
        return json.loads(body)

    def websocket(self, origin, cookie=True, until=b'\r\n'):
        """The first line that comes back; read until some bytes have come."""
        with socket.create_connection(('127.0.0.1', self.port), 10) as sock:
            sock.settimeout(10 * pv.SLOW)
            head = [f'GET /websocket HTTP/1.1', f'Host: {self.host}', 'Upgrade: websocket',
                    'Connection: Upgrade', 'Sec-WebSocket-Version: 13',
                    'Sec-WebSocket-Protocol: binary',
                    'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==']
            if origin:
                head.append(f'Origin: {origin}')
            if cookie:
                head.append(f'Cookie: {self.cookie}')
            sock.sendall('\r\n'.join(head + ['', '']).encode())
            answer = b''
            while until not in answer:
                piece = sock.recv(1000)
                pv.check(piece, f'a WebSocket got {answer!r}')
                answer += piece
            return answer.partition(b'\r\n')[0].decode()


def only_the_owner_looks():
    with Guest() as guest:
        stranger = Plain(guest.url(), session=False)
        for path in ('/', '/?token=', '/?token=' + '0' * 32, '/app.js', '/status.json',
                     '/novnc/core/rfb.js', '/websocket', '/nothing'):
            status, fields, body = stranger.get(path)
            pv.check_equal(status, 403, f'{path} without a session')
            pv.check('Refused' in body and 'Set-Cookie' not in fields, f'{path}: {body}')
        # The token opens the page only, and does not go with other paths.
        token = guest.url().partition('?')[2]
        pv.check_equal(stranger.get('/status.json?' + token)[0], 403, 'a token for the status')
        status, fields, body = stranger.get('/?' + token)
        pv.check_equal(status, 200, 'the page')
        for word in ('HttpOnly', 'SameSite=Strict', 'Path=/'):
            pv.check(word in fields['Set-Cookie'], f'{word} is not in {fields["Set-Cookie"]}')
        policy = fields['Content-Security-Policy']
        pv.check("default-src 'none'" in policy and "frame-ancestors 'none'" in policy, policy)
        pv.check_equal((fields['Cache-Control'], fields['X-Content-Type-Options']),
                       ('no-store', 'nosniff'), 'fields')
        pv.check_equal(stranger.get('/?' + token)[0], 403, 'the token a second time')
        pv.check(guest.url().partition('?')[2] != token, 'no new URL')

        owner = Plain(guest.url())
        pv.check_equal(owner.get('/')[0], 200, 'the page with a cookie')
        device_status = pv.wait_until(lambda: owner.status()['device'], 5, "the device's first figures")
        pv.check(device_status['scanouts'], 'status.json has no screens')
        name, _, secret = owner.cookie.partition('=')
        for wrong in (f'{name}={secret[:-1]}', f'{name}={secret}0', f'{name}=' + '0' * 32,
                      f'x{name}={secret}', f'{name}='):
            pv.check_equal(owner.get('/', cookie=wrong)[0], 403, f'cookie {wrong}')


def hosts_and_origins():
    with Guest() as guest:
        owner = Plain(guest.url())
        for host in ('localhost', f'LOCALHOST:{owner.port}', '127.0.0.1:1', '[::1]:80'):
            pv.check_equal(owner.get('/', host=host)[0], 200, f'host {host}')
        for host in ('evil.example', f'evil.example:{owner.port}', '127.0.0.1.evil.example',
                     'localhost.evil.example', '127.0.0.2', '[::2]', '0.0.0.0', ':80', '[', 'a b',
                     'localhost;x', '[::1]x:80'):
            pv.check_equal(owner.get('/', host=host)[0], 403, f'host {host}')
        good = f'http://{owner.host}'
        pv.check('101' in owner.websocket(good), 'the WebSocket of our own page is refused')
        for origin in (None, 'null', 'http://evil.example', f'http://localhost:{owner.port}',
                       f'http://127.0.0.1:{owner.port + 1}', good + '.evil.example', owner.host):
            pv.check('403' in owner.websocket(origin), f'a WebSocket from {origin}')
        pv.check('403' in owner.websocket(good, cookie=False), 'a WebSocket without a session')


def only_scripts_are_given_away():
    with Guest() as guest:
        owner = Plain(guest.url())
        pv.check_equal(owner.get('/novnc/core/rfb.js')[0], 200, 'a script')
        for path in ('/novnc/', '/novnc/core', '/novnc/core/', '/novnc/app/ui.js', '/novnc/vnc.html',
                     '/novnc/core/../app/ui.js', '/novnc/core/..%2fapp/ui.js',
                     '/novnc/core/../../../../etc/passwd', '/novnc//etc/passwd',
                     '/novnc/core/../../../../etc/passwd%00.js', '/novnc/vendor/pako/README.md',
                     '/novnc/core/rfb.js/', '/novnc/core/.js', '/novnc/core/' + 'a' * 6000 + '.js',
                     '/../etc/passwd', '//', '/index.html'):
            pv.check_equal(owner.get(path)[0], 404, path)
        for method in ('POST', 'HEAD', 'OPTIONS', 'PUT'):
            pv.check_equal(owner.get('/', method=method)[0], 405, method)
        pv.check_equal(owner.get('/', Content_Length='3')[0], 400, 'a request with a body')


def links_lead_nowhere():
    """A link inside noVNC's folder to a file elsewhere."""
    with Device(vulkan=False) as dev:
        novnc = os.path.join(dev.folder, 'novnc')
        os.makedirs(novnc + '/core')
        os.makedirs(novnc + '/vendor')
        secret = os.path.join(dev.folder, 'secret.js')
        for path in (secret, novnc + '/core/rfb.js', novnc + '/other.js'):
            with open(path, 'w') as file:
                file.write('1;')
        os.symlink(secret, novnc + '/core/link.js')
        os.symlink('../other.js', novnc + '/core/up.js')
        os.symlink('rfb.js', novnc + '/core/same.js')
        os.mkfifo(novnc + '/core/pipe.js')
        os.mkdir(novnc + '/core/folder.js')
        with View(dev, 'web', env={'PEARVISOR_NOVNC': novnc}) as view:
            url = view.wait_for(r'web: (\S+)')[1]

            owner = Plain(url)
            for name, wanted in (('rfb', 200), ('same', 200), ('link', 404), ('up', 404),
                                 ('pipe', 404), ('folder', 404)):
                pv.check_equal(owner.get(f'/novnc/core/{name}.js')[0], wanted, name)


def without_novnc():
    with Device(vulkan=False) as dev:
        with View(dev, 'web', env={'PEARVISOR_NOVNC': '/nonexistent'}) as view:
            pv.check(view.wait_end() != 0, 'it runs without noVNC')
            lines = [line for line in view.log().splitlines() if 'noVNC' in line]
            pv.check(len(lines) == 1 and 'package novnc' in lines[0], f'it says {view.log()}')


def addresses():
    """A port, a host and a port, every address, a Unix socket; and what is none of them."""
    with Device(vulkan=False) as dev:
        def ask(sock, path, host):
            with sock:
                sock.settimeout(10 * pv.SLOW)
                sock.sendall(f'GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n'.encode())
                return sock.recv(1000).split()[1].decode()

        with socket.create_server(('127.0.0.1', 0)) as taken:
            port = taken.getsockname()[1]
            with View(dev, f'web:{port}') as view:
                pv.check(view.wait_end() != 0, 'two servers on one port')
        for address, host in ((port, '127.0.0.1'), (f'localhost:{port}', 'localhost'),
                              (f'0.0.0.0:{port}', socket.gethostname())):
            with View(dev, f'web:{address}') as view:
                url = view.wait_for(r'web: (\S+)')[1]
                pv.check(url.startswith(f'http://{host}:{port}/?token='), f'{address}: {url}')
                path = url[url.index('/?'):]
                pv.check_equal(ask(socket.create_connection(('127.0.0.1', port)), path,
                                   f'{host}:{port}'), '200', f'{address} by its URL')
        path = os.path.join(dev.folder, 'web')
        with View(dev, f'web:{path}') as view:
            target = view.wait_for(r'web: (\S+) on (\S+)')
            pv.check_equal(target[2], path, 'the path that is printed')
            sock = socket.socket(socket.AF_UNIX)
            sock.connect(path)
            pv.check_equal(ask(sock, target[1], 'localhost:8080'), '200', 'over a Unix socket')
            pv.check_equal(os.stat(path).st_mode & 0o777, 0o600, 'who may connect')
        for address in ('', 'x', '99999', '1.2.3.4.5:80', 'relative/path'):
            with View(dev, f'web:{address}') as view:
                pv.check(view.wait_end() != 0, f'address {address!r} is taken')


def slow_and_large_requests():
    """Neither stops others, and both are cut off."""
    with Guest() as guest:
        owner = Plain(guest.url())
        fds = pv.fd_count(guest.view.pid)
        with contextlib.ExitStack() as stack:
            slow = []
            for i in range(200):
                sock = stack.enter_context(socket.create_connection(('127.0.0.1', guest.port), 10))
                if i % 2:
                    sock.sendall(b'GET / HTTP/1.1\r\nHost: a\r\n')
                slow.append(sock)
            start = time.monotonic()
            pv.check_equal(owner.get('/')[0], 200, 'a request among slow ones')
            pv.check(time.monotonic() - start < 2 * pv.SLOW, 'it had to wait for the slow ones')
            more = pv.fd_count(guest.view.pid) - fds
            pv.check(32 <= more <= 64, f'{more} of 200 connections are kept')
            # A byte now and then helps nobody.
            end = time.monotonic() + 9 * pv.SLOW

            def is_open(sock):
                sock.setblocking(False)
                try:
                    return sock.recv(1000) != b''
                except BlockingIOError:
                    return True
                except OSError:
                    return False
            while any(is_open(sock) for sock in slow):
                pv.check(time.monotonic() < end, 'slow connections live on')
                for sock in slow:
                    with contextlib.suppress(OSError):
                        sock.send(b'X')
                time.sleep(0.2)
        large = b'GET / HTTP/1.1\r\nHost: localhost\r\nX: ' + b'a' * 9000
        for request in (large, large + b'\r\n\r\n'):
            with socket.create_connection(('127.0.0.1', guest.port), 10) as sock:
                sock.settimeout(10 * pv.SLOW)
                sock.sendall(request)
                answer = sock.recv(1000)
                pv.check(answer.startswith(b'HTTP/1.1 431 '), f'a large request: {answer[:60]}')
        pv.check_equal(owner.get('/')[0], 200, 'a request afterwards')


def noise_is_answered():
    """Bytes without sense, cut anywhere."""
    with Guest() as guest:
        owner = Plain(guest.url())
        chance = random.Random(3)
        good = (f'GET /websocket HTTP/1.1\r\nHost: {owner.host}\r\nOrigin: http://{owner.host}\r\n'
                f'Cookie: {owner.cookie}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n'
                'Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n'
                ).encode()
        for _ in range(150):
            data = bytearray(good)
            for _ in range(chance.randrange(4)):
                data[chance.randrange(len(data))] = chance.randrange(256)
            data = data[:chance.randrange(len(data) + 1)] if chance.random() < 0.3 else data
            data += chance.randbytes(chance.choice((0, 0, 10, 5000)))
            with socket.create_connection(('127.0.0.1', guest.port), 10) as sock:
                with contextlib.suppress(OSError):
                    sock.sendall(data)
                    if chance.random() < 0.5:
                        sock.settimeout(0.05)
                        sock.recv(100)
        pv.check_equal(owner.get('/')[0], 200, 'a request afterwards')
        pv.wait_until(lambda: owner.status()['pages'] == 0, 30, 'the end of all noise')


def connections_leave_nothing():
    with Guest() as guest:
        owner = Plain(guest.url())

        def connect(times):
            for _ in range(times):
                owner.websocket(f'http://{owner.host}', until=b'RFB 003.008')
            pv.wait_until(lambda: owner.status()['pages'] == 0, 30, 'the end of all connections')
            return pv.own_kib(guest.view.pid), pv.fd_count(guest.view.pid)
        memory, fds = connect(50)
        more_memory, more_fds = connect(300)
        pv.say(f'{memory} KiB, after 300 connections more {more_memory} KiB')
        pv.check(more_fds <= fds, f'{more_fds - fds} fds are left of 300 connections')
        # A sanitizer keeps what was freed for a while.
        pv.check(pv.SANITIZED or more_memory - memory < 2000,
                 f'{more_memory - memory} KiB are left of 300 connections')


if __name__ == '__main__':
    pv.main(shows_the_picture, cursor_is_the_browsers, moves, input_arrives, bar_shows_figures, guest_is_resized,
            screen_goes_and_comes_back, two_pages, page_ends_while_it_is_drawn,
            only_the_owner_looks, hosts_and_origins, only_scripts_are_given_away,
            links_lead_nowhere, without_novnc, addresses, slow_and_large_requests, noise_is_answered,
            connections_leave_nothing)
