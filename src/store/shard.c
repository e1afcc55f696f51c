/* store/shard -- see shard.h. */
#include "store/shard.h"

#include "base/clock.h"
#include "base/epoch.h"

#include <sched.h>

void shard_init(struct shard *shard, const struct shard_common *common, int64_t now_ns)
{
    index_init(&shard->index, common->mem, common->seed, common->budget);
    lock_init(&shard->lock, RANK_SHARD);
    wheel_init(&shard->wheel, now_ns);
    limbo_init(&shard->limbo);
    group_init(&shard->group, &shard->lock, common->mem, common->bound);
    shard->budget = common->budget;
    shard->limbo_max = common->limbo_max;
    shard->listener = common->listener;
    shard->referee = common->referee;
    if (shard->referee)
        policy_init(&shard->policy, &shard->referee->rule, shard->budget->max_bytes != BUDGET_MOST);
}

/* ---- unlinking ------------------------------------------------------------------------------- */

static void retire(struct shard *shard, struct entry *entry) REQUIRES(shard->lock)
{
    wheel_remove(entry);
    limbo_add(&shard->limbo, entry);
}

static void note(struct shard *shard, struct entry *entry, aside_cause cause) REQUIRES(shard->lock)
{
    if (shard->listener && !entry_is_absent(entry))
        removal_note(&shard->removals, entry, cause);
}

struct link_list shard_removals(struct shard *shard)
{
    struct link_list removals = shard->removals;
    shard->removals = (struct link_list){NULL, NULL, 0};
    return removals;
}

static void unlink_entry(struct shard *shard, _Atomic uint64_t *word, aside_cause cause)
    REQUIRES(shard->lock)
{
    struct entry *entry = index_entry(load_relaxed(word));
    size_t charge = entry_charge(entry);
    if (shard->referee)
        policy_remove(&shard->policy, entry);
    index_remove(&shard->index, word);
    budget_refund(shard->budget, charge, 1);
    shard->bytes -= charge;
    note(shard, entry, cause);
    retire(shard, entry);
}

/* Where it is closed without being empty, as in the child of a fork that its closer did not follow to:
 * whoever is told that his write came too late leaves nothing older behind all the same. */
static enum shard_end too_late(struct shard *shard, uint64_t hash, const void *key, size_t key_len)
    REQUIRES(shard->lock)
{
    _Atomic uint64_t *word = index_locate(&shard->index, hash, key, key_len);
    if (word)
        unlink_entry(shard, word, ASIDE_CAUSE_CLOSED);
    return SHARD_CLOSED;
}

static _Atomic uint64_t *word_of_entry(struct shard *shard, const struct entry *entry)
    REQUIRES(shard->lock)
{
    uint64_t hash = hash_bytes(shard->index.seed, entry->bytes, entry->head.key_len);
    return index_locate(&shard->index, hash, entry->bytes, entry->head.key_len);
}

/* ---- putting --------------------------------------------------------------------------------- */

static enum shard_end put_end(enum index_end end)
{
    switch (end) {
    case INDEX_OK: return SHARD_OK;
    case INDEX_NO_ROOM: return SHARD_NO_ROOM;
    case INDEX_NO_ARRAY: return SHARD_NO_ARRAY;
    default: return SHARD_NO_MEMORY;
    }
}

static enum shard_end insert(struct shard *shard, uint64_t hash, struct entry *entry)
    REQUIRES(shard->lock)
{
    size_t charge = entry_charge(entry);
    shard->lacking = (struct budget_room){charge, 1};
    if (!budget_reserve(shard->budget, charge, 1))
        return SHARD_NO_ROOM;
    shard->lacking.bytes += index_slab_bytes();
    enum shard_end end = put_end(index_insert(&shard->index, hash, entry));
    if (end != SHARD_OK) {
        budget_refund(shard->budget, charge, 1);
        return end;
    }
    shard->bytes += charge;
    if (!shard->referee)
        return SHARD_OK;
    policy_add(&shard->policy, entry, hash);
    if (referee_samples(shard->referee, hash))
        referee_hear_miss(shard->referee, hash);
    return SHARD_OK;
}

static enum shard_end overwrite(struct shard *shard, uint64_t hash, _Atomic uint64_t *word,
                                struct entry *entry, int64_t now_ns) REQUIRES(shard->lock)
{
    struct entry *old = index_entry(load_relaxed(word));
    size_t charge = entry_charge(entry), old_charge = entry_charge(old);
    shard->lacking = (struct budget_room){charge > old_charge ? charge - old_charge : 0, 0};
    if (!budget_reserve(shard->budget, shard->lacking.bytes, 0))
        return SHARD_NO_ROOM;
    if (shard->referee)
        policy_replace(&shard->policy, old, entry);
    index_replace(word, hash, entry);
    shard->bytes += charge - old_charge;
    if (charge < old_charge)
        budget_refund(shard->budget, old_charge - charge, 0);
    note(shard, old, entry_is_fresh(old, now_ns) ? ASIDE_CAUSE_REPLACED : ASIDE_CAUSE_EXPIRED);
    retire(shard, old);
    return SHARD_OK;
}

