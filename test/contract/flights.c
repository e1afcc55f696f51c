/*
 * flights.c -- aside_flights_write: what is under way, as JSON that a parser takes, and what becomes
 * of a writer that stops, that calls the cache, or that ends its thread.
 */
#include "loops.h"

#include <ctype.h>

/* ---- a text, and a parser of it ------------------------------------------------------------------ */

struct text {
    size_t length, pieces;
    aside_status status; /* what the writer returns from the piece on that has this number */
    size_t fails_at;
    char bytes[1 << 20];
};

static struct text text; /* of one test: each has a process of its own */

static aside_status append(void *ctx, const char *piece, size_t length)
{
    struct text *to = (struct text *)ctx;
    CHECK(length > 0 && to->length + length < sizeof to->bytes);
    CHECK(to->fails_at == 0 || to->pieces < to->fails_at); /* who has stopped is not asked again */
    memcpy(to->bytes + to->length, piece, length);
    to->length += length;
    to->bytes[to->length] = '\0';
    to->pieces++;
    return to->fails_at && to->pieces >= to->fails_at ? to->status : ASIDE_OK;
}

static const char *skip_spaces(const char *at)
{
    return at + strspn(at, " \t\r\n");
}

/* JSON's strings, printable ASCII all of them; past the closing quote. */
static const char *skip_string(const char *at)
{
    CHECK(*at++ == '"');
    while (*at != '"') {
        CHECK(*at >= ' ' && *at < 0x7f);
        if (*at++ != '\\')
            continue;
        if (*at++ == 'u')
            for (int i = 0; i < 4; i++)
                CHECK(isxdigit((unsigned char)*at++));
        else
            CHECK(strchr("\"\\/bfnrt", at[-1]) != NULL);
    }
    return at + 1;
}

static const char *skip_value(const char *at)
{
    if (*at == '"')
        return skip_string(at);
    if (strncmp(at, "true", 4) == 0)
        return at + 4;
    if (strncmp(at, "false", 5) == 0)
        return at + 5;
    size_t digits = strspn(at, "0123456789");
    CHECK(digits > 0 && (digits == 1 || *at != '0'));
    return at + digits;
}

static const char *skip_object(const char *at)
{
    CHECK(*at++ == '{');
    for (;;) {
        at = skip_spaces(skip_string(skip_spaces(at)));
        CHECK(*at++ == ':');
        at = skip_spaces(skip_value(skip_spaces(at)));
        if (*at++ == '}')
            return at;
        CHECK(at[-1] == ',');
    }
}

/* How many objects there are; begin[i] is where each begins. */
static int parse(const char **begins, int most)
{
    int count = 0;
    const char *at = skip_spaces(text.bytes);
    CHECK(*at++ == '[');
    at = skip_spaces(at);
    for (; *at != ']'; count++) {
        CHECK(count == 0 || *at++ == ',');
        at = skip_spaces(at);
        if (count < most)
            begins[count] = at;
        at = skip_spaces(skip_object(at));
    }
    CHECK(*skip_spaces(at + 1) == '\0');
    return count;
}

#define MOST_FOUND 4096
static const char *found[MOST_FOUND];

static int write_caches(aside_cache *const *caches, size_t count)
{
    memset((void *)&text, 0, sizeof text);
    CHECK_STATUS(aside_flights_write(caches, count, append, &text), ASIDE_OK);
    return parse(found, MOST_FOUND);
}

static int write_one(aside_cache *cache)
{
    return write_caches(&cache, 1);
}

/* The object of that number has this member, as it is written: "name":value. */
static bool has(int object, const char *member)
{
    const char *end = skip_object(found[object]);
    const char *at = strstr(found[object], member);
    if (at == NULL || at >= end)
        return false;
    return at[strlen(member)] == ',' || at[strlen(member)] == '}';
}

#define CHECK_HAS(object, member)                                                                  \
    do {                                                                                           \
        if (!has((object), (member)))                                                              \
            test_fail(__FILE__, __LINE__, member, found[object]);                                  \
    } while (0)

