/*
 * shard.c -- store/shard: what is linked is counted, what was unlinked is freed, and no hold of the
 * lock looks at more than 64 entries (B4): debug builds end the process where one does.
 */
#include "rooms.h"

#include "store/shard.h"

enum { MANY = 10000 };

static struct ground ground;
static struct referee referee; /* of a shard that has a bound, and so evicts */
static struct shard *shard;
static void *shard_block;
static int64_t now;

static bool evicts(void)
{
    return ground.budget.max_bytes != BUDGET_MOST || ground.budget.max_entries != BUDGET_MOST;
}

static void begin(size_t max_bytes, size_t max_entries, size_t limbo_max)
{
    now = INT64_C(1000000000);
    ground_init(&ground, max_bytes, max_entries);
    shard = mem_zalloc_lines(&mem_default, sizeof *shard, &shard_block);
    CHECK(shard != NULL);
    CHECK(!evicts() || referee_init(&referee, &ground.mem, &ground.budget));
    struct shard_common common = {.mem = &ground.mem,
                                  .seed = &ground.seed,
                                  .budget = &ground.budget,
                                  .referee = evicts() ? &referee : NULL,
                                  .limbo_max = limbo_max};
    shard_init(shard, &common, now);
}

/* The housekeeping that follows a write, pressed or not. */
static bool upkeep(bool pressed)
{
    struct shard_debris debris;
    bool growth = false;
    lock_take(&shard->lock);
    shard_upkeep(shard, pressed, &debris, &growth);
    lock_release(&shard->lock);
    CHECK(debris.count <= (pressed ? SHARD_SLICE : SHARD_SIDE));
    shard_drop(&debris);
    return growth;
}

static void free_waiting(void)
{
    bool more = true;
    while (more)
        more = shard_dismantle(shard, SHARD_SLICE, &more) > 0 || more;
    for (int i = 0; i < 2 * MANY / SHARD_SLICE && shard->limbo.bytes; i++)
        (void)upkeep(true);
    CHECK_INT(shard->limbo.bytes, 0);
    CHECK_INT(shard->doomed_bytes, 0);
}

static void end(void)
{
    lock_take(&shard->lock);
    shard_clear(shard, ASIDE_CAUSE_CLEARED, now);
    shard->group.closed = true;
    lock_release(&shard->lock);
    free_waiting();
    shard_fini(shard);
    if (evicts())
        referee_fini(&referee);
    mem_free(&mem_default, shard_block);
    ground_fini(&ground);
}

static uint64_t hash(uint32_t i)
{
    return ground_hash(&ground, &i, sizeof i);
}

static struct entry *make(uint32_t i, size_t size, int64_t until_ns)
{
    return entry_make(ground.home, &i, sizeof i, size, now, until_ns);
}

static enum shard_end put_as(uint32_t i, struct entry *entry, enum shard_put how)
{
    enum shard_end end;
    do {
        lock_take(&shard->lock);
        end = shard_put(shard, hash(i), entry, how, now);
        lock_release(&shard->lock);
        if (end == SHARD_NO_ARRAY) {
            size_t room = 0;
            enum shard_end grown = shard_grow(shard, true, &room);
            if (grown != SHARD_OK)
                end = grown;
        }
    } while (end == SHARD_NO_ARRAY);
    if (end != SHARD_OK)
        entry_discard(entry);
    return end;
}

/* A whole write, as store/store does it. */
static void store(uint32_t i, int64_t until_ns)
{
    CHECK_INT(put_as(i, make(i, 4, until_ns), SHARD_SET), SHARD_OK);
    if (upkeep(false)) {
        size_t room = 0;
        (void)shard_grow(shard, true, &room);
    }
    bool more;
    (void)shard_dismantle(shard, SHARD_SIDE, &more);
}

static bool has(uint32_t i)
{
    lock_take(&shard->lock);
    struct entry *entry = shard_find(shard, hash(i), &i, sizeof i);
    lock_release(&shard->lock);
    return entry != NULL;
}

static enum shard_end drop(uint32_t i)
{
    lock_take(&shard->lock);
    enum shard_end end = shard_delete(shard, hash(i), &i, sizeof i, now);
    lock_release(&shard->lock);
    return end;
}

static size_t count(void)
{
    return shard->index.count;
}

/* An array, with the policy's memory for as many entries. */
static size_t table_bytes(size_t buckets)
{
    size_t memory = policy_memory_bytes(SHARD_REMEMBERS * buckets, 1) + CACHE_LINE;
    return index_array_bytes(buckets) + (evicts() ? mem_charge(memory) : 0);
}

