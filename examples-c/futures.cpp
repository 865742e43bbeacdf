/*
 * futures.cpp: the C++ header: batches that end as futures, values as std::optional, errors as exceptions or codes.
 *
 *   c++ -std=c++17 -Iinclude examples-c/futures.cpp -Ltarget/release -lkvbatch -Wl,-rpath,$PWD/target/release -o futures
 *   ./futures [STORE]
 *
 * STORE is a directory (made if missing) or "memory:"; without it the environment variable KVBATCH_STORE decides,
 * else ./kvbatch-data.
 */
#include "kvserver/kvbatch.hpp"

#include <iostream>
#include <string>
#include <vector>

int main(int argc, char **argv)
try {
    /* Opens the store; its destructor closes it. */
    kvbatch::manager manager = argc > 1 ? kvbatch::manager(argv[1]) : kvbatch::manager();

    /* Several batches in flight; each future is ready when all of its batch is on stable storage. */
    std::vector<kvbatch::batch> batches;
    std::vector<std::future<kvbatch::outcome>> ends;
    for (int city = 0; city < 4; city++) {
        kvbatch::batch &batch = batches.emplace_back(manager);
        for (int day = 0; day < 100; day++)
            batch.put("city_" + std::to_string(city) + "/day_" + std::to_string(day), std::to_string(city * 100 + day));
        ends.push_back(batch.submit());
    }
    std::size_t stored = 0;
    for (auto &end : ends)
        stored += end.get().completed; // throws if an operation failed
    std::cout << stored << " values stored\n";

    /* A value through a future of its own; nothing if the key is not there. */
    kvbatch::batch reads(manager);
    auto value = reads.get("city_3/day_42");
    auto nowhere = reads.get("city_9/day_1");
    reads.remove("city_0/day_0", [](const kvbatch::operation &op) { std::cout << op.key() << " is gone\n"; });
    reads.submit().get();
    const bool as_stored = value.get() == "342" && !nowhere.get();

    /* Errors as codes, for programs without exceptions: a batch is submitted once. */
    std::error_code ec;
    reads.submit(nullptr, ec);
    std::cout << "submitted twice: " << ec.message() << '\n';

    std::cout << "what was read is " << (as_stored ? "as it was stored" : "CHANGED") << '\n';
    return as_stored && ec.value() == KV_ERR_INVALID_STATE ? 0 : 1;
} catch (const kvbatch::error &e) {
    std::cerr << e.name() << ": " << e.what() << '\n';
    return 1;
}
