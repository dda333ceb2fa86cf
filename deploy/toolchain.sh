#!/usr/bin/env bash
# Installs what the XDP program is built with, where it is missing. Exit code 0: it can be built; 1: it cannot, and the
# last line says why. What relay-userspace/build.rs looks for, and in which order, is what this script provides:
#
#   1. Debian's rustc-web, cargo-web and libstd-rust-web-dev-bpf, or else a rustup nightly with rust-src;
#   2. bpf-linker, in HAIRPIN_BPF_LINKER, in the PATH, or in the user's cache folder.
set -u

linker_version=0.10.4
oldest_rustc=96
cache=${XDG_CACHE_HOME:-${HOME:?HOME is not set}/.cache}/hairpin/bpf
PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH

say() { echo "toolchain: $*"; }

fail() {
    echo "toolchain: the XDP program cannot be built: $*" >&2
    exit 1
}

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; elif command -v sudo >/dev/null; then sudo -n "$@"; else return 1; fi
}

# Debian's compiler with a core library for BPF.
has_debian() {
    [ -x /usr/bin/cargo ] && [ -x /usr/bin/rustc ] || return 1
    local minor core
    minor=$(/usr/bin/rustc --version 2>/dev/null | sed -n 's/^rustc 1\.\([0-9]*\)\..*/\1/p')
    [ "${minor:-0}" -ge $oldest_rustc ] || return 1
    core=$(/usr/bin/rustc --print sysroot)/lib/rustlib/bpfel-unknown-none/lib
    ls "$core"/libcore-*.rlib >/dev/null 2>&1
}

# A nightly with the sources of the core library.
has_nightly() {
    local sysroot
    command -v rustup >/dev/null || return 1
    sysroot=$(RUSTUP_AUTO_INSTALL=0 rustup run nightly rustc --print sysroot 2>/dev/null) || return 1
    [ -d "$sysroot/lib/rustlib/src/rust/library/core" ]
}

install_debian() {
    command -v apt-get >/dev/null || return 1
    say "installing rustc-web, cargo-web and libstd-rust-web-dev-bpf with apt-get"
    # --no-remove: they replace Debian's own rustc and cargo, which is not ours to decide where those are in use.
    local packages="rustc-web cargo-web libstd-rust-web-dev-bpf"
    # shellcheck disable=SC2086
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-remove --no-install-recommends $packages ||
        { as_root apt-get update &&
            as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-remove --no-install-recommends $packages; }
}

install_nightly() {
    command -v rustup >/dev/null || return 1
    say "installing a nightly toolchain with rust-src with rustup"
    rustup toolchain install nightly --profile minimal --component rust-src
}

find_linker() {
    local candidate
    for candidate in "${HAIRPIN_BPF_LINKER:-}" "$(command -v bpf-linker)" "$cache/bin/bpf-linker"; do
        if [ -n "$candidate" ] && [ -x "$candidate" ]; then
            echo "$candidate"
            return 0
        fi
    done
    return 1
}

# Its dependencies need a compiler of this year: Debian's BPF one is, the host's own is whatever it is.
install_linker() {
    say "building bpf-linker $linker_version into $cache (two minutes, once)"
    if has_debian; then
        env -u RUSTFLAGS -u CARGO_ENCODED_RUSTFLAGS -u RUSTUP_TOOLCHAIN RUSTC=/usr/bin/rustc RUSTC_WRAPPER= \
            CARGO_TARGET_DIR="$cache/target" \
            /usr/bin/cargo install bpf-linker --version $linker_version --locked --root "$cache" || return 1
    else
        env -u RUSTFLAGS -u CARGO_ENCODED_RUSTFLAGS RUSTC_WRAPPER= CARGO_TARGET_DIR="$cache/target" \
            rustup run nightly cargo install bpf-linker --version $linker_version --locked --root "$cache" || return 1
    fi
    rm -rf "$cache/target"
}

if has_debian; then
    say "found Debian's $(/usr/bin/rustc --version | cut -d' ' -f1-2) with core for BPF"
elif has_nightly; then
    say "found a rustup nightly with rust-src"
elif install_debian && has_debian; then
    say "installed Debian's $(/usr/bin/rustc --version | cut -d' ' -f1-2) with core for BPF"
elif install_nightly && has_nightly; then
    say "installed a rustup nightly with rust-src"
else
    fail "neither apt-get (rustc-web and libstd-rust-web-dev-bpf, as root) nor rustup (nightly, rust-src) has a compiler for it"
fi

if linker=$(find_linker); then
    say "found $("$linker" --version 2>/dev/null || echo bpf-linker) at $linker"
else
    command -v cc >/dev/null || as_root apt-get install -y --no-remove --no-install-recommends gcc libc6-dev ||
        fail "bpf-linker has to be compiled, and there is no C compiler to link it with"
    install_linker || fail "bpf-linker $linker_version did not compile"
    say "installed bpf-linker $linker_version at $cache/bin/bpf-linker"
fi
