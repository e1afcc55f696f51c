/*
 * signals.c -- a storm of signals changes no wait: deadlines are kept, nothing returns early or with
 * another status; handlers never run on the library's threads, and the library leaves the process as
 * it found it (P3).
 */
#include "harness.h"

#include <fcntl.h>
#include <locale.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#ifndef sigev_notify_thread_id
#define sigev_notify_thread_id _sigev_un._tid
#endif

/* The harness has SIGRTMAX - 2 for itself. */
#define STORM (SIGRTMIN + 3)

/* ---- handlers ------------------------------------------------------------------------------------ */

static _Atomic int strays;               /* handlers that ran on a thread of the library */
static _Thread_local _Atomic int struck; /* of the storm, on this thread */
static _Atomic int calms;                /* storms that hardly struck */

static void on_signal(int number)
{
    char name[16] = "";
    prctl(PR_GET_NAME, name);
    if (strncmp(name, "aside-", 6) == 0)
        atomic_fetch_add(&strays, 1);
    if (number == STORM)
        atomic_fetch_add_explicit(&struck, 1, memory_order_relaxed);
}

/* Without SA_RESTART: system calls that wait end with EINTR. */
static void handle(int number)
{
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_signal;
    CHECK_INT(sigaction(number, &action, NULL), 0);
}

/* A thousand signals a second for the thread that starts it, and for no other. */
static timer_t storm_begin(void)
{
    const struct itimerspec every_ms = {{0, 1000000}, {0, 1000000}};
    struct sigevent event;
    timer_t timer;
    memset(&event, 0, sizeof event);
    event.sigev_notify = SIGEV_THREAD_ID;
    event.sigev_signo = STORM;
    event.sigev_notify_thread_id = (pid_t)syscall(SYS_gettid);
    handle(STORM);
    CHECK_INT(timer_create(CLOCK_MONOTONIC, &event, &timer), 0);
    CHECK_INT(timer_settime(timer, 0, &every_ms, NULL), 0);
    return timer;
}

static void storm_end(timer_t timer)
{
    CHECK_INT(timer_delete(timer), 0);
    if (atomic_load(&struck) < 3)
        atomic_fetch_add(&calms, 1);
    CHECK_INT(strays, 0);
}

/* A busy machine joins many signals into one and may hold that back as well: what passed in such a calm
 * shows nothing, and is done again. */
static void in_storm(void (*scene)(void))
{
    do {
        atomic_store(&calms, 0);
        scene();
    } while (atomic_load(&calms) > 0);
}

/* ---- callers in the storm ------------------------------------------------------------------------ */

static aside_status at_gate(aside_fetch *fetch, void *arg)
{
    gate_pass(arg);
    return aside_fetch_copy(fetch, "late", 4);
}

static aside_status at_once(aside_fetch *fetch, void *arg)
{
    (void)arg;
    return aside_fetch_copy(fetch, "soon", 4);
}

struct caller {
    aside_cache *cache;
    const char *key;
    aside_call call;
    aside_status expected;
    int64_t least_ms; /* it must not return before, and not much later */
    pthread_t thread;
    _Atomic bool done;
};

#define NOT_MUCH_LATER_MS 5000

static void *call_in_storm(void *arg)
{
    struct caller *caller = arg;
    aside_result result = ASIDE_RESULT_INIT;
    timer_t storm = storm_begin();
    int64_t began_ns = test_now_ns();
    aside_status status = aside_get_with_fetch(caller->cache, caller->key, strlen(caller->key),
                                               &caller->call, &result);
    int64_t took_ms = (test_now_ns() - began_ns) / 1000000;
    atomic_store(&caller->done, true);
    storm_end(storm);
    CHECK_STATUS(status, caller->expected);
    CHECK(took_ms >= caller->least_ms);
    CHECK(took_ms <= caller->least_ms + NOT_MUCH_LATER_MS);
    aside_value_unref(result.value);
    return NULL;
}

static aside_cache *open_cache(int64_t max_flight_age_ms, int64_t close_wait_ms)
{
    aside_options options = ASIDE_OPTIONS_INIT;
    aside_cache *cache = NULL;
    options.reaper_interval_ms = 1;
    options.max_flight_age_ms = max_flight_age_ms;
    options.close_wait_ms = close_wait_ms;
    CHECK_STATUS(aside_open(&cache, &options), ASIDE_OK);
    return cache;
}

