/**
 * @file kvbatch.hpp
 * Managers and batches for C++17 and later: objects that give back what they hold, callbacks as std::function, the end of
 * a batch as std::future, errors as exceptions or as std::error_code.
 *
 * Header only, over kv_async_batch_io.h and kv_batch_ext.h; link the library as for C. docs/C_API.md holds the rules common to all functions.
 * Written by hand; ffi-tests/cpp/test_wrapper.cpp holds it to what it says.
 *
 * Every function that can fail comes twice: one throws kvbatch::error; the other takes a std::error_code as its last
 * argument, throws nothing and sets that (no error: std::error_code()). Rings (kv_io_uring.h) are used through the C functions.
 *
 *   kvbatch::manager manager; // opens the store
 *   kvbatch::batch batch(manager);
 *   batch.put("user_1", "Ada");
 *   auto name = batch.get("user_2"); // std::future<std::optional<std::string>>
 *   batch.submit().get();            // throws unless all of it is on stable storage
 */

#ifndef KVBATCH_HPP
#define KVBATCH_HPP

#include "kv_batch_ext.h"

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <future>
#include <limits>
#include <memory>
#include <mutex>
#include <new>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <type_traits>
#include <utility>

namespace kvbatch {

/** The settings of a manager: kv_async_batch_config_s, of kv_async_batch_io.h. */
using config = kv_async_batch_config_t;

/** What a batch or a manager has done: kv_async_batch_stats_s, of kv_async_batch_io.h. */
using statistics = kv_async_batch_stats_t;

/** The defaults, for a caller to change. Never fails. */
inline config default_config() noexcept
{
    return kv_async_batch_default_config();
}

/**
 * The category of the library's codes: a std::error_code of it has a KV_ERR_ number, and as message what
 * kv_get_error_desc() says.
 */
inline const std::error_category &category() noexcept
{
    class codes final : public std::error_category {
    public:
        const char *name() const noexcept override { return "kvbatch"; }
        std::string message(int code) const override { return kv_get_error_desc(code); }
    };
    static const codes instance;
    return instance;
}

/** A code of the library as std::error_code; KV_SUCCESS is no error. */
inline std::error_code make_error_code(int code) noexcept
{
    return code == KV_SUCCESS ? std::error_code() : std::error_code(code, category());
}

/** A call that failed. code().value() is the KV_ERR_ number, what() says what to do about it. */
class error : public std::system_error {
public:
    /** An error of this code, with what the library said about it. */
    error(int code, const std::string &message) : std::system_error(code, category(), message) {}

    /** The name of the code, such as "KV_ERR_BATCH_FULL". */
    const char *name() const noexcept { return kv_get_error_name(code().value()); }
};

/** One operation, as its callback sees it; valid until the callback returns, and so is what it shows. */
class operation {
public:
    /** Sees what a callback of the C interface was given. */
    explicit operation(const kv_async_batch_operation_t &raw) noexcept : raw_(&raw) {}

    /** What was asked for. */
    kv_async_batch_op_type_t type() const noexcept { return raw_->op_type; }

    /** The key. */
    std::string_view key() const noexcept { return std::string_view(raw_->key, raw_->key_len); }

    /** GET: the value, or nothing if there is none. PUT: what was put. */
    std::optional<std::string_view> value() const noexcept
    {
        return raw_->value == nullptr ? std::nullopt : std::optional<std::string_view>({raw_->value, raw_->value_len});
    }

    /** KV_SUCCESS or why it failed; a GET that found nothing has KV_ERR_KEY_NOT_FOUND. */
    int code() const noexcept { return raw_->result_code; }

