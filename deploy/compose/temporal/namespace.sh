#!/bin/sh
# The namespace with its retention, and HotSwap's search attributes. TEMPORAL_* say where. Repeats change nothing.
set -eu
wait_for() { # what it is called, then the command
  what="$1"
  shift
  attempt=0
  until "$@" >/dev/null 2>&1; do
    attempt=$((attempt + 1))
    if [ "$attempt" -ge 60 ]; then
      echo "Temporal at $TEMPORAL_ADDRESS: $what is not there after a minute and more" >&2
      exit 1
    fi
    sleep 1
  done
}

wait_for "a healthy server" temporal operator cluster health
temporal operator namespace describe --namespace "$TEMPORAL_NAMESPACE" >/dev/null 2>&1 ||
  temporal operator namespace create --namespace "$TEMPORAL_NAMESPACE" --retention "$RETENTION"
# A server learns of a new namespace by its cache's beat: up to 10 s.
wait_for "the new namespace" temporal operator search-attribute list --namespace "$TEMPORAL_NAMESPACE"
known="$(temporal operator search-attribute list --namespace "$TEMPORAL_NAMESPACE")"
for name in HotSwapPlugin HotSwapVersion HotSwapEnvironment HotSwapStrategy HotSwapStatus HotSwapDeployment HotSwapPipeline; do
  if ! printf '%s\n' "$known" | grep -qw "$name"; then
    temporal operator search-attribute create --namespace "$TEMPORAL_NAMESPACE" --name "$name" --type Keyword
  fi
done
