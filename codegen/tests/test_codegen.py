#!/usr/bin/env python3
"""The generator itself: its tables are complete, its output is what it was, and twice the same.

    test_codegen.py VK_XML [--update]      --update writes codegen/tests/expected and docs/coverage.md
"""

import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
EXPECTED = ROOT / "codegen/tests/expected"
COVERAGE = ROOT / "docs/coverage.md"
sys.path.insert(0, str(ROOT / "codegen"))

from generate import read_policy  # noqa: E402
from protocol import Protocol, read_table  # noqa: E402

VK_XML = None

# What is read by people: three commands from the bytes to the driver and back.
FUNCTIONS = {
    "vkCmdDraw": ["pv_run_vkCmdDraw"],
    "vkCreateBuffer": ["pv_run_vkCreateBuffer", "pv_dec_body_VkBufferCreateInfo"],
    "vkGetPhysicalDeviceProperties2": [
        "pv_run_vkGetPhysicalDeviceProperties2",
        "pv_dec_room_body_VkPhysicalDeviceProperties2",
        "pv_enc_body_VkPhysicalDeviceProperties2",
        "pv_enc_VkPhysicalDeviceProperties2",
        "pv_enc_VkPhysicalDeviceSparseProperties",
    ],
}


def generate(*args, hash_seed="0"):
    run = subprocess.run(
        [sys.executable, ROOT / "codegen/generate.py", "--vk-xml", VK_XML, *args],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONHASHSEED": hash_seed, "PATH": "/usr/bin:/bin"},
    )
    return run.stdout


def tree(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def function(text, name):
    """The definition of a function, without its prototypes."""
    found = re.search(rf"^(?:static )?void {name}\([^;]*?\)\n\{{.*?^\}}$", text, re.M | re.S)
    return found.group(0) if found else None


def excerpts(folder):
    text = "\n".join(p.read_text() for p in sorted((folder / "venus").glob("*.c")))
    out = {}
    for command, names in FUNCTIONS.items():
        parts = [function(text, name) for name in names]
        out[command] = "\n\n".join(part for part in parts if part) + "\n"
    return out


def coverage_rows(text):
    """Rows of the table; what an old vk.xml does not have says nothing about it."""
    rows = re.findall(r"^\| (\d+) \| `(\w+)` \| (\w+) \| (.*) \|$", text, re.M)
    return {row[1]: row for row in rows}


class Codegen(unittest.TestCase):
    maxDiff = None

    def test_same_input_same_bytes(self):
        trees = []
        for seed in ("1", "2"):  # the order of Python's sets differs between the two
            with tempfile.TemporaryDirectory() as folder:
                generate("--out", folder, hash_seed=seed)
                trees.append(tree(pathlib.Path(folder)))
        self.assertGreater(len(trees[0]), 10)
        self.assertEqual(trees[0].keys(), trees[1].keys())
        for name in trees[0]:
            self.assertTrue(trees[0][name] == trees[1][name], f"{name} differs between two runs")

    def test_three_commands(self):
        with tempfile.TemporaryDirectory() as folder:
            generate("--out", folder)
            for command, text in excerpts(pathlib.Path(folder)).items():
                with self.subTest(command):
                    self.assertEqual((EXPECTED / f"{command}.c").read_text(), text)

    def test_policy_names_every_command(self):
        commands = [row["name"] for row in read_table(ROOT / "registry/commands.csv")]
        policy = [row["command"] for row in read_table(ROOT / "codegen/policy.csv")]
        self.assertEqual(len(set(commands)), len(commands))
        self.assertEqual(len(set(policy)), len(policy))
        self.assertEqual(set(policy), set(commands))

    def test_serialised_commands_have_code(self):
        protocol = Protocol(
            VK_XML,
            ROOT / "registry/venus_private.xml",
            ROOT / "registry/commands.csv",
            ROOT / "registry/extensions.csv",
        )
        policy = read_policy(ROOT / "codegen/policy.csv", protocol)
        with tempfile.TemporaryDirectory() as folder:
            generate("--out", folder, "--part", "venus")
            table = (pathlib.Path(folder) / "dispatch_table.c").read_text()
        serialised = {command.name for _, command in protocol.commands}
        for number, name in protocol.known:
            action, note = policy[name]
            runs = f'[{number}] = {{"{name}", pv_run_{name}, NULL}}' in table
            with self.subTest(name):
                self.assertEqual(runs, action != "refuse" and name in serialised)
                if action == "refuse":
                    self.assertGreater(len(note), 5, "refused without a reason")

    def test_coverage_page(self):
        now = coverage_rows(generate("--coverage"))
        page = coverage_rows(COVERAGE.read_text())
        old = {name for name, row in now.items() if row[3] == "needs a newer vk.xml"}
        print(f"coverage: {len(page) - len(old)} of {len(page)} commands compared")
        self.assertEqual(list(now), list(page))
        for name in now:
            if name not in old:
                self.assertEqual(now[name], page[name])
        if not old:
            self.assertEqual(generate("--coverage"), COVERAGE.read_text())


def update():
    EXPECTED.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        generate("--out", folder)
        for command, text in excerpts(pathlib.Path(folder)).items():
            (EXPECTED / f"{command}.c").write_text(text)
    COVERAGE.write_text(generate("--coverage"))


if __name__ == "__main__":
    VK_XML = sys.argv.pop(1)
    if "--update" in sys.argv:
        update()
    else:
        unittest.main(verbosity=2)
