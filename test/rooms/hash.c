/*
 * hash.c -- base/hash: SipHash-1-3 against a plain reference and published vectors, the independence
 * of the bits that choose bucket, shard and tag, and B2: keys made to collide cost like any others.
 */
#include "rooms.h"

#include "cache/cache.h"

#include <errno.h>
#include <sys/random.h>
#include <sys/syscall.h>

/* ---- a reference that is slow and plain ---------------------------------------------------------- */

static uint64_t rotated(uint64_t x, unsigned bits)
{
    return x << bits | x >> (64 - bits);
}

static void round_of(uint64_t v[4])
{
    v[0] += v[1];
    v[1] = rotated(v[1], 13) ^ v[0];
    v[0] = rotated(v[0], 32);
    v[2] += v[3];
    v[3] = rotated(v[3], 16) ^ v[2];
    v[0] += v[3];
    v[3] = rotated(v[3], 21) ^ v[0];
    v[2] += v[1];
    v[1] = rotated(v[1], 17) ^ v[2];
    v[2] = rotated(v[2], 32);
}

static uint64_t little_endian(const uint8_t *bytes, size_t count)
{
    uint64_t word = 0;
    for (size_t i = 0; i < count; i++)
        word |= (uint64_t)bytes[i] << (8 * i);
    return word;
}

static void absorb(uint64_t v[4], uint64_t word)
{
    v[3] ^= word;
    round_of(v);
    v[0] ^= word;
}

static uint64_t reference(const uint8_t seed[16], const uint8_t *bytes, size_t length)
{
    uint64_t k0 = little_endian(seed, 8), k1 = little_endian(seed + 8, 8);
    uint64_t v[4] = {k0 ^ UINT64_C(0x736f6d6570736575), k1 ^ UINT64_C(0x646f72616e646f6d),
                     k0 ^ UINT64_C(0x6c7967656e657261), k1 ^ UINT64_C(0x7465646279746573)};
    size_t whole = length / 8 * 8;
    for (size_t i = 0; i < whole; i += 8)
        absorb(v, little_endian(bytes + i, 8));
    absorb(v, little_endian(bytes + whole, length - whole) | (uint64_t)(length & 0xff) << 56);
    v[2] ^= 0xff;
    for (int i = 0; i < 3; i++)
        round_of(v);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}

static struct hash_seed seed_of(const uint8_t bytes[16])
{
    struct hash_seed seed;
    CHECK(hash_seed_init(&seed, bytes));
    return seed;
}

TEST(published_vectors_of_siphash_1_3)
{
    /* Key 00 01 .. 0f, message 00 01 .. of that length: as Rust's standard library tests them. */
    static const struct {
        size_t length;
        uint8_t hash[8];
    } vectors[] = {{0, {0xdc, 0xc4, 0x0f, 0x05, 0x58, 0x01, 0xac, 0xab}},
                   {1, {0x93, 0xca, 0x57, 0x7d, 0xf3, 0x9b, 0xf4, 0xc9}},
                   {7, {0x40, 0x11, 0xb1, 0x9b, 0x98, 0x7d, 0x92, 0xd3}},
                   {8, {0x8e, 0x9a, 0x29, 0x8d, 0x11, 0x95, 0x90, 0x36}},
                   {15, {0x56, 0x99, 0x51, 0x2a, 0x6d, 0xd8, 0x20, 0xd3}},
                   {63, {0xa8, 0xb3, 0xbb, 0xb7, 0x62, 0x90, 0x19, 0x9d}}};
    uint8_t bytes[64];
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)i;
    struct hash_seed seed = seed_of(bytes);
    for (size_t i = 0; i < COUNT_OF(vectors); i++) {
        uint64_t expected = little_endian(vectors[i].hash, 8);
        CHECK(reference(bytes, bytes, vectors[i].length) == expected);
        CHECK(hash_bytes(&seed, bytes, vectors[i].length) == expected);
    }
}

