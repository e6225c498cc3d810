#!/usr/bin/env python3
"""`pearvisor run` as its users meet it: commands, consoles, files, signals, and how it all ends.

Every session here sees its own cache (the image by links), TMPDIR and XDG_RUNTIME_DIR, so that what one
leaves behind shows. A boot takes a while: each proves several things.
"""
import contextlib
import json
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import tempfile
import termios
import threading
import time

import guest as guests
import pv
import test_gpu

VENUS = test_gpu.VENUS
BOOT_S = 180
# All bytes, the first byte of the mark that ends a command's output among them, and more than a pipe holds.
BINARY = bytes(range(256)) * 1200 + b'\x1epearvisor-\x1e\n\0'


class Home:
    """Where sessions keep their files: a folder that says what they left in it."""

    def __enter__(self):
        guests.need_guest()
        self.folder = tempfile.mkdtemp(prefix='pv-run.', dir='/tmp')
        self.image = os.path.join(self.folder, 'cache', 'images', guests.IMAGE)
        os.makedirs(self.image)
        found = subprocess.run([pv.PEARVISOR, 'image', 'list', '--json'], capture_output=True,
                               text=True, check=True).stdout
        real = [i['folder'] for i in json.loads(found) if i['name'] == guests.IMAGE][0]
        for name in ['disk.img', 'vmlinuz', 'initrd.img', 'image.json']:
            os.symlink(os.path.join(real, name), os.path.join(self.image, name))
        os.symlink(os.path.join(real, '..', '..', 'roots'),
                   os.path.join(self.folder, 'cache', 'roots'))
        for name in ['tmp', 'runtime', 'share']:
            os.mkdir(os.path.join(self.folder, name))
        self.share = os.path.join(self.folder, 'share')
        self.before = self.files()
        return self

    def __exit__(self, *error):
        shutil.rmtree(self.folder, ignore_errors=True)

    def env(self, **more):
        env = {k: v for k, v in os.environ.items() if not k.startswith(('VK_', 'VN_'))}
        env.update(PEARVISOR_CACHE=os.path.join(self.folder, 'cache'),
                   TMPDIR=os.path.join(self.folder, 'tmp'),
                   XDG_RUNTIME_DIR=os.path.join(self.folder, 'runtime'),
                   VK_DRIVER_FILES=pv.MACHINE.driver_file('lvp'))
        env.update(more)
        return env

    def files(self):
        """All files that are ours, and those of the usual places that look so."""
        found = set()
        for name in ['cache', 'tmp', 'runtime']:
            for folder, folders, files in os.walk(os.path.join(self.folder, name)):
                found |= {os.path.join(folder, name) for name in folders + files}
        for folder in ['/tmp', '/var/tmp', '/dev/shm']:
            with contextlib.suppress(OSError):
                found |= {os.path.join(folder, name) for name in os.listdir(folder)
                          if name.startswith(('vl.', 'qemu', 'pearvisor'))}
        return found

    def check_nothing_left(self, *allowed):
        new = self.files() - self.before
        left = [path for path in new if os.path.basename(path) not in ('overlay.lock', *allowed)]
        pv.check(not left, f'left behind: {left}')


def parents():
    """{process: its parent} of all there are; the dead do not count."""
    found = {}
    for pid in os.listdir('/proc'):
        with contextlib.suppress(OSError, ValueError):
            with open(f'/proc/{int(pid)}/stat') as file:
                fields = file.read().rpartition(')')[2].split()
            if fields[0] not in 'ZX':
                found[int(pid)] = int(fields[1])
    return found


def tree(root):
    """A process and all that came from it."""
    known, found = parents(), [root]
    for pid in found:
        found += [child for child, parent in known.items() if parent == pid]
    return found


def command_line(pid):
    with contextlib.suppress(OSError):
        with open(f'/proc/{pid}/cmdline') as file:
            return file.read().replace('\0', ' ')
    return ''