/* What is linked, and nothing else, is reserved, beside the arrays and the policy's memory. */
static void check_bytes(void)
{
    size_t arrays = 0;
    for (struct index_array *a = atomic_load(&shard->index.array); a; a = atomic_load(&a->next))
        arrays += a->bytes ? index_array_charge(a) : 0;
    CHECK_INT(ground.budget.bytes, shard->bytes + arrays + shard->memory_bytes);
    CHECK_INT(ground.budget.entries, count());
    CHECK(shard_check(shard, stderr));
}

/* ---- single writes ------------------------------------------------------------------------------- */

TEST(a_put_links_replaces_or_finds_that_there_is_one)
{
    begin(0, 0, SIZE_MAX);
    CHECK_INT(put_as(1, make(1, 10, CLOCK_NEVER), SHARD_ADD), SHARD_OK);
    CHECK_INT(put_as(1, make(1, 10, CLOCK_NEVER), SHARD_ADD), SHARD_EXISTS);
    CHECK_INT(put_as(1, make(1, 5000, now + 5), SHARD_SET), SHARD_OK);
    CHECK_INT(count(), 1);
    check_bytes();
    CHECK_INT(put_as(1, make(1, 1, CLOCK_NEVER), SHARD_SET), SHARD_OK); /* and smaller again */
    check_bytes();
    now += 5;
    CHECK_INT(put_as(1, make(1, 1, now + 1), SHARD_SET), SHARD_OK);
    now++;
    CHECK_INT(put_as(1, make(1, 7, CLOCK_NEVER), SHARD_ADD), SHARD_OK); /* that one was over */
    CHECK_INT(count(), 1);
    check_bytes();
    CHECK(shard->limbo.open.count + shard->limbo.waiting.count + shard->limbo.ripe.count == 4);
    end();
}

TEST(a_delete_unlinks_and_says_whether_it_was_fresh)
{
    begin(0, 0, SIZE_MAX);
    store(1, CLOCK_NEVER);
    store(2, now + 1);
    CHECK_INT(drop(3), SHARD_MISS);
    CHECK_INT(drop(1), SHARD_OK);
    now++;
    CHECK_INT(drop(2), SHARD_MISS);
    CHECK(!has(1) && !has(2));
    CHECK_INT(count(), 0);
    check_bytes();
    end();
}

static enum shard_end touch(uint32_t i, int64_t until_ns)
{
    lock_take(&shard->lock);
    enum shard_end end = until_ns ? shard_touch(shard, hash(i), &i, sizeof i, now, until_ns)
                                  : shard_expire(shard, hash(i), &i, sizeof i, now);
    lock_release(&shard->lock);
    return end;
}

/* As store/store reaps: time passes once, then slices until one is short. */
static unsigned reap_all(void)
{
    unsigned all = 0, looked;
    lock_take(&shard->lock);
    shard_pass_time(shard, now);
    lock_release(&shard->lock);
    do {
        unsigned reaped = 0;
        lock_take(&shard->lock);
        looked = shard_reap(shard, now, SHARD_SLICE, &reaped);
        lock_release(&shard->lock);
        CHECK(looked <= SHARD_SLICE && reaped <= looked);
        all += reaped;
    } while (looked == SHARD_SLICE);
    return all;
}

TEST(touch_moves_the_deadline_and_expire_ends_it)
{
    begin(0, 0, SIZE_MAX);
    store(1, now + 100);
    CHECK_INT(touch(2, now + 5), SHARD_MISS);
    CHECK_INT(touch(1, now + INT64_C(50000000000)), SHARD_OK);
    now += 100;
    CHECK_INT(reap_all(), 0);
    CHECK_INT(touch(1, 0), SHARD_OK);
    CHECK_INT(touch(1, 0), SHARD_MISS);
    CHECK_INT(touch(1, now + 5), SHARD_MISS); /* no way back */
    CHECK(has(1));
    CHECK_INT(reap_all(), 1);
    CHECK(!has(1));
    store(1, CLOCK_NEVER);
    CHECK_INT(touch(1, CLOCK_NEVER), SHARD_OK);
    now += INT64_C(1000000000000000);
    CHECK_INT(reap_all(), 0);
    end();
}

