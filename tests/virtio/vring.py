"""A virtqueue from the driver's side: what split and packed rings share."""
import contextlib
import os
import select
import threading
import time

import pv

F_NEXT, F_WRITE, F_INDIRECT = 1, 2, 4


class Vring:
    """Puts chains of buffers into a ring and takes them back. Sub-classes know the layout.

    A chain is a list of (address, length, device_writes). What add() returns names the chain until
    collect() has seen it come back.
    """
    packed = False

    def __init__(self, memory, size=256, event_idx=True, indirect=True):
        self.memory, self.size = memory, size
        self.event_idx, self.indirect = event_idx, indirect
        self.kick_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.call_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.err_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.kicks = self.calls = 0
        self._lock = threading.Lock()
        self.order = []  # tokens as they came back
        self._last_token = 0
        self._tokens = {}  # in flight, by what the ring calls a chain
        self._done = {}    # token: bytes written
        self._tables = {}  # token: (address, size) of an indirect table

    def close(self):
        for fd in (self.kick_fd, self.call_fd, self.err_fd):
            if fd >= 0:
                os.close(fd)
        self.kick_fd = self.call_fd = self.err_fd = -1

    def barrier(self):
        """A full memory barrier: what taking a lock comes with."""
        with self._lock:
            pass

    def add(self, chain, indirect=None):
        """Put a chain into the ring; returns a token that is used once."""
        if indirect is None:
            indirect = self.indirect and len(chain) > 1
        table = None
        if indirect:
            data = self.indirect_table(chain)
            table = (self.memory.alloc(len(data)), len(data))
            self.memory.write(table[0], data)
        self._last_token += 1
        token = self._last_token
        if table:
            self._tables[token] = table
        self._tokens[self.put(chain, table)] = token
        return token

    def put(self, chain, table):
        """Make a chain available, by its indirect table if there is one; what the ring calls it."""
        raise NotImplementedError

    def indirect_table(self, chain):
        raise NotImplementedError

    def force_kick(self):
        self.kicks += 1
        os.eventfd_write(self.kick_fd, 1)

    def kick(self):
        """Tell the device of new chains, if it wants to know."""
        self.barrier()
        if self.wants_kick():
            self.force_kick()

    def wants_kick(self):
        raise NotImplementedError

    def take(self):
        """(what the ring calls it, bytes written) of a chain that came back since, or None."""
        raise NotImplementedError

    def want_call(self):
        """Ask for an interrupt with the next chain."""
        raise NotImplementedError

    def collect(self):
        """Take what is there; how many that was."""
        count = 0
        while (used := self.take()) is not None:
            name, written = used
            token = self._tokens.pop(name, None)
            if token in self._tables:
                self.memory.free(*self._tables.pop(token))
            self._done[token] = written
            self.order.append(token)
            count += 1
        return count

    def done(self, token):
        """Bytes written into a chain that is back, or None."""
        if token not in self._done:
            self.collect()
        return self._done.pop(token, None)

    def wait(self, token, seconds=20, what='an answer'):
        """Sleep until a chain is back, as a driver does: woken by the device, not by polling."""
        end = time.monotonic() + seconds * pv.SLOW
        while True:
            written = self.done(token)
            if written is not None:
                return written
            self.want_call()
            self.barrier()
            if self.collect():
                continue
            left = end - time.monotonic()
            if left > 0 and select.select([self.call_fd], [], [], left)[0]:
                self._clear_call()
                continue
            pv.check(not self.collect(), f'{what} came without an interrupt')
            raise pv.Failure(f'{what}: not within {seconds * pv.SLOW} s')

    def _clear_call(self):
        with contextlib.suppress(BlockingIOError):
            self.calls += os.eventfd_read(self.call_fd)
