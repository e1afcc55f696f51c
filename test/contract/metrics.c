/*
 * metrics.c -- aside_stats_write: what it writes agrees with aside_stats_get, in a form that
 * Prometheus takes; and what becomes of bad arguments, of a writer that fails and of one that calls
 * back.
 */
#include "helpers.h"

#include <inttypes.h>

struct text {
    size_t length, pieces;
    aside_status status; /* what the writer returns from the piece on that has this number */
    size_t fails_at;
    char bytes[65536];
};

static struct text text; /* of one test: each has a process of its own */

static aside_status append(void *ctx, const char *piece, size_t length)
{
    struct text *to = (struct text *)ctx;
    CHECK(length > 0 && to->length + length < sizeof to->bytes);
    memcpy(to->bytes + to->length, piece, length);
    to->length += length;
    to->bytes[to->length] = '\0';
    to->pieces++;
    return to->fails_at && to->pieces >= to->fails_at ? to->status : ASIDE_OK;
}

static aside_cache *open_named(const char *name)
{
    aside_options options = quiet_options();
    options.name = name;
    return open_cache(&options);
}

static void write_one(aside_cache *cache)
{
    memset(&text, 0, sizeof text);
    CHECK_STATUS(aside_stats_write(&cache, 1, append, &text), ASIDE_OK);
    CHECK(text.length > 0 && text.bytes[text.length - 1] == '\n');
}

static int count_of(const char *line)
{
    int count = 0;
    size_t length = strlen(line);
    for (const char *at = text.bytes; (at = strstr(at, line)) != NULL; at += length)
        count += (at == text.bytes || at[-1] == '\n') && at[length] == '\n';
    return count;
}

static void check_line(const char *line)
{
    if (count_of(line) == 1)
        return;
    fprintf(stderr, "%d times, not once: %s\n", count_of(line), line);
    CHECK_INT(count_of(line), 1);
}

static void check_sample(const char *name, const char *labels, uint64_t number)
{
    char line[256];
    snprintf(line, sizeof line, "aside_%s{cache=\"users\"%s} %" PRIu64, name, labels, number);
    check_line(line);
}

static void check_head(const char *name, const char *type, const char *help)
{
    char line[256];
    snprintf(line, sizeof line, "# TYPE aside_%s %s", name, type);
    check_line(line);
    snprintf(line, sizeof line, "# HELP aside_%s %s", name, help);
    check_line(line);
}

/* Something of everything that counts. */
static void use(aside_cache *cache)
{
    struct source source;
    source_init(&source, "v", false);
    CHECK_STATUS(ask(cache, "k", &source), ASIDE_OK);
    CHECK_STATUS(ask(cache, "k", &source), ASIDE_OK);
    CHECK_STATUS(look(cache, "k"), ASIDE_OK);
    CHECK_STATUS(look(cache, "none"), ASIDE_MISS);
    put(cache, "other", "v", 1000);
    CHECK_STATUS(aside_set(cache, ASIDE_STR("other"), "v", 1, -5), ASIDE_E_INVALID);
    CHECK_STATUS(aside_delete(cache, ASIDE_STR("other")), ASIDE_OK);
}

