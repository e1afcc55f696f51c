/*
 * meetings.c -- any two operations on one key of a cache meet (encounter.h).
 *
 * Each thread reads once more what it has left behind: nobody sees a value older than a write that had
 * returned before he asked (W1). After that the cache is closed, and nothing is left of it.
 */
#include "encounter.h"
#include "children.h"
#include "sanitizers.h"

#define KEY UINT64_C(1)
#define OTHER_KEY UINT64_C(2)
#define TTL_MS 1000

/* ---- a cache, and a source of versions ----------------------------------------------------------- */

enum answer { A_VALUE, NOTHING_THERE, A_FAILURE, STILL_GOOD, ANSWERS };

struct meeting;
struct asked {
    struct meeting *meeting;
    enum answer answer;
};

struct setting {
    bool windows; /* what is past its ttl is of use, and answers that are no value are remembered */
    bool tagged;
    bool bounded; /* to two entries */
    bool worked;  /* who may leave has his fetch run by a worker */
};

static const struct setting settings[] = {
    {.worked = true},
    {.bounded = true},
    {.windows = true},
    {.windows = true, .tagged = true, .worked = true},
    {.windows = true, .bounded = true},
};

struct meeting {
    struct setting setting;
    bool floored; /* what a writer has changed has a floor */
    struct ledger ledger;
    struct fake_clock clock;
    aside_cache *cache;
    aside_cancel *token;
    struct asked asked[ANSWERS];
    _Atomic uint64_t truth; /* the version that the source has */
    _Atomic uint64_t floor; /* nobody who asks from now on may see an older one */
};

static aside_status tell(aside_fetch *fetch, void *arg)
{
    const struct asked *asked = arg;
    uint64_t version = atomic_load(&asked->meeting->truth);
    const aside_value *previous = aside_fetch_previous(fetch);
    if (asked->meeting->setting.tagged)
        CHECK_STATUS(aside_fetch_add_tag(fetch, ASIDE_STR("tag")), ASIDE_OK);
    switch (asked->answer) {
    case NOTHING_THERE: return aside_fetch_not_found(fetch);
    case A_FAILURE: return aside_fetch_fail(fetch, 42);
    case STILL_GOOD:
        if (previous != NULL && stamp_of_value(previous, KEY) == version)
            return aside_fetch_not_modified(fetch);
        /* fall through */
    default: return stamp_answer(fetch, KEY, version);
    }
}

static aside_call call_for(struct meeting *meeting, enum answer answer)
{
    return (aside_call){ASIDE_CALL, .fetch = tell, .arg = &meeting->asked[answer],
                        .nonblocking = 1};
}

/* Who joins a fetch that finds no worker is told so as well. */
static bool may_be_told(const struct meeting *meeting, const aside_call *call, aside_status status)
{
    switch (status) {
    case ASIDE_E_CANCELLED: return call->cancel != NULL;
    case ASIDE_E_BUSY: return !meeting->setting.worked;
    default:
        return status == ASIDE_NOT_FOUND || status == ASIDE_E_FETCH || status == ASIDE_E_CLOSED;
    }
}

/* Which version, if any, he was given; whoever comes to a closed cache is told so. */
static uint64_t ask_for(struct meeting *meeting, const aside_call *call)
{
    aside_result result = ASIDE_RESULT_INIT;
    uint64_t key = KEY, version = 0;
    aside_status status = aside_get_with_fetch(meeting->cache, &key, sizeof key, call, &result);
    CHECK((status == ASIDE_OK) == (result.value != NULL));
    if (status == ASIDE_OK)
        version = stamp_of_value(result.value, KEY);
    else
        CHECK(may_be_told(meeting, call, status));
    CHECK(version <= atomic_load(&meeting->truth));
    aside_value_unref(result.value);
    return version;
}

static void ask(struct meeting *meeting, enum answer answer)
{
    aside_call call = call_for(meeting, answer);
    (void)ask_for(meeting, &call);
}

