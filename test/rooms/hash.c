/*
 * hash.c -- base/hash: SipHash-1-3 and the hash by AES instructions against plain references and
 * published vectors, the independence of the bits that choose bucket, shard and tag, and B2: keys
 * made to collide cost like any others.
 */
#include "rooms.h"

#include "cache/cache.h"

#include <errno.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <time.h>

/* ---- SipHash: a reference that is slow and plain ---------------------------------------------------------- */

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

static uint64_t siphash_of(const uint8_t key[16], const uint8_t *bytes, size_t length)
{
    const uint64_t words[2] = {little_endian(key, 8), little_endian(key + 8, 8)};
    return siphash(words, bytes, length);
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
    for (size_t i = 0; i < COUNT_OF(vectors); i++) {
        uint64_t expected = little_endian(vectors[i].hash, 8);
        CHECK(reference(bytes, bytes, vectors[i].length) == expected);
        CHECK(siphash_of(bytes, bytes, vectors[i].length) == expected);
    }
}

static void fill_random(uint8_t *bytes, size_t count)
{
    for (size_t i = 0; i < count; i++)
        bytes[i] = (uint8_t)test_random();
}

TEST(siphash_is_the_reference_at_every_length_and_alignment)
{
    uint8_t key[16], room[400];
    for (long round = test_rounds(50); round > 0; round--) {
        fill_random(key, sizeof key);
        fill_random(room, sizeof room);
        for (size_t length = 0; length <= 64; length++)
            for (size_t at = 0; at < 8; at++)
                CHECK(siphash_of(key, room + at, length) == reference(key, room + at, length));
        CHECK(siphash_of(key, room, 300) == reference(key, room, 300));
    }
}

/* ---- AES: the same ------------------------------------------------------------------------------- */

static struct hash_seed seed_of(const uint8_t bytes[16])
{
    struct hash_seed seed;
    CHECK(hash_seed_init(&seed, bytes));
    return seed;
}

static struct hash_seed random_seed(void)
{
    uint8_t bytes[16];
    fill_random(bytes, sizeof bytes);
    return seed_of(bytes);
}

#ifdef __x86_64__

static void need_aes(void)
{
    if (!aes_is_here())
        test_skip("the processor has no AES instructions");
}

static uint8_t doubled(uint8_t x)
{
    return (uint8_t)(x << 1 ^ (x >> 7) * 0x1b);
}

static uint8_t product(uint8_t x, uint8_t y)
{
    uint8_t sum = 0;
    for (; y; y >>= 1, x = doubled(x))
        sum ^= y & 1 ? x : 0;
    return sum;
}

/* FIPS 197, 5.1.1: the inverse in GF(2^8), and an affine map. */
static uint8_t substituted(uint8_t x)
{
    uint8_t inverse = x;
    for (int i = 0; i < 253; i++)
        inverse = product(inverse, x);
    uint8_t y = 0x63;
    for (int i = 0; i < 5; i++)
        y ^= (uint8_t)(inverse << i | inverse >> (8 - i));
    return y;
}

static void aes_reference_round(uint8_t state[16], const uint8_t key[16])
{
    static uint8_t box[256];
    uint8_t moved[16];
    for (int i = 0; i < 256 && !box[0]; i++)
        box[255 - i] = substituted((uint8_t)(255 - i));
    for (int i = 0; i < 16;
         i++) /* column i / 4, row i % 4: row r comes from r columns further on */
        moved[i] = box[state[(i + 4 * (i % 4)) % 16]];
    for (int i = 0; i < 16; i++) {
        const uint8_t *column = moved + i / 4 * 4;
        state[i] =
            (uint8_t)(doubled(column[i % 4]) ^ doubled(column[(i + 1) % 4]) ^ column[(i + 1) % 4] ^
                      column[(i + 2) % 4] ^ column[(i + 3) % 4] ^ key[i]);
    }
}

/* The block of the last bytes of a key, as docs/internals/hash.md has it. */
static void last_block(const uint8_t *bytes, size_t length, uint8_t block[16])
{
    memset(block, 0, 16);
    if (length >= 16) {
        memcpy(block, bytes + length - 16, 16);
        return;
    }
    size_t half = length >= 8 ? 8 : length >= 4 ? 4 : 0;
    memcpy(block, bytes, half);
    memcpy(block + 8, bytes + length - half, half);
    if (length && !half) {
        block[0] = bytes[0];
        block[1] = bytes[length / 2];
        block[8] = bytes[length - 1];
    }
}

