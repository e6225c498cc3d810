#!/usr/bin/env python3
"""The generator's layouts against the reference listing, line by line.

    test_layouts.py GENERATOR VK_XML LAYOUTS

A vk.xml older than the reference knows fewer commands and structs, and some by the name that they had
before they were promoted: then every layout that it does know is compared, and the count is printed.
"""

import re
import subprocess
import sys

REFERENCE_VERSION = 363  # the VK_HEADER_VERSION that layouts.txt was made from


def read_lines(text):
    """Layouts by their head, the part before the colon: "S VkFoo", "R vkFoo", "12 vkFoo"."""
    out = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            head, _, items = line.partition(" :")
            if head in out:
                sys.exit(f"FAILED: listed twice: {head}")
            out[head] = items.strip()
    return out


def without_vendor(text):
    """Names as if everything had been promoted."""
    return re.sub(r"\b(V[kK]\w*?)_?(?:KHR|EXT|NV|NVX|AMD|GOOGLE|VALVE|ARM|QCOM)\b", r"\1", text)


def main():
    generator, vk_xml, reference_path = sys.argv[1:]
    version = int(re.search(r"#define\S* \S*>VK_HEADER_VERSION</name> (\d+)",
                            open(vk_xml).read()).group(1))
    with open(reference_path) as file:
        reference = read_lines(file.read())
    run = subprocess.run([sys.executable, generator, "--vk-xml", vk_xml, "--layouts"],
                         capture_output=True, text=True, check=True)
    generated = read_lines(run.stdout)

    if version < REFERENCE_VERSION:
        reference = {without_vendor(k): without_vendor(v) for k, v in reference.items()}
        generated = {without_vendor(k): without_vendor(v) for k, v in generated.items()}
    wrong = [f"{head} :\n  reference  {reference[head]}\n  generated  {items}"
             for head, items in generated.items() if head in reference and reference[head] != items]
    missing = [head for head in reference if head not in generated]
    extra = [head for head in generated if head not in reference]
    if version >= REFERENCE_VERSION:
        wrong += [f"{head}: not generated" for head in missing]
    if version <= REFERENCE_VERSION:
        wrong += [f"{head}: not in the reference" for head in extra]

    same = sum(reference.get(head) == items for head, items in generated.items())
    print(f"vk.xml 1.4.{version}: {same} of {len(reference)} layouts equal, "
          f"{len(missing)} not in this registry, {len(extra)} newer than the reference")
    if wrong:
        sys.exit("FAILED:\n" + "\n".join(wrong[:20]))
    if same < 1000:
        sys.exit("FAILED: hardly anything was compared")


if __name__ == "__main__":
    main()
