# spanguard: see README.md. `make help` lists the targets.

CC ?= gcc
CLANG ?= clang
BUILD ?= build
PREFIX ?= /usr/local
DESTDIR ?=

WARN = -Wall -Wextra -Werror -Wundef -Wshadow -Wconversion -Wstrict-prototypes -Wmissing-prototypes
CFLAGS ?= -O2 -g
BASE_CFLAGS = -std=gnu11 -fPIC -fvisibility=hidden -ffunction-sections \
	-fexceptions -fno-semantic-interposition -fno-plt -MMD -MP $(WARN)
# nothing but libc is needed by the library: libgcc is linked in and hidden
SO_LDFLAGS = -shared -static-libgcc -Wl,--exclude-libs,ALL -Wl,-soname,libspanguard.so \
	-Wl,-z,relro -Wl,-z,nodelete -Wl,--no-undefined \
	-Wl,--version-script=src/libspanguard.map -Wl,--gc-sections

TIER_SRC = $(filter-out src/mksizeclasses.c src/export_%.c,$(wildcard src/*.c)) \
	$(HARDENING_SRC)
HARDENING_SRC ?= $(wildcard hardening/*.c)
EXPORT_SRC = $(wildcard src/export_*.c)
# what a program runs that nothing is wrong with comes first: the kernel maps text by
# 64 KiB, and the rest is mapped only when there is something to report
OFTEN = src/export_libc src/malloc src/mcache src/mspan src/mcentral src/mspanset src/mheap src/marena \
	src/mpagecache src/mpagealloc src/mpallocbits src/mfixalloc src/persistentalloc src/mgcscavenge \
	src/rand src/lock src/sys_linux hardening/hooks hardening/freeindex hardening/slotquarantine \
	hardening/quarantine hardening/guard hardening/patrol hardening/zero hardening/canary hardening/zerosize \
	hardening/sample hardening/pinned hardening/sidetable hardening/valgrind src/proc src/options src/print src/log
LIB_SRC = $(foreach f,$(OFTEN:%=%.c),$(filter $f,$(TIER_SRC) $(EXPORT_SRC))) \
	$(filter-out $(OFTEN:%=%.c),$(TIER_SRC) $(EXPORT_SRC))
LIB_OBJ = $(patsubst %.c,$(BUILD)/lib/%.o,$(LIB_SRC))

TOOL_SRC = $(wildcard tools/*.c)
TOOL_OBJ = $(patsubst %.c,$(BUILD)/tool/%.o,$(TOOL_SRC)) \
	$(BUILD)/lib/src/options.o $(BUILD)/lib/src/print.o $(BUILD)/lib/src/log.o

.PHONY: all check demo bench bench-quick bench-debug bench-peers bench-rooms coverage install checked clean setup stress help unit generated
all: $(BUILD)/libspanguard.so $(BUILD)/libspanguard.a $(BUILD)/spanguard

help:
	@echo "make            libspanguard.so, libspanguard.a and the spanguard command"
	@echo "make demo       set up, build, run real programs and show reports"
	@echo "make check      set up, build and run every test"
	@echo "make bench      the benchmark table (15 minutes); bench-quick for a smoke run"
	@echo "make bench-rooms what each hardening room costs alone (long)"
	@echo "make bench-peers the same with jemalloc, mimalloc, tcmalloc and Scudo (long)"
	@echo "make bench-debug  what mode=debug and mode=guard cost, beside other debuggers"
	@echo "make stress     ten minutes of stress, all modes"
	@echo "make coverage   line and branch coverage of the unit tests"
	@echo "make man        manual pages into $(BUILD)/man"
	@echo "make install    into PREFIX=$(PREFIX)"

setup:
	@ci/setup.sh

$(BUILD)/lib/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(BASE_CFLAGS) $(CFLAGS) -c $< -o $@

$(BUILD)/tool/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(BASE_CFLAGS) $(CFLAGS) -c $< -o $@

$(BUILD)/tool/tools/map.o: tools/map.html

# what both must agree on, for the one to read the other's memory
$(BUILD)/lib/hardening/root.o $(BUILD)/tool/tools/remote.o: \
	BASE_CFLAGS += -DSPANGUARD_LAYOUT=$(shell ci/layout $(CC))

$(BUILD)/libspanguard.so: $(LIB_OBJ) src/libspanguard.map
	$(CC) $(CFLAGS) $(SO_LDFLAGS) -o $@ $(LIB_OBJ)

# one object whose hidden names are local, so that a program may have a die()
$(BUILD)/libspanguard.a: $(LIB_OBJ)
	$(CC) -r -nostdlib -o $(BUILD)/lib/spanguard.o $(filter-out %/export_fork.o,$(LIB_OBJ))
	objcopy --localize-hidden $(BUILD)/lib/spanguard.o
	rm -f $@
	ar rcs $@ $(BUILD)/lib/spanguard.o

.PHONY: lib-objects
lib-objects: $(LIB_OBJ)

# the library with lock checks: tests/life/test_handlers.py
checked:
	@$(MAKE) --no-print-directory BUILD=$(BUILD)/checked \
		CFLAGS="-O1 -g -DSPANGUARD_LOCK_CHECKS=2" $(BUILD)/checked/libspanguard.so

$(BUILD)/spanguard: $(TOOL_OBJ)
	$(CC) $(CFLAGS) -o $@ $(TOOL_OBJ) -ldw -lelf -ljansson -lm

# ---- generated files: made again and compared by make check ----

$(BUILD)/mksizeclasses: src/mksizeclasses.c
	@mkdir -p $(@D)
	$(CC) -std=gnu11 -O1 $(WARN) -o $@ $<

generated: $(BUILD)/mksizeclasses $(BUILD)/spanguard
	$(BUILD)/mksizeclasses > $(BUILD)/sizeclasses.h
	diff -u src/sizeclasses.h $(BUILD)/sizeclasses.h
	$(BUILD)/spanguard options --markdown | diff -u doc/options.md -

include tests/tests.mk
include fuzz/fuzz.mk
include fuzz/sched/sched.mk

# ---- the long ones ----

demo: setup
	@$(MAKE) --no-print-directory -s all
	@ci/demo

check: setup
	@ci/check

bench: setup all
	/usr/bin/python3 bench/run.py --runs 7 --only glibc,plain,hardened,strict
	/usr/bin/python3 bench/run.py --readme

bench-rooms: setup all
	/usr/bin/python3 bench/rooms.py --fill

bench-peers: setup all
	/usr/bin/python3 bench/run.py --runs 7
	/usr/bin/python3 bench/run.py --readme

# the debugging modes beside Memcheck, AddressSanitizer and Electric Fence
bench-debug: setup all
	/usr/bin/python3 bench/debug.py --runs 3 --out bench/debug.md

bench-quick: setup all
	/usr/bin/python3 bench/run.py --quick

# lines and branches that the unit tests reach
coverage: setup
	@$(MAKE) --no-print-directory -s unit-cov
	@ci/coverage

stress: setup all
	tests/stress/run.sh 600

# ---- what is installed beside library and command ----

MAN_PAGES = $(BUILD)/man/spanguard.1 $(BUILD)/man/spanguard.3 \
	$(BUILD)/man/spanguard-options.5 $(BUILD)/man/spanguard-errors.7
VERSION = $(shell sed -n 's/.*SPANGUARD_VERSION "\(.*\)"/\1/p' include/spanguard.h)

man: $(MAN_PAGES)

$(BUILD)/man/spanguard.1 $(BUILD)/man/spanguard-options.5 $(BUILD)/man/spanguard-errors.7: $(BUILD)/spanguard
	@mkdir -p $(@D)
	$(BUILD)/spanguard man $(subst .,,$(suffix $@)) > $@

$(BUILD)/man/spanguard.3: include/spanguard.h tools/man3.awk
	@mkdir -p $(@D)
	awk -f tools/man3.awk include/spanguard.h > $@

# always: PREFIX is part of the file
$(BUILD)/package/%: tools/package/%.in FORCE
	@mkdir -p $(@D)
	sed 's|@PREFIX@|$(PREFIX)|; s|@VERSION@|$(VERSION)|' $< > $@

$(BUILD)/package/spanguard.bash: $(BUILD)/spanguard
	@mkdir -p $(@D)
	$(BUILD)/spanguard completion > $@

.PHONY: man FORCE

TO = $(DESTDIR)$(PREFIX)
INSTALLED = lib/libspanguard.so lib/libspanguard.a lib/pkgconfig/spanguard.pc \
	lib/cmake/spanguard/spanguard-config.cmake bin/spanguard include/spanguard.h \
	share/man/man1/spanguard.1 share/man/man3/spanguard.3 share/man/man5/spanguard-options.5 \
	share/man/man7/spanguard-errors.7 share/bash-completion/completions/spanguard

install: all man $(BUILD)/package/spanguard.pc $(BUILD)/package/spanguard-config.cmake \
		$(BUILD)/package/spanguard.bash
	install -d $(sort $(dir $(addprefix $(TO)/,$(INSTALLED)))) $(TO)/share/doc/spanguard
	install -m 755 $(BUILD)/libspanguard.so $(TO)/lib/
	install -m 644 $(BUILD)/libspanguard.a $(TO)/lib/
	install -m 755 $(BUILD)/spanguard $(TO)/bin/
	install -m 644 include/spanguard.h $(TO)/include/
	install -m 644 $(BUILD)/package/spanguard.pc $(TO)/lib/pkgconfig/
	install -m 644 $(BUILD)/package/spanguard-config.cmake $(TO)/lib/cmake/spanguard/
	install -m 644 $(BUILD)/package/spanguard.bash $(TO)/share/bash-completion/completions/spanguard
	install -m 644 $(BUILD)/man/spanguard.1 $(TO)/share/man/man1/
	install -m 644 $(BUILD)/man/spanguard.3 $(TO)/share/man/man3/
	install -m 644 $(BUILD)/man/spanguard-options.5 $(TO)/share/man/man5/
	install -m 644 $(BUILD)/man/spanguard-errors.7 $(TO)/share/man/man7/
	install -m 644 README.md doc/*.md doc/*.json $(TO)/share/doc/spanguard/
	install -d $(TO)/share/gdb/auto-load$(PREFIX)/lib
	install -m 644 tools/spanguard-gdb.py $(TO)/share/gdb/auto-load$(PREFIX)/lib/libspanguard.so-gdb.py

clean:
	rm -rf $(BUILD)

-include $(LIB_OBJ:.o=.d) $(TOOL_OBJ:.o=.d)
