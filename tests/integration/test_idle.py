#!/usr/bin/env python3
"""A client that does nothing costs nothing: no processor time, and little memory."""
import time

import pv

SECONDS = 10
# What 10 s of the scheduler's bookkeeping may come to.
TICKS_MAX = 2
# Of the worker, above what the host driver takes in a process of its own.
MEMORY_MAX_KIB = 40 << 10


def bare_driver_kib():
    """Memory of a process with nothing but an instance and a device of the host driver."""
    client = pv.Client(pv.MACHINE, None, 'pv-loop', '--bare', '60')
    client.wait_for('ready')
    memory = pv.own_kib(pv.own_pid(client.process))
    client.kill()
    return memory


def idle_client(side):
    bare = bare_driver_kib()
    with pv.Server() as server:
        client = pv.Client(side, server, 'pv-loop', '--idle', str(SECONDS + 50))
        client.wait_for('ready')
        time.sleep(1)  # rings stay awake a moment after their last command
        processes = [server.pid, *server.wait_workers(1)]
        before = [pv.cpu_ticks(pid) for pid in processes]
        time.sleep(SECONDS)
        used = sum(pv.cpu_ticks(pid) - ticks for pid, ticks in zip(processes, before))
        memory = pv.own_kib(processes[1])
        pv.check(client.running(), 'the client has ended')
        client.kill()
        server.wait_workers(0)
        pv.say(f'{used} ticks of {1000 // pv.TICK} ms in {SECONDS} s; worker: {memory / 1024:.1f} '
               f'MiB, the bare driver {bare / 1024:.1f} MiB')
        pv.check(used <= TICKS_MAX, f'an idle client costs {used} ticks in {SECONDS} s')
        if not pv.SANITIZED:
            pv.check(memory - bare < MEMORY_MAX_KIB,
                     f'the worker takes {memory - bare} KiB more than the bare driver')


def no_client():
    with pv.Server() as server:
        before = pv.cpu_ticks(server.pid)
        time.sleep(3)
        used = pv.cpu_ticks(server.pid) - before
        pv.check(used == 0, f'a server without clients costs {used} ticks in 3 s')


if __name__ == '__main__':
    pv.main(pv.for_sides(idle_client), no_client)
