/* flight/executor -- see executor.h. */
#include "flight/executor.h"

#include "base/check.h"
#include "base/clock.h"
#include "base/fork.h"
#include "base/native.h"

#include <pthread.h>

enum worker_phase { WORKER_ALIVE, WORKER_ENDED, WORKER_LEFT };

struct worker {
    struct executor *executor;
    pthread_t thread;
    enum worker_phase phase;     /* guarded by lock */
    struct worker *next, **link; /* guarded by lock */
    uint32_t generation;         /* immutable: of the process that made it */
    bool starting;               /* counted as such by the executor; the worker's own */
    bool started;                /* the start hook has succeeded; the worker's own */
    void *context;               /* the worker's own */
};

struct executor {
    struct mem mem;                  /* immutable */
    struct executor_options options; /* immutable */
    _Atomic uint32_t refs;
    struct park work; /* idle workers sleep here */
    struct park ends; /* executor_join sleeps here */

    struct lock lock;
    struct job *first, *last; /* guarded by lock */
    size_t queued;            /* guarded by lock */
    struct worker *workers;   /* guarded by lock: all that are not LEFT */
    size_t threads;           /* guarded by lock: alive, or being made */
    size_t idle;              /* guarded by lock */
    size_t starting;          /* guarded by lock: made, but not yet at the queue */
    size_t leftovers;         /* guarded by lock */
    bool stopping;            /* guarded by lock */
    struct worker *lost;      /* guarded by lock: of before a fork */
};

struct executor *executor_new(const struct mem *mem, const struct executor_options *options)
{
    struct executor *executor = mem_zalloc(mem, sizeof *executor);
    if (!executor)
        return NULL;
    executor->mem = *mem;
    executor->options = *options;
    atomic_init(&executor->refs, 1);
    park_init(&executor->work);
    park_init(&executor->ends);
    lock_init(&executor->lock, RANK_EXECUTOR);
    return executor;
}

static void free_workers(struct executor *executor, struct worker *list)
{
    while (list) {
        struct worker *next = list->next;
        mem_free(&executor->mem, list);
        list = next;
    }
}

void executor_unref(struct executor *executor)
{
    if (fetch_sub_acq_rel(&executor->refs, 1) != 1)
        return;
    free_workers(executor, executor->lost);
    park_fini(&executor->work);
    park_fini(&executor->ends);
    lock_fini(&executor->lock);
    struct mem mem = executor->mem;
    mem_free(&mem, executor);
}

bool executor_has_threads(const struct executor *executor)
{
    return executor->options.max_threads > 0;
}

bool executor_binds_fetches(const struct executor *executor)
{
    return executor->options.hooks.start;
}

/* ---- the queue ------------------------------------------------------------------------------- */

static void enqueue(struct executor *executor, struct job *job) REQUIRES(executor->lock)
{
    job->next = NULL;
    job->prev = executor->last;
    if (executor->last)
        executor->last->next = job;
    else
        executor->first = job;
    executor->last = job;
    job->queued = true;
    executor->queued++;
}

static void dequeue(struct executor *executor, struct job *job) REQUIRES(executor->lock)
{
    if (job->prev)
        job->prev->next = job->next;
    else
        executor->first = job->next;
    if (job->next)
        job->next->prev = job->prev;
    else
        executor->last = job->prev;
    job->queued = false;
    executor->queued--;
}

bool executor_take(struct executor *executor, struct job *job)
{
    lock_take(&executor->lock);
    bool mine = job->queued;
    if (mine)
        dequeue(executor, job);
    lock_release(&executor->lock);
    return mine;
}

bool executor_take_stuck(struct executor *executor, struct job *job)
{
    lock_take(&executor->lock);
    bool mine = job->queued && executor->idle < executor->queued;
    if (mine)
        dequeue(executor, job);
    lock_release(&executor->lock);
    return mine;
}

/* ---- a worker -------------------------------------------------------------------------------- */

/* A job to do, or NULL when it is time to go home. */
static struct job *next_job(struct worker *worker)
{
    struct executor *executor = worker->executor;
    struct parker parker;
    struct job *job = NULL;
    parker_init(&parker, 0);
    lock_take(&executor->lock);
    executor->starting -= worker->starting;
    worker->starting = false;
    while (!(job = executor->first) && !executor->stopping) {
        executor->idle++;
        uint32_t ticket = park_ticket(&executor->work);
        lock_release(&executor->lock);
        park_wait(&executor->work, &parker, ticket, CLOCK_NEVER);
        lock_take(&executor->lock);
        executor->idle--;
    }
    if (job)
        dequeue(executor, job);
    lock_release(&executor->lock);
    parker_fini(&parker);
    return job;
}

/* A new worker that is of no use takes the job it was made for, to refuse it. */
static struct job *take_to_refuse(struct executor *executor)
{
    lock_take(&executor->lock);
    executor->starting--;
    struct job *job = executor->first;
    if (job)
        dequeue(executor, job);
    lock_release(&executor->lock);
    return job;
}

