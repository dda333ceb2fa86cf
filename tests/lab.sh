#!/usr/bin/env bash
# Shows the relay at work: builds a network of namespaces (clients and peers behind a router, the relay behind one link),
# starts the relay there with native XDP, sends a load through it over IPv4 and IPv6, and prints what came back and who
# forwarded it: the kernel or userspace.
#
#   tests/lab.sh [--rate PPS] [--duration 5s] [--payload BYTES] [--allocations N] [--xdp native|generic|off]
#
# Needs root. Nothing leaves the host, and nothing stays behind.
set -eu

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
PATH=${CARGO_HOME:-${HOME:?HOME is not set}/.cargo}/bin:$PATH:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH

if [ "$(id -u)" != 0 ]; then
    echo "lab: network namespaces need root: sudo tests/lab.sh" >&2
    exit 1
fi
"$root/deploy/setup.sh" test >&2
cargo build --release --locked --quiet --manifest-path "$root/Cargo.toml" --package hairpin --package hairpin-tests \
    --bin hairpin --bin lab >&2

lab=
clean() {
    [ -n "$lab" ] || return 0
    kill "$lab" 2>/dev/null || true
    wait "$lab" 2>/dev/null || true
    # It removes its namespaces itself, unless it was interrupted. What runs inside has ended with it.
    for namespace in $(ip netns list | cut -d' ' -f1); do
        case $namespace in hairpin-"$lab"-*) ip netns del "$namespace" ;; esac
    done
}
trap clean EXIT
trap 'exit 130' INT TERM

"${CARGO_TARGET_DIR:-$root/target}/release/lab" "$@" &
lab=$!
wait "$lab"