TEST(lazy_removal_takes_only_what_it_met)
{
    begin(0, 0, SIZE_MAX);
    store(1, now + 1);
    uint32_t key = 1;
    lock_take(&shard->lock);
    struct entry *old = shard_find(shard, hash(1), &key, sizeof key);
    CHECK(!shard_remove_expired(shard, hash(1), old, &key, sizeof key, now));
    lock_release(&shard->lock);
    now++;
    store(1, CLOCK_NEVER);
    lock_take(&shard->lock);
    CHECK(!shard_remove_expired(shard, hash(1), old, &key, sizeof key,
                                now)); /* a newer one is there */
    lock_release(&shard->lock);
    CHECK(has(1));
    store(1, now + 1);
    now++;
    lock_take(&shard->lock);
    old = shard_find(shard, hash(1), &key, sizeof key);
    CHECK(shard_remove_expired(shard, hash(1), old, &key, sizeof key, now));
    CHECK(!shard_remove_expired(shard, hash(1), old, &key, sizeof key, now));
    lock_release(&shard->lock);
    check_bytes();
    end();
}

TEST(a_closed_shard_takes_nothing_and_keeps_nothing_that_a_write_was_to_replace)
{
    begin(0, 0, SIZE_MAX);
    for (uint32_t i = 1; i <= 3; i++)
        store(i, CLOCK_NEVER);
    shard->group.closed = true;
    CHECK_INT(touch(1, now + 1), SHARD_CLOSED);
    CHECK_INT(put_as(4, make(4, 1, CLOCK_NEVER), SHARD_ADD), SHARD_CLOSED);
    CHECK_INT(count(), 3);
    CHECK_INT(put_as(1, make(1, 1, CLOCK_NEVER), SHARD_SET), SHARD_CLOSED);
    CHECK_INT(drop(2), SHARD_CLOSED);
    CHECK_INT(touch(3, 0), SHARD_CLOSED);
    CHECK_INT(count(), 0);
    check_bytes();
    end();
}

TEST(what_does_not_fit_changes_nothing)
{
    begin(1, 0, SIZE_MAX);
    size_t table = table_bytes(8);
    end();
    begin(table + 1000, 0, SIZE_MAX);
    CHECK_INT(put_as(1, make(1, 500, CLOCK_NEVER), SHARD_SET), SHARD_OK);
    size_t bytes = ground.budget.bytes;
    CHECK_INT(put_as(2, make(2, 500, CLOCK_NEVER), SHARD_SET), SHARD_NO_ROOM);
    CHECK_INT(put_as(1, make(1, 1100, CLOCK_NEVER), SHARD_SET), SHARD_NO_ROOM);
    CHECK(ground.budget.bytes == bytes);
    CHECK(has(1) && !has(2));
    check_bytes();
    end();
}

TEST(the_first_array_may_be_refused)
{
    begin(100, 0, SIZE_MAX);
    CHECK_INT(put_as(1, make(1, 1, CLOCK_NEVER), SHARD_SET), SHARD_NO_ROOM);
    end();
    begin(0, 0, SIZE_MAX);
    struct entry *entry = make(1, 1, CLOCK_NEVER);
    ground.ledger.fail_at = 1;
    CHECK_INT(put_as(1, entry, SHARD_SET), SHARD_NO_MEMORY);
    store(1, CLOCK_NEVER);
    CHECK(has(1));
    end();
}

TEST(a_full_limbo_refuses_writes_until_the_reader_has_gone)
{
    struct stalled reader;
    begin(0, 0, 1000);
    stalled_begin(&reader);
    enum shard_end last = SHARD_OK;
    int written = 0;
    for (; written < 100 && last == SHARD_OK; written++) {
        last = put_as(1, make(1, 100, CLOCK_NEVER), SHARD_SET);
        (void)upkeep(true);
    }
    CHECK_INT(last, SHARD_LIMBO_FULL);
    CHECK(shard->limbo.bytes > 1000 && shard->limbo.bytes < 1400);
    CHECK_INT(drop(1), SHARD_OK); /* removing always works */
    CHECK_INT(put_as(2, make(2, 100, CLOCK_NEVER), SHARD_SET), SHARD_LIMBO_FULL);
    stalled_end(&reader);
    free_waiting();
    CHECK_INT(put_as(2, make(2, 100, CLOCK_NEVER), SHARD_SET), SHARD_OK);
    end();
}

/* ---- ten thousand -------------------------------------------------------------------------------- */

static void put_many(int64_t until_ns)
{
    for (uint32_t i = 0; i < MANY; i++)
        store(i, until_ns);
    CHECK_INT(count(), MANY);
}

TEST(growth_goes_in_small_steps)
{
    begin(0, 0, SIZE_MAX);
    put_many(CLOCK_NEVER);
    for (uint32_t i = 0; i < MANY; i++)
        CHECK(has(i));
    CHECK(index_next_size(&shard->index) * 5 / 2 >= MANY);
    end();
}