class Session:
    """pearvisor with arguments; its output, as it came."""

    def __init__(self, home, *args, env=None, stdin=b''):
        self.home = home
        self.process = subprocess.Popen(
            [pv.PEARVISOR, *args], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, env=env or home.env(), cwd='/', start_new_session=True)
        pv._started.append(self.process)
        self.out, self.err = [], []  # (time, bytes)
        self.threads = [
            threading.Thread(target=self._read, args=(self.process.stdout, self.out), daemon=True),
            threading.Thread(target=self._read, args=(self.process.stderr, self.err), daemon=True),
            threading.Thread(target=self._write, args=(stdin,), daemon=True)]
        for thread in self.threads:
            thread.start()

    @staticmethod
    def _read(file, chunks):
        while chunk := os.read(file.fileno(), 65536):
            chunks.append((time.monotonic(), chunk))

    def _write(self, data):
        """None: the input stays open."""
        if data is not None:
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.write(data)
                self.process.stdin.flush()
            self.end_input()

    def end_input(self):
        with contextlib.suppress(OSError):
            self.process.stdin.close()

    def stdout(self):
        return b''.join(chunk for _, chunk in self.out)

    def stderr(self):
        return b''.join(chunk for _, chunk in self.err)

    def errors(self):
        return self.stderr().decode(errors='replace')

    def wait_for(self, text, seconds=BOOT_S):
        """Until the output has it; returns when that was."""
        def seen():
            pv.check(text in self.stdout() or self.process.poll() is None,
                     f'ended with {self.process.poll()} before it said {text}:\n'
                     f'{pv._indent(self.errors())}')
            return text in self.stdout()
        pv.wait_until(seen, seconds, f'{text} from the guest')
        length = 0
        for when, chunk in self.out:
            length += len(chunk)
            if text in self.stdout()[:length]:
                return when

    def wait(self, seconds=BOOT_S):
        """The exit code."""
        try:
            code = self.process.wait(seconds * pv.SLOW)
        except subprocess.TimeoutExpired:
            raise pv.Failure(f'runs for more than {seconds} s:\n{pv._indent(self.errors())}') from None
        for thread in self.threads[:2]:
            thread.join(5)
        return code

    def check_code(self, wanted, seconds=BOOT_S):
        code = self.wait(seconds)
        pv.check(code == wanted, f'exit code {code} instead of {wanted}:\n'
                 f'{pv._indent(self.errors())}')

    def child(self, word):
        """The child whose command line has this word."""
        found = [pid for pid in tree(self.process.pid)[1:]
                 if parents().get(pid) == self.process.pid and word in command_line(pid)]
        pv.check_equal(len(found), 1, f'number of processes of {word}')
        return found[0]


def run(home, *args, env=None, stdin=b''):
    return Session(home, 'run', *args, env=env, stdin=stdin)


def sh(script):
    return [guests.IMAGE, '--', 'sh', '-c', script]


# ---- commands ----


def check_refused(home, word, *args):
    session = Session(home, *args)
    session.check_code(1, 20)
    errors = [line for line in session.errors().splitlines() if 'slow' not in line]
    pv.check(len(errors) == 1 and word in errors[0], f'{args}: it says {errors}')


def check_command(home):
    """Input, output, files and the exit code of a command, and a picture at its end. --keep keeps what it
    wrote on its disk, one machine at a time."""
    png = os.path.join(home.folder, 'screen.png')
    with open(os.path.join(home.share, 'given'), 'wb') as file:
        file.write(BINARY)
    session = run(home, '--keep', '--share', home.share, '--screenshot', png, *sh(
        'echo precious >kept; echo one; sleep 4; echo two; printf "error\\0\\377" >&2; '
        'tee /mnt/share/back; cat /mnt/share/given; '
        'printf "\\033[2J\\033[H\\033[41m%*s\\033[0m" 40 "" >/dev/tty1; sleep 1; kill -9 $$'),
        stdin=BINARY)
    first = session.wait_for(b'one\n')
    check_refused(home, 'in use', 'run', '--keep', guests.IMAGE, '--', 'true')
    check_refused(home, 'in use', 'run', guests.IMAGE, '--', 'true')
    check_refused(home, 'in use', 'image', 'reset', guests.IMAGE)
    second = session.wait_for(b'two\n')
    session.check_code(137)
    pv.check(second - first > 2, f'both lines came within {second - first:.1f} s: not streamed')
    pv.check(session.stdout() == b'one\ntwo\n' + BINARY + BINARY, 'output is damaged')
    pv.check(b'error\0\xff' in session.stderr(), 'standard error is damaged')
    pv.check(b'one' not in session.stderr(), 'standard output among the errors')
    with open(os.path.join(home.share, 'back'), 'rb') as file:
        pv.check(file.read() == BINARY, 'the file that the guest wrote is damaged')
    with open(png, 'rb') as file:
        pv.check_equal(file.read(8), b'\x89PNG\r\n\x1a\n', 'first bytes of the picture')
    width, height, rows = test_gpu.read_png(png)
    pv.check_equal((width, height), (1280, 800), 'size of the picture')
    pv.check_equal(rows[4][100], (170, 0, 0), 'colour of a red block on the screen')
    home.check_nothing_left('overlay.qcow2')


