#!/usr/bin/env python3
"""Every scene of pv-render, natively and through Venus with both Mesas: the same bytes.

The host driver is the same in all three, so the pixels must be too.
"""
import os
import tempfile

import pv

# Scenes that the driver can do and that cannot be done through Venus: (Mesa's side, scene): why.
ONLY_NATIVE = {}

SKIP = 77


def scenes():
    listing = pv.run(pv.MACHINE, None, 'pv-render', '--list')
    names = [line.split()[0] for line in listing.splitlines() if line.strip()]
    pv.check(len(names) >= 8, f'pv-render lists {len(names)} scenes only')
    return names


def render(side, server, scene, size, path, frames=1):
    """Exit code, and the raw file if that is 0."""
    client = pv.Client(side, server, 'pv-render', '--scene', scene, '--size', size, '--frames',
                       str(frames), '--raw', path, '--quiet')
    code = client.wait(60)
    if code == SKIP:
        return SKIP, client.output().strip()
    pv.check(code == 0, f'{client.name} ({client.where}) ended with {code}:\n{client.output()}')
    with open(path, 'rb') as file:
        pixels = file.read()
    os.remove(path)
    width, height = map(int, size.split('x'))
    pv.check_equal(len(pixels), width * height * 4, f'bytes of {scene}')
    return 0, pixels


def describe_difference(native, venus, width):
    wrong = [i for i in range(0, len(native), 4) if native[i:i + 4] != venus[i:i + 4]]
    at = wrong[0] // 4
    return (f'{len(wrong)} of {len(native) // 4} pixels differ, the first at {at % width},'
            f'{at // width}: {venus[wrong[0]:wrong[0] + 4].hex()} instead of '
            f'{native[wrong[0]:wrong[0] + 4].hex()}')


def compare_all(size, frames):
    failures, skipped = [], []
    same = 0
    with tempfile.TemporaryDirectory(dir='/tmp') as folder, pv.Server() as server:
        os.chmod(folder, 0o777)
        path = f'{folder}/frame.raw'
        for scene in scenes():
            code, native = render(pv.MACHINE, None, scene, size, path, frames)
            if code == SKIP:
                skipped.append(f'{scene}: {native}')
                continue
            pv.check(len(set(native)) > 2, f'{scene} is empty: the comparison would prove nothing')
            for side in pv.SIDES:
                code, venus = render(side, server, scene, size, path, frames)
                if code == SKIP:
                    why = ONLY_NATIVE.get((side.name, scene))
                    if why:
                        skipped.append(f'{scene} ({side.name}): {why}')
                    else:
                        failures.append(f'{scene} ({side.name}) works natively only: {venus}')
                elif venus != native:
                    width = int(size.split('x')[0])
                    failures.append(f'{scene} ({side.name}): ' +
                                    describe_difference(native, venus, width))
                else:
                    same += 1
        server.wait_workers(0)
        if not failures:
            server.check_no_errors()
        for line in skipped:
            pv.say(f'left out: {line}')
        pv.say(f'{same} pictures of {size} are the same bit for bit')
        pv.check(not failures, '\n    '.join(['pictures differ:', *failures]))
        pv.check(same > 0, 'nothing was compared')


def test_all_scenes():
    compare_all('256x256', 1)


def test_all_scenes_after_some_frames():
    # Resources are used again, and two frames are in flight. An odd size: rows are no power of two.
    compare_all('173x131', 5)


if __name__ == '__main__':
    pv.main(test_all_scenes, test_all_scenes_after_some_frames)
