/*
 * renewal.c -- a certificate that ends within the day, and its successor at the same URL.
 */
#include <stdlib.h>

#include "example.h"
#include "messages.h"
#include "report.h"

struct renewal {
    struct example *example;
    char *old, *new; /* messages, signed before and after the renewal */
};

static void expect(struct renewal *renewal, const char *line, enum verdict wanted,
                   unsigned long downloads, const char *when)
{
    struct check check = check_line(&renewal->example->certs, line);
    unsigned long taken = server_take_downloads(&renewal->example->world.server, PAGE("brief"));
    report_check(check.verdict == wanted, "%s: %s, not %s", when, verdict_text(check.verdict),
                 verdict_text(wanted));
    report_check(taken == downloads, "%s: %lu downloads, not %lu", when, taken, downloads);
}

/* It ends 36 hours after the program's start, of which the expiry scenario has used 24: a ttl of 24
 * hours would keep it for twelve too many. */
void renewal_scenario(struct example *example)
{
    struct world *world = &example->world;
    struct renewal renewal = {example, message_new(world, BRIEF, PAGE("brief"), 1),
                              message_new(world, RENEWED, PAGE("brief"), 2)};
    aside_clear(example->certs.cache);
    expect(&renewal, renewal.old, VERIFIED, 1, "at first");
    expect(&renewal, renewal.old, VERIFIED, 0, "from the cache");
    world->hands.set_s = HOURS(13);
    expect(&renewal, renewal.old, UNTRUSTED, 0, "with the wall clock set past its last day");
    world->hands.set_s = 0;
    server_put(&world->server, PAGE("brief"), MHD_HTTP_OK, world->signers[RENEWED].cert_pem);
    hands_move(&world->hands, HOURS(13), example->certs.cache);
    expect(&renewal, renewal.new, VERIFIED, 1, "after the renewal");
    expect(&renewal, renewal.old, FORGED, 0, "signed with the key of before");
    report_line("renewal", "a certificate that ends in 12 h is kept for 12 h: its successor is "
                           "found by the first who asks");
    free(renewal.old);
    free(renewal.new);
}
