/*
 * world.h -- all that the program would find outside of it: who signs, who vouches for whom, what
 * the server has, and what time it is.
 */
#ifndef WORLD_H
#define WORLD_H

#include "authority.h"
#include "certs.h"
#include "hands.h"
#include "server.h"

/* Who signs. The first three are as they should be. */
enum signer {
    ORDERS,
    BILLING,
    STOCK,
    BRIEF,     /* its certificate ends in 36 hours */
    RENEWED,   /* what follows on it, at the same URL */
    OUTDATED,  /* its certificate has ended */
    NEIGHBOUR, /* of the same authority, but made out to another name */
    STRANGER,  /* made out to the right name by another authority */
    SIGNERS
};

#define PAGE(name) "/certificates/" name ".pem"

struct world {
    struct identity authority, impostor, host; /* host: the server's own, for TLS */
    struct identity signers[SIGNERS];
    struct server server;
    struct hands hands;
    char *huge;              /* a page that is larger than a certificate can be */
    char authority_part[32]; /* of URLs: "127.0.0.1:54321" */
    char port[8];
};

/* Errors end the program. */
void world_open(struct world *world);
void world_close(struct world *world);

/* Opens the cache on this world, or ends the program. */
void world_certs(struct world *world, struct certs *certs, long timeout_ms);

/* The URL of a page, as the allow-list has it. */
void world_url(const struct world *world, const char *page, struct allowed_url *url);

#endif
