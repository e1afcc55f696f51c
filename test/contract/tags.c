/*
 * tags.c -- tags: whatever has one dies with it, in one step, fresh or stale, in the cache or
 * still on its way there. Whoever enters after aside_delete_tag() has returned sees nothing older
 * (W1).
 */
#include "truth.h"

#include <aside/group.h>

/* ---- what dies ----------------------------------------------------------------------------------- */

static aside_status delete_tag(struct scene *scene, const char *tag)
{
    return aside_delete_tag(scene->cache, tag, strlen(tag));
}

/* Has a value of the key fetched that has this tag. */
static void fetch_tagged(struct scene *scene, const char *key, const char *value, const char *tag)
{
    scene_says(scene, value, ASIDE_OK);
    scene->truth.tag = tag;
    (void)gets(scene, key, value);
    scene->truth.tag = NULL;
}

static void note_visit(const void *data, size_t size, void *ctx)
{
    CHECK_INT(size, 1);
    CHECK(*(const char *)data == 'v');
    *(bool *)ctx = true;
}

/* What every way of looking says of the key. */
static void check_seen(aside_cache *cache, const void *key, size_t key_len, bool there)
{
    aside_status want = there ? ASIDE_OK : ASIDE_MISS;
    aside_call call = {ASIDE_CALL, .fetch = truth_tell, .timeout_ms = ASIDE_NO_WAIT};
    aside_result result = ASIDE_RESULT_INIT;
    aside_value *value = NULL;
    char byte = '\0';
    size_t size = 7;
    bool visited = false;
    CHECK_STATUS(aside_get_with_fetch(cache, key, key_len, &call, &result), want);
    CHECK_INT(result.outcome, there ? ASIDE_OUTCOME_HIT : ASIDE_OUTCOME_NONE);
    aside_value_unref(result.value);
    CHECK_STATUS(aside_copy(cache, key, key_len, &byte, 1, &size), want);
    CHECK_INT(size, there ? 1 : 0);
    CHECK(!there || byte == 'v');
    CHECK_STATUS(aside_visit(cache, key, key_len, note_visit, &visited), want);
    CHECK(visited == there);
    CHECK_STATUS(aside_get(cache, key, key_len, &value), want);
    CHECK((value != NULL) == there);
    aside_value_unref(value);
}

/* So many keys, numbers from there on, have this tag. */
static void fetch_numbers(struct scene *scene, uint32_t first, uint32_t count, const char *tag)
{
    scene_says(scene, "v", ASIDE_OK);
    scene->truth.tag = tag;
    for (uint32_t i = first; i < first + count; i++) {
        aside_result result = ASIDE_RESULT_INIT;
        CHECK_STATUS(aside_get_with_fetch(scene->cache, &i, sizeof i, &scene->call, &result),
                     ASIDE_OK);
        CHECK_INT(result.ttl_left_ms, scene->truth.ttl_ms ? scene->truth.ttl_ms : ASIDE_FOREVER);
        aside_value_unref(result.value);
    }
    scene->truth.tag = NULL;
}

static void check_numbers(struct scene *scene, uint32_t first, uint32_t count, bool there)
{
    for (uint32_t i = first; i < first + count; i++)
        check_seen(scene->cache, &i, sizeof i, there);
}

TEST(ten_thousand_values_die_with_their_tag_and_no_other_does)
{
    struct scene scene;
    scene_init(&scene);
    scene_open(&scene);
    fetch_numbers(&scene, 0, 10000, "all");
    fetch_numbers(&scene, 10000, 100, "others");
    fetch_numbers(&scene, 10100, 100, NULL);
    check_numbers(&scene, 0, 10200, true);
    CHECK_STATUS(delete_tag(&scene, "all"), ASIDE_OK);
    CHECK_INT(aside_count(scene.cache), 10200); /* nobody has looked at any of them */
    check_numbers(&scene, 0, 10000, false);
    check_numbers(&scene, 10000, 200, true);
    CHECK_STATUS(aside_reap(scene.cache, 0, NULL), ASIDE_OK);
    CHECK_INT(aside_count(scene.cache), 200);
    scene_end(&scene);
}

/* Nobody can reach them any more; but they leave with their time. */
TEST(the_reaper_gives_the_memory_of_the_dead_back_when_their_time_is_over)
{
    struct scene scene;
    size_t reaped = 0;
    scene_init(&scene);
    scene_open(&scene);
    scene.truth.ttl_ms = 1000;
    fetch_numbers(&scene, 0, 300, "all");
    scene.truth.ttl_ms = 0;
    fetch_numbers(&scene, 10000, 100, NULL);
    CHECK_STATUS(delete_tag(&scene, "all"), ASIDE_OK);
    pass(&scene, 1000);
    CHECK_STATUS(aside_reap(scene.cache, 0, &reaped), ASIDE_OK);
    CHECK_INT(reaped, 300);
    CHECK_INT(aside_count(scene.cache), 100);
    scene_end(&scene);
}

TEST(lookups_give_the_memory_of_the_dead_back)
{
    struct scene scene;
    uint64_t bytes = 0;
    scene_init(&scene);
    scene_open(&scene);
    for (int turn = 0; turn < 4; turn++) {
        fetch_numbers(&scene, 0, 300, "all");
        CHECK_STATUS(delete_tag(&scene, "all"), ASIDE_OK);
        check_numbers(&scene, 0, 300, false);
        CHECK_INT(aside_count(scene.cache), 0);
        CHECK_STATUS(aside_reap(scene.cache, 0, NULL), ASIDE_OK);
        if (turn == 0)
            bytes = STAT(scene.cache, bytes); /* with what tables and tags need at all */
        CHECK(STAT(scene.cache, bytes) <= bytes);
        CHECK_INT(STAT(scene.cache, limbo_bytes) + STAT(scene.cache, pinned_bytes), 0);
    }
    scene_end(&scene);
}

TEST(a_value_dies_with_any_of_its_tags)
{
    static const char *const tags[] = {"one", "two", "three", ""};
    struct scene scene;
    scene_init(&scene);
    scene_open(&scene);
    for (size_t i = 0; i < COUNT_OF(tags); i++) {
        for (size_t j = 0; j < COUNT_OF(tags); j++) {
            scene_says(&scene, "v", ASIDE_OK);
            scene.truth.tag = tags[j];
            aside_call call = scene.call;
            call.nonblocking = 1;
            CHECK_STATUS(aside_delete(scene.cache, tags[j], strlen(tags[j])), ASIDE_MISS);
            CHECK_STATUS(aside_refresh(scene.cache, tags[j], strlen(tags[j]), &call), ASIDE_OK);
        }
        CHECK_STATUS(delete_tag(&scene, tags[i]), ASIDE_OK);
        for (size_t j = 0; j < COUNT_OF(tags); j++)
            check_seen(scene.cache, tags[j], strlen(tags[j]), j != i);
        CHECK_STATUS(aside_clear(scene.cache), ASIDE_OK);
    }
    scene_end(&scene);
}

