# tests.mk - the unit tests, in three builds: as shipped (with lock checks),
# under ASan+UBSan and under TSan, by gcc and clang.
#
# tests/test_X.c is a cmocka program over all tiers except the exported names,
# so that it, cmocka and the sanitizers keep libc's malloc. The ending says what
# stands in for the operating system:
#   test_X.c       the real sys_linux.c
#   test_X_fake.c  fake_sys.c, a state for every page, failures on demand
#   test_X_addr.c  sys_addr_only.c, addresses without memory
# fake_die.c always takes the place of report.c's die(), except in test_report.c.

UNIT_TESTS = $(patsubst tests/%.c,%,$(wildcard tests/test_*.c))
TEST_SUPPORT = tests/naive_pages.c tests/heap_support.c tests/hidden.c
TEST_CFLAGS = -std=gnu11 -fPIC -fvisibility=hidden -fexceptions -MMD -MP $(WARN) \
	-DSPANGUARD_TEST_BUILD=1 -DSPANGUARD_LOCK_CHECKS=1 -Isrc -Itests -I.

# variant: name, compiler, flags
UNIT_VARIANTS = gcc clang asan tsan cov
UNIT_CC_gcc = $(CC)
UNIT_CC_clang = $(CLANG)
UNIT_CC_asan = $(CLANG)
UNIT_CC_tsan = $(CLANG)
UNIT_CC_cov = $(CLANG)
UNIT_FLAGS_gcc = -O2 -g
UNIT_FLAGS_clang = -O2 -g
UNIT_FLAGS_asan = -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
UNIT_FLAGS_tsan = -O1 -g -fsanitize=thread -fno-omit-frame-pointer -DSPANGUARD_EXIT_ROUNDS=2
# what a variant leaves out: guard and signal tests own SIGSEGV themselves, and
# single-threaded tests have nothing to race
UNIT_FLAGS_cov = -O1 -g -fprofile-instr-generate -fcoverage-mapping
UNIT_LIST_gcc = $(UNIT_TESTS)
UNIT_LIST_cov = $(UNIT_TESTS)
UNIT_LIST_clang = $(UNIT_TESTS)
UNIT_LIST_asan = $(UNIT_TESTS)
UNIT_LIST_tsan = $(filter $(TSAN_TESTS),$(UNIT_TESTS))
TSAN_TESTS = test_depot test_guardmode test_lock test_mspanset test_persistentalloc test_malloc test_boot test_stress

TEST_LIB_SRC = $(TIER_SRC)

define unit_variant
$(BUILD)/unit/$(1)/%.o: %.c
	@mkdir -p $$(@D)
	$$(UNIT_CC_$(1)) $$(TEST_CFLAGS) $$(UNIT_FLAGS_$(1)) -c $$< -o $$@
$(BUILD)/unit/$(1)/libtiers.a: $$(patsubst %.c,$(BUILD)/unit/$(1)/%.o,$$(TEST_LIB_SRC))
	rm -f $$@
	ar rcs $$@ $$^
# an archive: a test gets what it calls, and may have a tier function of its own
$(BUILD)/unit/$(1)/libsupport.a: $$(patsubst %.c,$(BUILD)/unit/$(1)/%.o,$$(TEST_SUPPORT))
	rm -f $$@
	ar rcs $$@ $$^
# static patterns: with implicit ones make may take the rule of another ending
# while an object of the right one is still to be built
$$(addprefix $(BUILD)/unit/$(1)/,$$(filter %_fake,$$(UNIT_TESTS))): $(BUILD)/unit/$(1)/%: $(BUILD)/unit/$(1)/tests/%.o $(BUILD)/unit/$(1)/tests/fake_sys.o $(BUILD)/unit/$(1)/libsupport.a $(BUILD)/unit/$(1)/tests/fake_die.o $(BUILD)/unit/$(1)/libtiers.a
	$$(UNIT_CC_$(1)) $$(UNIT_FLAGS_$(1)) -pthread -rdynamic -o $$@ $$^ -lcmocka -lm
$$(addprefix $(BUILD)/unit/$(1)/,$$(filter %_addr,$$(UNIT_TESTS))): $(BUILD)/unit/$(1)/%: $(BUILD)/unit/$(1)/tests/%.o $(BUILD)/unit/$(1)/tests/sys_addr_only.o $(BUILD)/unit/$(1)/libsupport.a $(BUILD)/unit/$(1)/tests/fake_die.o $(BUILD)/unit/$(1)/libtiers.a
	$$(UNIT_CC_$(1)) $$(UNIT_FLAGS_$(1)) -pthread -o $$@ $$^ -lcmocka
$(BUILD)/unit/$(1)/test_report: $(BUILD)/unit/$(1)/tests/test_report.o $(BUILD)/unit/$(1)/libtiers.a
	$$(UNIT_CC_$(1)) $$(UNIT_FLAGS_$(1)) -pthread -rdynamic -o $$@ $$^ -lcmocka -lm
$$(addprefix $(BUILD)/unit/$(1)/,$$(filter-out %_fake %_addr test_report,$$(UNIT_TESTS))): $(BUILD)/unit/$(1)/%: $(BUILD)/unit/$(1)/tests/%.o $(BUILD)/unit/$(1)/libsupport.a $(BUILD)/unit/$(1)/tests/fake_die.o $(BUILD)/unit/$(1)/libtiers.a
	$$(UNIT_CC_$(1)) $$(UNIT_FLAGS_$(1)) -pthread -rdynamic -o $$@ $$^ -lcmocka -lm
.PHONY: unit-$(1)
unit-$(1): $$(addprefix $(BUILD)/unit/$(1)/,$$(UNIT_LIST_$(1)))
-include $$(wildcard $(BUILD)/unit/$(1)/src/*.d $(BUILD)/unit/$(1)/hardening/*.d $(BUILD)/unit/$(1)/tests/*.d)
endef
$(foreach v,$(UNIT_VARIANTS),$(eval $(call unit_variant,$(v))))
.PRECIOUS: $(BUILD)/unit/%.o

unit: $(addprefix unit-,$(filter-out cov,$(UNIT_VARIANTS)))
