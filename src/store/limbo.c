/* store/limbo -- see limbo.h. */
#include "store/limbo.h"

static void push(struct link_list *list, struct entry *entry)
{
    list_push(list, &entry_cold(entry)->link);
}

/* Of a list that is not empty. */
static struct entry *pop(struct link_list *list)
{
    invariant(list->first);
    return entry_of_link(list_pop(list));
}

void limbo_init(struct limbo *limbo)
{
    *limbo = (struct limbo){.tag = 0};
}

void limbo_add(struct limbo *limbo, struct entry *entry)
{
    limbo->bytes += entry_charge(entry);
    push(&limbo->open, entry);
}

bool limbo_empty(const struct limbo *limbo)
{
    return !limbo->open.first && !limbo->waiting.first && !limbo->ripe.first &&
           !limbo->visited.first;
}

static void collect(struct limbo *limbo)
{
    if (limbo->waiting.first && epoch_ripe(limbo->tag))
        list_append(&limbo->ripe, &limbo->waiting);
    if (!limbo->waiting.first && limbo->open.first) {
        limbo->tag = epoch_tag();
        list_append(&limbo->waiting, &limbo->open);
    }
}

void limbo_step(struct limbo *limbo, bool pressed)
{
    if (!pressed && !limbo_has_batch(limbo))
        return;
    collect(limbo);
    /* Two steps end a grace period if no reader is inside; a third turn is for what was open. */
    for (unsigned i = 0; i < 2 && limbo->waiting.first; i++) {
        epoch_advance();
        collect(limbo);
    }
}

/* An entry that a visit names goes aside until the visit is over: nobody else can come to name
 * it. */
static struct entry *take_unnamed(struct limbo *limbo, const struct epoch_names *names)
{
    struct entry *entry = pop(&limbo->ripe);
    size_t charge = entry_charge(entry);
    limbo->bytes -= charge;
    if (!epoch_is_named(names, entry))
        return entry;
    limbo->visited_bytes += charge;
    push(&limbo->visited, entry);
    return NULL;
}

static struct entry *take_visited(struct limbo *limbo, const struct epoch_names *names)
{
    struct entry *entry = pop(&limbo->visited);
    if (epoch_is_named(names, entry)) {
        push(&limbo->visited, entry);
        return NULL;
    }
    limbo->visited_bytes -= entry_charge(entry);
    return entry;
}

unsigned limbo_take(struct limbo *limbo, struct entry **entries, unsigned max)
{
    if (!limbo->ripe.first && !limbo->visited.first)
        return 0;
    struct epoch_names names;
    epoch_named(&names);
    unsigned taken = 0;
    size_t visited = limbo->visited.count;
    for (unsigned looked = 0; looked < max; looked++) {
        struct entry *entry = NULL;
        if (looked < visited && looked < (max + 1) / 2)
            entry = take_visited(limbo, &names);
        else if (limbo->ripe.first)
            entry = take_unnamed(limbo, &names);
        if (entry)
            entries[taken++] = entry;
    }
    return taken;
}
