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

# speed TITLE [--single]: each input `times` in a row, all of them in `rounds`
times=10 rounds=1
speed() {
	echo "== executions per second, plain, inputs of 64 ops of the corpus, $1"
	for harness in $($plain list); do
		rm -rf "$work/in"
		mkdir "$work/in"
		fuzz/to64.py "${@:2}" "$harness" corpus/"$harness" "$work/in"
		$plain run -n "$times" "$harness" $(yes "$work/in" | head -n "$rounds")
	done
}
speed "bursts made single calls, all checks at the end" --single
speed "as they are"
times=1 rounds=10
speed "single calls, each input after another, as in fuzzing" --single

echo "== coverage by the corpus alone: file, lines, branches"
rm -rf build/fuzz/prof
for harness in $($plain list); do
	for d in corpus/$harness corpus/regress/$harness; do
		[ -d $d ] || continue
		LLVM_PROFILE_FILE=build/fuzz/prof/$harness-%p.profraw $cov run $harness $d > /dev/null
	done
done
# H8 is a program of its own, from the same sources: its inputs, and its litmus programs
flags="-O1 -g -fprofile-instr-generate -fcoverage-mapping"
h8=build/fuzz/covsched/sched/h8
make -s BUILD=build/fuzz/covsched SCHED_CC=clang SCHED_FLAGS="$flags" $h8
rm -rf build/fuzz/prof8
LLVM_PROFILE_FILE=build/fuzz/prof8/a.profraw $h8 --input corpus/sched > /dev/null
LLVM_PROFILE_FILE=build/fuzz/prof8/b.profraw $h8 --max=400 > /dev/null
# export_lcov NAME PROGRAM PROFILES: what they executed, as lcov
export_lcov() {
	llvm-profdata merge -o "$work/$1.profdata" "${@:3}"
	llvm-cov export "$2" -instr-profile="$work/$1.profdata" -format=lcov src hardening > "$work/$1.lcov"
}
export_lcov all $cov build/fuzz/prof/*.profraw
export_lcov h8 $h8 build/fuzz/prof8/*.profraw
fuzz/lines.py build/fuzz/lines.json "$work/all.lcov" "$work/h8.lcov"

echo "== bits whose flip verify reports"
$plain bits $(ls corpus/api/* | awk "NR <= 12")
