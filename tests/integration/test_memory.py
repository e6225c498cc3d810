#!/usr/bin/env python3
"""Memory that clients map: pv-memory with both Mesas, up to 1 GiB, and what is left of it."""
import re

import pv

MIB = 1 << 20
# The largest step of pv-memory takes two buffers, and a server with shadow memory both twice.
STEPS = [(1024, '1G'), (512, '512M'), (256, '256M'), (64, '64M')]


def largest():
    available = pv.available_memory()
    for mib, text in STEPS:
        if available > 5 * mib * MIB:
            return text
    raise pv.Skip(f'only {available // MIB} MiB of memory are available')


def check_all_passed(output):
    types = set(re.findall(r'^memory type (\d+):', output, re.M))
    pv.check(types, f'pv-memory tested nothing:\n{output}')
    for index in types:
        for what in ('all sizes', 'persistent mapping', 'watched without a fence'):
            pv.check(re.search(rf'^memory type {index}: .*{what}.* ok', output, re.M),
                     f'memory type {index}: no word of "{what}":\n{output}')
    return len(types)


def run_both_ways(side, *args):
    natively = pv.run(pv.MACHINE, None, 'pv-memory', '--max', '1M')
    with pv.Server() as server:
        server_memory = pv.memory_kib(server.pid)
        server_fds = pv.fd_count(server.pid)
        output = pv.run(side, server, 'pv-memory', *args, seconds=180)
        pv.check_equal(check_all_passed(output), check_all_passed(natively),
                       'memory types that can be mapped')
        server.wait_workers(0)
        server.check_no_errors()
        pv.check_equal(pv.fd_count(server.pid), server_fds, 'fds of the server afterwards')
        grown = pv.memory_kib(server.pid) - server_memory
        pv.check(grown < 1024 or pv.SANITIZED, f'the server has grown by {grown} KiB')
    return output


def up_to_the_largest(side):
    size = largest()
    output = run_both_ways(side, '--max', size)
    pv.check('left out' not in output, f'the heap is too small for {size}:\n{output}')
    pv.say(f'1 byte to {size}')


def many_small_ones(side):
    run_both_ways(side, '--max', '4K', '--allocations', '3000')


def unclean_end(side):
    """A client that is killed with a lot of memory: all of it comes back."""
    with pv.Server() as server:
        before = pv.available_memory()
        client = pv.Client(side, server, 'pv-memory', '--max', '256M', '--loops', '100000')
        client.wait_for('all sizes', 120)
        worker = server.wait_workers(1)[0]
        client.kill()
        server.wait_workers(0)
        pv.check(not pv.exists(worker), 'the worker is still there')
        # Others use this machine too, so this is no exact science.
        pv.wait_until(lambda: pv.available_memory() > before - 600 * MIB, 15,
                      'memory of a killed client coming back')


if __name__ == '__main__':
    pv.main(pv.for_sides(up_to_the_largest), pv.for_sides(many_small_ones),
            pv.for_sides(unclean_end))