def check_without_vulkan(home):
    """No driver on the host: one line says so, the guest has a screen; and --timeout. What was kept is there."""
    png = os.path.join(home.folder, 'screen.png')
    session = run(home, '--timeout', '8', '--screenshot', png, *sh(
        'cat kept; ls scratch; echo x >scratch; sync; '
        'ls /dev/dri/card0; echo PearVisor >/dev/tty1; sleep 600'),
        env=home.env(VK_DRIVER_FILES='/nonexistent.json'))
    session.check_code(124)
    pv.check_equal(session.stdout(), b'precious\n/dev/dri/card0\n', 'standard output')
    lines = [line for line in session.errors().splitlines() if 'Vulkan' in line]
    pv.check(len(lines) == 1 and '2D screen only' in lines[0], f'it says: {session.errors()}')
    pv.check('8 s' in session.errors(), 'no word about the time')
    pv.check(test_gpu.lit(test_gpu.read_png(png)[2]) > 100, 'the screen is empty')
    home.check_nothing_left('overlay.qcow2')


def check_interrupt(home):
    """Ctrl-C ends the command, and everything with it. What the guest before wrote is not there."""
    session = busy_session(home, 'cat kept; ls scratch; ')
    session.wait_for(b'ready')
    pv.check_equal(session.stdout(), b'precious\nready\n', 'what the guest finds')
    pids = tree(session.process.pid)
    pv.check(len(pids) >= 5, f'too few processes: {[command_line(pid) for pid in pids]}')
    png = os.path.join(home.folder, 'now.png')
    Session(home, 'screenshot', png).check_code(0, 20)  # finds the guest by itself
    pv.check_equal(test_gpu.read_png(png)[:2], (1280, 800), 'size of the screenshot')
    os.kill(session.process.pid, signal.SIGINT)
    session.check_code(130, 15)
    check_all_gone(home, pids, 'overlay.qcow2')


def test_three_boots():
    """A command, one without Vulkan, one that is interrupted: with the disk that the first has kept."""
    with Home() as home:
        for check in (check_command, check_without_vulkan, check_interrupt):
            start = time.monotonic()
            check(home)
            pv.say(f'{check.__name__} ({time.monotonic() - start:.1f} s)')
        Session(home, 'image', 'reset', guests.IMAGE).check_code(0, 20)
        home.check_nothing_left()


def test_command_not_found():
    """A command that is not there is 127; without a GPU; with an argument for QEMU."""
    with Home() as home:
        session = run(home, '--no-gpu', '--verbose', '--qemu-arg', '-name', '--qemu-arg', 'pear',
                      guests.IMAGE, '--', 'no-such-program', '--help')
        session.check_code(127)
        pv.check_equal(session.stdout(), b'', 'standard output')
        pv.check('no-such-program' in session.errors(), 'no word about the program')
        qemu = [line for line in session.errors().splitlines() if '-nodefaults' in line]
        pv.check(len(qemu) == 1 and qemu[0].endswith('-name pear'), f'QEMU got: {qemu}')
        home.check_nothing_left()


# ---- ends ----


def busy_session(home, first=''):
    """A guest in which a program will draw, so that there is a process of each kind."""
    shutil.copy(pv.MACHINE.program('pv-loop'), home.share)
    return run(home, '--share', home.share, *sh(f'{first}{VENUS} exec /mnt/share/pv-loop'))


def check_all_gone(home, pids, *allowed):
    def left():
        known = parents()
        return [pid for pid in pids if pid in known]
    pv.wait_until(lambda: not left(), 8,
                  f'end of all processes; left: {[command_line(pid) for pid in left()]}')
    home.check_nothing_left(*allowed)


