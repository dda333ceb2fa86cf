#!/usr/bin/env bash
# Makes a Debian package of Hairpin: `deploy/package.sh [--no-build] [--debug] [options of cargo deb]`.
#
#   --no-build  takes the program that is built already
#   --debug     takes the dev profile instead of release
#   --prepare   makes nothing, but sure that cargo-deb is there
#
# The rest is for cargo deb: `--output DIR`, `--deb-version VERSION`, `--fast`. The last line names the package. The manual
# and the completions in it are written by the program itself. cargo-deb is built into the user's cache folder, where it is
# missing. Building takes what deploy/setup.sh installs.
set -eu

deb_version=3.8.0

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
PATH=${CARGO_HOME:-${HOME:?HOME is not set}/.cargo}/bin:$PATH:/usr/local/bin:/usr/bin:/bin
export PATH
cache=${XDG_CACHE_HOME:-$HOME/.cache}/hairpin/deb
build=yes prepare=no profile=release folder=release
rest=()
for argument; do
    case $argument in
        --no-build) build=no ;;
        --debug) profile=dev folder=debug ;;
        --prepare) prepare=yes ;;
        *) rest+=("$argument") ;;
    esac
done

say() { echo "package: $*" >&2; }

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
[ $build = no ] || cargo build --locked --package hairpin --profile $profile >&2

# What the program says of itself. The manifest looks for it here, wherever programs are built.
hairpin=$target/$folder/hairpin made=$root/target/package
rm -rf "$made"
mkdir -p "$made/completions"
"$hairpin" manual "$made/man"
"$hairpin" completions bash >"$made/completions/hairpin.bash"
"$hairpin" completions zsh >"$made/completions/_hairpin"
"$hairpin" completions fish >"$made/completions/hairpin.fish"

# The version of the package, and when: the last commit, so that the same sources make the same package.
version=$("$hairpin" --version | sed -n '1s/^hairpin \([^ ]*\).*/\1/p')-1
for ((i = 0; i < ${#rest[@]}; i++)); do
    case ${rest[i]} in
        --deb-version) version=${rest[i + 1]:?--deb-version needs a version} ;;
        --deb-version=*) version=${rest[i]#*=} ;;
    esac
done
: "${SOURCE_DATE_EPOCH:=$(git log -1 --format=%ct 2>/dev/null || date +%s)}"
export SOURCE_DATE_EPOCH
cat >"$made/changelog" <<END
hairpin ($version) unstable; urgency=medium

  * Release of Hairpin; what has changed is in its CHANGELOG.md.

 -- The Hairpin authors <hairpin-relay@users.noreply.github.com>  $(date --utc --rfc-email --date "@$SOURCE_DATE_EPOCH")
END

exec "$deb" --no-build --quiet --profile $profile --manifest-path "$root/relay-userspace/Cargo.toml" "${rest[@]}"
