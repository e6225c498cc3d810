#!/bin/bash
# Installs what PearVisor needs on Debian 12 or 13, as root or with sudo.
#
#   setup.sh [build|run|demo|demo-vtest|test|bench]   default: build
#   setup.sh --print-headers               where the Vulkan headers and vk.xml are (installs nothing)
#
#   build   compiler, Meson, libraries, Vulkan headers
#   run     build, and Mesa's Vulkan drivers (lavapipe and the Venus client)
#   demo    run, and QEMU 11.1 if the machine has none that new     (see root.sh)
#   demo-vtest   run, and a Debian 13 root that has vkmark
#   test    both, what only the tests use (Xvfb), a root with Mesa 26.1, and a guest image
#   bench   both, a guest image, and a root with the server that we compare with
#
# Takes well under a second when nothing is missing. What it leaves on the machine is Debian packages,
# and one folder that can be deleted at any time: ${PEARVISOR_CACHE:-~/.cache/pearvisor}. The
# machine's apt sources stay as they are: everything newer than the release is fetched through
# private source lists, from the mirror that the machine already uses.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
prog=setup
# shellcheck source=lib.sh
. "$here/lib.sh"
headers=$cache/vulkan-headers
log=$cache/logs/setup.log

# Packages of the running release. Meson looks for cmocka and glslang when it configures, so they
# belong to the build.
build_packages="gcc libc6-dev meson ninja-build pkg-config python3 libjson-c-dev libpng-dev
    libcmocka-dev libuv1-dev libvncserver-dev libxkbcommon-dev glslang-tools"
run_packages="vulkan-tools novnc xkb-data"
demo_packages="mmdebstrap e2fsprogs xz-utils"
test_packages="xvfb xauth edid-decode shellcheck chromium chromium-driver vncsnapshot xdotool"
# SDL's headers want those of libgbm, which is Mesa's and has to be as new as Mesa's libraries are.
window_packages="libsdl2-dev libgbm-dev"
# On Debian 12 these come from its backports: Mesa 22.3 has no Venus client that we can serve.
mesa_packages="mesa-vulkan-drivers libvulkan1"
mesa_oldest=25.0

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        die "installing packages needs root: run this as root, or install sudo"
    fi
}

# Say in one line why a command failed, from what it left in the log.
reason() {
    if grep -qi 'no space left\|enough free space' "$log"; then
        echo "the disk is full ($(df -Ph "$cache" | awk 'NR == 2 { print $4 }') free under $cache)"
    elif grep -qi 'could not resolve\|temporary failure\|could not connect\|unreachable\|timed out\|failed to fetch\|unable to connect\|index files failed' "$log"; then
        echo "the Debian mirror $(mirror 2>/dev/null) cannot be reached; is there a network?"
    elif grep -qi 'could not get lock\|unable to lock' "$log"; then
        echo "another apt or dpkg is running; try again when it is done"
    elif grep -qi 'a password is required\|not in the sudoers' "$log"; then
        echo "sudo refused"
    else
        grep '^E:' "$log" | tail -n 3 >&2
        echo "see $log"
    fi
}

# Run a command with its output in the log; if it fails, say so and stop: quietly WHAT COMMAND...
quietly() {
    local what=$1
    shift
    "$@" >"$log" 2>&1 </dev/null || die "$what failed: $(reason)"
}

security_mirror() {
    apt_sources | awk -v a="$codename-security" '$2 == a { sub(/\/$/, "", $1); print $1; exit }'
}