@contextlib.contextmanager
def homes(count):
    """For guests side by side."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(Home()) for _ in range(count)]


def test_interrupted_boot():
    """Signals before the guest is up; even when QEMU does not listen."""
    signals = [(signal.SIGINT, False), (signal.SIGTERM, False), (signal.SIGINT, True)]
    with homes(len(signals)) as own:
        sessions = [run(home, *sh('true')) for home in own]
        time.sleep(5)
        for home, session, (number, stopped) in zip(own, sessions, signals):
            pids = tree(session.process.pid)
            if stopped:
                os.kill(session.child('qemu-system'), signal.SIGSTOP)
            os.kill(session.process.pid, number)
            session.check_code(128 + number, 15)
            check_all_gone(home, pids)


def test_killed():
    """SIGKILL of each of the three processes in turn: the others follow within seconds, and no other guest."""
    words = ['run', 'qemu-system', ' gpu ']
    with homes(len(words)) as own:
        sessions = [busy_session(home) for home in own]
        for session in sessions:
            session.wait_for(b'ready')
        for home, session, word in zip(own, sessions, words):
            pids = tree(session.process.pid)
            pv.check(len(pids) >= 5, f'too few processes: {[command_line(pid) for pid in pids]}')
            os.kill(session.process.pid if word == 'run' else session.child(word), signal.SIGKILL)
            session.check_code(-9 if word == 'run' else 1, 15)
            check_all_gone(home, pids)
            if word != 'run':
                lines = [x for x in session.errors().splitlines() if 'was killed by signal 9' in x]
                pv.check(len(lines) == 1, f'after the end of {word} it says: {session.errors()}')
                pv.say(lines[0])


# ---- the console ----


class Terminal:
    """pearvisor on a terminal of its own."""

    def __init__(self, home, *args):
        self.main, self.sub = pty.openpty()
        self.before = termios.tcgetattr(self.sub)
        self.process = subprocess.Popen([pv.PEARVISOR, *args], stdin=self.sub, stdout=self.sub,
                                        stderr=self.sub, env=home.env(), start_new_session=True)
        pv._started.append(self.process)
        self.text = ''

    def expect(self, pattern, seconds=BOOT_S):
        """Read until the pattern comes; drop what was up to its end and return the match."""
        end = time.monotonic() + seconds * pv.SLOW
        while True:
            found = re.search(pattern, self.text, re.S)
            if found:
                self.text = self.text[found.end():]
                return found
            ready = select.select([self.main], [], [], 0.5)[0]
            if ready:
                with contextlib.suppress(OSError):
                    self.text += os.read(self.main, 65536).decode(errors='replace')
            pv.check(ready or self.process.poll() is None,
                     f'ended with {self.process.poll()}:\n{pv._indent(self.text)}')
            pv.check(time.monotonic() < end,
                     f'no {pattern!r} within {seconds} s:\n{pv._indent(self.text, 30)}')

    def type(self, text):
        os.write(self.main, text.encode())

    def wait(self, seconds=60):
        """Exit code; what comes meanwhile is read."""
        end = time.monotonic() + seconds * pv.SLOW
        while self.process.poll() is None:
            pv.check(time.monotonic() < end, f'runs still:\n{pv._indent(self.text)}')
            if select.select([self.main], [], [], 0.2)[0]:
                self.text += os.read(self.main, 65536).decode(errors='replace')
        return self.process.returncode


PROMPT = r'root@[^\r\n]*# '


def check_console_gpu(terminal):
    """The prompt is there before the GPU's driver: udev loads that meanwhile."""
    terminal.type(f'udevadm settle; {VENUS} vulkaninfo --summary | grep deviceName; echo st""atus $?\r')
    out = terminal.expect(r'(.*)status 0', 90).group(1)
    pv.check('Virtio-GPU Venus' in out, f'no Venus:\n{out}')
    terminal.expect(PROMPT)


def test_console():
    """A shell on a terminal; a reboot with the GPU still there; the terminal as it was before."""
    with Home() as home:
        terminal = Terminal(home, 'run', '--snapshot', guests.IMAGE)
        terminal.expect(PROMPT)
        pv.check(termios.tcgetattr(terminal.sub) != terminal.before, 'the terminal is not raw')
        check_console_gpu(terminal)
        terminal.type('reboot\r')
        terminal.expect('reboot: Restarting system')
        terminal.expect(PROMPT)
        check_console_gpu(terminal)
        pids = tree(terminal.process.pid)
        terminal.type('poweroff\r')
        pv.check_equal(terminal.wait(), 0, 'exit code')
        pv.check_equal(termios.tcgetattr(terminal.sub), terminal.before, 'the terminal')
        check_all_gone(home, pids)


