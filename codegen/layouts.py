"""List every layout of the protocol, one line each, for comparison with the reference listing."""


def items(pairs):
    return "; ".join(f"{m.name}: {n.text()}" for m, n in pairs if n is not None)


def listing(protocol):
    lines = []
    for number, command in protocol.commands:
        lines.append(f"{number} {command.name} : {items(protocol.request(command))}")
        reply = items(protocol.reply(command))
        if command.ret != "void":
            name = protocol.scalar_name(command.ret)
            reply = f"ret: {name}" + (f"; {reply}" if reply else "")
        lines.append(f"R {command.name} : {reply}")
    for name in sorted(protocol.full_structs | protocol.partial_structs):
        if name in protocol.full_structs:
            lines.append(f"S {name} : {items(protocol.struct_full(name))}")
        if name in protocol.partial_structs:
            lines.append(f"P {name} : {items(protocol.struct_partial(name))}")
    for name in sorted(protocol.unions):
        lines.append(f"U {name} : {union_items(protocol, name)}")
    return lines


def union_items(protocol, name):
    out = []
    for index, (member, node) in enumerate(protocol.union_members(name)):
        tag = " ".join(member.selections) if member.selections else str(index)
        out.append(f"{tag}: {member.name}: {node.text()}")
    return "; ".join(out)
