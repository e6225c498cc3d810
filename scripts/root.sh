#!/bin/bash
# Makes the cached Debian roots that PearVisor's demo, tests and benchmarks run programs in.
#
#   root.sh NAME...        make what is missing; prints nothing when all is there
#   root.sh --path NAME    print the folder (exit code 1 if it is not made yet)
#
#   trixie-stock   Debian 13 with its own Mesa 25.0.7, vkmark and vulkan-tools
#   trixie         the same with Mesa 26.1 from trixie-backports
#   peer           Debian sid with virgl_test_server --venus, and Mesa, vkmark and the rest, so that all
#                  columns of a benchmark can run on one driver
#   engine         Debian 13 with QEMU 11.1 from trixie-backports for x86 guests; engine-arm for arm64
#                  guests. Nobody enters these: their programs run on the host, with the root's own loader
#                  and libraries. R is the root's folder, D is $R/usr/lib/x86_64-linux-gnu (on an arm64
#                  host aarch64-linux-gnu, and the loader is $R/lib/ld-linux-aarch64.so.1):
#                    QEMU_MODULE_DIR=$D/qemu $R/lib64/ld-linux-x86-64.so.2 --library-path $D
#                        $R/usr/bin/qemu-system-x86_64 -L $R/usr/share/qemu -L $R/usr/share/seabios ...
#
# Two Debian 13 roots, not one with two Mesas: each Mesa wants its own LLVM and libdrm, and a root whose
# packages agree is made by one plain mmdebstrap call, which is quicker than anything cleverer.
#
# A root is made beside its final place and renamed when complete, so it is there or not there.
# It is made again when its recipe below has changed. Deleting a root's folder is always safe.
set -euo pipefail

prog=root
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
roots=$cache/roots
# What runs in a root: Mesa with its loader, and the libraries that our own clients link to.
client_packages="libvulkan1,mesa-vulkan-drivers,vulkan-tools,vkmark,libpng16-16t64,libjson-c5,libuv1t64"

# Sets suites, packages (comma list, mmdebstrap --include), release (of several suites the one that
# packages come from, apt's default when empty) and about (what it is, for people).
recipe() {
    release=
    case $1 in
        trixie-stock)
            about="Debian 13, Mesa 25.0.7, vkmark" suites="trixie" packages=$client_packages
            ;;
        trixie)
            about="Debian 13, Mesa 26.1 from backports, vkmark" suites="trixie trixie-backports"
            packages=${client_packages/mesa-vulkan-drivers/mesa-vulkan-drivers\/trixie-backports}
            ;;
        peer)
            about="Debian sid, virgl_test_server, lavapipe" suites="sid trixie" # sid has no vkmark at the moment
            packages=$client_packages,virgl-server
            ;;
        # The whole of QEMU from one suite: firmware and data must fit the program.
        engine)
            about="Debian 13, QEMU 11.1 for x86 guests" suites="trixie trixie-backports"
            release=trixie-backports packages=qemu-system-x86,qemu-utils,seabios,ipxe-qemu
            ;;
        engine-arm)
            about="Debian 13, QEMU 11.1 for arm64 guests" suites="trixie trixie-backports"
            release=trixie-backports packages=qemu-system-arm,qemu-utils,qemu-efi-aarch64,ipxe-qemu
            ;;
        *) die "no root called '$1': trixie-stock, trixie, peer, engine or engine-arm" ;;
    esac
}

stamp() { echo "$about: $suites:${release:+ $release:} $packages"; }

is_made() { [ "$(cat "$roots/$1/etc/pearvisor-root" 2>/dev/null)" = "$(stamp)" ]; }

make_root() {
    local name=$1 start=$SECONDS new=$roots/.$1.new log=$cache/logs/root-$1.log
    command -v mmdebstrap >/dev/null || die "mmdebstrap is missing: run scripts/setup.sh demo"
    need_space "$roots" 1500
    discard_root "$new"
    trap 'discard_root "$new"; die "stopped; nothing is left of the unfinished root"' INT TERM HUP
    say "making $name ($about)"
    debian_root "$new" "$log"
    wait "$making" || {
        making=
        discard_root "$new"
        die "making $name failed: $(debian_root_reason "$log")"
    }
    making=
    remove_tree "$new.tmp"
    stamp >"$new/etc/pearvisor-root"
    replace_tree "$new" "$roots/$name"
    say "$name is ready: $(du -sm "$roots/$name" | cut -f 1) MiB, $((SECONDS - start)) s"
    trap - INT TERM HUP
}

if [ "${1:-}" = --path ]; then
    recipe "${2:?usage: root.sh --path NAME}"
    is_made "$2" || die "no root '$2' yet: run scripts/root.sh $2"
    echo "$roots/$2"
    exit 0
fi
[ $# -gt 0 ] || die "usage: root.sh NAME... (trixie-stock, trixie, peer, engine, engine-arm)"

missing=()
for name in "$@"; do
    recipe "$name"
    is_made "$name" || missing+=("$name")
done
[ ${#missing[@]} -gt 0 ] || exit 0

mirror=$(mirror)
if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null || die "making a Debian root needs root: run this as root, or install sudo"
    exec sudo env PEARVISOR_CACHE="$cache" PEARVISOR_MIRROR="$mirror" "$0" "${missing[@]}"
fi

mkdir -p "$roots" "$cache/logs"
for name in "${missing[@]}"; do
    lock "$roots/.$name.lock" "$name"
    recipe "$name"
    is_made "$name" || make_root "$name"
    unlock
done
