#!/usr/bin/env python3
"""Who gets at the VNC server, what bad clients can do to it and to others, and how it ends."""
import os
import random
import resource
import socket
import stat
import struct
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(1, os.path.join(HERE, '..', 'virtio'))

import device  # noqa: F401, first: it finds pv.py

import pv
from picture import noise
from test_vnc import Guest
from viewing import View
from vnc import Client, Raw


def check_alive(guest, what):
    """A new client sees what there is."""
    guest.draw(noise(guest.width, guest.height, seed=hash(what) & 0xffff))
    with guest.client() as client:
        client.wait_picture(guest.rows, f'a picture after {what}')


def client_threads(guest):
    folder = f'/proc/{guest.view.pid}/task'
    names = []
    for task in os.listdir(folder):
        try:
            with open(f'{folder}/{task}/comm') as file:
                names.append(file.read().strip())
        except OSError:
            pass
    return names.count('vnc client')


def password():
    with Guest() as guest:
        path = os.path.join(guest.view.folder, 'password')
        with open(path, 'w') as file:
            file.write('s3cret\nmore\n')
        with View(guest.dev, 'vnc:127.0.0.1:5941', '--password-file', path) as view:
            view.wait_for('listening')
            with Client('127.0.0.1', 5941, '-p', 's3cret') as client:
                client.wait_picture(guest.rows, 'the right password')
                start = time.monotonic()
                wrong = Client('127.0.0.1', 5941, '-p', 'guess')
                pv.check_equal(wrong.greeting, 'refused', 'a wrong password')
                waited = time.monotonic() - start
                pv.check(waited > 1, f'the next guess may come after {waited:.2f} s')
                wrong.close()
                other = Client('127.0.0.1', 5941, '-p', 'S3cret')
                pv.check_equal(other.greeting, 'refused', 'another wrong password')
                other.close()
                with Raw(5941) as raw:
                    pv.check_equal(raw.read(2), b'\1\2', 'security types')
                    raw.send(b'\1')
                    pv.check(raw.ended(), 'no password is good enough')
                with Raw(5941, b'RFB 003.003\n') as raw:
                    pv.check_equal(raw.read(4), b'\0\0\0\2', 'security type of old clients')
                guest.draw(noise(guest.width, guest.height, seed=3))
                client.wait_picture(guest.rows, 'meanwhile')
            lines = [line for line in view.log().splitlines() if 'wrong password' in line]
            pv.check_equal(len(lines), 2, f'lines about wrong passwords in:\n{view.log()}')
            pv.check('127.0.0.1' in lines[0], lines[0])


def made_password():
    """Without a word about it nobody connects who has not seen the line."""
    line = r'(?m)^vnc: listening on 127\.0\.0\.1:5941 with password ([a-z2-9]{8})$'
    seen = set()
    with Guest() as guest:
        for _ in range(2):
            with View(guest.dev, 'vnc:127.0.0.1:5941') as view:
                password = view.wait_for(line)[1]
                seen.add(password)
                with Client('127.0.0.1', 5941, '-p', password) as client:
                    client.wait_picture(guest.rows, 'with the password')
                wrong = Client('127.0.0.1', 5941, '-p', password[:7])
                pv.check_equal(wrong.greeting, 'refused', 'most of the password')
                wrong.close()
                with Raw(5941) as raw:
                    pv.check_equal(raw.read(2), b'\1\2', 'security types')
        pv.check(len(seen) == 2, f'always {seen}')


def warning_about_no_password():
    """Where others than this machine can connect."""
    with Guest() as guest:
        path = os.path.join(guest.view.folder, 'password')
        with open(path, 'w') as file:
            file.write('s3cret\n')
        for host, args, warned in (('127.0.0.1', ('--no-password',), False),
                                   ('0.0.0.0', ('--no-password',), True), ('0.0.0.0', (), False),
                                   ('0.0.0.0', ('--password-file', path), False)):
            with View(guest.dev, f'vnc:{host}:5942', *args) as view:
                view.wait_for('listening')
                view.stop()
                pv.check_equal('there is no password' in view.log(), warned, f'{host} {args}: warned')


def bad_password_files():
    with Guest() as guest:
        path = os.path.join(guest.view.folder, 'password')
        for text, what in ((None, 'cannot read'), ('', 'has no password'), ('\nx', 'has no password')):
            if text is not None:
                with open(path, 'w') as file:
                    file.write(text)
            with View(guest.dev, 'vnc', '--password-file', path) as view:
                pv.check_equal(view.wait_end(), 1, 'exit code')
                pv.check(what in view.log(), view.log())


