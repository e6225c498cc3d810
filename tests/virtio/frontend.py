"""The VMM's side of vhost-user, as QEMU 11.1's vhost-user-test-device plays it.

A Frontend connects to the device's socket and has what a VM has: memory, two virtqueues, a window
that the device maps things into, and a main loop (a thread) that answers the backend channel. As in
QEMU that loop replies to SHMEM_MAP before the mapping is there, then maps it, then sends the new
memory table on the main channel, and handles nothing else meanwhile.

What the device must never do is written down in `violations`; close() and the tests look there.
"""
import array
import contextlib
import mmap
import os
import select
import socket
import struct
import threading
import time

import pv
from memory import PAGE, GuestMemory
from vring_packed import PackedVring
from vring_split import SplitVring

# Requests on the main channel.
(GET_FEATURES, SET_FEATURES, SET_OWNER, RESET_OWNER, SET_MEM_TABLE, SET_LOG_BASE, SET_LOG_FD,
 SET_VRING_NUM, SET_VRING_ADDR, SET_VRING_BASE, GET_VRING_BASE, SET_VRING_KICK, SET_VRING_CALL,
 SET_VRING_ERR, GET_PROTOCOL_FEATURES, SET_PROTOCOL_FEATURES, GET_QUEUE_NUM,
 SET_VRING_ENABLE) = range(1, 19)
SET_BACKEND_REQ_FD, GET_CONFIG, SET_CONFIG = 21, 24, 25
GET_MAX_MEM_SLOTS, ADD_MEM_REG, REM_MEM_REG, SET_STATUS, GET_STATUS = 36, 37, 38, 39, 40
GET_SHMEM_CONFIG = 44
# Requests of the device.
CONFIG_CHANGE, SHARED_OBJECT_REMOVE, SHMEM_MAP, SHMEM_UNMAP = 2, 7, 9, 10

VERSION, REPLY, NEED_REPLY = 1, 4, 8
NO_FD = 1 << 8  # in the u64 of SET_VRING_KICK and its like

P_MQ, P_REPLY_ACK, P_BACKEND_REQ, P_CONFIG, P_SEND_FD, P_MEM_SLOTS, P_SHMEM = 0, 3, 5, 9, 10, 15, 22
PROTOCOL = sum(1 << bit for bit in (P_MQ, P_REPLY_ACK, P_BACKEND_REQ, P_CONFIG, P_SEND_FD, P_SHMEM))

F_VIRGL, F_EDID, F_UUID, F_BLOB, F_CONTEXT_INIT, F_BLOB_ALIGNMENT = range(6)
F_INDIRECT, F_EVENT_IDX, F_PROTOCOL, F_VERSION_1, F_PACKED = 28, 29, 30, 32, 34
GPU_FEATURES = 0x1f
VIRTIO_FEATURES = 1 << F_INDIRECT | 1 << F_EVENT_IDX | 1 << F_PROTOCOL | 1 << F_VERSION_1
CONFIG_SIZE = 16
WINDOW_SHMID = 1
TIMEOUT = 20 * pv.SLOW


class Closed(pv.Failure):
    """The device has closed the connection."""


def receive_message(sock):
    """(request, flags, payload, fds) of the next message; None at the end."""
    fds = array.array('i')
    header = b''
    while len(header) < 12:
        room = socket.CMSG_SPACE(64 * fds.itemsize) if not header else 0
        data, ancillary, _, _ = sock.recvmsg(12 - len(header), room, socket.MSG_CMSG_CLOEXEC)
        if not data:
            return None
        header += data
        for level, kind, content in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                fds.frombytes(content[:len(content) - len(content) % fds.itemsize])
    request, flags, size = struct.unpack('<III', header)
    payload = b''
    while len(payload) < size:
        data = sock.recv(size - len(payload))
        if not data:
            return None
        payload += data
    return request, flags, payload, list(fds)


def send_message(sock, request, flags, payload=b'', fds=()):
    data = struct.pack('<III', request, flags, len(payload)) + payload
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', fds))] if fds else []
    sent = sock.sendmsg([data], rights)
    if sent < len(data):
        sock.sendall(data[sent:])


