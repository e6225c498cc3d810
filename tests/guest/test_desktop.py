#!/usr/bin/env python3
"""The guest's desktop: Weston as a user, drawn by Zink on Venus; Vulkan, Wayland and X11 programs on it."""
import contextlib
import os
import re
import sys
import tempfile
import time

import guest as guests
import test_gpu
from guest import pv

sys.path.insert(1, os.path.join(os.path.dirname(os.path.realpath(__file__)), '..', 'display'))
import page  # noqa: E402
from browser import CONTROL, Browser  # noqa: E402

FOLDER = tempfile.TemporaryDirectory(prefix='pv-desktop.', dir='/tmp')
VENUS = r'zink.*Virtio-GPU Venus'
JPEG_ERROR = 8  # of 255


def changed(before, after):
    """(pixels that differ, the box around them)"""
    points = [(x, y) for y, (old, new) in enumerate(zip(before[2], after[2])) if old != new
              for x in range(len(old)) if old[x] != new[x]]
    if not points:
        return 0, (0, 0, 0, 0)
    xs, ys = [p[0] for p in points], [p[1] for p in points]
    return len(points), (min(xs), min(ys), max(xs) + 1, max(ys) + 1)


def cut(picture, box):
    left, top, right, bottom = box
    return right - left, bottom - top, [row[left:right] for row in picture[2][top:bottom]]


def colours(picture, box):
    return len(set().union(*cut(picture, box)[2]))


def colourful(picture, box):
    return colours(picture, box) > 50


def shown(guest, command, right=colourful, seconds=60, moving=0):
    """Run a program on the desktop until its window is there and right, and so many pixels have changed:
    (picture, its box)"""
    empty = test_gpu.picture(guest)
    guest.run(f'desktop-run {command} >/tmp/window.log 2>&1 & echo $! >/tmp/window.pid')
    try:
        def window():
            picture = test_gpu.picture(guest)
            count, box = changed(empty, picture)
            return (picture, box) if count > 20000 and right(picture, box) else None
        picture, box = pv.wait_until(window, seconds, f'a window of {command}')
        pv.wait_until(lambda: changed(picture, test_gpu.picture(guest))[0] >= moving, 5,
                      f'movement of {moving} pixels of {command}')
        return picture, box
    finally:
        guest.run('kill $(cat /tmp/window.pid); sleep 1; cat /tmp/window.log')


