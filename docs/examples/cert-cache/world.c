/*
 * world.c -- certificates are made at each start, and live in memory.
 */
#include "world.h"

#include <openssl/obj_mac.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "report.h"

#define NAME "notifications.example" /* that signing certificates are made out to */
#define HOST "127.0.0.1"
#define HUGE_SIZE ((size_t)1 << 20)
#define DAYS(n) (HOURS(24) * (n))

/* ---- who signs ------------------------------------------------------------------------------- */

static struct identity authority(const char *name, time_t now)
{
    struct identity_plan plan = {
        name,
        now - DAYS(365),
        now + DAYS(3650),
        {{NID_basic_constraints, "critical,CA:TRUE"}, {NID_key_usage, "critical,keyCertSign"}}};
    return identity_new(&plan, NULL);
}

/* from and until: seconds from now */
static struct identity signer(const struct identity *issuer, const char *alternative, int64_t from,
                              int64_t until)
{
    time_t now = time(NULL);
    struct identity_plan plan = {
        "a signer",
        now + from,
        now + until,
        {{NID_subject_alt_name, alternative}, {NID_key_usage, "critical,digitalSignature"}}};
    return identity_new(&plan, issuer);
}

static void make_identities(struct world *world)
{
    const struct identity *issuer = &world->authority;
    time_t now = time(NULL);
    world->authority = authority("the authority", now);
    world->impostor = authority("the authority", now);
    world->host = signer(issuer, "IP:" HOST, -DAYS(1), DAYS(90));
    for (int i = 0; i < SIGNERS; i++) {
        const char *to = i == NEIGHBOUR ? "DNS:neighbour.example" : "DNS:" NAME;
        int64_t until = i == BRIEF ? HOURS(36) : i == OUTDATED ? -DAYS(1) : DAYS(90);
        world->signers[i] = signer(i == STRANGER ? &world->impostor : issuer, to, -DAYS(30), until);
    }
}

/* ---- what the server has --------------------------------------------------------------------- */

static void fill_server(struct world *world)
{
    static const struct {
        const char *path;
        enum signer signer;
    } pages[] = {
        {PAGE("orders"), ORDERS},     {PAGE("billing"), BILLING},   {PAGE("stock"), STOCK},
        {PAGE("brief"), BRIEF},       {PAGE("outdated"), OUTDATED}, {PAGE("neighbour"), NEIGHBOUR},
        {PAGE("stranger"), STRANGER},
    };
    for (size_t i = 0; i < sizeof pages / sizeof pages[0]; i++)
        server_put(&world->server, pages[i].path, MHD_HTTP_OK,
                   world->signers[pages[i].signer].cert_pem);
    server_put(&world->server, PAGE("broken"), MHD_HTTP_SERVICE_UNAVAILABLE, "out of order\n");
    server_put(&world->server, PAGE("huge"), MHD_HTTP_OK, world->huge);
    server_redirect(&world->server, PAGE("moved"), PAGE("orders"));
}

static void open_server(struct world *world)
{
    char *key = identity_key_pem(&world->host);
    server_open(&world->server, world->host.cert_pem, key);
    free(key);
    snprintf(world->port, sizeof world->port, "%u", (unsigned)world->server.port);
    snprintf(world->authority_part, sizeof world->authority_part, HOST ":%s", world->port);
    fill_server(world);
}

/* ---- life ------------------------------------------------------------------------------------ */

void world_open(struct world *world)
{
    world->huge = malloc(HUGE_SIZE + 1);
    if (world->huge == NULL)
        die("out of memory");
    memset(world->huge, 'x', HUGE_SIZE);
    world->huge[HUGE_SIZE] = '\0';
    world->hands.moved_s = world->hands.set_s = 0;
    make_identities(world);
    open_server(world);
}

void world_close(struct world *world)
{
    server_close(&world->server);
    for (int i = 0; i < SIGNERS; i++)
        identity_free(&world->signers[i]);
    identity_free(&world->host);
    identity_free(&world->impostor);
    identity_free(&world->authority);
    free(world->huge);
}

static struct allow allow_list(const struct world *world)
{
    return (struct allow){"https", HOST, world->port, PAGE("*")};
}

void world_certs(struct world *world, struct certs *certs, long timeout_ms)
{
    struct certs_options options = {
        .allow = allow_list(world),
        .authority_pem = world->authority.cert_pem,
        .hands = &world->hands,
        .timeout_ms = timeout_ms,
    };
    if (!trust_open(&options.trust, world->authority.cert_pem, NAME))
        die("OpenSSL (package libssl3) cannot read the authority's certificate");
    aside_status status = certs_open(certs, &options);
    if (status != ASIDE_OK)
        die("cannot open a cache: %s", aside_strerror(status));
}

void world_url(const struct world *world, const char *page, struct allowed_url *url)
{
    struct allow allow = allow_list(world);
    char text[ALLOW_MAX_URL];
    snprintf(text, sizeof text, "https://%s%s", world->authority_part, page);
    if (!allow_url(&allow, text, url))
        die("%s is not allowed", text);
}