static void end_cache(aside_cache *cache)
{
    CHECK_STATUS(aside_close(cache), ASIDE_OK);
    aside_unref(cache);
    WAIT_UNTIL(process_threads_named("aside-") == 0);
}

/* ---- waits --------------------------------------------------------------------------------------- */

static void callers_with_deadlines(void)
{
    enum { CALLERS = 8 };
    struct caller callers[CALLERS];
    struct gate gate;
    aside_cache *cache = open_cache(ASIDE_FOREVER, 5000);
    gate_init(&gate);
    memset(callers, 0, sizeof callers);
    for (int i = 0; i < CALLERS; i++) { /* one leads, the others join */
        struct caller *caller = &callers[i];
        caller->cache = cache;
        caller->key = "k";
        caller->least_ms = 100 + 60 * i;
        caller->call = (aside_call){ASIDE_CALL, .fetch = at_gate, .arg = &gate};
        caller->call.timeout_ms = caller->least_ms;
        caller->expected = ASIDE_E_TIMEOUT;
        caller->thread = thread_start(call_in_storm, caller);
    }
    for (int i = 0; i < CALLERS; i++)
        thread_join(callers[i].thread);
    CHECK_INT(STAT(cache, timeouts), CALLERS);
    gate_open(&gate);
    end_cache(cache);
}

TEST(deadlines_are_kept_in_a_storm)
{
    in_storm(callers_with_deadlines);
}

static void callers_of_old_flights(void)
{
    enum { CALLERS = 4, AGE_MS = 300 };
    struct caller callers[CALLERS];
    struct gate gate;
    aside_cache *cache = open_cache(AGE_MS, 5000);
    aside_cancel *token = NULL;
    gate_init(&gate);
    CHECK_STATUS(aside_cancel_new(&token), ASIDE_OK);
    memset(callers, 0, sizeof callers);
    for (int i = 0; i < CALLERS; i++) { /* each leads a flight of his own, so all know its age */
        static const char *const keys[CALLERS] = {"a", "b", "c", "d"};
        struct caller *caller = &callers[i];
        caller->cache = cache;
        caller->key = keys[i];
        caller->least_ms = AGE_MS;
        caller->call = (aside_call){ASIDE_CALL, .fetch = at_gate, .arg = &gate};
        caller->call.cancel = token;
        caller->expected = ASIDE_E_FETCH_TIMEOUT;
        caller->thread = thread_start(call_in_storm, caller);
    }
    for (int i = 0; i < CALLERS; i++)
        thread_join(callers[i].thread);
    gate_open(&gate);
    aside_cancel_unref(token);
    end_cache(cache);
}

TEST(the_age_of_a_flight_is_kept_in_a_storm)
{
    in_storm(callers_of_old_flights);
}

/* Some wait for the flight with nothing to end their wait, some with a token, some with a deadline. */
static void callers_that_wait(void)
{
    enum { CALLERS = 9 };
    const struct timespec nap = {0, 10000000};
    struct caller callers[CALLERS];
    struct gate gate;
    aside_cache *cache = open_cache(ASIDE_FOREVER, 5000);
    aside_cancel *token = NULL;
    gate_init(&gate);
    CHECK_STATUS(aside_cancel_new(&token), ASIDE_OK);
    memset(callers, 0, sizeof callers);
    for (int i = 0; i < CALLERS; i++) { /* the first one leads, on his own thread */
        struct caller *caller = &callers[i];
        caller->cache = cache;
        caller->key = "k";
        caller->least_ms = 300;
        caller->call = (aside_call){ASIDE_CALL, .fetch = at_gate, .arg = &gate};
        if (i % 3 == 1)
            caller->call.cancel = token;
        if (i % 3 == 2)
            caller->call.timeout_ms = 600000;
        caller->expected = i % 3 == 1 ? ASIDE_E_CANCELLED : ASIDE_OK;
        caller->thread = thread_start(call_in_storm, caller);
        if (i == 0)
            gate_wait_arrived(&gate, 1);
    }
    WAIT_UNTIL(STAT(cache, misses_joined) == CALLERS - 1);
    for (int i = 0; i < 40; i++) {
        nanosleep(&nap, NULL);
        for (int j = 0; j < CALLERS; j++)
            CHECK(!atomic_load(&callers[j].done));
    }
    aside_cancel_fire(token);
    for (int i = 1; i < CALLERS; i += 3)
        thread_join(callers[i].thread);
    for (int i = 0; i < CALLERS; i++)
        CHECK_INT(atomic_load(&callers[i].done), i % 3 == 1);
    gate_open(&gate);
    for (int i = 0; i < CALLERS; i++)
        if (i % 3 != 1)
            thread_join(callers[i].thread);
    aside_cancel_unref(token);
    end_cache(cache);
}

