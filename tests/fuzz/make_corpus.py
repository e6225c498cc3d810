#!/usr/bin/env python3
"""Write a recording with every command of the protocol, made from the wire layouts.

    make_corpus.py VK_XML OUT [--seed N] [--variants N] [--seeds FOLDER]

Session "base" creates one object of every type; session "commands" has a few variants of every command
that PearVisor runs, each meant to be sent alone after the base. Values are random within what decodes:
counts match their arrays, ids exist, chains hold structs that may be there. Same seed, same bytes.
"""

import argparse
import pathlib
import random
import re
import struct
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "codegen"))

from generate import read_policy  # noqa: E402
from protocol import Node, Protocol  # noqa: E402

# Rings, reply streams and sequence numbers: tests/fuzz/mutate.c has those.
TRANSPORT = re.compile(r"vk(SetReply|SeekReply|Execute|CreateRing|DestroyRing|NotifyRing|WriteRing|"
                       r"SubmitVirtqueue|WaitVirtqueue|WaitRing)\w*MESA$")
# Values without which a driver layer says no before anything happens.
FIXED = {
    "allocationSize": 4096,
    "memoryTypeIndex": 0,
    "queueFamilyIndex": 0,
    "queueIndex": 0,
    "enabledLayerCount": 0,
    "enabledExtensionCount": 0,
    "timeout": 1000,
    "width": 2,
    "height": 2,
    "depth": 1,
    "layerCount": 1,
    "memoryRowLength": 0,
    "memoryImageHeight": 0,
    "ringIdx": 1,
    "stride": 16,
    "dataSize": 64,
    "queryCount": 2,
}
CONSTANTS = {"VK_UUID_SIZE": 16}


def u32(value):
    return struct.pack("<I", value & 0xFFFFFFFF)


def u64(value):
    return struct.pack("<Q", value & 0xFFFFFFFFFFFFFFFF)


def padded(data):
    return data + bytes(-len(data) % 4)


