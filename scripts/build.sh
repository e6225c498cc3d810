#!/bin/bash
# Configures $BUILD (default: build) once and builds it. Arguments go to `meson setup`.
set -euo pipefail
cd "$(dirname "$0")/.."
build=${BUILD:-build}

if [ ! -e "$build/build.ninja" ]; then
    echo "build: configuring $build"
    mkdir -p "$build"
    if ! meson setup "$build" -Dvulkan_headers="$(scripts/setup.sh --print-headers)" "$@" \
        >"$build/configure.log" 2>&1; then
        tail -n 15 "$build/configure.log" >&2
        echo "build: configuring failed; the whole story is in $build/meson-logs/meson-log.txt" >&2
        exit 1
    fi
fi
echo "build: compiling $build"
quiet=
[ -t 1 ] || quiet=--quiet # on a terminal Ninja shows how far it is, on one line
exec ninja -C "$build" $quiet
