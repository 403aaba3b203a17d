# sched.mk - the schedule explorer (H8): tiers whose atomics, locks and waits are yield
# points (fuzz/sched/schedule.h), and the litmus programs.
#
# Their own variables are put into sections of a name, so that memory can be set
# back; what proc.c registers with libc is registered with fuzz/sched/litmus.c.

SCHED_CC ?= $(CC)
SCHED_FLAGS ?= -O2 -g
SCHED_CFLAGS = -std=gnu11 -fno-pie -fvisibility=hidden -MMD -MP $(WARN) \
	-DSPANGUARD_TEST_BUILD=1 -DSPANGUARD_LOCK_CHECKS=1 -DSPANGUARD_SCHED=1 \
	-DSPANGUARD_LOCK_SPINS=0 -Isrc -Itests -I.
SCHED_TIERS = $(filter-out src/report.c src/sys_linux.c,$(TIER_SRC)) tests/fake_sys.c
SCHED_SRC = tests/fake_die.c \
	$(filter-out %/h8.c %/h8_fuzz.c %/schedule_plain.c,$(wildcard fuzz/sched/*.c))
SCHED_O = $(BUILD)/sched
SCHED_RENAME = --redefine-sym pthread_atfork=tiers_atfork \
	--redefine-sym pthread_key_create=tiers_key_create \
	--redefine-sym pthread_setspecific=tiers_setspecific --redefine-sym madvise=tiers_madvise \
	$(foreach f,unused used move fault unfault,--redefine-sym sys_$f=point_sys_$f) \
	--rename-section .data=tierdata --rename-section .bss=tierbss


# h8-plain: plain accesses are points, too; of the tiers only, not of the harness
SCHED_PLAIN_FLAGS = -fsanitize=thread -mllvm -tsan-instrument-func-entry-exit=0 \
	-mllvm -tsan-instrument-atomics=0
SCHED_PLAIN_RENAME = --redefine-sym memcpy=plain_memcpy --redefine-sym memset=plain_memset \
	--redefine-sym memmove=plain_memmove

$(SCHED_O)/%.o: %.c
	@mkdir -p $(@D)
	$(SCHED_CC) $(SCHED_CFLAGS) $(SCHED_FLAGS) -c $< -o $@

$(SCHED_O)/plain/%.o: %.c
	@mkdir -p $(@D)
	$(CLANG) $(SCHED_CFLAGS) $(SCHED_FLAGS) $(SCHED_PLAIN_FLAGS) -c $< -o $@

$(SCHED_O)/tiers.o: $(filter-out %/fake_sys.o,$(SCHED_TIERS:%.c=$(SCHED_O)/%.o)) fuzz/sched/sched.mk
	ld -r -o $@.tmp $(filter %.o,$^)
	objcopy $(SCHED_RENAME) $@.tmp $@
	rm -f $@.tmp

$(SCHED_O)/plain/tiers.o: $(filter-out %/fake_sys.o,$(SCHED_TIERS:%.c=$(SCHED_O)/plain/%.o)) fuzz/sched/sched.mk
	ld -r -o $@.tmp $(filter %.o,$^)
	objcopy $(SCHED_PLAIN_RENAME) $(SCHED_RENAME) $@.tmp $@
	rm -f $@.tmp

# the system is the harness's, its memory is set back with that of the tiers
$(SCHED_O)/fake_sys.o: $(SCHED_O)/tests/fake_sys.o
	objcopy --redefine-sym madvise=tiers_madvise --rename-section .data=tierdata \
		--rename-section .bss=tierbss $< $@

SCHED_HARNESS = $(SCHED_O)/fuzz/sched/h8.o $(SCHED_SRC:%.c=$(SCHED_O)/%.o) $(SCHED_O)/fake_sys.o
SCHED_PLAIN_HARNESS = $(SCHED_HARNESS) $(SCHED_O)/fuzz/sched/schedule_plain.o
SCHED_LINK_FLAGS = $(SCHED_CC) $(SCHED_FLAGS) -no-pie -pthread
$(SCHED_O)/h8: $(SCHED_HARNESS) $(SCHED_O)/tiers.o
	$(SCHED_LINK_FLAGS) -o $@ $^
$(SCHED_O)/h8-plain: $(SCHED_PLAIN_HARNESS) $(SCHED_O)/plain/tiers.o
	$(SCHED_LINK_FLAGS) -o $@ $^

# the fuzz target, for libFuzzer and AFL++
define sched_engine
$(SCHED_O)/$(1)/%.o: %.c fuzz/nocov.txt
	@mkdir -p $$(@D)
	$(2) $(SCHED_CFLAGS) -O2 -g $(3) -c $$< -o $$@
$(SCHED_O)/$(1)/tiers.o: $(patsubst %.c,$(SCHED_O)/$(1)/%.o,$(filter-out tests/%,$(SCHED_TIERS))) fuzz/sched/sched.mk
	ld -r -o $$@.tmp $$(filter %.o,$$^)
	objcopy $(SCHED_RENAME) $$@.tmp $$@
	rm -f $$@.tmp
$(SCHED_O)/$(1)/fuzz_sched: $(patsubst %.c,$(SCHED_O)/$(1)/%.o,$(SCHED_SRC) fuzz/sched/h8_fuzz.c) $(SCHED_O)/$(1)/tiers.o $(SCHED_O)/fake_sys.o
	$(2) -O2 -g -fsanitize=fuzzer -no-pie -pthread -o $$@ $$^
endef
$(eval $(call sched_engine,libfuzzer,$(FUZZ_CC_libfuzzer),-fsanitize=fuzzer-no-link \
	-fsanitize-coverage-ignorelist=fuzz/nocov.txt))
$(eval $(call sched_engine,afl,$(FUZZ_CC_afl),))

# for fuzz/sched/plants, which compiles and links changed copies
SCHED_COMPILE = $(SCHED_CC) $(SCHED_CFLAGS) $(SCHED_FLAGS)
SCHED_PLAIN_COMPILE = $(CLANG) $(SCHED_CFLAGS) $(SCHED_FLAGS) $(SCHED_PLAIN_FLAGS)
SCHED_PLAIN_TIERS = $(filter-out %/fake_sys.o,$(SCHED_TIERS:%.c=$(SCHED_O)/plain/%.o))
SCHED_PLAIN_OBJCOPY = $(SCHED_PLAIN_RENAME) $(SCHED_RENAME)
.PHONY: sched-print litmus litmus-plants
sched-print:
	@echo $($(NAME))

# every schedule at two preemptions; each planted fault found
litmus: $(SCHED_O)/h8
	$(SCHED_O)/h8
litmus-plants: $(SCHED_O)/h8-plain
	fuzz/sched/plants

-include $(wildcard $(SCHED_O)/*/*.d $(SCHED_O)/*/*/*.d)
