#!/bin/bash
# The demo behind `make demo`: a Debian 13 guest in stock QEMU, with `pearvisor gpu` as its GPU.
#
#   vkmark ── Mesa Venus ── virtio_gpu (the guest's kernel) ── QEMU ── pearvisor gpu ── worker ── the host's driver
#   vkmark ── Mesa lavapipe, in the guest                                              "guest lavapipe" column
#   vkcube ── the same two, in a window of the guest's desktop, which Weston draws with the host's driver
#
# guest/demo.sh is what runs in the guest.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

build=${BUILD:-build}
pearvisor=$build/pearvisor
read -ra scenes <<<"${SCENES:-cube vertex desktop}"
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
start=$SECONDS
device='' cube='' good=0 bad=0 status=1
ratios=
while read -r what name venus lavapipe; do
    case $what in
        device)
            device="$name $venus $lavapipe"
            printf '\n  GPU in the guest   %s\n' "$device"
            ;;
        driver) printf '  driver             %s\n' "$name" ;;
        first-frame)
            printf '  from the start of QEMU to a working GPU: %d s\n\n' $((SECONDS - start))
            printf '  %-10s %15s %10s %7s   (frames per second, vkmark)\n' scene 'guest lavapipe' PearVisor ratio
            ;;
        scene)
            if [ -z "$venus" ] || [ -z "$lavapipe" ]; then
                printf '  %-10s failed\n' "$name"
                bad=$((bad + 1))
                continue
            fi
            # less than one frame in all that time counts as one a second
            ratio=$(awk -v v="$venus" -v l="$lavapipe" 'BEGIN { printf "%.1f", v / (l > 0 ? l : 1) }')
            printf '  %-10s %15s %10s %7s\n' "$name" "$lavapipe" "$venus" "$ratio"
            ratios="$ratios $ratio"
            good=$((good + 1))
            ;;
        cube)
            if [ -n "$venus" ]; then
                cube="vkcube: $name fps through PearVisor, $venus fps with the guest's own lavapipe"
            else
                bad=$((bad + 1))
            fi
            ;;
        end) status=$name ;;
    esac
done < <(
    "$pearvisor" run "$image" --display "png:$out/screen.png" -- sh -s "$seconds" "${scenes[@]}" \
        <guest/demo.sh 2>"$out/run.log"
    echo "end $?"
)
[ -z "$ratios" ] || awk -v r="$ratios" 'BEGIN { n = split(r, a, " ")
    for (i = 1; i <= n; i++) s += log(a[i] > 0 ? a[i] : 0.1)
    printf "  %-10s %15s %10s %7.1f\n", "geo. mean", "", "", exp(s / n) }'
if [ "$status" != 0 ] || [ "$good" = 0 ] || [ "$bad" != 0 ] || [[ $device != *Venus* ]]; then
    tail -n 5 "$out/run.log" >&2
    die "something above did not work; see $out/run.log"
fi
echo
if [ -s "$out/screen.png" ]; then
    echo "the guest's screen: $out/screen.png"
    echo "$cube"
else
    die "there is no picture of the guest's screen; see $out/run.log"
fi
