#!/usr/bin/env bash
# Benchmarks. Usage: tests/bench.sh fastpath|live|userspace|others|streams|sessions [--json]
#   fastpath   nanoseconds per packet of the XDP program, by path and IP versions, at 1 to 100,000 flows; --only and --flows
#              as below, --limits sets every limit of rate, --own-limit one of an allocation that sends nothing
#   live       packets a second through the XDP program, as a share of what a program reaches that only reflects;
#              --only NAME measures the paths with this in their name, --flows N so many flows
#   userspace  processor time per packet of the userspace path, next to coturn's (Debian's coturn package)
#   others     the same next to pion and eturnal's library, too (Debian's packages golang-go, golang-github-pion-turn.v2-dev,
#              erlang-p1-stun, installed if they are missing)
#   sessions   what sessions of two legs cost: created a second, memory, time into the kernel; --sessions N of them
#   streams    the same for clients over TCP and TLS, next to those over UDP
set -euo pipefail
cd "$(dirname "$0")/.."

usage() {
    sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0" >&2
    exit 2
}

[ $# -ge 1 ] || usage
benchmark=$1
shift

case $benchmark in
fastpath)
    if [ "$(id -u)" != 0 ]; then
        echo "tests/bench.sh fastpath loads a BPF program: run it as root." >&2
        exit 1
    fi
    exec cargo run --quiet --release -p hairpin-tests --bin fastpath -- "$@"
    ;;
live)
    if [ "$(id -u)" != 0 ]; then
        echo "tests/bench.sh live makes network namespaces and loads BPF programs: run it as root." >&2
        exit 1
    fi
    cargo build --quiet --release -p hairpin
    exec cargo run --quiet --release -p hairpin-tests --bin live -- "$@"
    ;;
sessions)
    if [ "$(id -u)" != 0 ]; then
        echo "tests/bench.sh sessions makes network namespaces and loads a BPF program: run it as root." >&2
        exit 1
    fi
    cargo build --quiet --release -p hairpin
    exec cargo run --quiet --release -p hairpin-tests --bin sessions -- "$@"
    ;;
userspace | streams | others)
    [ "$benchmark" != others ] || deploy/setup.sh bench
    cargo build --quiet --release -p hairpin
    exec cargo run --quiet --release -p hairpin-tests --bin userspace -- "$benchmark" "${CARGO_TARGET_DIR:-target}/release/hairpin" "$@"
    ;;
*) usage ;;
esac
