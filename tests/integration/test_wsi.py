#!/usr/bin/env python3
"""Presenting: both ways that Mesa has, on a headless surface, and a window on an X server.

  Mesa 25.0   images with a DRM format modifier, as dma-bufs        headless only (no real dma-buf here)
  Mesa 26.1   plain images, copied into shared memory               headless, and vkcube on Xvfb
"""
import contextlib
import hashlib
import os
import re
import signal
import struct
import subprocess
import tempfile
import time

import pv

FRAMES = 60
CUBE = 300  # the window's width and height
# Pixels of 90000 by which the same picture differs after full turns of the cube.
NEAR = 900
# Mesa says this once for each swapchain image that it makes with a modifier (VN_DEBUG=wsi).
MODIFIER_IMAGE = 'forcing scanout image linear'
DMA_BUF = 'VK_EXT_external_memory_dma_buf'
MODIFIERS = 'VK_EXT_image_drm_format_modifier'


def extensions(side, server):
    return set(re.findall(r'^\s+(VK_\w+)\s+: extension revision',
                          pv.run(side, server, 'vulkaninfo'), re.M))


def swapchain(side, server, *args):
    """pv-swapchain's output, and how many of its images have a modifier."""
    output = pv.run(side, server, 'pv-swapchain', '--frames', str(FRAMES), *args,
                    env={'VN_DEBUG': 'vtest,wsi'})
    pv.check('pixels of the last frame are right' in output, f'no word about pixels:\n{output}')
    found = re.search(r'swapchain: (\d+) images .*frames/s', output)
    pv.check(found, f'no summary:\n{output}')
    return output, int(found.group(1)), output.count(MODIFIER_IMAGE)


def frames_counted(server):
    """By the worker of the last pv-swapchain, which has to have ended."""
    server.wait_workers(0)
    return int(re.findall(r'\(pv-swapchain\): .* (\d+) frames;', server.log())[-1])


def test_mesa_25_headless_by_modifiers():
    with pv.Server('--stats') as server:
        shown = extensions(pv.MACHINE, server)
        pv.check({DMA_BUF, MODIFIERS, 'VK_KHR_swapchain'} <= shown, f'extensions: {sorted(shown)}')
        for mode in ('fifo', 'mailbox', 'immediate'):
            client = pv.Client(pv.MACHINE, server, 'pv-swapchain', '--frames', '5',
                               '--present-mode', mode)
            code = client.wait(60)
            pv.check(code in (0, 77), f'{client.name} ended with {code}:\n{client.output()}')
            pv.say(f'{mode}: {"presents" if code == 0 else client.output().strip()}')
        _, images, with_modifier = swapchain(pv.MACHINE, server)
        pv.check_equal(with_modifier, images, 'swapchain images with a DRM format modifier')
        pv.check_equal(frames_counted(server), FRAMES, 'frames counted')
        server.check_no_errors()


def test_mesa_25_headless_by_copies():
    """The same on a driver that does not draw into linear images: what others see of them is copied."""
    with pv.Server('--modifier-tier', 'copied') as server:
        _, images, with_modifier = swapchain(pv.MACHINE, server)
        pv.check_equal(with_modifier, images, 'swapchain images with a DRM format modifier')
        server.check_no_errors()


def test_mesa_25_needs_that_path():
    """The counter-test: where dma-bufs are not offered, Mesa 25.0 has no swapchain."""
    with pv.Server('--wsi', 'shm') as server:
        shown = extensions(pv.MACHINE, server)
        pv.check(not {DMA_BUF, MODIFIERS, 'VK_KHR_swapchain'} & shown,
                 f'extensions: {sorted(shown)}')
        client = pv.Client(pv.MACHINE, server, 'pv-swapchain', '--frames', '1')
        pv.check_equal(client.wait(), 77, 'exit code of pv-swapchain')


