#!/usr/bin/env bash
# Checks everything: format, lints, documentation, scripts, licences, and every test, those in network namespaces with a
# real kernel included. Installs what is missing. The last line counts; the exit code is 0 only when nothing failed.
#
# Everything is built in one profile (dev), which clippy, documentation and tests share, so that no dependency is
# compiled twice. The root manifest optimises it a little, as the lab sends more packets than unoptimised code can.

# shellcheck disable=SC2317 # The checks are called by their names.
set -u -o pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
PATH=${CARGO_HOME:-${HOME:?HOME is not set}/.cargo}/bin:$PATH:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH
cd "$root" || exit 1

# What a developer has set for a relay or a build of their own is not for the tests.
while read -r variable; do
    unset "$variable"
done < <(compgen -e HAIRPIN_)
unset RUSTFLAGS
# Here everything is installed: what is missing is a failure.
export HAIRPIN_REQUIRE_ALL=1
export CARGO_TERM_COLOR=never

# Fewer tests than this are not all of them: a target that cargo no longer finds would not be missed otherwise.
least=300

passed=0 failed=0 failures=() skipped=()

# Runs one check and counts it.
check() { # NAME COMMAND...
    local name=$1 start=$SECONDS
    shift
    echo "=== $name"
    if "$@"; then
        passed=$((passed + 1))
        echo "--- $name: ok, $((SECONDS - start)) s"
    else
        failed=$((failed + 1))
        failures+=("$name")
        echo "--- $name: FAILED, $((SECONDS - start)) s"
    fi
}

finish() {
    local failure skip
    for failure in "${failures[@]}"; do
        echo "failed: $failure"
    done
    for skip in "${skipped[@]}"; do
        echo "$skip"
    done
    echo "$passed passed, $failed failed, in $SECONDS s"
    [ $failed = 0 ]
    exit
}

# What a test would need to be skipped for is not there: that is a failure, said once.
able() {
    [ "$(id -u)" = 0 ] || { echo "the lab and the kernel path need root" && return 1; }
    [ -e /sys/kernel/btf/vmlinux ] || { echo "this kernel has no BTF" && return 1; }
    unshare --net true || { echo "no network namespaces here" && return 1; }
}

format() {
    cargo fmt --all --check && cargo fmt --manifest-path relay-ebpf/Cargo.toml --check &&
        cargo fmt --manifest-path tests/fuzz/Cargo.toml --check
}

lint() {
    cargo clippy --locked --workspace --all-targets -- -D warnings &&
        cargo clippy --locked --package hairpin --no-default-features --all-targets -- -D warnings
}

document() {
    # Whoever reads the documentation of a daemon works on it: private items have theirs, too.
    RUSTDOCFLAGS="-D warnings -A rustdoc::private_intra_doc_links" cargo doc --locked --workspace --no-deps --document-private-items
}

scripts() {
    local script
    for script in deploy/*.sh deploy/*/*.sh tests/*.sh .ci/run; do
        [ -x "$script" ] || { echo "$script is not executable" && return 1; }
    done
    shellcheck deploy/*.sh deploy/*/*.sh deploy/debian/post* tests/*.sh .ci/run
}

# Each licence expression is made of `A OR B AND (C)`: every part that AND joins needs one that is allowed. cargo-deny
# does it properly where it is installed; compiling it takes longer than all of the tests.
licences() {
    if cargo deny --version >/dev/null 2>&1; then
        cargo deny --locked check licenses bans sources
        return
    fi
    local manifest allowed refused host
    host=$(rustc -vV | sed -n 's/^host: //p')
    allowed=$(sed -n '/^allow = \[/,/^\]/s/^ *"\(.*\)",$/\1/p' deny.toml | jq -R . | jq -s .)
    for manifest in Cargo.toml relay-ebpf/Cargo.toml; do
        refused=$(cargo metadata --locked --format-version 1 --filter-platform "$host" --manifest-path "$manifest" |
            jq -r --argjson allowed "$allowed" '
                .packages[]
                | (.license // "none" | gsub(" */ *"; " OR ") | gsub("[()]"; "")) as $licence
                | select([$licence | split(" AND ")[]
                    | any(split(" OR ")[]; IN($allowed[]))] | all | not)
                | "\(.name) \(.version): \(.license)"') || return 1
        [ -z "$refused" ] || { echo "deny.toml does not allow the licences of:"; echo "$refused"; return 1; }
    done
}

build() {
    cargo build --locked --workspace
}

# Each target for a short while, from its corpus. A host that cannot do it says so; that is no failure.
fuzz() {
    local log status
    log=$(mktemp)
    tests/fuzz.sh 20 2>&1 | tee "$log"
    status=${PIPESTATUS[0]}
    if [ "$status" = 3 ]; then
        skipped+=("$(tail -n 1 "$log")")
        status=0
    fi
    rm -f "$log"
    return "$status"
}

# All tests of all crates; each counts for itself.
tests() {
    local log status name
    log=$(mktemp)
    cargo test --locked --workspace --no-fail-fast -- --show-output 2>&1 | tee "$log"
    status=${PIPESTATUS[0]}
    local sums
    sums=$(awk '/^test result:/ { passed += $4; failed += $6; ignored += $8 } END { print passed + 0, failed + 0, ignored + 0 }' "$log")
    local ok bad ignored
    read -r ok bad ignored <<<"$sums"
    passed=$((passed + ok)) failed=$((failed + bad))
    while read -r name; do failures+=("$name"); done < <(sed -n 's/^test \(.*\) \.\.\. FAILED$/\1/p' "$log")
    # A test that this kernel is no match for says so. It counts as passed, but not in silence.
    mapfile -t skipped < <(sed -n "s/^skipped[:,].*/&/p" "$log" | sort | uniq -c | sed "s/^ *//")
    rm -f "$log"
    [ $((ok + bad)) -ge "$least" ] || { echo "only $((ok + bad)) tests ran, of at least $least" && return 1; }
    [ "$ignored" = 0 ] || { echo "$ignored tests are ignored: a test that is not run proves nothing" && return 1; }
    [ "$status" = 0 ]
}

check setup deploy/setup.sh test
check "root and BPF" able
[ $failed = 0 ] || finish
check format format
check scripts scripts
check licences licences
check lints lint
check documentation document
check build build
check fuzz fuzz
check tests tests
finish