enum shard_end shard_put(struct shard *shard, uint64_t hash, struct entry *entry,
                         enum shard_put how, int64_t now_ns)
{
    if (shard->group.closed)
        return too_late(shard, hash, entry->bytes, entry->head.key_len);
    if (shard->limbo.bytes > shard->limbo_max)
        return SHARD_LIMBO_FULL;
    _Atomic uint64_t *word = index_locate(&shard->index, hash, entry->bytes, entry->head.key_len);
    if (word && how == SHARD_ADD && entry_is_fresh(index_entry(load_relaxed(word)), now_ns))
        return SHARD_EXISTS;
    lock_touch(2);
    enum shard_end end =
        word ? overwrite(shard, hash, word, entry, now_ns) : insert(shard, hash, entry);
    if (end == SHARD_OK)
        wheel_add(&shard->wheel, entry);
    return end;
}

/* ---- other writes ---------------------------------------------------------------------------- */

struct entry *shard_find(struct shard *shard, uint64_t hash, const void *key, size_t key_len)
{
    _Atomic uint64_t *word = index_locate(&shard->index, hash, key, key_len);
    return word ? index_entry(load_relaxed(word)) : NULL;
}

enum shard_end shard_delete(struct shard *shard, uint64_t hash, const void *key, size_t key_len,
                            int64_t now_ns)
{
    if (shard->group.closed)
        return too_late(shard, hash, key, key_len);
    _Atomic uint64_t *word = index_locate(&shard->index, hash, key, key_len);
    if (!word)
        return SHARD_MISS;
    bool fresh = entry_is_fresh(index_entry(load_relaxed(word)), now_ns);
    unlink_entry(shard, word, fresh ? ASIDE_CAUSE_DELETED : ASIDE_CAUSE_EXPIRED);
    return fresh ? SHARD_OK : SHARD_MISS;
}

static enum shard_end move_life(struct shard *shard, struct entry *entry, int64_t expires_ns)
    REQUIRES(shard->lock)
{
    wheel_remove(entry);
    entry_move_life(entry, expires_ns);
    wheel_add(&shard->wheel, entry);
    return SHARD_OK;
}

/* A value keeps its windows, which begin now. What is remembered is over. */
enum shard_end shard_expire(struct shard *shard, uint64_t hash, const void *key, size_t key_len,
                            int64_t now_ns)
{
    if (shard->group.closed)
        return too_late(shard, hash, key, key_len);
    struct entry *entry = shard_find(shard, hash, key, key_len);
    if (!entry)
        return SHARD_MISS;
    if (entry_is_fresh(entry, now_ns))
        return move_life(shard, entry, now_ns);
    struct entry_rare *rare = entry_rare(entry);
    if (rare) /* a refresh under way is fenced, so another may begin */
        store_relaxed(&rare->claimed_until_ns, 0);
    if (entry_is_absent(entry) && now_ns < load_relaxed(&rare->expires_ns))
        (void)move_life(shard, entry, now_ns);
    return SHARD_MISS;
}

enum shard_end shard_touch(struct shard *shard, uint64_t hash, const void *key, size_t key_len,
                           int64_t now_ns, int64_t until_ns)
{
    if (shard->group.closed)
        return SHARD_CLOSED;
    struct entry *entry = shard_find(shard, hash, key, key_len);
    if (!entry || !entry_is_fresh(entry, now_ns))
        return SHARD_MISS;
    wheel_remove(entry);
    entry_prolong_life(entry, now_ns, until_ns);
    wheel_add(&shard->wheel, entry);
    return SHARD_OK;
}

bool shard_renew(struct shard *shard, uint64_t hash, const void *key, size_t key_len,
                 const aside_value *value, const struct entry_life *life, uint64_t read_at)
{
    struct entry *entry = shard_find(shard, hash, key, key_len);
    if (!entry)
        return false;
    invariant(entry_holds(entry, value));
    struct entry_rare *rare = entry_rare(entry);
    if (rare)
        store_relaxed(&rare->read_at, read_at);
    wheel_remove(entry);
    entry_set_life(entry, life);
    wheel_add(&shard->wheel, entry);
    return true;
}