class Maker:
    def __init__(self, protocol, policy, seed):
        self.p = protocol
        self.policy = policy
        self.random = random.Random(seed)
        self.next_id = 1
        self.ids = {}  # handle type -> id
        self.lines = []  # (name, bytes) of the base
        self.depth = 0
        self.plain = False  # while the base is made: no chains, no choices
        self.making = set()
        self.creators = {}
        for _, command in protocol.commands:
            if policy[command.name][0] == "refuse":
                continue
            for param, node in protocol.request(command):
                if node.kind in ("ptr", "arr") and node.inner and node.inner.mode == "new":
                    if node.inner.kind == "handle":
                        self.creators.setdefault(node.inner.type, command)
        self.creators["VkQueue"] = next(
            c for _, c in protocol.commands if c.name == "vkGetDeviceQueue2"
        )

    # ---- objects -------------------------------------------------------------------------------

    def new_id(self):
        self.next_id += 1
        return self.next_id

    def id_of(self, handle):
        if handle not in self.ids:
            command = self.creators.get(handle)
            if command is None or handle in self.making:
                return 0  # a pipeline may name a pipeline
            self.making.add(handle)
            was, self.plain = self.plain, True
            depth, self.depth = self.depth, 0
            before = dict(self.ids)
            data = self.command(command, reply=False)
            self.ids = {**self.ids, **before}
            self.plain, self.depth = was, depth
            self.lines.append((command.name, data))
        return self.ids[handle]

    # ---- lengths -------------------------------------------------------------------------------

    def evaluate(self, expr, env, index=None):
        if index is not None:
            expr = expr.replace("[i]", f"[{index}]")

        def lookup(match):
            names = re.split(r"->|\.", re.sub(r"\[\d+\]", "", match.group(0)))
            value = {**CONSTANTS, **env}
            for name in names:
                value = value.get(name, 0) if isinstance(value, dict) else 0
                if isinstance(value, list):
                    at = re.search(r"\[(\d+)\]", match.group(0))
                    value = value[int(at.group(1))] if at and value else 0
            return str(value if isinstance(value, int) else 0)

        text = re.sub(r"[A-Za-z_]\w*(?:\[\d+\])?(?:(?:->|\.)\w+)*", lookup, expr)
        return int(eval(text.replace("/", "//")))  # digits and operators only

    def size_of(self, length):
        """Elements of a fixed array: digits, or the name of a constant of the registry."""
        value = length if length.isdigit() else self.p.reg.constants[length]
        return int(str(value).rstrip("U"))

    # ---- values --------------------------------------------------------------------------------

    def number(self, name, ctype, members):
        """A value for a scalar; lengths are small and divisible, selectors choose a member."""
        for member in members:
            if member.selector == name:
                union = self.p.reg.type(member.type)
                choices = [s for m in union.members for s in m.selections]
                return self.p.reg.enum_values[self.random.choice(choices)]
        lengths = {length: expr for m in members for expr in m.lens for length in
                   re.findall(r"[A-Za-z_]\w*", expr)}
        if name in FIXED:
            return FIXED[name]
        if name in lengths or name.endswith("Count"):
            if "/ 4" in lengths.get(name, "") or name.endswith(("Size", "size")):
                return self.random.choice([4, 8, 64])
            if "31" in lengths.get(name, ""):
                return self.random.choice([1, 4, 64])
            return 1 if self.plain else self.random.choice([0, 1, 1, 2])
        if ctype == "VkBool32":
            return self.random.randrange(2)
        if self.plain:
            return 0
        kind = self.p.reg.type(ctype)
        if kind is not None and kind.kind == "enum":
            return self.random.choice([0, 1, 2, 3])
        return self.random.choice([0, 0, 1, 1, 2, 3, 4, 7, 16, 64, 255, 4096])

    def scalar(self, value, ctype):
        size = self.p.scalar_size(ctype)
        if ctype == "float":
            return struct.pack("<f", value)
        if ctype == "double":
            return struct.pack("<d", value)
        return u64(value) if size == 8 else u32(value)

    def chain(self, name, mode):
        out = u32(self.p.stype_value(name))
        if not self.p.has_chain(name):
            return out + u64(0)
        allowed = [s for s in self.p.chain_members(name)
                   if s in (self.p.partial_structs if mode == "partial" else self.p.request_structs)]
        count = 0
        if allowed and not self.plain and self.depth < 3:
            count = self.random.choice([0, 0, 1, 1, 2, 4])
        chosen = self.random.sample(allowed, min(count, len(allowed)))
        self.depth += 1
        for struct_name in chosen:
            out += u64(1) + u32(self.p.stype_value(struct_name))
        out += u64(0)
        for struct_name in reversed(chosen):
            out += self.members(struct_name, mode)[0]
        self.depth -= 1
        return out

    def members(self, name, mode):
        kind = self.p.reg.type(name)
        pairs = self.p.struct_partial(name) if mode == "partial" else self.p.struct_full(name)
        return self.items(pairs, kind.members, {})

    def items(self, pairs, siblings, env, command=None):
        """Values of members or parameters, in order; env collects them for length expressions."""
        out = b""
        for member, node in pairs:
            if node is None:
                continue
            data, value = self.item(node, member, siblings, env, command)
            env[member.name] = value
            out += data
        return out, env

    def structure(self, name, mode):
        out = self.chain(name, mode) if self.p.reg.type(name).stype else b""
        data, env = self.members(name, mode)
        return out + data, env

    def union(self, node, env):
        members = self.p.union_members(node.type)
        if node.selector:
            value = env.get(node.selector, 0)
            for member, inner in members:
                if value in [self.p.reg.enum_values[s] for s in member.selections]:
                    return u32(value) + self.item(inner, member, [], {})[0], None
        index = {"VkClearColorValue": 2}.get(node.type, 0)
        member, inner = members[index]
        return u32(index) + self.item(inner, member, [], {})[0], None

    def handle(self, node, member, optional):
        if node.mode == "new":
            self.ids[node.type] = self.new_id()
            return u64(self.ids[node.type]), None
        if optional and (self.plain or self.random.random() < 0.2):
            return u64(0), None
        return u64(self.id_of(node.type)), None

    def value(self, node, member, siblings, env, optional):
        if node.kind == "scalar":
            number = self.number(member.name, member.type, siblings)
            return self.scalar(number, member.type), number
        if node.kind == "handle":
            return self.handle(node, member, optional)
        if node.kind == "union":
            return self.union(node, env)
        return self.structure(node.type, node.mode)

    def array(self, node, member, siblings, env, index=None):
        count = self.evaluate(node.length, env, index)
        nullable = member.is_optional or member.noautovalidity
        if nullable and index is None and not self.plain and self.random.random() < 0.2:
            return u64(0), None
        out = u64(count)
        inner = node.inner
        values = []
        if inner is None:
            return out, None
        if inner.kind == "blob":
            return out + padded(self.random.randbytes(count)), None
        if inner.kind == "scalar" and self.p.scalar_size(member.type) < 4:
            return out + padded(self.random.randbytes(count * self.p.scalar_size(member.type))), None
        for i in range(count):
            if inner.kind == "str":
                data, value = u64(2) + padded(b"x\0"), None
            elif inner.kind == "arr":
                data, value = self.array(inner, member, siblings, env, i)
            else:
                data, value = self.value(inner, member, [], env, member.noautovalidity)
            out += data
            values.append(value)
        return out, values

    def item(self, node, member, siblings, env, command=None):
        optional = member.is_optional or member.noautovalidity
        if node.kind == "null":
            return u64(0), None
        if node.kind == "str":
            if optional and self.random.random() < 0.3:
                return u64(0), None
            return u64(5) + padded(b"main\0"), None
        if node.kind == "ptr":
            if optional and self.random.random() < 0.3 and not self.plain:
                return u64(0), None
            if node.inner is None:
                return u64(1), None
            data, value = self.value(node.inner, member, siblings, env, False)
            return u64(1) + data, value
        if node.kind == "arr":
            return self.array(node, member, siblings, env)
        if node.kind == "sarr":
            count = self.size_of(node.length)
            inner = node.inner
            if inner.kind == "scalar" and self.p.scalar_size(member.type) < 4:
                size = count * self.p.scalar_size(member.type)
                return u64(count) + padded(bytes(size)), None
            out = u64(count)
            for _ in range(count):
                if inner.kind == "handle":
                    out += u64(0)
                else:
                    out += self.value(inner, member, [], env, True)[0]
            return out, None
        return self.value(node, member, siblings, env, optional)

    def command(self, command, reply):
        number = self.p.numbers[command.name]
        data, _ = self.items(self.p.request(command), command.params, {}, command)
        return u32(number) + u32(1 if reply else 0) + data


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("vk_xml")
    parser.add_argument("out")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--variants", type=int, default=6)
    parser.add_argument("--seeds", type=pathlib.Path, help="one file per command, for libFuzzer")
    args = parser.parse_args()
    protocol = Protocol(
        args.vk_xml,
        ROOT / "registry/venus_private.xml",
        ROOT / "registry/commands.csv",
        ROOT / "registry/extensions.csv",
    )
    policy = read_policy(ROOT / "codegen/policy.csv", protocol)
    maker = Maker(protocol, policy, args.seed)
    for handle in sorted(maker.creators):
        maker.id_of(handle)
    base_ids = dict(maker.ids)
    commands = []
    for _, command in protocol.commands:
        if policy[command.name][0] == "refuse" or TRANSPORT.match(command.name):
            continue
        for variant in range(args.variants):
            maker.ids = dict(base_ids)
            maker.plain = variant == 0
            commands.append((command.name, maker.command(command, reply=variant % 2 == 0)))
    with open(args.out, "w") as out:
        out.write("# Made by tests/fuzz/make_corpus.py.\n== base\n")
        for name, data in maker.lines:
            out.write(f"V {name} {data.hex()}\n")
        out.write("== commands\n")
        for name, data in commands:
            out.write(f"V {name} {data.hex()}\n")
    if args.seeds:
        args.seeds.mkdir(exist_ok=True)
        for number, (name, data) in enumerate(commands):
            (args.seeds / f"{number}-{name}").write_bytes(data)


if __name__ == "__main__":
    main()
