#!/bin/sh
# Prints the rules and alerts of deploy/prometheus as a PrometheusRule of the Prometheus Operator:
#
#   deploy/kubernetes/rules.sh | kubectl apply --namespace hairpin --filename -
set -eu

cd "$(dirname "$0")/../prometheus"
for file in hairpin.recording.yml hairpin.alerts.yml; do
    cat << HEAD
---
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: $(basename "$file" .yml | tr . -)
spec:
HEAD
    sed 's/^./  &/' "$file"
done