TEST(every_number_of_the_statistics_is_there_once)
{
    aside_cache *cache = open_named("users");
    aside_stats stats = {.struct_size = sizeof stats};
    use(cache);
    CHECK_STATUS(aside_stats_get(cache, &stats), ASIDE_OK);
    write_one(cache);
    CHECK_INT(stats.hits, 2);
#define CHECK_COUNTER(name, help)                                                                  \
    check_head(#name "_total", "counter", help);                                                   \
    check_sample(#name "_total", "", stats.name);
    ASIDE_COUNTER_MAP(CHECK_COUNTER)
#define CHECK_GAUGE(name, help)                                                                    \
    check_head(#name, "gauge", help);                                                              \
    check_sample(#name, "", stats.name);
    ASIDE_GAUGE_MAP(CHECK_GAUGE)
#define CHECK_OPERATION(verb)                                                                      \
    check_sample("operations_total", ",operation=\"" #verb "\",outcome=\"ok\"", stats.verb##_ok);  \
    check_sample("operations_total", ",operation=\"" #verb "\",outcome=\"none\"",                  \
                 stats.verb##_none);                                                               \
    check_sample("operations_total", ",operation=\"" #verb "\",outcome=\"error\"",                 \
                 stats.verb##_error);
    ASIDE_OPERATION_MAP(CHECK_OPERATION)
    check_head("operations_total", "counter", "calls by operation and outcome");
    end_cache(cache);
}

/* Samples of one family must stand together, and nothing but samples below a TYPE. */
TEST(the_samples_of_a_family_stand_together)
{
    aside_cache *caches[2] = {open_named("users"), open_named("tokens")};
    char family[128] = "", name[128];
    memset(&text, 0, sizeof text);
    use(caches[0]);
    CHECK_STATUS(aside_stats_write(caches, 2, append, &text), ASIDE_OK);
    int lines = 0;
    for (char *line = strtok(text.bytes, "\n"); line; line = strtok(NULL, "\n"), lines++) {
        if (sscanf(line, "# TYPE %127s", name) == 1)
            memcpy(family, name, sizeof family);
        else if (line[0] != '#')
            CHECK(strncmp(line, family, strlen(family)) == 0);
    }
    CHECK(lines > 200);
    end_cache(caches[0]);
    end_cache(caches[1]);
}

/* ---- how long fetches take ----------------------------------------------------------------------- */

struct slow {
    struct fake_clock *clock;
    aside_cache *cache;
    int64_t takes_ns;
    aside_status status;
};

static aside_status take_time(aside_fetch *fetch, void *arg)
{
    struct slow *slow = (struct slow *)arg;
    fake_clock_advance_ns(slow->clock, slow->takes_ns, slow->cache);
    return slow->status == ASIDE_OK ? aside_fetch_copy(fetch, "v", 1) : slow->status;
}

static void fetch_for(struct slow *slow, int64_t takes_ns, aside_status status)
{
    aside_call call = {ASIDE_CALL, .fetch = take_time, .arg = slow, .ttl_ms = ASIDE_NO_STORE};
    aside_result result = ASIDE_RESULT_INIT;
    slow->takes_ns = takes_ns;
    slow->status = status;
    CHECK_STATUS(aside_get_with_fetch(slow->cache, ASIDE_STR("k"), &call, &result), status);
    aside_value_unref(result.value);
}

TEST(fetches_are_counted_by_how_long_they_took)
{
    struct fake_clock clock;
    aside_options options = quiet_options();
    options.name = "users";
    options.max_flight_age_ms = 0;
    options.clock = fake_clock_init(&clock);
    struct slow slow = {&clock, open_cache(&options), 0, ASIDE_OK};
    fetch_for(&slow, 0, ASIDE_OK);
    fetch_for(&slow, 100000, ASIDE_OK);
    fetch_for(&slow, 100001, ASIDE_E_FETCH);
    fetch_for(&slow, 30000000000, ASIDE_OK);
    fetch_for(&slow, 30000000001, ASIDE_E_FETCH);
    write_one(slow.cache);
    check_head("fetch_duration_seconds", "histogram", "how long fetches took that ran");
    check_sample("fetch_duration_seconds_bucket", ",le=\"0.0001\"", 2);
    check_sample("fetch_duration_seconds_bucket", ",le=\"0.00025\"", 3);
    check_sample("fetch_duration_seconds_bucket", ",le=\"1.0\"", 3);
    check_sample("fetch_duration_seconds_bucket", ",le=\"5.0\"", 3);
    check_sample("fetch_duration_seconds_bucket", ",le=\"30.0\"", 4);
    check_sample("fetch_duration_seconds_bucket", ",le=\"+Inf\"", 5);
    check_sample("fetch_duration_seconds_count", "", 5);
    check_line("aside_fetch_duration_seconds_sum{cache=\"users\"} 60.000200002");
    end_cache(slow.cache);
}

TEST(a_fetch_that_never_ran_has_no_time)
{
    aside_options options = quiet_options();
    options.fetch_threads = 0;
    options.name = "users";
    aside_cache *cache = open_cache(&options);
    struct source source;
    struct caller caller;
    source_init(&source, "v", false);
    caller_ask(&caller, cache, "k", &source, NULL);
    caller.call.timeout_ms = 60000;
    CHECK_STATUS(caller_run(&caller), ASIDE_E_BUSY);
    write_one(cache);
    check_sample("fetch_duration_seconds_count", "", 0);
    check_line("aside_fetch_duration_seconds_sum{cache=\"users\"} 0.0");
    end_cache(cache);
}

/* A cache whose memory is not the process's, and whose fetch is completed by hand. */
struct shortage {
    struct ledger ledger;
    struct fake_clock clock;
    aside_cache *cache;
    aside_fetch *fetch;
};

static void shortage_begin(struct shortage *shortage)
{
    aside_options options = quiet_options();
    options.name = "users";
    options.alloc = ledger_init(&shortage->ledger);
    options.clock = fake_clock_init(&shortage->clock);
    shortage->cache = open_cache(&options);
}

/* One fetch that took a millisecond, by whoever counted it. */
static void shortage_end(struct shortage *shortage)
{
    write_one(shortage->cache);
    check_sample("fetch_duration_seconds_bucket", ",le=\"0.0005\"", 0);
    check_sample("fetch_duration_seconds_bucket", ",le=\"0.001\"", 1);
    check_sample("fetch_duration_seconds_count", "", 1);
    check_line("aside_fetch_duration_seconds_sum{cache=\"users\"} 0.001");
    end_cache(shortage->cache);
    CHECK_INT(shortage->ledger.live_blocks, 0);
}

static void *complete_while_memory_is_short(void *arg)
{
    struct shortage *shortage = (struct shortage *)arg;
    process_fail_alloc(1, true);
    fake_clock_advance_ms(&shortage->clock, 1, shortage->cache);
    CHECK_STATUS(aside_fetch_copy(shortage->fetch, "v", 1), ASIDE_OK);
    CHECK_STATUS(aside_fetch_complete(shortage->fetch, ASIDE_OK), ASIDE_OK);
    process_fail_alloc(0, false);
    aside_fetch_unref(shortage->fetch);
    return NULL;
}

static aside_status leave_to_another_thread(aside_fetch *fetch, void *arg)
{
    struct shortage *shortage = (struct shortage *)arg;
    shortage->fetch = aside_fetch_ref(fetch);
    thread_join(thread_start(complete_while_memory_is_short, shortage));
    return ASIDE_PENDING;
}

TEST(a_fetch_that_a_thread_without_a_record_completes_is_counted)
{
    static struct shortage shortage;
    struct caller caller;
    shortage_begin(&shortage);
    caller_init(&caller, shortage.cache, "k", leave_to_another_thread, &shortage);
    CHECK_STATUS(caller_run(&caller), ASIDE_OK);
    caller_drop(&caller);
    shortage_end(&shortage);
}

static aside_status take_a_millisecond(aside_fetch *fetch, void *arg)
{
    struct shortage *shortage = (struct shortage *)arg;
    fake_clock_advance_ms(&shortage->clock, 1, shortage->cache);
    return aside_fetch_copy(fetch, "v", 1);
}

/* A thread has counters for the caches that it met first and a few more. */
TEST(a_fetch_of_a_thread_without_counters_for_the_cache_is_counted)
{
    static struct shortage shortage;
    aside_cache *earlier[8];
    struct caller caller;
    for (size_t i = 0; i < COUNT_OF(earlier); i++)
        earlier[i] = open_quiet();
    CHECK_STATUS(look(earlier[0], "k"), ASIDE_MISS);
    shortage_begin(&shortage);
    process_fail_alloc(1, true);
    caller_init(&caller, shortage.cache, "k", take_a_millisecond, &shortage);
    CHECK_STATUS(caller_run(&caller), ASIDE_OK);
    process_fail_alloc(0, false);
    caller_drop(&caller);
    shortage_end(&shortage);
    for (size_t i = 0; i < COUNT_OF(earlier); i++)
        end_cache(earlier[i]);
}

/* ---- names, errors, callbacks -------------------------------------------------------------------- */

TEST(a_name_of_any_characters_is_a_label)
{
    aside_cache *cache = open_named("a\"b\\c\nd");
    write_one(cache);
    check_line("aside_hits_total{cache=\"a\\\"b\\\\c\\nd\"} 0");
    end_cache(cache);
    cache = open_named("");
    write_one(cache);
    check_line("aside_hits_total{cache=\"\"} 0");
    end_cache(cache);
}

TEST(a_name_longer_than_any_piece_is_written_whole)
{
    static char name[3001], line[3100];
    memset(name, 'n', sizeof name - 1);
    aside_cache *cache = open_named(name);
    memset(&text, 0, sizeof text);
    text.fails_at = 20; /* that is enough of it */
    text.status = ASIDE_E_SYSTEM;
    CHECK_STATUS(aside_stats_write(&cache, 1, append, &text), ASIDE_E_SYSTEM);
    snprintf(line, sizeof line, "aside_hits_total{cache=\"%s\"} 0", name);
    check_line(line);
    end_cache(cache);
}

TEST(bad_arguments_are_refused_and_nothing_is_written)
{
    aside_cache *cache = open_named("users"), *same = open_named("users"), *none = NULL;
    aside_cache *const twice[] = {cache, same}, *const hole[] = {cache, NULL};
    memset(&text, 0, sizeof text);
    CHECK_STATUS(aside_stats_write(NULL, 1, append, &text), ASIDE_E_INVALID);
    CHECK_STATUS(aside_stats_write(&none, 1, append, &text), ASIDE_E_INVALID);
    CHECK_STATUS(aside_stats_write(&cache, 1, NULL, &text), ASIDE_E_INVALID);
    CHECK_STATUS(aside_stats_write(twice, 2, append, &text), ASIDE_E_INVALID);
    CHECK_STATUS(aside_stats_write(hole, 2, append, &text), ASIDE_E_INVALID);
    CHECK_STATUS(aside_stats_write(NULL, 0, append, &text), ASIDE_OK);
    CHECK_INT(text.length, 0);
    end_cache(cache);
    end_cache(same);
}

TEST(without_memory_nothing_is_written)
{
    aside_cache *cache = open_named("users");
    memset(&text, 0, sizeof text);
    process_fail_alloc(1, true);
    aside_status status = aside_stats_write(&cache, 1, append, &text);
    process_fail_alloc(0, false);
    CHECK_STATUS(status, ASIDE_E_NOMEM);
    CHECK_INT(text.length, 0);
    end_cache(cache);
}

TEST(what_the_writer_returns_ends_the_writing)
{
    aside_cache *cache = open_named("users");
    for (size_t at = 1; at <= 3; at++) {
        memset(&text, 0, sizeof text);
        text.fails_at = at;
        text.status = at == 2 ? ASIDE_MISS : ASIDE_E_SYSTEM;
        CHECK_STATUS(aside_stats_write(&cache, 1, append, &text), text.status);
        CHECK_INT(text.pieces, at);
    }
    end_cache(cache);
}

TEST(a_closed_cache_answers)
{
    aside_cache *cache = open_named("users");
    use(cache);
    CHECK_STATUS(aside_close(cache), ASIDE_OK);
    write_one(cache);
    check_sample("hits_total", "", 2);
    check_sample("entries", "", 0);
    aside_unref(cache);
}

static aside_status call_back(void *ctx, const char *piece, size_t length)
{
    aside_cache *cache = (aside_cache *)ctx;
    (void)piece;
    (void)length;
    return aside_set(cache, ASIDE_STR("k"), "v", 1, 1000);
}

TEST(the_writer_may_call_the_cache)
{
    aside_cache *cache = open_named("users");
    CHECK_STATUS(aside_stats_write(&cache, 1, call_back, cache), ASIDE_OK);
    CHECK(STAT(cache, sets) > 1);
    end_cache(cache);
}

static aside_status end_thread(void *ctx, const char *piece, size_t length)
{
    (void)ctx;
    (void)piece;
    (void)length;
    pthread_exit(NULL);
}

static void *write_until_the_end(void *arg)
{
    aside_cache *cache = (aside_cache *)arg;
    CHECK_STATUS(aside_stats_write(&cache, 1, end_thread, NULL), ASIDE_E_SYSTEM);
    return NULL;
}

/* Under a sanitizer, or valgrind, a leak would be seen. */
TEST(a_writer_that_ends_its_thread_leaks_nothing)
{
    aside_cache *cache = open_named("users");
    thread_join(thread_start(write_until_the_end, cache));
    end_cache(cache);
}
