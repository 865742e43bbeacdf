/* What a program in C++ has of an installed library. Argument: a store. Built by packaging/test/run and CMakeLists.txt. */
#include <kvserver/kvbatch.hpp>

#include <iostream>

int main(int argc, char **argv)
try {
    if (argc != 2)
        return 2;
    kvbatch::manager manager(argv[1]);
    kvbatch::batch batch(manager);
    batch.put("key", "value");
    auto value = batch.get("key");
    batch.submit().get();
    return value.get() == "value" ? 0 : 1;
} catch (const std::exception &e) {
    std::cerr << e.what() << '\n';
    return 1;
}
