#!/bin/bash -eu
# Builds every harness for the engine at hand. Nothing is used but $CC $CFLAGS $CXX
# $CXXFLAGS $LIB_FUZZING_ENGINE $SRC $WORK $OUT, and make to tell the lists of files.
# Into $OUT: fuzz_NAME, its seed corpus, its options, a dictionary for the options.
#
# H8 is not among them: its tiers are linked in a way of their own (fuzz/sched/).
#
# No comparison is traced: the mutator does not use that, and libFuzzer keeps what was
# compared in tables of its own, which are roots as any data is: a mark would find there
# the pointers that it had looked at itself (H15, H16, H19).
cd "$SRC/spanguard"
list() { make -s sched-print NAME="$1"; }

flags=(-fno-sanitize-coverage=trace-cmp -std=gnu11 -fPIC -fexceptions
	-DSPANGUARD_TEST_BUILD=1 -DSPANGUARD_LOCK_CHECKS=1 -DSPANGUARD_FUZZ=1 -iquote src -iquote tests -iquote fuzz)
objects=()
compile() { # SOURCE OBJECT FLAGS...
	local source=$1 object=$WORK/$2
	shift 2
	mkdir -p "$(dirname "$object")"
	$CC $CFLAGS "${flags[@]}" "$@" -c "$source" -o "$object"
}
simulated=" $(list SIM_SRC) "
for source in $(list FUZZ_TIER_SRC) $(list FUZZ_SUPPORT_SRC) $(list FUZZ_SRC); do
	include=()
	[[ $simulated != *" $source "* ]] || include=(-include fuzz/simlibc.h)
	compile "$source" "${source%.c}.o" "${include[@]}"
	objects+=("$WORK/${source%.c}.o")
done
compile src/export_libc.c src/export_libc.o -include fuzz/rename.h
compile src/report.c src/report.o -include fuzz/simreport.h
objects+=("$WORK/src/export_libc.o" "$WORK/src/report.o")

for name in $(list FUZZ_TARGETS); do
	compile fuzz/target.c "target_$name.o" -DSG_HARNESS="$name"
	# H16 and H18 look their own functions up by name
	$CXX $CXXFLAGS "$WORK/target_$name.o" "${objects[@]}" $LIB_FUZZING_ENGINE -pthread -rdynamic -lm \
		-o "$OUT/fuzz_$name"
	rm -f "$OUT/fuzz_${name}_seed_corpus.zip"
	zip -jq "$OUT/fuzz_${name}_seed_corpus.zip" corpus/"$name"/*
	printf '[libfuzzer]\nmax_len = 1040\n[asan]\ndetect_leaks = 0\n' > "$OUT/fuzz_$name.options"
done
# names and choices of the options
sed -nE 's/^OPTION\(([a-z0-9_]+),.*/"\1="/p; s/^CHOICE\([a-z0-9_]+, [A-Z0-9_]+, [0-9]+, ("[^"]*")\).*/\1/p' \
	src/options.def | sort -u > "$OUT/fuzz_opts.dict"