static void place_open_named(struct place *place, const char *name)
{
    aside_options options = place_options(place);
    options.name = name;
    options.clock = fake_clock_init(&place->clock);
    options.close_wait_ms = 0;
    place_open_with(place, &options);
}

/* ---- what is written ----------------------------------------------------------------------------- */

TEST(nothing_under_way_is_an_empty_array)
{
    struct place place;
    place_open(&place);
    put(place.cache, "k", "v", 1000);
    CHECK_INT(write_one(place.cache), 0);
    CHECK_INT(write_caches(NULL, 0), 0);
    place_close(&place);
}

TEST(a_pending_fetch_with_all_that_is_to_be_known)
{
    struct place place;
    struct told told[3] = {{0}};
    place_open_named(&place, "users");
    place_wait(&place, &told[0]);
    place_move_ms(&place, 1234);
    for (int i = 1; i < 3; i++)
        place_wait(&place, &told[i]);
    CHECK_INT(write_one(place.cache), 1);
    CHECK_HAS(0, "\"cache\":\"users\"");
    CHECK_HAS(0, "\"key\":\"k\"");
    CHECK_HAS(0, "\"age_ms\":1234");
    CHECK_HAS(0, "\"waiters\":3");
    CHECK_HAS(0, "\"state\":\"pending\"");
    CHECK_HAS(0, "\"background\":false");
    CHECK_HAS(0, "\"fenced\":false");
    CHECK_HAS(0, "\"superseded\":false");
    complete(&place.held, "v");
    CHECK_INT(write_one(place.cache), 0);
    CHECK_INT(dispatch(place.inbox), 3);
    for (int i = 0; i < 3; i++)
        drop_told(&told[i]);
    place_close(&place);
}

TEST(who_has_left_is_no_waiter)
{
    struct place place;
    struct told told[2] = {{0}};
    place_open_named(&place, "users");
    place.call.cancel = token_new();
    place_wait(&place, &told[0]);
    place_wait(&place, &told[1]);
    CHECK_INT(write_one(place.cache), 1);
    CHECK_HAS(0, "\"waiters\":2");
    aside_cancel_fire(place.call.cancel);
    CHECK_INT(dispatch(place.inbox), 2);
    CHECK_INT(write_one(place.cache), 1);
    CHECK_HAS(0, "\"waiters\":0");
    aside_cancel_unref(place.call.cancel);
    complete(&place.held, "v");
    place_close(&place);
}

TEST(a_fetch_on_a_worker_runs_and_those_behind_it_are_queued)
{
    struct place place;
    struct source source;
    struct told told[2] = {{0}};
    aside_options options = place_options(&place);
    options.fetch_threads = 1;
    place_open_with(&place, &options);
    source_init(&source, "v", true);
    aside_call call = {ASIDE_CALL, .fetch = source_fetch, .arg = &source};
    begin_pending(&told[0], place.cache, "first", &call, place.inbox);
    gate_wait_arrived(&source.gate, 1);
    begin_pending(&told[1], place.cache, "second", &call, place.inbox);
    CHECK_INT(write_one(place.cache), 2);
    int first = has(0, "\"key\":\"first\"") ? 0 : 1;
    CHECK_HAS(first, "\"key\":\"first\"");
    CHECK_HAS(first, "\"state\":\"running\"");
    CHECK_HAS(1 - first, "\"key\":\"second\"");
    CHECK_HAS(1 - first, "\"state\":\"queued\"");
    gate_open(&source.gate);
    dispatch_until(place.inbox, 2);
    drop_told(&told[0]);
    drop_told(&told[1]);
    place_close(&place);
}

