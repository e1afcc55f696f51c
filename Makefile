# libaside. `make help` lists the targets; V=1 shows the commands; WERROR=1 makes warnings errors.
# Honoured: CC AR OBJCOPY CFLAGS CPPFLAGS LDFLAGS PREFIX LIBDIR INCLUDEDIR MANDIR DESTDIR.

PREFIX ?= /usr/local
LIBDIR ?= $(PREFIX)/lib
INCLUDEDIR ?= $(PREFIX)/include
MANDIR ?= $(PREFIX)/share/man
OBJCOPY ?= objcopy
INSTALL ?= install
PKG_CONFIG ?= pkg-config
JOBS ?= $(shell nproc 2>/dev/null || echo 2)

VERSION := $(shell sed -n 's/^.define ASIDE_VERSION "\(.*\)"/\1/p' include/aside/aside.h)
SONAME := libaside.so.$(firstword $(subst ., ,$(VERSION)))

B := build
R := $(B)/release

# `make` says what it does in one short line a file; $(Q) hides the command itself.
Q := $(if $(V),,@)
say = $(if $(V),@:,@echo "  $(1)")

# Options of ours come first, so that the user's, which follow, have the last word.
ours_language := -std=c11 -D_GNU_SOURCE -Iinclude -Isrc -pthread
ours_warnings := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wold-style-definition \
    -Wpointer-arith -Wwrite-strings -Wvla -Wundef -Wformat=2 $(if $(WERROR),-Werror)
# Unwind tables everywhere: a fetch may end its thread below us, and is cleaned up after.
ours_code := -fPIC -fexceptions -ftls-model=initial-exec -fvisibility=hidden
ours_depend = -MMD -MP

user_flags = $(CPPFLAGS) $(CFLAGS)
ours_fortify = $(if $(findstring _FORTIFY_SOURCE,$(user_flags))$(filter -O0 -Og,$(user_flags)),,-U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2)
ours_cf := $(if $(filter x86_64-% i686-% i386-%,$(shell $(CC) -dumpmachine 2>/dev/null)),-fcf-protection)
ours_hardening = -fstack-protector-strong -fstack-clash-protection $(ours_cf) $(ours_fortify)
ours_link = -Wl,-z,relro,-z,now,-z,nodelete,-z,noexecstack,-Bsymbolic-functions $(if $(findstring -fsanitize,$(user_flags) $(LDFLAGS)),,-Wl,-z,defs)

public_headers := $(sort $(wildcard include/aside/*.h))
man_pages := $(sort $(wildcard docs/man/*.3 docs/man/*.7))
library_sources := $(sort $(wildcard src/*/*.c))
R_objects := $(library_sources:src/%.c=$(R)/obj/%.o)
R_static := $(R)/libaside.a
R_shared := $(R)/libaside.so.$(VERSION)
R_links := $(R)/$(SONAME) $(R)/libaside.so
R_compile = $(CC) $(ours_language) $(ours_depend) $(ours_warnings) -O2 -g -DNDEBUG $(ours_code) $(ours_hardening) $(CPPFLAGS) $(CFLAGS)

.DEFAULT_GOAL := all
.DELETE_ON_ERROR:
.SUFFIXES:
.SECONDARY:
.PHONY: all help install uninstall clean deps FORCE

all: $(R_static) $(R_shared) $(R_links) ## the static and the shared library, in build/release (default)

help: ## this list
	@sed -n 's/^\([a-z][a-z-]*\):.*## \(.*\)/\1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "  %-18s %s\n", $$1, $$2 }'

# A file that changes when the command in it does, so that objects follow a change of options.
define remember
$(1): FORCE
	@mkdir -p $$(@D); printf '%s\n' '$$(subst ','\'',$(2))' | cmp -s - $$@ || printf '%s\n' '$$(subst ','\'',$(2))' > $$@
endef

$(eval $(call remember,$(R)/options,$$(R_compile) $$(LDFLAGS)))

$(R)/obj/%.o: src/%.c $(R)/options
	$(call say,CC $*.c)
	@mkdir -p $(@D)
	$(Q)$(R_compile) -c -o $@ $<

# One object with the library's own names made local: they cannot clash with those of a program.
# Objects for link-time optimisation cannot be treated so; they go into the archive as they are.
ifneq ($(findstring -flto,$(CFLAGS)),)
$(R_static): $(R_objects)
	$(call say,AR $(@F))
	@rm -f $@
	$(Q)$(AR) rcs $@ $^
else
$(R)/aside.o: $(R_objects)
	$(Q)$(CC) $(CFLAGS) -nostdlib -r -o $@ $^
	$(Q)$(OBJCOPY) --localize-hidden $@

