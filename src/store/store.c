/* store/store -- see store.h. */
#include "store/store.h"

#include "freshness/rules.h"

#include <assert.h>
#include <sched.h>

#define MOST_SHARDS 64
#define SHARD_BYTES ((size_t)256 << 10) /* a smaller cache has fewer shards */
#define SHARD_ENTRIES ((size_t)512)
#define MOST_TURNS 64
#define MOST_EVICTED 128 /* in one shard before the next has its turn */
/* A shard is rich that has this part of its share, and some entries, above it. */
#define RICH_PART 32
#define RICH_ENTRIES 8

/* ---- making ---------------------------------------------------------------------------------- */

size_t store_shards(size_t max_bytes, size_t max_entries)
{
    size_t shards = 1;
    while (shards < MOST_SHARDS && (!max_bytes || 2 * shards * SHARD_BYTES <= max_bytes) &&
           (!max_entries || 2 * shards * SHARD_ENTRIES <= max_entries))
        shards *= 2;
    return shards;
}

/* An eighth of the cache may wait for the grace period. */
static size_t limbo_for(size_t max_bytes, size_t shards)
{
    size_t all = max_bytes && max_bytes < (size_t)1 << 30 ? max_bytes : (size_t)1 << 30;
    size_t one = all / 8 / shards;
    return one > 16384 ? one : 16384;
}

/* Bounds, and who hears of what leaves: before there are entries. */
static bool init_policy(struct store *store, const aside_options *options)
{
    budget_init(&store->budget, options->max_bytes, options->max_entries);
    store->evicts = options->max_bytes || options->max_entries;
    store->listener = options->on_remove;
    store->home->queues = store->evicts || store->listener.fn;
    return !store->evicts || referee_init(&store->referee, &store->home->mem, &store->budget);
}

bool store_init(struct store *store, struct home *home, const struct hash_seed *seed,
                struct flight_bound *bound, const aside_options *options, int64_t now_ns)
{
    size_t shards = store_shards(options->max_bytes, options->max_entries);
    store->shards =
        mem_zalloc_lines(&home->mem, shards * sizeof(struct shard), &store->shards_block);
    if (!store->shards)
        return false;
    store->seed = *seed;
    store->shard_mask = shards - 1;
    store->home = home;
    tags_init(&store->tags, &home->mem, &store->budget, (const uint8_t *)seed->key);
    if (!init_policy(store, options)) {
        tags_fini(&store->tags);
        mem_free(&home->mem, store->shards_block);
        return false;
    }
    struct shard_common common = {&home->mem,
                                  &store->seed,
                                  &store->budget,
                                  bound,
                                  store->evicts ? &store->referee : NULL,
                                  store->listener.fn ? &store->listener : NULL,
                                  limbo_for(options->max_bytes, shards)};
    for (size_t i = 0; i < shards; i++)
        shard_init(&store->shards[i], &common, now_ns);
    return true;
}

void store_fini(struct store *store)
{
    for (size_t i = 0; i <= store->shard_mask; i++)
        shard_fini(&store->shards[i]);
    tags_fini(&store->tags);
    if (store->evicts)
        referee_fini(&store->referee);
    mem_free(&store->home->mem, store->shards_block);
}

static void count(struct store *store, enum counter counter, uint64_t n)
{
    if (n)
        counter_add(store->home, thread_self(), counter, n);
}

static void release_and_tell(struct store *store, struct shard *shard) RELEASES(shard->lock)
{
    struct link_list removals = shard_removals(shard);
    lock_release(&shard->lock);
    removal_tell(&store->listener, &removals);
}

/* ---- relief ---------------------------------------------------------------------------------- */

/* Turns in which the policy surely has looked at everything until it was cool. */
static size_t turns_for(const struct shard *shard)
{
    return (ENTRY_HEAT + 1) * shard->index.count / SHARD_LOOKS + 2;
}

/* What a search for room has come to so far. */
struct search {
    struct budget_room room, freed;
    bool found; /* if only for a moment: others may have taken it since */
};

static bool has_room(const struct store *store, struct search *search)
{
    bool has = budget_has(&store->budget, &search->room);
    search->found |= has;
    return has;
}

/* What is to be free when this shard has evicted. One that has clearly more than its share gives an
 * entry more, which another will store in its place: else entries would drift from shard to shard, as
 * threads take each other's room, and every index would grow in its turn. */
