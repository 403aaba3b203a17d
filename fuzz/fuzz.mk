# fuzz.mk - the fuzz targets: every harness for libFuzzer, for AFL++, and in one
# tool that needs no engine. See doc/fuzzing.md.
#
#   build/fuzz/libfuzzer/fuzz_<name>     clang -fsanitize=fuzzer,address,undefined;
#                                        fuzz_check without the sanitizers
#   build/fuzz/afl/fuzz_<name>           afl-clang-fast, persistent (libAFLDriver)
#   build/fuzz/plain/sgfuzz              the tool of sgfuzz.c: replay; gcc -O2
#   build/fuzz/asan/sgfuzz               clang, ASan and UBSan, no engine
#   build/fuzz/cov/sgfuzz                clang, source coverage
#   build/fuzz/edges/sgfuzz              clang, edge counters: sgfuzz stable
#   build/fuzz/edges/fuzz_<name>         libFuzzer without sanitizers
#
# The tiers are all there but report.c's die() and sys_linux.c's system, for which
# tests/fake_die.c and tests/fake_sys.c stand in. export_libc.c is compiled under
# other names (fuzz/rename.h).

HARNESSES = $(shell sed -n 's/^HARNESS(\([a-z0-9_]*\))$$/\1/p' fuzz/harnesses.def)
FUZZ_TARGETS = $(filter-out $(FUZZ_OWN_LINK),$(HARNESSES))
FUZZ_TIER_SRC = $(filter-out src/report.c src/sys_linux.c,$(TIER_SRC)) src/export_spanguard.c
# what faces the process: over the process of fuzz/sim.c (H20); report.c by other names
SIM_SRC = src/log.c src/print.c src/options.c src/procmap.c src/dynsym.c src/proc.c \
	hardening/fault.c hardening/valgrind.c hardening/markreport.c hardening/profile.c src/peek.c src/facts.c src/lock.c \
	src/unwind.c src/callstack.c
