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

$(SCHED_O)/tiers.o: $(SCHED_TIERS:%.c=$(SCHED_O)/%.o)
	ld -r -o $@.tmp $^
	objcopy $(SCHED_RENAME) $@.tmp $@
	rm -f $@.tmp

$(SCHED_O)/plain/tiers.o: $(filter-out %/fake_sys.o,$(SCHED_TIERS:%.c=$(SCHED_O)/plain/%.o))
	ld -r -o $@.tmp $^
	objcopy $(SCHED_PLAIN_RENAME) $(SCHED_RENAME) $@.tmp $@
	rm -f $@.tmp

$(SCHED_O)/plain/fake_sys.o: $(SCHED_O)/tests/fake_sys.o
	@mkdir -p $(@D)
	objcopy $(SCHED_RENAME) $< $@

SCHED_LINK = $(SCHED_CC) $(SCHED_FLAGS) -no-pie -pthread -o $@ $^
$(SCHED_O)/h8: $(SCHED_O)/fuzz/sched/h8.o $(SCHED_SRC:%.c=$(SCHED_O)/%.o) $(SCHED_O)/tiers.o
	$(SCHED_LINK)
$(SCHED_O)/h8-plain: $(SCHED_O)/fuzz/sched/h8.o $(SCHED_SRC:%.c=$(SCHED_O)/%.o) \
		$(SCHED_O)/fuzz/sched/schedule_plain.o $(SCHED_O)/plain/tiers.o $(SCHED_O)/plain/fake_sys.o
	$(SCHED_LINK)

-include $(wildcard $(SCHED_O)/*/*.d $(SCHED_O)/*/*/*.d)
