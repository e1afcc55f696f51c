/* store/removal -- see removal.h. */
#include "store/removal.h"

#include "base/thread.h"

#include <pthread.h>

/* A thread that is telling, and inside of that perhaps another listener. */
struct telling {
    const struct telling *outer;
    const aside_on_remove *listener;
    struct link_list *removals;
};

void removal_note(struct link_list *removals, struct entry *entry, aside_cause cause)
{
    fetch_add_relaxed(&entry->head.refs, 1);
    entry->print = cause;
    list_push(removals, &entry_cold(entry)->queue);
}

static void tell_all(const aside_on_remove *listener, struct link_list *removals)
{
    while (removals->first) {
        struct entry *entry =
            entry_of_cold(container_of(list_pop(removals), struct entry_cold, queue));
        aside_value *value = entry_handle(entry); /* of its own: nobody may change its cost */
        listener->fn(listener->ctx, entry->bytes, entry->head.key_len, value,
                     (aside_cause)entry->print);
        aside_value_unref(value);
        aside_value_unref(&entry->head);
    }
}

static const struct telling *same_listener(const struct telling *telling,
                                           const aside_on_remove *listener)
{
    while (telling && telling->listener != listener)
        telling = telling->outer;
    return telling;
}

void removal_tell_some(const aside_on_remove *listener, struct link_list *removals)
{
    struct thread_record *self = thread_self();
    const struct telling *outer = self ? same_listener(self->telling, listener) : NULL;
    if (outer) {
        list_append(outer->removals, removals);
        return;
    }
    int cancel_state;
    struct telling telling = {self ? self->telling : NULL, listener, removals};
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel_state);
    if (self)
        self->telling = &telling;
    tell_all(listener, removals);
    if (self)
        self->telling = telling.outer;
    pthread_setcancelstate(cancel_state, NULL);
}
