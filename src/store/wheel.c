/* store/wheel -- see wheel.h. */
#include "store/wheel.h"

#include "base/clock.h"

#define LOWEST_SHIFT 22
#define LEVEL_SHIFT 5

static unsigned shift_of(unsigned level)
{
    return LOWEST_SHIFT + LEVEL_SHIFT * level;
}

static void ring_splice(struct entry_link *to, struct entry_link *from)
{
    if (ring_empty(from))
        return;
    from->next->prev = to->prev;
    from->prev->next = to;
    to->prev->next = from->next;
    to->prev = from->prev;
    ring_init(from);
}

void wheel_init(struct wheel *wheel, int64_t now_ns)
{
    wheel->now_ns = now_ns;
    ring_init(&wheel->due);
    for (unsigned level = 0; level < WHEEL_LEVELS; level++)
        for (unsigned i = 0; i < WHEEL_RINGS; i++)
            ring_init(&wheel->rings[level][i]);
}

/* The lowest level whose rings reach the deadline; what is beyond them all waits in the last
 * ring. */
static struct entry_link *ring_for(struct wheel *wheel, int64_t deadline_ns)
{
    if (deadline_ns < wheel->now_ns)
        deadline_ns = wheel->now_ns;
    for (unsigned level = 0;; level++) {
        uint64_t now = (uint64_t)wheel->now_ns >> shift_of(level);
        uint64_t then = (uint64_t)deadline_ns >> shift_of(level);
        if (then - now < WHEEL_RINGS)
            return &wheel->rings[level][then % WHEEL_RINGS];
        if (level == WHEEL_LEVELS - 1)
            return &wheel->rings[level][(now + WHEEL_RINGS - 1) % WHEEL_RINGS];
    }
}

void wheel_add(struct wheel *wheel, struct entry *entry)
{
    struct entry_cold *cold = entry_cold(entry);
    int64_t deadline_ns = load_relaxed(&cold->serve_until_ns);
    if (deadline_ns == CLOCK_NEVER)
        cold->link.next = cold->link.prev = NULL;
    else
        ring_put_behind(ring_for(wheel, deadline_ns)->prev, &cold->link);
}

void wheel_remove(struct entry *entry)
{
    struct entry_link *link = &entry_cold(entry)->link;
    if (!link->next)
        return;
    ring_take_out(link);
    link->next = link->prev = NULL;
}

/* The present ring of the lowest level is passed every time: what is over within it is due. */
void wheel_advance(struct wheel *wheel, int64_t now_ns)
{
    if (now_ns < wheel->now_ns)
        return;
    for (unsigned level = 0; level < WHEEL_LEVELS; level++) {
        uint64_t from = (uint64_t)wheel->now_ns >> shift_of(level);
        uint64_t to = (uint64_t)now_ns >> shift_of(level);
        if (level > 0 && from == to)
            break;
        uint64_t first = level == 0 ? from : from + 1;
        if (to - first >= WHEEL_RINGS)
            first = to - WHEEL_RINGS + 1;
        for (uint64_t tick = first; tick <= to; tick++)
            ring_splice(&wheel->due, &wheel->rings[level][tick % WHEEL_RINGS]);
    }
    wheel->now_ns = now_ns;
}

struct entry *wheel_due(struct wheel *wheel)
{
    if (ring_empty(&wheel->due))
        return NULL;
    struct entry *entry = entry_of_link(wheel->due.next);
    wheel_remove(entry);
    __builtin_prefetch(entry_of_link(wheel->due.next)); /* will be asked for next, if any is */
    return entry;
}

static bool ring_check(const struct entry_link *ring, FILE *why)
{
    const struct entry_link *link = ring;
    do {
        if (link->next->prev != link) {
            if (why)
                fprintf(why, "wheel: a ring is broken\n");
            return false;
        }
        link = link->next;
    } while (link != ring);
    return true;
}

bool wheel_check(const struct wheel *wheel, FILE *why)
{
    bool sound = ring_check(&wheel->due, why);
    for (unsigned level = 0; level < WHEEL_LEVELS; level++)
        for (unsigned i = 0; i < WHEEL_RINGS; i++)
            sound = ring_check(&wheel->rings[level][i], why) && sound;
    return sound;
}