TEST(clearing_goes_in_small_steps)
{
    begin(0, 0, SIZE_MAX);
    put_many(now + 1000);
    lock_take(&shard->lock);
    shard_clear(shard, ASIDE_CAUSE_CLEARED, now);
    lock_release(&shard->lock);
    CHECK_INT(count(), 0);
    CHECK_INT(ground.budget.bytes, 0);
    CHECK_INT(ground.budget.entries, 0);
    CHECK(shard->doomed_bytes > 0);
    now += 1000;
    CHECK_INT(reap_all(), 0); /* the wheel knows none of them any more */
    int64_t blocks = ground.ledger.live_blocks;
    unsigned taken, slices = 0;
    bool more = true;
    for (; more; slices++) {
        taken = shard_dismantle(shard, SHARD_SLICE, &more);
        CHECK(taken <= SHARD_SLICE);
    }
    CHECK(slices >= MANY / SHARD_SLICE);
    CHECK(ground.ledger.live_blocks <= blocks - MANY);
    CHECK_INT(shard->doomed_bytes, 0);
    CHECK(shard->doomed == NULL);
    store(5, CLOCK_NEVER);
    CHECK(has(5));
    end();
}

TEST(reaping_goes_in_small_steps)
{
    begin(0, 0, SIZE_MAX);
    put_many(now + 1000000);
    store(MANY, CLOCK_NEVER);
    CHECK_INT(reap_all(), 0);
    now += 1000000;
    CHECK_INT(reap_all(), MANY);
    CHECK_INT(count(), 1);
    check_bytes();
    free_waiting();
    end();
}

TEST(evicting_goes_in_small_steps)
{
    begin(0, 2 * MANY, SIZE_MAX);
    put_many(CLOCK_NEVER);
    unsigned evicted = 0;
    for (int turn = 0; count() > 0 && turn < 4 * MANY; turn++) {
        unsigned before = evicted;
        size_t bytes = shard->bytes;
        lock_take(&shard->lock);
        shard_evict(shard, &(struct budget_room){BUDGET_MOST, 0}, &evicted);
        lock_release(&shard->lock);
        CHECK(evicted - before <= LOCK_MAX_TOUCHED);
        CHECK((evicted > before) == (shard->bytes < bytes));
    }
    CHECK_INT(count(), 0);
    CHECK_INT(evicted, MANY);
    check_bytes();
    end();
}

/* ---- what the policy remembers ------------------------------------------------------------------- */

static unsigned counted(uint32_t i)
{
    return sketch_count(&shard->policy.sketch, policy_print_of(hash(i)));
}

TEST(what_the_policy_remembers_grows_with_the_index_and_is_kept)
{
    begin(0, 2 * MANY, SIZE_MAX);
    for (int times = 0; times < 5; times++) {
        store(0, CLOCK_NEVER);
        CHECK_INT(drop(0), SHARD_OK);
    }
    size_t before = shard->memory_bytes;
    CHECK(before > 0 && counted(0) == 5);
    put_many(CLOCK_NEVER);
    CHECK(shard->memory_bytes >= policy_memory_bytes(MANY / 2, 1));
    CHECK(counted(0) >= 6);
    check_bytes();
    end();
}

TEST(a_clear_gives_back_what_the_policy_remembers)
{
    begin((size_t)1 << 30, 0, SIZE_MAX);
    int64_t blocks = ground.ledger.live_blocks;
    for (int turn = 0; turn < 3; turn++) {
        put_many(CLOCK_NEVER);
        lock_take(&shard->lock);
        shard_clear(shard, ASIDE_CAUSE_CLEARED, now);
        lock_release(&shard->lock);
        CHECK_INT(ground.budget.bytes, 0);
        CHECK_INT(ground.budget.lasting, 0);
        CHECK_INT(counted(0), 0);
        free_waiting();
        CHECK_INT(ground.ledger.live_blocks, blocks);
    }
    end();
}

TEST(a_search_for_room_looks_at_a_few_and_the_next_goes_on_from_there)
{
    begin(0, 1000, SIZE_MAX);
    for (uint32_t i = 0; i < 100; i++)
        store(i, CLOCK_NEVER);
    for (uint32_t i = 0; i < 99; i++) { /* all but the last are hot */
        lock_take(&shard->lock);
        struct entry *entry = shard_find(shard, hash(i), &i, sizeof i);
        lock_release(&shard->lock);
        policy_hit(entry);
        policy_hit(entry);
    }
    unsigned evicted = 0, searches = 0;
    for (; evicted == 0; searches++) {
        lock_take(&shard->lock);
        shard_evict(shard, &(struct budget_room){0, 901}, &evicted);
        lock_release(&shard->lock);
    }
    CHECK(searches >= 99 / SHARD_LOOKS && searches <= 4 * 100 / SHARD_LOOKS);
    CHECK_INT(evicted, 1);
    check_bytes();
    end();
}

