"""The start of a vtest session, as Mesa's Venus driver begins it: for timing a server's start."""

import os
import socket
import struct
import time

CREATE_RENDERER = 8
PING_PROTOCOL_VERSION = 10
PROTOCOL_VERSION = 11
RESOURCE_BUSY_WAIT = 7
GET_PARAM = 15
GET_CAPSET = 16
CONTEXT_INIT = 17
CAPSET_VENUS = 4
PARAM_MAX_TIMELINE_COUNT = 1


def _send(sock, command, *words):
    sock.sendall(struct.pack(f"<{2 + len(words)}I", len(words), command, *words))


def _receive_exactly(sock, size):
    data = b""
    while len(data) < size:
        part = sock.recv(size - len(data))
        if not part:
            raise ConnectionError("the server closed the connection")
        data += part
    return data


def _receive(sock, wanted):
    length, command = struct.unpack("<2I", _receive_exactly(sock, 8))
    if command != wanted:
        raise ConnectionError(f"answer to {command} instead of {wanted}")
    return _receive_exactly(sock, length * 4)


def time_start(path, name=b"bench\0"):
    """Connect, go through the handshake up to the context, and disconnect.

    Returns milliseconds from connect() to the first answer, and to the capability set, which is the
    first answer that needs the host driver.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(20)
        start = time.monotonic()
        sock.connect(path)
        sock.sendall(struct.pack("<2I", len(name), CREATE_RENDERER) + name)
        _send(sock, PING_PROTOCOL_VERSION)
        _send(sock, RESOURCE_BUSY_WAIT, 0, 0)
        _receive(sock, PING_PROTOCOL_VERSION)
        first = time.monotonic()
        _receive(sock, RESOURCE_BUSY_WAIT)
        _send(sock, PROTOCOL_VERSION, 3)
        _receive(sock, PROTOCOL_VERSION)
        _send(sock, GET_PARAM, PARAM_MAX_TIMELINE_COUNT)
        _receive(sock, GET_PARAM)
        _send(sock, GET_CAPSET, CAPSET_VENUS, 0)
        _receive(sock, GET_CAPSET)
        capset = time.monotonic()
        _send(sock, CONTEXT_INIT, CAPSET_VENUS)
    return (first - start) * 1e3, (capset - start) * 1e3


def is_listening(path):
    if not os.path.exists(path):
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        try:
            sock.connect(path)
        except OSError:
            return False
    return True
