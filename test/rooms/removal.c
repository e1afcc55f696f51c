/*
 * removal.c -- store/removal: what was noted is told in order, once, with a reference that keeps it;
 * what a listener makes leave is told after it by the same thread, be there a record for it or not.
 */
#include "rooms.h"

#include "base/thread.h"
#include "cache/cache.h"
#include "store/removal.h"

#define MOST 16

static struct ground ground;

/* A listener that writes down "key=value cause; ", and then does something. */
struct scene {
    aside_on_remove listener;
    struct scene *other;
    struct link_list more; /* that leaves while it runs */
    void (*also)(struct scene *scene);
    struct entry *entries[MOST];
    aside_value *kept;
    aside_cache *cache;
    int count, depth, deepest;
    char told[400];
};

static void hear(void *ctx, const void *key, size_t key_len, aside_value *value, aside_cause cause)
{
    struct scene *scene = ctx;
    size_t used = strlen(scene->told);
    int state = -1;
    CHECK_INT(pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &state), 0);
    CHECK_INT(state, PTHREAD_CANCEL_DISABLE);
    snprintf(scene->told + used, sizeof scene->told - used, "%.*s=%.*s %s; ", (int)key_len,
             (const char *)key, (int)aside_value_size(value), (const char *)aside_value_data(value),
             aside_cause_name(cause));
    scene->count++;
    scene->depth++;
    scene->deepest = scene->depth > scene->deepest ? scene->depth : scene->deepest;
    scene->kept = value;
    if (scene->also)
        scene->also(scene);
    scene->depth--;
}

static void scene_init(struct scene *scene, void (*also)(struct scene *))
{
    memset(scene, 0, sizeof *scene);
    scene->listener = (aside_on_remove){hear, scene};
    scene->also = also;
}

static struct entry *make(const char *key, const char *text)
{
    struct entry *entry = entry_new(ground.home, key, strlen(key), strlen(text));
    CHECK(entry != NULL);
    memcpy(entry->bytes + entry_value_offset(entry), text, strlen(text));
    return entry;
}

/* As one that has just left the index: nobody else has it. Its links say what they said before. */
static struct entry *note_new(struct link_list *removals, const char *key, aside_cause cause)
{
    struct entry *entry = make(key, "v");
    memset(&entry_cold(entry)->queue, 0x5a, sizeof entry_cold(entry)->queue);
    entry->print = UINT32_MAX;
    removal_note(removals, entry, cause);
    CHECK_INT(entry->head.refs, 2);
    return entry;
}

static void note_and_drop(struct link_list *removals, const char *key, aside_cause cause)
{
    entry_drop(note_new(removals, key, cause));
}

static void check_empty(const struct link_list *removals)
{
    CHECK(removals->first == NULL && removals->last == NULL);
}

/* ---- one list ------------------------------------------------------------------------------------ */

TEST(what_was_noted_is_told_in_that_order_and_the_reference_given_back)
{
    static const char keys[] = "abcdefgh";
    for (int count = 0; count <= 6; count++) {
        struct scene scene;
        struct link_list removals = {NULL, NULL, 0};
        char expected[200] = "";
        ground_init(&ground, 0, 1);
        scene_init(&scene, NULL);
        for (int i = 0; i < count; i++) {
            char key[2] = {keys[i], '\0'};
            size_t used = strlen(expected);
            scene.entries[i] = note_new(&removals, key, (aside_cause)(i + 1));
            snprintf(expected + used, sizeof expected - used, "%s=v %s; ", key,
                     aside_cause_name((aside_cause)(i + 1)));
        }
        removal_tell(&scene.listener, &removals);
        CHECK(strcmp(scene.told, expected) == 0);
        check_empty(&removals);
        removal_tell(&scene.listener, &removals); /* there is no more */
        CHECK_INT(scene.count, count);
        for (int i = 0; i < count; i++) {
            CHECK_INT(scene.entries[i]->head.refs, 1);
            entry_drop(scene.entries[i]);
        }
        ground_fini(&ground);
    }
}

TEST(a_list_that_was_told_can_be_used_again)
{
    struct scene scene;
    struct link_list removals = {NULL, NULL, 0};
    ground_init(&ground, 0, 1);
    scene_init(&scene, NULL);
    for (int i = 0; i < 3; i++) {
        note_and_drop(&removals, "a", ASIDE_CAUSE_EVICTED);
        note_and_drop(&removals, "b", ASIDE_CAUSE_CLEARED);
        removal_tell(&scene.listener, &removals);
        CHECK(strcmp(scene.told, "a=v evicted; b=v cleared; ") == 0);
        scene.told[0] = '\0';
    }
    ground_fini(&ground);
}

/* The index has given its own back in the meantime. */
static void see_it_alive(struct scene *scene)
{
    CHECK(scene->kept->refs >= 1);
    CHECK(ground.ledger.live_blocks > 0);
}