# apt-get with sources, lists and cache of its own: private_apt NAME SUDO ARGS..., where SUDO is
# as_root or env. Sources are read from $cache/apt/NAME.list.
private_apt() {
    local dir=$cache/apt/$1 list=$cache/apt/$1.list by=$2
    shift 2
    $by mkdir -p "$dir/lists/partial" "$dir/cache/archives/partial"
    # Packages that wait in the cache are big and never needed again; a suite that moved on since
    # its Release file was signed is still the suite.
    $by env DEBIAN_FRONTEND=noninteractive LC_ALL=C apt-get -qq -y \
        -o Dir::Etc::SourceList="$list" -o Dir::Etc::SourceParts=/dev/null \
        -o Dir::State::Lists="$dir/lists" -o Dir::Cache="$dir/cache" \
        -o Acquire::Check-Valid-Until=false -o Acquire::Languages=none -o Acquire::Retries=2 \
        -o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false \
        -o APT::Update::Error-Mode=any -o APT::Sandbox::User=root \
        -o APT::Install-Recommends=false -o Dpkg::Options::=--force-confold \
        -o DPkg::Lock::Timeout=120 -o Dpkg::Use-Pty=0 "$@"
}

installed() { # PACKAGE [OLDEST]
    local version
    # shellcheck disable=SC2016
    version=$(dpkg-query -W -f='${db:Status-Status} ${Version}' "$1" 2>/dev/null) || return 1
    [ "${version%% *}" = installed ] || return 1
    [ -z "${2:-}" ] || dpkg --compare-versions "${version#* }" ge "$2"
}

install_packages() { # PACKAGES: those missing are installed, Mesa from backports where needed
    local p missing='' mesa='' start=$SECONDS security target=()
    for p in $1; do
        installed "$p" || missing="$missing $p"
    done
    for p in ${2:-}; do
        case $p in
            mesa-vulkan-drivers) installed "$p" "$mesa_oldest" || mesa="$mesa $p" ;;
            *) installed "$p" || mesa="$mesa $p" ;;
        esac
    done
    [ -n "$missing$mesa" ] || return 0
    need_space "$cache" 1500
    local base
    base=$(mirror)
    security=$(security_mirror)
    {
        echo "deb [signed-by=$keyring] $base $codename main"
        echo "deb [signed-by=$keyring] $base $codename-updates main"
        [ -z "$security" ] || echo "deb [signed-by=$keyring] $security $codename-security main"
        [ "$version" != 12 ] || echo "deb [signed-by=$keyring] $base $codename-backports main"
    } >"$cache/apt/system.list"
    say "reading package lists of $codename"
    quietly "reading package lists" private_apt system as_root update
    if [ -n "$missing" ]; then
        say "installing$missing"
        # shellcheck disable=SC2086
        quietly "installing$missing" private_apt system as_root install $missing
    fi
    if [ -n "$mesa" ]; then
        [ "$version" != 12 ] || target=(-t "$codename-backports")
        say "installing$mesa${target[1]:+ from ${target[1]}}"
        # shellcheck disable=SC2086
        quietly "installing$mesa" private_apt system as_root install "${target[@]}" $mesa
    fi
    as_root rm -rf "$cache/apt/system"
    say "packages are in place ($((SECONDS - start)) s)"
}

# Vulkan headers and vk.xml, unpacked and not installed: the newest Venus protocol needs 1.4.343,
# which no stable Debian has yet. Debian 13's 1.4.309 will do, with some newer commands missing.
get_headers() {
    [ -e "$headers/share/vulkan/registry/vk.xml" ] && return 0
    local start=$SECONDS tmp=$cache/tmp.headers found='' suite why
    need_space "$cache" 200
    for suite in forky trixie; do
        rm -rf "$tmp" "$cache/apt/headers"
        mkdir -p "$tmp"
        echo "deb [signed-by=$keyring] $(mirror) $suite main" >"$cache/apt/headers.list"
        say "fetching Vulkan headers of Debian $suite"
        if fetch_headers "$tmp" >"$log" 2>&1; then
            found=$suite
            break
        fi
        why=$(reason)
        [ "$suite" = trixie ] || say "no headers from Debian $suite: $why"
    done
    rm -rf "$cache/apt/headers"
    if [ -z "$found" ]; then
        rm -rf "$tmp"
        die "fetching Vulkan headers failed: $why"
    fi
    rm -rf "$headers"
    mv "$tmp/root/usr" "$headers"
    rm -rf "$tmp"
    say "Vulkan headers $(headers_version) in $headers ($((SECONDS - start)) s)"
    [ "$found" = forky ] ||
        say "these are older than the newest Venus protocol: some commands will be missing"
}

