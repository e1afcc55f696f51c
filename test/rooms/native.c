/*
 * native.c -- base/native: threads with every signal blocked and with a stack that is large enough,
 * or none at all and nothing changed (P3, P5).
 */
#include "rooms.h"

#include "base/native.h"

#include <dlfcn.h>
#include <errno.h>
#include <limits.h>

/* In front of the C library's. It is also called by sanitizers that are not ready yet. */
static _Atomic bool no_attributes;

__attribute__((no_sanitize("address", "thread", "undefined"))) int pthread_attr_init(
    pthread_attr_t *attributes)
{
    if (no_attributes)
        return ENOMEM;
    int (*next)(pthread_attr_t *) =
        (int (*)(pthread_attr_t *))dlsym(RTLD_NEXT, "pthread_attr_init");
    return next(attributes);
}

/* What a thread finds when it begins. */
struct found {
    sigset_t blocked;
    size_t stack_bytes;
    char name[16];
};

static void *look_main(void *arg)
{
    struct found *found = arg;
    pthread_attr_t own;
    native_name_thread("aside-test");
    CHECK_INT(pthread_getname_np(pthread_self(), found->name, sizeof found->name), 0);
    CHECK_INT(pthread_sigmask(SIG_SETMASK, NULL, &found->blocked), 0);
    CHECK_INT(pthread_getattr_np(pthread_self(), &own), 0);
    CHECK_INT(pthread_attr_getstacksize(&own, &found->stack_bytes), 0);
    pthread_attr_destroy(&own);
    return arg;
}

static struct found look_in_thread(size_t stack_bytes)
{
    struct found found;
    pthread_t thread;
    CHECK(native_thread(&thread, stack_bytes, look_main, &found));
    CHECK(thread_join(thread) == &found);
    return found;
}

/* SIGUSR1 is blocked, SIGUSR2 is not. */
static void block_one(void)
{
    sigset_t one;
    sigemptyset(&one);
    sigaddset(&one, SIGUSR1);
    CHECK_INT(pthread_sigmask(SIG_SETMASK, &one, NULL), 0);
}

static void check_one_is_blocked(void)
{
    sigset_t now;
    CHECK_INT(pthread_sigmask(SIG_SETMASK, NULL, &now), 0);
    CHECK(sigismember(&now, SIGUSR1) && !sigismember(&now, SIGUSR2));
}

TEST(a_thread_has_every_signal_blocked_and_a_name)
{
    block_one();
    struct found found = look_in_thread(0);
    for (int signal = 1; signal < 32; signal++)
        CHECK(signal == SIGKILL || signal == SIGSTOP || sigismember(&found.blocked, signal));
    CHECK(strcmp(found.name, "aside-test") == 0);
    check_one_is_blocked();
}

TEST(a_stack_is_what_was_asked_for_and_never_too_small)
{
    static const size_t large = 1 << 20;
    CHECK(look_in_thread(large).stack_bytes >= large);
    CHECK(look_in_thread(large + 1).stack_bytes >= large + 1);
    CHECK(look_in_thread(1).stack_bytes >= (size_t)sysconf(_SC_THREAD_STACK_MIN));
    CHECK(look_in_thread(0).stack_bytes > look_in_thread(1).stack_bytes); /* the system's default */
}

TEST(a_thread_that_the_system_refuses_changes_nothing)
{
    struct found found;
    pthread_t thread;
    block_one();
    process_fail_thread(1, false);
    CHECK(!native_thread(&thread, 0, look_main, &found));
    CHECK_INT(process_thread_calls(), 1);
    CHECK_INT(threads_created(), 0);
    check_one_is_blocked();
}

TEST(without_memory_for_its_attributes_no_thread_is_begun)
{
    struct found found;
    pthread_t thread;
    block_one();
    process_fail_thread(0, false);
    no_attributes = true;
    CHECK(!native_thread(&thread, 1 << 20, look_main, &found));
    no_attributes = false;
    CHECK_INT(process_thread_calls(), 0);
    check_one_is_blocked();
    CHECK(native_thread(&thread, 1 << 20, look_main, &found));
    thread_join(thread);
}