static aside_status add_three(aside_fetch *fetch, void *arg)
{
    (void)arg;
    CHECK_STATUS(aside_fetch_add_tag(fetch, ASIDE_STR("a")), ASIDE_OK);
    CHECK_STATUS(aside_fetch_add_tag(fetch, ASIDE_STR("b")), ASIDE_OK);
    CHECK_STATUS(aside_fetch_add_tag(fetch, ASIDE_STR("a")), ASIDE_OK);
    CHECK_STATUS(aside_fetch_add_tag(fetch, ASIDE_STR("c")), ASIDE_OK);
    return aside_fetch_copy(fetch, "v", 1);
}

TEST(several_tags_of_one_value_each_end_it)
{
    static const char *const tags[] = {"a", "b", "c"};
    struct scene scene;
    scene_init(&scene);
    scene.call.fetch = add_three;
    scene_open(&scene);
    for (size_t i = 0; i < COUNT_OF(tags); i++) {
        CHECK_INT(gets(&scene, "k", "v").outcome, ASIDE_OUTCOME_FETCHED);
        check_seen(scene.cache, ASIDE_STR("k"), true);
        CHECK_STATUS(delete_tag(&scene, "d"), ASIDE_MISS);
        check_seen(scene.cache, ASIDE_STR("k"), true);
        CHECK_STATUS(delete_tag(&scene, tags[i]), ASIDE_OK);
        check_seen(scene.cache, ASIDE_STR("k"), false);
    }
    scene_end(&scene);
}

TEST(tags_are_told_apart_by_length_and_bytes)
{
    static char names[][4] = {"a", "b", "ab", "a\0b", "A"};
    static const size_t lengths[] = {1, 1, 2, 3, 1};
    struct scene scene;
    scene_init(&scene);
    scene_open(&scene);
    fetch_tagged(&scene, "k", "v", "a");
    for (size_t i = 1; i < COUNT_OF(lengths); i++)
        CHECK_STATUS(aside_delete_tag(scene.cache, names[i], lengths[i]), ASIDE_MISS);
    CHECK_STATUS(aside_delete_tag(scene.cache, NULL, 0), ASIDE_MISS);
    CHECK_STATUS(look(scene.cache, "k"), ASIDE_OK);
    CHECK_STATUS(aside_delete_tag(scene.cache, names[0], lengths[0]), ASIDE_OK);
    CHECK_STATUS(look(scene.cache, "k"), ASIDE_MISS);
    scene_end(&scene);
}

TEST(what_is_fetched_after_that_lives_until_the_next_time)
{
    struct scene scene;
    scene_init(&scene);
    scene_open(&scene);
    for (int turn = 0; turn < 5; turn++) {
        fetch_tagged(&scene, "k", "v", "t");
        CHECK_INT(scene.truth.fetches, turn + 1);
        check_seen(scene.cache, ASIDE_STR("k"), true);
        CHECK_STATUS(delete_tag(&scene, "t"), ASIDE_OK);
        check_seen(scene.cache, ASIDE_STR("k"), false);
    }
    scene_end(&scene);
}

TEST(a_dead_value_is_none_to_any_verb)
{
    struct scene scene;
    scene_init(&scene);
    scene.options.freshness.stale_ms = ASIDE_FOREVER;
    scene_open(&scene);
    for (int turn = 0; turn < 4; turn++) {
        fetch_tagged(&scene, "k", "v", "t");
        CHECK_STATUS(delete_tag(&scene, "t"), ASIDE_OK);
        if (turn == 0)
            CHECK_STATUS(aside_touch(scene.cache, ASIDE_STR("k"), 1000), ASIDE_MISS);
        else if (turn == 1)
            CHECK_STATUS(aside_expire(scene.cache, ASIDE_STR("k")), ASIDE_MISS);
        else if (turn == 2)
            CHECK_STATUS(aside_delete(scene.cache, ASIDE_STR("k")), ASIDE_MISS);
        else
            CHECK_STATUS(aside_add(scene.cache, ASIDE_STR("k"), "v", 1, 1000), ASIDE_OK);
        check_seen(scene.cache, ASIDE_STR("k"), turn == 3);
        CHECK_STATUS(aside_clear(scene.cache), ASIDE_OK);
    }
    scene_end(&scene);
}

TEST(a_stale_value_dies_with_its_tag_and_answers_no_more)
{
    for (int for_errors = 0; for_errors <= 1; for_errors++) {
        struct scene scene;
        scene_init(&scene);
        scene.call.freshness.stale_ms = for_errors ? 0 : 60000;
        scene.call.freshness.stale_if_error_ms = for_errors ? 60000 : 0;
        scene.call.ttl_ms = 1000;
        scene_open(&scene);
        fetch_tagged(&scene, "k", "v", "t");
        pass(&scene, 1000);
        scene_says(&scene, NULL, ASIDE_E_FETCH);
        CHECK_INT(gets(&scene, "k", "v").outcome, ASIDE_OUTCOME_STALE);
        WAIT_UNTIL(STAT(scene.cache, flights_now) == 0);
        CHECK_STATUS(delete_tag(&scene, "t"), ASIDE_OK);
        (void)asks(&scene, "k", ASIDE_E_FETCH);
        scene_end(&scene);
    }
}

TEST(a_remembered_not_found_dies_with_its_tag)
{
    struct scene scene;
    scene_init(&scene);
    scene.options.freshness.not_found_ttl_ms = 60000;
    scene_open(&scene);
    scene_says(&scene, NULL, ASIDE_NOT_FOUND);
    scene.truth.tag = "t";
    (void)asks(&scene, "k", ASIDE_NOT_FOUND);
    CHECK_INT(asks(&scene, "k", ASIDE_NOT_FOUND).outcome, ASIDE_OUTCOME_NEGATIVE);
    CHECK_STATUS(delete_tag(&scene, "t"), ASIDE_OK);
    CHECK_INT(asks(&scene, "k", ASIDE_NOT_FOUND).outcome, ASIDE_OUTCOME_FETCHED);
    CHECK_INT(asks(&scene, "k", ASIDE_NOT_FOUND).outcome, ASIDE_OUTCOME_NEGATIVE);
    CHECK_INT(scene.truth.fetches, 2);
    scene_end(&scene);
}

