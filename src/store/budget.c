/* store/budget -- see budget.h. */
#include "store/budget.h"

void budget_init(struct budget *budget, size_t max_bytes, size_t max_entries)
{
    budget->max_bytes = max_bytes && max_bytes < BUDGET_MOST ? max_bytes : BUDGET_MOST;
    budget->max_entries = max_entries && max_entries < BUDGET_MOST ? max_entries : BUDGET_MOST;
    atomic_init(&budget->bytes, 0);
    atomic_init(&budget->entries, 0);
    atomic_init(&budget->lasting, 0);
}

static bool reserve(_Atomic size_t *used, size_t max, size_t more)
{
    if (more == 0)
        return true;
    size_t now = load_relaxed(used);
    do {
        if (more > max || now > max - more)
            return false;
    } while (!compare_swap_relaxed(used, &now, now + more));
    return true;
}

bool budget_reserve(struct budget *budget, size_t bytes, size_t entries)
{
    if (!reserve(&budget->bytes, budget->max_bytes, bytes))
        return false;
    if (reserve(&budget->entries, budget->max_entries, entries))
        return true;
    budget_refund(budget, bytes, 0);
    return false;
}

void budget_refund(struct budget *budget, size_t bytes, size_t entries)
{
    if (bytes)
        fetch_sub_relaxed(&budget->bytes, bytes);
    if (entries)
        fetch_sub_relaxed(&budget->entries, entries);
}

bool budget_reserve_lasting(struct budget *budget, size_t bytes)
{
    if (!budget_reserve(budget, bytes, 0))
        return false;
    fetch_add_relaxed(&budget->lasting, bytes);
    return true;
}

void budget_refund_lasting(struct budget *budget, size_t bytes)
{
    fetch_sub_relaxed(&budget->lasting, bytes);
    budget_refund(budget, bytes, 0);
}

void budget_recount(struct budget *budget, size_t bytes, size_t lasting, size_t entries)
{
    store_relaxed(&budget->bytes, bytes + lasting);
    store_relaxed(&budget->lasting, lasting);
    store_relaxed(&budget->entries, entries);
}

static bool fits(size_t used, size_t max, size_t more)
{
    return more <= max && used <= max - more;
}

bool budget_has(const struct budget *budget, const struct budget_room *room)
{
    return fits(load_relaxed(&budget->bytes), budget->max_bytes, room->bytes) &&
           fits(load_relaxed(&budget->entries), budget->max_entries, room->entries);
}

bool budget_could_have(const struct budget *budget, size_t bytes)
{
    return fits(load_relaxed(&budget->lasting), budget->max_bytes, bytes);
}