/* Neither what is stale nor what is remembered is good enough. */
static uint64_t read_back(struct meeting *meeting)
{
    uint64_t floor = atomic_load(&meeting->floor);
    aside_call call = call_for(meeting, A_VALUE);
    call.freshness.stale_ms = call.freshness.stale_if_error_ms = ASIDE_OFF;
    call.freshness.not_found_ttl_ms = call.freshness.backoff_ms = ASIDE_OFF;
    uint64_t version = ask_for(meeting, &call);
    CHECK(version == 0 || version >= floor);
    return version;
}

/* ---- operations ---------------------------------------------------------------------------------- */

/* A writer changes the source first. What has returned counts from then on. */
static uint64_t change(struct meeting *meeting)
{
    return atomic_fetch_add(&meeting->truth, 1) + 1;
}

static void changed(struct meeting *meeting, uint64_t version, aside_status status)
{
    CHECK(status == ASIDE_OK || status == ASIDE_MISS || status == ASIDE_E_CLOSED);
    if (meeting->floored)
        raise_to(&meeting->floor, version);
}

static void check_seen(struct meeting *meeting, aside_status status, const void *bytes, size_t size)
{
    if (status == ASIDE_OK)
        CHECK(stamp_read(bytes, size, KEY) <= atomic_load(&meeting->truth));
    else
        CHECK(status == ASIDE_MISS || status == ASIDE_E_CLOSED);
}

static void do_get(struct meeting *meeting)
{
    uint64_t key = KEY;
    aside_value *value = NULL;
    aside_status status = aside_get(meeting->cache, &key, sizeof key, &value);
    check_seen(meeting, status, aside_value_data(value), aside_value_size(value));
    aside_value_unref(value);
}

static void do_copy(struct meeting *meeting)
{
    uint64_t key = KEY;
    unsigned char bytes[STAMP_MOST];
    size_t size = 0;
    aside_status status = aside_copy(meeting->cache, &key, sizeof key, bytes, sizeof bytes, &size);
    check_seen(meeting, status, bytes, size);
}

static void visit(const void *data, size_t size, void *its_meeting)
{
    check_seen((struct meeting *)its_meeting, ASIDE_OK, data, size);
}

static void do_visit(struct meeting *meeting)
{
    uint64_t key = KEY;
    aside_status status = aside_visit(meeting->cache, &key, sizeof key, visit, meeting);
    CHECK(status == ASIDE_OK || status == ASIDE_MISS || status == ASIDE_E_CLOSED);
}

static void do_ask(struct meeting *meeting)
{
    ask(meeting, A_VALUE);
}

static void do_ask_for_what_is_not_there(struct meeting *meeting)
{
    ask(meeting, NOTHING_THERE);
}

static void do_ask_in_vain(struct meeting *meeting)
{
    ask(meeting, A_FAILURE);
}

static void do_ask_again(struct meeting *meeting)
{
    ask(meeting, STILL_GOOD);
}

/* Without workers only as one who joins, or who hits. */
static void do_ask_and_perhaps_leave(struct meeting *meeting)
{
    aside_call call = call_for(meeting, A_VALUE);
    call.cancel = meeting->token;
    call.nonblocking = 0;
    (void)ask_for(meeting, &call);
}

static void do_cancel(struct meeting *meeting)
{
    aside_cancel_fire(meeting->token);
}

static void do_refresh(struct meeting *meeting)
{
    uint64_t key = KEY;
    aside_call call = call_for(meeting, A_VALUE);
    aside_status status = aside_refresh(meeting->cache, &key, sizeof key, &call);
    CHECK(status == ASIDE_OK || status == ASIDE_E_CLOSED);
}

static void told(void *its_told, aside_status status, aside_result *result)
{
    CHECK((status == ASIDE_OK) == (result->value != NULL));
    aside_value_unref(result->value);
    *(bool *)its_told = true;
}

static void do_ask_async(struct meeting *meeting)
{
    uint64_t key = KEY;
    bool is_told = false;
    aside_inbox *inbox = NULL;
    aside_result result = ASIDE_RESULT_INIT;
    aside_call call = call_for(meeting, A_VALUE);
    CHECK_STATUS(aside_inbox_new(&inbox), ASIDE_OK);
    aside_status status =
        aside_get_async(meeting->cache, &key, sizeof key, &call, inbox, told, &is_told, &result);
    aside_value_unref(result.value);
    while (status == ASIDE_PENDING && !is_told) {
        sched_yield();
        CHECK_STATUS(aside_inbox_dispatch(inbox, 0, NULL), ASIDE_OK);
    }
    aside_inbox_free(inbox);
}

