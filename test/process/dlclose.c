/*
 * dlclose.c -- dlclose() of the shared library does no harm while threads that used it end, before,
 * during and after it, while its own threads and flights live (P6), and to a fork() that comes later
 * (P4); nothing is left behind by a hundred rounds.
 *
 * This program has the library in it as well, so what is looked up belongs to the shared one alone.
 */
#include "harness.h"
#include "sanitizers.h"

#include <aside/group.h>
#include <dlfcn.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define ROUNDS 100

/* ---- the library, looked up ---------------------------------------------------------------------- */

#define FUNCTIONS(X)                                                                               \
    X(open)                                                                                        \
    X(close)                                                                                       \
    X(ref)                                                                                         \
    X(unref)                                                                                       \
    X(set)                                                                                         \
    X(get)                                                                                         \
    X(get_with_fetch)                                                                              \
    X(fetch_copy)                                                                                  \
    X(group_new)                                                                                   \
    X(group_do)                                                                                    \
    X(group_close)                                                                                 \
    X(group_unref)                                                                                 \
    X(value_data)                                                                                  \
    X(value_size)                                                                                  \
    X(value_unref)                                                                                 \
    X(version)

struct library {
    void *handle;
#define MEMBER(name) __typeof__(aside_##name) *name;
    FUNCTIONS(MEMBER)
#undef MEMBER
};

static void *look_up(void *handle, const char *name)
{
    void *found = dlsym(handle, name);
    if (found == NULL)
        test_fail(__FILE__, __LINE__, name, dlerror());
    return found;
}

/* RTLD_DEEPBIND: the shared library's calls to itself do not end in this program's copy of it. */
static struct library load(void)
{
    struct library library;
    if (SANITIZED)
        test_skip("the shared library is not built with the sanitizer");
    if (access(ASIDE_SHARED_LIBRARY, R_OK) != 0)
        test_skip("there is no " ASIDE_SHARED_LIBRARY);
    library.handle = dlopen(ASIDE_SHARED_LIBRARY, RTLD_NOW | RTLD_LOCAL | RTLD_DEEPBIND);
    if (library.handle == NULL)
        test_fail(__FILE__, __LINE__, "dlopen", dlerror());
#define FIND(name) library.name = (__typeof__(library.name))look_up(library.handle, "aside_" #name);
    FUNCTIONS(FIND)
#undef FIND
    CHECK(library.open != aside_open);
    return library;
}

/* Mappings of the shared library: it is there once, however often it was opened. */
static int mappings(void)
{
    char line[512];
    int count = 0;
    FILE *file = fopen("/proc/self/maps", "re");
    CHECK(file != NULL);
    while (fgets(line, sizeof line, file) != NULL)
        count += strstr(line, "libaside.so") != NULL;
    fclose(file);
    return count;
}

/* ---- its use ------------------------------------------------------------------------------------- */

struct source {
    const struct library *library;
    struct gate *gate; /* NULL: answers at once */
};

static aside_status fetch_text(aside_fetch *fetch, void *arg)
{
    const struct source *source = arg;
    if (source->gate != NULL)
        gate_pass(source->gate);
    return source->library->fetch_copy(fetch, "fetched", 7);
}

/* timeout_ms 0: on this thread, else on a worker. */
static void ask(const struct library *library, aside_cache *cache, const char *key,
                struct gate *gate, int64_t timeout_ms)
{
    struct source source = {library, gate};
    aside_call call = {ASIDE_CALL, .fetch = fetch_text, .arg = &source, .arg_size = sizeof source,
                       .timeout_ms = timeout_ms};
    aside_result result = ASIDE_RESULT_INIT;
    CHECK_STATUS(library->get_with_fetch(cache, key, strlen(key), &call, &result), ASIDE_OK);
    CHECK(library->value_size(result.value) == 7);
    CHECK(memcmp(library->value_data(result.value), "fetched", 7) == 0);
    library->value_unref(result.value);
}

static void set_and_get(const struct library *library, aside_cache *cache)
{
    aside_value *value = NULL;
    CHECK_STATUS(library->set(cache, ASIDE_STR("k"), "text", 4, ASIDE_FOREVER), ASIDE_OK);
    CHECK_STATUS(library->get(cache, ASIDE_STR("k"), &value), ASIDE_OK);
    CHECK(memcmp(library->value_data(value), "text", 4) == 0);
    library->value_unref(value);
}

static aside_cache *open_busy(const struct library *library)
{
    aside_options options = ASIDE_OPTIONS_INIT;
    aside_cache *cache = NULL;
    options.reaper_interval_ms = 1;
    CHECK_STATUS(library->open(&cache, &options), ASIDE_OK);
    return cache;
}