static uint64_t aes_reference(const struct aes_seed *seed, const uint8_t *bytes, size_t length)
{
    uint8_t state[16], block[16], keys[AES_ROUNDS][16];
    uint64_t begin[2] = {length * seed->length_factor, 0};
    memcpy(state, &seed->start, 16);
    memcpy(keys, seed->round, sizeof keys);
    for (int i = 0; i < 16; i++)
        state[i] ^= ((uint8_t *)begin)[i];
    size_t at = 0;
    for (; length > at + 16; at += 16) {
        for (int i = 0; i < 16; i++)
            state[i] ^= bytes[at + (size_t)i];
        for (int round = 0; round < 2; round++)
            aes_reference_round(state, keys[round]);
    }
    last_block(bytes, length, block);
    for (int i = 0; i < 16; i++)
        state[i] ^= block[i];
    for (int round = 0; round < AES_ROUNDS; round++)
        aes_reference_round(state, keys[round]);
    return little_endian(state, 8);
}

TEST(the_rounds_are_those_of_the_published_example_of_aes)
{
    /* FIPS 197, appendix B: the state before rounds 1 and 5, and the keys of rounds 1 to 4. */
    static const uint8_t before[16] = {0x19, 0x3d, 0xe3, 0xbe, 0xa0, 0xf4, 0xe2, 0x2b,
                                       0x9a, 0xc6, 0x8d, 0x2a, 0xe9, 0xf8, 0x48, 0x08},
                         after[16] = {0xe0, 0x92, 0x7f, 0xe8, 0xc8, 0x63, 0x63, 0xc0,
                                      0xd9, 0xb1, 0x35, 0x50, 0x85, 0xb8, 0xbe, 0x01};
    static const uint8_t keys[4][16] = {{0xa0, 0xfa, 0xfe, 0x17, 0x88, 0x54, 0x2c, 0xb1, 0x23, 0xa3,
                                         0x39, 0x39, 0x2a, 0x6c, 0x76, 0x05},
                                        {0xf2, 0xc2, 0x95, 0xf2, 0x7a, 0x96, 0xb9, 0x43, 0x59, 0x35,
                                         0x80, 0x7a, 0x73, 0x59, 0xf6, 0x7f},
                                        {0x3d, 0x80, 0x47, 0x7d, 0x47, 0x16, 0xfe, 0x3e, 0x1e, 0x23,
                                         0x7e, 0x44, 0x6d, 0x7a, 0x88, 0x3b},
                                        {0xef, 0x44, 0xa5, 0x41, 0xa8, 0x52, 0x5b, 0x7f, 0xb6, 0x71,
                                         0x25, 0x3b, 0xdb, 0x0b, 0xad, 0x00}};
    need_aes();
    struct aes_seed seed = {.length_factor = 0};
    memcpy(seed.round, keys, sizeof keys);
    CHECK(aes_hash(&seed, before, 16) == little_endian(after, 8));
    CHECK(aes_reference(&seed, before, 16) == little_endian(after, 8));
}

TEST(the_hash_by_aes_is_its_reference_at_every_length_and_alignment)
{
    uint8_t room[400];
    need_aes();
    for (long round = test_rounds(20); round > 0; round--) {
        struct hash_seed seed = random_seed();
        fill_random(room, sizeof room);
        for (size_t length = 0; length <= 70; length++)
            for (size_t at = 0; at < 8; at++)
                CHECK(hash_bytes(&seed, room + at, length) ==
                      aes_reference(&seed.aes, room + at, length));
        CHECK(hash_bytes(&seed, room, 300) == aes_reference(&seed.aes, room, 300));
    }
}

TEST(the_parts_of_a_seed_differ)
{
    need_aes();
    struct hash_seed seed = random_seed(), other = random_seed();
    uint64_t words[2 + 2 * AES_ROUNDS];
    memcpy(words, &seed.aes.start, 16);
    memcpy(words + 2, seed.aes.round, sizeof seed.aes.round);
    for (size_t i = 0; i < COUNT_OF(words); i++)
        for (size_t j = 0; j < i; j++)
            CHECK(words[i] != words[j]);
    CHECK(seed.aes.length_factor & 1);
    CHECK(seed.aes.length_factor != other.aes.length_factor);
}

#endif

/* ---- both ---------------------------------------------------------------------------------------- */

TEST(an_empty_key_may_be_null)
{
    struct hash_seed seed = random_seed();
    CHECK(hash_bytes(&seed, NULL, 0) == hash_bytes(&seed, "", 0));
    seed.by_aes = false;
    CHECK(hash_bytes(&seed, NULL, 0) == hash_bytes(&seed, "", 0));
}

TEST(reads_no_byte_past_the_key)
{
    struct hash_seed seed = random_seed();
    for (size_t length = 0; length <= 128; length++) {
        uint8_t *exact = malloc(length / 2 ? length / 2 : 1);
        CHECK(exact != NULL);
        memset(exact, 7, length / 2);
        seed.by_aes = length % 2 ? aes_is_here() : false;
        uint64_t once = hash_bytes(&seed, exact, length / 2);
        CHECK(hash_bytes(&seed, exact, length / 2) == once);
        free(exact);
    }
}

