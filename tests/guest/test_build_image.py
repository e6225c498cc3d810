#!/usr/bin/env python3
"""guest/build-image.sh without building: test_build_image.py SOURCE

A made-up mmdebstrap shows what is left of a build that fails, is stopped or is killed: nothing. What a whole
build makes is booted by the other tests of this suite.
"""
import fcntl
import json
import os
import signal
import subprocess
import sys
import tempfile
import time

SCRIPT = os.path.join(sys.argv[1], 'guest', 'build-image.sh')


def check(condition, *message):
    if not condition:
        raise AssertionError(' '.join(str(part) for part in message))


class Cache:
    """A cache of its own, and a mmdebstrap that does what the test says."""

    def __init__(self, folder):
        self.folder = folder
        self.images = os.path.join(folder, 'images')
        self.env = dict(os.environ, PEARVISOR_CACHE=folder, PEARVISOR_MIRROR='http://localhost/debian',
                        PATH=os.path.join(folder, 'bin') + ':' + os.environ['PATH'])
        os.makedirs(os.path.join(folder, 'bin'))
        self.mmdebstrap('exit 1')

    def mmdebstrap(self, text):
        path = os.path.join(self.folder, 'bin', 'mmdebstrap')
        with open(path, 'w', encoding='utf-8') as file:
            file.write('#!/bin/bash\nfor root; do :; done; set -- "${@: -2:1}"; mkdir -p "$1/etc"\n' + text + '\n')
        os.chmod(path, 0o755)

    def start(self, *args):
        return subprocess.Popen([SCRIPT, *args], env=self.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                text=True)

    def run(self, *args):
        process = self.start(*args)
        out, errors = process.communicate(timeout=30)
        return process.returncode, out, errors.splitlines()

    def left(self):
        """What is in images/, locks aside."""
        names = os.listdir(self.images) if os.path.isdir(self.images) else []
        return [name for name in names if not name.endswith('.lock')]

    def make_image(self, recipe='another'):
        folder = os.path.join(self.images, 'debian-13')
        os.makedirs(folder)
        for name, text in (('disk.img', ''), ('image.json', '{\n  "recipe": "%s",\n  "name": "x"\n}\n' % recipe)):
            with open(os.path.join(folder, name), 'w', encoding='utf-8') as file:
                file.write(text)
        os.utime(os.path.join(folder, 'disk.img'), (1, 1))
        return folder

    def wait_for(self, path):
        end = time.monotonic() + 20
        while not os.path.exists(path):
            check(time.monotonic() < end, path, 'did not appear')
            time.sleep(0.02)


def test_bad_options(cache):
    for args in (['--name', '../x'], ['--size', '12'], ['--release', '13'], ['--mesa', 'git'], ['--arch', 'mips'],
                 ['--packages', 'a;b'], ['--nonsense'], ['--name']):
        code, out, errors = cache.run(*args)
        check(code == 1 and out == '' and len(errors) == 1, args, code, out, errors)
        check(cache.left() == [], cache.left())
    code, out, _ = cache.run('--help')
    check(code == 0 and '--packages' in out, code, out)


def test_failure_leaves_nothing(cache):
    cache.mmdebstrap('echo "E: Failure resolving deb" >&2; exit 1')
    code, _, errors = cache.run()
    check(code == 1 and 'cannot be reached' in errors[-1], code, errors)
    check(cache.left() == [], cache.left())
    cache.mmdebstrap('echo "No space left on device" >&2; exit 1')
    code, _, errors = cache.run()
    check(code == 1 and 'disk is full' in errors[-1] and cache.left() == [], code, errors, cache.left())


def test_stopped_leaves_nothing(cache):
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        cache.mmdebstrap('echo $$ >"$1/started"; exec sleep 321')
        process = cache.start()
        cache.wait_for(os.path.join(cache.images, '.debian-13.new', 'root', 'started'))
        process.send_signal(number)
        _, errors = process.communicate(timeout=20)
        check(process.returncode == 1 and 'nothing is left' in errors, process.returncode, errors)
        check(cache.left() == [], cache.left())
        check(not running('sleep 321'), 'a process is left')


def test_killed_is_cleared_by_the_next(cache):
    cache.mmdebstrap('echo $$ >"$1/started"; exec sleep 322')
    process = cache.start()
    cache.wait_for(os.path.join(cache.images, '.debian-13.new', 'root', 'started'))
    process.kill()
    process.communicate(timeout=20)
    time.sleep(0.5)
    check(not running('sleep 322'), 'a process is left')
    cache.mmdebstrap('exit 1')
    code, _, _ = cache.run()
    check(code == 1 and cache.left() == [], code, cache.left())


def test_failure_keeps_the_old_one(cache):
    folder = cache.make_image()
    code, _, _ = cache.run('--force')
    check(code == 1 and cache.left() == ['debian-13'], code, cache.left())
    check(sorted(os.listdir(folder)) == ['disk.img', 'image.json'], os.listdir(folder))


def test_what_guests_wrote_stays(cache):
    folder = cache.make_image()
    with open(os.path.join(folder, 'overlay.qcow2'), 'w', encoding='utf-8'):
        pass
    code, out, _ = cache.run()
    check(code == 0 and 'it stays' in out, code, out)
    code, out, _ = cache.run('--json')
    check(code == 0 and json.loads(out)['recipe'] == 'another', code, out)


def test_running_guest(cache):
    folder = cache.make_image()
    with open(os.path.join(folder, 'overlay.lock'), 'w', encoding='utf-8') as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        code, _, errors = cache.run('--force')
    check(code == 1 and len(errors) == 1 and 'a guest is running' in errors[0], code, errors)


def running(words):
    done = subprocess.run(['ps', '-eo', 'stat,args'], capture_output=True, text=True, check=True)
    return any(line.endswith(words) and line[0] != 'Z' for line in done.stdout.splitlines())


def main():
    if os.geteuid() != 0:
        print('skipped: building a root needs root')
        return 77
    failed = 0
    for name, test in sorted(globals().items()):
        if name.startswith('test_'):
            with tempfile.TemporaryDirectory() as folder:
                try:
                    test(Cache(folder))
                    print('ok', name[5:].replace('_', ' '))
                except AssertionError as error:
                    failed += 1
                    print('FAILED', name[5:].replace('_', ' '), '\n   ', error)
    return 1 if failed else 0


sys.exit(main())