def unix_socket():
    with Guest() as guest:
        path = os.path.join(guest.view.folder, 'vnc.socket')
        with View(guest.dev, f'vnc:{path}') as view:
            view.wait_for(f'listening on {path}')
            mode = os.stat(path).st_mode
            pv.check(stat.S_ISSOCK(mode) and mode & 0o077 == 0, f'mode {mode:o}')
            with Client(path, 0) as client:
                client.wait_picture(guest.rows, 'a picture')
            with View(guest.dev, f'vnc:{path}') as second:
                pv.check_equal(second.wait_end(), 1, 'a second server at the same path')
            view.stop()
            pv.check(not os.path.exists(path), 'the socket is left over')


def ports():
    with Guest() as guest:
        sockets = subprocess.run(['ss', '-Hltnp'], capture_output=True, text=True).stdout \
            if os.path.exists('/usr/bin/ss') or os.path.exists('/bin/ss') else ''
        if sockets:
            ours = [line.split()[3] for line in sockets.splitlines() if f'pid={guest.view.pid},' in line]
            pv.check_equal(ours, [guest.where], 'listening sockets')
        pv.check(guest.where.startswith('127.0.0.1:'), guest.where)
        with View(guest.dev, f'vnc:{guest.port}') as taken:
            pv.check_equal(taken.wait_end(), 1, 'exit code for a port that is taken')
            pv.check('in use' in taken.log(), taken.log())
        with View(guest.dev, 'vnc') as other:
            port = int(other.wait_for(r'listening on 127.0.0.1:(\d+)')[1])
            pv.check(port > guest.port, f'port {port}')
        if os.path.exists('/proc/net/if_inet6'):
            with View(guest.dev, 'vnc:[::1]:5943') as six:
                six.wait_for(r'listening on \[::1\]:5943')
        for address in ('0', '65536', 'localhost:', '1.2.3.4.5:5900', '::1:5900', 'x y:1', ':5900'):
            with View(guest.dev, f'vnc:{address}') as view:
                pv.check_equal(view.wait_end(), 1, f'exit code for the address {address}')
                pv.check_equal(len(view.log().splitlines()), 1, f'lines about {address}: {view.log()}')


def command_lines():
    with Guest() as guest:
        program = [pv.PEARVISOR, 'view']
        control = ['--control', guest.dev.control]
        for args, what in (([], '--control'), (['--control'], 'needs a value'),
                           (control, 'is missing'), ([*control, 'tv'], 'no display "tv"'),
                           ([*control, '--control-fd', '0', 'vnc'], 'exclude'),
                           (['--control-fd', '99', 'vnc'], 'not open'),
                           ([*control, '--password-file', '/x', '--no-password', 'vnc'], 'exclude'),
                           ([*control, '--qmp', '/x', '--input-fd', '0', 'vnc'], 'exclude'),
                           ([*control, 'vnc', 'more'], 'too much'),
                           ([*control, '--scanout', '16', 'vnc'], '--scanout 16'),
                           ([*control, '--frobnicate', 'vnc'], 'not an option')):
            ran = subprocess.run(program + args, capture_output=True, text=True, timeout=20)
            pv.check_equal(ran.returncode, 2, f'exit code of {args}: {ran.stderr}')
            pv.check(what in ran.stderr and ran.stderr.count('\n') == 1, f'{args}: {ran.stderr}')
        for args, what in ((['--control', '/nowhere', 'vnc'], 'no device at /nowhere'),
                           ([*control, '--keymap', 'klingon', 'vnc'], 'klingon'),
                           ([*control, '--qmp', '/nowhere', 'vnc'], 'no QEMU monitor'),
                           ([*control, 'png'], 'name of the file')):
            ran = subprocess.run(program + args, capture_output=True, text=True, timeout=20)
            pv.check_equal(ran.returncode, 1, f'exit code of {args}: {ran.stderr}')
            pv.check(what in ran.stderr and ran.stderr.count('\n') == 1, f'{args}: {ran.stderr}')
        ran = subprocess.run([*program, '--help'], capture_output=True, text=True, timeout=20)
        pv.check(ran.returncode == 0 and 'vnc[:ADDRESS]' in ran.stdout, ran.stdout)