/* A value that is set by a plain verb has none. */
TEST(what_is_set_in_its_place_does_not_inherit_the_tag)
{
    struct scene scene;
    scene_init(&scene);
    scene_open(&scene);
    fetch_tagged(&scene, "k", "v", "t");
    put(scene.cache, "k", "v", ASIDE_FOREVER);
    (void)delete_tag(&scene, "t");
    check_seen(scene.cache, ASIDE_STR("k"), true);
    fetch_numbers(&scene, 1, 1, "t");
    CHECK_STATUS(delete_tag(&scene, "t"), ASIDE_OK);
    check_seen(scene.cache, ASIDE_STR("k"), true);
    scene_end(&scene);
}

/* ---- how a tag is given -------------------------------------------------------------------------- */

enum when { BEFORE_COPY, AFTER_COPY, AFTER_BUFFER, BEFORE_GIVE, AFTER_GIVE, WHENS };

struct giving {
    enum when when;
    struct tally tally;
};

static void give_tag(aside_fetch *fetch)
{
    CHECK_STATUS(aside_fetch_add_tag(fetch, ASIDE_STR("t")), ASIDE_OK);
}

static aside_status answer_in_every_way(aside_fetch *fetch, void *arg)
{
    struct giving *giving = (struct giving *)arg;
    bool gives = giving->when >= BEFORE_GIVE;
    aside_status status = ASIDE_OK;
    void *to = NULL;
    if (giving->when == BEFORE_COPY || giving->when == BEFORE_GIVE)
        give_tag(fetch);
    if (gives)
        status = aside_fetch_give(fetch, tally_value(&giving->tally, 1));
    else if (giving->when == AFTER_BUFFER)
        status = aside_fetch_buffer(fetch, 1, &to);
    else
        status = aside_fetch_copy(fetch, "v", 1);
    if (giving->when == AFTER_COPY || giving->when == AFTER_BUFFER || giving->when == AFTER_GIVE)
        give_tag(fetch);
    if (to != NULL)
        memcpy(to, "v", 1);
    return status;
}

TEST(a_tag_may_be_given_before_the_value_or_after_it)
{
    static struct giving giving;
    struct scene scene;
    scene_init(&scene);
    scene.call.fetch = answer_in_every_way;
    scene.call.arg = &giving;
    scene_open(&scene);
    for (int when = 0; when < WHENS; when++) {
        giving.when = (enum when)when;
        (void)asks(&scene, "k", ASIDE_OK);
        CHECK_STATUS(look(scene.cache, "k"), ASIDE_OK);
        CHECK_STATUS(delete_tag(&scene, "t"), ASIDE_OK);
        CHECK_STATUS(look(scene.cache, "k"), ASIDE_MISS);
    }
    scene_end(&scene);
    CHECK_INT(giving.tally.freed, giving.tally.made);
}

static aside_status add_too_many(aside_fetch *fetch, void *arg)
{
    static char name[ASIDE_MAX_TAG + 1];
    (void)arg;
    CHECK_STATUS(aside_fetch_add_tag(fetch, NULL, 1), ASIDE_E_INVALID);
    CHECK_STATUS(aside_fetch_add_tag(fetch, name, sizeof name), ASIDE_E_INVALID);
    CHECK_STATUS(aside_fetch_add_tag(NULL, name, 1), ASIDE_E_INVALID);
    CHECK_STATUS(aside_fetch_add_tag(fetch, name, SIZE_MAX), ASIDE_E_INVALID);
    for (int i = 0; i < ASIDE_MAX_TAGS; i++) {
        memset(name, 'a' + i, sizeof name);
        CHECK_STATUS(aside_fetch_add_tag(fetch, name, ASIDE_MAX_TAG), ASIDE_OK);
    }
    CHECK_STATUS(aside_fetch_add_tag(fetch, name, ASIDE_MAX_TAG), ASIDE_OK); /* it has that */
    CHECK_STATUS(aside_fetch_add_tag(fetch, name, 1), ASIDE_E_BUSY);
    CHECK_STATUS(aside_fetch_add_tag(fetch, NULL, 0), ASIDE_E_BUSY);
    return aside_fetch_copy(fetch, "v", 1);
}

TEST(a_value_has_32_tags_at_most_of_255_bytes_at_most)
{
    struct scene scene;
    char name[ASIDE_MAX_TAG + 1];
    scene_init(&scene);
    scene.call.fetch = add_too_many;
    scene_open(&scene);
    for (int i = 0; i < ASIDE_MAX_TAGS; i++) {
        (void)gets(&scene, "k", "v");
        check_seen(scene.cache, ASIDE_STR("k"), true);
        memset(name, 'a' + i, sizeof name);
        CHECK_STATUS(aside_delete_tag(scene.cache, name, ASIDE_MAX_TAG - 1), ASIDE_MISS);
        CHECK_STATUS(aside_delete_tag(scene.cache, name, ASIDE_MAX_TAG), ASIDE_OK);
        check_seen(scene.cache, ASIDE_STR("k"), false);
    }
    scene_end(&scene);
}

TEST(bad_arguments_are_refused_and_counted)
{
    static char name[ASIDE_MAX_TAG + 1];
    struct scene scene;
    scene_init(&scene);
    scene_open(&scene);
    fetch_tagged(&scene, "k", "v", "");
    CHECK_STATUS(aside_delete_tag(NULL, ASIDE_STR("t")), ASIDE_E_INVALID);
    CHECK_STATUS(aside_delete_tag(scene.cache, NULL, 1), ASIDE_E_INVALID);
    CHECK_STATUS(aside_delete_tag(scene.cache, name, sizeof name), ASIDE_E_INVALID);
    CHECK_STATUS(aside_delete_tag(scene.cache, name, SIZE_MAX), ASIDE_E_INVALID);
    CHECK_STATUS(aside_delete_tag(scene.cache, name, ASIDE_MAX_TAG), ASIDE_MISS);
    CHECK_STATUS(aside_delete_tag(scene.cache, NULL, 0), ASIDE_OK);
    aside_stats stats = test_stats(scene.cache);
    CHECK_INT(stats.delete_tag_ok, 1);
    CHECK_INT(stats.delete_tag_none, 1);
    CHECK_INT(stats.delete_tag_error, 3);
    scene_end(&scene);
}

static aside_status keep_fetch(aside_fetch *fetch, void *arg)
{
    *(aside_fetch **)arg = aside_fetch_ref(fetch);
    return aside_fetch_copy(fetch, "v", 1);
}

TEST(a_fetch_that_has_ended_adds_no_tag)
{
    struct scene scene;
    aside_fetch *fetch = NULL;
    scene_init(&scene);
    scene.call.fetch = keep_fetch;
    scene.call.arg = &fetch;
    scene_open(&scene);
    (void)gets(&scene, "k", "v");
    CHECK_STATUS(aside_fetch_add_tag(fetch, ASIDE_STR("t")), ASIDE_E_INVALID);
    aside_fetch_unref(fetch);
    CHECK_STATUS(delete_tag(&scene, "t"), ASIDE_MISS);
    CHECK_STATUS(look(scene.cache, "k"), ASIDE_OK);
    scene_end(&scene);
}

