"""Read vk.xml (and our own extension of it) into plain Python objects.

Only facts of the registry live here; what the Venus protocol makes of them is in protocol.py.
"""

import re
import xml.etree.ElementTree as ET
from dataclasses import dataclass, field


@dataclass
class Member:
    """A struct member, union member or command parameter."""

    name: str
    type: str
    const: bool = False
    pointers: int = 0
    dims: list = field(default_factory=list)  # static array sizes, as written
    lens: list = field(default_factory=list)  # one per pointer level: expressions or keywords
    optional: list = field(default_factory=list)
    noautovalidity: bool = False
    values: str = None  # fixed sType
    selector: str = None
    selections: list = field(default_factory=list)
    bitfield: bool = False

    @property
    def is_optional(self):
        return bool(self.optional) and self.optional[0] == "true"


@dataclass
class Type:
    name: str
    kind: str  # struct union enum bitmask handle basetype funcpointer other
    alias: str = None
    members: list = field(default_factory=list)
    extends: list = field(default_factory=list)
    base: str = None  # basetype and bitmask: the underlying type
    bits64: bool = False
    parent: str = None  # handles
    objtype: str = None
    dispatchable: bool = False
    returnedonly: bool = False

    @property
    def stype(self):
        if self.members and self.members[0].name == "sType":
            return self.members[0].values
        return None


@dataclass
class Command:
    name: str
    ret: str = None
    params: list = field(default_factory=list)
    alias: str = None


@dataclass
class Extension:
    name: str
    number: int
    kind: str
    requires: list = field(default_factory=list)  # (depends, [types], [commands])


def wanted_api(element):
    api = element.get("api")
    return api is None or "vulkan" in api.split(",")


def parse_member(element):
    name = element.find("name").text
    type_name = element.find("type").text
    before = (element.text or "").strip()
    after_type = element.find("type").tail or ""
    after_name = element.find("name").tail or ""
    member = Member(name=name, type=type_name)
    member.const = "const" in before.split()
    member.pointers = after_type.count("*")
    member.bitfield = after_name.strip().startswith(":")
    text = "".join(
        (child.text or "") * (child.tag != "comment") + (child.tail or "") for child in element
    )
    member.dims = [dim.strip() for dim in re.findall(r"\[([^\]]*)\]", text)]
    if element.get("altlen"):
        member.lens = [element.get("altlen")]
    elif element.get("len"):
        member.lens = element.get("len").split(",")
    member.optional = (element.get("optional") or "").split(",") if element.get("optional") else []
    member.noautovalidity = element.get("noautovalidity") == "true"
    member.values = element.get("values")
    member.selector = element.get("selector")
    if element.get("selection"):
        member.selections = element.get("selection").split(",")
    return member


class Registry:
    def __init__(self):
        self.types = {}
        self.commands = {}
        self.extensions = {}
        self.features = []  # (number as tuple, [(depends, types, commands)])
        self.constants = {}
        self.enum_values = {}
        self.header_version = 0

    def load(self, path):
        root = ET.parse(path).getroot()
        for types in root.findall("types"):
            for element in types.findall("type"):
                if wanted_api(element):
                    self._add_type(element)
        for enums in root.findall("enums"):
            self._add_enums(enums)
        for commands in root.findall("commands"):
            for element in commands.findall("command"):
                if wanted_api(element):
                    self._add_command(element)
        for element in root.findall("feature"):
            if wanted_api(element):
                number = tuple(int(n) for n in element.get("number").split("."))
                self.features.append((number, self._requires(element)))
                self._add_feature_enums(element, None)
        for extensions in root.findall("extensions"):
            for element in extensions.findall("extension"):
                self._add_extension(element)

    def resolve(self, name):
        """The canonical name behind an alias."""
        while name in self.types and self.types[name].alias:
            name = self.types[name].alias
        return name

    def type(self, name):
        return self.types.get(self.resolve(name))

    def command(self, name):
        while name in self.commands and self.commands[name].alias:
            name = self.commands[name].alias
        return self.commands.get(name)

    def _add_type(self, element):
        category = element.get("category")
        name = element.get("name") or (
            element.find("name").text if element.find("name") is not None else None
        )
        if name is None:
            return
        if name == "VK_HEADER_VERSION" and category == "define":
            self.header_version = int("".join(element.itertext()).split()[-1])
        if element.get("alias"):
            self.types[name] = Type(name, "alias", alias=element.get("alias"))
            return
        if category in ("struct", "union"):
            new = Type(name, category)
            new.members = [parse_member(m) for m in element.findall("member") if wanted_api(m)]
            new.extends = (element.get("structextends") or "").split(",")
            new.extends = [e for e in new.extends if e]
            new.returnedonly = element.get("returnedonly") == "true"
        elif category == "handle":
            new = Type(name, "handle", parent=element.get("parent"))
            new.objtype = element.get("objtypeenum")
            new.dispatchable = element.find("type").text == "VK_DEFINE_HANDLE"
        elif category == "bitmask":
            base = element.find("type").text
            new = Type(name, "bitmask", base=base, bits64=base == "VkFlags64")
        elif category == "basetype":
            base = element.find("type")
            new = Type(name, "basetype", base=base.text if base is not None else None)
        elif category == "enum":
            new = Type(name, "enum")
        elif category == "funcpointer":
            new = Type(name, "funcpointer")
        else:
            new = Type(name, "other")
        self.types.setdefault(name, new)

    def _add_enums(self, enums):
        name = enums.get("name")
        if enums.get("bitwidth") == "64" and name in self.types:
            self.types[name].bits64 = True
        for element in enums.findall("enum"):
            if element.get("alias") or not wanted_api(element):
                continue
            if element.get("value") is not None:
                text = element.get("value")
                if enums.get("type") == "constants":
                    self.constants[element.get("name")] = text
                else:
                    self.enum_values[element.get("name")] = int(text, 0)

    def _add_feature_enums(self, element, number):
        for enum in element.iter("enum"):
            if not enum.get("extends") or enum.get("alias"):
                continue
            if enum.get("offset") is not None:
                extnumber = int(enum.get("extnumber") or number or 0)
                value = 1000000000 + (extnumber - 1) * 1000 + int(enum.get("offset"))
                if enum.get("dir") == "-":
                    value = -value
                self.enum_values[enum.get("name")] = value
            elif enum.get("value") is not None:
                self.enum_values[enum.get("name")] = int(enum.get("value"), 0)

    def _add_command(self, element):
        if element.get("alias"):
            name = element.get("name")
            self.commands[name] = Command(name, alias=element.get("alias"))
            return
        proto = element.find("proto")
        command = Command(proto.find("name").text, ret=proto.find("type").text)
        command.params = [parse_member(p) for p in element.findall("param") if wanted_api(p)]
        self.commands[command.name] = command

    def _requires(self, element):
        out = []
        for require in element.findall("require"):
            if not wanted_api(require):
                continue
            out.append(
                (
                    require.get("depends"),
                    [t.get("name") for t in require.findall("type")],
                    [c.get("name") for c in require.findall("command")],
                )
            )
        return out

    def _add_extension(self, element):
        supported = (element.get("supported") or "").split(",")
        if "vulkan" not in supported:
            return
        number = int(element.get("number"))
        extension = Extension(element.get("name"), number, element.get("type"))
        extension.requires = self._requires(element)
        self.extensions[extension.name] = extension
        self._add_feature_enums(element, number)
