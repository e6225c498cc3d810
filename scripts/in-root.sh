#!/bin/bash
# Runs a command inside one of the roots that root.sh makes.
#
#   in-root.sh NAME [--bind DIR]... [--] COMMAND...
#
# /proc, /sys, /dev and /tmp are the machine's own, and so is each DIR, at the same path; the command
# starts in the current folder if that is visible inside. Variables of Vulkan, Mesa, X and ours are
# passed on, all others are not. It runs as the caller, also where entering the root takes sudo.
# Every mount lives in a private namespace and goes with the command; the command replaces this
# shell, so signals and the exit code are its own.
set -euo pipefail

die() {
    printf 'in-root: %s\n' "$*" >&2
    exit 125
}

[ $# -ge 2 ] || die "usage: in-root.sh NAME [--bind DIR]... [--] COMMAND..."
name=$1
shift
binds=(/proc /sys /dev /tmp)
[ -z "${XDG_RUNTIME_DIR:-}" ] || [ ! -d "$XDG_RUNTIME_DIR" ] || binds+=("$XDG_RUNTIME_DIR")
while [ $# -gt 0 ]; do
    case $1 in
        --bind)
            [ -d "${2:-}" ] || die "--bind: no folder '${2:-}'"
            binds+=("$(realpath "$2")")
            shift 2
            ;;
        --)
            shift
            break
            ;;
        *) break ;;
    esac
done
[ $# -gt 0 ] || die "no command given"

root=$("$(dirname "$0")/root.sh" --path "$name") || exit 125

vars=(PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/tmp)
while read -r var; do
    case $var in
        VN_* | VTEST_* | VK_* | MESA_* | LP_* | PV_* | ?SAN_OPTIONS | UBSAN_OPTIONS | \
            DISPLAY | XAUTHORITY | XDG_RUNTIME_DIR | LANG | TERM | NO_COLOR)
            vars+=("$var=${!var}")
            ;;
    esac
done < <(compgen -e)

sudo=()
if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null || die "entering a Debian root needs root, or sudo"
    sudo=(sudo)
fi

# shellcheck disable=SC2016 # expanded inside
exec "${sudo[@]}" unshare -m --propagation private sh -c '
    root=$1 cwd=$2 user=$3 count=$4
    shift 4
    while [ "$count" -gt 0 ]; do
        mkdir -p "$root$1" && mount --rbind "$1" "$root$1" || exit 125
        shift
        count=$((count - 1))
    done
    exec chroot --userspec="$user" "$root" /bin/sh -c "cd \"\$1\" 2>/dev/null; shift; exec env -i \"\$@\"" sh "$cwd" "$@"
' sh "$root" "$PWD" "$(id -u):$(id -g)" "${#binds[@]}" "${binds[@]}" "${vars[@]}" "$@"
