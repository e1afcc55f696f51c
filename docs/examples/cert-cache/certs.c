/*
 * certs.c -- the cache of certificates.
 *
 * A value is an X509 that OpenSSL has parsed and verified, wrapped with its destructor: a hit has
 * neither to download nor to parse. Many threads read it at once, and none changes it: what OpenSSL
 * works out about a certificate and keeps inside it, the verification has brought about before the
 * cache has it.
 */
#include "certs.h"

#include <stdio.h>

#include "download.h"

#define TTL_MS ((int64_t)24 * 3600 * 1000)
#define DOWNLOADS_AT_ONCE 4
#define COST ((size_t)8 << 10) /* what OpenSSL keeps for a certificate, roughly */

/* ---- workers: each has a libcurl handle, and with it a connection that stays open ------------ */

static aside_status start_worker(void *ctx, void **worker)
{
    const struct certs *certs = ctx;
    *worker = download_open(certs->options.authority_pem);
    return *worker != NULL ? ASIDE_OK : ASIDE_E_NOMEM;
}

static void stop_worker(void *ctx, void *worker)
{
    (void)ctx;
    download_close(worker);
}

/* ---- a miss: what one caller does for all that miss together --------------------------------- */

static void free_cert(void *cert, void *ctx)
{
    (void)ctx;
    X509_free(cert);
}

/* A certificate that ends sooner is asked for again then: its successor is there by that time. */
static int64_t ttl_ms(const X509 *cert, time_t now)
{
    int64_t left_ms = trust_left_s(cert, now) * 1000;
    return left_ms < TTL_MS ? left_ms : TTL_MS;
}

static aside_status give(aside_fetch *fetch, X509 *cert, time_t now)
{
    aside_value *value;
    int64_t ttl = ttl_ms(cert, now);
    aside_status status = aside_value_wrap(cert, COST, free_cert, NULL, &value);
    if (status != ASIDE_OK) {
        X509_free(cert);
        return status;
    }
    status = aside_fetch_set_ttl(fetch, ttl > 0 ? ttl : ASIDE_NO_STORE);
    if (status != ASIDE_OK) {
        aside_value_unref(value);
        return status;
    }
    return aside_fetch_give(fetch, value);
}

static aside_status fetch_cert(aside_fetch *fetch, void *arg)
{
    struct certs *certs = arg;
    struct download pem;
    X509 *cert = NULL;
    size_t len;
    char url[ALLOW_MAX_URL];
    const char *key = aside_fetch_key(fetch, &len);
    time_t now = hands_date(certs->options.hands);
    snprintf(url, sizeof url, "%.*s", (int)len, key);
    int problem = download(aside_fetch_worker(fetch), url, certs->options.timeout_ms, &pem);
    if (problem == 0)
        problem = trust_read(&certs->options.trust, pem.bytes, pem.size, now, &cert);
    return problem == 0 ? give(fetch, cert, now) : aside_fetch_fail(fetch, problem);
}

static struct certs_answer fetch_and_use(struct certs *certs, const struct allowed_url *url,
                                         certs_use_fn *use, void *ctx)
{
    aside_result result = ASIDE_RESULT_INIT;
    aside_call call = {ASIDE_CALL, .fetch = fetch_cert, .arg = certs};
    /* Longer than a download may take: an answer that comes, comes to everybody. */
    call.timeout_ms = 2 * (int64_t)certs->options.timeout_ms;
    aside_status status = aside_get_with_fetch(certs->cache, url->text, url->len, &call, &result);
    if (status == ASIDE_OK)
        use(aside_value_data(result.value), ctx);
    aside_value_unref(result.value);
    return (struct certs_answer){status, result.outcome, result.shared, result.fetch_error};
}

/* ---- a hit ----------------------------------------------------------------------------------- */

struct visit {
    certs_use_fn *use;
    void *ctx;
};

static void visit_cert(const void *data, size_t size, void *ctx)
{
    const struct visit *visit = ctx;
    (void)size;
    visit->use(data, visit->ctx);
}

/* A visit first: it takes no lock and writes nothing that threads share, not even a counter on the
 * certificate that all of them look at; and there is no handle to give back. */
struct certs_answer certs_use(struct certs *certs, const struct allowed_url *url, certs_use_fn *use,
                              void *ctx)
{
    struct visit visit = {use, ctx};
    aside_status status = aside_visit(certs->cache, url->text, url->len, visit_cert, &visit);
    if (status == ASIDE_MISS)
        return fetch_and_use(certs, url, use, ctx);
    return (struct certs_answer){status,
                                 status == ASIDE_OK ? ASIDE_OUTCOME_HIT : ASIDE_OUTCOME_NONE, 0, 0};
}

/* ---- life ------------------------------------------------------------------------------------ */

aside_status certs_open(struct certs *certs, const struct certs_options *options)
{
    aside_options cache = ASIDE_OPTIONS_INIT;
    certs->options = *options;
    cache.name = "certificates";
    cache.clock = hands_clock(options->hands);
    cache.worker = (aside_worker){start_worker, stop_worker, certs};
    cache.fetch_threads = DOWNLOADS_AT_ONCE;
    cache.max_bytes = (size_t)16 << 20;
    /* A download ends by its own timeout: callers need no other bound, and neither does closing. */
    cache.max_flight_age_ms = 3 * (int64_t)options->timeout_ms;
    cache.close_wait_ms = ASIDE_FOREVER;
    return aside_open(&certs->cache, &cache);
}

void certs_close(struct certs *certs)
{
    aside_close(certs->cache);
    aside_unref(certs->cache);
}