# ---- without a boot ----


def test_refusals():
    """What cannot be: a clear line and the right exit code, at once."""
    with Home() as home:
        empty = os.path.join(home.folder, 'empty')
        os.mkdir(empty)
        bare = os.path.join(home.folder, 'bare')  # an image and no engine
        os.makedirs(os.path.join(bare, 'images'))
        os.symlink(home.image, os.path.join(bare, 'images', guests.IMAGE))
        no_qemu = {'PATH': empty, 'PEARVISOR_QEMU': ''}
        image = guests.IMAGE
        for code, words, args, env in [
                (1, 'QEMU 11.1 or newer is needed; run: pearvisor engine install',
                 [image, '--', 'true'], {**no_qemu, 'PEARVISOR_CACHE': bare}),
                # not after minutes of building an image
                (1, 'QEMU 11.1 or newer is needed; run: pearvisor engine install',
                 [image], {**no_qemu, 'PEARVISOR_CACHE': empty}),
                (2, f'there is no image "{image}3"; did you mean "{image}"?', [image + '3'], {}),
                (2, 'there is no image "../etc"', ['../etc'], {}),
                (2, 'which image?', [], {}),
                (2, '"ls" is too much; a command goes behind --', [image, 'ls'], {}),
                (2, 'a command is missing behind --', [image, '--'], {}),
                (2, '--cpus', ['--cpus', '0', image], {}),
                (2, '--cpus', ['--cpus', 'many', image], {}),
                (2, '--memory 12', ['--memory', '12', image], {}),
                (2, '--memory', ['--memory', '-2G', image], {}),
                (2, '--accel warp', ['--accel', 'warp', image], {}),
                (2, '--arch z80', ['--arch', 'z80', image], {}),
                (2, '--display gtk', ['--display', 'gtk', image], {}),
                (2, '--resolution', ['--resolution', '0x5', image], {}),
                (2, '--ssh-port', ['--ssh-port', '65536', image], {}),
                (2, 'exclude', ['--password-file', '/x', '--no-password', image], {}),
                (2, '--timeout is for a command', ['--timeout', '5', image], {}),
                (2, '--snapshots', ['--snapshots', image], {}),
                (2, '--disk', ['--disk', '/dev/null', image], {}),
                (1, '--arch aarch64', ['--arch', 'aarch64', image], {}),
                (1, '--share /nonexistent', ['--share', '/nonexistent', image], {}),
                (1, '--disk /nonexistent', ['--disk', '/nonexistent'], {})]:
            start = time.monotonic()
            session = run(home, *args, env=home.env(**env))
            session.check_code(code, 20)
            seconds = time.monotonic() - start
            lines = session.errors().splitlines()
            pv.check(lines and words in lines[0], f'{args}: it says {lines}')
            pv.check(code == 2 or len(lines) == 1, f'{args}: more than a line: {lines}')
            pv.check(seconds < 5 * pv.SLOW, f'{args}: {seconds:.1f} s')
        home.check_nothing_left()


# ---- doctor ----


def test_doctor():
    """doctor --guest proves what is so, and nothing else."""
    drivers = [(pv.MACHINE.driver_file('lvp'), 0, 'Proven: '), ('/nonexistent.json', 1, 'NOT proven: ')]
    with homes(len(drivers)) as own:
        sessions = [Session(home, 'doctor', '--guest', guests.IMAGE, env=home.env(VK_DRIVER_FILES=driver))
                    for home, (driver, _, _) in zip(own, drivers)]
        for home, session, (_, code, words) in zip(own, sessions, drivers):
            session.check_code(code)
            pv.check(words.encode() in session.stdout(), f'it says:\n{session.stdout().decode()}')
            home.check_nothing_left()


if __name__ == '__main__':
    pv.main(test_refusals, test_three_boots, test_command_not_found, test_interrupted_boot, test_killed,
            test_console, test_doctor)
