/*
 * exit.c -- exit() and a return from main while the library's threads, flights, readers and writers
 * are busy do no harm (P6), whoever calls exit(), and though handlers of atexit() use the cache and
 * the group. Nor does it in the child of a process that was busy when it forked (P4).
 *
 * Each round is a process of its own: a child of fork() that had no cache before, or, for a return
 * from main, this very program anew with --list, whose constructor makes the process busy first.
 * A hundred rounds each; `--rounds 10` makes them a thousand.
 */
#include "harness.h"
#include "sanitizers.h"

#include <aside/group.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define ROUNDS (UNDER_TSAN ? 10 : 100) /* at each exit() ThreadSanitizer sleeps for a second */
#define KEYS 64

/* Who calls exit(). */
enum way {
    BY_MAIN,
    BY_THREAD,
    BY_WORKER,
    BY_LEADER,
    BY_VISITOR,
    BY_DESTRUCTOR,
    BY_GROUP_WORKER,
    BY_GROUP_LEADER,
    BY_QUICK_EXIT,
    BY_CHILD, /* of a fork; the parent follows */
    BY_USING_CHILD
};

/* For calls that may be refused: all that matters is that they return. */
static void whatever(aside_status status)
{
    (void)status;
}

/* ---- a process at work --------------------------------------------------------------------------- */

static aside_cache *cache;
static aside_group *group;
static struct gate never;      /* what stands here stands until the process is over */
static _Atomic int turns;      /* of the threads that never rest */
static _Atomic uint64_t drawn; /* by these threads; begins with a number that the test has drawn */
static _Atomic(aside_fetch *) pending, group_pending;

static unsigned draw(unsigned most)
{
    uint64_t number = atomic_fetch_add(&drawn, UINT64_C(0x9e3779b97f4a7c15));
    return (unsigned)((number * UINT64_C(0xbf58476d1ce4e5b9)) >> 33) % most;
}

/* Never joinable, not for an instant: ThreadSanitizer takes it for a leak if the process ends then. */
static void detached(thread_fn fn, const void *arg)
{
    pthread_attr_t detached_state;
    pthread_t thread;
    pthread_attr_init(&detached_state);
    pthread_attr_setdetachstate(&detached_state, PTHREAD_CREATE_DETACHED);
    CHECK_INT(pthread_create(&thread, &detached_state, fn, (void *)(uintptr_t)arg), 0);
    pthread_attr_destroy(&detached_state);
}

static size_t any_key(char key[16])
{
    return (size_t)snprintf(key, 16, "key %u", draw(KEYS));
}

static void free_wrapped(void *ptr, void *ctx)
{
    (void)ctx;
    free(ptr);
}

static void read_byte(const void *data, size_t size, void *ctx)
{
    if (size > 0)
        *(volatile char *)ctx = *(const char *)data;
}

/* What an endless thread does with a status: a cache that is being closed is no reason to spin. */
static void turned(aside_status status)
{
    atomic_fetch_add(&turns, 1);
    if (status == ASIDE_E_CLOSED)
        test_yield();
}

static void *read_for_ever(void *unused)
{
    (void)aside_ref(cache);
    for (char key[16], byte = 0;; byte++) {
        aside_value *value = NULL;
        size_t size = any_key(key);
        whatever(aside_copy(cache, key, size, &byte, 1, NULL));
        whatever(aside_visit(cache, key, size, read_byte, &byte));
        turned(aside_get(cache, key, size, &value));
        aside_value_unref(value);
    }
    return unused;
}

static void *write_for_ever(void *unused)
{
    (void)aside_ref(cache);
    for (;;) {
        char key[16];
        size_t size = any_key(key);
        aside_value *value = NULL;
        void *block = malloc(40);
        if (aside_value_wrap(block, 40, free_wrapped, NULL, &value) != ASIDE_OK)
            free(block);
        whatever(aside_set_value(cache, key, size, value, 1 + draw(4)));
        aside_value_unref(value);
        size = any_key(key);
        turned(aside_set(cache, key, size, key, size, ASIDE_FOREVER));
        if (draw(16) == 0)
            (void)aside_delete(cache, key, size);
        if (draw(512) == 0)
            (void)aside_clear(cache);
    }
    return unused;
}

