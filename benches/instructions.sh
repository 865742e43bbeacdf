#!/usr/bin/env bash
# Instructions per put and per hot get, by function: the same numbers whatever else the machine does.
# Called by `make instructions`; wants valgrind. PROGRAM DIRECTORY LINES
#
# Each figure is the difference of two runs, so opening, closing and the growth of the index are not in it. What copies or fills some
# KiB with one instruction is counted once for each step of that: its figure says little.
set -euo pipefail
program=$1 directory=$2 lines=$3
keys=50000

# count NAME ROUNDS GETS: instructions by function, in $directory/NAME.
count() {
    rm -rf "$directory/$1".* "$directory/store"
    valgrind --tool=callgrind --callgrind-out-file="$directory/$1.out" "$program" "$directory/store" "$keys" "$2" "$3" 2>"$directory/$1.log" ||
        { cat "$directory/$1.log" >&2; exit 1; }
    callgrind_annotate --threshold=100 --auto=no "$directory/$1.out" |
        awk '$2 ~ /^\(/ && !/PROGRAM TOTALS/ {
            count = $1; gsub(",", "", count)
            name = $0; sub(/^[ 0-9,]*\([ 0-9.]*%\) */, "", name); sub(/ \[.*/, "", name); sub(/^[^:]*:/, "", name)
            sum[name] += count
        } END { for (name in sum) printf "%d\t%s\n", sum[name], name }' >"$directory/$1"
    rm -rf "$directory/store"
}

# difference WHAT MORE LESS: per operation.
difference() {
    awk -F'\t' -v keys="$keys" -v what="$1" -v most="$lines" '
        NR == FNR { less[$2] = $1; next }
        { each = ($1 - less[$2]) / keys; total += each; printf "%.1f\t%s\n", each, $2 }
        END { printf "%.1f\tall, per %s\n", total, what }' "$directory/$3" "$directory/$2" |
        sort -rn | awk -F'\t' -v most="$lines" 'NR <= most + 1 && $1 >= 1 { printf "%8.1f  %s\n", $1, $2 }' | cut -c 1-130
    echo
}

mkdir -p "$directory"
count once 1 0
count twice 2 0
count read 1 "$keys"
difference put twice once
difference get read once
