/* store/policy -- see policy.h. */
#include "store/policy.h"

#define QUEUE_BITS 3 /* of entry->print: which queue it is in */
enum { NO_QUEUE, SMALL_QUEUE, MAIN_QUEUE };

/* A key that was counted so often is admitted once in a while though it does not lead: that ends
 * contests between keys whose counters are all full, or whose counts have been guessed by others. */
#define CHANCE_COUNT 6
#define CHANCE_MASK 127

/* Keys that all come again in the same order have the same count, but for the one that has just
 * come: so a lead of one says nothing. */
#define LEAD 2

#define PERIOD 16 /* additions an entry, until counts are halved */

struct rule {
    bool contest;
    uint8_t percent; /* of the whole, for the small queue */
};

static const struct rule rules[POLICY_RULES] = {
    [POLICY_CONTEST_1] = {true, 1},
    [POLICY_SECOND_LOOK_10] = {false, 10},
    [POLICY_SECOND_LOOK_40] = {false, 40},
};

static const struct rule *rule_of(const struct policy *policy)
{
    return &rules[load_relaxed(policy->rule)];
}

/* ---- queues ---------------------------------------------------------------------------------- */

static void queue_init(struct policy_queue *queue)
{
    ring_init(&queue->ends);
    queue->count = queue->weight = 0;
}

static struct entry *entry_of(struct entry_link *link)
{
    return entry_of_cold(container_of(link, struct entry_cold, queue));
}

static struct entry *last_of(const struct policy_queue *queue)
{
    return queue->count ? entry_of(queue->ends.prev) : NULL;
}

static struct policy_queue *queue_of(struct policy *policy, const struct entry *entry)
{
    switch (entry->print & QUEUE_BITS) {
    case SMALL_QUEUE: return &policy->small;
    case MAIN_QUEUE: return &policy->main;
    default: return NULL;
    }
}

static size_t weight_of(const struct policy *policy, const struct entry *entry)
{
    return policy->weighs ? entry_charge(entry) : 1;
}

static void put_in(struct policy *policy, struct entry *entry, unsigned number)
{
    entry->print = (entry->print & ~(uint32_t)QUEUE_BITS) | number;
    struct policy_queue *queue = queue_of(policy, entry);
    ring_put_behind(&queue->ends, &entry_cold(entry)->queue);
    queue->count++;
    queue->weight += weight_of(policy, entry);
}

static void take_out(struct policy *policy, struct policy_queue *queue, struct entry *entry)
{
    ring_take_out(&entry_cold(entry)->queue);
    queue->count--;
    queue->weight -= weight_of(policy, entry);
    entry->print &= ~(uint32_t)QUEUE_BITS;
}

static void move_to(struct policy *policy, struct entry *entry, unsigned number)
{
    take_out(policy, queue_of(policy, entry), entry);
    put_in(policy, entry, number);
}

/* ---- heat ------------------------------------------------------------------------------------ */

/* Takes up to so many hits off the entry: they are the sketch's from now on. Returns the heat before
 * that. A reader may store what it has read before: one hit more or less, and never less than none,
 * since what is subtracted is part of what was read. */
static unsigned cool(struct policy *policy, struct entry *entry, unsigned most)
{
    uint8_t marks = load_relaxed(&entry->head.marks);
    unsigned heat = marks & ENTRY_HEAT, by = heat < most ? heat : most;
    if (by)
        store_relaxed(&entry->head.marks, (uint8_t)(marks - by));
    while (by--)
        sketch_add(&policy->sketch, policy_print(entry));
    return heat;
}

/* ---- judging --------------------------------------------------------------------------------- */

static size_t small_target(const struct policy *policy)
{
    size_t all = policy->small.weight + policy->main.weight;
    unsigned percent = rule_of(policy)->percent;
    size_t target = all / 100 * percent + all % 100 * percent / 100;
    return target ? target : 1;
}

/* (Marsaglia 2003.) */
static uint32_t roll(struct policy *policy)
{
    policy->dice ^= policy->dice << 13;
    policy->dice ^= policy->dice >> 17;
    policy->dice ^= policy->dice << 5;
    return policy->dice;
}

static bool wins(struct policy *policy, const struct entry *candidate, const struct entry *rival)
{
    unsigned mine = sketch_count(&policy->sketch, policy_print(candidate));
    unsigned his = sketch_count(&policy->sketch, policy_print(rival));
    if (mine >= his + LEAD)
        return true;
    return mine >= CHANCE_COUNT && (roll(policy) & CHANCE_MASK) == 0;
}

/* The victim at the end of main, or NULL: it was hot, and has gone to the front. */
static struct entry *look_at_main(struct policy *policy)
{
    struct entry *last = last_of(&policy->main);
    if (cool(policy, last, 1) == 0)
        return last;
    move_to(policy, last, MAIN_QUEUE);
    return NULL;
}

static struct entry *second_look(struct policy *policy, struct entry *last)
{
    if (cool(policy, last, ENTRY_HEAT) < 2)
        return last;
    move_to(policy, last, MAIN_QUEUE);
    return NULL;
}

