#!/usr/bin/env python3
"""Compares PearVisor with the bare host driver, and with virglrenderer's server where it is there.

    native      pv-bench ---------------------------------------> lavapipe
    pearvisor   pv-bench -- Mesa Venus -- pearvisor vtest ------> lavapipe
    peer        pv-bench -- Mesa Venus -- virgl_test_server ----> lavapipe

All columns use the same programs and the same Mesa, that of one Debian root (scripts/root.sh), and take
turns, round by round, so that what else the machine does meets all of them alike. Printed are medians of
the rounds, and how the columns compare: above 1 PearVisor is the better one, whatever the unit.
"""

import argparse
import contextlib
import json
import math
import os
import pathlib
import platform
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

import procstat
import vtest

SOURCE = pathlib.Path(__file__).resolve().parent.parent
# vkmark's own default list, shortened to one variant of each scene.
VKMARK_SCENES = ["clear", "cube", "vertex", "texture", "shading", "effect2d", "desktop"]
QUICK_SCENES = ["clear", "cube", "vertex", "desktop"]
FIGURE_LIMIT_S = 20
# virglrenderer cannot map lavapipe's memory. Fences of Mesa 26.1 and before are then out of reach too,
# unless their feedback, which needs such memory, is off; and a client that does map never returns.
PEER_ENVIRONMENT = {"VN_PERF": "no_fence_feedback"}
PEER_FIGURE_LIMIT_S = 5


class BenchError(Exception):
    pass


def progress(text):
    print(f"bench: {text}", file=sys.stderr, flush=True)


class Root:
    """Where programs run: a Debian root, or the machine itself (name None)."""

    def __init__(self, name, build):
        self.name = name
        self.build = build
        self.path = pathlib.Path("/")
        if name:
            result = subprocess.run(
                [SOURCE / "scripts/root.sh", "--path", name], capture_output=True, text=True
            )
            if result.returncode != 0:
                raise BenchError(result.stderr.strip() or f"there is no root {name}")
            self.path = pathlib.Path(result.stdout.strip())

    def driver(self, name):
        """Path of a driver's description, as seen inside."""
        for file in sorted((self.path / "usr/share/vulkan/icd.d").glob(f"{name}_icd*.json")):
            return "/" + str(file.relative_to(self.path))
        raise BenchError(f"no Vulkan driver '{name}' in root {self.name}")

    def has(self, program):
        return shutil.which(program, path=str(self.path / "usr/bin")) is not None

    def command(self, words):
        words = [str(word) for word in words]
        if not self.name:
            return words
        return [
            str(SOURCE / "scripts/in-root.sh"), self.name, "--bind", str(self.build), "--", *words,
        ]

    def mesa_version(self):
        try:
            status = (self.path / "var/lib/dpkg/status").read_text()
        except OSError:
            return "unknown"
        match = re.search(r"^Package: mesa-vulkan-drivers$.*?^Version: (\S+)", status, re.M | re.S)
        return match[1] if match else "unknown"


def environment(extra):
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("VN_", "VTEST_", "VK_"))
    }
    return {**kept, **extra}


class Server:
    """A vtest server, started and stopped by its process id."""

    def __init__(self, name, root, command, socket, log):
        self.name = name
        self.socket = socket
        self.log = log
        with open(log, "wb") as file:
            self.process = subprocess.Popen(
                root.command(command),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                env=environment({"VK_DRIVER_FILES": root.driver("lvp")}),
            )
        end = time.monotonic() + 20
        while not vtest.is_listening(socket):
            if self.process.poll() is not None or time.monotonic() > end:
                self.stop()
                raise BenchError(f"{name} does not start; its messages are in {log}")
            time.sleep(0.05)

    def pids(self):
        return procstat.tree(self.process.pid)

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


class Column:
    """One way to run a client."""

    def __init__(self, name, root, server=None, extra=None, figure_limit=FIGURE_LIMIT_S):
        self.name = name
        self.root = root
        self.server = server
        self.figure_limit = figure_limit
        self.environment = {"VK_DRIVER_FILES": root.driver("virtio" if server else "lvp")}
        if server:
            self.environment |= {"VN_DEBUG": "vtest", "VTEST_SOCKET_NAME": server.socket}
        self.environment |= extra or {}

    def run(self, words, timeout):
        """Standard output of a client, or None with the reason."""
        process = self.start(words, stderr=subprocess.STDOUT)
        try:
            output, _ = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            return None, f"no end after {timeout} s"
        finally:
            stop_client(process)
        if process.returncode != 0:
            lines = output.strip().splitlines() or ["no message"]
            return None, f"exit status {process.returncode}: {lines[-1]}"
        return output, None

    def start(self, words, stderr=subprocess.DEVNULL):
        return subprocess.Popen(
            self.root.command(words),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            env=environment(self.environment),
        )