TEST(nobody_frees_what_is_told_before_it_was_told)
{
    struct scene scene;
    struct link_list removals = {NULL, NULL, 0};
    ground_init(&ground, 0, 1);
    int64_t blocks = ground.ledger.live_blocks;
    scene_init(&scene, see_it_alive);
    note_and_drop(&removals, "k", ASIDE_CAUSE_DELETED);
    CHECK_INT(ground.ledger.live_blocks, blocks + 1);
    removal_tell(&scene.listener, &removals);
    CHECK_INT(scene.count, 1);
    CHECK_INT(ground.ledger.live_blocks, blocks);
    ground_fini(&ground);
}

static void keep_it(struct scene *scene)
{
    CHECK(aside_value_ref(scene->kept) == scene->kept);
}

TEST(a_listener_may_keep_the_value)
{
    struct scene scene;
    struct link_list removals = {NULL, NULL, 0};
    ground_init(&ground, 0, 1);
    scene_init(&scene, keep_it);
    struct entry *entry = note_new(&removals, "k", ASIDE_CAUSE_DELETED);
    removal_tell(&scene.listener, &removals);
    CHECK(scene.kept == &entry->head);
    CHECK_INT(entry->head.refs, 2);
    entry_drop(entry);
    CHECK(value_is(scene.kept, "v"));
    aside_value_unref(scene.kept);
    ground_fini(&ground);
}

TEST(a_wrapped_value_is_told_itself)
{
    static struct tally tally;
    struct scene scene;
    struct link_list removals = {NULL, NULL, 0};
    ground_init(&ground, 0, 1);
    scene_init(&scene, keep_it);
    aside_value *value = NULL;
    CHECK_STATUS(aside_value_wrap(&tally.slot[0], 0, tally_free, &tally, &value), ASIDE_OK);
    struct entry *entry = entry_new_wrapping(ground.home, "key", 3, value);
    aside_value_unref(value);
    removal_note(&removals, entry, ASIDE_CAUSE_REPLACED);
    entry_drop(entry);
    removal_tell(&scene.listener, &removals);
    CHECK(scene.kept == value);
    CHECK(aside_value_data(scene.kept) == &tally.slot[0]);
    CHECK(strcmp(scene.told, "key= replaced; ") == 0);
    CHECK_INT(tally.freed, 0);
    ground_fini(&ground); /* the entry is gone */
    aside_value_unref(scene.kept);
    CHECK_INT(tally.freed, 1);
}

/* ---- lists inside lists -------------------------------------------------------------------------- */

/* Two more leave with the first call, and one with the second. */
static void make_more_leave(struct scene *scene)
{
    struct link_list more = {NULL, NULL, 0};
    int before = scene->count;
    if (before > 2)
        return;
    note_and_drop(&more, before == 1 ? "x" : "z", ASIDE_CAUSE_EVICTED);
    if (before == 1)
        note_and_drop(&more, "y", ASIDE_CAUSE_EXPIRED);
    removal_tell(&scene->listener, &more);
    CHECK_INT(scene->count, before); /* later */
}

TEST(what_a_listener_makes_leave_is_told_after_it_has_returned)
{
    struct scene scene;
    struct link_list removals = {NULL, NULL, 0};
    ground_init(&ground, 0, 1);
    scene_init(&scene, make_more_leave);
    note_and_drop(&removals, "a", ASIDE_CAUSE_DELETED);
    note_and_drop(&removals, "b", ASIDE_CAUSE_DELETED);
    removal_tell(&scene.listener, &removals);
    CHECK(strcmp(scene.told, "a=v deleted; b=v deleted; x=v evicted; y=v expired; z=v evicted; ") ==
          0);
    CHECK_INT(scene.deepest, 1);
    check_empty(&removals);
    ground_fini(&ground);
}

TEST(what_the_last_call_makes_leave_is_told_as_well)
{
    struct scene scene;
    struct link_list removals = {NULL, NULL, 0};
    ground_init(&ground, 0, 1);
    scene_init(&scene, make_more_leave);
    note_and_drop(&removals, "a", ASIDE_CAUSE_DELETED);
    removal_tell(&scene.listener, &removals);
    CHECK(strcmp(scene.told, "a=v deleted; x=v evicted; y=v expired; z=v evicted; ") == 0);
    CHECK_INT(scene.deepest, 1);
    ground_fini(&ground);
}

/* The other listener is called inside, and what it makes leave of the first one later. */
static void tell_the_other(struct scene *scene)
{
    struct link_list theirs = {NULL, NULL, 0};
    if (scene->other->count == 4)
        return;
    int before = scene->other->count;
    bool outermost = scene->other->depth == 0;
    note_and_drop(&theirs, "k", ASIDE_CAUSE_REPLACED);
    removal_tell(&scene->other->listener, &theirs);
    CHECK((scene->other->count > before) == outermost);
}

TEST(another_listener_is_called_inside_and_each_of_them_once)
{
    struct scene one, other;
    struct link_list removals = {NULL, NULL, 0};
    ground_init(&ground, 0, 1);
    scene_init(&one, tell_the_other);
    scene_init(&other, tell_the_other);
    one.other = &other;
    other.other = &one;
    note_and_drop(&removals, "k", ASIDE_CAUSE_REPLACED);
    removal_tell(&one.listener, &removals);
    CHECK(one.count >= 4 || other.count >= 4);
    CHECK_INT(one.deepest, 1);
    CHECK_INT(other.deepest, 1);
    CHECK(thread_self()->telling == NULL);
    ground_fini(&ground);
}