TEST(a_wait_ends_by_what_it_waits_for_and_by_nothing_else_in_a_storm)
{
    in_storm(callers_that_wait);
}

/* The fetch is held by the test, so that both closers wait as long as close_wait_ms says. */
static void *close_in_storm(void *cache)
{
    timer_t storm = storm_begin();
    int64_t began_ns = test_now_ns();
    aside_status status = aside_close(cache);
    int64_t took_ms = (test_now_ns() - began_ns) / 1000000;
    storm_end(storm);
    CHECK_STATUS(status, ASIDE_OK);
    CHECK(took_ms >= 250 && took_ms <= 300 + NOT_MUCH_LATER_MS);
    return NULL;
}

static void *lead(void *arg)
{
    struct caller *caller = arg;
    aside_result result = ASIDE_RESULT_INIT;
    CHECK_STATUS(aside_get_with_fetch(caller->cache, ASIDE_STR("k"), &caller->call, &result),
                 ASIDE_E_CLOSED);
    return NULL;
}

static void closers(void)
{
    struct gate gate;
    aside_cache *cache = open_cache(ASIDE_FOREVER, 300);
    struct caller caller = {.cache = cache, .call = {ASIDE_CALL, .fetch = at_gate, .arg = &gate}};
    caller.call.timeout_ms = 600000;
    gate_init(&gate);
    pthread_t leader = thread_start(lead, &caller);
    gate_wait_arrived(&gate, 1);
    pthread_t first = thread_start(close_in_storm, cache);
    pthread_t second = thread_start(close_in_storm, cache);
    thread_join(first);
    thread_join(second);
    thread_join(leader);
    gate_open(&gate);
    end_cache(cache);
}

TEST(a_close_waits_as_long_as_it_should_in_a_storm)
{
    in_storm(closers);
}

/* ---- everything else in a storm ------------------------------------------------------------------ */

static void same_bytes(const void *data, size_t size, void *key)
{
    CHECK(size == 16 && memcmp(data, key, 16) == 0);
}

static void *work_in_storm(void *cache)
{
    timer_t storm = storm_begin();
    int64_t until_ns = test_now_ns() + 500000000;
    while (test_now_ns() < until_ns) {
        char key[16] = "", buffer[16];
        aside_call call = {ASIDE_CALL, .fetch = at_once, .timeout_ms = 600000};
        aside_result result = ASIDE_RESULT_INIT;
        size_t size = 0;
        snprintf(key, sizeof key, "key %d", (int)(test_random() % 1000));
        CHECK_STATUS(aside_set(cache, key, sizeof key, key, sizeof key, ASIDE_FOREVER), ASIDE_OK);
        aside_status status = aside_copy(cache, key, sizeof key, buffer, sizeof buffer, &size);
        CHECK(status == ASIDE_MISS ||
              (status == ASIDE_OK && size == 16 && !memcmp(key, buffer, 16)));
        status = aside_visit(cache, key, sizeof key, same_bytes, key);
        CHECK(status == ASIDE_MISS || status == ASIDE_OK);
        status = aside_delete(cache, key, sizeof key);
        CHECK(status == ASIDE_MISS || status == ASIDE_OK);
        CHECK_STATUS(aside_get_with_fetch(cache, key, 4, &call, &result), ASIDE_OK);
        CHECK(aside_value_size(result.value) == 4);
        aside_value_unref(result.value);
        (void)aside_delete(cache, key, 4);
    }
    storm_end(storm);
    return NULL;
}

static void workers(void)
{
    enum { WORKERS = 4 };
    aside_cache *cache = open_cache(ASIDE_FOREVER, 5000);
    pthread_t threads[WORKERS];
    for (int i = 0; i < WORKERS; i++)
        threads[i] = thread_start(work_in_storm, cache);
    for (int i = 0; i < WORKERS; i++)
        thread_join(threads[i]);
    end_cache(cache);
}

TEST(every_call_does_its_work_in_a_storm)
{
    in_storm(workers);
}

/* ---- threads of the library ---------------------------------------------------------------------- */