static struct budget_room room_in(const struct store *store, const struct shard *shard,
                                  struct budget_room room) REQUIRES(shard->lock)
{
    size_t share = load_relaxed(&store->budget.entries) / (store->shard_mask + 1);
    if (shard->index.count > share + share / RICH_PART + RICH_ENTRIES) {
        room.bytes += shard->bytes / shard->index.count;
        room.entries++;
    }
    return room;
}

/* Evicts in one shard until there is room, a share is evicted or nothing is left. */
static bool evict_in(struct store *store, struct shard *shard, struct search *search)
{
    size_t turns = 1;
    unsigned evicted = 0;
    for (size_t i = 0; i < turns && !has_room(store, search) && evicted < MOST_EVICTED; i++) {
        lock_take(&shard->lock);
        size_t before = shard->bytes;
        struct budget_room room = room_in(store, shard, search->room);
        shard_evict(shard, &room, &evicted);
        search->freed.bytes += before - shard->bytes;
        turns = shard->index.count ? turns_for(shard) : 0;
        release_and_tell(store, shard);
    }
    search->freed.entries += evicted;
    count(store, COUNTER_evicted, evicted);
    return evicted > 0;
}

/* Others may take the room while it is being made: after twice what is lacking it is their turn
 * to make some. */
static bool is_enough(const struct search *search)
{
    const struct budget_room *freed = &search->freed, *room = &search->room;
    return freed->bytes > 2 * room->bytes && freed->entries > 2 * room->entries + MOST_EVICTED;
}

/* In the shard at hand first, then in the others in turn, until a whole round has evicted
 * nothing. True: it is worth another try. */
static bool make_room(struct store *store, struct shard *near, struct budget_room room)
{
    struct search search = {room, {0, 0}, false};
    if (!budget_could_have(&store->budget, room.bytes))
        return false;
    bool progress = evict_in(store, near, &search);
    for (bool more = true; more && !is_enough(&search);) {
        more = false;
        for (size_t i = 0; i <= store->shard_mask && !has_room(store, &search); i++) {
            uint32_t victim = fetch_add_relaxed(&store->next_victim, 1);
            more |= evict_in(store, &store->shards[victim & store->shard_mask], &search);
        }
        progress |= more;
    }
    return progress || search.found;
}

bool store_make_room(struct store *store, struct shard *near, size_t bytes)
{
    return make_room(store, near, (struct budget_room){bytes, 0});
}

static bool empty_limbo(struct shard *shard)
{
    for (unsigned i = 0; i < MOST_TURNS; i++) {
        struct shard_debris debris;
        bool growth;
        lock_take(&shard->lock);
        shard_upkeep(shard, true, &debris, &growth);
        bool fits = shard->limbo.bytes <= shard->limbo_max;
        lock_release(&shard->lock);
        unsigned dropped = debris.count;
        shard_drop(&debris);
        if (fits)
            return true;
        if (dropped == 0)
            sched_yield();
    }
    return false;
}

static enum shard_end grow(struct store *store, struct shard *shard)
{
    size_t room = 0;
    enum shard_end end = shard_grow(shard, false, &room);
    if (end == SHARD_OK)
        return end;
    if (end == SHARD_NO_ROOM)
        (void)store_make_room(store, shard, room);
    return shard_grow(shard, true, &room);
}

/* True if the store is worth another try; else *end may say better why not. */
static bool relieve(struct store *store, struct shard *shard, enum shard_end *end,
                    const struct budget_room *lacking)
{
    switch (*end) {
    case SHARD_NO_ROOM: return make_room(store, shard, *lacking);
    case SHARD_LIMBO_FULL: return empty_limbo(shard);
    case SHARD_NO_ARRAY: *end = grow(store, shard); return *end == SHARD_OK;
    default: return false;
    }
}

static bool needs_relief(enum shard_end end)
{
    return end >= SHARD_NO_ROOM;
}

static aside_status status_of(enum shard_end end)
{
    switch (end) {
    case SHARD_OK: return ASIDE_OK;
    case SHARD_MISS: return ASIDE_MISS;
    case SHARD_EXISTS: return ASIDE_EXISTS;
    case SHARD_CLOSED: return ASIDE_E_CLOSED;
    case SHARD_NO_MEMORY:
    case SHARD_NO_ARRAY: return ASIDE_E_NOMEM;
    default: return ASIDE_E_BUSY;
    }
}