def stop_client(process):
    if process.poll() is None:
        process.kill()
    process.communicate()


# ---- figures of pv-bench ----


def client_path(build, name):
    for folder in ("bench", "tests/clients"):
        if (build / folder / name).exists():
            return build / folder / name
    raise BenchError(f"{name} is not built under {build}")


def list_figures(bench, only):
    output = subprocess.run([bench, "--list"], capture_output=True, text=True, check=True).stdout
    names = [line.split()[0] for line in output.splitlines()]
    unknown = set(only) - set(names)
    if unknown:
        raise BenchError(f"pv-bench has no figure {', '.join(sorted(unknown))}")
    return [name for name in names if not only or name in only]


def run_figures(column, bench, names):
    words = [bench, "--json", "--limit", column.figure_limit]
    for name in names:
        words += ["--only", name]
    output = column.start(words)
    try:
        text, _ = output.communicate(timeout=column.figure_limit * (len(names) + 1))
        return json.loads(text)
    except (subprocess.TimeoutExpired, ValueError) as error:
        raise BenchError(f"{column.name}: pv-bench gave no result: {error}") from error
    finally:
        stop_client(output)


def measure_figures(columns, bench, names, rounds):
    """{figure: {"unit", "better", column: {"values": [...]} or {"unsupported": reason}}}"""
    results = {name: {} for name in names}
    todo = {column.name: list(names) for column in columns}
    for number in range(rounds):
        turn = number % len(columns)
        for column in columns[turn:] + columns[:turn]:
            if not todo[column.name]:
                continue
            progress(f"round {number + 1} of {rounds}: pv-bench, {column.name}")
            figures = run_figures(column, bench, todo[column.name])["figures"]
            for name, figure in figures.items():
                results[name] |= {"unit": figure["unit"], "better": figure["better"]}
                entry = results[name].setdefault(column.name, {"values": [], "plain": []})
                if "unsupported" in figure:
                    entry["unsupported"] = figure["unsupported"]
                    todo[column.name].remove(name)
                else:
                    entry["values"].append(figure["value"])
                    if "plain" in figure:
                        entry["plain"].append(figure["plain"])
    return results


def measure_vkmark(columns, scenes, rounds, seconds):
    results = {scene: {"unit": "frames/s", "better": "higher"} for scene in scenes}
    todo = {column.name: list(scenes) for column in columns}
    for number in range(rounds):
        for scene in scenes:
            for column in columns:
                if scene not in todo[column.name]:
                    continue
                progress(f"round {number + 1} of {rounds}: vkmark {scene}, {column.name}")
                output, reason = column.run(
                    ["vkmark", "--winsys", "headless", "-b", f"{scene}:duration={seconds}"],
                    seconds + column.figure_limit,
                )
                match = re.search(r"FPS: ([0-9.]+)", output or "")
                entry = results[scene].setdefault(column.name, {"values": []})
                if match:
                    entry["values"].append(float(match[1]))
                else:
                    entry["unsupported"] = reason or "vkmark printed no frame rate"
                    todo[column.name].remove(scene)
    return results


# ---- the server itself ----


def wait_until_ready(process, what):
    line = process.stdout.readline()
    if line.strip() != "ready":
        raise BenchError(f"{what}: pv-loop did not get ready")
    time.sleep(1.5)  # for what the driver still does behind the first frame


def client_process(pid, name):
    for candidate in procstat.tree(pid):
        with contextlib.suppress(OSError):
            if pathlib.Path(f"/proc/{candidate}/comm").read_text().strip() == name:
                return candidate
    return pid


def native_memory(column, loop, option):
    process = column.start([loop, option, "60"])
    try:
        wait_until_ready(process, column.name)
        return procstat.memory_kib(client_process(process.pid, "pv-loop"))
    finally:
        stop_client(process)


def worker_memory(column, loop, option):
    """Memory of the processes that the server has for this one client."""
    before = set(column.server.pids())
    process = column.start([loop, option, "60"])
    try:
        wait_until_ready(process, column.name)
        workers = [pid for pid in column.server.pids() if pid not in before] or list(before)
        sums = [procstat.memory_kib(pid) for pid in workers]
        return tuple(sum(values) for values in zip(*sums, strict=True))
    finally:
        stop_client(process)