TEST(a_fetch_on_its_callers_thread_runs)
{
    struct place place;
    struct source source;
    struct caller leader, joiner;
    place_open(&place);
    source_init(&source, "v", true);
    lead_to_gate(&leader, place.cache, "k", &source);
    CHECK_INT(write_one(place.cache), 1);
    CHECK_HAS(0, "\"state\":\"running\"");
    CHECK_HAS(0, "\"waiters\":1");
    join_flight(&joiner, place.cache, "k", &source, NULL, 1);
    CHECK_INT(write_one(place.cache), 1);
    CHECK_HAS(0, "\"waiters\":2");
    gate_open(&source.gate);
    CHECK_STATUS(caller_join(&leader), ASIDE_OK);
    CHECK_STATUS(caller_join(&joiner), ASIDE_OK);
    caller_drop(&leader);
    caller_drop(&joiner);
    place_close(&place);
}

TEST(a_refresh_is_in_the_background)
{
    struct place place;
    struct told told = {0};
    place_open_named(&place, "users");
    CHECK_STATUS(aside_refresh(place.cache, ASIDE_STR("k"), &place.call), ASIDE_OK);
    CHECK_INT(write_one(place.cache), 1);
    CHECK_HAS(0, "\"background\":true");
    CHECK_HAS(0, "\"waiters\":0");
    CHECK_HAS(0, "\"state\":\"pending\"");
    place_wait(&place, &told);
    CHECK_INT(write_one(place.cache), 1);
    CHECK_HAS(0, "\"waiters\":1");
    complete(&place.held, "v");
    CHECK_INT(dispatch(place.inbox), 1);
    check_value(&told, ASIDE_OUTCOME_JOINED, "v");
    place_close(&place);
}

TEST(a_fetch_that_a_write_overtook_is_fenced)
{
    static const char *const ways[] = {"delete", "clear", "set"};
    for (size_t way = 0; way < COUNT_OF(ways); way++) {
        struct place place;
        struct told told = {0};
        place_open_named(&place, "users");
        place_wait(&place, &told);
        if (way == 0)
            CHECK_STATUS(aside_delete(place.cache, ASIDE_STR("k")), ASIDE_MISS);
        else if (way == 1)
            CHECK_STATUS(aside_clear(place.cache), ASIDE_OK);
        else
            put(place.cache, "k", "v", 1000);
        CHECK_INT(write_one(place.cache), 1);
        CHECK_HAS(0, "\"fenced\":true");
        CHECK_HAS(0, "\"superseded\":false");
        CHECK_HAS(0, "\"waiters\":1");
        complete(&place.held, "v");
        CHECK_INT(dispatch(place.inbox), 1);
        drop_told(&told);
        place_close(&place);
    }
}

TEST(a_fetch_that_grew_too_old_is_shown_beside_the_one_that_took_its_place)
{
    struct place place;
    struct told told = {0}, newer = {0};
    place_open_named(&place, "users");
    place_wait(&place, &told);
    place_move_ms(&place, 30000);
    CHECK_INT(dispatch(place.inbox), 1);
    CHECK_INT(write_one(place.cache), 1);
    CHECK_HAS(0, "\"superseded\":true");
    CHECK_HAS(0, "\"age_ms\":30000");
    CHECK_HAS(0, "\"waiters\":0");
    place_wait(&place, &newer);
    CHECK_INT(write_one(place.cache), 2);
    int old = has(0, "\"superseded\":true") ? 0 : 1;
    CHECK_HAS(old, "\"superseded\":true");
    CHECK_HAS(1 - old, "\"superseded\":false");
    CHECK_HAS(1 - old, "\"age_ms\":0");
    complete(&place.held, "late");
    CHECK_INT(write_one(place.cache), 1);
    CHECK_HAS(0, "\"superseded\":false");
    complete(&place.held, "new");
    CHECK_INT(dispatch(place.inbox), 1);
    drop_told(&newer);
    place_close(&place);
}

TEST(what_still_runs_in_a_closed_cache_is_shown)
{
    struct place place;
    struct told told = {0};
    place_open_named(&place, "users");
    place_wait(&place, &told);
    CHECK_STATUS(aside_close(place.cache), ASIDE_OK);
    CHECK_INT(write_one(place.cache), 1);
    CHECK_HAS(0, "\"superseded\":true");
    complete(&place.held, "late");
    CHECK_INT(write_one(place.cache), 0);
    CHECK_INT(dispatch(place.inbox), 1);
    place_close(&place);
}