def test_mesa_26_headless_by_shared_memory():
    with pv.Server() as server:
        shown = extensions(pv.TRIXIE, server)
        pv.check('VK_KHR_swapchain' in shown, f'extensions: {sorted(shown)}')
        if os.path.exists('/dev/udmabuf'):
            pv.say('there is /dev/udmabuf: dma-bufs are real, and offered')
        else:
            # What Mesa is not told of it cannot hand to a compositor.
            pv.check(not {DMA_BUF, MODIFIERS} & shown,
                     f'{DMA_BUF} is offered, and there is no real dma-buf')
            _, _, with_modifier = swapchain(pv.TRIXIE, server)
            pv.check_equal(with_modifier, 0, 'swapchain images with a DRM format modifier')
        swapchain(pv.TRIXIE, server, '--size', '123x457')
        server.wait_workers(0)
        server.check_no_errors()


def test_mesa_26_can_do_the_other_path_too():
    """--wsi dma-buf leads Mesa 26.1 to modifiers, headless; this is what udmabuf will give."""
    with pv.Server('--wsi', 'dma-buf', '--stats') as server:
        shown = extensions(pv.TRIXIE, server)
        pv.check({DMA_BUF, MODIFIERS, 'VK_KHR_swapchain'} <= shown, f'extensions: {sorted(shown)}')
        swapchain(pv.TRIXIE, server)
        pv.check_equal(frames_counted(server), FRAMES, 'frames counted')
        server.check_no_errors()


# ---- a window ----


class Display:
    """An Xvfb that keeps its screen in a file, in the format of xwd."""

    def __enter__(self):
        self.folder = tempfile.TemporaryDirectory(dir='/tmp', prefix='pv-xvfb.')
        read_end, write_end = os.pipe()
        with open(f'{self.folder.name}/log', 'w') as log:
            self.process = subprocess.Popen(
                [pv.MACHINE.program('Xvfb'), '-displayfd', str(write_end), '-screen', '0',
                 '640x480x24', '-fbdir', self.folder.name, '-nolisten', 'tcp', '-ac'],
                pass_fds=[write_end], stdout=log, stderr=log)
        os.close(write_end)
        with os.fdopen(read_end) as pipe:
            number = pipe.readline().strip()
        pv.check(number, 'Xvfb did not start')
        self.name = f':{number}'
        with open(f'{self.folder.name}/Xvfb_screen0', 'rb') as file:
            header = struct.unpack('>25I', file.read(100))
            self.offset = header[0] + 12 * header[19]  # header and colormap
            self.row = header[12]
            pv.check_equal(header[11], 32, 'bits per pixel')
        self.screen = open(f'{self.folder.name}/Xvfb_screen0', 'rb', buffering=0)
        return self

    def __exit__(self, *_):
        self.screen.close()
        self.process.terminate()
        self.process.wait(10)
        self.folder.cleanup()

    def window(self):
        """Pixels of the window at the top left: there is no window manager to move it."""
        self.screen.seek(self.offset)
        rows = self.screen.read(self.row * CUBE)
        return b''.join(rows[y * self.row:y * self.row + CUBE * 4] for y in range(CUBE))


def color_count(pixels):
    return len(set(memoryview(pixels).cast('I')))


def different_pixels(a, b, step=1):
    a, b = memoryview(a).cast('I')[::step], memoryview(b).cast('I')[::step]
    return sum(x != y for x, y in zip(a, b))


def distance_to_nearest(pixels, others):
    """Pixels that differ from the most similar of other pictures, looked for by a few of them."""
    nearest = min(others, key=lambda other: different_pixels(pixels, other, 307))
    return different_pixels(pixels, nearest)


