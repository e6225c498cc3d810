"""What the integration tests share: a server, clients with one Mesa or another, and checks.

A test file defines functions and ends with pv.main(test_one, test_two, ...). Each prints one line; the
file exits with 1 if one failed, with 77 if all were skipped. Standard library only.

Where a client runs is a Side: the machine with its own Mesa, or a Debian root that scripts/root.sh
made (a root that is not there is a skip). The server runs on the machine unless told otherwise.
"""
import contextlib
import glob
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback

SOURCE = os.path.realpath(
    os.environ.get('PV_SOURCE', os.path.join(os.path.dirname(__file__), '..', '..')))
BUILD = os.path.realpath(os.environ.get('PV_BUILD', os.path.join(SOURCE, 'build')))
SANITIZED = os.environ.get('PV_SANITIZED', '')
# The clients are not what is tested, and Mesa under a sanitizer's eyes is noise: with a sanitized
# server they come from the plain build beside it, if there is one.
PLAIN = os.path.realpath(os.environ.get('PV_BUILD_PLAIN', BUILD))
if not os.path.exists(os.path.join(PLAIN, 'pearvisor')):
    PLAIN = BUILD
PEARVISOR = os.path.join(BUILD, 'pearvisor')

TICK = os.sysconf('SC_CLK_TCK')
# All time-outs are generous by themselves; a sanitizer multiplies.
SLOW = 4 if SANITIZED else 1

_started = []  # processes that end with us


class Failure(Exception):
    """A check that does not hold."""


class Skip(Exception):
    """Something that is not here, and not our fault."""


def vk_xml():
    """Path of the registry that we are built from."""
    path = os.environ.get('PV_VK_XML')
    if not path:
        headers = subprocess.run([f'{SOURCE}/scripts/setup.sh', '--print-headers'],
                                 capture_output=True, text=True, check=True)
        path = headers.stdout.strip() + '/share/vulkan/registry/vk.xml'
    return path


# ---- checks ----


def check(condition, message):
    if not condition:
        raise Failure(message)


def check_equal(got, wanted, what):
    if got != wanted:
        raise Failure(f'{what}: {got!r} instead of {wanted!r}')


def say(text):
    print(f'  {text}', flush=True)


def wait_until(condition, seconds, what):
    """Wait for condition() to hold, and return its value."""
    end = time.monotonic() + seconds * SLOW
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise Failure(f'{what}: not within {seconds * SLOW} s')
        time.sleep(0.02)


# ---- sides ----


class Side:
    """Where programs run: the machine, or a Debian root."""

    def __init__(self, name, root=None):
        self.name = name
        self.root = root  # name for root.sh, or None: the machine
        self._folder = None

    def folder(self):
        """The root's folder; '' for the machine. Skips if it is not made yet."""
        if self.root is None:
            return ''
        if self._folder is None:
            found = subprocess.run([f'{SOURCE}/scripts/root.sh', '--path', self.root],
                                   capture_output=True, text=True)
            if found.returncode != 0:
                raise Skip(f"no Debian root '{self.root}': run scripts/setup.sh test")
            self._folder = found.stdout.strip()
        return self._folder

    def driver_file(self, driver):
        """Path of a driver's description as programs there see it."""
        folder = self.folder()
        found = sorted(glob.glob(f'{folder}/usr/share/vulkan/icd.d/{driver}_icd*.json'))
        if not found:
            raise Skip(f"no Vulkan driver '{driver}' in {folder or 'the machine'}: "
                       'run scripts/setup.sh test')
        return found[0][len(folder):]

    def program(self, name):
        """Path of a program: one of ours by its name, or one that the side has."""
        if name.startswith('pv-'):
            path = os.path.join(PLAIN, 'tests', 'clients', name)
            check(os.path.exists(path), f'{path} is not built')
            return path
        if self.root is None:
            path = shutil.which(name)
        else:
            path = os.path.join('/usr/bin', name)
            path = path if os.path.exists(self.folder() + path) else None
        if path is None:
            raise Skip(f'{name} is not installed ({self.name}): run scripts/setup.sh test')
        return path

    def wrap(self, command):
        """The command line that runs a command on this side."""
        if self.root is None:
            return command
        binds = []
        for folder in {PLAIN, BUILD}:
            binds += ['--bind', folder]
        return [f'{SOURCE}/scripts/in-root.sh', self.root, *binds, '--', *command]