/* Those of a crash end a test, and SIGCONT takes pending stops back. */
static bool may_be_sent(int number)
{
    static const int spared[] = {SIGKILL, SIGSTOP, SIGCONT, SIGSEGV,
                                 SIGBUS,  SIGILL,  SIGFPE,  SIGABRT};
    for (size_t i = 0; i < sizeof spared / sizeof *spared; i++)
        if (number == spared[i])
            return false;
    return number < 32 || number >= SIGRTMIN;
}

/* A call that is answered on a worker while the reaper runs. */
static void by_worker(aside_cache *cache)
{
    aside_call call = {ASIDE_CALL, .fetch = at_once, .timeout_ms = 600000};
    aside_result result = ASIDE_RESULT_INIT;
    call.ttl_ms = ASIDE_NO_STORE;
    CHECK_STATUS(aside_get_with_fetch(cache, ASIDE_STR("k"), &call, &result), ASIDE_OK);
    aside_value_unref(result.value);
}

/* Every thread but the library's blocks all signals: one that is sent to the process stays pending. */
TEST(a_signal_for_the_process_is_never_handled_by_a_thread_of_the_library)
{
    sigset_t all, before, pending;
    aside_cache *cache = open_cache(ASIDE_FOREVER, 5000);
    by_worker(cache); /* made while nothing is blocked here */
    WAIT_UNTIL(process_threads_named("aside-") == 2);
    sigfillset(&all);
    CHECK_INT(pthread_sigmask(SIG_SETMASK, &all, &before), 0);
    for (int number = 1; number <= SIGRTMAX; number++) {
        if (!may_be_sent(number))
            continue;
        handle(number);
        CHECK_INT(kill(getpid(), number), 0);
    }
    for (int i = 0; i < 200; i++)
        by_worker(cache);
    CHECK_INT(strays, 0);
    sigpending(&pending);
    for (int number = 1; number <= SIGRTMAX; number++)
        if (may_be_sent(number))
            CHECK_INT(sigismember(&pending, number), 1);
    CHECK_INT(pthread_sigmask(SIG_SETMASK, &before, NULL), 0); /* now they are handled, here */
    sigpending(&pending);
    for (int number = 1; number <= SIGRTMAX; number++)
        if (may_be_sent(number))
            CHECK_INT(sigismember(&pending, number), 0);
    CHECK_INT(strays, 0);
    end_cache(cache);
}

/* ---- the process --------------------------------------------------------------------------------- */

struct process {
    struct sigaction action[65];
    sigset_t mask;
    stack_t alternate;
    char directory[4096];
    char locale[256];
    locale_t thread_locale;
    mode_t creation_mask;
    int descriptors;
    int nice;
    struct rlimit limits[RLIM_NLIMITS];
    char **environment;
    char name[16];
    size_t environment_sum;
    int dumpable, subreaper;
};

extern char **environ;

static size_t sum_of_environment(void)
{
    size_t sum = 0;
    for (char **at = environ; at && *at; at++)
        for (const char *c = *at; *c; c++)
            sum = sum * 31 + (unsigned char)*c;
    return sum;
}

static struct process look_at_process(void)
{
    struct process seen;
    memset(&seen, 0, sizeof seen);
    for (int number = 1; number < 65; number++)
        (void)sigaction(number, NULL, &seen.action[number]);
    pthread_sigmask(SIG_SETMASK, NULL, &seen.mask);
    sigaltstack(NULL, &seen.alternate);
    CHECK(getcwd(seen.directory, sizeof seen.directory) != NULL);
    snprintf(seen.locale, sizeof seen.locale, "%s", setlocale(LC_ALL, NULL));
    seen.thread_locale = uselocale((locale_t)0);
    seen.creation_mask = umask(0);
    umask(seen.creation_mask);
    seen.descriptors = process_descriptors();
    seen.nice = getpriority(PRIO_PROCESS, 0);
    for (int i = 0; i < (int)RLIM_NLIMITS; i++)
        getrlimit(i, &seen.limits[i]);
    seen.environment = environ;
    seen.environment_sum = sum_of_environment();
    prctl(PR_GET_NAME, seen.name);
    seen.dumpable = prctl(PR_GET_DUMPABLE);
    prctl(PR_GET_CHILD_SUBREAPER, &seen.subreaper);
    return seen;
}

