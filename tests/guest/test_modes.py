#!/usr/bin/env python3
"""The device in its other shapes: one window for all memory, packed virtqueues, images that are copied for
others, no Vulkan.

With the checks of test_gpu.py that such a difference could break, and as few boots as differences allow.
"""
import os

import guest as guests
import pv
import test_desktop
import test_gpu

FEATURE_RING_PACKED = 34


def virtio_features(guest):
    """Numbers of the feature bits that driver and device have agreed on."""
    bits = guest.run('cat $(readlink -f /sys/class/drm/card0/device)/features '
                     '$(readlink -f /sys/class/drm/card0/device)/virtio*/features 2>/dev/null '
                     '| head -1')
    return {i for i, bit in enumerate(bits.strip()) if bit == '1'}


def check_all(guest, tests):
    for test in tests:
        pv.say(test.__name__)
        test(guest)


def many_allocations(guest):
    test_gpu.test_memory_and_sync(guest, '')


def test_arena_and_packed_rings():
    """--window arena: QEMU maps one file at the start. --packed: the guest's driver takes packed virtqueues.
    A full round works with both."""
    with guests.Guest('--gpu-arg', '--window', '--gpu-arg', 'arena', '--gpu-arg', '--packed') as guest:
        features = virtio_features(guest)
        pv.check(FEATURE_RING_PACKED in features, f'no packed rings: {sorted(features)}')
        check_all(guest, [test_gpu.test_vulkaninfo, test_gpu.test_rendering, many_allocations,
                          test_gpu.test_kms, test_gpu.test_console_screenshot, test_gpu.test_resize,
                          test_gpu.test_killed_worker, test_gpu.test_kernel_is_content,
                          test_gpu.test_device_reset])


def test_copied_images():
    """--modifier-tier copied: compositor and programs share rows beside the driver's own images."""
    picture = os.path.join(test_desktop.FOLDER.name, 'copied.png')
    with guests.Guest('--gpu-arg', '--modifier-tier', '--gpu-arg', 'copied',
                      '--display', f'png:{picture}') as guest:
        test_desktop.wait_panel(guest)
        check_all(guest, [test_desktop.test_weston, test_desktop.test_cube_wayland,
                          test_desktop.test_cube_xcb, test_desktop.test_glxgears,
                          test_desktop.test_glmark2, test_desktop.test_vkmark])


def test_desktop_without_vulkan():
    """Then Weston and OpenGL draw with the guest's processor. And the keyboard's layout."""
    picture = os.path.join(test_desktop.FOLDER.name, 'plain.png')
    with guests.Guest('--gpu-arg', '--no-vulkan', '--display', f'png:{picture}',
                      '--keymap', 'de:nodeadkeys') as guest:
        config = guest.run('cat /run/user/1000/weston.ini').splitlines()
        for line in ('renderer=pixman', 'keymap_layout=de', 'keymap_variant=nodeadkeys'):
            pv.check(line in config, f'no {line} in {config}')
        test_desktop.check_gears(guest, 'llvmpipe', 120)
        pv.check_equal(guest.run('systemctl show desktop -P NRestarts'), '0', 'restarts of Weston')


if __name__ == '__main__':
    pv.main(test_arena_and_packed_rings, test_copied_images, test_desktop_without_vulkan)
