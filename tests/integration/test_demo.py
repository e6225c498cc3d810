#!/usr/bin/env python3
"""scripts/demo-vtest.sh with short scenes: it runs, prints a ratio for each, and leaves a picture."""
import os
import re
import struct
import subprocess
import tempfile
import zlib

import pv

SCENES = ['clear', 'cube']


def read_png(path):
    """Width, height and the pixels' bytes, unfiltered by nobody: enough to see that they vary."""
    with open(path, 'rb') as file:
        data = file.read()
    pv.check(data[:8] == b'\x89PNG\r\n\x1a\n', f'{path} is no PNG')
    at, packed, size = 8, b'', None
    while at < len(data):
        length, kind = struct.unpack('>I4s', data[at:at + 8])
        body = data[at + 8:at + 8 + length]
        if kind == b'IHDR':
            size = struct.unpack('>II', body[:8])
        elif kind == b'IDAT':
            packed += body
        at += 12 + length
    return size, zlib.decompress(packed)


def test_demo():
    side = pv.Side('Debian 13 root', 'trixie-stock')
    side.driver_file('lvp')
    pv.MACHINE.driver_file('virtio')
    # The demo writes into the build folder; ours must not overwrite what a person looks at.
    with tempfile.TemporaryDirectory(dir='/tmp', prefix='pv-demo.') as build:
        os.symlink(f'{pv.PLAIN}/tests', f'{build}/tests')
        env = {k: v for k, v in os.environ.items() if not k.startswith(('VK_', 'VN_', 'VTEST_'))}
        # The server runs in the root, which has no sanitizer libraries.
        env.update(BUILD=build, SERVER=f'{pv.PLAIN}/pearvisor', SCENES=' '.join(SCENES),
                   SECONDS_PER_SCENE='1', ROUNDS='1')
        os.symlink(f'{pv.PLAIN}/pearvisor', f'{build}/pearvisor')
        demo = subprocess.run([f'{pv.SOURCE}/scripts/demo-vtest.sh'], env=env, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              timeout=120 * pv.SLOW)
        pv.check_equal(demo.returncode, 0, f'exit code of the demo, which said:\n{demo.stdout}\n')
        for scene in SCENES:
            row = re.search(rf'^ *{scene} +(\d+) +(\d+) +([0-9.]+)$', demo.stdout, re.M)
            pv.check(row, f'no numbers for {scene}:\n{demo.stdout}')
            pv.check(float(row.group(3)) > 0, f'{scene}: ratio {row.group(3)}')
            pv.say(f'{scene}: {row.group(1)} natively, {row.group(2)} through Venus')
        picture = f'{build}/demo/frame.png'
        pv.check(picture in demo.stdout, f'the demo does not name its picture:\n{demo.stdout}')
        size, pixels = read_png(picture)
        pv.check_equal(size, (640, 480), 'size of the picture')
        pv.check(len(set(pixels)) > 16, 'the picture is empty')


def test_leaves_nothing_behind():
    left = [name for name in os.listdir('/tmp') if name.startswith('pearvisor-demo.')]
    for name in left:
        pv.check(not os.path.exists(f'/tmp/{name}/sock'), f'/tmp/{name} is left of a demo')


if __name__ == '__main__':
    pv.main(test_demo, test_leaves_nothing_behind)
