# fuzz-engines.sh - one harness on one engine; read by ci/fuzz-smoke and ci/fuzz-nightly.

# In a subshell or in the background: it becomes the fuzzer, so that a kill reaches it.
# The limit is for a fuzzer that hangs; -t 10000+: a slow seed is left out, not fatal.
engine_afl() { # HARNESS EXE SEEDS OUT SECONDS LOG ARGUMENTS...
	local harness=$1 exe=$2 seeds=$3 to=$4 time=$5 log=$6 mutator=build/fuzz/afl/sgf_mutator.so
	shift 6
	case $harness in sched | opts) mutator= ;; esac         # their inputs are not ops
	exec env AFL_SKIP_CPUFREQ=1 AFL_I_DONT_CARE_ABOUT_MISSING_CRASHES=1 AFL_NO_UI=1 AFL_NO_AFFINITY=1 \
		${mutator:+AFL_CUSTOM_MUTATOR_LIBRARY=$mutator} timeout -k 10 $((time * 2 + 600)) \
		afl-fuzz -V "$time" -t 10000+ "$@" -i "$seeds" -o "$to" -- "$exe" > "$log" 2>&1
}

afl_stat() { # STATS NAME
	sed -n "s/^$2 *: *//p" "$1"
}

# Prints how many runs it made; what is new goes to OUT/new/HARNESS.
engine_libfuzzer() { # HARNESS EXE OUT SECONDS LOG ARGUMENTS...
	local harness=$1 exe=$2 to=$3 time=$4 log=$5
	shift 5
	mkdir -p "$to/new/$harness"
	ASAN_OPTIONS=detect_leaks=0 "$exe" -max_total_time="$time" -max_len=1040 -timeout=120 \
		-artifact_prefix="$to/$harness-" "$@" "$to/new/$harness" corpus/"$harness" > "$log" 2>&1 ||
		{ tail -n 30 "$log" >&2; return 1; }
	sed -n 's/^Done \([0-9]*\) runs.*/\1/p' "$log"
}
