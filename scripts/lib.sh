# Shared by setup.sh, root.sh and guest/build-image.sh; they set `prog`, the name before their messages.
# shellcheck shell=bash disable=SC2034,SC2154 # what is set here is used there, and the other way round

cache=${PEARVISOR_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/pearvisor}
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
umask 022
PATH=$PATH:/usr/sbin:/sbin # mke2fs is there, and not everybody's PATH has it

say() { printf '%s: %s\n' "$prog" "$*"; }
die() {
    printf '%s: %s\n' "$prog" "$*" >&2
    exit 1
}

# The comment at the top of a script is its --help.
usage() { sed -n '2,/^set -/{/^set -/d;s/^# \{0,1\}//;p}' "$0"; }

need_space() { # FOLDER MIB
    local free
    free=$(df -Pm "$1" | awk 'NR == 2 { print $4 }')
    [ "$free" -ge "$2" ] || die "the disk is too full: $free MiB free under $1, $2 needed"
}

remove_tree() { [ ! -e "$1" ] || rm -rf --one-file-system "$1"; }

# Hold FILE locked as descriptor 8 until the script ends or unlock; children that may outlive the script
# must not inherit it (8>&-).
lock() { # FILE WHAT IS BEING MADE
    exec 8>"$1"
    flock -n 8 || {
        say "somebody else is making $2; waiting"
        flock 8
    }
}
unlock() { exec 8>&-; }

# Put the finished folder NEW in the place of OLD. Between the two renames there is neither; there is never half.
replace_tree() { # NEW OLD
    local aside
    aside=$(dirname "$2")/.$(basename "$2").old
    remove_tree "$aside"
    [ ! -e "$2" ] || mv "$2" "$aside"
    mv "$1" "$2"
    remove_tree "$aside"
}

os_field() { (
    # shellcheck disable=SC1091
    . /etc/os-release 2>/dev/null || exit 0
    case $1 in
        id) echo "${ID:-}" ;;
        version) echo "${VERSION_ID:-}" ;;
        codename) echo "${VERSION_CODENAME:-}" ;;
        name) echo "${PRETTY_NAME:-this system}" ;;
    esac
); }

# "URI SUITE" for each binary source the machine has, in both file formats that apt reads.
apt_sources() {
    local f
    for f in /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do
        [ -r "$f" ] && sed -n 's/#.*//; s/\[[^]]*\]//; s/^[[:space:]]*deb[[:space:]]\+//p' "$f" |
            awk 'NF >= 2 { print $1, $2 }'
    done
    for f in /etc/apt/sources.list.d/*.sources; do
        [ -r "$f" ] || continue
        awk 'function flush(  i, j, u, s, n, m) {
                 if (off || types !~ /(^| )deb( |$)/) { n = 0 } else { n = split(uris, u, " ") }
                 m = split(suites, s, " ")
                 for (i = 1; i <= n; i++) for (j = 1; j <= m; j++) print u[i], s[j]
                 types = uris = suites = key = ""; off = 0
             }
             /^#/ { next }
             /^[[:space:]]*$/ { flush(); next }
             /^[^[:space:]]/ { key = tolower($0); sub(/:.*/, "", key); sub(/^[^:]*:[[:space:]]*/, "") }
             key == "types" { types = types " " $0 }
             key == "uris" { uris = uris " " $0 }
             key == "suites" { suites = suites " " $0 }
             key == "enabled" && tolower($0) ~ /no/ { off = 1 }
             END { flush() }' "$f"
    done
    return 0
}

# The Debian mirror this machine uses. Nothing here names a host: we ask where the machine asks.
mirror() {
    local uri codename
    codename=$(os_field codename)
    uri=${PEARVISOR_MIRROR:-$(apt_sources |
        awk -v a="$codename" '$2 == a || $2 == "stable" || $2 == "oldstable" { print $1 }' |
        grep -E '^(https?|file|mirror|mirror\+[a-z]+)://?' | head -n 1)}
    [ -n "$uri" ] || die "no Debian mirror for $codename in /etc/apt; set PEARVISOR_MIRROR to one"
    echo "${uri%/}"
}

# Start mmdebstrap in the background and set `making` to its process: debian_root FOLDER LOG [ARGS...].
# Reads $suites, $packages (comma list), $release (which of several suites packages come from; may be empty)
# and $mirror. Its mounts and processes live in namespaces of their own, and go when this script goes, however
# it goes.
debian_root() {
    local new=$1 log=$2 suite
    shift 2
    mkdir -p "$new.tmp" # mmdebstrap's own files, so that they go with the rest
    for suite in $suites; do
        echo "deb [signed-by=$keyring] $mirror $suite main"
    done | setpriv --pdeathsig KILL unshare -m -p --propagation private --mount-proc --fork --kill-child \
        env TMPDIR="$new.tmp" mmdebstrap --mode=root --variant=apt --format=directory --include="$packages" \
        --aptopt='Acquire::Languages "none"' --aptopt='Acquire::Check-Valid-Until "false"' \
        --aptopt='Acquire::Retries "2"' --aptopt='APT::Sandbox::User "root"' \
        ${release:+--aptopt="APT::Default-Release \"$release\""} \
        --dpkgopt=force-unsafe-io --dpkgopt='path-exclude=/usr/share/doc/*' \
        --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
        "$@" "${suites%% *}" "$new" - >"$log" 2>&1 7<&- 8>&- &
    making=$!
}

# One line that says why mmdebstrap failed.
debian_root_reason() { # LOG
    if grep -qi 'no space left' "$1"; then
        echo "the disk is full"
    elif grep -qi 'could not resolve\|could not connect\|failure resolving\|unreachable' "$1"; then
        echo "the Debian mirror $mirror cannot be reached"
    else
        { grep -E '^(E|Err)' "$1" || cat "$1"; } | tail -n 3 >&2
        echo "see $1"
    fi
}

# Take away an unfinished root, also one of a run that was killed.
discard_root() { # FOLDER
    if [ -n "${making:-}" ]; then
        kill -KILL "$making" 2>/dev/null || true # and with it everything in its namespaces
        wait "$making" 2>/dev/null || true
        making=
    fi
    remove_tree "$1"
    remove_tree "$1.tmp"
}
