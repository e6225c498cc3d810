#!/usr/bin/env python3
"""What the device says about itself before and after a driver starts it."""
import os
import struct

from device import Device  # first: it finds pv.py

import edid
import frontend
import pv
from frontend import CONFIG_SIZE, Frontend
from gpu import ERR_PARAMETER, ERR_SCANOUT, Gpu, venus

WINDOW_MIN = 1 << 30
PNP_IDS = '/usr/share/hwdata/pnp.ids'


def features_and_protocol():
    with Device() as dev, Frontend(dev.socket) as vm:
        for bit in (frontend.F_VIRGL, frontend.F_EDID, frontend.F_UUID, frontend.F_BLOB,
                    frontend.F_CONTEXT_INIT, frontend.F_INDIRECT, frontend.F_EVENT_IDX,
                    frontend.F_PROTOCOL, frontend.F_VERSION_1):
            pv.check(vm.offered & 1 << bit, f'feature {bit} is not offered ({vm.offered:#x})')
        # frontends that are not QEMU ask once, before they settle the protocol features
        pv.check_equal(vm.offered_first, vm.offered, 'features offered at first')
        pv.check_equal(vm.protocol, frontend.PROTOCOL, 'protocol features')
        pv.check(not vm.call_u64(frontend.GET_PROTOCOL_FEATURES) & 1 << 15,
                 'CONFIGURE_MEM_SLOTS is offered: QEMU would abort at 512 maps')


def shared_memory_is_one_window():
    with Device() as dev, Frontend(dev.socket) as vm:
        sizes = vm.shmem_sizes()
        size = sizes[frontend.WINDOW_SHMID]
        pv.check_equal([i for i, s in enumerate(sizes) if s], [frontend.WINDOW_SHMID], 'regions')
        pv.check(size >= WINDOW_MIN and size & size - 1 == 0, f'a window of {size:#x} bytes')


def configuration_of_any_size():
    with Device('--heads', '3') as dev, Frontend(dev.socket) as vm:
        full = vm.get_config(0, 16)
        pv.check_equal(struct.unpack('<4I', full), (0, 0, 3, 1), 'configuration')
        for size in (20, 24, 256):
            got = vm.get_config(0, size)
            pv.check_equal(got[:16], full, f'configuration read as {size} bytes')
            pv.check_equal(got[20:], bytes(size - 20), 'bytes behind the configuration')
        pv.check_equal(vm.get_config(8, 4), full[8:12], 'num_scanouts alone')
        vm.set_config(bytes([0xff] * CONFIG_SIZE))
        pv.check_equal(vm.get_config(0, 16), full, 'configuration after writing all of it')


def every_scanout_has_an_edid():
    with Device('--heads', '16', '--resolution', '1366x768', vulkan=False) as dev, \
            Frontend(dev.socket) as vm:
        gpu = Gpu(vm)
        seen = set()
        for scanout in range(16):
            data = gpu.edid(scanout)
            edid.check_conforms(data)
            mode = edid.preferred(data)
            pv.check_equal(mode[:2], (1366, 768), f'preferred mode of scanout {scanout}')
            pv.check(59 < mode[2] < 61, f'{mode[2]} Hz')
            seen.add(data)
        pv.check_equal(len(seen), 16, 'different EDIDs (names, serial numbers)')
        pv.check_equal({edid.vendor(data) for data in seen}, {'PEA'}, 'vendor')
        if os.path.exists(PNP_IDS):
            with open(PNP_IDS) as file:
                taken = [line for line in file if line.startswith('PEA\t')]
            pv.check_equal(taken, [], 'who has our vendor id')
        gpu.edid(16, error=ERR_SCANOUT)
        gpu.edid(0xffffffff, error=ERR_SCANOUT)


def display_info_names_what_is_there():
    with Device('--heads', '2', '--resolution', '800x600', vulkan=False) as dev, \
            Frontend(dev.socket) as vm:
        info = Gpu(vm).display_info()
        for scanout in range(2):
            pv.check_equal(info[scanout][2:5], (800, 600, 1), f'scanout {scanout}')
        pv.check_equal(info[2:], [(0,) * 6] * 14, 'scanouts that are not there')


def capset_is_venus():
    with Device() as dev, Frontend(dev.socket) as vm:
        gpu = venus(vm)
        pv.check_equal(gpu.config()[3], 1, 'num_capsets')
        pv.check_equal(gpu.capset_info(0), (4, 0, 160), 'capset 0')
        gpu.capset_info(1, error=ERR_PARAMETER)
        data = gpu.capset()
        pv.check_equal(len(data), 160, 'size of the capset')
        words = struct.unpack('<40I', data)
        pv.check_equal(words[0], 1, 'wire_format_version')
        pv.check(words[1] >= 1 << 22 | 1 << 12, f'vk_xml_version {words[1]:#x}')
        pv.check(words[3] >= 1 and words[4] == 1, 'protocol version and supports_blob_id_0')
        pv.check(words[5] & 1, 'the extension mask is not valid')
        pv.check_equal(words[37:40], (1, 1, 1), 'waits, timelines, use_guest_vram (arena)')
        gpu.capset(1, error=ERR_PARAMETER)
        gpu.capset(5, error=ERR_PARAMETER)


def without_optional_protocol_features():
    """MQ, REPLY_ACK, BACKEND_SEND_FD do not matter; without maps there is a screen only."""
    with Device() as dev:
        for missing in (frontend.P_MQ, frontend.P_REPLY_ACK, frontend.P_SEND_FD):
            with Frontend(dev.socket, protocol=frontend.PROTOCOL & ~(1 << missing)) as vm:
                pv.check_equal(Gpu(vm).display_info()[0][4], 1,
                               f'screen without protocol {missing}')
                vm.wait_mapped()
        for missing in (frontend.P_BACKEND_REQ, frontend.P_SHMEM):
            with Frontend(dev.socket, protocol=frontend.PROTOCOL & ~(1 << missing)) as vm:
                gpu = Gpu(vm)
                pv.check_equal(gpu.display_info()[0][4], 1, f'screen without protocol {missing}')
                pv.check_equal(vm.backend.messages, [], 'backend requests')
                gpu.framebuffer(64, 64)


def features_that_the_driver_refuses():
    """Each virtio-gpu feature left out: the console goes on."""
    with Device() as dev:
        for bit in range(5):
            with Frontend(dev.socket, gpu_features=frontend.GPU_FEATURES & ~(1 << bit)) as vm:
                gpu = Gpu(vm)
                resource, backing = gpu.framebuffer(32, 32)
                gpu.write_backing(backing, b'\x40' * 4096)
                gpu.transfer(resource, (0, 0, 32, 32))
                gpu.flush(resource, (0, 0, 32, 32))
                pv.check_equal(dev.screenshot()[2][0][:3], b'\x40' * 3,
                               f'pixel without feature {bit}')


pv.main(features_and_protocol, shared_memory_is_one_window, configuration_of_any_size,
        every_scanout_has_an_edid, display_info_names_what_is_there, capset_is_venus,
        without_optional_protocol_features, features_that_the_driver_refuses)
