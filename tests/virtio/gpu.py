"""A virtio-gpu driver: every command as a method of Gpu, on top of a Frontend.

Commands go out with send() and come back with Pending.wait(); the methods named after commands do
both and check for success. What is meant to fail is called with `error=` and a response type.
"""
import struct

import frontend
import pv
from memory import PAGE

CONTROL, CURSOR = 0, 1

GET_DISPLAY_INFO, CREATE_2D, UNREF, SET_SCANOUT, FLUSH, TRANSFER_2D, ATTACH, DETACH = \
    range(0x100, 0x108)
GET_CAPSET_INFO, GET_CAPSET, GET_EDID, ASSIGN_UUID, CREATE_BLOB, SET_SCANOUT_BLOB = \
    range(0x108, 0x10e)
(CTX_CREATE, CTX_DESTROY, CTX_ATTACH, CTX_DETACH, CREATE_3D, TRANSFER_TO_3D, TRANSFER_FROM_3D,
 SUBMIT_3D, MAP_BLOB, UNMAP_BLOB) = range(0x200, 0x20a)
UPDATE_CURSOR, MOVE_CURSOR = 0x300, 0x301

OK, OK_DISPLAY, OK_CAPSET_INFO, OK_CAPSET, OK_EDID, OK_UUID, OK_MAP = range(0x1100, 0x1107)
ERR, ERR_MEMORY, ERR_SCANOUT, ERR_RESOURCE, ERR_CONTEXT, ERR_PARAMETER = range(0x1200, 0x1206)

FENCE, RING_IDX = 1, 2
GUEST, HOST3D, HOST3D_GUEST = 1, 2, 3
MAPPABLE, SHAREABLE, CROSS_DEVICE = 1, 2, 4
VENUS = 4
EVENT_DISPLAY = 1

# Format: where a pixel of 4 bytes has red, green, blue and alpha (None: no alpha).
FORMATS = {
    1: (2, 1, 0, 3),       # B8G8R8A8
    2: (2, 1, 0, None),    # B8G8R8X8
    3: (1, 2, 3, 0),       # A8R8G8B8
    4: (1, 2, 3, None),    # X8R8G8B8
    67: (0, 1, 2, 3),      # R8G8B8A8
    68: (3, 2, 1, None),   # X8B8G8R8
    121: (3, 2, 1, 0),     # A8B8G8R8
    134: (0, 1, 2, None),  # R8G8B8X8
}

# Longest response of each request.
ROOM = {GET_DISPLAY_INFO: 408, GET_CAPSET_INFO: 40, GET_CAPSET: 24 + 160, GET_EDID: 1056,
        ASSIGN_UUID: 40, MAP_BLOB: 32}


def header(kind, flags=0, fence=0, ctx=0, ring_idx=0):
    return struct.pack('<IIQIB3x', kind, flags, fence, ctx, ring_idx)


class Answer:
    """A response, taken apart."""

    def __init__(self, data):
        self.data = data
        padded = data + bytes(max(0, 24 - len(data)))
        self.type, self.flags, self.fence, self.ctx, self.ring_idx = \
            struct.unpack('<IIQIB', padded[:21])
        self.body = data[24:]

    def __repr__(self):
        return f'<{self.type:#x}, {len(self.data)} bytes>'


class Pending:
    """A request on its way."""

    def __init__(self, gpu, queue, token, request, buffers, response, room):
        self.gpu, self.queue, self.token = gpu, queue, token
        self.request, self.response, self.room = request, response, room
        self._buffers = buffers
        self._answer = None

    def _finish(self, written):
        pv.check(written <= self.room,
                 f'{written} bytes written, the response has room for {self.room}')
        memory = self.gpu.memory
        data = memory.read(self.response, written) if self.room else b''
        for address, size in self._buffers:
            memory.free(address, size)
        self._answer = Answer(data)
        return self._answer

    def poll(self):
        """The answer if it is there."""
        if self._answer is None:
            written = self.queue.done(self.token)
            if written is not None:
                self._finish(written)
        return self._answer

    def wait(self, seconds=20):
        if self._answer is None:
            kind = struct.unpack_from('<I', self.request)[0] if len(self.request) > 3 else 0
            self._finish(self.queue.wait(self.token, seconds, f'the answer to {kind:#x}'))
        return self._answer