static void check_same(const struct process *before)
{
    struct process now = look_at_process();
    for (int number = 1; number < 65; number++) {
        CHECK(now.action[number].sa_handler == before->action[number].sa_handler);
        CHECK_INT(now.action[number].sa_flags, before->action[number].sa_flags);
        for (int other = 1; other < 65; other++)
            CHECK_INT(sigismember(&now.action[number].sa_mask, other),
                      sigismember(&before->action[number].sa_mask, other));
        CHECK_INT(sigismember(&now.mask, number), sigismember(&before->mask, number));
    }
    CHECK(now.alternate.ss_sp == before->alternate.ss_sp);
    CHECK(strcmp(now.directory, before->directory) == 0);
    CHECK(strcmp(now.locale, before->locale) == 0);
    CHECK(now.thread_locale == before->thread_locale);
    CHECK_INT(now.creation_mask, before->creation_mask);
    CHECK_INT(now.descriptors, before->descriptors);
    CHECK_INT(now.nice, before->nice);
    CHECK(memcmp(now.limits, before->limits, sizeof now.limits) == 0);
    CHECK(now.environment == before->environment);
    CHECK(now.environment_sum == before->environment_sum);
    CHECK(strcmp(now.name, before->name) == 0);
    CHECK_INT(now.dumpable, before->dumpable);
    CHECK_INT(now.subreaper, before->subreaper);
}

/* Every kind of thread, wait and end that the library has. Looks in the middle as well. */
static void live_a_life(const struct process *before)
{
    aside_call call = {ASIDE_CALL, .fetch = at_gate, .timeout_ms = 20};
    aside_result result = ASIDE_RESULT_INIT;
    aside_value *value = NULL;
    static struct gate gate; /* a worker that is not waited for stands at it */
    aside_cache *cache = open_cache(1000, 20);
    gate_init(&gate);
    call.arg = &gate;
    for (int i = 0; i < 2000; i++)
        CHECK_STATUS(aside_set(cache, &i, sizeof i, &i, sizeof i, 1 + i % 5), ASIDE_OK);
    CHECK_STATUS(aside_get_with_fetch(cache, ASIDE_STR("held"), &call, &result), ASIDE_E_TIMEOUT);
    by_worker(cache);
    check_same(before);
    CHECK_STATUS(aside_clear(cache), ASIDE_OK);
    CHECK_STATUS(aside_set(cache, ASIDE_STR("v"), "v", 1, ASIDE_FOREVER), ASIDE_OK);
    CHECK_STATUS(aside_get(cache, ASIDE_STR("v"), &value), ASIDE_OK);
    CHECK_STATUS(aside_close(cache), ASIDE_OK); /* the worker at the gate is not waited for */
    check_same(before);
    aside_unref(cache);
    aside_value_unref(value);
    gate_open(&gate);
    WAIT_UNTIL(process_threads_named("aside-") == 0);
}

static void process_stays_as_it_is(void)
{
    struct process before = look_at_process();
    live_a_life(&before);
    check_same(&before);
}

TEST(the_process_stays_as_it_is)
{
    process_stays_as_it_is();
}

/* The same with other settings than a fresh process has: nothing is put back to a default either. */
TEST(an_unusual_process_stays_as_it_is)
{
    static char alternate[1 << 16];
    const stack_t stack = {.ss_sp = alternate, .ss_size = sizeof alternate};
    sigset_t some;
    handle(SIGPIPE);
    handle(SIGCHLD);
    handle(STORM);
    signal(SIGUSR1, SIG_IGN);
    sigemptyset(&some);
    sigaddset(&some, SIGUSR2);
    sigaddset(&some, SIGRTMIN + 1);
    CHECK_INT(pthread_sigmask(SIG_BLOCK, &some, NULL), 0);
    CHECK_INT(sigaltstack(&stack, NULL), 0);
    CHECK_INT(chdir("/"), 0);
    umask(0127);
    CHECK(setlocale(LC_ALL, "C") != NULL);
    CHECK(setlocale(LC_CTYPE, "C.UTF-8") != NULL || setlocale(LC_CTYPE, "POSIX") != NULL);
    process_stays_as_it_is();
}

/* What a program that this one starts would inherit: no descriptor of the library's. */
TEST(a_program_that_is_started_meanwhile_inherits_no_descriptor)
{
    bool before[256];
    aside_cache *cache;
    for (int fd = 0; fd < 256; fd++)
        before[fd] = fcntl(fd, F_GETFD) >= 0;
    cache = open_cache(1000, 20);
    by_worker(cache);
    for (int fd = 0; fd < 256; fd++) {
        int flags = fcntl(fd, F_GETFD);
        CHECK(before[fd] || flags < 0 || flags & FD_CLOEXEC);
        CHECK_INT(flags >= 0, before[fd]); /* nor has it any */
    }
    end_cache(cache);
}