static void do_set(struct meeting *meeting)
{
    uint64_t version = change(meeting);
    changed(meeting, version, stamp_set(meeting->cache, KEY, version, TTL_MS));
}

static void do_set_value(struct meeting *meeting)
{
    uint64_t key = KEY, version = change(meeting);
    unsigned char bytes[STAMP_MOST];
    aside_value *value = NULL;
    size_t size = stamp_write(bytes, KEY, version);
    CHECK_STATUS(aside_value_copy(bytes, size, &value), ASIDE_OK);
    changed(meeting, version, aside_set_value(meeting->cache, &key, sizeof key, value, TTL_MS));
    aside_value_unref(value);
}

static void do_add(struct meeting *meeting)
{
    uint64_t key = KEY, version = change(meeting);
    unsigned char bytes[STAMP_MOST];
    size_t size = stamp_write(bytes, KEY, version);
    aside_status status = aside_add(meeting->cache, &key, sizeof key, bytes, size, TTL_MS);
    if (status != ASIDE_EXISTS)
        changed(meeting, version, status);
}

static void do_set_with_ttl_0(struct meeting *meeting)
{
    uint64_t version = change(meeting);
    changed(meeting, version, stamp_set(meeting->cache, KEY, version, 0));
}

static void do_set_another(struct meeting *meeting)
{
    aside_status status = stamp_set(meeting->cache, OTHER_KEY, 1, TTL_MS);
    CHECK(status == ASIDE_OK || status == ASIDE_E_CLOSED);
}

static void do_touch(struct meeting *meeting)
{
    uint64_t key = KEY;
    aside_status status = aside_touch(meeting->cache, &key, sizeof key, 2 * TTL_MS);
    CHECK(status == ASIDE_OK || status == ASIDE_MISS || status == ASIDE_E_CLOSED);
}

static void do_expire(struct meeting *meeting)
{
    uint64_t key = KEY, version = change(meeting);
    changed(meeting, version, aside_expire(meeting->cache, &key, sizeof key));
}

static void do_delete(struct meeting *meeting)
{
    uint64_t key = KEY, version = change(meeting);
    changed(meeting, version, aside_delete(meeting->cache, &key, sizeof key));
}

/* Of values that have no tag it changes nothing. */
static void do_delete_tag(struct meeting *meeting)
{
    uint64_t version = meeting->setting.tagged ? change(meeting) : 0;
    changed(meeting, version, aside_delete_tag(meeting->cache, ASIDE_STR("tag")));
}

static void do_clear(struct meeting *meeting)
{
    uint64_t version = change(meeting);
    changed(meeting, version, aside_clear(meeting->cache));
}

static void do_reap(struct meeting *meeting)
{
    aside_status status = aside_reap(meeting->cache, 0, NULL);
    CHECK(status == ASIDE_OK || status == ASIDE_E_CLOSED);
}

static aside_status ignore(void *ctx, const char *text, size_t size)
{
    (void)ctx;
    (void)text;
    (void)size;
    return ASIDE_OK;
}

static void do_report(struct meeting *meeting)
{
    CHECK_STATUS(aside_stats_write(&meeting->cache, 1, ignore, NULL), ASIDE_OK);
    CHECK_STATUS(aside_flights_write(&meeting->cache, 1, ignore, NULL), ASIDE_OK);
    CHECK(aside_count(meeting->cache) <= 2);
}

static void do_close(struct meeting *meeting)
{
    CHECK_STATUS(aside_close(meeting->cache), ASIDE_OK);
}