static aside_status fetch_at_once(aside_fetch *fetch, void *arg)
{
    (void)arg;
    return aside_fetch_copy(fetch, "fetched", 7);
}

static void *complete(void *fetch)
{
    test_yield();
    (void)aside_fetch_complete(fetch, aside_fetch_copy(fetch, "late", 4));
    aside_fetch_unref(fetch);
    return NULL;
}

static aside_status fetch_later(aside_fetch *fetch, void *arg)
{
    (void)arg;
    detached(complete, aside_fetch_ref(fetch));
    return ASIDE_PENDING;
}

/* By workers and by himself, with results at once and later; at times the caller leaves before. */
static void *fetch_for_ever(void *unused)
{
    (void)aside_ref(cache);
    for (int i = 0;; i++) {
        aside_call call = {ASIDE_CALL, .fetch = i % 8 ? fetch_at_once : fetch_later};
        aside_result result = ASIDE_RESULT_INIT;
        char key[16];
        size_t size = any_key(key);
        call.ttl_ms = ASIDE_NO_STORE;
        call.timeout_ms = i % 5 ? i % 3 * 1000 : 1;
        turned(aside_get_with_fetch(cache, key, size, &call, &result));
        aside_value_unref(result.value);
    }
    return unused;
}

/* The same in the group, with tokens that have a deadline, and a key forgotten now and then. */
static void *do_for_ever(void *unused)
{
    (void)aside_group_ref(group);
    for (int i = 0;; i++) {
        aside_call call = {ASIDE_CALL, .fetch = i % 8 ? fetch_at_once : fetch_later};
        aside_result result = ASIDE_RESULT_INIT;
        char key[16];
        size_t size = any_key(key);
        if (i % 3 && aside_cancel_new(&call.cancel) == ASIDE_OK)
            whatever(aside_cancel_set_deadline(call.cancel, i % 5 ? 1000 : 1, NULL));
        turned(aside_group_do(group, key, size, &call, &result));
        aside_value_unref(result.value);
        aside_cancel_unref(call.cancel);
        if (i % 7 == 0)
            (void)aside_group_forget(group, key, size);
    }
    return unused;
}

static aside_status fetch_never(aside_fetch *fetch, void *arg)
{
    (void)fetch, (void)arg;
    gate_pass(&never);
    return ASIDE_E_ABANDONED;
}

static aside_status pend_for_ever(aside_fetch *fetch, void *arg)
{
    atomic_store((_Atomic(aside_fetch *) *)arg, aside_fetch_ref(fetch));
    return ASIDE_PENDING;
}

/* Three callers each: one leads, on a worker or himself, two join. */
static void *wait_for_ever(void *its_key)
{
    const char *key = its_key;
    aside_call call = {ASIDE_CALL, .fetch = *key == 'p' ? pend_for_ever : fetch_never};
    aside_result result = ASIDE_RESULT_INIT;
    if (*key != 'i') /* an inline leader can not leave */
        call.timeout_ms = 600000;
    call.arg = (void *)&pending;
    (void)aside_ref(cache);
    CHECK(aside_get_with_fetch(cache, key, strlen(key), &call, &result) != ASIDE_OK);
    gate_pass(&never);
    return NULL;
}

static void *wait_in_group_for_ever(void *its_key)
{
    const char *key = its_key;
    aside_call call = {ASIDE_CALL, .fetch = *key == 'p' ? pend_for_ever : fetch_never};
    aside_result result = ASIDE_RESULT_INIT;
    if (*key != 'i')
        call.timeout_ms = 600000;
    call.arg = (void *)&group_pending;
    (void)aside_group_ref(group);
    CHECK(aside_group_do(group, key, strlen(key), &call, &result) != ASIDE_OK);
    gate_pass(&never);
    return NULL;
}

static uint64_t waiters_in_group(void)
{
    aside_stats stats = {.struct_size = sizeof stats};
    CHECK_STATUS(aside_group_stats_get(group, &stats), ASIDE_OK);
    return stats.waiters_now;
}