MACHINE = Side('machine')
TRIXIE = Side('Mesa 26.1 in a Debian 13 root', 'trixie')
# Both Mesas, as clients.
SIDES = [MACHINE, TRIXIE]


def _environment(driver_file, server, extra):
    env = {k: v for k, v in os.environ.items()
           if not k.startswith(('VK_', 'VN_', 'VTEST_', 'MESA_', 'LP_', 'PV_')) and k != 'DISPLAY'}
    env['VK_DRIVER_FILES'] = driver_file
    if server is not None:
        env['VN_DEBUG'] = 'vtest'
        env['VTEST_SOCKET_NAME'] = server.socket
    env.update(extra or {})
    return env


def own_pid(process):
    """Of the program itself. Where entering a root takes sudo, the process we know is sudo's, which
    does not pass our signals on."""
    pid = process.pid
    while comm(pid) == 'sudo':
        inside = children(pid)
        if not inside:
            return pid
        pid = inside[0]
    return pid


# ---- clients ----


class Client:
    """A program that runs in the background, natively (server None) or through Venus."""

    def __init__(self, side, server, name, *args, env=None, cwd=None):
        self.name = f'{name} {" ".join(args)}'.strip()
        self.server = server
        self.where = f'{side.name}, {"natively" if server is None else "through Venus"}'
        driver = side.driver_file('lvp' if server is None else 'virtio')
        command = side.wrap([side.program(name), *args])
        self._out = tempfile.TemporaryFile('w+', errors='replace')
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=self._out, stderr=subprocess.STDOUT,
            env=_environment(driver, server, env), cwd=cwd or '/tmp', start_new_session=True)
        _started.append(self.process)

    def output(self):
        self._out.seek(0)
        return self._out.read()

    def wait(self, seconds=60):
        """Exit code; negative for a signal. A program that does not end is killed, and a failure."""
        try:
            return self.process.wait(seconds * SLOW)
        except subprocess.TimeoutExpired:
            stacks = self.stacks()
            self.kill()
            raise Failure(f'{self.name} ({self.where}) did not end within {seconds * SLOW} s; it '
                          f'said:\n{_indent(self.output())}\n{_indent(stacks, 200)}') from None

    def stacks(self):
        """Where a client that hangs is, and where its worker is."""
        pids = [own_pid(self.process)]
        if self.server is not None and self.server.process.poll() is None:
            with contextlib.suppress(Failure):
                pids.append(self.server.worker_of(self))
        return '\n'.join(stacks(pid) for pid in pids)

    def wait_for(self, text, seconds=30):
        def seen():
            if text in self.output():
                return True
            check(self.process.poll() is None,
                  f'{self.name} ({self.where}) ended with {self.process.poll()} before it said '
                  f'"{text}":\n{_indent(self.output())}')
            return False
        wait_until(seen, seconds, f'"{text}" from {self.name} ({self.where})')

    def running(self):
        return self.process.poll() is None

    def signal(self, number):
        if self.running():
            with contextlib.suppress(ProcessLookupError):
                os.kill(own_pid(self.process), number)

    def kill(self):
        self.signal(signal.SIGKILL)
        self.process.wait(30)

    def check_ok(self, seconds=60):
        code = self.wait(seconds)
        check(code == 0, f'{self.name} ({self.where}) ended with {code}:\n{_indent(self.output())}')
        return self.output()


def run(side, server, name, *args, seconds=60, env=None, cwd=None):
    """Run a program to its end, which must be a good one; returns what it said."""
    return Client(side, server, name, *args, env=env, cwd=cwd).check_ok(seconds)