class Gpu:
    """The driver of one Frontend."""

    def __init__(self, vm):
        self.vm = vm
        self.memory = vm.memory
        self.last_id = 0
        self.last_fence = 0

    @property
    def control(self):
        return self.vm.queues[CONTROL]

    @property
    def cursor_queue(self):
        return self.vm.queues[CURSOR]

    def new_id(self):
        self.last_id += 1
        return self.last_id

    def new_fence(self):
        self.last_fence += 1
        return self.last_fence

    # ---- requests ----

    def send(self, request, room=None, queue=None, kick=True, split=None):
        """Put a request into the ring; `split` gives the lengths of its first parts."""
        queue = self.control if queue is None else queue
        if room is None:
            kind = struct.unpack_from('<I', request)[0] if len(request) >= 4 else 0
            room = 0 if queue is self.vm.queues[CURSOR] else ROOM.get(kind, 24)
        buffers, chain = [], []
        address = self.memory.alloc(max(1, len(request)))
        buffers.append((address, max(1, len(request))))
        self.memory.write(address, request)
        # As Linux: the struct in one part, data behind it in parts of at most a page.
        parts = list(split) if split else [min(len(request), 96)]
        at = 0
        while at < len(request):
            size = min(parts.pop(0) if parts else PAGE, len(request) - at)
            chain.append((address + at, size, False))
            at += size
        response = 0
        if room:
            response = self.memory.alloc(room)
            buffers.append((response, room))
            chain.append((response, room, True))
        token = queue.add(chain)
        if kick:
            queue.kick()
        return Pending(self, queue, token, request, buffers, response, room)

    def command(self, kind, body=b'', ctx=0, fence=None, ring_idx=None, **options):
        """Send a command; with a fence id it is answered when its work is done."""
        flags = (FENCE if fence is not None else 0) | (RING_IDX if ring_idx is not None else 0)
        return self.send(header(kind, flags, fence or 0, ctx, ring_idx or 0) + body, **options)

    def do(self, kind, body=b'', error=None, good=OK, ctx=0, **options):
        """A command and its answer, which must be the one expected; `error` may be several."""
        answer = self.command(kind, body, ctx=ctx, **options).wait()
        wanted = (good,) if error is None else error if isinstance(error, tuple) else (error,)
        pv.check(answer.type in wanted, f'answer to command {kind:#x}: {answer.type:#x} instead of '
                 + ' or '.join(f'{one:#x}' for one in wanted))
        return answer

    # ---- display ----

    def display_info(self):
        """(x, y, width, height, enabled, flags) of all 16 scanouts."""
        answer = self.do(GET_DISPLAY_INFO, good=OK_DISPLAY)
        pv.check_equal(len(answer.data), 408, 'size of the display info')
        return [struct.unpack_from('<6I', answer.body, 24 * i) for i in range(16)]

    def edid(self, scanout, error=None):
        answer = self.do(GET_EDID, struct.pack('<II', scanout, 0), error, good=OK_EDID)
        if error:
            return answer
        pv.check_equal(len(answer.data), 1056, 'size of the answer to GET_EDID')
        size, = struct.unpack_from('<I', answer.body)
        pv.check(size % 128 == 0 and 0 < size <= 1024, f'EDID of {size} bytes')
        return answer.body[8:8 + size]

    def set_scanout(self, scanout, resource, rect, **options):
        return self.do(SET_SCANOUT, struct.pack('<6I', *rect, scanout, resource), **options)

    def set_scanout_blob(self, scanout, resource, rect, width, height, fmt, stride, offset=0,
                         **options):
        return self.do(SET_SCANOUT_BLOB, struct.pack(
            '<4I6I4I4I', *rect, scanout, resource, width, height, fmt, 0,
            stride, 0, 0, 0, offset, 0, 0, 0), **options)

    def flush(self, resource, rect, **options):
        return self.do(FLUSH, struct.pack('<6I', *rect, resource, 0), **options)

    # ---- 2D ----

    def create_2d(self, width, height, fmt=2, resource=None, error=None):
        resource = self.new_id() if resource is None else resource
        self.do(CREATE_2D, struct.pack('<4I', resource, fmt, width, height), error)
        return resource

    @staticmethod
    def entries(pieces):
        return b''.join(struct.pack('<QII', address, size, 0) for address, size in pieces)

    def attach(self, resource, pieces, error=None, count=None, **options):
        count = len(pieces) if count is None else count
        return self.do(ATTACH, struct.pack('<II', resource, count) + self.entries(pieces), error,
                       **options)

    def detach(self, resource, **options):
        return self.do(DETACH, struct.pack('<II', resource, 0), **options)

    def transfer(self, resource, rect, offset=0, **options):
        return self.do(TRANSFER_2D, struct.pack('<4IQII', *rect, offset, resource, 0), **options)

    def unref(self, resource, **options):
        return self.do(UNREF, struct.pack('<II', resource, 0), **options)

    # ---- cursor ----

    def update_cursor(self, scanout, resource, x=0, y=0, hot_x=0, hot_y=0):
        return self.send(header(UPDATE_CURSOR) + struct.pack(
            '<8I', scanout, x, y, 0, resource, hot_x, hot_y, 0), queue=self.cursor_queue).wait()

    def move_cursor(self, scanout, x, y):
        return self.send(header(MOVE_CURSOR) + struct.pack('<8I', scanout, x, y, 0, 0, 0, 0, 0),
                         queue=self.cursor_queue).wait()

    # ---- capsets, contexts, blobs ----

    def capset_info(self, index, error=None):
        """(id, highest version, size)."""
        answer = self.do(GET_CAPSET_INFO, struct.pack('<II', index, 0), error, good=OK_CAPSET_INFO)
        return answer if error else struct.unpack_from('<3I', answer.body)

    def capset(self, capset_id=VENUS, version=0, error=None, room=24 + 160):
        return self.do(GET_CAPSET, struct.pack('<II', capset_id, version), error, good=OK_CAPSET,
                       room=room).body

    def create_context(self, ctx, name='test', init=VENUS, error=None):
        name = name.encode() if isinstance(name, str) else name
        return self.do(CTX_CREATE, struct.pack('<II64s', min(len(name), 64), init, name), error,
                       ctx=ctx)

    def destroy_context(self, ctx, error=None):
        return self.do(CTX_DESTROY, b'', error, ctx=ctx)

    def ctx_attach(self, ctx, resource, error=None):
        return self.do(CTX_ATTACH, struct.pack('<II', resource, 0), error, ctx=ctx)

    def ctx_detach(self, ctx, resource, error=None):
        return self.do(CTX_DETACH, struct.pack('<II', resource, 0), error, ctx=ctx)

    def blob_body(self, resource, mem, flags, size, blob_id=0, pieces=(), count=None):
        count = len(pieces) if count is None else count
        return struct.pack('<4IQQ', resource, mem, flags, count, blob_id, size) + \
            self.entries(pieces)

    def create_blob(self, size, ctx=0, mem=HOST3D, flags=MAPPABLE, blob_id=0, pieces=(),
                    resource=None, error=None, count=None):
        resource = self.new_id() if resource is None else resource
        self.do(CREATE_BLOB, self.blob_body(resource, mem, flags, size, blob_id, pieces, count),
                error, ctx=ctx)
        return resource

    def map_blob(self, resource, offset, error=None):
        """map_info."""
        answer = self.do(MAP_BLOB, struct.pack('<IIQ', resource, 0, offset), error, good=OK_MAP)
        return answer if error else struct.unpack_from('<I', answer.body)[0]

    def unmap_blob(self, resource, error=None):
        return self.do(UNMAP_BLOB, struct.pack('<II', resource, 0), error)

    def assign_uuid(self, resource, error=None):
        return self.do(ASSIGN_UUID, struct.pack('<II', resource, 0), error, good=OK_UUID).body[:16]

    def submit(self, ctx, commands=b'', fence=None, ring_idx=None, size=None, **options):
        """Send SUBMIT_3D; returns what is pending."""
        size = len(commands) if size is None else size
        return self.command(SUBMIT_3D, struct.pack('<II', size, 0) + commands, ctx=ctx, fence=fence,
                            ring_idx=ring_idx, **options)

    # ---- several commands at once ----

    def backing(self, size, pieces=1):
        """Guest memory of `size` bytes in about that many pieces; [(address, size)]."""
        pieces = max(1, min(pieces, size // 4))
        step = -(-size // pieces)
        step += -step % 4
        result, left = [], size
        while left > 0:
            take = min(step, left)
            # Not behind one another: every second allocation is elsewhere.
            result.append((self.memory.alloc(take), take))
            left -= take
        return result

    def write_backing(self, pieces, data, offset=0):
        """Bytes at an offset of a scattered buffer."""
        at = 0
        for address, size in pieces:
            if offset < at + size and at < offset + len(data):
                start, end = max(offset, at), min(offset + len(data), at + size)
                self.memory.write(address + start - at, data[start - offset:end - offset])
            at += size

    def free_backing(self, pieces):
        for address, size in pieces:
            self.memory.free(address, size)

    def framebuffer(self, width, height, fmt=2, pieces=1, scanout=0):
        """A 2D resource with backing, shown by a scanout; (resource, pieces)."""
        resource = self.create_2d(width, height, fmt)
        backing = self.backing(width * height * 4, pieces)
        self.attach(resource, backing)
        self.set_scanout(scanout, resource, (0, 0, width, height))
        return resource, backing

    def draw(self, resource, backing, data, rect, offset=0):
        """Write all of a buffer, transfer and flush a rectangle."""
        self.write_backing(backing, data)
        self.transfer(resource, rect, offset)
        self.flush(resource, rect)

    def mapped_blob(self, ctx, size, offset, **options):
        """A HOST3D blob as Mesa makes its shared memory: created, mapped, attached."""
        blob = self.create_blob(size, ctx, **options)
        self.map_blob(blob, offset)
        self.ctx_attach(ctx, blob)
        return blob

    # ---- configuration ----

    def config(self):
        """events_read, events_clear, num_scanouts, num_capsets."""
        return struct.unpack_from('<4I', self.vm.get_config())

    def clear_events(self, events=EVENT_DISPLAY):
        """As QEMU does it: all of the configuration, as it was read."""
        data = bytearray(self.vm.get_config())
        struct.pack_into('<I', data, 4, events)
        self.vm.set_config(bytes(data))


def has(vm, bit):
    return bool(vm.features & 1 << bit)


def venus(vm):
    """The driver of a VM whose device can do Venus, or a skip."""
    if not has(vm, frontend.F_CONTEXT_INIT):
        raise pv.Skip('the device has no usable Vulkan driver')
    return Gpu(vm)
