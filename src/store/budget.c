/* store/budget -- see budget.h. */
#include "store/budget.h"

void budget_init(struct budget *budget, size_t max_bytes, size_t max_entries)
{
    budget->max_bytes = max_bytes && max_bytes < BUDGET_MOST ? max_bytes : BUDGET_MOST;
    budget->max_entries = max_entries && max_entries < BUDGET_MOST ? max_entries : BUDGET_MOST;
    atomic_init(&budget->bytes, 0);
    atomic_init(&budget->entries, 0);
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
