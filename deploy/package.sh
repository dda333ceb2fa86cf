#!/usr/bin/env bash
# Makes a Debian package of Hairpin: `deploy/package.sh [--program FILE] [options of cargo deb]`.
#
#   --program FILE  builds nothing, and packs this program
#   --prepare       makes nothing, but sure that cargo-deb is there
#
# The rest is for cargo deb: `--output DIR`, `--deb-version VERSION`, `--fast`. The last line names the package. The manual
# and the completions in it are written by the program itself. cargo-deb is built into the user's cache folder, where it is
# missing, and deploy/setup.sh is run before the program is built.
set -eu

deb_version=3.8.0

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
PATH=${CARGO_HOME:-${HOME:?HOME is not set}/.cargo}/bin:$PATH:/usr/local/bin:/usr/bin:/bin
export PATH
cache=${XDG_CACHE_HOME:-$HOME/.cache}/hairpin/deb
program='' prepare=no
rest=()
while [ $# -gt 0 ]; do
    case $1 in
        --program)
            program=$(realpath -e -- "${2:?--program needs a file}")
            shift
            ;;
        --prepare) prepare=yes ;;
        *) rest+=("$1") ;;
    esac
    shift
done

say() { echo "package: $*" >&2; }

if [ -z "$program" ] && [ $prepare = no ]; then
    # It says what is missing. A package without the XDP program would not be what it says.
    "$root/deploy/setup.sh" run >&2 || exit 1
fi

# Leaves it in `deb`.
find_deb() {
    deb=$(command -v cargo-deb || true)
    [ -n "$deb" ] || deb=$cache/bin/cargo-deb
    [ "$("$deb" --version 2>/dev/null)" = "cargo-deb $deb_version" ]
}

if ! find_deb; then
    say "building cargo-deb $deb_version into $cache (some minutes, once)"
    env -u RUSTFLAGS -u CARGO_ENCODED_RUSTFLAGS CARGO_TARGET_DIR="$cache/target" cargo install cargo-deb \
        --version $deb_version --locked --no-default-features --features lzma --root "$cache" >&2
    rm -rf "$cache/target"
    deb=$cache/bin/cargo-deb
fi
[ $prepare = no ] || exit 0

cd "$root"
target=${CARGO_TARGET_DIR:-$root/target}
if [ -z "$program" ]; then
    cargo build --locked --package hairpin --release >&2
    program=$(realpath "$target/release/hairpin")
fi

# What the program says of itself. The manifest names this folder by its place beside it, wherever programs are built; the
# program is where cargo deb looks for what is built, once it is told that this is the target folder.
made=$root/target/package
rm -rf "$made"
mkdir -p "$made/completions" "$made/release"
ln -s "$program" "$made/release/hairpin"
"$program" manual "$made/man"
"$program" completions bash >"$made/completions/hairpin.bash"
"$program" completions zsh >"$made/completions/_hairpin"
"$program" completions fish >"$made/completions/hairpin.fish"

# Where the package goes and which version it has, unless that is said.
output=(--output "$target/debian/")
version=$("$program" --version | sed -n '1s/^hairpin \([^ ]*\).*/\1/p')-1
for ((i = 0; i < ${#rest[@]}; i++)); do
    case ${rest[i]} in
        --deb-version) version=${rest[i + 1]:?--deb-version needs a version} ;;
        --deb-version=*) version=${rest[i]#*=} ;;
        --output | --output=* | -o) output=() ;;
    esac
done
# The last commit, so that the same sources make the same package.
: "${SOURCE_DATE_EPOCH:=$(git log -1 --format=%ct 2>/dev/null || date +%s)}"
export SOURCE_DATE_EPOCH
cat >"$made/changelog" <<END
hairpin ($version) unstable; urgency=medium

  * Release of Hairpin; what has changed is in its CHANGELOG.md.

 -- The Hairpin authors <hairpin-relay@users.noreply.github.com>  $(date --utc --rfc-email --date "@$SOURCE_DATE_EPOCH")
END

export CARGO_TARGET_DIR="$made"
# The lines of its source, which the profile keeps, have no place in a package of Debian.
exec "$deb" --no-build --quiet --strip --manifest-path relay-userspace/Cargo.toml "${output[@]}" "${rest[@]}"