static aside_status add_in_a_group(aside_fetch *fetch, void *arg)
{
    (void)arg;
    CHECK_STATUS(aside_fetch_add_tag(fetch, ASIDE_STR("t")), ASIDE_E_INVALID);
    return aside_fetch_copy(fetch, "v", 1);
}

static void count_free(void *ptr, void *ctx)
{
    CHECK(*(const char *)ptr == 'v');
    ++*(int *)ctx;
}

static aside_status give_tagged(aside_fetch *fetch, void *freed)
{
    static char v = 'v';
    aside_value *value = NULL;
    CHECK_STATUS(aside_fetch_add_tag(fetch, ASIDE_STR("t")), ASIDE_OK);
    CHECK_STATUS(aside_value_wrap(&v, 1, count_free, freed, &value), ASIDE_OK);
    return aside_fetch_give(fetch, value);
}

static void check_wrapped_and_tagged(bool bounded)
{
    struct scene scene;
    int freed = 0;
    scene_init(&scene);
    if (!bounded)
        scene.options.max_bytes = scene.options.max_entries = 0;
    scene.call.fetch = give_tagged;
    scene.call.arg = &freed;
    scene_open(&scene);
    (void)gets(&scene, "k", "v");
    check_seen(scene.cache, ASIDE_STR("k"), true);
    CHECK_INT(freed, 0);
    CHECK_STATUS(delete_tag(&scene, "t"), ASIDE_OK);
    check_seen(scene.cache, ASIDE_STR("k"), false);
    CHECK_STATUS(aside_reap(scene.cache, 0, NULL), ASIDE_OK);
    CHECK_INT(freed, 1);
    scene_end(&scene);
    CHECK_INT(freed, 1);
}

TEST(a_wrapped_value_with_a_tag_is_found_by_every_verb_and_freed_once)
{
    check_wrapped_and_tagged(true);
    check_wrapped_and_tagged(false);
}

TEST(a_groups_fetch_has_no_tags)
{
    aside_group *group = NULL;
    aside_options options = quiet_options();
    aside_result result = ASIDE_RESULT_INIT;
    aside_call call = {ASIDE_CALL, .fetch = add_in_a_group};
    CHECK_STATUS(aside_group_new(&group, &options), ASIDE_OK);
    CHECK_STATUS(aside_group_do(group, ASIDE_STR("k"), &call, &result), ASIDE_OK);
    CHECK(value_is(result.value, "v"));
    aside_value_unref(result.value);
    CHECK_STATUS(aside_group_close(group), ASIDE_OK);
    aside_group_unref(group);
}

/* What is not stored has a tag as little as what was never fetched. */
TEST(the_tags_of_what_is_not_stored_go_with_the_fetch)
{
    static const aside_status answers[] = {ASIDE_NOT_FOUND, ASIDE_E_FETCH, (aside_status)-77};
    struct scene scene;
    scene_init(&scene);
    scene_open(&scene);
    scene.truth.tag = "t";
    for (size_t i = 0; i < COUNT_OF(answers); i++) {
        scene_says(&scene, NULL, answers[i]);
        (void)asks(&scene, "k", answers[i]);
        CHECK_STATUS(delete_tag(&scene, "t"), ASIDE_MISS);
    }
    scene_says(&scene, "v", ASIDE_OK);
    scene.truth.ttl_ms = ASIDE_NO_STORE;
    (void)gets(&scene, "k", "v");
    CHECK_STATUS(delete_tag(&scene, "t"), ASIDE_MISS);
    scene_end(&scene);
}

/* ---- a fetch under way --------------------------------------------------------------------------- */

static struct {
    const char *deleted; /* while the fetch is under way */
    const char *known;   /* a tag that another value has by then; NULL: none */
} const ways[] = {{"t", NULL}, {"t", "t"}, {"t", "other"}};

/* The leader and one who joined before get the old result, flagged; who came after starts another
 * fetch and gets what that brings. */
static void check_overtaken(size_t way, bool late, bool offloaded)
{
    struct scene scene;
    struct caller leader, joiner, after;
    aside_cancel *token = offloaded ? token_new() : NULL;
    scene_init(&scene);
    scene_open(&scene);
    if (ways[way].known != NULL)
        fetch_tagged(&scene, "another", "v", ways[way].known);
    int before = scene.truth.fetches;
    scene_says(&scene, "old", ASIDE_OK);
    scene.truth.tag = "t";
    scene.truth.tags_late = late;
    scene.call.cancel = token;
    scene_lead(&scene, &leader, "k");
    scene_start(&scene, &joiner, "k");
    WAIT_UNTIL(STAT(scene.cache, waiters_now) == (offloaded ? 2 : 1));
    (void)delete_tag(&scene, ways[way].deleted);
    scene_start(&scene, &after, "k");
    WAIT_UNTIL(STAT(scene.cache, waiters_now) == (offloaded ? 3 : 2) ||
               scene.truth.fetches == before + 2);
    scene_release(&scene);
    CHECK_STATUS(caller_join(&leader), ASIDE_OK);
    CHECK_STATUS(caller_join(&joiner), ASIDE_OK);
    CHECK_STATUS(caller_join(&after), ASIDE_OK);
    CHECK(value_is(leader.result.value, "old") && value_is(joiner.result.value, "old"));
    CHECK_INT(leader.result.fenced, 1);
    CHECK_INT(joiner.result.fenced, 1);
    CHECK_INT(leader.result.ttl_left_ms, 0);
    CHECK_INT(after.result.fenced, 0);
    CHECK_INT(after.result.outcome, ASIDE_OUTCOME_FETCHED);
    CHECK_INT(after.result.ttl_left_ms, ASIDE_FOREVER);
    CHECK_INT(scene.truth.fetches, before + 2);
    CHECK(holds(scene.cache, "k", "old")); /* the second fetch's; a truth says what it is told */
    CHECK(leader.result.value != after.result.value);
    WAIT_UNTIL(STAT(scene.cache, fetch_fenced) == 1);
    caller_drop(&leader);
    caller_drop(&joiner);
    caller_drop(&after);
    aside_cancel_unref(token);
    scene_end(&scene);
}

TEST(a_fetch_that_began_before_and_adds_the_tag_afterwards_stores_nothing)
{
    for (size_t way = 0; way < COUNT_OF(ways); way++) {
        check_overtaken(way, false, false);
        check_overtaken(way, true, false);
        check_overtaken(way, false, true);
        check_overtaken(way, true, true);
    }
}