/* ---- growth that has to wait --------------------------------------------------------------------- */

static bool no_large_blocks;
static aside_alloc counting;

static void *small_malloc(size_t size, void *ctx)
{
    return no_large_blocks && size > 4000 ? NULL : counting.malloc(size, ctx);
}

/* Without larger tables the index fills up to where a move would be too much for one hold, and then refuses. */
TEST(a_growth_that_comes_late_goes_in_small_steps_as_well)
{
    enum { MOST = 3000 };
    enum shard_end last = SHARD_OK;
    uint32_t late = 0;
    begin(0, 0, SIZE_MAX);
    counting = ground.mem.hooks;
    ground.mem.hooks.malloc = small_malloc;
    no_large_blocks = true;
    while (late < MOST / 2 && last == SHARD_OK) {
        last = put_as(late, make(late, 4, CLOCK_NEVER), SHARD_SET);
        late += last == SHARD_OK;
        (void)upkeep(false);
    }
    CHECK(late >= 100);
    CHECK(last == SHARD_OK || last == SHARD_NO_MEMORY);
    CHECK(shard_check(shard, stderr));
    no_large_blocks = false;
    for (uint32_t i = late; i < MOST; i++) {
        store(i, CLOCK_NEVER);
        if (i % 16 == 0)
            CHECK(shard_check(shard, stderr));
    }
    CHECK(index_next_size(&shard->index) >= MOST / 10);
    for (uint32_t i = 0; i < MOST; i++)
        CHECK(has(i));
    end();
}

/* What happens while the memory for a table is sought, for which no lock is held. */
static void (*meanwhile)(void);

static void *slow_malloc(size_t size, void *ctx)
{
    void (*now_do)(void) = meanwhile;
    meanwhile = NULL;
    if (now_do)
        now_do();
    return counting.malloc(size, ctx);
}

static enum shard_end grow_while(void (*something)(void))
{
    size_t room = 0;
    counting = ground.mem.hooks;
    ground.mem.hooks.malloc = slow_malloc;
    meanwhile = something;
    enum shard_end result = shard_grow(shard, true, &room);
    ground.mem.hooks = counting;
    CHECK(meanwhile == NULL);
    return result;
}

static void close_meanwhile(void)
{
    lock_take(&shard->lock);
    shard->group.closed = true;
    lock_release(&shard->lock);
}

static void grow_meanwhile(void)
{
    size_t room = 0;
    CHECK_INT(shard_grow(shard, true, &room), SHARD_OK);
    CHECK(!index_is_stuck(&shard->index));
}

TEST(a_table_that_comes_too_late_is_thrown_away)
{
    begin(0, 0, SIZE_MAX);
    int64_t blocks = ground.ledger.live_blocks;
    CHECK_INT(grow_while(grow_meanwhile), SHARD_OK);
    CHECK_INT(ground.ledger.live_blocks, blocks + 1);
    check_bytes();
    CHECK_INT(put_as(1, make(1, 1, CLOCK_NEVER), SHARD_SET), SHARD_OK);
    end();
}

TEST(a_table_for_a_shard_that_was_closed_meanwhile_is_thrown_away)
{
    size_t room = 0;
    begin(0, 0, SIZE_MAX);
    int64_t blocks = ground.ledger.live_blocks;
    CHECK_INT(grow_while(close_meanwhile), SHARD_OK);
    CHECK_INT(ground.ledger.live_blocks, blocks);
    CHECK_INT(ground.budget.bytes, 0);
    CHECK(index_is_stuck(&shard->index));
    int64_t calls = ground.ledger.calls;
    CHECK_INT(shard_grow(shard, true, &room), SHARD_OK); /* and from now on none is made */
    CHECK_INT(ground.ledger.calls, calls);
    end();
}

static void fill_until_growth_is_wanted(void)
{
    size_t room = 0;
    CHECK_INT(shard_grow(shard, true, &room), SHARD_OK);
    for (uint32_t i = 0; !index_wants_array(&shard->index); i++)
        CHECK_INT(put_as(i, make(i, 0, CLOCK_NEVER), SHARD_SET), SHARD_OK);
}

/* Twice, as the last try and not. */
static void check_refused_growth(enum shard_end expected, int64_t fail_at)
{
    for (int last_try = 0; last_try < 2; last_try++) {
        size_t room = 0;
        CHECK(index_wants_array(&shard->index));
        ground.ledger.fail_at = fail_at;
        CHECK_INT(shard_grow(shard, last_try, &room), expected);
        CHECK_INT(room, table_bytes(index_next_size(&shard->index)));
        CHECK(!shard->array_coming);
    }
    CHECK(!index_wants_array(&shard->index));
}