def _indent(text, lines=15):
    shown = text.rstrip().splitlines()[-lines:]
    return '\n'.join(f'    | {line}' for line in shown) or '    | (nothing)'


# ---- the server ----


class Server:
    """pearvisor vtest on a socket in a folder of its own; `with Server() as server:`."""

    def __init__(self, *args, side=MACHINE, env=None):
        self.args = args
        self.side = side
        self.env = env
        self.process = None
        self.wanted_exit_code = 0

    def __enter__(self):
        # Not below a long TMPDIR: a socket's path has at most 107 bytes.
        self.folder = tempfile.mkdtemp(prefix='pv-test.', dir='/tmp')
        self.socket = os.path.join(self.folder, 'socket')
        self.log_path = os.path.join(self.folder, 'log')
        start_path = os.path.join(self.folder, 'start')
        build = BUILD if self.side.root is None else PLAIN
        command = self.side.wrap([os.path.join(build, 'pearvisor'), 'vtest', '--socket',
                                  self.socket, '--json', *self.args])
        env = _environment(self.side.driver_file('lvp'), None, self.env)
        with open(start_path, 'w') as out, open(self.log_path, 'w') as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out,
                                            stderr=log, env=env, cwd='/', start_new_session=True)
        _started.append(self.process)

        def started():
            check(self.process.poll() is None,
                  f'the server ended with {self.process.poll()}:\n{_indent(self.log())}')
            with open(start_path) as file:
                line = file.read()
            return json.loads(line) if line.endswith('\n') else None
        self.start = wait_until(started, 30, 'start of the server')
        self.pid = self.start['pid']
        return self

    def __exit__(self, kind, error, trace):
        try:
            code = self.stop()
            if kind is None:
                check_equal(code, self.wanted_exit_code, 'exit code of the server')
        except Failure:
            if kind is None:
                raise
        finally:
            if self.process.poll() is None:
                os.kill(own_pid(self.process), signal.SIGKILL)
                self.process.wait()
            if kind is not None and not issubclass(kind, Skip):
                print(f"  the server's log ended so:\n{_indent(self.log(), 25)}")
            shutil.rmtree(self.folder, ignore_errors=True)
        return False

    def stop(self, seconds=15):
        """SIGTERM, and wait; returns the exit code."""
        if self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(own_pid(self.process), signal.SIGTERM)
        try:
            return self.process.wait(seconds * SLOW)
        except subprocess.TimeoutExpired:
            raise Failure(f'the server runs {seconds * SLOW} s after SIGTERM') from None

    def log(self):
        with open(self.log_path, errors='replace') as file:
            return file.read()

    def wait_log(self, pattern, seconds=15):
        return wait_until(lambda: re.search(pattern, self.log()), seconds,
                          f'"{pattern}" in the log of the server')

    def workers(self):
        """Process ids, in the order of their start."""
        return children(self.pid)

    def wait_workers(self, count, seconds=15):
        wait_until(lambda: len(self.workers()) == count, seconds,
                   f'{count} workers (there are {len(self.workers())})')
        return self.workers()

    def worker_of(self, client):
        """Process id of the worker that serves a client: they share memory, the rings."""
        shared = shared_memory(own_pid(client.process))
        found = [pid for pid in self.workers() if shared & shared_memory(pid)]
        check(len(found) == 1, f'{len(found)} workers share memory with {client.name}')
        return found[0]

    def check_no_errors(self):
        """No line of the log is an error or a warning."""
        bad = [line for line in self.log().splitlines() if line.startswith(('error:', 'warn'))]
        check(not bad, f'the server complained: {bad[:5]}')


# ---- processes ----


def children(pid):
    try:
        with open(f'/proc/{pid}/task/{pid}/children') as file:
            return [int(word) for word in file.read().split()]
    except FileNotFoundError:
        return []