/* ---- writes ---------------------------------------------------------------------------------- */

/* What a write leaves to be done without the lock. */
struct aftermath {
    struct link_list removals;
    struct shard_debris debris;
    bool growth, doomed;
};

/* Ends a lock hold in which something was written. */
static void unlock(struct shard *shard, struct aftermath *after) RELEASES(shard->lock)
{
    shard_upkeep(shard, false, &after->debris, &after->growth);
    after->doomed = shard->doomed;
    after->removals = shard_removals(shard);
    lock_release(&shard->lock);
}

static void tidy(struct store *store, struct shard *shard, struct aftermath *after)
{
    bool more;
    removal_tell(&store->listener, &after->removals);
    shard_drop(&after->debris);
    if (after->growth)
        (void)grow(store, shard);
    if (after->doomed)
        (void)shard_dismantle(shard, SHARD_SIDE, &more);
}

static void unlock_and_tidy(struct store *store, struct shard *shard) RELEASES(shard->lock)
{
    struct aftermath after;
    unlock(shard, &after);
    tidy(store, shard, &after);
}

aside_status store_put(struct store *store, uint64_t hash, struct entry *entry, enum shard_put how,
                       int64_t now_ns)
{
    struct shard *shard = store_shard(store, hash);
    if (!budget_could_have(&store->budget, entry_charge(entry)))
        return ASIDE_E_TOO_LARGE;
    for (unsigned turn = 0;; turn++) {
        lock_take(&shard->lock);
        enum shard_end end = shard_put(shard, hash, entry, how, now_ns);
        struct budget_room lacking = shard->lacking;
        if (end == SHARD_OK)
            group_fence(&shard->group,
                        &(struct flight_key){hash, entry->bytes, entry->head.key_len});
        unlock_and_tidy(store, shard);
        if (!needs_relief(end) || turn == MOST_TURNS || !relieve(store, shard, &end, &lacking))
            return status_of(end);
    }
}

/* The tags go with what is stored; what is not stored must not outlive them with them. What is stored
 * others read by now: nothing is written there. */
static void settle_tags(struct flight *flight, struct entry *entry, bool stored)
{
    if (!entry || !entry_has_tags(entry))
        return;
    if (stored)
        flight->answer.tags = NULL;
    else
        entry_rare(entry)->tags = NULL;
}

/* What was not stored is kept by handles alone, from before anybody can see it. */
static void settle(struct store *store, struct flight *flight, struct entry *entry, bool stored,
                   bool refused)
{
    settle_tags(flight, entry, stored);
    if (flight->answer.entry && !(stored && flight->answer.entry == entry))
        entry_pin(flight->answer.entry);
    if (flight_is_lost(flight))
        return;
    flight->stored = stored;
    flight->overtaken = flight->overtaken || flight->outdated || !group_may_store(flight);
    group_end(flight->group, flight);
    flight_count(flight);
    if (stored && flight->answer.status == ASIDE_OK)
        thread_count_locked(&store->home->account, COUNTER_fetch_stored, 1);
    if (refused && !flight->overtaken)
        thread_count_locked(&store->home->account, COUNTER_store_refused, 1);
    if (flight_is_settled(flight))
        return;
    flight->answered = true;
    (void)group_settle(flight, flight->answer.status);
}

/* How often in a row it has failed, this time included. */
static uint64_t failures(struct shard *shard, const struct flight *flight) REQUIRES(shard->lock)
{
    struct entry *old = shard_find(shard, flight->hash, flight->key, flight->key_len);
    struct entry_rare *rare = old ? entry_rare(old) : NULL;
    return rare ? 1 + load_relaxed(&rare->failures) : 1;
}

/* It is forgotten only after as long again, so that the next one counts. */
static void date_failure(struct entry *entry, const struct flight *flight, uint64_t times,
                         int64_t first_ms, int64_t now_ns)
{
    int64_t ms = rules_backoff_ms(&flight->rules, first_ms, times);
    int64_t expires_ns = clock_after_ms(now_ns, ms);
    struct entry_life life = {
        .now_ns = now_ns, .expires_ns = expires_ns, .serve_for_ns = expires_ns - now_ns};
    entry_set_life(entry, &life);
    store_relaxed(&entry_rare(entry)->failures, (uint32_t)times);
}