def slow_client_is_alone():
    """One that asks for everything and reads nothing; the other's frames come as before, and sizes
    still change."""
    with Guest(width=1024, height=768) as guest:
        with guest.client() as client, Raw(guest.port) as slow, Raw(guest.port) as half:
            client.wait_picture(guest.rows, 'a frame')
            size = slow.start()
            slow.set_encodings(0, -223)
            half.start()
            half.send(b'\4')  # the first byte of a key event, and no more
            for seed in range(8):
                slow.request(*size)
                guest.draw(noise(1024, 768, seed))
                start = time.monotonic()
                client.wait_picture(guest.rows, f'frame {seed}', seconds=5)
                took = time.monotonic() - start
                pv.check(took < 3 * pv.SLOW, f'frame {seed} took {took:.1f} s beside a slow client')
            guest.show(640, 480, seed=7)
            client.wait_picture(guest.rows, 'a new size', seconds=5)
            client.key(ord('k'), True)
            pv.wait_until(lambda: guest.qmp.keys() == [('k', True)], 5, 'a key')
            status = guest.dev.status()
            pv.check(status['flushes'] > 5, 'the device')
            start = time.monotonic()
            pv.wait_until(lambda: client_threads(guest) == 1, 30, 'the end of the slow clients')
            pv.say(f'slow clients are let go of after {time.monotonic() - start:.0f} s more')
            pv.check(slow.ended() and half.ended(), 'their connections')
            client.wait_picture(guest.rows, 'the same size')


def killed_mid_frame():
    with Guest(width=1024, height=768) as guest:
        with guest.client() as client:  # these cannot follow a new size: the first must be over
            client.wait_picture(guest.rows, 'a frame')
        for i in range(8):
            with Raw(guest.port) as raw:
                size = raw.start()
                raw.set_encodings((0, 5, 7, 16)[i % 4])
                raw.request(*size)
                raw.read(1000)
                raw.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
        check_alive(guest, 'clients that were killed')
        pv.wait_until(lambda: client_threads(guest) == 0, 20, 'the end of their threads')


def nonsense():
    """Handshakes and messages that no client sends; then a client that does."""
    with Guest() as guest:
        for hello in (b'GET / HTTP/1.1\r\n\r\n', b'\0' * 12, b'RFB 999.999\n', b'RFB 003.008', b'',
                      b'\x16\x03\x01\x02\0\x01', b'\x80\0\0\0', os.urandom(64),
                      b'GET /websocket HTTP/1.1\r\nUpgrade: websocket\r\n' + b'x: ' + b'y' * 9000):
            sock = socket.create_connection(('127.0.0.1', guest.port))
            sock.sendall(hello)
            time.sleep(0.15)
            sock.close()
        messages = {
            'a huge clipboard': b'\6\0\0\0' + struct.pack('>I', 0x7fffffff) + b'x' * 5000,
            'a negative clipboard': b'\6\0\0\0' + struct.pack('>i', -5) + b'x' * 5,
            'many encodings': struct.pack('>BxH', 2, 65535) + struct.pack('>i', -258) * 65535,
            'key events by an extension': b'\xff\0\0\1' + b'\0' * 8 + b'\xff\1\0\0' + b'\0' * 8,
            'no pixels': b'\0\0\0\0' + bytes((0, 0, 0, 0)) + b'\0' * 12,
            'odd pixels': b'\0\0\0\0' + bytes((8, 255, 1, 1)) + b'\xff' * 9 + b'\0\0\0',
            'shifted pixels': b'\0\0\0\0' + bytes((32, 24, 0, 1)) + b'\xff' * 6 + bytes((99, 200, 255)) +
                              b'\0\0\0',
            'scaling': b'\x08\x03\0\0' + b'\x08\xff\0\0' + b'\x0f\x02\0\0',
            'a file': b'\7\1\0\0' + struct.pack('>II', 10, 0xffffffff) + b'/etc/passwd',
            'files': b'\7' + os.urandom(200),
            'chat': b'\x0b\0\0\0' + struct.pack('>I', 0xfffffff0),
            'many screens': struct.pack('>BxHHBx', 251, 100, 100, 255) + os.urandom(16 * 255),
            'no screens': struct.pack('>BxHHBx', 251, 0, 0, 0),
            'outside': struct.pack('>BBHHHH', 3, 0, 65535, 65535, 65535, 65535),
            'unknown': b'\xc8' * 50,
        }
        for name, message in messages.items():
            with Raw(guest.port) as raw:
                raw.start()
                raw.set_encodings(7, -258, -308, -223)
                try:
                    raw.send(message)
                    raw.request(320, 200)
                    raw.socket.settimeout(0.2)
                    raw.socket.recv(65536)
                except OSError:
                    pass
            pv.check(guest.view.process.poll() is None, f'{name} has ended the view:\n'
                     + guest.view.log())
        choice = random.Random(5)
        for _ in range(60):
            with Raw(guest.port) as raw:
                raw.start()
                raw.set_encodings(choice.choice((0, 2, 4, 5, 6, 7, 9, 16)), -239, -308, -258)
                try:
                    raw.send(bytes([choice.choice((0, 2, 3, 4, 5, 6, 8, 250, 251, 255))])
                             + choice.randbytes(choice.randrange(100)))
                    raw.request(320, 200)
                except OSError:
                    pass
        check_alive(guest, 'nonsense')
        pv.check(guest.dev.process.poll() is None, 'the device has ended')