TEST(alone_it_stores_nothing_either)
{
    struct scene scene;
    struct caller leader;
    scene_init(&scene);
    scene_open(&scene);
    scene_says(&scene, "old", ASIDE_OK);
    scene.truth.tag = "t";
    scene_lead(&scene, &leader, "k");
    CHECK_STATUS(delete_tag(&scene, "t"), ASIDE_MISS); /* nobody has it yet */
    scene_release(&scene);
    CHECK_STATUS(caller_join(&leader), ASIDE_OK);
    CHECK_INT(leader.result.fenced, 1);
    CHECK_INT(leader.result.ttl_left_ms, 0);
    CHECK(value_is(leader.result.value, "old"));
    caller_drop(&leader);
    CHECK_STATUS(look(scene.cache, "k"), ASIDE_MISS);
    CHECK_INT(aside_count(scene.cache), 0);
    scene_end(&scene);
}

/* The tag that it adds counts, not those that somebody has deleted. */
TEST(a_fetch_that_does_not_add_the_tag_is_stored)
{
    struct scene scene;
    struct caller leader;
    scene_init(&scene);
    scene_open(&scene);
    fetch_tagged(&scene, "another", "v", "t");
    fetch_tagged(&scene, "third", "v", "mine");
    scene_says(&scene, "v", ASIDE_OK);
    scene.truth.tag = "mine";
    scene_lead(&scene, &leader, "k");
    CHECK_STATUS(delete_tag(&scene, "t"), ASIDE_OK);
    scene_release(&scene);
    CHECK_STATUS(caller_join(&leader), ASIDE_OK);
    CHECK_INT(leader.result.fenced, 0);
    caller_drop(&leader);
    CHECK(holds(scene.cache, "k", "v"));
    scene_end(&scene);
}

/* It was deleted after the tag was added, too. */
static aside_status delete_what_it_adds(aside_fetch *fetch, void *arg)
{
    struct scene *scene = (struct scene *)arg;
    atomic_fetch_add(&scene->truth.fetches, 1);
    CHECK_STATUS(aside_fetch_add_tag(fetch, ASIDE_STR("t")), ASIDE_OK);
    if (scene->truth.fetches == 1)
        CHECK_STATUS(delete_tag(scene, "t"), ASIDE_OK); /* the fetch has it */
    return aside_fetch_copy(fetch, "v", 1);
}

TEST(a_fetch_may_delete_its_own_tag_and_stores_nothing_then)
{
    struct scene scene;
    scene_init(&scene);
    scene.call.fetch = delete_what_it_adds;
    scene.call.arg = &scene;
    scene_open(&scene);
    CHECK_INT(gets(&scene, "k", "v").fenced, 1);
    CHECK_STATUS(look(scene.cache, "k"), ASIDE_MISS);
    CHECK_INT(gets(&scene, "k", "v").fenced, 0);
    CHECK_STATUS(look(scene.cache, "k"), ASIDE_OK);
    scene_end(&scene);
}

/* A refresh of a fresh value is overtaken; so nothing is there after it. */
TEST(a_background_refresh_that_began_before_stores_nothing)
{
    for (int tagged = 0; tagged <= 1; tagged++) {
        struct scene scene;
        scene_init(&scene);
        scene_open(&scene);
        fetch_tagged(&scene, "k", "v", tagged ? "t" : NULL);
        scene_says(&scene, "old", ASIDE_OK);
        scene.truth.tag = "t";
        scene.truth.gated = true;
        CHECK_STATUS(aside_refresh(scene.cache, ASIDE_STR("k"), &scene.call), ASIDE_OK);
        gate_wait_arrived(&scene.truth.gate, 1);
        CHECK_STATUS(delete_tag(&scene, "t"), tagged ? ASIDE_OK : ASIDE_MISS);
        scene_release(&scene);
        WAIT_UNTIL(STAT(scene.cache, flights_now) == 0);
        CHECK_STATUS(look(scene.cache, "k"), tagged ? ASIDE_MISS : ASIDE_OK);
        CHECK(holds(scene.cache, "k", "v") == !tagged); /* it had no tag and is as it was */
        CHECK_INT(STAT(scene.cache, fetch_fenced), 1);
        scene_end(&scene);
    }
}

/* Nor is it remembered that there is no such thing, nor that the source failed. */
TEST(answers_that_are_no_value_are_overtaken_as_well)
{
    static const aside_status answers[] = {ASIDE_NOT_FOUND, ASIDE_E_FETCH};
    for (size_t i = 0; i < COUNT_OF(answers); i++) {
        struct scene scene;
        struct caller leader;
        scene_init(&scene);
        scene.options.freshness.not_found_ttl_ms = scene.options.freshness.backoff_ms = 60000;
        scene_open(&scene);
        scene_says(&scene, NULL, answers[i]);
        scene.truth.tag = "t";
        scene_lead(&scene, &leader, "k");
        CHECK_STATUS(delete_tag(&scene, "t"), ASIDE_MISS);
        scene_release(&scene);
        CHECK_STATUS(caller_join(&leader), answers[i]);
        CHECK_INT(leader.result.fenced, 1);
        CHECK_INT(asks(&scene, "k", answers[i]).outcome, ASIDE_OUTCOME_FETCHED);
        scene_end(&scene);
    }
}

/* He has waited for the old fetch in vain, and his deadline has not moved. */
TEST(who_has_to_start_another_fetch_keeps_his_deadline)
{
    struct scene scene;
    struct caller leader, after;
    struct source second;
    scene_init(&scene);
    scene_open(&scene);
    scene_says(&scene, "old", ASIDE_OK);
    scene.truth.tag = "t";
    source_init(&second, "new", true);
    scene_lead(&scene, &leader, "k");
    CHECK_STATUS(delete_tag(&scene, "t"), ASIDE_MISS);
    caller_init(&after, scene.cache, "k", source_fetch, &second);
    after.call.timeout_ms = 1000;
    caller_start(&after);
    WAIT_UNTIL(STAT(scene.cache, waiters_now) == 1);
    pass(&scene, 600);
    scene_release(&scene);
    CHECK_STATUS(caller_join(&leader), ASIDE_OK);
    gate_wait_arrived(&second.gate, 1);
    WAIT_UNTIL(STAT(scene.cache, waiters_now) == 1);
    pass(&scene, 399);
    CHECK(!after.done);
    pass(&scene, 1);
    WAIT_UNTIL(after.done);
    CHECK_STATUS(caller_join(&after), ASIDE_E_TIMEOUT);
    gate_open(&second.gate);
    caller_drop(&leader);
    WAIT_UNTIL(STAT(scene.cache, flights_now) == 0);
    scene_end(&scene);
}

