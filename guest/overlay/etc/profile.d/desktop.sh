# shellcheck shell=sh
# Programs find the user's desktop, where one runs: Wayland and X11.
if [ -S /run/user/1000/wayland-1 ]; then
    export WAYLAND_DISPLAY=/run/user/1000/wayland-1 DISPLAY="${DISPLAY:-:0}"
    [ -n "${XDG_RUNTIME_DIR:-}" ] || [ "$(id -u)" != 1000 ] || export XDG_RUNTIME_DIR=/run/user/1000
fi