static void become_busy(void)
{
    aside_options options = ASIDE_OPTIONS_INIT;
    options.reaper_interval_ms = 1;
    options.fetch_threads = 4;
    options.close_wait_ms = 5;
    gate_init(&never);
    CHECK_STATUS(aside_open(&cache, &options), ASIDE_OK);
    CHECK_STATUS(aside_group_new(&group, &options), ASIDE_OK);
    for (int i = 0; i < 3; i++) {
        detached(wait_for_ever, "on a worker");
        detached(wait_for_ever, "inline");
        detached(wait_for_ever, "pending");
    }
    for (int i = 0; i < 2; i++) {
        detached(wait_in_group_for_ever, "on a worker");
        detached(wait_in_group_for_ever, "inline");
        detached(wait_in_group_for_ever, "pending");
    }
    gate_wait_arrived(&never, 4);
    WAIT_UNTIL(STAT(cache, waiters_now) >= 8 && atomic_load(&pending) != NULL);
    WAIT_UNTIL(waiters_in_group() >= 5 && atomic_load(&group_pending) != NULL);
    detached(do_for_ever, NULL);
    for (int i = 0; i < 2; i++) {
        detached(read_for_ever, NULL);
        detached(write_for_ever, NULL);
        detached(fetch_for_ever, NULL);
    }
    WAIT_UNTIL(atomic_load(&turns) >= 50);
}

/* ---- handlers of atexit() ------------------------------------------------------------------------ */

static void ask_at_exit(const char *key, int64_t timeout_ms)
{
    aside_call call = {ASIDE_CALL, .fetch = fetch_at_once, .timeout_ms = timeout_ms};
    aside_result result = ASIDE_RESULT_INIT;
    CHECK_STATUS(aside_get_with_fetch(cache, key, strlen(key), &call, &result), ASIDE_OK);
    CHECK(aside_value_size(result.value) == 7);
    aside_value_unref(result.value);
    CHECK_STATUS(aside_group_do(group, key, strlen(key), &call, &result), ASIDE_OK);
    CHECK(aside_value_size(result.value) == 7);
    aside_value_unref(result.value);
    (void)aside_group_forget(group, key, strlen(key));
}

static void use_at_exit(void)
{
    char byte = 0;
    ask_at_exit("inline at exit", 0);
    ask_at_exit("on a worker at exit", 600000);
    /* While a reader stands still for long, a store may be refused. */
    aside_status stored = aside_set(cache, ASIDE_STR("exiting"), "v", 1, ASIDE_FOREVER);
    CHECK(stored == ASIDE_OK || stored == ASIDE_E_BUSY);
    whatever(aside_copy(cache, ASIDE_STR("exiting"), &byte, 1, NULL));
    whatever(aside_visit(cache, ASIDE_STR("exiting"), read_byte, &byte));
    (void)aside_delete(cache, ASIDE_STR("exiting"));
    CHECK_STATUS(aside_reap(cache, 0, NULL), ASIDE_OK);
    CHECK_STATUS(aside_clear(cache), ASIDE_OK);
    CHECK(STAT(cache, misses_led) > 0);
}

static void close_at_exit(void)
{
    aside_value *value = NULL;
    CHECK_STATUS(aside_close(cache), ASIDE_OK);
    CHECK_STATUS(aside_get(cache, ASIDE_STR("exiting"), &value), ASIDE_E_CLOSED);
    aside_unref(cache);
    CHECK_STATUS(aside_group_close(group), ASIDE_OK);
    CHECK_STATUS(aside_group_forget(group, ASIDE_STR("exiting")), ASIDE_E_CLOSED);
    aside_group_unref(group);
}

/*
 * The leak checker does not find what only an index leads to, as the addresses there share a word with
 * bits of the hash; and a cache that is closed while its readers are in the middle of a look keeps that
 * until the last reference, which nobody here gives back.
 */
SEARCH_NO_LEAKS;

/* ---- how it ends --------------------------------------------------------------------------------- */

static void *exit_on_a_thread(void *unused)
{
    exit(0);
    return unused;
}

static aside_status exit_in_a_fetch(aside_fetch *fetch, void *arg)
{
    (void)fetch, (void)arg;
    exit(0);
}