class Window:
    """The host-visible region as the guest sees it: what is not mapped faults."""

    def __init__(self, size):
        self.size = size
        self.maps = {}  # offset: (length, mmap)
        self.lock = threading.Lock()

    def refuses(self, fd_offset, offset, length, fd, announced):
        """Why QEMU would answer 1; `announced` are maps that are not live yet."""
        if length == 0:
            return 'length 0'
        if offset + length > self.size:
            return 'beyond the window'
        if fd_offset % PAGE:
            return 'fd_offset is no multiple of a page'
        file_size = os.fstat(fd).st_size
        if file_size and file_size < fd_offset + length:
            return 'the file is too short'
        for start, size in announced:
            if offset < start + size and start < offset + length:
                return 'overlap'
        return None

    def map(self, fd, fd_offset, offset, length, writable):
        access = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
        mapping = mmap.mmap(fd, length, mmap.MAP_SHARED, access, offset=fd_offset)
        with self.lock:
            self.maps[offset] = (length, mapping)

    def unmap(self, offset):
        with self.lock:
            _, mapping = self.maps.pop(offset)
        with contextlib.suppress(BufferError):
            mapping.close()

    def clear(self):
        for offset in list(self.maps):
            self.unmap(offset)

    def _find(self, offset, size):
        with self.lock:
            for start, (length, mapping) in self.maps.items():
                if start <= offset and offset + size <= start + length:
                    return mapping, offset - start
        raise pv.Failure(f'the guest touches {offset:#x}+{size:#x} of the window: not mapped')

    def read(self, offset, size):
        mapping, at = self._find(offset, size)
        return mapping[at:at + size]

    def write(self, offset, data):
        mapping, at = self._find(offset, len(data))
        mapping[at:at + len(data)] = data

    def view(self, offset, size):
        """Bytes that can be written; release before the window goes."""
        mapping, at = self._find(offset, size)
        return memoryview(mapping)[at:at + size]


