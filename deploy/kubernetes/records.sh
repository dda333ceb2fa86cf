#!/bin/sh
# Prints DNS records of the nodes with relays, as lines of a zone file (RFC 5928 section 5):
#
#   kubectl get nodes --selector hairpin=relay --output json | deploy/kubernetes/records.sh turn.example.org
#
# A node without an external address is named by its internal one.
set -eu

domain=${1-}
domain=${domain%.}
if [ $# != 1 ] || [ -z "$domain" ]; then
    echo "usage: $0 DOMAIN < NODES-AS-JSON" >&2
    exit 2
fi
jq --slurp --raw-output --exit-status --arg domain "$domain" '
    def addresses($kind): [.status.addresses[] | select(.type == $kind) | .address];
    [.[] | .items[]] as $nodes
    | if $nodes == [] then error("no node is labelled hairpin=relay") else . end
    | [$nodes[] | .metadata.name | split(".")[0]] as $names
    | if ($names | unique | length) < ($names | length) then error("nodes with the same first label") else . end
    | $nodes[]
    | "\(.metadata.name | split(".")[0]).\($domain)." as $host
    | (addresses("ExternalIP") | if length > 0 then . else empty end) // addresses("InternalIP")
    | if . == [] then error("\($host) has no address") else . end
    | (.[] | "\($host) 60 IN \(if contains(":") then "AAAA" else "A" end) \(.)"),
      (("_stun._udp", "_turn._udp", "_turn._tcp") | "\(.).\($domain). 60 IN SRV 10 10 3478 \($host)")
'
