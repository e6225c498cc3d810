#!/usr/bin/env python3
"""Generate PearVisor's protocol code from the Vulkan registry.

    generate.py --vk-xml vk.xml --out DIR [--part P]   C files below DIR; or those of folder P in DIR
    generate.py --vk-xml vk.xml --layouts          every wire layout, on standard output
    generate.py --vk-xml vk.xml --coverage         the coverage table of the documentation

The same input gives the same bytes.
"""

import argparse
import pathlib
import sys

import coverage
import layouts
from emit import Emitter
from emit_null import NullEmitter
from protocol import Protocol, read_table

ROOT = pathlib.Path(__file__).resolve().parent.parent


def read_policy(path, protocol):
    policy = {row["command"]: (row["action"], row["note"] or "") for row in read_table(path)}
    missing = [name for _, name in protocol.known if name not in policy]
    if missing:
        sys.exit(f"{path}: no policy for {', '.join(missing)}")
    for name, (action, note) in policy.items():
        if action not in ("forward", "layer", "hand", "refuse"):
            sys.exit(f"{path}: {name}: unknown action {action!r}")
        if action == "refuse" and not note:
            sys.exit(f"{path}: {name}: refused without a reason")
    return policy


def write_if_changed(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.read_text() != text:
        path.write_text(text)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--vk-xml", required=True)
    parser.add_argument("--out", type=pathlib.Path)
    parser.add_argument("--part", choices=("vulkan", "venus", "tests"))
    parser.add_argument("--layouts", action="store_true")
    parser.add_argument("--coverage", action="store_true")
    args = parser.parse_args()
    protocol = Protocol(
        args.vk_xml,
        ROOT / "registry/venus_private.xml",
        ROOT / "registry/commands.csv",
        ROOT / "registry/extensions.csv",
    )
    policy = read_policy(ROOT / "codegen/policy.csv", protocol)
    if args.layouts:
        print("\n".join(layouts.listing(protocol)))
    if args.coverage:
        print(coverage.table(protocol, policy), end="")
    if args.out:
        emitter = Emitter(protocol, policy)
        for name, text in (emitter.files() | NullEmitter(emitter).files()).items():
            part, file = name.split("/")
            if args.part is None:
                write_if_changed(args.out / name, text)
            elif part == args.part:
                write_if_changed(args.out / file, text)


if __name__ == "__main__":
    main()
