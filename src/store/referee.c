/* store/referee -- see referee.h. */
#include "store/referee.h"

#include "base/check.h"

#include <limits.h>
#include <string.h>

#define PART 16  /* a miniature is this part of the cache, ... */
#define LEAST 32 /* ... between these bounds */
#define MOST 256
#define HEAR_FIRST 16 /* hits heard before the first miss, times the size; and most saved up */
#define HEAR_AGAIN 8  /* credit with which listening begins again, times the size */
#define HITS_A_MISS 2
#define WINDOW 4  /* requests between two comparisons, times the size */
#define WORDS 4   /* of counters an entry: where few are kept, many pass */
#define SCALE 64  /* of scores, for their fractions */
#define GUESS 256 /* bytes an entry, as long as there are none */
#define NOBODY UINT16_MAX

struct miniature {
    struct policy policy;
    _Atomic uint8_t rule;
    size_t hits; /* since the last comparison */
    size_t score;
    unsigned char *entries; /* ENTRY_BARE bytes each */
    uint16_t *heads;        /* 2 * size chains of entries, by print */
    uint16_t *next;         /* of each entry, in its chain; or among the free */
    uint16_t free;
};

/* ---- a miniature ----------------------------------------------------------------------------- */

static uint16_t *chain_of(const struct miniature *mini, size_t size, uint32_t print)
{
    return &mini->heads[print % (2 * size)];
}

static struct entry *entry_at(const struct miniature *mini, uint16_t number)
{
    return entry_of_cold(mini->entries + number * ENTRY_BARE);
}

static struct entry *find(const struct miniature *mini, size_t size, uint32_t print)
{
    uint16_t at = *chain_of(mini, size, print);
    while (at != NOBODY && policy_print(entry_at(mini, at)) != print)
        at = mini->next[at];
    return at == NOBODY ? NULL : entry_at(mini, at);
}

static uint16_t number_of(const struct miniature *mini, const struct entry *entry)
{
    return (uint16_t)(((unsigned char *)entry_cold(entry) - mini->entries) / ENTRY_BARE);
}

static void evict(struct miniature *mini, size_t size)
{
    unsigned looks = UINT_MAX;
    struct entry *victim = policy_victim(&mini->policy, &looks);
    uint16_t number = number_of(mini, victim);
    uint16_t *link = chain_of(mini, size, policy_print(victim));
    while (*link != number)
        link = &mini->next[*link];
    *link = mini->next[number];
    policy_evict(&mini->policy, victim);
    mini->next[number] = mini->free;
    mini->free = number;
}

static void ask(struct miniature *mini, size_t size, uint64_t hash)
{
    struct entry *entry = find(mini, size, policy_print_of(hash));
    if (entry) {
        policy_hit(entry);
        mini->hits++;
        return;
    }
    if (mini->free == NOBODY)
        evict(mini, size);
    uint16_t number = mini->free;
    mini->free = mini->next[number];
    entry = entry_at(mini, number);
    store_relaxed(&entry->head.marks, 0);
    policy_add(&mini->policy, entry, hash);
    uint16_t *head = chain_of(mini, size, policy_print(entry));
    mini->next[number] = *head;
    *head = number;
}

/* ---- the sample ------------------------------------------------------------------------------ */

