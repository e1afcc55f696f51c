/*
 * resources.c -- what the library does to its process (P3): names and signals of its threads, its
 * descriptors, and that nothing is left behind.
 */
#include "helpers.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>

/* True if the task blocks every signal that can be blocked. */
static bool blocks_all_signals(const char *task)
{
    char path[300], line[256];
    uint64_t mask = 0;
    snprintf(path, sizeof path, "/proc/self/task/%s/status", task);
    FILE *file = fopen(path, "r");
    CHECK(file != NULL);
    while (fgets(line, sizeof line, file) != NULL)
        if (strncmp(line, "SigBlk:", 7) == 0)
            mask = strtoull(line + 7, NULL, 16);
    fclose(file);
    for (int sig = 1; sig < 32; sig++)
        if (sig != SIGKILL && sig != SIGSTOP && !(mask >> (sig - 1) & 1))
            return false;
    for (int sig = SIGRTMIN; sig <= SIGRTMAX; sig++)
        if (!(mask >> (sig - 1) & 1))
            return false;
    return true;
}

/* It keeps some signals for itself, whatever a thread blocks. */
static bool is_under_valgrind(void)
{
    const char *preloaded = getenv("LD_PRELOAD");
    return preloaded != NULL && strstr(preloaded, "vgpreload") != NULL;
}

TEST(the_librarys_threads_are_named_and_block_all_signals)
{
    if (is_under_valgrind())
        test_skip("valgrind keeps signals for itself");
    aside_options options = ASIDE_OPTIONS_INIT;
    aside_cache *cache = open_cache(&options);
    aside_cancel *token = token_new();
    struct source source;
    struct caller caller;
    source_init(&source, "v", true);
    caller_ask(&caller, cache, "k", &source, token);
    caller_start(&caller);
    gate_wait_arrived(&source.gate, 1);
    WAIT_UNTIL(process_threads_named("aside-") == 2); /* the reaper and a worker */
    int looked_at = 0;
    DIR *tasks = opendir("/proc/self/task");
    CHECK(tasks != NULL);
    for (struct dirent *task; (task = readdir(tasks)) != NULL;) {
        char path[300], name[32] = "";
        snprintf(path, sizeof path, "/proc/self/task/%s/comm", task->d_name);
        FILE *file = task->d_name[0] == '.' ? NULL : fopen(path, "r");
        if (file == NULL)
            continue;
        if (fgets(name, sizeof name, file) != NULL && strncmp(name, "aside-", 6) == 0) {
            CHECK(blocks_all_signals(task->d_name));
            looked_at++;
        }
        fclose(file);
    }
    closedir(tasks);
    CHECK_INT(looked_at, 2);
    gate_open(&source.gate);
    CHECK_STATUS(caller_join(&caller), ASIDE_OK);
    caller_drop(&caller);
    aside_cancel_unref(token);
    end_cache(cache);
}

TEST(every_descriptor_of_the_library_is_close_on_exec)
{
    bool before[1024];
    for (int fd = 0; fd < 1024; fd++)
        before[fd] = fcntl(fd, F_GETFD) >= 0;
    aside_options options = ASIDE_OPTIONS_INIT;
    aside_cache *cache = open_cache(&options);
    struct source source;
    struct caller caller;
    source_init(&source, "v", false);
    caller_ask(&caller, cache, "k", &source, NULL);
    caller.call.timeout_ms = 60000;
    CHECK_STATUS(caller_run(&caller), ASIDE_OK);
    caller_drop(&caller);
    for (int fd = 0; fd < 1024; fd++) {
        int flags = fcntl(fd, F_GETFD);
        if (!before[fd] && flags >= 0)
            CHECK(flags & FD_CLOEXEC);
    }
    end_cache(cache);
}

TEST(a_thousand_caches_leave_no_thread_no_descriptor_and_no_byte_behind)
{
    struct ledger ledger;
    aside_alloc alloc = ledger_init(&ledger);
    int descriptors = process_descriptors();
    struct source source;
    source_init(&source, "v", false);
    for (int i = 0; i < 1000; i++) {
        aside_options options = ASIDE_OPTIONS_INIT; /* with a reaper */
        options.alloc = alloc;
        aside_cache *cache = open_cache(&options);
        put(cache, "set", "v", ASIDE_FOREVER);
        if (i % 4 == 0) { /* and a worker */
            struct caller caller;
            caller_ask(&caller, cache, "k", &source, NULL);
            caller.call.timeout_ms = 60000;
            CHECK_STATUS(caller_run(&caller), ASIDE_OK);
            caller_drop(&caller);
        }
        if (i % 2 == 0)
            CHECK_STATUS(aside_close(cache), ASIDE_OK);
        aside_unref(cache);
    }
    WAIT_UNTIL(ledger.live_blocks == 0);
    CHECK_INT(ledger.live_bytes, 0);
    WAIT_UNTIL(process_threads_named("aside-") == 0); /* a sanitizer has threads of its own */
    CHECK_INT(process_descriptors(), descriptors);
}