/* Jobs lie in the queue that nobody is about to take. */
static bool is_short_handed(const struct executor *executor) REQUIRES(executor->lock)
{
    return executor->idle + executor->starting < executor->queued &&
           executor->threads < executor->options.max_threads && !executor->stopping;
}

static void unlist(struct worker *worker)
{
    *worker->link = worker->next;
    if (worker->next)
        worker->next->link = worker->link;
}

/* A worker is about to be made. */
static void announce(struct executor *executor) REQUIRES(executor->lock)
{
    executor->threads++;
    executor->starting++;
}

static bool hire(struct executor *executor);
static aside_status give_up(struct executor *executor, const struct job *own);

static bool is_lost(const struct worker *worker)
{
    return worker->generation != fork_generation();
}

/* The last thing a worker does. One that goes early, because a fetch ends its thread or the start
 * hook failed, is joined by nobody, and whoever waits in the queue needs another. */
static void worker_end(struct worker *worker, bool early)
{
    if (is_lost(worker))
        return; /* and the executor may be gone */
    struct executor *executor = worker->executor;
    const aside_worker *hooks = &executor->options.hooks;
    if (worker->started && hooks->stop)
        hooks->stop(hooks->ctx, worker->context);
    if (is_lost(worker))
        return;
    lock_take(&executor->lock);
    executor->threads--;
    bool more = early && is_short_handed(executor);
    bool left = worker->phase == WORKER_LEFT;
    if (early && !left) {
        unlist(worker);
        pthread_detach(worker->thread);
        left = true;
    }
    if (!left)
        worker->phase = WORKER_ENDED;
    if (more)
        announce(executor);
    lock_release(&executor->lock);
    if (left)
        mem_free(&executor->mem, worker);
    if (more && !hire(executor))
        (void)give_up(executor, NULL);
    park_wake_all(&executor->ends);
    executor_unref(executor);
}

static void worker_unwinds(void *worker)
{
    worker_end(worker, true);
}

/* False: the hook has failed, and with it the job that the worker was made for. */
static bool worker_start(struct worker *worker)
{
    const aside_worker *hooks = &worker->executor->options.hooks;
    aside_status status = hooks->start ? hooks->start(hooks->ctx, &worker->context) : ASIDE_OK;
    if (is_lost(worker))
        return false;
    worker->started = status == ASIDE_OK;
    worker->starting = worker->started;
    struct job *job = worker->started ? NULL : take_to_refuse(worker->executor);
    if (job)
        job->refuse(job, ASIDE_E_WORKER, status);
    return worker->started;
}

static void *worker_main(void *its_worker)
{
    struct worker *worker = its_worker;
    native_name_thread("aside-fetch");
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
    pthread_cleanup_push(worker_unwinds, worker);
    if (worker_start(worker)) {
        struct job *job;
        while (!is_lost(worker) && (job = next_job(worker)))
            job->run(job, worker->context);
        worker_end(worker, false);
    } else {
        worker_end(worker, true);
    }
    pthread_cleanup_pop(0);
    return NULL;
}

/* Under the lock from here to the list, so that no worker is made behind the back of
 * executor_join(). */
static bool start_thread(struct executor *executor, struct worker *worker) REQUIRES(executor->lock)
{
    if (executor->stopping)
        return false;
    worker->executor = executor;
    worker->generation = fork_generation();
    worker->next = executor->workers;
    worker->link = &executor->workers;
    if (worker->next)
        worker->next->link = &worker->next;
    executor->workers = worker;
    fetch_add_relaxed(&executor->refs, 1);
    if (native_thread(&worker->thread, executor->options.stack_bytes, worker_main, worker))
        return true;
    unlist(worker);
    (void)fetch_sub_acq_rel(&executor->refs, 1);
    return false;
}

/* A new worker, who was announced. */
static bool hire(struct executor *executor)
{
    struct worker *worker = mem_zalloc(&executor->mem, sizeof *worker);
    lock_take(&executor->lock);
    struct worker *lost = executor->lost;
    executor->lost = NULL;
    bool hired = worker && start_thread(executor, worker);
    if (!hired) {
        executor->threads--;
        executor->starting--;
    }
    lock_release(&executor->lock);
    free_workers(executor, lost);
    if (!hired)
        mem_free(&executor->mem, worker);
    return hired;
}

/* A job in the queue if there is nobody to come to it, now or later; and why. */
static struct job *stranded(struct executor *executor, aside_status *why)
{
    lock_take(&executor->lock);
    struct job *job = executor->threads == 0 ? executor->first : NULL;
    *why = executor->stopping ? ASIDE_E_CLOSED : ASIDE_E_BUSY;
    if (job)
        dequeue(executor, job);
    lock_release(&executor->lock);
    return job;
}

/* No worker could be made. Others will come to the queue, if there are others; if not, nothing may
 * lie there for ever, those included that counted on this one. ASIDE_E_BUSY if the caller's own
 * job is his again. */
static aside_status give_up(struct executor *executor, const struct job *own)
{
    aside_status status = ASIDE_OK, why;
    struct job *job;
    while ((job = stranded(executor, &why))) {
        if (job == own)
            status = why;
        else
            job->refuse(job, why, 0);
    }
    return status;
}

