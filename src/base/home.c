/* base/home -- see home.h. */
#include "base/home.h"

/* By account slot. Read by whoever has an entry that keeps the home alive. */
static _Atomic(struct home *) near_homes[HOME_FAR];

struct home *home_open(const struct mem *mem)
{
    struct home *home = mem_zalloc(mem, sizeof *home);
    if (!home)
        return NULL;
    home->mem = *mem;
    atomic_init(&home->pins, 1);
    if (!thread_account_open(&home->account)) {
        mem_free(mem, home);
        return NULL;
    }
    home->id = home->account.slot < HOME_FAR ? (uint8_t)home->account.slot : HOME_FAR;
    if (home->id != HOME_FAR)
        store_release(&near_homes[home->id], home);
    return home;
}

static void drop_pin(struct home *home)
{
    if (fetch_sub_acq_rel(&home->pins, 1) != 1)
        return;
    struct mem mem = home->mem;
    if (home->id != HOME_FAR)
        store_release(&near_homes[home->id], NULL);
    thread_account_close(&home->account);
    mem_free(&mem, home);
}

void home_close(struct home *home)
{
    drop_pin(home);
}

struct home *home_near(uint8_t id)
{
    return load_acquire(&near_homes[id]);
}

void home_pin(struct home *home, uint64_t bytes)
{
    fetch_add_relaxed(&home->pins, 1);
    fetch_add_relaxed(&home->pinned_bytes, bytes);
}

void home_unpin(struct home *home, uint64_t bytes)
{
    fetch_sub_relaxed(&home->pinned_bytes, bytes);
    drop_pin(home);
}
