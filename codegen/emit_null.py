"""Emit the null driver of the tests: every entry point of the host, doing nothing.

Calls succeed, created objects get unique handles that know their type, outputs are filled, and what a
call is given is checked: a handle must be alive and of the type that the parameter has. What needs a
decision (properties, memory types, waits) is hand-written in tests/null/null_driver.c.
"""

import re

from emit import BANNER, Lines, short

# tests/null/null_driver.c has these.
HAND = {
    "vkAllocateMemory",
    "vkCopyImageToMemory",
    "vkCopyMemoryToImage",
    "vkCreateDevice",
    "vkDestroyDevice",
    "vkDestroyInstance",
    "vkEnumerateDeviceExtensionProperties",
    "vkEnumeratePhysicalDevices",
    "vkGetBufferMemoryRequirements",
    "vkGetBufferMemoryRequirements2",
    "vkGetDeviceBufferMemoryRequirements",
    "vkGetDeviceImageMemoryRequirements",
    "vkGetDeviceProcAddr",
    "vkGetDeviceQueue",
    "vkGetDeviceQueue2",
    "vkGetFenceStatus",
    "vkGetImageMemoryRequirements",
    "vkGetImageMemoryRequirements2",
    "vkGetMemoryFdKHR",
    "vkGetMemoryHostPointerPropertiesEXT",
    "vkGetPhysicalDeviceExternalSemaphoreProperties",
    "vkGetPhysicalDeviceMemoryProperties",
    "vkGetPhysicalDeviceMemoryProperties2",
    "vkGetPhysicalDeviceProperties",
    "vkGetPhysicalDeviceProperties2",
    "vkGetPhysicalDeviceQueueFamilyProperties",
    "vkGetPhysicalDeviceQueueFamilyProperties2",
    "vkGetPipelineCacheData",
    "vkGetQueryPoolResults",
    "vkMapMemory",
    "vkQueueSubmit",
    "vkWaitForFences",
    "vkWaitSemaphores",
}


def declaration(param):
    const = "const " if param.const else ""
    stars = "*" * param.pointers
    if param.pointers == 2 and param.const:
        stars = "*const *"
    dims = "".join(f"[{d}]" for d in param.dims)
    return f"{const}{param.type} {stars}{param.name}{dims}"


