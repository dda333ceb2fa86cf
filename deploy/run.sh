#!/usr/bin/env bash
# Installs what is missing, builds Hairpin and runs it: `deploy/run.sh [options of hairpin serve]`.
#
# As root, packets are forwarded by XDP where the host allows it. Otherwise, and without a toolchain for the XDP
# program, everything is relayed in userspace.
set -eu

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
PATH=${CARGO_HOME:-${HOME:?HOME is not set}/.cargo}/bin:$PATH:/usr/local/bin:/usr/bin:/bin
export PATH

features=()
# Standard output belongs to the relay: it prints there what is made to be pasted.
status=0
"$root/deploy/setup.sh" run >&2 || status=$?
case $status in
    0) ;;
    3)
        features=(--no-default-features)
        echo "run: building without XDP, because its toolchain is missing (see above): everything is relayed in userspace" >&2
        ;;
    *) exit "$status" ;;
esac

cargo build --release --locked --package hairpin --manifest-path "$root/Cargo.toml" "${features[@]}" >&2
# The daemon takes this process's place, so that signals reach it.
exec "${CARGO_TARGET_DIR:-$root/target}/release/hairpin" serve "$@"
