# How the library is tested. A variant is the library, the harness and every test program built with
# one set of options, under build/VARIANT. A test program is one file of contract, rooms, process,
# stress or build; a test/build/*.sh is a test as well.

.PHONY: test check-all check-beyond-test mutants models coverage lint fmt build-% \
    $(addprefix run-,shell asan asan-clang tsan valgrind stress contract packaging)

CLANG ?= clang
CLANG_NEW ?= $(or $(shell command -v clang-19 2>/dev/null),clang)

test_programs := $(patsubst test/%.c,%,$(sort $(wildcard $(foreach d,contract rooms process stress build,test/$(d)/*.c))))
# These want more tools and more time than the others: `make check-all` has them.
packaging_shell := $(patsubst %,test/build/%.sh,abi consumers cxx17 deb dist drop_in)
test_shell := $(filter-out $(packaging_shell),$(sort $(wildcard test/build/*.sh)))
harness_sources := $(sort $(wildcard test/harness/*.c))

# What every variant has. The library is built with frame pointers and unwind tables for the stacks.
test_flags = $(ours_language) -Itest -Itest/harness $(ours_depend) $(ours_warnings) -g -fno-omit-frame-pointer \
    -fexceptions -ftls-model=initial-exec -DASIDE_SHARED_LIBRARY='"$(R)/$(SONAME)"'

sanitize_address := -fsanitize=address,undefined -fno-sanitize-recover=all
#   $(v)_cc       compiler               $(v)_flags   for everything
#   $(v)_lib      for the library alone  $(v)_link    for linking
test_cc = $(CC)
test_flags_of = -O1 -DASIDE_SCHED -DASIDE_DEBUG
parkfb_cc = $(CC)
parkfb_flags_of = $(test_flags_of) -DASIDE_PARK_PTHREAD
asan_cc = $(CC)
asan_flags_of = -O1 -DASIDE_SCHED -DASIDE_DEBUG $(sanitize_address)
asan_link := -static-libasan
asan-clang_cc = $(CLANG)
asan-clang_flags_of = $(asan_flags_of)
tsan_cc = $(CC)
tsan_flags_of = -O1 -DASIDE_SCHED -fsanitize=thread
cov_cc = $(CC)
cov_flags_of = -O0 -DASIDE_SCHED
cov_lib = --coverage -fprofile-update=atomic -fprofile-abs-path
cov_link = --coverage -Wl,-u,__gcov_dump

test_variants := test parkfb asan asan-clang tsan cov

programs_of = $(test_programs:%=$(B)/$(1)/test/%)
programs_in = $(addprefix $(B)/$(1)/test/,$(filter $(addsuffix /%,$(2)),$(test_programs)))

# The calls of the library, and of nothing else, that the harness counts and fails are renamed in its
# objects, as test/harness/wrap.syms lists them.
define variant
$(1)_objects := $$(library_sources:src/%.c=$(B)/$(1)/obj/%.o)
$(1)_harness := $$(harness_sources:test/harness/%.c=$(B)/$(1)/harness/%.o)
$(1)_compile = $$($(1)_cc) $$(test_flags) $$($(1)_flags_of)

$(call remember,$(B)/$(1)/options,$$$$($(1)_compile) $$$$($(1)_lib) $$$$(CPPFLAGS) $$$$(CFLAGS) $$$$(LDFLAGS))

$(B)/$(1)/obj/%.o: src/%.c test/harness/wrap.syms $(B)/$(1)/options
	$$(call say,CC $$*.c ($(1)))
	@mkdir -p $$(@D)
	$$(Q)$$($(1)_compile) $$($(1)_lib) $$(CPPFLAGS) $$(CFLAGS) -c -o $$@ $$<
	$$(Q)$$(OBJCOPY) --redefine-syms=test/harness/wrap.syms $$@

$(B)/$(1)/harness/%.o: test/harness/%.c $(B)/$(1)/options
	@mkdir -p $$(@D)
	$$(Q)$$($(1)_compile) $$(CPPFLAGS) $$(CFLAGS) -c -o $$@ $$<

$(B)/$(1)/libaside.a: $$($(1)_objects)
	@rm -f $$@
	$$(Q)$$(AR) rcs $$@ $$^

$(B)/$(1)/test/%: test/%.c $(B)/$(1)/libaside.a $$($(1)_harness) $(B)/$(1)/options
	$$(call say,CC test/$$*.c ($(1)))
	@mkdir -p $$(@D)
	$$(Q)$$($(1)_compile) $$(CPPFLAGS) $$(CFLAGS) -MF $$@.d -MT $$@ $$< $$($(1)_harness) -Wl,--whole-archive $(B)/$(1)/libaside.a -Wl,--no-whole-archive \
	    -rdynamic $$($(1)_link) $$(LDFLAGS) -ldl -o $$@

build-$(1): $$(call programs_of,$(1))

-include $$($(1)_objects:.o=.d) $$($(1)_harness:.o=.d) $$(addsuffix .d,$$(call programs_of,$(1)))
endef

$(foreach v,$(test_variants),$(eval $(call variant,$(v))))

# A make below this one that uses every processor, unless this one was told how many.
parallel_make = +@$(MAKE) --no-print-directory $(if $(findstring jobserver,$(MAKEFLAGS))$(filter -j%,$(MAKEFLAGS)),,-j$(JOBS))
run_tests = CC='$(CC)' MAKE='$(MAKE)' bash test/run

# The waiting room's other half is exercised by whoever waits: all contract tests and its own.
parkfb_programs = $(call programs_in,parkfb,contract) $(filter %/park,$(call programs_in,parkfb,rooms))

test: ## what README names: every test
	$(parallel_make) all build-test $(parkfb_programs)
	@$(run_tests) $(call programs_of,test) $(parkfb_programs) $(test_shell)

check-all: ## test, and: sanitizers, valgrind, packaging, models, planted faults, coverage, lint, longer stress
	+@MAKE='$(MAKE)' bash test/check-all

check-beyond-test: ## check-all right after test, which it does not repeat
	+@MAKE='$(MAKE)' bash test/check-all --beyond-test

# All of them: what was skipped for want of a package when `make test` ran may be there by now.
run-shell:
	$(parallel_make) all build-test
	@ASIDE_TEST_THOROUGH=1 $(run_tests) $(test_shell)

run-asan run-asan-clang run-tsan: run-%:
	$(parallel_make) all build-$*
	@ASIDE_TEST_ROUNDS=$(or $(ROUNDS),0.3) ASIDE_TEST_LIMIT=300 $(run_tests) --plain-addresses $(call programs_of,$*)

run-valgrind:
	$(parallel_make) all build-test
	@ASIDE_TEST_ROUNDS=0.05 ASIDE_TEST_LIMIT=1200 $(run_tests) \
	    --under 'valgrind -q --fair-sched=yes --max-threads=3000 --error-exitcode=99 --leak-check=full --errors-for-leak-kinds=definite' \
	    $(call programs_in,test,contract rooms)

# What the Debian package runs while it is built.
run-contract:
	$(parallel_make) $(call programs_in,test,contract)
	@$(run_tests) $(call programs_in,test,contract)

run-packaging:
	$(parallel_make) all build-test
	@$(run_tests) $(packaging_shell)

# Scenarios ask for 500 rounds in `make test`; 20 times that is 10,000, and takes twenty minutes.
run-stress:
	$(parallel_make) all build-test
	@ASIDE_TEST_ROUNDS=$(or $(ROUNDS),20) ASIDE_TEST_LIMIT=900 $(run_tests) $(call programs_in,test,stress)

coverage: ## lines and branches of src/ that the tests reach
	$(parallel_make) all build-cov
	@find $(B)/cov -name '*.gcda' -delete
	@ASIDE_TEST_ROUNDS=0.3 ASIDE_TEST_LIMIT=300 $(run_tests) $(call programs_of,cov)
	@gcovr --root . --filter 'src/' --exclude-throw-branches --exclude-unreachable-branches --object-directory $(B)/cov/obj $(B)/cov/obj
	@gcovr --root . --filter 'src/' --exclude-throw-branches --exclude-unreachable-branches --branches \
	    --print-summary --object-directory $(B)/cov/obj $(B)/cov/obj

mutants: ## plants each fault of test/mutants and shows that a test sees it
	+@MAKE='$(MAKE)' bash test/mutants/run.sh

models: ## checks the spin models against the code and runs them
	@bash test/models/run.sh

include test/bench/bench.mk

# ---- how the code looks ----

CLANG_FORMAT ?= $(or $(shell command -v clang-format-14 2>/dev/null),clang-format)
CLANG_TIDY ?= $(or $(shell command -v clang-tidy-19 2>/dev/null),clang-tidy)
formatted := $(sort $(wildcard include/aside/*.h src/*/*.[ch] test/*/*.[ch] test/bench/peers/*.[ch] docs/examples/*/*.[ch] docs/examples/*.[ch]))

lint: ## format, clang-tidy, lock annotations, layers
	@CLANG_FORMAT='$(CLANG_FORMAT)' CLANG_TIDY='$(CLANG_TIDY)' CLANG_NEW='$(CLANG_NEW)' JOBS='$(JOBS)' \
	    bash test/lint/run.sh '$(formatted)' '$(library_sources) $(harness_sources)' '$(ours_language) -fexceptions -Itest/harness'

fmt: ## formats every source file
	$(Q)$(CLANG_FORMAT) -i $(formatted)
