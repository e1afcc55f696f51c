/*
 * bursts.c -- everybody asks for one certificate at once: one download, where there would be as
 * many as there are callers.
 */
#include "example.h"
#include "report.h"
#include "wave.h"

#define MS 1e6

static void check_wave(const struct example *example, const struct wave *wave,
                       unsigned long downloads)
{
    size_t callers = example->crew.size;
    report_check(wave->verdicts[VERIFIED] == callers, "%lu of %zu messages verified",
                 wave->verdicts[VERIFIED], callers);
    report_check(downloads == 1, "%lu downloads, not 1", downloads);
    report_check(wave->led == 1, "%lu callers led a fetch, not 1", wave->led);
    report_check(wave->shared == callers, "%lu of %zu callers shared it", wave->shared, callers);
}

void cold_scenario(struct example *example)
{
    struct server *server = &example->world.server;
    struct wave wave = wave_run(&example->crew, &example->certs, example->orders, server);
    example->downloads_cold = server_take_downloads(server, PAGE("orders"));
    example->shared_cold = wave.shared;
    check_wave(example, &wave, example->downloads_cold);
    report_line("cold start", "%zu callers at once: downloads=%lu shared=%lu, %.1f ms",
                example->crew.size, example->downloads_cold, wave.shared,
                (double)wave.last_ns / MS);
}

void expiry_scenario(struct example *example)
{
    struct server *server = &example->world.server;
    struct hands *hands = &example->world.hands;
    hands_move(hands, HOURS(24) - MINUTES(1), example->certs.cache);
    struct wave before = wave_run(&example->crew, &example->certs, example->orders, NULL);
    unsigned long downloads = server_take_downloads(server, PAGE("orders"));
    report_check(downloads == 0 && before.hits == example->crew.size,
                 "%lu downloads a minute before expiry", downloads);
    hands_move(hands, MINUTES(1), example->certs.cache);
    struct wave wave = wave_run(&example->crew, &example->certs, example->orders, server);
    example->downloads_expiry = server_take_downloads(server, PAGE("orders"));
    example->shared_expiry = wave.shared;
    check_wave(example, &wave, example->downloads_expiry);
    report_line("expiry",
                "%zu callers after 23 h 59 min: downloads=%lu; a minute later: downloads=%lu "
                "shared=%lu, %.1f ms",
                example->crew.size, downloads, example->downloads_expiry, wave.shared,
                (double)wave.last_ns / MS);
}
