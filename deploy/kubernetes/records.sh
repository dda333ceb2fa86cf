#!/bin/sh
# Prints DNS records of the nodes with relays, as lines of a zone file (RFC 5928 section 5):
#
#   kubectl get nodes --selector hairpin=relay --output json | deploy/kubernetes/records.sh turn.example.org
#
# A node without an external address is named by its internal one.
set -eu

if [ $# != 1 ]; then
    echo "usage: $0 DOMAIN < NODES-AS-JSON" >&2
    exit 2
fi
jq --raw-output --exit-status --arg domain "$1" '
    def addresses($kind): [.status.addresses[] | select(.type == $kind) | .address];
    (.items | if length == 0 then error("no node is labelled hairpin=relay") else .[] end)
    | "\(.metadata.name | split(".")[0]).\($domain)." as $host
    | (addresses("ExternalIP") | if length > 0 then . else empty end) // addresses("InternalIP")
    | (.[] | "\($host) 60 IN \(if contains(":") then "AAAA" else "A" end) \(.)"),
      (("_stun._udp", "_turn._udp", "_turn._tcp") | "\(.).\($domain). 60 IN SRV 10 10 3478 \($host)")
'