static struct entry *contest(struct policy *policy, struct entry *last)
{
    if (cool(policy, last, ENTRY_HEAT)) {
        move_to(policy, last, SMALL_QUEUE);
        return NULL;
    }
    if (policy->small.weight - weight_of(policy, last) >= small_target(policy)) {
        move_to(policy, last, MAIN_QUEUE);
        return NULL;
    }
    if (policy->main.count == 0)
        return last;
    struct entry *rival = look_at_main(policy);
    if (!rival || !wins(policy, last, rival))
        return rival ? last : NULL;
    move_to(policy, last, MAIN_QUEUE);
    return rival;
}

/* One look: the victim, or NULL. */
static struct entry *look(struct policy *policy)
{
    struct entry *last = last_of(&policy->small);
    if (!last || policy->small.weight < small_target(policy))
        return look_at_main(policy);
    return rule_of(policy)->contest ? contest(policy, last) : second_look(policy, last);
}

struct entry *policy_victim(struct policy *policy, unsigned *looks)
{
    struct entry *victim = NULL;
    while (!victim && *looks && policy->small.count + policy->main.count) {
        --*looks;
        victim = look(policy);
    }
    return victim;
}

/* ---- coming and going ------------------------------------------------------------------------ */

void policy_init(struct policy *policy, const _Atomic uint8_t *rule, bool weighs)
{
    policy->rule = rule;
    policy->weighs = weighs;
    policy->dice = 2463534242;
    queue_init(&policy->small);
    queue_init(&policy->main);
    policy_remember(policy, NULL, 0, 1);
}

static size_t power_for(size_t entries)
{
    size_t power = GHOSTS_SET > SKETCH_WORDS ? GHOSTS_SET : SKETCH_WORDS;
    while (power < entries)
        power *= 2;
    return power;
}

size_t policy_memory_bytes(size_t entries, unsigned words)
{
    size_t power = power_for(entries);
    return words * power * sizeof(uint64_t) + power * sizeof(uint32_t);
}

bool policy_copy_memory(const struct policy *policy, void *memory, size_t entries, unsigned words,
                        size_t *at)
{
    return sketch_copy(&policy->sketch, memory, words * power_for(entries), at);
}

void policy_remember(struct policy *policy, void *memory, size_t entries, unsigned words)
{
    size_t power = power_for(entries), count = words * power;
    uint64_t *counters = memory;
    sketch_init(&policy->sketch, counters, count, PERIOD * power);
    ghosts_init(&policy->ghosts, counters ? (uint32_t *)(counters + count) : NULL, power);
}

void policy_add(struct policy *policy, struct entry *entry, uint64_t hash)
{
    entry->print = policy_print_of(hash) << 2;
    policy->sketch.period = PERIOD * (policy->small.count + policy->main.count + 1);
    sketch_add(&policy->sketch, policy_print(entry));
    bool known = ghosts_take(&policy->ghosts, policy_print(entry)) && !rule_of(policy)->contest;
    put_in(policy, entry, known ? MAIN_QUEUE : SMALL_QUEUE);
}

/* Nobody reads the new entry yet. */
static void inherit_heat(struct entry *entry, const struct entry *old)
{
    uint8_t marks = load_relaxed(&entry->head.marks) & (uint8_t)~ENTRY_HEAT;
    uint8_t heat = load_relaxed(&old->head.marks) & ENTRY_HEAT;
    store_relaxed(&entry->head.marks, (uint8_t)(marks | heat));
}

void policy_replace(struct policy *policy, struct entry *old, struct entry *entry)
{
    struct policy_queue *queue = queue_of(policy, old);
    if (!queue)
        return;
    queue->weight += weight_of(policy, entry) - weight_of(policy, old);
    entry->print = old->print;
    inherit_heat(entry, old);
    struct entry_link *link = &entry_cold(entry)->queue;
    *link = entry_cold(old)->queue;
    link->next->prev = link->prev->next = link;
    old->print &= ~(uint32_t)QUEUE_BITS;
}

void policy_remove(struct policy *policy, struct entry *entry)
{
    struct policy_queue *queue = queue_of(policy, entry);
    if (queue)
        take_out(policy, queue, entry);
}

/* Who leaves the main queue had his time: only what was hardly looked at may have been wronged. */
void policy_evict(struct policy *policy, struct entry *entry)
{
    if (queue_of(policy, entry) == &policy->small)
        ghosts_add(&policy->ghosts, policy_print(entry), policy->small.count + policy->main.count);
    policy_remove(policy, entry);
}

void policy_clear(struct policy *policy)
{
    queue_init(&policy->small);
    queue_init(&policy->main);
}

/* ---- invariants ------------------------------------------------------------------------------ */

static bool check_queue(const struct policy *policy, const struct policy_queue *queue,
                        unsigned number, FILE *why)
{
    size_t count = 0, weight = 0;
    bool sound = queue->ends.next->prev == &queue->ends;
    for (struct entry_link *at = queue->ends.next; at != &queue->ends; at = at->next) {
        const struct entry *entry = entry_of(at);
        sound &= at->next->prev == at && (entry->print & QUEUE_BITS) == number;
        count++;
        weight += weight_of(policy, entry);
    }
    sound &= count == queue->count && weight == queue->weight;
    if (!sound && why)
        fprintf(why, "policy: queue %u has %zu entries of %zu, counted %zu of %zu\n", number, count,
                weight, queue->count, queue->weight);
    return sound;
}

bool policy_check(const struct policy *policy, FILE *why)
{
    return check_queue(policy, &policy->small, SMALL_QUEUE, why) &&
           check_queue(policy, &policy->main, MAIN_QUEUE, why);
}
