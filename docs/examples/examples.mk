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

# Signed notifications, verified with certificates that are downloaded once and cached.

.PHONY: cert-cache

cert_cache_sources := $(sort $(wildcard docs/examples/cert-cache/*.c))
cert_cache_objects := $(cert_cache_sources:docs/examples/cert-cache/%.c=$(B)/cert-cache/%.o)
cert_cache_uses := libcurl libcrypto libmicrohttpd jansson
cert_cache_cflags = $(shell $(PKG_CONFIG) --cflags $(cert_cache_uses) 2>/dev/null)
cert_cache_libs = $(shell $(PKG_CONFIG) --libs $(cert_cache_uses) 2>/dev/null || echo -lcurl -lcrypto -lmicrohttpd -ljansson) -ldl

cert-cache: $(B)/cert-cache/cert-cache ## builds the example with signing certificates and runs it
	@$(B)/cert-cache/cert-cache $(ARGS)

$(B)/cert-cache/%.o: docs/examples/cert-cache/%.c $(R)/options
	$(call say,CC cert-cache/$*.c)
	@mkdir -p $(@D)
	$(Q)$(CC) -std=c11 -D_GNU_SOURCE -Iinclude -pthread $(ours_depend) $(ours_warnings) -O2 -g $(cert_cache_cflags) $(CPPFLAGS) $(CFLAGS) -c -o $@ $<

$(B)/cert-cache/cert-cache: $(cert_cache_objects) $(R_static)
	$(call say,LD cert-cache)
	$(Q)$(CC) -pthread $(CFLAGS) $(LDFLAGS) -o $@ $(cert_cache_objects) $(R_static) $(cert_cache_libs)

-include $(cert_cache_objects:.o=.d)

# Two event loops: programs to copy from.

.PHONY: loops

loops_epoll := epoll_sqlite lines
loops_uv := uv_pq postgres
loops_objects = $(patsubst %,$(B)/loops/%.o,$(1))
loops_cflags = $(shell $(PKG_CONFIG) --cflags sqlite3 libuv libpq 2>/dev/null)
loops_epoll_libs = $(shell $(PKG_CONFIG) --libs sqlite3 2>/dev/null || echo -lsqlite3)
loops_uv_libs = $(shell $(PKG_CONFIG) --libs libuv libpq 2>/dev/null || echo -luv -lpq)

loops: $(B)/loops/epoll_sqlite $(B)/loops/uv_pq ## builds the examples with event loops, in build/loops

$(B)/loops/%.o: docs/examples/loops/%.c $(R)/options
	$(call say,CC loops/$*.c)
	@mkdir -p $(@D)
	$(Q)$(CC) -std=c11 -D_GNU_SOURCE -Iinclude -pthread $(ours_depend) $(ours_warnings) -O2 -g $(loops_cflags) $(CPPFLAGS) $(CFLAGS) -c -o $@ $<

$(B)/loops/epoll_sqlite: $(call loops_objects,$(loops_epoll)) $(R_static)
	$(call say,LD epoll_sqlite)
	$(Q)$(CC) -pthread $(CFLAGS) $(LDFLAGS) -o $@ $^ $(loops_epoll_libs)

$(B)/loops/uv_pq: $(call loops_objects,$(loops_uv)) $(R_static)
	$(call say,LD uv_pq)
	$(Q)$(CC) -pthread $(CFLAGS) $(LDFLAGS) -o $@ $^ $(loops_uv_libs)

-include $(patsubst %.o,%.d,$(call loops_objects,$(loops_epoll) $(loops_uv)))

# A daemon to read, copy and load: HTTP in front, a database behind, the cache between.

.PHONY: template-service serve

service_sources := $(sort $(wildcard docs/examples/template-service/*.c))
service_objects := $(service_sources:docs/examples/template-service/%.c=$(B)/template-service/%.o) \
    $(B)/template-service/page.html.o
service_uses := libmicrohttpd sqlite3 libpq jansson
service_has_systemd := $(shell $(PKG_CONFIG) --exists libsystemd 2>/dev/null && echo libsystemd)
service_cflags = $(shell $(PKG_CONFIG) --cflags $(service_uses) $(service_has_systemd) 2>/dev/null) \
    $(if $(service_has_systemd),-DHAVE_SYSTEMD)
service_libs = $(shell $(PKG_CONFIG) --libs $(service_uses) $(service_has_systemd) 2>/dev/null || \
    echo -lmicrohttpd -lsqlite3 -lpq -ljansson)

# In the foreground, until Ctrl-C. Variables of make; then ARGS, for whatever else --help names.
PORT ?= 8080
DB ?= $(B)/template-service/templates.db

serve: ## installs what the template service needs, builds, fills and runs it: PORT=8080, DB=postgresql://..., ARGS=...
	@sh test/deps.sh serve
	@$(MAKE) --no-print-directory template-service
	@echo 'The live page: http://127.0.0.1:$(PORT)/    To stop: Ctrl-C'
	@exec $(B)/template-service/template-service --port $(PORT) --db '$(DB)' --change-every-ms 30000 $(ARGS)

template-service: $(B)/template-service/template-service ## builds the template service, in build/template-service

$(B)/template-service/%.o: docs/examples/template-service/%.c $(R)/options
	$(call say,CC template-service/$*.c)
	@mkdir -p $(@D)
	$(Q)$(CC) -std=c11 -D_GNU_SOURCE -Iinclude -pthread $(ours_depend) $(ours_warnings) -O2 -g $(service_cflags) $(CPPFLAGS) $(CFLAGS) -c -o $@ $<

# The page, as the bytes between two symbols.
$(B)/template-service/page.html.o: docs/examples/template-service/page.html
	$(call say,LD template-service/page.html)
	@mkdir -p $(@D)
	$(Q)cd $(<D) && $(LD) -r -z noexecstack -b binary -o $(abspath $@) $(<F)

$(B)/template-service/template-service: $(service_objects) $(R_static)
	$(call say,LD template-service)
	$(Q)$(CC) -pthread $(CFLAGS) $(LDFLAGS) -o $@ $(service_objects) $(R_static) $(service_libs)

-include $(patsubst %.o,%.d,$(service_objects))
