#!/usr/bin/env python3
"""vulkaninfo says the same through Venus as natively on the same driver, apart from what EXPLAINED
lists: every limit, feature, property, format, memory type, queue family and extension.

Three pairs: Mesa 25.0 on the machine's driver; Mesa 26.1 on its own driver, with the server in the
root too; and Mesa 26.1 on the machine's driver, where the two vulkaninfo are of different age.
"""
import csv
import glob
import json
import os
import re
import tempfile
import xml.etree.ElementTree

import pv

# Differences that are as they should be: where (client Mesa, '' for both), what (a regular expression
# of the path), why. Extensions that the protocol cannot carry, and the structs of extensions that are
# explained, need no line here: see ExtensionRules.
NO_SPARSE = 'Mesa 25.0 hides sparse resources; Mesa 26.1 on the same host driver shows them'
EXPLAINED = [
    ('', r'/properties/VkPhysicalDevice(|Driver|Vulkan12)Properties/(driver\w+|deviceName)',
     'the guest sees the Venus driver, which names the host device behind it'),
    ('', r'/properties/VkPhysicalDeviceProperties/deviceType',
     'a software driver of the host is a virtual GPU to the guest; checked by itself'),
    ('', r'/properties/VkPhysicalDevice(Driver|Vulkan12)Properties/conformanceVersion/\w+',
     'conformance is a statement about a driver, and Mesa makes its own'),
    ('', r'/properties/VkPhysicalDevice(ID|Vulkan11)Properties/(deviceUUID|driverUUID)/\d+',
     'Mesa makes UUIDs of its own, so that nobody pairs the guest driver with the host driver'),
    ('', r'/properties/VkPhysicalDeviceProperties/pipelineCacheUUID/\d+',
     'a cache of one driver must not be given to the other, so Mesa makes its own UUID here too'),
    ('', r'/properties/VkPhysicalDeviceProperties/apiVersion',
     'the smaller of what the host has and what this Mesa knows; checked by itself'),
    ('', r'/properties/VkPhysicalDeviceLayeredApiPropertiesListKHR/.*',
     'Mesa says here that it is a layer on top of the host device, and which'),
    ('25', r'/features/VkPhysicalDeviceFeatures/sparse(Binding|Residency\w+)',
     NO_SPARSE),
    ('25', r'/properties/VkPhysicalDeviceProperties/limits/sparseAddressSpaceSize', NO_SPARSE),
    ('25', r'/properties/VkPhysicalDeviceProperties/sparseProperties/\w+', NO_SPARSE),
    ('25', r'/formats/\w+/VkSubpassResolvePerformanceQueryEXT/optimal',
     'of VK_EXT_multisampled_render_to_single_sampled, which this Mesa does not have'),
    ('', r'/queueFamiliesProperties/\d+/VkQueueFamilyGlobalPriorityPropertiesKHR/\w+',
     'of VK_KHR_global_priority; shown if and only if the extension is'),
    ('26', r'/formats/VK_FORMAT_R10X6G10X6B10X6A10X6_UNORM_4PACK16/VkFormatProperties/\w+',
     'Mesa drops blits here, which Vulkan forbids for formats of this kind'),
]
# With vulkaninfo of two releases: what only the newer one has a name for.
NEWER_NAMES = re.compile(r'VK_SUBGROUP_FEATURE_ROTATE(_CLUSTERED)?_BIT')