class NullEmitter:
    def __init__(self, emitter):
        self.e = emitter
        self.p = emitter.p
        instance, device = emitter.table_commands()
        self.tables = (("instance", instance), ("device", device))
        self.commands = instance + device
        self.kinds = sorted(
            {
                self.p.object_kind(param.type)
                for command in self.commands
                for param in command.params
                if self.p.object_kind(param.type)
            }
        )

    def prototype(self, command):
        params = ", ".join(declaration(p) for p in command.params)
        return f"VKAPI_ATTR {command.ret} VKAPI_CALL null_{short(command.name)}({params})"

    def count_of(self, command, param):
        return self.e.length_expr(param.lens[0], command.params, "") if param.lens else "1"

    def check_inputs(self, o, command):
        """Handles that a call is given; the object that it destroys last."""
        doomed = self.e.doomed_param(command)
        pooled = doomed is not None and doomed.pointers
        for param in command.params:
            kind = self.p.object_kind(param.type)
            if not kind or (param.pointers and not param.const):
                continue
            what = f'"{command.name}"'
            if param.pointers == 0:
                use = "destroy" if param is doomed and not pooled else "use"
                o(f"null_{use}({what}, (uint64_t)(uintptr_t){param.name}, {kind});")
            elif param.pointers == 1:
                o.open(f"for (uint64_t i = 0; {param.name} && i < {self.count_of(command, param)}; i++)")
                o(f"null_use({what}, (uint64_t)(uintptr_t){param.name}[i], {kind});")
                o.depth -= 1

    def fill_output(self, o, command, param):
        kind = self.p.object_kind(param.type)
        name = param.name
        lengths = {length for p in command.params for length in p.lens}
        if kind:
            tracked = "true" if re.match(r"vk(Create|AllocateMemory)", command.name) else "false"
            o.open(f"for (uint64_t i = 0; {name} && i < {self.count_of(command, param)}; i++)")
            o(f"{name}[i] = ({param.type})(uintptr_t)null_new({kind}, {tracked});")
            o.depth -= 1
        elif name in lengths:
            arrays = [p.name for p in command.params if name in p.lens]
            has = " || ".join(arrays)
            o(f"if ({name} && (!({has}) || *{name} > 2))")
            o(f"    *{name} = 2;")
        elif param.type == "void" and param.pointers == 1 and param.lens:
            o(f"if ({name})")
            o(f"    memset({name}, 0x5a, (size_t){self.count_of(command, param)});")
        elif self.p.scalar_size(param.type) and param.pointers == 1:
            o(f"if ({name})")
            o(f"    memset({name}, 0x5a, (size_t){self.count_of(command, param)} * sizeof(*{name}));")

    def fill_first(self, o, command):
        """Of several pipelines or shaders some may be made although the call fails."""
        for param in command.params:
            kind = self.p.object_kind(param.type)
            if kind and param.lens and not param.const and re.match(r"vkCreate", command.name):
                o(f"if ({param.name} && {self.count_of(command, param)} > 1)")
                o(f"    {param.name}[0] = ({param.type})(uintptr_t)null_new({kind}, true);")

    def emit_command(self, o, command):
        o(f"static {self.prototype(command)}")
        o.open("{")
        self.check_inputs(o, command)
        if command.ret == "VkResult":
            o.open("if (null_fails()) {")
            self.fill_first(o, command)
            o("return VK_ERROR_OUT_OF_DEVICE_MEMORY;")
            o.close()
        outputs = [p for p in command.params if p.pointers and not p.const]
        lengths = {length for p in command.params for length in p.lens}
        for param in sorted(outputs, key=lambda p: p.name not in lengths):  # counts first
            self.fill_output(o, command, param)
        if command.ret == "VkResult":
            o("return VK_SUCCESS;")
        elif command.ret != "void":
            o(f"return ({command.ret})1;")
        o.close()
        o()

    def source(self):
        o = Lines()
        o(BANNER.format(version=f"1.4.{self.p.reg.header_version}"))
        o('#include "null/null_internal.h"\n')
        o("#include <string.h>\n")
        o("#pragma GCC diagnostic ignored \"-Wunused-parameter\"\n")
        for command in self.commands:
            if command.name not in HAND:
                self.emit_command(o, command)
        o.open("const struct null_entry null_entries[] = {")
        for command in self.commands:
            o(f'{{"{command.name}", (PFN_vkVoidFunction)null_{short(command.name)}}},')
        o.close("};")
        o(f"const unsigned null_entry_count = {len(self.commands)};\n")
        for what, commands in self.tables:
            o(f"void null_fill_{what}_table(struct pv_vk_{what}_table *table)")
            o.open("{")
            for command in commands:
                o(f"table->{short(command.name)} = null_{short(command.name)};")
            o.close()
            o()
        o.open("const VkExtensionProperties null_extensions[] = {")
        count = 0
        for _, name, spec, guest in self.p.extensions:
            if not guest and name in self.p.reg.extensions:
                o(f'{{"{name}", {spec}}},')
                count += 1
        o.close("};")
        o(f"const uint32_t null_extension_count = {count};")
        return o.text()

    def header(self):
        o = Lines()
        o(BANNER.format(version=f"1.4.{self.p.reg.header_version}"))
        o("#ifndef PV_GENERATED_NULL_ENTRIES_H\n#define PV_GENERATED_NULL_ENTRIES_H\n")
        o('#include "vulkan/table.h"\n')
        for command in self.commands:
            if command.name in HAND:
                o(f"{self.prototype(command)};")
        o("\n#endif")
        return o.text()

    def files(self):
        return {"tests/null_entries.h": self.header(), "tests/null_entries.c": self.source()}
