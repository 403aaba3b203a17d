#!/usr/bin/env bash
# Stress, in all modes: tests/stress/run.sh [SECONDS], 600 by default, shared
# evenly among the modes, which run one after the other. Exit 1 at a failure.
set -euo pipefail
cd "$(dirname "$0")/../.."
seconds=${1:-600}
lib=$(realpath "${SPANGUARD_LIB:-build/libspanguard.so}")
modes=(mode=hardened mode=plain mode=strict mode=hardened:scavenge=background mode=hardened:guards=mprotect
	mode=strict:guards=mprotect mode=hardened:quarantine=mark mode=strict:quarantine=mark
	mode=strict:quarantine=mark:guards=mprotect)
[ -e "$lib" ] || { echo "stress: $lib is not there: run make" >&2; exit 1; }

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
gcc -O2 -pthread -o "$scratch/stress" tests/stress/stress.c
each=$((seconds / ${#modes[@]}))
[ "$each" -gt 0 ] || each=1
status=0
for mode in "${modes[@]}"; do
	echo "== $mode, $each s"
	if LD_PRELOAD=$lib SPANGUARD_OPTIONS=$mode timeout --signal=KILL $((each + 120)) \
		"$scratch/stress" "$each" "$RANDOM"; then
		echo "ok"
	else
		echo "FAILED with status $?"
		status=1
	fi
done
exit $status