TEST(after_the_last_try_for_a_table_nobody_tries_for_a_while)
{
    begin(0, 0, SIZE_MAX);
    fill_until_growth_is_wanted();
    check_refused_growth(SHARD_NO_MEMORY, 1);
    check_bytes();
    end();
    begin(0, MANY, SIZE_MAX);
    fill_until_growth_is_wanted();
    int64_t blocks = ground.ledger.live_blocks;
    check_refused_growth(SHARD_NO_MEMORY, 2); /* for what the policy remembers */
    CHECK_INT(ground.ledger.live_blocks, blocks);
    check_bytes();
    end();
    begin(64 << 10, 0, SIZE_MAX);
    fill_until_growth_is_wanted();
    size_t left = ground.budget.max_bytes - ground.budget.bytes;
    CHECK(budget_reserve(&ground.budget, left, 0));
    check_refused_growth(SHARD_NO_ROOM, 0);
    budget_refund(&ground.budget, left, 0);
    check_bytes();
    end();
}

/* ---- doom ---------------------------------------------------------------------------------------- */

TEST(a_doomed_array_stays_while_a_reader_is_inside)
{
    struct stalled reader;
    bool more;
    begin(0, 0, SIZE_MAX);
    for (uint32_t i = 0; i < 20; i++)
        store(i, CLOCK_NEVER);
    free_waiting();
    stalled_begin(&reader);
    lock_take(&shard->lock);
    shard_clear(shard, ASIDE_CAUSE_CLEARED, now);
    lock_release(&shard->lock);
    int64_t blocks = ground.ledger.live_blocks;
    for (int i = 0; i < 10; i++) {
        CHECK_INT(shard_dismantle(shard, SHARD_SLICE, &more), 0);
        CHECK(!more);
    }
    CHECK_INT(ground.ledger.live_blocks, blocks);
    stalled_end(&reader);
    free_waiting();
    CHECK(ground.ledger.live_blocks < blocks - 20);
    end();
}

TEST(no_more_than_a_slice_is_taken_whatever_is_asked_for)
{
    bool more;
    begin(0, 0, SIZE_MAX);
    for (uint32_t i = 0; i < SHARD_SLICE + 7; i++)
        store(i, CLOCK_NEVER);
    lock_take(&shard->lock);
    shard_clear(shard, ASIDE_CAUSE_CLEARED, now);
    lock_release(&shard->lock);
    CHECK_INT(shard_dismantle(shard, 1000, &more), SHARD_SLICE);
    CHECK(more);
    CHECK_INT(shard_dismantle(shard, 1000, &more), 7);
    CHECK(shard->doomed == NULL);
    end();
}

TEST(an_entry_that_a_visit_names_survives_the_clear)
{
    struct thread_record *self = thread_self();
    begin(0, 0, SIZE_MAX);
    for (uint32_t i = 0; i < 50; i++)
        store(i, CLOCK_NEVER);
    uint32_t key = 7;
    lock_take(&shard->lock);
    struct entry *named = shard_find(shard, hash(7), &key, sizeof key);
    store_release(&self->visiting[0], named);
    shard_clear(shard, ASIDE_CAUSE_CLEARED, now);
    lock_release(&shard->lock);
    free_waiting();
    CHECK_INT(shard->limbo.visited_bytes, entry_charge(named));
    CHECK(memcmp(entry_data(named), "vvvv", 4) == 0);
    store_release(&self->visiting[0], NULL);
    (void)upkeep(true);
    CHECK_INT(shard->limbo.visited_bytes, 0);
    end();
}

TEST(two_may_bring_the_first_array_and_one_larger_is_made_at_a_time)
{
    size_t room = 0;
    begin(0, 0, SIZE_MAX);
    CHECK_INT(shard_grow(shard, true, &room), SHARD_OK);
    int64_t blocks = ground.ledger.live_blocks;
    CHECK_INT(shard_grow(shard, true, &room), SHARD_OK); /* nothing is wanted */
    CHECK_INT(ground.ledger.live_blocks, blocks);
    fill_until_growth_is_wanted();
    shard->array_coming = true;
    blocks = ground.ledger.live_blocks;
    CHECK_INT(shard_grow(shard, true, &room), SHARD_OK);
    CHECK_INT(ground.ledger.live_blocks, blocks);
    shard->array_coming = false;
    CHECK_INT(shard_grow(shard, true, &room), SHARD_OK);
    CHECK_INT(ground.ledger.live_blocks, blocks + 1);
    end();
}