class BackendChannel:
    """QEMU's main loop, as far as the device talks to it.

    `policy(request, payload)` may return 'refuse', 'silent', or seconds to wait before the reply.
    """

    def __init__(self, frontend, policy=None, commit_delay=0.002):
        self.frontend = frontend
        self.policy = policy
        self.commit_delay = commit_delay
        self.messages = []  # (monotonic time, request, flags, payload, fd count)
        self.replies = []   # (monotonic time, request, value)
        self.config_changes = 0
        self._announced = []  # maps as the device knows them: (offset, length)
        self._changed = threading.Condition()
        self._busy = threading.Lock()
        self.ours, theirs = socket.socketpair()
        self.theirs = theirs
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self):
        self._thread.start()

    def forget_maps(self):
        self._announced.clear()

    def close(self):
        with contextlib.suppress(OSError):
            self.ours.shutdown(socket.SHUT_RDWR)
        if self._thread.is_alive():
            self._thread.join(TIMEOUT)
        self.ours.close()
        if self.theirs is not None:
            self.theirs.close()

    def requests(self):
        return [message[1] for message in self.messages]

    def wait_requests(self, request, count, seconds=10):
        """Until `count` of a request have come."""
        with self._changed:
            good = self._changed.wait_for(lambda: self.requests().count(request) >= count,
                                          seconds * pv.SLOW)
        pv.check(good, f'{count} backend requests {request}: there are '
                       f'{self.requests().count(request)} after {seconds * pv.SLOW} s')

    def settle(self):
        """Return when all that has been sent so far is handled."""
        while True:
            with self._busy:
                if self.ours.fileno() < 0 or not readable(self.ours):
                    return
            time.sleep(0.001)

    def _run(self):
        while True:
            select.select([self.ours], [], [])
            with self._busy:
                try:
                    message = receive_message(self.ours)
                except OSError:
                    return
                if message is None:
                    return
                self._serve(*message)

    def _serve(self, request, flags, payload, fds):
        try:
            self._handle(request, flags, payload, fds)
        except BrokenPipeError:
            pass  # its end is closed, or ours is
        except (OSError, pv.Failure) as error:
            if not self.frontend.closing:
                self.frontend.violate(f'backend request {request}: {error}')
        finally:
            for fd in fds:
                os.close(fd)

    def _handle(self, request, flags, payload, fds):
        with self._changed:
            self.messages.append((time.monotonic(), request, flags, payload, len(fds)))
            if request == CONFIG_CHANGE:
                self.config_changes += 1
            self._changed.notify_all()
        front = self.frontend
        if flags & ~NEED_REPLY != VERSION:
            front.violate(f'backend request {request} with flags {flags:#x}')
        if not front.started:
            front.violate(f'backend request {request} while the device is not started: '
                          'QEMU would have crashed')
        wanted_size = {CONFIG_CHANGE: 0, SHARED_OBJECT_REMOVE: 16, SHMEM_MAP: 40, SHMEM_UNMAP: 40}
        if wanted_size.get(request) != len(payload):
            front.violate(f'backend request {request} of {len(payload)} bytes')
            return
        verdict = self.policy(request, payload) if self.policy else None
        if verdict == 'silent':
            return
        if isinstance(verdict, (int, float)):
            time.sleep(verdict)
        if request in (SHMEM_MAP, SHMEM_UNMAP):
            self._change_window(request, flags, payload, fds, verdict)
        elif request == SHARED_OBJECT_REMOVE:
            self._reply(request, flags, 1)
        else:
            self._reply(request, flags, 0)

    def _reply(self, request, flags, value):
        self.replies.append((time.monotonic(), request, value))
        if flags & NEED_REPLY:
            send_message(self.ours, request, VERSION | REPLY, struct.pack('<Q', value))

    def _change_window(self, request, flags, payload, fds, verdict):
        shmid, fd_offset, offset, length, access = struct.unpack('<B7xQQQQ', payload)
        front, window = self.frontend, self.frontend.window
        why = None
        if verdict == 'refuse':
            why = 'the test wants it'
        elif shmid != WINDOW_SHMID:
            why = f'shmid {shmid}'
            front.violate(why)
        elif request == SHMEM_UNMAP:
            why = None if (offset, length) in self._announced else 'no such map'
        elif len(fds) != 1:
            why = f'{len(fds)} fds'
        else:
            why = window.refuses(fd_offset, offset, length, fds[0], self._announced)
            if offset % PAGE or length % PAGE:
                front.violate(f'SHMEM_MAP of {length:#x} at {offset:#x}: QEMU lets it through')
            if os.fstat(fds[0]).st_size == 0:
                front.violate('SHMEM_MAP of an empty file: QEMU lets it through')
        if why is not None:
            if verdict != 'refuse':
                front.violate(f'backend request {request} that QEMU refuses: {why}')
            self._reply(request, flags, 1)
            return
        if request == SHMEM_MAP:
            self._announced.append((offset, length))
        else:
            self._announced.remove((offset, length))
        self._reply(request, flags, 0)
        time.sleep(self.commit_delay)
        if not front.started:
            return
        if request == SHMEM_MAP:
            window.map(fds[0], fd_offset, offset, length, access & 1)
            front.bar_regions[offset] = (length, os.dup(fds[0]), fd_offset)
        else:
            window.unmap(offset)
            os.close(front.bar_regions.pop(offset)[1])
        front.send_memory_table()


