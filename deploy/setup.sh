#!/usr/bin/env bash
# Installs what Hairpin needs and this host does not have. Says what it does, touches nothing that is there already.
#
#   deploy/setup.sh [run|test|bench] [--no-xdp]
#
#   run       what building and running takes (the default)
#   test      also what tests/run.sh uses
#   bench     also the servers that tests/bench.sh compares with
#   --no-xdp  without the toolchain of the XDP program
#
# Installs with apt-get, as root or through a sudo that asks nothing. Exit code 0: everything is there; 1: something is
# missing, and is named; 3: only the toolchain of the XDP program is missing.
set -u

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# A minimal environment has neither a cargo of rustup nor the commands of the administrator in its PATH.
PATH=${CARGO_HOME:-${HOME:?HOME is not set}/.cargo}/bin:$PATH:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH

say() { echo "setup: $*"; }

usage() {
    echo "setup: usage: deploy/setup.sh [run|test|bench] [--no-xdp]" >&2
    exit 2
}

purpose=run xdp=yes
for argument; do
    case $argument in
        run | test | bench) purpose=$argument ;;
        --no-xdp) xdp=no ;;
        *) usage ;;
    esac
done

# Debian packages that are missing, because what they bring is.
packages=()
need() { # PACKAGE COMMAND
    command -v "$2" >/dev/null || packages+=("$1")
}

need_python() { # PACKAGE IMPORTS
    /usr/bin/python3 -c "$2" 2>/dev/null || packages+=("$1")
}

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; elif command -v sudo >/dev/null; then sudo -n "$@"; else return 1; fi
}

apt_install() {
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-remove --no-install-recommends "$@" >/dev/null
}

# Some packages bring a service. Its programs are wanted, not the service: nothing starts now or at the next boot.
services=(coturn postgresql prometheus redis-server)
policy=/usr/sbin/policy-rc.d
install_packages() {
    command -v apt-get >/dev/null || return 1
    local mine="" installed=0 service
    if [ ! -e $policy ] && printf '#!/bin/sh\nexit 101\n' | as_root tee $policy >/dev/null 2>&1; then
        mine=yes
        as_root chmod 755 $policy
    fi
    apt_install "$@" || { as_root apt-get update -qq && apt_install "$@"; } || installed=1
    [ -z "$mine" ] || as_root rm -f $policy
    for service in "${services[@]}"; do
        if [[ " $* " == *" $service "* ]] && [ $installed = 0 ]; then
            as_root env "DPKG_MAINTSCRIPT_PACKAGE=$service" deb-systemd-helper disable "$service.service" >/dev/null
            say "the service $service of the package stays off"
        fi
    done
    return $installed
}

# To link anything, and to compile the little C there is.
need gcc cc
[ -e /usr/include/stdlib.h ] || packages+=(libc6-dev)
# To link OpenSSL, for DTLS.
[ -e /usr/include/openssl/ssl.h ] || packages+=(libssl-dev)
need pkg-config pkg-config
# To fetch crates.
[ -e /etc/ssl/certs/ca-certificates.crt ] || packages+=(ca-certificates)
if [ "$purpose" = test ]; then
    need g++ c++
    need iproute2 ip
    need bpftool bpftool
    need ethtool ethtool
    need util-linux setpriv
    need coturn turnutils_uclient
    # Where users are kept. Debian keeps PostgreSQL's programs out of the way.
    [ -n "$(find /usr/lib/postgresql -name initdb 2>/dev/null)" ] || packages+=(postgresql)
    need redis-server redis-server
    # Writes what coturn reads from its database only.
    need sqlite3 sqlite3
    # Clients that are not ours: browsers, one of which trusts what certutil tells it, and those in Python.
    need chromium chromium
    need firefox-esr firefox-esr
    need libnss3-tools certutil
    need_python python3-venv "import ensurepip"
    need_python python3-gi "import gi"
    need_python gir1.2-nice-0.1 "import gi; gi.require_version('Nice', '0.1')"
    # Phones, and the NATs that they are behind.
    need baresip-core baresip
    need nftables nft
    # The name server of a fleet.
    need dnsmasq-base dnsmasq
    # Gives an image's file its capabilities.
    need libcap2-bin setcap
    need prometheus promtool
    # A clean host to install the package on, and who looks at its manual and at what is in it.
    need debootstrap debootstrap
    need lintian lintian
    need man-db man
    need mandoc mandoc
    need systemd systemd-analyze
    need zsh zsh
    need fish fish
    need openssl openssl
    need procps sysctl
    need jq jq
    need curl curl
    need shellcheck shellcheck
fi

if [ "$purpose" = bench ]; then
    need coturn turnserver
    need golang-go go
    [ -d /usr/share/gocode/src/github.com/pion/turn/v2 ] || packages+=(golang-github-pion-turn.v2-dev)
    [ -n "$(find /usr/lib/erlang/lib -maxdepth 1 -name 'p1_stun-*' 2>/dev/null)" ] || packages+=(erlang-p1-stun)
fi

failed=0
if [ ${#packages[@]} -gt 0 ]; then
    say "installing ${packages[*]}"
    if ! install_packages "${packages[@]}"; then
        echo "setup: missing: ${packages[*]}; install them as root: apt-get install ${packages[*]}" >&2
        failed=1
    fi
fi

if [ $xdp = yes ] && ! "$here/toolchain.sh"; then
    [ $failed = 1 ] || failed=3
fi

# Cargo's version, and the oldest that does.
oldest=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' "$here/../Cargo.toml")
cargo_version=$(cargo --version 2>/dev/null | sed -n 's/^cargo \([0-9.]*\).*/\1/p')
if [ -z "$cargo_version" ]; then
    echo "setup: missing: Rust $oldest or later; see https://rustup.rs" >&2
    failed=1
elif [ "$(printf '%s\n' "$oldest" "$cargo_version" | sort --version-sort | head -n 1)" != "$oldest" ]; then
    echo "setup: Rust $cargo_version is too old: $oldest or later is needed; see https://rustup.rs" >&2
    failed=1
elif [ "$purpose" = test ]; then
    for component in fmt clippy; do
        if ! cargo $component --version >/dev/null 2>&1; then
            say "installing $component with rustup"
            rustup component add "${component/fmt/rustfmt}" >/dev/null 2>&1 || {
                echo "setup: missing: cargo $component; install it with rustup" >&2
                failed=1
            }
        fi
    done
fi

if [ "$purpose" = test ] && ! "$here/package.sh" --prepare; then
    echo "setup: missing: cargo-deb, see above" >&2
    failed=1
fi

[ $failed != 0 ] || say "everything for '$purpose' is there"
exit $failed
