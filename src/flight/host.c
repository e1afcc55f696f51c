/* flight/host -- see host.h. */
#include "flight/host.h"

#include "flight/graph.h"

#include <string.h>

/* ---- making ---------------------------------------------------------------------------------- */

static void set_numbers(struct host *host, const aside_options *options)
{
    host->clock = options->clock;
    host->submit = options->submit;
    host->max_flight_age_ms =
        options->max_flight_age_ms == ASIDE_FOREVER ? 0 : options->max_flight_age_ms;
    host->close_wait_ms = options->close_wait_ms;
    host->max_waiters = options->max_waiters;
    host->generation = fork_generation();
}

static void set_atomics(struct host *host)
{
    atomic_init(&host->phase, HOST_OPEN);
    atomic_init(&host->refs, 1);
    atomic_init(&host->holds, 1);
    park_init(&host->ends);
}

static char *copy_name(const struct mem *mem, const char *name)
{
    size_t size = strlen(name ? name : "") + 1;
    char *copy = mem_alloc(mem, size);
    return copy ? memcpy(copy, name ? name : "", size) : NULL;
}

static struct executor *make_executor(const struct mem *mem, const aside_options *options)
{
    struct executor_options pool = {options->fetch_threads, options->max_queued,
                                    options->thread_stack_bytes, options->worker, options->clock};
    return executor_new(mem, &pool);
}

aside_status host_init(struct host *host, const struct host_ops *ops, const struct mem *mem,
                       const aside_options *options, size_t groups)
{
    host->ops = ops;
    set_numbers(host, options);
    flight_bound_init(&host->bound, options->max_flights, groups);
    host->name = copy_name(mem, options->name);
    if (!host->name)
        return ASIDE_E_NOMEM;
    host->home = home_open(mem);
    if (!host->home)
        goto fail_home;
    host->slot = host->home->account.slot;
    host->executor = make_executor(mem, options);
    if (!host->executor)
        goto fail_executor;
    set_atomics(host);
    return ASIDE_OK;

fail_executor:
    home_close(host->home);
fail_home:
    mem_free(mem, host->name);
    return ASIDE_E_NOMEM;
}

void host_fini(struct host *host)
{
    struct mem mem = host->home->mem;
    executor_unref(host->executor);
    home_close(host->home);
    park_fini(&host->ends);
    mem_free(&mem, host->name);
}

/* ---- holds ----------------------------------------------------------------------------------- */

void host_hold(struct host *host)
{
    fetch_add_relaxed(&host->holds, 1);
}

/* A visit or a call of this very thread may still need the host: then it has to end first. */
void host_release(struct host *host, uint32_t generation)
{
    if (generation != fork_generation() || fetch_sub_acq_rel(&host->holds, 1) != 1)
        return;
    struct thread_record *self = thread_self();
    if (!self || (self->visits == 0 && self->inside == 0)) {
        host->ops->free(host);
        return;
    }
    host->next_orphan = self->orphans;
    self->orphans = host;
    self->free_orphans = host_free_orphans;
}

void host_free_orphans(struct thread_record *self)
{
    while (self->visits == 0 && self->inside == 0 && self->orphans) {
        struct host *host = self->orphans;
        self->orphans = host->next_orphan;
        host->ops->free(host);
    }
}

/* The calls of this thread that it began without a record, innermost first. */
static _Thread_local struct host_call *unrecorded __attribute__((tls_model("initial-exec")));

void host_enter(struct host *host, struct host_call *call)
{
    int before;
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &before);
    host_enter_lightly(host, call);
    call->cancel_state = before;
}

void host_enter_lightly(struct host *host, struct host_call *call)
{
    call->cancel_state = HOST_CANCEL_UNTOUCHED;
    call->self = thread_self();
    if (call->self) {
        call->self->inside++;
        return;
    }
    call->held = host;
    call->generation = fork_generation();
    call->outer = unrecorded;
    unrecorded = call;
    host_hold(host);
}

