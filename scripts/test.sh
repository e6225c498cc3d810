#!/bin/bash
# The tests behind `make test`: everything three times over, as far as it makes sense.
#
#   $BUILD        every suite (unit, wire, integration, ...)
#   $BUILD/asan   the same under AddressSanitizer and UndefinedBehaviorSanitizer
#   $BUILD/tsan   the tests of suite "tsan" under ThreadSanitizer
#
# Sanitized code makes gcc see warnings that are not there, so only the first build stops at them.
# Ends with one line, "N passed, N failed, N skipped", and exit code 1 if anything failed. A build that
# fails counts as one failed test. TESTS="plain asan tsan" picks runs; SUITES="unit wire" picks suites.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

build=${BUILD:-build}
runs=${TESTS:-plain asan tsan}
suites=${SUITES:-}
results=$build/test-results
export PV_BUILD_PLAIN # for tests that want a client without sanitizers: it runs in a Debian root too
PV_BUILD_PLAIN=$(realpath -m "$build")

mkdir -p "$build" || exit 1
rm -rf "$results"
mkdir -p "$results"

run_tests() { # NAME FOLDER SLOWDOWN [MESON TEST ARGS...]
    local name=$1 dir=$2 slowdown=$3 start=$SECONDS
    local args=(-C "$dir" --no-rebuild --timeout-multiplier "$slowdown") suite
    shift 3
    [ "$name" = tsan ] || for suite in $suites; do
        args+=(--suite "$suite")
    done
    rm -f "$dir/meson-logs/testlog.json"
    meson test "${args[@]}" "$@" 2>&1 | grep --line-buffered -E '^ *[0-9]+/[0-9]+ |^ERROR|^No suitable'
    if [ -e "$dir/meson-logs/testlog.json" ]; then
        cp "$dir/meson-logs/testlog.json" "$results/$name.json"
    fi
    echo "test: $name took $((SECONDS - start)) s"
}

build_in() { # NAME FOLDER [MESON SETUP ARGS...]
    local name=$1 dir=$2
    shift 2
    BUILD=$dir scripts/build.sh "$@" 2>&1 | tee "$results/$name.build" | grep -v 'no work to do'
    [ "${PIPESTATUS[0]}" = 0 ] && return 0
    mv "$results/$name.build" "$results/$name.build-failed"
    return 1
}

supp() { # FILE: the option that names a suppression file, if the tree has that file
    [ ! -e "$1" ] || printf ':suppressions=%s' "$PWD/$1"
}

for run in $runs; do
    case $run in
        plain)
            echo "test: plain"
            build_in plain "$build" && run_tests plain "$build" 1
            ;;
        asan)
            echo "test: under AddressSanitizer and UndefinedBehaviorSanitizer"
            build_in asan "$build/asan" -Dwerror=false -Db_sanitize=address,undefined &&
                PV_SANITIZED=address \
                    ASAN_OPTIONS=detect_stack_use_after_return=1:allocator_may_return_null=1 \
                    UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1 \
                    LSAN_OPTIONS=print_suppressions=0$(supp tests/lsan.supp) \
                    run_tests asan "$build/asan" 4
            ;;
        tsan)
            echo "test: under ThreadSanitizer"
            build_in tsan "$build/tsan" -Dwerror=false -Db_sanitize=thread &&
                PV_SANITIZED=thread \
                    TSAN_OPTIONS=halt_on_error=1:second_deadlock_stack=1$(supp tests/tsan.supp) \
                    run_tests tsan "$build/tsan" 4 --suite tsan
            ;;
        *)
            echo "test: no run called '$run': plain, asan, tsan" >&2
            exit 2
            ;;
    esac
done

exec python3 scripts/test-summary.py "$results"