TEST(equal_to_the_reference_at_every_length_and_alignment)
{
    uint8_t key[16], room[400];
    for (long round = test_rounds(50); round > 0; round--) {
        for (size_t i = 0; i < sizeof key; i++)
            key[i] = (uint8_t)test_random();
        for (size_t i = 0; i < sizeof room; i++)
            room[i] = (uint8_t)test_random();
        struct hash_seed seed = seed_of(key);
        for (size_t length = 0; length <= 64; length++)
            for (size_t at = 0; at < 8; at++)
                CHECK(hash_bytes(&seed, room + at, length) == reference(key, room + at, length));
        CHECK(hash_bytes(&seed, room, 300) == reference(key, room, 300));
    }
    CHECK(hash_bytes(&(struct hash_seed){1, 2}, NULL, 0) ==
          hash_bytes(&(struct hash_seed){1, 2}, "", 0));
}

TEST(reads_no_byte_past_the_key)
{
    static const struct hash_seed seed = {3, 4};
    for (size_t length = 0; length <= 64; length++) {
        uint8_t *exact = malloc(length ? length : 1);
        CHECK(exact != NULL);
        memset(exact, 7, length);
        uint64_t once = hash_bytes(&seed, exact, length);
        CHECK(hash_bytes(&seed, exact, length) == once);
        free(exact);
    }
}

TEST(seeds_are_drawn_and_differ)
{
    struct hash_seed one, other;
    CHECK(hash_seed_init(&one, NULL));
    CHECK(hash_seed_init(&other, NULL));
    CHECK(one.k0 != other.k0 && one.k1 != other.k1);
    CHECK(hash_bytes(&one, "key", 3) != hash_bytes(&other, "key", 3));
}

TEST(no_random_source_is_said)
{
    struct hash_seed seed;
    process_fail_random(1, false);
    CHECK(!hash_seed_init(&seed, NULL));
    CHECK(hash_seed_init(&seed, NULL));
}

/* In front of the C library's: so many calls are interrupted, and none gives more than so much. */
static _Atomic int interruptions, calls;
static size_t most_drawn = SIZE_MAX;

ssize_t getrandom(void *buffer, size_t size, unsigned int flags)
{
    calls++;
    if (interruptions > 0) {
        interruptions--;
        errno = EINTR;
        return -1;
    }
    return syscall(SYS_getrandom, buffer, size < most_drawn ? size : most_drawn, flags);
}

TEST(a_draw_that_a_signal_interrupts_is_made_again)
{
    struct hash_seed one = {0, 0}, other = {0, 0};
    interruptions = 3;
    CHECK(hash_seed_init(&one, NULL));
    CHECK_INT(calls, 4);
    interruptions = 1;
    CHECK(hash_seed_init(&other, NULL));
    CHECK_INT(calls, 6);
    CHECK(one.k0 != other.k0 && one.k1 != other.k1);
}

TEST(half_a_seed_is_none)
{
    struct hash_seed seed = {5, 6};
    most_drawn = 8;
    CHECK(!hash_seed_init(&seed, NULL));
    CHECK_INT(calls, 1);
    CHECK(seed.k0 == 5 && seed.k1 == 6);
}

/* ---- the bits ------------------------------------------------------------------------------------ */

#define SAMPLES 100000
enum { CELL_BITS = 6, CELLS = 1 << CELL_BITS };

enum key_kind { KEY_NUMBER, KEY_TEXT };

static uint64_t hash_of_key(const struct hash_seed *seed, enum key_kind kind, uint32_t i)
{
    char text[24];
    if (kind == KEY_NUMBER)
        return hash_bytes(seed, &i, sizeof i);
    return hash_bytes(seed, text, (size_t)snprintf(text, sizeof text, "user:%u", i));
}

/* Bits of a hash: the lowest choose the bucket, 32 and up the shard, the top 16 are the tag. */
static const unsigned places[] = {0, 6, STORE_SHARD_SHIFT, INDEX_TAG_SHIFT, INDEX_TAG_SHIFT + 10};

static unsigned cell(uint64_t hash, unsigned place)
{
    return (unsigned)(hash >> place) % CELLS;
}