def comm(pid):
    try:
        with open(f'/proc/{pid}/comm') as file:
            return file.read().strip()
    except FileNotFoundError:
        return ''


def exists(pid):
    return os.path.exists(f'/proc/{pid}')


def shared_memory(pid):
    """Inodes of the memory files that a process has mapped."""
    try:
        with open(f'/proc/{pid}/maps') as file:
            return {line.split()[4] for line in file if '/memfd:' in line}
    except FileNotFoundError:
        return set()


def stacks(pid):
    """What the threads of a process do: by gdb if it is here, else where in the kernel they wait."""
    text = f'process {pid} ({comm(pid)})\n'
    if shutil.which('gdb'):
        with contextlib.suppress(subprocess.TimeoutExpired):
            found = subprocess.run(['gdb', '-p', str(pid), '-batch', '-ex', 'thread apply all bt 12'],
                                   capture_output=True, text=True, timeout=60)
            lines = [line for line in found.stdout.splitlines() if line.startswith(('#', 'Thread'))]
            return text + '\n'.join(lines)
    with contextlib.suppress(OSError):
        for thread in os.listdir(f'/proc/{pid}/task'):
            with open(f'/proc/{pid}/task/{thread}/comm') as name, \
                    open(f'/proc/{pid}/task/{thread}/wchan') as where:
                text += f'{thread} {name.read().strip()}: {where.read() or "running"}\n'
    return text


def fd_count(pid):
    return len(os.listdir(f'/proc/{pid}/fd'))


def memory_kib(pid, field='VmRSS'):
    with open(f'/proc/{pid}/status') as file:
        for line in file:
            if line.startswith(field + ':'):
                return int(line.split()[1])
    return 0


def own_kib(pid):
    """Memory that goes when the process goes, in KiB: anonymous and shared memory, shared pages by
    their share. Not the pages of libraries: how many of these count depends on who else uses them."""
    fields = {}
    with open(f'/proc/{pid}/smaps_rollup') as file:
        for line in file:
            name, _, value = line.partition(':')
            if value.strip().endswith('kB'):
                fields[name] = int(value.split()[0])
    return fields['Pss_Anon'] + fields['Pss_Shmem']


def cpu_ticks(pid):
    """Processor time so far, user and system, all threads."""
    with open(f'/proc/{pid}/stat') as file:
        fields = file.read().rsplit(')', 1)[1].split()
    return int(fields[11]) + int(fields[12])


def available_memory():
    with open('/proc/meminfo') as file:
        for line in file:
            if line.startswith('MemAvailable:'):
                return int(line.split()[1]) << 10
    return 0


# ---- the runner ----


def for_sides(test):
    """Make one test of each Mesa of a test(side)."""
    def make(side):
        def one():
            test(side)
        one.__name__ = f'{test.__name__} [{side.name}]'
        return one
    return [make(side) for side in SIDES]


def main(*tests):
    """Run tests (or those named on the command line), report, and exit."""
    flat = []
    for test in tests:
        flat += test if isinstance(test, list) else [test]
    if len(sys.argv) > 1:
        flat = [t for t in flat if any(name in t.__name__ for name in sys.argv[1:])]
    check(os.path.exists(PEARVISOR), f'{PEARVISOR} is not built')
    failed = passed = 0
    for test in flat:
        start = time.monotonic()
        try:
            test()
            verdict = 'ok'
            passed += 1
        except Skip as reason:
            verdict = f'skipped: {reason}'
        except Failure as failure:
            verdict = f'FAILED: {failure}'
            failed += 1
        except Exception:  # pylint: disable=broad-except
            verdict = f'FAILED: {traceback.format_exc()}'
            failed += 1
        finally:
            for process in _started:
                if process.poll() is None:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(own_pid(process), signal.SIGKILL)
                    process.wait()
            _started.clear()
        print(f'{test.__name__} ({time.monotonic() - start:.1f} s): {verdict}', flush=True)
    sys.exit(1 if failed else 0 if passed else 77)