/* A group, from its beginning to its end. */
static void use_group(const struct library *library)
{
    for (int i = 0; i < 2; i++) {
        struct source source = {library, NULL};
        aside_call call = {ASIDE_CALL, .fetch = fetch_text, .arg = &source,
                           .arg_size = sizeof source, .timeout_ms = i * 60000};
        aside_result result = ASIDE_RESULT_INIT;
        aside_group *group = NULL;
        CHECK_STATUS(library->group_new(&group, NULL), ASIDE_OK);
        CHECK_STATUS(library->group_do(group, ASIDE_STR("k"), &call, &result), ASIDE_OK);
        CHECK_STATUS(library->group_close(group), ASIDE_OK);
        library->group_unref(group);
        CHECK(library->value_size(result.value) == 7);
        library->value_unref(result.value);
    }
}

struct user {
    const struct library *library;
    aside_cache *cache;
    struct gate *used; /* where it stands when it has used the library; then it ends */
};

static void *use_and_end(void *arg)
{
    const struct user *user = arg;
    set_and_get(user->library, user->cache);
    ask(user->library, user->cache, "inline", NULL, 0);
    ask(user->library, user->cache, "worker", NULL, 60000);
    use_group(user->library);
    gate_pass(user->used);
    return NULL;
}

/* ---- tests --------------------------------------------------------------------------------------- */

/* One round: the library is opened, used by four threads and closed while they end. */
static void use_once(void)
{
    enum { USERS = 4 };
    struct library library = load();
    struct gate used;
    struct user user = {&library, open_busy(&library), &used};
    pthread_t threads[USERS];
    gate_init(&used);
    CHECK(strcmp(library.version(), ASIDE_VERSION) == 0);
    for (int i = 0; i < USERS; i++)
        threads[i] = thread_start(use_and_end, &user);
    gate_wait_arrived(&used, USERS);
    CHECK_STATUS(library.close(user.cache), ASIDE_OK);
    library.unref(user.cache);
    if (test_random() % 2) /* before, or at the same time? */
        gate_open(&used);
    CHECK_INT(dlclose(library.handle), 0);
    gate_open(&used);
    for (int i = 0; i < USERS; i++)
        thread_join(threads[i]);
    gate_fini(&used);
}

TEST(a_hundred_times_while_threads_that_used_it_end)
{
    use_once();
    WAIT_UNTIL(process_threads() == 1);
    int descriptors = process_descriptors(), mapped = mappings();
    for (long round = 0; round < test_rounds(ROUNDS); round++) {
        use_once();
        WAIT_UNTIL(process_threads() == 1);
        CHECK_INT(process_descriptors(), descriptors);
        CHECK_INT(mappings(), mapped);
    }
}

struct waiter {
    const struct library *library;
    aside_cache *cache;
    const char *key;
    struct gate *gate;
    int64_t timeout_ms;
};

static void *wait_for_fetch(void *arg)
{
    const struct waiter *waiter = arg;
    ask(waiter->library, waiter->cache, waiter->key, waiter->gate, waiter->timeout_ms);
    return NULL;
}

/* The reaper, a worker in a fetch, a leader in a fetch and callers who wait stay as they are. */
static void close_while_busy(void)
{
    enum { WAITERS = 6 };
    struct library library = load();
    aside_cache *cache = open_busy(&library);
    struct gate gate;
    struct waiter led = {&library, cache, "led", &gate, 0};
    struct waiter offloaded = {&library, cache, "offloaded", &gate, 60000};
    pthread_t threads[WAITERS];
    gate_init(&gate);
    for (int i = 0; i < WAITERS; i++)
        threads[i] = thread_start(wait_for_fetch, i % 2 ? &led : &offloaded);
    gate_wait_arrived(&gate, 2);
    CHECK_INT(dlclose(library.handle), 0);
    set_and_get(&library, cache); /* what was looked up still stands */
    if (test_random() % 2) {      /* and is the same when it is opened again */
        struct library again = load();
        CHECK(again.open == library.open);
        set_and_get(&again, cache);
        CHECK_INT(dlclose(again.handle), 0);
    }
    gate_open(&gate);
    for (int i = 0; i < WAITERS; i++)
        thread_join(threads[i]);
    CHECK_STATUS(library.close(cache), ASIDE_OK);
    library.unref(cache);
    gate_fini(&gate);
}

TEST(a_hundred_times_while_its_threads_and_flights_live)
{
    close_while_busy();
    WAIT_UNTIL(process_threads() == 1);
    int descriptors = process_descriptors(), mapped = mappings();
    for (long round = 0; round < test_rounds(ROUNDS); round++) {
        close_while_busy();
        WAIT_UNTIL(process_threads() == 1);
        CHECK_INT(process_descriptors(), descriptors);
        CHECK_INT(mappings(), mapped);
    }
}

