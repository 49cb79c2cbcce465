#!/bin/sh
# One answer in a script: sh ask.sh PROMPT [MODEL]
# The answer, and nothing else, is on standard output; the exit code says what went wrong.
set -u
prompt=${1:-What is the capital of France?}
model=${2:-smollm2-135m}

answer=$(gemctl run --model "$model" --deadline 120 "$prompt")
case $? in
0) printf 'the model says: %s\n' "$answer" ;;
3) echo "no daemon, and none may be started" >&2; exit 3 ;;
4) echo "no such model: see gemctl list" >&2; exit 4 ;;
5) echo "it does not fit now: see gemctl status" >&2; exit 5 ;;
124) echo "no answer within two minutes" >&2; exit 124 ;;
*) exit 1 ;;
esac