void host_exit(const struct host_call *call)
{
    if (!call->self) {
        unrecorded = call->outer;
        host_release(call->held, call->generation);
    } else {
        call->self->inside--;
        if (unlikely(call->self->orphans))
            host_free_orphans(call->self);
    }
    if (call->cancel_state != HOST_CANCEL_UNTOUCHED)
        pthread_setcancelstate(call->cancel_state, NULL);
}

/* ---- flights --------------------------------------------------------------------------------- */

/* Who closes waits for its end; and who led it, if he could not leave. */
void host_flight_ended(struct host *host, struct flight *flight)
{
    if (!host_is_open(host))
        park_wake_all(&host->ends);
    store_release(&flight->ended, true);
    if (!flight_is_lost(flight))
        flight_wake_others(flight);
}

size_t host_flights(struct host *host)
{
    struct group *group;
    size_t all = 0;
    for (size_t i = 0; (group = host->ops->group(host, i)); i++) {
        group_lock(group);
        all += group->running;
        group_unlock(group);
    }
    return all;
}

/* ---- closing --------------------------------------------------------------------------------- */

static bool is_inside(const struct thread_fetch *from, const void *flight)
{
    while (from && from->flight != flight)
        from = from->outer;
    return from;
}

/* The flights under way that this very thread is inside of: nobody may wait for them here. */
static size_t own_flights(const struct host *host, const struct thread_record *self)
{
    size_t own = 0;
    for (const struct thread_fetch *f = self ? self->fetches : NULL; f; f = f->outer) {
        const struct flight *flight = f->flight;
        own += f->owner == host && !is_inside(f->outer, flight) && load_acquire(&flight->counted);
    }
    return own;
}

static bool is_in_callback(const struct host *host, const struct thread_record *self)
{
    return own_flights(host, self) > 0 ||
           pthread_equal(load_acquire(&host->closer), pthread_self()) ||
           (host->ops->is_own_thread && host->ops->is_own_thread(host)) ||
           executor_is_self(host->executor);
}

static struct flight *settle_one(struct group *group)
{
    group_lock(group);
    struct flight *flight = group->flights;
    if (flight) {
        fetch_add_relaxed(&flight->refs, 1);
        (void)group_settle(flight, ASIDE_E_CLOSED);
    }
    group_unlock(group);
    return flight;
}

/* Waiters get ASIDE_E_CLOSED; the fetches find their flights settled and store nothing. */
static void settle_flights(struct host *host)
{
    struct group *group;
    struct flight *flight;
    for (size_t i = 0; (group = host->ops->group(host, i)); i++) {
        while ((flight = settle_one(group))) {
            flight_wake(flight);
            flight_unref(flight);
        }
    }
}

static void wait_for_flights(struct host *host, size_t own, int64_t deadline_ns)
{
    struct parker parker;
    parker_init(&parker, 0);
    for (;;) {
        uint32_t ticket = park_ticket(&host->ends);
        if (host_flights(host) <= own || clock_precise(&host->clock) >= deadline_ns)
            break;
        park_wait(&host->ends, &parker, ticket, clock_alarm(&host->clock, deadline_ns));
    }
    parker_fini(&parker);
}

static void wait_until_closed(struct host *host)
{
    struct parker parker;
    parker_init(&parker, 0);
    for (;;) {
        uint32_t ticket = park_ticket(&host->ends);
        if (load_acquire(&host->phase) == HOST_CLOSED)
            break;
        park_wait(&host->ends, &parker, ticket, CLOCK_NEVER);
    }
    parker_fini(&parker);
}

static void close_first(struct host *host, struct thread_record *self)
{
    store_release(&host->closer, pthread_self());
    int64_t deadline_ns = clock_after_ms(clock_precise(&host->clock), host->close_wait_ms);
    host->ops->shut(host);
    settle_flights(host);
    if (host->ops->stop)
        host->ops->stop(host);
    executor_stop(host->executor);
    wait_for_flights(host, own_flights(host, self), deadline_ns);
    executor_join(host->executor, deadline_ns);
    if (host->ops->clean)
        host->ops->clean(host);
    store_release(&host->phase, HOST_CLOSED);
    park_wake_all(&host->ends);
}