static void exit_in_a_visit(const void *data, size_t size, void *ctx)
{
    (void)data, (void)size, (void)ctx;
    exit(0);
}

static void exit_in_a_destructor(void *ptr, void *ctx)
{
    (void)ptr, (void)ctx;
    exit(0);
}

static void exit_by_fetch(int64_t timeout_ms)
{
    aside_call call = {ASIDE_CALL, .fetch = exit_in_a_fetch, .timeout_ms = timeout_ms};
    aside_result result = ASIDE_RESULT_INIT;
    whatever(aside_get_with_fetch(cache, ASIDE_STR("exit"), &call, &result));
}

static void exit_by_group(int64_t timeout_ms)
{
    aside_call call = {ASIDE_CALL, .fetch = exit_in_a_fetch, .timeout_ms = timeout_ms};
    aside_result result = ASIDE_RESULT_INIT;
    whatever(aside_group_do(group, ASIDE_STR("exit"), &call, &result));
}

/* The value ends at once, and whoever comes by first, the reaper mostly, ends the process. */
static void exit_by_value(void)
{
    static char target;
    aside_value *value = NULL;
    CHECK_STATUS(aside_value_wrap(&target, 1, exit_in_a_destructor, NULL, &value), ASIDE_OK);
    WAIT_UNTIL(aside_set_value(cache, ASIDE_STR("exit"), value, 1) == ASIDE_OK);
    aside_value_unref(value);
}

static void look_at_end(pid_t pid)
{
    int status = 0;
    WAIT_UNTIL(waitpid(pid, &status, WNOHANG) == pid);
    if (WIFSIGNALED(status))
        fprintf(stderr, "signal %d\n", WTERMSIG(status));
    CHECK(WIFEXITED(status));
    CHECK_INT(WEXITSTATUS(status), 0);
}

/* Who is not there in the child is missed by nobody; it makes threads of its own, and exits. */
static _Noreturn void exit_by_child(bool uses)
{
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        if (uses)
            use_at_exit();
        exit(0);
    }
    look_at_end(pid);
    exit(0);
}

static _Noreturn void end_process(enum way way)
{
    switch (way) {
    case BY_MAIN: exit(0);
    case BY_THREAD: detached(exit_on_a_thread, NULL); break;
    case BY_WORKER: exit_by_fetch(600000); break;
    case BY_LEADER: exit_by_fetch(0); break;
    case BY_VISITOR:
        do
            whatever(aside_set(cache, ASIDE_STR("exit"), "v", 1, ASIDE_FOREVER));
        while (aside_visit(cache, ASIDE_STR("exit"), exit_in_a_visit, NULL) != ASIDE_OK);
        break;
    case BY_DESTRUCTOR: exit_by_value(); break;
    case BY_GROUP_WORKER: exit_by_group(600000); break;
    case BY_GROUP_LEADER: exit_by_group(0); break;
    case BY_QUICK_EXIT: quick_exit(0);
    case BY_CHILD: exit_by_child(false);
    case BY_USING_CHILD: exit_by_child(true);
    }
    for (;;)
        pause();
}

static void busy_for_a_while(bool handlers)
{
    const struct timespec nap = {0, draw(1000) * 1000L};
    if (handlers) { /* the last one registered runs first */
        atexit(close_at_exit);
        atexit(use_at_exit);
    }
    become_busy();
    nanosleep(&nap, NULL);
}

/* ---- the rounds ---------------------------------------------------------------------------------- */

static void end_with_parent(pid_t parent)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(1);
}

/* Threads that still count while their counters are written leave numbers that do not add up. */
extern void __gcov_exit(void) __attribute__((weak));

static void need_no_counters(void)
{
    if (__gcov_exit)
        test_skip("coverage is counted in this build");
}

static void rounds_of(enum way way, bool handlers, long rounds)
{
    need_no_counters();
    for (long round = 0; round < test_rounds(rounds); round++) {
        atomic_store(&drawn, test_random());
        pid_t parent = getpid(), pid = fork();
        CHECK(pid >= 0);
        if (pid == 0) {
            end_with_parent(parent);
            busy_for_a_while(handlers);
            end_process(way);
        }
        look_at_end(pid);
    }
}