TEST(a_chain_that_cannot_be_made_longer_is_short_of_memory)
{
    size_t room = 0;
    uint32_t linked = 0;
    enum shard_end result = SHARD_OK;
    begin(0, 0, SIZE_MAX);
    CHECK_INT(shard_grow(shard, false, &room), SHARD_OK);
    while (result == SHARD_OK) { /* no larger array is made meanwhile */
        struct entry *entry = make(linked, 0, CLOCK_NEVER);
        ground.ledger.fail_at = 1;
        lock_take(&shard->lock);
        result = shard_put(shard, hash(linked), entry, SHARD_SET, now);
        lock_release(&shard->lock);
        ground.ledger.fail_at = 0;
        if (result == SHARD_OK)
            linked++;
        else
            entry_discard(entry);
    }
    CHECK_INT(result, SHARD_NO_MEMORY);
    CHECK_INT(shard->index.count, linked);
    CHECK_INT(put_as(linked, make(linked, 0, CLOCK_NEVER), SHARD_SET), SHARD_OK);
    end();
}

/* ---- threads near their end ---------------------------------------------------------------------- */

static pthread_key_t late;
static size_t freed_late;

/* In the last round there is no record any more. */
static void late_upkeep(void *again)
{
    if (thread_self() != NULL) {
        pthread_setspecific(late, again);
        return;
    }
    size_t before = shard->limbo.bytes;
    (void)upkeep(true);
    freed_late += before - shard->limbo.bytes;
}

static void *late_main(void *arg)
{
    CHECK(thread_self() != NULL);
    pthread_setspecific(late, arg);
    return NULL;
}

TEST(a_thread_without_a_record_does_its_share_of_the_housekeeping)
{
    CHECK(thread_self() != NULL); /* whose key comes first, so that its destructor does */
    CHECK_INT(pthread_key_create(&late, late_upkeep), 0);
    begin(0, 0, SIZE_MAX);
    for (int i = 0; i < 20; i++)
        CHECK_INT(put_as(1, make(1, 100, CLOCK_NEVER), SHARD_SET), SHARD_OK);
    CHECK(shard->limbo.bytes > 19 * 100);
    thread_join(thread_start(late_main, &late));
    CHECK(freed_late > 19 * 100);
    CHECK_INT(shard->limbo.bytes, 0);
    end();
}

/* ---- the end ------------------------------------------------------------------------------------- */

static void *fini_main(void *arg)
{
    shard_fini(shard);
    return arg;
}

static void close_shard(void)
{
    lock_take(&shard->lock);
    shard_clear(shard, ASIDE_CAUSE_CLEARED, now);
    shard->group.closed = true;
    lock_release(&shard->lock);
}

/* Its own readers have gone: these are of another cache, which the epoch does not tell apart. */
static void end_with_reader(bool (*held_up)(void))
{
    struct stalled reader;
    stalled_begin(&reader);
    close_shard();
    int64_t blocks = ground.ledger.live_blocks;
    pthread_t ender = thread_start(fini_main, NULL);
    WAIT_UNTIL(held_up());
    CHECK_INT(ground.ledger.live_blocks, blocks);
    stalled_end(&reader);
    thread_join(ender);
    mem_free(&mem_default, shard_block);
    ground_fini(&ground);
}

/* What the shard's lock is held for is over: the ender found that it has to come again. */
static bool limbo_waits(void)
{
    lock_take(&shard->lock);
    bool waits = shard->limbo.waiting.count == 1;
    lock_release(&shard->lock);
    return waits;
}

TEST(a_shard_that_ends_waits_for_what_is_in_limbo)
{
    begin(0, 0, SIZE_MAX);
    lock_take(&shard->lock);
    limbo_add(&shard->limbo, make(1, 100, CLOCK_NEVER));
    lock_release(&shard->lock);
    end_with_reader(limbo_waits);
}

static uint64_t epoch_before;

static bool doom_waits(void)
{
    bool tried = load_acquire(&epoch_global.now) > epoch_before;
    lock_take(&shard->lock);
    CHECK(shard->doomed != NULL);
    lock_release(&shard->lock);
    return tried;
}

TEST(a_shard_that_ends_waits_for_its_arrays)
{
    begin(0, 0, SIZE_MAX);
    for (uint32_t i = 0; i < SHARD_SLICE; i++) /* so that a second slice finds none */
        store(i, CLOCK_NEVER);
    epoch_before = load_acquire(&epoch_global.now);
    end_with_reader(doom_waits);
}

/* ---- the check ----------------------------------------------------------------------------------- */

