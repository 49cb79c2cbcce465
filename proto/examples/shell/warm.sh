#!/bin/sh
# A model that stays warm for a job of several calls: sh warm.sh [MODEL]
set -eu
model=${1:-smollm2-135m}

gemctl load "$model"
# The lease ends by itself after ten minutes, should this script be killed.
lease=$(gemctl lease "$model" --ttl 10m --json | sed -n 's/^ *"name": "\(leases\/[^"]*\)".*/\1/p')
trap 'gemctl lease --release "$lease"' EXIT

for country in France Italy Japan; do
    gemctl run --model "$model" --temperature 0 "What is the capital of $country?"
done