/* "handlers drawn" in the environment of the program that is to return from its main. */
#define RETURNING "ASIDE_TEST_RETURNING"

__attribute__((constructor)) static void become_busy_before_main(void)
{
    const char *text = getenv(RETURNING);
    if (!text)
        return;
    atomic_store(&drawn, strtoull(text + 2, NULL, 10));
    busy_for_a_while(*text == '1');
}

static _Noreturn void start_anew(bool handlers)
{
    char text[32];
    int nowhere = open("/dev/null", O_WRONLY | O_CLOEXEC);
    dup2(nowhere, STDOUT_FILENO);
    snprintf(text, sizeof text, "%d %llu", handlers, (unsigned long long)drawn);
    setenv(RETURNING, text, 1);
    execl("/proc/self/exe", "exit", "--list", (char *)NULL);
    _exit(127);
}

static void rounds_of_returns(bool handlers)
{
    need_no_counters();
    for (long round = 0; round < test_rounds(ROUNDS); round++) {
        atomic_store(&drawn, test_random());
        pid_t parent = getpid(), pid = fork();
        CHECK(pid >= 0);
        if (pid == 0) {
            end_with_parent(parent);
            start_anew(handlers);
        }
        look_at_end(pid);
    }
}

TEST(exit_of_the_main_thread_does_no_harm)
{
    rounds_of(BY_MAIN, false, ROUNDS);
}

TEST(a_return_from_main_does_no_harm)
{
    rounds_of_returns(false);
}

TEST(exit_of_another_thread_does_no_harm)
{
    rounds_of(BY_THREAD, false, ROUNDS);
}

TEST(exit_in_a_fetch_on_a_worker_does_no_harm)
{
    rounds_of(BY_WORKER, false, ROUNDS);
}

TEST(exit_in_a_fetch_of_a_leader_does_no_harm)
{
    rounds_of(BY_LEADER, false, ROUNDS);
}

TEST(exit_in_a_visit_does_no_harm)
{
    rounds_of(BY_VISITOR, false, ROUNDS);
}

TEST(exit_in_a_destructor_does_no_harm)
{
    rounds_of(BY_DESTRUCTOR, false, ROUNDS);
}

TEST(exit_in_a_fetch_of_a_group_does_no_harm)
{
    rounds_of(BY_GROUP_WORKER, false, ROUNDS / 2);
    rounds_of(BY_GROUP_LEADER, false, ROUNDS / 2);
}

TEST(quick_exit_does_no_harm)
{
    rounds_of(BY_QUICK_EXIT, false, ROUNDS / 2);
}

static void need_a_fork_that_works(void)
{
    if (SANITIZED)
        test_skip("locks of the sanitizer itself are not there in the child of a busy process");
}

TEST(exit_of_the_child_of_a_fork_does_no_harm)
{
    need_a_fork_that_works();
    rounds_of(BY_CHILD, false, ROUNDS / 2);
    rounds_of(BY_USING_CHILD, false, ROUNDS / 2);
}

TEST(handlers_of_atexit_may_use_and_close_the_cache_in_the_child_of_a_fork)
{
    need_a_fork_that_works();
    rounds_of(BY_CHILD, true, ROUNDS / 4);
    rounds_of(BY_USING_CHILD, true, ROUNDS / 4);
}

TEST(handlers_of_atexit_may_use_and_close_the_cache)
{
    rounds_of(BY_MAIN, true, ROUNDS);
}

TEST(handlers_of_atexit_may_use_and_close_the_cache_after_a_return_from_main)
{
    rounds_of_returns(true);
}

TEST(handlers_of_atexit_may_use_and_close_the_cache_where_a_callback_calls_exit)
{
    rounds_of(BY_WORKER, true, ROUNDS / 4);
    rounds_of(BY_LEADER, true, ROUNDS / 4);
    rounds_of(BY_VISITOR, true, ROUNDS / 4);
    rounds_of(BY_DESTRUCTOR, true, ROUNDS / 4);
    rounds_of(BY_GROUP_WORKER, true, ROUNDS / 4);
    rounds_of(BY_GROUP_LEADER, true, ROUNDS / 4);
}
