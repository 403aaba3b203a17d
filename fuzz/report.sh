#!/usr/bin/env bash
# make fuzz-report: executions per second of each harness over inputs of 64 ops, what
# the corpus covers of src and hardening, and which flipped bits verify reports.
# Writes build/fuzz/lines.json (lines the corpus executes) for mutants.py.
set -euo pipefail
cd "$(dirname "$0")/.."
plain=build/fuzz/plain/sgfuzz cov=build/fuzz/cov/sgfuzz
make -s -j"$(nproc)" fuzz-runners $cov
work=$(mktemp -d)
trap 'rm -rf $work' EXIT

# speed TITLE [--single]
speed() {
	echo "== executions per second, plain, inputs of 64 ops of the corpus, $1"
	for harness in $($plain list); do
		rm -rf "$work/in"
		mkdir "$work/in"
		fuzz/to64.py "${@:2}" "$harness" corpus/"$harness" "$work/in"
		$plain run -n 3 "$harness" "$work/in"
	done
}
speed "bursts made single calls, all checks at the end" --single
speed "as they are"

echo "== coverage by the corpus alone: file, lines, branches"
rm -rf build/fuzz/prof
for harness in $($cov list); do
	for d in corpus/$harness corpus/regress/$harness; do
		[ -d $d ] || continue
		LLVM_PROFILE_FILE=build/fuzz/prof/$harness-%p.profraw $cov run $harness $d > /dev/null
	done
done
llvm-profdata merge -o build/fuzz/corpus.profdata build/fuzz/prof/*.profraw
# covered TITLE FILE...: a row for the sum
covered() {
	printf '%-34s' "$1"
	llvm-cov report $cov -instr-profile=build/fuzz/corpus.profdata "${@:2}" |
		awk '$1 == "TOTAL" { print $10, $13 }'
}
llvm-cov report $cov -instr-profile=build/fuzz/corpus.profdata src hardening |
	awk '$1 ~ /\.[ch]$/ { printf "%-34s%s %s\n", $1, $10, $13 }'
mapfile -t tiers < <(ls src/m*.c src/lock.c src/persistentalloc.c | grep -v mksizeclasses)
covered "the tiers (${#tiers[@]} files)" "${tiers[@]}"
covered "... and verify" "${tiers[@]}" src/verify.c
covered "the rooms" hardening
covered "src and hardening" src hardening
llvm-cov export $cov -instr-profile=build/fuzz/corpus.profdata -format=lcov src hardening |
	fuzz/lines.py > build/fuzz/lines.json

echo "== bits whose flip verify reports"
$plain bits $(ls corpus/api/* | awk "NR <= 12")