bool shard_rearm(struct shard *shard, uint64_t hash, const void *key, size_t key_len,
                 int64_t now_ns, int64_t until_ns, uint64_t failure)
{
    struct entry *entry = shard_find(shard, hash, key, key_len);
    struct entry_rare *rare = entry ? entry_rare(entry) : NULL;
    if (!entry || !entry_is_servable(entry, now_ns))
        return false;
    if (!rare)
        return true;
    store_relaxed(&rare->failure, failure);
    store_relaxed(&rare->failures, load_relaxed(&rare->failures) + 1);
    store_release(&rare->claimed_until_ns, until_ns);
    return true;
}

void shard_disarm(struct shard *shard, uint64_t hash, const void *key, size_t key_len)
{
    struct entry *entry = shard_find(shard, hash, key, key_len);
    struct entry_rare *rare = entry ? entry_rare(entry) : NULL;
    if (rare)
        store_release(&rare->claimed_until_ns, 0);
}

bool shard_remove_expired(struct shard *shard, uint64_t hash, const struct entry *entry,
                          const void *key, size_t key_len, int64_t now_ns)
{
    _Atomic uint64_t *word = index_locate(&shard->index, hash, key, key_len);
    if (!word || index_entry(load_relaxed(word)) != entry || !entry_is_over(entry, now_ns))
        return false;
    unlink_entry(shard, word, ASIDE_CAUSE_EXPIRED);
    return true;
}

void shard_evict(struct shard *shard, const struct budget_room *room, unsigned *evicted)
{
    unsigned looks = SHARD_LOOKS;
    while (!budget_has(shard->budget, room)) {
        struct entry *victim = policy_victim(&shard->policy, &looks);
        if (!victim)
            break;
        policy_evict(&shard->policy, victim);
        unlink_entry(shard, word_of_entry(shard, victim), ASIDE_CAUSE_EVICTED);
        ++*evicted;
    }
    lock_touch(2 * (size_t)(SHARD_LOOKS - looks));
}

void shard_pass_time(struct shard *shard, int64_t now_ns)
{
    wheel_advance(&shard->wheel, now_ns);
}

unsigned shard_reap(struct shard *shard, int64_t now_ns, unsigned max, unsigned *reaped)
{
    struct entry *entry;
    unsigned looked = 0;
    for (; looked < max && (entry = wheel_due(&shard->wheel)); looked++) {
        if (entry_is_over(entry, now_ns)) {
            unlink_entry(shard, word_of_entry(shard, entry), ASIDE_CAUSE_EXPIRED);
            ++*reaped;
        } else {
            wheel_add(&shard->wheel, entry);
        }
    }
    lock_touch(looked);
    return looked;
}

/* ---- doom ------------------------------------------------------------------------------------ */

static void doom(struct shard *shard, struct index_array *array) REQUIRES(shard->lock)
{
    array->doomed_tag = epoch_tag();
    array->doomed_next = shard->doomed;
    shard->doomed = array;
    size_t charge = index_array_charge(array);
    shard->doomed_bytes += charge;
    budget_refund_lasting(shard->budget, charge);
}

/* What the policy remembers goes with the array that it came with. */
static void doom_memory(struct shard *shard, struct index_array *array) REQUIRES(shard->lock)
{
    array->memory = shard->memory;
    array->bytes += shard->memory_bytes;
    shard->memory = NULL;
    shard->memory_bytes = 0;
    policy_remember(&shard->policy, NULL, 0, 1);
}

/* The wheel is begun anew: the links of the entries that go with the arrays are never followed
 * again. */
void shard_clear(struct shard *shard, aside_cause cause, int64_t now_ns)
{
    size_t entries = shard->index.count;
    group_fence_all(&shard->group);
    struct index_array *array = index_empty(&shard->index);
    wheel_init(&shard->wheel, now_ns);
    if (shard->referee)
        policy_clear(&shard->policy);
    budget_refund(shard->budget, shard->bytes, entries);
    shard->doomed_bytes += shard->bytes;
    shard->bytes = 0;
    if (array)
        doom_memory(shard, array);
    while (array) {
        struct index_array *next = load_relaxed(&array->next);
        array->holds_entries = true;
        array->cause = (uint8_t)cause;
        doom(shard, array);
        array = next;
    }
}

static struct index_array *take_ripe(struct shard *shard) REQUIRES(shard->lock)
{
    struct index_array **link = &shard->doomed;
    while (*link && !epoch_ripe((*link)->doomed_tag))
        link = &(*link)->doomed_next;
    struct index_array *array = *link;
    if (array)
        *link = array->doomed_next;
    return array;
}