static size_t at_most(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* How many entries the cache holds when it is full, as far as one can say now. */
static size_t full_entries(const struct budget *budget)
{
    size_t entries = load_relaxed(&budget->entries), bytes = load_relaxed(&budget->bytes);
    size_t each = entries ? bytes / entries + 1 : GUESS;
    return at_most(budget->max_entries, budget->max_bytes / each);
}

/* Such a share of the keys that a miniature is to the cache as its keys are to all. */
static void set_share(struct referee *referee)
{
    size_t full = full_entries(referee->budget);
    uint64_t share = full > referee->size ? ((uint64_t)referee->size << 32) / full : UINT32_MAX;
    store_relaxed(&referee->share, (uint32_t)share);
}

/* ---- judging --------------------------------------------------------------------------------- */

/* Rules that do nearly the same are not exchanged. */
static bool leads_clearly(size_t score, size_t present)
{
    return score > present + present / 100 + SCALE;
}

static unsigned best_of(struct referee *referee) REQUIRES(referee->lock)
{
    unsigned best = 0;
    for (unsigned i = 0; i < POLICY_RULES; i++) {
        struct miniature *mini = &referee->miniatures[i];
        mini->score = mini->score * 3 / 4 + mini->hits * SCALE; /* in the end nothing is left */
        mini->hits = 0;
        if (mini->score > referee->miniatures[best].score)
            best = i;
    }
    return best;
}

/* The first judgement is quick, since the rule to begin with is a guess. After that a rule must lead
 * twice in a row: to go to and fro costs more than to stay with the second best. */
static void judge(struct referee *referee) REQUIRES(referee->lock)
{
    unsigned best = best_of(referee), present = load_relaxed(&referee->rule);
    if (!leads_clearly(referee->miniatures[best].score, referee->miniatures[present].score)) {
        referee->leads = 0;
        return;
    }
    referee->leads = best == referee->leader ? referee->leads + 1 : 1;
    referee->leader = best;
    if (referee->judged && referee->leads < 2)
        return;
    referee->judged = true;
    referee->leads = 0;
    store_relaxed(&referee->rule, (uint8_t)best);
}

static void hear(struct referee *referee, uint64_t hash) REQUIRES(referee->lock)
{
    for (unsigned i = 0; i < POLICY_RULES; i++)
        ask(&referee->miniatures[i], referee->size, hash);
    if (++referee->heard < WINDOW * referee->size)
        return;
    referee->heard = 0;
    judge(referee);
    set_share(referee);
}

void referee_hear_miss(struct referee *referee, uint64_t hash)
{
    if (!lock_try(&referee->lock))
        return;
    if (load_relaxed(&referee->listens))
        hear(referee, hash);
    if (referee->credit < HEAR_FIRST * referee->size)
        referee->credit += HITS_A_MISS;
    if (referee->credit >= HEAR_AGAIN * referee->size)
        store_relaxed(&referee->listens, true);
    lock_release(&referee->lock);
}

void referee_hear_hit(struct referee *referee, uint64_t hash, uint64_t *last)
{
    if (*last == hash || !load_relaxed(&referee->listens) || !lock_try(&referee->lock))
        return;
    *last = hash;
    hear(referee, hash);
    if (referee->credit <= 1)
        store_relaxed(&referee->listens, false);
    referee->credit -= referee->credit > 0;
    lock_release(&referee->lock);
}

/* ---- life ------------------------------------------------------------------------------------ */

static size_t size_for(size_t full)
{
    size_t size = full / PART;
    size = size < LEAST ? LEAST : size > MOST ? MOST : size;
    return at_most(size, full ? full : 1);
}

static size_t whole_lines(size_t bytes)
{
    return (bytes + CACHE_LINE - 1) & ~(size_t)(CACHE_LINE - 1);
}

static size_t bytes_of_one(size_t size)
{
    return whole_lines(policy_memory_bytes(size, WORDS) + size * ENTRY_BARE +
                       3 * size * sizeof(uint16_t));
}

static void init_one(struct miniature *mini, unsigned char *memory, size_t size, unsigned rule)
{
    atomic_init(&mini->rule, (uint8_t)rule);
    policy_init(&mini->policy, &mini->rule, false);
    policy_remember(&mini->policy, memory, size, WORDS);
    mini->entries = memory + policy_memory_bytes(size, WORDS);
    void *heads = mini->entries + size * ENTRY_BARE;
    mini->heads = heads;
    mini->next = mini->heads + 2 * size;
    memset(mini->heads, 0xff, 2 * size * sizeof *mini->heads);
    for (size_t i = 0; i < size; i++)
        mini->next[i] = (uint16_t)(i + 1 < size ? i + 1 : NOBODY);
    mini->free = 0;
}

bool referee_init(struct referee *referee, const struct mem *mem, const struct budget *budget)
{
    size_t size = size_for(full_entries(budget)), each = bytes_of_one(size);
    size_t header = whole_lines(POLICY_RULES * sizeof(struct miniature));
    lock_init(&referee->lock, RANK_REFEREE);
    referee->mem = mem;
    referee->budget = budget;
    referee->size = size;
    referee->miniatures = mem_zalloc_lines(mem, header + POLICY_RULES * each, &referee->block);
    if (!referee->miniatures)
        return false;
    unsigned char *memory = (unsigned char *)referee->miniatures;
    for (unsigned i = 0; i < POLICY_RULES; i++)
        init_one(&referee->miniatures[i], memory + header + i * each, size, i);
    referee->credit = HEAR_FIRST * size;
    store_relaxed(&referee->listens, true);
    set_share(referee);
    return true;
}

void referee_fini(struct referee *referee)
{
    lock_fini(&referee->lock);
    mem_free(referee->mem, referee->block);
}