/* ---- cancellation -------------------------------------------------------------------------------- */

static void *tell_cancelled(void *arg)
{
    struct scene *scene = arg;
    struct link_list removals = {NULL, NULL, 0};
    int state = -1;
    pthread_cancel(pthread_self());
    removal_tell(&scene->listener, &removals); /* of nothing */
    note_and_drop(&removals, "k", ASIDE_CAUSE_CLOSED);
    removal_tell(&scene->listener, &removals);
    CHECK_INT(pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &state), 0);
    CHECK_INT(state, PTHREAD_CANCEL_ENABLE);
    note_and_drop(&removals, "k", ASIDE_CAUSE_CLOSED);
    removal_tell(&scene->listener, &removals);
    CHECK_INT(pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, &state), 0);
    CHECK_INT(state, PTHREAD_CANCEL_DISABLE); /* as it was, both times */
    pthread_testcancel();
    CHECK(!"the thread has ended");
    return NULL;
}

static void reach_a_cancellation_point(struct scene *scene)
{
    (void)scene;
    pthread_testcancel();
}

TEST(a_listener_is_not_cancelled_and_the_thread_is_after_it)
{
    struct scene scene;
    ground_init(&ground, 0, 1);
    scene_init(&scene, reach_a_cancellation_point);
    CHECK(thread_join(thread_start(tell_cancelled, &scene)) == PTHREAD_CANCELED);
    CHECK_INT(scene.count, 2);
    ground_fini(&ground);
}

/* ---- without a record ---------------------------------------------------------------------------- */

static void *tell_without_memory(void *arg)
{
    struct scene *scene = arg;
    struct link_list removals = {NULL, NULL, 0};
    process_fail_alloc(1, true);
    CHECK(thread_self() == NULL);
    note_and_drop(&removals, "a", ASIDE_CAUSE_DELETED);
    note_and_drop(&removals, "b", ASIDE_CAUSE_EVICTED);
    removal_tell(&scene->listener, &removals);
    process_fail_alloc(0, false);
    check_empty(&removals);
    return NULL;
}

static void make_one_leave(struct scene *scene)
{
    struct link_list more = {NULL, NULL, 0};
    if (scene->count > 1)
        return;
    note_and_drop(&more, "x", ASIDE_CAUSE_EXPIRED);
    removal_tell(&scene->listener, &more);
    check_empty(&more);
}

TEST(a_thread_without_a_record_tells_all_the_same)
{
    struct scene scene;
    ground_init(&ground, 0, 1);
    CHECK(thread_self() != NULL); /* so that the record there is is this thread's */
    scene_init(&scene, NULL);
    thread_join(thread_start(tell_without_memory, &scene));
    CHECK(strcmp(scene.told, "a=v deleted; b=v evicted; ") == 0);
    scene_init(&scene, make_one_leave); /* told at once, or later */
    thread_join(thread_start(tell_without_memory, &scene));
    CHECK_INT(scene.count, 3);
    CHECK(strstr(scene.told, "a=v deleted; ") && strstr(scene.told, "b=v evicted; ") &&
          strstr(scene.told, "x=v expired; "));
    ground_fini(&ground);
}

/* In a cache: what is removed by a thread that can have no record, and the cache with it. */

static void unref_it(struct scene *scene)
{
    aside_cache *cache = scene->cache;
    scene->cache = NULL;
    aside_unref(cache);
}

static void *leave_without_memory(void *arg)
{
    struct scene *scene = arg;
    process_fail_alloc(1, true);
    put(scene->cache, "k", "w", ASIDE_FOREVER);
    if (scene->cache)
        CHECK_STATUS(aside_delete(scene->cache, ASIDE_STR("k")), ASIDE_OK);
    process_fail_alloc(0, false);
    return NULL;
}

static void check_without_memory(void (*also)(struct scene *), const char *told)
{
    struct scene scene;
    struct ledger ledger;
    aside_options options = quiet_options();
    scene_init(&scene, also);
    options.alloc = ledger_init(&ledger);
    options.max_entries = 1;
    options.on_remove = scene.listener;
    scene.cache = open_cache(&options);
    put(scene.cache, "k", "v", ASIDE_FOREVER);
    thread_join(thread_start(leave_without_memory, &scene));
    if (scene.cache)
        end_cache(scene.cache);
    CHECK(strcmp(scene.told, told) == 0);
    CHECK_INT(ledger.live_blocks, 0);
}

TEST(a_thread_without_a_record_tells_what_it_removes)
{
    check_without_memory(NULL, "k=v replaced; k=w deleted; ");
}

TEST(a_listener_of_a_thread_without_a_record_may_give_the_last_reference_back)
{
    check_without_memory(unref_it, "k=v replaced; k=w closed; ");
}