def wait_panel(guest):
    pv.wait_until(lambda: colours(test_gpu.picture(guest), (0, 0, 1280, 40)) > 20, 60,
                  'the panel of the desktop')


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
    picture, box = shown(guest, f'vkcube --wsi {wsi}', moving=2000)
    pv.check(box[2] - box[0] >= 400 and box[3] - box[1] >= 400, f'the window is {box}')
    pv.check(colours(picture, box) > 500, f'{colours(picture, box)} colours in the window')


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
    pixels = [p for row in cut(picture, box)[2] for p in row]
    return all(sum(p[own] > 120 and all(p[i] < p[own] // 2 for i in {0, 1, 2} - {own}) for p in pixels) > 300
               for own in range(3))


def check_gears(guest, renderer, seconds=60, moving=0):
    """A red, a green and a blue one, drawn by this renderer."""
    shown(guest, 'stdbuf -oL glxgears -info', are_gears, seconds, moving)
    log = guest.run('cat /tmp/window.log')
    pv.check(re.search(f'GL_RENDERER *= {renderer}', log), f'not {renderer}:\n{log}')


def test_glxgears(guest):
    """OpenGL on X11 through Zink."""
    check_gears(guest, VENUS, moving=300)


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

# ---- in a browser ----


def on_page(browser):
    """What the page shows: (width, height, [rows of pixels])"""
    width, height, data = page.canvas(browser)
    pixels = list(zip(data[0::3], data[1::3], data[2::3]))
    return width, height, [pixels[i:i + width] for i in range(0, len(pixels), width)]


def check_same(guest, browser):
    """The page shows what the device does; where there are many colours, it got them as JPEG."""
    def furthest():
        shown, wanted = on_page(browser), test_gpu.picture(guest)
        pv.check_equal(shown[:2], wanted[:2], 'size of the picture on the page')
        return max(max(abs(a - b) for a, b in zip(got, want))
                   for row, good in zip(shown[2], wanted[2]) if row != good
                   for got, want in zip(row, good)) if shown != wanted else 0
    pv.wait_until(lambda: furthest() <= JPEG_ERROR, 10, 'the same picture on the page')
    pv.say(f'the page and the device differ by {furthest()} of 255 at most')


@contextlib.contextmanager
def cube_on_page(guest, browser):
    """vkcube, and the box in which the page shows it."""
    empty = on_page(browser)
    guest.run('desktop-run vkcube --wsi wayland >/dev/null 2>&1 & echo $! >/tmp/window.pid')
    try:
        def window():
            shown = on_page(browser)
            count, box = changed(empty, shown)
            return count > 20000 and colours(shown, box) > 500 and box
        yield pv.wait_until(window, 60, 'vkcube on the page')
    finally:
        guest.run('kill -CONT $(cat /tmp/window.pid); kill $(cat /tmp/window.pid)')


def check_cube_on_page(guest, browser):
    """It moves, is in the list of programs, and looks as the device has it."""
    with cube_on_page(guest, browser) as box:
        before = cut(on_page(browser), box)
        pv.wait_until(lambda: changed(before, cut(on_page(browser), box))[0] > 2000, 5,
                      'movement of the cube on the page')
        check_figures(browser)
        guest.run('kill -STOP $(cat /tmp/window.pid)')
        check_same(guest, browser)


def check_figures(browser):
    """Those of the screen, and those of vkcube."""
    browser.click('more')

    def cube():
        rows = [row for row in page.programs(browser) if row[0] == 'vkcube']
        return rows and '–' not in rows[0] and rows[0]
    name, fps, median, p99, commands, memory = pv.wait_until(cube, 15, 'figures of vkcube')
    pv.say(f'{name}: {fps} fps, {median}/{p99} ms, {commands} commands/s, {memory}')
    pv.check(float(fps) > 0 and 0 < float(median) <= float(p99), f'frames: {fps}, {median}, {p99}')
    pv.check(float(commands.split()[0]) > 0 and memory.endswith('MiB'), f'{commands}, {memory}')
    fps, median, p99, dropped = (page.number(browser, figure)
                                 for figure in ('fps', 'median', 'p99', 'dropped'))
    pv.check(fps > 0 and 0 < median <= p99 and dropped >= 0,
             f'the screen: {fps} fps, {median}/{p99} ms, {dropped} dropped')
    browser.click('more')


def green(picture):
    """(how many pixels are green, the box around them)"""
    shades = {p for p in set().union(*picture[2]) if p[1] > 120 and p[0] < 60 and p[2] < 60}
    nothing = (None,) * picture[0]
    return changed((0, 0, [nothing] * picture[1]),
                   (0, 0, [nothing if shades.isdisjoint(row) else [p if p in shades else None for p in row]
                           for row in picture[2]]))


def check_typing_on_page(guest, browser):
    """A terminal opens by a click; what is typed there runs, and the answer is on the page."""
    pv.wait_until(lambda: colours(on_page(browser), (0, 40, 1280, 800)) == 1, 15, 'an empty desktop on the page')
    empty = on_page(browser)
    page.click(browser, 22, 16)  # the terminal's icon in the panel
    pv.wait_until(lambda: changed(empty, on_page(browser))[0] > 20000, 60, 'a terminal on the page')

    def answered():  # once more where the guest is so slow that it takes a key for held, and repeats it
        browser.keys((CONTROL, 'c'))
        time.sleep(1)  # for the terminal's driver: it forgets what is typed before it has handled that
        page.type_text(browser, "printf '\\e[H\\e[J\\e[42m%999s\\e[m\\n' && echo IT IS $((6 * 7)) >/tmp/typed\n")
        return guest.run('sleep 2; cat /tmp/typed || true').endswith('IT IS 42')
    pv.wait_until(answered, 60, 'the answer to a typed command')
    pv.wait_until(lambda: green(on_page(browser))[0] > 100000, 15, 'a green block on the page')
    check_same(guest, browser)


def check_drag_on_page(browser):
    """The window goes where its title is dragged."""
    left, top, right, bottom = green(on_page(browser))[1]
    x, y = (left + right) // 2, top - 20
    dx, dy = (60 if left < 300 else -60), (40 if top < 200 else -40)
    page.drag(browser, (x, y), (x + dx, y + dy))

    def moved():
        box = green(on_page(browser))[1]
        return abs(box[0] - left - dx) < 3 and abs(box[1] - top - dy) < 3
    pv.wait_until(moved, 15, f'the terminal moved by {dx}, {dy}')


def test_page(guest):
    """The desktop in Chromium: the cube moves, the terminal takes what is typed, the mouse moves windows."""
    url = guest.wait_log(r'web: (http://\S+)').group(1)
    wait_panel(guest)
    with Browser() as browser:
        page.open_page(browser, url)
        check_cube_on_page(guest, browser)
        check_typing_on_page(guest, browser)
        check_drag_on_page(browser)
        guest.run('pkill weston-terminal')
        pv.wait_until(lambda: green(on_page(browser))[0] == 0, 15, 'the end of the terminal')
        page.check_quiet(browser)


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
    wait_panel(guest)


def main():
    picture = os.path.join(FOLDER.name, 'end.png')
    guest = guests.Guest('--display', f'png:{picture}', '--display', 'web')
    tests = [test_weston, test_cube_wayland, test_cube_xcb, test_present_modes, test_glxgears,
             test_glmark2, test_page, test_resize, test_vkmark, test_drawn_by_the_processor]
    guests.main(guest, *tests)


if __name__ == '__main__':
    try:
        main()
    except pv.Skip as why:
        print(f'skipped: {why}')
        raise SystemExit(77) from None
