/* cache/answer -- see answer.h. */
#include "cache/answer.h"

#include "base/counter.h"
#include "cache/stats.h"

/* The answer while it is made into news for the store. */
struct answer {
    aside_cache *cache;
    struct flight *flight;
    int64_t took_ns;
    struct store_news news;
    struct entry *made; /* here, so that only the index will know it */
};

static void give_tags(struct answer *a)
{
    struct entry_rare *rare = entry_rare(a->news.entry);
    if (!rare)
        return;
    rare->tags = a->flight->answer.tags;
    store_relaxed(&rare->read_at, a->flight->read_at);
}

static int64_t expiry(struct answer *a, int64_t ttl_ms)
{
    return cache_expiry(a->cache, &a->flight->answer.jitter, a->flight->published_ns, ttl_ms);
}

/* ---- a value --------------------------------------------------------------------------------- */

/* What there is of an entry may not do: its value existed before, or the fetch said something of its
 * life after it had asked for the buffer. Then an entry is made round the value. */
static void choose_entry(struct answer *a)
{
    struct flight *flight = a->flight;
    struct entry *entry = flight->answer.entry;
    if (!entry || (flight->rare && !entry_rare(entry)))
        entry = a->made = entry_new_wrapping_marked(flight->home, flight_marks(flight), flight->key,
                                                    flight->key_len, flight->value);
    if (!entry)
        cache_count(a->cache, thread_self(), COUNTER_store_refused);
    a->news.entry = entry;
}

static bool is_held(const struct answer *a, bool rare)
{
    const struct flight *flight = a->flight;
    return store_holds(&a->cache->store, flight->hash, flight->key, flight->key_len,
                       flight->previous, rare);
}

/* The entry that has the previous value goes on, if it can say what is to be said of it. One that is not
 * there any more may have had tags, which nobody knows now: so nothing is stored. */
static enum store_news_kind keep_or_put(const struct answer *a)
{
    const struct flight *flight = a->flight;
    if (!flight->answer.not_modified || flight->answer.tags)
        return STORE_PUT;
    if (is_held(a, flight->rare))
        return STORE_RENEW;
    return flight->rare && is_held(a, false) ? STORE_PUT : STORE_NOTHING;
}

static struct entry_life life_of(const struct answer *a)
{
    const struct flight *flight = a->flight;
    if (flight->rare)
        return cache_life(&flight->rules, flight->published_ns, flight->fresh_until_ns, a->took_ns);
    return (struct entry_life){.now_ns = flight->published_ns,
                               .fetch_ns = a->took_ns,
                               .expires_ns = flight->fresh_until_ns};
}

static void bring_value(struct answer *a)
{
    struct flight *flight = a->flight;
    int64_t ttl_ms = flight->answer.ttl_ms ? flight->answer.ttl_ms : a->cache->default_ttl_ms;
    if (ttl_ms == ASIDE_NO_STORE)
        return;
    flight->fresh_until_ns = expiry(a, ttl_ms);
    a->news.life = life_of(a);
    a->news.kind = keep_or_put(a);
    if (a->news.kind != STORE_PUT)
        return;
    choose_entry(a);
    if (!a->news.entry) {
        a->news.kind = STORE_NOTHING;
        return;
    }
    give_tags(a);
    entry_set_life(a->news.entry, &a->news.life);
}

/* ---- no value -------------------------------------------------------------------------------- */

static bool make_absent(struct answer *a)
{
    struct flight *flight = a->flight;
    a->news.entry = a->made =
        entry_new_marked(flight->home, ENTRY_RARE | ENTRY_ABSENT, flight->key, flight->key_len, 0);
    return a->made;
}

/* Whether it is remembered or not, what was there is no longer so. */
static void bring_not_found(struct answer *a)
{
    int64_t ttl_ms = a->flight->rules.not_found_ttl_ms;
    a->news.kind = STORE_KILL;
    if (ttl_ms <= 0 || !make_absent(a))
        return;
    a->news.kind = STORE_PUT;
    give_tags(a);
    a->news.life = (struct entry_life){
        .now_ns = a->flight->published_ns, .fetch_ns = a->took_ns, .expires_ns = expiry(a, ttl_ms)};
    entry_set_life(a->made, &a->news.life);
}

/* Only what the source said is remembered: a bound that was reached is no news of it. */
static void bring_failure(struct answer *a)
{
    const struct flight_answer *answer = &a->flight->answer;
    a->news.kind = STORE_FAILURE;
    a->news.backoff_ms = a->flight->rules.backoff_ms;
    if (a->news.backoff_ms > 0 && (a->flight->ran || answer->status == ASIDE_E_WORKER))
        (void)make_absent(a);
}

static void bring(struct answer *a)
{
    aside_status status = a->flight->answer.status;
    if (a->cache->disabled || a->flight->overtaken)
        return;
    if (status == ASIDE_OK)
        bring_value(a);
    else if (status == ASIDE_NOT_FOUND)
        bring_not_found(a);
    else
        bring_failure(a);
}

/* ---- the end of a fetch ---------------------------------------------------------------------- */

static void tell_slow(struct answer *a, bool superseded)
{
    const aside_on_slow *listener = &a->cache->on_slow;
    const struct flight *flight = a->flight;
    int64_t took_ms = a->took_ns / 1000000;
    if (flight->ran && listener->fn && took_ms >= listener->threshold_ms)
        listener->fn(listener->ctx, flight->key, flight->key_len, took_ms, flight->answer.status,
                     superseded);
}

static void store(struct answer *a)
{
    struct flight *flight = a->flight;
    bool stored = store_publish(&a->cache->store, flight, &a->news, flight->published_ns);
    if (a->made && stored)
        aside_value_unref(&a->made->head);
    else if (a->made)
        entry_discard(a->made);
}

/* A fetch that took too long stores nothing, whether anybody noticed or not (F8). */
void answer_publish(struct flight *flight)
{
    struct host *host = flight->owned_by;
    struct answer a = {.cache = cache_of(host), .flight = flight};
    int64_t now_ns = clock_precise(&host->clock);
    a.took_ns = now_ns - flight->began_ns;
    flight->published_ns = cache_now(a.cache);
    flight->overtaken = now_ns >= flight->deadline_ns;
    if (flight->answer.status == ASIDE_OK)
        flight->value = flight->answer.entry ? &flight->answer.entry->head : flight->answer.given;
    if (flight->ran)
        stats_count_time(host, a.took_ns);
    bring(&a);
    store(&a);
    tell_slow(&a, !flight->answered || now_ns >= flight->deadline_ns);
    host_flight_ended(host, flight);
}