    /** Whether it did what was asked for. */
    bool ok() const noexcept { return raw_->result_code == KV_SUCCESS; }

private:
    const kv_async_batch_operation_t *raw_;
};

/** How many operations of a batch completed, and how many failed or were cancelled. */
struct outcome {
    /** Completed; a GET that found nothing is one of them. */
    std::size_t completed;
    /** Failed, timed out or cancelled. */
    std::size_t failed;
};

/**
 * Called once for an operation that was submitted, under the rules of kv_async_batch_callback_t. An exception that leaves it
 * goes no further than the batch: the first one comes out of batch::wait() and out of the future that batch::submit() gave.
 */
using operation_callback = std::function<void(const operation &)>;

/** Called once for a batch that was submitted, after its operations' callbacks. An exception goes as far as theirs. */
using complete_callback = std::function<void(outcome)>;

/** What only this header's classes use. */
namespace detail {

/** Throws what this thread's last error says, unless the code is KV_SUCCESS. */
inline void check(int code)
{
    if (code != KV_SUCCESS)
        throw error(code, kv_get_last_error()->code == code ? kv_get_last_error()->message : kv_get_error_name(code));
}

/** The code of this thread's last error, of a call that gave no handle. */
inline int last_code() noexcept
{
    const int code = kv_get_last_error()->code;
    return code == KV_SUCCESS ? KV_ERR_UNKNOWN : code;
}

/** Milliseconds as the C functions take them: never negative, the longest if there are too many. */
template <class Rep, class Period>
std::uint32_t milliseconds(std::chrono::duration<Rep, Period> time) noexcept
{
    constexpr auto most = std::numeric_limits<std::uint32_t>::max();
    if (!(time > std::chrono::duration<Rep, Period>::zero()))
        return 0;
    // Compared as floating point: a large duration of hours has no room as a number of milliseconds.
    const double count = std::chrono::duration<double, std::milli>(time).count();
    if (!(count < static_cast<double>(most)))
        return most;
    const auto whole = static_cast<std::uint32_t>(count);
    return static_cast<double>(whole) < count ? whole + 1 : whole;
}

/**
 * What the callbacks of a batch need: lives until the batch object is gone, and, once submitted, until the last callback has
 * returned, whichever is later.
 */
struct batch_state {
    std::mutex lock;
    /** Addresses of elements stay: they are the user_data of the C callbacks. */
    struct slot {
        batch_state *state;
        operation_callback callback;
    };
    std::deque<slot> slots;
    complete_callback complete;
    std::optional<std::promise<outcome>> promise;
    /** The first exception that left a callback. */
    std::exception_ptr thrown;
    /** Itself, from submit until the completion callback: the library holds a plain address meanwhile. */
    std::shared_ptr<batch_state> self;

    void keep(std::exception_ptr exception) noexcept
    {
        const std::lock_guard<std::mutex> guard(lock);
        if (!thrown)
            thrown = std::move(exception);
    }

    std::exception_ptr kept() noexcept
    {
        const std::lock_guard<std::mutex> guard(lock);
        return thrown;
    }
};

extern "C" inline void kvbatch_hpp_operation(kv_async_batch_operation_t *op, int, void *user_data) noexcept
{
    auto *slot = static_cast<batch_state::slot *>(user_data);
    try {
        slot->callback(operation(*op));
    } catch (...) {
        slot->state->keep(std::current_exception());
    }
}

extern "C" inline void kvbatch_hpp_complete(kv_async_batch_context_t *batch, std::size_t completed, std::size_t failed,
                                            void *user_data) noexcept
{
    auto *state = static_cast<batch_state *>(user_data);
    std::shared_ptr<batch_state> self;
    {
        const std::lock_guard<std::mutex> guard(state->lock); // until submit has returned
        self = std::move(state->self);
    }
    try {
        if (state->complete)
            state->complete(outcome{completed, failed});
    } catch (...) {
        state->keep(std::current_exception());
    }
    if (!state->promise)
        return;
    try {
        if (auto thrown = state->kept())
            state->promise->set_exception(thrown);
        else if (failed == 0)
            state->promise->set_value(outcome{completed, failed});
        else if (kv_async_batch_get_status(batch) == KV_ASYNC_BATCH_CANCELLED)
            state->promise->set_exception(std::make_exception_ptr(error(KV_ERR_CANCELLED, "the batch was cancelled")));
        else
            state->promise->set_exception(std::make_exception_ptr(
                error(KV_ERR_BATCH_FAILED, std::to_string(failed) + " operations failed: their callbacks know why")));
    } catch (...) { // no memory for the error: it is the error
        state->promise->set_exception(std::current_exception());
    }
}

} // namespace detail

/**
 * A manager: settings, threads, and a store. Movable; an object without a manager is empty, and every call on it fails with
 * KV_ERR_NULL_POINTER. Its destructor stops it as kv_async_batch_manager_destroy() does. Threads: any.
 */
class manager {
public:
    /**
     * Makes a manager and opens its store: that which KVBATCH_STORE names, else the directory kvbatch-data.
     *
     * Throws what kv_async_batch_manager_create() and kv_async_batch_manager_start() return as codes.
     */
    explicit manager(const config &settings = default_config()) : raw_(kv_async_batch_manager_create(&settings))
    {
        detail::check(raw_ ? KV_SUCCESS : detail::last_code());
        detail::check(kv_async_batch_manager_start(raw_.get()));
    }