/* ---- keys and names ------------------------------------------------------------------------------ */

static void begin_key(struct place *place, struct told *told, const void *key, size_t key_len)
{
    aside_result result = ASIDE_RESULT_INIT;
    CHECK_STATUS(aside_get_async(place->cache, key, key_len, &place->call, place->inbox, be_told,
                                 told, &result),
                 ASIDE_PENDING);
}

TEST(every_byte_of_a_key_is_there)
{
    struct place place;
    struct told told[3] = {{0}};
    unsigned char bytes[128];
    char expected[128 * 6 + 16] = "\"key\":\"";
    place_open_named(&place, "users");
    for (int half = 0; half < 2; half++) {
        expected[7] = '\0';
        for (int i = 0; i < 128; i++) {
            unsigned char byte = bytes[i] = (unsigned char)(half * 128 + i);
            bool plain = byte >= ' ' && byte < 0x7f && byte != '"' && byte != '\\';
            snprintf(expected + strlen(expected), 7, plain ? "%c" : "\\u00%02x", byte);
        }
        strcat(expected, "\"");
        begin_key(&place, &told[half], bytes, sizeof bytes);
        CHECK_INT(write_one(place.cache), 1);
        CHECK_HAS(0, expected);
        complete(&place.held, "v");
    }
    begin_key(&place, &told[2], NULL, 0);
    CHECK_INT(write_one(place.cache), 1);
    CHECK_HAS(0, "\"key\":\"\"");
    complete(&place.held, "v");
    CHECK_INT(dispatch(place.inbox), 3);
    for (int i = 0; i < 3; i++)
        drop_told(&told[i]);
    place_close(&place);
}

TEST(a_long_key_is_cut)
{
    struct place place;
    struct told told[3] = {{0}};
    static char key[ASIDE_MAX_KEY];
    static const size_t lengths[] = {128, 129, ASIDE_MAX_KEY};
    char expected[160] = "\"key\":\"";
    memset(key, 'k', sizeof key);
    memset(expected + 7, 'k', 128);
    strcpy(expected + 7 + 128, "\"");
    place_open_named(&place, "users");
    for (size_t i = 0; i < COUNT_OF(lengths); i++) {
        begin_key(&place, &told[i], key, lengths[i]);
        CHECK_INT(write_one(place.cache), 1);
        CHECK_HAS(0, expected);
        complete(&place.held, "v");
    }
    CHECK_INT(dispatch(place.inbox), COUNT_OF(lengths));
    for (size_t i = 0; i < COUNT_OF(lengths); i++)
        drop_told(&told[i]);
    place_close(&place);
}

TEST(several_caches_each_by_its_name)
{
    struct place places[3];
    aside_cache *caches[3];
    struct told told[3] = {{0}};
    static const char *const names[] = {"users", "a \"strange\"\n\\name", "idle"};
    for (int i = 0; i < 3; i++) {
        place_open_named(&places[i], names[i]);
        caches[i] = places[i].cache;
        if (i < 2)
            place_wait(&places[i], &told[i]);
    }
    CHECK_INT(write_caches(caches, 3), 2);
    CHECK_HAS(0, "\"cache\":\"users\"");
    CHECK(strstr(text.bytes, "strange") != NULL);
    for (int i = 0; i < 3; i++) {
        if (i < 2)
            complete(&places[i].held, "v");
        CHECK_INT(dispatch(places[i].inbox), i < 2);
        drop_told(&told[i]);
        place_close(&places[i]);
    }
}

/* ---- many ---------------------------------------------------------------------------------------- */

/* So little that all keys lie together. */
static void place_open_small(struct place *place)
{
    aside_options options = place_options(place);
    options.max_bytes = 256 * 1024;
    options.close_wait_ms = 0;
    options.name = "small";
    place_open_with(place, &options);
}

