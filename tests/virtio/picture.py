"""Pictures as a guest draws them, and as a screenshot must show them."""
import random

import pv
from gpu import FORMATS


def noise(width, height, seed=1, stride=None):
    """Bytes of a frame, four per pixel."""
    return random.Random(seed).randbytes((stride or 4 * width) * height)


def rgb(data, width, height, fmt, stride=None):
    """Rows of RGB bytes of a frame in a virtio-gpu format."""
    stride = stride or 4 * width
    rows = []
    for y in range(height):
        row = data[y * stride:y * stride + 4 * width]
        out = bytearray(3 * width)
        for channel, position in enumerate(FORMATS[fmt][:3]):
            out[channel::3] = row[position::4]
        rows.append(bytes(out))
    return rows


def patch(rows, x, y, other):
    """Rows with a smaller picture laid over them."""
    rows = [bytearray(row) for row in rows]
    for i, row in enumerate(other):
        rows[y + i][3 * x:3 * x + len(row)] = row
    return [bytes(row) for row in rows]


def cut(rows, x, y, width, height):
    return [row[3 * x:3 * (x + width)] for row in rows[y:y + height]]


def check_screen(dev, wanted, what, scanout=0):
    """A screenshot equals rows of RGB, pixel by pixel."""
    width, height, rows = dev.screenshot(scanout)
    pv.check_equal((width, height), (len(wanted[0]) // 3, len(wanted)), f'{what}: size')
    for y, (row, good) in enumerate(zip(rows, wanted)):
        if row != good:
            x = next(i for i in range(width) if row[3 * i:3 * i + 3] != good[3 * i:3 * i + 3])
            raise pv.Failure(f'{what}: pixel {x},{y} is {row[3 * x:3 * x + 3].hex()}, '
                             f'sent was {good[3 * x:3 * x + 3].hex()}')