/* Eight standard deviations above what is to be expected: once in 10^12 and more by chance. */
static void check_even(const uint32_t *counts, size_t cells)
{
    double mean = (double)SAMPLES / (double)cells, chi = 0;
    for (size_t i = 0; i < cells; i++)
        chi += (counts[i] - mean) * (counts[i] - mean) / mean;
    double freedom = (double)(cells - 1), off = chi - freedom;
    CHECK(off * off < 8 * 8 * 2 * freedom); /* and not more even than chance would have it */
}

static void check_single(const struct hash_seed *seed, enum key_kind kind, unsigned place)
{
    uint32_t counts[CELLS] = {0};
    for (uint32_t i = 0; i < SAMPLES; i++)
        counts[cell(hash_of_key(seed, kind, i), place)]++;
    check_even(counts, CELLS);
}

static void check_pair(const struct hash_seed *seed, enum key_kind kind, unsigned one,
                       unsigned other)
{
    static uint32_t counts[CELLS * CELLS];
    memset(counts, 0, sizeof counts);
    for (uint32_t i = 0; i < SAMPLES; i++) {
        uint64_t hash = hash_of_key(seed, kind, i);
        counts[cell(hash, one) * CELLS + cell(hash, other)]++;
    }
    check_even(counts, CELLS * (size_t)CELLS);
}

TEST(bucket_shard_and_tag_bits_are_even)
{
    struct hash_seed seed = {test_random(), test_random()};
    for (size_t i = 0; i < COUNT_OF(places); i++) {
        check_single(&seed, KEY_NUMBER, places[i]);
        check_single(&seed, KEY_TEXT, places[i]);
    }
}

TEST(bucket_shard_and_tag_bits_are_uncorrelated)
{
    struct hash_seed seed = {test_random(), test_random()};
    for (size_t i = 0; i < COUNT_OF(places); i++) {
        for (size_t j = i + 1; j < COUNT_OF(places); j++) {
            check_pair(&seed, KEY_NUMBER, places[i], places[j]);
            check_pair(&seed, KEY_TEXT, places[i], places[j]);
        }
    }
}

TEST(the_bits_do_not_overlap)
{
    /* 2^26 buckets in each of 64 shards would be 2^29 * 5 entries: more than the lowest 32 bits name. */
    CHECK(STORE_SHARD_SHIFT + 6 <= INDEX_TAG_SHIFT);
    CHECK(STORE_SHARD_SHIFT >= 32);
}

/* ---- caches -------------------------------------------------------------------------------------- */

enum { ORDERED = 400 };

/* The keys of a shard in the order of its buckets: how many. A bucket that has moved to a larger
 * array is met there. */
static size_t order_of_shard(const struct shard *shard, uint32_t *order)
{
    struct entry *entries[64];
    size_t got = 0;
    for (const struct index_array *a = atomic_load(&shard->index.array); a;
         a = atomic_load(&a->next)) {
        for (size_t at = a->moved; at <= a->mask; at++) {
            unsigned count = chain_entries(index_bucket_at(a, at), entries, COUNT_OF(entries));
            for (unsigned i = 0; i < count; i++)
                memcpy(&order[got++], entries[i]->bytes, 4);
        }
    }
    return got;
}

static void order_of(aside_cache *cache, uint32_t order[ORDERED])
{
    size_t got = 0;
    for (uint32_t i = 0; i < ORDERED; i++)
        CHECK_STATUS(aside_set(cache, &i, sizeof i, NULL, 0, ASIDE_FOREVER), ASIDE_OK);
    for (size_t s = 0; s <= cache->store.shard_mask; s++)
        got += order_of_shard(&cache->store.shards[s], order + got);
    CHECK_INT(got, ORDERED);
}

TEST(two_caches_give_different_bucket_orders)
{
    static uint32_t one[ORDERED], other[ORDERED];
    aside_options options = quiet_options();
    options.max_bytes = 256 << 10;
    aside_cache *a = open_cache(&options), *b = open_cache(&options);
    order_of(a, one);
    order_of(b, other);
    size_t same = 0;
    for (size_t i = 0; i < ORDERED; i++)
        same += one[i] == other[i];
    CHECK(same < ORDERED / 8);
    end_cache(a);
    end_cache(b);
}

