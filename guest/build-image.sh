#!/bin/bash
# Builds a guest image: a disk, a kernel and an initial ramdisk that `pearvisor run` boots.
#
#   build-image.sh [OPTIONS]
#
#   --name NAME          default debian-13; profiles/NAME.conf says what goes in (else debian-13.conf does)
#   --packages A,B       more Debian packages (openssh-server, say)
#   --size SIZE          of the disk, default 4G; unused space takes no room
#   --release RELEASE    default trixie
#   --mesa backports     Mesa of RELEASE-backports instead of RELEASE's own
#   --arch ARCH          amd64 or arm64, default amd64; a foreign one needs qemu-user-static
#   --force              build again what is there, and lose what a guest has written to it
#   --json               print image.json when done; messages go to stderr
#
# The result is the folder ${PEARVISOR_CACHE:-~/.cache/pearvisor}/images/NAME:
#
#   disk.img     raw ext4 without a partition table, sparse
#   vmlinuz      the kernel; initrd.img its ramdisk
#   image.json   what this is: release, kernel and Mesa versions, kernel command line, sizes, checksums, packages
#
# The folder is built under another name and renamed when complete, so it is there or not there. Nothing is done
# if it is there and its recipe (profile, options, overlay/) is still the same. If a guest has written to the
# disk, it is not built again without --force; while one runs from it, it is not built again at all.
#
# shellcheck disable=SC2016,SC2086,SC2317 # text for other shells; lists are words; steps run by name
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
prog=image
# shellcheck source=../scripts/lib.sh
. "$here/../scripts/lib.sh"
recipe_version=2 # raise it when this script changes what comes out

options=("$@")
name=debian-13
more='' opt_size='' opt_release='' opt_mesa='' opt_arch=''
force='' json=''

while [ $# -gt 0 ]; do
    case $1 in
        --name | --packages | --size | --release | --mesa | --arch)
            [ $# -ge 2 ] || die "$1 needs a value"
            case $1 in
                --name) name=$2 ;;
                --packages) more="$more ${2//,/ }" ;;
                --size) opt_size=$2 ;;
                --release) opt_release=$2 ;;
                --mesa) opt_mesa=$2 ;;
                --arch) opt_arch=$2 ;;
            esac
            shift
            ;;
        --force) force=1 ;;
        --json) json=1 ;;
        -h | --help)
            usage
            exit 0
            ;;
        *) die "unknown option '$1': see --help" ;;
    esac
    shift
done
[ -z "$json" ] || exec 3>&1 >&2

[[ $name =~ ^[a-z0-9][a-z0-9._-]*$ ]] || die "'$name' is no name for an image: use a-z, 0-9, '.', '_', '-'"
profile=$here/profiles/$name.conf
[ -e "$profile" ] || profile=$here/profiles/debian-13.conf
# shellcheck source=profiles/debian-13.conf
. "$profile"
release=${opt_release:-$release} arch=${opt_arch:-$arch} mesa=${opt_mesa:-$mesa} size=${opt_size:-$size}
case $arch in
    amd64) console=ttyS0 machine=x86_64 ;;
    arm64) console=ttyAMA0 machine=aarch64 ;;
    *) die "--arch $arch: amd64 or arm64" ;;