TEST(the_check_reports_what_is_broken)
{
    FILE *nowhere = fopen("/dev/null", "we");
    uint32_t key = 1;
    begin(0, 0, SIZE_MAX);
    store(key, now + 1000);
    shard->index.count++;
    CHECK(!shard_check(shard, nowhere));
    shard->index.count--;
    lock_take(&shard->lock);
    struct entry_link *link = &entry_cold(shard_find(shard, hash(key), &key, sizeof key))->link,
                      right = *link;
    lock_release(&shard->lock);
    link->prev = link;
    CHECK(!shard_check(shard, nowhere));
    *link = right;
    CHECK(shard_check(shard, stderr));
    end();
    begin(0, 100, SIZE_MAX);
    store(key, CLOCK_NEVER);
    shard->policy.small.weight++;
    CHECK(!shard_check(shard, nowhere));
    shard->policy.small.weight--;
    CHECK(shard_check(shard, stderr));
    fclose(nowhere);
    end();
}

/* ---- taking apart at the same time --------------------------------------------------------------- */

/* Runs once, as a destructor does: without the lock, in the middle of a slice. */
static void (*in_the_middle)(void);

static void run_once(void *ptr, void *ctx)
{
    void (*something)(void) = in_the_middle;
    (void)ptr, (void)ctx;
    in_the_middle = NULL;
    if (something)
        something();
}

static void store_wrapped(uint32_t i)
{
    static int object;
    aside_value *value = NULL;
    CHECK_STATUS(aside_value_wrap(&object, 0, run_once, NULL, &value), ASIDE_OK);
    struct entry *entry = entry_new_wrapping(ground.home, &i, sizeof i, value);
    CHECK(entry != NULL);
    aside_value_unref(value);
    entry_set_times(entry, now, CLOCK_NEVER, 0);
    CHECK_INT(put_as(i, entry, SHARD_SET), SHARD_OK);
}

static struct gate held;
static pthread_t other;

static void stand_at_gate(void)
{
    gate_pass(&held);
}

static void *dismantle_main(void *arg)
{
    bool more;
    CHECK_INT(shard_dismantle(shard, SHARD_SLICE, &more), 1);
    return arg;
}

/* The other takes the second array in hand, and has it still when this thread lays down its own. */
static void let_another_begin(void)
{
    in_the_middle = stand_at_gate;
    other = thread_start(dismantle_main, NULL);
    gate_wait_arrived(&held, 1);
}

TEST(two_take_arrays_apart_and_each_lays_down_his_own)
{
    bool more;
    begin(0, 0, SIZE_MAX);
    gate_init(&held);
    for (uint32_t i = 0; i < 2; i++) {
        store_wrapped(i);
        lock_take(&shard->lock);
        shard_clear(shard, ASIDE_CAUSE_CLEARED, now);
        lock_release(&shard->lock);
    }
    size_t each = shard->doomed_bytes / 2;
    in_the_middle = let_another_begin;
    CHECK_INT(shard_dismantle(shard, SHARD_SLICE, &more), 1);
    CHECK_INT(shard->doomed_bytes, each);
    CHECK(shard->in_hand != NULL && shard->doomed == NULL);
    gate_open(&held);
    thread_join(other);
    CHECK(shard->in_hand == NULL);
    CHECK_INT(shard->doomed_bytes, 0);
    gate_fini(&held);
    end();
}

/* What the child of a fork does first; here there is nobody else, so it is a child of its own. */
static void fork_in_the_middle(void)
{
    lock_take(&shard->lock);
    CHECK(shard->in_hand != NULL && shard->doomed == NULL);
    shard_fork_child(shard);
    CHECK(shard->in_hand == NULL && shard->doomed != NULL);
    lock_release(&shard->lock);
}

static void check_fork_after(uint32_t entries)
{
    bool more;
    begin(0, 0, SIZE_MAX);
    store_wrapped(0);
    for (uint32_t i = 1; i < entries; i++)
        store(i, CLOCK_NEVER);
    lock_take(&shard->lock);
    shard_clear(shard, ASIDE_CAUSE_CLEARED, now);
    lock_release(&shard->lock);
    in_the_middle = fork_in_the_middle;
    while (in_the_middle)
        CHECK(shard_dismantle(shard, SHARD_SLICE, &more) > 0);
    CHECK(shard->doomed != NULL); /* and nothing of it is lost, or freed twice */
    free_waiting();
    CHECK(shard->doomed == NULL);
    end();
}

TEST(what_was_in_hand_at_a_fork_is_taken_apart_all_the_same)
{
    check_fork_after(SHARD_SLICE + 5);
    check_fork_after(SHARD_SLICE - 5);
}
