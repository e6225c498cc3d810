#!/usr/bin/env python3
"""Many threads in one client, and many clients at once."""
import os
import tempfile

import pv

CLIENTS = 16


def one_client_with_8_threads(side):
    with pv.Server() as server:
        output = pv.run(side, server, 'pv-threads', '--threads', '8', '--iterations', '30',
                        seconds=120)
        pv.say(output.strip().splitlines()[-1])
        server.wait_workers(0)
        server.check_no_errors()


def sixteen_clients():
    """Of both Mesas, with scenes of all kinds, all at once; each must draw what it draws alone."""
    with tempfile.TemporaryDirectory(dir='/tmp') as folder, pv.Server('--stats') as server:
        os.chmod(folder, 0o777)
        listing = pv.run(pv.MACHINE, None, 'pv-render', '--list')
        names = [line.split()[0] for line in listing.splitlines() if line.strip()]
        chosen = names[::max(1, len(names) // (CLIENTS // 2))][:CLIENTS // 2]

        def start(side, to, scene, name):
            return pv.Client(side, to, 'pv-render', '--scene', scene, '--size', '320x200',
                             '--frames', '20', '--raw', f'{folder}/{name}', '--quiet')

        alone = {}
        for scene in chosen:
            client = start(pv.MACHINE, None, scene, 'alone')
            code = client.wait(60)
            if code == 77:
                continue
            pv.check(code == 0, f'{client.name} ({client.where}) ended with {code}')
            with open(f'{folder}/alone', 'rb') as file:
                alone[scene] = file.read()
        scenes = list(alone)
        clients = []
        for i in range(CLIENTS):
            scene = scenes[i // 2 % len(scenes)]
            client = start(pv.SIDES[i % 2], server, scene, f'{i}')
            clients.append((client, scene, f'{folder}/{i}'))
        peak = 0
        while any(client.running() for client, _, _ in clients):
            peak = max(peak, len(server.workers()))
            pv.time.sleep(0.01)
        for client, scene, path in clients:
            client.check_ok(120)
            with open(path, 'rb') as file:
                pv.check(file.read() == alone[scene],
                         f'{scene} ({client.where}) differs from what it is alone')
        server.wait_workers(0)
        server.check_no_errors()
        pv.say(f'{CLIENTS} clients, {len(scenes)} scenes, up to {peak} workers at a time')
        pv.check(peak >= CLIENTS // 2, f'only {peak} clients were there at a time')


if __name__ == '__main__':
    pv.main(pv.for_sides(one_client_with_8_threads), sixteen_clients)
