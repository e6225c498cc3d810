"""What processes cost, from /proc: memory and CPU time of one process or of a tree."""

import os
import pathlib


def children(pid):
    found = []
    for task in pathlib.Path(f"/proc/{pid}/task").glob("*"):
        try:
            found += [int(word) for word in (task / "children").read_text().split()]
        except OSError:
            pass
    return found


def tree(pid):
    """The process and all that descend from it."""
    pids = [pid]
    for child in children(pid):
        pids += tree(child)
    return pids


def memory_kib(pid):
    """(Rss, Pss) in KiB; Pss counts a shared page only in part."""
    values = {}
    with open(f"/proc/{pid}/smaps_rollup") as file:
        for line in file:
            name, _, rest = line.partition(":")
            if name in ("Rss", "Pss"):
                values[name] = int(rest.split()[0])
    return values["Rss"], values["Pss"]


def cpu_ticks_s(pids):
    """utime + stime in seconds, in the kernel's coarse ticks."""
    total = 0
    for pid in pids:
        try:
            fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        total += int(fields[11]) + int(fields[12])
    return total / os.sysconf("SC_CLK_TCK")


def cpu_exact_s(pids):
    """Time on a CPU by the scheduler's own count, in seconds: far finer than ticks."""
    total = 0
    for pid in pids:
        for task in pathlib.Path(f"/proc/{pid}/task").glob("*"):
            try:
                total += int((task / "schedstat").read_text().split()[0])
            except OSError:
                pass
    return total / 1e9
