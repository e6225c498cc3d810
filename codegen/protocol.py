"""What the Venus protocol makes of the Vulkan registry: which types and commands are serialised, and
the exact wire form of each.

A wire form is a tree of Node objects in wire order. Everything that is generated (C code, the layout
listing that the tests compare, documentation) comes from these trees.
"""

import csv
import re
from dataclasses import dataclass

from registry import Registry

PRIMITIVES = {
    "float": 4,
    "double": 8,
    "uint8_t": 1,
    "char": 1,
    "uint16_t": 2,
    "uint32_t": 4,
    "int32_t": 4,
    "uint64_t": 8,
    "int64_t": 8,
    "size_t": 8,
}

MAX_CORE = (1, 4)

# Serialisable by the rules, but not in the protocol.
BLOCKED_COMMANDS = {
    "vkBuildAccelerationStructuresKHR",
    "vkCopyAccelerationStructureToMemoryKHR",
    "vkCopyMemoryToAccelerationStructureKHR",
    "vkWriteSamplerDescriptorsEXT",
    "vkWriteResourceDescriptorsEXT",
}
BLOCKED_TYPES = {
    "VkAllocationCallbacks",
    "VkBaseInStructure",
    "VkBaseOutStructure",
    "VkPhysicalDeviceLayeredApiPropertiesKHR",
    "VkPhysicalDeviceLayeredApiPropertiesListKHR",
    "VkPhysicalDeviceLayeredApiVulkanPropertiesKHR",
    "VkPhysicalDeviceLayeredApiKHR",
}
# Unions without a selector: the member that a guest sends, by index.
DEFAULT_TAGS = {
    "VkClearColorValue": 2,
    "VkClearValue": 0,
    "VkDeviceOrHostAddressKHR": 0,
    "VkDeviceOrHostAddressConstKHR": 0,
    "VkPipelineExecutableStatisticValueKHR": 2,
}
BLOCKED_UNIONS = {"VkDescriptorDataEXT", "VkPerformanceValueDataINTEL"}
# vk.xml gives one length for two levels: the inner one.
SECOND_LENGTHS = {
    "ppBuildRangeInfos": "pInfos[i].geometryCount",
    "ppMaxPrimitiveCounts": "pInfos[i].geometryCount",
}
# Private commands stand for public ones, whose entry points they need.
STANDS_FOR = {
    "vkCopyImageToMemoryMESA": "vkCopyImageToMemory",
    "vkCopyMemoryToImageMESA": "vkCopyMemoryToImage",
    "vkWriteSamplerDescriptorMESA": "vkWriteSamplerDescriptorsEXT",
    "vkWriteResourceDescriptorMESA": "vkWriteResourceDescriptorsEXT",
}
# In and out, though vk.xml does not say so with a len.
INOUT_PARAMS = {("vkRegisterCustomBorderColorEXT", "pIndex")}


@dataclass
class Node:
    """One item on the wire.

    kind: scalar, handle, struct, union, ptr, arr, sarr, str, blob, null
    """

    kind: str
    type: str = None
    mode: str = ""  # handle: ref new plain; struct: full partial
    inner: "Node" = None  # ptr, arr, sarr: the element, None when only the flag or count travels
    length: str = None  # arr, sarr: the expression of the length
    selector: str = None

    def text(self):
        if self.kind in ("scalar",):
            return self.type
        if self.kind == "handle":
            return self.type + {"ref": ".ref", "new": ".new", "plain": ""}[self.mode]
        if self.kind == "struct":
            return self.type + (".partial" if self.mode == "partial" else "")
        if self.kind == "union":
            return self.type + (f"({self.selector})" if self.selector else "")
        if self.kind == "ptr":
            return f"ptr({self.inner.text() if self.inner else ''})"
        if self.kind == "arr":
            return f"arr[{self.length}]({self.inner.text() if self.inner else ''})"
        if self.kind == "sarr":
            return f"sarr[{self.length}]({self.inner.text()})"
        return self.kind