static aside_status keep_reference(aside_fetch *fetch, void *arg)
{
    aside_fetch **to = (aside_fetch **)arg;
    *to = aside_fetch_ref(fetch);
    return ASIDE_PENDING;
}

/* What is not shown is said, and the two together are all. */
static int count_shown(aside_cache *cache, unsigned *not_shown)
{
    int objects = write_one(cache), shown = 0;
    *not_shown = 0;
    for (int i = 0; i < objects; i++) {
        const char *says = strstr(found[i], "\"not_shown\":");
        if (says != NULL && says < skip_object(found[i]))
            CHECK_INT(sscanf(says, "\"not_shown\":%u", not_shown), 1);
        else
            shown++;
    }
    if (*not_shown > 0)
        CHECK_HAS(objects - 1, "\"cache\":\"small\"");
    return shown;
}

enum { MANY = 100 };

TEST(of_a_shard_thirty_two_are_shown_and_the_others_counted)
{
    struct place place;
    static struct told told[MANY];
    static aside_fetch *fetches[MANY];
    unsigned not_shown;
    place_open_small(&place);
    for (int i = 0; i < MANY; i++) {
        aside_call call = {ASIDE_CALL, .fetch = keep_reference, .arg = &fetches[i]};
        call.nonblocking = 1;
        char key[16];
        snprintf(key, sizeof key, "key %d", i);
        begin_pending(&told[i], place.cache, key, &call, place.inbox);
        int shown = count_shown(place.cache, &not_shown);
        CHECK_INT(shown + (int)not_shown, i + 1);
        if (i < 32)
            CHECK_INT(not_shown, 0);
    }
    CHECK(not_shown > 0);
    for (int i = 0; i < MANY; i++) {
        CHECK_STATUS(aside_fetch_complete(fetches[i], ASIDE_NOT_FOUND), ASIDE_OK);
        aside_fetch_unref(fetches[i]);
    }
    CHECK_INT(write_one(place.cache), 0);
    CHECK_INT(dispatch(place.inbox), MANY);
    place_close(&place);
}

TEST(what_was_given_up_is_shown_before_all_others)
{
    struct place place;
    static struct told told[MANY];
    static aside_fetch *fetches[MANY + 1];
    unsigned not_shown;
    aside_options options = place_options(&place);
    options.max_bytes = 256 * 1024;
    options.clock = fake_clock_init(&place.clock);
    options.name = "small";
    place_open_with(&place, &options);
    for (int i = 0; i <= MANY; i++) {
        aside_call call = {ASIDE_CALL, .fetch = keep_reference, .arg = &fetches[i]};
        call.nonblocking = 1;
        char key[16];
        snprintf(key, sizeof key, "key %d", i);
        begin_pending(&told[i ? i - 1 : 0], place.cache, key, &call, place.inbox);
        if (i == 0) {
            place_move_ms(&place, 30000);
            CHECK_INT(dispatch(place.inbox), 1);
        }
    }
    CHECK_INT(count_shown(place.cache, &not_shown) + (int)not_shown, MANY + 1);
    CHECK(not_shown > 0);
    CHECK(strstr(text.bytes, "\"key\":\"key 0\"") != NULL);
    for (int i = 0; i <= MANY; i++) {
        CHECK_STATUS(aside_fetch_complete(fetches[i], ASIDE_NOT_FOUND), ASIDE_OK);
        aside_fetch_unref(fetches[i]);
    }
    CHECK_INT(dispatch(place.inbox), MANY);
    place_close(&place);
}

/* ---- who writes ---------------------------------------------------------------------------------- */

/* Enough for several pieces. */
static void begin_some(struct place *place, struct told *told, aside_fetch **fetches)
{
    for (int i = 0; i < MANY; i++) {
        aside_call call = {ASIDE_CALL, .fetch = keep_reference, .arg = &fetches[i]};
        call.nonblocking = 1;
        char key[128];
        memset(key, 1, sizeof key); /* six characters each */
        memcpy(key, &i, sizeof i);
        aside_result result = ASIDE_RESULT_INIT;
        CHECK_STATUS(aside_get_async(place->cache, key, sizeof key, &call, place->inbox, be_told,
                                     &told[i], &result),
                     ASIDE_PENDING);
    }
}

