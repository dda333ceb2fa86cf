#!/usr/bin/env bash
# Runs the fuzz targets in tests/fuzz, one after the other, each from its corpus.
#
#   tests/fuzz.sh SECONDS [TARGET...]    so long each, without changing anything: 20 in tests/run.sh, 600 after a change
#   tests/fuzz.sh keep [TARGET...]       10 minutes each; then the corpus is what is needed of it and of what was found
#
# Any Rust toolchain will do. What is fuzzed is safe Rust, so there is no sanitizer, which would only be slow; with a
# nightly, `cargo +nightly fuzz run --fuzz-dir tests/fuzz TARGET` is the same with one. Exit code 0: nothing was found;
# 1: a target failed, or could not be built, and what it failed for is kept in tests/fuzz/artifacts; 3: this host cannot
# do it, the last line says why.
set -u -o pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
PATH=${CARGO_HOME:-${HOME:?HOME is not set}/.cargo}/bin:$PATH
cd "$root/tests/fuzz" || exit 1

usage() {
    echo "fuzz: usage: tests/fuzz.sh SECONDS|keep [codec|framing|engine|sdp|media|tokens|users_file...]" >&2
    exit 2
}

keep=no seconds=${1:-}
shift
case $seconds in
    keep) keep=yes seconds=600 ;;
    "" | *[!0-9]*) usage ;;
esac
[ $# -gt 0 ] || set -- codec framing engine sdp media tokens users_file
for target; do
    [ -f "targets/$target.rs" ] || usage
done

# Longer inputs say nothing new.
longest() { # TARGET
    case $1 in
        codec) echo 2000 ;;
        framing | users_file) echo 600 ;;
        tokens) echo 150 ;;
        sdp) echo 2500 ;;
        *) echo 800 ;;
    esac
}

# libFuzzer is compiled from its sources.
command -v c++ >/dev/null || { echo "skipped: the fuzz targets: there is no C++ compiler" && exit 3; }
host=$(rustc -vV | sed -n 's/^host: //p')
[ "${host%%-*}" = x86_64 ] || [ "${host%%-*}" = aarch64 ] ||
    { echo "skipped: the fuzz targets: libFuzzer is not known to work on $host" && exit 3; }

# What cargo fuzz would set, without a sanitizer: counters at every edge, and the checks of a debug build.
flags=(--cfg fuzzing -Cdebug-assertions -Ccodegen-units=1 -Cpasses=sancov-module)
for flag in level=4 inline-8bit-counters pc-table trace-compares; do
    flags+=("-Cllvm-args=-sanitizer-coverage-$flag")
done
CARGO_ENCODED_RUSTFLAGS=$(IFS=$'\x1f' && echo "${flags[*]}")
export CARGO_ENCODED_RUSTFLAGS
cargo build --locked --release --target "$host" || exit 1
built=${CARGO_TARGET_DIR:-target}/$host/release

mkdir -p artifacts
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0
for target; do
    mkdir -p "$work/$target"
    # New inputs are written to the first folder; the others are only read.
    options=(-max_total_time="$seconds" -max_len="$(longest "$target")" -rss_limit_mb=1024 -timeout=10)
    options+=(-print_final_stats=1 -artifact_prefix="artifacts/$target-")
    if ! "$built/$target" "${options[@]}" "$work/$target" "corpus/$target" >"$work/log" 2>&1; then
        failed=1
        grep -A5 -E "panicked at|ERROR: libFuzzer|Test unit written" "$work/log"
        echo "fuzz: $target FAILED"
        continue
    fi
    reached=$(sed -n 's/.*DONE *\(.*\) lim:.*/\1/p; s/^stat::number_of_executed_units: /runs: /p' "$work/log")
    echo "fuzz: $target: ${reached//$'\n'/ }"
    if [ $keep = yes ]; then
        mkdir "$work/kept"
        "$built/$target" -set_cover_merge=1 -rss_limit_mb=1024 \
            "$work/kept" "corpus/$target" "$work/$target" >/dev/null 2>&1 ||
            { echo "fuzz: the corpus of $target could not be made smaller" && exit 1; }
        rm -rf "corpus/$target" && mv "$work/kept" "corpus/$target"
    fi
done
exit $failed
