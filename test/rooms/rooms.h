/*
 * rooms.h -- what the tests of single rooms share: the ground that a room stands on, entries made by
 * hand, a reader that stays inside the epoch, and a child that is expected to abort.
 */
#ifndef ASIDE_ROOMS_H
#define ASIDE_ROOMS_H

#include "base/clock.h"
#include "base/epoch.h"
#include "base/hash.h"
#include "base/home.h"
#include "base/lock.h"
#include "contract/helpers.h"
#include "store/budget.h"
#include "store/entry.h"
#include "store/index.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>

/* ---- the ground ---------------------------------------------------------------------------------- */

struct ground {
    struct ledger ledger;
    struct mem mem;
    struct home *home;
    struct hash_seed seed;
    struct budget budget;
};

static inline void ground_init(struct ground *ground, size_t max_bytes, size_t max_entries)
{
    uint8_t bytes[16];
    aside_alloc hooks = ledger_init(&ground->ledger);
    CHECK(mem_init(&ground->mem, &hooks));
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)test_random();
    CHECK(hash_seed_init(&ground->seed, bytes));
    ground->home = home_open(&ground->mem);
    CHECK(ground->home != NULL);
    ground->home->queues = max_bytes || max_entries;
    budget_init(&ground->budget, max_bytes, max_entries);
}

/* Nothing may be left, of memory or of what was reserved. */
static inline void ground_fini(struct ground *ground)
{
    home_close(ground->home);
    CHECK_INT(ground->ledger.live_blocks, 0);
    CHECK_INT(ground->ledger.live_bytes, 0);
    CHECK_INT(ground->budget.bytes, 0);
    CHECK_INT(ground->budget.entries, 0);
}

static inline uint64_t ground_hash(const struct ground *ground, const void *key, size_t key_len)
{
    return hash_bytes(&ground->seed, key, key_len);
}

/* An entry whose value is so many bytes 'v' and whose time is over at until_ns. */
static inline struct entry *entry_make(struct home *home, const void *key, size_t key_len,
                                       size_t size, int64_t now_ns, int64_t until_ns)
{
    struct entry *entry = entry_new(home, key, key_len, size);
    CHECK(entry != NULL);
    memset(entry->bytes + entry_value_offset(entry), 'v', size);
    entry_set_times(entry, now_ns, until_ns, 0);
    return entry;
}

/* ---- an index at rest ---------------------------------------------------------------------------- */

/* The entries of one chain, at most so many: how many there are. */
static inline unsigned chain_entries(const struct index_bucket *bucket, struct entry **entries,
                                     unsigned max)
{
    unsigned count = 0;
    while (bucket) {
        for (unsigned i = 0; i < INDEX_WORDS; i++) {
            struct entry *entry = index_entry(atomic_load(&bucket->word[i]));
            if (entry && count < max)
                entries[count] = entry;
            count += entry != NULL;
        }
        bucket = (const struct index_bucket *)(atomic_load(&bucket->link) & ~INDEX_FORWARD);
    }
    return count;
}

/* ---- a reader inside the epoch ------------------------------------------------------------------- */

struct stalled {
    struct gate gate;
    pthread_t thread;
};

static inline void *stalled_main(void *arg)
{
    struct stalled *stalled = arg;
    struct thread_record *self = thread_self();
    CHECK(self != NULL);
    epoch_enter(self);
    gate_pass(&stalled->gate);
    epoch_leave(self);
    return NULL;
}

static inline void stalled_begin(struct stalled *stalled)
{
    gate_init(&stalled->gate);
    stalled->thread = thread_start(stalled_main, stalled);
    gate_wait_arrived(&stalled->gate, 1);
}

static inline void stalled_end(struct stalled *stalled)
{
    gate_open(&stalled->gate);
    thread_join(stalled->thread);
    gate_fini(&stalled->gate);
}

/* ---- a clock that holds a thread up -------------------------------------------------------------- */

/* The first thread to read it but its maker's waits at the gate: a reaper's, before it asks for its
 * record. */
struct gated_clock {
    struct fake_clock fake;
    struct gate gate;
    pthread_t maker;
    _Atomic bool passed;
};

static inline int64_t gated_now(void *ctx)
{
    struct gated_clock *clock = ctx;
    int64_t now_ns = clock->fake.now_ns;
    if (!pthread_equal(pthread_self(), clock->maker) && !atomic_exchange(&clock->passed, true))
        gate_pass(&clock->gate);
    return now_ns;
}

static inline aside_clock gated_clock_init(struct gated_clock *clock)
{
    (void)fake_clock_init(&clock->fake);
    gate_init(&clock->gate);
    clock->maker = pthread_self();
    atomic_init(&clock->passed, false);
    return (aside_clock){gated_now, clock};
}

/* ---- a thread that waits ------------------------------------------------------------------------- */

/* As the kernel has it: state S in /proc. Under tools that run one thread at a time, any other. */
static inline bool thread_is_asleep(int tid)
{
    char path[64], line[256] = "";
    snprintf(path, sizeof path, "/proc/self/task/%d/stat", tid);
    FILE *file = fopen(path, "re");
    if (!file)
        return false;
    char *end = fgets(line, sizeof line, file) ? strrchr(line, ')') : NULL;
    fclose(file);
    return end && end[1] == ' ' && end[2] == 'S';
}

/* ---- what must end the process ------------------------------------------------------------------- */

#ifdef ASIDE_DEBUG
#define NEEDS_INVARIANTS() ((void)0)
#else
#define NEEDS_INVARIANTS() test_skip("this build does not check invariants")
#endif

static inline bool aborts(void (*fn)(void))
{
    fflush(NULL);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        const struct rlimit no_core = {0, 0};
        setrlimit(RLIMIT_CORE, &no_core);
        signal(SIGABRT, SIG_DFL);
        int nowhere = open("/dev/null", O_WRONLY | O_CLOEXEC);
        if (nowhere >= 0)
            dup2(nowhere, STDERR_FILENO);
        fn();
        _exit(0);
    }
    int status = 0;
    CHECK_INT(waitpid(pid, &status, 0), pid);
    return WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;
}

/* ---- numbers ------------------------------------------------------------------------------------- */

static inline size_t random_below(size_t bound)
{
    return (size_t)(test_random() % bound);
}

#endif
