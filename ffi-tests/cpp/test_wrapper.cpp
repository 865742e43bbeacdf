/* Holds include/kvserver/kvbatch.hpp to what it says. Driven like the C cases (main.rs): one process per case, in an empty
 * directory, with KVBATCH_STORE naming a fresh path inside it. Exit code 0: passed. */
#include "kvserver/kvbatch.hpp"

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <stdexcept>
#include <thread>
#include <vector>

using namespace std::chrono_literals;

namespace {

std::map<std::string, void (*)()> &cases()
{
    static std::map<std::string, void (*)()> all;
    return all;
}

struct registered {
    registered(const char *name, void (*run)()) { cases()[name] = run; }
};

[[noreturn]] void fail(int line, const char *text)
{
    std::fprintf(stderr, "%s:%d: not true: %s (last error: %s)\n", __FILE__, line, text, kv_get_last_error()->message);
    std::_Exit(1);
}

#define TEST(name)                          \
    void name();                            \
    const registered add_##name(#name, name); \
    void name()
#define CHECK(condition)                \
    do {                                \
        if (!(condition))               \
            fail(__LINE__, #condition); \
    } while (0)

/* The code of the kvbatch::error that a call throws; -1: it throws nothing. */
template <class Call> int thrown_code(Call call)
{
    try {
        call();
    } catch (const kvbatch::error &e) {
        CHECK(e.code().category() == kvbatch::category());
        CHECK(std::strlen(e.what()) > 0);
        CHECK(e.name() == std::string(kv_get_error_name(e.code().value())));
        return e.code().value();
    }
    return -1;
}

std::optional<std::string> stored(const kvbatch::manager &manager, std::string_view key)
{
    kvbatch::batch batch(manager);
    auto value = batch.get(key);
    batch.submit().get();
    return value.get();
}

void store(const kvbatch::manager &manager, std::string_view key, std::string_view value)
{
    kvbatch::batch batch(manager);
    batch.put(key, value);
    batch.submit().get();
}

TEST(values_come_back_through_futures)
{
    kvbatch::manager manager;
    {
        kvbatch::batch batch(manager, 10);
        CHECK(batch.status() == KV_ASYNC_BATCH_PENDING);
        batch.put("name", "Ada");
        batch.put("empty", std::string_view());
        batch.put(std::string_view("a\0b", 3), std::string_view("\0\xff", 2));
        const kvbatch::outcome outcome = batch.submit().get();
        CHECK(outcome.completed == 3 && outcome.failed == 0);
    }
    CHECK(stored(manager, "name") == "Ada");
    CHECK(stored(manager, "empty") == "");
    CHECK(stored(manager, std::string_view("a\0b", 3)) == std::string("\0\xff", 2));
    CHECK(!stored(manager, "a").has_value());
    manager.stop();
    CHECK(thrown_code([&] { stored(manager, "name"); }) == KV_ERR_INVALID_STATE);
    manager.start();
    CHECK(stored(manager, "name") == "Ada");
    CHECK(manager.stats().failed_operations == 0);
}

TEST(a_store_is_named_by_its_url)
{
    {
        kvbatch::manager one("file:one?min_fill_rate=40"), other(std::string("other"));
        store(one, "k", "of one");
        store(other, "k", "of other");
        CHECK(stored(one, "k") == "of one");
        CHECK(stored(other, "k") == "of other");
    }
    kvbatch::config settings = kvbatch::default_config();
    settings.max_batch_size = 1;
    std::error_code ec;
    kvbatch::manager again("one", settings, ec);
    CHECK(!ec && stored(again, "k") == "of one");
    kvbatch::batch batch(again);
    batch.put("k", "v");
    CHECK(thrown_code([&] { batch.put("l", "v"); }) == KV_ERR_BATCH_FULL);
    CHECK(thrown_code([] { kvbatch::manager none("file:x?no_option=1"); }) == KV_ERR_INVALID_PARAM);
    kvbatch::manager none("", settings, ec);
    CHECK(ec.value() == KV_ERR_INVALID_PARAM && none.get() == nullptr);
}

TEST(an_update_needs_a_key_that_is_there)
{
    kvbatch::manager manager;
    store(manager, "there", "old");
    kvbatch::batch batch(manager);
    int code = -1;
    batch.update("there", "new");
    std::error_code ec;
    batch.update("missing", "new", [&code](const kvbatch::operation &op) { code = op.code(); }, ec);
    CHECK(!ec);
    CHECK(thrown_code([&] { batch.submit().get(); }) == KV_ERR_BATCH_FAILED);
    CHECK(code == KV_ERR_KEY_NOT_FOUND);
    CHECK(stored(manager, "there") == "new" && !stored(manager, "missing").has_value());
}

TEST(callbacks_see_their_operations_in_order)
{
    kvbatch::manager manager;
    kvbatch::batch batch(manager);
    std::string seen;
    auto note = [&seen](const kvbatch::operation &op) {
        seen += std::string(kv_async_batch_op_name(op.type())) + " " + std::string(op.key()) + "=";
        seen += op.value() ? std::string(*op.value()) : "-";
        seen += (op.ok() ? "" : "!" + std::to_string(op.code())) + std::string("; ");
    };
    batch.put("k", "1", note);
    batch.get("k", note);
    batch.remove("k", note);
    batch.get("k", note);
    batch.submit([&seen](kvbatch::outcome outcome) { seen += std::to_string(outcome.completed) + " done"; });
    batch.wait();
    CHECK(seen == "PUT k=1; GET k=1; DELETE k=-; GET k=-!29; 4 done");
    CHECK(batch.status() == KV_ASYNC_BATCH_COMPLETED);
    CHECK(batch.stats().completed_operations == 4);
    CHECK(batch.wait_for(0ms));
}

TEST(a_future_needs_nobody_who_waits_and_no_batch)
{
    kvbatch::manager manager;
    std::future<kvbatch::outcome> end;
    {
        kvbatch::batch batch(manager);
        batch.put("k", "v");
        end = batch.submit();
    } // in flight: waited for
    CHECK(end.wait_for(0s) == std::future_status::ready);
    CHECK(end.get().completed == 1);
    kvbatch::batch dropped(manager);
    auto value = dropped.get("k");
    dropped = kvbatch::batch(manager);
    try {
        value.get();
        CHECK(!"a value of a batch that was never submitted");
    } catch (const std::future_error &e) {
        CHECK(e.code() == std::future_errc::broken_promise);
    }
}

TEST(failures_are_exceptions_or_codes)
{
    std::error_code ec = kvbatch::make_error_code(KV_ERR_IO);
    kvbatch::config config = kvbatch::default_config();
    config.max_batch_size = 0;
    CHECK(thrown_code([&] { kvbatch::manager refused(config); }) == KV_ERR_INVALID_PARAM);
    kvbatch::manager none(config, ec);
    CHECK(ec == kvbatch::make_error_code(KV_ERR_INVALID_PARAM) && !none && none.get() == nullptr);
    CHECK(thrown_code([&] { none.start(); }) == KV_ERR_NULL_POINTER);
    CHECK(thrown_code([&] { kvbatch::batch refused(none); }) == KV_ERR_NULL_POINTER);
    kvbatch::batch nothing(none, 1, ec);
    CHECK(ec.value() == KV_ERR_NULL_POINTER && ec.message() == kv_get_error_desc(KV_ERR_NULL_POINTER));
    CHECK(thrown_code([&] { nothing.put("k", "v", [](const kvbatch::operation &) {}); }) == KV_ERR_NULL_POINTER);
    CHECK(thrown_code([&] { nothing.submit(); }) == KV_ERR_NULL_POINTER);
    CHECK(thrown_code([&] { nothing.wait(); }) == KV_ERR_NULL_POINTER);
    CHECK(nothing.wait_for(0ms, ec) && ec.value() == KV_ERR_NULL_POINTER);
    CHECK(nothing.status() == KV_ASYNC_BATCH_FAILED);

    kvbatch::manager manager(kvbatch::default_config(), ec);
    CHECK(!ec && manager);
    kvbatch::batch batch(manager, 1);
    CHECK(thrown_code([&] { batch.submit(); }) == KV_ERR_INVALID_PARAM); // empty
    CHECK(thrown_code([&] { batch.put("", "v"); }) == KV_ERR_NULL_POINTER);
    CHECK(thrown_code([&] { batch.put(std::string(65536, 'k'), "v"); }) == KV_ERR_KEY_TOO_LONG);
    CHECK(thrown_code([&] { batch.wait(); }) == KV_ERR_INVALID_STATE);
    batch.put("k", "v");
    int called = 0;
    batch.get("k", [&](const kvbatch::operation &) { called++; }, ec);
    CHECK(ec.value() == KV_ERR_BATCH_FULL);
    batch.submit(nullptr, ec);
    CHECK(!ec);
    batch.submit(nullptr, ec);
    CHECK(ec.value() == KV_ERR_INVALID_STATE);
    while (!batch.wait_for(1h, ec)) {
    }
    CHECK(!ec && called == 0);
    batch.cancel(ec);
    CHECK(!ec); // has ended
    manager.stop(ec);
    CHECK(!ec);
}

/* Memory that has run out for values: what a large GET meets. */
std::atomic<bool> scarce{false};

void *allocate(size_t size)
{
    return scarce && size > 100000 ? nullptr : std::malloc(size);
}

TEST(a_failed_batch_throws_from_wait_and_from_its_futures)
{
    kvbatch::config config = kvbatch::default_config();
    config.alloc_func = allocate;
    kvbatch::manager manager(config);
    store(manager, "large", std::string(1000000, 'x'));
    scarce = true;
    kvbatch::batch batch(manager);
    auto value = batch.get("large");
    auto missing = batch.get("missing");
    auto end = batch.submit();
    CHECK(thrown_code([&] { end.get(); }) == KV_ERR_BATCH_FAILED);
    CHECK(thrown_code([&] { batch.wait(); }) == KV_ERR_BATCH_FAILED);
    CHECK(thrown_code([&] { value.get(); }) == KV_ERR_MEM);
    CHECK(!missing.get().has_value());
    std::error_code ec;
    CHECK(batch.wait_for(0s, ec) && ec.value() == KV_ERR_BATCH_FAILED);
    scarce = false;
    CHECK(stored(manager, "large") == std::string(1000000, 'x'));
}

TEST(a_cancelled_batch_says_so_in_every_way)
{
    kvbatch::manager manager;
    kvbatch::batch pending(manager);
    pending.put("k", "v");
    pending.cancel();
    CHECK(pending.status() == KV_ASYNC_BATCH_CANCELLED);
    CHECK(thrown_code([&] { pending.submit(); }) == KV_ERR_INVALID_STATE);
    CHECK(thrown_code([&] { pending.wait(); }) == KV_ERR_CANCELLED);
    /* Behind others in the queue; should one be carried out before it can be cancelled, the next is tried. */
    for (bool met = false; !met;) {
        std::vector<kvbatch::batch> busy;
        for (int i = 0; i < 40; i++) {
            busy.emplace_back(manager);
            busy.back().put("big", std::string(100000, 'x'));
        }
        kvbatch::batch batch(manager);
        auto value = batch.get("k");
        for (auto &one : busy)
            one.submit(nullptr);
        auto end = batch.submit();
        std::error_code ec;
        batch.cancel(ec);
        CHECK(!ec || ec.value() == KV_ERR_BUSY);
        const int code = thrown_code([&] { end.get(); });
        CHECK(code == -1 || code == KV_ERR_CANCELLED);
        CHECK(thrown_code([&] { batch.wait(); }) == code);
        CHECK(thrown_code([&] { value.get(); }) == code);
        met = code == KV_ERR_CANCELLED;
    }
}

TEST(an_exception_in_a_callback_goes_no_further_than_the_batch)
{
    kvbatch::manager manager;
    for (int from_complete = 0; from_complete < 2; from_complete++) {
        kvbatch::batch batch(manager);
        std::atomic<int> called{0};
        batch.put("k", "v", [&](const kvbatch::operation &) {
            called++;
            if (!from_complete)
                throw std::runtime_error("first");
        });
        batch.put("l", "v", [&](const kvbatch::operation &) {
            called++;
            throw std::runtime_error("second");
        });
        batch.submit([&](kvbatch::outcome) {
            called++;
            throw 3;
        });
        try {
            batch.wait();
            CHECK(!"the exception");
        } catch (const std::runtime_error &e) {
            CHECK(e.what() == std::string(from_complete ? "second" : "first"));
        }
        CHECK(called == 3);
        std::error_code ec;
        CHECK(batch.wait_for(0ms, ec) && ec.value() == KV_ERR_ASYNC_FAILED);
    }
    kvbatch::batch batch(manager);
    batch.put("k", "v", [](const kvbatch::operation &) { throw std::runtime_error("into the future"); });
    auto end = batch.submit();
    try {
        end.get();
        CHECK(!"the exception");
    } catch (const std::runtime_error &e) {
        CHECK(e.what() == std::string("into the future"));
    }
    CHECK(stored(manager, "k") == "v");
}

TEST(a_batch_may_be_destroyed_inside_its_callback)
{
    kvbatch::manager manager;
    auto guard = std::make_shared<int>(0);
    std::promise<void> ended;
    {
        auto batch = std::make_shared<std::optional<kvbatch::batch>>(kvbatch::batch(manager));
        for (int i = 0; i < 10; i++) {
            (*batch)->put("k" + std::to_string(i), "v", [batch, guard](const kvbatch::operation &) {
                batch->reset(); // again and again: the first time is the one that counts
                ++*guard;
            });
        }
        (*batch)->submit([&ended](kvbatch::outcome outcome) {
            CHECK(outcome.completed == 10);
            ended.set_value();
        });
    }
    ended.get_future().wait();
    manager = kvbatch::manager(nullptr); // waits until the callback has returned
    CHECK(*guard == 10);
    CHECK(guard.use_count() == 1); // what the callbacks held is gone
}

TEST(waiting_inside_a_callback_is_refused_and_manages_to_say_so)
{
    kvbatch::manager manager;
    kvbatch::batch batch(manager);
    int inside = 0;
    batch.put("k", "v", [&](const kvbatch::operation &) { inside = thrown_code([&] { batch.wait(); }); });
    batch.submit(nullptr);
    batch.wait();
    CHECK(inside == KV_ERR_INVALID_STATE);
}

TEST(several_threads_fill_one_batch)
{
    kvbatch::manager manager;
    kvbatch::batch batch(manager, 4000);
    std::atomic<int> called{0};
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; t++) {
        threads.emplace_back([&, t] {
            for (int i = 0; i < 1100; i++) {
                std::error_code ec;
                batch.put(std::to_string(t * 10000 + i), "v", [&](const kvbatch::operation &) { called++; }, ec);
                CHECK(!ec || ec.value() == KV_ERR_BATCH_FULL);
            }
        });
    }
    for (auto &thread : threads)
        thread.join();
    CHECK(batch.submit().get().completed == 4000);
    CHECK(called == 4000);
}

TEST(a_busy_submit_can_be_repeated)
{
    kvbatch::config config = kvbatch::default_config();
    config.max_concurrent_batches = 1;
    kvbatch::manager manager(config);
    std::promise<void> entered, leave;
    kvbatch::batch first(manager), second(manager);
    first.put("k", "v", [&](const kvbatch::operation &) {
        entered.set_value();
        leave.get_future().wait();
    });
    int called = 0;
    second.put("l", "v", [&](const kvbatch::operation &) { called++; });
    first.submit(nullptr);
    entered.get_future().wait();
    CHECK(thrown_code([&] { second.submit(); }) == KV_ERR_BUSY);
    CHECK(second.status() == KV_ASYNC_BATCH_PENDING && called == 0);
    leave.set_value();
    first.wait();
    CHECK(second.submit().get().completed == 1);
    CHECK(called == 1);
}

TEST(handles_are_shared_with_the_c_functions)
{
    kvbatch::manager manager(kv_async_batch_manager_create(nullptr)); // not started
    CHECK(thrown_code([&] { store(manager, "k", "v"); }) == KV_ERR_INVALID_STATE);
    CHECK(kv_async_batch_manager_start(manager.get()) == KV_SUCCESS);
    store(manager, "k", "v");
    kvbatch::batch batch(manager);
    CHECK(kv_async_batch_put(batch.get(), "l", 1, "w", 1, nullptr, nullptr) == KV_SUCCESS);
    batch.submit().get();
    kvbatch::batch moved(std::move(batch));
    CHECK(batch.get() == nullptr && moved.status() == KV_ASYNC_BATCH_COMPLETED);
    CHECK(stored(manager, "l") == "w");
    kv_async_batch_manager_t *raw = manager.release();
    CHECK(!manager);
    kv_async_batch_manager_destroy(raw);
    CHECK(moved.status() == KV_ASYNC_BATCH_FAILED); // gone with its manager
}

TEST(durations_of_all_sizes_fit)
{
    using kvbatch::detail::milliseconds;
    CHECK(milliseconds(0s) == 0 && milliseconds(-5s) == 0 && milliseconds(1s) == 1000);
    CHECK(milliseconds(1us) == 1 && milliseconds(std::chrono::duration<double>(0.0015)) == 2);
    CHECK(milliseconds(std::chrono::hours(1 << 20)) == UINT32_MAX && milliseconds(std::chrono::hours::max()) == UINT32_MAX);
    CHECK(milliseconds(std::chrono::milliseconds(UINT32_MAX)) == UINT32_MAX);
    CHECK(milliseconds(std::chrono::milliseconds(UINT32_MAX - 1LL)) == UINT32_MAX - 1);
}

} // namespace

int main(int argc, char **argv)
{
    if (argc == 2 && argv[1] == std::string("--list")) {
        for (const auto &entry : cases())
            std::puts(entry.first.c_str());
        return 0;
    }
    const auto found = argc == 2 ? cases().find(argv[1]) : cases().end();
    if (found == cases().end()) {
        std::fprintf(stderr, "usage: %s --list | CASE\n", argv[0]);
        return 2;
    }
    found->second();
    return 0;
}