    /** The same without exceptions: on failure the object is empty, and the thread's kv_get_last_error() has the words. */
    manager(const config &settings, std::error_code &ec) noexcept : raw_(kv_async_batch_manager_create(&settings))
    {
        ec = make_error_code(raw_ ? kv_async_batch_manager_start(raw_.get()) : detail::last_code());
        if (ec)
            raw_.reset();
    }

    /**
     * Makes a manager and opens the store at `url`: a directory, "file:PATH?OPTIONS", "memory:" or "memory:NAME".
     *
     * Throws what kv_async_batch_manager_create_at() and kv_async_batch_manager_start() return as codes.
     */
    explicit manager(const std::string &url, const config &settings = default_config())
        : raw_(kv_async_batch_manager_create_at(&settings, url.c_str()))
    {
        detail::check(raw_ ? KV_SUCCESS : detail::last_code());
        detail::check(kv_async_batch_manager_start(raw_.get()));
    }

    /** The same without exceptions: on failure the object is empty, and the thread's kv_get_last_error() has the words. */
    manager(const std::string &url, const config &settings, std::error_code &ec) noexcept
        : raw_(kv_async_batch_manager_create_at(&settings, url.c_str()))
    {
        ec = make_error_code(raw_ ? kv_async_batch_manager_start(raw_.get()) : detail::last_code());
        if (ec)
            raw_.reset();
    }

    /** Takes over a manager of the C interface, started or not; NULL: empty. */
    explicit manager(kv_async_batch_manager_t *raw) noexcept : raw_(raw) {}

    /** Completes what was submitted, callbacks included, and closes the store. */
    void stop() { detail::check(kv_async_batch_manager_stop(raw_.get())); }
    /** The same without exceptions. */
    void stop(std::error_code &ec) noexcept { ec = make_error_code(kv_async_batch_manager_stop(raw_.get())); }

    /** Opens the store again. */
    void start() { detail::check(kv_async_batch_manager_start(raw_.get())); }
    /** The same without exceptions. */
    void start(std::error_code &ec) noexcept { ec = make_error_code(kv_async_batch_manager_start(raw_.get())); }

    /** What all its batches have done so far. */
    statistics stats() const
    {
        statistics result{};
        detail::check(kv_async_batch_manager_get_stats(raw_.get(), &result));
        return result;
    }
    /** The same without exceptions; zeros on failure. */
    statistics stats(std::error_code &ec) const noexcept
    {
        statistics result{};
        ec = make_error_code(kv_async_batch_manager_get_stats(raw_.get(), &result));
        return result;
    }

    /** The handle for the C interface; still this object's. NULL if empty. */
    kv_async_batch_manager_t *get() const noexcept { return raw_.get(); }