def step_through(display, server, count):
    """Let vkcube run a little, stop it, look; again and again. Returns {hash: pixels}."""
    client = pv.Client(pv.TRIXIE, server, 'vkcube', '--c', '1000000', '--width', str(CUBE),
                       '--height', str(CUBE), env={'DISPLAY': display.name})
    pv.wait_until(lambda: color_count(display.window()) > 50 or not client.running(), 30,
                  f'a picture of vkcube ({client.where})')
    pv.check(client.running(), f'{client.name} ({client.where}) ended:\n{client.output()}')
    seen = {}
    for _ in range(count):
        client.signal(signal.SIGSTOP)
        # What is under way to the screen arrives.
        before, pixels, tries = None, display.window(), 0
        while pixels != before and tries < 50:
            time.sleep(0.005)
            before, pixels, tries = pixels, display.window(), tries + 1
        seen[hashlib.sha256(pixels).digest()] = pixels
        client.signal(signal.SIGCONT)
        time.sleep(0.002)
    client.signal(signal.SIGCONT)
    client.kill()
    return seen


def test_mesa_26_vkcube_in_a_window():
    with Display() as display, pv.Server(side=pv.TRIXIE) as server:
        output = pv.run(pv.TRIXIE, server, 'vkcube', '--c', str(FRAMES), '--width', str(CUBE),
                        '--height', str(CUBE), env={'DISPLAY': display.name})
        pv.check('Venus' in output, f'vkcube did not use Venus:\n{output}')
        native = step_through(display, None, 200)
        for attempt in range(3):
            venus = step_through(display, server, 60)
            # The cube turns 4 degrees a frame, so its pictures come again after 90, but for rounding.
            distances = sorted(distance_to_nearest(pixels, native.values())
                               for pixels in venus.values())
            near = sum(distance <= NEAR for distance in distances)
            drawn = all(color_count(pixels) > 50 for pixels in venus.values())
            if near >= len(venus) * 3 // 4 and drawn:
                break
            # on a busy machine clients are stopped before or in the middle of drawing
            pv.say(f'attempt {attempt + 1}: only {near} of {len(venus)} pictures are whole frames')
        server.wait_workers(0)
        server.check_no_errors()
        for pixels in venus.values():
            colors = color_count(pixels)
            pv.check(colors > 50, f'a frame of {colors} colours is no cube')
            corner = pixels[:4]
            background = sum(pixels[i:i + 4] == corner for i in range(0, len(pixels), 4))
            share = 100 * background // (CUBE * CUBE)
            pv.check(20 < share < 95, f'{share}% of a frame is background: that is no cube')
        pv.check(len(venus) >= 10, f'only {len(venus)} different frames: nothing moves')
        same = len(set(native) & set(venus))
        pv.say(f'{len(venus)} different frames, {len(native)} natively, {same} of them the same; '
               f'the others differ by {distances[len(distances) // 2]} pixels (median), '
               f'{distances[-1]} (largest)')
        pv.check(near >= len(venus) * 3 // 4,
                 'the frames are not those that vkcube shows natively')


def test_mesa_25_window_is_refused():
    """No real dma-buf, no shared memory in this Mesa: it must say no, and not send a memfd."""
    if os.path.exists('/dev/udmabuf'):
        raise pv.Skip('dma-bufs are real here')
    with contextlib.ExitStack() as stack:
        display = stack.enter_context(Display())
        server = stack.enter_context(pv.Server('--log', 'trace'))
        client = pv.Client(pv.MACHINE, server, 'vkcube', '--c', '5', '--suppress_popups',
                           env={'DISPLAY': display.name})
        code = client.wait(30)
        pv.check(code != 0, 'vkcube ran in a window; with which dma-buf?')
        pv.check(code > 0, f'vkcube crashed with signal {-code}:\n{client.output()}')
        server.wait_workers(0)
        pv.check('RESOURCE_EXPORT_FD' not in server.log(), 'memory was exported for the X server')


if __name__ == '__main__':
    pv.main(test_mesa_25_headless_by_modifiers, test_mesa_25_headless_by_copies, test_mesa_25_needs_that_path,
            test_mesa_26_headless_by_shared_memory, test_mesa_26_can_do_the_other_path_too,
            test_mesa_26_vkcube_in_a_window, test_mesa_25_window_is_refused)
