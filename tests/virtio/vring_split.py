"""The split virtqueue (virtio 1.3, section 2.7)."""
import struct

from vring import F_INDIRECT, F_NEXT, F_WRITE, Vring

AVAIL_NO_INTERRUPT = 1
USED_NO_NOTIFY = 1


class SplitVring(Vring):
    """Descriptor table, available ring, used ring."""

    def __init__(self, memory, size=256, event_idx=True, indirect=True):
        super().__init__(memory, size, event_idx, indirect)
        self.desc = memory.alloc(16 * size)
        self.avail = memory.alloc(6 + 2 * size)
        self.used = memory.alloc(6 + 8 * size)
        self.free = list(range(size))[::-1]
        self.chains = {}  # head: its descriptors
        self.avail_idx = self.last_used = self.told_idx = 0

    def addresses(self):
        """desc, used, avail, in the VMM's address space."""
        return tuple(self.memory.user(a) for a in (self.desc, self.used, self.avail))

    @staticmethod
    def descriptor(address, length, flags, following):
        return struct.pack('<QIHH', address, length, flags, following)

    def base(self):
        """What SET_VRING_BASE names: where the device goes on."""
        return self.last_used

    def set_base(self, value):
        """The device has stopped, and starts again here."""
        self.avail_idx = self.last_used = self.told_idx = value
        self.memory.store16(self.avail + 2, value)
        self.memory.store16(self.used + 2, value)

    def write_descriptor(self, index, address, length, flags=0, following=0):
        """For chains as no driver makes them."""
        self.memory.write(self.desc + 16 * index,
                          self.descriptor(address, length, flags, following))

    def indirect_table(self, chain):
        table = b''
        for i, (address, length, writes) in enumerate(chain):
            last = i == len(chain) - 1
            table += self.descriptor(address, length, (F_WRITE if writes else 0) |
                                     (0 if last else F_NEXT), 0 if last else i + 1)
        return table

    def publish(self, head):
        """Put a chain that is in the table into the available ring."""
        self.memory.store16(self.avail + 4 + 2 * (self.avail_idx % self.size), head)
        self.avail_idx = (self.avail_idx + 1) & 0xffff
        self.barrier()
        self.memory.store16(self.avail + 2, self.avail_idx)

    def put(self, chain, table):
        if table:
            taken = [self.free.pop()]
            self.write_descriptor(taken[0], *table, F_INDIRECT)
        else:
            taken = [self.free.pop() for _ in chain]
            for i, (address, length, writes) in enumerate(chain):
                following = taken[i + 1] if i + 1 < len(taken) else None
                self.write_descriptor(taken[i], address, length, (F_WRITE if writes else 0) |
                                      (0 if following is None else F_NEXT), following or 0)
        self.chains[taken[0]] = taken
        self.publish(taken[0])
        return taken[0]

    def wants_kick(self):
        new, old, self.told_idx = self.avail_idx, self.told_idx, self.avail_idx
        if not self.event_idx:
            return not self.memory.load16(self.used) & USED_NO_NOTIFY
        event = self.memory.load16(self.used + 4 + 8 * self.size)
        return (new - event - 1) & 0xffff < (new - old) & 0xffff

    def used_idx(self):
        return self.memory.load16(self.used + 2)

    def take(self):
        if self.used_idx() == self.last_used:
            return None
        self.barrier()
        entry = self.used + 4 + 8 * (self.last_used % self.size)
        head, written = struct.unpack('<II', self.memory.read(entry, 8))
        self.last_used = (self.last_used + 1) & 0xffff
        self.free += self.chains.pop(head, [])
        return head, written

    def want_call(self):
        if self.event_idx:
            self.memory.store16(self.avail + 4 + 2 * self.size, self.last_used)
