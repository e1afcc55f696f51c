/*
 * cuckoo.cc -- libcuckoo's cuckoohash_map, from strings to strings, with neither bound nor expiry.
 * Looked up by string_view, so that no string is made; values are read under its locks.
 */
#define PEER_BOUNDED 0
#include "peer.h"

#include <libcuckoo/cuckoohash_map.hh>
#include <string>
#include <string_view>

struct hash {
    using is_transparent = void;
    size_t operator()(std::string_view key) const
    {
        return peer_hash(key.data());
    }
};

struct equal {
    using is_transparent = void;
    bool operator()(std::string_view left, std::string_view right) const
    {
        return left == right;
    }
};

struct store {
    libcuckoo::cuckoohash_map<std::string, std::string, hash, equal> map;
};

static struct store *store_open(size_t)
{
    return new store;
}

static void store_close(struct store *store)
{
    delete store;
}

static bool store_read(struct store *store, const char *key, uint64_t *sum)
{
    return store->map.find_fn(std::string_view(key, BENCH_KEY),
                              [sum](const std::string &value) { *sum += load_sum(value.data()); });
}

static void store_write(struct store *store, const char *key, const uint64_t *value)
{
    store->map.insert_or_assign(std::string(key, BENCH_KEY),
                                std::string(reinterpret_cast<const char *>(value), BENCH_VALUE));
}
