#!/bin/sh
# Runs inside the guest, as root: what `make demo` measures there.
#
#   demo.sh SECONDS SCENE...    prints lines "name VALUE..." on standard output; people read the rest
#
# Each scene of vkmark runs twice: on the host's GPU through Mesa's Venus driver, and on lavapipe, Mesa's
# software driver, in the guest itself. So does vkcube, in a window of the desktop, as fast as it can (MAILBOX:
# with FIFO the screen's refresh would be the limit of one of the two); at the end it is left there for the
# picture of the screen.
set -u
seconds=$1
shift
screen=/dev/tty1
[ -w "$screen" ] || screen=/dev/null

tell() { # on the screen and to the host
    printf '%s\n' "$*"
    printf '%s\r\n' "$*" >"$screen"
}

driver() { # venus|lavapipe: the loader's description of it
    case $1 in
        venus) ls /usr/share/vulkan/icd.d/virtio_icd*.json 2>/dev/null ;;
        *) ls /usr/share/vulkan/icd.d/lvp_icd*.json 2>/dev/null ;;
    esac | head -n 1
}

fps() { # venus|lavapipe SCENE SECONDS
    VK_DRIVER_FILES=$(driver "$1") timeout 90 vkmark --winsys headless -b "$2:duration=$3" 2>&1 |
        sed -n 's/.* FPS: \([0-9.]*\) .*/\1/p' | head -n 1
}

# vkcube says nothing about its speed: the time of some frames, less the time of a few, which is start-up.
cube_ms() { # venus|lavapipe FRAMES
    start=$(date +%s%3N)
    VK_DRIVER_FILES=$(driver "$1") timeout 120 desktop-run vkcube --wsi wayland --present_mode 1 --c "$2" \
        >/dev/null 2>&1 || return
    echo $(($(date +%s%3N) - start))
}

cube_fps() { # venus|lavapipe FEW MANY
    few=$(cube_ms "$1" "$2") && many=$(cube_ms "$1" "$3") || return
    awk -v frames=$(($3 - $2)) -v ms=$((many - few)) 'BEGIN { if (ms > 0) printf "%.1f\n", 1000 * frames / ms }'
}

median() { # of three; nothing where one is missing
    [ $# = 3 ] || return
    printf '%s\n' "$@" | sort -n | sed -n 2p
}

clear >"$screen" 2>/dev/null
VK_DRIVER_FILES=$(driver venus) vulkaninfo --summary >/tmp/summary 2>&1
tell "device $(sed -n 's/^.*deviceName *= *//p' /tmp/summary | head -n 1)"
tell "driver $(sed -n 's/^.*driverName *= *//p' /tmp/summary | head -n 1)"
tell "first-frame $(cut -d' ' -f 1 /proc/uptime)"
for scene in "$@"; do
    # a software driver in a translated guest needs seconds to compile a shader
    tell "scene $scene $(fps venus "$scene" "$seconds") $(fps lavapipe "$scene" $((seconds * 4)))"
done
venus='' lavapipe=''
for _ in 1 2 3; do # in turns: what else the machine does is the same for both
    venus="$venus $(cube_fps venus 30 430)"
    lavapipe="$lavapipe $(cube_fps lavapipe 3 23)"
done
# shellcheck disable=SC2086 # words
tell "cube $(median $venus) $(median $lavapipe)"
desktop-run vkcube --wsi wayland >/dev/null 2>&1 </dev/null &
sleep 4