esac
case $mesa in stock | backports) ;; *) die "--mesa $mesa: stock or backports" ;; esac
[[ $release =~ ^[a-z]+$ ]] || die "--release $release: the name of a Debian release, such as trixie"
[[ $size =~ ^[1-9][0-9]*[MG]$ ]] || die "--size $size: a number with M or G"
cmdline=${cmdline//@console@/$console}
read -r -d '' -a list <<<"${packages//@arch@/$arch} $more" || true
packages=${list[*]}
[[ $packages =~ ^[a-z0-9+.:\ -]+$ ]] || die "--packages: names of Debian packages, separated by commas"

images=$cache/images
final=$images/$name
new=$images/.$name.new
log=$cache/logs/image-$name.log
start=$SECONDS

# What the image is made from, as one checksum.
stamp() {
    {
        echo "$recipe_version $release $arch $mesa $size $packages"
        cat "$profile" "$here/initrd-init"
        cd "$here/overlay" && find . -type f -printf '%m %p\n' -exec sha256sum {} + | sort
    } | sha256sum | cut -c 1-32
}

field() { sed -n "s/^  \"$1\": \"\\(.*\\)\",\$/\\1/p" "$final/image.json"; }

# 0 if there is nothing to do.
is_built() {
    [ -e "$final/image.json" ] && [ -z "$force" ] || return 1
    [ "$(field recipe)" != "$recipe" ] || return 0
    is_written || return 1
    say "$name is of another recipe, but guests have written to it, so it stays (--force builds it again)"
}

# Guests write to an overlay, or to the disk itself where somebody runs QEMU by hand.
is_written() { [ -e "$final/overlay.qcow2" ] || [ "$final/disk.img" -nt "$final/image.json" ]; }

# Nobody may run what is about to be replaced. A guest holds this lock (src/vm/image.h).
hold_image() {
    [ -e "$final/overlay.lock" ] || return 0
    exec 7<"$final/overlay.lock"
    flock -n 7 || die "a guest is running from $name: stop it first"
}

finish() {
    [ -z "$json" ] || cat "$final/image.json" >&3
    exit 0
}

recipe=$(stamp)
! is_built || finish

mirror=$(mirror)
mkdir -p "$images" "$cache/logs" 2>/dev/null || die "cannot create $images: set PEARVISOR_CACHE"
if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null || die "building an image needs root: run this as root, or install sudo"
    [ -z "$json" ] || exec >&3
    exec sudo env PEARVISOR_CACHE="$cache" PEARVISOR_MIRROR="$mirror" PEARVISOR_OWNER="$(id -u):$(id -g)" \
        "$0" "${options[@]}"
fi
for tool in mmdebstrap:mmdebstrap mke2fs:e2fsprogs xz:xz-utils; do
    command -v "${tool%:*}" >/dev/null || die "${tool%:*} is missing: apt-get install ${tool#*:}"
done

# A foreign architecture's programs run through qemu-user-static, which the kernel must know about.
if [ "$(uname -m)" != $machine ]; then
    [ -e "/proc/sys/fs/binfmt_misc/qemu-$machine" ] ||
        die "this machine cannot run $arch programs: install qemu-user-static and binfmt-support (guest/README.md)"
fi

lock "$images/.$name.lock" "the image $name"
! is_built || finish # somebody else has built it while we waited

hold_image
need_space "$images" 3500
trap 'clear_line; discard_root "$new"; die "stopped; nothing is left of the unfinished image"' INT TERM HUP
trap '[ $? = 0 ] || { clear_line; discard_root "$new"; }' EXIT
discard_root "$new"

# Progress: on a terminal one line that changes, in a pipe one line per step.
terminal=
[ ! -t 1 ] || terminal=1
clear_line() { [ -z "$terminal" ] || printf '\r\033[K'; }
step_text=
step() { # TEXT
    step_text=$1
    if [ -n "$terminal" ]; then show; else say "$step_text"; fi
}
show() { # [DETAIL]
    printf '\r\033[K%.*s' "$(($(tput cols 2>/dev/null || echo 80) - 1))" \
        "$prog: $step_text ($((SECONDS - start)) s)${1:+: $1}"
}
wait_for() { # the background step $making; false if it fails
    while [ -n "$terminal" ] && kill -0 "$making" 2>/dev/null; do
        show "$(tail -n 1 "$log" 2>/dev/null | sed 's/\.\.\.$//; s/^I: //')"
        sleep 0.3
    done
    wait "$making"
    local status=$?
    making=
    return $status
}
broken() { # WHY
    clear_line
    die "building $name failed: $1"
}
# Run a step in the background, so that signals are heard, with its output in the log.
background() {
    "$@" >>"$log" 2>&1 </dev/null 7<&- 8>&- &
    making=$!
    wait_for || broken "$(debian_root_reason "$log")"
}
inside() { chroot "$new/root" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C HOME=/root "$@"; }

get_packages() {
    local suites=$release packages=${packages// /,} arguments=("--architectures=$arch") glob
    if [ "$mesa" = backports ]; then
        suites="$release $release-backports"
        packages=$packages,libgbm1
        for glob in mesa-vulkan-drivers libgl1-mesa-dri libegl-mesa0 libgbm1; do
            packages=${packages/$glob/$glob\/$release-backports}
        done
    fi
    set -f # the patterns are for the guest's files
    for glob in $exclude; do
        arguments+=("--dpkgopt=path-exclude=$glob")
    done
    set +f
    INITRD=No debian_root "$new/root" "$log" "${arguments[@]}"
    wait_for
}

# overlay/, users, services.
settle() {
    local unit group
    cp -r --preserve=mode "$here/overlay/." "$new/root"
    {
        echo "# The guest leaves these parts of packages out: see its profile."
        set -f
        printf 'path-exclude=%s\n' $exclude
        set +f
    } >"$new/root/etc/dpkg/dpkg.cfg.d/pearvisor"
    for unit in $mask; do
        ln -sf /dev/null "$new/root/etc/systemd/system/$unit"
    done
    mkdir -p "$new/root/etc/systemd/system-generators"
    for unit in $mask_generators; do
        ln -sf /dev/null "$new/root/etc/systemd/system-generators/$unit"
    done
    inside systemctl enable $enable mnt-share.mount
    inside systemctl disable $disable || true
    mkdir -p "$new/root/mnt/share"
    inside useradd --create-home --shell /bin/bash "$user"
    for group in $groups; do
        inside usermod --append --groups "$group" "$user"
    done
    inside passwd --delete root
    inside passwd --delete "$user"
    # Each guest gets an identity and host keys of its own, at its first boot.
    rm -f "$new/root"/etc/ssh/ssh_host_*
    : >"$new/root/etc/machine-id"
    rm -f "$new/root/var/lib/dbus/machine-id"
    : >"$new/root/etc/resolv.conf"
    rm -rf "$new/root"/var/cache/apt/* "$new/root"/var/lib/apt/lists/* "$new/root"/var/log/*.log
    # What systemd would bring up to date at the first boot is up to date.
    touch "$new/root/etc/.updated" "$new/root/var/.updated"
}

# The files of kernel modules and of what they depend on.
module_files() { # NAME...
    local module
    for module in "$@"; do
        inside modprobe --set-version "$kernel" --show-depends "$module"
    done | awk '$1 == "insmod" && !seen[$2]++ { print $2 }'
}

# Unpacking a module takes longer than reading one under TCG.
unpack_modules() {
    local path
    for path in $(module_files $plain_modules); do
        case $path in
            *.xz) xz -d "$new/root$path" ;;
        esac
    done
    inside depmod "$kernel"
}

# The initial ramdisk: busybox, initrd-init and a few modules, not compressed, because unpacking takes longer
# than reading under TCG.
make_initrd() {
    local tree=$new/root/tmp/initrd module path
    mkdir -p "$tree"/{bin,dev,proc,modules.d}
    cp "$new/root/usr/bin/busybox" "$tree/bin/busybox"
    cp "$here/initrd-init" "$tree/init"
    module_files $initrd_modules | while read -r path; do
        module=$(basename "$path" .xz)
        case $path in
            *.xz) xz -dc "$new/root$path" ;;
            *) cat "$new/root$path" ;;
        esac >"$tree/modules.d/$module"
        echo "$module" >>"$tree/modules"
    done
    inside sh -c 'cd /tmp/initrd && find . | busybox cpio -o -H newc' >"$new/initrd.img"
    rm -rf "$tree"
}

make_disk() {
    truncate -s "$size" "$new/disk.img"
    # A fresh sparse file reads as zeros, so the guest's kernel need not zero tables at its first boot.
    mke2fs -q -t ext4 -L "pearvisor" -m 0 -J size=16 -d "$new/root" \
        -E root_owner=0:0,assume_storage_prezeroed=1 "$new/disk.img"
}

package_version() { inside dpkg-query -W -f='${Version}' "$1"; }

describe() {
    local file
    printf '{\n'
    printf '  "%s": "%s",\n' name "$name" about "$about" release "$release" arch "$arch" machine "$machine" \
        kernel "$kernel" mesa "$mesa_version" console "$console" cmdline "$cmdline" cmdline_tcg "$cmdline_tcg" \
        user "$user" recipe "$recipe" built "$(date -u +%Y-%m-%dT%H:%M:%SZ)"
    printf '  "size": %s,\n' "$(stat -c %s "$new/disk.img")"
    printf '  "build_seconds": %s,\n' $((SECONDS - start))
    printf '  "files": {\n'
    for file in disk.img vmlinuz initrd.img; do
        printf '    "%s": { "size": %s, "sha256": "%s" }%s\n' "$file" "$(stat -c %s "$new/$file")" \
            "$(sed -n "s/ [ *]$file\$//p" "$new/sums")" "$([ $file = initrd.img ] || echo ,)"
    done
    printf '  },\n  "packages": [\n%s\n  ]\n}\n' "$installed"
}

say "building $name: $about, $arch, in $final"
mkdir -p "$new"
step "1/5 Debian packages"
get_packages || broken "$(debian_root_reason "$log")"
remove_tree "$new/root.tmp"
kernel=$(basename "$(echo "$new"/root/lib/modules/*)")
step "2/5 settings"
background settle
background unpack_modules
mesa_version=$(package_version mesa-vulkan-drivers)
# shellcheck disable=SC2016
installed=$(inside dpkg-query -W -f='    "${Package}=${Version}",\n' | sed '$s/,$//')
step "3/5 initial ramdisk"
background make_initrd
cp "$new/root/boot/vmlinuz-$kernel" "$new/vmlinuz"
step "4/5 disk of $size"
background make_disk
remove_tree "$new/root"
step "5/5 checksums"
background sh -c 'cd "$1" && sha256sum disk.img vmlinuz initrd.img >sums' sh "$new"
describe >"$new/image.json"
rm "$new/sums"
[ -z "${PEARVISOR_OWNER:-}" ] || chown -R "$PEARVISOR_OWNER" "$new"
replace_tree "$new" "$final"
clear_line
say "$name is ready: $(du -sm "$final" | cut -f 1) MiB, $((SECONDS - start)) s"
finish