static enum shard_end put_failure(struct shard *shard, struct flight *flight,
                                  const struct store_news *news, int64_t now_ns)
    REQUIRES(shard->lock)
{
    const struct flight_answer *answer = &flight->answer;
    uint64_t failure = entry_failure(answer->status, answer->code);
    int64_t until_ns = clock_after_ms(now_ns, flight->rules.throttle_ms);
    if (shard_rearm(shard, flight->hash, flight->key, flight->key_len, now_ns, until_ns, failure) ||
        !news->entry)
        return SHARD_MISS;
    date_failure(news->entry, flight, failures(shard, flight), news->backoff_ms, now_ns);
    store_relaxed(&entry_rare(news->entry)->failure, failure);
    return shard_put(shard, flight->hash, news->entry, SHARD_SET, now_ns);
}

/* A success that is not stored ends all the same what is remembered. */
static void forget_absent(struct shard *shard, const struct flight *flight, int64_t now_ns)
    REQUIRES(shard->lock)
{
    const struct entry *old = shard_find(shard, flight->hash, flight->key, flight->key_len);
    if (old && entry_is_absent(old))
        (void)shard_delete(shard, flight->hash, flight->key, flight->key_len, now_ns);
}

/* SHARD_OK: it was stored, or renewed. */
static enum shard_end put_news(struct shard *shard, struct flight *flight,
                               const struct store_news *news, int64_t now_ns) REQUIRES(shard->lock)
{
    switch (news->kind) {
    case STORE_PUT: return shard_put(shard, flight->hash, news->entry, SHARD_SET, now_ns);
    case STORE_KILL:
        (void)shard_delete(shard, flight->hash, flight->key, flight->key_len, now_ns);
        return SHARD_MISS;
    case STORE_RENEW:
        return shard_renew(shard, flight->hash, flight->key, flight->key_len, flight->value,
                           &news->life, flight->read_at)
                   ? SHARD_OK
                   : SHARD_FENCED;
    case STORE_FAILURE: return put_failure(shard, flight, news, now_ns);
    default: forget_absent(shard, flight, now_ns); return SHARD_MISS;
    }
}

/* The previous value is what it brings, and that has died with a tag. What tags it had nobody knows any
 * more once its entry is gone: then it may have been any. */
static bool is_previous_outdated(struct shard *shard, const struct flight *flight)
    REQUIRES(shard->lock)
{
    if (!flight->answer.not_modified || !flight->previous_tagged)
        return false;
    const struct entry *entry = shard_find(shard, flight->hash, flight->key, flight->key_len);
    if (entry && entry_holds(entry, flight->previous))
        return !entry_has_valid_tags(entry);
    return tags_now(flight->tags) != flight->read_at;
}

/* Nothing of it may be stored if a write, or a tag that it has, was faster. */
static enum shard_end put_unless_fenced(struct shard *shard, struct flight *flight,
                                        const struct store_news *news, bool fits, int64_t now_ns)
    REQUIRES(shard->lock)
{
    if (flight_is_lost(flight))
        return SHARD_FENCED;
    flight->outdated =
        !tags_valid(flight->answer.tags, flight->read_at) || is_previous_outdated(shard, flight);
    if (!fits)
        return SHARD_NO_ROOM;
    if (flight->overtaken || flight->outdated || !group_may_store(flight))
        return SHARD_FENCED;
    return put_news(shard, flight, news, now_ns);
}

/* It found a value, nobody was faster, and yet there is no newer one: it is not to be stored, or there is
 * no room for it. */
static bool changes_nothing(const struct flight *flight, enum shard_end end)
{
    return end != SHARD_OK && flight->answer.status == ASIDE_OK && flight->previous &&
           !flight->overtaken && group_may_store(flight);
}

static void end_publishing(struct store *store, struct shard *shard, struct flight *flight,
                           struct entry *entry, enum shard_end end) REQUIRES(shard->lock)
{
    if (changes_nothing(flight, end))
        shard_disarm(shard, flight->hash, flight->key, flight->key_len);
    settle(store, flight, entry, end == SHARD_OK, entry && needs_relief(end));
}

