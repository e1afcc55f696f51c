/*
 * unshared.c -- the cold start of a cache that only keeps: look, else download, and store. For
 * comparison; this is what not to copy.
 */
#include <stdatomic.h>

#include "download.h"
#include "example.h"
#include "report.h"

#define MS 1e6

struct unshared {
    struct certs_options *options;
    struct allowed_url url;
    aside_cache *cache;
    atomic_ulong answered;
};

static void free_cert(void *cert, void *ctx)
{
    (void)ctx;
    X509_free(cert);
}

static X509 *download_cert(struct unshared *unshared)
{
    const struct certs_options *options = unshared->options;
    struct download pem;
    X509 *cert = NULL;
    CURL *curl = download_open(options->authority_pem);
    if (curl != NULL && download(curl, unshared->url.text, options->timeout_ms, &pem) == 0)
        trust_read(&options->trust, pem.bytes, pem.size, hands_date(options->hands), &cert);
    download_close(curl);
    return cert;
}

static bool download_and_store(struct unshared *unshared)
{
    const struct allowed_url *url = &unshared->url;
    aside_value *value = NULL;
    X509 *cert = download_cert(unshared);
    if (cert == NULL)
        return false;
    aside_status status = aside_value_wrap(cert, 1, free_cert, NULL, &value);
    if (status == ASIDE_OK)
        status = aside_set_value(unshared->cache, url->text, url->len, value, ASIDE_FOREVER);
    else
        X509_free(cert);
    aside_value_unref(value);
    return status == ASIDE_OK;
}

static void found(const void *data, size_t size, void *ctx)
{
    (void)data, (void)size, (void)ctx;
}

static void ask(void *ctx, size_t member)
{
    struct unshared *unshared = ctx;
    const struct allowed_url *url = &unshared->url;
    (void)member;
    aside_status status = aside_visit(unshared->cache, url->text, url->len, found, NULL);
    if (status == ASIDE_OK || (status == ASIDE_MISS && download_and_store(unshared)))
        unshared->answered++;
}

/* How many come too late to download for themselves depends on the machine: said, not checked. */
void unshared_scenario(struct example *example)
{
    struct unshared unshared = {.options = &example->certs.options};
    struct server *server = &example->world.server;
    size_t callers = example->crew.size;
    if (aside_open(&unshared.cache, NULL) != ASIDE_OK)
        die("cannot open a cache");
    world_url(&example->world, PAGE("orders"), &unshared.url);
    int64_t begun_ns = hands_now_ns();
    crew_begin(&example->crew, ask, &unshared);
    crew_finish(&example->crew);
    int64_t took_ns = hands_now_ns() - begun_ns;
    example->downloads_unshared = server_take_downloads(server, PAGE("orders"));
    report_check(unshared.answered == callers, "%lu of %zu callers have a certificate",
                 (unsigned long)unshared.answered, callers);
    report_line("not shared", "%zu callers who look, and else download: downloads=%lu, %.1f ms",
                callers, example->downloads_unshared, (double)took_ns / MS);
    aside_close(unshared.cache);
    aside_unref(unshared.cache);
}