    /** Gives the handle away: the caller destroys it. */
    kv_async_batch_manager_t *release() noexcept { return raw_.release(); }

    /** Whether there is a manager in it. */
    explicit operator bool() const noexcept { return raw_ != nullptr; }

private:
    struct destroy {
        void operator()(kv_async_batch_manager_t *raw) const noexcept { kv_async_batch_manager_destroy(raw); }
    };
    std::unique_ptr<kv_async_batch_manager_t, destroy> raw_;
};

/**
 * A batch: filled, submitted once, ended. Movable. Its destructor gives it back: one that was not submitted is dropped without
 * callbacks, one in flight is waited for (not inside a callback of its own). Threads: any, several may add to one batch; but
 * not while it is moved or destroyed.
 *
 * Keys have 1 to 65535 bytes, values up to 512 MiB; both are copied. Empty views are empty values.
 */
class batch {
public:
    /** An empty batch of this many operations; 0: the manager's max_batch_size. Throws as kv_async_batch_create() fails. */
    explicit batch(const manager &of, std::size_t max_operations = 0) : state_(std::make_shared<detail::batch_state>())
    {
        raw_.reset(kv_async_batch_create(of.get(), max_operations));
        detail::check(raw_ ? KV_SUCCESS : detail::last_code());
    }

    /** The same without exceptions: on failure every call on the object fails. */
    batch(const manager &of, std::size_t max_operations, std::error_code &ec) noexcept
    {
        try {
            state_ = std::make_shared<detail::batch_state>();
            raw_.reset(kv_async_batch_create(of.get(), max_operations));
            ec = make_error_code(raw_ ? KV_SUCCESS : detail::last_code());
        } catch (...) {
            ec = make_error_code(KV_ERR_MEM);
        }
    }

    /** Takes the other's batch over; the other is empty then. */
    batch(batch &&) noexcept = default;
    /** Gives its own batch back first. */
    batch &operator=(batch &&other) noexcept
    {
        raw_ = std::move(other.raw_); // the old batch ends before what its callbacks need goes
        state_ = std::move(other.state_);
        return *this;
    }

    /** Adds a PUT: stores the value under the key, over whatever is there. */
    void put(std::string_view key, std::string_view value, operation_callback callback = {})
    {
        detail::check(add_put(key, value, std::move(callback)));
    }
    /** The same without exceptions. */
    void put(std::string_view key, std::string_view value, operation_callback callback, std::error_code &ec) noexcept
    {
        ec = make_error_code(guarded([&] { return add_put(key, value, std::move(callback)); }));
    }

    /** Adds an UPDATE: stores the value if the key is there; else the operation fails with KV_ERR_KEY_NOT_FOUND. */
    void update(std::string_view key, std::string_view value, operation_callback callback = {})
    {
        detail::check(add_update(key, value, std::move(callback)));
    }
    /** The same without exceptions. */
    void update(std::string_view key, std::string_view value, operation_callback callback, std::error_code &ec) noexcept
    {
        ec = make_error_code(guarded([&] { return add_update(key, value, std::move(callback)); }));
    }

    /** Adds a GET; the callback gets the value. */
    void get(std::string_view key, operation_callback callback) { detail::check(add_get(key, std::move(callback))); }
    /** The same without exceptions. */
    void get(std::string_view key, operation_callback callback, std::error_code &ec) noexcept
    {
        ec = make_error_code(guarded([&] { return add_get(key, std::move(callback)); }));
    }