def too_many_clients():
    with Guest() as guest:
        connections = [socket.create_connection(('127.0.0.1', guest.port)) for _ in range(40)]
        time.sleep(0.5)
        pv.check(0 < client_threads(guest) <= 16, f'{client_threads(guest)} clients')
        for one in connections:
            one.close()
        pv.wait_until(lambda: client_threads(guest) == 0, 20, 'their end')
        check_alive(guest, 'too many clients')


def no_files_left():
    """A client that cannot be accepted waits, and the view with it."""
    with Guest() as guest:
        pid = guest.view.pid
        limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, limits[1]))  # 0, 1, 2 are open
        with Raw(guest.port, hello=None) as raw:
            guest.view.wait_for('cannot accept a connection')
            before = pv.cpu_ticks(pid)
            time.sleep(1)
            spent = (pv.cpu_ticks(pid) - before) / pv.TICK
            pv.check(spent < 0.15, f'{spent:.2f} s of processor time while it cannot accept')
            resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
            pv.check_equal(raw.read(4), b'RFB ', 'the greeting')
        check_alive(guest, 'too many files')


def no_leaks():
    """Eighty clients leave no file and no memory behind."""
    with Guest() as guest:
        def cycle(count):
            for i in range(count):
                with guest.client('-q', '10', '-e', ('zrle', 'tight', 'hextile')[i % 3]) as client:
                    client.wait_picture(guest.rows, 'a frame')
            pv.wait_until(lambda: client_threads(guest) == 0, 20, 'threads')
        cycle(20)
        before = pv.fd_count(guest.view.pid), pv.own_kib(guest.view.pid)
        cycle(60)
        pv.wait_until(lambda: pv.fd_count(guest.view.pid) <= before[0], 5,
                      f'{before[0]} files or fewer')
        after = pv.own_kib(guest.view.pid)
        if not pv.SANITIZED:
            pv.check(after < before[1] + 1024, f'{before[1]} KiB became {after} KiB')


def device_goes():
    with Guest() as guest, View(guest.dev, 'vnc') as view:
        view.wait_for('listening')
        with guest.client() as client:
            client.wait_picture(guest.rows, 'a frame')
            guest.device_dies = True
            guest.dev.process.kill()
            guest.dev.process.wait()
            guest.dev.wanted_exit_code = -9
            for one in (view, guest.view):
                pv.check_equal(one.wait_end(), 0, 'exit code of the view')
                pv.check('the device has ended' in one.log(), one.log())
            pv.check_equal(client.process.wait(20), 3, 'the client')


def parent_goes():
    """The view ends with the process that has started it."""
    with Guest() as guest:
        script = f'{pv.PEARVISOR} view --control {guest.dev.control} vnc 2>&1 & echo $!; sleep 1'
        ran = subprocess.run(['sh', '-c', script], capture_output=True, text=True, timeout=60)
        pid = int(ran.stdout.split()[0])
        pv.wait_until(lambda: not pv.exists(pid), 10, 'the end of the view')


if __name__ == '__main__':
    pv.main(password, made_password, warning_about_no_password, bad_password_files, unix_socket, ports,
            command_lines, slow_client_is_alone, killed_mid_frame, nonsense, too_many_clients,
            no_files_left, no_leaks, device_goes, parent_goes)