TEST(a_lookup_that_has_to_begin_anew_is_counted_once)
{
    struct scene scene;
    struct caller leader, after;
    scene_init(&scene);
    scene_open(&scene);
    scene_says(&scene, "old", ASIDE_OK);
    scene.truth.tag = "t";
    scene_lead(&scene, &leader, "k");
    CHECK_STATUS(delete_tag(&scene, "t"), ASIDE_MISS);
    scene_start(&scene, &after, "k");
    WAIT_UNTIL(STAT(scene.cache, waiters_now) == 1);
    scene_release(&scene);
    CHECK_STATUS(caller_join(&leader), ASIDE_OK);
    CHECK_STATUS(caller_join(&after), ASIDE_OK);
    caller_drop(&leader);
    caller_drop(&after);
    aside_stats stats = test_stats(scene.cache);
    CHECK_INT(stats.misses_led + stats.misses_joined, 2);
    CHECK_INT(stats.hits + stats.refused, 0);
    CHECK_INT(stats.get_with_fetch_ok, 2);
    CHECK_INT(stats.get_with_fetch_none + stats.get_with_fetch_error, 0);
    CHECK_INT(stats.fetches, 2);
    scene_end(&scene);
}

/* ---- the version oracle -------------------------------------------------------------------------- */

enum { OFFLOADED = 1, STALE = 2, REFRESHED = 4, CONDITIONAL = 8, LATE = 16, PLAIN = 32 };

/* The source counts up; `settled` is the version whose invalidation has returned. */
struct oracle {
    aside_cache *cache;
    _Atomic uint64_t version, settled;
    _Atomic bool done;
    int mode;
    aside_cancel *token;
};

static uint64_t version_of(const aside_value *value)
{
    uint64_t version;
    CHECK_INT(aside_value_size(value), sizeof version);
    memcpy(&version, aside_value_data(value), sizeof version);
    return version;
}

static aside_status fetch_version(aside_fetch *fetch, void *arg)
{
    struct oracle *oracle = (struct oracle *)arg;
    uint64_t version = atomic_load(&oracle->version);
    const aside_value *previous = aside_fetch_previous(fetch);
    if (test_random() % 8 == 0)
        test_yield(); /* the version that was read grows old here */
    if (oracle->mode & CONDITIONAL && previous != NULL && version_of(previous) == version) {
        if (test_random() % 2)
            CHECK_STATUS(aside_fetch_add_tag(fetch, ASIDE_STR("t")), ASIDE_OK);
        return aside_fetch_not_modified(fetch);
    }
    if (!(oracle->mode & LATE))
        CHECK_STATUS(aside_fetch_add_tag(fetch, ASIDE_STR("t")), ASIDE_OK);
    aside_status status = aside_fetch_copy(fetch, &version, sizeof version);
    if (oracle->mode & LATE)
        CHECK_STATUS(aside_fetch_add_tag(fetch, ASIDE_STR("t")), ASIDE_OK);
    return status;
}

static aside_call oracle_call(struct oracle *oracle)
{
    aside_call call = {ASIDE_CALL, .fetch = fetch_version, .arg = oracle};
    call.cancel = oracle->token;
    call.ttl_ms = oracle->mode & STALE ? 1 : 60000;
    call.freshness.stale_ms = oracle->mode & STALE ? 60000 : 0;
    return call;
}

static void *delete_versions(void *arg)
{
    struct oracle *oracle = (struct oracle *)arg;
    for (long i = 0; i < test_rounds(1500); i++) {
        uint64_t version = atomic_fetch_add(&oracle->version, 1) + 1;
        (void)aside_delete_tag(oracle->cache, ASIDE_STR("t"));
        atomic_store(&oracle->settled, version);
        if (i % 4 == 0)
            test_yield();
    }
    atomic_store(&oracle->done, true);
    return NULL;
}

static void check_version(struct oracle *oracle, const aside_value *value, uint64_t floor)
{
    uint64_t found = version_of(value);
    CHECK(found >= floor);
    CHECK(found <= atomic_load(&oracle->version));
}

static void *read_versions(void *arg)
{
    struct oracle *oracle = (struct oracle *)arg;
    aside_call call = oracle_call(oracle);
    while (!atomic_load(&oracle->done)) {
        uint64_t floor = atomic_load(&oracle->settled);
        aside_result result = ASIDE_RESULT_INIT;
        CHECK_STATUS(aside_get_with_fetch(oracle->cache, ASIDE_STR("k"), &call, &result), ASIDE_OK);
        check_version(oracle, result.value, floor);
        aside_value_unref(result.value);
        floor = atomic_load(&oracle->settled);
        aside_value *value = NULL;
        if (aside_get(oracle->cache, ASIDE_STR("k"), &value) == ASIDE_OK)
            check_version(oracle, value, floor);
        aside_value_unref(value);
    }
    return NULL;
}

static void *refresh_versions(void *arg)
{
    struct oracle *oracle = (struct oracle *)arg;
    aside_call call = oracle_call(oracle);
    call.cancel = NULL;
    while (!atomic_load(&oracle->done)) {
        CHECK_STATUS(aside_refresh(oracle->cache, ASIDE_STR("k"), &call), ASIDE_OK);
        test_yield();
    }
    return NULL;
}

static void check_versions(int mode)
{
    struct oracle oracle;
    memset((void *)&oracle, 0, sizeof oracle);
    oracle.cache = open_quiet();
    oracle.mode = mode;
    oracle.token = mode & OFFLOADED ? token_new() : NULL;
    pthread_t readers[3];
    perturb(test_random() | 1);
    for (int i = 0; i < 3; i++)
        readers[i] =
            thread_start(i == 2 && mode & REFRESHED ? refresh_versions : read_versions, &oracle);
    thread_join(thread_start(delete_versions, &oracle));
    for (int i = 0; i < 3; i++)
        thread_join(readers[i]);
    perturb(0);
    aside_cancel_unref(oracle.token);
    end_cache(oracle.cache);
    wait_for_no_threads();
}

TEST(nobody_sees_a_version_older_than_one_whose_tag_was_deleted)
{
    check_versions(0);
    check_versions(LATE);
    check_versions(OFFLOADED);
}

TEST(nobody_sees_an_older_version_stale)
{
    check_versions(STALE);
    check_versions(STALE | LATE);
}

TEST(nobody_sees_an_older_version_refreshed)
{
    check_versions(REFRESHED);
    check_versions(REFRESHED | STALE);
}

TEST(nobody_sees_an_older_version_renewed)
{
    check_versions(CONDITIONAL | REFRESHED);
    check_versions(CONDITIONAL | REFRESHED | STALE);
    check_versions(CONDITIONAL | OFFLOADED | STALE);
}