# Extensions of the host that the protocol could carry and that clients do not show.
HIDDEN = {
    'VK_EXT_memory_budget': 'not in Mesa 25.0; in 26.1 with VN_DEBUG=mem_budget only, checked by itself',
    'VK_EXT_ycbcr_image_arrays': 'not among those that Mesa passes on',
    'VK_EXT_external_memory_dma_buf': 'new Mesa is led to present by shared memory: no udmabuf',
    'VK_KHR_external_memory_fd': 'follows VK_EXT_external_memory_dma_buf',
    'VK_KHR_external_fence_fd': 'on vtest there is no way to export a fence; Mesa knows',
    'VK_KHR_external_semaphore_fd': 'on vtest there is no way to export a semaphore; Mesa knows',
}
# The same for Mesa 25.0, whose half of the protocol is older than ours.
HIDDEN_25 = {
    name: 'Mesa 25.0 does not know it as an extension to pass on' for name in '''
    VK_ARM_rasterization_order_attachment_access VK_EXT_attachment_feedback_loop_dynamic_state
    VK_EXT_depth_range_unrestricted VK_EXT_host_image_copy VK_EXT_image_sliced_view_of_3d
    VK_EXT_legacy_vertex_attributes VK_EXT_mesh_shader VK_EXT_multisampled_render_to_single_sampled
    VK_EXT_nested_command_buffer VK_EXT_pipeline_library_group_handles VK_EXT_pipeline_protected_access
    VK_EXT_pipeline_robustness VK_EXT_post_depth_coverage VK_EXT_shader_atomic_float
    VK_EXT_shader_atomic_float2 VK_EXT_shader_replicated_composites VK_EXT_shader_subgroup_vote
    VK_GOOGLE_decorate_string VK_GOOGLE_hlsl_functionality1 VK_KHR_acceleration_structure
    VK_KHR_compute_shader_derivatives VK_KHR_deferred_host_operations
    VK_KHR_dynamic_rendering_local_read VK_KHR_global_priority VK_KHR_index_type_uint8
    VK_KHR_line_rasterization VK_KHR_load_store_op_none VK_KHR_maintenance6 VK_KHR_maintenance7
    VK_KHR_map_memory2 VK_KHR_ray_query VK_KHR_ray_tracing_maintenance1 VK_KHR_ray_tracing_pipeline
    VK_KHR_ray_tracing_position_fetch VK_KHR_shader_expect_assume VK_KHR_shader_float_controls2
    VK_KHR_shader_maximal_reconvergence VK_KHR_shader_relaxed_extended_instruction
    VK_KHR_shader_subgroup_rotate VK_KHR_vertex_attribute_divisor'''.split()
}
# What the guest has and the host has not.
ADDED = {
    'VK_EXT_device_memory_report': "implemented by Mesa's Venus driver itself",
    'VK_EXT_physical_device_drm': "implemented by Mesa's Venus driver itself",
    'VK_EXT_tooling_info': "implemented by Mesa's Venus driver itself",
    'VK_EXT_map_memory_placed': "implemented by Mesa's Venus driver itself",
    'VK_EXT_pci_bus_info': "implemented by Mesa's Venus driver itself",
    'VK_KHR_map_memory2': "implemented by Mesa's Venus driver itself",
    'VK_EXT_image_drm_format_modifier': 'ours: LINEAR only, for presentation of Mesa 25.0',
    'VK_EXT_queue_family_foreign': 'ours, for presentation of Mesa 25.0',
}
WSI = re.compile(r'VK_(KHR|EXT)_(swapchain\w*|present\w*|incremental_present)$')
WSI_WHY = "presentation is done by Mesa's own code on the client's side"


# ---- reading ----


def flatten(value, path=''):
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from flatten(inner, f'{path}/{key}')
    elif isinstance(value, list) and all(isinstance(x, str) for x in value):
        yield path, ' '.join(sorted(value))
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            yield from flatten(inner, f'{path}/{i}')
    else:
        yield path, value


def vulkaninfo_json(side, server):
    """{path: value} of everything in vulkaninfo's JSON of the first device."""
    with tempfile.TemporaryDirectory(dir='/tmp') as folder:
        os.chmod(folder, 0o755)
        pv.run(side, server, 'vulkaninfo', '--json=0', cwd=folder)
        files = glob.glob(f'{folder}/*.json')
        pv.check_equal(len(files), 1, 'JSON files that vulkaninfo left')
        with open(files[0]) as file:
            text = file.read()
    # vulkaninfo 1.4.309 writes ["0": {...}]
    text = re.sub(r'"\d+": \{', '{', text)
    return dict(flatten(json.loads(text)['capabilities']['device']))


def memory_text(side, server, debug='vtest'):
    """What the JSON lacks: heaps and types, as the lines of vulkaninfo's text."""
    env = {'VN_DEBUG': debug} if server else None
    text = pv.run(side, server, 'vulkaninfo', env=env)
    found = re.search(r'^VkPhysicalDeviceMemoryProperties:\n=+\n(.*?)^\S*Features:\n', text,
                      re.S | re.M)
    pv.check(found, 'vulkaninfo shows no memory')
    return [line.strip() for line in found.group(1).splitlines() if line.strip()]


def comparable(lines):
    # Budgets change from second to second; for "(non-sparse)" see NO_SPARSE.
    return [line for line in lines
            if not re.match(r'(budget|usage) *=', line) and line != '(non-sparse)']


# ---- comparing ----


class ExtensionRules:
    """Which extension a path belongs to, and whether a difference in it is explained."""

    def __init__(self, mesa, native, venus):
        self.native = {p.split('/')[2] for p in native if p.startswith('/extensions/')}
        self.venus = {p.split('/')[2] for p in venus if p.startswith('/extensions/')}
        self.hidden = dict(HIDDEN)
        if mesa < (26, 0):
            self.hidden.update(HIDDEN_25)
        with open(f'{pv.SOURCE}/registry/extensions.csv') as file:
            rows = csv.DictReader(line for line in file if not line.startswith('#'))
            self.carried = {row['name'] for row in rows}
        self.extensions_of = {}
        for extension in xml.etree.ElementTree.parse(pv.vk_xml()).iter('extension'):
            for inner in extension.iter('type'):
                self.extensions_of.setdefault(inner.get('name'), set()).add(extension.get('name'))

    def why(self, name):
        """Why only one end shows this extension; None: nobody knows."""
        if WSI.match(name):
            return WSI_WHY
        if name in self.venus:
            return ADDED.get(name)
        if name not in self.carried:
            return 'the Venus protocol has no encoding for it'
        return self.hidden.get(name)

    def why_struct(self, name):
        """The same for a struct: it comes and goes with its extensions."""
        extensions = self.extensions_of.get(name, set())
        different = {e for e in extensions if (e in self.native) != (e in self.venus)}
        if different and not extensions & self.native & self.venus:
            return self.why(sorted(different)[0])
        return None


