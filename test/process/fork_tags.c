/*
 * fork_tags.c -- P4 of tags and of what is remembered: the child of a fork has both as they were,
 * and what either process deletes from then on is the other's no more. A fetch that was under way
 * says nothing in the child.
 */
#include "children.h"
#include "contract/truth.h"
#include "sanitizers.h"

SEARCH_NO_DEADLOCKS;

static aside_status tell(struct scene *scene, const char *key, const char *tag)
{
    aside_result result = ASIDE_RESULT_INIT;
    scene->truth.tag = tag;
    aside_status status =
        aside_get_with_fetch(scene->cache, key, strlen(key), &scene->call, &result);
    aside_value_unref(result.value);
    return status;
}

/* "a" and "b" have the tag t, "c" has another. */
static void scene_fill(struct scene *scene)
{
    scene_init(scene);
    scene->options.freshness.not_found_ttl_ms = 60000;
    scene_open(scene);
    scene_says(scene, NULL, ASIDE_NOT_FOUND);
    CHECK_STATUS(tell(scene, "nothing", "t"), ASIDE_NOT_FOUND);
    scene_says(scene, "v", ASIDE_OK);
    CHECK_STATUS(tell(scene, "a", "t"), ASIDE_OK);
    CHECK_STATUS(tell(scene, "b", "t"), ASIDE_OK);
    CHECK_STATUS(tell(scene, "c", "u"), ASIDE_OK);
}

static void check_there(struct scene *scene, bool with_t)
{
    CHECK(holds(scene->cache, "a", "v") == with_t);
    CHECK(holds(scene->cache, "b", "v") == with_t);
    CHECK(holds(scene->cache, "c", "v"));
}

/* All that tags can do, from the state that scene_fill() leaves. */
static void use_tags(struct scene *scene)
{
    check_there(scene, true);
    CHECK_INT(asks(scene, "nothing", ASIDE_NOT_FOUND).outcome, ASIDE_OUTCOME_NEGATIVE);
    CHECK_STATUS(aside_delete_tag(scene->cache, ASIDE_STR("t")), ASIDE_OK);
    check_there(scene, false);
    CHECK_STATUS(tell(scene, "nothing", NULL), ASIDE_OK); /* the source has it by now */
    CHECK_STATUS(tell(scene, "a", "t"), ASIDE_OK);
    CHECK_STATUS(tell(scene, "b", "new"), ASIDE_OK);
    check_there(scene, true);
    CHECK_STATUS(aside_delete_tag(scene->cache, ASIDE_STR("new")), ASIDE_OK);
    CHECK(!holds(scene->cache, "b", "v"));
    CHECK_STATUS(aside_delete_tag(scene->cache, ASIDE_STR("never")), ASIDE_MISS);
    CHECK_STATUS(aside_reap(scene->cache, 0, NULL), ASIDE_OK);
}

static void use_and_end(struct scene *scene)
{
    use_tags(scene);
    scene_end(scene);
}

TEST(the_child_has_the_tags_and_its_own_from_then_on)
{
    static struct scene scene;
    scene_fill(&scene);
    struct child child = child_fork();
    if (child.pid == 0) {
        use_and_end(&scene);
        child_done();
    }
    child_end(&child, CHILD_DONE);
    use_and_end(&scene); /* as if nothing had been */
}

TEST(what_the_parent_deletes_the_child_keeps)
{
    static struct scene scene;
    int ready[2];
    char byte = 0;
    scene_fill(&scene);
    CHECK(pipe(ready) == 0);
    struct child child = child_fork();
    if (child.pid == 0) {
        CHECK(read(ready[0], &byte, 1) == 1);
        use_and_end(&scene);
        child_done();
    }
    CHECK_STATUS(aside_delete_tag(scene.cache, ASIDE_STR("t")), ASIDE_OK);
    CHECK(write(ready[1], &byte, 1) == 1);
    child_end(&child, CHILD_DONE);
    check_there(&scene, false);
    scene_end(&scene);
}

/* ---- a fetch under way --------------------------------------------------------------------------- */

static _Atomic bool enough;

static void *delete_t_for_ever(void *arg)
{
    struct scene *scene = (struct scene *)arg;
    while (!atomic_load(&enough))
        (void)aside_delete_tag(scene->cache, ASIDE_STR("t"));
    return NULL;
}

/* Whoever holds the tags' lock at that moment is in the parent alone. */
TEST(a_child_does_not_wait_for_who_deletes_tags_in_the_parent)
{
    static struct scene scene;
    scene_fill(&scene);
    pthread_t other = thread_start(delete_t_for_ever, &scene);
    for (long i = 0; i < test_rounds(20); i++) {
        struct child child = child_fork();
        if (child.pid == 0) {
            (void)aside_delete_tag(scene.cache, ASIDE_STR("t"));
            check_there(&scene, false);
            CHECK_STATUS(tell(&scene, "a", "t"), ASIDE_OK);
            CHECK(holds(scene.cache, "a", "v"));
            child_done();
        }
        child_end(&child, CHILD_DONE);
    }
    atomic_store(&enough, true);
    thread_join(other);
    scene_end(&scene);
}

static aside_status fork_inside(aside_fetch *fetch, void *arg)
{
    struct scene *scene = (struct scene *)arg;
    static const aside_freshness none = {0};
    CHECK_STATUS(aside_fetch_add_tag(fetch, ASIDE_STR("before")), ASIDE_OK);
    CHECK(aside_fetch_previous(fetch) != NULL);
    struct child child = child_fork();
    if (child.pid == 0) {
        CHECK(aside_fetch_previous(fetch) == NULL);
        CHECK_STATUS(aside_fetch_add_tag(fetch, ASIDE_STR("after")), ASIDE_E_FORKED);
        CHECK_STATUS(aside_fetch_set_freshness(fetch, &none), ASIDE_E_FORKED);
        CHECK_STATUS(aside_fetch_not_modified(fetch), ASIDE_E_FORKED);
        CHECK_STATUS(aside_delete_tag(scene->cache, ASIDE_STR("after")), ASIDE_MISS);
        use_tags(scene);
        child_done();
    }
    child_end(&child, CHILD_DONE);
    CHECK_STATUS(aside_fetch_add_tag(fetch, ASIDE_STR("after")), ASIDE_OK);
    return aside_fetch_not_modified(fetch);
}

TEST(a_fetch_of_before_says_nothing_in_the_child)
{
    static struct scene scene;
    scene_fill(&scene);
    aside_call call = {ASIDE_CALL, .fetch = fork_inside, .arg = &scene, .nonblocking = 1};
    CHECK_STATUS(aside_refresh(scene.cache, ASIDE_STR("c"), &call), ASIDE_OK);
    check_there(&scene, true);
    CHECK_STATUS(aside_delete_tag(scene.cache, ASIDE_STR("before")), ASIDE_OK);
    CHECK_STATUS(look(scene.cache, "c"), ASIDE_MISS);
    scene_end(&scene);
}
