#!/usr/bin/env python3
"""Sums up the Meson test logs that test.sh left in a folder.

Prints the last lines of each failed test, the reason of each skipped one, then in one line each what failed
(where only the end of a log is kept, that is enough to start with), and the totals as the last line.
Exit code 1 if anything failed.
"""

import json
import pathlib
import sys

TAIL_LINES = 15
LINE_LENGTH = 240


def output_lines(test):
    text = (test.get("stdout") or "") + "\n" + (test.get("stderr") or "")
    return [line.rstrip() for line in text.splitlines() if line.strip()]


def first_failure(lines):
    """The line in which a test says what went wrong: its own "FAILED", or else the last one."""
    said = [line.strip() for line in lines]
    return next((line for line in said if "FAILED" in line), said[-1] if said else "it said nothing")


def main():
    folder = pathlib.Path(sys.argv[1])
    passed = failed = 0
    failures = []
    skipped = {}
    skipped_count = 0

    for log in sorted(folder.glob("*.build-failed")):
        failed += 1
        failures.append(f"{log.stem}: the build")
        print(f"\nFAILED {log.stem}: the build")
        for line in log.read_text(errors="replace").splitlines()[-TAIL_LINES:]:
            print(f"    {line}")

    for log in sorted(folder.glob("*.json")):
        for line in log.read_text().splitlines():
            test = json.loads(line)
            result = test["result"]
            if result in ("OK", "EXPECTEDFAIL"):
                passed += 1
            elif result == "SKIP":
                skipped_count += 1
                lines = output_lines(test)
                reason = lines[-1] if lines else "gave no reason"
                skipped.setdefault(reason, []).append(f"{log.stem}: {test['name']}")
            else:
                failed += 1
                print(f"\nFAILED {log.stem}: {test['name']} ({result.lower()}, "
                      f"{test['duration']:.1f} s, exit code {test['returncode']})")
                lines = output_lines(test)
                for text in lines[-TAIL_LINES:]:
                    print(f"    {text}")
                failures.append(f"{log.stem}: {test['name']}: {first_failure(lines)[:LINE_LENGTH]}")

    if skipped:
        print("\nskipped:")
        for reason, names in skipped.items():
            print(f"    {', '.join(names)}: {reason}")
    if passed + failed == 0:
        print("\nno test ran, which is a failure")
        failed = 1
    totals = [f"{passed} passed, {failed} failed, {skipped_count} skipped"]
    if failures:
        totals = ["failed:", *[f"    {failure}" for failure in failures], "", *totals]
    (folder / "totals").write_text("\n".join(totals) + "\n")
    print()
    print("\n".join(totals))
    return 1 if failed else 0


sys.exit(main())