/* Its thread is alone there, and all else is as it was a moment ago. */
static void use_in_the_child(struct meeting *meeting)
{
    static void (*const writes[])(struct meeting *) = {do_delete, do_delete_tag, do_set,
                                                       do_expire, do_set_value,  do_clear};
    meeting->floored = true;
    (void)read_back(meeting);
    for (size_t i = 0; i < COUNT_OF(writes); i++) {
        writes[i](meeting);
        (void)read_back(meeting);
        do_get(meeting);
    }
    do_close(meeting);
    CHECK_INT(read_back(meeting), 0);
    aside_unref(meeting->cache);
}

/* Under a sanitizer a child may allocate nothing (children.h). */
static void do_fork(struct meeting *meeting)
{
    if (SANITIZED)
        return;
    struct child child = child_fork();
    if (child.pid == 0) {
        use_in_the_child(meeting);
        child_done();
    }
    child_end(&child, CHILD_DONE);
}

/* X(name, what it is to others, how much it goes through): a SETTER brings a version of its own. */
enum role { ONLOOKER, SETTER, DROPPER };
enum reach { ITS_SHARD, ALL_SHARDS };
#define OPERATIONS(X)                                                                              \
    X(get, ONLOOKER, ITS_SHARD)                                                                    \
    X(copy, ONLOOKER, ITS_SHARD)                                                                   \
    X(visit, ONLOOKER, ITS_SHARD)                                                                  \
    X(ask, ONLOOKER, ITS_SHARD)                                                                    \
    X(ask_for_what_is_not_there, ONLOOKER, ITS_SHARD)                                              \
    X(ask_in_vain, ONLOOKER, ITS_SHARD)                                                            \
    X(ask_again, ONLOOKER, ITS_SHARD)                                                              \
    X(ask_async, ONLOOKER, ITS_SHARD)                                                              \
    X(ask_and_perhaps_leave, ONLOOKER, ITS_SHARD)                                                  \
    X(cancel, ONLOOKER, ITS_SHARD)                                                                 \
    X(refresh, ONLOOKER, ITS_SHARD)                                                                \
    X(set, SETTER, ITS_SHARD)                                                                      \
    X(set_value, SETTER, ITS_SHARD)                                                                \
    X(add, SETTER, ITS_SHARD)                                                                      \
    X(set_with_ttl_0, DROPPER, ITS_SHARD)                                                          \
    X(set_another, ONLOOKER, ITS_SHARD)                                                            \
    X(touch, ONLOOKER, ITS_SHARD)                                                                  \
    X(expire, DROPPER, ITS_SHARD)                                                                  \
    X(delete, DROPPER, ITS_SHARD)                                                                  \
    X(delete_tag, DROPPER, ITS_SHARD)                                                              \
    X(clear, DROPPER, ALL_SHARDS)                                                                  \
    X(reap, ONLOOKER, ALL_SHARDS)                                                                  \
    X(report, ONLOOKER, ALL_SHARDS)                                                                \
    X(close, ONLOOKER, ALL_SHARDS)                                                                 \
    X(fork, ONLOOKER, ALL_SHARDS)

struct operation {
    const char *name;
    void (*run)(struct meeting *meeting);
    enum role role;
    enum reach reach;
};

static const struct operation operations[] = {
#define OPERATION(name, role, reach) {#name, do_##name, role, reach},
    OPERATIONS(OPERATION)
#undef OPERATION
};

/* ---- what it finds ------------------------------------------------------------------------------- */

enum state { EMPTY, FRESH, DUE, STALE, KNOWN_ABSENT, KNOWN_TO_FAIL, STATES };

static void open_meeting(struct meeting *meeting, const struct setting *setting)
{
    aside_options options = ASIDE_OPTIONS_INIT;
    memset((void *)meeting, 0, sizeof *meeting);
    meeting->setting = *setting;
    options.alloc = ledger_init(&meeting->ledger);
    options.clock = fake_clock_init(&meeting->clock);
    options.reaper_interval_ms = 0;
    options.fetch_threads = setting->worked;
    options.default_ttl_ms = TTL_MS;
    options.max_entries = setting->bounded ? 2 : 0;
    if (setting->windows)
        options.freshness = (aside_freshness){.stale_ms = TTL_MS,
                                              .stale_if_error_ms = 5 * TTL_MS,
                                              .throttle_ms = 100,
                                              .not_found_ttl_ms = TTL_MS,
                                              .backoff_ms = 100,
                                              .backoff_max_ms = TTL_MS,
                                              .refresh_ahead = 0.5};
    for (int i = 0; i < ANSWERS; i++)
        meeting->asked[i] = (struct asked){meeting, (enum answer)i};
    atomic_store(&meeting->truth, 1);
    meeting->token = token_new();
    meeting->cache = cache_open(&options);
}

