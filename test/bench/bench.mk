# How fast the library is, beside its peers. Nothing here gates anything.

.PHONY: bench bench-deps bench-hit bench-group bench-hitratio

bench_helpers := $(sort $(wildcard test/bench/lib_*.c))
bench_sources := $(filter-out $(bench_helpers),$(sort $(wildcard test/bench/*.c)))
bench_programs := $(bench_sources:test/bench/%.c=$(B)/bench/%)

$(B)/bench/%: test/bench/%.c $(bench_helpers) $(R_shared) $(R_links) $(R)/options
	$(call say,CC bench/$*.c)
	@mkdir -p $(@D)
	$(Q)$(CC) $(ours_language) -Itest $(ours_depend) -MF $@.d -MT $@ $(ours_warnings) -O2 -g $(CPPFLAGS) $(CFLAGS) $< $(bench_helpers) \
	    $(LDFLAGS) -L$(R) -laside -Wl,-rpath,'$$ORIGIN/../release' -lm -o $@

bench-hit: $(bench_programs) ## how long a hit takes, on the shared library
	@$(B)/bench/hit $(ARGS)

# The group bench's peer. Where there is no Go, or no golang.org/x/sync, the bench runs without it.
GO ?= go
GO_SOURCES ?= /usr/share/gocode
group_peer := $(B)/bench/peers/singleflight

$(group_peer): test/bench/peers/singleflight.go
	$(call say,GO bench/peers/singleflight)
	@mkdir -p $(@D)
	$(Q)GO111MODULE=off GOFLAGS= GOPATH='$(GO_SOURCES)' GOCACHE='$(abspath $(B))/bench/peers/cache' $(GO) build -o $@ $< || \
	    echo "  no Go here with golang.org/x/sync: the group bench runs without its peer"

bench-group: $(B)/bench/group $(group_peer) ## what a flight costs, beside Go's singleflight (sh test/deps.sh bench)
	@$(B)/bench/group $(ARGS)

bench-hitratio: $(B)/bench/hitratio ## hit ratios on request traces: TRACES=FOLDER, SEED=N (sh test/deps.sh bench)
	@$(B)/bench/hitratio '$(TRACES)' $(SEED) || [ $$? -eq 77 ]

# Plots want gnuplot, and counting instructions wants valgrind (sh test/deps.sh bench).
.PHONY: bench-growth bench-instructions bench-churn

bench-growth: $(B)/bench/growth ## how cost grows with size: figures and plots in OUT=FOLDER
	@sh test/bench/growth.sh $(B)/bench/growth '$(or $(OUT),$(B)/bench/out)' $(ARGS)

bench-instructions: $(B)/bench/instructions ## instructions of each path beside the stored ones; UPDATE=1 stores them
	@UPDATE='$(UPDATE)' sh test/bench/instructions.sh $(B)/bench/instructions $(R)/options test/bench/instructions.tsv || [ $$? -eq 77 ]

bench-churn: $(B)/bench/churn ## whether memory creeps under 100 million unique keys
	@$(B)/bench/churn $(ARGS)

# ---- the suite: ours beside each peer ----
#
# A driver is one program that does the cases of the suite with one cache (peers/driver.h). Drivers are
# built for this machine; ours uses the release library as users get it. A peer whose headers or tools
# are not here is named and left out.

suite_benches := $(addprefix $(B)/bench/,group miss wake tail bytes)

PYTHON ?= python3
JAVAC ?= javac
CAFFEINE ?= /usr/share/java/caffeine.jar

peers := $(B)/bench/peers
driver_sources := test/bench/peers/driver.c test/bench/lib_bench.c test/bench/lib_load.c
driver_headers := $(wildcard test/bench/lib_*.h test/bench/peers/*.h)
driver_objects := $(driver_sources:test/bench/%.c=$(B)/bench/driver/%.o)
# lib_bench.h has a struct and a function of one name, which C++ takes for hiding.
driver_warnings := $(filter-out -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wold-style-definition,$(ours_warnings))
driver_c = $(CC) $(ours_language) $(ours_warnings) -O2 -g -march=native $(CPPFLAGS) $(CFLAGS)
driver_cxx = $(CXX) -std=c++17 $(filter-out -std=%,$(ours_language)) $(driver_warnings) -O2 -g -march=native $(CPPFLAGS) $(CXXFLAGS)
driver_link = $(driver_objects) $(LDFLAGS) -L$(R) -laside -Wl,-rpath,'$$ORIGIN/../../release' -lm
has_packages = $(PKG_CONFIG) --exists $(1) 2>/dev/null
has_header = printf '\#include <%s>\n' $(2) | $(1) -fsyntax-only - 2>/dev/null

# $(call peer,NAME,SOURCE,CHECK,PACKAGE,COMMAND): builds a driver, or says what is missing.
define peer
peer_drivers += $(peers)/$(1)
$(peers)/$(1): test/bench/peers/$(2) $$(driver_objects) $$(driver_headers) $$(R_shared) $$(R_links)
	@mkdir -p $$(@D)
	@if $(3); then echo "  PEER $(1)"; $(5); \
	    else rm -f $$@; echo "  missing: $(1) ($(4))"; fi
endef

$(driver_objects): $(B)/bench/driver/%.o: test/bench/%.c $(driver_headers)
	$(call say,CC bench/$*.c (driver))
	@mkdir -p $(@D)
	$(Q)$(driver_c) -c -o $@ $<

go_build = GO111MODULE=off GOFLAGS= GOPATH='$(GO_SOURCES)' GOCACHE='$(abspath $(B))/bench/peers/cache' $(GO) build -o $@ $<
has_go = command -v $(GO) >/dev/null && [ -d '$(GO_SOURCES)/src/$(1)' ]

# Our driver computes what the cache, whose seed it knows, makes of a key.
hash_sources := $(addprefix src/base/,hash.c aes.c siphash.c)
$(eval $(call peer,aside,aside.c,:,,$$(driver_c) $$< $(hash_sources) $$(driver_link) -o $$@))
$(eval $(call peer,hand,hand.c,:,,$$(driver_c) $$< $$(driver_link) -o $$@))
$(eval $(call peer,uthash,uthash.c,$$(call has_header,$$(CC) -xc,uthash.h),uthash-dev,$$(driver_c) $$< $$(driver_link) -o $$@))
$(eval $(call peer,glib16,glib.c,$$(call has_packages,glib-2.0),libglib2.0-dev,$$(driver_c) $$$$($$(PKG_CONFIG) --cflags glib-2.0) $$< $$(driver_link) $$$$($$(PKG_CONFIG) --libs glib-2.0) -o $$@))
$(eval $(call peer,compact16,compact.c,$$(call has_packages,glib-2.0),libglib2.0-dev,$$(driver_c) $$$$($$(PKG_CONFIG) --cflags glib-2.0) $$< $$(driver_link) $$$$($$(PKG_CONFIG) --libs glib-2.0) -o $$@))
$(eval $(call peer,urcu,urcu.c,$$(call has_packages,liburcu-memb liburcu-cds),liburcu-dev,$$(driver_c) $$< $$(driver_link) $$$$($$(PKG_CONFIG) --libs liburcu-memb liburcu-cds) -o $$@))
$(eval $(call peer,cuckoo,cuckoo.cc,$$(call has_header,$$(CXX) -xc++,libcuckoo/cuckoohash_map.hh),libcuckoo-dev,$$(driver_cxx) $$< $$(driver_link) -o $$@))
$(eval $(call peer,caffeine,Caffeine.java,command -v $$(JAVAC) >/dev/null && [ -r $$(CAFFEINE) ],openjdk-17-jdk-headless libcaffeine-java,$$(JAVAC) -nowarn -d $$@.classes -cp $$(CAFFEINE) $$< && sed 's|@JAR@|$$(CAFFEINE)|' test/bench/peers/caffeine.sh > $$@ && chmod +x $$@))
$(eval $(call peer,ristretto,ristretto.go,$$(call has_go,github.com/dgraph-io/ristretto),golang-go golang-github-dgraph-io-ristretto-dev,$$(go_build)))
$(eval $(call peer,goflight,goflight.go,$$(call has_go,golang.org/x/sync/singleflight),golang-go golang-golang-x-sync-dev,$$(go_build)))

bench: $(suite_benches) $(group_peer) $(peer_drivers) ## ours beside every peer that is here: OUT=FOLDER, ARGS="--quick" (make bench-deps)
	@$(PYTHON) test/bench/suite.py --build '$(B)/bench' --out '$(or $(OUT),$(B)/bench/out)' --cc '$(CC)' $(ARGS)

# A hit of the template service over HTTP, beside a program that only answers. ARGS="PAIRS SECONDS".
.PHONY: bench-http-hit

bare_microhttpd := $(peers)/bare_microhttpd

$(bare_microhttpd): test/bench/peers/bare_microhttpd.c $(R)/options
	$(call say,CC bench/peers/bare_microhttpd.c)
	@mkdir -p $(@D)
	$(Q)$(CC) $(ours_language) $(ours_warnings) -O2 -g $(CPPFLAGS) $(CFLAGS) $< $(LDFLAGS) \
	    $(or $(shell $(PKG_CONFIG) --cflags --libs libmicrohttpd 2>/dev/null),-lmicrohttpd) -o $@

bench-http-hit: $(B)/template-service/template-service $(bare_microhttpd) ## a hit over HTTP, beside bare libmicrohttpd (make bench-deps)
	@sh test/bench/http_hit.sh $(B)/template-service/template-service $(bare_microhttpd) $(ARGS) || [ $$? -eq 77 ]

bench-deps: ## installs what `make bench` compares with
	@sh test/deps.sh bench

-include $(bench_programs:=.d)
