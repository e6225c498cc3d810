#!/usr/bin/env python3
"""Guest memory that comes and goes at run time, as a table and in slots."""
import struct

from device import Device  # first: it finds pv.py

import frontend as f
import pv
from frontend import Frontend
from gpu import ERR_PARAMETER, Gpu
from memory import Region
from picture import check_screen, noise, rgb

SLOTS = f.PROTOCOL | 1 << f.P_MEM_SLOTS
HOTPLUG = 1 << 36
MIB = 1 << 20


def hotplug(vm, gpa, size=MIB):
    """A region that the guest has and the device does not know yet."""
    fd = vm.memory._memfd(size)
    return Region(gpa, size, 0x7f1200000000 + gpa, fd, 0)


def draw_from(gpu, dev, region, seed):
    """Show a picture whose pixels are in a region."""
    width, height = 100, 40
    data = noise(width, height, seed)
    region.bytes[4096:4096 + len(data)] = data
    resource = gpu.create_2d(width, height)
    gpu.attach(resource, [(region.gpa + 4096, len(data))])
    gpu.set_scanout(0, resource, (0, 0, width, height))
    gpu.transfer(resource, (0, 0, width, height))
    gpu.flush(resource, (0, 0, width, height))
    check_screen(dev, rgb(data, width, height, 2), f'a picture in {region.gpa:#x}')
    return resource


def table_changes_while_running():
    """SET_MEM_TABLE with one region more, one less, and the same again: rings go on."""
    with Device(vulkan=False) as dev, Frontend(dev.socket) as vm:
        gpu = Gpu(vm)
        for seed in range(5):
            region = hotplug(vm, HOTPLUG + seed * MIB)
            vm.memory.regions.append(region)
            vm.send_memory_table()
            resource = draw_from(gpu, dev, region, seed)
            vm.send_memory_table()
            vm.memory.regions.remove(region)
            vm.send_memory_table()
            gpu.transfer(resource, (0, 0, 100, 40), error=ERR_PARAMETER)
            gpu.unref(resource)
            region.close()


def rings_stay_where_they_are():
    """The same memory with new user addresses, as after a VMM has moved its mappings."""
    with Device(vulkan=False) as dev, Frontend(dev.socket) as vm:
        gpu = Gpu(vm)
        gpu.display_info()
        for region in vm.memory.regions:
            region.user += 1 << 40
        vm.send_memory_table()
        for index, queue in enumerate(vm.queues):
            desc, used, avail = queue.addresses()
            vm.send(f.SET_VRING_ADDR, struct.pack('<II4Q', index, 0, desc, used, avail, 0))
        gpu.display_info()


def slots():
    """ADD_MEM_REG and REM_MEM_REG, 60 times over."""
    with Device('--memory-slots', vulkan=False) as dev, \
            Frontend(dev.socket, protocol=SLOTS) as vm:
        pv.check(vm.protocol & 1 << f.P_MEM_SLOTS, 'memory slots are not offered')
        count = vm.call_u64(f.GET_MAX_MEM_SLOTS)
        pv.check(count >= 8, f'{count} memory slots')
        gpu = Gpu(vm)
        for seed in range(60):
            region = hotplug(vm, HOTPLUG + seed * MIB)
            vm.slot(f.ADD_MEM_REG, region)
            resource = draw_from(gpu, dev, region, seed)
            vm.slot(f.REM_MEM_REG, region, fd=seed % 2)
            gpu.transfer(resource, (0, 0, 100, 40), error=ERR_PARAMETER)
            gpu.unref(resource)
            region.close()


def wrong_slots():
    with Device('--memory-slots', vulkan=False) as dev, \
            Frontend(dev.socket, protocol=SLOTS) as vm:
        gpu = Gpu(vm)
        region = hotplug(vm, HOTPLUG)
        vm.slot(f.REM_MEM_REG, region, wanted=1)
        vm.slot(f.ADD_MEM_REG, region, fd=False, wanted=1)
        vm.slot(f.ADD_MEM_REG, region)
        vm.slot(f.ADD_MEM_REG, region, wanted=1)
        over = hotplug(vm, HOTPLUG + MIB // 2)
        vm.slot(f.ADD_MEM_REG, over, wanted=1)
        short = hotplug(vm, HOTPLUG + 8 * MIB)
        short.size *= 2
        vm.slot(f.ADD_MEM_REG, short, wanted=1)
        # As many as there may be, and one more.
        count = vm.call_u64(f.GET_MAX_MEM_SLOTS)
        added = 0
        for i in range(count + 4):
            small = hotplug(vm, HOTPLUG + (16 + i) * MIB, 65536)
            if vm.slot(f.ADD_MEM_REG, small, wanted=None):
                break
            added += 1
        pv.check(added < count + 4, f'{added} regions where {count} are allowed')
        gpu.display_info()


pv.main(table_changes_while_running, rings_stay_where_they_are, slots, wrong_slots)