def explain(mesa, rules, path, one_sided):
    parts = path.split('/')
    if parts[1] == 'extensions' and one_sided:
        return rules.why(parts[2])
    if one_sided and parts[1] in ('features', 'properties'):
        why = rules.why_struct(parts[2])
        if why:
            return why
    for which, pattern, why in EXPLAINED:
        if (not which or str(mesa[0]) == which) and re.fullmatch(pattern, path):
            return why
    return None


def mesa_version(venus):
    text = venus['/properties/VkPhysicalDeviceVulkan12Properties/driverInfo']
    found = re.match(r'Mesa (\d+)\.(\d+)', text)
    pv.check(found, f'no Mesa version in "{text}"')
    return int(found.group(1)), int(found.group(2))


def without_newer_names(value):
    if not isinstance(value, str):
        return value
    return ' '.join(word for word in value.split() if not NEWER_NAMES.fullmatch(word))


def compare(native, venus, same_vulkaninfo=True):
    mesa = mesa_version(venus)
    rules = ExtensionRules(mesa, native, venus)
    unexplained, explained = [], {}
    paths = set(native) | set(venus)
    if not same_vulkaninfo:
        paths = set(native) & set(venus)
        native, venus = ({path: without_newer_names(values[path]) for path in paths}
                         for values in (native, venus))
    for path in sorted(paths):
        if native.get(path) == venus.get(path):
            continue
        why = explain(mesa, rules, path, path not in native or path not in venus)
        if why:
            explained[why] = explained.get(why, 0) + 1
        else:
            unexplained.append(f'{path}: {native.get(path)} natively, {venus.get(path)} through Venus')
    same = len(paths) - sum(explained.values()) - len(unexplained)
    pv.say(f'{same} values are the same, {sum(explained.values())} differ with a reason:')
    for why, count in sorted(explained.items(), key=lambda item: -item[1]):
        pv.say(f'  {count:4} {why}')
    pv.check(not unexplained, f'{len(unexplained)} values differ:\n    ' +
             '\n    '.join(unexplained[:40]))
    pv.check(same > 1200, f'only {same} values compared: is this the output of vulkaninfo?')


def check_type(native, venus):
    types = [values['/properties/VkPhysicalDeviceProperties/deviceType'] for values in (native, venus)]
    wanted = types[0].replace('_CPU', '_VIRTUAL_GPU')
    pv.check_equal(types[1], wanted, f'type of a device that is {types[0]} natively')


def check_version(venus):
    number = venus['/properties/VkPhysicalDeviceProperties/apiVersion']
    version = (number >> 22 & 0x7f, number >> 12 & 0x3ff)
    pv.say(f'Mesa {".".join(map(str, mesa_version(venus)))} shows Vulkan {version[0]}.{version[1]}.'
           f'{number & 0xfff}')
    pv.check_equal(version, (1, 3) if mesa_version(venus) < (25, 1) else (1, 4), 'API version')


def count_lines(lines, name):
    return sum(1 for line in lines if re.match(name + ' *=', line))


def check_memory(client, native_side, server, budget=True):
    native = memory_text(native_side, None)
    venus = memory_text(client, server)
    pv.check(len(native) > 5, f'memory of the host: {native}')
    pv.check_equal(comparable(venus), comparable(native), 'memory heaps and types')
    pv.say(f'{len(comparable(venus))} lines about memory are the same')
    if budget:
        venus = memory_text(client, server, 'vtest,mem_budget')
        for what in ('budget', 'usage'):
            pv.check_equal(count_lines(venus, what), count_lines(native, what), f'lines of {what}')


# ---- the tests ----


def test_mesa_25_on_its_own_driver():
    with pv.Server() as server:
        native, venus = vulkaninfo_json(pv.MACHINE, None), vulkaninfo_json(pv.MACHINE, server)
        compare(native, venus)
        check_type(native, venus)
        check_version(venus)
        check_memory(pv.MACHINE, pv.MACHINE, server, budget=mesa_version(venus) >= (26, 0))
        server.check_no_errors()


def test_mesa_26_on_its_own_driver():
    with pv.Server(side=pv.TRIXIE) as server:
        venus = vulkaninfo_json(pv.TRIXIE, server)
        compare(vulkaninfo_json(pv.TRIXIE, None), venus)
        check_version(venus)
        check_memory(pv.TRIXIE, pv.TRIXIE, server)
        server.check_no_errors()


def test_mesa_26_on_the_machines_driver():
    with pv.Server() as server:
        venus = vulkaninfo_json(pv.TRIXIE, server)
        compare(vulkaninfo_json(pv.MACHINE, None), venus, same_vulkaninfo=False)
        check_version(venus)
        check_memory(pv.TRIXIE, pv.MACHINE, server)
        server.check_no_errors()


if __name__ == '__main__':
    pv.main(test_mesa_25_on_its_own_driver, test_mesa_26_on_its_own_driver,
            test_mesa_26_on_the_machines_driver)