FUZZ_SUPPORT_SRC = tests/fake_sys.c tests/fake_die.c tests/naive_pages.c
FUZZ_SRC = $(filter-out fuzz/target.c fuzz/sgfuzz.c fuzz/min.c fuzz/toc.c fuzz/stable.c fuzz/random.c fuzz/afl_mutator.c fuzz/h13_real.c,$(wildcard fuzz/*.c))
FUZZ_CFLAGS = -std=gnu11 -fPIC -fvisibility=hidden -fexceptions -MMD -MP $(WARN) \
	-DSPANGUARD_TEST_BUILD=1 -DSPANGUARD_LOCK_CHECKS=1 -DSPANGUARD_FUZZ=1 \
	-iquote src -iquote tests -iquote fuzz

FUZZ_VARIANTS = libfuzzer afl plain asan cov edges
# the list is no header: ccache must be told of it
FUZZ_CC_libfuzzer = CCACHE_EXTRAFILES=$(CURDIR)/fuzz/nocov.txt $(CLANG)
FUZZ_CC_afl = AFL_QUIET=1 AFL_LLVM_DENYLIST=$(CURDIR)/fuzz/nocov.txt afl-clang-fast
FUZZ_CC_plain = $(CC)
FUZZ_CC_asan = $(CLANG)
FUZZ_CC_cov = $(CLANG)
FUZZ_CC_edges = $(FUZZ_CC_libfuzzer)
FUZZ_SAN = -O2 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all
# no traces of comparisons: the mutator does not use them, and they cost half the speed
FUZZ_COUNTERS = -fsanitize-coverage=inline-8bit-counters,pc-table \
	-fsanitize-coverage-ignorelist=fuzz/nocov.txt
FUZZ_FLAGS_libfuzzer = $(FUZZ_SAN) $(FUZZ_COUNTERS)
FUZZ_FLAGS_afl = -O2 -g
# this machine's vectors: half of a run is looking for what must be zero
FUZZ_FLAGS_plain = -O3 -march=native -g
FUZZ_FLAGS_asan = $(FUZZ_SAN)
FUZZ_FLAGS_cov = -O1 -g -fprofile-instr-generate -fcoverage-mapping
FUZZ_FLAGS_edges = -O2 -g $(FUZZ_COUNTERS)

define fuzz_variant
$(BUILD)/fuzz/$(1)/%.o: %.c fuzz/nocov.txt
	@mkdir -p $$(@D)
	$$(FUZZ_CC_$(1)) $$(FUZZ_CFLAGS) $$(FUZZ_FLAGS_$(1)) -c $$< -o $$@
$(BUILD)/fuzz/$(1)/src/export_libc.o: src/export_libc.c fuzz/rename.h
	@mkdir -p $$(@D)
	$$(FUZZ_CC_$(1)) $$(FUZZ_CFLAGS) $$(FUZZ_FLAGS_$(1)) -Wno-missing-prototypes \
		-include fuzz/rename.h -c $$< -o $$@
$$(SIM_SRC:%.c=$(BUILD)/fuzz/$(1)/%.o): $(BUILD)/fuzz/$(1)/%.o: %.c fuzz/simlibc.h fuzz/sim.h
	@mkdir -p $$(@D)
	$$(FUZZ_CC_$(1)) $$(FUZZ_CFLAGS) $$(FUZZ_FLAGS_$(1)) -include fuzz/simlibc.h -c $$< -o $$@
$(BUILD)/fuzz/$(1)/src/report.o: src/report.c fuzz/simreport.h fuzz/simlibc.h fuzz/sim.h
	@mkdir -p $$(@D)
	$$(FUZZ_CC_$(1)) $$(FUZZ_CFLAGS) $$(FUZZ_FLAGS_$(1)) -include fuzz/simreport.h -c $$< -o $$@
$$(HARNESSES:%=$(BUILD)/fuzz/$(1)/target_%.o): $(BUILD)/fuzz/$(1)/target_%.o: fuzz/target.c
	@mkdir -p $$(@D)
	$$(FUZZ_CC_$(1)) $$(FUZZ_CFLAGS) $$(FUZZ_FLAGS_$(1)) -DSG_HARNESS=$$* -c $$< -o $$@
FUZZ_OBJ_$(1) = $$(patsubst %.c,$(BUILD)/fuzz/$(1)/%.o,$$(FUZZ_SRC) $$(FUZZ_SUPPORT_SRC) \
	$$(FUZZ_TIER_SRC) src/export_libc.c src/report.c)
$(BUILD)/fuzz/$(1)/sgfuzz: $(BUILD)/fuzz/$(1)/fuzz/sgfuzz.o $(BUILD)/fuzz/$(1)/fuzz/min.o $(BUILD)/fuzz/$(1)/fuzz/toc.o $(BUILD)/fuzz/$(1)/fuzz/stable.o $(BUILD)/fuzz/$(1)/fuzz/random.o $$(FUZZ_OBJ_$(1))
	$$(FUZZ_CC_$(1)) $$(FUZZ_FLAGS_$(1)) -pthread -rdynamic -o $$@ $$^ -lm
-include $$(wildcard $(BUILD)/fuzz/$(1)/*.d $(BUILD)/fuzz/$(1)/*/*.d)
endef
$(foreach v,$(FUZZ_VARIANTS),$(eval $(call fuzz_variant,$(v))))
# the builds without sanitizers in which H12 flips: verify is not to go by what it did not check
VERIFY_BOUNDS = -fsanitize=bounds -fsanitize-undefined-trap-on-error
$(BUILD)/fuzz/plain/src/verify.o: FUZZ_FLAGS_plain += $(VERIFY_BOUNDS)
$(BUILD)/fuzz/edges/src/verify.o: FUZZ_FLAGS_edges += $(VERIFY_BOUNDS)
.PRECIOUS: $(BUILD)/fuzz/%.o
# written by the compiler, made by no rule
$(BUILD)/fuzz/%.d: ;

$(BUILD)/fuzz/libfuzzer/fuzz_%: $(BUILD)/fuzz/libfuzzer/target_%.o $(FUZZ_OBJ_libfuzzer)
	$(CLANG) $(FUZZ_FLAGS_libfuzzer) -fsanitize=fuzzer -pthread -rdynamic -o $@ $^ -lm
# without sanitizers: several times as fast, and all oracles are there but `touch`
$(BUILD)/fuzz/edges/fuzz_%: $(BUILD)/fuzz/edges/target_%.o $(FUZZ_OBJ_edges)
	$(FUZZ_CC_edges) $(FUZZ_FLAGS_edges) -fsanitize=fuzzer -pthread -rdynamic -o $@ $^ -lm
# H12 flips bits of the metadata, which sanitizers would stop at
$(BUILD)/fuzz/libfuzzer/fuzz_check: $(BUILD)/fuzz/edges/fuzz_check
	cp $< $@
$(BUILD)/fuzz/afl/fuzz_%: $(BUILD)/fuzz/afl/target_%.o $(FUZZ_OBJ_afl)
	$(FUZZ_CC_afl) $(FUZZ_FLAGS_afl) -fsanitize=fuzzer -pthread -rdynamic -o $@ $^ -lm

# H17 is about what nocov.txt leaves out for the others
WALK_SRC = src/cfi.c src/unwind.c src/callstack.c
WALK_CC_libfuzzer = $(CLANG) $(FUZZ_SAN) -fsanitize-coverage=inline-8bit-counters,pc-table
WALK_CC_afl = AFL_QUIET=1 afl-clang-fast $(FUZZ_FLAGS_afl)
define fuzz_walk
$$(WALK_SRC:%.c=$(BUILD)/fuzz/$(1)/walk/%.o): $(BUILD)/fuzz/$(1)/walk/%.o: %.c
	@mkdir -p $$(@D)
	$$(WALK_CC_$(1)) $$(FUZZ_CFLAGS) $$(if $$(filter $$<,$$(SIM_SRC)),-include fuzz/simlibc.h) -c $$< -o $$@
$(BUILD)/fuzz/$(1)/fuzz_cfi: $(BUILD)/fuzz/$(1)/target_cfi.o $$(WALK_SRC:%.c=$(BUILD)/fuzz/$(1)/walk/%.o) \
	$$(filter-out $$(WALK_SRC:%.c=$(BUILD)/fuzz/$(1)/%.o),$$(FUZZ_OBJ_$(1)))
	$$(FUZZ_CC_$(1)) $$(FUZZ_FLAGS_$(1)) -fsanitize=fuzzer -pthread -rdynamic -o $$@ $$^ -lm
endef
$(eval $(call fuzz_walk,libfuzzer))
$(eval $(call fuzz_walk,afl))

.PHONY: fuzz fuzz-libfuzzer fuzz-fast fuzz-afl fuzz-runners
fuzz-libfuzzer: $(addprefix $(BUILD)/fuzz/libfuzzer/fuzz_,$(HARNESSES) real)
fuzz-fast: $(addprefix $(BUILD)/fuzz/edges/fuzz_,$(HARNESSES))
fuzz-afl: $(addprefix $(BUILD)/fuzz/afl/fuzz_,$(HARNESSES) real) $(BUILD)/fuzz/afl/sgf_mutator.so
fuzz-runners: $(BUILD)/fuzz/plain/sgfuzz $(BUILD)/fuzz/asan/sgfuzz $(BUILD)/fuzz/real
fuzz: fuzz-runners fuzz-libfuzzer fuzz-afl

# H13: no tier in it; the library comes by LD_PRELOAD
$(BUILD)/fuzz/real: fuzz/h13_real.c fuzz/language.c fuzz/sgf.c fuzz/sgf.h
	@mkdir -p $(@D)
	$(CC) -std=gnu11 -O1 -g $(WARN) -pthread -o $@ fuzz/h13_real.c fuzz/language.c fuzz/sgf.c

# ... and as a target: the library's own objects, with the engine's counters
REAL_CC_libfuzzer = $(CLANG)
REAL_CC_afl = afl-clang-fast
REAL_FLAGS_libfuzzer = -O1 -g $(FUZZ_COUNTERS)
REAL_FLAGS_afl = $(FUZZ_FLAGS_afl)
define fuzz_real
.PHONY: real-objects-$(1)
real-objects-$(1):
	@AFL_QUIET=1 $$(MAKE) --no-print-directory -s BUILD=$(BUILD)/fuzz/$(1)/real CC=$$(REAL_CC_$(1)) \
		CFLAGS="$$(REAL_FLAGS_$(1))" lib-objects
$(BUILD)/fuzz/$(1)/fuzz_real: real-objects-$(1) fuzz/h13_real.c fuzz/language.c fuzz/sgf.c fuzz/mutator.c
	$$(FUZZ_CC_$(1)) -std=gnu11 $$(WARN) $$(REAL_FLAGS_$(1)) -DSG_ENGINE -iquote fuzz -iquote src -fsanitize=fuzzer -pthread \
		-o $$@ $$(filter %.c,$$^) $$(patsubst $(BUILD)/lib/%,$(BUILD)/fuzz/$(1)/real/lib/%,\
		$$(filter-out %/export_fork.o,$$(LIB_OBJ)))
endef
$(eval $(call fuzz_real,libfuzzer))
$(eval $(call fuzz_real,afl))

# the mutator as AFL++ loads it
$(BUILD)/fuzz/afl/sgf_mutator.so: fuzz/afl_mutator.c fuzz/mutator.c fuzz/mutator.h fuzz/sgf.h
	@mkdir -p $(@D)
	$(CC) -std=gnu11 -O2 -g -fPIC -shared $(WARN) -o $@ fuzz/afl_mutator.c fuzz/mutator.c

# what fuzz/mutants.py needs to make one object again: compile, link, libraries
define fuzz_flags
.PHONY: fuzz-flags-$(1) fuzz-objects-$(1)
fuzz-flags-$(1):
	@echo '$$(FUZZ_CC_$(1)) $$(filter-out -MMD -MP,$$(FUZZ_CFLAGS)) $$(FUZZ_FLAGS_$(1))'
	@echo '$$(FUZZ_CC_$(1)) $$(FUZZ_FLAGS_$(1)) $$(FUZZ_LINK_$(1)) -pthread -rdynamic'
	@echo '-lm'
fuzz-objects-$(1):
	@echo $$(FUZZ_OBJ_$(1))
endef
FUZZ_LINK_libfuzzer = -fsanitize=fuzzer
FUZZ_LINK_edges = -fsanitize=fuzzer
$(foreach v,$(FUZZ_VARIANTS),$(eval $(call fuzz_flags,$(v))))

.PHONY: mutants mutants-apply
mutants: fuzz-runners fuzz-libfuzzer
	fuzz/mutants.py --fuzz 60 --ablate --scratch 60
mutants-apply:
	fuzz/mutants.py --apply-only

.PHONY: fuzz-report
fuzz-report: all
	fuzz/report.sh

.PHONY: fuzz-ops
fuzz-ops:
	fuzz/ops.sh