/* ---- threads that end at any time ---------------------------------------------------------------- */

static _Atomic int at_large; /* threads that are not joined */

/* The library's part of a thread's end comes after this, in a destructor of its own. */
static void count_down(void *unused)
{
    (void)unused;
    atomic_fetch_sub(&at_large, 1);
}

struct straggler {
    struct library library;
    aside_cache *cache;
    struct gate used;
    pthread_key_t key;
    _Atomic int left;
};

/* The last one gives the cache back. */
static void *use_and_straggle(void *arg)
{
    struct straggler *straggler = arg;
    uint64_t steps = test_random() % 50;
    pthread_setspecific(straggler->key, straggler);
    set_and_get(&straggler->library, straggler->cache);
    ask(&straggler->library, straggler->cache, "inline", NULL, 0);
    use_group(&straggler->library);
    gate_pass(&straggler->used);
    for (; steps > 0; steps--)
        sched_yield();
    if (atomic_fetch_sub(&straggler->left, 1) == 1) {
        CHECK_STATUS(straggler->library.close(straggler->cache), ASIDE_OK);
        straggler->library.unref(straggler->cache);
    }
    return NULL;
}

/* Detached threads end while the library is closed, and after: nobody waits for them. */
static void close_beside_stragglers(struct straggler *straggler)
{
    enum { STRAGGLERS = 4 };
    straggler->library = load();
    straggler->cache = open_busy(&straggler->library);
    straggler->left = STRAGGLERS;
    gate_init(&straggler->used);
    CHECK_INT(pthread_key_create(&straggler->key, count_down), 0);
    for (int i = 0; i < STRAGGLERS; i++) {
        atomic_fetch_add(&at_large, 1);
        pthread_detach(thread_start(use_and_straggle, straggler));
    }
    gate_wait_arrived(&straggler->used, STRAGGLERS);
    gate_open(&straggler->used);
    for (uint64_t steps = test_random() % 50; steps > 0; steps--)
        sched_yield();
    CHECK_INT(dlclose(straggler->library.handle), 0);
}

TEST(a_hundred_times_while_detached_threads_that_used_it_end)
{
    static struct straggler stragglers[4]; /* some rounds overlap */
    for (long round = 0; round < test_rounds(ROUNDS) * 4; round++) {
        struct straggler *straggler = &stragglers[round % 4];
        if (round >= 4) {
            WAIT_UNTIL(atomic_load(&straggler->left) == 0);
            WAIT_UNTIL(atomic_load(&at_large) == 0);
            pthread_key_delete(straggler->key);
            gate_fini(&straggler->used);
        }
        close_beside_stragglers(straggler);
    }
    WAIT_UNTIL(atomic_load(&at_large) == 0);
    WAIT_UNTIL(process_threads() == 1);
}

/* ---- a fork after it ----------------------------------------------------------------------------- */

/* The library's handlers for fork() are still there, and what they need as well. */
static void fork_and_use(const struct library *library, aside_cache *cache)
{
    int status = 0;
    fflush(NULL);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        alarm(240);
        if (cache != NULL) {
            set_and_get(library, cache);
            ask(library, cache, "inline here", NULL, 0);
            ask(library, cache, "worker here", NULL, 60000);
            CHECK_STATUS(library->close(cache), ASIDE_OK);
            library->unref(cache);
        }
        use_group(library);
        _exit(42);
    }
    WAIT_UNTIL(waitpid(pid, &status, WNOHANG) == pid);
    CHECK(WIFEXITED(status));
    CHECK_INT(WEXITSTATUS(status), 42);
}

TEST(a_fork_after_it_works)
{
    for (long round = 0; round < test_rounds(ROUNDS / 4); round++) {
        struct library library = load();
        aside_cache *cache = open_busy(&library);
        struct gate gate;
        struct waiter led = {&library, cache, "led", &gate, 0};
        struct waiter offloaded = {&library, cache, "offloaded", &gate, 60000};
        pthread_t threads[2];
        gate_init(&gate);
        threads[0] = thread_start(wait_for_fetch, &led);
        threads[1] = thread_start(wait_for_fetch, &offloaded);
        gate_wait_arrived(&gate, 2);
        CHECK_INT(dlclose(library.handle), 0);
        fork_and_use(&library, cache);
        gate_open(&gate);
        for (int i = 0; i < 2; i++)
            thread_join(threads[i]);
        CHECK_STATUS(library.close(cache), ASIDE_OK);
        library.unref(cache);
        gate_fini(&gate);
        fork_and_use(&library, NULL); /* where nothing of it is left */
        WAIT_UNTIL(process_threads() == 1);
    }
}
