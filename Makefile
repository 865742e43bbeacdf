# The way in: `make demo` shows the library at work, `make test` runs every test there is. `make help` lists the rest.

TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
LIB_DIR    := $(TARGET_DIR)/release
CC         ?= cc
CARGO      ?= cargo
# What the demo stores.
FILES      ?= /usr/include
# For bench: make bench ARGS="--runs 5 only=get"
ARGS       ?=
# For endurance.
MINUTES    ?= 10

export TARGET_DIR_ABS := $(abspath $(TARGET_DIR))
EXAMPLES := $(MAKE) --no-print-directory -C examples-c TARGET_DIR=$(TARGET_DIR_ABS) FILES=$(FILES)

all: lib

help:
	@sed -n 's/^##//p' Makefile packaging/install.mk

##  make            the library: target/release/libkvbatch.so, .so.1 and .a
lib:
	$(CARGO) build --release --lib
	@ln -sf libkvbatch.so $(LIB_DIR)/$(SO_MAJOR)

##  make demo       builds the library, stores real files, reads them back in a second process
demo: lib
	@$(EXAMPLES) STORES=$(TARGET_DIR_ABS)/demo demo

##  make test       every test: Rust, C, io_uring denied, planted bugs, valgrind (if there), examples
test: lib
	@.ci/test

##  make examples   builds and runs every example
examples: lib
	@$(EXAMPLES) run

##  make valgrind   the quick C cases under valgrind
valgrind:
	@.ci/test valgrind

##  make bench      the benchmarks through the C API; with ARGS (try "--help") only the one for speed
bench: lib $(TARGET_DIR)/bench/bench $(TARGET_DIR)/bench/storage
	@$(TARGET_DIR)/bench/bench --store $(TARGET_DIR)/bench/stores $(ARGS)
	@[ -n "$(ARGS)" ] || { echo; $(TARGET_DIR)/bench/storage --store $(TARGET_DIR)/bench/stores; }

##  make ratios     what packing gains and costs, with every codec there is
ratios:
	$(CARGO) bench --quiet --features zstd --bench compression

##  make bench-storage  bytes on disk and written, time to open, memory per key, through the C API
bench-storage: lib $(TARGET_DIR)/bench/storage
	@$(TARGET_DIR)/bench/storage --store $(TARGET_DIR)/bench/stores $(ARGS)

##  make endurance  a mixed load for MINUTES (10); fails if memory, descriptors or disk keep growing
endurance: lib $(TARGET_DIR)/bench/storage
	@$(TARGET_DIR)/bench/storage --store $(TARGET_DIR)/bench/stores --minutes $(MINUTES) only=endurance $(ARGS)

$(TARGET_DIR)/bench/%: benches/%.c benches/support.h $(wildcard include/kvserver/*.h)
	@mkdir -p $(TARGET_DIR)/bench
	$(CC) -std=gnu11 -O2 -g -Wall -Wextra -Wpedantic $(CFLAGS) -Iinclude $< -L$(LIB_DIR) -lkvbatch -Wl,-rpath,$(abspath $(LIB_DIR)) -o $@

##  make soak       the large tests in full, with new seeds each round, for HOURS=1 hours or until the first violation
soak:
	@.ci/soak

##  make cli        the program kvbatch, target/release/kvbatch: looks after stores (docs/man/kvbatch.1)
cli:
	$(CARGO) build --release --features cli --bin kvbatch

##  make coverage   line coverage of src by all tests, Rust and C; fails below 85 %
coverage:
	@.ci/coverage

##  make headers    writes include/kvserver/*.h anew from the source
headers:
	KVBATCH_BLESS=1 $(CARGO) test --quiet --test headers

##  make man        writes the pages of section 3 in docs/man anew from the headers
man:
	KVBATCH_BLESS=1 $(CARGO) test --quiet --test man pages_are

##  make lint       format and lints, as continuous integration wants them
lint:
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets --quiet -- -D warnings
	$(CARGO) clippy --all-targets --all-features --quiet -- -D warnings

include packaging/install.mk

##  make clean      takes away everything that was built
clean:
	$(CARGO) clean

.PHONY: all help lib demo test examples valgrind bench bench-storage endurance ratios soak cli coverage headers man lint clean