/* What differs by length alone may give the same block of 16 bytes: cccccccc and bccccccccc, where b
 * and c differ as 8 and 9 do; and where only one form of the hash can be had, it is tried twice. */
TEST(keys_made_of_one_another_by_length_do_not_collide)
{
    struct hash_seed seed = random_seed();
    for (int form = 0; form < 2; form++, seed.by_aes = false) {
        uint8_t zeros[64] = {0}, text[17];
        uint64_t of_zeros[64];
        for (size_t length = 0; length < sizeof zeros; length++) {
            of_zeros[length] = hash_bytes(&seed, zeros, length);
            for (size_t shorter = 0; shorter < length; shorter++)
                CHECK(of_zeros[shorter] != of_zeros[length]);
        }
        for (size_t one = 8; one < 16; one++) {
            for (size_t other = one + 1; other <= 16; other++) {
                memset(text, 'c', sizeof text);
                uint64_t plain = hash_bytes(&seed, text, one);
                text[0] = (uint8_t)(text[0] ^ one ^ other);
                CHECK(plain != hash_bytes(&seed, text, other));
            }
        }
    }
}

TEST(seeds_are_drawn_and_differ)
{
    struct hash_seed one, other;
    CHECK(hash_seed_init(&one, NULL));
    CHECK(hash_seed_init(&other, NULL));
    CHECK(one.key[0] != other.key[0] && one.key[1] != other.key[1]);
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
    struct hash_seed one, other;
    interruptions = 3;
    CHECK(hash_seed_init(&one, NULL));
    CHECK_INT(calls, 4);
    interruptions = 1;
    CHECK(hash_seed_init(&other, NULL));
    CHECK_INT(calls, 6);
    CHECK(one.key[0] != other.key[0] && one.key[1] != other.key[1]);
}

TEST(half_a_seed_is_none)
{
    struct hash_seed seed = {.key = {5, 6}};
    most_drawn = 8;
    CHECK(!hash_seed_init(&seed, NULL));
    CHECK_INT(calls, 1);
    CHECK(seed.key[0] == 5 && seed.key[1] == 6);
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

static void check_every_place(const struct hash_seed *seed)
{
    for (size_t i = 0; i < COUNT_OF(places); i++) {
        check_single(seed, KEY_NUMBER, places[i]);
        check_single(seed, KEY_TEXT, places[i]);
    }
}

static void check_every_pair(const struct hash_seed *seed)
{
    for (size_t i = 0; i < COUNT_OF(places); i++) {
        for (size_t j = i + 1; j < COUNT_OF(places); j++) {
            check_pair(seed, KEY_NUMBER, places[i], places[j]);
            check_pair(seed, KEY_TEXT, places[i], places[j]);
        }
    }
}

TEST(bucket_shard_and_tag_bits_are_even)
{
    struct hash_seed seed = random_seed();
    check_every_place(&seed);
    seed.by_aes = false;
    check_every_place(&seed);
}

TEST(bucket_shard_and_tag_bits_are_uncorrelated)
{
    struct hash_seed seed = random_seed();
    check_every_pair(&seed);
    seed.by_aes = false;
    check_every_pair(&seed);
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

/* Of this thread alone: what other programs do meanwhile is not counted. */
static int64_t processor_ns(void)
{
    struct timespec used;
    CHECK_INT(clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used), 0);
    return used.tv_sec * INT64_C(1000000000) + used.tv_nsec;
}

/* The longest chain; *ns is what setting and getting all the keys took of the processor. */
static unsigned cost(const uint64_t *keys, int64_t *ns)
{
    aside_options options = quiet_options();
    options.max_bytes = 0;
    aside_cache *cache = open_cache(&options);
    unsigned longest = 0;
    int64_t began = processor_ns();
    for (size_t i = 0; i < KEYS; i++)
        CHECK_STATUS(aside_set(cache, &keys[i], sizeof keys[i], NULL, 0, ASIDE_FOREVER), ASIDE_OK);
    for (size_t i = 0; i < KEYS; i++)
        CHECK_STATUS(aside_copy(cache, &keys[i], sizeof keys[i], NULL, 0, NULL), ASIDE_OK);
    *ns = processor_ns() - began;
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
    /* Only the best counts, and more rounds make it no better than it is. */
    for (int round = 0; round < 5 || (best[1] > 3 * best[0] && round < 50); round++) {
        for (int kind = 0; kind < 2; kind++) {
            chain = cost(kind ? colliding : ordinary, &ns);
            longest[kind] = chain > longest[kind] ? chain : longest[kind];
            best[kind] = ns < best[kind] ? ns : best[kind];
        }
    }
    CHECK(longest[1] <= 3 * longest[0]);
    CHECK(best[1] <= 3 * best[0]);
}