static void end_some(struct place *place, aside_fetch **fetches)
{
    for (int i = 0; i < MANY; i++) {
        CHECK_STATUS(aside_fetch_complete(fetches[i], ASIDE_NOT_FOUND), ASIDE_OK);
        aside_fetch_unref(fetches[i]);
    }
    CHECK_INT(dispatch(place->inbox), MANY);
}

TEST(a_writer_that_stops_is_not_asked_again_and_its_status_returned)
{
    struct place place;
    static struct told told[MANY];
    static aside_fetch *fetches[MANY];
    place_open(&place);
    begin_some(&place, told, fetches);
    CHECK(write_one(place.cache) > 0);
    size_t pieces = text.pieces;
    CHECK(pieces > 2);
    for (size_t at = 1; at <= pieces; at++) {
        memset((void *)&text, 0, sizeof text);
        text.fails_at = at;
        text.status = (aside_status)(at % 2 ? -99 : 7);
        CHECK_STATUS(aside_flights_write(&place.cache, 1, append, &text), text.status);
        CHECK_INT(text.pieces, at);
    }
    end_some(&place, fetches);
    place_close(&place);
}

struct meddler {
    struct place *place;
    int pieces;
};

/* Everything that takes a shard's lock. */
static aside_status meddle(void *ctx, const char *piece, size_t length)
{
    struct meddler *meddler = (struct meddler *)ctx;
    aside_cache *cache = meddler->place->cache;
    char key[16];
    (void)piece, (void)length;
    for (int i = 0; i < 100; i++) {
        snprintf(key, sizeof key, "set %d", i);
        put(cache, key, "v", 1000);
        CHECK_STATUS(aside_delete(cache, key, strlen(key)), ASIDE_OK);
    }
    CHECK_STATUS(aside_clear(cache), ASIDE_OK);
    if (meddler->pieces++ == 0)
        CHECK_STATUS(aside_flights_write(&cache, 1, meddle, ctx), ASIDE_OK);
    return ASIDE_OK;
}

TEST(a_writer_may_call_the_cache_and_write_inside_of_itself)
{
    struct place place;
    static struct told told[MANY];
    static aside_fetch *fetches[MANY];
    struct meddler meddler = {&place, 0};
    place_open(&place);
    begin_some(&place, told, fetches);
    CHECK_STATUS(aside_flights_write(&place.cache, 1, meddle, &meddler), ASIDE_OK);
    CHECK(meddler.pieces > 2);
    end_some(&place, fetches);
    place_close(&place);
}

struct completer {
    aside_fetch **fetches;
    int next;
};

/* What was copied is written, whatever becomes of it meanwhile. */
static aside_status complete_one(void *ctx, const char *piece, size_t length)
{
    struct completer *completer = (struct completer *)ctx;
    if (completer->next < MANY) {
        aside_fetch **fetch = &completer->fetches[completer->next++];
        CHECK_STATUS(aside_fetch_complete(*fetch, ASIDE_NOT_FOUND), ASIDE_OK);
        aside_fetch_unref(*fetch);
        *fetch = NULL;
    }
    return append(&text, piece, length);
}

TEST(a_writer_may_complete_what_it_is_shown)
{
    struct place place;
    static struct told told[MANY];
    static aside_fetch *fetches[MANY];
    struct completer completer = {fetches, 0};
    place_open(&place);
    begin_some(&place, told, fetches);
    memset((void *)&text, 0, sizeof text);
    CHECK_STATUS(aside_flights_write(&place.cache, 1, complete_one, &completer), ASIDE_OK);
    (void)parse(found, MOST_FOUND);
    CHECK(completer.next > 2);
    for (int i = 0; i < MANY; i++) {
        if (fetches[i] == NULL)
            continue;
        CHECK_STATUS(aside_fetch_complete(fetches[i], ASIDE_NOT_FOUND), ASIDE_OK);
        aside_fetch_unref(fetches[i]);
    }
    CHECK_INT(dispatch(place.inbox), MANY);
    place_close(&place);
}

