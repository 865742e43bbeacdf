/*
 * tkrzw.cpp: tkrzw's HashDBM, in the comparison with others. Called by peers.c. It has no batches: puts of one take effect, and
 * may be lost, one by one.
 */
#include "peer.h"

#include <memory>
#include <string>
#include <tkrzw_dbm_hash.h>
#include <tkrzw_file_mmap.h>

namespace {

struct Store {
    tkrzw::HashDBM dbm{std::make_unique<tkrzw::MemoryMapParallelFile>()};
    bool sync = false;
};

void must(const tkrzw::Status &status)
{
    if (!status.IsOK())
        peer_fail("tkrzw", tkrzw::ToString(status).c_str());
}

std::string_view key_of(size_t i)
{
    return {peer_key(i), PEER_KEY_BYTES};
}

void *open_store(const char *path, int sync, size_t expected)
{
    auto *store = new Store;
    tkrzw::HashDBM::TuningParameters tuning;
    tuning.update_mode = tkrzw::HashDBM::UPDATE_IN_PLACE;
    tuning.num_buckets = static_cast<int64_t>(expected) * 2;
    tuning.offset_width = 5;
    tuning.align_pow = 3;
    store->sync = sync != 0;
    must(store->dbm.OpenAdvanced(std::string(path) + "/kv.tkh", true, tkrzw::File::OPEN_DEFAULT, tuning));
    return store;
}

void close_store(void *opened)
{
    auto *store = static_cast<Store *>(opened);
    must(store->dbm.Close());
    delete store;
}

void put(void *session, const size_t *which, size_t count)
{
    auto *store = static_cast<Store *>(session);
    for (size_t i = 0; i < count; i++)
        must(store->dbm.Set(key_of(which[i]), std::string_view(peer_value(which[i]), peer_value_bytes)));
    if (store->sync)
        must(store->dbm.Synchronize(true));
}

size_t get(void *session, const size_t *which, size_t count)
{
    auto *store = static_cast<Store *>(session);
    size_t right = 0;
    std::string value;
    for (size_t i = 0; i < count; i++) {
        must(store->dbm.Get(key_of(which[i]), &value));
        right += static_cast<size_t>(peer_is_right(value.data(), value.size(), which[i]));
    }
    return right;
}

} // namespace

const struct peer peer_tkrzw = {
    "tkrzw",
    "HashDBM in a mapped file, updated in place, two buckets per key; no batches: with sync, one hard Synchronize after each",
    open_store,
    nullptr,
    close_store,
    nullptr,
    nullptr,
    put,
    get,
};