bool store_publish(struct store *store, struct flight *flight, const struct store_news *news,
                   int64_t now_ns)
{
    struct shard *shard = store_shard(store, flight->hash);
    struct entry *entry = news->entry;
    bool fits = !entry || budget_could_have(&store->budget, entry_charge(entry));
    if (entry)
        fetch_add_relaxed(&entry->head.refs, 1);
    enum shard_end end;
    struct aftermath after;
    thread_count_prepare(&store->home->account);
    for (unsigned turn = 0;; turn++) {
        bool last = turn == MOST_TURNS || !fits;
        lock_take(&shard->lock);
        end = put_unless_fenced(shard, flight, news, fits, now_ns);
        struct budget_room lacking = shard->lacking;
        bool retry = needs_relief(end) && !last;
        if (!retry)
            end_publishing(store, shard, flight, entry, end);
        unlock(shard, &after);
        if (!retry)
            flight_wake_others(flight);
        tidy(store, shard, &after);
        if (!retry)
            break;
        if (!relieve(store, shard, &end, &lacking))
            turn = MOST_TURNS - 1;
    }
    bool stored = entry && end == SHARD_OK;
    if (entry && !stored)
        (void)fetch_sub_acq_rel(&entry->head.refs, 1);
    return stored;
}

bool store_holds(struct store *store, uint64_t hash, const void *key, size_t key_len,
                 const aside_value *value, bool rare)
{
    struct shard *shard = store_shard(store, hash);
    lock_take(&shard->lock);
    const struct entry *entry = shard_find(shard, hash, key, key_len);
    bool holds = entry && entry_holds(entry, value) && (!rare || entry_rare(entry));
    lock_release(&shard->lock);
    return holds;
}

aside_status store_drop(struct store *store, uint64_t hash, const void *key, size_t key_len,
                        enum store_drop how, int64_t now_ns)
{
    struct shard *shard = store_shard(store, hash);
    lock_take(&shard->lock);
    enum shard_end end = how == STORE_DELETE ? shard_delete(shard, hash, key, key_len, now_ns)
                                             : shard_expire(shard, hash, key, key_len, now_ns);
    group_fence(&shard->group, &(struct flight_key){hash, key, key_len});
    unlock_and_tidy(store, shard);
    return status_of(end);
}

aside_status store_touch(struct store *store, uint64_t hash, const void *key, size_t key_len,
                         int64_t now_ns, int64_t until_ns)
{
    struct shard *shard = store_shard(store, hash);
    lock_take(&shard->lock);
    enum shard_end end = shard_touch(shard, hash, key, key_len, now_ns, until_ns);
    unlock_and_tidy(store, shard);
    return status_of(end);
}

void store_lazily_remove(struct store *store, uint64_t hash, const struct entry *entry,
                         const void *key, size_t key_len, int64_t now_ns)
{
    struct shard *shard = store_shard(store, hash);
    if (!lock_try(&shard->lock))
        return;
    bool removed = shard_remove_expired(shard, hash, entry, key, key_len, now_ns);
    struct aftermath after;
    unlock(shard, &after);
    removal_tell(&store->listener, &after.removals);
    shard_drop(&after.debris); /* the rest of the tidying might wait for a lock */
    count(store, COUNTER_expired, removed);
}

/* ---- upkeep ---------------------------------------------------------------------------------- */

static void free_slice(struct store *store, struct shard *shard)
{
    struct shard_debris debris;
    bool growth;
    lock_take(&shard->lock);
    shard_upkeep(shard, true, &debris, &growth);
    lock_release(&shard->lock);
    shard_drop(&debris);
    if (growth)
        (void)grow(store, shard);
}

static void pass_time(struct shard *shard, int64_t now_ns)
{
    lock_take(&shard->lock);
    shard_pass_time(shard, now_ns);
    lock_release(&shard->lock);
}

/* How far a reap has come. */
struct reaping {
    int64_t now_ns;
    uint32_t first; /* shard */
    size_t begun;   /* shards, from the first on */
    uint64_t done;  /* of those: a bit each */
    size_t left;    /* most entries to look at */
    size_t reaped;
};
static_assert(MOST_SHARDS <= 64, "a shard has a bit in struct reaping");

static struct shard *shard_after(const struct store *store, uint32_t first, size_t nth)
{
    return &store->shards[(first + nth) & store->shard_mask];
}

