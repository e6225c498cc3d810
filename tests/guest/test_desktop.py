#!/usr/bin/env python3
"""The guest's desktop: Weston as a user, drawn by Zink on Venus; Vulkan, Wayland and X11 programs on it."""
import os
import re
import tempfile
import time

import guest as guests
import test_gpu
from guest import pv

FOLDER = tempfile.TemporaryDirectory(prefix='pv-desktop.', dir='/tmp')
VENUS = r'zink.*Virtio-GPU Venus'


def changed(before, after):
    """(pixels that differ, the box around them)"""
    points = [(x, y) for y, (old, new) in enumerate(zip(before[2], after[2])) if old != new
              for x in range(len(old)) if old[x] != new[x]]
    if not points:
        return 0, (0, 0, 0, 0)
    xs, ys = [p[0] for p in points], [p[1] for p in points]
    return len(points), (min(xs), min(ys), max(xs) + 1, max(ys) + 1)


def colours(picture, box):
    left, top, right, bottom = box
    return len({tuple(pixel) for row in picture[2][top:bottom] for pixel in row[left:right]})


def colourful(picture, box):
    return colours(picture, box) > 50


def shown(guest, command, right=colourful, seconds=60):
    """Run a program on the desktop until its window is there and right: (picture, its box, a later picture)."""
    empty = test_gpu.picture(guest)
    guest.run(f'desktop-run {command} >/tmp/window.log 2>&1 & echo $! >/tmp/window.pid')
    try:
        def window():
            picture = test_gpu.picture(guest)
            count, box = changed(empty, picture)
            return (picture, box) if count > 20000 and right(picture, box) else None
        picture, box = pv.wait_until(window, seconds, f'a window of {command}')
        time.sleep(0.5)
        return picture, box, test_gpu.picture(guest)
    finally:
        guest.run('kill $(cat /tmp/window.pid); sleep 1; cat /tmp/window.log')


def test_weston(guest):
    """It runs as the user, and its GL is Vulkan on the host."""
    guest.run('pgrep -u user -x weston')
    log = guest.run('journalctl -b -u desktop --no-pager')
    pv.check(re.search(f'GL renderer: {VENUS}', log), f'weston said\n{log}')
    said = guest.run('desktop-run sh -c \'id -un; echo $WAYLAND_DISPLAY $DISPLAY\'')
    pv.check(said.startswith('user\nwayland-1 :0'), f'desktop-run gave {said}')
    # what `pearvisor run` starts finds the desktop, too
    guest.run('test -S "$WAYLAND_DISPLAY" && test -n "$DISPLAY"')


def check_cube(guest, wsi):
    picture, box, later = shown(guest, f'vkcube --wsi {wsi}')
    pv.check(box[2] - box[0] >= 400 and box[3] - box[1] >= 400, f'the window is {box}')
    pv.check(colours(picture, box) > 500, f'{colours(picture, box)} colours in the window')
    moved = changed(picture, later)[0]
    pv.check(moved > 2000, f'{moved} pixels changed in half a second')


def test_cube_wayland(guest):
    check_cube(guest, 'wayland')


def test_cube_xcb(guest):
    """In Xwayland, by DRI3 and Present. Xwayland's first shader is a command that is too large for the ring."""
    check_cube(guest, 'xcb')


def test_present_modes(guest):
    """As the user; and as root, whom Xwayland has to let in."""
    for wsi in ('wayland', 'xcb'):
        guest.run(f'timeout 60 vkcube --wsi {wsi} --c 3', 70)
    for wsi in ('wayland', 'xcb'):
        for mode in (0, 1, 2):  # IMMEDIATE, MAILBOX, FIFO
            guest.run(f'desktop-run timeout 60 vkcube --wsi {wsi} --c 60 --present_mode {mode}', 70)


