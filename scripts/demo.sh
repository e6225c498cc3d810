#!/bin/bash
# The demo behind `make demo`: a Debian 13 guest in stock QEMU, with `pearvisor gpu` as its GPU.
#
#   vkmark ── Mesa Venus ── virtio_gpu (the guest's kernel) ── QEMU ── pearvisor gpu ── worker ── the host's driver
#   vkmark ── Mesa lavapipe, in the guest                                              "guest lavapipe" column
#
# guest/demo.sh is what runs in the guest.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

build=${BUILD:-build}
pearvisor=$build/pearvisor
scenes=${SCENES:-clear cube vertex desktop}
seconds=${SECONDS_PER_SCENE:-2}
out=$build/demo
image=${DEMO_IMAGE:-debian-13}

die() {
    printf 'demo: %s\n' "$*" >&2
    exit 1
}

[ -x "$pearvisor" ] || die "$pearvisor is missing: run make build"
mkdir -p "$out" || exit 1
rm -f "$out/screen.png"

"$pearvisor" image build "$image" || die "there is no guest image to boot"
echo
echo "demo: booting $image with pearvisor gpu as its GPU (QEMU's own messages: $out/run.log)"
start=$EPOCHREALTIME
# shellcheck disable=SC2086 # words
"$pearvisor" run "$image" --screenshot "$out/screen.png" -- sh -s "$seconds" $scenes \
    <guest/demo.sh 2>"$out/run.log" | awk -v start="$start" '
    function now(  t) { "date +%s.%N" | getline t; close("date +%s.%N"); return t }
    $1 == "device" { sub(/^device /, ""); printf "\n  GPU in the guest:  %s\n", $0; device = $0; next }
    $1 == "driver" { printf "  driver:            %s\n", $2; next }
    $1 == "first-frame" {
        printf "  from start to a working GPU: %.1f s\n\n", now() - start
        printf "  %-10s %14s %10s %8s   (frames per second, vkmark)\n", "scene", "guest lavapipe", "PearVisor", "ratio"
        next
    }
    $1 == "scene" {
        ok = $3 > 0 && $4 > 0
        printf "  %-10s %14s %10s %8s\n", $2, $4 ? $4 : "failed", $3 ? $3 : "failed", ok ? sprintf("%.1f", $3 / $4) : "-"
        if (ok) { sum += log($3 / $4); count++ } else bad = 1
        fflush()
    }
    END {
        if (count) printf "  %-10s %14s %10s %8.1f\n", "geo. mean", "", "", exp(sum / count)
        exit bad || !count || device !~ /Venus/
    }'
status=("${PIPESTATUS[@]}")
if [ "${status[0]}" != 0 ]; then
    tail -n 5 "$out/run.log" >&2
    die "the guest did not finish (exit code ${status[0]}); see $out/run.log"
fi
[ "${status[1]}" = 0 ] || die "something above did not work; see $out/run.log"
echo
if [ -s "$out/screen.png" ]; then
    echo "the guest's screen: $out/screen.png"
else
    die "there is no picture of the guest's screen; see $out/run.log"
fi