$(R_static): $(R)/aside.o
	$(call say,AR $(@F))
	@rm -f $@
	$(Q)$(AR) rcs $@ $<
endif

$(R_shared): $(R_objects) src/libaside.map
	$(call say,LD $(@F))
	$(Q)$(CC) -shared -pthread $(ours_link) -Wl,-soname,$(SONAME) -Wl,--version-script=src/libaside.map $(CFLAGS) $(LDFLAGS) -o $@ $(R_objects)

$(R_links): $(R_shared)
	@ln -sf $(<F) $@

# What is said of directories is said from ${prefix}, where they lie below it, so that a moved tree works.
below_prefix = $(patsubst $(PREFIX)/%,$${prefix}/%,$(1))
fill_in = sed -e 's|@PREFIX@|$(PREFIX)|g' -e 's|@LIBDIR@|$(LIBDIR)|g' -e 's|@INCLUDEDIR@|$(INCLUDEDIR)|g' \
    -e 's|@LIBDIR_BELOW@|$(call below_prefix,$(LIBDIR))|g' -e 's|@INCLUDEDIR_BELOW@|$(call below_prefix,$(INCLUDEDIR))|g' \
    -e 's|@VERSION@|$(VERSION)|g' -e 's|@SONAME@|$(SONAME)|g'
# A function that shares a page with another one is a link to it.
install_page = if [ -L $(1) ]; then ln -sf "$$(readlink $(1))" '$(2)/$(notdir $(1))'; else $(INSTALL) -m 644 $(1) '$(2)/'; fi
cmake_dir = $(LIBDIR)/cmake/aside
cmake_files := aside-config.cmake aside-config-version.cmake

# What install puts there and uninstall takes away.
installed = $(public_headers:include/%='$(DESTDIR)$(INCLUDEDIR)/%') '$(DESTDIR)$(LIBDIR)/pkgconfig/aside.pc' \
    $(foreach name,libaside.a libaside.so $(SONAME) libaside.so.$(VERSION),'$(DESTDIR)$(LIBDIR)/$(name)') \
    $(cmake_files:%='$(DESTDIR)$(cmake_dir)/%') \
    $(foreach page,$(man_pages),'$(DESTDIR)$(MANDIR)/man$(subst .,,$(suffix $(page)))/$(notdir $(page))')

install: all ## headers, libraries, manual pages, files for pkg-config and CMake, under $(DESTDIR)$(PREFIX)
	$(Q)$(INSTALL) -d '$(DESTDIR)$(INCLUDEDIR)/aside' '$(DESTDIR)$(LIBDIR)/pkgconfig' '$(DESTDIR)$(cmake_dir)'
	$(Q)$(INSTALL) -m 644 $(public_headers) '$(DESTDIR)$(INCLUDEDIR)/aside/'
	$(Q)$(INSTALL) -m 644 $(R_static) '$(DESTDIR)$(LIBDIR)/'
	$(Q)$(INSTALL) -m 755 $(R_shared) '$(DESTDIR)$(LIBDIR)/'
	$(Q)ln -sf $(notdir $(R_shared)) '$(DESTDIR)$(LIBDIR)/$(SONAME)'
	$(Q)ln -sf $(SONAME) '$(DESTDIR)$(LIBDIR)/libaside.so'
	$(Q)$(fill_in) src/aside.pc.in > '$(DESTDIR)$(LIBDIR)/pkgconfig/aside.pc'
	$(Q)chmod 644 '$(DESTDIR)$(LIBDIR)/pkgconfig/aside.pc'
	$(Q)for file in $(cmake_files); do \
	    $(fill_in) docs/packaging/cmake/$$file.in > '$(DESTDIR)$(cmake_dir)/'$$file && chmod 644 '$(DESTDIR)$(cmake_dir)/'$$file || exit 1; \
	done
	$(Q)$(if $(man_pages),$(INSTALL) -d '$(DESTDIR)$(MANDIR)/man3' '$(DESTDIR)$(MANDIR)/man7')
	$(Q)$(foreach page,$(man_pages),$(call install_page,$(page),$(DESTDIR)$(MANDIR)/man$(subst .,,$(suffix $(page)))) &&) :
	@echo "installed under $(DESTDIR)$(PREFIX)"

uninstall: ## removes what install put there
	$(Q)rm -f $(installed)
	$(Q)rmdir '$(DESTDIR)$(INCLUDEDIR)/aside' '$(DESTDIR)$(cmake_dir)' 2>/dev/null || :

clean: ## removes build/
	$(Q)rm -rf $(B)

deps: ## installs or names what DEPS needs: build, demo, test (default) or check-all
	@sh test/deps.sh $(or $(DEPS),test)

-include $(R_objects:.o=.d)
include docs/examples/examples.mk
include docs/packaging/packaging.mk
include test/test.mk
