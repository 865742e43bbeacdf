# The way in: `make demo` shows the library at work, `make test` runs every test there is. `make help` lists the rest.

TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
LIB_DIR    := $(TARGET_DIR)/release
CC         ?= cc
CXX        ?= c++
CARGO      ?= cargo
# What the demo stores.
FILES      ?= /usr/include
# For bench: make bench ARGS="--runs 5 only=get"
ARGS       ?=
# For models.
SCHEDULES  ?= 200000
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

##  make test       every test: Rust, C, io_uring denied, planted bugs, valgrind and sanitizers (if there), examples, benchmarks (a look)
test: lib
	@.ci/test

##  make examples   builds and runs every example
examples: lib
	@$(EXAMPLES) run

##  make valgrind   the quick C cases under valgrind
valgrind:
	@.ci/test valgrind

##  make asan       the C suite, C and Rust with AddressSanitizer (errors of memory, leaks); `.ci/sanitize asan --all`: slow cases too
asan:
	@.ci/test asan

##  make tsan       the same with ThreadSanitizer (races)
tsan:
	@.ci/test tsan

##  make ubsan      the same with UndefinedBehaviorSanitizer, in what is C
ubsan:
	@.ci/test ubsan

##  make fuzz       chance, thrown at what reads files, values and URLs; `.ci/fuzz RUNS SEED` for as many inputs as you like
fuzz:
	@.ci/fuzz

##  make bench      measures the library through the C API against its goals, some five minutes; ARGS="--help" lists the rows
bench: lib $(TARGET_DIR)/bench/bench
	@$(TARGET_DIR)/bench/bench --store $(TARGET_DIR)/bench/stores --report $(TARGET_DIR)/bench/report $(ARGS)

##  make bench-full the same at full length, half an hour; wants 12 GB of disk and 10 GB of memory
bench-full: lib $(TARGET_DIR)/bench/bench
	@$(TARGET_DIR)/bench/bench --full --store $(TARGET_DIR)/bench/stores --report $(TARGET_DIR)/bench/report-full $(ARGS)

##  make bench-peers  the same workloads with RocksDB, LevelDB, LMDB, WiredTiger and tkrzw, side by side
bench-peers: lib
	@.ci/peers-there
	@$(MAKE) --no-print-directory $(TARGET_DIR)/bench/peers
	@$(TARGET_DIR)/bench/peers --store $(TARGET_DIR)/bench/stores --report $(TARGET_DIR)/bench/peers.tsv $(ARGS)

##  make bench-studies  batch sizes, merging on and off, limits of merged groups
bench-studies: lib $(TARGET_DIR)/bench/bench
	@$(TARGET_DIR)/bench/bench --store $(TARGET_DIR)/bench/stores --report $(TARGET_DIR)/bench/studies only=Studies $(ARGS)

##  make bench-parts  encoding, index, commits and reads by themselves, with criterion; the report is in target/criterion/report
bench-parts:
	$(CARGO) bench --quiet --bench parts -- $(ARGS)

##  make instructions  instructions per put and per hot get, by function: wants valgrind, and no quiet machine
instructions: lib $(TARGET_DIR)/bench/instructions
	@benches/instructions.sh $(TARGET_DIR)/bench/instructions $(TARGET_DIR)/bench/counted 20

##  make ratios     what packing gains and costs, with every codec there is
ratios:
	$(CARGO) bench --quiet --features zstd --bench compression

##  make bench-storage  bytes on disk and written, time to open, memory per key, through the C API
bench-storage: lib $(TARGET_DIR)/bench/storage
	@$(TARGET_DIR)/bench/storage --store $(TARGET_DIR)/bench/stores $(ARGS)

##  make endurance  a mixed load for MINUTES (10); fails if memory, descriptors or disk keep growing
endurance: lib $(TARGET_DIR)/bench/storage
	@$(TARGET_DIR)/bench/storage --store $(TARGET_DIR)/bench/stores --minutes $(MINUTES) only=endurance $(ARGS)

BENCH_C     := $(CC) -std=gnu11 -O2 -g -Wall -Wextra -Wpedantic $(CFLAGS) -Iinclude -Ibenches
BENCH_LINK  := -L$(LIB_DIR) -lkvbatch -Wl,-rpath,$(abspath $(LIB_DIR)) -lm -pthread
BENCH_PARTS := alloc base drive figures get html latency made mixed plot put raw scale study sustained table threads zipf
BENCH_FILES := benches/bench.c $(BENCH_PARTS:%=benches/bench/%.c) benches/support.c

$(TARGET_DIR)/bench/bench: $(BENCH_FILES) benches/bench/bench.h benches/support.h $(wildcard include/kvserver/*.h)
	@mkdir -p $(TARGET_DIR)/bench
	$(BENCH_C) $(BENCH_FILES) $(BENCH_LINK) -o $@

$(TARGET_DIR)/bench/storage: benches/storage.c benches/support.c benches/support.h $(wildcard include/kvserver/*.h)
	@mkdir -p $(TARGET_DIR)/bench
	$(BENCH_C) benches/storage.c benches/support.c $(BENCH_LINK) -o $@

$(TARGET_DIR)/bench/instructions: benches/instructions.c benches/support.c benches/support.h $(wildcard include/kvserver/*.h)
	@mkdir -p $(TARGET_DIR)/bench
	$(BENCH_C) benches/instructions.c benches/support.c $(BENCH_LINK) -o $@

PEERS      := kvbatch rocksdb leveldb lmdb wiredtiger
PEER_FILES := benches/peers/peers.c $(PEERS:%=benches/peers/%.c) benches/support.c

$(TARGET_DIR)/bench/peers: $(PEER_FILES) benches/peers/tkrzw.cpp benches/peers/peer.h benches/support.h $(wildcard include/kvserver/*.h)
	@mkdir -p $(TARGET_DIR)/bench
	$(CXX) -std=c++17 -O2 -g -Wall -Wextra -c benches/peers/tkrzw.cpp -o $@-tkrzw.o
	$(BENCH_C) $(PEER_FILES) $@-tkrzw.o $(BENCH_LINK) -lrocksdb -lleveldb -llmdb -lwiredtiger -ltkrzw -lstdc++ -o $@

##  make soak       the large tests in full, with new seeds each round, for HOURS=1 hours or until the first violation
soak:
	@.ci/soak

##  make models     the concurrency under model checkers: loom tries all ways, shuttle SCHEDULES=200000 of the whole batch room
models:
	@KVBATCH_MODEL_SCHEDULES=$(SCHEDULES) .ci/test models

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

.PHONY: all help lib demo test examples valgrind asan tsan ubsan fuzz bench bench-full bench-studies bench-peers bench-parts \
    bench-storage instructions endurance ratios soak models cli coverage headers man lint clean
