#!/usr/bin/env python3
"""pearvisor doctor: its text, its JSON and its exit codes."""
import json
import os
import subprocess

import pv

KEYS = {'works', 'works_here', 'works_vm', 'vm', 'page_size', 'loader_version', 'host_error', 'default_device', 'devices',
        'venus_client', 'vulkaninfo', 'vkmark', 'demo_root', 'advice'}
DEVICE_KEYS = {'index', 'name', 'driver', 'driver_info', 'api_version', 'type', 'uuid', 'usable',
               'why_not', 'memory_types', 'semaphore_sync_fd', 'fence_sync_fd',
               'timeline_semaphore', 'modifiers', 'dma_buf', 'presentation_mesa_25_0',
               'presentation_mesa_26'}
MEMORY_KEYS = {'index', 'heap', 'flags', 'tier', 'why'}
CLIENT_KEYS = {'found', 'manifest', 'library', 'mesa_version', 'problem'}
HOST_VISIBLE = 2


def doctor(*args, **env):
    clean = {k: v for k, v in os.environ.items() if not k.startswith(('VK_', 'VN_'))}
    return subprocess.run([pv.PEARVISOR, 'doctor', *args], env={**clean, **env},
                          capture_output=True, text=True, timeout=60 * pv.SLOW)


def read(*args, **env):
    result = doctor('--json', *args, **env)
    try:
        return result.returncode, json.loads(result.stdout)
    except json.JSONDecodeError as error:
        raise pv.Failure(f'no JSON ({error}): {result.stdout}{result.stderr}') from None


def need_drivers():
    pv.MACHINE.driver_file('lvp')
    pv.MACHINE.driver_file('virtio')


def test_json():
    need_drivers()
    code, report = read()
    pv.check_equal(set(report), KEYS, 'keys')
    pv.check_equal(code, 0, 'exit code where everything is installed')
    pv.check(report['works'] is True, 'works is not true')
    pv.check(report['devices'], 'no devices')
    for device in report['devices']:
        pv.check_equal(set(device), DEVICE_KEYS, f'keys of {device["name"]}')
        for memory in device['memory_types']:
            pv.check_equal(set(memory), MEMORY_KEYS, 'keys of a memory type')
        if device['usable']:
            visible = [m for m in device['memory_types'] if m['flags'] & HOST_VISIBLE]
            pv.check(any(m['tier'] and m['why'] for m in visible),
                     f'{device["name"]}: no mappable memory with a tier and a reason')
    pv.check(0 <= report['default_device'] < len(report['devices']), 'default_device')
    pv.check_equal(set(report['venus_client']), CLIENT_KEYS, 'keys of the client')
    pv.check(report['venus_client']['mesa_version'], 'version of the Venus client is not known')


def test_text_says_the_same():
    need_drivers()
    result = doctor()
    _, report = read()
    pv.check_equal(result.returncode, 0, 'exit code')
    for device in report['devices']:
        for field in ('name', 'uuid', 'driver_info', 'modifiers', 'presentation_mesa_25_0',
                      'presentation_mesa_26'):
            pv.check(device[field] in result.stdout, f'no {field} in the text:\n{result.stdout}')
    pv.check('make demo' in result.stdout, 'the text does not lead to the demo')
    for line in result.stdout.splitlines():
        pv.check(len(line) <= 120, f'a line of {len(line)} characters: {line}')


def test_says_which_way_images_go():
    need_drivers()
    _, report = read()
    for device in report['devices']:
        real = device['dma_buf'] != 'none'
        if device['driver'] == 'llvmpipe':
            pv.check_equal(real, os.path.exists('/dev/udmabuf'), 'real dma-bufs with lavapipe')
            pv.check_equal('shared memory' in device['presentation_mesa_26'], not real,
                           'Mesa 26 presents by shared memory')
            pv.check_equal('memfd' in device['presentation_mesa_25_0'], not real,
                           'Mesa 25.0 is warned of')


def test_nothing_installed():
    """The Vulkan loader finds no driver, and so does doctor."""
    code, report = read(VK_DRIVER_FILES='/nonexistent/icd.json')
    pv.check_equal(code, 1, 'exit code without any driver')
    pv.check_equal(set(report), KEYS, 'keys')
    pv.check(report['works'] is False, 'works is not false')
    pv.check(report['host_error'], 'host_error says nothing')
    pv.check(report['devices'] == [] and report['default_device'] is None, 'there are devices')
    pv.check(any('apt' in line for line in report['advice']), f'advice: {report["advice"]}')
    text = doctor(VK_DRIVER_FILES='/nonexistent/icd.json')
    pv.check_equal(text.returncode, 1, 'exit code of the text')
    pv.check('MISSING' in text.stdout and 'do not work here' in text.stdout, text.stdout)


def test_virtual_machines():
    """What it says of QEMU is what `pearvisor engine status` finds."""
    need_drivers()
    _, report = read()
    found = subprocess.run([pv.PEARVISOR, 'engine', 'status'], capture_output=True)
    vm = report['vm']
    pv.check_equal(vm['works'], found.returncode == 0, 'a QEMU that is new enough')
    pv.check_equal(vm['works'], report['works_vm'], 'virtual machines work')
    pv.check(vm['qemu'] if vm['works'] else vm['problem'], f'no word about QEMU: {vm}')
    pv.check(vm['acceleration'] in ('kvm', 'hvf', 'tcg'), f'acceleration: {vm}')
    if vm['acceleration'] == 'tcg':
        pv.check(vm['acceleration_reason'], 'no word why the guest is slow')


def test_no_venus_client():
    """A host driver, and no Mesa client."""
    code, report = read(VK_DRIVER_FILES=pv.MACHINE.driver_file('lvp'))
    pv.check(report['devices'], 'no devices')
    if report['venus_client']['found']:
        # It looks where the loader looks by default, which is a fair way to see it.
        pv.check_equal(code, 0, 'exit code with a client')
        pv.check(report['works_here'] is True, 'works_here is not true')
    else:
        pv.check_equal(code, 0 if report['works_vm'] else 1, 'exit code without a client')
        pv.check(report['works_here'] is False, 'works_here is not false')
        pv.check(report['venus_client']['problem'], 'no word why')


def test_bad_options():
    for args in (['--nonsense'], ['something']):
        result = doctor(*args)
        pv.check(result.returncode not in (0, 1), f'doctor {args} ended with {result.returncode}')
        pv.check(result.stderr.strip(), f'doctor {args} says nothing')


if __name__ == '__main__':
    pv.main(test_json, test_text_says_the_same, test_says_which_way_images_go,
            test_nothing_installed, test_virtual_machines, test_no_venus_client, test_bad_options)
