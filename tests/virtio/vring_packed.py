"""The packed virtqueue (virtio 1.3, section 2.8)."""
import struct

from vring import F_INDIRECT, F_NEXT, F_WRITE, Vring

F_AVAIL, F_USED = 1 << 7, 1 << 15
EVENT_ENABLE, EVENT_DISABLE, EVENT_DESC = 0, 1, 2


class PackedVring(Vring):
    """One ring of descriptors, and an event structure for either side."""
    packed = True

    def __init__(self, memory, size=256, event_idx=True, indirect=True):
        super().__init__(memory, size, event_idx, indirect)
        self.desc = memory.alloc(16 * size)
        self.driver_event = memory.alloc(64)
        self.device_event = memory.alloc(64)
        self.next, self.wrap = 0, True
        self.next_used, self.used_wrap = 0, True
        self.room = size
        self.free_ids = list(range(size))[::-1]
        self.lengths = {}  # id: descriptors of the chain
        self.told = 0  # chains' descriptors added since the last look at the device's event
        self.total = 0

    def addresses(self):
        return tuple(self.memory.user(a) for a in (self.desc, self.device_event, self.driver_event))

    def base(self):
        return (self.next_used | self.used_wrap << 15) * 0x10001

    def set_base(self, value):
        self.next, self.wrap = value & 0x7fff, bool(value & 0x8000)
        self.next_used, self.used_wrap = value >> 16 & 0x7fff, bool(value >> 31)

    def flags(self, more=0):
        return more | (F_AVAIL if self.wrap else F_USED)

    def indirect_table(self, chain):
        return b''.join(struct.pack('<QIHH', address, length, 0, F_WRITE if writes else 0)
                        for address, length, writes in chain)

    def write_descriptor(self, index, address, length, flags, buffer_id):
        """All but the flags first: they hand it over."""
        at = self.desc + 16 * index
        self.memory.write(at, struct.pack('<QIH', address, length, buffer_id))
        self.barrier()
        self.memory.store16(at + 14, flags)

    def publish(self, descriptors, buffer_id):
        """Descriptors as (address, length, flags without F_AVAIL, F_USED); the first one last."""
        pending = None
        for i, (address, length, flags) in enumerate(descriptors):
            value = (self.next, address, length, self.flags(flags), buffer_id)
            if i:
                self.write_descriptor(*value)
            else:
                pending = value
            self.next += 1
            if self.next == self.size:
                self.next, self.wrap = 0, not self.wrap
        self.write_descriptor(*pending)
        self.room -= len(descriptors)
        self.total += len(descriptors)

    def put(self, chain, table):
        if table:
            descriptors = [(*table, F_INDIRECT)]
        else:
            descriptors = [(address, length, (F_WRITE if writes else 0) |
                            (F_NEXT if i + 1 < len(chain) else 0))
                           for i, (address, length, writes) in enumerate(chain)]
        assert len(descriptors) <= self.room
        name = self.free_ids.pop()
        self.lengths[name] = len(descriptors)
        self.publish(descriptors, name)
        return name

    def wants_kick(self):
        added, self.told = self.total - self.told, self.total
        event, flags = (self.memory.load16(self.device_event + i) for i in (0, 2))
        if flags & 3 != EVENT_DESC:
            return flags & 3 == EVENT_ENABLE
        # Positions of one lap and the next, so that they can be compared.
        new = self.next
        event_at, event_wrap = event & 0x7fff, bool(event & 0x8000)
        if event_wrap != self.wrap:
            event_at -= self.size
        return (new - event_at - 1) & 0xffff < added

    def take(self):
        at = self.desc + 16 * self.next_used
        flags = self.memory.load16(at + 14)
        if bool(flags & F_AVAIL) != bool(flags & F_USED) or bool(flags & F_USED) != self.used_wrap:
            return None
        self.barrier()
        _, written, name = struct.unpack('<QIH', self.memory.read(at, 14))
        length = self.lengths.pop(name, 1)
        self.next_used += length
        if self.next_used >= self.size:
            self.next_used -= self.size
            self.used_wrap = not self.used_wrap
        self.room += length
        self.free_ids.append(name)
        return name, written

    def want_call(self):
        if self.event_idx:
            self.memory.store16(self.driver_event, self.next_used | self.used_wrap << 15)
            self.barrier()
            self.memory.store16(self.driver_event + 2, EVENT_DESC)