/* Many threads, many tags: who adds and who deletes meet in every way. */
static void *mix(void *arg)
{
    struct scene *scene = (struct scene *)arg;
    struct truth truth;
    for (long i = 0; i < test_rounds(3000); i++) {
        char key[16], tag[16];
        snprintf(key, sizeof key, "%d", (int)(test_random() % 20));
        snprintf(tag, sizeof tag, "%d", (int)(test_random() % 5));
        if (test_random() % 4 == 0) {
            (void)aside_delete_tag(scene->cache, tag, strlen(tag));
            continue;
        }
        memset((void *)&truth, 0, sizeof truth);
        truth.value = test_random() % 4 ? "v" : NULL;
        truth.says = ASIDE_NOT_FOUND;
        truth.tag = tag;
        aside_call call = {ASIDE_CALL, .fetch = truth_tell, .arg = &truth};
        aside_result result = ASIDE_RESULT_INIT;
        CHECK(aside_get_with_fetch(scene->cache, key, strlen(key), &call, &result) >= 0);
        aside_value_unref(result.value);
        if (i % 64 == 0)
            (void)aside_reap(scene->cache, 8, NULL);
    }
    return NULL;
}

TEST(tags_that_come_and_go_leave_nothing_behind)
{
    struct scene scene;
    pthread_t threads[4];
    scene_init(&scene);
    scene.options.max_bytes = 65536;
    scene.options.freshness.not_found_ttl_ms = 60000;
    scene_open(&scene);
    perturb(test_random() | 1);
    for (size_t i = 0; i < COUNT_OF(threads); i++)
        threads[i] = thread_start(mix, &scene);
    for (size_t i = 0; i < COUNT_OF(threads); i++)
        thread_join(threads[i]);
    perturb(0);
    CHECK_STATUS(aside_clear(scene.cache), ASIDE_OK);
    CHECK_STATUS(aside_reap(scene.cache, 0, NULL), ASIDE_OK);
    for (int i = 0; i < 5; i++) {
        char tag[16];
        snprintf(tag, sizeof tag, "%d", i);
        CHECK_STATUS(delete_tag(&scene, tag), ASIDE_MISS);
    }
    scene_end(&scene);
}

/* ---- bounds -------------------------------------------------------------------------------------- */

static aside_status tag_by_number(aside_fetch *fetch, void *arg)
{
    char name[200];
    int number = *(const int *)arg;
    memset(name, 'x', sizeof name);
    for (int i = 0; i < 8; i++) {
        snprintf(name, 32, "%d of %d", i, number);
        CHECK_STATUS(aside_fetch_add_tag(fetch, name, sizeof name), ASIDE_OK);
    }
    return aside_fetch_copy(fetch, "v", 1);
}

TEST(a_full_cache_makes_room_for_tags)
{
    static char filling[500];
    struct scene scene;
    int number = 0;
    scene_init(&scene);
    scene.options.max_bytes = (size_t)1 << 20;
    scene.call.fetch = tag_by_number;
    scene.call.arg = &number;
    scene_open(&scene);
    for (uint32_t i = 0; i < 4000; i++)
        CHECK_STATUS(aside_set(scene.cache, &i, sizeof i, filling, sizeof filling, ASIDE_FOREVER),
                     ASIDE_OK);
    CHECK(STAT(scene.cache, evicted) > 0);
    for (number = 0; number < 3000; number++) {
        char key[16];
        snprintf(key, sizeof key, "%d", number);
        (void)gets(&scene, key, "v");
        CHECK(STAT(scene.cache, bytes) <= (uint64_t)1 << 20);
    }
    CHECK_INT(STAT(scene.cache, store_refused), 0);
    scene_end(&scene);
}

static aside_status tag_if_it_can(aside_fetch *fetch, void *arg)
{
    char name[ASIDE_MAX_TAG];
    (void)arg;
    memset(name, 'x', sizeof name);
    for (int i = 0; i < ASIDE_MAX_TAGS; i++) {
        name[0] = (char)('a' + i);
        aside_status status = aside_fetch_add_tag(fetch, name, sizeof name);
        CHECK(status == ASIDE_OK || status == ASIDE_E_BUSY);
    }
    return aside_fetch_copy(fetch, "v", 1);
}

/* So small that not all tags fit: the value reaches its caller all the same (F10). */
TEST(a_cache_without_room_for_a_tag_says_so)
{
    for (size_t max_bytes = 1024; max_bytes <= 65536; max_bytes *= 2) {
        struct scene scene;
        aside_result result = ASIDE_RESULT_INIT;
        scene_init(&scene);
        scene.options.max_bytes = max_bytes;
        scene.call.fetch = tag_if_it_can;
        scene_open(&scene);
        aside_status status =
            aside_get_with_fetch(scene.cache, ASIDE_STR("k"), &scene.call, &result);
        CHECK(status == ASIDE_OK || status == ASIDE_E_BUSY);
        CHECK(status == ASIDE_E_BUSY || value_is(result.value, "v"));
        CHECK(STAT(scene.cache, bytes) <= max_bytes);
        aside_value_unref(result.value);
        scene_end(&scene);
    }
}

/* ---- its end ------------------------------------------------------------------------------------- */

TEST(a_closed_cache_deletes_no_tags)
{
    struct scene scene;
    scene_init(&scene);
    scene_open(&scene);
    fetch_tagged(&scene, "k", "v", "t");
    CHECK_STATUS(aside_close(scene.cache), ASIDE_OK);
    CHECK_STATUS(delete_tag(&scene, "t"), ASIDE_E_CLOSED);
    CHECK_STATUS(delete_tag(&scene, "u"), ASIDE_E_CLOSED);
    scene_end(&scene);
}

/* The tags are the cache's: whoever keeps a value keeps no tag. */
TEST(handles_outlive_the_cache_and_its_tags)
{
    struct scene scene;
    aside_value *handles[20];
    scene_init(&scene);
    scene_open(&scene);
    for (uint32_t i = 0; i < COUNT_OF(handles); i++) {
        fetch_numbers(&scene, i, 1, i % 2 ? "odd" : "even");
        CHECK_STATUS(aside_get(scene.cache, &i, sizeof i, &handles[i]), ASIDE_OK);
    }
    CHECK_STATUS(delete_tag(&scene, "odd"), ASIDE_OK);
    for (uint32_t i = 1; i < COUNT_OF(handles); i += 2)
        check_numbers(&scene, i, 1, false);
    CHECK_STATUS(aside_reap(scene.cache, 0, NULL), ASIDE_OK);
    CHECK_STATUS(delete_tag(&scene, "odd"), ASIDE_MISS); /* only handles keep what had it */
    end_cache(scene.cache);
    for (size_t i = 0; i < COUNT_OF(handles); i++) {
        CHECK(value_is(handles[i], "v"));
        aside_value_unref(handles[i]);
    }
    CHECK_INT(scene.ledger.live_blocks, 0);
}

