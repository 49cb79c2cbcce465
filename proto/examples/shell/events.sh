#!/bin/sh
# What happens while a model answers, for programs without gRPC: sh events.sh [PROMPT] [MODEL]
# One JSON document a line, named as in proto/gemd/v1: the last is `finished` or `error`, and the
# exit code is 1 then.
set -u
prompt=${1:-What is the capital of France?}
model=${2:-smollm2-135m}

printf '%s' "$prompt" | gemctl run --json --stream --model "$model" - |
    while IFS= read -r line; do
        case $line in
        '{"loading"'*) echo "loading" ;;
        '{"delta"'*) printf 'text: %s\n' "$line" ;;
        '{"error"'*) printf 'failed: %s\n' "$line"; exit 1 ;;
        '{"finished"'*) echo "finished" ;;
        esac
    done
