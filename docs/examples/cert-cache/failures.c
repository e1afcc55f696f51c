/*
 * failures.c -- a download that fails: everybody who waits is told the same, and nothing is kept.
 */
#include <stdio.h>

#include "download.h"
#include "example.h"
#include "report.h"
#include "wave.h"

#define SLOW_PART 20 /* the slow scenario's timeout is that part of the usual one */

const char *problem_text(int problem)
{
    static char text[32];
    if (problem < 0)
        return X509_verify_cert_error_string(-problem);
    if (problem < 100)
        return curl_easy_strerror((CURLcode)problem);
    snprintf(text, sizeof text, "HTTP %d", problem);
    return text;
}

static enum verdict ask_once(struct example *example, const char *line)
{
    return check_line(&example->certs, line).verdict;
}

static void check_nothing_kept(const struct example *example)
{
    size_t count = aside_count(example->certs.cache);
    report_check(count == 0, "%zu entries after a failure", count);
}

/* The server gets well: the very next call finds it so. */
static void recover(struct example *example, const char *line)
{
    struct server *server = &example->world.server;
    enum verdict ill = ask_once(example, line);
    unsigned long again = server_take_downloads(server, PAGE("orders"));
    report_check(ill == UNAVAILABLE && again == 1, "the next call did not ask again");
    server_put(server, PAGE("orders"), MHD_HTTP_OK, example->world.signers[ORDERS].cert_pem);
    enum verdict well = ask_once(example, line);
    again = server_take_downloads(server, PAGE("orders"));
    report_check(well == VERIFIED && again == 1, "the server is well, the caller is not");
}

void failing_scenario(struct example *example)
{
    struct server *server = &example->world.server;
    size_t callers = example->crew.size;
    aside_clear(example->certs.cache);
    server_put(server, PAGE("orders"), MHD_HTTP_SERVICE_UNAVAILABLE, "out of order\n");
    struct wave wave = wave_run(&example->crew, &example->certs, example->orders, server);
    example->downloads_failing = server_take_downloads(server, PAGE("orders"));
    report_check(example->downloads_failing == 1, "%lu downloads, not 1",
                 example->downloads_failing);
    report_check(wave.verdicts[UNAVAILABLE] == callers && wave.shared == callers && wave.alike &&
                     wave.problem == MHD_HTTP_SERVICE_UNAVAILABLE,
                 "not all callers were told the same");
    check_nothing_kept(example);
    recover(example, example->orders[0]);
    report_line("failing server",
                "%zu callers: downloads=%lu shared=%lu, all told \"%s\"; nothing kept, the next "
                "call asks again",
                callers, example->downloads_failing, wave.shared, problem_text(wave.problem));
}

/* How many join before the first is over depends on the machine; that all are told does not. */
void slow_scenario(struct example *example)
{
    struct server *server = &example->world.server;
    long usual_ms = example->certs.options.timeout_ms;
    aside_clear(example->certs.cache);
    example->certs.options.timeout_ms = usual_ms / SLOW_PART;
    server_hold(server);
    struct wave wave = wave_run(&example->crew, &example->certs, example->orders, NULL);
    server_release(server);
    example->certs.options.timeout_ms = usual_ms;
    unsigned long downloads = server_take_downloads(server, PAGE("orders"));
    report_check(wave.verdicts[UNAVAILABLE] == example->crew.size && wave.alike &&
                     wave.problem == CURLE_OPERATION_TIMEDOUT,
                 "not all callers were told the same");
    report_check(downloads <= wave.led, "%lu downloads for %lu fetches", downloads, wave.led);
    check_nothing_kept(example);
    report_line("slow server", "%zu callers: downloads=%lu, all told \"%s\", after %.0f ms",
                example->crew.size, downloads, problem_text(wave.problem),
                (double)wave.last_ns / 1e6);
}