static void tell_of(const struct shard *shard, struct entry **entries, unsigned count,
                    aside_cause cause)
{
    struct link_list removals = {NULL, NULL, 0};
    for (unsigned i = 0; i < count; i++)
        if (!entry_is_absent(entries[i]))
            removal_note(&removals, entries[i], cause);
    removal_tell(shard->listener, &removals);
}

/* Entries that a visit names go to limbo, where visits are looked after. */
static size_t drop_unnamed(struct shard *shard, struct entry **entries, unsigned count)
{
    struct epoch_names names;
    epoch_named(&names);
    size_t bytes = 0;
    for (unsigned i = 0; i < count; i++) {
        bytes += entry_charge(entries[i]);
        if (!epoch_is_named(&names, entries[i])) {
            entry_drop(entries[i]);
            continue;
        }
        lock_take(&shard->lock);
        limbo_add(&shard->limbo, entries[i]);
        lock_release(&shard->lock);
    }
    return bytes;
}

static void put_back(struct shard *shard, struct index_array *array) REQUIRES(shard->lock)
{
    array->doomed_next = shard->doomed;
    shard->doomed = array;
}

/* What somebody is taking apart stays known, for the child of a fork in which he is not. */
static void take_in_hand(struct shard *shard, struct index_array *array) REQUIRES(shard->lock)
{
    array->doomed_next = shard->in_hand;
    shard->in_hand = array;
}

/* False: the process has forked meanwhile, and the array is among the doomed again. */
static bool lay_down(struct shard *shard, const struct index_array *array) REQUIRES(shard->lock)
{
    struct index_array **link = &shard->in_hand;
    while (*link && *link != array)
        link = &(*link)->doomed_next;
    if (!*link)
        return false;
    *link = array->doomed_next;
    return true;
}

unsigned shard_dismantle(struct shard *shard, unsigned max, bool *more)
{
    struct entry *entries[SHARD_SLICE];
    lock_take(&shard->lock);
    if (shard->doomed && !epoch_ripe(shard->doomed->doomed_tag)) {
        epoch_advance();
        epoch_advance();
    }
    struct index_array *array = take_ripe(shard);
    if (array)
        take_in_hand(shard, array);
    *more = array != NULL;
    lock_release(&shard->lock);
    if (!array)
        return 0;
    if (max > SHARD_SLICE)
        max = SHARD_SLICE;
    unsigned count = array->holds_entries ? index_array_take(array, entries, max) : 0;
    if (shard->listener)
        tell_of(shard, entries, count, (aside_cause)array->cause);
    size_t bytes = drop_unnamed(shard, entries, count);
    bool empty = count < max;
    lock_take(&shard->lock);
    bool mine = lay_down(shard, array);
    if (mine && empty)
        bytes += index_array_charge(array);
    shard->doomed_bytes -= bytes;
    if (mine && !empty)
        put_back(shard, array);
    lock_release(&shard->lock);
    if (mine && empty)
        index_array_free(array);
    return count;
}

void shard_fork_child(struct shard *shard) NO_LOCK_ANALYSIS
{
    shard->array_coming = false;
    while (shard->in_hand) {
        struct index_array *array = shard->in_hand;
        shard->in_hand = array->doomed_next;
        put_back(shard, array);
    }
}

/* ---- housekeeping ---------------------------------------------------------------------------- */

static bool is_dropping(void)
{
    const struct thread_record *self = thread_current;
    return self && self != THREAD_NO_RECORD && self->dropping;
}

void shard_upkeep(struct shard *shard, bool pressed, struct shard_debris *debris, bool *growth)
{
    struct index_array *old = NULL;
    if (!pressed && index_step(&shard->index, &old))
        doom(shard, old);
    limbo_step(&shard->limbo, pressed);
    /* A destructor that writes leaves its share to whoever runs it, or they would nest without
     * end. */
    unsigned share = is_dropping() ? 0 : pressed ? SHARD_SLICE : SHARD_SIDE;
    debris->count = limbo_take(&shard->limbo, debris->entries, share);
    lock_touch(debris->count);
    *growth = shard->index.count > 0 && index_wants_array(&shard->index) && !shard->array_coming;
}

void shard_drop(struct shard_debris *debris)
{
    struct thread_record *self = debris->count ? thread_self() : NULL;
    if (self)
        self->dropping++;
    for (unsigned i = 0; i < debris->count; i++)
        entry_drop(debris->entries[i]);
    if (self)
        self->dropping--;
    debris->count = 0;
}

/* A larger array, and the policy's memory for as many entries. */
struct growth {
    size_t bytes, memory_bytes; /* of both; of the memory */
    size_t entries;
    struct index_array *array;
    void *memory, *block;
};