def are_gears(picture, box):
    left, top, right, bottom = box
    pixels = [p for row in picture[2][top:bottom] for p in row[left:right]]
    return all(sum(p[own] > 120 and all(p[i] < p[own] // 2 for i in {0, 1, 2} - {own}) for p in pixels) > 300
               for own in range(3))


def check_gears(guest, renderer, seconds=60):
    """A red, a green and a blue one, drawn by this renderer; how many pixels then change in half a second"""
    picture, _, later = shown(guest, 'stdbuf -oL glxgears -info', are_gears, seconds)
    log = guest.run('cat /tmp/window.log')
    pv.check(re.search(f'GL_RENDERER *= {renderer}', log), f'not {renderer}:\n{log}')
    return changed(picture, later)[0]


def test_glxgears(guest):
    """OpenGL on X11 through Zink."""
    pv.check(check_gears(guest, VENUS) > 300, 'the gears stand still')


def test_glmark2(guest):
    """OpenGL on Wayland; it looks itself for pixels that a right picture has."""
    scenes = ('build', 'texture', 'shading:shading=phong', 'bump:bump-render=normals')
    out = guest.run('desktop-run timeout 90 glmark2-wayland --validate -b ' + ' -b '.join(scenes), 100)
    pv.check(re.search(f'GL_RENDERER: *{VENUS}', out), f'not Zink on Venus:\n{out}')
    pv.check_equal(out.count('Validation: Success'), len(scenes), f'right pictures of glmark2, which said\n{out}\n')


def size_of(guest):
    try:
        return test_gpu.picture(guest)[:2]
    except pv.Failure:  # for a moment nothing is shown
        return None


def test_resize(guest):
    """The desktop takes the sizes that the host gives the screen, and windows stay."""
    guest.run('desktop-run vkcube --wsi wayland >/dev/null 2>&1 & echo $! >/tmp/window.pid')
    for size in ((1024, 700), (1600, 900), (1280, 800)):
        guest.control.ask('resize', scanout=0, width=size[0], height=size[1])
        pv.wait_until(lambda size=size: size_of(guest) == size, 20, f'a desktop of {size}')
    guest.run('kill -0 $(cat /tmp/window.pid) && kill $(cat /tmp/window.pid) && pgrep -u user -x weston')


def test_vkmark(guest):
    for winsys in ('wayland', 'headless'):
        out = guest.run(f'desktop-run timeout 60 vkmark --winsys {winsys} -b cube:duration=1', 70)
        pv.check(re.search(r'FPS: [1-9]', out), f'vkmark on {winsys} said\n{out}')
    guest.run('systemctl stop desktop')
    out = guest.run('timeout 60 vkmark --winsys kms -b cube:duration=1', 70)
    pv.check(re.search(r'FPS: [1-9]', out), f'vkmark on kms said\n{out}')
    guest.run('systemctl start desktop')


def test_drawn_by_the_processor(guest):
    """A GPU that draws into nothing that a screen can show; last, because it stays so."""
    guest.run("echo 'failed to get drm_fb for bo' >/tmp/said && /usr/local/libexec/desktop/check /tmp/said")
    pv.wait_until(lambda: 'Using Pixman renderer' in guest.run('journalctl -b -o cat -u desktop'), 30,
                  'Weston with Pixman')
    pv.wait_until(lambda: colours(test_gpu.picture(guest), (0, 0, 1280, 40)) > 20, 20,
                  'the panel of the desktop')


def main():
    picture = os.path.join(FOLDER.name, 'end.png')
    guest = guests.Guest('--display', f'png:{picture}')
    tests = [test_weston, test_cube_wayland, test_cube_xcb, test_present_modes, test_glxgears,
             test_glmark2, test_resize, test_vkmark,
             test_drawn_by_the_processor]
    guests.main(guest, *tests)


if __name__ == '__main__':
    try:
        main()
    except pv.Skip as why:
        print(f'skipped: {why}')
        raise SystemExit(77) from None
