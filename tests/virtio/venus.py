"""The few Venus commands that the device tests need, made by hand.

The same bytes as Mesa's, which tests/wire/vectors.txt holds.
"""
import os
import struct
import time

import pv

# One that imports host memory: lavapipe has only this one, NVIDIA's driver takes 2 and 3.
MEMORY_TYPE = int(os.environ.get('PV_TEST_MEMORY_TYPE', '0'))

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
        self.tail = self.seqno = 0
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
        end = time.monotonic() + seconds * pv.SLOW
        while self.head != self.tail:
            pv.check(time.monotonic() < end, f'the ring is not empty after {seconds * pv.SLOW} s')
            time.sleep(0.00005)

    def follow_context_stream(self):
        """What is on the ring from now on runs after all that the context stream has got so far."""
        self.seqno += 1
        self.gpu.submit(self.ctx, submit_virtqueue_seqno(self.id, self.seqno)).wait()
        self.write(wait_virtqueue_seqno(self.seqno))

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


INSTANCE, PHYSICAL_DEVICE, DEVICE, QUEUE, BUFFER_OBJECT, MEMORY, POOL, COMMANDS = range(1, 9)
WHOLE_SIZE = 0xffffffffffffffff
IMPORT_RESOURCE_INFO = 1000384002
QUEUE_TIMELINE_INFO = 1000384005
# For an application of Vulkan 1.2 named "app", with nothing enabled.
CREATE_INSTANCE = bytes.fromhex(
    '0000000001000000010000000000000001000000000000000000000000000000010000000000000000000000'
    '0000000000000000040000000000000061707000010000000400000000000000656e67000200000000204000'
    '0000000000000000000000000000000000000000000000000000000000000000010000000000000001000000'
    '00000000')


class Vulkan:
    """A device with one queue (ring_idx 1) on a ring: enough to let the GPU write to memory.

    Object ids are the guest's choice; here they are the constants above. Everything goes without
    replies, as Mesa does it, but what may fail.
    """

    def __init__(self, ring):
        self.ring = ring
        self.call(CREATE_INSTANCE, 'vkCreateInstance')
        self.call(struct.pack('<IIQQIQQ', 2, 1, INSTANCE, 1, 1, 1, PHYSICAL_DEVICE),
                  'vkEnumeratePhysicalDevices', good=(0, 5))
        queue = struct.pack('<iQIIIQf', 2, 0, 0, 0, 1, 1, 1.0)
        self.call(struct.pack('<IIQQiQIIQ', 11, 1, PHYSICAL_DEVICE, 1, 3, 0, 0, 1, 1) + queue +
                  struct.pack('<IQIQQQQQ', 0, 0, 0, 0, 0, 0, 1, DEVICE), 'vkCreateDevice')
        ring.run(struct.pack('<IIQQiQiQIIIIQQ', 155, 0, DEVICE, 1, 1000145003, 1,
                             QUEUE_TIMELINE_INFO, 0, 1, 0, 0, 0, 1, QUEUE))
        ring.run(struct.pack('<IIQQiQIIQQQ', 85, 0, DEVICE, 1, 39, 0, 2, 0, 0, 1, POOL))

    def call(self, command, name, good=(0,)):
        """A command with a reply, whose result must be good."""
        ring = self.ring
        ring.run(set_reply_stream(ring.reply, 0, 4096) + command)
        _, result = struct.unpack('<Ii', ring.window.read(ring.reply_at, 8))
        pv.check(result in good, f'{name}: VkResult {result}')

    @staticmethod
    def allocation(size, resource=None, memory=MEMORY):
        """The bytes of vkAllocateMemory: with `resource` its memory, else the driver's own."""
        chain = struct.pack('<Q', 0) if resource is None else \
            struct.pack('<QiQI', 1, IMPORT_RESOURCE_INFO, 0, resource)
        return struct.pack('<IIQQi', 21, 1, DEVICE, 1, 5) + chain + \
            struct.pack('<QIQQQ', size, MEMORY_TYPE, 0, 1, memory)

    def allocate(self, size, resource=None, memory=MEMORY, good=(0,)):
        if resource is not None:
            self.ring.follow_context_stream()
        self.call(self.allocation(size, resource, memory), 'vkAllocateMemory', good)

    def free(self, memory=MEMORY):
        self.ring.follow_context_stream()
        self.ring.run(struct.pack('<IIQQQ', 22, 0, DEVICE, memory, 0))

    def fill(self, size, value, memory=MEMORY):
        """Let the GPU fill memory, and wait for a fence on its queue's timeline."""
        ring, gpu = self.ring, self.ring.gpu
        self.call(struct.pack('<IIQQiQIQIIIQQQQ', 50, 1, DEVICE, 1, 12, 0, 0, size, 2, 0, 0, 0, 0,
                              1, BUFFER_OBJECT), 'vkCreateBuffer')
        ring.run(struct.pack('<IIQIQiQQQQ', 138, 0, DEVICE, 1, 1, 1000157000, 0, BUFFER_OBJECT,
                             memory, 0))
        ring.run(struct.pack('<IIQQiQQIIQQ', 88, 0, DEVICE, 1, 40, 0, POOL, 0, 1, 1, COMMANDS))
        ring.run(struct.pack('<IIQQiQIQ', 90, 0, COMMANDS, 1, 42, 0, 0, 0) +
                 struct.pack('<IIQQQQI', 118, 0, COMMANDS, BUFFER_OBJECT, 0, WHOLE_SIZE, value) +
                 struct.pack('<IIQ', 91, 0, COMMANDS))
        ring.write(struct.pack('<IIQIQiQ', 18, 0, QUEUE, 1, 1, 4, 0) +
                   struct.pack('<IQQIQQIQQ', 0, 0, 0, 1, 1, COMMANDS, 0, 0, 0))
        gpu.submit(ring.ctx, wait_ring_seqno(ring.id, ring.tail), fence=gpu.new_fence(),
                   ring_idx=1).wait()
        ring.run(struct.pack('<IIQQIQQ', 89, 0, DEVICE, POOL, 1, 1, COMMANDS) +
                 struct.pack('<IIQQQ', 51, 0, DEVICE, BUFFER_OBJECT, 0))
