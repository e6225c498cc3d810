#!/bin/bash
# The integration programs on a real GPU: natively, and through PearVisor on the same driver.
#
#   test-gpu.sh [--build DIR] [--device SELECTOR] [--host-icd FILE] [--venus-icd FILE]
#
# Images must be equal byte for byte, programs that pass natively must pass through PearVisor, and
# programs that the device cannot run must say so both ways. Not part of CI, which has no GPU; the
# outcome on machines that we have is in docs/testing.md. Needs the programs of tests/clients, a host
# driver and Mesa's Venus driver; no display.
set -uo pipefail

here=$(cd "$(dirname "$0")/.." && pwd)
build=$here/build
device=
host_icd=${HOST_ICD:-}
venus_icd=${VENUS_ICD:-/usr/share/vulkan/icd.d/virtio_icd.json}
while [ $# -gt 0 ]; do
    case $1 in
        --build) build=$2 ;;
        --device) device=$2 ;;
        --host-icd) host_icd=$2 ;;
        --venus-icd) venus_icd=$2 ;;
        *)
            sed -n '2,10s/^# \{0,1\}//p' "$0"
            exit 2
            ;;
    esac
    shift 2
done

work=$(mktemp -d)
server=
finish() {
    [ -z "$server" ] || kill "$server" 2>/dev/null
    wait 2>/dev/null
    rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT TERM

clients=$build/tests/clients
passed=0
failed=0
skipped=0

native() {
    if [ -n "$host_icd" ]; then
        VK_DRIVER_FILES=$host_icd VK_ICD_FILENAMES=$host_icd timeout 120 "$@"
    else
        timeout 120 "$@"
    fi
}

venus() {
    VN_DEBUG=vtest VTEST_SOCKET_NAME=$work/sock VK_DRIVER_FILES=$venus_icd \
        VK_ICD_FILENAMES=$venus_icd timeout 120 "$@"
}

outcome() { # NAME RESULT TEXT
    printf '%-28s %-7s %s\n' "$1" "$2" "$3"
    case $2 in
        same | pass) passed=$((passed + 1)) ;;
        skip) skipped=$((skipped + 1)) ;;
        *) failed=$((failed + 1)) ;;
    esac
}

server_args=(vtest --socket "$work/sock" --log info --stats)
[ -z "$device" ] || server_args+=(--device "$device")
if [ -n "$host_icd" ]; then
    export VK_DRIVER_FILES=$host_icd VK_ICD_FILENAMES=$host_icd
fi
"$build/pearvisor" doctor | sed 's/^/# /'
"$build/pearvisor" "${server_args[@]}" 2>"$work/server.log" &
server=$!
unset VK_DRIVER_FILES VK_ICD_FILENAMES
for _ in $(seq 100); do
    [ -S "$work/sock" ] && break
    sleep 0.1
done

if ! native "$clients/pv-render" --scene triangle --raw "$work/native.raw" >"$work/out" 2>&1; then
    echo "the host driver itself cannot draw a triangle: $(tail -n 1 "$work/out")" >&2
    exit 1
fi

for scene in $("$clients/pv-render" --list | awk '{print $1}'); do
    rm -f "$work"/*.raw
    native "$clients/pv-render" --scene "$scene" --raw "$work/native.raw" >"$work/out" 2>&1
    want=$?
    venus "$clients/pv-render" --scene "$scene" --raw "$work/venus.raw" >"$work/out" 2>&1
    got=$?
    if [ $want -ne 0 ] && [ $got -eq $want ]; then
        outcome "render $scene" skip "native cannot either ($want): $(tail -n 1 "$work/out")"
    elif [ $got -ne $want ]; then
        outcome "render $scene" FAIL "native exits with $want, PearVisor with $got: $(tail -n 1 "$work/out")"
    elif cmp -s "$work/native.raw" "$work/venus.raw"; then
        outcome "render $scene" same "$(wc -c <"$work/venus.raw") bytes"
    else
        outcome "render $scene" FAIL "images differ"
    fi
done

while read -r name args; do
    # shellcheck disable=SC2086 # the arguments are words
    native "$clients/$name" $args >"$work/native.out" 2>&1
    want=$?
    # shellcheck disable=SC2086
    venus "$clients/$name" $args >"$work/out" 2>&1
    got=$?
    if [ $got -eq 0 ]; then
        outcome "$name" pass "$(tail -n 1 "$work/out")"
    elif [ $got -eq $want ]; then
        outcome "$name" skip "native cannot either ($want): $(tail -n 1 "$work/native.out")"
    else
        outcome "$name" FAIL "native exits with $want, PearVisor with $got: $(tail -n 1 "$work/out")"
    fi
done <<END
pv-memory --max 64M
pv-threads --threads 8 --iterations 50
pv-sync
pv-swapchain --frames 100
END

kill "$server" 2>/dev/null
wait "$server" 2>/dev/null
server=
grep -E '^(error|warn)' "$work/server.log" | sed 's/^/# /' | head -n 20
echo "$passed passed, $failed failed, $skipped skipped"
[ $failed -eq 0 ]
