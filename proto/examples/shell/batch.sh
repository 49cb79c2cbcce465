#!/bin/sh
# A file of prompts in the background: sh batch.sh [MODEL] [FOLDER]
# With the same FOLDER it goes on where it ended, also after a kill; without one nothing is kept.
set -eu
model=${1:-smollm2-135m}
folder=${2:-}
if [ -z "$folder" ]; then
    folder=$(mktemp -d)
    trap 'rm -r "$folder"' EXIT
fi
mkdir -p "$folder"

for country in France Italy Japan; do
    printf '{"id": "%s", "prompt": "What is the capital of %s?"}\n' "$country" "$country"
done > "$folder/jobs.jsonl"

gemctl batch "$folder/jobs.jsonl" --model "$model" --out "$folder/answers.jsonl"
cat "$folder/answers.jsonl"