static aside_status end_while_writing(void *ctx, const char *piece, size_t length)
{
    (void)ctx, (void)piece, (void)length;
    pthread_exit(NULL);
}

static void *write_and_end(void *arg)
{
    aside_status status = aside_flights_write((aside_cache **)arg, 1, end_while_writing, NULL);
    CHECK_STATUS(status, ASIDE_PENDING); /* it does not return */
    return NULL;
}

/* What it had allocated is freed: the sanitizers say so. */
TEST(a_writer_may_end_its_thread)
{
    struct place place;
    place_open(&place);
    thread_join(thread_start(write_and_end, &place.cache));
    CHECK_INT(write_one(place.cache), 0);
    place_close(&place);
}

TEST(bad_arguments_are_refused_and_nothing_is_written)
{
    struct place place;
    place_open(&place);
    void *zeros = zeros_new();
    aside_cache *none = NULL, *both[2] = {place.cache, NULL};
    aside_cache *cleared = (aside_cache *)zeros;
    memset((void *)&text, 0, sizeof text);
    CHECK_STATUS(aside_flights_write(NULL, 1, append, &text), ASIDE_E_INVALID);
    CHECK_STATUS(aside_flights_write(&none, 1, append, &text), ASIDE_E_INVALID);
    CHECK_STATUS(aside_flights_write(both, 2, append, &text), ASIDE_E_INVALID);
    CHECK_STATUS(aside_flights_write(&cleared, 1, append, &text), ASIDE_E_INVALID);
    CHECK_STATUS(aside_flights_write(&place.cache, 1, NULL, &text), ASIDE_E_INVALID);
    CHECK_INT(text.pieces, 0);
    zeros_end(zeros);
    place_close(&place);
}

TEST(without_memory_nothing_is_written)
{
    struct place place;
    place_open(&place);
    (void)write_one(place.cache);
    memset((void *)&text, 0, sizeof text);
    process_fail_alloc(1, true);
    aside_status status = aside_flights_write(&place.cache, 1, append, &text);
    process_fail_alloc(0, false);
    CHECK_STATUS(status, ASIDE_E_NOMEM);
    CHECK_INT(text.pieces, 0);
    CHECK_INT(write_one(place.cache), 0);
    place_close(&place);
}

/* ---- while others work --------------------------------------------------------------------------- */

static _Atomic bool working_is_over;

static void *work_meanwhile(void *arg)
{
    struct place *place = (struct place *)arg;
    struct source source;
    uint64_t key = 0;
    source_init(&source, "v", false);
    for (; !atomic_load(&working_is_over); key++) {
        aside_call call = {ASIDE_CALL, .fetch = source_fetch, .arg = &source};
        aside_result result = ASIDE_RESULT_INIT;
        call.timeout_ms = key % 2 ? 60000 : 0;
        key %= 1000;
        CHECK_STATUS(aside_get_with_fetch(place->cache, &key, sizeof key, &call, &result),
                     ASIDE_OK);
        aside_value_unref(result.value);
        if (key % 3 == 0)
            (void)aside_delete(place->cache, &key, sizeof key);
    }
    return NULL;
}

TEST(it_is_a_sound_text_while_fetches_come_and_go)
{
    struct place place;
    pthread_t threads[2];
    place_open(&place);
    for (int i = 0; i < 2; i++)
        threads[i] = thread_start(work_meanwhile, &place);
    for (long round = 0; round < test_rounds(300); round++)
        (void)write_one(place.cache);
    atomic_store(&working_is_over, true);
    for (int i = 0; i < 2; i++)
        thread_join(threads[i]);
    place_close(&place);
}
