# What packagers need of the Makefile, which includes this: the static library, install, uninstall, a source archive.
#
#   make install PREFIX=/usr LIBDIR=/usr/lib/x86_64-linux-gnu DESTDIR=/tmp/image
#
# Every file that is installed is named by one of the lists below, so that uninstall takes away what install has put there.
# Must never write outside of DESTDIR and the target directory.

PREFIX     ?= /usr/local
BINDIR     ?= $(PREFIX)/bin
LIBDIR     ?= $(PREFIX)/lib
INCLUDEDIR ?= $(PREFIX)/include
MANDIR     ?= $(PREFIX)/share/man
DESTDIR    ?=
# Whether the program kvbatch is built and installed, too; it is what takes the time.
CLI        ?= yes

INSTALL ?= install
LD      ?= ld
AR      ?= ar
OBJCOPY ?= objcopy
STRIP   ?= strip
NM      ?= nm

# The one place that knows the version is Cargo.toml: the first line of this form is the package's.
VERSION  := $(shell sed -n '/^version = /{s/.*"\(.*\)"/\1/p;q;}' Cargo.toml)
MAJOR    := $(firstword $(subst ., ,$(VERSION)))
SO       := libkvbatch.so
SO_MAJOR := $(SO).$(MAJOR)
SO_FULL  := $(SO).$(VERSION)

EXPORTS      := ffi-tests/exports.txt
STATIC_DIR   := $(TARGET_DIR)/static
STATIC_LIB   := $(STATIC_DIR)/libkvbatch.a
STAGE        := $(TARGET_DIR)/install
DIST_NAME    := kvbatch-$(VERSION)
# What a static program needs beside the library; kvbatch.pc and the CMake package say the same. The unwinder is not among
# them: compilers link the form of it that fits, and naming the shared one would forbid -static.
STATIC_NEEDS := -lutil -lrt -lpthread -lm -ldl

