# The demo: a program on SQLite, built on the static library and run.

.PHONY: demo

demo_sources := $(sort $(wildcard docs/examples/demo/*.c))
demo_objects := $(demo_sources:docs/examples/demo/%.c=$(B)/demo/%.o)
demo_cflags = $(shell $(PKG_CONFIG) --cflags sqlite3 2>/dev/null)
demo_libs = $(shell $(PKG_CONFIG) --libs sqlite3 2>/dev/null || echo -lsqlite3) -lm

demo: $(B)/demo/demo ## builds the demo on SQLite and runs it
	@$(B)/demo/demo

$(B)/demo/%.o: docs/examples/demo/%.c $(R)/options
	$(call say,CC demo/$*.c)
	@mkdir -p $(@D)
	$(Q)$(CC) -std=c11 -D_GNU_SOURCE -Iinclude -pthread $(ours_depend) $(ours_warnings) -O2 -g $(demo_cflags) $(CPPFLAGS) $(CFLAGS) -c -o $@ $<

$(B)/demo/demo: $(demo_objects) $(R_static)
	$(call say,LD demo)
	$(Q)$(CC) -pthread $(CFLAGS) $(LDFLAGS) -o $@ $(demo_objects) $(R_static) $(demo_libs)

-include $(demo_objects:.o=.d)