/* The fetch ends after the cache was closed, without having been waited for. */
TEST(a_fetch_that_outlives_its_cache_may_add_tags)
{
    struct scene scene;
    struct caller caller;
    aside_cancel *token = token_new();
    scene_init(&scene);
    scene.options.close_wait_ms = 0;
    scene.call.cancel = token;
    scene_open(&scene);
    scene_says(&scene, "v", ASIDE_OK);
    scene.truth.tag = "t";
    scene_lead(&scene, &caller, "k");
    end_cache(scene.cache);
    CHECK_STATUS(caller_join(&caller), ASIDE_E_CLOSED);
    scene_release(&scene);
    WAIT_UNTIL(scene.ledger.live_blocks == 0);
    wait_for_no_threads();
    aside_cancel_unref(token);
}

static void count_removals(void *ctx, const void *key, size_t key_len, aside_value *value,
                           aside_cause cause)
{
    (void)key;
    (void)key_len;
    CHECK(value_is(value, "v"));
    CHECK(cause >= ASIDE_CAUSE_EXPIRED && cause <= ASIDE_CAUSE_CLOSED);
    atomic_fetch_add((_Atomic int *)ctx, 1);
}

/* Each once, by whoever makes it leave: not by who deleted the tag. */
TEST(the_listener_hears_of_the_dead_when_they_go)
{
    struct scene scene;
    _Atomic int told = 0;
    scene_init(&scene);
    scene.options.on_remove.fn = count_removals;
    scene.options.on_remove.ctx = (void *)&told;
    scene_open(&scene);
    fetch_numbers(&scene, 0, 10, "t");
    CHECK_STATUS(delete_tag(&scene, "t"), ASIDE_OK);
    CHECK_INT(told, 0);
    fetch_numbers(&scene, 0, 10, "t"); /* dead, then replaced */
    CHECK_INT(told, 10);
    CHECK_STATUS(delete_tag(&scene, "t"), ASIDE_OK);
    fetch_numbers(&scene, 0, 10, "t");
    CHECK_INT(told, 20);
    CHECK_STATUS(delete_tag(&scene, "t"), ASIDE_OK);
    check_numbers(&scene, 0, 10, false); /* a lookup takes it away if it likes */
    CHECK(told <= 30);
    scene_end(&scene);
    CHECK_INT(told, 30);
}

/* ---- memory that fails --------------------------------------------------------------------------- */

static aside_status tag_or_fail(aside_fetch *fetch, void *arg)
{
    const struct truth *truth = (const struct truth *)arg;
    static const char *const tags[] = {"a", "b", "c", "d"};
    aside_status status = ASIDE_OK;
    if (truth->tags_late && truth->value != NULL)
        status = truth_value(fetch, truth);
    for (size_t i = 0; i < COUNT_OF(tags) && status == ASIDE_OK; i++)
        status = aside_fetch_add_tag(fetch, tags[i], 1);
    if (status != ASIDE_OK || (truth->tags_late && truth->value != NULL))
        return status;
    return truth_value(fetch, truth);
}

static void check_short(aside_status status)
{
    CHECK(status == ASIDE_OK || status == ASIDE_NOT_FOUND || status == ASIDE_E_NOMEM ||
          status == ASIDE_E_BUSY || status == ASIDE_E_INVALID);
}

/* One value in one way, its tag, and that it is gone then. */
static void tag_and_delete(struct scene *scene, const char *value, aside_status says, bool late)
{
    aside_result result = ASIDE_RESULT_INIT;
    aside_call call = scene->call;
    scene_says(scene, value, says);
    scene->truth.tags_late = late;
    check_short(aside_get_with_fetch(scene->cache, ASIDE_STR("k"), &call, &result));
    aside_value_unref(result.value);
    bool stored = look(scene->cache, "k") == ASIDE_OK;
    scene_says(scene, NULL, ASIDE_NOT_MODIFIED);
    scene->truth.tags_late = false;
    call.nonblocking = 1;
    check_short(aside_refresh(scene->cache, ASIDE_STR("k"), &call));
    aside_status deleted = delete_tag(scene, "c");
    CHECK(deleted == ASIDE_OK || deleted == ASIDE_MISS);
    CHECK(!stored || deleted == ASIDE_OK);
    CHECK_STATUS(look(scene->cache, "k"), ASIDE_MISS);
}

static int64_t run_short(int64_t nth, bool for_ever)
{
    struct scene scene;
    scene_init(&scene);
    scene.options.freshness.not_found_ttl_ms = 60000;
    scene.call.fetch = tag_or_fail;
    scene_open(&scene);
    scene.ledger.calls = 0;
    scene.ledger.fail_for_ever = for_ever;
    scene.ledger.fail_at = nth;
    tag_and_delete(&scene, "v", ASIDE_OK, false);
    tag_and_delete(&scene, "v", ASIDE_OK, true);
    tag_and_delete(&scene, NULL, ASIDE_NOT_FOUND, false);
    int64_t calls = scene.ledger.calls;
    if (nth % 2 == 0) { /* else it is closed while the shortage lasts */
        scene.ledger.fail_at = 0;
        scene.ledger.fail_for_ever = false;
        (void)aside_delete(scene.cache, ASIDE_STR("k"));
        scene_says(&scene, "v", ASIDE_OK);
        (void)gets(&scene, "k", "v");
        check_seen(scene.cache, ASIDE_STR("k"), true);
        CHECK_STATUS(delete_tag(&scene, "d"), ASIDE_OK);
        check_seen(scene.cache, ASIDE_STR("k"), false);
    }
    scene_end(&scene);
    return calls;
}

TEST(every_allocation_may_fail_and_no_tag_fails_to_end_what_has_it)
{
    for (int for_ever = 0; for_ever <= 1; for_ever++) {
        int64_t nth = 1;
        while (run_short(nth, for_ever) >= nth)
            nth++;
        CHECK(nth > 10);
    }
}

/* Without room for the floors one floor stands for all: more is fenced than had to be, never
 * less. */
TEST(without_memory_a_tag_that_nobody_has_fences_all_the_same)
{
    struct scene scene;
    struct caller leader;
    scene_init(&scene);
    scene_open(&scene);
    scene_says(&scene, "old", ASIDE_OK);
    scene.truth.tag = "t";
    scene_lead(&scene, &leader, "k");
    scene.ledger.fail_for_ever = true;
    scene.ledger.fail_at = 1;
    CHECK_STATUS(delete_tag(&scene, "t"), ASIDE_MISS);
    scene.ledger.fail_at = 0;
    scene.ledger.fail_for_ever = false;
    scene_release(&scene);
    CHECK_STATUS(caller_join(&leader), ASIDE_OK);
    CHECK_INT(leader.result.fenced, 1);
    caller_drop(&leader);
    CHECK_STATUS(look(scene.cache, "k"), ASIDE_MISS);
    scene_end(&scene);
}
