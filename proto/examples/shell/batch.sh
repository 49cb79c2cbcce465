#!/bin/sh
# A file of prompts in the background: sh batch.sh [MODEL]
# The same command once more goes on where the last one ended, also after a kill.
set -eu
model=${1:-smollm2-135m}
folder=$(mktemp -d)
trap 'rm -r "$folder"' EXIT

for country in France Italy Japan; do
    printf '{"id": "%s", "prompt": "What is the capital of %s?"}\n' "$country" "$country"
done > "$folder/jobs.jsonl"

gemctl batch "$folder/jobs.jsonl" --model "$model" --out "$folder/answers.jsonl"
cat "$folder/answers.jsonl"
