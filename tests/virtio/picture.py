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


def check_rows(size, rows, wanted, what):
    """A picture of this size equals rows of RGB, pixel by pixel."""
    pv.check_equal(size, (len(wanted[0]) // 3, len(wanted)), f'{what}: size')
    for y, (row, good) in enumerate(zip(rows, wanted)):
        if row != good:
            x = next(i for i in range(0, len(row), 3) if row[i:i + 3] != good[i:i + 3])
            raise pv.Failure(f'{what}: pixel {x // 3},{y} is {row[x:x + 3].hex()}, '
                             f'sent was {good[x:x + 3].hex()}')


def check_screen(dev, wanted, what, scanout=0):
    """A screenshot equals rows of RGB."""
    width, height, rows = dev.screenshot(scanout)
    check_rows((width, height), rows, wanted, what)


def draw_on_all(gpu):
    """A picture of its own size on each of 16 scanouts; the rows of each."""
    wanted = []
    for scanout in range(16):
        width, height = 40 + scanout, 30 + 2 * scanout
        data = noise(width, height, scanout)
        resource, backing = gpu.framebuffer(width, height, 2, 1, scanout)
        gpu.draw(resource, backing, data, (0, 0, width, height))
        wanted.append(rgb(data, width, height, 2))
    return wanted


def draw_on_two(gpu):
    """A picture of 200x100 of which scanout 0 shows 110x100 and scanout 1 90x80 at 110,10;
    (resource, pieces, data)."""
    data = noise(200, 100)
    resource = gpu.create_2d(200, 100)
    backing = gpu.backing(200 * 100 * 4)
    gpu.attach(resource, backing)
    gpu.set_scanout(0, resource, (0, 0, 110, 100))
    gpu.set_scanout(1, resource, (110, 10, 90, 80))
    gpu.draw(resource, backing, data, (0, 0, 200, 100))
    return resource, backing, data
