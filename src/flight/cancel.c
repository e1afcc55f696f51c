/* flight/cancel -- see cancel.h. */
#include "flight/cancel.h"

#include "base/lock.h"

#include <stddef.h>
#include <stdlib.h>

#define MAGIC 0x41544f4b /* "ATOK" */
#define STRIPES 64

struct aside_cancel {
    uint32_t magic;
    uint32_t stripe; /* immutable */
    _Atomic uint32_t refs;
    _Atomic bool fired;
    struct waiter *first; /* guarded by the stripe */
};

static struct lock stripes[STRIPES] = {[0 ... STRIPES - 1] = LOCK_INIT(RANK_TOKEN)};
static _Atomic uint32_t next_stripe;

bool cancel_is_token(const aside_cancel *token)
{
    return token->magic == MAGIC;
}

aside_status aside_cancel_new(aside_cancel **token)
{
    if (!token)
        return ASIDE_E_INVALID;
    struct aside_cancel *made = malloc(sizeof *made);
    if (!made)
        return ASIDE_E_NOMEM;
    made->magic = MAGIC;
    made->stripe = fetch_add_relaxed(&next_stripe, 1) % STRIPES;
    atomic_init(&made->refs, 1);
    atomic_init(&made->fired, false);
    made->first = NULL;
    *token = made;
    return ASIDE_OK;
}

aside_cancel *aside_cancel_ref(aside_cancel *token)
{
    if (token)
        fetch_add_relaxed(&token->refs, 1);
    return token;
}

void aside_cancel_unref(aside_cancel *token)
{
    if (!token || fetch_sub_acq_rel(&token->refs, 1) != 1)
        return;
    token->magic = 0;
    free(token);
}

int aside_cancel_fired(const aside_cancel *token)
{
    return token && load_acquire(&token->fired);
}

void aside_cancel_fire(aside_cancel *token)
{
    if (!token)
        return;
    struct lock *lock = &stripes[token->stripe];
    lock_take(lock);
    store_release(&token->fired, true);
    for (struct waiter *w = token->first; w; w = w->next)
        waiter_cancel(w);
    lock_release(lock);
}

void cancel_enlist(aside_cancel *token, struct waiter *waiter)
{
    if (!token)
        return;
    struct lock *lock = &stripes[token->stripe];
    lock_take(lock);
    if (load_acquire(&token->fired)) {
        waiter_cancel(waiter);
    } else {
        waiter->next = token->first;
        waiter->link = &token->first;
        if (token->first)
            token->first->link = &waiter->next;
        token->first = waiter;
    }
    lock_release(lock);
}

void cancel_delist(aside_cancel *token, struct waiter *waiter)
{
    if (!token)
        return;
    struct lock *lock = &stripes[token->stripe];
    lock_take(lock);
    if (waiter->link) {
        *waiter->link = waiter->next;
        if (waiter->next)
            waiter->next->link = waiter->link;
        waiter->link = NULL;
    }
    lock_release(lock);
}
