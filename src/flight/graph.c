/* flight/graph -- see graph.h. */
#include "flight/graph.h"

#include "base/fork.h"
#include "base/lock.h"

#include <stddef.h>

static struct lock graph = LOCK_INIT(RANK_GRAPH);

static void fork_locks(struct fork_member *member, enum lock_rank rank,
                       void (*each)(struct lock *lock))
{
    (void)member;
    if (rank == RANK_GRAPH)
        each(&graph);
}

static const struct fork_ops fork_ops = {fork_locks, NULL};
static struct fork_member forks = {.ops = &fork_ops};

void graph_enlist(void)
{
    bool joined = fork_join(&forks);
    invariant(joined);
}

static bool is_inside(const struct thread_record *self, const struct flight *flight)
{
    const struct thread_fetch *f = self->fetches;
    while (f && (f->flight != flight || f->kind == FRAME_SUBMIT))
        f = f->outer;
    return f;
}

static bool is_awaited(const struct flight *flight, bool to_end)
{
    return to_end ? !load_acquire(&flight->ended) : !flight_is_settled(flight);
}

static bool leads_here(const struct thread_record *self, const struct flight *flight, bool to_end)
    REQUIRES(graph)
{
    while (flight && is_awaited(flight, to_end)) {
        if (is_inside(self, flight))
            return true;
        to_end = flight->awaits_end;
        flight = flight->blocked_on;
    }
    return false;
}

static void point(const struct thread_record *self, const struct flight *to, bool to_end)
    REQUIRES(graph)
{
    for (const struct thread_fetch *f = self->fetches; f; f = f->outer) {
        if (f->kind == FRAME_SUBMIT)
            continue; /* its fetch may be running elsewhere by now */
        struct flight *flight = (struct flight *)(uintptr_t)f->flight;
        flight->blocked_on = to;
        flight->awaits_end = to_end;
    }
}

bool graph_block(const struct thread_record *self, const struct flight *flight, bool to_end)
{
    if (!self->fetches)
        return true;
    lock_take(&graph);
    bool ring = leads_here(self, flight, to_end);
    if (!ring)
        point(self, flight, to_end);
    lock_release(&graph);
    return !ring;
}

void graph_unblock(const struct thread_record *self)
{
    if (!self->fetches)
        return;
    lock_take(&graph);
    point(self, NULL, false);
    lock_release(&graph);
}