HEADERS := $(notdir $(wildcard include/kvserver/*.h include/kvserver/*.hpp))
PAGES_1 := $(if $(filter yes,$(CLI)),kvbatch.1)
PAGES_3 := $(notdir $(wildcard docs/man/*.3))
PAGES_7 := $(notdir $(wildcard docs/man/*.7))
# Each page of section 3 is found by the name of every function that its NAME section lists.
ALIASES := $(filter-out $(PAGES_3),$(addsuffix .3,$(shell packaging/page-names docs/man/*.3)))

CMAKE_DIR := $(LIBDIR)/cmake/kvbatch
PC_DIR    := $(LIBDIR)/pkgconfig

FILL = sed -e 's|@VERSION@|$(VERSION)|g' -e 's|@MAJOR@|$(MAJOR)|g' -e 's|@PREFIX@|$(PREFIX)|g' -e 's|@LIBDIR@|$(LIBDIR)|g' \
	-e 's|@INCLUDEDIR@|$(INCLUDEDIR)|g' -e 's|@STATIC_NEEDS@|$(STATIC_NEEDS)|g' \
	-e 's|@LIBDIR_BACK@|$(shell realpath -m --relative-to="$(CMAKE_DIR)" "$(LIBDIR)")|g' \
	-e 's|@INCLUDEDIR_BACK@|$(shell realpath -m --relative-to="$(CMAKE_DIR)" "$(INCLUDEDIR)")|g'

##  make static     target/static/libkvbatch.a, in which nothing but the library's own names is visible
static: lib $(STATIC_LIB)

# Rust's archive holds all that it was built from, under global names that may clash with those of the program. Here the part
# that our functions need is linked into one object, and all names but ours are made its own. Groups are dissolved on the way:
# a linker that drops one, because it has met its like in another Rust library, would leave ours without what was in it.
$(STATIC_LIB): $(LIB_DIR)/libkvbatch.a $(EXPORTS) packaging/install.mk
	@rm -rf $(STATIC_DIR) && mkdir -p $(STATIC_DIR)
	$(LD) -r --gc-sections --force-group-allocation $$(sed 's/^/-u /' $(EXPORTS)) $< -o $(STATIC_DIR)/all.o
	$(OBJCOPY) --keep-global-symbols=$(EXPORTS) --strip-unneeded -R .llvmbc -R .llvmcmd $(STATIC_DIR)/all.o $(STATIC_DIR)/kvbatch.o
	$(AR) crsD $@ $(STATIC_DIR)/kvbatch.o
	@rm $(STATIC_DIR)/all.o $(STATIC_DIR)/kvbatch.o

# `sudo make install` often meets no cargo, or an old one: none is asked if what is there is newer than the source.
BUILT := $(LIB_DIR)/$(SO) $(STATIC_LIB) $(if $(filter yes,$(CLI)),$(LIB_DIR)/kvbatch)
built:
	@for file in $(BUILT); do \
		[ -f $$file ] && [ -z "$$(find src build.rs Cargo.toml Cargo.lock -newer $$file)" ] && continue; \
		command -v $(firstword $(CARGO)) >/dev/null || \
			{ echo "$$file has to be built and there is no cargo: run make static cli first, as yourself" >&2; exit 1; }; \
		exec $(MAKE) --no-print-directory $(if $(filter yes,$(CLI)),cli) static; \
	done

##  make install    below PREFIX (/usr/local); LIBDIR, INCLUDEDIR, DESTDIR; CLI=no leaves the program out
install: built
	@rm -rf $(STAGE) && mkdir -p $(STAGE)
	@for file in kvbatch.pc kvbatchConfig.cmake kvbatchConfigVersion.cmake; do $(FILL) packaging/$$file.in >$(STAGE)/$$file || exit 1; done
	@for page in $(PAGES_1) $(PAGES_3) $(PAGES_7); do $(FILL) docs/man/$$page >$(STAGE)/$$page || exit 1; done
	@packaging/page-names --aliases $(STAGE) $(addprefix docs/man/,$(PAGES_3))
	$(INSTALL) -d "$(DESTDIR)$(LIBDIR)" "$(DESTDIR)$(PC_DIR)" "$(DESTDIR)$(CMAKE_DIR)" "$(DESTDIR)$(INCLUDEDIR)/kvserver" \
		"$(DESTDIR)$(MANDIR)/man3" "$(DESTDIR)$(MANDIR)/man7" $(if $(PAGES_1),"$(DESTDIR)$(MANDIR)/man1" "$(DESTDIR)$(BINDIR)")
	$(INSTALL) -m 755 $(LIB_DIR)/$(SO) "$(DESTDIR)$(LIBDIR)/$(SO_FULL)"
	ln -sf $(SO_FULL) "$(DESTDIR)$(LIBDIR)/$(SO_MAJOR)"
	ln -sf $(SO_MAJOR) "$(DESTDIR)$(LIBDIR)/$(SO)"
	$(INSTALL) -m 644 $(STATIC_LIB) "$(DESTDIR)$(LIBDIR)"
	$(INSTALL) -m 644 $(addprefix include/kvserver/,$(HEADERS)) "$(DESTDIR)$(INCLUDEDIR)/kvserver"
	$(INSTALL) -m 644 $(STAGE)/kvbatch.pc "$(DESTDIR)$(PC_DIR)"
	$(INSTALL) -m 644 $(STAGE)/kvbatchConfig.cmake $(STAGE)/kvbatchConfigVersion.cmake "$(DESTDIR)$(CMAKE_DIR)"
	@$(INSTALL) -m 644 $(addprefix $(STAGE)/,$(PAGES_3) $(ALIASES)) "$(DESTDIR)$(MANDIR)/man3"
	$(INSTALL) -m 644 $(addprefix $(STAGE)/,$(PAGES_7)) "$(DESTDIR)$(MANDIR)/man7"
	$(if $(PAGES_1),$(INSTALL) -m 644 $(STAGE)/$(PAGES_1) "$(DESTDIR)$(MANDIR)/man1")
	$(if $(PAGES_1),$(INSTALL) -m 755 $(LIB_DIR)/kvbatch "$(DESTDIR)$(BINDIR)")

##  make install-strip  the same, without what debuggers read
install-strip: install
	$(STRIP) --strip-unneeded "$(DESTDIR)$(LIBDIR)/$(SO_FULL)"
	$(if $(PAGES_1),$(STRIP) "$(DESTDIR)$(BINDIR)/kvbatch")

##  make uninstall  takes away what install with the same variables has put there
uninstall:
	@rm -f $(addprefix "$(DESTDIR)$(LIBDIR)"/,$(SO) $(SO_MAJOR) $(SO_FULL) libkvbatch.a) "$(DESTDIR)$(PC_DIR)/kvbatch.pc" \
		$(addprefix "$(DESTDIR)$(CMAKE_DIR)"/,kvbatchConfig.cmake kvbatchConfigVersion.cmake) \
		$(addprefix "$(DESTDIR)$(INCLUDEDIR)/kvserver"/,$(HEADERS)) "$(DESTDIR)$(BINDIR)/kvbatch" "$(DESTDIR)$(MANDIR)/man1/kvbatch.1" \
		$(addprefix "$(DESTDIR)$(MANDIR)/man3"/,$(PAGES_3) $(ALIASES)) $(addprefix "$(DESTDIR)$(MANDIR)/man7"/,$(PAGES_7))
	@for dir in "$(DESTDIR)$(CMAKE_DIR)" "$(DESTDIR)$(INCLUDEDIR)/kvserver"; do [ ! -d "$$dir" ] || rmdir --ignore-fail-on-non-empty "$$dir"; done

##  make dist       target/kvbatch-VERSION.tar.gz: the source as it is committed
dist:
	@git rev-parse --git-dir >/dev/null || { echo "make dist wants a clone of the repository: it packs what is committed" >&2; exit 1; }
	git archive --format=tar.gz --prefix=$(DIST_NAME)/ -o $(TARGET_DIR_ABS)/$(DIST_NAME).tar.gz HEAD
	@echo $(TARGET_DIR)/$(DIST_NAME).tar.gz

##  make install-test   installs below the target directory, builds programs against that, uninstalls; the program included
install-test:
	@packaging/test/run --full

.PHONY: static built install install-strip uninstall dist install-test