    /**
     * Adds a GET whose value comes as a copy through a future: nothing if the key is not there, a kvbatch::error if it could
     * not be read, std::future_error if the batch is never submitted. Somebody has to submit the batch before it is ready.
     */
    std::future<std::optional<std::string>> get(std::string_view key)
    {
        auto promise = std::make_shared<std::promise<std::optional<std::string>>>();
        auto future = promise->get_future();
        get(key, [promise](const operation &op) {
            try {
                if (op.code() == KV_ERR_KEY_NOT_FOUND)
                    promise->set_value(std::nullopt);
                else if (!op.ok())
                    promise->set_exception(std::make_exception_ptr(error(op.code(), "the value could not be read")));
                else
                    promise->set_value(std::string(op.value().value_or(std::string_view())));
            } catch (const std::bad_alloc &) {
                promise->set_exception(std::current_exception());
            }
        });
        return future;
    }

    /** Adds a DELETE: takes the key away; succeeds also if it is not there. */
    void remove(std::string_view key, operation_callback callback = {}) { detail::check(add_remove(key, std::move(callback))); }
    /** The same without exceptions. */
    void remove(std::string_view key, operation_callback callback, std::error_code &ec) noexcept
    {
        ec = make_error_code(guarded([&] { return add_remove(key, std::move(callback)); }));
    }

    /**
     * Hands the batch over. The future is ready when the last operation's callback has returned. It holds the outcome if every
     * operation completed; else its get() throws what left a callback, or a kvbatch::error: KV_ERR_BATCH_FAILED,
     * KV_ERR_CANCELLED. Unlike that of std::async it does not wait when it is destroyed. After a refusal (KV_ERR_BUSY: wait for
     * another batch) the batch is as it was, to be submitted again.
     */
    std::future<outcome> submit()
    {
        std::promise<outcome> promise;
        auto future = promise.get_future();
        detail::check(hand_over({}, std::move(promise)));
        return future;
    }

    /** Hands the batch over without a future; the callback, if there is one, comes behind those of the operations. */
    void submit(complete_callback callback) { detail::check(hand_over(std::move(callback), std::nullopt)); }
    /** The same without exceptions. */
    void submit(complete_callback callback, std::error_code &ec) noexcept
    {
        ec = make_error_code(guarded([&] { return hand_over(std::move(callback), std::nullopt); }));
    }

    /** Waits for the end, without limit. Throws what left a callback, or unless every operation completed. */
    void wait()
    {
        int code;
        do
            code = kv_async_batch_wait(raw_.get(), std::numeric_limits<std::uint32_t>::max());
        while (code == KV_ERR_TIMEOUT);
        end(code);
    }

    /** Waits for the end; false: it has not ended yet, and goes on. Else as wait(). */
    template <class Rep, class Period> bool wait_for(std::chrono::duration<Rep, Period> time)
    {
        const int code = kv_async_batch_wait(raw_.get(), detail::milliseconds(time));
        if (code == KV_ERR_TIMEOUT)
            return false;
        end(code);
        return true;
    }

    /** The same without exceptions. KV_ERR_ASYNC_FAILED: all operations completed, but an exception left a callback. */
    template <class Rep, class Period> bool wait_for(std::chrono::duration<Rep, Period> time, std::error_code &ec) noexcept
    {
        int code = kv_async_batch_wait(raw_.get(), detail::milliseconds(time));
        if (code == KV_SUCCESS && state_->kept())
            code = KV_ERR_ASYNC_FAILED;
        ec = make_error_code(code);
        return code != KV_ERR_TIMEOUT;
    }

    /** Cancels it, if nobody has begun to carry it out; else throws KV_ERR_BUSY, and it completes. */
    void cancel() { detail::check(kv_async_batch_cancel(raw_.get())); }
    /** The same without exceptions. */
    void cancel(std::error_code &ec) noexcept { ec = make_error_code(kv_async_batch_cancel(raw_.get())); }

    /** Where it is in its life. An empty object's is KV_ASYNC_BATCH_FAILED. */
    kv_async_batch_status_t status() const noexcept { return kv_async_batch_get_status(raw_.get()); }

    /** What it has done. */
    statistics stats() const
    {
        statistics result{};
        detail::check(kv_async_batch_get_stats(raw_.get(), &result));
        return result;
    }
    /** The same without exceptions; zeros on failure. */
    statistics stats(std::error_code &ec) const noexcept
    {
        statistics result{};
        ec = make_error_code(kv_async_batch_get_stats(raw_.get(), &result));
        return result;
    }