class Frontend:
    """One VM that uses the device; `with Frontend(device) as vm:` is one with a running driver."""

    BAR = 0x2000000000  # where the guest has put the window

    def __init__(self, path, packed=False, event_idx=True, indirect=True, queue_size=256,
                 protocol=PROTOCOL, gpu_features=GPU_FEATURES, policy=None, commit_delay=0.002,
                 memory=None, config_size=CONFIG_SIZE, start=True):
        self.path = path
        self.protocol_wanted = protocol
        self.wanted = (gpu_features | VIRTIO_FEATURES | (1 << F_PACKED if packed else 0)) \
            & ~(0 if event_idx else 1 << F_EVENT_IDX) & ~(0 if indirect else 1 << F_INDIRECT)
        self.packed, self.queue_size, self.config_size = packed, queue_size, config_size
        self.memory = memory or GuestMemory()
        self.queues = []
        self.window = None
        self.bar_regions = {}  # window offset: (length, fd, fd_offset)
        self.violations = []
        self.slots_told = False
        self.started = self.closing = False
        self.features = self.protocol = self.offered = 0
        self._main = threading.RLock()
        self.backend = BackendChannel(self, policy, commit_delay)
        self.socket = None
        self._start = start

    def __enter__(self):
        try:
            self.realize()
            if self._start:
                self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind, error, trace):
        if kind is None and self.started:
            self.stop()
        self.close()
        if kind is None:
            pv.check(not self.violations, f'the device did what it must not: {self.violations[:4]}')

    def violate(self, what):
        self.violations.append(what)

    # ---- messages ----

    def connect(self):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(TIMEOUT)
        self.socket.connect(self.path)

    def send(self, request, payload=b'', fds=(), need_reply=False):
        with self._main:
            try:
                send_message(self.socket, request, VERSION | (NEED_REPLY if need_reply else 0),
                             payload, fds)
            except (BrokenPipeError, ConnectionResetError) as error:
                raise Closed(f'request {request}: {error}') from None

    def receive(self, request):
        """The payload of the reply to a request."""
        try:
            message = receive_message(self.socket)
        except ConnectionResetError:
            message = None
        except TimeoutError:
            raise pv.Failure(f'no reply to request {request} within {TIMEOUT} s') from None
        if message is None:
            raise Closed(f'the device closed the connection at request {request}')
        got, flags, payload, fds = message
        for fd in fds:
            os.close(fd)
        pv.check_equal((got, flags), (request, VERSION | REPLY), 'request and flags of a reply')
        return payload

    def call(self, request, payload=b'', fds=()):
        """A request that has a reply of its own."""
        with self._main:
            self.send(request, payload, fds)
            return self.receive(request)

    def tell(self, request, payload=b'', fds=(), wanted=0):
        """A request without a reply; acknowledged where that is agreed."""
        if not self.protocol & 1 << P_REPLY_ACK:
            return self.send(request, payload, fds)
        with self._main:
            self.send(request, payload, fds, need_reply=True)
            ack, = struct.unpack('<Q', self.receive(request))
        if wanted is not None:
            pv.check_equal(bool(ack), bool(wanted), f'acknowledgement of request {request}')
        return ack

    def call_u64(self, request, payload=b''):
        return struct.unpack('<Q', self.call(request, payload))[0]

    # ---- what QEMU does when it starts ----

    def realize(self):
        self.connect()
        self.offered_first = self.offered = self.call_u64(GET_FEATURES)
        pv.check(self.offered & 1 << F_PROTOCOL, 'protocol features are not offered')
        self.protocol = self.call_u64(GET_PROTOCOL_FEATURES) & self.protocol_wanted
        ack, self.protocol = self.protocol, 0
        self.send(SET_PROTOCOL_FEATURES, struct.pack('<Q', ack))
        self.protocol = ack
        if ack & 1 << P_MQ:
            pv.check_equal(self.call_u64(GET_QUEUE_NUM), 2, 'number of queues')
        if ack & 1 << P_BACKEND_REQ:
            self.tell(SET_BACKEND_REQ_FD, fds=[self.backend.theirs.fileno()])
            self.backend.theirs.close()
            self.backend.theirs = None
            self.backend.start()
        self.send(SET_OWNER)
        # The second answer counts for QEMU: the device knows by now what we can map.
        self.offered = self.call_u64(GET_FEATURES)
        self.features = self.offered & self.wanted
        kind = PackedVring if self.packed else SplitVring
        if self.packed:
            pv.check(self.features & 1 << F_PACKED, 'packed rings are not offered')
        for index in range(2):
            queue = kind(self.memory, self.queue_size, bool(self.features & 1 << F_EVENT_IDX),
                         bool(self.features & 1 << F_INDIRECT))
            self.queues.append(queue)
            self.tell(SET_VRING_CALL, struct.pack('<Q', index), [queue.call_fd])
            self.tell(SET_VRING_ERR, struct.pack('<Q', index), [queue.err_fd])
        if ack & 1 << P_SHMEM:
            self.window = Window(self.shmem_sizes()[WINDOW_SHMID])

    def shmem_sizes(self):
        """Sizes of the shared memory regions, by id."""
        reply = self.call(GET_SHMEM_CONFIG)
        pv.check_equal(len(reply), 2056, 'size of the reply to GET_SHMEM_CONFIG')
        count, *sizes = struct.unpack('<I4x256Q', reply)
        pv.check_equal(count, sum(1 for size in sizes if size), 'count of shared memory regions')
        return sizes

    def get_config(self, offset=0, size=None):
        size = self.config_size if size is None else size
        header = struct.pack('<III', offset, size, 0)
        reply = self.call(GET_CONFIG, header + bytes(size))
        pv.check_equal(reply[:12], header, 'header of the reply to GET_CONFIG')
        return reply[12:]

    def set_config(self, data, offset=0):
        self.tell(SET_CONFIG, struct.pack('<III', offset, len(data), 0) + data)

    # ---- what it does when the driver starts the device, and stops it ----

    def memory_table(self):
        """(payload, fds) of SET_MEM_TABLE: guest RAM, then what is mapped in the window."""
        regions = [(r.gpa, r.size, r.user, r.fd_offset, r.fd) for r in self.memory.regions]
        regions += [(self.BAR + offset, length, 0x7e0000000000 + offset, fd_offset, fd)
                    for offset, (length, fd, fd_offset) in list(self.bar_regions.items())]
        payload = struct.pack('<II', len(regions), 0)
        payload += b''.join(struct.pack('<QQQQ', *region[:4]) for region in regions)
        return payload, [region[4] for region in regions]

    def slot(self, request, region, fd=True, wanted=0):
        """ADD_MEM_REG or REM_MEM_REG of one region."""
        payload = struct.pack('<5Q', 0, region.gpa, region.size, region.user, region.fd_offset)
        return self.tell(request, payload, [region.fd] if fd else (), wanted)

    def send_memory_table(self):
        if self.protocol & 1 << P_MEM_SLOTS:
            if not self.slots_told:
                for region in self.memory.regions:
                    self.slot(ADD_MEM_REG, region)
                self.slots_told = True
            return
        payload, fds = self.memory_table()
        if len(fds) <= 8:  # as QEMU: else it complains, and sends nothing
            self.tell(SET_MEM_TABLE, payload, fds)

    def start(self):
        self.tell_features()
        self.send_memory_table()
        for index in range(len(self.queues)):
            self.set_up_queue(index)
        # Started for the backend channel: QEMU's check is vhost_dev_is_started.
        self.started = True
        for index, queue in enumerate(self.queues):
            self.tell(SET_VRING_ENABLE, struct.pack('<II', index, 1))
            self.tell(SET_VRING_CALL, struct.pack('<Q', index), [queue.call_fd])

    def tell_features(self):
        self.send(SET_FEATURES, struct.pack('<Q', self.features))

    def set_up_queue(self, index, kick=True):
        queue = self.queues[index]
        self.send(SET_VRING_NUM, struct.pack('<II', index, queue.size))
        self.send(SET_VRING_BASE, struct.pack('<II', index, queue.base()))
        desc, used, avail = queue.addresses()
        self.send(SET_VRING_ADDR, struct.pack('<IIQQQQ', index, 0, desc, used, avail, 0))
        if kick:
            self.tell(SET_VRING_KICK, struct.pack('<Q', index), [queue.kick_fd])
            os.eventfd_write(queue.kick_fd, 1)  # as QEMU does
        self.tell(SET_VRING_CALL, struct.pack('<Q', index), [queue.call_fd])

    def stop(self):
        """A device reset: rings stop, and all mappings are gone without a message."""
        for index in range(len(self.queues)):
            self.tell(SET_VRING_ENABLE, struct.pack('<II', index, 0))
        bases = []
        for index in range(len(self.queues)):
            reply = self.call(GET_VRING_BASE, struct.pack('<II', index, 0))
            got, base = struct.unpack('<II', reply)
            pv.check_equal(got, index, 'queue in the reply to GET_VRING_BASE')
            bases.append(base)
        if self.backend.theirs is None:
            self.backend.settle()  # what was sent before; from now on it may send nothing
        self.started = False
        self.backend.forget_maps()
        if self.window:
            self.window.clear()
        for _, fd, _ in self.bar_regions.values():
            os.close(fd)
        self.bar_regions.clear()
        return bases

    def restart(self):
        """A driver that binds again: fresh rings, the same device."""
        kind = type(self.queues[0])
        for index, old in enumerate(self.queues):
            old.close()
            self.queues[index] = kind(self.memory, old.size, old.event_idx, old.indirect)
        self.start()

    def close(self):
        """The VMM is gone."""
        self.closing = True
        self.backend.close()
        if self.socket is not None:
            self.socket.close()
            self.socket = None
        for queue in self.queues:
            queue.close()
        self.queues = []
        if self.window:
            self.window.clear()
        for _, fd, _ in self.bar_regions.values():
            os.close(fd)
        self.bar_regions = {}
        self.memory.close()

    def wait_mapped(self, seconds=10):
        """Until all of the window is there (arena)."""
        pv.wait_until(lambda: sum(length for length, _ in list(self.window.maps.values()))
                      == self.window.size, seconds, 'the arena in the window')


def readable(fd, seconds=0):
    return bool(select.select([fd], [], [], seconds)[0])
