#!/bin/bash
# The demo behind `make demo-vtest`: vkmark and a small renderer of ours, run through Mesa's Venus driver and
# PearVisor, and the same vkmark run directly on the same driver (lavapipe) for comparison.
#
#   vkmark ── Mesa Venus ── socket ── pearvisor vtest ── lavapipe      "PearVisor" column
#   vkmark ─────────────────────────────────────────── lavapipe      "native" column
#
# vkmark and the server run in the same Debian 13 root, so that both columns use the very same lavapipe.
# The renderer runs on the machine itself, with the machine's own Mesa.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

build=${BUILD:-build}
server=${SERVER:-$build/pearvisor}
render=$build/tests/clients/pv-render
render_scene=${RENDER_SCENE:-demo} # pv-render --list
root=${DEMO_ROOT:-trixie-stock}
scenes=${SCENES:-clear cube vertex desktop}
seconds=${SECONDS_PER_SCENE:-2}
rounds=${ROUNDS:-2}

out=$build/demo
log=$out/server.log
server_pid=
client_pid=
dir=
failed=0

die() {
    progress ''
    printf 'demo: %s\n' "$*" >&2
    exit 1
}

progress() { [ ! -t 1 ] || printf '\r%-60s\r' "$*"; }

# Stop what in-root.sh started. Where that took sudo, the process we know is sudo's, which neither takes our
# signal nor passes it on; the program below it is ours.
# shellcheck disable=SC2317 # called by the trap
stop() {
    local child children=''
    kill "$1" 2>/dev/null && return
    read -r children 2>/dev/null <"/proc/$1/task/$1/children"
    for child in $children; do
        stop "$child"
    done
}

# shellcheck disable=SC2317
clean_up() {
    local pid
    for pid in $client_pid $server_pid; do
        stop "$pid"
        wait "$pid" 2>/dev/null
    done
    [ -z "$dir" ] || rm -rf "$dir"
}
trap clean_up EXIT
trap 'progress ""; echo "demo: stopped" >&2; exit 130' INT
trap 'exit 143' TERM HUP

# Path of a driver's description, as seen inside ROOT (a folder; empty: the machine): Debian 13 and 12 name
# them alike, others add the architecture.
driver_file() {
    local file
    for file in "$1"/usr/share/vulkan/icd.d/"$2"_icd*.json; do
        [ ! -e "$file" ] || {
            echo "${file#"$1"}"
            return 0
        }
    done
    die "no Vulkan driver '$2' ${1:+in $1}: run scripts/setup.sh demo"
}

start_server() {
    local tries=0
    : >"$dir/start.json"
    VK_DRIVER_FILES=$lavapipe scripts/in-root.sh "$root" --bind "$PWD" --bind "$(realpath "$build")" -- \
        "$(realpath "$server")" vtest --socket "$dir/sock" --json >"$dir/start.json" 2>"$log" &
    server_pid=$!
    until [ -S "$dir/sock" ] && grep -q '^{' "$dir/start.json"; do
        if [ ! -d "/proc/$server_pid" ]; then
            tail -n 5 "$log" >&2
            server_pid=
            die "pearvisor vtest did not start; its messages are in $log"
        fi
        tries=$((tries + 1))
        [ "$tries" -lt 100 ] || die "pearvisor vtest is not listening after 10 s; see $log"
        sleep 0.1
    done
}

# Run a client with its output in a file. It runs in the background, so that a signal to this script does
# not wait for it.
run_client() { # OUTPUT COMMAND...
    local text=$1
    shift
    "$@" >"$text" 2>&1 </dev/null &
    client_pid=$!
    wait "$client_pid"
    local rc=$?
    client_pid=
    return $rc
}

# Sets fps to the frames per second of one vkmark scene, or to nothing.
measure() { # native|venus SCENE
    local text=$out/vkmark-$2-$1.log
    local command=(scripts/in-root.sh "$root" --
        timeout --foreground 30 vkmark --winsys headless -b "$2:duration=$seconds")
    if [ "$1" = native ]; then
        VK_DRIVER_FILES=$lavapipe run_client "$text" "${command[@]}"
    else
        VN_DEBUG=vtest VTEST_SOCKET_NAME=$dir/sock VK_DRIVER_FILES=$venus \
            run_client "$text" "${command[@]}"
    fi
    fps=$(sed -n 's/.* FPS: \([0-9.]*\) .*/\1/p' "$text" | head -n 1)
}

mkdir -p "$out"
[ -x "$server" ] || die "$server is missing: run make build"
root_dir=$(scripts/root.sh --path "$root") || exit 1
lavapipe=$(driver_file "$root_dir" lvp) || exit 1
venus=$(driver_file "$root_dir" virtio) || exit 1
dir=$(mktemp -d /tmp/pearvisor-demo.XXXXXX) || exit 1
start_server

echo
echo "vkmark, frames per second ($rounds runs of $seconds s each way):"
echo
printf '  %-10s %10s %10s %8s\n' scene native PearVisor ratio
ratios=
for scene in $scenes; do
    native='' ours=''
    for round in $(seq "$rounds"); do
        progress "  $scene: native, run $round of $rounds"
        measure native "$scene"
        native="$native $fps"
        progress "  $scene: through PearVisor, run $round of $rounds"
        measure venus "$scene"
        ours="$ours $fps"
        [[ $native == *[0-9]* && $ours == *[0-9]* ]] || break
    done
    progress ''
    ratio=$(awk -v n="$native" -v o="$ours" 'function mean(s,  a, c, i, t) {
            c = split(s, a, " "); for (i = 1; i <= c; i++) t += a[i]; return c ? t / c : 0 }
        BEGIN { n = mean(n); o = mean(o)
            printf "%s %s %s", n ? sprintf("%.0f", n) : "failed", o ? sprintf("%.0f", o) : "failed",
                n && o ? sprintf("%.2f", o / n) : "-" }')
    # shellcheck disable=SC2086 # three words
    printf '  %-10s %10s %10s %8s\n' "$scene" $ratio
    case $ratio in
        *failed*)
            failed=1
            printf '    see %s and %s\n' "$out/vkmark-$scene-*.log" "$log"
            ;;
        *) ratios="$ratios ${ratio##* }" ;;
    esac
done
[ -z "$ratios" ] || awk -v r="$ratios" 'BEGIN { n = split(r, a, " ")
    for (i = 1; i <= n; i++) s += log(a[i] > 0 ? a[i] : 0.001)
    printf "  %-10s %10s %10s %8.2f\n", "geo. mean", "", "", exp(s / n) }'

echo
png=$out/frame.png
rm -f "$png"
if [ ! -x "$render" ]; then
    echo "no picture: $render is not built"
    failed=1
elif VN_DEBUG=vtest VTEST_SOCKET_NAME=$dir/sock VK_DRIVER_FILES=$(driver_file '' virtio) \
    run_client "$out/render.log" timeout --foreground 30 "$render" \
        --scene "$render_scene" --size 640x480 --png "$png" &&
    [ -s "$png" ]; then
    echo "a frame rendered through PearVisor, to look at: $png"
else
    tail -n 3 "$out/render.log" >&2
    echo "no picture: $render failed; see $out/render.log and $log"
    failed=1
fi
[ "$failed" = 0 ] || echo "demo: something above did not work" >&2
exit "$failed"
