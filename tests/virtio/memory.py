"""The guest's physical memory: memfds that the device maps, too.

Laid out as QEMU does it: a low and a main part from one memfd, with a hole between them, and a part
above 4 GiB from another. Addresses are the guest's ("gpa"); rings are named to the device by the
VMM's own address of the same byte ("user address"), which here is made up.
"""
import mmap
import os

PAGE = 4096


class Region:
    """[gpa, gpa + size), backed by a part of a memfd."""

    def __init__(self, gpa, size, user, fd, fd_offset):
        self.gpa, self.size, self.user = gpa, size, user
        self.fd, self.fd_offset = fd, fd_offset
        self.map = mmap.mmap(fd, size, offset=fd_offset)
        self.bytes = memoryview(self.map)
        # Whole halfwords: Python stores bytes one by one where it is told an endianness.
        self.halfwords = self.bytes.cast('H')

    def close(self):
        self.halfwords.release()
        self.bytes.release()
        self.map.close()


class GuestMemory:
    """Regions, and an allocator over the largest two."""

    LOW = 640 << 10
    MAIN = 48 << 20
    HIGH = 48 << 20

    def __init__(self, main=MAIN, high=HIGH):
        self.fds = []
        self.regions = []
        low = self._memfd(self.LOW + main)
        self._add(0, self.LOW, low, 0)
        self._add(1 << 20, main, low, self.LOW)
        self._add(1 << 32, high, self._memfd(high), 0)
        self._free = {}  # by size: addresses
        self._next = [(1 << 20, (1 << 20) + main), (1 << 32, (1 << 32) + high)]
        self._turn = 0

    def _memfd(self, size):
        fd = os.memfd_create('guest', os.MFD_CLOEXEC)
        os.ftruncate(fd, size)
        self.fds.append(fd)
        return fd

    def _add(self, gpa, size, fd, fd_offset):
        self.regions.append(Region(gpa, size, 0x7f1200000000 + gpa, fd, fd_offset))

    def close(self):
        for region in self.regions:
            region.close()
        for fd in self.fds:
            os.close(fd)
        self.regions, self.fds = [], []

    def find(self, gpa, size=1):
        """The region that holds all of a range."""
        for region in self.regions:
            if region.gpa <= gpa and gpa + size <= region.gpa + region.size:
                return region
        raise ValueError(f'no guest memory at {gpa:#x}+{size:#x}')

    def view(self, gpa, size):
        region = self.find(gpa, size)
        return region.bytes[gpa - region.gpa:gpa - region.gpa + size]

    def read(self, gpa, size):
        return bytes(self.view(gpa, size))

    def write(self, gpa, data):
        self.view(gpa, len(data))[:] = data

    def load16(self, gpa):
        region = self.find(gpa, 2)
        return region.halfwords[(gpa - region.gpa) // 2]

    def store16(self, gpa, value):
        region = self.find(gpa, 2)
        region.halfwords[(gpa - region.gpa) // 2] = value & 0xffff

    def user(self, gpa):
        region = self.find(gpa)
        return region.user + gpa - region.gpa

    @staticmethod
    def _room(size):
        """What is set aside for `size` bytes: a power of two, or whole pages."""
        return max(64, 1 << (size - 1).bit_length()) if size < PAGE else -(-size // PAGE) * PAGE

    def alloc(self, size):
        """Guest address of `size` bytes, zeroed; by turns below and above 4 GiB."""
        size = self._room(size)
        if self._free.get(size):
            gpa = self._free[size].pop()
        else:
            self._turn ^= 1
            for turn in (self._turn, self._turn ^ 1):
                start, end = self._next[turn]
                gpa = -(-start // min(size, PAGE)) * min(size, PAGE)
                if gpa + size <= end:
                    self._next[turn] = (gpa + size, end)
                    break
            else:
                raise MemoryError(f'the guest has no {size} bytes left')
        self.write(gpa, bytes(size))
        return gpa

    def free(self, gpa, size):
        self._free.setdefault(self._room(size), []).append(gpa)
