"""The few Venus commands that the device tests need, made by hand.

The same bytes as Mesa's, which tests/wire/vectors.txt holds.
"""
import struct

import pv

RING_SIZE = 131268  # of Mesa's main ring
HEAD, TAIL, STATUS, BUFFER = 0, 64, 128, 192
BUFFER_SIZE = 128 << 10
IDLE, FATAL, ALIVE = 1, 2, 4
RING_CREATE_INFO, RING_MONITOR_INFO = 1000384000, 1000384006


def create_ring(ring, resource, offset=0, monitor_us=3000000, buffer_size=BUFFER_SIZE):
    """vkCreateRingMESA with Mesa's layout of the memory."""
    return struct.pack('<IIQQi', 188, 0, ring, 1, RING_CREATE_INFO) + \
        struct.pack('<QiQI', 1, RING_MONITOR_INFO, 0, monitor_us) + \
        struct.pack('<IIQQQ', 0, resource, offset, BUFFER + buffer_size + 4, 1000000) + \
        struct.pack('<QQQQQQQ', HEAD, TAIL, STATUS, BUFFER, buffer_size, BUFFER + buffer_size, 4)


def destroy_ring(ring):
    return struct.pack('<IIQ', 189, 0, ring)


def notify_ring(ring, seqno):
    return struct.pack('<IIQII', 190, 0, ring, seqno, 0)


def wait_ring_seqno(ring, seqno):
    return struct.pack('<IIQQ', 253, 0, ring, seqno)


def submit_virtqueue_seqno(ring, seqno):
    return struct.pack('<IIQQ', 251, 0, ring, seqno)


def wait_virtqueue_seqno(seqno):
    return struct.pack('<IIQ', 252, 0, seqno)


def set_reply_stream(resource, offset, size):
    return struct.pack('<IIQIQQ', 178, 0, 1, resource, offset, size)


def enumerate_instance_version():
    return struct.pack('<IIQ', 137, 1, 1)


class Ring:
    """A ring as Mesa makes its main one, driven from the guest's side of the window."""

    def __init__(self, gpu, ctx, offset, ring=0x55bb3947bac0, reply_at=1 << 20):
        self.gpu, self.ctx, self.id, self.offset = gpu, ctx, ring, offset
        self.window = gpu.vm.window
        self.shm = gpu.mapped_blob(ctx, -(-RING_SIZE // 4096) * 4096, offset)
        self.reply_at = offset + reply_at
        self.reply = gpu.mapped_blob(ctx, 1 << 20, self.reply_at)
        self.tail = 0
        gpu.submit(ctx, create_ring(ring, self.shm)).wait()

    def word(self, at):
        return struct.unpack('<I', self.window.read(self.offset + at, 4))[0]

    @property
    def head(self):
        return self.word(HEAD)

    @property
    def status(self):
        return self.word(STATUS)

    def write(self, commands):
        """Put commands into the ring and wake the device if it sleeps."""
        for i in range(0, len(commands), 4):
            at = self.offset + BUFFER + (self.tail + i) % BUFFER_SIZE
            self.window.write(at, commands[i:i + 4])
        self.tail = (self.tail + len(commands)) & 0xffffffff
        # One store, not four: the other side reads while we write.
        word = self.window.view(self.offset + TAIL, 4)
        word.cast('I')[0] = self.tail
        word.release()
        self.gpu.control.barrier()
        if self.status & IDLE:
            self.gpu.submit(self.ctx, notify_ring(self.id, self.tail)).wait()

    def run(self, commands, seconds=10):
        """Write, and wait until they have been run."""
        self.write(commands)
        pv.wait_until(lambda: self.head == self.tail, seconds, 'the ring to be empty')

    def instance_version(self):
        """A round trip: vkEnumerateInstanceVersion."""
        self.window.write(self.reply_at, bytes(64))
        self.run(set_reply_stream(self.reply, 0, 64) + enumerate_instance_version())
        kind, result, present, version = struct.unpack('<IiQI', self.window.read(self.reply_at, 20))
        pv.check_equal((kind, result, present), (137, 0, 1), 'reply of vkEnumerateInstanceVersion')
        return version

    def check_alive(self):
        version = self.instance_version()
        pv.check(version >= 1 << 22 | 1 << 12, f'instance version {version:#x}')
