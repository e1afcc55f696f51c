# How fast the library is, beside its peers. Nothing here gates anything.

.PHONY: bench-hit bench-group bench-hitratio

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

-include $(bench_programs:=.d)