/* True for the one who closes. */
static bool begin_closing(struct host *host, uint32_t *phase)
{
    do {
        *phase = load_acquire(&host->phase);
        if (*phase > HOST_HALF_CLOSED)
            return false;
    } while (!compare_swap(&host->phase, phase, HOST_CLOSING));
    return true;
}

void host_close(struct host *host)
{
    struct host_call call;
    uint32_t phase, generation = fork_generation();
    host_enter(host, &call);
    host_hold(host); /* others may give theirs back once they see it closed */
    if (begin_closing(host, &phase))
        close_first(host, call.self);
    else if (phase == HOST_CLOSING && !is_in_callback(host, call.self))
        wait_until_closed(host);
    host_release(host, generation);
    host_exit(&call);
}

/* Under the group's lock: the flights stay where they are meanwhile. */
static void wake_flights(struct group *group)
{
    group_lock(group);
    for (struct flight *flight = group->flights; flight; flight = flight->next)
        flight_nudge(flight);
    group_unlock(group);
}

void host_wake(struct host *host)
{
    struct group *group;
    for (size_t i = 0; (group = host->ops->group(host, i)); i++)
        wake_flights(group);
    executor_wake(host->executor);
    park_wake_all(&host->ends);
}

/* ---- references ------------------------------------------------------------------------------ */

void host_ref(struct host *host)
{
    fetch_add_relaxed(&host->refs, 1);
}

void host_unref(struct host *host)
{
    if (fetch_sub_acq_rel(&host->refs, 1) != 1)
        return;
    struct host_call call;
    host_enter(host, &call);
    host_close(host);
    host_release(host, fork_generation()); /* the users' hold crosses a fork */
    host_exit(&call);
}

/* ---- a fork ---------------------------------------------------------------------------------- */

static struct host *host_of(struct fork_member *member)
{
    return container_of(member, struct host, forks);
}

static void fork_locks(struct fork_member *member, enum lock_rank rank,
                       void (*each)(struct lock *lock))
{
    struct host *host = host_of(member);
    struct group *group;
    if (rank == RANK_SHARD)
        for (size_t i = 0; (group = host->ops->group(host, i)); i++)
            each(group->lock);
    if (rank == RANK_EXECUTOR)
        each(executor_lock(host->executor));
    if (host->ops->fork_locks)
        host->ops->fork_locks(host, rank, each);
}

/* Who was closing it does so no longer, unless it is this thread. What it had begun is finished as
 * far as that needs no memory: nothing is stored or led any more. */
static void reopen_closing(struct host *host)
{
    struct group *group;
    if (load_relaxed(&host->phase) != HOST_CLOSING ||
        pthread_equal(load_relaxed(&host->closer), pthread_self()))
        return;
    store_relaxed(&host->phase, HOST_HALF_CLOSED);
    for (size_t i = 0; (group = host->ops->group(host, i)); i++)
        group->closed = true;
}

/* As the record of a thread that has one: it still says what that is inside of. */
static size_t keep_own_holds(const struct host *host)
{
    size_t kept = 0;
    for (struct host_call *call = unrecorded; call; call = call->outer) {
        if (call->held != host)
            continue;
        call->generation = fork_generation();
        kept++;
    }
    return kept;
}

static void fork_child(struct fork_member *member)
{
    struct host *host = host_of(member);
    struct group *group;
    for (size_t i = 0; (group = host->ops->group(host, i)); i++)
        group_fork_child(group);
    store_relaxed(&host->holds, 1 + keep_own_holds(host));
    store_relaxed(&host->waiters_now, 0);
    store_relaxed(&host->bound.credits, host->bound.max);
    park_init(&host->ends);
    reopen_closing(host);
    executor_fork_child(host->executor);
    if (host->ops->fork_child)
        host->ops->fork_child(host);
}

static const struct fork_ops fork_ops = {fork_locks, fork_child};

/* The account of its home has joined before: nobody is refused any more. */
void host_enlist(struct host *host)
{
    host->forks.ops = &fork_ops;
    graph_enlist();
    bool joined = fork_join(&host->forks);
    invariant(joined);
}
