# How the library is handed on: the tarball, the Debian package, and whether a new library can stand in for the old one.

.PHONY: dist deb abi abi-update

packaging := docs/packaging
dist_name := libaside-$(VERSION)
dist_file := $(B)/$(dist_name).tar.gz

# ---- the tarball ----

TAR ?= tar
GZIP_PROGRAM ?= gzip
in_git := $(wildcard .git)

# The files that git knows, or, in a tree that came out of a tarball, all there are.
dist_list = $(if $(in_git),git -c core.quotePath=off ls-files,\
    find . -path ./build -prune -o -path ./.git -prune -o ! -type d -print | sed 's|^\./||')
# The day of the last commit; in a tree that came out of a tarball every file has it, so its tarball is the same again.
dist_epoch = $(or $(SOURCE_DATE_EPOCH),$(if $(in_git),$(shell git log -1 --format=%ct),$(shell stat -c %Y Makefile)))

dist: ## the tarball build/libaside-VERSION.tar.gz, the same bytes wherever it is made
	@mkdir -p $(B)
	$(if $(in_git),@git diff --quiet HEAD || echo "note: it will have changes that are not committed")
	$(Q)$(dist_list) | while read -r file; do if [ -e "$$file" ] || [ -L "$$file" ]; then echo "$$file"; fi; done | \
	    LC_ALL=C sort > $(B)/dist.list
	@[ -s $(B)/dist.list ]
	$(Q)$(TAR) --create --format=ustar --no-recursion --files-from=$(B)/dist.list --mtime=@$(dist_epoch) \
	    --owner=0 --group=0 --numeric-owner --mode=u+rwX,go+rX,go-w --transform='flags=r;s|^|$(dist_name)/|' \
	    --file=$(B)/$(dist_name).tar
	$(Q)$(GZIP_PROGRAM) -9nf $(B)/$(dist_name).tar
	@rm -f $(B)/dist.list
	@echo "$(dist_file)"

# ---- the Debian package ----

deb_version = $(shell sed -n '1s/^[a-z]* (\(.*\)-[^-]*) .*/\1/p' $(packaging)/debian/changelog)

# What was said to this make is not meant for the package's own build.
deb_unset := MAKEFLAGS MFLAGS MAKELEVEL MAKEFILES CC CFLAGS CPPFLAGS LDFLAGS PREFIX LIBDIR INCLUDEDIR MANDIR DESTDIR V WERROR

deb: dist ## the Debian packages, in build/deb
	@[ '$(deb_version)' = '$(VERSION)' ] || { echo "debian/changelog is about version $(deb_version), not $(VERSION)"; exit 1; }
	@rm -rf $(B)/deb
	@mkdir -p $(B)/deb
	$(Q)cp $(dist_file) $(B)/deb/libaside_$(VERSION).orig.tar.gz
	$(Q)$(TAR) -xzf $(dist_file) -C $(B)/deb
	$(Q)cp -R $(B)/deb/$(dist_name)/$(packaging)/debian $(B)/deb/$(dist_name)/debian
	$(Q)cd $(B)/deb/$(dist_name) && env $(addprefix -u ,$(deb_unset)) dpkg-buildpackage -us -uc -b
	@ls $(B)/deb/*.deb

# ---- what a program that was linked yesterday relies on ----

ABIDW ?= abidw
ABIDIFF ?= abidiff
# Types have other sizes elsewhere, so each kind of machine has a description of its own.
abi_kept = $(packaging)/abi/$(shell $(CC) -dumpmachine).abi
# The public headers alone, and nothing that depends on where it was built.
abi_options := --headers-dir include --exported-interfaces-only --drop-private-types --drop-undefined-syms --no-elf-needed \
    --no-corpus-path --no-comp-dir-path --no-show-locs --type-id-style hash

abi: all ## compares the library with the kept description of what it exports
	@ABIDIFF='$(ABIDIFF)' sh $(packaging)/abi/compare.sh '$(abi_kept)' $(R_shared) $(packaging)/abi/growth.ini \
	    $(ABIDW) $(abi_options)

abi-update: all ## keeps what the library exports now: for `make abi` and for the Debian package
	$(Q)$(ABIDW) $(abi_options) --out-file $(abi_kept).new $(R_shared) && mv $(abi_kept).new $(abi_kept)
	$(Q)sh $(packaging)/abi/symbols.sh $(R_shared) $(VERSION) $(packaging)/debian/libaside0.symbols
	@echo "written: $(abi_kept) $(packaging)/debian/libaside0.symbols"