static struct growth growth_of(const struct shard *shard, size_t buckets)
{
    struct growth growth = {.entries = SHARD_REMEMBERS * buckets};
    if (shard->referee)
        growth.memory_bytes = mem_charge(policy_memory_bytes(growth.entries, 1) + CACHE_LINE);
    growth.bytes = index_array_bytes(buckets) + growth.memory_bytes;
    return growth;
}

static bool make_growth(struct shard *shard, struct growth *growth, size_t buckets)
{
    const struct mem *mem = shard->index.mem;
    growth->array = index_array_new(mem, buckets);
    if (!growth->array || !shard->referee)
        return growth->array;
    growth->memory = mem_zalloc_lines(mem, policy_memory_bytes(growth->entries, 1), &growth->block);
    if (growth->memory)
        return true;
    index_array_free(growth->array);
    return false;
}

/* A slice a hold: what is counted meanwhile may be lost. */
static void copy_memory(struct shard *shard, const struct growth *growth)
{
    bool more = growth->memory != NULL;
    for (size_t at = 0; more;) {
        lock_take(&shard->lock);
        more = policy_copy_memory(&shard->policy, growth->memory, growth->entries, 1, &at);
        lock_release(&shard->lock);
    }
}

/* What the policy remembered, in growth's place. */
static void exchange_memory(struct shard *shard, struct growth *growth) REQUIRES(shard->lock)
{
    struct growth old = {.block = shard->memory, .memory_bytes = shard->memory_bytes};
    if (!growth->memory)
        return;
    shard->memory = growth->block;
    shard->memory_bytes = growth->memory_bytes;
    policy_remember(&shard->policy, growth->memory, growth->entries, 1);
    growth->block = old.block;
    growth->memory_bytes = old.memory_bytes;
}

/* One thread at a time makes a larger array. Where stores have to wait for it, several may: all
 * but one of them are thrown away. */
enum shard_end shard_grow(struct shard *shard, bool last_try, size_t *room)
{
    lock_take(&shard->lock);
    bool urgent = index_is_stuck(&shard->index);
    bool wanted = !shard->group.closed &&
                  (urgent || (index_wants_array(&shard->index) && !shard->array_coming));
    size_t buckets = index_next_size(&shard->index);
    if (wanted && !urgent)
        shard->array_coming = true;
    lock_release(&shard->lock);
    if (!wanted)
        return SHARD_OK;
    struct growth growth = growth_of(shard, buckets);
    *room = growth.bytes;
    bool reserved = budget_reserve_lasting(shard->budget, *room);
    bool made = reserved && make_growth(shard, &growth, buckets);
    if (made)
        copy_memory(shard, &growth);
    lock_take(&shard->lock);
    if (!urgent)
        shard->array_coming = false;
    bool used = made && !shard->group.closed && index_grow(&shard->index, growth.array);
    if (used)
        exchange_memory(shard, &growth);
    if (!made && last_try && !urgent)
        index_grow_later(&shard->index);
    lock_release(&shard->lock);
    if (reserved) /* of what is used, the bytes of the memory that it has taken the place of */
        budget_refund_lasting(shard->budget, used ? growth.memory_bytes : *room);
    if (made && !used)
        index_array_free(growth.array);
    if (growth.block)
        mem_free(shard->index.mem, growth.block);
    return made ? SHARD_OK : reserved ? SHARD_NO_MEMORY : SHARD_NO_ROOM;
}

static void drop_limbo(struct shard *shard)
{
    bool more = true;
    while (more) {
        struct shard_debris debris;
        lock_take(&shard->lock);
        limbo_step(&shard->limbo, true);
        debris.count = limbo_take(&shard->limbo, debris.entries, SHARD_SLICE);
        more = !limbo_empty(&shard->limbo);
        lock_release(&shard->lock);
        if (debris.count == 0 && more)
            sched_yield();
        shard_drop(&debris);
    }
}

void shard_fini(struct shard *shard)
{
    while (shard->doomed) {
        bool more;
        if (shard_dismantle(shard, SHARD_SLICE, &more) == 0 && !more)
            sched_yield();
    }
    drop_limbo(shard);
    group_fini(&shard->group);
    lock_fini(&shard->lock);
}

bool shard_check(struct shard *shard, FILE *why)
{
    lock_take(&shard->lock);
    bool sound = index_check(&shard->index, why);
    sound = wheel_check(&shard->wheel, why) && sound;
    if (shard->referee)
        sound = policy_check(&shard->policy, why) && sound;
    lock_release(&shard->lock);
    return sound;
}