/* A slice of one shard: true if there may be more. */
static bool reap_slice(struct store *store, struct shard *shard, struct reaping *reaping)
{
    unsigned max = reaping->left < STORE_REAP_SLICE ? (unsigned)reaping->left : STORE_REAP_SLICE;
    unsigned reaped = 0;
    lock_take(&shard->lock);
    unsigned looked = shard_reap(shard, reaping->now_ns, max, &reaped);
    bool frees = limbo_has_batch(&shard->limbo);
    release_and_tell(store, shard);
    if (frees)
        free_slice(store, shard);
    reaping->left -= looked;
    reaping->reaped += reaped;
    return looked == max;
}

/* A slice of each shard: a writer who waits for the lock of one has it while the others are reaped.
 * Time passes once in each: what is due in a moment would be due again after each slice. */
static bool reap_round(struct store *store, struct reaping *reaping)
{
    bool more = false;
    for (size_t i = 0; i <= store->shard_mask && reaping->left; i++) {
        struct shard *shard = shard_after(store, reaping->first, i);
        if (i == reaping->begun) {
            pass_time(shard, reaping->now_ns);
            reaping->begun++;
        }
        if (reaping->done >> i & 1)
            continue;
        if (reap_slice(store, shard, reaping))
            more = true;
        else
            reaping->done |= UINT64_C(1) << i;
    }
    return more;
}

/* Frees what waits, as far as readers allow: three rounds end every grace period that can end. */
static void free_waiting(struct store *store, struct shard *shard)
{
    bool more = true;
    while (more)
        more = shard_dismantle(shard, SHARD_SLICE, &more) > 0 || more;
    for (size_t left = SIZE_MAX, now;; left = now) {
        free_slice(store, shard);
        lock_take(&shard->lock);
        now = shard->limbo.bytes + shard->limbo.visited_bytes;
        lock_release(&shard->lock);
        if (now == 0 || now >= left)
            return;
    }
}

size_t store_reap(struct store *store, int64_t now_ns, size_t budget)
{
    struct reaping reaping = {.now_ns = now_ns,
                              .first = fetch_add_relaxed(&store->next_reaped, 1),
                              .left = budget ? budget : SIZE_MAX};
    while (reap_round(store, &reaping) && reaping.left)
        ;
    for (size_t i = 0; i < reaping.begun; i++)
        free_waiting(store, shard_after(store, reaping.first, i));
    count(store, COUNTER_expired, reaping.reaped);
    return reaping.reaped;
}

void store_clear(struct store *store, bool closing, int64_t now_ns)
{
    for (size_t i = 0; i <= store->shard_mask; i++) {
        struct shard *shard = &store->shards[i];
        lock_take(&shard->lock);
        shard_clear(shard, closing ? ASIDE_CAUSE_CLOSED : ASIDE_CAUSE_CLEARED, now_ns);
        if (closing)
            shard->group.closed = true;
        lock_release(&shard->lock);
    }
}

void store_dismantle(struct store *store)
{
    for (size_t i = 0; i <= store->shard_mask; i++)
        free_waiting(store, &store->shards[i]);
}

void store_fork_child(struct store *store)
{
    size_t bytes = 0, lasting = 0, entries = 0;
    for (size_t i = 0; i <= store->shard_mask; i++) {
        struct shard *shard = &store->shards[i];
        shard_fork_child(shard);
        bytes += shard->bytes;
        lasting += index_charge(&shard->index) + shard->memory_bytes;
        entries += shard->index.count;
    }
    lasting += tags_lasting(&store->tags);
    budget_recount(&store->budget, bytes, lasting, entries);
}

void store_gauge(struct store *store, size_t *limbo_bytes, size_t *visited_bytes)
{
    *limbo_bytes = *visited_bytes = 0;
    for (size_t i = 0; i <= store->shard_mask; i++) {
        struct shard *shard = &store->shards[i];
        lock_take(&shard->lock);
        *limbo_bytes += shard->limbo.bytes + shard->doomed_bytes;
        *visited_bytes += shard->limbo.visited_bytes;
        lock_release(&shard->lock);
    }
}

bool store_check(struct store *store, FILE *why)
{
    bool sound = true;
    for (size_t i = 0; i <= store->shard_mask; i++)
        sound = shard_check(&store->shards[i], why) && sound;
    return sound;
}