class Protocol:
    def __init__(self, vk_xml, private_xml, commands_csv, extensions_csv):
        self.reg = Registry()
        self.reg.load(vk_xml)
        official = set(self.reg.types)
        self.reg.load(private_xml)
        self.private_types = [t for t in self.reg.types if t not in official]
        self.numbers = {}
        self.extensions = []  # (number, name, spec, guest)
        for row in read_table(commands_csv):
            self.numbers[row["name"]] = int(row["number"])
        for row in read_table(extensions_csv):
            self.extensions.append(
                (int(row["number"]), row["name"], int(row["spec"]), row["guest"] == "1")
            )
        self.extension_names = {name for _, name, _, _ in self.extensions}
        self._select()
        self._serializable = {}
        self._reach()

    # ---- selection -----------------------------------------------------------------------------

    def _select(self):
        """Types and commands of core and of the listed extensions."""
        self.selected_types = {}
        self.selected_commands = {}
        present = {f"VK_VERSION_{a}_{b}" for (a, b), _ in self.reg.features if (a, b) <= MAX_CORE}
        present |= {
            f"VK_{k}_VERSION_{a}_{b}"
            for (a, b), _ in self.reg.features
            if (a, b) <= MAX_CORE
            for k in ("BASE", "COMPUTE", "GRAPHICS")
        }
        present |= self.extension_names
        sources = [
            (f"VK_VERSION_{number[0]}_{number[1]}", requires)
            for number, requires in self.reg.features
            if number <= MAX_CORE
        ]
        sources += [
            (name, self.reg.extensions[name].requires)
            for _, name, _, _ in self.extensions
            if name in self.reg.extensions
        ]
        for source, requires in sources:
            for depends, types, commands in requires:
                if depends and not evaluate_depends(depends, present):
                    continue
                for name in types:
                    name = self.reg.resolve(name)
                    self.selected_types.setdefault(name, []).append(source)
                for name in commands:
                    if self.reg.command(name):
                        name = self.reg.command(name).name
                        self.selected_commands.setdefault(name, []).append(source)

    def object_kind(self, name):
        """The VkObjectType of a handle type, None for other types."""
        kind = self.reg.type(name)
        return kind.objtype if kind and kind.kind == "handle" else None

    def command_aliases(self, name):
        return [
            c.name
            for c in self.reg.commands.values()
            if c.alias and self.reg.command(c.name) and self.reg.command(c.name).name == name
        ]

    # ---- scalars -------------------------------------------------------------------------------

    def scalar_size(self, name):
        """Bytes of a scalar type in memory, or None."""
        if name in PRIMITIVES:
            return PRIMITIVES[name]
        kind = self.reg.type(name)
        if kind is None:
            return None
        if kind.kind == "enum":
            return 8 if kind.bits64 else 4
        if kind.kind == "bitmask":
            return 8 if kind.bits64 else 4
        if kind.kind == "basetype":
            return self.scalar_size(kind.base) if kind.base else None
        return None

    def scalar_name(self, name):
        """The name under which the layout listing shows a scalar type."""
        kind = self.reg.type(name)
        if kind and kind.kind == "bitmask":
            return "VkFlags64" if kind.bits64 else "VkFlags"
        return self.reg.resolve(name)

    # ---- what can be serialised ----------------------------------------------------------------

    def serializable(self, name):
        name = self.reg.resolve(name)
        if name in self._serializable:
            return self._serializable[name]
        self._serializable[name] = True  # pNext and pointers may be recursive
        kind = self.reg.types.get(name)
        if name in BLOCKED_TYPES or name in BLOCKED_UNIONS:
            result = False
        elif self.scalar_size(name) is not None:
            result = True
        elif kind is None:
            result = False
        elif kind.kind == "handle":
            result = True
        elif kind.kind == "union":
            result = name in DEFAULT_TAGS or all(m.selections for m in kind.members)
        elif kind.kind == "struct":
            result = all(self.member_serializable(m) for m in kind.members)
        else:
            result = False
        self._serializable[name] = result
        return result

    def member_serializable(self, member):
        if member.name == "pNext":
            return True
        if member.bitfield or len(member.dims) > 1:
            return False
        if member.type == "void":
            return member.pointers == 1 and bool(member.lens) or member.is_optional
        if self.serializable(member.type):
            if member.type == "char" and member.pointers:
                return "null-terminated" in member.lens or bool(member.lens)
            if member.pointers == 2 and len(member.lens) < 2:
                return member.name in SECOND_LENGTHS
            return member.pointers <= 2
        return member.is_optional and member.pointers > 0

    def command_serializable(self, command):
        if command.name in BLOCKED_COMMANDS:
            return False
        if command.ret not in ("void",) and self.scalar_size(command.ret) is None:
            return False
        if command.ret.startswith("PFN_"):
            return False
        return all(self.member_serializable(p) for p in command.params)

    # ---- wire forms ----------------------------------------------------------------------------

    def value(self, member_type, mode, selector=None, handle_mode="ref"):
        """The node of one value of a type."""
        name = self.reg.resolve(member_type)
        kind = self.reg.types.get(name)
        if self.scalar_size(name) is not None:
            return Node("scalar", self.scalar_name(name))
        if kind.kind == "handle":
            return Node("handle", name, handle_mode)
        if kind.kind == "union":
            return Node("union", name, selector=selector)
        return Node("struct", name, mode)

    def member_node(self, owner, member, mode="full", handle_mode="ref"):
        """Full form of a member or parameter."""
        if (
            not self.serializable(member.type)
            and member.type != "void"
            or (member.type == "void" and not member.lens)
        ):
            return Node("null")
        if member.dims:
            return Node(
                "sarr", length=member.dims[0], inner=self.value(member.type, mode, None, handle_mode)
            )
        if member.pointers == 0:
            return self.value(member.type, mode, member.selector, handle_mode)
        lens = member.lens
        if member.type == "void":
            return Node("arr", length=lens[0], inner=Node("blob"))
        if member.type == "char" and "null-terminated" in lens:
            if member.pointers == 1:
                return Node("str")
            return Node("arr", length=lens[0], inner=Node("str"))
        inner = self.value(member.type, mode, None, handle_mode)
        if member.pointers == 2:
            second = lens[1] if len(lens) > 1 else SECOND_LENGTHS[member.name]
            return Node("arr", length=lens[0], inner=Node("arr", length=second, inner=inner))
        if lens:
            return Node("arr", length=lens[0], inner=inner)
        return Node("ptr", inner=inner)

    def ordered_members(self, kind):
        """Members in wire order, without sType and pNext: a length goes before its array."""
        members = [m for m in kind.members if m.name not in ("sType", "pNext")]
        names = [m.name for m in members]
        for member in list(members):
            for length in member.lens:
                if length in names:
                    at, of = names.index(length), names.index(member.name)
                    if at > of:
                        members.insert(of, members.pop(at))
                        names.insert(of, names.pop(at))
        return members

    def struct_full(self, name):
        kind = self.reg.type(name)
        return [(m, self.member_node(kind, m)) for m in self.ordered_members(kind)]

    def struct_partial(self, name):
        """The members that the host cannot invent; None for those that send nothing."""
        kind = self.reg.type(name)
        lengths = set()
        for member in kind.members:
            if member.pointers and not member.dims:
                lengths.update(member.lens)
        out = []
        for member in self.ordered_members(kind):
            node = None
            full = self.member_node(kind, member, "partial", "new")
            if member.name in lengths:
                node = self.member_node(kind, member)
            elif full.kind in ("struct", "handle", "null"):
                node = full
            elif full.kind == "sarr" and full.inner.kind in ("struct", "handle"):
                node = full
            elif full.kind == "arr":
                keeps = full.inner.kind in ("struct", "handle")
                node = Node("arr", length=full.length, inner=full.inner if keeps else None)
            elif full.kind == "ptr":
                keeps = full.inner.kind in ("struct", "handle")
                node = Node("ptr", inner=full.inner if keeps else None)
            out.append((member, node))
        return out

    def is_output(self, param):
        return param.pointers > 0 and not param.const

    def request(self, command):
        lengths = set()
        for param in command.params:
            lengths.update(param.lens)
        out = []
        for param in command.params:
            if not self.is_output(param):
                out.append((param, self.member_node(None, param)))
                continue
            inout = param.name in lengths or (command.name, param.name) in INOUT_PARAMS
            full = self.member_node(None, param, "partial", "new")
            if inout and not param.lens:
                node = self.member_node(None, param)
            elif full.kind in ("ptr", "arr"):
                keeps = full.inner.kind in ("struct", "handle")
                node = Node(full.kind, length=full.length, inner=full.inner if keeps else None)
            else:
                node = full
            out.append((param, node))
        return out

    def reply(self, command):
        out = []
        for param in command.params:
            if self.is_output(param):
                out.append((param, self.member_node(None, param, "full", "plain")))
        return out

    # ---- pNext ---------------------------------------------------------------------------------

    def chain_members(self, name):
        """Structs that may follow in the pNext chain of `name`, by sType value."""
        return self._chains.get(self.reg.resolve(name), [])

    def stype_value(self, name):
        stype = self.reg.type(name).stype
        return self.reg.enum_values.get(stype) if stype else None

    def _build_chains(self):
        self._chains = {}
        for name in self.selected_types:
            kind = self.reg.types.get(name)
            if not kind or kind.kind != "struct" or not kind.extends:
                continue
            if not self.serializable(name) or self.stype_value(name) is None:
                continue
            for head in kind.extends:
                self._chains.setdefault(self.reg.resolve(head), []).append(name)
        for members in self._chains.values():
            members.sort(key=self.stype_value)

    def has_chain(self, name):
        kind = self.reg.type(name)
        return any(m.name == "pNext" for m in kind.members)

    # ---- everything that can appear on the wire ------------------------------------------------

    def _reach(self):
        self._build_chains()
        self.commands = []  # (number, Command), serialised, in order of their numbers
        self.known = []  # (number, name) of every number, serialised or not
        for name, number in sorted(self.numbers.items(), key=lambda item: item[1]):
            command = self.reg.command(name)
            self.known.append((number, name))
            private = name.endswith("MESA")
            needs = STANDS_FOR.get(name)
            if needs and self.reg.command(needs) is None:
                continue
            if command is None or not (private or command.name in self.selected_commands):
                continue
            if self.command_serializable(command):
                self.commands.append((number, command))
        self.full_structs = set()
        self.partial_structs = set()
        self.request_structs = set()
        self.reply_structs = set()
        self.unions = set()
        for _, command in self.commands:
            for _, node in self.request(command):
                self._visit(node, self.request_structs)
            for _, node in self.reply(command):
                self._visit(node, self.reply_structs)
        self.full_structs = self.request_structs | self.reply_structs

    def _visit(self, node, full_set):
        if node is None:
            return
        if node.kind in ("ptr", "arr", "sarr"):
            self._visit(node.inner, full_set)
        elif node.kind == "union":
            if node.type not in self.unions or full_set is not None:
                self.unions.add(node.type)
                for member, inner in self.union_members(node.type):
                    self._visit(inner, full_set)
        elif node.kind == "struct":
            target = self.partial_structs if node.mode == "partial" else full_set
            if node.type in target:
                return
            target.add(node.type)
            members = (
                self.struct_partial(node.type)
                if node.mode == "partial"
                else self.struct_full(node.type)
            )
            for _, inner in members:
                self._visit(inner, full_set)
            if self.has_chain(node.type):
                for name in self.chain_members(node.type):
                    self._visit(Node("struct", name, node.mode), full_set)

    def union_members(self, name):
        kind = self.reg.type(name)
        return [(m, self.member_node(kind, m)) for m in kind.members]


def read_table(path):
    with open(path, newline="") as lines:
        return list(csv.DictReader(line for line in lines if not line.startswith("#")))


def evaluate_depends(text, present):
    """vk.xml's expression: names, + is and, comma is or, parentheses; left to right."""
    tokens = re.findall(r"[\w:]+|[+,()]", text)

    def atom(at):
        if tokens[at] == "(":
            value, at = expression(at + 1)
            return value, at + 1
        name = tokens[at].split("::")[0]
        return name in present, at + 1

    def expression(at):
        value, at = atom(at)
        while at < len(tokens) and tokens[at] in "+,":
            op = tokens[at]
            right, at = atom(at + 1)
            value = (value and right) if op == "+" else (value or right)
        return value, at

    return expression(0)[0]