    /** The handle for the C interface; still this object's. NULL if empty. */
    kv_async_batch_context_t *get() const noexcept { return raw_.get(); }

private:
    struct destroy {
        void operator()(kv_async_batch_context_t *raw) const noexcept { kv_async_batch_destroy(raw); }
    };

    /** What can only run out of memory, as a code. */
    template <class Call> static int guarded(Call call) noexcept
    {
        try {
            return call();
        } catch (...) {
            return KV_ERR_MEM;
        }
    }

    /** An empty view may have no address, the C functions want one. */
    static const char *bytes(std::string_view view) noexcept { return view.data() == nullptr ? "" : view.data(); }

    /** Gives a callback its place, and takes it back if the operation is refused. */
    template <class Add> int add(operation_callback &&callback, Add call)
    {
        if (!callback || !state_)
            return call(nullptr, nullptr);
        // Adding never runs a callback, so the lock may be held.
        const std::lock_guard<std::mutex> guard(state_->lock);
        state_->slots.push_back({state_.get(), std::move(callback)});
        const int code = call(detail::kvbatch_hpp_operation, &state_->slots.back());
        if (code != KV_SUCCESS)
            state_->slots.pop_back();
        return code;
    }

    int add_put(std::string_view key, std::string_view value, operation_callback callback)
    {
        return add(std::move(callback), [&](kv_async_batch_callback_t function, void *data) {
            return kv_async_batch_put(raw_.get(), bytes(key), key.size(), bytes(value), value.size(), function, data);
        });
    }

    int add_update(std::string_view key, std::string_view value, operation_callback callback)
    {
        return add(std::move(callback), [&](kv_async_batch_callback_t function, void *data) {
            return kv_async_batch_update(raw_.get(), bytes(key), key.size(), bytes(value), value.size(), function, data);
        });
    }

    int add_get(std::string_view key, operation_callback callback)
    {
        return add(std::move(callback), [&](kv_async_batch_callback_t function, void *data) {
            return kv_async_batch_get(raw_.get(), bytes(key), key.size(), nullptr, nullptr, function, data);
        });
    }

    int add_remove(std::string_view key, operation_callback callback)
    {
        return add(std::move(callback), [&](kv_async_batch_callback_t function, void *data) {
            return kv_async_batch_delete(raw_.get(), bytes(key), key.size(), function, data);
        });
    }

    int hand_over(complete_callback callback, std::optional<std::promise<outcome>> promise)
    {
        if (!state_)
            return kv_async_batch_submit(raw_.get(), nullptr, nullptr);
        // Submitting never runs a callback, so the lock may be held: the completion callback waits for it.
        const std::lock_guard<std::mutex> guard(state_->lock);
        if (state_->self || kv_async_batch_get_status(raw_.get()) != KV_ASYNC_BATCH_PENDING)
            return kv_async_batch_submit(raw_.get(), nullptr, nullptr); // refused, and says why
        state_->complete = std::move(callback);
        state_->promise = std::move(promise);
        state_->self = state_;
        const int code = kv_async_batch_submit(raw_.get(), detail::kvbatch_hpp_complete, state_.get());
        if (code != KV_SUCCESS) {
            state_->self.reset();
            state_->promise.reset();
            state_->complete = nullptr;
        }
        return code;
    }

    void end(int code)
    {
        if (state_ && code != KV_ERR_INVALID_STATE) {
            if (auto thrown = state_->kept())
                std::rethrow_exception(thrown);
        }
        detail::check(code);
    }

    std::shared_ptr<detail::batch_state> state_;
    std::unique_ptr<kv_async_batch_context_t, destroy> raw_; // destroyed first
};

} // namespace kvbatch

#endif // KVBATCH_HPP
