#!/bin/bash
# Makes Vulkan of an Ubuntu guest (24.04 or newer) run on PearVisor's GPU.
#
#   setup-ubuntu.sh            install what is missing, and verify; says what it does. Twice does no harm.
#   setup-ubuntu.sh --check    only look; changes nothing, needs no root
#
# Exit code 0: Vulkan in this guest is accelerated. 1: it is not, and the last line says why.
set -euo pipefail

system=ubuntu system_name=Ubuntu system_oldest=24.04
mesa_advice="run apt-get full-upgrade, and this again"

mesa_version() {
    local version
    version=$(dpkg-query -W -f='${db:Status-Status} ${Version}' mesa-vulkan-drivers 2>/dev/null) || return 1
    [ "${version%% *}" = installed ] || return 1
    version=${version##*[ :]} # without status and epoch
    echo "${version%%-*}"
}

# The kernels of Ubuntu's server and cloud images have their graphics in a package of its own.
kernel_package() { echo "linux-modules-extra-$(uname -r)"; }

install_packages() {
    change "reading package lists" apt-get -q update
    change "installing $*" env DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends install "$@"
}

install_mesa() { install_packages libvulkan1 mesa-vulkan-drivers vulkan-tools; }

# ---- From here on the same in setup-debian.sh, setup-ubuntu.sh and setup-fedora.sh (a test compares them),
# ---- so that each of them works when it alone is copied to a guest.
root=${SETUP_ROOT:-} # tests look at another tree's files
kernel_oldest=5.16 # virtio-gpu with context_init
mesa_oldest=24.0

say() { printf '%-8s %s\n' "$1" "$2"; }
die() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}
at_least() { [ "$(printf '%s\n' "$1" "$2" | sort -V | head -n 1)" = "$2" ]; }

check_only='' missing=0
while [ $# -gt 0 ]; do
    case $1 in
        --check) check_only=1 ;;
        -h | --help)
            sed -n '2,/^set -/{/^set -/d;s/^# \{0,1\}//;p}' "$0"
            exit 0
            ;;
        *)
            printf '%s: unknown option %s: see --help\n' "${0##*/}" "'$1'" >&2
            exit 2
            ;;
    esac
    shift
done

lacks() { # WHAT WHY
    say "$1" "$2"
    missing=$((missing + 1))
}

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        die "'$*' needs root: run this as root, or install sudo"
    fi
}

# Run a command that changes the system; its output is shown only if it fails.
change() { # WHAT COMMAND...
    local what=$1 output
    shift
    echo "         $what ..."
    output=$(as_root "$@" 2>&1 </dev/null) || {
        printf '%s\n' "$output" | tail -n 5 >&2
        die "$what failed: $*"
    }
}

release_field() { sed -n "s/^$1=//p" "$root/etc/os-release" 2>/dev/null | tr -d "\"'"; }

check_system() {
    local id version name
    id=$(release_field ID) version=$(release_field VERSION_ID) name=$(release_field PRETTY_NAME)
    [ "$id" = "$system" ] ||
        die "this is ${name:-an unknown system}, and the script is for $system_name $system_oldest and newer"
    # Debian testing has no VERSION_ID.
    [ -z "$version" ] || at_least "$version" "$system_oldest" ||
        die "$name is too old: $system_name $system_oldest is the oldest that works"
    say system "$name: fine"
}

# The driver must be there for the kernel that runs: as a file or built in.
check_kernel() {
    local kernel
    kernel=$(uname -r)
    at_least "${kernel%%-*}" $kernel_oldest ||
        die "kernel $kernel is too old: virtio-gpu needs $kernel_oldest or newer (upgrade and reboot)"
    if ! modinfo virtio_gpu >/dev/null 2>&1; then
        if [ -n "$check_only" ]; then
            lacks kernel "$kernel has no virtio_gpu driver (CONFIG_DRM_VIRTIO_GPU): install $(kernel_package)"
            return
        fi
        install_packages "$(kernel_package)"
        modinfo virtio_gpu >/dev/null 2>&1 ||
            die "installed $(kernel_package), for a kernel with virtio_gpu: reboot into it and run this again"
    fi
    say kernel "$kernel with virtio_gpu: fine"
}

icd_file() {
    local file
    for file in "$root"/usr/share/vulkan/icd.d/virtio_icd*.json; do
        [ ! -e "$file" ] || { echo "$file" && return; }
    done
    return 1
}

# Sets mesa_found: what there is, and what is wrong with it.
mesa_is_fine() {
    local version
    version=$(mesa_version) || true
    mesa_found=${version:-no Mesa}
    if [ -z "$version" ] || ! at_least "$version" $mesa_oldest; then
        mesa_found="$mesa_found, and $mesa_oldest or newer is needed"
    elif ! icd_file >/dev/null; then
        mesa_found="$mesa_found, but no Venus driver (virtio_icd*.json)"
    elif ! command -v vulkaninfo >/dev/null; then
        mesa_found="$mesa_found, but no vulkaninfo to see whether it works"
    else
        return 0
    fi
    return 1
}

check_mesa() {
    if ! mesa_is_fine; then
        if [ -n "$check_only" ]; then
            lacks mesa "$mesa_found"
            return
        fi
        install_mesa
        mesa_is_fine || die "after installing Mesa there is $mesa_found: $mesa_advice"
    fi
    say mesa "$mesa_found with Venus: fine"
}

# The first render node that is a virtio-gpu.
render_node() {
    local node driver
    for node in "$root"/sys/class/drm/renderD*; do
        # The device is the PCI or platform device, whose driver is virtio's; the GPU's is one below.
        for driver in "$node"/device/driver "$node"/device/virtio*/driver; do
            driver=$(readlink "$driver" 2>/dev/null) || continue
            [ "${driver##*/}" != virtio_gpu ] || { echo "/dev/dri/${node##*/}" && return; }
        done
    done
    return 1
}

check_device() {
    local node user=${SUDO_USER:-}
    if ! node=$(render_node) && [ -z "$check_only" ] && [ "$missing" = 0 ]; then
        as_root modprobe virtio_gpu 2>/dev/null || true
        sleep 1
        node=$(render_node) || true
    fi
    if [ -z "$node" ]; then
        lacks device "no virtio-gpu in this machine: start it with 'pearvisor run', or see 'pearvisor gpu --print-qemu-args'"
        return
    fi
    say device "$node: fine"
    [ -z "$user" ] || [ "$user" = root ] || id -nG "$user" | grep -qw render ||
        say note "for Vulkan over ssh put $user into the group render: usermod -aG render $user"
}

check_vulkan() {
    local name
    if [ "$missing" -gt 0 ]; then
        say vulkan "not tried"
        return
    fi
    name=$(VK_DRIVER_FILES=$(icd_file) VK_ICD_FILENAMES=$(icd_file) timeout 60 vulkaninfo --summary 2>/dev/null |
        sed -n 's/^[[:space:]]*deviceName[[:space:]]*= *//p' | head -n 1) || true
    case $name in
        *"Virtio-GPU Venus"*) say vulkan "$name: fine" ;;
        '') lacks vulkan "Venus finds no device: what the virtio-gpu offers is in 'dmesg | grep features'" ;;
        *) lacks vulkan "the device is '$name', not Virtio-GPU Venus" ;;
    esac
}

check_system
check_kernel
check_mesa
check_device
check_vulkan
if [ "$missing" -gt 0 ]; then
    die "$missing of the above missing"
fi
echo "This guest has an accelerated Vulkan."
