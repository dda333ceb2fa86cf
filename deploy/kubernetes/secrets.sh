#!/bin/sh
# Makes the secrets of an overlay, random ones, and keeps those that are there:
#
#   deploy/kubernetes/secrets.sh FOLDER [USER-STORE-URL]
#
# They are files in FOLDER/secrets. Whoever has them can relay: keep them out of version control.
set -eu

if [ ! -f "${1-}/kustomization.yaml" ] || [ $# -gt 2 ] || [ -z "${2-none}" ]; then
    echo "usage: $0 FOLDER-OF-AN-OVERLAY [redis://:PASSWORD@HOST:PORT/NUMBER|postgres://USER:PASSWORD@HOST:PORT/DATABASE]" >&2
    exit 2
fi
umask 077
mkdir -p "$1/secrets"
CDPATH="" cd "$1/secrets"
for file in auth-secrets admin-tokens nonce-keys; do
    [ -s $file ] || head -c 32 /dev/urandom | base64 > $file
done
if [ $# = 2 ]; then
    printf "%s\n" "$2" > user-stores
fi
