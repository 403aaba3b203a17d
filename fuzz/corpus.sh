#!/usr/bin/env bash
# Brings inputs into the corpus, minimised: corpus/HARNESS keeps what it has and
# takes of the given directories what reaches code it does not reach yet.
# usage: fuzz/corpus.sh HARNESS DIR...
set -euo pipefail
cd "$(dirname "$0")/.."
harness=$1
shift
exe=build/fuzz/libfuzzer/fuzz_$harness
mkdir -p "corpus/$harness"
"$exe" -merge=1 -max_len=1040 "corpus/$harness" "$@" 2>&1 | tail -n 1
du -sh "corpus/$harness"