/* ---- keys made to collide ------------------------------------------------------------------------ */

enum { KEYS = 20000, COLLIDING_BITS = 12 };
#define FNV_PRIME UINT64_C(0x100000001b3)

static uint64_t colliding[KEYS], ordinary[KEYS];

/* Eight-byte keys whose FNV-1a agrees in the bits that choose a bucket. */
static void make_colliding(void)
{
    size_t made = 0;
    for (uint64_t prefix = 1; made < KEYS; prefix++) {
        uint64_t hash = UINT64_C(0xcbf29ce484222325);
        for (unsigned i = 0; i < 6; i++)
            hash = (hash ^ (prefix >> (8 * i) & 0xff)) * FNV_PRIME;
        for (unsigned i = 0; i < 256 && made < KEYS; i++) {
            uint64_t seventh = (hash ^ i) * FNV_PRIME;
            for (unsigned j = 0; j < 256 && made < KEYS; j++)
                if ((((seventh ^ j) * FNV_PRIME) & ((1 << COLLIDING_BITS) - 1)) == 0)
                    colliding[made++] = prefix | (uint64_t)i << 48 | (uint64_t)j << 56;
        }
    }
}

static uint64_t fnv1a(const void *key, size_t length)
{
    const unsigned char *bytes = key;
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; i < length; i++)
        hash = (hash ^ bytes[i]) * FNV_PRIME;
    return hash;
}

static unsigned longest_chain(const struct shard *shard)
{
    unsigned longest = 0;
    for (const struct index_array *a = atomic_load(&shard->index.array); a;
         a = atomic_load(&a->next)) {
        for (size_t at = a->moved; at <= a->mask; at++) {
            unsigned count = chain_entries(index_bucket_at(a, at), NULL, 0);
            longest = count > longest ? count : longest;
        }
    }
    return longest;
}

/* The longest chain; *ns is how long setting and getting all the keys took. */
static unsigned cost(const uint64_t *keys, int64_t *ns)
{
    aside_options options = quiet_options();
    options.max_bytes = 0;
    aside_cache *cache = open_cache(&options);
    unsigned longest = 0;
    int64_t began = test_now_ns();
    for (size_t i = 0; i < KEYS; i++)
        CHECK_STATUS(aside_set(cache, &keys[i], sizeof keys[i], NULL, 0, ASIDE_FOREVER), ASIDE_OK);
    for (size_t i = 0; i < KEYS; i++)
        CHECK_STATUS(aside_copy(cache, &keys[i], sizeof keys[i], NULL, 0, NULL), ASIDE_OK);
    *ns = test_now_ns() - began;
    for (size_t s = 0; s <= cache->store.shard_mask; s++) {
        unsigned chain = longest_chain(&cache->store.shards[s]);
        longest = chain > longest ? chain : longest;
    }
    end_cache(cache);
    return longest;
}

TEST(keys_that_collide_unkeyed_cost_at_most_3_times_random_ones)
{
    make_colliding();
    for (size_t i = 0; i < KEYS; i++) {
        CHECK((fnv1a(&colliding[i], 8) & ((1 << COLLIDING_BITS) - 1)) == 0);
        ordinary[i] = test_random();
    }
    int64_t best[2] = {INT64_MAX, INT64_MAX}, ns;
    unsigned longest[2] = {0, 0}, chain;
    for (int round = 0; round < 5; round++) {
        for (int kind = 0; kind < 2; kind++) {
            chain = cost(kind ? colliding : ordinary, &ns);
            longest[kind] = chain > longest[kind] ? chain : longest[kind];
            best[kind] = ns < best[kind] ? ns : best[kind];
        }
    }
    CHECK(longest[1] <= 3 * longest[0]);
    CHECK(best[1] <= 3 * best[0]);
}
