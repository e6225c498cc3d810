#!/usr/bin/env python3
"""Every shell script of the project passes shellcheck: test_shellcheck.py SOURCE"""
import os
import shutil
import subprocess
import sys


def is_shell(path):
    with open(path, 'rb') as file:
        first = file.readline()
    return path.endswith('.sh') or (first.startswith(b'#!') and first.split()[-1].endswith(b'sh'))


def scripts(source):
    for folder, below, names in os.walk(source):
        below[:] = [name for name in below if name == '.ci' or not name.startswith(('.', 'build'))]
        for name in names:
            path = os.path.join(folder, name)
            if os.path.isfile(path) and not os.path.islink(path) and is_shell(path):
                yield os.path.relpath(path, source)


def main():
    if not shutil.which('shellcheck'):
        print('skipped: no shellcheck (scripts/setup.sh test installs it)')
        return 77
    source = sys.argv[1]
    found = sorted(scripts(source))
    for path in ('scripts/setup.sh', 'guest/build-image.sh', 'guest/setup-debian.sh'):
        if path not in found:
            print('%s is not among the %d scripts found' % (path, len(found)))
            return 1
    print('checking', *found)
    return subprocess.run(['shellcheck', *found], cwd=source, check=False).returncode


sys.exit(main())
