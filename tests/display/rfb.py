"""As much of a VNC client as raw pixels need, and no slower than it must be."""
import socket
import struct

RAW = 0
# 32 bits, little-endian B8G8R8X8
FORMAT = struct.pack('>4B3H3B3x', 32, 24, 0, 1, 255, 255, 255, 16, 8, 0)


class Rfb:
    """A connection; nobody else's password is known. The first update is asked for."""

    def __init__(self, port):
        self.socket = socket.create_connection(('127.0.0.1', port), 20)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = bytearray(64)
        self.read(12)
        self.socket.sendall(b'RFB 003.008\n')
        types = self.read(self.read(1)[0])
        if 1 not in types:
            raise OSError('the server wants a password')
        self.socket.sendall(b'\1')
        self.read(4)
        self.socket.sendall(b'\1')
        self.width, self.height = struct.unpack('>HH', self.read(4))
        self.read(16)
        self.buffer = bytearray(4 * self.width * self.height)
        self.read(struct.unpack('>I', self.read(4))[0])
        self.socket.sendall(b'\0\0\0\0' + FORMAT + struct.pack('>BxHi', 2, 1, RAW))
        self.ask(False)

    def read(self, size):
        """The next bytes; many of them stay valid until the next call only."""
        view = memoryview(self.buffer)[:size]
        done = 0
        while done < size:
            count = self.socket.recv_into(view[done:])
            if count == 0:
                raise EOFError
            done += count
        return bytes(view) if size < 4096 else view

    def ask(self, incremental=True):
        self.socket.sendall(struct.pack('>BBHHHH', 3, incremental, 0, 0, self.width, self.height))

    def update(self):
        """[(x, y, width, height, first four bytes)] of the next update; its pixels are all here."""
        while (kind := self.read(1)[0]) != 0:
            if kind == 3:  # cut text
                self.read(3)
                self.read(struct.unpack('>I', self.read(4))[0])
            elif kind == 1:  # colours
                self.read(5)
        self.read(1)
        rectangles = []
        for _ in range(struct.unpack('>H', self.read(2))[0]):
            x, y, width, height, encoding = struct.unpack('>4Hi', self.read(12))
            if encoding != RAW:
                raise OSError(f'encoding {encoding}')
            pixels = self.read(4 * width * height)
            rectangles.append((x, y, width, height, bytes(pixels[:4])))
        return rectangles