def measure_memory(native, column, loop):
    result = {}
    for name, option in (("device", "--bare"), ("frame", "--idle")):
        bare = native_memory(native, loop, option)
        worker = worker_memory(column, loop, option)
        result[f"worker-memory-{name}"] = {
            "unit": "MiB",
            "rss": worker[0] / 1024,
            "pss": worker[1] / 1024,
            "above-native-rss": (worker[0] - bare[0]) / 1024,
            "above-native-pss": (worker[1] - bare[1]) / 1024,
        }
    return result


def measure_idle_cpu(column, loop, seconds):
    process = column.start([loop, "--idle", str(seconds + 60)])
    try:
        wait_until_ready(process, column.name)
        pids = column.server.pids()
        ticks, exact = procstat.cpu_ticks_s(pids), procstat.cpu_exact_s(pids)
        time.sleep(seconds)
        return {
            "seconds": seconds,
            "processes": len(pids),
            "ticks-ms": (procstat.cpu_ticks_s(pids) - ticks) * 1e3,
            "exact-ms": (procstat.cpu_exact_s(pids) - exact) * 1e3,
        }
    finally:
        stop_client(process)


def measure_start(server, count):
    times = [vtest.time_start(server.socket) for _ in range(count)]
    return {
        "unit": "ms",
        "first-answer": statistics.median(first for first, _ in times),
        "capset": statistics.median(capset for _, capset in times),
    }


def measure_server(native, column, loop, seconds):
    result = {}
    for name, measure in (
        ("start", lambda: measure_start(column.server, 11)),
        ("memory", lambda: measure_memory(native, column, loop)),
        ("idle-cpu", lambda: measure_idle_cpu(column, loop, seconds)),
    ):
        progress(f"{column.name}: {name}")
        try:
            result[name] = measure()
        except (BenchError, OSError) as error:
            result[name] = {"unsupported": str(error)}
    return result


# ---- results ----


def add_medians(results):
    for result in results.values():
        for entry in result.values():
            if isinstance(entry, dict) and entry.get("values"):
                entry["median"] = statistics.median(entry["values"])


def ratio(result, column):
    """How PearVisor compares with another column; above 1: PearVisor is better."""
    ours = result.get("pearvisor", {}).get("median")
    other = result.get(column, {}).get("median")
    if not ours or not other:
        return None
    return ours / other if result["better"] == "higher" else other / ours


def geometric_mean(values):
    values = [value for value in values if value]
    return math.exp(statistics.fmean(map(math.log, values))) if values else None


def cell(entry):
    if not entry:
        return "-"
    return f"{entry['median']:.5g}" if "median" in entry else "unsupported"


def ratio_cell(value):
    return f"{value:.2f}" if value else "-"


def print_table(title, results, columns):
    print(f"\n{title}\n")
    others = [column for column in columns if column != "pearvisor"]
    heads = [*columns, *(f"to {name}" for name in others)]
    print(f"  {'':20}{'':9}" + "".join(f"{head:>13}" for head in heads))
    for name, result in results.items():
        cells = [cell(result.get(column)) for column in columns]
        cells += [ratio_cell(ratio(result, column)) for column in others]
        print(f"  {name:20}{result.get('unit', ''):9}" + "".join(f"{text:>13}" for text in cells))
    reasons = {
        f"  {column}, {name}: {result[column]['unsupported']}"
        for name, result in results.items()
        for column in columns
        if "unsupported" in result.get(column, {}) and "median" not in result[column]
    }
    if reasons:
        print("\n  unsupported:")
        print("\n".join(f"  {reason}" for reason in sorted(reasons)))


def print_geometric_means(results, columns):
    for column in columns:
        if column != "pearvisor":
            mean = geometric_mean(ratio(result, column) for result in results.values())
            print(f"\n  geometric mean of the scenes, to {column}: {ratio_cell(mean)}")


def print_servers(servers):
    for name, result in servers.items():
        print(f"\n{name}: the server\n")
        start = result["start"]
        if "unsupported" in start:
            print(f"  start: {start['unsupported']}")
        else:
            print(f"  connect to first answer {start['first-answer']:.2f} ms, "
                  f"to capability set {start['capset']:.2f} ms")
        memory = result["memory"]
        for key, value in memory.items():
            if key == "unsupported":
                print(f"  memory: {value}")
            else:
                print(f"  {key}: {value['rss']:.1f} MiB (Pss {value['pss']:.1f}), "
                      f"{value['above-native-rss']:.1f} MiB (Pss {value['above-native-pss']:.1f}) "
                      "above the same client natively")
        idle = result["idle-cpu"]
        if "unsupported" in idle:
            print(f"  idle client: {idle['unsupported']}")
        else:
            print(f"  idle client: {idle['exact-ms']:.2f} ms of CPU in {idle['seconds']} s "
                  f"({idle['ticks-ms']:.0f} ms in ticks), {idle['processes']} processes")