aside_status executor_submit(struct executor *executor, struct job *job)
{
    const struct executor_options *options = &executor->options;
    lock_take(&executor->lock);
    bool full = options->max_queued && executor->queued >= options->max_queued;
    if (executor->stopping || full || options->max_threads == 0) {
        aside_status status = executor->stopping ? ASIDE_E_CLOSED : ASIDE_E_BUSY;
        lock_release(&executor->lock);
        return status;
    }
    enqueue(executor, job);
    bool wanted = is_short_handed(executor);
    if (wanted)
        announce(executor);
    lock_release(&executor->lock);
    park_wake_one(&executor->work);
    if (!wanted || hire(executor))
        return ASIDE_OK;
    return give_up(executor, job);
}

bool executor_is_self(struct executor *executor)
{
    bool self = false;
    lock_take(&executor->lock);
    for (struct worker *w = executor->workers; w && !self; w = w->next)
        self = pthread_equal(w->thread, pthread_self());
    lock_release(&executor->lock);
    return self;
}

/* ---- leftovers ------------------------------------------------------------------------------- */

void executor_note_leftover(struct executor *executor, int change)
{
    lock_take(&executor->lock);
    executor->leftovers += (size_t)change;
    lock_release(&executor->lock);
}

bool executor_is_clogged(struct executor *executor)
{
    lock_take(&executor->lock);
    bool clogged =
        executor->leftovers > 0 && 2 * executor->leftovers >= executor->options.max_threads;
    lock_release(&executor->lock);
    return clogged;
}

void executor_gauge(struct executor *executor, size_t *queued, size_t *threads)
{
    lock_take(&executor->lock);
    *queued = executor->queued;
    *threads = executor->threads;
    lock_release(&executor->lock);
}

/* ---- a fork ---------------------------------------------------------------------------------- */

struct lock *executor_lock(struct executor *executor)
{
    return &executor->lock;
}

static bool is_own(const struct worker *worker)
{
    return pthread_equal(worker->thread, pthread_self());
}

/* The one that forked is still in its main function: its memory stays. */
static void lose_workers(struct executor *executor)
{
    struct worker *next;
    for (struct worker *w = executor->workers; w; w = next) {
        next = w->next;
        w->next = executor->lost;
        if (!is_own(w))
            executor->lost = w;
    }
    executor->workers = NULL;
}

void executor_fork_child(struct executor *executor) NO_LOCK_ANALYSIS
{
    park_init(&executor->work);
    park_init(&executor->ends);
    while (executor->first)
        dequeue(executor, executor->first);
    lose_workers(executor);
    executor->threads = executor->idle = executor->starting = executor->leftovers = 0;
    store_relaxed(&executor->refs, 1);
}

/* ---- stopping -------------------------------------------------------------------------------- */

void executor_stop(struct executor *executor)
{
    struct job *job;
    do {
        lock_take(&executor->lock);
        executor->stopping = true;
        job = executor->first;
        if (job)
            dequeue(executor, job);
        lock_release(&executor->lock);
        if (job)
            job->refuse(job, ASIDE_E_CLOSED, 0);
    } while (job);
    park_wake_all(&executor->work);
}

/* The next worker that is not waited for any longer. One that has ended is to be buried; one that
 * has not, because patience is over or it is this very thread, is let go here. */
static struct worker *dismiss(struct executor *executor, bool patient, bool *ended)
    REQUIRES(executor->lock)
{
    for (struct worker *w = executor->workers; w; w = w->next) {
        *ended = w->phase == WORKER_ENDED;
        if (*ended)
            return w;
        if (patient && !is_own(w))
            continue;
        unlist(w);
        w->phase = WORKER_LEFT;
        pthread_detach(w->thread);
        return w;
    }
    return NULL;
}

/* Its thread may still be in its thread-specific destructors, which may close as well: so it is
 * listed until it has been joined, and does not join itself. */
static void bury(struct executor *executor, struct worker *worker)
{
    if (is_own(worker))
        pthread_detach(worker->thread);
    else
        pthread_join(worker->thread, NULL);
    lock_take(&executor->lock);
    unlist(worker);
    lock_release(&executor->lock);
    mem_free(&executor->mem, worker);
}

void executor_wake(struct executor *executor)
{
    park_wake_all(&executor->ends);
}

void executor_join(struct executor *executor, int64_t deadline_ns)
{
    const aside_clock *clock = &executor->options.clock;
    struct parker parker;
    parker_init(&parker, 0);
    for (;;) {
        bool ended = false;
        uint32_t ticket = park_ticket(&executor->ends);
        bool patient = clock_precise(clock) < deadline_ns;
        lock_take(&executor->lock);
        struct worker *worker = dismiss(executor, patient, &ended);
        bool done = !worker && !executor->workers;
        lock_release(&executor->lock);
        if (done)
            break;
        if (worker && ended)
            bury(executor, worker);
        else if (!worker)
            park_wait(&executor->ends, &parker, ticket, clock_alarm(clock, deadline_ns));
    }
    parker_fini(&parker);
}
