#!/usr/bin/env bash
# make fuzz-report: executions per second of each harness over 64-op inputs, what the
# corpus covers of src and hardening, which flipped bits verify reports, and the
# planted bugs. Writes build/fuzz/lines.json (lines the corpus executes) for mutants.py.
set -euo pipefail
cd "$(dirname "$0")/.."
plain=build/fuzz/plain/sgfuzz cov=build/fuzz/cov/sgfuzz
make -s -j"$(nproc)" fuzz-runners $cov

echo "== executions per second, plain, inputs of 64 ops"
work=$(mktemp -d)
trap 'rm -rf $work' EXIT
for harness in $($plain list); do
	[ -d corpus/$harness ] || continue
	mkdir "$work/$harness"
	fuzz/to64.py $harness corpus/$harness "$work/$harness"
	$plain run -n 3 $harness "$work/$harness"
done

echo "== coverage by the corpus alone"
rm -rf build/fuzz/prof
for harness in $($cov list); do
	for d in corpus/$harness corpus/regress/$harness; do
		[ -d $d ] || continue
		LLVM_PROFILE_FILE=build/fuzz/prof/$harness-%p.profraw $cov run $harness $d > /dev/null
	done
done
llvm-profdata merge -o build/fuzz/corpus.profdata build/fuzz/prof/*.profraw
llvm-cov report $cov -instr-profile=build/fuzz/corpus.profdata src hardening |
	awk 'NR < 3 || /^(src|hardening|TOTAL|[a-z_]+\.[ch])/'
llvm-cov export $cov -instr-profile=build/fuzz/corpus.profdata -format=lcov src hardening |
	fuzz/lines.py > build/fuzz/lines.json

echo "== bits whose flip verify reports"
$plain bits $(ls corpus/api/* | awk "NR <= 12")
