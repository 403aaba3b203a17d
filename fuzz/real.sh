#!/usr/bin/env bash
# H13: inputs with real threads, forks and signals under the preloaded library, in
# every mode. usage: fuzz/real.sh [FILE...], by default corpus/real. Status 0: all passed.
set -uo pipefail
cd "$(dirname "$0")/.."
[ $# -gt 0 ] || set -- corpus/real/*
lib=${SPANGUARD_LIB:-$PWD/build/libspanguard.so}
ran=0 failed=0
for file; do
	for options in mode=plain mode=hardened:sample=50 mode=strict \
		mode=hardened:scavenge=background:verify_every=64; do
		out=$(SPANGUARD_OPTIONS=$options LD_PRELOAD=$lib build/fuzz/real "$file" 2>&1)
		status=$?
		ran=$((ran + 1))
		[ $status = 0 ] && continue
		failed=$((failed + 1))
		printf '%s with %s: status %s\n%s\n' "$file" "$options" $status "$out" | head -n 20
	done
done
echo "real: $((ran - failed)) of $ran runs passed"
[ $failed = 0 ] && [ $ran -gt 0 ]