fetch_headers() { # FOLDER
    private_apt headers env update &&
        (cd "$1" && private_apt headers env download libvulkan-dev) &&
        dpkg-deb -x "$1"/libvulkan-dev_*.deb "$1/root" &&
        [ -e "$1/root/usr/share/vulkan/registry/vk.xml" ]
}

headers_version() {
    awk '/#define VK_HEADER_VERSION / { patch = $3 }
         /#define VK_HEADER_VERSION_COMPLETE/ { gsub(/[(),]/, " "); minor = $6 }
         END { print "1." minor "." patch }' "$headers/include/vulkan/vulkan_core.h"
}

# QEMU that knows shared memory over vhost-user (11.1), unless the machine has one: "engine" or nothing.
engine_root() {
    local version
    version=$(qemu-system-x86_64 --version 2>/dev/null | sed -n '1s/.*version \([0-9][0-9.]*\).*/\1/p')
    [ -n "$version" ] && dpkg --compare-versions "$version" ge 11.1 || echo engine
}

if [ "${1:-}" = --print-headers ]; then
    [ -e "$headers/share/vulkan/registry/vk.xml" ] ||
        die "no Vulkan headers yet: run scripts/setup.sh build"
    echo "$headers"
    exit 0
fi

version=$(os_field version)
codename=$(os_field codename)
want=${1:-build}
case $want in
    build | run | demo | demo-vtest | test | bench) ;;
    -h | --help)
        usage
        exit 0
        ;;
    *) die "unknown step '$want': build, run, demo, demo-vtest, test or bench" ;;
esac

[ "$(os_field id)" = debian ] ||
    die "this is $(os_field name), and the script knows Debian 12 and 13 only; CONTRIBUTING.md lists what to install"
case $version in
    12 | 13) ;;
    *) die "this is Debian ${version:-testing}, and the script knows 12 and 13 only; CONTRIBUTING.md lists what to install" ;;
esac

mkdir -p "$cache/logs" "$cache/apt" 2>/dev/null || die "cannot create $cache: set PEARVISOR_CACHE"

# One set-up at a time; the second finds everything done.
exec 9>"$cache/setup.lock"
flock -n 9 || {
    say "another set-up is running; waiting for it"
    flock 9
}

packages=$build_packages
mesa=$window_packages
roots=
image=
case $want in
    run) packages="$packages $run_packages" mesa="$mesa $mesa_packages" ;;
    demo) packages="$packages $run_packages $demo_packages" mesa="$mesa $mesa_packages" roots=$(engine_root) ;;
    demo-vtest) packages="$packages $run_packages $demo_packages" mesa="$mesa $mesa_packages" roots="trixie-stock" ;;
    test)
        packages="$packages $run_packages $demo_packages $test_packages" mesa="$mesa $mesa_packages"
        roots="trixie-stock trixie $(engine_root)" image=debian-13
        ;;
    bench)
        packages="$packages $run_packages $demo_packages" mesa="$mesa $mesa_packages"
        roots="trixie-stock peer $(engine_root)" image=debian-13
        ;;
esac

install_packages "$packages" "$mesa"
get_headers
if [ -n "$roots" ]; then
    # shellcheck disable=SC2086
    PEARVISOR_MIRROR=$(mirror) PEARVISOR_CACHE=$cache "$here/root.sh" $roots
fi
# Guest tests skip without one, and say so; that is better than no tests at all.
if [ -n "$image" ]; then
    PEARVISOR_MIRROR=$(mirror) PEARVISOR_CACHE=$cache "$here/../guest/build-image.sh" --name "$image" ||
        say "no guest image; tests and figures of guests will be left out"
fi