# ---- main ----


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", type=pathlib.Path, default=SOURCE / "build")
    parser.add_argument("--server", type=pathlib.Path, help="pearvisor (default: of the build)")
    parser.add_argument("--root", help="peer, trixie, trixie-stock, or none for the machine itself "
                        "(default: the first that is made)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="2 rounds, fewer and shorter scenes")
    parser.add_argument("--only", action="append", default=[], help="this figure of pv-bench only")
    parser.add_argument("--no-peer", action="store_true")
    parser.add_argument("--no-vkmark", action="store_true")
    parser.add_argument("--no-server", action="store_true", help="skip memory, idle CPU and start")
    parser.add_argument("--output", type=pathlib.Path, help="JSON (default: BUILD/bench.json)")
    arguments = parser.parse_args()
    arguments.build = arguments.build.resolve()
    arguments.server = (arguments.server or arguments.build / "pearvisor").resolve()
    arguments.output = arguments.output or arguments.build / "bench.json"
    if arguments.quick:
        arguments.rounds = min(arguments.rounds, 2)
    return arguments


def choose_root(wanted, build):
    if wanted == "none":
        return Root(None, build)
    if wanted:
        return Root(wanted, build)
    for name in ("peer", "trixie-stock", "trixie"):
        with contextlib.suppress(BenchError):
            return Root(name, build)
    progress("no Debian root is made (scripts/root.sh): using the machine's own Mesa")
    return Root(None, build)


def start_columns(stack, arguments, root, folder):
    columns = [Column("native", root)]
    socket = f"{folder}/pearvisor.sock"
    server = Server("pearvisor", root, [arguments.server, "vtest", "--socket", socket], socket,
                    arguments.build / "bench-pearvisor.log")
    stack.callback(server.stop)
    columns.append(Column("pearvisor", root, server))
    if root.has("virgl_test_server") and not arguments.no_peer:
        socket = f"{folder}/peer.sock"
        server = Server("peer", root, ["virgl_test_server", "--venus", "--no-virgl",
                        "--multi-clients", "--socket-path", socket], socket,
                        arguments.build / "bench-peer.log")
        stack.callback(server.stop)
        columns.append(Column("peer", root, server, PEER_ENVIRONMENT, PEER_FIGURE_LIMIT_S))
    return columns


def main():
    arguments = parse_arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    bench = client_path(arguments.build, "pv-bench")
    loop = client_path(arguments.build, "pv-loop")
    root = choose_root(arguments.root, arguments.build)
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="pv-bench.", dir="/tmp"))
        columns = start_columns(stack, arguments, root, folder)
        names = [column.name for column in columns]
        figures = measure_figures(columns, bench, list_figures(bench, arguments.only),
                                  arguments.rounds)
        vkmark = {}
        if root.has("vkmark") and not arguments.no_vkmark and not arguments.only:
            vkmark = measure_vkmark(columns, QUICK_SCENES if arguments.quick else VKMARK_SCENES,
                                    arguments.rounds, 1 if arguments.quick else 2)
        servers = {}
        if not arguments.no_server and not arguments.only:
            for column in columns[1:]:
                servers[column.name] = measure_server(columns[0], column, loop, 10)
    add_medians(figures)
    add_medians(vkmark)
    print(f"\nMesa {root.mesa_version()} in root {root.name or '(machine)'}, "
          f"{os.cpu_count()} cores, medians of {arguments.rounds} rounds; ratios above 1: "
          "PearVisor is better")
    print_table("pv-bench", figures, names)
    if vkmark:
        print_table("vkmark, headless", vkmark, names)
        print_geometric_means(vkmark, names)
    print_servers(servers)
    arguments.output.write_text(json.dumps({
        "machine": platform.machine(), "cores": os.cpu_count(), "root": root.name,
        "mesa": root.mesa_version(), "rounds": arguments.rounds, "columns": names,
        "figures": figures, "vkmark": vkmark, "servers": servers}, indent=2) + "\n")
    print(f"\nall values: {arguments.output}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BenchError as error:
        sys.exit(f"bench: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