static void bring_about(struct meeting *meeting, enum state state)
{
    if (state == EMPTY)
        return;
    ask(meeting, state == KNOWN_ABSENT    ? NOTHING_THERE
                 : state == KNOWN_TO_FAIL ? A_FAILURE
                                          : A_VALUE);
    if (state == DUE || state == STALE)
        fake_clock_advance_ms(&meeting->clock, state == DUE ? TTL_MS * 3 / 4 : TTL_MS,
                              meeting->cache);
}

/* ---- a meeting ----------------------------------------------------------------------------------- */

struct pair {
    const struct operation *first, *second;
    enum state state;
    struct meeting meeting;
};

static void act(void *its_pair, int which)
{
    struct pair *pair = its_pair;
    (which == 0 ? pair->first : pair->second)->run(&pair->meeting);
}

static void look_back(void *its_pair, int which)
{
    (void)which;
    (void)read_back(&((struct pair *)its_pair)->meeting);
}

/* Who sets a version while another writer is under way may come last with the older of two, and that is
 * what there is then. */
static bool lays_floor(const struct pair *pair)
{
    bool sets = pair->first->role == SETTER || pair->second->role == SETTER;
    return !sets || pair->first->role == ONLOOKER || pair->second->role == ONLOOKER;
}

static void judge(struct pair *pair)
{
    struct meeting *meeting = &pair->meeting;
    WAIT_UNTIL(STAT(meeting->cache, flights_now) == 0); /* a worker may be at it still */
    CHECK_INT(STAT(meeting->cache, waiters_now), 0);
    CHECK((read_back(meeting) != 0) == (aside_health(meeting->cache) == ASIDE_OK));
    aside_cancel_unref(meeting->token);
    cache_end(meeting->cache);
    WAIT_UNTIL(meeting->ledger.live_blocks == 0);
}

static bool is_met(struct encounter *encounter, int64_t step, const struct setting *setting)
{
    struct pair *pair = encounter->scene;
    test_scene("%s, met by %s at step %lld; state %d, setting %td", pair->first->name,
               pair->second->name, (long long)step, (int)pair->state, setting - settings);
    open_meeting(&pair->meeting, setting);
    bring_about(&pair->meeting, pair->state);
    pair->meeting.floored = lays_floor(pair);
    bool is_met = encounter_at(encounter, step);
    judge(pair);
    return is_met;
}

static void meet_at_each_step(struct encounter *encounter, const struct setting *setting)
{
    const struct pair *pair = encounter->scene;
    int64_t stride = encounter_stride() * (pair->first->reach == ALL_SHARDS ? 16 : 1);
    int64_t step = 1 + (int64_t)(test_random() % (uint64_t)stride);
    while (is_met(encounter, step, setting))
        step += stride;
}

static void meet_all(const struct operation *first)
{
    static struct pair pair;
    static struct encounter encounter;
    pair.first = first;
    encounter_open(&encounter, &pair, act, look_back);
    for (size_t i = 0; i < COUNT_OF(settings) * STATES * COUNT_OF(operations); i++) {
        const struct setting *setting = &settings[i % COUNT_OF(settings)];
        pair.state = (enum state)(i / COUNT_OF(settings) % STATES);
        pair.second = &operations[i / COUNT_OF(settings) / STATES];
        if (setting->windows || pair.state <= STALE)
            meet_at_each_step(&encounter, setting);
    }
    encounter_close(&encounter);
}

#define MEETING(name, role, reach)                                                                 \
    TEST(name##_is_met_at_each_step)                                                               \
    {                                                                                              \
        meet_all(&(struct operation){#name, do_##name, role, reach});                              \
    }
OPERATIONS(MEETING)
