#!/usr/bin/env bash
# make fuzz-ops: very many random operations without a bug in them (fuzz/random.c): no
# oracle may fail and the allocator may report nothing. In rounds of ten million, each
# with the next seed, over the harnesses below; stopped early it still prints what it has
# done.
#
# usage: fuzz/ops.sh [OPERATIONS [FIRST_SEED]]     1000000000, 1
# Status 0: so many, and nothing was found. build/fuzz-ops/log has each round.
set -euo pipefail
cd "$(dirname "$0")/.."
want=${1:-1000000000} seed=${2:-1}
tool=build/fuzz/plain/sgfuzz out=build/fuzz-ops
# millions of a round; all five modes of one program count in diff
shares="span:7.0 pages:1.3 central:0.7 api:0.5 scav:0.3 diff:0.2"
make -s -j"$(nproc)" $tool
rm -rf $out
mkdir -p $out
cp $tool $out/sgfuzz                     # what is built meanwhile is another tool
sums() {
	awk '{ sub(":", "", $1); n[$1] += $4; all += $4; inputs[$1] += $7 }
		END { for (h in n) printf "%-8s %12d operations, %9d inputs\n", h, n[h], inputs[h]
		printf "%-8s %12d operations\n", "all", all }' $out/log
}
trap sums EXIT
for ((done = 0; done < want; done += 10000000, seed++)); do
	for share in $shares; do
		millions=${share#*:}
		(cd $out && ./sgfuzz random -n "${millions/./}00000" -s "$seed" "${share%:*}" >> log)
	done
done
echo "no report in any of them:"
